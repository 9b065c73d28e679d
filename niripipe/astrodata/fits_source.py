"""A FITS file on disk: its HDUs, found and checked without reading pixels, and its pixels, read once.

Headers are interpreted by astropy. The structure is walked here, because every promise that a header
makes about the size of its data has to be compared with the file before anything is allocated.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import math
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.headers import WatchedHeader, header_value, readable_copy
from niripipe.errors import DataError, InputError, NiripipeError, StorageError
from niripipe.paths import usable_path

__all__ = ["FitsSource", "HduRecord", "MissingFileError"]

_BLOCK = 2880
_FIRST_READ = 16 * _BLOCK  # holds both headers of a raw frame
_LONGEST_HEADER = 4000 * _BLOCK
_END = b"END" + b" " * 77
_MOST_AXES = 8
_BITPIX = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# Bytes outside the printable ASCII range are not allowed in headers; old files have them in comments.
_PRINTABLE = bytes(c if 32 <= c < 127 else ord("?") for c in range(256))
_MARKS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}
"""What compressed files start with."""


class MissingFileError(InputError, FileNotFoundError):
    """The file does not exist; also a `FileNotFoundError`."""


@dataclass(slots=True)
class HduRecord:
    """One HDU as found in a file.

    Attributes
    ----------
    index : int
        Position in the file, 0 for the primary HDU.
    header : WatchedHeader
        Its header, as in the file (of the image, for a tile-compressed image).
    kind : str
        ``image``, ``table``, or ``other``.
    shape : tuple of int
        Shape of the image in array order; empty when there are no pixels.
    bitpix : int
        BITPIX of the image.
    offset, nbytes : int
        Where its data are, and how many, without padding.
    tiled : bool
        Whether the image is tile-compressed.
    scaling : tuple of float
        BSCALE and BZERO.
    blank : int or None
        BLANK, the stored value of undefined pixels.
    """

    index: int
    header: WatchedHeader
    kind: str
    shape: tuple[int, ...]
    bitpix: int
    offset: int
    nbytes: int
    tiled: bool = False
    scaling: tuple[float, float] = field(init=False)
    blank: int | None = field(init=False)

    def __post_init__(self) -> None:
        # Taken now: the header goes to the user, who sees scaled pixels and may change it.
        self.scaling = _number(self.header, "BSCALE", 1.0), _number(self.header, "BZERO", 0.0)
        blank = header_value(self.header, "BLANK") if self.bitpix > 0 else None
        self.blank = blank if isinstance(blank, int) else None

    @property
    def name(self) -> str:
        """EXTNAME in upper case, or an empty string."""
        name = str(header_value(self.header, "EXTNAME", "")).strip().upper()
        return "" if name == "COMPRESSED_IMAGE" else name

    @property
    def version(self) -> int | None:
        """EXTVER, or None where it is missing or not positive (raw frames have -1)."""
        value = header_value(self.header, "EXTVER")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Dtype of the pixels in the file."""
        return np.dtype(_BITPIX[self.bitpix])


class FitsSource:
    """A FITS file, as it was when it was opened.

    Parameters
    ----------
    path : path-like
        The file; ``.gz`` and ``.bz2`` are recognised by content.

    Attributes
    ----------
    compression : str or None
        ``gzip``, ``bzip2``, or None.
    records : list of HduRecord
        Its HDUs.

    Raises
    ------
    MissingFileError
        There is no such file.
    InputError
        It is not a regular file.
    StorageError
        It may not be read.
    DataError
        It is empty, not FITS, truncated, or its headers contradict themselves.
    """

    def __init__(self, path: Path) -> None:
        self.path = usable_path(path)
        self._content: bytes | None = None
        self._lock = threading.Lock()
        with self._open() as file:
            status = os.fstat(file.fileno())
            self._size, self._mtime = status.st_size, status.st_mtime_ns
            start = file.read(_FIRST_READ)
            if not start:
                raise _damaged(self.path, "the file is empty", found="0 bytes")
            self.compression = next((name for name, mark in _MARKS.items() if start.startswith(mark)), None)
            if self.compression is None:
                self.records = _Walk(self.path, file, start, self._size).records()
            else:
                with self._decompressing(file) as stream:
                    self.records = _Walk(self.path, stream, stream.read(_FIRST_READ), None).records()
        self._pending = sum(1 for record in self.records if record.nbytes)
        if any(record.tiled for record in self.records):
            self._describe_tiled()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_content")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._content = threading.Lock(), None

    def gives_rows(self, record: HduRecord) -> bool:
        """Whether `pixels` finds some rows of an image without reading all of it."""
        return self.compression is None and not record.tiled

    def pixels(self, record: HduRecord, rows: slice | None = None) -> NDArray[Any]:
        """Return the stored pixels of an image HDU: unscaled, in the file's byte order, in their own memory.

        Parameters
        ----------
        record : HduRecord
            Which HDU.
        rows : slice, optional
            Only these, with a positive step; see `gives_rows`.

        Raises
        ------
        DataError
            The file changed since it was opened, or its content cannot be decompressed.
        """
        if record.tiled:
            with self.as_hdulist() as hdus:
                return np.ascontiguousarray(hdus[record.index].data)
        dtype = record.stored_dtype
        first, last, step = (rows or slice(None)).indices(record.shape[0])
        shape = (max(last - first, 0), *record.shape[1:])
        count = math.prod(shape)
        offset = record.offset + first * math.prod(record.shape[1:]) * dtype.itemsize
        if self.compression is None:
            with self._open_unchanged() as file:
                flat = np.fromfile(file, dtype, count, offset=offset)
        else:
            content = self._decompressed()
            available = max(0, len(content) - offset) // dtype.itemsize
            flat = np.frombuffer(content, dtype, min(count, available), offset).copy()
        if flat.size != count:
            raise _truncated(self.path, record, offset + flat.nbytes)
        return flat.reshape(shape)[::step]

    def as_hdulist(self) -> Any:
        """Return the file as an astropy HDU list, to be used as a context manager and closed."""
        from astropy.io import fits

        if self.compression is None:
            self._open_unchanged().close()
            return fits.open(self.path, memmap=False)
        return fits.open(io.BytesIO(self._decompressed()), memmap=False)

    def _open(self) -> IO[bytes]:
        try:
            if self.path.exists() and not self.path.is_file():
                raise InputError("this is not a regular file", file=self.path, expected="a FITS file")
            return self.path.open("rb")
        except FileNotFoundError as error:
            raise MissingFileError(
                "there is no such file", file=self.path, remedy="Check the name and the folder."
            ) from error
        except OSError as error:
            raise StorageError("the file cannot be opened", file=self.path, found=error.strerror) from error

    def _open_unchanged(self) -> IO[bytes]:
        file = self._open()
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self._size, self._mtime):
            file.close()
            raise DataError(
                "the file changed after it was opened",
                file=self.path,
                found=f"{status.st_size} bytes, modified at {status.st_mtime_ns} ns",
                expected=f"{self._size} bytes, modified at {self._mtime} ns",
                remedy="Open it again.",
            )
        return file

    @contextlib.contextmanager
    def _decompressing(self, file: IO[bytes]) -> Iterator[IO[bytes]]:
        file.seek(0)
        try:
            with gzip.open(file) if self.compression == "gzip" else bz2.open(file) as stream:
                yield cast("IO[bytes]", stream)
        except NiripipeError:
            raise
        except (EOFError, OSError, zlib.error, ValueError) as error:
            raise _damaged(
                self.path,
                f"the {self.compression} content cannot be decompressed: the file is damaged or truncated",
                found=f"{self._size} bytes; {error}",
            ) from error

    def _decompressed(self) -> bytes:
        """Return the whole content; it is kept until every HDU with data has been served once."""
        with self._lock:
            content = self._content
            if content is None:
                with self._open_unchanged() as file, self._decompressing(file) as stream:
                    content = stream.read()
                self._pending = max(1, self._pending)
                self._check_nothing_behind(content)
            self._pending -= 1
            self._content = content if self._pending > 0 else None
            return content

    def _check_nothing_behind(self, content: bytes) -> None:
        """Refuse a file whose search for HDUs was cut short although there are more."""
        end = max(_padded(record.offset + record.nbytes) for record in self.records)
        if content[end : end + 8] == b"XTENSION":
            raise DataError(
                "the compressed file holds more extensions than a raw frame has",
                file=self.path,
                found=f"data after {end} bytes",
                expected="one image extension, when it has no name",
                remedy="Decompress the file and open the result.",
            )

    def _describe_tiled(self) -> None:
        """Replace the table headers of tile-compressed images by the headers of the images."""
        with self.as_hdulist() as hdus:
            for record in self.records:
                if record.tiled:
                    hdu = hdus[record.index]
                    record.header = readable_copy(hdu.header)
                    record.shape, record.bitpix = hdu.shape, int(record.header["BITPIX"])


class _Walk:
    """Goes from header to header through a file or a stream of decompressed bytes."""

    def __init__(self, path: Path, file: IO[bytes], start: bytes, size: int | None) -> None:
        self.path, self.file, self.start, self.size = path, file, start, size

    def records(self) -> list[HduRecord]:
        if not self.start.startswith(b"SIMPLE  ="):
            raise DataError(
                "the file is not FITS",
                file=self.path,
                found=f"a start of {self.start[:30]!r}",
                expected="SIMPLE  = ...",
                remedy="Check what was downloaded or named.",
            )
        found: list[HduRecord] = []
        position = 0
        while True:
            text = self._header_text(position)
            if text is None:
                return found
            record = _record(self.path, len(found), text, position)
            self._check_size(record)
            found.append(record)
            if self._ends_here(record):
                return found
            position = _padded(record.offset + record.nbytes)

    def _header_text(self, position: int) -> bytes | None:
        """Return the cards of the header at a position, or None where there is no further HDU."""
        block = self._read(position, _FIRST_READ)
        if position and not block.startswith(b"XTENSION"):
            return None  # end of the file, padding, or special records, which readers have to ignore
        while True:
            end = _end_card(block)
            if end >= 0:
                return block[:end]
            more = self._read(position + len(block), _FIRST_READ) if len(block) < _LONGEST_HEADER else b""
            if not more:
                found = f"no END card in {len(block)} bytes from byte {position} on"
                raise _damaged(self.path, "the file ends, or is damaged, inside a header", found=found)
            block += more

    def _read(self, position: int, length: int) -> bytes:
        if position < len(self.start):
            return self.start[position : position + length]
        self.file.seek(position)
        return self.file.read(length)

    def _check_size(self, record: HduRecord) -> None:
        end = record.offset + record.nbytes
        if self.size is not None:
            if end > self.size:
                raise _truncated(self.path, record, self.size)
            return
        if record.nbytes and not self._ends_here(record):
            self.file.seek(end - 1)
            if not self.file.read(1):
                raise _truncated(self.path, record, self.file.tell())

    def _ends_here(self, record: HduRecord) -> bool:
        """Return whether this is the image of a compressed raw frame: there is nothing behind it.

        Raw frames have one extension, unnamed and numbered -1. Knowing that saves decompressing the
        pixels of a whole night when only headers are wanted.
        """
        if self.size is not None or record.index != 1 or record.kind != "image" or record.name:
            return False
        return bool(header_value(record.header, "EXTVER") == -1)


def _record(path: Path, index: int, text: bytes, position: int) -> HduRecord:
    header = WatchedHeader.from_text(text.translate(_PRINTABLE).decode("ascii"))
    shape = _shape(path, index, header)
    bitpix = _integer(path, index, header, "BITPIX")
    if bitpix not in _BITPIX:
        raise _bad_card(path, index, "BITPIX", bitpix, f"one of {sorted(_BITPIX)}")
    extra = _integer(path, index, header, "PCOUNT", 0), _integer(path, index, header, "GCOUNT", 1)
    if min(extra) < 0:
        raise _bad_card(path, index, "PCOUNT, GCOUNT", extra, "no negative numbers")
    count = math.prod(shape) if shape else 0
    nbytes = abs(bitpix) // 8 * extra[1] * (extra[0] + count)
    kind = str(header_value(header, "XTENSION", "IMAGE" if index == 0 else "")).strip()
    kinds = {"IMAGE": "image", "IUEIMAGE": "image", "BINTABLE": "table", "TABLE": "table"}
    tiled = kind == "BINTABLE" and header_value(header, "ZIMAGE") is True
    return HduRecord(
        index=index,
        header=header,
        kind="image" if tiled else kinds.get(kind, "other"),
        shape=shape if count else (),
        bitpix=bitpix,
        offset=position + _padded(len(text) + 80),
        nbytes=nbytes,
        tiled=tiled,
    )


def _shape(path: Path, index: int, header: WatchedHeader) -> tuple[int, ...]:
    n_axes = _integer(path, index, header, "NAXIS")
    if not 0 <= n_axes <= _MOST_AXES:
        raise _bad_card(path, index, "NAXIS", n_axes, f"0 to {_MOST_AXES}")
    lengths = [_integer(path, index, header, f"NAXIS{i}") for i in range(n_axes, 0, -1)]
    if any(length < 0 for length in lengths):
        raise _bad_card(path, index, "NAXISn", lengths, "no negative lengths")
    return tuple(lengths)


def _integer(path: Path, index: int, header: WatchedHeader, key: str, default: int | None = None) -> int:
    value = header_value(header, key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad_card(path, index, key, value, "an integer")
    return value


def _damaged(path: Path, problem: str, **details: Any) -> DataError:
    return DataError(problem, file=path, remedy="Fetch the file again.", **details)


def _bad_card(path: Path, index: int, key: str, found: object, expected: str) -> DataError:
    return _damaged(
        path,
        "a header does not describe its data",
        item=f"{key} of HDU {index}",
        found="no usable card" if found is None else found,
        expected=expected,
    )


def _truncated(path: Path, record: HduRecord, available: int) -> DataError:
    return _damaged(
        path,
        "the file is truncated: a header promises more data than there are",
        item=f"HDU {record.index} {record.name}".rstrip(),
        found=f"{available} bytes",
        expected=f"at least {record.offset + record.nbytes} bytes for shape {record.shape}, "
        f"BITPIX {record.bitpix}",
    )


def _end_card(block: bytes) -> int:
    position = block.find(_END)
    while position >= 0 and position % 80:
        position = block.find(_END, position + 1)
    return position


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _number(header: Any, key: str, default: float) -> float:
    value = header_value(header, key, default)
    return float(value) if isinstance(value, int | float) else default
