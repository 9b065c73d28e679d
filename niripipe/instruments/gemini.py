"""What the headers of Gemini's instruments have in common: tags, target, time, conditions, guiding."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from typing import Any, ClassVar

from niripipe.astrodata import (
    AstroData,
    TagSet,
    astro_data_descriptor,
    astro_data_tag,
    header_value,
    returns_list,
)
from niripipe.errors import DataError, ParameterError
from niripipe.instruments import headers, pointing
from niripipe.instruments.headers import Header, get_float, get_int, get_text
from niripipe.instruments.tables import niri_tables

__all__ = ["AstroDataGemini", "in_adu", "is_flat_lamp"]

_OBSERVATORIES = {"GEMINI-NORTH": "NORTH", "GEMINI-SOUTH": "SOUTH"}
_PROCESSED_KEYWORDS = frozenset(
    {
        "PROCARC", "GBIAS", "PROCBIAS", "PROCDARK", "GIFLAT", "PROCFLAT", "GIFRINGE", "PROCFRNG", "PROCPNHL",
        "PROCSTND", "PROCILLM",
    }
)  # fmt: skip
#: Everything about the exposure that a bad pixel mask inherits from the frame it was made of.
_NOT_OF_A_MASK = frozenset(
    {
        "IMAGE", "SPECT", "SIDEREAL", "NON_SIDEREAL", "AZEL_TARGET", "FLAT", "GCALFLAT", "DARK", "ARC",
        "TWILIGHT", "LAMPON", "LAMPOFF", "GCAL_IR_ON", "GCAL_IR_OFF", "RAW", "PROCESSED_SCIENCE",
        "ACQUISITION",
    }
)  # fmt: skip
_WAVELENGTH_UNITS = {"meters": -6, "micrometers": 0, "nanometers": 3, "angstroms": 4}
_GUIDERS = {"AOWFS_ST": "AOWFS", "OIWFS_ST": "OIWFS", "PWFS1_ST": "PWFS1", "PWFS2_ST": "PWFS2"}
_ARCSEC_PER_RADIAN = 206265.0


def is_flat_lamp(lamp: str | None) -> bool:
    """Tell whether a GCAL lamp is one for flats: ``IRhigh``, ``IRlow`` or a quartz halogen (``QH``)."""
    return lamp is not None and (lamp.lower() in ("irhigh", "irlow") or lamp.upper().startswith("QH"))


def in_adu(header: Header) -> bool:
    """Tell whether the pixels under an extension header are in ADU; without ``BUNIT`` they are."""
    return (get_text(header, "BUNIT") or "ADU").upper() == "ADU"


class AstroDataGemini(AstroData):
    """Data of Gemini North or South.

    Descriptors follow two rules: a missing or unreadable value is None, and numbers are Python numbers. Those
    about an extension give a list on a data set and one value on a single slice.
    """

    #: Concepts and the keywords that hold them or that they are written to.
    _keywords: ClassVar[dict[str, str]] = {
        "airmass": "AIRMASS",
        "amp_read_area": "AMPROA",
        "ao_fold": "AOFOLD",
        "ao_seeing": "AOSEEING",
        "array_name": "ARRAYNAM",
        "array_section": "ARRAYSEC",
        "azimuth": "AZIMUTH",
        "bias_image": "BIASIM",
        "bunit": "BUNIT",
        "camera": "CAMERA",
        "cass_rotator_pa": "CRPA",
        "central_wavelength": "CWAVE",
        "coadds": "COADDS",
        "dark_image": "DARKIM",
        "data_label": "DATALAB",
        "data_section": "DATASEC",
        "dec": "DEC",
        "decker": "DECKER",
        "detector_name": "DETNAME",
        "detector_section": "DETSEC",
        "detector_x_bin": "XBIN",
        "detector_y_bin": "YBIN",
        "disperser": "DISPERSR",
        "elevation": "ELEVATIO",
        "exposure_time": "EXPTIME",
        "filter_name": "FILTER1",
        "focal_plane_mask": "FPMASK",
        "gain": "GAIN",
        "gain_setting": "GAINSET",
        "group_id": "GROUPID",
        "instrument": "INSTRUME",
        "local_time": "LT",
        "lyot_stop": "LYOTSTOP",
        "naxis1": "NAXIS1",
        "naxis2": "NAXIS2",
        "nominal_atmospheric_extinction": "NOMATMOS",
        "nominal_photometric_zeropoint": "NOMPHOTZ",
        "non_linear_level": "NONLINEA",
        "object": "OBJECT",
        "observation_class": "OBSCLASS",
        "observation_epoch": "OBSEPOCH",
        "observation_id": "OBSID",
        "observation_mode": "OBSMODE",
        "observation_type": "OBSTYPE",
        "oiwfs": "OIWFS_ST",
        "overscan_section": "OVERSEC",
        "pixel_scale": "PIXSCALE",
        "position_angle": "PA",
        "program_id": "GEMPRGID",
        "pupil_mask": "PUPILMSK",
        "pwfs1": "PWFS1_ST",
        "pwfs2": "PWFS2_ST",
        "qa_state": "QASTATE",
        "r_zero_val": "RZEROVAL",
        "ra": "RA",
        "raw_gemini_qa": "RAWGEMQA",
        "raw_pi_requirements_met": "RAWPIREQ",
        "read_mode": "READMODE",
        "read_noise": "RDNOISE",
        "read_speed_setting": "RDSPDSET",
        "saturation_level": "SATLEVEL",
        "telescope": "TELESCOP",
        "telescope_x_offset": "XOFFSET",
        "telescope_y_offset": "YOFFSET",
        "ut_date": "DATE-OBS",
        "ut_datetime": "DATETIME",
        "ut_time": "UT",
        "wavefront_sensor": "WFS",
        "wavelength": "WAVELENG",
        "wavelength_band": "WAVEBAND",
        "well_depth_setting": "WELDEPTH",
    }

    @staticmethod
    def _matches_data(source: Any) -> bool:
        phu = source[0].header
        return any((get_text(phu, key) or "").upper() in _OBSERVATORIES for key in ("OBSERVAT", "TELESCOP"))

    # ---- tags
    # ----------------------------------------------------------------------------------------------------

    @astro_data_tag
    def _tag_gemini(self) -> TagSet:
        return TagSet({"GEMINI"})

    @astro_data_tag
    def _tag_site(self) -> TagSet | None:
        site = _OBSERVATORIES.get((get_text(self.phu, "OBSERVAT") or "").upper())
        return TagSet({site}) if site else None

    @astro_data_tag
    def _tag_acquisition(self) -> TagSet | None:
        return TagSet({"ACQUISITION"}) if self._text("observation_class") in ("acq", "acqCal") else None

    @astro_data_tag
    def _tag_azel_target(self) -> TagSet | None:
        if get_text(self.phu, "FRAME") != "AZEL_TOPO":
            return None
        return TagSet({"AZEL_TARGET", "AT_ZENITH"} if self.airmass() == 1.0 else {"AZEL_TARGET"})

    @astro_data_tag
    def _tag_gcal_flat(self) -> TagSet | None:
        """Mark flats by the lamp.

        DRAGONS goes by the lamp alone, which makes flats of arcs that list a lamp, and leaves out ``IRlow``;
        here the frame must be a flat (``OBSTYPE``, or no ``OBSTYPE`` at all) and every flat lamp counts.
        """
        if self._may_be_flat() and is_flat_lamp(get_text(self.phu, "GCALLAMP")):
            return TagSet({"GCALFLAT", "FLAT", "CAL"})
        return None

    @astro_data_tag
    def _tag_gcal_lamp(self) -> TagSet | None:
        """Tell lamp-on from lamp-off flats by the shutter.

        DRAGONS makes LAMPOFF of any frame with no lamp and a closed shutter; here it must be a flat.
        """
        lamp, shutter = get_text(self.phu, "GCALLAMP"), get_text(self.phu, "GCALSHUT")
        if not self._may_be_flat() or (lamp is not None and not is_flat_lamp(lamp)):
            return None
        if shutter == "OPEN" and lamp is not None:
            return TagSet({"GCAL_IR_ON", "LAMPON"}, blocked_by={"PROCESSED"})
        if shutter == "CLOSED" and (lamp is not None or "GCALLAMP" in self.phu):
            return TagSet({"GCAL_IR_OFF", "LAMPOFF"}, blocked_by={"PROCESSED", "PINHOLE"})
        return None

    @astro_data_tag
    def _tag_observation_mode(self) -> TagSet | None:
        mode = self._text("observation_mode")
        if mode is None:
            return None
        return TagSet({mode.upper()} if mode.upper() == "IMAGE" else {mode.upper(), "SPECT"})

    @astro_data_tag
    def _tag_sidereal(self) -> TagSet | None:
        """Tell moving targets from fixed ones by the differential tracking rates.

        DRAGONS calls a frame NON_SIDEREAL unless both rates are there and exactly 0. Here rates too slow to
        matter, and rates that are not recorded, mean SIDEREAL.
        """
        frames = {get_text(self.phu, "TRKFRAME"), get_text(self.phu, "FRAME")}
        if not frames & {"FK5", "APPT"}:
            return None
        in_ra = 15.0 * (get_float(self.phu, "RATRACK") or 0.0)
        in_dec = get_float(self.phu, "DECTRACK") or 0.0
        moving = math.hypot(in_ra, in_dec) > niri_tables().pointing.sidereal_rate
        return TagSet({"NON_SIDEREAL" if moving else "SIDEREAL"})

    @astro_data_tag
    def _tag_bpm(self) -> TagSet | None:
        """Mark bad pixel masks, which keep nothing of the frames they were made of.

        DRAGONS lets a mask made from flats keep FLAT, so that it can be taken for one.
        """
        if not ("BPMASK" in self.phu or "PROCBPM" in self.phu or self._text("observation_type") == "BPM"):
            return None
        return TagSet({"BPM", "CAL", "PROCESSED"}, blocks=_NOT_OF_A_MASK)

    @astro_data_tag
    def _tag_mask(self) -> TagSet | None:
        return (
            TagSet({"MASK"}, blocks={"IMAGE", "SPECT"}) if self._text("observation_type") == "MASK" else None
        )

    @astro_data_tag
    def _tag_raw(self) -> TagSet | None:
        """Mark untouched data: no processing time stamp, and neither prepared nor processed by any sign."""
        touched = "GEM-TLM" in self.phu or self._is_processed or self._is_prepared
        return None if touched else TagSet({"RAW"})

    @astro_data_tag
    def _tag_prepared(self) -> TagSet:
        return TagSet({"PREPARED" if self._is_prepared else "UNPREPARED"})

    @astro_data_tag
    def _tag_overscan(self) -> TagSet | None:
        added = {
            tag
            for part, tag in (("TRIMOVER", "OVERSCAN_TRIMMED"), ("SUBOVER", "OVERSCAN_SUBTRACTED"))
            if self._has_part(part)
        }
        return TagSet(added) if added else None

    @astro_data_tag
    def _tag_processed(self) -> TagSet | None:
        return TagSet({"PROCESSED"}) if self._is_processed else None

    @astro_data_tag
    def _tag_processed_science(self) -> TagSet | None:
        if self._text("observation_type") == "OBJECT" and ("PROCSCI" in self.phu or "GMOSAIC" in self.phu):
            return TagSet({"PROCESSED_SCIENCE", "PROCESSED"}, blocks={"RAW"})
        return None

    @astro_data_tag
    def _tag_fringe(self) -> TagSet | None:
        return TagSet({"FRINGE", "CAL"}) if "GIFRINGE" in self.phu or "PROCFRNG" in self.phu else None

    @astro_data_tag
    def _tag_telluric(self) -> TagSet | None:
        return TagSet({"TELLURIC", "CAL"}) if headers.truth(header_value(self.phu, "PROCTELL")) else None

    @astro_data_tag
    def _tag_extracted(self) -> TagSet | None:
        return TagSet({"EXTRACTED"}) if "EXTRACT" in self.phu else None

    # ---- identity
    # ------------------------------------------------------------------------------------------------

    @astro_data_descriptor
    def instrument(self, generic: bool = False) -> str | None:
        """Return the name of the instrument (``INSTRUME``)."""
        return self._text("instrument")

    @astro_data_descriptor
    def telescope(self) -> str | None:
        """Return the name of the telescope (``TELESCOP``)."""
        return self._text("telescope")

    @astro_data_descriptor
    def object(self) -> str | None:
        """Return the name of the target (``OBJECT``)."""
        return self._text("object")

    @astro_data_descriptor
    def program_id(self) -> str | None:
        """Return the science program (``GEMPRGID``)."""
        return self._text("program_id")

    @astro_data_descriptor
    def observation_id(self) -> str | None:
        """Return the observation (``OBSID``)."""
        return self._text("observation_id")

    @astro_data_descriptor
    def data_label(self) -> str | None:
        """Return the data label (``DATALAB``)."""
        return self._text("data_label")

    @astro_data_descriptor
    def calibration_key(self) -> str | None:
        """Return the data label without ``_stack``."""
        label = self.data_label()
        return None if label is None else label.replace("_stack", "")

    @astro_data_descriptor
    def observation_class(self) -> str | None:
        """Return the observation class, such as ``science`` (``OBSCLASS``; absent before 2006)."""
        return self._text("observation_class")

    @astro_data_descriptor
    def observation_type(self) -> str | None:
        """Return the type of exposure, such as ``DARK`` (``OBSTYPE``)."""
        return self._text("observation_type")

    @astro_data_descriptor
    def observation_mode(self) -> str | None:
        """Return the observing mode (``OBSMODE``; not written by NIRI)."""
        return self._text("observation_mode")

    @astro_data_descriptor
    def observation_epoch(self) -> float | None:
        """Return the epoch of observation, in years (``OBSEPOCH``)."""
        return self._float("observation_epoch")

    # ---- time
    # ----------------------------------------------------------------------------------------------------

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

    @astro_data_descriptor
    def local_time(self) -> time | None:
        """Return the local time of the start of the observation (``LT``)."""
        return headers.parse_time(header_value(self.phu, "LT"))

    # ---- exposure
    # ------------------------------------------------------------------------------------------------

    @astro_data_descriptor
    def coadds(self) -> int:
        """Return the number of exposures summed by the detector controller (``COADDS``).

        1 if it is missing, unreadable or less than 1.
        """
        return max(self._int("coadds") or 1, 1)

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
        return self._int("detector_x_bin") or 1

    @astro_data_descriptor
    def detector_y_bin(self) -> int:
        """Return the binning in y (``YBIN``, 1 if missing)."""
        return self._int("detector_y_bin") or 1

    @astro_data_descriptor
    def detector_name(self, pretty: bool = False) -> str | None:
        """Return the name of the detector (``DETNAME``; not written by NIRI)."""
        return self._text("detector_name")

    @astro_data_descriptor
    @returns_list
    def amp_read_area(self) -> str | None:
        """Return the amplifier and its section, per extension (``AMPROA``; not written by NIRI)."""
        return self._text("amp_read_area")

    @astro_data_descriptor
    @returns_list
    def array_name(self) -> str | None:
        """Return the name of each array (``ARRAYNAM``; not written by NIRI)."""
        return self._text("array_name")

    @astro_data_descriptor
    @returns_list
    def overscan_section(self, pretty: bool = False) -> None:
        """Return the overscan section, per extension: infrared arrays have none."""
        return

    # ---- optics
    # --------------------------------------------------------------------------------------------------

    @astro_data_descriptor
    def camera(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the camera (``CAMERA``), without component identifier if either flag is set."""
        return self._component("camera", stripID or pretty)

    @astro_data_descriptor
    def focal_plane_mask(self, stripID: bool = False, pretty: bool = False) -> str | None:
        """Return the focal plane mask (``FPMASK``), without component identifier if either flag is set."""
        return self._component("focal_plane_mask", stripID or pretty)

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
        return (self._text("ao_fold") or "").upper() == "IN"

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
    # ----------------------------------------------------------------------------------------------

    @astro_data_descriptor
    def airmass(self) -> float | None:
        """Return the mean airmass (``AIRMASS``); None if unreadable or below 1."""
        airmass = self._float("airmass")
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
        seeing, fried = self._float("ao_seeing"), self._float("r_zero_val")
        if seeing is not None or not fried or fried < 0.0:
            return seeing
        return _ARCSEC_PER_RADIAN * 0.98 * 0.5e-6 / (fried * 0.01)

    @astro_data_descriptor
    def qa_state(self) -> str:
        """Return the quality assessment as one word, from ``RAWPIREQ`` and ``RAWGEMQA``."""
        required = (self._text("raw_pi_requirements_met") or "UNKNOWN").upper()
        gemini = (self._text("raw_gemini_qa") or "UNKNOWN").upper()
        if "UNKNOWN" in (required, gemini):
            return "Undefined"
        if gemini == "USABLE" and required in ("YES", "NO"):
            return "Pass" if required == "YES" else "Usable"
        if gemini == "BAD":
            return "Fail"
        return "CHECK" if "CHECK" in (required, gemini) else f"{required}:{gemini}"

    @astro_data_descriptor
    def raw_iq(self) -> int | None:
        """Return the image quality at the time, percentile (``RAWIQ``)."""
        return headers.parse_percentile(header_value(self.phu, "RAWIQ"))

    @astro_data_descriptor
    def raw_cc(self) -> int | None:
        """Return the cloud cover at the time, percentile (``RAWCC``)."""
        return headers.parse_percentile(header_value(self.phu, "RAWCC"))

    @astro_data_descriptor
    def raw_bg(self) -> int | None:
        """Return the sky background at the time, percentile (``RAWBG``)."""
        return headers.parse_percentile(header_value(self.phu, "RAWBG"))

    @astro_data_descriptor
    def raw_wv(self) -> int | None:
        """Return the water vapour at the time, percentile (``RAWWV``)."""
        return headers.parse_percentile(header_value(self.phu, "RAWWV"))

    @astro_data_descriptor
    def requested_iq(self) -> int | None:
        """Return the image quality asked for, percentile (``REQIQ``)."""
        return headers.parse_percentile(header_value(self.phu, "REQIQ"))

    @astro_data_descriptor
    def requested_cc(self) -> int | None:
        """Return the cloud cover asked for, percentile (``REQCC``)."""
        return headers.parse_percentile(header_value(self.phu, "REQCC"))

    @astro_data_descriptor
    def requested_bg(self) -> int | None:
        """Return the sky background asked for, percentile (``REQBG``)."""
        return headers.parse_percentile(header_value(self.phu, "REQBG"))

    @astro_data_descriptor
    def requested_wv(self) -> int | None:
        """Return the water vapour asked for, percentile (``REQWV``)."""
        return headers.parse_percentile(header_value(self.phu, "REQWV"))

    # ---- pointing
    # ------------------------------------------------------------------------------------------------

    @astro_data_descriptor
    def azimuth(self) -> float | None:
        """Return the azimuth of the telescope, in degrees (``AZIMUTH``)."""
        return self._float("azimuth")

    @astro_data_descriptor
    def elevation(self) -> float | None:
        """Return the elevation of the telescope, in degrees (``ELEVATIO``)."""
        return self._float("elevation")

    @astro_data_descriptor
    def cass_rotator_pa(self) -> float | None:
        """Return the angle of the Cassegrain rotator, in degrees (``CRPA``); None beyond +-360."""
        angle = self._float("cass_rotator_pa")
        return angle if angle is not None and abs(angle) <= 360.0 else None

    @astro_data_descriptor
    def position_angle(self) -> float | None:
        """Return the position angle of +y, in degrees East of North (``PA``).

        None if missing. (DRAGONS raises KeyError.)
        """
        return self._float("position_angle")

    @astro_data_descriptor
    def telescope_x_offset(self) -> float | None:
        """Return the offset in the telescope's x, in arcsec (``XOFFSET``)."""
        return self._float("telescope_x_offset")

    @astro_data_descriptor
    def telescope_y_offset(self) -> float | None:
        """Return the offset in the telescope's y, in arcsec (``YOFFSET``)."""
        return self._float("telescope_y_offset")

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
    # -------------------------------------------------------------------------------------------------

    def _filter_wavelength(self) -> float | None:
        """Return the wavelength of the filter in micrometres; instruments know."""
        return None

    def _may_be_flat(self) -> bool:
        return self._text("observation_type") in ("FLAT", None)

    @property
    def _is_processed(self) -> bool:
        return not _PROCESSED_KEYWORDS.isdisjoint(self.phu.keywords())

    def _has_part(self, part: str) -> bool:
        """Return whether the name of a keyword of the primary header has a part."""
        return any(part in keyword for keyword in self.phu.keywords())

    @property
    def _is_prepared(self) -> bool:
        """Whether the data are PREPARED; asked often, and known without looking for all other tags."""
        return self._has_part("PREPAR")

    def _headers(self) -> list[Header]:
        if self.is_single:
            return [self.hdr]
        return [extension.hdr for extension in self]

    def _linear_wcs(self) -> list[pointing.LinearWcs | None]:
        extensions = [self] if self.is_single else list(self)
        found = [extension.linear_wcs for extension in extensions]
        return [None if terms is None else pointing.LinearWcs(*terms) for terms in found]

    def _wcs_reference(self) -> tuple[float | None, float | None]:
        first = next(iter(self._linear_wcs()), None)
        return (None, None) if first is None else first.crval

    def _exposure_keyword(self) -> float | None:
        exposure = self._float("exposure_time")
        return exposure if exposure is not None and exposure >= 0.0 else None

    def _text(self, concept: str) -> str | None:
        return get_text(self.phu, self._keyword_for(concept))

    def _float(self, concept: str) -> float | None:
        return get_float(self.phu, self._keyword_for(concept))

    def _int(self, concept: str) -> int | None:
        return get_int(self.phu, self._keyword_for(concept))

    def _component(self, concept: str, strip: bool) -> str | None:
        name = self._text(concept)
        return headers.remove_component_id(name) if strip else name

    def _start(self, strict: bool = False) -> datetime | None:
        return headers.find_ut_datetime(self.phu, name=self.filename, strict=strict)

    def _target(self, offset: bool, pm: bool, icrs: bool) -> tuple[float | None, float | None]:
        phu = self.phu
        ra, dec = headers.parse_ra(header_value(phu, "RA")), headers.parse_dec(header_value(phu, "DEC"))
        if ra is None or dec is None:
            return ra, dec
        if offset:
            dec += _sum(phu, "DECOFFSE", "DECTRGOF") / 3600.0
            ra += _sum(phu, "RAOFFSET", "RATRGOFF") / 3600.0 / math.cos(math.radians(dec))
        start = self._start()
        if pm and start is not None:
            years = _decimal_year(start) - _epoch(phu)
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


def _decimal_year(when: datetime) -> float:
    start, end = datetime(when.year, 1, 1), datetime(when.year + 1, 1, 1)
    return when.year + (when - start) / (end - start)
