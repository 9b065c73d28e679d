"""Variance planes: what read-out and photon statistics say about each pixel."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms.arrays import Float32

__all__ = ["variance"]


def variance(
    data: Float32,
    *,
    gain: float,
    read_noise: float = 0.0,
    poisson: bool = True,
    existing: Float32 | None = None,
) -> Float32:
    """Make a variance plane from read noise and photon noise, or add them to one.

    The variance is ``(read_noise / gain)**2 + max(counts, 0) / gain``, in the square of the data's unit.

    A pixel's own counts underestimate its variance where they are low by chance and overestimate it where
    they are high. The mean of such variances is right, but a mean weighted with them has a bias of about one
    electron, at any level.

    Parameters
    ----------
    data : ndarray of float32
        Counts ``(ny, nx)`` before any subtraction of dark or sky: what was subtracted left its noise.
    gain : float
        Electrons per data unit: the detector's gain for ADU, 1 for electrons.
    read_noise : float
        Read noise in electrons, of all coadds together.
    poisson : bool
        Whether to add the photon variance.
    existing : ndarray of float32, optional
        Variance so far.

    Returns
    -------
    ndarray of float32
        The variance plane. With photon noise it is NaN where the counts are.
    """
    constant = np.float32((read_noise / gain) ** 2)
    if poisson:
        # np.clip is vectorised, np.maximum with a number is not.
        total = np.clip(data, 0, np.inf)
        total /= np.float32(gain)
        total += constant
    else:
        total = np.full(data.shape, constant)
    if existing is not None:
        total += existing
    return total
