"""The one writer of the library: complete FITS files with checksums, or the file as it was before.

The layout follows DRAGONS: PRIMARY, then for each extension SCI, VAR, DQ and its extras, then tables
sorted by name.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from niripipe.astrodata.headers import WatchedHeader, drop_structure, is_structural
from niripipe.astrodata.planes import Plane
from niripipe.astrodata.quiet import filters_kept, without_warnings
from niripipe.astrodata.tables import HeldTable, as_rows, is_rows
from niripipe.astrodata.wcs import is_wcs_card
from niripipe.astrodata.world_coordinates import copy_to_primary
from niripipe.errors import DataError, StorageError, storage_faults
from niripipe.paths import usable_path

if TYPE_CHECKING:
    from niripipe.astrodata.core import AstroData
    from niripipe.astrodata.extension import Extension

__all__ = ["as_hdulist", "atomic_file", "write"]

_counter = itertools.count()
_MASK_KEYWORDS = ("BPMASK", "PROCBPM")
_PLANE_NAMES = {"data": "SCI", "variance": "VAR", "mask": "DQ"}
# Descriptions of a layout that come with a header from elsewhere and are made anew here.
_NAMED = ("EXTNAME", "EXTVER", "INHERIT")
# Types that FITS images do not have, and what they are written as.
_WRITTEN_AS = {"b1": np.uint8, "i1": np.int16, "f2": np.float32}

_PLAIN_COLUMNS = frozenset({"u1", "i2", "i4", "i8", "f4", "f8"})


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
    The file is written under another name in the same folder, forced to disk and then renamed.
    """
    path = usable_path(path)
    if path.exists() and not overwrite:
        raise StorageError("the file exists", file=path, remedy="Give overwrite=True to replace it.")
    with atomic_file(path) as file, _compressing(path, file) as stream:
        _write_hdus(stream, _hdus(ad, path))


def as_hdulist(ad: AstroData) -> Any:
    """Return a data set as an astropy HDU list, as it would be written."""
    stream = io.BytesIO()
    _write_hdus(stream, _hdus(ad, Path(ad.filename or "")))
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
    remedy = "Check that the folder exists, is writable, and has space."
    try:
        with storage_faults("the file cannot be written", path, remedy=remedy):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)  # noqa: PTH105  # the call that failed-write tests replace
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_hdus(stream: IO[bytes], hdus: fits.HDUList) -> None:
    for hdu in hdus:
        hdu.add_checksum(when="Checksum of this HDU")
    hdus.writeto(stream, output_verify="ignore")


def _hdus(ad: AstroData, path: Path) -> fits.HDUList:
    phu = ad.phu.copy()
    hdus = fits.HDUList([fits.PrimaryHDU()])
    versions = _versions(ad.extensions)
    for extension, version in zip(ad.extensions, versions, strict=True):
        hdus.extend(_extension(extension, version, path))
    for name in sorted(ad.tables):
        is_record = name in ("HISTORY", "PROVENANCE")
        with filters_kept():
            hdus.append(_table(ad.records.rows(name) if is_record else ad.columns(name), name))
    hdus.update_extend()
    if len(ad.extensions) == 1 and ad.extensions[0].has_new_wcs:
        copy_to_primary(ad.extensions[0].sky_mapping, phu)
    phu.set("NEXTEND", len(hdus) - 1, "Number of extensions")
    _add_cards(hdus[0], phu, path)
    return hdus


def _versions(extensions: list[Extension]) -> list[int]:
    """Keep the numbers that extensions have, and number the others behind them."""
    kept: list[int | None] = []
    for extension in extensions:
        number = extension.hdr.get("EXTVER")
        usable = isinstance(number, int) and number > 0 and number not in kept
        kept.append(number if usable else None)
    following = itertools.count(max((n for n in kept if n), default=0) + 1)
    return [next(following) if number is None else number for number in kept]


def _extension(extension: Extension, version: int, path: Path) -> Iterator[Any]:
    science = extension.header_for_writing()
    data = extension.read("data")
    if extension._phu is not None and any(keyword in extension._phu for keyword in _MASK_KEYWORDS):
        # The pixels of a bad pixel mask are bits, and readers expect whole numbers.
        data = data.astype(np.int16)
    yield _image(data, "SCI", version, science.copy(), path)
    for name in ("variance", "mask"):
        array = extension.read(name)
        if array is not None:
            yield _image(array, _PLANE_NAMES[name], version, _plane_header(extension, name, science), path)
    for name in extension.extras:
        held = extension._extras[name]
        if isinstance(held, Plane):
            header = _plane_header(extension, name, science, with_wcs=held.shape == extension.shape)
            yield _image(held.view(), name, version, header, path)
        else:
            table = cast(HeldTable, held)
            with filters_kept():
                made = _table(table.columns(), name, version, table.units)
            yield made


def _plane_header(extension: Extension, name: str, science: Any, *, with_wcs: bool = True) -> Any:
    """Return a plane's own header, with the geometry and the units that follow from the science plane."""
    own = extension._plane_headers.get(name)
    header = WatchedHeader.from_text("") if own is None else own.copy()
    if with_wcs:
        for key in science.keywords():
            if is_wcs_card(key) or key in ("RADESYS", "EQUINOX"):
                header.set(key, science[key], science.comment(key))
    if name == "variance" and "BUNIT" in science:
        header.set("BUNIT", f"{science['BUNIT']}2", "Unit of the variance")
    if name == "variance":
        # Without it CCDData.read() takes the plane for a standard deviation.
        header.set("UTYPE", "VarianceUncertainty", "Kind of uncertainty, for astropy.nddata")
    elif name == "mask":
        header.remove("BUNIT", ignore_missing=True)
    return header


def _image(array: NDArray[Any], name: str, version: int, header: Any, path: Path) -> Any:
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    hdu = fits.ImageHDU(array.astype(_WRITTEN_AS.get(kind, array.dtype), copy=False), name=name, ver=version)
    _add_cards(hdu, header, path)
    return hdu


def _add_cards(hdu: Any, header: WatchedHeader, path: Path) -> None:
    """Add the cards of a header, which is changed, behind those that describe the layout of an HDU."""
    drop_structure(header)
    for key in _NAMED:
        header.remove(key, ignore_missing=True, remove_all=True)
    try:
        # Cards of old files that are not quite standard are put right here; comments may be cut.
        with without_warnings():
            text = header.tostring(endcard=False, padding=False)
    except (fits.VerifyError, ValueError) as error:
        raise DataError("a header cannot be written", file=path, found=str(error)) from error
    for card in fits.Header.fromstring(text).cards:
        hdu.header.append(card, end=True)


def _table(
    content: Any, name: str, version: int | None = None, units: Mapping[str, str] | None = None
) -> Any:
    rows = _plain_rows(content) if is_rows(content) else None
    if rows is not None:
        hdu = fits.BinTableHDU()
        hdu.data = rows
        texts = dict(units or {})
    else:
        hdu, texts = _any_table(content)
        texts.update(units or {})
    for column, text in texts.items():
        hdu.columns[column].unit = text
    hdu.name = name
    if version is not None:
        hdu.ver = version
    return hdu


def _plain_rows(rows: NDArray[Any]) -> NDArray[Any] | None:
    """Return columns of numbers and texts in the byte order of FITS; None if there are others.

    With these, astropy makes a table HDU without the time that the import of its tables takes.
    """
    columns = {
        column: as_ascii(rows[column]) if rows.dtype[column].kind == "U" else rows[column]
        for column in rows.dtype.names or ()
    }
    for values in columns.values():
        kind = f"{values.dtype.kind}{values.dtype.itemsize}"
        if values.ndim > 1 or not (kind in _PLAIN_COLUMNS or values.dtype.kind == "S"):
            return None
    return as_rows({column: v.astype(v.dtype.newbyteorder(">")) for column, v in columns.items()})


def as_ascii(texts: Any) -> Any:
    """Return texts as ASCII bytes; FITS has no other characters, so they become escapes, with a warning."""
    plain = np.char.encode(texts, "ascii", "backslashreplace")
    if any(not text.isascii() for text in np.ravel(np.asarray(texts)).tolist()):
        logging.getLogger(__name__).warning(
            "a table holds characters that FITS does not have: they are written as escapes, such as \\xe9"
        )
    return plain


def _any_table(content: Any) -> tuple[Any, dict[str, str]]:
    """Return the HDU of an astropy table without units, and the units."""
    from astropy.table import Column, Table

    table = Table(content)
    units: dict[str, str] = {}
    for name in table.colnames:
        column = table[name]
        if column.unit is not None:
            units[name] = _unit_text(column.unit)
            column.unit = None
        if column.dtype.kind == "U" and not hasattr(column, "mask"):
            table[name] = Column(as_ascii(column))
        elif column.dtype == np.int8:
            # FITS has no signed bytes, and astropy would write truth values.
            table[name] = column.astype(np.int16)
    table.meta = {key: value for key, value in table.meta.items() if _is_card(key.upper(), value)}
    with without_warnings():
        return fits.table_to_hdu(table), units


def _unit_text(unit: Any) -> str:
    """Return a unit in the spelling of FITS, or as astropy spells it where FITS has no word for it."""
    try:
        return str(unit.to_string("fits"))
    except (ValueError, TypeError, AttributeError):
        return str(unit).encode("ascii", "backslashreplace").decode()


def _is_card(key: str, value: Any) -> bool:
    return (
        len(key) <= 8
        and key.isascii()
        and key not in _NAMED
        and not is_structural(key)
        and isinstance(value, str | int | float | bool)
        and "\n" not in str(value)
    )


@contextlib.contextmanager
def _compressing(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix == ".gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, compresslevel=4) as stream:
            yield cast("IO[bytes]", stream)
    elif path.suffix == ".bz2":
        with bz2.BZ2File(file, "wb") as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield file
