"""Flats of the sky, from dithered frames with stars in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, simulate

QUIET = simulate.Effects(cosmic_rays=0.0, sky_gradient=0.0, hot=0.0, warm=0.0, dead=0.002)


@pytest.fixture(scope="module")
def flats(tmp_path_factory: pytest.TempPathFactory, reality: bool) -> dict[str, Reduce]:
    """A sky flat and a lamp flat of the same detector."""
    folder = tmp_path_factory.mktemp("skyflat")
    night = simulate.night(
        folder / "raw",
        reality=reality,
        seed=5,
        size=256,
        scene="sparse",
        n_stars=12,
        n_target=12,
        n_sky=0,
        n_standard=0,
        n_flat=10,
        n_dark=8,
        n_short_dark=0,
        dither=8.0,
        sky_rate=1500.0,
        effects=QUIET,
    )

    def run(files: list[Path], **options) -> Reduce:
        made = Reduce(files, output_dir=folder / "products", **options)
        made.runr()
        return made

    dark, lamp = run(night.darks), run(night.flats)
    sky = {
        mode: run(
            night.target, recipe="makeSkyFlat", mode=mode, calibrations={"processed_dark": dark.outputs[0]}
        )
        for mode in ("sq", "qa")
    }
    return {"lamp": lamp, **sky}


@pytest.mark.parametrize("mode", ["sq", "qa"])
def test_the_flat_of_the_sky_is_that_of_the_lamp(flats, mode, reality):
    sky, lamp = flats[mode].outputs[0][0], flats["lamp"].outputs[0][0]
    inner = np.zeros(sky.shape, bool)
    inner[8:-8, 8:-8] = True
    good = inner & (sky.mask == 0) & (lamp.mask == 0)
    ratio = sky.data[good] / lamp.data[good]
    noise = np.sqrt(sky.variance[good] / sky.data[good] ** 2 + lamp.variance[good] / lamp.data[good] ** 2)
    spread = 0.7413 * np.subtract(*np.percentile(ratio / np.median(ratio), [75, 25]))
    # Dead pixels, whose dark current has its own way, apart: nothing but noise, and no star.
    # What the sky has that the lamp has not is in its flat: slopes of 1 %, fringes, blobs of 2 %.
    structure = 0.006 if reality else 0.0
    assert spread < 1.3 * math.hypot(float(np.median(noise)), structure)
    assert np.mean(np.abs(ratio / np.median(ratio) - 1) > 6 * np.hypot(noise, structure)) < 0.004


@pytest.mark.parametrize("mode", ["sq", "qa"])
def test_the_product_is_a_calibration_that_says_how_it_was_made(flats, mode):
    product = flats[mode].outputs[0]
    assert {"FLAT", "CAL", "PROCESSED"} <= product.tags
    assert product.phu["SKYFLAT"] is True
    assert float(np.median(product[0].data[product[0].mask == 0])) == pytest.approx(1, abs=2e-3)
    name = Path(flats[mode].output_filenames[0]).name
    assert name.endswith("_flat.fits" if mode == "sq" else "_qa_flat.fits")


def test_objects_are_not_among_the_bad_pixels(flats):
    mask = flats["sq"].outputs[0][0].mask
    assert np.mean(mask & 1 != 0) < 0.001
    assert not (mask & 0x8000).any()


def test_in_quality_assessment_all_frames_are_used(flats):
    assert flats["sq"].outputs[0].phu["NCOMBINE"] == 11
    assert flats["qa"].outputs[0].phu["NCOMBINE"] == 12
