"""Zero points in headers: determining them from measurements, applying them to stacks, and saying so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.filter_magnitudes import system_error
from niripipe.astrodata import AstroData
from niripipe.astrodata.tables import as_rows
from niripipe.errors import CalibrationError
from niripipe.instruments.tables import niri_tables
from niripipe.photometry import StandardBand, ab_offset
from niripipe.photometry.apertures import GROWTH, WINGS
from niripipe.photometry.bands import Extinction
from niripipe.photometry.zeropoint import (
    POGSON,
    NightFit,
    fit_night,
    mean_of_frames,
    zero_points_of_frames,
)

__all__ = ["FIELD_KEYWORDS", "KEYWORDS", "apply", "compare", "determine", "not_measurable", "summary"]

KEYWORDS: Final = (
    "ZP", "ZPERR", "ZPSYSERR", "ZPSYSTEM", "ZPSTD", "ZPMAG", "ZPCATERR", "ZPBAND", "ZPBANDER", "ZPAPCOR",
    "ZPAPERR", "ZPNEIGH", "ZPAIRM", "ZPUT", "ZPEXT", "ZPEXTERR", "ZPEXTSRC", "ZPNFRAME", "ZPSCAT", "ZPNOISY",
    "ZPIMAGE", "ZPMAGERR", "ZPFILE", "ZPAGE", "ZPNSTD", "ZPWHY", "ZPWHYNOT", "ZPCHI2",
)  # fmt: skip
"""All keywords of zero points, but the aperture."""

FIELD_KEYWORDS: Final = ("ZPFIELD", "ZPFLDERR", "ZPFLDSYS", "ZPFLDNUM", "ZPFLDDIF")
"""Keywords of the comparison with stars of the field."""

_FAINTEST: Final = 50.0
"""Magnitudes beyond stand for missing ones."""

_PRECISE: Final = 0.1
"""Stars of the field with larger errors are not compared, mag."""

_DIFFERENT: Final = 3.0, 0.03
"""A difference from the stars of the field that is worth a warning: sigma, and mag."""

_OWN_FILTER: Final = 0.015
"""Error of the system of a catalogue that has magnitudes in the filter itself, mag."""

_OFF: Final = 0.5
"""A zero point that is so far from the nominal one means a wrong star, clouds or a wrong gain, mag."""

_USUAL_WINGS: Final = 0.003, 0.003
"""That light and its error where a standard is too faint to measure it better, mag."""

_CLOUD: Final = 0.05
"""A frame that is fainter than the others by more has a cloud, mag."""

_SCATTERED: Final = 3.0
"""Chi-squared of three and more standards, per degree of freedom, that is worth a warning."""

_TWO_DISAGREE: Final = 5.4
"""The same for two, with a probability of 0.02."""

_LIKE_AB: Final = 0.1
"""A difference that is within this of AB minus Vega, mag, means that a catalogue has AB magnitudes."""

_ELECTRONS: Final = ("electron", "electrons", "e-")
"""The unit of pixels, as it may be written."""

_CLEAR: Final = 0.01
"""Frames that scatter by less are no sign of clouds: flats and seeing do as much, mag."""

_LEAST_ERROR: Final = 1e-4
"""Floor of errors of extinction in the fit, mag."""

_OLD: Final = 12.0
"""A standard that is further away in time is of another night, hours."""


def determine(
    frame: AstroData, rows: Any, usable: NDArray[np.bool_], band: StandardBand, coefficient: Extinction
) -> list[str]:
    """Write the zero point that the rows of STDPHOT give into the header of their stack; return warnings."""
    warnings = []
    names, counts = np.unique(np.asarray(rows["STANDARD"])[usable], return_counts=True)
    name = str(names[np.argmax(counts)])
    if len(names) > 1:
        others = ", ".join(str(one) for one in names if one != name)
        warnings.append(f"frames of several standards: {name} is used, not {others}; reduce each by itself")
        usable = usable & (np.asarray(rows["STANDARD"]) == name)
    # A zero point for each frame, with the frame's own airmass.
    first = int(np.flatnonzero(usable)[0])
    magnitude, catalogue = float(rows["MAG"][first]), float(rows["MAGERR"][first])
    flux = np.where(usable, np.asarray(rows["FLUX"], float), np.nan)
    values, errors = zero_points_of_frames(
        flux, np.asarray(rows["FLUXERR"], float) ** 2, rows["EXPTIME"], rows["AIRMASS"],
        magnitude=magnitude, extinction=coefficient.value,
    )  # fmt: skip
    found = mean_of_frames(values, errors)
    clear = np.isfinite(values) & ~found.used & (values > found.value + _CLOUD)
    if clear.any():
        # Clouds only take light: where one frame has more, it may be the others that are wrong.
        shown = ", ".join(f"{rows['IMAGE'][k]} {values[k] - found.value:+.3f}" for k in np.flatnonzero(clear))
        warnings.append(
            f"frames with more light of {name} than the others ({shown} mag): clouds in the others? All "
            "frames are used, with the error of their scatter"
        )
        found = mean_of_frames(values, errors, clip=False)
    _write_tables(
        frame, rows, {"ZP": values, "ZPERR": errors, "USED": found.used.astype(np.int16)}, found.used
    )
    warnings += _about_frames(rows, values, found.used, found.value, found.noisy, found.scatter)
    airmass = float(np.mean(np.asarray(rows["AIRMASS"], float)[found.used]))
    beyond, beyond_error, aperture = _beyond(rows, found.used)
    beside = POGSON * float(np.median(np.asarray(rows["NEIGHBOUR"], float)[found.used]))
    if beside:
        warnings.append(
            f"other sources in the aperture of {name} have {100 * beside / POGSON:.1f} per cent of its "
            f"light: the zero point may be {beside:.3f} mag too large"
        )
    system = math.sqrt(
        catalogue**2 + band.error**2 + aperture**2 + beside**2 + (coefficient.error * (airmass - 1)) ** 2
    )
    phu = frame.phu
    _write_zero_point(phu, found.value + beyond, math.hypot(found.error, beyond_error), system, "Vega")
    _write_extinction(phu, coefficient.value, coefficient.error, coefficient.source)
    phu.set("ZPSTD", name, "Standard star of the zero point")
    phu.set("ZPMAG", magnitude, "Its magnitude in ZPBAND")
    phu.set("ZPCATERR", catalogue, "Error of that (mag)")
    phu.set("ZPBAND", band.band, "Band of the standards that is used")
    phu.set("ZPBANDER", band.error, "Error of using it in this filter (mag)")
    phu.set("ZPAPCOR", round(beyond, 5), "Light beyond the aperture, in ZP (mag)")
    phu.set("ZPAPERR", round(aperture, 5), "Systematic error of that (mag)")
    phu.set("ZPNEIGH", round(beside, 5), "Light of other sources in the aperture (mag)")
    phu.set("ZPAIRM", round(airmass, 4), "Mean airmass of the standard")
    phu.set("ZPUT", _middle(rows, found.used), "Mean UT of its frames")
    phu.set("ZPNFRAME", int(found.used.sum()), "Frames used for the zero point")
    if np.isfinite(found.scatter):
        phu.set("ZPSCAT", round(found.scatter, 5), "Scatter of a frame (mag)")
    phu.set("ZPNOISY", bool(found.noisy), "Frames scatter more than their noise explains")
    if band.error:
        warnings.append(
            f"{frame.filter_name(pretty=True)} has no standard magnitudes: those in {band.band} are used, "
            f"with an error of {band.error:g} mag"
        )
    if np.any(np.asarray(rows["VARIES"])[usable]):
        warnings.append(f"{name} may vary (Leggett et al. 2006)")
    nominal = niri_tables().zero_point(frame.filter_name(pretty=True), frame.camera(pretty=True))
    if nominal is not None and abs(found.value - nominal) > _OFF:
        warnings.append(
            f"the zero point {found.value:.3f} is {found.value - nominal:+.2f} mag from the nominal "
            f"{nominal:.2f}: a wrong star, clouds, or a wrong gain"
        )
    return warnings


def _beyond(rows: Any, used: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the light of a star beyond the aperture, its random error and its systematic one, mag.

    It is `WINGS` times what a quarter more radius gains; half of it is taken as its systematic error.
    """
    excess, errors = (np.asarray(rows[name], float)[used] for name in ("EXCESS", "EXCESSERR"))
    error = WINGS * float(np.sqrt(np.sum(errors**2))) / len(errors)
    if error > _USUAL_WINGS[1]:
        return *_USUAL_WINGS, 0.0
    beyond = WINGS * float(np.mean(excess))
    return beyond, error, 0.5 * abs(beyond)


def _write_tables(
    frame: AstroData, rows: Any, more: dict[str, NDArray[Any]], used: NDArray[np.bool_]
) -> None:
    """Write STDPHOT with further columns, and the mean curve of growth as the table GROWTH."""
    known = {column: rows[column] for column in rows.dtype.names if column != "GROWTH"}
    frame.STDPHOT = as_rows(known | more)
    curves = np.asarray(rows["GROWTH"], float)[used]
    frame.GROWTH = as_rows(
        {"RADIUS": np.array(GROWTH), "SHARE": curves.mean(axis=0), "RMS": curves.std(axis=0)}
    )


def _about_frames(
    rows: Any, values: NDArray[Any], used: NDArray[np.bool_], mean: float, noisy: bool, scatter: float
) -> list[str]:
    """Return what is to be said of single frames: outliers, clouds."""
    warnings = []
    for k in np.flatnonzero(np.isfinite(values) & ~used):
        cloud = ", as a cloud does" if values[k] < mean - _CLOUD else ""
        warnings.append(
            f"{rows['IMAGE'][k]} is left out: its zero point is {values[k] - mean:+.3f} mag off{cloud}"
        )
    if noisy and scatter > _CLEAR:
        warnings.append(
            f"frames of the standard scatter by {scatter:.3f} mag, more than their noise explains: clouds?"
        )
    return warnings


def apply(frame: AstroData, standards: Sequence[AstroData], system: str, fitting: int) -> list[str]:
    """Write the zero point of processed standards, the nearest first, into the header of a stack.

    Parameters
    ----------
    frame : AstroData
    standards : sequence of AstroData
        Those to be used.
    system : str
        ``Vega`` or ``AB``.
    fitting : int
        From how many that fit they were chosen.

    Returns
    -------
    list of str
        Warnings.

    Raises
    ------
    CalibrationError
        A standard has another filter, or no zero point.
    """
    warnings = [text for standard in standards for text in _check(frame, standard)]
    nearest = standards[0].phu
    fit, chosen, more = _fitted(standards)
    warnings += more
    airmass, exposure = frame.airmass(), float(frame.exposure_time())
    if airmass is None:
        airmass = 1.0
        warnings.append("its header has no airmass: 1 is taken, magnitudes lack the extinction beyond")
    step = 0.0
    if system == "AB":
        known = ab_offset(frame.filter_name(pretty=True))
        if known is None:
            warnings.append(
                "the step from Vega to AB magnitudes is not known for this filter: Vega magnitudes"
            )
            system = "Vega"
        step = known or 0.0
    total, random = fit.error, _random(chosen)
    phu = frame.phu
    _write_zero_point(phu, fit.zero_point + step, random, math.sqrt(max(total**2 - random**2, 0.0)), system)
    source = f"fitted to {len(chosen)} standards" if fit.fitted else str(nearest["ZPEXTSRC"])
    if not fit.fitted and len(chosen) > 1:
        source += f", with {len(chosen)} standards"
    _write_extinction(phu, fit.extinction, fit.extinction_error, source)
    here = fit.zero_point + step - fit.extinction * (airmass - 1) + 2.5 * math.log10(exposure)
    phu.set("ZPIMAGE", round(here, 5), f"{system} magnitude of 1 electron in this image")
    common = _common(chosen)
    phu.set("ZPMAGERR", round(math.hypot(fit.error_at(airmass), common), 5), "Error of ZPIMAGE (mag)")
    phu.set("ZPSTD", str(nearest["ZPSTD"]), "Nearest standard star of the zero point")
    phu.set("ZPFILE", str(standards[0].filename), "Its file")
    phu.set("ZPNSTD", len(chosen), "Standards used")
    phu.set("ZPAPER", nearest.get("ZPAPER", 4.0), "Radius of the aperture of the zero point (FWHM)")
    phu.set("ZPAPCOR", float(np.mean([one.phu["ZPAPCOR"] for one in chosen])), "Light beyond it, in ZP (mag)")
    phu.set("ZPAIRM", nearest["ZPAIRM"], "Mean airmass of the standard")
    if np.isfinite(fit.chi_squared):
        phu.set("ZPCHI2", round(fit.chi_squared, 3), "Chi-squared of the standards per degree of freedom")
    hours = _hours(frame, standards[0])
    if hours is not None:
        phu.set("ZPAGE", round(hours, 3), "Standard minus frames (hours)")
    phu.set("ZPWHY", _why(frame, standards[0], fitting, hours), "Why this standard")
    return warnings


def not_measurable(frame: AstroData) -> str:
    """Return why the pixels of an image cannot become magnitudes; empty if they can."""
    unit, exposure = str(frame[0].hdr.get("BUNIT", "adu")), frame.exposure_time()
    if unit.lower() not in _ELECTRONS:
        return f"the image is in {unit}, not in electrons (ADUToElectrons)"
    if not exposure or exposure < 0:
        return f"the image has no exposure time (EXPTIME is {exposure})"
    return "" if frame[0].variance is not None else "the image has no variances (addVAR)"


def compare(frame: AstroData, least: int) -> tuple[str, bool] | str:
    """Compare the zero point with stars of the field that have reference magnitudes.

    Returns
    -------
    tuple of str and bool, or str
        What was found, and whether it is a warning; or why nothing was.
    """
    table = frame[0].OBJCAT
    names = [name for name in table.colnames if name.startswith("MAG_APER_")]
    column = names[len(names) // 2] if names else "MAG_AUTO"
    ours, errors, theirs, their_errors = (
        np.asarray(table[name], float)
        for name in (column, column.replace("MAG", "MAGERR", 1), "REF_MAG", "REF_MAG_ERR")
    )
    if frame.phu["ZPSYSTEM"] == "AB":
        ours = ours - (ab_offset(frame.filter_name(pretty=True)) or 0.0)
    use = (np.abs(theirs) < _FAINTEST) & (their_errors > 0) & (their_errors < _PRECISE)
    use &= (
        np.isfinite(ours)
        & (np.abs(ours) < _FAINTEST)
        & (errors < _PRECISE)
        & (np.asarray(table["FLAGS"]) == 0)
    )
    if use.sum() < least:
        return f"{use.sum()} stars have magnitudes here and in a reference catalogue, {least} are needed"
    found = mean_of_frames((theirs - ours)[use], np.hypot(errors, their_errors)[use])
    phu = frame.phu
    phu.set("ZPFIELD", round(float(phu["ZP"]) + found.value, 5), "ZP by stars of the field")
    phu.set("ZPFLDERR", round(found.error, 5), "Random error of that (mag)")
    has_catalogue = "REFCAT" in frame.tables
    system = frame.REFCAT.meta.get("SYSERR", _OWN_FILTER) if has_catalogue else system_error(None)
    phu.set("ZPFLDSYS", float(system), "Error of the system of the catalogue (mag)")
    phu.set("ZPFLDNUM", int(found.used.sum()), "Stars used")
    phu.set("ZPFLDDIF", round(found.value, 5), "ZPFIELD minus ZP (mag)")
    total = math.hypot(found.error, float(system), float(phu["ZPMAGERR"]))
    doubtful = abs(found.value) > max(_DIFFERENT[0] * total, _DIFFERENT[1])
    text = (
        f"the zero point by {found.used.sum()} of {use.sum()} stars of the field is {found.value:+.3f} +/- "
        f"{found.error:.3f} mag from that of the standard, whose error is {float(phu['ZPMAGERR']):.3f} mag "
        f"(catalogue {frame[0].hdr.get('ASTCAT', 'unknown')}, {system:g} mag for its system)"
    )
    step = ab_offset(frame.filter_name(pretty=True))
    if doubtful and step is not None and abs(found.value - step) < _LIKE_AB:
        return f"{text}: the catalogue has AB magnitudes, it seems; Vega magnitudes are expected", doubtful
    return text + (": one of the two is wrong, or there were clouds" if doubtful else ""), doubtful


def summary(frame: AstroData) -> str:
    """Return the zero point in the header in words."""
    phu = frame.phu
    return (
        f"zero point {phu['ZP']:.3f} +/- {phu['ZPERR']:.3f} (random) +/- {phu['ZPSYSERR']:.3f} (systematic) "
        f"mag ({phu['ZPSYSTEM']}) by {phu['ZPSTD']}, extinction {phu['ZPEXT']:.3f} mag per airmass "
        f"({phu['ZPEXTSRC']})"
    )


def _fitted(standards: Sequence[AstroData]) -> tuple[NightFit, list[AstroData], list[str]]:
    """Fit zero point and extinction; return also the standards used, and warnings about the others."""
    phus = [standard.phu for standard in standards]
    slopes = {round(float(phu["ZPEXT"]), 4) for phu in phus}
    extinction, extinction_error = float(phus[0]["ZPEXT"]), float(phus[0]["ZPEXTERR"])
    # What a star gives without any extinction.
    values = [float(phu["ZP"]) - float(phu["ZPEXT"]) * (float(phu["ZPAIRM"]) - 1) for phu in phus]
    errors = [_own_error(phu) for phu in phus]
    fit = fit_night(
        values, errors, [float(phu["ZPAIRM"]) for phu in phus],
        extinction=extinction, extinction_error=max(extinction_error, _LEAST_ERROR),
        common_error=_common(standards),
    )  # fmt: skip
    warnings = []
    if len(slopes) > 1:
        warnings.append("the standards were reduced with different extinctions: that of the nearest counts")
    for k in np.flatnonzero(~fit.used):
        warnings.append(
            f"{phus[k]['ZPSTD']} is left out: it is {fit.residuals[k]:+.3f} mag from the other standards"
        )
    if fit.chi_squared > (_SCATTERED if fit.used.sum() >= 3 else _TWO_DISAGREE):
        away = ", ".join(f"{phus[k]['ZPSTD']} {fit.residuals[k]:+.3f}" for k in np.flatnonzero(fit.used))
        warnings.append(
            f"the standards disagree by more than their errors (chi-squared {fit.chi_squared:.1f}; from "
            f"their mean {away} mag): a wrong star, or clouds"
        )
    noisy = [str(phu["ZPSTD"]) for phu in phus if phu.get("ZPNOISY") and float(phu["ZPSCAT"]) > _CLEAR]
    if noisy:
        warnings.append(
            f"the frames of {', '.join(dict.fromkeys(noisy))} scatter more than their noise explains"
        )
    return fit, [standard for standard, used in zip(standards, fit.used, strict=True) if used], warnings


def _own_error(phu: Any) -> float:
    """Return the error of a zero point that other standards do not share, mag."""
    parts = (float(phu.get(key, 0.0)) for key in ("ZPERR", "ZPCATERR", "ZPNEIGH"))
    return max(math.hypot(*parts), _LEAST_ERROR)


def _common(standards: Sequence[AstroData]) -> float:
    """Return the error that all standards share: of the band, and of the aperture."""
    shares = [math.hypot(float(s.phu["ZPBANDER"]), float(s.phu["ZPAPERR"])) for s in standards]
    return float(np.mean(shares))


def _random(standards: Sequence[AstroData]) -> float:
    """Return the random error of the mean of several zero points."""
    weights = [1 / _own_error(s.phu) ** 2 for s in standards]
    errors = [float(s.phu["ZPERR"]) for s in standards]
    return float(np.sqrt(np.sum((np.array(weights) * errors) ** 2)) / np.sum(weights))


def _check(frame: AstroData, standard: AstroData) -> list[str]:
    """Refuse a standard that says nothing about a frame; return doubts about one that may."""
    if "ZP" not in standard.phu:
        raise CalibrationError(
            "The processed standard has no zero point", file=standard.filename, item="ZP",
            found=standard.phu.get("ZPWHYNOT"), remedy="Name another one with applyZeroPoint:standard.",
        )  # fmt: skip
    wanted, has = frame.filter_name(pretty=True), standard.filter_name(pretty=True)
    if wanted != has:
        raise CalibrationError(
            "The processed standard does not fit in its filter", file=frame.filename, item=standard.filename,
            found=has, expected=wanted, remedy="Give a standard that was taken in the same filter.",
        )  # fmt: skip
    warnings = [
        f"{standard.filename} differs in {what}: {theirs}, not {ours}"
        for what, ours, theirs in (
            ("camera", frame.camera(pretty=True), standard.camera(pretty=True)),
            ("well depth", frame.well_depth_setting(), standard.well_depth_setting()),
        )
        if ours != theirs
    ]
    hours = _hours(frame, standard)
    if hours is not None and abs(hours) > _OLD:
        warnings.append(
            f"the zero point of {standard.phu['ZPSTD']} is of another night, {hours / 24:+.1f} days away"
        )
    return warnings


def _hours(frame: AstroData, standard: AstroData) -> float | None:
    """Return the time of a standard minus that of a frame."""
    ours, theirs = frame.ut_datetime(), standard.ut_datetime()
    text = standard.phu.get("ZPUT")
    if text:
        theirs = datetime.fromisoformat(str(text))
    return None if ours is None or theirs is None else float((theirs - ours).total_seconds() / 3600)


def _why(frame: AstroData, nearest: AstroData, fitting: int, hours: float | None) -> str:
    """Return why a standard is the nearest, in words that a header has space for."""
    text = "only one" if fitting == 1 else f"nearest of {fitting}"
    if hours is not None:
        text += f", {abs(hours):.1f} h {'after' if hours > 0 else 'before'}"
    return f"{text}, airmass {float(nearest.phu['ZPAIRM']):.2f} for {_shown(frame.airmass())}"


def _shown(airmass: float | None) -> str:
    return "unknown" if airmass is None else f"{airmass:.2f}"


def _middle(rows: Any, used: NDArray[np.bool_]) -> str:
    times = [datetime.fromisoformat(str(text)) for text in np.asarray(rows["TIME"])[used] if str(text)]
    if not times:
        return ""
    return (times[0] + sum((time - times[0] for time in times), times[0] - times[0]) / len(times)).isoformat(
        timespec="seconds"
    )


def _write_zero_point(phu: Any, value: float, random: float, systematic: float, system: str) -> None:
    phu.set("ZP", round(value, 5), "Magnitude of 1 electron/s at airmass 1")
    phu.set("ZPERR", round(random, 5), "Random error of ZP (mag)")
    phu.set("ZPSYSERR", round(systematic, 5), "Systematic error of ZP (mag)")
    phu.set("ZPSYSTEM", system, "System of the magnitudes")


def _write_extinction(phu: Any, value: float, error: float, source: str) -> None:
    phu.set("ZPEXT", round(value, 5), "Extinction (mag per airmass)")
    phu.set("ZPEXTERR", round(error, 5), "Error of that")
    phu.set("ZPEXTSRC", source, "Where it comes from")
