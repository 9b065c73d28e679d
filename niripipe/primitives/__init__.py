"""The NIRI primitives: methods of one class, in one module per group, each with its parameter model."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Literal

from niripipe.astrodata import AstroData
from niripipe.primitives.base import PrimitivesBase
from niripipe.primitives.niri import NIRI

if TYPE_CHECKING:
    from niripipe.cal_service import CalibrationService
    from niripipe.reduction import Progress
    from niripipe.reduction.steps import Steps

__all__ = ["CLASSES", "NIRI", "PrimitivesBase", "of"]

CLASSES: tuple[type[PrimitivesBase], ...] = (NIRI,)
"""The classes among which the data's tags choose."""


def of(
    frames: Iterable[str | PathLike[str] | AstroData] | str | PathLike[str] | AstroData,
    *,
    mode: Literal["sq", "ql", "qa"] = "sq",
    parameters: Mapping[str, object] | None = None,
    calibrations: CalibrationService | Mapping[str, str | PathLike[str] | AstroData] | None = None,
    output_dir: str | PathLike[str] | None = None,
    overwrite: bool = True,
    threads: int | None = None,
    progress: bool | Progress | None = None,
) -> Steps:
    """Return the primitives of some frames, to be called one by one.

    Parameters
    ----------
    frames : paths, ``@list`` names or AstroData, or one of them
        What to reduce. Frames in memory are not changed.
    mode : {"sq", "ql", "qa"}
        Science quality, quick look, or quality assessment.
    parameters, calibrations, output_dir, overwrite, threads, progress
        As for `niripipe.Reduce`.

    Returns
    -------
    Steps
        The primitives are its methods, ``p.skyCorrect(scale_sky=False)``, with the same results as in a
        recipe. ``p.streams`` holds the frames, ``p.frames`` those of the main stream, ``p.report`` what was
        done.

    Raises
    ------
    InputError
        The files cannot be reduced.
    ParameterError
        A parameter does not exist.

    Examples
    --------
    >>> p = of(files)                            # doctest: +SKIP
    >>> p.prepare()                              # doctest: +SKIP
    >>> p.addDQ()                                # doctest: +SKIP
    >>> p.frames[0][0].mask                      # doctest: +SKIP
    """
    # Running primitives is the work of the layer above.
    reduction = importlib.import_module("niripipe.reduction").Reduce(
        frames,
        mode=mode,
        parameters=parameters,
        calibrations=calibrations,
        output_dir=output_dir,
        overwrite=overwrite,
        threads=threads,
        progress=progress,
    )
    steps: Steps = reduction.steps()
    return steps
