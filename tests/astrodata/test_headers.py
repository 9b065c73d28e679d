from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.astrodata.headers import HeaderManager, WatchedHeader, header_value


def _manager() -> HeaderManager:
    return HeaderManager([fits.Header([("A", 1, "first"), ("B", 2)]), fits.Header([("A", 3, "second")])])


def test_reading_gives_a_list() -> None:
    headers = _manager()
    assert headers["A"] == [1, 3]
    assert headers.get("B", 0) == [2, 0]
    assert headers.get_comment("A") == ["first", "second"]
    assert "B" in headers
    assert "C" not in headers
    assert [len(header) for header in headers] == [2, 1]


def test_a_missing_keyword_says_where() -> None:
    with pytest.raises(KeyError) as caught:
        _manager()["B"]
    assert caught.value.missing_at == [1]  # type: ignore[attr-defined]
    assert caught.value.values == [2, None]  # type: ignore[attr-defined]


def test_writing_reaches_every_header() -> None:
    headers = _manager()
    headers["A"] = (7, "both")
    headers.set("C", 8, "new")
    assert headers["A"] == [7, 7]
    assert headers.get_comment("A") == ["both", "both"]
    assert headers["C"] == [8, 8]
    headers.set_comment("C", "other")
    assert headers.get_comment("C") == ["other", "other"]
    with pytest.raises(KeyError, match=r"\[1\]"):
        headers.set_comment("B", "x")


def test_removal_needs_the_keyword_somewhere() -> None:
    headers = _manager()
    del headers["B"]
    assert "B" not in headers
    with pytest.raises(KeyError):
        headers.remove("B")


def test_an_unreadable_or_undefined_value_gives_the_default() -> None:
    header = fits.Header.fromstring("BROKEN  = 'no end".ljust(80) + "EMPTY   =".ljust(80))
    assert header_value(header, "BROKEN", "x") == "x"
    assert header_value(header, "EMPTY") is None
    assert header_value(header, "MISSING", 3) == 3


def test_a_watched_header_survives_copies_and_pickling() -> None:
    header = WatchedHeader([("A", 1), ("HISTORY", "text")])
    for twin in (copy.deepcopy(header), header.copy(), pickle.loads(pickle.dumps(header))):  # noqa: S301
        assert isinstance(twin, WatchedHeader)
        assert twin["A"] == 1
        state = twin.state
        twin["A"] = 2
        assert twin.state != state
        assert header["A"] == 1


KEYS = st.sampled_from(["A", "B", "LONGKEY1", "a", "HIERARCH LONG NAME"])
CHANGES = {
    "set": lambda header, key, other, n: header.set(key, n),
    "set_by_name": lambda header, key, other, n: header.set(keyword=key, value=n),
    "item": lambda header, key, other, n: header.__setitem__(key, (n, "comment")),
    "index": lambda header, key, other, n: header.__setitem__(0, n),
    "delete": lambda header, key, other, n: header.__delitem__(key) if key in header else None,
    "remove": lambda header, key, other, n: header.remove(key, ignore_missing=True, remove_all=True),
    "pop": lambda header, key, other, n: header.pop(key, None),
    "default": lambda header, key, other, n: header.setdefault(key, n),
    "append": lambda header, key, other, n: header.append((key, n)),
    "append_card": lambda header, key, other, n: header.append(fits.Card(key, n)),
    "insert": lambda header, key, other, n: header.insert(0, (key, n)),
    "extend": lambda header, key, other, n: header.extend([(key, n)], update=True),
    "update": lambda header, key, other, n: header.update({key: n}),
    "rename": lambda header, key, other, n: (
        header.rename_keyword(key, other, force=True)
        if key in header and other.upper() not in header
        else None
    ),
    "add": lambda header, key, other, n: header.__iadd__([(key, n)]),
    "clear": lambda header, key, other, n: (header.clear(), header.set("Z", n)),
}


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), KEYS, KEYS, st.integers(0, 99)), max_size=8))
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
def test_a_remembered_value_is_what_the_header_says_now_whatever_was_changed(changes) -> None:
    header = WatchedHeader([("Z", 0), ("A", 1), ("B", 2)])
    keys = ["Z", "A", "a", "B", "LONGKEY1", "LONG NAME", "HIERARCH LONG NAME"]
    for name, key, other, number in changes:
        CHANGES[name](header, key, other, number)
        assert [header_value(header, asked) for asked in keys] == [header.get(asked) for asked in keys]


_CARDS = [
    "A       =                    1 / whole",
    "B       =                  1.5 / real",
    "LONGKEY1= 'text    '           / trailing blanks",
    "TIME    = '01:02:03.4'         / colons",
    "QUOTED  = 'it''s / not'        / slash inside",
    "RECORD  = 'AXIS.1: 2'          / record-valued",
    "FLAG    =                    T / yes",
    "NOTHING =                      / undefined",
    "BROKEN  = 'no end",
    "LOWER   =               1.5e-3 / unusual",
    "ZEROS   =                  007 / unusual",
    "EXP     =            -1.5E-003 / exponent",
    "BARE    =                   1. / no decimals",
    "A       =                    2 / again",
    "COMMENT words",
    "HISTORY = 'not a value'",
]


def _as_text(*cards: str) -> str:
    return "".join(card.ljust(80) for card in cards)


def _compare_with_astropy(text: str) -> None:
    header, plain = WatchedHeader.from_text(text), fits.Header.fromstring(text)
    for key in {*plain, "MISSING"} - {"", "COMMENT", "HISTORY"}:
        ours, theirs = header_value(header, key), header_value(plain, key)
        assert (ours, type(ours)) == (theirs, type(theirs)), (key, ours, theirs)


@pytest.mark.parametrize(
    "cards", [_CARDS, ["LONG    = 'start&'", "CONTINUE  'end'", "A       =  3"]], ids=["forms", "long text"]
)
def test_values_read_from_the_text_of_cards_are_those_of_astropy(cards: list[str]) -> None:
    _compare_with_astropy(_as_text(*cards))


def test_values_of_real_headers_are_those_of_astropy(shared: Path) -> None:
    for path in sorted((shared / "headers").glob("*.hdr")):
        _compare_with_astropy(_as_text(*path.read_text(errors="replace").splitlines()))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), KEYS, KEYS, st.integers(0, 99)), max_size=4))
@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
def test_changes_of_a_header_that_was_read_are_seen(changes) -> None:
    header = WatchedHeader.from_text(_as_text(*_CARDS[:3]))
    keys = ["A", "B", "LONGKEY1", "LONG NAME", "Z"]
    for name, key, other, number in changes:
        CHANGES[name](header, key, other, number)
        assert [header_value(header, asked) for asked in keys] == [header.get(asked) for asked in keys]
