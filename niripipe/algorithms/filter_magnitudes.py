"""Magnitudes of catalogue stars in the filter of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from niripipe.algorithms.arrays import Float64, Floats
from niripipe.algorithms.source_catalogue import MISSING

__all__ = ["filter_magnitudes", "system_error"]


@dataclass(frozen=True, slots=True)
class Transformation:
    """Magnitude in a filter: ``band + constant + slope * (blue - red)``, within a range of the colour.

    Attributes
    ----------
    band : str
        Column of the magnitude, for example ``kmag``.
    constant, constant_error, slope, slope_error : float
        Coefficients with their errors; magnitudes.
    blue, red : str
        Columns of the colour; empty without a colour term.
    least, most : float
        Colours for which it was measured; stars of other colours get no magnitude.
    """

    band: str
    constant: float = 0.0
    constant_error: float = 0.0
    slope: float = 0.0
    slope_error: float = 0.0
    blue: str = ""
    red: str = ""
    least: float = -np.inf
    most: float = np.inf

    def apply(
        self, magnitudes: Mapping[str, Floats], errors: Mapping[str, Floats]
    ) -> tuple[Float64, Float64]:
        """Return magnitude and error, NaN where a magnitude or an error that is needed is missing."""
        value = np.asarray(magnitudes[self.band], np.float64)
        error = np.asarray(errors[self.band], np.float64)
        if not self.blue:
            return value + self.constant, np.hypot(error, self.constant_error)
        colour = np.asarray(magnitudes[self.blue], np.float64) - magnitudes[self.red]
        colour = np.where((colour >= self.least) & (colour <= self.most), colour, np.nan)
        colour_error = np.hypot(errors[self.blue], errors[self.red])
        # Error of a product, written so that a colour of 0 is no special case.
        of_term = np.hypot(colour * self.slope_error, self.slope * colour_error)
        total = np.sqrt(error**2 + self.constant_error**2 + of_term**2)
        return value + self.constant + self.slope * colour, total


_AS_THEY_ARE: Final = {
    "Y": (Transformation("ymag"),),
    "J": (Transformation("jmag"),),
    "H": (Transformation("hmag"),),
    "K(short)": (Transformation("kmag"),),
    "Ks": (Transformation("kmag"),),
    "K": (
        Transformation("kmag", -0.003, 0.007, -0.026, 0.011, "jmag", "kmag"),
        Transformation("kmag", -0.006, 0.004, -0.071, 0.020, "hmag", "kmag"),
    ),
    "K(prime)": (Transformation("kmag", -0.006, 0.007, 0.149, 0.023, "hmag", "kmag"),),
}
"""Ways to a magnitude in a NIRI filter where a catalogue does not say in which system it is.

Colour terms of K and K' and their errors are those of DRAGONS (Gemini lookups, colour corrections).
"""


def _by_jh(band: str, constant: float, slope: float) -> Transformation:
    """Return a step by the colour J - H, for colours of -0.1 to 1.0."""
    return Transformation(band, constant, slope=slope, blue="jmag", red="hmag", least=-0.1, most=1.0)


_K_OF_J, _K_OF_H = _AS_THEY_ARE["K"]

_FROM: Final[Mapping[str, Mapping[str, tuple[Transformation, ...]]]] = {
    "": _AS_THEY_ARE,
    # Y, J, H: Hodgkin et al. 2009, MNRAS 394, 675, equations 5 to 7 (2MASS to UKIRT's WFCAM, which has MKO
    # filters). Coefficients and colours were compared with two public programs that quote the paper (one is
    # the photometry pipeline of M. Mommert), not with the paper itself.
    # K: Leggett et al. 2006, MNRAS 373, 781, as DRAGONS quotes it: the standards of this package with their
    # 2MASS magnitudes. Redder stars scatter by 0.05 mag (abstract of Leggett et al.) and are left out.
    # Hodgkin et al. have Ks + 0.010 (J - Ks) in K, 0.025 mag more at J - Ks = 0.6.
    "2MASS": {
        **_AS_THEY_ARE,
        "Y": (_by_jh("jmag", 0.080, 0.500),),
        "J": (_by_jh("jmag", 0.000, -0.065),),
        "H": (_by_jh("hmag", -0.030, 0.070),),
        "K": (replace(_K_OF_J, least=-0.3, most=1.0), replace(_K_OF_H, least=-0.15, most=0.4)),
    },
    # UKIDSS is in the MKO system; K and Ks, K' differ as standards do (photometry.toml).
    "MKO": {
        "Y": (Transformation("ymag"),),
        "J": (Transformation("jmag"),),
        "H": (Transformation("hmag"),),
        "K": (Transformation("kmag"),),
        "K(short)": (Transformation("kmag", 0.0, 0.02),),
        "Ks": (Transformation("kmag", 0.0, 0.02),),
        "K(prime)": (Transformation("kmag", 0.0, 0.03),),
    },
}
"""Ways to a magnitude in a NIRI filter, by the system of the catalogue."""

_SYSTEM_ERRORS: Final[Mapping[str, Mapping[str, float]]] = {
    # J, Y: the accuracy that Hodgkin et al. state. H: Dye et al. 2006, MNRAS 372, 1227 have
    # H - 0.040 + 0.040 (J - H), which differs by 0.02 mag. K: the two published terms, see above. Ks of NIRI
    # is not that of 2MASS; K' as standards.
    "2MASS": {"Y": 0.02, "J": 0.015, "H": 0.02, "K": 0.025, "K(short)": 0.02, "Ks": 0.02, "K(prime)": 0.03},
    # The calibration of UKIDSS from 2MASS (Hodgkin et al. 2009).
    "MKO": {"Y": 0.02, "J": 0.015, "H": 0.015, "K": 0.015, "K(short)": 0.02, "Ks": 0.02, "K(prime)": 0.03},
}
"""Error that all stars of a catalogue share when they are brought to a filter, mag."""

_UNKNOWN_SYSTEM: Final = 0.04
"""The same where the system is not known: J of 2MASS, taken as it is, for a star of J - H = 0.6."""


def system_error(filter_name: str | None, system: str = "") -> float:
    """Return the error that the magnitudes of all stars of a catalogue share in a filter, mag.

    The parameters are those of `filter_magnitudes`. A mean over many stars does not make it smaller.
    """
    return _SYSTEM_ERRORS.get(system, {}).get(filter_name or "", _UNKNOWN_SYSTEM)


def _usable(
    filter_name: str | None, ways: Mapping[str, tuple[Transformation, ...]], present: Set[str]
) -> list[Transformation]:
    """Return the ways to a magnitude in a filter for which the columns are there."""
    return [way for way in ways.get(filter_name or "", ()) if {way.band, way.blue, way.red} - {""} <= present]


def filter_magnitudes(
    filter_name: str | None,
    magnitudes: Mapping[str, Floats],
    errors: Mapping[str, Floats],
    system: str = "",
) -> tuple[Float64, Float64] | None:
    """Return magnitudes and errors of stars in a filter.

    Parameters
    ----------
    filter_name : str or None
        NIRI's name of the filter, for example ``K(short)``.
    magnitudes, errors : mapping of str to ndarray, shape (n,)
        Columns ``jmag``, ``hmag`` ...; NaN where there is no value. A magnitude without an error is an upper
        limit, and no magnitude is derived from it.
    system : {"", "2MASS", "MKO"}
        System of the magnitudes. Empty: not known, J and H are taken as they are. So they are where a whole
        column of the colour is missing.

    Returns
    -------
    tuple of two ndarrays, or None
        Of several ways the one with the smaller error, star by star; `MISSING` where none is usable: a
        magnitude is missing, or the colour is outside of the range of the colour term. None when there is no
        way for the filter with these columns.
    """
    present = magnitudes.keys() & errors.keys()
    usable = _usable(filter_name, _FROM.get(system, _AS_THEY_ARE), present)
    usable = usable or _usable(filter_name, _AS_THEY_ARE, present)
    if not usable:
        return None
    found = [way.apply(magnitudes, errors) for way in usable]
    value, error = (np.stack(parts) for parts in zip(*found, strict=True))
    error = np.where(np.isfinite(value) & np.isfinite(error), error, np.inf)
    best = np.argmin(error, axis=0)[None]
    chosen, its_error = (np.take_along_axis(part, best, axis=0)[0] for part in (value, error))
    known = np.isfinite(its_error)
    return np.where(known, chosen, MISSING), np.where(known, its_error, MISSING)
