"""What the array does to light: response, dark current, defects, non-linearity, saturation, noise, ADU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from niripipe.instruments.tables import LinearityCoefficients, niri_tables
from niripipe.simulate.settings import Effects, Setup

__all__ = ["Detector", "Readout", "make_detector", "measured_counts", "read_out"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

#: Rows handled at a time, so that the temporaries of a block stay in the cache.
_ROWS = 64
#: Relative spread of dark current from pixel to pixel.
_DARK_SPREAD = 0.1
#: Decay length of the amplifier glow from the outer rows, pixels of the full frame.
_GLOW_LENGTH = 70.0
#: A pixel fills at this many nominal full wells, and the spread of it. The margin keeps what is full above
#: the level at which it counts as saturated, as in real frames.
_FILLS_AT, _FILLS_SPREAD = 1.01, 0.002
#: For the saturation hole: seconds from reset to the first read, and how much of the well may be full by then
#: without a loss of signal.
_FIRST_READ, _SHOULDER = 0.2, 0.05


@dataclass(frozen=True, slots=True)
class Detector:
    """The array: planes of shape (size, size), and where its bad pixels are.

    Attributes
    ----------
    flat : ndarray of float32
        Response, 1 in the median of good pixels.
    dark : ndarray of float32
        Dark current, e-/s.
    glow : ndarray of float32
        Amplifier glow, e- per coadd and read pair.
    well : ndarray of float32
        Charge at which a pixel is full, e-.
    hot, warm, dead : ndarray of int64, shape (n, 2)
        (y, x) of bad pixels.
    """

    flat: Float32
    dark: Float32
    glow: Float32
    well: Float32
    hot: Int64
    warm: Int64
    dead: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """How a frame was exposed and read.

    Attributes
    ----------
    exposure : float
        s per coadd.
    coadds : int
        Coadds, summed.
    setup : Setup
        Read mode, well, size.
    effects : Effects
        What is on.
    day : date
        UT date, for peculiarities of the epoch.
    """

    exposure: float
    coadds: int
    setup: Setup
    effects: Effects
    day: date

    @property
    def coefficients(self) -> LinearityCoefficients | None:
        """Non-linearity, None for a linear response."""
        return self.setup.linearity if self.effects.nonlinearity else None

    @property
    def integration(self) -> float:
        """Time (s) in which a coadd collects light: the linearity model has more than the header."""
        coefficients = self.coefficients
        return self.exposure + (coefficients.dead_time if coefficients else 0.0)


def make_detector(size: int, effects: Effects, rng: np.random.Generator) -> Detector:
    """Make up an array.

    Parameters
    ----------
    size : int
        Pixels along a side.
    effects : Effects
        Defects, flat field, dark current, glow.
    rng : numpy.random.Generator
        Where chance comes from.

    Returns
    -------
    Detector
    """
    flat = _response(size, effects, rng)
    dark = effects.dark_current * np.clip(1 + _DARK_SPREAD * rng.standard_normal((size, size)), 0, None)
    counts = [round(fraction * size * size) for fraction in (effects.hot, effects.warm, effects.dead)]
    where = rng.choice(size * size, sum(counts), replace=False)
    hot, warm, dead = np.split(where, np.cumsum(counts)[:2])
    dark.flat[hot] += np.exp(rng.uniform(math.log(1500), math.log(20000), hot.size))
    dark.flat[warm] += np.exp(rng.uniform(math.log(2), math.log(600), warm.size))
    flat.flat[dead] *= rng.uniform(0, 0.6, dead.size)
    flat /= np.median(np.delete(flat.ravel(), dead)) if dead.size < flat.size else 1.0
    full = _FILLS_AT + _FILLS_SPREAD * np.clip(rng.standard_normal((size, size)), -3, 3)
    return Detector(
        flat=flat.astype(np.float32),
        dark=dark.astype(np.float32),
        glow=_glow(size, effects.glow),
        well=full.astype(np.float32),
        hot=_positions(hot, size),
        warm=_positions(warm, size),
        dead=_positions(dead, size),
    )


def measured_counts(charge: Float32, coefficients: LinearityCoefficients) -> Float32:
    """Invert the linearity correction: from the charge collected to the charge measured.

    Solves ``c (1 + c (gamma + eta c)) = charge`` (see `niripipe.instruments.tables.LinearityCoefficients`) by
    Newton's method from above, where it converges from any start because the polynomial is convex.

    Parameters
    ----------
    charge : ndarray of float32
        e- per coadd, not negative.
    coefficients : LinearityCoefficients
        Of the read mode, array size and well.

    Returns
    -------
    ndarray of float32
        e- per coadd, good to a few float32 roundings.
    """
    gamma, eta = np.float32(coefficients.gamma), np.float32(coefficients.eta)
    # The root is below both the charge and what the cubic term alone would give.
    counts: Float32 = np.minimum(charge, np.cbrt(charge * np.float32(1 / coefficients.eta)), dtype=np.float32)
    for _ in range(5):
        squared = counts * counts
        excess = counts + squared * (gamma + eta * counts) - charge
        counts -= excess / (1 + 2 * gamma * counts + 3 * eta * squared)
    return counts


def read_out(
    detector: Detector,
    readout: Readout,
    rates: Float32 | None,
    extra: Float32 | None,
    rng: np.random.Generator,
    offsets: Float32 | None = None,
) -> NDArray[np.float32] | NDArray[np.int32]:
    """Expose the array and read it.

    Parameters
    ----------
    detector : Detector
        The array.
    readout : Readout
        Exposure, read mode and effects.
    rates : ndarray of float32 or None
        Light on each pixel, e-/s at unit response; None in the dark.
    extra : ndarray of float32 or None
        Charge from elsewhere (cosmic rays, persistence), e- in the sum over coadds.
    rng : numpy.random.Generator
        Where chance comes from.
    offsets : ndarray of float32, optional
        Levels that the read-out adds to each pixel, e- in the sum over coadds.

    Returns
    -------
    ndarray of float32 or int32, shape (size, size)
        ADU, summed over coadds.

    Notes
    -----
    Photon noise is Gaussian with the variance of the charge, carried through the slope of the response (first
    order), and drawn together with the read noise of all coadds.
    """
    setup, effects = readout.setup, readout.effects
    size = setup.size
    lift = _readout_pattern(readout, rng)
    values = np.empty((size, size), np.float32)
    for start in range(0, size, _ROWS):
        rows = slice(start, start + _ROWS)
        light = None if rates is None else rates[rows] * detector.flat[rows]
        charge = _charge(detector, readout, light, rows)
        values[rows] = _measured(detector, readout, charge, extra, light, rows, rng)
    values += np.float32(effects.pedestal * readout.coadds)
    if lift is not None:
        values += lift
    if offsets is not None:
        values += offsets
    values /= np.float32(niri_tables().detector.gain)
    lnrs, ndavgs = setup.reads
    if lnrs > 1 and readout.day < niri_tables().epochs.read_pairs_averaged_since:
        values *= lnrs  # the controller of that time summed the read pairs
    kind = setup.pixels(readout.day)
    if effects.quantised:
        steps = np.float32(ndavgs if kind == "float32" else 1)
        values = np.rint(values * steps) / steps
    return np.rint(values).astype(np.int32) if kind == "int32" else values


def _charge(detector: Detector, readout: Readout, light: Float32 | None, rows: slice) -> Float32:
    """Charge that light and dark current leave in a coadd, e-."""
    current = detector.dark[rows] if light is None else detector.dark[rows] + light
    lnrs, _ = readout.setup.reads
    charge: Float32 = current * np.float32(readout.integration) + detector.glow[rows] * np.float32(lnrs)
    return charge


def _measured(
    detector: Detector,
    readout: Readout,
    charge: Float32,
    extra: Float32 | None,
    light: Float32 | None,
    rows: slice,
    rng: np.random.Generator,
) -> Float32:
    """Sum over coadds of the measured counts of a block, e-."""
    setup, effects, coadds = readout.setup, readout.effects, np.float32(readout.coadds)
    total = charge if extra is None else charge + extra[rows] / coadds
    coefficients = readout.coefficients
    counts = total if coefficients is None else measured_counts(total, coefficients)
    if effects.photon_noise or effects.read_noise:
        counts = counts * coadds + _noise(readout, charge, counts, rng)
    else:
        counts = counts * coadds
    if effects.saturation:
        well = detector.well[rows] * np.float32(setup.full_well)
        np.minimum(counts, well * coadds, out=counts)
        if effects.saturation_hole and light is not None:
            # Charge there at the first read is missing from the difference once the last read is full.
            # A little of it hides in the soft shoulder of the response.
            early = np.minimum(light * np.float32(_FIRST_READ), well)
            hidden = np.maximum(early - np.float32(_SHOULDER) * well, 0)
            counts = np.where(counts >= well * coadds, (well - hidden) * coadds, counts)
    return counts


def _noise(readout: Readout, charge: Float32, counts: Float32, rng: np.random.Generator) -> Float32:
    """Draw the noise of a block in the sum over coadds, e-."""
    effects, coefficients = readout.effects, readout.coefficients
    variance = np.full(counts.shape, readout.setup.read_noise**2 if effects.read_noise else 0.0, np.float32)
    if effects.photon_noise and coefficients is None:
        variance += charge
    elif effects.photon_noise and coefficients is not None:
        bend = np.float32(2 * coefficients.gamma) + np.float32(3 * coefficients.eta) * counts
        variance += charge / (1 + bend * counts) ** 2
    noise = rng.standard_normal(counts.shape, np.float32)
    noise *= np.sqrt(variance * np.float32(readout.coadds))
    return noise


def _readout_pattern(readout: Readout, rng: np.random.Generator) -> Float32 | None:
    """Levels of the quadrants and the pattern that repeats every 8 columns, e- in the sum over coadds."""
    effects, size = readout.effects, readout.setup.size
    if not effects.pattern and not effects.quadrant_offset:
        return None
    half = size // 2
    lift = np.zeros((size, size), np.float32)
    for y in (0, half):
        for x in (0, half):
            # Quadrants are read from their outer rows inwards; the pattern switches on somewhere in the
            # readout.
            wave = np.sin(2 * np.pi * (np.arange(8) + 8 * rng.random()) / 8) + 0.5 * rng.standard_normal(8)
            wave -= wave.mean()
            level = effects.quadrant_offset * rng.standard_normal()
            quadrant = np.full((half, half), level)
            first = int(rng.integers(0, max(1, half // 2)))
            quadrant[first:] += effects.pattern * np.tile(wave, half // 8)[None, :]
            lift[y : y + half, x : x + half] = quadrant[::-1] if y else quadrant
    return lift * np.float32(readout.coadds)


def _response(size: int, effects: Effects, rng: np.random.Generator) -> Float64:
    """Smooth large-scale structure (a few cosine modes), loss in the corners, scatter from pixel to pixel."""
    u = (np.arange(size) + 0.5) / size
    modes = np.cos(np.pi * np.arange(7)[:, None] * u)
    weight = rng.standard_normal((7, 7)) / (1 + np.add.outer(np.arange(7), np.arange(7)))
    weight[0, 0] = 0.0
    smooth = modes.T @ weight @ modes
    smooth *= effects.flat_large / smooth.std()
    # Soft limits keep good pixels well inside what a bad pixel mask lets pass.
    limit = max(3 * effects.flat_large, 1e-9)
    flat = 1 + limit * np.tanh(smooth / limit)
    radius2 = (u[:, None] - 0.5) ** 2 + (u[None, :] - 0.5) ** 2
    flat *= 1 - effects.vignetting * 2 * radius2
    scatter = np.clip(rng.standard_normal((size, size)), -4, 4)
    response: Float64 = flat * (1 + effects.flat_pixel * scatter)
    return response


def _glow(size: int, strength: float) -> Float32:
    """Glow of the amplifiers: along the first and the last rows, stronger towards the corners."""
    away = (1024 - size) // 2 + np.minimum(np.arange(size), np.arange(size)[::-1])
    edge = np.exp(-away / _GLOW_LENGTH)
    plane: Float32 = (strength * edge[:, None] * (0.6 + 0.8 * edge[None, :])).astype(np.float32)
    return plane


def _positions(flat_index: Int64, size: int) -> Int64:
    return np.stack(np.divmod(np.sort(flat_index), size), axis=1)
