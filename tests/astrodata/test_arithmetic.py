from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import DataError, InputError

from .conftest import SHAPE, WCS_CARDS

Make = Callable[..., AstroData]
OPERATIONS = ("add", "subtract", "multiply", "divide")
SYMBOLS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
}


def values(ad: AstroData) -> tuple[float, float | None, int | None]:
    ext = ad[0]
    for plane in (ext.data, ext.variance):
        assert plane is None or (plane.dtype == np.float32 and (plane == plane[0, 0]).all())
    return (
        float(ext.data[0, 0]),
        None if ext.variance is None else float(ext.variance[0, 0]),
        None if ext.mask is None else int(ext.mask[0, 0]),
    )


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("add", (9, 3, 5)), ("subtract", (3, 3, 5)), ("multiply", (18, 54, 5)), ("divide", (2, 2 / 3, 5))],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_the_checked_example_holds(make_ad: Make, operation: str, expected: Any, in_place: bool) -> None:
    a, b = make_ad(6, 2, 1), make_ad(3, 1, 4)
    result = getattr(a, operation)(b) if in_place else SYMBOLS[operation](a, b)
    assert values(result) == pytest.approx(expected, rel=1e-6)
    assert (result is a) is in_place
    assert values(b) == (3, 1, 4)
    if not in_place:
        assert values(a) == (6, 2, 1)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda a: 2 / a, (1 / 3, 2**2 * 2 / 6**4, 1)),
        (lambda a: 5 - a, (-1, 2, 1)),
        (lambda a: 5 + a, (11, 2, 1)),
        (lambda a: 2 * a, (12, 8, 1)),
        (lambda a: np.float64(2) * a, (12, 8, 1)),
        (lambda a: a / np.float32(2), (3, 0.5, 1)),
        (lambda a: np.full(SHAPE, 2.0) * a, (12, 8, 1)),
        (lambda a: a - [1.0] * SHAPE[1], (5, 2, 1)),
        (lambda a: a + np.array(3), (9, 2, 1)),
    ],
)
def test_numbers_and_arrays_are_exact_and_never_change_the_dtype(
    make_ad: Make, compute: Any, expected: Any
) -> None:
    assert values(compute(make_ad())) == pytest.approx(expected, rel=1e-6)


def test_a_missing_variance_counts_as_exact(make_ad: Make) -> None:
    with_variance, without = make_ad(6, 2, None), make_ad(3, None, None)
    assert values(with_variance * without) == (18, 18, None)
    assert values(without * with_variance) == (18, 18, None)
    quotient = values(without / with_variance)
    assert quotient[:2] == pytest.approx((0.5, 9 * 2 / 6**4), rel=1e-6)
    assert quotient[2] is None
    assert values(without - without) == (0, None, None)


def test_a_mask_of_one_side_is_kept_and_independent(make_ad: Make) -> None:
    masked, clean = make_ad(1, None, 4), make_ad(1, None, None)
    for result in (masked + clean, clean + masked):
        assert values(result) == (2, None, 4)
        result[0].mask[0, 0] = 9
    assert values(masked) == (1, None, 4)


def test_division_by_zero_gives_no_warning_and_no_mask_bit(make_ad: Make) -> None:
    result = make_ad(6, 2, 0) / make_ad(0, 1, 0)
    assert np.isinf(result[0].data).all()
    assert not np.isfinite(result[0].variance).any()
    assert not result[0].mask.any()


def test_an_operand_may_be_the_data_set_itself(make_ad: Make) -> None:
    ad = make_ad(3, 2, 1)
    ad *= ad
    assert values(ad) == (9, 36, 1)
    ad = make_ad(3, 2, 1)
    ad /= ad
    assert values(ad) == pytest.approx((1, 4 / 9, 1))
    ad -= ad
    assert values(ad) == pytest.approx((0, 8 / 9, 1))


def test_arithmetic_on_a_slice_changes_its_parent_only_in_place(make_ad: Make) -> None:
    ad = make_ad(n=3)
    ad[1].multiply(2)
    assert [float(data[0, 0]) for data in ad.data] == [6, 12, 6]
    result = ad[1] * 2
    assert len(result) == 1
    assert not result.is_single
    assert [float(data[0, 0]) for data in ad.data] == [6, 12, 6]


def test_header_wcs_and_tables_come_from_the_left(make_ad: Make) -> None:
    from astropy.table import Table

    a, b = make_ad(), make_ad()
    a[0].hdr["KEY"] = "left"
    b[0].hdr.update(WCS_CARDS)
    b.REFCAT = Table({"x": [1]})
    result = a + b
    assert result[0].hdr["KEY"] == "left"
    assert result.tables == set()
    assert result[0].wcs.wcs.crval[0] == 150.0
    assert a[0].wcs is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_in_place_arithmetic_writes_into_the_planes_it_owns(make_ad: Make, operation: str) -> None:
    a, b = make_ad(), make_ad(3)
    data, variance, mask = a[0].data, a[0].variance, a[0].mask
    getattr(a, operation)(b)
    assert a[0].data is data
    assert a[0].variance is variance
    assert a[0].mask is mask


def test_in_place_arithmetic_needs_one_block_of_memory() -> None:
    ad = astrodata.create({})
    ext = ad.append(np.ones((1024, 1024), np.float32))
    ext.variance = np.ones((1024, 1024), np.float32)
    other = ad.copy()
    ad.add(1.0)
    tracemalloc.start()
    ad.divide(other)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024 * 4


def test_in_place_arithmetic_leaves_copies_alone(make_ad: Make) -> None:
    a = make_ad()
    copy = a.copy()
    a.add(make_ad(3, 1, 4))
    assert values(a) == (9, 3, 5)
    assert values(copy) == (6, 2, 1)


def test_operands_that_do_not_fit_are_refused_before_anything_changes(make_ad: Make) -> None:
    ad = make_ad(n=2)
    other = make_ad(n=2)
    other[1].reset(np.ones((3, 3)))
    with pytest.raises(InputError, match="shape"):
        ad.add(other)
    assert values(ad) == (6, 2, 1)
    with pytest.raises(DataError, match="number of extensions"):
        ad + make_ad()
    with pytest.raises(InputError, match="shape"):
        ad + np.ones((2, *SHAPE))
    with pytest.raises(InputError, match="shape"):
        np.ones((3, 3)) - ad
    with pytest.raises(InputError, match="real numbers"):
        ad + np.array(["a"])
    with pytest.raises(InputError, match="add"):
        ad.add("1")
    with pytest.raises(TypeError):
        ad + "1"
    with pytest.raises(TypeError):
        {} - ad


numbers = st.floats(-1e4, 1e4, width=32).filter(lambda x: abs(x) > 1e-2)
variances = st.none() | st.floats(0, 1e4, width=32).filter(lambda x: x == 0 or x > 1e-3)
masks = st.none() | st.integers(0, 65535)


@given(
    st.sampled_from(OPERATIONS), st.tuples(numbers, variances, masks), st.tuples(numbers, variances, masks)
)
def test_propagation_agrees_with_first_order_theory(operation: str, left: Any, right: Any) -> None:
    ads = []
    for value, variance, mask in (left, right):
        ad = astrodata.create({})
        ext = ad.append(np.full((2, 3), value, np.float32))
        ext.variance = None if variance is None else np.full((2, 3), variance, np.float32)
        ext.mask = None if mask is None else np.full((2, 3), mask, np.uint16)
        ads.append(ad)
    (a, va, ma), (b, vb, mb) = left, right
    da, db = {"add": (1, 1), "subtract": (1, -1), "multiply": (b, a), "divide": (1 / b, -a / b**2)}[operation]
    value, variance, mask = values(SYMBOLS[operation](*ads))
    assert value == pytest.approx(SYMBOLS[operation](a, b), rel=1e-5, abs=1e-3)
    if va is None and vb is None:
        assert variance is None
    else:
        assert variance == pytest.approx(da**2 * (va or 0) + db**2 * (vb or 0), rel=1e-4, abs=1e-12)
    assert mask == (None if ma is None and mb is None else (ma or 0) | (mb or 0))
    in_place = getattr(ads[0].copy(), operation)(ads[1])
    assert values(in_place) == (value, variance, mask)
