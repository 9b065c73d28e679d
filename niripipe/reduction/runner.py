"""Running primitives: streams, parameters, threads, timing, skipping, stamps, history, and saving, once."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from niripipe.astrodata import AstroData, add_history, utc_now
from niripipe.errors import AlgorithmError, DataError, NiripipeError
from niripipe.logutils import get_logger
from niripipe.primitives.base import DONE, Outcome, Primitive, PrimitivesBase, Status, skipped
from niripipe.primitives.params import Resolved, resolve
from niripipe.reduction.memory import FrameStore
from niripipe.reduction.progress import NO_PROGRESS, Progress
from niripipe.reduction.report import DroppedFrame, RunReport, Step
from niripipe.reduction.usage import describe_usage

__all__ = ["RecipeRunner", "StreamArguments", "resolve_call"]

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
    ) -> None:
        self.report = report
        self.droppable = droppable
        self.progress = progress
        self.store = FrameStore(None) if store is None else store
        self.written: dict[int, tuple[AstroData, Path]] = {}
        self._to_save: list[tuple[AstroData, Path, bool]] = []
        self._notes: list[dict[int, Outcome]] = []
        self.workers = threads
        """How many threads an algorithm may use."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()

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
        resolved = resolve_call(owner, primitive, remaining)
        if frames is not None:
            return self._execute(owner, primitive, frames, resolved, str(streams))
        inputs = list(owner.streams.get(streams.source, []))
        if streams.source != streams.target:
            inputs = [frame.copy() for frame in inputs]
        if resolved.skip_primitive:
            self._skip(primitive, inputs, resolved, str(streams))
            owner.streams[streams.target] = inputs
            return inputs
        self.store.watch(inputs, itertools.chain.from_iterable(owner.streams.values()))
        outputs = self._execute(owner, primitive, inputs, resolved, str(streams))
        owner.streams[streams.target] = outputs
        if resolved.write_outputs:
            for frame in outputs:
                self.save(frame, owner.context.output_dir / str(frame.filename), overwrite=True)
            self._save_all()
        return outputs

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Apply a function to items, each kept in memory meanwhile; return the results in order."""
        results = []
        for item in items:
            with self.store.using(item):
                results.append(function(item))
        return results

    def note(self, frame: AstroData, outcome: Outcome) -> None:
        """Keep the outcome of the running primitive for one frame; DONE is assumed without."""
        self._notes[-1][id(frame)] = outcome

    def save(self, frame: AstroData, path: Path, *, overwrite: bool) -> None:
        """Write a frame when the running primitive has ended and its history is complete."""
        self._to_save.append((frame, path, overwrite))

    def keep(self, frames: Iterable[AstroData]) -> None:
        """Count frames that are in no stream to the memory that the reduction may use, while they exist."""
        self.store.add(frames)

    def flush(self, frames: Iterable[AstroData]) -> int:
        """Move the pixels of frames to disk now; return the number of bytes."""
        return self.store.flush(frames)

    def drop(self, frame: AstroData, reason: str) -> None:
        """Say in the report and the log that the running primitive leaves a frame out."""
        step = self.report.steps[-1].primitive
        name = frame.orig_filename or frame.filename or "frame in memory"
        self.report.dropped.append(DroppedFrame(name, step, reason))
        log.warning("%s is left out (%s): %s", name, step, reason)

    def write(self, frame: AstroData, path: Path, *, overwrite: bool) -> Path:
        """Write a frame now, and say so in the report and the log."""
        describe_usage(frame, self.report)
        frame.write(path, overwrite=overwrite)
        self.written[id(frame)] = (frame, path)
        if str(path) not in self.report.outputs:
            self.report.outputs.append(str(path))
        log.stdinfo("wrote %s", path)
        return path

    # -- one call ------------------------------------------------------------------------------------

    def _execute(
        self,
        owner: PrimitivesBase,
        primitive: Primitive,
        frames: list[AstroData],
        resolved: Resolved,
        stream: str,
    ) -> list[AstroData]:
        log.status("PRIMITIVE: %s", primitive.name)
        step = Step(primitive.name, stream, resolved.params.as_record(), resolved.origins)
        self.report.steps.append(step)
        self._notes.append({})
        started, clock = utc_now(), time.perf_counter()
        try:
            if primitive.per_frame:
                outputs = self._each(owner, primitive, frames, resolved)
            else:
                self.progress.update(primitive.name, 0, len(frames))
                outputs = primitive.function(owner, frames, resolved.params)
                self.progress.update(primitive.name, len(frames), len(frames))
        except NiripipeError as error:
            error.add_note(f"raised by the primitive {primitive.name}")
            _name_the_raw_file(error, frames)
            self._notes.pop()
            raise
        notes = self._notes.pop()
        stopped, parameters = utc_now(), json.dumps(step.parameters, default=str)
        suffix = getattr(resolved.params, "suffix", None) if primitive.renames else None
        for frame in outputs:
            outcome = notes.get(id(frame), DONE)
            step.outcomes[str(frame.orig_filename or frame.filename)] = outcome
            if outcome.status is Status.DONE:
                _stamp(frame, primitive, stopped, suffix)
            add_history(
                frame,
                primitive.name,
                parameters,
                started,
                stopped,
                status=outcome.status,
                reason=outcome.reason,
                software=owner.context.software,
            )
        self._save_all()
        # The next step hardly ever wants the same calibrations, and frames are large.
        owner.context.calibrations.release()
        step.seconds = time.perf_counter() - clock
        log.fullinfo("%s: %s, %.3f s", primitive.name, step.summary(), step.seconds)
        return outputs

    def _save_all(self) -> None:
        to_save, self._to_save = self._to_save, []
        for frame, path, overwrite in to_save:
            self.write(frame, path, overwrite=overwrite)

    def _each(
        self, owner: PrimitivesBase, primitive: Primitive, frames: list[AstroData], resolved: Resolved
    ) -> list[AstroData]:
        """Run a primitive that treats frames one by one."""
        once = primitive.stamp if not primitive.repeatable else None
        passed = itertools.count(1)
        self.progress.update(primitive.name, 0, len(frames))

        def treat(frame: AstroData) -> Outcome | NiripipeError:
            """Return the outcome, or the error of a frame that may be dropped."""
            try:
                if once and once in frame.phu:
                    return skipped("already done")
                return primitive.function(owner, frame, resolved.params) or DONE
            except (DataError, AlgorithmError) as error:
                if not self.droppable:
                    raise
                _name_the_raw_file(error, [frame])
                return error
            finally:
                self.progress.update(primitive.name, next(passed), len(frames))

        kept = []
        results = self.map(treat, frames)
        for frame, result in zip(frames, results, strict=True):
            if isinstance(result, Outcome):
                self.note(frame, result)
                kept.append(frame)
            else:
                self.drop(frame, str(result))
        errors = [result for result in results if not isinstance(result, Outcome)]
        if errors and not kept:
            raise errors[0]
        return kept

    def _skip(self, primitive: Primitive, frames: list[AstroData], resolved: Resolved, stream: str) -> None:
        outcome = skipped("skip_primitive was set")
        step = Step(primitive.name, stream, resolved.params.as_record(), resolved.origins)
        step.outcomes = {str(frame.orig_filename or frame.filename): outcome for frame in frames}
        self.report.steps.append(step)
        now = utc_now()
        for frame in frames:
            add_history(
                frame, primitive.name, step.parameters, now, now, status=outcome.status, reason=outcome.reason
            )
        log.status("PRIMITIVE: %s skipped", primitive.name)


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
