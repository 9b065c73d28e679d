"""Interpolation kernels: Lagrange polynomials through 2, 4 or 6 samples, and cardinal splines."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float32, Float64, Floats, Indices

__all__ = [
    "TAPS",
    "Kernel",
    "Power",
    "kernel_weights",
    "powered",
    "spline_squares",
    "tap_weights",
    "weights_near_ends",
]

Kernel = Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"]
Power = Literal["signed", "squared", "absolute"]
"""What is done to weights: nothing for data, squares for variances, absolute values for flags."""

# Number of samples per axis. Splines reach over the whole frame; the count is that of the polynomial of the
# same order.
TAPS: dict[Kernel, int] = {"nearest": 1, "linear": 2, "poly3": 4, "poly5": 6, "spline3": 4, "spline5": 6}


def kernel_weights(fraction: Floats | float, taps: int) -> Float64:
    """Return the weights of a Lagrange polynomial.

    Parameters
    ----------
    fraction : array-like
        Distance past the sample at the left, in [0, 1).
    taps : {1, 2, 4, 6}
        Number of samples.

    Returns
    -------
    ndarray of float64, shape (taps,) + shape of ``fraction``
        Weights of the samples at ``1 - taps/2 ... taps/2``. Their sum is 1.

    Notes
    -----
    The polynomials are written as in DRAGONS (gempy/library/cython_utils.pyx, polyinterp).
    """
    p = np.asarray(fraction, dtype=np.float64)
    if taps == 1:
        return np.ones((1, *p.shape))
    q = 1 - p
    if taps == 2:
        return np.stack([q, p])
    a, b = p * (p**2 - 1) / 6, q * (q**2 - 1) / 6
    if taps == 4:
        return np.stack([b, q + a - 2 * b, p + b - 2 * a, a])
    a2, b2 = a * (p**2 - 4) / 20, b * (q**2 - 4) / 20
    return np.stack(
        [
            b2,
            b - 4 * b2 + a2,
            q - 2 * b + a + 6 * b2 - 4 * a2,
            p - 2 * a + b + 6 * a2 - 4 * b2,
            a - 4 * a2 + b2,
            a2,
        ]
    )


def tap_weights(position: Floats, samples: int, taps: int) -> tuple[Indices, Float64]:
    """Return the weights of the samples around positions along an axis.

    Parameters
    ----------
    position : ndarray
        Positions in samples; those beyond the ends are moved to the ends.
    samples : int
        Number of samples along the axis.
    taps : {2, 4, 6}
        Number of samples of the kernel. Near the ends the next lower polynomial that fits is used.

    Returns
    -------
    left : ndarray of int
        Sample at the left of each position.
    weights : ndarray of float64, shape (taps,) + shape of ``position``
        Weights of the samples ``left + 1 - taps/2 ... left + taps/2``; 0 for those beyond the ends.
    """
    position = np.clip(position, 0, samples - 1)
    left = np.floor(position).astype(np.intp)
    return left, weights_near_ends(left, position - left, samples, taps)


def weights_near_ends(left: NDArray[np.integer[Any]], fraction: Floats, samples: int, taps: int) -> Float64:
    """Return weights of the polynomial of the highest order that fits between the ends of an axis.

    Parameters
    ----------
    left : ndarray of int
        Samples at the left; of the shape of `fraction`, or with an axis for the taps in front of it.
    fraction : ndarray
        Distances past these samples, in [0, 1).
    samples, taps : int
        As for `tap_weights`.

    Returns
    -------
    ndarray of float64, shape (taps,) + shape of ``fraction``
        Where no polynomial fits, the sample at the left alone counts.
    """
    half = taps // 2 - 1
    weights = np.zeros((taps, *fraction.shape))
    weights[half] = 1.0
    for order in (n for n in (2, 4, 6) if n <= taps):
        before = order // 2 - 1
        fits = (left >= before) & (left <= samples - 1 - order // 2)
        of_order = np.zeros_like(weights)
        of_order[half - before : half - before + order] = kernel_weights(fraction, order)
        weights = np.where(fits, of_order, weights)
    return weights


def powered(weights: Float64, power: Power) -> Float32:
    """Return weights, their squares or their absolute values, as float32."""
    if power == "squared":
        weights = weights**2
    elif power == "absolute":
        weights = np.abs(weights)
    return weights.astype(np.float32)


def spline_squares(fraction: Floats, order: Literal[3, 5]) -> Float64:
    """Return the sum of the squared weights of a cardinal spline, interpolated in a table.

    Parameters
    ----------
    fraction : ndarray
        Distance past the sample at the left, in [0, 1).
    order : {3, 5}
        Order of the spline.
    """
    from scipy.ndimage import map_coordinates

    grid = np.linspace(0, 1, 33)
    impulse = np.zeros(65)
    impulse[32] = 1.0
    positions = 32 + np.arange(-24, 25) + grid[:, None]
    weights = map_coordinates(impulse, positions[None], order=order, mode="constant")
    return np.asarray(np.interp(fraction, grid, (weights**2).sum(axis=1)), dtype=np.float64)
