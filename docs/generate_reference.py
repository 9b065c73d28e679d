"""Write the parts of the manual that only repeat what the code says.

Run as ``python docs/generate_reference.py``. It writes the pages in ``primitives/``, ``descriptors.md``, and
the parts between ``<!-- generated: ... -->`` comments of other pages. With ``--check`` nothing is written,
and the pages that are out of date are named.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blocks import markdown_table, put_block

from niripipe import astrodata, inspection, simulate
from niripipe.astrodata import DQ, AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.cal_service import ASSOCIATION_RULES, PROCESSED_TYPES, Rule
from niripipe.instruments import AstroDataNiri
from niripipe.primitives import NIRI
from niripipe.primitives.base import Primitive, PrimitivesBase

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/generate_reference.py from the code; changes made here are lost. -->"

TITLES = {
    "Standardize": "Preparing frames",
    "Bookkeeping": "Streams and files",
    "Lists": "Lists of frames on disk",
    "Calibrate": "Darks, flats, bad pixel masks",
    "Pixels": "Replacing and scaling pixels",
    "CosmicRays": "Cosmic rays",
    "Stack": "Combining frames",
    "Sources": "Sources and object masks",
    "Sky": "Sky",
    "SkyFlat": "Flats of the sky",
    "Cleanup": "Readout patterns",
    "Align": "Alignment, resampling, flux scale",
    "ResampleTo": "Shifts by hand, grids of your own",
    "Quality": "Quality assessment",
    "Astrometry": "Reference catalogue and astrometry",
    "Store": "Storing products",
}

DQ_MEANINGS = {
    DQ.bad_pixel: "in a bad pixel mask",
    DQ.non_linear: "above the non-linear level, below saturation",
    DQ.saturated: "saturated, or a hole enclosed by saturated pixels",
    DQ.cosmic_ray: "cosmic ray, or persistence of an earlier exposure",
    DQ.no_data: "no data: outside of every frame, NaN, or an object in every sky",
    DQ.overlap: "overlap of a mosaic; kept for data of other origin",
    DQ.unilluminated: "not illuminated, or outside the limits of a flat",
}

COMPARISONS = {
    "same": "the same",
    "same_components": "the same optical components, however they are spelt",
    "covers": "contains the frame's",
    "lamp_on": "a lamp was on (IRhigh, IRlow or QH), or a processed flat is of the sky (Sky)",
}


def main() -> None:
    """Write the pages, or check them."""
    made = dict(pages())
    unknown = sorted(set((FOLDER / "primitives").glob("*.md")) - set(made))
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"{path} is out of date" for path in [*stale, *unknown]) or 0)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(made[path])
    for path in unknown:
        path.unlink()


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every page that is generated, in whole or in part, with its text."""
    groups = primitive_groups()
    yield FOLDER / "primitives" / "index.md", primitive_index(groups)
    frame = any_frame()
    for group in groups:
        yield FOLDER / "primitives" / f"{page_name(group)}.md", primitive_page(group, groups[group], frame)
    yield FOLDER / "descriptors.md", descriptor_page()
    for name, blocks in {
        "calibrations.md": {"rules": rules_tables()},
        "products.md": {"dq": dq_table(), "stamps": stamp_table()},
        "recipes.md": {"overview": recipe_table(), "steps": recipe_steps()},
    }.items():
        text = (FOLDER / name).read_text()
        for block, content in blocks.items():
            text = put_block(text, block, content)
        yield FOLDER / name, text


# ---- primitives


def primitive_groups() -> dict[type[PrimitivesBase], list[Primitive]]:
    """Return the primitives by the class that holds them, in the order of the classes."""
    groups = {}
    for base in NIRI.__mro__:
        found = [value for value in vars(base).values() if isinstance(value, Primitive)]
        if found:
            groups[base] = found
    return groups


def page_name(group: type[PrimitivesBase]) -> str:
    """Return the name of the page of a group: that of its module."""
    return group.__module__.rpartition(".")[2]


def any_frame() -> AstroData:
    """Return a NIRI image, to ask for parameters with."""
    return astrodata.open(simulate.raw_frame(size=256).hdulist())


def primitive_index(groups: dict[type[PrimitivesBase], list[Primitive]]) -> str:
    """Return the page that lists all primitives."""
    rows = [
        [
            f"[{primitive.name}]({page_name(group)}.md#{primitive.name.lower()})",
            "each" if primitive.per_frame else "all",
            first_sentence(primitive),
        ]
        for group, primitives in groups.items()
        for primitive in primitives
    ]
    rows.sort(key=lambda row: row[0].lower())
    listed = "\n".join(page_name(group) for group in groups)
    return f"""{NOTE}

# Primitives

{len(rows)} primitives, in alphabetical order. Those for `each` frame treat frames one by one, on threads; the
others need all frames of a stream together.

Every primitive also takes `stream=`, `instream=` and `outstream=` (which stream it reads and writes; `main`
by default), `skip_primitive=True` (leave the step out; recorded as SKIPPED) and `write_outputs=True` (write
the frames after the step). The last two are given with the primitive's name in front when they come from the
user: `{{"flatCorrect:write_outputs": True}}`.

Defaults are those for NIRI; where NIRI's differ from the general one, the latter is in brackets.
`inspection.showpars` shows the values that a recipe would use for a frame.

{markdown_table(["primitive", "frames", "what it does"], rows)}

```{{toctree}}
:hidden:

{listed}
```
"""


def primitive_page(group: type[PrimitivesBase], primitives: list[Primitive], frame: AstroData) -> str:
    """Return the page of one group of primitives."""
    parts = [NOTE, f"# {TITLES.get(group.__name__, group.__name__)}", prose(inspect.getdoc(group) or "")]
    parts += [primitive_entry(primitive, frame) for primitive in primitives]
    return "\n\n".join(parts) + "\n"


def primitive_entry(primitive: Primitive, frame: AstroData) -> str:
    """Return what is said of one primitive."""
    facts = ["Treats frames one by one" if primitive.per_frame else "Treats all frames of a stream together"]
    if primitive.stamp:
        facts.append(f"time stamp `{primitive.stamp}`")
    parts = [f"## {primitive.name}", prose(inspect.getdoc(primitive) or ""), "; ".join(facts) + "."]
    rows = [parameter_row(primitive, row) for row in parameters(primitive, frame)]
    if rows:
        parts.append(markdown_table(["parameter", "default", "allowed", "meaning"], rows))
    else:
        parts.append("No parameters.")
    return "\n\n".join(parts)


def parameters(primitive: Primitive, frame: AstroData) -> list[dict[str, Any]]:
    """Return the parameters of a primitive, each once."""
    table = inspection.showpars(frame, primitive.name, all=True)
    return list({row["parameter"]: row for row in table}.values())


def parameter_row(primitive: Primitive, row: dict[str, Any]) -> list[str]:
    """Return a parameter with NIRI's default, and the general one where it differs."""
    name, general = row["parameter"], row["default"]
    own = NIRI.instrument_defaults.get(primitive.name, {})
    default = f"`{own[name]!r}` ({general!r})" if own.get(name, general) != general else f"`{general!r}`"
    return [f"`{name}`", default, row["allowed"], escaped(row["meaning"])]


# ---- descriptors


def descriptor_page() -> str:
    """Return the page that lists the descriptors."""
    rows = []
    for name in descriptor_methods(AstroDataNiri):
        method = getattr(AstroDataNiri, name)
        names = [p for p in inspect.signature(method).parameters if p != "self"]
        rows.append([f"`{name}({', '.join(names)})`", first_sentence(method).removeprefix("Return ")])
    return f"""{NOTE}

# Descriptors

What a NIRI header means, whatever its epoch. A descriptor is a method of a data set, `ad.exposure_time()`; an
expression names it without brackets, `exposure_time==20`. A missing or unreadable value is None. Descriptors
about an extension give a list on a data set and one value on a single slice, `ad[0].gain()`. Arguments named
here are optional. The [API reference](api.md) has the units and the keywords of each.

{markdown_table(["descriptor", "what it returns"], rows)}
"""


# ---- calibrations


def rules_tables() -> str:
    """Return the association rules of every type of calibration."""
    parts = []
    for caltype, rules in ASSOCIATION_RULES.items():
        kind = "processed" if caltype in PROCESSED_TYPES else "raw"
        parts.append(f"**{caltype}** ({kind})")
        parts.append(
            markdown_table(
                ["descriptor", "of the calibration must be"],
                [[f"`{rule.descriptor}`", wanted(rule)] for rule in rules.rules],
            )
        )
        if rules.stale_after is not None:
            parts.append(f"Further away than {rules.stale_after:g} days: used, with a warning.")
    return "\n\n".join(parts)


def wanted(rule: Rule) -> str:
    """Return one rule in words."""
    if rule.comparison == "within":
        unit = "days" if rule.descriptor == "ut_datetime" else "s"
        return f"within {rule.tolerance:g} {unit} of the frame's"
    if rule.comparison == "not_after":
        return f"not later than {rule.tolerance:g} day after the frame's"
    if rule.comparison in ("is", "is_not", "at_least"):
        return {"is": "", "is_not": "anything but ", "at_least": "at least "}[
            rule.comparison
        ] + f"`{rule.value}`"
    return COMPARISONS[rule.comparison]


# ---- products and recipes


def dq_table() -> str:
    """Return the bits of the data-quality plane."""
    rows = [[str(int(bit)), f"`DQ.{bit.name}`", meaning] for bit, meaning in DQ_MEANINGS.items()]
    unusable = " + ".join(str(int(bit)) for bit in DQ_MEANINGS if bit & DQ.fail)
    text = f"`DQ.fail` ({int(DQ.fail)} = {unusable}) joins the bits that make a value unusable."
    return markdown_table(["bit", "name", "meaning"], rows) + "\n\n" + text


def stamp_table() -> str:
    """Return the time stamps by primitive."""
    stamps: dict[str, list[str]] = {}
    for name, primitive in NIRI.primitives().items():
        if primitive.stamp:
            stamps.setdefault(primitive.stamp, []).append(f"`{name}`")
    rows = [[f"`{stamp}`", ", ".join(names)] for stamp, names in sorted(stamps.items())]
    return markdown_table(["keyword", "when this was done"], rows)


def recipe_table() -> str:
    """Return the recipes with tags and modes."""
    rows = [
        [
            f"`{row['recipe']}`",
            ", ".join(f"**{mode}**" if mode in row["default"] else mode for mode in row["modes"]),
            ", ".join(sorted(row["tags"])),
            ", ".join(sorted(row["blocked"])),
            escaped(row["purpose"]),
        ]
        for row in inspection.showrecipes()
    ]
    return markdown_table(["recipe", "modes", "tags", "not", "purpose"], rows)


def recipe_steps() -> str:
    """Return the primitives that every recipe calls."""
    parts = []
    for row in inspection.showrecipes():
        steps = list(steps_of(row))
        title = f"{row['recipe']} ({', '.join(row['modes'])})"
        if sum(other["recipe"] == row["recipe"] for other in inspection.showrecipes()) == 1:
            title = row["recipe"]
        parts.append(f"### {title}")
        parts.append(markdown_table(["", "primitive", "stream", "parameters set by the recipe"], steps))
    return "\n\n".join(parts)


def steps_of(row: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the steps of one recipe, in the first of its modes."""
    mode = row["modes"][0]
    module = importlib.import_module(row["module"])
    recipe = next(r for r in module.recipes[mode] if r.__name__ == row["recipe"])
    for step in inspection.showprimitives(any_frame(), recipe, mode):
        own = [
            f"`{name}={step['values'][name]!r}`"
            for name, origin in step["origins"].items()
            if str(origin) == "recipe"
        ]
        page = NIRI.primitives()[step["primitive"]].__module__.rpartition(".")[2]
        link = f"[{step['primitive']}](primitives/{page}.md#{step['primitive'].lower()})"
        yield [str(step["step"]), link, step["stream"].replace(">", "→"), ", ".join(own)]


# ---- text


def first_sentence(documented: Any) -> str:
    """Return the first sentence of a docstring, for a table."""
    return escaped(prose((inspect.getdoc(documented) or "").split("\n\n")[0]).replace("\n", " "))


def prose(docstring: str) -> str:
    """Return a numpydoc docstring as Markdown."""
    head, *sections = re.split(r"\n\n?(?=[A-Z][a-z ]+\n-{3,}\n)", docstring)
    parts = [head]
    for section in sections:
        title, _, body = section.split("\n", 2)
        parts.append(f"{title}:\n\n{definitions(body)}" if title == "Raises" else f"{title}: {body}")
    return "\n\n".join(parts).replace("``", "`")


def definitions(body: str) -> str:
    """Return the entries of a section as a list."""
    entries = re.findall(r"^(\S.*)\n((?:[ \t]+.*\n?)*)", body + "\n", re.M)
    return "\n".join(f"- {name}: {' '.join(text.split())}" for name, text in entries)


def escaped(text: str) -> str:
    """Protect what Markdown would take for markup outside of code."""
    parts = re.split(r"(`[^`]*`)", text.replace("``", "`"))
    return "".join(part if part.startswith("`") else re.sub(r"([<>*_])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    main()
