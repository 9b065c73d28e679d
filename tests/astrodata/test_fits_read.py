from __future__ import annotations

import bz2
import gzip
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.astrodata import MissingFileError, fits_source
from niripipe.errors import DataError, InputError, StorageError

from .conftest import SHAPE, WCS_CARDS, image, product_hdus, raw_hdus


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int16, np.uint16, np.uint8, np.int64])
def test_raw_frames_of_any_pixel_type_become_float32(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "N1.fits"
    raw_hdus(dtype).writeto(path)
    ad = astrodata.open(path)
    assert (ad[0].hdr["EXTNAME"], ad[0].hdr["EXTVER"], ad[0].hdr["BITPIX"]) == ("SCI", 1, -32)
    assert ad[0].data.dtype == np.float32
    assert ad[0].data.dtype.isnative
    assert np.array_equal(ad[0].data, image(dtype))
    assert ad.phu["ORIGNAME"] == "N1.fits"
    assert ad.phu["FRAME"] == "APPT"


def test_scaling_and_blanks_are_applied_to_integers(tmp_path: Path) -> None:
    hdu = fits.ImageHDU(np.array([[0, 1], [2, -99]], np.int16))
    hdu.header["BLANK"] = -99
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[1].header["BSCALE"] = 2.5
        hdus[1].header["BZERO"] = 10.0
    data = astrodata.open(tmp_path / "a.fits")[0].data
    assert np.array_equal(data, [[10, 12.5], [15, np.nan]], equal_nan=True)


def test_only_headers_are_read_before_pixels_are_touched(
    product_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    original = fits_source.FitsSource.pixels

    def counted(self: Any, record: Any, rows: Any = None) -> Any:
        read.append(record.name)
        return original(self, record, rows)

    monkeypatch.setattr(fits_source.FitsSource, "pixels", counted)
    before = open_files()
    ad = astrodata.open(product_file)
    twin = ad.copy()
    assert ad[0].shape == SHAPE
    assert ad.tags == set()
    assert (read, ad.nbytes) == ([], 0)
    for _ in range(2):
        _ = ad[0].data, twin[0].read("data"), ad[0].OBJMASK
    assert read == ["SCI", "OBJMASK"]
    assert open_files() == before


@pytest.mark.parametrize("source", ["file", "hdus"])
def test_products_laid_out_like_those_of_dragons_open_completely(product_file: Path, source: str) -> None:
    ad = astrodata.open(product_file if source == "file" else product_hdus())
    ext = ad[0]
    assert len(ad) == 1
    assert np.array_equal(ext.data, image())
    assert np.array_equal(ext.variance, image() + 1)
    assert np.array_equal(ext.mask, image(np.uint16))
    assert ext.mask.dtype == np.uint16
    assert np.array_equal(ext.OBJMASK, image(np.uint8) % 2)
    assert ext.OBJMASK.dtype == np.uint8
    assert list(ext.OBJCAT["NAME"]) == ["a", "b"]
    assert str(ext.OBJCAT["X_IMAGE"].unit) == "pix"
    assert ext.exposed == {"OBJMASK", "OBJCAT", "REFCAT", "HISTORY"}
    assert ad.tables == {"REFCAT", "HISTORY"}
    assert ad.history[0].primitive == "prepare"
    assert ad.history[0].args == '{"suffix": "_x"}'
    assert list(ad.HISTORY["timestamp_stop"]) == ["2020-01-01T00:00:01"]
    assert ext.wcs_origin == "extension"
    assert ext.extensions[0].plane_header("mask")["BUNIT"] == "electron"


def test_unsigned_extras_keep_their_values(tmp_path: Path) -> None:
    hdus = product_hdus()
    hdus["OBJMASK"].data = np.full(SHAPE, 40000, np.uint16)
    hdus.append(fits.ImageHDU(np.full(SHAPE, 3_000_000_000, np.uint32), name="COUNTS", ver=1))
    hdus.append(fits.ImageHDU(np.full((2, 3, 4), -5, np.int16), name="CUBE", ver=1))
    hdus.writeto(tmp_path / "a.fits")
    ext = astrodata.open(tmp_path / "a.fits")[0]
    assert (ext.OBJMASK[0, 0], ext.OBJMASK.dtype) == (40000, np.uint16)
    assert (ext.COUNTS[0, 0], ext.COUNTS.dtype) == (3_000_000_000, np.uint32)
    assert (ext.CUBE[0, 0, 0], ext.CUBE.shape) == (-5, (2, 3, 4))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float32])
def test_masks_of_other_types_become_uint16(tmp_path: Path, dtype: Any) -> None:
    planes = [fits.ImageHDU(image(), name="SCI", ver=1), fits.ImageHDU(image(dtype), name="DQ", ver=1)]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "a.fits")
    mask = astrodata.open(tmp_path / "a.fits")[0].mask
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, image(np.uint16))


@pytest.mark.parametrize("value", [-1, 70000, 0.5])
def test_masks_that_hold_no_bits_are_refused(tmp_path: Path, value: float) -> None:
    bad = np.full(SHAPE, value, np.float32 if value == 0.5 else np.int32)
    planes = [fits.ImageHDU(image(), name="SCI", ver=1), fits.ImageHDU(bad, name="DQ", ver=1)]
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "a.fits")
    ad = astrodata.open(tmp_path / "a.fits")
    with pytest.raises(DataError, match=r"a\.fits.*HDU 2"):
        _ = ad[0].mask


def test_planes_without_number_belong_to_the_only_science_plane(tmp_path: Path) -> None:
    hdus = [fits.ImageHDU(image(), name="SCI"), fits.ImageHDU(image(np.int16), name="DQ")]
    for hdu in hdus:
        hdu.header.remove("EXTVER", ignore_missing=True)
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    assert np.array_equal(astrodata.open(tmp_path / "a.fits")[0].mask, image(np.uint16))


def _multi(tmp_path: Path, *planes: tuple[str, int | None]) -> Path:
    hdus: list[Any] = [fits.PrimaryHDU()]
    for i, (name, version) in enumerate(planes):
        hdu = fits.ImageHDU(np.full(SHAPE, i, np.uint8), name=name)
        if version is not None:
            hdu.header["EXTVER"] = version
        hdus.append(hdu)
    path = tmp_path / "multi.fits"
    fits.HDUList(hdus).writeto(path)
    return path


def test_several_science_planes_get_their_own_planes(tmp_path: Path) -> None:
    ad = astrodata.open(_multi(tmp_path, ("SCI", 2), ("DQ", 3), ("SCI", 3), ("DQ", 2), ("SCI", None)))
    assert [int(d[0, 0]) for d in ad.data] == [0, 2, 4]
    assert [None if m is None else int(m[0, 0]) for m in ad.mask] == [3, 1, None]
    assert ad.hdr["EXTVER"] == [2, 3, 4]


@pytest.mark.parametrize(
    ("planes", "problem"),
    [
        ((("SCI", 1), ("SCI", 1)), "same number"),
        ((("SCI", 1), ("SCI", 2), ("DQ", None)), "belongs to no science"),
        ((("SCI", 1), ("VAR", 2)), "belongs to no science"),
        ((("SCI", 1), ("DQ", 1), ("DQ", 1)), "two planes"),
        ((("VAR", 1), ("DQ", 1)), "no science plane"),
    ],
)
def test_planes_that_cannot_be_assigned_are_an_error(tmp_path: Path, planes: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        astrodata.open(_multi(tmp_path, *planes))


def test_an_image_that_fits_nowhere_is_left_out_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ad = astrodata.open(_multi(tmp_path, ("SCI", 1), ("SCI", 2), ("EXTRA", 9)))
    assert len(ad) == 2
    assert "EXTRA" in caplog.text


def test_simple_images_and_lone_planes_become_science_data(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "simple.fits", image(np.int16), fits.Header({"OBJECT": "x"} | WCS_CARDS))
    simple = astrodata.open(tmp_path / "simple.fits")
    assert np.array_equal(simple[0].data, image())
    assert simple.phu["OBJECT"] == simple[0].hdr["OBJECT"] == "x"
    assert "NAXIS1" not in simple.phu
    assert "SIMPLE" not in simple[0].hdr
    assert simple[0].wcs_origin == "extension"
    lone = astrodata.open(_multi(tmp_path, ("DQ", 1)))
    assert lone[0].hdr["EXTNAME"] == "SCI"
    assert lone[0].data.dtype == np.float32


def test_a_file_without_images_has_no_extensions(tmp_path: Path) -> None:
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    assert len(astrodata.open(tmp_path / "a.fits")) == 0


def test_science_planes_are_images(tmp_path: Path) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 3, 4)))]).writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=r"two-dimensional.*\(2, 3, 4\)"):
        astrodata.open(tmp_path / "a.fits")


def _compress(path: Path, kind: str) -> Path:
    target = path.with_name(path.name + "." + kind)
    if kind == "fz":
        with fits.open(path) as hdus:
            tiled = [hdus[0]]
            for hdu in hdus[1:]:
                if hdu.is_image:
                    made = fits.CompImageHDU(
                        hdu.data, hdu.header, compression_type="GZIP_1", quantize_level=0
                    )
                    tiled.append(made)
                else:
                    tiled.append(hdu)
            fits.HDUList(tiled).writeto(target)
    else:
        target.write_bytes((gzip if kind == "gz" else bz2).compress(path.read_bytes()))
    return target


@pytest.mark.parametrize("kind", ["gz", "bz2", "fz"])
def test_compressed_files_open_like_any_other(raw_file: Path, product_file: Path, kind: str) -> None:
    before = open_files()
    raw = astrodata.open(_compress(raw_file, kind))
    assert raw[0].shape == SHAPE
    assert raw.nbytes == 0
    assert np.array_equal(raw[0].data, image())
    assert raw[0].wcs_origin == "extension"
    raw.update_filename(suffix="_x")
    assert raw.filename == "N1_x.fits"
    product = astrodata.open(_compress(product_file, kind))
    assert np.array_equal(product[0].mask, image(np.uint16))
    assert np.array_equal(product[0].data, image())
    assert product[0].OBJCAT["NAME"][1] == "b"
    assert np.array_equal(product[0].OBJMASK, image(np.uint8) % 2)
    assert product.history[0].primitive == "prepare"
    assert np.array_equal(product[0].variance, image() + 1)
    assert open_files() == before


class _Counting(io.BufferedReader):
    """A stream that knows how far it was read."""

    furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        _Counting.furthest = max(_Counting.furthest, self.tell())
        return content


@pytest.mark.parametrize("module", [gzip, bz2])
def test_opening_a_compressed_raw_frame_does_not_decompress_the_pixels(
    tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hdus = raw_hdus()
    hdus[1].data = np.arange(250_000, dtype=np.float32).reshape(500, 500)
    hdus.writeto(tmp_path / "a.fits")
    path = tmp_path / "a.fits.z"
    path.write_bytes(module.compress((tmp_path / "a.fits").read_bytes()))
    original = module.open
    monkeypatch.setattr(module, "open", lambda file: _Counting(original(file)))
    _Counting.furthest = 0
    ad = astrodata.open(path)
    assert _Counting.furthest < 100_000
    assert np.array_equal(ad[0].data, hdus[1].data)
    assert _Counting.furthest > 1_000_000


@pytest.mark.parametrize("kind", ["gz", "bz2"])
def test_damaged_compressed_files_are_named(raw_file: Path, kind: str) -> None:
    path = _compress(raw_file, kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"decompressed|truncated"):
        _ = astrodata.open(path)[0].data
    path.write_bytes(content[:60] + bytes(100) + content[60:])
    with pytest.raises(DataError, match="decompressed"):
        _ = astrodata.open(path)[0].data


def test_a_truncated_image_inside_a_compressed_file_is_found(raw_file: Path) -> None:
    path = raw_file.with_suffix(".gz")
    path.write_bytes(gzip.compress(raw_file.read_bytes()[:-2880]))
    with pytest.raises(DataError, match="truncated"):
        _ = astrodata.open(path)[0].data


def test_hidden_extensions_behind_a_compressed_raw_frame_are_not_lost_silently(tmp_path: Path) -> None:
    hdus = raw_hdus()
    hdus.append(fits.ImageHDU(image()))
    hdus.writeto(tmp_path / "a.fits.gz")
    with pytest.raises(DataError, match="more extensions"):
        _ = astrodata.open(tmp_path / "a.fits.gz")[0].data


def test_a_missing_file_is_also_a_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"missing\.fits") as caught:
        astrodata.open(tmp_path / "missing.fits")
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, InputError)
    with pytest.raises(InputError, match="regular"):
        astrodata.open(tmp_path)
    with pytest.raises(InputError, match="cannot be opened"):
        astrodata.open(5)


def test_a_file_that_may_not_be_read_is_a_storage_error(
    raw_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        astrodata.open(raw_file)


def _raw_bytes(path: Path) -> bytearray:
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"<html>not here</html>", "not FITS"),
        (b"\x00" * 5000, "not FITS"),
        (b"SIMPLE  =                    T", "inside a header"),
        (b"BZh91AY&SY", "decompressed"),
        (b"\x1f\x8b\x08", "decompressed"),
    ],
)
def test_files_that_are_not_fits_are_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.fits"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem) as caught:
        astrodata.open(path)
    assert caught.value.file == str(path)
    assert caught.value.found


@pytest.mark.parametrize("fraction", [0.2, 0.6, 0.9])
def test_truncated_files_are_refused_before_anything_is_allocated(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "a.fits"
    hdus = raw_hdus()
    hdus[1].data = np.zeros((100, 100), np.float32)
    hdus.writeto(path)
    content = _raw_bytes(path)
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(DataError, match=r"truncated|inside a header") as caught:
        astrodata.open(path)
    assert "bytes" in str(caught.value.found)


def test_missing_padding_at_the_end_is_no_truncation(raw_file: Path) -> None:
    content = _raw_bytes(raw_file)
    raw_file.write_bytes(content[: len(content) - 2880 + 480])
    assert np.array_equal(astrodata.open(raw_file)[0].data, image())


@pytest.mark.parametrize(
    ("card", "replacement"),
    [
        (b"NAXIS1  =                   10", b"NAXIS1  =           9999999999"),
        (b"NAXIS1  =                   10", b"NAXIS1  =                  -10"),
        (b"NAXIS1  =                   10", b"NAXIS1  = 'ten'               "),
        (b"NAXIS2  =                   12", b"NAXIS9  =                   12"),
        (b"NAXIS   =                    2", b"NAXIS   =                 9999"),
        (b"BITPIX  =                  -32", b"BITPIX  =                   13"),
        (b"PCOUNT  =                    0", b"PCOUNT  =                   -1"),
    ],
)
def test_absurd_structure_is_refused(raw_file: Path, card: bytes, replacement: bytes) -> None:
    content = _raw_bytes(raw_file)
    assert card in content
    raw_file.write_bytes(content.replace(card, replacement))
    with pytest.raises(DataError) as caught:
        astrodata.open(raw_file)
    assert "HDU 1" in str(caught.value)


def test_stray_bytes_and_broken_cards_do_no_harm_until_they_are_asked_for(raw_file: Path) -> None:
    content = _raw_bytes(raw_file)
    raw_file.write_bytes(content.replace(b"OBJECT  = 'target  '", b"OBJECT  = 'tar\xe9\x00et  "))
    ad = astrodata.open(raw_file)
    assert ad.object() is None
    assert ad[0].data.sum() == image().sum()


def test_a_file_that_changed_after_opening_is_noticed(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    os.utime(raw_file, ns=(1, 1))
    with pytest.raises(DataError, match="changed"):
        _ = ad[0].data
    raw_file.unlink()
    with pytest.raises(MissingFileError):
        _ = ad[0].data


def test_an_hdu_list_is_copied(product_file: Path) -> None:
    hdus = product_hdus()
    ad = astrodata.open(hdus)
    ad[0].data[0, 0] = -1
    ad.phu["OBJECT"] = "changed"
    assert hdus["SCI"].data[0, 0] == 0
    assert hdus[0].header["OBJECT"] == "stack"
    with fits.open(product_file) as opened:
        later = astrodata.open(opened)
    assert np.array_equal(later[0].mask, image(np.uint16))
    assert later[0].OBJCAT["NAME"][0] == "a"


def test_opening_what_is_open_already_changes_nothing(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    assert astrodata.open(ad) is ad
