"""Failed writes and interrupts: a product is complete or not there, and an older one survives."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from niripipe import Reduce, astrodata
from niripipe.astrodata import fits_write
from niripipe.errors import NiripipeError, StorageError
from niripipe.primitives.niri import NIRI

from .. import frames as make


def everything(*folders: Path) -> list[str]:
    return sorted(str(p) for folder in folders for p in folder.rglob("*"))


@contextmanager
def disk_full() -> Iterator[None]:
    """No file may grow beyond 10 kB, as on a disk that fills while a product is written.

    The limit holds for the whole process, also for the file that a test run is logged to: it is lifted
    before the test ends.
    """
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_while_a_product_is_written_leaves_no_file(darks, out):
    with disk_full(), pytest.raises(StorageError, match=r"N20160102S0020_dark\.fits.*space"):
        Reduce(darks, output_dir=out).runr()
    assert everything(out) == []


def test_a_rename_that_fails_leaves_no_file(darks, out, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EIO, "Input/output error")

    for name in ("replace", "rename", "link"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="_dark"):
        Reduce(darks, output_dir=out).runr()
    assert everything(out) == []


def test_a_write_that_fails_keeps_the_older_product(darks, out, monkeypatch):
    Reduce(darks, output_dir=out).runr()
    (product,) = out.iterdir()
    before = product.read_bytes()

    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match=product.name):
        Reduce(darks, output_dir=out).runr()
    assert everything(out) == [str(product)]
    assert product.read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_while_writing_leaves_no_file(darks, out, monkeypatch, error):
    def refuse(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(error):
        Reduce(darks, output_dir=out).runr()
    assert everything(out) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(darks, out):
    out.mkdir()
    out.chmod(0o500)
    with pytest.raises(StorageError, match=str(out)):
        Reduce(darks, output_dir=out).runr()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["addVAR", "stackDarks", "storeProcessedDark"])
def test_an_interrupt_in_a_primitive_leaves_no_files_and_no_threads(
    darks, out, tmp_path, monkeypatch, threads, where
):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    before, alive = everything(tmp_path), threading.active_count()
    monkeypatch.setattr(NIRI.primitives()[where], "function", interrupted)
    r = Reduce(darks, output_dir=out, threads=threads)
    with pytest.raises(KeyboardInterrupt):
        r.runr()
    assert [p for p in everything(tmp_path) if p not in before] == [str(out)]
    assert everything(Path.cwd()) == []
    assert threading.active_count() == alive
    assert r.outputs == []
    assert r.output_filenames == []


def test_after_an_interrupt_the_same_object_runs_again(darks, out, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    r = Reduce(darks, output_dir=out)
    with monkeypatch.context() as patch:
        patch.setattr(NIRI.primitives()["stackDarks"], "function", interrupted)
        with pytest.raises(KeyboardInterrupt):
            r.runr()
    r.runr()
    assert len(list(out.iterdir())) == 1


def test_a_reduction_that_fails_late_leaves_no_product(science, out):
    def recipe(p):
        p.prepare()
        p.addDQ(static_bpm=None)
        p.makeLampFlat()
        p.storeProcessedFlat()

    with pytest.raises(NiripipeError):
        Reduce(science, recipe=recipe, output_dir=out).runr()
    assert everything(out) == []


def test_a_second_product_that_fails_leaves_the_first_complete(darks, out, monkeypatch):
    real = fits_write.write
    calls = []

    def second_fails(ad, path, **options):
        calls.append(path)
        if len(calls) == 2:
            raise StorageError("the disk is full", file=path)
        real(ad, path, **options)

    monkeypatch.setattr(fits_write, "write", second_fails)
    with pytest.raises(StorageError):
        Reduce(darks, recipe="prepare", output_dir=out).runr()
    (first,) = out.iterdir()
    assert astrodata.open(first)[0].data[0, 0] == 3


def test_an_error_in_a_users_recipe_reaches_the_user_as_it_is(darks, out):
    def recipe(p):
        p.prepare()
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Reduce(darks, recipe=recipe, output_dir=out).runr()
    assert everything(out) == []


def test_frames_are_made_for_these_tests_with_realistic_headers():
    ad = make.frame()
    assert {"NIRI", "IMAGE", "RAW", "UNPREPARED"} <= ad.tags
    assert ad.read_mode() == "Medium Background"
    assert ad.well_depth_setting() == "Shallow"
    assert ad[0].pixel_scale() == pytest.approx(make.SCALE, rel=1e-4)
