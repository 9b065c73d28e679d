"""Marks of bright stars in later frames: found by their measured decay, flagged, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms import persistence
from niripipe.algorithms.persistence import Mark
from niripipe.astrodata import DQ

from .. import frames as make

SHAPE = (200, 200)
NOISE = 20.0
#: Offsets of the telescope, pixels (x, y), never twice the same.
DITHER = [(0, 0), (52, 12), (20, 58), (-40, 40), (-58, -14), (-22, -52), (48, -38)]
LEFT = {1: 0.006, 2: 0.002}
STAR = 100.0, 100.0


def star(x: float, y: float, peak: float, sigma: float = 2.0) -> np.ndarray:
    v, u = np.indices(SHAPE)
    return peak * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))


def sequence(left=LEFT, *, peak=80000.0, dither=DITHER, faint=None, objmask=True, seed=3):
    """Sky-subtracted frames of a bright star, with marks, and the marks alone (electrons)."""
    rng = np.random.default_rng(seed)
    stars, frames, marks = [], [], []
    for n, (dx, dy) in enumerate(dither):
        light = star(STAR[0] + dx, STAR[1] + dy, peak)
        mark = sum((part * stars[n - lag] for lag, part in left.items() if n >= lag), np.zeros(SHAPE))
        if faint is not None:
            light = light + star(faint[0] + dx, faint[1] + dy, 600.0)
        stars.append(light)
        data = (light + mark + rng.normal(0, NOISE, SHAPE)).astype(np.float32)
        # Offsets move the field: a source at higher x is what the telescope left behind.
        ad = make.frame(data, shape=SHAPE, number=n + 1, UT=f"08:0{n}:00.0", ext=wcs(dx, dy))
        ad = make.electrons(ad, variance=np.full(SHAPE, NOISE**2), mask=np.zeros(SHAPE, np.uint16))
        if objmask:
            ad[0].OBJMASK = ((light > 60) | (mark > 60)).astype(np.uint8)
        frames.append(ad)
        marks.append(mark)
    return frames, marks


def wcs(dx, dy):
    return {"CRPIX1": (SHAPE[1] + 1) / 2 + dx, "CRPIX2": (SHAPE[0] + 1) / 2 + dy}


def flagged(ad):
    return ad[0].mask & np.uint16(DQ.cosmic_ray) != 0


def test_marks_are_flagged_by_their_measured_decay():
    frames, marks = sequence()
    b = make.bench(frames)
    b.p.flagPersistence()
    ratios = [b.main[0].phu[f"PERSRAT{lag}"] for lag in (1, 2)]
    assert ratios == pytest.approx([LEFT[1], LEFT[2]], rel=0.1)
    assert "PERSRAT3" not in b.main[0].phu
    for ad, mark in zip(b.main, marks, strict=True):
        found = flagged(ad)
        # Half of the noise, with ratios that are known to a tenth.
        assert found[mark > 0.7 * NOISE].all()
        assert not found[mark < 0.35 * NOISE].any()
        assert ad[0].hdr["PERSNUM"] == np.count_nonzero(found)
    assert not flagged(b.main[0]).any()
    assert flagged(b.main[3]).sum() > 50
    reasons = [outcome.reason for outcome in b.report.step("flagPersistence").outcomes.values()]
    assert f"{flagged(b.main[3]).sum()} pixels flagged" in reasons[3]


@pytest.mark.parametrize("objmask", [True, False])
def test_without_persistence_nothing_is_flagged(objmask):
    for seed in range(4):
        frames, _ = sequence({}, objmask=objmask, seed=seed)
        b = make.bench(frames)
        b.p.flagPersistence()
        assert not any(flagged(ad).any() for ad in b.main)
        assert "no mark is left" in b.report.step("flagPersistence").summary()


def test_the_halo_of_a_star_that_moved_little_is_no_mark():
    """Without object masks: each frame shows the wings of the star where it was before, and after."""
    dither = [(0, 0), (7, 0), (0, 7), (7, 7), (3, 10), (10, 3), (10, 10)]
    frames, _ = sequence({}, dither=dither, objmask=False)
    b = make.bench(frames)
    b.p.flagPersistence()
    assert not any(flagged(ad).any() for ad in b.main)


def test_a_source_on_a_mark_is_not_flagged():
    # In the second frame the faint star falls on the place of the bright one in the first.
    (dx, dy) = DITHER[1]
    frames, _ = sequence(faint=(STAR[0] - dx, STAR[1] - dy))
    b = make.bench(frames)
    b.p.flagPersistence()
    v, u = np.indices(SHAPE)
    on_star = (u - STAR[0]) ** 2 + (v - STAR[1]) ** 2 < 9
    assert not flagged(b.main[1])[on_star].any()
    # The marks in the other frames are found nevertheless.
    assert flagged(b.main[2]).any()


def test_faint_fields_single_frames_and_raw_counts_are_left_alone():
    frames, _ = sequence(peak=3000.0)
    b = make.bench(frames)
    b.p.flagPersistence()
    assert "no source above 5000 electrons" in b.report.step("flagPersistence").summary()
    b = make.bench(frames[:1])
    b.p.flagPersistence()
    assert "only one frame" in b.report.step("flagPersistence").summary()
    b = make.prepared([make.frame(), make.frame(number=2)])
    b.p.flagPersistence()
    assert "frames in electrons" in b.report.step("flagPersistence").summary()


# -- arithmetic


def test_a_decay_ends_with_the_first_lag_that_is_not_significant():
    marks = [Mark(1, r, 0.001) for r in (0.009, 0.010, 0.011)]
    marks += [Mark(2, r, 0.001) for r in (-0.001, 0.0, 0.001)] + [Mark(3, 0.01, 0.001)] * 3
    assert persistence.decay(marks) == {1: pytest.approx(0.010)}
    # More than a few per cent is a source, and what was there before is no mark.
    assert persistence.decay([Mark(1, 0.2, 0.001)] * 5) == {}
    assert persistence.decay([Mark(1, 0.01, 0.001)] * 5 + [Mark(-1, 0.009, 0.001)] * 5) == {}
    assert persistence.decay([]) == {}


def test_marks_count_by_their_errors_against_what_was_there_before():
    good = [Mark(1, 0.004, 0.0002), Mark(1, 0.0042, 0.0002), Mark(1, 0.0038, 0.0002)]
    poor = [Mark(1, value, 0.01) for value in (-0.02, -0.01, 0.0, 0.001, 0.03)]
    # A sky that holds the mark is too bright where the source will be.
    before = [Mark(-1, -0.002, 0.0002)] * 3
    assert persistence.decay(good + poor) == {1: pytest.approx(0.004, abs=2e-4)}
    assert persistence.decay(good + poor + before) == {1: pytest.approx(0.006, abs=2e-4)}


def test_a_mark_does_not_grow():
    marks = [Mark(1, 0.004, 0.0005)] * 5 + [Mark(2, 0.006, 0.0005)] * 5
    assert persistence.decay(marks) == {1: 0.004, 2: 0.004}


def test_the_excess_is_measured_against_the_surroundings_and_its_noise_is_true():
    rng = np.random.default_rng(1)
    core = np.argwhere(np.hypot(*(np.indices(SHAPE) - 100)) < 3)
    good = np.ones(SHAPE, bool)
    excesses, noises = [], []
    for _ in range(200):
        data = rng.normal(50, NOISE, SHAPE)
        data[tuple(core.T)] += 30
        found = persistence.excess(data.astype(np.float32), good, core)
        assert found is not None
        excesses.append(found[0])
        noises.append(found[1])
    assert np.mean(excesses) == pytest.approx(30, abs=1.5)
    assert np.mean(noises) == pytest.approx(np.std(excesses), rel=0.25)
    good[tuple(core.T)] = False
    assert persistence.excess(data.astype(np.float32), good, core) is None


def test_single_hot_pixels_and_large_patches_are_no_stars():
    data = np.zeros(SHAPE, np.float32)
    data[20, 20] = 50000
    data[100:160, 100:160] = 50000
    good = np.zeros(SHAPE, bool)
    assert persistence.bright_sources(data, good, threshold=5000) == []
    found = persistence.bright_pixels(data, good, threshold=5000)
    assert len(found.pixels) == 3601  # the wings of a source count, whatever its size
