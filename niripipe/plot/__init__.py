"""Looking at frames and products, with matplotlib (``pip install "niripipe[plot]"``).

>>> from niripipe import plot
>>> figure = plot.show("N20160102S0271_image.fits")         # doctest: +SKIP
>>> figure.savefig("galaxy.png")                            # doctest: +SKIP

Every function takes a data set or a path, and returns a figure. It draws into ``ax=`` where axes are given,
else into a new figure, which a notebook shows. No state of ``matplotlib.pyplot`` is used or changed, and no
display is needed.

The names are loaded when they are first used: `thumbnail_png` and `save_png` do not import matplotlib, which
takes longer than they do.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("matplotlib") is None:
    raise ImportError(
        'niripipe.plot needs matplotlib, which is in the extra "plot": pip install "niripipe[plot]"',
        name="matplotlib",
    )

if TYPE_CHECKING:
    from niripipe.plot.canvas import Picture
    from niripipe.plot.graphs import alignment, growth, noise, sky
    from niripipe.plot.images import bpm, compare, flat, show, stack
    from niripipe.plot.thumbnails import save_png, thumbnail_png

__all__ = [
    "Picture",
    "alignment",
    "bpm",
    "compare",
    "flat",
    "growth",
    "noise",
    "save_png",
    "show",
    "sky",
    "stack",
    "thumbnail_png",
]

_HOMES = {
    "canvas": ("Picture",),
    "graphs": ("alignment", "growth", "noise", "sky"),
    "images": ("bpm", "compare", "flat", "show", "stack"),
    "thumbnails": ("save_png", "thumbnail_png"),
}


def _load(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"niripipe.plot.{module}"), name)
    raise AttributeError(f"module 'niripipe.plot' has no attribute {name!r}")


if not TYPE_CHECKING:
    # Type checkers see the imports above, and so find misspelt names.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)
