"""Reading header values that were written by many programs over twenty years.

Every function takes a header (anything with ``get``) or a raw value, and answers with a clean value or None.
None of them raises because of what a header holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from numbers import Real
from typing import Any, Protocol, TypeVar

from niripipe.astrodata import header_value

__all__ = [
    "Header",
    "clean_text",
    "decimal_year",
    "find_date",
    "find_time",
    "find_ut_datetime",
    "get_float",
    "get_int",
    "get_text",
    "name_text",
    "parse_date",
    "parse_datetime",
    "parse_dec",
    "parse_float",
    "parse_percentile",
    "parse_ra",
    "parse_time",
    "remove_component_id",
    "scaled",
    "truth",
]

_Value = TypeVar("_Value")

#: What instrument programs write where they have nothing to say.
_NO_VALUE = frozenset({"", "no value", "none", "n/a", "indef", "undefined", "unknown value", "invalid"})
#: Numbers that they write there.
_NO_NUMBER = frozenset({-9999.0, -999.0, 999.0})
_DATE_KEYWORDS = ("DATE-OBS", "DATE", "UTDATE")
_TIME_KEYWORDS = ("UT", "TIME-OBS", "STARTUT", "UTSTART")
_MJD_KEYWORDS = ("MJD-OBS", "MJD_OBS")
_MJD_ZERO = datetime(1858, 11, 17)

_PERCENTILE = re.compile(r"(\d\d)-percentile")
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_OLD_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{2,3})")
_TIME = re.compile(r"(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d*))?)?")
_SEXAGESIMAL = re.compile(
    r"([+-]?)\s*(\d{1,3})[:\s]\s*(\d{1,2})(?:[:\s]\s*(\d{1,2}(?:\.\d*)?))?\s*(hours|degrees)?", re.IGNORECASE
)
_WITH_UNIT = re.compile(r"(\S+)\s*(hours|degrees)", re.IGNORECASE)
_NAME_DATE = re.compile(r".(\d{4})(\d\d)(\d\d)")


class Header(Protocol):
    """What is needed of a header: `astropy.io.fits.Header` and dictionaries have it."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return a value or the default."""
        ...


def clean_text(value: object) -> str | None:
    """Return a value as stripped text; None for anything but text, and for text that means nothing.

    "Nothing" is an empty string and the fillers of the instrument programs, such as ``No Value``.
    """
    if not isinstance(value, str):
        return None
    text = value.strip()
    return None if text.lower() in _NO_VALUE else text


def name_text(value: object) -> str | None:
    """Return a name as stripped text, also where a header holds it as a number (``OBJECT = 1068``)."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    return clean_text(value)


def parse_float(value: object) -> float | None:
    """Return a finite number, also from text (``'-2.602  '``, ``'1.5D3'``); None if it is none.

    Also None for the numbers -9999, -999 and 999, which stand for "unknown" in Gemini headers.
    """
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        number = float(value.strip().lower().replace("d", "e") if isinstance(value, str) else value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) and number not in _NO_NUMBER else None


def get_text(header: Header, *keywords: str) -> str | None:
    """Return the first meaningful text among some keywords."""
    return _first(header, keywords, clean_text)


def get_float(header: Header, *keywords: str) -> float | None:
    """Return the first number among some keywords, tolerating numbers stored as text."""
    return _first(header, keywords, parse_float)


def get_int(header: Header, *keywords: str) -> int | None:
    """Return the first whole number among some keywords (``1.0`` and ``'1'`` count, ``1.5`` does not)."""
    number = get_float(header, *keywords)
    return int(number) if number is not None and number == int(number) else None


def truth(value: object) -> bool:
    """Tell whether a header value means yes."""
    if isinstance(value, str):
        return value.strip().lower() in ("t", "true", "yes", "y", "1")
    return bool(value)


def remove_component_id(name: object) -> str | None:
    """Cut a name before the first ``_G`` (``K_G0204`` gives ``K``); None for anything but text."""
    return name.split("_G")[0] if isinstance(name, str) else None


def parse_percentile(value: object) -> int | None:
    """Return an observing condition as a percentile: ``Any`` is 100, ``70-percentile`` 70, the rest None."""
    text = clean_text(value)
    if text is None:
        return None
    if text.lower() == "any":
        return 100
    match = _PERCENTILE.fullmatch(text)
    return int(match.group(1)) if match else None


def scaled(micrometres: float, exponent: int) -> float:
    """Multiply by a power of ten without conversion noise: (2.15, -6) is exactly the float 2.15e-06."""
    return (
        float(f"{micrometres!r}e{exponent}") if "e" not in repr(micrometres) else micrometres * 10.0**exponent
    )


def decimal_year(when: datetime) -> float:
    """Return a moment as a year with its fraction."""
    start, end = datetime(when.year, 1, 1), datetime(when.year + 1, 1, 1)
    return when.year + (when - start) / (end - start)


def parse_ra(value: object) -> float | None:
    """Return a right ascension in degrees.

    Parameters
    ----------
    value : object
        A number, or text that looks like one, is in degrees. Other text is sexagesimal hours unless it ends
        in ``degrees``; a number followed by ``hours`` is in hours.

    Returns
    -------
    float or None
        Degrees, 0 to 360; None if it cannot be read or is out of range.
    """
    degrees = _parse_angle(value, text_unit="hours")
    return degrees if degrees is not None and 0.0 <= degrees <= 360.0 else None


def parse_dec(value: object) -> float | None:
    """Return a declination in degrees from a number or sexagesimal degrees; None if unreadable."""
    degrees = _parse_angle(value, text_unit="degrees")
    return degrees if degrees is not None and abs(degrees) <= 90.0 else None


def parse_date(value: object) -> date | None:
    """Return a date from ``YYYY-MM-DD`` or the old ``DD/MM/YY`` and ``DD/MM/YYY`` (years since 1900)."""
    text = clean_text(value)
    if text is None:
        return None
    iso = _ISO_DATE.match(text)
    if iso:
        return _made(date, *(int(part) for part in iso.groups()))
    old = _OLD_DATE.fullmatch(text)
    if old:
        day, month, year = (int(part) for part in old.groups())
        return _made(date, 1900 + year, month, day)
    return None


def parse_time(value: object) -> time | None:
    """Return a time of day from ``H:M[:S[.s]]``."""
    text = clean_text(value)
    match = _TIME.fullmatch(text) if text else None
    if match is None:
        return None
    hour, minute = int(match[1]), int(match[2])
    microsecond = int((match[4] or "").ljust(6, "0")[:6])
    return _made(time, hour, minute, int(match[3] or 0), microsecond)


def parse_datetime(value: object) -> datetime | None:
    """Return a date with a time from ``YYYY-MM-DDTH:M:S[.s]``, a blank also separating; a zone is dropped."""
    text = clean_text(value)
    match = _ISO_DATE.match(text) if text else None
    if text is None or match is None or text[match.end() : match.end() + 1] not in ("T", " "):
        return None
    day = _made(date, *(int(part) for part in match.groups()))
    clock = parse_time(re.sub(r"(Z|[+-]\d\d:?\d\d)$", "", text[match.end() + 1 :].strip()))
    return None if day is None or clock is None else datetime.combine(day, clock)


def find_date(header: Header) -> date | None:
    """Return the UT date from ``DATE-OBS``, ``DATE`` or ``UTDATE``, the first that is readable."""
    return _first(header, _DATE_KEYWORDS, parse_date)


def find_time(header: Header) -> time | None:
    """Return the UT time from the first readable of ``UT``, ``TIME-OBS``, ``STARTUT`` and ``UTSTART``."""
    return _first(header, _TIME_KEYWORDS, parse_time)


def find_ut_datetime(header: Header, *, name: str | None = None, strict: bool = False) -> datetime | None:
    """Return the UT of the start of an observation.

    Parameters
    ----------
    header : Header
        The primary header.
    name : str, optional
        The file name, from which the date is guessed as a last resort.
    strict : bool, default False
        Do not guess.

    Returns
    -------
    datetime or None
        Naive, UT. In this order: a full date-time in a date keyword; a date and a time; ``MJD-OBS`` or
        ``MJD_OBS``; ``OBSSTART``; unless strict, the date keyword or the date in ``FRMNAME`` or the
        file name, with the time keyword or midnight.
    """
    full = _first(header, _DATE_KEYWORDS, parse_datetime)
    # Rewritten files carry the time of writing in DATE; it must not win over the observation's own DATE-OBS.
    if full is not None and (
        parse_datetime(header_value(header, "DATE-OBS")) is not None
        or parse_date(header_value(header, "DATE-OBS")) is None
    ):
        return full
    day, clock = find_date(header), find_time(header)
    if day is not None and clock is not None:
        return datetime.combine(day, clock)
    mjd = get_float(header, *_MJD_KEYWORDS)
    if mjd is not None and 1.0 < mjd < 2_000_000.0:
        return _MJD_ZERO + timedelta(days=mjd)
    started = parse_datetime(header_value(header, "OBSSTART"))
    if started is not None or strict:
        return started
    day = day or _date_in_name(header_value(header, "FRMNAME")) or _date_in_name(name)
    return None if day is None else datetime.combine(day, clock or time(0))


def _first(
    header: Header, keywords: Iterable[str], parse: Callable[[object], _Value | None]
) -> _Value | None:
    for keyword in keywords:
        value = parse(header_value(header, keyword))
        if value is not None:
            return value
    return None


def _parse_angle(value: object, *, text_unit: str) -> float | None:
    number = parse_float(value)
    if number is not None:
        return number
    text = clean_text(value)
    if text is None:
        return None
    plain = _WITH_UNIT.fullmatch(text)
    if plain is not None and (number := parse_float(plain[1])) is not None:
        return number * (15.0 if plain[2].lower() == "hours" else 1.0)
    match = _SEXAGESIMAL.fullmatch(text)
    if match is None:
        return None
    sign, whole, minutes, seconds, unit = match.groups()
    if int(minutes) >= 60 or float(seconds or 0) >= 60.0:
        return None
    size = int(whole) + int(minutes) / 60.0 + float(seconds or 0.0) / 3600.0
    angle = -size if sign == "-" else size
    return angle * 15.0 if (unit or text_unit).lower() == "hours" else angle


def _date_in_name(name: object) -> date | None:
    match = _NAME_DATE.match(name) if isinstance(name, str) else None
    return _made(date, *(int(part) for part in match.groups())) if match else None


def _made(build: Callable[..., _Value], *parts: int) -> _Value | None:
    try:
        return build(*parts)
    except ValueError:
        return None
