from __future__ import annotations

import json
import pickle

import pytest

from niripipe.cal_service import Candidate, Explanation, assess
from niripipe.errors import CalibrationError

from .facts_for_tests import DARK, SCIENCE, but, later


def explanation(*darks, frame=SCIENCE, states=(), **values) -> Explanation:
    candidates = [
        Candidate(dark.filename, f"/data/{dark.filename}", assess(frame, dark, "processed_dark"), state)
        for dark, state in zip(darks, [*states, *["present"] * len(darks)], strict=False)
    ]
    return Explanation(frame, "processed_dark", candidates, store="/data/cal_manager.db", **values)


GOOD = later(but(DARK, filename="good.fits"), hours=3)
OTHER_MODE = later(but(DARK, filename="mode.fits", read_mode="Low Background"), days=-2)
COADDS = but(DARK, filename="coadds.fits", exposure_time=20.004, coadds=2)


def test_table_shows_every_rule_with_both_values():
    text = str(explanation(GOOD, OTHER_MODE))
    for rule in assess(SCIENCE, GOOD, "processed_dark").verdicts:
        assert rule.rule.descriptor in text
    line = next(line for line in text.splitlines() if line.split()[0] == "read_mode")
    assert line.split() == [
        "read_mode",
        "Medium",
        "Background",
        "ok",
        "Medium",
        "Background",
        "NO",
        "Low",
        "Background",
    ]
    assert "+3.0 h" in text
    assert "-2.0 d" in text
    assert text.splitlines()[0].endswith("2 candidates, 1 usable")
    result = next(line for line in text.splitlines() if line.split()[0] == "result")
    assert result.split() == ["result", "chosen", "rejected"]


def test_coadds_are_explained():
    text = str(explanation(COADDS))
    assert "coadds.fits: coadds: 1 x 20.002 s is not 2 x 10.002 s" in text


def test_one_long_exposure_is_not_two_short_ones():
    frame = but(SCIENCE, exposure_time=60.001)
    table = explanation(but(DARK, exposure_time=60.002, coadds=2), frame=frame)
    assert "1 x 60.001 s is not 2 x 30.001 s" in str(table)
    assert "1 x 60.001 s is not 2 x 30.001 s" in table.error().problem


def test_reason_is_one_sentence_about_the_nearest():
    assert explanation(GOOD).reason is None
    assert explanation().reason == "no processed_dark is registered"
    only = "the only processed_dark does not fit"
    fault = "read_mode is Low Background, wanted Medium Background"
    assert explanation(OTHER_MODE).reason == f"{only}: mode.fits: {fault}"
    assert explanation(OTHER_MODE, COADDS).reason.startswith(
        "none of 2 processed_dark fits; nearest is mode.fits: "
    )
    assert explanation(GOOD, states=["missing"]).reason.endswith("good.fits: the file is missing")


def test_missing_and_changed_files_are_faults():
    table = explanation(GOOD, but(GOOD, filename="next.fits"), states=["missing"])
    assert table.chosen == "/data/next.fits"
    assert table.rows[0]["failed"] == ["the file is missing"]
    assert table.rows[0]["result"] == "rejected"


def test_rows_are_plain_values_and_hold_the_whole_table():
    table = explanation(GOOD, OTHER_MODE)
    rows = json.loads(json.dumps(table.rows))
    assert [row["result"] for row in rows] == ["chosen", "rejected"]
    assert rows[1]["rules"]["read_mode"] == {
        "wanted": "Medium Background",
        "found": "Low Background",
        "passed": False,
        "note": "",
    }
    assert rows[1]["failed"] == ["read_mode is Low Background, wanted Medium Background"]
    assert list(table) == list(table.rows)
    assert len(table) == 2


def test_notebook_table_is_escaped_and_complete():
    html = explanation(but(GOOD, filename="<b>.fits"), OTHER_MODE)._repr_html_()
    assert "&lt;b&gt;.fits" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 1 + len(assess(SCIENCE, GOOD, "processed_dark").verdicts) + 3
    assert "✗ Low Background" in html


@pytest.mark.parametrize(
    ("others", "text"),
    [({}, "the store holds nothing"), ({"processed_flat": 2}, "the store holds 2 processed_flat")],
)
def test_without_candidates_it_says_what_there_is(others, text):
    table = explanation(others=others)
    assert text in str(table)
    assert text in str(table.error())
    assert table.rows == ()
    assert "<table>" in table._repr_html_()


def test_error_holds_reasons_rows_and_the_table():
    error = explanation(OTHER_MODE, COADDS).error()
    assert isinstance(error, CalibrationError)
    assert "mode.fits: read_mode is Low Background, wanted Medium Background" in str(error)
    assert "1 x 20.002 s is not 2 x 10.002 s" in str(error)
    assert [row["calibration"] for row in error.candidates] == ["mode.fits", "coadds.fits"]
    assert "well_depth_setting" in error.__notes__[0]
    assert error.file == SCIENCE.filename
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert copy.__notes__ == error.__notes__
    assert str(copy) == str(error)


def test_many_candidates_are_cut_in_the_text_but_not_in_the_rows():
    darks = [but(OTHER_MODE, filename=f"dark{n:02}.fits") for n in range(20)]
    table = explanation(*darks)
    assert "and 11 more" in str(table)
    assert len(table.rows) == 20
    assert "and 17 more" in str(table.error())
    assert max(map(len, str(table).splitlines())) < 160
