"""Pages of HTML in one file: everything that is shown is escaped, pictures are inside, nothing is fetched."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from niripipe.astrodata.fits_write import atomic_file
from niripipe.errors import StorageError
from niripipe.printable import printable

__all__ = ["bullets", "details", "facts", "heading", "link", "page", "picture", "table", "text", "write_page"]

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6675; --paper: #f5f6f8; --card: #ffffff; --line: #dde1e7;
  --accent: #1f5fa8; --good: #1b7a43; --bad: #b3261e; --doubt: #8a5a00; --doubt-paper: #fff6e0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --soft: #9aa6b5; --paper: #12161c; --card: #1b2129; --line: #313a46;
    --accent: #7fb2ec; --good: #6fcf97; --bad: #ff8a80; --doubt: #f2c265; --doubt-paper: #2b2415; }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 1180px; background: var(--paper);
  color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .7rem; }
h3 { font-size: 1.05rem; margin: 0 0 .3rem; }
h4 { font-size: .8rem; margin: 1rem 0 .2rem; color: var(--soft); text-transform: uppercase;
  letter-spacing: .05em; }
p { margin: .3rem 0; }
a { color: var(--accent); }
.lead { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem 1.1rem;
  margin: 0 0 1rem; }
.product { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; }
@media (min-width: 760px) { .product.pictured { grid-template-columns: 360px minmax(0, 1fr); } }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
.pictures img { width: 100%; max-width: 360px; }
figure { margin: 0; }
figcaption { font-size: .8rem; color: var(--soft); margin-top: .2rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-size: .86rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
th small { display: block; font-weight: 400; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { white-space: nowrap; }
td.long { min-width: 14rem; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .stacked thead { display: none; }
  .stacked tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; padding: .45rem 0;
    border-bottom: 1px solid var(--line); }
  .stacked td { border: 0; padding: 0; }
  .stacked td:first-child { flex: 1 0 100%; font-weight: 600; }
  .stacked td.long { flex: 1 0 100%; color: var(--soft); }
}
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem .9rem; margin: .4rem 0;
  font-size: .92rem; }
dt { color: var(--soft); }
dd { margin: 0; }
ul { margin: .3rem 0; padding-left: 1.2rem; font-size: .92rem; }
details { margin-top: .7rem; }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .doubt { color: var(--doubt); }
.warning { background: var(--doubt-paper); border-radius: 6px; padding: .5rem .8rem; margin: .6rem 0; }
.warning h4 { margin-top: 0; color: var(--doubt); }
footer { color: var(--soft); font-size: .85rem; margin-top: 2.5rem; }
@media print { body { max-width: none; } .card { break-inside: avoid; } }
"""
"""Light and dark by the reader's setting; one column on a phone."""


def text(value: object) -> str:
    """Return a value as HTML text: escaped, control characters made visible."""
    return escape(printable(value, lines=True)).replace("\n", "<br>")


def page(title: str, lead: Iterable[str], body: Iterable[str], foot: str = "") -> str:
    """Return a page.

    Parameters
    ----------
    title : str
    lead : iterable of str
        Lines below the title.
    body : iterable of str
        Parts in HTML.
    foot : str
        A line below all.
    """
    lines = "".join(f'<p class="lead">{text(line)}</p>' for line in lead)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<header><h1>{text(title)}</h1>{lines}</header>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<footer>{text(foot)}</footer></body></html>\n"
    )


def heading(title: str, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{text(title)}</h{level}>"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] = (), *, stacked: bool = False
) -> str:
    """Return a table that scrolls where the page is narrow.

    Parameters
    ----------
    head, rows : sequences of str
        In HTML.
    kinds : sequence of str
        What each column holds: ``number``, ``name``, ``long``, or nothing.
    stacked : bool
        Put the cells of a row below each other on a phone instead.
    """
    classes = [*kinds, *[""] * (len(head) - len(kinds))]
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{title}</th>" for title in head)
    kind = ' class="stacked"' if stacked else ""
    content = f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table{kind}>{content}</table></div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return labels with what they stand for, in HTML; pairs without content are left out."""
    rows = "".join(f"<dt>{text(label)}</dt><dd>{content}</dd>" for label, content in pairs if content)
    return f"<dl>{rows}</dl>" if rows else ""


def bullets(items: Iterable[str]) -> str:
    """Return a list of texts; nothing if there are none."""
    rows = "".join(f"<li>{text(item)}</li>" for item in items)
    return f"<ul>{rows}</ul>" if rows else ""


def details(summary: str, body: str) -> str:
    """Return what a reader may open; nothing if it is empty."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>" if body else ""


def picture(png: bytes, caption: str) -> str:
    """Return a picture that is part of the page."""
    content = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def link(target: str | os.PathLike[str], folder: Path) -> str:
    """Return a link to a file, relative to the folder of the page."""
    target = Path(target)
    try:
        reference = Path(os.path.relpath(target, folder)).as_posix()
    except ValueError:
        # On another drive.
        reference = target.as_posix()
    return f'<a href="{escape(quote(reference))}">{text(target.name)}</a>'


def write_page(content: str, path: str | os.PathLike[str]) -> Path:
    """Write a page; an older file is replaced when the new one is complete.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    target = Path(path).expanduser().absolute()
    if target.is_dir():
        raise StorageError("A page is a file", file=target, found="a folder", item="path")
    with atomic_file(target) as file:
        file.write(content.encode("utf-8", "backslashreplace"))
    return target
