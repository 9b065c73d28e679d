"""What differs between the kinds of database that a calibration store can be kept in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import sqlalchemy as sa

    from niripipe.cal_service.tables import Layout

__all__ = ["BUSY_SECONDS", "STORE_MARK", "Backend", "Owner", "Trouble"]

Owner = Literal["nobody", "niripipe", "another"]
"""Whose tables are there, as far as it matters to a store."""

BUSY_SECONDS = 60.0
"""How long a writer waits for another one."""

STORE_MARK = 0x4E495249
"""The letters NIRI: the application number of an SQLite file, the number of the lock on a server."""


class Trouble(NamedTuple):
    """What went wrong in a database, for people to read.

    Attributes
    ----------
    problem, remedy : str
        As in `niripipe.errors.NiripipeError`.
    """

    problem: str
    remedy: str


class Backend(Protocol):
    """One kind of database."""

    @property
    def path(self) -> Path | None:
        """The file of the store; None for a server."""

    def exists(self) -> bool:
        """Return whether there is something to connect to; a server is found out about by connecting."""

    def prepare(self) -> None:
        """Make the place for a new store.

        Raises
        ------
        StorageError
            It cannot be made.
        """

    def engine(self, *, write: bool) -> sa.Engine:
        """Return an engine that keeps no connection open."""

    def begin(self, connection: sa.Connection, *, write: bool) -> None:
        """Begin a transaction; a writer then has the store for itself, but for readers."""

    def layout(self, connection: sa.Connection) -> Layout:
        """Return the tables that are there and may matter to a store."""

    def owner(self, connection: sa.Connection, layout: Layout, version: str | None) -> Owner:
        """Return whose they are; `version` is what a table about the store says, if there is one."""

    def mark(self, connection: sa.Connection) -> None:
        """Note that the tables, just created, are ours."""

    def trouble(self, error: Exception) -> Trouble:
        """Return what an error of the database means."""

    def foreign(self) -> Trouble:
        """Return what to say when another program's tables are in the way."""

    def discard_damaged(self) -> bool:
        """Delete a store that is ours but damaged beyond use; return whether that was done.

        Raises
        ------
        StorageError
            It cannot be deleted.
        """
