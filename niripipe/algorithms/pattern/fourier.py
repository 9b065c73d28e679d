"""Readout pattern as a set of frequencies in each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.pattern.levels import level_and_report
from niripipe.algorithms.pattern.quadrants import (
    Clean,
    Cleaned,
    Corner,
    Finding,
    Tiles,
    at_least,
    check_planes,
    corners_of,
    robust_sigma,
    source_boxes,
    untouched,
    usable_pixels,
)
from niripipe.algorithms.pattern.zones import Range, find_zones, unit_strength
from niripipe.errors import DataError, ParameterError

__all__ = ["clean_fft_readout"]

Floats = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Complex = NDArray[np.complex64]
Integers = NDArray[np.integer[Any]] | NDArray[np.bool_]
Flags = NDArray[np.bool_]

# Sources are looked for in boxes of whole periods of about 16 columns, 4 rows high.
_BOX_HEIGHT, _BOX_WIDTH = 4, 16
# Rows whose power is averaged in the decision whether a pattern is there: noise alone then scatters by
# 1/sqrt(5) only.
_ROWS_TOGETHER = 5
# Smoothing and least range in the search for edges, and reach of the levelling inside a quadrant: those of
# `clean_readout`.
_EDGE_SIGMA, _EDGE_RANGE, _REACH = 3.0, 0.6, 50
# The mean power of a zone at the pattern's frequencies must exceed that beside them by this many standard
# errors. With about 500 zones that could be tried in a frame, fewer than one frame of noise in a thousand has
# such a zone.
_EXCESS_SIGMA = 8.0
# A replaced frequency takes its share of the noise with it; the variance must fall by more than twice that.
_OVERFIT = 2.0
# Rounds of refilling masked pixels with the pattern found; each leaves the masked share of the error of the
# one before.
_ROUNDS = 3
# Rows with a smaller share of usable pixels have no say in where the pattern is.
_LEAST_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class _Settings:
    force: bool
    window: int
    periodicity: float
    sigma_fact: float
    pat_thres: float


@dataclass(frozen=True, slots=True)
class _Rows:
    """A quadrant's rows, in readout order, and what their spectra say.

    Attributes
    ----------
    smooth : ndarray of float32, shape (rows, columns)
        Pixels, less the mean of the row, gaps filled from both sides.
    usable : ndarray of bool
        Pixels that were not filled.
    spectrum : ndarray of complex64, shape (rows, frequencies)
        Transform of `smooth`, with the pattern continued into what was filled.
    bins : ndarray of int
        Frequencies of the pattern and its harmonics.
    strength : ndarray of float64, shape (rows,)
        Standard deviation of the pattern of each row.
    floor : ndarray of float64, shape (rows,)
        The strength that noise alone would give.
    share : ndarray of float64, shape (rows,)
        Share of usable pixels.
    excess : ndarray of float64, shape (rows,)
        Power at `bins` over the power beside them, less 1, mean over the frequencies.
    triggered : ndarray of bool, shape (rows,)
        Rows in which any of `bins` stands out.
    """

    smooth: Float32
    usable: Flags
    spectrum: Complex
    bins: NDArray[np.intp]
    strength: Float64
    floor: Float64
    share: Float64
    excess: Float64
    triggered: Flags


def clean_fft_readout(
    data: Floats,
    mask: Integers | None = None,
    objmask: Integers | None = None,
    *,
    clean: Clean = "default",
    win_size: int = 9,
    periodicity: float = 8.0,
    sigma_fact: float = 4.0,
    pat_thres: float = -0.3,
    lquad: bool = True,
    l2clean: bool = True,
    l2thres: float = 4.0,
    smoothing_extent: int = 5,
    pad_rows: int = 0,
) -> Cleaned:
    """Remove a periodic readout pattern row by row, by its frequencies.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, dark or sky subtracted.
    mask, objmask : integer ndarray of the same shape, optional
        Data quality and object mask. Pixels where either is not zero, and those that are not finite, are
        filled from their neighbours in the row for the transform; the pattern is subtracted from them too.
    clean : {"default", "force", "skip"}
        "default" cleans zones of rows that show the pattern; "force" all rows of quadrants whose noise falls;
        "skip" nothing.
    win_size : int
        Number of frequencies about that of the pattern with which it is compared, an odd number.
    periodicity : float
        Period of the pattern in columns.
    sigma_fact : float
        How many standard deviations the amplitude at the pattern's frequency, or a harmonic of it, must
        exceed the mean about it.
    pat_thres : float
        A zone is cleaned only if the strength of its rows, less the mean of all rows in units of their
        standard deviation and averaged over the quadrants, exceeds this.
    lquad : bool
        Level the quadrants with each other.
    l2clean : bool
        Also clean single rows left outside zones whose pattern stands out, once any quadrant was cleaned.
    l2thres : float
        By how many standard deviations of the other rows.
    smoothing_extent : int
        Rows or columns compared on each side of a border between quadrants.
    pad_rows : int
        Rows that the frame lacks at the top: the quadrants meet at ``(ny + pad_rows) / 2``.

    Returns
    -------
    Cleaned
        The frame and a record for each quadrant. Variance and masks do not change.

    Raises
    ------
    DataError
        If the planes are not images of one shape, or too small for quadrants of two periods.
    ParameterError
        If a parameter is out of range.

    Notes
    -----
    As in DRAGONS (``cleanFFTReadout``) the real and imaginary parts at the pattern's frequency and its
    harmonics are replaced by the mean of those beside them. Sources and flagged pixels are filled before the
    transform, and refilled with the pattern found, because the spectrum of a source turns with frequency and
    cannot be interpolated. Decisions are taken on zones of rows, see `niripipe.algorithms.pattern.zones`: one
    in which half of the rows exceed `sigma_fact`, over 5 rows together, and whose power is in excess by 8
    standard errors.
    """
    check_planes(data, mask, objmask)
    _check(clean, win_size, periodicity)
    at_least({"sigma_fact": (sigma_fact, 0), "l2thres": (l2thres, 0)})
    at_least({"smoothing_extent": (smoothing_extent, 1), "pad_rows": (pad_rows, 0)})
    if not pat_thres < 1:
        raise ParameterError("A parameter is out of range", item="pat_thres", found=pat_thres, expected="< 1")
    frame = np.array(data, dtype=np.float32)
    corners = corners_of(frame.shape, pad_rows)
    if clean == "skip":
        return untouched(frame, corners, "skipped on request")
    settings = _Settings(clean == "force", win_size, periodicity, sigma_fact, pat_thres)
    good = usable_pixels(frame, mask, objmask)
    quadrants = [_transform(frame, good, corner, settings) for corner in corners]
    combined = _standardized(quadrants, corners)
    findings, patterns = [], []
    for rows, corner in zip(quadrants, corners, strict=True):
        first = corner.missing
        finding, pattern = _decide(rows, combined[first : first + len(rows.smooth)], settings)
        findings.append(finding)
        patterns.append(pattern)
    if l2clean and any(finding.zones for finding in findings):
        _clean_outliers(quadrants, findings, patterns, l2thres)
    for corner, finding, pattern in zip(corners, findings, patterns, strict=True):
        view = corner.view(frame)
        for start, stop in finding.zones:
            view[start:stop] -= pattern[start:stop]
    return level_and_report(
        frame,
        good,
        corners,
        findings,
        inside=True,
        between=lquad,
        near=smoothing_extent,
        far=_REACH,
    )


def _check(clean: str, window: int, periodicity: float) -> None:
    if clean not in ("skip", "default", "force"):
        raise ParameterError("Unknown choice", item="clean", found=clean, expected="skip, default or force")
    if window < 3 or window % 2 == 0:
        raise ParameterError(
            "The window must have a middle", item="win_size", found=window, expected="an odd number, >= 3"
        )
    if not periodicity >= 2:
        raise ParameterError(
            "No frequency has so short a period",
            item="periodicity",
            found=periodicity,
            expected=">= 2 columns",
        )


def _transform(frame: Float32, good: Flags, corner: Corner, settings: _Settings) -> _Rows:
    from scipy.fft import rfft

    usable = _without_sources(frame, good, corner)
    view = corner.view(frame)
    width = view.shape[1]
    bins = _harmonics(width, settings.periodicity)
    smooth = _filled(view, usable)
    spectrum = _refilled(rfft(smooth, axis=1), ~usable, bins)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    noise = np.stack([_beside(power, int(k), settings.window).mean(axis=1) for k in bins]).astype(np.float64)
    at = power[:, bins].T.astype(np.float64)
    # Each frequency but the last of an even number stands for two of the full spectrum (Parseval).
    weight = np.where(2 * bins == width, 1.0, 2.0) / width**2
    # A pattern measured on a share of the pixels is that much noisier; what was filled has no noise.
    share = usable.mean(axis=1)
    noise /= np.maximum(share, 1 / width) ** 2
    difference = np.square(np.abs(_differences(spectrum, bins)), dtype=np.float64)
    return _Rows(
        smooth,
        usable,
        spectrum,
        bins,
        np.sqrt(difference @ weight),
        # The mean of two neighbours adds half of the variance.
        np.sqrt(1.5 * (weight @ noise)),
        share,
        (np.divide(at, noise, out=np.ones_like(at), where=noise > 0) - 1).mean(axis=0),
        np.any([_triggered(power, int(k), settings) for k in bins], axis=0),
    )


def _without_sources(frame: Float32, good: Flags, corner: Corner) -> Flags:
    """Usable pixels of a quadrant in readout order, boxes with a source left out."""
    tiles = Tiles.cut(corner, frame, good, _BOX_HEIGHT, _BOX_WIDTH)
    boxes = np.repeat(np.repeat(source_boxes(tiles).T, _BOX_HEIGHT, axis=0), _BOX_WIDTH, axis=1)
    view = corner.view(good)
    first = corner.missing % _BOX_HEIGHT
    return view & ~boxes[first : first + len(view), : view.shape[1]]


def _harmonics(length: int, periodicity: float) -> NDArray[np.intp]:
    number = int(0.5 * periodicity + 1e-9)
    bins = np.round(np.arange(1, number + 1) * length / periodicity).astype(np.intp)
    bins = bins[bins <= length // 2]
    if bins.size == 0 or bins[0] < 2 or length < 2 * periodicity:
        raise DataError(
            "The quadrants are too narrow for the pattern",
            item="periodicity",
            found=f"{length} columns a quadrant",
            expected=f"at least {2 * periodicity:g}",
        )
    return bins


def _filled(view: Float32, usable: Flags) -> Float32:
    """Fill gaps in each row by straight lines between the pixels beside them; subtract the row's mean."""
    nx = view.shape[1]
    values = np.where(usable, view, np.float32(0))
    place = np.arange(nx, dtype=np.int32)
    before = np.maximum.accumulate(np.where(usable, place, np.int32(-1)), axis=1)
    after = np.minimum.accumulate(np.where(usable, place, np.int32(nx))[:, ::-1], axis=1)[:, ::-1]
    y, x = np.nonzero(~usable)
    low, high = before[y, x], after[y, x]
    # At the ends of a row the nearest pixel counts alone; in a row without any, the 0 that is there.
    low, high = np.where(low < 0, high, low), np.where(high >= nx, low, high)
    low, high = np.where(low >= nx, x, low), np.where(high < 0, x, high)
    share = np.divide(x - low, high - low, out=np.zeros(x.size), where=high > low).astype(np.float32)
    values[y, x] = values[y, low] * (1 - share) + values[y, high] * share
    # The frequencies of interest do not see the mean; float32 sums do.
    values -= values.mean(axis=1, keepdims=True)
    return values


def _beside(power: Float32, k: int, window: int) -> Float32:
    half = window // 2
    return np.concatenate([power[:, max(1, k - half) : k], power[:, k + 1 : k + half + 1]], axis=1)


def _differences(spectrum: Complex, bins: NDArray[np.intp]) -> Complex:
    """Subtract from the pattern's frequencies the mean of their neighbours; shape (rows, bins)."""
    above = np.minimum(bins + 1, spectrum.shape[1] - 1)
    # The last frequency has no neighbour above; bins + 1 is then itself, and the one below counts alone.
    above = np.where(above == bins, bins - 1, above)
    return np.asarray(spectrum[:, bins] - np.float32(0.5) * (spectrum[:, bins - 1] + spectrum[:, above]))


def _triggered(power: Float32, k: int, settings: _Settings) -> Flags:
    """Rows whose amplitude at frequency k stands out from those beside it, over 5 rows together."""
    from scipy.ndimage import uniform_filter1d

    if settings.force:
        return np.ones(len(power), bool)
    beside = np.sqrt(uniform_filter1d(_beside(power, k, settings.window), _ROWS_TOGETHER, axis=0))
    at = np.sqrt(uniform_filter1d(power[:, k], _ROWS_TOGETHER))
    keep = np.ones_like(beside, bool)
    for _ in range(2):
        number = np.maximum(keep.sum(axis=1), 1)
        mean = (beside * keep).sum(axis=1) / number
        std = np.sqrt((np.square(beside - mean[:, None]) * keep).sum(axis=1) / number)
        keep &= np.abs(beside - mean[:, None]) <= 2 * std[:, None]
    return np.asarray(at > mean + settings.sigma_fact * std)


def _standardized(quadrants: list[_Rows], corners: tuple[Corner, ...]) -> Float64:
    """Strength of each row in standard deviations from the mean of its quadrant, mean over the quadrants."""
    length = max(c.missing + len(q.smooth) for q, c in zip(quadrants, corners, strict=True))
    total, number = np.zeros(length), np.zeros(length)
    for rows, corner in zip(quadrants, corners, strict=True):
        part = slice(corner.missing, corner.missing + len(rows.smooth))
        std = float(np.std(rows.strength))
        if std > 0:
            total[part] += (rows.strength - np.mean(rows.strength)) / std
        number[part] += 1
    return total / np.maximum(number, 1)


def _decide(rows: _Rows, combined: Float64, settings: _Settings) -> tuple[Finding, Float32]:
    """Find the zones to clean in a quadrant, and the pattern to subtract, 0 elsewhere."""
    pattern = np.zeros_like(rows.smooth)
    local = _high_pass(rows.smooth, settings.periodicity)
    everything = np.ones(len(local), bool)
    noise = _noise(local, pattern, rows.usable, everything)[0]
    over = rows.strength - rows.floor
    unit = unit_strength(over[rows.share >= _LEAST_SHARE])
    strength = float(np.sqrt(np.mean(rows.strength**2)))
    zones: tuple[Range, ...] = ((0, len(local)),)
    if not settings.force:
        zones = _zones(rows, over / unit, combined, settings.pat_thres) if unit > 0 else ()
        if not zones:
            return Finding((), max(unit, 0.0), noise, noise, "no rows with a pattern"), pattern
    on = np.zeros(len(local), bool)
    for start, stop in zones:
        on[start:stop] = True
    pattern[on] = _inverse(rows.spectrum[on], rows.bins, local.shape[1])
    before, after = _noise(local, pattern, rows.usable, on)
    free = float(np.where(2 * rows.bins == local.shape[1], 1, 2).sum()) / local.shape[1]
    if not after**2 < before**2 * (1 - _OVERFIT * free):
        pattern[:] = 0
        return Finding((), strength, noise, noise, "nothing whose removal lowers the noise"), pattern
    strength = float(np.sqrt(np.mean(rows.strength[on] ** 2)))
    return Finding(zones, strength, before, after, "cleaned"), pattern


def _zones(rows: _Rows, strength: Float64, combined: Float64, pat_thres: float) -> tuple[Range, ...]:
    # The inverse variance of a strength goes with the usable share; of rows that are mostly filled little is
    # known, and they go with those beside them.
    found = find_zones(
        strength,
        np.where(rows.share >= _LEAST_SHARE, rows.share, 0.0),
        canny_sigma=_EDGE_SIGMA,
        simple_thres=_EDGE_RANGE,
        margin=_BOX_HEIGHT,
    )
    kept = []
    for start, stop in found:
        part = slice(start, stop)
        # Rows that are mostly filled say too little to count as evidence.
        measured = rows.share[part] >= _LEAST_SHARE
        if not measured.any():
            continue
        error = 1 / np.sqrt(np.count_nonzero(measured) * rows.bins.size)
        if (
            np.mean(rows.triggered[part][measured]) >= 0.5
            and np.mean(rows.excess[part][measured]) > _EXCESS_SIGMA * error
            and np.mean(combined[part]) > pat_thres
        ):
            kept.append((start, stop))
    return tuple(kept)


def _refilled(spectrum: Complex, gaps: Flags, bins: NDArray[np.intp]) -> Complex:
    """Continue the pattern into gaps, which also keeps it from leaking into the frequencies beside it."""
    from scipy.fft import rfft

    rows = np.flatnonzero(gaps.any(axis=1) & ~gaps.all(axis=1))
    if rows.size == 0:
        return spectrum
    part, holes = spectrum[rows], gaps[rows]
    refilled = part
    for _ in range(_ROUNDS):
        refilled = part + rfft(_inverse(refilled, bins, holes.shape[1]) * holes, axis=1)
    result = spectrum.copy()
    result[rows] = refilled
    return result


def _inverse(spectrum: Complex, bins: NDArray[np.intp], width: int) -> Float32:
    """Pattern that a spectrum holds, in pixels."""
    from scipy.fft import irfft

    own = np.zeros_like(spectrum)
    own[:, bins] = _differences(spectrum, bins)
    return np.asarray(irfft(own, n=width, axis=1))


def _high_pass(smooth: Float32, periodicity: float) -> Float32:
    """Subtract the mean over two periods, which holds no pattern."""
    from scipy.ndimage import uniform_filter1d

    return np.asarray(smooth - uniform_filter1d(smooth, max(2, round(2 * periodicity)), axis=1))


def _noise(local: Float32, pattern: Float32, usable: Flags, on: Flags) -> tuple[float, float]:
    """Measure the deviation of the usable pixels in the chosen rows, before and after."""
    take = usable[on]
    before, part = local[on], pattern[on]
    after = before - part
    sigma = robust_sigma(after[::3, ::5][take[::3, ::5]])
    if sigma > 0:
        take = take & (np.abs(before) + np.abs(after) < np.float32(8 * sigma) + np.abs(part))
    if not take.any():
        return float("nan"), float("nan")
    first, second = (float(np.sqrt(np.mean(np.square(v[take], dtype=np.float64)))) for v in (before, after))
    return first, second


def _clean_outliers(
    quadrants: list[_Rows], findings: list[Finding], patterns: list[Float32], threshold: float
) -> None:
    """Clean single rows outside the zones of cleaned quadrants that stand out from the others, in place."""
    # The cube root of a power is close to normally distributed (Wilson & Hilferty 1931), so a limit in
    # standard deviations means what it says.
    ratio = [
        np.cbrt(np.divide(q.strength, q.floor, out=np.zeros_like(q.floor), where=q.floor > 0) ** 2)
        for q in quadrants
    ]
    outside = []
    for finding, rows in zip(findings, quadrants, strict=True):
        flags = np.full(len(rows.smooth), bool(finding.zones))
        for start, stop in finding.zones:
            flags[start:stop] = False
        outside.append(flags)
    pool = np.concatenate([values[flags] for values, flags in zip(ratio, outside, strict=True)])
    if pool.size == 0:
        return
    limit = float(np.median(pool)) + threshold * robust_sigma(pool)
    for number, (rows, flags) in enumerate(zip(quadrants, outside, strict=True)):
        single = flags & (ratio[number] > limit)
        if single.any():
            patterns[number][single] = _inverse(rows.spectrum[single], rows.bins, rows.smooth.shape[1])
            finding = findings[number]
            zones = _joined(finding.zones, single)
            findings[number] = replace(finding, zones=zones)


def _joined(zones: tuple[Range, ...], single: Flags) -> tuple[Range, ...]:
    """Zones with single rows added, ranges that touch made one."""
    on = np.zeros(single.size + 2, np.int8)
    on[1:-1] = single
    for start, stop in zones:
        on[start + 1 : stop + 1] = 1
    steps = np.diff(on)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple((int(a), int(b)) for a, b in zip(starts, stops, strict=True))
