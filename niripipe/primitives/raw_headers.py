"""Raw headers to standard ones: keywords, world coordinates, read pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import numpy as np

from niripipe.astrodata import AstroData, distortion_of
from niripipe.astrodata.filenames import plain_name
from niripipe.errors import DataError
from niripipe.instruments import AstroDataNiri, doubts, pointing, pointing_group
from niripipe.instruments.gemini import has_known_unit
from niripipe.instruments.pointing_group import Judgement
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, Outcome, Status, done, not_needed, skipped
from niripipe.primitives.distortion import put_distortion

__all__ = [
    "FOREIGN_NOISE",
    "BadWCS",
    "average_read_pairs",
    "doubtful_values",
    "judged",
    "require_niri_image",
    "standardize_headers",
    "standardize_wcs",
    "validate",
]

log = get_logger(__name__)

FOREIGN_NOISE = "unknown"
"""VARNOISE of a variance plane that a frame had before it was prepared."""

BadWCS = Literal["exit", "fix", "new", "ignore"]

_BUILT_ERROR = 20.0
"""Error of a WCS built of one header, arcsec: in raw frames it is 0.3 to 17 arcsec from the telescope's."""

_WITHOUT_WCS = {"DARK", "FLAT", "ARC", "CAL"}
"""Calibrations are taken at the zenith with the cover closed: their WCS means nothing."""


def validate(frame: AstroData, *, require_wcs: bool) -> None:
    """Check that a frame is one that the primitives can treat.

    Raises
    ------
    DataError
        Not a NIRI frame, not exactly one image extension, or no usable WCS where one is required.
    """
    require_niri_image(frame)
    if require_wcs and not frame.tags & _WITHOUT_WCS and frame[0].sky_mapping is None:
        raise DataError(
            "The frame has no usable WCS, and its header does not allow one to be built",
            file=frame.filename,
            found=frame[0].wcs_problem,
            remedy="Repair the header, or pass prepare:require_wcs=False.",
        )


def require_niri_image(frame: AstroData) -> None:
    """Check that this is a NIRI frame with one image extension, in ADU or electrons.

    Raises
    ------
    DataError
        It is not.
    """
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
    if not has_known_unit(frame[0].hdr):
        raise DataError(
            "The unit of the pixels is not known",
            file=frame.filename,
            item="BUNIT",
            found=frame[0].hdr.get("BUNIT"),
            expected="ADU (also counts, DN) or electron, of all coadds",
            remedy="Bring the pixels to ADU, and write BUNIT = 'adu'.",
        )


def _know_variance(frame: AstroData) -> None:
    """Mark a variance plane that other software made, so that no noise is added to it; drop a useless one."""
    ext = frame[0]
    existing = ext.read("variance")
    if existing is None or "VARNOISE" in ext.hdr:
        return
    if np.any(existing > 0):
        ext.hdr.set("VARNOISE", FOREIGN_NOISE, "Noise components in the variance")
    else:
        log.warning("%s: its variance plane has no positive value and is not used", frame.filename)
        ext.variance = None


def standardize_headers(frame: AstroData, software: str, mode: str) -> None:
    """Write what the headers mean as standard keywords; see `Standardize.standardizeHeaders`.

    Raises
    ------
    DataError
        The frame has no usable exposure time.
    """
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
    if not exposure:
        raise DataError(
            "The frame has no usable exposure time",
            file=frame.filename,
            item="EXPTIME",
            found=phu.get("EXPTIME", "missing"),
            expected="seconds, more than 0",
        )
    _know_variance(frame)
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
    phu.set(
        "ORIGNAME",
        phu.get("ORIGNAME") or plain_name(str(frame.orig_filename)),
        "Original file name before processing",
    )
    phu.set("PROCSOFT", name, "Data processing software used")
    phu.set("PROCSVER", version, "Version of the software")
    phu.set("PROCMODE", mode, "Processing mode [sq|ql|qa]")
    phu.set("FILTER", filter_name, "Filter name")
    phu.set("EXPTIME", exposure, "Exposure time of all coadds (s)")
    frame.phu.set("COADDEXP", exposure / frame.coadds(), "Exposure time of one coadd (s)")


def doubtful_values(frames: Frames) -> list[str]:
    """Return what is doubtful in raw headers: a sentence for each fault, with all frames that have it."""
    faults: dict[str, list[str]] = {}
    for frame in frames:
        if frame.instrument() != "NIRI" or len(frame) != 1 or "PREPARED" in frame.tags:
            continue
        niri = cast(AstroDataNiri, frame)
        found = doubts.exposure_doubts(niri)
        if not frame.tags & _WITHOUT_WCS:
            found += doubts.field_doubts(niri)
        for fault in found:
            faults.setdefault(fault, []).append(str(frame.filename))
    return [f"{_some(names)}: {fault}" for fault, names in faults.items()]


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def average_read_pairs(frame: AstroData) -> str:
    """Divide the sum over read pairs in old frames by their number; say so, or nothing."""
    pairs = frame.read_pairs_to_divide_by()
    if pairs == 1 or "LNRSDIV" in frame.phu:
        return ""
    frame[0].divide(np.float32(pairs))
    frame.phu.set("LNRSDIV", pairs, "Read pairs that the pixels were divided by")
    return f"the sum over {pairs} read pairs was divided by their number"


def standardize_wcs(
    frame: AstroData,
    *,
    bad_wcs: BadWCS,
    limit: float,
    require_wcs: bool = True,
    distortion: Literal["published", "none"] = "published",
    judgement: Judgement | None = None,
) -> Outcome | None:
    """Take the better copy of the WCS, or rebuild it, and add a distortion; see `Standardize.standardizeWCS`.

    Raises
    ------
    DataError
        The WCS contradicts the pointing and `bad_wcs` is ``exit``, or there is none and none can be built.
    """
    if frame.tags & _WITHOUT_WCS:
        return not_needed("calibrations need no WCS")
    if judgement is not None:
        outcome = _as_judged(cast(AstroDataNiri, frame), judgement, bad_wcs=bad_wcs, limit=limit)
    else:
        outcome = _believable_wcs(frame, bad_wcs=bad_wcs, limit=limit, require_wcs=require_wcs)
    words = put_distortion(frame, distortion)
    if not words or outcome is None:
        return outcome
    before = outcome.reason if outcome.status is not Status.NOT_NEEDED else ""
    return replace(outcome, status=Status.DONE, reason="; ".join(part for part in (before, words) if part))


def judged(frames: Frames, bad_wcs: BadWCS, limit: float) -> dict[int, Judgement]:
    """Compare the pointing of the frames of each sequence; by identity of the frame.

    Calibrations, and frames whose field turned on the detector, are not judged.
    """
    if bad_wcs in ("ignore", "new"):
        return {}
    pointed = [
        cast(AstroDataNiri, frame)
        for frame in frames
        if frame.instrument() == "NIRI" and len(frame) == 1 and not frame.tags & _WITHOUT_WCS
    ]
    pointed = [niri for niri in pointed if pointing.rotator_follows(niri)]
    found = pointing_group.judge([pointing.aim(niri, limit) for niri in pointed], limit)
    return {id(niri): one for niri, one in zip(pointed, found, strict=True) if one is not None}


def _as_judged(niri: AstroDataNiri, judgement: Judgement, *, bad_wcs: BadWCS, limit: float) -> Outcome:
    """Do to the header of a frame what the other frames of its sequence ask for."""
    change, words = _take_header_wcs(niri, limit), f"witness: {judgement.witness}"
    if not judgement.distrusted:
        agrees = f"the WCS agrees with the pointing ({judgement.witness})"
        return _fixed(niri, change) if change else not_needed(agrees)
    distrusted = judgement.distrusted
    if distrusted == "WCS" and bad_wcs == "exit":
        raise DataError(
            "The WCS contradicts the pointing",
            file=niri.filename,
            found=words,
            remedy="Pass prepare:bad_wcs=fix to rebuild it from the pointing",
        )
    niri.phu.set("PNTDIST", distrusted, "Statement on pointing that was distrusted")
    niri.phu.set("PNTWITN", "offsets" if distrusted == "WCS" else "WCS", "Witness that decided on pointing")
    if judgement.other is not None:
        for key, value in zip(("PNTALT1", "PNTALT2"), judgement.other, strict=True):
            niri.phu.set(key, value, "CRVAL by what was distrusted (degrees)")
    if judgement.target is not None:
        for key, value in zip(("RA", "DEC"), judgement.target, strict=True):
            niri.phu.set(f"ORIG{key}", niri.phu.get(key), f"{key} of target in the raw header")
            niri.phu.set(key, value, "Of target (degrees), by other frames")
    if judgement.wcs is not None:
        niri[0].sky_mapping = judgement.wcs.to_plane()
        niri.phu.set("WCSERR", round(judgement.error, 2), "Error of the rebuilt WCS on the sky (arcsec)")
        text = f"the WCS was distrusted and rebuilt, good to {judgement.error:.1f} arcsec ({words})"
        return _fixed(niri, text, "rebuilt from sequence")
    text = {"target": "RA and DEC of the target were", "offsets": "the telescope's offsets were"}[distrusted]
    text = f"{text} distrusted and the WCS (CRVAL, CRPIX) kept ({words})"
    log.warning("%s: %s", niri.filename, text)
    return _fixed(niri, f"{text}; {change}") if change else done(text)


def _believable_wcs(frame: AstroData, *, bad_wcs: BadWCS, limit: float, require_wcs: bool) -> Outcome:
    """Take the better copy of the WCS, or rebuild it."""
    niri = cast(AstroDataNiri, frame)
    change = "" if bad_wcs == "ignore" else _take_header_wcs(niri, limit)
    follows = pointing.rotator_follows(niri)
    consistent = pointing.wcs_is_consistent(niri, limit) if follows else None
    ext = frame[0]
    if ext.sky_mapping is not None and consistent is not False and bad_wcs != "new":
        if change:
            return _fixed(frame, change)
        return not_needed(
            "the WCS agrees with the pointing, or there is nothing to compare it with"
            if follows
            else "the rotator did not follow the sky: there is nothing to compare the WCS with"
        )
    found = f"more than {limit:g} arcsec from target plus offsets"
    if ext.sky_mapping is None:
        found = doubts.wcs_fault(niri)
    if bad_wcs == "ignore":
        return skipped(f"the WCS is kept as it is: {found}")
    if bad_wcs == "exit":
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
        if ext.sky_mapping is None and require_wcs:
            raise
        return skipped(f"the WCS is kept as it is: {found}, and none can be built ({error.item} missing)")
    if not follows:
        log.warning("%s: the rotator did not follow the sky; the orientation is a guess", frame.filename)
    frame.phu.set("WCSERR", _BUILT_ERROR, "Error of the rebuilt WCS on the sky (arcsec)")
    return _fixed(frame, f"the WCS was rebuilt from the pointing ({found})", "rebuilt from pointing")


def _take_header_wcs(frame: AstroDataNiri, limit: float) -> str:
    """Give a raw frame the WCS that its headers mean; say what was wrong with the one it had."""
    ext = frame[0]
    if "PREPARED" in frame.tags or "WCSFIX" in frame.phu or ext.wcs_origin == "set":
        return ""
    mapping = ext.sky_mapping
    if distortion_of(mapping) is not None and pointing.is_plausible(ext.linear_wcs, frame.camera()):
        # What a header says of the distortion is not thrown away.
        return ""
    believed = pointing.raw_wcs(frame, limit)
    if believed is None:
        ext.sky_mapping = None
        return ""
    changes = []
    if believed.origin == "primary":
        why = ext.wcs_problem or "that in the extension cannot be true"
        changes.append(f"the copy of the WCS in the primary header was taken ({why})")
    if any(believed.shift):
        x, y = believed.shift
        changes.append(f"CRPIX was moved by ({x:g}, {y:g}) pixels from the chip to the subarray")
    if changes:
        ext.sky_mapping = believed.wcs.to_plane()
    return "; ".join(changes)


def _fixed(frame: AstroData, change: str, keyword: str = "") -> Outcome:
    """Record that the WCS is not the one of the raw header."""
    if not keyword:
        names = {"primary": "primary copy", "CRPIX": "CRPIX of subarray"}
        keyword = ", ".join(name for word, name in names.items() if word in change)
    frame.phu.set("WCSFIX", keyword, "What was done to the WCS")
    log.warning("%s: %s", frame.filename, change)
    return done(change)
