"""Which recipes and primitives there are, and which primitives a recipe calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niripipe import __version__
from niripipe.astrodata import AstroData
from niripipe.errors import CalibrationError, InputError, ParameterError
from niripipe.inspection.frames import opened
from niripipe.inspection.table import Table
from niripipe.primitives import CLASSES, PrimitivesBase
from niripipe.primitives.base import Context
from niripipe.primitives.calibrations import CalibrationBook
from niripipe.primitives.params import Origin, Resolved, nearest
from niripipe.reduction.lookup import (
    DEFAULT_RECIPE,
    MODES,
    find_primitives,
    find_recipe,
    recipe_libraries,
)
from niripipe.reduction.plan import Plan, make_plan

if TYPE_CHECKING:
    from niripipe.reduction import Mode

__all__ = ["list_primitives", "planned", "showprimitives", "showrecipes"]

Recipe = Callable[[Any], None]
FrameSource = AstroData | str | PathLike[str]


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
    context = Context(
        mode=mode,
        parameters=dict(parameters or {}),
        calibrations=CalibrationBook(mode=mode),
        output_dir=Path.cwd(),
        overwrite=False,
        threads=1,
        software=f"niripipe {__version__}",
    )
    plan = make_plan(function, primitives, [] if frame is None else [frame.copy()], context)
    plan.faults = [fault for fault in plan.faults if not isinstance(fault, CalibrationError)]
    if any(isinstance(fault, ParameterError) for fault in plan.faults):
        plan.check()
    return plan, primitives


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
        looks_like_file = Path(source).expanduser().is_file() and not source.endswith(".py")
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
