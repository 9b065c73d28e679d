"""Finding how much of a sky is in a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from niripipe.algorithms import background, extended
from niripipe.algorithms import sky as sky_algorithm
from niripipe.astrodata import AstroData
from niripipe.errors import AlgorithmError
from niripipe.logutils import get_logger
from niripipe.primitives.base import Outcome, done, opened_name, skipped
from niripipe.primitives.skybuild import BuiltSky, seconds_of

__all__ = ["SKY_FROM", "Match", "Scaling", "SkyLevel", "level_of", "match_sky", "without_sky"]

log = get_logger(__name__)

SKY_FROM = "SKYFROM"
"""Keyword of the primary header: what the sky that was subtracted comes from."""

SkyLevel = Literal["auto", "peak", "median", "faint", "boxes"]

_LEAST_SKY = 0.15
"""Galaxies are masked in a frame only if more than this part of it remains."""
_CROWDED = 0.3
"""When less of the field than this agrees on a sky level, the level is checked against the skies'."""


class Scaling(Protocol):
    """What of the parameters says how a sky is matched to a frame."""

    @property
    def scale_sky(self) -> bool:
        """Whether to scale."""
        ...

    @property
    def offset_sky(self) -> bool:
        """Whether to shift."""
        ...

    @property
    def level(self) -> SkyLevel:
        """What the sky level is."""
        ...

    @property
    def debug_threshold(self) -> float:
        """Relative precision of a factor."""
        ...


@dataclass(frozen=True, slots=True)
class Match:
    """How much of a sky is in a frame.

    Attributes
    ----------
    factor, constant : float
        ``data - factor * sky - constant``.
    residual : float or None
        Level left; None where it cannot be measured.
    method : str
        How it was found.
    warning : str
        A message for the user, empty if there is none.
    """

    factor: float
    constant: float
    residual: float | None
    method: str
    warning: str = ""


def match_sky(frame: AstroData, sky: BuiltSky, params: Scaling) -> Match:
    """Find by which factor and constant a sky fits a frame.

    Parameters
    ----------
    frame : AstroData
        The frame; its sources (OBJMASK) are left out where they are known.
    sky : BuiltSky
    params : Scaling

    Returns
    -------
    Match

    Raises
    ------
    AlgorithmError
        If the frame cannot be measured. A sky without a level to scale is shifted instead.
    """
    ext = frame[0]
    level = _level_kind(params.level, sky.data.shape)
    data, mask, objects = ext.read("data"), ext.read("mask"), ext.read("OBJMASK")
    if params.level == "auto" and level == "boxes" and (params.scale_sky or params.offset_sky):
        objects = _with_extended_light(data, mask, objects, sky)
    arguments = (data, sky.data, mask, sky.mask, objects)
    try:
        unscaled = ""
        if params.scale_sky:
            try:
                found = sky_algorithm.sky_factor(*arguments, level=level, threshold=params.debug_threshold)
                return _believed(found, frame, sky, arguments, level)
            except AlgorithmError as error:
                # Near zero an offset does the same as a factor; without pixels to measure it fails too.
                unscaled = f"the sky was shifted, not scaled: {error.problem} ({error.found})"
        if params.offset_sky or unscaled:
            found = sky_algorithm.sky_offset(*arguments, level=level)
            doubts = [text for text in (unscaled, _doubt(found, "offset")) if text]
            return Match(1.0, found.value, found.residual, "offset", "; ".join(doubts))
    except AlgorithmError as error:
        error.file = frame.filename
        raise
    factor, constant, _ = sky.expected(seconds_of(frame))
    return Match(factor, constant, _residual(arguments, factor, constant, level), "interpolated")


def level_of(frame: AstroData) -> float:
    """Return the background level of a frame, without its sources where they are known."""
    ext = frame[0]
    return background.measure_background(ext.read("data"), ext.read("mask"), ext.read("OBJMASK")).level


def without_sky(frame: AstroData, *, own_level: bool) -> Outcome:
    """Treat a frame that has no sky, and return what was done.

    Parameters
    ----------
    frame : AstroData
        With `own_level` its own background level is subtracted: data change by a constant, the variance does
        not. SKYNUM (0), SKYMETH (``own level``) and SKYLEVEL in the extension header and SKYFROM (``own
        level``, else ``none``) in the primary header say so.
    own_level : bool
    """
    name, problem = opened_name(frame), "there is no sky for it"
    if own_level:
        try:
            level = level_of(frame)
        except AlgorithmError as error:
            problem += f", and its level cannot be measured ({error.problem})"
        else:
            frame.subtract(np.float32(level))
            hdr = frame[0].hdr
            hdr.set("SKYNUM", 0, "Number of sky frames combined")
            hdr.set("SKYMETH", "own level", "How the sky was matched to the frame")
            hdr.set("SKYLEVEL", round(level, 3), "Level of the sky that was subtracted")
            frame.phu.set(SKY_FROM, "own level", "Where the sky subtracted comes from")
            return done(f"own level of {level:.1f}, {problem}")
    log.warning("%s: no sky was subtracted: %s", name, problem)
    frame.phu.set(SKY_FROM, "none", "Where the sky subtracted comes from")
    return skipped(f"no sky was subtracted: {problem}")


def _with_extended_light(data: Any, mask: Any, objects: Any, sky: BuiltSky) -> Any:
    """Return an object mask with the galaxies of a frame in it that detection does not see whole."""
    own = extended.box_medians(data, mask, objects)
    light = extended.extended_light([own, sky.boxes()], [[1], []]).masks[0]
    # A galaxy over all of the field is not seen against a sky beside it; nothing would be left to measure.
    if not light.any() or light.mean() > 1 - _LEAST_SKY:
        return objects
    shown = extended.over_pixels(light, sky.data.shape)
    return shown if objects is None else shown | (objects != 0)


def _believed(
    found: sky_algorithm.SkyMatch,
    frame: AstroData,
    sky: BuiltSky,
    arguments: tuple[Any, ...],
    level: sky_algorithm.LevelKind,
) -> Match:
    """Check a factor against what the skies around it say where extended light may have spoilt it."""
    expected, constant, error = sky.expected(seconds_of(frame))
    base = float(np.median(sky.data[::16, ::16]))
    excess = (found.value - expected) * base
    if found.share >= _CROWDED or constant:
        return Match(found.value, 0.0, found.residual, "scaled")
    if np.isfinite(error) and excess > max(3 * error * base, 0.1 * found.std):
        text = (
            f"only {100 * found.share:.0f} % of the field agree on a sky level, and it lies "
            f"{100 * (found.value / expected - 1):.2f} % above that of the skies, which is more than they "
            f"differ ({100 * error / expected:.2f} %): taken for light of the target, and the level of the "
            "skies is used (scale_sky=False does so always)"
        )
        return Match(expected, 0.0, _residual(arguments, expected, 0.0, level), "interpolated", text)
    return Match(found.value, 0.0, found.residual, "scaled", _doubt(found, "scale"))


def _doubt(found: sky_algorithm.SkyMatch, what: str) -> str:
    if found.share >= _CROWDED:
        return ""
    return (
        f"only {100 * found.share:.0f} % of the field agree on a sky level: extended light may be "
        f"subtracted; {what}_sky=False takes the level from the skies"
    )


def _residual(
    arguments: tuple[Any, ...], factor: float, constant: float, level: sky_algorithm.LevelKind
) -> float | None:
    try:
        return sky_algorithm.sky_residual(*arguments, factor=factor, level=level).residual - constant
    except AlgorithmError:
        # A frame all of whose pixels are masked has no level; its subtraction is none the worse.
        return None


def _level_kind(wanted: SkyLevel, shape: tuple[int, ...]) -> sky_algorithm.LevelKind:
    if wanted != "auto":
        return wanted
    return "boxes" if min(shape) >= 8 * extended.BOX else "peak"
