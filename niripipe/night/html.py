"""The report of a night: one page of HTML, beside the products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from niripipe import astrodata
from niripipe.errors import InputError, NiripipeError
from niripipe.logutils import get_logger
from niripipe.night.colours import CATALOGUE, PICTURE
from niripipe.night.frames import root_name
from niripipe.night.jobs import Job
from niripipe.night.log import LOG_NAME
from niripipe.night.result import JobResult, JobStatus, NightResult
from niripipe.reduction import page
from niripipe.reduction.product_page import (
    NO_PICTURES,
    ProductCard,
    has_pictures,
    product_card,
    quality_overview,
    software_versions,
    steps_of,
)

if TYPE_CHECKING:
    from niripipe.night.plan import NightPlan

__all__ = ["REPORT_NAME", "leave_report", "report_html", "write_report"]

log = get_logger(__name__)

REPORT_NAME = "night.html"
"""Name of the report in the folder of products."""

_ORDER = ("BPM", "dark", "flat", "image")
_CLASSES = {JobStatus.DONE: "good", JobStatus.FAILED: "bad", JobStatus.SKIPPED: "doubt"}


def report_html(folder: str | PathLike[str], path: str | PathLike[str] | None = None) -> Path:
    """Write the report of a night from its products alone.

    What only the run knew is missing: reductions that failed, why calibrations were chosen, and times.

    Parameters
    ----------
    folder : path-like
        Of the products; every FITS file in it that niripipe made is one. Subfolders are not looked into.
    path : path-like, optional
        The page; ``night.html`` in the folder by default. An older one is replaced.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        There is no product in the folder.
    StorageError
        The page cannot be written.
    """
    folder = Path(folder).expanduser().absolute()
    target = folder / REPORT_NAME if path is None else Path(path).expanduser().absolute()
    cards, unread, common = [], [], []
    for file in sorted(folder.glob("*.fits*")):
        try:
            phu = astrodata.open(file).phu
            if "CMNREF" in phu:
                common.append(file)
            elif str(phu.get("PROCSOFT", "")).startswith("niripipe"):
                cards.append(product_card(file, target.parent))
        except NiripipeError as error:
            unread.append(f"{file.name}: {error}")
    if not cards:
        raise InputError("There is no product of niripipe in this folder", file=folder, item="folder")
    cards.sort(key=lambda card: (_ORDER.index(card.quality["kind"]), card.path.name))
    lead = [f"{len(cards)} products in {folder}", _frames(cards, {}), "From the products alone."]
    body = _colours(_colours_in(common), target.parent)
    body += [*_products(cards, target.parent), *_list("Files that cannot be read", unread)]
    return page.write_page(page.page(_title(cards), lead, [*body, *_software()]), target)


def leave_report(result: NightResult, *, report: bool, png: bool) -> None:
    """Write the report of a night that was run, and on request a picture of each product.

    A report that cannot be written is a warning: the products are there.
    """
    try:
        if report:
            log.stdinfo("wrote %s", write_report(result, result.output_dir / REPORT_NAME))
        if png:
            _save_pictures(result)
    except NiripipeError as error:
        log.warning("the report of the night is not complete: %s", error)


def write_report(result: NightResult, path: str | PathLike[str] | None = None) -> Path:
    """Write the report of a night that was run; the parameters are those of `NightResult.to_html`."""
    target = Path(result.output_dir / REPORT_NAME if path is None else path).expanduser().absolute()
    jobs = {} if result.plan is None else {job.name: job for job in result.plan}
    cards: dict[str, list[ProductCard]] = {}
    unread = []
    for entry in result:
        for product in entry.outputs:
            try:
                card = _card(entry, jobs.get(entry.name), product, target.parent)
            except NiripipeError as error:
                unread.append(f"{product}: {error}")
            else:
                cards.setdefault(entry.name, []).append(card)
    every = [card for found in cards.values() for card in found]
    done = sum(entry.status is JobStatus.DONE for entry in result)
    lead = [
        f"{done} of {len(result)} reductions done in {result.seconds:.1f} s, products in {result.output_dir}"
    ]
    lead += ([] if result.plan is None else [result.plan.summary]) + [_frames(every, jobs)]
    body = [page.heading("Reductions"), _overview(result, jobs, target.parent)]
    body += [_not_done(entry, jobs.get(entry.name)) for entry in result if entry.status is not JobStatus.DONE]
    files_of = {entry.name: [Path(path) for path in entry.colours] for entry in result if entry.colours}
    body += _colours(files_of, target.parent)
    body += [*_products(every, target.parent), *_list("Products that cannot be read", unread)]
    if result.plan is not None:
        body += _list("Files that no reduction used", _left_out(result.plan))
        body += _list("Notes", result.plan.notes)
    log_file = target.parent / LOG_NAME
    body += (
        [page.heading("Log"), f"<p>{page.link(log_file, target.parent)}</p>"] if log_file.is_file() else []
    )
    return page.write_page(page.page(_title(every), lead, [*body, *_software()]), target)


def _card(entry: JobResult, job: Job | None, product: str, folder: Path) -> ProductCard:
    """Return what the page says about the product of a reduction."""
    facts = [("seconds", f"{entry.seconds:.1f}")]
    reasons: tuple[str, ...] = ()
    calibrations = {}
    if job is not None:
        files = [Path(file).name for file in job.files]
        facts = [
            ("inputs", f"{len(files)} files: {files[0]} ... {files[-1]}" if len(files) > 1 else files[0]),
            ("recipe", f"{job.recipe} ({job.mode})"),
            *facts,
        ]
        reasons = (*job.reasons, *(f"warning of the plan: {text}" for text in job.warnings))
        calibrations = {calibration.name: calibration.reason for calibration in job.calibrations}
    facts += [("note", note) for note in entry.notes]
    return product_card(
        product,
        folder,
        title=entry.name,
        report=entry.report,
        facts=facts,
        reasons=reasons,
        calibrations=calibrations,
    )


def _overview(result: NightResult, jobs: Mapping[str, Job], folder: Path) -> str:
    rows = []
    for entry in result:
        status = "reused" if entry.reused else str(entry.status)
        kind = _CLASSES[entry.status] if entry.ok or entry.status is not JobStatus.DONE else "doubt"
        remarks = [text for text in (entry.reason, entry.frames_lost) if text]
        warnings = len(entry.warnings) + (len(jobs[entry.name].warnings) if entry.name in jobs else 0)
        if warnings:
            remarks.append(f"{warnings} warning{'s' * (warnings > 1)}, see below")
        rows.append(
            [
                page.text(entry.name),
                f'<b class="{kind}">{page.text(status)}</b>',
                f"{entry.seconds:.1f}",
                "<br>".join(page.link(path, folder) for path in (*entry.outputs, *entry.colours)),
                "<br>".join(page.text(text) for text in remarks),
            ]
        )
    head = ["reduction", "status", "seconds", "product", "remarks"]
    return page.table(head, rows, ["name", "name", "number", "name", "long"], stacked=True)


def _not_done(entry: JobResult, job: Job | None) -> str:
    """Return what the page says about a reduction that failed or was skipped."""
    body = page.heading(f"{entry.name}: {entry.status}", 3) + f"<p>{page.text(entry.reason)}</p>"
    if job is not None:
        body += page.details(f"{len(job.files)} files", page.bullets(job.files))
    if entry.report is not None:
        body += page.bullets(f"{d.name} ({d.step}): {d.reason}" for d in entry.report.dropped)
        body += page.bullets(dict.fromkeys(entry.report.warnings))
        body += page.details("Steps", steps_of(entry.report))
    return f'<article class="card">{body}</article>'


def _products(cards: Sequence[ProductCard], folder: Path) -> list[str]:
    if not cards:
        return []
    missing = "" if has_pictures() else f'<p class="doubt">{page.text(NO_PICTURES)}</p>'
    quality = [page.heading("Quality"), quality_overview(cards, folder)]
    return [*quality, page.heading("Products"), missing, *(card.html for card in cards)]


def _colours(files_of: Mapping[str, Sequence[Path]], folder: Path) -> list[str]:
    """Return what the page says about targets in several filters, by title: their files and pictures."""
    cards = []
    for title, files in files_of.items():
        pictures = [path for path in files if path.suffix == ".png" and path.is_file()]
        shown = "".join(page.picture(path.read_bytes(), path.name) for path in pictures)
        links = "<br>".join(page.link(path, folder) for path in files)
        body = page.heading(title, 3) + page.facts([("files", links)]) + shown
        cards.append(f'<article class="card">{body}</article>')
    return [page.heading("Colours"), *cards] if cards else []


def _colours_in(common: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the files of each target in several filters, by the name of its first stack."""
    found: dict[str, list[Path]] = {}
    for file in common:
        found.setdefault(str(astrodata.open(file).phu["CMNREF"]), []).append(file)
    for reference, files in found.items():
        first = files[0].with_name(root_name(reference))
        others = [first.with_name(first.name + ending) for ending in (CATALOGUE, PICTURE)]
        files += [path for path in others if path.is_file()]
    return found


def _list(title: str, items: Iterable[str]) -> list[str]:
    shown = page.bullets(items)
    return [page.heading(title), f'<div class="card">{shown}</div>'] if shown else []


def _left_out(plan: NightPlan) -> list[str]:
    return [f"{Path(item.path).name}: {item.reason}" for item in plan.left_out]


def _software() -> list[str]:
    return [page.heading("Software"), page.facts(software_versions())]


def _title(cards: Sequence[ProductCard]) -> str:
    dates = sorted({card.date for card in cards if card.date})
    if not dates:
        return "Night"
    return f"Night of {dates[0]}" if len(dates) == 1 else f"Nights of {dates[0]} to {dates[-1]}"


def _frames(cards: Sequence[ProductCard], jobs: Mapping[str, Job]) -> str:
    """Return how many frames were left out, and how many warnings there are, those of the plan too."""
    dropped = {(name, step) for card in cards for name, step, _ in card.dropped}
    warnings = sum(len(card.warnings) for card in cards) + sum(len(job.warnings) for job in jobs.values())
    frames = f"{len(dropped) or 'no'} frame{'s' * (len(dropped) != 1)} left out"
    return f"{frames}, {warnings or 'no'} warning{'s' * (warnings != 1)}"


def _save_pictures(result: NightResult) -> None:
    if not has_pictures():
        log.warning("there are no pictures of the products: %s", NO_PICTURES)
        return
    from niripipe import plot

    save: Callable[[str], Path] = plot.save_png
    for product in result.products():
        log.stdinfo("wrote %s", save(product))
