"""Where the pixels of a frame lie on the chip."""

from __future__ import annotations

from collections.abc import Sequence

from niripipe.astrodata import Section
from niripipe.instruments.headers import Header, get_int
from niripipe.instruments.tables import niri_tables

__all__ = ["centred_section", "readout_section", "roi_name", "window_size"]

_FIRST = 1
"""Largest low limit that tells nothing: windows are counted from 0, in some files from 1."""


def readout_section(header: Header, shape: Sequence[int]) -> Section | None:
    """Return where the readout window lies on the chip.

    Parameters
    ----------
    header : Header
        The extension header.
    shape : sequence of int
        Shape of the pixels, (ny, nx).

    Returns
    -------
    Section or None
        At LOWCOL, LOWROW where one of them is above 1 and the window fits there. NIRI writes 0 for its
        windows, which are centred, so else the section is centred. None for a window that is no part of
        the chip.
    """
    size = window_size(header, shape)
    if size is None:
        return None
    x, y = get_int(header, "LOWCOL") or 0, get_int(header, "LOWROW") or 0
    rows, columns = _extent(header, "LOWROW", "HIROW"), _extent(header, "LOWCOL", "HICOL")
    if rows != columns and (rows, columns) == size:
        x, y = y, x
    chip = niri_tables().detector.size
    if max(x, y) > _FIRST and min(x, y) >= 0 and x + size[0] <= chip and y + size[1] <= chip:
        return Section(x, x + size[0], y, y + size[1])
    return centred_section(size)


def window_size(header: Header, shape: Sequence[int]) -> tuple[int, int] | None:
    """Return the size of the readout window.

    Parameters
    ----------
    header : Header
        The extension header. ``LOWROW``, ``HIROW``, ``LOWCOL`` and ``HICOL`` give the size; see
        `readout_section` for the position.
    shape : sequence of int
        Shape of the pixels, (ny, nx), which decides where the keywords are missing or row and column are
        interchanged.

    Returns
    -------
    tuple of int or None
        (nx, ny); None if neither keywords nor shape give a window that fits on the chip.
    """
    ny, nx = shape[-2], shape[-1]
    rows, columns = _extent(header, "LOWROW", "HIROW"), _extent(header, "LOWCOL", "HICOL")
    size = (nx, ny) if rows is None or columns is None or (rows, columns) == (nx, ny) else (columns, rows)
    chip = niri_tables().detector.size
    return size if 0 < size[0] <= chip and 0 < size[1] <= chip else None


def centred_section(size: tuple[int, int] | None) -> Section | None:
    """Place a window of (nx, ny) pixels on the chip: NIRI's subarrays are centred.

    DRAGONS makes windows of odd size one pixel too small; here they keep their size.
    """
    if size is None:
        return None
    chip = niri_tables().detector.size
    x, y = ((chip - n) // 2 for n in size)
    return Section(x, x + size[0], y, y + size[1])


def roi_name(sizes: Sequence[tuple[int, int]]) -> str | None:
    """Name the region of interest of the extensions, given their sizes (nx, ny).

    Returns
    -------
    str or None
        ``"Full Frame"``, ``"Central768"``, ``"Central512"``, ``"Central256"``, or ``"Custom"`` for any other
        size and for extensions of different sizes; None without extensions.
    """
    if not sizes:
        return None
    detector = niri_tables().detector
    nx, ny = sizes[0]
    if len(set(sizes)) > 1 or nx != ny:
        return "Custom"
    if nx == detector.size:
        return "Full Frame"
    return f"Central{nx}" if nx in detector.central_sizes else "Custom"


def _extent(header: Header, low: str, high: str) -> int | None:
    first, last = get_int(header, low), get_int(header, high)
    return last - first + 1 if first is not None and last is not None and last >= first else None
