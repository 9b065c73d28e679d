from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from niripipe import astrodata, errors
from niripipe.astrodata import AstroData
from niripipe.errors import InputError

from .conftest import SHAPE, WCS_CARDS

Make = Callable[..., AstroData]


def test_slices_share_everything_with_their_parent(make_ad: Make) -> None:
    ad = make_ad(n=3)
    ad[1].data = np.full(SHAPE, 7.0)
    ad[1].hdr["KEY"] = 5
    ad[1].OBJMASK = np.ones(SHAPE, np.uint8)
    assert float(ad.data[1][0, 0]) == 7
    assert ad.hdr.get("KEY") == [None, 5, None]
    assert ad[1].phu is ad.phu
    assert "OBJMASK" in ad[1].exposed
    assert "OBJMASK" not in ad[0].exposed
    assert (ad[1].id, ad[-1].id) == (2, 3)


def test_per_extension_attributes_follow_the_list_rule(make_ad: Make) -> None:
    ad = make_ad(n=2)
    assert ad.shape == [SHAPE, SHAPE]
    assert ad[0].shape == SHAPE
    assert isinstance(ad[0:1].data, list)
    assert ad.wcs == [None, None]
    assert astrodata.create({}).hdr is None


def test_indices_compose_and_impossible_ones_are_refused(make_ad: Make) -> None:
    ad = make_ad(n=4)
    part = ad[1:4]
    assert part.indices == [1, 2, 3]
    assert part[0, 2].indices == [1, 3]
    assert part[-1].id == 4
    assert [ext.id for ext in part] == [2, 3, 4]
    assert [ext.id for ext in ad[2]] == [3]
    for index in (4, -5):
        with pytest.raises(IndexError):
            ad[index]
    with pytest.raises(TypeError):
        ad[0][0]
    for index in ("0", 1.0, True, None):
        with pytest.raises(ValueError, match="index"):
            ad[index]  # type: ignore[index]
    with pytest.raises(ValueError, match="single"):
        _ = ad.id


def test_extensions_can_be_removed_from_the_whole_only(make_ad: Make) -> None:
    ad = make_ad(n=3)
    with pytest.raises(TypeError):
        del ad[0:2][0]
    del ad[0]
    assert len(ad) == 2


def test_names_cannot_be_set_on_slices_where_they_would_be_lost(make_ad: Make) -> None:
    ad = make_ad()
    for name in ("path", "filename", "orig_filename", "varaince"):
        with pytest.raises(AttributeError):
            setattr(ad[0], name, "x")
    with pytest.raises(ValueError, match="relative"):
        ad.filename = "/abs.fits"


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, AstroData.copy])
def test_copies_share_pixels_until_one_of_them_writes(make_ad: Make, copier: Any) -> None:
    ad = make_ad()
    ad[0].hdr.update(WCS_CARDS)
    ad[0].OBJCAT = Table({"x": [1]})
    twin = copier(ad)
    assert np.shares_memory(twin[0].read("data"), ad[0].read("data"))
    twin[0].data[0, 0] = -1
    twin[0].mask[0, 0] = 64
    twin[0].OBJCAT["x"][0] = 2
    twin[0].wcs.wcs.crval = [0, 0]
    twin.phu["OBJECT"] = "y"
    twin[0].hdr["NEW"] = 1
    assert ad[0].data[0, 0] == 6
    assert ad[0].mask[0, 0] == 1
    assert ad[0].OBJCAT["x"][0] == 1
    assert ad[0].wcs.wcs.crval[0] == 150
    assert ad.phu["OBJECT"] == "x"
    assert "NEW" not in ad[0].hdr


def test_an_array_handed_out_before_the_copy_belongs_to_the_original_alone(make_ad: Make) -> None:
    ad = make_ad()
    data = ad[0].data
    twin = ad.copy()
    data[0, 0] = -1
    assert ad[0].data[0, 0] == -1
    assert twin[0].data[0, 0] == 6
    ad.add(1)
    assert ad[0].data is data


def test_the_copy_of_a_slice_is_a_whole_data_set(make_ad: Make) -> None:
    twin = make_ad(n=3)[1].copy()
    assert len(twin) == 1
    assert not twin.is_sliced


def test_reading_gives_a_view_that_cannot_be_written_to(make_ad: Make) -> None:
    ad = make_ad(variance=None)
    view = ad[0].read("data")
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    assert ad[0].read("variance") is None
    assert ad[0].read("OBJMASK") is None


def test_planes_are_taken_over_without_a_copy_when_their_type_fits(make_ad: Make) -> None:
    ext = make_ad()[0]
    data, mask = np.ones(SHAPE, np.float32), np.ones(SHAPE, np.uint16)
    ext.data, ext.mask = data, mask
    assert ext.data is data
    assert ext.mask is mask
    ext.data = np.ones(SHAPE, np.float64)
    ext.mask = np.ones(SHAPE, bool)
    assert ext.data.dtype == np.float32
    assert ext.mask.dtype == np.uint16


def test_in_place_numpy_arithmetic_on_an_attribute_works(make_ad: Make) -> None:
    ext = make_ad()[0]
    ext.data += 1
    ext.mask |= np.uint16(8)
    assert ext.data[0, 0] == 7
    assert ext.mask[0, 0] == 9


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("data", None),
        ("data", np.ones((3, 3))),
        ("data", np.ones(5)),
        ("data", np.ones(SHAPE, complex)),
        ("data", "text"),
        ("data", [[1, 2], [3]]),
        ("variance", np.ones((3, 3))),
        ("mask", np.full(SHAPE, -1)),
        ("mask", np.full(SHAPE, 70000)),
        ("mask", np.full(SHAPE, 1.0)),
        ("wcs", "text"),
    ],
)
def test_unusable_planes_are_refused_and_change_nothing(make_ad: Make, name: str, array: Any) -> None:
    ad = make_ad()
    with pytest.raises(InputError):
        setattr(ad[0], name, array)
    with pytest.raises(ValueError, match="single"):
        setattr(ad, name, array)
    assert (ad[0].data[0, 0], ad[0].variance[0, 0], ad[0].mask[0, 0]) == (6, 2, 1)


def test_negative_variances_become_zero(make_ad: Make, caplog: pytest.LogCaptureFixture) -> None:
    ext = make_ad()[0]
    variance = np.ones(SHAPE, np.float32)
    variance[0, :3] = -1, np.nan, 5
    ext.variance = variance
    assert ext.variance[0, 0] == 0
    assert np.isnan(ext.variance[0, 1])
    assert ext.variance[0, 2] == 5
    assert "1 negative" in caplog.text


def test_reset_replaces_all_planes_or_none(make_ad: Make) -> None:
    ad = make_ad()
    with pytest.raises(InputError, match="shape"):
        ad[0].reset(np.zeros(SHAPE), mask=np.zeros((3, 3), np.uint16))
    assert (ad[0].data[0, 0], ad[0].mask[0, 0]) == (6, 1)
    ad[0].reset(np.zeros((3, 3)), variance=np.ones((3, 3)))
    assert ad[0].shape == (3, 3)
    assert ad[0].mask is None
    other = make_ad(5, 4, 2)
    ad[0].reset(other[0], mask=None)
    assert (ad[0].data[0, 0], ad[0].variance[0, 0], ad[0].mask) == (5, 4, None)
    assert other[0].mask[0, 0] == 2
    with pytest.raises(ValueError, match="single"):
        ad.reset(np.zeros((3, 3)))


def test_operate_applies_a_function_to_all_planes(make_ad: Make) -> None:
    ad = make_ad()
    ad.operate(np.transpose)
    assert ad[0].shape == SHAPE[::-1]
    assert ad[0].mask.shape == SHAPE[::-1]


def test_a_crop_takes_wcs_extras_and_structure_along(make_ad: Make) -> None:
    ad = make_ad()
    ext = ad[0]
    ext.hdr.update(WCS_CARDS | {"NAXIS1": 10, "NAXIS2": 12})
    ext.data = np.arange(120.0).reshape(SHAPE)
    ext.OBJMASK = np.ones(SHAPE, np.uint8)
    ext.PROFILE = np.ones(4)
    before = ext.wcs.pixel_to_world_values(5, 6)
    ad.crop(2, 3, 8, 10)
    assert ext.shape == ext.OBJMASK.shape == ext.mask.shape == (8, 7)
    assert ext.PROFILE.shape == (4,)
    assert ext.data[0, 0] == 32
    assert np.allclose(ext.wcs.pixel_to_world_values(3, 3), before, atol=1e-12)
    assert (ext.hdr["NAXIS1"], ext.hdr["NAXIS2"], ext.hdr["CRPIX1"]) == (7, 8, 3.5)


def test_a_crop_outside_the_image_changes_nothing(make_ad: Make) -> None:
    ad = make_ad()
    for limits in ((0, 0, 10, 5), (-1, 0, 5, 5), (5, 5, 4, 8)):
        with pytest.raises(InputError):
            ad.crop(*limits)
    assert ad[0].shape == SHAPE


def test_extras_are_arrays_or_tables_with_upper_case_names(make_ad: Make) -> None:
    ad = make_ad(n=2)
    ad[0].OBJCAT = Table({"x": [1]})
    ad.REFCAT = Table({"y": [2]})
    assert ad[0].ext_tables == {"OBJCAT"}
    assert ad.tables == {"REFCAT"}
    assert ad[1].REFCAT["y"][0] == 2
    assert set(ad.table()) == {"REFCAT"}
    for bad in (5, "text", [1, 2], np.array(["a"]), np.array([object()])):
        with pytest.raises(InputError):
            ad[0].THING = bad
    for name in ("DQ", "VAR", "SCI", "REFCAT"):
        with pytest.raises(InputError):
            setattr(ad[0], name, np.ones(SHAPE))
    with pytest.raises(InputError, match="belong to an extension"):
        ad.OBJMASK = np.ones(SHAPE)
    with pytest.raises(InputError, match="extension has"):
        ad.OBJCAT = Table({"x": [1]})
    with pytest.raises(InputError, match="whole data set"):
        ad[0:1].NEW = Table({"x": [1]})
    del ad[0].OBJCAT
    del ad.REFCAT
    for target in (ad, ad[0]):
        for name in ("OBJCAT", "REFCAT"):
            with pytest.raises(AttributeError):
                getattr(target, name)
            with pytest.raises(AttributeError):
                delattr(target, name)


def test_append_accepts_arrays_hdus_and_slices(make_ad: Make) -> None:
    ad = make_ad()
    ad.append(np.ones(SHAPE), name="sci", header={"GAIN": 2})
    ad.append(fits.ImageHDU(np.full(SHAPE, 3, np.int16), name="SCI", ver=7))
    source = make_ad(9)
    ad.append(source[0])
    assert [float(d[0, 0]) for d in ad.data] == [6, 1, 3, 9]
    assert ad[1].hdr["GAIN"] == 2
    assert "EXTVER" not in ad[2].hdr
    assert ad[3].mask[0, 0] == 1
    ad[3].data[0, 0] = 0
    assert source[0].data[0, 0] == 9
    for bad in (fits.PrimaryHDU(np.ones(SHAPE)), fits.ImageHDU(np.ones(SHAPE), name="DQ"), source, "x", 5):
        with pytest.raises(InputError):
            ad.append(bad)
    with pytest.raises(InputError, match="science"):
        ad.append(np.ones(SHAPE), name="DQ")
    with pytest.raises(TypeError):
        ad[0].append(np.ones(SHAPE))


def test_create_takes_headers_hdus_and_cards_and_copies_them() -> None:
    header = fits.Header([("OBJECT", "x")])
    ad = astrodata.create(header, [fits.ImageHDU(np.ones(SHAPE, np.int32)), np.zeros(SHAPE)])
    ad.phu["OBJECT"] = "y"
    assert header["OBJECT"] == "x"
    assert [float(d[0, 0]) for d in ad.data] == [1, 0]
    assert astrodata.create(fits.PrimaryHDU(header=header)).object() == "x"
    assert astrodata.create([("OBJECT", "z", "comment")]).object() == "z"
    assert astrodata.create({}).object() is None
    with pytest.raises(errors.DataError):
        astrodata.create({"OBJECT": object()})


def test_planes_move_to_disk_and_come_back(make_ad: Make, tmp_path: Any) -> None:
    ad = make_ad()
    ad[0].data = np.arange(120.0).reshape(SHAPE)
    twin = ad.copy()
    assert ad.nbytes == 120 * (4 + 4 + 2)
    folder = astrodata.ScratchFolder(tmp_path)
    assert ad.move_to_disk(folder) == 120 * 10
    assert ad.nbytes == twin.nbytes == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert ad[0].shape == SHAPE
    assert ad[0].data[1, 1] == twin[0].data[1, 1] == 11
    ad.add(1)
    assert (ad[0].data[1, 1], ad[0].variance[0, 0], ad[0].mask[0, 0]) == (12, 2, 1)
    assert twin[0].data[1, 1] == 11
    del ad, twin
    assert sorted(file for files in folder.free.values() for file in files) == sorted(tmp_path.iterdir())


def test_moving_into_a_folder_that_is_not_there_keeps_the_pixels(make_ad: Make, tmp_path: Any) -> None:
    ad = make_ad()
    with pytest.raises(errors.StorageError, match="scratch"):
        ad.move_to_disk(astrodata.ScratchFolder(tmp_path / "missing"))
    assert ad[0].data[0, 0] == 6


def test_a_data_set_survives_pickling(make_ad: Make) -> None:
    ad = make_ad(n=2)
    ad[0].hdr.update(WCS_CARDS)
    ad[0].OBJCAT = Table({"x": [1]})
    astrodata.add_history(ad, "prepare", {"a": 1})
    again = pickle.loads(pickle.dumps(ad))  # noqa: S301
    assert again[1].data[0, 0] == 6
    assert again[0].OBJCAT["x"][0] == 1
    assert again[0].wcs is not None
    assert again.history == ad.history
    again[0].data[0, 0] = 0
    assert ad[0].data[0, 0] == 6


def test_info_and_repr_name_what_is_there(make_ad: Make) -> None:
    ad = make_ad()
    ad.path = "N1.fits"
    ad[0].OBJMASK = np.ones(SHAPE, np.uint8)
    ad[0].OBJCAT = Table({"x": [1]})
    ad.REFCAT = Table({"y": [2, 3]})
    astrodata.add_history(ad, "prepare")
    stream = io.StringIO()
    ad.info(stream)
    for word in ["N1.fits", "science", "variance", "mask", ".OBJMASK", "uint8", ".OBJCAT", "REFCAT"]:
        assert word in stream.getvalue()
    assert "(1, 1)" in stream.getvalue()
    assert "(2, 1)" in stream.getvalue()
    assert "N1.fits" in repr(ad)
    assert "extension 1" in repr(ad[0])


def test_the_notebook_view_has_a_picture_and_escapes_text(make_ad: Make) -> None:
    ad = make_ad()
    ad.path = "<b>.fits"
    view = ad._repr_html_()
    assert "data:image/png;base64," in view
    assert "&lt;b&gt;.fits" in view
    assert "<b>.fits" not in view
    assert astrodata.create({})._repr_html_()


def test_the_thumbnail_is_a_valid_png_with_the_image_right_way_up() -> None:
    import struct
    import zlib

    from niripipe.astrodata.display import as_png, thumbnail

    data = np.zeros((400, 300), np.float32)
    data[300:, :] = 1
    data[0, 0] = np.nan
    picture = thumbnail(data)
    assert max(picture.shape) <= 160
    assert picture[0, 0] == 255
    assert picture[-1, -1] == 0
    png = as_png(picture)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    length, kind = struct.unpack(">I4s", png[33:41])
    rows = zlib.decompress(png[41 : 41 + length])
    assert kind == b"IDAT"
    assert len(rows) == picture.shape[0] * (picture.shape[1] + 1)
    assert thumbnail(np.full((5, 5), np.nan)).max() == 0


def test_ccddata_goes_both_ways(make_ad: Make) -> None:
    ad = make_ad()
    ad[0].hdr.update(WCS_CARDS | {"BUNIT": "electron"})
    ccd = ad[0].to_ccddata()
    assert str(ccd.unit) == "electron"
    assert ccd.uncertainty.array[0, 0] == 2
    assert ccd.mask.all()
    assert ccd.wcs.wcs.crval[0] == 150
    assert ccd.meta["OBJECT"] == "x"
    ccd.data[0, 0] = 0
    back = astrodata.from_ccddata(ccd)
    assert (ad[0].data[0, 0], back.data[1, 1], back.variance[0, 0], back.mask[0, 0]) == (6, 6, 2, 1)
    assert back.hdr["BUNIT"] == "electron"
    assert isinstance(ad.to_ccddata(), list)
    ad.append(ccd)
    assert len(ad) == 2


def test_planes_handed_back_are_not_copied(make_ad: Make) -> None:
    ext = make_ad()[0]
    mask = ext.read("mask")
    ext.reset(np.zeros(SHAPE, np.float32), mask=mask, variance=ext.read("variance"))
    assert np.shares_memory(ext.read("mask"), mask)
    assert (ext.read("variance") == 2).all()
    part = ext.read("mask")[::-1]
    ext.reset(np.zeros(SHAPE, np.float32), mask=part, variance=None)
    assert not np.shares_memory(ext.read("mask"), part)


def test_completion_offers_what_users_need(make_ad: Make) -> None:
    ad = make_ad()
    ad[0].OBJCAT = Table({"x": [1]})
    names = dir(ad[0])
    assert {"data", "variance", "mask", "hdr", "wcs", "OBJCAT", "write", "read", "plane"} <= set(names)
    assert not [name for name in names if name.startswith("_")]
    assert not {"move_to_disk", "extensions", "sky_mapping"} & set(names)


def test_a_created_data_set_takes_the_wcs_of_the_primary_header_where_the_extension_has_none() -> None:
    primary = fits.Header({"OBJECT": "x", **WCS_CARDS})
    ad = astrodata.create(primary, [fits.ImageHDU(np.zeros(SHAPE, np.float32))])
    assert ad[0].wcs_origin == "primary"
    assert ad[0].wcs is not None
