"""The gnomonic projection, with which an image shows a small part of the sky, and the distortion before it.

This does what `astropy.wcs` does for the plain case: its import alone takes longer than the alignment of a
night. Formulas: Calabretta & Greisen 2002, A&A 395, 1077.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.distortion import Distortion

__all__ = ["TangentPlane"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TangentPlane:
    """World coordinates of axes ``RA---TAN`` and ``DEC--TAN`` with the default LONPOLE.

    Attributes
    ----------
    crpix : tuple of float
        Reference pixel (x, y), 1-based.
    crval : tuple of float
        Right ascension and declination of the reference pixel, degrees.
    cd : tuple of float
        CD1_1, CD1_2, CD2_1, CD2_2 in degrees per pixel; a regular matrix.
    radesys : str
        Reference frame, as in RADESYS.
    equinox : float
        Years; NaN where the frame needs none.
    distortion : Distortion or None
        What moves the pixels before the plane is applied to them; its centre need not be `crpix`.
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[float, float, float, float]
    radesys: str = "FK5"
    equinox: float = 2000.0
    distortion: Distortion | None = None

    @property
    def has_distortion(self) -> bool:
        """Whether there is a distortion; named as in `astropy.wcs.WCS`."""
        return self.distortion is not None

    @property
    def undistorted(self) -> TangentPlane:
        """The plane alone, for positions without distortion."""
        return self if self.distortion is None else replace(self, distortion=None)

    @property
    def pixel_scale_matrix(self) -> _Floats:
        """The CD matrix, float64, shape (2, 2), degrees per pixel."""
        return np.reshape(self.cd, (2, 2))

    def all_pix2world(self, x: ArrayLike, y: ArrayLike, origin: int) -> tuple[_Floats, _Floats]:
        """Convert pixel positions to celestial ones.

        Parameters
        ----------
        x, y : array_like
            Pixels; they are broadcast together.
        origin : int
            Coordinates of the centre of the first pixel: 0, or 1 as in headers.

        Returns
        -------
        lon, lat : numpy.ndarray
            Right ascension and declination, float64, degrees. Right ascensions are 0 to 360, or -360 to 0
            where that of the reference pixel is negative.
        """
        a, b, c, d = self._signed_cd()
        px, py = np.asarray(x, float) - origin, np.asarray(y, float) - origin
        if self.distortion is not None:
            px, py = self.distortion.undistort(px, py)
        dx, dy = px - (self.crpix[0] - 1), py - (self.crpix[1] - 1)
        xi, eta = np.radians(a * dx + b * dy), np.radians(c * dx + d * dy)
        lon0, lat0 = self.crval
        sin0, cos0 = math.sin(math.radians(lat0)), math.cos(math.radians(lat0))
        along = cos0 - eta * sin0
        lat = np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(xi, along)))
        lon = lon0 + np.degrees(np.arctan2(xi, along))
        lon = np.where(lon < 0, lon + 360, lon) if lon0 >= 0 else np.where(lon > 0, lon - 360, lon)
        return np.where(np.abs(lon) > 360, lon - np.copysign(360, lon), lon), lat

    def all_world2pix(self, lon: ArrayLike, lat: ArrayLike, origin: int) -> tuple[_Floats, _Floats]:
        """Convert celestial positions to pixel ones.

        Parameters
        ----------
        lon, lat : array_like
            Right ascension and declination, degrees; they are broadcast together.
        origin : int
            Coordinates of the centre of the first pixel: 0, or 1 as in headers.

        Returns
        -------
        x, y : numpy.ndarray
            Pixels, float64; NaN for positions 90 degrees and more from the reference pixel.
        """
        # Differences of angles, rather than of products of their sines, keep all digits near the centre; and
        # the distance from the pole those near it. What is close to 360 is exact when 360 is taken off first.
        lon0, lat_deg = self.crval[0], np.asarray(lat, float)
        turns = np.rint((np.asarray(lon, float) - lon0) / 360)
        turn = np.radians(np.asarray(lon, float) - 360 * turns - lon0)
        up, lat0 = np.radians(lat_deg - self.crval[1]), math.radians(self.crval[1])
        cos_lat = np.sin(np.radians(90 - np.abs(lat_deg)))
        versine = 2 * np.sin(turn / 2) ** 2 * cos_lat
        towards = np.cos(up) - versine * math.cos(lat0)
        towards = np.where(towards > 0, towards, np.nan)
        xi = np.degrees(cos_lat * np.sin(turn) / towards)
        eta = np.degrees((np.sin(up) + versine * math.sin(lat0)) / towards)
        a, b, c, d = self._signed_cd()
        det = a * d - b * c
        x = (d * xi - b * eta) / det + (self.crpix[0] - 1)
        y = (a * eta - c * xi) / det + (self.crpix[1] - 1)
        if self.distortion is not None:
            x, y = self.distortion.distort(x, y)
        return x + origin, y + origin

    def about(self, x: float, y: float) -> TangentPlane:
        """Return the plane of the same sky whose reference pixel is another one.

        Parameters
        ----------
        x, y : float
            The new reference pixel, 0-based, without distortion.

        Returns
        -------
        TangentPlane
            With the same distortion. One plane is not exactly another one: for a reference pixel 1 arcmin
            away the positions over a NIRI field differ by less than 1e-4 pixel.
        """
        plane = self.undistorted
        lon, lat = (float(value) for value in plane.all_pix2world(x, y, 0))
        unit = TangentPlane((1.0, 1.0), (lon, lat), (1.0, 0.0, 0.0, 1.0))
        step = 100.0
        sky = plane.all_pix2world([x + step, x - step, x, x], [y, y, y + step, y - step], 0)
        xi, eta = unit.all_world2pix(*sky, 0)
        a, c = (xi[0] - xi[1]) / (2 * step), (eta[0] - eta[1]) / (2 * step)
        b, d = (xi[2] - xi[3]) / (2 * step), (eta[2] - eta[3]) / (2 * step)
        cd = (float(a), float(b), float(c), float(d))
        return replace(self, crpix=(x + 1, y + 1), crval=(lon, lat), cd=cd)

    def _signed_cd(self) -> tuple[float, float, float, float]:
        """Return CD, turned by 180 degrees at the North pole, where LONPOLE is 0 by default."""
        a, b, c, d = self.cd
        return (a, b, c, d) if self.crval[1] < 90 else (-a, -b, -c, -d)
