"""Catalogues of stars: the names of columns that are understood, and what stands for a missing value.

Every reader of a catalogue goes by this module. Names are compared in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import DataError

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "CONFUSION",
    "DECLINATION",
    "EPOCH",
    "FASTEST",
    "IDENTITY",
    "MAGNITUDES_BELOW",
    "MOTION_DEC",
    "MOTION_RA",
    "POSITION_ERROR",
    "QUALITY",
    "RIGHT_ASCENSION",
    "STAR_CLASS",
    "angles",
    "column_numbers",
    "degrees",
    "doubtful_magnitudes",
    "error_names",
    "find_column",
    "julian_year",
    "known_errors",
    "known_magnitudes",
    "known_motions",
    "magnitude_names",
    "system",
]

RIGHT_ASCENSION: Final = (
    "raj2000", "ra_icrs", "_raj2000", "x_world", "ra", "ra_j2000", "ra_deg", "radeg", "alpha_j2000",
    "alpha", "ra_2000",
)  # fmt: skip
"""Names of right ascensions: J2000 or ICRS."""

DECLINATION: Final = (
    "dej2000", "de_icrs", "dec_icrs", "_dej2000", "decj2000", "y_world", "dec", "decl", "dec_j2000",
    "dec_deg", "decdeg", "dedeg", "delta_j2000", "delta", "declination", "dec_2000",
)  # fmt: skip
"""Names of declinations: J2000 or ICRS."""

MOTION_RA: Final = ("pmra", "pm_ra", "pmra_cosdec", "pm_ra_cosdec")
"""Names of proper motions in right ascension times cos Dec, mas/yr."""

MOTION_DEC: Final = ("pmde", "pmdec", "pm_dec", "pm_de")
"""Names of proper motions in declination, mas/yr."""

IDENTITY: Final = (
    "cat_id", "2mass", "_2mass", "designation", "sourceid", "source", "source_id", "jname", "sdss9", "objid",
    "name", "id", "star", "number",
)  # fmt: skip
"""Names of identifiers."""

EPOCH: Final = ("ref_epoch",)
"""Name of the epoch of positions, Julian years, as Gaia's archive gives it for each row."""

POSITION_ERROR: Final = ("ra_error",)
"""Name of the error of a position, mas, in tables of Gaia's archive."""

QUALITY: Final = ("qflg", "ph_qual")
"""2MASS, a letter for each of J, H, Ks: A, B, C are detections (S/N of 5 and more)."""
CONFUSION: Final = ("cflg", "cc_flg")
"""2MASS, a character for each of J, H, Ks: 0 is neither blended nor contaminated by a bright star."""
_DETECTED: Final = "ABC"

STAR_CLASS: Final = ("mergedclass",)
"""UKIDSS: -1 and -2 are a star and a probable one, for which aperture magnitudes hold all of the light."""
_STARS: Final = (-1.0, -2.0)
_ERROR_BITS: Final = 256.0
"""UKIDSS, ``jppErrBits``: from this value on there is more than information. The least significant of its
four bytes holds what is probably harmless (http://wsa.roe.ac.uk/ppErrBits.html). Where a band was observed
twice, the archive calls its first epoch ``j_1`` (LAS) or ``k_1`` (GPS)."""

_SYSTEMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "2MASS": ("2mass", "_2mass", "j_m", "h_m", "k_m"),
        "MKO": tuple(f"{band}{form}" for band in "yjhk" for form in ("apermag3", "_1apermag3")),
    }
)
"""Columns that tell the system of a catalogue's magnitudes."""

_SHORT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"lprime": ("lp", "l'"), "mprime": ("mp", "m'"), "k": ("ks", "k_s")}
)
"""Further names of bands. Ks of 2MASS stands for K, as VizieR calls it Kmag."""

MAGNITUDES_BELOW: Final = 50.0
"""No magnitude is beyond +-50: 88.888, 99.0, 99.999, -99.9, -999 and 9999 stand for a missing one."""
_LARGEST_ERROR: Final = 9.0
"""No magnitude with an error like this is of use: 9.99, 99.99 and negative ones stand for a missing error."""
FASTEST: Final = 20000.0
"""No star moves faster (mas/yr); Barnard's star has 10393."""
_SENTINELS: Final = (-9999.0, -999.0, -99.0, 9999.0)
"""Numbers that stand for a missing proper motion."""


def magnitude_names(band: str, *, bare: bool = True) -> tuple[str, ...]:
    """Return the names of a magnitude: for H ``hmag``, ``h_mag``, ``h_m``, ``mag_h``, ``hmag1``, ``h``.

    Parameters
    ----------
    band : str
        For example ``H``, ``K`` or ``Lprime``, in any letter case.
    bare : bool
        Whether the band alone is a name. ``y`` may be a position on a detector, and ``z`` a redshift.
    """
    forms: tuple[str, ...] = ("{}mag", "{}_mag", "{}_m", "mag_{}", "{}mag1", "{}apermag3")
    forms += ("{}_1apermag3", "magnitude_{}")
    forms += ("{}",) if bare else ()
    return tuple(form.format(name) for name in _band_names(band) for form in forms)


def error_names(band: str, *, bare: bool = True) -> tuple[str, ...]:
    """Return the names of the error of a magnitude: for H ``hmag_err``, ``e_hmag``, ``h_cmsig`` and others.

    The parameters are those of `magnitude_names`.
    """
    forms: tuple[str, ...] = (
        "{}mag_err", "{}_mag_err", "e_{}mag", "{}_msigcom", "{}_cmsig", "{}cmsig", "e_{}mag1",
        "{}mag_error", "{}_mag_error", "{}magerr", "d{}mag", "mag_err_{}", "magerr_{}", "err_{}mag",
        "{}apermag3err", "{}_1apermag3err", "{}mag_unc",
    )  # fmt: skip
    if bare:
        forms += ("{}_error", "{}_err", "{}err", "e_{}", "err_{}", "{}_sigma", "sigma_{}", "{}_unc")
        forms += ("d{}", "d_{}", "sig_{}", "sig{}")
    return tuple(form.format(name) for name in _band_names(band) for form in forms)


def _band_names(band: str) -> tuple[str, ...]:
    low = band.lower()
    return (low, *_SHORT.get(low, ()))


def find_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the column that has one of the names, in any letter case; None if there is none.

    Names that come first are preferred; of columns that differ in letter case alone, the first. Spaces and
    other signs count as underscores: ``RA (J2000)`` is ``ra_j2000``.
    """
    present: dict[str, str] = {}
    for column in columns:
        low = column.strip().lower()
        present.setdefault(low, column)
        present.setdefault(_SIGNS.sub("_", low).strip("_"), column)
    return next((present[name] for name in names if name in present), None)


_SIGNS: Final = re.compile(r"[^a-z0-9_']+")


def system(columns: Iterable[str]) -> str:
    """Return the system of magnitudes that the columns tell: ``2MASS``, ``MKO`` (UKIDSS), or nothing."""
    present = {column.strip().lower() for column in columns}
    found = [name for name, tell in _SYSTEMS.items() if present.intersection(tell)]
    return found[0] if len(found) == 1 else ""


def doubtful_magnitudes(table: Table, band: str) -> NDArray[np.bool_]:
    """Return where flags of 2MASS or UKIDSS say that a magnitude is of no use, shape (n,).

    2MASS: no detection (`QUALITY`), or blended or contaminated (`CONFUSION`). UKIDSS: not a star
    (`STAR_CLASS`), or quality error bits. Without such columns nothing is doubtful.
    """
    doubtful = np.zeros(len(table), bool)
    low = band.lower()
    if low in "jhk":
        for names, good in ((QUALITY, _DETECTED), (CONFUSION, "0")):
            column = find_column(table.colnames, names)
            if column is not None:
                # Readers of text files take 000 for the number 0.
                flags = [_text(value).zfill(3)["jhk".index(low)] for value in table[column]]
                doubtful |= ~np.isin(flags, list(good))
    column = find_column(table.colnames, STAR_CLASS)
    if column is not None:
        doubtful |= ~np.isin(column_numbers(table, column), _STARS)
    column = find_column(table.colnames, (f"{low}pperrbits", f"{low}_1pperrbits"))
    if column is not None:
        doubtful |= column_numbers(table, column) >= _ERROR_BITS
    return doubtful


def column_numbers(table: Table, name: str) -> NDArray[np.float64]:
    """Return a column as float64 of shape (n,), NaN where it is masked, empty or infinite.

    Raises
    ------
    DataError
        It does not hold numbers.
    """
    column = table[name]
    try:
        values: Any = _unmasked(getattr(column, "value", column))
        if values.dtype.kind in "OSU":
            values = np.array([_number(value) for value in values.ravel().tolist()])
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise _no_numbers(table, name, "numbers") from None
    if numbers.ndim != 1:
        raise _no_numbers(table, name, "one number a row")
    return np.where(np.isfinite(numbers), numbers, np.nan)


def angles(table: Table, name: str, *, hours: bool = False) -> NDArray[np.float64]:
    """Return a column of positions in degrees, float64 of shape (n,), NaN where there is none.

    Parameters
    ----------
    table : astropy.table.Table
    name : str
        A column of degrees, of another angle, which its unit says, or of text (`degrees`).
    hours : bool
        Whether sexagesimal text is in hours: a right ascension.

    Raises
    ------
    DataError
        It holds no positions.
    """
    column = table[name]
    unit = getattr(column, "unit", None)
    try:
        if unit is not None and unit.is_equivalent("deg"):
            column = column.quantity if hasattr(column, "quantity") else column
            found = np.asarray(_unmasked(column.to_value("deg")), np.float64)
        elif column.dtype.kind in "OSU":
            found = np.array([degrees(value, hours=hours) for value in _unmasked(column).tolist()])
        else:
            found = column_numbers(table, name)
    except (TypeError, ValueError, DataError):
        expected = "decimal degrees, 08 51 19.31 (hours, for a right ascension), or an angle with its unit"
        raise _no_numbers(table, name, expected) from None
    return np.where(np.isfinite(found), found, np.nan)


def degrees(value: Any, *, hours: bool) -> float:
    """Return an angle in degrees; NaN where there is none.

    Parameters
    ----------
    value : object
        A number, or text with one, in degrees; or text as ``08 51 19.31``, ``08:51:19.31``, ``8h51m19.3s``.
    hours : bool
        Whether such text is in hours.

    Raises
    ------
    ValueError
        It is something else.
    """
    try:
        return _number(value)
    except ValueError:
        from astropy.coordinates import Angle

        return float(Angle(_text(value), unit="hourangle" if hours else "deg").deg)


def known_magnitudes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return magnitudes with NaN for what stands for a missing one: everything beyond +-50."""
    return np.where(np.abs(values) < MAGNITUDES_BELOW, values, np.nan)


def known_errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return errors of magnitudes with NaN for what stands for a missing one: negative, or 9 mag and more."""
    return np.where((values >= 0) & (values < _LARGEST_ERROR), values, np.nan)


def known_motions(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return proper motions (mas/yr) with NaN for what stands for a missing one."""
    missing = np.isin(values, _SENTINELS) | ~(np.abs(values) < FASTEST)
    return np.where(missing, np.nan, values)


def julian_year(value: Any, *, file: str | None = None) -> float | None:
    """Return an epoch as a Julian year; None where there is none.

    Parameters
    ----------
    value : object
        A number, or text: ``2015.5``, ``J2015.5``, ``B1950``, ``2015-07-02``; a `astropy.time.Time`.
    file : str, optional
        Named in the error.

    Raises
    ------
    DataError
        It is something else.
    """
    if value is None or value is np.ma.masked or str(value).strip() in ("", "--", "None"):
        return None
    year = getattr(value, "jyear", None)
    if year is None:
        year = _year_of(str(getattr(value, "value", value)).strip())
    # Epochs of positions; years of a calendar with four digits.
    if year is None or not 1000 <= float(year) < 3000:
        raise DataError(
            "The epoch of the reference catalogue cannot be read",
            file=file,
            item="EPOCH",
            found=repr(str(value)),
            expected="a year such as 2015.5, J2015.5 or 2015-07-02",
            remedy="Set table.meta['EPOCH'], or remove it.",
        )
    return float(year)


def _year_of(text: str) -> float | None:
    kind, digits = text[:1].upper(), text[1:] if text[:1].upper() in "JB" else text
    try:
        year = float(digits)
    except ValueError:
        year = None
    if year is not None and kind != "B":
        return year
    from astropy.time import Time

    try:
        return float(Time(f"B{year}", format="byear_str").jyear if year is not None else Time(text).jyear)
    except ValueError:
        return None


def _unmasked(values: Any) -> NDArray[Any]:
    """Return an array with NaN, or None, where values are masked."""
    mask = np.asarray(getattr(values, "mask", False))
    plain: NDArray[Any] = np.asarray(
        values.unmasked if hasattr(values, "unmasked") else np.ma.getdata(values)
    )
    if mask.any():
        plain = plain.astype(object if plain.dtype.kind in "OSU" else np.float64)
        plain[mask] = None if plain.dtype.kind == "O" else np.nan
    return plain


def _text(value: Any) -> str:
    return "" if value is None else str(value.decode() if isinstance(value, bytes) else value).strip()


_NOTHING: Final = frozenset({"", "--", "-", "...", "null", "none", "n/a"})


def _number(value: Any) -> float:
    text = _text(value)
    return np.nan if text.lower() in _NOTHING else float(text)


def _no_numbers(table: Table, name: str, expected: str) -> DataError:
    return DataError(
        "A column of the reference catalogue does not hold numbers",
        item=name,
        found=str(table[name][0]) if len(table) else "nothing",
        expected=expected,
    )
