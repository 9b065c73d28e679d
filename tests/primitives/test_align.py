"""Alignment: known shifts are recovered, frames meet on one grid, and flux and noise stay true."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.algorithms.affine import corners_of, output_grid
from niripipe.algorithms.resample import resample
from niripipe.astrodata import DQ, with_affine
from niripipe.errors import DataError
from niripipe.primitives.geometry import pixel_mapping
from niripipe.primitives.offsets import by_offsets

from .. import frames as make

SHAPE = (200, 220)
RNG = np.random.default_rng(5)
SKY = [
    (make.RA + dx * make.SCALE / 3600 / np.cos(np.deg2rad(make.DEC)), make.DEC + dy * make.SCALE / 3600, flux)
    for dx, dy, flux in zip(
        RNG.uniform(-75, 75, 14), RNG.uniform(-65, 65, 14), RNG.uniform(4e4, 4e5, 14), strict=True
    )
]


def exposure(number=1, p=0.0, q=0.0, error=(0.0, 0.0), stars=SKY, scale=1.0, sigma=2.0, seed=None, **options):
    """A frame whose stars lie `error` pixels beside where its WCS puts them."""
    bare = make.hdus(0.0, shape=SHAPE, POFFSET=p, QOFFSET=q, **options)
    from astropy.wcs import WCS

    wcs = WCS(bare[1].header)
    at = [(*(float(v) for v in wcs.all_world2pix(ra, dec, 0)), flux) for ra, dec, flux in stars]
    shown = make.gaussians(SHAPE, [(x + error[0], y + error[1], f * scale) for x, y, f in at], sigma)
    pixels = shown + make.noise(number if seed is None else seed, 10.0, 0.0, SHAPE)
    ad = make.frame(pixels, number=number, shape=SHAPE, POFFSET=p, QOFFSET=q, **options)
    return make.electrons(ad, 100.0, 0)


def true_positions(ad, error, p, q, **options):
    from astropy.wcs import WCS

    wcs = WCS(make.hdus(0.0, shape=SHAPE, POFFSET=p, QOFFSET=q, **options)[1].header)
    x, y = wcs.all_world2pix([s[0] for s in SKY], [s[1] for s in SKY], 0)
    return x + error[0], y + error[1]


def misplaced(ad, error, p, q, **options):
    """Largest distance (pixels) between stars and where the frame's present WCS puts them."""
    x, y = true_positions(ad, error, p, q, **options)
    found_x, found_y = ad[0].wcs.all_world2pix([s[0] for s in SKY], [s[1] for s in SKY], 0)
    return np.hypot(found_x - x, found_y - y).max()


# ---- registration


@pytest.mark.parametrize("port", [1, 3])
@pytest.mark.parametrize("error", [(0.0, 0.0), (0.37, -0.81), (-7.3, 11.6), (25.2, -30.7)])
def test_an_error_of_the_pointing_is_recovered_to_two_hundredths_of_a_pixel(error, port):
    frames = [exposure(INPORT=port), exposure(2, p=2.0, q=-3.0, error=error, INPORT=port)]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference()
    assert misplaced(frames[1], error, 2.0, -3.0, INPORT=port) < 0.02
    phu = frames[1].phu
    assert phu["ALGNMETH"] == "sources"
    assert phu["ALGNNUM"] >= 8
    assert phu["ALGNRMS"] < 0.05
    assert frames[0].phu["ALGNMETH"] == "reference"


def test_registration_touches_no_pixel_and_the_reference_keeps_its_wcs():
    frames = [exposure(), exposure(2, p=2.0, error=(3.3, 1.1))]
    before = [ad[0].data.copy() for ad in frames]
    crval = frames[0][0].wcs.wcs.crval.copy()
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference()
    for ad, was in zip(frames, before, strict=True):
        np.testing.assert_array_equal(ad[0].data, was)
    np.testing.assert_array_equal(frames[0][0].wcs.wcs.crval, crval)


def test_the_catalogue_follows_the_corrected_wcs():
    frames = [exposure(), exposure(2, error=(5.0, -4.0))]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference()
    catalogue = frames[1][0].OBJCAT
    nearest = [
        np.hypot((catalogue["X_WORLD"] - ra) * np.cos(np.deg2rad(dec)), catalogue["Y_WORLD"] - dec).min()
        for ra, dec, _ in SKY
    ]
    assert np.median(nearest) * 3600 < 0.02


def test_a_rotation_is_fitted_on_request():
    frames = [exposure(), exposure(2)]
    angle = np.deg2rad(0.4)
    centre = np.array([(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y = true_positions(frames[1], (0, 0), 0, 0)
    moved = (turn @ (np.column_stack([x, y]) - centre).T).T + centre
    stars = [(mx, my, s[2]) for (mx, my), s in zip(moved, SKY, strict=True)]
    frames[1][0].data = make.gaussians(SHAPE, stars) + make.noise(2, 10, 0, SHAPE)
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference(rotate=True)
    found_x, found_y = frames[1][0].wcs.all_world2pix([s[0] for s in SKY], [s[1] for s in SKY], 0)
    assert np.hypot(found_x - moved[:, 0], found_y - moved[:, 1]).max() < 0.05


@pytest.mark.parametrize("port", [1, 3])
def test_without_sources_the_telescope_offsets_align(port):
    frames = [exposure(stars=[], INPORT=port), exposure(2, p=3.0, q=-2.0, stars=[], INPORT=port)]
    # The header's own WCS knows nothing of the offset.
    frames[1][0].wcs = frames[0][0].wcs
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference()
    assert misplaced(frames[1], (0, 0), 3.0, -2.0, INPORT=port) < 0.1
    assert frames[1].phu["ALGNMETH"] == "offsets"
    assert frames[1].phu["ALGNNUM"] == 0


def test_offsets_can_be_asked_for():
    frames = [exposure(), exposure(2, p=3.0, error=(4.0, 4.0))]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference(method="offsets")
    assert frames[1].phu["ALGNMETH"] == "offsets"
    assert misplaced(frames[1], (0, 0), 3.0, 0.0) < 0.1


@pytest.mark.parametrize("port", [1, 3])
def test_offsets_reach_the_pixels_through_the_cd_matrix(port):
    """The rotator stood still: +y lies 29 degrees from the position angle, by which P and Q are turned."""
    step, turn = make.SCALE / 3600, np.deg2rad(29.0)
    parity = 1 if port == 1 else -1
    cd = {
        "CD1_1": parity * step * np.cos(turn),
        "CD1_2": step * np.sin(turn),
        "CD2_1": -parity * step * np.sin(turn),
        "CD2_2": step * np.cos(turn),
    }
    # At PA 180 P goes West and Q South.
    moved = {"CRVAL1": make.RA - 6.0 / 3600 / np.cos(np.deg2rad(make.DEC)), "CRVAL2": make.DEC + 4.0 / 3600}
    cards = {"PA": 180.0, "INPORT": port, "CRFOLLOW": "no", "AOFOLD": "park-pos."}
    reference = make.frame(ext={"CRVAL1": make.RA, "CRVAL2": make.DEC, **cd}, **cards)
    frame = make.frame(ext={**moved, **cd}, POFFSET=6.0, QOFFSET=-4.0, **cards)
    found = by_offsets(frame, reference)
    assert found.method == "offsets"
    true, wcs = frame[0].wcs, found.wcs
    for x, y in ((10.0, 20.0), (100.0, 60.0)):
        distance = np.subtract(wcs.all_pix2world(x, y, 0), true.all_pix2world(x, y, 0))
        assert np.abs(distance).max() * 3600 < 0.01


@pytest.mark.parametrize("missing", ["POFFSET", "turned"])
def test_where_offsets_mean_nothing_the_header_is_believed(missing):
    frames = [exposure(stars=[]), exposure(2, p=3.0, stars=[])]
    if missing == "turned":
        frames[1].phu["PA"] = 45.0
    else:
        frames[1].phu.remove("POFFSET")
    before = misplaced(frames[1], (0, 0), 3.0, 0.0)
    b = make.bench(frames)
    b.p.adjustWCSToReference(method="offsets")
    assert frames[1].phu["ALGNMETH"] == "header WCS"
    assert misplaced(frames[1], (0, 0), 3.0, 0.0) == before


def test_without_a_fallback_a_frame_that_cannot_be_aligned_is_left_out_by_name():
    frames = [exposure(), exposure(2, stars=[]), exposure(3, error=(1.0, 1.0))]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference(fallback=None)
    assert [ad.orig_filename for ad in b.main] == [make.name(1), make.name(3)]
    assert [d.name for d in b.report.dropped] == [make.name(2)]
    assert "could not be aligned" in b.report.dropped[0].reason


def test_a_foreign_field_is_never_matched():
    rng = np.random.default_rng(77)
    others = [
        (make.RA + x * make.SCALE / 3600, make.DEC + y * make.SCALE / 3600, flux)
        for x, y, flux in zip(
            rng.uniform(-75, 75, 14), rng.uniform(-65, 65, 14), rng.uniform(4e4, 4e5, 14), strict=True
        )
    ]
    frames = [exposure(), exposure(2, stars=others)]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.adjustWCSToReference()
    assert frames[1].phu["ALGNMETH"] != "sources"


def test_one_frame_needs_no_alignment():
    b = make.bench([exposure()])
    b.p.adjustWCSToReference()
    b.p.resampleToCommonFrame()
    assert b.main[0].history[-1].status == "NOT_NEEDED"
    assert b.main[0][0].shape == SHAPE


def test_a_reference_without_wcs_is_refused_by_name():
    frames = [exposure(), exposure(2)]
    frames[0][0].wcs = None
    with pytest.raises(DataError, match="S0001"):
        make.bench(frames).p.adjustWCSToReference()


# ---- resampling


def resampled(frames, **given):
    b = make.bench(frames)
    b.p.resampleToCommonFrame(**given)
    return b.main


def centroid(ad, ra, dec):
    x, y = (float(v) for v in ad[0].wcs.all_world2pix(ra, dec, 0))
    x0, y0 = round(x), round(y)
    half = 9
    stamp = ad[0].data[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1].astype(float)
    yy, xx = np.indices(stamp.shape)
    weight = np.exp(-((xx - half - (x - x0)) ** 2 + (yy - half - (y - y0)) ** 2) / 8) * stamp
    total = weight.sum()
    # The weight, as wide as the star, halves the displacement.
    return 2 * ((weight * xx).sum() / total - half + x0 - x), 2 * (
        (weight * yy).sum() / total - half + y0 - y
    )


@pytest.mark.parametrize("port", [1, 3])
def test_all_frames_share_one_grid_that_holds_every_field(port):
    offsets = [(0, 0), (20.4, 0), (0, -10.3), (-5.2, 7.7)]
    frames = [
        exposure(i + 1, p=dx * make.SCALE, q=dy * make.SCALE, INPORT=port)
        for i, (dx, dy) in enumerate(offsets)
    ]
    out = resampled(frames)
    shapes = {ad[0].shape for ad in out}
    (shape,) = shapes
    assert shape[0] == pytest.approx(SHAPE[0] + 18, abs=2)
    assert shape[1] == pytest.approx(SHAPE[1] + 25.6, abs=2)
    assert len({(tuple(ad[0].wcs.wcs.crval), tuple(ad[0].wcs.wcs.crpix)) for ad in out}) == 1
    for ad in out:
        covered = ~((ad[0].mask & DQ.no_data) > 0)
        assert covered.sum() == pytest.approx(SHAPE[0] * SHAPE[1], rel=0.03)
        assert ad[0].hdr["DATASEC"] == f"[1:{shape[1]},1:{shape[0]}]"


def test_stars_are_where_the_output_wcs_says_and_keep_their_flux():
    stars = [SKY[i] for i in (0, 5)]
    frames = [exposure(1, stars=stars), exposure(2, p=3.4 * make.SCALE, q=-2.7 * make.SCALE, stars=stars)]
    for ad in frames:
        ad[0].data -= make.noise(int(ad.orig_filename[10:14]), 10.0, 0.0, SHAPE)
    out = resampled(frames)
    total = sum(s[2] for s in stars)
    for ad in out:
        for ra, dec, _ in stars:
            assert np.hypot(*centroid(ad, ra, dec)) < 0.01
        assert ad[0].data.sum(dtype=float) == pytest.approx(total, rel=1e-3)


@pytest.mark.parametrize("interpolant", ["linear", "poly3", "poly5", "spline3"])
def test_the_variance_is_that_of_the_new_pixels_and_apertures_know_their_factor(interpolant):
    frames = [exposure(1, stars=[]), exposure(2, p=10.5 * make.SCALE, q=8.4 * make.SCALE, stars=[])]
    (_, moved) = resampled(frames, interpolant=interpolant)
    ext = moved[0]
    inner = (slice(30, 180), slice(30, 200))
    good = ext.mask[inner] == 0
    pull = ext.data[inner][good] / np.sqrt(ext.variance[inner][good])
    assert pull.std() == pytest.approx(1.0, abs=0.03)
    boxes = ext.data[32:176, 32:192].reshape(9, 16, 10, 16).sum(axis=(1, 3))
    sums = ext.variance[32:176, 32:192].reshape(9, 16, 10, 16).sum(axis=(1, 3))
    assert (boxes / np.sqrt(sums * ext.hdr["NOISCORR"])).std() == pytest.approx(1.0, abs=0.25)
    assert ext.hdr["NOISCORR"] >= 1


def test_a_shift_by_whole_pixels_changes_no_value():
    frames = [exposure(1), exposure(2, p=5 * make.SCALE)]
    values = frames[1][0].data.copy()
    out = resampled(frames)
    covered = (out[1][0].mask & DQ.no_data) == 0
    assert covered.sum() == values.size
    np.testing.assert_allclose(np.sort(out[1][0].data[covered]), np.sort(values.ravel()), atol=0.05)


@pytest.mark.parametrize("turn", [0.0, 4.0])
def test_planes_are_those_of_the_resampling_and_nothing_else_is_on_the_grid(turn):
    frames = [exposure(1), exposure(2, p=5.3 * make.SCALE, q=-8.6 * make.SCALE)]
    ext = frames[1][0]
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    ext.sky_mapping = with_affine(ext.sky_mapping, np.array([[c, s], [-s, c]]), np.zeros(2))
    rng = np.random.default_rng(1)
    ext.mask[rng.random(SHAPE) < 0.03] = DQ.bad_pixel
    ext.OBJMASK = (rng.random(SHAPE) < 0.1).astype(np.uint8)
    ext.data[100, 50], ext.variance[60, 70] = np.nan, np.inf
    planes = [ext.read(name).copy() for name in ("data", "variance", "mask", "OBJMASK")]
    mapping = pixel_mapping(frames[0], frames[1])
    corners = [corners_of(SHAPE), corners_of(SHAPE, mapping.inverse())]
    grid = output_grid(corners)
    expected = resample(
        *planes, matrix=mapping.matrix, offset=mapping.offset, shape=grid.shape, origin=grid.origin
    )
    found = resampled(frames)[1][0]
    assert found.shape == grid.shape
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.OBJMASK, expected.objmask)
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.variance, expected.variance)
    assert found.OBJMASK.dtype == np.uint8


def test_a_frame_without_variance_and_object_mask_stays_so():
    frames = [exposure(1), exposure(2, p=5.3 * make.SCALE)]
    for ad in frames:
        ad[0].reset(ad[0].data, mask=None, variance=None)
    for ad in resampled(frames):
        assert ad[0].variance is None
        assert "OBJMASK" not in ad[0].exposed
        assert set(np.unique(ad[0].mask)) == {0, 16}


def test_flags_move_with_the_pixels():
    frames = [exposure(1), exposure(2, p=5.3 * make.SCALE)]
    frames[1][0].mask[100, 100] = DQ.bad_pixel
    frames[1][0].data[100, 100] = 1e6
    out = resampled(frames)
    assert 1 <= np.count_nonzero(out[1][0].mask & DQ.bad_pixel) <= 3
    assert out[1][0].data[out[1][0].mask == 0].max() < 1e5


def test_the_field_of_the_reference_can_be_kept():
    out = resampled([exposure(1), exposure(2, p=20 * make.SCALE)], trim_data=True)
    assert {ad[0].shape for ad in out} == {SHAPE}
    covered = (out[1][0].mask & DQ.no_data) == 0
    assert covered.mean() == pytest.approx(200 / 220, abs=0.01)


def test_another_frame_can_give_the_grid():
    grid = exposure(9, p=4 * make.SCALE)
    out = resampled([exposure(1), exposure(2)], reference=grid)
    for ad in out:
        np.testing.assert_allclose(ad[0].wcs.wcs.crval, grid[0].wcs.wcs.crval)
        assert ad[0].shape == SHAPE


def test_catalogue_and_object_mask_move_along():
    frames = [exposure(1), exposure(2, p=6.3 * make.SCALE, q=4.6 * make.SCALE)]
    b = make.bench(frames)
    b.p.detectSources()
    b.p.resampleToCommonFrame()
    for ad in b.main:
        wcs, catalogue = ad[0].wcs, ad[0].OBJCAT
        x, y = wcs.all_world2pix(catalogue["X_WORLD"], catalogue["Y_WORLD"], 1)
        np.testing.assert_allclose(catalogue["X_IMAGE"], x, atol=0.02)
        np.testing.assert_allclose(catalogue["Y_IMAGE"], y, atol=0.02)
        assert ad[0].OBJMASK.shape == ad[0].shape
        rows, columns = np.round(y - 1).astype(int), np.round(x - 1).astype(int)
        assert ad[0].OBJMASK[rows, columns].all()


# ---- count scales


def test_counts_are_scaled_by_exposure_time():
    frames = [exposure(1), exposure(2, EXPTIME=10.0)]
    first = frames[1][0].data.copy()
    b = make.bench(frames)
    b.p.scaleCountsToReference()
    np.testing.assert_allclose(frames[1][0].data, 2 * first, rtol=1e-6)
    np.testing.assert_allclose(frames[1][0].variance, 400.0, rtol=1e-6)
    assert (frames[1].phu["EXPTIME"], frames[1].phu["ORIGTEXP"]) == (20.0, 10.0)
    assert frames[0].history[-1].status == "NOT_NEEDED"
    assert "SCALEOBJ" in frames[1].phu


def test_counts_are_scaled_by_common_sources_within_the_tolerance():
    frames = [exposure(1), exposure(2, p=2.0, scale=0.8), exposure(3, scale=0.2)]
    b = make.bench(frames)
    b.p.detectSources()
    levels = [ad[0].data.copy() for ad in frames]
    b.p.scaleCountsToReference(tolerance=0.5)
    x = np.median(frames[1][0].data[levels[1] > 500] / levels[1][levels[1] > 500])
    assert x == pytest.approx(1.25, rel=0.01)
    np.testing.assert_array_equal(frames[2][0].data, levels[2])


def test_frames_of_one_exposure_time_are_left_as_they_are():
    frames = [exposure(1), exposure(2)]
    b = make.bench(frames)
    b.p.scaleCountsToReference()
    assert [ad.history[-1].status for ad in frames] == ["NOT_NEEDED", "NOT_NEEDED"]
    assert "ORIGTEXP" not in frames[1].phu


@pytest.mark.parametrize(("given", "factors"), [({}, [1, 2]), ({"time": 5.0}, [0.25, 0.5])])
def test_counts_can_be_brought_to_an_exposure_time(given, factors):
    frames = [exposure(1), exposure(2, EXPTIME=10.0)]
    before = [ad[0].data.copy() for ad in frames]
    make.bench(frames).p.scaleByExposureTime(**given)
    for ad, was, factor in zip(frames, before, factors, strict=True):
        np.testing.assert_allclose(ad[0].data, was * factor, rtol=1e-6)
        assert ad.exposure_time() == pytest.approx(given.get("time", 20.0))
