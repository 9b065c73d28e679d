"""Tables in notebooks: left-aligned, escaped, with units."""

from __future__ import annotations

import re

import pytest

from niripipe import Reduce, astrodata, inspection, night
from niripipe.astrodata.display import html_table
from niripipe.cal_service import CalibrationService
from niripipe.inspection import Table

from . import frames as make

HOSTILE = "<script>alert('x')</script> & co"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What everything that a user looks at is in a notebook."""
    folder = tmp_path_factory.mktemp("html")
    levels = [make.noise(k, 35.0 / 12.3, 3.0) for k in range(3)]
    darks = make.sequence(folder / "raw", levels, kind="dark", OBJECT=HOSTILE)
    r = Reduce(darks, output_dir=folder / "out")
    r.runr()
    caldb = CalibrationService()
    caldb.config(db_dir=folder)
    caldb.init()
    caldb.add_cal(r.output_filenames[0])
    plan = night.organise(folder / "raw")
    views = {
        "plan": r.plan(),
        "report": r.report,
        "night": plan,
        "jobs": plan.table(),
        "result": plan.run(folder / "night"),
        "selection": inspection.showd(darks, "object,exposure_time,tags"),
        "tags": inspection.typewalk(folder / "raw"),
        "store": caldb.list_files(),
        "explanation": caldb.explain(darks[0], "processed_dark"),
        "frame": astrodata.open(darks[0]),
    }
    return {name: view._repr_html_() for name, view in views.items()}


def test_cells_are_aligned_whatever_the_notebooks_own_style_is(shown):
    for name, text in shown.items():
        cells = re.findall(r"<t[dh]\b[^>]*>", text)
        assert cells, name
        assert all("text-align:" in cell for cell in cells), name


def test_what_comes_from_headers_cannot_be_html(shown):
    assert all("<script" not in text for text in shown.values())
    assert "&lt;script&gt;" in shown["selection"]


def test_units_are_shown(shown):
    assert "exposure_time (s)" in shown["selection"]
    assert "time (s)" in shown["report"]


def test_rows_keep_their_lines_and_numbers_stand_at_the_right():
    table = Table(["name", "n"], [{"name": "a\nb", "n": 1}], units={"n": "frames"})
    text = table._repr_html_()
    assert "a<br>b" in text
    assert '<td style="text-align:right;vertical-align:top">1</td>' in text
    assert "n (frames)" in text
    assert "(frames)" not in str(table)
    assert html_table(["<a>"], [["<b>"]]).count("&lt;") == 2


def test_results_print_themselves_in_a_terminal(tmp_path):
    levels = [make.noise(k, 35.0 / 12.3, 3.0) for k in range(3)]
    r = Reduce(make.sequence(tmp_path, levels, kind="dark"), output_dir=tmp_path / "out")
    assert repr(r.plan()) == str(r.plan())
    r.runr()
    assert repr(r.report) == str(r.report)
    assert "Step(" not in repr(r.report)
