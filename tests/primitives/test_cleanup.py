"""Readout cleaning: off unless asked, and only where there is something to clean."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.errors import ParameterError

from .. import frames as make

SHAPE = (256, 256)


def patterned(amplitude, seed=1):
    columns = np.array([0, 1, 0, -1, 0, 1, 0, -1.0])
    pattern = amplitude * np.tile(columns, SHAPE[1] // 8)[None, :] * np.ones((SHAPE[0], 1))
    # The upper half of the array shows the pattern twice as strong.
    pattern[128:] *= 2
    frame = make.frame(pattern + make.noise(seed, 10, 500, SHAPE), shape=SHAPE)
    return make.electrons(frame, 100.0, 0), pattern


def test_nothing_is_cleaned_unless_asked():
    frame, _ = patterned(40)
    before = frame[0].data.copy()
    b = make.bench([frame])
    b.p.cleanReadout()
    np.testing.assert_array_equal(frame[0].data, before)
    assert "CLNRDOUT" not in frame.phu
    assert frame.history[-1].reason == "clean is skip"


@pytest.mark.parametrize("clean", ["default", "force"])
def test_a_strong_pattern_is_removed_and_the_other_planes_stay(clean):
    frame, pattern = patterned(60)
    b = make.bench([frame])
    b.p.cleanReadout(clean=clean)
    left = frame[0].data - np.median(frame[0].data)

    def strength(image):
        return abs((image * pattern).mean() / (pattern**2).mean())

    assert strength(left) < 0.2
    assert (frame[0].variance == 100).all()
    assert not frame[0].mask.any()
    assert "CLNRDOUT" in frame.phu


def test_a_clean_frame_is_left_alone_and_not_stamped():
    frame, _ = patterned(0)
    before = frame[0].data.copy()
    b = make.bench([frame])
    b.p.cleanReadout(clean="default")
    np.testing.assert_array_equal(frame[0].data, before)
    assert frame.history[-1].status == "NOT_NEEDED"
    assert "CLNRDOUT" not in frame.phu


@pytest.mark.parametrize(
    ("primitive", "option"),
    [
        ("cleanReadout", {"clean": "always"}),
        ("cleanReadout", {"debug_canny_sigma": 0.5}),
        ("cleanReadout", {"smoothing_extent": 0}),
        ("cleanReadout", {"hsigma": float("nan")}),
        ("cleanReadout", {"pattern_y_size": 3}),
        ("cleanFFTReadout", {"periodicity": 1.0}),
        ("cleanFFTReadout", {"pat_thres": 1.0}),
        ("cleanFFTReadout", {"pad_rows": -1}),
        ("cleanFFTReadout", {"win_size": 8}),
    ],
)
def test_a_parameter_out_of_range_is_named(primitive, option):
    frame, _ = patterned(40)
    with pytest.raises(ParameterError, match=next(iter(option))):
        getattr(make.bench([frame]).p, primitive)(**{"clean": "default"} | option)


def test_offsets_are_removed_and_frames_say_how_much():
    rng = np.random.default_rng(5)
    truth = np.repeat(rng.normal(0, 8, (256, 1)), 256, axis=1)
    noise = make.noise(1, 40, 500, SHAPE)
    frame = make.electrons(make.frame(truth + noise, shape=SHAPE), 1600.0, 0)
    b = make.bench([frame])
    b.p.cleanReadout(clean="default")
    left = frame[0].data - noise
    assert np.std(left) < 0.5 * np.std(truth)
    assert frame[0].hdr["RDPATT"] == pytest.approx(8, rel=0.3)
    assert frame[0].hdr["RDPATTL"] < 4
    assert "offsets of" in frame.history[-1].reason
    assert "CLNRDOUT" in frame.phu


def test_quadrants_of_an_off_centre_window_are_those_of_the_detector():
    truth = np.zeros(SHAPE)
    truth[:96] = 60
    noise = make.noise(1, 40, 500, SHAPE)
    limits = {"LOWROW": 416, "HIROW": 671, "LOWCOL": 200, "HICOL": 455}
    frame = make.electrons(make.frame(truth + noise, shape=SHAPE, ext=limits), 1600.0, 0)
    make.bench([frame]).p.cleanReadout(clean="default")
    left = frame[0].data - noise
    assert abs(np.median(left[:96]) - np.median(left[96:])) < 15


def test_offsets_can_be_left():
    truth = np.repeat(np.random.default_rng(5).normal(0, 8, (256, 1)), 256, axis=1)
    frame = make.electrons(make.frame(truth + make.noise(1, 40, 500, SHAPE), shape=SHAPE), 1600.0, 0)
    before = frame[0].data.copy()
    make.bench([frame]).p.cleanReadout(clean="default", offsets=False)
    np.testing.assert_array_equal(frame[0].data, before)
    assert "RDPATT" not in frame[0].hdr
