"""From a FITS file or HDU list to extensions, tables and records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.fits_source import FitsSource, HduRecord
from niripipe.astrodata.headers import drop_structure, readable_copy
from niripipe.astrodata.planes import Plane, row_blocks
from niripipe.astrodata.provenance import RECORD_TABLES
from niripipe.astrodata.quiet import filters_kept
from niripipe.astrodata.slices import Parts
from niripipe.astrodata.tables import HeldTable
from niripipe.errors import DataError

__all__ = ["read_file", "read_hdus"]

_GLOBAL_TABLES = frozenset({"REFCAT", "MDF", *RECORD_TABLES})
_ROLES = {"VAR": "variance", "DQ": "mask"}
_PLANES = ("science", "variance", "mask")


def read_file(path: Path) -> Parts:
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
    return _Assembly(source.records, _FileContent(source), str(path)).parts


def read_hdus(hdus: Sequence[Any]) -> Parts:
    """Copy an astropy HDU list, the primary HDU first; nothing is shared with it."""
    records = []
    for index, hdu in enumerate(hdus):
        is_image = hdu.is_image
        shape = tuple(hdu.shape) if is_image and hdu.data is not None else ()
        header = readable_copy(hdu.header)
        records.append(HduRecord(index, header, "image" if is_image else "table", shape, 0, 0, 0))
    return _Assembly(records, _HduContent(hdus), None).parts


class _FileContent:
    """Planes and tables of a file, which are read on first use."""

    def __init__(self, source: FitsSource) -> None:
        self.source = source

    def plane(self, hdu: HduRecord, role: str) -> Plane:
        loader = _PixelLoader(self.source, hdu, role)
        return Plane(loader=loader, shape=hdu.shape, dtype=_dtype_of(role, hdu))

    def table(self, hdu: HduRecord) -> HeldTable:
        return HeldTable(loader=partial(_read_table, self.source, hdu.index))

    def rows(self, hdu: HduRecord) -> Callable[[], Any]:
        return partial(_read_rows, self.source, hdu.index)


class _HduContent:
    """Planes and tables of an astropy HDU list, which are copied."""

    def __init__(self, hdus: Sequence[Any]) -> None:
        self.hdus = hdus

    def plane(self, hdu: HduRecord, role: str) -> Plane:
        stored = np.asarray(self.hdus[hdu.index].data)
        pixels = stored.astype(stored.dtype.newbyteorder("="), order="C", copy=True)
        return Plane(_for_role(pixels, role, None, hdu.index))

    def table(self, hdu: HduRecord) -> HeldTable:
        return HeldTable(_table_of(self.hdus[hdu.index]))

    def rows(self, hdu: HduRecord) -> Callable[[], Any]:
        return np.array(self.hdus[hdu.index].data).copy


class _Assembly:
    """Sorts HDUs into the parts of a data set.

    Attributes
    ----------
    parts : Parts
        The result.
    """

    def __init__(self, hdus: list[HduRecord], content: _FileContent | _HduContent, path: str | None) -> None:
        self.content, self.path = content, path
        _warn_of_unreadable_cards(hdus, path)
        self.parts = Parts(hdus[0].header)
        images = [hdu for hdu in hdus if hdu.kind == "image" and hdu.shape]
        science = _science(images, path)
        self.by_version = {version: self._extension(hdu, version) for hdu, version in science}
        self.parts.extensions.extend(self.by_version.values())
        used = {hdu.index for hdu, _ in science}
        for hdu in images:
            if hdu.index not in used:
                self._attach_image(hdu)
        self._attach_tables([hdu for hdu in hdus if hdu.kind == "table"])
        if 0 in used:
            drop_structure(self.parts.phu)
            for key in ("EXTNAME", "EXTVER"):
                self.parts.phu.remove(key, ignore_missing=True)

    def _extension(self, hdu: HduRecord, version: int) -> Extension:
        if len(hdu.shape) != 2:
            raise DataError(
                "a science plane is not a two-dimensional image",
                file=self.path,
                item=f"HDU {hdu.index} {hdu.name}".rstrip(),
                found=f"shape {hdu.shape}",
                expected="(ny, nx)",
            )
        header = hdu.header
        if hdu.index == 0:
            header = header.copy()
            for key in ("SIMPLE", "EXTEND"):
                header.remove(key, ignore_missing=True)
        if header.get("EXTNAME") != "SCI":
            header.set("EXTNAME", "SCI", "Name of the extension")
        if header.get("EXTVER") != version:
            header.set("EXTVER", version, "Number of the extension")
        return Extension._adopt(self.content.plane(hdu, "science"), header, self.parts.phu)

    def _attach_image(self, hdu: HduRecord) -> None:
        extension = self.by_version.get(hdu.version) if hdu.version else None
        if extension is None and hdu.version is None and len(self.by_version) == 1:
            extension = self.parts.extensions[0]
        if extension is None:
            self._refuse_orphan(hdu)
            return
        item = f"{hdu.name},{extension.hdr['EXTVER']}"
        role = _ROLES.get(hdu.name, hdu.name)
        if hdu.name in _ROLES and hdu.shape != extension.shape:
            raise DataError(
                "two planes of an extension differ in shape",
                file=self.path,
                item=item,
                found=hdu.shape,
                expected=extension.shape,
            )
        if not extension._attach_plane(role, self.content.plane(hdu, role), hdu.header):
            raise DataError("an extension has two planes of the same name", file=self.path, item=item)

    def _refuse_orphan(self, hdu: HduRecord) -> None:
        name = f"{hdu.name},{hdu.version}"
        if hdu.name in _ROLES:
            raise DataError(
                "a variance or mask plane belongs to no science plane",
                file=self.path,
                item=name,
                expected=f"an EXTVER among {sorted(self.by_version)}",
            )
        logging.getLogger(__name__).warning(
            "%s: image %s belongs to no science plane and is left out", self.path, name
        )

    def _attach_tables(self, tables: list[HduRecord]) -> None:
        unnamed = 0
        for hdu in tables:
            name = hdu.name
            if not name:
                unnamed += 1
                name = f"TABLE{unnamed}"
            extension = self.by_version.get(hdu.version) if hdu.version else None
            if name in RECORD_TABLES:
                self.parts.records.add_loader(name, self.content.rows(hdu))
            elif extension is None or name in _GLOBAL_TABLES:
                self.parts.tables.setdefault(name, self.content.table(hdu))
            elif name != "WCS":  # the text form of a gWCS; the FITS keywords are used instead
                extension._attach_table(name, self.content.table(hdu))


def _warn_of_unreadable_cards(hdus: Sequence[HduRecord], path: str | None) -> None:
    found = [f"{key} ({text[:20]})" for hdu in hdus for key, text in hdu.header.unreadable.items()]
    if found:
        logging.getLogger(__name__).warning(
            "%s: not a value in FITS form, counts as missing: %s", path or "a frame", ", ".join(found)
        )


def _science(images: list[HduRecord], path: str | None) -> list[tuple[HduRecord, int]]:
    """Return the science planes with their version numbers."""
    science = [hdu for hdu in images if hdu.name in ("", "SCI")]
    if not science and len(images) == 1:
        science = images  # a lone image is what the file is about, whatever it is called
    if not science and images:
        raise DataError(
            "the file has several image extensions but no science plane",
            file=path,
            found=", ".join(hdu.name for hdu in images),
            expected="an extension named SCI",
        )
    if len(science) == 1:
        others = [hdu.version for hdu in images if hdu is not science[0] and hdu.version]
        return [(science[0], science[0].version or min(others, default=1))]
    highest = max((hdu.version for hdu in images if hdu.version and hdu.name), default=0)
    numbered: list[tuple[HduRecord, int]] = []
    for hdu in science:
        version = hdu.version if hdu.name else None
        if version is None:
            highest += 1
            version = highest
        numbered.append((hdu, version))
    if len({version for _, version in numbered}) < len(numbered):
        raise DataError(
            "two science planes have the same number",
            file=path,
            item="EXTVER",
            found=[version for _, version in numbered],
            expected="a number of its own for each SCI extension",
        )
    return numbered


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
        pixels = _native(self.source.pixels(record, rows))
        if not record.tiled:
            to_float = self.role in ("science", "variance")
            pixels = _scale(pixels, *record.scaling, record.blank, to_float=to_float)
        return _for_role(pixels, self.role, self.source.path, record.index)


def _read_table(source: FitsSource, index: int) -> Any:
    with source.as_hdulist() as hdus:
        return _table_of(hdus[index])


def _read_rows(source: FitsSource, index: int) -> Any:
    with source.as_hdulist() as hdus:
        return hdus[index].data


def _table_of(hdu: Any) -> Any:
    from astropy.table import Table
    from astropy.units import Unit, UnrecognizedUnit

    with filters_kept():
        table = Table.read(
            hdu, format="fits", unit_parse_strict="silent", character_as_bytes=False, mask_invalid=False
        )
        for column in table.itercols():
            if isinstance(column.unit, UnrecognizedUnit):
                # Not a unit of FITS: mag(AB), electron / s.
                column.unit = Unit(str(column.unit), parse_strict="silent")
    return table


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
    """Put the bytes of an array into the order of the machine, in place."""
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
    for rows in row_blocks(len(pixels)):
        block = pixels[rows] * np.float64(bscale)
        block += bzero
        if blank is not None:
            block[pixels[rows] == blank] = np.nan
        result[rows] = block
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
