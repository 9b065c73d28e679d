from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe import astrodata
from niripipe.cal_service import CalibrationFacts, facts_of
from niripipe.errors import StorageError

from .facts_for_tests import SCIENCE


def test_facts_are_those_of_the_headers(make):
    facts = facts_of(astrodata.open(make("N1.fits", EXPTIME=10.001, COADDS=3)))
    assert facts.filename == "N1.fits"
    assert {"NIRI", "IMAGE", "RAW"} <= facts.tags
    assert facts.exposure_time == pytest.approx(30.003)
    assert facts.coadds == 3
    assert facts.read_mode == "Medium Background"
    assert facts.well_depth_setting == "Shallow"
    assert facts.filter_name == "K_G0204"
    assert facts.camera == "f6"
    assert facts.focal_plane_mask == "f6-cam_G5208"
    assert facts.disperser == "MIRROR"
    assert facts.detector_binning == "1x1"
    assert facts.ut_datetime == datetime(2016, 1, 2, 8)
    assert facts.data_section == (0, 16, 0, 16)
    assert facts.detector_section == (504, 520, 504, 520)
    assert facts.gcal_lamp == "Off"
    assert facts.qa_state == "Undefined"
    assert facts.instrument == "NIRI"
    assert facts.uses_lamp_flats is True
    assert facts.processing_mode is None


def test_exposure_of_a_product_is_already_the_total(make):
    facts = facts_of(astrodata.open(make("N1_dark.fits", "dark", EXPTIME=30.003, COADDS=3)))
    assert facts.exposure_time == pytest.approx(30.003)
    assert facts.processing_mode == "sq"


def test_settings_that_are_not_recognised_are_unknown(make):
    facts = facts_of(astrodata.open(make("N1.fits", LNRS=3, A_VDET=None)))
    assert facts.read_mode is None
    assert facts.well_depth_setting is None
    facts = facts_of(astrodata.open(make("N2.fits", A_VDET=5.0)))
    assert facts.well_depth_setting is None


def test_missing_keywords_give_none(make):
    facts = facts_of(astrodata.open(make("N1.fits", CAMERA=None, FILTER3=None, GCALLAMP=None, EXPTIME=None)))
    assert (facts.camera, facts.disperser, facts.gcal_lamp, facts.exposure_time) == (None,) * 4


@given(
    st.datetimes(min_value=datetime(1999, 1, 1)),
    st.floats(0, 1e4),
    st.text(),
    st.frozensets(st.text()),
    st.one_of(st.none(), st.tuples(*[st.integers(0, 1024)] * 4)),
)
def test_facts_survive_json(when, seconds, name, tags, section):
    facts = CalibrationFacts(
        filename=name, tags=tags, ut_datetime=when, exposure_time=seconds, data_section=section
    )
    assert CalibrationFacts.from_json(facts.to_json()) == facts
    assert CalibrationFacts.from_json(SCIENCE.to_json()) == SCIENCE


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tags": 1}', '{"tags": [], "ut_datetime": "x"}'])
def test_damaged_json_is_a_storage_error(text):
    with pytest.raises(StorageError, match="damaged"):
        CalibrationFacts.from_json(text)


def test_static_masks_are_dated_by_their_name_unless_the_header_says_when(make_static_mask):
    def date(name="bpm_20010317_niri_niri_11_full_1amp.fits", **cards):
        return facts_of(astrodata.open(make_static_mask(name, **cards))).ut_datetime

    assert date(DATE_OBS="2010-05-06") == datetime(2010, 5, 6)
    # The file was written, and the mask made, long after it became valid.
    assert date(DATE_OBS=None, DATE="2021-05-06T07:08:09") == datetime(2001, 3, 17)
    assert date("bpm_20010317_niri.fits.gz", DATE_OBS=None) == datetime(2001, 3, 17)
    assert date("bpm_20019917_niri.fits", DATE_OBS=None) is None
    assert date("mask.fits", DATE_OBS=None) is None
