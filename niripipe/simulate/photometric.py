"""Nights with real standard stars: fluxes in several filters, extinction, clouds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from niripipe.errors import ParameterError
from niripipe.instruments.tables import niri_tables
from niripipe.photometry import Standard, extinction, standard_band
from niripipe.simulate.conditions import Conditions
from niripipe.simulate.header import airmasses, frame_wcs
from niripipe.simulate.scene import Scene, Star, make_scene
from niripipe.simulate.sequence import Exposure, standard_star
from niripipe.simulate.settings import NightPlan, Setup

__all__ = ["Photometry", "dim", "draw_photometry", "make_scenes", "setup_of"]

#: Mean and scatter of the colours of field stars from one filter of the night to the next, mag.
_COLOUR, _COLOUR_RMS = 0.3, 0.2
#: Part of the frames that a cloud dims.
_CLOUDED = 0.3


@dataclass(frozen=True, slots=True)
class Photometry:
    """What the magnitudes of a night are made of.

    Attributes
    ----------
    zero_points : mapping of str to float
        By the filter's name in the plan: magnitude of 1 e-/s above the atmosphere at airmass 1.
    extinction : mapping of str to float
        Magnitudes per airmass.
    magnitudes : mapping of str to mapping
        By the standard's name: filter to the magnitude that the star really has, which differs from that of
        the catalogue where `NightPlan.catalogue_errors` is set.
    """

    zero_points: Mapping[str, float]
    extinction: Mapping[str, float]
    magnitudes: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return it for the truth of the night."""
        return asdict(self)


def draw_photometry(plan: NightPlan, rng: np.random.Generator) -> Photometry | None:
    """Return zero points, extinction and magnitudes of a night; None where no standards are named."""
    if not plan.standards:
        return None
    zero_points, dimming, magnitudes = {}, {}, {}
    for wheel in plan.all_filters:
        name = _pretty(wheel)
        nominal, mean = niri_tables().zero_point(name, plan.setup.camera), extinction(name)
        if nominal is None or mean is None:
            raise ParameterError("No nominal zero point is known", item="filters", found=wheel)
        zero_points[wheel] = nominal + plan.zero_point_shift
        dimming[wheel] = mean.value if plan.extinction is None else plan.extinction
    for name in plan.standards:
        magnitudes[name] = {
            wheel: _magnitude(standard_star(name), wheel, plan, rng) for wheel in plan.all_filters
        }
    return Photometry(zero_points, dimming, magnitudes)


def make_scenes(
    plan: NightPlan,
    exposures: tuple[Exposure, ...],
    scenes: Mapping[str, Scene],
    photometry: Photometry,
    rng: np.random.Generator,
) -> dict[str, Scene]:
    """Return the scenes of a night with standards, by `Exposure.scene`.

    Parameters
    ----------
    plan : NightPlan
    exposures : tuple of Exposure
        All frames of the night.
    scenes : mapping of str to Scene
        Those of the kinds ``target``, ``sky`` and ``std``: target and sky in the first filter.
    photometry : Photometry
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to Scene
        Those of `scenes`, and one for each field and filter; ``std`` is that of the first standard.
    """
    found, first = dict(scenes), plan.all_filters[0]
    for exposure in exposures:
        if not exposure.on_sky or exposure.scene in found:
            continue
        ratio = 10 ** (0.4 * (photometry.zero_points[exposure.wheel] - photometry.zero_points[first]))
        if exposure.kind == "std":
            magnitude = photometry.magnitudes[exposure.standard][exposure.wheel]
            flux = 10 ** (0.4 * (photometry.zero_points[exposure.wheel] - magnitude))
            base = frame_wcs(replace(exposure, p=0.0, q=0.0), plan.setup)
            found[exposure.scene] = make_scene("std", replace(plan, standard_rate=flux), base, rng)
        else:
            drawn = found[exposure.kind]
            index = plan.all_filters.index(exposure.wheel)
            colour = rng.normal(_COLOUR * index, _COLOUR_RMS * (index > 0), len(drawn.stars))
            stars = tuple(
                Star(star.x, star.y, star.flux * ratio * 10 ** (0.4 * float(value)))
                for star, value in zip(drawn.stars, colour, strict=True)
            )
            found[exposure.scene] = replace(drawn, stars=stars)
    standard = next((exposure for exposure in exposures if exposure.kind == "std"), None)
    if standard is not None:
        found["std"] = found[standard.scene]
    return found


def dim(
    plan: NightPlan,
    exposures: tuple[Exposure, ...],
    conditions: tuple[Conditions, ...],
    photometry: Photometry,
    rng: np.random.Generator,
) -> tuple[Conditions, ...]:
    """Return conditions with extinction and clouds in their transparency."""
    changed = []
    for exposure, condition in zip(exposures, conditions, strict=True):
        cloudy, depth = rng.uniform() < _CLOUDED, float(rng.uniform(0.5, 1.0))
        if exposure.on_sky:
            magnitudes = photometry.extinction[exposure.wheel] * (float(np.mean(airmasses(exposure))) - 1)
            magnitudes += plan.clouds * depth if cloudy else 0.0
            condition = replace(condition, transparency=condition.transparency * 10 ** (-0.4 * magnitudes))
        changed.append(condition)
    return tuple(changed)


def setup_of(exposure: Exposure, setup: Setup) -> Setup:
    """Return the setup of a frame, with its filter."""
    return replace(setup, filter=exposure.wheel) if exposure.wheel else setup


def _pretty(wheel: str) -> str:
    found = niri_tables().filter_of([wheel])
    return wheel if found is None else found.name


def _magnitude(star: Standard, wheel: str, plan: NightPlan, rng: np.random.Generator) -> float:
    band = standard_band(_pretty(wheel))
    known = None if band is None else star.magnitudes.get(band.band)
    if known is None or math.isnan(known[0]):
        raise ParameterError(
            "The standard has no magnitude in a filter of the night", item="standards", found=star.label,
            expected=f"one measured in {wheel}",
        )  # fmt: skip
    value, error = known
    return value + (error * float(rng.standard_normal()) if plan.catalogue_errors else 0.0)
