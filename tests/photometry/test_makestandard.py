"""From raw frames of a standard to its zero point, and to magnitudes of a stack, against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table

from niripipe import astrodata, photometry
from niripipe.cal_service import CalibrationService
from niripipe.errors import CalibrationError, DataError, ParameterError

from .conftest import reduce


def test_the_zero_point_is_that_of_the_night(reduced):
    ad = astrodata.open(reduced.standard)
    truth = reduced.night.truth.photometry["zero_points"]["H"]
    assert ad.phu["ZP"] == pytest.approx(truth, abs=0.005)
    assert abs(ad.phu["ZP"] - truth) < 4 * ad.phu["ZPERR"] + ad.phu["ZPAPERR"]
    assert 0 < ad.phu["ZPERR"] < 0.005
    # Catalogue (0.010), extinction (0.03 times airmass - 1), aperture.
    assert 0.010 <= ad.phu["ZPSYSERR"] < 0.015
    assert (ad.phu["ZPSTD"], ad.phu["ZPSYSTEM"], ad.phu["ZPBAND"]) == ("FS 17", "Vega", "H")
    assert (ad.phu["ZPEXT"], ad.phu["ZPNFRAME"]) == (0.03, 4)
    assert "STANDARD" in ad.tags
    assert "PROCESSED" in ad.tags


def test_every_frame_and_the_curve_of_growth_are_in_tables(reduced):
    ad = astrodata.open(reduced.standard)
    rows = ad.STDPHOT
    assert len(rows) == 4
    assert (rows["USED"] == 1).all()
    np.testing.assert_allclose(rows["RADIUS"], 4 * rows["FWHM"])
    for row in rows:
        flux = reduced.night.truth.positions(row["IMAGE"])[0, 2] * row["EXPTIME"]
        assert row["FLUX"] == pytest.approx(flux, rel=0.008)
    growth = ad.GROWTH
    assert (np.diff(growth["SHARE"]) > -0.002).all()
    assert growth["SHARE"][list(growth["RADIUS"]).index(4.0)] == pytest.approx(1)


def test_a_standard_is_a_calibration_of_its_night_and_set_up(reduced, tmp_path):
    service = CalibrationService()
    service.config(db_dir=tmp_path)
    service.init()
    assert service.add_cal(reduced.standard).caltype == "processed_standard"
    facts = astrodata.open(reduced.night.target[0])
    assert service.get_calibrations(facts, "processed_standard").files[0] == reduced.standard
    facts.phu["DATE-OBS"] = "2016-01-04"
    explained = service.explain(facts, "processed_standard")
    assert not explained.candidates[0].usable
    assert "ut_datetime" in str(explained.candidates[0].faults[0])


def test_stars_of_the_stack_have_their_magnitudes(reduced, stack):
    ad = astrodata.open(stack)
    table = ad[0].OBJCAT
    truth = reduced.night.truth
    stars = np.array([(s.x, s.y, s.flux) for s in truth.fields["target"].stars])
    wcs = truth.fields["target"].wcs
    zero_point, extinction = truth.photometry["zero_points"]["H"], truth.photometry["extinction"]["H"]
    assert extinction == ad.phu["ZPEXT"]
    ra, dec = np.array([_sky(wcs, x, y) for x, y, _ in stars]).T
    expected = zero_point - 2.5 * np.log10(stars[:, 2])
    pulls, differences, kron = [], [], []
    for row in table:
        distance = 3600 * np.hypot((ra - row["X_WORLD"]) * np.cos(np.deg2rad(dec)), dec - row["Y_WORLD"])
        best = int(np.argmin(distance))
        if distance[best] < 0.5 and row["MAGERR_APER_6"] < 0.1:
            differences.append(row["MAG_APER_6"] - expected[best])
            pulls.append(differences[-1] / np.hypot(row["MAGERR_APER_6"], ad.phu["ZPERR"]))
            kron.append(float(row["MAG_AUTO"]) - expected[best])
    assert len(pulls) >= 8
    assert abs(np.median(differences)) < 0.02
    assert abs(np.median(kron)) < 0.05
    assert np.std(pulls) < 3


def test_errors_of_magnitudes_hold_that_of_the_aperture_correction(stack):
    ext = astrodata.open(stack)[0]
    for radius in (3, 6, 10):
        error = np.asarray(ext.OBJCAT[f"MAGERR_APER_{radius}"])
        pixels = np.asarray(ext.OBJCAT[f"FLUXERR_APER_{radius}"] / ext.OBJCAT[f"FLUX_APER_{radius}"]) * 1.0857
        shared = ext.hdr[f"APCE{radius}"]
        assert shared > 0
        known = np.isfinite(error)
        assert (error[known] >= 0.999 * np.hypot(pixels, shared)[known]).all()


def test_the_stack_says_where_its_zero_point_comes_from(stack):
    ad = astrodata.open(stack)
    assert ad[0].hdr["BUNIT"] == "electron"
    assert ad.phu["ZPSTD"] == "FS 17"
    assert ad.phu["ZPFILE"].endswith("_standard.fits")
    assert ad.phu["ZPAGE"] == pytest.approx(-1.35, abs=0.02)
    assert "airmass" in ad.phu["ZPWHY"]
    here = ad.phu["ZP"] + 2.5 * np.log10(ad.exposure_time()) - ad.phu["ZPEXT"] * (ad.airmass() - 1)
    assert ad.phu["ZPIMAGE"] == pytest.approx(here, abs=1e-4)
    assert ad[0].hdr["DEPTH5"] > 20


def test_objcat_has_units(stack):
    table = astrodata.open(stack)[0].OBJCAT
    for name, unit in {
        "MAG_AUTO": u.mag, "MAG_APER_3": u.mag, "MAGERR_APER_10": u.mag, "X_WORLD": u.deg,
        "XWIN_IMAGE": u.pix,
        "FWHM_WORLD": u.deg,
    }.items():  # fmt: skip
        assert table[name].unit == unit, name


def test_counts_become_magnitudes_and_flux_densities(stack):
    ad = astrodata.open(stack)
    zero_point = ad.phu["ZPIMAGE"]
    magnitude, error = photometry.to_magnitudes(ad, [1e4, -5.0], [100.0, 1.0])
    assert magnitude[0] == (zero_point - 10) * u.mag
    assert error[0].to_value("mag") == pytest.approx(0.010857, rel=1e-3)
    assert np.isnan(magnitude[1])
    ab = photometry.to_magnitudes(stack, 1e4, system="AB")
    assert ab.unit == u.ABmag
    assert ab.value == pytest.approx(zero_point - 10 + 1.379)
    # The same by astropy's own definition of AB magnitudes.
    assert photometry.to_microjansky(ad, 1e4).value == pytest.approx(ab.to_value(u.uJy), rel=1e-4)
    assert photometry.to_microjansky(ad, -1e4).value < 0


def test_counts_have_to_be_electrons(stack):
    ad = astrodata.open(stack)
    same = photometry.to_magnitudes(ad, 1e4 * u.electron, 100 * u.electron)
    assert same[0] == photometry.to_magnitudes(ad, 1e4)
    for counts in (1e4 * u.electron / u.s, 1e4 * u.adu):
        with pytest.raises(ParameterError, match="electrons in the image"):
            photometry.to_magnitudes(ad, counts)
        with pytest.raises(ParameterError, match="electrons in the image"):
            photometry.to_microjansky(ad, counts)
    masked = photometry.to_magnitudes(ad, np.ma.masked_array([1e4, 1e5], [False, True]))
    assert np.isnan(masked).tolist() == [False, True]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda ad: ad[0].hdr.set("BUNIT", "adu"), "is in adu"),
        (lambda ad: ad.phu.remove("EXPTIME"), "no exposure time"),
        (lambda ad: ad[0].reset(ad[0].data, mask=ad[0].mask, variance=None), "no variances"),
    ],
)
def test_an_image_that_cannot_have_magnitudes_says_why(reduced, stack, tmp_path, spoil, words):
    ad = astrodata.open(stack)
    spoil(ad)
    given = {"applyZeroPoint:standard": reduced.standard}
    done = reduce([ad], None, tmp_path, recipe="applyZeroPoint", parameters=given)
    assert words in done.outputs[0].phu["ZPWHYNOT"]
    assert "ZP" not in done.outputs[0].phu
    with pytest.raises(DataError, match=words):
        reduce(
            [ad], None, tmp_path, recipe="applyZeroPoint",
            parameters=given | {"applyZeroPoint:do_cal": "force"},
        )  # fmt: skip


def test_an_image_without_airmass_is_said_to_lack_extinction(reduced, stack, tmp_path):
    ad = astrodata.open(stack)
    ad.phu.remove("AIRMASS")
    done = reduce(
        [ad], None, tmp_path, recipe="applyZeroPoint",
        parameters={"applyZeroPoint:standard": reduced.standard, "applyZeroPoint:fit": "nearest"},
    )  # fmt: skip
    assert any("no airmass" in text for text in done.report.warnings)
    assert "for unknown" in done.outputs[0].phu["ZPWHY"]


def test_an_image_without_zero_point_has_no_magnitudes(reduced):
    with pytest.raises(DataError, match="no zero point"):
        photometry.to_magnitudes(reduced.night.target[0], 1.0)


def test_a_standard_of_another_filter_is_refused(reduced, stack, tmp_path):
    other = astrodata.open(reduced.standard)
    other.phu["FILTER2"] = "J_G0202"
    with pytest.raises(CalibrationError, match="filter"):
        reduce(
            [stack], None, tmp_path, recipe="applyZeroPoint", parameters={"applyZeroPoint:standard": other}
        )


def test_a_field_without_standard_is_reduced_without_a_zero_point(reduced, tmp_path):
    done = reduce(
        reduced.night.target, reduced.calibrations, tmp_path, recipe="makeStandard",
    )  # fmt: skip
    ad = astrodata.open(done.output_filenames[0])
    assert "ZP" not in ad.phu
    assert "no standard" in ad.phu["ZPWHYNOT"]
    assert "STANDARD" not in ad.tags
    step = next(step for step in done.report.steps if step.primitive == "determineZeroPoint")
    assert "no standard was recognised" in step.summary()


def _sky(wcs, x, y):
    from astropy.wcs import WCS

    found = WCS(naxis=2)
    found.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    found.wcs.crpix, found.wcs.crval = wcs.crpix, wcs.crval
    found.wcs.cd = np.reshape(wcs.cd, (2, 2))
    ra, dec = found.all_pix2world(x, y, 0)
    return float(ra), float(dec)


def test_the_field_is_compared_with_the_standard(reduced, stack, tmp_path):
    ad = astrodata.open(stack)
    scene, truth = reduced.night.truth.fields["target"], reduced.night.truth.photometry
    positions = np.array([_sky(scene.wcs, star.x, star.y) for star in scene.stars])
    magnitudes = truth["zero_points"]["H"] - 2.5 * np.log10([star.flux for star in scene.stars])
    # One sentinel, one variable star.
    magnitudes[2], magnitudes[4] = 99.999, magnitudes[4] + 1
    catalogue = Table(
        {
            "ra": positions[:, 0],
            "dec": positions[:, 1],
            "Hmag": magnitudes,
            "e_Hmag": np.full(len(magnitudes), 0.02),
        }
    )
    for shift, word in ((0.0, "of the field is"), (0.3, "is wrong"), (1.379, "AB magnitudes")):
        shifted = catalogue.copy()
        shifted["Hmag"] += shift
        done = reduce(
            [ad], None, tmp_path, recipe=_compare, parameters={"addReferenceCatalog:source": shifted}
        )
        checked = done.outputs[0]
        assert checked.phu["ZPFLDDIF"] == pytest.approx(shift, abs=0.03)
        assert checked.phu["ZPFLDNUM"] >= 5
        assert checked.phu["ZP"] == ad.phu["ZP"]
        step = next(step for step in done.report.steps if step.primitive == "checkZeroPoint")
        assert any(word in outcome.reason for outcome in step.outcomes.values())


def test_a_finished_stack_keeps_its_zero_point_and_is_compared(reduced, stack, tmp_path):
    """The recipe calibrate detects the sources again, and has no standard."""
    ad = astrodata.open(stack)
    before = ad[0].OBJCAT
    stars = before[np.argsort(before["MAG_APER_6"])[:8]]
    catalogue = Table(
        {"ra": stars["X_WORLD"], "dec": stars["Y_WORLD"], "Hmag": stars["MAG_APER_6"], "e_Hmag": [0.02] * 8}
    )
    done = reduce(
        [ad], None, tmp_path, recipe="calibrate", parameters={"addReferenceCatalog:source": catalogue}
    )
    after = done.outputs[0]
    for key in ("ZP", "ZPIMAGE", "ZPERR", "ZPSYSERR", "ZPSTD", "ZPWHY"):
        assert after.phu[key] == ad.phu[key]
    assert after.phu["ZPFLDDIF"] == pytest.approx(0, abs=0.01)
    assert after.phu["ZPFLDSYS"] == 0.04
    table = after[0].OBJCAT
    np.testing.assert_allclose(table["MAG_APER_6"], before["MAG_APER_6"], atol=0.005)
    assert table["MAG_APER_6"].unit == u.mag
    (outcome,) = (
        step for step in after.history if step.primitive == "applyZeroPoint" and "kept" in step.reason
    )
    assert outcome.status == "DONE"


def test_trailed_stars_give_no_corrections_of_apertures(reduced, stack, tmp_path):
    """Of a stack that follows a moving target; every star is drawn out, but the brightest, the target."""
    ad = astrodata.open(stack)
    before = ad[0].OBJCAT
    target = before[np.argmin(before["MAG_APER_6"])]
    data, trailed = ad[0].data.copy(), sum(np.roll(ad[0].data, k, axis=1) for k in range(12)) / 12
    y, x = np.mgrid[: data.shape[0], : data.shape[1]]
    near = np.hypot(x + 1 - target["X_IMAGE"], y + 1 - target["Y_IMAGE"]) < 30
    ad[0].data = np.where(near, data, trailed).astype(np.float32)
    ad.phu.set("MOVSTARS", "trailed")
    done = reduce(
        [ad], None, tmp_path, recipe=_detect_and_apply,
        parameters={"applyZeroPoint:standard": reduced.standard},
    )  # fmt: skip
    after = done.outputs[0]
    found = after[0].OBJCAT[np.argmin(after[0].OBJCAT["MAG_APER_6"])]
    assert found["MAG_APER_6"] == pytest.approx(target["MAG_APER_6"], abs=0.02)
    assert found["MAG_APER_3"] == pytest.approx(target["MAG_APER_3"], abs=0.05)
    assert after[0].hdr["APCORSRC"] == "curve of growth of the standard"
    assert any("follows a moving target" in text for text in done.report.warnings)


def _detect_and_apply(p):
    p.detectSources()
    p.applyZeroPoint()


def _compare(p):
    p.addReferenceCatalog()
    p.determineAstrometricSolution()
    p.checkZeroPoint()
