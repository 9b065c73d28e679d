"""One small simulated night, reduced once, for all tests of recipes."""

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


@pytest.fixture(scope="session")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReducedNight]:
    science = {"skyCorrect": {"scale_sky": False}}
    yield reduce_night(tmp_path_factory.mktemp("night"), science=science)
    cal_service.clear_calservice()
