"""The gnomonic projection, with which an image without distortions shows a small part of the sky.

This does what `astropy.wcs` does for the plain case: its import alone takes longer than the alignment of a
night. Formulas: Calabretta & Greisen 2002, A&A 395, 1077.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TangentPlane"]

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TangentPlane:
    """World coordinates of axes ``RA---TAN`` and ``DEC--TAN`` with the default LONPOLE, without distortions.

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
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[float, float, float, float]
    radesys: str = "FK5"
    equinox: float = 2000.0

    @property
    def has_distortion(self) -> bool:
        """False: named as in `astropy.wcs.WCS`."""
        return False

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
        dx = np.asarray(x, float) - origin - (self.crpix[0] - 1)
        dy = np.asarray(y, float) - origin - (self.crpix[1] - 1)
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
        x = (d * xi - b * eta) / det + (self.crpix[0] - 1) + origin
        y = (a * eta - c * xi) / det + (self.crpix[1] - 1) + origin
        return x, y

    def _signed_cd(self) -> tuple[float, float, float, float]:
        """Return CD, turned by 180 degrees at the North pole, where LONPOLE is 0 by default."""
        a, b, c, d = self.cd
        return (a, b, c, d) if self.crval[1] < 90 else (-a, -b, -c, -d)
