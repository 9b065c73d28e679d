"""Primitives that make raw frames uniform: headers, planes, units, noise, linearity."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits, dq, linearity, noise
from niripipe.astrodata import DQ, AstroData, Section, add_provenance, file_md5
from niripipe.astrodata.filenames import plain_name
from niripipe.instruments.pointing_group import Judgement
from niripipe.logutils import get_logger
from niripipe.primitives import objmask, raw_headers, usable
from niripipe.primitives.base import (
    Frames,
    Outcome,
    PrimitivesBase,
    Status,
    done,
    not_needed,
    primitive,
    skipped,
)
from niripipe.primitives.calibration_inputs import MOST_BAD, check_mask
from niripipe.primitives.calibrations import FoundCalibration, clipped
from niripipe.primitives.params import Field, FrameOrPath, FrameOrPathOrDefault, FramesOrPaths, SuffixParams

__all__ = ["AddDQParams", "Standardize"]

log = get_logger(__name__)


class ValidateDataParams(SuffixParams, suffix="_dataValidated"):
    """Parameters of `Standardize.validateData`."""

    require_wcs: bool = Field(True, description="refuse a frame whose WCS is unusable and cannot be rebuilt")


class StandardizeStructureParams(SuffixParams, suffix="_structureStandardized"):
    """Parameters of `Standardize.standardizeStructure`."""


class StandardizeHeadersParams(SuffixParams, suffix="_headersStandardized"):
    """Parameters of `Standardize.standardizeHeaders`."""


class StandardizeWCSParams(SuffixParams, suffix="_wcsStandardized"):
    """Parameters of `Standardize.standardizeWCS`."""

    bad_wcs: raw_headers.BadWCS = Field(
        "fix",
        description="exit: refuse a frame whose WCS contradicts its pointing; fix: rebuild its WCS from the "
        "pointing; new: rebuild every WCS; ignore: keep it",
    )
    debug_consistency_limit: float = Field(
        30.0, ge=2, description="allowed distance between WCS and target plus offsets, arcsec"
    )
    distortion: Literal["published", "none"] = Field(
        "published", description="put the published distortion of camera and light path into the WCS, or none"
    )


class PrepareParams(ValidateDataParams, StandardizeWCSParams, suffix="_prepared"):
    """Parameters of `Standardize.prepare`."""


class LatencyParams(SuffixParams):
    """What decides whether a pixel still glows."""

    non_linear: bool = Field(False, description="flag latency also after non-linear pixels")
    time: float = Field(120.0, ge=0, description="how long persistence lasts at most, s")
    decay: float | None = Field(
        None, gt=0, description="e-folding time of the afterglow, s; None: all of it lasts for `time`"
    )
    residual: float = Field(
        0.01, gt=0, le=1, description="afterglow right after the exposure, part of saturation; with `decay`"
    )


class AddDQParams(LatencyParams, suffix="_dqAdded"):
    """Parameters of `Standardize.addDQ`."""

    static_bpm: FrameOrPathOrDefault = Field(
        "default", description="bad pixel mask; default: those that the calibration service has; None: none"
    )
    user_bpm: FramesOrPaths = Field(None, description="further bad pixel masks, joined with the static ones")
    max_bad: float = Field(
        MOST_BAD, gt=0, le=1, description="a bad pixel mask that flags a larger share is refused"
    )
    latency: bool = Field(False, description="flag pixels that were saturated shortly before")
    add_illum_mask: bool = Field(False, description="flag what an illumination mask covers")
    illum_mask: FrameOrPath = Field(None, description="the illumination mask")


class AddLatencyToDQParams(LatencyParams, suffix="_latencyAdded"):
    """Parameters of `Standardize.addLatencyToDQ`."""


class AddIllumMaskToDQParams(SuffixParams, suffix="_illumMaskAdded"):
    """Parameters of `Standardize.addIllumMaskToDQ`."""

    illum_mask: FrameOrPath = Field(None, description="the illumination mask")


class ADUToElectronsParams(SuffixParams, suffix="_ADUToElectrons"):
    """Parameters of `Standardize.ADUToElectrons`."""


class AddVARParams(SuffixParams, suffix="_varAdded"):
    """Parameters of `Standardize.addVAR`."""

    read_noise: bool = Field(False, description="add the variance of the read noise")
    poisson_noise: bool = Field(False, description="add the variance of the photon noise")


class NonlinearityCorrectParams(SuffixParams, suffix="_nonlinearityCorrected"):
    """Parameters of `Standardize.nonlinearityCorrect`."""


_Afterglow = tuple[Section, NDArray[np.intp]]
"""The section of the detector that a frame shows, and rows and columns of its saturated pixels."""


class Standardize(PrimitivesBase):
    """Raw frames to frames in electrons with variance and data-quality planes."""

    @primitive(stamp="VALDATA")
    def validateData(self, frame: AstroData, params: ValidateDataParams) -> None:
        """Check that a frame is one that the primitives can treat.

        Raises
        ------
        DataError
            Not a NIRI frame, not exactly one image extension, or no usable WCS where one is required.
        """
        raw_headers.validate(frame, require_wcs=params.require_wcs)

    @primitive(stamp="SDZSTRUC")
    def standardizeStructure(self, frame: AstroData, params: StandardizeStructureParams) -> Outcome:
        """Bring the pixels of old frames into the form of later ones.

        Frames from before November 2001 hold the sum over the low-noise read pairs: they are divided by
        their number, and LNRSDIV in the primary header keeps it. Other frames have the standard structure.
        """
        change = raw_headers.average_read_pairs(frame)
        return done(change) if change else not_needed("the frame has the standard structure")

    @primitive(stamp="SDZHDRSI")
    def standardizeHeaders(self, frame: AstroData, params: StandardizeHeadersParams) -> None:
        """Write what the headers mean as standard keywords.

        PHU: ORIGNAME, PROCSOFT, PROCSVER, PROCMODE, FILTER, PIXSCALE, EXPTIME (total of the coadds).
        Extension: BUNIT, PIXSCALE, RDNOISE and GAIN (e-, e-/ADU), SATLEVEL and NONLINEA (ADU), RADESYS.
        """
        raw_headers.standardize_headers(frame, self.context.software, self.context.mode)

    def _judged(self, frames: Frames, params: StandardizeWCSParams) -> dict[int, Judgement]:
        """Compare the pointing of all frames before one of them is changed."""
        for text in raw_headers.doubtful_values(frames):
            log.warning("%s", text)
        return raw_headers.judged(frames, params.bad_wcs, params.debug_consistency_limit)

    @primitive(stamp="SDZWCS", survey=_judged)
    def standardizeWCS(
        self, frame: AstroData, params: StandardizeWCSParams, judgement: Judgement | None = None
    ) -> Outcome | None:
        """Find the WCS that can be believed, and rebuild it where there is none.

        A raw header states the WCS twice; the copy in the primary header is taken where that in the extension
        cannot be true for the camera, or contradicts the pointing while the other agrees. In a subarray
        from before February 2005 CRPIX refers to the whole chip and is moved.

        What is wrong is judged with all frames of a sequence (of one OBJECT). In most of them WCS minus
        telescope offset is the same: a frame that differs, with offsets that a second pair of keywords
        confirms, gets its WCS from the others and its offset; one whose target (RA, DEC) differs keeps its
        WCS, and its target is that of the others; a WCS that stands still while the telescope dithers is
        replaced by the offsets. Frames sent to another target are left alone, but for a single one among
        others of its observation (OBSID), whose target does not change: its header is taken to be wrong.
        Where there is no majority, a WCS that is missing or more than `debug_consistency_limit`
        from target plus offset is rebuilt from target, offsets, position angle, camera and port,
        with CRPIX of the header or the instrument table.

        In the primary header WCSFIX says what was done, PNTDIST what was distrusted (WCS, target, offsets),
        PNTWITN which witness decided, WCSERR the error of a rebuilt WCS (arcsec), ORIGRA and ORIGDEC the
        target before it was replaced, PNTALT1 and PNTALT2 CRVAL by what was distrusted, between which
        `adjustWCSToReference` lets the images decide. Each is a warning and in the report.

        Frames of f/32 with Altair get the published distortion, r' = r + 1.32e-5 r^2 pixels about the centre
        of the array (`niripipe.instruments.optics`), into their WCS: `ext.wcs` and the SIP keywords of
        written files. DISTMETH (published, or header where the header had SIP) and DISTCOEF say so. Pixels
        are not touched; `resampleToCommonFrame` takes the distortion out.

        DRAGONS knows no distortion. It stops the whole reduction for one frame that is more than the limit
        away (``bad_wcs="exit"``); here the default rebuilds that frame's WCS.

        Raises
        ------
        DataError
            A WCS that contradicts the pointing, with ``bad_wcs="exit"``; no WCS, and a header that does not
            allow one to be built.
        """
        return raw_headers.standardize_wcs(
            frame,
            bad_wcs=params.bad_wcs,
            limit=params.debug_consistency_limit,
            distortion=params.distortion,
            judgement=judgement,
        )

    @primitive(stamp="PREPARE", survey=_judged)
    def prepare(self, frame: AstroData, params: PrepareParams, judgement: Judgement | None = None) -> Outcome:
        """Validate a raw frame and standardise its pixels, headers and WCS.

        Runs what `validateData`, `standardizeStructure`, `standardizeHeaders` and `standardizeWCS` do.
        Pixels are touched in frames from before November 2001 only (see `standardizeStructure`). What was
        corrected is in the history, and in LNRSDIV, WCSFIX and DISTMETH of the primary header.

        Raises
        ------
        DataError
            See `validateData` and `standardizeWCS`.
        """
        raw_headers.require_niri_image(frame)
        changes = [raw_headers.average_read_pairs(frame)]
        outcome = raw_headers.standardize_wcs(
            frame,
            bad_wcs=params.bad_wcs,
            limit=params.debug_consistency_limit,
            require_wcs=params.require_wcs,
            distortion=params.distortion,
            judgement=judgement,
        )
        if outcome is not None and outcome.status is not Status.NOT_NEEDED:
            changes.append(outcome.reason)
        raw_headers.validate(frame, require_wcs=params.require_wcs)
        conflict = frame.voltage_conflict()
        if conflict:
            log.warning("%s: %s", frame.filename, conflict)
            changes.append(conflict)
        raw_headers.standardize_headers(frame, self.context.software, self.context.mode)
        source = frame.source_path or frame.path
        if source is not None:
            add_provenance(frame, source, file_md5(source), "prepare")
        return done("; ".join(text for text in changes if text))

    @primitive(stamp="ADDDQ")
    def addDQ(self, frames: Frames, params: AddDQParams) -> Frames:
        """Make the data-quality plane: bad pixels, non-linear and saturated ones, and persistence.

        Works on pixels in ADU, before any arithmetic. Bad pixel masks come from the calibration service
        (`static_bpm`) and from the user (`user_bpm`). All are united, and BPMIM names them: of the service's
        the best of each origin, the static one of the archive, one made from flats, and those that the user
        registered. Masks of a larger part of the detector are cut to that of the frame. Their values are
        taken as bits; NaN, fractions, and what is no 16-bit number are bad. A frame that has a mask keeps it,
        and gets bad pixel masks only when the user gives one. Data at or above
        SATLEVEL get bit 4, between NONLINEA and SATLEVEL bit 2; small holes inside saturated cores
        bit 4; NaN and infinite pixels, and those further below zero than SATLEVEL is above, bit 16.

        A frame of the sky of which less than 5 % can be used is left out, and one whose pixels are constant
        while those of others are not; where all are, there is a warning.

        Raises
        ------
        InputError, DataError
            A bad pixel mask that was named and cannot be opened or does not cover the frame; one that flags
            a larger share of the frame than `max_bad`; frames none of which can be used.
        """
        if params.static_bpm == "default":
            book = self.context.calibrations
            book.look_up(frames, "processed_bpm")
            if params.user_bpm is None and book.reasons.get("processed_bpm"):
                log.stdinfo("no bad pixel mask is applied: %s", book.reasons["processed_bpm"])
        to_do = []
        for frame in frames:
            if frame[0].plane("mask") is None:
                to_do.append((frame, self._bad_pixel_masks(frame, params)))
            elif params.user_bpm:
                to_do.append((frame, self._bad_pixel_masks(frame, params)))
                self.note(frame, done("bad pixel masks were added to the data-quality plane it had"))
            else:
                self.note(frame, skipped("the frame has a data-quality plane already"))
        self.map(lambda job: _add_dq(*job, params.max_bad), to_do)
        if params.latency:
            self.map(lambda job: _flag_latency(*job), _afterglows(frames, params))
        if params.add_illum_mask:
            for frame in frames:
                self._add_illumination(frame, params.illum_mask)
        return usable.without_empty_frames(self, frames)

    @primitive
    def addLatencyToDQ(self, frames: Frames, params: AddLatencyToDQParams) -> Frames:
        """Flag (bit 8) pixels that were saturated in a frame that ended less than `time` before."""
        self.map(lambda job: _flag_latency(*job), _afterglows(frames, params))
        return frames

    @primitive(stamp="ADILLMSK")
    def addIllumMaskToDQ(self, frame: AstroData, params: AddIllumMaskToDQParams) -> Outcome | None:
        """Flag (bit 64) what an illumination mask covers."""
        return self._add_illumination(frame, params.illum_mask)

    @primitive(stamp="ADUTOELE")
    def ADUToElectrons(self, frame: AstroData, params: ADUToElectronsParams) -> Outcome | None:
        """Convert data, variance and levels from ADU to electrons; GAIN becomes 1."""
        ext = frame[0]
        if not frame.is_in_adu():
            return not_needed("already in electrons")
        gain = float(ext.gain())
        ext.multiply(gain)
        for key in ("SATLEVEL", "NONLINEA"):
            if ext.hdr.get(key) is not None:
                ext.hdr.set(key, ext.hdr[key] * gain, ext.hdr.comment(key).replace("ADU", "electron"))
        ext.hdr.set("BUNIT", "electron", "Data units")
        ext.hdr.set("GAIN", 1.0, "Gain (e-/data unit)")
        return None

    @primitive(stamp="ADDVAR", repeatable=True)
    def addVAR(self, frame: AstroData, params: AddVARParams) -> Outcome | None:
        """Add the variance of read noise and photon noise.

        The photon noise of a pixel is taken from its own counts, ``max(data, 0)``; read noise from
        RDNOISE, which holds the noise of all coadds. VARNOISE in the extension header says which were
        added, and keeps a component from being added twice. A variance plane that a frame has when it is
        prepared, or that DRAGONS added, was made by other software: it is kept as it is, with a warning.
        """
        ext = frame[0]
        present = ext.hdr.get("VARNOISE", "")
        if present == raw_headers.FOREIGN_NOISE or (not present and "ADDVAR" in frame.phu):
            log.warning("%s: its variance plane of other software is kept as it is", frame.filename)
            return skipped("the frame has a variance plane of other software, which is kept")
        wanted = {"read": params.read_noise, "Poisson": params.poisson_noise}
        new = [name for name, on in wanted.items() if on and name not in present]
        if not new:
            return skipped(f"nothing to add to {present!r}" if present else "neither component was asked for")
        ext.variance = noise.variance(
            ext.read("data"),
            gain=float(ext.gain()),
            read_noise=float(ext.read_noise()) if "read" in new else 0.0,
            poisson="Poisson" in new,
            existing=ext.read("variance"),
        )
        names = [name for name in wanted if name in new or name in present]
        ext.hdr.set("VARNOISE", ", ".join(names), "Noise components in the variance")
        return None

    @primitive(stamp="LINCORR")
    def nonlinearityCorrect(self, frame: AstroData, params: NonlinearityCorrectParams) -> Outcome | None:
        """Correct the non-linearity of the detector, where its coefficients are known.

        Data and variance are corrected in their present unit; SATLEVEL and NONLINEA follow. A frame
        without coefficients for its read mode, size and well depth is left as it is and recorded as
        SKIPPED, never stamped.
        """
        ext = frame[0]
        coefficients = ext.linearity_coefficients()
        if coefficients is None:
            ny = ext.shape[0]
            return skipped(
                f"no coefficients for {frame.read_mode()}, {ny} rows, {frame.well_depth_setting()} well"
            )
        polynomial: dict[str, Any] = {
            "gamma": coefficients.gamma,
            "eta": coefficients.eta,
            "gain": float(ext.gain()),
            "coadds": int(frame.coadds()),
        }
        corrected = linearity.correct(
            ext.read("data"),
            ext.read("variance"),
            time_delta=coefficients.dead_time,
            exposure_time=frame.exposure_time() / polynomial["coadds"],
            **polynomial,
        )
        ext.reset(corrected.data, mask=ext.read("mask"), variance=corrected.variance)
        for key in ("SATLEVEL", "NONLINEA"):
            if ext.hdr.get(key) is not None:
                ext.hdr[key] = linearity.correct_level(float(ext.hdr[key]), **polynomial)
        return None

    # -- helpers -------------------------------------------------------------------------------------

    def _bad_pixel_masks(self, frame: AstroData, params: AddDQParams) -> Frames:
        book = self.context.calibrations
        found: list[FoundCalibration | None] = []
        if params.static_bpm == "default":
            found += book.find_masks(frame)
        elif params.static_bpm is not None:
            found.append(book.find(frame, "processed_bpm", params.static_bpm))
        for given in params.user_bpm or ():
            found.append(book.find(frame, "processed_bpm", given))
        masks: Frames = []
        for calibration in found:
            if calibration is not None and calibration.frame not in masks:
                masks.append(calibration.frame)
                book.remember(frame, calibration, "addDQ")
        frame.phu.set(
            "BPMIM", plain_name(",".join(str(m.filename) for m in masks)) or "none", "Bad pixel masks applied"
        )
        return masks

    def _add_illumination(self, frame: AstroData, illum_mask: Any) -> Outcome | None:
        if illum_mask is None:
            return not_needed("NIRI has no illumination mask, and none was given")
        covered = clipped(frame, self.context.calibrations.opened(illum_mask))[0].read("data") > 0
        objmask.add_to_mask(frame, DQ.unilluminated, covered)
        return None


def _add_dq(frame: AstroData, bad_pixel_masks: Frames, max_bad: float) -> None:
    """Give a frame a mask of what its counts say, unless it has one, and of its bad pixel masks."""
    ext = frame[0]
    mask = ext.read("mask")
    if mask is None:
        mask = dq.flags(
            ext.read("data"), saturation=ext.saturation_level(), non_linear=ext.non_linear_level()
        )
    for bpm in bad_pixel_masks:
        flags = bits.as_flags(clipped(frame, bpm)[0].read("data"))
        check_mask(flags, max_bad, file=bpm.filename, item="addDQ:max_bad")
        flags |= mask
        mask = flags
    ext.mask = mask


def _afterglows(frames: Frames, params: LatencyParams) -> list[tuple[AstroData, list[_Afterglow]]]:
    """Return frames with afterglow, and what was saturated in those that started less than `time` before.

    The exposure right before counts from its end, so that long exposures have an afterglow too. With
    `decay` the afterglow falls off from the end of the earlier exposure, ``residual exp(-t / decay)`` of
    the saturation level, and only counts as long as it stands out of the noise of the frame.
    """
    dated = [(frame.ut_datetime(), frame) for frame in frames if frame[0].plane("mask") is not None]
    dated = sorted((one for one in dated if one[0] is not None), key=lambda one: one[0])
    # Only flags set before this loop are propagated, so persistence does not chain. Defects of the detector
    # look saturated in every frame, and leave no afterglow.
    wanted = bits.SATURATED | (bits.NON_LINEAR if params.non_linear else 0)
    latent = [dq.where_flagged(frame[0].plane("mask"), wanted, ignore=bits.BAD) for _, frame in dated]
    exposures = [frame.exposure_time() or 0.0 for _, frame in dated]
    glowing: list[tuple[AstroData, list[_Afterglow]]] = []
    for i, (start, frame) in enumerate(dated):
        earlier_ones: list[_Afterglow] = []
        for j in reversed(range(i)):
            earlier_start, earlier = dated[j]
            since_start = (start - earlier_start).total_seconds()
            since_end = max(since_start - exposures[j], 0.0)
            if since_start >= params.time and j < i - 1:
                break
            gap = since_end if j == i - 1 else since_start
            if gap < params.time and len(latent[j]) and _still_glows(frame, earlier, since_end, params):
                earlier_ones.append((earlier[0].detector_section(), latent[j]))
        if earlier_ones:
            glowing.append((frame, earlier_ones))
    return glowing


def _still_glows(frame: AstroData, earlier: AstroData, since: float, params: LatencyParams) -> bool:
    """Return whether the afterglow of a saturated pixel exceeds the read noise of a frame."""
    level = earlier[0].saturation_level()
    if params.decay is None or level is None:
        return True
    glow = params.residual * float(level) * math.exp(-since / params.decay)
    return glow > float(frame[0].read_noise()) / float(frame[0].gain())


def _flag_latency(frame: AstroData, earlier: list[_Afterglow]) -> None:
    """Set bit 8 at the detector pixels that were bright in earlier frames."""
    ext = frame[0]
    here, (ny, nx) = ext.detector_section(), ext.shape
    mask = ext.read("mask").copy()
    for there, pixels in earlier:
        y, x = pixels[:, 0] + there.y1 - here.y1, pixels[:, 1] + there.x1 - here.x1
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        mask[y[inside], x[inside]] |= np.uint16(DQ.cosmic_ray)
    ext.mask = mask
