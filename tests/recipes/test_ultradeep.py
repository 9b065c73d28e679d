"""Ultradeep: two passes, in one go or in parts, on dithered frames of one field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, astrodata, simulate
from niripipe.errors import InputError


@dataclass(frozen=True)
class Deep:
    """A night of dithered frames of one field, and what reduces it."""

    night: simulate.Night
    calibrations: dict[str, str]
    folder: Path

    def reduce(self, files, folder, recipe, **options):
        made = Reduce(
            files, recipe=recipe, calibrations=self.calibrations, output_dir=self.folder / folder, **options
        )
        made.runr()
        return made


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, reality: bool) -> Deep:
    folder = tmp_path_factory.mktemp("deep")
    night = simulate.night(
        folder / "raw",
        reality=reality,
        seed=11,
        size=256,
        scene="sparse",
        n_stars=40,
        n_target=9,
        n_sky=0,
        n_standard=0,
        n_flat=4,
        n_dark=5,
        n_short_dark=0,
        dither=6.0,
    )
    products = {}
    for caltype, files in (("processed_dark", night.darks), ("processed_flat", night.flats)):
        made = Reduce(files, output_dir=folder / "products")
        made.runr()
        products[caltype] = made.output_filenames[0]
    return Deep(night, products, folder)


@pytest.fixture(scope="module")
def whole(deep: Deep) -> Reduce:
    return deep.reduce(deep.night.target, "whole", "ultradeep")


def test_the_stack_is_as_good_as_the_truth_allows(deep, whole, reality):
    score = simulate.score(deep.night, whole.outputs[0])
    assert score.flux_ratio == pytest.approx(1, abs=0.02)
    # The distortion k r^2 is 0.4 pixel in the corners of these frames, 0.2 rms.
    assert score.astrom_rms_pix < (0.25 if reality else 0.04)
    assert score.pull == pytest.approx(1, abs=0.06)


def test_the_second_pass_masks_more_than_single_frames_show(deep, whole, reality):
    first, second = (astrodata.open(path) for path in whole.report.outputs)
    assert first.filename.endswith("_stack.fits")
    assert second.filename.endswith("_image.fits")
    # The masks of the sky in the second pass are those of the whole stack.
    transferred = whole.report.step("transferObjectMask")
    assert len(transferred.outcomes) == 8
    single = deep.reduce(deep.night.target, "single", "reduce").outputs[0]
    # With everything on, two of 30 stars are at the limit and found by chance.
    least = len(single[0].OBJCAT) - (3 if reality else 0)
    assert len(second[0].OBJCAT) >= least


def test_nothing_is_left_but_the_products(deep, whole):
    assert sorted(path.name[14:] for path in (deep.folder / "whole").iterdir()) == [
        "_image.fits",
        "_stack.fits",
    ]


def test_the_parts_one_after_the_other_give_the_same(deep, whole):
    one = deep.reduce(deep.night.target, "parts", "ultradeep_part1")
    assert len(one.output_filenames) == 8
    assert all(name.endswith("_flatCorrected.fits") for name in one.output_filenames)
    two = deep.reduce(one.output_filenames, "parts", "ultradeep_part2")
    assert all(name.endswith("_objmaskTransferred.fits") for name in two.output_filenames)
    three = deep.reduce(two.output_filenames, "parts", "ultradeep_part3")
    for plane in ("data", "mask"):
        assert np.array_equal(three.outputs[0][0].read(plane), whole.outputs[0][0].read(plane))
    # In files variances are numbers, no longer functions of the level, which are better known for a sky.
    one, other = three.outputs[0][0].read("variance"), whole.outputs[0][0].read("variance")
    seen = (one > 0) | (other > 0)
    ratio = np.abs(one[seen] / other[seen] - 1)
    assert (np.quantile(ratio, 0.99), ratio.max()) < (2e-3, 0.05)
    assert ratio.max() < 0.05


def test_frames_of_a_separate_sky_are_refused_before_the_work_is_done(reduced, tmp_path):
    files = [*reduced.night.target, *reduced.night.sky]
    with pytest.raises(InputError, match=r"same frames.*'sky'.*recipe reduce") as caught:
        reduced.reduce(files, "refused", recipe="ultradeep")
    assert reduced.night.sky[0].name in str(caught.value)
    assert not list((reduced.folder / "refused").glob("*.fits"))
