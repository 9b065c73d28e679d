"""URLs of database servers: checked when they are given, and never shown with a password."""

from __future__ import annotations

import re

from niripipe.errors import InputError

__all__ = ["checked_url", "is_url", "shown"]

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_SCHEME = "postgresql+psycopg"
_EXPECTED = f"{_SCHEME}://user@host:5432/database"

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
    fault = _fault(url)
    if fault is not None:
        # Without the cause: the text of the library's error may hold the URL.
        raise InputError(
            f"the URL of the calibration store {fault}", item="db_dir", found=shown(url), expected=_EXPECTED
        )
    return url


def shown(text: str) -> str:
    """Return a text with the passwords of all URLs in it replaced by asterisks.

    What is hidden is rather too much than too little: where characters of the password are not written as
    they should be, everything up to the last ``@`` counts as password.
    """
    return _SECRET.sub(r"\1***", _USER.sub(_without_password, text))


def _without_password(match: re.Match[str]) -> str:
    user, colon, _ = match[2].partition(":")
    return f"{match[1]}{user}{':***' if colon else ''}"


def _fault(url: str) -> str | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return "cannot be understood"
    if "@" in (parts.host or "") or "@" in (parts.database or ""):
        return "has an @ too many: in user and password it is written as %40"
    return None
