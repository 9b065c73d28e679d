"""Which of the frames that a reduction was given are in its product, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from niripipe.astrodata import AstroData

if TYPE_CHECKING:
    from niripipe.reduction.report import RunReport

__all__ = ["FramesLostWarning", "Usage", "describe_usage", "usage_of"]

_REMOVED_ON_PURPOSE = frozenset({"removeFirstFrame", "rejectInputs", "selectFromInputs", "removeFromInputs"})
_SETS_SKIES_ASIDE = frozenset({"separateSky", "makeSky"})
_STACKS = frozenset({"stackFrames", "stackSkyFlats"})

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
    """

    used: tuple[str, ...]
    lost: tuple[tuple[str, str, str], ...] = ()
    removed: dict[str, str] = field(default_factory=dict)
    skies: tuple[str, ...] = ()

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
        """Return which frames were lost and why, in one line; empty if none was."""
        if not self.lost:
            return ""
        groups: dict[tuple[str, str], list[str]] = {}
        for name, step, reason in self.lost:
            groups.setdefault((step, reason), []).append(name)
        left_out = "; ".join(
            f"{', '.join(names)} ({step}: {reason})" for (step, reason), names in groups.items()
        )
        return f"{len(self.used)} of {self.given} frames used; left out: {left_out}"


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
                skies |= gone
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
    return Usage(tuple(used), tuple(lost), removed, tuple(sorted(skies)))


def describe_usage(frame: AstroData, report: RunReport) -> None:
    """Write into a stack how many frames were given for it, and which of them are not in it.

    Parameters
    ----------
    frame : AstroData
        A product; one that is not a stack of frames is left as it is.
    report : RunReport
        Of the run, as far as it has come.
    """
    if "NCOMBINE" not in frame.phu or not any(step.primitive in _STACKS for step in report.steps):
        return
    usage = usage_of(report)
    if frame.phu["NCOMBINE"] != len(usage.used):
        # One of several stacks, or a stack that was made before.
        return
    frame.phu.set("NFRAMES", usage.given, "Number of frames given for the stack")
    for number, (name, step, _) in enumerate(usage.lost[:_MOST_KEYWORDS], 1):
        frame.phu.set(f"LOST{number:03d}", f"{name}: {step}", "Frame left out, and by which step")


def _in_short(reason: str) -> str:
    """Return the beginning of a reason; all of it is in the report."""
    line = reason.splitlines()[0] if reason else "no reason given"
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON].rstrip()} ..."
