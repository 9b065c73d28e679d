"""Stacks of aligned frames that differ in level, seeing and transparency, against what went into them.

The frames are made with numpy alone: Moffat stars on a galaxy, photon and read noise, cosmic rays.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pytest

from niripipe.astrodata import DQ

from .. import frames as make

SIZE, SKY, READ_NOISE = 384, 12000.0, 35.0
SIDE = 5
LEVELS = (0.0, 0.0, 0.0, 0.0)


@dataclass
class Field:
    """Frames, the same without cosmic rays, where the hits are, and the stars."""

    data: np.ndarray
    variance: np.ndarray
    clean: np.ndarray
    hits: np.ndarray
    stars: np.ndarray
    flux: np.ndarray
    galaxy: np.ndarray


def moffat(stars, flux, fwhm):
    y, x = np.mgrid[:SIZE, :SIZE]
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    image = np.zeros((SIZE, SIZE))
    for (py, px), total in zip(stars, flux, strict=True):
        image += total * 2 / np.pi / alpha**2 * (1 + ((y - py) ** 2 + (x - px) ** 2) / alpha**2) ** -3
    return image


def field(
    *, level=LEVELS, flux=None, fwhm=None, trail=None, seed=0, moving=0.5, star_fluxes=None, extent=True
):
    rng = np.random.default_rng(seed)
    n = len(level)
    flux = (1.0,) * n if flux is None else flux
    fwhm = (4.7,) * n if fwhm is None else fwhm
    step = SIZE / SIDE
    grid = [((i + 0.5) * step, (j + 0.5) * step) for i in range(SIDE) for j in range(SIDE)]
    stars = np.array(grid) + rng.uniform(-8, 8, (SIDE**2, 2))
    total = rng.permutation(np.geomspace(4e4, 2e6, SIDE**2))
    if star_fluxes is not None:
        stars, total = stars[:: SIDE + 1][: len(star_fluxes)], np.array(star_fluxes)
    y, x = np.mgrid[:SIZE, :SIZE]
    galaxy = 6000 * extent * np.exp(-np.hypot(x - SIZE / 2, (y - SIZE / 2) / 0.55) / (SIZE / 4))
    drawn = {width: moffat(stars, total, width) for width in set(fwhm)}
    data, variance, clean, hits = [], [], [], []
    for k in range(n):
        light = drawn[fwhm[k]]
        if k == trail:
            # Still for some time, then moving by 8 pixels in 9 steps.
            still = round(9 * (1 - moving) / moving)
            light = np.mean([np.roll(light, t, axis=1) for t in [0] * still + list(range(9))], axis=0)
        light = flux[k] * (light + galaxy) + SKY + level[k]
        frame = rng.poisson(light) + rng.normal(0, READ_NOISE, light.shape)
        hit = np.zeros(light.shape)
        where = rng.integers(4, SIZE - 4, (2, 20))
        hit[tuple(where)] = 2500 + rng.exponential(3000, 20)
        data.append(frame + hit - SKY)
        variance.append(np.maximum(frame + hit, 0) + READ_NOISE**2)
        clean.append(frame - SKY)
        hits.append(hit)
    return Field(*(np.array(part) for part in (data, variance, clean, hits)), stars, total, galaxy)


def stacked(this, mask=0, aligned=True, doubts=None, **options):
    frames = []
    for k, (data, variance) in enumerate(zip(this.data, this.variance, strict=True)):
        ad = make.electrons(make.frame(data, number=k + 1, shape=data.shape), variance, 0)
        ad[0].mask |= np.asarray(mask if np.isscalar(mask) else mask[k], np.uint16)
        if aligned:
            ad.phu.set("ALIGN", "2016-01-02T00:00:00")
        if doubts is not None:
            ad.phu.set("ALGNMETH", "sources")
            ad.phu.set("ALGNFLAG", k in doubts)
            if doubts.get(k) is not None:
                ad.phu.set("ALGNERR", doubts[k])
        frames.append(ad)
    b = make.bench(frames)
    b.p.stackFrames(**options)
    return b.main[0]


def apertures(image, stars):
    """Sums within 9 pixels, less the median of a ring."""
    y, x = np.mgrid[:SIZE, :SIZE]
    sums = []
    for py, px in stars:
        radius = np.hypot(y - py, x - px)
        ring = np.median(image[(radius > 11) & (radius < 15)])
        sums.append((image[radius < 9] - ring).sum())
    return np.array(sums)


CASES = {
    "steady": {},
    "sky drifts by 1 %": {"level": (-180, -60, 60, 180)},
    "sky drifts by 2 %": {"level": (-360, -120, 120, 360)},
    "sky oscillates by 3 %": {"level": (-360, 360, -360, 360)},
    "seeing": {"fwhm": (4.7, 3.4, 6.8, 8.5)},
    "clouds": {"level": (0,) * 5, "flux": (0.95, 0.55, 0.8, 0.7, 0.95)},
    "all together": {"level": (-360, 300, 100, -40), "flux": (0.95, 0.55, 0.8, 1), "fwhm": (4.7, 4, 6.8, 5)},
}


@pytest.mark.parametrize("case", CASES)
def test_a_stack_has_the_mean_flux_of_its_frames_whatever_the_night_does(case):
    this = field(**CASES[case])
    result = stacked(this)
    mean = this.clean.mean(axis=0)
    ratio = apertures(result[0].data, this.stars) / apertures(mean, this.stars)
    for low, high in ((4e4, 1.5e5), (1.5e5, 6e5), (6e5, 3e6)):
        some = (this.flux >= low) & (this.flux < high)
        assert np.median(ratio[some]) == pytest.approx(1, abs=0.005)
    # The profile of the galaxy, away from stars and hits.
    plain = (moffat(this.stars, this.flux, 4.7) < 50) & (this.hits.max(axis=0) == 0)
    for low, high in ((500, 1500), (1500, 3000), (3000, 6000)):
        some = plain & (this.galaxy > low) & (this.galaxy < high)
        assert (result[0].data - mean)[some].mean() == pytest.approx(0, abs=0.005 * mean[some].mean())


@pytest.mark.parametrize("case", CASES)
def test_star_cores_keep_their_inputs_and_cosmic_rays_go(case):
    this = field(**CASES[case])
    result = stacked(this)
    n = len(this.data)
    cores = np.zeros((SIZE, SIZE), bool)
    for y, x in this.stars.astype(int):
        cores[y - 2 : y + 3, x - 2 : x + 3] = True
    assert result[0].COVERAGE[cores].mean() >= 0.99 * n
    assert result[0].hdr["CORECOV"] >= 0.99
    sky = moffat(this.stars, this.flux, 4.7) < 30
    hit = (this.hits.max(axis=0) > 0) & sky
    excess = (result[0].data - this.clean.mean(axis=0)) / np.sqrt(result[0].variance)
    assert hit.sum() > 40
    assert (excess[hit] > 5).mean() <= 0.02


@pytest.mark.parametrize(("stars", "extent"), [(None, False), ((2e5, 2.5e6), True), ((2e5, 2.5e6), False)])
def test_faint_cores_and_wings_of_bright_stars_survive_changing_seeing(stars, extent):
    """The sharpest frame stands out in the cores of faint stars, the widest in the wings of bright ones."""
    ratios, kept = [], []
    for seed in (1, 2, 3):
        this = field(**CASES["seeing"], seed=seed, star_fluxes=stars, extent=extent)
        result = stacked(this)
        ratio = apertures(result[0].data, this.stars) / apertures(this.clean.mean(axis=0), this.stars)
        ratios.extend(ratio[(this.flux < 1.5e5) | (stars is not None)])
        kept.extend(
            result[0].COVERAGE[y - 2 : y + 3, x - 2 : x + 3].mean() for y, x in this.stars.astype(int)
        )
    assert np.mean(ratios) == pytest.approx(1, abs=0.005)
    assert np.mean(kept) >= 0.995 * 4


def test_a_hit_beside_the_only_star_does_not_widen_the_limits():
    this = field(fwhm=(4.7, 3.4, 6.8, 8.5), star_fluxes=(1e6,), extent=False)
    y, x = this.stars[0].astype(int)
    this.data[0, y + 12, x + 3 : x + 5] += 20000
    clean = stacked(field(fwhm=(4.7, 3.4, 6.8, 8.5), star_fluxes=(1e6,), extent=False))
    result = stacked(this)
    assert (result[0].COVERAGE[y + 12, x + 3 : x + 5] == 3).all()
    # Hits of 2500 electrons and more go with it as without it.
    hit = this.hits.max(axis=0) > 0
    assert result[0].COVERAGE[hit].mean() <= clean[0].COVERAGE[hit].mean() + 0.02


def test_without_it_the_same_frames_are_biased():
    this = field(**CASES["sky oscillates by 3 %"])
    faint = this.flux < 1.5e5
    true = apertures(this.clean.mean(axis=0), this.stars)[faint]
    for options in ({"aligned": False}, {"level": False}):
        result = stacked(this, **options)
        assert np.median(apertures(result[0].data, this.stars)[faint] / true) > 1.1
        assert "STACKING" not in result.tables


def test_the_table_says_what_the_frames_were():
    case = CASES["all together"]
    table = stacked(field(**case)).STACKING
    level, flux, fwhm = (np.array(case[name], float) for name in ("level", "flux", "fwhm"))
    assert list(table["IMAGE"]) == [make.name(k + 1) for k in range(4)]
    np.testing.assert_allclose(table["FLUX"], flux / flux.mean(), rtol=0.05)
    np.testing.assert_allclose(table["FWHM"], fwhm, rtol=0.06)
    np.testing.assert_allclose(table["LEVEL"], level - level.mean(), atol=30)
    assert (table["REJECTED"] < 0.005).all()


def test_levels_and_fluxes_are_as_good_as_their_errors():
    level, flux = np.array((0.0, 40.0, -25.0, 10.0, 70.0)), np.array((0.95, 0.55, 0.8, 0.7, 0.95))
    table = stacked(field(level=level, flux=flux)).STACKING
    assert np.abs((table["FLUX"] - flux / flux.mean()) / table["FLUXERR"]).max() < 4
    # Levels of frames through clouds know the scene as well as the fluxes.
    np.testing.assert_allclose(table["LEVEL"], level - level.mean(), atol=12)
    assert (table["FLUXERR"] < 0.01).all()


def test_pixels_that_lack_a_clear_frame_have_the_mean_flux_all_the_same():
    this = field(**CASES["clouds"])
    mask = np.zeros(this.data.shape, np.uint16)
    mask[0, :, : SIZE // 2] = DQ.no_data
    result = stacked(this, mask)
    ratio = apertures(result[0].data, this.stars) / apertures(this.clean.mean(axis=0), this.stars)
    # The noise of the frame that lacks is in the truth and not in the stack: only bright stars tell.
    lacking = (this.stars[:, 1] < SIZE / 2 - 15) & (this.flux > 2e5)
    assert result[0].COVERAGE[:, : SIZE // 2].max() == 4
    assert np.median(ratio[lacking]) == pytest.approx(1, abs=0.005)
    # A plain mean of the four would have 6 % less.
    assert np.mean(CASES["clouds"]["flux"][1:]) / np.mean(CASES["clouds"]["flux"]) < 0.95


def test_frames_can_be_scaled_to_the_mean_flux():
    this = field(**CASES["clouds"])
    flux = np.array(CASES["clouds"]["flux"])
    result = stacked(this, scale_flux=True)
    ratio = apertures(result[0].data, this.stars) / apertures(this.clean.mean(axis=0), this.stars)
    assert np.median(ratio) == pytest.approx(1, abs=0.005)
    assert result[0].hdr["FLUXSCAL"] is True
    factor = np.mean((flux.mean() / flux) ** 2)
    dark = this.galaxy < np.quantile(this.galaxy, 0.1)
    plain = stacked(this)[0].variance[dark]
    assert np.median(result[0].variance[dark] / plain) == pytest.approx(factor, rel=0.03)


def test_warnings_name_trailed_frames_and_clouds(caplog):
    caplog.set_level(logging.WARNING)
    table = stacked(field(trail=2)).STACKING
    assert np.argmax(table["FWHM"]) == 2
    assert f"{make.name(3)}: stars are" in caplog.text
    assert make.name(1) not in caplog.text
    stacked(field(**CASES["clouds"]))
    assert "clouds" in caplog.text


def test_a_frame_that_does_not_fit_is_named_and_lost_cores_are_not_passed_over(caplog):
    caplog.set_level(logging.WARNING)
    this = field()
    this.data[1, :, : SIZE // 8] += 3000
    stacked(this)
    assert f"{make.name(2)}: " in caplog.text
    assert "of its pixels were rejected" in caplog.text
    caplog.clear()
    stacked(field(fwhm=(4.7, 3.4, 6.8, 8.5)), hsigma=1.0, lsigma=0.0)
    assert "THE CORES OF STARS LOSE" in caplog.text


@pytest.mark.parametrize("moving", [0.2, 0.5, 1.0])
def test_a_trailed_frame_has_less_weight_and_fluxes_and_variances_stay_right(caplog, moving):
    """8 pixels in a fifth, in half and in all of the exposure, at a FWHM of 4.7."""
    caplog.set_level(logging.WARNING)
    this = field(level=(0,) * 5, trail=2, moving=moving)
    if moving == 1:
        # A matcher puts the middle of the trail on the star.
        for planes in (this.data, this.variance, this.clean, this.hits):
            planes[2] = np.roll(planes[2], -4, axis=1)
    result = stacked(this)
    table = result.STACKING
    weights = np.array(table["WEIGHT"])
    assert weights[2] < {0.2: 0.9, 0.5: 0.8, 1.0: 0.75}[moving]
    assert (np.delete(weights, 2) == 1).all()
    assert list(table["TRAILED"]) == [0, 0, 1, 0, 0]
    assert weights[2] == pytest.approx((np.median(table["FWHM"]) / table["FWHM"][2]) ** 2, rel=1e-6)
    assert f"{make.name(3)}: stars are trailed" in caplog.text
    assert f"weight {weights[2]:.2f}" in caplog.text
    assert result[0].hdr["WGTMIN"] == pytest.approx(weights[2], abs=1e-4)
    # By hand, where nothing is hit.
    plain = (this.hits.max(axis=0) == 0) & (result[0].COVERAGE == 5)
    w = weights[:, None, None] / weights.sum()
    level = np.array(table["LEVEL"])[:, None, None]
    # An aperture holds less of a trailed star: up to 0.3 % are taken for a change of flux.
    np.testing.assert_allclose(
        result[0].data[plain], np.sum(w * (this.data - level), axis=0)[plain], rtol=3e-3, atol=2
    )
    np.testing.assert_allclose(
        result[0].variance[plain], np.sum(w**2 * this.variance, axis=0)[plain], rtol=6e-3
    )
    assert plain.mean() > 0.99
    # The flux is that of the frames, in an aperture that holds the trail.
    mean = this.clean.mean(axis=0)
    bright = this.flux > 3e5
    y, x = np.mgrid[:SIZE, :SIZE]
    for py, px in this.stars[bright]:
        near = np.hypot(y - py, x - px) < 16
        rest = near.sum() * 5 * np.sqrt(SKY / 5)
        difference = (result[0].data - mean)[near].sum()
        assert abs(difference) < 0.005 * mean[near].sum() + rest / np.sqrt(near.sum())


def test_weights_can_be_switched_off_and_seeing_counts_only_on_request():
    this = field(trail=2)
    plain = stacked(this, weighting="none")
    assert (plain.STACKING["WEIGHT"] == 1).all()
    assert "WGTMIN" not in plain[0].hdr
    seeing = field(fwhm=(4.7, 3.4, 6.8, 8.5))
    assert (stacked(seeing).STACKING["WEIGHT"] == 1).all()
    assert not stacked(seeing).STACKING["TRAILED"].any()
    weights = np.array(stacked(seeing, weighting="all").STACKING["WEIGHT"])
    np.testing.assert_allclose(weights, (3.4 / np.array((4.7, 3.4, 6.8, 8.5))) ** 2, rtol=0.1)


def test_a_frame_whose_shift_is_doubtful_has_less_weight():
    this = field()
    errors = {1: 0.05, 2: 1.5, 3: None}
    result = stacked(this, doubts=errors)
    fwhm = np.median(result.STACKING["FWHM"])
    expected = [1, 1, fwhm**2 / (fwhm**2 + (2.3548 * 1.5) ** 2), 1 / (1 + (2.3548 * 0.5) ** 2)]
    np.testing.assert_allclose(result.STACKING["WEIGHT"], expected, rtol=0.01)
    np.testing.assert_array_equal(result.ALIGNMENT["WEIGHT"], result.STACKING["WEIGHT"])
    number = np.sum(expected) ** 2 / np.sum(np.square(expected))
    assert stacked(this)[0].hdr["EFFRDN"] / result[0].hdr["EFFRDN"] == pytest.approx(
        np.sqrt(number / 4), rel=0.01
    )


@pytest.mark.parametrize("stars", [(6e5,), (3e5, 6e5), (8e4, 2e5, 1e6)])
def test_the_error_of_a_flux_is_true_with_few_stars(stars):
    flux = np.array((0.95, 0.55, 0.8, 0.7, 0.95))
    pulls = []
    for seed in range(6):
        this = field(level=(0,) * 5, flux=flux, seed=seed, star_fluxes=stars, extent=False)
        table = stacked(this).STACKING
        assert (table["FLUXERR"] < 0.05).all()
        pulls.extend((table["FLUX"] - flux / flux.mean()) / table["FLUXERR"])
    # 30 values that share six means: a third either way. Stars that may disagree make errors larger.
    assert 0.25 < np.sqrt(np.mean(np.square(pulls))) < 1.35


def test_hot_pixels_near_stars_are_not_stars_that_saturate():
    flux = CASES["clouds"]["flux"]
    this = field(**CASES["clouds"])
    mask = np.zeros(this.data.shape, np.uint16)
    # The frames are dithered: a hot pixel moves from frame to frame.
    for y, x in this.stars.astype(int):
        for k, (dy, dx) in enumerate(((4, -3), (-5, 0), (3, 5), (0, 7), (-6, -2))):
            mask[k, y + dy, x + dx] = DQ.saturated
            this.data[k, y + dy, x + dx] = 200000
    table = stacked(this, mask).STACKING
    np.testing.assert_allclose(table["FLUX"], np.array(flux) / np.mean(flux), rtol=0.01)
    # Full cores are not used: without the brightest stars nothing changes but the errors.
    for y, x in this.stars[this.flux > 1e6].astype(int):
        mask[1, y - 1 : y + 2, x - 1 : x + 2] = DQ.saturated
        this.data[1, y - 1 : y + 2, x - 1 : x + 2] *= 0.5
    table = stacked(this, mask).STACKING
    np.testing.assert_allclose(table["FLUX"], np.array(flux) / np.mean(flux), rtol=0.015)


@pytest.mark.parametrize("threads", [1, 2])
def test_frames_without_stars_are_levelled(threads):
    rng = np.random.default_rng(1)
    frames = []
    for k, level in enumerate((-300.0, 300.0, 0.0, 100.0)):
        ad = make.electrons(
            make.frame(rng.normal(level, 100, (256, 256)), number=k + 1, shape=(256, 256)), 1e4, 0
        )
        ad.phu.set("ALIGN", "2016-01-02T00:00:00")
        frames.append(ad)
    b = make.bench(frames, threads=threads)
    b.p.stackFrames()
    result = b.main[0]
    assert result[0].COVERAGE.mean() > 3.999
    assert result[0].data.mean() == pytest.approx(25, abs=1)
    np.testing.assert_allclose(result.STACKING["LEVEL"], [-325, 275, -25, 75], atol=8)
    assert np.isnan(result.STACKING["FWHM"]).all()
    assert (result.STACKING["FLUX"] == 1).all()


def test_levels_are_found_along_a_mosaic():
    # Each frame shows a third of the strip and overlaps its neighbours only.
    rng = np.random.default_rng(2)
    levels = (0.0, 200.0, -100.0, 50.0)
    frames = []
    for k, level in enumerate(levels):
        mask = np.full((256, 512), DQ.no_data, np.uint16)
        mask[:, 96 * k : 96 * k + 192] = 0
        data = np.where(mask == 0, rng.normal(level, 50, mask.shape), 0)
        ad = make.electrons(make.frame(data, number=k + 1, shape=mask.shape), 2500, mask)
        ad.phu.set("ALIGN", "2016-01-02T00:00:00")
        frames.append(ad)
    b = make.bench(frames)
    b.p.stackFrames()
    found = np.array(b.main[0].STACKING["LEVEL"])
    np.testing.assert_allclose(found, np.array(levels) - np.mean(levels), atol=10)


def test_the_correlation_of_a_stack_is_that_of_the_mean_that_was_taken():
    """Frames of different noise and correlation, against apertures of their mean."""
    rng = np.random.default_rng(3)
    shape = (600, 600)
    frames, planes = [], []
    for k, (sigma, shift) in enumerate(((30.0, 0.0), (10.0, 0.5), (20.0, 0.25))):
        white = rng.normal(0, sigma, shape)
        # Linear interpolation along both axes: apertures keep the variance of the pixels, which fall.
        plane = white
        for axis in (0, 1):
            plane = (1 - shift) * plane + shift * np.roll(plane, 1, axis)
        weights = ((1 - shift) ** 2 + shift**2) ** 2
        ad = make.electrons(make.frame(plane, number=k + 1, shape=shape), sigma**2 * weights, 0)
        if shift:
            ad[0].hdr.set("NOISCORR", 1 / weights)
        frames.append(ad)
        planes.append(plane)
    b = make.bench(frames)
    b.p.stackFrames(reject_method="none")
    ext = b.main[0][0]
    boxes = np.mean(planes, axis=0).reshape(30, 20, 30, 20).sum(axis=(1, 3))
    summed = ext.variance.reshape(30, 20, 30, 20).sum(axis=(1, 3), dtype=float)
    true = np.mean(boxes**2 / summed)
    # 900 apertures know it to 5 %; those of 20 pixels have some of it outside, 5 % at most.
    assert ext.hdr["NOISCORR"] == pytest.approx(true, rel=0.12)
    plain_mean = np.mean([1.0, 4.0, 2.56])
    assert abs(plain_mean / true - 1) > 0.3
