"""What all tests share: no home directory, no ambient configuration, each test in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from niripipe.algorithms import parallel

# How long an example takes depends on the machine, and says nothing about the code.
settings.register_profile("niripipe", deadline=None)
settings.load_profile("niripipe")


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.delenv("DRAGONSRC", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(params=["threads", "copies"])
def wherever(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test twice: as it comes, and with copies of the process for the smallest piece of work."""
    if request.param == "copies":
        monkeypatch.setattr(parallel, "_COPY", 0.0)
        monkeypatch.setattr(parallel, "_FORKS", 0.0)
    return str(request.param)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the project; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the development data are not here")
    return folder
