"""Why a calibration was chosen, or none: every candidate against every rule, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from niripipe.astrodata.display import html_cell
from niripipe.cal_service.facts import CalibrationFacts
from niripipe.cal_service.records import FileState
from niripipe.cal_service.rules import Assessment
from niripipe.errors import CalibrationError
from niripipe.printable import printable

__all__ = ["Candidate", "Explanation"]

_SHOWN = 9
_BLOCK = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One calibration of the type asked for.

    Attributes
    ----------
    name, path : str
        File name and absolute path.
    assessment : Assessment
        How it fares against the rules.
    file_state : {"present", "missing", "changed"}
        Whether the file is still what was registered.
    """

    name: str
    path: str
    assessment: Assessment
    file_state: FileState = "present"

    @property
    def usable(self) -> bool:
        """Whether it meets every rule and its file is as registered."""
        return self.assessment.accepted and self.file_state == "present"

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with it, for people to read."""
        faults = [str(verdict) for verdict in self.assessment.failed]
        if self.file_state != "present":
            faults.append(f"the file is {self.file_state}")
        return tuple(faults)


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """All candidates for one frame against all rules.

    ``str()`` gives a text table, a notebook shows an HTML table, and `rows` holds the same as plain data.

    Attributes
    ----------
    frame : CalibrationFacts
        The frame that needs a calibration.
    caltype : str
        Type of calibration.
    candidates : sequence of Candidate
        In the order of the choice: usable ones first, best first, then the others.
    store : str
        Where was looked.
    others : mapping of str to int
        How many calibrations of other types are there.
    """

    frame: CalibrationFacts
    caltype: str
    candidates: Sequence[Candidate]
    store: str = field(default="", kw_only=True)
    others: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    @property
    def chosen(self) -> str | None:
        """Path of the calibration that is used, or None."""
        return next((candidate.path for candidate in self.candidates if candidate.usable), None)

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """One entry a candidate, of plain values.

        Keys: ``calibration``, ``path``, ``result`` (``chosen``, ``fits`` or ``rejected``), ``days``
        (calibration minus frame), ``file`` (state of the file), ``failed`` (list of texts) and ``rules``: for
        each descriptor ``wanted``, ``found``, ``passed`` and ``note``.
        """
        return tuple(self._row(candidate) for candidate in self.candidates)

    @property
    def summary(self) -> str:
        """One line: what was looked for, where, and how many candidates there were."""
        name = self.frame.filename or "the frame"
        where = f" in {self.store}" if self.store else ""
        count = len(self.candidates)
        fitting = sum(candidate.usable for candidate in self.candidates)
        if count:
            candidates = f"{count} candidate{'s' * (count != 1)}"
            return f"{self.caltype} for {name}{where}: {candidates}, {fitting or 'none'} usable"
        there = ", ".join(f"{count} {caltype}" for caltype, count in sorted(self.others.items()))
        return f"{self.caltype} for {name}{where}: no candidates (the store holds {there or 'nothing'})"

    @property
    def reason(self) -> str | None:
        """Why nothing is used, as one sentence for the history of a product; None if something is.

        That there is no calibration of the type at all, or how many there are and what the one lacks that
        comes nearest.
        """
        if self.chosen is not None:
            return None
        if not self.candidates:
            return f"no {self.caltype} is registered"
        nearest = self.candidates[0]
        lacks = f"{nearest.name}: {'; '.join(nearest.faults)}"
        if len(self.candidates) == 1:
            return f"the only {self.caltype} does not fit: {lacks}"
        return f"none of {len(self.candidates)} {self.caltype} fits; nearest is {lacks}"

    def error(self) -> CalibrationError:
        """Return the error that says that nothing fits, with this table inside."""
        reasons = [
            f"{candidate.name}: {'; '.join(candidate.faults)}" for candidate in self.candidates[:_BLOCK]
        ]
        more = len(self.candidates) - len(reasons)
        if more > 0:
            reasons.append(f"and {more} more")
        problem = f"no {self.summary}"
        if reasons:
            problem += ": " + " | ".join(reasons)
        error = CalibrationError(
            problem,
            file=self.frame.filename or None,
            candidates=self.rows,
            remedy="Make a fitting calibration and register it with add_cal(), or name one with ucals",
        )
        error.add_note(str(self))
        return error

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        shown = self.candidates[:_SHOWN]
        blocks = [_text_block(shown[i : i + _BLOCK], self.chosen) for i in range(0, len(shown), _BLOCK)]
        lines = [self.summary, *blocks]
        notes = [
            f"  {candidate.name}: {verdict.rule.descriptor}: {verdict.note}"
            for candidate in shown
            for verdict in candidate.assessment.failed
            if verdict.note
        ]
        if len(shown) < len(self.candidates):
            notes.append(f"  and {len(self.candidates) - len(shown)} more")
        return printable("\n".join(lines + notes), lines=True)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        caption = f"<caption>{escape(self.summary)}</caption>"
        if not self.candidates:
            return f"<table>{caption}</table>"
        names = ("rule", "wanted", *(candidate.name for candidate in self.candidates))
        head = "".join(html_cell(name, tag="th") for name in names)
        body = "".join(_html_row(row) for row in _lines(self.candidates, self.chosen))
        return f"<table>{caption}<tr>{head}</tr>{body}</table>"

    def _row(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "calibration": candidate.name,
            "path": candidate.path,
            "result": _result(candidate, self.chosen),
            "days": candidate.assessment.days,
            "file": candidate.file_state,
            "failed": list(candidate.faults),
            "rules": {
                verdict.rule.descriptor: {
                    name: getattr(verdict, name) for name in ("wanted", "found", "passed", "note")
                }
                for verdict in candidate.assessment.verdicts
            },
        }


_Line = tuple[str, str, list[tuple[str, bool | None]]]
"""A rule, what is wanted, and for each candidate what was found and whether it fits (None: a remark)."""


def _lines(candidates: Sequence[Candidate], chosen: str | None) -> list[_Line]:
    """Return the table with rules as rows and candidates as columns."""
    lines: list[_Line] = [
        (
            verdicts[0].rule.descriptor,
            verdicts[0].wanted,
            [(verdict.found, verdict.passed) for verdict in verdicts],
        )
        for verdicts in zip(*(candidate.assessment.verdicts for candidate in candidates), strict=True)
    ]
    return [
        *lines,
        ("file", "present", [(c.file_state, c.file_state == "present") for c in candidates]),
        ("age", "", [(_age(c.assessment.days), None) for c in candidates]),
        ("result", "", [(_result(c, chosen), None) for c in candidates]),
    ]


def _text_block(candidates: Sequence[Candidate], chosen: str | None) -> str:
    marks = {True: "ok  ", False: "NO  ", None: ""}
    table = [["rule", "wanted", *(candidate.name for candidate in candidates)]]
    for rule, wanted, cells in _lines(candidates, chosen):
        table.append([rule, wanted, *(marks[passed] + text for text, passed in cells)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _html_row(line: _Line) -> str:
    rule, wanted, cells = line
    colours = {True: ("color:#1a7f37;", "✓ "), False: ("color:#cf222e;", "✗ "), None: ("", "")}
    row = ""
    for text, passed in cells:
        colour, mark = colours[passed]
        row += f'<td style="{colour}text-align:left">{mark}{escape(text)}</td>'
    return f"<tr>{html_cell(rule, tag='th')}{html_cell(wanted)}{row}</tr>"


def _result(candidate: Candidate, chosen: str | None) -> str:
    if not candidate.usable:
        return "rejected"
    return "chosen" if candidate.path == chosen else "fits"


def _age(days: float | None) -> str:
    if days is None:
        return "unknown"
    if abs(days) < 1:
        return f"{days * 24:+.1f} h"
    return f"{days:+.1f} d"
