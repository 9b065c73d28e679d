"""NIRI: its tags and descriptors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from niripipe.astrodata import Section, TagSet, astro_data_descriptor, astro_data_tag, returns_list
from niripipe.astrodata.wcs import LinearTerms
from niripipe.instruments import sections
from niripipe.instruments.gemini import AstroDataGemini, in_adu
from niripipe.instruments.headers import Header, find_date, get_float, get_int, get_text, remove_component_id
from niripipe.instruments.pointing import header_wcs, is_mirrored, is_plausible
from niripipe.instruments.tables import LinearityCoefficients, niri_tables

__all__ = ["AstroDataNiri"]

_UNKNOWN = "Unknown"
#: By ``OBSTYPE``.
_CALIBRATION_TAGS = {
    "DARK": TagSet({"DARK", "CAL"}, blocks={"SPECT", "IMAGE"}),
    "ARC": TagSet({"ARC"}),
    "FLAT": TagSet({"CAL", "FLAT"}),
}
_FILTER_KEYWORDS = ("FILTER1", "FILTER2", "FILTER3")
#: Wheel positions that are not filters.
_NOT_A_FILTER = ("open", "grism", "pupil")
#: Wheel positions that say nothing.
_NO_FILTER_NAME = frozenset({"invalid", "unknown", "datum"})


class AstroDataNiri(AstroDataGemini):
    """Data of NIRI, the near-infrared imager of Gemini North.

    The numbers behind the descriptors are in `niripipe.instruments.tables.niri_tables`.
    """

    @staticmethod
    def _matches_data(source: Any) -> bool:
        """Accept NIRI data from Gemini North, or from no telescope named.

        DRAGONS does not look at the telescope.
        """
        phu = source[0].header
        sites = {(get_text(phu, key) or "GEMINI-NORTH").upper() for key in ("OBSERVAT", "TELESCOP")}
        return (get_text(phu, "INSTRUME") or "").upper() == "NIRI" and "GEMINI-NORTH" in sites

    # ---- tags

    @astro_data_tag
    def _tag_instrument(self) -> TagSet:
        return TagSet({"NIRI"})

    @astro_data_tag
    def _tag_calibration(self) -> TagSet | None:
        return _CALIBRATION_TAGS.get(get_text(self.phu, "OBSTYPE") or "")

    @astro_data_tag
    def _tag_image(self) -> TagSet | None:
        if self._has_grism():
            return None
        if (get_text(self.phu, "OBJECT") or "").upper() == "TWILIGHT":
            return TagSet({"IMAGE", "CAL", "FLAT", "TWILIGHT"})
        return TagSet({"IMAGE"})

    @astro_data_tag
    def _tag_spect(self) -> TagSet | None:
        return TagSet({"SPECT", "LS"}) if self._has_grism() else None

    # ---- sections

    @astro_data_descriptor
    @returns_list
    def array_section(self, pretty: bool = False) -> list[Section | None] | list[str | None]:
        """Return where the pixels lie on the array, per extension.

        The size is that of the readout keywords (without them, of the image). Subarrays are centred, unless
        LOWROW and LOWCOL say that they are elsewhere: NIRI writes 0 there.

        Parameters
        ----------
        pretty : bool, default False
            Return IRAF strings such as ``[129:896,129:896]``.

        Returns
        -------
        list of Section, or Section
            0-based, end-exclusive; None for an image larger than the chip without readout keywords.
        """
        return _dressed(list(map(sections.readout_section, self._headers(), self._shapes())), pretty)

    @astro_data_descriptor
    def detector_section(self, pretty: bool = False) -> Any:
        """Return where the pixels lie on the detector, per extension: as `array_section`."""
        return self.array_section(pretty)

    @astro_data_descriptor
    @returns_list
    def data_section(self, pretty: bool = False) -> list[Section | None] | list[str | None]:
        """Return the part of each extension that holds data: all of it."""
        return _dressed([Section.from_shape(shape) for shape in self._shapes()], pretty)

    @astro_data_descriptor
    def detector_roi_setting(self) -> str | None:
        """Return the name of the region read out.

        Returns
        -------
        str or None
            ``"Full Frame"``, ``"Central768"``, ``"Central512"``, ``"Central256"`` or ``"Custom"``; None
            without extensions. (DRAGONS raises IndexError, and calls any square multiple of 256 central.)
        """
        return sections.roi_name([(shape[-1], shape[-2]) for shape in self._shapes()])

    # ---- optics

    @astro_data_descriptor
    def filter_name(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the filter in the beam.

        Parameters
        ----------
        stripID : bool, default False
            Leave out the component identifiers (``K`` for ``K_G0204``).
        pretty : bool, default False
            Return the name of the filter or filter pair as in the table, such as ``H2 1-0 S1`` for
            ``H2v=1-0S1_G0216&K_G0204``. Unknown combinations stay as they are, without identifiers.

        Returns
        -------
        str or None
            Names in several wheels are sorted and joined by ``&``; ``"blank"`` if one of them is blank,
            ``"open"`` if there is none. None if no wheel position is recorded, or only invalid ones.

        Notes
        -----
        Names are compared without regard to letter case, pupil masks are left out in every spelling
        (``Pupil38``, ``pup38``), and ``INVALID`` is not a filter; DRAGONS matches them exactly. A name that
        is spelt in an unknown way is known by its component identifier.
        """
        positions = [name for key in _FILTER_KEYWORDS if (name := get_text(self.phu, key)) is not None]
        valid = [name for name in positions if name.lower() not in _NO_FILTER_NAME]
        filters = sorted(name for name in valid if not _is_opening(name))
        wheels = [niri_tables().wheel_name(name) for name in filters]
        if stripID or pretty:
            filters = sorted(remove_component_id(name) or name for name in filters)
        if any((remove_component_id(name) or "").lower() == "blank" for name in filters):
            return "blank"
        if not filters:
            return "open" if valid else None
        known = (niri_tables().filter_of(filters) or niri_tables().filter_of(wheels)) if pretty else None
        return "&".join(filters) if known is None else known.name

    @astro_data_descriptor
    def disperser(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the grism, ``"MIRROR"`` if there is none, None if ``FILTER3`` is missing."""
        name = self._component("FILTER3", stripID or pretty)
        return name if name is None or self._has_grism() else "MIRROR"

    @astro_data_descriptor
    def pupil_mask(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the pupil mask, ``"MIRROR"`` if there is none, None if ``FILTER3`` is missing.

        ``Pupil38`` counts like ``pupil38``. (DRAGONS answers MIRROR for the capital letter, which all frames
        since 2009 have.)
        """
        name = self._component("FILTER3", stripID or pretty)
        return name if name is None or name.lower().startswith("pup") else "MIRROR"

    @astro_data_descriptor
    def dispersion_axis(self) -> int | None:
        """Return the axis of dispersion (1 is x) of spectra; None for images.

        DRAGONS returns 1 for images too.
        """
        return 1 if "SPECT" in self.tags else None

    @astro_data_descriptor
    def uses_lamp_flats(self) -> bool | None:
        """Tell whether lamp flats are taken in this filter.

        They are not in the thermal ones; None for unknown filters.
        """
        known = niri_tables().filter_named(self.filter_name(pretty=True))
        return None if known is None else not known.thermal

    @astro_data_descriptor
    def port(self) -> int | None:
        """Return the port of the instrument support structure (``INPORT``; 1 is the bottom)."""
        return get_int(self.phu, "INPORT")

    # ---- detector

    @astro_data_descriptor
    def read_mode(self) -> str:
        """Return the read mode.

        Returns
        -------
        str
            ``"Low Background"``, ``"Medium Background"`` or ``"High Background"`` from ``LNRS`` and
            ``NDAVGS``; ``"Unknown"`` for other combinations.
        """
        mode = niri_tables().read_mode(get_int(self.phu, "LNRS"), get_int(self.phu, "NDAVGS"))
        return _UNKNOWN if mode is None else mode.name

    @astro_data_descriptor
    def well_depth_setting(self) -> str:
        """Return the well depth.

        Returns
        -------
        str
            ``"Shallow"``, ``"Deep"``, or ``"Unknown"`` if the bias voltage is near neither nominal value or
            missing.

        Notes
        -----
        The bias is ``A_VDDUC - A_VDET``, measured after the exposure; where these are missing, ``VDDUC -
        VDET`` from before it. Voltages written as text are read. (DRAGONS raises TypeError for them, and does
        not look at the second pair.) See `voltage_conflict`.
        """
        before, after = self._biases()
        well = niri_tables().well(before if after is None else after)
        return _UNKNOWN if well is None else well.name

    @astro_data_descriptor
    def voltage_conflict(self) -> str | None:
        """Return a sentence if the bias before the exposure was not that after it, else None.

        This happens in the first frame after the well depth was changed. The values from after the exposure
        decide.
        """
        before, after = self._biases()
        if before is None or after is None:
            return None
        if abs(before - after) <= niri_tables().detector.voltage_tolerance:
            return None
        names = [well.name if (well := niri_tables().well(bias)) else _UNKNOWN for bias in (before, after)]
        return (
            f"the detector bias was {before:.3f} V ({names[0]}) before "
            f"and {after:.3f} V ({names[1]}) after the exposure"
        )

    @astro_data_descriptor
    @returns_list
    def gain(self) -> list[float]:
        """Return the gain, in e- per unit of the pixels, per extension.

        In prepared data the keyword ``GAIN`` if all extensions have it. Otherwise the gain of the array for
        data in ADU, and 1 for data in electrons.
        """
        return self._prepared("GAIN") or [self._gain(header) for header in self._headers()]

    @astro_data_descriptor
    @returns_list
    def read_noise(self) -> list[float]:
        """Return the read noise of the coadded frame, in e-, per extension.

        In prepared data the keyword ``RDNOISE`` if all extensions have it. Otherwise the value of the read
        mode times the square root of the number of coadds. An unknown read mode gets the value of the medium
        background mode, as in DRAGONS; `read_mode` tells.
        """
        tables = niri_tables()
        mode = tables.read_mode_named(self.read_mode()) or tables.fallback_read_mode
        noise = mode.read_noise * math.sqrt(self.coadds())
        return self._prepared("RDNOISE") or [noise] * len(self._headers())

    @astro_data_descriptor
    @returns_list
    def saturation_level(self) -> list[int | None]:
        """Return the saturation level, in the unit of the pixels, per extension.

        In prepared data the keyword ``SATLEVEL`` if all extensions have it. Otherwise the full well times the
        number of coadds divided by the gain, truncated; None for an unknown well.
        """
        return self._saturation_levels()

    @astro_data_descriptor
    @returns_list
    def non_linear_level(self) -> list[int | None]:
        """Return the level, in the unit of the pixels, beyond which the response cannot be made linear.

        In prepared data the keyword ``NONLINEA`` if all extensions have it. Otherwise 0.7 of the saturation
        level, truncated; None for an unknown well.
        """
        limit = niri_tables().detector.linear_limit
        computed = [None if level is None else int(limit * level) for level in self._saturation_levels()]
        return self._prepared("NONLINEA", _whole) or computed

    @astro_data_descriptor
    @returns_list
    def linearity_coefficients(self) -> list[LinearityCoefficients | None]:
        """Return the coefficients of the non-linearity correction, per extension.

        Returns
        -------
        list of LinearityCoefficients, or one
            None where none were measured for this read mode, number of rows and well depth.
        """
        mode, well = self.read_mode(), self.well_depth_setting()
        return [niri_tables().linearity_for(mode, shape[-2], well) for shape in self._shapes()]

    @astro_data_descriptor
    def read_pairs_to_divide_by(self) -> int:
        """Return the number by which the pixels must be divided to average the read pairs.

        Raw frames from before November 2001 hold the sum over the ``LNRS`` read pairs; later ones, and
        prepared data, give 1.
        """
        reads = get_int(self.phu, "LNRS") or 1
        old = self._before(niri_tables().epochs.read_pairs_averaged_since)
        return reads if old and reads > 1 else 1

    @astro_data_descriptor
    def subarray_reference_shift(self) -> tuple[float, float]:
        """Return what must be subtracted from CRPIX1 and CRPIX2, in pixels.

        Raw subarray frames from before February 2005 state the reference pixel on the full chip; later ones,
        full frames and prepared data give (0, 0).
        """
        sizes = self._shapes()
        if not sizes or not self._before(niri_tables().epochs.subarray_crpix_since):
            return 0.0, 0.0
        chip = niri_tables().detector.size
        return (chip - sizes[0][-1]) / 2, (chip - sizes[0][-2]) / 2

    # ---- photometry and pointing

    @astro_data_descriptor
    @returns_list
    def nominal_photometric_zeropoint(self) -> list[float | None]:
        """Return the nominal magnitude of a source that gives one unit (ADU or e-) per second, per extension.

        None for filters and cameras for which the observatory states none (narrow bands, f/14).
        """
        nominal = niri_tables().zero_point(self.filter_name(pretty=True), self.camera(pretty=True))
        if nominal is None:
            return [None] * len(self._headers())
        gain = niri_tables().detector.gain
        return [nominal - 2.5 * math.log10(gain) if in_adu(h) else nominal for h in self._headers()]

    @astro_data_descriptor
    def pixel_scale(self) -> float | None:
        """Return the pixel scale, in arcsec (mean over extensions).

        From the WCS; in unprepared data only if it is plausible for the camera, else from the copy of the WCS
        in the primary header. Without a usable WCS the nominal value of the camera; None if the camera is
        unknown too.
        """
        scale = super().pixel_scale()
        if scale is not None:
            return scale
        camera = niri_tables().camera(self.camera(pretty=True))
        if camera is None:
            return None
        return camera.scale_ao if self.is_ao() else camera.scale

    @astro_data_descriptor
    def detector_x_offset(self) -> float | None:
        """Return by how much the sources have moved in +x relative to no offset, in pixels.

        As in DRAGONS: ``POFFSET`` over the pixel scale, with the sign reversed if the image is mirrored; None
        if either is missing. This holds where the rotator followed the sky; alignment asks the WCS, too
        (`niripipe.instruments.pointing.detector_offset`).
        """
        p, scale = get_float(self.phu, "POFFSET"), self.pixel_scale()
        if p is None or scale is None:
            return None
        # Adding 0 makes 0 of -0.
        return (-p if is_mirrored(self.port(), self.is_ao()) else p) / scale + 0.0

    @astro_data_descriptor
    def detector_y_offset(self) -> float | None:
        """Return by how much the sources have moved in +y relative to no offset, in pixels.

        ``-QOFFSET`` over the pixel scale; None if either is missing.
        """
        q, scale = get_float(self.phu, "QOFFSET"), self.pixel_scale()
        return None if q is None or scale is None else -q / scale + 0.0

    @astro_data_descriptor
    def group_id(self) -> str:
        """Return a text that is the same for frames that belong together.

        Made of exposure time, coadds, read mode, well and window of darks; of observation, filter, camera,
        read mode, well and window of other frames, with a suffix for flats in imaging. Exposure times are
        rounded to a millisecond, and a data set and its slices have the same identifier. (In DRAGONS neither
        holds.)
        """
        rules = niri_tables().group_rules
        if "DARK" in self.tags:
            return self._group(rules.dark)
        text = self._group(rules.spectroscopy if "SPECT" in self.tags else rules.other)
        if "TWILIGHT" in self.tags:
            return f"{text}_{rules.twilight_suffix}"
        return f"{text}_{rules.imaging_suffix}" if {"IMAGE", "FLAT"} <= self.tags else text

    # ---- helpers

    def _group(self, names: Sequence[str]) -> str:
        return "_".join(str(self._group_part(name)) for name in names)

    def _group_part(self, name: str) -> Any:
        if name == "exposure_time":
            exposure = self.exposure_time()
            decimals = niri_tables().group_rules.exposure_decimals
            return None if exposure is None else round(exposure, decimals)
        if name == "filter_name":
            return self.filter_name(pretty=True)
        if name == "detector_section":
            section = self.detector_section(pretty=True)
            return section if isinstance(section, list) else [section]
        return getattr(self, name)()

    def _has_grism(self) -> bool:
        return "grism" in (get_text(self.phu, "FILTER3") or "").lower()

    def _filter_wavelength(self) -> float | None:
        known = niri_tables().filter_named(self.filter_name(pretty=True))
        return None if known is None else known.wavelength

    def _shapes(self) -> list[tuple[int, ...]]:
        return [extension.shape for extension in self]

    def _linear_wcs(self) -> list[LinearTerms | None]:
        """Return the WCS of each extension that can be believed; prepared data have been checked."""
        found = super()._linear_wcs()
        if self._is_prepared:
            return found
        camera = self.camera(pretty=True)
        spare = header_wcs(self.phu)
        if not is_plausible(spare, camera):
            spare = None
        return [wcs if is_plausible(wcs, camera) else spare for wcs in found]

    def _biases(self) -> tuple[float | None, float | None]:
        """Return the bias (V) before and after the exposure."""
        before = _difference(self.phu, "VDDUC", "VDET")
        return before, _difference(self.phu, "A_VDDUC", "A_VDET")

    def _gain(self, header: Header) -> float:
        return niri_tables().detector.gain if in_adu(header) else 1.0

    def _saturation_levels(self) -> list[int | None]:
        well = niri_tables().well_named(self.well_depth_setting())
        full = None if well is None else well.full_well * self.coadds()
        computed = [None if full is None else int(full / self._gain(header)) for header in self._headers()]
        return self._prepared("SATLEVEL", _whole) or computed

    def _prepared(self, keyword: str, convert: Callable[[float], Any] = float) -> list[Any] | None:
        """Return the values of an extension keyword in prepared data; None unless all extensions have it."""
        if not self._is_prepared:
            return None
        values = [get_float(header, keyword) for header in self._headers()]
        return [convert(value) for value in values if value is not None] if None not in values else None

    def _before(self, epoch: date) -> bool:
        day = find_date(self.phu)
        return day is not None and day < epoch and not self._is_prepared


def _difference(header: Header, first: str, second: str) -> float | None:
    a, b = get_float(header, first), get_float(header, second)
    return None if a is None or b is None else a - b


def _is_opening(name: str) -> bool:
    lowered = name.lower()
    return lowered.startswith("pup") or any(part in lowered for part in _NOT_A_FILTER)


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _dressed(found: Sequence[Section | None], pretty: bool) -> list[Section | None] | list[str | None]:
    if not pretty:
        return list(found)
    return [None if section is None else section.as_iraf_section() for section in found]
