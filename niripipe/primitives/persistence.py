"""The primitive that looks for what bright stars leave on the detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import morphology, persistence
from niripipe.algorithms.persistence import BrightPixels, Mark
from niripipe.algorithms.robust import MAD_TO_SIGMA
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import Frames, PrimitivesBase, done, not_needed, primitive, skipped
from niripipe.primitives.geometry import pixel_mapping
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.skybuild import seconds_of

__all__ = ["Persistence"]

log = get_logger(__name__)

_RECURS = 0.5
"""Part of the other frames that must show an object at a place on the sky for it to be one."""

_MARGIN = 3.0
"""Pixels around an object that are not flagged either: its wings, and the error of the pointing."""

_REACH = 40
"""Pixels around a core that its measurement needs."""

_NOT_ONLY_A_MARK = 5.0
"""Sigma above three times the expected mark from which on a pixel shows something else."""


class FlagPersistenceParams(SuffixParams, suffix="_persistenceFlagged"):
    """Parameters of `Persistence.flagPersistence`."""

    threshold: float = Field(
        5000.0, gt=0, description="peak of a source that may leave a mark, electrons above the sky"
    )
    exposures: int = Field(3, ge=1, description="how many exposures later marks are looked for")
    time: float = Field(900.0, gt=0, description="how long after the start of an exposure, s")
    limit: float = Field(0.5, gt=0, description="marks above this part of the pixel noise are flagged")


class Persistence(PrimitivesBase):
    """Persistence of the detector."""

    @primitive(stamp="PERSFLAG")
    def flagPersistence(self, frames: Frames, params: FlagPersistenceParams) -> Frames:
        """Flag (bit 8) the marks that bright sources have left in later frames, by their measured decay.

        Sky-subtracted frames in electrons are compared with the earlier ones of the same list. Where a
        bright source was, a later frame is measured against its surroundings; the excess in parts of the
        source's signal, the median over all sources and frames, tells how much is left one, two, three
        exposures later, whether or not the source was saturated. What frames before the source show there as
        well is no mark. A pixel is flagged where the mark expected of it exceeds `limit` times its noise.
        Without a significant mark nothing is flagged, and no pixel is flagged where the frame shows an
        object that recurs at its place on the sky, or far more light than a mark.

        PERSNUM in the extension header is the number of pixels flagged, PERSRAT1, PERSRAT2, ... in the
        primary header how much is left one, two, ... exposures later.
        """
        if len(frames) < 2:
            return self.note_all(frames, not_needed("there is only one frame"))
        if any(frame.is_in_adu() for frame in frames) or len({frame[0].shape for frame in frames}) > 1:
            return self.note_all(frames, skipped("frames in electrons and of one size are needed"))
        ordered = sorted(frames, key=seconds_of)
        bright = self.map(lambda frame: _bright(frame, params.threshold), ordered)
        pairs = _pairs(ordered, bright, params)
        if not pairs:
            return self.note_all(frames, not_needed(f"no source above {params.threshold:g} electrons"))
        seen = sorted({j for j, _ in pairs})
        sources = {j: [bright[i] for k, i in pairs if k == j] for j in seen}
        real = self.map(lambda j: _recurring(ordered, j, _near(ordered[j][0].shape, sources[j])), seen)
        recurring = dict(zip(seen, real, strict=True))
        marks = self.map(lambda pair: _marks(ordered, bright, recurring[pair[0]], *pair), pairs)
        ratios = persistence.decay([mark for own in marks for mark in own])
        if not ratios:
            return self.note_all(frames, not_needed("no mark is left where bright sources were before"))
        text = ", ".join(f"{100 * ratio:.2f} %" for ratio in ratios.values())
        log.stdinfo("persistence: %s of the light is left %s exposures later", text, _lags(ratios))
        left = [[(bright[i], ratios[j - i]) for k, i in pairs if k == j and j - i in ratios] for j in seen]
        jobs = [(ordered[j], own, recurring[j]) for j, own in zip(seen, left, strict=True) if own]
        flagged = self.map(lambda job: _flag(*job, params.limit), jobs)
        numbers = {id(job[0]): number for job, number in zip(jobs, flagged, strict=True)}
        for frame in ordered:
            number = numbers.get(id(frame), 0)
            for lag, ratio in ratios.items():
                frame.phu.set(f"PERSRAT{lag}", round(ratio, 6), f"Light left {lag} exposures later")
            frame[0].hdr.set("PERSNUM", number, "Pixels flagged for persistence")
            self.note(frame, done(f"{number} pixels flagged, {text} is left"))
        return frames


def _lags(ratios: dict[int, float]) -> str:
    return ", ".join(map(str, ratios))


def _bright(frame: AstroData, threshold: float) -> BrightPixels:
    ext = frame[0]
    mask = ext.read("mask")
    bad = np.zeros(ext.shape, bool) if mask is None else mask & np.uint16(DQ.bad_pixel | DQ.cosmic_ray) != 0
    return persistence.bright_pixels(ext.read("data"), bad, threshold=threshold)


def _pairs(
    frames: Frames, bright: list[BrightPixels], params: FlagPersistenceParams
) -> list[tuple[int, int]]:
    """Return pairs of a frame and a near one with a bright source, by index.

    Frames before the source show what is there without a mark of it.
    """
    times = [seconds_of(frame) for frame in frames]
    reach = params.exposures
    return [
        (j, i)
        for j in range(len(frames))
        for i in range(max(j - reach, 0), min(j + reach + 1, len(frames)))
        if i != j and bright[i].cores and abs(times[j] - times[i]) <= params.time
    ]


def _near(shape: tuple[int, ...], sources: list[BrightPixels]) -> NDArray[np.bool_]:
    """Return the boxes in which marks are looked for and measured."""
    near = np.zeros(shape, bool)
    for bright in sources:
        for core in bright.cores:
            (y1, x1), (y2, x2) = np.maximum(core.min(axis=0) - _REACH, 0), core.max(axis=0) + _REACH + 1
            near[y1:y2, x1:x2] = True
        if bright.cores:
            near.ravel()[bright.pixels] = True
    return near


def _recurring(frames: Frames, j: int, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the object mask of a frame shows what other frames show at the same place on the sky.

    Only `near` is looked at.
    """
    own = frames[j][0].read("OBJMASK")
    if own is None:
        return np.zeros(frames[j][0].shape, bool)
    own = (own != 0) & near
    y, x = np.nonzero(own)
    seen, covered = np.zeros(len(y)), np.zeros(len(y))
    for i, other in enumerate(frames):
        objects = other[0].read("OBJMASK")
        if i == j or objects is None:
            continue
        try:
            there = pixel_mapping(frames[j], other)(y.astype(float), x.astype(float))
        except DataError:
            continue
        v, u = (np.rint(axis).astype(int) for axis in there)
        inside = (v >= 0) & (v < objects.shape[0]) & (u >= 0) & (u < objects.shape[1])
        covered += inside
        seen[inside] += objects[v[inside], u[inside]] != 0
    # Where no other frame looks an object is believed.
    own[y, x] = seen >= _RECURS * covered
    return morphology.dilate(own, _MARGIN)


def _marks(
    frames: Frames, bright: list[BrightPixels], recurring: NDArray[np.bool_], j: int, i: int
) -> list[Mark]:
    """Measure in frame j the marks of the sources of frame i."""
    ext = frames[j][0]
    mask = ext.read("mask")
    usable = ~recurring if mask is None else ~recurring & (mask & ~np.uint16(DQ.cosmic_ray) == 0)
    found = []
    for core, signal in zip(bright[i].cores, bright[i].signals, strict=True):
        measured = persistence.excess(ext.read("data"), usable, core)
        if measured is not None:
            found.append(Mark(j - i, measured[0] / signal, measured[1] / signal))
    return found


def _flag(
    frame: AstroData,
    sources: list[tuple[BrightPixels, float]],
    recurring: NDArray[np.bool_],
    limit: float,
) -> int:
    """Flag the marks in a frame; return the number of pixels."""
    ext = frame[0]
    glow = persistence.predicted(ext.shape, sources)
    data, variance = ext.read("data"), ext.read("variance")
    lit = glow > 0
    if variance is None:
        spread = np.abs(data - np.median(data))
        noise = np.full(ext.shape, MAD_TO_SIGMA * np.median(spread), np.float32)
    else:
        noise = np.sqrt(variance)
    where = lit & ~recurring & (glow > limit * noise) & (data < 3 * glow + _NOT_ONLY_A_MARK * noise)
    if where.any():
        objmask.add_to_mask(frame, DQ.cosmic_ray, where)
    return int(np.count_nonzero(where))
