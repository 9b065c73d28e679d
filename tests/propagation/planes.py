"""Frames with pixels that all differ, and comparison of their planes with arrays computed by the tests."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata import AstroData

from .. import frames as make

Array = NDArray[Any]

SHAPES = [(64, 64), (48, 32)]
"""A square and a subarray of it; both are centred on the chip."""


def values(seed: int, low: float, high: float, shape: tuple[int, int] = make.SHAPE) -> Array:
    """Return uniformly distributed pixels, float32."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def flags(seed: int, *bits: int, share: float = 0.05, shape: tuple[int, int] = make.SHAPE) -> Array:
    """Return a mask in which each of some bits is set in a share of the pixels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint16)
    for bit in bits:
        mask |= np.where(rng.random(shape) < share, bit, 0).astype(np.uint16)
    return mask


def frame(
    data: ArrayLike,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = 0,
    *,
    adu: bool = False,
    gain: float = make.GAIN,
    **options: Any,
) -> AstroData:
    """Return a prepared frame, in electrons or in ADU of some gain, with these planes."""
    pixels = np.asarray(data, np.float32)
    shape = pixels.shape if pixels.ndim else make.SHAPE
    ad = _template(shape, tuple(sorted(options.items()))).copy()
    ad[0].reset(
        np.broadcast_to(pixels, shape).copy(),
        mask=None if mask is None else np.broadcast_to(np.asarray(mask, np.uint16), shape).copy(),
        variance=None if variance is None else np.broadcast_to(np.float32(variance), shape).copy(),
    )
    if adu:
        ad[0].hdr["BUNIT"] = "adu"
        ad[0].hdr["GAIN"] = gain
    return ad


@lru_cache(maxsize=256)
def _template(shape: tuple[int, int], options: tuple[tuple[str, Any], ...]) -> AstroData:
    """Return a frame whose headers are copied, since making them takes longer than most tests."""
    return make.electrons(make.frame(0.0, shape=shape, **dict(options)))


def calibration(
    kind: str, data: ArrayLike, variance: ArrayLike, mask: ArrayLike, **options: Any
) -> AstroData:
    """Return a processed dark or a normalised flat."""
    ad = frame(data, variance, mask, kind={"dark": "dark", "flat": "lamp_on"}[kind], number=80, **options)
    ad.phu.set(f"PROC{kind.upper()}", "2016-01-03T00:00:00")
    if kind == "flat":
        ad.phu.set("NORMLIZE", "2016-01-03T00:00:00")
    ad.filename = f"N20160102S0080_{kind}.fits"
    return ad


def centre(array: Array, shape: tuple[int, int]) -> Array:
    """Return the central part of a plane."""
    y, x = ((have - want) // 2 for have, want in zip(array.shape, shape, strict=True))
    return array[y : y + shape[0], x : x + shape[1]]


def check(
    ad: AstroData,
    data: ArrayLike,
    variance: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-3,
) -> None:
    """Compare the planes of a frame with what they should be; `atol` is for data only."""
    ext = ad[0]
    np.testing.assert_allclose(ext.data, np.broadcast_to(data, ext.shape), rtol=rtol, atol=atol)
    if variance is None:
        assert ext.variance is None
    else:
        np.testing.assert_allclose(ext.variance, np.broadcast_to(variance, ext.shape), rtol=rtol)
    if mask is not None:
        np.testing.assert_array_equal(ext.mask, np.broadcast_to(mask, ext.shape))
    assert ext.data.dtype == np.float32
    assert ext.variance is None or ext.variance.dtype == np.float32


def median_variance(n: int, *, lower: bool = False) -> float:
    """Return the variance of the median of `n` unit normal deviates, by integration over their density.

    For even `n` the median is the mean of the two middle values, or the smaller one of them.
    """
    x = np.linspace(-6, 6, 1501)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    below = np.cumsum((density[1:] + density[:-1]) / 2 * (x[1] - x[0]))
    below = np.concatenate([[0.0], below])
    low, high = (n - 1) // 2, n // 2
    if low == high or lower:
        weight = below**low * (1 - below) ** (n - 1 - low) * density
        weight /= weight.sum()
        return float((weight * x**2).sum() - (weight * x).sum() ** 2)
    # Both middle values: as many others below the one as above the other.
    joint = np.triu(np.outer(below**low * density, (1 - below) ** low * density))
    joint[np.diag_indices_from(joint)] /= 2
    middle = (x[:, None] + x) / 2
    return float((joint * middle**2).sum() / joint.sum())
