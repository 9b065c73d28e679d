"""Factors and offsets that bring frames to a common level.

By the method "pairwise" every frame is compared with every other and the factors are found for all of
them at once: the choice for a few frames with differing masks. By the method "reference" each frame is
compared with one plane, which takes a time proportional to the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.parallel import Run, one_by_one
from niripipe.algorithms.sources import PlaneSource, Section
from niripipe.errors import AlgorithmError, DataError, ParameterError

__all__ = ["Method", "masked_median", "scale_factors", "zero_offsets"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Method = Literal["pairwise", "reference"]
Kind = Literal["scale", "zero"]


Flags = Sequence[PlaneSource | None]

_MANY = 50000
_SAMPLE = 10000


def masked_median(values: NDArray[np.floating], good: Bool | None = None) -> float:
    """Median of the good values, exactly: the middle one, or the mean of the two middle ones.

    Parameters
    ----------
    values : ndarray
        Any shape; finite where good.
    good : ndarray of bool, optional
        Which values count; all by default.

    Returns
    -------
    float
        In the precision of `values`; NaN if there are none.
    """
    chosen = values.ravel()
    if good is not None:
        chosen = chosen.take(np.flatnonzero(good))
    n = chosen.size
    if n == 0:
        return float("nan")
    chosen, below = _near_middle(chosen)
    rank = n // 2 - below
    # The upper middle value by selection; the lower one is the largest of what went before it.
    parted = np.partition(chosen, rank)
    upper = parted[rank]
    if n % 2:
        return float(upper)
    return float((parted[:rank].max() + upper) * values.dtype.type(0.5))


def scale_factors(
    data: Sequence[PlaneSource] | NDArray[np.float32],
    masks: Flags | None = None,
    *,
    method: Method = "pairwise",
    reference: Float32 | None = None,
    objects: Flags | None = None,
    section: Section | None = None,
    run: Run = one_by_one,
) -> NDArray[np.float64]:
    """Find the factors that scale all frames to the level of the first, or of a reference.

    Method "pairwise": for every pair i < j, ``o_ij = -ln(median(d_j / d_i))`` over the pixels that are good
    and positive in both; the factors are ``exp(x_k)``, with x_0 = 0 and the other x minimising the sum of
    ``w_ij (o_ij + x_i - x_j)**2``, where w_ij is the number of those pixels. This is a linear problem.

    Method "reference": the ratio of the medians of reference and frame over the pixels that are good in both.
    Unlike the median of ratios it neither needs positive pixels nor is it biased where the noise is not small
    against the level.

    Parameters
    ----------
    data : sequence of ndarray of float32
        N planes ``(ny, nx)``. Pixels that are not finite do not count. Planes and masks may be read on
        demand: the method "reference" looks at one after the other.
    masks : sequence of ndarray or None, optional
        N masks; pixels with any flag do not count.
    method : {"pairwise", "reference"}
        The method.
    reference : ndarray of float32, optional
        For the method "reference": the plane to compare with, not a number where it is to be left out; the
        first frame, with its masks, by default.
    objects : sequence of ndarray or None, optional
        N object masks; pixels that are not 0 do not count.
    section : tuple of slice, optional
        Rows and columns to look at.
    run : callable
        Applies a function to frames, by their numbers, possibly in other processes (method "reference").

    Returns
    -------
    ndarray of float64
        N positive factors; that of the first frame is 1 unless another reference is given.

    Raises
    ------
    ParameterError
        If the method is unknown, or there is not one mask a frame.
    DataError
        If there are no planes, or shapes differ.
    AlgorithmError
        If a frame has no usable pixel in common with the reference (or, pairwise, with the first frame, not
        even by way of others), or levels to be scaled are not positive.
    """
    return np.exp(_solve_all("scale", data, masks, objects, section, method, reference, run))


def zero_offsets(
    data: Sequence[PlaneSource] | NDArray[np.float32],
    masks: Flags | None = None,
    *,
    method: Method = "pairwise",
    reference: Float32 | None = None,
    objects: Flags | None = None,
    section: Section | None = None,
    run: Run = one_by_one,
) -> NDArray[np.float64]:
    """Find the offsets that, added, bring all frames to the level of the first, or of a reference.

    Method "pairwise": as `scale_factors` with ``o_ij = -median(d_j - d_i)`` over the pixels that are good in
    both. Method "reference": the median of ``reference - d`` over those pixels.

    Parameters
    ----------
    data, masks, method, reference, objects, section, run
        As in `scale_factors`.

    Returns
    -------
    ndarray of float64
        N offsets; that of the first frame is 0 unless another reference is given.

    Raises
    ------
    ParameterError, DataError, AlgorithmError
        As in `scale_factors`.
    """
    return _solve_all("zero", data, masks, objects, section, method, reference, run)


def _near_middle(values: NDArray[np.floating]) -> tuple[NDArray[np.floating], int]:
    """Narrow many values down to those about the middle, and count what is left out below them.

    A sample brackets the median; whether it truly does is checked, so that the sample decides about the time
    taken and never about the result.
    """
    if values.size < _MANY:
        return values, 0
    sample = np.sort(values[:: values.size // _SAMPLE])
    low, high = sample[int(0.47 * sample.size)], sample[int(0.53 * sample.size)]
    below = int(np.count_nonzero(values < low))
    inside = values.take(np.flatnonzero((values >= low) & (values <= high)))
    if below < values.size // 2 < below + inside.size:
        return inside, below
    return values, 0


def _solve_all(
    kind: Kind,
    data: Sequence[PlaneSource] | NDArray[np.float32],
    masks: Flags | None,
    objects: Flags | None,
    section: Section | None,
    method: Method,
    reference: Float32 | None,
    run: Run,
) -> NDArray[np.float64]:
    if len(data) == 0:
        raise DataError("there is nothing to compare", found="no planes", expected="at least one")
    for name, flags in (("masks", masks), ("objects", objects)):
        if flags is not None and len(flags) != len(data):
            raise ParameterError(
                "one mask a frame is needed", item=name, found=len(flags), expected=len(data)
            )
    shapes = [plane.shape for plane in (*data, *([] if reference is None else [reference]))]
    if len(set(shapes)) > 1:
        raise DataError("planes to compare must have the same shape", found=shapes)
    cut = section or (slice(None), slice(None))

    def plane(index: int) -> Float32:
        return np.asarray(data[index][cut], np.float32)

    def good(index: int, values: Float32) -> Bool:
        flags = [None if some is None else some[index] for some in (masks, objects)]
        return _good(values, [None if one is None else one[cut] for one in flags])

    if method == "pairwise":
        planes = [plane(index) for index in range(len(data))]
        return _pairwise(kind, planes, [good(index, values) for index, values in enumerate(planes)])
    if method != "reference":
        raise ParameterError("unknown method", item="method", found=method, expected="pairwise or reference")
    # The first frame is compared with itself too; that gives exactly 0.
    common = plane(0) if reference is None else np.asarray(reference[cut], np.float32)
    allowed = good(0, common) if reference is None else np.isfinite(common)

    def compared(index: int) -> float:
        values = plane(index)
        return _against(kind, values, common, good(index, values) & allowed, index)

    return np.array(run(compared, range(len(data))))


def _against(kind: Kind, plane: Float32, reference: Float32, both: Bool, index: int) -> float:
    """Find what brings one plane to the reference; the logarithm if that is a factor."""
    if not both.any():
        raise AlgorithmError(
            "frame and reference have no usable pixel in common",
            item=f"frame {index}",
            found="0 common pixels",
            remedy="Leave the frame out, or relax the masks or the section.",
        )
    if kind == "zero":
        return masked_median((reference - plane)[both])
    level, wanted = masked_median(plane[both]), masked_median(reference[both])
    if not (level > 0 and wanted > 0):
        raise AlgorithmError(
            "levels that are not positive cannot be scaled",
            item=f"frame {index}",
            found=f"median {level} in the frame, {wanted} in the reference",
            expected="> 0",
            remedy="Match the levels with offsets.",
        )
    return float(np.log(wanted / level))


def _good(plane: Float32, flags: Sequence[NDArray[Any] | None]) -> Bool:
    good: Bool = np.isfinite(plane)
    for one in flags:
        if one is not None:
            good &= one == 0
    return good


def _pairwise(kind: Kind, planes: Sequence[Float32], good: Sequence[Bool]) -> NDArray[np.float64]:
    if kind == "scale":
        good = [usable & (plane > 0) for usable, plane in zip(good, planes, strict=True)]
    n = len(planes)
    weight = np.zeros((n, n))
    offset = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            both = good[i] & good[j]
            weight[i, j] = np.count_nonzero(both)
            if weight[i, j]:
                offset[i, j] = _pair(kind, planes[i][both], planes[j][both])
    return _solve(offset, weight)


def _pair(kind: Kind, first: Float32, second: Float32) -> float:
    if kind == "scale":
        return -float(np.log(masked_median(second / first)))
    return -masked_median(second - first)


def _solve(offset: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise the sum over i < j of ``w_ij (o_ij + x_i - x_j)**2`` with x_0 = 0 by the normal equations."""
    n = len(offset)
    _check_connected(weight + weight.T)
    pull = weight * offset
    right = pull.sum(axis=0) - pull.sum(axis=1)
    both = weight + weight.T
    matrix = np.diag(both.sum(axis=1)) - both
    solution = np.zeros(n)
    if n > 1:
        scale = both.max()
        solution[1:] = np.linalg.solve(matrix[1:, 1:] / scale, right[1:] / scale)
    return solution


def _check_connected(weight: NDArray[np.float64]) -> None:
    reached = np.zeros(len(weight), bool)
    reached[0] = True
    while True:
        further = reached | (weight[reached] > 0).any(axis=0)
        if (further == reached).all():
            break
        reached = further
    if not reached.all():
        raise AlgorithmError(
            "some frames have no usable pixel in common with the others",
            item="frames " + ", ".join(str(index) for index in np.flatnonzero(~reached)),
            found="0 common pixels",
            remedy="Leave these frames out, or relax the masks or the section.",
        )
