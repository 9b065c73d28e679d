"""Raw frames to frames in electrons: headers, WCS, flags, units, noise, linearity against analytic truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata, cal_service
from niripipe.astrodata import DQ, file_md5
from niripipe.errors import DataError, NiripipeError

from .. import frames as make

SATURATED = 200000 / make.GAIN
NON_LINEAR = 0.7 * SATURATED


# ---- prepare


def test_prepare_writes_what_the_headers_mean():
    b = make.prepared([make.frame(COADDS=4, EXPTIME=5.0)])
    (ad,) = b.main
    phu, hdr = ad.phu, ad[0].hdr
    assert phu["PROCSOFT"] == "niripipe"
    assert (phu["PROCSVER"], phu["PROCMODE"]) == ("test", "sq")
    assert phu["ORIGNAME"] == make.name(1)
    assert (phu["FILTER"], phu["EXPTIME"], phu["COADDEXP"]) == ("H", 20.0, 5.0)
    assert (ad.exposure_time(), ad.coadds()) == (20.0, 4)
    assert hdr["BUNIT"] == "adu"
    assert hdr["GAIN"] == make.GAIN
    assert hdr["RDNOISE"] == pytest.approx(35 * 2)
    assert hdr["SATLEVEL"] == int(4 * SATURATED)
    assert hdr["NONLINEA"] == int(0.7 * int(4 * SATURATED))
    assert hdr["PIXSCALE"] == pytest.approx(make.SCALE, rel=1e-4)
    assert {"PREPARED"} <= ad.tags
    assert "PREPARE" in phu
    assert ad.filename == "N20160102S0001_prepared.fits"


def test_prepare_does_not_touch_pixels_and_is_done_once():
    pixels = make.noise(1, 10, 100)
    b = make.prepared([make.frame(pixels, COADDS=2, EXPTIME=10.0)])
    b.p.prepare()
    assert b.main[0].exposure_time() == 20.0
    np.testing.assert_array_equal(b.main[0][0].data, pixels)
    assert b.report.steps[-1].summary() == "1 SKIPPED (already done)"


def test_prepare_records_the_raw_file_and_its_checksum(tmp_path):
    path = make.write(tmp_path / make.name(1))
    b = make.prepared([astrodata.open(path)])
    (record,) = b.main[0].provenance
    assert Path(record.filename).name == path.name
    assert (record.md5, record.provenance_added_by) == (file_md5(path), "prepare")


def test_a_frame_without_an_exposure_time_is_refused():
    with pytest.raises(DataError, match="EXPTIME"):
        make.prepared([make.frame(EXPTIME=None)])


def test_an_old_spelling_of_the_reference_system_is_renamed():
    b = make.prepared([make.frame(ext={"RADECSYS": "FK5"})])
    assert b.main[0][0].hdr["RADESYS"] == "FK5"
    assert "RADECSYS" not in b.main[0][0].hdr


@pytest.mark.parametrize("extensions", [0, 2])
def test_validate_refuses_a_frame_that_does_not_have_one_image(extensions):
    made = make.hdus()
    made = made[:1] if extensions == 0 else fits.HDUList([made[0], made[1], made[1].copy()])
    ad = astrodata.open(fits.HDUList(made))
    ad.path = make.name(1)
    with pytest.raises(DataError, match="one image extension"):
        make.bench([ad]).p.validateData(require_wcs=False)


def test_validate_refuses_a_frame_without_wcs_unless_told_otherwise():
    broken = {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}
    with pytest.raises(DataError, match="WCS"):
        make.bench([make.frame(ext=broken)]).p.validateData()
    make.bench([make.frame(ext=broken)]).p.validateData(require_wcs=False)


# ---- WCS


def _away(arcsec: float):
    return make.frame(ext={"CRVAL2": make.DEC + arcsec / 3600})


def _centre(ad):
    x, y = ad[0].wcs.all_pix2world((make.SHAPE[1] - 1) / 2, (make.SHAPE[0] - 1) / 2, 0)
    return float(x), float(y)


def test_a_wcs_that_agrees_with_the_pointing_is_kept():
    b = make.bench([_away(25)])
    before = _centre(b.main[0])
    b.p.standardizeWCS()
    assert _centre(b.main[0]) == before
    assert b.report.steps[-1].outcomes[make.name(1)].status == "NOT_NEEDED"


def test_a_wcs_far_from_the_pointing_is_rebuilt_from_it():
    b = make.bench([_away(120)])
    b.p.standardizeWCS(bad_wcs="fix")
    ra, dec = _centre(b.main[0])
    assert abs(dec - make.DEC) * 3600 < 2
    assert abs(ra - make.RA) * 3600 < 2
    assert b.main[0][0].pixel_scale() == pytest.approx(make.SCALE, rel=0.01)


def test_a_missing_wcs_is_rebuilt_from_the_pointing():
    broken = dict.fromkeys(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), 0.0)
    b = make.bench([make.frame(ext=broken)])
    b.p.standardizeWCS()
    ra, dec = _centre(b.main[0])
    assert np.hypot((ra - make.RA) * np.cos(np.deg2rad(make.DEC)), dec - make.DEC) * 3600 < 2


def test_a_rebuilt_wcs_follows_the_offsets():
    cards = {"POFFSET": 10.0, "QOFFSET": -20.0}
    truth = _centre(make.frame(**cards))
    b = make.bench([make.frame(ext={"CRVAL1": 31.0}, **cards)])
    b.p.standardizeWCS()
    assert np.abs(np.subtract(_centre(b.main[0]), truth)).max() * 3600 < 1


def test_exit_refuses_a_bad_wcs_and_ignore_keeps_it():
    with pytest.raises(DataError, match="contradicts"):
        make.bench([_away(120)]).p.standardizeWCS(bad_wcs="exit")
    b = make.bench([_away(120)])
    b.p.standardizeWCS(bad_wcs="ignore")
    assert _centre(b.main[0])[1] == pytest.approx(make.DEC + 120 / 3600)
    assert b.report.steps[-1].outcomes[make.name(1)].status == "SKIPPED"


def test_new_rebuilds_a_wcs_that_was_good():
    b = make.bench([_away(25)])
    b.p.standardizeWCS(bad_wcs="new")
    assert abs(_centre(b.main[0])[1] - make.DEC) * 3600 < 2


def test_the_limit_of_consistency_can_be_set():
    b = make.bench([_away(25)])
    b.p.standardizeWCS(debug_consistency_limit=10)
    assert abs(_centre(b.main[0])[1] - make.DEC) * 3600 < 2


def test_calibrations_need_no_wcs():
    b = make.prepared([make.frame(kind="dark", ext={"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"})])
    assert "PREPARED" in b.main[0].tags


# ---- data quality


def test_pixels_are_flagged_by_level():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[0, :4] = [int(NON_LINEAR) - 2, int(NON_LINEAR) + 2, int(SATURATED) - 2, int(SATURATED) + 2]
    b = make.prepared([make.frame(pixels)])
    b.p.addDQ(static_bpm=None)
    mask = b.main[0][0].mask
    assert mask.dtype == np.uint16
    assert mask[0, :5].tolist() == [0, DQ.non_linear, DQ.non_linear, DQ.saturated, 0]
    assert np.count_nonzero(mask) == 3


def test_pixels_that_are_not_numbers_are_flagged_as_without_data():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[3, 4], pixels[5, 6], pixels[7, 8] = np.nan, np.inf, -np.inf
    b = make.prepared([make.frame(pixels)])
    b.p.addDQ(static_bpm=None)
    mask = b.main[0][0].mask
    assert [int(mask[p]) & DQ.no_data for p in ((3, 4), (5, 6), (7, 8))] == [DQ.no_data] * 3
    assert np.count_nonzero(mask) == 3


def test_a_hole_in_a_saturated_core_is_flagged_as_saturated():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[10:15, 10:15] = 30000
    pixels[12, 12] = 50
    b = make.prepared([make.frame(pixels)])
    b.p.addDQ(static_bpm=None)
    assert (b.main[0][0].mask[10:15, 10:15] == DQ.saturated).all()


def _bpm(bad=((2, 3),), shape=make.SHAPE, number=90, value=1):
    pixels = np.zeros(shape)
    for y, x in bad:
        pixels[y, x] = value
    return make.frame(pixels, kind="lamp_on", shape=shape, number=number, filename=f"N{number}_bpm.fits")


@pytest.mark.parametrize("source", ["memory", "path", "text"])
def test_a_users_bad_pixel_mask_is_joined(tmp_path, source):
    ad = _bpm()
    ad.write(tmp_path / "my_bpm.fits")
    bpm = {"memory": ad, "path": tmp_path / "my_bpm.fits", "text": str(tmp_path / "my_bpm.fits")}[source]
    b = make.prepared([make.frame(20000.0)])
    b.p.addDQ(user_bpm=bpm, static_bpm=None)
    mask = b.main[0][0].mask
    assert mask[2, 3] == DQ.bad_pixel | DQ.saturated
    assert mask[3, 2] == DQ.saturated
    assert "_bpm.fits" in b.main[0].phu["BPMIM"]


def test_the_values_of_a_mask_are_bits_and_two_masks_are_joined():
    b = make.prepared([make.frame()])
    b.p.addDQ(static_bpm=_bpm(((1, 1),), value=64), user_bpm=_bpm(((1, 1), (2, 2)), number=91))
    mask = b.main[0][0].mask
    assert (mask[1, 1], mask[2, 2]) == (65, 1)
    assert b.main[0].phu["BPMIM"].split(",") == ["N90_bpm.fits", "N91_bpm.fits"]


def test_the_mask_of_the_service_is_used_by_default_and_can_be_refused():
    bpm = _bpm()
    b = make.prepared([make.frame()], user={"processed_bpm": bpm})
    b.p.addDQ()
    assert b.main[0][0].mask[2, 3] == 1
    b = make.prepared([make.frame()], user={"processed_bpm": bpm})
    b.p.addDQ(static_bpm="default")
    assert b.main[0][0].mask[2, 3] == 1
    b = make.prepared([make.frame()], user={"processed_bpm": bpm})
    b.p.addDQ(static_bpm=None)
    assert not b.main[0][0].mask.any()
    assert b.main[0].phu["BPMIM"] == "none"


def test_a_full_frame_mask_is_cut_to_the_subarray():
    bpm = _bpm(((20, 21), (0, 0)))
    b = make.prepared([make.frame(shape=(32, 32))])
    b.p.addDQ(user_bpm=bpm, static_bpm=None)
    # A 32 x 32 window lies 16 pixels inside a 64 x 64 one.
    assert np.argwhere(b.main[0][0].mask).tolist() == [[4, 5]]
    assert bpm[0].shape == make.SHAPE


def test_a_mask_that_does_not_cover_the_frame_is_refused_with_both_sections():
    b = make.prepared([make.frame()])
    with pytest.raises(DataError, match=r"497:528.*481:544"):
        b.p.addDQ(user_bpm=_bpm(shape=(32, 32)), static_bpm=None)


@pytest.mark.parametrize("content", [None, b"", b"no fits at all" * 400])
def test_a_mask_that_cannot_be_opened_is_an_error_and_not_a_frame_to_drop(tmp_path, content):
    path = tmp_path / "gone_bpm.fits"
    if content is not None:
        path.write_bytes(content)
    b = make.prepared([make.frame(), make.frame(number=2)], droppable=True)
    with pytest.raises(NiripipeError, match=r"gone_bpm\.fits"):
        b.p.addDQ(user_bpm=path)


def test_a_frame_that_has_flags_keeps_them():
    ad = make.frame(20000.0)
    ad[0].mask = np.full(make.SHAPE, 8, np.uint16)
    b = make.prepared([ad])
    b.p.addDQ(static_bpm=None)
    assert (b.main[0][0].mask == 8).all()
    assert b.report.steps[-1].outcomes[make.name(1)].status == "SKIPPED"


# ---- persistence


def _latent(times, exposure=10.0, saturated=0, **given):
    """Frames at these times (s after 08:00); the first is saturated at (5, 6)."""
    frames = []
    for i, seconds in enumerate(times):
        pixels = np.full(make.SHAPE, 100.0)
        if i == saturated:
            pixels[5, 6] = 30000
            pixels[7, 8] = 13000
        ut = f"{8 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.0"
        frames.append(make.frame(pixels, number=i + 1, UT=ut, EXPTIME=exposure))
    b = make.prepared(frames)
    b.p.addDQ(static_bpm=None, latency=True, **given)
    return [int(ad[0].mask[5, 6]) for ad in b.main], [int(ad[0].mask[7, 8]) for ad in b.main]


@pytest.mark.parametrize(("gap", "flagged"), [(10, True), (129, True), (130, False), (200, False)])
def test_persistence_of_the_exposure_before_counts_from_its_end_up_to_120_seconds(gap, flagged):
    assert _latent([0, gap])[0] == [DQ.saturated, DQ.cosmic_ray if flagged else 0]


@pytest.mark.parametrize(("gap", "flagged"), [(119, True), (120, False)])
def test_persistence_of_earlier_exposures_counts_from_their_start(gap, flagged):
    assert _latent([0, 20, gap])[0][2] == (DQ.cosmic_ray if flagged else 0)


def test_long_exposures_leave_persistence_too():
    assert _latent([0, 305], exposure=300.0)[0] == [DQ.saturated, DQ.cosmic_ray]


def test_nothing_glows_before_it_was_bright():
    assert _latent([0, 20], saturated=1)[0] == [0, DQ.saturated]


def test_the_order_of_the_list_does_not_matter_for_persistence():
    assert _latent([60, 0], saturated=1)[0] == [DQ.cosmic_ray, DQ.saturated]


def test_non_linear_pixels_leave_persistence_on_request_only():
    assert _latent([0, 20])[1] == [DQ.non_linear, 0]
    assert _latent([0, 20], non_linear=True)[1] == [DQ.non_linear, DQ.cosmic_ray]


def test_how_long_persistence_lasts_can_be_set():
    assert _latent([0, 100], time=60)[0][1] == 0


def test_a_decaying_afterglow_counts_until_it_is_lost_in_the_read_noise():
    # 1 % of 16260 ADU falls below 35 / 12.3 ADU after 20 ln(162.6 / 2.85) = 81 s.
    assert _latent([0, 90], decay=20)[0][1] == DQ.cosmic_ray
    assert _latent([0, 92], decay=20)[0][1] == 0
    assert _latent([0, 92], decay=20, residual=0.02)[0][1] == DQ.cosmic_ray
    assert _latent([0, 92], decay=20, residual=0.02, time=60)[0][1] == 0


def test_detector_defects_leave_no_persistence():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[2, 3] = 30000
    frames = [make.frame(pixels, number=i + 1, UT=f"08:0{i}:00.0") for i in range(2)]
    b = make.prepared(frames)
    b.p.addDQ(static_bpm=None, user_bpm=_bpm(), latency=True)
    assert not int(b.main[1][0].mask[2, 3]) & DQ.cosmic_ray


@pytest.mark.parametrize("value", [1, 4, 5])
def test_persistence_is_the_same_whether_flags_were_just_found_or_are_searched(value):
    masks = []
    for together in (True, False):
        pixels = np.full(make.SHAPE, 100.0)
        pixels[2, 3] = pixels[5, 6] = 30000
        frames = [make.frame(pixels, number=i + 1, UT=f"08:0{i}:00.0") for i in range(2)]
        b = make.prepared(frames)
        b.p.addDQ(static_bpm=None, user_bpm=_bpm([(2, 3), (8, 9)], value=value), latency=together)
        if not together:
            b.p.addLatencyToDQ()
        masks.append([np.array(ad[0].mask) for ad in b.main])
    np.testing.assert_array_equal(*masks)
    assert int(masks[0][1][5, 6]) & DQ.cosmic_ray


def test_persistence_finds_its_pixel_in_a_subarray():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[20, 21] = pixels[1, 1] = 30000
    frames = [make.frame(pixels), make.frame(shape=(32, 32), number=2, UT="08:00:30.0")]
    b = make.prepared(frames)
    b.p.addDQ(static_bpm=None, latency=True)
    assert np.argwhere(b.main[1][0].mask).tolist() == [[4, 5]]


def test_persistence_can_be_added_by_itself():
    frames = [make.frame(30000.0), make.frame(number=2, UT="08:00:30.0")]
    b = make.prepared(frames)
    b.p.addDQ(static_bpm=None)
    b.p.addLatencyToDQ()
    assert (b.main[1][0].mask == DQ.cosmic_ray).all()


# ---- illumination


def test_an_illumination_mask_is_flagged_where_given():
    b = make.prepared([make.frame()])
    b.p.addDQ(static_bpm=None, add_illum_mask=True, illum_mask=_bpm(((4, 4),)))
    assert np.argwhere(b.main[0][0].mask == DQ.unilluminated).tolist() == [[4, 4]]
    b = make.prepared([make.frame()])
    b.p.addIllumMaskToDQ()
    assert b.report.steps[-1].outcomes[make.name(1)].status == "NOT_NEEDED"


# ---- electrons, variance


def test_adu_become_electrons_once():
    ad = make.frame(100.0)
    ad[0].variance = np.full(make.SHAPE, 2.0, np.float32)
    b = make.prepared([ad])
    levels = b.main[0][0].hdr["SATLEVEL"], b.main[0][0].hdr["NONLINEA"]
    b.p.ADUToElectrons()
    ext = b.main[0][0]
    np.testing.assert_allclose(ext.data, 1230.0, rtol=1e-6)
    np.testing.assert_allclose(ext.variance, 2 * make.GAIN**2, rtol=1e-6)
    assert (ext.hdr["BUNIT"], ext.hdr["GAIN"]) == ("electron", 1.0)
    assert ext.hdr["SATLEVEL"] == pytest.approx(levels[0] * make.GAIN)
    assert ext.hdr["NONLINEA"] == pytest.approx(levels[1] * make.GAIN)
    b.p.ADUToElectrons()
    np.testing.assert_allclose(b.main[0][0].data, 1230.0, rtol=1e-6)


def test_the_variance_is_that_of_read_noise_and_photons():
    pixels = np.full(make.SHAPE, 100.0)
    pixels[0, 0] = -50
    b = make.prepared([make.frame(pixels)])
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True, poisson_noise=True)
    variance = b.main[0][0].variance
    assert variance[0, 0] == pytest.approx(35**2)
    assert variance[1, 1] == pytest.approx(35**2 + 1230, rel=1e-6)
    assert b.main[0][0].hdr["VARNOISE"] == "read, Poisson"


def test_the_variance_of_coadds_and_of_data_in_adu_is_right():
    b = make.prepared([make.frame(100.0, COADDS=4, EXPTIME=5.0)])
    b.p.addVAR(read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 4 * 35**2 / make.GAIN**2 + 100 / make.GAIN, rtol=1e-5)


def test_a_component_of_the_noise_is_added_once():
    b = make.prepared([make.frame(100.0)])
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 35**2)
    b.main[0].phu.remove("ADDVAR")
    b.p.addVAR(read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 35**2 + 1230, rtol=1e-6)


def test_read_noise_now_and_photons_later_give_the_same_variance():
    b = make.prepared([make.frame(100.0)])
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True)
    b.p.addVAR(poisson_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 35**2 + 1230, rtol=1e-6)


def test_a_variance_that_nobody_asked_for_is_not_claimed():
    b = make.prepared([make.frame()])
    b.p.addVAR()
    assert b.main[0][0].variance is None
    assert "ADDVAR" not in b.main[0].phu
    assert b.report.steps[-1].outcomes[make.name(1)].status == "SKIPPED"


# ---- linearity


def _corrected(
    counts, gamma=5.540988347e-07, eta=1.404726339e-12, dead_time=0.01029262589, exposure=20.0, coadds=1
):
    per_coadd = counts / coadds
    value = per_coadd * (1 + per_coadd * (gamma + eta * per_coadd)) * coadds
    return value * (exposure / coadds) / (exposure / coadds + dead_time)


@pytest.mark.parametrize("first", ["electrons", "linearity"])
@pytest.mark.parametrize("coadds", [1, 4])
def test_the_non_linearity_is_corrected_by_the_observatorys_polynomial_in_both_orders(first, coadds):
    pixels = np.full((256, 256), 4000.0 * coadds)
    b = make.prepared([make.frame(pixels, shape=(256, 256), COADDS=coadds, EXPTIME=20.0 / coadds)])
    if first == "electrons":
        b.p.ADUToElectrons()
        b.p.nonlinearityCorrect()
    else:
        b.p.nonlinearityCorrect()
        b.p.ADUToElectrons()
    expected = _corrected(4000 * coadds * make.GAIN, coadds=coadds)
    np.testing.assert_allclose(b.main[0][0].data, expected, rtol=2e-6)
    assert expected / (4000 * coadds * make.GAIN) == pytest.approx(1.03, abs=3e-3)
    assert "LINCORR" in b.main[0].phu


def test_the_levels_follow_the_linearity_correction():
    b = make.prepared([make.frame(shape=(256, 256))])
    before = b.main[0][0].hdr["NONLINEA"]
    b.p.nonlinearityCorrect()
    assert b.main[0][0].hdr["NONLINEA"] > 1.05 * before


def test_without_coefficients_nothing_is_corrected_stamped_or_hidden():
    b = make.prepared([make.frame(4000.0)])
    b.p.nonlinearityCorrect()
    assert (b.main[0][0].data == 4000).all()
    assert "LINCORR" not in b.main[0].phu
    outcome = b.report.steps[-1].outcomes[make.name(1)]
    assert outcome.status == "SKIPPED"
    assert outcome.reason == "no coefficients for Medium Background, 64 rows, Shallow well"
    assert b.main[0].history[-1].reason == outcome.reason


# -- several bad pixel masks


def _mask_of_detector(pixels, filename, **cards):
    """A mask of the whole detector with these (row, column) bad."""
    bad = np.zeros((1024, 1024))
    bad[tuple(np.transpose(pixels))] = 1
    return make.frame(bad, kind="lamp_on", shape=bad.shape, filename=filename, OBJECT="BPM", **cards)


def test_the_archives_static_mask_and_the_nights_own_are_united(tmp_path):
    """The nearest in time would be the night's alone."""
    caldb = cal_service.CalibrationService()
    caldb.config(db_dir=tmp_path)
    caldb.init()
    dates = {"DATE_OBS": "2001-03-17"}
    static = _mask_of_detector([(480, 480)], "bpm_20010317_niri_niri_11_full_1amp.fits", BPMASK=True, **dates)
    own = _mask_of_detector(
        [(490, 500)], "N20160102S0373_bpm.fits", BPMASK="2016-01-03", DATE_OBS="2016-01-02"
    )
    older = _mask_of_detector([(481, 481)], "N20150102S0373_bpm.fits", BPMASK="x", DATE_OBS="2015-01-02")
    for mask in (static, own, older):
        mask.write(tmp_path / str(mask.filename))
        caldb.add_cal(tmp_path / str(mask.filename))
    holes = np.zeros((1024, 1024), bool)
    holes[511, 511] = True
    cal_service.register_bpm(holes, tmp_path / "holes.fits", like=own, service=caldb)
    further = _mask_of_detector([(500, 501)], "dust_bpm.fits", BPMASK="x")
    b = make.prepared([make.frame(), make.frame(number=2)], service=caldb)
    b.p.addDQ(user_bpm=[further])
    for ad in b.main:
        # The frame of 64 x 64 pixels begins at row and column 480.
        assert np.argwhere(ad[0].mask).tolist() == [[0, 0], [10, 20], [20, 21], [31, 31]]
        assert set(ad.phu["BPMIM"].split(",")) == {
            "N20160102S0373_bpm.fits",
            "bpm_20010317_niri_niri_11_full_1amp.fits",
            "holes.fits",
            "dust_bpm.fits",
        }


@pytest.mark.parametrize(("x", "y"), [(480, 480), (700, 40), (0, 960), (3, 0)])
def test_a_mask_of_the_detector_is_cut_to_the_window_of_a_frame(x, y):
    limits = {"LOWCOL": x, "HICOL": x + 63, "LOWROW": y, "HIROW": y + 63}
    bpm = _mask_of_detector([(y + 5, x + 9)], "full_bpm.fits", BPMASK="x")
    b = make.prepared([make.frame(ext=limits)])
    b.p.addDQ(static_bpm=None, user_bpm=bpm)
    assert np.argwhere(b.main[0][0].mask).tolist() == [[5, 9]]


def test_a_mask_of_another_window_of_the_same_size_is_refused():
    limits = {"LOWCOL": 700, "HICOL": 763, "LOWROW": 40, "HIROW": 103}
    b = make.prepared([make.frame(ext=limits)])
    with pytest.raises(DataError, match="does not cover"):
        b.p.addDQ(static_bpm=None, user_bpm=_bpm())


def test_a_users_mask_is_added_to_the_plane_that_a_frame_has():
    b = make.prepared([make.frame()])
    b.p.addDQ(static_bpm=None)
    before = b.main[0][0].mask.copy()
    b.p.addDQ(static_bpm=None, user_bpm=_bpm([(2, 3)], value=1))
    assert b.main[0][0].mask[2, 3] == before[2, 3] | 1
    before[2, 3] |= 1
    assert np.array_equal(b.main[0][0].mask, before)
    assert "added to the data-quality plane" in b.report.steps[-1].outcomes[make.name(1)].reason


def test_a_mask_without_a_header_covers_the_detector_by_its_size(tmp_path):
    limits = {"LOWCOL": 384, "HICOL": 447, "LOWROW": 256, "HIROW": 319}
    b = make.prepared([make.frame(ext=limits)])
    values = np.zeros((1024, 1024), np.float32)
    values[256 + 2, 384 + 3] = np.nan
    path = tmp_path / "mask.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values)]).writeto(path)
    b.p.addDQ(static_bpm=None, user_bpm=path)
    assert np.argwhere(b.main[0][0].mask & 1).tolist() == [[2, 3]]


@pytest.mark.parametrize("unit", ["ADU", "adu", "counts", "DN", "ct"])
def test_units_of_other_software_are_adu(unit):
    b = make.bench([make.frame(100.0, ext={"BUNIT": unit})])
    b.p.prepare()
    gain = b.main[0][0].gain()
    b.p.ADUToElectrons()
    assert gain > 5
    assert b.main[0][0].data[0, 0] == pytest.approx(100 * gain)


@pytest.mark.parametrize("unit", ["ADU/s", "Jy", "electron/s"])
def test_unknown_units_are_refused(unit):
    b = make.bench([make.frame(ext={"BUNIT": unit})])
    with pytest.raises(DataError, match=f"unit.*{unit}"):
        b.p.prepare()


# ---- variance planes of other software


def foreign(tmp_path, variance, **cards):
    """A frame as IRAF's nprepare leaves it."""
    raw = make.hdus(1000.0, NPREPARE="2016-06-07T10:00:00", **cards)
    raw[1].name = "SCI"
    raw.append(fits.ImageHDU(np.full(make.SHAPE, variance, np.float32), name="VAR"))
    raw.append(fits.ImageHDU(np.zeros(make.SHAPE, np.int16), name="DQ"))
    path = tmp_path / "nN20160102S0001.fits"
    raw.writeto(path)
    return astrodata.open(path)


def test_a_variance_of_other_software_is_kept_and_said_to_be(tmp_path, caplog):
    b = make.prepared([foreign(tmp_path, 90.0)])
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 90 * make.GAIN**2, rtol=1e-6)
    assert b.main[0].history[-1].status == "SKIPPED"
    assert "variance plane of other software" in b.main[0].history[-1].reason
    assert "variance plane of other software is kept" in caplog.text


@pytest.mark.parametrize("useless", [0.0, np.nan, -1.0])
def test_a_variance_without_a_positive_value_is_replaced(tmp_path, caplog, useless):
    b = make.prepared([foreign(tmp_path, useless)])
    b.p.addVAR(read_noise=True, poisson_noise=True)
    expected = 1000 / make.GAIN + (make.READ_NOISE / make.GAIN) ** 2
    np.testing.assert_allclose(b.main[0][0].variance, expected, rtol=1e-5)
    assert "no positive value" in caplog.text


def test_a_variance_that_dragons_added_is_kept(tmp_path):
    ad = foreign(tmp_path, 90.0, PREPARE="2016-06-07T10:00:00", ADDVAR="2016-06-07T10:00:01")
    b = make.bench([ad])
    b.p.addVAR(read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(b.main[0][0].variance, 90)
