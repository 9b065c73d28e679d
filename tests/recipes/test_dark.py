"""Darks from raw frames to the product, against the truth of a simulated night."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from niripipe import astrodata


@pytest.fixture(scope="module")
def dark(reduced):
    return astrodata.open(reduced.dark.output_filenames[0])


def _good(night):
    good = np.ones((256, 256), bool)
    for bad in (night.truth.hot, night.truth.warm, night.truth.dead):
        good[bad[:, 0], bad[:, 1]] = False
    return good


def test_the_product_is_named_after_the_first_frame(reduced, dark):
    assert dark.filename == f"{Path(reduced.night.darks[0]).stem}_dark.fits"
    assert {"PROCESSED", "DARK", "CAL"} <= dark.tags
    assert dark.phu["NCOMBINE"] == 6


def test_its_level_is_that_of_the_raw_frames_in_electrons(dark, reduced):
    good = _good(reduced.night)
    raw = np.median([astrodata.open(path)[0].data for path in reduced.night.darks], axis=0)
    assert np.mean(dark[0].data[good]) == pytest.approx(12.3 * np.mean(raw[good]), abs=1.0)


def test_hot_pixels_stand_out(dark, reduced):
    hot = reduced.night.truth.hot
    assert (dark[0].data[hot[:, 0], hot[:, 1]] > 1000).all()


def test_its_variance_is_that_of_its_pixels(dark, reduced):
    good = _good(reduced.night)
    middle = (slice(64, 192), slice(64, 192))
    values = dark[0].data[middle][good[middle]]
    deviations = (values - np.median(values)) / np.sqrt(dark[0].variance[middle][good[middle]])
    assert 1.4826 * np.median(np.abs(deviations)) == pytest.approx(1, abs=0.1)


def test_no_cosmic_ray_is_left(dark, reduced):
    hits = np.concatenate([reduced.night.truth.cosmic_rays[p.name] for p in reduced.night.darks])
    bright = hits[hits[:, 2] > 1500].astype(int)
    good = _good(reduced.night)
    y, x = bright[:, 0], bright[:, 1]
    left = (dark[0].data[y, x] > 200) & good[y, x] & (dark[0].mask[y, x] == 0)
    assert len(bright) > 5
    assert left.sum() == 0


def test_what_was_done_and_what_was_not_is_in_the_history(dark):
    history = {record.primitive: record.status for record in dark.history}
    assert history == {
        "prepare": "DONE",
        "checkCalibrationInputs": "DONE",
        "addDQ": "DONE",
        "nonlinearityCorrect": "DONE",
        "ADUToElectrons": "DONE",
        "addVAR": "DONE",
        "stackDarks": "DONE",
        "storeProcessedDark": "DONE",
    }
