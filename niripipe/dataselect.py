"""Selecting frames by tags and by expressions about their descriptors.

>>> expression = expr_parser('exposure_time == 20 and filter_name in ["H", "K"]')
>>> expression
Expression('exposure_time == 20 and filter_name in ["H", "K"]')

An expression is parsed by this module and never executed as Python. See `expr_parser` for the language.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cache
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.errors import InputError, NiripipeError, ParameterError
from niripipe.instruments.headers import parse_date, parse_datetime, parse_time

__all__ = ["Expression", "expr_parser", "select_data"]

_Input = TypeVar("_Input", bound="str | PathLike[str] | AstroData")

#: Nesting of parentheses and ``not`` beyond this is refused rather than risked.
_MAX_DEPTH: Final = 50
_WAVELENGTH_TOLERANCE: Final = 1e-5
_CLOSE_WAVELENGTHS: Final = frozenset({"central_wavelength", "effective_wavelength"})
#: Descriptors whose names carry component identifiers that people leave out.
_PRETTY: Final = frozenset(
    {"filter_name", "detector_name", "disperser", "camera", "focal_plane_mask", "pupil_mask"}
)
_TIMES: Final = frozenset({"ut_time", "local_time"})
_TEMPORAL: Final = _TIMES | {"ut_date", "ut_datetime"}
_FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_Lookup = Callable[[str, bool], Any]


def expr_parser(
    expression: str | Expression, strict: bool = False, *, exposure_tolerance: float = 0.01
) -> Expression:
    """Parse an expression about descriptors.

    Parameters
    ----------
    expression : str
        Comparisons joined by ``and``, ``or``, ``not`` and parentheses. A comparison is a descriptor
        (``airmass``; ``ad.airmass()`` is the same), one of ``== != < <= > >=``, ``in``, ``not in``, ``is``,
        ``is not``, and a number, a quoted text, ``True``, ``False``, ``None`` or a list of these; several can
        be chained (``1 < airmass <= 1.5``). ``"FLAT" in tags`` asks for a tag. Blanks are free. A descriptor
        that is a yes or no can stand alone (``not is_ao``).
    strict : bool, default False
        Compare exactly: exposure times and wavelengths as numbers, names with component identifiers.
    exposure_tolerance : float, default 0.01
        How far exposure times may differ and still be equal, relative to the larger. 0.01 makes 20 equal to
        20.002, but also 300 to 302.

    Returns
    -------
    Expression
        Immutable; call it with an `AstroData`, or give it to `select_data`.

    Raises
    ------
    InputError
        For anything that is not in the language, with a caret under the place, and for unknown descriptors,
        with the names that come near.
    ParameterError
        If the tolerance is not a number from 0 to 1.

    Notes
    -----
    Unless strict:

    - ``exposure_time`` (and ``exposure_time_per_coadd``) is close enough within `exposure_tolerance` for
      ``==``, ``!=``, ``in`` and ``not in``; the wavelengths within 1e-5;
    - ``filter_name``, ``disperser``, ``camera`` and masks match with and without component identifiers,
      filters also by pretty name (``"K"``, ``"K_G0204"``); the order operators see the pretty name.

    Always:

    - texts for ``ut_date``, ``ut_time``, ``local_time`` and ``ut_datetime`` are read as ``YYYY-MM-DD``,
      ``HH:MM[:SS[.s]]`` or both, joined by a blank or ``T``. A date without time stands for the whole day:
      ``ut_datetime <= "2016-01-02"`` includes that day;
    - a descriptor that is None fails every comparison except ``== None`` and ``is None`` (and ``not`` turns
      that into success). With ``in``, a list that contains None matches it;
    - of a descriptor with a value per extension, all values must fulfil the comparison;
    - numbers are in the units of the descriptors (seconds, metres, degrees). A number against a text is an
      error, not silence.
    """
    if isinstance(expression, Expression):
        expression = expression.text
    if not isinstance(expression, str):
        raise InputError(
            "An expression must be text", item="expression", found=repr(expression), expected="a string"
        )
    try:
        sensible = 0.0 <= exposure_tolerance <= 1.0
    except TypeError:
        sensible = False
    if not sensible:
        raise ParameterError(
            "The tolerance of exposure times is not usable",
            item="exposure_tolerance",
            found=exposure_tolerance,
            expected="a number from 0 to 1",
        )
    return Expression(expression, bool(strict), float(exposure_tolerance))


class Expression:
    """A parsed expression; `expr_parser` makes it and describes the language.

    Calling it with an `AstroData` gives True or False. It is immutable; equal texts with equal settings are
    equal.

    Attributes
    ----------
    text : str
        The expression as written.
    strict : bool
        Whether comparisons are exact.
    exposure_tolerance : float
        Relative.
    names : frozenset of str
        The descriptors asked for.
    """

    __slots__ = ("_root", "exposure_tolerance", "names", "strict", "text")

    text: str
    strict: bool
    exposure_tolerance: float
    names: frozenset[str]
    _root: _Condition

    def __init__(self, text: str, strict: bool = False, exposure_tolerance: float = 0.01) -> None:
        parser = _Parser(text, _Rules(strict, exposure_tolerance))
        values = {
            "text": text,
            "strict": strict,
            "exposure_tolerance": exposure_tolerance,
            "_root": parser.parse(),
            "names": frozenset(parser.names),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __call__(self, ad: AstroData) -> bool:
        """Tell whether a data set fulfils the expression.

        Raises
        ------
        InputError
            If a comparison makes no sense for its value (a number against a text), or a descriptor that
            stands alone is not a yes or no.
        """
        return self._evaluate(lambda name, pretty: _ask(ad, name, pretty), ad.filename)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("An Expression cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("An Expression cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text, self.strict, self.exposure_tolerance)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self.text, self.strict, self.exposure_tolerance))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        settings = ", strict=True" if self.strict else ""
        if self.exposure_tolerance != 0.01:
            settings += f", exposure_tolerance={self.exposure_tolerance:g}"
        return f"Expression({self.text!r}{settings})"

    def _evaluate(self, lookup: _Lookup, filename: str | None) -> bool:
        try:
            return self._root.holds(lookup)
        except _Mismatch as error:
            raise InputError(
                f"The expression does not fit the data: {error}",
                file=filename,
                item="expression",
                found=self.text,
            ) from None


def select_data(
    inputs: Iterable[_Input],
    tags: Iterable[str] = (),
    xtags: Iterable[str] = (),
    expression: Expression | str | None = None,
) -> list[_Input]:
    """Select frames by tags and an expression.

    Parameters
    ----------
    inputs : iterable of path or AstroData
        What to select from.
    tags : iterable of str
        Tags that a frame must have, all of them. A single string is one tag.
    xtags : iterable of str
        Tags that a frame must not have, any of them. A single string is one tag.
    expression : Expression or str, optional
        From `expr_parser`; text is parsed with its defaults, ``"True"`` being everything. It is only
        evaluated for frames that the tags have let through.

    Returns
    -------
    list
        The selected inputs themselves, unchanged and in order.

    Raises
    ------
    InputError
        If `inputs` is a single string or path; if the expression is not usable; or if files are missing or
        unreadable: then all of them are named, with reasons, and nothing is selected.

    Notes
    -----
    Headers are read once per file and process, as long as the file's time and size stay the same.
    """
    items = _input_list(inputs)
    wanted, unwanted = _tag_set(tags, "tags"), _tag_set(xtags, "xtags")
    parsed = None if expression is None else _as_expression(expression)
    selected: list[_Input] = []
    faults: list[tuple[str, NiripipeError]] = []
    for item in items:
        try:
            frame = _frame_of(item)
            tagged = wanted <= frame.tags and not unwanted & frame.tags
            if tagged and (parsed is None or parsed._evaluate(frame.ask, frame.name)):
                selected.append(item)
        except NiripipeError as error:
            faults.append((str(item) if not isinstance(item, AstroData) else str(item.filename), error))
    if faults:
        _raise_all(faults, len(items))
    return selected


# ---- conditions
# ------------------------------------------------------------------------------------------------------


class _Mismatch(Exception):
    """A comparison that makes no sense for the value found."""


@dataclass(frozen=True, slots=True)
class _Rules:
    strict: bool
    exposure_tolerance: float

    def tolerance(self, name: str) -> float:
        if self.strict:
            return 0.0
        if name in ("exposure_time", "exposure_time_per_coadd"):
            return self.exposure_tolerance
        return _WAVELENGTH_TOLERANCE if name in _CLOSE_WAVELENGTHS else 0.0


class _Condition:
    __slots__ = ()

    def holds(self, lookup: _Lookup) -> bool:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _All(_Condition):
    parts: tuple[_Condition, ...]

    def holds(self, lookup: _Lookup) -> bool:
        return all(part.holds(lookup) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Any(_Condition):
    parts: tuple[_Condition, ...]

    def holds(self, lookup: _Lookup) -> bool:
        return any(part.holds(lookup) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Not(_Condition):
    part: _Condition

    def holds(self, lookup: _Lookup) -> bool:
        return not self.part.holds(lookup)


@dataclass(frozen=True, slots=True)
class _Constant(_Condition):
    value: bool

    def holds(self, lookup: _Lookup) -> bool:
        return self.value


@dataclass(frozen=True, slots=True)
class _Flag(_Condition):
    name: str

    def holds(self, lookup: _Lookup) -> bool:
        value = lookup(self.name, False)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise _Mismatch(f"{self.name} is {value!r}, not a yes or no; compare it with something")


@dataclass(frozen=True, slots=True)
class _HasTag(_Condition):
    tag: str

    def holds(self, lookup: _Lookup) -> bool:
        return self.tag in lookup("tags", False)


@dataclass(frozen=True, slots=True)
class _Constants(_Condition):
    """A comparison of two constants."""

    left: Any
    op: str
    right: Any

    def holds(self, lookup: _Lookup) -> bool:
        return _compare("a constant", (self.left,), self.op, self.right, 0.0)


@dataclass(frozen=True, slots=True)
class _Comparison(_Condition):
    """A descriptor against a constant or another descriptor."""

    name: str
    op: str
    right: Any
    rules: _Rules

    def holds(self, lookup: _Lookup) -> bool:
        right = (
            lookup(self.right.name, not self.rules.strict) if isinstance(self.right, _Name) else self.right
        )
        if right is None and isinstance(self.right, _Name):
            return False
        variants = [self._values(lookup, pretty=False)]
        if self.name in _PRETTY and not self.rules.strict:
            variants.append(self._values(lookup, pretty=True))
        tolerance = self.rules.tolerance(self.name)
        if isinstance(self.right, _Name):
            tolerance = max(tolerance, self.rules.tolerance(self.right.name))
        return all(
            _compare(self.name, alternatives, self.op, right, tolerance)
            for alternatives in zip(*variants, strict=True)
        )

    def _values(self, lookup: _Lookup, *, pretty: bool) -> list[Any]:
        """Return one value an extension, or the only one."""
        value = lookup(self.name, pretty)
        return value if isinstance(value, list) and value else [value]


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True)
class _Day:
    """A date without time, which stands for the whole day."""

    date: date


def _compare(name: str, alternatives: Sequence[Any], op: str, right: Any, tolerance: float) -> bool:
    """Compare a value, given in equivalent spellings, the pretty one last."""
    value = alternatives[-1]
    if op in ("==", "is") and right is None:
        return value is None
    if op in ("!=", "is not") and right is None:
        return value is not None
    if op in ("in", "not in"):
        found = any(
            _same(name, spelling, element, tolerance, lenient=True)
            for element in right
            for spelling in alternatives
        )
        # None is not comparable: it is not outside a list either, unless the list speaks of it.
        return found if op == "in" else not found and (value is not None or None in right)
    if value is None:
        return False
    if op in ("==", "is"):
        return any(_same(name, spelling, right, tolerance) for spelling in alternatives)
    if op in ("!=", "is not"):
        return not any(_same(name, spelling, right, tolerance) for spelling in alternatives)
    value, right = _aligned(name, value, right)
    return _ORDER[op](value, right)


def _same(name: str, value: Any, right: Any, tolerance: float, *, lenient: bool = False) -> bool:
    if value is None or right is None:
        return value is right
    try:
        value, right = _aligned(name, value, right, ordered=False)
    except _Mismatch:
        if lenient:
            return False
        raise
    if tolerance and isinstance(value, (int, float)):
        return math.isclose(value, right, rel_tol=tolerance)
    return bool(value == right)


def _aligned(name: str, value: Any, right: Any, *, ordered: bool = True) -> tuple[Any, Any]:
    """Bring two values to comparable types."""
    if isinstance(right, _Day):
        return (value.date() if isinstance(value, datetime) else value), right.date
    if isinstance(value, astrodata.Section) and isinstance(right, str):
        return value.as_iraf_section(), right.replace(" ", "")
    kinds = _kind(value), _kind(right)
    if kinds[0] != kinds[1] or (ordered and kinds[0] == "a yes or no"):
        what = "cannot be ordered against" if ordered else "cannot equal"
        raise _Mismatch(f"{name} is {kinds[0]} ({value!r}), which {what} {kinds[1]} ({right!r})")
    return value, right


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a yes or no"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, datetime):
        return "a date with time"
    if isinstance(value, (tuple, list)):
        return "a list"
    return {date: "a date", time: "a time"}.get(type(value), type(value).__name__)


# ---- parser
# ----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
      | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?(?:\s*\(\s*\))?)
      | (?P<op>==|!=|<=|>=|<|>|[()\[\],])""",
    re.VERBOSE,
)
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not"})
_KEYWORDS: Final = frozenset({"and", "or", "not", "in", "is", "None", "True", "False"})
_CONSTANTS: Final = {"True": True, "False": False, "None": None}
_CLOSERS: Final = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A descriptor or constant, and where it stands."""

    content: Any
    token: _Token


class _Parser:
    """Recursive descent over the tokens of one expression.

    The rules return a condition, or a `_Value` as long as nothing has made a condition of it: whether a
    parenthesis holds a condition or a value need not be known in advance, so that the work is linear in the
    length.
    """

    def __init__(self, text: str, rules: _Rules) -> None:
        self.text = text
        self.rules = rules
        self.names: set[str] = set()
        self.known = _known_descriptors()
        self.tokens = self.tokenise()
        self.position = 0
        self.depth = 0

    def parse(self) -> _Condition:
        if self.here.kind == "end":
            self.fail("The expression is empty", "a comparison such as exposure_time == 20")
        condition = self.condition(self.disjunction())
        if self.here.kind != "end":
            self.fail("The expression does not end here", "and, or, or the end")
        return condition

    def disjunction(self) -> _Condition | _Value:
        parts = [self.conjunction()]
        while self.take("or"):
            parts.append(self.conjunction())
        return parts[0] if len(parts) == 1 else _Any(tuple(self.condition(part) for part in parts))

    def conjunction(self) -> _Condition | _Value:
        parts = [self.negation()]
        while self.take("and"):
            parts.append(self.negation())
        return parts[0] if len(parts) == 1 else _All(tuple(self.condition(part) for part in parts))

    def negation(self) -> _Condition | _Value:
        if not self.take("not"):
            return self.comparison()
        self.deeper()
        part = self.condition(self.negation())
        self.depth -= 1
        return _Not(part)

    def comparison(self) -> _Condition | _Value:
        left = self.operand()
        parts: list[_Condition] = []
        while (token := self.comparison_operator()) is not None:
            place = self.here
            right = self.operand()
            if isinstance(left, _Condition) or isinstance(right, _Condition):
                self.fail("A condition cannot be compared", "a descriptor or a constant", place)
            parts.append(self.compared(left, token, right))
            left = right
        if not parts:
            return left
        return parts[0] if len(parts) == 1 else _All(tuple(parts))

    def comparison_operator(self) -> _Token | None:
        token, after = self.here, self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        if token.kind == "word" and (token.text, after.text) in (("not", "in"), ("is", "not")):
            self.position += 2
            return _Token("op", f"{token.text} {after.text}", token.start)
        if token.kind in ("op", "word") and token.text in _COMPARISONS:
            self.position += 1
            return token
        return None

    def operand(self) -> _Condition | _Value:
        token = self.here
        if token.kind == "op" and token.text in _CLOSERS:
            return self.enclosed()
        self.position += 1
        if token.kind == "number":
            return _Value(_number(token.text), token)
        if token.kind == "text":
            return _Value(re.sub(r"\\(.)", r"\1", token.text[1:-1]), token)
        if token.kind == "word" and token.text in _CONSTANTS:
            return _Value(_CONSTANTS[token.text], token)
        if token.kind == "name":
            return _Value(self.descriptor(token), token)
        self.position -= 1
        return self.fail("Something is missing here", "a descriptor, a number, a quoted text or a list")

    def enclosed(self) -> _Condition | _Value:
        """Parse ``( condition )``, ``( value )`` or a list in either kind of bracket."""
        opening = self.here
        self.deeper()
        self.position += 1
        closer = _CLOSERS[opening.text]
        elements: list[Any] = []
        while self.here.text != closer or self.here.kind != "op":
            inside = self.disjunction()
            if opening.text == "(" and not elements and self.take(")"):
                self.depth -= 1
                return inside
            if isinstance(inside, _Condition) and self.here.kind == "end":
                break
            elements.append(self.constant(inside, opening))
            if not self.take(","):
                break
        if not self.take(closer):
            self.fail(f"The {opening.text} at character {opening.start + 1} is not closed", closer)
        self.depth -= 1
        return _Value(tuple(elements), opening)

    def constant(self, inside: _Condition | _Value, opening: _Token) -> Any:
        if isinstance(inside, _Condition) or isinstance(inside.content, _Name):
            self.fail("A list can only hold constants", "numbers, texts, True, False or None", opening)
        return inside.content

    def condition(self, part: _Condition | _Value) -> _Condition:
        if isinstance(part, _Condition):
            return part
        content = part.content
        if isinstance(content, bool):
            return _Constant(content)
        if isinstance(content, _Name) and content.name != "tags":
            return _Flag(content.name)
        return self.fail("This is not a condition", "a comparison, such as exposure_time == 20", part.token)

    def compared(self, left: _Value, op: _Token, right: _Value) -> _Condition:
        if "tags" in (getattr(left.content, "name", None), getattr(right.content, "name", None)):
            return self.tag_asked(left, op, right)
        if op.text in ("in", "not in") and not isinstance(right.content, tuple):
            self.fail(f"What follows {op.text!r} is not a list", 'a list such as ["H", "K"]', right.token)
        if op.text in ("is", "is not") and not (right.content is None or isinstance(right.content, bool)):
            self.fail(f"{op.text!r} only goes with None, True and False", "== or !=", op)
        for side in (left, right):
            if op.text in _ORDER and (side.content is None or isinstance(side.content, (tuple, bool))):
                self.fail(
                    f"{op.text!r} needs numbers, texts or dates", "a value that has an order", side.token
                )
        name, content = left.content, right.content
        if isinstance(name, _Name):
            return _Comparison(name.name, op.text, self.literal(name.name, content, right.token), self.rules)
        if isinstance(content, _Name):
            flipped = _FLIPPED.get(op.text, op.text)
            return _Comparison(
                content.name, flipped, self.literal(content.name, name, left.token), self.rules
            )
        return _Constants(name, op.text, content)

    def tag_asked(self, left: _Value, op: _Token, right: _Value) -> _Condition:
        if not (
            op.text in ("in", "not in")
            and isinstance(left.content, str)
            and isinstance(right.content, _Name)
            and right.content.name == "tags"
        ):
            self.fail("Tags are asked for differently", '"FLAT" in tags', op)
        asked = _HasTag(left.content)
        return asked if op.text == "in" else _Not(asked)

    def literal(self, name: str, content: Any, token: _Token) -> Any:
        """Read texts that are compared with dates and times."""
        if name not in _TEMPORAL:
            return content
        if isinstance(content, tuple):
            return tuple(self.literal(name, element, token) for element in content)
        if content is None or isinstance(content, _Name):
            return content
        moment = _moment(name, content) if isinstance(content, str) else None
        if moment is None:
            self.fail(f"{content!r} cannot be compared with {name}", _MOMENT_FORMS[name], token)
        return moment

    def descriptor(self, token: _Token) -> _Name:
        name = re.sub(r"\s|\(|\)", "", token.text).removeprefix("ad.")
        if name not in self.known:
            near = difflib.get_close_matches(name[:60], self.known, n=3) if "." not in name else []
            expected = f"perhaps {' or '.join(near)}" if near else "a descriptor; text needs quotes"
            self.fail(f"There is no descriptor {name[:60]!r}", expected, token)
        if name != "tags":
            self.names.add(name)
        return _Name(name)

    # ---- tokens

    @property
    def here(self) -> _Token:
        return self.tokens[self.position]

    def take(self, text: str) -> bool:
        """Step over an operator or keyword if it is here."""
        found = self.here.text == text and self.here.kind in ("op", "word")
        self.position += found
        return found

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail("The expression is nested too deeply", f"at most {_MAX_DEPTH} levels")

    def tokenise(self) -> list[_Token]:
        tokens: list[_Token] = []
        place = 0
        while place < len(self.text):
            match = _TOKEN.match(self.text, place)
            if match is None:
                self.fail_at(place)
            kind, text = str(match.lastgroup), match.group()
            word = re.match(r"\w*", text)
            if kind == "name" and word is not None and word.group() in _KEYWORDS:
                kind, text = "word", word.group()
            if kind != "blank":
                tokens.append(_Token(kind, text, place))
            place += len(text)
        return [*tokens, _Token("end", "", len(self.text))]

    def fail_at(self, place: int) -> NoReturn:
        rest = self.text[place:]
        token = _Token("end", rest[:1], place)
        if rest[0] == "=":
            self.fail("A single = does not compare", "==", token)
        if rest[0] in "\"'":
            self.fail("The quotation is not closed", rest[0], token)
        if rest[0].isdigit() or rest[0] in "+-.":
            self.fail("This is not a number", "digits, with a point or an exponent, and no unit", token)
        self.fail(f"{rest[0]!r} means nothing here", "a descriptor, an operator or a constant", token)

    def fail(self, problem: str, expected: str, token: _Token | None = None) -> NoReturn:
        place = (token or self.here).start
        first = max(0, place - 50)
        excerpt = re.sub(r"\s", " ", self.text[first : place + 50])
        caret = " " * (place - first) + "^"
        raise InputError(
            f"{problem} (character {place + 1} of the expression)\n    {excerpt}\n    {caret}",
            expected=expected,
        )


_MOMENT_FORMS: Final = {
    "ut_date": '"YYYY-MM-DD" (ut_datetime also knows the time)',
    "ut_datetime": '"YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"',
    "ut_time": '"HH:MM:SS"',
    "local_time": '"HH:MM:SS"',
}


def _moment(name: str, text: str) -> date | datetime | time | _Day | None:
    if name in _TIMES:
        return parse_time(text)
    if name == "ut_datetime" and (moment := parse_datetime(text)) is not None:
        return moment
    day = parse_date(text) if re.fullmatch(r"\s*\d{4}-\d{1,2}-\d{1,2}\s*", text) else None
    return _Day(day) if day is not None and name == "ut_datetime" else day


def _number(text: str) -> int | float:
    # Python refuses to read integers of thousands of digits; beyond 18 the exact value does not matter.
    return int(text) if text.lstrip("+-").isdigit() and len(text) <= 18 else float(text)


def _known_descriptors() -> frozenset[str]:
    """Return the descriptors of all instrument classes there are, and ``tags``."""
    return frozenset({"tags"}).union(*(descriptor_methods(cls) for cls in _with_subclasses(AstroData)))


def _with_subclasses(cls: Any) -> list[Any]:
    return [cls, *(found for child in cls.__subclasses__() for found in _with_subclasses(child))]


# ---- frames
# ----------------------------------------------------------------------------------------------------------


def _ask(ad: AstroData, name: str, pretty: bool) -> Any:
    """Ask a data set for a descriptor; one that its class does not have is unknown, that is, None."""
    if name == "tags":
        return ad.tags
    cls: Any = type(ad)
    method = getattr(ad, name) if hasattr(cls, name) else None
    if method is None:
        return None
    return method(pretty=True) if pretty and _takes_pretty(cls, name) else method()


@cache
def _takes_pretty(cls: Any, name: str) -> bool:
    return "pretty" in inspect.signature(getattr(cls, name)).parameters


class _Frame:
    """What has been asked of one frame so far."""

    __slots__ = ("_ad", "_answers", "name", "tags")

    def __init__(self, ad: AstroData) -> None:
        self.name = ad.filename
        self.tags = frozenset(ad.tags)
        self._ad = ad
        self._answers: dict[tuple[str, bool], Any] = {("tags", False): self.tags}

    def ask(self, name: str, pretty: bool) -> Any:
        # Two threads may ask the same at once; both get the same answer and one of them is kept.
        key = name, pretty
        if key not in self._answers:
            self._answers[key] = _ask(self._ad, name, pretty)
        return self._answers[key]


class _FrameCache:
    """Headers of files by path, forgotten when the file changes or others have been used more recently."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._frames: OrderedDict[str, tuple[tuple[int, int, int], _Frame]] = OrderedDict()

    def frame(self, path: str) -> _Frame:
        """Return the frame of a file; the file is read outside the lock."""
        stamp = _stamp(path)
        with self._lock:
            known = self._frames.get(path)
            if known is not None and known[0] == stamp:
                self._frames.move_to_end(path)
                return known[1]
        frame = _Frame(astrodata.open(path))
        with self._lock:
            self._frames[path] = (stamp, frame)
            self._frames.move_to_end(path)
            while len(self._frames) > self._limit:
                self._frames.popitem(last=False)
        return frame


_CACHE: Final = _FrameCache(limit=512)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InputError(
            "The file cannot be found", file=path, found=getattr(error, "strerror", None) or error
        ) from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _frame_of(item: str | PathLike[str] | AstroData) -> _Frame:
    if isinstance(item, AstroData):
        return _Frame(item)
    return _CACHE.frame(str(Path(fspath(item)).absolute()))


def _input_list(inputs: Iterable[_Input]) -> list[_Input]:
    if isinstance(inputs, (str, PathLike, AstroData)) or not isinstance(inputs, Iterable):
        raise InputError(
            "The inputs to select from must be a list",
            item="inputs",
            found=repr(inputs),
            expected="a list of paths",
            remedy="Use glob.glob() to turn a pattern into a list of paths",
        )
    items = list(inputs)
    for position, item in enumerate(items):
        if not isinstance(item, (str, PathLike, AstroData)):
            raise InputError(
                "An input is neither a path nor a data set", item=f"inputs[{position}]", found=repr(item)
            )
    return items


def _tag_set(tags: Iterable[str] | None, item: str) -> frozenset[str]:
    if isinstance(tags, str):
        return frozenset({tags})
    try:
        found = frozenset(tags or ())
    except TypeError:
        found = frozenset({None})  # type: ignore[arg-type]
    if not all(isinstance(tag, str) for tag in found):
        raise InputError(
            "Tags must be texts", item=item, found=repr(tags), expected='a list such as ["FLAT"]'
        )
    return found


def _as_expression(expression: Expression | str) -> Expression:
    return expression if isinstance(expression, Expression) else expr_parser(expression)


def _raise_all(faults: Sequence[tuple[str, NiripipeError]], total: int) -> NoReturn:
    if len(faults) == 1:
        path, error = faults[0]
        raise InputError(
            f"Nothing was selected: {error.problem}",
            file=path,
            item=error.item,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from error
    reasons = "".join(f"\n    {path}: {error.problem}" for path, error in faults)
    raise InputError(
        f"Nothing was selected: {len(faults)} of {total} files cannot be used{reasons}\n",
        remedy="Leave them out or replace them",
    ) from faults[0][1]
