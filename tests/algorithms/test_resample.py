from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niripipe.algorithms.affine import (
    Affine,
    Grid,
    affine_approximation,
    corners_of,
    output_grid,
    part_of_grid,
)
from niripipe.algorithms.kernels import TAPS, kernel_weights
from niripipe.algorithms.resample import resample
from niripipe.errors import AlgorithmError

UNIT = np.eye(2)


def rotation(degrees: float, dy: float = 0.0, dx: float = 0.0, size: int = 64) -> Affine:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.array([[c, s], [-s, c]])
    centre = np.full(2, (size - 1) / 2)
    return Affine(matrix, centre - matrix @ centre + np.array([dy, dx]))


# Everything from a pure shift to a mapping that has to be gathered pixel by pixel.
MAPPINGS = {
    "shift": Affine.shift(0.4, -1.3),
    "half": Affine.shift(0.5, 0.5),
    "tiny rotation": rotation(0.004, 0.25, 0.4),
    "shear": rotation(0.06, -0.7, 0.2),
    "rotation": rotation(3.0, 0.3, -0.2),
    "magnified": Affine(np.array([[0.98, 0.01], [0.0, 1.03]]), np.array([0.5, -0.3])),
}


def golden_input() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    y, x = np.mgrid[:8, :8]
    mask = np.zeros((8, 8), np.uint16)
    mask[3, 4], mask[5, 2] = 1, 4
    return (x**3 - 2 * y**2 + 10).astype(np.float32), np.full((8, 8), 4, np.float32), mask


def test_values_and_edges_are_those_of_dragons():
    data, variance, mask = golden_input()
    out = resample(data, variance, mask, matrix=UNIT, offset=(-0.4, -0.7), shape=(9, 9), clean=False)
    rows = {
        1: [9.1, 10.997, 20.967, 44.736996, 88.307014, 157.67702, 262.90002],
        2: [5.18, 7.076999, 17.046999, 40.817, 84.38701, 153.75703, 258.98],
        7: [-77.299995, -75.40299, -65.433, -41.663, 1.907013, 71.27702, 176.50003],
    }
    for row, values in rows.items():
        np.testing.assert_allclose(out.data[row, 1:8], values, rtol=3e-6, atol=2e-5)
    edge = np.ones((9, 9), bool)
    edge[1:8, 1:8] = False
    assert (out.data[edge] == 0).all()
    assert (out.variance[edge] == 0).all()
    assert (out.mask[edge] == 16).all()
    assert (out.mask[~edge] & 16 == 0).all()


def weights_along(position: float, size: int, taps: int) -> np.ndarray:
    """Return the weights of all samples along an axis, by Lagrange's formula."""
    weights = np.zeros(size)
    left = int(np.floor(position))
    for order in range(taps, 0, -2):
        samples = range(left - order // 2 + 1, left + order // 2 + 1)
        if samples[0] >= 0 and samples[-1] < size:
            for i in samples:
                weights[i] = np.prod([(position - j) / (i - j) for j in samples if j != i])
            return weights
    weights[left] = 1
    return weights


def pixel_by_pixel(data, variance, mask, mapping, shape, taps, threshold):
    """Resample as a sum over all input pixels, for each output pixel by itself."""
    out = np.zeros(shape), np.zeros(shape), np.full(shape, 16, np.uint16)
    for y, x in np.ndindex(shape):
        v, u = (float(part) for part in mapping(y, x))
        if not (0 <= v <= data.shape[0] - 1 and 0 <= u <= data.shape[1] - 1):
            continue
        weights = np.outer(weights_along(v, data.shape[0], taps), weights_along(u, data.shape[1], taps))
        out[0][y, x], out[1][y, x] = (weights * data).sum(), (weights**2 * variance).sum()
        bits = [bit for bit in (1, 2, 4) if np.abs(weights[mask & bit != 0]).sum() > threshold]
        out[2][y, x] = sum(bits)
    return out


@pytest.mark.parametrize(("kernel", "taps"), [("linear", 2), ("poly3", 4), ("poly5", 6)])
@pytest.mark.parametrize("name", ["shift", "half", "rotation", "magnified"])
def test_planes_are_sums_over_the_input_pixels(kernel, taps, name):
    rng = np.random.default_rng(5)
    data, variance = rng.normal(100, 10, (20, 18)), rng.uniform(5, 15, (20, 18))
    mask = rng.choice(np.array([0, 1, 2, 4, 6], np.uint16), data.shape, p=[0.9, 0.03, 0.03, 0.03, 0.01])
    mapping, shape = MAPPINGS[name], (22, 19)
    expected = pixel_by_pixel(data, variance, mask, mapping, shape, taps, 0.1)
    out = resample(
        data.astype(np.float32), variance.astype(np.float32), mask, clean=False, conserve=False,
        matrix=mapping.matrix, offset=mapping.offset, shape=shape, kernel=kernel,
    )  # fmt: skip
    np.testing.assert_array_equal(out.mask, expected[2])
    np.testing.assert_allclose(out.data, expected[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(out.variance, expected[1], rtol=1e-4, atol=1e-3)


def test_kernel_weights_are_the_documented_ones():
    np.testing.assert_allclose(kernel_weights(0.3, 4), [-0.0595, 0.7735, 0.3315, -0.0455], atol=1e-12)
    np.testing.assert_allclose(
        kernel_weights(0.3, 6),
        [0.01044225, -0.09237375, 0.8005725, 0.3431025, -0.07063875, 0.00889525],
        atol=1e-12,
    )


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([2, 4, 6]))
def test_kernel_weights_sum_to_one_and_reproduce_polynomials(fraction, taps):
    weights = kernel_weights(fraction, taps)
    place = np.arange(1 - taps // 2, taps // 2 + 1)
    for power in range(taps):
        assert (weights * place**power).sum() == pytest.approx(fraction**power, abs=1e-9)


# The splines take the frame as mirrored at its edges, and bend a plane there.
@pytest.mark.parametrize("kernel", ["linear", "poly3", "poly5"])
@pytest.mark.parametrize("name", MAPPINGS)
def test_a_plane_is_reproduced_exactly_wherever_the_input_reaches(kernel, name):
    mapping = MAPPINGS[name]
    y, x = np.mgrid[:64, :64]
    out = resample(
        (3 + 0.5 * y - 0.25 * x).astype(np.float32),
        matrix=mapping.matrix, offset=mapping.offset, shape=(64, 64), kernel=kernel, conserve=False,
    )  # fmt: skip
    iy, ix = mapping(y, x)
    inside = (iy >= 0) & (iy <= 63) & (ix >= 0) & (ix <= 63)
    sure = (np.abs(iy) > 2e-3) & (np.abs(iy - 63) > 2e-3) & (np.abs(ix) > 2e-3) & (np.abs(ix - 63) > 2e-3)
    assert ((out.mask == 0) == inside)[sure].all()
    np.testing.assert_allclose(out.data[inside], (3 + 0.5 * iy - 0.25 * ix)[inside], atol=1e-3)
    assert (out.data[~inside & sure] == 0).all()


@pytest.mark.parametrize("kernel", ["poly3", "poly5", "spline3", "spline5"])
@pytest.mark.parametrize("name", MAPPINGS)
def test_a_star_arrives_where_it_should_with_its_flux(kernel, name):
    mapping = MAPPINGS[name]
    y, x = np.mgrid[:64, :64]
    y0, x0 = mapping(31.3, 33.8)
    star = 1e4 * np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / (2 * 2.0**2)) / (8 * np.pi)
    out = resample(
        star.astype(np.float32), matrix=mapping.matrix, offset=mapping.offset, shape=(64, 64), kernel=kernel
    )
    total = out.data.sum(dtype=float)
    assert total == pytest.approx(1e4, rel=1e-3)
    assert (out.data * y).sum() / total == pytest.approx(31.3, abs=3e-3)
    assert (out.data * x).sum() / total == pytest.approx(33.8, abs=3e-3)
    assert out.jacobian == pytest.approx(abs(np.linalg.det(mapping.matrix)))


@pytest.mark.parametrize("kernel", TAPS)
@pytest.mark.parametrize("name", MAPPINGS)
def test_the_variance_is_the_variance_of_that_pixel(kernel, name):
    mapping = MAPPINGS[name]
    mapping = Affine(mapping.matrix, mapping.offset - 20)
    noise = np.random.default_rng(8).normal(0, 2, (400, 400)).astype(np.float32)
    out = resample(
        noise, np.full(noise.shape, 4, np.float32),
        matrix=mapping.matrix, offset=mapping.offset, shape=noise.shape, kernel=kernel,
    )  # fmt: skip
    good = out.mask == 0
    # Neighbours are correlated: about 1e5 pixels are worth a few ten thousand.
    assert np.mean(out.data[good] ** 2 / out.variance[good]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["half", "shear", "rotation"])
def test_the_correlation_factor_makes_large_apertures_honest(name):
    mapping = MAPPINGS[name]
    rng = np.random.default_rng(9)
    sums, expected = [], 0.0
    for _ in range(12):
        noise = rng.normal(0, 1, (256, 256)).astype(np.float32)
        out = resample(
            noise, np.ones_like(noise), matrix=mapping.matrix, offset=mapping.offset, shape=noise.shape
        )
        boxes = out.data[32:224, 32:224].reshape(8, 24, 8, 24).sum(axis=(1, 3))
        expected = float(out.variance[32:224, 32:224].mean()) * 24**2 * out.correlation
        sums.append(boxes.ravel())
    # The box is not endless: its rim lowers the correlation a little.
    assert np.var(np.concatenate(sums)) / expected == pytest.approx(0.95, abs=0.15)


@pytest.mark.parametrize(("conserve", "side"), [(True, 24), (False, 48 * 2)])
def test_the_correlation_factor_knows_how_many_pixels_a_pixel_is_divided_into(conserve, side):
    # Each input pixel is spread over four output pixels, which together have its flux and its noise: those of
    # 24 x 24 pixels in the box. Without conservation they have four times as much.
    rng = np.random.default_rng(19)
    sums = []
    for _ in range(12):
        noise = rng.normal(0, 1, (128, 128)).astype(np.float32)
        out = resample(
            noise,
            np.ones_like(noise),
            matrix=0.5 * UNIT,
            offset=(0.13, 0.07),
            shape=(250, 250),
            kernel="linear",
            conserve=conserve,
        )
        sums.append(out.data[5:245, 5:245].reshape(5, 48, 5, 48).sum(axis=(1, 3)).ravel())
    assert np.var(np.concatenate(sums)) == pytest.approx(side**2, rel=0.2)
    expected = float(out.variance[5:245, 5:245].mean()) * 48**2 * out.correlation
    assert expected == pytest.approx(side**2, rel=0.1)


def test_the_variance_of_a_bad_pixel_is_a_mean_of_its_neighbours_and_not_extrapolated():
    rng = np.random.default_rng(23)
    data = rng.normal(100, 5, (12, 12)).astype(np.float32)
    variance = rng.uniform(5, 15, data.shape).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    mask[6, 5] = 1
    repaired = variance.copy()
    sides = variance[5, 5] + variance[7, 5] + variance[6, 4] + variance[6, 6]
    corners = variance[5, 4] + variance[5, 6] + variance[7, 4] + variance[7, 6]
    repaired[6, 5] = (sides + 0.5 * corners) / 6
    variance[6, 5] = 1e6
    options = {"matrix": UNIT, "offset": (0.4, 0.3), "shape": (12, 12)}
    out = resample(data, variance, mask, **options)
    expected = resample(data, repaired, **options)
    np.testing.assert_allclose(out.variance, expected.variance, rtol=1e-5)


@pytest.mark.parametrize("which", ["data", "variance"])
def test_a_value_or_variance_that_is_not_a_number_is_flagged_as_without_data(which):
    planes = {"data": np.ones((12, 12), np.float32), "variance": np.ones((12, 12), np.float32)}
    planes[which][6, 5] = np.nan
    for mapping in (Affine.shift(0.5, 0.5), Affine.shift(1, 2)):
        out = resample(**planes, matrix=mapping.matrix, offset=mapping.offset, shape=(9, 9))
        y, x = (6, 5) - np.floor(mapping.offset).astype(int)
        assert out.mask[y, x] & 16
        if mapping.offset[0] % 1:
            assert (out.mask[y - 1 : y + 1, x - 1 : x + 1] & 16).all()
        assert np.isfinite(out.data).all()
        assert np.isfinite(out.variance).all()


def test_whole_pixels_are_copied_and_own_their_memory():
    rng = np.random.default_rng(10)
    data = rng.normal(0, 1, (20, 30)).astype(np.float32)
    mask = rng.integers(0, 128, data.shape).astype(np.uint16)
    out = resample(
        data,
        np.ones_like(data),
        mask,
        (mask & 1).astype(np.uint8),
        matrix=UNIT,
        offset=(3, -4),
        shape=(25, 25),
    )
    assert (out.data[:17, 4:] == data[3:, :21]).all()
    assert (out.mask[:17, 4:] == mask[3:, :21]).all()
    assert (out.objmask[:17, 4:] == (mask & 1)[3:, :21]).all()
    assert (out.mask[17:] == 16).all()
    assert (out.mask[:, :4] == 16).all()
    assert out.correlation == 1
    same = resample(data, matrix=UNIT, offset=(0, 0), shape=data.shape)
    assert (same.data == data).all()
    assert not np.shares_memory(same.data, data)


def test_the_origin_moves_the_output_over_the_reference():
    data = np.random.default_rng(11).normal(0, 1, (40, 40)).astype(np.float32)
    whole = resample(data, matrix=UNIT, offset=(0.3, 0.6), shape=(40, 40))
    part = resample(data, matrix=UNIT, offset=(0.3, 0.6), shape=(10, 12), origin=(5, 7))
    np.testing.assert_array_equal(part.data, whole.data[5:15, 7:19])


def test_a_bad_pixel_does_not_ring_and_flags_only_what_it_carries():
    y, x = np.mgrid[:41, :41]
    smooth = (100 + 1000 * np.exp(-((y - 20) ** 2 + (x - 20) ** 2) / 18)).astype(np.float32)
    data, mask = smooth.copy(), np.zeros(smooth.shape, np.uint16)
    data[20, 21], mask[20, 21] = 60000, 1
    data[5, 5], mask[5, 5] = np.nan, 0
    data[30, 30], mask[30, 30] = -5e4, 8
    out = resample(data, np.ones_like(data), mask, matrix=UNIT, offset=(0.4, 0.3), shape=(41, 41))
    clean = resample(smooth, matrix=UNIT, offset=(0.4, 0.3), shape=(41, 41))
    assert ((out.mask[19:22, 19:23] & 1) != 0).sum() == 4
    inner = (slice(1, 39), slice(1, 39))
    good = out.mask[inner] == 0
    assert np.abs((out.data - clean.data)[inner][good]).max() < 3
    assert np.abs((out.data - clean.data)[inner]).max() < 30
    assert (out.mask[4:6, 4:6] & 16).any()
    ringing = resample(data, None, mask, matrix=UNIT, offset=(0.4, 0.3), shape=(41, 41), clean=False)
    assert np.abs(ringing.data - clean.data)[inner][good].max() > 100


@pytest.mark.parametrize("name", MAPPINGS)
def test_sparse_and_dense_flags_are_spread_alike(name):
    mapping = MAPPINGS[name]
    rng = np.random.default_rng(12)
    mask = (rng.random((64, 64)) < 0.01).astype(np.uint16) * 2
    mask[:, :20] |= 4
    out = resample(
        np.ones((64, 64), np.float32),
        None,
        mask,
        matrix=mapping.matrix,
        offset=mapping.offset,
        shape=(64, 64),
    )
    for bit in (2, 4):
        # Objects are always spread plane-wise.
        plane = resample(
            np.ones((64, 64), np.float32), None, None, ((mask & bit) != 0).astype(np.uint8),
            matrix=mapping.matrix, offset=mapping.offset, shape=(64, 64),
        ).objmask  # fmt: skip
        differ = ((out.mask & bit) != 0) != (plane != 0)
        # A weight may fall on the threshold by rounding.
        assert differ.sum() <= 2


def test_saturated_cores_are_kept_not_invented():
    data, mask = np.full((20, 20), 10, np.float32), np.zeros((20, 20), np.uint16)
    data[10, 10], mask[10, 10] = 9e4, 4
    out = resample(data, None, mask, matrix=UNIT, offset=(0.2, 0.2), shape=(20, 20))
    assert out.data.max() > 5e4
    assert out.mask[10, 10] == 4


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-70, 70),
    st.floats(-70, 70),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(list(TAPS)[:4]),
)
def test_any_shift_of_any_frame_has_an_answer(dy, dx, ny, nx, kernel):
    data = np.ones((ny, nx), np.float32)
    out = resample(data, data, matrix=UNIT, offset=(dy, dx), shape=(30, 30), kernel=kernel)
    inside = out.mask == 0
    np.testing.assert_allclose(out.data[inside], 1, atol=1e-5)
    assert (out.data[~inside] == 0).all()
    assert (out.variance >= 0).all()


def test_inputs_are_not_modified():
    data, variance, mask = golden_input()
    data[0, 0] = np.nan
    copies = data.copy(), variance.copy(), mask.copy()
    resample(data, variance, mask, matrix=UNIT, offset=(0.3, 0.3), shape=(8, 8))
    for before, after in zip(copies, (data, variance, mask), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_mapping_that_cannot_be_inverted_is_refused():
    data = np.ones((8, 8), np.float32)
    good = {"matrix": UNIT, "offset": (0, 0), "shape": (8, 8)}
    with pytest.raises(AlgorithmError, match="inverted"):
        resample(data, **{**good, "matrix": np.zeros((2, 2))})


def test_the_affine_approximation_of_a_rotation_is_exact():
    c, s = np.cos(np.deg2rad(1)), np.sin(np.deg2rad(1))
    result = affine_approximation(lambda y, x: (s * x + c * y - 2, c * x - s * y + 3), (100, 80))
    np.testing.assert_allclose(result.matrix, [[0.999848, 0.017452], [-0.017452, 0.999848]], atol=1e-6)
    np.testing.assert_allclose(result.offset, [-2, 3], atol=1e-9)
    with pytest.raises(AlgorithmError):
        affine_approximation(lambda y, x: (y * np.nan, x), (10, 10))


@given(st.floats(-5, 5), st.floats(-50, 50), st.floats(-50, 50))
def test_a_mapping_and_its_inverse_cancel(angle, dy, dx):
    mapping = rotation(angle, dy, dx)
    y, x = mapping.then(mapping.inverse())(12.0, 34.0)
    assert (float(y), float(x)) == pytest.approx((12, 34), abs=1e-9)


def test_the_output_grid_holds_every_frame():
    shifts = [(0.0, 0.0), (25.5, -26.2), (-25.8, 26.0)]
    grid = output_grid(corners_of((1024, 1024), Affine.shift(*shift)) for shift in shifts)
    assert grid.origin == (-25, -26)
    assert grid.shape == (1048 + 25 + 1, 1049 + 26 + 1)
    exact = output_grid([corners_of((10, 10), Affine.shift(1e-9, -1e-9))])
    assert (exact.origin, exact.shape) == ((0, 0), (10, 10))


@pytest.mark.parametrize("name", MAPPINGS)
def test_outside_of_its_part_of_a_grid_a_frame_has_nothing(name):
    to_frame = MAPPINGS[name]
    rng = np.random.default_rng(7)
    data = rng.normal(1000, 30, (64, 64)).astype(np.float32)
    mask = np.where(rng.random(data.shape) < 0.02, 1, 0).astype(np.uint16)
    grid = Grid((-40, -25), (170, 140))
    part = part_of_grid(grid, data.shape, to_frame)
    options = {"matrix": to_frame.matrix, "offset": to_frame.offset}
    whole = resample(data, data, mask, shape=grid.shape, origin=grid.origin, **options)
    small = resample(data, data, mask, shape=part.shape, origin=part.origin, **options)
    y, x = part.origin[0] - grid.origin[0], part.origin[1] - grid.origin[1]
    inside = (slice(y, y + part.shape[0]), slice(x, x + part.shape[1]))
    assert part.shape[0] * part.shape[1] < 0.6 * whole.data.size
    for plane in ("data", "variance", "mask"):
        large = getattr(whole, plane)
        np.testing.assert_allclose(getattr(small, plane), large[inside], rtol=1e-4)
        outside = large.copy()
        outside[inside] = 16 if plane == "mask" else 0
        assert (outside == (16 if plane == "mask" else 0)).all()


def test_the_part_of_a_grid_that_a_frame_misses_has_a_pixel():
    part = part_of_grid(Grid((0, 0), (10, 10)), (64, 64), Affine.shift(500.0, 500.0))
    assert part.shape == (1, 1)
