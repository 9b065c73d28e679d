"""Primitives called one by one, with the frames to look at in between."""

from __future__ import annotations

import html
import logging
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from niripipe.astrodata import AstroData
from niripipe.astrodata.display import html_table
from niripipe.errors import storage_faults
from niripipe.logutils import listening
from niripipe.primitives.base import Context, Frames, Primitive, PrimitivesBase
from niripipe.primitives.niri import NIRI
from niripipe.reduction.inputs import Inputs
from niripipe.reduction.memory import FrameStore
from niripipe.reduction.progress import Progress
from niripipe.reduction.report import RunReport
from niripipe.reduction.runner import RecipeRunner

__all__ = ["Steps"]

_SHOWN = frozenset({"frames", "report", "streams"})
"""What a user needs beside the primitives; the rest is what primitives use."""


class Steps(NIRI):
    """The primitives of some frames, to be called one by one: ``p.prepare()``, ``p.addDQ()``, ...

    `niripipe.primitives.of` makes it. A primitive treats the frames of a stream and puts the results in their
    place, as in a recipe, with the same results. The frames that were there before are not changed: who
    keeps them can compare. After an error the streams are as they were before the call.

    Attributes
    ----------
    streams : dict of str to list of AstroData
        The frames; ``main`` is the stream that primitives use by default.
    frames : list of AstroData
        Those of ``main``.
    report : RunReport
        What was done so far, with the outcome for each frame.
    """

    is_interactive: ClassVar[bool] = True

    def __init__(self, inputs: Inputs, context: Context, progress: Progress) -> None:
        report = RunReport(
            "step by step", context.mode, context.software, [str(frame.filename) for frame in inputs.frames]
        )
        report.dropped = inputs.dropped
        report.parameters = dict(context.parameters)
        store = FrameStore(None)
        runner = _StepRunner(
            report,
            threads=context.threads,
            droppable="CAL" not in inputs.frames[0].tags and len(inputs.frames) > 1,
            progress=progress,
            store=store,
            inputs=inputs.paths,
        )
        super().__init__({"main": list(inputs.frames)}, context, runner)
        # What was moved to disk is read back, and the scratch folder removed.
        weakref.finalize(self, store.__exit__, None, None, None)

    @property
    def frames(self) -> Frames:
        """The frames of the stream ``main``."""
        return self.streams["main"]

    @cached_property
    def report(self) -> RunReport:
        """What was done so far, with the outcome for each frame."""
        runner = self.runner
        assert isinstance(runner, RecipeRunner)
        return runner.report

    @contextmanager
    def frame_by_frame(self) -> Iterator[None]:
        """Let each frame pass all primitives that are called in the block before the next frame begins."""
        if isinstance(self.runner, RecipeRunner) and self.runner.is_nested:
            yield
            return
        with _on_copies(self), super().frame_by_frame():
            yield

    def __dir__(self) -> list[str]:
        return sorted({*self.primitives(), *_SHOWN})

    def __str__(self) -> str:
        done = [step.primitive for step in self.report.steps]
        last = f"last step {done[-1]}" if done else "nothing done yet"
        streams = ", ".join(f"{name} {len(frames)}" for name, frames in self.streams.items() if frames)
        return f"<step by step ({self.context.mode}): frames in {streams or 'no stream'}; {last}>"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (name, str(len(frames)), "\n".join(str(frame.filename) for frame in frames))
            for name, frames in self.streams.items()
        ]
        return f"<p>{html.escape(str(self).strip('<>'))}</p>{html_table(('stream', 'frames', 'names'), rows)}"


class _StepRunner(RecipeRunner):
    """A runner that leaves the frames of the user as they are: each call works on copies of all streams."""

    def call(
        self, owner: Any, primitive: Primitive, frames: Frames | None, keywords: Mapping[str, Any]
    ) -> Frames:
        """Run one primitive; see `RecipeRunner.call`. Frames that are given are treated themselves."""
        if self.is_nested or frames is not None:
            return super().call(owner, primitive, frames, keywords)
        with _on_copies(owner), listening(lambda _, text: self.report.warnings.append(text), logging.WARNING):
            return super().call(owner, primitive, frames, keywords)

    def write(self, frame: AstroData, path: Path, *, overwrite: bool, named: bool = False) -> Path:
        """Write a frame; see `RecipeRunner.write`. The output folder is made when it is needed."""
        with storage_faults("The output folder cannot be made", path.parent, item="output_dir"):
            path.parent.mkdir(parents=True, exist_ok=True)
        return super().write(frame, path, overwrite=overwrite, named=named)


@contextmanager
def _on_copies(p: PrimitivesBase) -> Iterator[None]:
    """Let the streams hold copies of their frames; after an error they hold what was there before."""
    before = {name: list(stream) for name, stream in p.streams.items()}
    # A frame that is in two streams is one frame in the copies, too. Pixels are shared until they change.
    copies: dict[int, AstroData] = {}
    for stream in before.values():
        copies.update({id(frame): frame.copy() for frame in stream if id(frame) not in copies})
    p.streams = {name: [copies[id(frame)] for frame in stream] for name, stream in before.items()}
    runner = p.runner
    try:
        yield
    except BaseException:
        p.streams = before
        raise
    finally:
        if isinstance(runner, RecipeRunner):
            runner.progress.close()
            runner.written.clear()
