"""Reduce simulated nights with standards and put their zero points and magnitudes against truth.

Run as ``python docs/measure_photometry.py``; ``--nights`` and ``--first`` choose the nights (their seeds).
The tables go into ``photometry.md``; ``--print`` shows them without writing them. A night takes about 20 s.
In every second night the target's exposures are short, so that its stars are faint; in every fifth a thin
cloud dims some frames. The extinction differs from night to night as it does on Mauna Kea.
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
from niripipe.photometry.bands import extinction

PAGE = Path(__file__).with_name("photometry.md")
COMMAND = "python docs/measure_photometry.py"
STANDARDS = ("FS 110", "FS 106", "P550-C", "FS 121")
"""Airmass 1.06, 1.58, 1.32 and 1.92 when they are taken."""
RADII = (3, 6, 10)
ALONE = 25.0
"""Stars nearer to another than this (pixels) are crowded, and left out."""
SHORT = 1.5
"""Exposure of faint targets, s."""
CLOUD, EVERY = 0.15, 5
"""What a thin cloud dims at most (mag), and in which nights."""


@dataclass
class Measured:
    """What was measured on some nights.

    Attributes
    ----------
    singles : list of tuple of float
        For each standard: zero point minus truth, random error, total error.
    nights : list of tuple of float
        For each night the same of the joint fit: difference, random error, total error.
    cloudy : list of tuple of float
        As `nights`, for those with clouds.
    frames : list of tuple of float
        For each frame of a standard in nights with clouds: whether a cloud dims it, whether it was left out,
        whether all frames of the standard were said to scatter by more than their noise.
    stars : list of tuple of float
        For each star and radius: radius, true signal-to-noise ratio, difference of the magnitude, its error,
        and whether the catalogue has it.
    """

    singles: list[tuple[float, float, float]] = field(default_factory=list)
    nights: list[tuple[float, float, float]] = field(default_factory=list)
    cloudy: list[tuple[float, float, float]] = field(default_factory=list)
    frames: list[tuple[float, float, float]] = field(default_factory=list)
    stars: list[tuple[float, float, float, float, float]] = field(default_factory=list)


def measure(seed: int, folder: Path, into: Measured) -> None:
    """Simulate a night, reduce its standards and its target, and compare."""
    usual = extinction("H")
    assert usual is not None
    night = simulate.night(
        folder / "raw", seed=seed, size=256, scene="sparse", n_stars=14, n_target=9, n_sky=0, n_standard=5,
        n_flat=6, n_dark=5, n_short_dark=3, standards=STANDARDS, catalogue_errors=True,
        exposure=20.002 if seed % 2 else SHORT, clouds=0.0 if seed % EVERY else CLOUD,
        extinction=float(np.random.default_rng(seed).normal(usual.value, usual.error)),
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
        standard = astrodata.open(product)
        phu = standard.phu
        if seed % EVERY == 0:
            into.frames += _clouds(night, standard)
        if "ZP" in phu:
            caldb.add_cal(product)
            into.singles.append(
                (phu["ZP"] - truth, phu["ZPERR"], float(np.hypot(phu["ZPERR"], phu["ZPSYSERR"])))
            )
    stack = astrodata.open(run(night.target))
    phu = stack.phu
    here = phu["ZPIMAGE"] - 2.5 * np.log10(stack.exposure_time())
    expected = truth - night.truth.photometry["extinction"]["H"] * (stack.airmass() - 1)
    results = into.nights if seed % EVERY else into.cloudy
    results.append((here - expected, phu["ZPERR"], phu["ZPMAGERR"]))
    if seed % EVERY:
        # A cloud over the target dims its stack, whatever the zero point.
        into.stars += list(_stars(night, stack, here - expected))


def _clouds(night: simulate.Night, standard: astrodata.AstroData) -> Iterable[tuple[float, float, float]]:
    """Yield for each frame of a standard whether a cloud dims it, and what was said of it."""
    with_zero_point = "ZP" in standard.phu
    rows = standard.STDPHOT
    passed = {name: night.truth.frames[f"{Path(name).stem[:14]}.fits"].transparency for name in rows["IMAGE"]}
    clear = max(passed.values())
    noisy = with_zero_point and standard.phu.get("ZPNOISY", False)
    for row in rows:
        dimmed = passed[row["IMAGE"]] < 0.97 * clear
        left_out = with_zero_point and not row["USED"]
        yield float(dimmed), float(left_out), float(noisy)


def _stars(
    night: simulate.Night, stack: astrodata.AstroData, offset: float
) -> Iterable[tuple[float, float, float, float, float]]:
    """Yield what is known of isolated stars, by radius; differences are without that of the zero point."""
    scene = night.truth.fields["target"]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], scene.wcs.crpix, scene.wcs.crval
    wcs.wcs.cd = np.reshape(scene.wcs.cd, (2, 2))
    x, y, flux = scene.table.T
    ra, dec = wcs.all_pix2world(x, y, 0)
    true = night.truth.photometry["zero_points"]["H"] - 2.5 * np.log10(flux)
    table, coverage = stack[0].OBJCAT, stack[0].COVERAGE
    electrons = 10 ** (-0.4 * (true + offset - stack.phu["ZPIMAGE"]))
    for k, (px, py) in enumerate(np.transpose(stack[0].wcs.all_world2pix(ra, dec, 0))):
        others = np.hypot(x - x[k], y - y[k])
        others[k] = np.inf
        inside = 12 < px < coverage.shape[1] - 13 and 12 < py < coverage.shape[0] - 13
        if others.min() < ALONE or not inside or coverage[round(py), round(px)] < 0.7 * coverage.max():
            continue
        distance = 3600 * np.hypot(
            (table["X_WORLD"] - ra[k]) * np.cos(np.deg2rad(dec[k])), table["Y_WORLD"] - dec[k]
        )
        best = int(np.argmin(distance))
        row, found = table[best], bool(distance[best] < 0.4)
        for radius in RADII:
            # The light in the aperture, over the noise that the image has there.
            inside_aperture = electrons[k] * 10 ** (0.4 * stack[0].hdr[f"APCOR{radius}"])
            noise = float(stack[0].aperture_variance(np.array([px]), np.array([py]), radius)[0]) ** 0.5
            snr = inside_aperture / noise
            if not found:
                yield float(radius), snr, np.nan, np.nan, 0.0
                continue
            difference, error = row[f"MAG_APER_{radius}"] - true[k] - offset, row[f"MAGERR_APER_{radius}"]
            yield float(radius), snr, float(difference), float(error), 1.0


def zero_point_table(found: Measured) -> str:
    """Return the figures of zero points as a table."""
    rows = []
    for label, values in (
        ("one standard", found.singles),
        ("joint fit, at the target's airmass", found.nights),
        ("joint fit, nights with thin clouds", found.cloudy),
    ):
        if not values:
            continue
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
    radius, snr, difference, error, seen = np.array(found.stars).T
    rows = []
    for wanted in RADII:
        for low, high in ((100, np.inf), (30, 100), (15, 30), (7, 15)):
            true = (radius == wanted) & (snr >= low) & (snr < high)
            use = true & np.isfinite(difference)
            if use.sum() < 5:
                continue
            # Not by the errors: those of stars that noise makes brighter are smaller.
            weights = (snr[use] / 1.0857) ** 2
            mean = float(np.average(difference[use], weights=weights))
            pulls = difference[use] / error[use]
            rows.append(
                [
                    str(wanted), f"> {low}" if np.isinf(high) else f"{low} to {high}", str(int(true.sum())),
                    f"{100 * seen[true].mean():.0f} %",
                    f"{mean:+.4f} ± {weights.sum() ** -0.5:.4f}",
                    f"{np.median(difference[use]):+.4f}", f"{np.sqrt(np.mean(pulls**2)):.2f}",
                ]
            )  # fmt: skip
    head = [
        "radius, pixels",
        "true S/N",
        "stars",
        "in the catalogue",
        "mean difference, mag",
        "median",
        "pull",
    ]
    return markdown_table(head, rows)


def cloud_table(found: Measured) -> str:
    """Return what was said of frames that a cloud dims, and of the others."""
    dimmed, left_out, noisy = np.array(found.frames, bool).T
    rows = [
        [label, *(str(int((which & said).sum())) for said in (which, left_out, noisy, left_out | noisy))]
        for label, which in (("dimmed by a cloud", dimmed), ("clear", ~dimmed))
    ]
    return markdown_table(
        ["frames of standards", "number", "left out", "their standard scatters by more than noise", "either"],
        rows,
    )


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
            np.savez(
                options.keep, singles=found.singles, nights=found.nights, cloudy=found.cloudy,
                frames=found.frames, stars=found.stars,
            )  # fmt: skip
    tables = {"zero points": zero_point_table(found), "magnitudes": star_table(found)}
    if found.frames:
        tables["clouds"] = cloud_table(found)
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
