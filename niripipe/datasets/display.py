"""How data sets and search results show themselves: as text, and in a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niripipe.datasets.archive import ArchiveFiles
    from niripipe.datasets.catalogue import DataSet, FileGroup

__all__ = ["data_set_as_html", "data_set_as_text", "files_as_html", "files_as_text"]

_GROUP_TITLES = ("role", "files", "frames", "description")
_FILE_TITLES = ("name", "UT", "type", "class", "object", "filter", "exposure (s)", "program", "")
_SHOWN = 200


def data_set_as_text(data_set: DataSet) -> str:
    """Return a data set as a title, its description and a table of its groups."""
    lines = [f"{data_set.name}: {data_set.title}"]
    lines += textwrap.wrap(" ".join(data_set.description.split()), 88)
    lines += ["", *_text_table(_GROUP_TITLES, [_group_row(group) for group in data_set.files]), ""]
    lines += [f"{title}: {value}" for title, value in _sources(data_set)]
    return "\n".join(lines).rstrip()


def data_set_as_html(data_set: DataSet) -> str:
    """Return the notebook view of a data set; the same content as the text."""
    sources = "".join(
        f"<li>{html.escape(title)}: {html.escape(value)}</li>" for title, value in _sources(data_set)
    )
    table = _html_table(_GROUP_TITLES, [_group_row(group) for group in data_set.files])
    return (
        f"<div><b>{html.escape(data_set.name)}</b>: {html.escape(data_set.title)}"
        f"<p>{html.escape(data_set.description)}</p>{table}<ul>{sources}</ul></div>"
    )


def files_as_text(files: ArchiveFiles) -> str:
    """Return search results as a table of at most 200 lines and a line that counts them."""
    rows = [_file_row(files, position) for position in range(min(len(files), _SHOWN))]
    return "\n".join([*_text_table(_FILE_TITLES, rows), _count(files)])


def files_as_html(files: ArchiveFiles) -> str:
    """Return the notebook view of search results; the same content as the text."""
    rows = [_file_row(files, position) for position in range(min(len(files), _SHOWN))]
    return f"<div>{_html_table(_FILE_TITLES, rows)}{html.escape(_count(files))}</div>"


def _group_row(group: FileGroup) -> list[str]:
    first, last = group.frames[0], group.frames[-1]
    span = first if first == last else f"{first.removesuffix('.fits')} ... {last.removesuffix('.fits')}"
    return [group.role, str(len(group.frames)), span, group.description]


def _sources(data_set: DataSet) -> list[tuple[str, str]]:
    archive = data_set.archive
    search = [archive.instrument, *archive.programs, *(day.isoformat() for day in archive.dates)]
    package = "" if data_set.package is None else data_set.package.url
    items = [
        ("archive", ", ".join(search)),
        ("package", package),
        ("reference", " ".join(data_set.reference.split())),
    ]
    return [(title, value) for title, value in items if value]


def _file_row(files: ArchiveFiles, position: int) -> list[str]:
    file = files[position]
    values = (
        file.name,
        None if file.ut_datetime is None else file.ut_datetime.isoformat(" ", "seconds"),
        file.observation_type,
        file.observation_class,
        file.object,
        file.filter_name,
        None if file.exposure_time is None else f"{file.exposure_time:.3f}",
        file.program_id,
        "proprietary" if file.is_proprietary() else None,
    )
    return ["" if value is None else value for value in values]


def _count(files: ArchiveFiles) -> str:
    hidden = len(files) - _SHOWN
    text = f"{len(files)} files"
    if hidden > 0:
        text += f", {hidden} of them not shown"
    return f"{text}; the archive may hold more: narrow the search" if files.truncated else text


def _text_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    table = [list(titles), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in table]
    rule = "-" * max(len(line.rstrip()) for line in lines)
    return [lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:])]


def _html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
