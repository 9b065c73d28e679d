from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.astrodata import Section
from niripipe.errors import InputError


@st.composite
def sections(draw: st.DrawFn) -> Section:
    limits = []
    for _ in range(2):
        start = draw(st.integers(0, 50))
        limits += [start, start + draw(st.integers(1, 50))]
    return Section(*limits)


def test_limits_by_position_and_by_name_are_the_same() -> None:
    section = Section(0, 1024, 10, 20)
    assert (
        section == Section(x1=0, x2=1024, y1=10, y2=20) == Section(0, 1024, y2=20, y1=10) == (0, 1024, 10, 20)
    )
    assert (section.x1, section.x2, section.y1, section.y2, section.ndim) == (0, 1024, 10, 20, 2)
    assert Section(0, 1, 2, 3, 4, 5).z2 == 5


def test_iraf_strings_are_one_based_and_inclusive() -> None:
    assert Section.from_string("[1:1024,11:20]") == Section.from_string("1:1024,11:20") == (0, 1024, 10, 20)
    assert Section.from_string(None) is None
    assert Section(0, 1024, 10, 20).asIRAFsection() == "[1:1024,11:20]"
    assert Section(0, 512, 10, 20).as_iraf_section(binning=(2, 4)) == "[1:1024,41:80]"


def test_slices_and_shapes_are_in_array_order() -> None:
    section = Section(0, 8, 2, 5)
    assert section.asslice() == (slice(2, 5), slice(0, 8))
    assert section.as_slice(add_dims=1) == (slice(None), slice(2, 5), slice(0, 8))
    assert section.shape == (3, 8)
    assert Section.from_shape((3, 8)) == (0, 8, 0, 3)


@pytest.mark.parametrize(
    "limits", [(), (1,), (0, 0), (5, 4), (0, 1, 2), (0, 1.5), ("a", "b"), tuple(range(14))]
)
def test_impossible_limits_are_refused(limits: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        Section(*limits)
    with pytest.raises(InputError, match="not the limits"):
        Section(0, 1, q1=3, q2=4)


@pytest.mark.parametrize("text", ["", "[:,1:20]", "[1:2", "[1:2;3:4]", "[a:b,1:2]", "[5:4,1:2]"])
def test_strings_that_are_no_sections_are_refused(text: str) -> None:
    if text == "[1:2":
        assert Section.from_string(text) == (0, 2)
        return
    with pytest.raises(InputError):
        Section.from_string(text)


def test_comparisons_need_the_same_number_of_axes() -> None:
    with pytest.raises(InputError, match="axes"):
        Section(0, 5, 0, 5).contains(Section(0, 5))
    assert not Section(0, 5, 0, 5).is_same_size(Section(0, 5))


@given(sections(), sections())
def test_an_overlap_is_what_both_contain(a: Section, b: Section) -> None:
    common = a.overlap(b)
    assert common == b.overlap(a)
    if common is None:
        assert a.x2 <= b.x1 or b.x2 <= a.x1 or a.y2 <= b.y1 or b.y2 <= a.y1
    else:
        assert a.contains(common)
        assert b.contains(common)


@given(sections(), st.integers(-60, 60), st.integers(-60, 60))
def test_a_shift_keeps_the_size_and_can_be_undone(a: Section, dx: int, dy: int) -> None:
    assert a.shift(dx, dy).is_same_size(a)
    assert a.shift(dx, dy).shift(-dx, -dy) == a


@given(sections())
def test_a_section_survives_its_string_and_pickling(a: Section) -> None:
    assert Section.from_string(a.as_iraf_section()) == a
    again = pickle.loads(pickle.dumps(a))  # noqa: S301
    assert again == a
    assert isinstance(again, Section)
