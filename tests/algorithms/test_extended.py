"""Light of galaxies is found in sky frames where detection does not see it, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.extended import BOX, box_medians, extended_light, over_pixels
from niripipe.errors import AlgorithmError

SHAPE = (512, 512)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
SIGMA = 110.0


def galaxy(x, y, peak=4000.0, scale=30.0):
    return peak * np.exp(-np.hypot(X - x, Y - y) / scale)


def frame(seed, level=12000.0, gradient=(0.0, 0.0), light=0.0):
    rng = np.random.default_rng(seed)
    tilt = 1 + gradient[0] * (X / SHAPE[1] - 0.5) + gradient[1] * (Y / SHAPE[0] - 0.5)
    return (level * tilt + light + rng.normal(0, SIGMA, SHAPE)).astype(np.float32)


def everybody_else(n):
    return [[k for k in range(n) if k != own] for own in range(n)]


def test_box_medians_are_medians_of_what_is_not_masked():
    plane = np.full((70, 100), 5.0, np.float32)
    plane[:, 32:64] = 7
    mask = np.zeros(plane.shape, np.uint16)
    mask[:30, 64:96] = 1
    plane[40, 40], plane[:32, :10] = np.nan, 1e6
    found = box_medians(plane, mask, None)
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found, [[5, 7, np.nan], [5, 7, 5]])


def test_a_frame_smaller_than_a_box_is_refused():
    with pytest.raises(AlgorithmError, match="smaller"):
        box_medians(np.zeros((BOX, BOX - 1), np.float32))


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_frames_without_galaxies_have_no_extended_light(drift):
    rng = np.random.default_rng(9)
    frames = [frame(k, 12000 * (1 + drift * k), tuple(rng.normal(0, 0.003, 2))) for k in range(8)]
    found = extended_light([box_medians(f) for f in frames], everybody_else(8))
    assert not found.masks.any()
    np.testing.assert_allclose(found.levels, 1 + drift * np.arange(8), rtol=2e-4)


def test_a_galaxy_that_moves_between_frames_is_found_to_its_outskirts_and_levels_do_not_mind():
    places = [(140, 140), (370, 140), (370, 370), (140, 370), (150, 130)]
    frames = [frame(k, 12000 + 60 * k, (0.002, -0.001), galaxy(*at)) for k, at in enumerate(places)]
    found = extended_light([box_medians(f) for f in frames], everybody_else(5))
    for at, mask in zip(places, found.masks, strict=True):
        shown = over_pixels(mask, SHAPE)
        light = galaxy(*at)
        assert shown[light > 0.2 * SIGMA].mean() > 0.97
        assert shown[light < 0.01 * SIGMA].mean() < 0.25
    np.testing.assert_allclose(found.levels, 1 + 0.005 * np.arange(5), rtol=4e-4)


def test_a_bright_star_is_no_galaxy():
    star = 5e4 * np.exp(-((X - 200) ** 2 + (Y - 300) ** 2) / 50)
    frames = [frame(0, light=star), frame(1), frame(2)]
    assert not extended_light([box_medians(f) for f in frames], everybody_else(3)).masks.any()


def test_a_frame_without_partners_is_left_alone():
    frames = [frame(0, light=galaxy(250, 250)), frame(1)]
    found = extended_light([box_medians(f) for f in frames], [[1], []])
    assert found.masks[0].any()
    assert not found.masks[1].any()


def test_masks_of_boxes_cover_the_edges_too():
    boxes = np.array([[True, False], [False, True]])
    pixels = over_pixels(boxes, (70, 80))
    assert pixels.shape == (70, 80)
    assert pixels[0, 0]
    assert pixels[69, 79]
    assert not pixels[69, 0]
    assert pixels.sum() == 32 * 32 + 38 * 48
