"""Rectangular parts of an image, and the two ways in which they are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from niripipe.errors import InputError

__all__ = ["Section"]

_AXES = "xyzuvw"


class Section(tuple[int, ...]):
    """A part of an image: 0-based, end-exclusive limits, x first.

    ``Section(x1, x2, y1, y2[, z1, z2 ...])`` is a tuple of integers whose members are also attributes
    ``x1``, ``x2``, ``y1`` and so on. Limits may be given by position, by name, or both.

    Parameters
    ----------
    *limits : int
        Start and end of each axis, in the order x, y, z.
    **named : int
        Limits by name.

    Raises
    ------
    InputError
        An odd number of limits, a limit that is not an integer, an unknown name, or an end that does
        not exceed its start.

    Examples
    --------
    >>> Section(0, 1024, 10, 20).as_iraf_section()
    '[1:1024,11:20]'
    >>> Section.from_string("[1:1024,11:20]")
    Section(x1=0, x2=1024, y1=10, y2=20)
    """

    __slots__ = ()

    def __new__(cls, *limits: int, **named: int) -> Section:
        """Check the limits and make the section."""
        values = _merge(limits, named)
        if not values or len(values) % 2:
            raise InputError("a section needs a start and an end for each axis", found=values)
        for axis, start, end in zip(_AXES, values[::2], values[1::2], strict=False):
            if end <= start:
                raise InputError(
                    "the end of a section must exceed its start",
                    item=f"{axis}1, {axis}2",
                    found=(start, end),
                )
        return super().__new__(cls, values)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __getattr__(self, name: str) -> int:
        names = _names(len(self))
        if name in names:
            return self[names.index(name)]
        raise AttributeError(f"a section has no {name!r}; its limits are {', '.join(names)}")

    def __repr__(self) -> str:
        pairs = zip(_names(len(self)), self, strict=True)
        return f"Section({', '.join(f'{name}={value}' for name, value in pairs)})"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self) // 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that the section cuts out, in array order (y before x)."""
        return tuple(end - start for start, end in reversed(self._pairs()))

    @classmethod
    def from_shape(cls, shape: Sequence[int]) -> Section:
        """Return the section that covers a whole array of the given shape (array order)."""
        return cls(*(limit for length in reversed(shape) for limit in (0, int(length))))

    @classmethod
    def from_string(cls, text: str | None) -> Section | None:
        """Return the section for an IRAF string such as ``[1:1024,11:20]`` (1-based, inclusive).

        Parameters
        ----------
        text : str or None
            The string; the brackets may be missing. None gives None.

        Raises
        ------
        InputError
            The string is not of this form; open ranges are not accepted.
        """
        if text is None:
            return None
        ranges = [
            re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", part) for part in text.strip().strip("[]").split(",")
        ]
        limits: list[int] = []
        for match in ranges:
            if match is None:
                raise InputError(
                    "this is not an image section", found=text, expected="a form like [1:1024,11:20]"
                )
            limits += [int(match[1]) - 1, int(match[2])]
        return cls(*limits)

    def as_iraf_section(self, binning: Sequence[int] | None = None) -> str:
        """Return the IRAF string (1-based, inclusive).

        Parameters
        ----------
        binning : sequence of int, optional
            Pixels of the unbinned array for each pixel, x first; the string then refers to the
            unbinned array.
        """
        factors = [1] * self.ndim if binning is None else list(binning)
        if len(factors) != self.ndim:
            raise InputError("binning needs one number for each axis", found=factors, expected=self.ndim)
        parts = (f"{b * lo + 1}:{b * hi}" for b, (lo, hi) in zip(factors, self._pairs(), strict=True))
        return f"[{','.join(parts)}]"

    asIRAFsection = as_iraf_section

    def as_slice(self, add_dims: int = 0) -> tuple[slice, ...]:
        """Return slices in array order (y, x), after `add_dims` full slices."""
        cuts = tuple(slice(start, end) for start, end in reversed(self._pairs()))
        return (slice(None),) * add_dims + cuts

    asslice = as_slice

    def contains(self, other: Sequence[int]) -> bool:
        """Return whether `other` lies within this section.

        Raises
        ------
        InputError
            The sections have different numbers of axes.
        """
        pairs = self._both(other)
        return all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairs)

    def is_same_size(self, other: Sequence[int]) -> bool:
        """Return whether both sections have the same length along every axis."""
        theirs = Section(*other)
        return self.shape == theirs.shape

    def overlap(self, other: Sequence[int]) -> Section | None:
        """Return the part that both sections cover, or None."""
        common = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in self._both(other)]
        if any(end <= start for start, end in common):
            return None
        return Section(*(limit for pair in common for limit in pair))

    def shift(self, *offsets: int) -> Section:
        """Return the section moved by the given number of pixels along x, y and so on."""
        if len(offsets) != self.ndim:
            raise InputError("a shift needs one number for each axis", found=offsets, expected=self.ndim)
        moved = [(lo + d, hi + d) for d, (lo, hi) in zip(offsets, self._pairs(), strict=True)]
        return Section(*(limit for pair in moved for limit in pair))

    def _pairs(self) -> list[tuple[int, int]]:
        return list(zip(self[::2], self[1::2], strict=True))

    def _both(self, other: Sequence[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        theirs = Section(*other)
        if theirs.ndim != self.ndim:
            raise InputError(
                "sections with different numbers of axes cannot be compared",
                found=theirs.ndim,
                expected=self.ndim,
            )
        return list(zip(self._pairs(), theirs._pairs(), strict=True))


def _names(n_limits: int) -> list[str]:
    return [f"{axis}{end}" for axis in _AXES[: n_limits // 2] for end in (1, 2)]


def _merge(limits: tuple[int, ...], named: dict[str, int]) -> list[int]:
    total = len(limits) + len(named)
    names = _names(total)
    wanted = names[len(limits) :]
    if total > 2 * len(_AXES) or (named and set(named) != set(wanted)):
        raise InputError("these are not the limits of a section", found=sorted(named), expected=wanted)
    values: list[Any] = [*limits, *(named[name] for name in wanted if name in named)]
    try:
        exact = [int(value) for value in values]
    except (TypeError, ValueError):
        exact = []
    if exact != values:
        raise InputError("the limits of a section must be integers", found=values)
    return exact
