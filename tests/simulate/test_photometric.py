"""Nights with real standards: positions, fluxes, extinction and clouds against independent arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import astrodata, simulate
from niripipe.errors import ParameterError

PLAN = {
    "size": 256, "scene": "sparse", "n_stars": 8, "n_target": 3, "n_sky": 0, "n_standard": 3, "n_flat": 0,
    "n_dark": 0, "n_short_dark": 0, "standards": ("FS 103", "FS 17"), "filters": ("J", "H"),
}  # fmt: skip


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    return simulate.night(tmp_path_factory.mktemp("standards"), seed=5, **PLAN)


def test_standards_are_where_they_are_and_in_both_filters(night):
    frames = [astrodata.open(path) for path in night.standard]
    assert len(frames) == 12
    seen = {(ad.object(), ad.filter_name(pretty=True)) for ad in frames}
    assert seen == {("FS 103", "J"), ("FS 103", "H"), ("FS 17", "J"), ("FS 17", "H")}
    fs17 = next(ad for ad in frames if ad.object() == "FS 17")
    assert (fs17.target_ra(), fs17.target_dec()) == pytest.approx((132.830458, 11.869556), abs=1e-5)
    assert len({ad.observation_id() for ad in frames}) == 4


def test_fluxes_follow_from_magnitude_zero_point_and_airmass(night):
    for path in night.standard:
        ad = astrodata.open(path)
        wheel = {"J": "J", "H": "H"}[ad.filter_name(pretty=True)]
        truth = night.truth.photometry
        # FS 103: J 12.342, H 11.840; FS 17: J 12.668, H 12.363; nominal zero points 26.69 and 26.77.
        magnitude = {
            ("FS 103", "J"): 12.342,
            ("FS 103", "H"): 11.840,
            ("FS 17", "J"): 12.668,
            ("FS 17", "H"): 12.363,
        }
        zero_point, extinction = {"J": (26.69, 0.05), "H": (26.77, 0.03)}[wheel]
        assert truth["zero_points"][wheel] == zero_point
        expected = 10 ** (
            0.4 * (zero_point - magnitude[ad.object(), wheel] - extinction * (ad.airmass() - 1))
        )
        assert night.truth.positions(path.name)[0, 2] == pytest.approx(expected, rel=2e-4)


def test_the_field_of_the_standard_is_that_of_the_first(night):
    first = astrodata.open(night.standard[0])
    zero_point, magnitude = {"J": (26.69, 12.342), "H": (26.77, 11.840)}[first.filter_name(pretty=True)]
    assert first.object() == "FS 103"
    flux = 10 ** (0.4 * (zero_point - magnitude))
    assert night.truth.fields["std"].stars[0].flux == pytest.approx(flux, rel=1e-6)


def test_the_truth_is_read_back(night):
    again = simulate.read_truth(night.folder)
    assert again.photometry == night.truth.photometry
    name = night.standard[-1].name
    np.testing.assert_allclose(again.positions(name), night.truth.positions(name))


def test_clouds_dim_some_frames(tmp_path):
    cloudy = simulate.night(
        tmp_path, seed=5, clouds=0.3, n_target=20, **{k: v for k, v in PLAN.items() if k != "n_target"}
    )
    lost = -2.5 * np.log10([cloudy.truth.frames[path.name].transparency for path in cloudy.target])
    assert 3 < np.count_nonzero(lost > 0.1) < 30


def test_plans_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="no such standard"):
        simulate.night(tmp_path, standards=("FS 999",))
    with pytest.raises(ParameterError, match="no magnitude"):
        simulate.night(tmp_path, standards=("HD1160",))
    with pytest.raises(ParameterError, match="need standards"):
        simulate.night(tmp_path, filters=("J", "H"))
