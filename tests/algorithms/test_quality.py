from __future__ import annotations

import math

import numpy as np
import pytest

from niripipe.algorithms.conditions import sky_conditions, to_conditions
from niripipe.algorithms.quality import (
    good_stars,
    measure_cloud,
    measure_image_quality,
    measure_strehl,
    peak_fraction,
    sky_brightness,
)
from niripipe.errors import DataError, ParameterError
from niripipe.instruments.tables import niri_tables

Columns = dict[str, np.ndarray]


def star_catalogue(n: int = 8) -> Columns:
    return {
        "PROFILE_FWHM": np.full(n, 5.0),
        "PROFILE_EE50": np.full(n, 5.5),
        "FWHM_IMAGE": np.full(n, 5.2),
        "ELLIPTICITY": np.full(n, 0.1),
        "B_IMAGE": np.full(n, 2.0),
        "THETA_IMAGE": np.full(n, 30.0),
        "FLUX_AUTO": np.full(n, 1e4),
        "FLUXERR_AUTO": np.full(n, 100.0),
        "FLUX_MAX": np.full(n, 300.0),
        "CLASS_STAR": np.full(n, 0.95),
        "ISOAREA_IMAGE": np.full(n, 100),
        "IMAFLAGS_ISO": np.zeros(n, int),
        "NIMAFLAGS_ISO": np.zeros(n, int),
    }


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("PROFILE_FWHM", 0.0),
        ("PROFILE_FWHM", -999.0),
        ("PROFILE_FWHM", 5.6),  # above EE50
        ("ELLIPTICITY", 0.0),
        ("ELLIPTICITY", 0.5),
        ("B_IMAGE", 1.1),
        ("FLUX_AUTO", 5000.0),
        ("CLASS_STAR", 0.8),
        ("ISOAREA_IMAGE", 20),
        ("NIMAFLAGS_ISO", 3),
        ("IMAFLAGS_ISO", 4),
    ],
)
def test_each_rule_removes_the_row_that_breaks_it(column: str, value: float) -> None:
    catalogue = star_catalogue()
    catalogue[column][3] = value
    if column == "IMAFLAGS_ISO":
        catalogue["NIMAFLAGS_ISO"][3] = 1
    good = good_stars(catalogue)
    assert not good[3]
    assert good.sum() == 7


def test_two_per_cent_of_flagged_pixels_are_allowed_unless_one_is_saturated() -> None:
    catalogue = star_catalogue()
    catalogue["NIMAFLAGS_ISO"][:2] = 2
    catalogue["IMAFLAGS_ISO"][:2] = [1, 1 | 4]
    assert good_stars(catalogue)[:2].tolist() == [True, False]


def test_with_adaptive_optics_fainter_stars_are_told_by_their_profile() -> None:
    catalogue = star_catalogue()
    catalogue["FLUX_AUTO"][:] = 3000
    catalogue["CLASS_STAR"][:] = 0
    catalogue["FWHM_IMAGE"][2] = 9
    assert not good_stars(catalogue).any()
    assert good_stars(catalogue, adaptive_optics=True).sum() == 7


def test_one_clip_at_two_standard_deviations_removes_the_odd_width() -> None:
    catalogue = star_catalogue(10)
    catalogue["PROFILE_FWHM"][:] = 4.9 + 0.02 * np.arange(10)
    catalogue["PROFILE_FWHM"][9] = 5.4
    assert good_stars(catalogue).tolist() == [True] * 9 + [False]
    few = {name: values[8:] for name, values in catalogue.items()}
    assert good_stars(few).all()


def test_image_quality_is_in_arcsec_and_at_the_zenith() -> None:
    catalogue = star_catalogue()
    catalogue["PROFILE_FWHM"][:4], catalogue["PROFILE_FWHM"][4:] = 4.8, 5.2
    quality = measure_image_quality(catalogue, pixel_scale=0.1, airmass=1.5)
    assert quality is not None
    assert (quality.n, quality.stars.sum()) == (8, 8)
    assert quality.fwhm == pytest.approx(0.5)
    assert quality.fwhm_std == pytest.approx(0.02)
    assert quality.zenith_fwhm == pytest.approx(0.5 * 1.5**-0.6)
    assert quality.zenith_fwhm_std == pytest.approx(0.02 * 1.5**-0.6)
    assert quality.ellipticity == pytest.approx(0.1)
    without = measure_image_quality(catalogue, pixel_scale=0.1)
    assert without is not None
    assert without.zenith_fwhm is None


def test_no_star_gives_none_and_a_missing_column_is_named() -> None:
    catalogue = star_catalogue(0)
    assert measure_image_quality(catalogue, pixel_scale=0.1) is None
    catalogue = star_catalogue()
    del catalogue["PROFILE_EE50"]
    with pytest.raises(DataError, match="PROFILE_EE50"):
        good_stars(catalogue)


def test_an_astropy_table_serves_as_a_catalogue() -> None:
    from astropy.table import Table

    table = Table(star_catalogue())
    assert good_stars(table).all()
    table.remove_columns(["NIMAFLAGS_ISO", "IMAFLAGS_ISO"])
    assert good_stars(table).all()


def test_bands_follow_the_nearest_wavelength_and_the_table() -> None:
    names = {1.02: "Y", 1.25: "J", 1.65: "H", 2.12: "K", 3.78: "L", 4.68: "M"}
    limits = niri_tables().qa.image_quality
    assert all(niri_tables().image_quality_limits(w) == limits[band] for w, band in names.items())
    verdicts = [to_conditions(v, 0, limits["K"]).best for v in (0.3, 0.35, 0.5, 0.79, 0.8, 2)]
    assert verdicts == [(20,), (70,), (70,), (85,), (100,), (100,)]


def test_probabilities_are_those_of_a_normal_distribution_and_add_to_one() -> None:
    verdict = to_conditions(0.08, 0.1, niri_tables().qa.cloud_cover)
    chances = dict(verdict.probability)
    assert chances[(50,)] == pytest.approx(0.5)
    assert chances[(70,)] == pytest.approx(0.5 * math.erf(2.2 / math.sqrt(2)))
    assert sum(chances.values()) == pytest.approx(1)
    assert verdict.possible == ((50,), (70,))
    assert verdict.met(50)
    cloudy = to_conditions(0.5, 0.05, niri_tables().qa.cloud_cover)
    assert cloudy.best == (80,)
    assert not cloudy.met(70)
    assert cloudy.met(80)


def test_equal_limits_are_one_band_so_a_dark_sky_meets_each_of_them() -> None:
    known = niri_tables().qa.background
    assert all(len({limit for _, limit in limits}) == 1 for limits in known.values())
    dark = sky_conditions(16.4, 0.01, known["J"])
    bright = sky_conditions(15.9, 0.01, known["J"])
    assert dark.best == (20, 50, 80)
    assert all(dark.met(percentile) for percentile in (20, 50, 80, 100))
    assert bright.best == (100,)
    assert not bright.met(80)
    between = sky_conditions(14.6, 0.1, known["K(short)"])
    assert between.possible == ((20, 50, 80), (100,))
    assert "Y" not in known


def test_sky_brightness_follows_its_definition() -> None:
    sky = sky_brightness(1200, 60, exposure_time=20, pixel_scale=0.1171, zero_point=26.69)
    rate = 1200 / 20 / 0.1171**2
    assert sky.flux == pytest.approx(rate)
    assert sky.magnitude == pytest.approx(26.69 - 2.5 * math.log10(rate))
    assert sky.magnitude_error == pytest.approx(2.5 * math.log10(1.05))
    assert sky_brightness(-5, 1, exposure_time=20, pixel_scale=0.1, zero_point=26).magnitude is None
    assert sky_brightness(5, 1, exposure_time=20, pixel_scale=0.1).magnitude is None


def test_perfect_optics_put_all_light_into_a_pixel_that_holds_the_whole_pattern() -> None:
    # A pixel of 6 arcsec with fine sampling: what is missing is in rings far out.
    assert peak_fraction(2.2, 6.0, samples=1201) == pytest.approx(1, abs=0.02)
    # The normalisation the reference warns of is wrong by (1 - e^2)^3.
    assert pytest.approx(0.9355, abs=1e-4) == (1 - (1.2 / 8.1) ** 2) ** 3


def test_a_small_pixel_gets_the_central_intensity_of_the_aperture() -> None:
    scale, wavelength, diameter, obscuration = 1e-4, 2.2e-6, 8.1, 1.2
    area = math.pi / 4 * (diameter**2 - obscuration**2)
    expected = area / wavelength**2 * (scale / 206264.806) ** 2
    assert peak_fraction(2.2, scale) == pytest.approx(expected, rel=1e-4)


def test_strehl_is_one_for_perfect_stars_and_ignores_spikes() -> None:
    perfect = peak_fraction(2.2, 0.0219)
    catalogue = {"FLUX_AUTO": np.array([1e5, 2e5, 3e5, 1e5]), "FLUX_MAX": np.zeros(4)}
    catalogue["FLUX_MAX"] = perfect * catalogue["FLUX_AUTO"] * np.array([0.3, 0.3, 0.36, 0.9])
    result = measure_strehl(catalogue, np.ones(4, bool), wavelength=2.2, pixel_scale=0.0219)
    assert result is not None
    assert result.n == 3
    assert result.ratio == pytest.approx((0.3 * 1 + 0.3 * 2 + 0.36 * 3) / 6)
    assert measure_strehl(catalogue, np.zeros(4, bool), wavelength=2.2, pixel_scale=0.02) is None


def reference_catalogue(
    n: int = 30, *, zero_point: float = 26.0, time: float = 20.0, error: float = 0.03
) -> Columns:
    rng = np.random.default_rng(6)
    true = rng.uniform(12, 16, n)
    return {
        "MAG_AUTO": true - zero_point - 2.5 * np.log10(time) + rng.normal(0, error, n),
        "MAGERR_AUTO": np.full(n, error),
        "REF_MAG": true,
        "REF_MAG_ERR": np.zeros(n),
        "FLAGS": np.zeros(n, int),
        "ISOAREA_IMAGE": np.full(n, 200),
        "IMAFLAGS_ISO": np.zeros(n, int),
        "NIMAFLAGS_ISO": np.zeros(n, int),
    }


def test_the_zero_point_is_recovered_and_cloud_is_what_is_missing() -> None:
    cover = measure_cloud(reference_catalogue(zero_point=26.0), exposure_time=20, nominal_zero_point=26.15)
    assert cover is not None
    assert cover.zero_point == pytest.approx(26.0, abs=4 * cover.error)
    assert cover.error == pytest.approx(0.03 / math.sqrt(cover.n), rel=0.3)
    assert cover.cloud == pytest.approx(26.15 - cover.zero_point)
    assert cover.std > 0.03
    assert cover.n == cover.stars.sum()


def test_extinction_makes_the_zero_point_at_airmass_one_brighter() -> None:
    # A clear night: the stars are fainter by k (X - 1) than at airmass 1, and no cloud must be found.
    catalogue = reference_catalogue(zero_point=26.0 - 0.1 * (1.8 - 1.0), error=1e-4)
    cover = measure_cloud(catalogue, exposure_time=20, nominal_zero_point=26.0, airmass=1.8, extinction=0.1)
    assert cover is not None
    assert cover.cloud == pytest.approx(0, abs=1e-3)


def test_unusable_stars_do_not_count() -> None:
    catalogue = reference_catalogue()
    clean = measure_cloud(catalogue, exposure_time=20)
    catalogue["MAG_AUTO"][0] = 99
    catalogue["REF_MAG"][1] = -999
    catalogue["REF_MAG_ERR"][2] = np.nan
    catalogue["FLAGS"][3] = 1
    catalogue["NIMAFLAGS_ISO"][4] = 4
    catalogue["NIMAFLAGS_ISO"][5], catalogue["IMAFLAGS_ISO"][5] = 1, 4
    catalogue["MAGERR_AUTO"][6] = 0.1
    catalogue["MAG_AUTO"][7] -= 3  # a mismatch
    catalogue["REF_MAG"][8] = np.nan
    cover = measure_cloud(catalogue, exposure_time=20)
    assert clean is not None
    assert cover is not None
    assert not cover.stars[:9].any()
    assert cover.zero_point == pytest.approx(clean.zero_point, abs=0.02)
    assert cover.cloud is None
    catalogue["FLAGS"][:] = 1
    assert measure_cloud(catalogue, exposure_time=20) is None


def test_few_stars_may_be_less_precise() -> None:
    catalogue = reference_catalogue(5, error=0.15)
    assert measure_cloud(catalogue, exposure_time=20) is not None
    assert measure_cloud(reference_catalogue(6, error=0.15), exposure_time=20) is None
    with pytest.raises(ParameterError, match="exposure_time"):
        measure_cloud(catalogue, exposure_time=0)
