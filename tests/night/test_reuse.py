"""A night that runs again does what is not finished or has changed, and nothing else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from niripipe import night
from niripipe.night import NightPlan, NightResult, reuse
from niripipe.night.reuse import MANIFEST, fingerprint
from niripipe.reduction import Reduce

from .. import frames as make


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two sets of darks."""
    folder = tmp_path / "raw"
    make.sequence(folder, [3.0, 4.0], kind="dark", first=1)
    make.sequence(folder, [5.0, 6.0], kind="dark", first=11, EXPTIME=40.0)
    return folder


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first file of each reduction that is really done."""
    done: list[str] = []
    real = Reduce.runr
    monkeypatch.setattr(
        Reduce, "runr", lambda self: (done.append(Path(str(self.files[0])).name), real(self))[1]
    )
    return done


def first_and_second(plan: NightPlan, folder: Path, **options: object) -> tuple[NightResult, NightResult]:
    return plan.run(folder), plan.run(folder, **options)  # type: ignore[arg-type]


def test_what_is_finished_is_not_done_again_and_the_result_says_so(raw, tmp_path, runs):
    plan = night.organise(raw)
    first, second = first_and_second(plan, tmp_path / "out")
    assert len(runs) == len(plan) == 2
    assert not any(result.reused for result in first)
    assert second.ok
    assert all(result.reused and result.notes[0].startswith("reused, made 20") for result in second)
    assert "2 reused" in second.table().title
    assert second.products() == first.products()
    assert len(second.calibrations.list_files()) == 2
    with ThreadPoolExecutor(1) as pool:
        assert all(result.reused for result in plan.run(tmp_path / "out", executor=pool, overwrite=False))
    assert len(runs) == 2
    assert not any(result.reused for result in plan.run(tmp_path / "out", reuse=False))


def change_a_raw_frame(plan, raw, out, patch):
    make.write(raw / make.name(1), 9.0, kind="dark", UT="08:01:00.0", DATALAB="GN-2016A-Q-1-5-001")
    return night.organise(raw)


def change_a_parameter(plan, raw, out, patch):
    return plan.with_parameters({plan.jobs[0].name: {"stackDarks:operation": "median"}})


def change_the_product(plan, raw, out, patch):
    path = out / plan.jobs[0].product
    path.write_bytes(path.read_bytes() + bytes(2880))
    return plan


def remove_the_product(plan, raw, out, patch):
    (out / plan.jobs[0].product).unlink()
    return plan


def add_a_frame(plan, raw, out, patch):
    make.sequence(raw, [5.0], kind="dark", first=3)
    return night.organise(raw)


@pytest.mark.parametrize(
    "change", [change_a_raw_frame, change_a_parameter, change_the_product, remove_the_product, add_a_frame]
)
def test_what_has_changed_is_done_again_and_nothing_else(raw, tmp_path, runs, monkeypatch, change):
    plan = night.organise(raw)
    plan.run(tmp_path / "out")
    runs.clear()
    plan = change(plan, raw, tmp_path / "out", monkeypatch)
    result = plan.run(tmp_path / "out")
    assert result.ok
    assert [one.reused for one in result] == [False, True]
    assert runs == [make.name(1)]


def test_another_version_and_a_damaged_account_do_all_again(raw, tmp_path, runs, monkeypatch, caplog):
    plan = night.organise(raw)
    plan.run(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(reuse, "__version__", "0.0.0")
        assert not any(result.reused for result in plan.run(tmp_path / "out"))
    (tmp_path / "out" / MANIFEST).write_text("{")
    assert not any(result.reused for result in plan.run(tmp_path / "out"))
    assert "everything is reduced again" in caplog.text
    assert all(result.reused for result in plan.run(tmp_path / "out"))


def test_times_of_files_and_their_folder_do_not_matter(raw, tmp_path, runs):
    night.organise(raw).run(tmp_path / "out")
    for path in raw.iterdir():
        os.utime(path, ns=(0, 1))
    moved = raw.rename(tmp_path / "moved")
    assert all(result.reused for result in night.organise(moved).run(tmp_path / "out"))


def test_what_decides_a_product_is_in_its_fingerprint(raw, tmp_path):
    job = night.organise(raw).jobs[0]
    mask, other = tmp_path / "a_bpm.fits", tmp_path / "b_bpm.fits"
    make.write(mask, 0, OBJECT="BPM", BPMASK="yes")
    make.write(other, 1, OBJECT="BPM", BPMASK="yes")
    made = [
        fingerprint(job, {}),
        fingerprint(job, {"processed_bpm": str(mask)}),
        fingerprint(job, {"processed_bpm": str(other)}),
        fingerprint(replace(job, mode="ql"), {}),
        fingerprint(replace(job, recipe="makeProcessedFlat"), {}),
        fingerprint(replace(job, files=job.files[::-1]), {}),
        fingerprint(replace(job, parameters={"addDQ:user_bpm": str(mask)}), {}),
    ]
    assert None not in made
    assert len(set(made)) == len(made)
    before = fingerprint(replace(job, parameters={"addDQ:user_bpm": str(mask)}), {})
    make.write(mask, 2, OBJECT="BPM", BPMASK="yes")
    assert fingerprint(replace(job, parameters={"addDQ:user_bpm": str(mask)}), {}) != before
    assert fingerprint(job, {"processed_bpm": str(tmp_path / "absent.fits")}) is None
    assert fingerprint(replace(job, parameters={"addDQ:user_bpm": object()}), {}) is None


def test_a_quick_look_does_not_replace_the_night(raw, tmp_path):
    full = night.organise(raw).run(tmp_path / "out")
    before = {path: Path(path).read_bytes() for path in full.products()}
    quick = night.organise(raw, mode="ql").run(tmp_path / "out")
    assert quick.ok
    assert all("_ql_dark" in path for path in quick.products())
    assert {path: Path(path).read_bytes() for path in full.products()} == before
