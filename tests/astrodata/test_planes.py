"""Planes that are read and computed row by row: the same pixels as those of whole arrays."""

from __future__ import annotations

import gc
import os
import pickle
import time
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
from niripipe.algorithms.forks import can_fork, map_forked
from niripipe.astrodata.planes import ArrayPlane
from niripipe.errors import DataError

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
        found = ad[0].rows("data")[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, whole[rows])
    assert ad.nbytes == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_rows_of_a_chain_are_those_of_the_whole(raw_file: Path, rows: slice) -> None:
    ad, twin = astrodata.open(raw_file), astrodata.open(raw_file)
    twin[0].data = counts(np.float32)  # in memory, so that arithmetic is done at once
    flat = np.linspace(0.5, 1.5, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    for one in (ad, twin):
        one.multiply(12.3)
        one.subtract(np.arange(SHAPE[1]))
        one.divide(flat)
    np.testing.assert_array_equal(ad[0].rows("data")[rows], twin[0].data[rows])
    assert ad.nbytes == 0


def test_corrections_wait_and_are_those_done_at_once_bit_for_bit(raw_file: Path) -> None:
    ad, twin = astrodata.open(raw_file), astrodata.open(raw_file)
    twin[0].data = counts(np.float32)
    dark = astrodata.create({})
    dark.append(counts(np.float32, 1) / 100)
    dark[0].variance, dark[0].mask = dark[0].data + 1, (counts(np.uint16, 2) % 3 == 0).astype(np.uint16)
    for one in (ad, twin):
        one.multiply(4.0)
        one[0].compute_mask(
            lambda rows: (counts(np.uint16, 3)[rows] % 5 == 0).astype(np.uint16) * np.uint16(4)
        )
        one[0].derive_variance(lambda values, _: np.abs(values) + np.float32(7))
        one.subtract(dark)
        one.divide(dark)
    assert ad.nbytes == 0
    # What is changed later does not reach what is still to be computed.
    dark[0].data[...] = 0
    dark[0].variance[...] = 0
    for name in ("data", "variance", "mask"):
        np.testing.assert_array_equal(ad[0].read_once(name), twin[0].read(name))
    assert ad.nbytes == 0
    np.testing.assert_array_equal(ad[0].read("data"), twin[0].read("data"))
    assert ad.nbytes == ad[0].read("data").nbytes


def test_an_array_that_changes_after_the_arithmetic_does_not_change_the_result(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    sky = np.full(SHAPE, 5, np.float32)
    ad.subtract(sky)
    sky[...] = 1000
    np.testing.assert_array_equal(ad[0].data, counts(np.float32) - 5)


def test_copies_go_their_own_ways(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    twin = ad.copy()
    twin.multiply(2.0)
    ad.multiply(3.0)
    np.testing.assert_array_equal(twin[0].data, 2 * counts(np.float32))
    np.testing.assert_array_equal(ad[0].data, 3 * counts(np.float32))


def test_a_file_that_changes_before_its_rows_are_read_is_noticed(tmp_path: Path) -> None:
    path = raw(tmp_path)
    ad = astrodata.open(path)
    ad.multiply(2.0)
    path.write_bytes(path.read_bytes() + bytes(2880))
    with pytest.raises(DataError, match="changed after it was opened"):
        ad[0].rows("data")[:10]


def test_compressed_files_are_read_as_a_whole(tmp_path: Path) -> None:
    import gzip

    plain = raw(tmp_path)
    packed = tmp_path / "raw.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    ad = astrodata.open(packed)
    ad.multiply(2.0)
    np.testing.assert_array_equal(ad[0].rows("data")[5:9], 2 * counts(np.float32)[5:9])
    assert ad.nbytes > 0


def test_what_was_computed_waits_in_the_scratch_folder_and_flags_do_not(
    raw_file: Path, tmp_path: Path
) -> None:
    ad = astrodata.open(raw_file)
    ad.multiply(2.0)
    ad[0].compute_mask(lambda rows: (counts(np.uint16)[rows] % 7 == 0).astype(np.uint16))
    ad[0].derive_variance(lambda values, _: values + np.float32(1))
    ad[0].compute_once("data")
    data, _ = ad[0].read("data").copy(), ad[0].read("mask")
    function = ad[0].variance_function()
    assert ad.park(tmp_path) > 0
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [data.nbytes]
    np.testing.assert_array_equal(ad[0].rows("data")[100:300:3], data[100:300:3])
    assert ad.nbytes == 0
    # A limit of memory changes nothing in what can still be computed.
    assert ad[0].variance_function() is function
    ad.subtract(1.0)
    np.testing.assert_array_equal(ad[0].read("data"), data - 1)


def test_computing_once_does_nothing_to_planes_that_are_numbers(tmp_path: Path, raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    ad[0].compute_once("data")
    ad[0].compute_once("variance")
    assert ad.nbytes == 0


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, corner=st.tuples(st.integers(0, 500), st.integers(0, 4)))
def test_a_part_surrounded_by_nothing_is_a_whole_plane(rows: slice, corner: tuple[int, int]) -> None:
    part = np.arange(300, dtype=np.float32).reshape(100, 3) + 1
    whole = np.zeros(SHAPE, np.float32)
    whole[corner[0] : corner[0] + 100, corner[1] : corner[1] + 3] = part
    plane = ArrayPlane.part_of(ArrayPlane(part), SHAPE, corner)
    np.testing.assert_array_equal(plane.rows()[rows], whole[rows])
    assert (plane.shape, plane.dtype, plane.nbytes) == (SHAPE, np.float32, part.nbytes)
    np.testing.assert_array_equal(plane.read(), whole)
    assert plane.nbytes == whole.nbytes


def test_an_extension_with_a_part_waits_on_disk_travels_and_is_written_to(tmp_path: Path) -> None:
    ad = astrodata.create({})
    ad.append(np.ones((5, 5), np.float32))
    part = np.full((10, 4), 3, np.float32)
    ad[0].reset_within(
        SHAPE,
        (20, 2),
        ArrayPlane(part),
        ArrayPlane(part * 2),
        lambda rows: np.full((len(range(*rows.indices(600))), 7), 16, np.uint16),
    )
    whole = np.zeros(SHAPE, np.float32)
    whole[20:30, 2:6] = 3
    assert (ad[0].shape, ad.nbytes) == (SHAPE, 2 * part.nbytes)
    twin = pickle.loads(pickle.dumps(ad))  # noqa: S301
    assert ad.park(tmp_path) == 2 * part.nbytes
    assert ad.nbytes == 0
    for one in (ad, twin):
        np.testing.assert_array_equal(one[0].rows("variance")[15:25], 2 * whole[15:25])
        one.multiply(2.0)
        one[0].data[0, 0] = 5
        whole_now = 2 * whole
        whole_now[0, 0] = 5
        np.testing.assert_array_equal(one[0].data, whole_now)
        assert (one[0].mask == 16).all()


def test_what_a_plane_is_made_from_counts_and_waits_on_disk_with_it(raw_file: Path, tmp_path: Path) -> None:
    ad = astrodata.open(raw_file)
    sky = ArrayPlane(np.full(SHAPE, 7, np.float32))
    assert ad[0].derive_data(lambda values, rows: values - sky.rows()[rows], using=[sky])
    expected = counts(np.float32) - 7
    assert (ad.nbytes, ad[0].rows("data")[5:9].shape) == (sky.nbytes, (4, SHAPE[1]))
    twin = ad.copy()
    # A function of a function still needs what the first one does.
    twin.multiply(2.0)
    ad[0].derive_variance(lambda values, rows: 2 * values)
    assert twin.nbytes == sky.nbytes
    assert ad.park(tmp_path) == SHAPE[0] * SHAPE[1] * 4
    assert (ad.nbytes, twin.nbytes, sky.is_loaded) == (0, 0, False)
    np.testing.assert_array_equal(ad[0].rows("data")[3::5, 1:3], expected[3::5, 1:3])
    np.testing.assert_array_equal(twin[0].read_once("data"), 2 * expected)
    variance = ad[0].variance_of(ad[0].read_once("data"))
    np.testing.assert_array_equal(variance, 2 * expected)
    ad[0].data[0, 0] = 5
    assert (ad[0].data[0, 0], twin[0].data[0, 0]) == (5, 2 * expected[0, 0])


def test_a_variance_is_computed_from_the_rows_of_data_that_were_wanted_just_before(raw_file: Path) -> None:
    ad, made = astrodata.open(raw_file), []

    def corrected(values: Any, rows: slice) -> Any:
        made.append(rows)
        return values * np.float32(2)

    ad[0].derive_data(corrected)
    ad[0].derive_variance(lambda values, rows: values + 1)
    data, variance = ad[0].rows("data"), ad[0].rows("variance")
    for rows in (slice(0, 50), slice(50, 100)):
        np.testing.assert_array_equal(data[rows], 2 * counts(np.float32)[rows])
        np.testing.assert_array_equal(variance[rows], 2 * counts(np.float32)[rows] + 1)
    assert len(made) == 2


def test_a_handle_keeps_a_plane_as_it_is(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    handle = ad[0].handle("data")
    assert ad[0].handle("variance") is None
    ad[0].data[...] = 0
    np.testing.assert_array_equal(handle.rows()[:], counts(np.float32))


def test_extras_can_be_computed_and_handed_on(raw_file: Path) -> None:
    ad, other = astrodata.open(raw_file), astrodata.open(raw_file)
    ad[0].compute_extra("OBJMASK", lambda rows: (counts()[rows] % 2).astype(np.uint8), np.uint8)
    other[0].take_over("OBJMASK", ad[0])
    other[0].take_over("mask", ad[0])
    assert (ad.nbytes, other.nbytes, other[0].mask) == (0, 0, None)
    other[0].OBJMASK[...] = 9
    np.testing.assert_array_equal(ad[0].OBJMASK, counts() % 2)
    assert (other[0].OBJMASK == 9).all()


def test_threads_that_read_different_rows_do_not_disturb_each_other(raw_file: Path) -> None:
    frames = [astrodata.open(raw_file) for _ in range(3)]
    for factor, ad in enumerate(frames, start=1):
        ad.multiply(float(factor))

    def look(start: int) -> bool:
        rows = slice(start, start + 5)
        expected = counts(np.float32)[rows]
        return all(
            np.array_equal(ad[0].rows("data")[rows], factor * expected)
            for factor, ad in enumerate(frames, start=1)
            for _ in range(2)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, range(0, 590, 3)))


def test_planes_that_are_let_go_of_are_freed_at_once(raw_file: Path) -> None:
    ad = astrodata.open(raw_file)
    dark = np.ones(SHAPE, np.float32)
    gone = weakref.ref(dark)
    ad[0].derive_data(lambda values, rows, dark=dark: values - dark[rows])
    ad.subtract(np.ones(SHAPE, np.float32))
    ad[0].derive_variance(lambda values, _: values + dark_level)
    dark_level = np.float32(1)
    ad.multiply(2.0)
    assert ad[0].rows("data")[:3].shape == (3, 7)
    gc.disable()
    try:
        del dark, ad
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not can_fork(), reason="this system does not copy processes")
def test_a_copy_of_the_process_leaves_scratch_files_where_they_are(tmp_path: Path) -> None:
    planes = [ArrayPlane(np.full((5, 4), 3.0, np.float32))]
    assert planes[0].park(tmp_path) == 80
    here = os.getpid()

    def drop(_: int) -> bool:
        if os.getpid() == here:
            time.sleep(0.05)  # so that the other one gets an item
            return False
        planes.clear()
        return True

    assert any(map_forked(drop, range(4), processes=2))
    (file,) = tmp_path.iterdir()
    np.testing.assert_array_equal(planes[0].read(), 3.0)
    planes.clear()
    assert not file.exists()
