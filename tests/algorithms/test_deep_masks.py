"""Sources that single frames hardly show are found in their sum, wherever they lie in each frame."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms.deep_masks import binned, box_medians, deep_sources

SHIFTS = np.array([[0, 0], [24, -8], [-16, 20], [8, 12], [-20, -24], [12, -28]])


def frames(light: float):
    """Noise of 40, and a source of sigma 10 pixels at (130, 110) that the dithers move, by plain numpy."""
    y, x = np.mgrid[:256, :256]
    made = []
    for k, (dy, dx) in enumerate(SHIFTS):
        data = np.random.default_rng(k).normal(0, 40, y.shape)
        data += light * np.exp(-((y - 130 - dy) ** 2 + (x - 110 - dx) ** 2) / 200)
        good = np.ones(y.shape, bool)
        made.append(binned(data.astype(np.float32), good, ~good, 4))
    return made


def test_a_source_is_masked_where_each_frame_shows_it() -> None:
    bins = frames(10.0)
    skies = [np.zeros((64, 64), np.float32)] * len(bins)
    found = deep_sources(bins, skies, SHIFTS / 4)
    alone = deep_sources(bins[:1], skies[:1], SHIFTS[:1] / 4)
    assert not alone.mask(0, (64, 64), 1.0)[30:36, 25:31].any()
    for k, (dy, dx) in enumerate(SHIFTS):
        mask = found.mask(k, (64, 64), 1.0)
        y, x = (130 + dy) // 4, (110 + dx) // 4
        assert mask[y - 2 : y + 3, x - 2 : x + 3].all()
        assert mask.mean() < 0.15


def test_noise_has_no_sources() -> None:
    bins = frames(0.0)
    found = deep_sources(bins, [np.zeros((64, 64), np.float32)] * len(bins), SHIFTS / 4)
    assert np.mean([found.mask(k, (64, 64), 1.0).mean() for k in range(len(bins))]) < 0.02


def test_a_box_that_is_masked_on_one_side_is_measured_right_on_a_slope() -> None:
    slope = np.tile(np.arange(64, dtype=np.float32) * 10, (64, 1))
    good = np.ones((64, 64), bool)
    frame = binned(slope, good, ~good, 4)
    masked = np.zeros((16, 16), bool)
    masked[:, 4:8] = True
    sky = frame.mean.copy()
    assert box_medians(frame, masked, 8)[0, 0] < 200
    np.testing.assert_allclose(box_medians(frame, masked, 8, sky), 0, atol=1e-6)


def test_bins_without_enough_good_pixels_do_not_count() -> None:
    data = np.full((16, 16), 5, np.float32)
    data[:4, :4] = np.nan
    good = np.isfinite(data)
    good[4:8, :2] = False
    good[4:8, 2] = False
    frame = binned(data, good, ~good, 4)
    assert not frame.good[0, 0]
    assert not frame.good[1, 0]
    assert frame.good[2:].all()
    assert np.isfinite(frame.mean).all()
    assert np.isnan(box_medians(frame, ~frame.good | True, 4)).all()
