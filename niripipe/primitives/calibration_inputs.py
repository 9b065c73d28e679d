"""The check of raw darks and flats: whether they can make the calibration that they are meant for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.raw_statistics import RawStatistics, raw_statistics, share_flagged, unlike
from niripipe.astrodata import AstroData
from niripipe.errors import DataError, NiripipeError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, PrimitivesBase, opened_name, primitive
from niripipe.primitives.params import Field, Params

__all__ = ["DOUBTFUL_SIGNAL", "MOST_BAD", "CalibrationInputs", "check_mask"]

log = get_logger(__name__)

_LEAST_FINITE: Final = 2 / 3
"""Share of the pixels that must be numbers: a frame that lacks more has lost part of its read-out."""
_MOST_SATURATED: Final = 0.1
"""Share of saturated pixels: defects are below 2 %, and a lamp that saturates a tenth of the array brings
the rest beyond what the linearity correction holds for."""
_LOWEST: Final = -10.0
"""Level in read noises below which no reset offset brings the difference of two reads."""
_ODD: Final = 3.0
"""Difference from the other frames, in read noises, from which a frame may be odd; offsets between the
exposures of a sequence are smaller."""
_ODD_SHARE: Final = 0.5
"""The same as a share of their level: lamps are stable to some per cent."""
_DARK_LEVEL: Final = 40.0
"""Level of a dark, in read noises, that reset offset and amplifier glow may make: 1400 e- in the medium
background mode, about what makes a pixel of a short dark hot (`makeBPM:dark_hi_thresh`)."""
_DARK_RATE: Final = 5.0
"""Dark current (e-/s) of a warm array: 20 times what the observatory quotes (0.25 e-/s). The sky in J at
f/6 gives 280 e-/s (16 mag/arcsec2 and the zero point in `niri.toml`)."""
_LAMP_LEVEL: Final = 10.0
"""Level of a lamp-on flat without lamp-off flats, in read noises: below that, offset, dark current and glow
may be all of it. Such a frame of light alone has 9 times its noise."""
_LAMP_OVER_OFF: Final = 0.05
"""Light of the lamp as a share of the level with the lamp off, which drifts by per cent when thermal."""
_LEAST_SIGNAL: Final = 3.0
"""Level of a flat over the noise of a pixel: below that a pixel of the flat is hardly known to see light."""
DOUBTFUL_SIGNAL: Final = 5.0
"""The same: dividing by a noisier flat adds more than 20 % of noise."""
_HINT: Final = "To use such frames all the same, pass checkCalibrationInputs:unfit='warn'."


MOST_BAD: Final = 1 / 3
"""Share of the pixels that a bad pixel mask may flag. Arrays have 1 or 2 % of bad pixels; a mask beyond a
third was made of unusable frames, or says 1 for good pixels."""


def check_mask(flags: NDArray[Any], largest: float, *, file: str | None, item: str) -> None:
    """Refuse a bad pixel mask that flags too many pixels.

    Parameters
    ----------
    flags : ndarray, shape (ny, nx)
        Anything but 0 is bad.
    largest : float
        Largest share.
    file, item : str
        The mask, and the parameter that sets the limit.

    Raises
    ------
    DataError
        It flags more.
    """
    share = share_flagged(flags)
    if share > largest:
        raise DataError(
            "The bad pixel mask flags too large a part of the detector",
            file=file,
            item=item,
            found=f"{share:.1%}",
            expected=f"at most {largest:.1%}",
            remedy="Check the frames it was made of, and that good pixels are 0; or raise the limit.",
        )


class CheckCalibrationInputsParams(Params):
    """Parameters of `CalibrationInputs.checkCalibrationInputs`."""

    unfit: Literal["refuse", "warn"] = Field(
        "refuse",
        description="refuse: leave out frames that cannot be used, and stop when too few are left; warn: "
        "keep all, with warnings",
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """A frame with its numbers in electrons.

    `unit` is what levels are compared with: the read noise of one coadd times their number. Offsets and glow
    add up over the coadds, while the read noise grows with the root of their number.
    """

    frame: AstroData
    numbers: RawStatistics
    level: float
    noise: float
    read_noise: float
    unit: float


class CalibrationInputs(PrimitivesBase):
    """What may become a dark, a flat or a bad pixel mask."""

    def _processed(self, frames: Frames, params: CheckCalibrationInputsParams) -> list[NiripipeError]:
        """Return the errors that headers show."""
        if params.unfit == "warn":
            return []
        return [
            DataError(
                "This is a product, not a raw dark or flat",
                file=opened_name(frame),
                found=", ".join(sorted(frame.tags & {"PROCESSED", "DARK", "FLAT", "BPM"})),
                expected="raw frames alone",
                remedy=f"Leave products out (dataselect: xtags=['PROCESSED']). {_HINT}",
            )
            for frame in frames
            if "PROCESSED" in frame.tags
        ]

    @primitive(precheck=_processed, renames=False)
    def checkCalibrationInputs(self, frames: Frames, params: CheckCalibrationInputsParams) -> Frames:
        """Leave out raw darks and flats that cannot make a calibration; stop when too few are left.

        Looks at the pixels of raw frames, in ADU or electrons, and changes none. A frame is left out, with a
        warning and a line in the report, if

        * less than two thirds of its pixels are finite, or nine tenths of these have one value (unless it is
          so in all frames and not 0, as in simulations without noise: a warning),
        * more than 10 % of its pixels are saturated,
        * its level (median) is below -10 read noises,
        * there are three or more frames of its kind, and its level differs from their median by more than
          half of it, 3 read noises, and 10 times the scatter of their levels,
        * it is a dark, and its level is above 40 read noises plus 5 e-/s: there is light in it,
        * it is a lamp-on flat, and its level is not above that of the lamp-off flats by 5 % of it and one
          read noise; without lamp-off flats, not above 10 read noises: the lamp did not burn.

        With fewer than half of the frames of a kind left, or none, nothing is made; nor if the level of the
        flat will be less than 3 times the noise of its pixels (in `qa`, where more frames may come, that is a
        warning). Glow, hot pixels and
        unlike sensitivity do not matter: levels are medians, and noise is measured between neighbours.
        Read noise is that of one coadd, times their number. Frames of other kinds pass. Not in DRAGONS.

        Raises
        ------
        DataError
            A frame is a product; or too few frames are left, with the numbers of each that is not.
        """
        for problem in self._processed(frames, params):
            raise problem
        insist = params.unfit == "warn"
        left = list(frames)
        sound: dict[str, list[_Measured]] = {}
        # The lamp-off flats tell what light the lamp adds.
        for kind in ("DARK", "LAMPOFF", "LAMPON"):
            measured = self.map(_measure, [frame for frame in frames if kind in frame.tags])
            reasons = _faults(kind, measured, sound.get("LAMPOFF", []))
            sound[kind] = [one for one in measured if id(one.frame) not in reasons]
            _check_number(kind, measured, reasons, insist=insist)
            for one in measured:
                reason = reasons.get(id(one.frame))
                if reason and insist:
                    log.warning("%s is used all the same: %s", opened_name(one.frame), reason)
                elif reason:
                    self.drop(one.frame, reason)
                    left = [frame for frame in left if frame is not one.frame]
        if sound["LAMPON"]:
            _check_signal(sound["LAMPON"], sound["LAMPOFF"], insist=insist or self.context.mode == "qa")
        return left


def _measure(frame: AstroData) -> _Measured:
    ext = frame[0]
    numbers = raw_statistics(ext.read("data"), ext.saturation_level())
    gain = float(ext.gain()) if frame.is_in_adu() else 1.0
    read_noise = float(ext.read_noise())
    unit = read_noise * np.sqrt(max(frame.coadds() or 1, 1))
    return _Measured(frame, numbers, numbers.level * gain, numbers.noise * gain, read_noise, unit)


def _faults(kind: str, measured: list[_Measured], lamp_off: list[_Measured]) -> dict[int, str]:
    """Return why frames of a kind cannot be used, by the identity of the frame."""
    noiseless = _is_noiseless(kind, measured)
    reasons = {id(one.frame): reason for one in measured if (reason := _useless(one, noiseless=noiseless))}
    if noiseless:
        # Limits in units of the read noise say nothing of frames that have none.
        return reasons
    sound = [one for one in measured if id(one.frame) not in reasons]
    for one in sound:
        reason = ""
        if kind == "DARK":
            reason = _lit(one)
        elif kind == "LAMPON":
            reason = _unlit(one, lamp_off)
        if reason:
            reasons[id(one.frame)] = reason
    sound = [one for one in sound if id(one.frame) not in reasons]
    if sound:
        levels = [one.level for one in sound]
        odd = unlike(levels, tolerance=_ODD * sound[0].unit, share=_ODD_SHARE)
        middle = float(np.median(levels))
        for one, is_odd in zip(sound, odd, strict=True):
            if is_odd:
                reasons[id(one.frame)] = (
                    f"its level is {one.level:.0f} e-, that of {len(sound)} {_NAMES[kind]} {middle:.0f} e-"
                )
    return reasons


_NAMES: Final = {"DARK": "darks", "LAMPOFF": "lamp-off flats", "LAMPON": "lamp-on flats"}


def _is_noiseless(kind: str, measured: list[_Measured]) -> bool:
    """Return whether no frame of a kind has noise, as in simulations of a perfect detector; say so."""
    finite = [one for one in measured if np.isfinite(one.level)]
    noiseless = bool(finite) and all(one.numbers.constant and one.level != 0 for one in finite)
    if noiseless:
        log.warning("the pixels of all %s are constant: a detector has noise", _NAMES[kind])
    return noiseless


def _useless(one: _Measured, *, noiseless: bool) -> str:
    """Return what is wrong with a frame of any kind."""
    numbers = one.numbers
    if numbers.finite < _LEAST_FINITE:
        return f"{numbers.finite:.0%} of its pixels are finite numbers (limit: {_LEAST_FINITE:.0%})"
    if numbers.saturated > _MOST_SATURATED:
        return f"{numbers.saturated:.0%} of its pixels are saturated (limit: {_MOST_SATURATED:.0%})"
    if numbers.constant and not noiseless:
        return f"its pixels are constant ({numbers.level:g}); a detector has noise ({one.read_noise:.3g} e-)"
    lowest = _LOWEST * one.unit
    if one.level < lowest:
        return f"its level is {one.level:.0f} e- (limit: {lowest:.0f} e-, {-_LOWEST:g} read noises below 0)"
    return ""


def _lit(dark: _Measured) -> str:
    """Return that there is light in a dark."""
    time = float(dark.frame.exposure_time() or 0.0)
    limit = _DARK_LEVEL * dark.unit + _DARK_RATE * time
    if dark.level <= limit:
        return ""
    return (
        f"there is light in this dark: its level is {dark.level:.0f} e- (limit: {limit:.0f} e-, "
        f"{_DARK_LEVEL:g} read noises and {_DARK_RATE:g} e-/s)"
    )


def _unlit(flat: _Measured, lamp_off: list[_Measured]) -> str:
    """Return that there is no light of the lamp in a lamp-on flat."""
    if not lamp_off:
        limit = _LAMP_LEVEL * flat.unit
        if flat.level > limit:
            return ""
        return (
            f"there is no light in this flat: its level is {flat.level:.0f} e-, its noise {flat.noise:.0f} "
            f"e- (limit: {limit:.0f} e-, {_LAMP_LEVEL:g} read noises)"
        )
    off = float(np.median([one.level for one in lamp_off]))
    limit = max(flat.unit, _LAMP_OVER_OFF * off)
    if flat.level - off > limit:
        return ""
    return (
        f"there is no light of the lamp in this flat: its level is {flat.level:.0f} e-, with the lamp off "
        f"{off:.0f} e- (limit: {limit:.0f} e- more)"
    )


def _check_number(kind: str, measured: Iterable[_Measured], reasons: dict[int, str], *, insist: bool) -> None:
    """Refuse a kind of which too few frames can be used."""
    measured = list(measured)
    bad = [one for one in measured if id(one.frame) in reasons]
    if not bad or insist or 2 * (len(measured) - len(bad)) >= max(len(measured), 2):
        return
    listed = "; ".join(f"{opened_name(one.frame)}: {reasons[id(one.frame)]}" for one in bad)
    raise DataError(
        f"Too few of the {_NAMES[kind]} can be used",
        file=opened_name(bad[0].frame),
        found=f"{len(bad)} of {len(measured)} cannot: {listed}",
        expected="at least half of them, and one",
        remedy=_HINT,
    )


def _check_signal(lamp_on: list[_Measured], lamp_off: list[_Measured], *, insist: bool) -> None:
    """Refuse lamp flats whose mean would be noisier than what it corrects."""
    level, variance = _mean(lamp_on)
    if lamp_off:
        level, variance = level - _mean(lamp_off)[0], variance + _mean(lamp_off)[1]
    if level >= _LEAST_SIGNAL * np.sqrt(variance):
        return
    problem = DataError(
        "The level of the flat is not well above its noise",
        file=opened_name(lamp_on[0].frame),
        found=f"{level:.0f} e- with a noise of {np.sqrt(variance):.0f} e- from {len(lamp_on)} lamp-on and "
        f"{len(lamp_off)} lamp-off flats",
        expected=f"{_LEAST_SIGNAL:g} times the noise",
        remedy=f"Give more or longer exposures. {_HINT}",
    )
    if not insist:
        raise problem
    log.warning("%s", problem)


def _mean(measured: list[_Measured]) -> tuple[float, float]:
    """Return the level of a mean of frames, and the variance of a pixel in it."""
    return (
        float(np.mean([one.level for one in measured])),
        float(np.mean([one.noise**2 for one in measured]) / len(measured)),
    )
