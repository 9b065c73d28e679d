"""Arithmetic on extensions: values, variances and masks together, in blocks of rows.

Errors are treated as independent. A missing variance counts as exact; if neither side has one, the
result has none. Masks are combined by bitwise OR. Everything is float32.
"""

from __future__ import annotations

import numbers
from copy import deepcopy
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.planes import Plane, row_blocks
from niripipe.errors import InputError

__all__ = ["Operation", "as_operand", "check", "combine", "combine_reflected"]

Operation = Literal["add", "subtract", "multiply", "divide"]
_Array = NDArray[Any]
_Operand = Extension | float | _Array

_UFUNCS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.true_divide}


def as_operand(value: Any) -> float | _Array | None:
    """Return a number or array ready for arithmetic, or None if the value is neither.

    Numbers become Python floats and arrays and lists float32, so that nothing turns a float32 plane into
    a float64 one.

    Raises
    ------
    InputError
        A list or array that does not hold real numbers.
    """
    if isinstance(value, numbers.Real | np.bool_):
        return float(value)
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"dtype {array.dtype}")
    except ValueError as error:
        raise InputError(
            "the operand does not hold real numbers",
            found=str(error),
            expected="numbers, or arrays of numbers",
        ) from error
    return float(array) if array.ndim == 0 else array.astype(np.float32, copy=False)


def check(left: Extension, right: _Operand) -> None:
    """Refuse an operand whose shape does not fit.

    Raises
    ------
    InputError
        It does not broadcast to the shape of `left`.
    """
    if not isinstance(right, float) and not _broadcasts(right.shape, left.shape):
        raise InputError(
            "the operands differ in shape", item="arithmetic", found=right.shape, expected=left.shape
        )


def combine(operation: Operation, left: Extension, right: _Operand, *, in_place: bool) -> Extension:
    """Compute ``left operation right``.

    Parameters
    ----------
    operation : str
        ``add``, ``subtract``, ``multiply`` or ``divide``.
    left : Extension
        Left operand; header, WCS and extras of the result are its own.
    right : Extension, float or numpy.ndarray
        Right operand; arrays have to broadcast to the shape of the left one.
    in_place : bool
        Change `left` and return it; planes that it shares with others are replaced, those it owns are
        written into.

    Returns
    -------
    Extension
        `left`, or a new extension.

    Raises
    ------
    InputError
        The shapes do not fit.

    Notes
    -----
    Variances: ``+ -``: Va + Vb; ``*``: Va b^2 + Vb a^2; ``/``: (Va + Vb (a/b)^2) / b^2 (first-order
    propagation). Division by zero gives inf or NaN in both planes and sets no mask bit.
    """
    check(left, right)
    a, b = left.read("data"), _values(right, left.shape)
    va = left.read("variance")
    vb = right.read("variance") if isinstance(right, Extension) else None
    target = left if in_place else _empty_like(left)
    data, variance = _targets(target, va is not None or vb is not None, in_place)
    with np.errstate(all="ignore"):
        for rows in row_blocks(left.shape[0]):
            _compute(
                operation, a[rows], _cut(b, rows), _cut(va, rows), _cut(vb, rows),
                data[rows], None if variance is None else variance[rows],
            )  # fmt: skip
    _combine_masks(target, left, right, in_place)
    # the keyword is asked first: most operands have it, and building a WCS takes time
    if (
        isinstance(right, Extension)
        and "CTYPE1" not in left.hdr
        and left.sky_mapping is None
        and right.sky_mapping is not None
    ):
        target.sky_mapping = deepcopy(right.sky_mapping)
    return target


def combine_reflected(operation: Operation, left: float | _Array, right: Extension) -> Extension:
    """Compute ``left operation right`` for a number or array on the left; the result is like `right`.

    Notes
    -----
    Variances: ``k - a``: Va; ``k / a``: Va (k / a^2)^2.
    """
    if operation in ("add", "multiply"):
        return combine(operation, right, left, in_place=False)
    check(right, left)
    k, a, va = _values(left, right.shape), right.read("data"), right.read("variance")
    result = _empty_like(right)
    data, variance = _targets(result, va is not None, False)
    with np.errstate(all="ignore"):
        for rows in row_blocks(right.shape[0]):
            x = a[rows]
            _UFUNCS[operation](_cut(k, rows), x, out=data[rows])
            if variance is not None and operation == "divide":
                factor = data[rows] / x
                factor *= factor
                np.multiply(va[rows], factor, out=variance[rows])
            elif variance is not None:
                variance[rows] = va[rows]
    _combine_masks(result, right, 0.0, False)
    return result


def _compute(
    operation: Operation, a: _Array, b: Any, va: Any, vb: Any, data: _Array, variance: _Array | None
) -> None:
    """Compute one block. The results may be the operands themselves, so the order matters."""
    if variance is not None:
        if operation in ("add", "subtract"):
            _sum(va, vb, variance)
        elif operation == "multiply":
            second = None if vb is None else vb * (a * a)
            if va is None:
                variance[...] = second
            else:
                np.multiply(va, b * b, out=variance)
                if second is not None:
                    variance += second
        else:
            second = None if vb is None else vb * np.square(a / b)
            _sum(va, second, variance)
            np.divide(variance, b * b, out=variance)
    _UFUNCS[operation](a, b, out=data)


def _sum(first: Any, second: Any, out: _Array) -> None:
    if first is None or second is None:
        out[...] = first if second is None else second
    else:
        np.add(first, second, out=out)


def _empty_like(extension: Extension) -> Extension:
    """Return an extension with unfilled data and, but for variance and mask, everything of the old one."""
    twin = extension.copy_without_planes()
    twin._planes = {"data": Plane(np.empty(extension.shape, np.float32))}
    return twin


def _targets(target: Extension, with_variance: bool, in_place: bool) -> tuple[_Array, _Array | None]:
    """Return the arrays to write into; a plane that is missing, or shared with others, is allocated."""
    planes = target._planes
    for name in ("data", "variance") if with_variance else ("data",):
        if name not in planes or (in_place and planes[name].is_shared):
            planes[name] = Plane(np.empty(target.shape, np.float32))
    return planes["data"].own(), planes["variance"].own() if with_variance else None


def _values(operand: _Operand, shape: tuple[int, ...]) -> Any:
    if isinstance(operand, float):
        return operand
    return np.broadcast_to(operand.read("data") if isinstance(operand, Extension) else operand, shape)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(length in (1, target) for length, target in pairs)


def _combine_masks(target: Extension, left: Extension, right: Any, in_place: bool) -> None:
    mine = left._planes.get("mask")
    theirs = right._planes.get("mask") if isinstance(right, Extension) else None
    if mine is None or theirs is None:
        present = mine or theirs
        if present is not None and not (in_place and theirs is None):
            target._planes["mask"] = present.copy()
    elif in_place and not mine.is_shared:
        np.bitwise_or(mine.own(), theirs.read(), out=mine.own())
    else:
        target._planes["mask"] = Plane(np.bitwise_or(mine.read(), theirs.read()))


def _cut(values: Any, rows: slice) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else values
