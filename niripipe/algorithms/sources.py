"""What stands for a plane that need not be in memory: an array, a memory map, something that reads a file."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["PlaneSource", "RowSource", "Section"]

Section = tuple[slice, slice]


class RowSource(Protocol):
    """A plane that gives its rows on demand.

    With several threads it is asked for different rows at the same time.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(ny, nx)``."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the rows of a slice with a positive step as ``(rows, nx)``; they are not to be changed."""
        ...


class PlaneSource(Protocol):
    """A plane that gives a part of itself on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(ny, nx)``."""
        ...

    def __getitem__(self, section: Section, /) -> NDArray[Any]:
        """Return some rows and columns; they are not to be changed."""
        ...
