"""Which of the frames that a reduction was given are in its product, and why the others are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from niripipe.astrodata import AstroData, add_history
from niripipe.astrodata.tables import as_rows

if TYPE_CHECKING:
    from niripipe.reduction.report import RunReport

__all__ = ["WARNING_STATUS", "FramesLostWarning", "Usage", "describe_usage", "record_warnings", "usage_of"]

_REMOVED_ON_PURPOSE = frozenset({"removeFirstFrame", "rejectInputs", "selectFromInputs", "removeFromInputs"})
_SETS_SKIES_ASIDE = frozenset({"separateSky", "makeSky"})
_STACKS = frozenset({"stackFrames", "stackSkyFlats"})

WARNING_STATUS = "WARNING"
"""Status of a row of HISTORY that is a warning."""

_DROPPED = ("IMAGE", "STEP", "REASON")
"""Columns of the table of frames that were left out."""

_ENOUGH = 0.5
"""Share of the frames below which a product is not what was asked for."""

_MOST_KEYWORDS = 999
"""Keywords of eight characters hold a number of three digits; the report has all frames."""

_LONGEST_REASON = 120
"""Characters of a reason that are repeated in a warning about several frames."""


class FramesLostWarning(UserWarning):
    """A product was made of fewer frames than were given for it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of the frames of a reduction.

    Attributes
    ----------
    used : tuple of str
        File names of the frames in the product.
    lost : tuple of (str, str, str)
        Frames that were meant for the product and are not in it: file name, step, reason in short.
    removed : dict of str to str
        Frames that were left out on purpose, with the step: the first frame of a sequence, for example.
    skies : tuple of str
        Frames that only served as sky.
    lost_skies : tuple of (str, str, str)
        Those of them that were left out: file name, step, reason in short.
    """

    used: tuple[str, ...]
    lost: tuple[tuple[str, str, str], ...] = ()
    removed: dict[str, str] = field(default_factory=dict)
    skies: tuple[str, ...] = ()
    lost_skies: tuple[tuple[str, str, str], ...] = ()

    @property
    def given(self) -> int:
        """Number of frames that were meant for the product."""
        return len(self.used) + len(self.lost)

    @property
    def enough(self) -> bool:
        """Whether at least half of the frames are in the product."""
        return len(self.used) >= _ENOUGH * self.given

    def summary(self) -> str:
        """Return the numbers in one line."""
        text = f"{len(self.used)} of {self.given} frames used"
        steps = sorted(set(self.removed.values()))
        if steps:
            text += f" ({len(self.removed)} removed on purpose by {', '.join(steps)})"
        return text + (f" ({len(self.skies)} more served as sky)" if self.skies else "")

    def warning(self) -> str:
        """Return which frames were lost and why, sky frames too, in one line; empty if none was."""
        if not (self.lost or self.lost_skies):
            return ""
        text = f"{len(self.used)} of {self.given} frames used"
        text += f"; left out: {_grouped(self.lost)}" if self.lost else ""
        return text + (f"; sky frames left out: {_grouped(self.lost_skies)}" if self.lost_skies else "")


def usage_of(report: RunReport) -> Usage:
    """Follow the frames of a reduction through its steps.

    Parameters
    ----------
    report : RunReport
        Of a run that has ended, or has come as far as the stack.

    Returns
    -------
    Usage
        Names are those of the files given. A frame is used if it went into a stack of frames, in a recipe
        without one if no step left it out.
    """
    dropped = {frame.name: (frame.step, _in_short(frame.reason)) for frame in report.dropped}
    given = list(dict.fromkeys([*report.inputs, *dropped]))
    streams = {"main": set(report.inputs)}
    stacked: set[str] | None = None
    removed: dict[str, str] = {}
    skies: set[str] = set()
    vanished: dict[str, str] = {}
    for step in report.steps:
        source, _, target = step.stream.partition(" > ")
        before, after = streams.get(source), set(step.outcomes)
        if before is None:
            before = after
        if step.primitive in _STACKS and source == "main":
            stacked = before if stacked is None else stacked | before
        elif source == "main" and not target:
            gone = before - after - set(dropped)
            if step.primitive in _REMOVED_ON_PURPOSE:
                # What was moved to a stream is in use there, as the short darks of a bad pixel mask.
                gone = gone.difference(*(names for stream, names in streams.items() if stream != "main"))
                removed.update(dict.fromkeys(gone, step.primitive))
            elif step.primitive in _SETS_SKIES_ASIDE:
                # A sky frame may be left out later.
                skies |= {n for n in before - after if dropped.get(n, ("",))[0] != step.primitive}
            elif step.primitive != "clearStream":
                vanished.update(dict.fromkeys(gone, step.primitive))
        streams[target or source] = after
    candidates = [name for name in given if name not in removed and name not in skies]
    if stacked is None:
        used = [name for name in candidates if name not in dropped]
    else:
        used = [name for name in candidates if name in stacked and name not in dropped]
    lost = [
        (name, *dropped.get(name, (vanished.get(name, "recipe"), "it does not come as far as the stack")))
        for name in candidates
        if name not in used
    ]
    lost_skies = tuple((name, *dropped[name]) for name in given if name in skies and name in dropped)
    return Usage(tuple(used), tuple(lost), removed, tuple(sorted(skies)), lost_skies)


def describe_usage(frame: AstroData, report: RunReport) -> None:
    """Write into a product which frames were left out, and into a stack how many were given for it.

    Parameters
    ----------
    frame : AstroData
        A product. The table DROPPED has the frames that were left out, sky frames too: IMAGE, STEP, REASON.
        There is none when there are no such frames.
    report : RunReport
        Of the run, as far as it has come.
    """
    _tabulate_dropped(frame, report)
    if "NCOMBINE" not in frame.phu or not any(step.primitive in _STACKS for step in report.steps):
        return
    usage = usage_of(report)
    if frame.phu["NCOMBINE"] != len(usage.used):
        # One of several stacks, or a stack that was made before.
        return
    frame.phu.set("NFRAMES", usage.given, "Number of frames given for the stack")
    for number, (name, step, _) in enumerate(usage.lost[:_MOST_KEYWORDS], 1):
        frame.phu.set(f"LOST{number:03d}", f"{name}: {step}", "Frame left out, and by which step")


def record_warnings(frame: AstroData, report: RunReport) -> None:
    """Add the warnings of a run to the history of a product, with status ``WARNING`` and their step."""
    known = {(record.primitive, record.reason) for record in frame.history if record.status == WARNING_STATUS}
    texts = [(step.primitive, text) for step in report.steps for text in step.warnings]
    of_steps = {text for _, text in texts}
    texts = [("input", text) for text in report.warnings if text not in of_steps] + texts
    for step, text in dict.fromkeys(texts):
        if (step, text) not in known:
            add_history(frame, step, status=WARNING_STATUS, reason=text, software=report.software)


def _tabulate_dropped(frame: AstroData, report: RunReport) -> None:
    rows = [(item.name, item.step, item.reason) for item in report.dropped]
    named = {name for name, _, _ in rows}
    if "NCOMBINE" in frame.phu and any(step.primitive in _STACKS for step in report.steps):
        rows += [lost for lost in usage_of(report).lost if lost[0] not in named]
    if "DROPPED" in frame.tables:
        before = frame.columns("DROPPED")
        rows = [(str(row["IMAGE"]), str(row["STEP"]), str(row["REASON"])) for row in before] + rows
    if rows:
        columns = zip(*dict.fromkeys(rows), strict=True)
        frame.DROPPED = as_rows(
            {name: [_plain(text) for text in values] for name, values in zip(_DROPPED, columns, strict=True)}
        )


def _plain(text: str) -> str:
    """Return a text as a column of a FITS table holds it: ASCII, one line."""
    return " ".join(text.encode("ascii", "backslashreplace").decode().split()) or "-"


def _grouped(lost: Iterable[tuple[str, str, str]]) -> str:
    groups: dict[tuple[str, str], list[str]] = {}
    for name, step, reason in lost:
        groups.setdefault((step, reason), []).append(name)
    return "; ".join(f"{', '.join(names)} ({step}: {reason})" for (step, reason), names in groups.items())


def _in_short(reason: str) -> str:
    """Return the beginning of a reason; all of it is in the report."""
    line = reason.splitlines()[0] if reason else "no reason given"
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON].rstrip()} ..."
