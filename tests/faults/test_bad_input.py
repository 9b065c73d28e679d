"""Bad input: each is an error of our tree that names file, value and remedy, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niripipe import Reduce, astrodata, dataselect, night
from niripipe.cal_service import CalibrationService
from niripipe.errors import CalibrationError, NiripipeError

from .. import frames as make

Case = Callable[[Path, list[Path], list[Path]], tuple[Reduce, tuple[str, ...]]]


def _missing(folder, darks, science):
    return Reduce([*darks, folder / "N20160102S0099.fits"]), ("N20160102S0099.fits",)


def _empty(folder, darks, science):
    (folder / "N20160102S0098.fits").touch()
    return Reduce([*darks, folder / "N20160102S0098.fits"]), ("N20160102S0098.fits", "empty")


def _truncated(folder, darks, science):
    darks[1].write_bytes(darks[1].read_bytes()[:-3000])
    return Reduce(darks), (darks[1].name,)


def _cut_in_the_header(folder, darks, science):
    darks[1].write_bytes(darks[1].read_bytes()[:1000])
    return Reduce(darks), (darks[1].name,)


def _text_file(folder, darks, science):
    darks[1].write_text("Error 404: not found\n" * 500)
    return Reduce(darks), (darks[1].name,)


def _folder(folder, darks, science):
    return Reduce([*darks, folder]), (folder.name,)


def _damaged_bzip2(folder, darks, science):
    path = folder / "N20160102S0097.fits.bz2"
    path.write_bytes(b"BZh91AY&SY" + b"\x00" * 4000)
    return Reduce([*darks, path]), (path.name,)


def _other_instrument(folder, darks, science):
    path = make.write(folder / "N20160102S0050.fits", INSTRUME="GMOS-N")
    return Reduce([*science, path]), (path.name, "GMOS-N")


def _other_telescope(folder, darks, science):
    path = make.write(folder / "hst.fits", INSTRUME="WFC3", TELESCOP="HST", OBSERVAT=None)
    return Reduce([path]), ("hst.fits", "WFC3")


def _spectrum(folder, darks, science):
    path = make.write(folder / "N20160102S0051.fits", FILTER3="Hgrism_G5203")
    return Reduce([path]), (path.name, "spectrum")


def _mixed_filters(folder, darks, science):
    path = make.write(folder / "N20160102S0052.fits", FILTER2="J_G0202")
    return Reduce([*science, path]), ("filter", "J", "H", path.name)


def _mixed_exposures(folder, darks, science):
    path = make.write(folder / "N20160102S0053.fits", kind="dark", EXPTIME=1.0)
    return Reduce([*darks, path]), ("exposure time", "20.0", "1.0", path.name)


def _mixed_kinds(folder, darks, science):
    return Reduce([*darks, *science]), (science[0].stem, "dark")


def _unknown_recipe(folder, darks, science):
    return Reduce(darks, recipe="makeProcesedDark"), ("makeProcesedDark", "Did you mean 'makeProcessedDark'")


def _missing_recipe_file(folder, darks, science):
    return Reduce(darks, recipe="absent.recipe"), ("absent.py",)


def _unknown_primitive(folder, darks, science):
    return Reduce(darks, parameters={"stackDark:operation": "mean"}), ("stackDark", "'stackDarks'")


def _unknown_parameter(folder, darks, science):
    return Reduce(darks, parameters={"stackDarks:opertion": "mean"}), ("opertion", "'operation'")


def _bad_value(folder, darks, science):
    return Reduce(darks, parameters={"stackDarks:operation": "mode"}), ("'mode'", "'mean'")


def _bad_number(folder, darks, science):
    return Reduce(darks, parameters={"stackDarks:hsigma": -3}), ("hsigma", "-3")


def _unknown_caltype(folder, darks, science):
    return Reduce(science, calibrations={"processed_drak": darks[0]}), ("processed_drak", "processed_dark")


def _missing_user_calibration(folder, darks, science):
    return Reduce(science, calibrations={"processed_dark": "no_dark.fits"}), ("no_dark.fits",)


def _raw_frame_as_calibration(folder, darks, science):
    return Reduce(science, calibrations={"processed_dark": darks[0]}), (darks[0].name, "PROCESSED")


def _no_calibration(folder, darks, science):
    return Reduce(science), ("processed_dark", "processed_flat", science[0].name, "do_cal")


def _missing_mask(folder, darks, science):
    given = {"addDQ:user_bpm": "no_bpm.fits", "do_cal": "skip"}
    return Reduce(science, parameters=given), ("no_bpm.fits",)


def _nothing(folder, darks, science):
    return Reduce([]), ("no files",)


def _empty_list(folder, darks, science):
    (folder / "all.lis").write_text("# nothing\n")
    return Reduce(f"@{folder / 'all.lis'}"), ("all.lis", "empty")


def _unknown_mode(folder, darks, science):
    return Reduce(darks, mode="quick"), ("quick", "sq, ql, qa")


def _twice(folder, darks, science):
    return Reduce([*darks, darks[0]]), (darks[0].name, "more than once")


def _already_processed(folder, darks, science):
    r = Reduce(darks, output_dir=folder)
    r.runr()
    return Reduce(r.output_filenames), ("PROCESSED",)


CASES: list[Any] = [
    pytest.param(case, id=case.__name__.strip("_").replace("_", " "))
    for case in (
        _missing,
        _empty,
        _truncated,
        _cut_in_the_header,
        _text_file,
        _folder,
        _damaged_bzip2,
        _other_instrument,
        _other_telescope,
        _spectrum,
        _mixed_filters,
        _mixed_exposures,
        _mixed_kinds,
        _unknown_recipe,
        _missing_recipe_file,
        _unknown_primitive,
        _unknown_parameter,
        _bad_value,
        _bad_number,
        _unknown_caltype,
        _missing_user_calibration,
        _raw_frame_as_calibration,
        _no_calibration,
        _missing_mask,
        _nothing,
        _empty_list,
        _unknown_mode,
        _twice,
        _already_processed,
    )
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_with_name_and_value_and_nothing_is_written(
    case: Case, darks, science, out, tmp_path
):
    r, parts = case(tmp_path, darks, science)
    r.output_dir = out
    with pytest.raises(NiripipeError) as caught:
        r.runr()
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert not out.exists() or list(out.iterdir()) == []
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_one_unreadable_science_frame_is_dropped_by_name_and_the_rest_is_reduced(science, out, damage):
    path = science[1]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"empty": b"", "truncated": path.read_bytes()[:-9000], "text": b"<html>" * 999}[damage]
        )
    r = Reduce(science, recipe="prepare", output_dir=out)
    r.runr()
    assert [d.name for d in r.report.dropped] == [path.name]
    assert r.report.dropped[0].reason
    assert path.name in str(r.report)
    assert len(r.outputs) == 2


def test_a_missing_calibration_says_which_candidates_there_were_and_what_each_failed(science, out, tmp_path):
    caldb = CalibrationService()
    caldb.config(db_dir=tmp_path / "store.db")
    caldb.init()
    # Two coadds of 10 s are not one of 20 s.
    for first, cards in ((20, {"EXPTIME": 10.0, "COADDS": 2}), (40, {"EXPTIME": 5.0})):
        darks = make.sequence(tmp_path / "raw", [1.0, 2.0, 3.0], kind="dark", first=first, **cards)
        r = Reduce(darks, output_dir=tmp_path / "cal")
        r.runr()
        caldb.add_cal(r.output_filenames[0])
    with pytest.raises(CalibrationError) as caught:
        Reduce(science, calibrations=caldb, output_dir=out, parameters={"flatCorrect:do_cal": "skip"}).runr()
    message = str(caught.value)
    assert "N20160102S0020_dark.fits" in message
    assert "N20160102S0040_dark.fits" in message
    assert "coadds" in message
    assert "exposure" in message
    assert len(caught.value.candidates) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    "expression",
    ["exposure_time=", "exposure_tme==20", "__import__('os')", "exposure_time==20 and", "object=='x"],
)
def test_a_bad_selection_is_refused_with_the_expression(darks, expression):
    with pytest.raises(NiripipeError) as caught:
        dataselect.select_data([str(p) for p in darks], ["DARK"], [], dataselect.expr_parser(expression))
    assert caught.value.args


@pytest.mark.parametrize(
    ("cards", "named"),
    [
        ({"EXPTIME": None}, "EXPTIME"),
        ({"EXPTIME": "long"}, "EXPTIME"),
        ({"EXPTIME": -5.0}, "EXPTIME"),
    ],
)
@pytest.mark.parametrize("kind", ["dark", "science"])
def test_a_header_that_cannot_be_reduced_is_named(tmp_path, out, cards, named, kind):
    paths = make.sequence(tmp_path / "odd", [1.0, 2.0], kind=kind, **cards)
    with pytest.raises(NiripipeError, match=named):
        Reduce(paths, output_dir=out, parameters={"do_cal": "skip"}).runr()
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    "keyword", ["COADDS", "LNRS", "A_VDET", "UT", "AIRMASS", "CAMERA", "INPORT", "POFFSET", "PA"]
)
@pytest.mark.parametrize("value", [None, "UNKNOWN"])
def test_a_header_without_a_keyword_is_no_crash(tmp_path, out, keyword, value):
    cards = {keyword: value} | ({"DATE_OBS": None} if keyword == "UT" else {})
    paths = make.sequence(tmp_path / "odd", [100.0, 110.0, 120.0, 130.0], **cards)
    r = Reduce(paths, output_dir=out, mode="ql")
    error = None
    try:
        r.runr()
    except NiripipeError as caught:
        error = caught
    # Either the frames can be reduced without it, or the error names a frame and nothing was written.
    if error is None:
        assert len(r.output_filenames) == 1
    else:
        assert "N20160102S" in str(error)
        assert not out.exists() or list(out.iterdir()) == []


def test_frames_full_of_nothing_are_an_error_and_not_a_product(tmp_path, out):
    paths = make.sequence(tmp_path / "odd", [np.nan, np.nan, np.nan], QOFFSET=0.0)
    with pytest.raises(NiripipeError):
        Reduce(paths, output_dir=out, mode="ql").runr()
    assert list(out.iterdir()) == []


def test_astrodata_says_what_is_wrong_with_a_path(tmp_path):
    with pytest.raises(NiripipeError, match=r"gone\.fits"):
        astrodata.open(tmp_path / "gone.fits")


IMPOSSIBLE = {"null": "a\0b", "long": "n" * 300, "nobody": "~nobody-at-all/x"}


@pytest.mark.parametrize("name", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_path_that_cannot_be_is_refused_wherever_it_is_given(name, darks, science, tmp_path):
    skip = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
    reductions = [
        lambda: Reduce([name]),
        lambda: Reduce(f"@{name}"),
        lambda: Reduce(darks, output_dir=name),
        lambda: Reduce(science, calibrations={"processed_dark": name}),
        lambda: Reduce(science, parameters=skip | {"addDQ:user_bpm": name}),
        lambda: Reduce(darks, recipe=f"{name}.recipe"),
    ]
    for r in reductions:
        with pytest.raises(NiripipeError):
            r().runr()
    service = CalibrationService()
    for call in (
        lambda: astrodata.open(name),
        lambda: astrodata.open(darks[0]).write(name),
        lambda: dataselect.select_data([name], [], []),
        lambda: night.organise(name),
        lambda: service.config(db_dir=name),
        lambda: service.add_cal(name),
    ):
        with pytest.raises(NiripipeError):
            call()
    assert astrodata.file_md5(name) == ""
    assert list(Path.cwd().iterdir()) == []
