from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.algorithms.grouping import (
    Exposure,
    SkyRecord,
    angular_separation,
    choose_skies,
    classify,
    fields_overlap,
    group_frames,
    is_mosaic,
    mean_position,
)


def test_small_separations_are_exact():
    assert 3600 * angular_separation((10, 60), (10, 60 + 0.1 / 3600)) == pytest.approx(0.1, rel=1e-6)
    assert 3600 * angular_separation((359.9999, 0), (0.0001, 0)) == pytest.approx(0.72, rel=1e-6)


def test_the_mean_of_positions_across_the_origin_of_longitude():
    lon, lat = mean_position([(359.99, 1.0), (0.01, 1.0), (359.99, -1.0), (0.01, -1.0)])
    assert (lon + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert lat == pytest.approx(0, abs=1e-6)


def test_fields_overlap_up_to_the_given_share():
    assert fields_overlap((511.5 + 921.5, 511.5), (1024, 1024), 0.9)
    assert not fields_overlap((511.5 + 921.7, 511.5), (1024, 1024), 0.9)
    assert fields_overlap((511.5, 511.5 - 1023), (1024, 1024), 1.0)


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_groups_are_the_connected_parts_whatever_the_order(number, random):
    touch = np.zeros((number, number), bool)
    for i in range(number):
        for j in range(i):
            touch[i, j] = touch[j, i] = random.random() < 0.15
    reach = np.linalg.matrix_power(touch.astype(int) + np.eye(number, dtype=int), number) > 0
    groups = group_frames(touch)
    assert sorted(k for group in groups for k in group) == list(range(number))
    for group in groups:
        assert set(group) == set(np.flatnonzero(reach[group[0]]))


def frames(*positions: tuple[float, float], **marks) -> list[Exposure]:
    return [
        Exposure(f"f{k}", position, **{name: k in members for name, members in marks.items()})
        for k, position in enumerate(positions)
    ]


NEAR, FAR = (10.0, 0.0), (10.0, 0.1)


def test_one_field_is_object_and_sky():
    result = classify(frames(NEAR, NEAR, NEAR), [[0, 1, 2]])
    assert all(frame.is_object and frame.is_sky for frame in result.frames)


def test_of_two_fields_the_one_at_the_target_is_object():
    result = classify(frames(FAR, NEAR, NEAR), [[0], [1, 2]], target=NEAR)
    assert [frame.is_object for frame in result.frames] == [False, True, True]
    assert [frame.is_sky for frame in result.frames] == [True, False, False]
    assert "360 arcsec" in result.frames[0].reason


def test_of_many_fields_the_nearest_half_is_object():
    result = classify(frames((10, 0), (10, 0.1), (10, 0.2), (10, 0.3)), [[0], [1], [2], [3]])
    assert [frame.is_object for frame in result.frames] == [True, True, False, False]


def test_frames_taken_for_sky_by_distance_alone_are_named_in_a_warning():
    (warning,) = classify(frames((10, 0), (10, 0.1), (10, 0.2), (10, 0.3)), [[0], [1], [2], [3]]).warnings
    assert "2 of 4 frames are taken for sky" in warning
    assert all(exposure.name in warning for exposure in frames((10, 0), (10, 0.1), (10, 0.2), (10, 0.3))[2:])
    # What header, user or guiding say is no guess.
    assert not classify(frames(NEAR, FAR, is_object={0}), [[0], [1]]).warnings
    assert not classify(frames(NEAR, NEAR, FAR, FAR, guided={0, 1}), [[0, 1], [2, 3]]).warnings


def test_fields_that_touch_are_a_mosaic_if_they_were_guided():
    touching = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    tiles = [Exposure(f"f{k}", (10, 0.03 * k), guided=True) for k in range(3)]
    assert is_mosaic(tiles, [[0], [1], [2]], touching)
    assert not is_mosaic(tiles, [[0], [1], [2]], np.eye(3, dtype=bool))
    assert not is_mosaic(tiles, [[0, 1, 2]], np.ones((3, 3), bool))
    assert not is_mosaic([*tiles[:2], Exposure("f", (10, 0.06), guided=False)], [[0], [1], [2]], touching)
    result = classify(tiles, [[0], [1], [2]], mosaic=True)
    assert all(frame.is_object and frame.is_sky for frame in result.frames)
    assert [frame.group for frame in result.frames] == [0, 1, 2]
    assert "mosaic" in result.warnings[0]


def test_what_is_known_of_one_frame_holds_for_its_field():
    result = classify(frames(NEAR, NEAR, FAR, is_object={0}), [[0, 1], [2]])
    assert [frame.is_object for frame in result.frames] == [True, True, False]
    assert [frame.is_sky for frame in result.frames] == [False, False, True]
    assert "same field" in result.frames[1].reason


def test_unguided_frames_are_sky_when_others_were_guided():
    result = classify(frames(NEAR, NEAR, FAR, FAR, guided={0, 1}), [[0, 1], [2, 3]])
    assert [frame.is_sky for frame in result.frames] == [False, False, True, True]
    assert [frame.is_object for frame in result.frames] == [True, True, False, False]


def test_a_night_without_guiding_is_sorted_by_distance():
    result = classify(frames(NEAR, FAR, guided=set()), [[0], [1]], target=NEAR)
    assert [frame.is_object for frame in result.frames] == [True, False]
    assert result.warnings


def test_frames_of_no_class_are_reported():
    marked = frames(NEAR, FAR, (10, 0.3), is_object={0}, is_sky={1})
    result = classify(marked, [[0], [1], [2]])
    assert not result.frames[2].is_object
    assert not result.frames[2].is_sky
    assert any("f2" in warning for warning in result.warnings)


def dither(number: int, gap: float = 60.0) -> list[SkyRecord]:
    return [
        SkyRecord(f"s{k}", k * gap, (10.0, k * 10 / 3600), (("filter", "K"),), 20.0) for k in range(number)
    ]


def test_a_frame_is_never_its_own_sky():
    skies = dither(5)
    for k, sky in enumerate(skies):
        choice = choose_skies(sky, skies)
        assert choice.skies == tuple(j for j in range(5) if j != k)
        assert "0.00 arcsec" in choice.rejected[k]


def test_the_time_limit_gives_way_to_the_least_number_with_a_warning():
    skies = dither(8, gap=1000)
    choice = choose_skies(skies[0], skies, time=900, min_skies=3)
    assert choice.skies == (1, 2, 3)
    assert "more than 900 s" in choice.warnings[0]
    for least in (0, None):
        assert choose_skies(skies[0], skies, time=900, min_skies=least).skies == ()


def test_the_nearest_in_time_are_taken_and_listed_in_order_of_time():
    skies = dither(9)
    assert choose_skies(skies[4], skies, max_skies=4).skies == (2, 3, 5, 6)


def test_other_configurations_and_exposures_are_refused_with_the_reason():
    skies = [
        *dither(4),
        SkyRecord("j", 5, (11, 0), (("filter", "J"),), 20.0),
        SkyRecord("long", 5, (11, 0), (("filter", "K"),), 30.0),
    ]
    choice = choose_skies(skies[0], skies)
    assert choice.skies == (1, 2, 3)
    assert choice.rejected[4] == "another configuration: filter J instead of K"
    assert "30 s instead of 20 s" in choice.rejected[5]
    assert choose_skies(skies[0], skies, use_all=True).skies == (1, 2, 3)


def test_a_sky_without_partners_stays_a_sky_for_others():
    skies = [SkyRecord("only", 0, (10, 0.1), (("filter", "K"),), 20.0)]
    assert choose_skies(skies[0], skies).skies == ()
    assert choose_skies(SkyRecord("target", 30, (10, 0), (("filter", "K"),), 20.0), skies).skies == (0,)
