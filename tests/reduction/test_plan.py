"""The plan: calls, parameters, calibrations and faults are known before a pixel is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from niripipe import Reduce, astrodata
from niripipe.cal_service import CalibrationService
from niripipe.errors import CalibrationError, InputError, NiripipeError, ParameterError, StorageError
from niripipe.primitives import NIRI
from niripipe.primitives.params import Origin
from niripipe.reduction.foresight import STORES

from .. import frames as make


@pytest.fixture
def science(tmp_path: Path) -> list[Path]:
    return make.sequence(tmp_path, [100.0, 110.0, 120.0], first=1)


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    r = Reduce(make.sequence(tmp_path, [3.0, 4.0, 5.0], kind="dark", first=20), output_dir=tmp_path)
    r.runr()
    return Path(r.output_filenames[0])


@pytest.fixture
def caldb(tmp_path: Path) -> CalibrationService:
    service = CalibrationService()
    service.config(db_dir=tmp_path / "store.db")
    service.init()
    return service


@pytest.fixture
def _no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self):
        raise AssertionError("a pixel was read")

    monkeypatch.setattr(astrodata.AstroData, "data", property(refuse))
    monkeypatch.setattr(astrodata.AstroData, "read", lambda self, name: refuse(self))


@pytest.mark.usefixtures("_no_pixels")
def test_a_plan_reads_no_pixel_and_writes_nothing(science, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    frames = [astrodata.open(path) for path in science]
    r = Reduce(frames, output_dir=tmp_path / "new", recipe="reduce", parameters={"do_cal": "skip"})
    plan = r.plan()
    assert plan.faults == []
    assert [ad.nbytes for ad in frames] == [0, 0, 0]
    assert sorted(tmp_path.rglob("*")) == before
    assert r.outputs == []
    assert r.report is None


def test_the_calls_are_listed_in_the_recipes_order_with_their_streams(science):
    plan = Reduce(science, parameters={"do_cal": "skip"}).plan()
    assert (plan.recipe, plan.mode, plan.files) == ("reduce", "sq", [p.name for p in science])
    names = [step.primitive for step in plan.steps]
    assert names[:4] == ["prepare", "addDQ", "removeFirstFrame", "ADUToElectrons"]
    assert "stackFrames" in names
    assert names[-1] == "storeProcessedScience"
    streams = {step.primitive: step.stream for step in plan.steps[:12]}
    assert streams["associateSky"] == "sky"
    assert streams["skyCorrect"] == "sky > skysub"


def test_every_value_says_where_it_comes_from(science):
    plan = Reduce(science, parameters={"do_cal": "skip", "skyCorrect": {"scale_sky": False}}).plan()
    sky = [step.resolved for step in plan.steps if step.primitive == "skyCorrect"]
    assert [r.params.mask_objects for r in sky] == [False, True]
    assert {r.origins["mask_objects"] for r in sky} == {Origin.RECIPE}
    assert {r.origins["scale_sky"] for r in sky} == {Origin.USER}
    assert {r.origins["operation"] for r in sky} == {Origin.DEFAULT}
    (latency,) = [s.resolved.origins["latency"] for s in plan.steps if s.primitive == "addDQ"]
    assert latency is Origin.INSTRUMENT


def test_the_calibrations_that_would_be_used_are_named(science, dark, caldb):
    caldb.add_cal(dark)
    plan = Reduce(science, calibrations=caldb, parameters={"flatCorrect:do_cal": "skip"}).plan()
    assert plan.faults == []
    assert plan.calibrations == {(p.name, "processed_dark"): dark.name for p in science}
    assert f"{science[0].name}: processed_dark {dark.name}" in str(plan)


def test_a_missing_calibration_is_a_fault_that_shows_the_candidates(tmp_path, dark, caldb):
    caldb.add_cal(dark)
    science = make.sequence(tmp_path, [1.0, 2.0], EXPTIME=5.0)
    plan = Reduce(science, calibrations=caldb, parameters={"flatCorrect:do_cal": "skip"}).plan()
    (fault,) = plan.faults
    assert isinstance(fault, CalibrationError)
    (candidate,) = fault.candidates
    assert dark.name in str(candidate)
    assert "exposure" in str(fault)
    with pytest.raises(CalibrationError) as caught:
        plan.check()
    assert caught.value is fault


def test_several_missing_calibrations_are_raised_together(science, caldb):
    plan = Reduce(science, calibrations=caldb).plan()
    with pytest.raises(CalibrationError, match=r"2 faults(.|\n)*processed_dark(.|\n)*processed_flat"):
        plan.check()


def test_without_a_service_the_fault_says_what_can_be_done(science):
    (fault, _) = Reduce(science).plan().faults
    for way in ("ucals", "set_calservice", "do_cal='skip'", "calibrations="):
        assert way in str(fault)


@pytest.mark.parametrize("mode", ["ql"])
def test_outside_science_quality_a_calibration_may_be_missing(science, mode):
    assert Reduce(science, mode=mode).plan().faults == []


def test_forced_calibrations_are_required_in_every_mode(science):
    faults = Reduce(science, mode="ql", parameters={"darkCorrect:do_cal": "force"}).plan().faults
    assert [type(fault) for fault in faults] == [CalibrationError]


def test_a_skipped_primitive_needs_no_calibration(science):
    given = {"darkCorrect:skip_primitive": True, "flatCorrect:skip_primitive": True}
    assert Reduce(science, parameters=given).plan().faults == []


def test_a_calibration_named_by_hand_that_cannot_be_opened_is_a_fault(science, tmp_path):
    given = {"darkCorrect:dark": str(tmp_path / "absent_dark.fits"), "flatCorrect:do_cal": "skip"}
    (fault,) = Reduce(science, parameters=given).plan().faults
    assert "absent_dark.fits" in str(fault)


def test_a_user_mask_that_cannot_be_opened_is_a_fault_of_the_plan(science, tmp_path):
    given = {"addDQ:user_bpm": str(tmp_path / "absent_bpm.fits"), "do_cal": "skip"}
    (fault,) = Reduce(science, parameters=given).plan().faults
    assert "absent_bpm.fits" in str(fault)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"skyCorect:scale_sky": False}, "Did you mean 'skyCorrect'"),
        ({"skyCorrect:scale_skies": False}, "Did you mean 'scale_sky'"),
        ({"user_bmp": "x.fits"}, "Did you mean 'user_bpm'"),
        ({"skip_primitives": True}, "Did you mean 'skip_primitive'"),
    ],
)
def test_an_unknown_primitive_or_parameter_is_a_fault_with_the_nearest_name(science, given, answer):
    (fault,) = Reduce(science, parameters=given).plan().faults
    assert isinstance(fault, ParameterError)
    assert answer in str(fault)


def test_all_unknown_names_are_raised_together(science):
    plan = Reduce(science, parameters={"nothing:at": 1, "addDQ:all": 2}).plan()
    with pytest.raises(ParameterError, match=r"2 faults(.|\n)*nothing:at(.|\n)*addDQ:all"):
        plan.check()


def test_a_refused_value_is_a_fault_with_name_value_and_source(science):
    plan = Reduce(science, parameters={"do_cal": "skip", "stackFrames:operation": "mode"}).plan()
    (fault,) = plan.faults
    assert "operation='mode' from the user" in str(fault)
    with pytest.raises(ParameterError):
        plan.check()


def test_refused_values_and_missing_calibrations_are_found_together(science):
    plan = Reduce(science, parameters={"stackFrames:operation": "mode"}).plan()
    assert [type(fault) for fault in plan.faults].count(CalibrationError) == 2
    assert [type(fault) for fault in plan.faults].count(ParameterError) == 1
    with pytest.raises(NiripipeError, match="3 faults"):
        plan.check()


def test_a_parameter_of_a_primitive_that_is_not_called_is_a_warning(science):
    plan = Reduce(science, parameters={"do_cal": "skip", "makeBPM:flat_lo_thresh": 0.5}).plan()
    assert plan.faults == []
    (warning,) = plan.warnings
    assert "makeBPM:flat_lo_thresh has no effect" in warning


def test_a_recipe_that_looks_at_its_results_is_planned_as_far_as_it_goes(science):
    def mine(p):
        p.prepare()
        p.streams["sky"][0].phu["X"] = 1
        p.addDQ()

    plan = Reduce(science, recipe=mine).plan()
    assert [step.primitive for step in plan.steps] == ["prepare"]
    assert "plan ends here" in plan.warnings[0]


def test_a_users_own_recipe_runs_once_only(science, tmp_path):
    calls = []

    def mine(p):
        calls.append(len(p.streams["main"]))
        p.prepare()

    Reduce(science, recipe=mine, output_dir=tmp_path / "out").runr()
    assert calls == [3]


def test_text_and_table_show_what_is_not_a_default(science):
    plan = Reduce(
        science, parameters={"do_cal": "skip", "addVAR:skip_primitive": True, "addDQ:time": 60}
    ).plan()
    text, html = str(plan), plan._repr_html_()
    assert text.startswith("reduce (sq) on 3 files")
    for shown in (text, html):
        assert "[user]" in shown
        assert "time=60.0" in shown
        assert "skipped" in shown
    assert html.count("<tr>") == len(plan.steps) + 1


# ---- the output


def test_all_that_speaks_against_the_output_is_a_fault_with_the_others(science, dark, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    existing = tmp_path / f"{science[1].stem}_image.fits"
    astrodata.open(dark).write(existing)
    given = {"do_cal": "skip", "skyCorrect:scale_sky": "perhaps"}
    faults = [
        str(f) for f in Reduce(science, parameters=given, output_dir=tmp_path / "file" / "x").plan().faults
    ]
    assert len(faults) == 2
    assert "is no folder" in faults[0]
    assert "scale_sky" in faults[1]
    r = Reduce(science, parameters={"do_cal": "skip"}, output_dir=tmp_path, overwrite=False)
    (fault,) = r.plan().faults
    assert ("exists already", str(existing)) == (fault.problem.removeprefix("The product "), fault.file)
    with pytest.raises(StorageError, match="exists already"):
        r.runr()
    assert r.outputs == []
    r.overwrite = True
    assert r.plan().faults == []
    r.overwrite, r.suffix = False, "_mine"
    r.output_dir = tmp_path / "new"
    assert r.plan().faults == []


def test_a_folder_without_permission_or_space_is_a_fault(science, tmp_path, monkeypatch):
    r = Reduce(science, parameters={"do_cal": "skip"}, output_dir=tmp_path / "a" / "b")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != tmp_path)
        (fault,) = r.plan().faults
        assert "no permission" in str(fault)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=64 * 64 * 10 - 1))
    (fault,) = r.plan().faults
    assert "no space" in str(fault)
    assert not (tmp_path / "a").exists()


def test_a_name_without_suffix_does_not_replace_an_input(science, tmp_path):
    given = {"do_cal": "skip", "storeProcessedScience:suffix": ""}
    (fault,) = Reduce(science, parameters=given, output_dir=tmp_path).plan().faults
    assert "replace an input" in str(fault)
    assert Reduce(science, parameters=given, output_dir=tmp_path / "out").plan().faults == []


@pytest.mark.usefixtures("_no_pixels")
@pytest.mark.parametrize(
    ("cards", "words"), [({"EXPTIME": 7.0}, "exposure time"), ({"shape": (32, 32)}, "does not cover")]
)
def test_a_dark_given_by_hand_that_does_not_fit_is_a_fault(science, tmp_path, cards, words):
    dark = make.write(tmp_path / "other_dark.fits", kind="dark", PROCDARK="yes", BUNIT="electron", **cards)
    for given in (
        {"parameters": {"darkCorrect:dark": str(dark)}},
        {"calibrations": {"processed_dark": dark}},
    ):
        r = Reduce(science, recipe="darkCorrect", output_dir=tmp_path / "out", **given)
        (fault,) = r.plan().faults
        assert words in str(fault)
        with pytest.raises(NiripipeError, match=words):
            r.runr()


def test_the_masks_that_will_be_used_are_in_the_plan(science, tmp_path):
    mask = make.write(tmp_path / "x_bpm.fits", 0, OBJECT="BPM", BPMASK="yes", dtype="int16")
    plan = Reduce(science, parameters={"do_cal": "skip", "user_bpm": str(mask)}).plan()
    assert {plan.calibrations[path.name, "processed_bpm"] for path in science} == {"x_bpm.fits"}
    assert "processed_bpm x_bpm.fits" in str(plan)
    assert Reduce(science, parameters={"do_cal": "skip"}).plan().calibrations == {}


def test_the_recipe_of_masks_says_what_comes_first(tmp_path):
    flats = make.sequence(tmp_path, [100.0] * 2, kind="lamp_on")
    darks = make.sequence(tmp_path, [1.0] * 2, kind="dark", first=5, EXPTIME=1.0)
    with pytest.raises(InputError, match="put the flats first"):
        Reduce([*darks, *flats], recipe="makeProcessedBPM").plan()
    plan = Reduce([*flats, *darks], recipe="makeProcessedBPM", output_dir=tmp_path, overwrite=False).plan()
    assert plan.faults == []
    (tmp_path / f"{flats[0].stem}_bpm.fits").touch()
    (fault,) = (
        Reduce([*flats, *darks], recipe="makeProcessedBPM", output_dir=tmp_path, overwrite=False)
        .plan()
        .faults
    )
    assert fault.file == str(tmp_path / f"{flats[0].stem}_bpm.fits")


def test_calibrations_named_by_hand_that_are_not_there_are_faults_with_the_others(science, tmp_path):
    (tmp_path / "file").touch()
    r = Reduce(science, calibrations={"processed_dark": "absent.fits"}, parameters={"skyCorect:scale_sky": 1})
    r.output_dir = tmp_path / "file"
    faults = " ".join(str(fault) for fault in r.plan().faults)
    assert len(r.plan().faults) == 3
    assert all(words in faults for words in ("no such calibration file", "'skyCorrect'", "is no folder"))
    with pytest.raises(ParameterError, match="3 faults found"):
        r.runr()


def test_the_plan_knows_all_primitives_that_write_products():
    assert {name for name in NIRI.primitives() if name.startswith("store")} == STORES
