"""The model of where a frame is: target, offsets, orientation, pixels, as plain numbers.

Instrument offsets (P, Q) become East and North by the position angle (`east_north`), and pixels by the CD
matrix of the frame (`pixel_shift`). They lie along the axes of the pixels only where the rotator followed the
sky.

Conventions (checked on raw frames of 2003 to 2021): +Q moves the telescope towards position angle PA and +P
towards PA + 90 degrees; with PA = 0 and the image not mirrored, North is up (+y) and East is left (-x).
"""

from __future__ import annotations

import math

__all__ = [
    "angular_separation",
    "cd_matrix",
    "east_north",
    "offset_position",
    "orientation",
    "pixel_shift",
    "position_at",
    "separation_east_north",
    "telescope_offset",
]

Matrix = tuple[float, float, float, float]
"""CD1_1, CD1_2, CD2_1, CD2_2, degrees per pixel."""


def cd_matrix(scale: float, position_angle: float, *, mirrored: bool) -> Matrix:
    """Return the CD matrix of an undistorted image.

    Parameters
    ----------
    scale : float
        arcsec/pixel.
    position_angle : float
        Of +y, degrees East of North.
    mirrored : bool
        See `is_mirrored`.

    Returns
    -------
    tuple of float
        CD1_1, CD1_2, CD2_1, CD2_2, degrees per pixel.
    """
    size, angle = scale / 3600.0, math.radians(position_angle)
    cos, sin = size * math.cos(angle), size * math.sin(angle)
    return (cos, sin, -sin, cos) if mirrored else (-cos, sin, sin, cos)


def orientation(cd: Matrix) -> float:
    """Return the direction of +y on the sky, degrees East of North."""
    return math.degrees(math.atan2(cd[1], cd[3]))


def position_at(ra: float, dec: float, distance: float, position_angle: float) -> tuple[float, float]:
    """Go a distance along a great circle.

    Parameters
    ----------
    ra, dec : float
        Start, degrees.
    distance : float
        arcsec; negative goes the other way.
    position_angle : float
        Direction, degrees East of North.

    Returns
    -------
    tuple of float
        RA (0 to 360) and Dec, degrees.
    """
    arc, angle, lat = math.radians(distance / 3600.0), math.radians(position_angle), math.radians(dec)
    sine = math.sin(lat) * math.cos(arc) + math.cos(lat) * math.sin(arc) * math.cos(angle)
    across = math.sin(angle) * math.sin(arc)
    along = math.cos(lat) * math.cos(arc) - math.sin(lat) * math.sin(arc) * math.cos(angle)
    # atan2 rather than asin keeps the precision near the poles.
    return (
        (ra + math.degrees(math.atan2(across, along))) % 360.0,
        math.degrees(math.atan2(sine, math.hypot(across, along))),
    )


def offset_position(ra: float, dec: float, p: float, q: float, position_angle: float) -> tuple[float, float]:
    """Apply instrument offsets to a position: Q along PA, then P along PA + 90 degrees.

    Parameters
    ----------
    ra, dec, position_angle : float
        Degrees.
    p, q : float
        arcsec.

    Returns
    -------
    tuple of float
        RA and Dec, degrees.
    """
    return position_at(*position_at(ra, dec, q, position_angle), p, position_angle + 90.0)


def angular_separation(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Return the distance of two positions (degrees) in arcsec, accurate at all distances (Vincenty 1975)."""
    lat1, lat2, turn = math.radians(dec1), math.radians(dec2), math.radians(ra2 - ra1)
    across = math.cos(lat2) * math.sin(turn)
    up = math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(turn)
    along = math.sin(lat1) * math.sin(lat2) + math.cos(lat1) * math.cos(lat2) * math.cos(turn)
    return 3600.0 * math.degrees(math.atan2(math.hypot(across, up), along))


def separation_east_north(ra1: float, dec1: float, ra2: float, dec2: float) -> tuple[float, float]:
    """Return how far the second of two positions (degrees) is East and North of the first, arcsec.

    Length and direction are those of the great circle at the first position.
    """
    lat1, lat2, turn = math.radians(dec1), math.radians(dec2), math.radians(ra2 - ra1)
    east = math.cos(lat2) * math.sin(turn)
    north = math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(turn)
    length = math.hypot(east, north)
    if length == 0.0:
        return 0.0, 0.0
    distance = angular_separation(ra1, dec1, ra2, dec2)
    return distance * east / length, distance * north / length


def telescope_offset(
    ra_offset: float, dec_offset: float, position_angle: float, *, old: bool
) -> tuple[float, float]:
    """Turn ``RAOFFSET`` and ``DECOFFSE`` into the instrument offsets (P, Q).

    Parameters
    ----------
    ra_offset, dec_offset : float
        As in the header, arcsec.
    position_angle : float
        Degrees.
    old : bool
        Whether the frame is from before 2014.

    Returns
    -------
    tuple of float
        P and Q, arcsec.

    Notes
    -----
    By headers of Gemini instruments that hold both pairs (2005 to 2024): since 2014 the pair is the offset on
    the sky, see `east_north`. Before, RAOFFSET = Q sin PA - P cos PA and DECOFFSE = -P sin PA - Q cos PA:
    the sign is reversed and the turn goes the other way, so that the pair is no offset in right ascension
    and declination unless PA is a multiple of 90 degrees.
    """
    cos, sin = math.cos(math.radians(position_angle)), math.sin(math.radians(position_angle))
    if old:
        return -ra_offset * cos - dec_offset * sin, ra_offset * sin - dec_offset * cos
    return ra_offset * cos - dec_offset * sin, ra_offset * sin + dec_offset * cos


def east_north(p: float, q: float, position_angle: float) -> tuple[float, float]:
    """Turn instrument offsets into offsets on the sky: Q is along PA, P along PA + 90 degrees.

    Parameters
    ----------
    p, q : float
        arcsec.
    position_angle : float
        Degrees East of North.

    Returns
    -------
    tuple of float
        East and North, arcsec.
    """
    cos, sin = math.cos(math.radians(position_angle)), math.sin(math.radians(position_angle))
    return p * cos + q * sin, q * cos - p * sin


def pixel_shift(east: float, north: float, cd: Matrix) -> tuple[float, float]:
    """Return by how much sources move on the detector when the telescope moves.

    Parameters
    ----------
    east, north : float
        Motion of the telescope, arcsec (small; the sky is taken for flat).
    cd : tuple of float
        CD1_1, CD1_2, CD2_1, CD2_2 of the frame, degrees per pixel.

    Returns
    -------
    tuple of float
        Motion of the sources in x and y, pixels.
    """
    a, b, c, d = (3600.0 * value for value in cd)
    det = a * d - b * c
    # Adding 0 makes 0 of -0.
    return (b * north - d * east) / det + 0.0, (c * east - a * north) / det + 0.0
