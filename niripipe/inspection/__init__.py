"""Looking before running: what frames are, which recipes and primitives there are, what they would do.

Every function returns a `Table`: it prints as aligned text, renders in a notebook, and is a sequence of
dictionaries for scripts.

>>> from niripipe import inspection
>>> inspection.showd("night/*.fits", "object,exposure_time,filter_name")     # doctest: +SKIP
>>> inspection.showpars("N20160102S0270.fits", "skyCorrect")                 # doctest: +SKIP
"""

from __future__ import annotations

from niripipe.inspection.frames import frame_files, showd, typewalk
from niripipe.inspection.recipes import list_primitives, showpars, showprimitives, showrecipes
from niripipe.inspection.table import Table
from niripipe.reduction.quality import quality_table

__all__ = [
    "Table",
    "frame_files",
    "list_primitives",
    "quality_table",
    "showd",
    "showpars",
    "showprimitives",
    "showrecipes",
    "typewalk",
]
