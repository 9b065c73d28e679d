"""Projection: fluxes, noise and flags arrive where the mapping says, for bent mappings and larger pixels."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.bits import BAD, NO_DATA
from niripipe.algorithms.project import project
from niripipe.algorithms.resample import resample
from niripipe.errors import AlgorithmError

SHAPE = (120, 150)


def star(shape, x, y, sigma, flux=1e5):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    square = (columns - x) ** 2 + (rows - y) ** 2
    return (flux * np.exp(-square / 2 / sigma**2) / (2 * np.pi * sigma**2)).astype(np.float32)


def turned(angle, scale, centre=(60.0, 75.0)):
    """Mapping of output to input: a rotation and a magnification about the middle."""
    c, s = scale * np.cos(np.deg2rad(angle)), scale * np.sin(np.deg2rad(angle))

    def to_input(y, x):
        v, u = y - centre[0], x - centre[1]
        return s * u + c * v + centre[0], c * u - s * v + centre[1]

    return to_input


def bent(y, x):
    """Mapping with a curvature of a pixel over the frame."""
    u, v = (x - 75) / 75, (y - 60) / 60
    return y + 0.4 + 0.8 * u * v, x - 0.3 + 0.9 * v**2


@pytest.mark.parametrize("kernel", ["nearest", "linear", "poly3", "poly5"])
def test_an_affine_mapping_gives_what_the_affine_resampling_gives(kernel):
    rng = np.random.default_rng(1)
    data = rng.normal(100, 10, SHAPE).astype(np.float32)
    variance = rng.uniform(50, 150, SHAPE).astype(np.float32)
    angle = np.deg2rad(7.0)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    offset = np.array([-5.3, 8.1])
    affine = resample(data, variance, matrix=matrix, offset=offset, shape=SHAPE, kernel=kernel)

    def to_input(y, x):
        return matrix[0, 0] * y + matrix[0, 1] * x + offset[0], matrix[1, 0] * y + matrix[1, 1] * x + offset[
            1
        ]

    made = project(data, variance, to_input=to_input, shape=SHAPE, kernel=kernel)
    both = (affine.mask == 0) & (made.mask == 0)
    assert both.mean() > 0.8
    # Nearest neighbours may differ where a position lies half-way.
    differs = ~np.isclose(made.data, affine.data, rtol=1e-4, atol=1e-2)
    assert (differs & both).sum() <= (3 if kernel == "nearest" else 0)
    assert np.isclose(made.variance[both & ~differs], affine.variance[both & ~differs], rtol=1e-3).all()
    assert np.count_nonzero((affine.mask ^ made.mask) & NO_DATA) < 5
    assert made.correlation == pytest.approx(affine.correlation, rel=0.05)


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.0, 1.4, 2.0, 4.3])
def test_the_flux_of_a_star_stays_for_pixels_of_any_size(scale):
    shape = (int(120 / scale), int(150 / scale))
    to_input = turned(25.0, scale, centre=(0.0, 0.0))

    def shifted(y, x):
        v, u = to_input(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2)
        return v + 59.5, u + 74.5

    made = project(star(SHAPE, 78.3, 57.6, 2.5), to_input=shifted, shape=shape)
    assert made.data.sum() == pytest.approx(1e5, rel=2e-3)
    assert made.jacobian == pytest.approx(scale**2, rel=1e-6)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    y, x = (float((made.data * axis).sum() / made.data.sum()) for axis in (rows, columns))
    back = shifted(np.array([y]), np.array([x]))
    assert float(back[0][0]) == pytest.approx(57.6, abs=0.02 * max(1, scale))
    assert float(back[1][0]) == pytest.approx(78.3, abs=0.02 * max(1, scale))


def test_a_bent_mapping_puts_stars_where_it_says():
    data = star(SHAPE, 40.0, 30.0, 2.0) + star(SHAPE, 110.0, 90.0, 2.0)
    made = project(data, to_input=bent, shape=SHAPE)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for x, y in ((40.0, 30.0), (110.0, 90.0)):
        near = np.hypot(*(np.array(bent(rows, columns)) - np.array([y, x])[:, None, None])) < 12
        weight = np.where(near, made.data, 0)
        centre = [float((weight * axis).sum() / weight.sum()) for axis in (rows, columns)]
        assert np.allclose(np.ravel(bent(*(np.array([c]) for c in centre))), [y, x], atol=0.02)


@pytest.mark.parametrize("scale", [0.7, 1.0, 2.5])
def test_the_variance_is_that_of_the_new_pixels(scale):
    shape = (int(100 / scale), int(100 / scale))

    def to_input(y, x):
        return scale * y + 5.3 + 0.02 * x, scale * x + 7.6 - 0.02 * y

    rng = np.random.default_rng(2)
    made = [
        project(
            rng.normal(0, 3, SHAPE).astype(np.float32),
            np.full(SHAPE, 9, np.float32),
            to_input=to_input,
            shape=shape,
        )
        for _ in range(60)
    ]
    inside = made[0].mask == 0
    pull = np.stack([m.data[inside] / np.sqrt(m.variance[inside]) for m in made])
    assert pull.std() == pytest.approx(1, abs=0.02)
    # The sum over a large area scatters by what the correlation factor says.
    box = (slice(8, -8), slice(8, -8))
    sums = [float(m.data[box].sum()) for m in made]
    expected = np.sqrt(made[0].variance[box].sum() * made[0].correlation)
    assert np.std(sums) == pytest.approx(expected, rel=0.3)


def test_surface_brightness_stays_when_flux_need_not():
    data = np.full(SHAPE, 7.0, np.float32)
    made = project(data, to_input=turned(10, 2.0), shape=SHAPE, conserve=False)
    assert np.allclose(made.data[made.mask == 0], 7.0, rtol=1e-5)


def test_flags_and_objects_spread_to_what_depends_on_them_and_bad_values_do_not_ring():
    data = np.full(SHAPE, 10.0, np.float32)
    mask = np.zeros(SHAPE, np.uint16)
    objects = np.zeros(SHAPE, np.uint8)
    data[60, 75], mask[60, 75] = 1e6, BAD
    objects[20:30, 20:30] = 1
    data[90, 90] = np.nan

    def to_input(y, x):
        return y + 0.4, x + 0.3 + 0.001 * y

    made = project(data, None, mask, objects, to_input=to_input, shape=SHAPE)
    flagged = np.argwhere(made.mask & BAD)
    assert 2 <= len(flagged) <= 9
    assert (np.abs(flagged - [59.6, 74.6]) < 2.5).all()
    assert np.isfinite(made.data).all()
    assert made.mask[89, 89] & NO_DATA
    assert np.allclose(made.data[made.mask == 0], 10.0, rtol=1e-4)
    assert made.objmask[24, 24] == 1
    assert 100 <= made.objmask.sum() <= 170


def test_inputs_are_not_changed():
    data = np.full(SHAPE, np.nan, np.float32)
    data[10:] = 1
    mask = np.zeros(SHAPE, np.uint16)
    before = data.copy()
    project(data, data, mask, to_input=turned(3, 1), shape=SHAPE)
    assert np.array_equal(data, before, equal_nan=True)
    assert not mask.any()


def test_a_frame_that_does_not_reach_the_output_is_refused():
    with pytest.raises(AlgorithmError, match="does not reach"):
        project(np.ones(SHAPE, np.float32), to_input=lambda y, x: (y + 500, x), shape=SHAPE)
    with pytest.raises(AlgorithmError, match="no finite value"):
        project(np.ones(SHAPE, np.float32), to_input=lambda y, x: (y * np.nan, x), shape=SHAPE)
