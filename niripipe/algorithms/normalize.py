"""Factors and offsets that bring frames to a common level.

By the method "pairwise" every frame is compared with every other and the factors are found for all of
them at once: the choice for a few frames with differing masks. By the method "reference" each frame is
compared with the first, which takes a time proportional to the number of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from niripipe.algorithms.arrays import Bool, Float32, Float64
from niripipe.algorithms.grouping import group_frames
from niripipe.algorithms.parallel import map_items
from niripipe.algorithms.robust import fast_median, good_pixels
from niripipe.algorithms.sources import PlaneSource, Section
from niripipe.errors import AlgorithmError, DataError

__all__ = ["scale_factors", "zero_offsets"]

Method = Literal["pairwise", "reference"]
Kind = Literal["scale", "zero"]
Planes = Sequence[PlaneSource] | Float32
Masks = Sequence[PlaneSource | None]


def scale_factors(
    data: Planes,
    masks: Masks | None = None,
    *,
    method: Method = "pairwise",
    section: Section | None = None,
    threads: int = 1,
) -> Float64:
    """Find the factors that scale all frames to the level of the first.

    Method "pairwise": for every pair i < j, ``o_ij = -ln(median(d_j / d_i))`` over the pixels that are good
    and positive in both; the factors are ``exp(x_k)``, with x_0 = 0 and the other x minimising the sum of
    ``w_ij (o_ij + x_i - x_j)**2``, where w_ij is the number of those pixels. This is a linear problem.

    Method "reference": the ratio of the medians of both frames over the pixels that are good in both.
    Unlike the median of ratios it neither needs positive pixels nor is it biased where the noise is not small
    against the level.

    Parameters
    ----------
    data : sequence of ndarray of float32
        N planes ``(ny, nx)``. Pixels that are not finite do not count. Planes and masks may be read on
        demand: the method "reference" looks at one after the other.
    masks : sequence of ndarray or None, optional
        N masks; pixels with any flag do not count, for example those of objects.
    method : {"pairwise", "reference"}
        The method.
    section : tuple of slice, optional
        Rows and columns to look at.
    threads : int
        Number of threads (method "reference").

    Returns
    -------
    ndarray of float64
        N positive factors; that of the first frame is 1.

    Raises
    ------
    DataError
        If shapes differ.
    AlgorithmError
        If a frame has no usable pixel in common with the reference (or, pairwise, with the first frame, not
        even through others), or levels to be scaled are not positive.
    """
    return np.exp(_solve_all("scale", data, masks, section, method, threads))


def zero_offsets(
    data: Planes,
    masks: Masks | None = None,
    *,
    method: Method = "pairwise",
    section: Section | None = None,
    threads: int = 1,
) -> Float64:
    """Find the offsets that, added, bring all frames to the level of the first.

    Method "pairwise": as `scale_factors` with ``o_ij = -median(d_j - d_i)`` over the pixels that are good in
    both. Method "reference": the median of ``d_0 - d`` over those pixels.

    Parameters
    ----------
    data, masks, method, section, threads
        As in `scale_factors`.

    Returns
    -------
    ndarray of float64
        N offsets; that of the first frame is 0.

    Raises
    ------
    DataError, AlgorithmError
        As in `scale_factors`.
    """
    return _solve_all("zero", data, masks, section, method, threads)


def _solve_all(
    kind: Kind, data: Planes, masks: Masks | None, section: Section | None, method: Method, threads: int
) -> Float64:
    shapes = [plane.shape for plane in data]
    if len(set(shapes)) > 1:
        raise DataError("planes to compare must have the same shape", found=shapes)
    cut = section or (slice(None), slice(None))

    def read(index: int) -> tuple[Float32, Bool]:
        """Return values and which of them are good."""
        values = np.asarray(data[index][cut], np.float32)
        mask = None if masks is None else masks[index]
        return values, good_pixels(values, None if mask is None else mask[cut])

    if method == "pairwise":
        return _pairwise(kind, [read(index) for index in range(len(data))])
    reference, allowed = read(0)

    def compared(index: int) -> float:
        # The first frame is compared with itself too; that gives exactly 0.
        values, good = read(index)
        return _against(kind, values, reference, good & allowed, index)

    return np.array(map_items(compared, range(len(data)), threads=threads))


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
        return fast_median((reference - plane)[both])
    level, wanted = fast_median(plane[both]), fast_median(reference[both])
    if not (level > 0 and wanted > 0):
        raise AlgorithmError(
            "levels that are not positive cannot be scaled",
            item=f"frame {index}",
            found=f"median {level} in the frame, {wanted} in the reference",
            expected="> 0",
            remedy="Match the levels with offsets.",
        )
    return float(np.log(wanted / level))


def _pairwise(kind: Kind, planes: Sequence[tuple[Float32, Bool]]) -> Float64:
    if kind == "scale":
        planes = [(values, good & (values > 0)) for values, good in planes]
    n = len(planes)
    weight = np.zeros((n, n))
    offset = np.zeros((n, n))
    for i, (first, good) in enumerate(planes):
        for j, (second, also_good) in enumerate(planes[i + 1 :], start=i + 1):
            both = good & also_good
            weight[i, j] = np.count_nonzero(both)
            if weight[i, j] and kind == "scale":
                offset[i, j] = -np.log(fast_median(second[both] / first[both]))
            elif weight[i, j]:
                offset[i, j] = -fast_median(second[both] - first[both])
    return _solve(offset, weight)


def _solve(offset: Float64, weight: Float64) -> Float64:
    """Minimise the sum over i < j of ``w_ij (o_ij + x_i - x_j)**2`` with x_0 = 0 by the normal equations."""
    n = len(offset)
    both = weight + weight.T
    isolated = sorted(set(range(n)).difference(group_frames(both > 0)[0]))
    if isolated:
        raise AlgorithmError(
            "some frames have no usable pixel in common with the others",
            item="frames " + ", ".join(map(str, isolated)),
            found="0 common pixels",
            remedy="Leave these frames out, or relax the masks or the section.",
        )
    pull = weight * offset
    right = pull.sum(axis=0) - pull.sum(axis=1)
    matrix = np.diag(both.sum(axis=1)) - both
    solution = np.zeros(n)
    if n > 1:
        scale = both.max()
        solution[1:] = np.linalg.solve(matrix[1:, 1:] / scale, right[1:] / scale)
    return solution
