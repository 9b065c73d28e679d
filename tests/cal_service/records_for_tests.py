"""Records of calibrations whose files need not exist."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from niripipe.cal_service import CalibrationRecord

from .facts_for_tests import DARK

_START = CalibrationRecord(
    "/data/a_dark.fits",
    "processed_dark",
    "0" * 32,
    2880,
    1_700_000_000_123_456_789,
    datetime(2026, 1, 1),
    DARK,
)


def record(path: str = "/data/a_dark.fits", **values: Any) -> CalibrationRecord:
    return replace(_START, path=path, **values)
