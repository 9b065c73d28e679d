"""Whether a set of frames has skies beside the target; decided as the reduction itself decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from niripipe import __version__, astrodata
from niripipe.primitives import NIRI
from niripipe.primitives.base import Context
from niripipe.primitives.calibrations import CalibrationBook
from niripipe.reduction import Mode
from niripipe.reduction.report import RunReport
from niripipe.reduction.runner import RecipeRunner, resolve_call

__all__ = ["offset_skies"]


def offset_skies(files: Sequence[str], mode: Mode, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Separate object and sky frames by their headers, with the primitive that does it in the reduction.

    Parameters
    ----------
    files : sequence of str
        Raw frames of one field and set-up.
    mode : str
        Mode of the reduction.
    parameters : mapping
        The user's parameters: those of ``separateSky`` count.

    Returns
    -------
    tuple of str
        Those files that show sky beside the target.

    Raises
    ------
    NiripipeError
        The pointing of a frame cannot be determined.
    """
    frames = [astrodata.open(path) for path in files]
    context = Context(
        mode=mode,
        parameters=dict(parameters),
        calibrations=CalibrationBook(mode=mode),
        output_dir=Path.cwd(),
        overwrite=False,
        threads=1,
        software=f"niripipe {__version__}",
    )
    with RecipeRunner(RunReport("plan", mode, context.software, []), threads=1, droppable=False) as runner:
        p = NIRI({"main": frames}, context, runner)
        repair, separate = (NIRI.primitives()[name] for name in ("standardizeWCS", "separateSky"))
        for frame in frames:
            # Broken coordinates are repaired as in the reduction; neither step reads pixels.
            repair.function(p, frame, resolve_call(p, repair, {}).params)
        objects = separate.function(p, frames, resolve_call(p, separate, {}).params)
        on_target = {id(frame) for frame in objects}
        skies = {id(sky) for sky in p.streams["sky"]} - on_target
        return tuple(path for path, frame in zip(files, frames, strict=True) if id(frame) in skies)
