"""Write the notebooks that go with the scripts in this folder: `python pair.py`.

The scripts are what is edited. Notebooks have no outputs, and the identifiers of their cells follow from
position and content, so that the same script always gives the same notebook.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SCRIPTS = (
    "colours_jhk.py",
    "deep_field.py",
    "extended_source.py",
    "headers_of_2003.py",
    "moving_target.py",
    "point_source_dither.py",
    "raw_folder_to_stack.py",
    "standard_star.py",
)


def as_notebook(script: Path) -> str:
    """Return the notebook that a percent script gives, as JSON text."""
    import jupytext

    notebook = jupytext.read(script)
    for number, cell in enumerate(notebook.cells):
        digest = hashlib.sha256(f"{number} {cell.source}".encode()).hexdigest()
        cell["id"] = digest[:8]
        if cell.cell_type == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    # The version that jupytext may add would change the notebook with every release.
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    return json.dumps(_with_lines(notebook), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _with_lines(notebook: dict) -> dict:
    """Return a notebook as it stands in a file: the source of a cell as a list of lines."""
    cells = [{**cell, "source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return {**notebook, "cells": cells}


if __name__ == "__main__":
    for name in SCRIPTS:
        path = Path(__file__).with_name(name)
        path.with_suffix(".ipynb").write_text(as_notebook(path), encoding="utf-8")
        print(path.with_suffix(".ipynb"))
