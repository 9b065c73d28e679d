from __future__ import annotations

import copy
import pickle

import pytest
from astropy.io import fits

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
