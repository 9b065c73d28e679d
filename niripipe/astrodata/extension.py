"""One science plane with everything attached to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import wcs as wcs_module
from niripipe.astrodata.headers import WatchedHeader, drop_structure, watched
from niripipe.astrodata.planes import ArrayPlane, Held, RowFunction, Rows, in_blocks
from niripipe.astrodata.section import Section
from niripipe.astrodata.tables import HeldTable, is_table
from niripipe.astrodata.tangent import TangentPlane
from niripipe.errors import InputError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["Extension"]

_PLANE_DTYPES: dict[str, np.dtype[Any]] = {
    "data": np.dtype(np.float32),
    "variance": np.dtype(np.float32),
    "mask": np.dtype(np.uint16),
}
_RESERVED = frozenset({"SCI", "VAR", "DQ"})


class Extension:
    """Pixels, variance, mask, WCS, header and extras of one science plane.

    Parameters
    ----------
    data : array_like
        Pixels, two-dimensional, shape ``(ny, nx)``; kept as float32.
    variance : array_like, optional
        Variance of each pixel, same shape; kept as float32.
    mask : array_like, optional
        Data quality bits (see `DQ`), same shape; kept as uint16.
    wcs : astropy.wcs.WCS, optional
        World coordinates. Without it, those of the header are used.
    hdr : header, dict or list of cards, optional
        The header; copied.

    Notes
    -----
    Arrays that already have the right dtype are taken over without a copy: whoever gives an array away
    should not write into it any more. Negative variances, which no noise has, are set to 0 with a logged
    warning; NaN stays and means unknown.
    """

    __slots__ = ("__weakref__", "_extras", "_phu", "_plane_headers", "_planes", "_wcs", "hdr")

    hdr: Any
    """The header of the science plane."""

    def __init__(
        self,
        data: Any,
        variance: Any = None,
        mask: Any = None,
        *,
        wcs: WCS | None = None,
        hdr: Any = None,
    ) -> None:
        self._start(ArrayPlane(_as_plane(data, "data")), watched(hdr), None)
        drop_structure(self.hdr)
        if self.hdr.get("EXTNAME") != "SCI":
            self.hdr.set("EXTNAME", "SCI", "Name of the extension")
        self.variance = variance
        self.mask = mask
        if wcs is not None:
            self.wcs = wcs

    @classmethod
    def _adopt(cls, data: ArrayPlane, hdr: WatchedHeader, phu: Any) -> Extension:
        """Make an extension of a plane that may be on disk still; the header is taken over."""
        extension = cls.__new__(cls)
        extension._start(data, hdr, phu)
        extension._follow_data()
        return extension

    def _start(self, data: ArrayPlane, hdr: WatchedHeader, phu: Any) -> None:
        self._planes: dict[str, ArrayPlane] = {"data": data}
        self._extras: dict[str, Held[Any]] = {}
        self._plane_headers: dict[str, Any] = {}
        self._wcs = _WcsState()
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

    def derive_variance(self, function: RowFunction, *, using: Sequence[ArrayPlane] = ()) -> None:
        """Set the variance as a function of the present data, computed when somebody needs it.

        Subtracting and dividing by another extension in place keeps it so; any other change of the data has
        it computed, or leaves it as a function of the data before.

        Parameters
        ----------
        function : callable
            Takes the values of some rows of the data, and the rows as a slice; returns their variance,
            float32, pixel by pixel.
        using : sequence of ArrayPlane
            Other planes that the function reads; their memory is counted as this extension's.
        """
        self._planes["variance"] = ArrayPlane.derived(self._planes["data"], function, using=using)

    def derive_data(self, function: RowFunction, *, using: Sequence[ArrayPlane] = ()) -> bool:
        """Replace the data by a function of them, computed when somebody needs them; False if they are kept.

        Data that are in memory only are kept: the caller changes them. The variance stays what it was: one
        that is a function of the data becomes one of those before.

        Parameters
        ----------
        function : callable
            Takes the values of some rows of the data, which it must not change, and the rows as a slice;
            returns the new values, float32, pixel by pixel.
        using : sequence of ArrayPlane
            Other planes that the function reads; their memory is counted as this extension's.
        """
        before = self._planes["data"]
        if not before.is_recipe:
            return False
        self._planes["data"] = ArrayPlane.derived(before, function, using=(before, *using))
        self._follow_data()
        return True

    @property
    def waits(self) -> bool:
        """Whether the data can be had again from a file: what is done to them pixel by pixel then waits."""
        return self._planes["data"].is_recipe

    def compute_mask(self, function: Rows) -> None:
        """Set the mask to what a function makes of it, when somebody needs it.

        Parameters
        ----------
        function : callable
            Takes a slice of rows, returns these rows of the mask, uint16, in memory of their own.
        """
        self._planes["mask"] = ArrayPlane.computed(function, self.shape, np.uint16)

    def derive_mask(self, function: RowFunction) -> bool:
        """Replace the mask by a function of it, as `derive_data` does; False if it is kept or missing."""
        before = self._planes.get("mask")
        if before is None or not before.is_recipe:
            return False
        self._planes["mask"] = ArrayPlane.derived(before, function, np.uint16)
        return True

    def variance_function(self) -> RowFunction | None:
        """Return the function of the present data that the variance still is, or None."""
        plane = self._planes.get("variance")
        return None if plane is None else plane.derivation(self._planes["data"])

    def variance_of(self, data: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the variance for reading only, from data that the caller has read already where it can.

        Parameters
        ----------
        data : ndarray of float32
            The present data, as `read_once` gives them.

        Returns
        -------
        numpy.ndarray or None
            float32, of the same shape; None without a variance.
        """
        plane = self._planes.get("variance")
        if plane is None:
            return None
        function = plane.derivation(self._planes["data"])
        return plane.read_once() if function is None or plane.is_loaded else in_blocks(function, data)

    @property
    def mask(self) -> NDArray[np.uint16] | None:
        """Data quality bits of each pixel, uint16, or None."""
        plane = self._planes.get("mask")
        return None if plane is None else plane.hand_out()

    @mask.setter
    def mask(self, array: Any) -> None:
        self._set_plane("mask", array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels, ``(ny, nx)``; known without reading them."""
        return self._planes["data"].shape

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays of this extension occupy in memory now."""
        return sum(plane.nbytes for plane in self._arrays())

    @property
    def has_variance(self) -> bool:
        """Whether there is a variance plane; nothing is read."""
        return "variance" in self._planes

    @property
    def has_mask(self) -> bool:
        """Whether there is a mask; nothing is read."""
        return "mask" in self._planes

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
        return held.view() if isinstance(held, ArrayPlane) else held.read()

    def handle(self, name: str) -> ArrayPlane | None:
        """Return a handle on a plane as it is now, whatever becomes of this extension; None if there is none.

        Parameters
        ----------
        name : str
            ``data``, ``variance`` or ``mask``.
        """
        plane = self._planes.get(name)
        return None if plane is None else cast("ArrayPlane", plane.copy())

    def take_over(self, name: str, source: Extension) -> None:
        """Give this extension a plane or extra of another; it is shared until one of the two writes.

        Parameters
        ----------
        name : str
            ``data``, ``variance``, ``mask``, or the name of an extra.
        source : Extension
            It keeps what it has. Where it has none, neither has this one afterwards.

        Raises
        ------
        InputError
            A plane of another shape.
        """
        group: dict[str, Any] = self._planes if name in _PLANE_DTYPES else self._extras
        held = source._held(name)
        if held is None:
            group.pop(name, None)
            return
        if name in _PLANE_DTYPES:
            _check_shape(name, cast("ArrayPlane", held).shape, self.shape)
        group[name] = held.copy()

    def compute_once(self, name: str) -> None:
        """Compute a plane that still is a function of others, and keep it: it will be needed several times.

        Parameters
        ----------
        name : str
            ``data``, ``variance`` or ``mask``; nothing happens if there is none.
        """
        if name in self._planes:
            self._planes[name].compute_once()

    def read_once(self, name: str) -> Any:
        """Return a plane for reading only, as `read` does; what can be had again is not kept in memory.

        Parameters
        ----------
        name : str
            ``data``, ``variance``, ``mask``, or the name of an attached array.

        Returns
        -------
        numpy.ndarray or None
            The pixels, which must not be changed; None if the extension has none.
        """
        held = self._held(name)
        return held.read_once() if isinstance(held, ArrayPlane) else None

    def rows(self, name: str) -> Any:
        """Return something that gives rows of a plane, ``rows[10:20]``, without loading all of it.

        Parameters
        ----------
        name : str
            ``data``, ``variance``, ``mask``, or the name of an attached array.

        Returns
        -------
        object or None
            With `shape` and indexing by a slice; None if the extension has no such plane.
        """
        held = self._held(name)
        return held.rows() if isinstance(held, ArrayPlane) else None

    def plane(self, name: str) -> Any:
        """Return a plane or attached array wherever it is; ``plane[rows]`` and ``plane[rows, columns]`` read it."""
        return self.rows(name)

    def reset(self, data: Any, mask: Any, variance: Any) -> None:
        """Replace data, mask and variance together; all of them, or none if one is not usable.

        A plane that `read` gave out may be handed back to stay; it is not copied.

        Parameters
        ----------
        data, mask, variance : array_like or None
            New planes, all of one shape; None removes mask or variance.

        Raises
        ------
        InputError
            An array is not usable, or the shapes differ.
        """
        new = {
            name: self._handed_back(name, array) or ArrayPlane(_as_plane(array, name))
            for name, array in (("data", data), ("variance", variance), ("mask", mask))
            if array is not None or name == "data"
        }
        for name, plane in new.items():
            _check_shape(name, plane.shape, new["data"].shape)
        self._planes = new
        self._follow_data()

    def reset_within(
        self,
        shape: tuple[int, int],
        corner: tuple[int, int],
        data: ArrayPlane,
        variance: ArrayPlane | None,
        mask: Rows,
    ) -> None:
        """Replace the planes by ones that are zero outside of a part, of which alone there are pixels.

        Parameters
        ----------
        shape : tuple of int
            Shape of the new planes.
        corner : tuple of int
            Row and column of the first pixel of the part.
        data, variance : ArrayPlane of float32, or None
            The part, in memory or to be computed. Without a variance there will be none.
        mask : callable
            Makes rows of the mask, which has `shape`; see `compute_mask`.
        """
        parts = {"data": data} if variance is None else {"data": data, "variance": variance}
        self._planes = {name: ArrayPlane.part_of(part, shape, corner) for name, part in parts.items()}
        self.compute_mask(mask)
        self._follow_data()

    def _handed_back(self, name: str, array: Any) -> ArrayPlane | None:
        plane = self._planes.get(name)
        return plane if plane is not None and plane.is_view(array) else None

    def park(self, folder: str | os.PathLike[str]) -> int:
        """Move all arrays from memory to disk; they come back by themselves when they are used.

        Parameters
        ----------
        folder : path-like
            Scratch folder, for what cannot be read again from the original file.

        Returns
        -------
        int
            Bytes freed, as far as the caller does not hold arrays that `data` and the like gave out.
        """
        return sum(plane.park(folder) for plane in self._arrays())

    # ---- extras

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the attached tables and arrays, in the order in which they were attached."""
        return tuple(self._extras)

    @property
    def tables(self) -> set[str]:
        """Names of the attached tables."""
        return {name for name, held in self._extras.items() if not isinstance(held, ArrayPlane)}

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

    def columns(self, name: str) -> Any:
        """Return the columns of an attached table for reading only, see `HeldTable.columns`.

        Raises
        ------
        AttributeError
            There is no table of that name.
        """
        return self._held_table(name).columns()

    def set_columns(self, name: str, columns: Mapping[str, Any]) -> None:
        """Replace columns of an attached table, or add them.

        Raises
        ------
        AttributeError
            There is no table of that name.
        """
        self._held_table(name).set_columns(columns)

    def set_extra(self, name: str, value: Any) -> None:
        """Attach an array, or a table, which may be given as a structured array.

        Raises
        ------
        InputError
            The name is not upper case or is one of the planes' own, or the value is neither an array nor
            a table.
        """
        check_extra_name(name)
        self._extras[name] = hold_extra(name, value)

    def compute_extra(self, name: str, function: Rows, dtype: Any) -> None:
        """Attach an array of the shape of the data that a function makes, when somebody needs it.

        Parameters
        ----------
        name : str
            Upper case.
        function : callable
            Takes a slice of rows, returns these rows, in memory of their own.
        dtype : numpy dtype
            Of what it returns.

        Raises
        ------
        InputError
            The name is not upper case or is one of the planes' own.
        """
        check_extra_name(name)
        self._extras[name] = ArrayPlane.computed(function, self.shape, dtype)

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

    # ---- world coordinates

    @property
    def wcs(self) -> WCS | None:
        """World coordinates, or None; built on first use. Changes made to the object are written."""
        return self._wcs_state().expose()

    @wcs.setter
    def wcs(self, wcs: WCS | None) -> None:
        if wcs is not None:
            from astropy.wcs import WCS

            if not isinstance(wcs, WCS) or wcs.naxis != 2:
                raise InputError(
                    "this is not a WCS of an image",
                    item="wcs",
                    found=repr(wcs)[:80],
                    expected="a 2-D WCS or None",
                )
        self._wcs.set(wcs)

    @property
    def sky_mapping(self) -> wcs_module.SkyMapping | None:
        """World coordinates as the cheapest object that has them, or None.

        A `TangentPlane`, which cannot be changed, where the header says no more than that; else, and once
        `wcs` was asked for or set, the object of `wcs`. Both have `all_pix2world` and `all_world2pix`.
        Either can be assigned.
        """
        return self._wcs_state().mapping

    @sky_mapping.setter
    def sky_mapping(self, mapping: wcs_module.SkyMapping | None) -> None:
        if isinstance(mapping, TangentPlane):
            self._wcs.set(mapping)
        else:
            self.wcs = mapping

    @property
    def linear_wcs(self) -> wcs_module.LinearTerms | None:
        """The numbers of the linear part of `wcs`, or None; cheap while `wcs` itself is not in use."""
        if not self._wcs.is_built:
            terms = wcs_module.linear_terms(self.hdr)
            if terms is not None:
                return terms
        return wcs_module.terms_of(self.sky_mapping)

    @property
    def wcs_origin(self) -> str:
        """Where the WCS came from: ``extension``, ``primary``, ``set``, or ``none``."""
        return self._wcs_state().origin

    @property
    def wcs_problem(self) -> str:
        """Why the extension's own header was not used for the WCS; empty if it was."""
        return self._wcs_state().problem

    # ---- whole extensions

    def copy(self) -> Extension:
        """Return an independent extension; arrays are shared until one of the two writes."""
        twin = self.copy_without_planes()
        twin._planes = {name: cast("ArrayPlane", plane.copy()) for name, plane in self._planes.items()}
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
                if isinstance(plane, ArrayPlane) and plane.shape == old_shape:
                    group[name] = ArrayPlane(plane.read()[cut].copy())
        if mapping is not None:
            self._wcs.set(wcs_module.shifted(mapping, section.x1, section.y1))
            wcs_module.write_to_header(self._wcs.mapping, self.hdr)
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

    def header_for_writing(self) -> Any:
        """Return the header as it is to be written: a copy, its WCS cards rewritten only if it changed."""
        header = self.hdr.copy()
        if self._wcs.is_changed:
            wcs_module.write_to_header(self._wcs.mapping, header)
        return header

    def _held(self, name: str) -> Held[Any] | None:
        return self._planes.get(name) or self._extras.get(name)

    def _held_table(self, name: str) -> HeldTable:
        held = self._extras.get(name)
        if not isinstance(held, HeldTable):
            raise AttributeError(f"this extension has no table {name!r}")
        return held

    def _wcs_state(self) -> _WcsState:
        """Return the state of the WCS, which has been read from the header if nobody set it."""
        if not self._wcs.is_built:
            self._wcs.build(self.hdr, self._phu)
        return self._wcs

    def _arrays(self) -> Iterator[ArrayPlane]:
        yield from self._planes.values()
        yield from (held for held in self._extras.values() if isinstance(held, ArrayPlane))

    def _set_plane(self, name: str, array: Any) -> None:
        if array is None:
            self._planes.pop(name, None)
            self._plane_headers.pop(name, None)
            return
        present = self._planes.get(name)
        if present is not None and present.is_loaded and present.read() is array:
            return  # the end of an in-place operation on the array that was handed out
        plane = _as_plane(array, name)
        if name != "data" or len(self._planes) > 1:
            _check_shape(name, plane.shape, self.shape)
        self._planes[name] = ArrayPlane(plane)
        if name == "data":
            self._follow_data()

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

    def _attach_plane(self, name: str, plane: ArrayPlane, header: Any) -> bool:
        """Attach a plane found in a file; False if there is one of that name already."""
        group: dict[str, Any] = self._planes if name in _PLANE_DTYPES else self._extras
        if name in group:
            return False
        group[name] = plane
        self._plane_headers[name] = header
        return True

    def _attach_table(self, name: str, held: Held[Any]) -> None:
        self._extras.setdefault(name, held)


class _WcsState:
    """The WCS of an extension, where it came from, and whether it still is what the header says."""

    __slots__ = ("as_in_header", "is_built", "mapping", "origin", "problem")

    def __init__(self) -> None:
        self.mapping: wcs_module.SkyMapping | None = None
        self.is_built = False
        self.origin = "none"
        self.problem = ""
        self.as_in_header: tuple[Any, ...] | None = None

    def build(self, header: Any, phu: Any) -> None:
        reading = wcs_module.from_header(header)
        self.origin = "extension"
        if reading.mapping is None:
            self.problem = reading.problem
            self.origin = "primary"
            reading = wcs_module.from_header(phu) if phu is not None else reading
            if reading.mapping is None:
                self.origin = "none"
        self.mapping = reading.mapping
        self.as_in_header = None if self.mapping is None else wcs_module.signature(self.mapping)
        self.is_built = True

    def expose(self) -> WCS | None:
        """Return the WCS as an object that the caller may change, and keep that object."""
        if self.mapping is not None:
            self.mapping = wcs_module.to_astropy(self.mapping)
        return self.mapping

    def set(self, mapping: wcs_module.SkyMapping | None) -> None:
        self.mapping, self.is_built, self.problem = mapping, True, ""
        self.origin = "none" if mapping is None else "set"
        self.as_in_header = ("removed",) if mapping is None else None

    @property
    def is_changed(self) -> bool:
        if not self.is_built:
            return False
        now = None if self.mapping is None else wcs_module.signature(self.mapping)
        return now != self.as_in_header

    def copy(self) -> _WcsState:
        twin = _WcsState()
        if self.is_built:
            # A plane cannot be changed and may be shared.
            twin.mapping = self.mapping if isinstance(self.mapping, TangentPlane) else deepcopy(self.mapping)
            twin.is_built, twin.origin, twin.problem = True, self.origin, self.problem
            twin.as_in_header = self.as_in_header
        return twin


def check_extra_name(name: str) -> None:
    """Refuse names that extras and tables cannot have."""
    if name in _RESERVED:
        raise InputError(
            f"{name} cannot be set as an attribute",
            item=name,
            remedy="Use data, variance or mask, or append().",
        )
    if not name.isidentifier() or name != name.upper() or name.startswith("_"):
        raise InputError("the name of a table or array has to be upper case", item=name)


def hold_extra(name: str, value: Any) -> Held[Any]:
    """Return a handle on an array or table.

    Raises
    ------
    InputError
        The value is something else, which could not be written.
    """
    if is_table(value):
        return HeldTable(value)
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
        return ArrayPlane(value)
    raise InputError(
        "only arrays of numbers and astropy tables can be attached",
        item=name,
        found=type(value).__name__,
        expected="numpy.ndarray or astropy.table.Table",
    )


def _as_plane(array: Any, name: str) -> NDArray[Any]:
    """Convert what a caller gives to the dtype of a plane, without a copy where none is needed."""
    try:
        values = np.asarray(array)
    except ValueError as error:
        raise InputError("this is not an image", item=name, found=str(error)) from error
    if values.dtype.kind not in "biuf" or values.ndim != 2:
        raise InputError(
            "this is not an image",
            item=name,
            found=f"shape {values.shape}, dtype {values.dtype}",
            expected="a two-dimensional array of real numbers",
        )
    if name == "mask" and values.dtype not in (np.uint16, np.uint8, bool):
        _check_bits(values)
    plane = np.ascontiguousarray(values, dtype=_PLANE_DTYPES[name])
    if not plane.flags.writeable:
        plane = plane.copy()
    if name == "variance":
        _remove_negative(plane)
    return plane


def _check_bits(values: NDArray[Any]) -> None:
    if values.size and not (
        values.dtype.kind in "iu" and int(values.min()) >= 0 and int(values.max()) <= 65535
    ):
        raise InputError(
            "a mask holds bits, as integers from 0 to 65535",
            item="mask",
            found=f"{values.dtype}, {values.min()} to {values.max()}",
        )


def _remove_negative(variance: NDArray[Any]) -> None:
    if variance.size and np.fmin.reduce(variance, axis=None) < 0:
        negative = variance < 0
        logging.getLogger(__name__).warning("%d negative variances are set to 0", int(negative.sum()))
        variance[negative] = 0


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InputError(
            "the planes of an extension have one shape",
            item=name,
            found=found,
            expected=expected,
            remedy="Use reset() to replace all planes at once.",
        )
