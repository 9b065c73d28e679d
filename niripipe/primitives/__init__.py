"""The NIRI primitives: methods of one class, in one module per group, each with its parameter model."""

from __future__ import annotations

from niripipe.primitives.base import PrimitivesBase
from niripipe.primitives.niri import NIRI

__all__ = ["CLASSES", "NIRI", "PrimitivesBase"]

CLASSES: tuple[type[PrimitivesBase], ...] = (NIRI,)
"""The classes among which the data's tags choose."""
