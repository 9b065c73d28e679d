"""Extensions as NDData and uncertainties, WCS that are called, and what may be set."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from astropy.nddata import InverseVariance, NDData, StdDevUncertainty, VarianceUncertainty, block_reduce
from astropy.table import Table
from astropy.wcs import WCS

from niripipe import astrodata
from niripipe.errors import InputError

SHAPE = (6, 8)
CARDS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 3.0, "CRPIX2": 2.0, "CRVAL1": 30.0, "CRVAL2": 20.0,
    "CD1_1": -3e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3e-5,
}  # fmt: skip


@pytest.fixture
def ad():
    made = astrodata.create({"INSTRUME": "NIRI"})
    made.append(np.arange(48, dtype=np.float32).reshape(SHAPE), header=CARDS)
    made[0].variance = np.arange(48).reshape(SHAPE) + 1
    made[0].mask = np.arange(48).reshape(SHAPE) % 3
    made[0].OBJMASK = np.ones(SHAPE, np.uint8)
    return made


def test_a_view_shares_the_arrays(ad):
    view = ad[0].nddata
    assert isinstance(view, NDData)
    view.data[0, 0] = -5
    view.variance[0, 1] = 70
    view.mask[0, 2] = 64
    view[2:4, 1:3].data[:] = 9
    ad[0].uncertainty.array[1, 1] = 80
    assert (ad[0].data[0, 0], ad[0].variance[0, 1], ad[0].mask[0, 2], ad[0].variance[1, 1]) == (
        -5,
        70,
        64,
        80,
    )
    assert (ad[0].data[2:4, 1:3] == 9).all()
    assert view.meta["header"] is ad[0].hdr
    assert len(ad.nddata) == len(ad.uncertainty) == 1
    assert block_reduce(view.data, 2).shape == (3, 4)


def test_parts_are_cut_alike(ad):
    part = ad[0].nddata[1:5, 2:][1:, :3]
    assert part.shape == part.variance.shape == part.mask.shape == (3, 3)
    assert part.meta["other"]["OBJMASK"].shape == (3, 3)
    np.testing.assert_array_equal(part.data, ad[0].data[2:5, 2:5])
    assert part.wcs(0, 0) == pytest.approx(ad[0].wcs(2, 2))
    assert part.window[0:1, 0:1].data[0, 0] == ad[0].data[2, 2]
    for index in (3, slice(0, 0), (slice(0, 4, 2), slice(None))):
        with pytest.raises(InputError, match="rectangle"):
            ad[0].nddata[index]


def test_reset_with_a_part_crops(ad):
    expected = ad[0].data[1:4, 2:7].copy()
    sky = ad[0].wcs(2, 1)
    ad[0].reset(ad[0].nddata[1:4, 2:7])
    ext = ad[0]
    np.testing.assert_array_equal(ext.data, expected)
    assert ext.variance.shape == ext.mask.shape == ext.OBJMASK.shape == (3, 5)
    assert ext.wcs(0, 0) == pytest.approx(sky)
    assert WCS(ext.hdr).all_pix2world(0, 0, 0) == pytest.approx(sky)
    ext.reset(ext.nddata)
    assert ext.shape == (3, 5)


def test_a_part_of_another_extension_brings_its_planes(ad):
    other = ad.copy()
    ad[0].reset(other[0].nddata[:2, :3])
    assert ad[0].shape == (2, 3)
    np.testing.assert_array_equal(ad[0].variance, other[0].variance[:2, :3])
    ad.append(other[0].nddata[:2, :3])
    assert ad[1].OBJMASK.shape == (2, 3)
    assert other[0].shape == SHAPE


@pytest.mark.parametrize(
    "uncertainty",
    [
        VarianceUncertainty(np.full(SHAPE, 4.0)),
        StdDevUncertainty(np.full(SHAPE, 2.0)),
        InverseVariance(np.full(SHAPE, 0.25)),
    ],
)
def test_uncertainties_of_any_kind_become_variances(ad, uncertainty):
    ad[0].uncertainty = uncertainty
    assert (ad[0].variance == 4).all()
    ad[0].uncertainty = None
    assert ad[0].variance is None
    assert ad[0].uncertainty is None
    with pytest.raises(InputError, match="variance"):
        ad[0].uncertainty = np.ones(SHAPE)


def test_a_wcs_is_a_function_with_an_inverse(ad):
    wcs = ad[0].wcs
    assert isinstance(wcs, WCS)
    # The tangent plane by hand, next to the reference pixel: 0-based, x first.
    ra, dec = wcs(2, 1)
    assert (ra, dec) == pytest.approx((30.0, 20.0))
    ra, dec = wcs(3, 2)
    assert dec - 20 == pytest.approx(3e-5, rel=1e-4)
    assert (ra - 30) * np.cos(np.deg2rad(dec)) == pytest.approx(-3e-5, rel=1e-4)
    x, y = np.mgrid[0:5, 0:4].astype(float)
    back = wcs.invert(*wcs(x, y))
    np.testing.assert_allclose(back, (x, y), atol=1e-8)
    assert np.ndim(wcs.invert(30.0, 20.0)[0]) == 0
    for twin in (copy.deepcopy(wcs), wcs.celestial, pickle.loads(pickle.dumps(wcs))):  # noqa: S301
        assert twin(2, 1) == pytest.approx((30.0, 20.0))


def test_what_may_be_set(ad):
    for name in ("data", "mask", "variance", "uncertainty", "wcs", "OBJCAT", "path", "filename"):
        assert ad.is_settable(name)
    assert ad[0].is_settable("data")
    assert not any(ad[0].is_settable(name) for name in ("path", "filename", "tags", "shape"))


def test_what_cannot_be_appended_says_what_to_write(ad):
    with pytest.raises(InputError, match=r"ad.MYTABLE = table"):
        ad.append(Table({"A": [1]}), name="MYTABLE")
    assert astrodata.from_file is astrodata.open
