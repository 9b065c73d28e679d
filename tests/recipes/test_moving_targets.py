"""Moving targets and lists of several targets, with light added by numpy."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from astropy.io import fits

from niripipe import Reduce
from niripipe.errors import DataError
from niripipe.simulate import Effects, raw_frame
from niripipe.simulate import frames as simulated
from niripipe.simulate.sequence import Field

SIZE, SCALE, GAIN = 256, 0.1171, 12.3
DITHERS = [(0, 0), (3, 3), (-3, 3), (-3, -3), (3, -3), (1.5, -2.1)]
SKIP = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
RA, DEC = 148.9, 20.0


def light(x, y, electrons, sigma):
    yy, xx = np.mgrid[:SIZE, :SIZE]
    return (
        electrons / GAIN / (2 * np.pi * sigma**2) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2))
    )


def night(folder, monkeypatch, rate, electrons, coma, stars, error=0.0):
    """Write frames of a target that moves to the East by `rate` arcsec a frame; pointing errors in arcsec."""
    rng, paths, places = np.random.default_rng(5), [], []
    errors = np.random.default_rng(6).normal(0, error / SCALE, (len(DITHERS), 2))
    sky = rng.uniform(30, SIZE - 30, (stars, 2))
    for k, (p, q) in enumerate(DITHERS):
        ra = RA + rate * k / 3600 / np.cos(np.radians(DEC))
        monkeypatch.setattr(simulated, "TARGET", Field("(433) Eros", ra=ra, dec=DEC))
        t = datetime(2016, 1, 2, 11, 36) + timedelta(seconds=35 * k)
        made = raw_frame(
            size=SIZE, p=p, q=q, date=t.date(), ut=t.time(), number=270 + k,
            keywords={"RATRACK": rate / 35 / 15},
            effects=Effects.none(photon_noise=True, read_noise=True),
        )  # fmt: skip
        path = folder / made.name
        path.write_bytes(made.to_bytes())
        # East is at -x: the telescope goes there by P, what it looks at moves to +x.
        x, y = SIZE / 2 + p / SCALE + errors[k, 0], SIZE / 2 - q / SCALE + errors[k, 1]
        with fits.open(path, mode="update") as opened:
            plane = opened[-1].data.astype(float) + light(x, y, electrons, 2.0)
            if coma:
                plane += light(x, y, electrons, 6.0)
            for sx, sy in sky:
                plane += light(
                    sx + (p + rate * k) / SCALE + errors[k, 0], sy - q / SCALE + errors[k, 1], 3e5, 2.0
                )
            opened[-1].data = np.rint(plane).astype(np.int32)
        paths.append(str(path))
        places.append((x, y))
    return paths, places


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("rate", "electrons", "coma", "stars", "error"),
    [
        (1.0, 4e5, False, 0, 0.0),
        (3.0, 4e5, False, 6, 0.0),
        (10.0, 4e5, False, 6, 0.0),
        (3.0, 4e5, True, 0, 0.0),
        (3.0, 4e5, False, 6, 0.25),
    ],
)
def test_moving_target_keeps_its_flux(tmp_path, monkeypatch, rate, electrons, coma, stars, error):
    paths, places = night(tmp_path, monkeypatch, rate, electrons, coma, stars, error)
    r = Reduce(paths, parameters=SKIP, calibrations={}, output_dir=str(tmp_path / "out"))
    r.runr()
    stack = r.outputs[0]
    assert stack.phu["ALGNON"] == "target"
    assert stack.phu["NCOMBINE"] >= 5
    data = np.asarray(stack[0].data, float)
    yy, xx = np.mgrid[: data.shape[0], : data.shape[1]]
    # The grid is that of the first frame, enlarged to hold all.
    first = str(stack.phu["IMCMB001"])
    x, y = places[[p.endswith(first) for p in paths].index(True)]
    with fits.open(paths[0]) as opened:
        header = opened[-1].header
    x += stack[0].wcs.wcs.crpix[0] - header["CRPIX1"]
    y += stack[0].wcs.wcs.crpix[1] - header["CRPIX2"]
    r2 = np.hypot(xx - x, yy - y)
    radius = 20 if coma else 9
    ring = np.median(data[(r2 > 26) & (r2 < 36)])
    flux = (data[r2 < radius] - ring).sum()
    total = electrons * (2 if coma else 1)
    assert flux / total == pytest.approx(1, abs=0.02)
    if error:
        # Not wider than in one frame, whose stars have a deviation of 2 pixels.
        inner = data[r2 < 2.5].sum() / flux
        assert inner == pytest.approx(1 - np.exp(-(2.5**2) / 8), abs=0.04)
        assert "it was seen in 5 of 5 frames" in str(r.report)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("rate", "method", "expected"),
    [
        (3.0, "noiseclip", "clipped"),
        (3.0, "none", "trailed"),
        (3.0, "sigclip", "trailed"),
        (0.05, "noiseclip", "trailed"),
    ],
)
def test_stars_beside_a_moving_target_are_said_to_be_clipped_or_trailed(
    tmp_path, monkeypatch, rate, method, expected
):
    paths, _ = night(tmp_path, monkeypatch, rate, 4e5, False, 6)
    parameters = SKIP | {"stackFrames:reject_method": method, "adjustWCSToReference:align_on": "target"}
    r = Reduce(paths, parameters=parameters, calibrations={}, output_dir=str(tmp_path / "out"))
    r.runr()
    stack = r.outputs[0]
    assert stack.phu["MOVSTARS"] == expected
    assert f"stars are {expected}" in str(r.report)
    # Light of stars in the stack, beside that of the target: all of it, or hardly any.
    data = np.where(stack[0].mask == 0, stack[0].data, 0)
    second = brightest(data, 2)[1]
    assert (second < 0.1 * 3e5 / 6) == (expected == "clipped")


def brightest(data, number):
    """Largest sums in circles of 9 pixels, of different places."""
    data = np.nan_to_num(data.astype(float))
    yy, xx = np.mgrid[: data.shape[0], : data.shape[1]]
    found = []
    for _ in range(number):
        top, left = np.unravel_index(np.argmax(data), data.shape)
        near = np.hypot(yy - top, xx - left) < 9
        found.append(float(data[near].sum()))
        data[near] = 0
    return found


@pytest.mark.filterwarnings("ignore")
def test_one_run_makes_a_stack_on_the_target_and_one_on_the_stars(tmp_path, monkeypatch):
    paths, _ = night(tmp_path, monkeypatch, 3.0, 4e5, False, 6)
    r = Reduce(
        paths, recipe="targetAndStars", parameters=SKIP, calibrations={}, output_dir=str(tmp_path / "out")
    )
    r.runr()
    target, stars = r.outputs
    assert target.filename.endswith("_target.fits")
    assert stars.filename.endswith("_stars.fits")
    assert (target.phu["ALGNON"], stars.phu["ALGNON"]) == ("target", "stars")
    assert len(list((tmp_path / "out").glob("*_target.fits"))) == 1
    assert len(list((tmp_path / "out").glob("*_stars.fits"))) == 1
    good = [np.where(ad[0].mask == 0, ad[0].data, 0) for ad in (target, stars)]
    assert brightest(good[0], 1) == pytest.approx([4e5], rel=0.03)
    # In the middle of the field all frames show the stars.
    assert brightest(good[1], 3) == pytest.approx([3e5] * 3, rel=0.05)


@pytest.mark.filterwarnings("ignore")
def test_targets_that_cannot_overlap_are_refused(tmp_path, monkeypatch):
    paths = []
    for n, (ra, dec) in enumerate([(10.0, 20.0), (80.0, -10.0)]):
        monkeypatch.setattr(simulated, "TARGET", Field(f"obj{n}", ra=ra, dec=dec))
        for k, (p, q) in enumerate(DITHERS[:4]):
            t = datetime(2016, 1, 2, 8 + n) + timedelta(seconds=35 * k)
            made = raw_frame(size=SIZE, p=p, q=q, date=t.date(), ut=t.time(), number=100 + 10 * n + k)
            path = tmp_path / made.name
            path.write_bytes(made.to_bytes())
            paths.append(str(path))
    with pytest.raises(DataError, match="targets that cannot overlap"):
        Reduce(paths, parameters=SKIP, calibrations={}, output_dir=str(tmp_path / "out")).runr()
