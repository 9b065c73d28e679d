"""Settings of Sphinx: ``sphinx-build -W docs build/docs``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from niripipe import __version__

project = "niripipe"
author = "niripipe developers"
copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "build"]
# A page of its own for every name; classes show their members on it.
templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
default_role = "code"

myst_heading_anchors = 3

html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True}
