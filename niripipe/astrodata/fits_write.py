"""The one writer of the library: complete FITS files with checksums, or the file as it was before.

The layout follows DRAGONS: PRIMARY, then for each extension SCI, VAR, DQ and its extras, then tables
sorted by name.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.headers import WatchedHeader, is_structural
from niripipe.astrodata.pieces import in_pieces
from niripipe.astrodata.planes import Plane
from niripipe.astrodata.tables import HeldTable, as_rows, is_rows
from niripipe.astrodata.wcs import _warnings_lock
from niripipe.errors import DataError, StorageError

if TYPE_CHECKING:
    from niripipe.astrodata.core import AstroData
    from niripipe.astrodata.extension import Extension

__all__ = ["as_hdulist", "atomic_file", "datasum", "write"]

_BLOCK = 2880
_CARDS_PER_BLOCK = _BLOCK // 80
_counter = itertools.count()
_BITPIX = {"u1": 8, "i2": 16, "i4": 32, "i8": 64, "f4": -32, "f8": -64}
_TFORM = {"u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
_MASK_KEYWORDS = ("BPMASK", "PROCBPM")
_PLANE_NAMES = {"data": "SCI", "variance": "VAR", "mask": "DQ"}
# Descriptions of a layout that come with a header from elsewhere and are made anew here.
_NAMED = frozenset({"EXTNAME", "EXTVER", "INHERIT"})


@dataclass
class _Hdu:
    """One HDU to be written: what comes before the other cards, those cards, and the data."""

    mandatory: list[tuple[str, Any, str]]
    header: Any
    data: NDArray[Any] | bytes = b""
    named: list[tuple[str, Any, str]] = field(default_factory=list)


def write(ad: AstroData, path: Path, *, overwrite: bool = False) -> None:
    """Write a data set.

    Parameters
    ----------
    ad : AstroData
        What to write. Planes that are still on disk are read.
    path : pathlib.Path
        Where to; ``.gz`` and ``.bz2`` at the end ask for compression.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    StorageError
        The file exists, or cannot be written: no such folder, no permission, no space.
    DataError
        A header cannot be put into FITS form.

    Notes
    -----
    The file is written under another name in the same folder, forced to disk and then renamed. DATASUM and
    CHECKSUM are those of the FITS standard 4.0, appendix J.
    """
    if path.exists() and not overwrite:
        raise StorageError("the file exists", file=path, remedy="Give overwrite=True to replace it.")
    with atomic_file(path) as file, _compressing(path, file) as stream:
        for hdu in _hdus(ad):
            _write_hdu(stream, hdu, path)


def as_hdulist(ad: AstroData) -> Any:
    """Return a data set as an astropy HDU list, as it would be written."""
    from astropy.io import fits

    stream = io.BytesIO()
    for hdu in _hdus(ad):
        _write_hdu(stream, hdu, Path(ad.filename or ""))
    stream.seek(0)
    return fits.open(stream, memmap=False)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name only when the block ends without an error.

    Parameters
    ----------
    path : pathlib.Path
        The name; an existing file is replaced in one step.

    Raises
    ------
    StorageError
        The file cannot be written. What was there before is still there, and nothing else.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_counter)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  # the call that failed-write tests replace
    except OSError as error:
        raise StorageError(
            "the file cannot be written",
            file=path,
            found=error.strerror or str(error),
            remedy="Check that the folder exists, is writable, and has space.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def datasum(data: Any) -> int:
    """Return the FITS checksum of bytes, zeros filling up the last four: a 32-bit ones' complement sum."""
    if len(data) % 4:
        data = bytes(data).ljust(-(-len(data) // 4) * 4, b"\0")
    total = int(np.frombuffer(data, ">u4").sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _hdus(ad: AstroData) -> Iterator[_Hdu]:
    versions = _versions(ad.extensions)
    extensions = [
        hdu
        for extension, version in zip(ad.extensions, versions, strict=True)
        for hdu in _extension(extension, version)
    ]
    tables = [(name, None) for name in sorted(ad.tables)]
    phu = ad.phu.copy()
    phu.set("NEXTEND", len(extensions) + len(tables), "Number of extensions")
    yield _Hdu(
        [
            ("SIMPLE", True, "Conforms to the FITS standard"),
            ("BITPIX", 8, "Bits per pixel"),
            ("NAXIS", 0, "No data in the primary HDU"),
            ("EXTEND", True, "There may be extensions"),
        ],
        phu,
    )
    yield from extensions
    for name, _ in tables:
        yield _global_table(ad, name)


def _versions(extensions: list[Extension]) -> list[int]:
    """Keep the numbers that extensions have, and number the others behind them."""
    kept: list[int | None] = []
    for extension in extensions:
        number = extension.hdr.get("EXTVER")
        usable = isinstance(number, int) and number > 0 and number not in kept
        kept.append(number if usable else None)
    following = itertools.count(max((n for n in kept if n), default=0) + 1)
    return [next(following) if number is None else number for number in kept]


def _extension(extension: Extension, version: int) -> Iterator[_Hdu]:
    science = extension.header_for_writing()
    data = extension.read("data")
    if extension._phu is not None and any(keyword in extension._phu for keyword in _MASK_KEYWORDS):
        # The pixels of a bad pixel mask are bits, and whoever reads them expects whole numbers.
        data = data.astype(np.int16)
    yield _image("SCI", version, data, science)
    for name in ("variance", "mask"):
        array = extension.read(name)
        if array is not None:
            header = _plane_header(extension, name, science)
            yield _image(_PLANE_NAMES[name], version, array, header)
    for name in extension.extras:
        held = extension._extras[name]
        if isinstance(held, Plane):
            same = held.shape == extension.shape
            yield _image(name, version, held.view(), _plane_header(extension, name, science, with_wcs=same))
        else:
            yield _table(name, version, cast(HeldTable, held).columns())


def _plane_header(extension: Extension, name: str, science: Any, *, with_wcs: bool = True) -> Any:
    """Return a plane's own header, with the geometry and the units that follow from the science plane."""
    from niripipe.astrodata.wcs import _is_wcs_card

    header = WatchedHeader(extension._plane_headers.get(name, WatchedHeader()), copy=True)
    if with_wcs:
        for key in science:
            if _is_wcs_card(key) or key in ("RADESYS", "EQUINOX"):
                header.set(key, science[key], science.comments[key])
    if name == "variance" and "BUNIT" in science:
        header.set("BUNIT", f"{science['BUNIT']}2", "Unit of the variance")
    elif name == "mask":
        header.remove("BUNIT", ignore_missing=True)
    return header


def _image(name: str, version: int, array: NDArray[Any], header: Any) -> _Hdu:
    array = array.astype(np.uint8) if array.dtype == bool else array
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    mandatory: list[tuple[str, Any, str]] = [("XTENSION", "IMAGE", "Image extension")]
    scaling: list[tuple[str, Any, str]] = []
    if kind in ("u2", "u4", "u8"):
        bits = 8 * array.dtype.itemsize
        # unsigned integers are stored with an offset (FITS standard 4.0, section 4.4.2.5)
        array = (array ^ array.dtype.type(1 << (bits - 1))).view(f"i{array.dtype.itemsize}")
        scaling = [("BSCALE", 1, "Scale of the data"), ("BZERO", 1 << (bits - 1), "Offset of the data")]
    elif kind == "i1":
        array = array.astype(np.int16)
    elif kind == "f2":
        array = array.astype(np.float32)
    mandatory.append(("BITPIX", _BITPIX[f"{array.dtype.kind}{array.dtype.itemsize}"], "Bits per pixel"))
    mandatory.append(("NAXIS", array.ndim, "Number of axes"))
    mandatory += [
        (f"NAXIS{i + 1}", n, f"Length of axis {i + 1}") for i, n in enumerate(reversed(array.shape))
    ]
    mandatory += [("PCOUNT", 0, "No extra parameters"), ("GCOUNT", 1, "One group"), *scaling]
    return _Hdu(mandatory, header, np.ascontiguousarray(array), _names(name, version))


def _global_table(ad: AstroData, name: str) -> _Hdu:
    is_record = name in ("HISTORY", "PROVENANCE")
    rows = ad._parts.records.rows(name) if is_record else ad._parts.tables[name].columns()
    return _table(name, None, rows)


def _table(name: str, version: int | None, table: Any) -> _Hdu:
    if is_rows(table):
        hdu = _plain_table(name, version, table)
        if hdu is not None:
            return hdu
    from astropy.io import fits
    from astropy.table import Table

    plain = Table(table, copy=False)
    meta, plain.meta = plain.meta, {}
    with _warnings_lock, warnings.catch_warnings():
        # units that FITS has no name for are written as they are spelt
        warnings.simplefilter("ignore")
        hdu = fits.table_to_hdu(plain)
    return _from_astropy(hdu, name, version, meta)


def _plain_table(name: str, version: int | None, rows: NDArray[Any]) -> _Hdu | None:
    """Lay out columns of numbers and texts, without the time that the import of astropy's tables takes.

    None if there are others.
    """
    columns = {
        column: np.char.encode(rows[column], "utf-8") if rows.dtype[column].kind == "U" else rows[column]
        for column in rows.dtype.names or ()
    }
    formats = {column: _column_format(values) for column, values in columns.items()}
    if None in formats.values():
        return None
    packed = as_rows({c: values.astype(values.dtype.newbyteorder(">")) for c, values in columns.items()})
    mandatory: list[tuple[str, Any, str]] = [
        ("XTENSION", "BINTABLE", "Binary table extension"),
        ("BITPIX", 8, "Array data type"),
        ("NAXIS", 2, "Number of axes"),
        ("NAXIS1", packed.dtype.itemsize, "Bytes of a row"),
        ("NAXIS2", len(packed), "Number of rows"),
        ("PCOUNT", 0, "No extra parameters"),
        ("GCOUNT", 1, "One group"),
        ("TFIELDS", len(columns), "Number of columns"),
    ]
    for i, (column, code) in enumerate(formats.items(), start=1):
        meaning = "Characters" if columns[column].dtype.kind == "S" else "Type of the column"
        mandatory += [(f"TTYPE{i}", column, "Name of the column"), (f"TFORM{i}", code, meaning)]
    return _Hdu(mandatory, WatchedHeader(), packed.tobytes(), _names(name, version))


def _column_format(values: NDArray[Any]) -> str | None:
    """Return TFORM of a column; None if it needs more than that to be described."""
    if values.ndim > 1:
        return None
    kind, size = values.dtype.kind, values.dtype.itemsize
    return f"{size}A" if kind == "S" else _TFORM.get(f"{kind}{size}")


def _names(name: str, version: int | None) -> list[tuple[str, Any, str]]:
    named: list[tuple[str, Any, str]] = [("EXTNAME", name, "Name of the extension")]
    if version is not None:
        named.append(("EXTVER", version, "Number of the extension"))
    return named


def _from_astropy(hdu: Any, name: str, version: int | None, meta: Any) -> _Hdu:
    """Let astropy lay out a table, and take header and bytes from it."""
    from astropy.io import fits

    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    content = stream.getvalue()[_BLOCK:]
    header = fits.Header.fromstring(content)
    start = len(header.tostring())
    mandatory = [(card.keyword, card.value, card.comment) for card in header.cards]
    present = {*header, *_NAMED}
    own = WatchedHeader()
    for key, value in meta.items():
        if key.upper() not in present and not is_structural(key.upper()) and _is_card(key, value):
            own[key] = value
    return _Hdu(
        [card for card in mandatory if card[0] not in _NAMED], own, content[start:], _names(name, version)
    )


def _is_card(key: str, value: Any) -> bool:
    return (
        len(key) <= 8
        and key.isascii()
        and isinstance(value, str | int | float | bool)
        and "\n" not in str(value)
    )


def _write_hdu(stream: IO[bytes], hdu: _Hdu, path: Path) -> None:
    total = length = 0
    for piece in _in_file_order(hdu.data):
        total = _ones_add(total, datasum(piece))
        length += piece.size
    stream.write(_header_bytes(hdu, total, path))
    for piece in _in_file_order(hdu.data):
        stream.write(piece.data)
    stream.write(b"\0" * (-length % _BLOCK))


def _in_file_order(data: NDArray[Any] | bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of data as they are in the file, so many that they stay in the cache.

    Done twice, for the sum and for writing, this takes less time than to find memory for a second plane.
    """
    for piece in in_pieces(np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data):
        yield (piece if piece.dtype.newbyteorder(">") == piece.dtype else piece.byteswap()).view(np.uint8)


def _header_bytes(hdu: _Hdu, data_sum: int, path: Path) -> bytes:
    """Return the header with DATASUM and CHECKSUM, padded to whole blocks."""
    from astropy.io import fits

    skip = {key for key, _, _ in (*hdu.mandatory, *hdu.named)} | _NAMED
    try:
        with _warnings_lock, warnings.catch_warnings():
            # cards of old files that are not quite standard are put right here; comments may be cut
            warnings.simplefilter("ignore")
            own = "".join(
                card.image
                for card in hdu.header.cards
                if card.keyword not in skip and not is_structural(card.keyword)
            )
            first = "".join(_card_image(*card) for card in hdu.mandatory)
            named = "".join(_card_image(*card) for card in hdu.named)
    except (fits.VerifyError, ValueError) as error:
        raise DataError("a header cannot be written", file=path, found=str(error)) from error
    sums = (
        _card_image("CHECKSUM", "0" * 16, "HDU checksum")
        + fits.Card("DATASUM", str(data_sum), "Data checksum").image
    )
    text: bytes = (first + named + own + sums + "END".ljust(80)).encode("ascii", "replace")
    text += b" " * (-len(text) % _BLOCK)
    position = text.rindex(b"CHECKSUM= '", 0, text.rindex(b"DATASUM =")) + 11
    code = _encode(0xFFFFFFFF ^ _ones_add(datasum(text), data_sum))
    return text[:position] + code + text[position + 16 :]


@lru_cache(maxsize=1024, typed=True)
def _card_image(keyword: str, value: Any, comment: str) -> str:
    """Return the text of a card; HDUs have most of those in common that describe their layout."""
    from astropy.io import fits

    image: str = fits.Card(keyword, value, comment).image
    return image


def _ones_add(a: int, b: int) -> int:
    total = a + b
    return (total & 0xFFFFFFFF) + (total >> 32)


def _encode(value: int) -> bytes:
    """Return the 16 characters that stand for a checksum (FITS standard 4.0, appendix J.2.4)."""
    excluded = {*range(0x3A, 0x41), *range(0x5B, 0x61)}
    columns = []
    for byte in value.to_bytes(4, "big"):
        quotient, remainder = divmod(byte, 4)
        four = [quotient + remainder + 0x30, quotient + 0x30, quotient + 0x30, quotient + 0x30]
        while any(c in excluded for c in four):
            for i in (0, 2):
                if four[i] in excluded or four[i + 1] in excluded:
                    four[i] += 1
                    four[i + 1] -= 1
        columns.append(four)
    code = bytes(columns[i][j] for j in range(4) for i in range(4))
    return code[-1:] + code[:-1]


@contextlib.contextmanager
def _compressing(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        import gzip

        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, compresslevel=4) as stream:
            yield cast("IO[bytes]", stream)
    elif path.suffix == ".bz2":
        import bz2

        with bz2.BZ2File(file, "wb") as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield file
