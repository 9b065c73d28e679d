"""Other grids and other count scales: pixels, noise and world coordinates against numpy and astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe.astrodata import DQ

from .. import frames as make
from .planes import SHAPES, check, flags, frame, values

# Weights of the interpolation half way between two pixels.
HALF_WAY = {
    "linear": np.array([1, 1]) / 2,
    "poly3": np.array([-1, 9, 9, -1]) / 16,
    "poly5": np.array([3, -25, 150, 150, -25, 3]) / 256,
}


def pair(place, dx, dy, planes, *, shape=make.SHAPE):
    """Two frames, of which pixel (x, y) of the second shows what (x + dx, y + dy) of the first shows."""
    frames = place(
        *(frame(data, variance, mask, number=i + 1) for i, (data, variance, mask) in enumerate(planes))
    )
    # From the header: frames that were not asked for their coordinates keep them as they were read.
    moved = WCS(frames[0][0].hdr)
    moved.wcs.crpix -= [dx, dy]
    frames[1][0].wcs = moved
    return frames


def planes_of(seed, shape=make.SHAPE, mask=0):
    return values(seed, 500, 1500, shape), values(seed + 100, 10, 90, shape), mask


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (0, -7), (-4, 9)])
@pytest.mark.parametrize("interpolant", ["nearest", "poly3"])
def test_whole_pixels_are_moved_with_their_noise_and_flags(place, shape, dx, dy, interpolant):
    masks = flags(5, DQ.saturated, shape=shape), flags(6, DQ.saturated, shape=shape)
    planes = [planes_of(i, shape, masks[i]) for i in range(2)]
    b = make.bench(pair(place, dx, dy, planes))
    b.p.resampleToCommonFrame(interpolant=interpolant)
    ny, nx = shape
    grid = ny + abs(dy), nx + abs(dx)
    for ad, (data, variance, mask), (x, y) in zip(b.main, planes, ((0, 0), (dx, dy)), strict=True):
        x0, y0 = x - min(dx, 0), y - min(dy, 0)
        inside = np.s_[y0 : y0 + ny, x0 : x0 + nx]
        assert ad[0].shape == grid
        np.testing.assert_allclose(ad[0].data[inside], data, rtol=1e-5)
        np.testing.assert_allclose(ad[0].variance[inside], variance, rtol=1e-5)
        np.testing.assert_array_equal(ad[0].mask[inside], mask)
        outside = np.ones(grid, bool)
        outside[inside] = False
        assert (ad[0].mask[outside] == DQ.no_data).all()
        assert ad[0].hdr["JFACTOR"] == pytest.approx(1)


@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (-4, 9), (3.4, -2.7)])
def test_the_grid_has_the_coordinates_of_the_first_frame(place, tmp_path, dx, dy):
    planes = [planes_of(i) for i in range(2)]
    frames = pair(place, dx, dy, planes)
    x, y = np.array([10.0, 50.0]), np.array([20.0, 33.0])
    before = WCS(frames[0][0].hdr).all_pix2world(x, y, 0)
    b = make.bench(frames)
    b.p.resampleToCommonFrame(interpolant="nearest")
    # The first frame keeps its pixels; their values show where they lie on the grid.
    ((y0, x0),) = np.argwhere(b.main[0][0].data == planes[0][0][0, 0])
    assert (x0, y0) == (pytest.approx(max(-dx, 0), abs=1), pytest.approx(max(-dy, 0), abs=1))
    for ad in b.main:
        ad.write(tmp_path / f"{ad.orig_filename}")
        header = fits.getheader(tmp_path / f"{ad.orig_filename}", 1)
        for wcs in (ad[0].wcs, WCS(header)):
            np.testing.assert_allclose(wcs.all_pix2world(x + x0, y + y0, 0), before, rtol=0, atol=1e-8)


@pytest.mark.parametrize("interpolant", HALF_WAY)
@pytest.mark.parametrize("axis", [0, 1])
def test_between_pixels_weights_count_once_in_data_and_squared_in_variance(place, interpolant, axis):
    planes = [planes_of(i) for i in range(2)]
    shift = {0: (0.0, 0.5), 1: (0.5, 0.0)}[axis]
    b = make.bench(pair(place, *shift, planes))
    b.p.resampleToCommonFrame(interpolant=interpolant, trim_data=True)
    weights = HALF_WAY[interpolant]
    n = len(weights)

    def folded(plane, weights):
        return np.apply_along_axis(np.convolve, axis, plane.astype(float), weights, mode="valid")

    # Pixel i of the grid lies between pixels i - 1 and i of the second frame.
    first = n // 2
    inside = [slice(None), slice(None)]
    inside[axis] = slice(first, first + 64 - n + 1)
    data, variance, _ = planes[1]
    ext = b.main[1][0]
    np.testing.assert_allclose(ext.data[tuple(inside)], folded(data, weights), rtol=1e-3)
    np.testing.assert_allclose(ext.variance[tuple(inside)], folded(variance, weights**2), rtol=1e-3)


@pytest.mark.parametrize("ratio", [0.5, 2.0, 0.8])
@pytest.mark.parametrize("conserve", [True, False])
@pytest.mark.parametrize("interpolant", ["nearest", "linear", "poly3"])
def test_flux_on_pixels_of_another_size(place, ratio, conserve, interpolant):
    """The second frame has pixels `ratio` times as large as the first, which gives the grid."""
    frames = place(frame(100.0, 4.0), frame(300.0, 16.0, number=2))
    wcs = frames[0][0].wcs.deepcopy()
    wcs.wcs.cd = wcs.wcs.cd * ratio
    frames[1][0].wcs = wcs
    b = make.bench(frames)
    b.p.resampleToCommonFrame(interpolant=interpolant, conserve=conserve, trim_data=True)
    ext = b.main[1][0]
    # Area of a new pixel in old ones: a sum over so many pixels, if flux is conserved.
    area = 1 / ratio**2
    assert ext.hdr["JFACTOR"] == pytest.approx(area, rel=1e-5)
    inside = np.s_[24:40, 24:40]
    assert not ext.mask[inside].any()
    scale = area if conserve else 1.0
    np.testing.assert_allclose(ext.data[inside], 300 * scale, rtol=1e-4)
    if interpolant == "nearest":
        np.testing.assert_allclose(ext.variance[inside], 16 * scale**2, rtol=1e-4)


@pytest.mark.parametrize("ratio", [0.5, 2.0])
@pytest.mark.parametrize("interpolant", ["linear", "poly3"])
@pytest.mark.parametrize("target", [False, True], ids=["reference", "target_wcs"])
def test_conserved_flux_has_the_same_signal_to_noise_as_surface_brightness(place, ratio, interpolant, target):
    made = []
    for conserve in (True, False):
        grid, ad = place(frame(100.0, 4.0), frame(*planes_of(2), number=2))
        wcs = ad[0].wcs.deepcopy()
        wcs.wcs.cd = wcs.wcs.cd / ratio
        grid[0].wcs = wcs
        b = make.bench([ad])
        given = {"target_wcs": grid} if target else {"reference": grid}
        b.p.resampleToCommonFrame(interpolant=interpolant, conserve=conserve, **given)
        made.append(b.main[0][0])
    area = 1 / ratio**2
    inside = np.s_[26:38, 26:38]
    flux, brightness = made
    assert flux.hdr["JFACTOR"] == pytest.approx(area, rel=1e-4)
    np.testing.assert_allclose(flux.data[inside], area * brightness.data[inside], rtol=1e-4)
    np.testing.assert_allclose(flux.variance[inside], area**2 * brightness.variance[inside], rtol=1e-4)
    assert (brightness.variance[inside] > 0).all()
    np.testing.assert_allclose(np.mean(brightness.data[inside]), 1000, rtol=0.1)


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (-2, 5)])
@pytest.mark.parametrize("trim", [True, False])
def test_shifts_by_hand(place, dx, dy, trim):
    planes = [planes_of(i) for i in range(2)]
    b = make.bench(place(*(frame(*p, number=i + 1) for i, p in enumerate(planes))))
    before = [ad[0].wcs.all_pix2world(30.0, 20.0, 0) for ad in b.main]
    b.p.shiftImages(shifts=((0.0, 0.0), (float(dx), float(dy))), trim_data=trim)
    data, variance, _ = planes[1]
    x0, y0 = (0, 0) if trim else (max(-dx, 0), max(-dy, 0))
    ext = b.main[1][0]
    old, new = np.s_[10:50, 10:50], np.s_[10 + dy + y0 : 50 + dy + y0, 10 + dx + x0 : 50 + dx + x0]
    np.testing.assert_allclose(ext.data[new], data[old], rtol=1e-6)
    np.testing.assert_allclose(ext.variance[new], variance[old], rtol=1e-6)
    for ad, there, (sx, sy) in zip(b.main, before, ((0, 0), (dx, dy)), strict=True):
        after = ad[0].wcs.all_pix2world(30.0 + sx + x0, 20.0 + sy + y0, 0)
        np.testing.assert_allclose(after, there, rtol=0, atol=1e-8)


# ---- count scales


@pytest.mark.parametrize("primitive", ["scaleCountsToReference", "scaleByExposureTime"])
@pytest.mark.parametrize("shape", SHAPES)
def test_counts_scale_with_exposure_time_and_variances_with_its_square(place, primitive, shape):
    times = (20.0, 5.0, 60.0)
    planes = [planes_of(i, shape, flags(50 + i, 1, shape=shape)) for i in range(3)]
    b = make.bench(
        place(
            *(frame(*p, number=i + 1, EXPTIME=t) for i, (p, t) in enumerate(zip(planes, times, strict=True)))
        )
    )
    getattr(b.p, primitive)()
    for ad, (data, variance, mask), time in zip(b.main, planes, times, strict=True):
        factor = 20 / time
        check(ad, data * factor, variance * factor**2, mask)
        assert ad.exposure_time() == pytest.approx(20)
        assert ad.phu.get("ORIGTEXP", time) == time


def test_counts_scaled_by_the_flux_of_stars(place):
    stars = [(12, 14, 4e4), (50, 12, 6e4), (30, 32, 5e4), (14, 50, 3e4), (48, 49, 7e4)]
    image = make.gaussians(make.SHAPE, stars)
    variances = values(1, 20, 30), values(2, 20, 30)
    data = image + make.noise(1, 5), 0.8 * image + make.noise(2, 5)
    b = make.bench(
        place(*(frame(d, v, number=i + 1) for i, (d, v) in enumerate(zip(data, variances, strict=True))))
    )
    b.p.detectSources()
    b.p.scaleCountsToReference(tolerance=0.5)
    check(b.main[0], data[0], variances[0])
    ad = b.main[1]
    factor = float(np.median(ad[0].data / data[1]))
    assert factor == pytest.approx(1.25, rel=0.02)
    check(ad, data[1] * factor, variances[1] * factor**2)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_intensities_become_equal_with_their_noise(place, statistic):
    planes = [(values(i, 500, 1500) * f, values(9 + i, 1, 9), 0) for i, f in enumerate((1.0, 4.0, 0.25))]
    b = make.bench(place(*(frame(*p, number=i + 1) for i, p in enumerate(planes))))
    b.p.scaleByIntensity(scaling=statistic)
    wanted = getattr(np, statistic)(planes[0][0].astype(float))
    for ad, (data, variance, _) in zip(b.main, planes, strict=True):
        factor = wanted / getattr(np, statistic)(data.astype(float))
        check(ad, data * factor, variance * factor**2)


# ---- replaced pixels


def test_a_fixed_column_is_the_mean_of_its_neighbours_with_the_noise_of_that_mean(place):
    data, variance, _ = planes_of(1)
    (ad,) = place(frame(data, variance))
    make.bench([ad]).p.fixPixels(regions="31:31,1:64", axis=1)
    expected, noise = data.astype(float), variance.astype(float)
    expected[:, 30] = (expected[:, 29] + expected[:, 31]) / 2
    noise[:, 30] = (noise[:, 29] + noise[:, 31]) / 4
    mask = np.zeros(data.shape, np.uint16)
    mask[:, 30] = DQ.no_data
    check(ad, expected, noise, mask)


def test_replaced_pixels_keep_their_noise_and_flags(place):
    data, variance, _ = planes_of(1)
    mask = flags(2, DQ.bad_pixel)
    (ad,) = place(frame(data, variance, mask))
    make.bench([ad]).p.applyDQPlane(replace_value=7.0)
    check(ad, np.where(mask, 7, data), variance, mask)
