"""A report's script makes the same product again, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import CalibrationService, Reduce, simulate
from niripipe.errors import InputError
from niripipe.reduction.report import RunReport


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    return simulate.night(folder / "raw", seed=5, size=256, n_target=4, n_sky=4, n_flat=3, n_dark=3)


def _reduced(night, folder: Path) -> Reduce:
    caldb = CalibrationService()
    caldb.config(db_dir=folder)
    caldb.init()
    for files in (night.darks, night.flats):
        made = Reduce(files, calibrations=caldb, output_dir=folder)
        made.runr()
        caldb.add_cal(made.output_filenames[0])
    bpm = Reduce([*night.flats, *night.short_darks], recipe="makeProcessedBPM", output_dir=folder)
    bpm.runr()
    science = Reduce(
        [*night.target, *night.sky],
        calibrations=caldb,
        output_dir=folder,
        parameters={"addDQ:user_bpm": bpm.output_filenames[0], "skyCorrect:scale_sky": False},
    )
    science.runr()
    return science


def test_the_script_makes_the_same_pixels_in_a_process_of_its_own(night, tmp_path):
    science = _reduced(night, tmp_path / "first")
    script = tmp_path / "again.py"
    script.write_text(science.report.script())
    again = tmp_path / "second"
    again.mkdir()
    subprocess.run([sys.executable, str(script)], cwd=again, check=True, capture_output=True, timeout=120)
    (product,) = again.glob("*_image.fits")
    with fits.open(science.output_filenames[0]) as one, fits.open(product) as two:
        for name in ("SCI", "VAR", "DQ", "COVERAGE", "OBJMASK"):
            np.testing.assert_array_equal(one[name].data, two[name].data)
    assert "processed_dark" in script.read_text()


def test_the_script_refuses_files_that_have_changed(night, tmp_path):
    dark = tmp_path / night.darks[0].name
    dark.write_bytes(night.darks[0].read_bytes())
    made = Reduce([dark, *night.darks[1:]], output_dir=tmp_path / "out")
    made.runr()
    script = tmp_path / "again.py"
    script.write_text(made.report.script())
    with dark.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"x")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert dark.name in done.stderr


def test_what_exists_in_memory_only_cannot_be_named(night, tmp_path):
    from niripipe import astrodata

    made = Reduce([astrodata.open(path) for path in night.darks], output_dir=tmp_path)
    made.runr()
    with pytest.raises(InputError, match="memory only"):
        made.report.script()

    def simple(p):
        p.prepare()

    made = Reduce(night.darks, recipe=simple, output_dir=tmp_path)
    made.runr()
    with pytest.raises(InputError, match="simple"):
        made.report.script()
    with pytest.raises(InputError):
        RunReport("x", "sq", "niripipe", []).script()
