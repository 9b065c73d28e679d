"""Inputs: lists are expanded, and everything that is wrong with the files is said before a pixel is read."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.errors import InputError, NiripipeError
from niripipe.reduction.inputs import expand, open_inputs

from .. import frames as make


@pytest.fixture
def science(tmp_path: Path) -> list[Path]:
    return make.sequence(tmp_path, [10.0, 11.0, 12.0])


def test_plain_paths_and_frames_pass_unchanged(science):
    ad = astrodata.open(science[0])
    assert expand([science[0], str(science[1]), ad]) == [science[0], str(science[1]), ad]
    assert expand(science[0]) == [science[0]]
    assert expand("one.fits") == ["one.fits"]


def test_a_list_file_stands_for_the_files_in_it(science, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("all.lis").write_text(
        f"# the night\n{science[0].name} {science[1].name}  # two\n\n\t{science[2].name}\n"
    )
    assert expand("@all.lis") == [path.name for path in science]


def test_names_in_a_list_are_found_beside_the_list_when_they_are_not_here(science, tmp_path):
    listed = tmp_path / "all.lis"
    listed.write_text("\n".join(path.name for path in science))
    assert [Path(p) for p in expand(f"@{listed}")] == science


def test_a_file_that_is_here_wins_over_one_beside_the_list(tmp_path):
    other = tmp_path / "elsewhere"
    make.write(other / "a.fits")
    make.write(Path("a.fits"))
    (other / "all.lis").write_text("a.fits")
    assert expand(f"@{other / 'all.lis'}") == ["a.fits"]


def test_lists_may_name_lists(tmp_path, science):
    (tmp_path / "inner.lis").write_text(science[1].name)
    (tmp_path / "outer.lis").write_text(f"{science[0].name}\n@inner.lis\n")
    found = [Path(str(p)).name for p in expand([f"@{tmp_path / 'outer.lis'}", science[2]])]
    assert found == [path.name for path in science]


def test_the_same_list_may_be_named_twice_but_not_by_itself(tmp_path):
    (tmp_path / "a.lis").write_text("x.fits")
    (tmp_path / "twice.lis").write_text("@a.lis @a.lis")
    assert expand(f"@{tmp_path / 'twice.lis'}") == ["x.fits", "x.fits"]
    (tmp_path / "b.lis").write_text("@c.lis")
    (tmp_path / "c.lis").write_text("@b.lis")
    with pytest.raises(InputError, match="names itself"):
        expand(f"@{tmp_path / 'b.lis'}")


@pytest.mark.parametrize("content", ["", "# only a comment\n", " \n\t\n"])
def test_an_empty_list_is_refused_by_name(tmp_path, content):
    (tmp_path / "empty.lis").write_text(content)
    with pytest.raises(InputError, match=r"empty.*empty\.lis"):
        expand(f"@{tmp_path / 'empty.lis'}")


def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "binary.lis").write_bytes(b"\xff\xfe\x00")
    for bad in ("missing.lis", "binary.lis", "."):
        with pytest.raises(InputError, match="cannot be read") as caught:
            expand(f"@{tmp_path / bad}")
        assert caught.value.file == str(tmp_path / bad)


def test_nothing_to_reduce_is_refused():
    with pytest.raises(InputError, match="no files"):
        open_inputs([])


def test_inputs_are_opened_in_order_and_no_pixel_is_read(science):
    found = open_inputs(science)
    assert [ad.filename for ad in found.frames] == [path.name for path in science]
    assert found.dropped == []
    assert all(ad.nbytes == 0 for ad in found.frames)


def test_a_frame_in_memory_is_copied(science):
    ad = astrodata.open(science[0])
    copy = open_inputs([ad]).frames[0]
    copy[0].data[:] = -1
    copy.phu["OBJECT"] = "changed"
    assert ad[0].data[0, 0] == 10
    assert ad.phu["OBJECT"] == "target"


def _missing(folder: Path) -> Path:
    return folder / "N20160102S0099.fits"


def _empty(folder: Path) -> Path:
    path = folder / "N20160102S0098.fits"
    path.touch()
    return path


def _truncated(folder: Path) -> Path:
    path = make.write(folder / "N20160102S0097.fits")
    path.write_bytes(path.read_bytes()[:9000])
    return path


def _not_fits(folder: Path) -> Path:
    path = folder / "N20160102S0096.fits"
    path.write_text("<html>not found</html>" * 300)
    return path


def _no_pixels(folder: Path) -> Path:
    path = make.write(folder / "N20160102S0095.fits")
    with fits.open(path) as found:
        fits.HDUList([found[0].copy()]).writeto(path, overwrite=True)
    return path


BROKEN = [_missing, _empty, _truncated, _not_fits]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_unreadable_science_frame_is_left_out_and_named(science, broken, tmp_path):
    bad = broken(tmp_path)
    found = open_inputs([science[0], bad, science[1]])
    assert [ad.filename for ad in found.frames] == [science[0].name, science[1].name]
    (dropped,) = found.dropped
    assert (dropped.name, dropped.step) == (bad.name, "input")
    assert dropped.reason


@pytest.mark.parametrize("broken", BROKEN)
def test_an_unreadable_first_science_frame_is_left_out_as_well(science, broken, tmp_path):
    found = open_inputs([broken(tmp_path), *science])
    assert len(found.frames) == 3
    assert len(found.dropped) == 1


@pytest.mark.parametrize("broken", BROKEN)
def test_an_unreadable_calibration_raises_and_is_named(broken, tmp_path):
    darks = make.sequence(tmp_path, [1.0, 2.0], kind="dark")
    bad = broken(tmp_path)
    with pytest.raises(InputError, match=bad.name):
        open_inputs([*darks, bad])


@pytest.mark.parametrize("broken", BROKEN)
def test_a_single_unreadable_file_raises_and_is_named(broken, tmp_path):
    bad = broken(tmp_path)
    with pytest.raises(InputError) as caught:
        open_inputs([bad])
    assert bad.name in str(caught.value)


def test_a_frame_without_pixels_is_refused_by_name(science, tmp_path):
    bad = _no_pixels(tmp_path)
    with pytest.raises(NiripipeError, match=bad.name):
        open_inputs([bad])
    darks = make.sequence(tmp_path / "d", [1.0, 2.0], kind="dark")
    with pytest.raises(NiripipeError, match=bad.name):
        open_inputs([*darks, bad])


def test_a_file_listed_twice_is_refused_also_under_another_spelling(science, monkeypatch):
    monkeypatch.chdir(science[0].parent)
    with pytest.raises(InputError, match=f"{science[0].name} is listed more than once"):
        open_inputs([science[0], science[1], science[0].name])


def test_a_frame_in_memory_given_twice_is_refused(science):
    ad = astrodata.open(science[0])
    with pytest.raises(InputError, match="more than once"):
        open_inputs([ad, ad])


def test_two_files_of_one_name_from_different_folders_are_refused(tmp_path):
    one = make.write(tmp_path / "a" / make.name(1))
    two = make.write(tmp_path / "b" / make.name(1))
    with pytest.raises(InputError, match=make.name(1)):
        open_inputs([one, two])


def test_a_frame_of_another_instrument_is_refused_with_what_it_is(science, tmp_path):
    foreign = make.write(tmp_path / "N20160102S0050.fits", INSTRUME="GMOS-N")
    with pytest.raises(InputError, match=r"N20160102S0050\.fits is not a NIRI frame \(found: GMOS-N\)"):
        open_inputs([*science, foreign])
    with pytest.raises(InputError, match="not a NIRI frame"):
        open_inputs([foreign])


def test_a_fits_file_without_an_instrument_is_refused(tmp_path):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((8, 8), np.float32))]).writeto(
        tmp_path / "a.fits"
    )
    with pytest.raises(InputError, match=r"a\.fits is not a NIRI frame \(found: no INSTRUME keyword\)"):
        open_inputs([tmp_path / "a.fits"])


def test_a_spectrum_is_refused(science, tmp_path):
    spectrum = make.write(tmp_path / "N20160102S0051.fits", FILTER3="Hgrism_G5203")
    with pytest.raises(InputError, match=r"S0051\.fits is a spectrum.*Hgrism"):
        open_inputs([*science, spectrum])


def test_a_frame_with_two_images_is_refused(tmp_path):
    made = make.hdus()
    made.append(made[1].copy())
    made.writeto(tmp_path / "two.fits")
    with pytest.raises(InputError, match=r"two\.fits has 2 image extensions"):
        open_inputs([tmp_path / "two.fits"])


@pytest.mark.parametrize(
    ("kind", "what", "changed"),
    [
        ("dark", "exposure time", {"EXPTIME": 1.0}),
        ("dark", "number of coadds", {"COADDS": 2}),
        ("dark", "read mode", {"NDAVGS": 1}),
        ("dark", "well depth", {"VDDUC": -3.67, "A_VDDUC": -3.67}),
        ("dark", "subarray", {"shape": (32, 32)}),
        ("lamp_on", "filter", {"FILTER2": "J_G0202"}),
        ("lamp_on", "camera", {"CAMERA": "f32"}),
        ("lamp_on", "exposure time", {"EXPTIME": 10.0}),
        ("lamp_on", "number of coadds", {"COADDS": 2}),
        ("science", "filter", {"FILTER2": "J_G0202"}),
        ("science", "camera", {"CAMERA": "f32"}),
        ("science", "well depth", {"VDDUC": -3.67, "A_VDDUC": -3.67}),
        ("science", "subarray", {"shape": (32, 32)}),
    ],
)
def test_frames_taken_differently_are_refused_with_both_values_and_files(tmp_path, kind, what, changed):
    same = make.sequence(tmp_path, [1.0, 2.0], kind=kind)
    other = make.write(tmp_path / make.name(9), kind=kind, **changed)
    with pytest.raises(InputError) as caught:
        open_inputs([*same, other])
    message = str(caught.value)
    assert f"differ in {what}" in message
    assert same[0].name in message
    assert other.name in message
    assert same[1].name not in message


def test_science_frames_of_different_exposure_times_are_accepted(tmp_path):
    paths = make.sequence(tmp_path, [1.0], EXPTIME=20.0) + make.sequence(
        tmp_path, [1.0], first=2, EXPTIME=10.0
    )
    assert len(open_inputs(paths).frames) == 2


def test_exposure_times_within_a_hundredth_of_a_second_are_the_same(tmp_path):
    times = (20.001, 20.009, 20.003)
    paths = [
        make.write(tmp_path / make.name(i), kind="dark", EXPTIME=t, UT=f"10:00:0{i}.0")
        for i, t in enumerate(times)
    ]
    assert len(open_inputs(paths).frames) == 3


def test_flats_and_short_darks_may_be_given_together(tmp_path):
    paths = make.sequence(tmp_path, [1.0, 2.0], kind="lamp_on")
    paths += make.sequence(tmp_path, [1.0, 2.0], first=5, kind="lamp_off")
    paths += make.sequence(tmp_path, [1.0, 2.0], first=9, kind="dark", EXPTIME=1.0)
    assert len(open_inputs(paths).frames) == 6


@pytest.mark.parametrize("changed", [{"EXPTIME": 10.0}, {"FILTER2": "J_G0202"}])
def test_lamp_on_and_lamp_off_flats_must_match_each_other(tmp_path, changed):
    paths = make.sequence(tmp_path, [1.0, 2.0], kind="lamp_on")
    paths += make.sequence(tmp_path, [1.0, 2.0], first=5, kind="lamp_off", **changed)
    with pytest.raises(InputError, match="lamp-on and lamp-off frames differ"):
        open_inputs(paths)


def test_all_faults_are_reported_together(tmp_path):
    darks = make.sequence(tmp_path, [1.0, 2.0], kind="dark")
    paths = [
        *darks,
        _missing(tmp_path),
        _truncated(tmp_path),
        darks[0],
        make.write(tmp_path / "N20160102S0050.fits", INSTRUME="GMOS-N"),
        make.write(tmp_path / "N20160102S0052.fits", kind="dark", EXPTIME=5.0, COADDS=3),
    ]
    with pytest.raises(InputError) as caught:
        open_inputs(paths)
    message = str(caught.value)
    for part in (
        "6 faults in 7 input files",
        "S0099.fits",
        "S0097.fits",
        "more than once",
        "GMOS-N",
        "exposure time",
        "number of coadds",
    ):
        assert part in message


def test_frames_with_headers_that_say_nothing_do_not_crash_the_checks(tmp_path):
    bare = make.hdus()
    for keyword in ("EXPTIME", "COADDS", "LNRS", "NDAVGS", "CAMERA", "A_VDET", "VDET", "FILTER1", "FILTER2"):
        bare[0].header.remove(keyword)
    for keyword in ("LOWROW", "HIROW", "LOWCOL", "HICOL", "CD1_1", "CTYPE1"):
        bare[1].header.remove(keyword)
    bare.writeto(tmp_path / "bare.fits")
    assert len(open_inputs([tmp_path / "bare.fits"]).frames) == 1


# ---- values of other kinds


def listing(folder, content, name="list.txt"):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n",
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.encode("utf-16"),
        lambda text: "".join(f'"{line}" # dark\n' for line in text.splitlines()).encode(),
    ],
    ids=["plain", "mark", "crlf", "mark and crlf", "cr", "utf-16", "quoted"],
)
def test_lists_of_any_editor_name_files_with_spaces_and_accents(tmp_path, change):
    folder = tmp_path / "a night"
    paths = [str(make.write(folder / name)) for name in ("a b.fits", "\u00e9toile.fits")]
    found = listing(tmp_path, change("\n".join(paths)))
    assert expand(f"@{found}") == expand([Path(f"@{found}")]) == paths


def test_a_list_that_is_no_text_is_named(tmp_path):
    path = listing(tmp_path, b"\x80\x81.fits")
    with pytest.raises(InputError, match=r"list of files cannot be read.*list.txt"):
        expand(f"@{path}")


@pytest.mark.parametrize(
    "given",
    [
        str,
        Path,
        lambda path: os.fsencode(path),
        lambda path: fits.open(path, memmap=False),
        lambda path: path.open("rb"),
        lambda path: astrodata.open(path),
    ],
    ids=["text", "path", "bytes", "hdus", "open file", "data set"],
)
def test_a_frame_may_be_given_in_many_ways(tmp_path, given):
    path = make.write(tmp_path / "frame.fits")
    source = given(path)
    (frame,) = open_inputs([source]).frames
    if hasattr(source, "close"):
        source.close()
    assert (frame.filename, frame.phu["ORIGNAME"]) == ("frame.fits", "frame.fits")
    assert frame[0].data.sum() == 100 * 64 * 64


@pytest.mark.parametrize("source", [5, None, 1.5, [], b"missing.fits", io.StringIO("text"), io.BytesIO(b"x")])
def test_what_is_no_frame_is_an_error_of_niripipe(source):
    with pytest.raises(NiripipeError):
        open_inputs([source])


def test_a_closed_file_is_named(tmp_path):
    stream = make.write(tmp_path / "frame.fits").open("rb")
    stream.close()
    with pytest.raises(NiripipeError, match=r"not an open FITS file.*frame.fits.*closed"):
        open_inputs([stream])
