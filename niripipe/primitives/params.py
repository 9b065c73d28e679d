"""Parameters of primitives: frozen, validated models, and the one rule that resolves their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from niripipe.astrodata import AstroData
from niripipe.errors import ParameterError, nearest
from niripipe.paths import usable_path

__all__ = [
    "PSEUDO_PARAMETERS",
    "CalibrationParams",
    "Field",
    "FrameOrPath",
    "FrameOrPathOrDefault",
    "FramesOrPaths",
    "NameList",
    "OfDragons",
    "Origin",
    "Params",
    "Resolved",
    "Section",
    "SuffixParams",
    "nearest",
    "path_as_text",
    "resolve",
    "split_names",
    "takes_path",
]

PSEUDO_PARAMETERS = ("skip_primitive", "write_outputs")
"""Parameters that every primitive takes."""

_WORDS = {"None": None, "True": True, "False": False}
_DO_CAL_OF_OLD = frozenset({"do_dark", "do_flat"})


@dataclass(frozen=True, slots=True)
class OfDragons:
    """A parameter that only DRAGONS has.

    Attributes
    ----------
    accepted : tuple
        Values that ask for what is done anyway; they change nothing.
    instead : str
        What to write instead of any other value.
    """

    accepted: tuple[Any, ...]
    instead: str


class Params(BaseModel):
    """Base of all parameter models: immutable, refusing unknown names.

    Text values are converted to the field's type (``"3"`` to 3, ``"True"`` to True, ``"None"`` to None),
    since parameters also arrive from text files. A subclass may give inherited fields another default in its
    first line: ``class StackDarksParams(CombineParams, reject_method="varclip")``.
    """

    # Models are many and a run uses few of them: each is built when it is first used.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    of_dragons: ClassVar[Mapping[str, OfDragons]] = MappingProxyType({})

    def __init_subclass__(cls, **defaults: Any) -> None:
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(cls, **defaults: Any) -> None:
        super().__pydantic_init_subclass__()
        for name, value in defaults.items():
            cls.model_fields[name].default = value

    @model_validator(mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {k: _WORDS.get(v, v) if isinstance(v, str) else v for k, v in values.items()}
        return values

    @classmethod
    def fields(cls) -> dict[str, FieldInfo]:
        """Return the fields by the name that a user writes (which is the alias where there is one)."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}

    @classmethod
    def all_names(cls) -> frozenset[str]:
        """Return the names that a user may give: the fields, and old spellings of them."""
        return frozenset({*cls.fields(), *cls.of_dragons})

    def as_record(self) -> dict[str, Any]:
        """Return the values in a form that JSON can hold; frames appear by file name."""
        return {
            info.alias or name: _recordable(getattr(self, name))
            for name, info in type(self).model_fields.items()
        }


class SuffixParams(Params):
    """Parameters of a primitive that renames its frames."""

    suffix: str | None = Field(None, description="suffix of the file name")


def path_as_text(value: Any) -> Any:
    """Return a path as text: in a parameter, an object of type `Path` names a frame of the instrument."""
    return str(value) if isinstance(value, Path) else value


def _path(value: Any) -> Any:
    return usable_path(value) if isinstance(value, str) else value


def _paths(value: Any) -> Any:
    if value is None:
        return None
    return tuple(_path(one) for one in (value if isinstance(value, list | tuple) else [value]))


def split_names(value: Any) -> Any:
    """Return the names in a comma-separated text; other values as they are."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def takes_path(info: FieldInfo) -> bool:
    """Return whether a parameter takes the path of a file."""
    converted = any(getattr(one, "func", None) is path_as_text for one in info.metadata)
    return converted or _mentions_path(info.annotation)


def _mentions_path(annotation: Any) -> bool:
    return annotation is Path or any(map(_mentions_path, get_args(annotation)))


def _section(value: Any) -> Any:
    """Check ``x1:x2,y1:y2`` (1-based, inclusive, brackets optional) and return it without brackets."""
    if value is None:
        return None
    text = str(value).strip().strip("[]")
    try:
        limits = [[int(limit) for limit in axis.split(":")] for axis in text.split(",")]
        (x1, x2), (y1, y2) = limits
    except ValueError:
        raise ValueError("a section is written x1:x2,y1:y2 (1-based, inclusive)") from None
    if not (0 < x1 < x2 and 0 < y1 < y2):
        raise ValueError("a section needs 0 < x1 < x2 and 0 < y1 < y2")
    return text


FrameOrPath = Annotated[AstroData | Path | None, BeforeValidator(_path)]
"""A calibration given by hand: a frame in memory or a path."""

FramesOrPaths = Annotated[tuple[AstroData | Path, ...] | None, BeforeValidator(_paths)]
"""Any number of them: one, a sequence, or None."""

FrameOrPathOrDefault = Annotated[
    AstroData | Path | Literal["default"] | None,
    BeforeValidator(lambda value: value if value == "default" else _path(value)),
]
"""The same, or ``default`` for what the calibration service has."""

NameList = Annotated[tuple[str, ...] | None, BeforeValidator(split_names)]
"""Names as a sequence or as one comma-separated text."""

Section = Annotated[str | None, BeforeValidator(_section)]
"""An image section ``x1:x2,y1:y2``, 1-based and inclusive."""


class CalibrationParams(SuffixParams):
    """Parameters of a primitive that applies a calibration.

    A subclass names the type of calibration (`caltype`) and its own parameter for one given by hand
    (`calibration_field`).
    """

    caltype: ClassVar[str]
    calibration_field: ClassVar[str]

    do_cal: Literal["procmode", "force", "skip"] = Field(
        "procmode",
        description="procmode: required in sq mode, optional in ql and qa; force: always required; "
        "skip: do not apply",
    )

    @property
    def given(self) -> AstroData | Path | None:
        """The calibration given by hand, if any."""
        value: AstroData | Path | None = getattr(self, self.calibration_field)
        return value

    @classmethod
    def all_names(cls) -> frozenset[str]:
        """Return the names that a user may give, among them the switches of DRAGONS 2."""
        return super().all_names() | _DO_CAL_OF_OLD


class Origin(StrEnum):
    """Where the value of a parameter comes from."""

    USER = "user"
    RECIPE = "recipe"
    INSTRUMENT = "instrument default"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Validated parameters of one primitive call.

    Attributes
    ----------
    params : Params
        The values.
    origins : dict of str to Origin
        Where each value comes from.
    skip_primitive, write_outputs : bool
        The pseudo-parameters.
    """

    params: Params
    origins: dict[str, Origin]
    skip_primitive: bool = False
    write_outputs: bool = False


def resolve(
    primitive: str,
    model: type[Params],
    *,
    user: Mapping[str, Any],
    call: Mapping[str, Any],
    instrument: Mapping[str, Any],
) -> Resolved:
    """Merge the sources of parameter values: user over recipe call over instrument default over default.

    Parameters
    ----------
    primitive : str
        Name of the primitive, for messages.
    model : type of Params
        The primitive's parameter model.
    user : mapping
        All of the user's parameters, keys ``primitive:parameter`` or ``parameter``; the former wins.
    call : mapping
        Keywords of the call in the recipe.
    instrument : mapping
        The instrument's own defaults for this primitive.

    Returns
    -------
    Resolved
        Values with their origins.

    Raises
    ------
    ParameterError
        A name that the primitive does not have, or a value that its model refuses.
    """
    fields = model.fields()
    names = {*fields, *PSEUDO_PARAMETERS}
    bare = {key: value for key, value in user.items() if ":" not in key and key in names}
    prefix = f"{primitive}:"
    named = {key[len(prefix) :]: value for key, value in user.items() if key.startswith(prefix)}
    chosen = _legacy(model, {**bare, **named})
    pseudo = {name: chosen.pop(name, call.get(name, False)) for name in PSEUDO_PARAMETERS}
    call = {key: value for key, value in call.items() if key not in PSEUDO_PARAMETERS}
    layers = ((Origin.INSTRUMENT, instrument), (Origin.RECIPE, call), (Origin.USER, chosen))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(fields, Origin.DEFAULT)
    for origin, layer in layers:
        for name, value in layer.items():
            if name in model.of_dragons:
                _check_of_dragons(primitive, name, value, model.of_dragons[name])
                continue
            if name not in fields:
                raise unknown_parameter(primitive, name, model)
            values[name] = value
            origins[name] = origin
    try:
        params = model(**values)
    except ValidationError as error:
        raise _refused(primitive, error, origins) from None
    return Resolved(
        params=params,
        origins=origins,
        **{name: _truth(primitive, name, value) for name, value in pseudo.items()},
    )


def _check_of_dragons(primitive: str, name: str, value: Any, known: OfDragons) -> None:
    """Refuse a value of a parameter that only DRAGONS has, unless it changes nothing."""
    if isinstance(value, str):
        value = _WORDS.get(value, value)
    if not any(value is one for one in known.accepted):
        raise ParameterError(
            f"The primitive {primitive} does not have this parameter of DRAGONS",
            item=f"{primitive}:{name}",
            found=repr(value),
            expected=" or ".join(map(repr, known.accepted)),
            remedy=known.instead,
        )


def unknown_parameter(primitive: str, name: str, model: type[Params]) -> ParameterError:
    """Return the error for a parameter name that a primitive does not have."""
    return ParameterError(
        f"The primitive {primitive} has no parameter {name!r}",
        item=f"{primitive}:{name}",
        expected=", ".join(model.fields()),
        remedy=nearest(name, model.fields()),
    )


def _legacy(model: type[Params], values: dict[str, Any]) -> dict[str, Any]:
    """Translate the switches ``do_dark``/``do_flat`` of DRAGONS 2 into ``do_cal``."""
    if issubclass(model, CalibrationParams):
        for old in sorted(_DO_CAL_OF_OLD):
            if old in values:
                wanted = _truth("", old, values.pop(old))
                values.setdefault("do_cal", "procmode" if wanted else "skip")
    return values


def _truth(primitive: str, name: str, value: Any) -> bool:
    value = _WORDS.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ParameterError(
            f"{name} is a switch", item=f"{primitive}:{name}", found=repr(value), expected="True or False"
        )
    return value


def _refused(primitive: str, error: ValidationError, origins: Mapping[str, Origin]) -> ParameterError:
    """Turn a model's refusal into one ParameterError that lists every refused value."""
    faults = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "the combination"
        origin = origins.get(name)
        source = f" from the {origin}" if origin else ""
        reason = fault["msg"].removeprefix("Value error, ")
        faults.append((name, f"{name}={fault['input']!r}{source}: {reason}"))
    return ParameterError(
        f"The primitive {primitive} does not accept: " + "; ".join(text for _, text in faults),
        item=f"{primitive}:{faults[0][0]}",
    )


def _recordable(value: Any) -> Any:
    if isinstance(value, AstroData):
        return value.filename
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_recordable(item) for item in value]
    return value
