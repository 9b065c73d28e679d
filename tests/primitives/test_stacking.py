"""What all combinations share: sections, and the header of the result."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.errors import NiripipeError
from niripipe.primitives.stacking import CombineParams, ScaledCombineParams, section_slices, stack

from .. import frames as make


@pytest.mark.parametrize(
    ("section", "expected"),
    [(None, (slice(0, 64), slice(0, 100))), ("1:10,21:30", (slice(20, 30), slice(0, 10)))],
)
def test_a_section_is_one_based_inclusive_and_x_first(section, expected):
    image = np.zeros((64, 100))
    np.testing.assert_array_equal(image[section_slices(section, image.shape)].shape, image[expected].shape)
    image[expected] = 1
    assert (image[section_slices(section, image.shape)] == 1).all()


@pytest.mark.parametrize("how", ["scale", "zero"])
def test_a_section_outside_the_image_is_refused(how):
    frames = [make.electrons(make.frame(10.0 + i, number=i + 1), 25.0, 0) for i in range(3)]
    with pytest.raises(NiripipeError, match="section"):
        make.bench(frames).p.stackFrames(statsec="200:300,1:10", **{how: True})


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_does_not_change_a_stack(threads):
    frames = [make.electrons(make.frame(make.noise(i, 5, 100), number=i + 1), 25.0, 0) for i in range(5)]
    alone = stack(frames, CombineParams(), threads=1)
    other = stack(frames, CombineParams(), threads=threads)
    np.testing.assert_array_equal(alone[0].data, other[0].data)
    np.testing.assert_array_equal(alone[0].variance, other[0].variance)


def test_different_gains_give_the_gain_of_the_mean():
    frames = [make.electrons(make.frame(number=i + 1), 1.0, 0) for i in range(2)]
    frames[0][0].hdr["GAIN"], frames[1][0].hdr["GAIN"] = 1.0, 3.0
    result = stack(frames, ScaledCombineParams(), threads=1)
    assert result[0].hdr["GAIN"] == pytest.approx(1.5)


def test_more_inputs_than_keywords_can_name_are_no_error():
    frames = [make.electrons(make.frame(1.0, shape=(16, 16), number=i + 1), 1.0, 0) for i in range(3)]
    result = stack(frames * 340, CombineParams(reject_method="none"), threads=1)
    assert result.phu["NCOMBINE"] == 1020
    assert "IMCMB999" in result.phu
    assert "IMCM1000" not in result.phu


def stack_of_stars(error, correlation, aligned=True):
    frames = []
    for number in range(4):
        ad = make.electrons(
            make.frame(make.gaussians((64, 64), [(30.2, 31.7, 1e6)]), number=number + 1), 400.0, 0
        )
        if aligned:
            ad.phu["ALIGN"] = "2016-01-02T00:00:00"
        if error is not None:
            ad.phu["ALGNERR"] = error
        ad[0].hdr["NOISCORR"] = correlation
        frames.append(ad)
    return stack(frames, CombineParams(reject_method="none"), threads=1)


def test_the_variance_of_steep_light_holds_the_error_of_the_shifts():
    result = stack_of_stars(0.06, 1.0)
    assert result[0].hdr["ALGNMEAN"] == pytest.approx(0.03)
    row, column = np.mgrid[:64, :64]
    star = 1e6 / (8 * np.pi) * np.exp(-((column - 30.2) ** 2 + (row - 31.7) ** 2) / 8)
    # The gradient of a normal profile is the profile times the distance over the square of its deviation.
    expected = 100 + (0.03 * star / 4) ** 2 * ((column - 30.2) ** 2 + (row - 31.7) ** 2)
    steep = expected > 1000
    assert steep.sum() > 20
    np.testing.assert_allclose(result[0].variance[steep], expected[steep], rtol=0.25)
    assert result[0].variance[steep].sum() == pytest.approx(expected[steep].sum(), rel=0.05)
    assert result[0].variance[5, 5] == pytest.approx(100)


def test_interpolated_frames_have_less_certain_peaks_and_others_do_not():
    peak = (32, 30)
    plain, smoothed = stack_of_stars(None, 1.0), stack_of_stars(None, 1.6)
    assert plain[0].variance[peak] == pytest.approx(100)
    assert smoothed[0].variance[peak] > 1000
    assert smoothed[0].variance[5, 5] == pytest.approx(100)
    not_aligned = stack_of_stars(0.06, 1.6, aligned=False)
    assert not_aligned[0].variance[peak] == pytest.approx(100)
    assert "ALGNMEAN" not in not_aligned[0].hdr
