"""Headers: one that knows when it changed, and several that are handled as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from niripipe.errors import DataError

__all__ = ["HeaderManager", "WatchedHeader", "header_value", "without_structure"]

# Cards that describe how one HDU is laid out in a file; they follow the data, never a copy of the header.
_STRUCTURAL = frozenset(
    {
        "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS", "THEAP",
        "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM",
    }
)  # fmt: skip
_STRUCTURAL_STEMS = ("NAXIS", "TTYPE", "TFORM", "TDIM", "TNULL", "TSCAL", "TZERO", "TDISP", "TBCOL")


class WatchedHeader(fits.Header):  # type: ignore[misc]  # astropy carries no types
    """A FITS header that counts its changes, so that what was derived from it can be kept until then."""

    _revision = 0
    _exposed = False
    # Values that were parsed before; an instance gets a dict of its own at its first look-up.
    _values: dict[str, Any] | None = None
    # The cards as they were in the file, without those that were changed since.
    _as_read: dict[str, str] | None = None
    _is_as_read = False

    @classmethod
    def from_text(cls, text: str) -> WatchedHeader:
        """Return the header that the text of its cards, 80 characters each, makes."""
        header: WatchedHeader = cls.fromstring(text)
        cards = [text[start : start + 80] for start in range(0, len(text), 80)]
        if not any(card.startswith("CONTINUE") for card in cards):
            # Of several cards with one keyword the first counts.
            header._as_read = {card[:8].rstrip(): card[10:] for card in reversed(cards) if card[8:10] == "= "}
            header._is_as_read = True
        return header

    @property
    def cards(self) -> Any:
        """The cards. Handing them out means that a change may come unseen."""
        self._exposed = True
        return super().cards

    @property
    def state(self) -> object:
        """A value that differs after any change of content.

        While only the header's own methods are used it is a number; once somebody holds the cards
        themselves, it is the text of the header.
        """
        if self._exposed:
            return self._revision, self.tostring()
        return self._revision

    def value(self, key: str) -> Any:
        """Return the usable value of a keyword, or None; parsed once as long as nobody changes it."""
        if self._exposed or not _is_plain(key):
            return _usable_value(self, key)
        if self._values is None:
            self._values = {}
        values = self._values
        if key not in values:
            text = None if self._as_read is None else self._as_read.get(key)
            if text is not None:
                value = _standard_value(text)
            else:
                value = None if self._is_as_read and key not in _COMMENTARY else _UNUSUAL
            values[key] = _usable_value(self, key) if value is _UNUSUAL else value
        return values[key]

    def _forget(self, what: object) -> None:
        """Forget the values that a change of a card, named by itself or its keyword, may concern."""
        self._is_as_read = False
        if self._values or self._as_read:
            key = what[0] if isinstance(what, tuple) and what else getattr(what, "keyword", what)
            for known in (self._values, self._as_read):
                if known and isinstance(key, str) and _is_plain(key.upper()):
                    known.pop(key.upper(), None)
                elif known:
                    known.clear()


_UNUSUAL = object()
_COMMENTARY = ("COMMENT", "HISTORY")
_STANDARD_CARD = re.compile(
    r" *(?:(?P<text>'(?:[^':]|:(?! ))*')|(?P<flag>[TF])|(?P<whole>[+-]?[1-9]\d{0,14}|0)"
    r"|(?P<real>[+-]?\d+\.\d*(?:E[+-]?\d+)?)) *(?:/.*)?"
)
"""A value in a form that needs no thought. Text with a colon and a space may be a record of its own."""


def _standard_value(text: str) -> Any:
    """Return the value that a card states in the usual form, behind its equals sign.

    Raw headers have 150 cards, and what they say is asked for in every step; astropy's general way takes
    ten times as long. Anything that is not in the fixed forms of the standard is left to it.
    """
    match = _STANDARD_CARD.fullmatch(text)
    if match is None:
        return _UNUSUAL
    kind, found = str(match.lastgroup), match[str(match.lastgroup)]
    if kind == "text":
        return found[1:-1].rstrip()
    return found == "T" if kind == "flag" else int(found) if kind == "whole" else float(found)


def _is_plain(key: str) -> bool:
    """Return whether a keyword has one spelling and stands for one card."""
    return len(key) <= 8 and key.isupper() and not {" ", "."}.intersection(key)


def _counting(name: str) -> Callable[..., Any]:
    original = getattr(fits.Header, name)
    names_card = name in _NAMING_ONE_CARD

    @wraps(original)
    def method(self: WatchedHeader, *args: Any, **kwargs: Any) -> Any:
        self._revision += 1
        self._forget(args[0] if names_card and args else None)
        return original(self, *args, **kwargs)

    return method


# All public ways of changing a header; those built upon others count twice, which does no harm.
_NAMING_ONE_CARD = frozenset({"__setitem__", "__delitem__", "set", "append", "remove", "pop", "setdefault"})
for _name in (
    *_NAMING_ONE_CARD, "__iadd__", "extend", "insert", "update", "popitem", "clear", "strip",
    "rename_keyword", "add_history", "add_comment", "add_blank",
):  # fmt: skip
    setattr(WatchedHeader, _name, _counting(_name))


def header_value(header: Any, key: str, default: Any = None) -> Any:
    """Return a header value; a missing, undefined or unreadable card gives the default.

    Parameters
    ----------
    header : astropy.io.fits.Header
        The header.
    key : str
        Keyword.
    default : object, optional
        What to return when there is no usable value.
    """
    value = header.value(key) if isinstance(header, WatchedHeader) else _usable_value(header, key)
    return default if value is None else value


def _usable_value(header: Any, key: str) -> Any:
    try:
        value = header.get(key)
    except (VerifyError, ValueError):
        return None
    return None if isinstance(value, fits.card.Undefined) else value


def without_structure(header: Any) -> WatchedHeader:
    """Return a copy of a header without the cards that describe the layout of its HDU."""
    copied = WatchedHeader(header, copy=True)
    drop_structure(copied)
    return copied


def drop_structure(header: Any) -> None:
    """Remove the cards that describe the layout of an HDU, in place."""
    for key in {card for card in header if is_structural(card)}:
        header.remove(key, ignore_missing=True, remove_all=True)


def is_structural(key: str) -> bool:
    """Return whether a keyword describes the layout of an HDU."""
    if key in _STRUCTURAL:
        return True
    return key[-1:].isdigit() and key.rstrip("0123456789") in _STRUCTURAL_STEMS


class HeaderManager:
    """The headers of several extensions, read and changed together.

    Parameters
    ----------
    headers : sequence of astropy.io.fits.Header
        The headers; they are changed in place.

    Notes
    -----
    Reading gives one value per header, as a list. Iterating gives the headers themselves.
    """

    def __init__(self, headers: Sequence[Any]) -> None:
        self._headers = tuple(headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._headers)

    def __contains__(self, key: object) -> bool:
        return any(key in header for header in self._headers)

    def __repr__(self) -> str:
        return "\n\n".join(f"[{i}]\n{header!r}" for i, header in enumerate(self._headers))

    def __getitem__(self, key: str) -> list[Any]:
        return self._all(key, lambda header: header[key])

    def __setitem__(self, key: str, value: Any) -> None:
        for header in self._headers:
            header[key] = value

    def __delitem__(self, key: str) -> None:
        self.remove(key)

    def get(self, key: str, default: Any = None) -> list[Any]:
        """Return the values, with `default` where the keyword is missing."""
        return [header.get(key, default) for header in self._headers]

    def set(self, key: str, value: Any = None, comment: str | None = None) -> None:
        """Set value and comment in every header."""
        for header in self._headers:
            header.set(key, value, comment)

    def remove(self, key: str) -> None:
        """Remove a keyword wherever it is present.

        Raises
        ------
        KeyError
            It is present nowhere.
        """
        if key not in self:
            raise KeyError(f"keyword {key!r} is in none of the headers")
        for header in self._headers:
            header.remove(key, ignore_missing=True)

    def get_comment(self, key: str) -> list[str]:
        """Return the comments of a keyword.

        Raises
        ------
        KeyError
            A header lacks the keyword.
        """
        return self._all(key, lambda header: header.comments[key])

    def set_comment(self, key: str, comment: str) -> None:
        """Set the comment of a keyword in every header; none is changed if one lacks it.

        Raises
        ------
        KeyError
            A header lacks the keyword.
        """
        self._all(key, lambda header: header[key])
        for header in self._headers:
            header.comments[key] = comment

    def _all(self, key: str, read: Callable[[Any], Any]) -> list[Any]:
        missing = [i for i, header in enumerate(self._headers) if key not in header]
        values = [None if i in missing else read(header) for i, header in enumerate(self._headers)]
        if missing:
            error = KeyError(f"keyword {key!r} is missing in the headers of extensions {missing}")
            error.missing_at = missing  # type: ignore[attr-defined]
            error.values = values  # type: ignore[attr-defined]
            raise error
        return values


def watched(cards: Any) -> WatchedHeader:
    """Return a new watched header from an HDU, a header, a dict, or a list of cards.

    Raises
    ------
    DataError
        The cards cannot be put into a FITS header.
    """
    source = getattr(cards, "header", cards)
    try:
        if isinstance(source, fits.Header):
            return WatchedHeader(source, copy=True)
        items: Iterable[Any] = source.items() if hasattr(source, "items") else (source or ())
        return WatchedHeader([fits.Card(*item) if isinstance(item, tuple) else item for item in items])
    except (TypeError, ValueError, VerifyError) as error:
        raise DataError(
            "these cards do not make a FITS header",
            found=str(error),
            expected="an HDU, a header, a dict, or a list of cards",
        ) from error
