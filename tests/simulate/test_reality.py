"""What real nights have: each effect against its formula, written out here once more."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import simulate
from niripipe.errors import ParameterError
from niripipe.simulate import Effects, FrameReality, Galaxy, Reality, raw_frame
from niripipe.simulate.conditions import walk
from niripipe.simulate.psf import add_stars, star_stamp
from niripipe.simulate.reality import distort, pixel_area, released, undistort

from ..frames import centroid

GAIN = 12.3
CENTRE = 127.5
ONLY_TARGET = {"size": 256, "scene": "empty", "n_sky": 0, "n_standard": 0, "n_flat": 0, "n_dark": 0,
               "n_short_dark": 0}  # fmt: skip


def _rate(reality: Reality | bool = False, *, level: float = 0.0, **options: Any) -> np.ndarray:
    """Return the light of a frame of a perfect detector, e-/s."""
    frame = raw_frame(size=256, level=level, effects=Effects.none(), reality=reality, **options)
    return frame.data.astype(float) * GAIN / frame.truth.seconds


def _truth(**options: Any) -> FrameReality:
    reality = raw_frame(size=256, effects=Effects.none(), **options).truth.reality
    assert reality is not None
    return reality


def _moffat(x: float, y: float, fwhm: float) -> np.ndarray:
    """Unit flux, beta = 3, averaged over 9 x 9 points of each pixel."""
    scale2 = (fwhm / 2) ** 2 / (2 ** (1 / 3) - 1)
    fine = (np.arange(256 * 9) + 0.5) / 9 - 0.5
    light = 2 / (math.pi * scale2) * (1 + ((fine - x) ** 2 + (fine[:, None] - y) ** 2) / scale2) ** -3
    pixels: np.ndarray = light.reshape(256, 9, 256, 9).mean(axis=(1, 3))
    return pixels


# ---- nothing on


def test_without_switches_a_frame_is_the_same_bit_for_bit() -> None:
    plain = raw_frame(size=256, stars=[(100.0, 90.0, 5000.0)])
    off = raw_frame(size=256, stars=[(100.0, 90.0, 5000.0)], reality=Reality())
    assert plain.to_bytes() == off.to_bytes()
    assert plain.truth == off.truth
    assert plain.truth.reality is None


def test_clean_nights_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Pixels (ADU) of a night that was made before there was `Reality`."""
    few = {"n_target": 1, "n_sky": 1, "n_standard": 1, "n_flat": 1, "n_dark": 1, "n_short_dark": 1}
    night = simulate.night(tmp_path, seed=4, size=256, **few)
    pixels = [float(fits.getdata(path)[131, 57]) for path in night.files]
    # One step of the converter is 1/16 ADU; arithmetic may round the last one differently.
    assert pixels == pytest.approx([1010.5625, 988.5625, 533.9375, 205.4375, 4856.375, 6.5625, 7.0], abs=0.13)
    text = (tmp_path / "truth.json").read_text()
    assert "reality" not in text


# ---- optics


def test_the_published_distortion_moves_stars_by_three_pixels_at_500() -> None:
    x, y = undistort(np.array([511.5 + 500]), np.array([511.5]), 1.32e-5, 511.5)
    assert (float(x[0]) - 511.5, float(y[0])) == (pytest.approx(503.3), 511.5)
    there, back = distort(x, y, 1.32e-5, 511.5)
    assert (float(there[0]), float(back[0])) == pytest.approx((1011.5, 511.5), abs=1e-9)


@pytest.mark.parametrize(("x", "y"), [(30.0, 40.0), (215.3, 120.6), (127.5, 127.5)])
def test_stars_fall_where_the_formula_says(x: float, y: float) -> None:
    k = 2e-4
    light = _rate(Reality(distortion=k), stars=[(x, y, 20000.0)])
    true = math.hypot(x - CENTRE, y - CENTRE)
    # The positive root of k r^2 + r - true = 0.
    r = max(np.roots([k, 1.0, -true])) if true else 0.0
    factor = r / true if true else 1.0
    expected = (CENTRE + (x - CENTRE) * factor, CENTRE + (y - CENTRE) * factor)
    assert centroid(light, *expected) == pytest.approx(expected, abs=0.01)
    assert true - r == pytest.approx(k * r**2)
    assert light.sum() == pytest.approx(20000, rel=0.01)


def test_a_galaxy_moves_like_a_star_and_keeps_its_flux() -> None:
    galaxy = Galaxy(50.0, 190.0, 100.0, 4.0, 0.0, 5.0, 0.8, 30.0)
    k = 2e-4
    plain, moved = _rate(galaxy=galaxy), _rate(Reality(distortion=k), galaxy=galaxy)
    (x,), (y,) = distort(np.array([50.0]), np.array([190.0]), k, CENTRE)
    assert math.hypot(x - 50, y - 190) > 1.5
    assert centroid(moved, x, y) == pytest.approx((x, y), abs=0.02)
    assert moved.sum() == pytest.approx(plain.sum(), rel=1e-3)


def test_pixels_far_from_the_centre_see_more_sky() -> None:
    k, step = 1e-4, 1e-3
    y, x = np.indices((256, 256), float)
    right = undistort(x + step, y, k, CENTRE)
    left = undistort(x - step, y, k, CENTRE)
    above = undistort(x, y + step, k, CENTRE)
    below = undistort(x, y - step, k, CENTRE)
    along = [(a - b) / (2 * step) for a, b in zip(right, left, strict=True)]
    up = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
    determinant = along[0] * up[1] - along[1] * up[0]
    np.testing.assert_allclose(pixel_area(256, k), determinant, rtol=1e-4)
    np.testing.assert_allclose(_rate(Reality(distortion=k), level=600.0) / 600, determinant, rtol=1e-4)
    flat = _rate(Reality(distortion=k), level=1400.0, kind="flat_on")
    np.testing.assert_allclose(flat / 1400, determinant, rtol=1e-4)


def test_truth_gives_positions_with_distortion(tmp_path: Path) -> None:
    k = 2e-4
    night = simulate.night(
        tmp_path, seed=3, n_target=2, n_stars=6, **(ONLY_TARGET | {"scene": "sparse"}),
        effects=Effects.none(pointing_rms=0.05), sky_rate=0.0, reality=Reality(distortion=k),
    )  # fmt: skip
    light = fits.getdata(night.target[1]).astype(float)
    shift = night.truth.frames[night.target[1].name]
    for (x, y, _), star in zip(
        night.truth.positions(night.target[1].name), night.truth.fields["target"].stars, strict=True
    ):
        assert centroid(light, x, y) == pytest.approx((x, y), abs=0.05)
        assert math.hypot(x - star.x - shift.dx, y - star.y - shift.dy) > 0.1


def test_a_star_is_a_core_and_a_halo() -> None:
    reality = Reality(core_fraction=0.4, halo_fwhm=1.5)
    light = _rate(reality, stars=[(120.3, 130.6, 40000.0)], fwhm=0.4)
    core, halo = (_moffat(120.3, 130.6, width / 0.1171) for width in (0.4, 1.5))
    expected = 40000 * (0.4 * core + 0.6 * halo)
    # Brightness under 0.05 e- in the frame is left out.
    np.testing.assert_allclose(light, expected, rtol=2e-3, atol=0.06 / 20)
    assert light.sum() == pytest.approx(40000, rel=2e-3)


def test_a_trailed_star_is_the_mean_of_stars_along_the_trail() -> None:
    reality = Reality(trailed=(0,), trail_length=9.0, trail_angle=40.0)
    trailed = _rate(reality, stars=[(120.0, 130.0, 20000.0)])
    angle = math.radians(40)
    along = 9.0 * ((np.arange(20) + 0.5) / 20 - 0.5)
    stamps = [_moffat(120 + s * math.cos(angle), 130 + s * math.sin(angle), 0.55 / 0.1171) for s in along]
    expected = 20000 * np.mean(stamps, axis=0)
    np.testing.assert_allclose(trailed, expected, atol=0.01 * expected.max())
    assert trailed.max() < 0.75 * _rate(stars=[(120.0, 130.0, 20000.0)]).max()
    assert trailed.sum() == pytest.approx(20000, rel=2e-3)


def test_only_the_frames_named_are_trailed(tmp_path: Path) -> None:
    reality = Reality(trailed=(1, 9), trail_angle=90.0)
    night = simulate.night(tmp_path, seed=1, n_target=3, reality=reality, **ONLY_TARGET)
    trails = [frame.reality.trail for frame in night.truth.frames.values() if frame.reality]
    assert trails == [(0, 0), (pytest.approx(0, abs=1e-9), 8.0), (0, 0)]


# ---- sky


def test_blobs_stay_on_the_detector_and_vary(tmp_path: Path) -> None:
    settings = Reality(blobs=2, blob_strength=0.02, blob_size=0.05, blob_period=10.0)
    night = simulate.night(
        tmp_path, seed=1, n_target=8, effects=Effects.none(), reality=settings, **ONLY_TARGET
    )
    places, peaks = [], []
    for path in night.target:
        truth = night.truth.frames[path.name].reality
        assert truth is not None
        y, x = np.indices((256, 256))
        expected = np.full((256, 256), 600.0)
        for bx, by, sigma, peak in truth.blobs:
            expected += peak * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * sigma**2))
        np.testing.assert_allclose(fits.getdata(path) * GAIN / 20.002, expected, rtol=1e-5)
        places.append([blob[:3] for blob in truth.blobs])
        peaks.append([blob[3] for blob in truth.blobs])
    assert all(place == places[0] for place in places)
    assert {place[2] for place in places[0]} == {0.05 * 256}
    assert 0 <= np.min(peaks) < np.max(peaks) <= 2 * 0.02 * 600
    assert (np.ptp(peaks, axis=0) > 5).all()
    # From the darkest to the brightest in half a period of 10 minutes; frames are 32.3 s apart.
    phase = [math.acos(1 - peak[0] / 12) for peak in peaks]
    steps = np.abs(np.diff(phase))
    assert np.sort(steps)[-4:] == pytest.approx(2 * math.pi * 32.3 / 600, abs=1e-3)


def test_the_slope_of_the_sky_is_its_strength_times_the_level() -> None:
    light = _rate(Reality(gradient=0.02), level=500.0)
    y, x = np.indices((256, 256)) / 256
    design = np.stack([np.ones(256 * 256), x.ravel(), y.ravel()], axis=1)
    (_, gx, gy), residual, *_ = np.linalg.lstsq(design, light.ravel(), rcond=None)
    assert math.hypot(gx, gy) == pytest.approx(0.02 * 500, rel=1e-4)
    assert residual[0] / light.size < 1e-6
    assert light.mean() == pytest.approx(500, rel=1e-6)


def test_fringes_are_waves_of_the_period_asked() -> None:
    light = _rate(Reality(fringes=0.01, fringe_period=32.0), level=500.0) - 500
    power = np.abs(np.fft.fft2(light * np.hanning(256) * np.hanning(256)[:, None])) ** 2
    fy, fx = np.unravel_index(power.argmax(), power.shape)
    frequency = math.hypot(np.fft.fftfreq(256)[fy], np.fft.fftfreq(256)[fx])
    assert frequency == pytest.approx(1 / 32, abs=1 / 256)
    # The strength swings by half of itself about 1 per cent of the sky.
    assert 0.5 * 5 <= light.max() <= 1.5 * 5
    assert light.min() == pytest.approx(-light.max(), rel=0.01)


def test_oh_waves_move_over_the_field_at_their_speed(tmp_path: Path) -> None:
    settings = Reality(oh_waves=0.02, oh_length=100.0, oh_speed=0.5)
    night = simulate.night(
        tmp_path, seed=2, n_target=2, effects=Effects.none(), reality=settings, **ONLY_TARGET
    )
    first, second = (fits.getdata(path) * GAIN / 20.002 - 600 for path in night.target)
    truth = night.truth.frames[night.target[0].name].reality
    assert truth is not None
    amplitude, length, angle, phase = truth.oh_wave
    assert (amplitude, length) == (pytest.approx(12.0), 100.0)
    y, x = np.indices((256, 256)) - CENTRE
    along = math.cos(angle) * x + math.sin(angle) * y
    np.testing.assert_allclose(first, 12 * np.sin(2 * np.pi * along / 100 + phase), atol=0.01)
    # Frames start 20.0 + 12.3 s one after the other: crests are 16.15 pixels further.
    moved = 12 * np.sin(2 * np.pi * (along - 0.5 * 32.3) / 100 + phase)
    np.testing.assert_allclose(second, moved, atol=0.01)


def test_thermal_light_rises_with_time(tmp_path: Path) -> None:
    settings = Reality(thermal=20.0, thermal_rise=120.0)
    night = simulate.night(
        tmp_path, seed=2, n_target=3, effects=Effects.none(), reality=settings, **ONLY_TARGET
    )
    levels = [float(fits.getdata(path).mean()) * GAIN / 20.002 for path in night.target]
    assert levels == pytest.approx([620 + 120 * i * 32.3 / 3600 for i in range(3)], rel=1e-5)


def test_seeing_transparency_and_sky_follow_their_lists(tmp_path: Path) -> None:
    settings = Reality(seeing=(0.55, 0.4, 0.8), transparency=(0.95, 0.55), sky_levels=(1.0, 1.02, 1.04, 1.06))
    night = simulate.night(
        tmp_path, seed=2, n_target=4, effects=Effects.none(), reality=settings, **ONLY_TARGET
    )
    frames = [night.truth.frames[path.name] for path in night.target]
    assert [f.fwhm_pix * 0.1171 for f in frames] == pytest.approx([0.55, 0.4, 0.8, 0.55])
    assert [f.transparency for f in frames] == [0.95, 0.55, 0.95, 0.55]
    means = [float(fits.getdata(path).mean()) * GAIN / 20.002 for path in night.target]
    assert means == pytest.approx([600, 612, 624, 636], rel=1e-5)


def test_a_star_in_thin_cloud_and_bad_seeing_is_drawn_so() -> None:
    light = _rate(Reality(seeing=(0.9,), transparency=(0.6,)), stars=[(120.0, 130.0, 20000.0)])
    np.testing.assert_allclose(light, 12000 * _moffat(120.0, 130.0, 0.9 / 0.1171), rtol=2e-3, atol=0.004)


def test_walks_take_steps_of_the_size_asked() -> None:
    rng = np.random.default_rng(1)
    free = walk(2.0, 0.05, 4000, rng)
    assert free[0] == 2.0
    assert np.diff(np.log(free)).std() == pytest.approx(0.05, rel=0.05)
    clouds = walk(1.0, 0.05, 4000, rng, most=1.0)
    assert clouds.max() == 1.0
    assert clouds.min() > 0
    assert np.abs(np.diff(np.log(clouds))).mean() == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.06)
    assert walk(1.0, 0.05, 0, rng).size == 0


def test_a_short_standard_has_hardly_any_sky_and_one_star(tmp_path: Path) -> None:
    night = simulate.night(
        tmp_path, seed=2, **(ONLY_TARGET | {"n_standard": 3}), n_target=0, standard_exposure=0.2,
        standard_coadds=10, effects=Effects.none(),
        reality=Reality(standard_sky=5.0, lone_standard=True, thermal=40.0),
    )  # fmt: skip
    assert len(night.truth.fields["std"].stars) == 1
    for path in night.standard:
        electrons = fits.getdata(path).astype(float) * GAIN
        # 5 e-/s for 10 x 0.2 s, and the far wings of the star.
        assert np.percentile(electrons, 5) == pytest.approx(10, abs=0.5)
        assert electrons.sum() - 256**2 * 10 == pytest.approx(250000 * 2, rel=0.01)


# ---- detector


def test_rows_and_quadrants_are_offset_by_what_the_truth_says() -> None:
    settings = Reality(row_noise=20.0, quadrant_noise=50.0)
    options = {"exposure": 2.0, "coadds": 4, "kind": "dark"}
    dark = raw_frame(size=256, effects=Effects.none(), reality=settings, **options)  # type: ignore[arg-type]
    truth = dark.truth.reality
    assert truth is not None
    expected = np.array(truth.rows)[:, None] + np.zeros(256)
    ll, lr, ul, ur = truth.quadrants
    for (row, column), level in {(0, 0): ll, (0, 128): lr, (128, 0): ul, (128, 128): ur}.items():
        expected[row : row + 128, column : column + 128] += level
    np.testing.assert_allclose(dark.data * GAIN, expected, atol=1e-3)
    assert len(truth.rows) == 256
    # Coadds are read one by one: the noise grows with the root of their number.
    assert np.std(truth.rows) == pytest.approx(40, rel=0.15)
    assert len(set(truth.quadrants)) == 4


def test_offsets_differ_from_frame_to_frame(tmp_path: Path) -> None:
    night = simulate.night(
        tmp_path, seed=2, n_target=30, reality=Reality(row_noise=5.0, quadrant_noise=10.0), **ONLY_TARGET
    )
    found = [frame.reality for frame in night.truth.frames.values() if frame.reality]
    assert np.std([truth.rows for truth in found]) == pytest.approx(5, rel=0.05)
    assert np.std([truth.quadrants for truth in found]) == pytest.approx(10, rel=0.2)
    assert abs(np.corrcoef(found[0].rows, found[1].rows)[0, 1]) < 0.25


def test_persistence_decays_as_measured() -> None:
    """Behind a bright star in real frames of 80 s: 980, 250 and 120 e- in the three frames that followed."""
    shares = np.array([released(980.0, 10.0 + 90.0 * i, 80.0) for i in range(3)])
    np.testing.assert_allclose(shares, [980, 250, 120], rtol=0.12)
    # A rate that falls as t^-1.1.
    fine = np.linspace(40, 60, 2001)
    unit = np.linspace(10, 90, 8001)
    expected = np.trapezoid(fine**-1.1, fine) / np.trapezoid(unit**-1.1, unit)
    assert released(1.0, 40.0, 20.0) == pytest.approx(expected, rel=1e-4)


def test_bright_stars_leave_an_image_without_filling_pixels(tmp_path: Path) -> None:
    options = ONLY_TARGET | {"n_target": 0, "n_standard": 3, "standard_coadds": 2, "sky_rate": 0.0}
    settings = Reality(persistence=0.05, persistence_from=5000.0, lone_standard=True)
    night, clean = (
        simulate.night(tmp_path / name, seed=1, effects=Effects.none(), reality=reality, **options)
        for name, reality in (("with", settings), ("without", Reality(lone_standard=True)))
    )
    first = fits.getdata(clean.standard[0]).astype(float) * GAIN
    assert 10000 < first.max() < 100000
    # Frames of 2 x 2.001 s start every 16.3 s.
    for number, gap in ((1, 16.3 - 4.002), (2, 32.6 - 4.002)):
        image, plain = (fits.getdata(n.standard[number]).astype(float) * GAIN for n in (night, clean))
        ghost = image - plain
        share = 0.05 * (gap**-0.1 - (gap + 4.002) ** -0.1) / (10**-0.1 - 90**-0.1)
        y, x = np.unravel_index(first.argmax(), first.shape)
        assert ghost[y, x] == pytest.approx(share * first[y, x], rel=0.02)
        # The charge of a coadd must reach 5000 e-.
        assert (ghost[first < 9990].max() < 0.1) == (number == 1)
        truth = night.truth.frames[night.standard[number].name].reality
        assert truth is not None
        listed = {(a, b): charge for a, b, charge in truth.ghosts}
        assert listed[int(y), int(x)] == pytest.approx(ghost[y, x], abs=0.1)
        assert len(listed) == np.count_nonzero(ghost >= 5)
    np.testing.assert_array_equal(fits.getdata(night.standard[0]), fits.getdata(clean.standard[0]))


# ---- switches


def test_switching_one_effect_off_leaves_the_others_as_they_are() -> None:
    everything = Reality.everything(trailed=(0,))
    without = Reality.everything(trailed=(0,), blobs=0, row_noise=0.0)
    one, other = _truth(reality=everything), _truth(reality=without)
    assert one.blobs
    assert not other.blobs
    for name in ("fringes", "oh_wave", "slope", "trail", "thermal", "quadrants", "distortion"):
        assert getattr(one, name) == getattr(other, name)


def test_everything_is_everything_and_survives_the_file(tmp_path: Path) -> None:
    few = {"n_target": 4, "n_sky": 1, "n_standard": 2, "n_flat": 1, "n_dark": 1, "n_short_dark": 1}
    night = simulate.night(tmp_path / "one", seed=6, size=256, reality=True, **few)
    read = simulate.open_night(night.folder).truth
    assert read.reality == night.truth.reality == Reality.everything()
    assert read.frames == night.truth.frames
    frame = read.frames[night.target[3].name].reality
    assert frame is not None
    assert all(getattr(frame, name) for name in FrameReality.__slots__)
    again = simulate.night(tmp_path / "two", seed=6, size=256, reality=True, threads=1, **few)
    assert [p.read_bytes() for p in again.files] == [p.read_bytes() for p in night.files]
    off = simulate.night(tmp_path / "off", seed=6, size=256, reality=False, **few)
    assert off.truth.reality is None


@pytest.mark.parametrize(
    "bad",
    [{"distortion": -1e-5}, {"core_fraction": 1.2}, {"blobs": 1.5}, {"seeing": (0.5, 0.0)},
     {"blob_size": 0.0}, {"transparency": (-0.1,)}, {"persistence": float("nan")},
     {"trail_angle": float("inf")}, {"thermal": float("inf")}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as caught:
        Reality(**bad)
    assert caught.value.item == next(iter(bad))


def test_unknown_effects_are_refused() -> None:
    with pytest.raises(ParameterError, match="blob"):
        Reality.everything(blob=3)


def test_wide_haloes_need_no_integration_over_pixels() -> None:
    window = slice(0, 256)
    plain = star_stamp(120.3, 131.8, 25.0, window, window, integrated=False)
    np.testing.assert_allclose(plain, _moffat(120.3, 131.8, 25.0), rtol=1e-4)
    image = np.zeros((256, 256))
    where = np.array([120.3]), np.array([131.8]), np.array([900.0])
    add_stars(image, *where, 10.0, faintest=0.5, integrated=False)
    assert image.sum() == pytest.approx(900, rel=0.005)


def test_scores_know_haloes(tmp_path: Path) -> None:
    """The ideal stack of stars with haloes has the right flux, drawn here without the simulator's optics."""
    reality = Reality(core_fraction=0.6, halo_fwhm=1.2)
    night = simulate.night(
        tmp_path, seed=5, n_target=3, n_stars=8, reality=reality, **(ONLY_TARGET | {"scene": "sparse"}),
        effects=Effects.none(),
    )  # fmt: skip
    name = night.truth.names("target")[1]
    data = np.random.default_rng(2).normal(0, 5.0, (256, 256))
    for x, y, flux in night.truth.positions(name):
        for share, width in ((0.6, 0.55), (0.4, 1.2)):
            data += share * flux * 20.002 * _moffat(x, y, width / 0.1171)
    plane = SimpleNamespace(
        data=data.astype(np.float32), variance=np.full((256, 256), 25, np.float32),
        mask=np.zeros((256, 256), np.uint16), wcs=WCS(fits.getheader(night.folder / name, 1)),
        hdr={"BUNIT": "electron"},
    )  # fmt: skip
    stack = type("Stack", (list,), {"phu": {"NCOMBINE": 2}})([plane])
    score = simulate.score(night, stack)
    assert score.n_bright >= 3
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.003)
    assert score.r50_ratio == pytest.approx(1, abs=0.005)
