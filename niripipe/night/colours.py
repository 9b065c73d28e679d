"""What several filters of one target give: a catalogue of colours and a picture, beside the stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.astrodata.fits_write import atomic_file
from niripipe.errors import NiripipeError
from niripipe.instruments.pointing import angular_separation
from niripipe.logutils import get_logger
from niripipe.night.common_grid import COMMON, on_common_grid
from niripipe.night.frames import root_name
from niripipe.night.result import JobResult, JobStatus
from niripipe.photometry import match_catalogues, rgb_picture
from niripipe.photometry.colours import column_name
from niripipe.primitives.stack_levels import transparency_varies

__all__ = ["CATALOGUE", "PICTURE", "add_colours"]

log = get_logger(__name__)

CATALOGUE = "_colours.fits"
PICTURE = "_rgb.png"
"""What follows the name of the first stack in those of the catalogue and the picture."""

Member = tuple[int, AstroData]
"""A stack with the number of its reduction."""

_SAME_FIELD = 0.5
"""Stacks whose centres are nearer than this part of the smaller field's side show one field."""


def add_colours(results: Sequence[JobResult]) -> tuple[JobResult, ...]:
    """Write what belongs to each target that was reduced in several filters with one camera.

    Parameters
    ----------
    results : sequence of JobResult
        Of a night that has been run.

    Returns
    -------
    tuple of JobResult
        The same; the first stack of each such target has in ``colours`` the stacks on a common grid
        (``_common.fits``, `on_common_grid`), a catalogue (``_colours.fits``,
        `niripipe.photometry.match_catalogues`) and, of three filters, a picture (``_rgb.png``,
        `niripipe.photometry.rgb_picture`), and in its notes what they are, or why there are none. Filters
        without a zero point are only on the grid. Files that are not older than their stacks are kept.
        Errors are warnings here: the stacks are there.
    """
    noted = list(results)
    found = {k: r for k, r in enumerate(results) if r.kind == "science" and r.outputs}
    if len(found) < 2:
        return tuple(noted)
    try:
        fields, alone = _fields(found)
    except Exception as error:  # whatever a damaged header provokes: the stacks are there
        log.warning("no colours of this night: %s", error)
        return tuple(noted)
    for k, why in alone.items():
        log.warning("%s: %s", noted[k].name, why)
        noted[k] = replace(noted[k], notes=(*noted[k].notes, why))
    for members in fields:
        first = members[0][0]
        made = _Made([stack for _, stack in members])
        made.all()
        notes = (*noted[first].notes, *made.notes)
        noted[first] = replace(noted[first], notes=notes, colours=tuple(made.files))
    return tuple(noted)


def _fields(found: Mapping[int, JobResult]) -> tuple[list[list[Member]], dict[int, str]]:
    """Return the stacks of each field that has several filters, one a filter, by wavelength.

    And why others of the same target have no colours, by their numbers.
    """
    fields: list[list[Member]] = []
    for k, result in found.items():
        if result.status is not JobStatus.DONE:
            continue
        try:
            stack = astrodata.open(result.outputs[0])
            same = next((field for field in fields if not _why_not(field[0][1], stack)), None)
        except NiripipeError as error:
            log.warning("no colours of %s: %s", result.name, error)
            continue
        if same is None:
            fields.append([(k, stack)])
        else:
            same.append((k, stack))
    several = []
    single: list[Member] = []
    for field in fields:
        deepest: dict[str, Member] = {}
        for k, stack in field:
            name = column_name(stack)
            if name not in deepest or _exposure(stack) > _exposure(deepest[name][1]):
                deepest[name] = (k, stack)
        if len(deepest) > 1:
            several.append(sorted(deepest.values(), key=lambda member: _wavelength(member[1])))
        else:
            single += deepest.values()
    every = [member for field in fields for member in field]
    reasons = {k: _why_alone(stack, [other for n, other in every if n != k]) for k, stack in single}
    return several, {k: why for k, why in reasons.items() if why}


def _why_alone(stack: AstroData, others: Sequence[AstroData]) -> str:
    """Return why a stack is not combined with those of its target in other filters; empty without one."""
    for other in others:
        same_target = other.object() == stack.object() and column_name(other) != column_name(stack)
        if same_target and (why := _why_not(stack, other)):
            return f"no colours with {other.filename} ({column_name(other)}): {why}"
    return ""


def _why_not(first: AstroData, second: AstroData) -> str:
    """Return why two stacks do not show one field with one camera; empty if they do."""
    if first.camera() != second.camera():
        cameras = f"{first.camera(pretty=True)} and {second.camera(pretty=True)}"
        return f"the cameras are {cameras}; niripipe.photometry.match_catalogues can compare them"
    if "NON_SIDEREAL" in first.tags | second.tags:
        return "the target moves: the stars around it are others, or trailed"
    centres = []
    for stack in (first, second):
        mapping = stack[0].wcs
        if mapping is None:
            return f"{stack.filename} has no WCS"
        ny, nx = stack[0].shape
        ra, dec = mapping.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
        centres.append((float(ra), float(dec)))
    side = min(min(stack[0].shape) * float(stack.pixel_scale()) for stack in (first, second))
    distance = angular_separation(*centres[0], *centres[1])
    if distance < _SAME_FIELD * side:
        return ""
    return (
        f"the fields overlap little or not, centres are {distance:.0f} arcsec apart, sides {side:.0f} arcsec"
    )


class _Made:
    """The files of one field in several filters.

    Parameters
    ----------
    stacks : sequence of AstroData
        From files, one a filter, by wavelength.

    Attributes
    ----------
    files, notes : list of str
        Absolute paths of what is there, and in words what was done.
    """

    def __init__(self, stacks: Sequence[AstroData]) -> None:
        self.files: list[str] = []
        self.notes: list[str] = []
        self._stacks = stacks
        self._calibrated = [stack for stack in stacks if "ZP" in stack.phu]
        self._root = Path(str(stacks[0].path)).with_name(root_name(str(stacks[0].filename)))

    def all(self) -> None:
        """Make the stacks on the common grid, the catalogue and the picture, each if it can be made."""
        stacks, calibrated = self._stacks, self._calibrated
        every, names = _names(stacks), _names(calibrated)
        paths = [Path(str(s.path)).with_name(f"{root_name(str(s.filename))}{COMMON}.fits") for s in stacks]
        self._make(paths, f"{every} on one grid", lambda: self._write_common(paths))
        lacking = _names([stack for stack in stacks if "ZP" not in stack.phu])
        if lacking:
            self._warn(
                f"{'colours without' if len(calibrated) > 1 else 'no colours'} ({every}): "
                f"no zero point in {lacking}"
            )
        if len(calibrated) < 2:
            return
        clouded = _names([stack for stack in calibrated if _varied(stack)])
        if clouded:
            self._warn(f"the frames differ in transparency in {clouded} (clouds?): colours may be off")
        catalogue = self._file(CATALOGUE)
        self._make(
            [catalogue],
            f"magnitudes, limits and colours in {names}",
            lambda: _write_catalogue(calibrated, catalogue),
        )
        picture = self._file(PICTURE)
        if len(calibrated) == 3:
            self._make([picture], f"picture of {names}", lambda: rgb_picture(calibrated[::-1], picture))
        elif len(calibrated) > 3:
            self.notes.append("no picture: three filters make one; use niripipe.photometry.rgb_picture")

    def _file(self, ending: str) -> Path:
        return self._root.with_name(self._root.name + ending)

    def _make(self, paths: Sequence[Path], what: str, write: Callable[[], object]) -> None:
        """Write files, unless they are there and not older than the stacks; note what was done."""
        shown = ", ".join(path.name for path in paths)
        newest = max(Path(str(stack.path)).stat().st_mtime_ns for stack in self._stacks)
        if all(path.exists() and path.stat().st_mtime_ns >= newest for path in paths):
            self.notes.append(f"{what}: {shown}, kept from an earlier run, not older than the stacks")
        else:
            try:
                write()
            except Exception as error:  # the stacks are there, whatever becomes of this
                self._warn(f"{what}: not made: {error}")
                return
            self.notes.append(f"{what}: {shown}")
        self.files += map(str, paths)

    def _warn(self, text: str) -> None:
        log.warning("%s: %s", self._root.name, text)
        self.notes.append(text)

    def _write_common(self, paths: Sequence[Path]) -> None:
        for stack, path in zip(on_common_grid(self._stacks), paths, strict=True):
            stack.write(path, overwrite=True)


def _write_catalogue(stacks: Sequence[AstroData], path: Path) -> None:
    table = match_catalogues(stacks)
    # Keys of more than eight letters would lose their case in a FITS header.
    table.meta = {"comments": [f"{key}: {_plain(value)}" for key, value in table.meta.items()]}
    with atomic_file(path) as file:
        table.write(file, format="fits")


def _varied(stack: AstroData) -> bool:
    if "STACKING" not in stack.tables:
        return False
    rows = stack.columns("STACKING")
    return transparency_varies(rows["FLUX"], rows["FLUXERR"])


def _names(stacks: Sequence[AstroData]) -> str:
    return ", ".join(column_name(stack) for stack in stacks)


def _plain(value: object) -> object:
    """Return a value as it is printed; numbers of a pair with four decimals."""
    if isinstance(value, tuple | list | np.ndarray):
        return " ".join(f"{float(part):.4f}" for part in value)
    return value


def _exposure(stack: AstroData) -> float:
    return float(stack.phu.get("TEXPTIME", 0.0))


def _wavelength(stack: AstroData) -> float:
    return float(stack.effective_wavelength(output_units="micrometers") or 0.0)
