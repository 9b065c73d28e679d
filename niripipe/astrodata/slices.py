"""Data sets and their slices: what they share, and how an index chooses extensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self, cast, overload

import numpy as np

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.provenance import Records
from niripipe.astrodata.tables import HeldTable

if TYPE_CHECKING:
    from niripipe.astrodata.declared import SingleSlice

__all__ = ["NotSingleError", "Parts", "Slices"]


class NotSingleError(AttributeError, ValueError):
    """Something of one extension was asked of several.

    It is an `AttributeError`, so that `hasattr` and `inspect.getmembers` find that it is not there.
    """


class Parts:
    """What a data set and all slices of it have in common."""

    def __init__(self, phu: WatchedHeader) -> None:
        self.phu = phu
        self.extensions: list[Extension] = []
        self.tables: dict[str, HeldTable] = {}
        self.records = Records()
        self.path: str | None = None
        self.orig_filename: str | None = None
        self.read_from: str | None = None
        self.tag_cache: tuple[object, frozenset[str]] | None = None


class Slices:
    """Indexing of data sets; see `niripipe.astrodata.AstroData`."""

    _parts: Parts
    _indices: tuple[int, ...] | None
    _single: bool

    def __len__(self) -> int:
        return len(self._parts.extensions) if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> SingleSlice: ...

    @overload
    def __getitem__(self, index: slice | tuple[int, ...] | list[int]) -> Self: ...

    def __getitem__(self, index: int | slice | tuple[int, ...] | list[int]) -> Any:
        if self._single:
            raise TypeError("a single extension cannot be sliced")
        own = self.indices
        if isinstance(index, slice):
            return self._over(self._parts, tuple(own[index]))
        if isinstance(index, tuple | list) and index:
            return self._over(self._parts, tuple(own[self._position(i)] for i in index))
        return self._over(self._parts, (own[self._position(index)],), single=True)

    def __delitem__(self, index: int) -> None:
        if self.is_sliced:
            raise TypeError("extensions can be removed from a whole data set only, not from a slice")
        del self._parts.extensions[self._position(index)]
        self._parts.tag_cache = None

    def __iter__(self) -> Iterator[SingleSlice]:
        if self._single:
            yield cast("SingleSlice", self)
        else:
            yield from (self[i] for i in range(len(self)))

    @property
    def is_single(self) -> bool:
        """Whether this is one extension, from an index that is an integer."""
        return self._single

    @property
    def is_sliced(self) -> bool:
        """Whether this is a slice of a data set."""
        return self._indices is not None

    @property
    def indices(self) -> list[int]:
        """Positions of these extensions in the whole data set."""
        return list(range(len(self._parts.extensions)) if self._indices is None else self._indices)

    @property
    def id(self) -> int:
        """Number of the extension in the whole data set, from 1; single slices only."""
        if self._indices is None or not self._single:
            raise NotSingleError("only a single extension has an id; use a single one, as in ad[0]")
        return self._indices[0] + 1

    @property
    def extensions(self) -> list[Extension]:
        """The extension objects themselves."""
        return [self._parts.extensions[i] for i in self.indices]

    # ---- for the other parts of a data set

    @property
    def _extension(self) -> Extension:
        if self._indices is None:
            raise NotSingleError("this is a whole data set; use a single extension, as in ad[0]")
        return self._parts.extensions[self._indices[0]]

    def _only(self, what: str) -> Extension:
        if not self._single:
            raise NotSingleError(
                f"{what} of several extensions at once is not possible; use a single one, as in ad[0]"
            )
        return self._extension

    def _each(self, get: Callable[[Extension], Any]) -> Any:
        if self._single:
            return get(self._extension)
        return [get(extension) for extension in self.extensions]

    @classmethod
    def _over(cls, parts: Parts, indices: tuple[int, ...] | None = None, *, single: bool = False) -> Self:
        """Return a data set of these parts, or a slice of it; nothing is copied."""
        ad = cls.__new__(cls)
        ad._parts, ad._indices, ad._single = parts, indices, single
        return ad

    def _like(self, extensions: list[Extension]) -> Self:
        """Return a whole data set with the header, tables and name of this one and other extensions."""
        old = self._parts
        new = Parts(old.phu.copy())
        new.extensions = extensions
        for extension in extensions:
            extension._phu = new.phu
        new.tables = {name: held.copy() for name, held in old.tables.items()}
        new.records = old.records.copy()
        new.path, new.orig_filename, new.read_from = old.path, old.orig_filename, old.read_from
        return self._over(new)

    def _position(self, index: Any) -> int:
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise ValueError(f"an index has to be an integer, a slice or a tuple of integers, not {index!r}")
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no extension {index}; there are {len(self)}")
        return int(index) % len(self)

    def _refuse_slice(self, what: str) -> None:
        if self._indices is not None:
            raise AttributeError(f"{what} belongs to the whole data set and cannot be set on a slice")
