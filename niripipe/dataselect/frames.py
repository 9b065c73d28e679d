"""Descriptors of frames, asked for once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, lru_cache, partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.dataselect.comparison import Lookup
from niripipe.errors import InputError

__all__ = ["ask", "lookup_of"]

#: Files whose answers are remembered.
_REMEMBERED: Final = 512


def ask(ad: AstroData, name: str, pretty: bool) -> Any:
    """Ask a data set for a descriptor; one that its class does not have is unknown, that is, None."""
    if name == "tags":
        return ad.tags
    method = getattr(type(ad), name, None)
    if method is None:
        return None
    return method(ad, pretty=True) if pretty and _takes_pretty(method) else method(ad)


@cache
def _takes_pretty(method: Callable[..., Any]) -> bool:
    return "pretty" in inspect.signature(method).parameters


@lru_cache(maxsize=_REMEMBERED)
def _lookup_of_file(path: str, stamp: tuple[int, int, int]) -> Lookup:
    """Read the headers of a file; `stamp` tells the cache when the file has changed."""
    return cache(partial(ask, astrodata.open(path)))


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InputError(
            "The file cannot be found", file=path, found=getattr(error, "strerror", None) or error
        ) from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def lookup_of(item: str | PathLike[str] | AstroData) -> Lookup:
    """Return `ask` for a frame, which remembers the answers.

    Headers of files are read once, as long as time and size of the file stay the same.
    """
    if isinstance(item, AstroData):
        return cache(partial(ask, item))
    path = str(Path(fspath(item)).absolute())
    return _lookup_of_file(path, _stamp(path))
