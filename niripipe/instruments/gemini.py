"""Descriptors that Gemini's instruments have in common: target, time, conditions, guiding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, TypeVar

from niripipe.astrodata import AstroData, astro_data_descriptor, header_value, returns_list
from niripipe.astrodata.wcs import LinearTerms
from niripipe.errors import DataError, ParameterError
from niripipe.instruments import headers, pointing
from niripipe.instruments.elsewhere import ElsewhereDescriptors
from niripipe.instruments.gemini_tags import OBSERVATORIES, is_flat_lamp
from niripipe.instruments.headers import (
    Header,
    clean_text,
    get_float,
    get_int,
    get_text,
    name_text,
    parse_float,
    parse_percentile,
    parse_time,
    remove_component_id,
)
from niripipe.instruments.tables import niri_tables

__all__ = ["AstroDataGemini", "has_known_unit", "in_adu"]

_Value = TypeVar("_Value")

_WAVELENGTH_UNITS = {"meters": -6, "micrometers": 0, "nanometers": 3, "angstroms": 4}
_GUIDERS = {"AOWFS_ST": "AOWFS", "OIWFS_ST": "OIWFS", "PWFS1_ST": "PWFS1", "PWFS2_ST": "PWFS2"}
_ARCSEC_PER_RADIAN = 206265.0


_ADU = frozenset({"adu", "count", "counts", "ct", "cts", "dn"})
_ELECTRON = frozenset({"electron", "electrons", "e", "e-", "photoelectron", "photoelectrons"})


def in_adu(header: Header) -> bool:
    """Tell whether the pixels under an extension header are in ADU; without ``BUNIT`` they are.

    Other software writes counts or DN.
    """
    return (get_text(header, "BUNIT") or "adu").lower() in _ADU


def has_known_unit(header: Header) -> bool:
    """Tell whether ``BUNIT`` means ADU or electrons, or is missing."""
    return in_adu(header) or (get_text(header, "BUNIT") or "").lower() in _ELECTRON


def _from_keyword(
    keyword: str, parse: Callable[[object], _Value | None], what: str, note: str = ""
) -> Callable[[AstroData], _Value | None]:
    """Make a descriptor that returns the value of a keyword of the primary header."""

    def descriptor(self: AstroData) -> _Value | None:
        return parse(header_value(self.phu, keyword))

    # Type stubs are generated from annotations.
    descriptor.__annotations__["return"] = inspect.get_annotations(parse)["return"]
    descriptor.__doc__ = f"Return {what} (``{keyword}``{note and f'; {note}'})."
    return astro_data_descriptor(descriptor)


class AstroDataGemini(ElsewhereDescriptors):
    """Data of Gemini North or South.

    Descriptors follow two rules: a missing or unreadable value is None, and numbers are Python numbers. Those
    about an extension give a list on a data set and one value on a single slice.
    """

    @staticmethod
    def _matches_data(source: Any) -> bool:
        phu = source[0].header
        return any((get_text(phu, key) or "").upper() in OBSERVATORIES for key in ("OBSERVAT", "TELESCOP"))

    # ---- identity

    @astro_data_descriptor
    def instrument(self, generic: bool = False) -> str | None:
        """Return the name of the instrument (``INSTRUME``)."""
        return get_text(self.phu, "INSTRUME")

    telescope = _from_keyword("TELESCOP", clean_text, "the name of the telescope")
    object = _from_keyword("OBJECT", name_text, "the name of the target", "a number counts as text")
    program_id = _from_keyword("GEMPRGID", clean_text, "the science program")
    observation_id = _from_keyword("OBSID", clean_text, "the observation")
    data_label = _from_keyword("DATALAB", clean_text, "the data label")

    @astro_data_descriptor
    def calibration_key(self) -> str | None:
        """Return the data label without ``_stack``."""
        label = self.data_label()
        return None if label is None else label.replace("_stack", "")

    observation_class = _from_keyword(
        "OBSCLASS", clean_text, "the observation class, such as ``science``", "absent before 2006"
    )
    observation_type = _from_keyword("OBSTYPE", clean_text, "the type of exposure, such as ``DARK``")
    observation_mode = _from_keyword("OBSMODE", clean_text, "the observing mode", "not written by NIRI")
    observation_epoch = _from_keyword("OBSEPOCH", parse_float, "the epoch of observation, in years")

    # ---- time

    @astro_data_descriptor
    def ut_datetime(
        self, strict: bool = False, dateonly: bool = False, timeonly: bool = False
    ) -> datetime | date | time | None:
        """Return the start of the observation, UT, without a zone.

        Parameters
        ----------
        strict : bool, default False
            Do not guess the date from the file name.
        dateonly, timeonly : bool, default False
            Return the `date` or `time` only.

        Returns
        -------
        datetime, date, time or None
            For NIRI ``DATE-OBS`` with ``UT``; else by the search of
            `niripipe.instruments.headers.find_ut_datetime`, which knows the spelling ``MJD_OBS`` of NIRI
            besides ``MJD-OBS``.
        """
        if dateonly:
            return self.ut_date()
        if timeonly:
            return self.ut_time()
        return self._start(strict=strict)

    @astro_data_descriptor
    def ut_date(self) -> date | None:
        """Return the UT date of the start of the observation."""
        start = self._start()
        return headers.find_date(self.phu) if start is None else start.date()

    @astro_data_descriptor
    def ut_time(self) -> time | None:
        """Return the UT time of day of the start of the observation."""
        start = self._start()
        return headers.find_time(self.phu) if start is None else start.time()

    local_time = _from_keyword("LT", parse_time, "the local time of the start of the observation")

    # ---- exposure

    @astro_data_descriptor
    def coadds(self) -> int:
        """Return the number of exposures summed by the detector controller (``COADDS``).

        1 if it is missing, unreadable or less than 1.
        """
        return max(get_int(self.phu, "COADDS") or 1, 1)

    @astro_data_descriptor
    def exposure_time(self) -> float | None:
        """Return the total exposure time, in seconds.

        The keyword ``EXPTIME`` is the time of one coadd in raw frames; preparation multiplies it by
        ``COADDS``. So unprepared data give their product, prepared data the keyword. None if missing or
        negative.
        """
        exposure = self._exposure_keyword()
        if exposure is None or self._is_prepared:
            return exposure
        # Whole numbers of coadds need not add binary noise: 30 x 1.001 s is 30.03 s.
        return round(exposure * self.coadds(), 9)

    @astro_data_descriptor
    def exposure_time_per_coadd(self) -> float | None:
        """Return the exposure time of one coadd, in seconds, whether the data are prepared or not."""
        exposure = self._exposure_keyword()
        if exposure is None or not self._is_prepared:
            return exposure
        return exposure / self.coadds()

    @astro_data_descriptor
    def is_coadds_summed(self) -> bool:
        """Tell whether the pixels are the sum (not the mean) over coadds: always."""
        return True

    @astro_data_descriptor
    def is_in_adu(self) -> bool:
        """Tell whether the pixels are in ADU; without ``BUNIT`` they are.

        Raises
        ------
        DataError
            If some extensions are and some are not.
        """
        answers = {in_adu(header) for header in self._headers()}
        if len(answers) > 1:
            raise DataError(
                "The extensions have different units",
                file=self.filename,
                item="BUNIT",
                found=[header.get("BUNIT") for header in self._headers()],
                expected="one unit",
            )
        return answers != {False}

    @astro_data_descriptor
    def binning(self) -> str:
        """Return the binning in x and y, as ``"1x1"``."""
        return f"{self.detector_x_bin()}x{self.detector_y_bin()}"

    @astro_data_descriptor
    def detector_x_bin(self) -> int:
        """Return the binning in x (``XBIN``, 1 if missing)."""
        return get_int(self.phu, "XBIN") or 1

    @astro_data_descriptor
    def detector_y_bin(self) -> int:
        """Return the binning in y (``YBIN``, 1 if missing)."""
        return get_int(self.phu, "YBIN") or 1

    @astro_data_descriptor
    def detector_name(self, pretty: bool = False) -> str | None:
        """Return the name of the detector (``DETNAME``; not written by NIRI)."""
        return get_text(self.phu, "DETNAME")

    @astro_data_descriptor
    @returns_list
    def amp_read_area(self) -> str | None:
        """Return the amplifier and its section, per extension (``AMPROA``; not written by NIRI)."""
        return get_text(self.phu, "AMPROA")

    @astro_data_descriptor
    @returns_list
    def array_name(self) -> str | None:
        """Return the name of each array (``ARRAYNAM``; not written by NIRI)."""
        return get_text(self.phu, "ARRAYNAM")

    @astro_data_descriptor
    @returns_list
    def overscan_section(self, pretty: bool = False) -> None:
        """Return the overscan section, per extension: infrared arrays have none."""
        return

    # ---- optics

    @astro_data_descriptor
    def camera(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the camera (``CAMERA``), without component identifier if either flag is set."""
        return self._component("CAMERA", stripID or pretty)

    @astro_data_descriptor
    def focal_plane_mask(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the focal plane mask (``FPMASK``), without component identifier if either flag is set."""
        return self._component("FPMASK", stripID or pretty)

    @astro_data_descriptor
    def gcal_lamp(self) -> str | None:
        """Return the lamp that shone on the detector.

        Returns
        -------
        str or None
            ``"Off"`` if no lamp was on or a flat lamp was behind the closed shutter; None if the keywords are
            missing. DRAGONS returns ``"QH"`` for a halogen lamp behind a closed shutter; here it is ``"Off"``
            like the others.
        """
        if "GCALLAMP" not in self.phu or "GCALSHUT" not in self.phu:
            return None
        lamp, shutter = get_text(self.phu, "GCALLAMP"), get_text(self.phu, "GCALSHUT")
        if lamp is None or (shutter == "CLOSED" and is_flat_lamp(lamp)):
            return "Off"
        return lamp

    @astro_data_descriptor
    def is_ao(self) -> bool:
        """Tell whether the adaptive optics were in the beam (``AOFOLD`` is ``IN``)."""
        return (get_text(self.phu, "AOFOLD") or "").upper() == "IN"

    @astro_data_descriptor
    def effective_wavelength(self, output_units: str | None = None) -> float | None:
        """Return the effective wavelength of the filter.

        Parameters
        ----------
        output_units : {"meters", "micrometers", "nanometers", "angstroms"}, optional
            Metres by default.

        Returns
        -------
        float or None
            The tabulated decimal number, without conversion noise (2.15e-06, not 2.1499999999999997e-06).
            None for anything but images and for filters without a wavelength.

        Raises
        ------
        ParameterError
            For another unit. (DRAGONS takes it for metres.)
        """
        exponent = _WAVELENGTH_UNITS.get(output_units or "meters")
        if exponent is None:
            raise ParameterError(
                "Unknown unit of wavelength",
                item="output_units",
                found=output_units,
                expected=", ".join(_WAVELENGTH_UNITS),
            )
        wavelength = self._filter_wavelength() if "IMAGE" in self.tags else None
        return None if wavelength is None else headers.scaled(wavelength, exponent)

    @astro_data_descriptor
    def central_wavelength(self, output_units: str | None = None) -> float | None:
        """Return the central wavelength of a spectrum: None for images."""
        return None

    @astro_data_descriptor
    def wavelength_band(self) -> str | None:
        """Return the letter of the band nearest to the effective wavelength; None without one."""
        return niri_tables().band(self.effective_wavelength(output_units="micrometers"))

    @astro_data_descriptor
    def wavefront_sensor(self) -> str | None:
        """Return the guiding wavefront sensors, sorted and joined by ``&``; None if none was guiding."""
        guiding = [name for key, name in _GUIDERS.items() if get_text(self.phu, key) == "guiding"]
        if get_text(self.phu, "GWFS1CFG"):
            guiding.append("GEMS")
        return "&".join(sorted(guiding)) or None

    # ---- conditions

    @astro_data_descriptor
    def airmass(self) -> float | None:
        """Return the mean airmass (``AIRMASS``); None if unreadable or below 1."""
        airmass = get_float(self.phu, "AIRMASS")
        return airmass if airmass is not None and airmass >= 1.0 else None

    @astro_data_descriptor
    def nominal_atmospheric_extinction(self) -> float | None:
        """Return the nominal extinction relative to airmass 1, in magnitudes.

        None: no coefficients are tabulated for near-infrared filters. (DRAGONS returns 0, as if measured.)
        """
        return None

    @astro_data_descriptor
    def ao_seeing(self) -> float | None:
        """Return the seeing estimated by the adaptive optics, in arcsec.

        ``AOSEEING``; else 0.98 lambda / r0 at 0.5 micrometre, with r0 = ``RZEROVAL`` cm.
        """
        seeing, fried = get_float(self.phu, "AOSEEING"), get_float(self.phu, "RZEROVAL")
        if seeing is not None or not fried or fried < 0.0:
            return seeing
        return _ARCSEC_PER_RADIAN * 0.98 * 0.5e-6 / (fried * 0.01)

    @astro_data_descriptor
    def qa_state(self) -> str:
        """Return the quality assessment as one word, from ``RAWPIREQ`` and ``RAWGEMQA``."""
        required = (get_text(self.phu, "RAWPIREQ") or "UNKNOWN").upper()
        gemini = (get_text(self.phu, "RAWGEMQA") or "UNKNOWN").upper()
        if "UNKNOWN" in (required, gemini):
            return "Undefined"
        if gemini == "USABLE" and required in ("YES", "NO"):
            return "Pass" if required == "YES" else "Usable"
        if gemini == "BAD":
            return "Fail"
        return "CHECK" if "CHECK" in (required, gemini) else f"{required}:{gemini}"

    raw_iq = _from_keyword("RAWIQ", parse_percentile, "the image quality at the time, percentile")
    raw_cc = _from_keyword("RAWCC", parse_percentile, "the cloud cover at the time, percentile")
    raw_bg = _from_keyword("RAWBG", parse_percentile, "the sky background at the time, percentile")
    raw_wv = _from_keyword("RAWWV", parse_percentile, "the water vapour at the time, percentile")
    requested_iq = _from_keyword("REQIQ", parse_percentile, "the image quality asked for, percentile")
    requested_cc = _from_keyword("REQCC", parse_percentile, "the cloud cover asked for, percentile")
    requested_bg = _from_keyword("REQBG", parse_percentile, "the sky background asked for, percentile")
    requested_wv = _from_keyword("REQWV", parse_percentile, "the water vapour asked for, percentile")

    # ---- pointing

    azimuth = _from_keyword("AZIMUTH", parse_float, "the azimuth of the telescope, in degrees")
    elevation = _from_keyword("ELEVATIO", parse_float, "the elevation of the telescope, in degrees")

    @astro_data_descriptor
    def cass_rotator_pa(self) -> float | None:
        """Return the angle of the Cassegrain rotator, in degrees (``CRPA``); None beyond +-360."""
        angle = get_float(self.phu, "CRPA")
        return angle if angle is not None and abs(angle) <= 360.0 else None

    position_angle = _from_keyword(
        "PA",
        parse_float,
        "the position angle of +y, in degrees East of North",
        "None if missing; DRAGONS raises KeyError",
    )
    telescope_x_offset = _from_keyword("XOFFSET", parse_float, "the offset in the telescope's x, in arcsec")
    telescope_y_offset = _from_keyword("YOFFSET", parse_float, "the offset in the telescope's y, in arcsec")

    @astro_data_descriptor
    def pixel_scale(self) -> float | None:
        """Return the pixel scale of the WCS, in arcsec (mean over extensions); None without a WCS."""
        scales = [wcs.scale for wcs in self._linear_wcs() if wcs is not None]
        return sum(scales) / len(scales) if scales else None

    @astro_data_descriptor
    def wcs_ra(self) -> float | None:
        """Return the right ascension of the WCS reference point of the first extension, in degrees.

        The WCS of raw frames is FK5 whatever the target's frame is, so it is returned as it is. (DRAGONS
        takes it for an apparent place in NON_SIDEREAL frames, zenith calibrations included, and is then up to
        0.3 degrees off.)
        """
        return self._wcs_reference()[0]

    @astro_data_descriptor
    def wcs_dec(self) -> float | None:
        """Return the declination of the WCS reference point, in degrees; see `wcs_ra`."""
        return self._wcs_reference()[1]

    @astro_data_descriptor
    def ra(self) -> float | None:
        """Return the right ascension of the field, in degrees: `wcs_ra`, else the target's (``RA``)."""
        ra = self.wcs_ra()
        return headers.parse_ra(header_value(self.phu, "RA")) if ra is None else ra

    @astro_data_descriptor
    def dec(self) -> float | None:
        """Return the declination of the field, in degrees: `wcs_dec`, else the target's (``DEC``)."""
        dec = self.wcs_dec()
        return headers.parse_dec(header_value(self.phu, "DEC")) if dec is None else dec

    @astro_data_descriptor
    def target_ra(self, offset: bool = False, pm: bool = True, icrs: bool = False) -> float | None:
        """Return the right ascension of the target, in degrees.

        Parameters
        ----------
        offset : bool, default False
            Include the target offsets of the header.
        pm : bool, default True
            Apply the proper motion (``PMRA``, seconds of time per year) from ``EPOCH`` to the date.
        icrs : bool, default False
            Convert from ``FRAME`` to ICRS.
        """
        return self._target(offset, pm, icrs)[0]

    @astro_data_descriptor
    def target_dec(self, offset: bool = False, pm: bool = True, icrs: bool = False) -> float | None:
        """Return the declination of the target, in degrees; see `target_ra`.

        The proper motion ``PMDEC`` is in arcsec per year.
        """
        return self._target(offset, pm, icrs)[1]

    # ---- helpers

    def _filter_wavelength(self) -> float | None:
        """Return the wavelength of the filter in micrometres; instruments know."""
        return None

    def _headers(self) -> list[Header]:
        return [extension.hdr for extension in self]

    def _linear_wcs(self) -> list[LinearTerms | None]:
        return [extension.linear_wcs for extension in self]

    def _wcs_reference(self) -> tuple[float | None, float | None]:
        first = next(iter(self._linear_wcs()), None)
        return (None, None) if first is None else first.crval

    def _exposure_keyword(self) -> float | None:
        exposure = get_float(self.phu, "EXPTIME")
        return exposure if exposure is not None and exposure >= 0.0 else None

    def _component(self, keyword: str, strip: bool) -> str | None:
        name = get_text(self.phu, keyword)
        return remove_component_id(name) if strip else name

    def _start(self, strict: bool = False) -> datetime | None:
        return headers.find_ut_datetime(self.phu, name=self.filename, strict=strict)

    def _target(self, offset: bool, pm: bool, icrs: bool) -> tuple[float | None, float | None]:
        phu = self.phu
        ra, dec = headers.parse_ra(header_value(phu, "RA")), headers.parse_dec(header_value(phu, "DEC"))
        if ra is None or dec is None:
            return ra, dec
        if offset:
            east, north = pointing.on_sky(
                _sum(phu, "RAOFFSET"), _sum(phu, "DECOFFSE"), self.position_angle(), headers.find_date(phu)
            )
            dec += (north + _sum(phu, "DECTRGOF")) / 3600.0
            ra += (east + _sum(phu, "RATRGOFF")) / 3600.0 / math.cos(math.radians(dec))
        start = self._start()
        if pm and start is not None:
            years = headers.decimal_year(start) - _epoch(phu)
            ra += _sum(phu, "PMRA") * years * 15.0 / 3600.0
            dec += _sum(phu, "PMDEC") * years / 3600.0
        if icrs:
            return pointing.to_icrs(get_text(phu, "FRAME") or "FK5", ra, dec, start)
        return ra, dec


def _sum(header: Header, *keywords: str) -> float:
    return sum(get_float(header, keyword) or 0.0 for keyword in keywords)


def _epoch(header: Header) -> float:
    # Zenith calibrations write 0 for "none".
    epoch = get_float(header, "EPOCH")
    return epoch if epoch is not None and epoch > 1800.0 else 2000.0
