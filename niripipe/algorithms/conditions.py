"""Observing conditions: the limits of image quality, sky brightness and cloud, and which of them are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

__all__ = [
    "BG_LIMITS",
    "CC_LIMITS",
    "IQ_LIMITS",
    "Conditions",
    "nearest_band",
    "sky_conditions",
    "to_conditions",
]

_WAVELENGTHS: Final[Mapping[str, float]] = {
    "Y": 1.02,
    "X": 1.10,
    "J": 1.20,
    "H": 1.65,
    "K": 2.20,
    "L": 3.40,
    "M": 4.80,
}
"""Standard wavelengths of the near-infrared bands, micrometres (DRAGONS, Gemini lookups)."""

IQ_LIMITS: Final[Mapping[str, Sequence[tuple[int, float]]]] = {
    "Y": ((20, 0.40), (70, 0.70), (85, 0.95)),
    "X": ((20, 0.40), (70, 0.65), (85, 0.90)),
    "J": ((20, 0.40), (70, 0.60), (85, 0.85)),
    "H": ((20, 0.40), (70, 0.60), (85, 0.85)),
    "K": ((20, 0.35), (70, 0.55), (85, 0.80)),
    "L": ((20, 0.35), (70, 0.50), (85, 0.75)),
    "M": ((20, 0.35), (70, 0.50), (85, 0.70)),
    "AO": ((20, 0.45), (70, 0.80), (85, 1.20)),
}
"""Largest image size at the zenith, arcsec, by band and percentile (Gemini observing constraints)."""

BG_LIMITS: Final[Mapping[str, Sequence[tuple[int, float]]]] = {
    "J": ((20, 16.20), (50, 16.20), (80, 16.20)),
    "H": ((20, 13.80), (50, 13.80), (80, 13.80)),
    "K": ((20, 14.60), (50, 14.60), (80, 14.60)),
    "Ks": ((20, 14.60), (50, 14.60), (80, 14.60)),
    "K(short)": ((20, 14.60), (50, 14.60), (80, 14.60)),
}
"""Brightest sky, mag/arcsec^2, by filter and percentile (Gemini observing constraints).

The near-infrared limits of all percentiles are equal: a dark enough sky meets every one of them, and none can
be told from another.
"""

CC_LIMITS: Final[Sequence[tuple[int, float]]] = ((50, 0.08), (70, 0.3), (80, 1.0))
"""Largest extinction by cloud, mag, by percentile (Gemini observing constraints)."""

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


def nearest_band(wavelength: float) -> str:
    """Name the near-infrared band whose standard wavelength is nearest.

    Parameters
    ----------
    wavelength : float
        Effective wavelength of the filter, micrometres.

    Returns
    -------
    str
        A key of `IQ_LIMITS`.
    """
    return min(_WAVELENGTHS, key=lambda band: abs(_WAVELENGTHS[band] - wavelength))


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


def sky_conditions(filter_name: str, magnitude: float, error: float) -> Conditions | None:
    """Compare a sky brightness in mag/arcsec^2 with `BG_LIMITS`; None for filters without limits.

    A sky darker than the limit gives the band (20, 50, 80): its percentiles share one limit, so a finer
    answer would be invented.
    """
    limits = BG_LIMITS.get(filter_name)
    if limits is None:
        return None
    return to_conditions(-magnitude, error, [(percentile, -limit) for percentile, limit in limits])


def _chance_below(limit: float, value: float, error: float) -> float:
    if not error > 0:
        return 1.0 if value < limit else 0.0
    return NormalDist(value, error).cdf(limit)
