"""Readout pattern as a set of frequencies in each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.gaussian import robust_sigma
from niripipe.algorithms.pattern.levels import level_and_report
from niripipe.algorithms.pattern.quadrants import (
    Clean,
    Cleaned,
    Corner,
    Finding,
    Tiles,
    at_least,
    check_choice,
    check_planes,
    corners_of,
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
Complex = NDArray[np.complexfloating[Any, Any]]
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
# In rows with a smaller share of usable pixels the pattern cannot be told from the gaps; they stay.
_LEAST_SHARE = 0.4
# A frequency less the mean of its two neighbours has 1.5 times the variance of one.
_DIFFERENCE = 1.5


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
    local : ndarray of float32, shape (rows, columns)
        Pixels, less their mean over two periods; 0 where not usable.
    usable : ndarray of bool
        Pixels to use.
    pattern : ndarray of complex64, shape (rows, bins)
        Amplitudes of the pattern, transform normalised as by `numpy.fft`.
    bins : ndarray of int
        Frequencies of the pattern and its harmonics.
    strength : ndarray of float64, shape (rows,)
        Standard deviation of the pattern of each row.
    floor : ndarray of float64, shape (rows,)
        The strength that noise alone would give.
    share : ndarray of float64, shape (rows,)
        Share of usable pixels.
    excess : ndarray of float64, shape (rows,)
        Power of the pattern over that of noise, less 1, mean over the frequencies.
    triggered : ndarray of bool, shape (rows,)
        Rows in which any of `bins` stands out.
    """

    local: Float32
    usable: Flags
    pattern: Complex
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
        left out of the fit; the pattern is subtracted from them too.
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
    harmonics are replaced by the mean of those beside them. Differences: sources and flagged pixels are left
    out, and the mixing of frequencies by the gaps is solved for in each row (as in least-squares spectra,
    Lomb 1976); rows with less than 40 per cent of usable pixels stay as they are. Decisions are taken on
    zones of rows, see `niripipe.algorithms.pattern.zones`: those in which half of the rows exceed
    `sigma_fact`, with 5 rows taken together, and whose power is in excess by 8 standard errors; and whose
    noise falls by more than replacing as many frequencies of pure noise would do. Zones and quadrants are
    levelled as in `clean_readout`.
    """
    check_planes(data, mask, objmask)
    check_choice(clean)
    _check(win_size, periodicity)
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
        finding, pattern = _decide(rows, combined[first : first + len(rows.local)], settings)
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


def _check(window: int, periodicity: float) -> None:
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
    local = _local(corner.view(frame), usable, settings.periodicity)
    width = local.shape[1]
    bins = _harmonics(width, settings.periodicity)
    spectrum, window = rfft(local, axis=1), rfft(usable.astype(np.float32), axis=1)
    share = usable.mean(axis=1)
    pattern = _solved(spectrum, window, bins, share, width)
    beside = _beside(spectrum, window, bins, pattern, settings.window, width)
    # What is left out has no noise, and what is fitted to a share of the pixels is that much noisier.
    noise = _DIFFERENCE * beside.mean(axis=2) / np.maximum(share, 1 / width)[:, None] ** 2
    power = np.square(np.abs(pattern), dtype=np.float64)
    # Each frequency but the last of an even number stands for two of the full spectrum (Parseval).
    weight = np.where(2 * bins == width, 1.0, 2.0) / width**2
    return _Rows(
        local,
        usable,
        pattern,
        bins,
        np.sqrt(power @ weight),
        np.sqrt(noise @ weight),
        share,
        (np.divide(power, noise, out=np.ones_like(power), where=noise > 0) - 1).mean(axis=1),
        _triggered(power * share[:, None] ** 2 / _DIFFERENCE, beside, settings),
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


def _local(view: Float32, usable: Flags, periodicity: float) -> Float32:
    """Subtract from each pixel the mean of the usable ones over two periods, which holds no pattern."""
    from scipy.ndimage import uniform_filter1d

    size = max(2, round(2 * periodicity))
    values = np.where(usable, view, np.float32(0))
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1).astype(np.float32)
    values -= np.where(usable, values.sum(axis=1, keepdims=True) / count, np.float32(0))
    weight = uniform_filter1d(usable.astype(np.float32), size, axis=1)
    mean = uniform_filter1d(values, size, axis=1) / np.maximum(weight, np.float32(0.5 / size))
    return np.where(usable, values - mean, np.float32(0))


def _solved(
    spectrum: Complex, window: Complex, bins: NDArray[np.intp], share: Float64, width: int
) -> Complex:
    """Find the pattern that explains what the frequencies of each row have more than their neighbours.

    With gaps the spectrum is that of the pattern folded with that of the gaps, so the frequencies mix: a
    small linear system for each row. Rows with few usable pixels get no pattern.
    """
    both = _two_sided(bins, width)
    excess = (
        _at(spectrum, both, width)
        - 0.5 * _at(spectrum, both - 1, width)
        - 0.5 * _at(spectrum, both + 1, width)
    )
    pattern: Complex = excess[:, : bins.size].copy()
    pattern[share < _LEAST_SHARE] = 0
    rows = np.flatnonzero((share >= _LEAST_SHARE) & (share < 1))
    if rows.size:
        apart = both[:, None] - both
        mixing = (
            _at(window[rows], apart, width)
            - 0.5 * _at(window[rows], apart - 1, width)
            - 0.5 * _at(window[rows], apart + 1, width)
        ) / width
        pattern[rows] = np.linalg.solve(mixing, excess[rows, :, None])[:, : bins.size, 0]
    return pattern.astype(np.complex64)


def _two_sided(bins: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Frequencies of a pattern in the full spectrum, the positive ones first."""
    return np.concatenate([bins, -bins[2 * bins < width]])


def _at(spectrum: Complex, index: NDArray[np.intp], width: int) -> Complex:
    """Values of the full spectrum of a real row at any index, from its half."""
    place = index % width
    mirrored = place > width // 2
    values = spectrum[:, np.where(mirrored, width - place, place)].astype(np.complex128)
    return np.where(mirrored, values.conj(), values)


def _beside(
    spectrum: Complex,
    window: Complex,
    bins: NDArray[np.intp],
    pattern: Complex,
    size: int,
    width: int,
) -> Float64:
    """Power beside each frequency without what leaks from the pattern, shape (rows, bins, size - 1)."""
    half = size // 2
    near = bins[:, None] + np.array([step for step in range(-half, half + 1) if step])
    both = _two_sided(bins, width)
    amplitudes = np.concatenate([pattern, pattern[:, 2 * bins < width].conj()], axis=1)
    left = _at(spectrum, near, width)
    for number, k in enumerate(both):
        left -= _at(window, near - k, width) * (amplitudes[:, number, None, None] / width)
    return np.asarray(np.square(left.real) + np.square(left.imag))


def _triggered(at: Float64, beside: Float64, settings: _Settings) -> Flags:
    """Rows in which the amplitude of any frequency stands out from those beside it, over 5 rows together."""
    from scipy.ndimage import uniform_filter1d

    if settings.force:
        return np.ones(len(at), bool)
    # The running sums of the filter may end a rounding error below 0.
    amplitude, near = (
        np.sqrt(np.maximum(uniform_filter1d(power, _ROWS_TOGETHER, axis=0), 0)) for power in (at, beside)
    )
    keep = np.ones_like(near, bool)
    for _ in range(2):
        number = np.maximum(keep.sum(axis=2, keepdims=True), 1)
        mean = (near * keep).sum(axis=2, keepdims=True) / number
        std = np.sqrt((np.square(near - mean) * keep).sum(axis=2, keepdims=True) / number)
        keep &= np.abs(near - mean) <= 2 * std
    over = amplitude > (mean + settings.sigma_fact * std)[:, :, 0]
    return np.asarray(over.any(axis=1))


def _standardized(quadrants: list[_Rows], corners: tuple[Corner, ...]) -> Float64:
    """Strength of each row in standard deviations from the mean of its quadrant, mean over the quadrants."""
    length = max(c.missing + len(q.local) for q, c in zip(quadrants, corners, strict=True))
    total, number = np.zeros(length), np.zeros(length)
    for rows, corner in zip(quadrants, corners, strict=True):
        part = slice(corner.missing, corner.missing + len(rows.local))
        std = float(np.std(rows.strength))
        if std > 0:
            total[part] += (rows.strength - np.mean(rows.strength)) / std
        number[part] += 1
    return total / np.maximum(number, 1)


def _decide(rows: _Rows, combined: Float64, settings: _Settings) -> tuple[Finding, Float32]:
    """Find the zones to clean in a quadrant, and the pattern to subtract, 0 elsewhere."""
    local = rows.local
    pattern = np.zeros_like(local)
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
    pattern[on] = _inverse(rows, on)
    before, after = _noise(local, pattern, rows.usable, on)
    free = float(np.where(2 * rows.bins == local.shape[1], 1, 2).sum()) / local.shape[1]
    if not after**2 < before**2 * (1 - _OVERFIT * free):
        pattern[:] = 0
        return Finding((), strength, noise, noise, "nothing whose removal lowers the noise"), pattern
    strength = float(np.sqrt(np.mean(rows.strength[on] ** 2)))
    return Finding(zones, strength, before, after, "cleaned"), pattern


def _zones(rows: _Rows, strength: Float64, combined: Float64, pat_thres: float) -> tuple[Range, ...]:
    # The inverse variance of a strength goes with the usable share; rows with few usable pixels go with those
    # beside them.
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


def _inverse(rows: _Rows, on: Flags) -> Float32:
    """Pattern of the chosen rows in pixels."""
    from scipy.fft import irfft

    width = rows.local.shape[1]
    spectrum = np.zeros((int(np.count_nonzero(on)), width // 2 + 1), np.complex64)
    spectrum[:, rows.bins] = rows.pattern[on]
    return np.asarray(irfft(spectrum, n=width, axis=1))


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
        flags = np.full(len(rows.local), bool(finding.zones))
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
            patterns[number][single] = _inverse(rows, single)
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
