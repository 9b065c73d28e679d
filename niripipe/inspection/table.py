"""A small table: rows for scripts, aligned text for terminals, HTML for notebooks."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any

from niripipe.astrodata.display import html_cell, html_list
from niripipe.errors import InputError
from niripipe.printable import printable

__all__ = ["Table"]

_GAP = "   "
_WRAP = 72
"""Longest line of a cell in print; longer texts are wrapped."""


class Table(list[dict[str, Any]]):
    """Rows of named values that print well and render in a notebook.

    Parameters
    ----------
    columns : sequence of str
        The columns that are shown, in order.
    rows : iterable of mappings
        Each with at least these columns. Further entries are kept in the rows without being shown.
    title : str
        A line above the table.
    notes : iterable of str
        Lines below it.
    right : collection of str, optional
        Columns that are aligned at the right; by default those that hold nothing but numbers.
    units : mapping of str to str, optional
        Units of columns, shown in HTML.

    Attributes
    ----------
    columns, title, notes, units
        As given.

    Examples
    --------
    >>> table = Table(["name", "frames"], [{"name": "dark", "frames": 10}, {"name": "flat", "frames": 20}])
    >>> table[1]["frames"], table.column("name")
    (20, ['dark', 'flat'])
    >>> print(table)
    -------------
    name   frames
    -------------
    dark       10
    flat       20
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Mapping[str, Any]],
        *,
        title: str = "",
        notes: Iterable[str] = (),
        right: Collection[str] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.title = title
        self.notes = tuple(notes)
        self.units = dict(units or {})
        super().__init__(dict(row) for row in rows)
        self._right = frozenset(filter(self._is_numeric, self.columns) if right is None else right)

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, from the first row to the last.

        Raises
        ------
        InputError
            There is no such column.
        """
        known = list(self.columns) + [key for row in self[:1] for key in row if key not in self.columns]
        if name not in known:
            raise InputError("There is no such column", item="column", found=name, expected=", ".join(known))
        return [row[name] for row in self]

    def to_csv(self) -> str:
        """Return the columns shown as comma-separated text with a header line; None is empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_text(row[name], none="") for name in self.columns] for row in self)
        return stream.getvalue()

    def __str__(self) -> str:
        cells = [[_wrapped(_text(row[name])) for name in self.columns] for row in self]
        widths = [
            max(len(line) for text in column for line in text.split("\n"))
            for column in zip(self.columns, *cells, strict=True)
        ]
        rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
        lines = [self.title] if self.title else []
        lines += [rule, *self._lines(self.columns, widths), rule]
        lines += [line for row in cells for line in self._lines(row, widths)]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(
            html_cell(self._head(name), right=name in self._right, tag="th") for name in self.columns
        )
        body = "".join(
            "<tr>" + "".join(self._html_cell(name, row[name]) for name in self.columns) + "</tr>"
            for row in self
        )
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        notes = html_list(self.notes) if self.notes else ""
        return f"<table>{caption}<tr>{head}</tr>{body}</table>{notes}"

    def _head(self, name: str) -> str:
        return f"{name} ({self.units[name]})" if name in self.units else name

    def _is_numeric(self, name: str) -> bool:
        values = [row[name] for row in self if row[name] is not None]
        return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)

    def _html_cell(self, name: str, value: Any) -> str:
        return html_cell(_text(value), right=name in self._right)

    def _lines(self, texts: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        """Return one table row as text; a cell of several lines makes a row of several lines."""
        for parts in zip_longest(*(text.split("\n") for text in texts), fillvalue=""):
            cells = zip(self.columns, parts, widths, strict=True)
            yield _GAP.join(
                part.rjust(width) if name in self._right else part.ljust(width) for name, part, width in cells
            ).rstrip()


def _text(value: Any, none: str = "None") -> str:
    if value is None:
        return none
    if isinstance(value, (set, frozenset)):
        value = tuple(sorted(map(str, value)))
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return printable(text, lines=True)


def _wrapped(text: str) -> str:
    wrap = textwrap.TextWrapper(_WRAP, break_long_words=False, break_on_hyphens=False).wrap
    return "\n".join("\n".join(wrap(line)) for line in text.split("\n"))
