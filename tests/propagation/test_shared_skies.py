"""The variance of stacks of frames that share skies, against the scatter of stacks of pure noise."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import Reduce, astrodata

from .. import frames as make
from .planes import frame

SHAPE = (96, 96)
NOISE, LEVEL = 30.0, 3000.0
NOD = 4.0
"""Arcsec; 34 pixels."""


def nod(pattern, number):
    return [(0.0, NOD * "AB".index(pattern[k % len(pattern)])) for k in range(number)]


def dithers(number):
    """Five positions, repeated."""
    cross = [(0.0, 0.0), (4.0, 1.0), (-4.0, 0.7), (1.0, 4.3), (0.4, -4.0)]
    return [cross[k % 5] for k in range(number)]


def exposures(offsets, *, seed, drift=0.0):
    """Frames of pure noise half a minute after each other, the level of which rises by `drift` in all."""
    made = []
    for k, (p, q) in enumerate(offsets):
        seconds = 30 * k
        level = LEVEL * (1 + drift * k / max(len(offsets) - 1, 1))
        # The noise of a sky that grows: sky and noise are in the proportion of photons.
        sigma = NOISE * np.sqrt(level / LEVEL)
        data = make.noise(1000 * seed + k, sigma, level, SHAPE)
        ut = f"08:{seconds // 60:02d}:{seconds % 60:04.1f}"
        made.append(frame(data, sigma**2, number=k + 1, POFFSET=p, QOFFSET=q, UT=ut))
    return made


def stacked(frames, *, targets=None, **sky):
    b = make.bench(frames)
    if targets is not None:
        b.p.streams["sky"] = frames[targets:]
        b.p.streams["main"] = frames[:targets]
    b.p.associateSky(time=600)
    b.p.skyCorrect(mask_objects=False, **sky)
    b.p.resampleToCommonFrame()
    b.p.stackFrames(reject_method="none")
    return b.main[0]


def pull(stacks):
    """Scatter over the square root of the variance, by the number of frames in a pixel."""
    found = {}
    number = max(stack.phu["NCOMBINE"] for stack in stacks)
    for count in (number, number // 2):
        values = []
        for ext in (stack[0] for stack in stacks):
            here = (count == ext.COVERAGE) & (ext.mask == 0)
            values.append(ext.data[here] / np.sqrt(ext.variance[here]))
        if sum(v.size for v in values) > 3000:
            found[count] = float(np.concatenate([v - v.mean() for v in values]).std())
    return found


NODS = {f"{pattern} {number}": (pattern, number) for pattern in ("AB", "ABBA") for number in (4, 8, 20)}


@pytest.mark.parametrize("drift", [0.0, 0.3])
@pytest.mark.parametrize(("pattern", "number"), NODS.values(), ids=NODS)
def test_nods_between_two_positions(pattern, number, drift):
    # Many frames take time, and one stack has six thousand pixels.
    seeds = range(2 if number < 8 else 1)
    stacks = [stacked(exposures(nod(pattern, number), seed=seed, drift=drift)) for seed in seeds]
    found = pull(stacks)
    assert len(found) == 2
    assert found == {count: pytest.approx(1, abs=0.04) for count in found}
    hdr = stacks[0][0].hdr
    assert hdr["VARCOV"] > 1.25
    assert "VARSKY" not in hdr
    assert "GRIDX" not in hdr


@pytest.mark.parametrize(("number", "factor"), [(5, None), (10, 1.14), (20, 1.25)])
def test_dithers_on_the_source(number, factor):
    stacks = [stacked(exposures(dithers(number), seed=seed)) for seed in range(2 if number < 20 else 1)]
    assert pull(stacks) == {count: pytest.approx(1, abs=0.04) for count in pull(stacks)}
    # Of dithers that are not repeated each pixel of the stack comes from other pixels of the detector.
    assert stacks[0][0].hdr.get("VARCOV") == (None if factor is None else pytest.approx(factor, abs=0.04))


@pytest.mark.parametrize(
    "settings", [{}, {"scale_sky": False}, {"operation": "mean", "reject_method": "none"}]
)
def test_many_targets_with_few_skies(settings):
    offsets = [(0.0, 0.0)] * 8 + [(60.0, 60.0)] * 3
    stacks = [stacked(exposures(offsets, seed=seed), targets=8, **settings) for seed in range(2)]
    assert pull(stacks) == {8: pytest.approx(1, abs=0.04)}
    assert stacks[0][0].hdr["VARCOV"] > 2


def test_nods_that_do_not_come_back_exactly():
    # 0.03 arcsec is a quarter of a pixel: the frames share a part of their noise in a pixel.
    rng = np.random.default_rng(4)
    offsets = [(p + rng.normal(0, 0.03), q + rng.normal(0, 0.03)) for p, q in nod("AB", 8)]
    stacks = [stacked(exposures(offsets, seed=seed)) for seed in range(2)]
    assert pull(stacks) == {count: pytest.approx(1, abs=0.04) for count in (8, 4)}
    assert 1.2 < stacks[0][0].hdr["VARCOV"] < 1.6


def test_sums_over_apertures():
    rng = np.random.default_rng(6)
    offsets = [(p + rng.normal(0, 0.03), q + rng.normal(0, 0.03)) for p, q in nod("AB", 8)]
    side, ratios = 9, []
    for seed in range(8):
        ext = stacked(exposures(offsets, seed=seed))[0]
        full = np.argwhere((ext.COVERAGE == 8) & (ext.mask == 0))
        (y, x), (ny, nx) = full.min(axis=0) + 5, (np.ptp(full, axis=0) - 9) // side
        part = ext.data[y : y + side * ny, x : x + side * nx]
        sums = part.reshape(ny, side, nx, side).sum(axis=(1, 3))
        pixels = np.zeros(ext.shape, bool)
        pixels[y : y + side, x : x + side] = True
        ratios.append(sums.var(ddof=1) / ext.aperture_variance(pixels))
    assert np.sqrt(np.mean(ratios)) == pytest.approx(1, abs=0.12)


def test_a_frame_resampled_twice_keeps_its_position():
    frames = exposures(nod("AB", 4), seed=1)
    b = make.bench(frames)
    b.p.associateSky()
    b.p.skyCorrect(mask_objects=False)
    b.p.shiftImages(shifts="3.0,-2.0")
    b.p.resampleToCommonFrame()
    positions = [(f[0].hdr["GRIDX"], f[0].hdr["GRIDY"]) for f in b.main]
    assert positions[0] == pytest.approx(positions[2], abs=0.01)
    assert positions[1][1] - positions[0][1] == pytest.approx(-NOD / make.SCALE, abs=0.01)
    b.p.stackFrames(reject_method="none")
    assert b.main[0][0].hdr["VARCOV"] == pytest.approx(1.33, abs=0.03)


def test_a_reduction_says_it_and_memory_changes_nothing(tmp_path):
    folder = tmp_path / "raw"
    offsets = nod("AB", 9)
    for k, (p, q) in enumerate(offsets):
        make.write(
            folder / make.name(k + 1),
            make.noise(k, np.sqrt(300 * make.GAIN + make.READ_NOISE**2) / make.GAIN, 300.0, SHAPE),
            shape=SHAPE,
            UT=f"08:{k:02d}:00.0",
            DATALAB=f"GN-2016A-Q-1-5-{k + 1:03d}",
            POFFSET=p,
            QOFFSET=q,
        )
    products = []
    for limit in (None, 1_000_000):
        reduction = Reduce(
            sorted(folder.iterdir()),
            parameters={
                "darkCorrect:do_cal": "skip",
                "flatCorrect:do_cal": "skip",
                "adjustWCSToReference:skip_primitive": True,
            },
            calibrations={},
            output_dir=tmp_path / f"out{limit}",
            max_memory=limit,
        )
        reduction.runr()
        products.append(astrodata.open(reduction.output_filenames[0]))
    one, other = (product[0] for product in products)
    assert products[0].phu["NCOMBINE"] == 8
    assert one.hdr["VARCOV"] == pytest.approx(1.69, abs=0.05)
    np.testing.assert_array_equal(one.variance, other.variance)
    # The correction for non-linearity multiplies the noise of these frames, which were made without.
    ratio = float(pull(products)[8])
    assert ratio == pytest.approx(1, abs=0.08)
