"""Nights without lamp flats: in thermal filters none are taken, in others there may be none."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niripipe import Reduce, astrodata, night, simulate
from niripipe.cal_service import CalibrationService
from niripipe.errors import CalibrationError
from niripipe.night import NightPlan, NightResult, NightSettings
from niripipe.simulate import Effects

QUIET = Effects(cosmic_rays=0.0, hot=0.0, warm=0.0, dead=0.0, pointing_rms=0.0)
THERMAL = {
    "camera": "f13.9",
    "filter": ("open", "Lprime_G0207", "Pupil38_G5207"),
    "read_mode": "High Background",
    "well": "Deep",
}
#: e-/s; as bright as the standards that are observed in L'.
STARS = [(110.0, 90.0, 4e6), (60.0, 140.0, 2e6)]
EXPOSURE, COADDS = 0.2, 30


def nods(folder: Path, count: int, *, nod: float = 5.0, first: int = 100, **options: Any) -> list[Path]:
    """A-B nods along q with small dithers, under a sky that is a hundred times as bright as that of H."""
    rng = np.random.default_rng(4)
    options = {"exposure": EXPOSURE, "coadds": COADDS, "stars": STARS, "effects": QUIET} | THERMAL | options
    paths = []
    for k in range(count):
        start = datetime(2010, 1, 2, 9) + timedelta(seconds=30 * k)
        p, q = rng.uniform(-0.8, 0.8, 2).round(3) if nod else (0.0, 0.0)
        frame = simulate.raw_frame(
            kind="target",
            level=5e5 * (1 + 0.005 * k),
            number=first + k,
            date=start.date(),
            ut=start.time(),
            p=float(p),
            q=float(q) + nod * (k % 2),
            size=256,
            fwhm=0.35,
            **options,
        )
        paths.append(simulate.write_frame(frame, folder))
    return paths


@pytest.fixture(scope="module")
def thermal(tmp_path_factory: pytest.TempPathFactory) -> tuple[NightPlan, NightResult]:
    folder = tmp_path_factory.mktemp("thermal")
    nods(folder, 9)
    plan = night.organise(folder)
    return plan, plan.run(folder / "products")


def test_thermal_frames_get_a_flat_of_themselves_and_the_plan_says_so(
    thermal: tuple[NightPlan, NightResult],
) -> None:
    plan, result = thermal
    assert [job.name for job in plan] == ["sky flat L(prime)", "science SN2014J L(prime)"]
    flat, science = plan
    assert flat.recipe == "makeSkyFlat"
    assert [Path(path).name for path in flat.files] == [Path(path).name for path in science.files[1:]]
    assert "made of 8 frames of the sky" in flat.reasons[0]
    assert any("no lamp flats are taken in the filter L(prime)" in reason for reason in science.reasons)
    assert not any("flat" in warning for warning in science.warnings)
    assert result.ok
    assert [Path(job.outputs[0]).name for job in result] == [job.product for job in plan]


def test_the_stack_of_thermal_nods_has_the_flux_of_the_stars(thermal: tuple[NightPlan, NightResult]) -> None:
    _, result = thermal
    stack = astrodata.open(result["science"].outputs[0])
    assert stack.phu["NCOMBINE"] == 8
    assert stack.phu["FLATIM"] == Path(result["flat"].outputs[0]).name
    assert "is made of 8 frames of the sky" in str(result["science"].report)
    data = stack[0].data
    y, x = np.mgrid[: data.shape[0], : data.shape[1]]
    found = []
    for _ in STARS:
        top, left = np.unravel_index(np.nanargmax(data), data.shape)
        away = np.hypot(y - top, x - left)
        ring = np.nanmedian(data[(away > 28) & (away < 40)])
        found.append(float(np.nansum(data[away < 24] - ring)))
        data[away < 40] = np.nan
    wanted = [flux * EXPOSURE * COADDS for _, _, flux in STARS]
    assert found == pytest.approx(wanted, rel=0.03)


def test_a_flat_of_the_sky_in_a_store_is_found_and_comes_after_lamp_flats(
    thermal: tuple[NightPlan, NightResult], tmp_path: Path
) -> None:
    plan, result = thermal
    found = result.calibrations.get_calibrations(plan.job("science").files[0], "processed_flat")
    assert found.files == list(result["flat"].outputs)
    # The archive lets a lamp flat of another day go before it.
    lamp = astrodata.open(result["flat"].outputs[0])
    del lamp.phu["SKYFLAT"]
    lamp.phu["GCALLAMP"], lamp.phu["GCALSHUT"] = "IRhigh", "OPEN"
    lamp.phu["DATE-OBS"] = "2010-01-04"
    lamp.write(tmp_path / "lamp_flat.fits")
    store = CalibrationService()
    store.config(db_dir=tmp_path)
    store.init()
    for path in (tmp_path / "lamp_flat.fits", result["flat"].outputs[0]):
        store.add_cal(path)
    again = store.get_calibrations(plan.job("science").files[0], "processed_flat", howmany=2)
    assert [Path(path).name for path in again.files] == ["lamp_flat.fits"]


def test_without_dithers_thermal_frames_are_reduced_without_a_flat(tmp_path: Path) -> None:
    nods(tmp_path, 5, nod=0.0)
    plan = night.organise(tmp_path)
    (job,) = plan
    assert job.parameters["flatCorrect:do_cal"] == "skip"
    assert any("all frames show the same place" in warning for warning in job.warnings)


def test_reduce_does_not_ask_for_flats_of_thermal_filters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = nods(tmp_path, 5)
    options = {"darkCorrect:do_cal": "skip"}
    reduction = Reduce(paths, parameters=options, calibrations={}, output_dir=tmp_path)
    reduction.runr()
    assert "no flat is prescribed for the filter L(prime)" in str(reduction.report)
    assert "not flat-fielded" in caplog.text
    assert "FLATIM" not in reduction.outputs[0].phu
    with pytest.raises(CalibrationError):
        Reduce(paths, parameters=options | {"flatCorrect:do_cal": "force"}, calibrations={}).runr()


@pytest.fixture(scope="module")
def without_lamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A galaxy in J, with sky beside it, and no flats."""
    folder = tmp_path_factory.mktemp("j")
    simulate.night(
        folder, seed=3, size=256, filter="J", n_flat=0, n_standard=0, n_dark=4, n_short_dark=0, effects=QUIET
    )
    return folder


def test_a_night_without_lamp_flats_uses_its_skies(without_lamps: Path, tmp_path: Path) -> None:
    plan = night.organise(without_lamps)
    flat = plan.job("sky flat J")
    assert flat.files == plan.job("science").sky_files
    assert [c.caltype for c in flat.calibrations] == ["processed_dark"]
    result = plan.run(tmp_path)
    assert result.ok
    made = astrodata.open(result["sky flat J"].outputs[0])[0].data
    assert float(np.median(made)) == pytest.approx(1.0, abs=1e-3)
    assert np.std(made) < 0.1
    assert len(result.products("science")) == 1


def test_frames_without_lamp_flats_can_still_be_left_out_or_reduced_without(without_lamps: Path) -> None:
    plan = night.organise(without_lamps, settings=NightSettings(without_flat="leave out"))
    assert [job.kind for job in plan] == ["dark"]
    plan = night.organise(without_lamps, settings=NightSettings(without_flat="skip"))
    assert plan.job("science").parameters["flatCorrect:do_cal"] == "skip"
    assert len(plan) == 2
