"""Translating the text of an expression into a condition."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import accumulate
from typing import Any, Final, NoReturn

from niripipe.astrodata import AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.dataselect.comparison import ORDER, Condition, Day, Name, Rules, compare, comparison, flag
from niripipe.errors import InputError
from niripipe.instruments import known_tags
from niripipe.instruments.headers import parse_date, parse_datetime, parse_time

__all__ = ["Parser"]

#: Nesting beyond this is refused.
_MAX_DEPTH: Final = 50
_FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MOMENT_FORMS: Final = {
    "ut_date": '"YYYY-MM-DD" (ut_datetime also knows the time)',
    "ut_datetime": '"YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"',
    "ut_time": '"HH:MM:SS"',
    "local_time": '"HH:MM:SS"',
}
_LITERAL = re.compile(
    r"""(?P<text>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
      | (?<![\w.])(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))""",
    re.VERBOSE,
)
#: What is not in the language, once the literals are replaced.
_FAULT = re.compile(
    r"""(?P<equals>(?<![=!<>])=(?!=))
      | (?P<quote>["'])
      | (?P<number>(?<![\w.])\.?\d|[+-])
      | (?P<letter>[^\w\s.()\[\],=!<>])""",
    re.VERBOSE | re.ASCII,
)
_UNFINISHED = re.compile(r"(?:^|[=<>(\[,]|\b(?:and|or|not|in|is))\s*$")
_CLOSERS: Final = {"(": ")", "[": "]"}
_OPERATORS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}


@dataclass(frozen=True, slots=True)
class _Value:
    """A descriptor or constant, and where it starts."""

    content: Any
    start: int


class Parser:
    """Translates one expression into a condition.

    The grammar is a part of Python's and is left to `ast`. Quoted texts and numbers are read here, since
    Python would read some of them differently; in the text given to `ast` each is replaced by something of
    the same length, so that positions stay.

    Parameters
    ----------
    text : str
    rules : Rules

    Attributes
    ----------
    names : set of str
        The descriptors that the expression asks for, once it is parsed.
    """

    def __init__(self, text: str, rules: Rules) -> None:
        self.names: set[str] = set()
        self._text = text.strip()
        self._rules = rules
        self._known = _known_descriptors()
        self._literals: dict[int, str | int | float] = {}
        self._masked = re.sub(r"\s", " ", _LITERAL.sub(self._replaced, self._text))

    def parse(self) -> Condition:
        """Return the condition that the expression means.

        Raises
        ------
        InputError
            See `niripipe.dataselect.expr_parser`.
        """
        if not self._text:
            self._fail("The expression is empty", "a comparison such as exposure_time == 20", 0)
        fault = _FAULT.search(self._masked)
        if fault is not None:
            self._fail_at(fault)
        # The brackets that stand for quoted texts count, too.
        depths = accumulate((letter in "([") - (letter in ")]") for letter in self._masked)
        if max(depths) > _MAX_DEPTH:
            self._fail_nested(0)
        try:
            tree = ast.parse(self._masked, mode="eval").body
        except SyntaxError as error:
            self._fail_at_syntax(error.offset or 0)
        except (MemoryError, RecursionError):
            self._fail_nested(0)
        return self._condition(self._translate(tree))

    def _replaced(self, match: re.Match[str]) -> str:
        """Read a literal, and return what stands for it: a list or a name, neither of which is looked at."""
        literal = match.group()
        if match.lastgroup == "number":
            self._literals[match.start()] = _number(literal)
            return "_" * len(literal)
        self._literals[match.start()] = re.sub(r"\\(.)", r"\1", literal[1:-1])
        return f"[{'_' * (len(literal) - 2)}]"

    def _translate(self, node: ast.expr, depth: int = 0) -> Condition | _Value:
        """Return the condition that a node means, or its value if nothing has made a condition of it."""
        start = node.col_offset
        if depth > _MAX_DEPTH:
            self._fail_nested(start)
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(self._translate(part, depth + 1)) for part in node.values]
            combined = all if isinstance(node.op, ast.And) else any
            return lambda lookup: combined(part(lookup) for part in parts)
        if isinstance(node, ast.UnaryOp):
            part = self._condition(self._translate(node.operand, depth + 1))
            return lambda lookup: not part(lookup)
        if isinstance(node, ast.Compare):
            return self._chain(node, depth + 1)
        if isinstance(node, (ast.Name, ast.List)) and start in self._literals:
            return _Value(self._literals[start], start)
        if isinstance(node, (ast.List, ast.Tuple)):
            elements = [self._translate(element, depth + 1) for element in node.elts]
            return _Value(tuple(self._constant(element, start) for element in elements), start)
        if isinstance(node, ast.Constant) and node.value is not Ellipsis:
            return _Value(node.value, start)
        return _Value(self._descriptor(node), start)

    def _constant(self, element: Condition | _Value, start: int) -> Any:
        """Return an element of the list that starts at `start`."""
        if not isinstance(element, _Value) or isinstance(element.content, Name):
            self._fail("A list can only hold constants", "numbers, texts, True, False or None", start)
        return element.content

    def _chain(self, node: ast.Compare, depth: int) -> Condition:
        """Return the condition of one comparison or of several in a chain (``1 < airmass <= 1.5``)."""
        parts: list[Condition] = []
        left, end = self._translate(node.left, depth), node.left.end_col_offset or 0
        for operation, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._translate(comparator, depth)
            if not isinstance(left, _Value) or not isinstance(right, _Value):
                self._fail(
                    "A condition cannot be compared", "a descriptor or a constant", comparator.col_offset
                )
            parts.append(self._compared(left, _OPERATORS[type(operation)], right, end))
            left, end = right, comparator.end_col_offset or 0
        return lambda lookup: all(part(lookup) for part in parts)

    def _condition(self, part: Condition | _Value) -> Condition:
        """Return a condition, or what a value means that stands alone (``not is_ao``)."""
        if not isinstance(part, _Value):
            return part
        content = part.content
        if isinstance(content, bool):
            return lambda lookup: content
        if isinstance(content, Name) and content.name != "tags":
            return flag(content.name)
        return self._fail("This is not a condition", "a comparison, such as exposure_time == 20", part.start)

    def _compared(self, left: _Value, op: str, right: _Value, end: int) -> Condition:
        """Return the condition of one comparison; `end` is where the left side ends."""
        name, content = left.content, right.content
        if Name("tags") in (name, content):
            if op not in ("in", "not in") or not isinstance(name, str):
                self._fail("Tags are asked for differently", '"FLAT" in tags', self._operator_start(end))
            self._check_tag(name, left.start)
            return lambda lookup: (name in lookup("tags", False)) is (op == "in")
        if op in ("in", "not in") and not isinstance(content, tuple):
            self._fail(f"What follows {op!r} is not a list", 'a list such as ["H", "K"]', right.start)
        if op in ("is", "is not") and not (content is None or isinstance(content, bool)):
            self._fail(f"{op!r} only goes with None, True and False", "== or !=", self._operator_start(end))
        for side in (left, right):
            if op in ORDER and (side.content is None or isinstance(side.content, (tuple, bool))):
                self._fail(f"{op!r} needs numbers, texts or dates", "a value that has an order", side.start)
        if isinstance(name, Name):
            return comparison(name.name, op, self._literal(name.name, content, right.start), self._rules)
        if isinstance(content, Name):
            flipped = _FLIPPED.get(op, op)
            return comparison(
                content.name, flipped, self._literal(content.name, name, left.start), self._rules
            )
        return lambda lookup: compare("a constant", (name,), op, content, 0.0)

    def _check_tag(self, tag: str, start: int) -> None:
        try:
            known_tags.check_tags([tag], "expression")
        except InputError as error:
            expected = (error.remedy or "").removeprefix("Did you mean ").rstrip("?")
            self._fail(error.problem, f"perhaps {expected}" if expected else str(error.expected), start)

    def _operator_start(self, end: int) -> int:
        # `ast` does not say where an operator is; only closing parentheses can come before it.
        rest = self._masked[end:]
        return end + len(rest) - len(rest.lstrip(" )"))

    def _literal(self, name: str, content: Any, start: int) -> Any:
        """Read texts that are compared with dates and times."""
        if name not in _MOMENT_FORMS or content is None or isinstance(content, Name):
            return content
        if isinstance(content, tuple):
            return tuple(self._literal(name, element, start) for element in content)
        moment = _moment(name, content) if isinstance(content, str) else None
        if moment is None:
            self._fail(f"{content!r} cannot be compared with {name}", _MOMENT_FORMS[name], start)
        return moment

    def _descriptor(self, node: ast.expr) -> Name:
        """Return the descriptor that a node names: ``airmass``, ``ad.airmass`` or either with ``()``."""
        start, named = node.col_offset, node.func if isinstance(node, ast.Call) else node
        if not isinstance(named, (ast.Name, ast.Attribute)):
            self._fail("This is not in the language", "a descriptor, an operator or a constant", start)
        name = ast.unparse(named).removeprefix("ad.")
        if name not in self._known:
            near = difflib.get_close_matches(name[:60], self._known, n=3) if "." not in name else []
            expected = f"perhaps {' or '.join(near)}" if near else "a descriptor; text needs quotes"
            self._fail(f"There is no descriptor {name[:60]!r}", expected, start)
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            self._fail_end(named.end_col_offset or 0)
        if name != "tags":
            self.names.add(name)
        return Name(name)

    def _fail_at(self, fault: re.Match[str]) -> NoReturn:
        """Say what is wrong with something that is not in the language."""
        start, letter = fault.start(), self._text[fault.start()]
        if fault.lastgroup == "equals":
            self._fail("A single = does not compare", "==", start)
        if fault.lastgroup == "quote":
            self._fail("The quotation is not closed", letter, start)
        if fault.lastgroup == "number":
            self._fail("This is not a number", "digits, with a point or an exponent, and no unit", start)
        self._fail(f"{letter!r} means nothing here", "a descriptor, an operator or a constant", start)

    def _fail_at_syntax(self, offset: int) -> NoReturn:
        """Say what is wrong where Python has stopped; `offset` counts from 1 and is 0 at the end."""
        opened: list[int] = []
        for position, letter in enumerate(self._masked):
            if letter in _CLOSERS:
                opened.append(position)
            elif letter in _CLOSERS.values() and opened:
                opened.pop()
        if opened:
            bracket = self._masked[opened[-1]]
            problem = f"The {bracket} at character {opened[-1] + 1} is not closed"
            self._fail(problem, _CLOSERS[bracket], len(self._text))
        start = offset - 1 if offset else len(self._text)
        if _UNFINISHED.search(self._masked[:start]):
            expected = "a descriptor, a number, a quoted text or a list"
            self._fail("Something is missing here", expected, start)
        self._fail_end(start)

    def _fail_end(self, start: int) -> NoReturn:
        self._fail("The expression does not end here", "and, or, or the end", start)

    def _fail_nested(self, start: int) -> NoReturn:
        self._fail("The expression is nested too deeply", f"at most {_MAX_DEPTH} levels", start)

    def _fail(self, problem: str, expected: str, start: int) -> NoReturn:
        """Raise the error for a fault at a position, with a caret under it."""
        first = max(0, start - 50)
        excerpt = re.sub(r"\s", " ", self._text[first : start + 50])
        caret = " " * (start - first) + "^"
        raise InputError(
            f"{problem} (character {start + 1} of the expression)\n    {excerpt}\n    {caret}",
            expected=expected,
        )


def _moment(name: str, text: str) -> date | datetime | time | Day | None:
    if name.endswith("_time"):
        return parse_time(text)
    if name == "ut_datetime" and (moment := parse_datetime(text)) is not None:
        return moment
    day = parse_date(text) if re.fullmatch(r"\s*\d{4}-\d{1,2}-\d{1,2}\s*", text) else None
    return Day(day) if day is not None and name == "ut_datetime" else day


def _number(text: str) -> int | float:
    # Python refuses to read integers of thousands of digits; beyond 18 the exact value does not matter.
    return int(text) if text.lstrip("+-").isdigit() and len(text) <= 18 else float(text)


def _known_descriptors() -> frozenset[str]:
    """Return the descriptors of all instrument classes there are, and ``tags``."""
    return frozenset({"tags"}).union(*(descriptor_methods(cls) for cls in _with_subclasses(AstroData)))


def _with_subclasses(cls: Any) -> list[Any]:
    return [cls, *(found for child in cls.__subclasses__() for found in _with_subclasses(child))]
