"""Noise that skies bring into a stack, against the scatter of stacks of random numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.shared_skies import (
    SharedSkies,
    add_shared,
    frame_covariance,
    kernel_overlap,
    shared_skies,
)

DRAWN = 60_000
UNUSABLE = np.uint16(1)


def nod(pattern: str, number: int) -> list[int]:
    """Return the position of each frame."""
    return ["AB".index(pattern[k % len(pattern)]) for k in range(number)]


def others(pointings, reach=99):
    """The skies of each frame: the frames at other pointings, within `reach` in the sequence."""
    return [
        [j for j, other in enumerate(pointings) if other != pointing and abs(i - j) <= reach]
        for i, pointing in enumerate(pointings)
    ]


def table(skies, exposures):
    found = np.zeros((len(skies), exposures), bool)
    for row, names in zip(found, skies, strict=True):
        row[names] = True
    return found


def stack_noise(pointings, skies, noise, combine=np.median, weights=None, scales=None):
    """Scatter of a stack over what independent frames would give; each pointing is another detector pixel.

    `noise` is the deviation of each exposure; the frames are the first of them.
    """
    rng = np.random.default_rng(5)
    n = len(pointings)
    weights = np.ones(n) if weights is None else weights
    scales = np.ones(n) if scales is None else scales
    total, alone = np.zeros(DRAWN), 0.0
    for pointing in sorted(set(pointings)):
        exposures = rng.normal(size=(len(noise), DRAWN)) * np.array(noise)[:, None]
        for i in (k for k in range(n) if pointings[k] == pointing):
            frame = exposures[i] - scales[i] * combine(exposures[skies[i]], axis=0)
            total += weights[i] * frame
            alone += weights[i] ** 2 * frame.var()
    return total.var() / alone


def predicted(pointings, skies, variance, share, weights=None, exposures=None):
    n = len(pointings)
    exposures = n if exposures is None else exposures
    own = np.eye(n, exposures, dtype=bool)
    covariance = frame_covariance(
        np.asarray(variance, float), np.asarray(share, float), table(skies, exposures), own
    )
    positions = np.array([[100.0 * pointing, 0.0] for pointing in pointings])
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    found = shared_skies(covariance, positions, weights, np.ones(n))
    return 1.0 if found is None else found.factor


def of_medians(skies, combine=np.median):
    """Variance and share of the sky of frames of unit noise."""
    rng = np.random.default_rng(8)
    part = {n: combine(rng.normal(size=(n, 200_000)), axis=0).var() for n in {len(s) for s in skies}}
    noise = np.array([part[len(s)] for s in skies])
    return 1 + noise, noise / (1 + noise)


@pytest.mark.parametrize("combine", [np.median, np.mean])
@pytest.mark.parametrize("reach", [99, 5])
@pytest.mark.parametrize("number", [4, 8, 20])
@pytest.mark.parametrize("pattern", ["AB", "ABBA"])
def test_nods_that_are_each_others_skies(pattern, number, reach, combine):
    pointings = nod(pattern, number)
    skies = others(pointings, reach)
    measured = stack_noise(pointings, skies, np.ones(number), combine)
    assert measured > 1.2
    assert predicted(pointings, skies, *of_medians(skies, combine)) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_dithers_on_the_source(repeats):
    pointings = [k % 5 for k in range(5 * repeats)]
    skies = others(pointings)
    measured = stack_noise(pointings, skies, np.ones(len(pointings)))
    assert predicted(pointings, skies, *of_medians(skies)) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("targets", "few"), [(12, 3), (6, 2), (9, 1)])
def test_many_targets_with_few_skies(targets, few):
    skies = [list(range(targets, targets + few))] * targets
    measured = stack_noise([0] * targets, skies, np.ones(targets + few))
    assert measured > 2
    found = predicted([0] * targets, skies, *of_medians(skies), exposures=targets + few)
    assert found == pytest.approx(measured, rel=0.04)


def test_frames_at_one_pointing_that_are_each_others_skies_cancel():
    # As blank frames that are not dithered: what one frame has, the skies of the others lack.
    pointings = [0] * 6
    skies = [[j for j in range(6) if j != i] for i in range(6)]
    measured = stack_noise(pointings, skies, np.ones(6), np.mean)
    assert measured < 0.1
    assert predicted(pointings, skies, *of_medians(skies, np.mean)) == pytest.approx(0.1)
    near = [[j for j in range(6) if abs(i - j) == 1] for i in range(6)]
    measured = stack_noise(pointings, near, np.ones(6), np.mean)
    assert measured < 0.5
    assert predicted(pointings, near, *of_medians(near, np.mean)) == pytest.approx(measured, abs=0.05)


def test_scaled_skies_of_a_sky_that_grows():
    # The level, and with it the noise of each exposure, changes by a fifth; skies are scaled to each frame.
    number = 8
    noise = np.linspace(1, 1.2, number)
    pointings = nod("AB", number)
    skies = others(pointings)
    rng = np.random.default_rng(2)
    variance, share, total, alone = [], [], 0.0, 0.0
    exposures = {pointing: rng.normal(size=(number, DRAWN)) * noise[:, None] for pointing in (0, 1)}
    for i, pointing in enumerate(pointings):
        # Level and noise are in proportion, as where the instrument itself glows and noise is relative.
        scaled = exposures[pointing][skies[i]] * (noise[i] / noise[skies[i]])[:, None]
        sky = np.median(scaled, axis=0)
        frame = exposures[pointing][i] - sky
        total, alone = total + frame, alone + frame.var()
        variance.append(frame.var())
        share.append(sky.var() / frame.var())
    assert predicted(pointings, skies, variance, share) == pytest.approx(total.var() / alone, rel=0.04)


def test_weights_and_frames_of_different_noise():
    pointings, skies = [0] * 4, [[4, 5, 6]] * 4
    noise, weights = np.array([1.0, 1.5, 1.0, 2.0, 1.0, 1.0, 1.0]), np.array([1.0, 0.7, 1.0, 0.4])
    sky = of_medians([[4, 5, 6]])[0][0] - 1
    variance = noise[:4] ** 2 + sky
    measured = stack_noise(pointings, skies, noise, weights=weights)
    assert predicted(pointings, skies, variance, sky / variance, weights, exposures=7) == pytest.approx(
        measured, rel=0.04
    )


def test_a_stacked_sky_under_the_name_of_a_frame_is_not_taken_for_that_frame():
    covariance = frame_covariance(
        np.full(2, 1.25), np.full(2, 0.2), np.array([[True, False]] * 2), np.eye(2, dtype=bool)
    )
    assert covariance[0, 1] == pytest.approx(0.25)


def interpolated(noise, shift):
    """Cubic interpolation of rows at ``k + shift`` by Lagrange's formula, written out."""
    whole = int(np.floor(shift))
    t = shift - whole
    nodes = [-1, 0, 1, 2]
    weights = [np.prod([(t - m) / (n - m) for m in nodes if m != n]) for n in nodes]
    return sum(w * np.roll(noise, -(whole + n), axis=-1) for w, n in zip(weights, nodes, strict=True))


@pytest.mark.parametrize("shifts", [(0.0, 0.0), (0.3, 0.3), (0.3, 0.6), (-0.2, 0.9), (0.5, 2.1), (0.0, 5.0)])
def test_the_overlap_is_the_correlation_of_interpolated_pixels(shifts):
    noise = np.random.default_rng(3).normal(size=400_000)
    a, b = (interpolated(noise, shift) for shift in shifts)
    found = kernel_overlap(np.array([[7.0, shift] for shift in shifts]))
    assert found[0, 1] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=0.01)
    assert found[0, 0] == pytest.approx(1)


def test_frames_of_different_pointings_share_nothing():
    covariance = np.full((3, 3), 0.5) + np.diag([0.5] * 3)
    far = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    assert shared_skies(covariance, far, np.ones(3), np.ones(3)) is None
    # Near enough for an aperture to see the same noise.
    near = np.array([[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]])
    found = shared_skies(covariance, near, np.ones(3), np.full(3, 2.0))
    assert found is not None
    assert found.aperture == pytest.approx(2 * 6 * 0.5 / 3)
    assert 1 < found.factor < 2
    assert found.correlation(2.0) == pytest.approx((2 + 2) / found.factor)


def test_pixels_that_lack_frames_share_less():
    shared = SharedSkies((np.array([0, 1, 2]), np.array([3, 4])), (0.6, 0.2), 0.8)
    shape = (30, 20)
    masks = [np.zeros(shape, np.uint16) for _ in range(5)]
    masks[3][:, 5:] = masks[4][:, 5:] = 1  # the second group
    masks[0][:, 10:] = 1
    masks[1][:, 15:] = masks[2][:, 15:] = 1  # nothing is usable, one is used all the same
    count = np.repeat([5, 3, 2, 1], 5)
    count = np.broadcast_to(count, shape).astype(np.uint8)
    variance = (10.0 / count).astype(np.float32)
    add_shared(variance, count, shared, masks, UNUSABLE)
    ratio = variance * count / 10
    assert ratio[:, :5] == pytest.approx(1.8)
    # Three frames of one group: their six covariances over three variances.
    assert ratio[:, 5:10] == pytest.approx(1 + 0.6 * 5 / 3)
    assert ratio[:, 10:15] == pytest.approx(1 + 0.6 / 3 * 5 / 2)
    assert ratio[:, 15:] == pytest.approx(1)


def test_the_noise_of_a_star_is_its_own():
    shared = SharedSkies((np.arange(4),), (0.8,), 0.8)
    variance = np.full((20, 20), 5.0, np.float32)
    variance[3, 3] = 500.0
    add_shared(variance, np.full((20, 20), 4, np.uint8), shared, [None] * 4, UNUSABLE)
    assert variance[0, 0] == pytest.approx(9.0)
    assert variance[3, 3] == pytest.approx(508.0)
