"""Combining frames: the shared parameters, the header of the result, and the one function that does it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from niripipe.algorithms import combine as engine
from niripipe.algorithms import normalize
from niripipe.algorithms.arrays import Float64
from niripipe.algorithms.combine.select import UNUSABLE
from niripipe.algorithms.core_noise import add_core_errors
from niripipe.algorithms.shared_skies import SharedSkies, add_shared
from niripipe.astrodata import AstroData, clone_provenance
from niripipe.astrodata.tables import as_rows, is_rows
from niripipe.errors import DataError, ParameterError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, raw_name
from niripipe.primitives.shared_skies import POSITION, SKY_PART, skies_in_common
from niripipe.primitives.stack_levels import differences, typical_variance
from niripipe.primitives.stack_params import (
    AlignedCombineParams,
    CombineParams,
    Rejection,
    ScaledCombineParams,
)
from niripipe.primitives.zero_point_stacks import combine_zero_points

__all__ = [
    "MEASURED",
    "AlignedCombineParams",
    "CombineParams",
    "Rejection",
    "ScaledCombineParams",
    "combination_settings",
    "planes_of_all",
    "remove_keywords",
    "section_slices",
    "stack",
]

log = get_logger(__name__)

MEASURED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "image quality": (
            "MEANFWHM", "MEANELLP", "FWHMSTD", "FWHMZEN", "IQNUM", "IQBAND", "STREHL", "STREHLSD", "STREHLN",
        ),
        "background": ("BGMAG", "BGMAGERR", "BGBAND"),
        "cloud cover": ("MEANZP", "MEANZPSD", "MEANZPER", "ZPNUM", "PHOTZP", "CLOUDEXT", "CCBAND"),
        "sky": ("SKYLEVEL", "SKYNUM", "SKYMETH", "SKYSCALE", "SKYRESID", SKY_PART),
        "persistence": ("PERSNUM",),
        "noise": ("NOISSKY", "NOISLEN", "NOISRAD"),
        "alignment": (
            "ALGNMETH", "ALGNNUM", "ALGNRMS", "ALGNERR", "ALGNREF", "ALGNFLAG",
            "ALGNDX", "ALGNDY", "ALGNROT", "ALGNSCL", "ALGNTIES", "ALGNRES", *POSITION,
        ),
    }
)  # fmt: skip
"""Keywords of what was measured on a single frame. They are removed before the next measurement, and from a
stack, whose header is that of its first frame."""


def combination_settings(params: CombineParams, rejection: Rejection) -> dict[str, Any]:
    """Return how frames are combined, as keywords of `niripipe.algorithms.combine.combine`.

    The noise model knows the scatter, so that its limit can be wide enough to leave nearly all good
    pixels; the scatter of a few inputs is known badly, and 3 is the limit of DRAGONS.
    """
    default = 4.0 if rejection == "noiseclip" else 3.0
    return {
        "reject": rejection,
        "hsigma": default if params.hsigma is None else params.hsigma,
        "lsigma": default if params.lsigma is None else params.lsigma,
        **params.model_dump(include={"operation", "mclip", "max_iters", "nlow", "nhigh"}),
    }


def stack(frames: Frames, params: CombineParams, *, threads: int) -> AstroData:
    """Combine frames into one.

    Parameters
    ----------
    frames : list of AstroData
        At least one, of one shape. They are not changed.
    params : CombineParams
    threads : int
        Threads of the combination; the result does not depend on it.

    Returns
    -------
    AstroData
        With headers and WCS of the first frame, keywords that say what went in, the provenance of all
        inputs, and the planes that the inputs allow; aligned frames give COVERAGE and EXPOSURE, number and
        exposure time (s) of the frames used in each pixel. A single frame is returned as a copy with the
        same keywords.

    Raises
    ------
    DataError
        The shapes differ.
    """
    first = frames[0]
    _check_shapes(frames)
    result = first.copy()
    # What was measured on one frame is not true of the stack.
    for name in ("OBJMASK", "OBJCAT", "REJMAP"):
        if name in result[0].exposed:
            delattr(result[0], name)
    for keywords in MEASURED.values():
        remove_keywords(result, keywords)
    weights, shared = np.ones(len(frames)), None
    if len(frames) > 1:
        weights, shared = _combine_planes(frames, result, params, threads)
    _describe(frames, result, weights, shared)
    warning = combine_zero_points(frames, result, weights)
    if warning:
        log.warning("%s: %s", result.filename, warning)
    return result


def remove_keywords(frame: AstroData, keywords: Iterable[str]) -> None:
    """Remove keywords from both headers of a frame."""
    for keyword in keywords:
        frame.phu.remove(keyword, ignore_missing=True)
        frame[0].hdr.remove(keyword, ignore_missing=True)


def section_slices(section: str | None, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return an image section (1-based, inclusive, x first) as array slices; None means all.

    Raises
    ------
    ParameterError
        The section reaches beyond the image.
    """
    if section is None:
        return slice(0, shape[0]), slice(0, shape[1])
    (x1, x2), (y1, y2) = ([int(limit) for limit in axis.split(":")] for axis in section.split(","))
    if y2 > shape[0] or x2 > shape[1]:
        raise ParameterError(
            "The section reaches beyond the image",
            item="statsec",
            found=section,
            expected=f"within 1:{shape[1]},1:{shape[0]}",
        )
    return slice(y1 - 1, y2), slice(x1 - 1, x2)


def planes_of_all(frames: Iterable[AstroData], name: str) -> list[Any] | None:
    """Return a plane of every frame, or None if one of them has none."""
    planes = [frame[0].plane(name) for frame in frames]
    return None if any(plane is None for plane in planes) else planes


def _check_shapes(frames: Sequence[AstroData]) -> None:
    shape = frames[0][0].shape
    for frame in frames[1:]:
        if frame[0].shape != shape:
            raise DataError(
                "Frames of different size cannot be combined",
                file=frame.filename,
                found=frame[0].shape,
                expected=f"{shape} as {frames[0].filename}",
            )


def _combine_planes(
    frames: Frames, result: AstroData, params: CombineParams, threads: int
) -> tuple[Float64, SharedSkies | None]:
    """Put the combined planes into the result; return the frames' weights, and what their skies share."""
    # The combination reads rows: a frame on disk stays there.
    data = [frame[0].plane("data") for frame in frames]
    variance = planes_of_all(frames, "variance")
    mask = planes_of_all(frames, "mask") if params.apply_dq else None
    if params.apply_dq and mask is None and any(frame[0].plane("mask") is not None for frame in frames):
        log.warning("not all frames have a data-quality plane: none is used")
    settings = combination_settings(params, _rejection(params, variance is not None))
    found = differences(frames, data, variance, mask, params, threads)
    if found is None:
        settings |= _normalisation(data, mask, params)
    else:
        settings |= found.settings(settings["reject"], min(settings["hsigma"], settings["lsigma"]))
    combined = engine.combine(data, variance, mask, **settings, threads=threads, exposures=_exposures(frames))
    weights = np.ones(len(frames)) if found is None else found.table_weights
    scale = settings.get("scale")
    shared = skies_in_common(frames, weights if scale is None else weights * scale)
    if shared is not None and combined.variance is not None:
        planes = [None] * len(frames) if mask is None else mask
        add_shared(combined.variance, combined.count, shared, planes, UNUSABLE)
    ext = result[0]
    ext.reset(combined.data, mask=combined.mask, variance=combined.variance)
    if combined.exposure is not None:
        ext.COVERAGE = combined.count
        ext.EXPOSURE = combined.exposure
    if found is not None:
        found.record(frames, result, combined, mask)
    if params.save_rejection_map:
        ext.REJMAP = (len(frames) - combined.count.astype(np.int16)).astype(np.int16)
    return weights, shared


def _exposures(frames: Frames) -> list[float] | None:
    """Return the exposure times (s) of frames of a field, before any scaling; None for calibrations."""
    if not all("ALIGN" in frame.phu for frame in frames):
        return None
    return [float(frame.phu.get("ORIGTEXP", frame.exposure_time()) or 0.0) for frame in frames]


def _rejection(params: CombineParams, has_variance: bool) -> Rejection:
    if params.reject_method in ("varclip", "noiseclip") and not has_variance:
        log.fullinfo("%s needs variances, which not all frames have: sigclip is used", params.reject_method)
        return "sigclip"
    return params.reject_method


def _normalisation(data: list[Any], mask: list[Any] | None, params: CombineParams) -> dict[str, Any]:
    if not isinstance(params, ScaledCombineParams) or not (params.scale or params.zero):
        return {}
    where = section_slices(params.statsec, data[0].shape)
    data = [plane[:] for plane in data]
    mask = None if mask is None else [plane[:] for plane in mask]
    if params.scale:
        return {"scale": normalize.scale_factors(data, mask, section=where)}
    return {"zero": normalize.zero_offsets(data, mask, section=where)}


def _describe(frames: Frames, result: AstroData, weights: Float64, shared: SharedSkies | None) -> None:
    """Write what the result was made of."""
    phu, hdr = result.phu, result[0].hdr
    # As many frames of equal weight have the same noise.
    number = float(weights.sum() ** 2 / np.sum(weights**2))
    phu.set("NCOMBINE", len(frames), "Number of frames combined")
    for i, frame in enumerate(frames, start=1):
        # The standard has eight characters a keyword; more than 999 inputs are listed in PROVENANCE only.
        if i <= 999:
            phu.set(f"IMCMB{i:03d}", raw_name(frame), "Combined frame")
        clone_provenance(frame, result)
    airmasses = _known(frame.airmass() for frame in frames)
    if airmasses:
        phu.set("AIRMASS", float(np.mean(airmasses)), "Mean airmass of the frames combined")
    exposures = _known(frame.phu.get("ORIGTEXP", frame.exposure_time()) for frame in frames)
    phu.set("TEXPTIME", float(np.sum(exposures)), "Exposure time of all frames together (s)")
    noises = _known(frame[0].read_noise() for frame in frames)
    if noises:
        rms = float(np.sqrt(np.mean(np.square(noises))))
        hdr.set("RDNOISE", rms, "Rms of the inputs' read noise (electron)")
        hdr.set("EFFRDN", rms / math.sqrt(number), "Read noise of a mean of them all (electron)")
    gains = _known(frame[0].gain() for frame in frames)
    if gains:
        harmonic = float(len(gains) / np.sum(1 / np.asarray(gains)))
        if len(set(gains)) > 1:
            hdr.set("GAIN", harmonic, "Harmonic mean of the inputs' gains")
        hdr.set("EFFGAIN", harmonic * number, "Gain of a mean of them all (electron/data unit)")
    correlation = _correlation(frames, weights)
    if correlation is not None:
        _add_core_errors(frames, result, correlation, weights)
    if shared is not None:
        correlation = shared.correlation(1.0 if correlation is None else correlation)
        hdr.set("VARCOV", round(shared.factor, 5), "VAR holds this factor for skies in common")
        log.stdinfo("frames share skies: the variance is multiplied by %.3f", shared.factor)
    if correlation is not None:
        hdr.set("NOISCORR", round(correlation, 5), "Variance of large apertures over sum of VAR")
    for name in ("SKYTABLE", "STDPHOT"):
        _join_tables(frames, result, name)
    _tabulate_alignment(frames, result, weights)


def _correlation(frames: Frames, weights: Float64) -> float | None:
    """Return the factor of a mean by which variances summed over an aperture are too small.

    Over an aperture the variance of frame i is ``c_i sum(v_i)``, and that of a mean with weights w_i of sum 1
    the sum of ``w_i**2 c_i sum(v_i)``. Its VAR adds up to ``w_i**2 sum(v_i)``, so that the factor is
    ``sum(w_i**2 c_i v_i) / sum(w_i**2 v_i)``.
    """
    factors = [frame[0].hdr.get("NOISCORR") for frame in frames]
    if all(factor is None for factor in factors):
        return None
    variances = np.array([typical_variance(frame) for frame in frames])
    if not all(value > 0 for value in variances):
        variances = np.ones(len(frames))
    # A frame that was not interpolated has independent pixels.
    return float(
        np.average(
            [1.0 if factor is None else float(factor) for factor in factors], weights=weights**2 * variances
        )
    )


def _add_core_errors(frames: Frames, result: AstroData, correlation: float, weights: Float64) -> None:
    """Add to VAR what alignment and interpolation do to the cores of stars."""
    variance = result[0].variance
    if variance is None or len(frames) < 2 or not all("ALIGN" in frame.phu for frame in frames):
        return
    errors = np.array([float(frame.phu.get("ALGNERR", 0.0)) for frame in frames])
    error = float(np.sqrt(np.sum((weights * errors) ** 2)) / np.sum(weights))
    number = add_core_errors(variance, result[0].read("data"), shift_error=error, correlation=correlation)
    result[0].variance = variance
    result[0].hdr.set("ALGNMEAN", round(error, 5), "Error of the mean shift, in VAR of bright stars (pixels)")
    log.fullinfo("the variance of %d pixels in stars holds errors of alignment and interpolation", number)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _join_tables(frames: Frames, result: AstroData, name: str) -> None:
    """Keep the rows of a table of all frames: which skies were subtracted, how the standard was measured."""
    having = [frame for frame in frames if name in frame.tables]
    columns = [frame.columns(name) for frame in having]
    if columns and all(is_rows(rows) and rows.dtype.names == columns[0].dtype.names for rows in columns):
        setattr(result, name, np.concatenate(columns))
    elif columns:
        from astropy.table import vstack

        setattr(result, name, vstack([getattr(frame, name) for frame in having], metadata_conflicts="silent"))


def _tabulate_alignment(frames: Frames, result: AstroData, weights: Float64) -> None:
    """Keep for every frame how it was aligned, and its weight in the stack.

    DX and DY are where its sources lie relative to where its header puts them, pixels at the centre.
    """
    numbers = {
        "RMS": "ALGNRMS", "ERROR": "ALGNERR", "DX": "ALGNDX", "DY": "ALGNDY", "ROTATION": "ALGNROT",
        "SCALE": "ALGNSCL", "RESIDUAL": "ALGNRES",
    }  # fmt: skip
    aligned = [frame for frame in frames if "ALGNMETH" in frame.phu]
    if not aligned:
        return
    table: dict[str, list[Any]] = {
        "IMAGE": [raw_name(frame) for frame in aligned],
        "METHOD": [str(frame.phu["ALGNMETH"]) for frame in aligned],
        "PAIRS": [int(frame.phu.get("ALGNNUM", 0)) for frame in aligned],
        "TIES": [int(frame.phu.get("ALGNTIES", 0)) for frame in aligned],
    }
    for name, keyword in numbers.items():
        table[name] = [float(frame.phu.get(keyword, math.nan)) for frame in aligned]
    table["DOUBTFUL"] = [int(bool(frame.phu.get("ALGNFLAG", False))) for frame in aligned]
    table["WEIGHT"] = [
        float(weight) for frame, weight in zip(frames, weights, strict=True) if "ALGNMETH" in frame.phu
    ]
    result.ALIGNMENT = as_rows(table)
