"""Numbers of the normal distribution, and the deviation of one in spite of outliers."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from niripipe.algorithms.arrays import Floats

__all__ = ["MAD_TO_SIGMA", "MEDIAN_ERROR", "RAYLEIGH_MEDIAN", "SIGMA_TO_FWHM", "robust_sigma"]

MAD_TO_SIGMA: Final = 1.482602218505602
"""Standard deviation over median absolute deviation, 1 / Phi^-1(3/4)."""

MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean."""

RAYLEIGH_MEDIAN: Final = 1.1774
"""Median distance from the centre of a round distribution in two dimensions, over its deviation per axis:
sqrt(2 ln 2), to four decimals."""

SIGMA_TO_FWHM: Final = 2.3548200450309493
"""Full width at half maximum over standard deviation, sqrt(8 ln 2)."""


def robust_sigma(values: Floats) -> float:
    """Estimate the standard deviation from the median absolute deviation; 0 of no values."""
    if values.size == 0:
        return 0.0
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))
