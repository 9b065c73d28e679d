"""What chance decides about each frame: sky, seeing, clouds, pointing, and what `Reality` adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from niripipe.simulate.reality import FrameReality, Reality, thermal_light
from niripipe.simulate.sequence import Exposure, Kind
from niripipe.simulate.settings import NightPlan

__all__ = ["Conditions", "add_reality", "base_level", "draw_conditions", "walk"]

#: Chance of each effect has its own source, so that switching one off leaves the others as they are.
_SOURCES = ("seeing", "transparency", "blobs", "gradient", "fringes", "oh_waves", "rows", "quadrants")
#: Times in which the slope of the sky turns by a radian and the fringes go up and down, minutes; by how much.
_TURN, _FRINGE_PERIOD, _FRINGE_SWING = 30.0, 20.0, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What chance decided about one frame.

    Attributes
    ----------
    level : float
        Sky, or lamp and thermal light, e-/s per pixel; 0 in the dark.
    gradient : tuple of float
        Relative change of the level across the array along x and y.
    fwhm_pix : float
        Of the stars; of their core with a halo.
    transparency : float
        Factor on stars and galaxy.
    error : tuple of float
        Pointing error in P and Q, arcsec.
    reality : FrameReality or None
        What real nights have besides.
    """

    level: float
    gradient: tuple[float, float] = (0.0, 0.0)
    fwhm_pix: float
    transparency: float = 1.0
    error: tuple[float, float] = (0.0, 0.0)
    reality: FrameReality | None = None


def base_level(kind: Kind, plan: NightPlan) -> float:
    """Return the mean light of a kind of frame besides stars and galaxy, e-/s per pixel."""
    if kind in ("dark", "short_dark"):
        return 0.0
    if kind == "flat_on":
        return plan.lamp_rate + plan.thermal_rate
    if kind == "std" and plan.reality.standard_sky is not None:
        return plan.reality.standard_sky
    return plan.thermal_rate if kind == "flat_off" else plan.sky_rate


def draw_conditions(
    plan: NightPlan, exposures: tuple[Exposure, ...], rng: np.random.Generator
) -> tuple[Conditions, ...]:
    """Draw seeing, transparency, pointing, sky and lamp of each frame."""
    effects = plan.effects
    # A slow wave with some wandering about it, per unit of drift.
    phase, angle = rng.uniform(0, 2 * math.pi, 2)
    drawn, wander = [], 0.0
    for exposure in exposures:
        minutes = (exposure.start - exposures[0].start).total_seconds() / 60
        wander = 0.9 * wander + 0.25 * float(rng.standard_normal())
        seeing, cloud, lamp, p, q = (float(v) for v in rng.standard_normal(5))
        level = base_level(exposure.kind, plan)
        if exposure.on_sky:
            level *= 1 + effects.sky_drift * (math.sin(2 * math.pi * minutes / 25 + phase) + wander) / 1.2
        elif exposure.kind == "flat_on":
            level += plan.lamp_rate * effects.lamp_rms * lamp
        slope = effects.sky_gradient if exposure.on_sky else 0.0
        turn = angle + minutes / 40
        drawn.append(
            Conditions(
                level=max(level, 0.0),
                gradient=(slope * math.cos(turn), slope * math.sin(turn)),
                fwhm_pix=plan.fwhm_pix * math.exp(effects.seeing_rms * seeing),
                transparency=math.exp(-abs(effects.transparency_rms * cloud)),
                error=(effects.pointing_rms * p, effects.pointing_rms * q),
            )
        )
    return tuple(drawn)


def add_reality(
    plan: NightPlan,
    exposures: tuple[Exposure, ...],
    conditions: tuple[Conditions, ...],
    seed: np.random.SeedSequence,
) -> tuple[Conditions, ...]:
    """Add what `NightPlan.reality` asks for to the conditions of each frame.

    Parameters
    ----------
    plan : NightPlan
        Its reality.
    exposures : tuple of Exposure
        The frames.
    conditions : tuple of Conditions
        Theirs.
    seed : numpy.random.SeedSequence
        Where chance comes from.

    Returns
    -------
    tuple of Conditions
        The same if nothing is on.
    """
    if plan.reality.is_off:
        return conditions
    chance = {
        name: np.random.default_rng(child)
        for name, child in zip(_SOURCES, seed.spawn(len(_SOURCES)), strict=True)
    }
    conditions = _air(plan, exposures, conditions, chance)
    sky = _Sky.draw(plan, chance)
    targets = [i for i, exposure in enumerate(exposures) if exposure.kind == "target"]
    trailed = {targets[rank] for rank in plan.reality.trailed if rank < len(targets)}
    made = []
    for i, (exposure, condition) in enumerate(zip(exposures, conditions, strict=True)):
        minutes = (exposure.start - exposures[0].start).total_seconds() / 60
        reality = _optics(plan, trailed=i in trailed)
        if exposure.on_sky:
            reality = sky.at(minutes, condition.level, reality)
            if exposure.kind == "std" and plan.reality.standard_sky is not None:
                reality = replace(reality, thermal=0.0)
        made.append(replace(condition, reality=_readout(plan, exposure, reality, chance)))
    return tuple(made)


def _air(
    plan: NightPlan,
    exposures: tuple[Exposure, ...],
    conditions: tuple[Conditions, ...],
    chance: dict[str, np.random.Generator],
) -> tuple[Conditions, ...]:
    """Set seeing, transparency and level of the frames on the sky."""
    reality, made = plan.reality, list(conditions)
    on_sky = [i for i, exposure in enumerate(exposures) if exposure.on_sky]
    widths = walk(1.0, reality.seeing_walk, len(on_sky), chance["seeing"])
    clouds = walk(1.0, reality.transparency_walk, len(on_sky), chance["transparency"], most=1.0)
    for rank, i in enumerate(on_sky):
        old = made[i]
        fwhm = _listed(reality.seeing, rank, 0.0) / plan.setup.scale or old.fwhm_pix
        made[i] = replace(
            old,
            level=old.level * _listed(reality.sky_levels, rank, 1.0),
            fwhm_pix=fwhm * float(widths[rank]),
            transparency=old.transparency * _listed(reality.transparency, rank, 1.0) * float(clouds[rank]),
        )
    return tuple(made)


def walk(
    start: float, step: float, count: int, rng: np.random.Generator, most: float = math.inf
) -> NDArray[np.float64]:
    """Draw a random walk of a positive number.

    Parameters
    ----------
    start : float
        First value.
    step : float
        rms of the change of its logarithm.
    count : int
        Values wanted.
    rng : numpy.random.Generator
        Where chance comes from.
    most : float
        The walk is reflected there.

    Returns
    -------
    ndarray of float64, shape (count,)
    """
    steps = step * rng.standard_normal(max(count - 1, 0))
    logs = math.log(start) + np.concatenate([np.zeros(min(count, 1)), np.cumsum(steps)])
    if math.isfinite(most):
        logs = math.log(most) - np.abs(logs - math.log(most))
    return np.exp(logs)


def _listed(values: tuple[float, ...], rank: int, otherwise: float) -> float:
    """Return the value of a frame in a list that starts again at its end."""
    return values[rank % len(values)] if values else otherwise


def _optics(plan: NightPlan, *, trailed: bool) -> FrameReality:
    reality, angle = plan.reality, math.radians(plan.reality.trail_angle)
    length = reality.trail_length if trailed else 0.0
    return FrameReality(
        distortion=reality.distortion,
        core_fraction=reality.core_fraction,
        halo_fwhm_pix=reality.halo_fwhm / plan.setup.scale,
        trail=(length * math.cos(angle), length * math.sin(angle)),
    )


def _readout(
    plan: NightPlan, exposure: Exposure, reality: FrameReality, chance: dict[str, np.random.Generator]
) -> FrameReality:
    """Draw the offsets of rows and quadrants; coadds are read one by one."""

    def offsets(name: str, rms: float, count: int) -> tuple[float, ...]:
        drawn = rms * math.sqrt(exposure.coadds) * chance[name].standard_normal(count)
        return tuple(round(float(value), 2) for value in drawn) if rms else ()

    settings = plan.reality
    return replace(
        reality,
        rows=offsets("rows", settings.row_noise, plan.setup.size),
        quadrants=offsets("quadrants", settings.quadrant_noise, 4),
    )


@dataclass(frozen=True, slots=True)
class _Sky:
    """Structure of a night's sky: what stays the same while its strength changes."""

    settings: Reality
    blobs: tuple[tuple[float, float, float, float], ...]  # x, y, sigma, phase
    turn: float
    fringes: tuple[float, float, float]  # angle, phase, phase of the swing
    waves: tuple[float, float]  # angle, phase

    @classmethod
    def draw(cls, plan: NightPlan, chance: dict[str, np.random.Generator]) -> _Sky:
        settings, size = plan.reality, plan.setup.size

        def turns(name: str, count: int) -> list[float]:
            return [float(v) for v in chance[name].uniform(0, 2 * math.pi, count)]

        where = chance["blobs"].uniform(0.1 * size, 0.9 * size, (settings.blobs, 2))
        blobs = tuple(
            (float(x), float(y), settings.blob_size * size, phase)
            for (x, y), phase in zip(where, turns("blobs", settings.blobs), strict=True)
        )
        angle, phase, swing = turns("fringes", 3)
        wave_angle, wave_phase = turns("oh_waves", 2)
        return cls(settings, blobs, turns("gradient", 1)[0], (angle, phase, swing), (wave_angle, wave_phase))

    def at(self, minutes: float, level: float, reality: FrameReality) -> FrameReality:
        """Add the sky's light at a time of the night, under a sky of some level (e-/s per pixel)."""
        s = self.settings
        blobs = tuple(
            (x, y, sigma, level * s.blob_strength * (1 - math.cos(_cycle(minutes, s.blob_period) + phase)))
            for x, y, sigma, phase in self.blobs
        )
        turn = self.turn + minutes / _TURN
        angle, phase, swing = self.fringes
        strength = s.fringes * (1 + _FRINGE_SWING * math.sin(_cycle(minutes, _FRINGE_PERIOD) + swing))
        wave_angle, wave_phase = self.waves
        travelled = 60 * minutes * s.oh_speed
        return replace(
            reality,
            blobs=blobs,
            slope=(level * s.gradient * math.cos(turn), level * s.gradient * math.sin(turn)),
            fringes=(level * strength, s.fringe_period, angle, phase) if s.fringes else (),
            oh_wave=(level * s.oh_waves, s.oh_length, wave_angle, wave_phase - _cycle(travelled, s.oh_length))
            if s.oh_waves
            else (),
            thermal=thermal_light(s.thermal, s.thermal_rise, minutes / 60),
        )


def _cycle(done: float, period: float) -> float:
    """Angle of a cycle, radians."""
    return 2 * math.pi * done / period
