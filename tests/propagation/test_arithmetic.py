"""Arithmetic of data sets and cropping: planes, masks and world coordinates against numpy."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from astropy.wcs import WCS

from niripipe import astrodata
from niripipe.astrodata import DQ

from .. import frames as make
from .planes import SHAPES, check, flags, frame, values

METHODS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
}


def spread(operation, a, va, b, vb):
    """First-order variance of a result, from the partial derivatives."""
    by_a = {"multiply": b, "divide": 1 / b}.get(operation, 1.0)
    by_b = {"multiply": a, "divide": a / b**2}.get(operation, 1.0)
    return by_a**2 * va + by_b**2 * vb


def calculated(left, operation, right, how):
    if how == "method":
        return getattr(left, operation)(right)
    if how == "operator":
        return METHODS[operation](left, right)
    if operation == "add":
        left += right
    elif operation == "subtract":
        left -= right
    elif operation == "multiply":
        left *= right
    else:
        left /= right
    return left


HOW = ["method", "operator", "assignment"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("how", HOW)
def test_frames_with_frames(place, operation, how, shape):
    a, va, ma = values(1, 50, 90, shape), values(2, 1, 9, shape), flags(3, 1, 8, shape=shape)
    b, vb, mb = values(4, 2, 4, shape), values(5, 0.1, 0.3, shape), flags(6, 2, 4, shape=shape)
    left, right = place(frame(a, va, ma), frame(b, vb, mb, number=2))
    result = calculated(left, operation, right, how)
    wide = [plane.astype(float) for plane in (a, va, b, vb)]
    check(result, METHODS[operation](wide[0], wide[2]), spread(operation, *wide), ma | mb)
    check(right, b, vb, mb)
    if how == "operator":
        check(left, a, va, ma)


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["number", "array", "row"])
def test_frames_with_numbers_and_arrays(place, operation, how, kind):
    a, va, ma = values(1, 50, 90), values(2, 1, 9), flags(3, 1, 8)
    b = {"number": 2.5, "array": values(4, 2, 4), "row": values(5, 2, 4, (1, 64))[0]}[kind]
    (left,) = place(frame(a, va, ma))
    result = calculated(left, operation, b, how)
    wide = a.astype(float), va.astype(float), np.asarray(b, float), 0.0
    check(result, METHODS[operation](wide[0], wide[2]), spread(operation, *wide), ma)


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("kind", ["number", "array"])
def test_numbers_and_arrays_with_frames(place, operation, kind):
    a, va, ma = values(1, 50, 90), values(2, 1, 9), flags(3, 1, 8)
    b = {"number": 2.5, "array": values(4, 2, 4)}[kind]
    (right,) = place(frame(a, va, ma))
    result = METHODS[operation](b, right)
    wide = np.asarray(b, float), 0.0, a.astype(float), va.astype(float)
    check(result, METHODS[operation](wide[0], wide[2]), spread(operation, *wide), ma)


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize("with_variance", ["left", "right", "neither"])
def test_a_missing_variance_is_no_noise(place, operation, with_variance):
    a, b = values(1, 50, 90), values(4, 2, 4)
    va = values(2, 1, 9) if with_variance == "left" else None
    vb = values(5, 0.1, 0.3) if with_variance == "right" else None
    left, right = place(frame(a, va), frame(b, vb, number=2))
    result = METHODS[operation](left, right)
    wide = a.astype(float), 0.0 if va is None else va, b.astype(float), 0.0 if vb is None else vb
    expected = None if with_variance == "neither" else spread(operation, *wide)
    check(result, METHODS[operation](wide[0], wide[2]), expected)


def test_several_operations_in_a_row(place):
    a, va, b, vb = values(1, 50, 90), values(2, 1, 9), values(4, 2, 4), values(5, 0.1, 0.3)
    left, right = place(frame(a, va), frame(b, vb, number=2))
    left.multiply(3.0).subtract(10.0).divide(right).add(np.full(make.SHAPE, 5.0))
    top = 3 * a.astype(float) - 10
    check(left, top / b + 5, 9 * va / b.astype(float) ** 2 + vb * top**2 / b.astype(float) ** 4, rtol=2e-5)


# ---- cropping


def by_header(ad, x, y):
    """Return the position of pixels on the sky as another program finds it in a file."""
    return np.array(WCS(ad[0].hdr).all_pix2world(x, y, 0))


@pytest.mark.parametrize("port", [1, 3])
@pytest.mark.parametrize("touched", [False, True])
def test_a_cropped_frame_shows_the_same_stars_at_the_same_coordinates(place, tmp_path, port, touched):
    data, variance, mask = values(1, 0, 9), values(2, 1, 9), flags(3, 1, 8)
    (ad,) = place(frame(data, variance, mask, INPORT=port))
    x, y = np.array([20.0, 33.0, 41.5]), np.array([12.0, 30.25, 40.0])
    # The frame is asked for its own coordinates only after the crop, unless they are set before.
    before, crpix = by_header(ad, x, y), WCS(ad[0].hdr).wcs.crpix
    if touched:
        ad[0].wcs = WCS(ad[0].hdr)
    ad.crop(17, 5, 50, 44)
    part = np.s_[5:45, 17:51]
    check(ad, data[part], variance[part], mask[part])
    mapped = ad[0].sky_mapping.all_pix2world(x - 17, y - 5, 0)
    for after in (by_header(ad, x - 17, y - 5), ad[0].wcs.all_pix2world(x - 17, y - 5, 0), mapped):
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ad[0].wcs.wcs.crpix, crpix - [17, 5])
    ad.write(tmp_path / "cropped.fits")
    again = astrodata.open(tmp_path / "cropped.fits")
    np.testing.assert_allclose(by_header(again, x - 17, y - 5), before, rtol=0, atol=1e-9)
    check(again, data[part], variance[part], mask[part])


@pytest.mark.parametrize("form", ["sky_mapping", "wcs"])
def test_a_wcs_moves_with_the_pixels_it_describes(form):
    mapping = getattr(frame(0.0)[0], form)
    x, y = np.array([20.0, 41.5]), np.array([12.0, 40.0])
    moved = astrodata.shifted(mapping, 7.0, -3.5)
    np.testing.assert_allclose(
        moved.all_pix2world(x - 7, y + 3.5, 0), mapping.all_pix2world(x, y, 0), rtol=0, atol=1e-9
    )


def test_a_part_of_a_frame_is_what_a_crop_leaves(place):
    data, variance, mask = values(1, 0, 9), values(2, 1, 9), flags(3, DQ.bad_pixel)
    (ad,) = place(frame(data, variance, mask))
    ad.multiply(2.0)
    ad.crop(0, 10, 63, 30)
    ad.add(1.0)
    check(ad, 2 * data[10:31] + 1, 4 * variance[10:31], mask[10:31])
