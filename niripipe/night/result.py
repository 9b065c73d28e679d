"""What became of a night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from niripipe.cal_service import CalibrationService
from niripipe.errors import AlgorithmError, InputError, NiripipeError
from niripipe.inspection import Table
from niripipe.night.jobs import Job, Kind
from niripipe.primitives.params import nearest
from niripipe.printable import printable
from niripipe.reduction import RunReport

if TYPE_CHECKING:
    from niripipe.night.plan import NightPlan

__all__ = ["JobResult", "JobStatus", "NightResult", "named"]


_MOST_WARNINGS = 6
"""Warnings of a reduction in the printed result: the report has all."""


class JobStatus(StrEnum):
    """What became of a reduction."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of one reduction.

    Attributes
    ----------
    name, kind : str
        As in the plan.
    status : JobStatus
        Done, failed, or skipped.
    reason : str
        Why it failed or was skipped; empty otherwise.
    outputs : tuple of str
        Absolute paths of the products.
    report : RunReport or None
        What was done to which frame.
    error : Exception or None
        What stopped it.
    seconds : float
        Wall time.
    notes : tuple of str
        What went differently than planned.
    messages : tuple of (int, str)
        Levels and texts of what a worker of an executor logged; the calling process shows it.
    reused : bool
        Whether the products are those of an earlier run, which would come out the same again.
    fingerprint : str or None
        Checksum of all that decided the products.
    colours : tuple of str
        Absolute paths of what this stack and those in other filters gave together; of the first one only.
    """

    name: str
    kind: Kind
    status: JobStatus
    reason: str = ""
    outputs: tuple[str, ...] = ()
    report: RunReport | None = None
    error: Exception | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    messages: tuple[tuple[int, str], ...] = field(default=(), repr=False)
    reused: bool = False
    fingerprint: str | None = field(default=None, repr=False)
    colours: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the reduction, each once, without those that `frames_lost` sums up."""
        if self.report is None:
            return ()
        lost = self.frames_lost
        said = {f"{f.name} is left out ({f.step}): {f.reason}" for f in self.report.dropped if lost}
        said |= {f"{f.name} is left out: {f.reason}" for f in self.report.dropped if lost}
        return tuple(text for text in dict.fromkeys(self.report.warnings) if text not in said | {lost})

    @property
    def frames_lost(self) -> str:
        """How many frames are in the product, which are not, and why; empty if all are."""
        return "" if self.report is None or self.status is not JobStatus.DONE else self.report.usage.warning()

    @property
    def ok(self) -> bool:
        """Whether the reduction was done, with at least half of the frames that were given for it."""
        enough = self.report is None or self.report.usage.enough
        return self.status is JobStatus.DONE and enough


N = TypeVar("N", Job, JobResult)


def named(entries: Sequence[N], name: str, unknown: str) -> N:
    """Return the entry of a name, or the only one of a kind.

    Raises
    ------
    InputError
        There is none of that name (`unknown` says so), or several of that kind.
    """
    found = [e for e in entries if e.name == name] or [e for e in entries if e.kind == name]
    if len(found) == 1:
        return found[0]
    names = [entry.name for entry in found or entries]
    raise InputError(
        "There are several reductions of this kind" if found else unknown,
        item="name",
        found=name,
        expected=", ".join(names) or "nothing: the plan is empty",
        remedy=None if found else nearest(name, names),
    )


@dataclass(frozen=True, slots=True, repr=False)
class NightResult(Sequence[JobResult]):
    """What became of a night: one entry a reduction, in the order of the plan.

    An index is a position or the name of a reduction. Prints and renders as a table.

    Attributes
    ----------
    output_dir : Path
        Folder of the products.
    results : tuple of JobResult
        In the order of the plan.
    calibrations : CalibrationService
        Where the processed calibrations were registered.
    seconds : float
        Wall time of the whole.
    plan : NightPlan or None
        What was to be done, and why.
    """

    output_dir: Path
    results: tuple[JobResult, ...]
    calibrations: CalibrationService = field(repr=False)
    seconds: float = 0.0
    plan: NightPlan | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether every reduction was done, each with at least half of its frames."""
        return all(result.ok for result in self.results)

    @property
    def failed(self) -> tuple[JobResult, ...]:
        """The reductions that failed."""
        return tuple(result for result in self.results if result.status is JobStatus.FAILED)

    @property
    def skipped(self) -> tuple[JobResult, ...]:
        """The reductions that were skipped because others failed."""
        return tuple(result for result in self.results if result.status is JobStatus.SKIPPED)

    def products(self, kind: str | None = None) -> list[str]:
        """Return the paths of the products, of all kinds or of one."""
        return [path for result in self.results if kind in (None, result.kind) for path in result.outputs]

    @property
    def colours(self) -> list[str]:
        """The paths of stacks on common grids, catalogues of colours, and pictures."""
        return [path for result in self.results for path in result.colours]

    def check(self) -> None:
        """Raise if a reduction failed or lost most of its frames; for pipelines that want all or nothing.

        Raises
        ------
        NiripipeError
            The one error, or one that lists them all.
        """
        errors = [result.error for result in self.failed if result.error is not None]
        poor = [result for result in self.results if result.status is JobStatus.DONE and not result.ok]
        errors += [
            AlgorithmError(
                "Less than half of the frames are in the product", item=r.name, found=r.frames_lost
            )
            for r in poor
        ]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            text = "\n".join(f"{r.name}: {r.reason or r.frames_lost}" for r in (*self.failed, *poor))
            raise NiripipeError(f"{len(errors)} reductions failed:\n{text}")

    def to_html(self, path: str | PathLike[str] | None = None) -> Path:
        """Write the report of the night: one page of HTML that needs nothing else.

        It shows what was reduced and why, a picture of each product, its quality, frames that were left out,
        warnings, calibrations with the reasons for them, times, parameters that differ from the defaults, and
        versions of software. Only links to the products lead out of it.

        Parameters
        ----------
        path : path-like, optional
            The file; ``night.html`` in `output_dir` by default. An older one is replaced.

        Returns
        -------
        Path

        Raises
        ------
        StorageError
            It cannot be written.
        """
        from niripipe.night.html import write_report

        return write_report(self, path)

    def table(self) -> Table:
        """Return the reductions as a table; the rows also hold ``kind`` and ``outputs``."""
        rows = [
            {
                "reduction": result.name,
                "status": str(result.status),
                "seconds": round(result.seconds, 2),
                "product": "\n".join(Path(path).name for path in (*result.outputs, *result.colours)),
                "remark": "\n".join(
                    text
                    for text in (result.reason, *_frames(result), *result.notes, *_warnings(result))
                    if text
                ),
                "kind": result.kind,
                "outputs": result.outputs,
            }
            for result in self.results
        ]
        done = sum(result.status is JobStatus.DONE for result in self.results)
        title = (
            f"{done} of {len(rows)} reductions done in {self.seconds:.1f} s, products in {self.output_dir}"
        )
        if reused := sum(result.reused for result in self.results):
            title += f"; {reused} reused, unchanged since an earlier run"
        if poor := [result.name for result in self.results if result.frames_lost]:
            title += f"; frames are missing in: {', '.join(poor)}"
        return Table(["reduction", "status", "seconds", "product", "remark"], rows, title=title)

    def __getitem__(self, index: int | slice | str) -> JobResult:  # type: ignore[override]
        if not isinstance(index, str):
            return self.results[index]  # type: ignore[return-value]
        return named(self.results, index, "There is no such reduction")

    def __len__(self) -> int:
        return len(self.results)

    def __str__(self) -> str:
        return printable(self.table(), lines=True)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _frames(result: JobResult) -> tuple[str, ...]:
    """Return the remark about frames that are not in the product."""
    if not result.frames_lost:
        return ()
    return (result.frames_lost if result.ok else f"NOT OK, less than half: {result.frames_lost}",)


def _warnings(result: JobResult) -> list[str]:
    """Return the remarks about warnings: the first few, and how many more there are."""
    texts = [f"warning: {text}" for text in result.warnings]
    if (more := len(texts) - _MOST_WARNINGS) > 1:
        texts[_MOST_WARNINGS:] = [f"{more} more warnings in the report of this reduction"]
    return texts
