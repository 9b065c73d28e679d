"""Darks and flats, applied and made: values, variances and masks against numpy, also on subarrays."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ

from .. import frames as make
from .planes import SHAPES, calibration, centre, check, flags, frame, values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adu", [False, True])
def test_dark_correction(place, shape, adu):
    data, variance, mask = values(1, 0, 900, shape), values(2, 1, 9, shape), flags(3, 8, shape=shape)
    dark, dark_variance, dark_mask = values(4, 0, 90), values(5, 1, 9), flags(6, 1, 2)
    (ad,) = place(frame(data, variance, mask, adu=adu))
    (cal,) = place(calibration("dark", dark, dark_variance, dark_mask, adu=adu))
    make.bench([ad]).p.darkCorrect(dark=cal)
    dark, dark_variance, dark_mask = (centre(plane, shape) for plane in (dark, dark_variance, dark_mask))
    check(ad, data - dark, variance + dark_variance, mask | dark_mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_flat_correction(place, shape):
    data, variance, mask = values(1, 10, 900, shape), values(2, 1, 9, shape), flags(3, 8, shape=shape)
    flat, flat_variance, flat_mask = values(4, 0.4, 1.6), values(5, 1e-4, 1e-2), flags(6, 1, 64)
    (ad,) = place(frame(data, variance, mask))
    (cal,) = place(calibration("flat", flat, flat_variance, flat_mask))
    make.bench([ad]).p.flatCorrect(flat=cal)
    a, va, b, vb = (
        plane.astype(float) for plane in (data, variance, centre(flat, shape), centre(flat_variance, shape))
    )
    relative = va / a**2 + vb / b**2
    check(ad, a / b, (a / b) ** 2 * relative, mask | centre(flat_mask, shape))


def test_dark_and_flat_one_after_the_other(place):
    data, variance = values(1, 100, 900), values(2, 1, 9)
    dark, dark_variance = values(3, 0, 90), values(4, 1, 9)
    flat, flat_variance = values(5, 0.4, 1.6), values(6, 1e-4, 1e-2)
    (ad,) = place(frame(data, variance))
    darks = place(calibration("dark", dark, dark_variance, 0))
    flats = place(calibration("flat", flat, flat_variance, 0))
    p = make.bench([ad]).p
    p.darkCorrect(dark=darks[0])
    p.flatCorrect(flat=flats[0])
    signal, noise, b, vb = (
        plane.astype(float) for plane in (data - dark, variance + dark_variance, flat, flat_variance)
    )
    check(ad, signal / b, noise / b**2 + vb * signal**2 / b**4, rtol=2e-5)


def test_a_calibration_without_variance_adds_none(place):
    data, variance, flat = values(1, 10, 900), values(2, 1, 9), values(3, 0.4, 1.6)
    (ad,) = place(frame(data, variance))
    (cal,) = place(calibration("flat", flat, None, 0))
    make.bench([ad]).p.flatCorrect(flat=cal)
    check(ad, data / flat, variance / flat.astype(float) ** 2)


@pytest.mark.parametrize(("on", "off"), [(3, 2), (2, 4), (1, 1), (2, 0)])
@pytest.mark.filterwarnings("ignore")
def test_a_lamp_flat_is_the_difference_of_two_means(place, on, off):
    lit = [values(i, 900, 1100) for i in range(on)]
    dark = [values(10 + i, 90, 110) for i in range(off)]
    variances = [values(20 + i, 1, 9) for i in range(on + off)]
    kinds = ["lamp_on"] * on + ["lamp_off"] * off
    frames = place(
        *(
            frame(data, variance, 0, kind=kind, number=i + 1)
            for i, (data, variance, kind) in enumerate(zip([*lit, *dark], variances, kinds, strict=True))
        )
    )
    b = make.bench(frames)
    b.p.makeLampFlat(reject_method="none")
    expected = np.mean(lit, axis=0, dtype=float) - (np.mean(dark, axis=0, dtype=float) if off else 0)
    noise = np.sum(variances[:on], axis=0, dtype=float) / on**2
    if off:
        noise += np.sum(variances[on:], axis=0, dtype=float) / off**2
    check(b.main[0], expected, noise)


@pytest.mark.parametrize("statistic", ["median", "mean"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_normalised_flat(place, statistic, shape):
    data, variance, mask = values(1, 500, 4000, shape), values(2, 10, 90, shape), flags(3, 1, shape=shape)
    data[mask != 0] = 60000
    (ad,) = place(frame(data, variance, mask, kind="lamp_on"))
    make.bench([ad]).p.normalizeFlat(scale=statistic)
    level = getattr(np, statistic)(data[mask == 0].astype(float))
    check(ad, data / level, variance / level**2, mask)


def test_pixels_beyond_the_limits_of_a_flat_become_one_and_are_flagged(place):
    data, variance, mask = values(1, -0.5, 3, (64, 64)), values(2, 1e-4, 1e-2), flags(3, DQ.cosmic_ray)
    (ad,) = place(frame(data, variance, mask, kind="lamp_on"))
    make.bench([ad]).p.thresholdFlatfield(lower=0.2, upper=2.0)
    out = (data < 0.2) | (data > 2.0)
    assert 0.2 < out.mean() < 0.8
    check(ad, np.where(out, 1, data), variance, mask | np.where(out, DQ.unilluminated, 0).astype(np.uint16))
