"""Catalogues as 2MASS, UKIDSS and Gaia give them: systems, flags, missing values, epochs."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from astropy.table import Table

from niripipe.errors import InputError
from niripipe.primitives.catalogue_client import cone_search, near, standard_table

from .. import frames as make
from .catalogue_server import Answers, serving, votable
from .test_astrometry import distance, scene, solved


def as_2mass(catalogue, colour=0.5):
    """Return a catalogue in the columns of 2MASS at VizieR: H of the stars is that of the MKO system."""
    n = len(catalogue)
    h = np.asarray(catalogue["hmag"]) + 0.030 - 0.070 * colour
    return Table(
        {
            "2MASS": [f"0000000+{k:07d}" for k in range(n)],
            "RAJ2000": catalogue["RA"],
            "DEJ2000": catalogue["DEC"],
            "Jmag": h + colour,
            "e_Jmag": np.full(n, 0.03),
            "Hmag": h,
            "e_Hmag": np.full(n, 0.03),
            "Qflg": ["AAA"] * n,
            "Cflg": ["000"] * n,
        }
    )


def test_2mass_gives_h_of_the_mko_system_and_its_flags_count(caplog):
    ad, catalogue, _ = scene()
    table = as_2mass(catalogue)
    table["Qflg"][1], table["Cflg"][2], table["Jmag"][3] = "AUA", "0c0", table["Hmag"][3] + 1.5
    with serving(Answers(votable(table))) as server:
        make.bench([ad]).p.addReferenceCatalog(source="2mass", server=server.address)
    assert "Qflg" in server.queries[0]["-out"]
    found = np.asarray(ad.REFCAT["filtermag"])
    assert (found[1:4] == -999).all()
    np.testing.assert_allclose(
        np.delete(found, [1, 2, 3]), np.delete(catalogue["hmag"], [1, 2, 3]), atol=1e-6
    )
    assert "3 of 12 catalogue stars have no usable magnitude in H" in caplog.text


def test_flags_that_a_reader_took_for_numbers():
    table = as_2mass(scene(3)[1])
    table["cc_flg"] = [0, 0, 100]
    del table["Cflg"]
    found = standard_table(table)
    assert np.isnan(found["jmag"]).tolist() == [False, False, True]
    assert not np.isnan(found["hmag"]).any()


def test_columns_of_the_wfcam_science_archive(tmp_path):
    nothing = -9.999995e8
    path = tmp_path / "wsa.csv"
    Table(
        {
            "sourceID": np.arange(433791696833, 433791696838),
            "ra": np.full(5, 30.0),
            "dec": np.full(5, 20.0),
            "mergedClass": [-1, -2, 1, -1, -1],
            "jAperMag3": [15.0, 16.0, 17.0, nothing, 14.0],
            "jAperMag3Err": [0.01, 0.02, 0.02, nothing, 0.01],
            "jppErrBits": [0, 16, 0, 0, 65536],
            "hAperMag3": [14.5, nothing, 16.5, 14.0, 13.5],
            "hAperMag3Err": [0.01, nothing, 0.02, 0.01, 0.01],
        }
    ).write(path)
    found = standard_table(Table.read(path))
    assert found.meta["SYSTEM"] == "MKO"
    assert found["Cat_Id"][0] == "433791696833"
    np.testing.assert_array_equal(found["jmag"], [15.0, 16.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found["hmag"], [14.5, np.nan, np.nan, 14.0, 13.5])
    np.testing.assert_array_equal(found["jmag_err"][:2], [0.01, 0.02])


def test_bands_that_the_archive_has_at_two_epochs():
    """The LAS calls J of its first epoch j_1, the GPS K of its first epoch k_1."""
    found = standard_table(
        Table(
            {
                "ra": [30.0, 30.1],
                "dec": [20.0, 20.1],
                "mergedClass": [-1, -1],
                "j_1AperMag3": [15.0, 16.0],
                "j_1AperMag3Err": [0.01, 0.02],
                "j_1ppErrBits": [65536, 16],
                "k_1AperMag3": [14.0, 15.0],
                "k_1AperMag3Err": [0.01, 0.02],
            }
        )
    )
    assert found.meta["SYSTEM"] == "MKO"
    np.testing.assert_array_equal(found["jmag"], [np.nan, 16.0])
    np.testing.assert_array_equal(found["kmag_err"], [0.01, 0.02])


def test_a_file_of_gaia_has_its_epoch_in_a_column():
    from datetime import datetime

    table = standard_table(
        Table(
            {
                "source_id": [1],
                "ra": [30.0],
                "dec": [60.0],
                "ra_error": [0.3],
                "pmra": [500.0],
                "pmdec": [-400.0],
                "ref_epoch": [2016.0],
            }
        )
    )
    assert table.meta["POSERR"] == 0.005
    moved = near(table, 30.0, 60.0, 0.1, datetime(2006, 1, 1))
    # Ten years back: 5 arcsec of the sky in right ascension are twice as many of coordinate at 60 degrees.
    assert (moved["RAJ2000"][0] - 30.0) * 3600 == pytest.approx(-10.0, abs=0.02)
    assert (moved["DEJ2000"][0] - 60.0) * 3600 == pytest.approx(4.0, abs=0.01)


def test_the_wcs_is_tied_to_gaia_with_moving_stars_a_rotation_and_wrong_entries():
    ad, catalogue, true = scene(24, error=(2.1, -2.1), **{"DATE-OBS": "2006-01-01"})
    cosine, sine = np.cos(np.deg2rad(0.3)), np.sin(np.deg2rad(0.3))
    wrong = ad[0].wcs.deepcopy()
    wrong.wcs.cd = wrong.wcs.cd @ np.array([[cosine, -sine], [sine, cosine]])
    ad[0].wcs = wrong
    rng = np.random.default_rng(3)
    assert ad.ut_datetime().year == 2006
    years = 10.0
    motions = rng.normal(0, 60, (2, 24))
    gaia = Table(
        {
            "Source": np.arange(24),
            "RA_ICRS": catalogue["RA"] + motions[0] * years / 3.6e6 / np.cos(np.deg2rad(catalogue["DEC"])),
            "DE_ICRS": catalogue["DEC"] + motions[1] * years / 3.6e6,
            "Gmag": catalogue["hmag"] + rng.normal(1.5, 0.5, 24),
            "pmRA": motions[0],
            "pmDE": motions[1],
        }
    )
    # A third of the entries is not where the stars are.
    gaia["DE_ICRS"][::3] += rng.choice([-1, 1], 8) * rng.uniform(1.5, 4.0, 8) / 3600
    with serving(Answers(votable(gaia))) as server:
        b = make.bench([ad])
        b.p.addReferenceCatalog(source="Gaia", server=server.address)
        b.p.determineAstrometricSolution()
    assert ad.history[-1].status == "DONE", ad.history[-1].reason
    assert distance(ad, true) < 0.05
    hdr = ad[0].hdr
    assert hdr["ASTCAT"] == "gaia3"
    assert hdr["ASTEPOCH"] == pytest.approx(2006.0, abs=0.01)
    assert hdr["ASTNUM"] == 16
    assert hdr["ASTRMS"] < 0.06


def test_motions_without_an_epoch_are_said_not_to_count(caplog):
    ad, catalogue, _ = scene()
    catalogue["pmra"] = catalogue["pmdec"] = 5.0
    solved(ad, catalogue)
    assert "proper motions are not applied" in caplog.text


def test_a_catalogue_that_is_not_required_may_be_out_of_reach(caplog):
    ad, _, _ = scene(3)
    with serving(Answers(b"busy", 503)) as server:
        make.bench([ad]).p.addReferenceCatalog(source="2mass", server=server.address, required=False)
    assert ad.history[-1].status == "SKIPPED"
    assert "503" in ad.history[-1].reason
    assert "503" in caplog.text


def stub(monkeypatch, answer):
    """Install a stand-in of astroquery's Vizier that notes how it was asked."""
    asked = {}

    class Vizier:
        def __init__(self, **options):
            asked.update(options)

        def query_region(self, where, **options):
            asked.update(options, where=where)
            if isinstance(answer, Exception):
                raise answer
            return answer

    module = types.ModuleType("astroquery.vizier")
    module.Vizier = Vizier
    monkeypatch.setitem(sys.modules, "astroquery", types.ModuleType("astroquery"))
    monkeypatch.setitem(sys.modules, "astroquery.vizier", module)
    return asked


def test_astroquery_asks_for_the_same_columns(monkeypatch):
    asked = stub(monkeypatch, [as_2mass(scene(3)[1])])
    found = cone_search("2mass", 30.0, 20.0, 0.02, client="astroquery")
    assert len(found) == 3
    assert found.meta["SYSTEM"] == "2MASS"
    assert asked["catalog"] == "II/246/out"
    assert asked["vizier_server"] == "vizier.cds.unistra.fr"
    assert {"Qflg", "Cflg", "e_Hmag"} <= set(asked["columns"])
    assert asked["radius"].to_value("deg") == pytest.approx(0.02)


def test_astroquery_without_an_answer(monkeypatch):
    stub(monkeypatch, [])
    assert len(cone_search("2mass", 30.0, 20.0, 0.02, client="astroquery")) == 0
    stub(monkeypatch, ConnectionError("no route"))
    with pytest.raises(InputError, match="no route"):
        cone_search("2mass", 30.0, 20.0, 0.02, client="astroquery")


def test_without_astroquery_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "astroquery.vizier", None)
    with pytest.raises(InputError, match=r"niripipe\[query\]"):
        cone_search("gaia3", 30.0, 20.0, 0.02, client="astroquery")


@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_a_third_of_outliers_and_sentinels_do_not_decide(offset):
    rng = np.random.default_rng(8)
    n = 30
    ad, _, _ = scene(3)
    theirs = rng.uniform(13, 17, n)
    ours = theirs - offset + rng.normal(0, 0.03, n)
    # A third is variable or blended; others have no magnitude, no error, or a flag.
    theirs[:9] += rng.uniform(0.3, 2.0, 9)
    errors, flags = np.full(n, 0.02), np.zeros(n, int)
    theirs[9:14] = [99.999, -99.0, -999.0, np.nan, -9.999995e8]
    errors[14:16] = [0.0, -999.0]
    flags[16], ours[16] = 1, ours[16] + 5
    ad[0].OBJCAT = Table(
        {
            "MAG_APER_6": ours,
            "MAGERR_APER_6": np.full(n, 0.02),
            "REF_NUMBER": np.arange(1, n + 1),
            "REF_MAG": theirs,
            "REF_MAG_ERR": errors,
            "FLAGS": flags,
        }
    )
    for name, value in {"ZP": 26.0, "ZPIMAGE": 26.0, "ZPMAGERR": 0.01, "ZPSYSTEM": "Vega"}.items():
        ad.phu.set(name, value)
    make.bench([ad]).p.checkZeroPoint()
    assert ad.phu["ZPFLDDIF"] == pytest.approx(offset, abs=0.03)
    assert ad.phu["ZPFLDNUM"] <= n - 17
    assert ("is wrong" in ad.history[-1].reason) == (offset > 0)
