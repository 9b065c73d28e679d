"""Where a frame looks: target, offsets, orientation, and the world coordinates that follow from them.

The raw headers state the pointing twice: as a WCS (in the extension and again in the primary header) and as
target, offsets, position angle, camera and port. The functions here compare the two and build the WCS from
the second when the first is broken. The arithmetic is in `niripipe.instruments.position`.
"""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from niripipe.astrodata import TangentPlane
from niripipe.astrodata.wcs import LinearTerms
from niripipe.errors import DataError
from niripipe.instruments.headers import Header, find_date, get_float, get_text
from niripipe.instruments.pointing_group import Aim
from niripipe.instruments.position import (
    angular_separation,
    cd_matrix,
    east_north,
    offset_position,
    orientation,
    pixel_shift,
    position_at,
    separation_east_north,
    telescope_offset,
)
from niripipe.instruments.tables import niri_tables

if TYPE_CHECKING:
    from niripipe.instruments.niri import AstroDataNiri

__all__ = [
    "aim",
    "angular_separation",
    "cd_matrix",
    "detector_offset",
    "east_north",
    "expected_position",
    "header_wcs",
    "is_mirrored",
    "is_plausible",
    "nominal_cd",
    "offset_position",
    "on_sky",
    "orientation",
    "pixel_shift",
    "position_at",
    "raw_wcs",
    "rotator_follows",
    "separation_east_north",
    "sky_motion",
    "sky_offset",
    "target_position",
    "telescope_offset",
    "to_icrs",
    "usable_copies",
    "wcs_from_pointing",
    "wcs_is_consistent",
]


_SAME_OFFSET = 0.5
"""Lengths of an offset by two pairs of keywords agree to this, arcsec; 0.05 in real headers."""


_SAME_ANGLE = 2.0
"""Position angle and CD matrix agree to this, degrees; 0.4 in real headers."""


class HeaderWcs(NamedTuple):
    """The WCS of a raw frame as its headers mean it.

    Attributes
    ----------
    wcs : LinearTerms
        With the reference pixel on the frame's own pixels.
    origin : str
        ``extension`` or ``primary``: the copy that it is from.
    shift : tuple of float
        What was subtracted from CRPIX1 and CRPIX2, pixels.
    """

    wcs: LinearTerms
    origin: str
    shift: tuple[float, float]


def is_plausible(wcs: LinearTerms | None, camera: str | None) -> bool:
    """Tell whether this can be the WCS of a frame taken with a camera.

    The scale must suit the camera (any NIRI camera, if the name is unknown), the axes be equally scaled
    and perpendicular within 5 per cent, and the reference position be on the sky.
    """
    if wcs is None:
        return False
    known = niri_tables().camera(camera)
    cameras = [known] if known else niri_tables().cameras
    if not any(c.plausible(wcs.scale) for c in cameras):
        return False
    if not (-360.0 <= wcs.crval[0] <= 360.0 and -90.0 <= wcs.crval[1] <= 90.0):
        return False
    a, b, c, d = wcs.cd
    first, second = math.hypot(a, c), math.hypot(b, d)
    limit = niri_tables().pointing.max_distortion
    return abs(a * b + c * d) / (first * second) < limit and abs(first / second - 1.0) < limit


def is_mirrored(inport: int | None, is_ao: bool) -> bool:
    """Tell whether the image is mirrored (East right when North is up).

    It is on the bottom port, unless the light passes through the adaptive optics.
    """
    return inport == niri_tables().pointing.mirrored_port and not is_ao


def to_icrs(frame: str | None, ra: float, dec: float, when: datetime | None) -> tuple[float, float]:
    """Convert a position to ICRS.

    Parameters
    ----------
    frame : str or None
        ``FK5`` (equinox 2000), ``ICRS`` or ``APPT`` (apparent place); anything else is taken as CIRS.
    ra, dec : float
        Degrees.
    when : datetime or None
        UT, needed for anything but FK5 and ICRS; without it the position is returned as it is.

    Returns
    -------
    tuple of float
        RA and Dec, degrees.

    Notes
    -----
    Apparent right ascension counts from the equinox of date, CIRS from the celestial intermediate origin; the
    difference is the equation of the origins (IAU SOFA ``eo06a``).
    """
    name = (frame or "").upper()
    if name == "ICRS":
        return ra, dec
    from astropy.coordinates import CIRS, ICRS, SkyCoord
    from astropy.time import Time

    if name == "FK5":
        place = SkyCoord(ra, dec, unit="deg", frame="fk5", equinox="J2000")
    elif when is None:
        return ra, dec
    else:
        time = Time(when, scale="utc")
        if name == "APPT":
            import erfa  # type: ignore[import-untyped]

            ra += math.degrees(erfa.eo06a(time.tt.jd1, time.tt.jd2))
        place = SkyCoord(ra, dec, unit="deg", frame=CIRS(obstime=time))
    icrs = place.transform_to(ICRS())
    return float(icrs.ra.deg), float(icrs.dec.deg)


def header_wcs(header: Header) -> LinearTerms | None:
    """Read the numbers of a tangent-plane WCS from a header.

    Returns
    -------
    LinearTerms or None
        None unless CTYPE is RA---TAN, DEC--TAN and all of CRPIX, CRVAL and CD are numbers and CD can be
        inverted.
    """
    if (get_text(header, "CTYPE1"), get_text(header, "CTYPE2")) != ("RA---TAN", "DEC--TAN"):
        return None
    keywords = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    numbers = [number for key in keywords if (number := get_float(header, key)) is not None]
    if len(numbers) != len(keywords):
        return None
    x, y, ra, dec, *cd = numbers
    wcs = LinearTerms((x, y), (ra, dec), (cd[0], cd[1], cd[2], cd[3]))
    return wcs if wcs.scale > 0.0 else None


def usable_copies(phu: Header, header: Header | None, camera: str | None) -> list[tuple[LinearTerms, str]]:
    """Return the copies of the WCS that can be believed, that of the extension first.

    Parameters
    ----------
    phu : Header
        The primary header.
    header : Header or None
        The extension header.
    camera : str or None
        Decides which pixel scales are plausible.

    Returns
    -------
    list of tuple of (LinearTerms, str)
        Each WCS and where it is from, ``"extension"`` or ``"primary"``.
    """
    read = [(header_wcs(h), where) for h, where in ((header, "extension"), (phu, "primary")) if h is not None]
    return [(wcs, where) for wcs, where in read if wcs is not None and is_plausible(wcs, camera)]


def raw_wcs(ad: AstroDataNiri, limit_arcsec: float | None = None) -> HeaderWcs | None:
    """Read the WCS of a raw frame: the better copy, with the reference pixel where it belongs.

    Parameters
    ----------
    ad : AstroDataNiri
        A raw data set with one extension, or its slice.
    limit_arcsec : float, optional
        When the copy in the extension points further than this from where the telescope was sent, and that in
        the primary header does not, the latter is taken.

    Returns
    -------
    HeaderWcs or None
        None if neither copy can be true for the camera.
    """
    copies = usable_copies(ad.phu, _first_header(ad), ad.camera())
    if not copies:
        return None
    wcs, origin = copies[0]
    expected = expected_position(ad)
    if len(copies) > 1 and limit_arcsec is not None and expected is not None:
        away, spare_away = (angular_separation(*copy.crval, *expected) for copy, _ in copies)
        if away > limit_arcsec >= spare_away:
            wcs, origin = copies[1]
    shift = ad.subarray_reference_shift()
    moved = wcs._replace(crpix=(wcs.crpix[0] - shift[0], wcs.crpix[1] - shift[1]))
    return HeaderWcs(moved, origin, shift)


def rotator_follows(ad: AstroDataNiri) -> bool:
    """Tell whether the Cassegrain rotator kept the position angle.

    With the adaptive optics it may stand still (``CRFOLLOW = 'no'``): the field then turns, and the position
    angle in the header says nothing about the sky.
    """
    return not ad.is_ao() or (get_text(ad.phu, "CRFOLLOW") or "yes").lower() != "no"


def sky_offset(ad: AstroDataNiri) -> tuple[float, float] | None:
    """Return how far the telescope was sent from the target, as (P, Q) in arcsec.

    Returns
    -------
    tuple of float or None
        ``POFFSET`` and ``QOFFSET``. Frames from before mid-2005 have only ``RAOFFSET`` and ``DECOFFSE``;
        see `telescope_offset`. None if neither pair is there.
    """
    p, q = get_float(ad.phu, "POFFSET"), get_float(ad.phu, "QOFFSET")
    if p is not None and q is not None:
        return p, q
    ra_offset, dec_offset = get_float(ad.phu, "RAOFFSET"), get_float(ad.phu, "DECOFFSE")
    angle, day = ad.position_angle(), find_date(ad.phu)
    if ra_offset is None or dec_offset is None or angle is None:
        return None
    return telescope_offset(ra_offset, dec_offset, angle, old=_is_old(day))


def on_sky(
    ra_offset: float, dec_offset: float, position_angle: float | None, day: date | None
) -> tuple[float, float]:
    """Return the offset East and North, arcsec, that ``RAOFFSET`` and ``DECOFFSE`` of a day mean."""
    if position_angle is None or not _is_old(day):
        return ra_offset, dec_offset
    p, q = telescope_offset(ra_offset, dec_offset, position_angle, old=True)
    return east_north(p, q, position_angle)


def _is_old(day: date | None) -> bool:
    return day is None or day < niri_tables().epochs.offsets_on_sky_since


def sky_motion(ad: AstroDataNiri) -> tuple[float, float] | None:
    """Return how far East and North of the target the telescope was sent, arcsec; None where unknown."""
    offset, angle = sky_offset(ad), ad.position_angle()
    if offset is None:
        return None
    if angle is None:
        wcs = next(iter(ad._linear_wcs()), None)
        angle = None if wcs is None else orientation(wcs.cd)
    return None if angle is None else east_north(*offset, angle)


def detector_offset(ad: AstroDataNiri) -> tuple[float, float] | None:
    """Return by how much the telescope's offset has moved the sources, (x, y) in pixels; None where unknown.

    The offset on the sky (`sky_motion`) becomes pixels through the CD matrix of the frame; without one,
    through that of camera, port and position angle.
    """
    moved, wcs = sky_motion(ad), next(iter(ad._linear_wcs()), None)
    if moved is None:
        return None
    cd = nominal_cd(ad) if wcs is None else wcs.cd
    return None if cd is None else pixel_shift(*moved, cd)


def nominal_cd(ad: AstroDataNiri) -> tuple[float, float, float, float] | None:
    """Return the CD matrix by camera, port and position angle; None if camera or angle is unknown."""
    camera, angle = niri_tables().camera(ad.camera(pretty=True)), ad.position_angle()
    if camera is None or angle is None:
        return None
    scale = camera.scale_ao if ad.is_ao() else camera.scale
    return cd_matrix(scale, angle, mirrored=is_mirrored(ad.port(), ad.is_ao()))


def expected_position(ad: AstroDataNiri, *, apparent: bool = False) -> tuple[float, float] | None:
    """Return where a frame should point: the target moved by the offsets.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set or slice.
    apparent : bool
        Take the target for an apparent place whatever ``FRAME`` says.

    Returns
    -------
    tuple of float or None
        RA and Dec in degrees (FK5 J2000; apparent places are converted), with proper motion. None if target,
        offsets or position angle are missing, or for zenith calibrations, which have no target.
    """
    target, angle, offset = target_position(ad, apparent=apparent), ad.position_angle(), sky_offset(ad)
    if target is None or angle is None or offset is None:
        return None
    return offset_position(*target, *offset, angle)


def target_position(ad: AstroDataNiri, *, apparent: bool = False) -> tuple[float, float] | None:
    """Return the target, see `expected_position`; None where the header has none."""
    frame, ra, dec = get_text(ad.phu, "FRAME"), ad.target_ra(), ad.target_dec()
    if frame == "AZEL_TOPO" or ra is None or dec is None:
        return None
    if apparent or frame == "APPT":
        return to_icrs("APPT", ra, dec, ad._start())
    return ra, dec


def wcs_is_consistent(ad: AstroDataNiri, limit_arcsec: float | None = None) -> bool | None:
    """Tell whether the WCS of a frame points where the telescope was sent.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set (its first extension counts) or slice.
    limit_arcsec : float, optional
        Largest distance allowed; by default the one in the instrument table, 10 arcsec.

    Returns
    -------
    bool or None
        None if there is nothing to compare with (see `expected_position`). False also if there is no
        plausible WCS.

    Notes
    -----
    The target coordinates of moving targets may be apparent places although ``FRAME`` says FK5; agreement
    with either reading counts.
    """
    expected = expected_position(ad)
    if expected is None:
        return None
    ra, dec = ad.wcs_ra(), ad.wcs_dec()
    if ra is None or dec is None:
        return False
    limit = niri_tables().pointing.max_offset if limit_arcsec is None else limit_arcsec
    if angular_separation(ra, dec, *expected) <= limit:
        return True
    if "NON_SIDEREAL" not in ad.tags:
        return False
    apparent = expected_position(ad, apparent=True)
    return apparent is not None and angular_separation(ra, dec, *apparent) <= limit


def aim(ad: AstroDataNiri, limit_arcsec: float) -> Aim:
    """Return what a frame states about its pointing, for `niripipe.instruments.pointing_group.judge`.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set with one extension, raw or prepared.
    limit_arcsec : float
        See `raw_wcs`.
    """
    first = next(iter(ad), None)
    raw = "PREPARED" not in ad.tags and "WCSFIX" not in ad.phu
    stated = raw_wcs(ad, limit_arcsec) if raw else None
    wcs = stated.wcs if stated is not None else None if raw or first is None else first.linear_wcs
    angle = ad.position_angle()
    setting = (
        ad.camera(pretty=True), ad.is_ao(), ad.port(), None if first is None else first.shape,
        None if angle is None else round(angle, 2),
    )  # fmt: skip
    return Aim(
        sequence=ad.object() or ad.observation_id() or "",
        setting=setting,
        wcs=wcs,
        motion=sky_motion(ad),
        confirmed=_confirmed(ad) and _is_oriented(wcs, angle),
        target=target_position(ad),
        moving="NON_SIDEREAL" in ad.tags,
        observation=ad.observation_id() or "",
    )


def _is_oriented(wcs: LinearTerms | None, position_angle: float | None) -> bool:
    """Tell whether the WCS is turned as the position angle says, by which the offsets are turned, too."""
    if wcs is None or position_angle is None:
        return True
    return abs((orientation(wcs.cd) - position_angle + 180.0) % 360.0 - 180.0) < _SAME_ANGLE


def _confirmed(ad: AstroDataNiri) -> bool | None:
    """Tell whether another pair of keywords states an offset of the same length; None without another."""
    stated = sky_offset(ad)
    pairs = [("XOFFSET", "YOFFSET")]
    if get_float(ad.phu, "POFFSET") is not None:
        pairs.append(("RAOFFSET", "DECOFFSE"))
    others = [(get_float(ad.phu, first), get_float(ad.phu, second)) for first, second in pairs]
    lengths = [math.hypot(a, b) for a, b in others if a is not None and b is not None]
    if stated is None or not lengths:
        return None
    return any(abs(length - math.hypot(*stated)) <= _SAME_OFFSET for length in lengths)


def wcs_from_pointing(ad: AstroDataNiri) -> TangentPlane:
    """Build the WCS of a frame from target, offsets, position angle, camera and port.

    Parameters
    ----------
    ad : AstroDataNiri
        A data set (its first extension counts) or slice.

    Returns
    -------
    TangentPlane
        FK5 J2000: CRVAL is `expected_position` (the target itself where offsets are not recorded), the
        scale the nominal one of the camera, parity and orientation as in `cd_matrix`. CRPIX is the header's
        if it lies within the array, else that of camera, port and light path, else the array's centre.

    Raises
    ------
    DataError
        If target, position angle, camera or array shape is unknown.
    """
    camera = niri_tables().camera(ad.camera())
    angle = ad.position_angle()
    crval = expected_position(ad)
    if crval is None:
        target = (ad.target_ra(), ad.target_dec())
        crval = None if target[0] is None or target[1] is None else (target[0], target[1])
    shape: tuple[int, int] | None = next((extension.shape for extension in ad), None)
    missing = {"CAMERA": camera, "PA": angle, "RA, DEC": crval, "image": shape}
    absent = [name for name, value in missing.items() if value is None]
    if camera is None or angle is None or crval is None or shape is None:
        raise DataError(
            "No WCS can be built from the pointing",
            file=ad.filename,
            item=", ".join(absent),
            found="missing or unusable",
            remedy="Give the frame a WCS or leave it out",
        )
    scale = camera.scale_ao if ad.is_ao() else camera.scale
    cd = cd_matrix(scale, angle, mirrored=is_mirrored(ad.port(), ad.is_ao()))
    return TangentPlane(_reference_pixel(ad, shape), crval, cd)


def _reference_pixel(ad: AstroDataNiri, shape: tuple[int, int]) -> tuple[float, float]:
    ny, nx = shape
    shift = ad.subarray_reference_shift()
    for header in (*(extension.hdr for extension in ad), ad.phu):
        x, y = get_float(header, "CRPIX1"), get_float(header, "CRPIX2")
        if x is None or y is None:
            continue
        x, y = x - shift[0], y - shift[1]
        if 0.5 <= x <= nx + 0.5 and 0.5 <= y <= ny + 0.5:
            return x, y
    usual = niri_tables().reference_pixel(ad.camera(pretty=True), ad.is_ao(), ad.port())
    if usual is None:
        return (nx + 1) / 2, (ny + 1) / 2
    chip = niri_tables().detector.size
    return usual[0] - (chip - nx) / 2, usual[1] - (chip - ny) / 2


def _first_header(ad: Any) -> Header | None:
    return next((extension.hdr for extension in ad), None)
