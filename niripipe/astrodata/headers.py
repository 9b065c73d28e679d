"""Headers: astropy's, read and changed without making cards where possible, and several handled as one."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from niripipe.errors import DataError

__all__ = [
    "HeaderManager",
    "WatchedHeader",
    "drop_structure",
    "header_value",
    "is_structural",
    "readable_copy",
    "watched",
]

# Cards that describe how one HDU is laid out in a file; they follow the data, never a copy of the header.
_STRUCTURAL = frozenset(
    {
        "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS", "THEAP",
        "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM",
    }
)  # fmt: skip
_STRUCTURAL_STEMS = ("NAXIS", "TTYPE", "TFORM", "TDIM", "TNULL", "TSCAL", "TZERO", "TDISP", "TBCOL")

_COMMENTARY = ("", "COMMENT", "HISTORY")
_PLAIN_KEYWORD = re.compile(r"(?!(?:COMMENT|HISTORY|END|CONTINUE|HIERARCH)$)[A-Z0-9_-]{1,8}")
# A value in the usual form. Text with a colon and a blank may be a record-valued card.
_STANDARD_FIELD = re.compile(
    r" *('(?:[^':]|:(?! ))*'|[TF]|[+-]?[1-9]\d{0,14}|0|[+-]?\d+\.\d*(?:E[+-]?\d+)?) *(?:/(.*))?"
)
_REMOVED: Any = object()
_filling = threading.RLock()


class WatchedHeader(fits.Header):  # type: ignore[misc]  # astropy carries no types
    """A FITS header that is astropy's in every respect and makes its cards only when they are needed.

    Parameters
    ----------
    cards : iterable or astropy.io.fits.Header, optional
        What astropy's header accepts.
    copy : bool, optional
        Whether to copy the cards of a header.

    Notes
    -----
    A header made by `from_text` keeps its text, the values and comments found there, and a list of changes.
    Plain keywords are read, set and removed with these alone. Anything else first fills the header: astropy
    reads the text and repeats the changes, and from then on everything is left to astropy.
    """

    unreadable: Mapping[str, str] = {}
    """What the cards said that have no value in FITS form, such as a bare NaN; they count as undefined."""

    # None once the header is filled; the other attributes are not used then.
    _text: str | None = None
    _values: dict[str, Any]
    _comments: dict[str, str]
    _changes: list[tuple[str, Any, str | None]]
    _revision: object

    def __init__(self, cards: Any = (), copy: bool = False) -> None:
        text = cards._text if copy and isinstance(cards, WatchedHeader) else None
        if text is None:
            super().__init__(cards, copy)
            return
        self._values, self._comments = cards._values.copy(), cards._comments.copy()
        self._changes, self._revision, self._text = cards._changes.copy(), object(), text

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the header that the text of its cards, 80 printable characters each, makes."""
        found = _parse(text)
        unreadable: dict[str, str] = {}
        if found is None:
            text, unreadable = _mended(text)
            found = _parse(text) if unreadable else None
        if found is None:
            header = cls.fromstring(text)
            header.unreadable = unreadable
            return header  # type: ignore[no-any-return]
        header = cls.__new__(cls)
        header.unreadable = unreadable
        header._values, header._comments = found
        header._changes, header._revision, header._text = [], object(), text
        return header

    def __getattr__(self, name: str) -> Any:
        # Called for missing attributes only, which astropy's own are while the header is not filled.
        if self._text is not None and name.startswith("_") and not name.startswith("__"):
            self._fill()
            return getattr(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _fill(self) -> None:
        """Make the cards as astropy would have made them from text and changes, once."""
        with _filling:
            if self._text is None:
                return
            text = self._text
            cards = [fits.Card.fromstring(text[start : start + 80]) for start in range(0, len(text), 80)]
            first: dict[str, fits.Card] = {}
            for card in cards:
                first.setdefault(card.keyword, card)
            for key, value, comment in self._changes:
                if value is _REMOVED:
                    cards.remove(first.pop(key))
                elif key in first:
                    first[key].value = value
                    if comment is not None:
                        first[key].comment = comment
                else:
                    first[key] = fits.Card(key, value, comment)
                    _insert(cards, first[key])
            # Threads that read at the same time see all of it or nothing.
            self.__dict__.update(vars(fits.Header(cards)))
            self._text = None

    def _is_quick(self, key: Any) -> bool:
        """Return whether this is a plain keyword of a header that is not filled."""
        return self._text is not None and type(key) is str and _is_plain(key)

    def copy(self, strip: bool = False) -> Self:
        """Return an independent copy.

        Parameters
        ----------
        strip : bool, optional
            Whether to leave out the cards that describe the layout of an HDU, as astropy does.
        """
        if self._text is None:
            return super().copy(strip)  # type: ignore[no-any-return]
        twin = type(self)(self, copy=True)
        if strip:
            twin.strip()
        return twin

    def clear(self) -> None:
        """Remove all cards."""
        self._fill()
        super().clear()

    @property
    def state(self) -> object:
        """A value that differs after any change of content, and from that of any other header.

        Once the header is filled it differs every time, as cards may be changed without the header knowing.
        """
        return object() if self._text is None else self._revision

    def keywords(self) -> list[str]:
        """Return the keywords of all cards with values, in order, each once."""
        if self._text is not None:
            return list(self._values)
        return [name for name in dict.fromkeys(self.keys()) if name not in _COMMENTARY]

    def comment(self, key: str) -> str:
        """Return the comment of a keyword; a missing one raises `KeyError`."""
        return self._comments[key] if self._is_quick(key) else str(self.comments[key])

    def __contains__(self, key: object) -> bool:
        return key in self._values if self._is_quick(key) else bool(super().__contains__(key))

    def __getitem__(self, key: Any) -> Any:
        if not self._is_quick(key):
            return super().__getitem__(key)
        if key not in self._values:
            raise KeyError(f"Keyword {key!r} not found.")
        return self._values[key]

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value, or the default if there is no such card."""
        return self._values.get(key, default) if self._is_quick(key) else super().get(key, default)

    def set(
        self,
        keyword: str,
        value: Any = None,
        comment: str | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Set value, comment and position of a card; see astropy's method of this name."""
        if not (before is None and after is None and self._set_plain(keyword, value, comment)):
            super().set(keyword, value, comment, before, after)

    def __setitem__(self, key: Any, value: Any) -> None:
        new, comment = value, None
        if type(value) is tuple and len(value) == 2:
            new, comment = value[0], "" if value[1] is None else value[1]
        if not self._set_plain(key, new, comment):
            super().__setitem__(key, value)

    def _set_plain(self, key: Any, value: Any, comment: Any) -> bool:
        """Set a plain keyword without making cards; return whether that could be done."""
        if not (self._is_quick(key) and _is_simple(value) and (comment is None or _is_text(comment))):
            return False
        old = self._values.get(key)
        if type(old) is not type(value) or old != value:
            # Otherwise the old one stays, as in astropy: 0.0 does not replace -0.0.
            self._values[key] = value
        if comment is not None or key not in self._comments:
            self._comments[key] = comment or ""
        self._changes.append((key, value, comment))
        self._revision = object()
        return True

    def remove(self, keyword: str, ignore_missing: bool = False, remove_all: bool = False) -> None:
        """Remove the first card of a keyword, or all; see astropy's method of this name."""
        if self._text is None or not self._is_quick(keyword) or self._text.count(f"{keyword:8}= ") > 1:
            super().remove(keyword, ignore_missing, remove_all)
        elif keyword in self._values:
            del self._values[keyword], self._comments[keyword]
            self._changes.append((keyword, _REMOVED, None))
            self._revision = object()
        elif not ignore_missing:
            raise KeyError(f"Keyword {keyword!r} not found.")


@lru_cache(maxsize=4096)
def _is_plain(keyword: str) -> bool:
    """Return whether a keyword has one spelling, stands for one card, and can have a value."""
    return _PLAIN_KEYWORD.fullmatch(keyword) is not None


def _is_simple(value: object) -> bool:
    """Return whether astropy keeps a value as it is and makes one plain card of it."""
    kind = type(value)
    if kind is str:
        return _is_text(value) and ": " not in str(value)
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    return kind is int or kind is bool


def _is_text(value: object) -> bool:
    """Return whether a value is text that FITS allows, without blanks at the end, which astropy ignores."""
    return type(value) is str and value.isascii() and value.isprintable() and value[-1:] != " "


def _insert(cards: list[fits.Card], card: fits.Card) -> None:
    """Insert a new card behind the last one that is not commentary."""
    index = len(cards)
    while index and cards[index - 1].keyword in _COMMENTARY:
        index -= 1
    cards.insert(index, card)


def _parse(text: str) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Return values and comments of the first card of each keyword; None if astropy has to read the text."""
    if len(text) % 80:
        return None
    values: dict[str, Any] = {}
    comments: dict[str, str] = {}
    for start in range(0, len(text), 80):
        keyword = text[start : start + 8].rstrip()
        if keyword in _COMMENTARY and not text[start : start + 80].isspace():
            continue  # astropy replaces blank cards by new ones
        if not _is_plain(keyword) or text[start + 8 : start + 10] != "= ":
            return None
        field = _STANDARD_FIELD.fullmatch(text, start + 10, start + 80)
        found = _read_card(text[start : start + 80]) if field is None else (_value(field[1]), field[2])
        if found is None:
            return None
        if keyword not in values:
            values[keyword], comments[keyword] = found[0], (found[1] or "").strip()
    return values, comments


def _value(token: str) -> Any:
    if token[0] == "'":
        return token[1:-1].rstrip()
    if token in ("T", "F"):
        return token == "T"
    return float(token) if "." in token else int(token)


def _mended(text: str) -> tuple[str, dict[str, str]]:
    """Make cards that astropy cannot read into cards without value; return the text and what they said."""
    unreadable: dict[str, str] = {}
    cards = [text[start : start + 80] for start in range(0, len(text), 80)]
    for number, image in enumerate(cards):
        keyword = image[:8].rstrip()
        if (
            keyword not in _COMMENTARY
            and image[8:10] == "= "
            and not _is_readable(fits.Card.fromstring(image))
        ):
            unreadable[keyword] = image[10:].strip()
            cards[number] = f"{keyword:8}=  / was: {unreadable[keyword]}"[:80].ljust(80)
    return "".join(cards), unreadable


def _is_readable(card: fits.Card) -> bool:
    try:
        return card.value is None or card.comment is not None
    except (VerifyError, ValueError):
        return False


def readable_copy(header: fits.Header) -> WatchedHeader:
    """Return a copy of a header whose unreadable cards, such as a bare NaN, have no value."""
    twin, unreadable = WatchedHeader(header, copy=True), {}
    for number, card in enumerate(header.cards):
        if _is_readable(card):
            if isinstance(card.value, str) and not card.value.isprintable():
                # Only what astropy read from a file can hold that; it would refuse to write it.
                del twin[number]
                twin.insert(number, fits.Card(card.keyword, _shown(card.value), _shown(card.comment)))
        else:
            # To ask the card what it says would have astropy mend it, with a warning.
            unreadable[card.keyword] = "unreadable"
            del twin[number]
            twin.insert(number, fits.Card(card.keyword, None, "was unreadable"))
    twin.unreadable = unreadable
    return twin


def _shown(text: str) -> str:
    """Put question marks for what is not printable ASCII, as for headers that are read here."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def _read_card(image: str) -> tuple[Any, str] | None:
    """Let astropy read value and comment of a card; None if it cannot, or if the card is record-valued."""
    card = fits.Card.fromstring(image)
    try:
        value, comment = card.value, card.comment
    except (VerifyError, ValueError):
        return None
    if card.field_specifier is not None:
        return None
    return (None if isinstance(value, fits.card.Undefined) else value), comment


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
    try:
        value = header.get(key)
    except (VerifyError, ValueError):
        return default
    return default if value is None else value


def drop_structure(header: WatchedHeader) -> None:
    """Remove the cards that describe the layout of an HDU, in place."""
    for key in header.keywords():
        if is_structural(key):
            header.remove(key, remove_all=True)


@lru_cache(maxsize=4096)
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
    if isinstance(source, str | bytes):
        raise DataError(
            "a text is not a FITS header",
            found=repr(source),
            expected="an HDU, a header, a dict, or a list of cards",
            remedy="Use astrodata.open() for a file.",
        )
    try:
        if isinstance(source, fits.Header):
            return WatchedHeader(source, copy=True)
        items: Iterable[Any] = source.items() if hasattr(source, "items") else (source or ())
        return WatchedHeader(items)
    except (TypeError, ValueError, VerifyError) as error:
        raise DataError(
            "these cards do not make a FITS header",
            found=str(error),
            expected="an HDU, a header, a dict, or a list of cards",
        ) from error
