"""Recipes for imaging flats."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niripipe.primitives import NIRI

recipe_tags = frozenset({"NIRI", "IMAGE", "CAL", "FLAT"})
blocked_tags = frozenset({"PROCESSED"})


def makeProcessedFlat(p: NIRI) -> None:
    """Combine lamp-on and lamp-off flats into a normalised processed flat (``_flat``).

    In quality assessment, where frames arrive one at a time, those that came before join in.
    """
    p.prepare()
    p.checkCalibrationInputs()
    p.addDQ()
    with p.frame_by_frame():
        p.nonlinearityCorrect()
        p.ADUToElectrons()
        p.addVAR(poisson_noise=True, read_noise=True)
    if p.context.mode == "qa":
        p.addToList(purpose="forFlat")
        p.getList(purpose="forFlat")
    p.makeLampFlat()
    p.normalizeFlat()
    p.thresholdFlatfield()
    p.storeProcessedFlat()


def makeProcessedBPM(p: NIRI) -> None:
    """Make a bad pixel mask (``_bpm``) from flats and short darks; the flats come first in the list."""
    p.prepare()
    p.checkCalibrationInputs()
    p.ADUToElectrons()
    p.selectFromInputs(tags="DARK", outstream="darks")
    p.selectFromInputs(tags="FLAT")
    p.stackFrames(stream="darks")
    p.makeLampFlat()
    p.normalizeFlat()
    p.makeBPM()
    p.storeBPM()


recipes = {
    "sq": (makeProcessedFlat, makeProcessedBPM),
    "ql": (makeProcessedFlat, makeProcessedBPM),
    "qa": (makeProcessedFlat, makeProcessedBPM),
}
