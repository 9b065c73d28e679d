from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from niripipe.algorithms import bits
from niripipe.algorithms.combine import Combined, NoiseModel, combine, median_variance_factor, pixels
from niripipe.errors import DataError, ParameterError

V10 = (10, 11, 12, 13, 14, 15, 16, 17, 18, 200)
ABCD = (1, 2, 3, 6)


def _pixel(values: Any, masks: Any = 0, variances: Any = 1.0, **settings: Any) -> tuple[Any, ...]:
    """Combine one pixel: value, mask, variance, inputs not used."""
    n = len(values)
    data = np.array(values, np.float32).reshape(n, 1, 1)
    variance = None if variances is None else np.full((n, 1, 1), 0, np.float32)
    if variance is not None:
        variance[:, 0, 0] = variances
    mask = None if masks is None else np.full((n, 1, 1), 0, np.uint16)
    if mask is not None:
        mask[:, 0, 0] = masks
    result = combine(data, variance, mask, **settings)
    flags = None if result.mask is None else int(result.mask[0, 0])
    return float(result.data[0, 0]), flags, float(result.variance[0, 0]), n - int(result.count[0, 0])


def _clip(hsigma: float, **more: Any) -> dict[str, Any]:
    return {"reject": "sigclip", "hsigma": hsigma, "lsigma": hsigma, **more}


def _minmax(n: int, **more: Any) -> dict[str, Any]:
    return {"reject": "minmax", "nlow": n, "nhigh": n, **more}


SEVEN = (*[100 + 0.1 * i for i in range(6)], 1e5)
EIGHT = (*[100 + 0.1 * i for i in range(7)], 1e5)

# values, masks, variances, settings -> value, mask, variance, inputs not used; made with DRAGONS 4.2.2.
GOLDEN: list[tuple[Any, Any, Any, dict[str, Any], tuple[Any, ...]]] = [
    (ABCD, 0, 1, {}, (3.0, 0, 0.25, 0)),
    (ABCD, 0, None, {}, (3.0, 0, 1.1666666, 0)),
    (ABCD, 0, 1, {"operation": "median"}, (2.5, 0, 0.392699, 0)),
    ((1, 2, 3, 6, 9), 0, (1, 2, 3, 4, 5), {"operation": "median"}, (3.0, 0, 0.942478, 0)),
    (ABCD, 0, 1, {"operation": "lmedian"}, (2.0, 0, 0.392699, 0)),
    (ABCD, 0, (1, 2, 1, 4), {"operation": "wtmean"}, (2.363636, 0, 0.363636, 0)),
    (ABCD, (1, 8, 64, 16), 1, {}, (2.0, 8, 1.0, 3)),
    (ABCD, (0, 4, 2, 1), 1, {}, (2.0, 6, 0.333333, 1)),
    (ABCD, (9, 8, 72, 17), 1, {}, (2.0, 8, 1.0, 3)),
    (ABCD, 16, 1, {}, (3.0, 16, 0.25, 0)),
    (V10, 0, 4, _clip(3), (14.0, 0, 0.444444, 1)),
    (V10, 0, 4, _clip(1.5), (14.5, 0, 0.666667, 4)),
    (V10, 0, 4, _clip(1.5, mclip=False), (14.0, 0, 0.571429, 3)),
    (V10, 0, 4, {"reject": "varclip", "hsigma": 2, "lsigma": 2}, (14.5, 0, 0.5, 2)),
    (V10, 0, 4, _minmax(1), (14.5, 0, 0.5, 2)),
    (V10, (1, *[0] * 9), 4, _minmax(1), (35.11111, 0, 0.444444, 1)),
    (V10, (1, *[0] * 9), 4, _minmax(2), (15.0, 0, 0.571429, 3)),
    (V10, (0, 0, 8, *[0] * 7), 4, _minmax(1, operation="median"), (15.0, 0, 0.698132, 1)),
    (SEVEN, 0, 4, _clip(3), (14371.64, 0, 0.571429, 0)),
    (EIGHT, 0, 4, _clip(3), (100.3, 0, 0.571429, 1)),
    ((10, 11, 9, 10, 12, 8, 100), 0, 1, _clip(3), (22.857143, 0, 0.142857, 0)),
    ((10, 11, 9, 10, 12, 8, 10, 11, 100), 0, 1, _clip(3), (10.125, 0, 0.125, 1)),
    ((10, 11, 9, 50, 60), (0, 4, 0, 1, 16), 1, _clip(3), (10.0, 4, 0.333333, 2)),
    ((10, 11, 12), (1, 64, 16), 1, _clip(3), (10.0, 1, 1.0, 2)),
    ((10, 20, 30, 40), (8, 1, 64, 9), 1, _clip(3), (10.0, 8, 1.0, 3)),
    ((*[0] * 5, *[10] * 5, 1000), 0, 1, _clip(1.5), (10.0, 0, 0.2, 6)),
    ((1, 2, 3, 4, 50), 0, 1, _minmax(1, operation="median"), (3.0, 0, 0.523599, 2)),
    ((1, 2, 3, 4, 50), (0, 0, 1, 0, 0), 1, _minmax(1, operation="median"), (3.0, 0, 0.392699, 1)),
    ((1, 2, 3, 4, 50), None, 1, _minmax(1, operation="median"), (3.0, None, 0.523599, 2)),
]


@pytest.mark.parametrize(("values", "masks", "variances", "settings", "expected"), GOLDEN)
def test_known_pixels_are_reproduced(
    values: Any, masks: Any, variances: Any, settings: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    value, flags, variance, unused = _pixel(values, masks, variances, **settings)
    assert value == pytest.approx(expected[0], rel=1e-6)
    assert flags == expected[1]
    assert unused == expected[3]
    assert variance == pytest.approx(
        expected[2] * _median_ratio(masks, len(values) - unused, len(values), settings), rel=1e-5
    )


def _median_ratio(masks: Any, used: int, n: int, settings: dict[str, Any]) -> float:
    """Variance of a median of n selected values, ``k(n) v / n``, over DRAGONS's, ``(pi/2) v / used``."""
    operation = settings.get("operation", "mean")
    if operation not in ("median", "lmedian"):
        return 1.0
    selected = n if masks is None else np.count_nonzero(np.broadcast_to(masks, n) == 0)
    return median_variance_factor(selected, lower=operation == "lmedian") / selected * used / (math.pi / 2)


def test_an_unmasked_median_has_the_variance_of_a_median_not_of_its_middle_input() -> None:
    value, flags, variance, _ = _pixel((1, 2, 3, 6, 9), None, (1, 2, 3, 4, 5), operation="median")
    assert (value, flags) == (3.0, None)
    assert variance == pytest.approx(3 / 5 * median_variance_factor(5), rel=1e-5)


# -- what is not a number, and what nobody knows ------------------------------------------------------


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operation", ["mean", "wtmean", "median", "lmedian"])
@pytest.mark.parametrize("reject", ["none", "minmax", "sigclip", "varclip", "noiseclip"])
def test_a_value_that_is_not_a_number_is_as_if_it_were_not_there(
    poison: float, operation: str, reject: str
) -> None:
    settings = {"operation": operation, "reject": reject, "hsigma": 5, "lsigma": 5}
    clean = _pixel((10, 12, 11), 0, 1.0, **settings)
    assert _pixel((10, poison, 12, 11), 0, 1.0, **settings) == (*clean[:3], 1)
    assert _pixel((10, 99, 12, 11), 0, (1, poison, 1, 1), **settings) == (*clean[:3], 1)


def test_a_pixel_without_any_number_is_flagged_as_without_data() -> None:
    assert _pixel((np.nan, np.nan), (4, 2)) == (0.0, 16 | 6, 0.0, 2)
    assert _pixel((np.nan, np.inf), None) == (0.0, None, 0.0, 2)


def test_unknown_bits_are_the_worst_tier_but_better_than_nothing() -> None:
    assert _pixel((1, 2), (128, 16)) == (2.0, 16, 1.0, 1)
    assert _pixel((1, 2), (128, 1024)) == (1.5, 128 | 1024, 0.5, 0)


@pytest.mark.parametrize(
    ("better", "worse"), [(0, 8), (6, 8), (8, 32), (32, 1), (1, 64), (64, 16), (16, 128), (8, 33), (40, 1)]
)
def test_of_two_flagged_inputs_the_less_bad_one_is_used(better: int, worse: int) -> None:
    for operation in ("mean", "median"):
        assert _pixel((1, 2), (better, worse), operation=operation) == (1.0, better, 1.0, 1)
        assert _pixel((1, 2), (worse, better), operation=operation) == (2.0, better, 1.0, 1)


def test_a_frame_without_a_mask_is_good_and_leaves_the_other_masks_in_force() -> None:
    data = np.array([1, 2, 30], np.float32).reshape(3, 1, 1)
    bad = np.ones((1, 1), np.uint16)
    result = combine(data, None, [None, None, bad])
    assert result.data[0, 0] == 1.5
    assert result.mask is not None
    assert combine(data, None, [None, None, None]).mask is None


def test_inputs_of_unknown_variance_get_no_weight() -> None:
    assert _pixel((1, 2, 30), 0, (1, 1, 0), operation="wtmean") == (1.5, 0, 0.5, 0)
    assert _pixel((1, 3), 0, (0, 0), operation="wtmean") == (2.0, 0, 0.0, 0)


def test_when_everything_is_rejected_nothing_is() -> None:
    value, _, variance, unused = _pixel((1, 2), 0, 1.0, **_clip(0.1))
    assert (value, variance, unused) == (1.5, 0.5, 0)


@pytest.mark.parametrize("n_inputs", [1, 2, 3])
def test_minmax_leaves_at_least_one_value(n_inputs: int) -> None:
    value, _, _, unused = _pixel((1, 2, 30)[:n_inputs], 0, 1.0, **_minmax(2, operation="mean"))
    assert unused == (2 if n_inputs == 3 else 0)
    assert value == (1, 1.5, 2)[n_inputs - 1]


# -- clipping -------------------------------------------------------------------------------------------


def test_high_levels_are_not_clipped_more_than_low_ones() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 300, (10, 60, 60))
    low, high = (
        int((10 - combine((noise + level).astype(np.float32), reject="sigclip").count).sum())
        for level in (0.0, 1e7)
    )
    assert low > 0
    assert high == pytest.approx(low, rel=0.1)


def test_identical_values_are_all_kept() -> None:
    assert _pixel([0.1] * 9, 0, 1.0, **_clip(3))[3] == 0


def test_max_iters_stops_clipping() -> None:
    values = (0, 0, 1, 1, 2, 2, 3, 3, 100, 10000)
    unused = [_pixel(values, 0, 1.0, **_clip(2, max_iters=n))[3] for n in (1, 2, None)]
    assert unused == [1, 2, 2]


# -- variances of medians -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 25])
@pytest.mark.parametrize("operation", ["median", "lmedian"])
def test_the_variance_of_a_median_is_what_medians_scatter(n: int, operation: str) -> None:
    data = np.random.default_rng(n).normal(0, 2, (n, 200, 200)).astype(np.float32)
    variance = np.full_like(data, 4)
    result = combine(data, variance, operation=operation)  # type: ignore[arg-type]
    assert result.data.var() / result.variance.mean() == pytest.approx(1, abs=0.03)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(120)


def _median_variance(n: int, *, lower: bool) -> float:
    """N times the variance of the median of n unit normal deviates, from the density of order statistics."""
    x, dx = 9 * NODES, 9 * WEIGHTS
    rank = (n + 1) // 2
    below, above = special.log_ndtr(x), special.log_ndtr(-x)
    norm = special.gammaln(n + 1) - special.gammaln(rank)
    normal = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    if n % 2 or lower:
        density = np.exp(norm - special.gammaln(n - rank + 1) + (rank - 1) * below + (n - rank) * above)
        density *= normal * dx
        mean = (density * x).sum()
        return float(n * ((density * x**2).sum() - mean**2))
    # The two middle values, y = x + step.
    step, dstep = 9 * (NODES + 1), 9 * WEIGHTS
    y = x[:, None] + step
    density = np.exp(norm - special.gammaln(rank) + (rank - 1) * (below[:, None] + special.log_ndtr(-y)))
    density *= (normal * dx)[:, None] * np.exp(-(y**2) / 2) / math.sqrt(2 * math.pi) * dstep
    return float(n * (density * ((x[:, None] + y) / 2) ** 2).sum())


@pytest.mark.parametrize("lower", [False, True])
def test_the_variance_factor_is_that_of_order_statistics(lower: bool) -> None:
    for n in range(1, 41):
        factor = median_variance_factor(n, lower=lower)
        assert factor == pytest.approx(_median_variance(n, lower=lower), rel=1e-6 if n <= 20 else 1.2e-3)


def test_the_variance_factor_rises_to_half_pi() -> None:
    assert median_variance_factor(10**6) == pytest.approx(math.pi / 2, rel=1e-5)


def test_a_symmetric_trim_does_not_change_a_median_nor_its_variance() -> None:
    data = np.random.default_rng(9).normal(10, 2, (7, 50, 60)).astype(np.float32)
    variance = np.random.default_rng(8).uniform(3, 5, data.shape).astype(np.float32)
    mask = (np.random.default_rng(7).random(data.shape) < 0.3).astype(np.uint16) * 4
    plain = combine(data, variance, mask, operation="median")
    trimmed = combine(data, variance, mask, operation="median", reject="minmax", nlow=1, nhigh=1)
    assert (trimmed.data == plain.data).all()
    assert trimmed.variance == pytest.approx(plain.variance, rel=1e-6)
    assert (trimmed.count == 5).all()
    # The flags of what was trimmed do not reach the output.
    assert (trimmed.mask <= plain.mask).all()
    assert (trimmed.mask < plain.mask).any()


# -- against a plain implementation -----------------------------------------------------------------------

TIERS = (6, 14, 46, 47, 111, 127, 65535)


def _plain_select(d: np.ndarray, v: np.ndarray, m: np.ndarray) -> list[int]:
    finite = [i for i in range(len(d)) if math.isfinite(d[i]) and math.isfinite(v[i])]
    for allowed in TIERS:
        chosen = [i for i in finite if not int(m[i]) & ~allowed]
        if chosen:
            return chosen
    return []


def _plain_reject(d: np.ndarray, v: np.ndarray, chosen: list[int], s: dict[str, Any]) -> list[int]:
    n, total = len(chosen), len(d)
    if s["reject"] == "minmax":
        low, high = (int(n * s[k] / total + 0.001) for k in ("nlow", "nhigh"))
        order = sorted(chosen, key=lambda i: d[i])
        return order[low : n - high] or chosen
    if s["reject"] == "none":
        return chosen
    median = np.float32(np.median(d[chosen]))
    kept, centre = list(chosen), float(median)
    for iteration in range(100):
        values = d[kept].astype(float)
        if iteration and not s["mclip"]:
            centre = float(median) + (values - float(median)).mean()
        sigma = {i: math.sqrt(v[i]) if s["reject"] == "varclip" else values.std() for i in kept}
        left = [
            i
            for i in kept
            if np.float32(centre - s["lsigma"] * sigma[i])
            <= d[i]
            <= np.float32(centre + s["hsigma"] * sigma[i])
        ]
        if not left:
            return chosen
        if len(left) == len(kept):
            break
        kept = left
    return kept


# Of two values each lies exactly one sigma from the median, where rounding decides: no limit may be 1.
LIMITS = st.integers(10, 80).map(lambda step: step / 20 + 0.0137)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 12),
    reject=st.sampled_from(["none", "minmax", "sigclip", "varclip"]),
    operation=st.sampled_from(["mean", "median", "lmedian", "wtmean"]),
    limits=st.tuples(LIMITS, LIMITS),
    trim=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    mclip=st.booleans(),
)
def test_every_pixel_agrees_with_a_plain_implementation(
    seed: int,
    n: int,
    reject: str,
    operation: str,
    limits: tuple[float, float],
    trim: tuple[int, int],
    mclip: bool,
) -> None:
    rng = np.random.default_rng(seed)
    shape = (n, 3, 4)
    data = rng.normal(100, 10, shape).astype(np.float32)
    data[rng.random(shape) < 0.1] *= 5
    data[rng.random(shape) < 0.03] = np.nan
    variance = rng.uniform(50, 150, shape).astype(np.float32)
    mask = rng.choice([0, 0, 0, 2, 4, 8, 1, 64, 16, 9, 128], shape).astype(np.uint16)
    mask[:, 0] = 0
    nlow, nhigh = trim
    while nlow + nhigh >= n and nlow + nhigh:
        nlow, nhigh = max(nlow - 1, 0), max(nhigh - 1, 0)
    settings_ = {"reject": reject, "hsigma": limits[0], "lsigma": limits[1], "mclip": mclip}
    result = combine(
        data,
        variance,
        mask,
        operation=operation,  # type: ignore[arg-type]
        nlow=trim[0],
        nhigh=trim[1],
        **settings_,  # type: ignore[arg-type]
    )
    assert result.mask is not None
    for y, x in np.ndindex(3, 4):
        d, v, m = data[:, y, x], variance[:, y, x], mask[:, y, x]
        chosen = _plain_select(d, v, m)
        if not chosen:
            assert (result.data[y, x], result.variance[y, x], result.count[y, x]) == (0, 0, 0)
            assert result.mask[y, x] & 16
            continue
        used = _plain_reject(d, v, chosen, {**settings_, "nlow": nlow, "nhigh": nhigh})
        assert result.count[y, x] == len(used)
        assert result.mask[y, x] == np.bitwise_or.reduce(m[used])
        du, vu = np.sort(d[used].astype(float)), v[used].astype(float)
        if operation == "wtmean":
            weights = 1 / vu
            value, spread = (d[used] * weights).sum() / weights.sum(), 1 / weights.sum()
        else:
            value = {
                "mean": du.mean(),
                "median": np.median(du),
                "lmedian": du[(len(du) - 1) // 2],
            }[operation]
            behind, factor = used, 1.0
            if operation in ("median", "lmedian"):
                behind = chosen if reject == "minmax" and nlow == nhigh else used
                factor = median_variance_factor(len(behind), lower=operation == "lmedian")
            spread = v[behind].astype(float).mean() / len(behind) * factor
        assert result.data[y, x] == pytest.approx(value, rel=2e-6)
        assert result.variance[y, x] == pytest.approx(spread, rel=2e-6)


# -- blocks, threads, sources, scales ---------------------------------------------------------------------


def _stack(n: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    data = rng.normal(1000, 30, (n, 61, 47)).astype(np.float32)
    data[rng.random(data.shape) < 0.01] += 2000
    data[0, 5, 5] = np.nan
    variance = rng.uniform(800, 1000, data.shape).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    mask[:, rng.random((61, 47)) < 0.02] = 1
    mask[rng.random(data.shape) < 0.02] = 16
    mask[rng.random(data.shape) < 0.02] |= 4
    mask[:3, :20] = 16
    return data, variance, mask


def _same(first: Combined, second: Combined) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("data", "variance", "mask", "count", "exposure")
    )


@pytest.mark.parametrize("reject", ["none", "minmax", "sigclip", "varclip", "noiseclip"])
@pytest.mark.parametrize("operation", ["mean", "wtmean", "median", "lmedian"])
def test_neither_blocks_nor_threads_change_a_bit(reject: str, operation: str) -> None:
    data, variance, mask = _stack()
    settings = {
        "reject": reject,
        "operation": operation,
        "nlow": 1,
        "nhigh": 2,
        "scale": np.linspace(0.9, 1.1, 9),
        "exposures": np.linspace(1.1, 30.0, 9),
    }
    whole = combine(data, variance, mask, rows_per_block=1000, **settings)  # type: ignore[arg-type]
    for rows, threads in ((1, 1), (7, 2), (16, 3), (None, 2)):
        other = combine(data, variance, mask, rows_per_block=rows, threads=threads, **settings)  # type: ignore[arg-type]
        assert _same(whole, other)


class _Loader:
    """Rows on demand, as big-endian integers."""

    def __init__(self, plane: np.ndarray) -> None:
        self.plane = plane
        self.asked: list[slice] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plane.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.asked.append(rows)
        return self.plane[rows].astype(">i4")


def test_planes_can_come_from_loaders_a_few_rows_at_a_time() -> None:
    planes = np.random.default_rng(0).integers(0, 1000, (3, 20, 5))
    loaders = [_Loader(plane) for plane in planes]
    result = combine(loaders, rows_per_block=8)
    assert result.data == pytest.approx(planes.mean(axis=0), rel=1e-6)
    assert loaders[0].asked == [slice(0, 8), slice(8, 16), slice(16, 20)]


def test_data_scale_and_shift_and_variances_scale_by_the_square() -> None:
    data = np.array([10, 20], np.float32).reshape(2, 1, 1)
    result = combine(data, np.ones_like(data), scale=[1.0, 0.5], zero=[0.0, 2.0])
    assert result.data[0, 0] == 11
    assert result.variance[0, 0] == pytest.approx((1 + 0.25) / 4)
    assert data[:, 0, 0].tolist() == [10, 20]


def test_inputs_are_never_modified() -> None:
    planes = _stack()
    before = [plane.copy() for plane in planes]
    for reject in ("sigclip", "noiseclip", "minmax"):
        combine(*planes, reject=reject, nlow=1, scale=[2.0] * 9)  # type: ignore[arg-type]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(planes, before, strict=True))


def test_many_inputs_are_counted_and_summed_without_loss() -> None:
    data = np.full((300, 1, 2), 16777217 / 3, np.float32)
    result = combine(data, np.ones_like(data))
    assert result.count.dtype == np.uint16
    assert (result.count == 300).all()
    assert (result.data == data[0]).all()
    assert result.variance == pytest.approx(1 / 300, rel=1e-6)
    assert combine(data[:5]).count.dtype == np.uint8


def test_one_input_is_handed_through() -> None:
    data, variance, mask = (plane[:1] for plane in _stack())
    data = np.nan_to_num(data)
    for operation in ("mean", "median", "lmedian"):
        result = combine(data, variance, mask, operation=operation, reject="sigclip")  # type: ignore[arg-type]
        assert (result.data == data[0]).all()
        assert (result.variance == variance[0]).all()
        assert (result.mask == mask[0]).all()


# -- bad input ----------------------------------------------------------------------------------------------


def test_unusable_input_is_refused_before_any_work() -> None:
    good = np.ones((2, 3, 3), np.float32)
    with pytest.raises(DataError, match="nothing to combine"):
        combine([])
    with pytest.raises(DataError, match="input 1"):
        combine([good[0], np.ones((2, 2), np.float32)])
    with pytest.raises(DataError, match="mask of input 0"):
        combine(good, None, [np.zeros((2, 2), np.uint16), None])
    with pytest.raises(ParameterError, match="variance"):
        combine(good, good[:1])
    with pytest.raises(DataError, match="varclip"):
        combine(good, reject="varclip")
    for wrong in (
        {"operation": "mode"},
        {"reject": "magic"},
        {"hsigma": -1.0},
        {"lsigma": math.nan},
        {"nlow": -1},
        {"max_iters": 0},
        {"scale": [1.0]},
        {"scale": [1.0, -1.0]},
        {"zero": [0.0, math.nan]},
        {"threads": 0},
    ):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            combine(good, good, **wrong)  # type: ignore[arg-type]


# -- against an independent reduction ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_processed_dark_agrees_with_that_of_dragons_to_the_last_bit(shared: Any) -> None:
    import bz2
    import datetime

    from astropy.io import fits

    from niripipe.algorithms import dq, linearity, noise

    rows = slice(384, 640)
    peer = np.load(shared / "peer" / "products_crop.npz")
    planes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    bright: list[tuple[datetime.datetime, np.ndarray]] = []
    for number in range(423, 433):
        path = shared / "data" / "niriimg_tutorial" / "playdata" / f"N20160102S{number:04d}.fits.bz2"
        hdus = fits.HDUList.fromstring(bz2.decompress(path.read_bytes()))
        header, raw = hdus[0].header, hdus[1].data[rows, rows].astype(np.float32)
        mask = dq.flags(raw, saturation=16260, non_linear=11382)
        start = datetime.datetime.fromisoformat(f"{header['DATE-OBS']}T{header['UT']}")
        for earlier, where in bright:
            if (start - earlier).total_seconds() < 120:
                mask[where[:, 0], where[:, 1]] |= 8
        bright.append((start, dq.where_flagged(mask, 4)))
        counts = linearity.correct(
            raw,
            gamma=2.787629143e-07,
            eta=3.178236042e-12,
            time_delta=0.09442515154,
            gain=12.3,
            exposure_time=header["EXPTIME"],
        ).data * np.float32(12.3)
        planes.append((counts, noise.variance(counts, gain=1.0, read_noise=35.0), mask))
    data, variance, masks = zip(*planes, strict=True)
    dark = combine(data, variance, masks, reject="varclip")
    assert (dark.data == peer["dark_sci"]).all()
    assert (dark.variance == peer["dark_var"]).all()
    assert (dark.mask == peer["dark_dq"]).all()


def test_the_exposure_is_that_of_the_inputs_used():
    data = [np.full((4, 4), value, np.float32) for value in (1, 2, 3)]
    variance = [np.ones((4, 4), np.float32)] * 3
    mask = [np.zeros((4, 4), np.uint16) for _ in range(3)]
    mask[1][0, 0] = 1
    data[2][1, 1] = 1e5
    for reject in ("none", "noiseclip"):
        made = combine(data, variance, mask, reject=reject, exposures=[10.0, 20.0, 40.0])
        assert made.exposure is not None
        assert made.exposure[3, 3] == 70
        assert made.exposure[0, 0] == 50
        assert made.exposure[1, 1] == (70 if reject == "none" else 30)
    trimmed = combine(data, variance, mask, reject="minmax", nhigh=1, exposures=[10.0, 20.0, 40.0])
    assert trimmed.exposure is not None
    assert trimmed.exposure[3, 3] == 30
    assert combine(data).exposure is None


@pytest.mark.parametrize("n", [3, 4, 10, 40, 200])
@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.1, 0.4, 1.0, 300.0])
@pytest.mark.parametrize("method", ["sigclip", "varclip"])
def test_all_that_clipping_rejects_is_suspected_before(
    n: int, scatter: float, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # High levels with little scatter are where sums in float32 know least. One value of each pixel is just
    # where clipping begins.
    limit = 2.7 if n <= 10 else 5.0
    rng = np.random.default_rng(n)
    values = 1e5 + scatter * rng.normal(size=(n, 3000))
    middle = np.median(values, axis=0)
    for _ in range(60):
        values[0] = middle + limit * values.std(axis=0)
    values[0] += scatter * rng.uniform(-0.3, 0.3, 3000)
    data = values.astype(np.float32).reshape(n, 50, 60)
    data[:, ::10] = np.float32(1e5 / 3)
    variance = np.full_like(data, max(scatter, 1e-3) ** 2)
    suspected = np.zeros((50, 60), bool)
    doubtful = pixels.doubtful

    def spy(*given: Any) -> Any:
        suspected[:] = doubtful(*given).reshape(50, 60)
        return suspected.reshape(-1)

    clip = {"reject": method, "hsigma": limit, "lsigma": limit}
    monkeypatch.setattr(pixels, "doubtful", spy)
    quick = combine(data, variance, **clip)  # type: ignore[arg-type]
    monkeypatch.setattr(pixels, "doubtful", lambda *given: np.ones(3000, bool))
    exact = combine(data, variance, **clip)  # type: ignore[arg-type]
    assert (quick.count == exact.count).all()
    assert quick.data == pytest.approx(exact.data, rel=1e-6)
    rejected = exact.count < n
    assert suspected[rejected].all()
    if method == "sigclip":
        assert not suspected[::10].any()
    if scatter == 300:
        assert np.count_nonzero(suspected & ~rejected) < 30
    if scatter >= 1 and n >= 10 and method == "sigclip":
        assert 500 < np.count_nonzero(rejected) < 2500


WEIGHTED = {
    "none": {},
    "noiseclip": {"hsigma": 5.0, "lsigma": 5.0},
    "sigclip": {"hsigma": 1.8, "lsigma": 1.8, "max_iters": 1},
    "varclip": {"hsigma": 5.0, "lsigma": 5.0},
    "minmax": {"nhigh": 1},
}


@pytest.mark.parametrize("method", WEIGHTED)
def test_a_mean_with_weights_is_that_of_the_inputs_left(method: str) -> None:
    rng = np.random.default_rng(5)
    weights = np.array([1.0, 0.3, 0.7, 1.0, 0.5])
    scale, zero = np.array([1.0, 2.0, 1.0, 0.5, 1.0]), np.array([0.0, 5.0, -3.0, 0.0, 1.0])
    sigma = np.array([10.0, 6.0, 12.0, 20.0, 8.0])[:, None, None]
    factor, offset = scale[:, None, None], zero[:, None, None]
    data = ((100 + sigma * rng.normal(size=(5, 12, 30)) - offset) / factor).astype(np.float32)
    variance = np.broadcast_to((sigma / factor) ** 2, data.shape).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    data[2, 3, 4] += 3000
    data[4, 5, 6] = np.nan
    mask[1, 7, 8] = bits.BAD
    mask[:, 9, 9] = bits.NO_DATA
    given = {"scale": scale, "zero": zero, "rows_per_block": 5, "exposures": [1.0] * 5}
    settings: dict[str, Any] = {**WEIGHTED[method], **given, "reject": method}
    made = combine(data, variance, mask, weights=weights, **settings)
    plain = combine(data, variance, mask, **settings)
    assert (made.count == plain.count).all()
    np.testing.assert_array_equal(made.mask, plain.mask)
    np.testing.assert_array_equal(made.exposure, plain.exposure)
    scaled, noise = data * factor + offset, variance * factor**2
    # Which inputs are left is known where all are, and where one is masked or no number.
    left = np.isfinite(scaled) & (mask == 0)
    left[:, 9, 9] = True
    known = made.count == left.sum(axis=0)
    assert known[5, 6] or method in ("sigclip", "minmax")
    assert known.any() or method == "minmax"
    w = weights[:, None, None] * left
    with np.errstate(invalid="ignore"):
        mean = np.nansum(w * scaled, axis=0) / w.sum(axis=0)
    spread = np.nansum(w**2 * noise, axis=0) / w.sum(axis=0) ** 2
    np.testing.assert_allclose(made.data[known], mean[known], rtol=1e-4)
    assert made.variance is not None
    np.testing.assert_allclose(made.variance[known], spread[known], rtol=1e-5)
    if method == "noiseclip":
        rest = np.delete(np.arange(5), 2)
        assert made.count[3, 4] == 4
        expected = np.average(scaled[rest, 3, 4], weights=weights[rest])
        assert made.data[3, 4] == pytest.approx(expected, rel=1e-4)


def test_weighted_inputs_of_other_flux_have_the_plain_mean_flux() -> None:
    flux, weights = np.array([1.2, 0.6, 1.0, 1.2]), np.array([1.0, 1.0, 0.4, 1.0])
    data = (50 + 1000 * flux[:, None, None] * np.ones((4, 9, 9))).astype(np.float32)
    data[1, 4, 4] += 3000
    noise = NoiseModel(fluxes=tuple(flux), background=50.0)
    result = combine(
        data, np.full_like(data, 25), reject="noiseclip", hsigma=4, lsigma=4, noise=noise, weights=weights
    )
    assert np.argwhere(result.count < 4).tolist() == [[4, 4]]
    np.testing.assert_allclose(result.data, 1050, rtol=1e-5)
    factor = 1 / np.average(flux, weights=weights)
    assert result.variance is not None
    expected = 25 * np.sum(weights**2) / np.sum(weights) ** 2 * factor**2
    assert result.variance[0, 0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "settings"),
    [([1.0, 0.0], {}), ([1.0], {}), ([1.0, np.nan], {}), ([1.0, 0.5], {"operation": "median"})],
)
def test_weights_are_positive_and_those_of_a_mean(weights: list[float], settings: dict[str, Any]) -> None:
    data = np.zeros((2, 4, 4), np.float32)
    with pytest.raises(ParameterError, match="weights"):
        combine(data, np.ones_like(data), weights=weights, **settings)


def test_weights_need_variances() -> None:
    with pytest.raises(DataError, match="weights"):
        combine(np.zeros((2, 4, 4), np.float32), weights=[1.0, 0.5])
