"""The controller: from files to products, the way of DRAGONS scripts and the way of embedding programs."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, astrodata, cal_service
from niripipe.cal_service import CalibrationService
from niripipe.errors import CalibrationError, InputError, ParameterError, StorageError
from niripipe.reduction.progress import ProgressBar

from .. import frames as make

LEVELS = [3.0, 4.0, 5.0]


@pytest.fixture
def darks(tmp_path: Path) -> list[Path]:
    return make.sequence(tmp_path, LEVELS, kind="dark", first=20)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "products"


def simple(p):
    p.prepare()
    p.addDQ(static_bpm=None)
    p.ADUToElectrons()


@pytest.fixture(autouse=True)
def _no_service():
    cal_service.clear_calservice()
    yield
    cal_service.clear_calservice()


# ---- the two ways


def test_the_way_of_dragons_scripts(darks):
    r = Reduce()
    r.files.extend(str(path) for path in darks)
    r.runr()
    assert r.output_filenames == ["N20160102S0020_dark.fits"]
    written = astrodata.open(r.output_filenames[0])
    np.testing.assert_allclose(written[0].data, 4 * make.GAIN, rtol=1e-6)
    assert {"PROCESSED", "DARK"} <= written.tags
    assert r.recipename == "_default"


def test_the_explicit_way(darks, out):
    r = Reduce(files=darks, recipe="makeProcessedDark", output_dir=out)
    r.runr()
    assert r.output_filenames == [str(out / "N20160102S0020_dark.fits")]
    assert [p.name for p in out.iterdir()] == ["N20160102S0020_dark.fits"]
    assert list(Path.cwd().iterdir()) == []
    (product,) = r.outputs
    np.testing.assert_array_equal(product[0].data, astrodata.open(r.output_filenames[0])[0].data)
    assert r.report.recipe == "makeProcessedDark"
    assert r.report.outputs == r.output_filenames
    assert r.report.seconds > 0
    assert [step.primitive for step in r.report.steps][-2:] == ["stackDarks", "storeProcessedDark"]


def test_a_list_file_and_frames_in_memory_are_inputs_too(darks, out, tmp_path):
    (tmp_path / "darks.lis").write_text("\n".join(map(str, darks[1:])))
    r = Reduce([astrodata.open(darks[0]), f"@{tmp_path / 'darks.lis'}"], output_dir=out)
    r.runr()
    np.testing.assert_allclose(r.outputs[0][0].data, 4 * make.GAIN, rtol=1e-6)
    assert Path(r.output_filenames[0]).name == "N20160102S0020_dark.fits"


def test_one_file_may_be_given_without_a_list(darks, out):
    for given in (darks[0], str(darks[0]), astrodata.open(darks[0])):
        r = Reduce(given, recipe=simple, output_dir=out)
        r.runr()
        assert len(r.outputs) == 1


def test_frames_of_the_caller_are_not_changed(darks, out):
    frames = [astrodata.open(path) for path in darks]
    before = [(ad.phu.tostring(), ad[0].hdr.tostring(), ad.filename) for ad in frames]
    Reduce(frames, output_dir=out).runr()
    assert [(ad.phu.tostring(), ad[0].hdr.tostring(), ad.filename) for ad in frames] == before
    assert [float(ad[0].data[0, 0]) for ad in frames] == LEVELS
    assert all(ad[0].mask is None and ad[0].variance is None and ad.history == [] for ad in frames)


def test_the_raw_files_are_not_changed(darks, out):
    before = [path.read_bytes() for path in darks]
    Reduce(darks, output_dir=out).runr()
    assert [path.read_bytes() for path in darks] == before


# ---- parameters


@pytest.mark.parametrize(
    "uparms",
    [
        [("stackDarks:operation", "median")],
        {"stackDarks:operation": "median"},
        {"stackDarks": {"operation": "median"}},
        [("operation", "median")],
        {" operation ": "median"},
    ],
)
def test_user_parameters_are_taken_in_every_form(tmp_path, out, uparms):
    darks = make.sequence(tmp_path, [3.0, 4.0, 11.0], kind="dark")
    r = Reduce(darks, output_dir=out)
    r.uparms = uparms
    r.runr()
    np.testing.assert_allclose(r.outputs[0][0].data, 4 * make.GAIN, rtol=1e-6)


def test_the_parameters_of_the_constructor_are_the_uparms(darks):
    r = Reduce(darks, parameters={"addDQ": {"latency": False, "time": 3}})
    assert dict(r.uparms) == {"addDQ:latency": False, "addDQ:time": 3}


@pytest.mark.parametrize("uparms", ["addDQ", [("a", 1, 2)], [3], {3: 4}, {"a:b:c": 1}, 7])
def test_parameters_in_no_known_form_are_refused(darks, out, uparms):
    r = Reduce(darks, output_dir=out)
    r.uparms = uparms
    with pytest.raises(ParameterError):
        r.runr()
    assert not out.exists()


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_a_number_of_threads_that_is_none_is_refused(darks, out, threads):
    with pytest.raises(ParameterError, match="threads"):
        Reduce(darks, output_dir=out, threads=threads).runr()


@pytest.mark.parametrize("recipe", ["_default", simple])
def test_an_unknown_mode_is_refused_whatever_the_recipe(darks, out, recipe):
    with pytest.raises(InputError, match="mode"):
        Reduce(darks, output_dir=out, mode="fast", recipe=recipe).runr()
    assert not out.exists()


# ---- calibrations


@pytest.fixture
def dark(darks, tmp_path) -> Path:
    r = Reduce(darks, output_dir=tmp_path / "cal")
    r.runr()
    return Path(r.output_filenames[0])


def corrected(p):
    simple(p)
    p.darkCorrect()


@pytest.mark.parametrize("form", ["dict", "list", "text", "memory", "calibrations", "parameter"])
def test_calibrations_can_be_named_by_hand_in_every_form(tmp_path, out, dark, form):
    science = make.sequence(tmp_path, [100.0, 110.0])
    r = Reduce(science, recipe=corrected, output_dir=out)
    if form == "parameter":
        r.uparms = [("darkCorrect:dark", str(dark))]
    elif form == "calibrations":
        r = Reduce(science, recipe=corrected, output_dir=out, calibrations={"processed_dark": dark})
    else:
        r.ucals = {
            "dict": {"processed_dark": str(dark)},
            "list": [f"processed_dark:{dark}"],
            "text": f"processed_dark:{dark}",
            "memory": {"processed_dark": astrodata.open(dark)},
        }[form]
    r.runr()
    assert [float(ad[0].data[0, 0]) for ad in r.outputs] == pytest.approx([96 * make.GAIN, 106 * make.GAIN])
    assert {ad.phu["DARKIM"] for ad in r.outputs} == {dark.name}
    assert r.report.calibrations == {(p.name, "processed_dark"): dark.name for p in science}


@pytest.mark.parametrize(
    ("ucals", "error"),
    [
        ({"processed_drak": "x.fits"}, ParameterError),
        ({"processed_dark": "absent.fits"}, InputError),
        ({"processed_flat": "DARK"}, CalibrationError),
        (["processed_dark"], ParameterError),
    ],
)
def test_calibrations_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path, out, dark, ucals, error
):
    r = Reduce(make.sequence(tmp_path, [100.0]), recipe=corrected, output_dir=out)
    r.ucals = (
        {k: str(dark) if v == "DARK" else v for k, v in ucals.items()} if isinstance(ucals, dict) else ucals
    )
    with pytest.raises(error):
        r.runr()
    assert not out.exists()


def test_the_current_service_is_used_unless_another_is_given(tmp_path, out, dark):
    science = make.sequence(tmp_path, [100.0])
    services = []
    for name in ("a", "b"):
        service = CalibrationService()
        service.config(db_dir=tmp_path / f"{name}.db")
        service.init()
        services.append(service)
    services[0].add_cal(dark)
    cal_service.set_calservice(services[0])
    Reduce(science, recipe=corrected, output_dir=out).runr()
    with pytest.raises(CalibrationError):
        Reduce(science, recipe=corrected, output_dir=out, calibrations=services[1]).runr()


# ---- outputs


def test_the_suffix_of_the_products_can_be_chosen(darks, out):
    r = Reduce(darks, output_dir=out, suffix="_mine")
    r.runr()
    assert Path(r.output_filenames[0]).name == "N20160102S0020_mine.fits"
    assert Path(r.output_filenames[0]).exists()


def test_what_a_recipe_leaves_in_the_main_stream_is_written(darks, out):
    r = Reduce(darks, recipe=simple, output_dir=out)
    r.runr()
    names = [f"N20160102S{i:04d}_ADUToElectrons.fits" for i in (20, 21, 22)]
    assert [Path(p).name for p in r.output_filenames] == names
    assert sorted(p.name for p in out.iterdir()) == names


def test_frames_that_were_not_changed_are_not_written(darks, out):
    r = Reduce(darks, recipe="showInputs", output_dir=out)
    r.runr()
    assert r.output_filenames == []
    assert len(r.outputs) == 3


def test_a_single_primitive_is_a_recipe(darks, out):
    r = Reduce(darks, recipe="prepare", output_dir=out)
    r.runr()
    assert Path(r.output_filenames[0]).name == "N20160102S0020_prepared.fits"


def test_products_replace_older_ones_unless_told_otherwise(darks, out):
    Reduce(darks, output_dir=out).runr()
    Reduce(darks, output_dir=out).runr()
    (product,) = out.iterdir()
    before = product.read_bytes()
    with pytest.raises(StorageError, match=product.name):
        Reduce(darks, output_dir=out, overwrite=False).runr()
    assert product.read_bytes() == before


def test_no_raw_file_is_ever_replaced(darks, tmp_path):
    def renamed(p):
        p.prepare(suffix=None)

    before = [path.read_bytes() for path in darks]
    r = Reduce(darks, recipe=renamed, output_dir=tmp_path)
    r.runr()
    assert [path.read_bytes() for path in darks] == before


def test_the_output_folder_is_made_with_its_parents_or_refused(darks, tmp_path):
    r = Reduce(darks, output_dir=tmp_path / "a" / "b")
    r.runr()
    assert Path(r.output_filenames[0]).parent == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(StorageError, match="output folder"):
            Reduce(darks, output_dir=folder).runr()


# ---- life of the object


def test_one_object_serves_one_reduction_after_the_other(tmp_path, out):
    r = Reduce(make.sequence(tmp_path / "a", [1.0, 2.0, 3.0], kind="dark"), output_dir=out)
    r.runr()
    first, report = r.outputs, r.report
    r.files[:] = make.sequence(tmp_path / "b", [10.0, 20.0, 30.0], kind="lamp_on", first=50)
    r.runr()
    assert [Path(p).name for p in r.output_filenames] == ["N20160102S0050_flat.fits"]
    assert r.report is not report
    np.testing.assert_allclose(first[0][0].data, 2 * make.GAIN, rtol=1e-6)
    assert r.recipename == "_default"


def test_after_a_failed_run_nothing_is_left_of_the_run_before(darks, out):
    r = Reduce(darks, output_dir=out)
    r.runr()
    r.files.append("absent.fits")
    with pytest.raises(InputError):
        r.runr()
    assert (r.outputs, r.output_filenames, r.report) == ([], [], None)


def test_the_report_of_a_run_that_failed_on_the_way_says_how_far_it_came(darks, out):
    def mine(p):
        simple(p)
        p.makeLampFlat()

    r = Reduce(darks, recipe=mine, output_dir=out)
    with pytest.raises(InputError):
        r.runr()
    assert [step.primitive for step in r.report.steps] == [
        "prepare",
        "addDQ",
        "ADUToElectrons",
        "makeLampFlat",
    ]
    assert r.report.seconds > 0


def test_an_unknown_primitive_in_a_recipe_is_answered_with_the_nearest(darks, out):
    def mine(p):
        p.prepare()
        p.adDQ()

    with pytest.raises(Exception, match="addDQ") as caught:
        Reduce(darks, recipe=mine, output_dir=out).runr()
    assert isinstance(caught.value, InputError | ParameterError)


def test_two_reductions_in_two_threads_equal_one_after_the_other(tmp_path):
    levels = {"a": [3.0, 4.0, 11.0], "b": [30.0, 40.0, 110.0]}
    settings = {"a": "median", "b": "mean"}
    nights = {
        key: make.sequence(tmp_path / key, [make.noise(i, 5, v) for i, v in enumerate(values)], kind="dark")
        for key, values in levels.items()
    }

    def reduce(key, folder):
        r = Reduce(nights[key], output_dir=tmp_path / folder / key, parameters={"operation": settings[key]})
        r.runr()
        return r

    alone = {key: reduce(key, "alone").outputs[0][0].data for key in nights}
    for attempt in range(3):
        results = {}

        def work(key, attempt=attempt, results=results):
            results[key] = reduce(key, f"together{attempt}")

        workers = [threading.Thread(target=work, args=(key,)) for key in nights]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for key in nights:
            np.testing.assert_array_equal(results[key].outputs[0][0].data, alone[key])


def test_the_process_is_left_as_it_was(darks, out):
    here, environment, threads = Path.cwd(), dict(os.environ), threading.active_count()
    Reduce(darks, output_dir=out).runr()
    assert Path.cwd() == here
    assert dict(os.environ) == environment
    assert threading.active_count() == threads


def test_the_number_of_threads_does_not_matter(tmp_path, out):
    darks = make.sequence(tmp_path, [make.noise(i, 9, 100) for i in range(6)], kind="dark")
    found = []
    for threads in (1, 2, 4):
        r = Reduce(darks, output_dir=out, threads=threads)
        r.runr()
        found.append((r.outputs[0][0].data, r.outputs[0][0].variance, r.outputs[0][0].mask))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_progress_is_shown_on_request_only(darks, out, capsys):
    Reduce(darks, output_dir=out).runr()
    assert capsys.readouterr() == ("", "")
    shown = io.StringIO()
    Reduce(darks, output_dir=out, progress=ProgressBar(shown, interval=0)).runr()
    assert "stackDarks" in shown.getvalue()


def test_a_reduction_describes_itself(darks):
    assert repr(Reduce(darks)) == "<Reduce _default (sq): 3 files, 0 outputs>"
    assert "simple" in repr(Reduce(darks, recipe=simple))
