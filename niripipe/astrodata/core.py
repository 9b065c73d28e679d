"""The data set: a primary header, extensions, and tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from niripipe.astrodata import descriptors, display, tags
from niripipe.astrodata.attachments import Attachments
from niripipe.astrodata.descriptors import astro_data_descriptor
from niripipe.astrodata.extension import Extension
from niripipe.astrodata.filenames import FileNames, plain_name
from niripipe.astrodata.foreign import as_extension, to_ccddata
from niripipe.astrodata.headers import HeaderManager, WatchedHeader, header_value, watched
from niripipe.astrodata.operators import Operators
from niripipe.astrodata.planes import ScratchFolder
from niripipe.astrodata.section import Section
from niripipe.astrodata.slices import Parts
from niripipe.errors import InputError, StorageError
from niripipe.printable import printable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from niripipe.astrodata.declared import Declared
else:
    Declared = object

__all__ = ["AstroData"]

_UNSET: Any = object()
_NAMES_OF_FILES = frozenset({"path", "filename"})
_SETTABLE = frozenset({"data", "variance", "uncertainty", "mask", "wcs"}) | _NAMES_OF_FILES
"""Attributes that DRAGONS calls settable."""
_FOR_THE_LIBRARY = frozenset(
    {
        "columns", "extensions", "linear_wcs", "move_to_disk", "nbytes", "read_pairs_to_divide_by",
        "record_wcs", "records", "set_columns", "sky_mapping", "subarray_reference_shift", "table_sizes",
        "uses_lamp_flats", "voltage_conflict", "wcs_origin", "wcs_problem",
    }
)  # fmt: skip
"""Names that completion does not offer: primitives need them, scripts do not."""


def _of_extensions(name: str, doc: str) -> Any:
    """Return a property that is that of the extension on a single slice, and a list of them otherwise."""

    def get(ad: AstroData) -> Any:
        return ad._each(attrgetter(name))

    def put(ad: AstroData, value: Any) -> None:
        setattr(ad._only(name), name, value)

    return property(get, put, doc=doc)


class AstroData(Operators, Attachments, FileNames, Declared):
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

    def __init__(self, phu: Any = None, extensions: Sequence[Any] = ()) -> None:
        self._parts, self._indices, self._single = Parts(watched(phu)), None, False
        for extension in extensions:
            self.append(extension)

    @classmethod
    def _from_parts(cls, parts: Parts, path: str | None) -> Self:
        """Make a data set of what a reader found; nothing is copied."""
        ad = cls._over(parts)
        if path is not None:
            ad.path = path
            parts.read_from = path
            if "ORIGNAME" not in parts.phu:
                parts.phu.set(
                    "ORIGNAME", plain_name(str(ad.filename)), "Original file name before processing"
                )
        return ad

    # ---- headers, names, tags

    @property
    def phu(self) -> WatchedHeader:
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
    def tags(self) -> set[str]:
        """Tags of the data set, from the rules of its class; kept until the primary header changes."""
        parts = self._parts
        state = (type(self), parts.phu.state, len(parts.extensions))
        if parts.tag_cache is None or parts.tag_cache[0] != state:
            whole = self if self._indices is None else self._over(parts)
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
    def instrument(self, generic: bool = False) -> str | None:
        """Name of the instrument (INSTRUME)."""
        return self._phu_text("INSTRUME")

    @astro_data_descriptor
    def object(self) -> str | None:
        """Name of the target (OBJECT)."""
        return self._phu_text("OBJECT")

    @astro_data_descriptor
    def telescope(self) -> str | None:
        """Name of the telescope (TELESCOP)."""
        return self._phu_text("TELESCOP")

    def _phu_text(self, keyword: str) -> str | None:
        value = header_value(self.phu, keyword)
        return None if value is None else str(value)

    # ---- planes

    data = _of_extensions("data", "Pixels, float32, shape ``(ny, nx)``; safe to write into.")
    variance = _of_extensions("variance", "Variance, float32, or None; safe to write into.")
    mask = _of_extensions("mask", "Data quality bits, uint16, or None; safe to write into.")
    uncertainty = _of_extensions(
        "uncertainty", "The variance as `astropy.nddata.VarianceUncertainty` that shares the array, or None."
    )
    wcs = _of_extensions("wcs", "World coordinates, `astropy.wcs.WCS` or None; ``wcs(x, y)`` gives degrees.")
    sky_mapping = _of_extensions(
        "sky_mapping", "World coordinates, `TangentPlane`, `astropy.wcs.WCS` or None; cheaper than `wcs`."
    )
    linear_wcs = _of_extensions(
        "linear_wcs", "The numbers of the linear part of `wcs`, `LinearTerms` or None; cheaper than `wcs`."
    )
    wcs_origin = _of_extensions(
        "wcs_origin", "Where the WCS came from: ``extension``, ``primary``, ``set`` or ``none``."
    )
    wcs_problem = _of_extensions(
        "wcs_problem", "Why the extension's own header was not used for the WCS; empty if it was."
    )
    shape = _of_extensions("shape", "Shape of the pixels; nothing is read.")

    @property
    def nddata(self) -> Any:
        """The extensions as views of `astropy.nddata.NDData`; see `niripipe.astrodata.nddata.NDAstroData`."""
        return self._each(attrgetter("nddata"))

    @property
    def nbytes(self) -> int:
        """Bytes of pixels in memory now."""
        return sum(extension.nbytes for extension in self.extensions)

    def read(self, name: str) -> Any:
        """Return ``data``, ``variance``, ``mask`` or an extra for reading only, without copying."""
        return self._each(lambda extension: extension.read(name))

    def plane(self, name: str) -> Any:
        """Return a plane or an attached array wherever it is, see `Extension.plane`."""
        return self._each(lambda extension: extension.plane(name))

    def move_to_disk(self, folder: ScratchFolder) -> int:
        """Move all pixels from memory to disk until they are used; see `Extension.move_to_disk`."""
        return sum(extension.move_to_disk(folder) for extension in self.extensions)

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
            raise InputError(
                "only science planes can be appended",
                item="name",
                found=name,
                expected="SCI",
                remedy=f"Assign other things: ad.{name.upper()} = table, ad[0].{name.upper()} = array; "
                "variance and mask are ad[0].variance and ad[0].mask.",
            )
        extension = as_extension(obj, header)
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
        data : array_like, Extension, single slice, CCDData, or a part of `nddata`
            The new pixels. Of anything but an array, mask, variance and WCS are taken along unless given. A
            part of the extension's own `nddata` crops it, with all that is attached.
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
        if getattr(data, "extension", None) is extension and mask is variance is _UNSET:
            if data.section is not None:
                extension.crop(data.section)
            return
        is_whole = isinstance(data, AstroData | Extension) or hasattr(data, "uncertainty")
        source = as_extension(data, None) if is_whole else None
        if source is not None:
            data = source.read("data")
            mask = source.read("mask") if mask is _UNSET else mask
            variance = source.read("variance") if variance is _UNSET else variance
        extension.reset(data, None if mask is _UNSET else mask, None if variance is _UNSET else variance)
        if source is not None and source.sky_mapping is not None:
            extension.sky_mapping = source.sky_mapping

    def is_settable(self, name: str) -> bool:
        """Tell whether an attribute may be set here: planes, WCS, upper-case names, and names of files."""
        if self.is_sliced and name in _NAMES_OF_FILES:
            return False
        return name in _SETTABLE or (name.isupper() and name.isidentifier())

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

    def aperture_variance(self, x: ArrayLike, y: ArrayLike | None = None, r: ArrayLike | None = None) -> Any:
        """Return the variance of sums over apertures of a slice; see `Extension.aperture_variance`."""
        return self._only("aperture_variance").aperture_variance(x, y, r)

    def record_wcs(self) -> None:
        """Let the headers state the WCS: those of the extensions, and of one extension the primary's copy."""
        for extension in self.extensions:
            extension.record_wcs(in_primary=len(self) == 1)

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
        is_raw = self.path == self._parts.read_from and plain_name(str(self.filename)) == header_value(
            self.phu, "ORIGNAME"
        )
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
        return self._each(lambda extension: to_ccddata(extension, self.phu))

    def __repr__(self) -> str:
        kind = type(self).__name__
        what = f"extension {self.id}" if self._single else f"{len(self)} extensions"
        name, tags = printable(self.filename or "(in memory)"), " ".join(sorted(self.tags)) or "no tags"
        return f"<{kind} {name}, {what}, {tags}>"

    def __dir__(self) -> list[str]:
        public = {name for name in super().__dir__() if not name.startswith("_")}
        return sorted(public - _FOR_THE_LIBRARY | self.exposed)

    def _repr_html_(self) -> str:
        return display.as_html(self)
