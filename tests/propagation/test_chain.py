"""A whole reduction of a few pixels: raw frames to a stack, in one go, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import Reduce, astrodata
from niripipe.astrodata import DQ

from .. import frames as make
from .planes import calibration, centre, check, values

SHAPE = (256, 256)
FULL = (320, 320)
# Medium background, 256 rows, shallow well, from the table of the observatory.
GAMMA, ETA, DEAD_TIME = 5.540988347e-07, 1.404726339e-12, 0.01029262589
TIMES = (20.0, 40.0, 20.0)


def linear(counts, time):
    return counts * (1 + counts * GAMMA + counts**2 * ETA) * time / (time + DEAD_TIME)


def raw_pixels():
    return [np.round(values(i, 200, 6000, SHAPE)) for i in range(len(TIMES))]


def calibrations():
    flat = values(90, 0.6, 1.5, FULL), values(91, 1e-5, 1e-4, FULL)
    darks = [(values(80 + i, 0, 90, FULL), values(85 + i, 1, 9, FULL)) for i in range(2)]
    return flat, darks


def expected():
    """Stack of the frames scaled to the first one's exposure time, its variance, and each frame's."""
    flat, darks = calibrations()
    b, vb = (centre(plane, SHAPE).astype(float) for plane in flat)
    data, variances = [], []
    for pixels, time in zip(raw_pixels(), TIMES, strict=True):
        dark, dark_variance = (centre(plane, SHAPE) for plane in darks[time == 40])
        counts = linear(pixels.astype(float) * make.GAIN, time)
        factor = time / (time + DEAD_TIME)
        # Photon noise of the corrected counts before the factor, and the read noise.
        noise = (counts / factor + make.READ_NOISE**2) * factor**2 + dark_variance
        signal = (counts - dark) / b
        scale = 20 / time
        data.append(signal * scale)
        variances.append((noise / b**2 + vb * signal**2 / b**2) * scale**2)
    n = len(TIMES)
    return np.mean(data, axis=0), np.sum(variances, axis=0) / n**2, data, variances


def reduction(p, read_noise):
    p.prepare()
    for ad in p.streams["main"]:
        ad[0].hdr["RDNOISE"] = read_noise
    p.addDQ(static_bpm=None)
    p.ADUToElectrons()
    p.addVAR(read_noise=True, poisson_noise=True)
    p.nonlinearityCorrect()


def dark_frames():
    flat, darks = calibrations()
    made = []
    for i, (data, variance) in enumerate(darks):
        dark = calibration("dark", data, variance, 0, EXPTIME=(20.0, 40.0)[i])
        dark.filename = f"N20160102S008{i}_dark.fits"
        made.append(dark)
    return calibration("flat", *flat, 0), made


@pytest.mark.parametrize("threads", [1, 2])
def test_step_by_step(place, threads):
    frames = []
    for i, (pixels, time) in enumerate(zip(raw_pixels(), TIMES, strict=True)):
        frames.append(make.frame(pixels, number=i + 1, shape=SHAPE, EXPTIME=time))
    flat, darks = dark_frames()
    (flat,), darks = place(flat), place(*darks)
    b = make.bench(place(*frames), threads=threads)
    reduction(b.p, make.READ_NOISE)
    # Each frame has the dark of its exposure time.
    main = b.main
    for number, dark in enumerate(darks):
        time = (20.0, 40.0)[number]
        b.p.streams["main"] = [ad for ad in main if ad.exposure_time() == time]
        b.p.darkCorrect(dark=dark)
    b.p.streams["main"] = main
    b.p.flatCorrect(flat=flat)
    b.p.scaleByExposureTime()
    stack, noise, data, variances = expected()
    for ad, pixels, variance in zip(b.main, data, variances, strict=True):
        check(ad.copy(), pixels, variance, 0, rtol=5e-5)
    b.p.stackFrames(operation="mean", reject_method="none")
    check(b.main[0], stack, noise, 0, rtol=5e-5)
    assert b.main[0].phu["TEXPTIME"] == pytest.approx(80)


def test_from_files_to_files(tmp_path):
    paths = []
    for i, (pixels, time) in enumerate(zip(raw_pixels(), TIMES, strict=True)):
        if time == 20:
            paths.append(make.write(tmp_path / make.name(i + 1), pixels, shape=SHAPE, EXPTIME=time))
    flat, darks = dark_frames()
    flat.write(tmp_path / "flat.fits")
    darks[0].write(tmp_path / "dark.fits")

    def recipe(p):
        reduction(p, make.READ_NOISE)
        p.darkCorrect()
        p.flatCorrect()
        p.writeOutputs()
        p.stackFrames(operation="mean", reject_method="none")
        p.writeOutputs()

    reduce = Reduce(
        [str(path) for path in paths],
        recipe=recipe,
        output_dir=tmp_path / "out",
        calibrations={
            "processed_flat": str(tmp_path / "flat.fits"),
            "processed_dark": str(tmp_path / "dark.fits"),
        },
    )
    reduce.runr()
    _, _, data, variances = expected()
    used = [0, 2]
    for k in used:
        ad = astrodata.open(tmp_path / "out" / make.name(k + 1).replace(".fits", "_flatCorrected.fits"))
        check(ad, data[k], variances[k], 0, rtol=5e-5)
    (product,) = (tmp_path / "out").glob("*_stack.fits")
    stack = astrodata.open(product)
    noise = np.sum([variances[k] for k in used], axis=0) / 4
    check(stack, np.mean([data[k] for k in used], axis=0), noise, 0, rtol=5e-5)
    assert not (stack[0].mask & DQ.bad_pixel).any()
