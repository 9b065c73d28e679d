# Written by docs/generate_stubs.py from the code; changes made here are lost.

from datetime import date, datetime, time
from typing import Any

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.core import AstroData
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.section import Section
from niripipe.astrodata.tangent import TangentPlane
from niripipe.instruments.tables import LinearityCoefficients

class Declared:
    # Tables of the data set. Either kind of attached data may be given as a structured array.
    ALIGNMENT: Table
    HISTORY: Table
    PROVENANCE: Table
    REFCAT: Table
    DROPPED: Table
    GROWTH: Table
    SKYTABLE: Table
    STDPHOT: Table
    STACKING: Table

    # Tables and arrays of an extension.
    OBJCAT: Table
    OBJMASK: NDArray[np.uint8]
    COVERAGE: NDArray[np.integer[Any]]
    EXPOSURE: NDArray[np.float32]
    REJMAP: NDArray[np.int16]

    # Descriptors. Those about extensions give a list on a data set and one value on a single slice.
    # ``| Any`` stands for None and for what a flag returns instead: a script need not check for a keyword
    # that its frames have.
    def airmass(self) -> float | Any:
        """Return the mean airmass (``AIRMASS``); None if unreadable or below 1."""

    def amp_read_area(self) -> Any:
        """Return the amplifier and its section, per extension (``AMPROA``; not written by NIRI)."""

    def ao_seeing(self) -> float | Any:
        """Return the seeing estimated by the adaptive optics, in arcsec."""

    def array_name(self) -> Any:
        """Return the name of each array (``ARRAYNAM``; not written by NIRI)."""

    def array_section(self, pretty: bool = False) -> Any:
        """Return where the pixels lie on the array, per extension."""

    def azimuth(self) -> float | Any:
        """Return the azimuth of the telescope, in degrees (``AZIMUTH``)."""

    def binning(self) -> str:
        """Return the binning in x and y, as ``"1x1"``."""

    def calibration_key(self) -> str | Any:
        """Return the data label without ``_stack``."""

    def camera(self, stripID: bool = False, pretty: bool = False) -> str | Any:
        """Return the camera (``CAMERA``), without component identifier if either flag is set."""

    def cass_rotator_pa(self) -> float | Any:
        """Return the angle of the Cassegrain rotator, in degrees (``CRPA``); None beyond +-360."""

    def central_wavelength(self, output_units: str | None = None) -> float | Any:
        """Return the central wavelength of a spectrum: None for images."""

    def coadds(self) -> int:
        """Return the number of exposures summed by the detector controller (``COADDS``)."""

    def data_label(self) -> str | Any:
        """Return the data label (``DATALAB``)."""

    def data_section(self, pretty: bool = False) -> Any:
        """Return the part of each extension that holds data: all of it."""

    def dec(self) -> float | Any:
        """Return the declination of the field, in degrees: `wcs_dec`, else the target's (``DEC``)."""

    def decker(self) -> str | Any:
        """Return the position of the decker (``DECKER``; not written by NIRI)."""

    def detector_name(self, pretty: bool = False) -> str | Any:
        """Return the name of the detector (``DETNAME``; not written by NIRI)."""

    def detector_roi_setting(self) -> str | Any:
        """Return the name of the region read out."""

    def detector_rois_requested(self) -> None:
        """Return the regions of interest that were requested; NIRI has one, see `detector_roi_setting`."""

    def detector_section(self, pretty: bool = False) -> Any:
        """Return where the pixels lie on the detector, per extension: as `array_section`."""

    def detector_x_bin(self) -> int:
        """Return the binning in x (``XBIN``, 1 if missing)."""

    def detector_x_offset(self) -> float | Any:
        """Return by how much the sources have moved in +x relative to no offset, in pixels."""

    def detector_y_bin(self) -> int:
        """Return the binning in y (``YBIN``, 1 if missing)."""

    def detector_y_offset(self) -> float | Any:
        """Return by how much the sources have moved in +y relative to no offset, in pixels."""

    def disperser(self, stripID: bool = False, pretty: bool = False) -> str | Any:
        """Return the grism, ``"MIRROR"`` if there is none, None if ``FILTER3`` is missing."""

    def dispersion(self, output_units: str | None = None) -> None:
        """Return the dispersion of a spectrum: None for images."""

    def dispersion_axis(self) -> int | Any:
        """Return the axis of dispersion (1 is x) of spectra; None for images."""

    def effective_wavelength(self, output_units: str | None = None) -> float | Any:
        """Return the effective wavelength of the filter."""

    def elevation(self) -> float | Any:
        """Return the elevation of the telescope, in degrees (``ELEVATIO``)."""

    def exposure_time(self) -> float | Any:
        """Return the total exposure time, in seconds."""

    def exposure_time_per_coadd(self) -> float | Any:
        """Return the exposure time of one coadd, in seconds, whether the data are prepared or not."""

    def filter_name(self, stripID: bool = False, pretty: bool = False) -> str | Any:
        """Return the filter in the beam."""

    def focal_plane_mask(self, stripID: bool = False, pretty: bool = False) -> str | Any:
        """Return the focal plane mask (``FPMASK``), without component identifier if either flag is set."""

    def gain(self) -> Any:
        """Return the gain, in e- per unit of the pixels, per extension."""

    def gain_setting(self) -> str | Any:
        """Return the gain setting (``GAINSET``; not written by NIRI, which has one gain)."""

    def gcal_lamp(self) -> str | Any:
        """Return the lamp that shone on the detector."""

    def group_id(self) -> str:
        """Return a text that is the same for frames that belong together."""

    def is_ao(self) -> bool:
        """Tell whether the adaptive optics were in the beam (``AOFOLD`` is ``IN``)."""

    def is_coadds_summed(self) -> bool:
        """Tell whether the pixels are the sum (not the mean) over coadds: always."""

    def is_in_adu(self) -> bool:
        """Tell whether the pixels are in ADU; without ``BUNIT`` they are."""

    def linearity_coefficients(self) -> Any:
        """Return the coefficients of the non-linearity correction, per extension."""

    def local_time(self) -> time | Any:
        """Return the local time of the start of the observation (``LT``)."""

    def lyot_stop(self) -> str | Any:
        """Return the Lyot stop (``LYOTSTOP``; not written by NIRI, see `pupil_mask`)."""

    def mdf_row_id(self) -> None:
        """Return the row of the table of slits: None for images."""

    def nominal_atmospheric_extinction(self) -> float | Any:
        """Return the nominal extinction relative to airmass 1, in magnitudes."""

    def nominal_photometric_zeropoint(self) -> Any:
        """Return the nominal magnitude of a source that gives one unit (ADU or e-) per second, per extension."""  # noqa: E501

    def non_linear_level(self) -> Any:
        """Return the level, in the unit of the pixels, beyond which the response cannot be made linear."""

    def observation_class(self) -> str | Any:
        """Return the observation class, such as ``science`` (``OBSCLASS``; absent before 2006)."""

    def observation_epoch(self) -> float | Any:
        """Return the epoch of observation, in years (``OBSEPOCH``)."""

    def observation_id(self) -> str | Any:
        """Return the observation (``OBSID``)."""

    def observation_mode(self) -> str | Any:
        """Return the observing mode (``OBSMODE``; not written by NIRI)."""

    def observation_type(self) -> str | Any:
        """Return the type of exposure, such as ``DARK`` (``OBSTYPE``)."""

    def overscan_section(self, pretty: bool = False) -> Any:
        """Return the overscan section, per extension: infrared arrays have none."""

    def pixel_scale(self) -> float | Any:
        """Return the pixel scale, in arcsec (mean over extensions)."""

    def port(self) -> int | Any:
        """Return the port of the instrument support structure (``INPORT``; 1 is the bottom)."""

    def position_angle(self) -> float | Any:
        """Return the position angle of +y, in degrees East of North (``PA``; None if missing; DRAGONS raises KeyError)."""  # noqa: E501

    def program_id(self) -> str | Any:
        """Return the science program (``GEMPRGID``)."""

    def pupil_mask(self, stripID: bool = False, pretty: bool = False) -> str | Any:
        """Return the pupil mask, ``"MIRROR"`` if there is none, None if ``FILTER3`` is missing."""

    def qa_state(self) -> str:
        """Return the quality assessment as one word, from ``RAWPIREQ`` and ``RAWGEMQA``."""

    def ra(self) -> float | Any:
        """Return the right ascension of the field, in degrees: `wcs_ra`, else the target's (``RA``)."""

    def raw_bg(self) -> int | Any:
        """Return the sky background at the time, percentile (``RAWBG``)."""

    def raw_cc(self) -> int | Any:
        """Return the cloud cover at the time, percentile (``RAWCC``)."""

    def raw_iq(self) -> int | Any:
        """Return the image quality at the time, percentile (``RAWIQ``)."""

    def raw_wv(self) -> int | Any:
        """Return the water vapour at the time, percentile (``RAWWV``)."""

    def read_mode(self) -> str:
        """Return the read mode."""

    def read_noise(self) -> Any:
        """Return the read noise of the coadded frame, in e-, per extension."""

    def read_pairs_to_divide_by(self) -> int:
        """Return the number by which the pixels must be divided to average the read pairs."""

    def read_speed_setting(self) -> str | Any:
        """Return the speed of the readout (``RDSPDSET``; not written by NIRI, see `read_mode`)."""

    def requested_bg(self) -> int | Any:
        """Return the sky background asked for, percentile (``REQBG``)."""

    def requested_cc(self) -> int | Any:
        """Return the cloud cover asked for, percentile (``REQCC``)."""

    def requested_iq(self) -> int | Any:
        """Return the image quality asked for, percentile (``REQIQ``)."""

    def requested_wv(self) -> int | Any:
        """Return the water vapour asked for, percentile (``REQWV``)."""

    def saturation_level(self) -> Any:
        """Return the saturation level, in the unit of the pixels, per extension."""

    def slit(self) -> str | Any:
        """Return the slit (``SLIT``; not written by NIRI, see `focal_plane_mask`)."""

    def subarray_reference_shift(self) -> tuple[float, float]:
        """Return what must be subtracted from CRPIX1 and CRPIX2, in pixels."""

    def target_dec(
        self,
        offset: bool = False,
        pm: bool = True,
        icrs: bool = False,
    ) -> float | Any:
        """Return the declination of the target, in degrees; see `target_ra`."""

    def target_ra(
        self,
        offset: bool = False,
        pm: bool = True,
        icrs: bool = False,
    ) -> float | Any:
        """Return the right ascension of the target, in degrees."""

    def telescope_x_offset(self) -> float | Any:
        """Return the offset in the telescope's x, in arcsec (``XOFFSET``)."""

    def telescope_y_offset(self) -> float | Any:
        """Return the offset in the telescope's y, in arcsec (``YOFFSET``)."""

    def uses_lamp_flats(self) -> bool | Any:
        """Tell whether lamp flats are taken in this filter."""

    def ut_date(self) -> date | Any:
        """Return the UT date of the start of the observation."""

    def ut_datetime(
        self,
        strict: bool = False,
        dateonly: bool = False,
        timeonly: bool = False,
    ) -> datetime | Any:
        """Return the start of the observation, UT, without a zone."""

    def ut_time(self) -> time | Any:
        """Return the UT time of day of the start of the observation."""

    def voltage_conflict(self) -> str | Any:
        """Return a sentence if the bias before the exposure was not that after it, else None."""

    def wavefront_sensor(self) -> str | Any:
        """Return the guiding wavefront sensors, sorted and joined by ``&``; None if none was guiding."""

    def wavelength_band(self) -> str | Any:
        """Return the letter of the band nearest to the effective wavelength; None without one."""

    def wcs_dec(self) -> float | Any:
        """Return the declination of the WCS reference point, in degrees; see `wcs_ra`."""

    def wcs_ra(self) -> float | Any:
        """Return the right ascension of the WCS reference point of the first extension, in degrees."""

    def well_depth_setting(self) -> str:
        """Return the well depth."""

class SingleSlice(AstroData):
    # ``| Any`` stands for None: a script need not check for a plane that its frames have.
    @property
    def data(self) -> NDArray[np.float32]: ...
    @data.setter
    def data(self, array: ArrayLike) -> None: ...
    @property
    def variance(self) -> NDArray[np.float32] | Any: ...
    @variance.setter
    def variance(self, array: ArrayLike | None) -> None: ...
    @property
    def mask(self) -> NDArray[np.uint16] | Any: ...
    @mask.setter
    def mask(self, array: ArrayLike | None) -> None: ...
    @property
    def wcs(self) -> WCS | Any: ...
    @wcs.setter
    def wcs(self, wcs: WCS | None) -> None: ...
    @property
    def sky_mapping(self) -> TangentPlane | WCS | Any: ...
    @sky_mapping.setter
    def sky_mapping(self, mapping: TangentPlane | WCS | None) -> None: ...
    @property
    def wcs_origin(self) -> str: ...
    @property
    def wcs_problem(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def hdr(self) -> WatchedHeader: ...
    def copy(self) -> AstroData: ...  # type: ignore[override]  # a whole data set
    def to_ccddata(self) -> CCDData: ...
    def amp_read_area(self) -> str | Any:
        """Return the amplifier and its section, per extension (``AMPROA``; not written by NIRI)."""

    def array_name(self) -> str | Any:
        """Return the name of each array (``ARRAYNAM``; not written by NIRI)."""

    def array_section(self, pretty: bool = False) -> Section | Any:
        """Return where the pixels lie on the array, per extension."""

    def data_section(self, pretty: bool = False) -> Section | Any:
        """Return the part of each extension that holds data: all of it."""

    def gain(self) -> float:
        """Return the gain, in e- per unit of the pixels, per extension."""

    def linearity_coefficients(self) -> LinearityCoefficients | Any:
        """Return the coefficients of the non-linearity correction, per extension."""

    def nominal_photometric_zeropoint(self) -> float | Any:
        """Return the nominal magnitude of a source that gives one unit (ADU or e-) per second, per extension."""  # noqa: E501

    def non_linear_level(self) -> int | Any:
        """Return the level, in the unit of the pixels, beyond which the response cannot be made linear."""

    def overscan_section(self, pretty: bool = False) -> None:
        """Return the overscan section, per extension: infrared arrays have none."""

    def read_noise(self) -> float:
        """Return the read noise of the coadded frame, in e-, per extension."""

    def saturation_level(self) -> int | Any:
        """Return the saturation level, in the unit of the pixels, per extension."""
