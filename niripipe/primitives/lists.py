"""Primitives that keep lists of frames on disk, so that frames arriving one by one are reduced together."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from niripipe import astrodata
from niripipe.astrodata import AstroData, utc_now
from niripipe.errors import NiripipeError, ParameterError, storage_faults
from niripipe.instruments.identity import exposure_of, pixel_checksum
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames, PrimitivesBase, primitive, raw_name
from niripipe.primitives.params import Field, Params

__all__ = ["LIST_FILE", "Lists"]

log = get_logger(__name__)

LIST_FILE = "niripipe_lists.jsonl"
"""Name of the file in the output folder: one JSON object a line, the last one about a frame counts."""

_DEFAULT_PURPOSE = "list"


class AddToListParams(Params):
    """Parameters of `Lists.addToList`."""

    purpose: str | None = Field(None, description="name of the list; None: 'list'")


class GetListParams(AddToListParams):
    """Parameters of `Lists.getList`."""

    max_frames: int | None = Field(None, ge=1, description="only so many frames, those added last")


class ShowListParams(Params):
    """Parameters of `Lists.showList`."""

    purpose: str = Field("all", description="name of the list; all: every list")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One frame in one list.

    Attributes
    ----------
    purpose, group : str
        The list: what for, and the frames' common set-up (descriptor ``group_id``).
    original : str
        Name of the raw file.
    file : str
        Name of the file in the output folder.
    added : str
        UTC.
    exposure, pixels : str
        Data label and time of the exposure, and checksum of the pixels of the file that was opened; empty
        where not known.
    """

    purpose: str
    group: str
    original: str
    file: str
    added: str
    exposure: str = ""
    pixels: str = ""

    def is_of(self, other: _Entry) -> bool:
        """Return whether two entries are about one frame: a frame is what it contains, not its name."""
        if (self.purpose, self.group) != (other.purpose, other.group):
            return False
        if self.exposure != other.exposure and self.exposure and other.exposure:
            return False
        return self.original == other.original or (self.pixels == other.pixels != "")


class Lists(PrimitivesBase):
    """Lists of frames that outlive a reduction, in the output folder.

    A list holds frames of one purpose and one `group_id`. The list's file is only ever appended to, a line at
    a time, so that several processes may add to it; frames are files ``<root>_<purpose>.fits`` in the same
    folder. Removing the files or the list's file forgets the list.
    """

    @primitive(renames=False)
    def addToList(self, frames: Frames, params: AddToListParams) -> Frames:
        """Write frames with the suffix ``_<purpose>`` and put them on the list of their group.

        A frame that is on the list already is replaced.

        Raises
        ------
        ParameterError
            A purpose that cannot be part of a file name.
        StorageError
            The list cannot be written.
        """
        purpose = _purpose(params.purpose)
        listed = {entry.file: entry for entry in _read(self.context.output_dir, warn=False)}
        entries: list[_Entry] = []
        for frame in frames:
            entry = _entry(frame, purpose)
            frame.update_filename(suffix=f"_{purpose}", strip=True)
            taken = {file for file, other in listed.items() if not entry.is_of(other)}
            if frame.filename in taken:
                frame.filename = _free(str(frame.filename), taken)
                log.warning(
                    "%s is another frame than one on the list; its file is %s",
                    raw_name(frame),
                    frame.filename,
                )
            listed[str(frame.filename)] = entry = replace(entry, file=str(frame.filename))
            self.runner.save(frame, self.context.output_dir / entry.file, overwrite=True)
            entries.append(entry)
        _append(self.context.output_dir / LIST_FILE, entries)
        return frames

    @primitive(renames=False)
    def getList(self, frames: Frames, params: GetListParams) -> Frames:
        """Return all frames on the lists of these frames' groups, in the order in which they were added.

        Frames at hand are kept as they are; the others are opened. A frame whose file has gone, cannot be
        opened, or is of another group by now is left out with a warning: what an earlier reduction left
        behind never joins in unnoticed.

        Raises
        ------
        ParameterError
            A purpose that cannot be part of a file name.
        """
        purpose = _purpose(params.purpose)
        groups = {frame.group_id() for frame in frames}
        at_hand = [(_entry(frame, purpose), frame) for frame in frames]
        entries = [e for e in _read(self.context.output_dir) if e.purpose == purpose and e.group in groups]
        found = []
        for entry in entries:
            own = next((frame for other, frame in at_hand if other.is_of(entry)), None)
            found.append(own or self._reopened(entry))
        collected = [frame for frame in found if frame is not None]
        # Frames that were never added have come last.
        collected += [frame for frame in frames if not any(frame is other for other in collected)]
        if params.max_frames is not None:
            collected = collected[-params.max_frames :]
        earlier = sum(frame not in frames for frame in collected)
        log.stdinfo("%s: %d frames, %d of them from earlier", purpose, len(collected), earlier)
        return collected

    @primitive(renames=False)
    def showList(self, frames: Frames, params: ShowListParams) -> Frames:
        """Log the frames on the lists of these frames' groups; without frames, on all lists."""
        groups = {frame.group_id() for frame in frames}
        for entry in _read(self.context.output_dir):
            if params.purpose in ("all", entry.purpose) and (not groups or entry.group in groups):
                log.stdinfo("%s: %s (%s)", entry.purpose, entry.file, entry.group)
        return frames

    def _reopened(self, entry: _Entry) -> AstroData | None:
        """Open a listed frame under the name of its raw file; None when it is not that frame any more."""
        try:
            frame = astrodata.open(self.context.output_dir / entry.file)
        except NiripipeError as error:
            log.warning("%s is on the list %s but cannot be used: %s", entry.file, entry.purpose, error)
            return None
        if not _entry(frame, entry.purpose, pixels=False).is_of(entry):
            log.warning("%s is on the list %s but has become another frame", entry.file, entry.purpose)
            return None
        frame.orig_filename = entry.original
        return frame


def _purpose(purpose: str | None) -> str:
    name = purpose or _DEFAULT_PURPOSE
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ParameterError(
            "A purpose is part of a file name", item="purpose", found=name, expected="letters, digits and -"
        )
    return name


def _entry(frame: AstroData, purpose: str, *, pixels: bool = True) -> _Entry:
    """Return what a list says of a frame."""
    key = exposure_of(frame).key
    source = frame.source_path
    checksum = ""
    if source is not None and pixels:
        # What was reduced from the same pixels differs by now; the file is as it was.
        with suppress(NiripipeError):
            checksum = pixel_checksum(astrodata.open(source))
    exposure = "" if key is None else f"{key[0]} {key[1]}"
    return _Entry(
        purpose, frame.group_id(), raw_name(frame), str(frame.filename), utc_now(), exposure, checksum
    )


def _free(name: str, taken: Container[str]) -> str:
    """Return a name of a file that is not taken: with a number."""
    stem, dot, extension = name.partition(".")
    return next(new for number in count(2) if (new := f"{stem}-{number}{dot}{extension}") not in taken)


def _append(path: Path, entries: Iterable[_Entry]) -> None:
    text = "".join(json.dumps(asdict(entry), sort_keys=True) + "\n" for entry in entries)
    if not text:
        return
    # A single write at the end of the file: lines of two processes do not mix.
    with storage_faults("The list cannot be written", path), path.open("ab", buffering=0) as file:
        file.write(text.encode())


def _read(folder: Path, *, warn: bool = True) -> list[_Entry]:
    """Return what is on the lists, in the order of the first addition; damaged lines are passed over."""
    path = folder / LIST_FILE
    with storage_faults("The list cannot be read", path):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    found: list[_Entry] = []
    for number, line in enumerate(lines, start=1):
        entry = _parsed(line)
        if entry is None:
            if warn:
                log.warning("%s: line %d is damaged and passed over", path.name, number)
            continue
        position = next((k for k, other in enumerate(found) if other.is_of(entry)), len(found))
        found[position : position + 1] = [entry]
    return found


def _parsed(line: str) -> _Entry | None:
    try:
        values: Any = json.loads(line)
        entry = _Entry(**values)
    except (ValueError, TypeError):
        return None
    # A name with a folder in it would open files elsewhere.
    sound = all(isinstance(value, str) for value in values.values()) and Path(entry.file).name == entry.file
    return entry if sound else None
