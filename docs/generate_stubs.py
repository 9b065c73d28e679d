"""Write the stub files that tell type checkers and editors what exists only at run time.

Run as ``python docs/generate_stubs.py``. Primitives get their keywords from parameter models, and data sets
their descriptors from the class of their instrument; a type checker can follow neither. The stubs say the
same in plain signatures. With ``--check`` nothing is written, and the stubs that are out of date are named.
"""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import niripipe
from niripipe.astrodata import AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.instruments import AstroDataNiri
from niripipe.primitives import NIRI
from niripipe.primitives.base import Primitive

PACKAGE = Path(niripipe.__file__).parent
NOTE = "# Written by docs/generate_stubs.py from the code; changes made here are lost.\n"

# What the validators of these parameters accept; the annotations of the models have what they return.
ACCEPTED = {
    "addReferenceCatalog:source": "Table | Path | str | None",
    "measureStandard:standards": "Table | Path | str | None",
    "fixPixels:regions_file": "Path | str | None",
    "resampleToCommonFrame:target_wcs": "AstroData | fits.Header | WCS | Path | str | None",
    "shiftImages:shifts": "Sequence[tuple[float, float]] | Path | str | None",
}

NIRI_STUB = """{note}
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from niripipe.astrodata import AstroData
from niripipe.primitives.base import PrimitivesBase

__all__ = ["NIRI"]

class NIRI(PrimitivesBase):
    tagset: ClassVar[frozenset[str]]
    instrument_defaults: ClassVar[Mapping[str, Mapping[str, Any]]]

{primitives}"""

DATA_SET_STUB = """{note}
from datetime import date, datetime, time
from typing import Any

import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.core import AstroData
from niripipe.astrodata.headers import WatchedHeader
from niripipe.astrodata.section import Section
from niripipe.astrodata.tangent import TangentPlane
from niripipe.instruments.tables import LinearityCoefficients

class Declared:
    # Tables of the data set. Either kind of attached data may be given as a structured array.
    ALIGNMENT: Table
    HISTORY: Table
    PROVENANCE: Table
    REFCAT: Table
    DROPPED: Table
    GROWTH: Table
    SKYTABLE: Table
    STDPHOT: Table
    STACKING: Table

    # Tables and arrays of an extension.
    OBJCAT: Table
    OBJMASK: NDArray[np.uint8]
    COVERAGE: NDArray[np.integer[Any]]
    EXPOSURE: NDArray[np.float32]
    REJMAP: NDArray[np.int16]

    # Descriptors. Those about extensions give a list on a data set and one value on a single slice.
    # ``| Any`` stands for None and for what a flag returns instead: a script need not check for a keyword
    # that its frames have.
{descriptors}
class SingleSlice(AstroData):
    # ``| Any`` stands for None: a script need not check for a plane that its frames have.
    @property
    def data(self) -> NDArray[np.float32]: ...
    @data.setter
    def data(self, array: ArrayLike) -> None: ...
    @property
    def variance(self) -> NDArray[np.float32] | Any: ...
    @variance.setter
    def variance(self, array: ArrayLike | None) -> None: ...
    @property
    def mask(self) -> NDArray[np.uint16] | Any: ...
    @mask.setter
    def mask(self, array: ArrayLike | None) -> None: ...
    @property
    def wcs(self) -> WCS | Any: ...
    @wcs.setter
    def wcs(self, wcs: WCS | None) -> None: ...
    @property
    def sky_mapping(self) -> TangentPlane | WCS | Any: ...
    @sky_mapping.setter
    def sky_mapping(self, mapping: TangentPlane | WCS | None) -> None: ...
    @property
    def wcs_origin(self) -> str: ...
    @property
    def wcs_problem(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def hdr(self) -> WatchedHeader: ...
    def copy(self) -> AstroData: ...  # type: ignore[override]  # a whole data set
    def to_ccddata(self) -> CCDData: ...
{descriptors_of_slices}"""


def main() -> None:
    """Write the stubs, or check them."""
    stale = [(path, text) for path, text in stubs() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"{path} is out of date" for path, _ in stale) or 0)
    for path, text in stale:
        path.write_text(text)


def stubs() -> Iterator[tuple[Path, str]]:
    """Yield every stub with its text."""
    primitives = "\n".join(method(p.name, primitive_signature(p), p) for p in NIRI.primitives().values())
    yield PACKAGE / "primitives" / "niri.pyi", NIRI_STUB.format(note=NOTE, primitives=primitives)
    methods = {name: getattr(AstroDataNiri, name) for name in descriptor_methods(AstroDataNiri)}
    declared = {name: function for name, function in methods.items() if name not in vars(AstroData)}
    of_slices = {name: function for name, function in declared.items() if follows_list_rule(function)}
    text = DATA_SET_STUB.format(
        note=NOTE,
        descriptors=descriptors(declared, of_slice=False),
        descriptors_of_slices=descriptors(of_slices, of_slice=True),
    )
    yield PACKAGE / "astrodata" / "declared.pyi", text


# ---- primitives


def primitive_signature(primitive: Primitive) -> list[str]:
    """Return the parameters of a primitive as recipes use it, with NIRI's defaults, and what it returns."""
    own = NIRI.instrument_defaults.get(primitive.name, {})
    fields = primitive.model.fields()
    listed = ["self", "frames: list[AstroData] | None = None", "*"]
    for name, info in fields.items():
        hint = ACCEPTED.get(f"{primitive.name}:{name}") or written(info.annotation, accepted=True)
        listed.append(f"{name}: {hint} = {default(own.get(name, info.get_default()))}")
    for name, hint, value in (
        ("stream", "str", '"main"'),
        ("instream", "str | None", "None"),
        ("outstream", "str | None", "None"),
        ("skip_primitive", "bool", "False"),
        ("write_outputs", "bool", "False"),
    ):
        if name not in fields:
            listed.append(f"{name}: {hint} = {value}")
    return [*listed, "list[AstroData]"]


# ---- descriptors


def descriptors(functions: dict[str, Any], *, of_slice: bool) -> str:
    """Return the methods of descriptors."""
    return "\n".join(
        method(name, descriptor_signature(function, of_slice=of_slice), function)
        for name, function in functions.items()
    )


def descriptor_signature(function: Any, *, of_slice: bool) -> list[str]:
    """Return the parameters of a descriptor, and what it returns on a single slice or a data set."""
    hints = typing.get_type_hints(function)
    returned = value(hints["return"]) if of_slice or not follows_list_rule(function) else "Any"
    parameters = [
        name if name == "self" else f"{name}: {written(hints[name])} = {default(parameter.default)}"
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    return [*parameters, returned]


def follows_list_rule(function: Any) -> bool:
    """Return whether a descriptor gives a list on a data set and one value on a single slice."""
    return hasattr(function, "__wrapped__")


def value(hint: Any) -> str:
    """Return the type of one value of a descriptor: that of the first alternative, which has no None."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else [hint]
    first = options[0]
    if typing.get_origin(first) is list:
        return value(typing.get_args(first)[0])
    return written(first) if len(options) == 1 else f"{written(first)} | Any"


# ---- text


def method(name: str, signature: list[str], documented: Any) -> str:
    """Return one method of a stub, with the first sentence of its docstring."""
    *parameters, returned = signature
    line = f"    def {name}({', '.join(parameters)}) -> {returned}:"
    if len(parameters) > 3:
        listed = "".join(f"        {parameter},\n" for parameter in parameters)
        line = f"    def {name}(\n{listed}    ) -> {returned}:"
    summary = " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
    noqa = "  # noqa: E501" if len(summary) > 96 else ""
    return f'{line}\n        """{summary}"""{noqa}\n'


def written(hint: Any, *, accepted: bool = False) -> str:
    """Return a type as it is written in a stub; if `accepted`, what a parameter model converts to it."""
    if hint is Any:
        return "Any"
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(json.dumps(value) for value in inner)}]"
    texts = ["..." if part is ... else written(part, accepted=accepted) for part in inner]
    if origin in (Union, types.UnionType):
        parts = dict.fromkeys(part for text in texts for part in split_union(text))
        return " | ".join(sorted(parts, key=lambda part: part == "None"))
    if accepted and origin is tuple and inner[-1] is ...:
        return f"Sequence[{texts[0]}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join(texts)}]"
    if hint is type(None):
        return "None"
    return "Path | str" if accepted and hint is Path else str(hint.__name__)


def split_union(text: str) -> Sequence[str]:
    """Return the parts of a union as written, not those inside brackets."""
    return [text] if "[" in text else text.split(" | ")


def default(value: Any) -> str:
    """Return a default as it is written in a stub."""
    if isinstance(value, str):
        return json.dumps(value)
    return repr(value) if value is None or isinstance(value, bool | int | float) else "..."


if __name__ == "__main__":
    main()
