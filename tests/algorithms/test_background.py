from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.background import (
    background_map,
    can_be_halved,
    clipped_level,
    lattice,
    level_of,
    measure_background,
)
from niripipe.errors import AlgorithmError


@pytest.fixture(scope="module")
def golden() -> np.ndarray:
    rng = np.random.default_rng(2016)
    frame = rng.normal(100, 10, (512, 512)).astype(np.float32)
    frame[:50, :50] += 500
    return frame


def test_the_own_estimator_agrees_with_the_truth_to_its_statistics(golden):
    result = measure_background(golden)
    assert result.level == pytest.approx(100, abs=0.1)
    assert result.std == pytest.approx(10, abs=0.1)


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e4, 1e5), st.floats(0.5, 500), st.integers(0, 2**32))
def test_level_and_deviation_follow_the_scale_of_the_data(level, std, seed):
    values = np.random.default_rng(seed).normal(level, std, 200_000)
    result = level_of(values)
    assert abs(result.level - level) < 0.03 * std
    assert result.std == pytest.approx(std, rel=0.03)


def test_sources_in_a_fifth_of_the_pixels_move_the_level_less_than_they_move_the_median():
    rng = np.random.default_rng(3)
    sky = rng.normal(1000, 30, (600, 600)).astype(np.float32)
    sky += 100 * rng.exponential(1, sky.shape) * (rng.random(sky.shape) < 0.2)
    shift = measure_background(sky).level - 1000
    assert abs(shift) < 0.1 * 30
    assert abs(shift) < 0.5 * (np.median(sky) - 1000)


def test_masked_objects_and_values_that_are_not_finite_are_left_out():
    rng = np.random.default_rng(4)
    frame = rng.normal(50, 1, (300, 300)).astype(np.float32)
    mask, objects = np.zeros(frame.shape, np.uint16), np.zeros(frame.shape, np.uint8)
    frame[:100], mask[:100] = 1000, 8
    frame[100:200], objects[100:200] = 500, 1
    frame[250] = np.nan
    assert measure_background(frame, mask, objects).level == pytest.approx(50, abs=0.15)


def test_a_pattern_of_columns_does_not_bias_the_level():
    rng = np.random.default_rng(5)
    frame = rng.normal(0, 1, (1024, 1024)).astype(np.float32)
    frame += np.where(np.arange(1024) % 8 == 0, 0.8, -0.8 / 7).astype(np.float32)
    every = level_of(frame.ravel())
    assert measure_background(frame).level == pytest.approx(every.level, abs=0.01)


def test_the_lattice_takes_each_column_once():
    for step in range(1, 40):
        offsets = lattice(step)
        assert [row for row, _ in offsets] == list(range(step))
        assert sorted(column for _, column in offsets) == list(range(step))


def test_constant_and_tiny_inputs_have_an_answer():
    assert measure_background(np.full((20, 20), 7.0)).level == 7
    assert measure_background(np.full((20, 20), 7.0)).std == 0
    assert measure_background(np.array([[1.0, 3.0]])).level == 2


def test_nothing_to_measure_is_an_error_with_numbers():
    with pytest.raises(AlgorithmError, match="found: 0"):
        measure_background(np.ones((10, 10)), np.ones((10, 10), np.uint16))
    with pytest.raises(AlgorithmError):
        background_map(np.full((64, 64), np.nan))


def test_the_map_follows_a_gradient_and_ignores_masked_pixels():
    rng = np.random.default_rng(6)
    ramp = np.add.outer(np.arange(256) * 0.02, np.arange(256) * 0.01)
    frame = (ramp + rng.normal(0, 1, ramp.shape)).astype(np.float32)
    mask = np.zeros(frame.shape, np.uint16)
    frame[100:120, 100:120], mask[100:120, 100:120] = np.nan, 16
    result = background_map(frame, mask)
    assert np.abs(result.level - ramp)[16:-16, 16:-16].max() < 0.7
    assert result.rms == pytest.approx(1, abs=0.25)


def test_the_frame_is_not_modified(golden):
    before = golden.copy()
    measure_background(golden)
    assert (golden == before).all()


def test_a_halved_map_is_the_full_one_with_more_noise():
    y, x = np.mgrid[:512, :640]
    slope = (100 + 0.1 * x + 0.01 * y).astype(np.float32)
    frame = slope + np.random.default_rng(5).normal(0, 3, slope.shape).astype(np.float32)
    mask = np.zeros(slope.shape, bool)
    frame[:, 40:44], mask[:, 40:44] = np.nan, True
    halved = background_map(frame, mask, halved=True)
    assert halved.level.shape == (256, 320)
    expected = slope.reshape(256, 2, 320, 2).mean(axis=(1, 3))
    inner = (slice(16, -16),) * 2
    assert np.std((halved.level - expected)[inner]) < 0.15 * 3
    assert np.mean((halved.level - expected)[inner]) == pytest.approx(0, abs=0.1)
    assert halved.rms == pytest.approx(3, rel=0.05)
    assert halved.mean == pytest.approx(background_map(frame, mask).mean, abs=0.5)


def test_only_frames_and_meshes_of_even_squares_can_be_halved():
    assert can_be_halved((512, 640), 32)
    assert not can_be_halved((510, 640), 32)
    assert not can_be_halved((512, 640), 33)


def test_a_halved_map_looks_at_each_column_alike():
    frame = np.random.default_rng(6).normal(0, 1, (256, 256)).astype(np.float32)
    frame += 20 * (np.arange(256) % 8 == 3)
    assert background_map(frame, halved=True).mean == pytest.approx(background_map(frame).mean, abs=0.2)


def test_the_clipped_level_is_the_median_without_outliers():
    values = np.random.default_rng(7).normal(50, 1, 20_000)
    values[:1000] = 1000
    found = clipped_level(values)
    assert found.level == pytest.approx(50, abs=0.05)
    assert found.std == pytest.approx(0.88, abs=0.05)
    assert found.n < 19_001
