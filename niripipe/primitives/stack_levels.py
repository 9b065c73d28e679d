"""What aligned frames differ in: given to their combination, and recorded in the stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from niripipe.algorithms.arrays import Float64
from niripipe.algorithms.combine import Combined, NoiseModel
from niripipe.algorithms.combine.select import UNUSABLE
from niripipe.algorithms.frame_levels import FrameLevels, measure_frames
from niripipe.algorithms.robust import fast_median
from niripipe.algorithms.sources import RowSource
from niripipe.astrodata import AstroData
from niripipe.astrodata.tables import as_rows
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, raw_name
from niripipe.primitives.stack_params import AlignedCombineParams, CombineParams

__all__ = ["Differences", "differences", "transparency_varies", "typical_variance", "unlike_the_others"]

log = get_logger(__name__)

_REJECTED = 0.02
"""Share of a frame's pixels that may be rejected without a warning. Noise and cosmic rays of the longest
exposures give a few thousandths; more means that the frame differs from the others."""
_CORE_LOSS = 0.01
"""Share of the inputs of star cores that may be lost without a warning: cosmic rays take less."""
_TRANSPARENCY = 0.05
"""Change of flux that is worth a warning: the response of the detector and apertures explain 1 or 2 %."""
_WIDER = 1.15
"""A frame whose stars are wider than the median frame's by this factor is named: steady seeing varies less
than that."""
_MJD_0 = datetime(1858, 11, 17)
_TO_FWHM = 2.3548
"""FWHM of a Gaussian over its standard deviation."""
_UNKNOWN_SHIFT = 0.5
"""Error of a shift that nothing is known of, FWHM: a shift that is worse is not accepted."""
_FULL_WEIGHT = 0.95
"""Weights above it are 1: they change the signal to noise of a stack by less than 0.1 %."""
_LITTLE_WEIGHT = 0.9
"""A doubtful shift is warned of by the alignment, and here if the weight is below this."""
_SAMPLE = 64
"""One row in so many gives the typical variance of a frame."""


@dataclass(frozen=True, slots=True)
class Differences:
    """What was measured on aligned frames, and what the combination makes of it."""

    levels: FrameLevels
    scale_flux: bool
    weights: Float64 | None = None
    doubtful: Sequence[bool] | None = None

    @property
    def table_weights(self) -> Float64:
        """The weight of each frame, 1 where there are none."""
        return np.ones(len(self.levels.flux)) if self.weights is None else self.weights

    def settings(self, rejection: str, sigma: float) -> dict[str, Any]:
        """Return scales, offsets and noise model as keywords of `niripipe.algorithms.combine.combine`."""
        levels = self.levels
        scale = 1 / levels.flux if self.scale_flux else np.ones(len(levels.flux))
        given: dict[str, Any] = {"scale": scale, "zero": -levels.level * scale, "weights": self.weights}
        if rejection == "noiseclip":
            least = NoiseModel().contrast
            contrasts = levels.contrasts(least, sigma)
            same = self.scale_flux or bool((levels.flux == 1).all())
            given["noise"] = NoiseModel(
                contrasts=contrasts if max(contrasts) > least else None,
                fluxes=None if same else tuple(levels.flux.tolist()),
                background=0.0 if same else levels.background,
            )
        return given

    def record(
        self, frames: Frames, result: AstroData, combined: Combined, mask: Sequence[RowSource] | None
    ) -> None:
        """Attach the table STACKING, set keywords, and warn of what a reader of the stack has to know."""
        levels = self.levels
        rejected = np.zeros(len(frames)) if combined.rejected is None else combined.rejected
        names = [raw_name(frame) for frame in frames]
        result.STACKING = as_rows(
            {
                "IMAGE": names,
                "MJD": [_mjd(frame) for frame in frames],
                "SKY": [float(frame[0].hdr.get("SKYLEVEL", math.nan)) for frame in frames],
                "LEVEL": levels.level,
                "LEVELERR": levels.level_error,
                "FLUX": levels.flux,
                "FLUXERR": levels.flux_error,
                "FWHM": levels.fwhm,
                "ELONG": levels.elongation,
                "TRAILED": levels.trailed.astype(int),
                "REJECTED": rejected,
                "WEIGHT": self.table_weights,
            }
        )
        hdr = result[0].hdr
        hdr.set("REJMAX", round(float(rejected.max()), 5), "Largest share of a frame's pixels rejected")
        hdr.set("FLUXSCAL", self.scale_flux, "Inputs were scaled to their mean flux")
        if self.weights is not None:
            hdr.set("WGTMIN", round(float(self.weights.min()), 4), "Smallest weight of an input; largest 1")
        for k, name in enumerate(names):
            log.fullinfo(
                "%s: level %+.1f, flux %.3f, FWHM %.2f pixels, %.2f %% rejected, weight %.2f",
                name,
                levels.level[k],
                levels.flux[k],
                levels.fwhm[k],
                100 * rejected[k],
                self.table_weights[k],
            )
        self._warn(names, rejected)
        if combined.rejected is not None:
            self._warn_of_cores(result, combined, mask)

    def _warn(self, names: Sequence[str], rejected: np.ndarray) -> None:
        levels = self.levels
        known = levels.fwhm[np.isfinite(levels.fwhm)]
        typical = float(np.median(known)) if known.size else math.nan
        for k, name in enumerate(names):
            weight = self.table_weights[k]
            share = "full weight" if weight == 1 else f"weight {weight:.2f}"
            if levels.trailed[k]:
                log.warning(
                    "%s: stars are trailed: they are %.2f pixels wide, %.2f in the median frame, and "
                    "elongated by %.2f: it is in the stack with %s",
                    name,
                    levels.fwhm[k],
                    typical,
                    levels.elongation[k],
                    share,
                )
            elif levels.fwhm[k] > _WIDER * typical:
                log.warning(
                    "%s: stars are %.2f pixels wide, %.2f in the median frame (bad seeing?): "
                    "it is in the stack with %s",
                    name,
                    levels.fwhm[k],
                    typical,
                    share,
                )
            elif weight < _LITTLE_WEIGHT and self.doubtful is not None and self.doubtful[k]:
                log.warning("%s: its shift is doubtful: it is in the stack with %s", name, share)
            if rejected[k] > _REJECTED:
                log.warning(
                    "%s: %.1f %% of its pixels were rejected: it differs from the other frames",
                    name,
                    100 * rejected[k],
                )
        if transparency_varies(levels.flux, levels.flux_error):
            log.warning(
                "fluxes of the frames are %.2f to %.2f of their mean (clouds?): the stack has the mean; %s",
                levels.flux.min(),
                levels.flux.max(),
                "the frames were scaled to it" if self.scale_flux else "they were not scaled",
            )

    def _warn_of_cores(self, result: AstroData, combined: Combined, mask: Sequence[RowSource] | None) -> None:
        """Say how many of their inputs the cores of stars have kept, loudly when it is not nearly all."""
        levels = self.levels
        if not len(levels.stars):
            return
        half = max(round(float(np.nanmedian(levels.fwhm)) / 2), 1)
        used = there = 0
        for y, x in levels.stars.tolist():
            rows, columns = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
            used += int(combined.count[rows, columns].sum(dtype=int))
            if mask is None:
                there += len(levels.level) * (2 * half + 1) ** 2
            else:
                there += sum(int(np.count_nonzero(m[rows][:, columns] & UNUSABLE == 0)) for m in mask)
        kept = used / max(there, 1)
        result[0].hdr.set("CORECOV", round(kept, 5), "Share of inputs used in the cores of stars")
        if kept < 1 - _CORE_LOSS:
            log.warning(
                "THE CORES OF STARS LOSE %.1f %% OF THEIR INPUTS to the rejection: fluxes may be wrong by as "
                "much; look at the table STACKING, or stack with a larger hsigma and lsigma",
                100 * (1 - kept),
            )


def differences(
    frames: Frames,
    data: Sequence[RowSource],
    variance: Sequence[RowSource] | None,
    mask: Sequence[RowSource] | None,
    params: CombineParams,
    threads: int,
) -> Differences | None:
    """Measure what aligned frames differ in; None for frames that are not aligned, or if it is not wanted."""
    if not isinstance(params, AlignedCombineParams) or not params.level or params.scale or params.zero:
        return None
    if not all("ALIGN" in frame.phu for frame in frames):
        return None
    levels = measure_frames(data, variance, mask, correlation=_correlations(frames), threads=threads)
    weights = None
    if params.weighting != "none":
        weights = _weights(frames, levels, params, has_variance=variance is not None)
    doubtful = [bool(frame.phu.get("ALGNFLAG", False)) for frame in frames]
    return Differences(levels, params.scale_flux, weights, doubtful)


def unlike_the_others(stack: AstroData) -> str:
    """Return which frames of a stack are trailed or have less weight, for the report; empty for none."""
    if "STACKING" not in stack.tables:
        return ""
    rows = stack.columns("STACKING")
    found = [
        f"{row['IMAGE']} {'is trailed' if row['TRAILED'] else 'has a doubtful shift'} "
        f"(FWHM {row['FWHM']:.2f} pixels, weight {row['WEIGHT']:.2f})"
        for row in rows
        if row["TRAILED"] or row["WEIGHT"] < _LITTLE_WEIGHT
    ]
    return "; ".join(found)


def _mjd(frame: AstroData) -> float:
    """Return the start of a frame as a modified Julian date, NaN where the header does not say."""
    time = frame.ut_datetime()
    return math.nan if time is None else (time - _MJD_0).total_seconds() / 86400


def typical_variance(frame: AstroData) -> float:
    """Return the median variance of a sample of the good pixels, NaN if there are none."""
    variance, mask = frame[0].plane("variance"), frame[0].plane("mask")
    if variance is None:
        return math.nan
    sample = np.asarray(variance[::_SAMPLE], np.float32)
    good = np.isfinite(sample)
    if mask is not None:
        good &= mask[::_SAMPLE] == 0
    return fast_median(sample, good)


def _correlations(frames: Frames) -> list[float]:
    return [float(frame[0].hdr.get("NOISCORR", 1.0)) for frame in frames]


def _weights(
    frames: Frames, levels: FrameLevels, params: CombineParams, *, has_variance: bool
) -> Float64 | None:
    """Return weights of frames, the largest of which is 1; None where all are equal.

    What is gained for a point source goes with its signal to noise squared, that is with the inverse area of
    its light: the square of the FWHM. The error of a shift adds to the FWHM in squares. Levelled frames show
    the same scene, so that their weighted mean has the same flux whatever the weights.
    """
    assert isinstance(params, AlignedCombineParams)
    shift = np.array([_doubt(frame) for frame in frames])
    known = levels.fwhm[np.isfinite(levels.fwhm)]
    if not known.size:
        return None
    typical = float(np.median(known))
    width = np.where(np.isfinite(levels.fwhm), levels.fwhm, typical)
    if params.weighting == "blurred":
        width = np.where(levels.trailed, np.maximum(width, typical), typical)
    shift = np.where(np.isinf(shift), _UNKNOWN_SHIFT * typical, shift)
    weights = 1 / (width**2 + (_TO_FWHM * shift) ** 2)
    if params.weighting == "all":
        # Scaled to one flux the signal is the same, and the noise goes with 1 / flux.
        weights *= levels.flux**2 / np.array([typical_variance(frame) for frame in frames])
    weights /= weights.max()
    if not np.isfinite(weights).all() or weights.min() > _FULL_WEIGHT:
        return None
    if params.operation != "mean" or not has_variance:
        log.warning("frames are not weighted: that needs the mean, and variances of all frames")
        return None
    return np.where(weights > _FULL_WEIGHT, 1.0, weights)


def _doubt(frame: AstroData) -> float:
    """Return the error of a doubtful shift, pixels: infinity if it is not known, 0 for a good shift."""
    if not frame.phu.get("ALGNFLAG", False):
        return 0.0
    return float(frame.phu.get("ALGNERR", math.inf))


def transparency_varies(flux: ArrayLike, error: ArrayLike) -> bool:
    """Return whether the fluxes of frames over their mean differ by more than their errors explain.

    Parameters
    ----------
    flux, error : array-like of float, shape (n,)
        Columns FLUX and FLUXERR of STACKING; NaN where they are not known.
    """
    values, errors = np.asarray(flux, float), np.asarray(error, float)
    return bool((np.abs(values - 1) > np.fmax(_TRANSPARENCY, 3 * errors)).any())
