"""Quality assessment: image size, sky brightness, zero point and cloud, against what was put in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from niripipe.algorithms import quality as algorithm
from niripipe.simulate.psf import add_stars

from .. import frames as make

SHAPE = (256, 256)
FWHM_PIX = 4.7
ZERO_POINT = 26.77
"""The observatory's for H at f/6, 1 e-/s."""

_RNG = np.random.default_rng(8)
STARS = [
    (40 + 44 * i + float(_RNG.uniform(-6, 6)), 40 + 44 * j + float(_RNG.uniform(-6, 6)), 3e4 * 1.3 ** (i + j))
    for i in range(5)
    for j in range(5)
]


def field(*, level=0.0, stars=STARS, fwhm=FWHM_PIX, noise=8.0, **cards):
    image = make.noise(5, noise, level, SHAPE)
    if stars:
        # Moffat profiles: half of the light of a Gaussian lies within its width at half maximum, just at the
        # limit of what counts as a star.
        x, y, flux = np.array(stars).T
        add_stars(image, x, y, flux, fwhm, 1e-3)
    return make.electrons(make.frame(image, shape=SHAPE, **cards), noise**2, 0)


def detected(**options):
    ad = field(**options)
    make.bench([ad]).p.detectSources()
    return ad


def with_references(ad, *, zero_point=ZERO_POINT, error=0.02, scatter=0.0, seed=3):
    """Give each source the magnitude of the star that it is, for a zero point in e-/s."""
    catalogue = ad[0].OBJCAT
    noise = np.random.default_rng(seed).normal(0, 1, len(catalogue)) * scatter
    for row, off in zip(range(len(catalogue)), noise, strict=True):
        x, y = catalogue["X_IMAGE"][row] - 1, catalogue["Y_IMAGE"][row] - 1
        flux = min(STARS, key=lambda star: np.hypot(star[0] - x, star[1] - y))[2]
        catalogue["REF_MAG"][row] = zero_point - 2.5 * math.log10(flux / 20.0) + off
        catalogue["REF_MAG_ERR"][row] = error
    return ad


def outcome(ad):
    return ad.history[-1].status, ad.history[-1].reason


# ---- image size


def test_the_width_of_the_stars_is_measured_and_brought_to_the_zenith():
    ad = detected(AIRMASS=1.5)
    make.bench([ad]).p.measureIQ()
    # The area above half of the brightest pixel is wider than the profile by some per cent.
    assert ad.phu["MEANFWHM"] == pytest.approx(FWHM_PIX * make.SCALE, rel=0.06)
    assert ad.phu["FWHMZEN"] == pytest.approx(ad.phu["MEANFWHM"] * 1.5**-0.6, rel=1e-3)
    assert ad.phu["MEANELLP"] < 0.1
    assert ad.phu["IQNUM"] >= 15
    assert ad.phu["IQBAND"] == "70"
    assert "MEASREIQ" in ad.phu
    assert ad.filename.endswith("_iqMeasured.fits")


def test_no_pixel_is_touched():
    ad = detected()
    planes = [plane.copy() for plane in (ad[0].data, ad[0].variance, ad[0].mask)]
    b = make.bench([with_references(ad)])
    b.p.measureIQ(), b.p.measureBG(), b.p.measureCC()
    for before, after in zip(planes, (ad[0].data, ad[0].variance, ad[0].mask), strict=True):
        assert np.array_equal(before, after)


def test_elongated_stars_are_told(caplog):
    ad = detected()
    ad[0].OBJCAT["ELLIPTICITY"] = np.float32(0.3)
    make.bench([ad]).p.measureIQ()
    assert "elongated" in caplog.text


def test_too_few_good_stars_are_reported_with_numbers():
    ad = detected()
    ad[0].OBJCAT["CLASS_STAR"] = np.float32(0.1)
    make.bench([ad]).p.measureIQ()
    status, reason = outcome(ad)
    assert status == "SKIPPED"
    assert reason.startswith(f"none of {len(ad[0].OBJCAT)} sources is a good star")
    assert "0 star-like" in reason
    assert f"{len(ad[0].OBJCAT)} measurable" in reason
    assert "MEANFWHM" not in ad.phu


def test_without_a_catalogue_nothing_is_claimed_and_old_figures_go():
    ad = field()
    ad.phu["MEANFWHM"] = 0.3
    make.bench([ad]).p.measureIQ()
    assert outcome(ad)[0] == "SKIPPED"
    assert "MEANFWHM" not in ad.phu
    assert "MEASREIQ" not in ad.phu


def test_the_stars_used_are_shown_on_request(tmp_path):
    ad = detected()
    make.bench([ad], folder=tmp_path).p.measureIQ(display=True)
    (path,) = tmp_path.iterdir()
    lines = path.read_text().splitlines()
    assert lines[1] == "image"
    assert len(lines) - 2 == ad.phu["IQNUM"]


def test_the_strehl_ratio_is_not_overestimated_by_the_obscuration():
    # A pattern times (1 - e^2)^2 instead of over 1 - e^2 integrates to 0.935 and gives 6.9 per cent more.
    fraction = 0.3
    ad = detected(AOFOLD="IN", RZEROVAL=15.0)
    catalogue = ad[0].OBJCAT
    flux = np.asarray(catalogue["FLUX_AUTO"], float)
    catalogue["FLUX_MAX"] = (fraction * algorithm.peak_fraction(1.65, make.SCALE) * flux).astype(np.float32)
    make.bench([ad]).p.measureIQ()
    assert ad.phu["STREHL"] == pytest.approx(fraction, rel=0.01)
    assert ad.phu["STREHLN"] == ad.phu["IQNUM"]
    assert "MEANELLP" not in ad.phu
    # 206265 * 0.98 * 0.5e-6 / 0.15 m = 0.67 arcsec at airmass 1.2
    assert ad.phu["IQBAND"] == "70"


# ---- sky


@pytest.mark.parametrize(("magnitude", "band"), [(14.5, "20/50/80"), (13.0, "100")])
def test_the_sky_brightness_follows_from_level_and_zero_point(magnitude, band):
    level = 10 ** (0.4 * (ZERO_POINT - magnitude)) * 20.0 * make.SCALE**2
    ad = field(level=level, stars=[], noise=math.sqrt(level))
    ad.phu["DARKCORR"] = "done"
    make.bench([ad]).p.measureBG()
    assert ad.phu["BGMAG"] == pytest.approx(magnitude, abs=0.01)
    # A sky that meets all percentiles, whose limits are one, is not called 100.
    assert ad.phu["BGBAND"] == band
    assert ad.phu["SKYLEVEL"] == pytest.approx(level, rel=1e-3)
    assert ad[0].hdr["SKYLEVEL"] == ad.phu["SKYLEVEL"]


def test_the_level_rests_on_the_whole_frame_and_not_on_stars():
    ad = detected(level=5000.0, stars=[(x, y, 2e6) for x, y, _ in STARS], noise=70.0)
    make.bench([ad]).p.measureBG()
    # The mean of the frame is 763 higher.
    assert ad.phu["SKYLEVEL"] == pytest.approx(5000, abs=20)


def test_after_sky_subtraction_the_sky_is_what_was_subtracted():
    ad = field(level=2.0, stars=[])
    ad[0].hdr["SKYLEVEL"], ad.phu["SUBSKY"] = 12000.0, "done"
    make.bench([ad]).p.measureBG()
    assert ad.phu["SKYLEVEL"] == pytest.approx(12002, abs=0.5)
    assert ad[0].hdr["SKYLEVEL"] == 12000.0


def test_a_level_that_was_shifted_is_no_sky():
    ad = field(level=100.0)
    ad.phu["CORRBG"] = "done"
    make.bench([ad]).p.measureBG()
    assert outcome(ad)[0] == "SKIPPED"


def test_without_dark_the_level_is_called_what_it_is(caplog):
    make.bench([field(level=100.0)]).p.measureBG()
    assert "no dark was subtracted" in caplog.text


def test_without_a_zero_point_the_level_is_all_there_is():
    ad = field(level=100.0, stars=[], FILTER2="Brgamma_G0218", FILTER1="open")
    make.bench([ad]).p.measureBG()
    assert ad.phu["SKYLEVEL"] == pytest.approx(100, abs=1)
    assert "BGMAG" not in ad.phu


# ---- zero point


def test_the_zero_point_is_that_of_the_stars_with_its_error():
    ad = with_references(detected(), zero_point=26.6, scatter=0.03)
    make.bench([ad]).p.measureCC()
    hdr = ad[0].hdr
    # Kron apertures miss the outermost few per cent of a Moffat profile.
    assert hdr["MEANZP"] == pytest.approx(26.56, abs=0.03)
    assert hdr["ZPNUM"] >= 15
    assert 0.002 < hdr["MEANZPER"] < 0.02
    assert hdr["MEANZPSD"] > 2 * hdr["MEANZPER"]
    assert hdr["PHOTZP"] == pytest.approx(hdr["MEANZP"] + 2.5 * math.log10(20.0), abs=1e-4)
    assert ad.phu["CLOUDEXT"] == pytest.approx(ZERO_POINT - hdr["MEANZP"], abs=1e-3)
    assert ad.phu["CCBAND"] == "70"


def test_magnitudes_follow_from_counts_and_the_header():
    ad = with_references(detected(), zero_point=26.5)
    make.bench([ad]).p.measureCC()
    catalogue = ad[0].OBJCAT
    magnitudes = ad[0].hdr["PHOTZP"] - 2.5 * np.log10(np.asarray(catalogue["FLUX_AUTO"]))
    assert np.median(np.abs(magnitudes - catalogue["REF_MAG"])) < 0.02


def test_extinction_makes_the_zero_point_outside_the_atmosphere_brighter():
    found = {}
    for extinction in (0.0, 0.1):
        ad = with_references(detected(AIRMASS=1.5))
        make.bench([ad]).p.measureCC(extinction=extinction)
        found[extinction] = ad[0].hdr["MEANZP"], ad[0].hdr["PHOTZP"]
    assert found[0.1][0] - found[0.0][0] == pytest.approx(0.05, abs=1e-4)
    # In the image itself nothing has changed.
    assert found[0.1][1] == pytest.approx(found[0.0][1], abs=1e-4)


def test_without_a_nominal_zero_point_it_is_measured_all_the_same():
    ad = with_references(detected(CAMERA="f14"))
    make.bench([ad]).p.measureCC()
    assert ad[0].hdr["MEANZP"] == pytest.approx(ZERO_POINT, abs=0.07)
    assert "CLOUDEXT" not in ad.phu


def test_a_stack_never_keeps_the_zero_point_of_its_first_frame():
    ad = detected()
    ad[0].hdr["MEANZP"], ad.phu["CLOUDEXT"] = 20.0, 5.0
    make.bench([ad]).p.measureCC()
    assert outcome(ad)[0] == "SKIPPED"
    assert "reference catalogue" in outcome(ad)[1]
    assert "MEANZP" not in ad[0].hdr
    assert "CLOUDEXT" not in ad.phu


def test_a_frame_may_be_measured_again():
    ad = detected()
    b = make.bench([ad])
    b.p.measureIQ()
    first = ad.phu["MEANFWHM"]
    ad[0].OBJCAT["PROFILE_FWHM"] *= 0.8
    b.p.measureIQ()
    assert ad.phu["MEANFWHM"] == pytest.approx(0.8 * first, rel=0.02)
