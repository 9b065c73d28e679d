"""What differs between the kinds of database that a calibration store can be kept in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from niripipe.cal_service.tables import Layout

__all__ = ["BUSY_SECONDS", "STORE_MARK", "Backend", "Connection", "Dialect", "Owner", "Trouble"]

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


class Dialect(NamedTuple):
    """How a kind of database writes what is not written the same in all.

    Attributes
    ----------
    value : str
        What stands in a statement for a value.
    number : str
        Type of a key that the database counts up, never using a number twice.
    time : str
        Type of a date and time without time zone.
    """

    value: str
    number: str
    time: str


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection in a transaction; statements are written with ``?`` for values, whatever the database.

    Parameters
    ----------
    driver : object
        Connection of the driver, as in PEP 249; it also has `execute`, as `sqlite3` and psycopg do.
    dialect : Dialect
        Of the database.
    """

    driver: Any
    dialect: Dialect

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query and return what it finds."""
        found: list[tuple[Any, ...]] = self.driver.execute(self._translated(statement), values).fetchall()
        return found

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that finds nothing."""
        self.driver.execute(self._translated(statement), values)

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement with the values of each row."""
        if rows:
            self.driver.cursor().executemany(self._translated(statement), rows)

    def _translated(self, statement: str) -> str:
        return statement.replace("?", self.dialect.value)


class Backend(ABC):
    """One kind of database."""

    dialect: ClassVar[Dialect]
    """How its statements are written."""

    def exists(self) -> bool:
        """Return whether there is something to connect to; a server is found out about by connecting."""
        return True

    def prepare(self) -> None:  # noqa: B027
        """Make the folder for a new store; databases on a server are made by whoever runs it.

        Raises
        ------
        StorageError
            It cannot be made.
        """

    @abstractmethod
    def connect(self, *, write: bool) -> Any:
        """Return a new connection of the driver: as a context manager it ends the transaction."""

    @abstractmethod
    def begin(self, connection: Connection, *, write: bool) -> None:
        """Begin a transaction; a writer then has the store for itself, but for readers."""

    @abstractmethod
    def layout(self, connection: Connection) -> Layout:
        """Return the tables that are there and may matter to a store."""

    @abstractmethod
    def owner(self, connection: Connection, layout: Layout, version: str | None) -> Owner:
        """Return whose they are; `version` is what a table about the store says, if there is one."""

    def mark(self, connection: Connection) -> None:  # noqa: B027
        """Note that the tables, just created, are ours; on a server the table about the store says so."""

    @abstractmethod
    def trouble(self, error: Exception) -> Trouble | None:
        """Return what an error of the database means; None if it is another error."""

    @abstractmethod
    def foreign(self) -> Trouble:
        """Return what to say when another program's tables are in the way."""

    def discard_damaged(self) -> bool:
        """Delete a store that is ours but damaged beyond use; return whether that was done.

        Raises
        ------
        StorageError
            It cannot be deleted.
        """
        return False
