"""Time the rows of the benchmark and compare them with DRAGONS.

Usage: ``python benchmarks/run.py [ROW ...] [--repeat N] [--nights FOLDER]``.

Each row is a process of its own. What is compared is what was measured of DRAGONS: the work after the
imports, or, for importing and for the tutorial as a whole, the process from its start.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tomllib
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

SCIENCE_SIZES = (5, 10, 20, 40)
LIMITED_SIZES = (25, 50, 100)
LIMIT = "500 MB"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    work: str
    night: dict[str, int]
    row: str
    whole: bool = False
    limit: str = ""


ROWS = (
    Row("import", "import niripipe", {}, "import", whole=True),
    Row("names", "import Reduce, dataselect, CalibrationService, logutils", {}, "names"),
    Row("select", "select over 55 files, 4 expressions", {}, "select"),
    Row("dark", "dark of 10", {}, "dark"),
    Row("bpm", "bad pixel mask of 30", {}, "bpm"),
    Row("flat", "flat of 20", {}, "flat"),
    Row("tutorial", "tutorial night, 55 frames, import included", {}, "tutorial", whole=True),
    *(
        Row(f"science_{n}", f"science, {n} target + {n} sky", {"n_target": n, "n_sky": n}, "science")
        for n in SCIENCE_SIZES
    ),
    Row("dithered_23", "23 frames dithered on source", {"n_target": 23, "n_sky": 0}, "science"),
    *(
        Row(
            f"limited_{n}", f"science, {n} target + {n} sky, max_memory {LIMIT}",
            {"n_target": n, "n_sky": n}, "science", limit=LIMIT,
        )
        for n in LIMITED_SIZES
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """What was measured for one row: medians over the runs, and the spread of the times."""

    name: str
    work: str
    seconds: float
    fastest: float
    slowest: float
    megabytes: float
    dragons_seconds: float | None
    dragons_megabytes: float | None

    @property
    def faster(self) -> float | None:
        """How many times faster than DRAGONS."""
        return self.dragons_seconds / self.seconds if self.dragons_seconds else None

    @property
    def smaller(self) -> float | None:
        """Memory relative to DRAGONS."""
        return self.megabytes / self.dragons_megabytes if self.dragons_megabytes else None


def make_night(folder: Path, settings: dict[str, int]) -> Path:
    """Return a simulated night, made and calibrated when it is not there yet."""
    name = "_".join(f"{key}{value}" for key, value in sorted(settings.items())) or "tutorial"
    night = folder / name
    if not (night / "products").is_dir():
        script = (
            "import sys, json; from pathlib import Path; from niripipe import Reduce, simulate\n"
            "night = simulate.night(sys.argv[1], seed=7, overwrite=True, **json.loads(sys.argv[2]))\n"
            "out = Path(sys.argv[1]) / 'products'\n"
            "Reduce(night.darks, output_dir=out).runr()\n"
            "bpm = Reduce(night.flats + night.short_darks, recipe='makeProcessedBPM', output_dir=out)\n"
            "bpm.runr()\n"
            "parameters = {'addDQ:user_bpm': bpm.output_filenames[0]}\n"
            "Reduce(night.flats, output_dir=out, parameters=parameters).runr()\n"
        )
        print(f"making {night}", file=sys.stderr)
        subprocess.run([sys.executable, "-c", script, str(night), json.dumps(settings)], check=True)
    return night


def measure(row: Row, night: Path, repeat: int, dragons: dict[str, dict[str, float]]) -> Figure:
    """Run a row several times, after one run that does not count; memory is the largest of all runs."""
    command = [sys.executable, str(HERE / "rows.py"), row.row, str(night), *filter(None, [row.limit])]
    runs = []
    for _ in range(repeat + 1):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = [run["process" if row.whole else "work"] for run in runs[1:]]
    megabytes = max(run["megabytes"] for run in runs)
    peer = dragons.get(row.name, {})
    return Figure(
        name=row.name,
        work=row.work,
        seconds=statistics.median(seconds),
        fastest=min(seconds),
        slowest=max(seconds),
        megabytes=megabytes,
        dragons_seconds=peer.get("seconds"),
        dragons_megabytes=peer.get("megabytes"),
    )


def exponent(figures: list[Figure], family: str, value: str) -> float | None:
    """Return b of ``value ~ N**b`` over the rows of a family, by least squares in the logarithms."""
    points = [
        (math.log(int(figure.name.removeprefix(family))), math.log(getattr(figure, value)))
        for figure in figures
        if figure.name.startswith(family)
    ]
    if len(points) < 2:
        return None
    mx, my = (statistics.fmean(axis) for axis in zip(*points, strict=True))
    return sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)


def table(figures: list[Figure]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| work | s | fastest to slowest | MB | DRAGONS s | times faster | DRAGONS MB | part of its memory |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for f in figures:
        cells = [
            f.work,
            f"{f.seconds:.2f}",
            f"{f.fastest:.2f} to {f.slowest:.2f}",
            f"{f.megabytes:.0f}",
            "" if f.dragons_seconds is None else f"{f.dragons_seconds:g}",
            "" if f.faster is None else f"{f.faster:.1f}",
            "" if f.dragons_megabytes is None else f"{f.dragons_megabytes:.0f}",
            "" if f.smaller is None else f"{f.smaller:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for family, where in (("science_", "as it comes"), ("limited_", f"with max_memory {LIMIT}")):
        for value, name in (("seconds", "time"), ("megabytes", "memory")):
            found = exponent(figures, family, value)
            if found is not None:
                lines.append(f"\nScaling of {name} with the number of frames N, {where}: N^{found:.2f}")
    return "\n".join(lines)


def conditions() -> str:
    """Return date, machine and versions."""
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "astropy", "sep"))
    return (
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}"
    )


def plot(figures: list[Figure], path: Path) -> None:
    """Draw the times beside those of DRAGONS."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [figure.work for figure in figures]
    figure, (axes, scaling) = plt.subplots(
        1, 2, figsize=(13, 0.4 * len(names) + 1.6), layout="constrained", width_ratios=(3, 2)
    )
    places = range(len(names))
    axes.barh([p + 0.2 for p in places], [f.seconds for f in figures], 0.4, label="niripipe")
    axes.barh(
        [p - 0.2 for p in places], [f.dragons_seconds or 0 for f in figures], 0.4, label="DRAGONS 4.2.2"
    )
    axes.set_yticks(list(places), names)
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.legend()
    for family, label in (("science_", "as it comes"), ("limited_", f"max_memory {LIMIT}")):
        rows = [f for f in figures if f.name.startswith(family)]
        frames = [2 * int(f.name.removeprefix(family)) for f in rows]
        (line,) = scaling.loglog(frames, [f.seconds for f in rows], "o-", label=f"s, {label}")
        scaling.loglog(
            frames, [f.megabytes for f in rows], "s:", color=line.get_color(), label=f"MB, {label}"
        )
    scaling.set_xlabel("science frames")
    scaling.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="names of rows; all by default")
    parser.add_argument("--repeat", type=int, default=3, help="counted runs of each row")
    parser.add_argument("--nights", type=Path, default=RESULTS / "nights", help="where nights are kept")
    given = parser.parse_args()
    dragons = tomllib.loads((HERE / "dragons.toml").read_text())
    chosen = [row for row in ROWS if not given.rows or row.name in given.rows]
    figures = []
    for row in chosen:
        night = make_night(given.nights.absolute(), row.night)
        figures.append(measure(row, night, given.repeat, dragons))
        print(f"{row.name}: {figures[-1].seconds:.2f} s, {figures[-1].megabytes:.0f} MB", file=sys.stderr)
    text = f"{conditions()}\n\n{table(figures)}\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "figures.md").write_text(text)
    (RESULTS / "figures.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    plot(figures, RESULTS / "figures.png")


if __name__ == "__main__":
    main()
