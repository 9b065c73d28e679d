"""Primitives that apply darks and flats, and that make flats and bad pixel masks."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import model_validator

from niripipe.algorithms import bpm as bpm_algorithm
from niripipe.algorithms import flat as flat_algorithm
from niripipe.algorithms.raw_statistics import raw_statistics
from niripipe.astrodata import AstroData
from niripipe.errors import CalibrationError, DataError, InputError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, primitive, skipped
from niripipe.primitives.calibration_inputs import DOUBTFUL_SIGNAL, MOST_BAD, check_mask
from niripipe.primitives.calibrations import FoundCalibration, clipped, window_in
from niripipe.primitives.geometry import quadrant_centre
from niripipe.primitives.params import CalibrationParams, Field, FrameOrPath, OfDragons, SuffixParams
from niripipe.primitives.stacking import CombineParams, stack

__all__ = ["Calibrate", "misfit"]

log = get_logger(__name__)


class DarkCorrectParams(CalibrationParams, suffix="_darkCorrected"):
    """Parameters of `Calibrate.darkCorrect`."""

    caltype: ClassVar[str] = "processed_dark"
    calibration_field: ClassVar[str] = "dark"

    dark: FrameOrPath = Field(None, description="use this dark instead of the service's")


class FlatCorrectParams(CalibrationParams, suffix="_flatCorrected"):
    """Parameters of `Calibrate.flatCorrect`."""

    caltype: ClassVar[str] = "processed_flat"
    calibration_field: ClassVar[str] = "flat"

    flat: FrameOrPath = Field(None, description="use this flat instead of the service's")


class MakeLampFlatParams(CombineParams, suffix="_lampstack"):
    """Parameters of `Calibrate.makeLampFlat`."""


class NormalizeFlatParams(SuffixParams, suffix="_normalized"):
    """Parameters of `Calibrate.normalizeFlat`."""

    scale: Literal["mean", "median"] = Field("median", description="statistic that becomes 1")
    separate_ext: bool = Field(False, description="normalise extensions separately; NIRI has one")


class ThresholdFlatfieldParams(SuffixParams, suffix="_thresholdFlatfielded"):
    """Parameters of `Calibrate.thresholdFlatfield`."""

    upper: float = Field(10.0, ge=1, description="above: unilluminated")
    lower: float = Field(0.01, lt=1, description="below: unilluminated")


class MakeBPMParams(SuffixParams, suffix="_bpm"):
    """Parameters of `Calibrate.makeBPM`."""

    of_dragons = MappingProxyType(
        {"override_thresh": OfDragons((True,), "Leave the limits out: those of the instrument are used.")}
    )

    dark_lo_thresh: float | None = Field(
        None, description="darker pixels of the short dark are bad, electron"
    )
    dark_hi_thresh: float | None = Field(
        None, description="brighter pixels of the short dark are bad, electron"
    )
    flat_lo_thresh: float | None = Field(None, lt=1, description="pixels of lower sensitivity are bad")
    flat_hi_thresh: float | None = Field(None, ge=1, description="pixels of higher sensitivity are bad")
    keep_unilluminated: bool = Field(False, description="mark unilluminated pixels as such instead of bad")
    max_bad: float = Field(MOST_BAD, gt=0, le=1, description="a mask that flags a larger share is refused")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.dark_lo_thresh, self.dark_hi_thresh
        if low is not None and high is not None and not low < high:
            raise ValueError("dark_lo_thresh must be below dark_hi_thresh")
        return self


class Calibrate(PrimitivesBase):
    """Darks, flats and bad pixel masks."""

    @primitive(stamp="DARKCORR")
    def darkCorrect(self, frame: AstroData, params: DarkCorrectParams) -> Outcome | None:
        """Subtract the matching processed dark.

        ``data - dark``, variances added, data-quality bits joined; DARKIM in the PHU names the dark.

        Raises
        ------
        CalibrationError
            No dark was found where one is required; or the dark named by the user does not fit in
            exposure time, coadds, unit or detector area.
        """
        found = self._calibration(frame, params)
        if isinstance(found, Outcome):
            return found
        _check_dark(frame, found)
        frame.subtract(clipped(frame, found.frame))
        frame.phu.set("DARKIM", found.name, "Dark image")
        return None

    @primitive(stamp="FLATCORR")
    def flatCorrect(self, frame: AstroData, params: FlatCorrectParams) -> Outcome | None:
        """Divide by the matching processed flat.

        ``data / flat`` with the variances of both, data-quality bits joined; FLATIM in the PHU names the
        flat. In thermal filters no lamp flats are taken: without a flat (of the sky) the step is left out
        with a warning there.

        Raises
        ------
        CalibrationError
            No flat was found where one is required; or the flat named by the user is of another filter or
            camera, or is not normalised.
        """
        found = self._calibration(frame, params)
        if isinstance(found, Outcome):
            return found
        _check_flat(frame, found)
        frame.divide(clipped(frame, found.frame))
        frame.phu.set("FLATIM", found.name, "Flat image")
        if "SKYFLAT" in found.frame.phu:
            number = found.frame.phu.get("NCOMBINE", "unknown number of")
            self.remark(f"the flat {found.name} is made of {number} frames of the sky")
        return None

    @primitive
    def makeLampFlat(self, frames: Frames, params: MakeLampFlatParams) -> Frames:
        """Stack lamp-on and lamp-off flats and subtract the one stack from the other.

        The product carries headers and name of the first lamp-on frame. Without lamp-off frames the
        lamp-on stack is the flat, with a warning.

        Raises
        ------
        InputError
            There is no lamp-on frame, or a frame is neither.
        """
        on = [frame for frame in frames if "LAMPON" in frame.tags]
        off = [frame for frame in frames if "LAMPOFF" in frame.tags]
        neither = [str(frame.filename) for frame in frames if not frame.tags & {"LAMPON", "LAMPOFF"}]
        if neither or not on:
            raise InputError(
                "A lamp flat is made of lamp-on and lamp-off frames",
                item="files",
                found=f"{len(on)} lamp-on, {len(off)} lamp-off, neither: {', '.join(neither) or 'none'}",
                expected="at least one lamp-on frame, and nothing that is neither",
            )
        flat = stack(on, params, threads=self.workers)
        if off:
            flat.subtract(stack(off, params, threads=self.workers))
        else:
            log.warning("there are no lamp-off flats: the thermal background stays in the flat")
        return [flat]

    @primitive(stamp="NORMLIZE")
    def normalizeFlat(self, frame: AstroData, params: NormalizeFlatParams) -> None:
        """Divide a flat by the median (or mean) of its unflagged pixels; the variance by its square.

        A level below 5 times the noise, the scatter between neighbouring pixels, is a warning.

        Raises
        ------
        AlgorithmError
            There is no good pixel, or the level is not positive.
        """
        ext = frame[0]
        level = flat_algorithm.level(ext.read("data"), ext.read("mask"), statistic=params.scale)
        noise = raw_statistics(ext.read("data")).noise
        if level < DOUBTFUL_SIGNAL * noise:
            log.warning(
                "%s: the level of the flat, %.4g, is only %.2g times its noise (limit: %g)",
                frame.filename,
                level,
                level / noise,
                DOUBTFUL_SIGNAL,
            )
        frame.divide(np.float32(level))

    @primitive(stamp="TRHFLAT")
    def thresholdFlatfield(self, frame: AstroData, params: ThresholdFlatfieldParams) -> None:
        """Flag (bit 64) pixels outside the limits and set them to 1, so that a division stays finite."""
        ext = frame[0]
        limited = flat_algorithm.threshold(
            ext.read("data"), ext.read("mask"), lower=params.lower, upper=params.upper
        )
        ext.reset(limited.data, mask=limited.mask, variance=ext.variance)

    @primitive(stamp="BPMASK")
    def makeBPM(self, frames: Frames, params: MakeBPMParams) -> Frames:
        """Make a bad pixel mask from a normalised flat (main) and a stack of short darks (``darks``).

        The limits of the dark hold for pixels against their columns and rows: the pattern that the read-out
        adds to whole columns and rows of a quadrant (by the detector section) is no defect and is subtracted
        before, where it is significant and not larger than 100 electrons. BPMPATT in the extension header is
        its standard deviation. (In DRAGONS a column that reads 20 electrons low is bad.) The product has the
        headers of the flat, OBJECT = BPM, and int16 data of 0 and 1.

        Raises
        ------
        InputError
            One of the two is missing.
        DataError
            The mask flags a larger share of the pixels than `max_bad`.
        """
        darks = self.streams.get("darks", [])
        if len(frames) != 1 or len(darks) != 1:
            raise InputError(
                "A bad pixel mask is made of one flat and one stack of short darks",
                item="files",
                found=f"{len(frames)} flats and {len(darks)} darks",
                remedy="Give lamp-on and lamp-off flats first, then darks of about 1 s.",
            )
        flat, dark = frames[0], clipped(frames[0], darks[0])
        gain = np.float32(dark[0].gain() if dark.is_in_adu() else 1.0)
        counts = dark[0].read("data") * gain
        pattern = bpm_algorithm.readout_pattern(counts, centre=quadrant_centre(flat))
        bad = bpm_algorithm.bad_pixels(
            flat[0].read("data"),
            counts - pattern,
            flat_limits=(params.flat_lo_thresh, params.flat_hi_thresh),
            dark_limits=(params.dark_lo_thresh, params.dark_hi_thresh),
            flat_mask=flat[0].read("mask") if params.keep_unilluminated else None,
        )
        check_mask(bad, params.max_bad, file=flat.filename, item="makeBPM:max_bad")
        flat[0].reset(bad, mask=None, variance=None)
        flat[0].hdr.remove("BUNIT", ignore_missing=True)
        flat.phu.set("OBJECT", "BPM", "Bad pixel mask")
        flat[0].hdr.set("BPMPATT", round(float(pattern.std()), 3), "Pattern of columns and rows removed (e-)")
        log.stdinfo(
            "%d bad pixels; the pattern removed from the dark has %.1f electrons rms",
            int(np.count_nonzero(bad)),
            float(pattern.std()),
        )
        return [flat]

    def _calibration(self, frame: AstroData, params: CalibrationParams) -> FoundCalibration | Outcome:
        """Return the calibration for a frame, or the outcome that goes without one."""
        if params.do_cal == "skip":
            return skipped("do_cal is skip")
        book = self.context.calibrations
        found = book.find(frame, params.caltype, params.given)
        if found is None:
            prescribed = book.is_prescribed(frame, params.caltype)
            if params.do_cal == "force" or (self.context.mode == "sq" and prescribed):
                raise book.missing(frame, params.caltype)
            if not prescribed:
                name = frame.filter_name(pretty=True)
                log.warning(
                    "not flat-fielded: no lamp flats are taken in the filter %s, and there is no sky flat",
                    name,
                )
                return skipped(f"no flat is prescribed for the filter {name}, and there is none of the sky")
            log.warning("%s: no %s was found, the step is left out", frame.filename, params.caltype)
            return skipped(f"no {params.caltype} was found")
        book.remember(frame, found, params.caltype)
        return found


def misfit(frame: AstroData, found: FoundCalibration) -> CalibrationError | DataError | None:
    """Return why a dark or flat cannot be applied to a frame, as far as the headers tell; None if it can.

    Parameters
    ----------
    frame : AstroData
        The frame; raw, or on its way through a recipe.
    found : FoundCalibration
        The calibration.
    """
    compared: dict[str, tuple[tuple[str, float | None], ...]] = {
        "processed_dark": (("exposure_time", 0.01), ("coadds", 0)),
        "processed_flat": (("filter_name", None), ("camera", None)),
    }
    for what, tolerance in compared.get(found.caltype, ()):
        wanted, has = getattr(frame, what)(), getattr(found.frame, what)()
        if tolerance is None:
            fits = wanted == has
        else:
            fits = None not in (wanted, has) and abs(wanted - has) <= tolerance
        if not fits:
            return _unfit(frame, found, what.replace("_", " "), wanted, has)
    try:
        window_in(frame, found.frame)
    except DataError as error:
        return error
    return None


def _check(frame: AstroData, found: FoundCalibration) -> None:
    error = misfit(frame, found)
    if error is not None:
        raise error


def _check_dark(frame: AstroData, found: FoundCalibration) -> None:
    dark = found.frame
    _check(frame, found)
    if frame.is_in_adu() != dark.is_in_adu():
        raise _unfit(frame, found, "unit", frame[0].hdr.get("BUNIT"), dark[0].hdr.get("BUNIT"))
    for what in ("read_mode", "well_depth_setting"):
        wanted, has = getattr(frame, what)(), getattr(dark, what)()
        if wanted != has:
            log.warning(
                "%s: %s differs from that of %s: %s, %s", frame.filename, what, found.name, wanted, has
            )


def _check_flat(frame: AstroData, found: FoundCalibration) -> None:
    flat = found.frame
    _check(frame, found)
    if "NORMLIZE" not in flat.phu:
        level = flat_algorithm.level(flat[0].read("data"), flat[0].read("mask"))
        if not 0.5 < level < 2.0:
            raise _unfit(frame, found, "median level", "about 1 (a normalised flat)", level)


def _unfit(
    frame: AstroData, found: FoundCalibration, what: str, wanted: object, has: object
) -> CalibrationError:
    return CalibrationError(
        f"The {found.caltype} does not fit in {what}",
        file=frame.filename,
        item=found.name,
        found=has,
        expected=wanted,
        remedy="Give a calibration of the same set-up, or let the service choose one.",
    )
