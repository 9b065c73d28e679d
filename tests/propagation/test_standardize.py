"""Units, noise and linearity: values and variances against numpy, in ADU and electrons."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ

from .. import frames as make
from .planes import SHAPES, check, flags, frame, values

READ_NOISE = 35.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [12.3, 2.5])
def test_electrons_are_adu_times_gain_and_their_variance_times_its_square(place, gain, shape):
    data, variance = values(1, -50, 5000, shape), values(2, 1, 20, shape)
    mask = flags(3, DQ.bad_pixel, DQ.saturated, shape=shape)
    (ad,) = place(frame(data, variance, mask, adu=True, gain=gain))
    hdr = ad[0].hdr
    hdr["SATLEVEL"], hdr["NONLINEA"] = 16000.0, 11000.0
    noise = hdr["RDNOISE"]
    make.bench([ad]).p.ADUToElectrons()
    check(ad, data.astype(float) * gain, variance.astype(float) * gain**2, mask)
    assert (hdr["SATLEVEL"], hdr["NONLINEA"]) == pytest.approx((16000 * gain, 11000 * gain))
    assert (hdr["GAIN"], hdr["BUNIT"], hdr["RDNOISE"]) == (1.0, "electron", noise)


def test_the_unit_of_a_frame_without_variance_changes_all_the_same(place):
    data = values(1, 0, 5000)
    (ad,) = place(frame(data, adu=True))
    make.bench([ad]).p.ADUToElectrons()
    check(ad, data.astype(float) * make.GAIN)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("adu", [True, False])
@pytest.mark.parametrize("existing", [None, 7.0])
@pytest.mark.parametrize(
    ("read", "poisson"), [(True, False), (False, True), (True, True)], ids=["read", "poisson", "both"]
)
def test_noise_in_the_unit_of_the_data(place, adu, existing, read, poisson, shape):
    data = values(1, -50, 5000, shape)
    ad = frame(data, existing, adu=adu, gain=4.0)
    ad[0].hdr["RDNOISE"] = READ_NOISE
    (ad,) = place(ad)
    make.bench([ad]).p.addVAR(read_noise=read, poisson_noise=poisson)
    gain = 4.0 if adu else 1.0
    electrons = np.maximum(data.astype(float) * gain, 0)
    expected = (read * READ_NOISE**2 + poisson * electrons) / gain**2 + (existing or 0.0)
    check(ad, data, expected)


@pytest.mark.parametrize("order", [("read_noise", "poisson_noise"), ("poisson_noise", "read_noise")])
def test_components_added_one_by_one_are_there_once(place, order):
    data = values(1, 10, 5000)
    ad = frame(data, adu=True)
    ad[0].hdr["RDNOISE"] = READ_NOISE
    (ad,) = place(ad)
    b = make.bench([ad])
    for component in (*order, *order):
        b.p.addVAR(**{component: True})
    check(ad, data, data.astype(float) / make.GAIN + (READ_NOISE / make.GAIN) ** 2)


@pytest.mark.parametrize("adu_first", [True, False])
def test_noise_is_the_same_whether_it_is_added_before_or_after_the_unit_changes(place, adu_first):
    data = values(1, 10, 5000)
    ad = frame(data, adu=True)
    ad[0].hdr["RDNOISE"] = READ_NOISE
    (ad,) = place(ad)
    p = make.bench([ad]).p
    if adu_first:
        p.addVAR(read_noise=True, poisson_noise=True)
        p.ADUToElectrons()
    else:
        p.ADUToElectrons()
        p.addVAR(read_noise=True, poisson_noise=True)
    electrons = data.astype(float) * make.GAIN
    check(ad, electrons, electrons + READ_NOISE**2)


# ---- linearity

LINEARITY_SHAPE = (256, 256)
# Medium background, 256 rows, shallow well, from the table of the observatory.
GAMMA, ETA, DEAD_TIME = 5.540988347e-07, 1.404726339e-12, 0.01029262589


def linear(electrons, coadds):
    """The polynomial, on the counts of one coadd."""
    one = electrons.astype(float) / coadds
    return one * (1 + one * GAMMA + one**2 * ETA) * coadds


def exposure_factor(coadds):
    time = 20.0 / coadds
    return time / (time + DEAD_TIME)


def linearity_frame(gain, coadds, variance):
    # About a tenth of a correction, so that a wrong unit of it shows.
    data = (values(1, 20, 150000, LINEARITY_SHAPE) * np.float32(coadds / gain)).astype(np.float32)
    ad = frame(
        data,
        variance,
        adu=gain != 1,
        gain=gain,
        COADDS=coadds,
        EXPTIME=20.0 / coadds,
    )
    ad[0].hdr["RDNOISE"] = READ_NOISE
    ad[0].hdr["NONLINEA"] = 100000.0 * coadds / gain
    return ad, data


@pytest.mark.parametrize("coadds", [1, 4])
@pytest.mark.parametrize("gain", [12.3, 3.0, 1.0])
def test_linearity_changes_the_variance_by_the_photon_noise_of_the_added_counts(place, gain, coadds):
    variance = values(2, 5, 50, LINEARITY_SHAPE)
    ad, data = linearity_frame(gain, coadds, variance)
    (ad,) = place(ad)
    make.bench([ad]).p.nonlinearityCorrect()
    electrons = data.astype(float) * gain
    corrected = linear(electrons, coadds)
    factor = exposure_factor(coadds)
    # What is added to the counts are electrons that were detected; their variance is their number.
    noise = (variance * gain**2 + corrected - electrons) * factor**2
    # What was added is the difference of two float32 numbers.
    check(ad, corrected * factor / gain, noise / gain**2, rtol=1e-4)
    level = linear(np.array(100000.0 * coadds), coadds) / gain
    assert ad[0].hdr["NONLINEA"] == pytest.approx(level, abs=2e-3)


@pytest.mark.parametrize("coadds", [1, 4])
@pytest.mark.parametrize("gain", [12.3, 1.0])
@pytest.mark.parametrize("poisson", [True, False])
def test_linearity_after_the_noise_was_added(place, gain, coadds, poisson):
    ad, data = linearity_frame(gain, coadds, None)
    (ad,) = place(ad)
    p = make.bench([ad]).p
    p.addVAR(read_noise=True, poisson_noise=poisson)
    p.nonlinearityCorrect()
    electrons = data.astype(float) * gain
    corrected = linear(electrons, coadds)
    factor = exposure_factor(coadds)
    noise = (READ_NOISE**2 + corrected - (not poisson) * electrons) * factor**2
    check(ad, corrected * factor / gain, noise / gain**2, rtol=2e-5)


def test_linearity_of_a_frame_without_variance(place):
    ad, data = linearity_frame(12.3, 1, None)
    (ad,) = place(ad)
    make.bench([ad]).p.nonlinearityCorrect()
    check(ad, linear(data * 12.3, 1) * exposure_factor(1) / 12.3, rtol=2e-5)


# ---- sums over read pairs


def test_old_sums_over_read_pairs_become_their_mean(place):
    data = values(1, 100, 5000)
    raw = make.frame(data, LNRS=4, DATE_OBS="2001-08-02", NDAVGS=16)
    make.bench([raw]).p.prepare()
    np.testing.assert_allclose(raw[0].data, data / 4, rtol=1e-6)
    assert raw.phu["LNRSDIV"] == 4
