"""A small simulated night with a real standard, reduced once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from niripipe import Reduce, simulate
from niripipe.cal_service import CalibrationService


class Reduced(NamedTuple):
    """A night, its calibrations, and the folder of its products."""

    night: simulate.Night
    calibrations: CalibrationService
    folder: Path
    standard: str
    report: object


def reduce(files, calibrations, folder, **settings):
    reduction = Reduce(
        [path if hasattr(path, "phu") else str(path) for path in files],
        calibrations=calibrations,
        output_dir=folder,
        **settings,
    )
    reduction.runr()
    return reduction


@pytest.fixture(scope="session")
def reduced(tmp_path_factory) -> Reduced:
    pytest.importorskip("photutils")
    folder = tmp_path_factory.mktemp("photometry")
    night = simulate.night(
        folder / "raw", seed=11, size=256, scene="sparse", n_stars=14, n_target=5, n_sky=0, n_standard=5,
        n_flat=4, n_dark=3, n_short_dark=3, standards=("FS 17",), sky_rate=300.0,
    )  # fmt: skip
    products = folder / "products"
    calibrations = CalibrationService()
    calibrations.config(db_dir=folder)
    calibrations.init()
    for files, recipe in (
        (night.darks, "_default"),
        (night.flats + night.short_darks, "makeProcessedBPM"),
        (night.flats, "_default"),
    ):  # fmt: skip
        calibrations.add_cal(reduce(files, calibrations, products, recipe=recipe).output_filenames[0])
    done = reduce(
        night.standard,
        calibrations,
        products,
        recipe="makeStandard",
        parameters={"darkCorrect:do_cal": "skip"},
    )
    standard = done.output_filenames[0]
    return Reduced(night, calibrations, products, standard, done.report)


@pytest.fixture(scope="session")
def stack(reduced) -> str:
    """The science stack, with the zero point of the standard named by hand."""
    done = reduce(
        reduced.night.target, reduced.calibrations, reduced.folder,
        parameters={"applyZeroPoint:standard": reduced.standard},
    )  # fmt: skip
    return done.output_filenames[0]
