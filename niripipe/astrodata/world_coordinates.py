"""The world coordinates of an extension, and the headers that state them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from niripipe.astrodata import wcs as wcs_module
from niripipe.astrodata.tangent import TangentPlane
from niripipe.astrodata.wcs_state import WcsState
from niripipe.errors import InputError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["WorldCoordinates", "copy_to_primary"]


class WorldCoordinates:
    """The part of an extension that has to do with its world coordinates."""

    __slots__ = ()

    _hdr: Any
    _phu: Any
    _wcs: WcsState

    @property
    def hdr(self) -> Any:
        """The header of the science plane; it states the same WCS as `wcs`."""
        # An object of astropy may have been changed where it is.
        if self._wcs.mapping is not None and not isinstance(self._wcs.mapping, TangentPlane):
            self._write_wcs()
        return self._hdr

    @hdr.setter
    def hdr(self, header: Any) -> None:
        self._hdr = header

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
        self._set_wcs(wcs)

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
            self._set_wcs(mapping)
        else:
            self.wcs = mapping

    @property
    def linear_wcs(self) -> wcs_module.LinearTerms | None:
        """The numbers of the linear part of `wcs`, or None; cheap while `wcs` itself is not in use."""
        if not self._wcs.is_built:
            terms = wcs_module.linear_terms(self._hdr)
            if terms is not None:
                return terms
        return wcs_module.terms_of(self.sky_mapping)

    @property
    def wcs_origin(self) -> str:
        """Where the WCS came from: ``extension``, ``primary``, ``set``, or ``none``."""
        return self._wcs_state().origin

    @property
    def has_new_wcs(self) -> bool:
        """Whether the WCS is another one than the file had."""
        self._write_wcs()
        return self._wcs.is_new

    @property
    def wcs_problem(self) -> str:
        """Why the extension's own header was not used for the WCS; empty if it was."""
        return self._wcs_state().problem

    def header_for_writing(self) -> Any:
        """Return the header as it is to be written: a copy, its WCS cards rewritten only if it changed."""
        header = self.hdr.copy()
        if self._wcs.is_changed:
            wcs_module.write_to_header(self._wcs.mapping, header)
        return header

    def record_wcs(self, *, in_primary: bool) -> None:
        """Let the header state the WCS also where it came from the primary header.

        Parameters
        ----------
        in_primary : bool
            Whether the copy of the WCS that the primary header may have is to follow.
        """
        state = self._wcs_state()
        if state.origin == "primary":
            wcs_module.write_to_header(state.mapping, self._hdr)
            state.origin = "extension"
        self._write_wcs()
        if in_primary and self._phu is not None:
            copy_to_primary(state.mapping, self._phu)

    def _wcs_state(self) -> WcsState:
        """Return the state of the WCS, which has been read from the header if nobody set it."""
        if not self._wcs.is_built:
            self._wcs.build(self._hdr, self._phu)
        return self._wcs

    def _set_wcs(self, mapping: wcs_module.SkyMapping | None) -> None:
        self._wcs.set(mapping)
        self._write_wcs()

    def _write_wcs(self) -> None:
        """Put a WCS that changed into the header; a removed one leaves it when it is written."""
        # Until then the raw header may be needed to make another.
        if self._wcs.mapping is not None and self._wcs.is_changed:
            wcs_module.write_to_header(self._wcs.mapping, self._hdr)
            self._wcs.was_written()


def copy_to_primary(mapping: wcs_module.SkyMapping | None, phu: Any) -> None:
    """Let the copy of a WCS in a primary header follow that of the extension; without a copy none is made.

    Raw frames have one, which `WCS(getheader(file))` finds, though the primary HDU has no pixels.

    Parameters
    ----------
    mapping : TangentPlane, astropy.wcs.WCS or None
        The WCS of the only extension; without one the copy is left as it is.
    phu : astropy.io.fits.Header
        Changed in place, if it says something else.
    """
    if mapping is None or "CTYPE1" not in phu:
        return
    copy = wcs_module.from_header(phu).mapping
    if copy is None or wcs_module.signature(copy) != wcs_module.signature(mapping):
        wcs_module.write_to_header(mapping, phu)
