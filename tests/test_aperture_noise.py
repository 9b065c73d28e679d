"""Noise of sums over pixels, against scatter that is drawn, and against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.polynomial import polynomial
from scipy import ndimage

from niripipe.aperture_noise import ApertureNoise, disc
from niripipe.errors import InputError

from . import frames as make


def cubic(fraction):
    """Weights of the cubic through four points, by solving for its coefficients."""
    points = np.array([-1.0, 0.0, 1.0, 2.0])
    return polynomial.polyvander(fraction, 3).ravel() @ np.linalg.inv(polynomial.polyvander(points, 3))


def interpolated(rng, shape, frames):
    """Mean of frames of noise of variance 1, each interpolated at fractions of its own, and its noise."""
    mean, squares, factors = np.zeros(shape), 0.0, 0.0
    for _ in range(frames):
        y, x = cubic(rng.random()), cubic(rng.random())
        noise = rng.normal(size=(shape[0] + 3, shape[1] + 3))
        mean += sum(
            y[i] * x[j] * noise[i : i + shape[0], j : j + shape[1]] for i in range(4) for j in range(4)
        )
        reduction = (y**2).sum() * (x**2).sum()
        squares += reduction
        factors += 1.0
    # Variance of a pixel, and of a large aperture over the sum of its variances.
    return mean / frames, squares / frames**2, factors / squares


def sums(image, radius, number, rng):
    """Sums over discs, by masks of pixels."""
    ny, nx = image.shape
    result = []
    for _ in range(number):
        x, y = rng.uniform(radius + 1, nx - radius - 2), rng.uniform(radius + 1, ny - radius - 2)
        rows, columns, shares = disc(x, y, radius)
        result.append((image[rows, columns] * shares).sum())
    return np.array(result)


@pytest.mark.parametrize("radius", [1.3, 4.0, 10.0])
def test_the_shares_of_a_disc_add_up_to_its_area(radius):
    rows, columns, shares = disc(20.3, 17.8, radius)
    assert shares.sum() == pytest.approx(math.pi * radius**2, rel=0.03)
    assert ((shares >= 0) & (shares <= 1)).all()
    y, x = np.mgrid[rows, columns]
    assert (shares * x).sum() / shares.sum() == pytest.approx(20.3, abs=0.05)
    assert (shares * y).sum() / shares.sum() == pytest.approx(17.8, abs=0.05)


def test_independent_pixels_add_their_variances():
    rng = np.random.default_rng(1)
    weights, variance = rng.random((7, 9)), rng.uniform(1, 9, (7, 9))
    expected = sum(w**2 * v for w, v in zip(weights.ravel(), variance.ravel(), strict=True))
    assert ApertureNoise().of_sum(weights, variance) == pytest.approx(expected)


def test_a_single_pixel_has_its_variance_and_a_large_sum_the_factor():
    noise = ApertureNoise(1.7)
    assert noise.of_sum(np.ones((1, 1)), np.full((1, 1), 5.0)) == pytest.approx(5.0)
    whole = noise.of_sum(np.ones((400, 400)), np.full((400, 400), 5.0))
    assert whole == pytest.approx(1.7 * 5 * 160000, rel=0.01)
    factors = noise.factor(math.pi * np.array([1.0, 2.0, 5.0, 10.0, 30.0]) ** 2)
    assert (np.diff(factors) > 0).all()
    assert factors[-1] == pytest.approx(1.7, rel=0.03)


@pytest.mark.parametrize("radius", [1.0, 2.0, 5.0, 10.0])
def test_sums_over_interpolated_noise_scatter_as_predicted(radius):
    rng = np.random.default_rng(7)
    image, variance, correlation = interpolated(rng, (600, 600), 6)
    assert image.var() == pytest.approx(variance, rel=0.03)
    scatter = sums(image, radius, 2500, rng).std()
    noise = ApertureNoise(correlation)
    discs = [disc(20 + x, 20 + y, radius)[2] for x, y in rng.random((200, 2))]
    predicted = np.mean([noise.of_sum(shares, np.full(shares.shape, variance)) for shares in discs])
    assert scatter / math.sqrt(predicted) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("length", [3.0, 10.0])
def test_sums_over_smooth_residual_sky_scatter_as_predicted(length):
    rng = np.random.default_rng(3)
    # White noise smoothed by s has a correlation of exp(-d^2 / 4 s^2).
    image = ndimage.gaussian_filter(rng.normal(size=(1200, 1200)), length / math.sqrt(2), mode="wrap")
    image *= 2.5 / image.std()
    noise = ApertureNoise(1.0, 2.5, length)
    for radius in (1.0, 3.0, 6.0, 12.0):
        scatter = sums(image, radius, 3000, rng).std()
        expected = math.sqrt(noise.residual(math.pi * radius**2))
        assert scatter / expected == pytest.approx(1, abs=0.12)


# ---- of a frame


def frame(variance=4.0, **cards):
    ad = make.electrons(make.frame(), variance, 0)
    for keyword, value in cards.items():
        ad[0].hdr[keyword] = value
    return ad


def test_variance_of_sums_of_a_frame_without_keywords_is_that_of_its_pixels():
    ext = frame()[0]
    where = np.zeros(make.SHAPE, bool)
    where[10:14, 20:25] = True
    assert ext.aperture_variance(where) == pytest.approx(4.0 * 20)
    found = ext.aperture_variance(30.0, 31.0, 5.0)
    assert isinstance(found, float)
    # Parts of pixels count with the square of their share: a little less than the area.
    assert found == pytest.approx(4 * math.pi * 25, rel=0.08)
    assert found < 4 * math.pi * 25


def test_residual_sky_is_added_and_is_larger_where_fewer_frames_contribute():
    ad = frame(NOISCORR=1.5, NOISSKY=0.8, NOISLEN=6.0)
    ext = ad[0]
    plain = frame(NOISCORR=1.5)[0].aperture_variance(30.0, 30.0, 8.0)
    area = math.pi * 64
    added = 0.64 * area**2 / (1 + area / (2 * math.pi * 36))
    assert ext.aperture_variance(30.0, 30.0, 8.0) - plain == pytest.approx(added, rel=0.03)
    coverage = np.full(make.SHAPE, 8, np.uint16)
    coverage[:, 32:] = 2
    ext.COVERAGE = coverage
    found = ext.aperture_variance([15.0, 48.0], 30.0, 8.0)
    assert found.shape == (2,)
    assert found[0] - plain == pytest.approx(added, rel=0.03)
    assert found[1] - plain == pytest.approx(4 * added, rel=0.03)


def test_circles_and_pixels_agree():
    ext = frame(NOISCORR=1.6, NOISSKY=0.5, NOISLEN=4.0)[0]
    rows, columns, shares = disc(31.2, 28.7, 6.0)
    weights = np.zeros(make.SHAPE)
    weights[rows, columns] = shares
    assert ext.aperture_variance(weights) == pytest.approx(ext.aperture_variance(31.2, 28.7, 6.0), rel=1e-6)


def test_circles_beyond_the_image_are_not_known_and_wrong_calls_are_refused():
    ext = frame()[0]
    assert np.isnan(ext.aperture_variance([2.0, 30.0], 30.0, 5.0)).tolist() == [True, False]
    assert ext.aperture_variance(np.zeros(make.SHAPE)) == 0
    with pytest.raises(InputError, match="as large as the image"):
        ext.aperture_variance(np.ones((3, 3)))
    with pytest.raises(InputError, match="x, y and r"):
        ext.aperture_variance(30.0, 30.0)
    ext.variance = None
    with pytest.raises(InputError, match="without variances"):
        ext.aperture_variance(30.0, 30.0, 5.0)
