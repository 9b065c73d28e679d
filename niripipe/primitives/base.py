"""What a primitive is: a method with a parameter model, called through a runner.

A primitive is written as a plain method whose second argument is either one frame or a list of frames
and whose third is its parameter model::

    @primitive(stamp="ADDVAR")
    def addVAR(self, frame: AstroData, params: AddVARParams) -> Outcome | None: ...

    @primitive(stamp="STACKFRM")
    def stackFrames(self, frames: Frames, params: StackFramesParams) -> Frames: ...

The decorator finds the model by its annotation and gives the method the signature that a recipe uses:
``p.addVAR(poisson_noise=True, stream="sky")``. Streams, threads, timing, skipping, history and saving
are the runner's work (`niripipe.reduction.runner`), once for all primitives.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

from niripipe.astrodata import AstroData
from niripipe.astrodata.filenames import plain_name
from niripipe.errors import InputError, NiripipeError
from niripipe.primitives.params import PSEUDO_PARAMETERS, Params, nearest

if TYPE_CHECKING:
    from niripipe.primitives.calibrations import CalibrationBook

__all__ = [
    "DONE",
    "Context",
    "Frames",
    "Outcome",
    "Primitive",
    "PrimitivesBase",
    "Status",
    "done",
    "not_needed",
    "opened_name",
    "primitive",
    "raw_name",
    "skipped",
]

Frames = list[AstroData]
"""What primitives that treat several frames take and return."""

T = TypeVar("T")
R = TypeVar("R")


class Status(StrEnum):
    """What a primitive did to one frame."""

    DONE = "DONE"
    SKIPPED = "SKIPPED"
    NOT_NEEDED = "NOT_NEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a primitive did to one frame, and why if it did not do it.

    Attributes
    ----------
    status : Status
    reason : str
        Empty for DONE.
    """

    status: Status
    reason: str = ""


DONE = Outcome(Status.DONE)


def done(detail: str) -> Outcome:
    """Return the outcome of a step that was done, with what is worth recording about it."""
    return Outcome(Status.DONE, detail)


def skipped(reason: str) -> Outcome:
    """Return the outcome of a step that was asked for and left out, with the reason."""
    return Outcome(Status.SKIPPED, reason)


def not_needed(reason: str) -> Outcome:
    """Return the outcome of a step that had nothing to do on this frame, with the reason."""
    return Outcome(Status.NOT_NEEDED, reason)


def raw_name(frame: AstroData) -> str:
    """Return the name of the raw file of a frame, without accents, as headers hold it."""
    return plain_name(str(frame.phu.get("ORIGNAME") or frame.orig_filename or frame.filename))


def opened_name(frame: AstroData) -> str:
    """Return the name that a frame had when it was opened (of a processed file, say), without accents."""
    return plain_name(str(frame.orig_filename or frame.filename))


@dataclass(frozen=True)
class Context:
    """Settings of one reduction; they do not change while it runs.

    Attributes
    ----------
    mode : str
        ``sq``, ``ql`` or ``qa``.
    parameters : mapping
        The user's parameters, keys ``primitive:parameter`` or ``parameter``.
    calibrations : CalibrationBook
        Finds, opens and remembers calibrations.
    output_dir : pathlib.Path
        Where products go.
    overwrite : bool
        Whether products may replace older ones of the same name.
    threads : int
        Threads that the reduction may use.
    software : str
        Name and version recorded in headers and history.
    """

    mode: str
    parameters: Mapping[str, Any]
    calibrations: CalibrationBook
    output_dir: Path
    overwrite: bool
    threads: int
    software: str


class UnknownPrimitiveError(InputError, AttributeError):
    """A recipe calls a primitive that does not exist."""


class Runner(Protocol):
    """What calls primitives: `niripipe.reduction.runner.RecipeRunner`, or the planner."""

    @property
    def workers(self) -> int:
        """How many threads an algorithm may use now."""
        ...

    def call(
        self, owner: PrimitivesBase, primitive: Primitive, frames: Frames | None, keywords: Mapping[str, Any]
    ) -> Frames:
        """Run one primitive on the frames given, or on a stream when there are none."""

    def frame_by_frame(self) -> AbstractContextManager[None]:
        """Let each frame pass all primitives called in the block before the next frame begins."""
        ...

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Apply a function to items and return the results in order."""

    def note(self, frame: AstroData, outcome: Outcome) -> None:
        """Keep the outcome of the running primitive for one frame."""

    def drop(self, frame: AstroData, reason: str) -> None:
        """Say that the running primitive leaves a frame out, and why."""

    def remark(self, text: str) -> None:
        """Say in the report what the user should know about the product."""

    def save(
        self,
        frame: AstroData,
        path: Path,
        *,
        overwrite: bool,
        named: bool = False,
        then: Callable[[Path], object] | None = None,
    ) -> None:
        """Write a frame when the running primitive has ended and its history is complete; `then` follows.

        An input, and a file that niripipe did not make, is only replaced if the user named the file.
        """

    def keep(self, frames: Iterable[AstroData]) -> None:
        """Count frames that are in no stream to the memory that the reduction may use, while they exist."""

    def flush(self, frames: Iterable[AstroData]) -> int:
        """Move the pixels of frames to disk now; return the number of bytes."""


@dataclass(eq=False, repr=False)
class Primitive:
    """A primitive as an attribute of its class; calling it on an instance runs it through the runner.

    Attributes
    ----------
    function : callable
        The method as written.
    stamp : str or None
        PHU keyword that receives the time when the step was done.
    renames : bool
        Whether the frame's name gets the `suffix` parameter when the step was done.
    repeatable : bool
        Whether a primitive that treats frames one by one may treat a frame again that carries its stamp.
    survey : callable or None
        ``(self, frames, params) -> mapping``: looks at all frames before the first is treated, for a
        primitive that treats frames one by one and has to know the others. The method gets what is under
        the identity of its frame as a third argument, or None.
    precheck : callable or None
        ``(self, frames, params) -> list of NiripipeError``: what headers show to be wrong, for the plan.
    """

    function: Callable[..., Any]
    stamp: str | None = None
    renames: bool = True
    repeatable: bool = False
    survey: Callable[..., Mapping[int, Any]] | None = None
    precheck: Callable[..., Sequence[NiripipeError]] | None = None

    def __post_init__(self) -> None:
        self.name = self.__name__ = self.function.__name__
        self.__doc__ = self.function.__doc__
        self.__qualname__ = self.function.__qualname__
        self.__module__ = self.function.__module__

    @cached_property
    def _hints(self) -> tuple[Any, type[Params]]:
        hints = typing.get_type_hints(self.function)
        names = [name for name in inspect.signature(self.function).parameters if name != "self"]
        return hints[names[0]], hints[names[1]]

    @property
    def model(self) -> type[Params]:
        """The parameter model, found by the annotation of the method's last argument."""
        return self._hints[1]

    @property
    def per_frame(self) -> bool:
        """Whether the primitive treats each frame by itself."""
        return self._hints[0] is AstroData

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature that recipes use: the model's fields and the stream arguments."""
        fields = self.model.fields()
        keywords = {name: (info.get_default(), info.annotation) for name, info in fields.items()}
        for name, default in (("stream", "main"), ("instream", None), ("outstream", None)):
            keywords.setdefault(name, (default, str if default else str | None))
        frames, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        listed = [inspect.Parameter("frames", frames, default=None, annotation=Frames | None)]
        listed += [
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, (default, annotation) in keywords.items()
        ]
        return inspect.Signature(listed, return_annotation=Frames)

    def signature_with(self, defaults: Mapping[str, Any]) -> inspect.Signature:
        """Return the signature with an instrument's defaults, and with the parameters of every primitive."""
        listed = [
            one.replace(default=defaults.get(name, one.default))
            for name, one in self.signature.parameters.items()
        ]
        kind = inspect.Parameter.KEYWORD_ONLY
        known = self.signature.parameters
        listed += [
            inspect.Parameter(name, kind, default=False, annotation=bool)
            for name in PSEUDO_PARAMETERS
            if name not in known
        ]
        return self.signature.replace(parameters=listed)

    @cached_property
    def documentation(self) -> str:
        """The docstring, with a section of the parameters."""
        fields = self.model.fields()
        described = [
            f"{name} : {_type_text(info.annotation)}\n    {info.description}" for name, info in fields.items()
        ]
        described += [f"{name}\n    {words}" for name, words in _OF_EVERY_PRIMITIVE.items()]
        section = "\n".join(["Parameters", "----------", *described])
        head, mark, rest = inspect.cleandoc(self.function.__doc__ or "").partition("\n\nRaises\n------\n")
        return f"{head}\n\n{section}{mark}{rest}"

    @overload
    def __get__(self, instance: None, owner: type) -> Primitive: ...

    @overload
    def __get__(self, instance: PrimitivesBase, owner: type) -> Callable[..., Frames]: ...

    def __get__(self, instance: PrimitivesBase | None, owner: type) -> Primitive | Callable[..., Frames]:
        if instance is None:
            return self
        bound = BoundPrimitive(self, instance)
        return _as_function(bound) if instance.is_interactive else bound


class BoundPrimitive:
    """A primitive of one primitives object."""

    def __init__(self, primitive: Primitive, owner: PrimitivesBase) -> None:
        self.primitive = primitive
        self.owner = owner
        self.__doc__ = primitive.__doc__
        self.__name__ = primitive.name
        self.__signature__ = primitive.signature

    def __call__(self, frames: Frames | None = None, **keywords: Any) -> Frames:
        return self.owner.runner.call(self.owner, self.primitive, frames, keywords)

    def __repr__(self) -> str:
        return f"<primitive {self.__name__}{self.__signature__}>"


def _as_function(bound: BoundPrimitive) -> Callable[..., Frames]:
    """Return a primitive as a function, which help(), inspect and the completion of IPython understand."""

    def call(frames: Frames | None = None, **keywords: Any) -> Frames:
        return bound(frames, **keywords)

    primitive, owner = bound.primitive, bound.owner
    call.__name__, call.__qualname__, call.__module__ = primitive.name, primitive.name, primitive.__module__
    call.__doc__ = primitive.documentation
    signature = primitive.signature_with(owner.instrument_defaults.get(primitive.name, {}))
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


_OF_EVERY_PRIMITIVE = {
    "stream, instream, outstream": "names of the streams that are read and written; ``main`` by default",
    "skip_primitive": "leave the step out, and record that",
    "write_outputs": "write the frames after the step",
}


def _type_text(annotation: Any) -> str:
    """Return a type as text."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text)


@overload
def primitive(function: Callable[..., Any], /) -> Primitive: ...


@overload
def primitive(*, stamp: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Primitive]: ...


def primitive(
    function: Callable[..., Any] | None = None, /, *, stamp: str | None = None, **settings: Any
) -> Primitive | Callable[[Callable[..., Any]], Primitive]:
    """Make a method a primitive.

    Parameters
    ----------
    function : callable
        ``(self, frame, params) -> Outcome | None`` for frames that are independent of each other, or
        ``(self, frames, params) -> list of AstroData``. The annotations decide which it is.
    stamp : str, optional
        PHU time-stamp keyword of the step.
    **settings
        `renames`, `repeatable`, `survey` and `precheck` of `Primitive`.

    Returns
    -------
    Primitive
    """
    if function is not None:
        return Primitive(function)
    return lambda method: Primitive(method, stamp, **settings)


@dataclass
class PrimitivesBase:
    """Frames in streams, and the primitives that work on them.

    Attributes
    ----------
    streams : dict of str to list of AstroData
        ``main`` is the stream that recipes start from and that is written at the end.
    context : Context
        Settings of the reduction.
    runner : Runner
        What calls the primitives.
    """

    tagset: ClassVar[frozenset[str]] = frozenset()
    is_interactive: ClassVar[bool] = False
    """Whether a user calls the primitives one by one, and wants to be told about them."""

    instrument_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    streams: dict[str, Frames]
    context: Context
    runner: Runner = field(repr=False)

    if not TYPE_CHECKING:
        # Hidden from type checkers, which find misspelt primitives by the signatures in `niri.pyi`.
        def __getattr__(self, name: str) -> Any:
            raise UnknownPrimitiveError(
                f"There is no primitive {name!r}", item="recipe", remedy=nearest(name, self.primitives())
            )

    @classmethod
    def primitives(cls) -> dict[str, Primitive]:
        """Return the primitives of this class by name, in alphabetical order."""
        found = {
            name: value
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, Primitive)
        }
        return dict(sorted(found.items()))

    @property
    def workers(self) -> int:
        """How many threads an algorithm may use now."""
        return self.runner.workers

    def frame_by_frame(self) -> AbstractContextManager[None]:
        """Let each frame pass all primitives that a recipe calls in the block before the next frame begins.

        It saves memory and time where many frames do not fit into memory together; results are the same.
        Primitives that treat all frames together run when they are called. Until the block ends the frames
        in the streams may be untreated: do not look at them there.
        """
        return self.runner.frame_by_frame()

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Apply a function to items, each kept in memory meanwhile; return the results in order."""
        return self.runner.map(function, list(items))

    def keep(self, frames: Iterable[AstroData]) -> None:
        """Let frames that are in no stream be moved to disk as well when memory is limited."""
        self.runner.keep(frames)

    def note(self, frame: AstroData, outcome: Outcome) -> None:
        """Record for a frame that the running primitive did something else than DONE."""
        self.runner.note(frame, outcome)

    def note_all(self, frames: Frames, outcome: Outcome) -> Frames:
        """Record for all frames that the running primitive did something else than DONE; return them."""
        for frame in frames:
            self.note(frame, outcome)
        return frames

    def remark(self, text: str) -> None:
        """Record what the user should know about the product; the report prints it, once."""
        self.runner.remark(text)

    def drop(self, frame: AstroData, reason: str) -> None:
        """Record that the running primitive leaves a frame out."""
        self.runner.drop(frame, reason)
