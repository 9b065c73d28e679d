"""What real nights have and clean ones lack, one switch and one function per effect.

`Reality` says what is on and how strong. The functions are arithmetic on arrays: optics (`distort`,
`pixel_area`, `profile`, `trail`), sky (`blob_light`, `slope_light`, `wave_light`, `thermal_light`), memory of
the detector (`released`) and read-out (`readout_levels`). `niripipe.simulate.conditions` draws the numbers of
each frame, `niripipe.simulate.frames` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.errors import ParameterError

__all__ = [
    "ALTAIR_F32",
    "FrameReality",
    "Reality",
    "blob_light",
    "distort",
    "pixel_area",
    "profile",
    "readout_levels",
    "released",
    "slope_light",
    "thermal_light",
    "trail",
    "undistort",
    "wave_light",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

#: Distortion of f/32 with Altair, per pixel (Gemini's page on NIRI's pixel scales: 1.32 +- 0.02).
ALTAIR_F32 = 1.32e-5
#: Charge is released as t^-1.1. Measured behind a bright star in frames of 80 s: 980, 250 and 120 e- in the
#: three frames that follow; this law gives 980, 225 and 128.
_DECAY = 1.1
#: The strength of persistence is the fraction released between these times after the exposure, s.
_FIRST, _LAST = 10.0, 90.0
#: Parts of a trail a FWHM: stars look smooth then.
_STEPS = 4
#: Fields that may be negative or are no numbers.
_SIGNED = ("trail_angle",)
_LISTS = ("seeing", "transparency", "sky_levels", "trailed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reality:
    """Effects of real nights, all off by default. A night without them does not change by a bit.

    Lists hold one value per frame on the sky (targets, offset skies, standards, in the order of names) and
    start again at the end.

    Parameters
    ----------
    distortion : float
        k of r_true = r + k r^2, per pixel, r the distance on the detector from its centre (pixels); 1.32e-5
        for f/32 with Altair. Stars and galaxies move towards the centre. A pixel away from the centre sees
        more sky: galaxy, sky and flat lamp are brighter there by (1 + k r) (1 + 2 k r), as in real flats.
    core_fraction : float
        Share of a star's light in the core, about the Strehl ratio; the rest is in the halo. 1 has no halo.
    halo_fwhm : float
        Of the halo, arcsec: a Moffat profile with beta = 3, as the core.
    seeing : tuple of float
        FWHM of each frame, arcsec. It replaces that of the plan.
    seeing_walk : float
        Step of a random walk of ln FWHM from frame to frame.
    transparency : tuple of float
        Factor on stars and galaxy in each frame.
    transparency_walk : float
        Step of a random walk of ln transparency from frame to frame, reflected at 1.
    trailed : tuple of int
        Frames on the target (0 is the first) during which the telescope moved evenly.
    trail_length, trail_angle : float
        Length of those trails (pixels) and their direction, degrees counter-clockwise from +x.
    sky_levels : tuple of float
        Factor on the sky of each frame.
    blobs : int
        Number of blobs of light fixed to the detector.
    blob_strength : float
        Their brightness in the middle over the sky's.
    blob_size : float
        Their sigma, as a fraction of the array's side.
    blob_period : float
        Minutes in which a blob brightens and fades, from zero to twice its strength.
    gradient : float
        Change of the sky across the array over its level; the direction turns by a radian in 30 minutes.
    fringes, fringe_period : float
        Amplitude over the sky, and period in pixels, of fringes fixed to the detector. The amplitude goes up
        and down in 20 minutes, by half of itself.
    oh_waves, oh_length, oh_speed : float
        Amplitude over the sky, length (pixels) and speed (pixels/s) of waves of OH emission that cross the
        field.
    thermal, thermal_rise : float
        Thermal light on the sky's frames: e-/s per pixel at the start of the night, and its rise per hour.
    standard_sky : float or None
        Sky of the standard's frames, e-/s per pixel, without thermal light, as in J; None for that of the
        plan.
    lone_standard : bool
        Whether the standard star is alone in its field.
    row_noise, quadrant_noise : float
        rms of the offsets of rows and of quadrants, e- per coadd, drawn for each frame.
    persistence : float
        Fraction of a pixel's charge that is released between 10 and 90 s after the exposure; the rate falls
        as t^-1.1. Pixels need not be full.
    persistence_from : float
        Least charge of a pixel that leaves an image, e- per coadd.

    Notes
    -----
    The near-zero sky of short exposures is a plan and not an effect: ``night(standard_exposure=0.2,
    standard_coadds=10, reality=Reality(standard_sky=5.0, lone_standard=True))``.
    """

    distortion: float = 0.0
    core_fraction: float = 1.0
    halo_fwhm: float = 1.0
    seeing: tuple[float, ...] = ()
    seeing_walk: float = 0.0
    transparency: tuple[float, ...] = ()
    transparency_walk: float = 0.0
    trailed: tuple[int, ...] = ()
    trail_length: float = 8.0
    trail_angle: float = 30.0
    sky_levels: tuple[float, ...] = ()
    blobs: int = 0
    blob_strength: float = 0.02
    blob_size: float = 0.08
    blob_period: float = 12.0
    gradient: float = 0.0
    fringes: float = 0.0
    fringe_period: float = 40.0
    oh_waves: float = 0.0
    oh_length: float = 1500.0
    oh_speed: float = 3.0
    thermal: float = 0.0
    thermal_rise: float = 0.0
    standard_sky: float | None = None
    lone_standard: bool = False
    row_noise: float = 0.0
    quadrant_noise: float = 0.0
    persistence: float = 0.0
    persistence_from: float = 20000.0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _LISTS:
                # Lists would not be hashable; they are welcome all the same.
                object.__setattr__(self, name, tuple(value))
                usable = all(v >= 0 for v in value)
            elif name in _SIGNED:
                usable = math.isfinite(value)
            else:
                usable = value is None or 0 <= value < math.inf
            if not usable or (name == "core_fraction" and value > 1):
                raise ParameterError("Reality has no such strength", item=name, found=value, expected=">= 0")
        for name in ("halo_fwhm", "blob_size", "blob_period", "fringe_period", "oh_length"):
            if not getattr(self, name) > 0:
                raise ParameterError("A size or a period is above 0", item=name, found=getattr(self, name))
        if not isinstance(self.blobs, int):
            raise ParameterError("Blobs are counted", item="blobs", found=self.blobs)
        if not all(width > 0 for width in self.seeing):
            raise ParameterError("Seeing is above 0", item="seeing", found=self.seeing)

    @classmethod
    def everything(cls, **changes: Any) -> Reality:
        """Return all effects at strengths that real nights have; the fourth target frame is trailed.

        Parameters
        ----------
        **changes
            Fields to set differently.

        Returns
        -------
        Reality

        Raises
        ------
        ParameterError
            If there is no field of a name.
        """
        for name in changes:
            if name not in cls.__slots__:
                raise ParameterError("Reality has no field of this name", item=name)
        return replace(
            cls(
                distortion=ALTAIR_F32,
                core_fraction=0.7,
                seeing_walk=0.05,
                transparency_walk=0.03,
                trailed=(3,),
                blobs=3,
                gradient=0.01,
                fringes=0.002,
                oh_waves=0.005,
                thermal=30.0,
                thermal_rise=30.0,
                standard_sky=5.0,
                lone_standard=True,
                row_noise=5.0,
                quadrant_noise=10.0,
                persistence=1e-3,
            ),
            **changes,
        )

    @property
    def is_off(self) -> bool:
        """Whether nothing is on."""
        return self == Reality()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReality:
    """What `Reality` did to one frame: enough to draw it again.

    Attributes
    ----------
    distortion : float
        k, per pixel.
    core_fraction, halo_fwhm_pix : float
        Share of a star's light in its core, and FWHM of the halo, pixels.
    trail : tuple of float
        Motion during the exposure along x and y, pixels.
    blobs : tuple of (x, y, sigma, peak)
        Blobs of light: pixels, and e-/s per pixel.
    slope : tuple of float
        Change of the sky from edge to edge along x and y, e-/s per pixel.
    fringes, oh_wave : tuple of float
        Amplitude (e-/s per pixel), length (pixels), angle and phase (radians); empty for none.
    thermal : float
        Thermal light, e-/s per pixel.
    rows, quadrants : tuple of float
        Offsets of the rows, and of the quadrants (lower left, lower right, upper left, upper right): e- in
        the sum over coadds; empty for none.
    ghosts : tuple of (y, x, electrons)
        Pixels with persistence of 5 e- and more.
    """

    distortion: float = 0.0
    core_fraction: float = 1.0
    halo_fwhm_pix: float = 0.0
    trail: tuple[float, float] = (0.0, 0.0)
    blobs: tuple[tuple[float, float, float, float], ...] = ()
    slope: tuple[float, float] = (0.0, 0.0)
    fringes: tuple[float, ...] = ()
    oh_wave: tuple[float, ...] = ()
    thermal: float = 0.0
    rows: tuple[float, ...] = ()
    quadrants: tuple[float, ...] = ()
    ghosts: tuple[tuple[int, int, float], ...] = ()


def distort(x: Float64, y: Float64, k: float, centre: float) -> tuple[Float64, Float64]:
    """Move ideal positions to where the optics put them.

    Solves r_true = r + k r^2 for r, the distance from the centre on the detector.

    Parameters
    ----------
    x, y : ndarray of float64
        Positions without distortion, 0-based pixels.
    k : float
        Per pixel; positive moves them towards the centre (barrel).
    centre : float
        x and y of the field's centre, 0-based.

    Returns
    -------
    x, y : ndarray of float64
        Positions on the detector.
    """
    u, v = x - centre, y - centre
    shrink = 2 / (1 + np.sqrt(1 + 4 * k * np.hypot(u, v)))
    return centre + u * shrink, centre + v * shrink


def undistort(x: Float64, y: Float64, k: float, centre: float) -> tuple[Float64, Float64]:
    """Move positions on the detector to where they would be without distortion: r_true = r + k r^2.

    Parameters and results are those of `distort`, the other way round.
    """
    u, v = x - centre, y - centre
    stretch = 1 + k * np.hypot(u, v)
    return centre + u * stretch, centre + v * stretch


def pixel_area(size: int, k: float) -> Float32:
    """Return the area of sky that each pixel sees, in units of the central pixel's.

    The determinant of `undistort`: (1 + k r) (1 + 2 k r).

    Parameters
    ----------
    size : int
        Pixels along a side.
    k : float
        Distortion, per pixel.

    Returns
    -------
    ndarray of float32, shape (size, size)
    """
    away = np.arange(size) - (size - 1) / 2
    r = np.hypot(away[None, :], away[:, None])
    area: Float32 = ((1 + k * r) * (1 + 2 * k * r)).astype(np.float32)
    return area


def profile(fwhm: float, halo_fwhm: float, core_fraction: float) -> tuple[tuple[float, float], ...]:
    """Return the parts of a star's profile.

    Parameters
    ----------
    fwhm, halo_fwhm : float
        Of core and halo, in the same unit.
    core_fraction : float
        Share of the light in the core.

    Returns
    -------
    tuple of (share, FWHM)
        Core first; a part without light is left out.
    """
    parts = ((core_fraction, fwhm), (1 - core_fraction, halo_fwhm))
    return tuple(part for part in parts if part[0] > 0)


def trail(length: tuple[float, float], fwhm: float) -> list[tuple[float, float]]:
    """Divide an even motion into the steps at which a star is drawn.

    Parameters
    ----------
    length : tuple of float
        Motion during the exposure along x and y, pixels.
    fwhm : float
        Of the stars, pixels.

    Returns
    -------
    list of (dx, dy)
        Offsets from the middle, four or more a FWHM; their mean is 0.
    """
    count = max(1, math.ceil(_STEPS * math.hypot(*length) / fwhm))
    along = [(i + 0.5) / count - 0.5 for i in range(count)]
    return [(length[0] * s, length[1] * s) for s in along]


def blob_light(size: int, blobs: ArrayLike) -> Float64:
    """Draw round Gaussian blobs.

    Parameters
    ----------
    size : int
        Pixels along a side.
    blobs : array-like, shape (n, 4)
        x, y, sigma (pixels) and brightness in the middle.

    Returns
    -------
    ndarray of float64, shape (size, size)
        In the unit of the brightness.
    """
    pixel = np.arange(size)
    light = np.zeros((size, size))
    for x, y, sigma, peak in np.asarray(blobs, float).reshape(-1, 4):
        along_x = np.exp(-((pixel - x) ** 2) / (2 * sigma**2))
        light += peak * np.exp(-((pixel - y) ** 2) / (2 * sigma**2))[:, None] * along_x
    return light


def slope_light(size: int, slope: tuple[float, float]) -> Float64:
    """Draw a plane with zero mean.

    Parameters
    ----------
    size : int
        Pixels along a side.
    slope : tuple of float
        Change from edge to edge along x and y.

    Returns
    -------
    ndarray of float64, shape (size, size)
    """
    across = (np.arange(size) - (size - 1) / 2) / size
    return slope[0] * across[None, :] + slope[1] * across[:, None]


def wave_light(size: int, amplitude: float, length: float, angle: float, phase: float) -> Float64:
    """Draw a plane wave: fringes, or a wave of OH emission at one moment.

    Parameters
    ----------
    size : int
        Pixels along a side.
    amplitude : float
        Half the difference of crest and trough.
    length : float
        Wavelength, pixels.
    angle, phase : float
        Direction of the wave counter-clockwise from +x, and phase at the array's centre, radians.

    Returns
    -------
    ndarray of float64, shape (size, size)
    """
    away = np.arange(size) - (size - 1) / 2
    along = math.cos(angle) * away[None, :] + math.sin(angle) * away[:, None]
    wave: Float64 = amplitude * np.sin(2 * math.pi * along / length + phase)
    return wave


def thermal_light(start: float, rise: float, hours: float) -> float:
    """Return the thermal light, e-/s per pixel, some hours after the start of the night."""
    return max(start + rise * hours, 0.0)


def released(strength: float, gap: float, seconds: float) -> float:
    """Return the fraction of an earlier exposure's charge that a frame collects.

    Parameters
    ----------
    strength : float
        Fraction released from 10 to 90 s after the exposure.
    gap : float
        From the end of the earlier exposure to the start of the frame, s.
    seconds : float
        Length of the frame, s.

    Returns
    -------
    float
        ``strength * (gap^-0.1 - (gap + seconds)^-0.1) / (10^-0.1 - 90^-0.1)``: a rate that falls as t^-1.1.
    """
    slope = 1 - _DECAY
    gap = max(gap, 1.0)  # frames cannot follow each other more quickly
    share: float = strength * (gap**slope - (gap + seconds) ** slope) / (_FIRST**slope - _LAST**slope)
    return share


def readout_levels(size: int, rows: Sequence[float], quadrants: Sequence[float]) -> Float32:
    """Draw the offsets of rows and quadrants.

    Parameters
    ----------
    size : int
        Pixels along a side.
    rows : sequence of float
        Offset of each row, from the lowest; empty for none.
    quadrants : sequence of float
        Offsets of the quadrants: lower left, lower right, upper left, upper right; empty for none.

    Returns
    -------
    ndarray of float32, shape (size, size)
        In the unit of the offsets.
    """
    plane = np.zeros((size, size), np.float32)
    if len(rows):
        plane += np.asarray(rows, np.float32)[:, None]
    if len(quadrants):
        corners = np.asarray(quadrants, np.float32).reshape(2, 2)
        plane += np.repeat(np.repeat(corners, size // 2, axis=0), size // 2, axis=1)
    return plane
