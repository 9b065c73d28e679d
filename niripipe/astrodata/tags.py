"""Tags: words that say what a data set is, and the rules by which they are found.

A class has tag methods, marked with `astro_data_tag`; each returns a `TagSet` or nothing. `resolve`
turns the tag sets of one data set into its tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, fields
from functools import cache, wraps
from typing import Any, TypeVar

__all__ = ["TagSet", "astro_data_tag", "resolve", "tag_methods"]

_Object = TypeVar("_Object")


@dataclass(frozen=True, slots=True)
class TagSet:
    """What one tag method contributes.

    Parameters
    ----------
    add : set of str
        Tags to add.
    remove : set of str
        Tags that later tag sets shall not add.
    blocked_by : set of str
        If one of these tags is already present, this tag set is ignored.
    blocks : set of str
        Later tag sets that would add one of these are ignored entirely.
    if_present : set of str
        The tag set applies only if all of these tags are already present.
    """

    add: Set[str] = frozenset()
    remove: Set[str] = frozenset()
    blocked_by: Set[str] = frozenset()
    blocks: Set[str] = frozenset()
    if_present: Set[str] = frozenset()

    def __post_init__(self) -> None:
        for field in fields(self):
            tags = getattr(self, field.name)
            if isinstance(tags, str):
                raise TypeError(f"{field.name} must be a collection of tags, not the string {tags!r}")
            object.__setattr__(self, field.name, frozenset(tags or ()))


def astro_data_tag(
    method: Callable[[_Object], TagSet | None],
) -> Callable[[_Object], TagSet | None]:
    """Mark a method as a tag method.

    The method takes nothing but the data set. A `KeyError`, which is what a missing keyword gives,
    means that it contributes nothing; other exceptions propagate.
    """

    @wraps(method)
    def guarded(self: _Object) -> TagSet | None:
        try:
            return method(self)
        except KeyError:
            return None

    guarded.is_tag_method = True  # type: ignore[attr-defined]
    return guarded


@cache
def tag_methods(cls: Any) -> tuple[str, ...]:
    """Return the names of the tag methods of a class and its bases, in alphabetical order."""
    return tuple(name for name in sorted(dir(cls)) if getattr(getattr(cls, name), "is_tag_method", False))


def resolve(tag_sets: Iterable[TagSet | None]) -> set[str]:
    """Resolve tag sets into tags.

    Unconditional tag sets go first, among them those that restrict others. A tag set is applied when
    its `if_present` tags are there, none of its `blocked_by` tags is, and nothing that it adds is
    blocked. What an earlier tag set added is never taken away: `remove` only prevents later additions.

    Parameters
    ----------
    tag_sets : iterable of TagSet or None
        In the alphabetical order of the methods that returned them, which decides between equals.

    Returns
    -------
    set of str
        The tags.
    """
    useful = [ts for ts in tag_sets if ts is not None and (ts.add or ts.remove or ts.blocks)]
    useful.sort(key=lambda ts: (len(ts.if_present), len(ts.blocked_by), -len(ts.remove) - len(ts.blocks)))
    tags: set[str] = set()
    removals: set[str] = set()
    blocked: set[str] = set()
    for ts in useful:
        if not ts.if_present <= tags or tags & ts.blocked_by or ts.add & blocked:
            continue
        removals |= ts.remove
        tags |= ts.add - removals
        blocked |= ts.blocks
    return tags
