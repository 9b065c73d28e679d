"""Raw frames of every epoch and set-up become the same kind of data, and say what was corrected."""

from __future__ import annotations

import itertools
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.errors import DataError
from niripipe.instruments.tables import niri_tables
from niripipe.simulate import Effects, raw_frame

from .. import frames as make

REAL = [
    "N20030325S0098", "N20030912S0301", "N20070818S0031", "N20090918S0386", "N20120118S0441",
    "N20141203S0891", "N20150404S0872", "N20150405S0028", "N20151129S0307", "N20170302S0331",
]  # fmt: skip
WCS_KEYS = ("CTYPE", "CRPIX", "CRVAL", "CD1_", "CD2_")


def frame(raw, **extension):
    """Open a simulated frame, with some extension keywords changed."""
    hdus = raw.hdulist()
    hdus[1].header.update(extension)
    ad = astrodata.open(hdus)
    ad.path = raw.name
    return ad


def quiet(**setup):
    """Simulate a frame of nothing but light, by a perfect detector."""
    effects = setup.pop("effects", Effects.none())
    return raw_frame(effects=effects, **({"size": 256, "level": 200.0} | setup))


def prepared(ad, **given):
    b = make.bench([ad])
    b.p.prepare(**given)
    return b.main[0]


def reason(ad):
    return ad.history[-1].reason


def misplaced(ad, raw, star):
    """Return how far (arcsec) the WCS puts a star from where the simulator put it on the sky."""
    base = raw_sky(raw, *star)
    x, y = shown(raw, *star)
    ra, dec = ad[0].wcs.all_pix2world(x, y, 0)
    return np.hypot((ra - base[0]) * np.cos(np.deg2rad(base[1])), dec - base[1]) * 3600


def shown(raw, x, y):
    """Where a star at (x, y) of the base pointing lies in the frame."""
    t, centre = raw.truth, (raw.data.shape[0] - 1) / 2
    u, v = x - centre, y - centre
    cos, sin = np.cos(t.rotation), np.sin(t.rotation)
    return cos * u - sin * v + centre + t.dx, sin * u + cos * v + centre + t.dy


def raw_sky(raw, x, y):
    """Where it is on the sky, by the simulator's own projection."""
    from niripipe.simulate.pointing import TangentWcs

    header = raw.extension
    size = raw.data.shape[0]
    # The field's reference is that of a frame without offsets; the simulator's frames share CRPIX and CD.
    shift = (1024 - size) / 2 if raw.name < "N20050201" else 0
    wcs = TangentWcs(
        (header["CRPIX1"] - shift, header["CRPIX2"] - shift),
        (header["CRVAL1"], header["CRVAL2"]),
        (header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"]),
    )
    ra, dec = wcs.to_sky(*shown(raw, x, y))
    return float(ra), float(dec)


# ---- pixels


@pytest.mark.parametrize("day", [date(2000, 8, 3), date(2001, 10, 31), date(2001, 11, 1), date(2010, 3, 4)])
@pytest.mark.parametrize("mode", ["Low Background", "Medium Background"])
def test_pixels_of_every_epoch_have_the_same_scale(day, mode):
    raw = quiet(date=day, read_mode=mode, coadds=2, exposure=10.0)
    ad = prepared(frame(raw))
    b = make.bench([ad])
    b.p.ADUToElectrons()
    old = day < date(2001, 11, 1) and mode == "Low Background"
    assert np.median(ad[0].data) == pytest.approx(200.0 * 20, rel=0.01)
    assert ad[0].data.dtype == np.float32
    assert ad.phu.get("LNRSDIV") == (16 if old else None)
    assert ("16 read pairs was divided" in ad.history[0].reason) == old


def test_read_pairs_are_divided_once():
    ad = frame(quiet(date=date(2001, 5, 5), read_mode="Low Background"))
    b = make.bench([ad])
    b.p.standardizeStructure()
    b.p.prepare()
    b.p.prepare()
    assert np.median(ad[0].data) * 12.3 == pytest.approx(200.0 * 20, rel=0.01)
    assert [row.status for row in ad.history] == ["DONE", "DONE", "SKIPPED"]
    assert "read pairs" in ad.history[0].reason
    assert "read pairs" not in ad.history[1].reason


def test_a_frame_that_needs_nothing_says_so():
    b = make.bench([frame(quiet())])
    b.p.standardizeStructure()
    assert b.main[0].history[-1].status == "NOT_NEEDED"
    assert "SDZSTRUC" not in b.main[0].phu


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_integers_and_floats_are_reduced_alike(kind):
    ad = prepared(frame(quiet(pixel_type=kind)))
    assert ad[0].data.dtype == np.float32
    assert np.median(ad[0].data) * 12.3 == pytest.approx(4000, rel=0.01)


# ---- world coordinates


@pytest.mark.parametrize("size", [256, 512, 768, 1024])
@pytest.mark.parametrize("day", [date(2005, 1, 31), date(2005, 2, 1)])
def test_the_reference_pixel_of_a_subarray_is_on_the_subarray(size, day):
    raw = quiet(size=size, date=day)
    ad = prepared(frame(raw))
    old = day < date(2005, 2, 1) and size < 1024
    assert (ad.phu.get("WCSFIX") == "CRPIX of subarray") == old
    assert misplaced(ad, raw, (40, 90)) < 0.01
    # and it is the piece of sky that the full frame shows there
    whole = prepared(frame(quiet(size=1024, date=day)))
    cut = (1024 - size) // 2
    here, there = ad[0].wcs.all_pix2world(30, 50, 0), whole[0].wcs.all_pix2world(30 + cut, 50 + cut, 0)
    np.testing.assert_allclose(here, there, atol=0.05 / 3600)


def broken(**changes):
    """Spoil the WCS of the extension; that in the primary header stays."""
    raw = quiet(p=3.0, q=-2.0)
    for key in WCS_KEYS:
        for card in [card for card in raw.extension if card.startswith(key)]:
            raw.header[card] = raw.extension[card]
    return raw, frame(raw, **changes)


@pytest.mark.parametrize(
    "fault",
    [
        {"CD1_1": -3.25e-55},
        {"CD1_1": -1e-4, "CD2_2": 1e-4},
        {"CD1_1": 0.0, "CD1_2": 0.0},
        {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"},
        {"CRVAL1": 12.0},
        {"CRVAL1": 0.0, "CRVAL2": 0.0, "CRPIX1": 0.0, "CRPIX2": 0.0, "CD1_1": 1.0, "CD2_2": 1.7},
    ],
)
def test_the_good_copy_of_a_broken_wcs_is_taken(fault):
    raw, ad = broken(**fault)
    before = {key: raw.header[key] for key in ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")}
    prepared(ad)
    assert ad.phu["WCSFIX"] == "primary copy"
    assert "primary header was taken" in reason(ad)
    np.testing.assert_allclose(ad[0].wcs.wcs.crval, [before["CRVAL1"], before["CRVAL2"]])
    assert misplaced(ad, quiet(p=3.0, q=-2.0), (200, 90)) < 0.01


def test_a_wcs_that_is_ignored_is_kept_as_it_is():
    _, ad = broken(CD1_1=-1e-4, CD2_2=1e-4)
    scale = ad[0].wcs.pixel_scale_matrix.copy()
    prepared(ad, bad_wcs="ignore")
    np.testing.assert_array_equal(ad[0].wcs.pixel_scale_matrix, scale)
    assert "WCSFIX" not in ad.phu


OPTICS = [
    (camera, port, ao)
    for camera, port, ao in itertools.product(("f6", "f13.9", "f32"), (1, 3, 5), (False, True))
]


@pytest.mark.parametrize(("camera", "port", "ao"), OPTICS)
def test_a_wcs_can_be_built_from_the_pointing_for_every_camera_and_port(camera, port, ao):
    angle = 37.0
    raw = quiet(camera=camera, port=port, ao=ao, p=1.5, q=-2.5, position_angle=angle)
    nonsense = {"CRVAL1": 0.0, "CRVAL2": 0.0, "CD1_1": 1.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1.7}
    ad = frame(raw, **nonsense)
    for key, value in nonsense.items():
        if key in ad.phu:
            ad.phu[key] = value
    prepared(ad)
    assert ad.phu["WCSFIX"] == "rebuilt from pointing"
    good = quiet(camera=camera, port=port, ao=ao, p=1.5, q=-2.5, position_angle=angle)
    worst = max(misplaced(ad, good, star) for star in ((20, 30), (230, 25), (128, 240)))
    assert worst < 0.02


def test_a_field_that_turned_keeps_its_wcs():
    ad = frame(quiet(ao=True, camera="f32", p=5.0, keywords={"CRFOLLOW": "no", "PA": 100.0}))
    crval = ad[0].wcs.wcs.crval.copy()
    prepared(ad, debug_consistency_limit=2)
    # The reference position of `wcs` is that of the optical centre; the plane behind the distortion is kept.
    np.testing.assert_array_equal(ad[0].sky_mapping.crval, crval)
    assert "WCSFIX" not in ad.phu


def test_a_frame_without_any_wcs_or_pointing_is_refused_and_says_what_is_missing():
    ad = frame(quiet(keywords={"RA": None, "DEC": None}), CTYPE1="LINEAR", CTYPE2="LINEAR")
    for card in [card for card in ad.phu if card.startswith(WCS_KEYS)]:
        ad.phu.remove(card)
    with pytest.raises(DataError, match="RA, DEC"):
        prepared(ad)
    prepared(ad, require_wcs=False)
    assert "PREPARE" in ad.phu


def test_offsets_that_are_missing_do_not_matter_to_a_good_wcs():
    raw = quiet(date=date(2003, 5, 5), p=4.0, q=2.0)
    assert "POFFSET" not in raw.header
    ad = prepared(frame(raw))
    assert misplaced(ad, raw, (40, 90)) < 0.01


# ---- voltages, filters, pupils


def test_a_voltage_written_as_text_is_read_and_a_contradiction_is_recorded():
    raw = quiet(keywords={"A_VDET": "-2.602", "A_VDDUC": "-3.472", "VDDUC": -3.512, "VDET": -2.912})
    ad = prepared(frame(raw))
    assert ad.well_depth_setting() == "Deep"
    assert "Shallow" in reason(ad)
    assert ad[0].hdr["SATLEVEL"] == int(280000 / 12.3)


@pytest.mark.parametrize(
    "keywords", [{"A_VDET": None, "VDET": None}, {"A_VDET": -1.0}, {"A_VDET": "broken", "VDET": "broken"}]
)
def test_an_unknown_well_is_treated_as_far_as_possible(keywords):
    b = make.bench([frame(quiet(keywords=keywords))])
    b.p.prepare()
    b.p.addDQ(static_bpm=None)
    b.p.ADUToElectrons()
    b.p.nonlinearityCorrect()
    ad = b.main[0]
    assert ad.well_depth_setting() == "Unknown"
    assert "SATLEVEL" not in ad[0].hdr
    assert not ad[0].mask.any()
    assert "Unknown well" in ad.history[-1].reason
    assert "LINCORR" not in ad.phu


def test_an_unknown_read_mode_is_not_linearised():
    b = make.bench([frame(quiet(keywords={"LNRS": 4, "NDAVGS": 3}))])
    b.p.prepare()
    b.p.nonlinearityCorrect()
    assert b.main[0].read_mode() == "Unknown"
    assert b.main[0][0].hdr["RDNOISE"] == 35.0
    assert b.main[0].history[-1].status == "SKIPPED"


@pytest.mark.parametrize("third", ["pupil38_G5207", "Pupil38_G5207", "pup38_G5207", "PUPIL38_G5207", "open"])
@pytest.mark.parametrize("first", ["H2v=1-0S1_G0216", "H2v=1-0s1_G0216"])
def test_filters_are_recognised_in_every_spelling(first, third):
    raw = quiet(filter=(first, "K_G0204", third))
    assert prepared(frame(raw)).phu["FILTER"] == "H2 1-0 S1"


# ---- subarrays with full-frame calibrations


@pytest.mark.parametrize("size", [256, 512, 768])
def test_full_frame_calibrations_are_cut_to_a_subarray(size):
    y, x = np.mgrid[:1024, :1024].astype(np.float32)
    dark, flat, bad = 10 + x / 100, 1 + (y - 512) / 4096, np.zeros((1024, 1024), np.uint16)
    bad[::37, ::41] = 1
    cut = slice((1024 - size) // 2, (1024 + size) // 2)
    light = 5000 * flat[cut, cut] + dark[cut, cut]
    ad = make.electrons(make.frame(light, shape=(size, size)), 100.0)
    calibrations = {
        "processed_dark": make.electrons(make.frame(dark, kind="dark", shape=dark.shape, number=50), 0.0, 0),
        "processed_flat": make.electrons(
            make.frame(flat, kind="lamp_on", shape=flat.shape, number=60), 0.0, 0
        ),
        "processed_bpm": make.frame(bad, kind="lamp_on", shape=bad.shape, number=70, filename="N1_bpm.fits"),
    }
    b = make.bench([ad], user=calibrations)
    b.p.addDQ()
    b.p.darkCorrect()
    b.p.flatCorrect()
    np.testing.assert_allclose(ad[0].data, 5000, rtol=1e-5)
    np.testing.assert_array_equal(ad[0].mask & 1, bad[cut, cut])
    assert calibrations["processed_dark"][0].shape == (1024, 1024)


# ---- non-linearity

MODES = [mode.name for mode in niri_tables().read_modes]
WELLS = [well.name for well in niri_tables().wells]
KNOWN = {(c.read_mode, c.rows, c.well) for c in niri_tables().linearity}


@pytest.mark.parametrize("size", [256, 512, 768, 1024])
@pytest.mark.parametrize("well", WELLS)
@pytest.mark.parametrize("mode", MODES)
def test_non_linearity_is_corrected_where_it_was_measured_and_nowhere_else(mode, well, size):
    effects = Effects.none(nonlinearity=True)
    raw = quiet(read_mode=mode, well=well, size=size, level=4000.0, effects=effects)
    ad = prepared(frame(raw))
    b = make.bench([ad])
    b.p.ADUToElectrons()
    before = float(np.median(ad[0].data))
    b.p.nonlinearityCorrect()
    after = float(np.median(ad[0].data))
    step = b.report.step("nonlinearityCorrect").outcomes[raw.name]
    if (mode, size, well) in KNOWN:
        assert after == pytest.approx(4000.0 * 20.002, rel=2e-3)
        assert abs(after / before - 1) > 5e-3
        assert "LINCORR" in ad.phu
        assert step.status == "DONE"
    else:
        assert after == before
        assert "LINCORR" not in ad.phu
        assert "nonlinearityCorrected" not in str(ad.filename)
        assert step.status == ad.history[-1].status == "SKIPPED"
        assert all(word in step.reason for word in (mode, str(size), well))
        assert step.reason in str(b.report)


def test_the_table_of_coefficients_is_covered():
    assert len(KNOWN) == 5
    assert {rows for _, rows, _ in KNOWN} == {256, 1024}


# ---- headers of real frames


@pytest.mark.parametrize("name", REAL)
def test_real_headers_pass_the_first_steps(shared: Path, name):
    primary, extension = (
        fits.Header.fromtextfile(shared / "headers" / f"{name}.hdu{number}.hdr") for number in (0, 1)
    )
    kind = np.int32 if extension["BITPIX"] == 32 else np.float32
    pixels = np.full((extension["NAXIS2"], extension["NAXIS1"]), 1000, kind)
    ad = astrodata.create(primary, [fits.ImageHDU(pixels, extension)])
    ad.path = f"{name}.fits"
    b = make.bench([ad])
    b.p.prepare()
    b.p.addDQ(static_bpm=None)
    b.p.ADUToElectrons()
    b.p.addVAR(read_noise=True, poisson_noise=True)
    b.p.nonlinearityCorrect()
    ext = ad[0]
    known = ext.linearity_coefficients() is not None
    assert ("LINCORR" in ad.phu) == known
    assert ad.history[-1].status == ("DONE" if known else "SKIPPED")
    assert np.isfinite(ext.data).all()
    assert (ext.read("variance") > 0).all()
    assert {"BUNIT", "GAIN", "RDNOISE", "SATLEVEL", "NONLINEA"} <= set(ext.hdr)
    on_sky = not ad.tags & {"CAL", "DARK", "FLAT", "ARC"}
    if on_sky:
        assert 0.02 < 3600 * np.sqrt(abs(np.linalg.det(ext.wcs.pixel_scale_matrix))) < 0.12
    fixes = {"N20030325S0098": "primary copy", "N20030912S0301": "rebuilt from pointing"}
    assert ad.phu.get("WCSFIX") == fixes.get(name)
