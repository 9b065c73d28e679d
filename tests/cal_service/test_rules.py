from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.cal_service import (
    ASSOCIATION_RULES,
    CalibrationFacts,
    applicable_types,
    assess,
    calibration_type,
)
from niripipe.errors import ParameterError

from .facts_for_tests import BPM, DARK, FLAT, NOON, SCIENCE, but, later


def accepted(frame, calibration, caltype, procmode=None):
    return assess(frame, calibration, caltype, procmode).accepted


def failed(frame, calibration, caltype, procmode=None):
    return [v.rule.descriptor for v in assess(frame, calibration, caltype, procmode).failed]


def best(frame, calibrations, caltype):
    assessed = [(assess(frame, c, caltype), n) for n, c in enumerate(calibrations, start=1)]
    usable = [(a, n) for a, n in assessed if a.accepted]
    return min(usable, key=lambda pair: pair[0].rank(pair[1]))[0].facts if usable else None


def test_calibrations_with_the_same_settings_fit():
    assert accepted(SCIENCE, DARK, "processed_dark")
    assert accepted(SCIENCE, FLAT, "processed_flat")
    assert accepted(SCIENCE, BPM, "processed_bpm")


@pytest.mark.parametrize(
    ("seconds", "fits"),
    [(20.0119, True), (20.012, True), (20.0121, False), (19.9921, True), (19.992, True), (19.9919, False)],
)
def test_dark_exposure_agrees_within_ten_milliseconds_limits_included(seconds, fits):
    assert accepted(SCIENCE, but(DARK, exposure_time=seconds), "processed_dark") is fits


@given(st.floats(0.1, 9000), st.sampled_from([-0.01, 0.01]))
def test_dark_exposure_limit_is_included_whatever_the_rounding(seconds, offset):
    frame = but(SCIENCE, exposure_time=seconds)
    assert accepted(frame, but(DARK, exposure_time=seconds + offset), "processed_dark")
    assert not accepted(frame, but(DARK, exposure_time=seconds + 1.01 * offset), "processed_dark")


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"read_mode": "Low Background"}, "read_mode"),
        ({"well_depth_setting": "Deep"}, "well_depth_setting"),
        ({"coadds": 2}, "coadds"),
        ({"data_section": (0, 512, 0, 512)}, "data_section"),
        ({"instrument": "GNIRS"}, "instrument"),
        ({"qa_state": "Fail"}, "qa_state"),
    ],
)
def test_dark_with_one_other_setting_fails_that_rule_only(values, rule):
    assert failed(SCIENCE, but(DARK, **values), "processed_dark") == [rule]


@pytest.mark.parametrize(
    "values", [{"camera": "f32"}, {"focal_plane_mask": "x"}, {"filter_name": "J_G0202"}, {"gcal_lamp": None}]
)
def test_dark_does_not_depend_on_the_optics(values):
    assert accepted(SCIENCE, but(DARK, **values), "processed_dark")


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"filter_name": "J_G0202"}, "filter_name"),
        ({"camera": "f32"}, "camera"),
        ({"well_depth_setting": "Deep"}, "well_depth_setting"),
        ({"data_section": (0, 768, 0, 768)}, "data_section"),
        ({"focal_plane_mask": "f6-6pix_G5213"}, "focal_plane_mask"),
        ({"disperser": "Kgrism_G5204"}, "disperser"),
        ({"gcal_lamp": "Off"}, "gcal_lamp"),
        ({"gcal_lamp": None}, "gcal_lamp"),
        ({"gcal_lamp": "Ar"}, "gcal_lamp"),
        ({"qa_state": "Fail"}, "qa_state"),
    ],
)
def test_flat_with_one_other_setting_fails_that_rule_only(values, rule):
    assert failed(SCIENCE, but(FLAT, **values), "processed_flat") == [rule]


@pytest.mark.parametrize(
    "values",
    [
        {"read_mode": "Low Background"},
        {"gcal_lamp": "QH"},
        {"gcal_lamp": "IRlow"},
        {"coadds": 5},
        {"qa_state": "CHECK"},
        {"filter_name": "K_g0204"},
    ],
)
def test_flat_is_free_in_what_does_not_matter(values):
    assert accepted(SCIENCE, but(FLAT, **values), "processed_flat")


def test_filters_are_compared_by_component_identifiers_in_any_order():
    frame = but(SCIENCE, filter_name="H2v=1-0S1_G0216&K_G0204")
    assert accepted(frame, but(FLAT, filter_name="K_G0204&H2v=1-0s1_G0216"), "processed_flat")
    assert not accepted(frame, but(FLAT, filter_name="K_G0204"), "processed_flat")
    assert not accepted(SCIENCE, but(FLAT, filter_name="Kprime_G0206"), "processed_flat")
    assert not accepted(SCIENCE, but(FLAT, filter_name="K"), "processed_flat")


@pytest.mark.parametrize(
    ("time", "fits"),
    [
        ({"days": 179}, True),
        ({"days": 180, "seconds": -1}, True),
        ({"days": 180}, True),
        ({"days": 180, "seconds": 1}, False),
        ({"days": -180}, True),
        ({"days": -180, "seconds": -1}, False),
    ],
)
@pytest.mark.parametrize(("calibration", "caltype"), [(DARK, "processed_dark"), (FLAT, "processed_flat")])
def test_window_of_180_days_includes_its_limits(calibration, caltype, time, fits):
    assert accepted(SCIENCE, later(calibration, **time), caltype) is fits


def test_nearest_in_time_wins_whether_before_or_after():
    before, after = later(FLAT, minutes=-60), later(FLAT, minutes=30)
    assert best(SCIENCE, [before, after], "processed_flat") == after
    assert best(SCIENCE, [later(FLAT, minutes=-20), after], "processed_flat") == later(FLAT, minutes=-20)


def test_better_processing_then_later_registration_decide_at_equal_times():
    modes = {mode: but(FLAT, processing_mode=mode) for mode in ("sq", "ql", "qa", None)}
    assert best(SCIENCE, [modes["sq"], modes["ql"], modes["qa"]], "processed_flat") == modes["sq"]
    assert best(SCIENCE, [modes["qa"], modes["ql"]], "processed_flat") == modes["ql"]
    assert best(SCIENCE, [modes["ql"], modes[None]], "processed_flat") == modes[None]
    first, last = but(FLAT, filename="first"), but(FLAT, filename="last")
    assert best(SCIENCE, [first, last], "processed_flat") == last


@pytest.mark.parametrize(
    ("product", "asked", "fits"),
    [
        ("sq", "sq", True),
        ("ql", "sq", False),
        ("qa", "sq", False),
        ("sq", "ql", True),
        ("ql", "ql", True),
        ("qa", "ql", False),
        ("qa", "qa", True),
        ("ql", None, True),
        (None, "sq", True),
    ],
)
def test_quality_is_enforced_when_asked_for(product, asked, fits):
    assert accepted(SCIENCE, but(FLAT, processing_mode=product), "processed_flat", asked) is fits


def test_mask_is_the_nearest_one_that_is_not_younger():
    masks = [
        but(BPM, ut_datetime=datetime(2001, 3, 17)),
        but(BPM, ut_datetime=datetime(2015, 6, 1)),
        but(BPM, ut_datetime=datetime(2016, 2, 1)),
    ]
    assert best(SCIENCE, masks, "processed_bpm") == masks[1]
    assert accepted(SCIENCE, BPM, "processed_bpm")


@pytest.mark.parametrize(("hours", "fits"), [(3, True), (24, True), (24.1, False)])
def test_mask_may_be_made_from_flats_of_the_same_night_taken_after_the_target(hours, fits):
    assert accepted(SCIENCE, later(BPM, hours=hours), "processed_bpm") is fits


def test_mask_must_cover_the_frame_but_may_be_larger():
    window = but(SCIENCE, data_section=(0, 512, 0, 512), detector_section=(256, 768, 256, 768))
    small = but(BPM, detector_section=(256, 768, 256, 768))
    assert accepted(window, BPM, "processed_bpm")
    assert accepted(window, small, "processed_bpm")
    assert failed(SCIENCE, small, "processed_bpm") == ["detector_section"]


def test_coadds_count_and_the_reason_says_so():
    frame = but(SCIENCE, exposure_time=60.001, coadds=1)
    (verdict,) = assess(frame, but(DARK, exposure_time=60.002, coadds=2), "processed_dark").failed
    assert verdict.rule.descriptor == "coadds"
    assert (verdict.wanted, verdict.found) == ("1", "2")
    assert "1 x 60.001 s is not 2 x 30.001 s" in verdict.note


def test_exposures_are_shown_as_totals_with_their_coadds():
    frame = but(SCIENCE, exposure_time=10.005, coadds=5)
    verdict = next(
        v for v in assess(frame, DARK, "processed_dark").verdicts if v.rule.descriptor == "exposure_time"
    )
    assert (verdict.wanted, verdict.found) == ("10.005 s (5 x 2.001 s) ± 0.01 s", "20.002 s")
    assert verdict.note == "off by +9.997 s"


@pytest.mark.parametrize(
    ("caltype", "calibration", "name"),
    [
        (caltype, calibration, rule.descriptor)
        for caltype, calibration in (
            ("processed_dark", DARK),
            ("processed_flat", FLAT),
            ("processed_bpm", BPM),
        )
        for rule in ASSOCIATION_RULES[caltype].rules
        if rule.comparison in ("same", "same_components", "within", "not_after", "covers")
    ],
)
def test_unknown_matches_nothing_not_even_unknown_and_is_explained(caltype, calibration, name):
    for frame, other, whose in (
        (but(SCIENCE, **{name: None}), calibration, "frame"),
        (SCIENCE, but(calibration, **{name: None}), "calibration"),
        (but(SCIENCE, **{name: None}), but(calibration, **{name: None}), "frame"),
    ):
        verdict = next(v for v in assess(frame, other, caltype).verdicts if v.rule.descriptor == name)
        assert not verdict.passed
        assert f"header of the {whose}" in verdict.note
        assert "unknown" in str(verdict)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PROCESSED", "DARK", "CAL"}, "processed_dark"),
        ({"PROCESSED", "FLAT", "IMAGE"}, "processed_flat"),
        ({"PROCESSED", "FLAT", "BPM"}, "processed_bpm"),
        ({"BPM"}, "processed_bpm"),
        ({"DARK", "RAW"}, None),
        ({"PROCESSED", "IMAGE"}, None),
        ({"PROCESSED", "PROCESSED_SCIENCE", "FLAT"}, None),
        (set(), None),
    ],
)
def test_type_follows_from_tags_and_a_mask_made_from_flats_is_a_mask(tags, expected):
    assert calibration_type(tags) == expected


def test_raw_frames_serve_by_the_rules_of_their_types():
    raw_dark = but(DARK, tags=frozenset({"NIRI", "DARK", "CAL", "RAW"}))
    raw_flat = but(FLAT, tags=frozenset({"NIRI", "IMAGE", "FLAT", "CAL", "RAW"}))
    assert accepted(SCIENCE, raw_dark, "dark")
    assert accepted(raw_flat, but(raw_flat, gcal_lamp="Off"), "lampoff_flat")
    assert failed(raw_flat, raw_flat, "lampoff_flat") == ["gcal_lamp"]
    standard = but(SCIENCE, observation_class="partnerCal")
    assert accepted(SCIENCE, standard, "photometric_standard")
    assert failed(SCIENCE, SCIENCE, "photometric_standard") == ["observation_class"]


def test_lamp_off_flats_are_of_the_same_day():
    off = but(FLAT, gcal_lamp="Off")
    assert accepted(FLAT, later(off, days=1), "lampoff_flat")
    assert not accepted(FLAT, later(off, days=1, seconds=1), "lampoff_flat")


@pytest.mark.parametrize(
    ("frame", "types"),
    [
        (BPM, ()),
        (DARK, ("processed_bpm",)),
        (FLAT, ("lampoff_flat", "processed_bpm")),
        (but(FLAT, gcal_lamp="Off"), ("processed_bpm",)),
        (
            SCIENCE,
            ("dark", "photometric_standard", "processed_dark", "flat", "processed_flat", "processed_bpm"),
        ),
        (but(SCIENCE, observation_class="partnerCal"), ("flat", "processed_flat", "processed_bpm")),
        (
            but(SCIENCE, uses_lamp_flats=False),
            ("dark", "photometric_standard", "processed_dark", "processed_bpm"),
        ),
    ],
)
def test_types_that_apply_to_a_frame(frame, types):
    assert applicable_types(frame) == types


def test_unknown_type_and_mode_name_the_choices():
    with pytest.raises(ParameterError, match=r"darks.*processed_dark.*photometric_standard"):
        assess(SCIENCE, DARK, "darks")
    with pytest.raises(ParameterError, match=r"best.*sq, ql or qa"):
        assess(SCIENCE, DARK, "processed_dark", "best")


def test_every_rule_is_about_an_existing_fact():
    names = {field.name for field in fields(CalibrationFacts)}
    assert {rule.descriptor for rules in ASSOCIATION_RULES.values() for rule in rules.rules} <= names


def test_age_is_signed():
    assert assess(SCIENCE, later(DARK, days=2), "processed_dark").days == 2
    assert assess(SCIENCE, later(DARK, days=-2), "processed_dark").days == -2
    assert assess(SCIENCE, but(DARK, ut_datetime=None), "processed_dark").days is None


@given(
    st.lists(
        st.tuples(st.floats(-170, 170), st.sampled_from(["sq", "ql", "qa", None])), min_size=1, max_size=8
    )
)
def test_choice_is_never_further_away_than_another_candidate(candidates):
    flats = [
        replace(FLAT, ut_datetime=NOON + timedelta(days=days), processing_mode=mode)
        for days, mode in candidates
    ]
    chosen = best(SCIENCE, flats, "processed_flat")
    assert abs(chosen.ut_datetime - NOON) == min(abs(flat.ut_datetime - NOON) for flat in flats)
