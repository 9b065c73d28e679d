"""Logging for niripipe: silent by default, one call to see or keep what happens.

All messages go to loggers named ``niripipe`` or ``niripipe.<module>``. Nothing is ever done to the root
logger, to the handlers of the application, or to the table of level names of `logging`.

Until `config` is called nothing is shown: the ``niripipe`` logger has a `logging.NullHandler` and hands
its messages on to the application's root handlers, if there are any, under the application's own levels.
After `config` the handlers named there report, and messages are no longer handed on to the root logger:
either way each message appears once. An application that wants both says ``propagate=True``.

Three levels are used besides those of Python:

========  =====  =====================================
STATUS    25     banners, names of steps
STDINFO   21     what a user normally wants to know
FULLINFO  15     detail
========  =====  =====================================
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from niripipe.errors import ParameterError, StorageError

__all__ = [
    "FULLINFO",
    "MODES",
    "STATUS",
    "STDINFO",
    "NiripipeLogger",
    "change_level",
    "config",
    "get_logger",
    "indented",
    "level_name",
    "reset",
]

STATUS = 25
STDINFO = 21
FULLINFO = 15

MODES = ("standard", "quiet", "debug", "verbose", "rotating")

_ROOM = "niripipe"
_LEVEL_NAMES = {STATUS: "STATUS", STDINFO: "STDINFO", FULLINFO: "FULLINFO"}
_CONSOLE_LEVELS = {"standard": STDINFO, "debug": logging.DEBUG, "verbose": FULLINFO}
_INDENT = "   "

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class NiripipeLogger(_Adapter):
    """A logger of the ``niripipe`` hierarchy, with methods for the three extra levels.

    Obtained from `get_logger`. It behaves like a `logging.Logger` (``debug`` ... ``critical``,
    ``exception``, ``log``, ``isEnabledFor``, ``setLevel``), and each record carries the name of its level
    and the depth of `indented` at the place where the message was written.
    """

    def status(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at level STATUS (25): banners and names of steps."""
        self._log_one_up(STATUS, msg, args, kwargs)

    def stdinfo(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at level STDINFO (21): what a user normally wants to know."""
        self._log_one_up(STDINFO, msg, args, kwargs)

    def fullinfo(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at level FULLINFO (15): detail."""
        self._log_one_up(FULLINFO, msg, args, kwargs)

    def log(
        self,
        level: int,
        msg: object,
        *args: object,
        exc_info: Any = None,
        stack_info: bool = False,
        stacklevel: int = 1,
        extra: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Log at a numeric level; the arguments are those of `logging.Logger.log`."""
        if not self.isEnabledFor(level):
            return
        path, line, function, stack = self.logger.findCaller(stack_info, stacklevel + 1)
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        elif exc_info and not isinstance(exc_info, tuple):
            exc_info = sys.exc_info()
        record = self.logger.makeRecord(
            self.logger.name, level, path, line, msg, args, exc_info or None, function, extra, stack
        )
        # Set here and not in a table of `logging`, so that handlers of the application show the name too.
        record.levelname = level_name(level)
        record.indent = _depth.get()
        self.logger.handle(record)

    def _log_one_up(self, level: int, msg: object, args: tuple[object, ...], kwargs: dict[str, Any]) -> None:
        stacklevel = kwargs.pop("stacklevel", 1)
        self.log(level, msg, *args, stacklevel=stacklevel + 2, **kwargs)


def config(
    mode: str = "standard",
    file_name: str | PathLike[str] | None = None,
    file_lvl: int | str = FULLINFO,
    stomp: bool = False,
    additional_handlers: logging.Handler | Iterable[logging.Handler] | None = None,
    keep_handlers: bool = False,
    *,
    propagate: bool = False,
) -> None:
    """Show niripipe's messages on the console and keep them in a file.

    A second call replaces what the first one set up, so messages never appear twice. Handlers that the
    application itself attached to the ``niripipe`` logger are left alone.

    Parameters
    ----------
    mode : {"standard", "quiet", "debug", "verbose", "rotating"}
        What the console (standard error) shows: STDINFO and above; nothing; DEBUG and above (the file too,
        with the name of the logger); FULLINFO and above; nothing, with a file that is started afresh every
        midnight.
    file_name : path-like, optional
        The log file. Without it no file is written. Required by ``mode="rotating"``.
    file_lvl : int or str
        The lowest level written to the file, as a number or a name such as ``"INFO"``.
    stomp : bool
        Overwrite the file instead of appending to it.
    additional_handlers : logging.Handler or iterable of logging.Handler, optional
        Further handlers. They stay the caller's: a later call detaches them but does not close them. A
        handler without a level of its own receives what the console and the file receive.
    keep_handlers : bool
        Keep what an earlier call set up and add to it. A second console, or a second handler for the same
        file, replaces the first.
    propagate : bool
        Hand messages on to the handlers of the root logger as well.

    Raises
    ------
    ParameterError
        An unknown mode or level, a handler that is none, or ``mode="rotating"`` without a file.
    StorageError
        The file cannot be written. What was set up before stays as it was.
    """
    if mode not in MODES:
        raise ParameterError(
            "unknown logging mode", item="mode", found=mode, expected=" or ".join(map(repr, MODES))
        )
    ours = _console_and_file(mode, file_name, _level(file_lvl), stomp)
    extra = _as_handlers(additional_handlers)
    with _lock:
        if keep_handlers:
            new = {_identity(handler) for handler in ours}
            kept = [h for h in _installed if _identity(h) not in new and h not in extra]
        else:
            kept = []
        _replace([*kept, *ours, *extra], own=ours)
        levels = [handler.level for handler in _installed if handler.level != logging.NOTSET]
        _logger.setLevel(min(levels, default=STDINFO))
        _logger.propagate = propagate


def reset() -> None:
    """Undo `config`: niripipe is silent again, and hands its messages on to the root logger."""
    with _lock:
        _replace([], own=[])
        _logger.setLevel(logging.NOTSET)
        _logger.propagate = True


def get_logger(name: str | None = None) -> NiripipeLogger:
    """Return the logger of a module.

    Parameters
    ----------
    name : str, optional
        Usually ``__name__``. A name outside the hierarchy, such as that of a user's script, is placed
        below ``niripipe``, so that its messages go where niripipe's go.

    Returns
    -------
    NiripipeLogger
    """
    if not name or name == _ROOM:
        return NiripipeLogger(_logger, {})
    if not name.startswith(f"{_ROOM}."):
        name = f"{_ROOM}.{name}"
    return NiripipeLogger(logging.getLogger(name), {})


def change_level(level: int | str) -> None:
    """Change the lowest level that the console shows; the log file is not affected.

    Parameters
    ----------
    level : int or str
        The level as a number or a name.

    Raises
    ------
    ParameterError
        The level is unknown.
    """
    number = _level(level)
    with _lock:
        for handler in _installed:
            if isinstance(handler, _ConsoleHandler):
                handler.setLevel(number)
        levels = [handler.level for handler in _installed if handler.level != logging.NOTSET]
        if levels:
            _logger.setLevel(min(levels))


@contextmanager
def indented(levels: int = 1) -> Iterator[None]:
    """Indent the messages written inside the ``with`` block, by three blanks a level.

    The depth belongs to the running thread or task: others are not affected, and it is restored however
    the block is left.
    """
    token = _depth.set(_depth.get() + levels)
    try:
        yield
    finally:
        _depth.reset(token)


def level_name(level: int) -> str:
    """Return the name of a level: ``"STATUS"``, ``"WARNING"``, ... or ``"Level 22"``."""
    return _LEVEL_NAMES.get(level) or logging.getLevelName(level)


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time, which notebooks and tests exchange."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _LineFormatter(logging.Formatter):
    """Formats the message first and splits it then, so that every line gets its prefix and indentation."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        prefix = self._prefix(record)
        indent = _INDENT * getattr(record, "indent", 0)
        lines = record.message.splitlines() or [""]
        return "\n".join((prefix + indent + line).rstrip() for line in lines)

    def _prefix(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


class _ConsoleFormatter(_LineFormatter):
    def _prefix(self, record: logging.LogRecord) -> str:
        if record.levelno <= logging.DEBUG or record.levelno >= logging.WARNING:
            return f"{level_name(record.levelno)} - "
        return ""


class _FileFormatter(_LineFormatter):
    def __init__(self, *, with_name: bool) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._with_name = with_name

    def _prefix(self, record: logging.LogRecord) -> str:
        name = f"{record.name:<40} " if self._with_name else ""
        return f"{self.formatTime(record, self.datefmt)} {name}{level_name(record.levelno):<8} - "


def _console_and_file(
    mode: str, file_name: str | PathLike[str] | None, file_level: int, stomp: bool
) -> list[logging.Handler]:
    handlers: list[logging.Handler] = []
    if mode == "rotating" and file_name is None:
        raise ParameterError(
            "a rotating log needs a file", item="file_name", remedy="Give file_name, or choose another mode"
        )
    if file_name is not None:
        handler = _file_handler(Path(file_name).expanduser(), stomp, rotating=mode == "rotating")
        handler.setLevel(logging.DEBUG if mode == "debug" else file_level)
        handler.setFormatter(_FileFormatter(with_name=mode == "debug"))
        handlers.append(handler)
    if mode in _CONSOLE_LEVELS:
        console = _ConsoleHandler()
        console.setLevel(_CONSOLE_LEVELS[mode])
        console.setFormatter(_ConsoleFormatter())
        handlers.append(console)
    return handlers


def _file_handler(path: Path, stomp: bool, *, rotating: bool) -> logging.Handler:
    try:
        if rotating:
            from logging.handlers import TimedRotatingFileHandler

            if stomp:
                path.write_bytes(b"")
            return TimedRotatingFileHandler(path, when="midnight", encoding="utf-8")
        return logging.FileHandler(path, mode="w" if stomp else "a", encoding="utf-8")
    except OSError as err:
        raise StorageError(
            "the log file cannot be written",
            file=path,
            found=err.strerror or str(err),
            remedy="Choose a file in an existing folder that you may write to",
        ) from err


def _as_handlers(value: logging.Handler | Iterable[logging.Handler] | None) -> list[logging.Handler]:
    if value is None:
        return []
    handlers = [value] if isinstance(value, logging.Handler) else list(value)
    for handler in handlers:
        if not isinstance(handler, logging.Handler):
            raise ParameterError(
                "not a logging handler", item="additional_handlers", found=handler, expected="logging.Handler"
            )
    return handlers


def _level(value: int | str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        names = {name: number for number, name in _LEVEL_NAMES.items()} | logging.getLevelNamesMapping()
        if value.upper() in names:
            return names[value.upper()]
    raise ParameterError(
        "unknown logging level",
        item="level",
        found=value,
        expected="a number, or DEBUG, FULLINFO, INFO, STDINFO, STATUS, WARNING, ERROR or CRITICAL",
    )


def _identity(handler: logging.Handler) -> object:
    """Return what two handlers have in common if both would show the same message at the same place."""
    if isinstance(handler, _ConsoleHandler):
        return _ConsoleHandler
    if isinstance(handler, logging.FileHandler):
        return handler.baseFilename
    return id(handler)


def _replace(handlers: list[logging.Handler], *, own: list[logging.Handler]) -> None:
    for handler in [h for h in _installed if h not in handlers]:
        _logger.removeHandler(handler)
        if handler in _own:
            handler.close()
    for handler in handlers:
        _logger.addHandler(handler)  # adds nothing twice
    _own[:] = [h for h in handlers if h in own or h in _own]
    _installed[:] = handlers


_logger = logging.getLogger(_ROOM)
_logger.addHandler(logging.NullHandler())
_depth: ContextVar[int] = ContextVar("niripipe_log_depth", default=0)
_lock = threading.RLock()
_installed: list[logging.Handler] = []
_own: list[logging.Handler] = []
