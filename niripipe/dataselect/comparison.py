"""What comparisons of descriptors mean: equivalent spellings, tolerances, dates, missing values."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Final

from niripipe.astrodata import Section

__all__ = [
    "ORDER",
    "Condition",
    "Day",
    "Lookup",
    "Mismatch",
    "Name",
    "Rules",
    "compare",
    "comparison",
    "flag",
]

_WAVELENGTH_TOLERANCE: Final = 1e-5
_CLOSE_WAVELENGTHS: Final = frozenset({"central_wavelength", "effective_wavelength"})
#: Descriptors whose names carry component identifiers that people leave out.
_PRETTY: Final = frozenset(
    {"filter_name", "detector_name", "disperser", "camera", "focal_plane_mask", "pupil_mask"}
)
ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

Lookup = Callable[[str, bool], Any]
"""Returns the value of a descriptor, in its pretty form if asked for."""

Condition = Callable[[Lookup], bool]
"""Tells whether a frame, given by its look-up, fulfils a condition."""


class Mismatch(Exception):
    """A comparison that makes no sense for the value found."""


@dataclass(frozen=True, slots=True)
class Name:
    """A descriptor in an expression."""

    name: str


@dataclass(frozen=True, slots=True)
class Day:
    """A date without time, which stands for the whole day."""

    date: date


@dataclass(frozen=True, slots=True)
class Rules:
    """How exact comparisons are.

    Attributes
    ----------
    strict : bool
        Compare numbers and names exactly.
    exposure_tolerance : float
        Relative tolerance of exposure times, unless strict.
    """

    strict: bool
    exposure_tolerance: float

    def tolerance(self, name: str) -> float:
        """Return the relative tolerance for a descriptor."""
        if self.strict:
            return 0.0
        if name in ("exposure_time", "exposure_time_per_coadd"):
            return self.exposure_tolerance
        return _WAVELENGTH_TOLERANCE if name in _CLOSE_WAVELENGTHS else 0.0


def flag(name: str) -> Condition:
    """Return the condition that a descriptor is True."""

    def holds(lookup: Lookup) -> bool:
        value = lookup(name, False)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise Mismatch(f"{name} is {value!r}, not a yes or no; compare it with something")

    return holds


def comparison(name: str, op: str, right: Any, rules: Rules) -> Condition:
    """Return the comparison of a descriptor with a constant or another descriptor."""
    tolerance = rules.tolerance(name)
    other = right.name if isinstance(right, Name) else None
    if other is not None:
        tolerance = max(tolerance, rules.tolerance(other))
    spellings = (False, True) if name in _PRETTY and not rules.strict else (False,)

    def holds(lookup: Lookup) -> bool:
        wanted = right if other is None else lookup(other, not rules.strict)
        if wanted is None and other is not None:
            return False
        answers = [lookup(name, pretty) for pretty in spellings]
        # One value an extension, or the only one.
        values = [answer if isinstance(answer, list) and answer else [answer] for answer in answers]
        return all(
            compare(name, alternatives, op, wanted, tolerance) for alternatives in zip(*values, strict=True)
        )

    return holds


def compare(name: str, alternatives: Sequence[Any], op: str, right: Any, tolerance: float) -> bool:
    """Compare a value with a constant.

    Parameters
    ----------
    name : str
        The descriptor, for messages.
    alternatives : sequence
        The value in equivalent spellings, the pretty one last.
    op : str
    right : object
        The constant, or a tuple of constants for ``in`` and ``not in``.
    tolerance : float
        Relative; numbers within it are equal.

    Raises
    ------
    Mismatch
        The values are not of comparable types.
    """
    value = alternatives[-1]
    if op in ("in", "not in"):
        found = any(
            _same(name, spelling, element, tolerance, lenient=True)
            for element in right
            for spelling in alternatives
        )
        # None is not comparable: it is not outside a list either, unless the list contains None.
        return found if op == "in" else not found and (value is not None or None in right)
    if value is None and (right is not None or op in ORDER):
        return False
    if op not in ORDER:
        equal = any(_same(name, spelling, right, tolerance) for spelling in alternatives)
        return equal is (op in ("==", "is"))
    value, right = _aligned(name, value, right)
    return ORDER[op](value, right)


def _same(name: str, value: Any, right: Any, tolerance: float, *, lenient: bool = False) -> bool:
    if value is None or right is None:
        return value is right
    try:
        value, right = _aligned(name, value, right, ordered=False)
    except Mismatch:
        if lenient:
            return False
        raise
    if tolerance and isinstance(value, (int, float)):
        return math.isclose(value, right, rel_tol=tolerance)
    return bool(value == right)


def _aligned(name: str, value: Any, right: Any, *, ordered: bool = True) -> tuple[Any, Any]:
    """Bring two values to comparable types."""
    if isinstance(right, Day):
        return (value.date() if isinstance(value, datetime) else value), right.date
    if isinstance(value, Section) and isinstance(right, str):
        return value.as_iraf_section(), right.replace(" ", "")
    kinds = _kind(value), _kind(right)
    if kinds[0] != kinds[1] or (ordered and kinds[0] == "a yes or no"):
        what = "cannot be ordered against" if ordered else "cannot equal"
        raise Mismatch(f"{name} is {kinds[0]} ({value!r}), which {what} {kinds[1]} ({right!r})")
    return value, right


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a yes or no"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, datetime):
        return "a date with time"
    if isinstance(value, (tuple, list)):
        return "a list"
    return {date: "a date", time: "a time"}.get(type(value), type(value).__name__)
