"""Flats and bad pixel masks from raw frames, against the truth of a simulated night."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.astrodata import DQ
from niripipe.errors import InputError


@pytest.fixture(scope="module")
def flat(reduced):
    return astrodata.open(reduced.flat.output_filenames[0])


@pytest.fixture(scope="module")
def bpm(reduced):
    return astrodata.open(reduced.bpm.output_filenames[0])


def test_the_flat_is_normalised_and_named_after_the_first_frame_with_the_lamp_on(flat, reduced):
    assert flat.filename == reduced.night.of_kind("flat_on")[0].name.replace(".fits", "_flat.fits")
    assert {"PROCESSED", "FLAT", "CAL"} <= flat.tags
    assert np.median(flat[0].data[flat[0].mask == 0]) == pytest.approx(1, abs=1e-3)


def test_the_flat_has_the_variance_of_its_pixels(flat):
    # The pixel response (0.012 rms) and the noise add up to the scatter between neighbours.
    ext = flat[0]
    difference = (ext.data[:, 1:] - ext.data[:, :-1])[(ext.mask[:, 1:] == 0) & (ext.mask[:, :-1] == 0)]
    scatter = 1.4826 * np.median(np.abs(difference)) / np.sqrt(2)
    assert scatter == pytest.approx(np.hypot(0.012, np.sqrt(np.median(ext.variance))), rel=0.06)


def test_the_flat_can_be_divided_by_everywhere(flat):
    assert np.isfinite(flat[0].data).all()
    assert (flat[0].data >= 0.01).all()
    assert (flat[0].variance >= 0).all()


def test_the_stored_mask_was_used_for_the_flat(flat, bpm):
    bad = bpm[0].data > 0
    assert (flat[0].mask[bad] & DQ.bad_pixel).all()
    assert flat.phu["BPMIM"] == bpm.filename
    assert not (flat[0].mask[~bad] & DQ.bad_pixel).any()


def test_dead_and_hot_pixels_are_in_the_mask_and_little_else(bpm, reduced):
    truth = reduced.night.truth
    bad = bpm[0].data > 0
    wrong = np.concatenate([truth.dead, truth.hot])
    assert bad[wrong[:, 0], wrong[:, 1]].mean() > 0.97
    known = np.zeros_like(bad)
    for pixels in (truth.dead, truth.hot, truth.warm):
        known[pixels[:, 0], pixels[:, 1]] = True
    assert np.count_nonzero(bad & ~known) <= 5


def test_the_mask_is_a_calibration_that_the_service_finds(bpm, reduced):
    assert {"BPM", "CAL", "PROCESSED"} <= bpm.tags
    assert set(np.unique(bpm[0].data)) == {0, 1}
    found = reduced.caldb.get_processed_bpm([astrodata.open(reduced.night.target[0])])
    assert found.files == [reduced.bpm.output_filenames[0]]


def test_a_mask_without_darks_is_refused_and_nothing_is_written(reduced, tmp_path):
    with pytest.raises(InputError, match="0 darks"):
        reduced.reduce(reduced.night.flats, str(tmp_path / "none"), recipe="makeProcessedBPM")
    assert list((tmp_path / "none").iterdir()) == []
