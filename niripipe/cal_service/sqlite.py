"""A calibration store in an SQLite file.

The file is the store's alone and says so in its header; what lacks the mark is never written to, unless it is
empty. Writers take SQLite's write lock when the transaction begins, not at the first change, so what was read
within it still holds when it is written.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from niripipe.cal_service.backend import (
    BUSY_SECONDS,
    STORE_MARK,
    Backend,
    Connection,
    Dialect,
    Owner,
    Trouble,
)
from niripipe.cal_service.tables import Layout
from niripipe.errors import StorageError

__all__ = ["SqliteFile"]

_CHOOSE = "Choose another place with config(db_dir=...)"


@dataclass(frozen=True, slots=True)
class SqliteFile(Backend):
    """The backend for a file; see `niripipe.cal_service.backend.Backend` for its methods.

    Parameters
    ----------
    path : Path
        The file, absolute.
    """

    path: Path
    dialect: ClassVar[Dialect] = Dialect("?", "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "DATETIME")

    def exists(self) -> bool:  # noqa: D102
        return self.path.exists()

    def prepare(self) -> None:
        """Create the folder of the file, but not those above."""
        folder = self.path.parent
        if folder.is_dir():
            return
        if not folder.parent.is_dir():
            raise StorageError(
                "the folder for the calibration store does not exist",
                file=folder,
                remedy="Create it first, or choose another place with config(db_dir=...)",
            )
        try:
            folder.mkdir(exist_ok=True)
        except OSError as err:
            raise StorageError(
                "the folder for the calibration store cannot be created", file=folder, found=err.strerror
            ) from err

    def connect(self, *, write: bool) -> sqlite3.Connection:
        """Return a new connection; a reader never creates the file."""
        # Opening by URI: any character may be part of the path.
        address = f"{self.path.as_uri()}?mode={'rwc' if write else 'rw'}"
        return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)

    def begin(self, connection: Connection, *, write: bool) -> None:  # noqa: D102
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def layout(self, connection: Connection) -> Layout:  # noqa: D102
        rows = connection.rows(
            "SELECT s.name, c.name FROM sqlite_master AS s JOIN pragma_table_info(s.name) AS c"
            " WHERE s.type IN ('table', 'view')"
        )
        return {table: frozenset(c for t, c in rows if t == table) for table in {t for t, _ in rows}}

    def owner(self, connection: Connection, layout: Layout, version: str | None) -> Owner:  # noqa: D102
        ((mark,),) = connection.rows("PRAGMA application_id")
        if mark == STORE_MARK:
            return "niripipe"
        return "another" if mark or layout else "nobody"

    def mark(self, connection: Connection) -> None:  # noqa: D102
        connection.execute(f"PRAGMA application_id = {STORE_MARK}")

    def trouble(self, error: Exception) -> Trouble | None:  # noqa: D102
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorname", "")
        return next(
            (trouble for start, trouble in _TROUBLE.items() if code.startswith(start)),
            Trouble("the calibration store cannot be used", _CHOOSE),
        )

    def foreign(self) -> Trouble:  # noqa: D102
        return Trouble("this database belongs to another program and is left alone", _CHOOSE)

    def discard_damaged(self) -> bool:
        """Delete the file if its header says that it is ours and it fails SQLite's own check."""
        if not self._is_ours() or self._is_sound():
            return False
        try:
            # The journal first: left behind, it would be played back into the new file.
            self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
            self.path.unlink()
        except OSError as err:
            raise StorageError(
                "the damaged calibration store cannot be deleted", file=self.path, found=err.strerror
            ) from err
        return True

    def _is_ours(self) -> bool:
        # The mark is read without SQLite, which does not open every damaged file.
        if not self.path.is_file():
            return False
        with self.path.open("rb") as stream:
            header = stream.read(72)
        return header.startswith(b"SQLite format 3\0") and header[68:72] == STORE_MARK.to_bytes(4, "big")

    def _is_sound(self) -> bool:
        try:
            with closing(self.connect(write=False)) as connection:
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        except sqlite3.Error:
            return False


# By the beginning of SQLite's name for what went wrong.
_TROUBLE = {
    "SQLITE_BUSY": Trouble(
        "the calibration store is locked by another process",
        f"Try again; it was waited for {BUSY_SECONDS:g} s",
    ),
    "SQLITE_READONLY": Trouble(
        "the calibration store is write-protected", "Change its permissions and those of its folder"
    ),
    "SQLITE_CORRUPT": Trouble(
        "the calibration store is damaged", "Recreate it from the calibration files with rebuild()"
    ),
    "SQLITE_NOTADB": Trouble(
        "this file is not a calibration store",
        f"{_CHOOSE}, or, if it was a store, move it away and rebuild()",
    ),
    "SQLITE_FULL": Trouble("the disk is full", "Make room for the calibration store"),
    "SQLITE_CANTOPEN": Trouble(
        "the calibration store cannot be opened", "Check that its folder exists and may be written to"
    ),
}
