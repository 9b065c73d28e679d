"""Finding recipes and primitives by tags, and recipes of the user's own by file."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Literal, get_args

from niripipe.errors import InputError
from niripipe.paths import usable_path
from niripipe.primitives.base import PrimitivesBase
from niripipe.primitives.params import nearest

__all__ = [
    "DEFAULT_RECIPE",
    "MODES",
    "Mode",
    "RecipeLibrary",
    "find_primitives",
    "find_recipe",
    "is_own",
    "recipe_libraries",
]

Recipe = Callable[[Any], None]

DEFAULT_RECIPE = "_default"
Mode = Literal["sq", "ql", "qa"]
"""Science quality, quick look, or quality assessment."""

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class RecipeLibrary:
    """The recipes of one module for one mode.

    Attributes
    ----------
    module : str
        Dotted name.
    tags, blocked : frozenset of str
        Tags that data must have, and must not have.
    recipes : tuple of callables
        The first is the default.
    """

    module: str
    tags: frozenset[str]
    blocked: frozenset[str]
    recipes: tuple[Recipe, ...]

    def fits(self, tags: Iterable[str]) -> bool:
        """Return whether data with these tags can be reduced by these recipes."""
        present = set(tags)
        return self.tags <= present and not self.blocked & present

    def named(self, name: str) -> Recipe | None:
        """Return the recipe of a name, or None."""
        return next((recipe for recipe in self.recipes if recipe.__name__ == name), None)


@cache
def recipe_libraries(mode: str) -> tuple[RecipeLibrary, ...]:
    """Return the recipe libraries of a mode, most specific first, in a fixed order.

    Raises
    ------
    InputError
        There is no such mode.
    """
    if mode not in MODES:
        raise InputError("There is no such mode", item="mode", found=repr(mode), expected=", ".join(MODES))
    found = [
        RecipeLibrary(module.__name__, module.recipe_tags, module.blocked_tags, module.recipes[mode])
        for module in _recipe_modules()
        if mode in module.recipes
    ]
    return tuple(sorted(found, key=lambda library: (-len(library.tags), library.module)))


def find_recipe(
    name: str | Recipe,
    tags: Iterable[str],
    mode: str,
    primitives: type[PrimitivesBase],
    others: Iterable[frozenset[str]] = (),
) -> Recipe:
    """Return the recipe to run.

    Parameters
    ----------
    name : str or callable
        A recipe's name, ``_default``, the name of a primitive, a function, or a function in a file of the
        user's own, written ``path/to/file.function`` or ``path/to/file.py::function``.
    tags : iterable of str
        Tags of the first input.
    mode : str
        ``sq``, ``ql`` or ``qa``.
    primitives : type of PrimitivesBase
        The class whose primitives may be named as a recipe.
    others : iterable of frozenset of str
        Tags of the other inputs, which say what should come first in the list if the recipe is theirs.

    Returns
    -------
    callable
        Function of a primitives object.

    Raises
    ------
    InputError
        No recipe of that name for these data, or a recipe file that cannot be used.
    """
    libraries = recipe_libraries(mode)
    if callable(name):
        return name
    own = _user_recipe(name)
    if own is not None:
        return own
    tags = frozenset(tags)
    fitting = [library for library in libraries if library.fits(tags)]
    for library in fitting:
        recipe = library.recipes[0] if name == DEFAULT_RECIPE else library.named(name)
        if recipe is not None:
            return recipe
    if name in primitives.primitives():
        return _as_recipe(name)
    error = _not_found(name, tags, mode, fitting, primitives)
    for kind in dict.fromkeys(map(frozenset, others)):
        if any(library.fits(kind) and library.named(name) for library in libraries):
            first = "flats" if "FLAT" in kind else f"frames with the tags {', '.join(sorted(kind))}"
            error.remedy = f"{name} goes by the first file of the list: put the {first} first."
    raise error


def is_own(recipe: Recipe) -> bool:
    """Return whether a recipe is one of the library's, which may be run with nothing but notes taken."""
    return str(getattr(recipe, "__module__", "")).startswith(("niripipe.recipes", __name__))


def find_primitives(tags: Iterable[str]) -> type[PrimitivesBase]:
    """Return the primitives class whose tag set fits best.

    Raises
    ------
    InputError
        No class fits: data of another instrument.
    """
    classes = importlib.import_module("niripipe.primitives").CLASSES
    present = frozenset(tags)
    fitting = [cls for cls in classes if cls.tagset <= present]
    if not fitting:
        raise InputError(
            "There are no primitives for these data",
            item="tags",
            found=", ".join(sorted(present)) or "none",
            expected=" or ".join(", ".join(sorted(cls.tagset)) for cls in classes),
            remedy="niripipe reduces NIRI images.",
        )
    best: type[PrimitivesBase] = max(fitting, key=lambda cls: len(cls.tagset))
    return best


def _recipe_modules() -> Iterator[ModuleType]:
    package = importlib.import_module("niripipe.recipes")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if hasattr(module, "recipe_tags"):
            yield module


def _as_recipe(primitive: str) -> Recipe:
    def run(p: Any) -> None:
        getattr(p, primitive)()

    run.__name__ = primitive
    return run


def _user_recipe(name: str) -> Recipe | None:
    """Load a recipe from a file under a private module name, so that nothing global is changed."""
    location, separator, function = name.rpartition("::" if "::" in name else ".")
    if not separator:
        return None
    path = usable_path(location, item="recipe")
    if path.suffix != ".py":
        path = path.with_name(path.name + ".py")
    if not path.is_file():
        raise InputError(
            "The recipe file does not exist", file=path, item="recipe", found=name, expected="file.function"
        )
    private = f"_niripipe_recipe_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    module = ModuleType(private)
    module.__file__ = str(path)
    # Dataclasses and annotations look their module up by name while it is loaded.
    sys.modules[private] = module
    try:
        _FreshLoader(private, str(path)).exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(
            "The recipe file cannot be loaded", file=path, found=f"{type(error).__name__}: {error}"
        ) from error
    finally:
        del sys.modules[private]
    recipe = getattr(module, function, None)
    if not callable(recipe):
        functions = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(
            "The recipe file has no such function",
            file=path,
            item=function,
            expected=", ".join(functions) or "a function of p",
            remedy=nearest(function, functions),
        )
    return recipe  # type: ignore[no-any-return]


class _FreshLoader(SourceFileLoader):
    """Loads a file as it is now, and writes no cache."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def _not_found(
    name: str,
    tags: frozenset[str],
    mode: str,
    fitting: list[RecipeLibrary],
    primitives: type[PrimitivesBase],
) -> InputError:
    recipes = [recipe.__name__ for library in fitting for recipe in library.recipes]
    if name == DEFAULT_RECIPE:
        problem = f"There is no default recipe for these data in mode {mode}"
    else:
        problem = f"There is no recipe and no primitive named {name!r} for these data in mode {mode}"
    return InputError(
        problem,
        item="recipe",
        found=f"tags {', '.join(sorted(tags))}",
        expected=", ".join(dict.fromkeys(recipes)) or "tags that a recipe exists for",
        remedy=nearest(name, [*recipes, *primitives.primitives()]),
    )
