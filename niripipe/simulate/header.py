"""Headers of raw NIRI frames, for every epoch, in the order in which the telescope writes them.

The single place that knows the raw format: two header units, a primary one without pixels that describes
everything, and an unnamed image extension with EXTVER = -1. Keywords, their order and their absence in early
years follow headers of real raw frames of 2003 to 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from astropy.io import fits

from niripipe.instruments.tables import niri_tables
from niripipe.simulate.pointing import TangentWcs, offset_pointing
from niripipe.simulate.sequence import Exposure
from niripipe.simulate.settings import Setup

__all__ = ["extension_header", "frame_wcs", "primary_header"]

Card = tuple[str, Any, str]

#: Maunakea, degrees.
_LATITUDE, _LONGITUDE = 19.8238, -155.4690
#: Where the pointing falls on the full frame (1-based), on the side port and on the bottom port.
_POINTING_SIDE, _POINTING_BOTTOM = (545.186, 489.049), (527.925, 499.601)
#: Keywords of these groups are absent from frames before the date.
_OFFSETS_SINCE = date(2006, 7, 1)
_TRACKING_SINCE = date(2004, 1, 1)
_BEAM_SPLITTER_SINCE = date(2001, 7, 1)
#: A frame ends this long after the light has been collected, s.
_READ_TIME = 1.5
#: Coordinate rates of a telescope that rests at the zenith.
_SIDEREAL_RATE = 1.00273790935


@dataclass(frozen=True, slots=True)
class _Sky:
    """Local circumstances at the start of a frame; angles in degrees, sidereal time in hours."""

    sidereal: float
    hour_angle: float
    azimuth: float
    elevation: float
    airmass: float
    airmass_end: float


def frame_wcs(exposure: Exposure, setup: Setup) -> TangentWcs:
    """Return the world coordinates of where the telescope was sent, without its error.

    Calibrations are taken at the zenith, with whatever orientation the rotator has.
    """
    x, y = _POINTING_BOTTOM if setup.port == 1 else _POINTING_SIDE
    cut = _margin(setup)
    x, y = x - cut, y - cut
    if exposure.on_sky:
        angle = setup.position_angle
        crval = offset_pointing((exposure.field.ra, exposure.field.dec), exposure.p, exposure.q, angle)
    else:
        crval, angle = (15 * _sidereal_time(exposure.start), _LATITUDE), 119.3
    return TangentWcs.oriented((x, y), crval, setup.scale, angle, mirrored=setup.mirrored)


def primary_header(exposure: Exposure, setup: Setup, wcs: TangentWcs) -> fits.Header:
    """Write the primary header of a frame.

    Parameters
    ----------
    exposure : Exposure
        The frame.
    setup : Setup
        The instrument's setting.
    wcs : TangentWcs
        World coordinates, as `frame_wcs` gives them.

    Returns
    -------
    astropy.io.fits.Header
        About 150 cards (130 before July 2006), `FRAME` twice as in real frames.
    """
    sky = _circumstances(exposure)
    cards = [
        *_structure(),
        *_identification(exposure),
        *_target(exposure, sky, setup),
        *_conditions(exposure),
        *_times(exposure, sky),
        *_offsets(exposure, setup),
        *_guiding(exposure, setup),
        *_calibration_unit(exposure),
        *_environment(exposure),
        *_instrument(exposure, setup),
        *_voltages(setup),
        *_end(exposure, sky),
        *_world_coordinates(_as_written(wcs, exposure, setup)),
        ("MJD_OBS", _mjd(exposure.start), "Mean Julian day of observation"),
        ("INTEGRIT", "OK", "Observation status (OK|STOP|ABORT)"),
        ("FRAME", "FK5", "Target coordinate system"),
        ("RELEASE", _release(exposure), "End of proprietary period YYYY-MM-DD"),
    ]
    return _header(cards)


def extension_header(exposure: Exposure, setup: Setup, wcs: TangentWcs) -> fits.Header:
    """Write the header of the image extension.

    Parameters
    ----------
    exposure, setup, wcs
        As in `primary_header`.

    Returns
    -------
    astropy.io.fits.Header
    """
    last = setup.size - 1
    bits = -32 if setup.pixels(exposure.start.date()) == "float32" else 32
    return _header(
        [
            ("XTENSION", "IMAGE", "IMAGE extension"),
            ("BITPIX", bits, "number of bits per data pixel"),
            ("NAXIS", 2, "number of data axes"),
            ("NAXIS1", setup.size, "length of data axis 1"),
            ("NAXIS2", setup.size, "length of data axis 2"),
            ("PCOUNT", 0, "required keyword; must = 0"),
            ("GCOUNT", 1, "required keyword; must = 1"),
            *_world_coordinates(_as_written(wcs, exposure, setup)),
            ("MJD_OBS", _mjd(exposure.start), "Mean Julian day of observation"),
            ("FRAME", "FK5", "Target coordinate system"),
            ("DROINUM", 0, "Which Region of Interest"),
            ("LOWROW", 0, "Start row of region of interest"),
            ("LOWCOL", 0, "Start col of region of interest"),
            ("HIROW", last, "End row of region of interest"),
            ("HICOL", last, "End col of region of interest"),
            ("FRMNAME", f"{exposure.name.removesuffix('.fits')}:0", "Frame name"),
            ("FRAMEID", "0", "Frame ID"),
            ("DATATYP", " ", "Data type"),
            ("EXTVER", -1, "Number assigned to a FITS extension."),
        ]
    )


def _margin(setup: Setup) -> int:
    """Pixels between the edge of the full frame and that of the centred subarray."""
    return (niri_tables().detector.size - setup.size) // 2


def _as_written(wcs: TangentWcs, frame: Exposure, setup: Setup) -> TangentWcs:
    """Headers of early subarrays state the reference pixel on the full frame."""
    if frame.start.date() >= niri_tables().epochs.subarray_crpix_since:
        return wcs
    cut = _margin(setup)
    return replace(wcs, crpix=(wcs.crpix[0] + cut, wcs.crpix[1] + cut))


def _header(cards: list[Card]) -> fits.Header:
    # From a list of cards, so that a keyword may come twice.
    return fits.Header([fits.Card(*card) for card in cards])


def _structure() -> list[Card]:
    return [
        ("SIMPLE", True, "file does conform to FITS standard"),
        ("BITPIX", 16, "number of bits per data pixel"),
        ("NAXIS", 0, "number of data axes"),
        ("EXTEND", True, "FITS dataset may contain extensions"),
        ("COMMENT", "  FITS (Flexible Image Transport System) format is defined in 'Astronomy", ""),
        ("COMMENT", "  and Astrophysics', volume 376, page 359; bibcode: 2001A&A...376..359H", ""),
    ]


def _identification(frame: Exposure) -> list[Card]:
    types = {"flat_on": "FLAT", "flat_off": "FLAT", "dark": "DARK", "short_dark": "DARK"}
    classes = {"target": "science", "sky": "science", "std": "partnerCal"}
    day = frame.start.date()
    programme = f"GN-{_semester(day)}-Q-91"
    observation = f"{programme}-{frame.observation}"
    cards: list[Card] = [
        ("INSTRUME", "NIRI", "Instrument used to acquire data."),
        ("OBJECT", frame.field.name, "Object Name"),
        ("OBSTYPE", types.get(frame.kind, "OBJECT"), "Observation type"),
    ]
    if day >= _OFFSETS_SINCE:
        cards.append(("OBSCLASS", classes.get(frame.kind, "dayCal"), "Observe class"))
    return [
        *cards,
        ("GEMPRGID", programme, "Gemini Science Program ID"),
        ("OBSID", observation, "Observation ID / Data label"),
        ("DATALAB", f"{observation}-{frame.number:03d}", "Datalabel"),
        ("OBSERVER", "niripipe.simulate", "Observer"),
        ("OBSERVAT", "Gemini-North", "Observatory"),
        ("TELESCOP", "Gemini-North", "Telescope"),
    ]


def _target(frame: Exposure, sky: _Sky, setup: Setup) -> list[Card]:
    day = frame.start.date()
    ra_rate, dec_rate = (0.0, 0.0) if frame.on_sky else (_SIDEREAL_RATE, 0.0072057387383)
    tracked = day >= _TRACKING_SINCE
    return [
        ("PARALLAX", 0.0, "Parallax of Target"),
        ("RADVEL", 0.0, "Heliocentric Radial Velocity"),
        ("EPOCH", 2000.0, "Epoch for Target coordinates"),
        ("EQUINOX", 2000.0 if frame.on_sky else 0.0, "Equinox for Target coordinates"),
        ("TRKEQUIN", 2000.0, "Tracking equinox"),
        ("SSA", "niripipe.simulate", "SSA"),
        ("RA", frame.field.ra, "RA of Target"),
        ("DEC", frame.field.dec, "Declination of Target"),
        ("ELEVATIO", sky.elevation, "Current Elevation"),
        ("AZIMUTH", sky.azimuth, "Current Azimuth"),
        ("CRPA", -55.9461 if frame.on_sky else -176.4292, "Current Cass Rotator Position Angle"),
        ("HA", _sexagesimal(sky.hour_angle / 15, 2, signed=True), "Telescope hour angle"),
        ("LT", _clock(frame.start - timedelta(hours=10, seconds=1)), "Local time at start of observation"),
        ("TRKFRAME", "FK5" if tracked else "", "Tracking co-ordinate"),
        ("DECTRACK", dec_rate, "Differential tracking rate Dec"),
        ("TRKEPOCH", _mjd(frame.start) if tracked else 0.0, "Differential tracking reference epoch"),
        ("RATRACK", ra_rate, "Differential tracking rate RA"),
        ("FRAME", "FK5" if frame.on_sky else "AZEL_TOPO", "Target coordinate system"),
        ("PMDEC", 0.0, "Proper Motion in Declination"),
        ("PMRA", 0.0, "Proper Motion in RA"),
        ("WAVELENG", _guiding_wavelength(setup.wheels(day)), "Effective Target Wavelength"),
    ]


def _conditions(frame: Exposure) -> list[Card]:
    iq, cc, bg = ("70-percentile", "50-percentile", "80-percentile") if frame.on_sky else ("UNKNOWN",) * 3
    return [
        ("RAWIQ", iq, "Raw Image Quality"),
        ("RAWCC", cc, "Raw Cloud Cover"),
        ("RAWWV", "Any" if frame.on_sky else "UNKNOWN", "Raw Water Vapour/Transparency"),
        ("RAWBG", bg, "Raw Background"),
        ("RAWPIREQ", "YES" if frame.on_sky else "UNKNOWN", "PI Requirements Met"),
        ("RAWGEMQA", "USABLE" if frame.on_sky else "UNKNOWN", "Gemini Quality Assessment"),
        ("CGUIDMOD", "Basic", "Driving mode for carousel"),
    ]


def _times(frame: Exposure, sky: _Sky) -> list[Card]:
    return [
        ("UT", _clock(frame.start), "Beginning of Observation (UT)"),
        ("DATE", f"{frame.start:%Y-%m-%d}", "Date of last modification"),
        ("M2BAFFLE", "NEAR IR" if frame.on_sky else "VISIBLE", "Position of M2 baffle"),
        ("M2CENBAF", "CLOSED", "Position of M2 central hole baffle"),
        ("ST", _sexagesimal(sky.sidereal, 1), "Sidereal time at the start of the exposure"),
    ]


def _offsets(frame: Exposure, setup: Setup) -> list[Card]:
    angle = math.radians(setup.position_angle)
    east = frame.p * math.cos(angle) + frame.q * math.sin(angle)
    north = frame.q * math.cos(angle) - frame.p * math.sin(angle)
    cards: list[Card] = [
        ("XOFFSET", -frame.p, "Telescope offset in x in arcsec"),
        ("YOFFSET", frame.q, "Telescope offset in y in arcsec"),
    ]
    since = frame.start.date() >= _OFFSETS_SINCE
    if since:
        cards += [
            ("POFFSET", frame.p, "Telescope offset in p in arcsec"),
            ("QOFFSET", frame.q, "Telescope offset in q in arcsec"),
        ]
    cards += [
        ("RAOFFSET", east, "Telescope offset in RA in arcsec"),
        ("DECOFFSE", north, "Telescope offset in DEC in arcsec"),
    ]
    if since:
        cards += [
            ("RATRGOFF", 0.0, "Target offset in RA in arcsec"),
            ("DECTRGOF", 0.0, "Target offset in DEC in arcsec"),
        ]
    cards.append(
        ("PA", setup.position_angle if frame.on_sky else 0.0, "Sky Position Angle at start of exposure")
    )
    if since:
        cards.append(("IAA", 270.0 if setup.port == 1 else 90.25, "Instrument Alignment Angle"))
    return [
        *cards,
        ("SFRT2", 88.512, "Science fold rotation angle (degrees)"),
        ("SFTILT", -45.04, "Science fold tilt angle (degrees)"),
        ("SFLINEAR", 8.0, "Science fold linear position (mm)"),
    ]


def _guiding(frame: Exposure, setup: Setup) -> list[Card]:
    """State what the guide probes did; on offset skies the guide star is out of reach."""
    state = {"target": "guiding", "std": "guiding", "sky": "frozen"}.get(frame.kind, "parked")
    cards: list[Card] = []
    if frame.start.date() >= _OFFSETS_SINCE:
        meaning = "probe state (frozen,guiding,parked)"
        cards = [
            ("AOFOLD", "IN" if setup.ao else "park-pos.", "AO Pick-Off Mirror Position"),
            ("PWFS1_ST", "parked", f"PWFS1 {meaning}"),
            ("PWFS2_ST", "parked" if setup.ao else state, f"PWFS2 {meaning}"),
            ("OIWFS_ST", "parked", f"OIWFS {meaning}"),
            ("AOWFS_ST", state if setup.ao else "parked", f"AOWFS {meaning}"),
        ]
        if setup.ao:
            cards.append(("CRFOLLOW", "yes", "Cass rotator following (yes|no)"))
        for name, what in (
            ("IQ", "Image Quality"),
            ("CC", "Cloud Cover"),
            ("BG", "Background"),
            ("WV", "Water Vapour"),
        ):
            cards.append((f"REQ{name}", "70-percentile" if name == "IQ" else "Any", f"Requested {what}"))
        cards.append(("NUMREQTW", 0, "Number of Requested Timing Window REQTW entries"))
    if state == "parked" or setup.ao:
        return cards
    probe = "PWFS2"
    return [
        *cards,
        ("P2ARA", frame.field.ra + 0.04, f"RA of {probe} guide star"),
        ("P2ARV", 0.0, f"{probe} Heliocentric Radial Velocity"),
        ("P2AWAVEL", 7000.0, f"{probe} Effective Target Wavelength"),
        ("P2ADEC", frame.field.dec + 0.07, f"Declination of {probe} guide star"),
        ("P2AEPOCH", 2000.0, f"Epoch for {probe} guide star coordinates"),
        ("P2AEQUIN", 2000.0, f"Equinox for {probe} guide star coordinates"),
        ("P2AFRAME", "FK5", f"{probe} Target co-ordinate system"),
        ("P2AOBJEC", "simulated", "Object Name for PWFS 2, Chop A"),
        ("P2APMDEC", 0.0, f"{probe} Proper Motion in Declination"),
        ("P2APMRA", 0.0, f"{probe} Proper Motion in RA"),
        ("P2APARAL", 0.0, f"{probe} Parallax of Target"),
    ]


def _calibration_unit(frame: Exposure) -> list[Card]:
    if not frame.kind.startswith("flat"):
        return []
    return [
        ("GCALLAMP", "IRhigh", "GCAL Lamp name"),
        ("GCALFILT", "ND4-5", "GCAL Filter name"),
        ("GCALDIFF", "IR", "GCAL Diffuser name"),
        ("GCALSHUT", "OPEN" if frame.kind == "flat_on" else "CLOSED", "GCAL Shutter (OPEN or CLOSED)"),
    ]


def _environment(frame: Exposure) -> list[Card]:
    celsius, dew, wind = 1.6, -17.4, 6.2
    return [
        ("HUMIDITY", 18.0, "The Relative Humidity (fraction, 0..101)."),
        ("TAMBIENT", celsius, "The ambient temp (C)."),
        ("TAMBIEN2", round(celsius * 1.8 + 32, 2), "The ambient temp (F)."),
        ("PRESSURE", 463.67304, "The atmospheric pressure (mm Hg)."),
        ("PRESSUR2", 61800.0, "The atmospheric pressure (Pa)."),
        ("DEWPOINT", dew, "The dew point (C)."),
        ("DEWPOIN2", round(dew * 1.8 + 32, 2), "The dew point (F)."),
        ("WINDSPEE", wind, "The wind speed (m/s)."),
        ("WINDSPE2", round(wind * 2.236936, 4), "The wind speed (mph)."),
        ("WINDDIRE", 91.0, "The wind direction (degrees)."),
    ]


def _instrument(frame: Exposure, setup: Setup) -> list[Card]:
    day = frame.start.date()
    wheels = setup.wheels(day)
    dark = frame.kind in ("dark", "short_dark")
    lnrs, ndavgs = setup.reads
    cards: list[Card] = [
        ("ARRAYID", "47911", "Array identification"),
        ("ARRAYTYP", "ALADDIN_II", "Array type"),
        ("CAMERA", setup.camera, "NIRI camera (f6|f14|f32)"),
        ("COADDS", frame.coadds, "Number of coadds summed"),
        ("DATE-OBS", f"{frame.start:%Y-%m-%d}", "Observation date (UT)"),
        ("EXPTIME", frame.exposure, "Exposure time (s) for each frame"),
        ("FILTER1", wheels[0], "Filter 1 name"),
        ("FILTER2", wheels[1], "Filter 2 name"),
        ("FILTER3", "blank" if dark else wheels[2], "Pupil mask, grism, or filter name"),
        ("FOCUSNAM", "INDEF", "Focus position name"),
        ("FOCUSPOS", -3.35, "Focus stage position in mm"),
        ("FPMASK", "f14-cam_G5209" if setup.camera == "f13.9" else "f6-cam_G5208", "Focal plane mask name"),
    ]
    if day >= _BEAM_SPLITTER_SINCE:
        splitter = "f32" if setup.camera == "f32" else "f6"
        cards.append(("BEAMSPLT", splitter, "Beam splitter position name"))
    return [
        *cards,
        ("WINDCOVR", "closed" if dark else "open", "Window cover position name (open|closed)"),
        ("FRMSPCYC", 2, "Frames per cycle,1=sep,2=stare"),
        ("HDRTIMIN", "INDEF", "Header info updated before, after or both"),
        ("INPORT", setup.port, "Number of ISS port where NIRI was located"),
        ("LNRS", lnrs, "Number of non-destructive read pairs"),
        ("MODE", "STARE", "Stare or sep"),
        ("NDAVGS", ndavgs, "Number of digital averages"),
        ("PVIEW", "out", "Pupil viewer position name (in|out)"),
        ("TIME", _clock(frame.start), "Beginning of Observation (UT)"),
        ("TIME-OBS", _clock(frame.start), "Beginning of Observation (UT)"),
    ]


def _voltages(setup: Setup) -> list[Card]:
    drain = -3.49
    levels = [
        ("VDDCL1", -1.163, "VDDCL hi detector clock voltage"),
        ("VDDCL2", -3.497, "VDDCL lo detector clock voltage"),
        ("VDDUC", drain, "VDDUC detector bias voltage"),
        ("VDET", round(drain - setup.bias, 3), "VDETCOM detector bias voltage"),
        ("VGGCL1", -4.881, "VGGCL lo detector clock voltage"),
        ("VGGCL2", -2.704, "VGGCL hi detector clock voltage"),
        ("VSET", -1.871, "Vset detector bias voltage"),
    ]
    return [
        ("TDETABS", 33.48, "Science detector temperature (K)"),
        ("TMOUNT", 35.168, "Mount temperature (K)"),
        ("UCODENAM", "gnAII_1024xSU01_4u", "Array microcode file name"),
        ("UCODETYP", "RDD", "Array microcode version"),
        *levels,
        ("A_TDETAB", 33.48, "Science detector temperature (K) (post exposure"),
        ("A_TMOUNT", 34.724, "Mount temperature (K) (post exposure)"),
        *((f"A_{name}", value, f"{comment} (post exposure)") for name, value, comment in levels),
    ]


def _end(frame: Exposure, sky: _Sky) -> list[Card]:
    day = frame.start.date()
    end = frame.start + timedelta(seconds=frame.seconds + _READ_TIME)
    cards: list[Card] = (
        [("UTEND", _clock(end), "End of Observation (UT)")] if day >= _BEAM_SPLITTER_SINCE else []
    )
    return [
        *cards,
        ("OBSEPOCH", round(_decimal_year(frame.start), 8), "Epoch at start of exposure"),
        ("AIRMASS", round((sky.airmass + sky.airmass_end) / 2, 3), "Mean airmass for the observation"),
        ("AMSTART", round(sky.airmass, 3), "Airmass at start of exposure"),
        ("AMEND", round(sky.airmass_end, 3), "Airmass at end of exposure"),
    ]


def _world_coordinates(wcs: TangentWcs) -> list[Card]:
    axes = (("RA---TAN", "first", "x", "1"), ("DEC--TAN", "second", "y", "2"))
    cards: list[Card] = []
    for i, (ctype, axis, letter, number) in enumerate(axes):
        cards += [
            (f"CTYPE{number}", ctype, f"the coordinate type for the {axis} axis"),
            (f"CRPIX{number}", wcs.crpix[i], f"{letter}-coordinate of reference pixel"),
            (f"CRVAL{number}", wcs.crval[i], f"{axis} axis value at ref pixel"),
        ]
    names = (
        ("CD1_1", "first", "x"),
        ("CD1_2", "first", "y"),
        ("CD2_1", "second", "x"),
        ("CD2_2", "second", "y"),
    )
    for (name, axis, letter), value in zip(names, wcs.cd, strict=True):
        cards.append((name, value, f"partial of {axis} axis coord w.r.t. {letter}"))
    return cards


def _circumstances(frame: Exposure) -> _Sky:
    if not frame.on_sky:
        return _Sky(_sidereal_time(frame.start), 0.0, 75.0, 89.9995, 1.0, 1.0)
    sidereal = _sidereal_time(frame.start)
    turn, azimuth, elevation = _horizontal(sidereal, frame.field.ra, frame.field.dec)
    later = sidereal + frame.seconds / 3600
    end = _horizontal(later, frame.field.ra, frame.field.dec)[2]
    return _Sky(sidereal, turn, azimuth, elevation, _airmass(elevation), _airmass(end))


def _horizontal(sidereal: float, ra: float, dec: float) -> tuple[float, float, float]:
    """Hour angle, azimuth from North through East, elevation; degrees."""
    turn = (15 * sidereal - ra + 180) % 360 - 180
    h, d, lat = math.radians(turn), math.radians(dec), math.radians(_LATITUDE)
    up = math.sin(lat) * math.sin(d) + math.cos(lat) * math.cos(d) * math.cos(h)
    north = math.cos(lat) * math.sin(d) - math.sin(lat) * math.cos(d) * math.cos(h)
    east = -math.cos(d) * math.sin(h)
    return (
        turn,
        math.degrees(math.atan2(east, north)) % 360,
        math.degrees(math.atan2(up, math.hypot(north, east))),
    )


def _airmass(elevation: float) -> float:
    # Below 10 degrees the telescope does not go; an epoch that puts a field there still needs a finite
    # number.
    return 1 / math.sin(math.radians(max(elevation, 10.0)))


def _sidereal_time(when: datetime) -> float:
    """Local mean sidereal time in hours (Meeus, Astronomical Algorithms, eq. 12.4)."""
    days = _mjd(when) - 51544.5
    return (18.697374558 + 24.06570982441908 * days + _LONGITUDE / 15) % 24


def _mjd(when: datetime) -> float:
    return (when - datetime(1858, 11, 17)).total_seconds() / 86400


def _decimal_year(when: datetime) -> float:
    first, following = datetime(when.year, 1, 1), datetime(when.year + 1, 1, 1)
    return when.year + (when - first) / (following - first)


def _semester(day: date) -> str:
    """Name the semester: A from February to July, B from August to January."""
    if day.month == 1:
        return f"{day.year - 1}B"
    return f"{day.year}{'A' if day.month < 8 else 'B'}"


def _release(frame: Exposure) -> str:
    """Science is proprietary for 18 months, calibrations are not."""
    day = frame.start.date()
    if frame.kind not in ("target", "sky"):
        return day.isoformat()
    months = day.month - 1 + 18
    return f"{day.year + months // 12}-{months % 12 + 1:02d}-{min(day.day, 28):02d}"


def _guiding_wavelength(wheels: tuple[str, str, str]) -> float:
    """Effective wavelength of the filter, Angstrom."""
    names = [wheel.split("_G")[0] for wheel in wheels]
    kept = [n for n in names if n.lower() not in ("open", "blank") and not n.lower().startswith("pup")]
    known = niri_tables().filter_of(kept)
    return 10000 * known.wavelength if known and known.wavelength else 21200.0


def _clock(when: datetime) -> str:
    return f"{when:%H:%M:%S}.{when.microsecond // 100000}"


def _sexagesimal(hours: float, digits: int, *, signed: bool = False) -> str:
    unit = 10**digits
    total = round(abs(hours) * 3600 * unit)
    seconds, fraction = divmod(total, unit)
    sign = ("-" if hours < 0 else "+") if signed else ""
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{sign}{clock}.{fraction:0{digits}d}"
