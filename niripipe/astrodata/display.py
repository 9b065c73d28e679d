"""How a data set shows itself: as text, and in a notebook with a thumbnail."""

from __future__ import annotations

import base64
import html
import struct
import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from niripipe.printable import printable

if TYPE_CHECKING:
    from niripipe.astrodata.core import AstroData

__all__ = ["as_html", "as_png", "as_text", "html_cell", "html_list", "html_table", "thumbnail"]

_THUMBNAIL = 160
_PERCENTILES = (1.0, 99.5)


def as_text(ad: AstroData) -> str:
    """Return what `AstroData.info` prints: file, tags, planes of each extension, tables."""
    lines = [f"Filename: {ad.path or '(in memory)'}"]
    lines += textwrap.wrap(
        " ".join(sorted(ad.tags)), 80, initial_indent="Tags: ", subsequent_indent="      "
    ) or ["Tags: none"]
    lines += ["", f"{'Index':<6} {'Content':<24} {'Type':<10} {'Dimensions':<16} Format"]
    for position, extension in enumerate(ad.extensions):
        for content, kind, dimensions, form in _planes(extension):
            label = f"[{position:>2}]  " if content == "science" else " " * 6
            lines.append(f"{label:<6} {content:<24} {kind:<10} {dimensions:<16} {form}".rstrip())
    tables = ad.table_sizes()
    if tables:
        lines += ["", "Tables:"]
        lines += [f"  {name:<22} {size}" for name, size in sorted(tables.items())]
    return printable("\n".join(lines), lines=True)


def as_html(ad: AstroData) -> str:
    """Return the notebook view: thumbnail of the first extension, tags, planes. Pixels are read."""
    image = ""
    if ad.extensions:
        png = base64.b64encode(as_png(thumbnail(ad.extensions[0].read("data")))).decode("ascii")
        image = f'<img alt="thumbnail" src="data:image/png;base64,{png}"/>'
    rows = [(str(i), *plane) for i, extension in enumerate(ad.extensions) for plane in _planes(extension)]
    tables = [f"{name}: {size}" for name, size in sorted(ad.table_sizes().items())]
    return (
        f"<div><b>{html.escape(ad.filename or '(in memory)')}</b>"
        f"<div>{html.escape(', '.join(sorted(ad.tags)) or 'no tags')}</div>{image}"
        f"{html_table(('#', 'plane', 'kind', 'shape', 'type'), rows)}"
        f"{html_list(tables) if tables else ''}</div>"
    )


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of texts in HTML, aligned at the left; line ends in a cell stay."""
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    names = "".join(html_cell(name, tag="th") for name in head)
    body = "".join(f"<tr>{''.join(map(html_cell, row))}</tr>" for row in rows)
    return f"<table>{title}<tr>{names}</tr>{body}</table>"


def html_cell(text: str, *, right: bool = False, tag: str = "td") -> str:
    """Return a cell of a table in HTML; notebooks would align it at the right."""
    lines = "<br>".join(html.escape(line) for line in printable(text, lines=True).split("\n"))
    align = "right" if right else "left"
    return f'<{tag} style="text-align:{align};vertical-align:top">{lines}</{tag}>'


def html_list(items: Iterable[str]) -> str:
    """Return a list of texts in HTML."""
    return f"<ul>{''.join(f'<li>{html.escape(printable(item, lines=True))}</li>' for item in items)}</ul>"


def thumbnail(data: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a small grey picture of an image, scaled between percentiles, north of the array at the top.

    Parameters
    ----------
    data : numpy.ndarray
        Image, shape ``(ny, nx)``; every n-th pixel is taken, at most 160 along a side.
    """
    step = max(1, -(-max(data.shape) // _THUMBNAIL))
    small = np.asarray(data[::step, ::step], np.float64)
    finite = small[np.isfinite(small)]
    low, high = np.percentile(finite, _PERCENTILES) if finite.size else (0.0, 1.0)
    level = (np.nan_to_num(small, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    return np.asarray(np.clip(level * 255, 0, 255), np.uint8)[::-1]


def as_png(picture: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit PNG file (https://www.w3.org/TR/png-3/) of a picture, first row at the top.

    Grey for shape (ny, nx), red, green and blue for shape (ny, nx, 3).
    """
    height, width = picture.shape[:2]
    rows = picture.reshape(height, -1)
    filtered = np.zeros((height, rows.shape[1] + 1), np.uint8)  # each row starts with its filter type, 0
    filtered[:, 1:] = rows
    colour_type = 0 if picture.ndim == 2 else 2
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)),
            (b"IDAT", zlib.compress(filtered.tobytes())),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _planes(extension: Any) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for label, name in (("science", "data"), ("variance", "variance"), ("mask", "mask")):
        plane = extension.plane(name)
        if plane is not None:
            rows.append((label, "image", str(plane.shape), str(plane.dtype)))
    for name in sorted(extension.extras):
        held = extension._extras[name]
        if name in extension.tables:
            table = held.columns()
            rows.append((f".{name}", "table", f"({len(table)}, {len(table.dtype.names)})", "n/a"))
        else:
            rows.append((f".{name}", "image", str(held.shape), str(held.dtype)))
    return rows
