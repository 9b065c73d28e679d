"""Detector linearity: restore the counts that a linear detector would have given.

The correction of the Gemini infrared detector controller is a polynomial in the electrons of one coadd,
``c' = c (1 + c (gamma + c eta))``, followed by a factor ``t / (t + time_delta)`` for the time between the
reset and the start of the nominal exposure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from niripipe.algorithms.arrays import Float32
from niripipe.algorithms.parallel import plane_rows, row_blocks
from niripipe.errors import ParameterError

__all__ = ["Linearized", "correct", "correct_level"]


class Linearized(NamedTuple):
    """Corrected planes: `data` and `variance` (None if there was none), both float32 ``(ny, nx)``."""

    data: Float32
    variance: Float32 | None


def correct(
    data: Float32,
    variance: Float32 | None = None,
    *,
    gamma: float,
    eta: float,
    time_delta: float,
    gain: float,
    exposure_time: float,
    coadds: int = 1,
) -> Linearized:
    """Correct a plane for non-linearity.

    With g electrons per data unit and N coadds, the polynomial turns data into new data with
    ``c = data g / N``. With the exposure factor ``f = t / (t + time_delta)`` the
    results are::

        corrected data     = f new
        corrected variance = f**2 (variance + (max(new, 0) - max(data, 0)) / g)

    so that a variance of read noise and photon noise, ``r**2 + max(data, 0) / g``, becomes that of the new
    counts, ``f**2 (r**2 + max(new, 0) / g)``. Data and coefficients are ``float32``, as in DRAGONS, so that
    calibrations agree to rounding; DRAGONS adds ``(new - data) / g``, which differs for negative counts only.

    Negative and saturated pixels are corrected like any others, so a saturated pixel keeps its order
    relative to its neighbours but its value means nothing; its mask has to say so.

    Parameters
    ----------
    data : ndarray of float32, shape (ny, nx)
        Counts, in ADU or electrons, all coadds summed.
    variance : ndarray of float32, shape (ny, nx), optional
        Variance of `data`.
    gamma, eta : float
        Coefficients for this read mode, array size and well depth, per electron and per electron squared.
    time_delta : float
        Time between reset and nominal start of the exposure, s.
    gain : float
        Electrons per unit of `data`: the detector's gain for ADU, 1 for electrons.
    exposure_time : float
        Exposure time of one coadd, s.
    coadds : int
        Number of coadds.

    Returns
    -------
    Linearized
        The corrected data and variance, in this order.

    Raises
    ------
    ParameterError
        If the exposure time is not positive.
    """
    if not (math.isfinite(exposure_time) and exposure_time > 0):
        raise ParameterError(
            "the exposure time of one coadd must be positive", item="exposure_time", found=exposure_time
        )
    factor = np.float32(exposure_time / (exposure_time + time_delta))
    corrected = np.empty(data.shape, np.float32)
    spread = None if variance is None else np.empty(data.shape, np.float32)
    second, third = np.float32(gamma), np.float32(eta)
    to_electrons, back = np.float32(gain / coadds), np.float32(coadds / gain)
    # Blocks of rows stay in the cache of the processor, and their memory is used again.
    blocks = row_blocks(len(data), plane_rows(data.shape[1]))
    memory = np.empty((3, *data[blocks[0]].shape), np.float32)
    for rows in blocks:
        electrons, new, increase = memory[:, : rows.stop - rows.start]
        with np.errstate(all="ignore"):
            np.multiply(data[rows], to_electrons, out=electrons)
            np.multiply(electrons, third, out=new)
            new += second
            new *= electrons
            new += 1
            new *= electrons
            new *= back
            if variance is not None and spread is not None:
                # np.clip is vectorised, np.maximum with a number is not.
                np.clip(new, 0, np.inf, out=increase)
                increase -= np.clip(data[rows], 0, np.inf, out=electrons)
                increase /= np.float32(gain)
                increase += variance[rows]
                np.multiply(increase, factor * factor, out=spread[rows])
            np.multiply(new, factor, out=corrected[rows])
    return Linearized(corrected, spread)


def correct_level(level: float, *, gamma: float, eta: float, gain: float, coadds: int = 1) -> float:
    """Return where a level, such as that of saturation, lies on the corrected scale.

    The polynomial alone, without the exposure factor, in double precision and rounded to three decimals.

    Parameters
    ----------
    level : float
        Level in the unit of the data, all coadds summed.
    gamma, eta, gain, coadds
        As in `correct`.

    Returns
    -------
    float
        The level in the same unit.
    """
    electrons = level * gain / coadds
    return round(electrons * (1 + electrons * (gamma + electrons * eta)) * coadds / gain, 3)
