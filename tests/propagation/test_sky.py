"""Sky subtraction: the sky that is subtracted, its noise, and the level that is kept, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ

from .. import frames as make
from .planes import calibration, centre, check, flags, frame, median_variance, values

Y, X = np.mgrid[:64, :64]
BASE = 1000 * (1 + 0.1 * (X - 32) / 64 - 0.05 * (Y - 32) / 64)
"""Sky of the first sky frame. Without noise, so that levels are measured exactly."""
STAR = make.gaussians((64, 64), [(40, 20, 5000.0)])


def at(data, variance, mask=0, *, number, minute, p=0.0, **options):
    """A frame at this offset (arcsec) and time."""
    ut = f"08:{minute:02d}:00.0"
    return frame(data, variance, mask, number=number, POFFSET=p, UT=ut, **options)


def bench(place, science, variance, skies, sky_variances, *, masks=None, minute=None, mask=0):
    """A bench with one frame and skies around it in time."""
    n = len(skies)
    minute = n if minute is None else minute
    minutes = [2 * i + 1 for i in range(n)]
    masks = [0] * n if masks is None else masks
    b = make.bench(
        place(
            at(science, variance, mask, number=1, minute=minute),
            *(
                at(d, v, m, number=10 + i, minute=minutes[i], p=300.0 + 2 * i)
                for i, (d, v, m) in enumerate(zip(skies, sky_variances, masks, strict=True))
            ),
        )
    )
    b.p.makeSky(time=7200)
    return b


COMBINATIONS = {
    "mean": {"operation": "mean", "reject_method": "none"},
    "median": {"operation": "median", "reject_method": "none"},
    "default": {},
    "trimmed": {"operation": "mean", "reject_method": "minmax", "nlow": 1, "nhigh": 1},
}


def sky_noise(name, variances):
    """Variance of a combination of inputs of these variances (already scaled)."""
    n = len(variances)
    if name == "mean":
        return np.sum(variances, axis=0, dtype=float) / n**2
    if name == "trimmed":
        return np.mean(variances, axis=0, dtype=float) / (n - 2)
    # A median from which extremes were dropped is the median of all.
    return np.mean(variances, axis=0, dtype=float) * median_variance(n)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("science", [3.0, 0.4])
@pytest.mark.parametrize("levels", [(1.0,) * 5, (1.0, 2.0, 0.5, 1.25, 0.8)], ids=["equal", "unequal"])
def test_a_scaled_sky_adds_its_variance_times_the_square_of_the_factor(place, combination, science, levels):
    variance = values(1, 1, 9)
    # Scaled to the first the skies have one variance, so that it does not matter which are dropped.
    first = values(2, 20, 60)
    b = bench(
        place,
        science * BASE + STAR,
        variance,
        [level * BASE for level in levels],
        [first * level**2 for level in levels],
    )
    b.p.skyCorrect(**COMBINATIONS[combination], scale_sky=True, mask_objects=False)
    ext = b.main[0][0]
    factor = ext.hdr["SKYSCALE"]
    assert factor == pytest.approx(science, rel=2e-3)
    check(
        b.main[0],
        science * BASE + STAR - factor * BASE,
        variance + factor**2 * sky_noise(combination, [first] * 5),
        0,
        atol=0.02,
        rtol=1e-4,
    )
    table = b.main[0].SKYTABLE
    for name, scale in zip(table["SKYNAME"], table["SCALE"], strict=True):
        assert scale == pytest.approx(science / levels[int(name[10:14]) - 10], rel=3e-3)


@pytest.mark.parametrize("combination", ["mean", "median", "default"])
def test_each_sky_has_the_noise_that_its_own_factor_gives(place, combination):
    levels = (1.0, 2.0, 0.5, 1.25, 0.8)
    variance = values(1, 1, 9)
    noises = [values(20 + i, 10, 90) for i in range(5)]
    b = bench(place, 2 * BASE, variance, [level * BASE for level in levels], noises)
    b.p.skyCorrect(**COMBINATIONS[combination], mask_objects=False)
    factor = b.main[0][0].hdr["SKYSCALE"]
    scaled = [noise / level**2 for noise, level in zip(noises, levels, strict=True)]
    expected = variance + factor**2 * sky_noise(combination, scaled)
    check(b.main[0], (2 - factor) * BASE, expected, atol=0.02, rtol=1e-4)


@pytest.mark.parametrize("operation", ["mean", "median"])
def test_without_scaling_the_level_is_interpolated_between_the_skies(place, operation):
    # Skies of level 1 and 3 at minutes 1 and 3: in the middle the sky is at 2, and the first sky times 2.
    variance, noises = values(1, 1, 9), [values(2, 20, 60), values(3, 20, 60)]
    b = bench(place, 5 * BASE, variance, [BASE, 3 * BASE], noises, minute=2)
    b.p.skyCorrect(operation=operation, reject_method="none", scale_sky=False, mask_objects=False)
    expected = variance + 4 * (noises[0] + noises[1] / 9) / 4
    check(b.main[0], 3 * BASE, expected, atol=0.1, rtol=1e-4)
    assert b.main[0][0].hdr["SKYSCALE"] == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("operation", ["mean", "median"])
def test_flagged_pixels_of_the_skies_neither_count_nor_add_noise(place, operation):
    levels = np.array([1.0, 2.0, 0.5, 1.25, 0.8])
    variance = values(1, 1, 9)
    noises = np.array([values(20 + i, 10, 90) for i in range(5)], float)
    masks = np.array([flags(30 + i, DQ.bad_pixel, share=0.3) for i in range(5)])
    masks[:, 5:9, 5:9] = DQ.bad_pixel
    nowhere_good = masks.all(axis=0)
    skies = levels[:, None, None] * BASE
    skies[(masks != 0) & ~nowhere_good] += 5000
    b = bench(place, 2 * BASE, variance, skies, noises, masks=list(masks))
    b.p.skyCorrect(operation=operation, reject_method="none", mask_objects=False)
    factor = b.main[0][0].hdr["SKYSCALE"]
    # Where no sky is good all of them are used.
    good = (masks == 0) | nowhere_good
    number = good.sum(axis=0)
    shares = np.array([0.0, *(1 / n if operation == "mean" else median_variance(n) for n in range(1, 6))])
    scaled = (noises / levels[:, None, None] ** 2 * good).sum(axis=0) / number
    check(
        b.main[0], (2 - factor) * BASE, variance + factor**2 * shares[number] * scaled, atol=0.02, rtol=1e-4
    )


@pytest.mark.parametrize("operation", ["mean", "median"])
def test_skies_brought_together_by_offsets(place, operation):
    # Skies 0 and 600 above the first at minutes 1 and 3: in the middle the sky is 300 above the first.
    variance, noises = values(1, 1, 9), [values(2 + i, 20, 60) for i in range(2)]
    b = bench(place, 5 * BASE, variance, [BASE, BASE + 600], noises, minute=2)
    b.p.skyCorrect(
        operation=operation,
        reject_method="none",
        scale=False,
        zero=True,
        scale_sky=False,
        mask_objects=False,
    )
    check(b.main[0], 4 * BASE - 300, variance + (noises[0] + noises[1]) / 4, atol=0.1)
    # What was subtracted and what is left is also said: together the level of the frame.
    hdr = b.main[0][0].hdr
    assert hdr["SKYLEVEL"] == pytest.approx(np.median(BASE) + 300, abs=20)
    assert hdr["SKYRESID"] == pytest.approx(np.median(4 * BASE) - 300, abs=200)


@pytest.mark.parametrize("operation", ["mean", "median"])
def test_skies_combined_as_they_are(place, operation):
    variance, noises = values(1, 1, 9), [values(2 + i, 20, 60) for i in range(2)]
    b = bench(place, 5 * BASE, variance, [BASE, 3 * BASE], noises, minute=2)
    b.p.skyCorrect(
        operation=operation, reject_method="none", scale=False, scale_sky=False, mask_objects=False
    )
    check(b.main[0], 3 * BASE, variance + (noises[0] + noises[1]) / 4, atol=0.02)


OFFSET = 350.0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["skyCorrect", "subtractSky"])
def test_an_offset_sky_has_the_level_of_the_frame(place, sign, reset, given):
    variance, noise = values(1, 1, 9), values(2, 20, 60)
    science = BASE + sign * OFFSET + STAR
    options = {"scale_sky": False, "offset_sky": True, "reset_sky": reset}
    if given:
        (ad,) = place(at(science, variance, number=1, minute=1))
        (sky,) = place(at(BASE, noise / 5, number=2, minute=2, p=300.0))
        b = make.bench([ad])
        b.p.subtractSky(sky=sky, **options)
    else:
        b = bench(place, science, variance, [BASE] * 5, [noise] * 5)
        b.p.skyCorrect(**COMBINATIONS["mean"], mask_objects=False, **options)
    level = np.median(science) if reset else 0.0
    ext = b.main[0][0]
    # The level kept is measured on the frame with its gradient.
    constant = float(np.median(ext.data - STAR))
    assert constant == pytest.approx(level, abs=60 if reset else 2)
    check(b.main[0], STAR + constant, variance + noise / 5, 0, atol=0.5)
    subtracted = float(np.median(BASE[::8, ::8])) + sign * OFFSET
    assert ext.hdr["SKYLEVEL"] == pytest.approx(subtracted, abs=5)


@pytest.mark.parametrize("science", [3.0, 0.4])
@pytest.mark.parametrize("given", [False, True], ids=["skyCorrect", "subtractSky"])
def test_the_level_that_is_kept_is_the_frames_own(place, science, given):
    variance, noise = values(1, 1, 9), values(2, 20, 60)
    if given:
        (ad,) = place(at(science * BASE, variance, number=1, minute=1))
        (sky,) = place(at(BASE, noise / 5, number=2, minute=2, p=300.0))
        b = make.bench([ad])
        b.p.subtractSky(sky=sky, scale_sky=True, reset_sky=True)
    else:
        b = bench(place, science * BASE, variance, [BASE] * 5, [noise] * 5)
        b.p.skyCorrect(**COMBINATIONS["mean"], mask_objects=False, reset_sky=True)
    ext = b.main[0][0]
    factor = ext.hdr["SKYSCALE"]
    constant = float(np.median(ext.data))
    assert constant == pytest.approx(1000 * science, rel=0.05)
    check(b.main[0], constant + (science - factor) * (BASE - 1000), variance + factor**2 * noise / 5, atol=1)


# ---- a sky that exists already


@pytest.mark.parametrize("science", [3.0, 0.4])
@pytest.mark.parametrize("source", ["memory", "file", "stream", "one each"])
def test_a_given_sky_is_scaled_with_its_noise(place, tmp_path, science, source):
    variance, noise = values(1, 1, 9), values(2, 20, 60)
    mask, sky_mask = flags(3, DQ.cosmic_ray), flags(4, DQ.bad_pixel)
    (ad,) = place(at(science * BASE + STAR, variance, mask, number=1, minute=1))
    (sky,) = place(at(BASE, noise, sky_mask, number=2, minute=2, p=300.0))
    b = make.bench([ad])
    if source == "file":
        sky.write(tmp_path / "sky.fits")
        b.p.subtractSky(sky=str(tmp_path / "sky.fits"))
    elif source == "stream":
        b.p.streams["sky"] = [sky]
        b.p.subtractSky()
    else:
        b.p.subtractSky(sky=sky if source == "memory" else [sky])
    factor = ad[0].hdr["SKYSCALE"]
    assert factor == pytest.approx(science, rel=2e-3)
    expected = science * BASE + STAR - factor * BASE
    check(ad, expected, variance + factor**2 * noise, mask | sky_mask, atol=0.02)


def test_an_unscaled_sky_is_subtracted_as_it_is(place):
    variance, noise = values(1, 1, 9), values(2, 20, 60)
    data, level = values(3, 2000, 4000), values(4, 500, 1500)
    (ad,) = place(at(data, variance, number=1, minute=1))
    (sky,) = place(at(level, noise, number=2, minute=2, p=300.0))
    make.bench([ad]).p.subtractSky(sky=sky, scale_sky=False)
    check(ad, data.astype(float) - level, variance + noise)


def test_several_frames_with_several_skies(place):
    variances, noises = ([values(i + k, 10, 60) for i in range(3)] for k in (0, 10))
    factors = (3.0, 0.5, 1.5)
    frames = place(*(at(f * BASE, v, number=i + 1, minute=i) for i, (f, v) in
                     enumerate(zip(factors, variances, strict=True))))  # fmt: skip
    skies = place(*(at(BASE, v, number=i + 11, minute=i + 9, p=300.0) for i, v in enumerate(noises)))
    b = make.bench(frames)
    b.p.subtractSky(sky=skies)
    for ad, variance, noise, wanted in zip(b.main, variances, noises, factors, strict=True):
        factor = ad[0].hdr["SKYSCALE"]
        assert factor == pytest.approx(wanted, rel=2e-3)
        check(ad, (wanted - factor) * BASE, variance + factor**2 * noise, atol=0.02)


def test_a_sky_without_variance_adds_none_and_variance_can_be_left_out(place):
    variance = values(1, 1, 9)
    (ad,) = place(at(2 * BASE, variance, number=1, minute=1))
    (sky,) = place(at(BASE, None, number=2, minute=2, p=300.0))
    make.bench([ad]).p.subtractSky(sky=sky)
    check(ad, 0, variance, atol=2)
    (ad,) = place(at(2 * BASE, variance, number=1, minute=1))
    make.bench([ad]).p.subtractSky(sky=sky, propagate_variance=False)
    check(ad, 0, None, atol=2)


# ---- numbers instead of frames


@pytest.mark.parametrize("level", [400.0, -25.5])
def test_a_background_number_adds_no_noise(place, level):
    data, variance, mask = values(1, 500, 1500), values(2, 1, 9), flags(3, 1)
    (ad,) = place(frame(data, variance, mask))
    ad[0].hdr["SKYLEVEL"] = level
    make.bench([ad]).p.subtractSkyBackground()
    check(ad, data.astype(float) - level, variance, mask)


@pytest.mark.parametrize("remove", [False, True])
def test_backgrounds_move_by_a_constant(place, remove):
    levels = (500.0, 900.0, 200.0)
    planes = [make.noise(i, 5, level) for i, level in enumerate(levels)]
    variances = [values(10 + i, 1, 9) for i in range(3)]
    frames = place(
        *(frame(d, v, number=i + 1) for i, (d, v) in enumerate(zip(planes, variances, strict=True)))
    )
    b = make.bench(frames)
    b.p.correctBackgroundToReference(remove_background=remove)
    for ad, data, variance, level in zip(b.main, planes, variances, levels, strict=True):
        shift = (0.0 if remove else levels[0]) - level
        constant = float(np.median(ad[0].data - data))
        assert constant == pytest.approx(shift, abs=1)
        check(ad, data + constant, variance, 0)


# ---- variances that follow from the counts


@pytest.mark.parametrize("operation", ["mean", "median"])
@pytest.mark.parametrize("science", [1.0, 2.5])
@pytest.mark.parametrize("steps", [("addVAR", "ADUToElectrons"), ("ADUToElectrons", "addVAR")])
@pytest.mark.parametrize("level", [1.0, 1.6], ids=["equal", "unequal"])
def test_photon_noise_of_frame_and_skies_is_that_of_their_counts(place, operation, science, steps, level):
    # The noise of a median of skies of several levels may be taken from the level that they are brought to,
    # which is exact for photon noise.
    gain, read_noise = 8.0, 30.0 if level == 1 else 0.0
    levels = (1.0, level, 1.0)
    planes = [science * BASE, *(one * BASE for one in levels)]
    frames = []
    for i, plane in enumerate(planes):
        offset = 300.0 + 2 * i if i else 0.0
        ad = at(plane / gain, None, number=i + 1, minute=2 * i if i else 3, p=offset, adu=True, gain=gain)
        ad[0].hdr["RDNOISE"] = read_noise
        frames.append(ad)
    b = make.bench(place(*frames))
    for step in steps:
        getattr(b.p, step)(**({"read_noise": True, "poisson_noise": True} if step == "addVAR" else {}))
    b.p.makeSky()
    b.p.skyCorrect(operation=operation, reject_method="none", mask_objects=False)
    factor = b.main[0][0].hdr["SKYSCALE"]
    share = 1 / 3 if operation == "mean" else median_variance(3)
    # Of the skies, each brought to the level of the first.
    noise = np.mean([(one * BASE + read_noise**2) / one**2 for one in levels], axis=0)
    expected = science * BASE + read_noise**2 + factor**2 * share * noise
    check(b.main[0], (science - factor) * BASE, expected, atol=0.05, rtol=1e-3)


def test_a_sky_of_a_subarray(place):
    shape = (48, 32)
    base, variance, noise = centre(BASE, shape), values(1, 1, 9, shape), values(2, 20, 60, shape)
    (ad,) = place(at(2 * base, variance, number=1, minute=1))
    (sky,) = place(at(base, noise, number=2, minute=2, p=300.0))
    make.bench([ad]).p.subtractSky(sky=sky)
    factor = ad[0].hdr["SKYSCALE"]
    check(ad, (2 - factor) * base, variance + factor**2 * noise, atol=0.02)


@pytest.mark.parametrize(("hsigma", "lsigma"), [(3.0, 100.0), (100.0, 3.0)])
def test_skies_are_clipped_below_and_above_at_different_limits(place, hsigma, lsigma):
    # In every pixel one is too low and one too high, by so much that each alone is clipped.
    n = 20
    skies = np.array([BASE + (-1) ** i for i in range(n)])
    low = np.arange(n)[:, None, None] == np.random.default_rng(1).integers(0, n, BASE.shape)
    high = np.roll(low, 1, axis=0)
    skies += 300.0 * high - 300.0 * low
    b = bench(place, 2000 + BASE, values(1, 1, 9), skies, [np.full(BASE.shape, 40.0)] * n)
    b.p.skyCorrect(
        operation="mean",
        reject_method="sigclip",
        hsigma=hsigma,
        lsigma=lsigma,
        scale=False,
        scale_sky=False,
        mask_objects=False,
    )
    used = ~(low if lsigma == 3 else high)
    number = used.sum(axis=0)
    assert len(b.main[0].SKYTABLE) == n
    sky = (skies * used).sum(axis=0) / number
    check(b.main[0], 2000 + BASE - sky, values(1, 1, 9) + 40.0 / number, atol=0.02)


@pytest.mark.parametrize("factor", [1.0, 1.4])
@pytest.mark.parametrize("skies", [["dark", "flat"], ["dark"], ["flat"], []], ids="-".join)
def test_dark_and_flat_that_cancel_add_no_noise(place, factor, skies):
    """The variance is that of the difference, written out from the noise of each exposure."""
    read, n = 900.0, 5
    dark_noise, flat_noise, flat = values(2, 50, 90), values(3, 1e-5, 3e-5), values(4, 0.8, 1.25)
    frames = [
        at(factor * 2000 + STAR, read, number=1, minute=n),
        *(at(2000.0, read, number=10 + i, minute=2 * i + 1, p=300.0 + 2 * i) for i in range(n)),
    ]
    b = make.bench(place(*frames))
    dark, gain = calibration("dark", 0 * flat, dark_noise, 0), calibration("flat", flat, flat_noise, 0)
    if "dark" in skies:
        b.p.darkCorrect(dark=place(dark)[0])
    if "flat" in skies:
        b.p.flatCorrect(flat=place(gain)[0])
    b.p.makeSky(time=7200)
    b.p.skyCorrect(operation="mean", reject_method="none", mask_objects=False, scale_sky=factor != 1)
    ext = b.main[0][0]
    f = ext.hdr["SKYSCALE"]
    divided = flat.astype(float) if "flat" in skies else 1.0
    light, sky = (factor * 2000 + STAR.astype(float)) / divided, 2000 / divided
    expected = read / divided**2 * (1 + f**2 / n)
    if "dark" in skies:
        expected += (1 - f) ** 2 * dark_noise / divided**2
    if "flat" in skies:
        expected += (light - f * sky) ** 2 * flat_noise / divided**2
    # How many skies a variance stands for is told by frames at the same level.
    np.testing.assert_allclose(ext.variance, expected, rtol=1e-2)
    assert ext.hdr.get("VARSHARE", "") == ", ".join(skies)


def test_dark_noise_of_frames_corrected_elsewhere_or_otherwise_stays(place):
    frames = [
        at(2000.0, 900.0, number=1, minute=3),
        *(at(2000.0, 900.0, number=10 + i, minute=2 * i + 1, p=300.0 + 2 * i) for i in range(3)),
    ]
    for own, frame_ in enumerate(frames):
        frame_.phu["DARKIM"] = "elsewhere_dark.fits" if own else "other_dark.fits"
    b = make.bench(place(*frames))
    b.p.makeSky(time=7200)
    b.p.skyCorrect(operation="mean", reject_method="none", mask_objects=False)
    ext = b.main[0][0]
    assert "VARSHARE" not in ext.hdr
    np.testing.assert_allclose(ext.variance, 900 * (1 + ext.hdr["SKYSCALE"] ** 2 / 3), rtol=1e-4)


@pytest.mark.parametrize("kept", [True, False])
def test_a_dark_of_an_earlier_reduction_is_found_while_it_is_the_same_file(tmp_path, kept):
    dark = calibration("dark", np.zeros(make.SHAPE), 400.0, 0)
    dark.write(tmp_path / "one_dark.fits")
    frames = [at(2000.0, 900.0, number=1, minute=3)]
    frames += [at(2000.0, 900.0, number=10 + i, minute=2 * i + 1, p=300.0 + 2 * i) for i in range(3)]
    make.bench(frames).p.darkCorrect(dark=tmp_path / "one_dark.fits")
    if not kept:
        dark[0].variance *= 2
        dark.write(tmp_path / "one_dark.fits", overwrite=True)
    b = make.bench(frames)
    b.p.makeSky(time=7200)
    b.p.skyCorrect(operation="mean", reject_method="none", mask_objects=False)
    noise = 900 if kept else 1300
    assert b.main[0][0].hdr.get("VARSHARE") == ("dark" if kept else None)
    np.testing.assert_allclose(b.main[0][0].variance, noise * (1 + 1 / 3), rtol=1e-3)
