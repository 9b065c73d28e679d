"""Darks, flats and bad pixel masks: how they are applied, refused and made, against analytic truth."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ
from niripipe.errors import AlgorithmError, CalibrationError, DataError, InputError

from .. import frames as make


def calibration(level, kind="dark", variance=0.5, mask=0, number=80, **options):
    ad = make.electrons(make.frame(level, kind=kind, number=number, **options), variance, mask)
    name = {"dark": "DARK", "lamp_on": "FLAT"}[kind]
    ad.phu.set(f"PROC{name}", "2016-01-03T00:00:00")
    if kind == "lamp_on":
        ad.phu.set("NORMLIZE", "2016-01-03T00:00:00")
    ad.filename = f"N20160102S{number:04d}_{name.lower()}.fits"
    return ad


def science(level=100.0, variance=4.0, mask=0, **options):
    return make.electrons(make.frame(level, **options), variance, mask)


# ---- darks


def test_the_dark_is_subtracted_with_its_variance_and_flags():
    mask = np.zeros(make.SHAPE, np.uint16)
    mask[1, 2] = DQ.bad_pixel
    dark = calibration(30.0, mask=mask)
    frame = science(mask=DQ.cosmic_ray)
    b = make.bench([frame])
    b.p.darkCorrect(dark=dark)
    ext = frame[0]
    np.testing.assert_allclose(ext.data, 70.0)
    np.testing.assert_allclose(ext.variance, 4.5)
    assert (ext.mask[1, 2], ext.mask[2, 1]) == (DQ.bad_pixel | DQ.cosmic_ray, DQ.cosmic_ray)
    assert frame.phu["DARKIM"] == "N20160102S0080_dark.fits"
    assert "DARKCORR" in frame.phu
    assert b.p.context.calibrations.used == {(make.name(1), "processed_dark"): "N20160102S0080_dark.fits"}
    assert frame.provenance[-1].provenance_added_by == "processed_dark"


def test_the_dark_itself_is_not_changed():
    dark = calibration(30.0)
    make.bench([science(), science(number=2)]).p.darkCorrect(dark=dark)
    assert (dark[0].data == 30).all()
    assert (dark[0].variance == 0.5).all()


def test_a_full_frame_dark_is_cut_to_a_subarray():
    pixels = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    frame = science(0.0, shape=(32, 32))
    make.bench([frame]).p.darkCorrect(dark=calibration(pixels))
    np.testing.assert_array_equal(frame[0].data, -pixels[16:48, 16:48])


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"EXPTIME": 5.0}, "exposure time"),
        ({"EXPTIME": 20.02}, "exposure time"),
        ({"COADDS": 2, "EXPTIME": 10.0}, "coadds"),
    ],
)
def test_a_dark_of_another_exposure_or_coadds_is_refused_with_both_values(options, what):
    with pytest.raises(CalibrationError, match=f"does not fit in {what}.*S0001.*S0080_dark"):
        make.bench([science()]).p.darkCorrect(dark=calibration(1.0, **options))


def test_a_dark_in_another_unit_is_refused():
    dark = calibration(1.0)
    dark[0].hdr["BUNIT"] = "adu"
    with pytest.raises(CalibrationError, match="unit"):
        make.bench([science()]).p.darkCorrect(dark=dark)


def test_a_dark_that_does_not_cover_the_frame_is_refused():
    with pytest.raises(DataError, match="does not cover"):
        make.bench([science()]).p.darkCorrect(dark=calibration(1.0, shape=(32, 32)))


# ---- when calibrations are needed


@pytest.mark.parametrize("primitive", ["darkCorrect", "flatCorrect"])
@pytest.mark.parametrize(
    ("mode", "do_cal", "raises"),
    [
        ("sq", "procmode", True),
        ("ql", "procmode", False),
        ("qa", "procmode", False),
        ("sq", "force", True),
        ("qa", "force", True),
        ("sq", "skip", False),
        ("qa", "skip", False),
    ],
)
def test_a_missing_calibration_stops_or_is_recorded_as_mode_and_do_cal_say(primitive, mode, do_cal, raises):
    b = make.bench([science()], mode=mode)
    if raises:
        with pytest.raises(CalibrationError):
            getattr(b.p, primitive)(do_cal=do_cal)
        return
    getattr(b.p, primitive)(do_cal=do_cal)
    assert (b.main[0][0].data == 100).all()
    record = b.main[0].history[-1]
    assert record.status == "SKIPPED"
    assert record.reason == (
        "do_cal is skip" if do_cal == "skip" else f"no processed_{primitive[:4]} was found"
    )
    assert not {"DARKCORR", "FLATCORR", "DARKIM", "FLATIM"} & set(b.main[0].phu)


@pytest.mark.parametrize("mode", ["sq", "qa"])
def test_skip_leaves_out_a_calibration_that_there_is(mode):
    b = make.bench([science()], mode=mode, user={"processed_dark": calibration(30.0)})
    b.p.darkCorrect(do_cal="skip")
    assert (b.main[0][0].data == 100).all()


@pytest.mark.parametrize("mode", ["sq", "qa"])
def test_a_calibration_that_there_is_is_applied_in_every_mode(mode):
    b = make.bench([science()], mode=mode, user={"processed_dark": calibration(30.0)})
    b.p.darkCorrect()
    assert (b.main[0][0].data == 70).all()


def test_the_primitives_own_parameter_wins_over_the_users_calibrations():
    b = make.bench([science()], user={"processed_dark": calibration(30.0)})
    b.p.darkCorrect(dark=calibration(10.0, number=81))
    assert (b.main[0][0].data == 90).all()


# ---- flats


def test_the_flat_divides_with_its_variance_and_flags():
    frame = science(mask=DQ.cosmic_ray)
    make.bench([frame]).p.flatCorrect(flat=calibration(0.5, "lamp_on", variance=0.01, mask=DQ.unilluminated))
    ext = frame[0]
    np.testing.assert_allclose(ext.data, 200.0)
    np.testing.assert_allclose(ext.variance, (4.0 + 0.01 * 200**2) / 0.5**2, rtol=1e-6)
    assert (ext.mask == DQ.cosmic_ray | DQ.unilluminated).all()
    assert frame.phu["FLATIM"] == "N20160102S0080_flat.fits"
    assert "FLATCORR" in frame.phu


@pytest.mark.parametrize(
    ("options", "what"), [({"FILTER2": "J_G0202"}, "filter name"), ({"CAMERA": "f32"}, "camera")]
)
def test_a_flat_of_another_filter_or_camera_is_refused(options, what):
    with pytest.raises(CalibrationError, match=f"does not fit in {what}"):
        make.bench([science()]).p.flatCorrect(flat=calibration(1.0, "lamp_on", **options))


def test_the_same_filter_in_another_spelling_of_the_wheels_fits():
    frame = science()
    flat = calibration(2.0, "lamp_on", FILTER1="H_G0203", FILTER2="open", FILTER3="pupil38_G5207")
    make.bench([frame]).p.flatCorrect(flat=flat)
    assert (frame[0].data == 50).all()


def test_a_flat_that_is_not_normalised_is_refused():
    flat = calibration(4000.0, "lamp_on")
    flat.phu.remove("NORMLIZE")
    with pytest.raises(CalibrationError, match="median level"):
        make.bench([science()]).p.flatCorrect(flat=flat)


# ---- making flats


def lamps(on=(10.0, 11.0, 12.0), off=(1.0, 2.0, 3.0)):
    frames = [make.frame(v, kind="lamp_off", number=10 + i) for i, v in enumerate(off)]
    frames += [make.frame(v, kind="lamp_on", number=20 + i) for i, v in enumerate(on)]
    return [make.electrons(ad, variance=3.0) for ad in frames]


def test_a_lamp_flat_is_lamp_on_minus_lamp_off_whatever_the_order():
    b = make.bench(lamps())
    b.p.makeLampFlat()
    (flat,) = b.main
    np.testing.assert_allclose(flat[0].data, 9.0)
    np.testing.assert_allclose(flat[0].variance, 1.0 + 1.0)
    assert flat.filename == "N20160102S0020_lampstack.fits"
    assert flat.phu["NCOMBINE"] == 3


def test_without_lamp_off_frames_the_lamp_on_stack_is_the_flat():
    b = make.bench(lamps(off=()))
    b.p.makeLampFlat()
    np.testing.assert_allclose(b.main[0][0].data, 11.0)


def test_a_lamp_flat_needs_lamp_on_frames_and_nothing_else():
    with pytest.raises(InputError, match="0 lamp-on, 3 lamp-off"):
        make.bench(lamps(on=())).p.makeLampFlat()
    with pytest.raises(InputError, match=r"neither: N20160102S0001"):
        make.bench([*lamps(), make.frame(kind="dark")]).p.makeLampFlat()


@pytest.mark.parametrize(("scale", "level"), [("median", 4.0), ("mean", 5.0)])
def test_a_flat_is_normalised_by_its_good_pixels(scale, level):
    pixels = np.full(make.SHAPE, 4.0)
    pixels[::2] = [4.0, 8.0] * 32
    mask = np.zeros(make.SHAPE, np.uint16)
    pixels[1, 1], mask[1, 1] = 1e6, DQ.bad_pixel
    flat = make.electrons(make.frame(pixels, kind="lamp_on"), variance=2.0, mask=mask)
    make.bench([flat]).p.normalizeFlat(scale=scale)
    assert flat[0].data[2, 2] == pytest.approx(4 / level, rel=1e-3)
    assert flat[0].variance[2, 2] == pytest.approx(2 / level**2, rel=1e-3)
    assert "NORMLIZE" in flat.phu


@pytest.mark.parametrize(("level", "mask"), [(0.0, 0), (-5.0, 0), (4.0, 1)])
def test_a_flat_without_light_or_good_pixels_is_refused(level, mask):
    flat = make.electrons(make.frame(level, kind="lamp_on"), mask=mask)
    with pytest.raises(AlgorithmError):
        make.bench([flat]).p.normalizeFlat()


def test_pixels_outside_the_limits_become_one_and_are_flagged_unilluminated():
    pixels = np.full(make.SHAPE, 0.9)
    pixels[0, :5] = [0.005, 0.01, 10.0, 11.0, -1.0]
    mask = np.zeros(make.SHAPE, np.uint16)
    mask[0, 0] = DQ.bad_pixel
    flat = make.electrons(make.frame(pixels, kind="lamp_on"), variance=0.25, mask=mask)
    make.bench([flat]).p.thresholdFlatfield()
    np.testing.assert_allclose(flat[0].data[0, :5], [1, 0.01, 10, 1, 1], rtol=1e-6)
    assert flat[0].mask[0, :6].tolist() == [1, 0, 0, 64, 64, 0]
    assert (flat[0].variance == 0.25).all()


# ---- bad pixel masks


def bpm_bench(flat=None, dark=None, adu=False, **options):
    flat_pixels, dark_pixels = np.ones(make.SHAPE), np.full(make.SHAPE, 10.0)
    for at, value in (flat or {}).items():
        flat_pixels[at] = value
    for at, value in (dark or {}).items():
        dark_pixels[at] = value
    lamp = make.electrons(make.frame(flat_pixels, kind="lamp_on", **options), mask=0)
    short = make.electrons(make.frame(dark_pixels, kind="dark", number=9, EXPTIME=1.0), mask=0)
    if adu:
        short[0].hdr["BUNIT"], short[0].hdr["GAIN"] = "adu", make.GAIN
    b = make.bench([lamp])
    b.p.streams["darks"] = [short]
    return b


def test_pixels_outside_the_limits_of_flat_and_dark_are_bad():
    b = bpm_bench(
        flat={(1, 1): 0.79, (1, 2): 0.81, (1, 3): 1.24, (1, 4): 1.26, (1, 5): np.nan},
        dark={(2, 1): -21, (2, 2): -19, (2, 3): 1299, (2, 4): 1301, (2, 5): np.nan},
    )
    b.p.makeBPM()
    (bpm,) = b.main
    bad = {tuple(p) for p in np.argwhere(bpm[0].data).tolist()}
    assert bad == {(1, 1), (1, 4), (1, 5), (2, 1), (2, 4), (2, 5)}
    assert set(np.unique(bpm[0].data)) == {0, 1}
    assert bpm[0].mask is None
    assert bpm[0].variance is None
    assert bpm.phu["OBJECT"] == "BPM"
    assert "BUNIT" not in bpm[0].hdr
    assert bpm.filename == "N20160102S0001_bpm.fits"


def test_limits_can_be_set_or_left_out():
    b = bpm_bench(flat={(1, 1): 0.5}, dark={(2, 2): 5000})
    b.p.makeBPM(dark_hi_thresh=None, flat_lo_thresh=0.4)
    assert not b.main[0][0].data.any()


def test_a_dark_in_adu_is_judged_in_electrons():
    b = bpm_bench(dark={(2, 2): 110}, adu=True)
    b.p.makeBPM()
    assert np.argwhere(b.main[0][0].data).tolist() == [[2, 2]]


def test_a_mask_needs_one_flat_and_one_dark():
    b = bpm_bench()
    b.p.streams["darks"] = []
    with pytest.raises(InputError, match="1 flats and 0 darks"):
        b.p.makeBPM()


def test_unilluminated_pixels_can_be_marked_as_such():
    b = bpm_bench(flat={(1, 1): 0.1, (2, 2): 0.1})
    mask = np.zeros(make.SHAPE, np.uint16)
    mask[1, 1] = DQ.unilluminated
    b.main[0][0].mask = mask
    b.p.makeBPM(keep_unilluminated=True)
    assert (b.main[0][0].data[1, 1], b.main[0][0].data[2, 2]) == (DQ.unilluminated, DQ.bad_pixel)
