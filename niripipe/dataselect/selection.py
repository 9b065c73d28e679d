"""Selecting frames by tags and an expression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.dataselect.expression import Expression, MisfitError, expr_parser
from niripipe.dataselect.frames import lookup_of
from niripipe.errors import InputError, NiripipeError, ParameterError
from niripipe.instruments.identity import Exposure, find_twins, pixel_checksum
from niripipe.instruments.known_tags import check_tags
from niripipe.logutils import get_logger

__all__ = ["select_data"]

log = get_logger(__name__)

OnError = Literal["skip", "raise"]

_Input = TypeVar("_Input", bound="str | PathLike[str] | AstroData")
_Fault = tuple[str, NiripipeError]


def select_data(
    inputs: Iterable[_Input],
    tags: Iterable[str] = (),
    xtags: Iterable[str] = (),
    expression: Expression | str | None = None,
    *,
    on_error: OnError = "skip",
) -> list[_Input]:
    """Select frames by tags and an expression.

    Parameters
    ----------
    inputs : iterable of path or AstroData
        What to select from.
    tags : iterable of str
        Tags that a frame must have, all of them. A single string is one tag.
    xtags : iterable of str
        Tags that a frame must not have, any of them. A single string is one tag.
    expression : Expression or str, optional
        From `expr_parser`; text is parsed with its defaults, ``"True"`` being everything. It is only
        evaluated for frames that the tags have let through.
    on_error : {"skip", "raise"}
        What becomes of files that are missing or cannot be read: they are left out with a warning in the log
        that names them, or they are an error.

    Returns
    -------
    list
        The selected inputs themselves, unchanged and in order. Of NIRI frames that hold the same exposure,
        whatever their names, the first is kept, and the others are named in a warning.

    Raises
    ------
    InputError
        If `inputs` is a single string or path; if a tag does not exist (the nearest are named); if the
        expression is not usable; if no file can be read; or, with ``on_error="raise"``, if one cannot: then
        all of them are named, with reasons, and nothing is selected.
    ParameterError
        If `on_error` is neither.

    Notes
    -----
    Headers are read once per file and process, as long as the file's time and size stay the same.
    """
    if on_error not in get_args(OnError):
        raise ParameterError(
            "Unknown choice", item="on_error", found=repr(on_error), expected="'skip' or 'raise'"
        )
    items = _input_list(inputs)
    wanted, unwanted = _tag_set(tags, "tags"), _tag_set(xtags, "xtags")
    if expression is not None and not isinstance(expression, Expression):
        expression = expr_parser(expression)
    selected: list[_Input] = []
    unreadable: list[_Fault] = []
    misfits: list[_Fault] = []
    for item in items:
        name = item.filename if isinstance(item, AstroData) else Path(item).name
        try:
            lookup = lookup_of(item)
            found = lookup("tags", False)
            tagged = wanted <= found and not unwanted & found
            if tagged and (expression is None or expression._evaluate(lookup, name)):
                selected.append(item)
        except NiripipeError as error:
            faults = misfits if isinstance(error, MisfitError) else unreadable
            faults.append((str(name if isinstance(item, AstroData) else item), error))
    if misfits or (unreadable and (on_error == "raise" or len(unreadable) == len(items))):
        _raise_all(misfits + unreadable, len(items))
    for path, fault in unreadable:
        log.warning("%s is left out of the selection: %s", path, fault.problem)
    return _without_twins(selected)


def _without_twins(items: list[_Input]) -> list[_Input]:
    """Leave out files that hold the same exposure as another one, with a warning.

    A file that is given twice by its name stays: whoever combines frames refuses it.
    """
    files: dict[str, list[_Input]] = {}
    for item in items:
        path = item.source_path if isinstance(item, AstroData) else item
        if path is not None:
            files.setdefault(str(Path(path).absolute()), []).append(item)
    groups: dict[Any, list[str]] = {}
    for path, given in files.items():
        lookup = lookup_of(given[0])
        # One exposure has one kind and one duration; pixels alone would make twins of simulated frames.
        tags = frozenset(lookup("tags", False))
        if "NIRI" in tags:
            kind = tags, lookup("object", False), lookup("exposure_time", False)
            groups.setdefault(kind, []).append(path)
    left_out: set[int] = set()
    for paths in groups.values():
        for twin in find_twins([_exposure(path, files[path][0]) for path in paths]):
            if twin.same_pixels:
                log.warning(
                    "%s is left out of the selection: it holds the same exposure as %s",
                    paths[twin.position],
                    paths[twin.of],
                )
                left_out |= {id(item) for item in files[paths[twin.position]]}
    return [item for item in items if id(item) not in left_out]


def _exposure(path: str, item: str | PathLike[str] | AstroData) -> Exposure:
    """Return what tells the exposure of a file from others."""
    lookup = lookup_of(item)
    label = lookup("data_label", False)
    return Exposure(
        name=Path(path).name,
        label=str(label) if label else None,
        time=lookup("ut_datetime", False),
        checksum=lambda: pixel_checksum(item if isinstance(item, AstroData) else astrodata.open(item)),
    )


def _input_list(inputs: Iterable[_Input]) -> list[_Input]:
    if isinstance(inputs, (str, PathLike, AstroData)) or not isinstance(inputs, Iterable):
        raise InputError(
            "The inputs to select from must be a list",
            item="inputs",
            found=repr(inputs),
            expected="a list of paths",
            remedy="Use glob.glob() to turn a pattern into a list of paths",
        )
    items = list(inputs)
    for position, item in enumerate(items):
        if not isinstance(item, (str, PathLike, AstroData)):
            raise InputError(
                "An input is neither a path nor a data set", item=f"inputs[{position}]", found=repr(item)
            )
    return items


def _tag_set(tags: Iterable[str] | None, item: str) -> frozenset[str]:
    try:
        found = frozenset({tags} if isinstance(tags, str) else tags or ())
    except TypeError:
        found = frozenset({None})  # type: ignore[arg-type]
    if not all(isinstance(tag, str) for tag in found):
        raise InputError(
            "Tags must be texts", item=item, found=repr(tags), expected='a list such as ["FLAT"]'
        )
    check_tags(found, item)
    return found


def _raise_all(faults: Sequence[_Fault], total: int) -> NoReturn:
    if len(faults) == 1:
        path, error = faults[0]
        raise InputError(
            f"Nothing was selected: {error.problem}",
            file=path,
            item=error.item,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from error
    reasons = "".join(f"\n    {path}: {error.problem}" for path, error in faults)
    raise InputError(
        f"Nothing was selected: {len(faults)} of {total} files cannot be used{reasons}\n",
        remedy="Leave them out or replace them",
    ) from faults[0][1]
