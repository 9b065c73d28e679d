"""Readout pattern as a set of frequencies in each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats, Indices, Integers
from niripipe.algorithms.pattern.levels import levelled
from niripipe.algorithms.pattern.quadrants import (
    Cleaned,
    Corner,
    Quadrant,
    Tiles,
    prepared,
    rms_before_and_after,
    source_boxes,
)
from niripipe.algorithms.pattern.zones import find_zones, unit_strength
from niripipe.algorithms.robust import robust_sigma
from niripipe.errors import DataError, ParameterError

__all__ = ["clean_fft_readout"]

Complex = NDArray[np.complexfloating[Any, Any]]

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
    usable: Bool
    pattern: Complex
    bins: Indices
    strength: Float64
    floor: Float64
    share: Float64
    excess: Float64
    triggered: Bool


def clean_fft_readout(
    data: Floats,
    mask: Integers | None = None,
    objmask: Integers | None = None,
    *,
    force: bool = False,
    win_size: int = 9,
    periodicity: float = 8.0,
    sigma_fact: float = 4.0,
    pat_thres: float = -0.3,
    lquad: bool = True,
    l2clean: bool = True,
    l2thres: float = 4.0,
    smoothing_extent: int = 5,
    pad_rows: int = 0,
    centre: tuple[int, int] | None = None,
) -> Cleaned:
    """Remove a periodic readout pattern row by row, by its frequencies.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, dark or sky subtracted.
    mask, objmask : integer ndarray of the same shape, optional
        Data quality and object mask. Pixels where either is not zero, and those that are not finite, are
        left out of the fit; the pattern is subtracted from them too.
    force : bool
        Clean all rows of quadrants whose noise falls, instead of the zones of rows that show the pattern.
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
    centre : tuple of int, optional
        First row and column beyond the middle of the detector, instead of `pad_rows`.

    Returns
    -------
    Cleaned
        The frame and a record for each quadrant. Variance and masks do not change.

    Raises
    ------
    DataError
        If the frame is too small for quadrants of two periods.
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
    if win_size < 3 or win_size % 2 == 0:
        raise ParameterError(
            "The window must have a middle", item="win_size", found=win_size, expected="an odd number, >= 3"
        )
    frame, good, corners = prepared(data, mask, objmask, pad_rows, centre)
    spectra = [_transform(frame, good, corner, win_size, periodicity, sigma_fact) for corner in corners]
    combined = _standardized(spectra, corners)
    # The rows to clean of each quadrant, in readout order, and its record.
    chosen, quadrants = [], []
    for rows, corner in zip(spectra, corners, strict=True):
        on = np.ones(len(rows.local), bool)
        if not force:
            on = _zones(rows, combined[corner.missing :], pat_thres)
        on, quadrant = _decide(rows, on, corner.name)
        chosen.append(on)
        quadrants.append(quadrant)
    if l2clean:
        _add_single_rows(spectra, chosen, l2thres)
    for number, (corner, rows, on) in enumerate(zip(corners, spectra, chosen, strict=True)):
        corner.view(frame)[on] -= _inverse(rows, on)
        quadrants[number] = replace(quadrants[number], rows=corner.ranges(on))
    return levelled(
        frame, good, corners, quadrants, inside=True, between=lquad, near=smoothing_extent, far=_REACH
    )


def _transform(
    frame: Float32, good: Bool, corner: Corner, win_size: int, periodicity: float, sigma_fact: float
) -> _Rows:
    from scipy.fft import fft

    usable = _without_sources(frame, good, corner)
    local = _local(corner.view(frame), usable, periodicity)
    width = local.shape[1]
    bins = _harmonics(width, periodicity)
    spectrum, window = fft(local, axis=1), fft(usable.astype(np.float32), axis=1)
    share = usable.mean(axis=1)
    # Frequencies of the pattern in the full spectrum, the positive ones first.
    paired = 2 * bins < width
    both = np.concatenate([bins, -bins[paired]])
    pattern = _solved(spectrum, window, both, share)[:, : bins.size].astype(np.complex64)
    amplitudes = np.concatenate([pattern, pattern[:, paired].conj()], axis=1)
    beside = _beside(spectrum, window, bins, both, amplitudes, win_size // 2)
    # What is left out has no noise, and what is fitted to a share of the pixels is that much noisier.
    noise = _DIFFERENCE * beside.mean(axis=2) / np.maximum(share, 1 / width)[:, None] ** 2
    power = np.square(np.abs(pattern), dtype=np.float64)
    # Each frequency but the last of an even number stands for two of the full spectrum (Parseval).
    weight = np.where(paired, 2.0, 1.0) / width**2
    return _Rows(
        local,
        usable,
        pattern,
        bins,
        np.sqrt(power @ weight),
        np.sqrt(noise @ weight),
        share,
        (np.divide(power, noise, out=np.ones_like(power), where=noise > 0) - 1).mean(axis=1),
        _triggered(power * share[:, None] ** 2 / _DIFFERENCE, beside, sigma_fact),
    )


def _without_sources(frame: Float32, good: Bool, corner: Corner) -> Bool:
    """Usable pixels of a quadrant in readout order, boxes with a source left out."""
    tiles = Tiles.cut(corner, frame, good, _BOX_HEIGHT, _BOX_WIDTH)
    boxes = np.repeat(np.repeat(source_boxes(tiles).T, _BOX_HEIGHT, axis=0), _BOX_WIDTH, axis=1)
    view = corner.view(good)
    first = corner.missing % _BOX_HEIGHT
    return view & ~boxes[first : first + len(view), : view.shape[1]]


def _harmonics(length: int, periodicity: float) -> Indices:
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


def _local(view: Float32, usable: Bool, periodicity: float) -> Float32:
    """Subtract from each pixel the mean of the usable ones over two periods, which holds no pattern."""
    from scipy.ndimage import uniform_filter1d

    size = max(2, round(2 * periodicity))
    values = np.where(usable, view, np.float32(0))
    count = np.maximum(usable.sum(axis=1, keepdims=True), 1).astype(np.float32)
    values -= np.where(usable, values.sum(axis=1, keepdims=True) / count, np.float32(0))
    weight = uniform_filter1d(usable.astype(np.float32), size, axis=1)
    mean = uniform_filter1d(values, size, axis=1) / np.maximum(weight, np.float32(0.5 / size))
    return np.where(usable, values - mean, np.float32(0))


def _solved(spectrum: Complex, window: Complex, both: Indices, share: Float64) -> Complex:
    """Find the pattern that explains what the frequencies of each row have more than their neighbours.

    With gaps the spectrum is that of the pattern folded with that of the gaps, so the frequencies mix: a
    small linear system for each row. Rows with few usable pixels get no pattern.
    """
    pattern = _over_neighbours(spectrum, both)
    pattern[share < _LEAST_SHARE] = 0
    rows = np.flatnonzero((share >= _LEAST_SHARE) & (share < 1))
    mixing = _over_neighbours(window[rows], both[:, None] - both) / spectrum.shape[1]
    pattern[rows] = np.linalg.solve(mixing, pattern[rows, :, None])[:, :, 0]
    return pattern


def _over_neighbours(spectrum: Complex, index: Indices) -> Complex:
    """Values of a full spectrum at any index, less the mean of the two beside each."""
    return np.asarray(_at(spectrum, index) - 0.5 * _at(spectrum, index - 1) - 0.5 * _at(spectrum, index + 1))


def _at(spectrum: Complex, index: Indices) -> Complex:
    """Values of a full spectrum at any index, in double precision."""
    return np.asarray(spectrum[:, index % spectrum.shape[1]], np.complex128)


def _beside(
    spectrum: Complex, window: Complex, bins: Indices, both: Indices, amplitudes: Complex, reach: int
) -> Float64:
    """Power beside each frequency without what leaks from the pattern, shape (rows, bins, 2 * reach)."""
    near = bins[:, None] + np.array([step for step in range(-reach, reach + 1) if step])
    residual = _at(spectrum, near)
    for number, k in enumerate(both):
        residual -= _at(window, near - k) * (amplitudes[:, number, None, None] / spectrum.shape[1])
    return np.asarray(np.square(residual.real) + np.square(residual.imag))


def _triggered(at: Float64, beside: Float64, sigma_fact: float) -> Bool:
    """Rows in which the amplitude of any frequency stands out from those beside it, over 5 rows together."""
    from scipy.ndimage import uniform_filter1d

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
    over = amplitude > (mean + sigma_fact * std)[:, :, 0]
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


def _zones(rows: _Rows, combined: Float64, pat_thres: float) -> Bool:
    """Find the rows of the zones that carry the pattern beyond doubt."""
    on = np.zeros(len(rows.local), bool)
    unit = _unit(rows)
    if unit <= 0:
        return on
    # The inverse variance of a strength is proportional to the usable share; rows with few usable pixels take
    # the state of their neighbours.
    found = find_zones(
        (rows.strength - rows.floor) / unit,
        np.where(rows.share >= _LEAST_SHARE, rows.share, 0.0),
        canny_sigma=_EDGE_SIGMA,
        simple_thres=_EDGE_RANGE,
        margin=_BOX_HEIGHT,
    )
    for start, stop in found:
        part = slice(start, stop)
        measured = rows.share[part] >= _LEAST_SHARE
        if not measured.any():
            continue
        error = 1 / np.sqrt(np.count_nonzero(measured) * rows.bins.size)
        on[part] = (
            np.mean(rows.triggered[part][measured]) >= 0.5
            and np.mean(rows.excess[part][measured]) > _EXCESS_SIGMA * error
            and np.mean(combined[part]) > pat_thres
        )
    return on


def _unit(rows: _Rows) -> float:
    """Strength above that of noise at which the pattern is on."""
    return unit_strength((rows.strength - rows.floor)[rows.share >= _LEAST_SHARE])


def _decide(rows: _Rows, on: Bool, name: str) -> tuple[Bool, Quadrant]:
    """Keep the rows to clean if the noise falls; return them, or none, and the record of the quadrant."""
    noise = _noise(rows.local, rows.usable, np.zeros_like(rows.local))[0]
    if not on.any():
        return on, Quadrant(name, max(_unit(rows), 0.0), noise, noise, "no rows with a pattern")
    before, after = _noise(rows.local[on], rows.usable[on], _inverse(rows, on))
    width = rows.local.shape[1]
    free = float(np.where(2 * rows.bins == width, 1, 2).sum()) / width
    if not after**2 < before**2 * (1 - _OVERFIT * free):
        strength = float(np.sqrt(np.mean(rows.strength**2)))
        return np.zeros_like(on), Quadrant(
            name, strength, noise, noise, "nothing whose removal lowers the noise"
        )
    strength = float(np.sqrt(np.mean(rows.strength[on] ** 2)))
    return on, Quadrant(name, strength, before, after, "cleaned")


def _inverse(rows: _Rows, on: Bool) -> Float32:
    """Pattern of the chosen rows in pixels."""
    from scipy.fft import irfft

    width = rows.local.shape[1]
    spectrum = np.zeros((np.count_nonzero(on), width // 2 + 1), np.complex64)
    spectrum[:, rows.bins] = rows.pattern[on]
    return np.asarray(irfft(spectrum, n=width, axis=1))


def _noise(local: Float32, usable: Bool, pattern: Float32) -> tuple[float, float]:
    """Measure the deviation of the usable pixels before and after the pattern is subtracted."""
    after = local - pattern
    sigma = robust_sigma(after[::3, ::5][usable[::3, ::5]])
    return rms_before_and_after(local, after, pattern, usable, sigma)[:2]


def _add_single_rows(quadrants: list[_Rows], chosen: list[Bool], threshold: float) -> None:
    """Add to the rows to clean, in place, single rows of cleaned quadrants that stand out from the others."""
    # The cube root of a power is close to normally distributed (Wilson & Hilferty 1931), so a limit in
    # standard deviations means what it says.
    ratios = [
        np.cbrt(np.divide(q.strength, q.floor, out=np.zeros_like(q.floor), where=q.floor > 0) ** 2)
        for q in quadrants
    ]
    outside = [~on if on.any() else on for on in chosen]
    pool = np.concatenate([ratio[flags] for ratio, flags in zip(ratios, outside, strict=True)])
    if pool.size == 0:
        return
    limit = float(np.median(pool)) + threshold * robust_sigma(pool)
    for on, ratio, flags in zip(chosen, ratios, outside, strict=True):
        on |= flags & (ratio > limit)
