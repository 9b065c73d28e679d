import pytest

from niripipe.datasets.frames import expand, frame_name
from niripipe.errors import InputError


def test_a_range_stands_for_all_its_frames_with_or_without_leading_digits():
    expected = ["N20160102S0298.fits", "N20160102S0299.fits", "N20160102S0300.fits"]
    assert expand("N20160102S0298-300") == expected
    assert expand("N20160102S0298-0300") == expected


def test_a_single_name_stands_for_itself():
    assert expand("N20160102S0270") == ["N20160102S0270.fits"]
    assert expand("bpm_20010317_niri_niri_11_full_1amp") == ["bpm_20010317_niri_niri_11_full_1amp.fits"]


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(InputError, match="backwards"):
        expand("N20160102S0270-269")


@pytest.mark.parametrize("suffix", ["", ".fits", ".fits.bz2", ".fits.gz"])
def test_the_archive_name_does_not_depend_on_the_compression(suffix):
    assert frame_name(f"N20160102S0270{suffix}") == "N20160102S0270.fits"


@pytest.mark.parametrize("name", ["", "../x.fits", "a/b.fits", ".hidden", "a b", "a\nb.fits", "/x", "a\\b"])
def test_a_name_that_is_no_plain_file_name_is_refused(name):
    with pytest.raises(InputError, match="not the name of a file"):
        frame_name(name)
