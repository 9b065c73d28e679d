"""Readout pattern as one box of pixels, repeated over a quadrant with a strength for each row of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

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
from niripipe.algorithms.robust import MEDIAN_ERROR, median_of_ranks, robust_sigma
from niripipe.algorithms.sorting import sort_rows
from niripipe.errors import ParameterError

__all__ = ["clean_readout"]

# Rounds of alternating least squares at most; a pattern that matters settles in about five.
_ROUNDS = 15
# Fitting n free numbers to N pixels of noise lowers their variance by n/N (by twice that for the best of all
# possible boxes). The removal of a pattern must lower it by more than this many times as much.
_OVERFIT = 4.0


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Pattern of a quadrant: box (height, width) in the unit of the data, and its strength in each row."""

    box: Float64
    strength: Float64
    weight: Float64

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.box**2)))


@dataclass(frozen=True, slots=True)
class _Sample:
    """Source-free pixels of a quadrant: as boxes, and combined over the boxes of a row.

    residual and usable have the layout of `Tiles`; profile and count the shape (rows of boxes, pixels of a
    box).
    """

    residual: Float32
    usable: Bool
    profile: Float64
    count: Indices
    sigma: float

    @property
    def rows(self) -> int:
        return int(self.residual.shape[1] * self.residual.shape[2])


def clean_readout(
    data: Floats,
    mask: Integers | None = None,
    objmask: Integers | None = None,
    *,
    force: bool = False,
    pattern_x_size: int = 16,
    pattern_y_size: int = 4,
    hsigma: float = 3.0,
    lsigma: float = 3.0,
    pat_strength_thres: float = 15.0,
    simple_thres: float = 0.6,
    level_bias_offset: bool = True,
    smoothing_extent: int = 5,
    intraquad_smooth: int = 50,
    subtract_background: bool = True,
    canny_sigma: float = 3.0,
    centre: tuple[int, int] | None = None,
) -> Cleaned:
    """Remove the periodic readout pattern of a frame.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, dark or sky subtracted and in electrons; any square or rectangular part of the detector.
    mask, objmask : integer ndarray of the same shape, optional
        Data quality and object mask. Pixels where either is not zero, and those that are not finite, are not
        used to measure; the pattern is subtracted from them too.
    force : bool
        Clean all quadrants whose noise falls, whatever the strength of the pattern.
    pattern_x_size, pattern_y_size : int
        Width and height of the box that repeats, in pixels; powers of 2.
    hsigma, lsigma : float
        Pixels this many standard deviations above or below the median of their row of boxes are rejected when
        the boxes are combined.
    pat_strength_thres : float
        Least strength, the standard deviation of the pattern where it is on, in the unit of the data.
    simple_thres : float
        Least range assumed between pattern on (1) and off (0) in the search for the rows where it changes.
    level_bias_offset : bool
        Also remove the offsets of the level that come with the pattern.
    smoothing_extent : int
        Rows or columns compared on each side of a border between quadrants.
    intraquad_smooth : int
        Rows compared on each side of an edge inside a quadrant.
    subtract_background : bool
        Subtract the mean and gradient of each box before combining, so that only the pattern is left.
    canny_sigma : float
        Smoothing of the strength in the search for edges, in rows.
    centre : tuple of int, optional
        First row and column beyond the middle of the detector; the middle of the frame by default.

    Returns
    -------
    Cleaned
        The frame and a record for each quadrant. Variance and masks do not change.

    Raises
    ------
    DataError
        If the frame is too small for quadrants.
    ParameterError
        If a parameter is out of range.

    Notes
    -----
    Steps follow DRAGONS (``cleanReadout``), with these differences. (1) Boxes that hold a source are left
    out, besides `objmask`. (2) The boxes of each row are combined by their clipped median, and the pattern is
    the box P that, times a strength a for each row, explains those best (a singular vector, by alternating
    least squares). A pattern that is on in a tenth of the rows is found as well as one that is on in all. (3)
    Rows are classified in each quadrant by itself, and edges placed to the row. (4) The pattern is subtracted
    with the strength of its rows: the median of the zone, or that of each row of boxes where those differ by
    more than their errors. (5) A zone is cleaned only if the variance of its source-free pixels falls by more
    than 4 times what fitting as many numbers to pure noise gains. (6) Only cleaned rows and quadrants are
    levelled, and only by significant steps, measured with the local gradient taken into account; see
    `niripipe.algorithms.pattern.levels`.
    """
    for name, size, least in (("pattern_x_size", pattern_x_size, 2), ("pattern_y_size", pattern_y_size, 1)):
        if size < least or size & (size - 1):
            raise ParameterError(
                "The size of a pattern box is not usable", item=name, found=size, expected="a power of 2"
            )
    frame, good, corners = prepared(data, mask, objmask, -len(data) % pattern_y_size, centre)
    quadrants = []
    for corner in corners:
        sample = _measure(
            Tiles.cut(corner, frame, good, pattern_y_size, pattern_x_size),
            hsigma,
            lsigma,
            subtract_background,
        )
        least_strength = 0.0 if force else pat_strength_thres
        quadrants.append(_clean_quadrant(frame, corner, sample, least_strength, canny_sigma, simple_thres))
    return levelled(
        frame,
        good,
        corners,
        quadrants,
        inside=level_bias_offset,
        between=level_bias_offset,
        near=smoothing_extent,
        far=intraquad_smooth,
    )


def _clean_quadrant(
    frame: Float32,
    corner: Corner,
    sample: _Sample | None,
    least_strength: float,
    canny_sigma: float,
    simple_thres: float,
) -> Quadrant:
    """Clean one quadrant of the frame in place."""
    if sample is None:
        return Quadrant(corner.name, 0.0, np.nan, np.nan, "no usable pixels")
    view = corner.view(frame)
    # Rows of the boxes that exist in the frame.
    rows = slice(corner.missing, corner.missing + len(view))
    pattern = _rank_one(sample)
    kept = partial(Quadrant, corner.name, pattern.rms, sample.sigma, sample.sigma)
    if pattern.rms < least_strength:
        return kept(f"the pattern is weaker than {least_strength:g}")
    height, width = pattern.box.shape
    found = find_zones(
        pattern.strength[rows],
        pattern.weight[rows],
        canny_sigma=canny_sigma,
        simple_thres=simple_thres,
        margin=height,
    )
    if not found:
        return kept("no rows with a pattern")
    zones = [slice(start + rows.start, stop + rows.start) for start, stop in found]
    pattern = _refitted(sample, pattern, zones)
    strength, on = _zone_strength(sample, pattern, zones)
    before, after, number = _noise(sample, pattern, strength, on)
    free = pattern.box.size + np.count_nonzero(on) / height
    if not after**2 < before**2 * (1 - _OVERFIT * free / max(number, 1)):
        return kept("nothing whose removal lowers the noise")
    wide = np.tile(pattern.box, (1, -(-view.shape[1] // width)))[:, : view.shape[1]]
    cleaned = np.flatnonzero(on)
    view[cleaned - rows.start] -= (strength[cleaned, None] * wide[cleaned % height]).astype(np.float32)
    return Quadrant(corner.name, pattern.rms, before, after, "cleaned", corner.ranges(on[rows]))


def _measure(tiles: Tiles, hsigma: float, lsigma: float, subtract_background: bool) -> _Sample | None:
    """Leave out sources and background, and combine the boxes of each row; None without usable pixels."""
    boxes_in_use: Bool = tiles.valid & ~source_boxes(tiles)
    usable = tiles.good & boxes_in_use[:, :, None, None]
    if not usable.any():
        return None
    residual = _without_background(tiles, usable) if subtract_background else tiles.values
    boxes = residual.reshape(len(residual), -1)
    flags = usable.reshape(boxes.shape)
    count = _counted(flags)
    ordered = sort_rows(np.where(flags, boxes, np.float32(np.inf)))
    median = np.where(count > 0, median_of_ranks(ordered, np.zeros_like(count), count), np.float32(0))
    # Every 17th pixel of the boxes gives the noise to 1 per cent, and all columns and rows take part.
    sigma = robust_sigma((boxes[:, ::17] - median[::17])[flags[:, ::17]])
    # In a sorted column clipping only moves the two ends.
    low = _counted(ordered < median - np.float32(lsigma * sigma))
    high = _counted(ordered <= median + np.float32(hsigma * sigma))
    high = np.maximum(high, low + 1)
    profile = np.where(count > 0, median_of_ranks(ordered, low, high), np.float32(0))
    shape = (-1, tiles.values.shape[2] * tiles.values.shape[3])
    return _Sample(residual, usable, profile.reshape(shape).astype(np.float64), count.reshape(shape), sigma)


def _counted(flags: Bool) -> Indices:
    """Count along the first axis."""
    return np.asarray(flags.view(np.uint8).sum(axis=0, dtype=np.uint16), np.intp)


def _without_background(tiles: Tiles, usable: Bool) -> Float32:
    """Subtract from each box its mean and the gradients between its neighbours, where those are usable."""
    mean = tiles.mean
    inside: Bool = np.any(usable, axis=(2, 3))
    along_x = _gradient(mean, inside, tiles.values.shape[3])
    along_y = _gradient(mean.T, inside.T, tiles.values.shape[2]).swapaxes(0, 1)
    residual = tiles.values - (mean[:, :, None] + along_y)[:, :, :, None]
    residual -= along_x[:, :, None, :]
    return residual


def _gradient(mean: Float32, inside: Bool, size: int) -> Float32:
    """Slope of box means along the first axis, times the positions in a box, shape (*mean.shape, size)."""
    slope = np.zeros_like(mean)
    both = inside[2:] & inside[:-2]
    slope[1:-1] = np.where(both, (mean[2:] - mean[:-2]) / np.float32(2 * size), np.float32(0))
    position = np.arange(size, dtype=np.float32) - np.float32(0.5 * (size - 1))
    return slope[:, :, None] * position


def _rank_one(sample: _Sample) -> _Pattern:
    """Find the box that, with a strength for each row of boxes, explains the combined boxes best.

    The strength is normalised to 1 where the pattern is on.
    """
    profile, weight = sample.profile, sample.count.astype(np.float64)
    # A signal in one row of boxes only, such as a bad row, is not a pattern.
    calm = _calm(profile)
    box = calm[int(np.argmax(np.sum(calm**2, axis=1)))]
    weighted = weight * calm
    for _ in range(_ROUNDS):
        amplitude = _ratio(weighted @ box, weight @ box**2)
        new = _ratio(amplitude @ weighted, amplitude**2 @ weight)
        new -= new.mean()
        norm = float(np.sqrt(np.mean(new**2)))
        if not norm > 0:
            break
        new /= norm
        settled = float(np.max(np.abs(new - box))) < 1e-4
        box = new
        if settled:
            break
    height, width = sample.residual.shape[2:]
    return _normalised(sample, box.reshape(height, width))


def _calm(rows: Float64) -> Float64:
    """Median of each row with the one before and the one after; the first and last as they are."""
    before, middle, after = rows[:-2], rows[1:-1], rows[2:]
    calm = rows.copy()
    low, high = np.minimum(before, middle), np.maximum(before, middle)
    np.clip(after, low, high, out=calm[1:-1])
    return calm


def _normalised(sample: _Sample, box: Float64) -> _Pattern:
    """Measure the strength of a box in each row of pixels, and scale it to 1 where it is on."""
    rows = (-1, *box.shape)
    # Without the mean of each row an offset of the level, which often comes with the pattern, does not count;
    # unless the rows differ in little else.
    shape = box - box.mean(axis=1, keepdims=True)
    if np.sum(shape**2) < 0.1 * np.sum(box**2):
        shape = box
    count = sample.count.reshape(rows)
    weight = (count * shape**2).sum(axis=2).ravel()
    product = (count * sample.profile.reshape(rows) * shape).sum(axis=2).ravel()
    strength = _ratio(product, weight)
    # The moments of single rows would be those of their noise; rows of boxes are quieter.
    by_box = _ratio(product.reshape(-1, len(box)).sum(axis=1), weight.reshape(-1, len(box)).sum(axis=1))
    unit = unit_strength(_calm(by_box))
    if unit == 0:
        return _Pattern(np.zeros_like(box), np.zeros_like(strength), np.ones_like(weight))
    return _Pattern(box * unit, strength / unit, weight * unit**2)


def _refitted(sample: _Sample, pattern: _Pattern, zones: list[slice]) -> _Pattern:
    """Fit the box again to the rows of the zones alone, now that the edges are known to the row."""
    shape = (-1, *pattern.box.shape)
    rows = (-1, len(pattern.box), 1)
    on = np.zeros(sample.rows)
    for zone in zones:
        on[zone] = 1.0
    weight = sample.count.reshape(shape) * on.reshape(rows)
    # Row by row, so that a row of boxes that holds an edge counts with the part that is on.
    by_box = _ratio((weight * pattern.strength.reshape(rows)).sum(axis=(1, 2)), weight.sum(axis=(1, 2)))
    by_box = by_box[:, None, None]
    product = (weight * by_box * sample.profile.reshape(shape)).sum(axis=0)
    power = (weight * by_box**2).sum(axis=0)
    box = np.where(power > 0, _ratio(product, power), pattern.box)
    return _normalised(sample, box - box.mean())


def _zone_strength(sample: _Sample, pattern: _Pattern, zones: list[slice]) -> tuple[Float64, Bool]:
    """Strength to subtract in each row of pixels of the boxes, and the rows of the zones."""
    height = len(pattern.box)
    strength = np.zeros(sample.rows)
    on = np.zeros(sample.rows, bool)
    for zone in zones:
        inside = np.zeros(sample.rows, bool)
        inside[zone] = True
        weight = (pattern.weight * inside).reshape(-1, height).sum(axis=1)
        product = (pattern.weight * pattern.strength * inside).reshape(-1, height).sum(axis=1)
        measured = weight > 0
        if not measured.any():
            continue
        values = product[measured] / weight[measured]
        errors = MEDIAN_ERROR**2 * sample.sigma**2 / weight[measured]
        common = float(np.median(values))
        # Rows get a strength different from the median of the zone to the degree that they differ by more
        # than their errors (a shrinkage estimator).
        extra = max(0.0, robust_sigma(values) ** 2 - float(np.median(errors)))
        by_box = np.full(weight.size, common)
        by_box[measured] = common + (values - common) * _ratio(np.full_like(errors, extra), extra + errors)
        strength[zone] = np.repeat(by_box, height)[zone]
        on |= inside
    return strength, on


def _noise(sample: _Sample, pattern: _Pattern, strength: Float64, on: Bool) -> tuple[float, float, int]:
    """Measure the deviation of usable pixels in the rows that are on, before and after, and count them."""
    height = len(pattern.box)
    model = (strength.reshape(-1, height, 1) * pattern.box).astype(np.float32)
    after = sample.residual - model
    take = sample.usable & on.reshape(-1, height)[None, :, :, None]
    return rms_before_and_after(sample.residual, after, model, take, sample.sigma)


def _ratio(numerator: Float64, denominator: Float64) -> Float64:
    """Quotient, 0 where the denominator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
