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
