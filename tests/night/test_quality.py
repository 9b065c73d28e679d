"""How good the products of a night are, against what is measured here in another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from scipy import ndimage

from niripipe import astrodata
from niripipe.inspection import quality_table
from niripipe.night import NightResult


@pytest.fixture(scope="module")
def table(serial: NightResult) -> QTable:
    return quality_table(serial.products())


def of(table: QTable, kind: str) -> QTable:
    return table[[row for row, name in enumerate(table["kind"]) if name == kind]]


def test_every_product_has_a_row_in_units(serial: NightResult, table: QTable) -> None:
    assert list(table["product"]) == [Path(path).name for path in serial.products()]
    assert list(table["kind"]) == ["dark", "BPM", "flat", "image", "image"]
    assert table["fwhm"].unit == u.arcsec
    assert table["depth"].unit == table["sky_level"].unit == u.electron
    assert table["sky_drift"].unit == u.electron / u.h
    assert np.isnan(of(table, "dark")["fwhm"]).all()
    assert of(table, "dark")["stars"].mask.all()
    image = of(table, "image")
    assert list(image["frames_used"]) == list(image["frames_given"]) == [3, 4]
    assert list(np.asarray(image["exposure"].to_value(u.s))) == pytest.approx([30.015, 80.008])


def test_the_report_of_a_reduction_has_the_same(serial: NightResult, table: QTable) -> None:
    report = serial["science"].report
    assert report is not None
    own = report.quality
    assert own["fwhm"][0] == of(table, "image")["fwhm"][1]
    assert own["depth"][0] == of(table, "image")["depth"][1]


def test_depth_is_five_times_the_scatter_of_blank_apertures(serial: NightResult, table: QTable) -> None:
    row = of(table, "image")[1]
    ext = astrodata.open(serial.products("science")[0])[0]
    radius = float(row["fwhm"].to_value(u.arcsec)) / 0.1171
    y, x = np.mgrid[-12:13, -12:13]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1)
    used = (ext.OBJMASK != 0) | (ext.mask & 29 != 0)
    near = ndimage.binary_dilation(used, iterations=int(radius) + 1)
    near[:20] = near[-20:] = near[:, :20] = near[:, -20:] = True
    # The galaxy of this field has light everywhere: what is smooth is taken off first.
    flat = ext.data - ndimage.median_filter(np.where(used, np.median(ext.data[~used]), ext.data), 41)
    sums = ndimage.convolve(np.where(used, 0, flat), kernel)[~near]
    scatter = 1.4826 * np.median(np.abs(sums - np.median(sums)))
    # Between 60 and 95 % of the light of a star is within one FWHM, whatever its profile.
    depth = float(row["depth"].to_value(u.electron))
    assert 5 * scatter / 0.95 * 0.8 < depth < 5 * scatter / 0.60 * 1.2


def test_sky_alignment_and_flags_are_those_of_the_product(serial: NightResult, table: QTable) -> None:
    row = of(table, "image")[0]
    product = astrodata.open(serial.products("standard")[0])
    stacking = product.STACKING
    assert row["sky_level"].to_value(u.electron) == pytest.approx(np.median(stacking["SKY"]))
    hours = (np.asarray(stacking["MJD"]) - stacking["MJD"][0]) * 24
    design = np.stack([np.ones(len(hours)), hours], axis=1)
    slope = np.linalg.lstsq(design, np.asarray(stacking["SKY"]), rcond=None)[0][1]
    assert row["sky_drift"].to_value(u.electron / u.h) == pytest.approx(slope, rel=1e-6)
    assert row["alignment"].to_value(u.pix) == pytest.approx(
        np.median([rms for rms in product.ALIGNMENT["RMS"] if rms > 0])
    )
    bad = np.isin(product[0].mask & 29, [0], invert=True)
    assert row["flagged"].to_value(u.percent) == pytest.approx(100 * bad.mean())


def test_a_zero_point_makes_the_depth_a_magnitude(serial: NightResult) -> None:
    product = astrodata.open(serial.products("science")[0])
    for header in (product.phu, product[0].hdr):
        for keyword in ("ZP", "ZPERR", "ZPIMAGE", "MEANZP", "PHOTZP"):
            header.remove(keyword, ignore_missing=True)
    assert np.isnan(quality_table([product])["depth_mag"][0])
    product.phu["ZP"], product.phu["ZPERR"] = 23.5, 0.02
    row = quality_table([product])[0]
    flux = row["depth"].to_value(u.electron)
    rate = flux / 20.002
    assert row["depth_mag"].to_value(u.mag) == pytest.approx(23.5 - 2.5 * np.log10(rate), abs=1e-4)
    assert row["zero_point_error"].to_value(u.mag) == 0.02
    # With extinction, as the image says.
    product.phu["ZPIMAGE"] = 26.7
    row = quality_table([product])[0]
    assert row["depth_mag"].to_value(u.mag) == pytest.approx(26.7 - 2.5 * np.log10(flux), abs=1e-4)


def test_images_without_catalogue_variance_or_stars_have_gaps(serial: NightResult) -> None:
    bare = astrodata.open(serial.products("science")[0])
    bare[0].variance = None
    del bare[0].OBJCAT
    row = quality_table([bare])[0]
    assert np.isnan(row["depth"])
    assert np.isfinite(row["fwhm"])  # that of the single frames
    rows = bare.STACKING
    rows.remove_column("SKY")
    bare.STACKING = rows
    assert np.isnan(quality_table([bare])["sky_level"][0])  # a product of an older version
    del bare.STACKING
    assert np.isnan(quality_table([bare])["fwhm"][0])
    assert len(quality_table([])) == 0
