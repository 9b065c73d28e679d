"""Stamps of the same stars in all frames of an aligned field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from niripipe.algorithms import bits
from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats, Indices, Mask
from niripipe.algorithms.combine.select import UNUSABLE
from niripipe.algorithms.robust import MEDIAN_ERROR, median_of_good, robust_sigma
from niripipe.algorithms.sorting import lower_median_rows
from niripipe.algorithms.sources import RowSource

__all__ = ["StarStamps", "cut_stamps"]

_SEARCHED = 3
"""Frames in the median in which stars are looked for; it is free of cosmic rays."""
_BLOCK = 32
"""Rows of that median found at a time."""
_MOST = 16
"""Stars measured at most, the brightest: more would hardly be better, but slower."""
_CLEARANCE = 12
"""A star stands out against pixels so far away, and has none brighter within; pixels."""
_SIGNIFICANT = 20.0
"""How many times the pixel noise of the median a star stands out at least."""
_TRIED = 2
"""Candidates looked at for each star wanted."""
_NARROWEST, _WIDEST = 1.5, 30.0
"""Widths of stars, pixels; what is narrower is no star."""
_APERTURE = 2.5
"""Radius of the aperture in FWHM: a Moffat profile (beta = 3) has 1.7 % of its light outside."""
_RECUT, _GROWTH = 1.15, 3.0
"""Stamps are cut again for frames wider than the median star by this factor, up to the second one."""
_RING = 3
"""Width of the ring around the aperture for the background, pixels."""
_LEAST_GOOD = 0.9
"""Share of a star's light that a frame must show in good pixels."""
_STEEP = 0.001
"""Contrast, as a share of a star's height, from which on deviations are compared with it."""
_ADDED, _ALLOWED = 2.0, 4.0
"""Noise that may add to the deviations measured, and the usual limit of a combination, sigma."""
_PROVEN, _STARS_FOR_ALL, _OUTLYING = 3, 5, 0.1
"""Stars that show a deviation to be one of the frame, with the largest left out; from the second number on,
so large a share is left out."""
_RING_PIXELS, _HIT_SHARE = 12, 0.2
"""Pixels of a ring around a star (radius 2 or more) from which such a share of the largest deviations is left
out: a cosmic ray covers two to four."""
_CENTRED = 5
"""Rounds of the centroid under a window."""
_NEIGHBOURS = 2
"""Half the width of the square of the contrast, as in the noise model of combinations."""


@dataclass(frozen=True, slots=True, eq=False)
class StarStamps:
    """Stamps of m stars in n frames, less their backgrounds.

    Attributes
    ----------
    positions : ndarray of int, shape (m, 2)
        y and x of the centres.
    data, variance : ndarray of float32, shape (n, m, k, k)
        Values above the background and variances, 0 where a pixel is not good.
    good : ndarray of bool, shape (n, m, k, k)
        Which pixels are good.
    inside : ndarray of bool, shape (k, k)
        The aperture.
    relative_errors : ndarray, shape (n, m)
        Errors of the fluxes over the fluxes, with that of the background; NaN where a frame does not show the
        star.
    median : ndarray of float32, shape (m, k, k)
        Median of each star over the frames.
    typical : ndarray of float64, shape (n, k, k)
        Median star of each frame, of unit flux; NaN where nothing is good.
    """

    positions: Indices
    data: Float32
    variance: Float32
    good: Bool
    inside: Bool
    relative_errors: Float64
    median: Float32
    typical: Float64

    @property
    def usable(self) -> Bool:
        """Which stars are usable in which frames, shape (n, m)."""
        return np.isfinite(self.relative_errors)

    def fluxes(self) -> tuple[Float64, Float64]:
        """Return the fluxes over those of the median star, (n, m), and the weights of the stars, (m,).

        Both sums go over the pixels of the aperture that are good in the frame. NaN where unusable.
        """
        if not len(self.positions):
            return np.empty((len(self.data), 0)), np.empty(0)
        inside = self.inside.ravel()
        there = self.good.reshape(*self.good.shape[:2], -1)[:, :, inside]
        median = self.median.reshape(len(self.median), -1)[:, inside]
        own = self.data.reshape(*there.shape[:2], -1)[:, :, inside].sum(axis=2, dtype=float)
        same = np.einsum("nmp,mp->nm", there, median)
        ratio = np.where(self.usable & (same > 0), own / np.where(same > 0, same, 1), np.nan)
        # The brightest star is not to rule alone: it may be the one that a cosmic ray has hit.
        return ratio, np.sqrt(np.maximum(median.sum(axis=1, dtype=float), 1e-30))

    def widths(self) -> Float64:
        """Return the width of the stars in each frame, pixels, (n,); NaN where no star is usable.

        The larger of two: the full width at half maximum of the profile; and that of the median frame times
        the root of the area of the frame's light, ``sum(d)**2 / sum(d**2)``, over the median one. The area
        also knows of a trail that is fainter than half the peak.
        """
        if not len(self.positions):
            return np.full(len(self.data), np.nan)
        typical = self.typical
        own = _profile_widths(typical)
        values = np.where(np.isfinite(typical), typical, 0) * self.inside
        total, squares = values.sum(axis=(1, 2)), (values**2).sum(axis=(1, 2))
        area = np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1), np.nan)
        known = np.isfinite(own) & np.isfinite(area)
        if not known.any():
            return own
        shared = np.median(own[known]) * np.sqrt(area / np.median(area[known]))
        return np.asarray(np.fmax(own, shared), float)

    def shapes(self) -> tuple[Float64, Float64]:
        """Return how the stars of each frame are elongated.

        Second moments about the centroid under a Gaussian window, whose FWHM is 2.35 times that of the widest
        frame: a wide one, for a trail is fainter than the core and beside it.

        Returns
        -------
        ellipticity : ndarray, shape (n, 2)
            ``(xx - yy) / (xx + yy)`` and ``2 xy / (xx + yy)`` of the median star; NaN where no star is
            usable.
        error : ndarray, shape (n,)
            What the noise of the pixels makes of either.
        """
        n, half = len(self.data), self.inside.shape[0] // 2
        if not len(self.positions):
            return np.full((n, 2), np.nan), np.full(n, np.nan)
        stars = np.where(np.isfinite(self.typical), self.typical, 0) * self.inside
        sigma = float(np.sqrt(self.inside.sum() / np.pi)) / _APERTURE
        axis = np.arange(-half, half + 1.0)
        centre = np.zeros((2, n, 1))
        with np.errstate(all="ignore"):
            for _ in range(_CENTRED):
                offsets = axis - centre
                total = _moment(stars, offsets, sigma, 0, 0)
                first = np.stack([_moment(stars, offsets, sigma, 1, 0), _moment(stars, offsets, sigma, 0, 1)])
                centre = centre + (first / total)[:, :, None]
            offsets = axis - centre
            xx, yy = _moment(stars, offsets, sigma, 0, 2), _moment(stars, offsets, sigma, 2, 0)
            size = xx + yy
            ellipticity = (
                np.stack([xx - yy, 2 * _moment(stars, offsets, sigma, 1, 1)], axis=1) / size[:, None]
            )
            ellipticity[~((total > 0) & (size > 0) & (np.abs(centre).max(axis=(0, 2)) < half))] = np.nan
            window = np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * sigma**2)) * self.inside
            spread = math.sqrt(float(((window * (axis**2 - axis[:, None] ** 2)) ** 2).sum()))
            return ellipticity, self._noise_of_typical() * spread / size

    def _noise_of_typical(self) -> Float64:
        """Return the noise of a pixel of the median star of each frame, (n,); infinity if there is none."""
        total = np.maximum((self.median * self.inside).sum(axis=(1, 2)), np.float32(1e-30))
        number = np.maximum(self.good.sum(axis=(2, 3)), 1)
        noise = np.sqrt(self.variance.sum(axis=(2, 3), dtype=float) / number) / total
        # The median of m normal deviates of different scatter s has the variance (pi/2) m / sum(1/s)**2.
        inverse = np.where(self.usable, 1 / np.maximum(noise, 1e-30), 0).sum(axis=1)
        seen = self.usable.sum(axis=1)
        return np.where(seen > 0, MEDIAN_ERROR * np.sqrt(seen) / np.maximum(inverse, 1e-30), np.inf)

    def deviations(self, flux: Float64) -> tuple[Float64, Float64]:
        """Return the largest deviations from the median star, over the contrast there.

        Stars deviate alike at the same distance from their centres; of those that do most a few are left out
        for each pixel of the stamps, for cosmic rays.

        Parameters
        ----------
        flux : ndarray, shape (n,)
            By which the frames are divided.

        Returns
        -------
        proven, single : ndarray, shape (n,)
            The largest among pixels that three stars or more show; and among the others. There a hit cannot
            be told from the star, but stars are alike all around: of a ring of many pixels some are
            left out. 0 where there are none.
        """
        factor = (1 / flux).astype(np.float32)[:, None, None, None]
        scaled = self.data * factor
        centre = _centre_star(scaled, self.good & self.usable[:, :, None, None])
        contrast = _contrast(centre)
        noise = factor * np.sqrt(self.variance)
        height = centre.max(axis=(1, 2), keepdims=True)
        # Where the contrast is small the noise is what counts, and what noise explains asks for no contrast.
        used = self.good & self.inside & self.usable[:, :, None, None]
        used &= contrast > np.maximum(_STEEP * height, 3 * noise)
        # Noise may add to a deviation, and is part of what a combination allows: the sum of both squares.
        share = (np.abs(scaled - centre) + _ADDED * noise) ** 2 - (_ALLOWED * noise) ** 2
        share = np.where(used, np.sqrt(np.maximum(share, 0)) / np.where(used, contrast, 1), 0)
        number = used.sum(axis=1)
        left_out = np.where(number >= _STARS_FOR_ALL, np.ceil(_OUTLYING * number), 1).astype(np.intp)
        left_out[number < _PROVEN] = 0
        rank = np.maximum(share.shape[1] - 1 - left_out, 0)
        share.partition(np.unique(rank), axis=1)
        largest = np.take_along_axis(share, rank[:, None], axis=1)[:, 0]
        proven = np.where(number >= _PROVEN, largest, 0).max(axis=(1, 2))
        single = np.where(number < _PROVEN, largest, 0)
        return proven, _largest_all_around(single, (number < _PROVEN) & (number > 0))


def cut_stamps(
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource | None],
) -> tuple[StarStamps, Float64]:
    """Find bright stars in aligned frames, and cut them out of each.

    The aperture is that of the frame with the widest stars.

    Parameters
    ----------
    data, variance, mask : sequence of RowSource
        n planes each; no variances, or a mask of None, are good ones of noise 0.

    Returns
    -------
    stamps : StarStamps
        Without stars if there are none; stars that saturate in a frame are not used in any.
    widths : ndarray, shape (n,)
        `StarStamps.widths`.
    """
    reference = _reference(data, mask)
    # Pixels that are not good are infinite, and so not among the stars.
    with np.errstate(invalid="ignore"):
        positions, width = _measured(reference, _find(reference))
    stamps = _cut_all(data, variance, mask, positions, width)
    widths = stamps.widths()
    if np.isfinite(widths).any():
        widest = min(float(np.nanmax(widths)), _GROWTH * width)
        if widest > _RECUT * width:
            wide = _cut_all(data, variance, mask, positions, widest)
            if len(wide.positions):
                return wide, wide.widths()
    return stamps, widths


def _cut_all(
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource | None],
    positions: Indices,
    width: float,
) -> StarStamps:
    """Cut stamps for an aperture that suits a width out of all frames."""
    half = int(np.ceil(_APERTURE * width)) + _RING + 1 if len(positions) else 1
    ny, nx = data[0].shape
    y, x = positions[:, 0], positions[:, 1]
    fits = (y >= half) & (x >= half) & (y < ny - half) & (x < nx - half)
    positions = positions[fits][:_MOST]
    planes = [
        _cut(plane, None if variance is None else variance[k], mask[k], positions, half)
        for k, plane in enumerate(data)
    ]
    values, noise = np.stack([part[0] for part in planes]), np.stack([part[1] for part in planes])
    flags = np.stack([part[2] for part in planes])
    radius = _radii(half)
    inside = radius <= _APERTURE * width
    ring = ~inside & (radius <= _APERTURE * width + _RING)
    good = np.isfinite(values) & np.isfinite(noise) & (flags & UNUSABLE == 0)
    # Full pixels in the core are the star's; elsewhere they are hot, and no fault of the star.
    full = good & (flags & bits.SATURATED != 0)
    core = radius <= width / 2
    clean = ~(full & core).any(axis=(0, 2, 3))
    good &= ~(full & ~core)
    positions, values, noise, good = positions[clean], values[:, clean], noise[:, clean], good[:, clean]
    outside = np.where(good & ring, values, np.nan)[:, :, ring]
    values = np.where(good, values - _median_finite(outside)[:, :, None, None], 0).astype(np.float32)
    noise = np.where(good, noise, 0).astype(np.float32)
    median = _median_star(values, good)
    errors = _errors(values, noise, good, median * inside, inside, ring)
    typical = _typical_star(values, good & np.isfinite(errors)[:, :, None, None], median * inside)
    return StarStamps(positions, values, noise, good, inside, errors, median, typical)


def _reference(data: Sequence[RowSource], mask: Sequence[RowSource | None]) -> Float32:
    """Return the median of a few frames; minus infinity where one of them is not good."""
    chosen = sorted(set(np.linspace(0, len(data) - 1, min(_SEARCHED, len(data))).astype(int).tolist()))
    height, width = data[0].shape
    result = np.empty((height, width), np.float32)
    for start in range(0, height, _BLOCK):
        rows = slice(start, min(start + _BLOCK, height))
        planes = []
        for k in chosen:
            plane = np.array(data[k][rows], np.float32)
            good = np.isfinite(plane)
            flags = mask[k]
            if flags is not None:
                good &= flags[rows] & UNUSABLE == 0
            np.copyto(plane, np.float32(-np.inf), where=~good)
            planes.append(plane)
        result[rows] = lower_median_rows(planes)
    return result


def _find(reference: Float32) -> Indices:
    """Return y and x of local maxima that stand out, the most prominent first."""
    step = _CLEARANCE
    ny, nx = reference.shape
    if min(ny, nx) < 4 * step:
        return np.empty((0, 2), np.intp)
    inner = reference[step:-step, step:-step]

    def moved(dy: int, dx: int) -> Float32:
        return reference[step + dy : ny - step + dy, step + dx : nx - step + dx]

    # Differences of distant pixels: smooth light drops out.
    jumps = reference[::4, step::4] - reference[::4, :-step:4]
    limit = np.float32(_SIGNIFICANT * robust_sigma(jumps[np.isfinite(jumps)]) / np.sqrt(2))
    # Most pixels do not stand out, and are not looked at again.
    candidates = np.flatnonzero(inner - moved(0, step) > limit / 2)
    y, x = (where + step for where in np.divmod(candidates, inner.shape[1]))
    own = reference[y, x]
    maximum = np.isfinite(own) & (own - reference[y, x - step] > limit / 2)
    for dy, dx in ((0, 1), (1, -1), (1, 0), (1, 1)):
        maximum &= (own >= reference[y + dy, x + dx]) & (own > reference[y - dy, x - dx])
    y, x = y[maximum], x[maximum]
    around = [reference[y + dy, x + dx] for dy in (-step, 0, step) for dx in (-step, 0, step) if dy or dx]
    prominence = reference[y, x] - np.median(around, axis=0)
    keep = np.isfinite(prominence) & (prominence > max(limit, 0.0))
    y, x, prominence = y[keep], x[keep], prominence[keep]
    found: list[tuple[int, int]] = []
    for k in np.argsort(-prominence):
        if all(max(abs(int(y[k]) - v), abs(int(x[k]) - u)) >= step for v, u in found):
            found.append((int(y[k]), int(x[k])))
            if len(found) >= _TRIED * _MOST:
                break
    return np.array(found, np.intp).reshape(-1, 2)


def _measured(reference: Float32, positions: Indices) -> tuple[Indices, float]:
    """Return the positions of what has the width of a star, and the median width, pixels."""
    if not len(positions):
        return positions, _NARROWEST
    half = int(_WIDEST)
    size = 2 * half + 1
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(reference, half, constant_values=-np.inf), (size, size)
    )
    widths = _profile_widths(windows[positions[:, 0], positions[:, 1]])
    some = widths >= _NARROWEST
    if not some.any():
        return positions[:0], _NARROWEST
    # The brightest rule; galaxies are wider.
    typical = float(np.median(widths[some][:_MOST]))
    alike = some & (widths < 2 * typical) & (widths > typical / 2)
    return positions[alike], float(np.median(widths[alike][:_MOST]))


def _profile_widths(stamps: Floats) -> Float64:
    """Return the full widths at half maximum of the profiles of centred stamps (m, k, k); NaN if unknown."""
    half = stamps.shape[1] // 2
    radius, pixels = _radii(half).ravel(), stamps.reshape(len(stamps), -1)
    # Medians in rings of one pixel.
    rings = [np.flatnonzero(np.rint(radius) == step) for step in range(half + 1)]
    mean_radius = np.array([radius[ring].mean() for ring in rings])
    profile = np.stack([_median_finite(pixels[:, ring]) for ring in rings], axis=1).astype(float)
    falling = np.maximum.accumulate(profile[:, ::-1], axis=1)[:, ::-1]
    height = (falling[:, 0] + falling[:, -1]) / 2
    return np.array(
        [
            2 * float(np.interp(-level, -ring, mean_radius)) if np.isfinite(ring).all() else np.nan
            for level, ring in zip(height, falling, strict=True)
        ]
    )


def _radii(half: int) -> Float64:
    """Distances from the centre of a stamp, (k, k)."""
    grid = np.arange(-half, half + 1.0)
    return np.asarray(np.hypot(grid[:, None], grid), float)


def _cut(
    data: RowSource, variance: RowSource | None, mask: RowSource | None, positions: Indices, half: int
) -> tuple[Float32, Float32, Mask]:
    """Cut stamps out of the planes of one frame, shape (m, k, k)."""
    size = 2 * half + 1
    shape = (len(positions), size, size)
    values, noise = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    flags = np.zeros(shape, np.uint16)
    for k, (y, x) in enumerate(positions):
        rows, columns = slice(int(y) - half, int(y) + half + 1), slice(int(x) - half, int(x) + half + 1)
        values[k] = data[rows][:, columns]
        if variance is not None:
            noise[k] = variance[rows][:, columns]
        if mask is not None:
            flags[k] = mask[rows][:, columns]
    return values, noise, flags


def _errors(
    values: Float32, noise: Float32, good: Bool, median: Float32, inside: Bool, ring: Bool
) -> Float64:
    """Return relative errors of fluxes, (n, m); NaN where a frame does not show the star."""
    light = np.maximum(median, 0)
    total = light.sum(axis=(1, 2))
    seen = np.einsum("nmyx,myx->nm", good, light) / np.where(total > 0, total, 1)
    centre = values.shape[2] // 2
    core = np.s_[:, :, centre - 1 : centre + 2, centre - 1 : centre + 2]
    flux = (values * (good & inside)).sum(axis=(2, 3), dtype=float)
    # The background is the median of the ring, and counts for all of the aperture.
    around = np.maximum((good & ring).sum(axis=(2, 3)), 1)
    background = MEDIAN_ERROR * inside.sum() / around
    sigma = np.sqrt(
        (noise * inside).sum(axis=(2, 3), dtype=float)
        + background**2 * (noise * ring).sum(axis=(2, 3), dtype=float)
    )
    usable = (seen >= _LEAST_GOOD) & good[core].all(axis=(2, 3)) & (flux > 0)
    return np.where(usable, np.maximum(sigma, 1e-6 * flux) / np.where(flux > 0, flux, 1), np.nan)


def _contrast(stars: Float32) -> Float32:
    """Return the largest difference between a pixel and those of the 5 x 5 around it, (m, k, k)."""
    highest, lowest = stars, stars
    for axis in (-1, -2):
        highest, lowest = _running(np.maximum, highest, axis), _running(np.minimum, lowest, axis)
    largest: Float32 = np.maximum(highest - stars, stars - lowest)
    return largest


def _running(extreme: np.ufunc, stars: Float32, axis: int) -> Float32:
    """Take the running maximum or minimum over 5 pixels along one of the last two axes."""
    lines = np.swapaxes(stars, axis, -1)
    result = lines.copy()
    for step in range(1, _NEIGHBOURS + 1):
        extreme(result[..., step:], lines[..., :-step], out=result[..., step:])
        extreme(result[..., :-step], lines[..., step:], out=result[..., :-step])
    return np.swapaxes(result, axis, -1)


def _moment(stars: Float64, offsets: Float64, sigma: float, in_y: int, in_x: int) -> Float64:
    """Sum stars (n, k, k) times powers of the offsets in y and x (2, n, k) and a Gaussian of them, (n,)."""
    window = np.exp(-(offsets**2) / (2 * sigma**2))
    down, across = window[0] * offsets[0] ** in_y, window[1] * offsets[1] ** in_x
    return np.asarray((down[:, None] @ stars @ across[:, :, None])[:, 0, 0], float)


def _largest_all_around(values: Floats, known: Bool) -> Float64:
    """Return the largest of the values (n, k, k), (n,), with some left out of rings of many known pixels."""
    largest = np.zeros(len(values))
    distance = np.rint(_radii(values.shape[1] // 2))
    for k, (plane, there) in enumerate(zip(values, known, strict=True)):
        for step in np.unique(distance[there]):
            ring = np.sort(plane[there & (distance == step)])
            left_out = int(_HIT_SHARE * ring.size) if ring.size >= _RING_PIXELS else 0
            largest[k] = max(largest[k], ring[ring.size - 1 - left_out])
    return largest


def _median_star(values: Float32, good: Bool) -> Float32:
    """Return the median over the frames of the good pixels, 0 where there are none."""
    return np.nan_to_num(median_of_good(values, good))


def _typical_star(values: Float32, good: Bool, median: Float32) -> Float64:
    """Return the median star of each frame, of unit flux; NaN where nothing is good."""
    if not len(median):
        return np.full((len(values), *values.shape[2:]), np.nan)
    total = np.maximum(median.sum(axis=(1, 2)), np.float32(1e-30))
    return median_of_good(values / total[:, None, None], good, axis=1).astype(float)


def _centre_star(values: Float32, good: Bool) -> Float32:
    """Return the lower median over the frames, the centre of the noise model; 0 where nothing is good."""
    ordered = np.sort(np.where(good, values, np.float32(np.inf)), axis=0)
    rank = np.maximum(np.count_nonzero(good, axis=0) - 1, 0)[None] // 2
    centre = np.take_along_axis(ordered, rank, axis=0)[0]
    return np.where(np.isfinite(centre), centre, np.float32(0))


def _median_finite(values: Floats) -> Floats:
    """Median of the finite values along the last axis; NaN where there are none."""
    return median_of_good(values, np.isfinite(values), axis=-1)
