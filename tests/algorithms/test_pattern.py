from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from niripipe.algorithms.pattern import Cleaned, clean_fft_readout, clean_readout, remove_offsets
from niripipe.algorithms.pattern.levels import measure_step
from niripipe.algorithms.pattern.quadrants import Tiles, prepared, source_boxes
from niripipe.algorithms.pattern.zones import find_zones, unit_strength
from niripipe.errors import DataError, ParameterError

Image = NDArray[np.float32]
METHODS = [clean_readout, clean_fft_readout]
NOISE = 30.0


def sky(size: int = 512, seed: int = 1, noise: float = NOISE) -> Image:
    return np.random.default_rng(seed).normal(0, noise, (size, size)).astype(np.float32)


def stars(
    size: int = 512, number: int = 15, seed: int = 2, fwhm: float = 4.7
) -> tuple[Image, NDArray[np.float64]]:
    """Gaussian stars without noise, and their x, y and flux."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(25, size - 25, (2, number))
    flux = 10 ** rng.uniform(4.5, 5.7, number)
    sigma = fwhm / 2.3548
    yy, xx = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for one in zip(x, y, flux, strict=True):
        near = (slice(int(one[1]) - 24, int(one[1]) + 25), slice(int(one[0]) - 24, int(one[0]) + 25))
        r2 = (xx[near] - one[0]) ** 2 + (yy[near] - one[1]) ** 2
        image[near] += one[2] / (2 * np.pi * sigma**2) * np.exp(-0.5 * r2 / sigma**2)
    return image.astype(np.float32), np.array([x, y, flux]).T


def readout(
    size: int = 512,
    *,
    first: float = 0.2,
    share: float = 0.39,
    amplitude: float = 60.0,
    offset: float = 0.0,
    seed: int = 3,
) -> Image:
    """Pattern of 8 columns in part of the rows of each quadrant, from the outer edge inwards."""
    rng = np.random.default_rng(seed)
    half = size // 2
    start, stop = int(first * half), int((first + share) * half)
    out = np.zeros((size, size), np.float32)
    for top in (False, True):
        for right in (False, True):
            wave = rng.normal(0, 1, 8)
            wave -= wave.mean()
            block = np.zeros((half, half))
            block[start:stop] = np.tile(wave * amplitude / wave.std(), half // 8) + offset
            part = (
                slice(half, size) if top else slice(0, half),
                slice(half, size) if right else slice(0, half),
            )
            out[part] = block[::-1] if top else block
    return out


def amplitude(image: Image, truth: Image) -> float:
    """Standard deviation of the 8-column pattern averaged over the affected rows of each quadrant."""
    half = image.shape[0] // 2
    found = []
    for rows in (slice(0, half), slice(half, None)):
        for columns in (slice(0, half), slice(half, None)):
            on = truth[rows, columns].any(axis=1)
            part = image[rows, columns][on]
            found.append(part.mean(axis=0).reshape(-1, 8).mean(axis=0).std())
    return float(np.mean(found))


def run(method: object, data: Image, **options: object) -> Cleaned:
    result = method(data, **options)  # type: ignore[operator]
    assert isinstance(result, Cleaned)
    return result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.1, 0.39, 0.6])
def test_an_injected_pattern_falls_more_than_five_times_even_in_a_minority_of_rows(
    method: object, share: float
) -> None:
    truth = readout(share=share)
    clean = sky() + stars()[0]
    result = run(method, clean + truth)
    assert all(quadrant.cleaned for quadrant in result.quadrants)
    assert amplitude(result.data - clean, truth) < amplitude(truth, truth) / 10
    left = (result.data - clean)[truth != 0].std()
    assert left < truth[truth != 0].std() / 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [256, 512, 768, 1024])
def test_subarrays_of_all_sizes_are_cleaned_when_every_row_is_affected(method: object, size: int) -> None:
    truth = readout(size, first=0, share=1)
    clean = sky(size)
    result = run(method, clean + truth)
    assert np.std(result.data - clean) < np.std(truth) / 5
    assert all(q.rows == ((0, size // 2),) for q in result.quadrants[:2])
    assert all(q.rows == ((size // 2, size),) for q in result.quadrants[2:])


@pytest.mark.parametrize("method", METHODS)
def test_star_fluxes_change_by_less_than_three_per_mille(method: object) -> None:
    image, catalogue = stars()
    clean = sky(noise=10) + image
    result = run(method, clean + readout(amplitude=40))
    yy, xx = np.mgrid[:512, :512]
    for x, y, flux in catalogue:
        inside = (xx - x) ** 2 + (yy - y) ** 2 < 7**2
        change = np.sum((result.data - clean)[inside], dtype=np.float64)
        assert abs(change) < 0.003 * flux


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("seed", [11, 12, 13, 14])
def test_a_frame_without_pattern_comes_back_bit_for_bit(method: object, force: bool, seed: int) -> None:
    data = sky(seed=seed) + stars(seed=seed)[0]
    result = run(method, data, force=force)
    assert not result.cleaned
    assert result.data is not data
    np.testing.assert_array_equal(result.data, data)
    assert all(q.reason and q.noise_after == q.noise_before for q in result.quadrants)


@pytest.mark.parametrize("method", METHODS)
def test_a_galaxy_or_a_gradient_is_not_taken_for_a_pattern(method: object) -> None:
    yy, xx = np.mgrid[:512, :512]
    galaxy = 3000 * np.exp(-np.hypot(xx - 200, yy - 290) / 25)
    data = (sky() + galaxy + 0.1 * xx + 0.05 * yy).astype(np.float32)
    np.testing.assert_array_equal(run(method, data).data, data)
    objmask = (galaxy > 30).astype(np.uint8)
    np.testing.assert_array_equal(run(method, data, objmask=objmask).data, data)
    truth = readout()
    result = run(method, data + truth, objmask=objmask)
    assert amplitude(result.data - data, truth) < amplitude(truth, truth) / 5


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_pattern_and_quadrants_without_pattern_keep_every_bit(method: object) -> None:
    truth = readout()
    truth[:256, 256:] = 0
    truth[256:] = 0
    data = sky() + truth
    result = run(method, data, **({"l2clean": False} if method is clean_fft_readout else {}))
    assert [q.cleaned for q in result.quadrants] == [True, False, False, False]
    untouched = np.ones(data.shape, bool)
    for start, stop in result.quadrants[0].rows:
        untouched[start:stop, :256] = False
    np.testing.assert_array_equal(result.data[untouched], data[untouched])


@pytest.mark.parametrize("method", METHODS)
def test_edges_are_placed_to_the_row_in_readout_order(method: object) -> None:
    start, stop = 51, 150
    truth = readout(first=start / 256 + 1e-9, share=(stop - start) / 256)
    result = run(method, sky() + truth, **({"l2clean": False} if method is clean_fft_readout else {}))
    for quadrant in result.quadrants[:2]:
        assert quadrant.rows == ((start, stop),)
    for quadrant in result.quadrants[2:]:
        assert quadrant.rows == ((512 - stop, 512 - start),)


@pytest.mark.parametrize("method", METHODS)
def test_an_offset_that_comes_with_the_pattern_is_removed_without_moving_the_rest(method: object) -> None:
    truth = readout(offset=30)
    clean = sky()
    result = run(method, clean + truth)
    on = truth != 0
    change = result.data - clean
    assert abs(float(change[on].mean())) < 3
    assert abs(float(change[~on].mean())) < 0.5
    # No row is left at the level of the wrong side of an edge.
    assert np.abs(change[:, :256].mean(axis=1)).max() < 10
    for quadrant in result.quadrants:
        assert quadrant.row_shifts == pytest.approx([-30], abs=4)
        assert quadrant.shift == 0


def test_levelling_can_be_switched_off() -> None:
    truth = readout(offset=30)
    clean = sky()
    result = clean_readout(clean + truth, level_bias_offset=False)
    assert float((result.data - clean)[truth != 0].mean()) == pytest.approx(30, abs=1)


def test_only_cleaned_quadrants_are_levelled_with_their_neighbours() -> None:
    truth = readout(first=0, share=1)
    truth[:, 256:] = 0
    truth[256:] = 0
    clean = sky(noise=5)
    step = np.zeros_like(clean)
    step[:256, :256] = 25
    step[256:, 256:] = 100  # a difference nobody asked to remove
    result = clean_readout(clean + truth + step)
    assert [q.shift for q in result.quadrants] == pytest.approx([-25, 0, 0, 0], abs=3)
    np.testing.assert_array_equal(result.data[256:], (clean + truth + step)[256:])


@pytest.mark.parametrize("method", METHODS)
def test_flagged_and_infinite_pixels_are_left_out_and_still_cleaned(method: object) -> None:
    truth = readout()
    clean = sky()
    data = clean + truth
    rng = np.random.default_rng(5)
    mask = np.zeros(data.shape, np.uint16)
    mask[rng.random(data.shape) < 0.03] = 1
    mask[:, 100] = 1
    data[mask != 0] += 5000
    data[100, 7] = np.nan
    result = run(method, data, mask=mask)
    assert np.isnan(result.data[100, 7])
    bad = (mask != 0) & (truth != 0) & np.isfinite(data)
    left = (result.data - clean)[bad] - 5000
    assert left.std() < truth[bad].std() / 5
    good = (mask == 0) & np.isfinite(data)
    assert (result.data - clean)[good].std() < truth[good].std() / 5


def test_the_strength_of_a_pattern_is_followed_from_row_to_row() -> None:
    half = 256
    ramp = np.linspace(0.5, 1.5, half)[:, None]
    truth = readout(first=0, share=1)
    truth[:half] *= ramp
    truth[half:] *= ramp[::-1]
    clean = sky(noise=15)
    result = clean_readout(clean + truth)
    assert np.std(result.data - clean) < np.std(truth) / 15


def test_pixels_far_below_and_far_above_their_row_are_clipped_at_limits_of_their_own() -> None:
    truth = readout(first=0, share=1)
    clean = sky()
    # In every row of boxes two of five pixels are far off, on one side.
    spoilt = np.where(np.random.default_rng(6).random(clean.shape) < 0.3, np.float32(250), np.float32(0))

    def left(sign: int, **limits: float) -> float:
        result = clean_readout(clean + truth + sign * spoilt, subtract_background=False, **limits)
        return float(np.std(result.data - clean - sign * spoilt))

    for sign, near, far in ((1, "hsigma", "lsigma"), (-1, "lsigma", "hsigma")):
        assert left(sign, **{near: 2.0, far: 9.0}) < 0.8 * left(sign, **{near: 9.0, far: 2.0})


def test_a_weak_pattern_is_reported_and_left_unless_forced() -> None:
    data = sky() + readout(amplitude=10)
    result = clean_readout(data)
    assert not result.cleaned
    assert result.quadrants[0].strength == pytest.approx(10, rel=0.2)
    assert "15" in result.quadrants[0].reason
    forced = clean_readout(data, force=True)
    assert forced.cleaned
    assert all(q.noise_after < q.noise_before for q in forced.quadrants)
    assert clean_readout(data, pat_strength_thres=5).cleaned


def test_a_pattern_without_noise_is_removed_exactly() -> None:
    truth = readout(share=0.5)
    result = clean_readout(truth)
    assert np.abs(result.data).max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_the_input_is_not_modified_and_the_result_is_the_same_every_time(method: object) -> None:
    data = sky() + readout(offset=20)
    before = data.copy()
    first, second = run(method, data), run(method, data)
    np.testing.assert_array_equal(data, before)
    np.testing.assert_array_equal(first.data, second.data)
    assert first.data.dtype == np.float32


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(510, 512), (250, 301)])
def test_frames_that_do_not_divide_into_boxes_are_cleaned(method: object, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(8)
    clean = rng.normal(0, 10, shape).astype(np.float32)
    wave = np.array([40, -40, 60, -60, 30, -30, 20, -20], np.float32)
    data = clean + np.resize(wave, shape[1])
    result = run(method, data)
    assert result.cleaned
    if method is clean_readout:
        assert np.std(result.data - clean) < np.std(data - clean) / 5


def test_missing_rows_at_the_top_move_the_border_of_the_quadrants() -> None:
    truth = readout(512, first=0, share=1)[:506]
    clean = sky()[:506]
    result = clean_fft_readout(clean + truth, pad_rows=6)
    assert result.quadrants[0].rows == ((0, 256),)
    assert result.quadrants[2].rows == ((256, 506),)
    assert np.std(result.data - clean) < np.std(truth) / 5


def test_a_frame_of_masked_pixels_comes_back_unchanged() -> None:
    data = sky(256)
    mask = np.ones(data.shape, np.uint16)
    for method in METHODS:
        result = run(method, data, mask=mask)
        np.testing.assert_array_equal(result.data, data)


def test_the_fft_follows_a_pattern_whose_phase_drifts() -> None:
    size = 512
    y = np.arange(size)[:, None]
    truth = (70 * np.sin(2 * np.pi * (np.arange(size) + 0.05 * y) / 8)).astype(np.float32)
    clean = sky(size)
    result = clean_fft_readout(clean + truth)
    assert np.std(result.data - clean) < np.std(truth) / 5


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (clean_readout, {"pattern_x_size": 12}),
        (clean_readout, {"pattern_y_size": 0}),
        (clean_fft_readout, {"win_size": 8}),
    ],
)
def test_a_parameter_out_of_range_is_named(method: object, options: dict[str, object]) -> None:
    with pytest.raises(ParameterError) as caught:
        run(method, sky(64), **options)
    assert caught.value.item == next(iter(options))


def test_quadrants_that_are_too_narrow_are_refused() -> None:
    with pytest.raises(DataError):
        run(clean_fft_readout, sky(16))


def test_zones_are_found_where_the_strength_is_on() -> None:
    strength = np.zeros(200)
    strength[40:90] = 1
    strength[150:] = 1
    strength += np.random.default_rng(0).normal(0, 0.1, 200)
    options = {"canny_sigma": 3.0, "simple_thres": 0.6, "margin": 4}
    weight = np.ones(200)
    assert find_zones(strength, weight, **options) == ((40, 90), (150, 200))  # type: ignore[arg-type]
    assert find_zones(np.ones(200), weight, **options) == ((0, 200),)  # type: ignore[arg-type]


def test_unit_strength_does_not_depend_on_the_share_of_rows() -> None:
    for share in (2, 30, 100):
        amplitude = np.zeros(100)
        amplitude[:share] = 7
        assert unit_strength(amplitude) == pytest.approx(7)
    assert unit_strength(np.zeros(5)) == 0


def test_a_step_is_measured_on_a_slope_and_with_sources() -> None:
    rng = np.random.default_rng(4)
    data = rng.normal(0, 5, (200, 300)) + 0.2 * np.arange(200)[:, None]
    data[100:] += 12
    data[60:130, 40:90] += 900  # a source across the step
    good = np.ones(data.shape, bool)
    for near, far in ((50, 50), (5, 50)):
        step = measure_step(data.astype(np.float32), good, 100, near, far)
        assert step is not None
        size, error = step
        assert size == pytest.approx(12, abs=4 * error)
        assert error < 1.5
    good[:, 5:] = False
    assert measure_step(data.astype(np.float32), good, 100, 50, 50) is None


def test_a_corrupt_row_does_not_pass_for_the_pattern() -> None:
    truth = readout()
    clean = sky()
    clean[200, :256] += np.resize(np.array([9000, -9000, 0], np.float32), 256)
    result = clean_readout(clean + truth)
    assert amplitude(result.data - clean, truth) < amplitude(truth, truth) / 10


def test_sources_are_found_whatever_the_pattern() -> None:
    image, catalogue = stars(256, 6)
    truth = readout(256, amplitude=200)
    frame, good, corners = prepared(sky(256) + truth, None, None, 0)
    corner = corners[0]
    empty = Tiles.cut(corner, frame, good, 4, 16)
    assert source_boxes(empty).sum() <= 2
    found = source_boxes(Tiles.cut(corner, sky(256) + truth + image, good, 4, 16))
    inside = [(int(x) // 16, int(y) // 4) for x, y, _ in catalogue if x < 128 and y < 128]
    assert inside
    assert all(found[place] for place in inside)


def test_a_crowded_field_does_not_leak_into_the_pattern() -> None:
    image, _ = stars(512, 150)
    clean = sky() + image
    truth = readout(first=0, share=1)
    result = clean_readout(clean + truth)
    assert np.std(result.data - clean) < np.std(truth) / 25


@pytest.mark.parametrize("method", METHODS)
def test_the_pattern_is_removed_under_large_masks_too(method: object) -> None:
    truth = readout(first=0, share=1)
    clean = sky()
    mask = np.zeros(clean.shape, np.uint16)
    mask[:, 60:190] = 1
    result = run(method, clean + truth, mask=mask)
    assert np.std((result.data - clean)[:, 60:190]) < np.std(truth) / 5


def test_single_rows_with_the_pattern_are_cleaned_on_the_second_level() -> None:
    truth = readout()
    truth[220, :256] = truth[100, :256] * 1.5
    clean = sky()
    data = clean + truth
    once, twice = clean_fft_readout(data, l2clean=False), clean_fft_readout(data)
    assert once.quadrants[0].rows == ((51, 151),)
    assert (220, 221) in twice.quadrants[0].rows
    assert np.std((twice.data - clean)[220, :256]) < np.std(truth[220, :256]) / 5
    np.testing.assert_array_equal(once.data[220], data[220])


def offsets(centre=(256, 256), size=512, rows=8.0, period=6.0, quadrants=15.0, seed=3):
    """Offsets of the readout by plain numpy: rows, every eighth row, and quadrants."""
    rng = np.random.default_rng(seed)
    plane = np.repeat(rng.normal(0, rows, (size, 1)), size, axis=1)
    level = rng.normal(0, quadrants, 4)
    wave = rng.normal(0, period, (4, 8))
    for k, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        part = np.s_[
            centre[0] if y else 0 : None if y else centre[0], centre[1] if x else 0 : None if x else centre[1]
        ]
        plane[part] += level[k] + np.resize(wave[k], plane[part].shape[0])[:, None]
    return plane - plane.mean()


def test_offsets_of_rows_and_quadrants_are_lowered_and_what_is_said_to_be_left_is_left() -> None:
    truth = offsets(seed=1)
    frame = (truth + np.random.default_rng(1).normal(0, 60, truth.shape)).astype(np.float32)
    noise = frame - truth
    found = remove_offsets(frame)
    left = frame - noise
    assert np.std(truth) > 15
    assert np.std(left) < 0.35 * np.std(truth)
    assert found.before == pytest.approx(np.std(truth), rel=0.25)
    assert found.after == pytest.approx(np.std(left), rel=0.4)
    assert found.noise == pytest.approx(60, rel=0.05)
    assert {"levels of quadrants", "rows, lower half", "rows, upper half"} <= set(found.parts)


def test_quadrants_of_a_window_beside_the_middle_of_the_detector_meet_where_they_do() -> None:
    truth = offsets(centre=(150, 400), rows=0, quadrants=40)
    clean = np.random.default_rng(1).normal(0, 60, truth.shape)
    right, wrong = ((truth + clean).astype(np.float32) for _ in range(2))
    remove_offsets(right, centre=(150, 400))
    remove_offsets(wrong)
    assert np.std(right - clean) < 0.3 * np.std(truth)
    assert np.std(right - clean) < 0.5 * np.std(wrong - clean)


def test_a_window_in_one_quadrant_has_no_levels_and_keeps_its_rows_right() -> None:
    truth = offsets(centre=(0, 512), quadrants=0)
    clean = np.random.default_rng(1).normal(0, 60, truth.shape)
    frame = (truth + clean).astype(np.float32)
    found = remove_offsets(frame, centre=(-40, 600))
    assert found.levels == (0.0,)
    assert np.std(frame - clean) < 0.6 * np.std(truth)


def test_noise_alone_has_no_offsets() -> None:
    for seed in range(5):
        frame = np.random.default_rng(seed).normal(0, 60, (512, 512)).astype(np.float32)
        before = frame.copy()
        found = remove_offsets(frame)
        assert found.parts == ()
        assert (found.before, found.after) == (0, 0)
        np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("ratio", [1.0, 0.3])
@pytest.mark.parametrize("scale", [15, 60, 200])
@pytest.mark.parametrize("centre", [(256, 256), (280, 235), (100, 400)])
def test_light_of_a_galaxy_is_no_offset(centre, scale, ratio) -> None:
    y, x = np.mgrid[:512, :512].astype(float)
    galaxy = 3000 * np.exp(-np.hypot((y - centre[0]) / ratio, x - centre[1]) / scale)
    frame = (galaxy + np.random.default_rng(2).normal(0, 60, galaxy.shape)).astype(np.float32)
    before = frame.astype(float)
    remove_offsets(frame)
    bright = galaxy > 6
    assert abs((before - frame)[bright].sum()) < 0.001 * galaxy[bright].sum()


def test_small_frames_are_left_alone() -> None:
    frame = np.ones((100, 100), np.float32)
    assert remove_offsets(frame).parts == ()
