from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .server import Archive, serving


@pytest.fixture
def archive() -> Iterator[Archive]:
    """A server of the kind of the archive, on this machine, that can misbehave."""
    with serving() as server:
        yield server


@pytest.fixture
def options(archive: Archive) -> dict[str, Any]:
    """Settings for tests: the local server, and no patience."""
    return {"base_url": archive.url, "timeout": 10.0, "retries": 1, "backoff": 0.01}
