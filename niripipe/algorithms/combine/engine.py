"""The combination of planes: blocks of rows in, rows of one plane out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import check_threads, map_blocks
from niripipe.algorithms.sources import RowSource
from niripipe.errors import DataError, ParameterError

from .inputs import Inputs, Numbers, Planes, per_input
from .noiseclip import HALO, NoiseModel, outliers
from .pixels import (
    Combined,
    combine_pixels,
    correct_for_missing,
    mean_of_used,
    weighted_mean_of_used,
)
from .reject import reject as rejected_by
from .select import select_usable
from .settings import Operation, Rejection, Settings

__all__ = ["combine"]

_BLOCK_VALUES = 1 << 20
"""Values of all inputs together in a block of rows: data, variance and mask of them take 10 megabytes a
thread. Threads wait for each other in smaller blocks."""
_BLOCK_PIXELS = 1 << 16
"""Pixels of a block at most, so that the planes computed from a few inputs stay in the cache."""
_LEAST_ROWS = 8 * HALO
"""Rows of a block at least for the noise model, which needs some more on either side."""


def combine(
    data: Sequence[RowSource] | NDArray[Any],
    variance: Sequence[RowSource] | NDArray[Any] | None = None,
    mask: Sequence[RowSource | None] | NDArray[Any] | None = None,
    *,
    operation: Operation = "mean",
    reject: Rejection = "none",
    hsigma: float = 3.0,
    lsigma: float = 3.0,
    mclip: bool = True,
    max_iters: int | None = None,
    nlow: int = 0,
    nhigh: int = 0,
    scale: Numbers | None = None,
    zero: Numbers | None = None,
    noise: NoiseModel | None = None,
    weights: Numbers | None = None,
    threads: int = 1,
    exposures: Sequence[float] | None = None,
    rows_per_block: int | None = None,
) -> Combined:
    """Combine planes of one shape, pixel by pixel.

    Data become ``data * scale + zero`` and variances ``variance * scale**2``; then each pixel selects its
    inputs by data quality, rejects outliers among them, and reduces the rest. The working memory is a
    block of rows of all inputs per thread, whatever the number and size of the planes; the result does
    not depend on the size of the blocks or the number of threads.

    Parameters
    ----------
    data : sequence of RowSource, or ndarray
        N planes ``(ny, nx)``, read as ``float32``.
    variance : sequence of RowSource, or ndarray, optional
        N planes of variance, in the square of the data's unit.
    mask : sequence of RowSource or None, or ndarray, optional
        N planes of data-quality bits; None in the sequence stands for a good plane. The inputs with the
        best tier of bits are used: none but non-linear and saturated; and cosmic ray; and overlap; and bad;
        and unilluminated; and no data; and any other.
    operation : {"mean", "wtmean", "median", "lmedian"}
        The reduction. ``"wtmean"`` weighs by inverse variance (inputs with variance 0 get no weight; without
        variances it is the mean), ``"lmedian"`` takes the lower of two middle values.
    reject : {"none", "minmax", "sigclip", "varclip", "noiseclip"}
        The rejection: the `nlow` lowest and `nhigh` highest values; values beyond `hsigma` and
        `lsigma` times the standard deviation of the values left so far, or times their own standard
        deviations; or values that a noise model does not explain (see `NoiseModel`; limits of 4 or 5
        suit it).
    hsigma, lsigma : float
        Clipping limits above and below the centre.
    mclip : bool
        The centre of clipping is the median of the selected inputs in every iteration; otherwise the mean
        of those left, from the second iteration.
    max_iters : int, optional
        Most iterations of clipping; until nothing changes by default. ``"noiseclip"`` needs none.
    nlow, nhigh : int
        For minmax. With n of N inputs selected, ``int(n * nlow / N + 0.001)`` are rejected. Both are lowered
        together until one of N values is left.
    scale, zero : sequence of float, optional
        N factors and offsets.
    noise : NoiseModel, optional
        For ``"noiseclip"``; `NoiseModel`'s defaults otherwise.
    weights : sequence of float, optional
        N positive weights of the inputs in a mean; equal by default. They do not take part in rejection.
    threads : int
        Number of threads.
    exposures : sequence of float, optional
        Exposure time of each input; their sum over the inputs used in a pixel is returned.
    rows_per_block : int, optional
        Rows of a block; as many as a fixed working memory allows by default.

    Returns
    -------
    Combined
        The variance is ``sum(v) / n**2`` for the mean, ``sum(w**2 v) / sum(w)**2`` with weights w,
        ``1 / sum(1 / v)`` for the weighted mean, and ``k(n) v / n`` for the median of n values with mean
        variance v and k of `median_variance_factor`; if minmax has rejected as many low as high values, n
        counts all selected ones. Without input variances v is the sample variance of the inputs used, and 0
        if there is one.

    Raises
    ------
    ParameterError
        If a setting cannot be used, or a sequence has another length than `data`.
    DataError
        If there are no planes, shapes differ, or there are no variances where the rejection or the weights
        need them.
    """
    settings = Settings(
        n_inputs=len(data),
        operation=operation,
        reject=reject,
        hsigma=hsigma,
        lsigma=lsigma,
        mclip=mclip,
        max_iters=max_iters,
        nlow=nlow,
        nhigh=nhigh,
        noise=noise or NoiseModel(),
    )
    settings.noise.check_number(len(data))
    check_threads(threads)
    inputs = Inputs.checked(data, variance, mask, scale, zero)
    if variance is None and reject in ("varclip", "noiseclip"):
        raise DataError("this rejection needs the variance of every input", item="reject", found=reject)
    times = None if exposures is None else per_input("exposures", exposures, len(data))
    shares_of = None if weights is None else _checked_weights(weights, settings, variance is not None)
    ny, nx = inputs.shape
    result = Combined.empty(
        inputs.shape, len(data), with_mask=inputs.mask is not None, with_exposure=times is not None
    )
    if rows_per_block is None:
        least = _LEAST_ROWS if reject == "noiseclip" else 1
        rows_per_block = max(min(_BLOCK_VALUES // len(data), _BLOCK_PIXELS) // max(nx, 1), least)
    combine_rows = partial(_combine_rows, inputs, settings, times, shares_of, result)
    shares = map_blocks(combine_rows, ny, rows_per_block=rows_per_block, threads=threads)
    if reject == "noiseclip":
        used, rejected = np.sum(shares, axis=0) if shares else np.zeros((2, len(data)))
        return replace(result, rejected=rejected / np.maximum(used, 1))
    return result


def _checked_weights(weights: Numbers, settings: Settings, has_variance: bool) -> NDArray[np.float64]:
    numbers = per_input("weights", weights, settings.n_inputs)
    if settings.operation != "mean" or (numbers <= 0).any():
        raise ParameterError(
            "weights are positive, and those of a mean",
            item="weights",
            found=f"{numbers.tolist()} for {settings.operation}",
        )
    if not has_variance:
        raise DataError("weights need the variance of every input", item="weights")
    return numbers


def _combine_rows(
    inputs: Inputs,
    settings: Settings,
    exposures: NDArray[np.float64] | None,
    weights: NDArray[np.float64] | None,
    result: Combined,
    rows: slice,
) -> NDArray[np.intp]:
    """Combine some rows of all inputs into those of the result.

    Returns how many pixels of each input the noise model has looked at and rejected, shape (2, n).
    """
    out = result.flat_rows(rows)
    # Values that are not finite are found, not warned about; threads do not inherit the caller's settings.
    with np.errstate(all="ignore"):
        if settings.reject != "noiseclip":
            planes = inputs.read(rows).flat()
            if weights is None:
                combine_pixels(planes, None, settings, out, exposures)
            else:
                weighted_mean_of_used(planes, _kept(planes, settings), weights, out, exposures)
            return np.zeros((2, len(inputs.data)), np.intp)
        wide = slice(max(rows.start - HALO, 0), min(rows.stop + HALO, inputs.shape[0]))
        planes = inputs.read(wide)
        assert planes.variance is not None
        usable = select_usable(planes.flat().mask, planes.flat().finite()).reshape(planes.data.shape)
        hits = outliers(
            planes.data,
            planes.variance,
            usable,
            settings.noise,
            scale=inputs.scale,
            hsigma=settings.hsigma,
            lsigma=settings.lsigma,
        )
        inner = slice(rows.start - wide.start, rows.stop - wide.start)
        planes = planes.each(lambda plane: plane[:, inner]).flat()
        kept = ~hits[:, inner].reshape(len(hits), -1)
        usable = usable[:, inner].reshape(kept.shape)
        lost = usable & ~kept
        shares = np.array([[np.count_nonzero(one) for one in some] for some in (usable, lost)])
        if settings.operation == "mean":
            kept &= usable
            if weights is None:
                mean_of_used(planes, kept, out, exposures)
            else:
                weighted_mean_of_used(planes, kept, weights, out, exposures)
            if settings.noise.fluxes is not None:
                correct_for_missing(kept, settings.noise.fluxes, settings.noise.background, out, weights)
        else:
            combine_pixels(planes, kept, settings, out, exposures)
        return shares


def _kept(planes: Planes, settings: Settings) -> NDArray[np.bool_]:
    """Return which inputs a rejection other than by the noise model leaves; values not finite become 0."""
    finite = planes.finite()
    usable = select_usable(planes.mask, finite)
    for plane in (planes.data, planes.variance):
        if plane is not None:
            np.putmask(plane, ~finite, 0)
    if settings.reject == "none":
        return usable
    return rejected_by(planes.data, planes.variance, usable, settings)
