"""Resampling out of a distortion, against positions and sums written here."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.affine import Affine
from niripipe.algorithms.resample import resample
from niripipe.algorithms.warp import Bend

# f/32 with Altair has 1.32e-5 on 1024 pixels: here so strong that the corner moves as far, by 7 pixels.
N, K = 160, 5.5e-4
CENTRE = (N - 1) / 2


def _distort(y, x):
    u, v = np.asarray(x, float) - CENTRE, np.asarray(y, float) - CENTRE
    shrink = 2 / (1 + np.sqrt(1 + 4 * K * np.hypot(u, v)))
    return CENTRE + v * shrink, CENTRE + u * shrink


def _pattern(y, x):
    """A smooth picture without noise: what a cubic polynomial renders to 1e-3 of its amplitude."""
    return 100 + 20 * np.sin(2 * np.pi * x / 37) * np.cos(2 * np.pi * y / 29)


def _cubic(p):
    """Weights of the Lagrange polynomial through -1, 0, 1, 2."""
    return np.array([
        -p * (p - 1) * (p - 2) / 6, (p + 1) * (p - 1) * (p - 2) / 2,
        -(p + 1) * p * (p - 2) / 2, (p + 1) * p * (p - 1) / 6,
    ])  # fmt: skip


@pytest.fixture
def image():
    """What the detector sees of the pattern."""
    y, x = np.mgrid[:N, :N].astype(float)
    r = np.hypot(x - CENTRE, y - CENTRE)
    stretch = 1 + K * r
    return _pattern(CENTRE + (y - CENTRE) * stretch, CENTRE + (x - CENTRE) * stretch).astype("f4")


@pytest.mark.parametrize("kernel", ["poly3", "poly5", "spline3"])
@pytest.mark.parametrize("offset", [(0.0, 0.0), (3.3, -7.6)])
def test_a_distorted_picture_becomes_the_true_one(image, kernel, offset):
    made = resample(image, matrix=np.eye(2), offset=offset, shape=(N, N), kernel=kernel, distort=_distort)
    y, x = np.mgrid[:N, :N]
    good = made.mask == 0
    assert good.mean() > 0.85
    truth = _pattern(y + offset[0], x + offset[1])
    inner = good & np.roll(good, 4, 0) & np.roll(good, -4, 0) & np.roll(good, 4, 1) & np.roll(good, -4, 1)
    # Splines look beyond the edge.
    assert np.abs(made.data - truth)[inner].max() < (0.4 if kernel == "spline3" else 0.2)
    assert np.std((made.data - truth)[inner]) < 0.03
    assert np.all(made.data[~good] == 0)


def test_no_data_is_where_the_detector_does_not_reach():
    ones = np.ones((N, N), "f4")
    made = resample(
        ones, matrix=np.eye(2), offset=(0, 0), shape=(N + 40, N + 40), origin=(-20, -20), distort=_distort
    )
    y, x = np.mgrid[-20 : N + 20, -20 : N + 20]
    dy, dx = _distort(y, x)
    inside = (dy >= 0) & (dy <= N - 1) & (dx >= 0) & (dx <= N - 1)
    # What is within a thousandth of a pixel of the outermost pixels is on them.
    clear = np.min(np.abs([dy, dx, dy - (N - 1), dx - (N - 1)]), axis=0) > 2e-3
    np.testing.assert_array_equal(((made.mask & 16) == 0)[clear], inside[clear])
    # A barrel: the field is larger than the array where it reaches the corners.
    assert inside.sum() > N * N
    np.testing.assert_allclose(made.data[inside & clear], 1, rtol=1e-5)


def test_variances_are_those_of_the_weights_and_noise_has_them():
    rng = np.random.default_rng(4)
    variance = rng.uniform(10, 40, (N, N)).astype("f4")
    made = resample(
        np.zeros((N, N), "f4"), variance, matrix=np.eye(2), offset=(0.4, 0.7), shape=(N, N), distort=_distort
    )
    # By hand, pixel by pixel: y by its position, x at each of the four rows by its own.
    for row, column in ((40, 50), (80, 20), (120, 130), (30, 141)):
        y = float(_distort(row + 0.4, column + 0.7)[0])
        top = int(np.floor(y))
        total = 0.0
        for tap, weight in enumerate(_cubic(y - top)):
            line = top - 1 + tap
            # Where along the output's column this line of the detector is seen.
            lines = np.linspace(row - 8, row + 8, 4001)
            ys, xs = _distort(lines + 0.4, column + 0.7)
            x = float(np.interp(line, ys, xs))
            left = int(np.floor(x))
            total += weight**2 * float(_cubic(x - left) ** 2 @ variance[line, left - 1 : left + 3])
        assert made.variance[row, column] == pytest.approx(total, rel=5e-3)
    tries = [
        resample(
            rng.normal(0, np.sqrt(variance)).astype("f4"),
            matrix=np.eye(2), offset=(0.4, 0.7), shape=(N, N), distort=_distort,
        ).data
        for _ in range(40)
    ]  # fmt: skip
    good = made.mask == 0
    ratio = np.var(tries, axis=0, ddof=1)[good] / made.variance[good]
    assert ratio.mean() == pytest.approx(1, abs=0.01)


def test_flags_and_objects_follow_and_saturated_pixels_keep_their_place():
    mask = np.zeros((N, N), "u2")
    mask[30, 40], mask[100:110, 90:100] = 4, 2
    objects = np.zeros((N, N), "u1")
    objects[60:90, 20:50] = 1
    made = resample(
        np.zeros((N, N), "f4"),
        None,
        mask,
        objects,
        matrix=np.eye(2),
        offset=(0, 0),
        shape=(N, N),
        distort=_distort,
    )
    y, x = np.mgrid[:N, :N]
    dy, dx = _distort(y, x)
    np.testing.assert_array_equal(
        (made.mask & 4) != 0,
        (np.abs(dy - 30) < 2) & (np.abs(dx - 40) < 2) & (_weight(dy - 30) * _weight(dx - 40) > 0.1),
    )
    core = (dy > 101) & (dy < 108) & (dx > 91) & (dx < 98)
    assert ((made.mask[core] & 2) != 0).all()
    core = (dy > 61) & (dy < 88) & (dx > 21) & (dx < 48)
    assert (made.objmask[core] == 1).all()
    away = (dy < 58) | (dy > 92) | (dx < 18) | (dx > 52)
    assert (made.objmask[away] == 0).all()


def _weight(distance):
    """Absolute weight of a pixel so far from a position, of the cubic."""
    a = np.abs(distance)
    return np.abs(np.where(a <= 1, (1 - a**2) * (2 - a) / 2, (1 - a) * (2 - a) * (3 - a) / 6))


def test_a_turned_frame_is_gathered_and_gives_the_same_picture(image):
    angle = np.deg2rad(30)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.full(2, CENTRE) - matrix @ np.full(2, CENTRE)
    mapping = Affine(matrix, offset)
    assert not Bend(lambda y, x: _distort(*mapping(y, x)), (N, N), (N, N)).is_upright()
    made = resample(image, matrix=matrix, offset=offset, shape=(N, N), distort=_distort)
    y, x = np.mgrid[:N, :N]
    truth = _pattern(*mapping(y, x))
    inner = np.hypot(y - CENTRE, x - CENTRE) < 70
    assert np.abs(made.data - truth)[inner].max() < 0.2


def test_the_area_of_equalised_pixels_is_a_factor_of_flux_and_of_the_noise():
    plane = np.full((N, N), 12.0, "f4")
    options = {"matrix": np.eye(2), "offset": (0.3, 0.3), "shape": (N, N), "distort": _distort}
    plain, made = resample(plane, plane, **options), resample(plane, plane, **options, area=1.5)
    np.testing.assert_allclose(made.data, plain.data / 1.5, rtol=1e-6)
    np.testing.assert_allclose(made.variance, plain.variance / 1.5**2, rtol=1e-6)
    assert made.jacobian == pytest.approx(1 / 1.5)
    kept = resample(plane, plane, **options, area=1.5, conserve=False)
    np.testing.assert_array_equal(kept.data, plain.data)


def test_a_distortion_of_nothing_is_a_plain_shift():
    rng = np.random.default_rng(2)
    data = rng.normal(100, 5, (N, N)).astype("f4")
    mask = (rng.random((N, N)) < 0.02).astype("u2") * np.uint16(4)
    options = {"matrix": np.eye(2), "offset": (2.25, -3.5), "shape": (N, N)}
    plain = resample(data, data, mask, **options)
    bent = resample(data, data, mask, **options, distort=lambda y, x: (y, x))
    np.testing.assert_allclose(bent.data, plain.data, rtol=1e-5)
    np.testing.assert_allclose(bent.variance, plain.variance, rtol=1e-5)
    np.testing.assert_array_equal(bent.mask, plain.mask)
    # Fractions of a pixel are spread evenly.
    evenly = np.mean(np.sum(_cubic((np.arange(1000) + 0.5) / 1000) ** 2, axis=0))
    assert bent.correlation == pytest.approx(evenly**-2, rel=0.01)
