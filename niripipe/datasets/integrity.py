"""Type and checksum of files, and the record of what has been downloaded."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import re
import secrets
import tarfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from niripipe.errors import InputError, StorageError, storage_faults

__all__ = ["HEAD_BYTES", "Content", "Sums", "check_digest", "content_of", "open_contents", "recognise"]

Content = Literal["fits", "tar", "bz2", "gz", "other"]

HEAD_BYTES = 512
"""Number of bytes that `recognise` needs: one block of a tar archive."""

_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


def parse_checksum(text: str) -> str:
    """Return a checksum, ``md5:<hex>`` or ``sha256:<hex>``, in its normal spelling.

    MD5 is what the archive publishes; it guards against accidents, not against malice.

    Raises
    ------
    InputError
        The text is not of that form.
    """
    normal = text.strip().lower()
    if _CHECKSUM.fullmatch(normal) is None:
        raise InputError(
            "a checksum that cannot be read",
            item="checksum",
            found=repr(text),
            expected="md5:<32 hexadecimal digits> or sha256:<64 hexadecimal digits>",
        )
    return normal


def checksum_of(path: Path, algorithm: str = "sha256", *, decompress: bool = False) -> str:
    """Return the checksum of a file, or of what a compressed file holds, as ``<algorithm>:<hex>``.

    Raises
    ------
    StorageError
        The file cannot be read, or cannot be decompressed.
    """
    with _reading(path), open_contents(path) if decompress else path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(cast(Any, stream), algorithm).hexdigest()}"


def check_digest(
    path: Path,
    source: str,
    expected: str,
    *,
    decompress: bool,
    remedy: str = "Try again; if it stays so, the file has changed in the archive",
) -> None:
    """Check a file, or what it holds, against a checksum.

    Parameters
    ----------
    path : Path
    source : str
        What an error names: the address, or the file.
    expected : str
        See `parse_checksum`.
    decompress : bool
        The checksum is that of the uncompressed content.
    remedy : str, optional
        What an error advises.

    Raises
    ------
    StorageError
        The checksum is another, or the file cannot be read.
    """
    actual = checksum_of(path, expected.partition(":")[0], decompress=decompress)
    if actual != expected:
        raise StorageError(
            "the checksum is wrong: this is not the file that was asked for",
            item=source,
            found=actual,
            expected=expected,
            remedy=remedy,
        )


def recognise(head: bytes) -> Content:
    """Tell the type of a file from its first bytes.

    The signatures are those of the FITS standard 4.0 (section 4.4.1: the first card is ``SIMPLE  =``), of
    bzip2 and gzip (RFC 1952), and the header checksum of a tar block (POSIX ustar).

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` bytes, or the whole file if it is shorter.

    Returns
    -------
    {"fits", "tar", "bz2", "gz", "other"}
    """
    if head.startswith(b"SIMPLE  ="):
        return "fits"
    if head.startswith(b"BZh"):
        return "bz2"
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return "other"
    return "tar"


def content_of(path: Path) -> Content:
    """Tell the type of a file on disk from its first bytes; see `recognise`.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    with _reading(path), path.open("rb") as stream:
        return recognise(stream.read(HEAD_BYTES))


def open_contents(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed where it is compressed with bzip2 or gzip."""
    content = content_of(path)
    if content == "bz2":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if content == "gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


class Sums:
    """The record of downloads in a folder: ``SHA256SUMS``, as the ``sha256sum`` program writes it.

    Lines that are not of that form are left as they are. A new entry is appended in one write, so that
    several processes may add to the same record.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "SHA256SUMS"
        self._lock = threading.Lock()

    def get(self, name: str) -> str | None:
        """Return the recorded checksum of a file; None if there is no record."""
        return dict(map(_entry, self._lines())).get(name)

    def record(self, path: Path) -> None:
        """Record the SHA-256 of a file of the folder, in place of an earlier one.

        Raises
        ------
        StorageError
            The file cannot be read, or the record cannot be written.
        """
        line = f"{checksum_of(path).removeprefix('sha256:')}  {path.name}\n"
        with self._lock:
            lines = self._lines()
            if line in lines:
                return
            others = [other for other in lines if _entry(other)[0] != path.name]
            with storage_faults("the record of checksums cannot be written", self.path):
                if len(others) < len(lines):
                    self._replace("".join([*others, line]))
                    return
                unfinished = bool(lines) and not lines[-1].endswith("\n")
                with self.path.open("a", encoding="utf-8", newline="\n") as stream:
                    stream.write(f"\n{line}" if unfinished else line)

    def _lines(self) -> list[str]:
        with _reading(self.path):
            try:
                return self.path.read_text("utf-8", "surrogateescape").splitlines(keepends=True)
            except FileNotFoundError:
                return []

    def _replace(self, text: str) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            temporary.write_text(text, "utf-8", "surrogateescape")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _entry(line: str) -> tuple[str, str]:
    """Return name and checksum of a line of the record; empty ones for a line of another form."""
    match = _SUM_LINE.fullmatch(line.rstrip("\r\n"))
    return ("", "") if match is None else (match[2], f"sha256:{match[1]}")


def _reading(path: Path) -> AbstractContextManager[None]:
    return storage_faults("the file cannot be read", path)
