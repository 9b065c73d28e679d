import pickle
from datetime import date

import pydantic
import pytest

from niripipe import datasets
from niripipe.errors import DataError, InputError

MINIMAL = """
name = "mine"
title = "Mine"
[[files]]
role = "target"
frames = ["N20160102S0270-272"]
"""


def test_the_tutorial_data_set_has_the_55_frames_of_the_tutorial():
    frames = datasets.get("niriimg_tutorial")
    sizes = {group.role: len(group.frames) for group in frames.files}
    assert sizes == {
        "target": 5, "sky": 5, "standard": 5, "lamp_off": 10, "lamp_on": 10, "dark": 10, "short_dark": 10,
    }  # fmt: skip
    assert len(set(frames.file_names())) == 55
    assert frames.file_names("lamp_off") == [f"N20160102S{number:04d}.fits" for number in range(363, 373)]
    assert frames.file_names("short_dark")[-1] == "N20160103S0472.fits"


def test_the_tutorial_frames_are_those_of_the_development_night(shared):
    folder = shared / "data" / "niriimg_tutorial" / "playdata"
    there = sorted(path.name.removesuffix(".bz2") for path in folder.glob("*.fits.bz2"))
    assert sorted(datasets.get("niriimg_tutorial").file_names()) == there


def test_the_static_mask_says_from_when_it_is_valid():
    group = datasets.get("niri_static_bpm").files[0]
    assert group.valid_from == date(2001, 3, 17)
    assert datasets.bpm_names() == ["bpm_20010317_niri_niri_11_full_1amp.fits"]


def test_an_unknown_data_set_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="niriimg_tutorial") as caught:
        datasets.get("niri_img_tutorial")
    assert "Did you mean 'niriimg_tutorial'" in caught.value.remedy


def test_an_unknown_role_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="lamp_off"):
        datasets.get("niriimg_tutorial").file_names("flat")


def test_data_sets_cannot_be_changed_and_can_cross_process_borders():
    data_set = datasets.get("niriimg_tutorial")
    with pytest.raises(pydantic.ValidationError):
        data_set.name = "other"
    assert pickle.loads(pickle.dumps(data_set)) == data_set  # noqa: S301


def test_a_data_set_shows_its_groups_as_text_and_escaped_html(tmp_path):
    text = repr(datasets.get("niriimg_tutorial"))
    assert "short_dark      10" in text
    assert "N20160102S0270 ... N20160102S0274" in text
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace('"Mine"', '"<script>"'))
    page = datasets.read(path)._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_a_data_set_of_ones_own_is_read_from_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert datasets.read(path).file_names() == [f"N20160102S027{digit}.fits" for digit in range(3)]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("[[files]]", "[[file]]"), "Extra inputs"),
        (('role = "target"', 'role = "targets"'), "files.0.role"),
        (("0270-272", "0270-269"), "backwards"),
        (("N20160102S0270-272", "../secret"), "not the name of a file"),
        (('"N20160102S0270-272"', '"N20160102S0270", "N20160102S0270"'), "listed twice"),
        (('title = "Mine"', 'title = "Mine"\npackage = {name="x.tar", url="file:///etc/passwd"}'), "http"),
        (
            ('title = "Mine"', 'title = "Mine"\npackage = {name="../x.tar", url="http://x/y"}'),
            "plain file name",
        ),
        (
            ('title = "Mine"', 'title = "Mine"\nchecksums = {"N20160102S0270.fits" = "md5:12"}'),
            "cannot be read",
        ),
        (
            ('title = "Mine"', f'title = "Mine"\nchecksums = {{"other.fits" = "md5:{"0" * 32}"}}'),
            "not listed: other.fits",
        ),
        (("name =", "name"), "not TOML"),
    ],
)
def test_a_faulty_description_is_refused_with_the_fault(tmp_path, change, fault):
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(*change, 1))
    with pytest.raises(DataError) as caught:
        datasets.read(path)
    assert fault in str(caught.value)
    assert caught.value.file == str(path)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        datasets.read(tmp_path / "none.toml")
