"""Distortion of frames: in the WCS where it is published, checked and fitted by dithers, gone when resampled.

Positions of stars are made here: r' = r + k r**2 solved for r, the distance on the detector (Gemini's page on
NIRI's pixel scales, k = 1.32e-5 for f/32 with Altair).
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from astropy.wcs import WCS

from .. import frames as make

F32 = {"CAMERA": "f32", "AOFOLD": "IN"}
SCALE = 0.0214 / 3600
CD = {"CD1_1": -SCALE, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": SCALE}
SHAPE = (300, 300)


def detector(x, y, k, centre=149.5):
    """Where a barrel of k about the centre puts ideal positions."""
    u, v = np.asarray(x, float) - centre, np.asarray(y, float) - centre
    r = np.hypot(u, v)
    with np.errstate(invalid="ignore"):
        seen = np.where(r > 0, (np.sqrt(1 + 4 * k * r) - 1) / (2 * k) / r, 1.0) if k else np.ones_like(r)
    return centre + u * seen, centre + v * seen


def prepared(**options):
    ad = make.frame(100.0, **options)
    bench = make.bench([ad])
    bench.p.prepare()
    return ad, bench


# ---- the published one


def test_frames_of_f32_with_altair_get_the_published_distortion(tmp_path):
    ad, bench = prepared(shape=(1024, 1024), ext=CD, **F32)
    assert ad.phu["DISTMETH"] == "published"
    assert ad.phu["DISTCOEF"] == 1.32e-5
    outcome = bench.report.step("prepare").outcomes[ad.orig_filename]
    assert "published distortion" in outcome.reason
    # 500 pixels right of the centre, a source is 3.3 pixels nearer to it than the plane says.
    plane = WCS(make.hdus(0.0, shape=(1024, 1024), ext=CD, **F32)[1].header)
    sky = plane.all_pix2world(511.5 + 503.3, 511.5, 0)
    assert np.allclose(ad[0].sky_mapping.all_world2pix(*sky, 0), [1011.5, 511.5], atol=1e-5)
    assert np.allclose(ad[0].wcs.all_world2pix(*sky, 0), [1011.5, 511.5], atol=0.04)
    ad.write(tmp_path / "a.fits")
    from astropy.io import fits

    with fits.open(tmp_path / "a.fits") as file:
        assert file[1].header["CTYPE1"] == "RA---TAN-SIP"
        assert np.allclose(WCS(file[1].header).all_world2pix(*sky, 0), [1011.5, 511.5], atol=0.04)


@pytest.mark.parametrize("cards", [{"CAMERA": "f32"}, {"CAMERA": "f6", "AOFOLD": "IN"}, {"CAMERA": "f6"}])
def test_what_is_not_known_is_not_applied(cards):
    ad, _ = prepared(**cards, ext={} if cards["CAMERA"] == "f6" else CD)
    assert not ad[0].sky_mapping.has_distortion
    assert "DISTMETH" not in ad.phu


def test_it_can_be_left_out():
    ad = make.frame(100.0, ext=CD, **F32)
    make.bench([ad]).p.prepare(distortion="none")
    assert not ad[0].sky_mapping.has_distortion
    assert ad.phu["DISTMETH"] == "none"


def test_frames_that_others_prepared_get_it_when_they_are_aligned():
    field = Dithers(4, 20, 3, 1.32e-5, frame=F32)
    for ad in field.frames:
        ad.phu.remove("DISTMETH")
        ad[0].sky_mapping = ad[0].sky_mapping.undistorted
    field.align()
    assert {ad.phu["DISTMETH"] for ad in field.frames} == {"published"}
    left_out = Dithers(4, 20, 3, 1.32e-5, frame=F32)
    for ad in left_out.frames:
        ad.phu["DISTMETH"] = "none"
        ad[0].sky_mapping = ad[0].sky_mapping.undistorted
    left_out.align()
    assert not any(ad[0].sky_mapping.has_distortion for ad in left_out.frames)


def test_in_a_subarray_the_centre_is_that_of_the_array():
    window = {"LOWCOL": 600, "HICOL": 899, "LOWROW": 40, "HIROW": 339}
    ad, _ = prepared(shape=SHAPE, ext=CD | window, **F32)
    plane = WCS(make.hdus(0.0, shape=SHAPE, ext=CD | window, **F32)[1].header)
    true_x, true_y = 700 - 600.0, 200 - 40.0
    x, y = detector(true_x + 600, true_y + 40, 1.32e-5, centre=511.5)
    seen = ad[0].sky_mapping.all_world2pix(*plane.all_pix2world(true_x, true_y, 0), 0)
    assert np.allclose(seen, [float(x) - 600, float(y) - 40], atol=1e-5)


def test_sip_of_a_raw_header_is_kept():
    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
    sip |= {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 2e-5, "B_1_1": -1e-5}
    ad, _ = prepared(ext=sip)
    theirs = WCS(make.hdus(0.0, ext=sip)[1].header)
    assert np.allclose(ad[0].sky_mapping.all_pix2world(5, 40, 0), theirs.all_pix2world(5, 40, 0), atol=1e-12)
    assert ad.phu["DISTMETH"] == "header"


# ---- resampling


def _bent(level=1.0, number=1, **cards):
    """A flat-fielded frame: the sky's surface brightness in every pixel, at a strong distortion."""
    from niripipe.astrodata import Distortion, with_distortion

    ad = make.electrons(make.frame(np.full(SHAPE, level, "f4"), number=number, shape=SHAPE, **cards), 1.0, 0)
    bent = Distortion((149.5, 149.5), 212.0, 1e-4)
    ad[0].sky_mapping = with_distortion(ad[0].sky_mapping, bent)
    return ad


@pytest.mark.parametrize("target", [False, True])
def test_the_surface_brightness_of_a_flat_fielded_frame_stays(target):
    frames = [_bent(7.0), _bent(7.0, number=2, POFFSET=20 * make.SCALE)]
    bench = make.bench(frames)
    given = {"target_wcs": WCS(make.hdus(0.0, shape=SHAPE)[1].header)} if target else {}
    bench.p.resampleToCommonFrame(**given)
    for ad in bench.main:
        reached = (ad[0].mask & 16) == 0
        assert reached.mean() > 0.8
        # Area of a pixel: (1 + k r) (1 + 2 k r). Where the flat is 1, it is the median one.
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        r = np.hypot(x - 149.5, y - 149.5)
        median = np.median((1 + 1e-4 * r) * (1 + 2e-4 * r))
        np.testing.assert_allclose(ad[0].data[reached], 7.0 / median, rtol=1e-3)
        assert ad[0].hdr["JFACTOR"] == pytest.approx(1 / median, rel=1e-3)
        assert ad.phu["DISTGONE"] is True
        assert not ad[0].sky_mapping.has_distortion


def test_sources_and_catalogue_move_to_the_new_grid():
    frames = [_bent(0.0), _bent(0.0, number=2)]
    x, y = detector([60.0, 240.0], [80.0, 30.0], 1e-4)
    for ad in frames:
        ad[0].data += make.gaussians(SHAPE, [(x[0], y[0], 1e5), (x[1], y[1], 1e5)], 2.0)
        ad[0].data += make.noise(3, 3.0, shape=SHAPE)
    bench = make.bench(frames)
    bench.p.detectSources()
    bench.p.resampleToCommonFrame()
    (ad, _) = bench.main
    # The grid begins up to 2 pixels beside the first frame's.
    origin = ad[0].sky_mapping.all_world2pix(
        *WCS(make.hdus(0.0, shape=SHAPE)[1].header).all_pix2world(0, 0, 0), 0
    )
    listed = ad[0].OBJCAT[np.argsort(ad[0].OBJCAT["FLUX_AUTO"])[-2:]]
    seen = np.sort(np.asarray(listed["X_IMAGE"]) - 1 - origin[0])
    np.testing.assert_allclose(seen, [60, 240], atol=0.1)
    for x0, y0 in ((60, 80), (240, 30)):
        v, u = round(float(y0 + origin[1])), round(float(x0 + origin[0]))
        assert ad[0].OBJMASK[v, u] == 1
        assert np.argmax(ad[0].data[v, u - 9 : u + 10]) == 9


def test_an_object_mask_of_a_stack_is_put_where_the_frame_has_the_objects():
    ad = _bent()
    stack = make.electrons(make.frame(np.zeros(SHAPE, "f4"), number=2, shape=SHAPE), 1.0, 0)
    objects = np.zeros(SHAPE, np.uint8)
    objects[20:30, 30:40] = 1
    stack[0].OBJMASK = objects
    bench = make.bench([ad])
    bench.p.streams["deep"] = [stack]
    bench.p.transferObjectMask(source="deep", dilation=0)
    y, x = np.nonzero(ad[0].OBJMASK)
    seen = detector(34.5, 24.5, 1e-4)
    assert seen[0] > 35.5  # more than a pixel nearer to the centre
    np.testing.assert_allclose([x.mean(), y.mean()], seen, atol=0.4)


# ---- dithered frames


class Dithers:
    """Frames of one field, in which stars are displaced by a distortion."""

    def __init__(self, seed, n_stars, n_frames, k, *, step=45.0, frame=None, flux=(4.3, 5.6)):
        self.rng = np.random.default_rng(seed)
        self.stars = np.column_stack(
            [*self.rng.uniform(-60, 360, (2, n_stars)), 10 ** self.rng.uniform(*flux, n_stars)]
        )
        self.k, self.frames, self.shifts = k, [], []
        for number in range(1, n_frames + 1):
            self.expose(number, np.zeros(2) if number == 1 else self.rng.uniform(-step, step, 2), frame or {})

    def expose(self, number, shift, cards):
        x, y = detector(self.stars[:, 0] + shift[0], self.stars[:, 1] + shift[1], self.k)
        pixels = make.gaussians(SHAPE, np.column_stack([x, y, self.stars[:, 2]]), 1.8)
        pixels += self.rng.normal(0, 10, SHAPE)
        offsets = {"POFFSET": shift[0] * make.SCALE, "QOFFSET": -shift[1] * make.SCALE}
        if cards:
            offsets = {key: value * SCALE * 3600 / make.SCALE for key, value in offsets.items()}
        ext = {}
        if cards:
            # Where the header of f/32 points, from the offsets.
            east, north = offsets["POFFSET"] / 3600, offsets["QOFFSET"] / 3600
            ext = CD | {"CRVAL1": make.RA + east / np.cos(np.deg2rad(make.DEC)), "CRVAL2": make.DEC + north}
        ad = make.electrons(
            make.frame(pixels, number=number, shape=SHAPE, ext=ext, **offsets, **cards), 100.0, 0
        )
        self.frames.append(ad)
        self.shifts.append(shift)

    def align(self, **given):
        self.bench = make.bench(self.frames, droppable=True)
        self.bench.p.detectSources()
        self.bench.p.adjustWCSToReference(**given)
        return self.bench

    def methods(self):
        return [ad.phu["ALGNMETH"] for ad in self.frames]

    def worst(self):
        """How far apart the frames put the same stars on the sky, largest, in pixels, by true positions."""
        off = []
        for ad, shift in zip(self.frames, self.shifts, strict=True):
            x, y = self.stars[:, 0] + shift[0], self.stars[:, 1] + shift[1]
            x, y = detector(x, y, self.k)
            inside = (x > 5) & (x < 294) & (y > 5) & (y < 294)
            sky = np.array(ad[0].sky_mapping.all_pix2world(x, y, 0))
            sky[:, ~inside] = np.nan
            off.append(sky)
        spread = np.array(off) - np.nanmean(off, axis=0)
        scale = self.frames[0][0].pixel_scale() / 3600
        spread[:, 0] *= np.cos(np.deg2rad(make.DEC))
        return float(np.nanmax(np.hypot(spread[:, 0], spread[:, 1]))) / scale


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_distortion_that_no_one_published_is_fitted_from_the_dithers(caplog):
    k = 1e-4
    field = Dithers(1, 60, 6, k)
    with caplog.at_level(logging.WARNING, logger="niripipe"):
        field.align()
    phu = field.frames[2].phu
    assert phu["DISTMETH"] == "fitted"
    assert phu["DISTCOEF"] == pytest.approx(k, abs=4 * phu["DISTERR"])
    assert phu["DISTERR"] < 0.05 * k
    assert any("a distortion was fitted to the dithers" in r.getMessage() for r in caplog.records)
    assert phu["ALGNRMS"] < 0.05
    assert field.worst() < 0.1


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("choice", ["auto", "fit", "none"])
def test_none_is_fitted_where_there_is_none(choice):
    field = Dithers(2, 60, 6, 0.0)
    field.align(distortion=choice)
    assert all(ad.phu.get("DISTMETH", "none") == "none" for ad in field.frames)
    assert not any(ad[0].sky_mapping.has_distortion for ad in field.frames)
    assert field.worst() < 0.1


def test_none_is_fitted_to_a_few_stars_or_frames():
    for stars, frames in ((8, 6), (60, 3)):
        field = Dithers(3, stars, frames, 1e-4)
        field.align()
        assert not any(ad[0].sky_mapping.has_distortion for ad in field.frames)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_the_published_one_serves_and_stays():
    field = Dithers(4, 60, 5, 1.32e-5, frame=F32)
    field.align()
    assert all(ad.phu["DISTMETH"] == "published" for ad in field.frames)
    assert field.worst() < 0.1


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_the_published_one_is_left_out_where_the_dithers_disprove_it(caplog):
    # Cameras without distortion, or with the opposite one, under headers of f/32 with Altair.
    field = Dithers(5, 60, 5, 0.0, frame=F32)
    with caplog.at_level(logging.WARNING, logger="niripipe"):
        field.align()
    assert {ad.phu["DISTMETH"] for ad in field.frames} == {"refused"}
    assert not any(ad[0].sky_mapping.has_distortion for ad in field.frames)
    assert any("it is not used" in r.getMessage() for r in caplog.records)
    for choice in ("auto", "fit"):
        field = Dithers(5, 60, 5, -6e-5, frame=F32)
        field.align(distortion=choice)
        assert field.frames[0].phu["DISTCOEF"] == pytest.approx(-6e-5, rel=0.1)
        assert field.worst() < 0.1
    field = Dithers(5, 60, 5, -6e-5, frame=F32)
    field.align(distortion="published")
    assert {ad.phu["DISTMETH"] for ad in field.frames} == {"published"}


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("method", ["correlation", "offsets"])
def test_other_ways_of_aligning_keep_the_distortion(method):
    field = Dithers(7, 60, 4, 1.32e-5, frame=F32)
    field.align(method=method)
    assert set(field.methods()[1:]) == {method}
    assert all(ad[0].sky_mapping.has_distortion for ad in field.frames)
    # Images are compared as a whole: what distortion does to their shift is undone on average.
    assert field.worst() < (0.25 if method == "correlation" else 0.05)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_another_reference_keeps_the_distortion_of_each():
    field = Dithers(4, 60, 5, 1.32e-5, frame=F32)
    first = field.frames[0][0].sky_mapping
    field.align(reference="best")
    assert field.frames[0][0].sky_mapping == first
    assert all(ad[0].sky_mapping.has_distortion for ad in field.frames)
    assert field.worst() < 0.1


def test_published_says_where_nothing_is_published(caplog):
    field = Dithers(6, 20, 3, 0.0)
    with caplog.at_level(logging.WARNING, logger="niripipe"):
        field.align(distortion="published")
    assert sum("no distortion is published" in r.getMessage() for r in caplog.records) == 3


def test_resampled_frames_are_undistorted_and_stars_are_where_they_truly_are():
    k = 1e-4
    field = Dithers(1, 60, 6, k)
    bench = field.align()
    bench.p.resampleToCommonFrame()
    first = bench.main[0]
    assert first[0].hdr["DATASEC"]
    assert first.phu["DISTGONE"] is True
    bench.p.stackFrames()
    (stack,) = bench.main
    assert not stack[0].sky_mapping.has_distortion
    assert stack.phu["DISTGONE"] is True
    assert stack.phu["DISTMETH"] == "fitted"
    # Where the first frame's plane puts the stars, the grid is moved by whole pixels.
    ny, nx = stack[0].shape
    plane = field.frames[0]
    header = WCS(make.hdus(0.0, shape=SHAPE)[1].header)
    x, y = stack[0].sky_mapping.all_world2pix(
        *header.all_pix2world(field.stars[:, 0], field.stars[:, 1], 0), 0
    )
    assert plane is not None
    off = []
    for x0, y0, flux in zip(x, y, field.stars[:, 2], strict=True):
        near = np.sort(np.hypot(x - x0, y - y0))[1]
        if flux < 5e4 or near < 20 or not (12 < x0 < nx - 12 and 12 < y0 < ny - 12):
            continue
        cut = stack[0].data[int(y0) - 7 : int(y0) + 9, int(x0) - 7 : int(x0) + 9].astype(float)
        mask = stack[0].mask[int(y0) - 7 : int(y0) + 9, int(x0) - 7 : int(x0) + 9]
        if (mask & 16).any():
            continue
        v, u = np.mgrid[int(y0) - 7 : int(y0) + 9, int(x0) - 7 : int(x0) + 9]
        off.append([(cut * u).sum() / cut.sum() - x0, (cut * v).sum() / cut.sum() - y0])
    off = np.array(off)
    assert len(off) >= 8
    # A common shift is what nothing measures: the first frame's pointing.
    assert np.hypot(*(off - np.median(off, axis=0)).T).max() < 0.15
