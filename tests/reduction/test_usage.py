"""How many of the frames given are in the product, and how a user learns of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from niripipe import Reduce, astrodata, logutils
from niripipe.logutils import get_logger
from niripipe.primitives.base import DONE
from niripipe.reduction.report import DroppedFrame, RunReport, Step

from .. import frames as make

NAMES = [f"{letter}.fits" for letter in "abcdef"]


def run(*steps: tuple[str, str, str], dropped: dict[str, str] | None = None) -> RunReport:
    """A report with steps (primitive, stream, letters of the frames that came out)."""
    report = RunReport("reduce", "sq", "niripipe test", list(NAMES))
    for primitive, stream, letters in steps:
        outcomes = {f"{letter}.fits": DONE for letter in letters}
        report.steps.append(Step(primitive, stream, {}, {}, outcomes))
    report.dropped += [
        DroppedFrame(f"{k}.fits", "adjustWCSToReference", why) for k, why in (dropped or {}).items()
    ]
    return report


def letters(names) -> str:
    return "".join(name[0] for name in names)


def test_all_frames_in_the_stack_is_no_reason_to_say_anything():
    report = run(("prepare", "main", "abcdef"), ("stackFrames", "main", "a"))
    assert (report.frames_given, report.frames_used) == (6, 6)
    assert report.usage.warning() == ""
    assert "6 of 6 frames used" in str(report)


def test_the_first_frame_is_left_out_on_purpose_and_not_lost():
    report = run(
        ("prepare", "main", "abcdef"), ("removeFirstFrame", "main", "bcdef"), ("stackFrames", "main", "b")
    )
    assert (report.frames_given, report.frames_used) == (5, 5)
    assert report.usage.removed == {"a.fits": "removeFirstFrame"}
    assert not report.usage.warning()
    assert "5 of 5 frames used (1 removed on purpose by removeFirstFrame)" in str(report)


def test_frames_that_could_not_be_aligned_are_lost_with_their_reason():
    report = run(
        ("removeFirstFrame", "main", "bcdef"),
        ("adjustWCSToReference", "main", "be"),
        ("scaleCountsToReference", "main", "be"),
        ("stackFrames", "main", "b"),
        dropped={"c": "too few pairs", "d": "too few pairs", "f": "another field\nwith a second line"},
    )
    assert (report.frames_given, report.frames_used) == (5, 2)
    assert not report.usage.enough
    assert report.usage.warning() == (
        "2 of 5 frames used; left out: c.fits, d.fits (adjustWCSToReference: too few pairs); "
        "f.fits (adjustWCSToReference: another field)"
    )


def test_long_reasons_are_shortened_in_the_warning_only():
    report = run(("stackFrames", "main", "a"), dropped={"f": "too uncertain " * 40})
    assert len(report.usage.warning()) < 220
    assert report.usage.warning().endswith(" ...)")
    assert "too uncertain " * 40 in report.dropped[0].reason


def test_offset_skies_are_no_lost_frames_and_a_frame_without_sky_is_one():
    report = run(
        ("prepare", "main", "abcdef"),
        ("separateSky", "main", "abc"),
        ("associateSky", "sky", "def"),
        ("skyCorrect", "sky > skysub", "def"),
        ("associateSky", "main", "ab"),
        ("skyCorrect", "main", "ab"),
        ("stackFrames", "main", "a"),
    )
    assert letters(report.usage.skies) == "def"
    assert (report.frames_given, report.frames_used) == (3, 2)
    assert "c.fits (associateSky" in report.usage.warning()


def test_two_passes_count_the_frames_of_the_last():
    report = run(
        ("copyInputs", "main > flat_corrected", "abcdef"),
        ("adjustWCSToReference", "main", "abcde"),
        ("keepCommonInputs", "flat_corrected", "abcde"),
        ("stackFrames", "main", "a"),
        ("dilateObjectMask", "flat_corrected > main", "abcde"),
        ("adjustWCSToReference", "main", "abcd"),
        ("stackFrames", "main", "a"),
        dropped={"f": "first", "e": "second"},
    )
    assert letters(report.usage.used) == "abcd"
    assert [lost[2] for lost in report.usage.lost] == ["second", "first"]


def test_a_sky_frame_that_was_left_out_is_said():
    report = run(
        ("prepare", "main", "abcdef"),
        ("separateSky", "main", "abc"),
        ("stackFrames", "main", "a"),
        dropped={"e": "no usable pixel"},
    )
    assert letters(report.usage.skies) == "def"
    assert [lost[0] for lost in report.usage.lost_skies] == ["e.fits"]
    text = "3 of 3 frames used; sky frames left out: e.fits (adjustWCSToReference: no usable pixel)"
    assert report.usage.warning() == text


def test_half_of_the_frames_is_enough_and_less_is_not():
    def usage(letters):
        return run(("adjustWCSToReference", "main", letters), ("stackFrames", "main", "a")).usage

    assert usage("abc").enough
    assert not usage("ab").enough


def test_darks_moved_to_a_stream_of_their_own_are_in_use():
    report = run(
        ("prepare", "main", "abcdef"),
        ("selectFromInputs", "main > darks", "ef"),
        ("selectFromInputs", "main", "abcd"),
        ("stackFrames", "darks", "e"),
        ("makeBPM", "main", "a"),
    )
    assert (report.frames_given, report.frames_used) == (6, 6)


# -- a real run


def stacked(p):
    p.prepare()
    p.removeFirstFrame()
    p.stackFrames()


@pytest.fixture
def science(tmp_path: Path) -> list[Path]:
    files = make.sequence(tmp_path, [5.0, 5.0, 5.0, 5.0, 5.0])
    files[3].write_bytes(files[3].read_bytes()[:5000])
    return files


def test_a_product_says_how_many_frames_were_given_and_which_are_missing(science, tmp_path, caplog):
    r = Reduce(science, recipe=stacked, output_dir=tmp_path / "out")
    r.runr()
    phu = r.outputs[0].phu
    assert (phu["NCOMBINE"], phu["NFRAMES"], phu["LOST001"]) == (3, 4, f"{science[3].name}: input")
    assert (r.report.frames_given, r.report.frames_used) == (4, 3)
    last = caplog.records[-1]
    assert last.levelname == "WARNING"
    assert last.getMessage().startswith(f"3 of 4 frames used; left out: {science[3].name} (input: ")


def test_dropped_frames_and_warnings_are_in_the_product(science, tmp_path):
    def with_a_warning(p):
        p.prepare()
        get_logger("niripipe.tests").warning("between the steps")
        p.stackFrames()

    r = Reduce(science, recipe=with_a_warning, output_dir=tmp_path)
    r.runr()
    product = astrodata.open(r.output_filenames[0])
    row = product.DROPPED[0]
    assert (row["IMAGE"], row["STEP"]) == (science[3].name, "input")
    assert r.report.dropped[0].reason.startswith(row["REASON"][:40])
    warned = [record.reason for record in product.history if record.status == "WARNING"]
    assert "between the steps" in warned
    assert set(warned) < set(r.report.warnings)
    assert r.report.warnings[-1].startswith("4 of 5 frames used")
    assert "warning: between the steps" in str(r.report)


SCRIPT = """
import sys
from niripipe import Reduce, logutils

def stacked(p):
    p.prepare()
    p.removeFirstFrame()
    p.stackFrames()

if sys.argv[1] == "logging":
    logutils.config()
Reduce(sys.argv[3:], recipe=stacked, output_dir=sys.argv[2]).runr()
"""


@pytest.mark.parametrize("set_up", ["logging", "nothing"])
def test_the_user_sees_it_once_with_and_without_logging(science, tmp_path, set_up):
    command = [sys.executable, "-c", SCRIPT, set_up, str(tmp_path / "out"), *map(str, science)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("3 of 4 frames used") == 1
    assert ("FramesLostWarning" in done.stderr) == (set_up == "nothing")


def test_messages_are_heard_by_handlers_of_niripipe_or_of_the_application():
    assert logutils.is_heard(30)  # pytest listens at the root logger
    logutils.config("quiet")
    try:
        assert not logutils.is_heard(30)
        logutils.config("standard")
        assert logutils.is_heard(30)
        logutils.change_level("ERROR")
        assert not logutils.is_heard(30)
    finally:
        logutils.reset()
