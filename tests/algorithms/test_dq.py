from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from niripipe.algorithms import dq
from niripipe.algorithms.dq import where_flagged

SATURATION, NON_LINEAR = 16260, 11382


def flag_levels(data: np.ndarray, saturation: float | None, non_linear: float | None = None) -> np.ndarray:
    return dq.flags(data, saturation=saturation, non_linear=non_linear)


def _frame(size: int = 64, level: float = 100.0) -> np.ndarray:
    return np.full((size, size), level, np.float32)


@pytest.mark.parametrize(
    ("value", "flag"),
    [(16260, 4), (16259.5, 2), (11382, 2), (11381.9, 0), (-np.inf, 16), (np.inf, 20), (np.nan, 16)],
)
def test_levels_are_flagged_from_the_level_itself_on(value: float, flag: int) -> None:
    data = _frame()
    data[10, 10] = value
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert mask.dtype == np.uint16
    assert mask[10, 10] == flag
    assert np.count_nonzero(mask) == (flag != 0)


def test_either_level_may_be_missing() -> None:
    data = _frame()
    data[0, :2] = 12000, 17000
    assert not flag_levels(data, None, None).any()
    assert flag_levels(data, SATURATION, None)[0, :2].tolist() == [0, 4]
    assert flag_levels(data, None, NON_LINEAR)[0, :2].tolist() == [2, 2]


@pytest.mark.parametrize("non_linear", [16260, 20000])
def test_a_non_linear_level_not_below_saturation_is_ignored(non_linear: float) -> None:
    data = _frame()
    data[0, :2] = 12000, 17000
    assert flag_levels(data, SATURATION, non_linear)[0, :2].tolist() == [0, 4]


def test_a_hole_in_a_saturated_patch_is_saturated() -> None:
    data = _frame()
    data[20:30, 20:30] = 16300
    data[24:26, 24:26] = 200
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert (mask[20:30, 20:30] == 4).all()
    assert np.count_nonzero(mask) == 100


def test_a_hole_behind_a_ring_of_falling_counts_is_saturated() -> None:
    # A very bright star: counts rise to saturation, then fall again where the first read saturates too.
    y, x = np.mgrid[:64, :64]
    r = np.hypot(y - 31, x - 33)
    data = np.where(r < 4, 3000.0, np.where(r < 5, 13000.0, np.where(r < 9, 17000.0, 100.0))).astype(
        np.float32
    )
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert (mask[r < 4] == 4).all()
    assert (mask[(r >= 4) & (r < 5)] == 2).all()


def test_a_notch_at_the_border_is_not_a_hole() -> None:
    data = _frame()
    data[0:6, 10:20] = 16300
    data[0:3, 14:16] = 200
    assert (flag_levels(data, SATURATION, NON_LINEAR)[0:3, 14:16] == 0).all()


def test_diagonal_rings_close_and_open_ones_do_not() -> None:
    data = _frame()
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        data[20 + dy, 20 + dx] = 17000
        data[40 + dy, 40 + dx] = 17000
    data[40, 41] = 100
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert mask[20, 20] == 4
    assert mask[40, 40] == 0


def test_dead_pixels_in_a_bright_thermal_sky_are_not_called_saturated() -> None:
    rng = np.random.default_rng(1)
    data = rng.uniform(12000, 16500, (256, 256)).astype(np.float32)
    data[100:110, 50] = 300
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert (mask[100:110, 50] == 0).all()


def test_a_hole_without_any_saturated_pixel_around_it_stays() -> None:
    data = _frame()
    data[20:30, 20:30] = 12000
    data[24:26, 24:26] = 200
    assert (flag_levels(data, SATURATION, NON_LINEAR)[24:26, 24:26] == 0).all()


def test_a_hole_in_a_patch_larger_than_a_source_stays() -> None:
    data = _frame(128)
    data[10:111, 10:111] = 16300
    data[50, 50] = 200
    assert flag_levels(data, SATURATION, NON_LINEAR)[50, 50] == 0
    data[110] = 100
    data[:, 110] = 100
    assert flag_levels(data, SATURATION, NON_LINEAR)[50, 50] == 4


def test_a_patch_inside_a_hole_keeps_its_flag() -> None:
    data = _frame()
    data[20:41, 20:41] = 16300
    data[22:39, 22:39] = 200
    data[30:33, 30:33] = 12000
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    assert (mask[30:33, 30:33] == 2).all()
    assert np.count_nonzero(mask[20:41, 20:41] == 4) == 21 * 21 - 9


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.01, 0.7))
def test_holes_are_those_that_filling_finds(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    data = np.where(rng.random((30, 41)) < density, 17000, 100).astype(np.float32)
    mask = flag_levels(data, SATURATION, NON_LINEAR)
    # Background that touches by sides only, cut off from the border.
    assert ((mask == 4) == ndimage.binary_fill_holes(data > SATURATION)).all()


def test_frames_without_a_gap_under_flagged_pixels_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("patches were looked for")

    monkeypatch.setattr(dq, "_fill_holes", never)
    data = np.full((40, 40), 100, np.float32)
    for place in ((3, 3), (3, 5), (20, 0), (20, 39), (21, 0), (30, 30), (30, 31), (31, 30)):
        data[place] = 17000
    assert np.count_nonzero(flag_levels(data, SATURATION, NON_LINEAR)) == 8


def test_afterglow_positions_come_in_image_order_and_leave_out_ignored_pixels() -> None:
    mask = np.zeros((4, 6), np.uint16)
    mask[3, 1] = 4
    mask[1, 5] = 4 | 1
    mask[1, 2] = 2
    mask[0, 0] = 8
    assert where_flagged(mask, 4).tolist() == [[1, 5], [3, 1]]
    assert where_flagged(mask, 4 | 2).tolist() == [[1, 2], [1, 5], [3, 1]]
    assert where_flagged(mask, 4, ignore=1).tolist() == [[3, 1]]
    assert where_flagged(mask, 64).shape == (0, 2)
