"""What is left of a drifting sky after the sky was subtracted, told from light of the field by the dithers.

Frames are compared as mosaics of boxes (`~niripipe.algorithms.extended.box_medians`). Light of the field is
at the same place on the sky in all of them; what differs from frame to frame at one place of the sky is
residual sky, or glow of the instrument. It is smooth, and can be fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64
from niripipe.algorithms.box_maps import SkyGrid, detector_mean, light_regions, nine
from niripipe.algorithms.parallel import row_blocks
from niripipe.algorithms.robust import MAD_TO_SIGMA

__all__ = ["ResidualSky", "at_pixels", "recurs", "residual_sky"]

# Levels of frames and light of the field depend on each other; both settle quickly.
_ROUNDS = 4
# A smooth map falls short at peaks; what it left is smoothed and added so many times (Tukey's twicing).
_PRODUCT_ROWS = 8
"""Rows of a matrix product."""
_TWICING = 4
# Under a mask the map continues what is known within these distances (Gaussian sigma, boxes); where less
# than this weight is known within the widest, it fades to zero.
_REACHES, _FLOOR = (1.0, 2.0, 3.0), 0.2
# Light of the field reaches as far as the mean of the frames exceeds its error so many times, around a box
# where it does so clearly. With 5 degrees of freedom chance does so in 1 of 200 boxes, and does no harm then.
_SEED, _REACH = 4.0, 1.0
# Light over so many boxes is wide.
_WIDE = 4
# A box is used when so much of it is shown by three frames or more.
_SHOWN = 0.5
# Fewer quiet boxes than this give no level.
_LEAST_BOXES = 8


@dataclass(frozen=True, slots=True)
class ResidualSky:
    """Residual sky of dithered frames.

    Attributes
    ----------
    maps : ndarray of float64, shape (n, by, bx)
        What to subtract from each frame, at the centres of the boxes; no box is NaN. The level of a frame is
        not part of it.
    noise : float
        Noise of one box of a frame, in the unit of the maps.
    error : float
        Noise of ``maps``: what a fit to noise alone would have as rms.
    rms : float
        Rms of ``maps``.
    light : ndarray of bool, shape (n, by, bx)
        Boxes of each frame with light of the field, which keep the mean of all frames.
    """

    maps: Float64
    noise: float
    error: float
    rms: float
    light: Bool


def residual_sky(boxes: Float64, shifts: Float64, smoothing: float = 0.8) -> ResidualSky:
    """Fit the residual sky of dithered frames.

    Parameters
    ----------
    boxes : ndarray of float64, shape (n, by, bx)
        Box medians of the frames, without their sources; NaN where unknown.
    shifts : ndarray of float64, shape (n, 2)
        Position (y, x) of one place on the sky in each frame, in boxes.
    smoothing : float
        Standard deviation of the Gaussian that smooths the maps, boxes.

    Returns
    -------
    ResidualSky

    Notes
    -----
    A smooth map in each frame and the field could be exchanged for each other. So a box counts as light of
    the field only where the mean of the aligned frames is positive and significant against their scatter,
    and brighter than the mean on the detector; there the field is that mean, so that the sum of what is
    subtracted is zero. Elsewhere the field is taken to be dark.
    """
    grid = SkyGrid(boxes.shape[1:], shifts)
    known = np.isfinite(boxes)
    values = np.where(known, boxes, 0.0)
    field = np.zeros_like(values)
    light = np.zeros(values.shape, bool)
    level = np.zeros(len(values))
    for _ in range(_ROUNDS):
        level = np.array([_level(*one) for one in zip(values - field, known, light, strict=True)])
        flat = values - level[:, None, None]
        aligned = grid.aligned(flat, known)
        # Without what the frames show at the same place of the detector, that cannot pass for light.
        region = light_regions(
            grid.aligned(flat - detector_mean(flat, known), known), seed=_SEED, reach=_REACH
        )
        # Outskirts are fainter than what can be seen in one box.
        region = np.logical_or.reduce(nine(region))
        mean = np.where(region, aligned.mean, 0.0)
        field = grid.back(mean)
        light = grid.back(region.astype(float)) > 0
    rest = values - field - level[:, None, None]
    # What fewer frames show cannot be told from light of the field.
    known &= grid.back(np.isfinite(grid.aligned(rest, known).error).astype(float)) > _SHOWN
    noise = _noise(rest, known)
    maps = np.array([_smooth(*one, smoothing) for one in zip(rest, known, strict=True)])
    rms = float(np.sqrt(np.mean(maps[known] ** 2))) if known.any() else 0.0
    return ResidualSky(maps, noise, noise * _gain(smoothing), rms, light)


def recurs(boxes: Float64, shifts: Float64) -> bool:
    """Whether dithered frames agree on wide light of the field.

    Parameters
    ----------
    boxes, shifts : ndarray
        As in `residual_sky`.

    Returns
    -------
    bool
        True for four boxes or more in one region, also where the light hardly moves on the detector, so that
        no fit could tell it from residual sky.
    """
    known = np.isfinite(boxes)
    values = np.where(known, boxes, 0.0)
    level = [_level(*one) for one in zip(values, known, np.zeros_like(known), strict=True)]
    aligned = SkyGrid(boxes.shape[1:], shifts).aligned(values - np.array(level)[:, None, None], known)
    return bool(light_regions(aligned, seed=_SEED, reach=_REACH, seeds=_WIDE).any())


def at_pixels(boxes: Float64, box: int, shape: tuple[int, ...]) -> Float32:
    """Return a map of boxes at every pixel of a frame, by cubic splines.

    Parameters
    ----------
    boxes : ndarray of float64, shape (by, bx)
        Values at the centres of boxes.
    box : int
        Side of a box, pixels.
    shape : tuple of int
        Shape of the frame. Beyond the outermost centres the outermost values count.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    rows = _spline_weights(boxes.shape[0], box, shape[0])
    columns = _spline_weights(boxes.shape[1], box, shape[1]).T.astype(np.float32)
    along_y = (rows @ boxes).astype(np.float32)
    plane = np.empty(shape, np.float32)
    # Products this small take one thread: on a busy machine several would wait for each other.
    for part in row_blocks(shape[0], _PRODUCT_ROWS):
        np.matmul(along_y[part], columns, out=plane[part])
    return plane


def _spline_weights(number: int, box: int, size: int) -> Float64:
    """Return by which weight each box counts at each pixel of a row or column: a natural cubic spline.

    In units of a box; Press et al., Numerical Recipes, section 3.3 (scipy.interpolate takes long to import).
    """
    if number < 2:
        return np.ones((size, number))
    at = np.clip((np.arange(size) - (box - 1) / 2) / box, 0, number - 1)
    low = np.minimum(at.astype(int), number - 2)
    unit = np.eye(number)
    bend = np.zeros((number, number))
    inner = number - 2
    near = (np.eye(inner, k=1) + np.eye(inner, k=-1)) + 4 * np.eye(inner)
    bend[1:-1] = np.linalg.solve(near, 6 * (unit[:-2] - 2 * unit[1:-1] + unit[2:])) if inner else 0
    up = (at - low)[:, None]
    down = 1 - up
    curved = ((down**3 - down) * bend[low] + (up**3 - up) * bend[low + 1]) / 6
    return np.asarray(down * unit[low] + up * unit[low + 1] + curved)


def _level(rest: Float64, known: Bool, light: Bool) -> float:
    """Level of a frame: the median of boxes without light, or of all where hardly any is left."""
    quiet = known & ~light
    chosen = rest[quiet] if quiet.sum() >= _LEAST_BOXES else rest[known]
    return float(np.median(chosen)) if chosen.size else 0.0


def _smooth(rest: Float64, known: Bool, sigma: float) -> Float64:
    """Smooth a map, with `_TWICING` rounds; where nothing is known it continues what is around, and fades."""
    from scipy import ndimage

    made = np.where(known, rest, _around(rest, known))
    smooth = np.zeros_like(rest)
    for _ in range(_TWICING):
        smooth += ndimage.gaussian_filter(made - smooth, sigma, mode="nearest")
    return smooth


def _around(rest: Float64, known: Bool) -> Float64:
    """Mean of the known boxes around each, in the narrowest neighbourhood that holds enough of them."""
    from scipy import ndimage

    made, missing = np.zeros_like(rest), np.ones(rest.shape)
    values, weight = np.where(known, rest, 0.0), known.astype(float)
    for sigma in _REACHES:
        share = ndimage.gaussian_filter(weight, sigma, mode="nearest")
        mean = ndimage.gaussian_filter(values, sigma, mode="nearest") / np.maximum(share, 1e-6)
        trust = np.minimum(share / _FLOOR, 1.0) * missing
        made += trust * mean
        missing -= trust
    return made


def _gain(sigma: float) -> float:
    """Noise of a smoothed map over that of a box."""
    size = 2 * int(4 * sigma + 4) + 1
    unit = np.zeros((size, size))
    unit[size // 2, size // 2] = 1.0
    return float(np.sqrt(np.sum(_smooth(unit, np.ones_like(unit, bool), sigma) ** 2)))


def _noise(rest: Float64, known: Bool) -> float:
    """Noise of a box, from differences of four neighbours, in which level and slope cancel."""
    value = (rest[:, 1:, 1:] - rest[:, :-1, 1:] - rest[:, 1:, :-1] + rest[:, :-1, :-1]) / 2
    good = known[:, 1:, 1:] & known[:, :-1, 1:] & known[:, 1:, :-1] & known[:, :-1, :-1]
    return MAD_TO_SIGMA * float(np.median(np.abs(value[good]))) if good.any() else float("inf")
