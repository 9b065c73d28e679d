"""What a reduction does not import: each of these costs more time than the steps that might use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_REDUCE = """
import sys
from niripipe import Reduce
from niripipe.cal_service import CalibrationService
store, folder, *files = sys.argv[1:]
caldb = CalibrationService()
caldb.config(db_dir=store)
made = Reduce(files, calibrations=caldb, output_dir=folder)
made.runr()
heavy = {"astropy.wcs", "astropy.coordinates", "astropy.table", "astropy.time", "scipy.spatial"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert len(made.outputs[0][0].OBJCAT) > 0
"""


def test_a_reduction_does_without_the_coordinates_and_tables_of_astropy(reduced, tmp_path: Path) -> None:
    # The first frame of a sequence is left out.
    files = [*reduced.night.target[:4], *reduced.night.sky[:3]]
    store = reduced.folder / "store.db"
    done = subprocess.run(
        [sys.executable, "-c", _REDUCE, str(store), str(tmp_path), *map(str, files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
