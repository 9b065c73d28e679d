"""Looking at frames and products, with matplotlib (``pip install "niripipe[plot]"``).

>>> from niripipe import plot
>>> figure = plot.show("N20160102S0271_image.fits")         # doctest: +SKIP
>>> figure.savefig("galaxy.png")                            # doctest: +SKIP

Every function takes a data set or a path, and returns a figure. It draws into ``ax=`` where axes are given,
else into a new figure, which a notebook shows. No state of ``matplotlib.pyplot`` is used or changed, and no
display is needed.
"""

from __future__ import annotations

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        'niripipe.plot needs matplotlib, which is in the extra "plot": pip install "niripipe[plot]"',
        name="matplotlib",
    ) from error

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
