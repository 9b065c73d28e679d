"""What a file is, whether it is the right one, and the record of what has arrived."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import re
import secrets
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from niripipe.errors import InputError, StorageError

__all__ = [
    "HEAD_BYTES",
    "SUMS_FILE",
    "Checksum",
    "Content",
    "Sums",
    "content_of",
    "digests",
    "head_of",
    "open_contents",
    "recognise",
]

Content = Literal["fits", "tar", "bz2", "gz", "other"]

HEAD_BYTES = 512
"""As much as `recognise` needs to see: one block of a tar archive."""

SUMS_FILE = "SHA256SUMS"

_CHUNK = 1 << 20
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True, slots=True)
class Checksum:
    """A digest that a file must have.

    Attributes
    ----------
    algorithm : {"md5", "sha256"}
        MD5 is what the archive publishes; it guards against accidents, not against malice.
    digest : str
        Hexadecimal, lower case.
    """

    algorithm: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Return the checksum written as ``md5:<hex>`` or ``sha256:<hex>``.

        Raises
        ------
        InputError
            The text is not of that form.
        """
        algorithm, _, digest = text.strip().lower().partition(":")
        digits = _DIGITS.get(algorithm, 0)
        if not digits or re.fullmatch(rf"[0-9a-f]{{{digits}}}", digest) is None:
            raise InputError(
                "a checksum that cannot be read",
                item="checksum",
                found=repr(text),
                expected="md5:<32 hexadecimal digits> or sha256:<64 hexadecimal digits>",
            )
        return cls(algorithm, digest)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digest}"


def recognise(head: bytes) -> Content:
    """Tell by its first bytes what a file is.

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


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file; see `recognise`.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError as err:
        raise _unreadable(path, err) from err


def content_of(path: Path) -> Content:
    """Tell by its first bytes what a file on disk is; see `recognise`.

    Raises
    ------
    StorageError
        The file cannot be read.
    """
    return recognise(head_of(path))


def open_contents(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed where it is compressed with bzip2 or gzip."""
    content = content_of(path)
    if content == "bz2":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if content == "gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def digests(path: Path, algorithms: Iterable[str], *, decompress: bool = False) -> dict[str, str]:
    """Return digests of a file, computed in one pass.

    Parameters
    ----------
    path : Path
    algorithms : iterable of str
        ``"md5"``, ``"sha256"``.
    decompress : bool
        Digest what a compressed file holds, not the file.

    Returns
    -------
    dict
        Algorithm to hexadecimal digest.

    Raises
    ------
    StorageError
        The file cannot be read, or cannot be decompressed.
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    try:
        with open_contents(path) if decompress else path.open("rb") as stream:
            while block := stream.read(_CHUNK):
                for hasher in hashes.values():
                    hasher.update(block)
    except (OSError, EOFError, zlib.error) as err:
        raise _unreadable(path, err) from err
    return {name: hasher.hexdigest() for name, hasher in hashes.items()}


class Sums:
    """The record of what has arrived in a folder: ``SHA256SUMS``, as the ``sha256sum`` program writes it.

    Lines that are not of that form are left as they are. A new entry is appended in one write, so that
    several threads or processes may add to the same record.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / SUMS_FILE

    def digest(self, name: str) -> str | None:
        """Return the recorded SHA-256 of a file, as hexadecimal digits; None if there is no record."""
        return self._entries(self._text()).get(name)

    def record(self, name: str, digest: str) -> None:
        """Take down the SHA-256 of a file.

        Raises
        ------
        StorageError
            The record cannot be written.
        """
        text = self._text()
        known = self._entries(text).get(name)
        if known == digest:
            return
        line = f"{digest}  {name}\n"
        try:
            if known is None:
                # A line that was cut short is closed first.
                self._append(line if not text or text.endswith("\n") else f"\n{line}")
            else:
                self._replace(
                    "".join(kept for kept in text.splitlines(True) if not _names(kept, name)) + line
                )
        except OSError as err:
            raise StorageError(
                "the record of checksums cannot be written", file=self.path, found=err.strerror or str(err)
            ) from err

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as err:
            raise _unreadable(self.path, err) from err

    @staticmethod
    def _entries(text: str) -> dict[str, str]:
        matches = (_SUM_LINE.fullmatch(line) for line in text.splitlines())
        return {match[2]: match[1] for match in matches if match}

    def _append(self, line: str) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _replace(self, text: str) -> None:
        temporary = self.path.with_name(f".{SUMS_FILE}.{secrets.token_hex(4)}")
        try:
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)


def _names(line: str, name: str) -> bool:
    match = _SUM_LINE.fullmatch(line.rstrip("\r\n"))
    return match is not None and match[2] == name


def _unreadable(path: Path, err: BaseException) -> StorageError:
    return StorageError(
        "the file cannot be read", file=path, found=getattr(err, "strerror", None) or str(err)
    )
