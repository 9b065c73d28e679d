"""Golden values: the columns are those of real frames, as DRAGONS 4.2 answers for them where it is right."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from niripipe.astrodata import Section

from .conftest import MakeFrame

SHALLOW = (-3.491, -2.907)
DEEP = (-3.488, -2.598)


class Golden(NamedTuple):
    file: str
    cards: dict[str, Any]
    filter: str
    wavelength: float | None
    band: str | None
    exposure: float
    mode: str
    well: str
    read_noise: float
    saturation: int
    non_linear: int
    zero_point: float | None
    scale: float
    offsets: tuple[float | None, float | None]


def setup(
    filters: str, camera: str, exposure: float, coadds: int, reads: tuple[int, int], **more: Any
) -> dict[str, Any]:
    wheels = dict(zip(("FILTER1", "FILTER2", "FILTER3"), [*filters.split(), None, None], strict=False))
    made = {"CAMERA": camera, "EXPTIME": exposure, "COADDS": coadds, "LNRS": reads[0], "NDAVGS": reads[1]}
    bias = more.pop("bias", SHALLOW)
    return made | wheels | {"A_VDDUC": bias[0], "A_VDET": bias[1], "VDDUC": bias[0], "VDET": bias[1]} | more


def unturned(scale: float) -> dict[str, float]:
    return {"CD1_1": -scale / 3600.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": scale / 3600.0}


DARK = {"OBSTYPE": "DARK", "FRAME": "AZEL_TOPO"}
FLAT = {"OBSTYPE": "FLAT", "FRAME": "AZEL_TOPO", "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN"}
MEDIUM, LOW, HIGH = (1, 16), (16, 16), (1, 1)
NO_OFFSET = {"POFFSET": None, "QOFFSET": None}
GOLDEN = [
    Golden(
        "N20030325S0098",
        setup("Kprime_G0206 open pupil38_G5207", "f6", 15.001, 3, MEDIUM, **NO_OFFSET),
        "K(prime)", 2.12, "K", 45.003, "Medium Background", "Shallow", 60.6218, 48780, 34146, 23.675237,
        0.11675,
        (None, None),
    ),
    Golden(
        "N20030912S0301",
        setup("Kshort_G0205 open pupil38_G5207", "f6", 1.001, 30, MEDIUM, **NO_OFFSET),
        "K(short)", 2.15, "K", 30.03, "Medium Background", "Shallow", 191.7029, 487804, 341462, 23.395237,
        0.1171,
        (None, None),
    ),
    Golden(
        "N20090918S0386",
        setup(
            "PK50_G0201 CH4long_G0229 Pupil38_G5207", "f32", 20.001, 1, MEDIUM, AOFOLD="IN",
            POFFSET=-0.145909279232, QOFFSET=1.68900741396,
        ),
        "CH4(long)", 1.69, "H", 20.001, "Medium Background", "Shallow", 35.0, 16260, 11382, None, 0.0218611,
        (-6.674, -77.261),
    ),
    Golden(
        "N20120118S0441",
        setup(
            "Kprime_G0206 open Pupil38_G5207", "f32", 2.001, 10, MEDIUM, AOFOLD="IN", INPORT=1,
            POFFSET=-1.66880000489, QOFFSET=1.00700000295,
        ),
        "K(prime)", 2.12, "K", 20.01, "Medium Background", "Shallow", 110.6797, 162601, 113820, 23.595237,
        0.0214487,
        (-77.804, -46.949),
    ),
    Golden(
        "N20141203S0891",
        setup("PK50_G0201 open Jcon(112)_G0235", "f13.9", 2.101, 1, MEDIUM, INPORT=1,
        **FLAT | {"GCALLAMP": "QH"}),
        "Jcon(112)", 1.122, "X", 2.101, "Medium Background", "Shallow", 35.0, 16260, 11382, None,
        0.0497579, (0, 0),
    ),
    Golden(
        "N20150404S0726",
        setup("PK50_G0201 open CH4long_G0229", "f13.9", 20.001, 1, LOW, INPORT=1, bias=(-3.487, -2.894)),
        "CH4(long)", 1.69, "H", 20.001, "Low Background", "Shallow", 12.3, 16260, 11382, None, 0.0497593,
        (0, 0),
    ),
    Golden(
        "N20150404S0872",
        setup("PK50_G0201 open blank", "f6", 10.001, 1, LOW, INPORT=1, **DARK),
        "blank", None, None, 10.001, "Low Background", "Shallow", 12.3, 16260, 11382, None, 0.1163020, (0, 0),
    ),
    Golden(
        "N20150405S0028",
        setup("PK50_G0201 open CH4long_G0229", "f6", 42.001, 1, MEDIUM, INPORT=1,
        **FLAT | {"GCALSHUT": "CLOSED"}),
        "CH4(long)", 1.69, "H", 42.001, "Medium Background", "Shallow", 35.0, 16260, 11382, None,
        0.1162820, (0, 0),
    ),
    Golden(
        "N20151129S0307",
        setup("K_G0204 H2v=1-0S1_G0216 Pupil38_G5207", "f6", 1.701, 1, MEDIUM, INPORT=1, **FLAT),
        "H2 1-0 S1", 2.1239, "K", 1.701, "Medium Background", "Shallow", 35.0, 16260, 11382, None,
        0.1163147, (0, 0),
    ),
    Golden(
        "N20170302S0331",
        setup("open Kcon(209)_G0217 Pupil38_G5207", "f6", 5.001, 1, MEDIUM, INPORT=5, bias=DEEP, **FLAT),
        "Kcon(209)", 2.0975, "K", 5.001, "Medium Background", "Deep", 35.0, 22764, 15934, None, 0.1164934,
        (0, 0),
    ),
    Golden(
        "N20211017S0139",
        setup(
            "Mprime_G0208 open Pupil38_G5207", "f32", 0.301, 1, HIGH, INPORT=1, bias=(-3.489, -2.599),
            POFFSET=-12.3956, QOFFSET=-10.7813,
        ),
        "M(prime)", 4.68, "M", 0.301, "High Background", "Deep", 70.0, 22764, 15934, None, 0.0217338,
        (570.341, 496.062),
    ),
    Golden(
        "N20131215S0178",
        setup("Kprime_G0206", "f13.9", 2.001, 5, MEDIUM, AOFOLD="IN"),
        "K(prime)", 2.12, "K", 10.005, "Medium Background", "Shallow", 78.2624, 81300, 56910, None,
        0.0490347, (0, 0),
    ),
]  # fmt: skip


@pytest.mark.parametrize("golden", GOLDEN, ids=[row.file for row in GOLDEN])
def test_real_settings_give_their_golden_values(make_frame: MakeFrame, golden: Golden) -> None:
    ad = make_frame(golden.cards, unturned(golden.scale))
    assert ad.filter_name(pretty=True) == golden.filter
    assert ad.effective_wavelength(output_units="micrometers") == golden.wavelength
    assert ad.wavelength_band() == golden.band
    assert ad.exposure_time() == golden.exposure
    assert (ad.read_mode(), ad.well_depth_setting()) == (golden.mode, golden.well)
    assert ad[0].read_noise() == pytest.approx(golden.read_noise, abs=5e-5)
    assert ad.saturation_level() == [golden.saturation]
    assert ad.non_linear_level() == [golden.non_linear]
    zero_point = ad[0].nominal_photometric_zeropoint()
    assert zero_point == (None if golden.zero_point is None else pytest.approx(golden.zero_point, abs=1e-6))
    assert ad.pixel_scale() == pytest.approx(golden.scale, rel=1e-6)
    for offset, expected in zip(
        (ad.detector_x_offset(), ad.detector_y_offset()), golden.offsets, strict=True
    ):
        assert offset == (None if expected is None else pytest.approx(expected, rel=1e-5, abs=1e-3))


def test_the_well_known_ao_frame(make_frame: MakeFrame) -> None:
    """N20131215S0178, from the published test table."""
    ad = make_frame(
        GOLDEN[-1].cards,
        {"CRVAL1": 86.5548997, "CRVAL2": -0.1686439, **unturned(0.0490347)},
        OBSID="GN-2013B-Q-77-409",
        RA=86.53408333,
        DEC=-0.16725,
        RAWIQ="70-percentile",
        RAWPIREQ="YES",
        RAWGEMQA="USABLE",
        AOWFS_ST="guiding",
    )
    assert ad.pupil_mask() is None
    assert ad.disperser() is None
    assert (ad.ra(), ad.dec()) == (86.5548997, -0.1686439)
    assert (ad.target_ra(), ad.target_dec()) == (86.53408333, -0.16725)
    assert ad.group_id() == ("GN-2013B-Q-77-409_K(prime)_f13.9_Medium Background_Shallow_['[1:1024,1:1024]']")


def test_group_identifiers_of_science_images_have_no_ending(make_frame: MakeFrame) -> None:
    assert make_frame().group_id().endswith("_['[1:1024,1:1024]']")


@pytest.mark.parametrize(
    ("wheels", "name"),
    [
        (("Kprime_G0206", "HeI_2p2s_G0233"), "HeI(2p2s)"),
        (("Kprime_G0206", "G0233"), "HeI(2p2s)"),
        (("open", "Br-gamma_G0218"), "Br(gamma)"),
        (("PK50_G0201", "Jcon(106)_G0239"), "Jcon(1065)"),
        (("H-band_G0203", "open"), "H"),
        (("open", "new_G0299"), "new"),
    ],
)
def test_filters_are_known_by_their_component(
    make_frame: MakeFrame, wheels: tuple[str, str], name: str
) -> None:
    assert make_frame(FILTER1=wheels[0], FILTER2=wheels[1]).filter_name(pretty=True) == name


@pytest.mark.parametrize(
    "sentinel", [-9999, -9999.0, "-9999", 999, "999.0", "No Value", "INVALID", "invalid"]
)
def test_what_programs_write_for_unknown_is_unknown(make_frame: MakeFrame, sentinel: object) -> None:
    keys = (
        "RA", "DEC", "PA", "POFFSET", "QOFFSET", "XOFFSET", "YOFFSET", "AIRMASS", "AZIMUTH", "ELEVATIO",
        "CRPA", "EXPTIME", "INPORT", "OBSEPOCH", "AOSEEING", "RAWIQ", "RAWCC", "LNRS",
    )  # fmt: skip
    ad = make_frame(dict.fromkeys(keys, sentinel))
    unknown = (
        ad.target_ra(), ad.target_dec(), ad.position_angle(), ad.telescope_x_offset(),
        ad.telescope_y_offset(), ad.airmass(), ad.azimuth(), ad.elevation(), ad.cass_rotator_pa(),
        ad.exposure_time(), ad.port(),
        ad.observation_epoch(), ad.ao_seeing(), ad.raw_iq(), ad.raw_cc(), ad.detector_x_offset(),
    )  # fmt: skip
    assert unknown == (None,) * len(unknown)
    assert ad.read_mode() == "Unknown"


def test_group_identifiers(make_frame: MakeFrame) -> None:
    dark = make_frame(GOLDEN[6].cards)
    assert dark.group_id() == "10.001_1_Low Background_Shallow_['[1:1024,1:1024]']"
    flat = make_frame(GOLDEN[7].cards, OBSID="GN-2015A-C-1-27")
    assert flat.group_id() == (
        "GN-2015A-C-1-27_CH4(long)_f6_Medium Background_Shallow_['[1:1024,1:1024]']_NIRI_IMAGE_FLAT"
    )
    assert make_frame(OBJECT="TWILIGHT").group_id().endswith("_NIRI_IMAGE_TWILIGHT")
    spectrum = make_frame(FILTER2="Ksort", FILTER3="Kgrism_G5204", FPMASK="f6-6pix_G5213")
    assert spectrum.group_id().endswith("_['[1:1024,1:1024]']_Kgrism_G5204_f6-6pix_G5213")


def test_group_identifiers_are_the_same_for_slices_and_free_of_binary_noise(make_frame: MakeFrame) -> None:
    cards = setup("open blank blank", "f6", 1.001, 30, MEDIUM, **DARK)
    ad = make_frame(cards)
    assert ad.group_id() == ad[0].group_id()
    assert ad.group_id().startswith("30.03_30_")
    assert make_frame(cards | {"EXPTIME": 1.0010000001}).group_id() == ad.group_id()


# ---- wheels


@pytest.mark.parametrize(
    ("wheels", "full", "pretty"),
    [
        (("open", "K_G0204", "Pupil38_G5207"), "K_G0204", "K"),
        (("PK50_G0201", "CH4long_G0229", "Pupil38_G5207"), "CH4long_G0229&PK50_G0201", "CH4(long)"),
        (("PK50_G0201", "open", "CH4long_G0229"), "CH4long_G0229&PK50_G0201", "CH4(long)"),
        (("K_G0204", "H2v=1-0s1_G0216", "pupil38_G5207"), "H2v=1-0s1_G0216&K_G0204", "H2 1-0 S1"),
        (("open", "kcon(209)_G0217", "open"), "kcon(209)_G0217", "Kcon(209)"),
        (("open", "H2Oice_G0230", "open"), "H2Oice_G0230", "H2O ice"),
        (("Ksort_G0211", "open", "open"), "Ksort_G0211", "K order sort"),
        (("H_G0203", "open", "pup38_G5207"), "H_G0203", "H"),
        (("INVALID", "H_G0203", "open"), "H_G0203", "H"),
        (("INVALID", "INVALID", "INVALID"), None, None),
        (("blank", "K_G0204", "open"), "blank", "blank"),
        (("blank", "blank", "Pupil38_G5207"), "blank", "blank"),
        (("open", "open", "Pupil38_G5207"), "open", "open"),
        ((None, None, None), None, None),
        (("H_G0203", "J_G0202", "open"), "H_G0203&J_G0202", "H&J"),
        (("open", "K_G0204", "Kgrism_G5204"), "K_G0204", "K"),
    ],
)
def test_filters_by_the_wheels(
    make_frame: MakeFrame, wheels: tuple[str | None, ...], full: str | None, pretty: str | None
) -> None:
    ad = make_frame(dict(zip(("FILTER1", "FILTER2", "FILTER3"), wheels, strict=True)))
    assert ad.filter_name() == full
    assert ad.filter_name(pretty=True) == pretty
    stripped = ad.filter_name(stripID=True)
    assert stripped == (full if full is None else "&".join(name.split("_G")[0] for name in full.split("&")))


@pytest.mark.parametrize(
    ("filter2", "wavelength", "band"),
    [("H2Oice_G0230", 3.05, "L"), ("Ksort_G0211", None, None), ("unknown thing", None, None)],
)
def test_wavelengths_follow_the_pretty_name(
    make_frame: MakeFrame, filter2: str, wavelength: float | None, band: str | None
) -> None:
    ad = make_frame(FILTER2=filter2)
    assert ad.effective_wavelength("micrometers") == wavelength
    assert ad.wavelength_band() == band


@pytest.mark.parametrize(
    ("third", "pupil", "disperser"),
    [
        ("pupil38_G5207", "pupil38_G5207", "MIRROR"),
        ("Pupil38_G5207", "Pupil38_G5207", "MIRROR"),
        ("pup38_G5207", "pup38_G5207", "MIRROR"),
        ("Kgrism_G5204", "MIRROR", "Kgrism_G5204"),
        ("CH4long_G0229", "MIRROR", "MIRROR"),
        (None, None, None),
    ],
)
def test_the_third_wheel(
    make_frame: MakeFrame, third: str | None, pupil: str | None, disperser: str | None
) -> None:
    ad = make_frame(FILTER3=third)
    assert (ad.pupil_mask(), ad.disperser()) == (pupil, disperser)
    assert ad.dispersion_axis() == (1 if third == "Kgrism_G5204" else None)
    assert ad.pupil_mask(pretty=True) == (pupil and pupil.split("_G")[0])


@pytest.mark.parametrize(("filter2", "uses"), [("K_G0204", True), ("Lprime_G0207", False), ("strange", None)])
def test_thermal_filters_have_no_lamp_flats(make_frame: MakeFrame, filter2: str, uses: bool | None) -> None:
    assert make_frame(FILTER2=filter2).uses_lamp_flats() is uses


# ---- detector


@pytest.mark.parametrize(
    ("reads", "mode"),
    [
        ((16, 16), "Low Background"),
        ((1, 16), "Medium Background"),
        ((1, 1), "High Background"),
        (("1", "16"), "Medium Background"),
        ((4, 16), "Unknown"),
        ((None, 16), "Unknown"),
    ],
)
def test_read_modes(make_frame: MakeFrame, reads: tuple[Any, Any], mode: str) -> None:
    assert make_frame(LNRS=reads[0], NDAVGS=reads[1]).read_mode() == mode


def test_an_unknown_read_mode_has_the_read_noise_of_the_medium_one(make_frame: MakeFrame) -> None:
    assert make_frame(LNRS=4, COADDS=4).read_noise() == [70.0]


@pytest.mark.parametrize(
    ("cards", "well", "conflict"),
    [
        ({"A_VDET": -2.907, "A_VDDUC": -3.491}, "Shallow", False),
        ({"A_VDET": " -2.602 ", "A_VDDUC": -3.493, "VDET": -2.912, "VDDUC": -3.493}, "Deep", True),
        ({"A_VDET": "-2.60", "A_VDDUC": "-3.49", "VDET": -2.60}, "Deep", False),
        ({"A_VDET": None}, "Shallow", False),
        ({"A_VDET": "none", "VDET": None}, "Unknown", False),
        ({"A_VDET": -1.0, "VDET": -1.0}, "Unknown", False),
        ({"VDET": -1.0}, "Shallow", True),
    ],
)
def test_wells_and_their_contradictions(
    make_frame: MakeFrame, cards: dict[str, Any], well: str, conflict: bool
) -> None:
    ad = make_frame(cards)
    assert ad.well_depth_setting() == well
    found = ad.voltage_conflict()
    assert (found is not None) is conflict
    if found is not None:
        assert f"({well}) after the exposure" in found


def test_an_unknown_well_has_unknown_limits(make_frame: MakeFrame) -> None:
    ad = make_frame(A_VDET=-1.0)
    assert ad.saturation_level() == ad.non_linear_level() == [None]
    assert ad[0].saturation_level() is None


def test_prepared_data_believe_the_extension_keywords(make_frame: MakeFrame) -> None:
    ad = make_frame(extensions=2)
    for extension in ad:
        extension.hdr.update({"GAIN": 1.0, "RDNOISE": "40.5", "SATLEVEL": 200000.0, "NONLINEA": 140000})
    assert ad.gain() == [12.3, 12.3]
    ad.phu["PREPARE"] = "t"
    assert ad.gain() == [1.0, 1.0]
    assert ad[1].read_noise() == 40.5
    assert ad.saturation_level() == [200000, 200000]
    assert ad.non_linear_level() == [140000, 140000]
    del ad[1].hdr["GAIN"]
    assert ad.gain() == [12.3, 12.3]
    assert ad[0].gain() == 1.0


def test_unprepared_data_in_electrons_have_limits_in_electrons(make_frame: MakeFrame) -> None:
    ad = make_frame(ext={"BUNIT": "electron"}, COADDS=2)
    assert ad.gain() == [1.0]
    assert ad.saturation_level() == [400000]
    assert ad[0].nominal_photometric_zeropoint() == 26.15


@pytest.mark.parametrize("size", [768, 512, 256])
def test_subarrays_are_centred(make_frame: MakeFrame, size: int) -> None:
    ad = make_frame(shape=(size, size))
    low, high = (1024 - size) // 2, (1024 + size) // 2
    assert ad.array_section() == ad.detector_section() == [Section(low, high, low, high)]
    assert ad[0].array_section(pretty=True) == f"[{low + 1}:{high},{low + 1}:{high}]"
    assert ad.data_section() == [(0, size, 0, size)]
    assert ad.data_section(pretty=True) == [f"[1:{size},1:{size}]"]
    assert ad.detector_roi_setting() == f"Central{size}"


def test_a_stack_larger_than_the_chip_still_comes_from_the_full_frame(make_frame: MakeFrame) -> None:
    ad = make_frame(shape=(1100, 1090), ext={"HIROW": 1023, "HICOL": 1023})
    assert ad.detector_section() == [(0, 1024, 0, 1024)]
    assert ad.detector_roi_setting() == "Custom"


@pytest.mark.parametrize(
    ("cards", "size", "gamma"),
    [
        ({"LNRS": 16}, 1024, 6.006310407e-07),
        ({}, 256, 5.540988347e-07),
        ({}, 768, None),
        ({"LNRS": 3}, 1024, None),
        ({"A_VDET": -2.61}, 1024, None),
        ({"A_VDET": -2.61, "NDAVGS": 1}, 1024, 2.912125336e-07),
    ],
)
def test_linearity_coefficients_exist_or_are_none(
    make_frame: MakeFrame, cards: dict[str, Any], size: int, gamma: float | None
) -> None:
    ad = make_frame(cards, shape=(size, size))
    (found,) = ad.linearity_coefficients()
    assert (found.gamma if found else None) == gamma
    assert ad[0].linearity_coefficients() is found


@pytest.mark.parametrize(
    ("day", "reads", "divisor"),
    [
        ("2001-10-31", 16, 16),
        ("2001-11-01", 16, 1),
        ("2001-10-31", 1, 1),
        ("31/10/101", 16, 16),
        (None, 16, 1),
    ],
)
def test_read_pairs_were_summed_before_november_2001(
    make_frame: MakeFrame, day: str | None, reads: int, divisor: int
) -> None:
    ad = make_frame({"DATE-OBS": day, "LNRS": reads})
    assert ad.read_pairs_to_divide_by() == divisor
    ad.phu["PREPARE"] = "t"
    assert ad.read_pairs_to_divide_by() == 1


@pytest.mark.parametrize(
    ("day", "size", "shift"),
    [
        ("2005-01-31", (512, 512), (256.0, 256.0)),
        # Rows come first in a shape, x first in a header.
        ("2005-01-31", (256, 768), (128.0, 384.0)),
        ("2005-02-01", (512, 512), (0.0, 0.0)),
        ("2005-01-31", (1024, 1024), (0.0, 0.0)),
    ],
)
def test_reference_pixels_of_subarrays_were_on_the_chip_before_february_2005(
    make_frame: MakeFrame, day: str, size: tuple[int, int], shift: tuple[float, float]
) -> None:
    ad = make_frame({"DATE-OBS": day}, shape=size)
    assert ad.subarray_reference_shift() == ad[0].subarray_reference_shift() == shift


# ---- scale and offsets


def test_a_broken_wcs_gives_way_to_the_primary_copy_and_then_to_the_nominal_scale(
    make_frame: MakeFrame,
) -> None:
    copy = {key: value for key, value in make_frame()[0].hdr.items() if key[:2] in ("CT", "CR", "CD")}
    broken = {"CD1_1": 1.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1.7, "CRVAL1": 0.0, "CRVAL2": 0.0}
    with_copy = make_frame(copy, broken)
    assert with_copy.pixel_scale() == pytest.approx(0.1165)
    assert with_copy.ra() == 247.8910
    without = make_frame(ext=broken)
    assert without.pixel_scale() == 0.1171
    assert without.wcs_ra() is None
    assert without.ra() == 247.8910
    assert make_frame(ext=broken, CAMERA="f32", AOFOLD="IN").pixel_scale() == 0.0214
    assert make_frame(ext=broken, CAMERA="INVALID").pixel_scale() is None


def test_a_scale_of_another_camera_is_not_believed_in_raw_data_but_in_products(make_frame: MakeFrame) -> None:
    ad = make_frame(ext=unturned(0.05))
    assert ad.pixel_scale() == 0.1171
    ad.phu["PREPARE"] = "t"
    assert ad.pixel_scale() == pytest.approx(0.05)


@pytest.mark.parametrize(("port", "fold", "sign"), [(1, "OUT", -1), (3, "OUT", 1), (1, "IN", 1)])
def test_mirroring_reverses_p_and_never_q(make_frame: MakeFrame, port: int, fold: str, sign: int) -> None:
    ad = make_frame(INPORT=port, AOFOLD=fold, POFFSET=1.165, QOFFSET="1.165")
    assert (ad.detector_x_offset(), ad.detector_y_offset()) == pytest.approx((10 * sign, -10))


def test_no_offset_is_a_plain_zero(make_frame: MakeFrame) -> None:
    ad = make_frame(INPORT=1)
    assert str(ad.detector_x_offset()) == str(ad.detector_y_offset()) == "0.0"
