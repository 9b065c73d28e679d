from __future__ import annotations

import numpy as np
import pytest

from niripipe.simulate.pointing import TangentWcs
from niripipe.simulate.scene import Galaxy, make_scene
from niripipe.simulate.settings import make_plan

WCS = TangentWcs.oriented((545.2, 489.0), (148.9, 69.7), 0.1171, 0.0, mirrored=False)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 20])
def test_a_few_stars_are_all_inside_and_apart(count: int) -> None:
    plan = make_plan({"n_stars": count, "scene": "sparse"})
    table = make_scene("target", plan, WCS, np.random.default_rng(3)).table
    assert len(table) == count
    assert ((table[:, :2] > 100) & (table[:, :2] < 924)).all()
    apart = np.hypot(*(table[:, None, :2] - table[None, :, :2]).transpose(2, 0, 1))
    apart[np.diag_indices(count)] = np.inf
    assert (apart > 25).all()


@pytest.mark.parametrize(
    ("scene", "stars", "saturated", "galaxy"),
    [
        ("extended", 401, 1, True),
        ("crowded", 801, 1, False),
        ("sparse", 60, 0, False),
        ("empty", 0, 0, False),
    ],
)
def test_scenes_hold_what_their_name_says(scene: str, stars: int, saturated: int, galaxy: bool) -> None:
    plan = make_plan({"scene": scene})
    made = make_scene("target", plan, WCS, np.random.default_rng(1))
    assert len(made.stars) == stars
    assert (made.galaxy is not None) is galaxy
    # Peak pixel of a star with a FWHM of 4.7 pixels: 3 per cent of its flux.
    fills = made.table[:, 2] * 0.029 * plan.exposure > plan.setup.full_well
    assert np.count_nonzero(fills) == saturated


def test_bright_stars_of_a_dense_field_include_isolated_ones() -> None:
    table = make_scene("target", make_plan({}), WCS, np.random.default_rng(1)).table
    apart = np.hypot(*(table[:, None, :2] - table[None, :, :2]).transpose(2, 0, 1))
    apart[np.diag_indices(len(table))] = np.inf
    isolated = (apart.min(axis=1) > 28) & (table[:, 2] > 5000)
    assert np.count_nonzero(isolated) > 40


def test_fluxes_span_the_range_as_a_power_law() -> None:
    flux = make_scene("target", make_plan({"scene": "crowded"}), WCS, np.random.default_rng(1)).table[1:, 2]
    assert flux.min() > 700
    assert flux.max() < 90000
    counts = [(flux > limit).sum() for limit in (1000, 2000, 4000)]
    expected = (np.array([1000, 2000, 4000.0]) ** -0.6 - 90000**-0.6) / (700**-0.6 - 90000**-0.6) * 800
    np.testing.assert_allclose(counts, expected, rtol=0.02)


def test_the_standard_stands_at_the_pointing() -> None:
    first = make_scene("std", make_plan({}), WCS, np.random.default_rng(1)).stars[0]
    assert (first.x, first.y, first.flux) == (544.2, 488.0, 250000.0)


def test_galaxy_is_elliptical_about_its_centre_and_fades_outwards() -> None:
    galaxy = Galaxy(10.0, 20.0, disc=100.0, scale=40.0, bulge=50.0, core=10.0, axis_ratio=0.5, angle=90.0)
    along, across, opposite = galaxy.brightness(np.array([10.0, 20.0, 10.0]), np.array([40.0, 20.0, 0.0]))
    assert along == pytest.approx(across, rel=1e-5)
    assert along == pytest.approx(opposite, rel=1e-5)
    assert galaxy.brightness(np.array([10.0]), np.array([20.0]))[0] == pytest.approx(
        50 + 100 * np.exp(-1 / 8), rel=1e-5
    )
