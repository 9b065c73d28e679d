from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.algorithms.bits import BAD, NO_DATA, NON_LINEAR, SATURATED
from niripipe.algorithms.fill import Region, interpolate_regions, parse_regions, replace_flagged
from niripipe.errors import AlgorithmError, ParameterError


def plane(ny: int = 20, nx: int = 30) -> np.ndarray:
    y, x = np.mgrid[:ny, :nx]
    return (3 + 2 * x - 5 * y).astype(np.float32)


def test_flagged_pixels_become_the_median_of_all_others() -> None:
    data = np.arange(25, dtype=np.float32).reshape(5, 5)
    data[0, 0] = 1e6
    mask = np.zeros(data.shape, np.uint16)
    mask[0, 0], mask[4, 4] = BAD, SATURATED
    before = data.copy()
    result = replace_flagged(data, mask)
    assert result.data[0, 0] == np.median(np.arange(1, 25))
    assert result.data[4, 4] == 24  # saturation is signal
    assert (result.replaced, result.left) == (1, 0)
    np.testing.assert_array_equal(data, before)
    assert replace_flagged(data, mask, value="mean").data[0, 0] == pytest.approx(np.mean(np.arange(1, 25)))
    assert replace_flagged(data, mask, value=-7.5).data[0, 0] == -7.5
    assert replace_flagged(data, mask, flags=SATURATED, value=0).data[4, 4] == 0


def test_nothing_flagged_changes_nothing() -> None:
    data = plane()
    result = replace_flagged(data, np.full(data.shape, NON_LINEAR, np.uint16))
    np.testing.assert_array_equal(result.data, data)
    assert result.replaced == 0
    assert not np.shares_memory(result.data, data)


@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_a_ring_on_a_plane_gives_the_plane(statistic: str) -> None:
    truth = plane()
    data, mask = truth.copy(), np.zeros(truth.shape, np.uint16)
    data[10, 15], mask[10, 15] = 1e5, BAD
    result = replace_flagged(data, mask, value=statistic, inner=2, outer=4)  # type: ignore[arg-type]
    np.testing.assert_allclose(result.data, truth, atol=1e-4)


def test_the_ring_is_that_of_the_radii_without_flagged_pixels() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(15, 15)).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    mask[7, 7] = mask[7, 10] = mask[0, 0] = BAD
    data[mask != 0] = 1e4
    data[4, 7] = np.nan
    result = replace_flagged(data, mask, inner=3, outer=5)
    y, x = np.mgrid[:15, :15]
    for cy, cx in ((7, 7), (0, 0), (7, 10)):
        r = np.hypot(y - cy, x - cx)
        ring = data[(r >= 3) & (r <= 5) & (mask == 0) & np.isfinite(data)]
        assert result.data[cy, cx] == pytest.approx(np.median(ring), rel=1e-6)


def test_wide_holes_need_several_rounds() -> None:
    data, mask = np.full((21, 21), 5, np.float32), np.zeros((21, 21), np.uint16)
    mask[5:16, 5:16] = BAD
    data[mask != 0] = -1e4
    once = replace_flagged(data, mask, outer=2)
    assert once.left == 7 * 7
    assert (once.data[mask != 0] == -1e4).sum() == 49
    assert once.replaced == 121 - 49
    more = replace_flagged(data, mask, outer=2, max_iters=10)
    assert more.left == 0
    np.testing.assert_array_equal(more.data, 5)


def test_a_frame_without_usable_pixels_is_an_error_unless_a_value_is_given() -> None:
    data, mask = plane(), np.ones((20, 30), np.uint16)
    with pytest.raises(AlgorithmError, match="600 of 600"):
        replace_flagged(data, mask)
    assert replace_flagged(data, mask, outer=3, max_iters=5).left == 600
    assert (replace_flagged(data, mask, value=1).data == 1).all()


@pytest.mark.parametrize("options", [{"inner": 3}, {"inner": 5, "outer": 3}])
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        replace_flagged(plane(), np.ones((20, 30), np.uint16), **options)  # type: ignore[arg-type]


@given(
    st.integers(0, 17),
    st.integers(0, 26),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([None, 1, 2]),
)
def test_interpolation_across_any_region_inside_a_plane_restores_the_plane(
    y: int, x: int, height: int, width: int, axis: int | None
) -> None:
    truth = plane(26, 35)
    region = Region((y + 1, y + 1 + height), (x + 1, x + 1 + width))
    data = truth.copy()
    data[region.rows[0] : region.rows[1], region.columns[0] : region.columns[1]] = np.nan
    result = interpolate_regions(data, [region], axis=axis)
    np.testing.assert_allclose(result.data, truth, atol=1e-3)
    assert result.mask is not None
    assert np.count_nonzero(result.mask == NO_DATA) == result.replaced == height * width


def test_the_line_runs_across_the_narrower_side_and_for_squares_along_x() -> None:
    along_x = np.tile(np.arange(20, dtype=np.float32) ** 2, (20, 1))  # curved along x only
    for shape, exact in (((1, 5), True), ((5, 1), False), ((3, 3), False)):
        region = Region((8, 8 + shape[0]), (8, 8 + shape[1]))
        result = interpolate_regions(along_x, [region])
        assert np.allclose(result.data, along_x) == exact
    np.testing.assert_allclose(interpolate_regions(along_x, [Region((8, 13), (8, 9))], axis=2).data, along_x)


def test_a_whole_row_is_bridged_along_y() -> None:
    truth = plane()
    data = truth.copy()
    data[7] = 1e5
    result = interpolate_regions(data, [Region((7, 8), (0, 30))])
    np.testing.assert_allclose(result.data, truth, atol=1e-4)
    full_height = interpolate_regions(truth, [Region((0, 20), (4, 6))])
    np.testing.assert_allclose(full_height.data, truth, atol=1e-4)


def test_at_the_edge_of_the_frame_the_nearest_pixel_counts_alone() -> None:
    result = interpolate_regions(plane(), [Region((5, 9), (0, 2))], variance=np.full((20, 30), 4, np.float32))
    np.testing.assert_array_equal(result.data[5:9, 0], plane()[5:9, 2])
    assert result.variance is not None
    np.testing.assert_array_equal(result.variance[5:9, :2], 4)


def test_flagged_neighbours_are_passed_over_and_variances_add_with_squared_weights() -> None:
    truth = plane()
    data, mask = truth.copy(), np.zeros(truth.shape, np.uint16)
    data[5:9, 9], mask[5:9, 9] = 1e5, BAD
    variance = np.full(truth.shape, 8, np.float32)
    result = interpolate_regions(data, [Region((5, 9), (10, 12))], variance=variance, mask=mask)
    np.testing.assert_allclose(result.data[5:9, 10:12], truth[5:9, 10:12], atol=1e-4)
    assert result.variance is not None
    assert result.mask is not None
    # The ends are columns 8 and 12, so column 10 is half-way.
    np.testing.assert_allclose(result.variance[5:9, 10], 8 * (0.25 + 0.25))
    np.testing.assert_allclose(result.variance[5:9, 11], 8 * (0.0625 + 0.5625))
    assert (result.mask[5:9, 10:12] == NO_DATA).all()
    assert (result.mask[5:9, 9] == BAD).all()
    assert not mask[5:9, 10].any()


def test_single_pixels_may_take_the_local_median() -> None:
    rng = np.random.default_rng(3)
    data = rng.normal(50, 1, (30, 30)).astype(np.float32)
    data[14, 13:18] = 1e4
    y, x = np.mgrid[:30, :30]
    r = np.hypot(y - 14, x - 15)
    ring = data[(r >= 3) & (r <= 5)]
    region = Region((14, 15), (15, 16))
    result = interpolate_regions(data, [region], variance=np.ones_like(data), use_local_median=True)
    assert result.data[14, 15] == pytest.approx(np.median(ring))
    assert result.variance is not None
    assert result.variance[14, 15] == pytest.approx(np.pi / 2 / ring.size)
    assert interpolate_regions(data, [region]).data[14, 15] > 1000


def test_a_region_with_nothing_beside_it_is_an_error() -> None:
    with pytest.raises(AlgorithmError, match="x 1:30, y 1:20"):
        interpolate_regions(plane(), [Region((0, 20), (0, 30))])
    with pytest.raises(AlgorithmError):
        interpolate_regions(plane(), [Region((3, 4), (0, 30))], axis=1)


def test_regions_are_read_as_fits_sections() -> None:
    text = "3:5,7:7; 2/10,*\n # a comment\n 4:,:6  # another\n"
    assert parse_regions(text, (20, 30)) == (
        Region((6, 7), (2, 5)),
        Region((0, 20), (9, 10), 2),
        Region((0, 6), (3, 30)),
    )
    assert parse_regions("  ", (20, 30)) == ()


@pytest.mark.parametrize(
    "text", ["3:5", "a,b", "5:3,1:2", "0:3,1:2", "1:31,1:2", "1:2,1:21", ",", "1:2,3:4,5:6", "x/1:2,3:4"]
)
def test_what_is_not_a_region_is_quoted(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_regions(f"1:2,1:2;{text}", (20, 30))
    assert caught.value.found == text
    assert "x in 1:30" in str(caught.value)
