from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from niripipe import night
from niripipe.errors import ParameterError
from niripipe.night import JobStatus, NightPlan, NightResult
from niripipe.simulate import Night

from .conftest import hidden, same_products

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster of two processes with one thread each; what is killed is started again."""
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=str(tmp_path_factory.mktemp("dask")),
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


class Assassin(threading.Thread):
    """Kills the first process that works on a reduction; notes all processes that do."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.number = number
        self.seen: list[int] = []
        self.over = threading.Event()

    def _notes(self) -> list[Path]:
        try:
            return list(self.folder.glob(f".niripipe-night-*/{self.number}@*"))
        except FileNotFoundError:  # the night ended, and its folder is gone while it is listed
            return []

    def run(self) -> None:
        while not self.over.wait(0.005):
            for note in self._notes():
                process = int(note.name.removesuffix(".done").split("@")[2])
                if process in self.seen:
                    continue
                if not self.seen:
                    time.sleep(0.2)  # a reduction on the sky takes longer: this is in its middle
                    assert note.exists()
                    os.kill(process, signal.SIGKILL)
                self.seen.append(process)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes cannot be killed here")
def test_a_worker_that_is_killed_in_the_middle_changes_nothing_in_the_products(
    client: Any, small_plan: NightPlan, serial: NightResult, tmp_path: Path
) -> None:
    number = [job.kind for job in small_plan].index("science") + 1
    assassin = Assassin(tmp_path, number)
    assassin.start()
    try:
        result = small_plan.run(tmp_path, executor=client)
    finally:
        assassin.over.set()
        assassin.join()
    assert len(assassin.seen) == 2  # the reduction was done again, by another process
    assert result.ok
    assert same_products(result, serial)
    assert hidden(tmp_path) == []
    assert [f.name for f in result.calibrations.list_files()] == [
        f.name for f in serial.calibrations.list_files()
    ]
    assert result["science"].report is not None
    assert result["science"].report.outputs == list(result["science"].outputs)


class Register:
    """Stands in for a calibration service, and cannot be sent to another process."""

    def __init__(self) -> None:
        self.added: list[str] = []
        self.threads: set[int] = set()
        self.lock = threading.Lock()

    def add_cal(self, path: str) -> None:
        with self.lock:
            self.threads.add(threading.get_ident())
            self.added.append(path)


def test_a_reduction_that_kills_every_worker_is_given_up_and_the_others_go_on(
    client: Any,
    small_night: Night,
    tmp_path: Path,
    killer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client.cluster.scheduler, "allowed_failures", 0)
    files = [*small_night.darks, *small_night.flats, *small_night.short_darks]
    plan = night.organise(files, recipes={"bpm": killer})
    register = Register()
    result = plan.run(tmp_path, executor=client, calibrations=register)  # type: ignore[arg-type]
    assert [(r.kind, str(r.status)) for r in result] == [
        ("dark", "done"),
        ("bpm", "failed"),
        ("flat", "done"),
    ]
    assert "could not bring this reduction to an end [item: bpm; found: all workers" in result["bpm"].reason
    assert "done without processed_bpm" in result["flat"].notes[0]
    assert hidden(tmp_path) == []
    assert not (tmp_path / "half.fits").exists()
    assert sorted(Path(path).name for path in register.added) == sorted(
        Path(r.outputs[0]).name for r in result if r.outputs
    )
    assert register.threads == {threading.get_ident()}


def test_a_reduction_that_waits_on_a_worker_that_is_killed_is_not_given_up_with_the_guilty_one(
    small_night: Night, tmp_path: Path, killer: str
) -> None:
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            local_directory=str(tmp_path / "dask"),
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        cluster.scheduler.allowed_failures = 0
        files = [*small_night.darks, *small_night.flats, *small_night.short_darks]
        plan = night.organise(files, recipes={"bpm": killer})
        both = NightPlan(tuple(sorted((j for j in plan if j.kind != "flat"), key=lambda j: j.kind)))
        result = both.run(tmp_path / "products", executor=client)
    assert {r.kind: str(r.status) for r in result} == {"bpm": "failed", "dark": "done"}
    assert "all workers that tried were lost" in result["bpm"].reason


def test_what_needs_a_reduction_that_failed_is_skipped(
    client: Any, small_plan: NightPlan, tmp_path: Path
) -> None:
    broken = NightPlan(
        tuple(
            replace(job, files=(*job.files[:-1], "/nowhere/N1.fits")) if job.kind == "flat" else job
            for job in small_plan
        )
    )
    result = broken.run(tmp_path, executor=client)
    assert [str(r.status) for r in result] == ["done", "done", "failed", "skipped", "skipped"]
    assert "N1.fits" in result["flat"].reason


def test_files_that_were_there_before_are_kept_if_asked_for(
    client: Any, small_plan: NightPlan, tmp_path: Path
) -> None:
    few = NightPlan(tuple(job for job in small_plan if job.kind == "dark"))
    (tmp_path / few.job("dark").product).write_bytes(b"mine")
    result = few.run(tmp_path, executor=client, overwrite=False)
    assert result["dark"].status is JobStatus.FAILED
    assert (tmp_path / few.job("dark").product).read_bytes() == b"mine"


class Interrupting:
    """A progress display that is stopped by the user when the first reduction is done."""

    def update(self, step: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_an_interrupt_calls_off_what_waits(client: Any, small_plan: NightPlan, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        small_plan.run(tmp_path, executor=client, progress=Interrupting())
    deadline = time.monotonic() + 10
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(client.processing().values())
    assert not list(tmp_path.glob("*_image.fits"))
    assert not list(tmp_path.glob(".niripipe-night-*"))


def test_a_client_without_its_cluster_is_refused(client: Any, small_plan: NightPlan, tmp_path: Path) -> None:
    second = distributed.Client(client.cluster.scheduler_address)
    second.close()
    with pytest.raises(ParameterError, match="The client cannot be used") as caught:
        small_plan.run(tmp_path / "out", executor=second)
    assert caught.value.found == "closed"
    assert not (tmp_path / "out").exists()


def test_dask_is_not_imported_for_those_who_do_not_use_it(small_night: Night, tmp_path: Path) -> None:
    code = (
        "import sys; from niripipe import night\n"
        f"plan = night.organise({[str(path) for path in small_night.darks]!r})\n"
        f"assert plan.run({str(tmp_path)!r}).ok\n"
        "assert not {'dask', 'distributed'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
