"""What aperture corrections by a curve of growth rest on, against Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.primitives.calibrated_catalogue import _share, typical_width


@pytest.mark.parametrize("radius", [0.4, 0.6, 0.65, 0.9, 1.2])
def test_the_share_of_the_light_between_the_points_of_a_curve_of_growth(radius: float) -> None:
    radii = np.arange(0.25, 4.1, 0.25)
    shares = 1 - np.exp(-4 * np.log(2) * radii**2)
    expected = 1 - np.exp(-4 * np.log(2) * radius**2)
    assert _share((radii, shares), radius) == pytest.approx(expected, rel=0.002)


def test_faint_sources_do_not_widen_the_stars() -> None:
    width = np.array([4.94, 5.01, 5.08, 5.87, 5.36, 6.55, 7.94])
    snr = np.array([180.0, 81.0, 43.0, 27.0, 21.0, 18.0, 13.0])
    assert 4.9 < typical_width(width, snr) < 5.05
    assert np.isnan(typical_width(width, snr / 20))


def test_one_bright_galaxy_is_outvoted_by_the_stars() -> None:
    width = np.append(np.full(15, 5.0), 30.0)
    snr = np.append(np.full(15, 100.0), 1000.0)
    assert typical_width(width, snr) == 5.0
