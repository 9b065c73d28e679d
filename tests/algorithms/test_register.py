from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import convolve, maximum_filter
from scipy.special import gammainc

from niripipe.algorithms.correlate import cross_correlation_shift
from niripipe.algorithms.match import _surprise, match_sources
from niripipe.algorithms.register import Sources, pair_sources
from niripipe.algorithms.vote import _over_square, vote

SEARCH, MATCH = 42.7, 4.27


def positions(x, y, error=0.1):
    """Sources of equal flux."""
    one = np.ones(len(x))
    return Sources(x, y, one, 1e-3 * one, error * one, np.zeros(len(x), bool))


def sky(rng, number, *, size=1024, margin=60):
    """Stars with fluxes over 2.5 decades: x, y, flux."""
    return (
        rng.uniform(-margin, size + margin, number),
        rng.uniform(-margin, size + margin, number),
        10 ** rng.uniform(3, 5.5, number),
    )


def observe(rng, x, y, flux, *, size=1024, found=0.9, spurious=0.2, noise=300.0):
    """A catalogue as detection would make it: most of what lies in the field, and some that is not real."""
    inside = (x > 0) & (x < size) & (y > 0) & (y < size) & (rng.random(x.size) < found) & (flux > 1500)
    x, y, flux = x[inside], y[inside], flux[inside]
    error = np.hypot(2.5 * noise / flux, 2.7 / np.sqrt(flux))
    extra = rng.poisson(spurious * x.size)
    return Sources(
        np.r_[x + rng.normal(0, 1, x.size) * error, rng.uniform(0, size, extra)],
        np.r_[y + rng.normal(0, 1, x.size) * error, rng.uniform(0, size, extra)],
        np.r_[flux + rng.normal(0, noise, x.size), 10 ** rng.uniform(3, 4, extra)],
        np.full(x.size + extra, noise),
        np.r_[error, np.full(extra, 0.2)],
        np.zeros(x.size + extra, bool),
    )


def test_the_golden_lists_give_the_mean_offset_of_their_thirty_pairs():
    rng = np.random.default_rng(7)
    frame = rng.uniform(0, 1024, (2, 40))
    moved = frame + np.array([[12.3], [-7.7]]) + rng.normal(0, 0.1, (2, 40))
    reference = np.hstack([moved[:, :30], rng.uniform(0, 1024, (2, 10))])
    result = match_sources(positions(*frame), positions(*reference), search_radius=SEARCH, match_radius=MATCH)
    assert result.accepted
    assert result.n_matched == 30
    assert result.dx == pytest.approx(12.29538, abs=1e-5)
    assert result.dy == pytest.approx(-7.719484, abs=1e-5)


@pytest.mark.parametrize("number", [15, 25, 60, 200])
def test_any_shift_in_the_search_box_is_found_to_a_few_hundredths(number):
    rng = np.random.default_rng(number)
    for _ in range(25):
        x, y, flux = sky(rng, number)
        dx, dy = rng.uniform(-41, 41, 2)
        result = match_sources(
            observe(rng, x - dx, y - dy, flux),
            observe(rng, x, y, flux),
            search_radius=SEARCH,
            match_radius=MATCH,
        )
        if result.n_matched >= 8:
            assert result.accepted, result.reason
        if result.accepted:
            assert np.hypot(result.dx - dx, result.dy - dy) < max(0.03, 5 * result.error)


def test_the_error_says_how_far_off_the_shift_is():
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(60):
        x, y, flux = sky(rng, 60)
        result = match_sources(
            observe(rng, x, y, flux), observe(rng, x, y, flux), search_radius=SEARCH, match_radius=MATCH
        )
        pulls += [result.dx / result.error, result.dy / result.error]
    assert 0.5 < np.std(pulls) < 1.5


def test_pairs_that_agree_by_luck_do_not_make_the_shift_more_certain_than_their_errors():
    rng = np.random.default_rng(2)
    place = rng.uniform(0, 1024, (2, 32))
    result = match_sources(
        positions(*place), positions(place[0] + 3, place[1] - 2), search_radius=SEARCH, match_radius=MATCH
    )
    assert result.accepted
    assert (result.dx, result.dy) == pytest.approx((3, -2), abs=1e-6)
    # Both positions of each pair have an error of 0.1 along each axis.
    assert result.error == pytest.approx(0.1 * np.sqrt(2 / 32), rel=0.02)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 8, 20, 50])
@pytest.mark.parametrize("case", ["same field", "foreign field", "wrong pointing"])
def test_an_accepted_shift_is_never_wrong(number, case):
    rng = np.random.default_rng(100 + number)
    accepted = 0
    for _ in range(60):
        x, y, flux = sky(rng, number)
        dx, dy = (256.0, -30.0) if case == "wrong pointing" else rng.uniform(-41, 41, 2)
        reference = observe(rng, x, y, flux)
        if case == "foreign field":
            x, y, flux = sky(rng, number)
        result = match_sources(
            observe(rng, x - dx, y - dy, flux), reference, search_radius=SEARCH, match_radius=MATCH
        )
        accepted += result.accepted
        if result.accepted:
            assert case == "same field", result.reason
            assert np.hypot(result.dx - dx, result.dy - dy) < 0.2
        assert result.reason
    if case == "same field" and number >= 20:
        # With 20 stars a few fields have less than five in common.
        assert accepted >= (55 if number == 20 else 60)


def test_one_bright_star_is_believed_near_its_place_only_when_the_fluxes_agree():
    def one(x, flux):
        return Sources(*(np.array([value]) for value in (x, 500.0, flux, 300.0, 0.02, False)))

    reference = one(500.0, 1e5)
    good = match_sources(one(497.0, 1.05e5), reference, search_radius=SEARCH, match_radius=MATCH)
    assert good.accepted
    assert good.dx == pytest.approx(3)
    for frame, word in (
        (one(497.0, 5e4), "flux ratio"),
        (one(497.0, 2e3), "S/N"),
        (one(460.0, 1e5), "far from"),
    ):
        result = match_sources(frame, reference, search_radius=SEARCH, match_radius=MATCH)
        assert not result.accepted
        assert word in result.reason
    second = Sources(
        np.array([500.0, 510.0]),
        np.array([500.0, 490.0]),
        np.array([1e5, 9e4]),
        np.full(2, 300.0),
        np.full(2, 0.02),
        np.zeros(2, bool),
    )
    assert not match_sources(one(497.0, 1e5), second, search_radius=SEARCH, match_radius=MATCH).accepted


def test_without_sources_the_refusal_has_the_numbers():
    none = positions(np.zeros(0), np.zeros(0))
    some = positions(np.ones(4), np.arange(4.0))
    result = match_sources(none, some, search_radius=SEARCH, match_radius=MATCH)
    assert not result.accepted
    assert "0 in the frame, 4 in the reference" in result.reason


def test_saturated_sources_do_not_pull_the_shift():
    rng = np.random.default_rng(2)
    x, y, flux = sky(rng, 40, margin=0)
    reference, frame = (observe(rng, x, y, flux, found=1, spurious=0) for _ in range(2))
    bright = frame.flux > np.quantile(frame.flux, 0.8)
    frame = Sources(frame.x + 0.8 * bright, frame.y, frame.flux, frame.flux_error, frame.error, bright)
    result = match_sources(frame, reference, search_radius=SEARCH, match_radius=MATCH)
    assert result.accepted
    assert abs(result.dx) < 0.05


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, 4.0])
def test_rotation_and_magnification_are_found_when_asked_for(angle):
    rng = np.random.default_rng(3)
    x, y, flux = sky(rng, 80)
    cos, sin = np.cos(np.deg2rad(angle)) * 1.004, np.sin(np.deg2rad(angle)) * 1.004
    # Positions in the frame, such that the fitted transformation carries them back.
    matrix = np.linalg.inv(np.array([[cos, -sin], [sin, cos]]))
    u, v = matrix @ np.array([x - 512 - 5, y - 512 + 8])
    result = match_sources(
        observe(rng, u + 512, v + 512, flux), observe(rng, x, y, flux),
        search_radius=SEARCH, match_radius=MATCH, rotate=True, scale=True, centre=(512.0, 512.0),
    )  # fmt: skip
    assert result.accepted, result.reason
    assert result.angle == pytest.approx(angle, abs=0.01)
    assert result.scale == pytest.approx(1.004, abs=2e-4)
    assert (result.dx, result.dy) == pytest.approx((5, -8), abs=0.05)
    matrix, offset = result.matrix()
    carried = matrix @ np.array([v[0] + 512, u[0] + 512]) + offset
    assert carried == pytest.approx([y[0], x[0]], abs=0.1)


def test_pairs_that_come_about_by_chance_are_refused_as_such():
    rng = np.random.default_rng(21)
    for _ in range(10):
        crowd, other = (positions(*rng.uniform(0, 400, (2, 250))) for _ in range(2))
        result = match_sources(crowd, other, search_radius=SEARCH, match_radius=MATCH)
        assert not result.accepted
        assert result.n_matched >= 3
        assert "accident" in result.reason


def test_a_source_that_claims_too_small_an_error_does_not_rule_the_shift():
    rng = np.random.default_rng(22)
    shifts = []
    for _ in range(40):
        x, y = rng.uniform(0, 1024, (2, 30))
        error = np.r_[0.001, np.full(29, 0.05)]
        frame = positions(x + rng.normal(0, 0.1, 30), y + rng.normal(0, 0.1, 30), error)
        result = match_sources(frame, positions(x, y, error), search_radius=SEARCH, match_radius=MATCH)
        shifts += [result.dx, result.dy]
    assert np.std(shifts) < 1.35 * 0.1 / np.sqrt(30)


def test_pairs_are_one_to_one_and_the_closest_first():
    i, j = pair_sources(np.array([0.0, 1.0]), np.zeros(2), np.array([0.9, 5.0]), np.zeros(2), 2.0)
    assert (i.tolist(), j.tolist()) == ([1], [0])


def image(rng, stars, dx=0.0, dy=0.0, size=384):
    out = rng.normal(50, 20, (size, size)).astype(np.float32)
    y, x = np.mgrid[-12:13, -12:13]
    for x0, y0, flux in stars:
        px, py = x0 + dx, y0 + dy
        ix, iy = round(px), round(py)
        if 13 < ix < size - 14 and 13 < iy < size - 14:
            out[iy - 12 : iy + 13, ix - 12 : ix + 13] += (
                flux / (8 * np.pi) * np.exp(-((x - px + ix) ** 2 + (y - py + iy) ** 2) / 8)
            )
    return out


def field(rng, number, size=384):
    return np.column_stack([rng.uniform(0, size, (number, 2)), 10 ** rng.uniform(3.5, 5, number)])


def test_the_correlation_finds_the_shift_of_a_star_field():
    rng = np.random.default_rng(4)
    for _ in range(4):
        stars = field(rng, 30)
        dx, dy = rng.uniform(-35, 35, 2)
        result = cross_correlation_shift(image(rng, stars), image(rng, stars, dx, dy), max_shift=43)
        assert result.accepted, result.reason
        assert (result.dx, result.dy) == pytest.approx((dx, dy), abs=0.1)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 30])
def test_the_correlation_accepts_nothing_wrong(number):
    rng = np.random.default_rng(number)
    for _ in range(4):
        stars = field(rng, number)
        dx, dy = rng.uniform(-35, 35, 2)
        frame = image(rng, stars)
        result = cross_correlation_shift(frame, image(rng, stars, dx, dy), max_shift=43)
        if result.accepted:
            assert np.hypot(result.dx - dx, result.dy - dy) < 0.2
        assert not cross_correlation_shift(frame, image(rng, field(rng, number)), max_shift=43).accepted


def test_a_pattern_of_the_detector_is_not_taken_for_the_sky():
    rng = np.random.default_rng(6)
    pattern = field(rng, 40)
    frame, reference = image(rng, pattern), image(rng, pattern)
    result = cross_correlation_shift(frame, reference, max_shift=43, avoid=(0.0, 0.0))
    assert not result.accepted
    assert "stays with the detector" in result.reason


@pytest.mark.parametrize(
    ("shift", "moved"), [((12.0, -7.0), False), ((-7.0, 12.0), True), ((12.0, 7.0), True)]
)
def test_a_shift_is_that_of_a_pattern_only_if_both_axes_agree(shift, moved):
    rng = np.random.default_rng(16)
    stars = field(rng, 40)
    frame, reference = image(rng, stars), image(rng, stars, *shift)
    result = cross_correlation_shift(frame, reference, max_shift=43, avoid=(12.0, -7.0))
    assert (result.dx, result.dy) == pytest.approx(shift, abs=0.1)
    assert result.accepted == moved


def test_isolated_hot_pixels_do_not_align_images():
    rng = np.random.default_rng(7)
    stars = field(rng, 30)
    frame, reference = image(rng, stars), image(rng, stars, 10.4, -20.7)
    hot = rng.integers(0, 384, (2, 3000))
    frame[hot[0], hot[1]] += 2000
    reference[hot[0], hot[1]] += 2000
    result = cross_correlation_shift(frame, reference, max_shift=43)
    assert result.accepted
    assert (result.dx, result.dy) == pytest.approx((10.4, -20.7), abs=0.15)


def test_one_bright_star_in_common_does_not_align_two_fields():
    rng = np.random.default_rng(8)
    for _ in range(3):
        first, second = (field(rng, 40) for _ in range(2))
        first[:, 2] *= 0.3
        second[:, 2] *= 0.3
        first[0] = second[0] = (190.0, 200.0, 1e6)
        result = cross_correlation_shift(image(rng, first), image(rng, second, 5, 5), max_shift=43)
        assert not result.accepted
        assert "most of what" in result.reason


@given(
    st.integers(0, 40),
    st.integers(0, 40),
    st.floats(0.5, 30),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_pairs_are_those_of_a_search_through_all(
    n: int, n_ref: int, radius: float, seed: int, on_grid: bool
) -> None:
    rng = np.random.default_rng(seed)
    own, other = (rng.uniform(0, 60, (2, k)) for k in (n, n_ref))
    if on_grid:
        # Many equal distances, and some of exactly the radius.
        own, other, radius = np.round(own), np.round(other), float(np.round(radius))
    wanted = []
    distance = np.hypot(own[0][:, None] - other[0], own[1][:, None] - other[1])
    order = sorted((d, i, j) for (i, j), d in np.ndenumerate(distance) if d <= radius)
    for _, i, j in order:
        if all(i != a and j != b for a, b in wanted):
            wanted.append((i, j))
    i, j = pair_sources(*own, *other, radius)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == sorted(wanted)


def test_a_position_that_is_not_a_number_has_no_partner() -> None:
    x = np.array([1.0, np.nan, 5.0])
    i, j = pair_sources(x, np.ones(3), np.array([np.nan, 5.0, 1.0]), np.array([1.0, 1.0, np.nan]), 2.0)
    assert (i.tolist(), j.tolist()) == ([2], [1])


@given(st.integers(0, 500), st.floats(0, 2000))
def test_the_chance_of_accidents_is_that_of_poisson(number: int, expected: float) -> None:
    chance = gammainc(number, max(expected, 1e-12)) if number else 1.0
    if chance > 1e-280:
        assert _surprise(number, expected) == pytest.approx(-np.log10(chance), rel=1e-9, abs=1e-10)
    else:
        assert _surprise(number, expected) >= 280


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 100))
def test_values_are_combined_over_squares(ny: int, nx: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 50, (ny, nx)).astype(float)
    assert np.array_equal(_over_square(values, 3, np.add), convolve(values, np.ones((3, 3)), mode="constant"))
    assert np.array_equal(_over_square(values, 5, np.maximum), maximum_filter(values, 5))


def test_a_pair_is_one_candidate_and_what_it_cannot_be_is_another():
    frame = positions(np.array([100.0]), np.array([80.0]))
    reference = positions(np.array([103.3, 200.0]), np.array([78.2, 80.0]))
    places = vote(frame.x, frame.y, frame, reference, 120.0, 2.0)
    assert len(places) == 2
    shifts = sorted((dx, dy) for _, dx, dy in places)
    np.testing.assert_allclose(shifts, [(3.3, -1.8), (100.0, 0.0)], atol=0.6)
