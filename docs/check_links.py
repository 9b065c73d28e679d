"""Check the links inside the built manual: ``python docs/check_links.py build/docs``.

Links to other sites are checked by ``sphinx-build -b linkcheck docs build/links``, which needs the network.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Page(HTMLParser):
    """The links of a page, and what can be linked to in it."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what points somewhere, and where one can point to."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


@cache
def read(path: Path) -> Page:
    """Return the links and anchors of an HTML file."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(folder: Path) -> list[str]:
    """Return a line for each link of the manual in `folder` that leads nowhere."""
    broken = []
    pages = (path for path in folder.rglob("*.html") if "_static" not in path.parts)
    for path in sorted(pages):
        for link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                broken.append(f"{path.relative_to(folder)}: {link}")
            elif target.suffix == ".html" and unquote(parts.fragment) not in {"", *read(target).anchors}:
                broken.append(f"{path.relative_to(folder)}: {link} (no such anchor)")
    return broken


if __name__ == "__main__":
    found = broken_links(Path(sys.argv[1]))
    print("\n".join(found) or "all links inside the manual lead somewhere")
    sys.exit(bool(found))
