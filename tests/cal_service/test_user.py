from __future__ import annotations

import pytest

from niripipe import astrodata
from niripipe.cal_service import broken_rules, choice_warning, facts_of, user_calibrations
from niripipe.errors import CalibrationError, InputError, ParameterError


def test_mapping_and_texts_say_the_same(make):
    dark, flat = make("a_dark.fits", "dark"), make("a_flat.fits", "flat")
    expected = {"processed_dark": dark, "processed_flat": flat}
    assert user_calibrations({"processed_dark": dark, "processed_flat": str(flat)}) == expected
    assert user_calibrations([f"processed_dark:{dark}", f"processed_flat: {flat}"]) == expected


def test_one_text_is_a_list_of_one(make):
    assert list(user_calibrations(f"processed_dark:{make('a_dark.fits', 'dark')}")) == ["processed_dark"]


@pytest.mark.parametrize("value", [None, {}, []])
def test_nothing_named_is_nothing(value):
    assert user_calibrations(value) == {}


def test_paths_may_have_colons_and_bpm_is_short_for_processed_bpm(make):
    path = make("x:y/a:b_bpm.fits", "bpm")
    assert user_calibrations([f"bpm:{path}"]) == {"processed_bpm": path}


def test_paths_become_absolute(make, tmp_path, monkeypatch):
    make("a_dark.fits", "dark")
    monkeypatch.chdir(tmp_path)
    assert user_calibrations({"processed_dark": "a_dark.fits"}) == {
        "processed_dark": tmp_path / "a_dark.fits"
    }


def test_open_calibrations_are_taken_as_they_are(make):
    ad = astrodata.open(make("a_dark.fits", "dark"))
    assert user_calibrations({"processed_dark": ad})["processed_dark"] is ad


@pytest.mark.parametrize(
    "value",
    [
        {"processed_drak": "x"},
        {"dark": "x"},
        ["x_dark.fits"],
        [3],
        {"processed_dark": ""},
        {"processed_dark": 3},
    ],
)
def test_what_is_not_understood_is_a_parameter_error(value):
    with pytest.raises(ParameterError, match="ucals"):
        user_calibrations(value)


def test_a_type_named_twice_is_refused(make):
    path = make("a_bpm.fits", "bpm")
    with pytest.raises(ParameterError, match="twice"):
        user_calibrations([f"bpm:{path}", f"processed_bpm:{path}"])


def test_files_must_exist_and_be_of_the_type(make, tmp_path):
    with pytest.raises(InputError, match="no such calibration file"):
        user_calibrations({"processed_dark": tmp_path / "none.fits"})
    with pytest.raises(CalibrationError, match=r"not a processed_dark.*FLAT.*PROCESSED and DARK"):
        user_calibrations({"processed_dark": make("a_flat.fits", "flat")})
    with pytest.raises(CalibrationError, match="expected: BPM"):
        user_calibrations({"bpm": make("a_dark.fits", "dark")})


def test_rules_broken_by_a_choice_are_named(make):
    frame = astrodata.open(make("N1.fits"))
    good, other = (
        astrodata.open(make("a_dark.fits", "dark")),
        astrodata.open(make("b_dark.fits", "dark", COADDS=2)),
    )
    assert broken_rules(frame, good, "processed_dark") == ()
    assert [v.rule.descriptor for v in broken_rules(frame, other, "processed_dark")] == ["coadds"]
    facts = facts_of(frame), facts_of(other)
    assert [str(v) for v in broken_rules(*facts, "processed_dark")] == [
        str(v) for v in broken_rules(frame, other, "processed_dark")
    ]


def test_choice_that_breaks_rules_is_worth_one_warning_with_all_values(make):
    frames = [astrodata.open(make(f"N{n}.fits", COADDS=n, EXPTIME=60.002 / n)) for n in (1, 2, 2)]
    dark = astrodata.open(make("a_dark.fits", "dark", COADDS=2, EXPTIME=60.002, LNRS=1))
    assert choice_warning(frames[1:], dark, "processed_dark") is None
    assert choice_warning([], dark, "processed_dark") is None
    text = choice_warning(frames, dark, "processed_dark")
    assert text.startswith(
        "a_dark.fits, chosen by hand, is used although it does not fit 1 of 3 frames (N1.fits): "
    )
    assert text.endswith(
        "coadds is 2, wanted 1 (1 x 60.002 s is not 2 x 30.001 s, whatever the total exposure)"
    )
    assert "does not fit N1.fits: coadds" in choice_warning(frames[:1], dark, "processed_dark")
    many = choice_warning([frames[0]] * 3, facts_of(dark), "processed_dark")
    assert "3 of 3 frames (N1.fits, ...): " in many
    with pytest.raises(ParameterError, match="unknown type"):
        choice_warning(frames, dark, "processed_drak")


def test_mask_of_the_archive_may_be_chosen_by_hand(make, make_static_mask):
    mask = make_static_mask()
    assert user_calibrations({"bpm": mask}) == {"processed_bpm": mask}
    frames = [astrodata.open(make("N1.fits")), astrodata.open(make("N2.fits", DATE_OBS="2000-12-01"))]
    text = choice_warning(frames, astrodata.open(mask), "bpm")
    assert "1 of 2 frames (N2.fits): ut_datetime is 2001-03-17" in text
