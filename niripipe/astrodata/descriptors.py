"""Descriptors: methods that answer one question about a data set, whatever the keyword is called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["astro_data_descriptor", "descriptor_methods", "returns_list"]

_Args = ParamSpec("_Args")
_Object = TypeVar("_Object")
_Result = TypeVar("_Result")


def astro_data_descriptor(method: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """Mark a method as a descriptor: it is listed in `AstroData.descriptors` and keeps its docstring."""
    method.is_descriptor = True  # type: ignore[attr-defined]
    return method


def returns_list(
    method: Callable[Concatenate[_Object, _Args], Any],
) -> Callable[Concatenate[_Object, _Args], Any]:
    """Give a descriptor the list rule: a list on a data set, one value on a single slice.

    A scalar result is repeated for every extension of a data set. Of a list, a single slice gets the
    first element.

    Raises
    ------
    IndexError
        The method returned a list whose length is not the number of extensions: a fault of the method.
    """

    @wraps(method)
    def listed(self: _Object, /, *args: _Args.args, **kwargs: _Args.kwargs) -> Any:
        result = method(self, *args, **kwargs)
        data_set: Any = self
        if data_set.is_single:
            return result[0] if isinstance(result, list) else result
        if not isinstance(result, list):
            return [result] * len(data_set)
        if len(result) != len(data_set):
            raise IndexError(f"{method.__name__} gave {len(result)} values for {len(data_set)} extensions")
        return result

    return listed


@cache
def descriptor_methods(cls: Any) -> tuple[str, ...]:
    """Return the names of all descriptors of a class and its bases, in alphabetical order."""
    return tuple(name for name in sorted(dir(cls)) if getattr(getattr(cls, name), "is_descriptor", False))
