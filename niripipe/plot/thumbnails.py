"""Small pictures of products, quickly: block averages, no axes."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import DQ
from niripipe.astrodata.display import as_png
from niripipe.astrodata.fits_write import atomic_file
from niripipe.plot.frames import Frame, extension_of, opened
from niripipe.plot.stretch import Stretch, range_of

__all__ = ["block_means", "save_png", "thumbnail_png"]


_GREYS = 64
"""As many as an eye tells: the file is half as large as with all."""
_NOTHING = 0.2
"""Grey of pixels without a value."""
_MASK_GAIN = 4.0
"""A block of pixels is black when a quarter of it is bad."""


def thumbnail_png(frame: Frame, *, size: int = 360, stretch: Stretch | None = None) -> bytes:
    """Return a small picture of a frame as a PNG file.

    Parameters
    ----------
    frame : AstroData or path
    size : int
        Longest side, pixels: blocks of pixels are averaged, bad ones left out.
    stretch : {"asinh", "zscale", "linear"}, optional
        By default ``asinh`` for images of the sky, and ``linear`` for calibrations. Bad pixel masks are black
        on white.
    """
    ad = opened(frame)
    ext = extension_of(ad)
    if "BPM" in ad.tags:
        # Single pixels would vanish in a mean.
        share = block_means((ext.read("data") != 0).astype(np.float32), None, size)
        shown = 1.0 - np.clip(share * _MASK_GAIN, 0, 1)
    else:
        mask = ext.read("mask")
        bad = None if mask is None else mask & int(DQ.fail) != 0
        small = block_means(ext.read("data"), bad, size)
        if stretch is None:
            stretch = "linear" if "CAL" in ad.tags else "asinh"
        shown = range_of(small, None, stretch).apply(small)
    return _png(shown)


def save_png(frame: Frame, path: str | PathLike[str] | None = None, *, size: int = 1024) -> Path:
    """Write a picture of a frame into a PNG file, without axes.

    Parameters
    ----------
    frame : AstroData or path
    path : path-like, optional
        The file, which may exist; by default beside the frame's own, with ``.png``.
    size : int
        Longest side, pixels.

    Returns
    -------
    Path

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    ad = opened(frame)
    name = str(ad.filename).split(".fits")[0] + ".png"
    target = Path(str(ad.path)).with_name(name) if path is None else Path(path)
    content = thumbnail_png(ad, size=size)
    with atomic_file(target) as file:
        file.write(content)
    return target


def block_means(data: NDArray[Any], bad: NDArray[np.bool_] | None, size: int) -> NDArray[np.float32]:
    """Return an image in fewer pixels: the means of square blocks.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
    bad : ndarray of bool, same shape, or None
        Pixels that do not count; neither do those that are not finite.
    size : int
        Longest side of the result; smaller images are not enlarged.

    Returns
    -------
    ndarray of float32
        NaN where a block has no good pixel. Rows and columns that do not fill a block are left out.
    """
    step = max(1, math.ceil(max(data.shape) / size))
    ny, nx = (max(side // step, 1) for side in data.shape)
    step_y, step_x = min(step, data.shape[0]), min(step, data.shape[1])
    part = data[: ny * step_y, : nx * step_x]
    good = np.isfinite(part)
    if bad is not None:
        good &= ~bad[: ny * step_y, : nx * step_x]
    blocks = (ny, step_y, nx, step_x)
    number = good.reshape(blocks).sum(axis=(1, 3), dtype=np.float32)
    total = np.where(good, part, 0).reshape(blocks).sum(axis=(1, 3), dtype=np.float32)
    means = np.full((ny, nx), np.nan, np.float32)
    np.divide(total, number, out=means, where=number > 0)
    return means


def _png(shown: NDArray[Any]) -> bytes:
    """Return values between 0 and 1 as a grey PNG file, first row at the bottom; NaN is a dark grey."""
    levels = np.rint(np.clip(np.nan_to_num(shown, nan=_NOTHING), 0, 1) * (_GREYS - 1))
    return as_png(np.rint(levels * (255 / (_GREYS - 1))).astype(np.uint8)[::-1])
