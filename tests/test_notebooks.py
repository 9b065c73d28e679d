"""The tutorials: each notebook is what its script gives, and the scripts run as they are."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from datetime import time as clock
from pathlib import Path
from types import ModuleType

import pytest

from niripipe import astrodata, simulate
from niripipe.cal_service import CalibrationService
from niripipe.simulate import Night

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SCRIPTS = [
    "colours_jhk.py",
    "deep_field.py",
    "extended_source.py",
    "headers_of_2003.py",
    "moving_target.py",
    "point_source_dither.py",
    "raw_folder_to_stack.py",
    "standard_star.py",
]


@pytest.fixture(scope="module")
def pair() -> ModuleType:
    spec = importlib.util.spec_from_file_location("niripipe_pair_notebooks", NOTEBOOKS / "pair.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_notebook_is_what_its_script_gives(pair: ModuleType, name: str) -> None:
    pytest.importorskip("jupytext")
    script = NOTEBOOKS / name
    stored = script.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert stored == pair.as_notebook(script), "run `python notebooks/pair.py`"
    assert pair.as_notebook(script) == pair.as_notebook(script)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_notebook_is_valid_and_holds_no_outputs(name: str) -> None:
    notebook = json.loads((NOTEBOOKS / name).with_suffix(".ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len(set(identifiers)) == len(identifiers) > 10
    for cell in code:
        compile("".join(cell["source"]), name, "exec")
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(notebook))


def test_every_script_has_a_notebook(pair: ModuleType) -> None:
    assert list(pair.SCRIPTS) == SCRIPTS
    assert sorted(path.name for path in NOTEBOOKS.glob("*.py")) == sorted([*SCRIPTS, "pair.py"])


# ---- running them


@dataclass
class Run:
    """What a script printed, and the folder it worked in."""

    folder: Path
    printed: str
    seconds: float


@dataclass
class FolderOnly:
    """Frames without a simulated night."""

    folder: Path


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return simulate.night(
        tmp_path_factory.mktemp("raw"), seed=5, size=256, n_flat=4, n_dark=4, n_short_dark=4, n_standard=4
    )


# The command of the README installs no IPython.
_AS_SCRIPT = """
import runpy, sys
sys.modules["IPython"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(name: str, night: Night | FolderOnly | None, folder: Path) -> Run:
    """Run a script as a user would, with warnings as errors and without a display."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("IPython")
    env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    env |= {"MPLCONFIGDIR": str(folder / "matplotlib"), "HOME": str(folder)}
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            str(NOTEBOOKS / name),
            *([] if night is None else [str(night.folder)]),
        ],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Run(folder, done.stdout, time.monotonic() - started)


@pytest.fixture(scope="module")
def tutorial(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("extended_source.py", night, tmp_path_factory.mktemp("tutorial"))


@pytest.fixture(scope="module")
def sorted_folder(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("raw_folder_to_stack.py", night, tmp_path_factory.mktemp("folder"))


def picture_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern} not in:\n{text}"
    return float(found[1])


def check_science(night: Night, stack: Path, frames: int) -> None:
    assert astrodata.open(stack).phu["NCOMBINE"] == frames
    score = simulate.score(night, stack)
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.02)
    assert score.astrom_rms_pix < 0.06
    assert score.pull == pytest.approx(1, abs=0.1)
    assert score.cr_left <= 0.05


def test_the_tutorial_leaves_products_and_a_picture(tutorial: Run, night: Night) -> None:
    work = tutorial.folder / "niripipe_tutorial"
    assert {path.name for path in (work / "products").iterdir()} == {
        f"{night.darks[0].stem}_dark.fits",
        f"{night.of_kind('flat_on')[0].stem}_bpm.fits",
        f"{night.of_kind('flat_on')[0].stem}_flat.fits",
        "N20160102S0271_image.fits",
        "N20160102S0296_image.fits",
    }
    check_science(night, work / "products" / "N20160102S0271_image.fits", 4)
    width, height = picture_size(work / "before_after.png")
    assert 900 < width < 1400
    assert 900 < height < 1400
    assert (work / "niri_tutorial.log").stat().st_size > 1000


def test_the_summary_of_the_tutorial_is_right(tutorial: Run, night: Night) -> None:
    text = tutorial.printed
    assert f"{len(night.files)} raw frames in {night.folder}" in text
    for label, count in (
        ("20 s darks", len(night.darks)),
        ("1 s darks", len(night.short_darks)),
        ("flats", len(night.flats)),
        ("standard star", 4),
        ("target and sky", len(night.target) + len(night.sky)),
    ):
        assert re.search(rf"^ *{label}: {count}$", text, re.M), label
    steps = [
        float(found) for found in re.findall(r"_(?:dark|bpm|flat|image)\.fits +(\d+\.\d+) s$", text, re.M)
    ]
    assert len(steps) == 5
    assert 0 < sum(steps) < number(r"all in (\d+\.\d) s", text) + 0.1 <= tutorial.seconds + 0.2
    assert "truth" not in text


def test_nothing_is_written_beside_the_folder_of_the_tutorial(tutorial: Run, sorted_folder: Run) -> None:
    for done, name in ((tutorial, "niripipe_tutorial"), (sorted_folder, "niripipe_folder")):
        left = {path.name for path in done.folder.iterdir()} - {"matplotlib", ".cache", ".astropy"}
        assert left == {name}


def test_an_unsorted_folder_becomes_products_and_a_picture(sorted_folder: Run, night: Night) -> None:
    work = sorted_folder.folder / "niripipe_folder"
    products = sorted(path.name for path in (work / "products").glob("*.fits"))
    assert len(products) == 5
    check_science(night, work / "products" / "N20160102S0271_image.fits", 4)
    service = CalibrationService()
    service.config(db_dir=work / "products")
    assert len(service.list_files()) == 4
    width, height = picture_size(work / "products.png")
    assert 1200 < width < 1600
    assert 700 < height < 1000


def test_the_page_of_an_unsorted_folder_says_what_is_done_and_why(sorted_folder: Run, night: Night) -> None:
    text = sorted_folder.printed
    assert f"5 reductions of {len(night.files)} raw frames; no files are left out" in text
    assert "5 of 5 reductions done" in text
    assert "processed_dark for N20160102S0270.fits in this night: 1 candidate, 1 usable" in text
    assert "resampleToCommonFrame" in text
    for name in (sorted_folder.folder / "niripipe_folder" / "products").glob("*.fits"):
        assert f"  {name.name}\n" in text
    assert 0 < number(r"all in (\d+\.\d) s", text) <= sorted_folder.seconds + 0.1


# ---- on folders of the user's own


def run_on(name: str, folder: Path, night: Night | FolderOnly, work: str) -> tuple[Run, Path]:
    done = run(name, night, folder)
    left = {path.name for path in folder.iterdir()} - {"matplotlib", ".cache", ".astropy"}
    assert left == {work}
    assert "truth" not in done.printed
    return done, folder / work


def little(folder: Path, **plan: object) -> Night:
    frames = {"n_sky": 0, "n_standard": 0, "n_flat": 0, "n_dark": 0, "n_short_dark": 0}
    return simulate.night(folder / "raw", seed=5, size=256, scene="sparse", **(frames | plan))


def test_dithered_point_sources_become_a_stack(tmp_path: Path) -> None:
    night = little(tmp_path, n_target=6)
    (tmp_path / "work").mkdir()
    done, work = run_on("point_source_dither.py", tmp_path / "work", night, "niripipe_dither")
    assert simulate.score(night, work / "N20160102S0271_image.fits").astrom_rms_pix < 0.06
    assert "processed_flat: N20160102S0271_flat.fits" in done.printed
    assert min(picture_size(work / "dither.png")) > 300


def test_a_deep_field_is_stacked_twice(tmp_path: Path) -> None:
    night = little(tmp_path, n_target=5, n_flat=4, n_dark=3, n_short_dark=3)
    (tmp_path / "work").mkdir()
    done, work = run_on("deep_field.py", tmp_path / "work", night, "niripipe_deep")
    for name in ("N20160102S0271_image.fits", "N20160102S0271_deep.fits"):
        assert simulate.score(night, work / "products" / name).astrom_rms_pix < 0.06
    assert number(r"(\d+) sources in the first stack", done.printed) > 3


def test_old_frames_with_broken_headers_are_in_the_stack(tmp_path: Path) -> None:
    night = little(tmp_path, n_target=5, n_flat=3, n_dark=3, date=date(2003, 8, 10))
    (tmp_path / "work").mkdir()
    done, work = run_on("headers_of_2003.py", tmp_path / "work", night, "niripipe_2003")
    assert "4 frames in" in done.printed
    assert simulate.score(night, work / "products" / "N20030810S0271_image.fits").astrom_rms_pix < 0.06


def test_a_moving_target_is_stacked_on_it_and_on_the_stars(tmp_path: Path) -> None:
    effects = simulate.Effects.none(photon_noise=True, read_noise=True)
    (tmp_path / "raw").mkdir()
    (tmp_path / "work").mkdir()
    for k, (p, q) in enumerate([(0, 0), (3, 3), (-3, 3), (-3, -3), (3, -3)]):
        stars = [(128.0, 128.0, 2e4)] + [(40.0 + 30 * n + 9 * k, 60.0 + 20 * n, 2e4) for n in range(4)]
        frame = simulate.raw_frame(
            size=256, p=p, q=q, number=270 + k, ut=clock(11, 36 + k), stars=stars, effects=effects,
            keywords={"RATRACK": 0.01},
        )  # fmt: skip
        simulate.write_frame(frame, tmp_path / "raw")
    moving = FolderOnly(tmp_path / "raw")
    done, work = run_on("moving_target.py", tmp_path / "work", moving, "niripipe_moving")
    assert "5 of 5 frames follow a moving target" in done.printed
    assert astrodata.open(work / "N20160102S0271_image.fits").phu["ALGNON"] == "target"
    assert astrodata.open(work / "N20160102S0271_stars.fits").phu["ALGNON"] == "stars"
    assert min(picture_size(work / "moving.png")) > 300


def test_the_standard_star_gives_magnitudes(tmp_path: Path) -> None:
    pytest.importorskip("photutils")
    text = run("standard_star.py", None, tmp_path).printed
    assert "makeStandard: FS 17, by position" in text
    assert "nearest of 2" in text
    assert abs(number(r"zero point minus truth: ([+-]\d\.\d+) mag", text)) < 0.01
    assert abs(number(r"magnitudes minus truth, median of \d+ stars: ([+-]\d\.\d+) mag", text)) < 0.02
    left = {path.name for path in tmp_path.iterdir()} - {"matplotlib", ".cache", ".astropy"}
    assert left == {"niripipe_standard"}


def test_a_field_in_three_filters_has_colours(tmp_path: Path) -> None:
    pytest.importorskip("photutils")
    night = little(
        tmp_path, n_target=4, n_standard=3, n_flat=3, n_dark=3, n_short_dark=3, n_stars=10,
        standards=("FS 17",), filters=("J", "H", "K"),
    )  # fmt: skip
    (tmp_path / "work").mkdir()
    done, work = run_on("colours_jhk.py", tmp_path / "work", night, "niripipe_colours")
    truth = night.truth.photometry
    assert truth is not None
    for name, zero_point in truth["zero_points"].items():
        assert number(rf"{name}: zero point ([\d.]+) ", done.printed) == pytest.approx(zero_point, abs=0.02)
    assert number(r"(\d+) of \d+ sources have a colour", done.printed) >= 5
    assert min(picture_size(work / "colours.png")) > 300
    assert min(picture_size(work / "colours_rgb.png")) > 200
