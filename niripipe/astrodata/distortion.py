"""Optical distortion: from pixels of the detector to where they would be without it, and back.

All of it is here: `Distortion` holds the numbers, `Distortion.undistort` and `Distortion.distort` are the two
directions, `to_sip` and `from_sip` the way into FITS headers (Shupe et al. 2005, ASPC 347, 491). World
coordinates apply the tangent plane to what `undistort` returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Distortion", "Terms", "from_sip", "to_sip"]

_Floats = NDArray[np.float64]
Terms = Mapping[tuple[int, int], float]
"""Coefficients of u**p v**q by (p, q); u and v are pixels from the centre."""

# The odd polynomial of order 7 nearest to t**2 on 0 <= t <= 1: coefficients of t, t**3, t**5, t**7. It is off
# by 0.0056 at most and by 0.0039 rms: at k = 1.32e-5 and 724 pixels (the corner of a NIRI array), by 0.038
# and 0.027 pixel. The published k is known to 0.1 pixel there.
_SQUARE = (0.13714, 1.80608, -1.66547, 0.7278)
# Order of the polynomials of the inverse in headers, and the points along a radius that they are fitted to.
_INVERSE_ORDER, _INVERSE_POINTS = 7, 200
# Iterations of the inverse, and the step (pixels) at which it has converged.
_ITERATIONS, _CONVERGED = 60, 1e-10
# Points a side at which areas are looked at.
_AREAS = 64


@dataclass(frozen=True, slots=True)
class Distortion:
    """A distortion, purely radial or a polynomial.

    Attributes
    ----------
    centre : tuple of float
        The fixed point (x, y), 0-based pixels.
    reach : float
        Distance from the centre up to which the distortion is known, pixels. Beyond it a polynomial keeps the
        displacement it has there, so that positions far outside of a frame stay outside.
    radial : float
        k of r' = r + k r**2 per pixel: r on the detector, r' without distortion. Positive is barrel:
        sources appear nearer to the centre than they are.
    x_terms, y_terms : mapping of (int, int) to float
        Instead of `radial`: x' - x and y' - y as sums of u**p v**q.
    """

    centre: tuple[float, float]
    reach: float
    radial: float = 0.0
    x_terms: Terms = field(default_factory=dict)
    y_terms: Terms = field(default_factory=dict)

    def undistort(self, x: ArrayLike, y: ArrayLike) -> tuple[_Floats, _Floats]:
        """Return where pixels of the detector would be without distortion.

        Parameters
        ----------
        x, y : array_like
            0-based pixels.

        Returns
        -------
        x, y : numpy.ndarray of float64
        """
        u, v = self._from_centre(x, y)
        du, dv = self._displacement(u, v)
        return self.centre[0] + u + du, self.centre[1] + v + dv

    def distort(self, x: ArrayLike, y: ArrayLike) -> tuple[_Floats, _Floats]:
        """Return where the detector sees undistorted positions: the inverse of `undistort`.

        Parameters
        ----------
        x, y : array_like
            Undistorted positions, 0-based pixels.

        Returns
        -------
        x, y : numpy.ndarray of float64
            NaN where a polynomial has no inverse.
        """
        u, v = self._from_centre(x, y)
        if self.radial:
            # r + k r**2 = r', solved for r; a pincushion has no solution far beyond any array.
            with np.errstate(invalid="ignore"):
                shrink = 2 / (1 + np.sqrt(1 + 4 * self.radial * np.hypot(u, v)))
            return self.centre[0] + u * shrink, self.centre[1] + v * shrink
        found_u, found_v = u.copy(), v.copy()
        step = np.zeros(u.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_ITERATIONS):
                du, dv = self._displacement(found_u, found_v)
                step = np.maximum(np.abs(u - du - found_u), np.abs(v - dv - found_v))
                found_u, found_v = u - du, v - dv
                if not np.any(step > _CONVERGED):
                    break
        lost = ~(step <= 1e3 * _CONVERGED)
        found_u, found_v = np.where(lost, np.nan, found_u), np.where(lost, np.nan, found_v)
        return self.centre[0] + found_u, self.centre[1] + found_v

    def moved(self, dx: float, dy: float) -> Distortion:
        """Return the distortion of an image whose pixel (x, y) is pixel (x + dx, y + dy) of the old one."""
        return replace(self, centre=(self.centre[0] - dx, self.centre[1] - dy))

    def median_area(self, shape: tuple[int, int]) -> float:
        """Return the median area of an image's pixels without distortion, in undistorted pixels.

        A flat is normalised by its median, and its pixels see light in proportion to their areas.

        Parameters
        ----------
        shape : tuple of int
            Of the image, (ny, nx).
        """
        y, x = (
            axis.ravel()
            for axis in np.meshgrid(*(np.linspace(0, n - 1, _AREAS) for n in shape), indexing="ij")
        )
        right, left = self.undistort(x + 0.5, y), self.undistort(x - 0.5, y)
        above, below = self.undistort(x, y + 0.5), self.undistort(x, y - 0.5)
        (a, c), (b, d) = (
            (plus[0] - minus[0], plus[1] - minus[1]) for plus, minus in ((right, left), (above, below))
        )
        return float(np.median(np.abs(a * d - b * c)))

    def largest(self) -> float:
        """Return the displacement at the edge of what is known, pixels: the largest of eight directions."""
        angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        radius = self.reach if math.isfinite(self.reach) else 0.0
        return float(np.hypot(*self._displacement(radius * np.cos(angle), radius * np.sin(angle))).max())

    def key(self) -> tuple[object, ...]:
        """Return what defines it, to compare and to hash."""
        terms = tuple(sorted(self.x_terms.items())), tuple(sorted(self.y_terms.items()))
        return self.centre, self.reach, self.radial, terms

    def _from_centre(self, x: ArrayLike, y: ArrayLike) -> tuple[_Floats, _Floats]:
        u, v = np.broadcast_arrays(
            np.asarray(x, float) - self.centre[0], np.asarray(y, float) - self.centre[1]
        )
        return u, v

    def _displacement(self, u: _Floats, v: _Floats) -> tuple[_Floats, _Floats]:
        if self.radial:
            stretch = self.radial * np.hypot(u, v)
            return u * stretch, v * stretch
        if math.isfinite(self.reach):
            r = np.hypot(u, v)
            near = np.minimum(1.0, self.reach / np.maximum(r, 1e-9))
            u, v = u * near, v * near
        return polynomial(self.x_terms, u, v), polynomial(self.y_terms, u, v)


def polynomial(terms: Terms, u: _Floats, v: _Floats) -> _Floats:
    """Return the sum of the terms at positions from the centre."""
    total = np.zeros(np.shape(u))
    for (p, q), value in terms.items():
        total += value * u**p * v**q
    return total


def to_sip(distortion: Distortion) -> tuple[Terms, Terms, Terms, Terms]:
    """Return the coefficients of SIP.

    Parameters
    ----------
    distortion : Distortion

    Returns
    -------
    a, b, ap, bp : mapping
        Of the keywords A_p_q, B_p_q (pixels to undistorted) and AP_p_q, BP_p_q (back), pixels.

    Notes
    -----
    r**2 in the direction of (u, v) is no polynomial of u and v. A radial distortion is written as u and v
    times a polynomial of u**2 + v**2, which is within 0.0056 k reach**2 of it, see `_SQUARE`; it has linear
    terms (A_1_0, B_0_1). The inverse is fitted to 0.05 of that or better; `astropy.wcs.WCS.all_world2pix`
    and `Distortion.distort` do not use it.
    """
    reach = distortion.reach
    if distortion.radial:
        forward = [distortion.radial * reach * c / reach ** (2 * n) for n, c in enumerate(_SQUARE)]
        return *_radial_terms(forward), *_radial_terms(_inverse_of(forward, reach))
    back = _fitted_inverse(distortion)
    return distortion.x_terms, distortion.y_terms, *back


def from_sip(
    a: Terms, b: Terms, centre: tuple[float, float], reach: float, radial: float = 0.0
) -> Distortion:
    """Return the distortion that SIP keywords say.

    Parameters
    ----------
    a, b : mapping
        Of the keywords A_p_q, B_p_q.
    centre : tuple of float
        CRPIX - 1.
    reach : float
        Distance from the centre to the farthest pixel; infinite where unknown.
    radial : float
        k of a radial distortion which the polynomial stands for. It is believed if its polynomial is the one
        of the keywords; else they count alone.
    """
    if radial and math.isfinite(reach):
        exact = Distortion(centre, reach, radial)
        ours = to_sip(exact)[:2]
        grid = np.linspace(-reach / math.sqrt(2), reach / math.sqrt(2), 9)
        u, v = np.meshgrid(grid, grid)
        off = [polynomial(t, u, v) - polynomial(o, u, v) for t, o in zip((a, b), ours, strict=True)]
        if max(float(np.abs(part).max()) for part in off) < 1e-4:
            return exact
    return Distortion(centre, reach, 0.0, dict(a), dict(b))


def _radial_terms(coefficients: list[float]) -> tuple[Terms, Terms]:
    """Return the terms of u and v times the sum of c_n (u**2 + v**2)**n."""
    along_x: dict[tuple[int, int], float] = {}
    for n, c in enumerate(coefficients):
        for i in range(n + 1):
            along_x[2 * i + 1, 2 * (n - i)] = c * math.comb(n, i)
    return along_x, {(q, p): value for (p, q), value in along_x.items()}


def _inverse_of(forward: list[float], reach: float) -> list[float]:
    """Return the coefficients of the inverse of a radial polynomial, by least squares along a radius."""
    r = reach * np.cos((np.arange(_INVERSE_POINTS) + 0.5) * np.pi / (2 * _INVERSE_POINTS))
    image = r * (1 + sum(c * r ** (2 * n) for n, c in enumerate(forward)))
    t = image / reach
    design = np.stack([t ** (2 * n + 1) for n in range((_INVERSE_ORDER + 1) // 2)], axis=1)
    found = np.linalg.lstsq(design, r - image, rcond=None)[0]
    return [float(c) / reach ** (2 * n + 1) for n, c in enumerate(found)]


def _fitted_inverse(distortion: Distortion) -> tuple[Terms, Terms]:
    """Return the terms of the inverse of a polynomial, by least squares over what is known."""
    order = max([p + q for p, q in [*distortion.x_terms, *distortion.y_terms]], default=0) + 2
    order = min(order, _INVERSE_ORDER)
    reach = distortion.reach if math.isfinite(distortion.reach) else 512.0
    grid = np.linspace(-reach, reach, 41) / math.sqrt(2)
    u, v = (part.ravel() for part in np.meshgrid(grid, grid))
    x, y = distortion.undistort(u + distortion.centre[0], v + distortion.centre[1])
    x, y = x - distortion.centre[0], y - distortion.centre[1]
    powers = [(p, n - p) for n in range(1, order + 1) for p in range(n + 1)]
    design = np.stack([(x / reach) ** p * (y / reach) ** q for p, q in powers], axis=1)
    terms: list[Terms] = []
    for wanted in (u - x, v - y):
        found = np.linalg.lstsq(design, wanted, rcond=None)[0].tolist()
        terms.append({(p, q): c / reach ** (p + q) for (p, q), c in zip(powers, found, strict=True)})
    return terms[0], terms[1]
