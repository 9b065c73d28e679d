"""The data set: a primary header, extensions, and tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, NoReturn, Self, cast

import numpy as np

from niripipe.astrodata import arithmetic, descriptors, display, naming, tags
from niripipe.astrodata.descriptors import astro_data_descriptor
from niripipe.astrodata.extension import Extension, check_extra_name
from niripipe.astrodata.headers import HeaderManager, WatchedHeader, header_value, watched
from niripipe.astrodata.planes import ArrayPlane, RowFunction, Rows
from niripipe.astrodata.provenance import HistoryRecord, ProvenanceRecord, Records
from niripipe.astrodata.section import Section
from niripipe.astrodata.tables import HeldTable, is_table
from niripipe.errors import DataError, InputError, StorageError

if TYPE_CHECKING:
    from niripipe.astrodata.fits_read import Contents

__all__ = ["AstroData"]

_UNSET: Any = object()
_RECORDS = ("HISTORY", "PROVENANCE")


class _Parts:
    """What a data set and all slices of it have in common."""

    def __init__(self, phu: WatchedHeader) -> None:
        self.phu = phu
        self.extensions: list[Extension] = []
        self.tables: dict[str, HeldTable] = {}
        self.records = Records()
        self.path: str | None = None
        self.orig_filename: str | None = None
        self.read_from: str | None = None
        self.tag_cache: tuple[object, frozenset[str]] | None = None


class AstroData:
    """A data set: a primary header (PHU), an ordered list of extensions, and tables.

    Data sets come from `niripipe.astrodata.open` and `niripipe.astrodata.create`, which choose the class
    that knows the instrument.

    Parameters
    ----------
    phu : header, HDU, dict or list of cards, optional
        The primary header; copied.
    extensions : sequence, optional
        Arrays or `Extension` objects.

    Notes
    -----
    Indexing gives slices, which share everything with the data set: ``ad[0]`` is one extension, ``ad[1:3]``
    a shorter data set. What belongs to an extension (`data`, `variance`, `mask`, `wcs`, `shape`, many
    descriptors) is one value on a single slice and a list, one entry an extension, otherwise.

    Upper-case attributes are tables and arrays: ``ad[0].OBJCAT`` belongs to an extension, ``ad.REFCAT``
    to the data set. ``ad.HISTORY`` and ``ad.PROVENANCE`` are tables made from `history` and `provenance`.

    Arithmetic propagates variance and mask, see `niripipe.astrodata.arithmetic`. ``+= -= *= /=`` and the
    methods `add`, `subtract`, `multiply`, `divide` work in place.

    Copies are cheap: pixels are shared until one of the copies writes.
    """

    # numpy has to leave arithmetic with arrays on the left to this class
    __array_ufunc__ = None

    _keywords: ClassVar[dict[str, str]] = {
        "instrument": "INSTRUME",
        "object": "OBJECT",
        "telescope": "TELESCOP",
    }

    _parts: _Parts
    _indices: tuple[int, ...] | None
    _single: bool

    def __init__(self, phu: Any = None, extensions: Sequence[Any] = ()) -> None:
        self._parts = _Parts(watched(phu))
        self._indices = None
        self._single = False
        for extension in extensions:
            self.append(extension)

    @classmethod
    def _from_contents(cls, contents: Contents, path: str | None) -> Self:
        """Make a data set of what a reader found; nothing is copied."""
        ad = cls.__new__(cls)
        ad._parts = parts = _Parts(contents.phu)
        ad._indices, ad._single = None, False
        parts.extensions, parts.tables, parts.records = contents.extensions, contents.tables, contents.records
        if path is not None:
            ad.path = path
            parts.read_from = path
            if "ORIGNAME" not in parts.phu:
                parts.phu.set("ORIGNAME", ad.filename, "Original file name before processing")
        return ad

    # ---- slices

    def __len__(self) -> int:
        return len(self._parts.extensions) if self._indices is None else len(self._indices)

    def __getitem__(self, index: int | slice | tuple[int, ...] | list[int]) -> Self:
        if self._single:
            raise TypeError("a single extension cannot be sliced")
        own = self.indices
        if isinstance(index, slice):
            return self._slice(tuple(own[index]), single=False)
        if isinstance(index, tuple | list) and index:
            return self._slice(tuple(own[self._position(i)] for i in index), single=False)
        return self._slice((own[self._position(index)],), single=True)

    def __delitem__(self, index: int) -> None:
        if self.is_sliced:
            raise TypeError("extensions can be removed from a whole data set only, not from a slice")
        del self._parts.extensions[self._position(index)]
        self._parts.tag_cache = None

    def __iter__(self) -> Iterator[Self]:
        if self._single:
            yield self
        else:
            for index in self.indices:
                yield self._slice((index,), single=True)

    @property
    def is_single(self) -> bool:
        """Whether this is one extension, from an index that is an integer."""
        return self._single

    @property
    def is_sliced(self) -> bool:
        """Whether this is a slice of a data set."""
        return self._indices is not None

    @property
    def indices(self) -> list[int]:
        """Positions of these extensions in the whole data set."""
        return list(range(len(self._parts.extensions)) if self._indices is None else self._indices)

    @property
    def id(self) -> int:
        """Number of the extension in the whole data set, from 1; single slices only."""
        if self._indices is None or not self._single:
            raise ValueError("only a single extension has an id")
        return self._indices[0] + 1

    @property
    def extensions(self) -> list[Extension]:
        """The extension objects themselves."""
        return [self._parts.extensions[i] for i in self.indices]

    @property
    def waits(self) -> bool:
        """Whether the data can be had again from files, so that what is done to them pixel by pixel waits."""
        return all(extension.waits for extension in self.extensions)

    # ---- headers, names, tags

    @property
    def phu(self) -> Any:
        """The primary header."""
        return self._parts.phu

    @phu.setter
    def phu(self, header: Any) -> None:
        self._parts.phu = watched(header)
        self._parts.tag_cache = None
        for extension in self._parts.extensions:
            extension._phu = self._parts.phu

    @property
    def hdr(self) -> Any:
        """The extension's header; on a data set, a `HeaderManager` for all (None if there are none)."""
        if self._single:
            return self._extension.hdr
        return HeaderManager([extension.hdr for extension in self.extensions]) if len(self) else None

    @property
    def path(self) -> str | None:
        """File name with its folder. The first one given also becomes `orig_filename`."""
        return self._parts.path

    @path.setter
    def path(self, path: str | os.PathLike[str] | None) -> None:
        self._refuse_slice("path")
        self._parts.path = None if path is None else os.fspath(path)
        if self._parts.orig_filename is None and path is not None:
            self._parts.orig_filename = naming.base_name(os.fspath(path))

    @property
    def filename(self) -> str | None:
        """File name without folder. Setting it keeps the folder of `path`."""
        return None if self.path is None else naming.base_name(self.path)

    @filename.setter
    def filename(self, name: str | os.PathLike[str]) -> None:
        self._refuse_slice("filename")
        if Path(name).is_absolute():
            raise ValueError(f"a file name is relative; set path to change the folder as well: {name}")
        folder = Path.cwd() if self.path is None else Path(self.path).parent
        self.path = folder / name

    @property
    def orig_filename(self) -> str | None:
        """File name when the data set was opened or first named."""
        return self._parts.orig_filename

    @orig_filename.setter
    def orig_filename(self, name: str | None) -> None:
        self._refuse_slice("orig_filename")
        self._parts.orig_filename = name

    def update_filename(
        self, prefix: str | None = None, suffix: str | None = None, strip: bool = False
    ) -> None:
        """Change prefix and suffix of the file name.

        Parameters
        ----------
        prefix, suffix : str, optional
            What to put in front of and behind the stem; an empty string removes what is there if `strip`.
        strip : bool
            Replace the present prefix and suffix instead of adding to them, see `naming.product_name`.

        Raises
        ------
        InputError
            The data set has no name and the PHU no ORIGNAME.
        """
        original = header_value(self.phu, "ORIGNAME")
        if self.filename is None:
            if not original:
                raise InputError(
                    "the data set has no file name",
                    item="filename",
                    remedy="Set filename, or ORIGNAME in the primary header.",
                )
            self.filename = str(original)
        if not original:
            original = self.orig_filename
            self.phu.set("ORIGNAME", original, "Original file name before processing")
        self.filename = naming.product_name(
            str(self.filename), str(original), prefix=prefix, suffix=suffix, strip=strip
        )

    @property
    def tags(self) -> set[str]:
        """Tags of the data set, from the rules of its class; kept until the primary header changes."""
        parts = self._parts
        state = (type(self), parts.phu.state, len(parts.extensions))
        if parts.tag_cache is None or parts.tag_cache[0] != state:
            whole = self if self._indices is None else self._slice(None, single=False)
            cls: Any = type(self)
            found = tags.resolve(getattr(whole, name)() for name in tags.tag_methods(cls))
            parts.tag_cache = state, frozenset(found)
        return set(parts.tag_cache[1])

    @property
    def descriptors(self) -> tuple[str, ...]:
        """Names of all descriptors of the class."""
        cls: Any = type(self)
        return descriptors.descriptor_methods(cls)

    @astro_data_descriptor
    def instrument(self) -> str | None:
        """Name of the instrument (INSTRUME)."""
        return self._phu_text("instrument")

    @astro_data_descriptor
    def object(self) -> str | None:
        """Name of the target (OBJECT)."""
        return self._phu_text("object")

    @astro_data_descriptor
    def telescope(self) -> str | None:
        """Name of the telescope (TELESCOP)."""
        return self._phu_text("telescope")

    def _keyword_for(self, concept: str) -> str:
        """Return the header keyword for a concept, the most derived class first."""
        for cls in type(self).__mro__:
            keyword = cls.__dict__.get("_keywords", {}).get(concept)
            if keyword is not None:
                return str(keyword)
        raise AttributeError(f"no keyword is known for {concept!r}")

    def _phu_text(self, concept: str) -> str | None:
        value = header_value(self.phu, self._keyword_for(concept))
        return None if value is None else str(value)

    # ---- planes

    @property
    def data(self) -> Any:
        """Pixels, float32, shape ``(ny, nx)``; safe to write into."""
        return self._each(lambda extension: extension.data)

    @data.setter
    def data(self, array: Any) -> None:
        self._only("data").data = array

    @property
    def variance(self) -> Any:
        """Variance, float32, or None; safe to write into."""
        return self._each(lambda extension: extension.variance)

    @variance.setter
    def variance(self, array: Any) -> None:
        self._only("variance").variance = array

    @property
    def mask(self) -> Any:
        """Data quality bits, uint16, or None; safe to write into."""
        return self._each(lambda extension: extension.mask)

    @mask.setter
    def mask(self, array: Any) -> None:
        self._only("mask").mask = array

    @property
    def wcs(self) -> Any:
        """World coordinates, `astropy.wcs.WCS` or None."""
        return self._each(lambda extension: extension.wcs)

    @wcs.setter
    def wcs(self, wcs: Any) -> None:
        self._only("wcs").wcs = wcs

    @property
    def sky_mapping(self) -> Any:
        """World coordinates, `TangentPlane`, `astropy.wcs.WCS` or None; cheaper than `wcs`."""
        return self._each(lambda extension: extension.sky_mapping)

    @sky_mapping.setter
    def sky_mapping(self, mapping: Any) -> None:
        self._only("sky_mapping").sky_mapping = mapping

    @property
    def linear_wcs(self) -> Any:
        """The numbers of the linear part of `wcs`, `LinearTerms` or None; cheaper than `wcs`."""
        return self._each(lambda extension: extension.linear_wcs)

    @property
    def wcs_origin(self) -> Any:
        """Where the WCS came from: ``extension``, ``primary``, ``set`` or ``none``."""
        return self._each(lambda extension: extension.wcs_origin)

    @property
    def wcs_problem(self) -> Any:
        """Why the extension's own header was not used for the WCS; empty if it was."""
        return self._each(lambda extension: extension.wcs_problem)

    @property
    def shape(self) -> Any:
        """Shape of the pixels; nothing is read."""
        return self._each(lambda extension: extension.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of pixels in memory now."""
        return sum(extension.nbytes for extension in self.extensions)

    def read(self, name: str) -> Any:
        """Return ``data``, ``variance``, ``mask`` or an extra for reading only, without copying."""
        return self._each(lambda extension: extension.read(name))

    def plane(self, name: str) -> Any:
        """Return a plane or attached array wherever it is, see `Extension.plane`."""
        return self._each(lambda extension: extension.plane(name))

    def derive_variance(self, function: RowFunction, *, using: Sequence[ArrayPlane] = ()) -> None:
        """Set the variance as a function of the present data, see `Extension.derive_variance`."""
        for extension in self.extensions:
            extension.derive_variance(function, using=using)

    def variance_function(self) -> Any:
        """Return the function of the data that the variance still is, see `Extension.variance_function`."""
        return self._each(lambda extension: extension.variance_function())

    def variance_of(self, data: Any) -> Any:
        """Return the variance of a single extension for reading only, see `Extension.variance_of`."""
        return self._extension.variance_of(data)

    def derive_data(self, function: RowFunction, *, using: Sequence[ArrayPlane] = ()) -> Any:
        """Replace the data by a function of them, see `Extension.derive_data`."""
        return self._each(lambda extension: extension.derive_data(function, using=using))

    def compute_mask(self, function: Rows) -> None:
        """Set the mask to what a function makes of it, see `Extension.compute_mask`."""
        for extension in self.extensions:
            extension.compute_mask(function)

    def reset_within(
        self,
        shape: tuple[int, int],
        corner: tuple[int, int],
        data: ArrayPlane,
        variance: ArrayPlane | None,
        mask: Rows,
    ) -> None:
        """Replace the planes of a single extension by ones with a part, see `Extension.reset_within`."""
        self._extension.reset_within(shape, corner, data, variance, mask)

    def compute_extra(self, name: str, function: Rows, dtype: Any) -> None:
        """Attach an array that a function makes when it is needed, see `Extension.compute_extra`."""
        for extension in self.extensions:
            extension.compute_extra(name, function, dtype)

    def derive_mask(self, function: RowFunction) -> Any:
        """Replace the mask by a function of it, see `Extension.derive_mask`."""
        return self._each(lambda extension: extension.derive_mask(function))

    def handle(self, name: str) -> ArrayPlane | None:
        """Return a handle on a plane of a single extension as it is now, see `Extension.handle`."""
        return self._extension.handle(name)

    def take_over(self, name: str, source: AstroData) -> None:
        """Give a single extension a plane or extra of another, see `Extension.take_over`."""
        self._extension.take_over(name, source._extension)

    def compute_once(self, name: str) -> None:
        """Compute a plane that is a function of others, and keep it, see `Extension.compute_once`."""
        for extension in self.extensions:
            extension.compute_once(name)

    def read_once(self, name: str) -> Any:
        """Return a plane for reading only and keep no more of it than before, see `Extension.read_once`."""
        return self._each(lambda extension: extension.read_once(name))

    def rows(self, name: str) -> Any:
        """Rows of a plane without loading it if it is parked, see `Extension.rows`."""
        return self._each(lambda extension: extension.rows(name))

    def columns(self, name: str) -> Any:
        """Return the columns of a table for reading only, without making an astropy table of them.

        Parameters
        ----------
        name : str
            A table of the data set, or of the extension if this is a single slice.

        Returns
        -------
        numpy.ndarray or astropy.table.Table
            Either gives a column by its name, and its length is the number of rows.

        Raises
        ------
        AttributeError
            There is no table of that name.
        """
        held = self._parts.tables.get(name)
        if isinstance(held, HeldTable):
            return held.columns()
        return self._only("columns").columns(name)

    def set_columns(self, name: str, columns: Mapping[str, Any]) -> None:
        """Replace columns of a table of a single extension, or add them, see `Extension.set_columns`."""
        self._only("set_columns").set_columns(name, columns)

    def plane_header(self, name: str) -> Any:
        """Return the header of one plane or extra, see `Extension.plane_header`."""
        return self._each(lambda extension: extension.plane_header(name))

    def park(self, folder: str | os.PathLike[str]) -> int:
        """Move all pixels from memory to disk until they are used; see `Extension.park`."""
        return sum(extension.park(folder) for extension in self.extensions)

    # ---- tables and extras

    @property
    def tables(self) -> set[str]:
        """Names of the tables of the data set."""
        return set(self._parts.tables) | self._parts.records.names()

    @property
    def ext_tables(self) -> set[str]:
        """Names of the tables of a single extension."""
        return self._only("ext_tables").tables

    @property
    def exposed(self) -> set[str]:
        """Names of all tables and arrays that are attributes here."""
        return self.tables | (set(self._extension.extras) if self._single else set())

    @property
    def records(self) -> Records:
        """What keeps history and provenance."""
        return self._parts.records

    @property
    def history(self) -> list[HistoryRecord]:
        """The processing steps, in order; may be appended to."""
        return self._parts.records.history

    @property
    def provenance(self) -> list[ProvenanceRecord]:
        """The contributing files, in order; may be appended to."""
        return self._parts.records.provenance

    def table(self) -> dict[str, Any]:
        """Return the tables of the data set, by name."""
        return {name: getattr(self, name) for name in sorted(self.tables)}

    def table_sizes(self) -> dict[str, str]:
        """Return the size of each table of the data set as text."""
        sizes = {}
        for name in self.tables:
            is_record = name in _RECORDS
            rows: Any = self._parts.records.rows(name) if is_record else self._parts.tables[name].columns()
            sizes[name] = f"({len(rows)}, {len(rows.dtype.names)})"
        return sizes

    def __getattr__(self, name: str) -> Any:
        if name != name.upper() or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        if self._single and name in self._extension.extras:
            return self._extension.get_extra(name)
        if name in self._parts.tables:
            return self._parts.tables[name].hand_out()
        if name in self._parts.records.names():
            return self._parts.records.table(name)
        raise AttributeError(
            f"there is no {name!r}; there are {', '.join(sorted(self.exposed)) or 'no tables'}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == name.upper() and not name.startswith("_"):
            self._set_upper(name, value)
        elif (
            self.__dict__.get("_indices") is not None
            and not name.startswith("_")
            and not hasattr(type(self), name)
        ):
            raise AttributeError(
                f"{name!r} would be lost with this slice; {type(self).__name__} has no such attribute"
            )
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name != name.upper() or name.startswith("_"):
            super().__delattr__(name)
        elif self._single:
            self._extension.remove_extra(name)
        elif name in self._parts.records.names() and not self.is_sliced:
            self._parts.records.replace(name, None)
        elif name in self._parts.tables and not self.is_sliced:
            del self._parts.tables[name]
        else:
            raise AttributeError(f"there is no {name!r} to delete here")

    def _set_upper(self, name: str, value: Any) -> None:
        if self._single:
            if name in self.tables:
                raise InputError("the data set has a table of this name", item=name)
            self._extension.set_extra(name, value)
            return
        check_extra_name(name)
        if self.is_sliced:
            raise InputError(
                "a table can be given to a whole data set or to one extension",
                item=name,
                remedy="Use ad or ad[0].",
            )
        if any(name in extension.extras for extension in self._parts.extensions):
            raise InputError("an extension has a table or array of this name", item=name)
        if not is_table(value):
            raise InputError(
                "only tables can belong to a whole data set",
                item=name,
                found=type(value).__name__,
                expected="astropy.table.Table",
                remedy="Arrays belong to an extension: ad[0].NAME = array.",
            )
        if name in _RECORDS:
            self._parts.records.replace(name, value)
        else:
            self._parts.tables[name] = HeldTable(value)

    # ---- building and changing

    def append(self, obj: Any, name: str | None = None, header: Any = None) -> Extension:
        """Add an extension.

        Parameters
        ----------
        obj : array, image HDU, Extension, or single slice of another data set
            What to add; arrays are taken over, everything else is copied.
        name : str, optional
            Must be SCI, in any case, if it is given.
        header : header, dict or list of cards, optional
            Header of the extension.

        Returns
        -------
        Extension
            The new extension.

        Raises
        ------
        InputError
            The object cannot be an extension.
        TypeError
            This is a slice.
        """
        if self.is_sliced:
            raise TypeError("extensions can be appended to a whole data set only, not to a slice")
        if name is not None and name.upper() != "SCI":
            raise InputError("only science planes can be appended", item="name", found=name, expected="SCI")
        extension = _as_extension(obj, header)
        extension._phu = self._parts.phu
        if "EXTVER" in extension.hdr:
            extension.hdr.remove("EXTVER")
        self._parts.extensions.append(extension)
        return extension

    def copy(self) -> Self:
        """Return an independent data set; pixels are shared until one of the two writes.

        A copy of a slice is a whole data set with these extensions.
        """
        return self._like([extension.copy() for extension in self.extensions])

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()

    def reset(self, data: Any, mask: Any = _UNSET, variance: Any = _UNSET, check: bool = True) -> None:
        """Replace data, mask and variance of a single slice: all of them or, on an error, none.

        Parameters
        ----------
        data : array_like, Extension, single slice, or CCDData
            The new pixels. Of anything but an array, mask, variance and WCS are taken along unless given.
        mask, variance : array_like or None, optional
            The new planes; None removes the plane, and so does leaving it out with an array.
        check : bool
            Kept for compatibility: shapes are always checked.

        Raises
        ------
        InputError
            A plane is not usable, or the shapes differ.
        """
        extension = self._only("reset")
        is_whole = isinstance(data, AstroData | Extension) or hasattr(data, "uncertainty")
        source = _as_extension(data, None) if is_whole else None
        if source is not None:
            data = source.read("data")
            mask = source.read("mask") if mask is _UNSET else mask
            variance = source.read("variance") if variance is _UNSET else variance
        extension.reset(data, None if mask is _UNSET else mask, None if variance is _UNSET else variance)
        if source is not None and source.sky_mapping is not None:
            extension.sky_mapping = source.sky_mapping

    def operate(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Replace data, and mask and variance where present, by ``func(array, *args, **kwargs)``."""
        for extension in self.extensions:
            new = {
                name: func(extension.read(name), *args, **kwargs)
                for name in ("data", "mask", "variance")
                if extension.read(name) is not None
            }
            extension.reset(new["data"], new.get("mask"), new.get("variance"))

    def crop(self, x1: int, y1: int, x2: int, y2: int) -> None:
        """Keep a rectangle of every extension, limits included.

        Parameters
        ----------
        x1, y1, x2, y2 : int
            First and last column and row that stay, 0-based. The shape becomes
            ``(y2 - y1 + 1, x2 - x1 + 1)``.

        Raises
        ------
        InputError
            The rectangle is empty or reaches outside an image; then nothing is changed.

        Notes
        -----
        Data, variance, mask and arrays of the same shape are cropped, and the WCS is shifted.
        """
        section = Section(x1, x2 + 1, y1, y2 + 1)
        for extension in self.extensions:
            extension.check_section(section)
        for extension in self.extensions:
            extension.crop(section)

    # ---- arithmetic

    def add(self, operand: Any) -> Self:
        """Add a number, array or data set in place."""
        return self._changed("add", operand)

    def subtract(self, operand: Any) -> Self:
        """Subtract a number, array or data set in place."""
        return self._changed("subtract", operand)

    def multiply(self, operand: Any) -> Self:
        """Multiply by a number, array or data set in place."""
        return self._changed("multiply", operand)

    def divide(self, operand: Any) -> Self:
        """Divide by a number, array or data set in place."""
        return self._changed("divide", operand)

    def __iadd__(self, operand: Any) -> Any:
        return self._in_place("add", operand)

    def __isub__(self, operand: Any) -> Any:
        return self._in_place("subtract", operand)

    def __imul__(self, operand: Any) -> Any:
        return self._in_place("multiply", operand)

    def __itruediv__(self, operand: Any) -> Any:
        return self._in_place("divide", operand)

    def __add__(self, operand: Any) -> Any:
        return self._binary("add", operand)

    def __sub__(self, operand: Any) -> Any:
        return self._binary("subtract", operand)

    def __mul__(self, operand: Any) -> Any:
        return self._binary("multiply", operand)

    def __truediv__(self, operand: Any) -> Any:
        return self._binary("divide", operand)

    def __radd__(self, operand: Any) -> Any:
        return self._reflected("add", operand)

    def __rsub__(self, operand: Any) -> Any:
        return self._reflected("subtract", operand)

    def __rmul__(self, operand: Any) -> Any:
        return self._reflected("multiply", operand)

    def __rtruediv__(self, operand: Any) -> Any:
        return self._reflected("divide", operand)

    def _changed(self, operation: arithmetic.Operation, operand: Any) -> Self:
        if self._in_place(operation, operand) is NotImplemented:
            raise InputError(
                f"{operation} does not work with this",
                found=type(operand).__name__,
                expected="a number, an array, or a data set",
            )
        return self

    def _in_place(self, operation: arithmetic.Operation, operand: Any) -> Any:
        others = self._operands(operand)
        if others is None:
            return NotImplemented
        for extension, other in zip(self.extensions, others, strict=True):
            arithmetic.check(extension, other)
        for extension, other in zip(self.extensions, others, strict=True):
            arithmetic.combine(operation, extension, other, in_place=True)
        return self

    def _binary(self, operation: arithmetic.Operation, operand: Any) -> Any:
        others = self._operands(operand)
        if others is None:
            return NotImplemented
        pairs = zip(self.extensions, others, strict=True)
        return self._like(
            [arithmetic.combine(operation, mine, other, in_place=False) for mine, other in pairs]
        )

    def _reflected(self, operation: arithmetic.Operation, operand: Any) -> Any:
        value = arithmetic.as_operand(operand)
        if value is None:
            return NotImplemented
        return self._like([arithmetic.combine_reflected(operation, value, mine) for mine in self.extensions])

    def _operands(self, operand: Any) -> list[Any] | None:
        if isinstance(operand, AstroData):
            if len(operand) != len(self):
                raise DataError(
                    "the data sets differ in their number of extensions",
                    file=operand.path,
                    found=len(operand),
                    expected=len(self),
                )
            return list(operand.extensions)
        value = operand if isinstance(operand, Extension) else arithmetic.as_operand(operand)
        return None if value is None else [value] * len(self)

    # ---- output

    def write(self, filename: str | os.PathLike[str] | None = None, overwrite: bool = False) -> None:
        """Write the data set as a FITS file, safely: the file is complete, or as it was before.

        Parameters
        ----------
        filename : path-like, optional
            Where to; `path` by default. A name that ends in ``.gz`` or ``.bz2`` asks for compression.
        overwrite : bool
            Whether an existing file may be replaced. A raw file, which still has its original name, is only
            replaced when it is named.

        Raises
        ------
        InputError
            There is no name.
        StorageError
            The file exists, or cannot be written.
        """
        from niripipe.astrodata.fits_write import write

        if filename is None and self.path is None:
            raise InputError("the data set has no file name", item="filename", remedy="Give one to write().")
        is_raw = self.path == self._parts.read_from and self.filename == header_value(self.phu, "ORIGNAME")
        if filename is None and is_raw and overwrite:
            raise StorageError(
                "this would replace the original file",
                file=self.path,
                remedy="Change the name with update_filename(), or name the file explicitly.",
            )
        write(self, Path(filename or str(self.path)), overwrite=overwrite)

    def info(self, stream: IO[str] | None = None) -> None:
        """Print file name, tags, planes and tables.

        Parameters
        ----------
        stream : file, optional
            Where to; standard output by default.
        """
        (stream or sys.stdout).write(display.as_text(self) + "\n")

    def to_ccddata(self) -> Any:
        """Return this extension as `astropy.nddata.CCDData`, a list of them for a data set."""
        from niripipe.astrodata.ccddata import to_ccddata

        return self._each(lambda extension: to_ccddata(extension, self.phu))

    def __repr__(self) -> str:
        kind = type(self).__name__
        what = f"extension {self.id}" if self._single else f"{len(self)} extensions"
        return (
            f"<{kind} {self.filename or '(in memory)'}, {what}, {' '.join(sorted(self.tags)) or 'no tags'}>"
        )

    def _repr_html_(self) -> str:
        return display.as_html(self)

    # ---- helpers

    @property
    def _extension(self) -> Extension:
        assert self._indices is not None
        return self._parts.extensions[self._indices[0]]

    def _only(self, what: str) -> Extension:
        if not self._single:
            raise ValueError(
                f"{what} of several extensions at once is not possible; use a single one, as in ad[0]"
            )
        return self._extension

    def _each(self, get: Callable[[Extension], Any]) -> Any:
        if self._single:
            return get(self._extension)
        return [get(extension) for extension in self.extensions]

    def _slice(self, indices: tuple[int, ...] | None, *, single: bool) -> Self:
        ad = type(self).__new__(type(self))
        ad._parts = self._parts
        ad._single = single
        ad._indices = indices
        return ad

    def _position(self, index: Any) -> int:
        if isinstance(index, bool) or not isinstance(index, int | np.integer):
            raise ValueError(f"an index has to be an integer, a slice or a tuple of integers, not {index!r}")
        if not -len(self) <= index < len(self):
            raise IndexError(f"there is no extension {index}; there are {len(self)}")
        return int(index) % len(self)

    def _like(self, extensions: list[Extension]) -> Self:
        """Return a whole data set with the header, tables and name of this one and other extensions."""
        ad = type(self).__new__(type(self))
        old = self._parts
        ad._parts = new = _Parts(old.phu.copy())
        ad._indices, ad._single = None, False
        new.extensions = extensions
        for extension in extensions:
            extension._phu = new.phu
        new.tables = {name: cast(HeldTable, held.copy()) for name, held in old.tables.items()}
        new.records = old.records.copy()
        new.path, new.orig_filename, new.read_from = old.path, old.orig_filename, old.read_from
        return ad

    def _refuse_slice(self, what: str) -> None:
        if self._indices is not None:
            raise AttributeError(f"{what} belongs to the whole data set and cannot be set on a slice")


def _as_extension(obj: Any, header: Any) -> Extension:
    if isinstance(obj, AstroData):
        if not obj.is_single:
            raise InputError("only a single extension can be appended", found=repr(obj), remedy="Use ad[0].")
        extension = obj.extensions[0].copy()
    elif isinstance(obj, Extension):
        extension = obj.copy()
    elif hasattr(obj, "uncertainty") and hasattr(obj, "meta"):
        from niripipe.astrodata.ccddata import from_ccddata

        extension = from_ccddata(obj)
    elif hasattr(obj, "header"):
        extension = _from_hdu(obj)
    else:
        extension = Extension(obj, hdr=header)
        header = None
    if header is not None:
        extension.hdr = watched(header)
        extension.hdr["EXTNAME"] = "SCI"
    return extension


def _from_hdu(hdu: Any) -> Extension:
    from astropy.io import fits

    if (
        isinstance(hdu, fits.PrimaryHDU)
        or not hdu.is_image
        or hdu.data is None
        or hdu.name not in ("", "SCI")
    ):
        _refuse_hdu(hdu)
    return Extension(np.array(hdu.data, np.float32), hdr=hdu)


def _refuse_hdu(hdu: Any) -> NoReturn:
    raise InputError(
        "this HDU cannot be appended",
        found=f"{type(hdu).__name__} {hdu.name!r}",
        expected="an image extension without name or named SCI",
    )
