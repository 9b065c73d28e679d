"""Planes to be combined: checked once, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.sources import RowSource
from niripipe.errors import DataError, ParameterError

__all__ = ["Inputs", "Numbers", "Planes", "per_input"]

Numbers = Sequence[float] | NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Planes:
    """Data of all inputs in some pixels, and their variances and masks as far as there are any.

    Attributes
    ----------
    data, variance : ndarray of float32
        ``(N, rows, nx)`` or ``(N, pixels)``.
    mask : ndarray of uint16
        Likewise.
    """

    data: NDArray[np.float32]
    variance: NDArray[np.float32] | None
    mask: NDArray[np.uint16] | None

    def each(self, func: Callable[[NDArray[Any]], NDArray[Any]]) -> Planes:
        """Apply a function to every plane."""
        return Planes(
            func(self.data),
            None if self.variance is None else func(self.variance),
            None if self.mask is None else func(self.mask),
        )

    def flat(self) -> Planes:
        """Return views ``(N, pixels)``."""
        return self.each(lambda plane: plane.reshape(len(plane), -1))

    def finite(self) -> NDArray[np.bool_]:
        """Return where data and variance are finite."""
        finite = np.isfinite(self.data)
        if self.variance is not None:
            finite &= np.isfinite(self.variance)
        return finite


@dataclass(frozen=True, slots=True)
class Inputs:
    """N planes of data with their variances and masks, and how they are scaled.

    Attributes
    ----------
    data, variance, mask : list of RowSource, or None
        None if no input has such a plane; single masks may be None too.
    scale, zero : ndarray of float64
        Factors and offsets ``(N,)``.
    """

    data: list[RowSource]
    variance: list[RowSource] | None
    mask: list[RowSource | None] | None
    scale: NDArray[np.float64]
    zero: NDArray[np.float64]

    @classmethod
    def checked(
        cls,
        data: Sequence[RowSource] | NDArray[Any],
        variance: Sequence[RowSource] | NDArray[Any] | None,
        mask: Sequence[RowSource | None] | NDArray[Any] | None,
        scale: Numbers | None,
        zero: Numbers | None,
    ) -> Inputs:
        """Check that planes and numbers belong together.

        Raises
        ------
        ParameterError
            If a sequence has another length than `data`, or a number cannot be used.
        DataError
            If there are no planes or shapes differ.
        """
        n = len(data)
        if not n:
            raise DataError("there is nothing to combine", found="no planes", expected="at least one")
        shape = tuple(data[0].shape)
        if len(shape) != 2:
            raise DataError("a plane must have two dimensions", found=shape, expected="(ny, nx)")
        for name, planes in (("data", data), ("variance", variance), ("mask", mask)):
            if planes is not None:
                _check_planes(name, planes, n, shape)
        return cls(
            list(data),
            None if variance is None else list(variance),
            None if mask is None or all(plane is None for plane in mask) else list(mask),
            np.ones(n) if scale is None else per_input("scale", scale, n),
            np.zeros(n) if zero is None else per_input("zero", zero, n),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        ny, nx = self.data[0].shape
        return ny, nx

    def select(self, members: Sequence[int]) -> Inputs:
        """Return some of the inputs."""
        return replace(
            self,
            data=[self.data[k] for k in members],
            variance=None if self.variance is None else [self.variance[k] for k in members],
            mask=None if self.mask is None else [self.mask[k] for k in members],
            scale=self.scale[list(members)],
            zero=self.zero[list(members)],
        )

    def read(self, rows: slice) -> Planes:
        """Stack some rows of all inputs, scaled, ``(N, rows, nx)``."""
        shape = (len(self.data), rows.stop - rows.start, self.shape[1])
        data = np.empty(shape, np.float32)
        variance = None if self.variance is None else np.empty(shape, np.float32)
        mask = None if self.mask is None else np.empty(shape, np.uint16)
        for k, (scale, zero) in enumerate(zip(self.scale, self.zero, strict=True)):
            factor, offset = np.float32(scale), np.float32(zero)
            data[k] = self.data[k][rows]
            if factor != 1:
                data[k] *= factor
            if offset != 0:
                data[k] += offset
            if self.variance is not None and variance is not None:
                variance[k] = self.variance[k][rows]
                if factor != 1:
                    variance[k] *= factor**2
            if self.mask is not None and mask is not None:
                flags = self.mask[k]
                mask[k] = 0 if flags is None else flags[rows]
        return Planes(data, variance, mask)


def _check_planes(
    name: str, planes: Sequence[RowSource | None] | NDArray[Any], n: int, shape: tuple[int, ...]
) -> None:
    if len(planes) != n:
        raise ParameterError("one plane an input is needed", item=name, found=len(planes), expected=n)
    for index, plane in enumerate(planes):
        if plane is not None and tuple(plane.shape) != shape:
            raise DataError(
                "planes to combine must have the same shape",
                item=f"{name} of input {index}",
                found=tuple(plane.shape),
                expected=shape,
            )


def per_input(item: str, values: Numbers, n: int) -> NDArray[np.float64]:
    """Return one finite number an input; those of the item "scale" must be positive."""
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (n,) or not np.isfinite(numbers).all() or (item == "scale" and (numbers <= 0).any()):
        raise ParameterError(
            "one usable number an input is needed",
            item=item,
            found=numbers.tolist(),
            expected=f"{n} finite numbers" + (" above 0" if item == "scale" else ""),
        )
    return numbers
