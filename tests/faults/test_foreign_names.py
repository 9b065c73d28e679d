"""Names of files and targets that other tools write: accents, endings in capitals, numbers."""

from __future__ import annotations

import pytest
from astropy.io import fits

from niripipe import Reduce, astrodata, night
from niripipe.inspection import frame_files

from .. import frames as make


def darks(folder, name, **cards):
    """Three darks with noise, whose names have a number in them."""
    return [
        make.write(
            folder / name.format(k),
            make.noise(k, 3.0, 5.0),
            kind="dark",
            UT=f"08:{k:02d}:00.0",
            DATALAB=f"GN-2016A-Q-1-5-{k:03d}",
            **cards,
        )
        for k in range(1, 4)
    ]


@pytest.mark.parametrize("name", ["n\u00e9buleuse_{}.fits", "M 31 \u4e2d_{}.fits", "\u03b1_{}.fits.gz"])
def test_names_with_any_letters_are_reduced_and_headers_hold_plain_ones(tmp_path, name):
    paths = darks(tmp_path / "raw", name)
    r = Reduce(paths, output_dir=tmp_path / "out")
    r.runr()
    product = astrodata.open(r.output_filenames[0])
    stem = paths[0].name.split(".")[0]
    assert product.filename == f"{stem}_dark.fits"
    inputs = [product.phu[f"IMCMB{k:03d}"] for k in (1, 2, 3)]
    assert all(text.isascii() for text in (*inputs, product.phu["ORIGNAME"]))
    assert len(set(inputs)) == 3


def test_names_that_differ_in_accents_alone_are_two(tmp_path):
    first = darks(tmp_path, "e{}.fits")[:1]
    second = darks(tmp_path, "\u00e9{}.fits")[1:2]
    third = make.write(tmp_path / "\u00e91.fits", make.noise(9, 3.0, 5.0), kind="dark", DATALAB="x-009")
    r = Reduce([*first, *second, third], output_dir=tmp_path / "out")
    r.runr()
    phu = r.outputs[0].phu
    assert len({phu[f"IMCMB{k:03d}"] for k in (1, 2, 3)}) == 3


def test_a_suffix_with_an_accent_is_in_the_name_of_the_file(tmp_path):
    paths = darks(tmp_path, "d{}.fits")
    parameters = {"storeProcessedDark:suffix": "_\u00e9t\u00e9"}
    r = Reduce(paths, output_dir=tmp_path / "out", parameters=parameters)
    r.runr()
    assert r.output_filenames[0].endswith("d1_\u00e9t\u00e9.fits")
    assert r.outputs[0].phu["DATALAB"].isascii()


@pytest.mark.parametrize("ending", [".FITS", ".fit", ".FIT", ".Fits", ".fits.GZ"])
def test_endings_of_any_kind_are_found_and_products_end_in_fits(tmp_path, ending):
    folder = tmp_path / "raw"
    for path in darks(folder, "d{}.fits.gz" if "GZ" in ending else "d{}.fits"):
        path.rename(folder / (path.name.split(".")[0] + ending))
    found = frame_files(folder)
    assert [path.name for path in found] == [f"d{k}{ending}" for k in (1, 2, 3)]
    plan = night.organise(folder, settings=night.NightSettings(only_needed=False))
    r = Reduce(found, output_dir=tmp_path / "out")
    r.runr()
    assert [job.product for job in plan] == ["d1_dark.fits"]
    assert r.output_filenames[0].endswith("d1_dark.fits")


@pytest.mark.parametrize(("value", "name"), [(1068, "1068"), (12.5, "12.5"), (True, None), ("M 82", "M 82")])
def test_a_target_may_be_a_number(tmp_path, value, name):
    path = make.write(tmp_path / "frame.fits", OBJECT=value)
    assert fits.getval(path, "OBJECT") == value
    assert astrodata.open(path).object() == name
