"""Obtaining one file: whether it is there, whether it is right, and if not, fetching and checking it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from niripipe.datasets.archive import ARCHIVE_URL, ArchiveFile, file_url, look_up
from niripipe.datasets.connection import Cancelled, Connection, ServerUnreachable
from niripipe.datasets.frames import COMPRESSIONS
from niripipe.datasets.integrity import Content, Sums, check_digest, checksum_of, content_of
from niripipe.datasets.transfer import fetch
from niripipe.errors import StorageError
from niripipe.logutils import get_logger

__all__ = ["Job", "Wanted"]

_SUFFIXES = {"bz2": ".bz2", "gz": ".gz"}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A frame or package to get, and what is known about it.

    Attributes
    ----------
    name : str
    checksum : str or None
        ``md5:<hex>`` or ``sha256:<hex>``: of a package as it is, of a frame without compression.
    listing : ArchiveFile or None
        What the archive says of a frame.
    package_url : str or None
        Where a package is; None for a frame of the archive.
    """

    name: str
    checksum: str | None = None
    listing: ArchiveFile | None = None
    package_url: str | None = None

    @property
    def contents(self) -> tuple[Content, ...]:
        """What the file may be."""
        return ("tar" if self.package_url else "fits", "bz2", "gz")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes it may have, bytes; none if they are not known."""
        if self.listing is None or not (self.listing.data_size and self.listing.file_size):
            return ()
        # As it is, or compressed; if only one of them is known the other cannot be excluded.
        return (self.listing.data_size, self.listing.file_size)

    def expected(self, *, as_stored: bool) -> tuple[str | None, bool]:
        """Return a checksum, and whether it is that of the uncompressed content.

        Parameters
        ----------
        as_stored : bool
            The file is a compressed one from the archive.
        """
        if self.checksum is not None or self.listing is None:
            return self.checksum, self.package_url is None
        if as_stored and self.listing.file_md5 is not None:
            return f"md5:{self.listing.file_md5.lower()}", False
        digest = self.listing.data_md5
        return None if digest is None else f"md5:{digest.lower()}", True


@dataclass(slots=True)
class Job:
    """What all files of one call have in common.

    Attributes
    ----------
    folder : Path
    connection : Connection
    overwrite : bool
        Fetch files that are there already.
    base_url : str
        The archive.
    ask_archive : bool
        Ask the archive for the checksums of frames that have none.
    stop : threading.Event
        Set to give up what is being fetched.
    """

    folder: Path
    connection: Connection
    overwrite: bool
    base_url: str = ARCHIVE_URL
    ask_archive: bool = False
    stop: threading.Event = field(init=False, default_factory=threading.Event)
    _sums: Sums = field(init=False)
    _gone: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._sums = Sums(self.folder)

    def obtain(self, wanted: Wanted, notify: Callable[[int, int | None], None] | None = None) -> Path:
        """Return the path of a file, having fetched it if need be.

        Parameters
        ----------
        wanted : Wanted
        notify : callable, optional
            See `fetch`.

        Raises
        ------
        NiripipeError
            See `fetch`; or a file that is there already is not what it should be.
        """
        if self._gone.is_set():
            # Otherwise all files would wait in vain, one after the other.
            raise Cancelled("the server is gone", item=wanted.name)
        suffixes = ("",) if wanted.package_url else ("", *COMPRESSIONS)
        candidates = (self.folder / (wanted.name + suffix) for suffix in suffixes)
        stored = next((path for path in candidates if path.is_file()), None)
        try:
            if stored is not None and not self.overwrite:
                return self._checked(stored, wanted)
            path = self._fetched(self._informed(wanted), notify)
        except ServerUnreachable:
            self._gone.set()
            raise
        if stored is not None and stored != path:
            # Otherwise the frame would be there twice, once in each compression.
            stored.unlink(missing_ok=True)
        return path

    def _informed(self, wanted: Wanted) -> Wanted:
        if not self.ask_archive or wanted.checksum is not None or wanted.listing is not None:
            return wanted
        return replace(wanted, listing=look_up(wanted.name, self.base_url, self.connection))

    def _checked(self, path: Path, wanted: Wanted) -> Path:
        """Check a file that is there already against the record and against what it should be."""
        remedy = "Pass overwrite=True to fetch it again"
        if (content := content_of(path)) not in wanted.contents:
            raise StorageError(
                "the file that is there is not what it should be",
                file=path,
                found=content,
                expected=" or ".join(wanted.contents),
                remedy=remedy,
            )
        recorded = self._sums.get(path.name)
        if recorded is None:
            wanted = self._informed(wanted)
        elif (actual := checksum_of(path)) != recorded:
            raise StorageError(
                "the file has changed since it was downloaded",
                file=path,
                found=actual,
                expected=recorded,
                remedy=remedy,
            )
        expected, decompress = wanted.expected(as_stored=False)
        if expected is not None:
            check_digest(path, str(path), expected, decompress=decompress, remedy=remedy)
        if recorded is None:
            self._sums.record(path)
        return path

    def _fetched(self, wanted: Wanted, notify: Callable[[int, int | None], None] | None) -> Path:
        url = wanted.package_url or file_url(wanted.name, self.base_url)

        def check(path: Path, content: Content) -> None:
            expected, decompress = wanted.expected(as_stored=content != "fits")
            if expected is not None:
                check_digest(path, url, expected, decompress=decompress)

        arrived, content = fetch(
            url,
            self.folder,
            wanted.name,
            self.connection,
            contents=wanted.contents,
            check=check,
            sizes=wanted.sizes,
            notify=notify,
            stop=self.stop,
        )
        suffix = "" if wanted.package_url else _SUFFIXES.get(content, "")
        path = self.folder / (wanted.name + suffix)
        try:
            arrived.replace(path)
        except OSError as err:
            arrived.unlink(missing_ok=True)
            raise StorageError(
                "the download cannot be given its name", file=path, found=err.strerror or str(err)
            ) from err
        self._sums.record(path)
        _log.fullinfo("%s has arrived in %s", path.name, self.folder)
        return path
