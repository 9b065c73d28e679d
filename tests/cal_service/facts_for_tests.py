"""Facts of a typical night: a science frame and calibrations that fit it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from niripipe.cal_service import CalibrationFacts

NOON = datetime(2016, 1, 2, 8, 0, 0)

SCIENCE = CalibrationFacts(
    filename="N20160102S0270.fits",
    tags=frozenset({"GEMINI", "NORTH", "NIRI", "IMAGE", "RAW", "UNPREPARED", "SIDEREAL"}),
    instrument="NIRI",
    program_id="GN-2015B-Q-1",
    observation_class="science",
    object="SN2014J",
    data_label="GN-2015B-Q-1-5-001",
    ut_datetime=NOON,
    exposure_time=20.002,
    coadds=1,
    read_mode="Medium Background",
    well_depth_setting="Shallow",
    filter_name="K_G0204",
    camera="f6",
    focal_plane_mask="f6-cam_G5208",
    disperser="MIRROR",
    detector_binning="1x1",
    gcal_lamp="Off",
    qa_state="Undefined",
    data_section=(0, 1024, 0, 1024),
    detector_section=(0, 1024, 0, 1024),
)
DARK = replace(
    SCIENCE,
    filename="a_dark.fits",
    tags=frozenset({"NIRI", "DARK", "CAL", "PREPARED", "PROCESSED"}),
    filter_name="blank",
    processing_mode="sq",
)
FLAT = replace(
    SCIENCE,
    filename="a_flat.fits",
    tags=frozenset({"NIRI", "IMAGE", "FLAT", "GCALFLAT", "CAL", "PREPARED", "PROCESSED"}),
    exposure_time=42.0,
    read_mode="High Background",
    gcal_lamp="IRhigh",
    processing_mode="sq",
)
BPM = replace(
    FLAT,
    filename="a_bpm.fits",
    tags=frozenset({"NIRI", "BPM", "FLAT", "CAL", "PROCESSED"}),
)


def later(facts: CalibrationFacts, **time: float) -> CalibrationFacts:
    return replace(facts, ut_datetime=NOON + timedelta(**time))


def but(facts: CalibrationFacts, **values: Any) -> CalibrationFacts:
    return replace(facts, **values)
