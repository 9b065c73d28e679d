from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from niripipe.algorithms.bits import BAD, SATURATED
from niripipe.algorithms.detect import detect_sources
from niripipe.algorithms.morphology import dilate
from niripipe.algorithms.source_catalogue import CATALOGUE, add_world_columns
from niripipe.errors import AlgorithmError

SIGMA = 2.0
RMS = 10.0


def add_star(frame: np.ndarray, x0: float, y0: float, flux: float, sigma: float = SIGMA) -> None:
    ny, nx = frame.shape
    h = int(8 * sigma)
    x1, x2, y1, y2 = (
        max(int(x0) - h, 0),
        min(int(x0) + h + 1, nx),
        max(int(y0) - h, 0),
        min(int(y0) + h + 1, ny),
    )
    y, x = np.mgrid[y1:y2, x1:x2]
    frame[y1:y2, x1:x2] += (
        flux / (2 * np.pi * sigma**2) * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2))
    )


@pytest.fixture(scope="module")
def stars() -> tuple[np.ndarray, np.ndarray]:
    """A frame of 400 x 400 with 25 separated stars: frame, truth (x, y, flux)."""
    rng = np.random.default_rng(1)
    frame = rng.normal(500, RMS, (400, 400))
    grid = np.stack(np.meshgrid(np.arange(40, 400, 80), np.arange(40, 400, 80)), axis=-1).reshape(-1, 2)
    truth = np.column_stack([grid + rng.uniform(-10, 10, grid.shape), 10 ** rng.uniform(3.8, 5.3, len(grid))])
    for star in truth:
        add_star(frame, *star)
    frame += rng.normal(0, 1, frame.shape) * np.sqrt(np.maximum(frame - 500, 0))
    return frame.astype(np.float32), truth


def matched(catalogue: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Row of each true star."""
    x, y = catalogue["X_IMAGE"] - 1, catalogue["Y_IMAGE"] - 1
    distance = np.hypot(x[None] - truth[:, :1], y[None] - truth[:, 1:2])
    assert (distance.min(axis=1) < 2).all()
    return distance.argmin(axis=1)


def test_every_star_is_found_once_at_its_place_with_its_flux(stars):
    frame, truth = stars
    result = detect_sources(frame)
    catalogue = result.catalogue
    assert len(catalogue) == len(truth)
    row = catalogue[matched(catalogue, truth)]
    assert np.median(row["FLUX_AUTO"] / truth[:, 2]) == pytest.approx(1, abs=0.02)
    pull = np.r_[row["XWIN_IMAGE"] - 1 - truth[:, 0], row["YWIN_IMAGE"] - 1 - truth[:, 1]] / np.tile(
        row["ERRWIN_IMAGE"], 2
    )
    assert 0.6 < np.std(pull) < 1.5
    assert np.median(row["FWHM_IMAGE"]) == pytest.approx(2.355 * SIGMA, rel=0.03)
    assert result.fwhm == pytest.approx(2.355 * SIGMA, rel=0.03)
    assert np.median(row["FLUX_RADIUS"]) == pytest.approx(1.1774 * SIGMA, rel=0.05)
    assert (row["CLASS_STAR"] > 0.8).all()
    assert result.rms == pytest.approx(RMS, rel=0.1)
    assert result.level == pytest.approx(500, abs=3)


def test_the_errors_of_faint_stars_are_those_that_the_background_gives():
    rng = np.random.default_rng(12)
    frame = rng.normal(500, RMS, (500, 500))
    grid = np.stack(np.meshgrid(np.arange(25, 500, 50), np.arange(25, 500, 50)), axis=-1).reshape(-1, 2)
    truth = grid + rng.uniform(-3, 3, grid.shape)
    flux = 5000.0
    for star in truth:
        add_star(frame, *star, flux)
    # Of many electrons per unit, so that there is no noise of photons.
    row = detect_sources(frame.astype(np.float32), gain=1e6).catalogue
    row = row[matched(row, truth)]
    # The centroid in a window as wide as a normal star, summed over the pixels by hand.
    y, x = np.mgrid[-20:21, -20:21]
    window = np.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    star = window / window.sum() * flux
    expected = 2 * RMS * np.sqrt(((window * x) ** 2).sum()) / (window * star).sum()
    np.testing.assert_allclose(np.median(row["ERRWIN_IMAGE"]), expected, rtol=0.1)
    off = np.r_[row["XWIN_IMAGE"] - 1 - truth[:, 0], row["YWIN_IMAGE"] - 1 - truth[:, 1]]
    assert np.std(off) == pytest.approx(expected, rel=0.25)


def test_the_catalogue_has_the_columns_of_the_tables_of_dragons(stars):
    catalogue = detect_sources(stars[0]).catalogue
    assert catalogue.dtype == CATALOGUE
    assert len(CATALOGUE.names) == 46
    assert CATALOGUE.names[:3] == ("NUMBER", "X_IMAGE", "Y_IMAGE")
    assert CATALOGUE.names[41:43] == ("PROFILE_FWHM", "PROFILE_EE50")
    assert (catalogue["NUMBER"] == np.arange(1, len(catalogue) + 1)).all()
    assert np.isnan(catalogue["X_WORLD"]).all()
    assert (catalogue["REF_NUMBER"] == -999).all()
    flux = catalogue["FLUX_AUTO"]
    np.testing.assert_allclose(catalogue["MAG_AUTO"], -2.5 * np.log10(flux), rtol=1e-5)


def test_the_quick_catalogue_has_the_positions_and_the_order_of_brightness(stars):
    frame, truth = stars
    full, quick = detect_sources(frame).catalogue, detect_sources(frame, measure="positions").catalogue
    full, quick = full[matched(full, truth)], quick[matched(quick, truth)]
    for name in ("XWIN_IMAGE", "YWIN_IMAGE"):
        assert (np.abs(quick[name] - full[name]) < 0.3 * full["ERRWIN_IMAGE"]).all()
    for name in ("FLUX_AUTO", "ERRWIN_IMAGE", "FWHM_IMAGE", "CLASS_STAR"):
        np.testing.assert_allclose(quick[name], full[name], rtol=0.1)
    assert np.isnan(quick["FLUX_RADIUS"]).all()


@pytest.mark.parametrize("measure", [True, "positions"])
@pytest.mark.parametrize("gain", [0.25, 1.0, 4.0])
def test_the_error_of_a_bright_flux_is_that_of_its_electrons(measure, gain):
    frame = np.random.default_rng(13).normal(0, RMS, (200, 200))
    add_star(frame, 90.3, 110.6, 1e6)
    row = detect_sources(frame.astype(np.float32), measure=measure, gain=gain).catalogue[0]
    assert row["FLUX_AUTO"] == pytest.approx(1e6, rel=0.02)
    assert row["FLUXERR_AUTO"] == pytest.approx(np.sqrt(1e6 / gain), rel=0.1)
    assert row["MAGERR_AUTO"] == pytest.approx(1.0857 * row["FLUXERR_AUTO"] / row["FLUX_AUTO"], rel=1e-3)


@pytest.mark.parametrize("measure", [True, "positions", False])
@pytest.mark.parametrize(("share", "kept"), [(0.5, True), (1.0, False)])
def test_a_source_of_nearly_nothing_but_flagged_pixels_is_dropped(measure, share, kept):
    frame = np.random.default_rng(14).normal(0, RMS, (200, 200))
    add_star(frame, 60, 100, 1e5)
    add_star(frame, 150, 100, 1e5)
    mask = np.zeros(frame.shape, np.uint16)
    mask[70:130, 120 : 150 if share < 1 else 180] = SATURATED
    found = detect_sources(frame.astype(np.float32), mask, measure=measure)
    assert found.objmask[100, 60]
    assert bool(found.objmask[100, 150]) == kept
    if measure:
        assert len(found.catalogue) == 1 + kept
        row = found.catalogue[np.argmax(found.catalogue["X_IMAGE"])]
        assert (row["IMAFLAGS_ISO"], row["NIMAFLAGS_ISO"] > 0) == ((SATURATED, True) if kept else (0, False))
        if kept:
            assert row["NIMAFLAGS_ISO"] / row["ISOAREA_IMAGE"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("measure", [True, "positions"])
@pytest.mark.parametrize("threshold", [1.5, 5.0, 10.0])
def test_the_area_of_a_source_is_that_above_the_threshold_of_analysis(measure, threshold):
    frame = np.random.default_rng(15).normal(0, RMS, (400, 400))
    peak = 300.0
    for x, y in np.ndindex(8, 8):
        add_star(frame, 25 + 50 * x, 25 + 50 * y, peak * 2 * np.pi * SIGMA**2)
    catalogue = detect_sources(
        frame.astype(np.float32), measure=measure, detect_thresh=1.5, analysis_thresh=threshold
    ).catalogue
    area = 2 * np.pi * SIGMA**2 * np.log(peak / (threshold * RMS))
    assert np.median(catalogue["ISOAREA_IMAGE"]) == pytest.approx(area, rel=0.2)


@pytest.mark.parametrize("side", ["right", "left", "above", "below"])
def test_a_neighbour_is_replaced_by_what_is_opposite_on_whatever_side_it_is(side):
    frame = np.random.default_rng(3).normal(0, 1, (201, 201))
    add_star(frame, 100, 100, 1e5)
    add_star(frame, 110, 97, 6e4)
    turned = {"right": frame, "left": frame[:, ::-1], "above": frame.T, "below": frame.T[::-1]}[side]
    catalogue = detect_sources(turned.astype(np.float32)).catalogue
    assert len(catalogue) == 2
    np.testing.assert_allclose(np.sort(catalogue["FLUX_AUTO"]), [6e4, 1e5], rtol=0.012)


def test_the_fluxes_of_the_quick_catalogue_follow_the_transparency():
    rng = np.random.default_rng(11)
    truth = np.column_stack([np.arange(50, 400, 70), np.full(5, 100), np.geomspace(2e4, 2e5, 5)])
    noise, clear = rng.normal(0, RMS, (200, 400)), np.zeros((200, 400))
    for star in truth:
        add_star(clear, *star)
    measured = []
    for transparency in (1.0, 0.5):
        frame = (noise + transparency * clear).astype(np.float32)
        catalogue = detect_sources(frame, measure="positions").catalogue
        measured.append(catalogue["FLUX_AUTO"][matched(catalogue, truth)])
    np.testing.assert_allclose(measured[0], truth[:, 2], rtol=0.05)
    np.testing.assert_allclose(measured[1] / measured[0], 0.5, rtol=0.03)


def test_the_quick_catalogue_has_a_width_where_no_profile_fits():
    frame = np.random.default_rng(9).normal(0, 5, (200, 200))
    add_star(frame, 5, 100, 1e5)
    row = detect_sources(frame.astype(np.float32), measure="positions").catalogue[0]
    assert row["PROFILE_FWHM"] == -999
    assert row["FWHM_IMAGE"] == pytest.approx(2.355 * SIGMA, rel=0.1)
    assert row["FLUX_RADIUS"] == pytest.approx(row["FWHM_IMAGE"] / 2)
    assert row["XWIN_IMAGE"] - 1 == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize("measure", [False, "positions"])
@pytest.mark.parametrize("flagged", [False, True])
def test_a_quick_object_mask_is_one_of_squares_that_covers_the_same_objects(stars, flagged, measure):
    mask = None
    if flagged:
        mask = np.where(np.random.default_rng(1).random(stars[0].shape) < 0.02, BAD, 0).astype(np.uint16)
        mask[40:60, 30:50] = BAD
    full, quick = (detect_sources(stars[0], mask, measure=much).objmask for much in (True, measure))
    squares = quick.reshape(quick.shape[0] // 2, 2, quick.shape[1] // 2, 2)
    assert (squares.max(axis=(1, 3)) == squares.min(axis=(1, 3))).all()
    assert not (full & ~dilate(quick, 2)).any()
    assert not (quick & ~dilate(full, 3.5)).any()
    assert 1 <= quick.sum() / full.sum() < 1.3


def test_the_object_mask_of_an_odd_frame_is_found_in_full(stars):
    frame = stars[0][:-1, :-3]
    full, quick = (detect_sources(frame, measure=much).objmask for much in (True, False))
    assert quick.shape == frame.shape
    assert (full != quick).sum() < 0.02 * full.sum()


def test_the_object_mask_covers_the_sources_in_the_catalogue_alone(stars):
    frame, truth = stars
    mask = detect_sources(frame).objmask
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert mask[truth[:, 1].round().astype(int), truth[:, 0].round().astype(int)].all()
    assert mask.mean() < 0.12


def test_a_blank_field_has_no_sources():
    result = detect_sources(np.random.default_rng(2).normal(0, 5, (256, 256)).astype(np.float32))
    assert len(result.catalogue) == 0
    assert not result.objmask.any()
    assert len(detect_sources(np.zeros((128, 128), np.float32)).catalogue) == 0


def test_flagged_hot_pixels_and_areas_without_data_make_no_sources():
    rng = np.random.default_rng(3)
    frame = rng.normal(1000, 5, (300, 300)).astype(np.float32)
    mask = np.zeros(frame.shape, np.uint16)
    frame[:, :60], mask[:, :60] = 0, 16
    frame[100:108, 100:108], mask[100:108, 100:108] = 30000, 1
    frame[200:230, 200:203], mask[200:230, 200:203] = 30000, 8
    frame[50, 200] = np.nan
    assert len(detect_sources(frame, mask).catalogue) == 0
    assert len(detect_sources(frame).catalogue) > 0


def test_a_bad_column_through_a_star_leaves_one_source_with_its_flux():
    rng = np.random.default_rng(4)
    frame = rng.normal(0, 5, (200, 200))
    add_star(frame, 100.2, 99.7, 1e5)
    mask = np.zeros(frame.shape, np.uint16)
    frame[:, 101], mask[:, 101] = -3000, 1
    catalogue = detect_sources(frame.astype(np.float32), mask).catalogue
    assert len(catalogue) == 1
    assert catalogue["FLUX_AUTO"][0] == pytest.approx(1e5, rel=0.05)
    assert catalogue["XWIN_IMAGE"][0] - 1 == pytest.approx(100.2, abs=0.15)
    assert catalogue["IMAFLAGS_ISO"][0] == 1
    assert catalogue["NIMAFLAGS_ISO"][0] > 5


def test_close_stars_are_separated_and_measured_without_each_other():
    rng = np.random.default_rng(6)
    frame = rng.normal(0, 5, (200, 200))
    add_star(frame, 95, 100, 1e5)
    add_star(frame, 110, 100, 4e4)
    catalogue = detect_sources(frame.astype(np.float32)).catalogue
    assert len(catalogue) == 2
    bright, faint = np.argsort(-catalogue["FLUX_AUTO"])
    assert catalogue["FLUX_AUTO"][bright] == pytest.approx(1e5, rel=0.05)
    assert catalogue["FLUX_AUTO"][faint] == pytest.approx(4e4, rel=0.1)
    assert (catalogue["FLAGS"] & 3).all()


def test_a_star_beside_a_large_galaxy_is_flagged_and_a_lonely_galaxy_is_not():
    rng = np.random.default_rng(10)
    frame = rng.normal(0, 5, (400, 400))
    add_star(frame, 200, 200, 3e6, sigma=12.0)
    lonely = detect_sources(frame.astype(np.float32), back_size=128).catalogue
    assert lonely["FLAGS"][np.argmax(lonely["FLUX_AUTO"])] & 1 == 0
    add_star(frame, 250, 200, 1e5)
    both = detect_sources(frame.astype(np.float32), back_size=128).catalogue
    assert both["FLAGS"][np.argmax(both["FLUX_AUTO"])] & 1 == 1


def test_galaxies_and_cosmic_rays_do_not_look_like_stars(stars):
    frame = stars[0].copy()
    add_star(frame, 80.0, 80.0, 2e5, sigma=5.0)
    result = detect_sources(frame)
    row = result.catalogue[matched(result.catalogue, np.array([[80.0, 80.0, 1.0]]))]
    assert row["CLASS_STAR"][0] < 0.1


def test_stars_on_a_galaxy_that_fills_the_field_are_found():
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:512, :512]
    frame = 3000 * np.exp(-np.hypot(x - 260, y - 250) / 90)
    truth = np.column_stack([rng.uniform(30, 480, (12, 2)), np.full(12, 5e4)])
    truth = truth[np.hypot(truth[:, 0] - 260, truth[:, 1] - 250) > 60]
    for star in truth:
        add_star(frame, *star)
    frame = (frame + rng.normal(0, 20, frame.shape)).astype(np.float32)
    matched(detect_sources(frame).catalogue, truth)


def test_more_bright_pixels_than_the_default_buffer_holds_are_no_problem():
    rng = np.random.default_rng(8)
    frame = rng.normal(0, 1, (700, 700)).astype(np.float32)
    for _ in range(400):
        add_star(frame, *rng.uniform(0, 700, 2), 1e5, sigma=6.0)
    import sep

    before = sep.get_extract_pixstack()
    sep.set_extract_pixstack(2000)
    try:
        assert len(detect_sources(frame).catalogue) > 50
        assert sep.get_extract_pixstack() == 2000
    finally:
        sep.set_extract_pixstack(before)


def test_threads_give_the_same_catalogue(stars):
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(detect_sources, [stars[0]] * 4))
    for result in results[1:]:
        assert result.catalogue.tobytes() == results[0].catalogue.tobytes()


def test_world_columns_follow_the_projection(stars):
    scale, turn = 0.1171 / 3600, np.deg2rad(30)

    def pix2world(x, y):
        u, v = (
            scale * (-(x - 200) * np.cos(turn) + (y - 200) * np.sin(turn)),
            scale * ((x - 200) * np.sin(turn) + (y - 200) * np.cos(turn)),
        )
        return 359.999 + u / np.cos(np.deg2rad(40)), 40 + v

    catalogue = detect_sources(stars[0], pix2world=pix2world).catalogue
    lon, lat = pix2world(catalogue["X_IMAGE"].astype(float) - 1, catalogue["Y_IMAGE"].astype(float) - 1)
    np.testing.assert_allclose(catalogue["X_WORLD"], lon)
    np.testing.assert_allclose(catalogue["Y_WORLD"], lat)
    np.testing.assert_allclose(catalogue["A_WORLD"], catalogue["A_IMAGE"] * scale, rtol=1e-3)
    np.testing.assert_allclose(catalogue["FWHM_WORLD"], catalogue["FWHM_IMAGE"] * scale, rtol=1e-3)
    again = add_world_columns(catalogue, lambda x, y: (x * 0 + 1, y * 0 + 2))
    assert (again["X_WORLD"] == 1).all()
    assert (catalogue["X_WORLD"] != 1).all()


def test_the_frame_is_not_modified_and_one_without_pixels_is_refused(stars):
    before = stars[0].copy()
    detect_sources(stars[0])
    assert (stars[0] == before).all()
    with pytest.raises(AlgorithmError):
        detect_sources(np.full((64, 64), np.nan))


def test_bright_sources_are_enough_for_positions_where_there_are_many(stars):
    frame, truth = stars[0].copy(), stars[1]
    # Between the others, stars too faint to matter.
    for x in range(80, 400, 80):
        add_star(frame, x, 80.0, 2000.0)
    everything = detect_sources(frame, measure="positions")
    bright = detect_sources(frame, measure="positions", enough=5)
    assert 5 <= len(bright.catalogue) < len(everything.catalogue)
    assert bright.catalogue["FLUX_AUTO"].min() > np.median(everything.catalogue["FLUX_AUTO"]) / 3
    x, y = bright.catalogue["XWIN_IMAGE"] - 1, bright.catalogue["YWIN_IMAGE"] - 1
    distance = np.hypot(x - truth[:, :1], y - truth[:, 1:2]).min(axis=0)
    assert distance.max() < 0.1
    assert bright.objmask.sum() < everything.objmask.sum()
    # Where there are not, and where more than positions are wanted, all are found as ever.
    for options in ({"measure": "positions", "enough": 10**6}, {"measure": True, "enough": 5}):
        same = detect_sources(frame, **options)
        other = detect_sources(frame, **(options | {"enough": 0}))
        np.testing.assert_array_equal(same.objmask, other.objmask)
        assert len(same.catalogue) == len(other.catalogue)


def faint_field(snr: float, depth: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with 64 stars of a signal-to-noise ratio in 3 pixels, and their positions."""
    rng = np.random.default_rng(8)
    shape = (512, 512)
    spread = 1.0 if depth is None else 1 / np.sqrt(depth)
    frame = rng.normal(0, RMS, shape) * spread
    places = np.stack(np.meshgrid(np.arange(32, 512, 64), np.arange(32, 512, 64)), axis=-1).reshape(-1, 2)
    places = places + rng.uniform(-5, 5, places.shape)
    # exp(-9 / 8) of a Gaussian of 2 pixels lies beyond 3.
    flux = snr * RMS * np.sqrt(9 * np.pi) / (1 - np.exp(-9 / 8))
    for x, y in places:
        add_star(frame, x, y, flux)
    return frame.astype(np.float32), places


def found_and_false(catalogue: np.ndarray, places: np.ndarray) -> tuple[float, int]:
    x, y = catalogue["XWIN_IMAGE"] - 1, catalogue["YWIN_IMAGE"] - 1
    distance = np.hypot(x[:, None] - places[:, 0], y[:, None] - places[:, 1])
    near = distance < 3
    return float(near.any(axis=0).mean()), int((~near.any(axis=1)).sum())


def test_faint_stars_are_found_where_that_is_asked_for_and_noise_is_not():
    frame, places = faint_field(10.0)
    variance = np.full(frame.shape, RMS**2, np.float32)
    usual = detect_sources(frame, variance=variance)
    assert found_and_false(usual.catalogue, places)[0] < 0.1
    deep = detect_sources(frame, variance=variance, faint=True)
    share, false = found_and_false(deep.catalogue, places)
    assert share > 0.85
    assert false <= 1


def test_faint_sources_leave_those_found_before_as_they_are(stars):
    frame, _ = stars
    variance = np.full(frame.shape, RMS**2, np.float32)
    usual = detect_sources(frame, variance=variance).catalogue
    deep = detect_sources(frame, variance=variance, faint=True).catalogue
    for name in ("X_IMAGE", "Y_IMAGE", "ISOAREA_IMAGE"):
        np.testing.assert_array_equal(deep[name][: len(usual)], usual[name])


def test_the_threshold_is_higher_where_there_are_fewer_frames():
    depth = np.full((512, 512), 16)
    depth[:, :60] = 1
    rng = np.random.default_rng(9)
    frame = (rng.normal(0, RMS, depth.shape) * np.sqrt(16 / depth)).astype(np.float32)
    variance = (RMS**2 * 16 / depth).astype(np.float32)
    blind = detect_sources(frame, variance=variance, faint=True).catalogue
    assert np.count_nonzero(blind["X_IMAGE"] < 60) > 20
    assert len(detect_sources(frame, variance=variance, depth=depth, faint=True).catalogue) <= 2
