"""Recipes for darks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niripipe.primitives import NIRI

recipe_tags = frozenset({"NIRI", "CAL", "DARK"})
blocked_tags = frozenset({"PROCESSED"})


def makeProcessedDark(p: NIRI) -> None:
    """Combine raw darks of one set-up into a processed dark (``_dark``).

    In quality assessment, where frames arrive one at a time, those that came before join in.
    """
    p.prepare()
    p.checkCalibrationInputs()
    p.addDQ(add_illum_mask=False)
    with p.frame_by_frame():
        p.nonlinearityCorrect()
        p.ADUToElectrons()
        p.addVAR(poisson_noise=True, read_noise=True)
    if p.context.mode == "qa":
        p.addToList(purpose="forStack")
        p.getList(purpose="forStack")
    p.stackDarks()
    p.storeProcessedDark()


recipes = {"sq": (makeProcessedDark,), "ql": (makeProcessedDark,), "qa": (makeProcessedDark,)}
