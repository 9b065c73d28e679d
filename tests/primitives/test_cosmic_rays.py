"""Cosmic rays: hits are flagged, stars are not."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.errors import DataError

from .. import frames as make

SHAPE = (128, 128)
SKY, NOISE = 1000.0, 35.0
STARS = [(40.3, 50.8, 60000.0), (90.1, 30.2, 20000.0), (70.7, 100.4, 9000.0)]
HITS = [(20, 20), (100, 100), (64, 10), (15, 110)]


def exposure(number, *, hits=(), level=SKY, charge=3000.0, moved=0.0):
    stars = [(x + moved, y, flux) for x, y, flux in STARS]
    image = make.gaussians(SHAPE, stars) + make.noise(number, NOISE, level, SHAPE)
    for y, x in hits:
        image[y, x] += charge
    return make.electrons(make.frame(image, number=number, shape=SHAPE), NOISE**2, 0)


def flagged(ad):
    return {tuple(place) for place in np.argwhere(ad[0].mask & 8).tolist()}


def on_a_star(places):
    return [p for p in places if any(np.hypot(p[1] - x, p[0] - y) < 5 for x, y, _ in STARS)]


def test_single_frames_show_their_hits():
    ad = exposure(1, hits=HITS)
    before = ad[0].data.copy()
    make.bench([ad]).p.flagCosmicRays()
    assert set(HITS) <= flagged(ad)
    assert on_a_star(flagged(ad)) == []
    assert len(flagged(ad)) < 30
    assert ad[0].hdr["CRPIXNUM"] == len(flagged(ad))
    assert np.array_equal(ad[0].data, before)
    assert ad.filename.endswith("_CRMasked.fits")


def test_hits_can_be_replaced_as_well():
    ad = exposure(1, hits=HITS)
    variance = ad[0].variance.copy()
    make.bench([ad]).p.flagCosmicRays(clean=True)
    assert all(abs(ad[0].data[place] - SKY) < 4 * NOISE for place in HITS)
    assert np.array_equal(ad[0].variance, variance)


def test_a_frame_without_mask_gets_one():
    ad = exposure(1, hits=HITS)
    ad[0].mask = None
    make.bench([ad]).p.flagCosmicRays()
    assert set(HITS) <= flagged(ad)


def test_without_variance_the_noise_of_a_sky_that_was_subtracted_counts():
    # 35 e- of noise are that of the sky; the read noise alone would turn noise into hits.
    ad = exposure(1, hits=HITS, level=0.0)
    ad[0].variance = None
    ad[0].hdr["RDNOISE"], ad[0].hdr["SKYLEVEL"], ad.phu["SUBSKY"] = 5.0, NOISE**2, "done"
    make.bench([ad]).p.flagCosmicRays()
    assert set(HITS) <= flagged(ad)
    assert len(flagged(ad)) < 30


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_hit_in_one_of_several_frames_is_found_there_and_nowhere_else(number):
    ads = [exposure(i, hits=HITS if i == 1 else (), level=SKY + 50 * i) for i in range(1, number + 1)]
    make.bench(ads).p.flagCosmicRaysByStacking(dilation=0)
    assert set(HITS) <= flagged(ads[0])
    assert all(len(flagged(ad)) <= 3 for ad in ads[1:])
    assert on_a_star(flagged(ads[0])) == []


def test_with_two_frames_a_faint_hit_is_seen_in_full():
    # Half of it would be left against the mean of both: 5 deviations, below the threshold of 7.
    ads = [exposure(1, hits=HITS, charge=12 * NOISE), exposure(2)]
    make.bench(ads).p.flagCosmicRaysByStacking(dilation=0)
    assert len(set(HITS) & flagged(ads[0])) >= 3


def test_hits_are_grown_and_what_was_flagged_stays():
    ads = [exposure(1, hits=HITS), exposure(2), exposure(3)]
    ads[0][0].mask[5, 5] = 1
    make.bench(ads).p.flagCosmicRaysByStacking()
    assert {(20, 21), (19, 20), (20, 20)} <= flagged(ads[0])
    assert ads[0][0].mask[5, 5] == 1
    assert ads[0][0].hdr["CRPIXNUM"] == len(flagged(ads[0]))


def test_a_hit_that_detection_took_for_an_object_of_its_frame_is_not_spared():
    ads = [exposure(1, hits=HITS), exposure(2), exposure(3)]
    objects = np.zeros(SHAPE, np.uint8)
    objects[18:23, 18:23] = 1
    ads[0][0].OBJMASK = objects
    make.bench(ads).p.flagCosmicRaysByStacking()
    assert (20, 20) in flagged(ads[0])


def test_frames_that_are_not_aligned_are_refused_before_stars_become_cosmic_rays():
    ads = [exposure(1), exposure(2, moved=6.0)]
    wcs = ads[1][0].wcs.deepcopy()
    wcs.wcs.crpix = np.add(wcs.wcs.crpix, (6.0, 0.0))
    ads[1][0].wcs = wcs
    with pytest.raises(DataError, match=r"not aligned.*N20160102S0001.*resampleToCommonFrame"):
        make.bench(ads).p.flagCosmicRaysByStacking()
    small = make.electrons(make.frame(1.0, number=3), 1.0, 0)
    with pytest.raises(DataError, match="different pixel grids"):
        make.bench([exposure(1), small]).p.flagCosmicRaysByStacking()


def test_one_frame_has_nothing_to_be_compared_with():
    ad = exposure(1, hits=HITS)
    make.bench([ad]).p.flagCosmicRaysByStacking()
    assert ad.history[-1].status == "NOT_NEEDED"
    assert not flagged(ad)
