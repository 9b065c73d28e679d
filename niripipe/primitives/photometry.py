"""Primitives from standard star to magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

from niripipe.astrodata import AstroData
from niripipe.astrodata.tables import as_rows
from niripipe.errors import DataError, ParameterError
from niripipe.logutils import get_logger
from niripipe.photometry import Recognition, Standard, extinction, standard_band
from niripipe.photometry.apertures import require_photutils
from niripipe.photometry.bands import Extinction
from niripipe.photometry.standards import is_called, joined
from niripipe.primitives import zero_point_header
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, done, primitive, skipped
from niripipe.primitives.calibrated_catalogue import calibrate_catalogue
from niripipe.primitives.params import Field, FramesOrPaths, SuffixParams, path_as_text
from niripipe.primitives.stacking import remove_keywords
from niripipe.primitives.standard_stars import Measurement, measure_frame, named_by_user, recognise_frame

__all__ = ["Photometry"]

log = get_logger(__name__)


class MeasureStandardParams(SuffixParams, suffix="_standardMeasured"):
    """Parameters of `Photometry.measureStandard`."""

    standards: Annotated[Any, BeforeValidator(path_as_text)] = Field(
        None,
        description="standards of the user's own that join the shipped ones: a file, or an astropy Table; "
        "see niripipe.photometry.standards for the columns",
    )
    only_own: bool = Field(False, description="use the standards of the user's own alone")
    name: str | None = Field(
        None,
        description="name of the standard, where position and header do not tell it; if it is not in the "
        "field by the WCS it is looked for where the telescope was sent",
    )
    aperture: float = Field(4.0, ge=1, le=5, description="radius of the aperture, FWHM")
    radius: float = Field(60.0, gt=0, description="largest distance of pointing and standard, arcsec")
    search: float = Field(15.0, gt=0, description="largest error of the WCS, arcsec")

    def as_record(self) -> dict[str, Any]:
        """Return the values in a form that JSON can hold; a table appears by its length."""
        record = super().as_record()
        if hasattr(self.standards, "colnames"):
            record["standards"] = f"table of {len(self.standards)} rows"
        elif self.standards is not None:
            record["standards"] = str(self.standards)
        return record


class DetermineZeroPointParams(SuffixParams, suffix="_zeroPointDetermined"):
    """Parameters of `Photometry.determineZeroPoint`."""

    extinction: float | None = Field(
        None, ge=0, le=2, description="magnitudes per airmass; None: the mean of Mauna Kea in the band"
    )
    extinction_error: float | None = Field(
        None, ge=0, le=1, description="its error; None: a quarter of the range from night to night"
    )


class ApplyZeroPointParams(SuffixParams, suffix="_photCalibrated"):
    """Parameters of `Photometry.applyZeroPoint`."""

    do_cal: Literal["optional", "force", "skip"] = Field(
        "optional",
        description="optional: a frame for which there is no standard stays without; force: that is an "
        "error; skip: do not apply",
    )
    standard: FramesOrPaths = Field(
        None,
        description="processed standards to be used instead of those that the service has, also of another "
        "night: one, or several for a joint fit",
    )
    fit: Literal["joint", "nearest"] = Field(
        "joint",
        description="joint: fit zero point and extinction to all standards of the night; nearest: take the "
        "one nearest in time and airmass",
    )
    system: Literal["Vega", "AB"] = Field("Vega", description="system of the magnitudes")
    radii: tuple[float, ...] = Field((3.0, 6.0, 10.0), description="radii of the apertures, pixels")


class CheckZeroPointParams(SuffixParams, suffix="_zeroPointChecked"):
    """Parameters of `Photometry.checkZeroPoint`."""

    min_stars: int = Field(
        3, ge=1, description="stars with a reference magnitude without which nothing is said"
    )


class Photometry(PrimitivesBase):
    """Zero points from standard stars, and calibrated magnitudes."""

    @primitive
    def measureStandard(self, frames: Frames, params: MeasureStandardParams) -> Frames:
        """Measure the standard star in every frame, into the table STDPHOT.

        The star is recognised by where the telescope pointed (proper motions count) and by its name, and
        is looked for among the sources of each frame by position and expected brightness. Its light is
        summed in an aperture of 4 FWHM radius, as Gemini does for NIRI's zero points, less the sky in a
        ring around it (photutils). Frames have to be sky-subtracted and not resampled. Data, variance and
        mask are not changed.

        A frame in which the star is saturated or not linear, outside of the field, on bad pixels, too near
        the edge, or in which two sources may be it gives none of it, and says why in the column REASON.

        Raises
        ------
        InputError
            photutils is not installed, or the table of standards cannot be read.
        DataError
            The table has no positions or no magnitudes.
        ParameterError
            There is no standard of that name, or no table of the user's own with `only_own`.
        """
        require_photutils()
        stars = joined(params.standards, replace_shipped=params.only_own)
        for frame in frames:
            found = _recognised(frame, stars, params)
            if found.standard is None:
                log.warning("%s: no standard: %s", frame.filename, found.reason)
                self.note(frame, skipped(found.reason))
                continue
            if found.doubt:
                log.warning("%s: %s", frame.filename, found.doubt)
            star = found.standard
            measured = measure_frame(frame, star, factor=params.aperture, search=params.search)
            frame.STDPHOT = _rows(frame, star, measured)
            frame.phu.set("ZPAPER", params.aperture, "Radius of the aperture of the zero point (FWHM)")
            if measured.reason:
                log.warning("%s: not used for the zero point: %s", frame.filename, measured.reason)
            reason = "; ".join(part for part in (found.reason, found.doubt) if part)
            self.note(frame, done(f"{star.label}, {reason}" + _ending(measured)))
        return frames

    @primitive
    def determineZeroPoint(self, frame: AstroData, params: DetermineZeroPointParams) -> Outcome | None:
        """Determine the zero point from the measurements in STDPHOT of the frames of a stack.

        ``ZP = m + 2.5 log10(N / t) + k (X - 1)``, the Vega magnitude of 1 electron/s at airmass 1 in an
        aperture of 4 FWHM, is computed for every frame; outliers are left out and named. In the primary
        header: ZP, ZPERR (random error of the mean), ZPSYSERR (catalogue, band, extinction, aperture,
        neighbours), ZPSYSTEM, ZPSTD (name), ZPMAG and ZPCATERR (its magnitude and error), ZPBAND, ZPBANDER,
        ZPAPER, ZPAPERR (radius of the aperture in FWHM, and what lies beyond, mag), ZPNEIGH (light of other
        sources in it, mag), ZPAIRM, ZPUT (of the standard), ZPEXT, ZPEXTERR, ZPEXTSRC (extinction), ZPNFRAME,
        ZPSCAT (frames used, and their scatter), ZPNOISY (whether they scatter more than their noise
        explains). The columns ZP (without the light beyond the aperture, ZPAPCOR), ZPERR and
        USED of STDPHOT are those of the single frames. Where there is no zero point ZPWHYNOT says why.
        """
        remove_keywords(frame, zero_point_header.KEYWORDS)
        if "STDPHOT" not in frame.tables:
            return self._no_zero_point(frame, "no standard was recognised")
        rows = frame.columns("STDPHOT")
        band = standard_band(frame.filter_name(pretty=True))
        if band is None:
            return self._no_zero_point(
                frame, f"standards have no magnitude near the filter {frame.filter_name(pretty=True)}"
            )
        usable = np.isfinite(rows["FLUX"]) & np.isfinite(rows["MAG"])
        if not usable.any():
            reasons = "; ".join(dict.fromkeys(str(text) for text in rows["REASON"] if str(text)))
            why = reasons or f"{rows['STANDARD'][0]} has no magnitude in {band.band}"
            return self._no_zero_point(frame, why)
        coefficient = _extinction(frame, params)
        warnings = zero_point_header.determine(frame, rows, usable, band, coefficient)
        for warning in warnings:
            log.warning("%s: %s", frame.filename, warning)
        text = zero_point_header.summary(frame)
        log.stdinfo("%s: %s", frame.filename, text)
        return done("; ".join([text, *warnings]))

    @primitive
    def applyZeroPoint(self, frame: AstroData, params: ApplyZeroPointParams) -> Outcome | None:
        """Give a stack its zero point, and its sources magnitudes.

        Standards of the same filter, camera and well within 12 hours are used, nearest in time and airmass
        first; of several, zero point and extinction are fitted together (`fit`), and those that disagree are
        named and left out. Pixels stay electrons. An image that has a zero point keeps it where no standard
        is found; its sources get magnitudes by it.

        In the primary header: ZP, ZPERR, ZPSYSERR, ZPSYSTEM, ZPEXT, ZPEXTERR as for a standard; ZPIMAGE,
        the magnitude of 1 electron in this image at its airmass, and ZPMAGERR, its error; ZPSTD, ZPFILE,
        ZPAGE (of the nearest standard: name, file, hours after the frames), ZPNSTD (standards used),
        ZPWHY (why this one), ZPAPER. `niripipe.photometry.to_magnitudes` and `to_microjansky` use them.

        OBJCAT becomes a table with units: MAG_AUTO is calibrated, and FLUX_APER_r, FLUXERR_APER_r,
        MAG_APER_r, MAGERR_APER_r are added for each radius r in pixels. Magnitudes are of all light:
        corrections come from bright stars of the field, and from the curve of growth of the standard (APCORr,
        APCEr, APCORSRC in the extension header; the curve is the table GROWTH). Errors hold correlated noise
        and residual sky. DEPTH5 is the magnitude of a star with 5 sigma in the aperture of DEPTHRAD pixels.
        Without photutils there are no aperture magnitudes, and a warning says so.

        Raises
        ------
        CalibrationError
            A standard named by the user has another filter, or no zero point; or there is none with
            ``do_cal="force"``.
        DataError
            The image is not in electrons, or has no exposure time or no variances, with ``do_cal="force"``;
            otherwise that is a warning, and the image stays without a zero point.
        """
        if params.do_cal == "skip":
            return skipped("do_cal is skip")
        book = self.context.calibrations
        fitting = book.find_standards(frame, params.standard)
        found = fitting[:1] if params.fit == "nearest" else fitting
        if not found and params.do_cal == "force":
            raise book.missing(frame, "processed_standard")
        if not found and "ZPIMAGE" in frame.phu:
            return self._kept(frame, params)
        remove_keywords(frame, zero_point_header.KEYWORDS)
        if not found:
            why = book.reasons.get("processed_standard") or "there is no processed_standard"
            frame.phu.set("ZPWHYNOT", why, "Why there is no zero point")
            return skipped(f"no zero point: {why}")
        why = zero_point_header.not_measurable(frame)
        if why and params.do_cal == "force":
            raise DataError("The image cannot get magnitudes", file=frame.filename, found=why)
        if why:
            return self._no_zero_point(frame, why)
        for standard in found:
            book.remember(frame, standard, "processed_standard")
        warnings = zero_point_header.apply(frame, [one.frame for one in found], params.system, len(fitting))
        nearest = found[0].frame
        if "GROWTH" in nearest.tables:
            frame.GROWTH = nearest.GROWTH.copy()
        warnings += calibrate_catalogue(frame, params.radii, nearest)
        for warning in warnings:
            log.warning("%s: %s", frame.filename, warning)
        text = zero_point_header.summary(frame)
        log.stdinfo("%s: %s", frame.filename, text)
        return done("; ".join([text, str(frame.phu["ZPWHY"]), *warnings]))

    @primitive(repeatable=True)
    def checkZeroPoint(self, frame: AstroData, params: CheckZeroPointParams) -> Outcome | None:
        """Compare the zero point of a stack with that of catalogue stars in its field.

        Stars need a magnitude here (`applyZeroPoint`) and a reference magnitude in the filter
        (`addReferenceCatalog`, `determineAstrometricSolution`; colour terms are those of
        `niripipe.algorithms.filter_magnitudes`), no flag, and an error below 0.1 mag. Outliers are
        clipped. In the primary header: ZPFIELD, the zero point by these stars, ZPFLDERR (error of the
        mean), ZPFLDSYS (error that all of them share: system and colour term of the catalogue, 0.015 to 0.04
        mag), ZPFLDNUM (stars), ZPFLDDIF (ZPFIELD minus ZP). A difference of more than 3 sigma, and 0.03
        mag, is a warning; sigma holds the errors of both. ZP is not changed.
        """
        remove_keywords(frame, zero_point_header.FIELD_KEYWORDS)
        if "ZPIMAGE" not in frame.phu or "OBJCAT" not in frame[0].exposed:
            return skipped("the image has no zero point or no catalogue; run applyZeroPoint first")
        if not np.any(np.asarray(frame[0].OBJCAT["REF_NUMBER"]) > 0) and "REFCAT" not in frame.tables:
            return skipped("there is no reference catalogue")
        found = zero_point_header.compare(frame, params.min_stars)
        if isinstance(found, str):
            log.warning("%s: the zero point is not compared with the field: %s", frame.filename, found)
            return skipped(found)
        text, warning = found
        if warning:
            log.warning("%s: %s", frame.filename, text)
        else:
            log.stdinfo("%s: %s", frame.filename, text)
        return done(text)

    def _kept(self, frame: AstroData, params: ApplyZeroPointParams) -> Outcome:
        """Give the sources of an image, which were detected again, magnitudes by its own zero point."""
        warnings = calibrate_catalogue(frame, params.radii, frame)
        for warning in warnings:
            log.warning("%s: %s", frame.filename, warning)
        own = f"the zero point that the image has is kept: {zero_point_header.summary(frame)}"
        return done("; ".join([own, *warnings]))

    def _no_zero_point(self, frame: AstroData, why: str) -> Outcome:
        log.warning("%s: no zero point: %s", frame.filename, why)
        frame.phu.set("ZPWHYNOT", why, "Why there is no zero point")
        return skipped(f"no zero point: {why}")


def _recognised(frame: AstroData, stars: Sequence[Standard], params: MeasureStandardParams) -> Recognition:
    if params.name is not None:
        found = [star for star in stars if is_called(star, params.name)]
        if not found:
            raise ParameterError("There is no such standard", item="measureStandard:name", found=params.name)
        return named_by_user(frame, found[0], params.search)
    return recognise_frame(frame, stars, params.radius)


def _rows(frame: AstroData, star: Standard, measured: Measurement) -> Any:
    """Return the row of a frame in STDPHOT, with the magnitude of the standard in the band of the filter."""
    band = standard_band(frame.filter_name(pretty=True))
    magnitude, error = (np.nan, np.nan) if band is None else star.magnitudes.get(band.band, (np.nan, np.nan))
    row = measured.row() | {"MAG": magnitude, "MAGERR": error, "VARIES": int(star.may_vary)}
    return as_rows({name: [value] for name, value in row.items()})


def _ending(measured: Measurement) -> str:
    if measured.reason:
        return f": not used: {measured.reason}"
    assert measured.star is not None
    return f": {measured.star.flux:.4g} electrons in {measured.star.radius:.1f} pixels"


def _extinction(frame: AstroData, params: DetermineZeroPointParams) -> Extinction:
    mean = extinction(frame.filter_name(pretty=True)) or Extinction(0.0, 0.1, "not known, taken as 0")
    value, source = mean.value, mean.source
    if params.extinction is not None:
        value, source = params.extinction, "given by the user"
    error = mean.error if params.extinction_error is None else params.extinction_error
    return Extinction(value, error, source)
