"""Which grey a value gets: limits and curve that suit infrared images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import ParameterError

__all__ = ["Range", "Stretch", "norm_of", "range_of"]

Stretch = Literal["asinh", "zscale", "linear"]

_SAMPLE = 200_000
"""Pixels from which limits are found."""
_BELOW, _LINEAR, _LEAST = 2.0, 3.0, 12.0
"""In the noise of the sky: how far below it black is, where the curve turns, and the least range."""
_BENDS = (1e-4, 1.0)
"""Limits of the share of the range where the curve turns."""
_BRIGHT, _WIDE = 99.8, (1.0, 99.0)
"""Percentiles."""


@dataclass(frozen=True, slots=True)
class Range:
    """Which values are black and white, and how the greys between them are shared out.

    Attributes
    ----------
    low, high : float
        Black and white.
    bend : float or None
        Where the curve turns from linear to logarithmic, as a share of the range; None for a linear one.
    """

    low: float
    high: float
    bend: float | None = None

    def apply(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return values as greys from 0 to 1; NaN stays."""
        x = np.clip((data - self.low) / (self.high - self.low), 0, 1)
        return np.asarray(x if self.bend is None else np.arcsinh(x / self.bend) / np.arcsinh(1 / self.bend))


def range_of(
    data: NDArray[Any],
    bad: NDArray[np.bool_] | None = None,
    stretch: Stretch = "asinh",
    limits: tuple[float, float] | None = None,
) -> Range:
    """Return which values of an image are black and white.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    bad : ndarray of bool, same shape, optional
        Pixels that do not count.
    stretch : {"asinh", "zscale", "linear"}
        ``asinh``: from 2 sigma below the sky to the 99.8th percentile, linear up to 3 sigma above black and
        logarithmic beyond, so that faint and bright parts are both seen. ``zscale``: linear, the limits of
        IRAF. ``linear``: between the 1st and 99th percentile.
    limits : tuple of float, optional
        Black and white, in the unit of the data.

    Raises
    ------
    ParameterError
        An unknown stretch, or limits that are not two increasing numbers.
    """
    if stretch not in ("asinh", "zscale", "linear"):
        raise ParameterError(
            "There is no such stretch", item="stretch", found=stretch, expected="asinh, zscale or linear"
        )
    if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
        raise ParameterError("Limits are two increasing numbers", item="limits", found=limits)
    step = max(1, int(np.sqrt(data.size / _SAMPLE)))
    sample = np.asarray(data[::step, ::step], float)
    good = np.isfinite(sample)
    if bad is not None:
        good &= ~bad[::step, ::step]
    values = sample[good]
    if not values.size:
        values = np.array([0.0, 1.0])
    centre = float(np.median(values))
    noise = 1.4826 * float(np.median(np.abs(values - centre)))
    low, high = limits or _limits(values, stretch, centre, noise)
    if not low < high:
        low, high = low - 0.5, low + 0.5
    if stretch == "asinh" and noise > 0:
        return Range(low, high, float(np.clip(_LINEAR * noise / (high - low), *_BENDS)))
    return Range(low, high)


def norm_of(
    data: NDArray[Any],
    bad: NDArray[np.bool_] | None = None,
    stretch: Stretch = "asinh",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Return the normalisation of an image, for ``imshow(norm=...)``; parameters as for `range_of`."""
    from astropy.visualization import AsinhStretch, ImageNormalize, LinearStretch

    found = range_of(data, bad, stretch, limits)
    curve = LinearStretch() if found.bend is None else AsinhStretch(found.bend)
    return ImageNormalize(vmin=found.low, vmax=found.high, stretch=curve, clip=False)


def _limits(values: NDArray[Any], stretch: Stretch, centre: float, noise: float) -> tuple[float, float]:
    if stretch == "zscale":
        from astropy.visualization import ZScaleInterval

        low, high = ZScaleInterval().get_limits(values)
        return float(low), float(high)
    if stretch == "linear":
        low, high = np.percentile(values, _WIDE)
        return float(low), float(high)
    high = max(float(np.percentile(values, _BRIGHT)), centre + _LEAST * noise)
    return centre - _BELOW * noise, high
