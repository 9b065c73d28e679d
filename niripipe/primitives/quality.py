"""Primitives that measure how good the night was: image size, sky brightness, cloud and zero point."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from niripipe.algorithms import background, conditions, quality
from niripipe.algorithms.conditions import Conditions
from niripipe.algorithms.quality import CloudCover, ImageQuality
from niripipe.astrodata import AstroData
from niripipe.astrodata.fits_write import atomic_file
from niripipe.errors import AlgorithmError
from niripipe.instruments.tables import niri_tables
from niripipe.logutils import get_logger
from niripipe.primitives.base import Outcome, PrimitivesBase, primitive, skipped
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.stacking import MEASURED, remove_keywords

__all__ = ["Quality"]

log = get_logger(__name__)

_ELONGATED = 0.1
"""Mean ellipticity from which an image without adaptive optics is called elongated (DRAGONS)."""


class MeasureBGParams(SuffixParams, suffix="_bgMeasured"):
    """Parameters of `Quality.measureBG`."""

    separate_ext: bool = Field(False, description="report extensions separately; NIRI has one")


class MeasureIQParams(MeasureBGParams, suffix="_iqMeasured"):
    """Parameters of `Quality.measureIQ`."""

    display: bool = Field(
        False, description="write the stars used as a DS9 region file into the output folder"
    )


class MeasureCCParams(MeasureBGParams, suffix="_ccMeasured"):
    """Parameters of `Quality.measureCC`."""

    extinction: float = Field(
        0.0, ge=0, le=2, description="extinction of a clear night, magnitudes per airmass"
    )


class Quality(PrimitivesBase):
    """Quality assessment. Pixels, variance and mask are never changed."""

    @primitive(stamp="MEASREIQ", repeatable=True)
    def measureIQ(self, frame: AstroData, params: MeasureIQParams) -> Outcome | None:
        """Measure the image size on the good stars of OBJCAT, and compare it with the IQ percentiles.

        The PHU gets MEANFWHM (arcsec) and MEANELLP, FWHMSTD (scatter of the stars), FWHMZEN (brought to
        the zenith), IQNUM (stars) and IQBAND (percentile; 100 is worse than every limit). With adaptive
        optics the band is that of the seeing which the system estimated, and STREHL, STREHLSD, STREHLN are
        ratio, scatter and number of stars. A frame without good stars is SKIPPED with the numbers of
        sources that passed each test.

        Raises
        ------
        DataError
            OBJCAT lacks a column.
        """
        remove_keywords(frame, MEASURED["image quality"])
        ext, scale = frame[0], frame.pixel_scale()
        if "OBJCAT" not in ext.exposed:
            return skipped("there is no catalogue; run detectSources first")
        if scale is None:
            return skipped("the pixel scale is not known")
        adaptive = bool(frame.is_ao())
        found = quality.measure_image_quality(
            ext.OBJCAT, pixel_scale=scale, airmass=frame.airmass(), adaptive_optics=adaptive
        )
        if found is None:
            reason = _why_no_star(ext.OBJCAT, adaptive)
            log.warning("%s: no image quality: %s", frame.filename, reason)
            return skipped(reason)
        _record_image_quality(frame, found, scale, adaptive)
        if params.display:
            self._write_regions(frame, found)
        return None

    @primitive(stamp="MEASREBG", repeatable=True)
    def measureBG(self, frame: AstroData, params: MeasureBGParams) -> Outcome | None:
        """Measure the sky level, and with a nominal zero point the sky's brightness and BG percentile.

        SKYLEVEL goes into the extension header and the PHU, in the unit of the data. BGMAG, BGMAGERR
        (mag/arcsec^2; the error is the scatter of the pixels) and BGBAND into the PHU. In J, H and K the
        limits of the percentiles 20, 50 and 80 are one and the same, so that a sky that meets them is
        reported as ``20/50/80``, and only a brighter one as 100.

        Where the sky was subtracted the level is the one subtracted plus the remaining one, and SKYLEVEL in
        the extension, which holds the former, stays.
        """
        remove_keywords(frame, MEASURED["background"])
        if "CORRBG" in frame.phu:
            return skipped("the level was shifted by correctBackgroundToReference")
        try:
            level, std = _sky_level(frame)
        except AlgorithmError as error:
            return skipped(str(error))
        frame.phu.set("SKYLEVEL", round(level, 3), f"Sky level ({_unit(frame)})")
        _record_brightness(frame, level, std)
        return None

    @primitive(stamp="MEASRECC", repeatable=True)
    def measureCC(self, frame: AstroData, params: MeasureCCParams) -> Outcome | None:
        """Measure the photometric zero point on stars with reference magnitudes, and the cloud it implies.

        The extension gets MEANZP (magnitude of a source of 1 unit/s at airmass 1), MEANZPER (its standard
        error), MEANZPSD (scatter and mean error of the stars, in quadrature: the uncertainty that DRAGONS
        quotes), ZPNUM (stars), and PHOTZP, with which a magnitude in this image is
        ``PHOTZP - 2.5 log10(counts)``. They belong to FLUX_AUTO, whose apertures miss some per cent of the
        light: a total flux needs its own aperture correction. With a nominal zero point the PHU gets
        CLOUDEXT (mag) and CCBAND, all percentiles that are at least 5 per cent probable. Without one the
        zero point is measured all the same.

        `extinction` times the airmass above 1 is added to the zero point, because a star's magnitude
        outside of it is that much brighter. It is 0 by default: no coefficients of near-infrared filters
        are tabulated.

        Raises
        ------
        DataError
            OBJCAT lacks a column.
        """
        remove_keywords(frame, MEASURED["cloud cover"])
        ext = frame[0]
        if "OBJCAT" not in ext.exposed:
            return skipped("there is no catalogue; run detectSources first")
        airmass = frame.airmass()
        if params.extinction and airmass is None:
            return skipped("the airmass is not known, so that the extinction cannot be corrected")
        found = quality.measure_cloud(
            ext.OBJCAT,
            exposure_time=float(frame.exposure_time()),
            nominal_zero_point=ext.nominal_photometric_zeropoint(),
            airmass=airmass or 1.0,
            extinction=params.extinction,
        )
        if found is None:
            reason = _why_no_zero_point(frame)
            log.warning("%s: no zero point: %s", frame.filename, reason)
            return skipped(reason)
        _record_zero_point(frame, found, params.extinction * ((airmass or 1.0) - 1))
        return None

    def _write_regions(self, frame: AstroData, found: ImageQuality) -> None:
        """Write circles around the stars used, in the pixels of the frame."""
        catalogue = frame[0].OBJCAT
        lines = ["# Region file format: DS9", "image"]
        for row in catalogue[found.stars]:
            lines.append(
                f"circle({row['X_IMAGE']:.2f},{row['Y_IMAGE']:.2f},{row['PROFILE_FWHM']:.2f}) "
                f"# text={{{row['NUMBER']}}}"
            )
        stem = str(frame.filename).split(".fits")[0]
        path = self.context.output_dir / f"{stem}_iq.reg"
        with atomic_file(path) as file:
            file.write(("\n".join(lines) + "\n").encode("ascii"))
        log.stdinfo("%s: %d stars marked in %s", frame.filename, found.n, path.name)


def _record_image_quality(frame: AstroData, found: ImageQuality, scale: float, adaptive: bool) -> None:
    phu, name = frame.phu, frame.filename
    phu.set("MEANFWHM", round(found.fwhm, 4), "Mean FWHM of the stars (arcsec)")
    phu.set("FWHMSTD", round(found.fwhm_std, 4), "Scatter of the FWHM of the stars (arcsec)")
    phu.set("IQNUM", found.n, "Stars used for the image quality")
    log.stdinfo("%s: FWHM %.3f +/- %.3f arcsec from %d stars", name, found.fwhm, found.fwhm_std, found.n)
    if found.n == 1:
        log.warning("%s: the image quality rests on one star", name)
    if found.zenith_fwhm is not None:
        phu.set("FWHMZEN", round(found.zenith_fwhm, 4), "Mean FWHM at the zenith (arcsec)")
    if frame.tags & {"NON_SIDEREAL"}:
        log.warning("%s: tracked at a non-sidereal rate; the stars may be trailed", name)
    if adaptive:
        _record_strehl(frame, found, scale)
        _record_band(frame, "IQ", _adaptive_conditions(frame), frame.requested_iq())
        return
    phu.set("MEANELLP", round(found.ellipticity, 4), "Mean ellipticity of the stars")
    if found.ellipticity > _ELONGATED:
        log.warning("%s: the stars are elongated, mean ellipticity %.3f", name, found.ellipticity)
    wavelength = frame.effective_wavelength(output_units="micrometers")
    if wavelength is not None and found.zenith_fwhm is not None and found.zenith_fwhm_std is not None:
        error = found.zenith_fwhm_std / math.sqrt(found.n)
        limits = niri_tables().image_quality_limits(wavelength)
        met = conditions.to_conditions(found.zenith_fwhm, error, limits)
        _record_band(frame, "IQ", met, frame.requested_iq())


def _adaptive_conditions(frame: AstroData) -> Conditions | None:
    seeing, airmass = frame.ao_seeing(), frame.airmass()
    if seeing is None or airmass is None:
        log.warning("%s: without an estimate of the seeing there is no IQ band", frame.filename)
        return None
    return conditions.to_conditions(seeing * airmass**-0.6, 0.0, niri_tables().qa.image_quality["AO"])


def _record_strehl(frame: AstroData, found: ImageQuality, scale: float) -> None:
    wavelength = frame.effective_wavelength(output_units="micrometers")
    if wavelength is None:
        return
    strehl = quality.measure_strehl(frame[0].OBJCAT, found.stars, wavelength=wavelength, pixel_scale=scale)
    if strehl is None:
        log.warning("%s: no star has a believable Strehl ratio", frame.filename)
        return
    frame.phu.set("STREHL", round(strehl.ratio, 4), "Strehl ratio, mean weighted by flux")
    frame.phu.set("STREHLSD", round(strehl.std, 4), "Scatter of the Strehl ratios")
    frame.phu.set("STREHLN", strehl.n, "Stars used for the Strehl ratio")
    log.stdinfo("%s: Strehl ratio %.3f +/- %.3f", frame.filename, strehl.ratio, strehl.std)


def _why_no_star(catalogue: Any, adaptive: bool) -> str:
    """Say how many sources passed each of the tests that decide about good stars."""
    tests = quality.star_tests(catalogue, adaptive_optics=adaptive)
    passed = ", ".join(f"{int(np.count_nonzero(ok))} {what}" for what, ok in tests.items())
    return f"none of {len(catalogue)} sources is a good star ({passed})"


def _sky_level(frame: AstroData) -> tuple[float, float]:
    """Return level and scatter of the sky, before its subtraction, and keep the level in the header."""
    ext = frame[0]
    found = background.measure_background(ext.read("data"), ext.read("mask"), ext.read("OBJMASK"))
    if {"SUBSKY", "SUBSKYBG"} & set(frame.phu) and "SKYLEVEL" in ext.hdr:
        return float(ext.hdr["SKYLEVEL"]) + found.level, found.std
    ext.hdr.set("SKYLEVEL", round(found.level, 3), f"Sky level ({_unit(frame)})")
    return found.level, found.std


def _unit(frame: AstroData) -> str:
    return "ADU" if frame.is_in_adu() else "electron"


def _record_brightness(frame: AstroData, level: float, std: float) -> None:
    scale, exposure, unit = frame.pixel_scale(), frame.exposure_time(), _unit(frame)
    measured = f"{frame.filename}: sky level {level:.1f} +/- {std:.1f} {unit}"
    if scale is None or not exposure:
        log.stdinfo("%s", measured)
        return
    sky = quality.sky_brightness(
        level,
        std,
        exposure_time=float(exposure),
        pixel_scale=scale,
        zero_point=frame[0].nominal_photometric_zeropoint(),
    )
    log.stdinfo("%s, %.1f %s/s/arcsec^2", measured, sky.flux, unit)
    if "DARKCORR" not in frame.phu:
        log.warning("%s: no dark was subtracted, so that the level is not the sky's alone", frame.filename)
    if sky.magnitude is None or sky.magnitude_error is None:
        log.stdinfo("%s: no sky brightness, for want of a zero point or a positive level", frame.filename)
        return
    frame.phu.set("BGMAG", round(sky.magnitude, 4), "Sky brightness (mag/arcsec^2)")
    frame.phu.set("BGMAGERR", round(sky.magnitude_error, 4), "From the scatter of the pixels (mag/arcsec^2)")
    limits = niri_tables().qa.background.get(frame.filter_name(pretty=True))
    if limits is not None:
        found = conditions.sky_conditions(sky.magnitude, sky.magnitude_error, limits)
        _record_band(frame, "BG", found, frame.requested_bg())


def _why_no_zero_point(frame: AstroData) -> str:
    catalogue = frame[0].OBJCAT
    if "REFCAT" not in frame.tables:
        return "there is no reference catalogue; run addReferenceCatalog first"
    reference = np.asarray(catalogue["REF_MAG"], float)
    known = np.isfinite(reference) & (reference > -999)
    unflagged = known & (np.asarray(catalogue["FLAGS"]) == 0)
    return (
        f"of {len(catalogue)} sources {np.count_nonzero(known)} have a reference magnitude, and "
        f"{np.count_nonzero(unflagged)} of these no flag; none is precise enough"
    )


def _record_zero_point(frame: AstroData, found: CloudCover, dimming: float) -> None:
    hdr, unit = frame[0].hdr, _unit(frame)
    here = found.zero_point - dimming + 2.5 * math.log10(float(frame.exposure_time()))
    hdr.set("MEANZP", round(found.zero_point, 5), f"Magnitude of 1 {unit}/s at airmass 1")
    hdr.set("MEANZPER", round(found.error, 5), "Standard error of MEANZP (mag)")
    hdr.set("MEANZPSD", round(found.std, 5), "Scatter and mean error of the stars (mag)")
    hdr.set("ZPNUM", found.n, "Stars used for the zero point")
    hdr.set("PHOTZP", round(here, 5), f"Magnitude of 1 {unit} in this image")
    name = frame.filename
    log.stdinfo(
        "%s: zero point %.3f +/- %.3f mag from %d stars", name, found.zero_point, found.error, found.n
    )
    if found.cloud is None:
        log.stdinfo("%s: no nominal zero point for this filter and camera: no cloud", frame.filename)
        return
    frame.phu.set("CLOUDEXT", round(found.cloud, 4), "Extinction by cloud (mag)")
    band = conditions.to_conditions(found.cloud, found.std, niri_tables().qa.cloud_cover)
    _record_band(frame, "CC", band, frame.requested_cc(), every=True)


def _record_band(
    frame: AstroData, what: str, found: Conditions | None, requested: int | None, *, every: bool = False
) -> None:
    """Write the percentiles that are met, the best of a band of equal limits first."""
    if found is None:
        return
    bands = found.possible if every else (found.best,)
    text = "/".join(str(p) for p in sorted({p for band in bands for p in band}))
    frame.phu.set(f"{what}BAND", text, f"{what} percentiles; 100: worse than all limits")
    if requested is None:
        log.stdinfo("%s: %s %s", frame.filename, what, text)
    elif found.met(requested):
        log.stdinfo("%s: %s %s, the requested %d is met", frame.filename, what, text, requested)
    else:
        log.warning("%s: %s %s, the requested %d is missed", frame.filename, what, text, requested)
