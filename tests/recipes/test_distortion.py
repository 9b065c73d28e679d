"""A dithered night of f/32 with Altair, with the distortion that Gemini publishes for it.

Stars of the stack are measured by fits of a profile written here, and compared with the simulator's truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.optimize import least_squares

from niripipe import Reduce, simulate

SIZE, HALF = 1024, 14


class Star(NamedTuple):
    radius: float
    off_x: float
    off_y: float
    fwhm: float
    flux: float
    weight: float


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory):
    """The night and its reduction. Steps of 4 arcsec are 190 pixels."""
    folder = tmp_path_factory.mktemp("altair")
    night = simulate.night(
        folder / "raw",
        seed=21,
        size=SIZE,
        camera="f32",
        ao=True,
        filter="Kshort",
        scene="sparse",
        n_stars=160,
        n_target=6,
        n_sky=0,
        n_standard=0,
        n_flat=3,
        n_dark=3,
        n_short_dark=0,
        dither=4.0,
        fwhm=0.08,
        sky_rate=30.0,
        thermal_rate=5.0,
        reality=simulate.Reality(distortion=1.32e-5),
    )

    def run(files: list[Path], **options) -> Reduce:
        made = Reduce(files, output_dir=folder / "products", **options)
        made.runr()
        return made

    (dark,) = run(night.darks).output_filenames
    (flat,) = run(night.flats, calibrations={"processed_dark": dark}).output_filenames
    return night, run(night.target, calibrations={"processed_dark": dark, "processed_flat": flat})


@pytest.fixture(scope="module")
def stars(stack) -> list[Star]:
    """Bright, single stars of the stack."""
    night, made = stack
    (ad,) = made.outputs
    names = [ad.phu[f"IMCMB{i:03d}"] for i in range(1, ad.phu["NCOMBINE"] + 1)]
    first = night.truth.frames[names[0]]
    table = night.truth.fields["target"].table
    # Positions without distortion in the first frame, whose plane the stack has, moved by whole pixels.
    x, y = first.motion(SIZE).apply(table[:, 0], table[:, 1])
    header = WCS(fits.getheader(night.folder / names[0], 1))
    corner = ad[0].wcs.all_world2pix(*header.all_pix2world(0, 0, 0), 0)
    x, y = x + np.round(corner[0]), y + np.round(corner[1])
    centre = np.round(corner) + (SIZE - 1) / 2
    seconds = np.mean(
        [night.truth.frames[name].seconds * night.truth.frames[name].transparency for name in names]
    )
    found = []
    ny, nx = ad[0].shape
    for x0, y0, rate in zip(x, y, table[:, 2], strict=True):
        edge = min(x0, y0, nx - 1 - x0, ny - 1 - y0)
        if rate * seconds < 2e4 or edge < HALF + 3 or np.sort(np.hypot(x - x0, y - y0))[1] < 30:
            continue
        cut = np.s_[round(y0) - HALF : round(y0) + HALF + 1, round(x0) - HALF : round(x0) + HALF + 1]
        if (ad[0].mask[cut] & (2 | 4 | 16)).any():
            continue
        dx, dy, fwhm, flux = _measured(ad[0].data[cut].astype(float))
        off = round(x0) + dx - x0, round(y0) + dy - y0
        radius = np.hypot(x0 - centre[0], y0 - centre[1])
        found.append(Star(radius, *off, fwhm, flux / (rate * seconds), rate))
    return found


def _measured(cut):
    """Centre, FWHM and flux of a star by a Moffat profile with a level; the flux in a fixed aperture."""
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]

    def model(p):
        return p[0] * (1 + ((x - p[1]) ** 2 + (y - p[2]) ** 2) / p[3] ** 2) ** -p[4] + p[5]

    start = [cut.max(), 0.0, 0.0, 3.0, 2.5, float(np.median(cut))]
    p = least_squares(lambda p: (model(p) - cut).ravel(), start).x
    near = np.hypot(x - p[1], y - p[2]) < HALF - 1.5
    return p[1], p[2], 2 * abs(p[3]) * np.sqrt(2 ** (1 / p[4]) - 1), float((cut - p[5])[near].sum())


def test_all_frames_are_used_and_the_product_says_that_it_has_no_distortion(stack):
    night, made = stack
    (ad,) = made.outputs
    assert ad.phu["NCOMBINE"] == len(night.target) - 1  # removeFirstFrame takes the first
    assert (ad.phu["DISTMETH"], ad.phu["DISTCOEF"], ad.phu["DISTGONE"]) == ("published", 1.32e-5, True)
    header = fits.getheader(made.output_filenames[0], 1)
    assert header["CTYPE1"] == "RA---TAN"
    assert not [key for key in header if key.startswith(("A_", "B_", "AP_", "BP_"))]


def test_pairs_agree_although_the_dithers_move_them_over_the_field(stack):
    table = stack[1].outputs[0][0].ALIGNMENT
    others = np.asarray(table["RMS"])[1:]
    # The distortion left in, they scatter by 0.5 to 0.7 pixel.
    assert others.max() < 0.05


def test_sharpness_does_not_depend_on_the_place(stars):
    inner = [star.fwhm for star in stars if star.radius < 300]
    outer = [star.fwhm for star in stars if star.radius > 450]
    assert min(len(inner), len(outer)) >= 4
    assert np.median(outer) == pytest.approx(np.median(inner), rel=0.03)


def test_positions_agree_with_the_truth_over_the_field(stars):
    off = np.array([[star.off_x, star.off_y] for star in stars])
    assert np.hypot(*(off - np.median(off, axis=0)).T).max() < 0.1


def test_fluxes_do_not_depend_on_the_place(stars):
    """The area of sky in a pixel is 2.9 per cent larger in the corners: the flat has it, and nothing else."""
    inner, outer = ([s for s in stars if (s.radius > 420) == far] for far in (False, True))
    flux = [np.average([s.flux for s in part], weights=[s.weight for s in part]) for part in (inner, outer)]
    assert flux[1] / flux[0] == pytest.approx(1, abs=0.005)


def test_fluxes_are_those_of_the_stars(stack):
    """The flat is 1 in pixels of 1.016 times the area of the central one, which must not brighten stars."""
    night, made = stack
    score = simulate.score(night, made.output_filenames[0], kind="target")
    assert score.n_bright > 20
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.004)
