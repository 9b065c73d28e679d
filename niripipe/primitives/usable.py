"""Frames of the sky that hold nothing: they are found before they spoil the skies of others."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.raw_statistics import FEWEST_ALIKE, raw_statistics
from niripipe.algorithms.sky import can_be_scaled
from niripipe.astrodata import DQ, FAIL, AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, PrimitivesBase, opened_name

__all__ = ["without_dark_frames", "without_empty_frames"]

log = get_logger(__name__)

_ROWS: Final = 32
"""Rows of a frame that are looked at, spread over it: 30000 pixels tell an empty frame from a full one."""
_LEAST_USABLE: Final = 0.05
"""Share of usable pixels below which nothing can be measured in a frame."""
_DARKEST: Final = 0.1
"""Level of a frame as a share of the median level of all: the sky of a sequence changes by a factor of two,
in twilight by some more. Below it the shutter was closed, or the read-out failed."""
_CALIBRATIONS: Final = {"DARK", "FLAT", "BPM"}


def without_empty_frames(p: PrimitivesBase, frames: Frames) -> Frames:
    """Leave out raw frames of the sky without usable pixels, and such as are constant while others are not.

    Parameters
    ----------
    p : PrimitivesBase
        Its running primitive leaves the frames out, with the reason in the report.
    frames : list of AstroData
        Raw, with masks. Darks and flats pass: `CalibrationInputs` checks them.

    Raises
    ------
    DataError
        All are 0 everywhere.

    Notes
    -----
    Where all frames are constant, there is a warning only: this is how a simulation without noise looks, and
    nothing is averaged in that differs from the rest. Where none has a usable pixel, `without_dark_frames`
    stops the reduction: masks can be made of such frames, too.
    """
    looked_at = [frame for frame in frames if not frame.tags & _CALIBRATIONS]
    reasons: dict[int, str] = {}
    constant: dict[int, float] = {}
    for frame in looked_at:
        data, usable = _rows(frame)
        if usable.mean() < _LEAST_USABLE:
            reasons[id(frame)] = _unusable(frame, float(usable.mean()))
            continue
        numbers = raw_statistics(data)
        if numbers.constant:
            constant[id(frame)] = numbers.level
    texts = {k: f"its pixels are constant ({level:g}): a detector has noise" for k, level in constant.items()}
    if len(constant) + len(reasons) < len(looked_at):
        return _left(p, frames, reasons | texts)
    if len(constant) == len(looked_at) and constant and not any(constant.values()):
        return _left(p, frames, texts)
    if constant:
        log.warning("the pixels of all frames are constant: a detector has noise, so they hold no sky")
    return _left(p, frames, reasons) if len(reasons) < len(looked_at) else frames


def without_dark_frames(p: PrimitivesBase, frames: Frames) -> Frames:
    """Leave out frames without usable pixels, and those with next to no light where others show a sky.

    Parameters
    ----------
    p : PrimitivesBase
        Its running primitive leaves the frames out, with the reason in the report.
    frames : list of AstroData
        Frames of one sequence before sky subtraction. Levels are those of a second.

    Raises
    ------
    DataError
        No frame has usable pixels.
    """
    reasons: dict[int, str] = {}
    rates: dict[int, float] = {}
    with_sky = 0
    for frame in frames:
        data, usable = _rows(frame)
        if usable.mean() < _LEAST_USABLE:
            reasons[id(frame)] = _unusable(frame, float(usable.mean()))
            continue
        values = data[usable]
        faint, level = np.quantile(values, [0.1587, 0.5])
        rates[id(frame)] = float(level) / (frame.exposure_time() or 1.0)
        with_sky += can_be_scaled(float(level), float(level - faint), values.size)
    middle = float(np.median(list(rates.values()))) if rates else 0.0
    if len(rates) >= FEWEST_ALIKE and middle > 0 and 2 * with_sky >= len(rates):
        reasons |= {
            key: f"it shows no sky: {rate:.3g} electrons per second, the others {middle:.3g}"
            for key, rate in rates.items()
            if rate < _DARKEST * middle
        }
    return _left(p, frames, reasons)


def _unusable(frame: AstroData, share: float) -> str:
    """Return why there are so few usable pixels, by the flags that most of them have."""
    mask = frame[0].plane("mask")
    flags = np.zeros(1, np.uint16) if mask is None else mask[:]
    named = {DQ.bad_pixel: "bad", DQ.saturated: "saturated", DQ.no_data: "without a value"}
    named[DQ.cosmic_ray] = "after saturation"
    parts = {name: float((flags & int(bit) != 0).mean()) for bit, name in named.items()}
    listed = ", ".join(f"{part:.0%} {name}" for name, part in parts.items() if part >= 0.005)
    return f"{share:.1%} of its pixels can be used" + (f" ({listed})" if listed else "")


def _left(p: PrimitivesBase, frames: Frames, reasons: dict[int, str]) -> Frames:
    """Leave out the frames with a reason."""
    useless = [frame for frame in frames if id(frame) in reasons]
    if useless and len(useless) == len(frames):
        found = "; ".join(f"{opened_name(frame)}: {reasons[id(frame)]}" for frame in useless)
        raise DataError("No frame of the sky can be used", found=found)
    for frame in useless:
        p.drop(frame, reasons[id(frame)])
    return [frame for frame in frames if id(frame) not in reasons]


def _rows(frame: AstroData) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return some rows of the pixels, and which of them can be used."""
    ext = frame[0]
    rows = slice(None, None, max(ext.shape[0] // _ROWS, 1))
    data: NDArray[np.float32] = ext.plane("data")[rows]
    mask = ext.plane("mask")
    good: NDArray[np.bool_] = np.isfinite(data)
    return data, good if mask is None else good & (mask[rows] & int(FAIL) == 0)
