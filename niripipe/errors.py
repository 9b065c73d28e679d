"""The exception tree of niripipe.

Every error that bad input can cause is an instance of `NiripipeError`. Its message says what is wrong
and, where they apply, which file, which item, what was found, what was expected and what to do; the
same parts are attributes, so that a pipeline can act on them without reading prose.
"""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from niripipe.printable import printable

__all__ = [
    "AlgorithmError",
    "CalibrationError",
    "DataError",
    "InputError",
    "NiripipeError",
    "ParameterError",
    "StorageError",
    "nearest",
    "storage_faults",
]


class NiripipeError(Exception):
    """Base of all niripipe errors.

    Parameters
    ----------
    problem : str
        What is wrong, as one sentence without a final full stop.
    file : path-like, optional
        The file concerned.
    item : str, optional
        The item concerned: a keyword, a parameter, an extension, a position in a list.
    found : object, optional
        The value that was found.
    expected : object, optional
        What would have been acceptable.
    remedy : str, optional
        What the user can do about it.

    Attributes
    ----------
    problem, file, item, found, expected, remedy
        The parts, as given.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        item: str | None = None,
        found: Any = None,
        expected: Any = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.item = item
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        parts = [
            f"{name}: {printable(value)}"
            for name, value in (
                ("file", self.file),
                ("item", self.item),
                ("found", self.found),
                ("expected", self.expected),
            )
            if value is not None
        ]
        text = printable(self.problem, lines=True).rstrip(".")
        if parts:
            text += f" [{'; '.join(parts)}]"
        if self.remedy:
            text += f". {printable(self.remedy, lines=True)}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default protocol; errors cross process borders.
        return _rebuild, (type(self), self.problem, self.__dict__.copy())


class InputError(NiripipeError):
    """What the caller named cannot be used: a path, a list of files, an expression, a recipe name."""


class DataError(NiripipeError):
    """The content of a file or frame is not usable: structure, header, observing mode."""


class ParameterError(NiripipeError):
    """A primitive parameter is unknown, has an unusable value, or contradicts another."""


class CalibrationError(NiripipeError):
    """No usable calibration was found, or the one given does not fit.

    Parameters
    ----------
    problem : str
        As in `NiripipeError`.
    candidates : sequence of mappings, optional
        One entry a candidate calibration, with the rules it failed (see
        `niripipe.cal_service.CalibrationService.explain`).
    **parts
        As in `NiripipeError`.
    """

    def __init__(self, problem: str, *, candidates: Sequence[Mapping[str, Any]] = (), **parts: Any) -> None:
        self.candidates = tuple(candidates)
        super().__init__(problem, **parts)


class AlgorithmError(NiripipeError):
    """A computation could not reach a trustworthy result; the message carries the measured numbers."""


class StorageError(NiripipeError):
    """A file or store could not be written or read: permission, space, corruption, a foreign layout."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return a sentence naming the known names closest to `name`, or None when none is close."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=3, cutoff=0.6)
    if not close:
        return None
    return f"Did you mean {' or '.join(repr(lower[match]) for match in close)}?"


@contextmanager
def storage_faults(
    problem: str, file: str | PathLike[str], *, item: str | None = None, remedy: str | None = None
) -> Iterator[None]:
    """Turn faults of the disk, and of decompression, in a ``with`` block into `StorageError`.

    The parameters are those of `NiripipeError`; `found` is what the system says.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as err:
        found = getattr(err, "strerror", None) or str(err)
        raise StorageError(problem, file=file, item=item, found=found, remedy=remedy) from err


def _rebuild(cls: type[NiripipeError], problem: str, state: dict[str, Any]) -> NiripipeError:
    error = cls(problem)
    error.__dict__.update(state)
    return error
