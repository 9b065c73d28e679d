"""A glow of the detector that changes with time goes, light of the field stays, and frames say so."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.instruments.pointing import cd_matrix
from niripipe.recipes import image

from .. import frames as make

SIZE = 512
LEVEL = 12000.0
DITHERS = [(0, 0), (60, 10), (70, -55), (5, -62), (-18, -35), (27, 22), (-50, 40), (-64, -12)]
Y, X = np.mgrid[:SIZE, :SIZE].astype(float)
RNG = np.random.default_rng(4)
STARS = np.column_stack([RNG.uniform(-80, SIZE + 80, (40, 2)), 10 ** RNG.uniform(3.5, 5.3, 40)])


def exposure(k, dy, dx, blob=0.0, galaxy=0.0):
    """One frame by plain numpy: electrons, Poisson-like noise, a sky that drifts."""
    plane = np.full((SIZE, SIZE), LEVEL * (1 + 0.01 * np.sin(0.7 * k)))
    plane *= 1 + blob * np.exp(-((X - 300) ** 2 + (Y - 200) ** 2) / 2 / 70**2) * np.cos(1.3 * k)
    for y, x, flux in STARS:
        plane += flux / (2 * np.pi * 9) * np.exp(-((X - x - dx) ** 2 + (Y - y - dy) ** 2) / 18)
    plane += galaxy * light(dy, dx)
    variance = plane + 100
    plane += np.random.default_rng(100 + k).normal(0, 1, plane.shape) * np.sqrt(variance)
    a, _, _, d = cd_matrix(make.SCALE, 0.0, mirrored=False)
    ad = make.frame(
        plane, number=k + 1, shape=plane.shape, UT=f"08:{k:02d}:00.0",
        POFFSET=-dx * a * 3600, QOFFSET=-dy * d * 3600,
    )  # fmt: skip
    return make.electrons(ad, variance, 0)


def light(dy, dx):
    """A galaxy that is brighter than a tenth of the noise over an eighth of the field."""
    return np.exp(-np.hypot(X - 250 - dx, (Y - 260 - dy) / 0.7) / 28)


def reduced(dithers=DITHERS, scene=None, **parameters):
    b = make.bench([exposure(k, *at, **(scene or {})) for k, at in enumerate(dithers)], parameters=parameters)
    image._subtract_sky(b.p)
    b.p.correctResidualSky()
    return b


def stacked(b, dithers=DITHERS):
    """Shift by the known whole pixels, and mean."""
    total, number = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for ad, (dy, dx) in zip(b.main, dithers, strict=True):
        there = np.s_[max(dy, 0) : SIZE + min(dy, 0), max(dx, 0) : SIZE + min(dx, 0)]
        here = np.s_[max(-dy, 0) : SIZE + min(-dy, 0), max(-dx, 0) : SIZE + min(-dx, 0)]
        total[here] += ad[0].data[there]
        number[here] += 1
    return np.where(number == len(dithers), total / np.maximum(number, 1), np.nan)


def star_free(radius=22):
    free = np.ones((SIZE, SIZE), bool)
    for y, x, _ in STARS:
        free &= np.hypot(X - x, Y - y) > radius
    return free


def box_scatter(stack):
    usable = np.where(star_free(), stack, np.nan)
    boxes = [usable[y : y + 32, x : x + 32] for y in range(0, SIZE, 32) for x in range(0, SIZE, 32)]
    return float(np.std([np.nanmedian(box) for box in boxes if np.isfinite(box).sum() > 500]))


def star_flux(stack):
    """Light in circles of 9 pixels around bright stars, above their surroundings, over what was put in."""
    found = true = 0.0
    free = star_free(18)
    for y, x, flux in STARS:
        distance = np.hypot(X - x, Y - y)
        near, ring = distance < 9, (distance > 18) & (distance < 36) & free & np.isfinite(stack)
        others = [abs(y - v) + abs(x - u) for v, u, _ in STARS if (v, u) != (y, x)]
        if flux > 2e4 and ring.sum() > 1500 and min(others) > 40 and np.isfinite(stack[near]).all():
            found += (stack[near] - np.median(stack[ring])).sum()
            true += flux * (1 - np.exp(-81 / 18))
    return found / true


STEP = "correctResidualSky"


def outcome(b):
    return next(iter(b.report.step(STEP).outcomes.values()))


@pytest.fixture(scope="module")
def without_blob():
    return reduced()


@pytest.fixture(scope="module")
def with_blob():
    return reduced(scene={"blob": 0.02})


def test_a_blob_of_the_detector_that_varies_leaves_nothing(without_blob, with_blob):
    clean = box_scatter(stacked(without_blob))
    assert box_scatter(stacked(with_blob)) < 1.1 * clean
    assert box_scatter(stacked(reduced(scene={"blob": 0.02}, **{f"{STEP}:correct": "skip"}))) > 4 * clean
    assert star_flux(stacked(with_blob)) == pytest.approx(star_flux(stacked(without_blob)), abs=0.005)


GALAXY = {"galaxy": 900.0}
SPREAD = [(-110, -110), (110, -110), (110, 110), (-110, 110), (-100, 0), (0, 100)]


def galaxy_flux(b, dithers):
    """Light of the galaxy where it exceeds a tenth of the noise of a frame, over what was put in."""
    found = true = 0.0
    for ad, at in zip(b.main, dithers, strict=True):
        stars = np.ones((SIZE, SIZE), bool)
        for y, x, _ in STARS:
            stars &= np.hypot(X - x - at[1], Y - y - at[0]) > 22
        put = GALAXY["galaxy"] * light(*at)
        inside = stars & (put > 11)
        found += ad[0].data[inside].sum(dtype=float)
        true += put[inside].sum()
    return found / true


def test_a_galaxy_over_a_part_of_the_field_keeps_its_flux():
    found = {}
    for correct in ("skip", "default", "force"):
        b = reduced(SPREAD, GALAXY, **{f"{STEP}:correct": correct})
        found[correct] = galaxy_flux(b, SPREAD)
    assert found["default"] == pytest.approx(1, abs=0.01)
    assert found["default"] == pytest.approx(found["skip"], abs=1e-6)
    # Outskirts that cannot be told from the noise of a box are taken for sky.
    assert found["force"] == pytest.approx(found["skip"], abs=0.015)


def test_without_dithers_or_with_two_frames_nothing_is_done_and_the_reason_is_given():
    for dithers in ([(0, 0)] * 4, DITHERS[:2]):
        frames = [exposure(k, *at) for k, at in enumerate(dithers)]
        before = [ad[0].data.copy() for ad in frames]
        b = make.bench(frames)
        b.p.correctResidualSky()
        assert outcome(b).status.name == "NOT_NEEDED"
        assert "three dithered frames" in outcome(b).reason
        for ad, data in zip(b.main, before, strict=True):
            np.testing.assert_array_equal(ad[0].data, data)
            assert "RESSKY" not in ad[0].hdr


def test_frames_say_what_was_subtracted(with_blob):
    for ad in with_blob.main:
        assert 0 < ad[0].hdr["RESSKY"] < 200
        assert 0 < ad[0].hdr["RESSKYER"] < 10
    assert "residual sky of" in outcome(with_blob).reason


def offset(galaxy):
    """Frames whose sky was taken elsewhere: a blob is left in each, and the light of the field in all."""
    b = make.bench([exposure(k, *at, blob=0.02, galaxy=galaxy) for k, at in enumerate(DITHERS)])
    for k, ad in enumerate(b.main):
        ad.phu["OBJFRAME"] = "TRUE"
        ad[0].data -= np.float32(LEVEL * (1 + 0.01 * np.sin(0.7 * k)))
    before = [ad[0].data.copy() for ad in b.main]
    b.p.correctResidualSky()
    return b, before


def test_a_galaxy_in_frames_whose_sky_comes_from_other_fields_is_left_alone():
    b, before = offset(galaxy=3000.0)
    assert "other fields" in outcome(b).reason
    assert all((ad[0].data == data).all() for ad, data in zip(b.main, before, strict=True))


def test_a_blob_goes_also_where_the_sky_comes_from_other_fields():
    b, before = offset(galaxy=0.0)
    assert "residual sky of" in outcome(b).reason
    after = box_scatter(stacked(b))
    for ad, data in zip(b.main, before, strict=True):
        ad[0].data = data
    assert after < 0.25 * box_scatter(stacked(b))


def test_sources_that_only_the_sum_of_the_frames_shows_keep_their_light():
    """Faint wide sources, a third of the noise of a pixel: no single frame shows them."""
    places = [(150, 150), (160, 360), (350, 140), (370, 380)]
    wide = sum(40 * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / 2 / 10**2) for y, x in places)
    frames = []
    for k, (dy, dx) in enumerate(DITHERS):
        ad = exposure(k, dy, dx, blob=0.02)
        ad[0].data += np.roll(wide, (dy, dx), axis=(0, 1)).astype(np.float32)
        frames.append(ad)
    b = make.bench(frames)
    image._subtract_sky(b.p)
    b.p.correctResidualSky()
    stack, away = stacked(b), star_free(18)
    found = true = 0.0
    for y, x in places:
        near = (np.hypot(X - x, Y - y) < 18) & away & np.isfinite(stack)
        ring = (np.hypot(X - x, Y - y) > 35) & (np.hypot(X - x, Y - y) < 55) & away & np.isfinite(stack)
        found += (stack[near] - np.median(stack[ring])).sum()
        true += wide[near].sum()
    assert found / true == pytest.approx(1, abs=0.12)
