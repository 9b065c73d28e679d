"""Opening what was downloaded: compressed files and tar packages, hostile ones refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import re
import secrets
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

from niripipe.datasets.frames import COMPRESSIONS
from niripipe.datasets.integrity import HEAD_BYTES, content_of, open_contents, recognise
from niripipe.errors import DataError, InputError, NiripipeError, StorageError

__all__ = ["unpack"]

_CHUNK = 1 << 16
_MAX_HEADER = 1 << 20  # bytes; extended headers of a tar archive are read in one piece
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names of Windows


def unpack(
    path: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    decompress: bool = True,
    overwrite: bool = False,
    max_bytes: int = 8 << 30,
    max_files: int = 10_000,
) -> list[Path]:
    """Unpack a tar package, or decompress one file.

    All members are examined before anything is written. Only folders and regular files are accepted, with
    names that stay below the folder; links, devices, absolute names and ``..`` are refused, as are archives
    that would fill the disk. Permissions, owners and dates in the archive are not carried over. Files get
    their names when the last one has been unpacked; if one cannot be, nothing is left, nothing is replaced.

    Parameters
    ----------
    path : path-like
        A tar file, compressed or not, or a file compressed with bzip2 or gzip. What it is is told by its
        content.
    folder : path-like
        Where to; made if it does not exist.
    decompress : bool
        Decompress members that end in ``.bz2`` or ``.gz`` too, and take these endings off their names.
    overwrite : bool
        Replace files that are there already.
    max_bytes : int
        How much the content may be in all, decompressed.
    max_files : int
        How many members there may be.

    Returns
    -------
    list of Path
        The files written, in the order of the archive.

    Raises
    ------
    InputError
        There is no such file, or it would replace one that is there.
    DataError
        It is neither a tar file nor compressed, is damaged, or is hostile.
    StorageError
        The folder cannot be written.
    """
    source, target = Path(path), Path(folder)
    if not source.is_file():
        raise InputError("there is no such file to unpack", file=source)
    plan = _Plan(source, target, decompress, overwrite, max_bytes, max_files)
    with _explained(source):
        if _is_tar(source):
            plan.examine()
            return plan.extract_all()
        content = content_of(source)
        if content not in ("bz2", "gz"):
            raise DataError(
                "this is neither a tar file nor a compressed file",
                file=source,
                found=content,
                expected="tar, bzip2 or gzip",
            )
        return [plan.decompress_one()]


@dataclass(slots=True)
class _Plan:
    """One unpacking: what goes where, and how much of it there may be."""

    source: Path
    folder: Path
    decompress: bool
    overwrite: bool
    max_bytes: int
    max_files: int
    poured: list[tuple[Path, Path]] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)
    room: int = field(init=False)

    def __post_init__(self) -> None:
        self.room = self.max_bytes

    def examine(self) -> None:
        """Look at every member, and refuse the archive for the first that is not acceptable."""
        seen: set[str] = set()
        declared = count = 0
        with _tar(self.source, self.max_bytes) as (archive, stream):
            for member in archive:
                count += 1
                if count > self.max_files:
                    raise self._hostile("too many members", f"over {self.max_files}")
                destination = self._destination(member)
                if member.isdir():
                    continue
                declared += member.size
                if declared > self.max_bytes:
                    raise self._too_large()
                # Case does not distinguish files everywhere.
                key = str(destination).casefold()
                if key in seen:
                    raise self._hostile("two members of the same name", member.name)
                seen.add(key)
                self._check_free(destination)
            # The reader takes a bad header for the end; a whole archive ends with a block of zeros.
            if stream.last != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it ends early")
        if not seen:
            raise DataError("the archive holds no files", file=self.source)

    def extract_all(self) -> list[Path]:
        """Write all members, and give them their names when the last one is there."""
        with self._all_or_nothing(), _tar(self.source, self.max_bytes) as (archive, _):
            for member in archive:
                if member.isdir():
                    continue
                stream = archive.extractfile(member)
                if stream is None:
                    raise self._hostile("a member without content", member.name)
                self._write(cast(BinaryIO, stream), self._destination(member), member.name)
        return [destination for _, destination in self.poured]

    def decompress_one(self) -> Path:
        """Write what a compressed file holds."""
        name = self.source.name
        stripped = _stripped(name)
        destination = self.folder / (stripped if stripped != name else f"{name}.unpacked")
        self._check_free(destination)
        with self._all_or_nothing(), open_contents(self.source) as stream:
            self._pour(stream, destination)
        return destination

    def _destination(self, member: tarfile.TarInfo) -> Path:
        if not (member.isdir() or (member.isreg() and not member.issparse())):
            raise self._hostile("a member that is neither a file nor a folder", member.name)
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        bad = member.name.startswith("/") or (not parts and not member.isdir())
        if bad or not all(_is_plain(part) for part in parts):
            raise self._hostile("a member whose name leads elsewhere", member.name)
        if parts and self.decompress and member.isreg():
            parts[-1] = _stripped(parts[-1])
        return self.folder.joinpath(*parts)

    def _check_free(self, destination: Path) -> None:
        if destination.is_dir() or (destination.exists() and not self.overwrite):
            raise InputError(
                "the file is there already", file=destination, remedy="Pass overwrite=True, or another folder"
            )

    def _write(self, stream: BinaryIO, destination: Path, member: str) -> None:
        if not self.decompress or _stripped(member) == member:
            self._pour(stream, destination)
            return
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
        content = recognise(head)
        if content not in ("bz2", "gz"):
            raise DataError("a member is not compressed as its name says", file=self.source, item=member)
        with bz2.open(stream) if content == "bz2" else gzip.open(stream) as opened:
            self._pour(cast(BinaryIO, opened), destination)

    def _pour(self, stream: BinaryIO, destination: Path) -> None:
        """Write a stream beside its place, within the room that is left."""
        with _disk(destination):
            if not destination.parent.resolve().is_relative_to(self.folder.resolve()):
                raise self._hostile("a folder here leads elsewhere", str(destination.parent))
            self._make(destination.parent)
            temporary = destination.with_name(f".{secrets.token_hex(6)}.part")
            out = temporary.open("xb", buffering=0)
        self.poured.append((temporary, destination))
        with out:
            while block := stream.read(_CHUNK):
                self.room -= len(block)
                if self.room < 0:
                    raise self._too_large()
                with _disk(destination):
                    _write_all(out, block)

    def _make(self, folder: Path) -> None:
        missing = [folder, *folder.parents]
        missing = missing[: next((i for i, p in enumerate(missing) if p.exists()), len(missing))]
        folder.mkdir(parents=True, exist_ok=True)
        self.made.extend(reversed(missing))

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
            for temporary, destination in self.poured:
                with _disk(destination):
                    temporary.replace(destination)
        except BaseException:
            for temporary, _ in self.poured:
                temporary.unlink(missing_ok=True)
            for folder in reversed(self.made):
                with contextlib.suppress(OSError):  # something else is in it
                    folder.rmdir()
            raise

    def _too_large(self) -> DataError:
        return DataError(
            "the archive would fill the disk",
            file=self.source,
            expected=f"at most {self.max_bytes} bytes",
            remedy="Pass a larger max_bytes if the archive is to be trusted",
        )

    def _hostile(self, what: str, found: str) -> DataError:
        return DataError(f"the archive is refused: {what}", file=self.source, found=found[:200])


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends in an error when it is read too far, or too much at once."""

    def __init__(self, stream: BinaryIO, limit: int, source: Path) -> None:
        self._stream = stream
        self._limit = limit
        self._source = source
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise DataError("the archive is refused: an oversized header", file=self._source)
        self.last = self._stream.read(size)
        if self._stream.tell() > self._limit:
            self._fail()
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and offset > self._limit:
            self._fail()
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _fail(self) -> None:
        raise DataError("the archive would fill the disk", file=self._source, expected=f"{self._limit} bytes")


@contextlib.contextmanager
def _tar(path: Path, max_bytes: int) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
    # Headers and padding come on top of the content: up to three blocks a file, and a record at the end.
    limit = max_bytes + (max_bytes >> 2) + (64 << 20)
    with open_contents(path) as stream:
        bounded = _Bounded(stream, limit, path)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
            yield archive, bounded


def _write_all(out: io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[out.write(rest) :]


def _is_tar(path: Path) -> bool:
    with open_contents(path) as stream:
        return recognise(stream.read(HEAD_BYTES)) == "tar"


def _stripped(name: str) -> str:
    for suffix in COMPRESSIONS:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _is_plain(part: str) -> bool:
    # On every system: no separators, no streams or drives, no trailing dots (so no ".." either), no devices.
    return (
        part.isprintable()
        and not any(letter in part for letter in '\\:*?"<>|')
        and len(part.encode("utf-8", "surrogateescape")) <= 240
        and part == part.rstrip(" .")
        and _RESERVED.fullmatch(part) is None
    )


@contextlib.contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Turn what the decompressors and the tar reader raise into our errors."""
    try:
        yield
    except NiripipeError:
        raise
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError) as err:
        raise DataError(
            "the archive is damaged",
            file=source,
            found=str(err) or type(err).__name__,
            remedy="Download it again",
        ) from err


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise StorageError(
            "the file cannot be written",
            file=path,
            found=err.strerror or str(err),
            remedy="Name a folder that you may write to, on a disk with room",
        ) from err
