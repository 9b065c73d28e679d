"""One science plane with everything attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata import wcs as wcs_module
from niripipe.astrodata.apertures import variance_of_sums
from niripipe.astrodata.conversion import (
    PLANE_DTYPES,
    as_attachment,
    as_plane,
    check_attachment_name,
    check_shape,
    masked_bits,
)
from niripipe.astrodata.headers import WatchedHeader, drop_structure, watched
from niripipe.astrodata.planes import Held, Plane, ScratchFolder
from niripipe.astrodata.section import Section
from niripipe.astrodata.tables import HeldTable
from niripipe.astrodata.wcs_state import WcsState
from niripipe.astrodata.world_coordinates import WorldCoordinates
from niripipe.errors import InputError

if TYPE_CHECKING:
    from astropy.nddata import VarianceUncertainty
    from astropy.wcs import WCS

    from niripipe.astrodata.nddata import NDAstroData

__all__ = ["Extension"]


class Extension(WorldCoordinates):
    """Pixels, variance, mask, WCS, header and extras of one science plane.

    Parameters
    ----------
    data : array_like
        Pixels, two-dimensional, shape ``(ny, nx)``; kept as float32.
    variance : array_like, optional
        Variance of each pixel, same shape; kept as float32.
    mask : array_like, optional
        Data quality bits (see `DQ`), same shape; kept as uint16. What a masked array masks gets the bit of
        bad pixels.
    wcs : astropy.wcs.WCS, optional
        World coordinates. Without it, those of the header are used.
    hdr : header, dict or list of cards, optional
        The header; copied.

    Notes
    -----
    Arrays that already have the right dtype are taken over without a copy: the caller
    should not write into them any more. Negative variances, which no noise has, are set to 0 with a logged
    warning; NaN stays and means unknown.
    """

    __slots__ = ("__weakref__", "_extras", "_hdr", "_phu", "_plane_headers", "_planes", "_wcs")

    def __init__(
        self,
        data: Any,
        variance: Any = None,
        mask: Any = None,
        *,
        wcs: WCS | None = None,
        hdr: Any = None,
    ) -> None:
        self._start(as_plane(data, "data"), watched(hdr), None)
        drop_structure(self.hdr)
        if self.hdr.get("EXTNAME") != "SCI":
            self.hdr.set("EXTNAME", "SCI", "Name of the extension")
        self.variance = variance
        self.mask = masked_bits(data, mask)
        if wcs is not None:
            self.wcs = wcs

    @classmethod
    def _adopt(cls, data: Plane, hdr: WatchedHeader, phu: Any) -> Extension:
        """Make an extension of a plane that may be on disk still; the header is taken over."""
        extension = cls.__new__(cls)
        extension._start(data, hdr, phu)
        extension._follow_data()
        return extension

    def _start(self, data: Plane, hdr: WatchedHeader, phu: Any) -> None:
        self._planes: dict[str, Plane] = {"data": data}
        self._extras: dict[str, Held[Any]] = {}
        self._plane_headers: dict[str, Any] = {}
        self._wcs = WcsState()
        self._phu = phu
        self.hdr = hdr

    # ---- planes

    @property
    def data(self) -> NDArray[np.float32]:
        """Pixels, float32; a private copy if they were shared, so that writing into them is safe."""
        return self._planes["data"].hand_out()

    @data.setter
    def data(self, array: Any) -> None:
        if array is None:
            raise InputError("an extension always has data", item="data", found=None)
        self._set_plane("data", array)

    @property
    def variance(self) -> NDArray[np.float32] | None:
        """Variance of each pixel, float32, or None."""
        plane = self._planes.get("variance")
        return None if plane is None else plane.hand_out()

    @variance.setter
    def variance(self, array: Any) -> None:
        self._set_plane("variance", array)

    @property
    def mask(self) -> NDArray[np.uint16] | None:
        """Data quality bits of each pixel, uint16, or None."""
        plane = self._planes.get("mask")
        return None if plane is None else plane.hand_out()

    @mask.setter
    def mask(self, array: Any) -> None:
        self._set_plane("mask", array)

    @property
    def uncertainty(self) -> VarianceUncertainty | None:
        """The variance as `astropy.nddata.VarianceUncertainty`, which shares the array; or None."""
        from niripipe.astrodata.nddata import uncertainty_of

        return uncertainty_of(self.variance)

    @uncertainty.setter
    def uncertainty(self, uncertainty: Any) -> None:
        from niripipe.astrodata.nddata import as_variance

        self.variance = as_variance(uncertainty)

    @property
    def nddata(self) -> NDAstroData:
        """A view as `astropy.nddata.NDData`; see `niripipe.astrodata.nddata.NDAstroData`."""
        from niripipe.astrodata.nddata import NDAstroData

        return NDAstroData(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels, ``(ny, nx)``; known without reading them."""
        return self._planes["data"].shape

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays of this extension occupy in memory now."""
        return sum(plane.nbytes for plane in self.arrays())

    def read(self, name: str) -> Any:
        """Return a plane or an extra for reading only, without copying.

        Parameters
        ----------
        name : str
            ``data``, ``variance``, ``mask``, or the name of an extra.

        Returns
        -------
        numpy.ndarray, astropy.table.Table or None
            A read-only view of the array, or the table itself; None if the extension has none.
        """
        held = self._held(name)
        if held is None:
            return None
        return held.view() if isinstance(held, Plane) else held.read()

    def plane(self, name: str) -> Plane | None:
        """Return a plane or an attached array, wherever it is.

        Parameters
        ----------
        name : str
            ``data``, ``variance``, ``mask``, or the name of an attached array.

        Returns
        -------
        Plane or None
            ``plane[rows]`` and ``plane[rows, columns]`` give read-only parts without loading all of it.
            Assigned to another extension it is shared until one of the two writes. None if there is none.
        """
        held = self._held(name)
        return held if isinstance(held, Plane) else None

    def reset(self, data: Any, mask: Any, variance: Any) -> None:
        """Replace data, mask and variance together; all of them, or none if one is not usable.

        A plane that `read` gave out may be handed back to stay; it is not copied.

        Parameters
        ----------
        data, mask, variance : array_like or None
            New planes, all of one shape; None removes mask or variance. What is masked in a masked array
            of data gets the bit of bad pixels.

        Raises
        ------
        InputError
            An array is not usable, or the shapes differ.
        """
        bits = masked_bits(data, mask)
        new = {
            name: self._handed_back(name, array) or as_plane(array, name)
            for name, array in (("data", data), ("variance", variance), ("mask", bits))
            if array is not None or name == "data"
        }
        for name, plane in new.items():
            check_shape(name, plane.shape, new["data"].shape)
        self._planes = new
        self._follow_data()

    def _handed_back(self, name: str, array: Any) -> Plane | None:
        plane = self._planes.get(name)
        return plane if plane is not None and plane.is_view(array) else None

    def move_to_disk(self, folder: ScratchFolder) -> int:
        """Move all arrays from memory to disk; they come back by themselves when they are used.

        Parameters
        ----------
        folder : ScratchFolder
            For arrays that cannot be read again from the original file.

        Returns
        -------
        int
            Bytes freed, as far as the caller does not hold arrays that `data` and the like gave out.
        """
        return sum(plane.move_to_disk(folder) for plane in self.arrays())

    # ---- extras

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the attached tables and arrays, in the order in which they were attached."""
        return tuple(self._extras)

    @property
    def tables(self) -> set[str]:
        """Names of the attached tables."""
        return {name for name, held in self._extras.items() if not isinstance(held, Plane)}

    def get_extra(self, name: str) -> Any:
        """Return an attached table or array, which the caller may change.

        Raises
        ------
        AttributeError
            There is none of that name.
        """
        if name not in self._extras:
            raise AttributeError(
                f"this extension has no {name!r}; it has {', '.join(self._extras) or 'no extras'}"
            )
        return self._extras[name].hand_out()

    def table(self, name: str) -> HeldTable:
        """Return the handle on an attached table.

        Raises
        ------
        AttributeError
            There is no table of that name.
        """
        held = self._extras.get(name)
        if not isinstance(held, HeldTable):
            raise AttributeError(f"this extension has no table {name!r}")
        return held

    def set_extra(self, name: str, value: Any, units: Mapping[str, str] | None = None) -> None:
        """Attach an array, or a copy of a table, which may be given as a structured array.

        Parameters
        ----------
        name : str
            Upper case.
        value : numpy.ndarray, Plane or astropy.table.Table
        units : mapping of str to str, optional
            Units of the columns of a structured array.

        Raises
        ------
        InputError
            The name is not upper case or is one of the planes' own, or the value is neither an array nor
            a table.
        """
        check_attachment_name(name)
        self._extras[name] = as_attachment(name, value, units)

    def remove_extra(self, name: str) -> None:
        """Remove an attached table or array.

        Raises
        ------
        AttributeError
            There is none of that name.
        """
        if name not in self._extras:
            raise AttributeError(f"this extension has no {name!r}")
        del self._extras[name]
        self._plane_headers.pop(name, None)

    def plane_header(self, name: str) -> Any:
        """Return the header that belongs to ``variance``, ``mask`` or an extra alone; changes are written.

        Notes
        -----
        A plane made in memory starts with an empty header.
        """
        if name == "data":
            return self.hdr
        if self._planes.get(name) is None and name not in self._extras:
            raise AttributeError(f"this extension has no {name!r}")
        return self._plane_headers.setdefault(name, WatchedHeader())

    # ---- noise

    def aperture_variance(self, x: ArrayLike, y: ArrayLike | None = None, r: ArrayLike | None = None) -> Any:
        """Return the variance of sums over apertures; see `niripipe.astrodata.apertures.variance_of_sums`.

        Parameters
        ----------
        x, y, r : float or array_like
            Centres (0-based) and radii of circles, pixels. Or `x` alone: an array as large as the image of
            what each pixel is multiplied by, or of which pixels count.

        Returns
        -------
        float, or ndarray of float64
            In the square of the data's unit.
        """
        return variance_of_sums(self, x, y, r)

    # ---- whole extensions

    def copy(self) -> Extension:
        """Return an independent extension; arrays are shared until one of the two writes."""
        twin = self.copy_without_planes()
        twin._planes = {name: plane.copy() for name, plane in self._planes.items()}
        return twin

    def copy_without_planes(self) -> Extension:
        """Return an independent extension with header, WCS and extras, to be given planes."""
        twin = Extension.__new__(Extension)
        twin._planes = {}
        twin._extras = {name: held.copy() for name, held in self._extras.items()}
        twin._plane_headers = {name: header.copy() for name, header in self._plane_headers.items()}
        twin._wcs = self._wcs.copy()
        twin._phu = self._phu
        twin.hdr = self.hdr.copy()
        return twin

    def __copy__(self) -> Extension:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Extension:
        return self.copy()

    def crop(self, section: Section) -> None:
        """Keep only a part of the image, in all planes and in array extras of the same shape.

        Parameters
        ----------
        section : Section
            The part to keep; it has to lie within the image.

        Raises
        ------
        InputError
            It does not.

        Notes
        -----
        The WCS is shifted and NAXISn follow. Positions in attached tables are not changed.
        """
        self.check_section(section)
        old_shape, cut = self.shape, section.as_slice()
        mapping = self.sky_mapping
        groups: tuple[dict[str, Any], ...] = (self._planes, self._extras)
        for group in groups:
            for name, plane in group.items():
                if isinstance(plane, Plane) and plane.shape == old_shape:
                    group[name] = Plane(plane.read()[cut].copy())
        if mapping is not None:
            self._set_wcs(wcs_module.shifted(mapping, section.x1, section.y1))
        self._follow_data()

    def check_section(self, section: Section) -> None:
        """Refuse a section that is not part of the image.

        Raises
        ------
        InputError
            It reaches outside.
        """
        if section.ndim != 2 or not Section.from_shape(self.shape).contains(section):
            raise InputError(
                "a crop has to lie within the image",
                found=repr(section),
                expected=f"a part of {Section.from_shape(self.shape)!r}",
            )

    def _held(self, name: str) -> Held[Any] | None:
        return self._planes.get(name) or self._extras.get(name)

    def arrays(self) -> Iterator[Plane]:
        """Yield the planes and the attached arrays."""
        yield from self._planes.values()
        yield from (held for held in self._extras.values() if isinstance(held, Plane))

    def _set_plane(self, name: str, array: Any) -> None:
        if array is None:
            self._planes.pop(name, None)
            self._plane_headers.pop(name, None)
            return
        present = self._planes.get(name)
        if present is not None and present.is_loaded and present.read() is array:
            return  # the end of an in-place operation on the array that was handed out
        plane = as_plane(array, name)
        if name != "data" or len(self._planes) > 1:
            check_shape(name, plane.shape, self.shape)
        self._planes[name] = plane
        if name == "data":
            self._follow_data()
            bits = self.read("mask")
            if (joined := masked_bits(array, bits)) is not bits:
                self.mask = joined

    def _follow_data(self) -> None:
        """Let the structural cards that the header has say what the pixels are."""
        header, shape = self.hdr, self.shape
        values = {"BITPIX": -32, "NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0]}
        for key, value in values.items():
            if key in header and header.get(key) != value:
                header[key] = value
        for key in ("BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM"):
            if key in header:
                header.remove(key, ignore_missing=True, remove_all=True)

    def _attach_plane(self, name: str, plane: Plane, header: Any) -> bool:
        """Attach a plane found in a file; False if there is one of that name already."""
        group: dict[str, Any] = self._planes if name in PLANE_DTYPES else self._extras
        if name in group:
            return False
        group[name] = plane
        self._plane_headers[name] = header
        return True

    def _attach_table(self, name: str, held: Held[Any]) -> None:
        self._extras.setdefault(name, held)
