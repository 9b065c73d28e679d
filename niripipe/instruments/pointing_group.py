"""Which statement about its pointing is wrong in a frame: judged with the other frames of its sequence.

A header states the pointing as WCS, as target and as telescope offsets. In one frame by itself nothing tells
which of two that contradict each other is wrong. In a sequence the difference of WCS and offset is the same
in all frames, whatever the dithers are, so a frame that differs shows, and so does a WCS that stands still
while the offsets change. The functions take and return plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import NamedTuple

from niripipe.astrodata.wcs import LinearTerms
from niripipe.instruments.position import angular_separation, position_at, separation_east_north

__all__ = ["Aim", "Judgement", "judge"]

Vector = tuple[float, float]

_SAME_BASE = 5.0
"""WCS minus offset of frames of a sequence differ by less (arcsec): 0.3 in raw frames; a new acquisition."""

_MOVED = 1.0
"""Offsets that differ by less (arcsec) say nothing about a WCS that stands still."""

_STILL = 0.1
"""A WCS that follows less than this fraction of the offset stands still."""

_NEAR = 3600.0
"""A header that is wrong still names a position within a degree; a frame further away shows another field."""

_LEAST_ERROR = 0.5
"""Error of a WCS taken from other frames of the sequence, arcsec: what guiding and acquisition leave."""


class Aim(NamedTuple):
    """What the header of a frame states about its pointing.

    Attributes
    ----------
    sequence : str
        The same for frames of one observation.
    setting : tuple
        Camera, port, light path, size, position angle: what decides about CRPIX and CD.
    wcs : LinearTerms or None
        If it can be true for the camera.
    motion : tuple of float or None
        Offset of the telescope, East and North, arcsec.
    confirmed : bool or None
        Whether a second pair of keywords states an offset of the same length; None without such a pair.
    target : tuple of float or None
        RA and Dec, degrees.
    moving : bool
        Whether the telescope tracked a moving target.
    observation : str
        Its name: the target of one observation does not change.
    """

    sequence: str
    setting: tuple[object, ...]
    wcs: LinearTerms | None
    motion: Vector | None
    confirmed: bool | None
    target: Vector | None
    moving: bool = False
    observation: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong in the header of a frame.

    Attributes
    ----------
    distrusted : str
        ``WCS``, ``target``, ``offsets`` or nothing.
    witness : str
        What decided, in words.
    wcs : LinearTerms or None
        The WCS to use instead, where it is distrusted.
    error : float
        Of that WCS on the sky, arcsec.
    other : tuple of float or None
        RA and Dec of the reference pixel by the statement that is distrusted, WCS or offsets; for the images.
    target : tuple of float or None
        The target of the other frames (RA, Dec in degrees), where it is distrusted.
    """

    distrusted: str
    witness: str
    wcs: LinearTerms | None = None
    error: float = float("nan")
    other: Vector | None = None
    target: Vector | None = None


def judge(aims: Sequence[Aim], limit: float) -> list[Judgement | None]:
    """Compare the pointing of frames, sequence by sequence.

    Parameters
    ----------
    aims : sequence of Aim
    limit : float
        Largest distance between WCS and target plus offset, arcsec.

    Returns
    -------
    list of Judgement or None
        One a frame; None where the other frames say nothing about it.
    """
    found: list[Judgement | None] = [None] * len(aims)
    for name in {aim.sequence for aim in aims}:
        chosen = [k for k, aim in enumerate(aims) if aim.sequence == name]
        for k, one in zip(chosen, _Sequence([aims[k] for k in chosen], limit).judged(), strict=True):
            found[k] = one
    return found


class _Sequence:
    """The frames of one observation."""

    def __init__(self, aims: Sequence[Aim], limit: float) -> None:
        self.aims, self.limit = aims, limit
        known = [aim.wcs.crval for aim in aims if aim.wcs is not None]
        self.origin = known[0] if known else (0.0, 0.0)
        self.places = [self._place(aim) for aim in aims]
        self.bases = [
            None if place is None or aim.motion is None else _minus(place, aim.motion)
            for aim, place in zip(aims, self.places, strict=True)
        ]
        self.complete = [k for k, base in enumerate(self.bases) if base is not None]

    def judged(self) -> list[Judgement | None]:
        """Judge the frames."""
        if self._wcs_stands_still():
            return self._by_offsets()
        members = self._majority()
        if not members and self._offsets_stand_still():
            return [Judgement("offsets", "the WCS: it moves, and the offsets stand still")] * len(self.aims)
        if not members:
            members = [k for k in self.complete if self._agrees_with_target(k)]
            if not members or len(self.aims) < 2:
                return [None] * len(self.aims)
        return [self._judged(k, members) for k in range(len(self.aims))]

    # ---- a WCS that stands still

    def _wcs_stands_still(self) -> bool:
        pairs = [
            (step, math.dist(self._at(i), self._at(j)))
            for i, j in combinations(self.complete, 2)
            if (step := math.dist(self._motion(i), self._motion(j))) >= _MOVED
        ]
        return 2 * sum(followed <= _STILL * step for step, followed in pairs) > len(pairs)

    def _offsets_stand_still(self) -> bool:
        """Whether no offset says what the WCS of three frames or more say; of two the target decides."""
        pairs = list(combinations(self.complete, 2))
        still = all(math.dist(self._motion(i), self._motion(j)) < _STILL * _MOVED for i, j in pairs)
        return still and len(self.complete) > 2

    def _by_offsets(self) -> list[Judgement | None]:
        """Let the frames follow their offsets from the one whose WCS and target agree best."""
        best = min(self.complete, key=lambda k: (self._away_from_target(k), k))
        base, away = self._base(best), self._away_from_target(best)
        error = max(away, _LEAST_ERROR) if away <= self.limit else self.limit
        words = f"the telescope's offsets of {len(self.complete)} frames, between which the WCS stands still"
        judged: list[Judgement | None] = []
        for aim in self.aims:
            pattern = self._pattern(aim, self.complete)
            if aim.motion is None or pattern is None:
                judged.append(None)
                continue
            crval = self._sky(aim, (base[0] + aim.motion[0], base[1] + aim.motion[1]))
            wcs = pattern._replace(crval=crval)
            judged.append(Judgement("WCS", words, wcs, error, _at_pixel(aim.wcs, wcs.crpix)))
        return judged

    # ---- the majority

    def _majority(self) -> list[int]:
        """Return the frames that agree in WCS minus offset, if they are more than half of them."""
        best: list[int] = []
        for k in self.complete:
            near = [j for j in self.complete if math.dist(self._base(j), self._base(k)) <= _SAME_BASE]
            best = near if len(near) > len(best) else best
        return best if 2 * len(best) > len(self.complete) and len(best) > 1 else []

    def _judged(self, k: int, members: list[int]) -> Judgement | None:
        aim = self.aims[k]
        if k in members:
            return self._of_member(k, members)
        if aim.motion is None or self._is_elsewhere(k, members):
            return None
        base = _middle(self._base(j) for j in members)
        crval = self._sky(aim, (base[0] + aim.motion[0], base[1] + aim.motion[1]))
        if aim.wcs is not None and not aim.confirmed:
            return Judgement("offsets", "the WCS: no other keyword confirms the offsets", other=crval)
        pattern = self._pattern(aim, members)
        if pattern is None:
            return None
        scatter = max(math.dist(self._base(j), base) for j in members)
        words = f"WCS and offsets of {len(members)} other frames of the sequence"
        wcs = pattern._replace(crval=crval)
        target = None if self._agrees(aim.target, crval, aim.motion) else self._target_of(members)
        error = max(scatter, _LEAST_ERROR)
        return Judgement("WCS", words, wcs, error, _at_pixel(aim.wcs, wcs.crpix), target)

    def _of_member(self, k: int, members: list[int]) -> Judgement:
        """Judge a frame whose WCS is that of the majority: its target may be wrong."""
        words = f"WCS and offsets, as in {len(members)} of {len(self.aims)} frames of the sequence"
        if self.aims[k].target is None or self._agrees_with_target(k):
            return Judgement("", words)
        return Judgement("target", words, target=self._target_of(members))

    def _target_of(self, members: list[int]) -> Vector | None:
        """Return the target of frames if most of them agree with it."""
        others = [target for j in members if (target := self.aims[j].target) and self._agrees_with_target(j)]
        return None if 2 * len(others) <= len(members) else others[len(others) // 2]

    def _is_elsewhere(self, k: int, members: list[int]) -> bool:
        """Whether a frame was sent to another target: WCS and target agree, and differ from the others'."""
        target = self.aims[k].target
        if self.aims[k].wcs is None or target is None or not self._agrees_with_target(k):
            return False
        others = [other for j in members if (other := self.aims[j].target) is not None]
        away = min((angular_separation(*target, *other) for other in others), default=math.inf)
        return away > _SAME_BASE and not (away < _NEAR and self._is_amid(k, members))

    def _is_amid(self, k: int, members: list[int]) -> bool:
        """Whether a frame stands alone among others of its observation, whose target does not change.

        Where more than a third of the frames share another position, the telescope nodded between the two.
        """
        name = self.aims[k].observation
        beside = [j for j in (k - 1, k + 1) if 0 <= j < len(self.aims)]
        there = [j for j in self.complete if math.dist(self._base(j), self._base(k)) <= _SAME_BASE]
        alone = all(j in members and self.aims[j].observation == name for j in beside)
        return bool(name) and alone and 3 * len(there) <= len(self.aims)

    # ---- numbers

    def _place(self, aim: Aim) -> Vector | None:
        """Where the WCS points, arcsec East and North of the origin; of moving targets, of the target."""
        if aim.wcs is None:
            return None
        return separation_east_north(*self._from(aim), *aim.wcs.crval)

    def _sky(self, aim: Aim, place: Vector) -> Vector:
        """Return RA and Dec of a place."""
        angle = math.degrees(math.atan2(*place))
        return position_at(*self._from(aim), math.hypot(*place), angle)

    def _from(self, aim: Aim) -> Vector:
        return aim.target if aim.moving and aim.target is not None else self.origin

    def _motion(self, k: int) -> Vector:
        return self.aims[k].motion or (0.0, 0.0)

    def _at(self, k: int) -> Vector:
        return self.places[k] or (0.0, 0.0)

    def _base(self, k: int) -> Vector:
        return self.bases[k] or (0.0, 0.0)

    def _away_from_target(self, k: int) -> float:
        """Return the distance of the WCS from target plus offset, arcsec; infinite where it is unknown."""
        aim = self.aims[k]
        if aim.target is None or aim.wcs is None or aim.motion is None:
            return math.inf
        return math.dist(separation_east_north(*aim.target, *aim.wcs.crval), aim.motion)

    def _agrees_with_target(self, k: int) -> bool:
        """Whether WCS and target agree. Targets that move always do: they may be apparent places."""
        return self.aims[k].moving or self._away_from_target(k) <= self.limit

    def _agrees(self, target: Vector | None, crval: Vector, motion: Vector) -> bool:
        """Whether a target that is known is where a WCS and an offset say."""
        return target is None or math.dist(separation_east_north(*target, *crval), motion) <= self.limit

    def _pattern(self, aim: Aim, members: list[int]) -> LinearTerms | None:
        """Return a WCS with CRPIX and CD for a frame: that of another one with its setting, else its own."""
        for j in members:
            if self.aims[j].setting == aim.setting and self.aims[j] is not aim:
                return self.aims[j].wcs
        return aim.wcs


def _at_pixel(wcs: LinearTerms | None, pixel: Vector) -> Vector | None:
    """Return RA and Dec of a pixel (1-based) by a WCS."""
    if wcs is None:
        return None
    ra, dec = wcs.to_plane().all_pix2world(*pixel, 1)
    return float(ra), float(dec)


def _minus(first: Vector, second: Vector) -> Vector:
    return first[0] - second[0], first[1] - second[1]


def _middle(points: Iterable[Vector]) -> Vector:
    x, y = zip(*points, strict=True)
    return median(x), median(y)
