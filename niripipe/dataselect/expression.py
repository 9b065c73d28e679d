"""Parsed expressions."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from niripipe.astrodata import AstroData
from niripipe.dataselect.comparison import Condition, Lookup, Mismatch, Rules
from niripipe.dataselect.frames import ask
from niripipe.dataselect.parser import Parser
from niripipe.errors import InputError, ParameterError

__all__ = ["Expression", "MisfitError", "expr_parser"]


class MisfitError(InputError):
    """An expression compares what cannot be compared: it is wrong for every file, not for one."""


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
        For anything that is not in the language, with a caret under the character, and for unknown
        descriptors and tags, with the nearest names.
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
    if not (isinstance(exposure_tolerance, Real) and 0.0 <= exposure_tolerance <= 1.0):
        raise ParameterError(
            "The tolerance of exposure times is not usable",
            item="exposure_tolerance",
            found=exposure_tolerance,
            expected="a number from 0 to 1",
        )
    return Expression(expression, bool(strict), float(exposure_tolerance))


@dataclass(frozen=True, repr=False)
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

    text: str
    strict: bool = False
    exposure_tolerance: float = 0.01
    names: frozenset[str] = field(init=False, compare=False)
    _holds: Condition = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parser = Parser(self.text, Rules(self.strict, self.exposure_tolerance))
        object.__setattr__(self, "_holds", parser.parse())
        object.__setattr__(self, "names", frozenset(parser.names))

    def __call__(self, ad: AstroData) -> bool:
        """Tell whether a data set fulfils the expression.

        Raises
        ------
        InputError
            If a comparison makes no sense for its value (a number against a text), or a descriptor that
            stands alone is not a yes or no.
        """
        return self._evaluate(lambda name, pretty: ask(ad, name, pretty), ad.filename)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text, self.strict, self.exposure_tolerance)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        settings = ", strict=True" if self.strict else ""
        if self.exposure_tolerance != 0.01:
            settings += f", exposure_tolerance={self.exposure_tolerance:g}"
        return f"Expression({self.text!r}{settings})"

    def _evaluate(self, lookup: Lookup, filename: str | None) -> bool:
        try:
            return self._holds(lookup)
        except Mismatch as error:
            raise MisfitError(
                f"The expression does not fit the data: {error}",
                file=filename,
                item="expression",
                found=self.text,
            ) from None
