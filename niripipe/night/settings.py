"""What a user may decide about how a night is sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from niripipe.errors import ParameterError

__all__ = ["NightSettings", "WithoutCalibration"]

WithoutCalibration = Literal["skip", "leave out"]
WithoutFlat = Literal["sky flat", "leave out", "skip"]
Grouping = Literal["observation", "target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSettings:
    """How a night is sorted.

    Parameters
    ----------
    short_dark : float
        Darks up to this total exposure (s) serve for bad pixel masks; the observatory takes them with 1 s.
        They become a processed dark only if a science or standard frame has that exposure too.
    min_frames : int
        Darks and lamp-on flats that are fewer than this in their set-up are left out: a lone frame cannot be
        cleaned of cosmic rays.
    min_on_sky : int
        The same for standards and science frames. Of two frames each is the sky of the other; of one only
        its own level is subtracted.
    gap : float
        Darks or flats of one set-up that are more than this many days apart make products of their own, so
        that those of one day are not mixed with those of the next.
    without_dark : {"skip", "leave out"}
        What becomes of science frames without a dark: they are reduced without the dark correction and a
        warning, or left out. Skies of the same exposure contain the dark current too, so that little
        is lost. Standards without darks are always reduced: the archive takes none for them.
    without_flat : {"sky flat", "leave out", "skip"}
        What becomes of science and standard frames without a lamp flat. By default a flat is made of frames
        of the sky of the same night, where there are enough; else they are left out. In thermal filters,
        for which no lamp flats are taken, they are then reduced without a flat, whatever is set here.
    only_needed : bool
        Make only the darks and flats that a frame of the night needs; by default every one that can be
        made, since other nights may need them.
    group_by : {"observation", "target"}
        Science frames are stacked together if they are of one observation, or of one programme and
        target. The instrument's set-up must be the same either way.
    use_failed : bool
        Use also frames that failed the observatory's quality assessment on the sky. Calibrations that failed
        are never used.
    """

    short_dark: float = 1.5
    min_frames: int = 2
    min_on_sky: int = 1
    gap: float = 0.5
    without_dark: WithoutCalibration = "skip"
    without_flat: WithoutFlat = "sky flat"
    only_needed: bool = False
    group_by: Grouping = "observation"
    use_failed: bool = False

    def __post_init__(self) -> None:
        _one_of("without_dark", self.without_dark, get_args(WithoutCalibration))
        _one_of("without_flat", self.without_flat, get_args(WithoutFlat))
        _one_of("group_by", self.group_by, get_args(Grouping))
        for name, low in (("short_dark", 0.0), ("min_frames", 1), ("min_on_sky", 1), ("gap", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= low:
                raise ParameterError("A setting is not usable", item=name, found=value, expected=f">= {low}")


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ParameterError(
            "A setting is not usable", item=name, found=repr(value), expected=" or ".join(map(repr, allowed))
        )
