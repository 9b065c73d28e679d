from __future__ import annotations

from pathlib import Path

import pytest

from niripipe.simulate import raw_frame


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw frame in a folder that is the test's alone."""
    frame = raw_frame(size=256)
    path = tmp_path / frame.name
    path.write_bytes(frame.to_bytes())
    return path
