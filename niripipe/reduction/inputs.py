"""Opening the inputs of a reduction, and everything that can be checked before a pixel is read."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.errors import InputError, NiripipeError
from niripipe.instruments.identity import Twin, exposure_of, find_twins
from niripipe.logutils import get_logger
from niripipe.paths import usable_path
from niripipe.primitives.named import tell_apart
from niripipe.reduction.report import DroppedFrame

__all__ = ["Inputs", "Source", "expand", "open_inputs"]

Source = str | PathLike[str] | AstroData

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The opened inputs.

    Attributes
    ----------
    frames : list of AstroData
    dropped : list of DroppedFrame
        Science files that could not be used, and files that hold the exposure of another one.
    paths : list of Path
        The files of the frames, as they were given.
    """

    frames: list[AstroData]
    dropped: list[DroppedFrame]
    paths: list[Path]


def expand(sources: Iterable[Source] | Source) -> list[Source]:
    """Replace every ``@list`` among the sources by the files that it names.

    Parameters
    ----------
    sources : iterable of paths, ``@list`` names and AstroData, or one of them
        A list file holds names separated by white space or line ends, names with spaces in double quotes or
        alone in a line; UTF-8 or UTF-16 text with any line ends; ``#`` starts a comment; names in
        it are relative to the current folder, or to the list's own folder when only there they exist.
        Lists may name further lists.

    Returns
    -------
    list of paths and AstroData

    Raises
    ------
    InputError
        A list that does not exist, is empty, or names itself.
    """
    if isinstance(sources, (str, PathLike, AstroData)):
        sources = [sources]
    expanded: list[Source] = []
    for source in sources:
        name = os.fspath(source) if isinstance(source, PathLike) else source
        if isinstance(name, str) and name.startswith("@"):
            expanded.extend(_read_list(Path(name[1:]), seen=()))
        else:
            expanded.append(source)
    return expanded


def open_inputs(sources: Sequence[Source]) -> Inputs:
    """Open frames and check that they can be reduced together.

    Every fault that is found is reported in one error. An unreadable file among science frames is left
    out instead and named in the result.

    A frame is known by what it contains, not by its name (`niripipe.instruments.identity`): of files that
    hold the same exposure one is reduced, and the others are left out with a warning. Different frames that
    share a name are told apart by their folders, ``obj_0001-night2.fits``.

    Parameters
    ----------
    sources : sequence of paths and AstroData
        Not empty, no file twice.

    Returns
    -------
    Inputs

    Raises
    ------
    InputError
        Nothing to reduce, or faults that cannot be passed over.
    """
    if not sources:
        raise InputError(
            "There are no files to reduce", item="files", remedy="Append paths to Reduce.files first."
        )
    frames: list[AstroData] = []
    unreadable: list[tuple[str, NiripipeError]] = []
    for source in sources:
        try:
            # A frame in memory is the caller's: the reduction works on a copy of it.
            frames.append(source.copy() if isinstance(source, AstroData) else astrodata.open(source))
        except NiripipeError as error:
            unreadable.append((str(source), error))
    faults = [] if frames and _is_science(frames[0]) else [str(error) for _, error in unreadable]
    paths = [Path(frame.path) for frame in frames if frame.path is not None]
    found = find_twins([exposure_of(frame) for frame in frames])
    twins = [twin for twin in found if twin.same_pixels]
    edited = [
        (frames[twin.position].filename, frames[twin.of].filename) for twin in found if twin not in twins
    ]
    if frames:
        faults += _repeats(frames, twins) + _nameless(frames) + _foreign(frames) + _mixed(frames)
    if faults:
        raise InputError(
            f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in {len(sources)} input files: "
            + "; ".join(faults),
            item="files",
            file=unreadable[0][0] if unreadable else None,
        )
    dropped = [DroppedFrame(Path(name).name, "input", str(error)) for name, error in unreadable]
    dropped += [DroppedFrame(str(frames[t.position].filename), "input", _same_as(frames, t)) for t in twins]
    left_out = {twin.position for twin in twins}
    frames = [frame for index, frame in enumerate(frames) if index not in left_out]
    tell_apart(frames)
    for name, other in edited:
        log.warning("%s and %s have the same DATALAB and time, and different pixels: both count", name, other)
    for frame in dropped:
        log.warning("%s is left out: %s", frame.name, frame.reason)
    return Inputs(frames, dropped, paths)


def _read_list(path: Path, seen: tuple[Path, ...]) -> list[Source]:
    path = usable_path(path)
    if path.resolve() in seen:
        raise InputError("The list of files names itself", file=path)
    try:
        text = _decoded(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("The list of files cannot be read", file=path, found=str(error)) from None
    found: list[Source] = []
    for line in text.splitlines():
        for name in _names_in(line, path):
            if name.startswith("@"):
                found.extend(_read_list(_path_in_list(path, name[1:]), (*seen, path.resolve())))
            else:
                found.append(str(_path_in_list(path, name)))
    if not found:
        raise InputError("The list of files is empty", file=path)
    return found


def _decoded(content: bytes) -> str:
    """Return the text of a list, with or without the byte-order mark that editors put in front."""
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding)


def _names_in(line: str, path: Path) -> list[str]:
    """Return the names in a line: separated by white space, unless the line or what is quoted is one name."""
    text = line.split("#", 1)[0].strip()
    if " " in text and _path_in_list(path, text).exists():
        return [text]
    # Apostrophes occur in names; only whole quotations count.
    return [quoted or word for quoted, word in re.findall(r'"([^"]+)"|(\S+)', text)]


def _path_in_list(list_path: Path, name: str) -> Path:
    here, there = usable_path(name), list_path.parent / name
    return there if not here.exists() and there.exists() else here


def _is_science(frame: AstroData) -> bool:
    return "CAL" not in frame.tags


def _repeats(frames: Sequence[AstroData], twins: Sequence[Twin]) -> list[str]:
    """Return a fault for every file that is given twice."""
    names = [(frames[twin.position].filename, frames[twin.of].filename) for twin in twins]
    return list(dict.fromkeys(f"{name} is listed more than once" for name, other in names if name == other))


def _same_as(frames: Sequence[AstroData], twin: Twin) -> str:
    return f"it holds the same exposure as {frames[twin.of].filename}, which counts once"


def _nameless(frames: Sequence[AstroData]) -> list[str]:
    count = sum(frame.filename is None for frame in frames)
    return [f"{count} frames in memory have no file name (set frame.filename)"] if count else []


def _foreign(frames: Sequence[AstroData]) -> list[str]:
    faults = []
    for frame in frames:
        tags = frame.tags
        if "NIRI" not in tags:
            found = frame.phu.get("INSTRUME", "no INSTRUME keyword")
            faults.append(f"{frame.filename} is not a NIRI frame (found: {found})")
        elif "SPECT" in tags:
            faults.append(
                f"{frame.filename} is a spectrum (found: {frame.disperser()}); niripipe reduces images"
            )
        elif len(frame) != 1:
            faults.append(f"{frame.filename} has {len(frame)} image extensions (expected: 1)")
    return faults


@dataclass(frozen=True, slots=True)
class _Rule:
    """What frames of one kind must share."""

    what: str
    value: Callable[[AstroData], Any]
    kinds: frozenset[str]
    tolerance: float = 0.0


_ALL = frozenset({"DARK", "LAMPON", "LAMPOFF", "OBJECT"})
_IMAGING = _ALL - {"DARK"}
_RULES = (
    # Darks and flats are combined frame by frame, so they must have been exposed alike; 0.01 s is the
    # tolerance of the archive's association rules. Science frames are scaled to one exposure time.
    _Rule("exposure time", lambda ad: ad.exposure_time(), frozenset({"DARK", "LAMPON", "LAMPOFF"}), 0.01),
    _Rule("number of coadds", lambda ad: ad.coadds(), frozenset({"DARK", "LAMPON", "LAMPOFF"})),
    _Rule("read mode", lambda ad: ad.read_mode(), frozenset({"DARK"})),
    _Rule("well depth", lambda ad: ad.well_depth_setting(), _ALL),
    _Rule("subarray", lambda ad: str(ad[0].detector_section(pretty=True)), _ALL),
    _Rule("filter", lambda ad: ad.filter_name(pretty=True), _IMAGING),
    _Rule("camera", lambda ad: ad.camera(), _IMAGING),
)


def _mixed(frames: Sequence[AstroData]) -> list[str]:
    """Return the faults of frames that cannot be combined because they were taken differently."""
    faults = []
    kinds: dict[str, list[AstroData]] = {}
    for frame in frames:
        if "NIRI" in frame.tags and "PROCESSED" not in frame.tags and len(frame) == 1:
            kinds.setdefault(_kind(frame), []).append(frame)
    for kind, members in kinds.items():
        for rule in _RULES:
            if kind in rule.kinds:
                faults += _disagreement(kind, rule, members)
    if "DARK" in kinds and "OBJECT" in kinds:
        faults.append(
            f"darks ({kinds['DARK'][0].filename}) and images of the sky ({kinds['OBJECT'][0].filename}) "
            "are not reduced together"
        )
    lamps = [frame for kind in ("LAMPON", "LAMPOFF") for frame in kinds.get(kind, [])[:1]]
    for rule in _RULES:
        if {"LAMPON", "LAMPOFF"} <= rule.kinds and not faults:
            faults += _disagreement("lamp-on and lamp-off", rule, lamps)
    return faults


def _kind(frame: AstroData) -> str:
    return next((kind for kind in ("DARK", "LAMPON", "LAMPOFF") if kind in frame.tags), "OBJECT")


def _disagreement(kind: str, rule: _Rule, members: Sequence[AstroData]) -> list[str]:
    """Compare with the first member; name every group of values with one example."""
    examples: dict[Any, str] = {}
    for frame in members:
        value = rule.value(frame)
        if not any(_same(value, known, rule.tolerance) for known in examples):
            examples[value] = str(frame.filename)
    if len(examples) < 2:
        return []
    listed = ", ".join(f"{value} ({name})" for value, name in examples.items())
    return [f"{kind} frames differ in {rule.what}: {listed}"]


def _same(a: Any, b: Any, tolerance: float) -> bool:
    if tolerance and isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= tolerance
    return bool(a == b)
