"""Planes in memory and on disk: the same pixels wherever they are, shared until somebody writes."""

from __future__ import annotations

import gzip
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.astrodata import Plane, ScratchFolder
from niripipe.errors import DataError, StorageError

# More rows than a block has, so that blocks meet.
SHAPE = (600, 7)
ROWS = st.slices(SHAPE[0]).filter(lambda rows: rows.step is None or rows.step > 0)


def counts(dtype: Any = np.int32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 30000, SHAPE).astype(dtype)


def raw(folder: Path, dtype: Any = np.int32, name: str = "raw.fits", **scaling: float) -> Path:
    """A file with one image, whose stored values may be scaled."""
    image = fits.ImageHDU(counts(dtype))
    image.header.update(scaling)
    hdus = fits.HDUList([fits.PrimaryHDU(), image])
    path = folder / name
    if scaling:
        # Stored values are what they are; the cards say what they mean.
        image = fits.ImageHDU(counts(dtype), do_not_scale_image_data=True)
        hdus[1] = image
        hdus.writeto(path, overwrite=True)
        with fits.open(path, mode="update", do_not_scale_image_data=True) as opened:
            opened[1].header.update(scaling)
    else:
        hdus.writeto(path, overwrite=True)
    return path


@pytest.fixture(scope="module")
def raw_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw(tmp_path_factory.mktemp("raw"))


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("scaling", [{}, {"BSCALE": 2.0, "BZERO": 100.0}])
def test_rows_of_a_file_are_those_of_the_plane(tmp_path: Path, dtype: Any, scaling: dict[str, float]) -> None:
    ad = astrodata.open(raw(tmp_path, dtype, **scaling))
    whole = astrodata.open(ad.path)[0].data
    for rows in (slice(None), slice(3, 4), slice(250, 520), slice(10, 500, 7), slice(-5, None), slice(9, 3)):
        found = ad[0].plane("data")[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[rows])
    assert ad.nbytes == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_rows_are_those_of_the_whole_in_memory_and_on_disk(
    raw_file: Path, tmp_path_factory: pytest.TempPathFactory, rows: slice
) -> None:
    on_disk, in_memory, moved = (astrodata.open(raw_file) for _ in range(3))
    in_memory[0].read("data")
    moved.multiply(2.0)
    assert moved.move_to_disk(ScratchFolder(tmp_path_factory.mktemp("scratch"))) > 0
    expected = counts(np.float32)
    np.testing.assert_array_equal(on_disk[0].plane("data")[rows], expected[rows])
    np.testing.assert_array_equal(in_memory[0].plane("data")[rows], expected[rows])
    np.testing.assert_array_equal(moved[0].plane("data")[rows, 1:4], 2 * expected[rows, 1:4])
    assert (on_disk.nbytes, moved.nbytes) == (0, 0)


def test_rows_are_read_only(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    ad[0].read("data")
    with pytest.raises(ValueError, match="read-only"):
        ad[0].plane("data")[:3][0, 0] = 1


def test_arithmetic_is_done_when_it_is_asked_for(tmp_path: Path) -> None:
    path = raw(tmp_path)
    ad = astrodata.open(path)
    sky = np.full(SHAPE, 5, np.float32)
    ad.subtract(sky)
    sky[...] = 1000
    path.unlink()
    np.testing.assert_array_equal(ad[0].data, counts(np.float32) - 5)


def test_a_file_that_is_gone_fails_in_the_step_that_needs_it(tmp_path: Path) -> None:
    path = raw(tmp_path)
    ad = astrodata.open(path)
    path.unlink()
    with pytest.raises((DataError, StorageError, FileNotFoundError)):
        ad.multiply(2.0)


def test_copies_go_their_own_ways(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    twin = ad.copy()
    twin.multiply(2.0)
    ad.multiply(3.0)
    np.testing.assert_array_equal(twin[0].data, 2 * counts(np.float32))
    np.testing.assert_array_equal(ad[0].data, 3 * counts(np.float32))


def test_copies_share_their_pixels_until_one_writes(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    ad.multiply(2.0)
    twin = ad.copy()
    assert np.shares_memory(ad[0].read("data"), twin[0].read("data"))
    before = ad[0].read("data").copy()
    twin[0].data[0, 0] = -1
    np.testing.assert_array_equal(ad[0].read("data"), before)


def test_a_plane_given_to_another_extension_is_shared_until_one_writes(raw_file: Path) -> None:
    ad, other = astrodata.open(raw_file), astrodata.open(raw_file)
    ad[0].OBJMASK = (counts() % 2).astype(np.uint8)
    ad[0].mask = (counts() % 3 == 0).astype(np.uint16)
    other[0].OBJMASK = ad[0].plane("OBJMASK")
    other[0].mask = ad[0].plane("mask")
    assert np.shares_memory(ad[0].read("OBJMASK"), other[0].read("OBJMASK"))
    other[0].OBJMASK[...] = 9
    other[0].mask[...] = 1
    np.testing.assert_array_equal(ad[0].OBJMASK, counts() % 2)
    np.testing.assert_array_equal(ad[0].mask, counts() % 3 == 0)
    assert (other[0].OBJMASK == 9).all()


def test_a_file_that_changes_before_its_rows_are_read_is_noticed(tmp_path: Path) -> None:
    path = raw(tmp_path)
    ad = astrodata.open(path)
    path.write_bytes(path.read_bytes() + bytes(2880))
    with pytest.raises(DataError, match="changed after it was opened"):
        ad[0].plane("data")[:10]


def test_compressed_files_are_read_as_a_whole(tmp_path: Path) -> None:
    plain = raw(tmp_path)
    packed = tmp_path / "raw.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    ad = astrodata.open(packed)
    np.testing.assert_array_equal(ad[0].plane("data")[10:20], counts(np.float32)[10:20])
    assert ad.nbytes == ad[0].read("data").nbytes


def test_pixels_move_to_disk_and_back_bit_for_bit(raw_file: Path, tmp_path: Path) -> None:
    folder = ScratchFolder(tmp_path)
    ad = astrodata.open(raw_file)
    ad.multiply(1.1)
    ad[0].variance = counts(np.float32, 1)
    ad[0].mask = (counts(np.uint16, 2) % 7).astype(np.uint16)
    twin = ad.copy()
    expected = {name: ad[0].read(name).copy() for name in ("data", "variance", "mask")}
    assert ad.move_to_disk(folder) == sum(plane.nbytes for plane in expected.values())
    assert (ad.nbytes, twin.nbytes) == (0, 0)
    assert len(list(tmp_path.iterdir())) == 3
    for one in (ad, twin):
        for name, plane in expected.items():
            np.testing.assert_array_equal(one[0].read(name), plane)
            assert one[0].read(name).dtype == plane.dtype


def test_pixels_that_did_not_change_are_dropped_and_read_again(raw_file: Path, tmp_path: Path) -> None:
    ad = astrodata.open(raw_file)
    ad[0].read("data")
    assert ad.move_to_disk(ScratchFolder(tmp_path)) == SHAPE[0] * SHAPE[1] * 4
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(ad[0].read("data"), counts(np.float32))


def test_an_array_that_somebody_may_write_into_stays(raw_file: Path, tmp_path: Path) -> None:
    ad = astrodata.open(raw_file)
    handed_out = ad[0].data
    assert ad.move_to_disk(ScratchFolder(tmp_path)) == 0
    handed_out[0, 0] = 77
    assert ad[0].read("data")[0, 0] == 77


def test_a_scratch_file_is_written_anew_when_nobody_needs_it(tmp_path: Path) -> None:
    folder = ScratchFolder(tmp_path)
    planes = [Plane(np.full((5, 4), 3.0, np.float32))]
    assert planes[0].move_to_disk(folder) == 80
    (file,) = tmp_path.iterdir()
    twin = planes[0].copy()
    planes.clear()
    other = Plane(np.full((5, 4), 4.0, np.float32))
    other.move_to_disk(folder)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(twin[1:3], 3.0)
    del twin
    for value, shape in ((5.0, (4, 5)), (6.0, (3, 5))):
        new = Plane(np.full(shape, value, np.float32))
        new.move_to_disk(folder)
        assert file.exists()
        np.testing.assert_array_equal(new[:], np.full(shape, value))
        np.testing.assert_array_equal(other[:], 4.0)
    # One of another size is not written into it.
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_scratch_file_that_cannot_be_read_back_is_named(tmp_path: Path, damage: str) -> None:
    plane = Plane(np.ones((50, 4), np.float32))
    plane.move_to_disk(ScratchFolder(tmp_path))
    (file,) = tmp_path.iterdir()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StorageError, match=file.name):
        plane.read()


def test_restored_planes_need_the_folder_no_more(tmp_path: Path) -> None:
    folder = ScratchFolder(tmp_path)
    plane = Plane(np.arange(20, dtype=np.float32).reshape(4, 5))
    plane.move_to_disk(folder)
    folder.restore()
    for file in tmp_path.iterdir():
        file.unlink()
    np.testing.assert_array_equal(plane.read(), np.arange(20).reshape(4, 5))


def test_frames_are_pickled_with_their_pixels(raw_file: Path, tmp_path: Path) -> None:
    ad = astrodata.open(raw_file)
    ad.multiply(2.0)
    ad.move_to_disk(ScratchFolder(tmp_path))
    twin = pickle.loads(pickle.dumps(ad))  # noqa: S301
    np.testing.assert_array_equal(twin[0].data, 2 * counts(np.float32))


def test_threads_that_read_different_rows_do_not_disturb_each_other(raw_file: Path) -> None:
    frames = [astrodata.open(raw_file) for _ in range(3)]

    def look(start: int) -> bool:
        rows = slice(start, start + 5)
        expected = counts(np.float32)[rows]
        return all(np.array_equal(ad[0].plane("data")[rows], expected) for ad in frames)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, range(0, 590, 3)))


def test_planes_are_freed_with_their_frame(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    ad.multiply(2.0)
    gone = weakref.ref(ad[0].plane("data").read())
    del ad
    assert gone() is None
