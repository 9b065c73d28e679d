"""Reduce simulated nights with standards and put their zero points and magnitudes against truth.

Run as ``python docs/measure_photometry.py``; ``--nights`` and ``--first`` choose the nights (their seeds).
The tables go into ``photometry.md``; ``--print`` shows them without writing them. A night takes about 20 s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.wcs import WCS
from blocks import markdown_table, put_block

from niripipe import CalibrationService, Reduce, __version__, astrodata, logutils, simulate

PAGE = Path(__file__).with_name("photometry.md")
COMMAND = "python docs/measure_photometry.py"
STANDARDS = ("FS 110", "FS 106", "P550-C", "FS 121")
"""Airmass 1.06, 1.58, 1.32 and 1.92 when they are taken."""
RADII = (3, 6, 10)
ALONE = 25.0
"""Stars nearer to another than this (pixels) are crowded, and left out."""


@dataclass
class Measured:
    """What was measured on some nights.

    Attributes
    ----------
    singles : list of tuple of float
        For each standard: zero point minus truth, random error, total error.
    nights : list of tuple of float
        For each night the same of the joint fit: difference, random error, total error.
    stars : list of tuple of float
        For each star and radius: radius, difference of the magnitude, and its error.
    """

    singles: list[tuple[float, float, float]] = field(default_factory=list)
    nights: list[tuple[float, float, float]] = field(default_factory=list)
    stars: list[tuple[float, float, float]] = field(default_factory=list)


def measure(seed: int, folder: Path, into: Measured) -> None:
    """Simulate a night, reduce its standards and its target, and compare."""
    night = simulate.night(
        folder / "raw", seed=seed, size=256, scene="sparse", n_stars=14, n_target=9, n_sky=0, n_standard=5,
        n_flat=6, n_dark=5, n_short_dark=3, standards=STANDARDS, catalogue_errors=True,
        effects=simulate.Effects(sky_drift=0.05),
    )  # fmt: skip
    caldb = CalibrationService()
    caldb.config(db_dir=folder)
    caldb.init()

    def run(files: Iterable[Path], **settings: object) -> str:
        reduction = Reduce(files, calibrations=caldb, output_dir=folder / "products", **settings)
        reduction.runr()
        return reduction.output_filenames[0]

    for files, recipe in (
        (night.darks, "_default"),
        (night.flats + night.short_darks, "makeProcessedBPM"),
        (night.flats, "_default"),
    ):
        caldb.add_cal(run(files, recipe=recipe))
    truth = night.truth.photometry["zero_points"]["H"]
    for number in range(len(STANDARDS)):
        frames = night.standard[5 * number : 5 * number + 5]
        product = run(frames, recipe="makeStandard", parameters={"darkCorrect:do_cal": "skip"})
        phu = astrodata.open(product).phu
        if "ZP" in phu:
            caldb.add_cal(product)
            into.singles.append(
                (phu["ZP"] - truth, phu["ZPERR"], float(np.hypot(phu["ZPERR"], phu["ZPSYSERR"])))
            )
    stack = astrodata.open(run(night.target))
    phu = stack.phu
    here = phu["ZPIMAGE"] - 2.5 * np.log10(stack.exposure_time())
    expected = truth - night.truth.photometry["extinction"]["H"] * (stack.airmass() - 1)
    into.nights.append((here - expected, phu["ZPERR"], phu["ZPMAGERR"]))
    into.stars += list(_stars(night, stack, here - expected))


def _stars(
    night: simulate.Night, stack: astrodata.AstroData, offset: float
) -> Iterable[tuple[float, float, float]]:
    """Yield radius, difference from truth (without that of the zero point), and error of isolated stars."""
    scene = night.truth.fields["target"]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], scene.wcs.crpix, scene.wcs.crval
    wcs.wcs.cd = np.reshape(scene.wcs.cd, (2, 2))
    x, y, flux = scene.table.T
    ra, dec = wcs.all_pix2world(x, y, 0)
    true = night.truth.photometry["zero_points"]["H"] - 2.5 * np.log10(flux)
    table = stack[0].OBJCAT
    coverage = stack[0].COVERAGE
    for k in range(len(x)):
        others = np.hypot(x - x[k], y - y[k])
        others[k] = np.inf
        distance = 3600 * np.hypot(
            (table["X_WORLD"] - ra[k]) * np.cos(np.deg2rad(dec[k])), table["Y_WORLD"] - dec[k]
        )
        best = int(np.argmin(distance))
        row = table[best]
        where = round(float(row["Y_IMAGE"])) - 1, round(float(row["X_IMAGE"])) - 1
        if distance[best] > 0.4 or others.min() < ALONE or coverage[where] < 0.7 * coverage.max():
            continue
        for radius in RADII:
            difference, error = row[f"MAG_APER_{radius}"] - true[k] - offset, row[f"MAGERR_APER_{radius}"]
            if np.isfinite(difference):
                yield float(radius), float(difference), float(error)


def zero_point_table(found: Measured) -> str:
    """Return the figures of zero points as a table."""
    rows = []
    for label, values in (
        ("one standard", found.singles),
        ("joint fit, at the target's airmass", found.nights),
    ):
        difference, random, total = np.array(values).T
        rows.append(
            [
                label, str(len(values)), f"{difference.mean():+.4f}", f"{difference.std():.4f}",
                f"{np.median(random):.4f}", f"{np.median(total):.4f}",
                f"{np.mean((difference / total) ** 2):.2f}",
            ]
        )  # fmt: skip
    head = [
        "zero points",
        "number",
        "mean difference",
        "scatter",
        "random error",
        "total error",
        "chi-squared",
    ]
    return markdown_table(head, rows)


def star_table(found: Measured) -> str:
    """Return the figures of magnitudes as a table."""
    radius, difference, error = np.array(found.stars).T
    snr = 1.0857 / error
    rows = []
    for wanted in RADII:
        for low, high in ((100, np.inf), (30, 100), (15, 30), (7, 15)):
            use = (radius == wanted) & (snr >= low) & (snr < high)
            if use.sum() < 5:
                continue
            weights = error[use] ** -2
            mean = float(np.average(difference[use], weights=weights))
            rows.append(
                [
                    str(wanted), f"> {low}" if np.isinf(high) else f"{low} to {high}", str(int(use.sum())),
                    f"{mean:+.4f} ± {weights.sum() ** -0.5:.4f}", f"{np.median(difference[use]):+.4f}",
                    f"{np.sqrt(np.mean((difference[use] / error[use]) ** 2)):.2f}",
                ]
            )  # fmt: skip
    head = ["radius, pixels", "S/N", "stars", "mean difference, mag", "median", "pull"]
    return markdown_table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=50)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--print", action="store_true", dest="only_print")
    parser.add_argument("--keep", type=Path, help="file of the measurements (npz)")
    options = parser.parse_args(arguments)
    logutils.config(mode="quiet")
    found = Measured()
    for seed in range(options.first, options.first + options.nights):
        with tempfile.TemporaryDirectory() as folder:
            measure(seed, Path(folder), found)
        if options.keep:
            np.savez(options.keep, singles=found.singles, nights=found.nights, stars=found.stars)
    tables = {"zero points": zero_point_table(found), "magnitudes": star_table(found)}
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        print(table)
        page = put_block(
            page, name, f"{table}\n\nniripipe {__version__}, {options.nights} nights, `{COMMAND}`."
        )
    if not options.only_print:
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
