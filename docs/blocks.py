"""Generated parts of pages: text between two comments, and small Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def put_block(page: str, name: str, text: str) -> str:
    """Return a page with the part between ``<!-- generated: name -->`` and its end replaced.

    Raises
    ------
    ValueError
        The page has no such part, or two.
    """
    pattern = re.compile(
        rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", re.S
    )
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"the page has no part (or several) named {name!r}")
    return pattern.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", page)


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; bars inside cells are escaped."""
    lines = [list(titles), ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
