"""Settings of Sphinx: ``sphinx-build -W docs build/docs``."""

from __future__ import annotations

import shutil
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from niripipe import __version__

HERE = Path(__file__).resolve().parent

project = "niripipe"
author = "niripipe developers"
copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "build", "inventories"]

# ---- pages

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
default_role = "code"

# ---- notebooks: copied from notebooks/ and run when the manual is built

notebooks = HERE / "notebooks"
notebooks.mkdir(exist_ok=True)
for notebook in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    shutil.copy2(notebook, notebooks)
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "notebook_cache")
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

# ---- reference: a page for every name; classes show their members on it

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# ---- other manuals: names are links when their inventories can be reached, and plain text otherwise

nothing = HERE.parent / "build" / "empty.inv"
nothing.parent.mkdir(exist_ok=True)
nothing.write_bytes(
    b"# Sphinx inventory version 2\n# Project: none\n# Version: 0\n"
    b"# The remainder of this file is compressed using zlib.\n" + zlib.compress(b"")
)
intersphinx_mapping = {
    name: (url, (None, str(nothing)))
    for name, url in {
        "python": "https://docs.python.org/3/",
        "numpy": "https://numpy.org/doc/stable/",
        "astropy": "https://docs.astropy.org/en/stable/",
        "photutils": "https://photutils.readthedocs.io/en/stable/",
    }.items()
}
intersphinx_timeout = 5

# ---- looks

html_theme = "pydata_sphinx_theme"
html_title = "niripipe"
html_theme_options = {
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-light",
    "pygments_dark_style": "a11y-dark",
}
html_sidebars = {"index": []}
html_static_path = ["_static"]
html_css_files = ["niripipe.css"]
html_show_sourcelink = False
html_copy_source = False
