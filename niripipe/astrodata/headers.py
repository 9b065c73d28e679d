"""Headers: one that knows when it changed, and several that are handled as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache, wraps
from types import SimpleNamespace
from typing import Any, Self

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from niripipe.astrodata import header_cards
from niripipe.astrodata.header_cards import is_plain
from niripipe.errors import DataError

__all__ = ["HeaderManager", "WatchedHeader", "header_value"]

# Cards that describe how one HDU is laid out in a file; they follow the data, never a copy of the header.
_STRUCTURAL = frozenset(
    {
        "SIMPLE", "XTENSION", "BITPIX", "NAXIS", "EXTEND", "PCOUNT", "GCOUNT", "GROUPS", "TFIELDS", "THEAP",
        "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM",
    }
)  # fmt: skip
_STRUCTURAL_STEMS = ("NAXIS", "TTYPE", "TFORM", "TDIM", "TNULL", "TSCAL", "TZERO", "TDISP", "TBCOL")


class WatchedHeader(fits.Header):  # type: ignore[misc]  # astropy carries no types
    """A FITS header that knows when it changed, so that what was derived from it can be kept until then.

    Parameters
    ----------
    cards : iterable or astropy.io.fits.Header, optional
        What astropy's header accepts.
    copy : bool, optional
        Whether to copy the cards of a header.

    Notes
    -----
    It does what astropy's header does, and is quick where a reduction spends its time: its cards are made
    when something other than the values of plain keywords is asked for, copies are made card by card
    without reading them again, and setting a plain keyword to a plain value touches one card.
    """

    _exposed = False
    _revision: object
    # What was asked for before, and what the cards state that were not changed since they were read.
    _values: dict[str, Any]
    _as_read: dict[str, str]
    # The text of the cards; only in headers that were read, and of use until their cards are made, in which
    # then is set what was set since: value and comment by keyword.
    _images: tuple[str, ...]
    _set_since: dict[str, tuple[Any, Any]]
    # The keywords of all cards, once somebody has asked.
    _keywords: frozenset[str] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Start a header that knows nothing yet, also one that is unpickled."""
        header: Self = super().__new__(cls)
        header._revision = object()
        header._values, header._as_read, header._set_since = {}, {}, {}
        return header

    def __init__(self, cards: Any = (), copy: bool = False) -> None:
        if copy and header_cards.KNOWN and (isinstance(cards, WatchedHeader) or type(cards) is fits.Header):
            self._take(cards)
        else:
            super().__init__(cards, copy)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the header that the text of its cards, 80 printable characters each, makes."""
        found = header_cards.split_cards(text) if header_cards.KNOWN else None
        if found is None:
            return cls.fromstring(text)  # type: ignore[no-any-return]
        header = cls.__new__(cls)
        header._images, header._as_read = found
        header._modified = False
        return header

    def __getattr__(self, name: str) -> Any:
        # Only what is missing comes here: the lists of cards, when first wanted in a header that was read.
        if name in header_cards.CARD_LISTS and self._make_cards():
            return self.__dict__[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _make_cards(self) -> bool:
        mine = self.__dict__
        if "_images" not in mine:
            return False
        if "_rvkc_indices" not in mine:
            made = SimpleNamespace(**header_cards.index_cards(header_cards.read_cards(self._images)))
            for key, (value, comment) in self._set_since.items():
                header_cards.set_card(made, key, value, comment)
            for name in header_cards.CARD_LISTS:
                # Of two threads that read at the same time, both use what was there first.
                mine.setdefault(name, getattr(made, name))
        return True

    @property
    def _unread(self) -> bool:
        """Whether there is only the text of the cards yet."""
        return "_images" in self.__dict__ and "_cards" not in self.__dict__

    def copy(self, strip: bool = False) -> Self:
        """Return an independent copy.

        Parameters
        ----------
        strip : bool, optional
            Whether to leave out the cards that describe the layout of an HDU, as astropy does.
        """
        if not header_cards.KNOWN:
            return super().copy(strip)  # type: ignore[no-any-return]
        twin = type(self)(self, copy=True)
        if strip:
            twin.strip()
        return twin

    def _take(self, source: fits.Header) -> None:
        """Fill this new header with copies of the cards of another one."""
        if isinstance(source, WatchedHeader) and not source._exposed:
            self._values, self._as_read = source._values.copy(), source._as_read.copy()
            self._keywords = source._keywords
        if isinstance(source, WatchedHeader) and "_cards" not in vars(source):
            self._images, self._set_since = source._images, source._set_since.copy()
        else:
            self.__dict__.update(header_cards.index_cards(header_cards.copy_cards(source._cards)))
        self._modified = False

    def keywords(self) -> frozenset[str]:
        """Return the keywords of all cards: the same object until there are others."""
        if self._exposed:
            return frozenset(self.keys())
        if self._keywords is None and self._unread:
            self._keywords = header_cards.keywords_of(self._images).union(self._set_since)
        elif self._keywords is None:
            self._keywords = frozenset(self.keys())
        return self._keywords

    @property
    def cards(self) -> Any:
        """The cards. Handing them out means that a change may come unseen."""
        self._make_cards()
        self._exposed = True
        return super().cards

    @property
    def state(self) -> object:
        """A value that differs after any change of content, and from that of any other header.

        While only the header's own methods are used it is an object that each change makes anew; once
        somebody holds the cards themselves, the text of the header goes with it.
        """
        if self._exposed:
            # Of a copy: cards that are not quite standard are put right when their text is asked for.
            return self._revision, self.copy().tostring()
        return self._revision

    def value(self, key: str) -> Any:
        """Return the usable value of a keyword, or None; parsed once as long as nobody changes it."""
        if self._exposed or not is_plain(key):
            return self._usable(key)
        values = self._values
        if key not in values:
            text = self._as_read.get(key)
            value = header_cards.UNUSUAL if text is None else header_cards.standard_value(text)
            values[key] = self._usable(key) if value is header_cards.UNUSUAL else value
        return values[key]

    def _usable(self, key: str) -> Any:
        if key not in self:
            return None
        try:
            value = super().__getitem__(key)
        except (VerifyError, ValueError):
            return None
        return None if isinstance(value, fits.card.Undefined) else value

    def __contains__(self, key: object) -> bool:
        if type(key) is str and is_plain(key):
            if self._unread:
                return key in self._as_read or key in self._set_since
            if header_cards.KNOWN:
                return key in self._keyword_indices or key in self._rvkc_indices
        return bool(super().__contains__(key))

    def __getitem__(self, key: Any) -> Any:
        if type(key) is str and not self._exposed and is_plain(key):
            value = self.value(key)
            if value is not None:
                return value
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a value, or the default if there is no such card."""
        if type(key) is str and is_plain(key) and key not in self:
            return default
        return super().get(key, default)

    def set(
        self,
        keyword: str,
        value: Any = None,
        comment: str | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Set value, comment and place of a card; see astropy's method of this name."""
        self._revision = object()
        in_place = before is None and after is None
        if not (in_place and self._set_plain(keyword, value, comment, _or_blank(comment))):
            self._forget(keyword)
            super().set(keyword, value, comment, before, after)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._revision = object()
        if type(value) is tuple and len(value) == 2:
            done = self._set_plain(key, value[0], _or_blank(value[1]), _or_blank(value[1]))
        else:
            done = self._set_plain(key, value, None, None)
        if not done:
            self._forget(key)
            super().__setitem__(key, value)

    def _set_plain(self, key: Any, value: Any, comment: Any, first_comment: Any) -> bool:
        """Set a plain keyword to a simple value the short way; return whether that could be done.

        The comments are those for a card that is there, None to keep what it has, and for a new one.
        """
        if not (
            header_cards.KNOWN
            and type(key) is str
            and is_plain(key)
            and header_cards.is_simple(value)
            and (first_comment is None or header_cards.is_text(first_comment))
        ):
            return False
        waits = self._unread and (key not in self._set_since or key not in self._as_read)
        place: Any = self._alone(key) if waits else self
        is_new = key not in place._keyword_indices
        comment = first_comment if is_new else comment
        value = header_cards.set_card(place, key, value, comment)
        if value is header_cards.UNUSUAL:
            return False
        if waits:
            if comment is None and key in self._set_since:
                comment = self._set_since[key][1]
            self._set_since[key] = value, comment
        self._values[key] = value
        if is_new and self._keywords is not None:
            self._keywords |= {key}
        self._modified = True
        return True

    def _alone(self, key: str) -> SimpleNamespace:
        """Return what stands for this unread header where one keyword is set: its card, or the last one."""
        images = self._images[-1:]
        if key in self._as_read:
            images = tuple(image for image in self._images if image.startswith(f"{key:8}= "))[:1]
        place = SimpleNamespace(**header_cards.index_cards(header_cards.read_cards(images)))
        if key in self._set_since:
            header_cards.set_card(place, key, *self._set_since[key])
        return place

    def _drop(self, keys: Collection[str]) -> None:
        """Remove all cards of these keywords, spelt as astropy normalizes them."""
        self._revision = object()
        gone = {position for key in keys for position in self._keyword_indices.get(key, ())}
        kept = [card for position, card in enumerate(self._cards) if position not in gone]
        self.__dict__.update(header_cards.index_cards(kept))
        for key in keys:
            self._forget(key)
        self._modified = True

    def _forget(self, what: object) -> None:
        """Forget the values that a change of a card, named by itself or its keyword, may concern."""
        # Without cards, what was read is all there is to know about the header.
        self._make_cards()
        self._keywords = None
        key = what[0] if isinstance(what, tuple) and what else getattr(what, "keyword", what)
        for known in (self._values, self._as_read):
            if isinstance(key, str) and is_plain(key.upper()):
                known.pop(key.upper(), None)
            else:
                known.clear()


def _or_blank(comment: Any) -> Any:
    return "" if comment is None else comment


def _noticed(name: str) -> Callable[..., Any]:
    original = getattr(fits.Header, name)
    names_card, takes_card = name in _NAMING_ONE_CARD, name in ("append", "insert")

    @wraps(original)
    def method(self: WatchedHeader, *args: Any, **kwargs: Any) -> Any:
        self._revision = object()
        self._forget(args[0] if names_card and args else None)
        if takes_card and any(_may_be_held(given) for given in (*args, *kwargs.values())):
            self._exposed = True
        return original(self, *args, **kwargs)

    return method


def _may_be_held(given: object) -> bool:
    """Return whether this is a card that somebody else may change."""
    # Those of commentary, which astropy makes itself, have no value that could be kept.
    return isinstance(given, fits.Card) and given.keyword not in header_cards.COMMENTARY


# All other public ways of changing a header; those built upon others count twice, which does no harm.
_NAMING_ONE_CARD = frozenset({"__delitem__", "append", "remove", "pop", "setdefault"})
for _name in (
    *_NAMING_ONE_CARD, "__iadd__", "extend", "insert", "update", "popitem", "clear", "strip",
    "rename_keyword", "add_history", "add_comment", "add_blank",
):  # fmt: skip
    setattr(WatchedHeader, _name, _noticed(_name))


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


def drop_structure(header: Any) -> None:
    """Remove the cards that describe the layout of an HDU, in place."""
    keys = {key for key in header if is_structural(key)}
    if header_cards.KNOWN and isinstance(header, WatchedHeader):
        header._drop(keys)
    else:
        for key in keys:
            header.remove(key, ignore_missing=True, remove_all=True)


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
