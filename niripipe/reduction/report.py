"""The record of one reduction: what was done, to what, with which values, and how long it took."""

from __future__ import annotations

import html
import pprint
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from niripipe.astrodata import AstroData, file_md5
from niripipe.astrodata.display import html_list, html_table
from niripipe.errors import InputError
from niripipe.primitives.base import Outcome, Status
from niripipe.primitives.params import Origin
from niripipe.printable import printable
from niripipe.reduction.quality import quality_table
from niripipe.reduction.usage import Usage, usage_of

if TYPE_CHECKING:
    from astropy.table import QTable

__all__ = ["DroppedFrame", "RunReport", "Step"]


@dataclass(frozen=True, slots=True)
class DroppedFrame:
    """A frame that was left out.

    Attributes
    ----------
    name : str
        File name.
    step : str
        Primitive, or ``input`` when the file could not be used at all.
    reason : str
        Why.
    """

    name: str
    step: str
    reason: str


@dataclass(slots=True)
class Step:
    """One call of a primitive.

    Attributes
    ----------
    primitive : str
    stream : str
        Stream that was read, and written where it differs.
    parameters : dict
        Resolved values.
    origins : dict of str to Origin
        Where each value comes from.
    outcomes : dict of str to Outcome
        By file name of the frame.
    seconds : float
        Wall time.
    warnings : list of str
        The warnings of the step.
    """

    primitive: str
    stream: str
    parameters: dict[str, Any]
    origins: dict[str, Origin]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return the outcomes in a few words."""
        if not self.outcomes:
            return "no frames"
        counts: dict[tuple[Status, str], int] = {}
        for outcome in self.outcomes.values():
            # What was done to each frame in detail is in its own outcome.
            key = (outcome.status, "" if outcome.status is Status.DONE else outcome.reason)
            counts[key] = counts.get(key, 0) + 1
        return ", ".join(
            f"{n} {status}" + (f" ({reason})" if reason else "") for (status, reason), n in counts.items()
        )


@dataclass(slots=True, repr=False)
class RunReport:
    """What one run did; prints as text and renders as a table in a notebook.

    Attributes
    ----------
    recipe, mode, software : str
    inputs : list of str
        Files that were reduced.
    steps : list of Step
        In the order of execution.
    dropped : list of DroppedFrame
        Frames that were left out, each with its reason.
    remarks : list of str
        What else the user should know about the products.
    calibrations : dict
        ``(file name, calibration type)`` to the calibration used.
    calibration_files : dict
        Calibration type to the files that the service or the user gave for it.
    outputs : list of str
        Files written.
    seconds : float
        Wall time of the run.
    sources : tuple
        The paths, and frames in memory, that the run was given.
    recipe_given : str or callable
        The recipe that the user asked for.
    parameters : dict
        The user's, keys ``primitive:parameter``.
    suffix : str or None
        The user's suffix of the products.
    warnings : list of str
        All warnings of the run, whether or not anybody listened to the log.
    """

    recipe: str
    mode: str
    software: str
    inputs: list[str]
    steps: list[Step] = field(default_factory=list)
    dropped: list[DroppedFrame] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    calibrations: dict[tuple[str, str], str] = field(default_factory=dict)
    calibration_files: dict[str, set[str]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sources: tuple[Any, ...] = ()
    recipe_given: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)
    suffix: str | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """Which frames are in the product, which were lost and why, which were left out on purpose."""
        return usage_of(self)

    @property
    def frames_given(self) -> int:
        """Number of frames meant for the product: without those removed on purpose and mere skies."""
        return self.usage.given

    @property
    def frames_used(self) -> int:
        """Number of those frames that are in the product."""
        return len(self.usage.used)

    @property
    def quality(self) -> QTable:
        """How good the products are: FWHM, sky, depth, alignment, frames used and more, one row a product.

        The files in `outputs` are measured when it is asked for, see `niripipe.inspection.quality_table`.
        """
        return quality_table(self.outputs)

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write a page about the run: products, their quality, frames left out, warnings, parameters.

        The page is one file of HTML that needs nothing else; only links to the products lead out of it.

        Parameters
        ----------
        path : path-like
            The file; an older one is replaced.

        Returns
        -------
        Path

        Raises
        ------
        StorageError
            It cannot be written.
        """
        from niripipe.reduction.page import write_page
        from niripipe.reduction.product_page import report_page

        target = Path(path).expanduser().absolute()
        return write_page(report_page(self, target.parent), target)

    def script(self) -> str:
        """Return a Python script that makes the same products again, bit for bit.

        The script names all files by absolute path, checks that they are what they were, gives the
        calibrations by hand, and writes into the current folder.

        Raises
        ------
        InputError
            The run had frames, calibrations or a recipe that exist in memory only, or has not finished.
        """
        if not self.sources:
            raise InputError("There is no run to make a script of", item="report")
        files = [_path(source, "files") for source in self.sources]
        parameters = {name: _literal(name, value) for name, value in self.parameters.items()}
        calibrations = {kind: sorted(paths) for kind, paths in sorted(self.calibration_files.items())}
        checked = [*files, *(path for paths in calibrations.values() for path in paths)]
        values = [v for value in parameters.values() for v in (value if isinstance(value, list) else [value])]
        checked += [value for value in values if isinstance(value, str) and Path(value).is_file()]
        lines = [
            f'"""{self.recipe} ({self.mode}) on {len(files)} files, as {self.software} did it."""',
            "",
            "from niripipe import CalibrationService, Reduce",
            "from niripipe.astrodata import file_md5",
            "",
            f"checksums = {_layout({path: file_md5(path) for path in checked})}",
            "changed = [path for path, md5 in checksums.items() if file_md5(path) != md5]",
            'assert not changed, f"these files are not what they were: {changed}"',
            "",
            f"files = {_layout(files)}",
            *_calibrations_as_code(calibrations),
            "reduction = Reduce(",
            "    files,",
            f"    recipe={_recipe(self.recipe_given)!r},",
            f"    mode={self.mode!r},",
            f"    parameters={_layout(parameters)},",
            "    calibrations=calibrations,",
            f"    suffix={self.suffix!r},",
            ")",
            "reduction.runr()",
            "print(reduction.output_filenames)",
            "",
        ]
        return "\n".join(lines)

    def step(self, primitive: str) -> Step:
        """Return the last call of a primitive.

        Raises
        ------
        KeyError
            The primitive was not called.
        """
        for step in reversed(self.steps):
            if step.primitive == primitive:
                return step
        raise KeyError(primitive)

    def __str__(self) -> str:
        lines = [
            f"{self.recipe} ({self.mode}), {len(self.inputs)} input files, {self.seconds:.2f} s, "
            f"{self.software}",
            *(f"  {s.primitive:<24s}{s.stream:<16s}{s.seconds:7.3f} s  {s.summary()}" for s in self.steps),
            *(f"  {note}" for note in self._notes()),
        ]
        return printable("\n".join(lines), lines=True)

    __repr__ = __str__

    def _notes(self) -> list[str]:
        used = sorted({(caltype, name) for (_, caltype), name in self.calibrations.items()})
        return [
            self.usage.summary(),
            *(f"dropped {frame.name} in {frame.step}: {frame.reason}" for frame in self.dropped),
            *(f"warning: {text}" for text in dict.fromkeys(self.warnings)),
            *self.remarks,
            *(f"{caltype}: {name}" for caltype, name in used),
            *(f"wrote {name}" for name in self.outputs),
        ]

    def _repr_html_(self) -> str:
        rows = [(s.primitive, s.stream, f"{s.seconds:.3f}", s.summary()) for s in self.steps]
        return (
            f"<p><b>{html.escape(self.recipe)}</b> ({html.escape(self.mode)}), "
            f"{len(self.inputs)} input files, {self.seconds:.2f} s</p>"
            f"{html_table(('primitive', 'stream', 'time (s)', 'frames'), rows)}{html_list(self._notes())}"
        )


def _calibrations_as_code(calibrations: dict[str, list[str]]) -> list[str]:
    """Return the lines that define the calibrations: by type, or in a store where there are several."""
    if all(len(paths) == 1 for paths in calibrations.values()):
        by_type = {kind: paths[0] for kind, paths in calibrations.items()}
        return [f"calibrations = {_layout(by_type)}"]
    every = [path for paths in calibrations.values() for path in paths]
    return [
        "calibrations = CalibrationService()",
        'calibrations.config("reproduced.db")',
        "calibrations.init(wipe=True)",
        f"for path in {_layout(every)}:",
        "    calibrations.add_cal(path)",
    ]


def _in_memory(what: str, item: str, found: object, remedy: str) -> InputError:
    problem = f"{what} that exists in memory only cannot be named in a script"
    return InputError(problem, item=item, found=found, remedy=remedy)


def _path(source: Any, item: str) -> str:
    if isinstance(source, AstroData):
        raise _in_memory("A frame", item, source.filename, "Write it to a file and reduce that.")
    return str(Path(source).expanduser().absolute())


def _recipe(recipe: Any) -> str:
    if isinstance(recipe, str):
        return recipe
    found = getattr(recipe, "__name__", repr(recipe))
    raise _in_memory("A recipe", "recipe", found, "Put it into a file and name it as 'path/file.function'.")


def _literal(name: str, value: Any) -> Any:
    """Return a parameter's value in a form that a script can hold; files by absolute path."""
    if isinstance(value, (AstroData, PathLike)):
        return _path(value, name)
    if isinstance(value, str) and value and Path(value).is_file():
        return str(Path(value).absolute())
    if isinstance(value, list | tuple):
        return [_literal(name, one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _in_memory("A parameter", name, type(value).__name__, "Write it to a file and name that.")


def _layout(value: Any) -> str:
    return pprint.pformat(value, width=100, sort_dicts=False)
