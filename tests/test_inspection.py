from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from niripipe import astrodata, inspection, simulate
from niripipe.errors import InputError, NiripipeError, ParameterError
from niripipe.inspection import Table
from niripipe.simulate import Effects


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two darks and, one folder below, an object and a flat; a file that is no frame."""
    top = tmp_path_factory.mktemp("raw")
    (top / "sky").mkdir()
    for kind, number, place in (
        ("dark", 1, top),
        ("dark", 2, top),
        ("target", 3, top / "sky"),
        ("flat_on", 4, top / "sky"),
    ):
        frame = simulate.raw_frame(kind=kind, number=number, size=256, effects=Effects.none())  # type: ignore[arg-type]
        simulate.write_frame(frame, place)
    (top / "zz.fits").write_text("not FITS")
    (top / "readme.txt").write_text("no frame")
    (top / ".hidden.fits").write_text("no frame")
    return top


@pytest.fixture(scope="module")
def target(folder: Path) -> Path:
    return folder / "sky" / "N20160102S0003.fits"


@pytest.fixture(scope="module")
def flat(folder: Path) -> Path:
    return folder / "sky" / "N20160102S0004.fits"


# ---- Table


def test_a_table_prints_aligned_numbers_at_the_right() -> None:
    table = Table(
        ["name", "n", "remark"],
        [{"name": "a", "n": 5, "remark": None}, {"name": "long", "n": 12.5, "remark": "two\nlines"}],
        title="Title",
        notes=["a note"],
    )
    assert str(table) == "\n".join(
        [
            "Title",
            "--------------------",
            "name      n   remark",
            "--------------------",
            "a         5   None",
            "long   12.5   two",
            "              lines",
            "a note",
        ]
    )


def test_a_table_is_a_sequence_of_rows_with_hidden_entries() -> None:
    table = Table(["a"], [{"a": 1, "b": 2}, {"a": 3, "b": 4}])
    assert len(table) == 2
    assert [row["b"] for row in table] == [2, 4]
    assert table[0] == {"a": 1, "b": 2}
    assert table[-1:] == [{"a": 3, "b": 4}]
    assert table.column("b") == [2, 4]
    assert "4" not in str(table)
    with pytest.raises(InputError, match="no such column"):
        table.column("c")


def test_long_texts_are_wrapped_in_print_only() -> None:
    text = "word " * 40
    table = Table(["text"], [{"text": text}])
    assert max(map(len, str(table).splitlines())) <= 72
    assert table[0]["text"] == text


def test_html_is_escaped() -> None:
    page = Table(["<a>"], [{"<a>": "x < y\nz"}], title="<t>", notes=["<n>"])._repr_html_()
    for piece in (
        ">&lt;a&gt;</th>",
        "x &lt; y<br>z",
        "<caption>&lt;t&gt;</caption>",
        "<li>&lt;n&gt;</li>",
    ):
        assert piece in page


def test_csv_can_be_read_back_whatever_is_in_the_cells() -> None:
    table = Table(["a", "b"], [{"a": "x, y", "b": None}, {"a": 'quo"te', "b": (1, 2)}])
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [["a", "b"], ["x, y", ""], ['quo"te', "1 2"]]


def test_an_empty_table_prints_its_header() -> None:
    assert str(Table(["a", "bb"], [])) == "------\na   bb\n------"


# ---- showd


def test_showd_shows_pretty_values_and_full_ones_when_asked(target: Path) -> None:
    assert inspection.showd(target, "object,filter_name")[0] == {
        "filename": "N20160102S0003.fits",
        "object": "SN2014J",
        "filter_name": "H",
        "path": str(target),
    }
    assert inspection.showd(target, ["filter_name"], long=True).column("filter_name") == ["H_G0203"]


def test_showd_aligns_like_the_command_of_that_name(target: Path) -> None:
    assert str(inspection.showd([target], "object,exposure_time")).splitlines() == [
        "-" * 45,
        "filename               object   exposure_time",
        "-" * 45,
        "N20160102S0003.fits   SN2014J          20.002",
    ]


def test_showd_takes_frames_folders_patterns_and_lists(folder: Path, target: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"{target}\n")
    given: list[Any] = [astrodata.open(target), folder / "sky", str(folder / "N*.fits"), f"@{listed}"]
    numbers = [str(name)[10:14] for name in inspection.showd(given, "tags").column("filename")]
    assert numbers == ["0003", "0003", "0004", "0001", "0002", "0003"]


def test_showd_unwraps_values_that_are_equal_in_all_extensions(target: Path) -> None:
    row = inspection.showd(target, "gain, detector_section,tags")[0]
    assert row["gain"] == 12.3
    assert row["detector_section"] == "[385:640,385:640]"
    assert "IMAGE" in row["tags"]


def test_a_file_that_cannot_be_opened_does_not_hide_the_others(folder: Path) -> None:
    table = inspection.showd(folder, "object")
    assert table.column("object") == ["Dark", "Dark", None]
    assert "zz.fits cannot be opened: the file is not FITS" in str(table)


@pytest.mark.parametrize(
    ("descriptors", "message"), [("exposur_time", "Did you mean 'exposure_time'"), ("", "No descriptor")]
)
def test_an_unknown_descriptor_is_refused_with_the_nearest(
    target: Path, descriptors: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        inspection.showd(target, descriptors)


def test_showd_refuses_an_empty_list_and_a_pattern_without_files(tmp_path: Path) -> None:
    for nothing in ([], tmp_path, str(tmp_path / "*.fits")):
        with pytest.raises(InputError, match="no frames"):
            inspection.showd(nothing)


# ---- typewalk


def test_typewalk_lists_files_below_and_names_those_that_cannot_be_opened(folder: Path) -> None:
    table = inspection.typewalk(folder)
    assert table.column("file") == [
        "N20160102S0001.fits",
        "N20160102S0002.fits",
        "sky/N20160102S0003.fits",
        "sky/N20160102S0004.fits",
    ]
    assert "zz.fits cannot be opened" in table.notes[0]
    assert len(inspection.typewalk(folder, recursive=False)) == 2


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"tags": "DARK"}, [1, 2]),
        ({"tags": ["IMAGE", "FLAT"]}, [4]),
        ({"tags": ["DARK", "FLAT"]}, []),
        ({"tags": ["DARK", "FLAT"], "any_of": True}, [1, 2, 4]),
        ({"xtags": "CAL"}, [3]),
        ({"tags": "IMAGE", "xtags": ["FLAT"]}, [3]),
        ({"mask": "*2.fits"}, [2]),
    ],
)
def test_typewalk_selects_by_tags(folder: Path, options: dict[str, Any], numbers: list[int]) -> None:
    assert [int(name[-9:-5]) for name in inspection.typewalk(folder, **options).column("file")] == numbers


def test_typewalk_refuses_what_is_not_a_folder(target: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        inspection.typewalk(target)


# ---- showpars


def rows_of(table: Table, name: str) -> list[dict[str, Any]]:
    return [row for row in table if row["parameter"] == name]


def test_showpars_says_where_each_value_comes_from(target: Path) -> None:
    table = inspection.showpars(target, "addVAR")
    assert {row["parameter"]: (row["value"], row["from"]) for row in table} == {
        "suffix": ("_varAdded", "default"),
        "read_noise": (True, "recipe"),
        "poisson_noise": (True, "recipe"),
    }
    latency = rows_of(inspection.showpars(target, "addDQ"), "latency")[0]
    assert (latency["value"], latency["default"], latency["from"]) == (True, False, "instrument default")
    user = inspection.showpars(target, "addVAR", parameters={"addVAR:read_noise": False})
    assert (rows_of(user, "read_noise")[0]["value"], rows_of(user, "read_noise")[0]["from"]) == (
        False,
        "user",
    )


def test_showpars_shows_every_call_where_the_calls_differ(target: Path) -> None:
    rows = rows_of(inspection.showpars(target, "skyCorrect"), "mask_objects")
    assert [(row["call"], row["value"]) for row in rows] == [
        ("1 of 2: sky > skysub", False),
        ("2 of 2: main", True),
    ]
    assert len(rows_of(inspection.showpars(target, "skyCorrect"), "offset_sky")) == 1


def test_showpars_says_what_is_allowed_and_what_it_means(target: Path) -> None:
    table = inspection.showpars(target, "skyCorrect")
    allowed = {row["parameter"]: row["allowed"] for row in table}
    assert allowed["scale_sky"] == "True or False"
    assert allowed["nlow"] == "whole number, >= 0"
    assert allowed["hsigma"] == "number or None, >= 0"
    assert "'median'" in allowed["operation"]
    assert all(row["meaning"] for row in table)
    assert (
        rows_of(inspection.showpars(target, "darkCorrect"), "dark")[0]["allowed"] == "frame or path or None"
    )


def test_showpars_hides_parameters_for_debugging_unless_asked(target: Path) -> None:
    assert not rows_of(inspection.showpars(target, "skyCorrect"), "debug_threshold")
    assert rows_of(inspection.showpars(target, "skyCorrect", all=True), "debug_threshold")


def test_showpars_shows_a_primitive_that_the_recipe_does_not_call(target: Path, flat: Path) -> None:
    table = inspection.showpars(target, "makeBPM")
    assert "does not call makeBPM" in table.notes[0]
    assert rows_of(table, "flat_lo_thresh")[0]["value"] == 0.8
    assert not inspection.showpars(flat, "makeBPM", recipe="makeProcessedBPM").notes


def test_every_parameter_of_every_primitive_can_be_shown(target: Path) -> None:
    for primitive in inspection.list_primitives().column("primitive"):
        table = inspection.showpars(target, primitive, all=True)
        assert all(row["allowed"] for row in table), primitive
        assert str(table)
        assert table._repr_html_()


def test_showpars_refuses_unknown_names(target: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'skyCorrect'"):
        inspection.showpars(target, "skycorect")
    with pytest.raises(ParameterError, match="Did you mean 'scale_sky'"):
        inspection.showpars(target, "skyCorrect", parameters={"skyCorrect:scale_sk": True})


# ---- recipes and primitives


def test_showrecipes_lists_all_or_those_for_a_frame(target: Path) -> None:
    every = inspection.showrecipes()
    assert {"makeProcessedDark", "makeProcessedBPM", "makeProcessedFlat", "reduce"} <= set(
        every.column("recipe")
    )
    assert all(row["purpose"] for row in every)
    fitting = inspection.showrecipes(target, "sq")
    assert [row["recipe"] for row in fitting if row["default"]] == ["reduce"]
    assert "makeProcessedDark" not in fitting.column("recipe")
    with pytest.raises(InputError, match="no such mode"):
        inspection.showrecipes(mode="fast")


def test_showprimitives_follows_calls_through_helpers_and_streams(target: Path) -> None:
    table = inspection.showprimitives(target)
    names = table.column("primitive")
    assert names[:3] == ["prepare", "addDQ", "removeFirstFrame"]
    assert names[-1] == "storeProcessedScience"
    first, second = (row for row in table if row["primitive"] == "skyCorrect")
    assert first["stream"] == "sky > skysub"
    assert "mask_objects=False [recipe]" in first["parameters"]
    assert (first["values"]["scale_sky"], second["values"]["scale_sky"]) == (False, True)
    assert table.column("step") == list(range(1, len(table) + 1))


def test_showprimitives_takes_a_recipe_by_name_function_or_file(tmp_path: Path) -> None:
    by_name = inspection.showprimitives("makeProcessedDark")
    assert by_name.column("primitive")[-1] == "storeProcessedDark"
    (tmp_path / "mine.py").write_text("def twice(p):\n    p.prepare()\n    p.addDQ(latency=False)\n")
    by_file = inspection.showprimitives(f"{tmp_path}/mine.twice")
    assert [(row["primitive"], row["parameters"]) for row in by_file] == [
        ("prepare", ""),
        ("addDQ", "latency=False [recipe]"),
    ]

    def own(p: Any) -> None:
        p.prepare()

    assert inspection.showprimitives(own).title == "own (sq)"
    assert inspection.showprimitives("addVAR").column("primitive") == ["addVAR"]


def test_showprimitives_applies_the_users_parameters(target: Path) -> None:
    table = inspection.showprimitives(target, parameters={"addDQ:skip_primitive": True, "skyCorrect:nlow": 2})
    rows = {row["primitive"]: row["parameters"] for row in table}
    assert rows["addDQ"].startswith("skipped")
    assert "nlow=2 [user]" in rows["skyCorrect"]


def test_showprimitives_reads_no_pixels_and_leaves_the_frame_alone(target: Path) -> None:
    frame = astrodata.open(target)
    before = list(frame.phu.items())
    inspection.showprimitives(frame)
    assert list(frame.phu.items()) == before
    assert frame.filename == "N20160102S0003.fits"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("makeProcesedFlat", "Did you mean 'makeProcessedFlat'"),
        ("nothing.fits", "no such file"),
        (3, "a name or a function"),
    ],
)
def test_showprimitives_refuses_what_is_neither_frame_nor_recipe(wanted: Any, message: str) -> None:
    with pytest.raises(NiripipeError, match=message):
        inspection.showprimitives(wanted)


def test_list_primitives_is_complete_and_says_what_each_is_for() -> None:
    table = inspection.list_primitives()
    assert {"prepare", "darkCorrect", "skyCorrect", "stackFrames"} <= set(table.column("primitive"))
    assert all(row["purpose"] for row in table)
    frames = dict(zip(table.column("primitive"), table.column("frames"), strict=True))
    assert frames["darkCorrect"] == "each"
    assert frames["stackFrames"] == "all"
