"""Cards of FITS headers: made, copied and changed without going through their text.

astropy looks up its configuration, matches patterns and compares with what was there at every access to
a card. That is right for a few cards and slow for the thousands of a night. The functions of this module
bring plain cards straight into the state in which astropy would leave them, and refuse all others. To do so
they write the attributes in which astropy keeps that state; `KNOWN` says whether the installed version has
them. Where it has not, everything goes through astropy's own methods.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from astropy.io.fits import Card, Header

__all__ = [
    "CARD_LISTS",
    "COMMENTARY",
    "KNOWN",
    "UNUSUAL",
    "append_card",
    "change_card",
    "copy_cards",
    "index_cards",
    "is_plain",
    "is_simple",
    "is_text",
    "keywords_of",
    "read_cards",
    "set_card",
    "split_cards",
    "standard_value",
]

CARD_LISTS = ("_cards", "_keyword_indices", "_rvkc_indices")
"""Attributes of a header that hold its cards, where each keyword is, and where each record is."""

_EMPTY_CARD = vars(Card())
_UNREAD_CARD = {**_EMPTY_CARD, "_verified": False}
_CARD_ATTRIBUTES = frozenset(
    {
        "_keyword", "_value", "_comment", "_valuestring", "_image", "_verified", "_hierarch", "_invalid",
        "_field_specifier", "_rawkeyword", "_rawvalue", "_modified", "_valuemodified",
    }
)  # fmt: skip

KNOWN = vars(Header()).keys() == {*CARD_LISTS, "_modified"} and vars(Card()).keys() == _CARD_ATTRIBUTES
"""Whether headers and cards of the installed astropy keep their state as this module knows it."""

UNUSUAL = object()
"""Stands for a value or a card that needs astropy's own way."""

COMMENTARY = ("", "COMMENT", "HISTORY", "END")
"""Keywords of cards that have text and no value."""

_PLAIN_KEYWORD = re.compile(r"(?!(?:COMMENT|HISTORY|END|CONTINUE|HIERARCH)$)[A-Z0-9_-]{1,8}")
_STANDARD_CARD = re.compile(
    r" *(?:(?P<text>'(?:[^':]|:(?! ))*')|(?P<flag>[TF])|(?P<whole>[+-]?[1-9]\d{0,14}|0)"
    r"|(?P<real>[+-]?\d+\.\d*(?:E[+-]?\d+)?)) *(?:/.*)?"
)
"""A value in a form that needs no thought. Text with a colon and a space may be a record of its own."""
_MAY_BE_RECORD = re.compile(r" *'[\w.]+: ")


@lru_cache(maxsize=4096)
def is_plain(keyword: str) -> bool:
    """Return whether a keyword has one spelling, stands for one card, and can have a value."""
    return _PLAIN_KEYWORD.fullmatch(keyword) is not None


def is_simple(value: object) -> bool:
    """Return whether a value is of a plain type and stays as it is in a card."""
    kind = type(value)
    if kind is str:
        text = str(value)
        return is_text(text) and text[-1:] != " " and ": " not in text
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    return kind is int or kind is bool


def is_text(value: object) -> bool:
    """Return whether a value is text of the characters that FITS allows."""
    return type(value) is str and value.isascii() and value.isprintable()


def standard_value(text: str) -> Any:
    """Return the value that a card states in the usual form, or `UNUSUAL`.

    Parameters
    ----------
    text : str
        The card behind its equals sign.

    Notes
    -----
    Raw headers have 150 cards, and what they say is asked for in every step; astropy's general way takes
    ten times as long. Anything that is not in the fixed forms of the standard is left to it.
    """
    match = _STANDARD_CARD.fullmatch(text)
    if match is None:
        return UNUSUAL
    kind, found = str(match.lastgroup), match[str(match.lastgroup)]
    if kind == "text":
        return found[1:-1].rstrip()
    return found == "T" if kind == "flag" else int(found) if kind == "whole" else float(found)


def split_cards(text: str) -> tuple[tuple[str, ...], dict[str, str]] | None:
    """Split the text of a header into cards, provided that each is a plain or a commentary card.

    Parameters
    ----------
    text : str
        The cards, 80 printable characters each.

    Returns
    -------
    tuple or None
        The cards, and for each plain keyword what stands behind the equals sign of its first card; None if
        there is any card (or the end of the header) that only astropy should interpret.
    """
    images = tuple(text[start : start + 80] for start in range(0, len(text), 80))
    stated: dict[str, str] = {}
    for image in images:
        keyword = _keyword(image[:10])
        if keyword is None or len(image) != 80 or (": " in image and _MAY_BE_RECORD.match(image, 10)):
            return None
        if keyword not in stated and keyword not in COMMENTARY:
            stated[keyword] = image[10:]
    return images, stated


def keywords_of(images: Iterable[str]) -> frozenset[str]:
    """Return the keywords in a text that `split_cards` accepted."""
    return frozenset(str(_keyword(image[:10])) for image in images)


@lru_cache(maxsize=4096)
def _keyword(start: str) -> str | None:
    """Return the keyword in the first ten characters of a plain or commentary card, None for any other."""
    keyword = start[:8].rstrip()
    if keyword in ("", "COMMENT", "HISTORY") or (is_plain(keyword) and start[8:] == "= "):
        return keyword
    return None


def read_cards(images: Iterable[str]) -> list[Card]:
    """Return the cards, not yet interpreted, of a text that `split_cards` accepted."""
    cards = []
    for image in images:
        card = _card(_UNREAD_CARD)
        state = card.__dict__
        state["_image"], state["_keyword"] = image, _keyword(image[:10])
        cards.append(card)
    return cards


def copy_cards(cards: Iterable[Card]) -> list[Card]:
    """Return independent copies of cards."""
    # All that a card knows are values that never change; this is what copy.copy does at length.
    return [_card(card.__dict__) for card in cards]


def _card(state: dict[str, Any]) -> Card:
    """Return a new card in the state of another one."""
    card = Card.__new__(Card)
    card.__dict__ = state.copy()
    return card


def index_cards(cards: Sequence[Card]) -> dict[str, Any]:
    """Return the attributes, named in `CARD_LISTS`, of a header with these cards."""
    keywords: defaultdict[str, list[int]] = defaultdict(list)
    records: defaultdict[str, list[int]] = defaultdict(list)
    for position, card in enumerate(cards):
        keyword = card.keyword
        if is_plain(keyword):
            keywords[keyword].append(position)
        else:
            keywords[Card.normalize_keyword(keyword)].append(position)
            if card.field_specifier is not None:
                records[card.rawkeyword].append(position)
    return dict(zip(CARD_LISTS, (cards, keywords, records), strict=True))


def set_card(header: Header | SimpleNamespace, keyword: str, value: Any, comment: str | None) -> Any:
    """Set a plain keyword: change its first card, or append one.

    Parameters
    ----------
    header : astropy.io.fits.Header, or an object with the attributes in `CARD_LISTS`
        It is changed in place.
    keyword, value, comment
        As for `change_card` and `append_card`.

    Returns
    -------
    object
        The value that the card now has; `UNUSUAL` if astropy's own way is needed, with nothing changed.
    """
    places = header._keyword_indices.get(keyword)
    if places:
        return change_card(header._cards[places[0]], value, comment)
    if keyword in header._rvkc_indices or not append_card(header, keyword, value, comment):
        return UNUSUAL
    return value


def change_card(card: Card, value: Any, comment: str | None) -> Any:
    """Set value and comment of a plain card.

    Parameters
    ----------
    card : astropy.io.fits.Card
        The card, to which a plain keyword leads; it is changed in place.
    value : bool, int, float or str
        A simple value.
    comment : str or None
        Allowed text, or None to keep the comment.

    Returns
    -------
    object
        The value that the card now has: as in astropy, an equal one stays as it is. `UNUSUAL` if the card
        needs astropy's own way; nothing was changed then.
    """
    state = vars(card)
    old = state["_value"]
    if state["_invalid"]:
        return UNUSUAL
    if old is None:
        image = state["_image"]
        if image is None or len(image) != 80 or image[8:10] != "= ":
            return UNUSUAL
        old = standard_value(image[10:])
    if old is UNUSUAL or (isinstance(old, str) and old[-1:] == " "):
        return UNUSUAL
    if isinstance(old, bool) or isinstance(value, bool):
        differs = old is not value
    else:
        differs = old != value or not isinstance(value, type(old))
    if differs:
        state.update(_value=value, _rawvalue=None, _modified=True, _valuestring=None, _valuemodified=True)
    if comment is not None and comment != state["_comment"]:
        card.comment = comment
    return value if differs else old


def append_card(header: Header | SimpleNamespace, keyword: str, value: Any, comment: str | None) -> bool:
    """Append a plain card behind the last one that is no commentary, as astropy does.

    Parameters
    ----------
    header : astropy.io.fits.Header, or an object with the attributes in `CARD_LISTS`
        The header, without a card of this keyword.
    keyword : str
        A plain keyword.
    value : bool, int, float or str
        A simple value.
    comment : str or None
        Allowed text.

    Returns
    -------
    bool
        False if blank cards at the end, which a new one may replace, need astropy's own way.
    """
    cards, indices = header._cards, header._keyword_indices
    position = len(cards)
    if cards and not cards[-1].keyword:
        return False
    while position and cards[position - 1].keyword in COMMENTARY:
        position -= 1
    for name in COMMENTARY if position < len(cards) else ():
        if name in indices:
            indices[name] = [index + (index >= position) for index in indices[name]]
    card = _card(_EMPTY_CARD)
    vars(card).update(_keyword=keyword, _value=value, _comment=comment)
    cards.insert(position, card)
    indices[keyword].append(position)
    return True
