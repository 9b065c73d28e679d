"""Noise that cancels between a frame and its sky, against the scatter of frames drawn many times."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.shared_noise import Calibrations, inputs_per_variance, remove_shared

SHAPE = (40, 50)
DRAWN = 400
READ, DARK, FLAT = 30.0, 20.0, 0.004
"""Deviations of a read, of the dark and (relative) of the flat."""


@pytest.mark.parametrize(
    ("star", "sky_level", "factor", "skies"),
    [(0, 8000, 1.0, 5), (20000, 8000, 1.0, 5), (0, 8000, 1.3, 3), (0, 50, 1.0, 9), (5000, 4000, 0.0, 4)],
    ids=["sky", "star", "scaled", "dark sky", "no sky subtracted"],
)
def test_the_variance_is_that_of_the_difference(star, sky_level, factor, skies):
    rng = np.random.default_rng(1)
    response = rng.uniform(0.7, 1.3, SHAPE)

    def taken(light):
        return rng.poisson(light * response) + rng.normal(0, READ, SHAPE)

    differences, predicted, before = [], [], []
    for _ in range(DRAWN):
        dark, flat = rng.normal(0, DARK, SHAPE), response * (1 + rng.normal(0, FLAT, SHAPE))

        def corrected(light, dark=dark, flat=flat):
            data = (taken(light) - dark) / flat
            noise = (light * response + READ**2 + DARK**2) / flat**2 + (data * FLAT) ** 2
            return data.astype(np.float32), noise.astype(np.float32)

        frame, noise = corrected(star + max(factor, 1e-9) * sky_level)
        inputs = [corrected(sky_level) for _ in range(skies)]
        sky = np.mean([one for one, _ in inputs], axis=0)
        sky_noise = np.sum([own for _, own in inputs], axis=0) / skies**2
        variance = noise + np.float32(factor**2) * sky_noise
        before.append(variance.mean())
        used = Calibrations(
            np.full(SHAPE, DARK**2, np.float32),
            flat.astype(np.float32),
            ((FLAT * flat) ** 2).astype(np.float32),
        )
        remove_shared(variance, frame, sky, used, factor=factor, share=1 / skies)
        differences.append(frame - factor * sky)
        predicted.append(variance.mean())
    measured = np.var(differences, axis=0, ddof=1).mean()
    assert np.mean(predicted) / measured == pytest.approx(1, abs=0.02)
    # As if dark and flat were independent, the variance is too large.
    if factor:
        assert np.mean(before) / measured > 1.05


def test_what_is_not_known_is_left():
    data, sky = np.full(SHAPE, 500.0, np.float32), np.full(SHAPE, 400.0, np.float32)
    variance = np.full(SHAPE, 1000.0, np.float32)
    remove_shared(variance, data, sky, Calibrations(None, None, None), factor=1.0, share=0.2)
    assert (variance == 1000).all()
    # Without a flat the dark alone, by hand: 1 + 0.2 times its variance.
    remove_shared(variance, data, sky, Calibrations(np.full(SHAPE, 100.0), None, None), factor=1.0, share=0.2)
    assert variance == pytest.approx(880)


def test_a_number_added_to_the_skies_has_no_noise():
    data, sky = np.full(SHAPE, 500.0, np.float32), np.full(SHAPE, 900.0, np.float32)
    used = Calibrations(None, np.ones(SHAPE, np.float32), np.full(SHAPE, 1e-3, np.float32))
    shifted, plain = (np.full(SHAPE, 5000.0, np.float32) for _ in range(2))
    remove_shared(shifted, data, sky, used, factor=1.0, share=0.2, offset=500.0)
    remove_shared(plain, data, sky - 500, used, factor=1.0, share=0.2)
    np.testing.assert_allclose(shifted, plain)
    assert (plain < 5000).all()


def test_a_variance_stays_positive_where_the_flat_is_nearly_zero():
    flat = np.full(SHAPE, 1e-3, np.float32)
    flat[0] = 0
    used = Calibrations(np.full(SHAPE, 100.0, np.float32), flat, np.full(SHAPE, 1e-3, np.float32))
    variance = np.full(SHAPE, 50.0, np.float32)
    plane = np.full(SHAPE, 100.0, np.float32)
    remove_shared(variance, plane, plane, used, factor=1.0, share=0.2)
    assert np.isfinite(variance).all()
    assert (variance >= 5 * 0.999).all()


def test_ratio_of_variances_ignores_flagged_and_unknown_pixels():
    variance, sky = np.full(SHAPE, 100.0, np.float32), np.full(SHAPE, 20.0, np.float32)
    mask = np.zeros(SHAPE, np.uint16)
    mask[:, :30] = 1
    sky[:, :30] = 9000
    sky[:, 31] = np.nan
    assert inputs_per_variance(variance, sky, mask, None) == pytest.approx(0.2)
    assert inputs_per_variance(variance, np.full(SHAPE, np.nan, np.float32)) == 0
