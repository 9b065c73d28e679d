"""Operators of data sets: ``+ - * /`` and their forms in place."""

from __future__ import annotations

from typing import Any, Self

from niripipe.astrodata import arithmetic
from niripipe.astrodata.extension import Extension
from niripipe.astrodata.slices import Slices
from niripipe.errors import DataError, InputError

__all__ = ["Operators"]


class Operators(Slices):
    """Arithmetic, extension by extension; see `niripipe.astrodata.AstroData`."""

    # numpy has to leave arithmetic with arrays on the left to this class
    __array_ufunc__ = None

    def add(self, operand: Any) -> Self:
        """Add a number, array or data set in place."""
        return self._changed("add", operand)

    def subtract(self, operand: Any) -> Self:
        """Subtract a number, array or data set in place."""
        return self._changed("subtract", operand)

    def multiply(self, operand: Any) -> Self:
        """Multiply by a number, array or data set in place."""
        return self._changed("multiply", operand)

    def divide(self, operand: Any) -> Self:
        """Divide by a number, array or data set in place."""
        return self._changed("divide", operand)

    def __iadd__(self, operand: Any) -> Self:
        return self._in_place("add", operand)

    def __isub__(self, operand: Any) -> Self:
        return self._in_place("subtract", operand)

    def __imul__(self, operand: Any) -> Self:
        return self._in_place("multiply", operand)

    def __itruediv__(self, operand: Any) -> Self:
        return self._in_place("divide", operand)

    def __add__(self, operand: Any) -> Self:
        return self._binary("add", operand)

    def __sub__(self, operand: Any) -> Self:
        return self._binary("subtract", operand)

    def __mul__(self, operand: Any) -> Self:
        return self._binary("multiply", operand)

    def __truediv__(self, operand: Any) -> Self:
        return self._binary("divide", operand)

    def __radd__(self, operand: Any) -> Self:
        return self._reflected("add", operand)

    def __rsub__(self, operand: Any) -> Self:
        return self._reflected("subtract", operand)

    def __rmul__(self, operand: Any) -> Self:
        return self._reflected("multiply", operand)

    def __rtruediv__(self, operand: Any) -> Self:
        return self._reflected("divide", operand)

    def _changed(self, operation: arithmetic.Operation, operand: Any) -> Self:
        if self._in_place(operation, operand) is NotImplemented:
            raise InputError(
                f"{operation} does not work with this",
                found=type(operand).__name__,
                expected="a number, an array, or a data set",
            )
        return self

    def _in_place(self, operation: arithmetic.Operation, operand: Any) -> Self:
        others = self._operands(operand)
        if others is None:
            return NotImplemented  # type: ignore[no-any-return]
        for extension, other in zip(self.extensions, others, strict=True):
            arithmetic.check(extension, other)
        for extension, other in zip(self.extensions, others, strict=True):
            arithmetic.combine(operation, extension, other, in_place=True)
        return self

    def _binary(self, operation: arithmetic.Operation, operand: Any) -> Self:
        others = self._operands(operand)
        if others is None:
            return NotImplemented  # type: ignore[no-any-return]
        pairs = zip(self.extensions, others, strict=True)
        return self._like(
            [arithmetic.combine(operation, mine, other, in_place=False) for mine, other in pairs]
        )

    def _reflected(self, operation: arithmetic.Operation, operand: Any) -> Self:
        value = arithmetic.as_operand(operand)
        if value is None:
            return NotImplemented  # type: ignore[no-any-return]
        return self._like([arithmetic.combine_reflected(operation, value, mine) for mine in self.extensions])

    def _operands(self, operand: Any) -> list[Any] | None:
        if isinstance(operand, Slices):
            if len(operand) != len(self):
                raise DataError(
                    "the data sets differ in their number of extensions",
                    file=operand._parts.path,
                    found=len(operand),
                    expected=len(self),
                )
            return list(operand.extensions)
        value = operand if isinstance(operand, Extension) else arithmetic.as_operand(operand)
        return None if value is None else [value] * len(self)
