"""The NIRI primitives class: all groups of primitives, and NIRI's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from niripipe.primitives.align import Align
from niripipe.primitives.astrometry import Astrometry
from niripipe.primitives.bookkeeping import Bookkeeping
from niripipe.primitives.calibrate import Calibrate
from niripipe.primitives.calibration_inputs import CalibrationInputs
from niripipe.primitives.cleanup import Cleanup
from niripipe.primitives.cosmic_rays import CosmicRays
from niripipe.primitives.lists import Lists
from niripipe.primitives.persistence import Persistence
from niripipe.primitives.photometry import Photometry
from niripipe.primitives.pixels import Pixels
from niripipe.primitives.quality import Quality
from niripipe.primitives.resample_to import ResampleTo
from niripipe.primitives.residual_sky import ResidualSky
from niripipe.primitives.sky import Sky
from niripipe.primitives.sources import Sources
from niripipe.primitives.stack import Stack
from niripipe.primitives.standardize import Standardize
from niripipe.primitives.store import Store

__all__ = ["NIRI"]


class NIRI(
    Standardize,
    Bookkeeping,
    Lists,
    CalibrationInputs,
    Calibrate,
    Pixels,
    CosmicRays,
    Stack,
    Sources,
    Sky,
    Persistence,
    ResidualSky,
    Cleanup,
    Align,
    ResampleTo,
    Quality,
    Astrometry,
    Photometry,
    Store,
):
    """Primitives for NIRI images and the darks, flats and bad pixel masks that they need."""

    tagset: ClassVar[frozenset[str]] = frozenset({"GEMINI", "NIRI"})

    # Values of DRAGONS 4.2 for NIRI imaging (geminidr/niri/parameters_niri*.py).
    instrument_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "addDQ": {"latency": True},
        "makeBPM": {
            "dark_lo_thresh": -20.0,
            "dark_hi_thresh": 1300.0,
            "flat_lo_thresh": 0.8,
            "flat_hi_thresh": 1.25,
        },
        "associateSky": {"time": 900.0, "distance": 1.0},
        "makeSky": {"time": 900.0, "distance": 1.0},
        "detectSources": {
            "detect_minarea": 40,
            "detect_thresh": 1.5,
            "analysis_thresh": 1.5,
            "back_filtersize": 3,
        },
    }
