"""Combination of registered planes: selection by data quality, rejection of outliers, reduction to one plane.

`combine` does it all; `subset_medians` is faster where many combinations share inputs. The other names
are the vocabulary of their arguments and results.

The rules are those of Gemini's stacking engine, so that processed darks and flats agree with DRAGONS's to
the rounding of ``float32``, with these differences:

* Values that are not finite, and values whose variance is not finite, are never used.
* Bits above 64 are the worst tier, below "no data"; such inputs are used when the pixel has nothing better,
  and their bits reach the output.
* A pixel without any usable input has value 0, variance 0, count 0 and the bit `bits.NO_DATA`.
* The scatter for sigma clipping is computed from deviations from the median and summed in ``float64``, so
  it does not suffer from cancellation at high levels.
* A frame without a mask counts as good everywhere; the masks of the other frames stay in force.
* The variance of a median uses the efficiency of the sample median of that many normal deviates instead of
  the factor pi/2 of infinitely many (`median_variance_factor`), and after a symmetric minmax rejection,
  which leaves the median what it was, it is that of all the values. ``median_variance="asymptotic"``
  gives the other rule.
* Minmax rejection of as many values as there are inputs is reduced until a value is left.
* Rejection by a noise model, ``reject="noiseclip"``, finds outliers among as few as two inputs.
"""

from __future__ import annotations

from .engine import combine
from .noiseclip import NoiseModel
from .pixels import Combined
from .reduce import median_variance_factor, median_variance_factors
from .settings import Operation, Rejection
from .subsets import subset_medians

__all__ = [
    "Combined",
    "NoiseModel",
    "Operation",
    "Rejection",
    "combine",
    "median_variance_factor",
    "median_variance_factors",
    "subset_medians",
]
