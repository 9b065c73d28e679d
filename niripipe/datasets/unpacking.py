"""Opening what was downloaded: compressed files and tar packages, hostile ones refused."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

from niripipe.datasets.frames import COMPRESSIONS
from niripipe.datasets.integrity import HEAD_BYTES, content_of, open_contents, recognise
from niripipe.errors import DataError, InputError, NiripipeError, storage_faults

__all__ = ["unpack"]

_CHUNK = 1 << 16
_MAX_HEADER = 1 << 20  # bytes; extended headers of a tar archive are read in one piece
_FORBIDDEN = re.compile(r'[\\:*?"<>|]')  # separators, streams and drives on one system or another
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
        with open_contents(source) as stream:
            if recognise(stream.read(HEAD_BYTES)) == "tar":
                return _unpack_tar(stream, plan)
        content = content_of(source)
        if content not in ("bz2", "gz"):
            raise DataError(
                "this is neither a tar file nor a compressed file",
                file=source,
                found=content,
                expected="tar, bzip2 or gzip",
            )
        stripped = _stripped(source.name)
        name = stripped if stripped != source.name else f"{source.name}.unpacked"
        return plan.write([plan.destination(name)], iter([open_contents(source)]))


@dataclass(frozen=True, slots=True)
class _Plan:
    """One unpacking: what goes where, and how much of it there may be."""

    source: Path
    folder: Path
    decompress: bool
    overwrite: bool
    max_bytes: int
    max_files: int

    def examine(self, archive: tarfile.TarFile) -> list[tuple[tarfile.TarInfo, Path]]:
        """Return files and destinations; refuse the archive for the first member that is not acceptable."""
        found: list[tuple[tarfile.TarInfo, Path]] = []
        seen: set[str] = set()
        declared = 0
        for count, member in enumerate(archive, 1):
            if count > self.max_files:
                raise self.hostile("too many members", f"over {self.max_files}")
            if not (member.isdir() or (member.isreg() and not member.issparse())):
                raise self.hostile("a member that is neither a file nor a folder", member.name)
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            misnamed = member.name.startswith("/") or not all(map(_is_plain, parts))
            if misnamed or not (parts or member.isdir()):
                raise self.hostile("a member whose name leads elsewhere", member.name)
            if member.isdir():
                continue
            declared += member.size
            if declared > self.max_bytes:
                raise self.too_large()
            if self.decompress:
                parts[-1] = _stripped(parts[-1])
            destination = self.destination(*parts)
            # Case does not distinguish files everywhere.
            key = str(destination).casefold()
            if key in seen:
                raise self.hostile("two members of the same name", member.name)
            seen.add(key)
            found.append((member, destination))
        return found

    def destination(self, *parts: str) -> Path:
        """Return where a file goes, which must be free and inside the folder."""
        destination = self.folder.joinpath(*parts)
        if not destination.parent.resolve().is_relative_to(self.folder.resolve()):
            raise self.hostile("a folder here leads elsewhere", str(destination.parent))
        if destination.is_dir() or (destination.exists() and not self.overwrite):
            raise InputError(
                "the file is there already", file=destination, remedy="Pass overwrite=True, or another folder"
            )
        return destination

    def write(
        self, destinations: list[Path], streams: Iterator[AbstractContextManager[BinaryIO]]
    ) -> list[Path]:
        """Write all files, and move them to their destinations when the last one is complete."""
        # Beside the destinations, so that files can be moved; the folder may not exist yet.
        existing = self.folder.absolute()
        while not existing.exists():
            existing = existing.parent
        left = self.max_bytes
        remedy = "Name a folder that you may write to, on a disk with room"
        faults = storage_faults("the file cannot be written", self.folder, remedy=remedy)
        with faults, tempfile.TemporaryDirectory(prefix=".unpack-", dir=existing) as scratch:
            files = [Path(scratch, str(number)) for number in range(len(destinations))]
            for file, opened in zip(files, streams, strict=True):
                with opened as stream, file.open("wb") as out:
                    while block := self._read(stream):
                        left -= len(block)
                        if left < 0:
                            raise self.too_large()
                        out.write(block)
            for file, destination in zip(files, destinations, strict=True):
                destination.parent.mkdir(parents=True, exist_ok=True)
                file.replace(destination)
        return destinations

    def _read(self, stream: BinaryIO) -> bytes:
        with _explained(self.source):
            return stream.read(_CHUNK)

    def too_large(self) -> DataError:
        return DataError(
            "the archive would fill the disk",
            file=self.source,
            expected=f"at most {self.max_bytes} bytes",
            remedy="Pass a larger max_bytes if the archive is to be trusted",
        )

    def hostile(self, what: str, found: str) -> DataError:
        return DataError(f"the archive is refused: {what}", file=self.source, found=found[:200])


class _Bounded:
    """A file object for `tarfile` that refuses oversized headers, which would be read into memory."""

    def __init__(self, stream: BinaryIO, source: Path) -> None:
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable
        self._stream = stream
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise DataError("the archive is refused: an oversized header", file=self._source)
        return self._stream.read(size)


def _unpack_tar(stream: BinaryIO, plan: _Plan) -> list[Path]:
    stream.seek(0)
    with tarfile.open(fileobj=cast(BinaryIO, _Bounded(stream, plan.source)), mode="r:") as archive:
        files = plan.examine(archive)
        # The reader takes a bad header for the end; a whole archive ends with a block of zeros.
        stream.seek(archive.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early")
        if not files:
            raise DataError("the archive holds no files", file=plan.source)
        streams = (_opened(archive, member, plan) for member, _ in files)
        return plan.write([destination for _, destination in files], streams)


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo, plan: _Plan) -> BinaryIO:
    """Return the content of a member, decompressed if it is compressed and that is asked for."""
    with _explained(plan.source):
        stream = cast(BinaryIO, archive.extractfile(member))
        if not plan.decompress or _stripped(member.name) == member.name:
            return stream
        content = recognise(stream.read(HEAD_BYTES))
        stream.seek(0)
    if content not in ("bz2", "gz"):
        raise DataError("a member is not compressed as its name says", file=plan.source, item=member.name)
    return cast(BinaryIO, bz2.open(stream) if content == "bz2" else gzip.open(stream))


def _stripped(name: str) -> str:
    """Return a file name without the ending of a compression."""
    for suffix in COMPRESSIONS:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _is_plain(part: str) -> bool:
    """Tell whether part of a name means the same on every system: no separators, ``..`` or devices."""
    return (
        part.isprintable()
        and _FORBIDDEN.search(part) is None
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
