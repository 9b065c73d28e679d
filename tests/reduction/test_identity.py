"""A frame is what it contains: one exposure of two names counts once, two of one name are two."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.io import fits

from niripipe.reduction.inputs import open_inputs


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
