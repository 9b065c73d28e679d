from __future__ import annotations

import io
import logging
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from niripipe import logutils
from niripipe.errors import ParameterError, StorageError


@pytest.fixture(autouse=True)
def _silent_again() -> Iterator[None]:
    yield
    logutils.reset()


@pytest.fixture
def log() -> logutils.NiripipeLogger:
    return logutils.get_logger("niripipe.tests")


class _Collector(logging.Handler):
    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def root_handler() -> Iterator[_Collector]:
    handler = _Collector()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_without_set_up_warnings_are_printed_once_and_nothing_else():
    code = """
from niripipe import logutils
log = logutils.get_logger("niripipe.tests")
log.status("working")
log.warning("careful %s", "\\x1b[31m")
logutils.config("quiet")
log.warning("quiet")
logutils.config("standard")
log.warning("shown")
logutils.reset()
import logging
logging.basicConfig(format="host %(message)s")
log.warning("hosted")
log.stdinfo("detail")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "careful \\x1b[31m\nWARNING - shown\nhost hosted\n")


def test_a_listener_gets_messages_of_its_thread_whatever_is_shown(log, root_handler):
    heard: list[tuple[int, str]] = []
    logutils.config("quiet")
    with logutils.listening(lambda level, text: heard.append((level, text)), logutils.FULLINFO):
        log.fullinfo("frame %d", 1)
        log.debug("no")
        other = threading.Thread(target=log.warning, args=("of another thread",))
        other.start()
        other.join()
    log.warning("later")
    assert heard == [(15, "frame 1")]
    logutils.reset()
    with logutils.listening(lambda *_: None, "DEBUG", shown=False):
        assert logutils.is_heard(logging.WARNING)
        log.warning("for the listener alone")
    assert root_handler.records == []


def test_root_logger_and_level_names_are_never_touched(log, tmp_path):
    root = logging.getLogger()
    before = (list(root.handlers), root.level, list(root.filters), logging.getLevelNamesMapping())
    logutils.config("debug", tmp_path / "a.log", additional_handlers=_Collector())
    log.status("one")
    assert (list(root.handlers), root.level, list(root.filters), logging.getLevelNamesMapping()) == before
    assert logging.getLoggerClass() is logging.Logger
    assert not hasattr(logging.getLogger("niripipe.tests"), "status")


def test_each_message_appears_once_on_the_console_and_once_in_the_file(log, capsys, tmp_path):
    for _ in range(3):
        logutils.config(file_name=tmp_path / "night.log")
    log.stdinfo("frame %s", "N1.fits")
    assert capsys.readouterr().err == "frame N1.fits\n"
    assert (tmp_path / "night.log").read_text().count("frame N1.fits") == 1


def test_application_with_root_handlers_sees_each_message_once_before_config(log, root_handler):
    log.warning("once")
    assert [r.getMessage() for r in root_handler.records] == ["once"]


def test_after_config_only_the_configured_handlers_report(log, root_handler, capsys):
    logutils.config()
    log.warning("once")
    assert capsys.readouterr().err == "WARNING - once\n"
    assert root_handler.records == []


def test_propagation_can_be_asked_for(log, root_handler, capsys):
    logutils.config("quiet", propagate=True)
    log.status("both")
    assert [(r.levelname, r.getMessage()) for r in root_handler.records] == [("STATUS", "both")]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("mode", "on_console", "in_file"),
    [
        ("standard", {50, 30, 25, 21}, {50, 30, 25, 21, 20, 15}),
        ("quiet", set(), {50, 30, 25, 21, 20, 15}),
        ("rotating", set(), {50, 30, 25, 21, 20, 15}),
        ("verbose", {50, 30, 25, 21, 20, 15}, {50, 30, 25, 21, 20, 15}),
        ("debug", {50, 30, 25, 21, 20, 15, 10}, {50, 30, 25, 21, 20, 15, 10}),
    ],
)
def test_modes_choose_what_console_and_file_get(mode, on_console, in_file, log, capsys, tmp_path):
    logutils.config(mode, tmp_path / "x.log")
    for level in (50, 30, 25, 21, 20, 15, 10, 5):
        log.log(level, "message %d.", level)
    shown = {int(n) for n in re.findall(r"message (\d+)\.", capsys.readouterr().err)}
    kept = {int(n) for n in re.findall(r"message (\d+)\.", (tmp_path / "x.log").read_text())}
    assert (shown, kept) == (on_console, in_file)


def test_file_level_is_obeyed_by_number_and_by_name(log, tmp_path):
    for level in (STATUS := logutils.STATUS, "status"):
        logutils.config("quiet", tmp_path / "x.log", file_lvl=level, stomp=True)
        log.stdinfo("no")
        log.log(STATUS, "yes")
        assert "no" not in (tmp_path / "x.log").read_text()
        assert "yes" in (tmp_path / "x.log").read_text()


def test_file_lines_have_time_and_level_and_debug_adds_the_logger(log, tmp_path):
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    logutils.config("quiet", tmp_path / "a.log")
    log.status("hello")
    assert re.fullmatch(stamp + r" STATUS   - hello\n", (tmp_path / "a.log").read_text())
    logutils.config("debug", tmp_path / "b.log")
    log.debug("hello")
    assert re.fullmatch(
        stamp + rf" {'niripipe.tests':<40} DEBUG    - hello\n", (tmp_path / "b.log").read_text()
    )


def test_stomp_overwrites_and_otherwise_the_file_grows(log, tmp_path):
    path = tmp_path / "a.log"
    for stomp, expected in ((False, 1), (False, 2), (True, 1)):
        logutils.config("quiet", path, stomp=stomp)
        log.status("hello")
        assert path.read_text().count("hello") == expected


def test_every_line_of_a_message_is_formatted_after_its_arguments_went_in(log, capsys):
    logutils.config()
    log.warning("first %s\nthird %d", "a\nsecond", 3)
    assert capsys.readouterr().err.splitlines() == [
        "WARNING - first a",
        "WARNING - second",
        "WARNING - third 3",
    ]


def test_messages_that_are_not_text_are_shown(log, capsys):
    logutils.config()
    log.error(ValueError("broken"))
    log.stdinfo("")
    assert capsys.readouterr().err == "ERROR - broken\n\n"


def test_exceptions_come_with_their_traceback(log, capsys):
    logutils.config()
    try:
        raise ValueError("boom")
    except ValueError as err:
        log.exception("failed")
        log.error("again", exc_info=err)
    assert capsys.readouterr().err.count("ValueError: boom") == 2


def test_indentation_nests_and_is_restored_after_an_error(log, capsys):
    logutils.config()

    def fails() -> None:
        with logutils.indented(), logutils.indented(2):
            log.stdinfo("deep\nlines")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    log.stdinfo("flat")
    assert capsys.readouterr().err == "         deep\n         lines\nflat\n"


def test_indentation_of_one_thread_does_not_show_in_another(log, capsys):
    logutils.config()
    with logutils.indented():
        thread = threading.Thread(target=lambda: log.stdinfo("other"))
        thread.start()
        thread.join()
        log.stdinfo("mine")
    assert capsys.readouterr().err == "other\n   mine\n"


def test_additional_handlers_get_messages_and_are_given_back_unclosed(log):
    stream = io.StringIO()
    mine = logging.StreamHandler(stream)
    logutils.config("quiet", additional_handlers=mine)
    log.stdinfo("one")
    log.debug("not asked for")
    logutils.config("quiet")
    log.stdinfo("two")
    assert stream.getvalue() == "one\n"
    mine.stream.write("still open")


def test_a_handler_with_a_low_level_of_its_own_gets_that_level(log):
    mine = _Collector(logging.DEBUG)
    logutils.config("quiet", additional_handlers=[mine])
    log.debug("detail")
    assert len(mine.records) == 1


def test_kept_handlers_do_not_make_duplicates(log, capsys, tmp_path):
    logutils.config(file_name=tmp_path / "a.log")
    logutils.config(file_name=tmp_path / "a.log", keep_handlers=True)
    logutils.config("standard", tmp_path / "b.log", keep_handlers=True)
    log.status("hello")
    assert capsys.readouterr().err == "hello\n"
    assert (tmp_path / "a.log").read_text().count("hello") == 1
    assert (tmp_path / "b.log").read_text().count("hello") == 1


def test_handlers_of_the_application_on_our_logger_are_left_alone(log):
    mine = _Collector()
    logging.getLogger("niripipe").addHandler(mine)
    try:
        logutils.config("quiet")
        logutils.config("quiet")
        log.status("hello")
        assert len(mine.records) == 1
    finally:
        logging.getLogger("niripipe").removeHandler(mine)


def test_change_level_moves_the_console_only(log, capsys, tmp_path):
    logutils.config(file_name=tmp_path / "a.log")
    logutils.change_level("WARNING")
    log.status("hidden")
    assert capsys.readouterr().err == ""
    assert "hidden" in (tmp_path / "a.log").read_text()
    logutils.change_level(10)
    log.debug("seen")
    assert capsys.readouterr().err == "DEBUG - seen\n"


def test_log_file_that_cannot_be_written_is_reported_and_changes_nothing(log, capsys, tmp_path):
    logutils.config()
    with pytest.raises(StorageError, match="log file cannot be written") as caught:
        logutils.config("quiet", tmp_path / "no" / "such.log")
    assert caught.value.file == str(tmp_path / "no" / "such.log")
    log.status("as before")
    assert capsys.readouterr().err == "as before\n"


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "loud"},
        {"mode": "rotating"},
        {"file_lvl": "CHATTY"},
        {"file_lvl": -1},
        {"file_lvl": True},
        {"additional_handlers": ["x"]},
    ],
)
def test_bad_arguments_are_parameter_errors(arguments):
    with pytest.raises(ParameterError):
        logutils.config(**arguments)


def test_an_unknown_mode_names_the_choices():
    with pytest.raises(ParameterError, match=r"loud.*standard.*quiet.*debug.*verbose.*rotating"):
        logutils.config("loud")


def test_records_name_the_caller(log):
    mine = _Collector()
    logutils.config("quiet", additional_handlers=mine)
    log.status("a")
    log.warning("b")
    log.log(30, "c")
    assert {(Path(r.pathname).name, r.funcName) for r in mine.records} == {
        (Path(__file__).name, "test_records_name_the_caller")
    }


@pytest.mark.parametrize(
    ("name", "full"),
    [
        (None, "niripipe"),
        ("niripipe", "niripipe"),
        ("niripipe.reduction.run", "niripipe.reduction.run"),
        ("__main__", "niripipe.__main__"),
        ("niripipes", "niripipe.niripipes"),
    ],
)
def test_loggers_stay_in_the_hierarchy(name, full):
    assert logutils.get_logger(name).name == full


def test_loggers_cross_process_borders(log):
    assert pickle.loads(pickle.dumps(log)).name == log.name  # noqa: S301


def test_unused_log_files_are_closed(tmp_path, log):
    logutils.config("quiet", tmp_path / "a.log")
    handler = logging.getLogger("niripipe").handlers[-1]
    assert isinstance(handler, logging.FileHandler)
    logutils.reset()
    assert handler.stream is None or handler.stream.closed


def test_level_names():
    assert [logutils.level_name(n) for n in (25, 21, 15, 30, 22)] == [
        "STATUS",
        "STDINFO",
        "FULLINFO",
        "WARNING",
        "Level 22",
    ]
