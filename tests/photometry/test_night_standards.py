"""Nights and their standards: which is used and why, and what is said where none is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.night import organise


def planned(reduced, folder, **changes):
    """Return the plan of the night, with the headers of the standard's frames changed."""
    for path in reduced.night.files:
        shutil.copy(path, folder / path.name)
    for path in reduced.night.standard:
        with fits.open(folder / path.name, mode="update") as file:
            file[0].header.update(changes)
    plan = organise(folder)
    return plan, next(job for job in plan.jobs if job.kind == "science")


def test_the_plan_says_how_far_the_standard_is_in_time_and_airmass(reduced, tmp_path):
    _, science = planned(reduced, tmp_path)
    (reason,) = [one.reason for one in science.calibrations if one.caltype == "processed_standard"]
    assert "1.4 h before the frames, airmass 1.19 for 1.65" in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CAMERA": "f32"}, "camera is f32, wanted f6"),
        ({"A_VDDUC": -3.1, "A_VDET": -2.2}, "well_depth_setting is Deep, wanted Shallow"),
        ({"FILTER2": "J_G0202"}, "filter_name is J_G0202, wanted H_G0203"),
        ({"DATE-OBS": "2016-01-04"}, "ut_datetime is 2016-01-04"),
    ],
)
def test_a_standard_of_another_set_up_or_night_is_not_used(reduced, tmp_path, changes, words):
    _, science = planned(reduced, tmp_path, **changes)
    (warning,) = [text for text in science.warnings if "no zero point is applied" in text]
    assert words in warning
    assert all(one.caltype != "processed_standard" for one in science.calibrations)


def test_a_table_named_by_a_relative_path_is_read_from_another_folder(reduced, tmp_path, monkeypatch):
    """The star of the table, 0.1 mag brighter, replaces FS 17; extinction given by hand keeps its error."""
    (tmp_path / "mine.csv").write_text(
        "Star,RA (J2000),Dec (J2000),H,e_H\nMine,08 51 19.31,+11 52 10.4,12.263,0.01\n"
    )
    monkeypatch.chdir(tmp_path)
    own = {"measureStandard:standards": "mine.csv", "determineZeroPoint:extinction": 0.1}
    plan = organise(reduced.night.folder, parameters={"standard": own})
    monkeypatch.chdir("/")
    (path,) = plan.run(tmp_path / "products").products("standard")
    header = astrodata.open(path).phu
    shipped = astrodata.open(reduced.standard).phu
    assert header["ZPSTD"] == "Mine"
    assert header["ZP"] == pytest.approx(shipped["ZP"] - 0.1 + 0.07 * (header["ZPAIRM"] - 1), abs=1e-3)
    assert (header["ZPEXT"], header["ZPEXTERR"], header["ZPEXTSRC"]) == (0.1, 0.03, "given by the user")


def test_another_standard_in_the_header_is_a_warning_of_the_plan(reduced, tmp_path):
    plan, _ = planned(reduced, tmp_path, OBJECT="FS 11")
    (standard,) = [job for job in plan.jobs if job.kind == "standard"]
    assert any("points to FS 17, but FS 11" in text for text in standard.warnings)


def test_without_photutils_nights_are_reduced_and_plan_and_product_say_why(reduced, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "photutils", None)
    (tmp_path / "raw").mkdir()
    plan, science = planned(reduced, tmp_path / "raw")
    assert any("needs photutils" in text for text in science.warnings)
    result = plan.run(tmp_path / "products")
    (path,) = result.products("science")
    assert "needs photutils" in astrodata.open(path).phu["ZPWHYNOT"]
    assert Path(result.products("standard")[0]).name.endswith("_image.fits")


def test_a_standard_that_gives_no_zero_point_is_said_of_the_stack(reduced, tmp_path):
    (tmp_path / "raw").mkdir()
    plan, science = planned(reduced, tmp_path / "raw")
    for path in reduced.night.standard:
        x, y, _ = reduced.night.truth.positions(path.name)[0]
        with fits.open(tmp_path / "raw" / path.name, mode="update") as file:
            file[1].data[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 70000
    result = plan.run(tmp_path / "products")
    of_science = next(one for one in result.results if one.name == science.name)
    assert any("is not applied: FS 17 is beyond the linear range" in note for note in of_science.notes)
    (path,) = result.products("science")
    assert "_standard.fits has no zero point" in astrodata.open(path).phu["ZPWHYNOT"]


@pytest.mark.parametrize("key", ["applyZeroPoint:standard", "standard"])
def test_a_standard_of_another_night_is_used_where_it_is_named(reduced, tmp_path, key):
    old = astrodata.open(reduced.standard)
    old.phu["ZPUT"] = "2015-12-20T10:00:00"
    old.write(tmp_path / "old_standard.fits")
    given = {key: str(tmp_path / "old_standard.fits")}
    plan = organise(reduced.night.folder, parameters={"science": given})
    science = next(job for job in plan.jobs if job.kind == "science")
    assert not [text for text in science.warnings if "zero point" in text]
    assert not [one for one in science.calibrations if one.caltype == "processed_standard"]
    if key == "standard":
        return
    result = plan.run(tmp_path / "products")
    (path,) = result.products("science")
    assert astrodata.open(path).phu["ZPFILE"] == "old_standard.fits"
    of_science = next(one for one in result.results if one.name == science.name)
    assert any("of another night" in text for text in of_science.report.warnings)


def test_no_zero_point_is_planned_where_none_is_wanted(reduced):
    plan = organise(
        reduced.night.folder, parameters={"science": {"applyZeroPoint:do_cal": "skip"}}
    )  # fmt: skip
    science = next(job for job in plan.jobs if job.kind == "science")
    assert not [text for text in science.warnings if "zero point" in text]
    assert not [one for one in science.calibrations if one.caltype == "processed_standard"]
