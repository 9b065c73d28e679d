"""Magnitudes and flux densities from counts of a calibrated stack."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import DataError, ParameterError
from niripipe.photometry.bands import ab_offset
from niripipe.photometry.zeropoint import POGSON

if TYPE_CHECKING:
    from astropy.units import Quantity

__all__ = ["System", "to_magnitudes", "to_microjansky"]

System = Literal["Vega", "AB"]

_AB_MICROJANSKY: Final = 23.9
"""AB magnitude of one microjansky, by definition (Oke & Gunn 1983, ApJ 266, 713): 2.5 log10(3631e6)."""

Source = AstroData | str | PathLike[str] | Mapping[str, Any]


def to_magnitudes(
    source: Source, counts: ArrayLike, error: ArrayLike | None = None, *, system: System | None = None
) -> Any:
    """Return the magnitudes of counts in a calibrated stack.

    Parameters
    ----------
    source : AstroData, path-like, or primary header
        A stack with a zero point (keywords ``ZPIMAGE``, ``ZPSYSTEM``).
    counts : array_like
        Electrons in the stack: background-subtracted sums over sources, of all of their light or corrected
        for what an aperture misses. Any shape, an image as well.
    error : array_like, optional
        Their errors.
    system : {"Vega", "AB"}, optional
        That of the stack by default.

    Returns
    -------
    astropy.units.Quantity, or a pair of them
        Magnitudes (mag, or AB mag), and with `error` their errors (mag); NaN where counts are not
        positive. The error of the zero point, which all share, is not in them: it is ``ZPMAGERR`` in the
        header.

    Raises
    ------
    DataError
        The stack has no zero point.
    ParameterError
        The step from Vega to AB is not known for the filter, or counts have a unit that is not electrons.
    """
    from astropy import units as u

    header = _header(source)
    wanted, zero_point = _zero_point(source, header, system)
    counts = _electrons(counts, "counts")
    positive = counts > 0
    safe = np.where(positive, counts, 1.0)
    magnitudes = np.where(positive, zero_point - 2.5 * np.log10(safe), np.nan)
    result = magnitudes * (u.ABmag if wanted == "AB" else u.mag)
    if error is None:
        return result
    relative = _electrons(error, "error") / safe
    return result, np.where(positive, POGSON * relative, np.nan) * u.mag


def to_microjansky(source: Source, counts: ArrayLike, error: ArrayLike | None = None) -> Any:
    """Return the flux densities of counts in a calibrated stack.

    Parameters
    ----------
    source : AstroData, path-like, or primary header
        A stack with a zero point.
    counts, error : array_like
        As for `to_magnitudes`; counts may be negative.

    Returns
    -------
    astropy.units.Quantity, or a pair of them
        Microjansky, and with `error` their errors, without that of the zero point.

    Raises
    ------
    DataError
        The stack has no zero point.
    ParameterError
        The step from Vega to AB is not known for the filter, or counts have a unit that is not electrons.
    """
    from astropy import units as u

    header = _header(source)
    _, zero_point = _zero_point(source, header, "AB")
    factor = 10 ** (-0.4 * (zero_point - _AB_MICROJANSKY))
    result: Quantity = factor * _electrons(counts, "counts") * u.uJy
    if error is None:
        return result
    return result, factor * _electrons(error, "error") * u.uJy


def _electrons(values: ArrayLike, item: str) -> NDArray[np.float64]:
    """Return counts as float64, NaN where masked; those with another unit than electrons are refused."""
    unit = getattr(values, "unit", None)
    if unit is not None and str(unit) not in ("electron", ""):
        raise ParameterError(
            "Counts are electrons in the image", item=item, found=str(unit), expected="electron",
            remedy="Multiply a rate by the exposure time of the image, and ADU by the gain.",
        )  # fmt: skip
    values = getattr(values, "filled", lambda _: values)(np.nan) if np.ma.is_masked(values) else values
    try:
        return np.asarray(getattr(values, "value", values), float)
    except (TypeError, ValueError):
        raise ParameterError("Counts are numbers", item=item, found=repr(values)[:60]) from None


def _header(source: Source) -> Mapping[str, Any]:
    if isinstance(source, str | PathLike):
        source = astrodata.open(source)
    header: Any = source.phu if isinstance(source, AstroData) else source
    return header  # type: ignore[no-any-return]


def _zero_point(source: Source, header: Mapping[str, Any], system: System | None) -> tuple[System, float]:
    """Return the system, and in it the magnitude of one electron in the image."""
    if "ZPIMAGE" not in header:
        raise DataError(
            "The image has no zero point",
            file=source if isinstance(source, str | PathLike) else getattr(source, "filename", None),
            item="ZPIMAGE",
            remedy="Reduce a standard star with the recipe makeStandard, and run applyZeroPoint on the image",
        )
    own: System = "AB" if str(header["ZPSYSTEM"]).strip().upper() == "AB" else "Vega"
    wanted = own if system is None else system
    if wanted not in ("Vega", "AB"):
        raise ParameterError("Unknown magnitude system", item="system", found=wanted, expected="Vega or AB")
    value = float(header["ZPIMAGE"])
    if wanted == own:
        return wanted, value
    step = ab_offset(str(header.get("FILTER", "")).strip())
    if step is None:
        raise ParameterError(
            "The step from Vega to AB magnitudes is not known for this filter", item="system",
            found=header.get("FILTER"),
        )  # fmt: skip
    return wanted, value + step if wanted == "AB" else value - step
