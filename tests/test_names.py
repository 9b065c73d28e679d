"""The names of the package, which are loaded when they are first used."""

from __future__ import annotations

import pytest

import niripipe


@pytest.mark.parametrize("name", niripipe.__all__)
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(niripipe, name) is not None
    assert name in dir(niripipe)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Redoce'"):
        _ = niripipe.Redoce  # type: ignore[attr-defined]
