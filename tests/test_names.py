"""The names of the package, which are loaded when they are first used."""

from __future__ import annotations

import gc
import importlib

import pytest

import niripipe


@pytest.mark.parametrize("name", niripipe.__all__)
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(niripipe, name) is not None
    assert name in dir(niripipe)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Redoce'"):
        _ = niripipe.Redoce  # type: ignore[attr-defined]


@pytest.mark.parametrize("enabled", [True, False])
def test_cycles_are_not_collected_while_modules_load_and_are_as_before_afterwards(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def load(name: str) -> object:
        found.append(gc.isenabled())
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", load)
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ImportError):
            _ = niripipe.Reduce
        assert found == [False]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
