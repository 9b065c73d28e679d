"""Finding the class of a data set, opening files, and making data sets from nothing."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from astropy.io import fits

from niripipe.astrodata.core import AstroData
from niripipe.astrodata.fits_read import read_file, read_hdus
from niripipe.astrodata.headers import header_value, watched
from niripipe.astrodata.slices import Parts
from niripipe.errors import DataError, InputError, NiripipeError

__all__ = ["PROVIDERS", "create", "open", "register_class"]

PROVIDERS = ["niripipe.instruments"]
"""Modules that register instrument classes when they are imported, which happens on first use."""

_Class = TypeVar("_Class", bound=type[AstroData])
_classes: list[type[AstroData]] = []


def register_class(cls: _Class) -> _Class:
    """Register an instrument class, so that its data sets become instances of it.

    Parameters
    ----------
    cls : type
        A sub-class of `AstroData` with a static method ``_matches_data(hdus)``, which says whether data
        are of this kind: ``hdus[0].header`` is the primary header.

    Returns
    -------
    type
        The class, so that this can be used as a decorator.
    """
    if cls not in _classes:
        _classes.append(cls)
    return cls


def open(source: Any) -> AstroData:
    """Open a FITS file; only headers are read, pixels follow on first use.

    Parameters
    ----------
    source : path-like, binary file or sequence of HDUs
        A file, which may be compressed (``.gz``, ``.bz2``, ``.fz``); an open binary file, which is read as a
        whole; or an astropy HDU list, of which a copy is made. An `AstroData` is returned as it is.

    Returns
    -------
    AstroData
        Of the class that is registered for such data.

    Raises
    ------
    InputError
        There is no such file (then also a `FileNotFoundError`), or the argument is something else.
    DataError
        The file is empty, not FITS, truncated, or contradicts itself.
    StorageError
        The file may not be read.
    """
    if isinstance(source, AstroData):
        return source
    if isinstance(source, str | bytes | os.PathLike):
        # Pixels are read later, when the current folder may be another one.
        path = Path(os.fsdecode(source)).absolute()
        return _build(read_file(path), str(path))
    if isinstance(source, Sequence) and source and hasattr(source[0], "header"):
        parts = read_hdus(source)
        original = header_value(parts.phu, "ORIGNAME")
        return _build(parts, str(original) if original else _file_of(source))
    if hasattr(source, "read"):
        return _from_stream(source)
    raise InputError(
        "this cannot be opened",
        found=type(source).__name__,
        expected="a path, an open binary file, or a list of HDUs",
    )


def _file_of(hdus: Any) -> str | None:
    """Return the path of the file that an HDU list was opened from; None without one."""
    method = getattr(hdus, "filename", None)
    path = method() if callable(method) else None
    return str(Path(path).absolute()) if isinstance(path, str) and path else None


def _from_stream(stream: Any) -> AstroData:
    """Read a data set from an open file."""
    name = getattr(stream, "name", None)
    shown = name if isinstance(name, str) else type(stream).__name__
    try:
        with fits.open(io.BytesIO(stream.read()), memmap=False) as hdus:
            parts = read_hdus(list(hdus))
    except NiripipeError as error:
        error.file = error.file or shown
        raise
    # Streams raise whatever they like: text, closed, not seekable.
    except Exception as error:
        raise DataError(
            "this is not an open FITS file", file=shown, found=f"{type(error).__name__}: {error}",
            expected="a file opened with mode 'rb'",
        ) from None  # fmt: skip
    original = header_value(parts.phu, "ORIGNAME")
    path = str(Path(name).absolute()) if isinstance(name, str) and Path(name).is_file() else None
    return _build(parts, path or (str(original) if original else None))


def create(phu: Any, extensions: Sequence[Any] | None = None) -> AstroData:
    """Make a data set from a primary header and extensions.

    Parameters
    ----------
    phu : HDU, header, dict or list of cards
        The primary header; copied.
    extensions : sequence, optional
        HDUs, `Extension` objects, or arrays.

    Returns
    -------
    AstroData
        Of the class that is registered for such data.

    Raises
    ------
    DataError, InputError
        The header or an extension is not usable.
    """
    header = watched(phu)
    items = list(extensions or ())
    hdus = [item for item in items if hasattr(item, "header")]
    parts = read_hdus([fits.PrimaryHDU(), *hdus]) if hdus else Parts(header)
    parts.phu = header
    for extension in parts.extensions:
        extension._phu = header
    ad = _build(parts, None)
    for item in items:
        if not hasattr(item, "header"):
            ad.append(item)
    return ad


def _build(parts: Parts, path: str | None) -> AstroData:
    return _class_for(parts.phu, path)._from_parts(parts, path)


def _class_for(phu: Any, path: str | None) -> type[AstroData]:
    """Return the most derived registered class whose predicate accepts the data."""
    for name in PROVIDERS:
        importlib.import_module(name)
    candidates = [cls for cls in _classes if _accepts(cls, phu, path)]
    derived = [
        cls
        for cls in candidates
        if not any(other is not cls and issubclass(other, cls) for other in candidates)
    ]
    if len(derived) > 1:
        raise DataError(
            "the data fit more than one instrument",
            file=path,
            found=", ".join(cls.__name__ for cls in derived),
        )
    return derived[0] if derived else AstroData


def _accepts(cls: type[AstroData], phu: Any, path: str | None) -> bool:
    predicate = getattr(cls, "_matches_data", None)
    if predicate is None:
        return False
    try:
        return bool(predicate([SimpleNamespace(header=phu)]))
    except KeyError:
        return False
    except Exception as error:
        raise DataError(
            "the instrument cannot be told from the primary header",
            file=path,
            item=cls.__name__,
            found=str(error),
        ) from error
