"""Which of the pixels in a list hang together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["connected"]

# Up to so many pixels their connections are cheaper to find from a list than from the image.
_SPARSE = 20000


def connected(
    rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, ...], *, corners: bool
) -> NDArray[np.intp]:
    """Give each of some pixels the number of its region.

    Parameters
    ----------
    rows, columns : ndarray of int, shape (n,)
        The pixels, in image order.
    shape : tuple of int
        Shape of the image.
    corners : bool
        Whether pixels that share a corner touch; otherwise they have to share a side.

    Returns
    -------
    ndarray of int, shape (n,)
        Numbers from 0 upwards without gaps.

    Notes
    -----
    Few pixels are joined without an image library, which has to be imported first: every pixel takes the
    least number among its neighbours', and that which this number took in turn, until nothing changes.
    """
    if rows.size > _SPARSE:
        from scipy import ndimage

        image = np.zeros(shape, bool)
        image[rows, columns] = True
        labels, _ = ndimage.label(image, np.ones((3, 3), bool) if corners else None)
        return np.asarray(labels[rows, columns], np.intp) - 1
    if not rows.size:
        return np.zeros(0, np.intp)
    # A column of room at either side keeps the ends of rows apart.
    width = shape[1] + 2
    position = rows * width + columns
    index = np.arange(position.size)
    first, second = [], []
    for step in (1, width - 1, width, width + 1) if corners else (1, width):
        found = np.minimum(np.searchsorted(position, position + step), position.size - 1)
        touching = position[found] == position + step
        first.append(index[touching])
        second.append(found[touching])
    here, there = np.concatenate(first), np.concatenate(second)
    region = index.copy()
    while (region[here] != region[there]).any():
        least = np.minimum(region[here], region[there])
        np.minimum.at(region, region[here], least)
        np.minimum.at(region, region[there], least)
        while (region[region] != region).any():
            region = region[region]
    return np.unique(region, return_inverse=True)[1]
