"""Sources and object masks: stars of known place and flux are found, and masks go where they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from niripipe import astrodata
from niripipe.algorithms.morphology import dilate
from niripipe.astrodata import DQ
from niripipe.errors import AlgorithmError, ParameterError

from .. import frames as make

SHAPE = (128, 128)
STARS = [(30.3, 40.7, 60000.0), (90.2, 25.5, 40000.0), (64.9, 100.1, 80000.0)]


def starry(stars=STARS, shift=(0.0, 0.0), seed=1, number=1, shape=SHAPE, **options):
    moved = [(x + shift[0], y + shift[1], flux) for x, y, flux in stars]
    pixels = make.gaussians(shape, moved) + make.noise(seed, 10.0, 200.0, shape)
    return make.electrons(make.frame(pixels, shape=shape, number=number, **options), 100.0, 0)


def test_stars_are_found_where_they_are_with_their_flux():
    b = make.bench([starry()])
    b.p.detectSources()
    table = b.main[0][0].OBJCAT
    assert len(table) == 3
    for x, y, flux in STARS:
        row = table[np.argmin(np.hypot(table["X_IMAGE"] - x - 1, table["Y_IMAGE"] - y - 1))]
        assert row["XWIN_IMAGE"] - 1 == pytest.approx(x, abs=0.03)
        assert row["YWIN_IMAGE"] - 1 == pytest.approx(y, abs=0.03)
        assert row["FLUX_AUTO"] == pytest.approx(flux, rel=0.05)
        ra, dec = b.main[0][0].wcs.all_pix2world(x, y, 0)
        assert row["X_WORLD"] == pytest.approx(ra, abs=1e-5)
        assert row["Y_WORLD"] == pytest.approx(dec, abs=1e-5)


def test_columns_of_the_catalogue_have_units(tmp_path):
    b = make.bench([starry()])
    b.p.detectSources()
    b.main[0].write(tmp_path / "x.fits")
    for table in (b.main[0][0].OBJCAT, astrodata.open(tmp_path / "x.fits")[0].OBJCAT):
        units = {name: str(table[name].unit) for name in table.colnames}
        of = {unit: {name for name in units if units[name] == unit} for unit in set(units.values())}
        assert {"X_IMAGE", "FWHM_IMAGE", "A_IMAGE", "XWIN_IMAGE", "FLUX_RADIUS"} <= of["pix"]
        assert {"X_WORLD", "THETA_IMAGE", "ERRTHETA_WORLD", "FWHM_WORLD"} <= of["deg"]
        assert of["electron"] == {"FLUX_AUTO", "FLUXERR_AUTO", "FLUX_MAX", "BACKGROUND"}
        assert of["mag"] == {"MAG_AUTO", "MAGERR_AUTO", "REF_MAG", "REF_MAG_ERR"}
        assert {"ISOAREA_IMAGE", "ERRX2_IMAGE"} <= of["pix2"]
        assert of["deg2"] == {"ERRX2_WORLD", "ERRY2_WORLD", "ERRXY_WORLD"}
        flags = {"FLAGS", "IMAFLAGS_ISO", "NIMAFLAGS_ISO"}
        assert of["None"] == flags | {"NUMBER", "CLASS_STAR", "ELLIPTICITY", "REF_NUMBER"}


def test_the_object_mask_covers_the_stars_and_little_else():
    b = make.bench([starry()])
    b.p.detectSources()
    mask = b.main[0][0].OBJMASK
    assert set(np.unique(mask)) == {0, 1}
    assert all(mask[round(y), round(x)] for x, y, _ in STARS)
    assert mask.mean() < 0.05


def test_without_a_catalogue_there_is_nearly_the_same_mask_alone():
    measured, masked = make.bench([starry()]), make.bench([starry()])
    measured.p.detectSources()
    masked.p.detectSources(catalogue=False)
    full, quick = measured.main[0][0].OBJMASK, masked.main[0][0].OBJMASK
    assert full.any()
    assert not (full & ~dilate(quick, 2)).any()
    assert not (quick & ~dilate(full, 3.5)).any()
    assert "OBJCAT" not in masked.main[0][0].tables
    # A catalogue that belongs to another mask does not stay.
    measured.p.detectSources(catalogue=False)
    assert "OBJCAT" not in measured.main[0][0].tables


def test_a_catalogue_for_alignment_is_a_choice_in_words():
    b = make.bench([starry()])
    b.p.detectSources(catalogue="positions")
    table = b.main[0][0].OBJCAT
    assert len(table) == 3
    assert np.isfinite(table["X_WORLD"]).all()
    assert np.isnan(table["FLUX_RADIUS"]).all()
    with pytest.raises(ParameterError, match="catalogue"):
        b.p.detectSources(catalogue="everything")


def test_detection_changes_no_pixel():
    ad = starry()
    before = ad[0].data.copy(), ad[0].variance.copy(), ad[0].mask.copy()
    make.bench([ad]).p.detectSources()
    for plane, was in zip((ad[0].data, ad[0].variance, ad[0].mask), before, strict=True):
        np.testing.assert_array_equal(plane, was)


def test_bad_pixels_are_no_sources():
    ad = starry()
    ad[0].data[60:70, 60:70] = 5000
    ad[0].mask[60:70, 60:70] = DQ.bad_pixel
    b = make.bench([ad])
    b.p.detectSources()
    assert len(b.main[0][0].OBJCAT) == 3
    b.main[0].phu.remove("DETECSRC", ignore_missing=True)
    b.p.detectSources(mask=False)
    assert len(b.main[0][0].OBJCAT) == 4


def test_an_empty_field_has_an_empty_catalogue():
    b = make.bench([starry([])])
    b.p.detectSources()
    assert len(b.main[0][0].OBJCAT) == 0
    assert not b.main[0][0].OBJMASK.any()


def test_a_frame_without_usable_pixels_is_dropped_or_raises():
    def blind():
        ad = starry(number=2)
        ad[0].mask = np.ones(SHAPE, np.uint16)
        return ad

    with pytest.raises(AlgorithmError):
        make.bench([blind()]).p.detectSources()
    b = make.bench([starry(), blind()], droppable=True)
    b.p.detectSources()
    assert [d.name for d in b.report.dropped] == [make.name(2)]


# ---- noise of fluxes


def realisation(seed, *, residual=0.0, shape=(256, 256)):
    """The same star on noise of 10, and smooth residual sky."""
    rng = np.random.default_rng(seed)
    pixels = make.gaussians(shape, [(128.3, 127.6, 12000.0)]) + rng.normal(0, 10, shape)
    if residual:
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), 4.0)
        pixels += residual * smooth / smooth.std()
    return make.electrons(make.frame(pixels.astype(np.float32), shape=shape), 100.0, 0)


@pytest.mark.parametrize("residual", [0.0, 4.0])
def test_errors_of_fluxes_are_the_scatter_of_fluxes(residual):
    ads = [realisation(seed, residual=residual) for seed in range(24)]
    make.bench(ads).p.detectSources()
    flux, error = [], []
    for ad in ads:
        table = ad[0].OBJCAT
        row = table[np.argmin(np.hypot(table["X_IMAGE"] - 129.3, table["Y_IMAGE"] - 128.6))]
        flux.append(row["FLUX_AUTO"])
        error.append(row["FLUXERR_AUTO"])
        magnitudes = 2.5 / np.log(10) * row["FLUXERR_AUTO"] / row["FLUX_AUTO"]
        assert row["MAGERR_AUTO"] == pytest.approx(magnitudes, rel=1e-4)
    # 24 fluxes give a scatter to 15 %.
    assert np.std(flux) / np.median(error) == pytest.approx(1, abs=0.35)


def test_the_noise_of_apertures_is_kept_and_used():
    ad = realisation(1, residual=4.0)
    make.bench([ad]).p.detectSources()
    hdr = ad[0].hdr
    assert hdr["NOISSKY"] == pytest.approx(4, rel=0.4)
    assert hdr["NOISRAD"] == 13
    plain = realisation(1)
    make.bench([plain]).p.detectSources()
    assert plain[0].hdr["NOISSKY"] == pytest.approx(0, abs=1)
    # Blank apertures, centres far from the star, against what is predicted.
    pixels = ad[0].data.astype(float)
    kernel = np.hypot(*np.mgrid[-8:9, -8:9]) <= 8
    summed = ndimage.convolve(pixels, kernel.astype(float))[8:100:3, 8:248:3].ravel()
    scatter = 1.4826 * np.median(np.abs(summed - np.median(summed)))
    where = np.zeros(pixels.shape, bool)
    where[40:57, 40:57] = kernel
    assert scatter / np.sqrt(ad[0].aperture_variance(where)) == pytest.approx(1, abs=0.25)


def test_the_correlation_of_pixels_makes_errors_of_fluxes_larger():
    errors = []
    for correlation in (None, 2.0):
        ad = starry()
        if correlation:
            ad[0].hdr["NOISCORR"] = correlation
        # Too small for the noise of apertures to be measured at three radii.
        make.bench([ad]).p.detectSources()
        errors.append(np.median(ad[0].OBJCAT["FLUXERR_AUTO"]))
    assert 1.2 < errors[1] / errors[0] < 1.42


def test_without_blank_sky_errors_hold_what_is_known(caplog):
    ad = starry(shape=(48, 48), stars=[(20.0, 24.0, 60000.0)])
    ad[0].hdr["NOISSKY"] = 99.0
    with caplog.at_level("WARNING", logger="niripipe"):
        make.bench([ad]).p.detectSources()
    assert "too little of it is blank" in caplog.text
    assert "NOISSKY" not in ad[0].hdr
    assert (ad[0].OBJCAT["FLUXERR_AUTO"] > 0).all()


def test_quick_catalogues_and_frames_without_variance_measure_no_noise(caplog):
    for options, variance in (({"catalogue": "positions"}, 100.0), ({"catalogue": False}, 100.0), ({}, None)):
        ad = realisation(2)
        ad[0].variance = None if variance is None else ad[0].variance
        with caplog.at_level("WARNING", logger="niripipe"):
            make.bench([ad]).p.detectSources(**options)
        assert "NOISSKY" not in ad[0].hdr
    assert "blank" not in caplog.text


def test_a_variance_that_is_wrong_is_named(caplog):
    ad = realisation(3)
    ad[0].variance *= np.float32(0.3)
    with caplog.at_level("WARNING", logger="niripipe"):
        make.bench([ad]).p.detectSources()
    assert "times as much as VAR says" in caplog.text


# ---- masks


def masked(at=(20, 30)):
    ad = make.electrons(make.frame(), mask=0)
    objects = np.zeros(make.SHAPE, np.uint8)
    objects[at] = 1
    ad[0].OBJMASK = objects
    return ad


def test_a_mask_is_grown_by_a_disc_once():
    b = make.bench([masked()])
    b.p.dilateObjectMask(dilation=2)
    mask = b.main[0][0].OBJMASK
    y, x = np.indices(mask.shape)
    distance = np.hypot(y - 20, x - 30)
    assert mask[distance <= 2].all()
    assert not mask[distance > 3].any()
    area = mask.sum()
    b.p.dilateObjectMask(dilation=2)
    assert b.main[0][0].OBJMASK.sum() == area
    b.p.dilateObjectMask(dilation=2, repeat=True)
    assert b.main[0][0].OBJMASK.sum() > area


def test_nothing_to_grow_is_recorded():
    b = make.bench([make.electrons(make.frame())])
    b.p.dilateObjectMask(dilation=2)
    assert b.main[0].history[-1].status == "SKIPPED"
    b = make.bench([masked()])
    b.p.dilateObjectMask(dilation=0.5)
    assert b.main[0].history[-1].status == "NOT_NEEDED"
    assert b.main[0][0].OBJMASK.sum() == 1


@pytest.mark.parametrize("has_mask", [True, False])
def test_objects_are_flagged_in_the_data_quality(has_mask):
    ad = masked()
    ad[0].mask = np.full(make.SHAPE, 8, np.uint16) if has_mask else None
    make.bench([ad]).p.addObjectMaskToDQ()
    assert ad[0].mask[20, 30] == (9 if has_mask else 1)
    assert ad[0].mask[0, 0] == (8 if has_mask else 0)


def test_an_object_mask_is_projected_through_the_sky():
    source = masked((32, 32))
    # The field of the target frame lies 10 pixels North, so the object lies 10 pixels lower.
    target = make.electrons(make.frame(QOFFSET=10 * make.SCALE, number=2), mask=0)
    b = make.bench([target])
    b.p.streams["deep"] = [source]
    b.p.transferObjectMask(source="deep", dilation=0)
    y, x = np.argwhere(target[0].OBJMASK).mean(axis=0)
    assert (y, x) == (pytest.approx(22, abs=0.2), pytest.approx(32, abs=0.2))


@pytest.mark.parametrize("source", ["absent", "two", "bare"])
def test_a_stream_that_cannot_give_a_mask_is_refused(source):
    b = make.bench([masked()])
    b.p.streams["two"] = [masked(), masked()]
    b.p.streams["bare"] = [make.electrons(make.frame())]
    with pytest.raises(ParameterError, match=source):
        b.p.transferObjectMask(source=source)
