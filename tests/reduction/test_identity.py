"""A frame is what it contains: one exposure of two names counts once, two of one name are two."""

import gzip
import hashlib
import shutil

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.dataselect import select_data
from niripipe.errors import InputError
from niripipe.night.frames import read_frames
from niripipe.night.settings import NightSettings
from niripipe.primitives.named import frames_named
from niripipe.reduction.inputs import open_inputs

from .. import frames as make


def zipped(path):
    copy = path.with_name(path.name + ".gz")
    copy.write_bytes(gzip.compress(path.read_bytes()))
    return copy


def downloaded(path):
    return shutil.copy(path, path.with_name(f"{path.stem} (1).fits"))


def linked(path):
    link = path.with_name("first_light.fits")
    link.symlink_to(path)
    return link


def changed(source, target, *, add=0, **cards):
    target.parent.mkdir(exist_ok=True)
    with fits.open(source, memmap=False) as hdus:
        hdus[1].data = hdus[1].data + np.int32(add)
        for key, value in cards.items():
            hdus[0].header[key] = value
        hdus.writeto(target)
    return target


@pytest.mark.parametrize("second", [zipped, downloaded, linked])
def test_one_exposure_under_two_names_counts_once(raw, second):
    found = open_inputs([raw, second(raw)])
    assert [frame.filename for frame in found.frames] == [raw.name]
    assert "same exposure" in found.dropped[0].reason


def test_the_plain_name_is_kept_whatever_the_order(raw):
    for copy in (zipped(raw), downloaded(raw)):
        assert [frame.filename for frame in open_inputs([copy, raw]).frames] == [raw.name]


def test_without_a_label_the_pixels_decide(raw):
    copy = changed(raw, raw.with_name("copy_of_it.fits"), DATALAB="")
    other = changed(raw, raw.with_name("other_frame.fits"), add=1, DATALAB="")
    found = open_inputs([raw, copy, other])
    assert [frame.filename for frame in found.frames] == [raw.name, other.name]


def test_an_edited_copy_counts_with_a_warning(raw, caplog):
    edited = changed(raw, raw.with_name("c" + raw.name), add=1)
    found = open_inputs([raw, edited])
    assert [frame.filename for frame in found.frames] == [raw.name, edited.name]
    assert "different pixels: both count" in caplog.text


def test_two_frames_of_one_name_are_two(raw, tmp_path):
    other = changed(
        raw, tmp_path / "night 2" / raw.name, add=1, UT="05:00:00.0", DATALAB="GN-2016A-Q-1-1-099"
    )
    found = open_inputs([raw, other])
    assert [frame.filename for frame in found.frames] == [raw.name, f"{raw.stem}-night2.fits"]
    assert found.dropped == []


def hard_linked(path):
    link = path.with_name("again.fits")
    link.hardlink_to(path)
    return link


def test_links_and_relative_paths_are_the_same_file(raw, monkeypatch):
    found = open_inputs([raw, hard_linked(raw)])
    assert [frame.filename for frame in found.frames] == [raw.name]
    monkeypatch.chdir(raw.parent)
    with pytest.raises(InputError, match=f"{raw.name} is listed more than once"):
        open_inputs([raw, raw.name])


def test_the_provenance_of_a_renamed_frame_has_its_file_and_checksum(raw, tmp_path):
    other = changed(raw, tmp_path / "night 2" / raw.name, add=1, UT="05:00:00.0", DATALAB="other-001")
    b = make.bench(open_inputs([raw, other]).frames)
    b.p.prepare()
    for frame, path in zip(b.main, (raw, other), strict=True):
        record = frame.provenance[0]
        assert (record.filename, record.md5) == (str(path), hashlib.md5(path.read_bytes()).hexdigest())


def test_frames_of_one_name_are_named_by_their_folders(raw, tmp_path):
    other = changed(raw, tmp_path / "night 2" / raw.name, add=1, UT="05:00:00.0", DATALAB="other-001")
    frames = open_inputs([raw, other]).frames
    for k, path in enumerate((raw, other)):
        assert frames_named(frames, [str(path)], "separateSky:ref_sky") == [frames[k]]
    assert frames_named(frames, [f"night 2/{raw.name}"], "separateSky:ref_sky") == [frames[1]]


@pytest.mark.parametrize("second", [zipped, downloaded, linked, hard_linked])
def test_a_selection_has_each_exposure_once(raw, second, caplog):
    copy = str(second(raw))
    assert len(select_data([copy, str(raw)])) == 1
    if second in (zipped, downloaded):
        assert select_data([copy, str(raw)]) == select_data([str(raw), copy]) == [str(raw)]
    assert "same exposure" in caplog.text


def test_a_selection_keeps_other_frames_of_the_same_name_and_edited_copies(raw, tmp_path):
    other = changed(raw, tmp_path / "night2" / raw.name, add=1, UT="05:00:00.0", DATALAB="other-001")
    edited = changed(raw, tmp_path / "edited.fits", add=1)
    files = [str(raw), str(other), str(edited)]
    assert select_data(files) == files


@pytest.mark.parametrize("second", [zipped, downloaded, linked, hard_linked])
def test_a_night_has_each_exposure_once(raw, second):
    copy = second(raw)
    frames, left_out = read_frames([raw, copy], NightSettings())
    assert len(frames) == 1
    assert [item.reason.startswith("the same frame as") for item in left_out] == [True]


def test_a_night_has_frames_of_one_name_in_two_folders_and_edited_copies(raw, tmp_path, caplog):
    other = changed(raw, tmp_path / "night2" / raw.name, add=1, UT="05:00:00.0", DATALAB="other-001")
    edited = changed(raw, tmp_path / "edited.fits", add=1)
    frames, left_out = read_frames([raw, other, edited], NightSettings())
    assert {frame.path for frame in frames} == {str(raw), str(other), str(edited)}
    assert not left_out
    assert "different pixels: both count" in caplog.text


def test_skies_in_a_file_are_the_frames_that_are_reduced(raw, tmp_path):
    """A copy of a frame, given as its sky under another name, is that frame."""
    other = changed(raw, tmp_path / "night2" / "n.fits", add=1, UT="11:50:00.0", DATALAB="other-001")
    copy = downloaded(raw)
    frames = open_inputs([raw, other]).frames
    b = make.bench(frames)
    b.p.prepare()
    b.p.associateSky(sky=[str(copy)], distance=0, time=3600)
    assert b.p.streams["sky"] == [frames[0]]


def test_a_sky_of_the_same_name_from_another_folder_is_another_frame(raw, tmp_path):
    elsewhere = changed(raw, tmp_path / "skies" / raw.name, add=1, UT="11:50:00.0", DATALAB="other-001")
    b = make.bench(open_inputs([raw]).frames)
    b.p.prepare()
    sky = astrodata.open(elsewhere)
    make.bench([sky]).p.prepare()
    b.p.associateSky(sky=[sky], distance=0, time=3600)
    assert [frame.orig_filename for frame in b.p.streams["sky"]] == [f"{raw.stem}-skies.fits"]
