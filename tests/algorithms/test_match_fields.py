"""Random fields of 0 to 300 stars, as catalogues: no shift is wrong unless it says so, none is lost in vain.

Truth, noise and distortion are made here, from numbers of the optics and the formula for centring in noise,
fwhm / (2.355 S/N) per axis; nothing of niripipe's goes into them.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from niripipe.algorithms.match import match_sources
from niripipe.algorithms.register import Sources

SIZE, SCALE = 1024, 0.1171
SEARCH, MATCH = 5.0 / SCALE, 0.5 / SCALE
NOISE = 30.0
"""Noise of a pixel, electrons."""


class Optics:
    """Positions on the detector of positions on the sky, both from the middle of the field, in pixels."""

    def __init__(self, k=0.0):
        # Gemini's page for f/32 with Altair: r' = r + k r^2, k = 1.32e-5.
        self.k = k

    def __call__(self, x, y):
        factor = 1 + self.k * np.hypot(x, y)
        return x * factor, y * factor


def catalogue(rng, x, y, flux, fwhm):
    """What a detection would list of stars at (x, y): above S/N 5, with errors, and one spurious in ten."""
    inside = (np.abs(x) < SIZE / 2) & (np.abs(y) < SIZE / 2)
    # Noise in an aperture of twice the FWHM.
    noise = np.sqrt(np.pi * fwhm**2 * NOISE**2 + flux)
    seen = inside & (flux > 5 * noise) & (rng.random(x.size) < 0.97)
    x, y, flux, noise = x[seen], y[seen], flux[seen], noise[seen]
    error = fwhm / (2.355 * flux / noise)
    extra = rng.poisson(0.1 * x.size)
    faint = np.sqrt(np.pi) * fwhm * NOISE
    columns = (
        np.r_[x + rng.normal(0, 1, x.size) * error, rng.uniform(-SIZE / 2, SIZE / 2, extra)] + SIZE / 2,
        np.r_[y + rng.normal(0, 1, x.size) * error, rng.uniform(-SIZE / 2, SIZE / 2, extra)] + SIZE / 2,
        np.r_[flux + rng.normal(0, 1, x.size) * noise, rng.uniform(5, 10, extra) * faint],
        np.r_[noise, np.full(extra, faint)],
        np.r_[error, np.full(extra, fwhm / 2.355 / 7)],
    )
    return Sources(*columns, np.zeros(x.size + extra, bool), fwhm)


def stars(rng, number):
    return (*rng.uniform(-0.6 * SIZE, 0.6 * SIZE, (2, number)), 10 ** rng.uniform(3.2, 5.7, number))


def trial(rng, number, pointing, *, k=0.0, foreign=False):
    """One frame and its reference. Return the result, its error in pixels, and the harmless one."""
    optics = Optics(k)
    fwhm = float(np.exp(rng.uniform(np.log(3), np.log(25))))
    widths = fwhm * rng.uniform(0.9, 1.1, 2)
    x, y, flux = stars(rng, number)
    dither = rng.uniform(-60, 60, 2)
    error = rng.normal(0, pointing / SCALE / np.sqrt(2), 2).clip(-0.95 * SEARCH, 0.95 * SEARCH)
    reference = catalogue(rng, *optics(x, y), flux, widths[0])
    # The header says that the frame is displaced by the dither; truly it is by that and the error.
    if foreign:
        x, y, flux = stars(rng, number)
    frame = catalogue(rng, *optics(x - dither[0] - error[0], y - dither[1] - error[1]), flux, widths[1])
    carried = Sources(
        reference.x - dither[0], reference.y - dither[1], reference.flux, reference.flux_error,
        reference.error, reference.suspect, reference.fwhm,
    )  # fmt: skip
    result = match_sources(frame, carried, search_radius=SEARCH, match_radius=MATCH)
    # Mean displacement over what the two share.
    gx, gy = np.meshgrid(*[np.linspace(-SIZE / 2, SIZE / 2, 33)] * 2)
    ax, ay = optics(gx, gy)
    bx, by = optics(gx - dither[0] - error[0], gy - dither[1] - error[1])
    both = (np.abs(bx) < SIZE / 2) & (np.abs(by) < SIZE / 2)
    true = (ax - dither[0] - bx)[both].mean(), (ay - dither[1] - by)[both].mean()
    off = float(np.hypot(result.dx - true[0], result.dy - true[1]))
    return result, off, max(0.2, 0.05 * min(widths))


def counted(rng, trials, number, pointing, **given):
    """Return how many shifts were accepted, doubtful, wrong without and with doubt, and pulls."""
    counts, pulls = Counter(), []
    for _ in range(trials):
        result, off, harmless = trial(rng, number, pointing, **given)
        kind = "refused" if not result.accepted else "doubtful" if result.doubt else "sure"
        counts[kind] += 1
        if result.accepted:
            counts[f"{kind}, wrong"] += off > harmless
            counts["far off"] += off > 4 * harmless
            pulls.append(off / result.error / np.sqrt(2))
    return counts, np.array(pulls)


def table(trials=100):
    """Print the whole experiment."""
    for k in (0.0, 1.32e-5):
        for foreign in (False, True):
            for pointing in (0.0, 0.3, 5.0):
                for number in (0, 1, 2, 3, 5, 10, 20, 60, 300):
                    rng = np.random.default_rng([number, int(10 * pointing), foreign])
                    counts, pulls = counted(rng, trials, number, pointing, k=k, foreign=foreign)
                    pull = np.sqrt(np.mean(pulls**2)) if pulls.size else np.nan
                    print(f"{k:8.3g} {foreign!s:5} {pointing:4} {number:4} pull {pull:5.2f}", dict(counts))


@pytest.mark.parametrize("number", [1, 2, 3, 5, 20, 300])
@pytest.mark.parametrize("pointing", [0.0, 0.3, 5.0])
def test_a_shift_beyond_doubt_is_never_wrong_and_a_doubtful_one_not_by_much(number, pointing):
    rng = np.random.default_rng([number, int(10 * pointing)])
    counts, pulls = counted(rng, 8 if number == 300 else 25, number, pointing)
    assert counts["sure, wrong"] == 0
    assert counts["far off"] == 0
    # A doubtful shift is within what its error says.
    assert pulls.size == 0 or pulls.max() < 3.5
    if number >= 20:
        # At a seeing of 25 pixels, 20 stars are hardly more than two that can be seen.
        assert counts["refused"] <= (number == 20)


@pytest.mark.parametrize("number", [1, 3, 20, 300])
def test_a_frame_of_another_field_is_never_matched(number):
    rng = np.random.default_rng(number)
    counts, _ = counted(rng, 4 if number == 300 else 25, number, 0.3, foreign=True)
    assert counts["sure"] == counts["doubtful"] == 0


def test_distortion_costs_no_frame_and_is_in_the_error():
    for number in (8, 20):
        rng = np.random.default_rng(number)
        counts, pulls = counted(rng, 30, number, 0.3, k=1.32e-5)
        assert counts["refused"] <= 1
        assert counts["sure, wrong"] == counts["far off"] == 0
        assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.3


def one(x, y, snr, fwhm=5.0):
    """Stars of a given S/N at (x, y), without noise."""
    snr = np.asarray(snr, float)
    error = fwhm / 2.355 / snr
    return Sources(np.array(x, float), np.array(y, float), 100 * snr, np.full(snr.size, 100.0), error,
                   np.zeros(snr.size, bool), fwhm)  # fmt: skip


def test_one_pair_has_the_floor_of_its_error_and_two_their_disagreement():
    def match(frame, reference):
        return match_sources(frame, reference, search_radius=SEARCH, match_radius=MATCH)

    single = match(one([500], [500], [2000]), one([502], [500], [2000]))
    assert single.accepted
    assert not single.doubt
    assert 0.05 <= single.error < 0.08
    # Two bright stars, 0.8 pixel from each other's shift: each is 0.4 from the mean.
    pair = match(one([500, 300], [500, 200], [900, 900]), one([502.4, 301.6], [500, 200], [900, 900]))
    assert pair.accepted
    assert pair.dx == pytest.approx(2, abs=0.01)
    assert "disagree" in pair.doubt
    # Scatter per axis of two values 0.8 apart on one axis: 0.4; of their mean 0.28, at least.
    assert 0.28 < pair.error < 0.5
    # With a difference of half the FWHM they are not the same stars.
    assert not match(
        one([500, 300], [500, 200], [900, 900]), one([503, 300], [500, 200], [900, 900])
    ).accepted


def test_pairs_of_a_distorted_field_count_alike_and_the_error_covers_what_the_brightest_is_off():
    # As on a real night: the bright star's shift is 0.7 pixel from that of the two faint ones.
    x, y = np.array([287.0, 422.0, 274.0]), np.array([278.0, 702.0, 818.0])
    bright = one(x, y, [900, 73, 42], 8.0)
    reference = one(x + np.array([0.0, 0.7, 0.7]), y, [900, 73, 42], 8.0)
    result = match_sources(bright, reference, search_radius=SEARCH, match_radius=MATCH)
    assert result.accepted
    # Two of three at 0.7.
    assert result.dx == pytest.approx(0.467, abs=0.03)
    # By hand: variance of (0, 0.7, 0.7) and of three zeros, four degrees of freedom.
    assert result.error > np.sqrt(0.3267 / 4 / 3)
    assert result.dx < 3 * result.error
    assert "uncertain" in result.doubt


def test_the_brightest_star_rules_where_noise_is_what_differs():
    rng = np.random.default_rng(8)
    shifts = []
    for _ in range(50):
        x, y, snr = *rng.uniform(100, 900, (2, 6)), np.array([500, 20, 20, 20, 20, 20])
        frame = one(x + rng.normal(0, 1, 6) * 5 / 2.355 / snr, y + rng.normal(0, 1, 6) * 5 / 2.355 / snr, snr)
        result = match_sources(frame, one(x, y, snr), search_radius=SEARCH, match_radius=MATCH)
        shifts += [result.dx, result.dy]
    # The bright one alone is good to 0.004, the mean of all to 0.04; positions are floored at 0.01.
    assert np.std(shifts) < 0.025


def test_without_a_known_width_the_limits_are_those_in_pixels():
    x, y = np.array([287.0, 422.0, 274.0]), np.array([278.0, 702.0, 818.0])
    frame, reference = (one(x + d, y, [900, 73, 42], np.nan) for d in (0.0, np.array([0.0, 0.3, 0.6])))
    frame, reference = (
        Sources(s.x, s.y, s.flux, s.flux_error, np.full(3, 0.02), s.suspect) for s in (frame, reference)
    )
    result = match_sources(frame, reference, search_radius=SEARCH, match_radius=MATCH)
    assert not result.accepted
    assert "too uncertain" in result.reason


if __name__ == "__main__":
    table()
