"""From a FITS file or HDU list to extensions, tables and records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.fits_source import FitsSource, HduRecord
from niripipe.astrodata.headers import WatchedHeader, drop_structure
from niripipe.astrodata.planes import Plane, row_blocks
from niripipe.astrodata.provenance import RECORD_TABLES, Records
from niripipe.astrodata.tables import HeldTable
from niripipe.errors import DataError

__all__ = ["Contents", "read_file", "read_hdus"]

_GLOBAL_TABLES = frozenset({"REFCAT", "MDF", *RECORD_TABLES})
_ROWS = 64
_PLANES = ("science", "variance", "mask")


@dataclass
class Contents:
    """What a file holds, sorted into the parts of a data set."""

    phu: WatchedHeader
    extensions: list[Extension] = field(default_factory=list)
    tables: dict[str, HeldTable] = field(default_factory=dict)
    records: Records = field(default_factory=Records)


def read_file(path: Path) -> Contents:
    """Read headers and structure of a FITS file; pixels and tables follow on first use.

    Parameters
    ----------
    path : pathlib.Path
        The file, which may be compressed.

    Raises
    ------
    InputError, DataError, StorageError
        See `FitsSource`; `DataError` also when the HDUs cannot be assigned to science planes.
    """
    source = FitsSource(path)
    items = [_Item.of_file(source, record) for record in source.records]
    return _assemble(items, str(path))


def read_hdus(hdus: Sequence[Any], path: str | None = None) -> Contents:
    """Copy an astropy HDU list; nothing is shared with it.

    Parameters
    ----------
    hdus : sequence of HDUs
        The primary HDU and the extensions.
    path : str, optional
        File name for error messages.
    """
    return _assemble([_Item.of_hdu(i, hdu) for i, hdu in enumerate(hdus)], path)


@dataclass
class _Item:
    """One HDU with the ways to get at its content."""

    index: int
    header: WatchedHeader
    kind: str
    name: str
    version: int | None
    shape: tuple[int, ...]
    has_data: bool
    plane: Callable[[str], Plane]
    table: Callable[[], Any]
    rows: Callable[[], Any]

    @classmethod
    def of_file(cls, source: FitsSource, record: HduRecord) -> _Item:
        return cls(
            record.index,
            record.header,
            record.kind,
            record.name,
            record.version,
            record.shape,
            bool(record.shape),
            lambda role: Plane(
                loader=_PixelLoader(source, record, role),
                shape=record.shape,
                dtype=_dtype_of(role, record),
            ),
            _TableLoader(source, record.index),
            _RowLoader(source, record.index),
        )

    @classmethod
    def of_hdu(cls, index: int, hdu: Any) -> _Item:
        header = WatchedHeader(hdu.header, copy=True)
        kind = "image" if hdu.is_image else "table"
        shape = tuple(hdu.shape) if kind == "image" else ()
        record = HduRecord(index, header, kind, shape, 0, 0, 0)
        return cls(
            index,
            header,
            kind,
            record.name,
            record.version,
            shape,
            hdu.data is not None,
            lambda role: Plane(_for_role(_native_copy(hdu.data), role, None, index)),
            partial(_same, _table_of(hdu) if kind == "table" else None),
            partial(_same, np.array(hdu.data) if kind == "table" else None),
        )


def _assemble(items: list[_Item], path: str | None) -> Contents:
    contents = Contents(phu=items[0].header)
    images = [item for item in items if item.kind == "image" and item.has_data]
    science = _science(images, path)
    for item, version in science:
        contents.extensions.append(_extension(item, version, contents.phu, path))
    _attach_images(contents, science, images, path)
    _attach_tables(contents, science, [item for item in items if item.kind == "table"])
    if science and science[0][0].index == 0:
        drop_structure(contents.phu)
        for key in ("EXTNAME", "EXTVER"):
            contents.phu.remove(key, ignore_missing=True)
    return contents


def _science(images: list[_Item], path: str | None) -> list[tuple[_Item, int]]:
    """Return the science planes with their version numbers."""
    science = [item for item in images if item.name in ("", "SCI")]
    if not science and len(images) == 1:
        science = images  # a lone image is what the file is about, whatever it is called
    if not science and images:
        raise DataError(
            "the file has several image extensions but no science plane",
            file=path,
            found=", ".join(item.name for item in images),
            expected="an extension named SCI",
        )
    if len(science) == 1:
        others = [item.version for item in images if item is not science[0] and item.version]
        return [(science[0], science[0].version or (min(others) if others else 1))]
    taken = {item.version for item in images if item.version and item.name}
    highest = max(taken, default=0)
    numbered: list[tuple[_Item, int]] = []
    for item in science:
        version = item.version if item.name else None
        if version is None:
            highest += 1
            version = highest
        numbered.append((item, version))
    if len({version for _, version in numbered}) < len(numbered):
        raise DataError(
            "two science planes have the same number",
            file=path,
            item="EXTVER",
            found=[version for _, version in numbered],
            expected="a number of its own for each SCI extension",
        )
    return numbered


def _extension(item: _Item, version: int, phu: WatchedHeader, path: str | None) -> Extension:
    if len(item.shape) != 2:
        raise DataError(
            "a science plane is not a two-dimensional image",
            file=path,
            item=f"HDU {item.index} {item.name}".rstrip(),
            found=f"shape {item.shape}",
            expected="(ny, nx)",
        )
    header = item.header
    if item.index == 0:
        header = header.copy()
        for key in ("SIMPLE", "EXTEND"):
            header.remove(key, ignore_missing=True)
    if header.get("EXTNAME") != "SCI":
        header.set("EXTNAME", "SCI", "Name of the extension")
    if header.get("EXTVER") != version:
        header.set("EXTVER", version, "Number of the extension")
    return Extension._adopt(item.plane("science"), header, phu)


def _attach_images(
    contents: Contents, science: list[tuple[_Item, int]], images: list[_Item], path: str | None
) -> None:
    used = {item.index for item, _ in science}
    by_version = dict(zip([version for _, version in science], contents.extensions, strict=True))
    for item in images:
        if item.index in used:
            continue
        extension = by_version.get(item.version) if item.version else None
        if extension is None and item.version is None and len(contents.extensions) == 1:
            extension = contents.extensions[0]
        if extension is None:
            _refuse_orphan(item, sorted(by_version), path)
        else:
            _attach(extension, item, path)


def _attach(extension: Extension, item: _Item, path: str | None) -> None:
    role = {"VAR": "variance", "DQ": "mask"}.get(item.name)
    if role and item.shape != extension.shape:
        raise DataError(
            "two planes of an extension differ in shape",
            file=path,
            item=f"{item.name},{extension.hdr['EXTVER']}",
            found=item.shape,
            expected=extension.shape,
        )
    if not extension._attach_plane(role or item.name, item.plane(role or item.name), item.header):
        raise DataError(
            "an extension has two planes of the same name",
            file=path,
            item=f"{item.name},{extension.hdr['EXTVER']}",
        )


def _refuse_orphan(item: _Item, versions: list[int], path: str | None) -> None:
    name = f"{item.name},{item.version}"
    if item.name in ("VAR", "DQ"):
        raise DataError(
            "a variance or mask plane belongs to no science plane",
            file=path,
            item=name,
            expected=f"an EXTVER among {versions}",
        )
    logging.getLogger(__name__).warning(
        "%s: image %s belongs to no science plane and is left out", path, name
    )


def _attach_tables(contents: Contents, science: list[tuple[_Item, int]], tables: list[_Item]) -> None:
    by_version = dict(zip([version for _, version in science], contents.extensions, strict=True))
    unnamed = 0
    for item in tables:
        name = item.name
        if not name:
            unnamed += 1
            name = f"TABLE{unnamed}"
        if name in RECORD_TABLES:
            contents.records.add_loader(name, item.rows)
            continue
        extension = by_version.get(item.version) if item.version else None
        if name == "WCS" and extension is not None:
            continue  # the text form of a gWCS; the FITS keywords beside it are what is used
        holder = HeldTable(loader=item.table)
        if extension is not None and name not in _GLOBAL_TABLES:
            extension._attach_table(name, holder)
        else:
            contents.tables.setdefault(name, holder)


@dataclass(frozen=True)
class _PixelLoader:
    source: FitsSource
    record: HduRecord
    role: str

    @property
    def by_rows(self) -> bool:
        """Whether single rows can be read as they are."""
        return self.role in _PLANES and self.source.gives_rows(self.record)

    def __call__(self) -> NDArray[Any]:
        if not self.by_rows:
            return self.read_rows(None)
        array = np.empty(self.record.shape, _dtype_of(self.role, self.record))
        for rows in row_blocks(len(array)):
            array[rows] = self.read_rows(rows)
        return array

    def read_rows(self, rows: slice | None) -> NDArray[Any]:
        """Read some rows, or all."""
        record = self.record
        pixels = self.source.pixels(record, rows)
        to_float = self.role != "mask" and self.role in _PLANES
        if not to_float or record.scaling != (1.0, 0.0) or record.blank is not None:
            # Otherwise the conversion to float puts the bytes in order as well.
            pixels = _native(pixels)
        if not record.tiled:
            pixels = _scale(pixels, *record.scaling, record.blank, to_float=to_float)
        return _for_role(pixels, self.role, self.source.path, record.index)


@dataclass(frozen=True)
class _TableLoader:
    source: FitsSource
    index: int

    def __call__(self) -> Any:
        with self.source.as_hdulist() as hdus:
            return _table_of(hdus[self.index])


@dataclass(frozen=True)
class _RowLoader:
    source: FitsSource
    index: int

    def __call__(self) -> Any:
        with self.source.as_hdulist() as hdus:
            return hdus[self.index].data


def _same(value: Any) -> Any:
    """Return a value that was read already, where others have to be loaded."""
    return value


def _table_of(hdu: Any) -> Any:
    from astropy.table import Table

    return Table.read(
        hdu, format="fits", unit_parse_strict="silent", character_as_bytes=False, mask_invalid=False
    )


def _native_copy(data: Any) -> NDArray[Any]:
    array = np.asarray(data)
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=True)


def _dtype_of(role: str, record: HduRecord) -> Any:
    if role in ("science", "variance"):
        return np.float32
    if role == "mask":
        return np.uint16
    if role == "OBJMASK" and record.bitpix == 8:
        return np.uint8
    if record.scaling == (1.0, 0.0):
        return record.stored_dtype.newbyteorder("=")
    if record.scaling == (1.0, _unsigned_offset(record.bitpix)):
        return np.dtype(f"u{record.bitpix // 8}")
    return np.float32


def _native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Put the bytes of an array of one's own into the order of the machine, in place."""
    if pixels.dtype.isnative:
        return pixels
    return pixels.byteswap(inplace=True).view(pixels.dtype.newbyteorder("="))


def _unsigned_offset(bitpix: int) -> float:
    return 2.0 ** (bitpix - 1) if bitpix in (16, 32, 64) else float("nan")


def _scale(pixels: NDArray[Any], bscale: float, bzero: float, blank: Any, *, to_float: bool) -> NDArray[Any]:
    """Apply BSCALE, BZERO and BLANK, in row blocks where the result is another array."""
    bits = 8 * pixels.dtype.itemsize
    if pixels.dtype.kind == "i" and (bscale, bzero) == (1.0, _unsigned_offset(bits)) and not to_float:
        unsigned = pixels.view(f"u{bits // 8}")
        unsigned ^= unsigned.dtype.type(1 << (bits - 1))
        return unsigned
    if (bscale, bzero) == (1.0, 0.0) and (blank is None or not to_float):
        return pixels
    result = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), _ROWS):
        rows = pixels[start : start + _ROWS]
        block = rows * np.float64(bscale)
        block += bzero
        if blank is not None:
            block[rows == blank] = np.nan
        result[start : start + _ROWS] = block
    return result


def _for_role(pixels: NDArray[Any], role: str, path: Any, index: int) -> NDArray[Any]:
    """Convert scaled pixels to the dtype that their plane has in memory."""
    if role in ("science", "variance"):
        return pixels.astype(np.float32, copy=False)
    if role == "mask":
        return _as_mask(pixels, path, index)
    if pixels.dtype == bool or (role == "OBJMASK" and pixels.dtype != np.uint8 and _fits(pixels, 255)):
        return pixels.astype(np.uint8)
    return pixels


def _as_mask(pixels: NDArray[Any], path: Any, index: int) -> NDArray[Any]:
    if pixels.dtype not in (np.uint16, np.uint8, bool) and not _fits(pixels, 65535):
        raise DataError(
            "a mask holds values that are not data quality bits",
            file=path,
            item=f"HDU {index}",
            found=f"{pixels.min()} to {pixels.max()}",
            expected="integers from 0 to 65535",
        )
    return pixels.astype(np.uint16, copy=False)


def _fits(pixels: NDArray[Any], largest: int) -> bool:
    """Return whether all pixels are integers from 0 to `largest`."""
    if pixels.size == 0:
        return True
    if not (pixels.min() >= 0 and pixels.max() <= largest):
        return False
    return pixels.dtype.kind in "iub" or bool((pixels == np.rint(pixels)).all())
