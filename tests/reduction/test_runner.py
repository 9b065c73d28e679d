"""The runner: streams, threads, dropping, stamps, history, names and saving, the same for every primitive."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import AlgorithmError, CalibrationError, DataError, ParameterError
from niripipe.primitives.base import Outcome, Status, not_needed, primitive, skipped
from niripipe.primitives.niri import NIRI
from niripipe.primitives.params import Field, Origin, Params

from .. import frames as make


class AddParams(Params):
    suffix: str | None = Field("_added", description="suffix")
    amount: float = Field(1.0, description="what to add")


class PickParams(Params):
    suffix: str | None = Field("_picked", description="suffix")
    wanted: str = Field("all", description="what to do")


class Demo(NIRI):
    """Primitives that show what the runner does around them."""

    @primitive(stamp="ADDED")
    def add(self, frame: AstroData, params: AddParams) -> Outcome | None:
        frame[0].data += np.float32(params.amount)
        return None

    @primitive(stamp="DEFEATED")
    def defeat(self, frame: AstroData, params: PickParams) -> Outcome | None:
        if frame.phu["OBJECT"] == params.wanted:
            raise DataError("this frame is no good", file=frame.filename)
        if params.wanted == "algorithm":
            raise AlgorithmError("no result", found=3)
        if params.wanted == "calibration":
            raise CalibrationError("no dark")
        return None

    @primitive(stamp="PICKED")
    def pick(self, frame: AstroData, params: PickParams) -> Outcome | None:
        return {"all": None, "skip": skipped("not asked for")}.get(params.wanted, not_needed("nothing to do"))

    @primitive(stamp="JOINED")
    def join(self, frames: list[AstroData], params: PickParams) -> list[AstroData]:
        if params.wanted == "note":
            self.note(frames[0], skipped("it is the first"))
        if params.wanted == "drop":
            self.drop(frames[0], "it is the first")
            return frames[1:]
        return frames

    @primitive
    def nested(self, frames: list[AstroData], params: PickParams) -> list[AstroData]:
        return self.add(frames, amount=10.0)

    @primitive(stamp="MAPPED")
    def deep(self, frame: AstroData, params: PickParams) -> Outcome | None:
        # Work inside a worker that asks for workers again.
        total = sum(self.map(lambda value: value + 1, [1, 2, 3]))
        frame[0].data += np.float32(total)
        return None


def demo(count: int = 3, **options):
    return make.bench([make.frame(float(i), number=i + 1) for i in range(count)], primitives=Demo, **options)


def levels(frames):
    return [float(ad[0].data[0, 0]) for ad in frames]


# ---- streams


def test_a_call_reads_and_writes_the_main_stream():
    b = demo()
    assert b.p.add(amount=2) is b.main
    assert levels(b.main) == [2, 3, 4]


def test_a_stream_by_name_is_read_and_written():
    b = demo()
    b.p.copyInputs(outstream="other")
    b.p.add(stream="other")
    assert levels(b.main) == [0, 1, 2]
    assert levels(b.p.streams["other"]) == [1, 2, 3]


def test_what_goes_to_another_stream_is_independent_of_what_stays():
    b = demo()
    b.p.add(outstream="other", amount=5)
    assert levels(b.main) == [0, 1, 2]
    b.main[0][0].data[:] = 99
    b.main[0].phu["OBJECT"] = "changed"
    assert levels(b.p.streams["other"]) == [5, 6, 7]
    assert b.p.streams["other"][0].phu["OBJECT"] == "target"
    assert "ADDED" not in b.main[0].phu


def test_instream_is_read_and_left_as_it_was():
    b = demo()
    b.p.copyInputs(outstream="sky")
    b.p.add(instream="sky", amount=7)
    assert levels(b.main) == [7, 8, 9]
    assert levels(b.p.streams["sky"]) == [0, 1, 2]


def test_instream_and_outstream_go_from_one_to_the_other():
    b = demo()
    b.p.copyInputs(outstream="a")
    b.p.add(instream="a", outstream="b")
    assert levels(b.p.streams["b"]) == [1, 2, 3]
    assert levels(b.main) == levels(b.p.streams["a"]) == [0, 1, 2]
    assert b.report.steps[-1].stream == "a > b"


def test_a_stream_that_does_not_exist_is_empty():
    b = demo()
    assert b.p.add(stream="absent") == []
    assert levels(b.main) == [0, 1, 2]


def test_frames_given_by_hand_are_treated_and_no_stream_changes():
    b = demo()
    own = [make.frame(50.0, number=9)]
    assert levels(b.p.add(own)) == [51]
    assert levels(b.main) == [0, 1, 2]


# ---- skipping


def test_a_skipped_primitive_changes_nothing_but_the_record():
    b = demo(parameters={"add:skip_primitive": True})
    b.p.add()
    assert levels(b.main) == [0, 1, 2]
    assert b.main[0].filename == make.name(1)
    assert "ADDED" not in b.main[0].phu
    record = b.main[0].history[-1]
    assert (record.primitive, record.status, record.reason) == ("add", "SKIPPED", "skip_primitive was set")
    assert b.report.step("add").summary() == "3 SKIPPED (skip_primitive was set)"


def test_a_recipe_can_skip_and_the_user_can_overrule_it():
    b = demo()
    b.p.add(skip_primitive=True)
    assert levels(b.main) == [0, 1, 2]
    b = demo(parameters={"add:skip_primitive": False})
    b.p.add(skip_primitive=True)
    assert levels(b.main) == [1, 2, 3]


def test_a_skipped_primitive_still_hands_its_inputs_to_its_outstream():
    # Otherwise what follows in a recipe finds an empty stream.
    b = demo(parameters={"add:skip_primitive": True})
    b.p.add(outstream="other")
    assert levels(b.p.streams.get("other", [])) == [0, 1, 2]
    b.p.streams["other"][0][0].data[:] = 99
    assert levels(b.main) == [0, 1, 2]


# ---- outcomes, stamps, names, history


def test_a_step_that_was_done_is_stamped_named_and_recorded():
    b = demo(parameters={"add:amount": 4})
    b.p.add()
    (ad, *_) = b.main
    assert ad.filename == "N20160102S0001_added.fits"
    assert ad.phu["ADDED"][:2] == "20"
    assert "T" in ad.phu["ADDED"]
    assert ad.phu["GEM-TLM"] == ad.phu["ADDED"]
    assert ad.phu.comments["ADDED"] == "UT time stamp for add"
    record = ad.history[-1]
    assert (record.primitive, record.status, record.reason) == ("add", "DONE", "")
    assert record.software == "niripipe test"
    assert json.loads(record.args) == {"suffix": "_added", "amount": 4.0}
    assert record.timestamp_start <= record.timestamp_stop


@pytest.mark.parametrize(
    ("wanted", "status", "reason"),
    [("skip", Status.SKIPPED, "not asked for"), ("other", Status.NOT_NEEDED, "nothing to do")],
)
def test_a_step_that_was_not_done_is_recorded_but_not_stamped_or_named(wanted, status, reason):
    b = demo()
    b.p.pick(wanted=wanted)
    for ad in b.main:
        assert "PICKED" not in ad.phu
        assert "GEM-TLM" not in ad.phu
        assert "_picked" not in ad.filename
        assert (ad.history[-1].status, ad.history[-1].reason) == (status, reason)
    assert b.report.steps[-1].summary() == f"3 {status} ({reason})"


def test_a_primitive_for_lists_says_for_single_frames_what_was_not_done():
    b = demo()
    b.p.join(wanted="note")
    assert [ad.history[-1].status for ad in b.main] == ["SKIPPED", "DONE", "DONE"]
    assert ["JOINED" in ad.phu for ad in b.main] == [False, True, True]


def test_a_step_is_not_done_twice_to_one_frame():
    b = demo()
    b.p.add()
    b.p.add()
    assert levels(b.main) == [1, 2, 3]
    assert b.main[0].history[-1].reason == "already done"


def test_the_suffix_replaces_the_one_before_and_none_keeps_the_name():
    b = demo()
    b.p.pick()
    b.p.add(suffix="_x")
    assert b.main[0].filename == "N20160102S0001_x.fits"
    b = demo()
    b.p.add(suffix=None)
    assert b.main[0].filename == make.name(1)


def test_the_report_knows_where_each_value_came_from():
    b = demo(parameters={"amount": 3})
    b.p.add(suffix="_y")
    step = b.report.step("add")
    assert step.origins == {"suffix": Origin.RECIPE, "amount": Origin.USER}
    assert step.parameters == {"suffix": "_y", "amount": 3.0}
    assert step.seconds > 0


def test_an_unknown_parameter_in_a_recipe_is_refused_before_the_primitive_runs():
    b = demo()
    with pytest.raises(ParameterError, match="Did you mean 'amount'"):
        b.p.add(amont=3)
    assert levels(b.main) == [0, 1, 2]


def test_a_primitive_inside_a_primitive_is_recorded_too():
    b = demo()
    b.p.nested()
    assert levels(b.main) == [10, 11, 12]
    assert [record.primitive for record in b.main[0].history] == ["add", "nested"]


# ---- dropping


def test_one_bad_science_frame_is_dropped_and_named():
    b = demo(droppable=True)
    b.main[1].phu["OBJECT"] = "bad"
    b.p.defeat(wanted="bad")
    assert [ad.orig_filename for ad in b.main] == [make.name(1), make.name(3)]
    (dropped,) = b.report.dropped
    assert (dropped.name, dropped.step) == (make.name(2), "defeat")
    assert "this frame is no good" in dropped.reason


@pytest.mark.parametrize("threads", [1, 2])
def test_when_no_frame_is_left_the_error_is_raised_with_the_primitives_name(threads):
    b = demo(droppable=True, threads=threads)
    with b.runner, pytest.raises(AlgorithmError, match="no result") as caught:
        b.p.defeat(wanted="algorithm")
    assert any("defeat" in note for note in caught.value.__notes__)


def test_a_bad_calibration_frame_raises():
    b = demo(droppable=False)
    b.main[1].phu["OBJECT"] = "bad"
    with pytest.raises(DataError, match="no good"):
        b.p.defeat(wanted="bad")
    assert b.report.dropped == []


def test_a_missing_calibration_is_never_a_reason_to_drop_a_frame():
    b = demo(droppable=True)
    with pytest.raises(CalibrationError):
        b.p.defeat(wanted="calibration")


def test_a_primitive_for_lists_can_drop_a_frame():
    b = demo()
    b.p.join(wanted="drop")
    assert levels(b.main) == [1, 2]
    assert b.report.dropped[0].reason == "it is the first"


# ---- saving


def test_write_outputs_saves_what_the_step_left(tmp_path):
    b = demo(folder=tmp_path, parameters={"add:write_outputs": True})
    b.p.add()
    names = [f"N20160102S{i:04d}_added.fits" for i in (1, 2, 3)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    written = astrodata.open(tmp_path / names[2])
    assert written[0].data[0, 0] == 3
    assert written.history[-1].primitive == "add"
    assert "ADDED" in written.phu
    assert b.report.outputs == [str(tmp_path / name) for name in names]


def test_nothing_is_written_unless_asked(tmp_path):
    b = demo(folder=tmp_path)
    b.p.add()
    assert list(tmp_path.iterdir()) == []
    assert list(Path.cwd().iterdir()) == []


# ---- threads and progress


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_map_inside_a_mapped_primitive_does_not_wait_for_itself(threads):
    b = demo(8, threads=threads)
    with b.runner:
        b.p.deep()
    assert levels(b.main) == [9 + i for i in range(8)]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_whatever_takes_longest(threads):
    b = demo(threads=threads)

    def slow_first(i):
        time.sleep(0.01 if i == 0 else 0)
        return i

    with b.runner:
        assert b.runner.map(slow_first, list(range(12))) == list(range(12))


def test_results_are_identical_for_any_number_of_threads():
    planes = []
    for threads in (1, 2, 4):
        frames = [make.frame(make.noise(i, 30, 500), number=i + 1) for i in range(6)]
        b = make.bench(frames, threads=threads)
        with b.runner:
            b.p.prepare()
            b.p.addDQ(static_bpm=None)
            b.p.ADUToElectrons()
            b.p.addVAR(read_noise=True, poisson_noise=True)
            b.p.stackFrames()
        planes.append([b.main[0][0].read(name) for name in ("data", "variance", "mask")])
    for other in planes[1:]:
        for first, second in zip(planes[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_threads_end_with_the_block():
    before = threading.active_count()
    b = demo(4, threads=3)
    with b.runner:
        b.p.add()
    assert threading.active_count() == before


class Listener:
    def __init__(self):
        self.heard = []
        self.closed = 0

    def update(self, step, done, total):
        self.heard.append((step, done, total))

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("threads", [1, 3])
def test_progress_is_told_frame_by_frame_and_at_the_end(threads):
    listener = Listener()
    b = demo(threads=threads, progress=listener)
    with b.runner:
        b.p.add()
        b.p.join()
    assert listener.heard[:4] == [("add", i, 3) for i in range(4)]
    assert listener.heard[4:] == [("join", 0, 3), ("join", 3, 3)]
    assert listener.closed == 1
