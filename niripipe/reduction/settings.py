"""What a user gives to `Reduce`: refused if there is no such setting, and kept with the folder of the moment.

A relative path means a file in the folder that was current when the path was given, whatever the current
folder is when the reduction runs. So paths are made absolute when they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, SupportsIndex

from niripipe.astrodata import AstroData
from niripipe.cal_service import user_calibrations
from niripipe.errors import ParameterError, nearest
from niripipe.logutils import get_logger
from niripipe.paths import usable_path
from niripipe.reduction.inputs import Source
from niripipe.reduction.user_parameters import (
    Parameters,
    UserParameters,
    absolute,
    absolute_parameters,
    flat,
)

__all__ = [
    "Calibrations",
    "FileList",
    "Parameters",
    "Settings",
    "absolute",
    "absolute_parameters",
    "flat",
    "normalize_ucals",
]

Calibrations = Mapping[str, str | PathLike[str] | AstroData]


log = get_logger(__name__)


class UnknownSettingError(ParameterError, AttributeError):
    """An attribute was set that `Reduce` does not have."""


class FileList(list[Source]):
    """A list of paths and frames; relative paths, those of ``@list`` too, become absolute when added."""

    def __init__(self, files: Iterable[Source] | Source = ()) -> None:
        if isinstance(files, (str, PathLike, AstroData)):
            files = [files]
        super().__init__(map(absolute, files))

    def append(self, item: Source) -> None:
        """Add a file at the end."""
        super().append(absolute(item))

    def extend(self, items: Iterable[Source]) -> None:
        """Add files at the end."""
        super().extend(FileList(items))

    def insert(self, index: SupportsIndex, item: Source) -> None:
        """Add a file before a position."""
        super().insert(index, absolute(item))

    def remove(self, item: Source) -> None:
        """Remove a file; its path may be given as it was added."""
        super().remove(absolute(item))

    def index(self, item: Source, *limits: SupportsIndex) -> int:
        """Return the position of a file; its path may be given as it was added."""
        return super().index(absolute(item), *limits)

    def __contains__(self, item: object) -> bool:
        return super().__contains__(absolute(item))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, FileList(value) if isinstance(index, slice) else absolute(value))

    def __iadd__(self, items: Iterable[Source]) -> FileList:  # type: ignore[override,misc]
        self.extend(items)
        return self


class Settings:
    """Attributes that are known; a subclass declares them by annotations and properties.

    `Reduce` is one. An attribute that does not exist is refused with the nearest name; classes of the user's
    own below it may have more.
    """

    _WITHOUT_EFFECT = frozenset({"drpkg", "upload"})
    """Attributes of DRAGONS's `Reduce` that scripts set and that change nothing here."""

    files: list[Source]
    recipename: Any
    uparms: Any
    ucals: Any
    output_dir: str | PathLike[str] | None
    scratch_dir: str | PathLike[str] | None

    if not TYPE_CHECKING:
        # Hidden from type checkers, which refuse what is not declared.
        def __setattr__(self, name: str, value: Any) -> None:
            if name in self._WITHOUT_EFFECT:
                log.warning("Reduce.%s has no effect in niripipe", name)
                return
            if type(self).__module__.startswith("niripipe.") and name not in (every := _settings(type(self))):
                known = [one for one in every if not one.startswith("_")]
                raise UnknownSettingError(
                    f"Reduce has no attribute {name!r}",
                    item=name,
                    expected=None if nearest(name, known) else ", ".join(sorted(known)),
                    remedy=nearest(name, known),
                )
            super().__setattr__(name, _CONVERT[name](value) if name in _CONVERT else value)


def _settings(cls: type) -> set[str]:
    """Return the names of the attributes that a class declares."""
    own = [base for base in cls.__mro__ if base.__module__.startswith("niripipe.")]
    declared = {name for base in own for name in vars(base).get("__annotations__", {})}
    return declared | {
        name for base in own for name, value in vars(base).items() if isinstance(value, property)
    }


def _parameters(value: Any) -> Any:
    """Return parameters with absolute paths; what are none is kept, to be refused with the other faults."""
    try:
        return UserParameters(value)
    except ParameterError:
        return value


def _calibrations(value: Any) -> Any:
    """Return calibrations given by hand in the form in which they are given, with absolute paths."""
    if isinstance(value, Mapping):
        return {key: absolute(one) if one != "" else one for key, one in value.items()}
    if isinstance(value, str):
        kind, colon, path = value.partition(":")
        return f"{kind}:{absolute(path.strip())}" if colon and path.strip() else value
    if isinstance(value, list | tuple):
        return [_calibrations(one) if isinstance(one, str) else one for one in value]
    return value


def _recipe(value: Any) -> Any:
    """Return the name of a recipe; that of a file with the file's absolute path."""
    if not isinstance(value, str):
        return value
    location, mark, _ = value.rpartition("::" if "::" in value else ".")
    path = usable_path(location if location.endswith(".py") else f"{location}.py", item="recipe")
    return str(usable_path(value).absolute()) if mark and path.is_file() else value


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "files": FileList,
    "recipename": _recipe,
    "uparms": _parameters,
    "ucals": _calibrations,
    "output_dir": absolute,
    "scratch_dir": absolute,
}


def normalize_ucals(
    cals: Iterable[Any] | None, cals_of_files: Iterable[str] | None = None
) -> dict[str, str | AstroData]:
    """Return calibrations named by hand as a dict for `Reduce.ucals`, checked.

    `Reduce.ucals` takes the list itself as well.

    Parameters
    ----------
    cals : list of str or None
        Entries ``"processed_dark:path"``.
    cals_of_files : list of str, optional
        The entries, in the form ``normalize_ucals(files, cals)`` of DRAGONS 3; then `cals` does not
        matter.

    Returns
    -------
    dict of str to str
        Absolute paths by type.

    Raises
    ------
    NiripipeError
        As `niripipe.cal_service.user_calibrations`: an unknown type, a file that does not exist or is another
        calibration.
    """
    checked = user_calibrations(cals if cals_of_files is None else cals_of_files)
    return {kind: one if isinstance(one, AstroData) else str(one) for kind, one in checked.items()}
