"""The parameters of a primitive: value, origin, what is allowed, meaning."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.fields import FieldInfo

from niripipe.astrodata import AstroData
from niripipe.errors import InputError
from niripipe.inspection.frames import opened
from niripipe.inspection.recipes import planned
from niripipe.inspection.table import Table
from niripipe.primitives.base import Primitive, PrimitivesBase
from niripipe.primitives.params import Resolved, nearest, resolve
from niripipe.reduction.lookup import DEFAULT_RECIPE, find_primitives

if TYPE_CHECKING:
    from niripipe.reduction import Mode

__all__ = ["showpars"]

_KINDS = {
    bool: "True or False",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    AstroData: "frame",
    type(None): "None",
}
_LIMITS = (("ge", ">= "), ("gt", "> "), ("le", "<= "), ("lt", "< "))


def showpars(
    frame: AstroData | str | PathLike[str],
    primitive: str,
    *,
    mode: Mode = "sq",
    all: bool = False,
    recipe: str | Callable[[Any], None] = DEFAULT_RECIPE,
    parameters: Mapping[str, Any] | None = None,
) -> Table:
    """Show the parameters of a primitive as a recipe would call it for a frame.

    Parameters
    ----------
    frame : AstroData or path
        The data, which choose recipe and instrument defaults.
    primitive : str
        Name of the primitive.
    mode : {"sq", "ql", "qa"}
        Mode of the reduction.
    all : bool
        Show the parameters for debugging too.
    recipe : str or callable
        The recipe; by default the default one of the data.
    parameters : mapping, optional
        The user's parameters, with keys ``primitive:parameter`` or ``parameter``.

    Returns
    -------
    Table
        Columns ``parameter``, ``value``, ``default``, ``from`` (``default``, ``instrument default``,
        ``recipe`` or ``user``), ``allowed`` and ``meaning``. Where the recipe calls the primitive several
        times with different values, a column ``call`` says which call and stream a row is about. The
        values are those that the primitive gets, ready for scripts.

    Raises
    ------
    InputError
        No such primitive (near names are given) or recipe; a frame of another instrument.
    ParameterError
        One of `parameters` is unknown or refused.
    """
    data = opened(frame)
    owner = find_primitives(data.tags)
    known = _known_primitive(owner, primitive)
    plan, _ = planned(data, recipe, mode, parameters)
    calls = [(step.stream, step.resolved) for step in plan.steps if step.primitive == primitive]
    note = []
    if not calls:
        calls = [("", _alone(owner, known, parameters))]
        note = [f"The recipe {plan.recipe} does not call {primitive}."]
    rows = _rows(known, calls, hidden=not all)
    columns = ["parameter", "value", "default", "from", "allowed", "meaning"]
    if any(row["call"] for row in rows):
        columns.insert(1, "call")
    title = f"{primitive} in {plan.recipe} ({mode}) for {data.filename}"
    return Table(columns, rows, title=title, notes=note, right=())


def _known_primitive(owner: type[PrimitivesBase], name: str) -> Primitive:
    known = owner.primitives()
    if name not in known:
        raise InputError(
            "There is no such primitive",
            item="primitive",
            found=name,
            remedy=nearest(name, known) or "inspection.list_primitives() shows them all.",
        )
    return known[name]


def _alone(
    owner: type[PrimitivesBase], primitive: Primitive, parameters: Mapping[str, Any] | None
) -> Resolved:
    """Return the parameters of a primitive that is called by itself."""
    return resolve(
        primitive.name,
        primitive.model,
        user=dict(parameters or {}),
        call={},
        instrument=owner.instrument_defaults.get(primitive.name, {}),
    )


def _rows(primitive: Primitive, calls: list[tuple[str, Resolved]], *, hidden: bool) -> list[dict[str, Any]]:
    rows = []
    for name, info in primitive.model.fields().items():
        if hidden and name.startswith("debug"):
            continue
        attribute = next(a for a, i in primitive.model.model_fields.items() if (i.alias or a) == name)
        found = [(getattr(resolved.params, attribute), resolved.origins[name]) for _, resolved in calls]
        differ = any(value != found[0] for value in found)
        for number, (value, origin) in enumerate(found if differ else found[:1]):
            rows.append(
                {
                    "parameter": name,
                    "call": f"{number + 1} of {len(calls)}: {calls[number][0]}" if differ else "",
                    "value": value,
                    "default": info.get_default(call_default_factory=True, validated_data={}),
                    "from": str(origin),
                    "allowed": _allowed(info),
                    "meaning": info.description or "",
                }
            )
    return rows


def _allowed(info: FieldInfo) -> str:
    """Return in words what a field accepts: its kinds, its choices, its range."""
    limits = [
        f"{sign}{getattr(rule, attribute)}"
        for rule in info.metadata
        for attribute, sign in _LIMITS
        if getattr(rule, attribute, None) is not None
    ]
    text = " or ".join(dict.fromkeys(_kinds(info.annotation)))
    return f"{text}, {' and '.join(limits)}" if limits else text


def _kinds(annotation: Any) -> list[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return [repr(choice) for choice in arguments]
    if origin is typing.Annotated:
        return _kinds(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return [kind for part in arguments for kind in _kinds(part)]
    if origin in (tuple, list):
        return [f"list of {' or '.join(_kinds(arguments[0]))}"] if arguments else ["list"]
    return [_KINDS.get(annotation, getattr(annotation, "__name__", str(annotation)))]
