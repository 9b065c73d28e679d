"""Progress: shown only on request, on one line, and gone at the end."""

from __future__ import annotations

import io

from niripipe.reduction.progress import NO_PROGRESS, TextProgress, as_progress


def test_the_line_says_which_step_and_how_many_frames():
    stream = io.StringIO()
    TextProgress(stream).update("stackFrames", 5, 10)
    assert stream.getvalue().startswith("\rstackFrames")
    assert "##########" in stream.getvalue()
    assert "5/10" in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_the_line_is_rewritten_in_place_and_cleared_at_the_end():
    stream = io.StringIO()
    progress = TextProgress(stream)
    progress.update("a", 1, 1)
    progress.close()
    assert stream.getvalue().split("\r")[-2].strip() == ""
    length = len(stream.getvalue())
    progress.close()
    assert len(stream.getvalue()) == length


def test_a_step_without_frames_is_shown():
    stream = io.StringIO()
    TextProgress(stream).update("a", 0, 0)
    assert "0/0" in stream.getvalue()


def test_nothing_is_shown_unless_asked(capsys):
    for value in (None, False):
        progress = as_progress(value)
        assert progress is NO_PROGRESS
        progress.update("a", 1, 2)
        progress.close()
    assert capsys.readouterr() == ("", "")


def test_true_means_text_on_the_standard_error_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    as_progress(True).update("addDQ", 1, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "addDQ" in captured.err


def test_nothing_is_written_where_a_line_cannot_be_rewritten(capsys):
    as_progress(True).update("addDQ", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_the_line_does_not_change_faster_than_its_interval():
    stream = io.StringIO()
    progress = TextProgress(stream, interval=3600)
    progress.update("first", 1, 9)
    progress.update("second", 2, 9)
    assert "second" not in stream.getvalue()
    hurried = TextProgress(stream, interval=0)
    hurried.update("third", 1, 9)
    hurried.update("fourth", 2, 9)
    assert "fourth" in stream.getvalue()


def test_an_object_of_the_users_own_is_taken_as_it_is():
    mine = TextProgress(io.StringIO())
    assert as_progress(mine) is mine
