"""Figures and axes without `matplotlib.pyplot`, and what is drawn on images: compass and scale bar."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from niripipe.errors import InputError

__all__ = ["Picture", "axes_of", "compass", "directions", "scale_bar"]

_OUTLINE = [withStroke(linewidth=1.8, foreground="black")]
_BARS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
"""Lengths of scale bars, arcsec."""
_BAR = 0.25
"""Longest scale bar, share of the width of the image."""
_ARROW = 0.09
"""Length of the arrows to North and East, share of the smaller side."""


class Picture(Figure):
    """A figure that a notebook shows, also where `matplotlib.pyplot` was never imported."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as file:
            self.savefig(file, format="png")
            return file.getvalue()


def axes_of(
    ax: Any, count: int = 1, *, wcs: Sequence[Any] = (), size: tuple[float, float] = (6.0, 5.0)
) -> tuple[Any, list[Any]]:
    """Return a figure and its axes: those given, or new ones side by side.

    Parameters
    ----------
    ax : matplotlib axes, a sequence of them, or None
        Where to draw; None for a new figure.
    count : int
        How many axes are needed.
    wcs : sequence
        The WCS of each of the new axes, None for axes in pixels.
    size : tuple of float
        Width and height of new axes, inches.

    Raises
    ------
    InputError
        Another number of axes was given.
    """
    if ax is not None:
        axes = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) != count:
            raise InputError("Another number of axes is needed", item="ax", found=len(axes), expected=count)
        return axes[0].figure, axes
    figure = Picture(figsize=(size[0] * count, size[1]), layout="constrained")
    systems = [*wcs, *[None] * (count - len(wcs))]
    axes = [
        figure.add_subplot(1, count, k, **({} if system is None else {"projection": system}))
        for k, system in enumerate(systems, 1)
    ]
    return figure, axes


def directions(wcs: Any, shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any], float] | None:
    """Return the unit vectors to North and East in pixels (x, y) at the centre, and arcsec per pixel."""
    y, x = (size / 2 for size in shape)
    ra, dec = (float(value) for value in wcs.pixel_to_world_values(x, y))
    step = 1.0 / 3600
    east = math.cos(math.radians(dec)) or 1.0
    vectors = []
    for d_ra, d_dec in ((0.0, step), (step / east, 0.0)):
        there = np.array(wcs.world_to_pixel_values(ra + d_ra, dec + d_dec), float) - (x, y)
        vectors.append(there)
    lengths = [float(np.hypot(*vector)) for vector in vectors]
    if not all(math.isfinite(length) and length > 0 for length in lengths):
        return None
    return vectors[0] / lengths[0], vectors[1] / lengths[1], 1 / lengths[0]


def compass(ax: Any, north: NDArray[Any], east: NDArray[Any], shape: tuple[int, int]) -> None:
    """Draw arrows to North and East into the upper right corner of an image."""
    ny, nx = shape
    length = _ARROW * min(shape)
    # Arrows and letters stay within the image, whatever their direction.
    centre = np.array([nx, ny]) - 2.2 * length
    for name, vector in (("N", north), ("E", east)):
        tip = centre + length * vector
        ax.annotate(
            "", xy=tip, xytext=centre, arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.4,
                                                   "path_effects": _OUTLINE},
        )  # fmt: skip
        x, y = centre + 1.35 * length * vector
        ax.text(x, y, name, color="white", ha="center", va="center", path_effects=_OUTLINE, fontsize=9)


def scale_bar(ax: Any, scale: float, shape: tuple[int, int]) -> None:
    """Draw a bar of a round number of arcsec into the lower left corner of an image.

    Parameters
    ----------
    ax : matplotlib axes
    scale : float
        Arcsec per pixel.
    shape : tuple of int
        Of the image.
    """
    ny, nx = shape
    fitting = [length for length in _BARS if length <= _BAR * nx * scale]
    if not fitting:
        return
    arcsec = fitting[-1]
    x, y = 0.05 * nx, 0.05 * ny
    ax.plot([x, x + arcsec / scale], [y, y], color="white", lw=2, path_effects=_OUTLINE)
    text = f"{arcsec:g}″" if arcsec < 60 else f"{arcsec / 60:g}′"
    ax.text(
        x + arcsec / scale / 2, y + 0.015 * ny, text, color="white", ha="center", va="bottom",
        path_effects=_OUTLINE, fontsize=9,
    )  # fmt: skip
