from __future__ import annotations

from pathlib import Path

import pytest

from niripipe.cal_service import find_store
from niripipe.cal_service.config import store_file
from niripipe.errors import InputError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_default_is_the_current_folder_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = find_store()
    assert found.location == str(tmp_path / "cal_manager.db")
    assert "default" in found.source


def test_what_is_given_comes_before_everything_else(tmp_path):
    write(Path("~/.geminidr/rsys.cfg").expanduser(), f"[calibs]\ndatabase_dir = {tmp_path}/other.db\n")
    assert find_store(tmp_path / "mine.db").location == str(tmp_path / "mine.db")


def test_search_order_of_configuration_files(tmp_path, monkeypatch):
    home = Path.home()
    named = write(tmp_path / "named.cfg", f"[calibs]\ndatabase_dir = {tmp_path}/named.db\n")
    write(home / ".dragons" / "dragonsrc", f"[calibs]\ndatabases = {tmp_path}/dragons.db get store\n")
    assert find_store().location == str(tmp_path / "dragons.db")
    monkeypatch.setenv("DRAGONSRC", str(write(tmp_path / "rc", f"[calibs]\ndatabases = {tmp_path}/env.db\n")))
    assert find_store().location == str(tmp_path / "env.db")
    rsys = write(home / ".geminidr" / "rsys.cfg", f"[calibs]\ndatabase_dir = {tmp_path}/rsys.db\n")
    assert find_store().location == str(tmp_path / "rsys.db")
    assert find_store().config_file == rsys
    assert find_store(config_file=named).location == str(tmp_path / "named.db")
    assert str(named) in find_store(config_file=named).source


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{}/x", "{}/x/cal_manager.db"),
        ("{}/x.db", "{}/x.db"),
        ("{}/with blanks/x", "{}/with blanks/x/cal_manager.db"),
        ("{}/100%", "{}/100%/cal_manager.db"),
        ("{}/a%(b)s", "{}/a%(b)s/cal_manager.db"),
        ("{}/x   # where the night is", "{}/x/cal_manager.db"),
        ("{}/x ; comment", "{}/x/cal_manager.db"),
        ("{}/number#1", "{}/number#1/cal_manager.db"),
        ('"{}/quoted name"', "{}/quoted name/cal_manager.db"),
        ("~/night", "~/night/cal_manager.db"),
    ],
)
def test_database_dir_may_be_any_path(value, expected, tmp_path):
    path = write(
        tmp_path / "rsys.cfg", f"[calibs]\nstandalone = True\ndatabase_dir = {value.format(tmp_path)}\n"
    )
    assert find_store(config_file=path).location == str(Path(expected.format(tmp_path)).expanduser())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("{}/x.db", "{}/x.db"),
        ("{}/x.db get", "{}/x.db"),
        ("{}/x.db get store   # both", "{}/x.db"),
        ("\n    {}/x.db store\n    https://archive.gemini.edu get\n", "{}/x.db"),
        ("{}/with blanks/x.db get", "{}/with blanks/x.db"),
        ("'{}/with blanks.db' get", "{}/with blanks.db"),
        ("archive.gemini.edu", None),
        ("https://archive.gemini.edu get", None),
    ],
)
def test_databases_lines(lines, expected, tmp_path):
    path = write(tmp_path / "dragonsrc", f"[calibs]\ndatabases = {lines.format(tmp_path)}\n")
    if expected is None:
        with pytest.raises(InputError, match="names no local calibration store"):
            find_store(config_file=path)
    else:
        assert find_store(config_file=path).location == expected.format(tmp_path)


def test_a_bare_database_name_is_a_file_and_not_a_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "dragonsrc", "[calibs]\ndatabases = mine.db get\n")
    assert find_store(config_file=path).location == str(tmp_path / "mine.db")


def test_a_relative_store_is_here_or_beside_its_configuration(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    path = write(tmp_path / "project" / "dragonsrc", "[calibs]\ndatabases = mine.db get\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert find_store(config_file=path).location == str(tmp_path / "elsewhere" / "mine.db")
    (tmp_path / "project" / "mine.db").touch()
    assert find_store(config_file=path).location == str(tmp_path / "project" / "mine.db")
    (tmp_path / "elsewhere" / "mine.db").touch()
    assert find_store(config_file=path).location == str(tmp_path / "elsewhere" / "mine.db")


def test_standalone_without_folder_means_the_folder_of_the_configuration():
    path = write(Path.home() / ".geminidr" / "rsys.cfg", "[calibs]\nstandalone = True\n")
    assert find_store().location == str(path.parent / "cal_manager.db")


def test_files_in_usual_places_that_name_no_local_store_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path.home() / ".dragons" / "dragonsrc", "[interactive]\nbrowser = firefox\n")
    assert find_store().location == str(tmp_path / "cal_manager.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[interactive]\nbrowser = x\n", "names no local"),
        ("no section\n", "cannot be understood"),
        ("[calibs]\ndatabases = {0}/a.db get\n    {0}/b.db get\n", r"several.*a\.db.*b\.db"),
        ("[calibs]\ndatabases = {0}/a.db gett\n", r"unknown flag.*gett.*get or store"),
        ("[calibs]\ndatabase_dir =\n", "database_dir empty"),
    ],
)
def test_configuration_files_that_cannot_be_used_say_why(text, message, tmp_path):
    path = write(tmp_path / "x.cfg", text.format(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        find_store(config_file=path)
    assert caught.value.file == str(path)


def test_a_named_configuration_file_must_exist(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        find_store(config_file=tmp_path / "none.cfg")


def test_binary_configuration_is_an_input_error(tmp_path):
    path = tmp_path / "x.cfg"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        find_store(config_file=path)


def test_places_that_exist_are_what_they_are(tmp_path):
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "plain").write_bytes(b"")
    assert store_file(tmp_path / "folder.db") == str(tmp_path / "folder.db" / "cal_manager.db")
    assert store_file(tmp_path / "plain") == str(tmp_path / "plain")
    assert store_file(tmp_path / "new") == str(tmp_path / "new" / "cal_manager.db")
    assert store_file(tmp_path / "a" / ".." / "new.sqlite3") == str(tmp_path / "new.sqlite3")


def test_urls_are_kept_but_those_of_files_become_files(tmp_path):
    assert store_file("postgresql+psycopg://host/name") == "postgresql+psycopg://host/name"
    assert store_file(f"sqlite:///{tmp_path}/x.db") == str(tmp_path / "x.db")
