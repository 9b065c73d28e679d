"""Combination of the pixels of a block: reduction of plain pixels at once, of others with care."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import bits
from niripipe.algorithms.sorting import order_rows

from .inputs import Planes
from .reduce import mean_and_variance, reduce_all, reduce_used
from .reject import doubtful, reject
from .select import UNUSABLE, count_true, select_usable
from .settings import Settings

__all__ = [
    "Combined",
    "combine_pixels",
    "combine_special",
    "correct_for_missing",
    "counter",
    "mean_of_used",
    "weighted_mean_of_used",
]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Mask = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Combined:
    """What `combine` returns.

    Attributes
    ----------
    data, variance : ndarray of float32
        Planes ``(ny, nx)``. Only `subset_medians` of inputs without variances have no variance.
    mask : ndarray of uint16 or None
        Bitwise OR of the masks of the inputs used; None if no input had a mask.
    count : ndarray of uint8 (or uint16 above 255 inputs)
        Number of inputs used. DRAGONS's rejection map is the number of inputs less this.
    exposure : ndarray of float32, or None
        Sum of the exposures of the inputs used, if they were given.
    rejected : ndarray of float64, or None
        Share of the usable pixels of each input, ``(n,)``, that the noise model has rejected.
    """

    data: Float32
    variance: Float32 | None
    mask: Mask | None
    count: NDArray[np.integer[Any]]
    exposure: NDArray[np.floating[Any]] | None = None
    rejected: NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, shape: tuple[int, ...], n: int, *, with_mask: bool, with_exposure: bool) -> Combined:
        """Return a result of `n` inputs to be filled in."""
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.uint16) if with_mask else None,
            np.empty(shape, counter(n)),
            np.empty(shape, np.float32) if with_exposure else None,
        )

    def flat_rows(self, rows: slice) -> Combined:
        """Return flat views of some rows."""
        return Combined(
            self.data[rows].reshape(-1),
            None if self.variance is None else self.variance[rows].reshape(-1),
            None if self.mask is None else self.mask[rows].reshape(-1),
            self.count[rows].reshape(-1),
            None if self.exposure is None else self.exposure[rows].reshape(-1),
        )

    def put(self, where: NDArray[np.intp], pixels: Combined) -> None:
        """Set pixels of flat planes at some indices."""
        self.data[where] = pixels.data
        if self.variance is not None:
            self.variance[where] = pixels.variance
        self.count[where] = pixels.count
        if self.mask is not None and pixels.mask is not None:
            self.mask[where] = pixels.mask
        if self.exposure is not None and pixels.exposure is not None:
            self.exposure[where] = pixels.exposure


def counter(n: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest type that counts up to `n`, of 8 bits or more."""
    return np.dtype(np.uint8 if n < 256 else np.uint16)


def combine_pixels(
    planes: Planes,
    kept: Bool | None,
    settings: Settings,
    out: Combined,
    exposures: NDArray[np.float64] | None,
) -> None:
    """Combine pixels of which most are plain: all their inputs are used.

    Parameters
    ----------
    planes : Planes
        Inputs ``(n, pixels)``; not changed.
    kept : ndarray of bool, or None
        ``(n, pixels)``: False for the outliers that the noise model has found.
    settings : Settings
    out : Combined
        Flat planes ``(pixels,)``, which receive the result.
    exposures : ndarray of float64, or None
        Exposure of each input ``(n,)``.
    """
    data, variance, mask = planes.data, planes.variance, planes.mask
    assert out.variance is not None
    order = None
    if settings.operation == "median" or settings.reject in ("sigclip", "varclip"):
        order = order_rows(data)
    total = np.add.reduce(data, axis=0)
    special, variances = ~np.isfinite(total), None
    if variance is not None:
        variances = np.add.reduce(variance, axis=0)
        special |= ~np.isfinite(variances)
        if settings.operation == "wtmean":
            special |= np.minimum.reduce(variance, axis=0) <= 0
    if mask is not None:
        flags = np.bitwise_or.reduce(mask, axis=0, out=out.mask)
        special |= flags & UNUSABLE != 0
    rejected = sum(settings.trim) if settings.reject == "minmax" else 0
    if kept is not None:
        special |= ~np.logical_and.reduce(kept, axis=0)
    elif order is not None and settings.reject in ("sigclip", "varclip"):
        special |= doubtful(data, variance, order, total, settings)
    elif settings.reject == "minmax":
        # A median is known without knowing what is rejected, unless flags or exposures have to be.
        if not settings.trims_median or (rejected and exposures is not None):
            special[:] = True
        elif mask is not None:
            special |= flags != 0
    out.count[:] = len(data) - rejected
    if out.exposure is not None and exposures is not None:
        out.exposure[:] = exposures.sum()
    where = np.flatnonzero(special)
    if where.size < special.size:
        median = None if order is None else order.median
        out.data[:], out.variance[:] = reduce_all(data, variance, median, (total, variances), settings)
    if where.size:
        some = planes.each(lambda plane: plane.take(where, axis=1))
        kept = None if kept is None else kept.take(where, axis=1)
        out.put(where, combine_special(some, kept, settings, exposures))


def combine_special(
    planes: Planes,
    kept: Bool | None,
    settings: Settings,
    exposures: NDArray[np.float64] | None = None,
) -> Combined:
    """Combine pixels that need everything looked at: flags, values that are not finite, outliers.

    The arguments are those of `combine_pixels`, but values that are not finite become 0. The planes of the
    result have the shape ``(pixels,)``.
    """
    data, variance, mask = planes.data, planes.variance, planes.mask
    finite = planes.finite()
    usable = select_usable(mask, finite)
    for plane in (data, variance):
        if plane is not None:
            np.putmask(plane, ~finite, 0)
    if kept is not None:
        used = usable & kept
    elif settings.reject == "none":
        used = usable
    else:
        used = reject(data, variance, usable, settings)
    count = count_true(used)
    value, spread = reduce_used(data, variance, used, usable, settings)
    flags = exposure = None
    if mask is not None:
        flags = np.bitwise_or.reduce(mask * used, axis=0)
        nothing = count == 0
        flags[nothing] = np.bitwise_or.reduce(mask[:, nothing], axis=0) | bits.NO_DATA
    if exposures is not None:
        exposure = np.zeros(count.size)
        for one, there in zip(exposures, used, strict=True):
            exposure += one * there
    return Combined(value, spread, flags, count, exposure)


def mean_of_used(planes: Planes, used: Bool, out: Combined, exposures: NDArray[np.float64] | None) -> None:
    """Take the mean of the inputs used, of which many pixels lack some.

    The result is bit for bit that of `combine_special`, without picking pixels out of all inputs.

    Parameters
    ----------
    planes : Planes
        Inputs ``(n, pixels)`` with variances. Those that are not used become 0.
    used : ndarray of bool
        Which are used, ``(n, pixels)``.
    out, exposures
        As for `combine_pixels`.
    """
    data, variance, mask = planes.data, planes.variance, planes.mask
    assert variance is not None
    assert out.variance is not None
    count = count_true(used)
    nothing = np.flatnonzero(count == 0)
    flags = 0 if mask is None else np.bitwise_or.reduce(mask[:, nothing], axis=0) | bits.NO_DATA
    missing = np.zeros(count.size)
    for k, unused in enumerate(~used):
        where = np.flatnonzero(unused)
        data[k, where] = 0
        variance[k, where] = 0
        if mask is not None:
            mask[k, where] = 0
        if exposures is not None:
            missing[where] += exposures[k]
    out.data[:], out.variance[:] = mean_and_variance(data, variance, count)
    out.count[:] = count
    if mask is not None and out.mask is not None:
        np.bitwise_or.reduce(mask, axis=0, out=out.mask)
        out.mask[nothing] = flags
    if out.exposure is not None and exposures is not None:
        out.exposure[:] = exposures.sum() - missing


def weighted_mean_of_used(
    planes: Planes,
    used: Bool,
    weights: NDArray[np.float64],
    out: Combined,
    exposures: NDArray[np.float64] | None,
) -> None:
    """Take the weighted mean of the inputs used: ``sum(w d) / sum(w)``, variance ``sum(w**2 v) / sum(w)**2``.

    Parameters
    ----------
    planes, used, out, exposures
        As for `mean_of_used`. Data and variances are multiplied by the weights.
    weights : ndarray of float64
        Positive, ``(n,)``.
    """
    assert planes.variance is not None
    total = np.zeros(used.shape[1], np.float32)
    for k, weight in enumerate(weights.astype(np.float32)):
        planes.data[k] *= weight
        planes.variance[k] *= weight**2
        total += weight * used[k]
    mean_of_used(planes, used, out, exposures)
    assert out.variance is not None
    factor = np.divide(out.count, total, out=np.zeros_like(total), where=total > 0)
    out.data[:] *= factor
    out.variance[:] *= factor**2


def correct_for_missing(
    used: Bool,
    fluxes: tuple[float, ...],
    background: float,
    out: Combined,
    weights: NDArray[np.float64] | None = None,
) -> None:
    """Give pixels that lack inputs, or whose inputs have weights, the mean that all inputs would have.

    Parameters
    ----------
    used : ndarray of bool
        Which inputs are used, ``(n, pixels)``.
    fluxes : tuple of float
        Relative flux of the sources in each input.
    background : float
        Level above which the flux counts.
    out : Combined
        Flat planes with the means, which are changed.
    weights : ndarray of float64, optional
        Weights of the inputs in the mean, ``(n,)``.
    """
    flux = np.array(fluxes)
    equal = weights is None
    share = np.ones(len(flux)) if weights is None else weights
    where = np.flatnonzero(((out.count < len(used)) | (not equal)) & (out.count > 0))
    if not where.size:
        return
    total = out.count[where] if equal else share @ used[:, where]
    mean = (share * flux) @ used[:, where] / total
    factor = (flux.mean() / mean).astype(np.float32)
    level = np.float32(background)
    out.data[where] = (out.data[where] - level) * factor + level
    if out.variance is not None:
        out.variance[where] *= factor**2
