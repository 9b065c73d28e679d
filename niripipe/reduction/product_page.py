"""What a page says about a product, from the product alone or with the report of its reduction."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niripipe.astrodata import AstroData
from niripipe.primitives.niri import NIRI
from niripipe.primitives.params import resolve
from niripipe.reduction import page
from niripipe.reduction.quality import COLUMNS, DIGITS, measure_product
from niripipe.reduction.usage import WARNING_STATUS

if TYPE_CHECKING:
    from niripipe.reduction.report import RunReport

__all__ = [
    "NO_PICTURES",
    "ProductCard",
    "changed_parameters",
    "has_pictures",
    "product_card",
    "quality_overview",
    "report_page",
    "software_versions",
    "steps_of",
]

NO_PICTURES = 'There are no pictures: they need matplotlib (pip install "niripipe[plot]").'

_SHOWN = (
    "frames_used", "exposure", "fwhm", "ellipticity", "sky_level", "sky_drift", "depth", "depth_mag",
    "zero_point", "alignment", "flagged",
)  # fmt: skip
"""Columns of the table of quality that a page shows."""
_LABELS = {
    "frames_used": "frames", "exposure": "exposure", "fwhm": "FWHM", "ellipticity": "ellipticity",
    "sky_level": "sky", "sky_drift": "sky drift", "depth": "depth", "depth_mag": "depth",
    "zero_point": "zero point", "alignment": "alignment", "flagged": "flagged",
}  # fmt: skip
_UNITS = {"electron": "e⁻", "electron / h": "e⁻ / h", "percent": "%", "pix": "pixels", "arcsec": "arcsec"}
_IMAGES = {"BPMIM": "bad pixel mask", "DARKIM": "dark", "FLATIM": "flat"}
_PACKAGES = ("numpy", "scipy", "astropy", "sep", "astroscrappy", "reproject", "matplotlib")
_LONGEST = 120
"""Characters of a parameter's value that are shown."""


@dataclass(slots=True)
class ProductCard:
    """What a page says about one product.

    Attributes
    ----------
    path : Path
    quality : dict
        See `niripipe.reduction.quality.measure_product`.
    html : str
        The part of the page.
    dropped, warnings : list
        Frames that were left out (name, step, reason), and texts.
    date : str
        UT date of the first frame.
    """

    path: Path
    quality: dict[str, Any]
    html: str
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    date: str = ""


def product_card(
    path: str | PathLike[str],
    folder: Path,
    *,
    title: str = "",
    report: RunReport | None = None,
    facts: Iterable[tuple[str, str]] = (),
    reasons: Sequence[str] = (),
    calibrations: Mapping[str, str] | None = None,
) -> ProductCard:
    """Return what a page says about a product.

    Parameters
    ----------
    path : path-like
        The product.
    folder : Path
        Of the page, for links.
    title : str
        Instead of kind, target and filter.
    report : RunReport, optional
        Of the reduction that made it; without one its warnings and steps are those of HISTORY.
    facts : iterable of (str, str)
        Further labels with texts.
    reasons : sequence of str
        Why it was reduced as it was.
    calibrations : mapping of str to str, optional
        File name of a calibration to why it was chosen.
    """
    from niripipe import astrodata

    path = Path(path)
    ad = astrodata.open(path)
    quality = measure_product(ad)
    dropped = _dropped(ad)
    warnings = [r.reason for r in ad.history if r.status == WARNING_STATUS]
    if report is not None:
        dropped = list(dict.fromkeys([*dropped, *((d.name, d.step, d.reason) for d in report.dropped)]))
        warnings = list(report.warnings)
    warnings = list(dict.fromkeys(warnings))
    title = title or " ".join(str(quality[name]) for name in ("kind", "object", "filter") if quality[name])
    rows = [("product", page.link(path, folder)), *((label, page.text(value)) for label, value in facts)]
    rows += _numbers(quality)
    body = page.heading(title, 3) + page.facts(rows)
    body += _section("Why", page.bullets(reasons))
    body += _section("Calibrations", page.bullets(_calibrations(ad, calibrations or {})))
    body += _section("Frames left out", page.bullets(f"{n} ({s}): {why}" for n, s, why in dropped), "warning")
    body += _section("Warnings", page.bullets(warnings), "warning")
    body += page.details("Parameters that differ from the defaults", _parameter_table(ad))
    body += page.details("Steps", steps_of(report) if report is not None else _history_table(ad))
    shown = _pictures(ad)
    kind = "card product pictured" if shown else "card product"
    html = f'<article class="{kind}">{shown}<div>{body}</div></article>'
    return ProductCard(path, quality, html, dropped, warnings, str(ad.phu.get("DATE-OBS", "")))


def quality_overview(cards: Sequence[ProductCard], folder: Path) -> str:
    """Return the table of the quality of products; columns that are empty for all are left out."""
    names = [name for name in _SHOWN if any(_value(card.quality, name) for card in cards)]
    head = ["product"]
    for name in names:
        unit = COLUMNS[name][0]
        head.append(f"{_LABELS[name]}<small>{page.text(_UNITS.get(unit, unit)) or '&nbsp;'}</small>")
    rows = [
        [
            f"{page.link(card.path, folder)}<br>{page.text(_what(card.quality))}",
            *(_value(card.quality, name) or "–" for name in names),
        ]
        for card in cards
    ]
    return page.table(head, rows, ["name", *["number"] * len(names)])


def steps_of(report: RunReport) -> str:
    """Return the table of the steps of a run."""
    rows = [
        [page.text(s.primitive), page.text(s.stream), f"{s.seconds:.2f}", page.text(s.summary())]
        for s in report.steps
    ]
    return page.table(["step", "stream", "seconds", "frames"], rows, ["name", "name", "number", "long"])


def report_page(report: RunReport, folder: Path) -> str:
    """Return the page of one reduction."""
    cards = [product_card(path, folder, report=report) for path in report.outputs if Path(path).is_file()]
    missing = [path for path in report.outputs if not Path(path).is_file()]
    body = [_section("Remarks", page.bullets(report.remarks), "warning")]
    body += ["" if has_pictures() else f'<p class="doubt">{page.text(NO_PICTURES)}</p>']
    body += [page.heading("Quality"), quality_overview(cards, folder)] if cards else []
    body += [page.heading("Products"), *(card.html for card in cards)]
    body += [_section("Products that are not there any more", page.bullets(missing), "warning")]
    if not cards:
        left_out = (f"{d.name} ({d.step}): {d.reason}" for d in report.dropped)
        body += [_section("Frames left out", page.bullets(left_out), "warning")]
        body += [_section("Warnings", page.bullets(dict.fromkeys(report.warnings)), "warning")]
        body += [page.details("Steps", steps_of(report))]
    body += [page.heading("Inputs"), page.details(f"{len(report.inputs)} files", page.bullets(report.inputs))]
    body += [page.heading("Software"), page.facts(software_versions())]
    lead = [f"{report.usage.summary()}, {report.seconds:.1f} s", f"mode {report.mode}, {report.software}"]
    return page.page(f"Reduction: {report.recipe}", lead, body)


def software_versions() -> list[tuple[str, str]]:
    """Return the versions of what was used, as labels and texts."""
    import niripipe

    found = [("niripipe", niripipe.__version__), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append((name, "not installed"))
    return [(name, page.text(version)) for name, version in found]


def has_pictures() -> bool:
    """Return whether pictures can be drawn."""
    try:
        importlib.import_module("niripipe.plot")
    except ImportError:
        return False
    return True


def changed_parameters(ad: AstroData) -> list[tuple[str, str, Any, Any]]:
    """Return the parameters in HISTORY that differ from the defaults of niripipe.

    Returns
    -------
    list of (str, str, value, default)
        Primitive, parameter, value, and the default, None for a parameter that is not known any more.
    """
    known = NIRI.primitives()
    found: dict[tuple[str, str], tuple[str, str, Any, Any]] = {}
    for record in ad.history:
        if record.primitive not in known or record.status == WARNING_STATUS:
            continue
        try:
            values = json.loads(record.args)
        except ValueError:
            continue
        defaults = _defaults(record.primitive)
        for name, value in values.items() if isinstance(values, dict) else ():
            if name not in defaults or defaults[name] != value:
                entry = (record.primitive, name, value, defaults.get(name))
                found[record.primitive, name] = entry
    return list(found.values())


def _defaults(name: str) -> dict[str, Any]:
    instrument = NIRI.instrument_defaults.get(name, {})
    params = resolve(name, NIRI.primitives()[name].model, user={}, call={}, instrument=instrument).params
    defaults: dict[str, Any] = json.loads(json.dumps(params.as_record(), default=str))
    return defaults


def _parameter_table(ad: AstroData) -> str:
    rows = [
        [page.text(primitive), page.text(name), page.text(_short(value)), page.text(_short(default))]
        for primitive, name, value, default in changed_parameters(ad)
    ]
    return (
        page.table(["step", "parameter", "value", "default"], rows, ["name", "name", "long"]) if rows else ""
    )


def _short(value: Any) -> str:
    shown = str(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} ..."


def _history_table(ad: AstroData) -> str:
    rows = [
        [page.text(r.primitive), page.text(r.timestamp_stop[:19].replace("T", " ")), page.text(r.status),
         page.text(r.reason)]
        for r in ad.history
        if r.status != WARNING_STATUS
    ]  # fmt: skip
    return (
        page.table(["step", "UT", "status", "remark"], rows, ["name", "number", "name", "long"])
        if rows
        else ""
    )


def _section(title: str, body: str, kind: str = "") -> str:
    return f'<div class="{escape(kind)}"><h4>{page.text(title)}</h4>{body}</div>' if body else ""


def _dropped(ad: AstroData) -> list[tuple[str, str, str]]:
    if "DROPPED" not in ad.tables:
        return []
    return [(str(r["IMAGE"]), str(r["STEP"]), str(r["REASON"])) for r in ad.columns("DROPPED")]


def _calibrations(ad: AstroData, reasons: Mapping[str, str]) -> list[str]:
    """Return the calibrations of a product, with why they were chosen where that is known."""
    found = []
    left = dict(reasons)
    for keyword, kind in _IMAGES.items():
        name = str(ad.phu.get(keyword, ""))
        if name not in ("", "none"):
            why = [left.pop(given) for given in name.split(",") if given in left]
            found.append(": ".join([f"{kind}: {name}", *why]))
    if "ZPFILE" in ad.phu:
        name, star, why_star = (str(ad.phu.get(key, "")) for key in ("ZPFILE", "ZPSTD", "ZPWHY"))
        why = [left.pop(name)] if name in left else []
        found.append(": ".join([f"zero point: {name}, {star}", why_star, *why]))
    return found + [f"planned: {name}: {why}" for name, why in left.items()]


def _numbers(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name in _SHOWN:
        shown = _value(quality, name)
        if shown:
            unit = COLUMNS[name][0]
            rows.append((_LABELS[name], f"{shown} {page.text(_UNITS.get(unit, unit))}".rstrip()))
    return rows


def _value(quality: Mapping[str, Any], name: str) -> str:
    """Return a number of the table of quality as HTML; nothing where it is not known."""
    value = quality.get(name)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if name == "frames_used":
        return page.text(f"{value} of {quality.get('frames_given', value)}")
    shown = format(value, DIGITS.get(name, ""))
    if shown.strip("-0.") == "":
        shown = shown.lstrip("-")
    error = quality.get(f"{name}_error")
    return page.text(f"{shown} ± {error:.3f}" if error is not None else shown)


def _what(quality: Mapping[str, Any]) -> str:
    return " ".join(str(quality[name]) for name in ("kind", "object", "filter") if quality[name])


def _pictures(ad: AstroData) -> str:
    """Return the picture of a product; nothing where there is none."""
    if not has_pictures():
        return ""
    from niripipe import plot

    return f'<div class="pictures">{page.picture(plot.thumbnail_png(ad), str(ad.filename))}</div>'
