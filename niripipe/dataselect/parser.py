"""Translating the text of an expression into a condition."""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Final, NoReturn

from niripipe.astrodata import AstroData
from niripipe.astrodata.descriptors import descriptor_methods
from niripipe.dataselect.comparison import ORDER, Condition, Day, Name, Rules, compare, comparison, flag
from niripipe.errors import InputError
from niripipe.instruments.headers import parse_date, parse_datetime, parse_time

__all__ = ["Parser"]

#: Nesting of parentheses and ``not`` beyond this is refused.
_MAX_DEPTH: Final = 50
_FLIPPED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MOMENT_FORMS: Final = {
    "ut_date": '"YYYY-MM-DD" (ut_datetime also knows the time)',
    "ut_datetime": '"YYYY-MM-DD" or "YYYY-MM-DDTHH:MM:SS"',
    "ut_time": '"HH:MM:SS"',
    "local_time": '"HH:MM:SS"',
}
_TOKEN = re.compile(
    r"""(?P<blank>\s+)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<text>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
      | (?P<word>(?:and|or|not|in|is|None|True|False)\b)
      | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?(?:\s*\(\s*\))?)
      | (?P<op>==|!=|<=|>=|<|>|[()\[\],])""",
    re.VERBOSE,
)
_CONSTANTS: Final = {"True": True, "False": False, "None": None}
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
class _Token:
    kind: str
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A descriptor or constant, and where it starts."""

    content: Any
    start: int


class Parser:
    """Translates one expression into a condition.

    Names, numbers and texts are read here. For the grammar, which is a part of Python's, the expression goes
    to `ast` with all of them replaced by stand-ins of the same length, so that positions stay and nothing
    but their order is left to Python.

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
        self._text = text.strip()
        self._rules = rules
        self.names: set[str] = set()
        self._known = _known_descriptors()

    def parse(self) -> Condition:
        """Return the condition that the expression means.

        Raises
        ------
        InputError
            See `niripipe.dataselect.expr_parser`.
        """
        self._tokens = self._tokenise()
        if not self._tokens:
            self._fail("The expression is empty", "a comparison such as exposure_time == 20", 0)
        self._values = {token.start: self._value(token) for token in self._tokens if _is_operand(token)}
        self._check_nesting()
        skeleton = [" "] * len(self._text)
        for token in self._tokens:
            skeleton[token.start : token.start + len(token.text)] = _stand_in(token)
        try:
            tree = ast.parse("".join(skeleton), mode="eval").body
        except SyntaxError as error:
            self._fail_missing((error.offset or 1) - 1)
        return self._condition(self._translate(tree))

    def _tokenise(self) -> list[_Token]:
        """Split the text into names, numbers, texts, keywords and operators."""
        tokens: list[_Token] = []
        start = 0
        while start < len(self._text):
            match = _TOKEN.match(self._text, start)
            if match is None:
                self._fail_at(start)
            if match.lastgroup != "blank":
                tokens.append(_Token(str(match.lastgroup), match.group(), start))
            start = match.end()
        return tokens

    def _check_nesting(self) -> None:
        """Refuse brackets that do not match, deep nesting, and operands that follow each other."""
        nested: list[_Token] = []
        after_operand = False
        for token in self._tokens:
            opens, closes = token.text in _CLOSERS, token.text in _CLOSERS.values()
            if after_operand and (opens or _is_operand(token)):
                self._fail("The expression does not end here", "and, or, or the end", token.start)
            if closes or token.text in (",", "and", "or"):
                while nested and nested[-1].text == "not":
                    nested.pop()
            if closes:
                if not nested:
                    self._fail("The expression does not end here", "and, or, or the end", token.start)
                opening = nested.pop()
                if _CLOSERS[opening.text] != token.text:
                    self._fail_open(opening, token.start)
            elif opens or token.text == "not":
                nested.append(token)
            if len(nested) > _MAX_DEPTH:
                self._fail("The expression is nested too deeply", f"at most {_MAX_DEPTH} levels", token.start)
            after_operand = closes or _is_operand(token)
        for token in nested:
            if token.text in _CLOSERS:
                self._fail_open(token, len(self._text))
        if not after_operand:
            self._fail_missing(len(self._text))

    def _value(self, token: _Token) -> _Value:
        """Read a name, a number, a text or a constant."""
        if token.kind == "name":
            return _Value(self._descriptor(token), token.start)
        if token.kind == "text":
            return _Value(re.sub(r"\\(.)", r"\1", token.text[1:-1]), token.start)
        if token.kind == "number":
            return _Value(_number(token.text), token.start)
        return _Value(_CONSTANTS[token.text], token.start)

    def _translate(self, node: ast.expr) -> Condition | _Value:
        """Return the condition that a node means, or its value if nothing has made a condition of it."""
        if isinstance(node, ast.BoolOp):
            parts = [self._condition(self._translate(part)) for part in node.values]
            combined = all if isinstance(node.op, ast.And) else any
            return lambda lookup: combined(part(lookup) for part in parts)
        if isinstance(node, ast.UnaryOp):
            part = self._condition(self._translate(node.operand))
            return lambda lookup: not part(lookup)
        if isinstance(node, ast.Compare):
            return self._chain(node)
        if isinstance(node, (ast.List, ast.Tuple)):
            return _Value(tuple(self._constant(element, node) for element in node.elts), node.col_offset)
        return self._values[node.col_offset]

    def _constant(self, node: ast.expr, enclosing: ast.expr) -> Any:
        """Return an element of a list."""
        element = self._translate(node)
        if not isinstance(element, _Value) or isinstance(element.content, Name):
            expected = "numbers, texts, True, False or None"
            self._fail("A list can only hold constants", expected, enclosing.col_offset)
        return element.content

    def _chain(self, node: ast.Compare) -> Condition:
        """Return the condition of one comparison or of several in a chain (``1 < airmass <= 1.5``)."""
        parts: list[Condition] = []
        left, after = self._translate(node.left), node.left.end_col_offset or 0
        for operation, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._translate(comparator)
            if not isinstance(left, _Value) or not isinstance(right, _Value):
                self._fail(
                    "A condition cannot be compared", "a descriptor or a constant", comparator.col_offset
                )
            # `ast` does not say where an operator is; only closing parentheses can come before it.
            start = next(token.start for token in self._tokens if token.start >= after and token.text != ")")
            parts.append(self._compared(left, _Token("op", _OPERATORS[type(operation)], start), right))
            left, after = right, comparator.end_col_offset or 0
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

    def _compared(self, left: _Value, op: _Token, right: _Value) -> Condition:
        """Return the condition of one comparison, having checked that it makes sense."""
        name, content = left.content, right.content
        if Name("tags") in (name, content):
            return self._tag_asked(left, op, right)
        if op.text in ("in", "not in") and not isinstance(content, tuple):
            self._fail(f"What follows {op.text!r} is not a list", 'a list such as ["H", "K"]', right.start)
        if op.text in ("is", "is not") and not (content is None or isinstance(content, bool)):
            self._fail(f"{op.text!r} only goes with None, True and False", "== or !=", op.start)
        for side in (left, right):
            if op.text in ORDER and (side.content is None or isinstance(side.content, (tuple, bool))):
                self._fail(
                    f"{op.text!r} needs numbers, texts or dates", "a value that has an order", side.start
                )
        if isinstance(name, Name):
            return comparison(name.name, op.text, self._literal(name.name, content, right.start), self._rules)
        if isinstance(content, Name):
            flipped = _FLIPPED.get(op.text, op.text)
            return comparison(
                content.name, flipped, self._literal(content.name, name, left.start), self._rules
            )
        return lambda lookup: compare("a constant", (name,), op.text, content, 0.0)

    def _tag_asked(self, left: _Value, op: _Token, right: _Value) -> Condition:
        tag = left.content
        if op.text not in ("in", "not in") or not isinstance(tag, str):
            self._fail("Tags are asked for differently", '"FLAT" in tags', op.start)
        return lambda lookup: (tag in lookup("tags", False)) is (op.text == "in")

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

    def _descriptor(self, token: _Token) -> Name:
        name = re.sub(r"\s|\(|\)", "", token.text).removeprefix("ad.")
        if name not in self._known:
            near = difflib.get_close_matches(name[:60], self._known, n=3) if "." not in name else []
            expected = f"perhaps {' or '.join(near)}" if near else "a descriptor; text needs quotes"
            self._fail(f"There is no descriptor {name[:60]!r}", expected, token.start)
        if name != "tags":
            self.names.add(name)
        return Name(name)

    def _fail_at(self, start: int) -> NoReturn:
        """Say why no token can begin here."""
        letter = self._text[start]
        if letter == "=":
            self._fail("A single = does not compare", "==", start)
        if letter in "\"'":
            self._fail("The quotation is not closed", letter, start)
        if letter.isdigit() or letter in "+-.":
            self._fail("This is not a number", "digits, with a point or an exponent, and no unit", start)
        self._fail(f"{letter!r} means nothing here", "a descriptor, an operator or a constant", start)

    def _fail_missing(self, start: int) -> NoReturn:
        expected = "a descriptor, a number, a quoted text or a list"
        self._fail("Something is missing here", expected, start)

    def _fail_open(self, opening: _Token, start: int) -> NoReturn:
        problem = f"The {opening.text} at character {opening.start + 1} is not closed"
        self._fail(problem, _CLOSERS[opening.text], start)

    def _fail(self, problem: str, expected: str, start: int) -> NoReturn:
        """Raise the error for a fault at a position, with a caret under it."""
        first = max(0, start - 50)
        excerpt = re.sub(r"\s", " ", self._text[first : start + 50])
        caret = " " * (start - first) + "^"
        raise InputError(
            f"{problem} (character {start + 1} of the expression)\n    {excerpt}\n    {caret}",
            expected=expected,
        )


def _is_operand(token: _Token) -> bool:
    return token.kind in ("name", "number", "text") or token.text in _CONSTANTS


def _stand_in(token: _Token) -> str:
    """Return what stands for a token in the text given to `ast`: as long, and of no meaning."""
    if token.kind == "text":
        return f"'{'-' * (len(token.text) - 2)}'"
    return "_" * len(token.text) if token.kind in ("name", "number") else token.text


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
