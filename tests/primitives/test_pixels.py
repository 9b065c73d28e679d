"""Replacing pixels and scaling by intensity."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.errors import AlgorithmError, InputError, ParameterError

from .. import frames as make


def flagged(bit=1, level=100.0):
    data = np.full(make.SHAPE, level, np.float32)
    mask = np.zeros(make.SHAPE, np.uint16)
    data[10, 20], mask[10, 20] = 9e4, bit
    return make.electrons(make.frame(data), 4.0, mask)


def outcome(ad):
    return ad.history[-1].status, ad.history[-1].reason


def test_flagged_pixels_become_the_median_and_stay_flagged():
    ad = flagged()
    make.bench([ad]).p.applyDQPlane()
    assert ad[0].data[10, 20] == 100.0
    assert ad[0].mask[10, 20] == 1
    assert (ad[0].variance == 4.0).all()
    assert ad.filename.endswith("_dqPlaneApplied.fits")
    assert "APLDQPLN" in ad.phu


@pytest.mark.parametrize(
    ("value", "expected"), [("mean", 100.0), (-1.5, -1.5), ("7", 7.0), ("median", 100.0)]
)
def test_the_replacement_is_a_statistic_or_a_number(value, expected):
    ad = flagged()
    make.bench([ad]).p.applyDQPlane(replace_value=value)
    assert ad[0].data[10, 20] == expected


def test_a_ring_gives_the_local_level():
    ad = flagged()
    ad[0].data[5:16, 15:26] = np.where(ad[0].mask[5:16, 15:26] == 0, 300.0, 9e4)
    make.bench([ad]).p.applyDQPlane(inner=1, outer=4)
    assert ad[0].data[10, 20] == 300.0


def test_saturated_pixels_are_signal_and_stay_by_default():
    ad = flagged(bit=4)
    make.bench([ad]).p.applyDQPlane()
    assert ad[0].data[10, 20] == 9e4
    assert outcome(ad) == ("NOT_NEEDED", "no pixel carries these flags")
    assert "APLDQPLN" not in ad.phu


def test_a_frame_without_mask_is_skipped_and_a_wrong_value_refused():
    ad = make.electrons(make.frame())
    b = make.bench([ad])
    b.p.applyDQPlane()
    assert outcome(ad) == ("SKIPPED", "the frame has no data-quality plane")
    with pytest.raises(ParameterError, match="median, mean or a number"):
        b.p.applyDQPlane(replace_value="mode")


# ---- regions


def ramp():
    y, x = np.mgrid[: make.SHAPE[0], : make.SHAPE[1]]
    data = (3.0 * x + 5.0 * y).astype(np.float32)
    return data, make.electrons(make.frame(data), 9.0, 0)


def test_a_bad_column_is_bridged_and_flagged_as_without_data():
    truth, ad = ramp()
    ad[0].data[:, 20:22] = -1e4
    make.bench([ad]).p.fixPixels(regions="21:22,*")
    np.testing.assert_allclose(ad[0].data, truth, atol=1e-3)
    assert (ad[0].mask[:, 20:22] == 16).all()
    assert not ad[0].mask[:, :20].any()
    assert (ad[0].variance[:, 20:22] < 9.0).all()


def test_regions_come_from_text_and_file_together(tmp_path):
    truth, ad = ramp()
    ad[0].data[5, 6] = ad[0].data[30:33, 40] = 1e5
    path = tmp_path / "regions.txt"
    path.write_text("41,31:33  # a bad stretch\n")
    make.bench([ad]).p.fixPixels(regions="7,6", regions_file=path)
    np.testing.assert_allclose(ad[0].data, truth, atol=1e-3)


def test_along_which_axis_can_be_chosen():
    data, ad = ramp()
    ad[0].data[:, :] = data**2
    make.bench([ad]).p.fixPixels(regions="11:13,20:22", axis=2)
    assert ad[0].data[20, 11] == pytest.approx((data[18, 11] ** 2 + data[22, 11] ** 2) / 2, rel=1e-5)


@pytest.mark.parametrize("regions", ["70:80,1:5", "1-3,5", "2/1:3,1:3"])
def test_a_region_that_cannot_be_is_refused(regions):
    _, ad = ramp()
    with pytest.raises(ParameterError):
        make.bench([ad]).p.fixPixels(regions=regions)


def test_no_region_is_skipped_and_a_file_that_is_not_there_named():
    _, ad = ramp()
    b = make.bench([ad])
    b.p.fixPixels()
    assert outcome(ad) == ("SKIPPED", "no regions were given")
    with pytest.raises(InputError, match=r"cannot be read.*absent\.txt"):
        b.p.fixPixels(regions_file="absent.txt")


# ---- intensity


def levels(*values):
    return [
        make.electrons(make.frame(make.noise(i, 1.0, v), number=i + 1), 1.0, 0) for i, v in enumerate(values)
    ]


@pytest.mark.parametrize("scaling", ["mean", "median"])
def test_frames_are_brought_to_the_level_of_the_first(scaling):
    ads = levels(100.0, 200.0, 50.0)
    make.bench(ads).p.scaleByIntensity(scaling=scaling)
    statistic = getattr(np, scaling)
    assert [float(statistic(ad[0].data)) for ad in ads] == pytest.approx(
        [statistic(ads[0][0].data)] * 3, rel=1e-4
    )
    assert [float(ad[0].variance[0, 0]) for ad in ads] == pytest.approx([1.0, 0.25, 4.0], rel=0.01)
    assert ads[0].history[-1].status == "NOT_NEEDED"
    assert ads[1].phu["EXPTIME"] == 20.0


def test_flagged_pixels_and_objects_do_not_count():
    ads = levels(100.0, 100.0)
    ads[1][0].data[:8] = 1e5
    ads[1][0].mask[:8] = 1
    ads[1][0].data[20:30] = 5e4
    objects = np.zeros(make.SHAPE, np.uint8)
    objects[20:30] = 1
    ads[1][0].OBJMASK = objects
    make.bench(ads).p.scaleByIntensity()
    assert float(np.mean(ads[1][0].data[40:])) == pytest.approx(100, abs=0.2)


def test_a_section_is_measured_alone():
    ads = levels(100.0, 100.0)
    ads[1][0].data[:, :32] *= 2
    make.bench(ads).p.scaleByIntensity(section="1:32,1:64")
    assert float(np.mean(ads[1][0].data[:, :32])) == pytest.approx(100, abs=0.3)


def test_a_section_outside_and_a_level_that_is_not_positive_are_refused():
    with pytest.raises(ParameterError, match="reaches beyond"):
        make.bench(levels(100.0, 100.0)).p.scaleByIntensity(section="80:90,1:5")
    with pytest.raises(AlgorithmError, match=r"N20160102S0002"):
        make.bench(levels(100.0, -100.0)).p.scaleByIntensity()
