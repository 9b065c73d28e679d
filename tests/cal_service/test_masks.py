"""Bad pixel masks of several origins, and masks that users register."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata, cal_service
from niripipe.cal_service import MaskOrigin, mask_origin, masks_to_unite, register_bpm
from niripipe.errors import InputError


def test_the_best_of_each_origin_is_used_and_all_that_were_registered():
    made, archive, own, other = MaskOrigin.MADE, MaskOrigin.ARCHIVE, MaskOrigin.REGISTERED, MaskOrigin.OTHER
    masks = [("m1", made), ("a1", archive), ("m2", made), ("r1", own), ("o1", other), ("r2", own)]
    masks += [("a2", archive), ("o2", other)]
    assert masks_to_unite(masks) == ["m1", "a1", "r1", "o1", "r2"]
    assert masks_to_unite([]) == []


def test_the_origin_is_in_header_or_name(make, make_static_mask):
    assert mask_origin(astrodata.open(make_static_mask())) is MaskOrigin.ARCHIVE
    assert mask_origin(astrodata.open(make_static_mask("mine.fits"))) is MaskOrigin.MADE
    assert mask_origin(astrodata.open(make("a_bpm.fits", "bpm"))) is MaskOrigin.MADE
    other = astrodata.open(make("b_bpm.fits", "bpm", PROCBPM=None, OBSTYPE="BPM"))
    assert mask_origin(other) is MaskOrigin.OTHER


@pytest.fixture
def full(tmp_path, make):
    """A frame of the whole detector."""
    path = make("N20160102S0001.fits")
    with fits.open(path) as hdus:
        phu = hdus[0].header
        window = fits.Header({"LOWROW": 0, "HIROW": 1023, "LOWCOL": 0, "HICOL": 1023})
        image = fits.ImageHDU(np.zeros((1024, 1024), np.float32), window)
        fits.HDUList([fits.PrimaryHDU(header=phu), image]).writeto(tmp_path / "N20160102S0002.fits")
    return tmp_path / "N20160102S0002.fits"


@pytest.mark.parametrize("form", ["bool", "int", "float", "file"])
def test_any_array_or_file_becomes_a_registered_mask(form, full, make, tmp_path, caldb):
    caldb.init()
    bad = np.zeros((1024, 1024), bool)
    bad[500, 700] = bad[511, 511] = True
    expected = bad.astype(int)
    given = bad
    if form == "int":
        given = bad.astype(np.int32) * 4
        expected = expected * 4
    elif form == "float":
        given = np.where(bad, np.nan, 0.0)
    elif form == "file":
        given = tmp_path / "holes.fits"
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(bad.astype(np.uint8))]).writeto(given)
    path = register_bpm(given, tmp_path / "my_bpm.fits", like=full, service=caldb)
    assert cal_service.mask_origin(astrodata.open(path)) is MaskOrigin.REGISTERED
    np.testing.assert_array_equal(astrodata.open(path)[0].data, expected)
    # The whole detector serves windows as well.
    assert caldb.get_processed_bpm([full, make("N3.fits")]).files == [path, path]


def test_the_date_from_which_a_mask_is_valid_can_be_told(full, make, tmp_path, caldb):
    caldb.init()
    bad = np.zeros((1024, 1024), bool)
    early = make("N3.fits", DATE_OBS="2012-12-01")
    register_bpm(bad, tmp_path / "a_bpm.fits", like=full, service=caldb)
    assert caldb.get_processed_bpm(early).files == [None]
    older = register_bpm(bad, tmp_path / "b_bpm.fits", like=full, valid_from="2010-01-01", service=caldb)
    assert caldb.get_processed_bpm(early).files == [older]


def test_a_mask_of_neither_the_frame_nor_the_detector_is_refused(full, tmp_path):
    with pytest.raises(InputError, match="covers neither"):
        register_bpm(np.zeros((100, 100)), tmp_path / "x.fits", like=full)
    with pytest.raises(InputError, match="two axes"):
        register_bpm(np.zeros(100), tmp_path / "x.fits", like=full)
    with pytest.raises(InputError, match="two axes in the file"):
        register_bpm(_empty(tmp_path), tmp_path / "x.fits", like=full)
    assert not (tmp_path / "x.fits").exists()


def _empty(folder):
    fits.PrimaryHDU().writeto(folder / "empty.fits")
    return folder / "empty.fits"


def test_without_a_service_the_mask_is_only_written(full, tmp_path):
    path = register_bpm(np.zeros((1024, 1024)), tmp_path / "x_bpm.fits", like=astrodata.open(full))
    assert astrodata.open(path).tags >= {"BPM", "PROCESSED"}
