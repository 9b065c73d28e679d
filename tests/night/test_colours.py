"""Catalogue and picture of a target that a night shows in several filters."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import WCS

from niripipe import astrodata, night, simulate
from niripipe.night.colours import add_colours

pytest.importorskip("photutils")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    made = simulate.night(
        folder / "raw", seed=17, size=512, scene="sparse", n_stars=30, standards=("FS 17",),
        filters=("J", "H", "K"), n_target=4, n_sky=0, n_standard=3, n_flat=3, n_dark=3, n_short_dark=3,
    )  # fmt: skip
    plan = night.organise(folder / "raw")
    return plan, plan.run(folder / "products", progress=False), made.truth


def products(result, ending):
    return sorted(path.name for path in result.output_dir.glob(f"*{ending}"))


def test_a_night_in_three_filters_makes_a_catalogue_and_a_picture(coloured):
    _, result, _ = coloured
    assert len(products(result, "_colours.fits")) == len(products(result, "_rgb.png")) == 1
    table = QTable.read(result.output_dir / products(result, "_colours.fits")[0])
    assert table["J"].unit == u.mag
    assert table["ra"].unit == u.deg
    notes = [note for entry in result for note in entry.notes]
    assert any("_colours.fits" in note for note in notes)
    assert any("_rgb.png" in note for note in notes)
    assert "_rgb.png" in (result.output_dir / "night.html").read_text()
    # Brighter than 5 sigma in all bands: a colour and no limit; else a limit and no colour.
    for band in "JHK":
        assert np.all(np.isfinite(table[band].value) | np.isfinite(table[f"{band}_limit"].value))
        assert not np.any(np.isfinite(table[band].value) & np.isfinite(table[f"{band}_limit"].value))


def test_the_result_and_the_report_list_the_files(coloured):
    _, result, _ = coloured
    names = [Path(path).name for path in result.colours]
    assert len(names) == 5
    assert all(Path(path).is_file() for path in result.colours)
    page = (result.output_dir / "night.html").read_text()
    assert all(f'href="{name}"' in page for name in names)
    assert "<figcaption>" + names[-1] in page
    # Of the products alone too; the copies on the grid are not products of reductions.
    alone = night.report_html(result.output_dir, result.output_dir / "alone.html").read_text()
    assert "<figcaption>" + names[-1] in alone
    assert alone.count("<article") == page.count("<article")


def test_stacks_on_one_grid_keep_their_light_and_place(coloured):
    _, result, _ = coloured
    common = [astrodata.open(path) for path in result.colours if path.endswith("_common.fits")]
    assert [ad.filter_name(pretty=True) for ad in common] == ["J", "H", "K"]
    first = common[0][0]
    for path, ad in zip(result.products("science"), common, strict=True):
        ext, stack = ad[0], astrodata.open(path)
        assert ext.shape == first.shape == ext.variance.shape == ext.mask.shape
        np.testing.assert_allclose(ext.wcs.wcs.crpix, first.wcs.wcs.crpix)
        np.testing.assert_allclose(ext.wcs.wcs.crval, first.wcs.wcs.crval)
        assert ad.phu["ZPIMAGE"] == stack.phu["ZPIMAGE"]
        assert ext.hdr["NOISCORR"] >= stack[0].hdr["NOISCORR"] - 1e-5
        # Brightest star: the same light, where the grid has it, and where the first filter has it.
        k = int(np.argmax(ext.OBJCAT["FLUX_AUTO"]))
        x, y = (float(ext.OBJCAT[name][k]) - 1 for name in ("XWIN_IMAGE", "YWIN_IMAGE"))
        old_x, old_y = (float(stack[0].OBJCAT[name][k]) - 1 for name in ("XWIN_IMAGE", "YWIN_IMAGE"))
        light = circle(ext.data, x, y)
        assert light == pytest.approx(circle(stack[0].data, old_x, old_y), rel=0.003)
        # The pixels are those of the first: its brightest star is at the same place.
        there = np.stack([ext.OBJCAT["XWIN_IMAGE"] - 1, ext.OBJCAT["YWIN_IMAGE"] - 1], axis=1)
        assert np.hypot(*(there - brightest(first)).T).min() < 0.3
        sky = ext.wcs.all_pix2world(x, y, 0)
        np.testing.assert_allclose(sky[1], ext.OBJCAT["Y_WORLD"][k], atol=0.05 / 3600)


def brightest(ext):
    k = int(np.argmax(ext.OBJCAT["FLUX_AUTO"]))
    return float(ext.OBJCAT["XWIN_IMAGE"][k]) - 1, float(ext.OBJCAT["YWIN_IMAGE"][k]) - 1


def circle(data, x, y):
    rows, columns = np.indices(data.shape)
    return float(data[np.hypot(rows - y, columns - x) < 8].sum())


def test_colours_agree_with_the_truth(coloured):
    """Colours of the stars that were drawn, with the zero points of the night."""
    _, result, truth = coloured
    table = QTable.read(result.output_dir / products(result, "_colours.fits")[0])
    fields = {"J": truth.fields["target"], **{b: truth.fields[f"target  {b}"] for b in "HK"}}
    x, y, _ = fields["J"].table.T
    sky = WCS(naxis=2)
    sky.wcs.ctype, sky.wcs.crpix, sky.wcs.crval = (
        ["RA---TAN", "DEC--TAN"], fields["J"].wcs.crpix, fields["J"].wcs.crval
    )  # fmt: skip
    sky.wcs.cd = np.reshape(fields["J"].wcs.cd, (2, 2))
    drawn = SkyCoord(*sky.all_pix2world(x, y, 0), unit="deg")
    nearest, distance, _ = SkyCoord(table["ra"], table["dec"]).match_to_catalog_sky(drawn)
    alone = drawn.match_to_catalog_sky(drawn, nthneighbor=2)[1].arcsec[nearest] > 3
    known = (distance.arcsec < 1) & alone
    for first, second in (("J", "H"), ("H", "K"), ("J", "K")):
        colour, error = (table[f"{first}_{second}{kind}"].value for kind in ("", "_error"))
        true = -2.5 * np.log10(fields[first].table[:, 2] / fields[second].table[:, 2])
        true += truth.photometry["zero_points"][first] - truth.photometry["zero_points"][second]
        bright = known & (error < 0.03) & (table[f"{first}_flags"] == 0)
        off = (colour - true[nearest])[bright]
        assert bright.sum() >= 6
        assert abs(np.average(off, weights=error[bright] ** -2)) < 0.01
        assert np.std(off / error[bright]) < 2


def test_colours_are_remade_only_for_new_stacks(coloured):
    plan, result, _ = coloured
    file = result.output_dir / products(result, "_colours.fits")[0]
    before = file.stat().st_mtime_ns
    again = plan.run(result.output_dir, progress=False)
    assert file.stat().st_mtime_ns == before
    assert again.colours == result.colours
    assert sum("kept from an earlier run" in note for entry in again for note in entry.notes) == 3
    # A stack that is newer than the catalogue, even by a moment.
    os.utime(again.products("science")[0], ns=(before + 10**9, before + 10**9))
    add_colours(again.results)
    assert file.stat().st_mtime_ns > before


def test_what_cannot_be_matched_is_said_and_loses_nothing(coloured, monkeypatch):
    from niripipe.night import colours

    _, result, _ = coloured

    def refuse(*_):
        raise KeyError("no magnitudes here")

    monkeypatch.setattr(colours, "match_catalogues", refuse)
    Path(result.output_dir / products(result, "_colours.fits")[0]).unlink()
    noted = colours.add_colours(result.results)
    assert [entry.outputs for entry in noted] == [entry.outputs for entry in result]
    assert any("no magnitudes here" in note for entry in noted for note in entry.notes)


def test_a_filter_without_a_zero_point_is_only_on_the_grid(coloured, tmp_path):
    _, result, _ = coloured
    noted = add_colours(copies(result, tmp_path, K=without_zero_point, J=clouded))
    names = [Path(path).name for path in noted[0].colours]
    assert sum("_common" in name for name in names) == 3
    assert not any("_rgb" in name for name in names)
    table = QTable.read(noted[0].colours[-1])
    assert "J_H" in table.colnames
    assert "K" not in table.colnames
    assert any("no zero point in K" in note for note in noted[0].notes)
    assert any("transparency in J" in note for note in noted[0].notes)


def test_fields_aside_and_other_cameras_are_said(coloured, tmp_path, caplog):
    _, result, _ = coloured
    noted = add_colours(copies(result, tmp_path, K=aside, J=other_camera))
    assert not any(entry.colours for entry in noted)
    notes = {entry.name[-1]: " ".join(entry.notes) for entry in noted}
    assert "the cameras are" in notes["J"]
    assert "overlap little" in notes["K"] or "the cameras are" in notes["K"]
    assert "no colours with" in caplog.text


def copies(result, folder, **changes):
    """Return the science results with copies of their stacks, changed by filter."""
    entries = []
    for entry in result:
        if entry.kind != "science":
            continue
        stack = astrodata.open(entry.outputs[0])
        changes.get(stack.filter_name(pretty=True), lambda _: None)(stack)
        path = folder / Path(entry.outputs[0]).name
        stack.write(path)
        entries.append(replace(entry, outputs=(str(path),), notes=(), colours=()))
    return entries


def without_zero_point(stack):
    for key in [key for key in stack.phu if key.startswith("ZP")]:
        del stack.phu[key]


def clouded(stack):
    table = stack.STACKING
    table["FLUX"][0] = 0.7
    stack.STACKING = table


def aside(stack):
    mapping = stack[0].wcs.deepcopy()
    mapping.wcs.crval += [0.0, 0.9 * 512 * 0.117 / 3600]
    stack[0].wcs = mapping


def other_camera(stack):
    stack.phu["CAMERA"] = "f14_G5208"


def test_no_colours_on_request(coloured):
    plan, result, _ = coloured
    assert plan.run(result.output_dir, progress=False, colours=False).colours == []


def test_one_filter_gives_no_colours(coloured):
    _, result, _ = coloured
    science = [entry for entry in result if entry.kind == "science"][:1]
    assert add_colours(science) == tuple(science)
