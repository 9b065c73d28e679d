"""Tables as structured arrays, which become astropy tables on request.

The import of `astropy.table` takes longer than anything that a reduction does with its tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.planes import Held
from niripipe.astrodata.quiet import filters_kept
from niripipe.errors import InputError

__all__ = ["HeldTable", "as_rows", "copied_table", "is_rows", "is_table"]

_KINDS = "biufcSU"
"""Kinds of numpy types that a column of a FITS table can hold."""
_LARGEST = {"f": 8, "c": 16}
"""Bytes of the largest numbers that FITS has."""


def is_rows(value: Any) -> bool:
    """Return whether a value is a one-dimensional structured array."""
    return type(value) is np.ndarray and value.dtype.names is not None and value.ndim == 1


def is_table(value: Any) -> bool:
    """Return whether a value is an astropy table or a structured array, without importing astropy.table."""
    return is_rows(value) or (
        hasattr(value, "colnames") and hasattr(value, "columns") and hasattr(value, "meta")
    )


def as_rows(columns: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """Return columns of one length as a structured array, shape (n,).

    Parameters
    ----------
    columns : mapping of str to array_like
        Each keeps its dtype, and its shape behind the first axis.
    """
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    dtype = np.dtype([(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    rows = np.empty(len(next(iter(arrays.values()))), dtype)
    for name, array in arrays.items():
        rows[name] = array
    return rows


def copied_table(name: str, value: Any) -> Any:
    """Return a copy of a table, after a look at whether a FITS table can hold its columns.

    Parameters
    ----------
    name : str
        Name of the table, for errors.
    value : astropy.table.Table or structured ndarray

    Raises
    ------
    InputError
        A column holds objects (`SkyCoord`, `Time`, records, Python objects), or its name is not ASCII.
    """
    columns = value.dtype.names if is_rows(value) else value.colnames
    for column in columns:
        _check_column(f"{name}[{column!r}]", column, value[column])
    return value.copy()


def _check_column(item: str, column: str, values: Any) -> None:
    if not (column and column.isascii() and column.isprintable()):
        raise InputError("the name of a table column has to be printable ASCII", item=item)
    dtype: Any = getattr(values, "dtype", None)
    usable = dtype is not None and dtype.kind in _KINDS
    if not usable or dtype.itemsize > _LARGEST.get(dtype.kind, dtype.itemsize):
        raise InputError(
            "a FITS table cannot hold this column",
            item=item,
            found=type(values).__name__ + (f" of {dtype}" if dtype is not None else ""),
            expected="numbers, booleans, texts, or a Quantity",
            remedy="Give plain columns: coord.ra.deg and coord.dec.deg, time.isot, column.astype(str).",
        )


class HeldTable(Held[Any]):
    """A handle on a table, which may be a structured array still.

    Parameters
    ----------
    value : structured ndarray or astropy.table.Table, optional
        The table; the handle takes ownership.
    loader : callable, optional
        Called without arguments for the table on first use, when `value` is not given.
    units : mapping of str to str, optional
        Units of the columns of a structured array, which cannot hold them.
    """

    def __init__(
        self,
        value: Any = None,
        loader: Callable[[], Any] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(value, loader)
        self._units = dict(units or {})

    @property
    def units(self) -> dict[str, str]:
        """Units of columns that the table does not know itself: a structured array has none."""
        value = super().read()
        return {n: u for n, u in self._units.items() if n in value.dtype.names} if is_rows(value) else {}

    def columns(self) -> Any:
        """Return what gives columns by name, for reading only, without making an astropy table.

        Returns
        -------
        numpy.ndarray or astropy.table.Table
            A read-only view of the structured array, or the table if there is one.
        """
        value = super().read()
        if is_rows(value):
            value = value.view()
            value.flags.writeable = False
        return value

    def set_columns(self, columns: Mapping[str, ArrayLike]) -> None:
        """Replace columns, or add them; other owners of the table do not see it."""
        value = super().read()
        if is_rows(value):
            self._replace(as_rows({name: value[name] for name in value.dtype.names} | dict(columns)))
            return
        table = self.own()
        for name, values in columns.items():
            unit = table[name].unit if name in table.colnames else None
            table[name] = values
            if unit is not None and table[name].unit is None:
                table[name].unit = unit

    def read(self) -> Any:
        """Return the astropy table, for reading only."""
        if is_rows(super().read()):
            shared = self._shared
            with shared.lock:
                if is_rows(shared.value):
                    from astropy.table import Table

                    with filters_kept():
                        shared.value = Table(shared.value, units=self.units)
        return super().read()

    def own(self) -> Any:
        """Return the astropy table for changing in place; what is shared is copied first."""
        self.read()
        return super().own()
