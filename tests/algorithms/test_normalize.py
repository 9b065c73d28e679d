from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.normalize import scale_factors, zero_offsets
from niripipe.algorithms.robust import fast_median
from niripipe.errors import AlgorithmError, DataError


def _golden_frames() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    base = rng.normal(1000, 20, (64, 64)).astype(np.float32)
    return [(base * f + rng.normal(0, 5, (64, 64))).astype(np.float32) for f in (1, 1.1, 0.8, 1.05)]


def test_pairwise_factors_reproduce_known_values() -> None:
    assert scale_factors(_golden_frames()) == pytest.approx([1, 0.909298, 1.250249, 0.952517], abs=2e-6)


def test_pairwise_offsets_reproduce_known_values() -> None:
    expected = [0, -99.886039, 199.994538, -49.938354]
    assert zero_offsets(_golden_frames()) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("method", ["pairwise", "reference"])
def test_true_levels_are_recovered_whatever_the_masks_and_objects(method: str) -> None:
    rng = np.random.default_rng(4)
    sky = rng.normal(0, 1, (5, 80, 80)) + 500 + np.linspace(0, 50, 80)
    factors, offsets = np.array([1, 1.2, 0.7, 1.01, 2.0]), np.array([0, 30, -200, 5, 1000.0])
    masks = [(rng.random((80, 80)) < 0.05).astype(np.uint16) for _ in range(5)]
    frames = []
    for i in range(5):
        frame = (sky[i]).copy()
        covered = np.zeros((80, 80), np.uint8)
        covered[10 * i : 10 * i + 30, 20:70] = 1
        frame[covered > 0] += 4000
        frame[masks[i] > 0] = np.nan if i % 2 else 1e6
        masks[i] |= covered
        frames.append(frame.astype(np.float32))
    scaled = [(f * s).astype(np.float32) for f, s in zip(frames, factors, strict=True)]
    shifted = [(f + o).astype(np.float32) for f, o in zip(frames, offsets, strict=True)]
    found = scale_factors(scaled, masks, method=method)  # type: ignore[arg-type]
    assert found[0] == 1
    assert found * factors == pytest.approx(np.ones(5), abs=1e-3)
    found = zero_offsets(shifted, masks, method=method)  # type: ignore[arg-type]
    assert found[0] == 0
    assert found + offsets == pytest.approx(np.zeros(5), abs=0.2)


def test_factors_relative_to_a_reference_are_not_biased_at_low_levels() -> None:
    rng = np.random.default_rng(8)
    frames = [(f * 10 + rng.normal(0, 10, (200, 200))).astype(np.float32) for f in (1.0, 2.0)]
    assert scale_factors(frames, method="reference")[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("method", ["pairwise", "reference"])
def test_only_the_section_counts(method: str) -> None:
    frames = [np.full((10, 10), 100, np.float32), np.full((10, 10), 50, np.float32)]
    frames[1][2:5, 3:6] = 25
    section = (slice(2, 5), slice(3, 6))
    assert scale_factors(frames, section=section, method=method)[1] == pytest.approx(4)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["pairwise", "reference"])
def test_identical_frames_give_ones_and_zeros(method: str) -> None:
    frames = [np.arange(100, dtype=np.float32).reshape(10, 10) + 1] * 3
    assert scale_factors(frames, method=method).tolist() == [1, 1, 1]  # type: ignore[arg-type]
    assert zero_offsets(frames, method=method).tolist() == [0, 0, 0]  # type: ignore[arg-type]


def test_frames_without_common_pixels_are_connected_through_others() -> None:
    frames = [np.full((2, 6), level, np.float32) for level in (10, 20, 40)]
    masks = [np.ones((2, 6), np.uint16) for _ in range(3)]
    masks[0][:, :3] = 0
    masks[1][:, 2:5] = 0
    masks[2][:, 4:] = 0
    assert scale_factors(frames, masks) == pytest.approx([1, 0.5, 0.25])
    masks[2][:, 4] = 1
    with pytest.raises(AlgorithmError, match="frames 2"):
        scale_factors(frames, masks)
    with pytest.raises(AlgorithmError, match="frame 2"):
        scale_factors(frames, masks, method="reference")


def test_unusable_input_is_refused() -> None:
    frames = [np.ones((3, 3), np.float32)] * 2
    with pytest.raises(DataError, match="shape"):
        zero_offsets([frames[0], np.ones((2, 2), np.float32)])
    with pytest.raises(AlgorithmError, match="not positive"):
        scale_factors([frames[0], -frames[0]], method="reference")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 60))
def test_the_median_is_exact(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2)).astype(np.float32)
    good = rng.random((n, 2)) < 0.6
    found = fast_median(values, good)
    if good.any():
        assert found == np.median(values[good])
    else:
        assert np.isnan(found)


@pytest.mark.parametrize("n", [50000, 50001, 200003])
def test_the_median_of_many_values_is_exact(n: int) -> None:
    rng = np.random.default_rng(n)
    smooth = rng.normal(100, 10, n).astype(np.float32)
    striped = smooth.copy()
    striped[:: n // 10000] = 1e6
    stepped = np.where(np.arange(n) < n // 2, 0, 1).astype(np.float32)
    for values in (smooth, striped, stepped, np.round(smooth), np.full(n, 3, np.float32)):
        assert fast_median(values) == np.median(values)
