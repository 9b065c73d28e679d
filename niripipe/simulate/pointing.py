"""Where a simulated frame looks, and where a piece of sky falls on it.

Written from the definitions (FITS WCS paper II for the tangent projection) and not taken from
`niripipe.instruments`: a sign that is wrong there must not be wrong here in the same way.

Parity: on port 1 without AO the image is mirrored, so that East is right when North is up; elsewhere East is
left. +Q moves the telescope towards the position angle, +P towards the position angle + 90 degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Affine", "TangentWcs", "offset_pointing"]

Float64 = NDArray[np.float64]
_ARCSEC = math.pi / 180 / 3600


@dataclass(frozen=True, slots=True)
class TangentWcs:
    """World coordinates of a frame: gnomonic projection and a linear map.

    Attributes
    ----------
    crpix : tuple of float
        Reference pixel (x, y), 1-based as in a header.
    crval : tuple of float
        RA and Dec there, degrees.
    cd : tuple of float
        CD1_1, CD1_2, CD2_1, CD2_2, degrees per pixel.
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[float, float, float, float]

    @classmethod
    def oriented(
        cls,
        crpix: tuple[float, float],
        crval: tuple[float, float],
        scale: float,
        position_angle: float,
        *,
        mirrored: bool,
    ) -> TangentWcs:
        """Build it from a pixel scale (arcsec) and the position angle of +y (degrees East of North)."""
        step, angle = scale / 3600, math.radians(position_angle)
        # Unit vectors on the sky (East, North): +y looks along the position angle, +x a quarter turn from it,
        # clockwise (West for angle 0) unless the image is mirrored.
        sense = 1.0 if mirrored else -1.0
        x = (sense * math.cos(angle), -sense * math.sin(angle))
        y = (math.sin(angle), math.cos(angle))
        return cls(crpix, crval, (step * x[0], step * y[0], step * x[1], step * y[1]))

    def to_sky(self, x: ArrayLike, y: ArrayLike) -> tuple[Float64, Float64]:
        """Convert 0-based pixel positions to RA and Dec in degrees."""
        dx = np.asarray(x, float) - (self.crpix[0] - 1)
        dy = np.asarray(y, float) - (self.crpix[1] - 1)
        a, b, c, d = np.radians(self.cd)
        return _deproject(a * dx + b * dy, c * dx + d * dy, *self.crval)

    def to_pixel(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Float64, Float64]:
        """Convert RA and Dec in degrees to 0-based pixel positions."""
        xi, eta = _project(np.asarray(ra, float), np.asarray(dec, float), *self.crval)
        a, b, c, d = np.radians(self.cd)
        det = a * d - b * c
        x = (d * xi - b * eta) / det + self.crpix[0] - 1
        y = (a * eta - c * xi) / det + self.crpix[1] - 1
        return x, y


class Affine(NamedTuple):
    """How a field moved on the detector: turned by `rotation` about the centre of the array, then shifted.

    Attributes
    ----------
    dx, dy : float
        Shift of the centre of the array, pixels.
    rotation : float
        Counter-clockwise in pixel axes, radians.
    centre : float
        x and y of the centre of the array, 0-based.
    """

    dx: float
    dy: float
    rotation: float
    centre: float

    @classmethod
    def between(cls, base: TangentWcs, frame: TangentWcs, size: int) -> Affine:
        """Find the motion of the field from the base pointing to another.

        The convergence of the meridians turns the field by some 1e-4 radians in a dither at high declination,
        which moves the corners by several hundredths of a pixel. Higher terms are below 1e-5 pixel.
        """
        centre, arm = (size - 1) / 2, size / 4
        x, y = frame.to_pixel(*base.to_sky([centre - arm, centre, centre + arm], [centre] * 3))
        turn = math.atan2(y[2] - y[0], x[2] - x[0])
        return cls(float(x[1] - centre), float(y[1] - centre), turn, centre)

    def apply(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Convert positions at the base pointing to positions in the frame (pixels, 0-based)."""
        u, v = x - self.centre, y - self.centre
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return cos * u - sin * v + self.centre + self.dx, sin * u + cos * v + self.centre + self.dy

    def invert(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Convert positions in the frame to positions at the base pointing (pixels, 0-based)."""
        u, v = x - (self.centre + self.dx), y - (self.centre + self.dy)
        cos, sin = math.cos(self.rotation), math.sin(self.rotation)
        return cos * u + sin * v + self.centre, cos * v - sin * u + self.centre


def offset_pointing(
    crval: tuple[float, float], p: float, q: float, position_angle: float
) -> tuple[float, float]:
    """Move the telescope by instrument offsets.

    Parameters
    ----------
    crval : tuple of float
        RA and Dec, degrees.
    p, q : float
        arcsec.
    position_angle : float
        Degrees East of North.

    Returns
    -------
    tuple of float
        RA and Dec, degrees.
    """
    angle = math.radians(position_angle)
    east = (p * math.cos(angle) + q * math.sin(angle)) * _ARCSEC
    north = (-p * math.sin(angle) + q * math.cos(angle)) * _ARCSEC
    ra, dec = _deproject(np.array(east), np.array(north), *crval)
    return float(ra), float(dec)


def _deproject(xi: Float64, eta: Float64, ra0: float, dec0: float) -> tuple[Float64, Float64]:
    sin0, cos0 = math.sin(math.radians(dec0)), math.cos(math.radians(dec0))
    along = cos0 - eta * sin0
    ra = ra0 + np.degrees(np.arctan2(xi, along))
    dec = np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, along)))
    return ra % 360.0, dec


def _project(ra: Float64, dec: Float64, ra0: float, dec0: float) -> tuple[Float64, Float64]:
    turn, lat = np.radians(ra - ra0), np.radians(dec)
    sin0, cos0 = math.sin(math.radians(dec0)), math.cos(math.radians(dec0))
    depth = np.sin(lat) * sin0 + np.cos(lat) * cos0 * np.cos(turn)
    xi = np.cos(lat) * np.sin(turn) / depth
    eta = (np.sin(lat) * cos0 - np.cos(lat) * sin0 * np.cos(turn)) / depth
    return xi, eta
