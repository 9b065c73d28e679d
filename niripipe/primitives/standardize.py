"""Primitives that make raw frames uniform: headers, planes, units, noise, linearity."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits, dq, linearity, noise
from niripipe.algorithms.flags import Flags
from niripipe.astrodata import DQ, AstroData, Section, add_provenance, file_md5
from niripipe.errors import DataError
from niripipe.instruments import AstroDataNiri, pointing
from niripipe.logutils import get_logger
from niripipe.primitives.base import DONE, Outcome, PrimitivesBase, Status, not_needed, primitive, skipped
from niripipe.primitives.calibrations import clipped
from niripipe.primitives.flags import flag
from niripipe.primitives.params import Field, FrameOrPath, FrameOrPathOrDefault, Params

__all__ = ["Standardize"]

log = get_logger(__name__)

_FEW_FLAGS = 0.25
"""Up to this share of flagged pixels a mask is kept as a list of them, which needs three times the memory
of a plane for each."""

_WITHOUT_WCS = {"DARK", "FLAT", "ARC", "CAL"}
"""Calibrations are taken at the zenith with the cover closed: their WCS means nothing."""


class ValidateDataParams(Params):
    """Parameters of `Standardize.validateData`."""

    suffix: str | None = Field("_dataValidated", description="suffix of the file name")
    require_wcs: bool = Field(True, description="refuse a frame whose WCS is unusable and cannot be rebuilt")


class StandardizeStructureParams(Params):
    """Parameters of `Standardize.standardizeStructure`."""

    suffix: str | None = Field("_structureStandardized", description="suffix of the file name")


class StandardizeHeadersParams(Params):
    """Parameters of `Standardize.standardizeHeaders`."""

    suffix: str | None = Field("_headersStandardized", description="suffix of the file name")


class StandardizeWCSParams(Params):
    """Parameters of `Standardize.standardizeWCS`."""

    suffix: str | None = Field("_wcsStandardized", description="suffix of the file name")
    bad_wcs: Literal["exit", "fix", "new", "ignore"] = Field(
        "fix",
        description="exit: refuse a frame whose WCS contradicts its pointing; fix: rebuild its WCS from the "
        "pointing; new: rebuild every WCS; ignore: keep it",
    )
    debug_consistency_limit: float = Field(
        30.0, ge=2, description="allowed distance between WCS and target plus offsets, arcsec"
    )


class PrepareParams(ValidateDataParams, StandardizeWCSParams):
    """Parameters of `Standardize.prepare`."""

    suffix: str | None = Field("_prepared", description="suffix of the file name")


class LatencyParams(Params):
    """What decides whether a pixel still glows."""

    non_linear: bool = Field(False, description="flag latency also after non-linear pixels")
    time: float = Field(120.0, ge=0, description="how long persistence lasts at most, s")
    decay: float | None = Field(
        None, gt=0, description="e-folding time of the afterglow, s; None: all of it lasts for `time`"
    )
    residual: float = Field(
        0.01,
        gt=0,
        le=1,
        description="afterglow right after the exposure, part of saturation; with `decay`",
    )


class AddDQParams(LatencyParams):
    """Parameters of `Standardize.addDQ`."""

    suffix: str | None = Field("_dqAdded", description="suffix of the file name")
    static_bpm: FrameOrPathOrDefault = Field(
        "default", description="bad pixel mask; default: ask the calibration service; None: none"
    )
    user_bpm: FrameOrPath = Field(None, description="a further bad pixel mask, joined with the static one")
    latency: bool = Field(False, description="flag pixels that were saturated shortly before")
    add_illum_mask: bool = Field(False, description="flag what an illumination mask covers")
    illum_mask: FrameOrPath = Field(None, description="the illumination mask")


class AddLatencyToDQParams(LatencyParams):
    """Parameters of `Standardize.addLatencyToDQ`."""

    suffix: str | None = Field("_latencyAdded", description="suffix of the file name")


class AddIllumMaskToDQParams(Params):
    """Parameters of `Standardize.addIllumMaskToDQ`."""

    suffix: str | None = Field("_illumMaskAdded", description="suffix of the file name")
    illum_mask: FrameOrPath = Field(None, description="the illumination mask")


class ADUToElectronsParams(Params):
    """Parameters of `Standardize.ADUToElectrons`."""

    suffix: str | None = Field("_ADUToElectrons", description="suffix of the file name")


class AddVARParams(Params):
    """Parameters of `Standardize.addVAR`."""

    suffix: str | None = Field("_varAdded", description="suffix of the file name")
    read_noise: bool = Field(False, description="add the variance of the read noise")
    poisson_noise: bool = Field(False, description="add the variance of the photon noise")


class NonlinearityCorrectParams(Params):
    """Parameters of `Standardize.nonlinearityCorrect`."""

    suffix: str | None = Field("_nonlinearityCorrected", description="suffix of the file name")


class Standardize(PrimitivesBase):
    """Raw frames to frames in electrons with variance and data-quality planes."""

    @primitive(stamp="VALDATA", headers_only=True)
    def validateData(self, frame: AstroData, params: ValidateDataParams) -> None:
        """Check that a frame is one that the primitives can treat.

        Raises
        ------
        DataError
            Not a NIRI frame, not exactly one image extension, or no usable WCS where one is required.
        """
        _validate(frame, params)

    @primitive(stamp="SDZSTRUC")
    def standardizeStructure(self, frame: AstroData, params: StandardizeStructureParams) -> Outcome:
        """Bring the pixels of old frames into the form of later ones.

        Frames from before November 2001 hold the sum over the low-noise read pairs: they are divided by
        their number, and LNRSDIV in the primary header keeps it. Other frames have the standard structure.
        """
        done = _average_read_pairs(frame)
        return Outcome(Status.DONE, done) if done else not_needed("the frame has the standard structure")

    @primitive(stamp="SDZHDRSI", headers_only=True)
    def standardizeHeaders(self, frame: AstroData, params: StandardizeHeadersParams) -> None:
        """Write what the headers mean as standard keywords.

        PHU: ORIGNAME, PROCSOFT, PROCSVER, PROCMODE, FILTER, PIXSCALE, EXPTIME (total of the coadds).
        Extension: BUNIT, PIXSCALE, RDNOISE and GAIN (e-, e-/ADU), SATLEVEL and NONLINEA (ADU), RADESYS.
        """
        _standardize_headers(frame, self.context.software, self.context.mode)

    @primitive(stamp="SDZWCS", headers_only=True)
    def standardizeWCS(self, frame: AstroData, params: StandardizeWCSParams) -> Outcome | None:
        """Find the WCS that can be believed, and rebuild it where there is none.

        A raw header states the WCS twice; the copy in the primary header is taken where that in the extension
        cannot be true for the camera, or contradicts the pointing while the other agrees. In a subarray
        from before February 2005 CRPIX refers to the whole chip and is moved. A WCS that is missing or
        contradicts the telescope's pointing by more than `debug_consistency_limit` is rebuilt from target,
        offsets, position angle, camera and port. WCSFIX in the primary header says what was done.

        DRAGONS stops the whole reduction for one frame that is more than the limit away
        (``bad_wcs="exit"``); here the default rebuilds that frame's WCS.

        Raises
        ------
        DataError
            A WCS that contradicts the pointing, with ``bad_wcs="exit"``; no WCS, and a header that does not
            allow one to be built.
        """
        return _standardize_wcs(frame, params)

    @primitive(stamp="PREPARE", headers_only=True)
    def prepare(self, frame: AstroData, params: PrepareParams) -> Outcome:
        """Validate a raw frame and standardise its pixels, headers and WCS.

        Runs what `validateData`, `standardizeStructure`, `standardizeHeaders` and `standardizeWCS` do.
        Pixels are touched in frames from before November 2001 only (see `standardizeStructure`). What was
        corrected is in the history, and in LNRSDIV and WCSFIX of the primary header.

        Raises
        ------
        DataError
            See `validateData` and `standardizeWCS`.
        """
        _is_niri_image(frame)
        done = [_average_read_pairs(frame)]
        outcome = _standardize_wcs(frame, params)
        if outcome is not None and outcome.status is not Status.NOT_NEEDED:
            done.append(outcome.reason)
        _validate(frame, params)
        conflict = frame.voltage_conflict()
        if conflict:
            log.warning("%s: %s", frame.filename, conflict)
            done.append(conflict)
        _standardize_headers(frame, self.context.software, self.context.mode)
        if frame.path is not None:
            add_provenance(frame, frame.path, file_md5(frame.path), "prepare")
        return Outcome(Status.DONE, "; ".join(text for text in done if text))

    @primitive(stamp="ADDDQ")
    def addDQ(self, frames: list[AstroData], params: AddDQParams) -> list[AstroData]:
        """Make the data-quality plane: bad pixels, non-linear and saturated ones, and persistence.

        Works on pixels in ADU, before any arithmetic. Bad pixel masks come from the calibration service
        (`static_bpm`) and from the user (`user_bpm`); their values are taken as bits. Data at or above
        SATLEVEL get bit 4, between NONLINEA and SATLEVEL bit 2; small holes inside saturated cores
        bit 4; NaN and infinite pixels bit 16.

        Raises
        ------
        InputError, DataError
            A bad pixel mask that was named and cannot be opened or does not cover the frame.
        """
        if params.static_bpm == "default":
            book = self.context.calibrations
            book.look_up(frames, "processed_bpm")
            if params.user_bpm is None and book.reasons.get("processed_bpm"):
                log.stdinfo("no bad pixel mask is applied: %s", book.reasons["processed_bpm"])
        found = self.study(_found_flags, frames)
        flagged = []
        for frame, flags in zip(frames, found, strict=True):
            if flags is None:
                self.note(frame, skipped("the frame has a data-quality plane already"))
            flagged.append(None if flags is None else self._add_dq(frame, flags, params))
        if params.latency:
            _add_latency(frames, flagged, params, self.study)
        if params.add_illum_mask:
            for frame in frames:
                self._add_illumination(frame, params.illum_mask)
        return frames

    @primitive
    def addLatencyToDQ(self, frames: list[AstroData], params: AddLatencyToDQParams) -> list[AstroData]:
        """Flag (bit 8) pixels that were saturated in a frame that ended less than `time` before."""
        _add_latency(frames, [None] * len(frames), params, self.study)
        return frames

    @primitive(stamp="ADILLMSK")
    def addIllumMaskToDQ(self, frame: AstroData, params: AddIllumMaskToDQParams) -> Outcome:
        """Flag (bit 64) what an illumination mask covers."""
        return self._add_illumination(frame, params.illum_mask)

    @primitive(stamp="ADUTOELE", pixel_by_pixel=True)
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

    @primitive(stamp="ADDVAR", repeatable=True, headers_only=True)
    def addVAR(self, frame: AstroData, params: AddVARParams) -> Outcome | None:
        """Add the variance of read noise and photon noise.

        The photon noise of a pixel is taken from its own counts, ``max(data, 0)``; read noise from
        RDNOISE, which holds the noise of all coadds. VARNOISE in the extension header says which were
        added, and keeps a component from being added twice.
        """
        ext = frame[0]
        present = ext.hdr.get("VARNOISE", "")
        wanted = {"read": params.read_noise, "Poisson": params.poisson_noise}
        new = [name for name, on in wanted.items() if on and name not in present]
        if not new:
            return skipped(f"nothing to add to {present!r}" if present else "neither component was asked for")
        noise_of = partial(
            noise.variance,
            gain=float(ext.gain()),
            read_noise=float(ext.read_noise()) if "read" in new else 0.0,
            poisson="Poisson" in new,
        )
        existing = ext.read("variance")
        if existing is None:
            # Darks and flats are combined next, which needs the variance once and row by row.
            ext.derive_variance(lambda values, _: noise_of(values))
        else:
            ext.variance = noise_of(ext.read("data"), existing=existing)
        names = [name for name in wanted if name in new or name in present]
        ext.hdr.set("VARNOISE", ", ".join(names), "Noise components in the variance")
        return None

    @primitive(stamp="LINCORR", pixel_by_pixel=True)
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
        times = {
            "time_delta": coefficients.dead_time,
            "exposure_time": frame.exposure_time() / polynomial["coadds"],
        }
        noise_of = ext.variance_function() if "Poisson" in ext.hdr.get("VARNOISE", "") else None
        derived = noise_of is not None or ext.rows("variance") is None
        if not derived or not ext.derive_data(
            lambda values, _: linearity.correct(values, **times, **polynomial).data
        ):
            variance = None if derived else ext.read("variance")
            corrected = linearity.correct(ext.read("data"), variance, **times, **polynomial)
            ext.reset(corrected.data, mask=ext.read("mask"), variance=corrected.variance)
        if noise_of is not None:
            factor = np.float32(linearity.exposure_factor(**times))
            # Photon noise follows the counts by 1 / gain, as the correction's own term does, so that it may
            # as well be taken from the corrected counts.
            ext.derive_variance(lambda values, rows: noise_of(values / factor, rows) * (factor * factor))
        for key in ("SATLEVEL", "NONLINEA"):
            if ext.hdr.get(key) is not None:
                ext.hdr[key] = linearity.correct_level(float(ext.hdr[key]), **polynomial)
        return None

    # -- helpers -------------------------------------------------------------------------------------

    def _add_dq(self, frame: AstroData, flags: Flags, params: AddDQParams) -> Flags | None:
        """Give a frame a mask of what its counts say and of its bad pixel masks.

        Returns the flags of the pixels of which the counts say something; None if a bad pixel mask says more
        than that pixels are bad.
        """
        ext = frame[0]
        bad = [clipped(frame, bpm)[0].read("data") for bpm in self._bad_pixel_masks(frame, params)]
        height, width = ext.shape

        def mask_of(rows: slice) -> NDArray[np.uint16]:
            mask = np.zeros((len(range(*rows.indices(height))), width), np.uint16)
            for plane in bad:
                mask |= plane[rows].astype(np.uint16)
            return flags.add_to(mask, rows, height)

        if flags.where.size > _FEW_FLAGS * height * width:
            ext.mask = mask_of(slice(None))
        else:
            ext.compute_mask(mask_of)
        if any(plane.max(initial=0) > bits.BAD for plane in bad):
            return None
        both = flags.bits.copy()
        for plane in bad:
            both |= plane.reshape(-1)[flags.where].astype(np.uint16)
        return Flags(flags.where, both)

    def _bad_pixel_masks(self, frame: AstroData, params: AddDQParams) -> list[AstroData]:
        book = self.context.calibrations
        found = []
        static = None if params.static_bpm == "default" else params.static_bpm
        if params.static_bpm is not None:
            found.append(book.find(frame, "processed_bpm", static))
        if params.user_bpm is not None:
            found.append(book.find(frame, "processed_bpm", params.user_bpm))
        masks: list[AstroData] = []
        for calibration in found:
            if calibration is not None and all(calibration.frame is not mask for mask in masks):
                masks.append(calibration.frame)
                book.remember(frame, calibration)
                path = calibration.frame.path
                add_provenance(frame, str(path or calibration.name), file_md5(path), "addDQ")
        frame.phu.set("BPMIM", ",".join(str(m.filename) for m in masks) or "none", "Bad pixel masks applied")
        return masks

    def _add_illumination(self, frame: AstroData, illum_mask: Any) -> Outcome:
        if illum_mask is None:
            return not_needed("NIRI has no illumination mask, and none was given")
        covered = clipped(frame, self.context.calibrations.opened(illum_mask))[0].read("data") > 0
        ext = frame[0]
        mask = np.zeros(ext.shape, np.uint16) if ext.mask is None else ext.mask
        mask[covered] |= np.uint16(DQ.unilluminated)
        ext.mask = mask
        return DONE


def _found_flags(frame: AstroData) -> Flags | None:
    """Find out which flags the pixels of a frame need; None if it has a mask already."""
    ext = frame[0]
    if ext.rows("mask") is not None:
        return None
    return dq.find_flags(
        ext.rows("data"),
        saturation=ext.saturation_level(),
        non_linear=ext.non_linear_level(),
        not_finite=int(DQ.no_data),
    )


def _validate(frame: AstroData, params: ValidateDataParams) -> None:
    _is_niri_image(frame)
    if params.require_wcs and not frame.tags & _WITHOUT_WCS and frame[0].sky_mapping is None:
        raise DataError(
            "The frame has no usable WCS, and its header does not allow one to be built",
            file=frame.filename,
            found=frame[0].wcs_problem,
            remedy="Repair the header, or pass prepare:require_wcs=False.",
        )


def _is_niri_image(frame: AstroData) -> None:
    if frame.instrument() != "NIRI":
        raise DataError(
            "These primitives treat NIRI frames",
            file=frame.filename,
            item="INSTRUME",
            found=frame.instrument(),
        )
    if len(frame) != 1:
        raise DataError(
            "A NIRI frame has one image extension", file=frame.filename, found=f"{len(frame)}", expected="1"
        )


def _standardize_headers(frame: AstroData, software: str, mode: str) -> None:
    ext, phu = frame[0], frame.phu
    # All values are read before any is written: descriptors answer from what they find in the header.
    values = {
        "RDNOISE": (ext.read_noise(), "Read noise of all coadds (electron)"),
        "GAIN": (ext.gain(), "Gain (electron/ADU)"),
        "NONLINEA": (ext.non_linear_level(), "Non-linear level (ADU)"),
        "SATLEVEL": (ext.saturation_level(), "Saturation level (ADU)"),
        "PIXSCALE": (ext.pixel_scale(), "Pixel scale (arcsec/pixel)"),
    }
    filter_name, exposure = frame.filter_name(pretty=True), frame.exposure_time()
    if exposure is None:
        raise DataError(
            "The frame has no usable exposure time",
            file=frame.filename,
            item="EXPTIME",
            found=phu.get("EXPTIME", "missing"),
            expected="seconds, not negative",
        )
    for key, (value, comment) in values.items():
        if value is not None:
            ext.hdr.set(key, value, comment)
        if key != "PIXSCALE" and key in phu:
            phu.remove(key)
    if values["PIXSCALE"][0] is not None:
        phu.set("PIXSCALE", *values["PIXSCALE"])
    ext.hdr.set("BUNIT", "adu", "Data units")
    if "RADECSYS" in ext.hdr:
        ext.hdr.rename_keyword("RADECSYS", "RADESYS")
    name, _, version = software.partition(" ")
    phu.set("ORIGNAME", phu.get("ORIGNAME") or frame.orig_filename, "Original file name before processing")
    phu.set("PROCSOFT", name, "Data processing software used")
    phu.set("PROCSVER", version, "Version of the software")
    phu.set("PROCMODE", mode, "Processing mode [sq|ql|qa]")
    phu.set("FILTER", filter_name, "Filter name")
    phu.set("EXPTIME", exposure, "Exposure time of all coadds (s)")
    frame.phu.set("COADDEXP", exposure / frame.coadds(), "Exposure time of one coadd (s)")


def _average_read_pairs(frame: AstroData) -> str:
    """Divide the sum over read pairs in old frames by their number; say so, or nothing."""
    pairs = frame.read_pairs_to_divide_by()
    if pairs == 1 or "LNRSDIV" in frame.phu:
        return ""
    frame[0].divide(np.float32(pairs))
    frame.phu.set("LNRSDIV", pairs, "Read pairs that the pixels were divided by")
    return f"the sum over {pairs} read pairs was divided by their number"


def _standardize_wcs(frame: AstroData, params: StandardizeWCSParams) -> Outcome | None:
    """Take the better copy of the WCS, or rebuild it, as the parameters say."""
    if frame.tags & _WITHOUT_WCS:
        return not_needed("calibrations need no WCS")
    niri = cast(AstroDataNiri, frame)
    limit = params.debug_consistency_limit
    done = "" if params.bad_wcs == "ignore" else _take_header_wcs(niri, limit)
    follows = pointing.rotator_follows(niri)
    consistent = pointing.wcs_is_consistent(niri, limit) if follows else None
    ext = frame[0]
    if ext.sky_mapping is not None and consistent is not False and params.bad_wcs != "new":
        if done:
            return _fixed(frame, done)
        return not_needed(
            "the WCS agrees with the pointing, or there is nothing to compare it with"
            if follows
            else "the rotator did not follow the sky: there is nothing to compare the WCS with"
        )
    found = f"more than {limit:g} arcsec from target plus offsets"
    if ext.sky_mapping is None:
        found = ext.wcs_problem or f"no copy of it can be true for the camera {frame.camera()}"
    if params.bad_wcs == "ignore":
        return skipped(f"the WCS is kept as it is: {found}")
    if params.bad_wcs == "exit":
        raise DataError(
            "The WCS contradicts the pointing",
            file=frame.filename,
            found=found,
            expected=f"at most {limit:g} arcsec from target plus offsets",
            remedy="Pass prepare:bad_wcs=fix to rebuild it from the pointing",
        )
    try:
        ext.sky_mapping = pointing.wcs_from_pointing(niri)
    except DataError as error:
        if ext.sky_mapping is None and getattr(params, "require_wcs", True):
            raise
        return skipped(f"the WCS is kept as it is: {found}, and none can be built ({error.item} missing)")
    if not follows:
        log.warning("%s: the rotator did not follow the sky; the orientation is a guess", frame.filename)
    return _fixed(frame, f"the WCS was rebuilt from the pointing ({found})", "rebuilt from pointing")


def _take_header_wcs(frame: AstroDataNiri, limit: float) -> str:
    """Give a raw frame the WCS that its headers mean; say what was wrong with the one it had."""
    ext = frame[0]
    if "PREPARED" in frame.tags or "WCSFIX" in frame.phu or ext.wcs_origin == "set":
        return ""
    believed = pointing.raw_wcs(frame, limit)
    if believed is None:
        ext.sky_mapping = None
        return ""
    done = []
    if believed.origin == "primary":
        why = ext.wcs_problem or "that in the extension cannot be true"
        done.append(f"the copy of the WCS in the primary header was taken ({why})")
    if any(believed.shift):
        x, y = believed.shift
        done.append(f"CRPIX was moved by ({x:g}, {y:g}) pixels from the chip to the subarray")
    if done:
        ext.sky_mapping = believed.wcs.to_plane()
    return "; ".join(done)


def _fixed(frame: AstroData, done: str, keyword: str = "") -> Outcome:
    """Record that the WCS is not the one of the raw header."""
    if not keyword:
        parts = ("primary copy" if "primary" in done else "", "CRPIX of subarray" if "CRPIX" in done else "")
        keyword = ", ".join(part for part in parts if part)
    frame.phu.set("WCSFIX", keyword, "What was done to the WCS")
    log.warning("%s: %s", frame.filename, done)
    return Outcome(Status.DONE, done)


def _add_latency(
    frames: list[AstroData],
    flagged: list[Flags | None],
    params: LatencyParams,
    each: Callable[[Callable[[Any], Any], list[Any]], list[Any]],
) -> None:
    """Flag in each frame what was saturated in a frame that started less than `time` before.

    The exposure right before counts from its end, so that long exposures have an afterglow too. With
    `decay` the afterglow falls off from the end of the earlier exposure, ``residual exp(-t / decay)`` of
    the saturation level, and only counts as long as it stands out of the noise of the frame.

    Of frames whose counts were just looked at, `flagged` has the flags; of others the masks are searched.
    """
    pairs = zip(frames, flagged, strict=True)
    known = [
        (frame.ut_datetime(), frame, flags) for frame, flags in pairs if frame[0].rows("mask") is not None
    ]
    known = sorted((one for one in known if one[0] is not None), key=lambda one: one[0])
    dated = [(start, frame) for start, frame, _ in known]
    # Only flags set before this loop are propagated, so persistence does not chain.
    wanted = bits.SATURATED | (bits.NON_LINEAR if params.non_linear else 0)
    latent = each(lambda one: _bright(one[1], one[2], wanted), known)
    exposures = [frame.exposure_time() or 0.0 for _, frame in dated]
    glowing = []
    for i, (start, frame) in enumerate(dated):
        earlier_ones = []
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
    for frame, earlier_ones in glowing:
        _flag_latency(frame, earlier_ones)


def _bright(frame: AstroData, flags: Flags | None, wanted: int) -> NDArray[np.intp]:
    """Return rows and columns of the pixels with some bits, but for defects.

    Defects of the detector look saturated in every frame, and leave no afterglow.
    """
    if flags is None:
        # Read from where they are: many frames need not be in memory at once.
        return dq.where_flagged(frame[0].rows("mask"), wanted, ignore=bits.BAD)
    bright = (flags.bits & np.uint16(wanted) != 0) & (flags.bits & np.uint16(bits.BAD) == 0)
    return np.stack(np.divmod(flags.where[bright].astype(np.intp), frame[0].shape[1]), axis=1)


def _still_glows(frame: AstroData, earlier: AstroData, since: float, params: LatencyParams) -> bool:
    """Return whether the afterglow of a saturated pixel exceeds the read noise of a frame."""
    level = earlier[0].saturation_level()
    if params.decay is None or level is None:
        return True
    glow = params.residual * float(level) * math.exp(-since / params.decay)
    return glow > float(frame[0].read_noise()) / float(frame[0].gain())


def _flag_latency(frame: AstroData, earlier: list[tuple[Section, NDArray[np.intp]]]) -> None:
    """Set bit 8 at the detector pixels that were bright in earlier frames."""
    ext = frame[0]
    here, (ny, nx) = ext.detector_section(), ext.shape
    glowing = [np.zeros(0, np.intp)]
    for there, pixels in earlier:
        y, x = pixels[:, 0] + there.y1 - here.y1, pixels[:, 1] + there.x1 - here.x1
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        glowing.append(y[inside] * nx + x[inside])
    where = np.unique(np.concatenate(glowing))
    flag(frame, Flags(where.astype(np.int32), np.full(where.size, DQ.cosmic_ray, np.uint16)))
