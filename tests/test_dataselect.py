from __future__ import annotations

import ast
import operator
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.dataselect import Expression, expr_parser, frames, select_data
from niripipe.errors import InputError, ParameterError
from niripipe.instruments import known_tags
from niripipe.instruments.known_tags import KNOWN_TAGS

CARDS: dict[str, Any] = {
    "INSTRUME": "NIRI",
    "TELESCOP": "Gemini-North",
    "OBJECT": "FS 17",
    "OBSTYPE": "OBJECT",
    "OBSCLASS": "partnerCal",
    "DATE-OBS": "2016-01-02",
    "UT": "08:00:12.3",
    "LT": "22:00:12.3",
    "CAMERA": "f6",
    "FILTER1": "open",
    "FILTER2": "K_G0204",
    "FILTER3": "Pupil38_G5207",
    "FPMASK": "f6-cam_G5208",
    "EXPTIME": 20.002,
    "COADDS": 1,
    "LNRS": 1,
    "NDAVGS": 16,
    "A_VDDUC": -3.49,
    "A_VDET": -2.89,
    "AIRMASS": 1.3,
    "AOFOLD": "park-pos.",
}


def header(**changes: Any) -> fits.Header:
    made = fits.Header()
    for keyword, value in (CARDS | changes).items():
        if value is not None:
            made[keyword] = value
    return made


def frame(extensions: int = 1, **changes: Any) -> astrodata.AstroData:
    window = fits.Header([("LOWROW", 0), ("HIROW", 15), ("LOWCOL", 0), ("HICOL", 15)])
    hdus = [fits.ImageHDU(np.zeros((16, 16), np.float32), window) for _ in range(extensions)]
    return astrodata.create(header(**changes), hdus)


def save(path: Path, **changes: Any) -> str:
    image = fits.ImageHDU(np.zeros((16, 16), np.float32))
    fits.HDUList([fits.PrimaryHDU(header=header(**changes)), image]).writeto(path, overwrite=True)
    return str(path)


@pytest.fixture
def night(tmp_path: Path) -> dict[str, str]:
    return {
        "dark20": save(tmp_path / "a.fits", OBJECT="Dark", OBSTYPE="DARK", FILTER2="blank"),
        "dark1": save(tmp_path / "b.fits", OBJECT="Dark", OBSTYPE="DARK", FILTER2="blank", EXPTIME=1.001),
        "flat": save(
            tmp_path / "c.fits", OBJECT="GCALflat", OBSTYPE="FLAT", GCALLAMP="IRhigh", GCALSHUT="OPEN"
        ),
        "standard": save(tmp_path / "d.fits"),
        "target": save(tmp_path / "e.fits", OBJECT="SN2014J", OBSCLASS="science", FILTER2="H_G0203"),
    }


# ---- what expressions mean


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        # close enough
        ("exposure_time==20", True),
        ("exposure_time == 20", True),
        ("exposure_time==20.2", True),
        ("exposure_time==20.21", False),
        ("(exposure_time==20)", True),
        ("((exposure_time == 20))", True),
        ("exposure_time!=20", False),
        ("not exposure_time==20", False),
        ("not (exposure_time != 20)", True),
        ("exposure_time in [1, 20]", True),
        ("exposure_time not in (1, 20)", False),
        ("exposure_time in [1, 2]", False),
        ("20 == exposure_time", True),
        ("exposure_time==2e1", True),
        ("exposure_time == +20.", True),
        ("exposure_time == -20", False),
        ("exposure_time_per_coadd == 20", True),
        ("effective_wavelength == 2.2e-6", True),
        ("effective_wavelength == 2.20001e-6", True),
        ("effective_wavelength == 2.201e-6", False),
        # text
        ('object=="FS 17"', True),
        ("object != 'FS 17'", False),
        ('object=="FS 17" and exposure_time==10', False),
        ('(observation_class=="partnerCal" and exposure_time==20.)', True),
        (r'object == "FS \"17\""', False),
        ('object > "FA" and object < "FZ"', True),
        # names with and without identifiers
        ('filter_name=="K"', True),
        ('filter_name == "K_G0204"', True),
        ('filter_name in ["K","H"]', True),
        ('filter_name in ("K", )', True),
        ('filter_name not in ["J", "H"]', True),
        ('filter_name!="K"', False),
        ('filter_name!="H"', True),
        ('focal_plane_mask == "f6-cam"', True),
        ('pupil_mask == "Pupil38"', True),
        ('disperser == "MIRROR"', True),
        # dates
        ('ut_date>="2016-01-02" and ut_date<="2016-01-03"', True),
        ("(ut_date=='2016-01-02')", True),
        ('"2016-01-01" < ut_date', True),
        ('ut_datetime>="2016-01-02 07:00:00"', True),
        ('ut_datetime>="2016-01-02T07:00:00"', True),
        ('ut_datetime<"2016-01-02T08:00:12.30"', False),
        ('ut_datetime == "2016-01-02T08:00:12.3"', True),
        ('ut_datetime == "2016-01-02"', True),
        ('ut_datetime != "2016-01-02"', False),
        ('ut_datetime <= "2016-01-02"', True),
        ('ut_datetime > "2016-01-02"', False),
        ('ut_datetime in ["2016-01-01", "2016-01-02"]', True),
        ('ut_time > "07:59" and local_time < "22:00:13"', True),
        # None
        ("gcal_lamp is None", True),
        ("gcal_lamp is not None", False),
        ("gcal_lamp == None", True),
        ("gcal_lamp != None", False),
        ("None == gcal_lamp", True),
        ('gcal_lamp in [None, "Off"]', True),
        ('gcal_lamp not in ["IRhigh"]', False),
        ('gcal_lamp not in ["IRhigh", None]', False),
        ("elevation>30", False),
        ("elevation<=30", False),
        ("elevation==30", False),
        ("elevation!=30", False),
        ("not elevation > 30", True),
        ("central_wavelength==2.2e-6", False),
        # logic
        ("coadds==2 or coadds==1 and airmass<1.2", False),
        ("(coadds==2 or coadds==1) and airmass<1.5", True),
        ("not coadds==2 and not airmass>2", True),
        ("not not is_ao", False),
        ("not is_ao", True),
        ("is_ao == False", True),
        ("is_ao is False", True),
        ("1 < airmass <= 1.3", True),
        ("1.3 < airmass < 2", False),
        ("1.3 <= airmass < 2", True),
        ("2 > airmass >= 1.3", True),
        ("2 > airmass > 1.3", False),
        ("1.3 >= airmass", True),
        ("1.3 > airmass", False),
        ("coadds <= coadds", True),
        ("exposure_time == exposure_time_per_coadd", True),
        ("elevation == azimuth", False),
        ("True", True),
        ("False or (True)", True),
        ("1 < 2", True),
        ("2 in [1, 2]", True),
        # tags and spellings
        ('"IMAGE" in tags', True),
        ('"IMAGE" in ad.tags', True),
        ('"FLAT" not in tags', True),
        ("ad.exposure_time() == 20", True),
        ("exposure_time() == 20", True),
        # a value an extension
        ("gain == 12.3", True),
        ('data_section == "[1:16,1:16]"', True),
        ("data_section == [0, 16, 0, 16]", True),
        ("\n exposure_time ==\t20\n", True),
    ],
)
def test_an_expression_means_what_it_says(text: str, truth: bool) -> None:
    assert expr_parser(text)(frame()) is truth


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("exposure_time==20", False),
        ("exposure_time==20.002", True),
        ("(exposure_time != 20)", True),
        ('filter_name=="K"', False),
        ('filter_name=="K_G0204"', True),
        ("effective_wavelength == 2.20001e-6", False),
    ],
)
def test_strictness_compares_exactly(text: str, truth: bool) -> None:
    assert expr_parser(text, strict=True)(frame()) is truth


def test_the_tolerance_of_exposure_times_can_be_chosen() -> None:
    ad = frame(EXPTIME=20.19)
    assert expr_parser("exposure_time == 20")(ad)
    assert not expr_parser("exposure_time == 20", exposure_tolerance=0.001)(ad)


@example(100.0, 1.01005)  # inside 1 per cent of the larger, outside that of the smaller
@given(st.floats(0.001, 1e4), st.floats(0.98, 1.02))
def test_closeness_is_symmetric_and_relative_to_the_larger(exposure: float, ratio: float) -> None:
    other = exposure * ratio
    close = abs(exposure - other) <= 0.01 * max(exposure, other)
    forward = expr_parser(f"exposure_time == {other!r}")._evaluate(lambda *_: exposure, None)
    backward = expr_parser(f"exposure_time == {exposure!r}")._evaluate(lambda *_: other, None)
    opposite = expr_parser(f"exposure_time != {other!r}")._evaluate(lambda *_: exposure, None)
    assert forward is backward is close
    assert opposite is not close


@given(
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.sampled_from(
        [
            ("<", operator.lt),
            ("<=", operator.le),
            (">", operator.gt),
            (">=", operator.ge),
            ("==", operator.eq),
        ]
    ),
)
def test_numbers_compare_like_numbers(
    value: float, bound: float, op: tuple[str, Callable[[Any, Any], bool]]
) -> None:
    assert expr_parser(f"azimuth {op[0]} {bound!r}")._evaluate(lambda *_: value, None) is op[1](value, bound)


def test_all_extensions_must_fulfil_a_comparison() -> None:
    ad = frame(extensions=2, PREPARE="now")
    ad[0].hdr["GAIN"], ad[1].hdr["GAIN"] = 1.0, 2.0
    assert not expr_parser("gain == 1")(ad)
    assert expr_parser("gain < 3")(ad)
    assert expr_parser("gain == 2")(ad[1])


def test_a_file_of_another_instrument_has_no_value() -> None:
    ad = astrodata.create({"OBJECT": "FS 17"})
    assert expr_parser('object == "FS 17" and read_mode is None')(ad)


# ---- the object


def test_an_expression_is_immutable_comparable_and_picklable() -> None:
    parsed = expr_parser("airmass < 2", strict=True)
    assert parsed == expr_parser("airmass < 2", strict=True)
    assert parsed != expr_parser("airmass < 2")
    assert len({parsed, expr_parser("airmass < 2", strict=True)}) == 1
    assert pickle.loads(pickle.dumps(parsed)) == parsed  # noqa: S301
    with pytest.raises(AttributeError, match="cannot assign to field 'text'"):
        parsed.text = "airmass > 2"
    with pytest.raises(AttributeError, match="cannot delete field 'text'"):
        del parsed.text


def test_an_expression_shows_itself() -> None:
    parsed = expr_parser("airmass < 2 or coadds == 1", strict=True, exposure_tolerance=0.1)
    assert str(parsed) == "airmass < 2 or coadds == 1"
    assert repr(parsed) == "Expression('airmass < 2 or coadds == 1', strict=True, exposure_tolerance=0.1)"
    assert parsed.names == {"airmass", "coadds"}


def test_a_parsed_expression_can_be_parsed_again() -> None:
    assert expr_parser(expr_parser("airmass < 2"), strict=True) == Expression("airmass < 2", strict=True)


# ---- what is not in the language


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", 0, "empty"),
        ("exposure_time=20", 13, "=="),
        ("exposure_time==20s", 15, "no unit"),
        ("exposure_time==20 exposure_time==1", 18, "does not end"),
        ("exposure_time==", 15, "missing"),
        ("exposure_time==20 and", 21, "missing"),
        ("(exposure_time==20", 18, "not closed"),
        ("exposure_time==20)", 17, "does not end"),
        ("exposure_time in [1, 2", 22, "not closed"),
        ('object=="FS 17', 8, "not closed"),
        ("object==FS", 8, "quotes"),
        ('filter_nam=="K"', 0, "filter_name"),
        ("airmass.real > 1", 0, "no descriptor"),
        ("ad.phu == 1", 0, "no descriptor"),
        ('__import__("os")', 0, "no descriptor"),
        ("exposure_time(2) == 3", 13, "not end"),
        ("airmass > 1; airmass", 11, "means nothing"),
        ("20", 0, "not a condition"),
        ("tags", 0, "not a condition"),
        ('tags == "FLAT"', 5, "in tags"),
        ("(airmass > 1) == True", 17, "condition"),
        ("[airmass] == 1", 0, "constants"),
        ('filter_name in "K"', 15, "list"),
        ("airmass is 2", 8, "=="),
        ("airmass < None", 10, "order"),
        ("airmass < [1]", 10, "order"),
        ('ut_datetime > "yesterday"', 14, "YYYY-MM-DD"),
        ('ut_date > "2016-01-02T07:00:00"', 10, "ut_datetime"),
        ('ut_date == "2016-02-30"', 11, "YYYY-MM-DD"),
        ('ut_time == "25:00:00"', 11, "HH:MM:SS"),
        ("ut_date > 20160102", 10, "YYYY-MM-DD"),
    ],
)
def test_bad_syntax_is_pointed_at(text: str, place: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        expr_parser(text)
    message = str(caught.value)
    assert words in message
    assert f"(character {place + 1} of" in message
    assert message.splitlines()[2].index("^") == 4 + place


def test_unknown_descriptors_are_named_with_their_neighbours() -> None:
    with pytest.raises(InputError, match="perhaps exposure_time"):
        expr_parser("exposure_tim == 20")


@pytest.mark.parametrize(
    "text",
    ['exposure_time == "20"', "object == 17", 'airmass > "1"', "is_ao > False", 'is_ao == "yes"', "object"],
)
def test_comparisons_without_meaning_are_errors_not_silence(text: str) -> None:
    ad = frame()
    ad.filename = "N20160102S0001.fits"
    try:
        parsed = expr_parser(text)
    except InputError:
        return
    with pytest.raises(InputError, match="does not fit the data") as caught:
        parsed(ad)
    assert caught.value.file == "N20160102S0001.fits"


@pytest.mark.parametrize("text", [None, 20, b"airmass > 1", ["airmass > 1"]])
def test_an_expression_must_be_text(text: Any) -> None:
    with pytest.raises(InputError, match="must be text"):
        expr_parser(text)


@pytest.mark.parametrize("tolerance", [-1.0, 2.0, "1 %", None, float("nan")])
def test_the_tolerance_must_make_sense(tolerance: Any) -> None:
    with pytest.raises(ParameterError, match="tolerance"):
        expr_parser("exposure_time == 20", exposure_tolerance=tolerance)


PIECES = st.sampled_from(
    [
        "exposure_time", "object", "ut_date", "tags", "ad.", "==", "!=", "<", "<=", "=", "in", "not",
        "and", "or",
        "is", "None", "True", "(", ")", "()", "[", "]", ",", "20", "-1.5e3", '"K"', "'2016-01-02'", '"',
        "'", "\0",
    ]
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join)))
def test_any_text_is_an_expression_or_an_input_error(text: str) -> None:
    try:
        parsed = expr_parser(text)
    except InputError:
        return
    assert expr_parser(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "[" * 100_000,
        "not " * 100_000,
        "(" * 200 + "airmass > 1" + ")" * 200,
        "x" * 1_000_000,
        '"' + "\\" * 1_000_001,
        "airmass == " + "[" * 60 + "]" * 60,
    ],
)
def test_deep_and_long_nonsense_ends_quickly_in_an_input_error(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        expr_parser(text)
    assert time.perf_counter() - start < 5.0
    assert len(str(caught.value)) < 1000


def test_long_sense_is_fine() -> None:
    ad = frame()
    assert expr_parser(" or ".join(["exposure_time == 1"] * 5000 + ["coadds == 1"]))(ad)
    assert expr_parser(f"coadds in [{','.join(map(str, range(20_000)))}]")(ad)
    assert not expr_parser("exposure_time == " + "9" * 10_000)(ad)
    assert expr_parser("(" * 49 + "coadds == 1" + ")" * 49)(ad)


def test_nesting_works_deep_in_the_stack() -> None:
    def descend(levels: int) -> bool:
        if levels:
            return descend(levels - 1)
        return expr_parser("not (" * 24 + "coadds == 1" + ")" * 24)(frame())

    assert descend(sys.getrecursionlimit() // 3)


# ---- selecting


def test_the_selections_of_the_tutorial(night: dict[str, str]) -> None:
    files = list(night.values())
    assert select_data(files, ["DARK"], [], expr_parser("exposure_time==20")) == [night["dark20"]]
    assert select_data(files, ["DARK"], [], expr_parser("exposure_time==1")) == [night["dark1"]]
    assert select_data(files, ["FLAT"]) == [night["flat"]]
    assert select_data(files, [], [], expr_parser('object=="FS 17"')) == [night["standard"]]
    assert select_data(files, ["IMAGE"], ["FLAT"], expr_parser('object!="FS 17"')) == [night["target"]]


def test_inputs_come_back_as_they_were_given(night: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(night["flat"]).parent)
    ad = astrodata.open(night["flat"])
    inputs: list[Any] = ["c.fits", Path("c.fits"), ad, "./c.fits"]
    selected = select_data(inputs, ["FLAT"])
    assert all(found is given for found, given in zip(selected, inputs, strict=True))


def test_nothing_asked_selects_everything(night: dict[str, str]) -> None:
    files = list(night.values())
    assert select_data(files) == select_data(files, expression="True") == select_data(iter(files)) == files
    assert select_data([]) == []


def test_expressions_may_be_text_and_tags_a_single_string(night: dict[str, str]) -> None:
    files = list(night.values())
    assert select_data(files, "DARK", expression="exposure_time == 1") == [night["dark1"]]
    assert night["flat"] not in select_data(files, xtags="FLAT")


def test_the_settings_of_a_parsed_expression_hold_in_a_selection(night: dict[str, str]) -> None:
    files = list(night.values())
    assert select_data(files, "DARK", expression=expr_parser("exposure_time == 1", strict=True)) == []
    loose = expr_parser("exposure_time == 2", exposure_tolerance=0.5)
    assert select_data(files, "DARK", expression=loose) == [night["dark1"]]


def test_expressions_are_only_evaluated_behind_the_tags(night: dict[str, str]) -> None:
    files = list(night.values())
    assert select_data(files, ["SPECT"], [], expr_parser("object == 17")) == []
    with pytest.raises(InputError, match="5 of 5 files"):
        select_data(files, [], [], expr_parser("object == 17"))


def bad_files(folder: Path) -> list[str]:
    empty, text, missing = folder / "empty.fits", folder / "text.fits", folder / "missing.fits"
    empty.touch()
    text.write_text("not FITS" * 1000)
    return [str(empty), str(text), str(missing)]


def test_bad_files_do_not_empty_a_selection(
    night: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = bad_files(tmp_path)
    good = select_data(list(night.values()), ["DARK"])
    assert select_data([*bad[:2], *night.values(), bad[2]], ["DARK"]) == good
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text.split(" is left out")[0] for text in said] == bad


def test_all_bad_files_are_named_at_once_on_request(night: dict[str, str], tmp_path: Path) -> None:
    bad = bad_files(tmp_path)
    with pytest.raises(InputError) as caught:
        select_data([*night.values(), *bad], ["DARK"], on_error="raise")
    message = str(caught.value)
    assert "3 of 8 files" in message
    assert all(path in message for path in bad)
    assert not any(f"{name}.fits" in message for name in "abcd")
    with pytest.raises(InputError, match="3 of 3 files"):
        select_data(bad)
    with pytest.raises(ParameterError, match="on_error"):
        select_data(bad, on_error="ignore")  # type: ignore[arg-type]


def test_one_bad_file_is_explained(tmp_path: Path) -> None:
    missing = tmp_path / "missing.fits"
    with pytest.raises(InputError, match="cannot be found") as caught:
        select_data([missing])
    assert caught.value.file == str(missing)


@pytest.mark.parametrize(
    ("tag", "near"),
    [("FLATT", "'FLAT'"), ("dark", "'DARK'"), ("LAMP_ON", "'LAMPON'"), ("OBJECT", "SIDEREAL")],
)
def test_a_mistyped_tag_is_an_error_with_its_neighbours(
    night: dict[str, str], tag: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests define classes with tags of their own, beside which any tag may exist.
    monkeypatch.setattr(known_tags, "_has_foreign_tags", lambda cls: False)
    files = list(night.values())
    for choice in ({"tags": [tag]}, {"xtags": tag}):
        with pytest.raises(InputError, match=f"no tag '{tag}'") as caught:
            select_data(files, **choice)  # type: ignore[arg-type]
        assert near in str(caught.value)
    with pytest.raises(InputError, match=f"no tag '{tag}'") as caught:
        expr_parser(f'exposure_time > 1 and "{tag}" in tags')
    assert near.strip("'") in str(caught.value)


def test_tags_of_other_instruments_may_be_named(night: dict[str, str]) -> None:
    assert select_data(list(night.values()), ["GMOS"]) == []
    assert len(select_data(list(night.values()), xtags=["GMOS", "BIAS"])) == 5


def test_every_tag_of_the_library_is_known() -> None:
    added = set()
    for name in ("gemini_tags", "niri"):
        source = Path(import_module(f"niripipe.instruments.{name}").__file__ or "").read_text()
        for call in ast.walk(ast.parse(source)):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "TagSet" and call.args:
                found = [c.value for c in ast.walk(call.args[0]) if isinstance(c, ast.Constant)]
                added |= {tag for tag in found if isinstance(tag, str)}
    assert {"GEMINI", "NIRI", "DARK", "TWILIGHT"} < added - {"AIRMASS"} <= KNOWN_TAGS


@pytest.mark.parametrize("inputs", ["*.fits", Path("a.fits"), None, 3, [3], [None]])
def test_inputs_must_be_a_list_of_paths(inputs: Any) -> None:
    with pytest.raises(InputError):
        select_data(inputs)


@pytest.mark.parametrize("expression", [20, ["airmass > 1"]])
def test_an_expression_for_a_selection_must_be_one(expression: Any) -> None:
    with pytest.raises(InputError, match="must be text"):
        select_data([], expression=expression)


@pytest.mark.parametrize("tags", [[1], 1, [None]])
def test_tags_must_be_texts(tags: Any) -> None:
    with pytest.raises(InputError, match="Tags must be texts"):
        select_data([], tags)


# ---- speed


def test_a_header_is_read_once(night: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = astrodata.open
    monkeypatch.setattr(astrodata, "open", lambda path: opened.append(path) or real(path))
    files = list(night.values())
    for expression in ("True", "airmass > 1", 'object == "Dark"'):
        select_data(files, expression=expression)
    assert sorted(opened) == sorted(files)


def test_a_changed_file_is_read_again(night: dict[str, str]) -> None:
    path = night["target"]
    assert select_data([path], expression='object == "SN2014J"') == [path]
    save(Path(path), OBJECT="M82")
    os.utime(path, ns=(0, 1))
    assert select_data([path], expression='object == "M82"') == [path]


def test_a_removed_file_is_not_remembered(night: dict[str, str]) -> None:
    path = night["target"]
    select_data([path])
    Path(path).unlink()
    with pytest.raises(InputError, match="cannot be found"):
        select_data([path])


def test_the_cache_is_bounded() -> None:
    assert frames._lookup_of_file.cache_info().maxsize == 512


def test_threads_may_select_at_the_same_time(night: dict[str, str]) -> None:
    files = list(night.values())
    found: list[list[str]] = []

    def work() -> None:
        for _ in range(5):
            found.append(select_data(files, ["DARK"], expression="exposure_time == 20 and airmass < 2"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[night["dark20"]]] * 40


@settings(deadline=None, max_examples=20)
@given(
    st.permutations(range(5)), st.sets(st.sampled_from(["DARK", "FLAT", "IMAGE", "CAL", "NIRI"]), max_size=2)
)
def test_selection_keeps_the_order_of_the_inputs(order: list[int], tags: set[str]) -> None:
    kinds: list[dict[str, Any]] = [
        {"OBSTYPE": "DARK"}, {"OBSTYPE": "FLAT"}, {}, {"OBSTYPE": "DARK", "EXPTIME": 1.0}, {"OBJECT": "M82"},
    ]  # fmt: skip
    inputs = [frame(**kinds[i]) for i in order]
    selected = select_data(inputs, tags)
    assert [id(ad) for ad in selected] == [id(ad) for ad in inputs if tags <= ad.tags]
