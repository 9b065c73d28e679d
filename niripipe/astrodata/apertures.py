"""The noise of sums over the pixels of an extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.aperture_noise import ApertureNoise, disc
from niripipe.errors import InputError

if TYPE_CHECKING:
    from niripipe.astrodata.extension import Extension

__all__ = ["aperture_noise", "variance_of_sums"]


def aperture_noise(header: Any) -> ApertureNoise:
    """Return the noise that the header of an extension describes (NOISCORR, NOISSKY, NOISLEN)."""
    correlation, rms, length = (
        float(header.get(key, default))
        for key, default in (("NOISCORR", 1.0), ("NOISSKY", 0.0), ("NOISLEN", 0.0))
    )
    return ApertureNoise(correlation, rms, length)


def variance_of_sums(
    ext: Extension, x: ArrayLike, y: ArrayLike | None = None, r: ArrayLike | None = None
) -> Any:
    """Return the variance of sums over apertures.

    It has the variances of the pixels, the correlation of neighbouring pixels, which makes it larger by 1 (a
    single pixel) to NOISCORR (large apertures), and the residual sky (NOISSKY, NOISLEN) that `detectSources`
    measured on apertures without sources. Where fewer frames contribute than elsewhere (COVERAGE) residual
    sky is larger.

    Parameters
    ----------
    ext : Extension
        With variances.
    x, y, r : float or array_like
        Centres (0-based) and radii of circles, pixels; a radius for all, or one each. Or `x` alone: an array
        as large as the image, of what each pixel is multiplied by or of which pixels count.

    Returns
    -------
    float, or ndarray of float64
        In the square of the data's unit: one number for one aperture, else one each. NaN for circles that
        reach beyond the image, or where a variance is not known.

    Raises
    ------
    InputError
        There are no variances, the array does not have the shape of the image, or `y` or `r` is missing.

    Examples
    --------
    ``error = np.sqrt(ext.aperture_variance(x, y, 5.0))``
    """
    variance = ext.read("variance")
    if variance is None:
        raise InputError("without variances there is no variance of a sum", item="aperture_variance")
    noise, coverage = aperture_noise(ext.hdr), ext.read("COVERAGE")
    most = 1 if coverage is None else max(int(coverage.max(initial=1)), 1)

    def of(rows: slice, columns: slice, weights: NDArray[Any]) -> float:
        depth = 1.0
        if coverage is not None:
            frames = coverage[rows, columns][weights > 0]
            depth = most / max(float(frames.mean()), 1.0) if frames.size else 1.0
        return noise.of_sum(weights, np.where(weights != 0, variance[rows, columns], 0), depth)

    if y is None and r is None:
        weights = np.asarray(x)
        if weights.shape != ext.shape:
            raise InputError(
                "the pixels of an aperture are given as an array as large as the image",
                item="x",
                found=weights.shape,
                expected=ext.shape,
            )
        return of(*_box(weights), weights[_box(weights)])
    if y is None or r is None:
        raise InputError("circles need x, y and r", item="aperture_variance")
    centres = np.broadcast_arrays(*(np.asarray(value, float) for value in (x, y, r)))
    result = np.full(centres[0].shape, np.nan)
    for k in np.ndindex(result.shape):
        rows, columns, shares = disc(*(float(values[k]) for values in centres))
        if min(rows.start, columns.start) >= 0 and rows.stop <= ext.shape[0] and columns.stop <= ext.shape[1]:
            result[k] = of(rows, columns, shares)
    return float(result) if result.ndim == 0 else result


def _box(weights: NDArray[Any]) -> tuple[slice, slice]:
    """Return the smallest box with all pixels that count."""
    limits = []
    for axis in (1, 0):
        used = np.flatnonzero((weights != 0).any(axis=axis))
        limits.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return limits[0], limits[1]
