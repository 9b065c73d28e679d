"""Descriptors of other Gemini instruments: an image of NIRI answers None, as in DRAGONS."""

from __future__ import annotations

from niripipe.astrodata import astro_data_descriptor
from niripipe.instruments.gemini_tags import GeminiTags
from niripipe.instruments.headers import get_text

__all__ = ["ElsewhereDescriptors"]


class ElsewhereDescriptors(GeminiTags):
    """Descriptors that scripts for several instruments ask for; NIRI writes none of their keywords."""

    @astro_data_descriptor
    def decker(self) -> str | None:
        """Return the position of the decker (``DECKER``; not written by NIRI)."""
        return get_text(self.phu, "DECKER")

    @astro_data_descriptor
    def detector_rois_requested(self) -> None:
        """Return the regions of interest that were requested; NIRI has one, see `detector_roi_setting`."""
        return

    @astro_data_descriptor
    def dispersion(self, output_units: str | None = None) -> None:
        """Return the dispersion of a spectrum: None for images."""
        return

    @astro_data_descriptor
    def gain_setting(self) -> str | None:
        """Return the gain setting (``GAINSET``; not written by NIRI, which has one gain)."""
        return get_text(self.phu, "GAINSET")

    @astro_data_descriptor
    def lyot_stop(self) -> str | None:
        """Return the Lyot stop (``LYOTSTOP``; not written by NIRI, see `pupil_mask`)."""
        return get_text(self.phu, "LYOTSTOP")

    @astro_data_descriptor
    def mdf_row_id(self) -> None:
        """Return the row of the table of slits: None for images."""
        return

    @astro_data_descriptor
    def read_speed_setting(self) -> str | None:
        """Return the speed of the readout (``RDSPDSET``; not written by NIRI, see `read_mode`)."""
        return get_text(self.phu, "RDSPDSET")

    @astro_data_descriptor
    def slit(self) -> str | None:
        """Return the slit (``SLIT``; not written by NIRI, see `focal_plane_mask`)."""
        return get_text(self.phu, "SLIT")
