"""From what callers give to planes and attachments of an extension, with one check for each kind."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.dq import DQ
from niripipe.astrodata.planes import Held, Plane
from niripipe.astrodata.tables import HeldTable, copied_table, is_table
from niripipe.errors import InputError

__all__ = ["PLANE_DTYPES", "as_attachment", "as_plane", "check_attachment_name", "check_shape", "masked_bits"]

PLANE_DTYPES: dict[str, np.dtype[Any]] = {
    "data": np.dtype(np.float32),
    "variance": np.dtype(np.float32),
    "mask": np.dtype(np.uint16),
}
_RESERVED = frozenset({"SCI", "VAR", "DQ"})


def check_attachment_name(name: str) -> None:
    """Refuse names that attached tables and arrays cannot have."""
    if name in _RESERVED:
        raise InputError(
            f"{name} cannot be set as an attribute",
            item=name,
            remedy="Use data, variance or mask, or append().",
        )
    if not name.isidentifier() or name != name.upper() or name.startswith("_"):
        raise InputError("the name of a table or array has to be upper case", item=name)


def as_attachment(name: str, value: Any, units: Mapping[str, str] | None = None) -> Held[Any]:
    """Return a handle on an array or table to be attached; a `Plane` is shared, a table copied.

    Raises
    ------
    InputError
        The value, or a column of it, is something else, which could not be written.
    """
    if isinstance(value, Plane):
        return value.copy()
    if is_table(value):
        return HeldTable(copied_table(name, value), units=units)
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
        return Plane(value)
    raise InputError(
        "only arrays of numbers and astropy tables can be attached",
        item=name,
        found=type(value).__name__,
        expected="numpy.ndarray or astropy.table.Table",
    )


def as_plane(value: Any, name: str) -> Plane:
    """Return a plane of the right dtype; an array that has it is taken over, a `Plane` is shared.

    Raises
    ------
    InputError
        The value is not a two-dimensional image, or a mask holds values that are not bits.
    """
    if isinstance(value, Plane):
        if len(value.shape) == 2 and value.dtype == PLANE_DTYPES[name]:
            return value.copy()
        value = value.read()
    try:
        values = np.asarray(value)
    except ValueError as error:
        raise InputError("this is not an image", item=name, found=str(error)) from error
    if values.dtype.kind not in "biuf" or values.ndim != 2:
        raise InputError(
            "this is not an image",
            item=name,
            found=f"shape {values.shape}, dtype {values.dtype}",
            expected="a two-dimensional array of real numbers",
        )
    if name == "mask" and values.dtype not in (np.uint16, np.uint8, bool):
        _check_bits(values)
    array = np.ascontiguousarray(values, dtype=PLANE_DTYPES[name])
    if not array.flags.writeable:
        array = array.copy()
    if name == "variance":
        _remove_negative(array)
    return Plane(array)


def masked_bits(data: Any, mask: Any) -> Any:
    """Return a mask with the bit of bad pixels where a masked array is masked, else `mask`."""
    if not isinstance(data, np.ma.MaskedArray) or not np.ma.is_masked(data):
        return mask
    masked = np.ma.getmaskarray(data).astype(np.uint16) * np.uint16(DQ.bad_pixel)
    return masked if mask is None else np.asarray(mask) | masked


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse a plane of another shape than the extension's.

    Raises
    ------
    InputError
        It has another shape.
    """
    if found != expected:
        raise InputError(
            "the planes of an extension have one shape",
            item=name,
            found=found,
            expected=expected,
            remedy="Use reset() to replace all planes at once.",
        )


def _check_bits(values: NDArray[Any]) -> None:
    is_bits = values.dtype.kind in "iu" and (
        not values.size or (int(values.min()) >= 0 and int(values.max()) <= 65535)
    )
    if values.size and not is_bits:
        raise InputError(
            "a mask holds bits, as integers from 0 to 65535",
            item="mask",
            found=f"{values.dtype}, {values.min()} to {values.max()}",
        )


def _remove_negative(variance: NDArray[Any]) -> None:
    if variance.size and np.fmin.reduce(variance, axis=None) < 0:
        negative = variance < 0
        logging.getLogger(__name__).warning("%d negative variances are set to 0", int(negative.sum()))
        variance[negative] = 0
