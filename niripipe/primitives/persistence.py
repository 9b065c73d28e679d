"""The primitive that looks for what bright stars leave on the detector."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import morphology, persistence
from niripipe.algorithms.arrays import Bool, Float32, Indices
from niripipe.algorithms.persistence import BrightPixels, Mark, Source
from niripipe.algorithms.robust import robust_sigma
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import Frames, PrimitivesBase, done, not_needed, primitive, skipped
from niripipe.primitives.geometry import exact_mapping
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
        sources = self.map(lambda frame: _sources(frame, params.threshold), ordered)
        pairs = _pairs(ordered, sources, params)
        if not pairs:
            return self.note_all(frames, not_needed(f"no source above {params.threshold:g} electrons"))
        numbered = list(zip(ordered, range(len(ordered)), strict=True))
        marks = self.map(lambda item: _marks(ordered, item[1], sources, pairs.get(item[1], [])), numbered)
        ratios = persistence.decay([mark for own in marks for mark in own])
        if not ratios:
            return self.note_all(frames, not_needed("no mark is left where bright sources were before"))
        text = ", ".join(f"{100 * ratio:.2f} %" for ratio in ratios.values())
        log.stdinfo("persistence: %s of the light is left %s exposures later", text, _lags(ratios))
        lit: dict[int, BrightPixels] = {}

        def flag(item: tuple[AstroData, int]) -> None:
            frame, j = item
            earlier = [(lit[i], ratios[j - i]) for i in pairs.get(j, []) if j - i in ratios]
            number = _flag(ordered, j, earlier, params.limit)
            if sources[j]:
                lit[j] = persistence.bright_pixels(*_pixels(frame), threshold=params.threshold)
            lit.pop(j - max(ratios), None)
            for lag, ratio in ratios.items():
                frame.phu.set(f"PERSRAT{lag}", round(ratio, 6), f"Light left {lag} exposures later")
            frame[0].hdr.set("PERSNUM", number, "Pixels flagged for persistence")
            self.note(frame, done(f"{number} pixels flagged, {text} is left"))

        self.map(flag, numbered)
        return frames


def _lags(ratios: dict[int, float]) -> str:
    return ", ".join(map(str, ratios))


def _pixels(frame: AstroData) -> tuple[Float32, Bool]:
    """Return the data of a frame, and where they are no light."""
    ext = frame[0]
    mask = ext.read("mask")
    bad = np.zeros(ext.shape, bool) if mask is None else mask & np.uint16(DQ.bad_pixel | DQ.cosmic_ray) != 0
    return ext.read("data"), bad


def _sources(frame: AstroData, threshold: float) -> list[Source]:
    return persistence.bright_sources(*_pixels(frame), threshold=threshold)


def _pairs(
    frames: Frames, sources: list[list[Source]], params: FlagPersistenceParams
) -> dict[int, list[int]]:
    """Return, by the index of a frame, the near frames with a bright source.

    Frames before the source show what is there without a mark of it.
    """
    times = [seconds_of(frame) for frame in frames]
    near = {
        j: [
            i
            for i, found in enumerate(sources)
            if found and 0 < abs(j - i) <= params.exposures and abs(times[j] - times[i]) <= params.time
        ]
        for j in range(len(frames))
    }
    return {j: indices for j, indices in near.items() if indices}


def _marks(frames: Frames, j: int, sources: list[list[Source]], near: list[int]) -> list[Mark]:
    """Measure in frame j the marks of the sources of other frames."""
    if not near:
        return []
    ext = frames[j][0]
    boxes = [(i, source, _box(source.core)) for i in near for source in sources[i]]
    wanted = np.zeros(ext.shape, bool)
    for _, _, box in boxes:
        wanted[box] = True
    usable = ~_recurring(frames, j, wanted)
    mask = ext.read("mask")
    if mask is not None:
        usable &= mask & ~np.uint16(DQ.cosmic_ray) == 0
    found = []
    for i, source, box in boxes:
        corner = [side.start for side in box]
        measured = persistence.excess(ext.read("data")[box], usable[box], source.core - corner)
        if measured is not None:
            found.append(Mark(j - i, measured[0] / source.signal, measured[1] / source.signal))
    return found


def _box(core: Indices) -> tuple[slice, slice]:
    """Return the box that the measurement of a core needs."""
    (y1, x1), (y2, x2) = np.maximum(core.min(axis=0) - _REACH, 0), core.max(axis=0) + _REACH + 1
    return slice(int(y1), int(y2)), slice(int(x1), int(x2))


def _recurring(frames: Frames, j: int, wanted: Bool) -> Bool:
    """Return where the object mask of a frame shows what other frames show at the same position on the sky.

    Only pixels that are `wanted` are looked at.
    """
    own = frames[j][0].read("OBJMASK")
    if own is None:
        return np.zeros(wanted.shape, bool)
    own = np.asarray((own != 0) & wanted)
    y, x = np.nonzero(own)
    if not len(y):
        return own
    seen, covered = np.zeros(len(y)), np.zeros(len(y))
    for i, other in enumerate(frames):
        objects = other[0].read("OBJMASK")
        if i == j or objects is None:
            continue
        try:
            there = exact_mapping(frames[j], other)(y.astype(float), x.astype(float))
        except DataError:
            continue
        v, u = (np.rint(axis).astype(int) for axis in there)
        inside = (v >= 0) & (v < objects.shape[0]) & (u >= 0) & (u < objects.shape[1])
        covered += inside
        seen[inside] += objects[v[inside], u[inside]] != 0
    # Where no other frame looks an object is believed.
    own[y, x] = seen >= _RECURS * covered
    return morphology.dilate(own, _MARGIN)


def _flag(frames: Frames, j: int, earlier: list[tuple[BrightPixels, float]], limit: float) -> int:
    """Flag the marks in frame j; return the number of pixels."""
    if not earlier:
        return 0
    ext = frames[j][0]
    glow = persistence.predicted(ext.shape, earlier)
    data, variance = ext.read("data"), ext.read("variance")
    noise = np.full(ext.shape, robust_sigma(data), np.float32) if variance is None else np.sqrt(variance)
    where = (glow > limit * noise) & (data < 3 * glow + _NOT_ONLY_A_MARK * noise)
    where &= ~_recurring(frames, j, morphology.dilate(where, _MARGIN))
    if where.any():
        objmask.add_to_mask(frames[j], DQ.cosmic_ray, where)
    return int(np.count_nonzero(where))
