"""Reference catalogue and astrometry: the WCS goes where the catalogue says, and only if that is certain."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table, vstack

from niripipe.errors import DataError, InputError, ParameterError
from niripipe.simulate.psf import add_stars

from .. import frames as make
from .catalogue_server import Answers, serving, votable

SHAPE = (300, 300)
SCALE = make.SCALE


def positions(number, seed=4):
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < number:
        x, y = rng.uniform(25, 275, 2)
        if all(math.hypot(x - a, y - b) > 25 for a, b in found):
            found.append((x, y))
    return np.array(found)


def scene(number=12, *, error=(0.0, 0.0), seed=4, **cards):
    """Return a frame whose WCS is wrong by `error` arcsec (along x, y), and the catalogue of its stars."""
    xy = positions(number, seed)
    flux = 4e4 * 1.25 ** np.arange(number)[::-1]
    image = make.noise(5, 8.0, 0.0, SHAPE)
    add_stars(image, xy[:, 0], xy[:, 1], flux, 4.7, 1e-3)
    ad = make.electrons(make.frame(image, shape=SHAPE, **cards), 64.0, 0)
    true = ad[0].wcs
    ra, dec = true.all_pix2world(xy[:, 0], xy[:, 1], 0)
    catalogue = Table(
        {"RA": ra, "DEC": dec, "hmag": 26.77 - 2.5 * np.log10(flux / 20), "hmag_err": np.full(number, 0.02)}
    )
    wrong = true.deepcopy()
    wrong.wcs.crpix = wrong.wcs.crpix + np.array(error) / SCALE
    ad[0].wcs = wrong
    make.bench([ad]).p.detectSources()
    return ad, catalogue, true


def solved(ad, catalogue, **options):
    b = make.bench([ad])
    b.p.addReferenceCatalog(source=catalogue)
    b.p.determineAstrometricSolution(**options)
    return ad.history[-1].status, ad.history[-1].reason


def distance(ad, true):
    """Return how far the frame's coordinates are from the true ones at the corners, arcsec."""
    corners = np.array([[0, 0], [299, 0], [0, 299], [299, 299]], float)
    x, y = true.all_world2pix(*ad[0].wcs.all_pix2world(corners[:, 0], corners[:, 1], 0), 0)
    return float(np.hypot(x - corners[:, 0], y - corners[:, 1]).max()) * SCALE


# ---- catalogue


def test_the_sources_around_the_frame_become_a_table_of_it():
    ad, catalogue, _ = scene()
    far = Table({"RA": [31.0], "DEC": [20.0], "hmag": [10.0], "hmag_err": [0.1]})
    b = make.bench([ad])
    b.p.addReferenceCatalog(source=vstack([catalogue, far]))
    assert len(ad.REFCAT) == 12
    assert np.allclose(ad.REFCAT["filtermag"], catalogue["hmag"])
    assert np.allclose(ad.REFCAT["filtermag_err"], 0.02)
    assert "ADDRECAT" in ad.phu
    assert json.loads(json.dumps(b.report.steps[-1].parameters))["source"] == "table without name, 13 rows"


def with_missing(value):
    """Return a change of a catalogue that makes every other magnitude a missing one."""

    def change(table):
        table["hmag"] = np.where(np.arange(len(table)) % 2, value, table["hmag"])
        return table

    return change


def masked(table):
    table["hmag"] = MaskedColumn(table["hmag"], mask=np.arange(len(table)) % 2 == 1)
    return table


@pytest.mark.parametrize("change", [*map(with_missing, (99.999, -999.0, -99.9, np.inf)), masked])
def test_missing_magnitudes_of_any_kind_are_left_out_with_their_number(change, caplog):
    ad, catalogue, _ = scene()
    true = np.array(catalogue["hmag"])
    make.bench([ad]).p.addReferenceCatalog(source=change(catalogue))
    found = np.asarray(ad.REFCAT["filtermag"])
    np.testing.assert_allclose(found, np.where(np.arange(12) % 2, -999.0, true))
    assert "6 of 12 catalogue stars have no usable magnitude in H" in caplog.text


def test_a_catalogue_without_errors_is_used_with_a_warning(caplog):
    ad, catalogue, _ = scene()
    del catalogue["hmag_err"]
    make.bench([ad]).p.addReferenceCatalog(source=catalogue)
    np.testing.assert_allclose(ad.REFCAT["filtermag"], catalogue["hmag"])
    assert set(ad.REFCAT["filtermag_err"]) == {0.05}
    assert "no errors of hmag: 0.05 mag is assumed" in caplog.text


def test_a_catalogue_of_another_band_says_what_it_has(caplog):
    ad, catalogue, _ = scene()
    catalogue.rename_column("hmag", "jmag")
    make.bench([ad]).p.addReferenceCatalog(source=catalogue)
    assert "no magnitudes in H (it has: jmag)" in caplog.text


@pytest.mark.parametrize("form", ["fits", "votable", "ascii.csv", "ascii.ecsv"])
def test_a_catalogue_in_a_file_has_missing_values_and_a_textual_epoch(form, tmp_path):
    ad, catalogue, _ = scene()
    table = masked(catalogue)
    table["pmRA"] = table["pmDE"] = 0.0
    table.meta["EPOCH"] = "J2015.5"
    path = tmp_path / "stars.dat"
    table.write(path, format=form)
    make.bench([ad]).p.addReferenceCatalog(source=str(path), format=form)
    assert np.count_nonzero(np.asarray(ad.REFCAT["filtermag"]) > -999) == 6


def test_an_epoch_that_cannot_be_read_is_named_with_the_file(tmp_path):
    ad, catalogue, _ = scene(3)
    catalogue.meta["EPOCH"] = "long ago"
    catalogue.write(tmp_path / "stars.fits")
    with pytest.raises(DataError, match=r"epoch.*stars.fits.*EPOCH.*long ago"):
        make.bench([ad]).p.addReferenceCatalog(source=str(tmp_path / "stars.fits"))


def test_coordinates_of_astropy_are_positions():
    ad, catalogue, _ = scene(3)
    catalogue["where"] = SkyCoord(catalogue["RA"], catalogue["DEC"], unit="deg")
    ra = np.array(catalogue["RA"])
    del catalogue["RA"], catalogue["DEC"]
    make.bench([ad]).p.addReferenceCatalog(source=catalogue)
    np.testing.assert_allclose(ad.REFCAT["RAJ2000"], ra)


def test_without_a_source_nothing_is_done_and_nobody_asked(monkeypatch):
    import urllib.request

    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: pytest.fail("the network was used"))
    ad, _, _ = scene(3)
    make.bench([ad]).p.addReferenceCatalog()
    assert (ad.history[-1].status, ad.history[-1].reason) == ("SKIPPED", "no source was named")
    assert "REFCAT" not in ad.tables


def test_a_server_is_asked_once_for_all_frames_of_a_field():
    ads = [scene(POFFSET=p)[0] for p in (0.0, 5.0, -5.0)]
    catalogue = scene()[1]
    vizier = Table(
        {
            "RAJ2000": catalogue["RA"],
            "DEJ2000": catalogue["DEC"],
            "Hmag": catalogue["hmag"],
            "e_Hmag": catalogue["hmag_err"],
        }
    )
    with serving(Answers(votable(vizier))) as server:
        make.bench(ads).p.addReferenceCatalog(source="2MASS", server=server.address)
    assert len(server.queries) == 1
    assert float(server.queries[0]["-c.rd"][0]) == pytest.approx(0.066)
    assert all(len(ad.REFCAT) == 12 for ad in ads)


@pytest.mark.parametrize("mode", ["sq", "qa"])
def test_a_server_that_fails_stops_science_but_not_quality_assessment(mode):
    ad, _, _ = scene(3)
    b = make.bench([ad], mode=mode)
    with serving(Answers(b"busy", 503)) as server:
        if mode == "sq":
            with pytest.raises(InputError, match="503"):
                b.p.addReferenceCatalog(source="2mass", server=server.address)
            return
        b.p.addReferenceCatalog(source="2mass", server=server.address)
    assert ad.history[-1].status == "SKIPPED"
    assert "503" in ad.history[-1].reason
    assert "ADDRECAT" not in ad.phu


def test_a_field_without_catalogue_sources_is_said_to_be_one():
    ad, _, _ = scene(3)
    make.bench([ad]).p.addReferenceCatalog(source=Table({"RA": [100.0], "DEC": [20.0]}))
    assert "no catalogue source within" in ad.history[-1].reason


@pytest.mark.parametrize("source", ["2mas", "absent.fits", 3])
def test_a_source_that_cannot_be_is_refused_before_anything_is_done(source):
    ad, _, _ = scene(3)
    with pytest.raises(ParameterError, match="source"):
        make.bench([ad]).p.addReferenceCatalog(source=source)


def test_catalogue_and_solution_survive_the_file(tmp_path):
    from niripipe import astrodata

    ad, catalogue, _ = scene(error=(1.0, 0.0))
    solved(ad, catalogue)
    ad.write(tmp_path / "a.fits")
    read = astrodata.open(tmp_path / "a.fits")
    assert np.allclose(read.REFCAT["filtermag"], ad.REFCAT["filtermag"])
    assert np.array_equal(read[0].OBJCAT["REF_NUMBER"], ad[0].OBJCAT["REF_NUMBER"])
    assert np.allclose(read[0].wcs.wcs.crpix, ad[0].wcs.wcs.crpix)


# ---- solution


@pytest.mark.parametrize("error", [(0.0, 0.0), (2.0, -1.5), (-4.5, 4.5)])
@pytest.mark.parametrize("port", [1, 3])
def test_the_wcs_moves_to_the_catalogue(error, port):
    ad, catalogue, true = scene(error=error, INPORT=port)
    assert solved(ad, catalogue)[0] == "DONE"
    assert distance(ad, true) < 0.02
    hdr = ad[0].hdr
    assert hdr["ASTNUM"] == 12
    assert math.hypot(hdr["ASTDRA"], hdr["ASTDDEC"]) == pytest.approx(math.hypot(*error), abs=0.02)
    assert hdr["ASTRMSRA"] < 0.02
    assert hdr["ASTRMSDE"] < 0.02


def test_sources_get_their_references_magnitudes():
    ad, catalogue, _ = scene(error=(1.0, 1.0))
    solved(ad, catalogue)
    table, references = ad[0].OBJCAT, ad.REFCAT
    assert (table["REF_NUMBER"] > 0).all()
    own = references["filtermag"][np.asarray(table["REF_NUMBER"]) - 1]
    assert np.allclose(table["REF_MAG"], own, atol=1e-5)
    order = np.argsort(table["FLUX_AUTO"])
    assert (np.diff(table["REF_MAG"][order]) < 0).all()
    world = ad[0].wcs.all_pix2world(table["X_IMAGE"], table["Y_IMAGE"], 1)
    assert np.allclose([table["X_WORLD"], table["Y_WORLD"]], world)


def test_the_scatters_of_both_axes_are_their_own():
    # Offsets of 0.3 arcsec along RA and none along Dec: one list for both would give 0.2 twice.
    ad, catalogue, _ = scene(20)
    offsets = np.random.default_rng(1).choice([-0.3, 0.3], 20)
    offsets -= offsets.mean()
    catalogue["RA"] += offsets / 3600 / np.cos(np.deg2rad(20))
    assert solved(ad, catalogue) == ("DONE", "")
    assert ad[0].hdr["ASTRMSRA"] == pytest.approx(offsets.std(ddof=1), abs=0.03)
    assert ad[0].hdr["ASTRMSDE"] < 0.02


@pytest.mark.parametrize("number", [1, 2])
def test_one_match_does_not_move_the_wcs_however_bright(number):
    ad, catalogue, _ = scene(8)
    few = catalogue[:number]
    few["DEC"] += 0.8 / 3600
    before = ad[0].wcs.wcs.crpix.copy()
    status, reason = solved(ad, few)
    assert status == "SKIPPED"
    assert np.array_equal(ad[0].wcs.wcs.crpix, before)
    # The stars are recognised all the same, for the zero point.
    assert f"{number} sources identified where they are" in reason
    assert (np.asarray(ad[0].OBJCAT["REF_NUMBER"]) > 0).sum() == number
    assert "ASTRMTRY" not in ad.phu


@pytest.mark.parametrize("seed", range(5))
def test_the_catalogue_of_another_field_moves_nothing(seed):
    ad, _, _ = scene(12)
    _, other, _ = scene(12, seed=100 + seed)
    before = ad[0].wcs.wcs.crpix.copy()
    status, reason = solved(ad, other)
    assert status == "SKIPPED"
    assert np.array_equal(ad[0].wcs.wcs.crpix, before)
    assert "arcsec" in reason or "sources" in reason


def test_faint_objects_that_the_catalogue_lacks_do_not_mislead():
    ad, catalogue, true = scene(24, error=(3.0, 2.0))
    bright = catalogue[:6]
    assert solved(ad, bright)[0] == "DONE"
    assert distance(ad, true) < 0.05


def test_a_rotation_is_fitted_on_request():
    ad, catalogue, true = scene(20)
    turned = true.deepcopy()
    angle = np.deg2rad(0.5)
    turned.wcs.cd = turned.wcs.cd @ np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    ad[0].wcs = turned
    assert solved(ad, catalogue, rotate=True)[0] == "DONE"
    assert distance(ad, true) < 0.04


def test_what_is_missing_is_said():
    ad, catalogue, _ = scene(5)
    b = make.bench([ad])
    b.p.determineAstrometricSolution()
    assert "addReferenceCatalog" in ad.history[-1].reason
    b.p.addReferenceCatalog(source=catalogue)
    del ad[0].OBJCAT
    b.p.determineAstrometricSolution()
    assert "detectSources" in ad.history[-1].reason


def test_a_second_solution_after_new_detection_is_possible():
    ad, catalogue, true = scene(error=(1.0, 1.0))
    b = make.bench([ad])
    b.p.addReferenceCatalog(source=catalogue)
    for _ in range(2):
        b.p.detectSources()
        b.p.determineAstrometricSolution()
        assert ad.history[-1].status == "DONE"
    assert distance(ad, true) < 0.02
    assert (np.asarray(ad[0].OBJCAT["REF_NUMBER"]) > 0).all()
