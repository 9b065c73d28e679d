from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.linearity import correct, correct_level
from niripipe.errors import ParameterError

LOW = (1.2662732, 6.006310407e-07, 1.282732019e-12)
MEDIUM = (0.09442515154, 2.787629143e-07, 3.178236042e-12)
MEDIUM_256 = (0.01029262589, 5.540988347e-07, 1.404726339e-12)
HIGH = (0.009697324059, 2.471574550e-07, 3.067478573e-12)
HIGH_DEEP = (0.007680816203, 2.912125336e-07, 1.203254464e-12)

# Electrons of one coadd 1000, 50000, 100000, 150000, corrected; factors for 10, 20, 60 s.
VECTORS = [
    (LOW, (1000.6019, 51661.922, 107289.04, 167843.41), (0.8876050, 0.9404563, 0.9793316)),
    (MEDIUM, (1000.2819, 51094.188, 105965.87, 166998.72), (0.9906458, 0.9953009, 0.9984287)),
    (MEDIUM_256, (1000.5555, 51560.836, 106945.72, 167208.17), (0.9989718, 0.9994856, 0.9998285)),
    (HIGH, (1000.2502, 51001.328, 105539.06, 165913.78), (0.9990312, 0.9995154, 0.9998384)),
    (HIGH_DEEP, (1000.2924, 50878.434, 104115.38, 160613.27), (0.9992325, 0.9996161, 0.9998720)),
]


def _coefficients(mode: tuple[float, float, float]) -> dict[str, float]:
    return {"time_delta": mode[0], "gamma": mode[1], "eta": mode[2]}


def _electrons(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


@pytest.mark.parametrize(("mode", "corrected", "factors"), VECTORS)
def test_the_polynomial_reproduces_known_values(
    mode: tuple[float, float, float], corrected: tuple[float, ...], factors: tuple[float, ...]
) -> None:
    data = _electrons(1000, 50000, 100000, 150000)
    for time, factor in zip((10.0, 20.0, 60.0), factors, strict=True):
        result = correct(data, **_coefficients(mode), gain=1.0, exposure_time=time)
        assert result.data[0] == pytest.approx(np.array(corrected) * factor, rel=3e-7)
        assert result.data.dtype == np.float32
        assert result.variance is None


def test_adu_and_coadds_are_brought_to_electrons_of_one_coadd() -> None:
    electrons = _electrons(1000, 50000, 150000)
    plain = correct(electrons, **_coefficients(MEDIUM), gain=1.0, exposure_time=10.0)
    summed = correct(
        electrons * np.float32(3 / 12.3), **_coefficients(MEDIUM), gain=12.3, coadds=3, exposure_time=10.0
    )
    assert summed.data * (12.3 / 3) == pytest.approx(plain.data, rel=1e-6)


def test_the_variance_grows_by_the_increment_and_scales_by_the_square_of_the_factor() -> None:
    data, variance = _electrons(100000, 0), _electrons(101225, 1225)
    result = correct(data, variance, **_coefficients(MEDIUM), gain=1.0, exposure_time=10.0)
    factor = 10.0 / (10.0 + MEDIUM[0])
    assert result.variance is not None
    expected = np.array([101225 + 105965.87 - 100000, 1225]) * factor**2
    assert result.variance[0] == pytest.approx(expected, rel=1e-6)


def test_photon_noise_becomes_that_of_the_corrected_counts_also_below_zero() -> None:
    rng = np.random.default_rng(0)
    data = rng.uniform(-3000, 15000, (300, 700)).astype(np.float32)
    settings = {**_coefficients(LOW), "gain": 12.3, "exposure_time": 10.0}
    factor = np.float32(10.0 / (10.0 + LOW[0]))
    read_noise = np.float32((35 / 12.3) ** 2)
    before = data.copy()
    result = correct(data, np.maximum(data, 0) / np.float32(12.3) + read_noise, **settings)
    expected = factor**2 * (np.maximum(result.data / factor, 0) / np.float32(12.3) + read_noise)
    np.testing.assert_allclose(result.variance, expected, rtol=3e-7)
    assert (data == before).all()


def test_pixels_that_are_not_a_number_stay_so() -> None:
    data = _electrons(np.nan, 10, -50)
    result = correct(data, **_coefficients(MEDIUM), gain=1.0, exposure_time=10.0).data[0]
    assert np.isnan(result[0])
    assert np.isfinite(result[1:]).all()


@pytest.mark.parametrize(
    ("mode", "levels", "corrected"),
    [
        (LOW, (199998.0, 139998.6), (234284.309, 155290.444)),
        (MEDIUM, (199998.0, 139998.6), (236573.419, 154183.062)),
        (HIGH, (199998.0, 139998.6), (234423.193, 153259.698)),
        (HIGH_DEEP, (279997.2, 195988.2), (329240.856, 216232.385)),
    ],
)
def test_levels_move_with_the_counts(
    mode: tuple[float, float, float], levels: tuple[float, float], corrected: tuple[float, float]
) -> None:
    for level, expected in zip(levels, corrected, strict=True):
        assert correct_level(level, gamma=mode[1], eta=mode[2], gain=1.0) == pytest.approx(expected, abs=6e-4)
    doubled = correct_level(2 * levels[0], gamma=mode[1], eta=mode[2], gain=1.0, coadds=2)
    assert doubled == pytest.approx(2 * corrected[0], abs=2e-3)


def test_unusable_settings_are_refused() -> None:
    data = _electrons(1, 2)
    settings = _coefficients(MEDIUM)
    with pytest.raises(ParameterError, match="exposure_time"):
        correct(data, **settings, gain=1.0, exposure_time=0.0)
