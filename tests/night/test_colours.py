"""Catalogue and picture of a target that a night shows in several filters."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from niripipe import night, simulate

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


def test_colours_are_remade_only_for_new_stacks(coloured):
    plan, result, _ = coloured
    file = result.output_dir / products(result, "_colours.fits")[0]
    before = file.stat().st_mtime_ns
    plan.run(result.output_dir, progress=False)
    assert file.stat().st_mtime_ns == before


def test_what_cannot_be_matched_is_said_and_loses_nothing(coloured, monkeypatch):
    from niripipe.night import colours

    _, result, _ = coloured

    def refuse(*_):
        raise KeyError("no magnitudes here")

    monkeypatch.setattr(colours, "match_catalogues", refuse)
    Path(result.output_dir / products(result, "_colours.fits")[0]).unlink()
    noted = colours.add_colours(result.results, overwrite=True)
    assert [entry.outputs for entry in noted] == [entry.outputs for entry in result]
    assert any("no magnitudes here" in note for entry in noted for note in entry.notes)


def test_one_filter_gives_no_colours(coloured):
    from niripipe.night.colours import add_colours

    _, result, _ = coloured
    science = [entry for entry in result if entry.kind == "science"][:1]
    assert add_colours(science, overwrite=True) == tuple(science)
