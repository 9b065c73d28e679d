"""Progress: shown only on request, on one line, and gone at the end."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

from niripipe.reduction.progress import NO_PROGRESS, ProgressBar, as_progress


def test_the_line_says_which_step_and_how_many_frames():
    stream = io.StringIO()
    progress = ProgressBar(stream, interval=0)
    progress.update("stackFrames", 5, 10)
    assert stream.getvalue().startswith("\rstackFrames")
    assert "50%" in stream.getvalue()
    assert "5/10" in stream.getvalue().split("\r")[-1]
    assert "\n" not in stream.getvalue()


def test_the_line_is_rewritten_in_place_and_cleared_at_the_end():
    stream = io.StringIO()
    progress = ProgressBar(stream, interval=0)
    for step in ("prepare", "addDQ"):
        for done in range(4):
            progress.update(step, done, 3)
    progress.close()
    lines = stream.getvalue().split("\r")
    assert "\n" not in stream.getvalue()
    assert any("prepare" in line and "3/3" in line for line in lines)
    assert any("addDQ" in line and "0/3" in line for line in lines)
    assert lines[-2].strip() == lines[-1] == ""
    length = len(stream.getvalue())
    progress.close()
    assert len(stream.getvalue()) == length


def test_a_step_without_frames_is_shown():
    stream = io.StringIO()
    ProgressBar(stream).update("a", 0, 0)
    assert "a: 0" in stream.getvalue()


def test_nothing_is_shown_unless_asked(capsys):
    for value in (None, False):
        progress = as_progress(value)
        assert progress is NO_PROGRESS
        progress.update("a", 1, 2)
        progress.close()
    assert capsys.readouterr() == ("", "")


def test_true_means_a_line_on_the_standard_error_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    as_progress(True).update("addDQ", 1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "addDQ" in captured.err


def test_nothing_is_written_into_files_and_pipes(capsys):
    progress = as_progress(True)
    progress.update("addDQ", 1, 2)
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_the_line_does_not_change_faster_than_its_interval():
    stream = io.StringIO()
    progress = ProgressBar(stream, interval=3600)
    for done in range(9):
        progress.update("first", done, 9)
    assert "8/9" not in stream.getvalue()
    hurried = ProgressBar(stream, interval=0)
    for done in range(9):
        hurried.update("second", done, 9)
    assert "8/9" in stream.getvalue()


def test_no_thread_is_left_behind():
    before = threading.enumerate()
    progress = ProgressBar(io.StringIO())
    progress.update("a", 1, 2)
    progress.close()
    assert threading.enumerate() == before


def test_the_bar_is_only_imported_when_it_is_shown():
    code = "import sys, niripipe.reduction; assert 'tqdm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_object_of_the_users_own_is_taken_as_it_is():
    mine = ProgressBar(io.StringIO())
    assert as_progress(mine) is mine
