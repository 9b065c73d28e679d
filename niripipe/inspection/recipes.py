"""Which recipes and primitives there are, which primitives a recipe calls, and with which parameters."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from niripipe import __version__
from niripipe.astrodata import AstroData
from niripipe.errors import CalibrationError, InputError, ParameterError
from niripipe.inspection.frames import opened
from niripipe.inspection.table import Table
from niripipe.paths import usable_path
from niripipe.primitives import CLASSES, PrimitivesBase
from niripipe.primitives.base import Context, Primitive
from niripipe.primitives.calibrations import CalibrationBook
from niripipe.primitives.params import Origin, Resolved, nearest, resolve
from niripipe.reduction.lookup import (
    DEFAULT_RECIPE,
    MODES,
    Mode,
    find_primitives,
    find_recipe,
    recipe_libraries,
)
from niripipe.reduction.plan import Plan, make_plan

__all__ = ["list_primitives", "planned", "planning_context", "showpars", "showprimitives", "showrecipes"]

Recipe = Callable[[Any], None]
FrameSource = AstroData | str | PathLike[str]

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


def showrecipes(frame: FrameSource | None = None, mode: Mode | None = None) -> Table:
    """Show the recipes that there are, or those for one frame.

    Parameters
    ----------
    frame : AstroData or path, optional
        Show only the recipes for data like these.
    mode : {"sq", "ql", "qa"}, optional
        Show only the recipes of one mode.

    Returns
    -------
    Table
        Columns ``recipe``, ``modes``, ``default`` (the modes in which it is the default recipe for the
        data that it fits), ``tags`` that data must have, ``blocked`` tags that they must not have, and
        ``purpose``; the rows also hold ``module``.

    Raises
    ------
    InputError, DataError
        No such mode; a frame that cannot be opened.
    """
    tags = None if frame is None else frozenset(str(tag) for tag in opened(frame).tags)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name in MODES if mode is None else (mode,):
        fitting = [lib for lib in recipe_libraries(name) if tags is None or lib.fits(tags)]
        for position, library in enumerate(fitting):
            for recipe in library.recipes:
                row = rows.setdefault(
                    (library.module, recipe.__name__),
                    {
                        "recipe": recipe.__name__,
                        "modes": (),
                        "default": (),
                        "tags": library.tags,
                        "blocked": library.blocked,
                        "purpose": _purpose(recipe),
                        "module": library.module,
                    },
                )
                row["modes"] += (name,)
                if recipe is library.recipes[0] and (tags is None or position == 0):
                    row["default"] += (name,)
    title = "" if tags is None else f"Recipes for data tagged {', '.join(sorted(tags))}"
    return Table(["recipe", "modes", "default", "tags", "blocked", "purpose"], rows.values(), title=title)


def showprimitives(
    frame_or_recipe: FrameSource | Recipe,
    recipe: str | Recipe = DEFAULT_RECIPE,
    mode: Mode = "sq",
    *,
    parameters: Mapping[str, Any] | None = None,
) -> Table:
    """Show the primitives that a recipe calls, in order, with what is not a default.

    The recipe is run with primitives that only note how they are called: calls through helper functions
    are seen, and lines that are never reached are not.

    Parameters
    ----------
    frame_or_recipe : AstroData, path, or name or function of a recipe
        The data that choose the recipe; or the recipe itself.
    recipe : str or callable
        With a frame: the recipe; by default the default one.
    mode : {"sq", "ql", "qa"}
        Mode of the reduction.
    parameters : mapping, optional
        Parameters as for ``Reduce``, with keys ``primitive:parameter`` or ``parameter``.

    Returns
    -------
    Table
        Columns ``step``, ``primitive``, ``stream`` (``read > written`` where they differ), ``parameters``
        (those that are not the default, with their origin) and ``purpose``. The rows also hold ``values``
        and ``origins``, dictionaries with all parameters.

    Raises
    ------
    InputError
        No such file or recipe (near names are given).
    ParameterError
        A parameter that is unknown or refused.
    """
    frame = _as_frame(frame_or_recipe)
    wanted = recipe if frame is not None else frame_or_recipe
    if not (isinstance(wanted, str) or callable(wanted)):
        raise InputError("A recipe is a name or a function", item="recipe", found=repr(wanted))
    plan, primitives = planned(frame, wanted, mode, parameters)
    known = primitives.primitives()
    rows = [
        {
            "step": number,
            "primitive": step.primitive,
            "stream": step.stream,
            "parameters": _changed(step.resolved),
            "purpose": _purpose(known[step.primitive]),
            "values": step.resolved.params.as_record(),
            "origins": dict(step.resolved.origins),
        }
        for number, step in enumerate(plan.steps, 1)
    ]
    title = f"{plan.recipe} ({mode})" + ("" if frame is None else f" for {frame.filename}")
    return Table(
        ["step", "primitive", "stream", "parameters", "purpose"], rows, title=title, notes=plan.warnings
    )


def showpars(
    frame: FrameSource,
    primitive: str,
    *,
    mode: Mode = "sq",
    all: bool = False,
    recipe: str | Recipe = DEFAULT_RECIPE,
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
    known = owner.primitives().get(primitive)
    if known is None:
        raise InputError(
            "There is no such primitive",
            item="primitive",
            found=primitive,
            remedy=nearest(primitive, owner.primitives()) or "inspection.list_primitives() shows them all.",
        )
    plan, _ = planned(data, recipe, mode, parameters)
    calls = [(step.stream, step.resolved) for step in plan.steps if step.primitive == primitive]
    note = []
    if not calls:
        instrument = owner.instrument_defaults.get(primitive, {})
        user = dict(parameters or {})
        calls = [("", resolve(primitive, known.model, user=user, call={}, instrument=instrument))]
        note = [f"The recipe {plan.recipe} does not call {primitive}."]
    rows = _rows(known, calls, hidden=not all)
    columns = ["parameter", "value", "default", "from", "allowed", "meaning"]
    if any(row["call"] for row in rows):
        columns.insert(1, "call")
    title = f"{primitive} in {plan.recipe} ({mode}) for {data.filename}"
    return Table(columns, rows, title=title, notes=note, right=())


def list_primitives() -> Table:
    """Show all primitives.

    Returns
    -------
    Table
        Columns ``primitive``, ``group`` (the module that holds it), ``frames`` (``each`` for primitives
        that treat frames one by one, ``all`` for those that need them together), ``parameters`` (how many)
        and ``purpose``.
    """
    found = {name: prim for cls in CLASSES for name, prim in cls.primitives().items()}
    rows = [
        {
            "primitive": name,
            "group": primitive.__module__.rpartition(".")[2],
            "frames": "each" if primitive.per_frame else "all",
            "parameters": len(primitive.model.fields()),
            "purpose": _purpose(primitive),
        }
        for name, primitive in sorted(found.items(), key=lambda item: item[0].lower())
    ]
    return Table(["primitive", "group", "frames", "parameters", "purpose"], rows)


def planned(
    frame: AstroData | None, recipe: str | Recipe, mode: str, parameters: Mapping[str, Any] | None = None
) -> tuple[Plan, type[PrimitivesBase]]:
    """Return the calls of a recipe, and the class whose primitives it calls.

    Calibrations are not looked up.

    Raises
    ------
    InputError
        No such recipe.
    ParameterError
        A parameter that is unknown or refused.
    """
    if frame is None:
        primitives: type[PrimitivesBase] = CLASSES[0]
        function = _library_recipe(recipe, mode, primitives)
    else:
        primitives = find_primitives(frame.tags)
        function = find_recipe(recipe, frame.tags, mode, primitives)
    context = planning_context(mode, parameters or {})
    plan = make_plan(function, primitives, [] if frame is None else [frame.copy()], context)
    plan.faults = [fault for fault in plan.faults if not isinstance(fault, CalibrationError)]
    if any(isinstance(fault, ParameterError) for fault in plan.faults):
        plan.check()
    return plan, primitives


def planning_context(mode: str, parameters: Mapping[str, Any]) -> Context:
    """Return the context of primitives that only look at headers and write nothing."""
    return Context(
        mode=mode,
        parameters=dict(parameters),
        calibrations=CalibrationBook(mode=mode),
        output_dir=Path.cwd(),
        overwrite=False,
        threads=1,
        software=f"niripipe {__version__}",
    )


def _library_recipe(recipe: str | Recipe, mode: str, primitives: type[PrimitivesBase]) -> Recipe:
    """Return a recipe that no data were named for."""
    libraries = recipe_libraries(mode)
    for library in libraries:
        found = library.named(recipe) if isinstance(recipe, str) else None
        if found is not None:
            return found
    names = [function.__name__ for library in libraries for function in library.recipes]
    if isinstance(recipe, str) and "." not in recipe and recipe not in primitives.primitives():
        raise InputError(
            f"There is no file, recipe or primitive named {recipe!r}",
            item="recipe",
            expected=", ".join(dict.fromkeys(names)),
            remedy=nearest(recipe, [*names, *primitives.primitives()]),
        )
    return find_recipe(recipe, primitives.tagset, mode, primitives)


def _as_frame(source: FrameSource | Recipe) -> AstroData | None:
    """Return the frame that is meant, or None if it is a recipe."""
    if isinstance(source, str):
        looks_like_file = usable_path(source).is_file() and not source.endswith(".py")
        return opened(source) if looks_like_file or ".fits" in source else None
    return opened(source) if isinstance(source, (AstroData, PathLike)) else None


def _changed(resolved: Resolved) -> str:
    values: Mapping[str, Any] = resolved.params.as_record()
    texts = ["skipped [user]"] if resolved.skip_primitive else []
    texts += [
        f"{name}={values[name]!r} [{origin}]"
        for name, origin in resolved.origins.items()
        if origin is not Origin.DEFAULT
    ]
    return "\n".join(texts)


def _purpose(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ").replace("``", "")


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
