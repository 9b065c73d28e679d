"""Frames of the propagation tests come from memory or from files on disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from niripipe import astrodata
from niripipe.astrodata import AstroData

Place = Callable[..., list[AstroData]]


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a function that hands frames on as they are, or written to files and opened again."""
    folders = (tmp_path / f"frames{number}" for number in itertools.count())

    def placed(*frames: AstroData) -> list[AstroData]:
        if request.param == "memory":
            return list(frames)
        folder = next(folders)
        folder.mkdir()
        opened = []
        for frame in frames:
            path = folder / Path(str(frame.filename)).name
            frame.write(path)
            opened.append(astrodata.open(path))
        return opened

    return placed
