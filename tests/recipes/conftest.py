"""Two small simulated nights, each reduced once, for all tests of recipes.

One is clean. The other has all that `simulate.Reality` knows: distortion, haloes, changing seeing and
transparency, a trailed frame, a sky with blobs, slopes, fringes and waves, thermal light, rows and quadrants
that jump, persistence; its standard stands alone on hardly any sky. What the recipes promise holds on both;
where physics allows less on the second, the test says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from niripipe import Reduce, cal_service, simulate
from niripipe.cal_service import CalibrationService


@dataclass(frozen=True)
class ReducedNight:
    """A simulated night and its five reductions, as the tutorial makes them."""

    night: simulate.Night
    caldb: CalibrationService
    folder: Path
    dark: Reduce
    bpm: Reduce
    flat: Reduce
    standard: Reduce
    science: Reduce

    @property
    def is_real(self) -> bool:
        """Whether the night has all that real nights have."""
        return self.night.truth.reality is not None

    def reduce(self, files: list[Path], folder: str, **options: Any) -> Reduce:
        made = Reduce(files, calibrations=self.caldb, output_dir=self.folder / folder, **options)
        made.runr()
        return made


def reduce_night(
    folder: Path, *, reality: bool = False, science: dict[str, Any] | None = None
) -> ReducedNight:
    """Simulate a small night and reduce all of it; `science` are parameters of the target's reduction."""
    night = simulate.night(
        folder / "raw",
        seed=4,
        size=256,
        scene="crowded",
        n_target=6,
        n_sky=5,
        n_standard=5,
        n_flat=5,
        n_dark=6,
        n_short_dark=5,
        reality=reality,
    )
    caldb = CalibrationService()
    caldb.config(db_dir=folder / "store.db")
    caldb.init()

    def run(files: list[Path], **options: Any) -> Reduce:
        made = Reduce(files, calibrations=caldb, output_dir=folder / "products", **options)
        made.runr()
        return made

    dark = run(night.darks)
    bpm = run([*night.flats, *night.short_darks], recipe="makeProcessedBPM")
    for made in (dark, bpm):
        caldb.add_cal(made.output_filenames[0])
    flat = run(night.flats)
    caldb.add_cal(flat.output_filenames[0])
    return ReducedNight(
        night,
        caldb,
        folder,
        dark,
        bpm,
        flat,
        run(night.standard, parameters={"darkCorrect:do_cal": "skip"}),
        run([*night.target, *night.sky], parameters=science or {}),
    )


SCIENCE = {"skyCorrect": {"scale_sky": False}}
"""Parameters of the target's reduction, as in the tutorial: the galaxy is brighter than the sky varies."""


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReducedNight]:
    """A night without anything that disturbs."""
    yield reduce_night(tmp_path_factory.mktemp("night"), science=SCIENCE)
    cal_service.clear_calservice()


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReducedNight]:
    """A night with everything on."""
    yield reduce_night(tmp_path_factory.mktemp("real"), reality=True, science=SCIENCE)
    cal_service.clear_calservice()


@pytest.fixture(scope="session", params=["clean", "real"])
def reduced(request: pytest.FixtureRequest) -> ReducedNight:
    """Both nights, one after the other."""
    night: ReducedNight = request.getfixturevalue(request.param)
    return night


@pytest.fixture(scope="session", params=[False, True], ids=["clean", "real"])
def reality(request: pytest.FixtureRequest) -> bool:
    """Whether a night of a test's own has everything on."""
    return bool(request.param)
