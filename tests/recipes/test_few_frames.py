"""One, two or three frames, and frames without dithers: what is possible is done, and what is not is said."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from niripipe import Reduce, astrodata, night, simulate
from niripipe.simulate import Effects

QUIET = Effects.none(photon_noise=True, read_noise=True)
STARS = [(60.0, 70.0, 3e4), (130.0, 180.0, 1e4), (190.0, 90.0, 2e4)]
EXPOSURE = 20.002
# The simulated detector is linear.
SKIP = {
    "darkCorrect:do_cal": "skip",
    "flatCorrect:do_cal": "skip",
    "nonlinearityCorrect:skip_primitive": True,
}
A, B = (0.0, 0.0), (4.0, 3.0)


def raw(folder, offsets):
    paths = []
    for k, (p, q) in enumerate(offsets):
        start = datetime(2016, 1, 2, 11, 36, 12) + timedelta(seconds=35 * k)
        frame = simulate.raw_frame(
            size=256,
            stars=STARS,
            p=p,
            q=q,
            date=start.date(),
            ut=start.time(),
            number=270 + k,
            exposure=EXPOSURE,
            effects=QUIET,
        )
        paths.append(simulate.write_frame(frame, folder))
    return paths


def reduced(folder, offsets):
    reduction = Reduce(
        raw(folder, offsets), parameters=SKIP, calibrations={}, output_dir=folder / "out", overwrite=True
    )
    reduction.runr()
    (path,) = reduction.output_filenames
    return astrodata.open(path), reduction


def fluxes(ad):
    """Sums around the brightest pixels that are not flagged, less the ring around them."""
    data = np.where(ad[0].mask == 0, ad[0].data, np.nan)
    y, x = np.mgrid[: data.shape[0], : data.shape[1]]
    found = []
    for _ in STARS:
        top, left = np.unravel_index(np.nanargmax(data), data.shape)
        away = np.hypot(y - top, x - left)
        good = np.isfinite(data)
        ring = np.median(data[good & (away > 20) & (away < 28)])
        found.append(float((data[good & (away < 16)] - ring).sum()))
        data[away < 28] = np.nan
    return found


WANTED = sorted((flux * EXPOSURE for *_, flux in STARS), reverse=True)


@pytest.mark.parametrize(
    ("offsets", "first", "combined", "sky", "lacks"),
    [
        ([A], "270", 1, "own level", "dark, flat, sky, alignment, stacking"),
        ([A, B], "270", 2, "other frames", "dark, flat"),
        ([A, A], "270", 2, "own level", "dark, flat, sky"),
        ([A, B, (-4.0, 3.0)], "271", 2, "other frames", "dark, flat"),
        ([A, B, B], "270", 3, "other frames", "dark, flat"),
        ([A, A, A], "271", 2, "own level", "dark, flat, sky"),
    ],
    ids=["one", "two", "two without dither", "three", "three at two places", "three without dither"],
)
def test_few_frames_get_what_is_possible_and_say_what_it_is_not(
    tmp_path, offsets, first, combined, sky, lacks
):
    ad, reduction = reduced(tmp_path, offsets)
    assert ad.filename == f"N20160102S0{first}_image.fits"
    assert ad.phu["NCOMBINE"] == combined
    assert (ad.phu["SKYFROM"], ad.phu["NOTDONE"]) == (sky, lacks)
    good = ad[0].mask == 0
    noise = np.sqrt(np.median(ad[0].variance[good]))
    assert abs(float(np.median(ad[0].data[good]))) < 0.05 * noise
    assert fluxes(ad) == pytest.approx(WANTED, rel=0.02)
    # Neither holes beside stars nor their negatives are left as good pixels.
    assert float(ad[0].data[good].min()) > -8 * noise
    told = str(reduction.report)
    history = " ".join(str(record.reason) for record in ad.history)
    assert ("is a product without" in told) == ("sky" in lacks)
    assert ("is a product without" in history) == ("sky" in lacks)
    assert ("bias may not have settled" in history) == (first == "270")


def test_a_frame_without_skies_can_keep_its_sky(tmp_path):
    reduction = Reduce(
        raw(tmp_path, [A]),
        parameters={**SKIP, "skyCorrect:own_level": False},
        calibrations={},
        output_dir=tmp_path,
    )
    reduction.runr()
    ad = reduction.outputs[0]
    assert ad.phu["SKYFROM"] == "none"
    assert float(np.median(ad[0].data)) > 1e4


def test_the_plan_of_a_night_takes_one_or_two_frames(tmp_path):
    raw(tmp_path, [A, B])
    (job,) = night.organise(tmp_path, settings=night.NightSettings(without_flat="skip"))
    assert job.product == "N20160102S0270_image.fits"
