"""Look-up: recipes and primitives are found by name and tags; a wrong name is answered with the nearest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from niripipe.errors import InputError
from niripipe.primitives.niri import NIRI
from niripipe.recipes import dark, flat_image, image
from niripipe.reduction.lookup import find_primitives, find_recipe, is_own, recipe_libraries

SCIENCE = {"GEMINI", "NORTH", "NIRI", "IMAGE", "RAW", "UNPREPARED"}
DARK = {"GEMINI", "NORTH", "NIRI", "CAL", "DARK", "RAW", "UNPREPARED"}
FLAT = SCIENCE | {"CAL", "FLAT", "LAMPON", "GCALFLAT"}

OWN = """\
def recipe_one(p):
    p.prepare()


def recipe_two(p):
    p.prepare()


value = 3
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_recipes.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("mode", ["sq", "ql", "qa"])
@pytest.mark.parametrize(
    ("tags", "recipe"), [(DARK, dark.makeProcessedDark), (FLAT, flat_image.makeProcessedFlat)]
)
def test_the_default_recipe_of_calibrations_follows_from_the_tags_in_every_mode(tags, recipe, mode):
    assert find_recipe("_default", tags, mode, NIRI) is recipe


@pytest.mark.parametrize("mode", ["sq", "ql"])
def test_the_default_recipe_of_images_reduces_them(mode):
    assert find_recipe("_default", SCIENCE, mode, NIRI) is image.reduce


def test_a_recipe_is_found_by_its_name_among_those_that_fit():
    assert find_recipe("makeProcessedBPM", FLAT, "sq", NIRI) is flat_image.makeProcessedBPM
    assert find_recipe("alignAndStack", SCIENCE, "sq", NIRI) is image.alignAndStack


def test_a_recipe_for_other_data_is_refused_with_those_that_fit():
    with pytest.raises(InputError, match=r"makeProcessedDark.*makeProcessedFlat, makeProcessedBPM"):
        find_recipe("makeProcessedDark", FLAT, "sq", NIRI)


@pytest.mark.parametrize("tags", [DARK | {"PROCESSED"}, FLAT | {"PROCESSED"}, {"NIRI", "SPECT"}])
def test_data_without_a_recipe_are_refused_with_their_tags(tags):
    with pytest.raises(InputError, match="no default recipe") as caught:
        find_recipe("_default", tags, "sq", NIRI)
    assert all(tag in str(caught.value) for tag in tags)


def test_a_misspelt_name_is_answered_with_the_nearest_recipe_or_primitive():
    with pytest.raises(InputError, match="Did you mean 'makeProcessedFlat'"):
        find_recipe("makeprocessdFlat", FLAT, "sq", NIRI)
    with pytest.raises(InputError, match="'skyCorrect'"):
        find_recipe("skyCorect", SCIENCE, "sq", NIRI)


def test_a_callable_is_taken_as_it_is():
    def mine(p):
        pass

    assert find_recipe(mine, set(), "sq", NIRI) is mine


@pytest.mark.parametrize("form", ["{folder}/my_recipes.recipe_two", "{folder}/my_recipes.py::recipe_two"])
def test_a_recipe_of_the_users_own_file_is_found_in_both_spellings(own_file, form):
    found = find_recipe(form.format(folder=own_file.parent), SCIENCE, "sq", NIRI)
    assert found.__name__ == "recipe_two"
    assert not is_own(found)


def test_a_recipe_file_is_found_relative_to_the_current_folder_and_home(own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    assert find_recipe("my_recipes.recipe_one", SCIENCE, "sq", NIRI).__name__ == "recipe_one"
    monkeypatch.setenv("HOME", str(own_file.parent))
    assert find_recipe("~/my_recipes.recipe_one", SCIENCE, "sq", NIRI).__name__ == "recipe_one"


def test_loading_a_recipe_file_changes_nothing_global_and_leaves_no_files(own_file, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, modules = list(sys.path), set(sys.modules)
    find_recipe(f"{own_file}::recipe_one", SCIENCE, "sq", NIRI)
    assert sys.path == path
    assert set(sys.modules) == modules
    assert [p.name for p in own_file.parent.iterdir()] == [own_file.name]


def test_an_edited_recipe_file_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "edited.py"
    # Equal length, and within one second: neither size nor whole-second time tells the two apart.
    path.write_text("def f(p):\n    return 1\n")
    assert find_recipe(f"{path}::f", SCIENCE, "sq", NIRI)(None) == 1
    path.write_text("def f(p):\n    return 2\n")
    assert find_recipe(f"{path}::f", SCIENCE, "sq", NIRI)(None) == 2


def test_a_recipe_file_may_use_what_python_modules_use(tmp_path):
    # Dataclasses look their own module up when annotations are text.
    path = tmp_path / "modern.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Settings:\n    level: float = 3.0\n\n\n"
        "def f(p):\n    return Settings().level\n"
    )
    assert find_recipe(f"{path}::f", SCIENCE, "sq", NIRI)(None) == 3.0


def test_a_recipe_file_that_does_not_exist_is_refused_by_path(tmp_path):
    with pytest.raises(InputError, match=r"does not exist.*absent\.py"):
        find_recipe(f"{tmp_path}/absent.recipe", SCIENCE, "sq", NIRI)


@pytest.mark.parametrize(
    ("function", "expected"), [("recipe_on", "recipe_one"), ("value", "recipe_one, recipe_two")]
)
def test_a_function_that_the_recipe_file_does_not_have_is_answered_with_those_it_has(
    own_file, function, expected
):
    with pytest.raises(InputError, match=expected):
        find_recipe(f"{own_file}::{function}", SCIENCE, "sq", NIRI)


@pytest.mark.parametrize(
    "content",
    ["def f(p:\n", "import nothing_of_this_name\ndef f(p): ...\n", "1 / 0\n", "raise SystemExit(3)\n"],
)
def test_a_recipe_file_that_cannot_be_loaded_is_refused_with_the_reason(tmp_path, content):
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(InputError, match=r"cannot be loaded.*broken\.py.*(Error|SystemExit)"):
        find_recipe(f"{path}::f", SCIENCE, "sq", NIRI)


def test_a_primitive_can_be_a_recipe():
    calls = []

    class P:
        def detectSources(self):
            calls.append("detectSources")

    recipe = find_recipe("detectSources", SCIENCE, "sq", NIRI)
    recipe(P())
    assert (recipe.__name__, calls) == ("detectSources", ["detectSources"])


def test_an_unknown_mode_is_refused_with_the_modes_there_are():
    with pytest.raises(InputError, match="sq, ql, qa"):
        recipe_libraries("fast")


def test_recipe_libraries_are_most_specific_first_and_in_a_fixed_order():
    sizes = [len(library.tags) for library in recipe_libraries("sq")]
    assert sizes == sorted(sizes, reverse=True)
    assert recipe_libraries("sq") == recipe_libraries("sq")


def test_recipes_of_the_library_are_known_as_its_own():
    assert is_own(image.reduce)
    assert is_own(find_recipe("detectSources", SCIENCE, "sq", NIRI))


def test_primitives_are_found_by_tags():
    assert find_primitives(SCIENCE) is NIRI
    with pytest.raises(InputError, match=r"There are no primitives for these data.*GMOS"):
        find_primitives({"GEMINI", "GMOS"})
