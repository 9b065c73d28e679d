"""Which statement about the pointing is wrong, on numbers worked out by hand at the equator."""

from __future__ import annotations

import math
from typing import Any

import pytest

from niripipe.astrodata.wcs import LinearTerms
from niripipe.instruments.pointing_group import Aim, judge

CD = (-3.25e-05, 0.0, 0.0, 3.25e-05)
RA, DEC = 100.0, 0.0
BOX = [(0.0, 0.0), (10.0, 10.0), (-10.0, 10.0), (-10.0, -10.0), (10.0, -10.0)]
LIMIT = 30.0


def aim(
    motion: tuple[float, float] | None,
    at: tuple[float, float] | None = None,
    target: tuple[float, float] = (0.0, 0.0),
    **changes: Any,
) -> Aim:
    """State a pointing; `at` is where the WCS points and `target` the target, arcsec from RA, DEC."""
    place = motion if at is None else at
    assert place is not None
    wcs = LinearTerms((545.0, 489.0), (RA + place[0] / 3600, DEC + place[1] / 3600), CD)
    there = (RA + target[0] / 3600, DEC + target[1] / 3600)
    return Aim("star", ("f6",), wcs, motion, True, there)._replace(**changes)


def position(wcs: LinearTerms | None) -> tuple[float, float]:
    assert wcs is not None
    return (wcs.crval[0] - RA) * 3600, (wcs.crval[1] - DEC) * 3600


def test_frames_that_agree_are_left_alone() -> None:
    assert all(one is not None and not one.distrusted for one in judge([aim(m) for m in BOX], LIMIT))


@pytest.mark.parametrize("wrong", [0, 3])
def test_one_wrong_target_costs_no_wcs_and_gets_that_of_the_others(wrong: int) -> None:
    aims = [aim(m, target=(180.0, 0.0) if k == wrong else (0.0, 0.0)) for k, m in enumerate(BOX)]
    for k, one in enumerate(judge(aims, LIMIT)):
        assert one is not None
        assert one.distrusted == ("target" if k == wrong else "")
        assert one.wcs is None
        if k == wrong:
            assert one.target == pytest.approx((RA, DEC))


@pytest.mark.parametrize("wrong", [0, 3])
@pytest.mark.parametrize("error", [20.0, 180.0])
def test_one_wrong_wcs_is_rebuilt_from_the_others(wrong: int, error: float) -> None:
    aims = [aim(m, at=(m[0] + error, m[1]) if k == wrong else None) for k, m in enumerate(BOX)]
    judged = judge(aims, LIMIT)
    for k, one in enumerate(judged):
        assert one is not None
        assert one.distrusted == ("WCS" if k == wrong else "")
    one = judged[wrong]
    assert one is not None
    assert position(one.wcs) == pytest.approx(BOX[wrong], abs=0.01)
    assert one.error <= 1.0
    assert "4 other frames" in one.witness


def test_offsets_that_no_keyword_confirms_do_not_beat_a_wcs() -> None:
    aims = [aim(m) for m in BOX]
    aims[2] = aim((25.0, 5.0), at=BOX[2], confirmed=False)
    one = judge(aims, LIMIT)[2]
    assert one is not None
    assert (one.distrusted, one.wcs) == ("offsets", None)


@pytest.mark.parametrize("number", [2, 4, 5])
@pytest.mark.parametrize("size", [0.2, 1.0])
def test_a_wcs_that_stands_still_is_replaced_by_the_offsets(number: int, size: float) -> None:
    motions = [(size * p, size * q) for p, q in BOX[:number]]
    for motion, one in zip(motions, judge([aim(m, at=(0.0, 0.0)) for m in motions], LIMIT), strict=True):
        assert one is not None
        assert one.distrusted == "WCS"
        assert position(one.wcs) == pytest.approx(motion, abs=0.01)
        assert "stands still" in one.witness


def test_offsets_that_stand_still_are_not_believed() -> None:
    for one in judge([aim((0.0, 0.0), at=m) for m in BOX], LIMIT):
        assert one is not None
        assert (one.distrusted, one.wcs) == ("offsets", None)


def test_a_frame_of_another_target_is_left_alone() -> None:
    away = (400.0, 0.0)
    aims = [*(aim(m) for m in BOX), aim((0.0, 0.0), at=away, target=away)]
    assert judge(aims, LIMIT)[-1] is None


def test_offset_skies_agree_with_their_offsets() -> None:
    aims = [aim(m) for m in (*BOX, (0.0, 300.0), (5.0, 305.0))]
    assert all(one is not None and not one.distrusted for one in judge(aims, LIMIT))


def test_a_frame_without_wcs_gets_one_from_the_others() -> None:
    aims = [aim(m) for m in BOX]
    aims[1] = aims[1]._replace(wcs=None)
    one = judge(aims, LIMIT)[1]
    assert one is not None
    assert one.wcs is not None
    assert one.wcs.crpix == (545.0, 489.0)
    assert position(one.wcs) == pytest.approx(BOX[1], abs=0.01)


def test_moving_targets_carry_the_wcs_with_them() -> None:
    track = [(3.0 * k, 1.0 * k) for k in range(5)]
    aims = [
        aim(m, at=(m[0] + t[0], m[1] + t[1]), target=t, moving=True) for m, t in zip(BOX, track, strict=True)
    ]
    assert all(one is not None and not one.distrusted for one in judge(aims, LIMIT))


def test_a_frame_by_itself_is_not_judged() -> None:
    assert judge([aim((0.0, 0.0), at=(100.0, 0.0))], LIMIT) == [None]
    assert judge([], LIMIT) == []


def test_of_two_frames_that_differ_the_one_that_its_target_confirms_is_believed() -> None:
    good, bad = judge([aim((0.0, 0.0)), aim((5.0, 5.0), at=(185.0, 5.0))], LIMIT)
    assert good is not None
    assert bad is not None
    assert (good.distrusted, bad.distrusted) == ("", "WCS")
    assert math.dist(position(bad.wcs), (5.0, 5.0)) < 0.01


def observed(motion: tuple[float, float], shift: tuple[float, float], name: str = "GN-1-Q-1-5") -> Aim:
    """A frame whose WCS and target are both shifted."""
    at = (motion[0] + shift[0], motion[1] + shift[1])
    return aim(motion, at=at, target=shift, observation=name)


@pytest.mark.parametrize("wrong", [(0,), (2,), (4,), (1, 4)])
def test_a_wrong_position_in_wcs_and_target_of_single_frames_is_that_of_the_others(
    wrong: tuple[int, ...],
) -> None:
    motions = [*BOX, (3.0, -4.0)]
    aims = [observed(m, (0.0, 108.0) if k in wrong else (0.0, 0.0)) for k, m in enumerate(motions)]
    for k, one in enumerate(judge(aims, LIMIT)):
        assert one is not None
        assert one.distrusted == ("WCS" if k in wrong else "")
        if k in wrong:
            assert position(one.wcs) == pytest.approx(motions[k], abs=1e-3)
            assert one.target == pytest.approx((RA, DEC))


@pytest.mark.parametrize(
    ("shifts", "names"),
    [
        ([0, 0, 0, 300, 300], ["a"] * 5),  # a second field
        ([0, 300, 0, 300, 0], ["a"] * 5),  # nods
        ([0, 0, 300, 0, 0], ["a", "a", "b", "a", "a"]),  # another observation
        ([0, 0, 9000, 0, 0], ["a"] * 5),  # degrees away
    ],
)
def test_frames_of_other_fields_are_left_alone(shifts: list[float], names: list[str]) -> None:
    aims = [observed(m, (0.0, shift), name) for m, shift, name in zip(BOX, shifts, names, strict=True)]
    for shift, one in zip(shifts, judge(aims, LIMIT), strict=True):
        assert one is None if shift else one is not None and not one.distrusted
