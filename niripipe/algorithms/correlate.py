"""Finding the shift between two images by correlating them.

As with `niripipe.algorithms.match`, a shift is refused rather than guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float32, Float64, Floats
from niripipe.algorithms.background import background_map
from niripipe.algorithms.register import Registration
from niripipe.algorithms.robust import MAD_TO_SIGMA, good_pixels, robust_sigma

__all__ = ["cross_correlation_shift"]


# A correlation has no pairs to clip; its error is less certain than that of a match, and the limits lower.
# Beyond the first two (pixels, FWHM; the larger counts) a shift is doubtful, beyond the third (FWHM) refused.
_DOUBTFUL, _DOUBTFUL_FWHM, _MAX_ERROR_FWHM = 0.055, 0.014, 0.08
# Height of the peak above the next independent one, in deviations of the correlation.
_MIN_SIGNIFICANCE = 5.0
# What is nearer to the peak than this (pixels) belongs to it.
_PEAK_RADIUS = 12
# A peak nearer to the shift that keeps detector pixels together (pixels) may be residual pattern.
_PATTERN_RADIUS = 3.0
# What extended sources and residual sky add to the error, pixels: measured on frames with a galaxy over the
# field.
_SYSTEMATIC = 0.03
# Share of the images' structure, noise apart, that the peak must explain; a coincidence of one bright star
# among many does not.
_AGREEMENT = 0.5
# Side of the box whose mean is taken off before correlating, pixels: several times the width of a star.
_BOX = 21
# Deviation of the smoothing of both images, pixels: that of good seeing at f/6 narrowed to keep peaks sharp.
_SMOOTHING = 1.5


def cross_correlation_shift(
    image: Floats,
    reference: Floats,
    mask: NDArray[Any] | None = None,
    reference_mask: NDArray[Any] | None = None,
    *,
    max_shift: float,
    avoid: tuple[float, float] | None = None,
    fwhm: float = float("nan"),
) -> Registration:
    """Find the shift between two images by correlating them.

    Parameters
    ----------
    image, reference : ndarray, shape (ny, nx)
        Images of the same shape.
    mask, reference_mask : ndarray of the same shape, optional
        Pixels that are not zero are left out.
    max_shift : float
        Largest shift along an axis, pixels; at least 1, at most half of the side of the images.
    avoid : tuple of float, optional
        Shift (dx, dy) at which things that stay with the detector line up, when it is known: (0, 0) where
        neither image has been moved. A peak within 3 pixels of it is not accepted: it may be residual
        pattern. Give it whenever the headers say that the telescope has moved.
    fwhm : float
        FWHM of the sources, pixels; NaN where unknown.

    Returns
    -------
    Registration
        What is at (x, y) in ``image`` is at (x + dx, y + dy) in ``reference``. Accepted only when the peak is
        higher than the next independent one by 5 deviations of the correlation, the standard error of its
        position is below 0.055 pixel or 0.08 FWHM, and half of the images' structure is in common. Above
        0.055 pixel or 0.014 FWHM the shift is doubtful.

    Raises
    ------
    AlgorithmError
        When an image has no usable pixel.

    Notes
    -----
    Background (mesh of 32 pixels) and everything wider than 21 pixels is removed; single pixels that
    stand out from all neighbours are levelled; values are clipped to -3 ... +50 deviations and compressed
    by a square root above 3, so that no single star or cosmic ray decides. Correlation is by FFT with zero
    padding, smoothed as if both images were by a normal profile of 1.5 pixels. The peak is found by a
    paraboloid through 3 x 3 values; its error is w / (peak / deviation) with w the peak's own width from
    its curvature, times the root of the share of structure that is not in common (fields of 1 to 60 stars
    scatter by 0.8 to 1.2 times that), and 0.03 pixel in quadrature for extended sources. What both images
    have in common is the peak over the geometric mean of the two autocorrelations, white noise subtracted.
    """
    reach = int(np.ceil(max_shift))
    plane, plane_ref = _flattened(image, mask), _flattened(reference, reference_mask)
    surface, power, power_ref = _correlate(plane, plane_ref, reach)
    centre = ((image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
    py, px = (int(k) for k in np.unravel_index(int(np.argmax(surface)), surface.shape))
    if not (0 < py < 2 * reach and 0 < px < 2 * reach):
        reason = "the correlation is highest at the limit of the search"
        return Registration(method="correlation", centre=centre, reason=reason)
    fy, fx, width = _summit(surface[py - 1 : py + 2, px - 1 : px + 2])
    dx, dy = px - reach + fx, py - reach + fy
    significance, deviation = _prominence(surface, py, px)
    height = float(surface[py, px])
    signal = np.sqrt(max(power, 0.0) * max(power_ref, 0.0))
    agreement = height / signal if signal > 0 else 0.0
    different = float(np.sqrt(1 - np.clip(agreement, 0, 0.95)))
    error = float("nan")
    if height > 0:
        error = float(np.hypot(different * width * deviation / height, _SYSTEMATIC))
    problem = ""
    if significance < _MIN_SIGNIFICANCE:
        problem = f"not above the next peak by {_MIN_SIGNIFICANCE:g} deviations: "
    elif agreement < _AGREEMENT:
        problem = "most of what one image shows is not in the other: "
    elif not error < np.fmax(_DOUBTFUL, _MAX_ERROR_FWHM * fwhm):
        problem = "too uncertain: "
    elif avoid is not None and np.hypot(dx - avoid[0], dy - avoid[1]) < _PATTERN_RADIUS:
        problem = "may be structure that stays with the detector: "
    uncertain = not problem and error >= np.fmax(_DOUBTFUL, _DOUBTFUL_FWHM * fwhm)
    return Registration(
        method="correlation",
        centre=centre,
        accepted=not problem,
        doubt=f"uncertain: standard error {error:.3f} pixel" if uncertain else "",
        reason=f"{problem}{100 * agreement:.0f} % of the structure in common, peak {significance:.1f} "
        f"deviations above the next, error {error:.3f} pixel",
        dx=dx,
        dy=dy,
        error=error,
        significance=significance,
    )


def _flattened(image: Floats, mask: NDArray[Any] | None) -> Float32:
    from scipy.ndimage import uniform_filter

    bad = ~good_pixels(image, mask)
    background = background_map(image, bad, box=32, filter_size=3)
    plane = np.where(bad, np.float32(0), image - background.level).astype(np.float32)
    inner = plane[1:-1, 1:-1]
    near = (plane[:-2, 1:-1], plane[2:, 1:-1], plane[1:-1, :-2], plane[1:-1, 2:])
    plane[1:-1, 1:-1] = np.clip(inner, np.minimum.reduce(near), np.maximum.reduce(near))
    plane = np.clip(plane / np.float32(background.rms if background.rms > 0 else 1.0), -3, 50)
    high = plane > 3
    plane[high] = np.sqrt(3 * plane[high])
    # Galaxies and what the mesh left of the sky would spread the peak over the whole search box.
    share = uniform_filter((~bad).astype(np.float32), _BOX, mode="constant")
    plane -= uniform_filter(plane, _BOX, mode="constant") / np.maximum(share, np.float32(0.05))
    plane[bad] = 0
    return np.asarray(plane, dtype=np.float32)


def _correlate(image: Float32, reference: Float32, reach: int) -> tuple[Float64, float, float]:
    """Smoothed sum of image(x) reference(x + d) for |d| <= reach, and what it would be for equal images."""
    from scipy.fft import fftfreq, irfft2, next_fast_len, rfft2, rfftfreq

    shape = tuple(next_fast_len(size + reach + 1, real=True) for size in image.shape)
    # Each image smoothed by s: exp(-2 pi^2 s^2 f^2) twice.
    factor = -4 * np.pi**2 * _SMOOTHING**2
    along_y, along_x = (
        np.exp(factor * frequency**2).astype(np.float32)
        for frequency in (fftfreq(shape[0]), rfftfreq(shape[1]))
    )
    smooth = along_y[:, None] * along_x
    spectrum, spectrum_ref = rfft2(image, shape), rfft2(reference, shape)
    full = irfft2(np.conj(spectrum) * spectrum_ref * smooth, shape)
    index = np.arange(-reach, reach + 1)
    surface = full[np.ix_(index % shape[0], index % shape[1])].astype(np.float64)
    power, power_ref = _power(spectrum, image, smooth, shape), _power(spectrum_ref, reference, smooth, shape)
    return surface, power, power_ref


def _power(spectrum: NDArray[Any], plane: Floats, smooth: Floats, shape: tuple[int, ...]) -> float:
    """Smoothed autocorrelation at no shift, less what white noise contributes to it."""
    weight = np.full(spectrum.shape[1], 2.0)
    weight[0] = 1.0
    if shape[1] % 2 == 0:
        weight[-1] = 1.0
    total = float(((np.abs(spectrum) ** 2 * smooth).sum(axis=0) * weight).sum()) / (shape[0] * shape[1])
    used = plane[plane != 0]
    if used.size == 0:
        return 0.0
    deviation = MAD_TO_SIGMA * float(np.median(np.abs(used[:: max(1, used.size // 65536)])))
    return float(total - deviation**2 * used.size / (4 * np.pi * _SMOOTHING**2))


def _summit(values: Floats) -> tuple[float, float, float]:
    """Offset (y, x) of the summit of a paraboloid through 3 x 3 values about the highest one, and its width.

    The width is the deviation of the normal profile with the same height and mean curvature.
    """
    y, x = np.mgrid[-1:2, -1:2]
    design = np.column_stack(
        [np.ones(9), x.ravel(), y.ravel(), x.ravel() ** 2, (x * y).ravel(), y.ravel() ** 2]
    )
    top, b, c, d, e, f = np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    hessian = np.array([[2 * f, e], [e, 2 * d]])
    if np.linalg.det(hessian) <= 0 or top <= 0:
        return 0.0, 0.0, float("inf")
    dy, dx = np.linalg.solve(hessian, [-c, -b])
    width = float(np.sqrt(-top / (d + f))) if d + f < 0 else float("inf")
    return float(np.clip(dy, -1, 1)), float(np.clip(dx, -1, 1)), width


def _prominence(surface: Floats, py: int, px: int) -> tuple[float, float]:
    """Height of the peak above the next one, in deviations of the surface, and that deviation."""
    y, x = np.ogrid[: surface.shape[0], : surface.shape[1]]
    rest = surface[(y - py) ** 2 + (x - px) ** 2 > _PEAK_RADIUS**2]
    if rest.size == 0:
        return 0.0, float("inf")
    deviation = robust_sigma(rest)
    return (float(surface[py, px] - rest.max()) / deviation if deviation > 0 else 0.0), deviation
