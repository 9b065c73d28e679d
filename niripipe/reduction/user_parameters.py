"""The user's parameters of a reduction: a dict that also takes pairs, as a list does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

from niripipe.errors import ParameterError
from niripipe.paths import usable_path
from niripipe.primitives import CLASSES
from niripipe.primitives.params import takes_path

__all__ = ["Parameters", "UserParameters", "absolute", "absolute_parameters", "flat"]

_OR_NAMES_OF_FRAMES = frozenset({"sky"})
"""Parameters that take paths and names of frames that are reduced."""

# Values are checked by the models of the primitives; a narrower type would refuse mixed dicts of users.
Parameters = Mapping[str, object] | Iterable[tuple[str, object]]


class UserParameters(dict[str, Any]):
    """Parameters by name, ``primitive:parameter`` or ``parameter``.

    A dict, as in DRAGONS 4; ``append``, ``extend`` and ``+=`` take pairs, like the list of DRAGONS 2 and 3.
    The last value given for a name counts. Relative paths become absolute when they are given.

    Parameters
    ----------
    parameters : mapping or iterable of pairs
        A value that is a mapping holds several parameters of one primitive.

    Raises
    ------
    ParameterError
        They are given otherwise.
    """

    def __init__(self, parameters: Parameters = ()) -> None:
        super().__init__()
        self.update(parameters)

    def __setitem__(self, name: str, value: Any) -> None:
        for one, part in flat([(name, value)]).items():
            super().__setitem__(one, _with_absolute_paths(one, part))

    def update(self, *others: Parameters, **more: Any) -> None:  # type: ignore[override]
        """Set several parameters."""
        for other in (*others, more):
            for name, value in flat(other).items():
                self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Set a parameter that has no value yet, and return its value."""
        if name not in self:
            self[name] = default
        return self[name]

    def append(self, pair: tuple[str, Any]) -> None:
        """Set a parameter, given as ``(name, value)``."""
        self.extend([pair])

    def extend(self, pairs: Parameters) -> None:
        """Set several parameters."""
        self.update(pairs)

    def __iadd__(self, pairs: Parameters) -> Self:
        self.update(pairs)
        return self

    def __ior__(self, other: Parameters) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def __eq__(self, other: object) -> bool:
        return list(self.items()) == other if isinstance(other, list) else super().__eq__(other)

    __hash__ = None

    def copy(self) -> UserParameters:
        """Return parameters that can be changed alone."""
        return UserParameters(self)


def absolute(source: Any) -> Any:
    """Return a path, or the name of a list ``@list``, as an absolute one of the same type.

    ``..`` stays, since a folder before it may be a link. What is no path is returned as it is.
    """
    if isinstance(source, str):
        mark, path = ("@", source[1:]) if source.startswith("@") else ("", source)
        return mark + str(usable_path(path).absolute()) if path else source
    return usable_path(source).absolute() if isinstance(source, PathLike) else source


def absolute_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters, keys ``primitive:parameter`` or ``parameter``, with paths made absolute.

    A value is a path if the parameter takes paths and the file exists; a bare name stays where it may be
    that of a frame.
    """
    return {key: _with_absolute_paths(key, value) for key, value in parameters.items()}


def _with_absolute_paths(key: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_absolute_paths(f"{key}:{name}", one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return (
            type(value)(_with_absolute_paths(key, one) for one in value)
            if type(value) in (list, tuple)
            else value
        )
    if not isinstance(value, str | PathLike) or not str(value) or not isinstance(key, str):
        return value
    if not _takes_path(key):
        return value
    path = usable_path(value, item=key)
    may_be_frame = path.parent == Path() and key.rpartition(":")[2] in _OR_NAMES_OF_FRAMES
    if path.is_absolute() or may_be_frame or not os.path.lexists(path):
        return value
    return absolute(value)


def _takes_path(key: str) -> bool:
    """Return whether a parameter, ``primitive:parameter`` or ``parameter``, takes paths."""
    name, _, field = key.strip().rpartition(":")
    for cls in CLASSES:
        known = cls.primitives()
        models = [known[name].model] if name in known else [p.model for p in known.values() if not name]
        if any(takes_path(model.fields()[field]) for model in models if field in model.fields()):
            return True
    return False


def flat(parameters: Parameters) -> dict[str, Any]:
    """Return parameters, given as pairs, a dict or a dict of dicts, under keys ``primitive:parameter``.

    Raises
    ------
    ParameterError
        They are given otherwise.
    """
    try:
        pairs = parameters.items() if isinstance(parameters, Mapping) else [(k, v) for k, v in parameters]
    except (TypeError, ValueError):
        raise ParameterError(
            "Parameters are a dict or a list of pairs",
            item="uparms",
            found=repr(parameters),
            expected="[('addDQ:user_bpm', 'x_bpm.fits')] or {'addDQ:user_bpm': 'x_bpm.fits'}",
        ) from None
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str) or key.count(":") > 1:
            raise ParameterError(
                "A parameter is named 'primitive:parameter' or 'parameter'", item="uparms", found=repr(key)
            )
        if isinstance(value, Mapping):
            found.update({f"{key}:{name}": v for name, v in value.items()})
        else:
            found[key.strip()] = value
    return found
