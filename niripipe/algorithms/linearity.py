"""Detector linearity: restore the counts that a linear detector would have given.

The correction of the Gemini infrared detector controller is a polynomial in the electrons of one coadd,
``c' = c (1 + c (gamma + c eta))``, followed by a factor ``t / (t + time_delta)`` for the time between the
reset and the start of the nominal exposure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import map_blocks, plane_rows
from niripipe.errors import DataError, ParameterError

__all__ = ["Linearized", "correct", "correct_level", "exposure_factor"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Linearized:
    """Corrected planes: `data` and `variance` (None if there was none), both float32 ``(ny, nx)``."""

    data: Float32
    variance: Float32 | None


def exposure_factor(exposure_time: float, time_delta: float) -> float:
    """Factor ``t / (t + time_delta)`` that brings counts to the nominal exposure time t of one coadd.

    Parameters
    ----------
    exposure_time : float
        Exposure time of one coadd, s.
    time_delta : float
        Time between reset and nominal start of the exposure, s.

    Raises
    ------
    ParameterError
        If the exposure time is not positive and finite.
    """
    if not (math.isfinite(exposure_time) and exposure_time > 0):
        raise ParameterError(
            "the exposure time of one coadd must be positive", item="exposure_time", found=exposure_time
        )
    return exposure_time / (exposure_time + time_delta)


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
    limit: float | None = None,
    out: Float32 | None = None,
    variance_out: Float32 | None = None,
    threads: int = 1,
) -> Linearized:
    """Correct a plane for non-linearity, in one pass over blocks of rows.

    With g electrons per data unit, N coadds and per-coadd time t, the polynomial turns data into new data
    by way of ``c = data g / N``; then ``variance += (new - data) / g``, and data and variance are multiplied
    by the exposure factor f and by f**2. Arithmetic and coefficients are ``float32``, as in DRAGONS, so that
    calibrations agree to rounding.

    Negative and saturated pixels are corrected like any others, so a saturated pixel keeps its order
    relative to its neighbours but its value means nothing; its mask has to say so.

    Parameters
    ----------
    data : ndarray of float32
        Counts, in ADU or electrons, all coadds summed.
    variance : ndarray of float32, optional
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
    limit : float, optional
        Level, in the unit of `data`, above which the correction grows no further: pixels beyond it
        are moved by as much as a pixel at the limit. None (the default) sets no limit.
    out, variance_out : ndarray of float32, optional
        Receive the results; they may be `data` and `variance` themselves.
    threads : int
        Number of threads.

    Returns
    -------
    Linearized
        The corrected planes.

    Raises
    ------
    ParameterError
        If gain, coadds or exposure time are not positive.
    DataError
        If the planes differ in shape.
    """
    _check(gain, coadds)
    factor = np.float32(exposure_factor(exposure_time, time_delta))
    if variance is not None and variance.shape != data.shape:
        raise DataError("variance and data differ in shape", found=variance.shape, expected=data.shape)
    new = np.empty(data.shape, np.float32) if out is None else out
    spread = variance_out
    if variance is not None and spread is None:
        spread = np.empty(data.shape, np.float32)
    second, third = np.float32(gamma), np.float32(eta)
    top = np.float32(np.inf if limit is None else limit)
    to_electrons, back = np.float32(gain / coadds), np.float32(coadds / gain)

    def correct_rows(rows: slice) -> None:
        with np.errstate(all="ignore"):
            counts = data[rows]
            excess = None
            if limit is not None:
                # Several times faster than maximum and minimum with a number, which are not vectorised.
                excess = np.clip(counts - top, 0, np.inf)
                counts = np.clip(counts, -np.inf, top)
            electrons = counts * to_electrons
            polynomial = electrons * third
            polynomial += second
            polynomial *= electrons
            polynomial += 1
            polynomial *= electrons
            polynomial *= back
            if excess is not None:
                polynomial += excess
            if variance is not None and spread is not None:
                increase = polynomial - data[rows]
                increase /= np.float32(gain)
                increase += variance[rows]
                np.multiply(increase, factor * factor, out=spread[rows])
            np.multiply(polynomial, factor, out=new[rows])

    map_blocks(correct_rows, len(data), rows_per_block=plane_rows(data.shape[1]), threads=threads)
    return Linearized(new, spread if variance is not None else None)


def correct_level(level: float, *, gamma: float, eta: float, gain: float, coadds: int = 1) -> float:
    """Where a level, such as that of saturation, lies on the corrected scale.

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
    _check(gain, coadds)
    electrons = level * gain / coadds
    return round(electrons * (1 + electrons * (gamma + electrons * eta)) * coadds / gain, 3)


def _check(gain: float, coadds: int) -> None:
    for item, value in (("gain", gain), ("coadds", coadds)):
        if not (math.isfinite(value) and value > 0):
            raise ParameterError("must be positive", item=item, found=value)
