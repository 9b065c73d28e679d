"""Observing conditions: the limits of image quality, sky brightness and cloud, and which of them are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Conditions", "sky_conditions", "to_conditions"]

# Conditions less probable than this are not reported (DRAGONS).
_LEAST_PROBABILITY = 0.05


@dataclass(frozen=True, slots=True)
class Conditions:
    """Observing conditions that a measurement is compatible with.

    Attributes
    ----------
    best : tuple of int
        Percentiles of the most probable band; several where their limits are equal. 100 means "any": worse
        than every limit.
    possible : tuple of tuples of int
        All bands with a probability above 5 per cent, best first.
    probability : tuple of (tuple of int, float)
        Bands, best first, with their probabilities.
    """

    best: tuple[int, ...]
    possible: tuple[tuple[int, ...], ...]
    probability: tuple[tuple[tuple[int, ...], float], ...]

    def met(self, requested: int) -> bool:
        """Whether a requested percentile is met, with a probability of at least 5 per cent."""
        total = sum(chance for band, chance in self.probability if min(band) <= requested)
        return total >= _LEAST_PROBABILITY


def to_conditions(value: float, error: float, limits: Sequence[tuple[int, float]]) -> Conditions:
    """Compare a measurement with the upper limits of observing conditions.

    Parameters
    ----------
    value, error : float
        The measurement, the smaller the better, and its standard error; an error of 0 or NaN means exact.
    limits : sequence of (int, float)
        Percentiles and upper limits, both ascending. Percentiles of equal limits form one band.

    Returns
    -------
    Conditions
        Probabilities are those of a normal distribution between the limits; a value equal to a limit exceeds
        it.
    """
    bands: dict[float, tuple[int, ...]] = {}
    for percentile, limit in limits:
        bands[limit] = (*bands.get(limit, ()), percentile)
    below = [_chance_below(limit, value, error) for limit in bands] + [1.0]
    names = [*bands.values(), (100,)]
    chances = [high - low for high, low in zip(below, [0.0, *below[:-1]], strict=True)]
    pairs = tuple(zip(names, chances, strict=True))
    best = max(pairs, key=lambda pair: pair[1])[0]
    return Conditions(best, tuple(band for band, p in pairs if p > _LEAST_PROBABILITY), pairs)


def sky_conditions(magnitude: float, error: float, limits: Sequence[tuple[int, float]]) -> Conditions:
    """Compare a sky brightness in mag/arcsec^2 with the brightest skies of observing conditions.

    Percentiles of equal limits form one band, so a sky darker than the common limit gives them all: a finer
    answer would be invented.
    """
    return to_conditions(-magnitude, error, [(percentile, -limit) for percentile, limit in limits])


def _chance_below(limit: float, value: float, error: float) -> float:
    if not error > 0:
        return 1.0 if value < limit else 0.0
    return NormalDist(value, error).cdf(limit)
