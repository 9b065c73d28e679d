"""Reference catalogues: from VizieR over plain HTTPS, from files, and from tables, in one form.

Nothing here reaches the network but `cone_search`, which is called when a catalogue is named.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.grouping import angular_separation
from niripipe.astrodata import catalogue_columns as columns
from niripipe.astrodata.quiet import without_warnings
from niripipe.errors import DataError, InputError, ParameterError

if TYPE_CHECKING:
    from astropy.table import Table

Floats = NDArray[np.float64]

__all__ = ["CATALOGUES", "VIZIER", "Catalogue", "cone_search", "near", "read_table", "standard_table"]

VIZIER: Final = "https://vizier.cds.unistra.fr/viz-bin/votable"
"""VizieR's interface for VOTables (Centre de Donnees astronomiques de Strasbourg)."""

_CHUNK = 1 << 16
_MAX_BYTES = 20_000_000
_AGENT = "niripipe (astronomical data reduction)"


_LEAST_POSITION_ERROR: Final = 0.005
"""Error of Gaia's positions moved over ten years, arcsec (0.5 mas a year at 20 mag)."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A catalogue that VizieR offers.

    Attributes
    ----------
    table : str
        VizieR's name of the table.
    columns : tuple of str
        Columns to ask for.
    epoch : float or None
        Julian year of the positions, for catalogues with proper motions.
    system : str
        System of the magnitudes, see `niripipe.algorithms.filter_magnitudes`.
    position_error : float or None
        Error of a position per axis, arcsec; None: that of 2MASS.
    """

    table: str
    columns: tuple[str, ...]
    epoch: float | None = None
    system: str = ""
    position_error: float | None = None


CATALOGUES: Final[Mapping[str, Catalogue]] = MappingProxyType(
    {
        "2mass": Catalogue(
            "II/246/out",
            (
                "2MASS", "RAJ2000", "DEJ2000",
                "Jmag", "e_Jmag", "Hmag", "e_Hmag", "Kmag", "e_Kmag", "Qflg", "Cflg",
            ),
            system="2MASS",
        ),
        "ukidss9": Catalogue(
            "II/319/las9",
            (
                "JName", "RAJ2000", "DEJ2000", "Ymag", "e_Ymag",
                "Jmag1", "e_Jmag1", "Hmag", "e_Hmag", "Kmag", "e_Kmag",
            ),
            system="MKO",
        ),
        "sdss9": Catalogue("V/139/sdss9", ("SDSS9", "RA_ICRS", "DE_ICRS", "zmag", "e_zmag")),
        "gaia3": Catalogue(
            "I/355/gaiadr3",
            ("Source", "RA_ICRS", "DE_ICRS", "Gmag", "e_Gmag", "pmRA", "pmDE"),
            2016.0,
            position_error=_LEAST_POSITION_ERROR,
        ),
    }
)  # fmt: skip
"""Names that may be given as a source; ``sdss9`` and ``gaia3`` give positions only."""

_BANDS: Final = "gzyjhk"
_MAGNITUDES: Final = frozenset(f"{band}mag" for band in _BANDS)
_POSITIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"RAJ2000": columns.RIGHT_ASCENSION, "DEJ2000": columns.DECLINATION}
)


def cone_search(
    name: str,
    ra: float,
    dec: float,
    radius: float,
    *,
    server: str = VIZIER,
    timeout: float = 30.0,
    max_rows: int = 5000,
    client: str = "niripipe",
) -> Table:
    """Ask a VizieR server for the sources of a catalogue around a position.

    Parameters
    ----------
    name : str
        A key of `CATALOGUES`.
    ra, dec : float
        Centre, degrees (J2000).
    radius : float
        Degrees.
    server : str
        Address of the interface, ``http`` or ``https``; `VIZIER` or one of its mirrors.
    timeout : float
        Seconds that the whole answer may take.
    max_rows : int
        More are not asked for. More than 20 MB are not read.
    client : {"niripipe", "astroquery"}
        Who asks: this module, or astroquery (extra ``query``), with its cache and its settings.

    Returns
    -------
    astropy.table.Table
        In the form of `standard_table`; no rows when there is no source.

    Raises
    ------
    ParameterError
        There is no such catalogue, or the address is not one of a web server.
    InputError
        The server cannot be reached, is too slow, or sends something else than a table; or astroquery is not
        installed.
    """
    catalogue = CATALOGUES.get(name)
    if catalogue is None:
        raise ParameterError(
            "There is no such catalogue", item="source", found=name, expected=", ".join(CATALOGUES)
        )
    if client == "astroquery":
        answer = _by_astroquery(catalogue, (ra, dec), radius, server, timeout, max_rows)
    else:
        answer = _parsed(_fetch(_address(server, catalogue, (ra, dec), radius, max_rows), timeout), server)
    table = standard_table(answer, name=name, epoch=catalogue.epoch, system=catalogue.system)
    if catalogue.position_error is not None:
        table.meta["POSERR"] = catalogue.position_error
    return table


def read_table(path: Path, format: str | None = None) -> Table:
    """Read a reference catalogue from a file.

    Parameters
    ----------
    path : pathlib.Path
        Any file that astropy reads as a table: FITS, ECSV, VOTable, CSV, plain text.
    format : str, optional
        Name of astropy's format; found out from the file by default.

    Returns
    -------
    astropy.table.Table
        In the form of `standard_table`.

    Raises
    ------
    InputError
        The file cannot be read as a table.
    DataError
        It has no usable positions.
    """
    from astropy.table import Table

    # A text file says nothing about its format by its name: then astropy's guess for plain tables is next.
    trials = [format] if format else [None, "ascii"]
    problem = "it is not there"
    for trial in trials if path.is_file() else ():
        try:
            with without_warnings():
                table = Table.read(path, format=trial)
            return standard_table(table, name=path.name)
        except DataError as error:
            error.file = str(path)
            raise
        except Exception as error:  # readers of foreign formats raise whatever they like
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    raise InputError(
        "The reference catalogue cannot be read",
        file=path,
        item="source",
        found=problem,
        remedy="Give a table that astropy reads, with its format if the name does not tell it.",
    )


def standard_table(
    table: Table, *, name: str | None = None, epoch: float | None = None, system: str | None = None
) -> Table:
    """Bring a catalogue into the form of REFCAT.

    Parameters
    ----------
    table : astropy.table.Table
        Positions, magnitudes with errors, proper motions: the names understood are those of
        `niripipe.astrodata.catalogue_columns`, in any letter case. Positions may also be a column of
        `astropy.coordinates.SkyCoord`.
    name : str, optional
        Of the catalogue, kept as ``meta["CATALOG"]``.
    epoch : float, optional
        Julian year of the positions; by default ``meta["EPOCH"]`` of the table, a number or text (J2015.5),
        or else the median of a column ``ref_epoch``.
    system : str, optional
        System of the magnitudes (``2MASS``, ``MKO``); by default ``meta["SYSTEM"]``, or what the names of the
        columns tell.

    Returns
    -------
    astropy.table.Table
        A new table: Id (1 to n), Cat_Id, RAJ2000, DEJ2000, and what there is of pmra, pmde, filtermag and
        magnitudes with errors (``jmag``, ``jmag_err``), float64 with NaN where a value is missing: masked, no
        finite number, one that stands for it (99.999, -999), or a magnitude that flags of the catalogue
        declare to be of no use (no detection, blend, no star). Rows without a position are left out.
        ``meta``: CATALOG, EPOCH, SYSTEM of the magnitudes (empty where it is not known) and, of a file of
        Gaia's archive, POSERR, the error of positions in arcsec.

    Raises
    ------
    DataError
        There is no column of positions, a column does not hold numbers, or the epoch cannot be read.
    """
    from astropy.table import Table

    ra, dec = _positions(table)
    keep = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    standard = Table()
    standard["Id"] = np.arange(1, np.count_nonzero(keep) + 1)
    identity = columns.find_column(table.colnames, columns.IDENTITY)
    if identity is not None:
        standard["Cat_Id"] = np.array([str(value) for value in table[identity]], str)[keep]
    standard["RAJ2000"], standard["DEJ2000"] = ra[keep] % 360.0, dec[keep]
    for label, (names, known) in _measurements().items():
        column = columns.find_column(table.colnames, names)
        if column is not None:
            values = known(columns.column_numbers(table, column))
            if label in _MAGNITUDES:
                values[columns.doubtful_magnitudes(table, label[0])] = np.nan
            standard[label] = values[keep]
    standard.meta["CATALOG"] = name or str(table.meta.get("CATALOG", "table"))
    told = table.meta.get("SYSTEM", "")
    standard.meta["SYSTEM"] = system or (told if told in ("2MASS", "MKO") else columns.system(table.colnames))
    start = epoch if epoch is not None else columns.julian_year(table.meta.get("EPOCH"))
    own_epoch = _median(table, columns.EPOCH)
    if own_epoch is not None:
        # A table of Gaia's archive.
        start = columns.julian_year(own_epoch) if start is None else start
        error = _median(table, columns.POSITION_ERROR)
        if error is not None:
            standard.meta["POSERR"] = max(error / 1000, _LEAST_POSITION_ERROR)
    if start is not None:
        standard.meta["EPOCH"] = start
    return standard


def near(table: Table, ra: float, dec: float, radius: float, when: datetime | None = None) -> Table:
    """Return the sources of a standard table around a position, where they were at a time.

    Parameters
    ----------
    table : astropy.table.Table
        In the form of `standard_table`. Positions move when it has proper motions and an epoch.
    ra, dec, radius : float
        Degrees.
    when : datetime, optional
        The time; without it nothing moves.

    Returns
    -------
    astropy.table.Table
        A copy of these rows, Id from 1.
    """
    lon, lat = _at(table, when)
    inside = angular_separation((lon, lat), (ra, dec)) <= radius
    chosen = table[inside]
    chosen["RAJ2000"], chosen["DEJ2000"] = lon[inside], lat[inside]
    chosen["Id"] = np.arange(1, len(chosen) + 1)
    if when is not None and "EPOCH" in chosen.meta:
        chosen.meta["EPOCH"] = _year(when)
    return chosen


def _at(table: Table, when: datetime | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the positions at a time."""
    lon, lat = (np.array(table[name], dtype=np.float64) for name in _POSITIONS)
    if when is None or "EPOCH" not in table.meta or not {"pmra", "pmde"} <= set(table.colnames):
        return lon, lat
    years = _year(when) - float(table.meta["EPOCH"])
    # A source whose motion is not known stays where it is.
    move_ra, move_dec = (
        np.nan_to_num(np.asarray(table[name], float)) * years / 3.6e6 for name in ("pmra", "pmde")
    )
    return (lon + move_ra / np.cos(np.deg2rad(lat))) % 360.0, lat + move_dec


def _year(when: datetime) -> float:
    start = datetime(when.year, 1, 1, tzinfo=when.tzinfo)
    return when.year + (when - start).total_seconds() / (365.25 * 86400)


def _median(table: Table, names: tuple[str, ...]) -> float | None:
    """Return the median of a column; None where there is none, or no number in it."""
    column = columns.find_column(table.colnames, names)
    values = np.zeros(0) if column is None else columns.column_numbers(table, column)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _measurements() -> dict[str, tuple[tuple[str, ...], Callable[[Floats], Floats]]]:
    """Return the standard names of what is measured, the names understood, and what drops missing values."""
    names: dict[str, tuple[tuple[str, ...], Callable[[Floats], Floats]]] = {
        "pmra": (columns.MOTION_RA, columns.known_motions),
        "pmde": (columns.MOTION_DEC, columns.known_motions),
        "filtermag": (("filtermag",), columns.known_magnitudes),
        "filtermag_err": (("filtermag_err", "e_filtermag"), columns.known_errors),
    }
    for band in _BANDS:
        # A column y is a position on a detector, z a redshift.
        bare = band in "jhk"
        names[f"{band}mag"] = (columns.magnitude_names(band, bare=bare), columns.known_magnitudes)
        names[f"{band}mag_err"] = (columns.error_names(band, bare=bare), columns.known_errors)
    return names


def _positions(table: Table) -> tuple[Floats, Floats]:
    """Return right ascensions and declinations, degrees."""
    found = [columns.find_column(table.colnames, names) for names in _POSITIONS.values()]
    for name in table.colnames if None in found else ():
        coordinates = getattr(table[name], "icrs", None)
        if coordinates is not None:
            return np.asarray(coordinates.ra.deg, float), np.asarray(coordinates.dec.deg, float)
    for (label, names), column in zip(_POSITIONS.items(), found, strict=True):
        if column is None:
            raise DataError(
                "The reference catalogue has no positions",
                item=label,
                found=", ".join(table.colnames) or "no columns",
                expected=" or ".join(names),
            )
    return columns.angles(table, str(found[0]), hours=True), columns.angles(table, str(found[1]))


def _address(
    server: str, catalogue: Catalogue, centre: tuple[float, float], radius: float, max_rows: int
) -> str:
    from urllib.parse import quote, urlencode, urlsplit

    if urlsplit(server).scheme not in ("http", "https"):
        # urllib would open files as well.
        raise ParameterError(
            "This is not the address of a web server", item="server", found=server, expected="https://..."
        )
    query = [
        ("-source", catalogue.table),
        ("-c", f"{centre[0]:.7f} {centre[1]:+.7f}"),
        ("-c.eq", "J2000"),
        ("-c.rd", f"{radius:.6f}"),
        ("-out.max", str(max_rows)),
        ("-oc.form", "dec"),
        *(("-out", column) for column in catalogue.columns),
    ]
    return f"{server}?{urlencode(query, quote_via=quote)}"


def _fetch(address: str, timeout: float) -> bytes:
    """Return the body of an answer, within limits of time and size."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    deadline = time.monotonic() + timeout
    parts, size = [], 0
    try:
        with urlopen(Request(address, headers={"User-Agent": _AGENT}), timeout=timeout) as answer:
            # read1 returns what one packet brought, so that a trickle cannot outlive the deadline.
            while chunk := answer.read1(_CHUNK):
                size += len(chunk)
                parts.append(chunk)
                if size > _MAX_BYTES:
                    raise _unusable(
                        address, f"more than {_MAX_BYTES} bytes", "a smaller radius or fewer rows"
                    )
                if time.monotonic() > deadline:
                    raise _unusable(
                        address, f"{size} bytes in {timeout:g} s", "the answer within the time-out"
                    )
    except HTTPError as error:
        with error:
            raise _unusable(address, f"HTTP status {error.code} {error.reason}", "200 OK") from None
    except (OSError, HTTPException) as error:
        raise _unusable(address, str(error) or type(error).__name__, "an answer") from None
    return b"".join(parts)


def _by_astroquery(
    catalogue: Catalogue,
    centre: tuple[float, float],
    radius: float,
    server: str,
    timeout: float,
    max_rows: int,
) -> Table:
    """Ask with astroquery."""
    from urllib.parse import urlsplit

    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.table import Table

    try:
        from astroquery.vizier import Vizier
    except ImportError as error:
        raise InputError(
            "astroquery is not installed",
            item="addReferenceCatalog:client",
            found=str(error),
            remedy='pip install "niripipe[query]", or let niripipe ask (client="niripipe").',
        ) from None
    asking = Vizier(
        columns=list(catalogue.columns),
        row_limit=max_rows,
        timeout=timeout,
        vizier_server=urlsplit(server).netloc,
    )
    where = SkyCoord(*centre, unit="deg")
    try:
        answer = asking.query_region(where, radius=radius * u.deg, catalog=catalogue.table)
    except Exception as error:  # errors of the network are those of whatever astroquery uses
        raise _unusable(server, f"{type(error).__name__}: {error}", "an answer") from None
    return answer[0] if len(answer) else Table({"RAJ2000": np.zeros(0), "DEJ2000": np.zeros(0)})


def _parsed(body: bytes, server: str) -> Table:
    from astropy.io.votable import parse
    from astropy.table import Table

    if b"<VOTABLE" not in body[:4096].upper():
        raise _unusable(server, body[:60].decode("ascii", "replace"), "a VOTable")
    try:
        tables = list(parse(io.BytesIO(body), verify="ignore").iter_tables())
        if not tables:
            # VizieR sends no table at all where there is no source.
            return Table({"RAJ2000": np.zeros(0), "DEJ2000": np.zeros(0)})
        return tables[0].to_table(use_names_over_ids=True)
    except Exception as error:  # a damaged document raises whatever the parser stumbles over
        raise _unusable(server, f"{type(error).__name__}: {error}", "a VOTable") from None


def _unusable(address: str, found: Any, expected: str) -> InputError:
    return InputError(
        "The catalogue server gave no usable answer",
        item=address.partition("?")[0],
        found=found,
        expected=expected,
        remedy="Try again, name a mirror as addReferenceCatalog:server, or give a file as its source.",
    )
