"""Obtaining one frame: is it there, is it right, and if not, fetching and checking it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from niripipe.datasets.archive import ArchiveFile, file_url, look_up
from niripipe.datasets.connection import Connection
from niripipe.datasets.frames import COMPRESSIONS
from niripipe.datasets.integrity import Checksum, Content, Sums, content_of, digests
from niripipe.datasets.transfer import Cancelled, Fetched, ServerUnreachable, fetch
from niripipe.errors import StorageError
from niripipe.logutils import get_logger

__all__ = ["Job", "Wanted", "check_digest", "check_stored", "discarding", "record", "settle"]

_FRAME: tuple[Content, ...] = ("fits", "bz2", "gz")
_SUFFIXES = {"bz2": ".bz2", "gz": ".gz"}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A frame to get, and what is known about it."""

    name: str
    checksum: Checksum | None = None
    listing: ArchiveFile | None = None


@dataclass(slots=True)
class Job:
    """What all files of one call have in common."""

    folder: Path
    base_url: str
    connection: Connection
    ask_archive: bool
    overwrite: bool
    sums: Sums = field(init=False)
    stop: threading.Event = field(init=False, default_factory=threading.Event)
    gone: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.sums = Sums(self.folder)

    def obtain(self, wanted: Wanted) -> Path:
        """Return the frame's path, having fetched it if need be."""
        if self.gone.is_set():
            # Otherwise all files would wait in vain, one after the other.
            raise Cancelled("the server is gone", item=wanted.name)
        try:
            return self._obtain(wanted)
        except ServerUnreachable:
            self.gone.set()
            raise

    def _obtain(self, wanted: Wanted) -> Path:
        stored = self._stored(wanted.name)
        if stored is not None and not self.overwrite:
            self._check_present(stored, wanted)
            return stored
        wanted = self._informed(wanted)
        fetched = self._fetch(wanted)
        path = self.folder / (wanted.name + _SUFFIXES.get(fetched.content, ""))
        with discarding(fetched):
            settle(fetched, path, self.sums)
        if stored is not None and stored != path:
            # Otherwise the frame would be there twice, once in each compression.
            stored.unlink(missing_ok=True)
        _log.fullinfo("%s has arrived in %s", path.name, self.folder)
        return path

    def _stored(self, name: str) -> Path | None:
        candidates = (self.folder / (name + suffix) for suffix in ("", *COMPRESSIONS))
        return next((path for path in candidates if path.is_file()), None)

    def _check_present(self, path: Path, wanted: Wanted) -> None:
        known = wanted.checksum is not None or self.sums.digest(path.name) is not None
        if not known:
            wanted = self._informed(wanted)
        check_stored(path, wanted.checksum, self.sums, decompress=True, contents=_FRAME)
        if wanted.checksum is None and wanted.listing is not None:
            check_digest(path, str(path), _published(wanted.listing, "fits"), decompress=True)
        record(path, self.sums)

    def _informed(self, wanted: Wanted) -> Wanted:
        if not self.ask_archive or wanted.checksum is not None or wanted.listing is not None:
            return wanted
        return Wanted(wanted.name, listing=look_up(wanted.name, self.base_url, self.connection))

    def _fetch(self, wanted: Wanted) -> Fetched:
        fetched = self._transfer(wanted)
        try:
            self._check_arrived(fetched, wanted)
        except StorageError:
            fetched.path.unlink(missing_ok=True)
            if not fetched.resumed:
                raise
            # The two parts may have been of different versions.
            _log.fullinfo("%s does not fit together; fetched again", wanted.name)
        else:
            return fetched
        fetched = self._transfer(wanted)
        with discarding(fetched):
            self._check_arrived(fetched, wanted)
        return fetched

    def _transfer(self, wanted: Wanted) -> Fetched:
        sizes: Collection[int] = ()
        if wanted.listing is not None and wanted.listing.data_size and wanted.listing.file_size:
            # As it is, or compressed; if only one of them is known the other cannot be excluded.
            sizes = (wanted.listing.data_size, wanted.listing.file_size)
        return fetch(
            file_url(wanted.name, self.base_url),
            self.folder,
            wanted.name,
            self.connection,
            contents=_FRAME,
            sizes=sizes,
            stop=self.stop,
        )

    def _check_arrived(self, fetched: Fetched, wanted: Wanted) -> None:
        url = file_url(wanted.name, self.base_url)
        if wanted.checksum is not None:
            check_digest(fetched.path, url, wanted.checksum, decompress=True)
        elif wanted.listing is not None:
            as_stored = fetched.content != "fits" and wanted.listing.file_md5 is not None
            expected = _published(wanted.listing, "file" if as_stored else "fits")
            check_digest(fetched.path, url, expected, decompress=not as_stored)


def check_stored(
    path: Path, expected: Checksum | None, sums: Sums, *, decompress: bool, contents: Collection[Content]
) -> None:
    """Check a file that is there already against the record and against what it should be."""
    remedy = "Pass overwrite=True to fetch it again"
    content = content_of(path)
    if content not in contents:
        raise StorageError(
            "the file that is there is not what it should be",
            file=path,
            found=content,
            expected=" or ".join(contents),
            remedy=remedy,
        )
    recorded = sums.digest(path.name)
    if recorded is not None:
        actual = digests(path, ["sha256"])["sha256"]
        if actual != recorded:
            raise StorageError(
                "the file has changed since it was downloaded",
                file=path,
                found=f"sha256:{actual}",
                expected=f"sha256:{recorded}",
                remedy=remedy,
            )
    check_digest(path, str(path), expected, decompress=decompress, remedy=remedy)


def check_digest(
    path: Path, source: str, expected: Checksum | None, *, decompress: bool, remedy: str | None = None
) -> None:
    """Check a file, or what it holds, against a checksum; `source` is what the error names."""
    if expected is None:
        return
    actual = digests(path, [expected.algorithm], decompress=decompress)[expected.algorithm]
    if actual != expected.digest:
        raise StorageError(
            "the checksum is wrong: this is not the file that was asked for",
            item=source,
            found=f"{expected.algorithm}:{actual}",
            expected=str(expected),
            remedy=remedy or "Try again; if it stays so, the file has changed in the archive",
        )


def record(path: Path, sums: Sums) -> None:
    """Take down the checksum of a file that has none on record."""
    if sums.digest(path.name) is None:
        sums.record(path.name, digests(path, ["sha256"])["sha256"])


def settle(fetched: Fetched, path: Path, sums: Sums) -> None:
    """Give a file that has passed its checks its name, and take down its checksum."""
    digest = digests(fetched.path, ["sha256"])["sha256"]
    try:
        fetched.path.replace(path)
    except OSError as err:
        raise StorageError(
            "the download cannot be given its name", file=path, found=err.strerror or str(err)
        ) from err
    sums.record(path.name, digest)


@contextlib.contextmanager
def discarding(fetched: Fetched) -> Iterator[None]:
    """Remove a file that has arrived if it does not pass its checks."""
    try:
        yield
    except BaseException:
        fetched.path.unlink(missing_ok=True)
        raise


def _published(listing: ArchiveFile, what: Literal["fits", "file"]) -> Checksum | None:
    digest = listing.data_md5 if what == "fits" else listing.file_md5
    return None if digest is None else Checksum("md5", digest.lower())
