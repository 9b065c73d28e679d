"""Rejection by a noise model, on stacks of which the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from niripipe.algorithms.combine import Combined, NoiseModel, combine
from niripipe.errors import ParameterError

SIZE = 128
SKY = 3000.0
READ_NOISE = 35.0


@dataclass
class Stack:
    """Frames of one field: sky-subtracted electrons, and what is in them."""

    data: np.ndarray
    variance: np.ndarray
    hits: np.ndarray
    truth: np.ndarray
    positions: np.ndarray


def _stars(positions: np.ndarray, fluxes: np.ndarray, fwhm: float, dx: float, dy: float) -> np.ndarray:
    """Moffat profiles with beta = 3."""
    y, x = np.mgrid[:SIZE, :SIZE]
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    image = np.zeros((SIZE, SIZE))
    for (py, px), flux in zip(positions, fluxes, strict=True):
        r2 = (x - px - dx) ** 2 + (y - py - dy) ** 2
        image += flux * 2 / np.pi / alpha**2 * (1 + r2 / alpha**2) ** -3
    return image


def _simulate(
    seed: int,
    n: int = 4,
    *,
    hits: int = 0,
    fluxes: tuple[float, ...] = (2e4, 2e5, 1e6, 3e6),
    seeing: float = 0.1,
    registration: float = 0.1,
    interpolated: bool = False,
) -> Stack:
    rng = np.random.default_rng(seed)
    grid = (np.arange(3) + 0.5) * SIZE / 3
    positions = np.array([(y, x) for y in grid for x in grid]) + rng.uniform(-2, 2, (9, 2))
    flux = np.resize(fluxes, 9)
    data, variance, marks = [], [], []
    for _ in range(n):
        fwhm = 4.5 * (1 + rng.uniform(-seeing, seeing))
        dx, dy = rng.uniform(-registration, registration, 2)
        sx, sy = rng.uniform(-0.5, 0.5, 2) if interpolated else (0.0, 0.0)
        light = SKY + _stars(positions, flux, fwhm, dx + sx, dy + sy)
        frame = rng.poisson(light) + rng.normal(0, READ_NOISE, light.shape)
        hit = np.zeros_like(light)
        for _ in range(hits):
            y, x = rng.integers(4, SIZE - 4, 2)
            hit[y, x] += 1500 + rng.exponential(3000)
            if rng.random() < 0.5:
                hit[y, x + 1] += hit[y, x] * rng.random()
        frame += hit
        spread = np.maximum(frame, 0) + READ_NOISE**2
        frame -= SKY
        if interpolated:
            frame, hit = (ndimage.shift(plane, (-sy, -sx), order=3, mode="nearest") for plane in (frame, hit))
            spread = ndimage.shift(spread, (-sy, -sx), order=1, mode="nearest")
        data.append(frame)
        variance.append(spread)
        marks.append(hit)
    truth = _stars(positions, flux, 4.5, 0, 0)
    return Stack(
        np.array(data, np.float32), np.array(variance, np.float32), np.array(marks), truth, positions
    )


def _clip(stack: Stack, limit: float = 4.0, noise: NoiseModel | None = None) -> Combined:
    return combine(
        stack.data,
        stack.variance,
        reject="noiseclip",
        hsigma=limit,
        lsigma=limit,
        noise=noise,
    )


def _fluxes(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.array([image[np.hypot(y - py, x - px) < 9].sum() for py, px in positions])


def _left(stack: Stack, result: Combined) -> tuple[int, int]:
    """Hits away from stars that stand more than five sigma above the stack, and how many there are."""
    clean = (stack.data - stack.hits.astype(np.float32)).mean(axis=0)
    residual = np.abs(result.data - clean) / np.sqrt(result.variance)
    standing = ndimage.maximum_filter(residual, 3) > 5
    hit = (stack.hits.max(axis=0) > 500) & (stack.truth < 50)
    return int((standing & hit).sum()), int(hit.sum())


@pytest.mark.parametrize("interpolated", [False, True])
@pytest.mark.parametrize("n", [4, 5, 8])
def test_less_than_two_per_cent_of_cosmic_rays_are_left(n: int, interpolated: bool) -> None:
    left = total = 0
    for seed in range(3):
        stack = _simulate(seed, n, hits=30, interpolated=interpolated)
        standing, hits = _left(stack, _clip(stack))
        left, total = left + standing, total + hits
    assert total > 200
    assert left / total < 0.02


def test_sigma_clipping_leaves_nearly_all_of_them() -> None:
    stack = _simulate(0, 4, hits=30)
    result = combine(stack.data, stack.variance, reject="sigclip")
    left, total = _left(stack, result)
    assert left / total > 0.9


@pytest.mark.parametrize("n", [2, 3])
def test_hits_are_found_among_two_or_three_frames(n: int) -> None:
    stack = _simulate(1, n, hits=30)
    left, total = _left(stack, _clip(stack))
    assert left / total < 0.03


def test_hits_in_half_of_the_frames_are_found() -> None:
    stack = _simulate(0, fluxes=(0.0,))
    stack.data[:2, 60, 60] += (4000, 9000)
    stack.variance[:2, 60, 60] += (4000, 9000)
    result = _clip(stack)
    assert result.count[60, 60] == 2
    assert abs(result.data[60, 60]) < 5 * np.sqrt(result.variance[60, 60])


@pytest.mark.parametrize(("seeing", "registration"), [(0.1, 0.1), (0.2, 0.1)])
def test_cores_of_stars_are_kept_when_seeing_and_registration_vary(
    seeing: float, registration: float
) -> None:
    biases = []
    for seed in range(3):
        stack = _simulate(seed, seeing=seeing, registration=registration)
        plain = combine(stack.data, stack.variance)
        biases.append(_fluxes(_clip(stack).data, stack.positions) / _fluxes(plain.data, stack.positions) - 1)
    bias = np.array(biases)
    bright = np.resize((2e4, 2e5, 1e6, 3e6), 9) > 1e5
    assert np.abs(bias[:, bright]).max() < 1e-3
    assert abs(bias.mean()) < 1e-3


def test_without_the_contrast_term_stars_would_lose_light() -> None:
    stack = _simulate(0)
    plain = combine(stack.data, stack.variance)
    bare = _clip(stack, noise=NoiseModel(contrast=0, fraction=0))
    assert np.abs(_fluxes(bare.data, stack.positions) / _fluxes(plain.data, stack.positions) - 1).max() > 0.01


@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("limit", [3.0, 4.0])
def test_pure_noise_is_neither_biased_nor_made_to_look_better_than_it_is(n: int, limit: float) -> None:
    shifts, pulls = [], []
    for seed in range(6):
        stack = _simulate(seed, n, fluxes=(0.0,))
        result = _clip(stack, limit)
        plain = combine(stack.data, stack.variance)
        shifts.append(((result.data - plain.data) / np.sqrt(plain.variance)).mean())
        pulls.append((result.data / np.sqrt(result.variance)).std())
    assert abs(np.mean(shifts)) < 0.01
    assert np.mean(pulls) == pytest.approx(1, abs=0.02)


def test_a_hit_cannot_hide_behind_the_variance_it_brings() -> None:
    # 30 sigma of the background, but 1.6 sigma of its own photon noise.
    data = np.zeros((4, 9, 9), np.float32)
    variance = np.full_like(data, 1.0)
    data[1, 4, 4] = 30
    variance[1, 4, 4] += 30 * 12
    hidden = combine(data, variance, reject="noiseclip", hsigma=5, lsigma=5, noise=NoiseModel(gain=np.inf))
    found = combine(data, variance, reject="noiseclip", hsigma=5, lsigma=5, noise=NoiseModel(gain=1 / 12))
    assert hidden.count[4, 4] == 4
    assert found.count[4, 4] == 3


def test_photon_noise_follows_the_scale_of_a_frame() -> None:
    # Scaled up by 4, the variance of an excess of 4 d electrons is 16 d.
    data = np.zeros((4, 9, 9), np.float32)
    variance = np.full_like(data, 1.0)
    variance[1] = 1 / 16
    data[1, 4, 4], variance[1, 4, 4] = 100 / 4, (1 + 400) / 16
    variance[1, 4, 4] = 1 / 16 + 100 / 4
    result = combine(data, variance, reject="noiseclip", hsigma=6, lsigma=6, scale=[1, 4, 1, 1])
    assert result.count[4, 4] == 3


def test_neighbours_of_a_hit_are_looked_at_twice() -> None:
    data = np.zeros((5, 9, 9), np.float32)
    data[0, 4, 4], data[0, 4, 5], data[0, 4, 7] = 50, 3, 3
    variance = np.ones_like(data)
    twice = combine(data, variance, reject="noiseclip", hsigma=5, lsigma=5)
    once = combine(
        data, variance, reject="noiseclip", hsigma=5, lsigma=5, noise=NoiseModel(neighbour_sigma=np.inf)
    )
    assert np.argwhere(twice.count < 5).tolist() == [[4, 4], [4, 5]]
    assert np.argwhere(once.count < 5).tolist() == [[4, 4]]


def test_flagged_inputs_take_no_part_in_the_judgement() -> None:
    data = np.zeros((4, 9, 9), np.float32)
    data[:2] = 1000
    data[3, 4, 4] = 50
    mask = np.zeros(data.shape, np.uint16)
    mask[:2] = 1
    result = combine(data, np.ones_like(data), mask, reject="noiseclip", hsigma=5, lsigma=5)
    assert np.argwhere(result.count != 2).tolist() == [[4, 4]]
    assert (result.data == 0).all()
    assert (result.mask == 0).all()


@pytest.mark.parametrize("level", [1000, -1000])
def test_pixels_without_data_do_not_count_as_contrast(level: float) -> None:
    data = np.full((4, 9, 9), level, np.float32)
    data[:, :, 5:] = np.nan
    data[2, 4, 4] += 20
    model = NoiseModel(background=level)
    result = combine(data, np.ones_like(data), reject="noiseclip", hsigma=5, lsigma=5, noise=model)
    assert result.count[4, 4] == 3
    assert (result.count[:, 5:] == 0).all()


@pytest.mark.parametrize(
    "settings", [{"gain": 0}, {"contrast": -1}, {"fraction": np.inf}, {"neighbour_sigma": np.nan}]
)
def test_an_impossible_model_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings))):
        NoiseModel(**settings)


def test_each_input_may_have_its_own_contrast() -> None:
    # One input is higher by twice the contrast of a ridge.
    data = np.zeros((4, 15, 15), np.float32)
    data[:] = 1000 * (np.arange(15) == 7)
    data[1] *= 3
    noise = np.ones_like(data)
    plain = combine(data, noise, reject="noiseclip", hsigma=4, lsigma=4)
    wide = NoiseModel(contrasts=(0.35, 0.6, 0.35, 0.35))
    allowed = combine(data, noise, reject="noiseclip", hsigma=4, lsigma=4, noise=wide)
    other = NoiseModel(contrasts=(0.6, 0.35, 0.6, 0.6))
    denied = combine(data, noise, reject="noiseclip", hsigma=4, lsigma=4, noise=other)
    assert (plain.count[:, 7] == 3).all()
    assert (allowed.count == 4).all()
    assert (denied.count[:, 7] == 3).all()


@pytest.mark.parametrize("background", [0.0, 500.0])
def test_inputs_of_other_flux_are_judged_at_one_flux(background: float) -> None:
    flux = np.array([1.2, 0.6, 1.0, 1.2])
    data = (background + 1000 * flux[:, None, None] * np.ones((4, 9, 9))).astype(np.float32)
    data[1, 4, 4] += 300
    model = NoiseModel(fluxes=tuple(flux), background=background)
    result = combine(data, np.full_like(data, 25), reject="noiseclip", hsigma=4, lsigma=4, noise=model)
    assert np.argwhere(result.count < 4).tolist() == [[4, 4]]
    # The mean of all four, also where one is rejected.
    np.testing.assert_allclose(result.data, background + 1000, rtol=1e-5)
    assert result.variance is not None
    assert result.variance[0, 0] == pytest.approx(25 / 4)
    factor = flux.mean() / flux[[0, 2, 3]].mean()
    assert result.variance[4, 4] == pytest.approx(25 / 3 * factor**2, rel=1e-5)
    assert result.rejected is not None
    np.testing.assert_allclose(result.rejected, [0, 1 / 81, 0, 0])


@pytest.mark.parametrize("settings", [{"contrasts": (1.0, 1.0)}, {"fluxes": (1.0,) * 5}])
def test_what_is_given_for_each_input_is_given_for_all(settings: dict[str, tuple[float, ...]]) -> None:
    data = np.zeros((4, 9, 9), np.float32)
    with pytest.raises(ParameterError, match=next(iter(settings))):
        combine(data, np.ones_like(data), reject="noiseclip", noise=NoiseModel(**settings))


@pytest.mark.parametrize("settings", [{"contrasts": (-1.0, 1.0)}, {"fluxes": (0.0, 1.0)}])
def test_an_impossible_input_is_refused(settings: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings))):
        NoiseModel(**settings)
