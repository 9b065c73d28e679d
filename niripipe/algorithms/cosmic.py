"""Cosmic rays in single frames: against a reference image, or by their sharpness."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from typing import Any

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Floats, Indices, Integers, Mask
from niripipe.algorithms.background import measure_background
from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA, NON_LINEAR
from niripipe.algorithms.morphology import dilate
from niripipe.algorithms.robust import SIGMA_TO_FWHM

__all__ = ["CosmicRays", "flag_by_reference", "flag_cosmic_rays"]


# A source's neighbours must reach this share of what the sharpest possible source gives them: a margin for
# noise and for profiles that are not Gaussian.
_MARGIN = 0.7
# Pixels on each side of such a peak that belong to it.
_CORE = 2


@dataclass(frozen=True, slots=True)
class CosmicRays:
    """Cosmic rays of a frame.

    Attributes
    ----------
    hits : ndarray of bool, shape (ny, nx)
        True where a cosmic ray was found.
    data : ndarray of float32, shape (ny, nx), or None
        The frame with the hits replaced by the mean of good pixels in the 5 x 5 around them, when asked for.
    """

    hits: Bool
    data: Float32 | None


def flag_by_reference(
    data: Floats,
    variance: Floats | None,
    reference: Floats,
    reference_variance: Floats | None = None,
    mask: Integers | None = None,
    objmask: Integers | None = None,
    *,
    hsigma: float = 7.0,
    dilation: float = 1.0,
) -> Mask:
    """Flag pixels that are brighter than in a reference image of the same field.

    Parameters
    ----------
    data, variance : ndarray, shape (ny, nx)
        The frame. Without variance the scatter of the difference is the noise.
    reference, reference_variance : ndarray, shape (ny, nx)
        The reference, aligned with the frame and in its unit, usually a median of frames; its level may
        differ. Its variance is added to that of the frame.
    mask : ndarray of uint16, shape (ny, nx), optional
        Data quality of the frame. Pixels with the bits for bad pixels or no data are not flagged.
    objmask : ndarray, shape (ny, nx), optional
        Where it is not zero nothing is flagged: images of different seeing differ in the cores of stars.
    hsigma : float
        Threshold in standard deviations of the noise.
    dilation : float
        Radius of the disc, in pixels, by which the flagged pixels are grown; below 1 they are not.

    Returns
    -------
    ndarray of uint16
        A new mask: that of the frame with the cosmic-ray bit added.

    Raises
    ------
    AlgorithmError
        When fewer than two usable pixels are left to measure the level of the difference.

    Notes
    -----
    A pixel is hit when ``data - reference - level > hsigma * sqrt(variance + reference_variance)``, where the
    level is the background of the difference (DRAGONS, ``flagCosmicRaysByStacking``, with the noise of the
    reference added). Growth goes into objects and flagged pixels too.
    """
    difference = np.subtract(data, reference, dtype=np.float32)
    sky = measure_background(difference, mask, objmask)
    noise: Any = sky.std
    if variance is not None:
        total = variance if reference_variance is None else variance + reference_variance
        noise = np.sqrt(np.maximum(total, 0), dtype=np.float32)
    # A NaN in any plane compares as False.
    hits = difference > np.float32(sky.level) + np.float32(hsigma) * noise
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask.astype(np.uint16)
    hits &= (flags & (BAD | NO_DATA)) == 0
    if objmask is not None:
        hits &= objmask == 0
    flags[dilate(hits, dilation)] |= COSMIC_RAY
    return flags


def flag_cosmic_rays(
    data: Floats,
    variance: Floats | None = None,
    mask: Integers | None = None,
    *,
    gain: float = 1.0,
    read_noise: float = 0.0,
    saturation: float | None = None,
    background: Floats | float = 0.0,
    sigclip: float = 4.5,
    sigfrac: float = 0.3,
    objlim: float = 5.0,
    niter: int = 4,
    least_fwhm: float = 2.0,
    clean: bool = False,
) -> CosmicRays:
    """Find cosmic rays by their sharpness.

    Parameters
    ----------
    data, variance : ndarray, shape (ny, nx)
        The frame. Without variance the noise follows from `data` plus `background`, `gain` and `read_noise`.
    mask : ndarray of uint16, shape (ny, nx), optional
        Data quality. Pixels with any bit but those for non-linear and cosmic-ray pixels are ignored, as are
        values that are not finite.
    gain : float
        Electrons per unit of `data`.
    read_noise : float
        Read noise in electrons. Only used without variance.
    saturation : float, optional
        Saturation level of data plus background, in the unit of `data`; stars above it are left alone.
    background : ndarray or float
        Level that was subtracted from the frame, in the unit of `data`.
    sigclip : float
        Threshold in standard deviations.
    sigfrac : float
        Share of the threshold for pixels next to a hit.
    objlim : float
        Least contrast between a hit and the fine structure of the image.
    niter : int
        Rounds at most.
    least_fwhm : float
        No source in the frame is sharper than this, full width at half maximum in pixels; protects the
        cores of stars. With 0 nothing is protected.
    clean : bool
        Also return the frame with the hits replaced.

    Returns
    -------
    CosmicRays

    Notes
    -----
    The method is L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) as implemented by `astroscrappy`. It takes the
    cores of stars for cosmic rays when the image is undersampled. So the peaks among the hits are checked: if
    the median of the 8 pixels around one, above the local level, is a share of it that even a source of
    `least_fwhm` would reach, it is a source, and what is not brighter within 2 pixels belongs to it.
    """
    from astroscrappy import detect_cosmics

    # Always in electrons, so that one convention holds for gain, variance and result.
    scale = np.float32(gain)
    frame = np.array(data, dtype=np.float32)
    holes = ignored = ~np.isfinite(frame)
    if mask is not None:
        ignored = holes | ((mask.astype(np.uint16, copy=False) & ~np.uint16(NON_LINEAR | COSMIC_RAY)) != 0)
    if holes.any():
        frame[holes] = np.float32(0) if holes.all() else np.median(frame[~holes])
    total = np.ascontiguousarray(scale * (frame + np.asarray(background, np.float32)), dtype=np.float32)
    noise = None
    if variance is not None:
        noise = np.ascontiguousarray(scale**2 * np.asarray(variance, np.float32))
        noise[~(np.isfinite(noise) & (noise > 0))] = np.float32(read_noise**2 + 1)
    hits, cleaned = detect_cosmics(
        total,
        inmask=np.ascontiguousarray(ignored),
        invar=noise,
        gain=1.0,
        readnoise=read_noise,
        satlevel=np.inf if saturation is None else float(gain * saturation),
        sigclip=sigclip,
        sigfrac=sigfrac,
        objlim=objlim,
        niter=niter,
    )
    hits = np.asarray(hits, bool) & ~ignored
    if least_fwhm > 0:
        hits = _without_sources(frame, hits, least_fwhm)
    if not clean:
        return CosmicRays(hits, None)
    replaced = np.array(data, dtype=np.float32)
    without = np.asarray(cleaned, np.float32) / scale - np.asarray(background, np.float32)
    np.copyto(replaced, without, where=hits)
    return CosmicRays(hits, replaced)


def _without_sources(data: Float32, hits: Bool, fwhm: float) -> Bool:
    """Drop hits in the core of a peak whose neighbours are as bright as those of a source."""
    from scipy.ndimage import maximum_filter

    # The pixels next to the peak of a source may be taken for hits even when the peak is not.
    peaks = (data == maximum_filter(data, 3)) & dilate(hits, 1.5)
    y, x = np.nonzero(peaks)
    source = _is_source(data, y, x, fwhm)
    y, x = y[source], x[source]
    kept = hits.copy()
    rows, columns = _around(data.shape, y, x, _CORE)
    # Pixels brighter than the peak are hits next to it.
    below = data[rows, columns] <= data[y, x][:, None]
    kept[rows[below], columns[below]] = False
    return kept


def _around(shape: tuple[int, ...], y: Indices, x: Indices, reach: int) -> tuple[Indices, Indices]:
    """Return rows and columns of the squares around pixels, row by row; edges of the frame are repeated."""
    dy, dx = (step.ravel() for step in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return np.clip(y[:, None] + dy, 0, shape[0] - 1), np.clip(x[:, None] + dx, 0, shape[1] - 1)


def _is_source(data: Float32, y: Indices, x: Indices, fwhm: float) -> Bool:
    distance = np.max(np.abs(np.mgrid[-3:4, -3:4]), axis=0).ravel()
    around = data[_around(data.shape, y, x, 3)]
    level = np.median(around[:, distance == 3], axis=1)
    near = np.median(around[:, distance == 1], axis=1)
    return np.asarray(near - level > _MARGIN * _sharpest(fwhm) * (data[y, x] - level))


def _sharpest(fwhm: float) -> float:
    """Return the least ratio of the median of the 8 pixels around a peak to the peak, for a Gaussian source.

    It is least for a source on the corner of four pixels, two of which are taken along each axis.
    """
    sigma = fwhm / SIGMA_TO_FWHM
    profile = np.diff([0.5 * (1 + erf(edge / (sigma * sqrt(2)))) for edge in (-2, -1, 0, 1)])
    square = np.outer(profile, profile).ravel()
    return float(np.median(np.delete(square, 4)) / square[4])
