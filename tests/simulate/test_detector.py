from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from niripipe.instruments.tables import niri_tables
from niripipe.simulate.detector import Detector, Readout, make_detector, measured_counts, read_out
from niripipe.simulate.settings import Effects, Setup

GAIN = 12.3
SMALL = Setup(size=256)


def _detector(size: int = 256, **effects: float | bool) -> Detector:
    return make_detector(size, Effects.none(**effects), np.random.default_rng(5))


def _read(
    rates: float | None, setup: Setup = SMALL, coadds: int = 1, exposure: float = 10.0, **on: float | bool
) -> np.ndarray:
    effects = Effects.none(**on)
    detector = make_detector(setup.size, effects, np.random.default_rng(5))
    light = None if rates is None else np.full((setup.size,) * 2, rates, np.float32)
    readout = Readout(exposure=exposure, coadds=coadds, setup=setup, effects=effects, day=date(2016, 1, 2))
    return read_out(detector, readout, light, None, np.random.default_rng(9))


@pytest.mark.parametrize("entry", niri_tables().linearity, ids=lambda e: f"{e.read_mode}-{e.rows}-{e.well}")
def test_measured_counts_are_what_the_linearity_correction_undoes(entry) -> None:  # type: ignore[no-untyped-def]
    counts = np.array([0.0, 1.0, 1000, 50000, 100000, 150000, 190000])
    charge = counts * (1 + counts * (entry.gamma + entry.eta * counts))
    np.testing.assert_allclose(
        measured_counts(charge.astype(np.float32), entry), counts, rtol=3e-7, atol=1e-6
    )


def test_published_value_of_the_correction_is_inverted() -> None:
    entry = niri_tables().linearity_for("Medium Background", 1024, "Shallow")
    assert entry is not None
    assert measured_counts(np.array([51094.188], np.float32), entry)[0] == pytest.approx(50000, abs=0.02)


def test_very_bright_light_does_not_upset_the_inversion() -> None:
    entry = niri_tables().linearity[0]
    charge = np.array([1e6, 1e8, 1e10])
    counts = measured_counts(charge.astype(np.float32), entry).astype(float)
    np.testing.assert_allclose(counts * (1 + counts * (entry.gamma + entry.eta * counts)), charge, rtol=1e-5)


def test_correcting_a_frame_gives_the_light_times_the_nominal_exposure() -> None:
    entry = SMALL.linearity
    assert entry is not None
    counts = _read(9000.0, nonlinearity=True).astype(float) * GAIN
    corrected = counts * (1 + counts * (entry.gamma + entry.eta * counts)) * 10.0 / (10.0 + entry.dead_time)
    assert counts.mean() < 0.97 * 90000
    np.testing.assert_allclose(corrected, 90000, rtol=1e-6)


def test_response_is_linear_where_no_coefficients_exist() -> None:
    np.testing.assert_allclose(_read(9000.0, Setup(size=512), nonlinearity=True) * GAIN, 90000, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "noise"), [("Low Background", 12.3), ("Medium Background", 35.0), ("High Background", 70.0)]
)
@pytest.mark.parametrize("coadds", [1, 5])
def test_read_noise_is_that_of_the_mode_and_grows_with_the_coadds(
    mode: str, noise: float, coadds: int
) -> None:
    frame = _read(None, Setup(size=256, read_mode=mode), coadds, read_noise=True) * GAIN
    assert frame.std() == pytest.approx(noise * coadds**0.5, rel=0.015)
    assert abs(frame.mean()) < 5 * noise * coadds**0.5 / 256


def test_photon_noise_is_the_root_of_the_electrons() -> None:
    frame = _read(3000.0, photon_noise=True, coadds=2) * GAIN
    assert frame.mean() == pytest.approx(60000, rel=1e-4)
    assert frame.std() == pytest.approx(60000**0.5, rel=0.015)


def test_noise_of_a_corrected_frame_is_that_of_the_collected_charge() -> None:
    entry = SMALL.linearity
    assert entry is not None
    counts = _read(9000.0, nonlinearity=True, photon_noise=True).astype(float) * GAIN
    corrected = counts * (1 + counts * (entry.gamma + entry.eta * counts))
    assert corrected.std() == pytest.approx(90000**0.5, rel=0.02)


def test_full_pixels_reach_the_level_at_which_they_count_as_saturated() -> None:
    full = _read(1e6, saturation=True, read_noise=True, photon_noise=True, coadds=3)
    assert full.min() >= int(200000 * 3 / GAIN)
    assert full.max() < 1.05 * 200000 * 3 / GAIN
    assert _read(1e6).min() > 1e6 * 10 / GAIN * 0.999


def test_saturation_hole_opens_only_in_very_bright_cores() -> None:
    modest = _read(3e4, saturation=True, saturation_hole=True)
    extreme = _read(9e5, saturation=True, saturation_hole=True)
    assert modest.min() >= 16260
    assert extreme.max() < 16260 / 2


def test_dark_frames_grow_with_time_and_glow_with_reads() -> None:
    long = _read(None, dark_current=0.25, exposure=400.0) * GAIN
    assert long.mean() == pytest.approx(100, rel=0.005)
    glowing = _detector(1024, glow=20.0).glow
    assert glowing[0].mean() > 13
    assert glowing[512].max() < 0.1


def test_bad_pixels_are_as_many_as_asked_and_are_found_by_the_usual_limits() -> None:
    detector = make_detector(1024, Effects(), np.random.default_rng(2))
    rough = (detector.flat < 0.8) | (detector.flat > 1.25) | (detector.dark > 1300)
    places = np.concatenate([detector.dead, detector.hot])
    assert len(detector.dead) == len(detector.hot) == round(0.0012 * 1024**2)
    wanted = np.zeros((1024, 1024), bool)
    wanted[places[:, 0], places[:, 1]] = True
    np.testing.assert_array_equal(rough, wanted)
    assert np.median(detector.flat[~wanted]) == pytest.approx(1, abs=1e-3)


def test_readout_pattern_repeats_every_eight_columns_and_differs_between_quadrants() -> None:
    frame = _read(None, pattern=50.0).astype(float)
    quadrant = frame[:128, :128]
    np.testing.assert_allclose(quadrant[:, :120], quadrant[:, 8:], atol=1e-5)
    assert quadrant[127].std() > 1
    assert not np.allclose(quadrant[127], frame[128, 128:])
    levels = _read(None, quadrant_offset=30.0)
    assert len(np.unique(levels)) == 4


def test_early_frames_hold_the_sum_over_read_pairs() -> None:
    setup = Setup(size=256, read_mode="Low Background", pixel_type="float32")
    light = np.full((256, 256), 100.0, np.float32)
    readout = Readout(exposure=10.0, coadds=1, setup=setup, effects=Effects.none(), day=date(2001, 10, 31))
    early = read_out(_detector(), readout, light, None, np.random.default_rng(1))
    later = read_out(
        _detector(), replace(readout, day=date(2001, 11, 1)), light, None, np.random.default_rng(1)
    )
    np.testing.assert_allclose(early, 16 * later, rtol=1e-6)


def test_values_are_whole_steps_of_the_converter() -> None:
    averaged = _read(100.0, photon_noise=True, quantised=True) * 16
    single = _read(100.0, Setup(size=256, read_mode="High Background"), photon_noise=True, quantised=True)
    for values in (averaged, single):
        np.testing.assert_array_equal(values, np.rint(values))
    assert _read(100.0, Setup(size=256, pixel_type="int32")).dtype == np.int32
