from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.instruments import headers

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.binary(max_size=4)
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("-2.602  ", -2.602),
        (" 1.5D3", 1500.0),
        (3, 3.0),
        ("", None),
        ("No Value", None),
        ("nan", None),
        (True, None),
    ],
)
def test_numbers_are_read_from_text_and_nothing_else(value: Any, number: float | None) -> None:
    assert headers.parse_float(value) == number


@given(ANYTHING)
def test_no_header_value_raises(value: Any) -> None:
    for parse in (
        headers.parse_float, headers.parse_ra, headers.parse_dec, headers.parse_date, headers.parse_time,
        headers.parse_datetime, headers.parse_percentile, headers.clean_text, headers.remove_component_id,
        headers.truth,
    ):  # fmt: skip
        parse(value)
    headers.find_ut_datetime(dict.fromkeys(("DATE-OBS", "UT", "MJD_OBS", "OBSSTART", "FRMNAME"), value))
    assert headers.get_int({"K": value}, "K") is None or isinstance(value, (int, float, str))


@pytest.mark.parametrize("filler", ["", "   ", "No Value", "INDEF", "N/A"])
def test_fillers_are_not_text(filler: str) -> None:
    assert headers.get_text({"KEY": filler}, "KEY") is None


@pytest.mark.parametrize(
    ("name", "bare"), [("K_G0204", "K"), ("f6-cam_G5208", "f6-cam"), ("open", "open"), (None, None)]
)
def test_component_identifiers_are_split_off(name: str | None, bare: str | None) -> None:
    assert headers.remove_component_id(name) == bare


@pytest.mark.parametrize(
    ("text", "value"), [("Any", 100), ("70-percentile", 70), ("UNKNOWN", None), ("70", None), ("", None)]
)
def test_conditions_are_percentiles(text: str, value: int | None) -> None:
    assert headers.parse_percentile(text) == value


@pytest.mark.parametrize(
    ("text", "degrees"),
    [
        ("03:48:30.113", 57.1254708),
        (57.5, 57.5),
        ("57.5", 57.5),
        ("2 hours", 30.0),
        ("57.5 degrees", 57.5),
        ("10:30:00 degrees", 10.5),
        ("03:61:00", None),
        ("somewhere", None),
        (400.0, None),
    ],
)
def test_right_ascensions(text: Any, degrees: float | None) -> None:
    assert headers.parse_ra(text) == (None if degrees is None else pytest.approx(degrees, abs=1e-7))


@pytest.mark.parametrize(
    ("text", "degrees"), [("+24:20:43.00", 24.3452778), ("-00:30:00", -0.5), (95.0, None)]
)
def test_declinations_keep_their_sign(text: Any, degrees: float | None) -> None:
    assert headers.parse_dec(text) == (None if degrees is None else pytest.approx(degrees, abs=1e-7))


@pytest.mark.parametrize(
    ("micrometres", "exponent", "value"), [(2.15, -6, 2.15e-06), (2.15, 3, 2150.0), (1.69, 4, 16900)]
)
def test_units_change_without_noise(micrometres: float, exponent: int, value: float) -> None:
    assert headers.scaled(micrometres, exponent) == value


@pytest.mark.parametrize(
    ("cards", "when"),
    [
        ({"DATE-OBS": "2015-04-04", "UT": "11:14:20.1"}, datetime(2015, 4, 4, 11, 14, 20, 100000)),
        ({"DATE-OBS": "2015-04-04T11:14:20.1", "UT": "12:00:00"}, datetime(2015, 4, 4, 11, 14, 20, 100000)),
        ({"DATE-OBS": "25/12/101", "UT": "1:2:3"}, datetime(2001, 12, 25, 1, 2, 3)),
        ({"DATE": "2015-04-04", "TIME-OBS": "11:14:20"}, datetime(2015, 4, 4, 11, 14, 20)),
        # The time of writing is not the time of observation.
        (
            {"DATE-OBS": "2003-03-25", "DATE": "2003-04-07T20:23:14", "UT": "06:01:59.7"},
            datetime(2003, 3, 25, 6, 1, 59, 700000),
        ),
        ({"MJD_OBS": 57116.5}, datetime(2015, 4, 4, 12)),
        ({"MJD-OBS": 57116.5, "MJD_OBS": 1e9}, datetime(2015, 4, 4, 12)),
        ({"MJD_OBS": 1e300}, None),
        ({"OBSSTART": "2015-04-04T11:14:20Z"}, datetime(2015, 4, 4, 11, 14, 20)),
        ({"FRMNAME": "N20160203S0001:0"}, datetime(2016, 2, 3)),
        ({"DATE-OBS": "2015-13-45", "UT": "11:14:20"}, None),
    ],
)
def test_the_start_is_found_in_every_form(cards: dict[str, Any], when: datetime | None) -> None:
    assert headers.find_ut_datetime(cards) == when


def test_the_file_name_is_a_guess_that_strictness_forbids() -> None:
    assert headers.find_ut_datetime({}, name="N20160203S0001.fits") == datetime(2016, 2, 3)
    assert headers.find_ut_datetime({}, name="N20160203S0001.fits", strict=True) is None
    assert headers.find_ut_datetime({}, name="N20169903S0001.fits") is None


def test_dates_and_times_stand_alone() -> None:
    assert headers.find_date({"DATE-OBS": "2015-04-04"}) == date(2015, 4, 4)
    assert headers.find_time({"UT": "garbage", "TIME-OBS": "1:02:03.25"}) == time(1, 2, 3, 250000)
