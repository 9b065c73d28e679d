"""Sequences as observers bring them: a WCS that stands still, a strip of ten tiles, stacks of stacks."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import Reduce, simulate
from niripipe.simulate import Effects

SKIP = {
    "darkCorrect:do_cal": "skip",
    "flatCorrect:do_cal": "skip",
    "nonlinearityCorrect:skip_primitive": True,
}
BOX = [(0.0, 0.0), (10.0, 10.0), (-10.0, 10.0), (-10.0, -10.0), (10.0, -10.0)]
EXPOSURE = 20.002
WCS = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")


def field(width, height, number, seed=8):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(*width, number), rng.uniform(*height, number)
    return list(zip(x, y, 10 ** rng.uniform(3.8, 4.8, number), strict=True))


def raw(folder, offsets, stars, error=0.05):
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, (p, q) in enumerate(offsets):
        start = datetime(2016, 1, 2, 11, 36, 12) + timedelta(seconds=35 * k)
        effects = Effects.none(photon_noise=True, read_noise=True, pointing_rms=error)
        frame = simulate.raw_frame(
            size=256,
            stars=stars,
            p=p,
            q=q,
            date=start.date(),
            ut=start.time(),
            number=270 + k,
            effects=effects,
        )
        paths.append(simulate.write_frame(frame, folder))
    return paths


def reduced(paths, folder, **options):
    reduction = Reduce(paths, parameters=SKIP, calibrations={}, output_dir=folder, **options)
    reduction.runr()
    return reduction


def brightest(ad, number):
    data = np.where(ad[0].mask == 0, ad[0].data, 0).astype(float)
    yy, xx = np.mgrid[: data.shape[0], : data.shape[1]]
    found = []
    for _ in range(number):
        top, left = np.unravel_index(np.argmax(data), data.shape)
        near = np.hypot(yy - top, xx - left) < 12
        found.append(float(data[near].sum()))
        data[near] = 0
    return found


# In all frames of the box, and the brightest there.
MIDDLE = [(118.0, 125.0, 9e4), (140.0, 110.0, 7.5e4)]


def test_a_wcs_that_stands_still_is_not_believed(tmp_path):
    paths = raw(tmp_path / "raw", BOX, [*field((-60, 316), (-60, 316), 20), *MIDDLE])
    cards = [fits.getheader(paths[0], ext) for ext in (0, 1)]
    for path in paths[1:]:
        with fits.open(path, mode="update", output_verify="ignore") as opened:
            for hdu, card in zip(opened, cards, strict=True):
                for name in WCS:
                    if name in card:
                        hdu.header[name] = card[name]
    reduction = reduced(paths, tmp_path / "out")
    stack = reduction.outputs[0]
    assert stack.phu["NCOMBINE"] == 4
    assert "between which the WCS stands still" in str(reduction.report)
    wanted = [flux * EXPOSURE for *_, flux in MIDDLE]
    assert brightest(stack, 2) == pytest.approx(wanted, rel=0.03)


def test_a_strip_of_ten_tiles_is_one_image(tmp_path):
    offsets = [(18.0 * k, 0.0) for k in range(-1, 10)]
    stack = reduced(
        raw(tmp_path / "raw", offsets, field((-1700, 1900), (0, 256), 400), error=0.3), tmp_path / "out"
    ).outputs[0]
    assert stack.phu["NCOMBINE"] == 10
    assert stack[0].shape[1] == pytest.approx(256 + 9 * 18 / 0.1171, abs=12)


def test_finished_stacks_are_aligned_whatever_p_and_q_say(tmp_path):
    stars = [*field((-60, 316), (-60, 316), 20), *MIDDLE]
    moved = [(p + 1.3, q - 2.0) for p, q in BOX]
    first, second = (
        Path(reduced(raw(tmp_path / name, some, stars), tmp_path / f"{name}_out").output_filenames[0])
        for name, some in (("a", BOX), ("b", moved))
    )
    other = second.rename(second.with_name("N20160102S0999_image.fits"))
    with fits.open(other, mode="update") as opened:
        opened[0].header["POFFSET"], opened[0].header["QOFFSET"] = 55.0, -70.0
    stack = reduced([first, other], tmp_path / "out", recipe="alignAndStack").outputs[0]
    assert stack.phu["NCOMBINE"] == 2
    wanted = [flux * EXPOSURE for *_, flux in MIDDLE]
    assert brightest(stack, 2) == pytest.approx(wanted, rel=0.03)
