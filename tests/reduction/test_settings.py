"""What a user gives to `Reduce`: names of attributes, relative paths, and what becomes of products."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from niripipe import Reduce, astrodata
from niripipe.cal_service import CalibrationService
from niripipe.errors import ParameterError, StorageError

from .. import frames as make


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with raw darks in ``raw``, which is the current one, and an empty folder ``elsewhere``."""
    make.sequence(tmp_path / "raw", [3.0, 4.0, 5.0], kind="dark", first=20)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("recpie", "'recipe'"),
        ("paramters", "'parameters'"),
        ("outputdir", "'output_dir'"),
        ("sufix", "'suffix'"),
    ],
)
def test_an_unknown_attribute_is_refused_with_the_nearest_name(name, answer):
    r = Reduce()
    with pytest.raises(ParameterError, match=f"no attribute '{name}'.*{answer}"):
        setattr(r, name, 1)
    with pytest.raises(AttributeError, match="expected: calibrations, files"):
        r.xyzzy = 1
    r.drpkg = "geminidr"
    assert not hasattr(r, "drpkg")


def test_classes_of_ones_own_have_their_own_attributes():
    class Mine(Reduce):
        def __init__(self) -> None:
            super().__init__()
            self.operator = "me"

    assert Mine().operator == "me"


def test_keywords_are_attributes_too(night):
    r = Reduce()
    r.files = [f"raw/{make.name(20 + i)}" for i in range(3)]
    r.recipe = "makeProcessedDark"
    r.parameters = {"stackDarks": {"operation": "median"}}
    assert (r.recipename, r.uparms) == ("makeProcessedDark", {"stackDarks:operation": "median"})
    r.parameters["write_outputs"] = False
    r.calibrations = {"processed_bpm": "x_bpm.fits"}
    assert r.ucals == {"processed_bpm": str(night / "x_bpm.fits")}
    assert r.calibrations is None
    r.calibrations = service = CalibrationService()
    assert r.calibrations is service
    r.ucals = {}
    r.runr()
    assert r.report.step("stackDarks").parameters["operation"] == "median"
    assert r.report.parameters == {"stackDarks:operation": "median", "write_outputs": False}


def test_relative_paths_stay_right_after_a_change_of_folder(night, monkeypatch):
    Path("darks.lis").write_text("\n".join(f"raw/{make.name(20 + i)}" for i in range(3)))
    Path("mine.py").write_text("def darks(p):\n    p.prepare()\n    p.addDQ()\n    p.stackDarks()\n")
    make.write(Path("x_bpm.fits"), 0, OBJECT="BPM", BPMASK="yes", dtype="int16")
    r = Reduce(
        "@darks.lis", recipe="mine.darks", output_dir="out", calibrations={"processed_bpm": "x_bpm.fits"}
    )
    r.uparms = [("addDQ:user_bpm", ["x_bpm.fits"])]
    monkeypatch.chdir("elsewhere")
    r.files.append("../raw/" + make.name(20))
    assert ("../raw/" + make.name(20)) in r.files
    r.files.remove("../raw/" + make.name(20))
    r.runr()
    os.chdir("/")
    assert r.output_filenames == [str(night / "out" / make.name(20).replace(".fits", "_stack.fits"))]
    assert r.outputs[0].phu["BPMIM"] == "x_bpm.fits"
    assert "BPMIM" in astrodata.open(r.output_filenames[0]).phu
    script = r.report.script()
    assert all(str(night / name) in script for name in ("raw", "x_bpm.fits", "mine.darks"))
    assert list(Path("elsewhere").glob("*")) == []


def test_a_frame_opened_by_a_relative_path_has_its_pixels_elsewhere(night, monkeypatch):
    frame = astrodata.open(f"raw/{make.name(20)}")
    monkeypatch.chdir("elsewhere")
    assert frame.path == str(night / "raw" / make.name(20))
    assert frame[0].data.mean() == 3.0


def test_a_product_knows_its_path_and_is_not_written_into_the_raw_folder(night):
    before = sorted(Path("raw").iterdir())
    r = Reduce(sorted(Path("raw").glob("*.fits")), output_dir="out")
    r.runr()
    assert r.outputs[0].path == r.output_filenames[0] == str(night / "out" / f"{before[0].stem}_dark.fits")
    r.outputs[0].write(overwrite=True)
    r.outputs[0].update_filename(suffix="_mine", strip=True)
    r.outputs[0].write()
    assert sorted(Path("raw").iterdir()) == before
    assert {path.name for path in Path("out").iterdir()} == {
        f"{before[0].stem}{suffix}.fits" for suffix in ("_dark", "_mine")
    }


def test_products_that_cannot_be_written_are_kept(night, monkeypatch):
    def refuse(self, path, overwrite=False):
        raise StorageError("the file cannot be written", file=path, found="No space left on device")

    r = Reduce(sorted(Path("raw").glob("*.fits")), output_dir="out")
    with monkeypatch.context() as patch:
        patch.setattr(astrodata.AstroData, "write", refuse)
        with pytest.raises(StorageError) as caught:
            r.runr()
    assert "Reduce.outputs" in caught.value.__notes__[-1]
    (product,) = r.outputs
    assert product.path == str(night / "out" / make.name(20).replace(".fits", "_dark.fits"))
    product.write("saved.fits")
    good = Reduce(sorted(Path("raw").glob("*.fits")), output_dir="out")
    good.runr()
    assert (astrodata.open("saved.fits")[0].data == good.outputs[0][0].data).all()


@pytest.mark.parametrize("suffix", ["", None])
def test_an_empty_suffix_of_the_products_leaves_the_recipes(night, suffix):
    r = Reduce(sorted(Path("raw").glob("*.fits")), suffix=suffix)
    r.runr()
    assert r.output_filenames == [make.name(20).replace(".fits", "_dark.fits")]


def test_an_empty_suffix_of_all_steps_gives_the_raw_name_elsewhere_only(night):
    raw = Path("raw") / make.name(20)
    given = {"files": raw, "recipe": "ADUToElectrons", "parameters": {"suffix": ""}}
    r = Reduce(**given, output_dir="out")
    r.runr()
    assert r.output_filenames == [str(night / "out" / raw.name)]
    original = raw.read_bytes()
    with pytest.raises(StorageError, match="replace an input"):
        Reduce(**given, output_dir="raw").runr()
    assert raw.read_bytes() == original
