"""A reduced stack against the truth of the night that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import sep
from numpy.typing import NDArray

from niripipe import astrodata
from niripipe.errors import DataError, ParameterError
from niripipe.simulate.nights import Night
from niripipe.simulate.psf import add_stars, star_stamp
from niripipe.simulate.reality import FrameReality, profile, undistort
from niripipe.simulate.truth import Truth, read_truth

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["Score", "score"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Radius of apertures, radii of the ring for the local background (pixels at the tutorial's seeing of 4.7),
#: half the side of the stamp.
_APERTURE, _RING = 11.0, (16.0, 22.0)
_HALF = 23
#: Points a pixel edge at which apertures and growth curves are integrated.
_FINE = 5
#: Charge (e-) from which a cosmic ray counts, and how far above the noise its remains must stand.
_CR_CHARGE, _CR_SIGMA = 1500.0, 5.0
#: Cosmic rays nearer than this to a star are not counted, pixels.
_CR_AWAY = 12.0
#: S/N from which stars count, and the number of bright ones that fix the shift.
_LEAST_SNR, _SHIFT_STARS = 40.0, 60
#: Side of the boxes in which the local level is measured, pixels.
_BOX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How near a stack comes to the truth; what a perfect one would have stands in brackets.

    Attributes
    ----------
    kind : str
        ``target`` or ``std``.
    shape : tuple of int
        (ny, nx) of the stack.
    n_stars, n_bright : int
        Stars measured with S/N > 40 and S/N > 100.
    completeness : float
        Of the stars that should have S/N > 20 in clean pixels, the fraction found at S/N > 5 within a factor
        2 in flux [1].
    flux_ratio, flux_ratio_snr100, flux_scatter : float
        Median of measured over true flux with S/N > 40 and > 100 [1], and its robust scatter (S/N > 40).
    shift : tuple of float
        Mean displacement (x, y) against the stack's world coordinates, pixels: the pointing error of its
        first frame.
    astrom_rms_pix : float
        Root of the median squared distance from truth after that shift [0].
    r50_ratio : float
        Median of half-light radius over that of the true profile [1].
    galaxy_ratio : float or None
        Slope of the galaxy against truth [1]; None without a galaxy.
    pull : float
        Robust scatter of (data - truth) / sqrt(variance) in blank pixels [1].
    cr_hits, cr_left : int, float
        Pixels hit in the stacked frames that could be checked, and the fraction of them standing out
        unflagged [0].
    flagged : float
        Fraction of flagged pixels in the inner part.

    Notes
    -----
    NaN where there was nothing to measure.
    """

    kind: str
    shape: tuple[int, int]
    n_stars: int
    n_bright: int
    completeness: float
    flux_ratio: float
    flux_ratio_snr100: float
    flux_scatter: float
    shift: tuple[float, float]
    astrom_rms_pix: float
    r50_ratio: float
    galaxy_ratio: float | None
    pull: float
    cr_hits: int
    cr_left: float
    flagged: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"flux {self.flux_ratio_snr100:.4f} ({self.n_bright} stars with S/N > 100), "
            f"positions {self.astrom_rms_pix:.4f} pixel, half-light radius {self.r50_ratio:.4f}, "
            f"noise {self.pull:.3f}, cosmic rays left {self.cr_left:.3f} of {self.cr_hits}"
        )


class _Stack(NamedTuple):
    """Planes in electrons, usable pixels, unflagged pixels, world coordinates, number of frames combined."""

    data: Float32
    variance: Float32
    usable: Flags
    clean: Flags
    wcs: WCS
    combined: int | None


class _Star(NamedTuple):
    """What was measured of a star; `r50_ratio` is NaN for faint ones, `offset` that from the truth."""

    flux_ratio: float
    snr: float
    r50_ratio: float
    offset: tuple[float, float]


class _Stamp(NamedTuple):
    """A star without its neighbours: data, the star as it should be, usable pixels, variance, position."""

    data: Float64
    true: Float64
    usable: Flags
    variance: Float32
    x: float
    y: float


def score(
    truth: Night | Truth | str | PathLike[str], stack: Any, *, kind: Literal["target", "std"] = "target"
) -> Score:
    """Measure a reduced stack against the truth.

    Parameters
    ----------
    truth : Night, Truth or path-like
        The night, its truth, or where ``truth.json`` is.
    stack : AstroData or path-like
        The stack: a data set whose first extension has ``data``, ``variance``, ``mask`` and ``wcs``, or a
        FITS file with SCI, VAR and DQ extensions. Electrons or ADU, the mean of its frames.
    kind : {"target", "std"}
        What was stacked.

    Returns
    -------
    Score

    Raises
    ------
    ParameterError
        If the night has no frames of this kind.
    DataError
        If the stack lacks a plane or world coordinates.
    InputError
        If a file is not there.

    Notes
    -----
    Truth includes neighbours and the galaxy, so that crowding does not spoil the figures: each star is
    measured after all other known light has been subtracted. Apertures of 11 pixels, background in a ring
    from 16 to 22, true fluxes integrated in the same way over the true profile.
    """
    known = (
        truth.truth if isinstance(truth, Night) else truth if isinstance(truth, Truth) else read_truth(truth)
    )
    names = known.names(kind)
    if not names:
        raise ParameterError("The night has no such frames", item="kind", found=kind)
    planes = _load(stack, known.gain)
    if planes.combined is not None and 0 < planes.combined < len(names):
        # What is left out is the first frame, which the recipes drop.
        names = names[-planes.combined :]
    found = _Comparison(planes, known, names, kind)
    for _ in range(2):
        # The displacement of the stack as a whole comes from its brightest stars.
        offsets = [s.offset for s in islice(found.measured(), _SHIFT_STARS) if s.snr > _LEAST_SNR]
        if not offsets:
            break
        dx, dy = np.median(np.array(offsets), axis=0)
        shift = (found.shift[0] + float(dx), found.shift[1] + float(dy))
        found = _Comparison(planes, known, names, kind, shift)
    inner = found.inner
    hits, left = found.cosmic_rays()
    return Score(
        kind=kind,
        shape=(planes.data.shape[0], planes.data.shape[1]),
        **_summary(list(found.measured())),
        completeness=found.completeness(),
        shift=(round(found.shift[0], 4), round(found.shift[1], 4)),
        galaxy_ratio=found.galaxy_ratio(),
        pull=_scatter(found.pull[found.blank & inner]),
        cr_hits=hits,
        cr_left=left,
        flagged=float(1 - planes.clean[inner].mean()) if inner.any() else math.nan,
    )


def _summary(stars: list[_Star]) -> dict[str, Any]:
    good = [s for s in stars if s.snr > _LEAST_SNR]
    bright = [s for s in stars if s.snr > 100]
    ratio = np.array([s.flux_ratio for s in good])
    offset = np.array([s.offset for s in good]).reshape(-1, 2)
    return {
        "n_stars": len(good),
        "n_bright": len(bright),
        "flux_ratio": _median(ratio),
        "flux_ratio_snr100": _median(np.array([s.flux_ratio for s in bright])),
        "flux_scatter": _scatter(ratio),
        "astrom_rms_pix": math.sqrt(_median((offset**2).sum(axis=1))) if good else math.nan,
        "r50_ratio": _median(np.array([s.r50_ratio for s in good])),
    }


def _load(stack: Any, gain: float) -> _Stack:
    if isinstance(stack, str | PathLike):
        stack = astrodata.open(stack)
    first = stack[0]
    data, variance, mask = first.data, first.variance, first.mask
    for name, plane in (("data", data), ("variance", variance), ("wcs", first.wcs)):
        if plane is None:
            raise DataError(
                "A stack without this cannot be scored", file=getattr(stack, "filename", None), item=name
            )
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask
    unit = str(first.hdr.get("BUNIT") or "electron").strip().lower()
    combined = stack.phu.get("NCOMBINE", first.hdr.get("NCOMBINE"))
    factor = np.float32(gain if unit == "adu" else 1.0)
    usable = np.isfinite(data) & (variance > 0) & ((flags & (1 | 16)) == 0)
    return _Stack(
        data=np.where(usable, data, 0).astype(np.float32) * factor,
        variance=np.where(usable, variance, 1).astype(np.float32) * factor**2,
        usable=usable,
        clean=usable & (flags == 0),
        wcs=first.wcs,
        combined=None if combined is None else int(combined),
    )


class _Comparison:
    """A stack beside the truth, drawn as the mean of its frames and displaced by a shift.

    Attributes
    ----------
    x, y, flux : ndarray of float64
        The stars of the field: 0-based pixels of the stack, e-.
    widths : tuple of float
        FWHM of cores: the mean of the frames less and plus their scatter, pixels.
    profiles : tuple of (share, FWHM)
        Moffat profiles whose sum is that of the stack; FWHM in pixels. Trails are not in it.
    stars, galaxy : ndarray of float32, or None
        Light of the stars and of the galaxy, e-.
    rest : ndarray of float32
        What remains of the stack without them, e-.
    blank : ndarray of bool
        Clean pixels in which stars are below a tenth of the noise.
    pull : ndarray of float32
        Rest above the local level over the expected noise.
    """

    def __init__(
        self,
        planes: _Stack,
        truth: Truth,
        names: list[str],
        kind: str,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.planes, self.truth, self.names, self.shift = planes, truth, names, shift
        self.scene = truth.fields[kind]
        frames = [truth.frames[name] for name in names]
        seconds = float(np.mean([f.seconds * f.transparency for f in frames]))
        fwhms = np.array([f.fwhm_pix for f in frames])
        # Two profiles with the mean and the spread of all stand for the profile of the stack.
        self.widths = (float(fwhms.mean() - fwhms.std()), float(fwhms.mean() + fwhms.std()))
        optics = frames[0].reality or FrameReality()
        self.profiles = tuple(
            (share / len(self.widths), fwhm)
            for width in self.widths
            for share, fwhm in profile(width, optics.halo_fwhm_pix, optics.core_fraction)
        )
        table = self.scene.table
        self.x, self.y = self._to_stack(table[:, 0], table[:, 1])
        self.flux = table[:, 2] * seconds
        self.stars = np.zeros(planes.data.shape, np.float32)
        for share, fwhm in self.profiles:
            add_stars(self.stars, self.x, self.y, self.flux * share, fwhm, faintest=0.05)
        self.galaxy = self._draw_galaxy(seconds)
        self.rest = planes.data - self.stars
        if self.galaxy is not None:
            self.rest -= self.galaxy

    def _to_stack(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """Convert positions at the base pointing to pixels of the stack."""
        if not len(x):
            return x, y
        sky = self.scene.wcs.to_sky(x, y)
        x, y = self.planes.wcs.all_world2pix(*sky, 0)
        return x + self.shift[0], y + self.shift[1]

    def _draw_galaxy(self, seconds: float) -> Float32 | None:
        scene = self.scene
        if scene.galaxy is None:
            return None
        ny, nx = self.planes.data.shape
        # The map from the stack to the base pointing is linear to 1e-4 pixel; three points give it.
        corner_x, corner_y = np.array([0.0, nx - 1.0, 0.0]), np.array([0.0, 0.0, ny - 1.0])
        sky = self.planes.wcs.all_pix2world(corner_x - self.shift[0], corner_y - self.shift[1], 0)
        u, v = scene.wcs.to_pixel(*sky)
        x, y = np.arange(nx)[None, :] / (nx - 1), np.arange(ny)[:, None] / (ny - 1)
        column = u[0] + (u[1] - u[0]) * x + (u[2] - u[0]) * y
        row = v[0] + (v[1] - v[0]) * x + (v[2] - v[0]) * y
        light: Float32 = scene.galaxy.brightness(column, row) * np.float32(seconds)
        return light

    @cached_property
    def inner(self) -> Flags:
        """The pixels that see all frames, with a margin."""
        frames = [self.truth.frames[name] for name in self.names]
        reach = max(max(abs(frame.dx), abs(frame.dy)) for frame in frames)
        ny, nx = self.planes.data.shape
        margin = min(math.ceil(2 * reach) + 16, min(ny, nx) // 3)
        inner = np.zeros((ny, nx), bool)
        inner[margin : ny - margin, margin : nx - margin] = True
        return inner

    @cached_property
    def blank(self) -> Flags:
        blank: Flags = self.planes.clean & (self.stars < 0.1 * np.sqrt(self.planes.variance))
        return blank

    @cached_property
    def pull(self) -> Float32:
        # The local level is that of the blank pixels of a box.
        pull = np.empty_like(self.rest)
        for row in range(0, pull.shape[0], _BOX):
            for column in range(0, pull.shape[1], _BOX):
                box = (slice(row, row + _BOX), slice(column, column + _BOX))
                values = self.rest[box][self.blank[box]]
                values = values if values.size else self.rest[box][self.planes.usable[box]]
                pull[box] = self.rest[box] - (np.median(values) if values.size else 0)
        pull /= np.sqrt(self.planes.variance)
        return pull

    def measured(self) -> Iterator[_Star]:
        """Measure the stars whose aperture is clean, from the brightest."""
        sigma = 1.2 * sum(self.widths) / len(self.widths) / 2.3548
        for i in np.argsort(-self.flux).tolist():
            stamp = self._stamp(i)
            if stamp is None:
                continue
            data = stamp.data - _ring_level(stamp.data, stamp.usable, stamp.x, stamp.y)
            *position, flag = sep.winpos(data, stamp.x, stamp.y, sigma)
            x, y = map(float, position)
            offset = (x - stamp.x, y - stamp.y)
            if flag or not math.hypot(*offset) < 3:
                continue
            # The true profile where the star was found, measured in the same way.
            whole = slice(0, 2 * _HALF + 1)
            true = self._drawn(i, x, y, whole, whole)
            true -= _ring_level(true, stamp.usable, x, y)
            flux, noise = _aperture_flux(data, x, y, stamp.variance)
            expected, _ = _aperture_flux(true, x, y, stamp.variance)
            r50 = math.nan
            if flux > _LEAST_SNR * noise:
                r50 = _half_light_radius(data, x, y) / _half_light_radius(true, x, y)
            yield _Star(flux / expected, flux / noise, r50, offset)

    def completeness(self) -> float:
        """Return the fraction found of the stars that should stand out."""
        found = expected = 0
        for i in range(self.flux.size):
            stamp = self._stamp(i)
            if stamp is None or not self.inner[round(self.y[i]), round(self.x[i])]:
                continue
            true, noise = _aperture_flux(stamp.true, stamp.x, stamp.y, stamp.variance)
            if true < 20 * noise:
                continue
            level = _ring_level(stamp.data, stamp.usable, stamp.x, stamp.y)
            flux, _ = _aperture_flux(stamp.data - level, stamp.x, stamp.y, stamp.variance)
            expected += 1
            found += flux > 5 * noise and 0.5 < flux / true < 2
        return found / expected if expected else math.nan

    def galaxy_ratio(self) -> float | None:
        """Return the slope of a weighted line through data against galaxy in pixels without stars."""
        if self.galaxy is None:
            return None
        chosen = self.blank & self.inner
        if np.count_nonzero(chosen) < 100:
            return math.nan
        weight = 1 / self.planes.variance[chosen].astype(float)
        x = self.galaxy[chosen].astype(float)
        y = (self.planes.data[chosen] - self.stars[chosen]).astype(float)
        x = x - np.average(x, weights=weight)
        return float((weight * x * y).sum() / (weight * x * x).sum())

    def cosmic_rays(self) -> tuple[int, float]:
        """Count the pixels hit in the frames; return the fraction that stands out unflagged."""
        pull = np.where(self.planes.clean, self.pull, 0)
        total = left = 0
        for name in self.names:
            hits = self.truth.cosmic_rays[name]
            hits = hits[hits[:, 2] > _CR_CHARGE]
            frame, size = self.truth.frames[name], self.truth.size
            x, y = hits[:, 1], hits[:, 0]
            if frame.reality is not None:
                x, y = undistort(x, y, frame.reality.distortion, (size - 1) / 2)
            x, y = self._to_stack(*frame.motion(size).invert(x, y))
            ny, nx = pull.shape
            for c, r in zip(np.rint(x).astype(int).tolist(), np.rint(y).astype(int).tolist(), strict=True):
                if not (0 < c < nx - 1 and 0 < r < ny - 1 and self.inner[r, c]):
                    continue
                if self.x.size and np.hypot(self.x - c, self.y - r).min() < _CR_AWAY:
                    continue
                total += 1
                left += bool(pull[r - 1 : r + 2, c - 1 : c + 2].max() > _CR_SIGMA)
        return total, left / total if total else math.nan

    def _drawn(self, i: int, x: float, y: float, columns: slice, rows: slice) -> Float64:
        """Draw one star at a position of a window."""
        stamps = [share * star_stamp(x, y, fwhm, columns, rows) for share, fwhm in self.profiles]
        drawn: Float64 = self.flux[i] * sum(stamps)
        return drawn

    def _stamp(self, i: int) -> _Stamp | None:
        """Cut out a star; None near the edge or if its core, or more than a little around it, is flagged."""
        column, row = round(self.x[i]), round(self.y[i])
        ny, nx = self.planes.data.shape
        if not (_HALF <= column < nx - _HALF and _HALF <= row < ny - _HALF):
            return None
        rows, columns = slice(row - _HALF, row + _HALF + 1), slice(column - _HALF, column + _HALF + 1)
        x, y = self.x[i] - columns.start, self.y[i] - rows.start
        clean = self.planes.clean[rows, columns]
        distance = _distance(clean.shape, x, y)
        if not (clean[distance < 6].all() and clean[distance < _APERTURE + 1].mean() > 0.995):
            return None
        true = self._drawn(i, self.x[i], self.y[i], columns, rows)
        variance = np.ascontiguousarray(self.planes.variance[rows, columns])
        return _Stamp(
            self.rest[rows, columns] + true, true, self.planes.usable[rows, columns], variance, x, y
        )


def _distance(shape: tuple[int, ...], x: float, y: float) -> Float64:
    distance: Float64 = np.hypot(np.arange(shape[0])[:, None] - y, np.arange(shape[1])[None, :] - x)
    return distance


def _ring_level(stamp: Float64, usable: Flags, x: float, y: float) -> float:
    distance = _distance(stamp.shape, x, y)
    ring = stamp[usable & (distance >= _RING[0]) & (distance <= _RING[1])]
    if ring.size == 0:
        return 0.0
    middle = float(np.median(ring))
    kept = ring[np.abs(ring - middle) <= 4 * max(_scatter(ring), 1e-12)]
    return float(kept.mean()) if kept.size else middle


def _aperture_flux(stamp: Float64, x: float, y: float, variance: Float32) -> tuple[float, float]:
    """Return the flux in the aperture and its noise."""
    flux, noise, _ = sep.sum_circle(stamp, [x], [y], _APERTURE, var=variance, subpix=_FINE)
    return float(flux[0]), float(noise[0])


def _half_light_radius(stamp: Float64, x: float, y: float) -> float:
    """Return the radius that holds half of the flux in the aperture."""
    radius, _ = sep.flux_radius(stamp, [x], [y], [_APERTURE], 0.5, subpix=_FINE)
    return float(radius[0])


def _median(values: NDArray[np.floating[Any]]) -> float:
    return float(np.median(values)) if values.size else math.nan


def _scatter(values: NDArray[np.floating[Any]]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    return 1.4826 * _median(np.abs(values - _median(values))) if values.size else math.nan
