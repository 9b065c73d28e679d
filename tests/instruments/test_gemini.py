from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.errors import DataError, ParameterError
from niripipe.instruments import AstroDataGemini, AstroDataNiri

from .conftest import MakeFrame

SCIENCE = {"GEMINI", "NORTH", "NIRI", "IMAGE", "RAW", "UNPREPARED", "SIDEREAL"}
ZENITH = {"GEMINI", "NORTH", "NIRI", "RAW", "UNPREPARED", "AZEL_TARGET", "AT_ZENITH", "NON_SIDEREAL", "CAL"}
LAMP_ON = ZENITH | {"IMAGE", "FLAT", "GCALFLAT", "GCAL_IR_ON", "LAMPON"}
LAMP_OFF = ZENITH | {"IMAGE", "FLAT", "GCALFLAT", "GCAL_IR_OFF", "LAMPOFF"}


# ---- tags


def test_tags_of_science_and_acquisition(make_frame: MakeFrame) -> None:
    assert make_frame().tags == SCIENCE
    assert make_frame(OBSCLASS="acq").tags == SCIENCE | {"ACQUISITION"}


def test_tags_of_a_dark(make_frame: MakeFrame, dark_cards: dict[str, Any]) -> None:
    assert make_frame(dark_cards).tags == ZENITH | {"DARK"}
    # In 2002 some darks kept the name of the flats taken before.
    assert make_frame(dark_cards, OBJECT="GCALflat").tags == ZENITH | {"DARK"}


@pytest.mark.parametrize("lamp", ["IRhigh", "IRlow", "QH"])
def test_tags_of_lamp_flats_are_the_same_for_every_lamp(
    make_frame: MakeFrame, flat_cards: dict[str, Any], lamp: str
) -> None:
    assert make_frame(flat_cards, GCALLAMP=lamp).tags == LAMP_ON
    assert make_frame(flat_cards, GCALLAMP=lamp, GCALSHUT="CLOSED").tags == LAMP_OFF


def test_a_flat_without_lamp_behind_the_shutter_is_lamp_off(
    make_frame: MakeFrame, flat_cards: dict[str, Any]
) -> None:
    tags = make_frame(flat_cards, GCALLAMP="No Value", GCALSHUT="CLOSED").tags
    assert {"FLAT", "LAMPOFF", "GCAL_IR_OFF"} <= tags


@pytest.mark.parametrize("obstype", ["OBJECT", "DARK"])
def test_only_flats_are_lamp_off(make_frame: MakeFrame, obstype: str) -> None:
    tags = make_frame(OBSTYPE=obstype, GCALLAMP="No Value", GCALSHUT="CLOSED").tags
    assert not tags & {"LAMPOFF", "LAMPON", "FLAT", "GCAL_IR_OFF"}


def test_an_arc_that_lists_a_flat_lamp_is_no_flat(make_frame: MakeFrame) -> None:
    tags = make_frame(OBSTYPE="ARC", GCALLAMP="IRhigh", GCALSHUT="CLOSED").tags
    assert "ARC" in tags
    assert not tags & {"FLAT", "GCALFLAT", "LAMPOFF"}


def test_twilights_are_flats(make_frame: MakeFrame) -> None:
    assert make_frame(OBJECT="Twilight").tags == SCIENCE | {"FLAT", "CAL", "TWILIGHT"}


def test_grisms_make_spectra(make_frame: MakeFrame) -> None:
    assert make_frame(FILTER3="Kgrism_G5204").tags == SCIENCE - {"IMAGE"} | {"SPECT", "LS"}


@pytest.mark.parametrize(
    ("cards", "tag"),
    [
        ({}, "SIDEREAL"),
        ({"RATRACK": 1e-12, "DECTRACK": -1e-12}, "SIDEREAL"),
        ({"RATRACK": None, "DECTRACK": None}, "SIDEREAL"),
        ({"RATRACK": "0.0", "DECTRACK": "0."}, "SIDEREAL"),
        ({"RATRACK": 9.3e-05}, "NON_SIDEREAL"),
        ({"DECTRACK": 2.2e-04}, "NON_SIDEREAL"),
        ({"TRKFRAME": "", "FRAME": "APPT", "DECTRACK": 2.2e-04}, "NON_SIDEREAL"),
        ({"TRKFRAME": "AZEL_TOPO", "FRAME": "AZEL_TOPO"}, None),
    ],
)
def test_moving_targets_are_those_that_really_move(
    make_frame: MakeFrame, cards: dict[str, Any], tag: str | None
) -> None:
    assert make_frame(cards).tags & {"SIDEREAL", "NON_SIDEREAL"} == ({tag} if tag else set())


def test_zenith_needs_an_airmass_of_one(make_frame: MakeFrame, dark_cards: dict[str, Any]) -> None:
    assert "AT_ZENITH" not in make_frame(dark_cards, AIRMASS=1.01).tags


@pytest.mark.parametrize("cards", [{"PREPARE": "t"}, {"GEM-TLM": "t"}, {"PROCDARK": "t"}])
def test_touched_data_are_not_raw(make_frame: MakeFrame, cards: dict[str, Any]) -> None:
    ad = make_frame()
    assert "RAW" in ad.tags
    ad.phu.update(cards)
    assert "RAW" not in ad.tags
    assert ("PREPARED" in ad.tags) is ("PREPARE" in cards)
    assert ("PROCESSED" in ad.tags) is ("PROCDARK" in cards)


def test_tags_of_products(
    make_frame: MakeFrame, dark_cards: dict[str, Any], flat_cards: dict[str, Any]
) -> None:
    steps = {"PREPARE": "t", "GEM-TLM": "t"}
    done = {"PREPARED", "PROCESSED"}
    raw = {"RAW", "UNPREPARED"}
    assert make_frame(dark_cards | steps | {"PROCDARK": "t"}).tags == ZENITH - raw | done | {"DARK"}
    flat = make_frame(flat_cards | steps | {"PROCFLAT": "t"}).tags
    assert flat == LAMP_ON - raw - {"LAMPON", "GCAL_IR_ON"} | done
    science = make_frame(steps | {"PROCSCI": "sq"}).tags
    assert science == SCIENCE - raw | done | {"PROCESSED_SCIENCE"}


@pytest.mark.parametrize("cards", [{"BPMASK": "t"}, {"PROCBPM": "t"}, {"OBSTYPE": "BPM"}])
def test_a_mask_is_nothing_but_a_mask(
    make_frame: MakeFrame, flat_cards: dict[str, Any], dark_cards: dict[str, Any], cards: dict[str, Any]
) -> None:
    for made_of in (flat_cards, dark_cards, {"OBSCLASS": "acq"}, {"OBJECT": "Twilight"}):
        tags = make_frame(made_of | cards | {"PREPARE": "t", "PROCFLAT": "t", "GEM-TLM": "t"}).tags
        assert tags == {"BPM", "CAL", "PROCESSED", "PREPARED", "GEMINI", "NORTH", "NIRI"}


@pytest.mark.parametrize(
    ("card", "tags"),
    [
        ({"OBSTYPE": "MASK"}, {"MASK"}),
        ({"OBSMODE": "ifu"}, {"IFU", "SPECT"}),
        ({"PROCFRNG": "t"}, {"FRINGE", "CAL", "PROCESSED"}),
        ({"PROCTELL": True}, {"TELLURIC", "CAL"}),
        ({"EXTRACT": "t"}, {"EXTRACTED"}),
        ({"TRIMOVER": "t", "SUBOVER": "t"}, {"OVERSCAN_TRIMMED", "OVERSCAN_SUBTRACTED"}),
    ],
)
def test_tags_of_less_common_frames(make_frame: MakeFrame, card: dict[str, Any], tags: set[str]) -> None:
    assert tags <= make_frame(card).tags


# ---- the right class


@pytest.mark.parametrize(
    ("cards", "cls"),
    [
        ({"INSTRUME": "NIRI", "TELESCOP": "Gemini-North"}, AstroDataNiri),
        ({"INSTRUME": "niri", "OBSERVAT": "gemini-north"}, AstroDataNiri),
        ({"INSTRUME": "NIRI"}, AstroDataNiri),
        ({"INSTRUME": "NIRI", "TELESCOP": "Keck", "OBSERVAT": "Keck"}, astrodata.AstroData),
        ({"INSTRUME": "GNIRS", "TELESCOP": "Gemini-South"}, AstroDataGemini),
        ({"INSTRUME": "WFC3"}, astrodata.AstroData),
    ],
)
def test_the_class_is_chosen_by_instrument_and_telescope(cards: dict[str, Any], cls: type) -> None:
    assert type(astrodata.create(cards)) is cls


# ---- descriptors


@pytest.mark.parametrize(
    ("name", "card", "value", "answer"),
    [
        ("airmass", "AIRMASS", "1.064", 1.064),
        ("airmass", "AIRMASS", 0.5, None),
        ("airmass", "AIRMASS", " ", None),
        ("ao_seeing", "AOSEEING", 0.6214, 0.6214),
        ("azimuth", "AZIMUTH", 178.47, 178.47),
        ("elevation", "ELEVATIO", "69.9", 69.9),
        ("cass_rotator_pa", "CRPA", -144.4, -144.4),
        ("cass_rotator_pa", "CRPA", 400.0, None),
        ("coadds", "COADDS", "5", 5),
        ("coadds", "COADDS", 0, 1),
        ("coadds", "COADDS", None, 1),
        ("data_label", "DATALAB", "GN-1-2-003", "GN-1-2-003"),
        ("calibration_key", "DATALAB", "GN-1-2-003_stack", "GN-1-2-003"),
        ("detector_x_bin", "XBIN", None, 1),
        ("detector_y_bin", "YBIN", 2, 2),
        ("local_time", "LT", "00:29:40.2", time(0, 29, 40, 200000)),
        ("local_time", "LT", "soon", None),
        ("position_angle", "PA", None, None),
        ("object", "OBJECT", "FS 17", "FS 17"),
        ("observation_class", "OBSCLASS", None, None),
        ("observation_epoch", "OBSEPOCH", 2015.25, 2015.25),
        ("program_id", "GEMPRGID", "GN-2015B-Q-34", "GN-2015B-Q-34"),
        ("telescope_x_offset", "XOFFSET", 6.32124, 6.32124),
        ("telescope_y_offset", "YOFFSET", None, None),
        ("raw_iq", "RAWIQ", "70-percentile", 70),
        ("raw_cc", "RAWCC", "Any", 100),
        ("raw_bg", "RAWBG", "UNKNOWN", None),
        ("raw_wv", "RAWWV", "80-percentile", 80),
        ("requested_iq", "REQIQ", "20-percentile", 20),
        ("requested_cc", "REQCC", "", None),
        ("requested_bg", "REQBG", "Any", 100),
        ("requested_wv", "REQWV", "Any", 100),
        ("is_ao", "AOFOLD", "IN", True),
        ("is_ao", "AOFOLD", "park-pos.", False),
        ("is_ao", "AOFOLD", None, False),
        ("camera", "CAMERA", "No Value", None),
        ("focal_plane_mask", "FPMASK", "f6-cam_G5208", "f6-cam_G5208"),
    ],
)
def test_plain_descriptors(make_frame: MakeFrame, name: str, card: str, value: Any, answer: Any) -> None:
    found = getattr(make_frame({card: value}), name)()
    assert found == answer
    assert type(found) is type(answer)


@pytest.mark.parametrize("name", ["detector_name", "central_wavelength", "nominal_atmospheric_extinction"])
def test_what_niri_does_not_know_is_none(make_frame: MakeFrame, name: str) -> None:
    assert getattr(make_frame(), name)() is None


@pytest.mark.parametrize("name", ["amp_read_area", "array_name", "overscan_section"])
def test_what_niri_does_not_have_is_a_list_of_none(make_frame: MakeFrame, name: str) -> None:
    ad = make_frame(extensions=2)
    assert getattr(ad, name)() == [None, None]
    assert getattr(ad[1], name)() is None


def test_seeing_follows_from_the_fried_parameter(make_frame: MakeFrame) -> None:
    assert make_frame(RZEROVAL=16.4).ao_seeing() == pytest.approx(0.6163, abs=1e-4)
    assert make_frame(RZEROVAL=0.0).ao_seeing() is None


def test_component_identifiers_go_when_asked(make_frame: MakeFrame) -> None:
    ad = make_frame()
    assert ad.focal_plane_mask(pretty=True) == ad.focal_plane_mask(stripID=True) == "f6-cam"
    assert ad.binning() == "1x1"
    assert ad.is_coadds_summed() is True


@pytest.mark.parametrize(
    ("required", "gemini", "state"),
    [
        ("YES", "USABLE", "Pass"),
        ("NO", "USABLE", "Usable"),
        ("NO", "BAD", "Fail"),
        ("YES", "CHECK", "CHECK"),
        ("CHECK", "USABLE", "CHECK"),
        ("UNKNOWN", "USABLE", "Undefined"),
        ("YES", None, "Undefined"),
        ("ODD", "USABLE", "ODD:USABLE"),
    ],
)
def test_quality_is_one_word(make_frame: MakeFrame, required: str, gemini: str | None, state: str) -> None:
    assert make_frame(RAWPIREQ=required, RAWGEMQA=gemini).qa_state() == state


@pytest.mark.parametrize(
    ("lamp", "shutter", "answer"),
    [
        ("IRhigh", "OPEN", "IRhigh"),
        ("IRhigh", "CLOSED", "Off"),
        ("IRlow", "CLOSED", "Off"),
        ("QH", "OPEN", "QH"),
        ("QH", "CLOSED", "Off"),
        ("Ar", "CLOSED", "Ar"),
        ("No Value", "OPEN", "Off"),
        ("", "CLOSED", "Off"),
        (None, "OPEN", None),
        ("IRhigh", None, None),
    ],
)
def test_a_lamp_behind_the_shutter_is_off(
    make_frame: MakeFrame, lamp: str | None, shutter: str | None, answer: str | None
) -> None:
    assert make_frame(GCALLAMP=lamp, GCALSHUT=shutter).gcal_lamp() == answer


@pytest.mark.parametrize(
    ("exposure", "coadds", "raw", "prepared", "each"),
    [
        (15.001, 3, 45.003, 15.001, 15.001),
        (1.001, 30, 30.03, 1.001, 1.001),
        (0.301, 50, 15.05, 0.301, 0.301),
        ("2.001", 5, 10.005, 2.001, 2.001),
        (-1.0, 1, None, None, None),
        (None, 1, None, None, None),
    ],
)
def test_exposure_times_are_total_before_and_after_preparation(
    make_frame: MakeFrame, exposure: Any, coadds: int, raw: Any, prepared: Any, each: Any
) -> None:
    ad = make_frame(EXPTIME=exposure, COADDS=coadds)
    assert ad.exposure_time() == raw
    assert ad.exposure_time_per_coadd() == each
    if raw is None:
        return
    ad.phu["EXPTIME"], ad.phu["PREPARE"] = ad.exposure_time(), "t"
    assert ad.exposure_time() == raw
    assert ad.exposure_time_per_coadd() == pytest.approx(each)


@pytest.mark.parametrize(
    ("bunit", "answer"), [(None, True), ("ADU", True), ("adu", True), ("electron", False)]
)
def test_units(make_frame: MakeFrame, bunit: str | None, answer: bool) -> None:
    assert make_frame(ext={"BUNIT": bunit}).is_in_adu() is answer


def test_mixed_units_are_a_data_error(make_frame: MakeFrame) -> None:
    ad = make_frame(extensions=2)
    ad[0].hdr["BUNIT"] = "electron"
    assert ad[0].is_in_adu() is False
    with pytest.raises(DataError, match="different units"):
        ad.is_in_adu()


def test_the_start_of_the_observation(make_frame: MakeFrame) -> None:
    ad = make_frame()
    assert ad.ut_datetime() == datetime(2015, 4, 4, 11, 14, 20, 100000)
    assert ad.ut_datetime(dateonly=True) == ad.ut_date() == date(2015, 4, 4)
    assert ad.ut_datetime(timeonly=True) == ad.ut_time() == time(11, 14, 20, 100000)


def test_the_start_from_the_spelling_of_niri(make_frame: MakeFrame) -> None:
    ad = make_frame({"DATE-OBS": None, "UT": None}, MJD_OBS=57116.5)
    assert ad.ut_datetime() == datetime(2015, 4, 4, 12)
    assert ad.ut_date() == date(2015, 4, 4)


def test_the_start_guessed_from_the_file_name(make_frame: MakeFrame) -> None:
    ad = make_frame({"DATE-OBS": None})
    ad.filename = "N20160203S0001.fits"
    assert ad.ut_datetime() == datetime(2016, 2, 3, 11, 14, 20, 100000)
    assert ad.ut_datetime(strict=True) is None
    assert make_frame({"DATE-OBS": None}).ut_time() == time(11, 14, 20, 100000)


@pytest.mark.parametrize(
    ("states", "answer"),
    [
        ({"AOWFS_ST": "guiding"}, "AOWFS"),
        ({"PWFS2_ST": "guiding", "OIWFS_ST": "guiding", "PWFS1_ST": "frozen"}, "OIWFS&PWFS2"),
        ({"PWFS2_ST": "parked"}, None),
        ({}, None),
    ],
)
def test_guiding_sensors(make_frame: MakeFrame, states: dict[str, Any], answer: str | None) -> None:
    assert make_frame(states).wavefront_sensor() == answer


@pytest.mark.parametrize(
    ("units", "value"),
    [
        (None, 2.15e-06),
        ("meters", 2.15e-06),
        ("micrometers", 2.15),
        ("nanometers", 2150.0),
        ("angstroms", 21500.0),
    ],
)
def test_wavelengths_carry_no_conversion_noise(
    make_frame: MakeFrame, units: str | None, value: float
) -> None:
    assert make_frame(FILTER2="Kshort_G0205").effective_wavelength(units) == value


def test_an_unknown_unit_is_refused(make_frame: MakeFrame) -> None:
    with pytest.raises(ParameterError, match="micrometers"):
        make_frame().effective_wavelength(output_units="furlongs")


def test_darks_have_no_wavelength(make_frame: MakeFrame, dark_cards: dict[str, Any]) -> None:
    ad = make_frame(dark_cards, FILTER2="K_G0204")
    assert ad.effective_wavelength() is None
    assert ad.wavelength_band() is None


# ---- pointing


def test_targets_move_with_proper_motion(make_frame: MakeFrame) -> None:
    cards = {"RA": 10.0, "DEC": 20.0, "PMRA": 0.01, "PMDEC": -0.1, "EPOCH": 2000.0, "DATE-OBS": "2016-01-01"}
    ad = make_frame(cards, UT="00:00:00")
    assert (ad.target_ra(), ad.target_dec()) == pytest.approx((10.00066667, 19.99955556), abs=1e-8)
    assert (ad.target_ra(pm=False), ad.target_dec(pm=False)) == (10.0, 20.0)
    ad.phu["EPOCH"] = 0.0
    assert ad.target_ra() == pytest.approx(10.00066667, abs=1e-8)


def test_targets_may_include_their_offsets(make_frame: MakeFrame) -> None:
    ad = make_frame(RA=10.0, DEC=60.0, RAOFFSET=3.6, RATRGOFF=0.0, DECOFFSE=1.8, DECTRGOF=1.8)
    assert ad.target_dec(offset=True) == pytest.approx(60.001)
    assert ad.target_ra(offset=True) == pytest.approx(10.002, abs=1e-6)


def test_targets_in_icrs(make_frame: MakeFrame) -> None:
    ad = make_frame({"FRAME": "APPT", "RA": 23.0, "DEC": 2.0, "DATE-OBS": "2016-11-03", "UT": "00:00:00"})
    assert ad.target_ra(icrs=True) == pytest.approx(22.7798149, abs=1e-6)
    assert ad.target_dec(icrs=True) == pytest.approx(1.9136077, abs=1e-6)


def test_the_wcs_is_never_taken_for_an_apparent_place(
    make_frame: MakeFrame, dark_cards: dict[str, Any]
) -> None:
    for cards in ({"RATRACK": 9.3e-05}, {"FRAME": "APPT", "RATRACK": 9.3e-05}, dark_cards):
        ad = make_frame(cards, {"CRVAL1": 324.7796, "CRVAL2": -15.5})
        assert "NON_SIDEREAL" in ad.tags
        assert (ad.ra(), ad.dec()) == (ad.wcs_ra(), ad.wcs_dec()) == (324.7796, -15.5)


@pytest.mark.parametrize(("ra", "dec"), [(57.1254708, 24.3452778), ("03:48:30.113", "+24:20:43.00")])
def test_without_wcs_the_field_is_the_target(make_frame: MakeFrame, ra: Any, dec: Any) -> None:
    ad = make_frame({"RA": ra, "DEC": dec}, {"CTYPE1": None})
    assert ad.wcs_ra() is None
    assert (ad.ra(), ad.dec()) == pytest.approx((57.1254708, 24.3452778), abs=1e-7)


def test_other_gemini_instruments_have_a_pixel_scale_too(make_frame: MakeFrame) -> None:
    ad = make_frame(INSTRUME="NIRI")
    hdus = [fits.ImageHDU(ad[0].data, ad[0].hdr)]
    other = astrodata.create({"INSTRUME": "GNIRS", "TELESCOP": "Gemini-North"}, hdus)
    assert other.pixel_scale() == pytest.approx(0.1165)
    assert astrodata.create({"INSTRUME": "GNIRS", "TELESCOP": "Gemini-North"}).pixel_scale() is None
    assert other.effective_wavelength() is None


# ---- all of them


def test_every_descriptor_answers_for_an_empty_header() -> None:
    bare = astrodata.create({"INSTRUME": "NIRI"})
    one = astrodata.create({"INSTRUME": "NIRI"}, [fits.ImageHDU(np.zeros((4, 4), np.float32))])
    for ad in (bare, one, one[0]):
        for name in ad.descriptors:
            getattr(ad, name)()


def test_unreadable_cards_are_missing_values(make_frame: MakeFrame) -> None:
    ad = make_frame()
    damaged = b"AIRMASS = 1.2 3 4".ljust(80) + b"COADDS  = 'half a quotation".ljust(80)
    broken = fits.Header.fromstring(damaged)
    del ad.phu["AIRMASS"], ad.phu["COADDS"]
    ad.phu.extend(broken.cards)
    assert ad.airmass() is None
    assert ad.coadds() == 1


BROKEN = ["", "No Value", "garbage", -1e30, True]


@pytest.mark.parametrize("value", BROKEN)
def test_every_descriptor_answers_for_broken_values(make_frame: MakeFrame, value: Any) -> None:
    ad = make_frame()
    for keyword in list(ad.phu):
        if keyword not in ("INSTRUME", "TELESCOP", "OBSERVAT"):
            ad.phu[keyword] = value
    for keyword in ("LOWROW", "HIROW", "CRPIX1", "CRVAL2", "CD1_1"):
        ad[0].hdr[keyword] = value
    for name in ad.descriptors:
        getattr(ad, name)()
        getattr(ad[0], name)()


def test_every_descriptor_is_documented_and_listed(make_frame: MakeFrame) -> None:
    names = make_frame().descriptors
    assert {"gain", "read_noise", "saturation_level", "non_linear_level"} <= set(names)
    assert all((getattr(AstroDataNiri, name).__doc__ or "").strip() for name in names)
