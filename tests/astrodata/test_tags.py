from __future__ import annotations

import pytest

from niripipe import astrodata, errors
from niripipe.astrodata import AstroData, TagSet, astro_data_descriptor, astro_data_tag, returns_list
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.tags import resolve


def test_conditional_tag_sets_are_applied_after_unconditional_ones() -> None:
    assert resolve([TagSet({"B"}, if_present={"A"}), TagSet({"A"})]) == {"A", "B"}
    assert resolve([TagSet({"B"}, if_present={"A", "C"}), TagSet({"A"})]) == {"A"}


def test_a_block_ignores_a_tag_set_entirely() -> None:
    assert resolve([TagSet({"IMAGE", "X"}), TagSet({"DARK"}, blocks={"IMAGE"})]) == {"DARK"}


def test_blocked_by_ignores_a_tag_set_when_the_tag_is_there() -> None:
    assert resolve([TagSet({"A"}), TagSet({"B"}, blocked_by={"A"})]) == {"A"}
    assert resolve([TagSet({"B"}, blocked_by={"A"})]) == {"B"}


def test_remove_prevents_later_additions_and_takes_nothing_away() -> None:
    assert resolve([TagSet({"A"}), TagSet({"B"}, remove={"A"})]) == {"B"}
    assert resolve([TagSet({"A"}), TagSet({"B"}, if_present={"A"}, remove={"A"})]) == {"A", "B"}


def test_empty_and_missing_tag_sets_contribute_nothing() -> None:
    assert resolve([None, TagSet(), TagSet(blocked_by={"A"})]) == set()


def test_a_string_is_not_a_set_of_tags() -> None:
    with pytest.raises(TypeError, match="collection"):
        TagSet("DARK")


class _Instrument(AstroData):
    computed = 0

    @astro_data_tag
    def _type(self) -> TagSet:
        type(self).computed += 1
        return TagSet({self.phu["OBSTYPE"]})

    @astro_data_tag
    def _missing(self) -> TagSet:
        return TagSet({self.phu["ABSENT"]})

    @returns_list
    @astro_data_descriptor
    def gain(self, factor: float = 1.0) -> float:
        """Electrons for each ADU."""
        return 12.3 * factor

    @returns_list
    def widths(self) -> list[int]:
        return [1, 2]


def _frame(n: int = 2) -> _Instrument:
    ad = _Instrument({"OBSTYPE": "DARK"})
    for _ in range(n):
        ad.append([[1.0]])
    return ad


def test_tags_are_computed_once_until_the_primary_header_changes() -> None:
    ad = _frame()
    ad.phu = WatchedHeader.from_text("OBSTYPE = 'DARK    '".ljust(80))  # as it comes from a file
    before = _Instrument.computed
    assert ad.tags == ad[0].tags == {"DARK"}
    assert _Instrument.computed == before + 1
    ad.phu["OBSTYPE"] = "FLAT"
    assert ad.tags == ad[1].tags == {"FLAT"}
    assert _Instrument.computed == before + 2


@pytest.mark.parametrize("change", ["set", "update", "remove", "card", "replace", "held cards"])
def test_every_way_of_changing_the_header_renews_the_tags(change: str) -> None:
    ad = _frame()
    cards = ad.phu.cards if change == "held cards" else None
    assert ad.tags == {"DARK"}
    if change == "set":
        ad.phu.set("OBSTYPE", "ARC")
    elif change == "update":
        ad.phu.update({"OBSTYPE": "ARC"})
    elif change == "remove":
        del ad.phu["OBSTYPE"]
    elif change == "card":
        ad.phu.cards["OBSTYPE"].value = "ARC"
    elif change == "replace":
        ad.phu = {"OBSTYPE": "ARC"}
    elif cards is not None:
        cards["OBSTYPE"].value = "ARC"
    assert ad.tags == (set() if change == "remove" else {"ARC"})


def test_changing_the_returned_tags_changes_nothing() -> None:
    ad = _frame()
    ad.tags.add("X")
    assert ad.tags == {"DARK"}


def test_descriptors_follow_the_list_rule_and_keep_their_docstring() -> None:
    ad = _frame()
    assert ad.gain() == [12.3, 12.3]
    assert ad[0].gain(factor=2) == 24.6
    assert ad[0:1].gain() == [12.3]
    assert _Instrument.gain.__doc__ == "Electrons for each ADU."
    assert {"gain", "instrument", "object", "telescope"} == set(ad.descriptors)
    assert ad[0].widths() == 1
    with pytest.raises(IndexError, match="2 values for 3"):
        _frame(3).widths()


def test_the_most_derived_matching_class_is_chosen() -> None:
    class Gemini(AstroData):
        @staticmethod
        def _matches_data(source: object) -> bool:
            return source[0].header.get("OBSERVAT") == "Gemini-North"  # type: ignore[index]

    class Niri(Gemini):
        @staticmethod
        def _matches_data(source: object) -> bool:
            return source[0].header["INSTRUME"] == "NIRI"  # type: ignore[index]

    astrodata.register_class(Gemini)
    astrodata.register_class(Niri)
    assert type(astrodata.create({"OBSERVAT": "Gemini-North", "INSTRUME": "NIRI"})) is Niri
    assert type(astrodata.create({"OBSERVAT": "Gemini-North"})) is Gemini
    assert type(astrodata.create({"INSTRUME": "NIRI"})) is Niri
    assert type(astrodata.create({})) is AstroData


def test_two_instruments_that_claim_the_same_data_are_an_error() -> None:
    for name in ("One", "Other"):
        astrodata.register_class(
            type(name, (AstroData,), {"_matches_data": staticmethod(lambda source: True)})
        )
    with pytest.raises(errors.DataError, match="more than one instrument"):
        astrodata.create({})


def test_a_predicate_that_fails_is_reported_and_not_taken_for_no() -> None:
    def broken(source: object) -> bool:
        raise ValueError("unreadable INSTRUME")

    astrodata.register_class(type("Broken", (AstroData,), {"_matches_data": staticmethod(broken)}))
    with pytest.raises(errors.DataError, match="unreadable INSTRUME"):
        astrodata.create({})
