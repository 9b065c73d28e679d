from __future__ import annotations

import csv
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from niripipe.astrodata.wcs import LinearTerms, terms_of, to_astropy
from niripipe.errors import DataError
from niripipe.instruments import pointing

from .conftest import MakeFrame

ANGLES = st.floats(-720.0, 720.0)


@pytest.mark.parametrize(
    ("inport", "is_ao", "mirrored"),
    [
        (1, False, True),
        (1, True, False),
        (3, False, False),
        (5, False, False),
        (3, True, False),
        (None, False, False),
    ],
)
def test_only_the_bottom_port_without_ao_mirrors(inport: int | None, is_ao: bool, mirrored: bool) -> None:
    assert pointing.is_mirrored(inport, is_ao) is mirrored


@given(st.floats(0.01, 1.0), ANGLES, st.booleans())
def test_the_cd_matrix_has_scale_orientation_and_parity(scale: float, angle: float, mirrored: bool) -> None:
    cd = np.reshape(pointing.cd_matrix(scale, angle, mirrored=mirrored), (2, 2))
    assert 3600.0 * math.sqrt(abs(np.linalg.det(cd))) == pytest.approx(scale)
    assert bool(np.linalg.det(cd) > 0) is mirrored
    # +y points to the position angle: East component sin PA, North component cos PA
    assert cd[:, 1] * 3600.0 / scale == pytest.approx(
        [math.sin(math.radians(angle)), math.cos(math.radians(angle))]
    )


def test_the_cd_matrix_agrees_with_a_real_frame() -> None:
    """N20070818S0031: f/6 on port 3, PA 21.7."""
    measured = [[-2.99317e-05, 1.21887e-05], [1.21334e-05, 2.98884e-05]]
    made = np.reshape(pointing.cd_matrix(0.1162360, 21.7, mirrored=False), (2, 2))
    assert made == pytest.approx(np.array(measured), abs=3.5e-7)


@given(st.floats(0.0, 360.0), st.floats(-89.0, 89.0), st.floats(0.0, 3600.0), ANGLES)
def test_going_a_distance_is_going_that_distance(
    ra: float, dec: float, distance: float, angle: float
) -> None:
    reached = pointing.position_at(ra, dec, distance, angle)
    assert pointing.angular_separation(ra, dec, *reached) == pytest.approx(distance, abs=1e-6)
    assert 0.0 <= reached[0] < 360.0 + 1e-9


@given(st.floats(0.0, 360.0), st.floats(-80.0, 80.0), st.floats(-60.0, 60.0), st.floats(-60.0, 60.0))
def test_at_angle_zero_p_is_east_and_q_is_north(ra: float, dec: float, p: float, q: float) -> None:
    east, north = pointing.offset_position(ra, dec, p, q, 0.0)
    turned = (east - ra + 180.0) % 360.0 - 180.0
    assert turned * 3600.0 * math.cos(math.radians(dec)) == pytest.approx(p, abs=0.15)
    assert (north - dec) * 3600.0 == pytest.approx(q, abs=0.15)


def test_separation_is_exact_at_small_and_large_distances() -> None:
    assert pointing.angular_separation(10.0, 0.0, 10.0, 1e-7) == pytest.approx(3.6e-4)
    assert pointing.angular_separation(0.0, 0.0, 180.0, 0.0) == pytest.approx(180.0 * 3600.0)
    assert pointing.angular_separation(359.9999, 0.0, 0.0001, 0.0) == pytest.approx(0.72)


def test_apparent_places_become_icrs() -> None:
    found = pointing.to_icrs("APPT", 23.0, 2.0, datetime(2016, 11, 3))
    assert found == pytest.approx((22.7798149, 1.9136077), abs=1e-6)


def test_fk5_and_icrs_differ_by_milliarcseconds_only() -> None:
    assert pointing.to_icrs("FK5", 23.0, 2.0, None) == pytest.approx((23.0, 2.0), abs=1e-5)
    assert pointing.to_icrs("ICRS", 23.0, 2.0, None) == (23.0, 2.0)
    assert pointing.to_icrs("APPT", 23.0, 2.0, None) == (23.0, 2.0)


def cards(**changes: Any) -> dict[str, Any]:
    made = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 545.2, "CRPIX2": 489.0, "CRVAL1": 136.4,
        "CRVAL2": 34.1,
        "CD1_1": -3.25e-05, "CD1_2": 1.3e-07, "CD2_1": -9e-09, "CD2_2": 3.23e-05,
    }  # fmt: skip
    return made | changes


@pytest.mark.parametrize(
    ("changes", "camera", "plausible"),
    [
        ({}, "f6", True),
        ({}, None, True),
        ({}, "f32", False),
        ({"CD1_1": -3.25e-55}, "f6", False),
        ({"CD1_1": 1.0, "CD2_2": 1.7, "CRVAL1": 0.0}, "f6", False),
        ({"CRVAL2": 95.0}, "f6", False),
        ({"CD1_1": -3.9e-05, "CD2_2": 2.7e-05}, "f6", False),
        ({"CD1_2": 6e-06, "CD2_1": -6e-06}, "f6", False),
    ],
)
def test_only_a_wcs_that_can_be_true_is_plausible(
    changes: dict[str, Any], camera: str | None, plausible: bool
) -> None:
    wcs = pointing.header_wcs(cards(**changes))
    assert wcs is not None
    assert pointing.is_plausible(wcs, camera) is plausible


@pytest.mark.parametrize(
    "changes", [{"CTYPE1": "LINEAR"}, {"CD1_1": None}, {"CRPIX1": "here"}, {"CD2_2": 0, "CD1_2": 0}]
)
def test_an_incomplete_wcs_is_none(changes: dict[str, Any]) -> None:
    assert pointing.header_wcs(cards(**changes)) is None


def test_the_good_copy_is_chosen() -> None:
    good, bad = cards(), cards(CD1_1=-3.25e-55)
    for phu, extension, where in (
        (good, good, "extension"),
        (bad, good, "extension"),
        (good, bad, "primary"),
    ):
        found = pointing.usable_copies(phu, extension, "f6")[0]
        assert found[1] == where
        assert found[0].scale == pytest.approx(0.1166, abs=1e-4)
    assert pointing.usable_copies(bad, bad, "f6") == []
    assert pointing.usable_copies(bad, None, "f6") == []


@given(st.floats(0.0, 359.0), st.floats(-85.0, 85.0), ANGLES, st.booleans())
def test_numbers_survive_the_way_through_a_wcs(ra: float, dec: float, angle: float, mirrored: bool) -> None:
    cd = pointing.cd_matrix(0.1171, angle, mirrored=mirrored)
    assume(abs(cd[0] * cd[3] - cd[1] * cd[2]) > 0)
    wcs = LinearTerms((512.5, 400.0), (ra, dec), cd)
    again = terms_of(to_astropy(wcs.to_plane()))
    assert again is not None
    assert again.crpix == wcs.crpix
    assert again.crval == wcs.crval
    assert again.cd == pytest.approx(wcs.cd)
    assert bool(np.linalg.det(np.reshape(again.cd, (2, 2))) > 0) is mirrored
    assert terms_of(None) is None


def test_the_expected_position_is_the_target_moved_by_p_and_q(make_frame: MakeFrame) -> None:
    ad = make_frame(PA=0.0, POFFSET=10.0, QOFFSET=-20.0, RA=100.0, DEC=60.0)
    expected = pointing.expected_position(ad)
    assert expected is not None
    assert (expected[0] - 100.0) * 3600.0 * math.cos(math.radians(60.0)) == pytest.approx(10.0, abs=0.01)
    assert (expected[1] - 60.0) * 3600.0 == pytest.approx(-20.0, abs=0.01)
    assert pointing.expected_position(ad[0]) == expected


def real_offsets() -> list[dict[str, str]]:
    """Read what headers of Gemini instruments of 2005 to 2024 state, which hold both pairs."""
    path = Path(__file__).with_name("telescope_offsets.csv")
    return list(csv.DictReader(path.read_text().splitlines()[1:]))


@pytest.mark.parametrize("row", real_offsets(), ids=lambda row: f"{row['date']} PA {row['PA']}")
def test_the_two_pairs_of_offsets_of_real_headers_agree(make_frame: MakeFrame, row: dict[str, str]) -> None:
    known = {key: float(row[key]) for key in ("PA", "RAOFFSET", "DECOFFSE")}
    ad = make_frame(known, POFFSET=None, QOFFSET=None, **{"DATE-OBS": row["date"]})
    stated = float(row["POFFSET"]), float(row["QOFFSET"])
    assert pointing.sky_offset(ad) == pytest.approx(stated, abs=0.05)


def test_before_p_and_q_the_old_offsets_count(make_frame: MakeFrame) -> None:
    """As in N20030325S0098: PA is 0, DECOFFSE is -4 and the WCS lies 4 arcsec north of the target."""
    old = {"RAOFFSET": 0.0, "DECOFFSE": -4.0, "DATE-OBS": "2003-03-25"}
    ad = make_frame(old, POFFSET=None, QOFFSET=None, PA=0.0)
    assert pointing.sky_offset(ad) == pytest.approx((0.0, 4.0))
    expected = pointing.expected_position(ad)
    assert expected is not None
    assert (expected[1] - 30.1464) * 3600.0 == pytest.approx(4.0, abs=0.01)


def test_offsets_on_the_sky_follow_the_position_angle() -> None:
    """At PA 90 +y points East: Q goes East, and P South."""
    assert pointing.east_north(0.0, 7.0, 90.0) == pytest.approx((7.0, 0.0))
    assert pointing.east_north(5.0, 0.0, 90.0) == pytest.approx((0.0, -5.0))


def test_offsets_become_pixels_through_the_cd_matrix_of_the_frame() -> None:
    """N20120118S0441: the rotator stood still, so that +y lies 29 degrees from the header's PA."""
    cd = 5.19733538529198e-06, 2.9267662205282e-06, 2.89434122378772e-06, -5.20003526974889e-06
    x, y = pointing.pixel_shift(3.0, -2.0, cd)
    moved = np.reshape(cd, (2, 2)) @ [x, y] * 3600.0
    assert moved == pytest.approx([-3.0, 2.0])


@pytest.mark.parametrize(
    "changes",
    [
        {"PA": None},
        {"RA": None},
        {"DEC": "north"},
        {"FRAME": "AZEL_TOPO"},
        {"POFFSET": None, "QOFFSET": None},
    ],
)
def test_without_pointing_nothing_is_expected(make_frame: MakeFrame, changes: dict[str, Any]) -> None:
    ad = make_frame(changes)
    assert pointing.expected_position(ad) is None
    assert pointing.wcs_is_consistent(ad) is None


def test_a_wcs_far_from_the_pointing_is_inconsistent(make_frame: MakeFrame) -> None:
    assert pointing.wcs_is_consistent(make_frame()) is True
    astray = make_frame(ext={"CRVAL2": 30.1464 + 15.0 / 3600.0})
    assert pointing.wcs_is_consistent(astray) is False
    assert pointing.wcs_is_consistent(astray, limit_arcsec=20.0) is True


def test_without_a_plausible_wcs_a_frame_is_inconsistent(make_frame: MakeFrame) -> None:
    assert pointing.wcs_is_consistent(make_frame(ext={"CD1_1": 1.0, "CD2_2": 1.7})) is False


def test_moving_targets_may_be_given_as_apparent_places(make_frame: MakeFrame) -> None:
    """As in N20120118S0441, where FRAME says FK5 and RA, DEC are of date."""
    moving = {
        "RA": 207.95031649,
        "DEC": -8.84028006,
        "RATRACK": 9.3e-05,
        "DATE-OBS": "2012-01-18",
        "UT": "15:18:57",
    }
    sky = {"CRVAL1": 207.786087921729, "CRVAL2": -8.77932917809403}
    assert pointing.wcs_is_consistent(make_frame(moving, sky)) is True
    assert pointing.wcs_is_consistent(make_frame(moving, sky, RATRACK=0.0)) is False
    assert pointing.wcs_is_consistent(make_frame(moving, sky, RATRACK=0.0, FRAME="APPT")) is True


@pytest.mark.parametrize(
    ("inport", "fold", "mirrored"), [(1, "park-pos.", True), (3, "park-pos.", False), (1, "IN", False)]
)
def test_a_built_wcs_agrees_with_the_detector_offsets(
    make_frame: MakeFrame, inport: int, fold: str, mirrored: bool
) -> None:
    """A star stays where the WCS says while the telescope moves: sources shift by the detector offsets."""
    frames = [
        make_frame(INPORT=inport, AOFOLD=fold, POFFSET=p, QOFFSET=q, ext={"CRVAL1": None})
        for p, q in ((0, 0), (8, -5))
    ]
    first, second = (pointing.wcs_from_pointing(ad) for ad in frames)
    star = first.all_pix2world(500.0, 530.0, 0)
    x, y = np.array(second.all_world2pix(*star, 0)) - [500.0, 530.0]
    scale = 0.1171
    assert x == pytest.approx((-8 if mirrored else 8) / scale, abs=0.05)
    assert y == pytest.approx(5 / scale, abs=0.05)
    made = terms_of(second)
    assert made is not None
    assert bool(np.linalg.det(np.reshape(made.cd, (2, 2))) > 0) is mirrored
    assert made.scale == pytest.approx(scale)
    dx, dy = frames[1].detector_x_offset(), frames[1].detector_y_offset()
    assert (dx * frames[1].pixel_scale() / scale, dy * frames[1].pixel_scale() / scale) == pytest.approx(
        (x, y), abs=0.05
    )


@pytest.mark.parametrize(
    ("camera", "fold", "scale"),
    [
        ("f6", "OUT", 0.1171),
        ("f13.9", "OUT", 0.0499),
        ("f14", "IN", 0.0490),
        ("f32", "OUT", 0.0219),
        ("f32", "IN", 0.0214),
    ],
)
def test_a_built_wcs_has_the_nominal_scale(
    make_frame: MakeFrame, camera: str, fold: str, scale: float
) -> None:
    made = terms_of(pointing.wcs_from_pointing(make_frame(CAMERA=camera, AOFOLD=fold)))
    assert made is not None
    assert made.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("cards", "shape", "date", "crpix"),
    [
        ({"CRPIX1": 545.2, "CRPIX2": 489.0}, (1024, 1024), "2015-04-04", (545.2, 489.0)),
        ({"CRPIX1": 0.0, "CRPIX2": 0.0}, (1024, 1024), "2015-04-04", (545.186, 489.049)),
        ({"CRPIX1": None, "CRPIX2": None}, (256, 256), "2015-04-04", (161.186, 105.049)),
        ({"CRPIX1": 545.0, "CRPIX2": 489.0}, (256, 256), "2004-04-04", (161.0, 105.0)),
        ({"CRPIX1": 545.0, "CRPIX2": 489.0}, (256, 256), "2015-04-04", (161.186, 105.049)),
    ],
)
def test_the_reference_pixel_is_the_headers_if_it_makes_sense(
    make_frame: MakeFrame,
    cards: dict[str, Any],
    shape: tuple[int, int],
    date: str,
    crpix: tuple[float, float],
) -> None:
    ad = make_frame({"DATE-OBS": date}, cards, shape=shape)
    assert tuple(pointing.wcs_from_pointing(ad).crpix) == pytest.approx(crpix, abs=1e-9)


@pytest.mark.parametrize(
    ("camera", "fold", "port", "crpix"),
    [
        ("f6", "OUT", 3, (545, 489)),
        ("f6", "OUT", 1, (528, 500)),
        ("f6", "OUT", 5, (373, 497)),
        ("f14", "OUT", 1, (529, 487)),
        ("f32", "OUT", 3, (855, 413)),
        ("f32", "IN", 3, (644, 504)),
        ("f32", "IN", 1, (442, 395)),
    ],
)
def test_a_built_wcs_has_the_reference_pixel_of_real_frames(
    make_frame: MakeFrame, camera: str, fold: str, port: int, crpix: tuple[float, float]
) -> None:
    gone = {"CRPIX1": None, "CRPIX2": None}
    ad = make_frame({"CAMERA": camera, "AOFOLD": fold, "INPORT": port}, gone, shape=(1024, 1024))
    assert tuple(pointing.wcs_from_pointing(ad).crpix) == pytest.approx(crpix, abs=0.6)


def test_without_offsets_the_built_wcs_points_at_the_target(make_frame: MakeFrame) -> None:
    ad = make_frame(POFFSET=None, QOFFSET=None)
    assert tuple(pointing.wcs_from_pointing(ad).crval) == (247.8910, 30.1464)


def test_what_a_wcs_needs_is_named_when_it_is_missing(make_frame: MakeFrame) -> None:
    with pytest.raises(DataError, match="CAMERA, PA, RA, DEC"):
        pointing.wcs_from_pointing(make_frame(CAMERA="INVALID", PA=None, RA=None))
