"""Tables and arrays of a data set and of its extensions, as upper-case attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from niripipe.astrodata.conversion import check_attachment_name
from niripipe.astrodata.provenance import HistoryRecord, ProvenanceRecord, Records
from niripipe.astrodata.slices import Slices
from niripipe.astrodata.tables import HeldTable, copied_table, is_table
from niripipe.errors import InputError

__all__ = ["Attachments"]

_RECORDS = ("HISTORY", "PROVENANCE")


class Attachments(Slices):
    """Tables and arrays by name; see `niripipe.astrodata.AstroData`."""

    @property
    def tables(self) -> set[str]:
        """Names of the tables of the data set."""
        return set(self._parts.tables) | self._parts.records.names()

    @property
    def ext_tables(self) -> set[str]:
        """Names of the tables of a single extension."""
        return self._only("ext_tables").tables

    @property
    def exposed(self) -> set[str]:
        """Names of all tables and arrays that are attributes here."""
        return self.tables | (set(self._extension.extras) if self._single else set())

    @property
    def records(self) -> Records:
        """What keeps history and provenance."""
        return self._parts.records

    @property
    def history(self) -> list[HistoryRecord]:
        """The processing steps, in order; may be appended to."""
        return self._parts.records.history

    @property
    def provenance(self) -> list[ProvenanceRecord]:
        """The contributing files, in order; may be appended to."""
        return self._parts.records.provenance

    def table(self) -> dict[str, Any]:
        """Return the tables of the data set, by name."""
        return {name: getattr(self, name) for name in sorted(self.tables)}

    def table_sizes(self) -> dict[str, str]:
        """Return the size of each table of the data set as text."""
        sizes = {}
        for name in self.tables:
            is_record = name in _RECORDS
            rows: Any = self._parts.records.rows(name) if is_record else self._parts.tables[name].columns()
            sizes[name] = f"({len(rows)}, {len(rows.dtype.names)})"
        return sizes

    def _get_attached(self, name: str) -> Any:
        own = getattr(type(self), name, None)
        if isinstance(own, property) and own.fget is not None:
            # The property said that it is not there for several extensions; let its own words be heard.
            return own.fget(self)
        if name != name.upper() or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if self._single and name in self._extension.extras:
            return self._extension.get_extra(name)
        if name in self._parts.tables:
            return self._parts.tables[name].hand_out()
        if name in self._parts.records.names():
            return self._parts.records.table(name)
        raise AttributeError(
            f"there is no {name!r}; there are {', '.join(sorted(self.exposed)) or 'no tables'}"
        )

    def _set_any(self, name: str, value: Any) -> None:
        if name == name.upper() and not name.startswith("_"):
            self._set_upper(name, value)
        elif (
            self.__dict__.get("_indices") is not None
            and not name.startswith("_")
            and not hasattr(type(self), name)
        ):
            raise AttributeError(
                f"{name!r} would be lost with this slice; {type(self).__name__} has no such attribute"
            )
        else:
            super().__setattr__(name, value)

    if not TYPE_CHECKING:
        # Type checkers know the names that `Declared` lists, and so find misspelt ones.
        __getattr__ = _get_attached
        __setattr__ = _set_any

    def __delattr__(self, name: str) -> None:
        if name != name.upper() or name.startswith("_"):
            super().__delattr__(name)
        elif self._single:
            self._extension.remove_extra(name)
        elif name in self._parts.records.names() and not self.is_sliced:
            self._parts.records.replace(name, None)
        elif name in self._parts.tables and not self.is_sliced:
            del self._parts.tables[name]
        else:
            raise AttributeError(f"there is no {name!r} to delete here")

    def _set_upper(self, name: str, value: Any) -> None:
        if self._single:
            if name in self.tables:
                raise InputError("the data set has a table of this name", item=name)
            self._extension.set_extra(name, value)
            return
        check_attachment_name(name)
        if self.is_sliced:
            raise InputError(
                "a table can be given to a whole data set or to one extension",
                item=name,
                remedy="Use ad or ad[0].",
            )
        if any(name in extension.extras for extension in self._parts.extensions):
            raise InputError("an extension has a table or array of this name", item=name)
        if not is_table(value):
            raise InputError(
                "only tables can belong to a whole data set",
                item=name,
                found=type(value).__name__,
                expected="astropy.table.Table",
                remedy="Arrays belong to an extension: ad[0].NAME = array.",
            )
        if name in _RECORDS:
            self._parts.records.replace(name, value)
        else:
            self._parts.tables[name] = HeldTable(copied_table(name, value))

    def columns(self, name: str) -> Any:
        """Return the columns of a table for reading only, without making an astropy table of them.

        Parameters
        ----------
        name : str
            A table of the data set, or of the extension if this is a single slice.

        Returns
        -------
        numpy.ndarray or astropy.table.Table
            Either gives a column by its name, and its length is the number of rows.

        Raises
        ------
        AttributeError
            There is no table of that name.
        """
        held = self._parts.tables.get(name)
        return (self._only("columns").table(name) if held is None else held).columns()

    def set_columns(self, name: str, columns: Mapping[str, Any]) -> None:
        """Replace columns of a table of a single extension, or add them."""
        self._only("set_columns").table(name).set_columns(columns)
