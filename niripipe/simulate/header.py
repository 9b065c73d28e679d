"""Headers of raw NIRI frames, for every epoch, in the order in which the telescope writes them.

The single place that knows the raw format: two header units, a primary one without pixels that describes
everything, and an unnamed image extension with EXTVER = -1. The cards are listed in ``header.toml``; the
values that differ from frame to frame are computed here.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

from astropy.io import fits

from niripipe.instruments.headers import decimal_year
from niripipe.instruments.tables import niri_tables
from niripipe.simulate.pointing import TangentWcs, offset_pointing
from niripipe.simulate.sequence import Exposure
from niripipe.simulate.settings import Setup

__all__ = ["airmasses", "frame_wcs", "raw_headers"]

#: Maunakea, degrees.
_LATITUDE, _LONGITUDE = 19.8238, -155.4690
#: Where the pointing falls on the full frame (1-based), on the side port and on the bottom port.
_POINTING_SIDE, _POINTING_BOTTOM = (545.186, 489.049), (527.925, 499.601)
#: From this day on headers say how the telescope tracked.
_TRACKING_SINCE = date(2004, 1, 1)
#: From this day on RAOFFSET and DECOFFSE are East and North; before, they are reversed and turned.
_OFFSETS_ON_SKY = date(2014, 1, 1)
#: A frame ends this long after the light has been collected, s.
_READ_TIME = 1.5
#: Voltage VDDUC, from which the bias is counted.
_DRAIN = -3.49
_TYPES = {"flat_on": "FLAT", "flat_off": "FLAT", "dark": "DARK", "short_dark": "DARK"}
_CLASSES = {"target": "science", "sky": "science", "std": "partnerCal"}
#: What the guide probe did; on offset skies the guide star is out of reach.
_PROBE_STATES = {"target": "guiding", "std": "guiding", "sky": "frozen"}


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


def raw_headers(exposure: Exposure, setup: Setup) -> tuple[fits.Header, fits.Header]:
    """Write the headers of a frame.

    Parameters
    ----------
    exposure : Exposure
        The frame.
    setup : Setup
        The instrument's setting.

    Returns
    -------
    primary : astropy.io.fits.Header
        About 150 cards (130 before July 2006), `FRAME` twice as in real frames.
    extension : astropy.io.fits.Header
        Header of the image extension.
    """
    values = {
        # Header cards may name any field of the exposure and the setting.
        **asdict(setup),
        **asdict(exposure),
        **_identification(exposure),
        **_target(exposure),
        **_times(exposure),
        **_offsets(exposure, setup),
        **_instrument(exposure, setup),
        **_world_coordinates(exposure, setup),
    }
    conditions = _conditions(exposure, setup)
    day = exposure.start.date()
    # From a list of cards, so that a keyword may come twice.
    primary, extension = (
        fits.Header(list(_cards(_template()[unit], values, conditions, day)))
        for unit in ("primary", "extension")
    )
    return primary, extension


@cache
def _template() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("header.toml").read_text(encoding="utf-8"))


def _cards(
    listed: list[list[Any]], values: Mapping[str, Any], conditions: set[str], day: date
) -> Iterator[fits.Card]:
    """Return the cards that a frame has, with its values."""
    for keyword, value, comment, *rest in listed:
        limits = rest[0] if rest else {}
        wanted = limits.get("if", "")
        is_met = wanted.removeprefix("not ") in conditions
        if day < limits.get("since", date.min) or (wanted and is_met == wanted.startswith("not ")):
            continue
        computed = isinstance(value, str) and value.startswith("=")
        yield fits.Card(keyword, values[value[1:]] if computed else value, comment)


def _conditions(frame: Exposure, setup: Setup) -> set[str]:
    """Return the conditions of ``header.toml`` that a frame meets."""
    switches = {"sky": frame.on_sky, "guided": frame.on_sky and not setup.ao, "ao": setup.ao}
    met = {name for name, is_on in switches.items() if is_on}
    return met | {frame.kind, setup.camera, f"port {setup.port}", _TYPES.get(frame.kind, "").lower()}


def _margin(setup: Setup) -> int:
    """Pixels between the edge of the full frame and that of the centred subarray."""
    return (niri_tables().detector.size - setup.size) // 2


def _identification(frame: Exposure) -> dict[str, Any]:
    programme = f"GN-{_semester(frame.start.date())}-Q-91"
    observation = f"{programme}-{frame.observation}"
    return {
        "object": frame.field.name,
        "type": _TYPES.get(frame.kind, "OBJECT"),
        "class": _CLASSES.get(frame.kind, "dayCal"),
        "programme": programme,
        "observation": observation,
        "label": f"{observation}-{frame.number:03d}",
        "frame_name": f"{frame.name.removesuffix('.fits')}:0",
        "release": _release(frame),
    }


def _target(frame: Exposure) -> dict[str, Any]:
    """Return where the telescope pointed at the start, and the airmass at both ends."""
    sidereal, ra, dec = _sidereal_time(frame.start), frame.field.ra, frame.field.dec
    hour_angle, azimuth, elevation, start, end = 0.0, 75.0, 89.9995, 1.0, 1.0
    if frame.on_sky:
        hour_angle, azimuth, elevation = _horizontal(sidereal, ra, dec)
        start, end = airmasses(frame)
    tracked = frame.start.date() >= _TRACKING_SINCE
    return {
        "ra": ra,
        "dec": dec,
        "guide_ra": ra + 0.04,
        "guide_dec": dec + 0.07,
        "elevation": elevation,
        "azimuth": azimuth,
        "hour_angle": _sexagesimal(hour_angle / 15, 2, signed=True),
        "sidereal_time": _sexagesimal(sidereal, 1),
        "airmass": round((start + end) / 2, 3),
        "airmass_start": round(start, 3),
        "airmass_end": round(end, 3),
        "tracking_frame": "FK5" if tracked else "",
        "tracking_epoch": _mjd(frame.start) if tracked else 0.0,
    }


def airmasses(frame: Exposure) -> tuple[float, float]:
    """Return the airmass at the start and at the end of a frame on the sky."""
    sidereal = _sidereal_time(frame.start)
    start, end = (
        _airmass(_horizontal(time, frame.field.ra, frame.field.dec)[2])
        for time in (sidereal, sidereal + frame.seconds / 3600)
    )
    return start, end


def _times(frame: Exposure) -> dict[str, Any]:
    return {
        "ut": _clock(frame.start),
        "ut_end": _clock(frame.start + timedelta(seconds=frame.seconds + _READ_TIME)),
        "local_time": _clock(frame.start - timedelta(hours=10, seconds=1)),
        "date": f"{frame.start:%Y-%m-%d}",
        "mjd": _mjd(frame.start),
        "epoch": round(decimal_year(frame.start), 8),
    }


def _offsets(frame: Exposure, setup: Setup) -> dict[str, Any]:
    angle = math.radians(setup.position_angle)
    cos, sin = math.cos(angle), math.sin(angle)
    offset = frame.p * cos + frame.q * sin, frame.q * cos - frame.p * sin
    if frame.start.date() < _OFFSETS_ON_SKY:
        offset = frame.q * sin - frame.p * cos, -frame.p * sin - frame.q * cos
    # XOFFSET and YOFFSET as in frames of 2003 and 2007 from the side port.
    return {"x_offset": -frame.q, "ra_offset": offset[0], "dec_offset": offset[1]}


def _instrument(frame: Exposure, setup: Setup) -> dict[str, Any]:
    day = frame.start.date()
    wheels = setup.wheels(day)
    lnrs, ndavgs = setup.reads
    state = _PROBE_STATES.get(frame.kind, "parked")
    return {
        "filter1": wheels[0],
        "filter2": wheels[1],
        "filter3": wheels[2],
        "wavelength": _guiding_wavelength(wheels),
        "lnrs": lnrs,
        "ndavgs": ndavgs,
        "pwfs2_state": "parked" if setup.ao else state,
        "aowfs_state": state if setup.ao else "parked",
        "drain": _DRAIN,
        "detector_bias": round(_DRAIN - setup.bias, 3),
        "bitpix": -32 if setup.pixels(day) == "float32" else 32,
        "last": setup.size - 1,
    }


def _world_coordinates(frame: Exposure, setup: Setup) -> dict[str, float]:
    wcs = frame_wcs(frame, setup)
    if frame.start.date() < niri_tables().epochs.subarray_crpix_since:
        # Headers of early subarrays state the reference pixel on the full frame.
        cut = _margin(setup)
        wcs = replace(wcs, crpix=(wcs.crpix[0] + cut, wcs.crpix[1] + cut))
    names = ("crpix1", "crpix2", "crval1", "crval2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")
    return dict(zip(names, (*wcs.crpix, *wcs.crval, *wcs.cd), strict=True))


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
