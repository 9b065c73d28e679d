"""What several filters of one target give: a catalogue of colours and a picture, beside the stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import NiripipeError
from niripipe.instruments.pointing import angular_separation
from niripipe.logutils import get_logger
from niripipe.night.frames import root_name
from niripipe.night.result import JobResult, JobStatus
from niripipe.photometry import match_catalogues, rgb_picture

__all__ = ["add_colours"]

log = get_logger(__name__)

_SAME_FIELD = 0.5
"""Stacks whose centres are nearer than this part of the smaller field's side show one field."""


def add_colours(results: Sequence[JobResult], *, overwrite: bool) -> tuple[JobResult, ...]:
    """Write catalogue and picture of each target that was reduced in several filters.

    Parameters
    ----------
    results : sequence of JobResult
        Of a night that has been run.
    overwrite : bool
        Whether files of an earlier run may be replaced. They are kept where all stacks are reused.

    Returns
    -------
    tuple of JobResult
        The same; the first stack of each such target has notes that name the files (``_colours.fits``, and
        ``_rgb.png`` for three filters), or say why there are none. Errors are warnings here: the stacks are
        there.
    """
    found = {k: r for k, r in enumerate(results) if r.kind == "science" and r.outputs}
    noted = list(results)
    if len(found) < 2:
        return tuple(noted)
    try:
        fields = _fields(found)
    except Exception as error:
        log.warning("no colours of this night: %s", error)
        return tuple(noted)
    for members in fields:
        first, new = members[0][0], not all(noted[k].reused for k, _ in members)
        notes = _products([stack for _, stack in members], renew=new and overwrite)
        noted[first] = replace(noted[first], notes=(*noted[first].notes, *notes))
    return tuple(noted)


def _fields(found: Mapping[int, JobResult]) -> list[list[tuple[int, AstroData]]]:
    """Return the stacks of each field that has several filters, one a filter, by wavelength."""
    fields: list[list[tuple[int, AstroData]]] = []
    for k, result in found.items():
        if result.status is not JobStatus.DONE:
            continue
        try:
            stack = astrodata.open(result.outputs[0])
            same = next((field for field in fields if _one_field(field[0][1], stack)), None)
        except NiripipeError as error:
            log.warning("no colours of %s: %s", result.name, error)
            continue
        if same is None:
            fields.append([(k, stack)])
        else:
            same.append((k, stack))
    several = []
    for field in fields:
        deepest: dict[str, tuple[int, AstroData]] = {}
        for k, stack in field:
            name = str(stack.filter_name(pretty=True))
            if name not in deepest or _exposure(stack) > _exposure(deepest[name][1]):
                deepest[name] = (k, stack)
        if len(deepest) > 1:
            several.append(sorted(deepest.values(), key=lambda member: _wavelength(member[1])))
    return several


def _one_field(first: AstroData, second: AstroData) -> bool:
    """Tell whether two stacks show one field with one camera; targets that move do not."""
    if first.camera() != second.camera() or "NON_SIDEREAL" in first.tags | second.tags:
        return False
    if first[0].wcs is None or second[0].wcs is None:
        return False
    centres = []
    for stack in (first, second):
        ny, nx = stack[0].shape
        ra, dec = stack[0].wcs.all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
        centres.append((float(ra), float(dec)))
    side = min(min(stack[0].shape) * float(stack.pixel_scale()) for stack in (first, second))
    return angular_separation(*centres[0], *centres[1]) < _SAME_FIELD * side


def _products(stacks: Sequence[AstroData], *, renew: bool) -> list[str]:
    """Write what one field gives, and what is there only to `renew` it; return what was done, in words."""
    names = ", ".join(str(stack.filter_name(pretty=True)) for stack in stacks)
    lacking = [str(stack.filter_name(pretty=True)) for stack in stacks if "ZP" not in stack.phu]
    if lacking:
        return [f"no colours ({names}): no zero point in {', '.join(lacking)}"]
    folder, root = Path(str(stacks[0].path)).parent, root_name(str(stacks[0].filename))
    catalogue, picture = folder / f"{root}_colours.fits", folder / f"{root}_rgb.png"
    notes = []
    try:
        if renew or not catalogue.exists():
            table = match_catalogues(stacks)
            # Keys of more than eight letters would lose their case in a FITS header.
            table.meta = {"comments": [f"{key}: {_plain(value)}" for key, value in table.meta.items()]}
            table.write(catalogue, overwrite=True)
            notes.append(f"magnitudes and limits in {names}: {catalogue.name}")
        else:
            notes.append(f"kept from an earlier run: {catalogue.name}")
        if len(stacks) == 3:
            if renew or not picture.exists():
                rgb_picture(stacks[::-1], picture)
            notes.append(f"picture of {names}: {picture.name}")
        elif len(stacks) > 3:
            notes.append("no picture: three filters make one; use niripipe.photometry.rgb_picture")
    except Exception as error:
        log.warning("colours of %s: %s", root, error)
        notes.append(f"colours ({names}) not complete: {error}")
    return notes


def _plain(value: object) -> object:
    """Return a value as it is printed; numbers of a pair with four decimals."""
    if isinstance(value, tuple | list | np.ndarray):
        return " ".join(f"{float(part):.4f}" for part in value)
    return value


def _exposure(stack: AstroData) -> float:
    return float(stack.phu.get("TEXPTIME", 0.0))


def _wavelength(stack: AstroData) -> float:
    return float(stack.effective_wavelength(output_units="micrometers") or 0.0)
