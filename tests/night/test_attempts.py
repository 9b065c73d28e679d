from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from niripipe.errors import StorageError
from niripipe.night import JobStatus, NightPlan
from niripipe.night.tasks import Terms, attempt, attempts, do_job

from .conftest import hidden

HERE = platform.node()


def unfinished(folder: Path, process: int | str) -> Path:
    path = folder / f".N20160102S0001_dark.fits.{process}-3.part"
    path.write_bytes(b"SIMPLE")
    return path


def test_what_a_lost_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    product = tmp_path / "N20160102S0001_dark.fits"
    product.write_bytes(b"whole")
    with attempts(tmp_path) as notes:
        left, scratch = unfinished(tmp_path, 77), tmp_path / ".niripipe-scratch-77-abc"
        scratch.mkdir()
        (scratch / "plane").write_bytes(b"0")
        others = [unfinished(tmp_path, number) for number in (7, 777, 88, os.getpid())]
        (notes / f"1@{HERE}@77").touch()
        (notes / f"2@{HERE}@88.done").touch()
        (notes / f"3@{HERE}@{os.getpid()}").touch()
    assert not left.exists()
    assert not scratch.exists()
    assert all(path.exists() for path in others)
    assert sorted(hidden(tmp_path)) == sorted(path.name for path in others)
    assert product.read_bytes() == b"whole"


def test_the_account_is_gone_after_an_interrupt_too(tmp_path: Path) -> None:
    def interrupted() -> None:
        with attempts(tmp_path) as notes:
            (notes / f"1@{HERE}@77").touch()
            unfinished(tmp_path, 77)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hidden(tmp_path) == []


def test_an_attempt_knows_whether_it_is_the_first(tmp_path: Path) -> None:
    with attempts(tmp_path) as notes:
        with attempt(notes, 1) as again:
            assert not again
            assert [path.name for path in notes.iterdir()] == [f"1@{HERE}@{os.getpid()}"]
        with attempt(notes, 1) as again:
            assert again
        with attempt(notes, 11) as again:
            assert not again
        assert all(path.name.endswith(".done") for path in notes.iterdir())


def test_an_attempt_for_a_run_that_is_over_is_an_error(tmp_path: Path) -> None:
    with attempts(tmp_path) as notes:
        pass
    with pytest.raises(StorageError, match="is over"), attempt(notes, 1):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="output folder cannot be written"), attempts(tmp_path / "none"):
        pass


def test_a_later_attempt_replaces_its_own_product_but_not_what_was_there(
    small_plan: NightPlan, tmp_path: Path
) -> None:
    job = small_plan.job("dark")
    path = tmp_path / job.product
    with attempts(tmp_path) as notes:
        terms = Terms(str(tmp_path), 1, overwrite=False, notes=str(notes))
        first = do_job(job, 1, terms)
        assert first.status is JobStatus.DONE
        path.write_bytes(b"the answer of the first attempt was lost")
        assert do_job(job, 1, terms).outputs == first.outputs
        assert path.stat().st_size > 100000
        kept = Terms(str(tmp_path), 1, overwrite=False, kept=frozenset([path.name]), notes=str(notes))
        assert isinstance(do_job(job, 1, kept).error, StorageError)
        assert path.stat().st_size > 100000
