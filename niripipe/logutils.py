"""Logging for niripipe: warnings are seen by default, one call shows or keeps the rest.

All messages go to loggers named ``niripipe`` or ``niripipe.<module>``. Nothing is ever done to the root
logger, to the handlers of the application, or to the table of level names of `logging`.

Until `config` is called the ``niripipe`` logger hands its messages on to the application's root handlers,
under the application's own levels. Where there are none, Python's handler of last resort prints warnings and
errors to the standard error, and nothing else. After `config` the handlers named there report, and messages
are no longer handed on to the root logger: either way each message appears once. An application that wants
both says ``propagate=True``.

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
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from niripipe.errors import ParameterError, storage_faults
from niripipe.printable import printable

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
    "is_heard",
    "level_name",
    "listening",
    "reset",
]

STATUS = 25
STDINFO = 21
FULLINFO = 15

MODES = ("standard", "quiet", "debug", "verbose", "rotating")

_LEVEL_NAMES = {STATUS: "STATUS", STDINFO: "STDINFO", FULLINFO: "FULLINFO"}
_CONSOLE_LEVELS = {"standard": STDINFO, "debug": logging.DEBUG, "verbose": FULLINFO}
_INDENT = "   "


class NiripipeLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger of the ``niripipe`` hierarchy, with methods for the three extra levels.

    Obtained from `get_logger`. It behaves like a `logging.Logger` (``debug`` ... ``critical``,
    ``exception``, ``log``, ``isEnabledFor``, ``setLevel``), and each record carries the name of its level
    and the depth of `indented` where the message was written.
    """

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return message and arguments as they are; the inherited method would drop ``extra``."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at a level, and hand the message to whoever is `listening`, whatever levels are shown."""
        for lowest, take in _listeners.get():
            if level >= lowest:
                message = logging.LogRecord(self.name, level, "", 0, msg, args, None).getMessage()
                take(level, printable(message, lines=True))
        if _shown.get():
            super().log(level, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def status(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level STATUS (25): banners and names of steps."""
        self.log(STATUS, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def stdinfo(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level STDINFO (21): what a user normally wants to know."""
        self.log(STDINFO, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def fullinfo(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level FULLINFO (15): detail."""
        self.log(FULLINFO, msg, *args, stacklevel=stacklevel + 1, **kwargs)


def _complete(record: logging.LogRecord) -> bool:
    """Give a record what only niripipe knows; a filter of our loggers, which keeps every record."""
    # Set here and not in a table of `logging`, so that handlers of the application show the name too.
    record.levelname = level_name(record.levelno)
    message = record.getMessage()
    if (shown := printable(message, lines=True)) != message:
        # Headers must not control the terminal, whoever's handler writes to it.
        record.msg, record.args = shown, ()
    record.indent = _depth.get()
    return True


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
        What the console (standard error; in a notebook the standard output) shows: STDINFO and above;
        nothing; DEBUG and above (the file too, with the name of the logger); FULLINFO and above; nothing,
        with a file that is started afresh every midnight.
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
        new = {_identity(handler) for handler in ours}
        kept = {h: own for h, own in _installed.items() if _identity(h) not in new} if keep_handlers else {}
        given = {handler: _installed.get(handler, False) for handler in extra}
        _install(kept | dict.fromkeys(ours, True) | given)
        _logger.setLevel(_lowest_level())
        _logger.propagate = propagate


def reset() -> None:
    """Undo `config`: messages go to the root logger again; without handlers there, warnings are printed."""
    with _lock:
        _install({})
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
    if name and name != _logger.name and not name.startswith(f"{_logger.name}."):
        name = f"{_logger.name}.{name}"
    logger = logging.getLogger(name or _logger.name)
    logger.addFilter(_complete)  # adds nothing twice
    return NiripipeLogger(logger, {})


def change_level(new_level: int | str | None = None) -> None:
    """Change the lowest level that the console shows; the log file is not affected.

    Parameters
    ----------
    new_level : int, str or None
        The level as a number or a name; None changes nothing.

    Raises
    ------
    ParameterError
        The level is unknown.
    """
    if new_level is None:
        return
    number = _level(new_level)
    with _lock:
        for handler in _installed:
            if isinstance(handler, _ConsoleHandler):
                handler.setLevel(number)
        if _installed:
            _logger.setLevel(_lowest_level())


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


@contextmanager
def listening(take: Callable[[int, str], object], level: int | str, *, shown: bool = True) -> Iterator[None]:
    """Hand a function the messages that are written inside the ``with`` block, whatever is shown of them.

    This holds for the running thread or task, so that reductions in several threads are not mixed up.
    Loggers, handlers and levels are not changed.

    Parameters
    ----------
    take : callable
        Called with level and text of each message.
    level : int or str
        The lowest level wanted.
    shown : bool
        Whether the messages go to the loggers as well.
    """
    ears = _listeners.set((*_listeners.get(), (_level(level), take)))
    voice = _shown.set(_shown.get() and shown)
    try:
        yield
    finally:
        _listeners.reset(ears)
        _shown.reset(voice)


def is_heard(level: int) -> bool:
    """Return whether any handler, of niripipe or of the application, gets messages of a level.

    Python's handler of last resort does not count. Inside of `listening` without `shown` somebody listens.
    """
    if not _shown.get():
        return True
    logger: logging.Logger | None = _logger
    if not _logger.isEnabledFor(level):
        return False
    while logger is not None:
        if any(h.level <= level and not isinstance(h, logging.NullHandler) for h in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def level_name(level: int) -> str:
    """Return the name of a level: ``"STATUS"``, ``"WARNING"``, ... or ``"Level 22"``."""
    return _LEVEL_NAMES.get(level) or logging.getLevelName(level)


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is at the time, which tests exchange; in a notebook to the output.

    Notebooks show the standard error in red, and keep it so when they are saved.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        in_notebook = type(sys.stderr).__module__.startswith("ipykernel.")
        return sys.stdout if in_notebook else sys.stderr


class _LineFormatter(logging.Formatter):
    """Formats the message first and splits it then, so that every line gets its prefix and indentation."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        prefix = self._prefix(record) + _INDENT * getattr(record, "indent", 0)
        text = printable(record.message, lines=True)
        return "\n".join((prefix + line).rstrip() for line in text.splitlines() or [""])

    def _prefix(self, record: logging.LogRecord) -> str:
        ordinary = logging.DEBUG < record.levelno < logging.WARNING
        return "" if ordinary else f"{level_name(record.levelno)} - "


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
        console.setFormatter(_LineFormatter())
        handlers.append(console)
    # A logger without handlers prints its warnings.
    return handlers or [logging.NullHandler()]


def _file_handler(path: Path, stomp: bool, *, rotating: bool) -> logging.Handler:
    remedy = "Choose a file in an existing folder that you may write to"
    with storage_faults("the log file cannot be written", path, remedy=remedy):
        if rotating:
            from logging.handlers import TimedRotatingFileHandler

            if stomp:
                path.write_bytes(b"")
            return TimedRotatingFileHandler(path, when="midnight", encoding="utf-8")
        return logging.FileHandler(path, mode="w" if stomp else "a", encoding="utf-8")


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
    """Return what two handlers have in common if both write to the same destination."""
    if isinstance(handler, _ConsoleHandler):
        return _ConsoleHandler
    if isinstance(handler, logging.FileHandler):
        return handler.baseFilename
    return id(handler)


def _lowest_level() -> int:
    """Return the lowest level that a handler wants."""
    return min((h.level for h in _installed if h.level != logging.NOTSET), default=STDINFO)


def _install(handlers: dict[logging.Handler, bool]) -> None:
    """Replace what an earlier call has set up; only handlers made here are closed."""
    for handler in _installed.keys() - handlers.keys():
        _logger.removeHandler(handler)
        if _installed[handler]:
            handler.close()
    for handler in handlers:
        _logger.addHandler(handler)  # adds nothing twice
    _installed.clear()
    _installed.update(handlers)


_logger = logging.getLogger("niripipe")
_depth: ContextVar[int] = ContextVar("niripipe_log_depth", default=0)
_listeners: ContextVar[tuple[tuple[int, Callable[[int, str], object]], ...]] = ContextVar(
    "niripipe_log_listeners", default=()
)
_shown: ContextVar[bool] = ContextVar("niripipe_log_shown", default=True)
_lock = threading.RLock()
_installed: dict[logging.Handler, bool] = {}
"""The handlers of `config`, and whether they were made here."""
