"""Primitives that move frames between streams, pick, sort, show and write them; none changes a pixel."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pydantic import field_validator

from niripipe.astrodata import AstroData
from niripipe.errors import InputError, NiripipeError, ParameterError
from niripipe.instruments.known_tags import check_tags
from niripipe.instruments.pointing import angular_separation
from niripipe.logutils import get_logger
from niripipe.primitives.base import (
    Frames,
    PrimitivesBase,
    not_needed,
    opened_name,
    primitive,
    raw_name,
    skipped,
)
from niripipe.primitives.geometry import sky_centre
from niripipe.primitives.named import frames_named
from niripipe.primitives.params import Field, NameList, Params, SuffixParams

__all__ = ["Bookkeeping", "RemoveFirstFrameParams", "dropped_first"]

log = get_logger(__name__)

_SAME_PLACE = 3.0
"""Frames nearer than this (arcsec) are no skies for each other; the default of `associateSky:distance`."""


class NoParams(Params):
    """A primitive without parameters."""


class TagsParams(Params):
    """Parameters of `Bookkeeping.selectFromInputs` and `Bookkeeping.removeFromInputs`."""

    tags: NameList = Field(None, description="tags, separated by commas")

    @field_validator("tags")
    @classmethod
    def _exist(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            check_tags(value or (), "tags")
        except InputError as error:
            raise ValueError(f"{error.problem}. {error.remedy or error.expected}") from None
        return value


class RejectInputsParams(Params):
    """Parameters of `Bookkeeping.rejectInputs`."""

    at_start: int = Field(0, ge=0, description="number of frames to drop from the start of the list")
    at_end: int = Field(0, ge=0, description="number of frames to drop from the end of the list")


class SortInputsParams(Params):
    """Parameters of `Bookkeeping.sortInputs`."""

    descriptor: str = Field("filename", description="descriptor or attribute to sort by")
    reverse: bool = Field(False, description="largest first")


class ClearStreamParams(Params):
    """Parameters of `Bookkeeping.clearStream`."""

    stream: str = Field("main", description="the stream to empty")


class AppendStreamParams(Params):
    """Parameters of `Bookkeeping.appendStream`."""

    from_stream: str = Field("", description="the stream whose frames are appended")
    copy_frames: bool = Field(False, alias="copy", description="append copies")


class TransferAttributeParams(SuffixParams, suffix="_attributeTransferred"):
    """Parameters of `Bookkeeping.transferAttribute`."""

    source: str | None = Field(None, description="the stream to take the attribute from")
    attribute: str | None = Field(None, description="mask, variance, wcs, OBJMASK, OBJCAT, or a table's name")


class RemoveFirstFrameParams(Params):
    """Parameters of `Bookkeeping.removeFirstFrame`."""

    remove_first: bool = Field(True, description="drop the frame that was taken first")
    remove_files: NameList = Field(None, description="names of further frames to drop")


class FlushPixelsParams(Params):
    """Parameters of `Bookkeeping.flushPixels`."""

    force: bool = Field(
        False, description="accepted for old scripts; pixels that are on disk already need no writing"
    )


class StreamOfSameFramesParams(Params):
    """Parameters of `Bookkeeping.keepCommonInputs` and `Bookkeeping.requireSameInputs`."""

    source: str = Field("", description="the stream to compare with")


class WriteOutputsParams(Params):
    """Parameters of `Bookkeeping.writeOutputs`."""

    overwrite: bool = Field(True, description="replace older files")
    outfilename: str | None = Field(None, description="name of the file, for one frame only")
    prefix: str = Field("", description="put before the name")
    suffix: str = Field("", description="put after the name")
    strip: bool = Field(False, description="replace an older prefix or suffix instead of adding to it")


class Bookkeeping(PrimitivesBase):
    """Streams, selection, and writing."""

    @primitive
    def selectFromInputs(self, frames: Frames, params: TagsParams) -> Frames:
        """Keep the frames that have any of the tags; without tags keep all."""
        if params.tags is None:
            return frames
        return [frame for frame in frames if frame.tags & set(params.tags)]

    @primitive
    def removeFromInputs(self, frames: Frames, params: TagsParams) -> Frames:
        """Drop the frames that have any of the tags; without tags keep all."""
        if params.tags is None:
            return frames
        return [frame for frame in frames if not frame.tags & set(params.tags)]

    @primitive
    def rejectInputs(self, frames: Frames, params: RejectInputsParams) -> Frames:
        """Drop frames from the ends of the list."""
        return frames[params.at_start : len(frames) - params.at_end]

    @primitive
    def removeFirstFrame(self, frames: Frames, params: RemoveFirstFrameParams) -> Frames:
        """Drop the frame that was taken first, whose bias level has not settled, and frames by name.

        One frame of the whole list is dropped, the one with the earliest UT. It is kept with a warning where
        fewer than two frames would be left, since each needs another one as its sky, and where all others
        point within 3 arcsec of each other and only the first shows their sky.
        """
        drop = dropped_first(frames, params)
        first = min(frames, key=_time) if params.remove_first and frames else None
        if first is not None and id(first) not in drop:
            needed = _why_needed(first, [f for f in frames if f is not first and id(f) not in drop])
            log.warning("%s is kept, though its bias may not have settled: %s", opened_name(first), needed)
            self.note(first, not_needed(needed))
        for frame in frames:
            if id(frame) in drop:
                log.stdinfo("%s is removed: %s", frame.filename, drop[id(frame)])
        return [frame for frame in frames if id(frame) not in drop]

    @primitive
    def sortInputs(self, frames: Frames, params: SortInputsParams) -> Frames:
        """Sort the frames by a descriptor or attribute; frames without a value come last.

        Raises
        ------
        ParameterError
            There is no such descriptor or attribute.
        """

        def value(frame: AstroData) -> tuple[bool, Any]:
            found = getattr(frame, params.descriptor, None)
            if found is None and not hasattr(frame, params.descriptor):
                raise ParameterError(
                    "There is no such descriptor", item="sortInputs:descriptor", found=params.descriptor
                )
            found = found() if callable(found) else found
            return found is None, found if found is not None else 0

        known = sorted((f for f in frames if not value(f)[0]), key=value, reverse=params.reverse)
        return known + [frame for frame in frames if value(frame)[0]]

    @primitive
    def clearStream(self, frames: Frames, params: ClearStreamParams) -> Frames:
        """Empty a stream."""
        return []

    @primitive
    def clearAllStreams(self, frames: Frames, params: NoParams) -> Frames:
        """Empty all streams but ``main``."""
        for name in self.streams:
            if name != "main":
                self.streams[name] = []
        return frames

    @primitive
    def copyInputs(self, frames: Frames, params: NoParams) -> Frames:
        """Do nothing: with ``outstream=`` the frames are copied there."""
        return frames

    @primitive
    def appendStream(self, frames: Frames, params: AppendStreamParams) -> Frames:
        """Append the frames of another stream."""
        other = self.streams.get(params.from_stream)
        if other is None:
            log.warning("there is no stream %r to append", params.from_stream)
            return frames
        return frames + [frame.copy() if params.copy_frames else frame for frame in other]

    @primitive
    def mergeInputs(self, frames: Frames, params: NoParams) -> Frames:
        """Put the extensions of all frames, in their order, into one frame.

        The result has the primary header, the name and the frame tables of the first frame; each
        extension keeps its planes, header, WCS and tables. Nothing is changed in the inputs.
        """
        if len(frames) < 2:
            return frames
        merged = frames[0].copy()
        for frame in frames[1:]:
            for extension in frame.copy():
                merged.append(extension)
        return [merged]

    @primitive
    def transferAttribute(self, frames: Frames, params: TransferAttributeParams) -> Frames:
        """Copy a plane, the WCS or a table from the frames of another stream.

        The streams have equal length, or the source has one frame for all.

        Raises
        ------
        ParameterError
            No such stream, lengths that do not fit, or an attribute that the source does not have.
        """
        source = self.streams.get(params.source or "")
        if not frames:
            return frames
        if not source or len(source) not in (1, len(frames)):
            raise ParameterError(
                "The source stream does not fit",
                item="transferAttribute:source",
                found=f"{params.source!r} with {len(source or [])} frames",
                expected=f"1 or {len(frames)} frames",
            )
        for i, frame in enumerate(frames):
            _transfer(frame, source[i % len(source)], str(params.attribute))
        return frames

    @primitive
    def showInputs(self, frames: Frames, params: NoParams) -> Frames:
        """Log the names of the frames."""
        for frame in frames:
            log.stdinfo("%s", frame.filename)
        return frames

    @primitive
    def separateFlatsDarks(self, frames: Frames, params: NoParams) -> Frames:
        """Move darks into the stream ``darks`` and flats into the stream ``flats``; keep what is neither."""
        self.streams["darks"] = [frame for frame in frames if "DARK" in frame.tags]
        self.streams["flats"] = [frame for frame in frames if "FLAT" in frame.tags]
        return [frame for frame in frames if not frame.tags & {"DARK", "FLAT"}]

    @primitive
    def keepCommonInputs(self, frames: Frames, params: StreamOfSameFramesParams) -> Frames:
        """Keep the frames that another stream has too, in its order.

        Frames are the same if their raw file is. So a stream of copies follows one from which frames were
        set aside.
        """
        own = {raw_name(frame): frame for frame in frames}
        wanted = [raw_name(frame) for frame in self.streams.get(params.source, [])]
        return [own[name] for name in wanted if name in own]

    @primitive
    def requireSameInputs(self, frames: Frames, params: StreamOfSameFramesParams) -> Frames:
        """Go on only if another stream has the same frames.

        Raises
        ------
        InputError
            A frame is in one stream only.
        """
        here = {raw_name(frame) for frame in frames}
        there = {raw_name(frame) for frame in self.streams.get(params.source, [])}
        different = sorted(here ^ there)
        if different:
            raise InputError(
                f"The recipe needs the same frames in its stream and in {params.source!r}",
                item="files",
                found=f"in one of the two only: {', '.join(different)}",
                expected="frames that each show the object and serve as sky for the others",
                remedy="Use the recipe reduce, or give dithered frames of one field only.",
            )
        return frames

    @primitive
    def flushPixels(self, frames: Frames, params: FlushPixelsParams) -> Frames:
        """Move pixels from memory to disk; they come back by themselves when they are used.

        They go into the scratch folder of this reduction, which is deleted when it ends. (DRAGONS leaves
        the frames in the current folder.)
        """
        freed = self.runner.flush(frames)
        log.fullinfo("%.1f MB of pixels were moved to disk", freed / 1e6)
        return frames

    @primitive
    def getProcessedDark(self, frames: Frames, params: NoParams) -> Frames:
        """Look up the processed dark of each frame, and log it; `darkCorrect` will use the same.

        Raises
        ------
        CalibrationError
            There is none, in mode sq.
        """
        return self._looked_up(frames, "processed_dark", required=True)

    @primitive
    def getProcessedFlat(self, frames: Frames, params: NoParams) -> Frames:
        """Look up the processed flat of each frame, and log it; `flatCorrect` will use the same.

        Raises
        ------
        CalibrationError
            There is none, in mode sq.
        """
        return self._looked_up(frames, "processed_flat", required=True)

    @primitive
    def getProcessedBPM(self, frames: Frames, params: NoParams) -> Frames:
        """Look up the bad pixel mask of each frame, and log it; `addDQ` will use the same."""
        return self._looked_up(frames, "processed_bpm", required=False)

    @primitive
    def getBPM(self, frames: Frames, params: NoParams) -> Frames:
        """Do what getProcessedBPM does: bad pixel masks of the archive are calibrations like the others."""
        return self._looked_up(frames, "processed_bpm", required=False)

    @primitive(renames=False)
    def writeOutputs(self, frames: Frames, params: WriteOutputsParams) -> Frames:
        """Write the frames as they are now into the output folder.

        Raw files and other inputs are not replaced, nor are files that niripipe did not make, unless
        `outfilename` names them.

        Raises
        ------
        ParameterError
            One name for several frames.
        StorageError
            A file exists and may not be replaced, or cannot be written.
        """
        if params.outfilename is not None and len(frames) > 1:
            raise ParameterError(
                "One name cannot serve several frames",
                item="writeOutputs:outfilename",
                found=f"{params.outfilename} for {len(frames)} frames",
            )
        for frame in frames:
            if params.prefix or params.suffix:
                frame.update_filename(
                    prefix=params.prefix or None, suffix=params.suffix or None, strip=params.strip
                )
            name = params.outfilename or str(frame.filename)
            self.runner.save(
                frame,
                self.context.output_dir / name,
                overwrite=params.overwrite,
                named=params.outfilename is not None,
            )
        return frames

    def _looked_up(self, frames: Frames, caltype: str, *, required: bool) -> Frames:
        book = self.context.calibrations
        for frame in frames:
            found = book.find(frame, caltype)
            if found is not None:
                log.stdinfo("%s: %s %s (%s)", frame.filename, caltype, found.name, found.origin)
                continue
            if required and self.context.mode == "sq":
                raise book.missing(frame, caltype)
            log.warning("%s: there is no %s", frame.filename, caltype)
            self.note(frame, skipped(f"no {caltype} was found"))
        return frames


def dropped_first(frames: Frames, params: RemoveFirstFrameParams) -> dict[int, str]:
    """Return the identities of the frames that `removeFirstFrame` drops, with the reasons."""
    named = frames_named(frames, params.remove_files or (), "removeFirstFrame:remove_files")
    drop = {id(frame): "named in remove_files" for frame in named}
    if params.remove_first and frames:
        first = min(frames, key=_time)
        if not _why_needed(first, [f for f in frames if f is not first and id(f) not in drop]):
            drop.setdefault(id(first), "the first frame of the sequence")
    return drop


def _why_needed(first: AstroData, others: Frames) -> str:
    """Return why the first frame of a sequence is kept; empty if it is not."""
    if not others:
        return "the only frame"
    if len(others) == 1:
        return f"without it there is no sky for {opened_name(others[0])}"
    try:
        place, *places = [sky_centre(frame) for frame in (first, *others)]
    except NiripipeError:
        # Without positions nothing speaks against the rule.
        return ""
    spread = max(angular_separation(*places[0], *other) for other in places)
    if spread < _SAME_PLACE and angular_separation(*places[0], *place) >= _SAME_PLACE:
        return "all others show the same place, and have no other sky"
    return ""


def _time(frame: AstroData) -> Any:
    time = frame.ut_datetime()
    if time is None:
        raise InputError(
            "The frame has no time, so that the first frame cannot be told",
            file=frame.filename,
            item="DATE-OBS, UT",
            remedy="Repair the header, or pass removeFirstFrame:remove_first=False.",
        )
    return time


def _transfer(frame: AstroData, source: AstroData, attribute: str) -> None:
    ext, other = frame[0], source[0]
    if attribute == "wcs":
        ext.sky_mapping = deepcopy(other.sky_mapping)
    elif attribute in source.tables:
        setattr(frame, attribute, getattr(source, attribute).copy())
    elif attribute in ("data", "mask", "variance") or attribute in other.exposed:
        # A plane is shared until one of the two frames changes it.
        plane = other.plane(attribute)
        setattr(ext, attribute, getattr(other, attribute).copy() if attribute in other.ext_tables else plane)
    else:
        raise ParameterError(
            "The source has no such attribute",
            file=source.filename,
            item="transferAttribute:attribute",
            found=attribute,
        )
