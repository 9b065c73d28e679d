"""Step by step: the primitives of some frames, called one by one, give what a recipe gives."""

from __future__ import annotations

import inspect
import pydoc
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, astrodata, primitives
from niripipe.errors import InputError, ParameterError
from niripipe.primitives import NIRI

from .. import frames as make

STARS = [(20.0, 22.0, 9000.0), (40.0, 45.0, 6000.0), (46.0, 18.0, 5000.0)]


def recipe(p):
    p.prepare()
    p.addDQ()
    p.ADUToElectrons()
    p.addVAR(read_noise=True, poisson_noise=True)
    p.separateSky()
    p.associateSky(stream="sky")
    p.skyCorrect(instream="sky", outstream="skysub", mask_objects=False, scale_sky=False)
    p.detectSources(stream="skysub")
    p.stackFrames(stream="skysub")
    p.clearStream(stream="main")
    p.appendStream(from_stream="skysub")
    p.storeProcessedScience(suffix="_steps")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five frames of a sky that changes, with stars that move with the telescope."""
    folder = tmp_path_factory.mktemp("raw")
    levels = [
        make.noise(k, 12.0, 300.0 + 5 * k)
        + make.gaussians(make.SHAPE, [(x + 3 * k, y, f) for x, y, f in STARS])
        for k in range(5)
    ]
    return [
        path
        for k, level in enumerate(levels)
        for path in make.sequence(folder, [level], first=k + 1, POFFSET=-3 * k * make.SCALE)
    ]


@pytest.fixture
def p(raw: list[Path], tmp_path: Path) -> primitives.NIRI:
    return primitives.of(raw, output_dir=tmp_path)


def test_the_results_are_those_of_a_recipe_bit_for_bit(raw, tmp_path):
    r = Reduce(raw, recipe=recipe, output_dir=tmp_path / "recipe")
    r.runr()
    p = primitives.of(raw, output_dir=tmp_path / "steps")
    recipe(p)
    ours, theirs = p.frames[0], r.outputs[0]
    for name in ("data", "variance", "mask"):
        assert ours[0].read(name).tobytes() == theirs[0].read(name).tobytes()
    assert [record.primitive for record in ours.history] == [record.primitive for record in theirs.history]
    assert [step.summary() for step in p.report.steps] == [step.summary() for step in r.report.steps]
    assert Path(ours.path).name == Path(theirs.path).name
    assert astrodata.open(tmp_path / "steps" / theirs.filename)[0].data.tobytes() == theirs[0].data.tobytes()


def test_frames_can_be_looked_at_between_steps_and_are_not_changed_by_the_next(p):
    p.prepare()
    before = p.frames
    kept = before[0][0].data.copy()
    assert before[0][0].mask is None
    p.addDQ()
    p.ADUToElectrons()
    assert p.frames[0][0].mask is not None
    np.testing.assert_array_equal(before[0][0].data, kept)
    np.testing.assert_allclose(p.frames[0][0].data, kept * make.GAIN)
    assert p.frames is p.streams["main"]
    with p.frame_by_frame():
        p.addVAR(read_noise=True)
    assert p.frames[0][0].variance is not None


def test_frames_in_memory_stay_as_they_are(raw):
    frame = astrodata.open(raw[0])
    p = primitives.of(frame)
    p.prepare()
    assert "PREPARE" in p.frames[0].phu
    assert "PREPARE" not in frame.phu


def test_after_an_error_the_streams_are_as_before(p):
    p.prepare()
    before = {name: list(frames) for name, frames in p.streams.items()}
    with pytest.raises(ParameterError, match="Did you mean 'user_bpm'"):
        p.addDQ(user_bmp="x.fits")
    with pytest.raises(InputError):
        p.addDQ(user_bpm="absent.fits")
    assert p.streams == before
    assert all("ADDDQ" not in frame.phu for frame in p.frames)


def test_a_frame_in_two_streams_is_one_frame(p):
    p.prepare()
    p.separateSky()
    p.addDQ()
    assert {id(frame) for frame in p.streams.get("sky", [])} & {id(frame) for frame in p.frames} == {
        id(frame) for frame in p.frames if any(frame is other for other in p.streams.get("sky", []))
    }


def test_help_and_completion_show_what_a_user_needs(p):
    assert dir(p) == sorted([*NIRI.primitives(), "frames", "report", "streams"])
    signature = inspect.signature(p.skyCorrect)
    assert signature.parameters["scale_sky"].default is True
    assert {"skip_primitive", "write_outputs", "stream"} < set(signature.parameters)
    assert inspect.signature(p.addDQ).parameters["latency"].default is True
    assert inspect.isfunction(p.skyCorrect)
    text = pydoc.plain(pydoc.render_doc(p.skyCorrect))
    assert "scale_sky : bool" in text
    assert "scale the sky to the level of the frame" in text
    assert "Raises\n" in pydoc.plain(pydoc.render_doc(p.addDQ))
    assert all((getattr(p, name).__doc__ or "").count("Parameters\n") == 1 for name in NIRI.primitives())
    with pytest.raises(AttributeError, match="Did you mean 'skyCorrect'"):
        p.skyCorect()


def test_the_object_says_where_it_is(p):
    assert repr(p) == "<step by step (sq): frames in main 5; nothing done yet>"
    p.prepare()
    assert "last step prepare" in str(p)
    assert p.frames[0].filename in p._repr_html_()
    assert "text-align:left" in p._repr_html_()
    assert p.report.step("prepare").outcomes


def test_settings_are_those_of_a_reduction(raw, tmp_path):
    with pytest.raises(ParameterError, match="Did you mean 'skyCorrect'"):
        primitives.of(raw, parameters={"skyCorect:scale_sky": False})
    with pytest.raises(InputError):
        primitives.of([])
    p = primitives.of(raw, mode="ql", parameters={"addVAR:read_noise": True}, output_dir=tmp_path)
    p.prepare()
    p.ADUToElectrons()
    p.addVAR()
    assert p.report.step("addVAR").parameters["read_noise"] is True
    p.storeProcessedScience(suffix="_mine")
    assert p.frames[0].path == str(tmp_path / raw[0].name.replace(".fits", "_ql_mine.fits"))
    p.flushPixels(force=True)
    assert np.isfinite(p.frames[0][0].data).all()
