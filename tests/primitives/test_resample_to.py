"""Shifts by hand, and frames on world coordinates that the user gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from niripipe.errors import DataError, InputError, ParameterError

from .. import frames as make

SHAPE = (120, 150)
STARS = [(40.3, 50.8, 3e4), (100.1, 30.2, 2e4), (70.7, 90.4, 4e4)]


def frame(number=1, **options):
    image = make.gaussians(SHAPE, STARS, 2.2) + make.noise(number, 1.0, 0.0, SHAPE)
    ad = make.electrons(make.frame(image, number=number, shape=SHAPE, **options), 1.0, 0)
    ad[0].mask[80, 20] = 1
    return ad


def centroid(data, x, y, half=9):
    x0, y0 = round(x), round(y)
    box = data[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1].astype(float)
    rows, columns = np.mgrid[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1]
    return (box * columns).sum() / box.sum(), (box * rows).sum() / box.sum(), box.sum()


def sky(ad, x, y):
    return [float(v) for v in ad[0].wcs.all_pix2world(x, y, 0)]


# ---- shifts


def test_whole_pixels_move_unchanged_and_stars_keep_their_place_on_the_sky():
    ad = frame()
    before, place = ad[0].data.copy(), sky(ad, *STARS[0][:2])
    make.bench([ad]).p.shiftImages(shifts="5,-3")
    assert ad[0].shape == SHAPE
    assert np.array_equal(ad[0].data[:-3, 5:], before[3:, :-5])
    assert (ad[0].mask[:, :5] == 16).all()
    assert ad[0].mask[77, 25] == 1
    assert sky(ad, STARS[0][0] + 5, STARS[0][1] - 3) == pytest.approx(place, abs=1e-8)
    assert ad.filename.endswith("_shift.fits")


def test_parts_of_pixels_are_interpolated():
    ad = frame()
    make.bench([ad]).p.shiftImages(shifts="0.4,-0.7")
    x, y, flux = centroid(ad[0].data, 40.7, 50.1)
    assert (x, y) == pytest.approx((40.7, 50.1), abs=0.03)
    assert flux == pytest.approx(3e4, rel=0.01)
    assert np.median(ad[0].variance[20:-20, 20:-20]) < 0.8


def test_all_frames_share_a_grid_that_holds_them():
    ads = [frame(1), frame(2), frame(3)]
    make.bench(ads).p.shiftImages(shifts="0,0:10,0:-4,7")
    assert {ad[0].shape for ad in ads} == {(127, 164)}
    # The grid starts 4 pixels left of the first frame.
    for ad, (dx, dy) in zip(ads, ((0, 0), (10, 0), (-4, 7)), strict=True):
        x, y, _ = centroid(ad[0].data, 70.7 + 4 + dx, 90.4 + dy)
        assert (x, y) == pytest.approx((74.7 + dx, 90.4 + dy), abs=0.05)


def test_the_first_frames_own_size_can_be_kept():
    ads = [frame(1), frame(2)]
    make.bench(ads).p.shiftImages(shifts="10,0", trim_data=True)
    assert {ad[0].shape for ad in ads} == {SHAPE}


def test_shifts_come_from_a_file_and_the_catalogue_moves_along(tmp_path):
    (tmp_path / "shifts.txt").write_text("# dx dy\n3 4\n1.5, -2  # the second\n")
    ads = [frame(1), frame(2)]
    b = make.bench(ads)
    b.p.detectSources()
    before = np.sort(ads[0][0].OBJCAT["XWIN_IMAGE"])
    b.p.shiftImages(shifts=str(tmp_path / "shifts.txt"), trim_data=True)
    assert np.allclose(np.sort(ads[0][0].OBJCAT["XWIN_IMAGE"]) - before, 3)
    x, y, _ = centroid(ads[1][0].data, 71.2 + 1, 88.4)
    assert (x, y) == pytest.approx((72.2, 88.4), abs=0.05)


@pytest.mark.parametrize("shifts", [None, "1,2:3,4:5,6", "1;2", "one,two", "1,2,3"])
def test_shifts_that_do_not_fit_are_refused(shifts):
    with pytest.raises(ParameterError):
        make.bench([frame(1), frame(2)]).p.shiftImages(shifts=shifts)


# ---- targets


def header(scale=0.15, shape=(140, 160), angle=30.0, projection="TAN", **cards):
    made = fits.Header()
    c, s = scale / 3600 * np.cos(np.deg2rad(angle)), scale / 3600 * np.sin(np.deg2rad(angle))
    made.update(
        NAXIS=2,
        NAXIS1=shape[1],
        NAXIS2=shape[0],
        RADESYS="FK5",
        EQUINOX=2000.0,
        CTYPE1=f"RA---{projection}",
        CTYPE2=f"DEC--{projection}",
        CRVAL1=make.RA,
        CRVAL2=make.DEC,
        CRPIX1=shape[1] / 2,
        CRPIX2=shape[0] / 2,
        CD1_1=-c,
        CD1_2=s,
        CD2_1=s,
        CD2_2=c,
        **cards,
    )
    return made


def check_stars(before, ad, rel=0.01):
    for x, y, flux in STARS:
        new_x, new_y = (float(v) for v in ad[0].wcs.all_world2pix(*before.all_pix2world(x, y, 0), 0))
        if not (12 < new_x < ad[0].shape[1] - 12 and 12 < new_y < ad[0].shape[0] - 12):
            continue
        found_x, found_y, found = centroid(ad[0].data, new_x, new_y)
        assert (found_x, found_y) == pytest.approx((new_x, new_y), abs=0.05)
        assert found == pytest.approx(flux, rel=rel)


@pytest.mark.parametrize("kind", ["file", "product", "header", "wcs", "frame"])
def test_a_target_can_be_a_file_a_header_a_wcs_or_a_frame(tmp_path, kind):
    target = header()
    if kind in ("file", "product"):
        # The primary header of a product repeats the coordinates of the image, but not its size.
        repeated = fits.Header([card for card in target.cards if not card.keyword.startswith("NAXIS")])
        primary = fits.PrimaryHDU(header=repeated if kind == "product" else None)
        hdus = [primary, fits.ImageHDU(np.zeros((140, 160), np.float32), target)]
        fits.HDUList(hdus).writeto(tmp_path / "target.fits")
        given = str(tmp_path / "target.fits")
    elif kind == "frame":
        given = frame(9)
        given[0].crop(0, 0, 139, 99)
    else:
        given = target if kind == "header" else WCS(target)
    ad = frame()
    before = ad[0].wcs
    b = make.bench([ad])
    b.p.resampleToCommonFrame(target_wcs=given)
    assert ad[0].shape == ((100, 140) if kind == "frame" else (140, 160))
    check_stars(before, ad)
    assert json.dumps(b.report.steps[-1].parameters)
    assert "ALIGN" in ad.phu


@pytest.mark.parametrize("scale", [0.08, 0.117, 0.3])
@pytest.mark.parametrize("projection", ["TAN", "ZEA", "CAR"])
def test_fluxes_and_noise_survive_any_projection_and_scale(scale, projection):
    size = int(25 / scale)
    ad = frame()
    before = ad[0].wcs
    target = header(scale, (size, size), projection=projection)
    if projection == "CAR":
        # A plate carree has its reference on the equator; the field lies 20 degrees north of it.
        target["CRVAL2"] = 0.0
        target["CRPIX2"] = size / 2 - make.DEC * 3600 / scale
        target["CD1_1"], target["CD1_2"] = -scale / 3600, 0.0
        target["CD2_1"], target["CD2_2"] = 0.0, scale / 3600
    make.bench([ad]).p.resampleToCommonFrame(target_wcs=target)
    check_stars(before, ad)
    ext = ad[0]
    empty = np.ones(ext.shape, bool)
    rows, columns = np.mgrid[: ext.shape[0], : ext.shape[1]]
    for x, y, _ in STARS:
        new_x, new_y = ext.wcs.all_world2pix(*before.all_pix2world(x, y, 0), 0)
        empty &= np.hypot(columns - new_x, rows - new_y) * scale > 12 * make.SCALE
    blank = empty & (ext.mask == 0)
    pull = ext.data[blank] / np.sqrt(ext.variance[blank])
    assert blank.sum() > 500
    assert pull.std() == pytest.approx(1, abs=0.06)
    assert ext.hdr["JFACTOR"] == pytest.approx((scale / make.SCALE) ** 2, rel=0.08)


@pytest.mark.parametrize("system", ["ICRS", "galactic"])
def test_other_reference_systems_are_converted(system):
    target = header(0.117, (220, 220))
    place = SkyCoord(make.RA, make.DEC, unit="deg", frame="fk5").transform_to(system.lower())
    if system == "ICRS":
        # 0.02 arcsec from FK5, a sixth of a pixel.
        target["RADESYS"] = "ICRS"
        del target["EQUINOX"]
    else:
        target["CTYPE1"], target["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
        target["CRVAL1"], target["CRVAL2"] = place.l.deg, place.b.deg
        del target["RADESYS"], target["EQUINOX"]
    ad = frame()
    before = ad[0].wcs
    make.bench([ad]).p.resampleToCommonFrame(target_wcs=target)
    for x, y, _ in STARS:
        ra, dec = before.all_pix2world(x, y, 0)
        star = SkyCoord(ra, dec, unit="deg", frame="fk5")
        new_x, new_y = (float(v) for v in star.to_pixel(ad[0].wcs))
        assert centroid(ad[0].data, new_x, new_y)[:2] == pytest.approx((new_x, new_y), abs=0.05)


def test_the_result_is_that_of_reproject_where_that_is_exact():
    reproject = pytest.importorskip("reproject")
    ad = frame()
    target = header(0.35, (70, 70))
    expected, covered = reproject.reproject_exact((ad[0].data.copy(), ad[0].wcs), WCS(target), (70, 70))
    make.bench([ad]).p.resampleToCommonFrame(target_wcs=target, conserve=False, clean_data=False)
    inner = (covered > 0.999) & (ad[0].mask == 0)
    assert inner.sum() > 900
    difference = (ad[0].data - expected)[inner]
    assert np.abs(difference).max() < 0.02 * float(ad[0].data.max())


def test_north_up_is_found_for_all_frames_together():
    ads = [frame(1, PA=30.0), frame(2, PA=30.0, POFFSET=4.0)]
    before = [ad[0].wcs for ad in ads]
    make.bench(ads).p.resampleToCommonFrame(target_wcs="north")
    assert ads[0][0].shape == ads[1][0].shape
    for ad, wcs in zip(ads, before, strict=True):
        check_stars(wcs, ad)
        cd = ad[0].wcs.pixel_scale_matrix
        assert cd[0, 0] < 0 < cd[1, 1]
        assert abs(cd[0, 1]) < 1e-9 > abs(cd[1, 0])


def test_a_target_without_a_size_becomes_as_large_as_the_frames_need():
    target = header()
    del target["NAXIS1"], target["NAXIS2"]
    ad = frame()
    before = ad[0].wcs
    make.bench([ad]).p.resampleToCommonFrame(target_wcs=WCS(target))
    corners = ad[0].wcs.all_world2pix(*before.all_pix2world([0, 149, 0, 149], [0, 0, 119, 119], 0), 0)
    # Pixels at the rim that no frame fills are not made.
    assert np.min(corners) > -1
    assert np.max(corners[0]) == pytest.approx(ad[0].shape[1] - 1, abs=1)
    assert np.max(corners[1]) == pytest.approx(ad[0].shape[0] - 1, abs=1)
    check_stars(before, ad)


def test_flags_objects_and_catalogue_arrive_too():
    ad = frame()
    b = make.bench([ad])
    b.p.detectSources()
    before, number = ad[0].wcs, len(ad[0].OBJCAT)
    defect = before.all_pix2world(20, 80, 0)
    b.p.resampleToCommonFrame(target_wcs=header(0.117, (200, 220)))
    x, y = (round(float(v)) for v in ad[0].wcs.all_world2pix(*defect, 0))
    assert ad[0].mask[y, x] & 1
    assert len(ad[0].OBJCAT) == number
    for row in ad[0].OBJCAT:
        assert ad[0].OBJMASK[round(row["YWIN_IMAGE"]) - 1, round(row["XWIN_IMAGE"]) - 1] == 1
        world = ad[0].wcs.all_pix2world(row["XWIN_IMAGE"], row["YWIN_IMAGE"], 1)
        assert np.hypot(world[0] - row["X_WORLD"], world[1] - row["Y_WORLD"]) * 3600 < 0.1


def test_frames_on_one_target_can_be_stacked():
    ads = [frame(i) for i in (1, 2, 3)]
    before = ads[0][0].wcs
    b = make.bench(ads)
    b.p.resampleToCommonFrame(target_wcs=header(0.117, (200, 220)))
    b.p.stackFrames()
    assert b.main[0].phu["NCOMBINE"] == 3
    check_stars(before, b.main[0])


def test_a_target_elsewhere_is_refused_with_the_frame():
    elsewhere = header()
    elsewhere["CRVAL1"] = make.RA + 1
    with pytest.raises(DataError, match=r"does not reach the target.*N20160102S0001"):
        make.bench([frame()]).p.resampleToCommonFrame(target_wcs=elsewhere)


@pytest.mark.parametrize("given", ["absent.fits", fits.Header(), WCS(naxis=2), 3.0])
def test_what_is_no_target_is_refused(given):
    with pytest.raises(InputError, match="cannot be used as a target"):
        make.bench([frame()]).p.resampleToCommonFrame(target_wcs=given)


def test_a_target_of_tiny_pixels_is_taken_for_a_mistake():
    target = header(0.0005)
    del target["NAXIS1"], target["NAXIS2"]
    with pytest.raises(InputError, match="too many pixels"):
        make.bench([frame()]).p.resampleToCommonFrame(target_wcs=WCS(target))
