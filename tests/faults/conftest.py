"""A folder of small raw frames to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest

from .. import frames as make


@pytest.fixture
def darks(tmp_path: Path) -> list[Path]:
    return make.sequence(tmp_path / "raw", [3.0, 4.0, 5.0], kind="dark", first=20)


@pytest.fixture
def science(tmp_path: Path) -> list[Path]:
    return make.sequence(tmp_path / "raw", [100.0, 110.0, 120.0], first=1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
