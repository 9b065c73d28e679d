"""Frames that show too little of the reference are tied to it through other frames."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from niripipe.algorithms.affine import Affine
from niripipe.algorithms.register import Registration
from niripipe.algorithms.ties import Placed, Tie, place_frames, reached_by
from niripipe.astrodata import AstroData
from niripipe.primitives.base import Frames
from niripipe.primitives.geometry import pixel_mapping
from niripipe.primitives.objcat import inside, sources
from niripipe.primitives.offsets import tolerated, verified
from niripipe.primitives.pairs import registered

if TYPE_CHECKING:
    from niripipe.primitives.registration import AdjustWCSToReferenceParams

__all__ = ["alone_in_their_part", "tied_through_others"]

_SHARED = 0.04
"""Frames are compared if they share this part of their area, a fifth by a fifth at a corner."""

_MOST_PAIRS = 1500
"""So many pairs of frames are compared at most, drawn at random: all pairs of 55 frames."""

_COVERED = 0.5
"""A frame of which less is in the reference, or in the frames that are aligned, is a tile of a mosaic."""

_GRID = 11
"""What two frames share is found from so many points along each side."""

_SIGMAS = 3.0
"""A shift through others is beyond doubt if so many of its standard errors do no harm. Few pairs show no
rotation, which makes a frame at the far end of a chain worse than its formal error says."""


def tied_through_others(
    frames: Frames,
    reference: AstroData,
    found: Sequence[Registration | None],
    params: AdjustWCSToReferenceParams,
    map_items: Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]],
) -> list[Registration | None]:
    """Align frames without a good tie to the reference through others.

    Parameters
    ----------
    frames : list of AstroData
    reference : AstroData
        One of them.
    found : list of Registration or None
        What each shows relative to the reference; None for that itself.
    params : AdjustWCSToReferenceParams
    map_items : callable
        Applies a function to items, possibly on several threads.

    Returns
    -------
    list of Registration or None
        `found` as it was if nothing is gained: all frames have a good tie, or those without share nothing
        with the others. Otherwise the least-squares solution of all pairs of frames that agree.
    """
    poor = {k for k, result in enumerate(found) if result is not None and not _good(result)}
    if not poor or len(frames) < 3:
        return list(found)
    field = _Field.of(frames, reference)
    # A doubtful shift of a frame that shows the field of the reference is as good as those to other frames.
    poor = {k for k in poor if not _accepted(found[k]) or field.covered(k, [field.index]) < _COVERED}
    pairs = [pair for pair in combinations(range(len(frames)), 2) if field.index not in pair]
    shared = {pair: field.shared(*pair) for pair in pairs}
    pairs = [pair for pair in pairs if shared[pair] is not None]
    # Something must lead from the frames that are tied to those that are not.
    if not any((a in poor) != (b in poor) for a, b in pairs):
        return list(found)
    if len(pairs) > _MOST_PAIRS:
        drawn = np.random.default_rng(0).choice(len(pairs), _MOST_PAIRS, replace=False)
        pairs = [pairs[k] for k in sorted(drawn.tolist())]
    results = map_items(lambda pair: registered(frames[pair[0]], frames[pair[1]], params), pairs)
    seen = [(a, b, result) for (a, b), result in zip(pairs, results, strict=True) if result is not None]
    seen += [(k, field.index, result) for k, result in enumerate(found) if result is not None]
    good = [pair for pair in seen if _good(pair[2])]
    placed = place_frames([field.tie(*pair) for pair in good], field.centres, field.index)
    if not any(placed.reached[k] for k in poor):
        return list(found)
    # Where few sources agree in one place, a rotation moves the rest of the frame.
    firm = [field.tie(*pair) for pair in good if _is_firm(pair[2], params.min_sources)]
    weak = poor - set(np.flatnonzero(reached_by(firm, len(frames), field.index)).tolist())
    return [
        result
        if result is None or not placed.reached[k]
        else field.registration(k, result, placed, k in weak)
        for k, result in enumerate(found)
    ]


def alone_in_their_part(
    frames: Frames, reference: AstroData, found: Sequence[Registration | None], few: int
) -> list[bool]:
    """Tell which frames are an empty part of a mosaic: without them there would be no image there.

    Parameters
    ----------
    frames : list of AstroData
    reference : AstroData
        One of them.
    found : list of Registration or None
        How each is aligned; None for the reference.
    few : int
        Frames with so many sources are not empty: where those cannot be aligned, something is wrong.

    Returns
    -------
    list of bool
        True for frames with fewer sources that are not aligned, that share something with the aligned ones,
        directly or through others like them, and most of which no aligned frame shows.
    """
    aligned = {k for k, result in enumerate(found) if result is None or result.accepted}
    empty = {k for k in range(len(frames)) if k not in aligned and len(sources(frames[k])) < few}
    if not empty:
        return [False] * len(frames)
    field = _Field.of(frames, reference)
    alone = {k for k in empty if field.covered(k, aligned) < _COVERED}
    joined, new = set(aligned), set(aligned)
    while new:
        new = {k for k in alone - joined if any(field.shared(k, other) is not None for other in joined)}
        joined |= new
    return [k in alone & joined for k in range(len(frames))]


def _accepted(result: Registration | None) -> bool:
    return result is not None and result.accepted


def _good(result: Registration) -> bool:
    return result.accepted and not result.doubt


def _is_firm(result: Registration, min_sources: int) -> bool:
    return result.method != "sources" or result.n_matched >= min_sources


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """Frames, the index of the reference, and where the headers put the pixels of each in its pixels."""

    frames: Frames
    index: int
    mappings: list[Affine]
    centres: Any

    @classmethod
    def of(cls, frames: Frames, reference: AstroData) -> _Field:
        index = next(k for k, frame in enumerate(frames) if frame is reference)
        mappings = [pixel_mapping(frame, reference) for frame in frames]
        middles = [mapping(*_middle(frame)) for frame, mapping in zip(frames, mappings, strict=True)]
        return cls(frames, index, mappings, np.array([complex(float(x), float(y)) for y, x in middles]))

    def shared(self, first: int, second: int) -> tuple[float, float] | None:
        """Return the middle (y, x) of what frames share, in pixels of the first; None if that is little."""
        y, x, both = self._points_inside(first, second)
        return (float(y[both].mean()), float(x[both].mean())) if both.mean() >= _SHARED else None

    def covered(self, k: int, others: Iterable[int]) -> float:
        """Return which part of a frame is in at least one of the others."""
        return float(np.any([self._points_inside(k, other)[2] for other in others], axis=0).mean())

    def _points_inside(self, first: int, second: int) -> tuple[Any, Any, Any]:
        """Return a grid of points (y, x) in a frame, and which of them are in another one."""
        ny, nx = self.frames[first][0].shape
        y, x = np.meshgrid(np.linspace(0, ny - 1, _GRID), np.linspace(0, nx - 1, _GRID), indexing="ij")
        to_y, to_x = self.mappings[first].then(self.mappings[second].inverse())(y, x)
        return y, x, inside(self.frames[second], to_x, to_y, 0)

    def tie(self, first: int, second: int, result: Registration) -> Tie:
        """Return what a comparison of two frames says in the pixels of the reference."""
        at = np.array(self.shared(first, second) or _middle(self.frames[first]))
        matrix, offset = result.matrix()
        linear = self.mappings[first].matrix
        dy, dx = linear @ (matrix @ at + offset - at)
        y, x = self.mappings[first](*at)
        turn = complex(np.log(result.scale), np.deg2rad(result.angle) * _handedness(self.mappings[first]))
        pixels = np.sqrt(abs(np.linalg.det(linear)))
        error = result.error if np.isfinite(result.error) else verified(*self._both(first, second))
        return Tie(
            first,
            second,
            complex(dx, dy),
            complex(float(x), float(y)),
            error=float(error * pixels),
            turn=turn,
        )

    def _both(self, first: int, second: int) -> tuple[AstroData, AstroData]:
        return self.frames[first], self.frames[second]

    def registration(self, k: int, direct: Registration, placed: Placed, weak: bool) -> Registration:
        """Return the displacement of a frame as if it had been compared with the reference."""
        frame, mapping = self.frames[k], self.mappings[k]
        back = np.linalg.inv(mapping.matrix)
        dy, dx = back @ np.array([placed.shift[k].imag, placed.shift[k].real])
        pixels = np.sqrt(abs(np.linalg.det(back)))
        error, rest = (float(values[k] * pixels) for values in (placed.error, placed.residual))
        turn = complex(placed.turn[k])
        y, x = _middle(frame)
        words = f"{int(placed.number[k])} frames that share its field, which agree to {rest:.3f} pixel"
        good, most = verified(frame) / _SIGMAS, tolerated(frame)
        problem = f"too uncertain: standard error {error:.3f} pixel: " if not error <= most else ""
        doubt = "" if error <= good or problem else f"uncertain: standard error {error:.3f} pixel"
        if weak and not problem:
            doubt = doubt or "tied by one or two pairs, which do not show a rotation"
        return replace(
            direct,
            method="sources",
            centre=(x, y),
            accepted=not problem,
            doubt=doubt,
            reason=f"{problem}tied to {words}",
            dx=float(dx),
            dy=float(dy),
            angle=float(np.rad2deg(turn.imag) * _handedness(mapping)),
            scale=float(cmath.exp(turn.real).real),
            error=error,
            ties=int(placed.number[k]),
            residual=rest,
        )


def _middle(frame: AstroData) -> tuple[float, float]:
    ny, nx = frame[0].shape
    return (ny - 1) / 2, (nx - 1) / 2


def _handedness(mapping: Affine) -> float:
    """Return -1 if one of two frames is mirrored."""
    return float(np.sign(np.linalg.det(mapping.matrix)))
