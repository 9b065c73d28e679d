"""How data sets and search results show themselves: as text, and in a notebook."""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING

from niripipe.inspection import Table

if TYPE_CHECKING:
    from niripipe.datasets.archive import ArchiveFile, ArchiveFiles
    from niripipe.datasets.catalogue import DataSet

__all__ = ["data_set_as_html", "data_set_as_text", "file_table"]

_SHOWN = 200


def data_set_as_text(data_set: DataSet) -> str:
    """Return a data set as a title, its description and a table of its groups."""
    lines = [f"{data_set.name}: {data_set.title}"]
    lines += textwrap.wrap(" ".join(data_set.description.split()), 88)
    return "\n".join([*lines, "", str(_group_table(data_set))])


def data_set_as_html(data_set: DataSet) -> str:
    """Return the notebook view of a data set; the same content as the text."""
    name, title, description = map(html.escape, (data_set.name, data_set.title, data_set.description))
    return f"<div><b>{name}</b>: {title}<p>{description}</p>{_group_table(data_set)._repr_html_()}</div>"


def file_table(files: ArchiveFiles) -> Table:
    """Return search results as a table of at most 200 rows and a note that counts them."""
    count = f"{len(files)} files"
    if len(files) > _SHOWN:
        count += f", {len(files) - _SHOWN} of them not shown"
    if files.truncated:
        count += "; the archive may hold more: narrow the search"
    columns = ("name", "UT", "type", "class", "object", "filter", "exposure (s)", "program", "")
    return Table(columns, [_file_row(file) for file in files[:_SHOWN]], notes=[count])


def _group_table(data_set: DataSet) -> Table:
    rows = []
    for group in data_set.files:
        first, last = (name.removesuffix(".fits") for name in (group.frames[0], group.frames[-1]))
        span = group.frames[0] if first == last else f"{first} ... {last}"
        rows.append(
            {
                "role": group.role,
                "files": len(group.frames),
                "frames": span,
                "description": group.description,
            }
        )
    archive = data_set.archive
    search = [archive.instrument, *archive.programs, *(day.isoformat() for day in archive.dates)]
    sources = {
        "archive": ", ".join(search),
        "package": "" if data_set.package is None else data_set.package.url,
        "reference": " ".join(data_set.reference.split()),
    }
    notes = [f"{title}: {value}" for title, value in sources.items() if value]
    return Table(("role", "files", "frames", "description"), rows, notes=notes)


def _file_row(file: ArchiveFile) -> dict[str, str]:
    row = {
        "name": file.name,
        "UT": None if file.ut_datetime is None else file.ut_datetime.isoformat(" ", "seconds"),
        "type": file.observation_type,
        "class": file.observation_class,
        "object": file.object,
        "filter": file.filter_name,
        "exposure (s)": None if file.exposure_time is None else f"{file.exposure_time:.3f}",
        "program": file.program_id,
        "": "proprietary" if file.is_proprietary() else None,
    }
    return {name: "" if value is None else value for name, value in row.items()}
