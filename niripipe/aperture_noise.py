"""The noise of sums over pixels: what the variances of single pixels do not say.

Two things make the sum over an aperture noisier than the variances in it add up to. Interpolation shares
noise between neighbouring pixels; and the sky is never subtracted perfectly, so that something smooth is
left, whose sum grows with the area and not with its root.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ApertureNoise", "disc"]

Float64 = NDArray[np.float64]

_LAGS = (1.0, -0.28, 0.013)
"""Correlation of noise at a distance of 1, 2 and 3 pixels along an axis, over that at 1: what a cubic
polynomial leaves when it interpolates at all fractions of a pixel alike (`algorithms.kernels`)."""
_FINE = 5
"""Points along a side of a pixel at which the edge of an aperture is looked at."""
_RADII = (0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 14, 20, 30)
"""Radii at which the correlation factor of discs is computed; it is interpolated between them."""


@dataclass(frozen=True, slots=True)
class ApertureNoise:
    """How the noise of sums over pixels follows from the variances of the pixels.

    Parameters
    ----------
    correlation : float
        Variance of a large aperture over the sum of its variances (keyword NOISCORR); 1 for independent
        pixels.
    rms : float
        Rms of the residual sky, in the unit of the data (NOISSKY); 0 for none.
    length : float
        Length over which it is correlated, pixels (NOISLEN): the correlation at a distance d is taken as
        exp(-d^2 / (2 length^2)).
    """

    correlation: float = 1.0
    rms: float = 0.0
    length: float = 0.0

    def of_sum(self, weights: NDArray[Any], variance: NDArray[Any], depth: float = 1.0) -> float:
        """Return the variance of a sum over pixels.

        Parameters
        ----------
        weights : ndarray, shape (ny, nx)
            By what each pixel is multiplied, or which pixels count.
        variance : ndarray, shape (ny, nx)
            Variance of each pixel.
        depth : float
            Variance of the residual sky over that where all frames contribute: the number of all frames over
            the number here.

        Notes
        -----
        ``sum_ij w_i s_i w_j s_j rho_ij`` with the deviations s of the pixels, plus `residual`.
        """
        weights = np.asarray(weights, float)
        deviations = weights * np.sqrt(np.asarray(variance, float))
        along_y, along_x = (self._correlations(size) for size in weights.shape)
        white = float((deviations * (along_y @ deviations @ along_x)).sum())
        squares = float((weights**2).sum())
        # Of unequal weights fewer pixels count.
        area = weights.sum() ** 2 / squares if squares > 0 else 0.0
        return max(white, 0.0) + depth * float(self.residual(area)) * (squares / area if area else 0.0)

    def factor(self, area: ArrayLike) -> Float64:
        """Return by what the sum of the variances of a round aperture is multiplied, by its area (pixels).

        It grows from 1 at a single pixel to `correlation`.
        """
        radii, factors = _factors(self.correlation)
        radius = np.sqrt(np.maximum(np.asarray(area, float), 0.0) / math.pi)
        return np.asarray(np.interp(radius, radii, factors))

    def residual(self, area: ArrayLike) -> Float64:
        """Return the variance that residual sky adds to the sum over an aperture, by its area (pixels).

        It is ``rms^2 A^2 / (1 + A / (2 pi length^2))``: exact for an aperture with a Gaussian weight and a
        Gaussian correlation, near enough for round apertures. It grows with the square of the area while the
        aperture is smaller than the structure, and with the area beyond.
        """
        area = np.asarray(area, float)
        if not (self.rms > 0 and self.length > 0):
            return np.zeros_like(area)
        return np.asarray(self.rms**2 * area**2 / (1 + area / (2 * math.pi * self.length**2)))

    def _correlations(self, size: int) -> Float64:
        """Return the matrix of the correlations between the pixels along an axis."""
        values = np.zeros(max(size, len(_LAGS) + 1))
        values[: len(_LAGS) + 1] = _along_axis(self.correlation)
        distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
        return np.asarray(values[distance])


def disc(x: float, y: float, radius: float) -> tuple[slice, slice, Float64]:
    """Return rows and columns of a stamp around a disc, and the share of each of its pixels inside the disc.

    Parameters
    ----------
    x, y : float
        Centre, 0-based.
    radius : float
        Radius, pixels.
    """
    x0, y0 = math.floor(x - radius + 0.5), math.floor(y - radius + 0.5)
    x1, y1 = math.floor(x + radius + 0.5) + 1, math.floor(y + radius + 0.5) + 1
    points = (np.arange(_FINE) + 0.5) / _FINE - 0.5
    dx = (np.arange(x0, x1)[:, None] + points).ravel() - x
    dy = (np.arange(y0, y1)[:, None] + points).ravel() - y
    inside = dy[:, None] ** 2 + dx**2 <= radius**2
    shares = inside.reshape(y1 - y0, _FINE, x1 - x0, _FINE).mean(axis=(1, 3))
    return slice(y0, y1), slice(x0, x1), np.asarray(shares, float)


def _along_axis(correlation: float) -> Float64:
    """Return the correlation at 0, 1, 2 and 3 pixels along an axis.

    Both axes share the factor: their correlations, from minus to plus infinity, add up to its root.
    """
    lags = np.array(_LAGS)
    return np.array([1.0, *(lags * ((math.sqrt(correlation) - 1) / (2 * lags.sum())))])


@lru_cache(maxsize=64)
def _factors(correlation: float) -> tuple[Float64, Float64]:
    """Return radii of discs, and their correlation factors."""
    noise = ApertureNoise(correlation)
    factors = []
    for radius in _RADII:
        shares = disc(0.5, 0.25, radius)[2]
        # Parts of pixels have less noise than their share of a variance.
        factors.append(noise.of_sum(shares, np.ones(shares.shape)) / float(shares.sum()))
    return np.array(_RADII), np.array(factors)
