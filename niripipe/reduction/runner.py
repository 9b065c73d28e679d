"""Running primitives: streams, parameters, threads, timing, skipping, stamps, history, and saving, once."""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from niripipe.astrodata import AstroData, add_history, utc_now
from niripipe.errors import AlgorithmError, DataError, NiripipeError, StorageError
from niripipe.logutils import get_logger, listening
from niripipe.primitives.base import DONE, Outcome, Primitive, PrimitivesBase, Status, skipped
from niripipe.primitives.params import Resolved, resolve
from niripipe.reduction.guard import check_target
from niripipe.reduction.memory import FrameStore
from niripipe.reduction.progress import NO_PROGRESS, Progress
from niripipe.reduction.report import DroppedFrame, RunReport, Step
from niripipe.reduction.usage import describe_usage, record_warnings

__all__ = ["RecipeRunner", "StreamArguments", "resolve_call"]

_OWN_WCS = {"PREPARE", "CORRWCS", "SHIFT", "ALIGN", "STACKFRM"}
"""Stamps of the steps after which the WCS is no longer what the raw header says."""

T = TypeVar("T")
R = TypeVar("R")

log = get_logger(__name__)


class StreamArguments:
    """Which stream a call reads and which it writes.

    Parameters
    ----------
    keywords : dict
        Keywords of the call; the stream arguments are taken out of it, unless the primitive has a
        parameter of the same name.
    primitive : Primitive
    """

    def __init__(self, keywords: dict[str, Any], primitive: Primitive) -> None:
        own = primitive.model.fields()
        given = {
            name: keywords.pop(name)
            for name in ("stream", "instream", "outstream")
            if name in keywords and name not in own
        }
        stream = given.get("stream") or keywords.get("stream") or "main"
        self.source: str = given.get("instream") or stream
        self.target: str = given.get("outstream") or stream

    def __str__(self) -> str:
        return self.source if self.source == self.target else f"{self.source} > {self.target}"


def resolve_call(owner: PrimitivesBase, primitive: Primitive, keywords: Mapping[str, Any]) -> Resolved:
    """Return the validated parameters of one call of a primitive."""
    return resolve(
        primitive.name,
        primitive.model,
        user=owner.context.parameters,
        call=keywords,
        instrument=owner.instrument_defaults.get(primitive.name, {}),
    )


class _Call:
    """One call of a primitive, with what is known of it while it runs."""

    def __init__(
        self, owner: PrimitivesBase, primitive: Primitive, resolved: Resolved, streams: StreamArguments
    ) -> None:
        self.owner = owner
        self.primitive = primitive
        self.resolved = resolved
        self.streams = streams
        self.step = Step(primitive.name, str(streams), resolved.params.as_record(), resolved.origins)
        self.parameters = json.dumps(self.step.parameters, default=str)
        self.outcomes: dict[int, Outcome] = {}
        self.started = ""
        self.surveyed: Mapping[int, Any] = {}

    def run(self, frames: Any) -> Any:
        """Run the primitive on one frame or on a list, as it takes them."""
        if self.primitive.survey is not None:
            known = self.surveyed.get(id(frames))
            return self.primitive.function(self.owner, frames, self.resolved.params, known)
        return self.primitive.function(self.owner, frames, self.resolved.params)


class RecipeRunner:
    """Runs the primitives of one reduction and keeps its report.

    Parameters
    ----------
    report : RunReport
        Filled while primitives run.
    threads : int
        Number of threads for algorithms that work on blocks of rows. Results do not depend on it.
    droppable : bool
        Whether a frame whose data defeat a primitive is left out and named in the report. Otherwise the
        error is raised.
    progress : Progress, optional
        Told how far each primitive is.
    store : FrameStore, optional
        Keeps the frames within a limit of memory.
    inputs : iterable of pathlib.Path
        The files that are reduced, which are never replaced unless the user names them.

    Notes
    -----
    Use it as a context manager.
    """

    def __init__(
        self,
        report: RunReport,
        *,
        threads: int,
        droppable: bool,
        progress: Progress = NO_PROGRESS,
        store: FrameStore | None = None,
        inputs: Iterable[Path] = (),
    ) -> None:
        self.report = report
        self.droppable = droppable
        self.progress = progress
        self.store = FrameStore(None) if store is None else store
        self.inputs = tuple(inputs)
        self.written: dict[int, tuple[AstroData, Path]] = {}
        self.unwritten: list[AstroData] = []
        """Frames that could not be written: the products are not lost with the error."""
        self._to_save: list[tuple[AstroData, Path, bool, bool, Callable[[Path], object] | None]] = []
        self._running: list[_Call] = []
        self._deferred: list[_Call] | None = None
        self.workers = threads
        """How many threads an algorithm may use."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()

    @property
    def is_nested(self) -> bool:
        """Whether a primitive is at work, or calls are collected for `frame_by_frame`."""
        return bool(self._running) or self._deferred is not None

    # -- what primitives use -------------------------------------------------------------------------

    def call(
        self,
        owner: PrimitivesBase,
        primitive: Primitive,
        frames: list[AstroData] | None,
        keywords: Mapping[str, Any],
    ) -> list[AstroData]:
        """Run one primitive on the frames given, or on a stream when there are none.

        Returns
        -------
        list of AstroData
            What the primitive returned; for a call without frames it is also the target stream's new
            content.
        """
        remaining = dict(keywords)
        streams = StreamArguments(remaining, primitive)
        call = _Call(owner, primitive, resolve_call(owner, primitive, remaining), streams)
        if frames is not None:
            return self._execute([call], frames)
        if self._deferred is None:
            return self._run([call])
        if _is_chained(call, self._deferred):
            self._deferred.append(call)
            return owner.streams.get(streams.source, [])
        self._run_deferred()
        return self._run([call])

    @contextmanager
    def frame_by_frame(self) -> Iterator[None]:
        """Let each frame pass all primitives that are called in the block before the next frame begins.

        This holds for primitives that treat frames one by one, as long as they follow each other on one
        stream; others run when they are called, after those before them. Results are the same, with less
        memory and fewer frames moved to disk and back. Until the block ends frames may not have been treated.
        """
        if self._deferred is not None:
            yield
            return
        self._deferred = []
        try:
            yield
            self._run_deferred()
        finally:
            self._deferred = None

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Apply a function to items, each kept in memory meanwhile; return the results in order."""
        results = []
        for item in items:
            with self.store.using(item):
                results.append(function(item))
        return results

    def note(self, frame: AstroData, outcome: Outcome) -> None:
        """Keep the outcome of the running primitive for one frame; DONE is assumed without."""
        # There is no step where a plan of a night calls the function of a primitive alone.
        if self._running:
            self._running[-1].outcomes[id(frame)] = outcome

    def save(
        self,
        frame: AstroData,
        path: Path,
        *,
        overwrite: bool,
        named: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        """Write a frame when the running primitive has ended and its history is complete; `then` follows."""
        self._to_save.append((frame, path, overwrite, named, then))

    def keep(self, frames: Iterable[AstroData]) -> None:
        """Count frames that are in no stream to the memory that the reduction may use, while they exist."""
        self.store.add(frames)

    def flush(self, frames: Iterable[AstroData]) -> int:
        """Move the pixels of frames to disk now; return the number of bytes."""
        return self.store.flush(frames)

    def drop(self, frame: AstroData, reason: str) -> None:
        """Say in the report and the log that the running primitive leaves a frame out."""
        self._drop(frame, self._running[-1], reason)

    def remark(self, text: str) -> None:
        """Say in the report what the user should know about the product."""
        if text not in self.report.remarks:
            self.report.remarks.append(text)

    def write(self, frame: AstroData, path: Path, *, overwrite: bool, named: bool = False) -> Path:
        """Write a frame now, and say so in the report and the log.

        Raises
        ------
        StorageError
            The file cannot be written, or is an input or not a product of niripipe and the user did not
            name it.
        """
        try:
            if overwrite:
                check_target(path, self.inputs, named=named, mode=self.report.mode)
            describe_usage(frame, self.report)
            record_warnings(frame, self.report)
            frame.write(path, overwrite=overwrite)
        except StorageError:
            self.unwritten.append(frame)
            raise
        frame.path = str(path.parent / str(frame.filename))
        self.written[id(frame)] = (frame, path)
        if str(path) not in self.report.outputs:
            self.report.outputs.append(str(path))
        log.stdinfo("wrote %s", path)
        return path

    # -- calls ---------------------------------------------------------------------------------------

    def _run_deferred(self) -> None:
        calls, self._deferred = self._deferred, []
        if calls:
            self._run(calls)

    def _run(self, calls: list[_Call]) -> list[AstroData]:
        """Run a call, or several that follow each other frame by frame, on its stream."""
        first, last = calls[0], calls[-1]
        streams, owner = first.streams, first.owner
        inputs = list(owner.streams.get(streams.source, []))
        if streams.source != streams.target:
            inputs = [frame.copy() for frame in inputs]
        if first.resolved.skip_primitive:
            self._skip(first, inputs)
            owner.streams[streams.target] = inputs
            return inputs
        self.store.watch(inputs, itertools.chain.from_iterable(owner.streams.values()))
        outputs = self._execute(calls, inputs)
        owner.streams[streams.target] = outputs
        if last.resolved.write_outputs:
            for frame in outputs:
                self.save(frame, owner.context.output_dir / str(frame.filename), overwrite=True)
            self._save_all()
        return outputs

    def _execute(self, calls: list[_Call], frames: list[AstroData]) -> list[AstroData]:
        clock = time.perf_counter()
        for call in calls:
            log.status("PRIMITIVE: %s", call.primitive.name)
            self.report.steps.append(call.step)
        outputs = self._each(calls, frames) if calls[0].primitive.per_frame else self._all(calls[0], frames)
        # The next step hardly ever wants the same calibrations, and frames are large.
        calls[0].owner.context.calibrations.release()
        # Moving frames to disk and back counts to the first step.
        calls[0].step.seconds += time.perf_counter() - clock - sum(call.step.seconds for call in calls)
        for call in calls:
            step = call.step
            log.fullinfo("%s: %s, %.3f s", call.primitive.name, step.summary(), step.seconds)
        return outputs

    def _all(self, call: _Call, frames: list[AstroData]) -> list[AstroData]:
        """Run a primitive that treats frames together."""
        self.progress.update(call.primitive.name, 0, len(frames))
        with self._at_work(call, frames):
            outputs: list[AstroData] = call.run(frames)
        self.progress.update(call.primitive.name, len(frames), len(frames))
        for frame in outputs:
            _finish(call, frame, call.outcomes.get(id(frame), DONE))
        self._save_all()
        return outputs

    def _each(self, calls: list[_Call], frames: list[AstroData]) -> list[AstroData]:
        """Run primitives that treat frames one by one."""
        self.progress.update(calls[0].primitive.name, 0, len(frames))
        passed = itertools.count(1)
        first = calls[0]
        if first.primitive.survey is not None:
            with self._at_work(first, frames):
                first.surveyed = first.primitive.survey(first.owner, frames, first.resolved.params)

        def treat(frame: AstroData) -> NiripipeError | None:
            """Return the error of a frame that is left out."""
            number = next(passed)
            for call in calls:
                try:
                    with self._at_work(call, [frame]):
                        outcome = _treat(call, frame)
                except (DataError, AlgorithmError) as error:
                    if not self.droppable:
                        raise
                    self._drop(frame, call, str(error))
                    return error
                finally:
                    self.progress.update(call.primitive.name, number, len(frames))
                _finish(call, frame, outcome)
                self._save_all()
            return None

        results = self.map(treat, frames)
        kept = [frame for frame, error in zip(frames, results, strict=True) if error is None]
        errors = [error for error in results if error is not None]
        if errors and not kept:
            raise errors[0]
        return kept

    @contextmanager
    def _at_work(self, call: _Call, frames: list[AstroData]) -> Iterator[None]:
        """Time a call, and let its errors name the primitive and the raw file."""
        self._running.append(call)
        call.started, clock = utc_now(), time.perf_counter()
        try:
            with listening(lambda _, text: call.step.warnings.append(text), logging.WARNING):
                yield
        except NiripipeError as error:
            error.add_note(f"raised by the primitive {call.primitive.name}")
            _name_the_raw_file(error, frames)
            raise
        finally:
            self._running.pop()
            call.step.seconds += time.perf_counter() - clock

    def _drop(self, frame: AstroData, call: _Call, reason: str) -> None:
        name, step = frame.orig_filename or frame.filename or "frame in memory", call.primitive.name
        self.report.dropped.append(DroppedFrame(name, step, reason))
        log.warning("%s is left out (%s): %s", name, step, reason)

    def _save_all(self) -> None:
        to_save, self._to_save = self._to_save, []
        for frame, path, overwrite, named, then in to_save:
            written = self.write(frame, path, overwrite=overwrite, named=named)
            if then is not None:
                then(written)

    def _skip(self, call: _Call, frames: list[AstroData]) -> None:
        outcome = skipped("skip_primitive was set")
        self.report.steps.append(call.step)
        call.started = utc_now()
        for frame in frames:
            _finish(call, frame, outcome)
        log.status("PRIMITIVE: %s skipped", call.primitive.name)


def _is_chained(call: _Call, before: list[_Call]) -> bool:
    """Return whether a call may run frame by frame after those before it."""
    streams, settings = call.streams, call.resolved
    return (
        call.primitive.per_frame
        and (call.primitive.survey is None or not before)
        and streams.source == streams.target
        and not (settings.skip_primitive or settings.write_outputs)
        and all(str(other.streams) == str(streams) and other.owner is call.owner for other in before)
    )


def _treat(call: _Call, frame: AstroData) -> Outcome:
    """Treat a frame, unless it has been treated before and a second time would be wrong."""
    primitive = call.primitive
    if primitive.stamp and not primitive.repeatable and primitive.stamp in frame.phu:
        return skipped("already done")
    outcome: Outcome | None = call.run(frame)
    return outcome or DONE


def _finish(call: _Call, frame: AstroData, outcome: Outcome) -> None:
    """Record what a primitive did to a frame, in the report and in the frame."""
    primitive, stopped = call.primitive, utc_now()
    call.step.outcomes[str(frame.orig_filename or frame.filename)] = outcome
    if outcome.status is Status.DONE:
        suffix = getattr(call.resolved.params, "suffix", None) if primitive.renames else None
        _stamp(frame, primitive, stopped, suffix)
    if not _OWN_WCS.isdisjoint(frame.phu):
        # Until then both copies of the raw headers are witnesses of where the frame is.
        frame.record_wcs()
    add_history(
        frame,
        primitive.name,
        call.parameters,
        call.started,
        stopped,
        status=outcome.status,
        reason=outcome.reason,
        software=call.owner.context.software,
    )


def _name_the_raw_file(error: NiripipeError, frames: list[AstroData]) -> None:
    """Let an error name the file that the user gave, not what the frame is called by now."""
    for frame in frames:
        if error.file is not None and error.file == frame.filename:
            error.file = frame.orig_filename or error.file


def _stamp(frame: AstroData, primitive: Primitive, time: str, suffix: str | None) -> None:
    """Put the time stamp and the file-name suffix of a step that was done on a frame."""
    if primitive.stamp is not None:
        frame.phu.set(primitive.stamp, time, f"UT time stamp for {primitive.name}")
        frame.phu.set("GEM-TLM", time, "UT last modification with GEMINI")
    if suffix:
        frame.update_filename(suffix=suffix, strip=True)
