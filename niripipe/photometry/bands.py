"""What photometry knows of filters: bands of the standards, extinction, and the step from Vega to AB."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

from niripipe.instruments.tables import niri_tables

__all__ = ["BANDS", "Extinction", "StandardBand", "ab_offset", "extinction", "facts", "standard_band"]

BANDS: Final = ("Z", "Y", "J", "H", "K", "Lprime", "Mprime")
"""The bands of the standards, as their columns are called; the error of `J` is in `J_error`."""

_WAVELENGTHS: Final = {
    "Z": 0.877,
    "Y": 1.031,
    "J": 1.248,
    "H": 1.631,
    "K": 2.201,
    "Lprime": 3.754,
    "Mprime": 4.702,
}
"""Effective wavelengths in micrometres: Hewett et al. 2006, MNRAS 367, 454; Tokunaga & Vacca 2005."""


@dataclass(frozen=True, slots=True)
class StandardBand:
    """The band whose magnitude a star is taken to have in a filter.

    Attributes
    ----------
    band : str
        One of `BANDS`.
    error : float
        What is added to the error of a magnitude for it, mag; 0 where filter and band are the same.
    """

    band: str
    error: float


@dataclass(frozen=True, slots=True)
class Extinction:
    """Extinction of the atmosphere.

    Attributes
    ----------
    value, error : float
        Magnitudes per airmass.
    source : str
        Where the value comes from, in words.
    """

    value: float
    error: float
    source: str


@cache
def facts() -> Mapping[str, Any]:
    """Return the tables of ``photometry.toml``."""
    text = resources.files(__package__).joinpath("photometry.toml").read_text(encoding="utf-8")
    return MappingProxyType(tomllib.loads(text))


def standard_band(filter_name: str | None) -> StandardBand | None:
    """Return the band of the standards for a filter.

    Parameters
    ----------
    filter_name : str or None
        NIRI's name of the filter, for example ``K(short)``.

    Returns
    -------
    StandardBand or None
        For narrow filters the band nearest in wavelength, with an error; None where none is near or the
        wavelength is not known.
    """
    table = facts()["filters"]
    known = table.get(filter_name or "")
    if isinstance(known, Mapping):
        return StandardBand(known["band"], known["error"])
    found = niri_tables().filter_named(filter_name)
    if found is None or not found.wavelength:
        return None
    distance = {band: abs(math.log(found.wavelength / at)) for band, at in _WAVELENGTHS.items()}
    nearest = min(distance, key=distance.__getitem__)
    return StandardBand(nearest, table["other"]) if distance[nearest] <= table["nearest"] else None


def extinction(filter_name: str | None) -> Extinction | None:
    """Return the mean extinction on Mauna Kea in the band of a filter, and its error from night to night."""
    found = standard_band(filter_name)
    entry = None if found is None else facts()["extinction"].get(found.band)
    if found is None or entry is None:
        return None
    error = (entry["high"] - entry["low"]) / 4
    return Extinction(entry["value"], error, f"mean of Mauna Kea in {found.band}")


def ab_offset(filter_name: str | None) -> float | None:
    """Return AB minus Vega magnitude in a filter; for a narrow filter that of its band. None: not known."""
    table = facts()["ab"]
    if filter_name in table:
        return float(table[filter_name])
    found = standard_band(filter_name)
    by_band = {"Lprime": "L(prime)", "Mprime": "M(prime)"}
    value = None if found is None else table.get(by_band.get(found.band, found.band))
    return None if value is None else float(value)
