"""Tables as structured arrays, which become astropy tables on request.

The import of `astropy.table` takes longer than anything that a reduction does with its tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.planes import Held

__all__ = ["HeldTable", "as_rows", "is_rows", "is_table"]


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


class HeldTable(Held[Any]):
    """A handle on a table, which may be a structured array still."""

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
            table[name] = values

    def read(self) -> Any:
        """Return the astropy table, for reading only."""
        if is_rows(super().read()):
            shared = self._shared
            with shared.lock:
                if is_rows(shared.value):
                    from astropy.table import Table

                    shared.value = Table(shared.value)
        return super().read()

    def own(self) -> Any:
        """Return the astropy table for changing in place; what is shared is copied first."""
        self.read()
        return super().own()
