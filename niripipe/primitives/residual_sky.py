"""The primitive that removes what a drifting sky leaves in dithered frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import box_maps, deep_masks, morphology
from niripipe.algorithms import residual_sky as algorithm
from niripipe.algorithms.robust import good_pixels
from niripipe.astrodata import AstroData
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, done, not_needed, primitive, skipped
from niripipe.primitives.dithers import box_shifts
from niripipe.primitives.params import Field, SuffixParams

__all__ = ["ResidualSky"]

log = get_logger(__name__)

_LEAST_BOXES = 8
"""A frame with fewer boxes on a side shows no structure that could be told from sources."""
_WORTH = 1.5
"""A fit is subtracted when its rms exceeds its own noise so many times: 1 means that it fits noise alone."""
_GROWTH = (0.5, 0.3, 0.0)
"""Sources of the sum of the frames are masked with their halos: grown by their own radius so many times, or
less in crowded fields. Where the light of a star falls as r^-3, 0.5 leaves a third of what could be seen.
With more, fewer boxes follow the sky: on real frames sources have the same flux to 0.5 %, and the sky is less
flat."""
_SKY_LEFT = 0.6
"""So much of the boxes has to be left by the masks; otherwise less wide ones are taken."""
_LEAST_SKY = 0.25
"""With less than this left nothing is subtracted: sources cover most of the field."""
_ROUNDS = 2
"""Sources are looked for, and the sky without them fitted, so many times."""
_BIN = 4
"""Side of the bins in which sources are looked for, pixels: about the width of a star."""
_LARGE = 0.5
"""More than so many standard deviations of a pixel is worth a look at the frame."""


class CorrectResidualSkyParams(SuffixParams, suffix="_residualSkyCorrected"):
    """Parameters of `ResidualSky.correctResidualSky`."""

    correct: Literal["skip", "default", "force"] = Field(
        "default", description="default: where there is more than noise to remove; force: always; skip: never"
    )
    box: int = Field(32, ge=8, le=256, description="side of the boxes in which the sky is measured, pixels")
    smoothing: float = Field(0.8, ge=0.5, le=10, description="smoothing of the fit, boxes (Gaussian sigma)")
    dilation: float = Field(
        8.0, ge=0, description="radius by which object masks of single frames are grown, pixels"
    )


class ResidualSky(PrimitivesBase):
    """What a drifting sky leaves."""

    @primitive(stamp="CORRESKY")
    def correctResidualSky(self, frames: Frames, params: CorrectResidualSkyParams) -> Frames:
        """Fit what is left of the sky in each frame by a smooth map, and subtract it.

        A sky or a glow whose structure changes from frame to frame is not in the sky frames. Medians of boxes
        without sources are compared at the same places of the sky and of the detector: light that the
        dithered frames agree on is the field's and stays, and what is left is smoothed and subtracted. The
        level of the frame does not change. Left out are the objects of each frame (OBJMASK, detected if there
        is none, grown by `dilation`), and those that only the sum of the frames shows, with their halos,
        which the fit would take for sky. Where sources cover most of the field nothing is subtracted.

        Frames whose sky comes from other fields are left alone where wide light recurs on the sky: that of a
        galaxy which fills the field hardly moves when they are dithered. So are frames that fewer than three
        dithered frames of the same field show, and all where the fit is not clearly above its own noise.
        RESSKY in the extension header is the rms of what was subtracted, RESSKYER its error, whose square is
        added to the variance.
        """
        if params.correct == "skip":
            return self.note_all(frames, skipped("correct is skip"))
        shape = frames[0][0].shape if frames else ()
        if any(frame[0].shape != shape for frame in frames):
            return self.note_all(frames, skipped("the frames differ in shape"))
        if frames and min(shape) < _LEAST_BOXES * params.box:
            return self.note_all(frames, not_needed("the frames are too small to show structure of the sky"))
        shifts = box_shifts(frames, params.box)
        left = set(range(len(frames)))
        for group in box_maps.same_sky(shifts, [size // params.box for size in shape]):
            if len(group) >= box_maps.LEAST_FRAMES and np.ptp(shifts[group], axis=0).max() >= 1:
                left -= set(group)
                self._correct([frames[k] for k in group], shifts[group], params)
        reason = "sky and field cannot be told from each other without three dithered frames"
        self.note_all([frames[k] for k in sorted(left)], not_needed(reason))
        return frames

    def _correct(self, frames: Frames, shifts: NDArray[np.float64], params: CorrectResidualSkyParams) -> None:
        """Correct frames of one field."""
        unknown = [frame for frame in frames if frame[0].plane("OBJMASK") is None]
        if unknown:
            self.detectSources(unknown, catalogue=False, suffix=None)  # type: ignore[attr-defined]
        side = math.gcd(params.box, _BIN)
        bins = self.map(lambda frame: _binned(frame, side, params.dilation), frames)
        if params.correct == "default" and any(_is_object_only(frame) for frame in frames):
            boxes = np.array([deep_masks.box_medians(one, one.objects, params.box // side) for one in bins])
            if algorithm.recurs(boxes, shifts):
                text = "the sky comes from other fields, and wide light recurs on the sky: it is the field's"
                self.note_all(frames, not_needed(text))
                return
        fit, share = _fit(bins, shifts, params.smoothing, params.box // side)
        if share < _LEAST_SKY:
            self.note_all(frames, not_needed(f"sources leave {share:.0%} of the field: too little sky"))
            return
        if params.correct == "default" and not fit.rms > _WORTH * fit.error:
            text = f"residual sky of {fit.rms:.3g} rms is not above the noise of its fit, {fit.error:.3g}"
            self.note_all(frames, not_needed(text))
            return
        jobs = list(zip(frames, fit.maps, strict=True))
        outcomes = self.map(lambda job: _subtract(*job, fit.error, params.box), jobs)
        for frame, outcome in zip(frames, outcomes, strict=True):
            self.note(frame, outcome)


def _is_object_only(frame: AstroData) -> bool:
    """Whether `separateSky` found that a frame shows the object and others the sky."""
    return "OBJFRAME" in frame.phu and "SKYFRAME" not in frame.phu


def _binned(frame: AstroData, side: int, dilation: float) -> deep_masks.Binned:
    """Bin a frame, with its own objects grown by a radius."""
    ext = frame[0]
    data, mask = ext.read("data"), ext.read("mask")
    found = deep_masks.binned(data, good_pixels(data, mask), ext.read("OBJMASK") > 0, side)
    if not found.objects.any():
        return found
    return replace(found, objects=morphology.dilate(found.objects, dilation / side))


def _fit(
    bins: Sequence[deep_masks.Binned], shifts: NDArray[np.float64], smoothing: float, box: int
) -> tuple[algorithm.ResidualSky, float]:
    """Fit the residual sky without the sources that the frames show together; also say how much is left.

    `shifts` are in boxes, `box` is the side of a box in bins.
    """
    shape = bins[0].mean.shape
    boxes = np.array([deep_masks.box_medians(one, one.objects, box) for one in bins])
    fit = algorithm.residual_sky(boxes, shifts, smoothing)
    for _ in range(_ROUNDS):
        skies = [algorithm.at_pixels(plane, box, shape) for plane in fit.maps]
        sources = deep_masks.deep_sources(bins, skies, shifts * box)
        for growth in _GROWTH:
            left = [
                deep_masks.box_medians(one, one.objects | sources.mask(k, shape, growth), box, skies[k])
                for k, one in enumerate(bins)
            ]
            boxes = fit.maps + np.array(left)
            share = float(np.isfinite(boxes).mean())
            if share >= _SKY_LEFT:
                break
        fit = algorithm.residual_sky(boxes, shifts, smoothing)
    return fit, share


def _subtract(frame: AstroData, boxes: NDArray[np.float64], error: float, box: int) -> Outcome:
    """Subtract a map from a frame, and say so."""
    ext = frame[0]
    plane = algorithm.at_pixels(boxes, box, ext.shape)
    rms = float(np.sqrt(np.mean(plane[::4, ::4] ** 2, dtype=float)))
    variance = ext.read("variance")
    detail = f"residual sky of {rms:.3g} rms subtracted, error {error:.2g}"
    if variance is not None:
        noise = float(np.sqrt(np.nanmedian(variance[::8, ::8])))
        if rms > _LARGE * noise:
            text = f"residual sky of {rms:.3g} rms, {rms / noise:.2f} deviations of a pixel"
            log.warning("%s: %s, was subtracted; look at the frame", frame.filename, text)
            detail += ", which is much"
        variance = variance + np.float32(error**2)
    ext.reset(ext.read("data") - plane, mask=ext.read("mask"), variance=variance)
    ext.hdr.set("RESSKY", round(rms, 4), "Rms of the residual sky that was subtracted")
    ext.hdr.set("RESSKYER", round(error, 4), "Noise of the residual sky that was subtracted")
    return done(detail)
