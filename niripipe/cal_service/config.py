"""Finding out where the calibration store is.

Looked at in this order, and the first that answers is used:

1. the location given to ``config(db_dir=...)``;
2. the configuration file given to ``config(config_file=...)``;
3. ``~/.geminidr/rsys.cfg``, the file named by the environment variable ``DRAGONSRC``, and
   ``~/.dragons/dragonsrc``, the usual places of DRAGONS, where they exist and name a local store;
4. ``cal_manager.db`` in the current folder.

Environment, home and current folder are looked at when `find_store` is called, at no other time. URLs of
database servers are checked when they are given, and never shown with a password.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from niripipe.cal_service.records import absolute
from niripipe.errors import InputError

__all__ = [
    "StoreLocation",
    "checked_url",
    "connection_options",
    "find_store",
    "is_url",
    "shown",
    "store_file",
]

STORE_NAME = "cal_manager.db"

_DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_SCHEME = "postgresql+psycopg"
_EXPECTED = f"{_SCHEME}://user@host:5432/database"

# The groups are named as libpq names the options; an address with colons (IPv6) is in brackets.
_PARTS = re.compile(
    rf"(?:{'|'.join(map(re.escape, _SCHEMES))})://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^]/?]+\]|[^:/?]+)?(?::(?P<port>\d*))?"
    r"(?:/(?P<dbname>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)
_USER = re.compile(r"(://)(\S*)(?=@)")
_SECRET = re.compile(r"([\w.]*(?:password|secret)=)[^&\s'\"]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, repr=False)
class StoreLocation:
    """Where the store is, and who said so.

    Attributes
    ----------
    location : str
        Absolute path of an SQLite file, or a database URL, which may hold a password.
    source : str
        Where the location comes from, for people to read.
    config_file : Path or None
        The configuration file that named it.
    get_cal, store_cal : bool
        Whether calibrations are looked for there, and whether products of recipes are registered: the flags
        ``get`` and ``store`` of a line of ``databases``.
    """

    location: str
    source: str
    config_file: Path | None = None
    get_cal: bool = True
    store_cal: bool = False

    @property
    def shown(self) -> str:
        """The location for people to read, without password."""
        return shown(self.location) if is_url(self.location) else self.location

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown!r}, {self.source!r}, {self.config_file!r})"


def find_store(
    db_dir: str | PathLike[str] | None = None, config_file: str | PathLike[str] | None = None
) -> StoreLocation:
    """Return where the calibration store is, in the order given above.

    Parameters
    ----------
    db_dir : path-like or URL, optional
        Folder or file of the store, as explained at `store_file`.
    config_file : path-like, optional
        A configuration file in the format of ``rsys.cfg`` or ``dragonsrc``.

    Raises
    ------
    InputError
        The configuration file named is missing, cannot be understood, or names no local store or several;
        or a URL is not that of a PostgreSQL database.
    """
    if db_dir is not None:
        return StoreLocation(store_file(db_dir), "given to config()")
    if config_file is not None:
        path = absolute(config_file)
        location = _read(path)
        if location is None:
            raise InputError(
                "the configuration file names no local calibration store",
                file=path,
                expected="[calibs] with database_dir (rsys.cfg) or databases (dragonsrc)",
            )
        return location
    for path in _usual_places():
        location = _read(path) if path.is_file() else None
        if location is not None:
            return location
    return StoreLocation(store_file(Path.cwd()), "default, the current folder")


def store_file(location: str | PathLike[str]) -> str:
    """Return the absolute path of the store, or its URL, for a location named by the user.

    A text with ``://`` is the URL of a PostgreSQL database, as explained at
    `checked_url`, or of a file, ``sqlite:///``. An existing folder holds
    ``cal_manager.db``; an existing file is the store itself. What does not exist yet is a file if it ends in
    ``.db``, ``.sqlite`` or ``.sqlite3``, and a folder otherwise.

    Raises
    ------
    InputError
        The URL cannot be used.
    """
    if isinstance(location, str) and is_url(location):
        if not location.startswith("sqlite:///"):
            return checked_url(location)
        location = location.removeprefix("sqlite:///")
    path = absolute(location)
    is_file = path.is_file() or (not path.is_dir() and path.suffix.lower() in _DATABASE_SUFFIXES)
    return str(path if is_file else path / STORE_NAME)


def _usual_places() -> Iterator[Path]:
    home = Path("~").expanduser()
    yield home / ".geminidr" / "rsys.cfg"
    named = os.environ.get("DRAGONSRC")
    if named:
        yield absolute(named)
    yield home / ".dragons" / "dragonsrc"


def _read(path: Path) -> StoreLocation | None:
    """Return the location that a configuration file names, or None."""
    # No interpolation: "%" is an ordinary character in a path.
    parser = configparser.RawConfigParser(inline_comment_prefixes=("#", ";"), strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise InputError("the configuration file cannot be read", file=path, found=err) from err
    except configparser.Error as err:
        raise InputError(
            "the configuration file cannot be understood",
            file=path,
            found=shown(" ".join(str(err).split())),
            expected="sections in brackets with lines 'name = value'",
        ) from err
    if not parser.has_section("calibs"):
        return None
    calibs = parser["calibs"]
    source = f"configuration file {path}"
    if "databases" in calibs:
        return _from_databases(calibs["databases"], source, path)
    if "database_dir" in calibs:
        location = _unquoted(calibs["database_dir"].strip())
        if not location:
            raise InputError("the configuration file leaves database_dir empty", file=path)
        return StoreLocation(store_file(_beside(path, location)), source, path)
    return StoreLocation(store_file("~/.geminidr"), source, path) if "standalone" in calibs else None


def _from_databases(text: str, source: str, config_file: Path) -> StoreLocation | None:
    listed = [_database_line(line, config_file) for line in text.splitlines() if line.strip()]
    local = [one for one in listed if _is_local(one[0])]
    if len(local) > 1:
        raise InputError(
            "the configuration file names several local calibration stores",
            file=config_file,
            found=", ".join(shown(location) for location, _ in local),
            remedy="Name the one to be used with config(db_dir=...)",
        )
    if not local:
        return None
    location, flags = local[0]
    # As in DRAGONS: with a flag only what is named is done, without one calibrations are looked for.
    return StoreLocation(
        store_file(_beside(config_file, location)),
        source,
        config_file,
        not flags or "get" in flags,
        "store" in flags,
    )


def _beside(config_file: Path, location: str) -> str:
    """Return a relative location as one beside the file that names it, if the store is there and not here.

    DRAGONS takes it for one in the current folder, wherever that is.
    """
    if is_url(location) or Path(location).expanduser().exists():
        return location
    beside = config_file.parent / Path(location).expanduser()
    return str(beside) if beside.exists() else location


def _database_line(line: str, config_file: Path) -> tuple[str, list[str]]:
    """Return name and flags of a line ``name [flag ...]``; a name with blanks need not be quoted."""
    name = re.sub(r"(\s+(get|store))+$", "", line.strip())
    flags = line.strip()[len(name) :].split()
    words = name.split()
    ends = words[0].lower().endswith(_DATABASE_SUFFIXES) or is_url(words[0])
    if len(words) > 1 and not _is_quoted(name) and ends:
        raise InputError(
            "the configuration file has an unknown flag",
            file=config_file,
            item=shown(words[0]),
            found=" ".join(words[1:]),
            expected="get or store",
        )
    return _unquoted(name), flags


def _is_local(location: str) -> bool:
    if "//" in location:
        return location.startswith(("postgres", "sqlite"))
    return (
        "/" in location
        or os.sep in location
        or location.startswith("~")
        or location.lower().endswith(_DATABASE_SUFFIXES)
        or Path(location).exists()
    )


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _unquoted(text: str) -> str:
    return text[1:-1] if _is_quoted(text) else text


# -- URLs of database servers


def is_url(place: object) -> bool:
    """Return whether a place named by the user is a URL and not a path."""
    return isinstance(place, str) and "://" in place


def checked_url(text: str) -> str:
    """Return the URL of a PostgreSQL database, with the driver that is used named in it.

    Parameters
    ----------
    text : str
        ``postgresql+psycopg://user:password@host:port/database?option=value``. ``postgresql://`` and
        ``postgres://`` mean the same. Characters other than letters and digits in user and password are
        written as ``%40`` and the like. The password is better left to the usual places of PostgreSQL,
        ``~/.pgpass`` or the environment variable ``PGPASSWORD``.

    Raises
    ------
    InputError
        It is not such a URL; the message does not repeat the password.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme.lower() not in _SCHEMES:
        raise InputError(
            "a calibration store cannot be kept in a database of this kind",
            item="db_dir",
            found=f"{scheme}://",
            expected=f"{_EXPECTED}, or the path of an SQLite file",
        )
    url = f"{_SCHEME}://{rest}"
    try:
        connection_options(url)
    except ValueError as err:
        raise InputError(
            f"the URL of the calibration store {err}", item="db_dir", found=shown(url), expected=_EXPECTED
        ) from None
    return url


def connection_options(url: str) -> dict[str, str]:
    """Return what a URL says as options of libpq, the library of PostgreSQL that makes connections.

    Raises
    ------
    ValueError
        It is not the URL of a PostgreSQL database; the message says what is wrong, but does not repeat it.
    """
    match = _PARTS.fullmatch(url)
    if match is None:
        raise ValueError("cannot be understood")
    parts = {name: unquote(part) for name, part in match.groupdict().items() if part and name != "query"}
    if "host" in parts:
        parts["host"] = parts["host"].strip("[]")
    if "@" in parts.get("host", "") + parts.get("dbname", ""):
        raise ValueError("has an @ too many: in user and password it is written as %40")
    return {**parts, **dict(parse_qsl(match["query"] or ""))}


def shown(text: str) -> str:
    """Return a text with the passwords of all URLs in it replaced by asterisks.

    What is hidden is rather too much than too little: where characters of the password are not written as
    they should be, everything up to the last ``@`` counts as password.
    """
    return _SECRET.sub(r"\1***", _USER.sub(_without_password, text))


def _without_password(match: re.Match[str]) -> str:
    user, colon, _ = match[2].partition(":")
    return f"{match[1]}{user}{':***' if colon else ''}"
