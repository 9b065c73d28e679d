"""Extended sources survive sky subtraction, drifting skies vanish, and each frame says what was done."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.errors import DataError, ParameterError
from niripipe.recipes import image
from niripipe.simulate import Effects, Galaxy, raw_frame

from .. import frames as make

SIZE = 512
HALF = (SIZE - 1) / 2
# Brighter than a tenth of the noise over 30 % of the field.
GALAXY = Galaxy(HALF, HALF, disc=300.0, scale=30.0, bulge=400.0, core=10.0, axis_ratio=0.7, angle=30.0)
RADIUS = 189.0
CLOSE = [(0.0, 0.0), (3.0, 3.0), (-3.0, 3.0), (-3.0, -3.0), (3.0, -3.0)]
CORNER = 0.27 * SIZE * 0.1171
CORNERS = [(-CORNER, -CORNER), (CORNER, -CORNER), (CORNER, CORNER), (-CORNER, CORNER), (1 - CORNER, -CORNER)]


def exposures(pointings, galaxy=GALAXY, drift=0.02, level=600.0):
    """Raw frames, one each 32 s, under a sky that brightens; those with P = 300 see no galaxy."""
    start = datetime(2016, 1, 2, 9)
    made = []
    for k, (p, q) in enumerate(pointings):
        part = k / len(pointings)
        made.append(
            raw_frame(
                number=100 + k,
                ut=(start + timedelta(seconds=32.3 * k)).time(),
                p=p,
                q=q,
                size=SIZE,
                galaxy=galaxy if abs(p) < 100 else None,
                level=level * (1 + drift * part + 0.15 * drift * np.sin(6 * part)),
                effects=Effects.none(photon_noise=True, read_noise=True),
                stars=[(80.0, 400.0, 8000.0), (430.0, 90.0, 20000.0)],
            )
        )
    return made


def subtracted(raws, **parameters):
    frames = []
    for raw in raws:
        ad = astrodata.open(raw.hdulist())
        ad.path = raw.name
        frames.append(ad)
    return subtracted_frames(frames, **parameters)


def subtracted_frames(frames, **parameters):
    b = make.bench(frames, parameters=parameters, threads=2)
    b.p.prepare()
    b.p.addDQ(static_bpm=None, latency=False)
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True, poisson_noise=True)
    image._subtract_sky(b.p)
    return b


def truth(raw):
    """The galaxy in a frame (e-) and the elliptical radius of each pixel."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    t = raw.truth
    u, v = x - HALF - t.dx, y - HALF - t.dy
    cos, sin = np.cos(t.rotation), np.sin(t.rotation)
    bx, by = cos * u + sin * v + HALF, cos * v - sin * u + HALF
    angle = np.deg2rad(GALAXY.angle)
    along = np.cos(angle) * (bx - HALF) + np.sin(angle) * (by - HALF)
    across = np.cos(angle) * (by - HALF) - np.sin(angle) * (bx - HALF)
    return GALAXY.brightness(bx, by) * 20.002, np.hypot(along, across / GALAXY.axis_ratio)


def judged(b, raws):
    """Flux of the galaxy over truth; and in rings, mean of what is left beside it, in sigma of a frame."""
    by_name = {raw.name: raw for raw in raws}
    edges = RADIUS * np.array([0, 0.3, 0.6, 0.8, 1.0, 1.3, 1.7])
    flux = true = 0.0
    left, number, noise = np.zeros(6), np.zeros(6), []
    for ad in b.main:
        light, radius = truth(by_name[ad.orig_filename])
        data, objects = ad[0].data, stars(by_name[ad.orig_filename])
        good = (ad[0].mask == 0) & ~objects
        inside = good & (radius < RADIUS)
        flux += data[inside].sum(dtype=float)
        true += light[inside].sum(dtype=float)
        for i in range(6):
            ring = good & (radius >= edges[i]) & (radius < edges[i + 1])
            left[i] += (data - light)[ring].sum(dtype=float)
            number[i] += ring.sum()
        noise.append(np.std((data - light)[good & (radius > RADIUS)]))
    return flux / true, left / number / np.median(noise)


def stars(raw):
    """Pixels near the stars."""
    y, x = np.mgrid[:SIZE, :SIZE]
    near = np.zeros((SIZE, SIZE), bool)
    for sx, sy in ((80.0, 400.0), (430.0, 90.0)):
        near |= np.hypot(x - sx - raw.truth.dx, y - sy - raw.truth.dy) < 40
    return near


@pytest.fixture(scope="module")
def offset_skies():
    skies = [(p + 300, q) for p, q in CLOSE]
    return exposures([*CLOSE[:2], *skies[:2], *CLOSE[2:], *skies[2:]])


@pytest.fixture(scope="module")
def on_source():
    return exposures(CORNERS)


# ---- galaxies


def test_with_offset_skies_a_galaxy_over_a_third_of_the_field_keeps_its_flux_and_has_no_halo(offset_skies):
    b = subtracted(offset_skies)
    flux, rings = judged(b, offset_skies)
    assert flux == pytest.approx(1, abs=0.01)
    assert np.abs(rings).max() < 0.05


def test_unscaled_skies_change_the_level_and_not_the_galaxy(offset_skies):
    b = subtracted(offset_skies, **{"skyCorrect:scale_sky": False})
    _, rings = judged(b, offset_skies)
    assert np.ptp(rings) < 0.05


def test_dithered_on_source_a_galaxy_keeps_its_flux_and_has_no_halo(on_source):
    b = subtracted(on_source)
    flux, rings = judged(b, on_source)
    assert flux == pytest.approx(1, abs=0.01)
    assert np.abs(rings).max() < 0.05


def test_without_its_mask_the_galaxy_leaves_a_halo(on_source):
    b = subtracted(on_source, mask_extended=False)
    _, rings = judged(b, on_source)
    assert np.ptp(rings) > 0.1


def test_light_over_all_of_the_field_is_not_taken_for_sky():
    wide = Galaxy(HALF, HALF, disc=300.0, scale=150.0, bulge=400.0, core=20.0, axis_ratio=0.8, angle=30.0)
    skies = [(p + 300, q) for p, q in CLOSE]
    raws = exposures([*CLOSE[:2], *skies[:2], *CLOSE[2:4], *skies[2:4]], wide, drift=0.002)
    b = subtracted(raws)
    for ad in b.main:
        true = next(raw.truth.sky for raw in raws if raw.name == ad.orig_filename) * 20.002
        assert ad[0].hdr["SKYLEVEL"] == pytest.approx(true, rel=2e-3)
        assert ad[0].hdr["SKYMETH"] == "interpolated"
        assert "light of the target" in b.report.step("skyCorrect").outcomes[ad.orig_filename].reason


# ---- drift


@pytest.mark.parametrize("scaled", [True, False])
def test_a_drifting_sky_vanishes(scaled):
    raws = exposures([(0.0, 0.0), (300.0, 0.0)] * 4, galaxy=None, drift=0.05)
    b = subtracted(raws, **{"skyCorrect:scale_sky": scaled})
    for ad in b.main:
        level = ad[0].hdr["SKYRESID"]
        outside = ad.orig_filename == raws[0].name
        # The first frame has no sky before it; the others lie between two.
        limit = 0.1 if scaled else 200.0 if outside else 26.0
        assert abs(level) < limit
        assert np.median(ad[0].data) == pytest.approx(level, abs=4)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_hardly_any_sky_is_shifted_and_not_scaled(level):
    frames = [flat_frame(k, make.noise(k, 60, level, (SIZE, SIZE)), p=0.0, minute=k) for k in (1, 2)]
    frames += [flat_frame(k, make.noise(k, 60, level, (SIZE, SIZE)), p=300.0, minute=k) for k in (3, 4, 5)]
    b = make.bench(frames)
    b.p.makeSky()
    b.p.skyCorrect()
    for ad in b.main:
        assert ad[0].hdr["SKYMETH"] == "offset"
        assert "not scaled" in b.report.step("skyCorrect").outcomes[ad.orig_filename].reason
        assert np.std(ad[0].data) < 60 * 1.4
        assert np.median(ad[0].data) == pytest.approx(0, abs=1)


# ---- what is reported


def test_each_frame_names_its_skies_their_scales_and_what_is_left(offset_skies):
    raws = offset_skies[:7]
    for scaled, method in ((True, "scaled"), (False, "interpolated")):
        b = subtracted(raws, **{"skyCorrect:scale_sky": scaled})
        levels = {raw.name: raw.truth.sky for raw in raws}
        for ad in b.main:
            table, hdr = ad.SKYTABLE, ad[0].hdr
            assert set(table["SKYNAME"]) == {raw.name for raw in raws if raw.truth.p > 100}
            assert set(table["IMAGE"]) == {ad.orig_filename}
            fitted = np.asarray(table["SCALE"]) * [levels[name] for name in table["SKYNAME"]]
            np.testing.assert_allclose(fitted, fitted.mean(), rtol=5e-4)
            assert np.asarray(table["DT"]) == pytest.approx(
                [32.3 * (int(name[10:14]) - int(ad.orig_filename[10:14])) for name in table["SKYNAME"]],
                abs=0.2,
            )
            assert hdr["SKYMETH"] == method
            assert hdr["SKYNUM"] == 2
            assert fitted.mean() * 20.002 == pytest.approx(hdr["SKYLEVEL"], rel=1e-3)
            truth_left = levels[ad.orig_filename] * 20.002 - hdr["SKYLEVEL"]
            assert hdr["SKYRESID"] == pytest.approx(truth_left, abs=10)
            assert "2 skies" in b.report.step("skyCorrect").outcomes[ad.orig_filename].reason


# ---- skies chosen by the user


def flat_frame(number, level, p=0.0, minute=None):
    minute = number if minute is None else minute
    shape = np.shape(level) or make.SHAPE
    ad = make.frame(level, number=number, shape=shape, POFFSET=p, UT=f"08:{minute:02d}:00.0")
    return make.electrons(ad, 100.0, 0)


def chosen(ad):
    return sorted(int(name[10:14]) for name in ad.SKYTABLE["SKYNAME"])


def three():
    return [flat_frame(1, 1000), flat_frame(2, 900, p=300), flat_frame(3, 1100, p=302)]


def test_skies_can_be_given_as_names_frames_or_files(tmp_path):
    elsewhere = flat_frame(50, 950, p=310, minute=9)
    elsewhere.write(tmp_path / "N20160102S0050_flatCorrected.fits")
    path = tmp_path / "N20160102S0050_flatCorrected.fits"
    for given, expected in (
        ("N20160102S0003", [3]),
        (["N20160102S0002.fits", "N20160102S0003"], [2, 3]),
        (path, [50]),
        ([str(path), "N20160102S0002"], [2, 50]),
        (elsewhere, [50]),
    ):
        b = make.bench(three())
        b.p.separateSky()
        b.p.associateSky(sky=given)
        assert chosen(b.main[0]) == expected
        b.p.skyCorrect(scale_sky=True)
        np.testing.assert_allclose(b.main[0][0].data, 0, atol=0.5)


def test_a_frame_that_was_not_called_a_sky_can_be_chosen():
    frames = [*three(), flat_frame(4, 1000, p=5)]
    b = make.bench(frames)
    b.p.separateSky()
    b.p.associateSky(sky="N20160102S0004")
    assert chosen(b.main[0]) == [4]


def test_a_sky_that_does_not_exist_is_an_error_that_names_those_there_are():
    b = make.bench(three())
    b.p.separateSky()
    with pytest.raises(ParameterError, match=r"S0009.*N20160102S0002"):
        b.p.associateSky(sky="N20160102S0009")


def test_a_sky_that_was_processed_differently_is_refused():
    other = flat_frame(50, 950, p=310)
    other.phu["FLATCORR"] = "2016-01-02T00:00:00"
    b = make.bench(three())
    b.p.separateSky()
    with pytest.raises(DataError, match="FLATCORR"):
        b.p.associateSky(sky=other)


@pytest.mark.parametrize("one", [True, False])
def test_a_ready_sky_is_subtracted_from_all_frames_or_one_from_each(one):
    frames = [flat_frame(1, 1000), flat_frame(2, 1200)]
    skies = [flat_frame(8, 500, p=300), flat_frame(9, 800, p=300)]
    b = make.bench(frames)
    b.p.subtractSky(sky=skies[0] if one else tuple(skies), scale_sky=False)
    assert [float(np.median(ad[0].data)) for ad in frames] == ([500, 700] if one else [500, 400])
    assert frames[0][0].hdr["SKYNUM"] == 1
    b = make.bench([flat_frame(1, 1000)])
    b.p.subtractSky(sky=skies[0])
    assert abs(np.median(b.main[0][0].data)) < 0.5


def test_without_exactly_one_sky_the_user_is_told():
    with pytest.raises(ParameterError, match="0 skies for 1 frames"):
        make.bench([flat_frame(1, 1000)]).p.subtractSky()


# ---- cost


def test_the_sky_of_many_frames_takes_a_time_proportional_to_their_number():
    def seconds(n):
        frames = [flat_frame(k, make.noise(k, 10, 1000), p=2.0 * k, minute=k) for k in range(n)]
        b = make.bench(frames)
        b.p.separateSky()
        b.p.associateSky(time=420)
        start = time.process_time()
        b.p.skyCorrect(scale_sky=False)
        return time.process_time() - start

    seconds(4)
    few, many = min(seconds(15) for _ in range(2)), min(seconds(45) for _ in range(2))
    assert many < 5 * few


@pytest.mark.parametrize(
    "given", [{}, {"operation": "mean", "nlow": 0, "nhigh": 0}, {"reject_method": "none"}]
)
def test_shared_work_gives_each_frame_the_sky_that_it_would_have_alone(given):
    def frames():
        return [flat_frame(k, make.noise(k, 10, 1000 + 20 * k), p=2.0 * k, minute=k) for k in range(9)]

    def corrected(keep):
        b = make.bench(frames())
        b.p.makeSky()
        b.p.streams["main"] = [ad for ad in b.main if keep is None or ad.orig_filename == make.name(keep)]
        b.p.skyCorrect(**given)
        return {ad.orig_filename: ad[0] for ad in b.main}

    together = corrected(None)
    for k in (0, 4, 8):
        alone = corrected(k)[make.name(k)]
        # Levels refer to the first of the skies used, which differs; the difference is rounding.
        np.testing.assert_allclose(together[make.name(k)].data, alone.data, atol=2e-3)
        np.testing.assert_allclose(together[make.name(k)].variance, alone.variance, rtol=1e-4)
