from __future__ import annotations

from datetime import date, time
from pathlib import Path

import pytest
from astropy.io import fits

import niripipe
from niripipe.simulate import Effects, raw_frame, write_frame

QUIET = Effects.none()
FLAT_TAGS = "GEMINI NORTH NIRI IMAGE FLAT GCALFLAT CAL RAW UNPREPARED AZEL_TARGET AT_ZENITH NON_SIDEREAL"
EARLY_MISSING = ["OBSCLASS", "AOFOLD", "IAA", "POFFSET", "QOFFSET", "PWFS2_ST", "OIWFS_ST"]


def _open(tmp_path: Path, **options):  # type: ignore[no-untyped-def]
    options = {"size": 256, "effects": QUIET} | options
    return niripipe.astrodata.open(write_frame(raw_frame(**options), tmp_path))


def test_layout_is_that_of_a_raw_frame(tmp_path: Path) -> None:
    path = write_frame(raw_frame(effects=QUIET), tmp_path)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert len(hdus) == 2
        primary, image = hdus[0].header, hdus[1].header
        assert (primary["BITPIX"], primary["NAXIS"], image["BITPIX"]) == (16, 0, -32)
        assert hdus[1].name == ""
        assert image["EXTVER"] == -1
        assert "EXTNAME" not in image
        assert [image[k] for k in ("LOWROW", "LOWCOL", "HIROW", "HICOL")] == [0, 0, 1023, 1023]
        assert 140 < len(primary) < 160
        assert primary.count("FRAME") == 2
        for absent in ("GAIN", "RDNOISE", "BUNIT", "GEM-TLM", "NEXTEND", "GCALLAMP"):
            assert absent not in primary
        for keyword in ("CTYPE1", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD2_2", "MJD_OBS"):
            assert primary[keyword] == image[keyword]
        assert image["FRMNAME"] == "N20160102S0270:0"
    assert path.stat().st_size % 2880 == 0


@pytest.mark.parametrize(("real", "kind"), [("N20151129S0307", "flat_on"), ("N20150404S0872", "dark")])
def test_keywords_types_and_comments_are_those_of_real_frames(shared: Path, real: str, kind: str) -> None:
    ours = raw_frame(kind=kind, effects=QUIET, date=date(2015, 11, 29))  # type: ignore[arg-type]
    for unit, header in ((0, ours.header), (1, ours.extension)):
        theirs = fits.Header.fromtextfile(shared / "headers" / f"{real}.hdu{unit}.hdr")
        # EXTVER and EXTNAME of one sample were edited by later software.
        common = [k for k in header if k in theirs and k != "EXTVER"]
        assert len(common) >= 0.96 * len(header)
        missing = set(theirs) - set(header)
        assert missing <= {"SCIBAND", "EXTNAME"}
        assert {type(header[k]) for k in common if type(header[k]) is not type(theirs[k])} == set()
        assert [k for k in common if header.comments[k][:20] != theirs.comments[k][:20]] == []


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        ("target", "GEMINI NORTH NIRI IMAGE RAW UNPREPARED SIDEREAL"),
        ("sky", "GEMINI NORTH NIRI IMAGE RAW UNPREPARED SIDEREAL"),
        ("std", "GEMINI NORTH NIRI IMAGE RAW UNPREPARED SIDEREAL"),
        ("dark", "GEMINI NORTH NIRI DARK CAL RAW UNPREPARED AZEL_TARGET AT_ZENITH NON_SIDEREAL"),
        (
            "flat_on",
            f"{FLAT_TAGS} GCAL_IR_ON LAMPON",
        ),
        (
            "flat_off",
            f"{FLAT_TAGS} GCAL_IR_OFF LAMPOFF",
        ),
    ],
)
def test_frames_have_the_tags_of_their_kind(tmp_path: Path, kind: str, tags: str) -> None:
    assert set(_open(tmp_path, kind=kind).tags) == set(tags.split())


def test_descriptors_tell_what_was_asked_for(tmp_path: Path) -> None:
    ad = _open(
        tmp_path,
        kind="std",
        exposure=2.001,
        coadds=5,
        p=3.0,
        q=-2.0,
        read_mode="High Background",
        well="Deep",
    )
    assert ad.exposure_time() == pytest.approx(10.005)
    assert ad.coadds() == 5
    assert ad.filter_name(pretty=True) == "H"
    assert ad.read_mode() == "High Background"
    assert ad.well_depth_setting() == "Deep"
    assert ad[0].read_noise() == pytest.approx(70 * 5**0.5)
    assert ad[0].pixel_scale() == pytest.approx(0.1171)
    assert ad.detector_x_offset() == pytest.approx(3.0 / 0.1171, rel=1e-6)
    assert ad.detector_y_offset() == pytest.approx(2.0 / 0.1171, rel=1e-6)
    assert ad.detector_roi_setting() == "Central256"
    assert ad.wavefront_sensor() == "PWFS2"
    assert ad.observation_class() == "partnerCal"
    assert str(ad.ut_datetime()) == "2016-01-02 11:36:12.300000"


def test_skies_are_not_guided(tmp_path: Path) -> None:
    assert _open(tmp_path, kind="sky").wavefront_sensor() is None
    assert _open(tmp_path, kind="target").wavefront_sensor() == "PWFS2"


def test_old_frames_lack_what_came_later() -> None:
    old = raw_frame(size=256, date=date(2003, 3, 25), effects=QUIET)
    assert [k for k in EARLY_MISSING if k in old.header] == []
    assert old.header["TRKFRAME"].strip() == ""
    assert old.header["FILTER3"] == "pupil38_G5207"
    assert old.extension["BITPIX"] == 32
    assert 125 < len(old.header) < 145
    assert "BEAMSPLT" not in raw_frame(size=256, date=date(2001, 6, 1), effects=QUIET).header


def test_reference_pixel_of_a_subarray_is_on_the_full_frame_only_in_early_headers() -> None:
    early = raw_frame(size=256, date=date(2005, 1, 31), effects=QUIET).header
    later = raw_frame(size=256, date=date(2005, 2, 1), effects=QUIET).header
    assert early["CRPIX1"] - later["CRPIX1"] == 384
    assert early["CRPIX2"] - later["CRPIX2"] == 384
    assert 0 < later["CRPIX1"] < 256


def test_times_and_sky_agree_with_each_other() -> None:
    header = raw_frame(size=256, effects=QUIET, ut=time(11, 40), exposure=20.002).header
    assert header["UT"] == header["TIME-OBS"] == "11:40:00.0"
    assert header["UTEND"] == "11:40:21.5"
    assert header["LT"] == "01:39:59.0"
    assert header["MJD_OBS"] == pytest.approx(57389.4861111, abs=1e-7)
    assert header["OBSEPOCH"] == pytest.approx(2016.00406, abs=1e-4)
    hours, minutes, seconds = header["ST"].split(":")
    # astropy.time: Time("2016-01-02T11:40:00").sidereal_time("mean", longitude="-155.469d")
    assert int(hours) + int(minutes) / 60 + float(seconds) / 3600 == pytest.approx(8.0724743, abs=1e-4)
    assert 1.5 < header["AIRMASS"] < 1.8
    assert header["AMSTART"] >= header["AMEND"]


@pytest.mark.parametrize(
    ("port", "ao", "mirrored"), [(1, False, True), (3, False, False), (5, False, False), (1, True, False)]
)
def test_parity_depends_on_the_port(port: int, ao: bool, mirrored: bool) -> None:
    header = raw_frame(size=256, port=port, ao=ao, effects=QUIET).header
    determinant = header["CD1_1"] * header["CD2_2"] - header["CD1_2"] * header["CD2_1"]
    assert (determinant > 0) is mirrored
