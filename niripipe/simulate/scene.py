"""What is on the sky: stars and a galaxy, in electrons per second at the base pointing of a field."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niripipe.simulate.pointing import Affine, TangentWcs
from niripipe.simulate.psf import add_stars, moffat_radius
from niripipe.simulate.reality import FrameReality, distort, pixel_area, profile, trail, undistort
from niripipe.simulate.settings import NightPlan

__all__ = ["Galaxy", "Scene", "Star", "make_scene"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Fluxes of field stars, e-/s: N(> F) falls as F^-0.6 between these.
_FAINTEST, _BRIGHTEST, _SLOPE = 700.0, 90000.0, 0.6
#: A star this bright reaches S/N 100 in the tutorial's stack; half of those are kept clear of neighbours.
_BRIGHT = 5000.0
#: Haloes wider than this are smooth over a pixel, FWHM in pixels.
_WIDE = 20.0
#: A clear star has no neighbour within this many FWHM.
_CLEAR = 7.0


@dataclass(frozen=True, slots=True)
class Star:
    """A star: position (0-based pixels) at the base pointing, and flux (e-/s)."""

    x: float
    y: float
    flux: float


@dataclass(frozen=True, slots=True)
class Galaxy:
    """An inclined disc with a bulge, as it appears through the seeing.

    Surface brightness, in e-/s per pixel at elliptical radius m (m^2 = u^2 + (v / axis_ratio)^2 with u along
    the major axis): ``disc * exp(-sqrt(m^2 + s^2) / scale) + bulge * (1 + m^2 / core^2)^-1.5``, with s =
    scale / 8, which rounds off the centre.

    Attributes
    ----------
    x, y : float
        Centre at the base pointing, 0-based pixels.
    disc, bulge : float
        Brightness of the two, e-/s per pixel.
    scale, core : float
        Lengths, pixels.
    axis_ratio : float
        Minor over major axis.
    angle : float
        Of the major axis, degrees counter-clockwise from +x.
    """

    x: float
    y: float
    disc: float
    scale: float
    bulge: float
    core: float
    axis_ratio: float
    angle: float

    def brightness(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> Float32:
        """Return the surface brightness (e-/s per pixel) at positions of the base pointing, as float32."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        dx, dy = np.asarray(x - self.x, np.float32), np.asarray(y - self.y, np.float32)
        along = np.float32(cos) * dx + np.float32(sin) * dy
        across = (np.float32(cos) * dy - np.float32(sin) * dx) * np.float32(1 / self.axis_ratio)
        squared = along * along + across * across
        disc = np.exp(np.sqrt(squared + np.float32(self.scale**2 / 64)) * np.float32(-1 / self.scale))
        root = np.sqrt(1 + squared * np.float32(1 / self.core**2))
        light: Float32 = np.float32(self.disc) * disc + np.float32(self.bulge) / (root * root * root)
        return light


@dataclass(frozen=True, slots=True)
class Scene:
    """A field.

    Attributes
    ----------
    wcs : TangentWcs
        World coordinates at the base pointing, at which positions are given.
    stars : tuple of Star
        The stars.
    galaxy : Galaxy or None
        The galaxy.
    """

    wcs: TangentWcs
    stars: tuple[Star, ...] = ()
    galaxy: Galaxy | None = None

    @property
    def table(self) -> Float64:
        """x, y and flux of the stars, shape (n, 3)."""
        return np.array([(s.x, s.y, s.flux) for s in self.stars], float).reshape(-1, 3)

    def rates(
        self,
        motion: Affine,
        size: int,
        fwhm: float,
        faintest: float,
        reality: FrameReality | None = None,
    ) -> Float32 | None:
        """Draw the field as a frame sees it, above the atmosphere's glow and before the detector.

        Parameters
        ----------
        motion : Affine
            From the base pointing to that of the frame.
        size : int
            Pixels along a side.
        fwhm : float
            Of the stars, pixels.
        faintest : float
            e-/s per pixel below which the wings of a star are left out.
        reality : FrameReality, optional
            Distortion, halo and trail. The galaxy has no halo.

        Returns
        -------
        ndarray of float32, shape (size, size), or None
            e-/s per pixel; None if the field is empty.
        """
        if not self.stars and self.galaxy is None:
            return None
        optics = reality or FrameReality()
        image = np.zeros((size, size), np.float32)
        steps = [
            motion._replace(dx=motion.dx + dx, dy=motion.dy + dy) for dx, dy in trail(optics.trail, fwhm)
        ]
        if self.galaxy is not None:
            for moved in steps:
                _add_galaxy(image, self.galaxy, moved, optics.distortion, np.float32(1 / len(steps)))
            if optics.distortion:
                image *= pixel_area(size, optics.distortion)
        table = self.table
        for moved in steps:
            x, y = moved.apply(table[:, 0], table[:, 1])
            if optics.distortion:
                x, y = distort(x, y, optics.distortion, motion.centre)
            for share, width in profile(fwhm, optics.halo_fwhm_pix, optics.core_fraction):
                flux, integrated = table[:, 2] * (share / len(steps)), width == fwhm or width < _WIDE
                add_stars(image, x, y, flux, width, faintest / len(steps), integrated=integrated)
        return image


def _add_galaxy(image: Float32, galaxy: Galaxy, motion: Affine, k: float, share: np.float32) -> None:
    """Add a share of a galaxy's light, seen through a distortion, to an image."""
    size, rows = image.shape[1], 64
    x = np.arange(size, dtype=float)[None, :]
    for start in range(0, size, rows):
        y = np.arange(start, min(start + rows, size), dtype=float)[:, None]
        ideal = undistort(x, y, k, motion.centre) if k else (x, y)
        image[start : start + rows] += share * galaxy.brightness(*motion.invert(*ideal))


def make_scene(kind: str, plan: NightPlan, wcs: TangentWcs, rng: np.random.Generator) -> Scene:
    """Make up a field.

    Parameters
    ----------
    kind : {"target", "sky", "std"}
        Which field of the night.
    plan : NightPlan
        Its scene, number of stars and exposure times.
    wcs : TangentWcs
        Of the base pointing.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    Scene
    """
    size, clear = plan.setup.size, _CLEAR * plan.fwhm_pix
    centre = (wcs.crpix[0] - 1, wcs.crpix[1] - 1)
    if kind == "std":
        # The standard stands at the pointing; a few field stars help the alignment.
        first = [Star(*centre, plan.standard_rate)]
        count = 0 if plan.reality.lone_standard else 6
        others = _field_stars(rng, count, (7000.0, 50000.0), size, clear, first)
        return Scene(wcs, (*first, *others))
    if kind == "sky":
        count = 0 if plan.scene == "empty" else max(2, round(12 * (size / 1024) ** 2))
        return Scene(wcs, _field_stars(rng, count, (_FAINTEST, 8000.0), size, clear, []))
    galaxy = _galaxy(centre, size) if plan.scene == "extended" else None
    peak = 2 / (math.pi * moffat_radius(plan.fwhm_pix) ** 2)
    filling = 1.8 * plan.setup.full_well / (peak * plan.exposure)
    brightest = [
        Star(float(x), float(y), filling * 1.5**rank)
        for rank, (x, y) in enumerate(rng.uniform(0.15 * size, 0.85 * size, (plan.saturated_stars, 2)))
    ]
    others = _field_stars(rng, plan.field_stars, (_FAINTEST, _BRIGHTEST), size, clear, brightest)
    return Scene(wcs, (*brightest, *others), galaxy)


def _field_stars(
    rng: np.random.Generator,
    count: int,
    limits: tuple[float, float],
    size: int,
    clear: float,
    present: list[Star],
) -> tuple[Star, ...]:
    """Place stars, brightest first. A few must all be measurable: none near the edge or another."""
    few = count <= 20
    margin = (0.15 if few else 0.02) * size
    placed = np.array([(s.x, s.y) for s in present], float).reshape(-1, 2)
    keep_off = placed
    stars = []
    for rank, flux in enumerate(_fluxes(count, *limits)):
        apart = few or flux > _BRIGHT
        x, y = _place(rng, margin, size, clear, placed if apart else keep_off)
        placed = np.vstack([placed, (x, y)])
        if few or (flux > _BRIGHT and rank % 2 == 0):
            keep_off = np.vstack([keep_off, (x, y)])
        stars.append(Star(x, y, float(flux)))
    return tuple(stars)


def _place(
    rng: np.random.Generator, margin: float, size: int, clear: float, avoid: Float64
) -> tuple[float, float]:
    """Draw positions until one is clear; after 30 the best of them."""
    best, distance = (0.0, 0.0), -1.0
    for _ in range(30):
        x, y = (float(v) for v in rng.uniform(margin, size - 1 - margin, 2))
        nearest = float(np.hypot(avoid[:, 0] - x, avoid[:, 1] - y).min()) if len(avoid) else np.inf
        if nearest >= clear:
            return x, y
        if nearest > distance:
            best, distance = (x, y), nearest
    return best


def _fluxes(count: int, low: float, high: float) -> Float64:
    """Spread fluxes evenly over the power law, brightest first, so that few stars also span the range."""
    rank = (np.arange(count) + 0.5) / max(count, 1)
    a, b = low**-_SLOPE, high**-_SLOPE
    spread: Float64 = (b + rank * (a - b)) ** (-1 / _SLOPE)
    return spread


def _galaxy(centre: tuple[float, float], size: int) -> Galaxy:
    unit = size / 1024
    return Galaxy(
        *centre,
        disc=300.0,
        scale=240 * unit,
        bulge=400.0,
        core=max(45 * unit, 12.0),
        axis_ratio=0.55,
        angle=62.0,
    )
