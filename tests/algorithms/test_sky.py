from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.sky import sky_factor, sky_offset, sky_residual, subtracted
from niripipe.errors import AlgorithmError


@pytest.mark.parametrize("level", ["peak", "median", "faint", "boxes"])
def test_every_level_finds_factor_and_constant_of_a_blank_field(level):
    rng = np.random.default_rng(1)
    frame = rng.normal(1000, 20, (512, 512)).astype(np.float32)
    sky = rng.normal(800, 8, (512, 512)).astype(np.float32)
    assert sky_factor(frame, sky, level=level).value == pytest.approx(1.25, abs=2e-3)
    assert sky_offset(frame, sky, level=level).value == pytest.approx(200, abs=1.5)


def test_the_object_mask_keeps_sources_out_of_the_factor():
    rng = np.random.default_rng(2)
    sky = rng.normal(1000, 5, (400, 400)).astype(np.float32)
    frame = rng.normal(1000, 20, (400, 400)).astype(np.float32)
    objects = np.zeros(frame.shape, np.uint8)
    frame[:, :240] += 15
    objects[:, :240] = 1
    assert sky_factor(frame, sky).value > 1.005
    assert sky_factor(frame, sky, objects).value == pytest.approx(1, abs=5e-4)


def test_a_galaxy_over_the_field_costs_the_faint_level_least():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:768, :768]
    galaxy = 3000 * np.exp(-np.hypot(x - 380, y - 390) / 70)
    frame = (rng.normal(12000, 110, galaxy.shape) + galaxy).astype(np.float32)
    sky = rng.normal(12000, 40, galaxy.shape).astype(np.float32)
    over = {level: sky_factor(frame, sky, level=level).value - 1 for level in ("peak", "median", "faint")}
    assert over["faint"] < 0.6 * over["peak"] < over["median"]
    assert abs(over["faint"]) * 12000 < 0.35 * 110


def test_bad_pixels_of_either_frame_are_left_out():
    rng = np.random.default_rng(4)
    frame, sky = (rng.normal(100, 1, (300, 300)).astype(np.float32) for _ in range(2))
    mask, sky_mask = (np.zeros(frame.shape, np.uint16) for _ in range(2))
    frame[:140], mask[:140] = 1e5, 1
    sky[160:], sky_mask[160:] = np.nan, 16
    assert sky_factor(frame, sky, mask, sky_mask).value == pytest.approx(1, abs=2e-3)


def test_a_sky_without_level_and_a_foreign_shape_are_errors():
    rng = np.random.default_rng(5)
    blank = rng.normal(-5, 1, (100, 100)).astype(np.float32)
    with pytest.raises(AlgorithmError, match="positive level"):
        sky_factor(blank + 100, blank)
    with pytest.raises(AlgorithmError, match="shape"):
        sky_factor(blank, blank[:50])
    with pytest.raises(AlgorithmError, match="faint"):
        sky_offset(blank, blank, level="faint")


def test_boxes_that_agree_are_blind_to_a_galaxy_and_say_how_much_of_the_field_agrees():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:768, :768]
    galaxy = 3000 * np.exp(-np.hypot(x - 380, y - 390) / 40)
    sky = rng.normal(12000, 40, galaxy.shape).astype(np.float32)
    blank = rng.normal(12000, 110, galaxy.shape).astype(np.float32)
    frame = (blank + galaxy).astype(np.float32)
    alone, crowded = (sky_factor(plane, sky, level="boxes") for plane in (blank, frame))
    assert abs(alone.value - 1) * 12000 < 0.02 * 110
    assert abs(crowded.value - 1) * 12000 < 0.05 * 110
    assert abs(sky_factor(frame, sky).value - 1) * 12000 > 0.1 * 110
    assert alone.share > 0.95
    assert 0.5 < crowded.share < 0.9
    assert sky_factor(frame, sky).share == 1


def test_what_a_known_factor_leaves_is_measured():
    rng = np.random.default_rng(7)
    frame = rng.normal(1000, 20, (512, 512)).astype(np.float32)
    sky = rng.normal(800, 8, (512, 512)).astype(np.float32)
    left = sky_residual(frame, sky, factor=1.2)
    assert left.value == 1.2
    assert left.residual == pytest.approx(40, abs=0.5)
    assert left.std == pytest.approx(np.hypot(20, 1.2 * 8), rel=0.02)


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_a_sky_is_subtracted_and_put_back(constant):
    rng = np.random.default_rng(3)
    data, sky = (rng.uniform(100, 200, (300, 9)).astype(np.float32) for _ in range(2))
    found = subtracted(data, sky, factor=1.25, constant=constant)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, data - 1.25 * sky - constant, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(subtracted(found, sky, factor=-1.25, constant=-constant), data, rtol=1e-6)
