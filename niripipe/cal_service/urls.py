"""URLs of database servers: checked when they are given, and never shown with a password."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from niripipe.errors import InputError

__all__ = ["checked_url", "connection_options", "is_url", "shown"]

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
