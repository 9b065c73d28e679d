"""The rows of the benchmark: ``python rows.py ROW NIGHT [MAX_MEMORY]`` runs one in a process of its own.

Prints one line of JSON: seconds of the work alone, after the imports with which a script begins; seconds of
the whole process since it was started; and peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def _process_start() -> float:
    """Return the time at which this process was started, so that imports count."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (up - ticks / os.sysconf("SC_CLK_TCK"))
    except OSError:
        return _STARTED


_STARTED = time.time()


def _files(night: Path) -> dict[str, list[str]]:
    truth = json.loads((night / "truth.json").read_text())
    kinds: dict[str, list[str]] = {}
    for name, frame in truth["frames"].items():
        kinds.setdefault(frame["kind"], []).append(str(night / name))
    return kinds


def _reduce(files: list[str], **settings: Any) -> Any:
    from niripipe import Reduce

    reduction = Reduce(files, **settings)
    reduction.runr()
    return reduction


def row_import(night: Path) -> None:
    """Nothing but importing the package."""


def row_names(night: Path) -> None:
    """Import what the tutorial names."""
    _import_names()


def _import_names() -> None:
    from niripipe import CalibrationService, Reduce, dataselect, logutils  # noqa: F401


def row_select(night: Path) -> None:
    """Make four selections over all files of the night."""
    from niripipe import dataselect

    files = [str(path) for path in sorted(night.glob("*.fits"))]
    dataselect.select_data(files, ["DARK"], [], dataselect.expr_parser("exposure_time==1"))
    dataselect.select_data(files, ["DARK"], [], dataselect.expr_parser("exposure_time==20"))
    dataselect.select_data(files, ["FLAT"])
    dataselect.select_data(files, ["IMAGE"], ["FLAT"], dataselect.expr_parser('object!="FS 17"'))


def row_dark(night: Path) -> None:
    """Make a processed dark of ten frames."""
    _reduce(_files(night)["dark"])


def row_bpm(night: Path) -> None:
    """Make a bad pixel mask of twenty flats and ten short darks."""
    kinds = _files(night)
    _reduce(kinds["flat_on"] + kinds["flat_off"] + kinds["short_dark"], recipe="makeProcessedBPM")


def row_flat(night: Path) -> None:
    """Make a processed flat of ten lamp-on and ten lamp-off frames."""
    kinds = _files(night)
    _reduce(kinds["flat_on"] + kinds["flat_off"])


def row_science(night: Path) -> None:
    """Reduce science frames with their skies; the calibrations were made before."""
    kinds = _files(night)
    products = {kind: str(next(night.glob(f"products/*_{kind}.fits"))) for kind in ("dark", "flat", "bpm")}
    _reduce(
        kinds["target"] + kinds.get("sky", []),
        calibrations={f"processed_{kind}": path for kind, path in products.items()},
        parameters={"skyCorrect:scale_sky": False} if kinds.get("sky") else {},
        **({"max_memory": sys.argv[3]} if len(sys.argv) > 3 else {}),
    )


def row_tutorial(night: Path) -> None:
    """Do all of it: selection, dark, bad pixel mask, flat, standard, science."""
    from niripipe import CalibrationService, dataselect

    files = [str(path) for path in sorted(night.glob("*.fits"))]
    caldb = CalibrationService()
    caldb.config(db_dir=Path.cwd())
    caldb.init()
    select, parse = dataselect.select_data, dataselect.expr_parser
    darks = select(files, ["DARK"], [], parse("exposure_time==20"))
    short = select(files, ["DARK"], [], parse("exposure_time==1"))
    flats = select(files, ["FLAT"])
    standard = select(files, [], [], parse('object=="FS 17"'))
    target = select(files, ["IMAGE"], ["FLAT"], parse('object!="FS 17"'))
    caldb.add_cal(_reduce(darks, calibrations=caldb).output_filenames[0])
    bpm = _reduce(flats + short, calibrations=caldb, recipe="makeProcessedBPM").output_filenames[0]
    with_bpm = {"addDQ:user_bpm": bpm}
    caldb.add_cal(_reduce(flats, calibrations=caldb, parameters=with_bpm).output_filenames[0])
    _reduce(standard, calibrations=caldb, parameters={**with_bpm, "darkCorrect:do_cal": "skip"})
    _reduce(target, calibrations=caldb, parameters={**with_bpm, "skyCorrect:scale_sky": False})


ROWS = {
    "import": row_import,
    "names": row_names,
    "select": row_select,
    "dark": row_dark,
    "bpm": row_bpm,
    "flat": row_flat,
    "science": row_science,
    "tutorial": row_tutorial,
}


def main() -> None:
    """Run one row and print its figures."""
    row, night = sys.argv[1], Path(sys.argv[2]).absolute()
    import niripipe  # noqa: F401

    if row not in ("import", "names"):
        _import_names()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        ROWS[row](night)
        work, process = time.perf_counter() - started, time.time() - _process_start()
        os.chdir("/")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"work": round(work, 4), "process": round(process, 3), "megabytes": round(peak, 1)}))


if __name__ == "__main__":
    main()
