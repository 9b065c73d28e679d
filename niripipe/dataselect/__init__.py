"""Selecting frames by tags and by expressions about their descriptors.

>>> expression = expr_parser('exposure_time == 20 and filter_name in ["H", "K"]')
>>> expression
Expression('exposure_time == 20 and filter_name in ["H", "K"]')

An expression is parsed and never executed as Python. See `expr_parser` for the language.
"""

from __future__ import annotations

from niripipe.dataselect.expression import Expression, expr_parser
from niripipe.dataselect.selection import select_data

__all__ = ["Expression", "expr_parser", "select_data"]
