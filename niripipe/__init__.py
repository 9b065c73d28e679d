"""niripipe: reduction of near-infrared images from NIRI on Gemini North.

Raw frames in; calibrated, aligned, stacked images with variance and data-quality planes out.
The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niripipe import (
        astrodata,
        cal_service,
        dataselect,
        datasets,
        inspection,
        logutils,
        night,
        photometry,
        plot,
        simulate,
    )
    from niripipe.cal_service import CalibrationService
    from niripipe.errors import NiripipeError
    from niripipe.reduction import Reduce

__version__ = "0.1.0"

__all__ = [
    "CalibrationService",
    "NiripipeError",
    "Reduce",
    "__version__",
    "astrodata",
    "cal_service",
    "dataselect",
    "datasets",
    "inspection",
    "logutils",
    "night",
    "photometry",
    "plot",
    "simulate",
]

_HOMES = {
    "CalibrationService": "niripipe.cal_service",
    "NiripipeError": "niripipe.errors",
    "Reduce": "niripipe.reduction",
}


def _load(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"niripipe.{name}")
    raise AttributeError(f"module 'niripipe' has no attribute {name!r}")


if not TYPE_CHECKING:
    # Type checkers see the imports above, and so find misspelt names.
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted(__all__)
