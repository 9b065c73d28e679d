from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.astrodata import pixel_scale, shifted, with_affine
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.wcs import from_header, terms_of, to_astropy, to_cards, write_to_header
from niripipe.errors import InputError

from .conftest import SHAPE, WCS_CARDS


def _header(**changes: Any) -> fits.Header:
    header = fits.Header(WCS_CARDS)
    for key, value in changes.items():
        if value is None:
            del header[key]
        else:
            header[key] = value
    return header


def wcs_of(header: Any) -> Any:
    """Return the astropy object of what a header says."""
    return to_astropy(from_header(header).mapping)


def test_a_plain_header_gives_what_astropy_makes_of_it() -> None:
    from astropy.wcs import WCS

    ours, theirs = wcs_of(_header()), WCS(_header())
    assert np.allclose(
        ours.pixel_to_world_values([0, 9], [3, 7]), theirs.pixel_to_world_values([0, 9], [3, 7])
    )
    assert (ours.wcs.radesys, ours.wcs.equinox) == ("FK5", 2000.0)
    assert pixel_scale(ours) == pytest.approx(0.117, abs=1e-4)


def test_cdelt_with_pc_or_rotation_is_understood() -> None:
    from astropy.wcs import WCS

    base = {k: v for k, v in WCS_CARDS.items() if not k.startswith("CD")} | {"CDELT1": -3e-5, "CDELT2": 3e-5}
    rotation = {"CROTA2": 30.0}
    matrix = {"PC1_1": 0.8, "PC1_2": -0.6, "PC2_1": 0.6, "PC2_2": 0.8}
    for extra in ({}, rotation, matrix):
        header = fits.Header(base | extra)
        found = wcs_of(header)
        assert np.allclose(found.pixel_scale_matrix, WCS(header).pixel_scale_matrix, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"CTYPE1": None}, "celestial"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "celestial"),
        ({"CTYPE2": "RA---TAN"}, "longitude"),
        ({"CTYPE2": "GLAT-TAN"}, "longitude"),
        ({"CRVAL1": None}, "CRVAL1"),
        ({"CRPIX2": "x"}, "CRPIX2"),
        ({"CRVAL2": 91.0}, "latitude"),
        ({"CD1_1": -3.25e-55}, "singular"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "singular"),
        ({"CD1_1": 1.0, "CD2_2": 1.7}, "scale"),
        ({"CD1_1": 1e-12, "CD2_2": 1e-12, "CD1_2": 0.0, "CD2_1": 0.0}, "scale"),
        ({"CD1_1": "x"}, "finite"),
    ],
)
def test_nonsense_is_refused_with_the_reason(changes: dict[str, Any], problem: str) -> None:
    reading = from_header(_header(**changes))
    assert reading.mapping is None
    assert problem in reading.problem


def _swapped() -> dict[str, Any]:
    rows = {"1": "2", "2": "1"}
    cards = {k: v for k, v in WCS_CARDS.items() if k.startswith(("CRPIX", "CUNIT"))}
    cards |= {f"CRVAL{rows[i]}": WCS_CARDS[f"CRVAL{i}"] for i in rows}
    return cards | {f"CD{rows[i]}_{j}": WCS_CARDS[f"CD{i}_{j}"] for i in rows for j in rows}


def _data_set(ext: dict[str, Any], phu: dict[str, Any]) -> astrodata.AstroData:
    ad = astrodata.create(phu)
    ad.append(np.ones(SHAPE), header=ext)
    return ad


def test_the_primary_copy_is_used_where_the_extension_is_broken() -> None:
    broken = WCS_CARDS | {"CD1_1": -3.25e-55}
    good, fallback = _data_set(WCS_CARDS, WCS_CARDS), _data_set(broken, WCS_CARDS)
    assert (good[0].wcs_origin, good[0].wcs_problem) == ("extension", "")
    assert fallback[0].wcs_origin == "primary"
    assert "singular" in fallback[0].wcs_problem
    nothing = _data_set(broken, {})
    assert (nothing[0].wcs, nothing[0].wcs_origin) == (None, "none")
    assert fallback.copy()[0].wcs_origin == "primary"


@pytest.mark.parametrize(
    ("ext", "phu"),
    [
        (WCS_CARDS, {}),
        (WCS_CARDS | {"CD1_1": -3.25e-55}, WCS_CARDS),
        ({"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", **_swapped()}, {}),
        ({}, {}),
    ],
    ids=["extension", "primary", "swapped axes", "none"],
)
def test_the_numbers_of_a_wcs_are_those_of_its_object(ext: dict[str, Any], phu: dict[str, Any]) -> None:
    ad = _data_set(ext, phu)
    before = ad[0].linear_wcs
    assert before == terms_of(ad[0].wcs)
    assert (before is None) == (not ext)


def test_the_numbers_of_a_wcs_follow_what_is_done_to_it() -> None:
    ad = _data_set(WCS_CARDS, {})
    old = ad[0].linear_wcs
    ad[0].hdr["CRPIX1"] = old.crpix[0] + 5
    assert ad[0].linear_wcs.crpix == (old.crpix[0] + 5, old.crpix[1])
    ad[0].wcs.wcs.crpix = [1.0, 2.0]
    assert ad[0].linear_wcs.crpix == (1.0, 2.0)
    ad[0].wcs = None
    assert ad[0].linear_wcs is None


def test_real_headers_with_known_faults_are_judged_rightly(shared: Path) -> None:
    def read(name: str) -> astrodata.AstroData:
        cards = [fits.Header.fromtextfile(shared / "headers" / f"{name}.hdu{i}.hdr") for i in (0, 1)]
        ad = astrodata.create(cards[0])
        ad.append(np.ones(SHAPE), header=cards[1])
        return ad

    assert read("N20150404S0872")[0].wcs_origin == "extension"
    assert pixel_scale(read("N20150404S0872")[0].wcs) == pytest.approx(0.1163020, abs=1e-7)
    assert read("N20030325S0098")[0].wcs_origin == "primary"
    assert pixel_scale(read("N20030325S0098")[0].wcs) == pytest.approx(0.11675, abs=1e-5)
    assert read("N20030912S0301")[0].wcs is None


numbers = st.floats(-50, 50)


@given(numbers, numbers, numbers, numbers)
def test_a_shifted_wcs_points_to_the_same_sky(dx: float, dy: float, x: float, y: float) -> None:
    wcs = wcs_of(_header())
    moved = shifted(wcs, dx, dy)
    assert np.allclose(
        moved.pixel_to_world_values(x, y), wcs.pixel_to_world_values(x + dx, y + dy), atol=1e-11
    )
    assert wcs.wcs.crpix[0] == 5.5


@given(st.floats(-180, 180), st.floats(0.5, 2), numbers, numbers, numbers, numbers)
def test_an_affine_mapping_is_carried_into_the_wcs(
    angle: float, scale: float, ox: float, oy: float, x: float, y: float
) -> None:
    wcs = wcs_of(_header())
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    new = with_affine(wcs, [[c, -s], [s, c]], (ox, oy))
    old = wcs.pixel_to_world_values(c * x - s * y + ox, s * x + c * y + oy)
    assert np.allclose(new.pixel_to_world_values(x, y), old, atol=1e-10)
    assert pixel_scale(new) == pytest.approx(scale * pixel_scale(wcs))
    assert wcs.wcs.crpix[0] == 5.5


def test_a_singular_mapping_is_refused() -> None:
    with pytest.raises(InputError):
        with_affine(wcs_of(_header()), [[1, 1], [1, 1]], (0, 0))


def test_cards_keep_their_place_and_comment_when_they_are_rewritten() -> None:
    header = WatchedHeader(_header())
    header.comments["CRPIX1"] = "mine"
    header["LAST"] = 1
    header["CDELT1"] = 1.0
    write_to_header(shifted(wcs_of(header), 2, 0), header)
    assert header["CRPIX1"] == 3.5
    assert header.comments["CRPIX1"] == "mine"
    assert list(header).index("CRPIX1") < list(header).index("LAST")
    assert "CDELT1" not in header
    again = fits.Header([fits.Card(*card) for card in to_cards(wcs_of(header))])
    assert np.allclose(wcs_of(again).wcs.crpix, [3.5, 6.5])
    write_to_header(None, header)
    assert not {"CTYPE1", "CRPIX1", "CD1_1"} & set(header)


def test_a_polynomial_distortion_is_kept_by_what_moves_a_wcs() -> None:
    cards = {**WCS_CARDS, "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
    header = fits.Header(cards | {"A_2_0": 1e-6, "B_0_2": 1e-6})
    wcs = wcs_of(header)
    assert wcs.sip is not None
    assert np.allclose(shifted(wcs, 3, 0).all_pix2world(0, 0, 0), wcs.all_pix2world(3, 0, 0), atol=1e-12)
    for old in (wcs, from_header(header).mapping):
        same = with_affine(old, np.eye(2), (0, 0))
        assert np.allclose(same.all_pix2world(5, 7, 0), wcs.all_pix2world(5, 7, 0), atol=1e-12)
        assert "A_2_0" in {key for key, _, _ in to_cards(same)}
    assert "A_2_0" in {key for key, _, _ in to_cards(wcs)}


def test_other_distortions_are_left_to_astropy() -> None:
    from astropy.wcs import WCS

    changes = {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 1e-3}
    header = _header(**changes)
    wcs = wcs_of(header)
    assert np.allclose(wcs.all_pix2world(5, 7, 0), WCS(header).all_pix2world(5, 7, 0), atol=1e-12)
    changes = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
    both = wcs_of(_header(**changes, PV1_1=0.0, A_2_0=1e-6))
    assert both.has_distortion
