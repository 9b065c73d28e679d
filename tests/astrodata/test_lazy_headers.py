"""Headers that make their cards only when needed do what those of astropy do, whatever is done in between."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from niripipe.astrodata import headers
from niripipe.astrodata.headers import WatchedHeader, drop_structure, header_value, is_structural

pytestmark = pytest.mark.filterwarnings("ignore")

TEXT = [
    "SIMPLE  =                    T / standard",
    "NAXIS   =                    2",
    "NAXIS1  =                 1024 / pixels",
    "A       =                    1 / whole",
    "A       =                    2 / again",
    "B       =                 1.50 / real, one digit too many",
    "ZERO    =                 -0.0",
    "NAME    = 'text    '           / trailing blanks",
    "LONGNAME= 'a text with more than eight characters   ' / and blanks",
    "QUOTED  = 'it''s / not'        / slash inside",
    "FLAG    =                    T",
    "NOTHING =                      / undefined",
    "OLD     =             +1.5D+03 / unusual",
    "",
    "COMMENT words",
    "HISTORY = 'not a value'",
    "        text without a keyword",
]
ODD = [
    "DP1     = 'AXIS.1: 2'          / a record",
    "DP1     = 'AXIS.2: 3.5'        / another",
    "HIERARCH LONG NAME = 5 / long",
    "HIERARCH lower name = 'x'",
    "small   =                    3 / lower case",
    "B=7",
    "not a card at all, but a sentence",
    "END",
]
LONG = ["LONG    = 'start&'", "CONTINUE  'middle&'", "CONTINUE  '' / with a comment"]

KEYS: list[Any] = [
    *["A", "B", "ZERO", "NAME", "LONGNAME", "FLAG", "NOTHING", "OLD", "NEW", "NAXIS1", "LONG", "DP1"] * 2,
    "a", " A", "DP1.AXIS.1", "LONG NAME", "HIERARCH LONG NAME", "HIERARCH", "SMALL", "A*", "1",
    "COMMENT", "HISTORY", "", "END", "CONTINUE", "TOOLONGKEY", "\u00c4", 0, -1, 99, ("A", 1), 1.5,
]  # fmt: skip
VALUES: list[Any] = [
    *[0, 1, 2, -0.0, 0.0, 1.0, 1.5, 1e-300, 0.1 + 0.2, True, False, "text", "x", "", "a" * 60, "12:30"] * 2,
    10**25, "a" * 100, "AXIS.1: 2", "note: text", "more than eight  ", "more than eight", "it's", "\u00e4",
    "two\nlines", float("nan"), float("inf"), None,
    1j, np.float64(1.5), np.float32(1.5), np.int16(2), np.bool_(True), np.str_("x"), [1],
]  # fmt: skip
COMMENTS = [None, "", "whole", "a comment", "blanks  ", "c" * 60, "\u00e4", 0]

Change = Callable[[fits.Header, Any, Any, Any, Any], Any]
CHANGES: dict[str, Change] = {
    "set": lambda h, k, v, c, o: h.set(k, v),
    "set_comment": lambda h, k, v, c, o: h.set(k, v, c),
    "set_before": lambda h, k, v, c, o: h.set(k, v, c, before=o),
    "set_after": lambda h, k, v, c, o: h.set(k, v, c, after=o),
    "item": lambda h, k, v, c, o: h.__setitem__(k, v),
    "item_tuple": lambda h, k, v, c, o: h.__setitem__(k, (v, c)),
    "item_alone": lambda h, k, v, c, o: h.__setitem__(k, (v,)),
    "item_slice": lambda h, k, v, c, o: h.__setitem__(slice(3, 5), v),
    "comments": lambda h, k, v, c, o: h.comments.__setitem__(k, c),
    "delete": lambda h, k, v, c, o: h.__delitem__(k),
    "delete_slice": lambda h, k, v, c, o: h.__delitem__(slice(1, 3)),
    "remove": lambda h, k, v, c, o: h.remove(k, ignore_missing=True),
    "remove_all": lambda h, k, v, c, o: h.remove(k, remove_all=True),
    "pop": lambda h, k, v, c, o: h.pop(k, None),
    "pop_last": lambda h, k, v, c, o: h.pop(),
    "default": lambda h, k, v, c, o: h.setdefault(k, v),
    "append": lambda h, k, v, c, o: h.append((k, v, c)),
    "append_key": lambda h, k, v, c, o: h.append(k),
    "append_blank": lambda h, k, v, c, o: h.append(),
    "append_end": lambda h, k, v, c, o: h.append((k, v), end=True),
    "append_bottom": lambda h, k, v, c, o: h.append((k, v), bottom=True, useblanks=False),
    "append_card": lambda h, k, v, c, o: _change_later(h, h.append, fits.Card(k, v), o),
    "insert": lambda h, k, v, c, o: h.insert(2, (k, v, c)),
    "insert_card": lambda h, k, v, c, o: _change_later(h, partial(h.insert, 1), fits.Card(k, v), o),
    "extend": lambda h, k, v, c, o: h.extend([(k, v), ("NEW", 5)], update=True),
    "extend_header": lambda h, k, v, c, o: h.extend(fits.Header([(k, v)]), unique=True),
    "extend_unstripped": lambda h, k, v, c, o: h.extend([(k, v), (k, 1)], strip=False),
    "update": lambda h, k, v, c, o: h.update({k: (v, c)}),
    "add": lambda h, k, v, c, o: h.__iadd__([(k, v)]),
    "rename": lambda h, k, v, c, o: h.rename_keyword(k, o, force=v == 1),
    "history": lambda h, k, v, c, o: h.add_history(v),
    "comment": lambda h, k, v, c, o: h.add_comment(str(v) * 3, before=k),
    "blank": lambda h, k, v, c, o: h.add_blank(),
    "clear": lambda h, k, v, c, o: h.clear(),
    "strip": lambda h, k, v, c, o: h.strip(),
    "drop": lambda h, k, v, c, o: _drop_structure(h),
    "cards": lambda h, k, v, c, o: setattr(h.cards[k], "value", v),
    "cards_later": lambda h, k, v, c, o: _change_later(h, repr, h.cards[k], o),
}  # fmt: skip
LOOKS: dict[str, Change] = {
    "getitem": lambda h, k, v, c, o: h[k],
    "get": lambda h, k, v, c, o: h.get(k, v),
    "contains": lambda h, k, v, c, o: k in h,
    "comment_of": lambda h, k, v, c, o: h.comments[k],
    "slice": lambda h, k, v, c, o: h[1:4],
    "count": lambda h, k, v, c, o: h.count(k),
    "index": lambda h, k, v, c, o: h.index(k),
    "len": lambda h, k, v, c, o: len(h),
    "keys": lambda h, k, v, c, o: list(h.keys()),
    "items": lambda h, k, v, c, o: [repr(item) for item in h.items()],
    "values": lambda h, k, v, c, o: [repr(value) for value in h.values()],
    "text": lambda h, k, v, c, o: h.tostring(),
    "equal": lambda h, k, v, c, o: h == h.copy(),
    "sum": lambda h, k, v, c, o: h + fits.Header([(k, v)]),
    "accessor": lambda h, k, v, c, o: type(h.cards),
    "fresh": lambda h, k, v, c, o: type(h)(h, copy=True),
    "unstructured": lambda h, k, v, c, o: _without_structure(h),
}


def _drop_structure(header: fits.Header) -> None:
    if isinstance(header, WatchedHeader):
        drop_structure(header)
        return
    for key in {key for key in header if is_structural(key)}:
        header.remove(key, remove_all=True)


def _without_structure(header: fits.Header) -> fits.Header:
    twin = type(header)(header, copy=True)
    _drop_structure(twin)
    return twin


_COMMENTARY = ("", "COMMENT", "HISTORY", "END", "CONTINUE", "HIERARCH")
REPLACEMENTS: dict[str, Callable[[fits.Header], fits.Header]] = {
    "copy": lambda h: h.copy(),
    "copy_strip": lambda h: h.copy(strip=True),
    "init": lambda h: type(h)(h, copy=True),
    "pickle": lambda h: pickle.loads(pickle.dumps(h)),  # noqa: S301
}


def _change_later(header: fits.Header, take: Callable[[fits.Card], Any], card: fits.Card, value: Any) -> None:
    take(card)
    header.get(card.keyword)
    card.value = value


def _as_text(cards: list[str]) -> str:
    return "".join(card.ljust(80) for card in cards)


def _outcome(what: Callable[[], Any]) -> object:
    """Return something comparable that tells all of a result or of an error."""
    try:
        result = what()
        if type(result).__name__ == "_HeaderCommentaryCards":
            result = list(result)
    except Exception as error:
        return type(error)
    if isinstance(result, fits.Header):
        return _outcome(result.tostring)
    return type(result), re.sub(" at 0x[0-9a-f]+", "", repr(result))


def _told(header: fits.Header) -> list[object]:
    """Return all that a header says. A copy is asked for what fills a header."""
    twin = header.copy()
    told = []
    for key in dict.fromkeys(KEYS):
        plain = isinstance(key, str) and re.fullmatch("[A-Z0-9]{1,8}", key) and key not in _COMMENTARY
        for asked in (header, twin) if plain else (twin,):
            told += [_outcome(partial(asked.get, key, "none")), _outcome(partial(asked.__contains__, key))]
    told += [
        _outcome(partial(header_value, header, key)) for key in ("A", "B", "NAME", "NEW", "NOTHING", "DP1")
    ]
    return [
        *told,
        _outcome(twin.tostring),
        _outcome(lambda: list(twin.comments)),
        [(key, twin.count(key)) for key in twin],
    ]


def _keywords(header: fits.Header) -> list[str]:
    return [key for key in dict.fromkeys(header) if key not in ("", "COMMENT", "HISTORY")]


def _state(header: fits.Header) -> object:
    try:
        return header.state
    except (TypeError, ValueError):
        # A record can be given a value that cannot be written.
        return None


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(sorted({**CHANGES, **LOOKS, **REPLACEMENTS}) + ["set", "set_comment", "item"] * 6),
        st.sampled_from(KEYS),
        st.sampled_from(VALUES),
        st.sampled_from(COMMENTS),
        st.sampled_from(KEYS),
    ),
    max_size=8,
)
_START = st.tuples(
    st.lists(st.sampled_from(TEXT), max_size=8),
    st.lists(st.sampled_from([[card] for card in ODD] + [LONG]), max_size=1),
    st.integers(0, 2),
).map(lambda parts: [*parts[0], *(card for cards in parts[1] for card in cards), *[""] * parts[2]])


@settings(max_examples=400, deadline=None)
@given(start=_START, steps=_STEPS)
@example(start=TEXT, steps=[("set", "A", 1.0, None, 0), ("set", "ZERO", 0.0, None, 0)])
@example(
    start=TEXT,
    steps=[("set", "NEW", "more than eight  ", "", 0), ("set", "NEW", "more than eight", None, 0)],
)
@example(
    start=TEXT,
    steps=[("cards_later", "A", 0, None, 99), ("copy", 0, 0, None, 0), ("len", 0, 0, None, 0)],
)
@example(
    start=TEXT,
    steps=[("append_card", "NEW", 1, None, 99), ("copy", 0, 0, None, 0), ("len", 0, 0, None, 0)],
)
@example(start=TEXT, steps=[("accessor", 0, 0, None, 0)])
@example(start=[*TEXT[:1], ""], steps=[("pickle", "A", 0, None, "A"), ("accessor", "A", 0, None, "A")])
def test_a_header_does_what_that_of_astropy_does(start: list[str], steps: list[Any]) -> None:
    ours: fits.Header = WatchedHeader.from_text(_as_text(start))
    theirs = fits.Header.fromstring(_as_text(start))
    left = []
    for name, key, value, comment, other_key in steps:
        if name in REPLACEMENTS:
            left.append((ours, theirs))
            ours, theirs = REPLACEMENTS[name](ours), REPLACEMENTS[name](theirs)
            continue
        step = partial(CHANGES.get(name) or LOOKS[name], k=key, v=value, c=comment, o=other_key)
        state, before = _state(ours), ours.copy()
        assert _outcome(partial(step, ours)) == _outcome(partial(step, theirs))
        assert _told(ours) == _told(theirs)
        assert ours.keywords() == _keywords(theirs)
        assert _state(ours) != state or _outcome(ours.copy().tostring) == _outcome(before.tostring)
    # What was copied before is as it was then.
    for ours, theirs in left:
        assert _told(ours) == _told(theirs)
        assert _outcome(ours.tostring) == _outcome(theirs.tostring)


_QUICK = ["set", "set_comment", "item", "item_tuple", "contains", "get", "getitem", "copy", "remove", "drop"]


@settings(max_examples=400, deadline=None)
@given(
    start=_START,
    steps=st.lists(
        st.tuples(
            st.sampled_from(_QUICK), st.sampled_from(KEYS), st.sampled_from(VALUES), st.sampled_from(COMMENTS)
        ),
        max_size=6,
    ),
)
@example(start=TEXT, steps=[("set", "NEW", 1, None), ("set", "NEW", 2, "comment"), ("set", "A", 7, None)])
@example(start=[*TEXT[:1], ""], steps=[("set", "NEW", 1, None)])
@example(start=[], steps=[("set", " A", 0, None), ("set", "A", 0, None)])
def test_changes_made_before_there_are_cards_are_those_of_astropy(start: list[str], steps: list[Any]) -> None:
    ours: fits.Header = WatchedHeader.from_text(_as_text(start))
    theirs = fits.Header.fromstring(_as_text(start))
    for name, key, value, comment in steps:
        if name == "copy":
            ours, theirs = ours.copy(), theirs.copy()
            continue
        step = partial({**CHANGES, **LOOKS}[name], k=key, v=value, c=comment, o=None)
        # Nothing else is asked, which would fill the header.
        assert _outcome(partial(step, ours)) == _outcome(partial(step, theirs))
        assert ours.keywords() == _keywords(theirs)
    for key in ours.keywords():
        assert ours.comment(key) == str(theirs.comments[key])
    assert _told(ours) == _told(theirs)
    assert _outcome(ours.tostring) == _outcome(theirs.tostring)


def test_real_headers_are_read_and_written_as_astropy_does(shared: Path) -> None:
    for path in sorted((shared / "headers").glob("*.hdr")):
        text = _as_text(path.read_text(errors="replace").splitlines())
        ours, theirs = WatchedHeader.from_text(text), fits.Header.fromstring(text)
        assert _told(ours) == _told(theirs)
        drop_structure(ours)
        _drop_structure(theirs)
        assert ours.tostring() == theirs.tostring()


def test_plain_keywords_are_read_and_changed_without_cards() -> None:
    header = WatchedHeader.from_text(_as_text(TEXT))
    with mock.patch.object(headers.fits, "Card", side_effect=AssertionError):
        twin = header.copy()
        twin.set("A", 5, "new")
        twin["ADDED"] = ("text", "comment")
        twin.remove("FLAG")
        assert (twin["A"], twin.get("ADDED"), twin.comment("A"), "FLAG" in twin) == (5, "text", "new", False)
        assert header["FLAG"] is True


def test_threads_that_need_the_cards_at_the_same_time_get_the_same_ones() -> None:
    for _ in range(20):
        header = WatchedHeader.from_text(_as_text(TEXT))
        header.set("NEW", 1)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _, header=header: header.tostring(), range(8)))
        assert len(set(texts)) == 1
