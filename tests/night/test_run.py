from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from niripipe import Reduce, astrodata, cal_service, night
from niripipe.cal_service import CalibrationService, calibration_type, facts_of, rules_for
from niripipe.errors import (
    AlgorithmError,
    CalibrationError,
    DataError,
    InputError,
    NiripipeError,
    ParameterError,
    StorageError,
)
from niripipe.night import Job, JobResult, JobStatus, NightPlan, NightResult, tasks
from niripipe.night.tasks import Terms, do_job
from niripipe.reduction import RunReport
from niripipe.reduction.report import DroppedFrame
from niripipe.simulate import Night

from .conftest import Folder, hidden, same_pixels, same_products


@pytest.fixture(scope="module")
def plan(small_plan: NightPlan) -> NightPlan:
    return small_plan


# ---- a whole night


def test_a_night_is_reduced_in_one_call(plan: NightPlan, serial: NightResult) -> None:
    assert serial.ok
    assert [Path(path).name for path in serial.products()] == [job.product for job in plan]
    assert all(Path(path).parent == serial.output_dir for path in serial.products())
    assert astrodata.open(serial.products("science")[0]).phu["NCOMBINE"] == 4


def test_the_products_are_those_of_reducing_by_hand(
    small_night: Night, serial: NightResult, tmp_path: Path
) -> None:
    caldb = CalibrationService()
    caldb.config(db_dir=tmp_path)

    def reduce(files: list[Path], **options: Any) -> str:
        reduction = Reduce(files=files, calibrations=caldb, output_dir=tmp_path, **options)
        reduction.runr()
        return reduction.output_filenames[0]

    dark = reduce(small_night.darks)
    bpm = reduce([*small_night.flats, *small_night.short_darks], recipe="makeProcessedBPM")
    flat = reduce(small_night.flats, parameters={"addDQ:user_bpm": bpm})
    caldb.add_cal(dark)
    caldb.add_cal(flat)
    options = {"addDQ:user_bpm": bpm, "skyCorrect:scale_sky": False}
    science = reduce([*small_night.target, *small_night.sky], parameters=options)
    for name, path in (("dark", dark), ("bpm", bpm), ("flat", flat), ("science", science)):
        assert same_pixels(serial[name].outputs[0], path)


def test_calibrations_are_registered_and_are_those_that_were_planned(
    small_night: Night, plan: NightPlan, serial: NightResult
) -> None:
    assert len(serial.calibrations.list_files()) == 4
    assert Path(serial.calibrations.dbfile).parent == serial.output_dir
    for calibration in plan.job("science").calibrations:
        found = serial.calibrations.get_calibrations(small_night.target[0], calibration.caltype).files[0]
        assert found is not None
        assert Path(found).name == calibration.name
    report = serial["science"].report
    assert report is not None
    assert set(report.calibrations.values()) == {c.name for c in plan.job("science").calibrations}


def test_the_plan_foresees_what_the_products_will_be(
    small_night: Night, plan: NightPlan, serial: NightResult
) -> None:
    for caltype in ("processed_dark", "processed_flat", "processed_bpm"):
        foreseen = plan.explain("science", caltype).candidates[0].assessment.facts
        name = {"processed_dark": "dark", "processed_flat": "flat", "processed_bpm": "bpm"}[caltype]
        real = facts_of(astrodata.open(serial[name].outputs[0]))
        for rule in rules_for(caltype).rules:
            assert getattr(foreseen, rule.descriptor) == getattr(real, rule.descriptor), rule.descriptor
        assert foreseen.processing_mode == real.processing_mode
        assert calibration_type(foreseen.tags) == calibration_type(real.tags) == caltype


def test_a_plan_can_be_run_again_into_the_same_folder(plan: NightPlan, tmp_path: Path) -> None:
    few = NightPlan(tuple(job for job in plan if job.kind == "dark"))
    assert few.run(tmp_path).ok
    assert few.run(tmp_path, reuse=False).ok
    kept = few.run(tmp_path, overwrite=False, reuse=False)
    assert isinstance(kept["dark"].error, StorageError)


# ---- executors


def spawned(processes: int = 2) -> Executor:
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(2), spawned], ids=["threads", "processes"])
def test_an_executor_gives_the_serial_result(
    plan: NightPlan, serial: NightResult, tmp_path: Path, make: Callable[[], Executor]
) -> None:
    with make() as executor:
        result = plan.run(tmp_path, executor=executor)
    assert result.ok
    assert [r.name for r in result] == [r.name for r in serial]
    assert same_products(result, serial)
    assert hidden(tmp_path) == []
    assert [f.name for f in result.calibrations.list_files()] == [
        f.name for f in serial.calibrations.list_files()
    ]


def test_a_broken_pool_is_a_clear_error_for_each_reduction_and_a_new_pool_ends_the_work(
    small_night: Night, plan: NightPlan, serial: NightResult, tmp_path: Path, killer: str
) -> None:
    deadly = night.organise(small_night.folder, recipes={"flat": killer})
    with spawned(1) as executor:
        broken = deadly.run(tmp_path, executor=executor)
    assert broken["flat"].status is JobStatus.FAILED
    assert "The pool of workers broke before this reduction was done [item: flat H" in broken["flat"].reason
    assert {r.name for r in broken.skipped} == {"standard FS 17 H", "science SN2014J H"}
    assert hidden(tmp_path) == []
    assert not (tmp_path / "half.fits").exists()
    with ThreadPoolExecutor(2) as executor:
        assert same_products(plan.run(tmp_path, executor=executor), serial)


def test_a_pool_that_is_broken_from_the_start_takes_nothing_with_it(plan: NightPlan, tmp_path: Path) -> None:
    def useless() -> None:
        raise ValueError("no licence")

    with ThreadPoolExecutor(1, initializer=useless) as executor:
        result = plan.run(tmp_path, executor=executor)
    assert {str(r.status) for r in result} == {"failed", "skipped"}
    assert "BrokenThreadPool" in result["dark"].reason


def test_only_executors_and_clients_are_accepted(plan: NightPlan, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="The executor cannot be used") as caught:
        plan.run(tmp_path / "out", executor=map)  # type: ignore[arg-type]
    assert caught.value.expected == "a concurrent.futures.Executor or a distributed.Client"
    assert not (tmp_path / "out").exists()


def test_a_plan_that_lacks_what_a_reduction_needs_is_refused(plan: NightPlan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not come before it") as caught:
        NightPlan(tuple(job for job in plan if job.kind != "flat")).run(tmp_path / "out")
    assert (caught.value.item, caught.value.found) == ("standard FS 17 H", "flat H")
    assert not (tmp_path / "out").exists()


def test_a_job_uses_no_calibration_that_it_does_not_name(
    plan: NightPlan, serial: NightResult, tmp_path: Path
) -> None:
    cal_service.set_calservice(serial.calibrations)
    try:
        result = do_job(plan.job("flat"), 1, Terms(str(tmp_path)))
    finally:
        cal_service.clear_calservice()
    assert result.error is None
    assert result.report is not None
    assert result.report.calibrations == {}
    science = replace(plan.job("science"), parameters={"flatCorrect:do_cal": "skip"})
    forced = do_job(science, 1, Terms(str(tmp_path)))
    assert isinstance(forced.error, CalibrationError)
    assert "the plan of the night" in str(forced.error)
    assert pickle.loads(pickle.dumps(forced)).error.candidates == ()  # noqa: S301 (our own bytes)


# ---- what the coordinator does, with reductions that only pretend


class Call(NamedTuple):
    """A reduction that was asked for."""

    name: str
    terms: Terms
    calibrations: Mapping[str, str]


def done(job: Job, terms: Terms) -> JobResult:
    return JobResult(job.name, job.kind, JobStatus.DONE, outputs=(f"{terms.output_dir}/{job.name}.fits",))


class Pretended:
    """Stands in for `reduce_job`: names a product, or fails where told to."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.calls: list[Call] = []
        self.threads: set[int] = set()
        self.lock = threading.Lock()

    def __call__(
        self, job: Job, terms: Terms, calibrations: Mapping[str, str], progress: Any = None
    ) -> JobResult:
        with self.lock:
            self.calls.append(Call(job.name, terms, calibrations))
            self.threads.add(threading.get_ident())
        if progress is not None:
            progress.update("prepare", 1, 1)
        if job.name in self.failing:
            error = self.failing[job.name]
            if isinstance(error, NiripipeError):
                return tasks.failure(job, error)
            raise error
        return done(job, terms)

    def calibrations(self, name: str) -> Mapping[str, str]:
        return next(call.calibrations for call in self.calls if call.name == name)


class Register:
    """Stands in for a calibration service."""

    def __init__(self, refusing: str = "") -> None:
        self.added: list[str] = []
        self.threads: set[int] = set()
        self.refusing = refusing

    def add_cal(self, path: str) -> None:
        self.threads.add(threading.get_ident())
        if self.refusing and self.refusing in path:
            raise StorageError("The store is read-only", file=path)
        self.added.append(Path(path).stem)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    stand_in = Pretended()
    monkeypatch.setattr(tasks, "reduce_job", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def big(messy: Folder) -> NightPlan:
    return night.organise(messy.path)


def run(plan: NightPlan, folder: Path, register: Register | None = None, **options: Any) -> NightResult:
    return plan.run(folder, calibrations=register or Register(), **options)  # type: ignore[arg-type]


def test_products_are_handed_on_by_path(big: NightPlan, pretended: Pretended, tmp_path: Path) -> None:
    register = Register()
    result = run(big, tmp_path, register)
    assert [call.name for call in pretended.calls] == [job.name for job in big]
    assert pretended.calibrations("standard FS 17 H") == {
        "processed_bpm": f"{tmp_path}/bpm.fits",
        "processed_flat": f"{tmp_path}/flat H.fits",
    }
    assert len(register.added) == 7
    assert not [name for name in register.added if "science" in name or "standard" in name]
    assert result.ok


def test_a_failed_reduction_stops_only_those_that_need_it(
    big: NightPlan, pretended: Pretended, tmp_path: Path
) -> None:
    pretended.failing["flat H"] = AlgorithmError("There is no light in this flat", found=0.0)
    result = run(big, tmp_path)
    assert [r.name for r in result.failed] == ["flat H"]
    assert [r.name for r in result.skipped] == [
        "standard FS 17 H",
        "science SN2014J H, 20.002 s",
        "science SN2014J H, 7.001 s",
    ]
    assert "flat H failed: There is no light in this flat" in result["standard"].reason
    assert result["science SN2014J K, 60.001 s"].status is JobStatus.DONE
    assert not result.ok
    with pytest.raises(AlgorithmError, match="no light"):
        result.check()
    assert "skipped" in str(result)
    assert "There is no light" in result._repr_html_()


def test_without_a_bad_pixel_mask_the_night_goes_on_and_says_so(
    big: NightPlan, pretended: Pretended, tmp_path: Path
) -> None:
    pretended.failing["bpm"] = DataError("These darks are bright")
    result = run(big, tmp_path)
    assert [r.name for r in result if r.status is not JobStatus.DONE] == ["bpm"]
    assert "processed_bpm" not in pretended.calibrations("flat H")
    assert "done without processed_bpm: bpm failed: These darks are bright" in result["flat H"].notes


def test_an_error_that_is_nobodys_data_is_recorded_too(
    big: NightPlan, pretended: Pretended, tmp_path: Path
) -> None:
    pretended.failing["flat K"] = RuntimeError("worker lost")
    pretended.failing["dark 60.001 s"] = RuntimeError("worker lost")
    result = run(big, tmp_path)
    assert result["flat K"].reason == "RuntimeError: worker lost"
    assert len(result.skipped) == 2
    with pytest.raises(NiripipeError, match="2 reductions failed"):
        result.check()


def test_a_store_that_refuses_a_product_does_not_undo_it(
    big: NightPlan, pretended: Pretended, tmp_path: Path
) -> None:
    result = run(big, tmp_path, Register(refusing="flat H"))
    assert result.ok
    assert "not registered: The store is read-only" in result["flat H"].notes[0]
    assert pretended.calibrations("standard FS 17 H")["processed_flat"].endswith("flat H.fits")


def test_only_the_coordinating_thread_touches_the_store(
    big: NightPlan, pretended: Pretended, tmp_path: Path
) -> None:
    register = Register()
    pretended.failing["dark 60.001 s"] = DataError("no")
    with ThreadPoolExecutor(2) as executor:
        result = run(big, tmp_path, register, executor=executor)
    assert register.threads == {threading.get_ident()}
    assert threading.get_ident() not in pretended.threads
    assert {call.terms.threads for call in pretended.calls} == {1}
    assert [r.name for r in result] == [job.name for job in big]
    assert [r.name for r in result.skipped] == ["science SN2014J K, 60.001 s"]


def test_independent_reductions_run_at_the_same_time(
    big: NightPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet(job: Job, terms: Terms, calibrations: Mapping[str, str], progress: Any) -> JobResult:
        if job.name.startswith("science SN2014J K"):
            meeting.wait()  # breaks unless the other is under way too
        return done(job, terms)

    monkeypatch.setattr(tasks, "reduce_job", meet)
    with ThreadPoolExecutor(4) as executor:
        assert run(big, tmp_path, executor=executor).ok


def test_an_interrupt_cancels_what_waits_and_is_passed_on(big: NightPlan, tmp_path: Path) -> None:
    class Interrupted(Executor):
        def __init__(self) -> None:
            self.futures: list[Future[Any]] = []

        def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
            if len(self.futures) == 2:
                raise KeyboardInterrupt
            self.futures.append(Future())
            return self.futures[-1]

    executor = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run(big, tmp_path, executor=executor)
    assert all(future.cancelled() for future in executor.futures)


class Shown:
    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []
        self.closed = 0

    def update(self, step: str, done: int, total: int) -> None:
        self.lines.append((step, done, total))

    def close(self) -> None:
        self.closed += 1


def test_progress_counts_reductions(big: NightPlan, pretended: Pretended, tmp_path: Path) -> None:
    here, there = Shown(), Shown()
    run(big, tmp_path, progress=here)
    with ThreadPoolExecutor(2) as executor:
        run(big, tmp_path, progress=there, executor=executor)
    assert [line[0] for line in here.lines] == [f"{k}/12 prepare" for k in range(1, 13)]
    assert there.lines[-1] == ("reductions", 12, 12)
    assert here.closed == there.closed == 1


# ---- bad data


@pytest.fixture
def damaged(small_night: Night, tmp_path: Path) -> list[Path]:
    """Copies of darks and target frames of which one dark is cut short after the plan was made."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    files = [*small_night.darks, *small_night.target, *small_night.flats]
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())
    return [folder / path.name for path in files]


def test_a_file_that_breaks_between_plan_and_run_is_a_recorded_failure(
    damaged: list[Path], tmp_path: Path
) -> None:
    plan = night.organise(damaged)
    damaged[0].write_bytes(damaged[0].read_bytes()[:20000])
    result = plan.run(tmp_path / "out")
    assert [(r.kind, str(r.status)) for r in result] == [
        ("dark", "failed"),
        ("flat", "done"),
        ("science", "skipped"),
    ]
    assert damaged[0].name in result["dark"].reason


def test_an_output_folder_that_cannot_be_made_is_an_error(plan: NightPlan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="output folder cannot be made"):
        plan.run(tmp_path / "file")


# ---- frames that are not in the product


def _result(used: int, given: int, kind: str = "science") -> NightResult:
    """A night of one reduction of which some frames were dropped."""
    names = [f"f{number}.fits" for number in range(given)]
    report = RunReport("reduce", "sq", "test", names)
    report.dropped += [DroppedFrame(name, "adjustWCSToReference", "no pairs") for name in names[used:]]
    done = JobResult("science SN", kind, JobStatus.DONE, outputs=("/x/a_image.fits",), report=report)
    return NightResult(Path("/x"), (done,), CalibrationService())


def test_lost_frames_are_in_the_remark_and_the_title() -> None:
    result = _result(3, 5)
    assert result.ok
    result.check()
    row = result.table()[0]
    assert row["remark"] == (
        "3 of 5 frames used; left out: f3.fits, f4.fits (adjustWCSToReference: no pairs)"
    )
    assert "frames are missing in: science SN" in str(result).splitlines()[0]
    assert "frames are missing" not in str(_result(5, 5))


def test_a_product_of_less_than_half_of_its_frames_is_not_ok() -> None:
    assert _result(2, 4).ok
    result = _result(4, 11)
    assert not result.ok
    assert not result.failed
    assert result.table()[0]["remark"].startswith("NOT OK, less than half: 4 of 11 frames used; ")
    with pytest.raises(AlgorithmError, match="4 of 11 frames used"):
        result.check()


def test_a_night_says_which_frames_were_lost_here_and_on_workers(
    small_plan: NightPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tmp_path / "own.py"
    recipe.write_text("def keep(p):\n    p.prepare()\n")
    science = small_plan.job("science")
    some = [str(path) for path in science.files[:3]]
    broken = tmp_path / "N20160102S0999.fits"
    broken.write_bytes(Path(some[1]).read_bytes()[:4000])
    given = (some[0], str(broken), some[2])
    alone = replace(
        science, files=given, recipe=f"{recipe}.keep", calibrations=(), parameters={}, sky_files=(), name="a"
    )
    plan = replace(small_plan, jobs=(alone,))
    for number, executor in enumerate((None, ThreadPoolExecutor(1))):
        caplog.clear()
        result = plan.run(tmp_path / str(number), executor=executor)
        warnings = [r.getMessage() for r in caplog.records if "2 of 3 frames used" in r.getMessage()]
        assert warnings
        assert "2 of 3 frames used; left out: N20160102S0999.fits" in str(result)
        if executor is not None:
            executor.shutdown()
            assert any(text.startswith("a: ") for text in warnings)


def test_the_archives_mask_is_used_besides_the_one_that_the_night_makes(
    small_night: Night, tmp_path: Path
) -> None:
    raw = small_night.target[0]
    shape = astrodata.open(raw)[0].shape
    caldb = CalibrationService()
    caldb.config(db_dir=tmp_path)
    caldb.init()
    path = tmp_path / "bpm_20010317_niri_niri_11_full_1amp.fits"
    written = cal_service.register_bpm(
        np.zeros(shape), tmp_path / "a.fits", like=raw, valid_from="2001-03-17", service=None
    )
    static = astrodata.open(written)
    static.phu.remove("BPMOWN")
    static.write(path)
    caldb.add_cal(str(path))
    plan = night.organise(raw.parent, calibrations=caldb)
    for name in ("science", "flat"):
        job = plan.job(name)
        assert [c.job for c in job.calibrations if c.caltype == "processed_bpm"] == ["bpm"]
        assert job.parameters["addDQ:user_bpm"] == [str(path)]
        assert any("united" in reason for reason in job.reasons)
    mine = {"science": {"addDQ:user_bpm": written}}
    both = night.organise(raw.parent, calibrations=caldb, parameters=mine).job("science")
    assert both.parameters["addDQ:user_bpm"] == [written, str(path)]
