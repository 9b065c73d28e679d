"""Reduce simulated nights and put the figures against truth into ``accuracy.md``.

Run as ``python docs/measure_accuracy.py``; ``--seeds`` and ``--size`` choose the nights, ``--print`` shows
the tables without writing them. Four nights of 1024 x 1024 pixels take about
a minute.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks import markdown_table, put_block

from niripipe import CalibrationService, Reduce, __version__, simulate

PAGE = Path(__file__).with_name("accuracy.md")
COMMAND = "python docs/measure_accuracy.py"


@dataclass(frozen=True)
class Measured:
    """The score of one stack, and how long its reduction took."""

    seed: int
    kind: str
    score: simulate.Score
    seconds: float


def reduced(seed: int, size: int, folder: Path) -> list[Measured]:
    """Simulate a night and reduce it as the tutorial does."""
    night = simulate.night(folder / "raw", seed=seed, size=size)
    caldb = CalibrationService()
    caldb.config(db_dir=folder)
    caldb.init()

    def run(files: Iterable[Path], **settings: object) -> Reduce:
        reduction = Reduce(files, calibrations=caldb, output_dir=folder / "products", **settings)
        reduction.runr()
        return reduction

    caldb.add_cal(run(night.darks).output_filenames[0])
    mask = run(night.flats + night.short_darks, recipe="makeProcessedBPM")
    caldb.add_cal(mask.output_filenames[0])
    caldb.add_cal(run(night.flats).output_filenames[0])
    stacks = {
        "target": run(night.target + night.sky, parameters={"skyCorrect:scale_sky": False}),
        "std": run(night.standard, parameters={"darkCorrect:do_cal": "skip"}),
    }
    return [
        Measured(seed, kind, simulate.score(night, stack.outputs[0], kind=kind), stack.report.seconds)
        for kind, stack in stacks.items()
    ]


def table(measured: Sequence[Measured], kind: str) -> str:
    """Return one Markdown table: a column for each seed, and the mean."""
    chosen = [m for m in measured if m.kind == kind]
    rows = []
    for title, name, form, wanted in (
        ("stars with S/N > 100", "n_bright", "{:.0f}", ""),
        ("flux of stars with S/N > 100, measured over true", "flux_ratio_snr100", "{:.4f}", "1 ± 0.004"),
        ("scatter of the flux ratio (S/N > 40)", "flux_scatter", "{:.4f}", ""),
        ("position, rms (pixels)", "astrom_rms_pix", "{:.4f}", "at most 0.025"),
        ("half-light radius, measured over true", "r50_ratio", "{:.4f}", "at most 1.012"),
        ("galaxy, measured over true", "galaxy_ratio", "{:.4f}", ""),
        ("pull: scatter of (data - truth) / sqrt(VAR)", "pull", "{:.3f}", "1 ± 0.05"),
        ("cosmic-ray pixels checked", "cr_hits", "{:.0f}", ""),
        ("cosmic-ray pixels left, fraction", "cr_left", "{:.4f}", "at most 0.02"),
        ("stars found that should be, fraction", "completeness", "{:.4f}", ""),
        ("pixels flagged, fraction", "flagged", "{:.4f}", ""),
    ):
        values = [getattr(m.score, name) for m in chosen]
        if any(value is None for value in values):
            continue
        rows.append([title, *(form.format(value) for value in [*values, statistics.fmean(values)]), wanted])
    rows.append(["shape", *(f"{m.score.shape[1]} x {m.score.shape[0]}" for m in chosen), "", ""])
    return markdown_table(["", *(f"seed {m.seed}" for m in chosen), "mean", "wanted"], rows)


def report(measured: Sequence[Measured], size: int) -> str:
    """Return what goes into the page."""
    seeds = list(dict.fromkeys(m.seed for m in measured))
    return "\n".join(
        [
            f"Measured on {datetime.now(UTC):%d %B %Y} with niripipe {__version__}: `{COMMAND}`, seeds "
            f"{', '.join(map(str, seeds))}, {size} x {size} pixels.",
            "",
            "## Target: a galaxy that fills the field, four frames, offset skies",
            "",
            table(measured, "target"),
            "",
            "## Standard star: four dithered frames, each the sky of the others",
            "",
            table(measured, "std"),
        ]
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2016, 11, 12, 13])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--print", action="store_true", help="do not write the page")
    options = parser.parse_args()
    measured: list[Measured] = []
    for seed in options.seeds:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            measured += reduced(seed, options.size, Path(folder))
        sys.stderr.write(f"seed {seed}: {time.perf_counter() - started:.1f} s\n")
    text = report(measured, options.size)
    if options.print:
        sys.stdout.write(f"{text}\n")
    else:
        PAGE.write_text(put_block(PAGE.read_text(), "figures", text))


if __name__ == "__main__":
    main()
