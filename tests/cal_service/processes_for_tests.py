"""Python processes of their own, with this niripipe in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import niripipe


def run_python(code: str, *arguments: str) -> str:
    """Run a program to its end, with warnings as errors, and return what it prints; no word on stderr."""
    sources = [str(Path(niripipe.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sources))},
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
