from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.astrodata.fits_write import as_hdulist
from niripipe.astrodata.wcs import shifted
from niripipe.errors import DataError, InputError, StorageError

from .conftest import SHAPE, WCS_CARDS, image

Make = Callable[..., AstroData]


def _full(make_ad: Make) -> AstroData:
    ad = make_ad()
    ext = ad[0]
    ext.data = image() - 3.5
    ext.mask = image(np.uint16) + 40000
    ext.hdr.update(WCS_CARDS | {"BUNIT": "electron", "NAXIS1": 99, "BITPIX": 16, "BZERO": 5.0})
    ext.OBJMASK = image(np.uint8) % 2
    ext.COUNTS = np.full((3, 4), 40000, np.uint16)
    ext.FLAGS = np.array([[True, False]])
    ext.OBJCAT = Table({"X": [1.5, 2.5], "NAME": ["a", "bc"]}, meta={"SEEING": 0.6, "long name here": 1})
    ad.REFCAT = Table({"RA": [1.0]})
    astrodata.add_history(ad, "prepare", {"suffix": "_x"}, status="DONE", software="niripipe")
    astrodata.add_provenance(ad, "n" * 300, "0" * 32, "prepare")
    return ad


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.bz2"])
def test_everything_survives_writing_and_reading(make_ad: Make, tmp_path: Path, name: str) -> None:
    ad = _full(make_ad)
    ad.write(tmp_path / name)
    again = astrodata.open(tmp_path / name)
    old, new = ad[0], again[0]
    for plane in ("data", "variance", "mask", "OBJMASK", "COUNTS"):
        assert np.array_equal(old.read(plane), new.read(plane)), plane
        assert old.read(plane).dtype == new.read(plane).dtype
    assert new.FLAGS.tolist() == [[1, 0]]
    assert list(new.OBJCAT["NAME"]) == ["a", "bc"]
    assert new.OBJCAT.meta["SEEING"] == 0.6
    assert (again.history, again.provenance) == (ad.history, ad.provenance)
    assert again.REFCAT["RA"][0] == 1
    assert np.allclose(new.wcs.wcs.crpix, old.wcs.wcs.crpix)
    assert (new.hdr["NAXIS1"], new.hdr["BITPIX"]) == (SHAPE[1], -32)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_layout_is_that_of_dragons_and_checksums_are_right(make_ad: Make, tmp_path: Path) -> None:
    _full(make_ad).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", checksum=True) as hdus:
        hdus.verify("exception")
        names = [(hdu.name, hdu.header.get("EXTVER")) for hdu in hdus]
        assert names == [
            ("PRIMARY", None),
            *((name, 1) for name in ("SCI", "VAR", "DQ", "OBJMASK", "COUNTS", "FLAGS", "OBJCAT")),
            *((name, None) for name in ("HISTORY", "PROVENANCE", "REFCAT")),
        ]
        for hdu in hdus:
            assert hdu.verify_checksum() == hdu.verify_datasum() == 1
            assert [card.keyword for card in hdu.header.cards].count("EXTNAME") <= 1
        assert hdus[0].header["NEXTEND"] == 10
        assert "BZERO" not in hdus["SCI"].header
        assert (hdus["SCI"].header["BUNIT"], hdus["VAR"].header["BUNIT"]) == ("electron", "electron2")
        assert "BUNIT" not in hdus["DQ"].header
        assert hdus["DQ"].data.dtype == np.uint16
        assert hdus["VAR"].header["CRPIX1"] == hdus["DQ"].header["CRPIX1"] == 5.5
        assert hdus["HISTORY"].columns.names[:4] == ["primitive", "args", "timestamp_start", "timestamp_stop"]
    with fits.open(tmp_path / "a.fits", do_not_scale_image_data=True) as hdus:
        assert hdus["DQ"].header["BZERO"] == 32768
        assert hdus["DQ"].data.dtype == ">i2"


def test_wcs_cards_stay_as_they_are_until_the_wcs_changes(raw_file: Path, tmp_path: Path) -> None:
    text = raw_file.read_bytes()
    card = text[text.rindex(b"CRPIX1") :][:80]
    raw_file.write_bytes(text.replace(card, b"CRPIX1  =               5.50000 / as it was".ljust(80)))
    ad = astrodata.open(raw_file)
    _ = ad[0].wcs
    ad.write(tmp_path / "same.fits")
    assert b"CRPIX1  =               5.50000 / as it was" in (tmp_path / "same.fits").read_bytes()
    ad[0].wcs.wcs.crpix = [7.5, 6.5]
    ad.write(tmp_path / "in_place.fits")
    ad[0].wcs = shifted(ad[0].wcs, 1, 0)
    ad.write(tmp_path / "set.fits")
    ad[0].wcs = None
    ad.write(tmp_path / "none.fits")
    assert astrodata.open(tmp_path / "in_place.fits")[0].hdr["CRPIX1"] == 7.5
    assert astrodata.open(tmp_path / "set.fits")[0].hdr["CRPIX1"] == 6.5
    assert "CRPIX1" not in astrodata.open(tmp_path / "none.fits")[0].hdr
    # The header in memory follows as well; a WCS that was removed leaves it when it is written.
    assert ad[0].hdr["CRPIX1"] == 6.5


def test_plane_headers_are_kept(product_file: Path, tmp_path: Path) -> None:
    ad = astrodata.open(product_file)
    ad[0].extensions[0].plane_header("mask")["MYKEY"] = 3
    ad[0].extensions[0].plane_header("OBJMASK")["MYKEY"] = 4
    ad.copy().write(tmp_path / "a.fits")
    again = astrodata.open(tmp_path / "a.fits")[0]
    assert again.extensions[0].plane_header("mask")["MYKEY"] == 3
    assert again.extensions[0].plane_header("OBJMASK")["MYKEY"] == 4
    assert "MYKEY" not in again.extensions[0].plane_header("variance")
    with pytest.raises(AttributeError):
        again.extensions[0].plane_header("OTHER")


def test_extension_numbers_are_kept_in_copies_and_new_ones_follow(make_ad: Make, tmp_path: Path) -> None:
    make_ad(n=3).write(tmp_path / "a.fits")
    ad = astrodata.open(tmp_path / "a.fits")
    del ad[1]
    ad.append(np.ones(SHAPE))
    ad.copy().write(tmp_path / "b.fits")
    assert astrodata.open(tmp_path / "b.fits").hdr["EXTVER"] == [1, 3, 4]


def test_real_raw_headers_are_written_without_warnings(shared: Path, tmp_path: Path) -> None:
    for path in sorted((shared / "headers").glob("*.hdu0.hdr")):
        ad = astrodata.create(fits.Header.fromtextfile(path))
        ad.append(np.ones(SHAPE), header=fits.Header.fromtextfile(str(path).replace("hdu0", "hdu1")))
        ad.write(tmp_path / f"{path.name}.fits")
        again = astrodata.open(tmp_path / f"{path.name}.fits")
        frames = ad.phu.count("FRAME")
        assert again.phu.count("FRAME") == frames
        assert [again.phu[("FRAME", i)] for i in range(frames)] == [
            ad.phu[("FRAME", i)] for i in range(frames)
        ]
        assert again.phu["A_VDET"] == ad.phu["A_VDET"]


def test_existing_files_are_replaced_on_request_only(make_ad: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    make_ad(1).write(path)
    with pytest.raises(StorageError, match="exists"):
        make_ad(2).write(path)
    make_ad(3).write(path, overwrite=True)
    assert astrodata.open(path)[0].data[0, 0] == 3


def test_the_raw_file_is_never_replaced_without_being_named(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    before = raw_file.read_bytes()
    with pytest.raises(StorageError):
        ad.write()
    with pytest.raises(StorageError, match="original file"):
        ad.write(overwrite=True)
    assert raw_file.read_bytes() == before
    ad.update_filename(suffix="_x")
    ad.write()
    assert (raw_file.parent / "N1_x.fits").exists()
    product = astrodata.open(raw_file.parent / "N1_x.fits")
    product.phu["NEW"] = 1
    product.write(overwrite=True)
    ad.write(raw_file, overwrite=True)
    with pytest.raises(InputError, match="name"):
        astrodata.create({}).write()


def test_a_file_can_be_written_over_the_one_its_pixels_are_still_in(product_file: Path) -> None:
    ad = astrodata.open(product_file)
    ad.write(product_file, overwrite=True)
    assert np.array_equal(ad[0].mask, image(np.uint16))
    assert np.array_equal(astrodata.open(product_file)[0].data, image())


@pytest.mark.parametrize("step", ["write", "fsync", "replace", "interrupt"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_write_leaves_what_was_there(
    make_ad: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: bool
) -> None:
    path = tmp_path / "a.fits"
    if existing:
        make_ad(1).write(path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*args: Any, **kwargs: Any) -> None:
        if step == "interrupt":
            raise KeyboardInterrupt
        raise OSError(errno.ENOSPC, "No space left on device")

    target = {"fsync": "os.fsync", "replace": "os.replace"}.get(
        step, "niripipe.astrodata.fits_write._write_hdus"
    )
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(KeyboardInterrupt if step == "interrupt" else StorageError) as caught:
            make_ad(2).write(path, overwrite=True)
    if step != "interrupt":
        assert "No space left" in str(caught.value)
        assert caught.value.file == str(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_is_missing_is_a_storage_error(make_ad: Make, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="folder exists"):
        make_ad().write(tmp_path / "missing" / "a.fits")


def test_unreadable_pixels_leave_the_old_product(raw_file: Path, make_ad: Make, tmp_path: Path) -> None:
    path = tmp_path / "product.fits"
    make_ad(1).write(path)
    ad = astrodata.open(raw_file)
    os.utime(raw_file, ns=(1, 1))
    with pytest.raises(DataError, match="changed"):
        ad.write(path, overwrite=True)
    assert astrodata.open(path)[0].data[0, 0] == 1
    assert len(list(tmp_path.glob(".*"))) == 0


def test_the_hdu_list_is_what_would_be_written(make_ad: Make) -> None:
    hdus = as_hdulist(_full(make_ad))
    assert hdus["DQ"].data[0, 0] == 40000
    assert np.array_equal(astrodata.open(hdus)[0].data, image() - 3.5)
    hdus.close()
