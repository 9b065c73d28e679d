"""Settings of a combination, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from niripipe.errors import ParameterError

from .noiseclip import NoiseModel

__all__ = ["Operation", "Rejection", "Settings"]

Operation = Literal["mean", "wtmean", "median", "lmedian"]
Rejection = Literal["none", "minmax", "sigclip", "varclip", "noiseclip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings of one combination; `combine` describes each of them.

    Raises
    ------
    ParameterError
        If a setting has a value that cannot be used.
    """

    n_inputs: int
    operation: Operation = "mean"
    reject: Rejection = "none"
    hsigma: float = 3.0
    lsigma: float = 3.0
    mclip: bool = True
    max_iters: int | None = None
    nlow: int = 0
    nhigh: int = 0
    noise: NoiseModel = field(default_factory=NoiseModel)

    def __post_init__(self) -> None:
        for item, choices in (("operation", get_args(Operation)), ("reject", get_args(Rejection))):
            value = getattr(self, item)
            if value not in choices:
                raise ParameterError("unknown choice", item=item, found=value, expected=", ".join(choices))
        for item in ("hsigma", "lsigma", "nlow", "nhigh"):
            number = getattr(self, item)
            if not (math.isfinite(number) and number >= 0):
                raise ParameterError("not a usable limit", item=item, found=number, expected=">= 0")
        if self.max_iters is not None and self.max_iters < 1:
            raise ParameterError(
                "not a usable limit", item="max_iters", found=self.max_iters, expected=">= 1 or None"
            )

    @property
    def trim(self) -> tuple[int, int]:
        """How many of the lowest and highest of all inputs minmax rejects.

        The numbers asked for, lowered together until a value is left: three inputs cannot lose two at
        either end.
        """
        nlow, nhigh = self.nlow, self.nhigh
        while nlow + nhigh >= self.n_inputs and nlow + nhigh > 0:
            nlow, nhigh = max(nlow - 1, 0), max(nhigh - 1, 0)
        return nlow, nhigh

    @property
    def is_median(self) -> bool:
        """Whether the result is the median or the lower median."""
        return self.operation in ("median", "lmedian")

    @property
    def trims_median(self) -> bool:
        """Whether the rejection takes as many values off either end of a median.

        That changes neither the median nor its variance.
        """
        nlow, nhigh = self.trim
        return self.is_median and self.reject == "minmax" and nlow == nhigh
