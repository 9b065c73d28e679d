"""Sky flats: objects leave no trace in them, and are not confused with bad pixels."""

from __future__ import annotations

import numpy as np
import pytest

from .. import frames as make

SHAPE = (96, 96)
SKY = 8000.0


def response():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] / 96.0
    small = np.random.default_rng(1).normal(1, 0.02, SHAPE)
    return ((1 + 0.1 * (x - 0.5) - 0.08 * y**2) * small).astype(np.float32)


FLAT = response() / np.median(response())
DEFECT = (50, 60)


def dithered(number=7, *, mask_objects=True, everywhere=None):
    ads = []
    for i in range(number):
        star = (20.0 + 9 * i, 40.0 + 5 * (-1) ** i, 4e5)
        light = SKY * (1 + 0.02 * i) + make.gaussians(SHAPE, [star])
        data = FLAT * light + make.noise(i, 20.0, 0, SHAPE)
        mask = np.zeros(SHAPE, np.uint16)
        mask[DEFECT], data[DEFECT] = 1, -5e4
        ad = make.electrons(make.frame(data, number=i + 1, shape=SHAPE), 400.0, mask)
        objects = np.zeros(SHAPE, np.uint8)
        if mask_objects:
            y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
            objects[np.hypot(x - star[0], y - star[1]) < 12] = 1
        if everywhere is not None:
            objects[everywhere] = 1
        ad[0].OBJMASK = objects
        ads.append(ad)
    return ads


def made(ads, **options):
    b = make.bench(ads)
    b.p.stackSkyFlats(**options)
    b.p.normalizeFlat()
    return b.main[0]


def test_the_flat_is_the_response_without_the_stars():
    flat = made(dithered(), nhigh=0)
    good = flat[0].mask == 0
    ratio = flat[0].data[good] / FLAT[good]
    assert np.std(ratio) < 0.0016
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.006


def test_without_the_masks_the_stars_would_be_in_it():
    flat = made(dithered(), mask_objects=False, nhigh=0)
    assert (flat[0].data / FLAT).max() > 1.2


def test_bad_pixels_keep_their_flag_and_objects_leave_none():
    ads = dithered()
    masks = [ad[0].mask.copy() for ad in ads]
    flat = made(ads)
    assert flat[0].mask[DEFECT] == 1
    assert np.count_nonzero(flat[0].mask) == 1
    for ad, mask in zip(ads, masks, strict=True):
        assert np.array_equal(ad[0].mask, mask)
    assert flat.phu["SKYFLAT"] is True
    assert flat[0].hdr["SKYFLATN"] == 0


def test_where_every_frame_shows_an_object_the_flat_has_no_data():
    place = (slice(10, 14), slice(80, 85))
    flat = made(dithered(everywhere=place))
    assert (flat[0].mask[place] == 16).all()
    assert flat[0].hdr["SKYFLATN"] == 20
    assert flat[0].mask[DEFECT] == 1


def test_a_dithered_object_is_not_in_the_levels_either():
    ads = dithered()
    huge = ads[3][0]
    huge.data[:40] *= 3
    huge.OBJMASK[:40] = 1
    ratio = made(ads)[0].data / FLAT
    assert np.median(ratio[60:]) == pytest.approx(np.median(ratio[:40]), rel=2e-3)


def test_frames_without_masks_can_be_combined():
    ads = dithered(mask_objects=False)
    for ad in ads:
        ad[0].mask = None
        del ad[0].OBJMASK
    b = make.bench(ads)
    b.p.stackSkyFlats(operation="median", nhigh=0)
    assert b.main[0].phu["NCOMBINE"] == 7
    assert make.bench([]).p.stackSkyFlats([]) == []
