"""Streams that must agree, pixels that wait on disk, calibrations that are looked up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from niripipe.errors import CalibrationError, InputError

from .. import frames as make


def numbers(frames):
    return [int(ad.orig_filename[10:14]) for ad in frames]


def test_darks_and_flats_go_into_streams_of_their_own():
    kinds = ("lamp_on", "dark", "science", "lamp_off", "dark")
    b = make.bench([make.frame(1.0, kind=kind, number=i) for i, kind in enumerate(kinds, start=1)])
    b.p.separateFlatsDarks()
    assert numbers(b.p.streams["darks"]) == [2, 5]
    assert numbers(b.p.streams["flats"]) == [1, 4]
    assert numbers(b.main) == [3]


def test_a_stream_of_copies_follows_one_from_which_frames_were_set_aside():
    b = make.prepared([make.frame(float(i), number=i) for i in (1, 2, 3, 4)])
    b.p.copyInputs(outstream="copies")
    b.p.streams["main"] = [b.main[3], b.main[1]]
    b.p.keepCommonInputs(stream="copies", source="main")
    assert numbers(b.p.streams["copies"]) == [4, 2]
    assert [float(ad[0].data[0, 0]) for ad in b.p.streams["copies"]] == [4.0, 2.0]


def test_a_recipe_that_needs_the_same_frames_twice_says_which_are_not():
    b = make.prepared([make.frame(1.0, number=i) for i in (1, 2, 3)])
    b.p.streams["sky"] = b.main[:]
    b.p.requireSameInputs(source="sky")
    b.p.streams["main"] = b.main[1:]
    with pytest.raises(InputError, match=r"'sky'.*N20160102S0001\.fits.*recipe reduce"):
        b.p.requireSameInputs(source="sky")


# ---- pixels on disk


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where folders for temporary files are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_flushed_pixels_are_on_disk_and_come_back(tmp_path, scratch):
    b = make.prepared([make.frame(make.noise(i, 1.0), number=i) for i in (1, 2)], folder=tmp_path)
    b.p.ADUToElectrons()
    before = [ad[0].read("data").copy() for ad in b.main]
    b.p.flushPixels()
    assert all(ad.nbytes == 0 for ad in b.main)
    (folder,) = scratch.iterdir()
    assert len(list(folder.iterdir())) == 2
    for ad, pixels in zip(b.main, before, strict=True):
        assert np.array_equal(ad[0].data, pixels)


def test_the_folder_of_flushed_pixels_disappears_and_products_keep_theirs(tmp_path, scratch):
    b = make.prepared([make.frame(make.noise(1, 1.0))], folder=tmp_path)
    with b.runner.store:
        b.p.ADUToElectrons()
        pixels = b.main[0][0].read("data").copy()
        b.p.flushPixels()
        assert len(list(scratch.iterdir())) == 1
    assert list(scratch.iterdir()) == []
    assert np.array_equal(b.main[0][0].data, pixels)


def test_flushing_changes_no_name_and_leaves_nothing_in_the_current_folder(scratch):
    b = make.prepared([make.frame(1.0)])
    name, before = b.main[0].filename, list(Path.cwd().iterdir())
    b.p.flushPixels(force=True)
    assert (b.main[0].filename, b.main[0].orig_filename) == (name, "N20160102S0001.fits")
    assert list(Path.cwd().iterdir()) == before


# ---- calibrations


@pytest.mark.parametrize(
    ("primitive", "caltype"),
    [
        ("getProcessedDark", "processed_dark"),
        ("getProcessedFlat", "processed_flat"),
        ("getProcessedBPM", "processed_bpm"),
        ("getBPM", "processed_bpm"),
    ],
)
def test_calibrations_are_looked_up_and_named(primitive, caltype, caplog):
    caplog.set_level("INFO", "niripipe")
    calibration = make.frame(1.0, number=50)
    b = make.bench([make.frame(1.0)], user={caltype: calibration})
    getattr(b.p, primitive)()
    assert f"{caltype} N20160102S0050.fits (user)" in caplog.text
    assert b.main[0].history[-1].status == "DONE"


@pytest.mark.parametrize(("mode", "fatal"), [("sq", True), ("ql", False), ("qa", False)])
def test_a_missing_dark_stops_science_and_is_told_elsewhere(mode, fatal):
    b = make.bench([make.frame(1.0)], mode=mode)
    if fatal:
        with pytest.raises(CalibrationError, match="No processed_dark"):
            b.p.getProcessedDark()
        return
    b.p.getProcessedDark()
    assert b.main[0].history[-1].status == "SKIPPED"


def test_a_missing_bad_pixel_mask_is_never_fatal():
    b = make.bench([make.frame(1.0)])
    b.p.getBPM()
    assert b.main[0].history[-1].reason == "no processed_bpm was found"
