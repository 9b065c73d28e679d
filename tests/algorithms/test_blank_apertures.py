"""Noise of apertures measured on images whose noise is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from niripipe.algorithms.blank_apertures import RADII, measure_apertures
from niripipe.aperture_noise import ApertureNoise


def image(seed, shape, *, deviation=10.0, rms=0.0, length=8.0):
    """White noise and a smooth residual."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, deviation, shape)
    if rms:
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), length / math.sqrt(2), mode="wrap")
        pixels += smooth * rms / smooth.std()
    return pixels.astype(np.float32)


def scatters(pixels, radius, blank, seed, number=3000):
    """Robust scatter of sums over whole pixels within a radius at blank places, and which pixels."""
    y, x = np.mgrid[-15:16, -15:16]
    kernel = (x**2 + y**2 <= radius**2).astype(float)
    summed = ndimage.convolve(pixels.astype(float), kernel, mode="constant")
    free = ndimage.convolve((~blank).astype(float), kernel, mode="constant", cval=1.0) < 0.5
    found = np.random.default_rng(seed).choice(summed[free], number)
    return 1.4826 * np.median(np.abs(found - np.median(found))), kernel


def test_noise_alone_shows_no_residual_sky():
    pixels = image(1, (500, 500))
    found = measure_apertures(pixels, np.full(pixels.shape, 100.0, np.float32), np.ones(pixels.shape, bool))
    assert found.radius.tolist() == list(RADII)
    assert found.ratio == pytest.approx(1, abs=0.06)
    assert found.noise.residual(300.0) < 0.1 * 300 * 100


@pytest.mark.parametrize(("shape", "precision"), [((800, 800), 0.1), ((256, 512), 0.25)])
@pytest.mark.parametrize(("rms", "length"), [(2.0, 4.0), (1.5, 10.0)])
def test_the_prediction_holds_at_scales_and_places_that_were_not_measured(shape, precision, rms, length):
    pixels = image(2, shape, rms=rms, length=length)
    blank = np.ones(shape, bool)
    # The upper half is measured, the lower one is checked.
    seen = blank.copy()
    seen[shape[0] // 2 :] = False
    variance = np.full(shape, 100.0, np.float32)
    noise = measure_apertures(pixels, variance, seen).noise
    for radius in (2.0, 5.0, 10.0):
        scatter, kernel = scatters(pixels, radius, ~seen, seed=5)
        predicted = math.sqrt(noise.of_sum(kernel, np.full(kernel.shape, 100.0)))
        # A small image has few pieces of the smooth residual, and they differ.
        assert scatter / predicted == pytest.approx(1, abs=precision)


def test_sources_and_bad_pixels_are_kept_away_from():
    shape = (500, 500)
    pixels, blank = image(3, shape), np.ones(shape, bool)
    rng = np.random.default_rng(9)
    for y, x in rng.integers(20, 480, (150, 2)):
        pixels[y - 4 : y + 5, x - 4 : x + 5] += 1000
        blank[y - 4 : y + 5, x - 4 : x + 5] = False
    pixels[100, :] = np.nan
    blank[100, :] = False
    found = measure_apertures(pixels, np.full(shape, 100.0, np.float32), blank)
    assert found.ratio == pytest.approx(1, abs=0.1)
    # Large apertures find less and less blank sky.
    assert found.number[0] > 1.5 * found.number[-1]


def test_pixels_of_fewer_frames_are_compared_with_their_own_noise():
    shape = (600, 600)
    frames = np.full(shape, 9, np.uint16)
    frames[:, 300:] = 1
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 5, mode="wrap")
    full = (rng.normal(0, 10, shape) + 2 * smooth / smooth.std()).astype(np.float32)
    pixels = full * np.sqrt(np.float32(9) / frames)
    variance = (900.0 / frames).astype(np.float32)
    found = measure_apertures(pixels, variance, np.ones(shape, bool), depth=frames)
    flat = measure_apertures(full, np.full(shape, 100.0, np.float32), np.ones(shape, bool))
    area = math.pi * 36
    assert found.noise.residual(area) == pytest.approx(float(flat.noise.residual(area)), rel=0.2)


def test_without_blank_area_there_is_no_answer():
    pixels = image(6, (200, 200))
    variance, blank = np.full(pixels.shape, 100.0, np.float32), np.zeros(pixels.shape, bool)
    assert measure_apertures(pixels, variance, blank) is None
    blank[::8, ::8] = True
    assert measure_apertures(pixels, variance, blank) is None
    assert measure_apertures(pixels[:6, :6], variance[:6, :6], np.ones((6, 6), bool)) is None


def test_the_correlation_that_is_given_is_kept():
    pixels = image(8, (300, 300))
    variance = np.full(pixels.shape, 100.0, np.float32)
    found = measure_apertures(pixels, variance, np.ones(pixels.shape, bool), correlation=1.4)
    assert found.noise.correlation == 1.4
    # These pixels are independent: sums scatter less than that.
    assert found.ratio[-1] == pytest.approx(1 / math.sqrt(ApertureNoise(1.4).factor(math.pi * 169)), abs=0.08)
