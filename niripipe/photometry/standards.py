"""Standard stars: the shipped table, tables of the user's own, and which star a frame shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from niripipe.astrodata import catalogue_columns as columns
from niripipe.errors import DataError, InputError, ParameterError
from niripipe.instruments.position import angular_separation
from niripipe.logutils import get_logger
from niripipe.photometry.bands import BANDS, facts

if TYPE_CHECKING:
    from astropy.table import QTable, Table

__all__ = ["Recognition", "Standard", "as_standards", "recognise", "shipped", "standards"]

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("name", "star", "standard", "fs", "id", "object", *columns.IDENTITY),
    "other_name": ("other_name", "othername", "alias", "other"),
    "ra": columns.RIGHT_ASCENSION,
    "dec": columns.DECLINATION,
    "pm_ra": columns.MOTION_RA,
    "pm_dec": columns.MOTION_DEC,
    "epoch": columns.EPOCH,
}
"""The columns of a table of standards, and the spellings that are understood, in any letter case."""

log = get_logger(__name__)

_YEAR: Final = 365.25 * 86400
_LAST_YEAR: Final = 3000.0
_FASTEST: Final = 0.5
"""Proper motion that a standard without a known one may have, arcsec a year."""


@dataclass(frozen=True, slots=True)
class Standard:
    """A standard star.

    Attributes
    ----------
    name, other_name : str
        For example ``FS 17`` and ``M67-IV-27``. One of them may be empty.
    ra, dec : float
        Degrees, ICRS, at epoch 2000.
    pm_ra, pm_dec : float or None
        Proper motion, mas/yr, in right ascension times cos Dec; None if it is not known.
    magnitudes : dict of str to tuple of float
        Band (one of `BANDS`) to Vega magnitude and error.
    may_vary : bool
        Whether the star is suspected of varying.
    """

    name: str
    other_name: str
    ra: float
    dec: float
    pm_ra: float | None = None
    pm_dec: float | None = None
    magnitudes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    may_vary: bool = False

    @property
    def label(self) -> str:
        """The name to be written."""
        return self.name or self.other_name

    def position(self, when: datetime | None) -> tuple[float, float, float]:
        """Return right ascension and declination (degrees) at a time, and how far the star may be from there.

        Without a proper motion the distance (arcsec) grows by half an arcsecond a year.
        """
        if when is None:
            return self.ra, self.dec, 0.0
        years = (when.replace(tzinfo=UTC) - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / _YEAR
        if self.pm_ra is None or self.pm_dec is None:
            return self.ra, self.dec, abs(years) * _FASTEST
        dec = self.dec + self.pm_dec * years / 3.6e6
        return (self.ra + self.pm_ra * years / 3.6e6 / np.cos(np.deg2rad(self.dec))) % 360.0, dec, 0.0


@dataclass(frozen=True, slots=True)
class Recognition:
    """Which standard a frame shows.

    Attributes
    ----------
    standard : Standard or None
        None if there is none, or if it is not clear which.
    reason : str
        Why this one, or why none, in words.
    candidates : tuple of Standard
        All standards that may be in the field, nearest first.
    doubt : str
        What speaks against it, in words: the header names another standard. Empty if nothing does.
    """

    standard: Standard | None
    reason: str
    candidates: tuple[Standard, ...] = ()
    doubt: str = ""


def standards(table: str | PathLike[str] | Table | None = None, *, replace_shipped: bool = False) -> QTable:
    """Return the standard stars of the Mauna Kea Observatories near-infrared system.

    Parameters
    ----------
    table : path-like or astropy.table.Table, optional
        Standards of the user's own, which join in; a star of the same name, or within 2 arcsec, replaces the
        shipped one. See Notes for the columns.
    replace_shipped : bool
        Use the standards of `table` alone.

    Returns
    -------
    astropy.table.QTable
        Columns ``name``, ``other_name``, ``ra``, ``dec`` (degrees, ICRS, epoch 2000), ``pm_ra`` (times cos
        Dec), ``pm_dec`` (mas/yr, NaN if not known), ``Z``, ``Y``, ``J``, ``H``, ``K``, ``Lprime``,
        ``Mprime`` (Vega magnitudes, NaN if not measured), each with its ``_error``, and ``may_vary``. The
        sources are ``meta["source"]``.

    Raises
    ------
    InputError
        The file cannot be read as a table.
    DataError
        It has no positions, or no magnitude.

    Notes
    -----
    Columns are understood in any letter case; spaces and signs count as underscores. Positions: ``ra``,
    ``RA_J2000``, ``RAJ2000``, ``RA_ICRS`` and the same for ``dec``, or a column of SkyCoord; numbers are
    degrees unless the column has another unit, texts sexagesimal with the right ascension in hours. Names:
    ``name``, ``star``, ``object``. Proper motions (mas/yr, unless the column has another unit): ``pm_ra``,
    ``pmRA`` and ``pm_dec``, ``pmDE``. Positions are of epoch 2000, unless a column ``ref_epoch`` or
    ``meta["EPOCH"]`` says otherwise.
    Magnitudes by their bands: ``J``, ``Jmag``, ``J_mag``, with errors ``J_error``, ``J_err``, ``e_J``,
    ``e_Jmag``, ``Jmag_err``. Values beyond 50 stand for a missing one, and an error that is missing is
    taken as 0.02 mag.

    Examples
    --------
    >>> from niripipe import photometry
    >>> table = photometry.standards()
    >>> len(table), table["J"].unit
    (147, Unit("mag"))
    """
    from astropy import units as u
    from astropy.table import QTable

    stars = joined(table, replace_shipped=replace_shipped)
    result = QTable()
    for name in ("name", "other_name"):
        result[name] = [getattr(star, name) for star in stars]
    for name, unit in (("ra", u.deg), ("dec", u.deg), ("pm_ra", u.mas / u.yr), ("pm_dec", u.mas / u.yr)):
        values = [getattr(star, name) for star in stars]
        result[name] = np.array([np.nan if value is None else value for value in values]) * unit
    for band in BANDS:
        known = [star.magnitudes.get(band, (np.nan, np.nan)) for star in stars]
        result[band] = np.array([value for value, _ in known]) * u.mag
        result[f"{band}_error"] = np.array([error for _, error in known]) * u.mag
    result["may_vary"] = [star.may_vary for star in stars]
    result.meta["source"] = facts()["standards"]["source"]
    return result


def joined(
    table: str | PathLike[str] | Table | None = None, *, replace_shipped: bool = False
) -> tuple[Standard, ...]:
    """Return standards as objects; the parameters are those of `standards`."""
    if table is None and replace_shipped:
        raise ParameterError(
            "There are no standards to replace the shipped ones", item="standards", found="no table",
            remedy="Name a table of your own, or leave out only_own (replace_shipped).",
        )  # fmt: skip
    if table is None:
        return shipped()
    own = as_standards(table)
    if replace_shipped:
        return own
    names = {_plain(name) for star in own for name in (star.name, star.other_name) if name}
    kept = [
        star
        for star in shipped()
        if not names & {_plain(star.name), _plain(star.other_name)} - {""}
        and not any(angular_separation(star.ra, star.dec, other.ra, other.dec) < 2 for other in own)
    ]
    return (*own, *kept)


@cache
def shipped() -> tuple[Standard, ...]:
    """Return the standards that come with the package."""
    text = resources.files(__package__).joinpath("mko_standards.csv").read_text(encoding="utf-8")
    doubtful = {_plain(name) for name in facts()["standards"]["may_vary"]}
    found = []
    rows = list(csv.DictReader(io.StringIO(text)))
    known = _known_columns(rows[0])
    for row in rows:
        star = _standard(row, known)
        found.append(replace(star, may_vary=bool(doubtful & {_plain(star.name), _plain(star.other_name)})))
    return tuple(found)


def as_standards(table: str | PathLike[str] | Table) -> tuple[Standard, ...]:
    """Return the standards of a table of the user's own.

    Raises
    ------
    InputError
        The file cannot be read as a table.
    DataError
        It has no positions, or one that cannot be read, or no magnitude.
    """
    shown = "the table of standards"
    if isinstance(table, str | PathLike):
        shown, table = str(table), _read(Path(table))
    if not hasattr(table, "colnames"):
        raise DataError(
            "This is no table of standards", file=shown, found=type(table).__name__,
            expected="an astropy Table, or the name of a file",
        )  # fmt: skip
    rows = _rows(table, shown)
    known = _known_columns(rows[0] if rows else table.colnames)
    for label in ("ra", "dec"):
        if label not in known:
            raise DataError(
                "A table of standards has no positions",
                file=shown, item=label, found=", ".join(table.colnames) or "no columns",
                expected=" or ".join(COLUMNS[label]),
            )  # fmt: skip
    bands = [band for band in BANDS if band in known]
    if not bands or not rows:
        raise DataError(
            "A table of standards has no magnitudes",
            file=shown, found=", ".join(table.colnames) if rows else "no row",
            expected=f"columns like {', '.join(BANDS)} or Jmag",
        )  # fmt: skip
    stars = tuple(_standard(row, known, shown) for row in rows)
    without = [band for band in bands if f"{band}_error" not in known]
    if without:
        log.warning("%s has no errors of %s: %g mag is assumed", shown, ", ".join(without), _USUAL_ERROR)
    empty = [star.label for star in stars if not star.magnitudes]
    if empty:
        log.warning("%s has no magnitude of %s", shown, ", ".join(empty))
    return stars


def recognise(
    stars: Sequence[Standard],
    ra: float,
    dec: float,
    *,
    name: str | None = None,
    when: datetime | None = None,
    radius: float = 60.0,
) -> Recognition:
    """Return which standard is at a position.

    Parameters
    ----------
    stars : sequence of Standard
        From which to choose.
    ra, dec : float
        Where the telescope was sent, degrees.
    name : str, optional
        What the header calls the target; ``FS 17``, ``fs-17``, ``FS17 (M67)`` are the same.
    when : datetime, optional
        Time of the frame, UTC, for proper motions.
    radius : float
        How wrong the pointing may be, and how far beside the star it may be, arcsec.

    Returns
    -------
    Recognition
        The position decides. Of two stars within `radius` the name decides; without its help a star that is
        nearer than 10 arcsec while the others are three times as far is taken; else none is, and all are
        named.
    """
    near = []
    for star in stars:
        lon, lat, doubt = star.position(when)
        distance = angular_separation(ra, dec, lon, lat)
        if distance <= radius + doubt:
            near.append((distance, star))
    near.sort(key=lambda pair: pair[0])
    candidates = tuple(star for _, star in near)
    called = [star for star in candidates if is_called(star, name)]
    if not near:
        return _not_there(stars, (ra, dec), name, radius)
    distance, nearest = near[0]
    if len(called) == 1:
        distance = next(d for d, star in near if star is called[0])
        others = "" if len(near) == 1 else f"; of {len(near)} standards here the name tells which"
        return Recognition(called[0], f"by position ({distance:.1f} arcsec) and name{others}", candidates)
    elsewhere = "" if called else _elsewhere(stars, (ra, dec), name)
    against = f"the frame points to {nearest.label}, but {elsewhere}" if elsewhere else ""
    if len(near) == 1:
        note = f"; the header calls it {name!r}" if name else ""
        return Recognition(nearest, f"by position ({distance:.1f} arcsec){note}", candidates, against)
    if distance < 10 and near[1][0] > 3 * distance:
        text = f"by position ({distance:.1f} arcsec); {near[1][1].label} is {near[1][0]:.0f} arcsec away"
        return Recognition(nearest, text, candidates, against)
    shown = ", ".join(f"{star.label} ({d:.0f} arcsec)" for d, star in near)
    return Recognition(
        None, f"it is not clear which standard this is: {shown}; the header says {name!r}", candidates
    )


def is_called(star: Standard, name: str | None) -> bool:
    """Return whether a free text names a star: spaces, hyphens, letter case and additions do not matter."""
    words = re.findall(r"[^\s(),;]+", name or "")
    texts = {
        _plain("".join(words[first:last]))
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    }
    return bool(texts & ({_plain(star.name), _plain(star.other_name)} - {""}))


def _not_there(
    stars: Sequence[Standard], where: tuple[float, float], name: str | None, radius: float
) -> Recognition:
    text = f"no standard of the table is within {radius:g} arcsec of the pointing"
    elsewhere = _elsewhere(stars, where, name)
    hint = "; if this is that star, name it with measureStandard:name"
    return Recognition(None, f"{text}; {elsewhere}{hint}" if elsewhere else text)


def _elsewhere(stars: Sequence[Standard], where: tuple[float, float], name: str | None) -> str:
    """Return where the standard is that the header names; nothing if it names none."""
    named = next((star for star in stars if is_called(star, name)), None)
    if named is None:
        return ""
    away = angular_separation(*where, named.ra, named.dec) / 60
    shown = f"{away:.1f} arcmin" if away < 60 else f"{away / 60:.1f} degrees"
    return f"{named.label}, which the header names, is {shown} away"


def _plain(name: str) -> str:
    """Return a name in lower case with letters and digits only; FS 017 is FS 17."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[^a-z0-9]", "", name.lower()))


_MOST_ERROR: Final = 9.0
"""Larger errors, and negative ones, stand for a missing one."""

_USUAL_ERROR: Final = 0.02
"""Error of a magnitude whose own is missing, mag: how well observers agree (Leggett et al. 2006)."""


def _known_columns(names: Iterable[str]) -> dict[str, str]:
    """Return which column holds what is understood: the keys of `COLUMNS`, and bands with their errors."""
    spellings = dict(COLUMNS)
    for band in BANDS:
        spellings[band] = columns.magnitude_names(band)
        spellings[f"{band}_error"] = columns.error_names(band)
    names = list(names)
    found = {label: columns.find_column(names, known) for label, known in spellings.items()}
    return {label: column for label, column in found.items() if column is not None}


def _standard(row: Mapping[str, Any], known: Mapping[str, str], shown: str | None = None) -> Standard:
    def text(label: str) -> str:
        value = row[known[label]] if label in known else None
        return "" if value is None or value is np.ma.masked else _text(value).strip()

    def number(label: str, limit: float = columns.MAGNITUDES_BELOW) -> float | None:
        return _number(row[known[label]], limit) if label in known else None

    def angle(label: str, hours: bool) -> float:
        column = known[label]
        try:
            value = columns.degrees(row[column], hours=hours)
        except (TypeError, ValueError):
            value = np.nan
        if not abs(value) <= (360.0 if hours else 90.0):
            raise DataError(
                "The position of a standard cannot be read",
                file=shown, item=f"{column} of {text('name') or 'a star without name'}", found=row[column],
                expected="degrees, or 08 51 19.31 (hours, for a right ascension)",
            )  # fmt: skip
        return value

    magnitudes = {}
    for band in BANDS:
        value, error = number(band), number(f"{band}_error")
        if value is not None:
            usable = error is not None and 0 <= error < _MOST_ERROR
            magnitudes[band] = value, error if usable and error is not None else _USUAL_ERROR
    ra, dec = angle("ra", True) % 360.0, angle("dec", False)
    name, other = text("name"), text("other_name")
    star = Standard(
        name=name if name or other else f"star at {ra:.4f} {dec:+.4f}",
        other_name=other,
        ra=ra,
        dec=dec,
        pm_ra=number("pm_ra", columns.FASTEST),
        pm_dec=number("pm_dec", columns.FASTEST),
        magnitudes=magnitudes,
    )
    epoch = number("epoch", _LAST_YEAR)
    return star if epoch is None else _at_2000(star, epoch)


def _at_2000(star: Standard, epoch: float) -> Standard:
    """Return a standard whose position is of another epoch (Julian year) with that of 2000."""
    if star.pm_ra is None or star.pm_dec is None:
        return star
    years = 2000.0 - epoch
    ra = star.ra + star.pm_ra * years / 3.6e6 / np.cos(np.deg2rad(star.dec))
    return replace(star, ra=float(ra % 360.0), dec=star.dec + star.pm_dec * years / 3.6e6)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _number(value: Any, limit: float) -> float | None:
    """Return a number, None where it is missing in any of the usual ways."""
    if value is None or value is np.ma.masked or str(value).strip() in ("", "--"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) and abs(number) < limit else None


def _read(path: Path) -> Table:
    from astropy.table import Table

    problem = "it is not there"
    for form in (None, "ascii") if path.is_file() else ():
        try:
            return Table.read(path, format=form)
        except Exception as error:  # readers of foreign formats raise whatever they like
            problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    raise InputError(
        "The table of standards cannot be read",
        file=path,
        found=problem,
        expected="a table that astropy reads",
    )


_UNITS: Final[Mapping[str, str]] = {"ra": "deg", "dec": "deg", "pm_ra": "mas / yr", "pm_dec": "mas / yr"}


def _rows(table: Table, shown: str) -> list[dict[str, Any]]:
    """Return the rows of a table as plain values: angles that have a unit in degrees, motions in mas/yr."""
    known = _known_columns(table.colnames)
    values: dict[str, Any] = {}
    for name in table.colnames:
        column = table[name]
        where = getattr(column, "icrs", None)
        if where is not None:
            values |= {"ra": where.ra.deg, "dec": where.dec.deg}
            continue
        label = next((key for key in _UNITS if known.get(key) == name), "")
        unit = getattr(column, "unit", None)
        if label and unit is not None and unit.is_equivalent(_UNITS[label]):
            values[name] = columns.column_numbers(table, name) * unit.to(_UNITS[label])
        else:
            values[name] = getattr(column, "value", column)
    epoch = columns.julian_year(table.meta.get("EPOCH"), file=shown)
    if epoch is not None and "epoch" not in known:
        values["ref_epoch"] = [epoch] * len(table)
    return [{name: column[k] for name, column in values.items()} for k in range(len(table))]
