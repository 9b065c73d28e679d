"""Measuring sources that were detected: fluxes, widths and windowed positions, into their catalogue.

Planes are free of background. Objects are those of ``sep.extract``: positions, axes and angles of ellipses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Float64, Floats
from niripipe.algorithms.profile import measure_profiles
from niripipe.algorithms.robust import SIGMA_TO_FWHM
from niripipe.algorithms.source_catalogue import MISSING, Catalogue
from niripipe.aperture_noise import ApertureNoise

__all__ = [
    "PixelNoise",
    "add_isophotal_fluxes",
    "add_kron_fluxes",
    "add_widths",
    "add_windowed_positions",
]


@dataclass(frozen=True, slots=True)
class PixelNoise:
    """Variances of pixels, and what the noise of sums over them has beside.

    Attributes
    ----------
    variance : ndarray of float32, shape (ny, nx)
        Finite everywhere.
    apertures : ApertureNoise
        Correlation and residual sky.
    depth : ndarray of int, shape (ny, nx), or None
        Number of frames in each pixel.
    """

    variance: Float32
    apertures: ApertureNoise
    depth: NDArray[Any] | None = None

    def of_sums(self, summed: Float64, area: Float64, x: Float64, y: Float64) -> Float64:
        """Return the variances of sums over round apertures.

        Parameters
        ----------
        summed, area : ndarray of float64, shape (n,)
            Sum of the variances in each, and its area (pixels).
        x, y : ndarray of float64, shape (n,)
            Their centres, 0-based.
        """
        share = np.ones(x.shape)
        if self.depth is not None:
            here = self.depth[np.rint(y).astype(int), np.rint(x).astype(int)]
            share = max(int(self.depth.max(initial=1)), 1) / np.maximum(here, 1)
        return np.asarray(self.apertures.factor(area) * summed + share * self.apertures.residual(area))


def add_kron_fluxes(
    catalogue: Catalogue,
    objects: Any,
    plane: Float32,
    segments: NDArray[np.int32],
    hidden: Bool | None,
    *,
    rms: float,
    gain: float,
    least: float,
    noise: PixelNoise | None = None,
) -> None:
    """Measure fluxes in 2.5 Kron radii; pixels of neighbours are replaced by those opposite.

    The errors are those of `ApertureNoise`: the variances in the aperture, the correlation of neighbouring
    pixels, and residual sky.

    Parameters
    ----------
    catalogue : structured ndarray, shape (n,)
        Gets fluxes, magnitudes and flags.
    objects : structured ndarray, shape (n,)
    plane : ndarray of float32, shape (ny, nx)
    segments : ndarray of int32, shape (ny, nx)
        1 plus the index of the object of each pixel, 0 outside of objects.
    hidden : ndarray of bool, shape (ny, nx), or None
        Pixels without a usable value.
    rms : float
        Noise of a pixel.
    gain : float
        Electrons per unit.
    least : float
        Least size of the aperture, in units of the axes.
    noise : PixelNoise, optional
        Variances of the pixels, and what sums over them have beside. Without it a source has the noise of
        independent pixels of this rms, and of its own photons.
    """
    import sep

    x, y, a, b, theta = shape = _ellipses(objects)
    kron, _ = sep.kron_radius(
        plane, *shape, 6.0, mask=hidden, segmap=segments, seg_id=np.arange(1, x.size + 1)
    )
    radius = np.fmax(2.5 * kron, least)
    flux, error, flag = sep.sum_ellipse(plane, *shape, radius, err=rms, gain=gain)
    squares = error**2 if noise is None else sep.sum_ellipse(noise.variance, *shape, radius)[0]
    extent = np.ceil(a * radius).astype(np.intp) + 1
    for k in range(x.size):
        found = _without_neighbours(plane, segments, k + 1, x[k], y[k], int(extent[k]))
        if found is not None:
            stamp, x0, y0 = found
            one = slice(k, k + 1)
            ellipse = x[one] - x0, y[one] - y0, a[one], b[one], theta[one]
            flux[one] = sep.sum_ellipse(stamp, *ellipse, radius[one])[0]
            catalogue["FLAGS"][k] |= 1
            again = None
            if noise is not None:
                again = _without_neighbours(noise.variance, segments, k + 1, x[k], y[k], int(extent[k]))
            if again is not None:
                squares[one] = sep.sum_ellipse(again[0], *ellipse, radius[one])[0]
    if noise is not None:
        area = np.pi * a * b * radius**2
        error = np.sqrt(noise.of_sums(squares, area, x, y))
    catalogue["FLAGS"] |= np.where(flag & 0x10, 16, 0).astype(np.int16)
    _set_flux(catalogue, flux, error)


def add_isophotal_fluxes(
    catalogue: Catalogue, objects: Any, *, thresh: float, rms: float, gain: float
) -> None:
    """Take the flux above the threshold (in units of ``rms``), and add what a normal profile has below it.

    Of area A and threshold t per flux F the share above is 1 - 0.1961 A t / F - 0.7512 (A t / F)^2
    (SExtractor's correction; Maddox et al. 1990, MNRAS 246, 433).
    """
    flux, area = objects["flux"].astype(np.float64), objects["npix"].astype(np.float64)
    faintness = area * thresh * rms / np.maximum(flux, 1e-6)
    # Noise and odd shapes must not do more than double a flux.
    share = np.maximum(1 - 0.1961 * faintness - 0.7512 * faintness**2, 0.5)
    error = np.sqrt(area * rms**2 + np.maximum(flux, 0) / gain)
    _set_flux(catalogue, flux / share, error / share)


def add_widths(
    catalogue: Catalogue, objects: Any, plane: Float32, half_size: int, *, half_light: bool
) -> None:
    """Measure profiles on stamps and, unless ``half_light`` is False, half-light radii of all sources."""
    x, y = objects["x"], objects["y"]
    flux, peak = catalogue["FLUX_AUTO"], catalogue["FLUX_MAX"]
    result = measure_profiles(plane, x, y, flux, peak, half_size=half_size)
    catalogue["PROFILE_FWHM"], catalogue["PROFILE_EE50"] = result.fwhm, result.ee50
    catalogue["FLUX_MAX"] = result.peak
    # Near the edges, where no stamp fits, the half-light radius has to do.
    measured = result.core > 0
    radius = _half_light_radius(objects, plane, flux, ~measured | half_light)
    catalogue["FLUX_RADIUS"] = radius
    catalogue["FWHM_IMAGE"] = np.where(measured, result.core, np.where(radius > 0, 2 * radius, MISSING))


def add_windowed_positions(
    catalogue: Catalogue,
    objects: Any,
    plane: Float32,
    hidden: Bool | None,
    *,
    rms: float,
    gain: float,
    width: float,
) -> None:
    """Measure centroids in a window as wide as the source, and their errors.

    Sources that may be stars get a window of the stars' common ``width`` (FWHM, pixels; NaN if unknown).

    With a normal source of deviation s and flux F, a window of deviation w and background noise r the
    centroid's variance per axis is 2 pi r^2 (w^2 + s^2)^2 / F^2 + 4 t^4 (w^2 + s^2)^2 / (gain F s^2 w^4)
    with 1/t^2 = 1/s^2 + 2/w^2, from propagating each pixel's variance through x + 2 sum(g f dx) / sum(g f).
    """
    import sep

    sigma = np.clip(catalogue["FWHM_IMAGE"].astype(np.float64), 1.0, 15.0) / SIGMA_TO_FWHM
    if np.isfinite(width):
        # Widths of faint stars are noisy; the stars' common one serves every source that may be a star.
        alike = np.abs(np.log(sigma * SIGMA_TO_FWHM / width)) < 0.5
        sigma = np.where(alike, width / SIGMA_TO_FWHM, sigma)
    x0, y0 = objects["x"].astype(np.float64), objects["y"].astype(np.float64)
    # The weight is 3e-4 at the edge of the window: how finely pixels there are divided moves the centroid by
    # a thousandth of its error.
    x, y, _ = sep.winpos(plane, x0, y0, sigma, mask=hidden, subpix=1)
    # An iteration that ran away to a neighbour ends far from the barycentre.
    sane = np.hypot(x - x0, y - y0) < np.maximum(2.0, objects["a"])
    flux = np.maximum(catalogue["FLUX_AUTO"].astype(np.float64), 1e-30)
    noise, photons = 2 * np.pi * rms**2 * (2 * sigma**2) ** 2 / flux**2, 16 / 9 * sigma**2 / (gain * flux)
    isophotal = np.sqrt(0.5 * (catalogue["ERRX2_IMAGE"] + catalogue["ERRY2_IMAGE"]))
    catalogue["XWIN_IMAGE"] = np.where(sane, x, x0) + 1
    catalogue["YWIN_IMAGE"] = np.where(sane, y, y0) + 1
    catalogue["ERRWIN_IMAGE"] = np.minimum(np.where(sane, np.sqrt(noise + photons), isophotal), 1e6)


def _set_flux(catalogue: Catalogue, flux: Floats, error: Floats) -> None:
    """Write fluxes, and the magnitudes of those that are positive."""
    catalogue["FLUX_AUTO"], catalogue["FLUXERR_AUTO"] = flux, error
    positive = flux > 0
    ratio = np.where(positive, flux, 1.0)
    catalogue["MAG_AUTO"] = np.where(positive, -2.5 * np.log10(ratio), 99.0)
    catalogue["MAGERR_AUTO"] = np.where(positive, 2.5 / np.log(10) * error / ratio, 99.0)


def _ellipses(objects: Any) -> list[Float64]:
    """Return centres, axes and angle (radians) as `sep` wants them."""
    x, y, a, b, theta = (objects[name].astype(np.float64) for name in ("x", "y", "a", "b", "theta"))
    return [x, y, a, b, np.clip(theta, -np.pi / 2, np.pi / 2)]


def _without_neighbours(
    plane: Float32, segments: NDArray[np.int32], label: int, x: float, y: float, extent: int
) -> tuple[Float32, int, int] | None:
    """Return a stamp around a source with other sources replaced, and its corner (x, y); None without any."""
    ny, nx = plane.shape
    ix, iy = round(x), round(y)
    x0, x1 = max(ix - extent, 0), min(ix + extent + 1, nx)
    y0, y1 = max(iy - extent, 0), min(iy + extent + 1, ny)
    labels = segments[y0:y1, x0:x1]
    foreign = (labels != 0) & (labels != label)
    if not foreign.any():
        return None
    stamp = plane[y0:y1, x0:x1].copy()
    row, column = np.nonzero(foreign)
    mirror_row, mirror_column = 2 * (iy - y0) - row, 2 * (ix - x0) - column
    inside = (mirror_row >= 0) & (mirror_row < y1 - y0) & (mirror_column >= 0) & (mirror_column < x1 - x0)
    value = np.zeros(row.size, dtype=np.float32)
    r, c = mirror_row[inside], mirror_column[inside]
    value[inside] = np.where(foreign[r, c], 0, stamp[r, c])
    stamp[row, column] = value
    return stamp, x0, y0


def _half_light_radius(objects: Any, plane: Float32, flux: Float32, which: Bool) -> Float64:
    """Return the radius of the circle with half of the flux, at most 6 axes; NaN for sources not chosen."""
    import sep

    x, y, a, _, _ = _ellipses(objects)
    normal = np.maximum(flux.astype(np.float64), 1e-6)
    radius = np.full(x.size, np.nan)
    # The cost is proportional to the square of the reach: half of the light lies within two axes of nearly
    # all sources, and well within three of the largest.
    for large, subpixels, reaches in ((a <= 10, 3, (2.0, 6.0)), (a > 10, 1, (2.0, 3.0))):
        todo = np.flatnonzero(which & large)
        for reach in reaches:
            if todo.size:
                limit = reach * a[todo]
                radius[todo] = sep.flux_radius(
                    plane, x[todo], y[todo], limit, 0.5, normflux=normal[todo], subpix=subpixels
                )[0]
                todo = todo[radius[todo] >= 0.999 * limit]
    return radius
