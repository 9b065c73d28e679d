from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import assume, given
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.astrodata import TangentPlane, shifted, with_affine
from niripipe.astrodata.wcs import from_header, signature, to_astropy, to_cards

from .conftest import SHAPE, WCS_CARDS

X, Y = np.meshgrid([-30.0, 0.0, 400.3, 1023.0], [-12.0, 511.5, 1040.0])


@st.composite
def planes(draw: st.DrawFn) -> TangentPlane:
    near_pole = st.builds(
        lambda sign, far: sign * (90 - 10.0**far), st.sampled_from([-1, 1]), st.floats(-9, 0)
    )
    lat = draw(st.floats(-90, 90) | near_pole | st.sampled_from([-90.0, 90.0, 0.0]))
    lon = draw(st.floats(0, 360) | st.floats(-360, 0) | st.sampled_from([0.0, 1e-9, -1e-9, 359.999999]))
    scale, angle = draw(st.floats(0.02, 0.2)) / 3600, draw(st.floats(0, 2 * math.pi))
    parity = draw(st.sampled_from([-1, 1]))
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    crpix = (draw(st.floats(-200, 1200)), draw(st.floats(-200, 1200)))
    return TangentPlane(crpix, (lon, lat), (parity * c, s, -parity * s, c))


def _pixel(plane: TangentPlane) -> float:
    return math.sqrt(abs(np.linalg.det(plane.pixel_scale_matrix)))


@given(planes(), st.sampled_from([0, 1]))
def test_positions_are_those_of_astropy(plane: TangentPlane, origin: int) -> None:
    wcs = to_astropy(plane)
    lon, lat = plane.all_pix2world(X, Y, origin)
    expected_lon, expected_lat = wcs.all_pix2world(X, Y, origin)
    assert np.abs(lat - expected_lat).max() < 1e-12
    turn = np.abs(lon - expected_lon)
    # Within rounding of the end of the circle, one says 0 and the other 360.
    assert (np.minimum(turn, 360 - turn) * np.cos(np.radians(lat))).max() < 1e-12
    assert (np.sign(plane.crval[0] or 1.0) * lon >= 0).all()
    assert (np.abs(lon) <= 360).all()
    found = plane.all_world2pix(expected_lon, expected_lat, origin)
    expected = wcs.all_world2pix(expected_lon, expected_lat, origin)
    # astropy keeps angles in degrees, some 1e-13 of which are lost near 90.
    assert np.abs(np.subtract(found, expected)).max() < 3e-13 / _pixel(plane)


@given(planes(), st.sampled_from([0, 1]))
def test_pixels_survive_the_way_to_the_sky_and_back(plane: TangentPlane, origin: int) -> None:
    back = plane.all_world2pix(*plane.all_pix2world(X, Y, origin), origin)
    # A right ascension of 360 degrees is known to half of 6e-14.
    assert np.abs(np.subtract(back, (X, Y))).max() < 1e-9 + 1e-13 / _pixel(plane)


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="needs numbers with more digits")
@given(planes())
def test_pixels_are_right_to_a_billionth(plane: TangentPlane) -> None:
    lon, lat = plane.all_pix2world(X, Y, 0)
    degree = np.arctan(np.longdouble(1)) / 45
    (lon0, lat0), (a, b, c, d) = np.array(plane.crval, np.longdouble) * degree, plane.cd
    turn, height = (lon.astype(np.longdouble) * degree - lon0), lat.astype(np.longdouble) * degree
    towards = np.sin(height) * np.sin(lat0) + np.cos(height) * np.cos(lat0) * np.cos(turn)
    xi = np.cos(height) * np.sin(turn) / towards / degree
    eta = (np.sin(height) * np.cos(lat0) - np.cos(height) * np.sin(lat0) * np.cos(turn)) / towards / degree
    sign = 1 if plane.crval[1] < 90 else -1
    x = sign * (d * xi - b * eta) / (a * d - b * c) + plane.crpix[0] - 1
    y = sign * (a * eta - c * xi) / (a * d - b * c) + plane.crpix[1] - 1
    assert np.abs(np.subtract(plane.all_world2pix(lon, lat, 0), (x, y))).max() < 1e-9


@given(planes(), st.floats(0, 360), st.floats(-90, 90))
def test_the_far_side_has_no_pixel(plane: TangentPlane, lon: float, lat: float) -> None:
    ra, dec, (ra0, dec0) = math.radians(lon), math.radians(lat), np.radians(plane.crval)
    towards = math.sin(dec) * math.sin(dec0) + math.cos(dec) * math.cos(dec0) * math.cos(ra - ra0)
    assume(abs(towards) > 1e-3)
    found = np.array(plane.all_world2pix(lon, lat, 0))
    expected = np.array(to_astropy(plane).all_world2pix(lon, lat, 0))
    if towards < 0:
        assert np.isnan([found, expected]).all()
    else:
        assert np.abs(found - expected).max() < 3e-13 / _pixel(plane) + 1e-9 * np.abs(expected).max()


@given(planes(), st.floats(-50, 50), st.floats(-50, 50), st.floats(-180, 180), st.floats(0.5, 2))
def test_changes_are_those_of_the_astropy_object(
    plane: TangentPlane, dx: float, dy: float, angle: float, scale: float
) -> None:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    for change in (lambda w: shifted(w, dx, dy), lambda w: with_affine(w, [[c, -s], [s, c]], (dx, dy))):
        new = change(plane)
        assert isinstance(new, TangentPlane)
        assert to_cards(new) == to_cards(change(to_astropy(plane)))
        assert signature(new) == signature(to_astropy(new)) != signature(plane) or new == plane


def test_scalars_and_shapes_are_broadcast() -> None:
    plane = TangentPlane((1.0, 1.0), (10.0, 20.0), (-3e-5, 0.0, 0.0, 3e-5))
    assert [float(v) for v in plane.all_pix2world(0, 0, 0)] == pytest.approx([10, 20], abs=1e-14)
    assert [v.shape for v in plane.all_world2pix(np.zeros((2, 1)) + 10, [20.0, 20.1, 20.2], 1)] == [
        (2, 3)
    ] * 2
    assert plane.all_pix2world([], [], 0)[0].shape == (0,)
    assert np.isnan(plane.all_world2pix(math.nan, 20, 0)).all()


@pytest.mark.parametrize(
    ("changes", "is_plane"),
    [
        ({}, True),
        ({"LONPOLE": 180.0, "LATPOLE": 12.0}, True),
        ({"LONPOLE": 150.0}, False),
        ({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"}, False),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, False),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 10.0}, False),
        ({"CRVAL1": 400.0}, False),
        ({"CRVAL2": 90.0}, True),
        ({"CRVAL2": 90.0, "LONPOLE": 180.0}, False),
        ({"PV2_1": 0.0}, False),
        ({"RADESYS": "ICRS"}, True),
        ({"RADESYS": "FK4"}, True),
    ],
)
def test_only_plain_headers_are_planes(changes: dict[str, Any], is_plane: bool) -> None:
    header = fits.Header(WCS_CARDS | changes)
    reading = from_header(header)
    assert isinstance(reading.mapping, TangentPlane) is is_plane
    # astropy's own reading of the header is the judge of either.
    from astropy.wcs import WCS

    expected = WCS(header)
    assert np.allclose(
        to_astropy(reading.mapping).all_pix2world(X, Y, 0), expected.all_pix2world(X, Y, 0), atol=1e-11
    )
    assert np.allclose(reading.mapping.all_pix2world(X, Y, 0), expected.all_pix2world(X, Y, 0), atol=1e-11)
    assert to_cards(reading.mapping) == to_cards(to_astropy(reading.mapping))
    assert "RADESYS" not in changes or ("RADESYS", changes["RADESYS"], "Reference frame") in to_cards(
        to_astropy(reading.mapping)
    )


def _frame(**cards: Any) -> astrodata.AstroData:
    ad = astrodata.create({})
    ad.append(np.ones(SHAPE), header=WCS_CARDS | cards)
    return ad


def test_an_extension_gives_the_plane_until_somebody_asks_for_the_object() -> None:
    ad = _frame()
    plane = ad[0].sky_mapping
    assert isinstance(plane, TangentPlane)
    assert ad[0].sky_mapping is plane
    wcs = ad[0].wcs
    assert ad[0].wcs is wcs
    assert ad[0].sky_mapping is wcs
    assert list(ad[0].extensions[0].header_for_writing().items()) == list(ad[0].hdr.items())
    wcs.wcs.crpix = [1.0, 2.0]
    assert ad[0].extensions[0].header_for_writing()["CRPIX1"] == 1.0
    assert ad.copy()[0].sky_mapping is not wcs


def test_a_mapping_that_is_set_is_written_and_copied() -> None:
    ad = _frame()
    new = shifted(ad[0].sky_mapping, 2, 3)
    ad[0].sky_mapping = new
    assert ad[0].wcs_origin == "set"
    twin = ad.copy()
    assert twin[0].sky_mapping is new
    assert twin[0].linear_wcs.crpix == new.crpix
    assert twin[0].extensions[0].header_for_writing()["CRPIX1"] == new.crpix[0]
    assert tuple(twin[0].wcs.wcs.crpix) == new.crpix
    ad[0].sky_mapping = to_astropy(new)
    assert ad[0].sky_mapping is ad[0].wcs
    ad[0].sky_mapping = None
    assert (ad[0].wcs, ad[0].wcs_origin) == (None, "none")


def test_a_crop_and_a_sum_keep_the_plane() -> None:
    ad, bare = _frame(), astrodata.create({})
    bare.append(np.ones(SHAPE))
    total = bare + ad
    assert total[0].sky_mapping == ad[0].sky_mapping
    before = ad[0].sky_mapping
    ad.crop(2, 1, 5, 4)
    assert ad[0].sky_mapping == shifted(before, 2, 1)
    assert ad[0].hdr["CRPIX1"] == before.crpix[0] - 2
