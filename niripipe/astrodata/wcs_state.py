"""The WCS of an extension: read from its header on first use, and written back only if it changed."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from niripipe.astrodata import wcs as wcs_module
from niripipe.astrodata.tangent import TangentPlane

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["WcsState"]


class WcsState:
    """The WCS of an extension, where it came from, and whether it still is what the header says."""

    __slots__ = ("as_in_header", "is_built", "is_new", "mapping", "origin", "problem")

    def __init__(self) -> None:
        self.mapping: wcs_module.SkyMapping | None = None
        self.is_built = False
        self.is_new = False
        self.origin = "none"
        self.problem = ""
        self.as_in_header: tuple[Any, ...] | None = None

    def build(self, header: Any, phu: Any) -> None:
        """Read the WCS from the header of the extension, or else from the primary header."""
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
        """Replace the WCS; None removes it."""
        self.mapping, self.is_built, self.problem = mapping, True, ""
        self.origin = "none" if mapping is None else "set"
        self.as_in_header = ("removed",) if mapping is None else None

    @property
    def is_changed(self) -> bool:
        """Whether the WCS is no longer the one that the header states."""
        if not self.is_built:
            return False
        now = None if self.mapping is None else wcs_module.signature(self.mapping)
        return now != self.as_in_header

    def was_written(self) -> None:
        """Note that the header states the WCS, and that this is not the one that was read."""
        self.as_in_header = None if self.mapping is None else wcs_module.signature(self.mapping)
        self.is_new = True

    def copy(self) -> WcsState:
        """Return an independent state."""
        twin = WcsState()
        if self.is_built:
            # A plane cannot be changed and may be shared.
            twin.mapping = self.mapping if isinstance(self.mapping, TangentPlane) else deepcopy(self.mapping)
            twin.is_built, twin.origin, twin.problem = True, self.origin, self.problem
            twin.as_in_header, twin.is_new = self.as_in_header, self.is_new
        return twin
