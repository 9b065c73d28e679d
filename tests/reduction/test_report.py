"""The run report: steps, outcomes, dropped frames, calibrations and files, as text and as a table."""

from __future__ import annotations

import pytest

from niripipe.primitives.base import DONE, skipped
from niripipe.reduction.report import DroppedFrame, RunReport, Step


@pytest.fixture
def report() -> RunReport:
    made = RunReport("reduce", "sq", "niripipe 9.9", ["a.fits", "b.fits", "c.fits"])
    made.steps.append(Step("prepare", "main", {}, {}, {"a.fits": DONE, "b.fits": DONE, "c.fits": DONE}, 0.25))
    outcomes = {"a.fits": DONE, "b.fits": skipped("no <dark> & no hope")}
    made.steps.append(Step("darkCorrect", "main > sky", {}, {}, outcomes, 0.5))
    made.steps.append(Step("stackFrames", "main", {}, {}))
    made.dropped.append(DroppedFrame("c.fits", "darkCorrect", "level is NaN <here>"))
    made.calibrations.update(
        {("a.fits", "processed_dark"): "x_dark.fits", ("b.fits", "processed_dark"): "x_dark.fits"}
    )
    made.outputs.append("a_image.fits")
    made.seconds = 1.25
    return made


def test_the_outcomes_of_a_step_are_counted_by_kind_and_reason(report):
    assert report.steps[0].summary() == "3 DONE"
    assert report.steps[1].summary() == "1 DONE, 1 SKIPPED (no <dark> & no hope)"
    assert report.steps[2].summary() == "no frames"


def test_the_text_tells_everything_once(report):
    text = str(report)
    assert text.splitlines()[0] == "reduce (sq), 3 input files, 1.25 s, niripipe 9.9"
    for part in (
        "prepare",
        "main > sky",
        "0.500 s",
        "1 SKIPPED (no <dark> & no hope)",
        "dropped c.fits in darkCorrect: level is NaN <here>",
        "processed_dark: x_dark.fits",
        "wrote a_image.fits",
    ):
        assert text.count(part) == 1


def test_the_table_escapes_what_came_from_files(report):
    html = report._repr_html_()
    assert "no &lt;dark&gt; &amp; no hope" in html
    assert "<dark>" not in html
    assert "<here>" not in html
    assert html.count("<tr>") == html.count("</tr>") == 4


def test_a_step_is_found_by_its_primitive_the_last_call_first(report):
    report.steps.append(Step("prepare", "sky", {}, {}))
    assert report.step("prepare").stream == "sky"
    with pytest.raises(KeyError):
        report.step("absent")
