"""World coordinates that can be called, as those of DRAGONS."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike

__all__ = ["FrameWCS"]


class FrameWCS(WCS):  # type: ignore[misc]
    """`astropy.wcs.WCS` that is also a function of pixels, with an inverse.

    Pixels are 0-based, x first; coordinates are those of the header's axes, degrees.
    """

    def __call__(self, x: ArrayLike, y: ArrayLike) -> tuple[Any, Any]:
        """Return the world coordinates of pixels: numbers for numbers, arrays for arrays."""
        return _plain(self.pixel_to_world_values(x, y))

    def invert(self, longitude: ArrayLike, latitude: ArrayLike) -> tuple[Any, Any]:
        """Return the pixels of world coordinates."""
        return _plain(self.world_to_pixel_values(longitude, latitude))


def _plain(values: Any) -> tuple[Any, Any]:
    first, second = (np.asarray(value)[()] for value in values)
    return first, second
