"""What was asked of a combination, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from niripipe.errors import ParameterError

from .noiseclip import NoiseModel

__all__ = ["MedianVariance", "Operation", "Rejection", "Settings"]

Operation = Literal["mean", "wtmean", "median", "lmedian"]
Rejection = Literal["none", "minmax", "sigclip", "varclip", "noiseclip"]
MedianVariance = Literal["exact", "asymptotic"]

# Clipping converges in a handful of rounds; the cap only guards against values that alternate.
_MOST_ITERATIONS = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """Validated settings of one combination; the meaning of each is told in `combine`."""

    n_inputs: int
    operation: Operation
    reject: Rejection
    hsigma: float
    lsigma: float
    mclip: bool
    max_iters: int
    nlow: int
    nhigh: int
    median_variance: MedianVariance
    noise: NoiseModel

    @classmethod
    def checked(
        cls,
        n_inputs: int,
        *,
        operation: str,
        reject: str,
        hsigma: float,
        lsigma: float,
        mclip: bool,
        max_iters: int | None,
        nlow: int,
        nhigh: int,
        median_variance: str,
        noise: NoiseModel | None,
    ) -> Settings:
        """Check every setting and put defaults in place.

        Raises
        ------
        ParameterError
            If a setting has a value that cannot be used.
        """
        for item, value, choices in (
            ("operation", operation, get_args(Operation)),
            ("reject", reject, get_args(Rejection)),
            ("median_variance", median_variance, get_args(MedianVariance)),
        ):
            if value not in choices:
                raise ParameterError("unknown choice", item=item, found=value, expected=", ".join(choices))
        for item, number in (("hsigma", hsigma), ("lsigma", lsigma), ("nlow", nlow), ("nhigh", nhigh)):
            if not (math.isfinite(number) and number >= 0):
                raise ParameterError("not a usable limit", item=item, found=number, expected=">= 0")
        if max_iters is not None and max_iters < 1:
            raise ParameterError(
                "not a usable limit", item="max_iters", found=max_iters, expected=">= 1 or None"
            )
        # Trim symmetrically what would leave no value: three skies cannot lose two at either end.
        while nlow + nhigh >= n_inputs and nlow + nhigh > 0:
            nlow, nhigh = max(nlow - 1, 0), max(nhigh - 1, 0)
        return cls(
            n_inputs=n_inputs,
            operation=operation,  # type: ignore[arg-type]
            reject=reject,  # type: ignore[arg-type]
            hsigma=hsigma,
            lsigma=lsigma,
            mclip=mclip,
            max_iters=min(max_iters or _MOST_ITERATIONS, _MOST_ITERATIONS),
            nlow=nlow,
            nhigh=nhigh,
            median_variance=median_variance,  # type: ignore[arg-type]
            noise=noise or NoiseModel(),
        )

    @property
    def trims_median(self) -> bool:
        """Whether rejection takes as many values off either end of a median.

        That moves neither the median nor, by the exact rule, its variance.
        """
        return (
            self.operation in ("median", "lmedian")
            and self.median_variance == "exact"
            and self.reject == "minmax"
            and self.nlow == self.nhigh
        )
