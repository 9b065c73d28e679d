import json
import sys
from datetime import date

import pytest

from niripipe import datasets
from niripipe.errors import InputError, ParameterError, StorageError

from .server import send

BASE = "/jsonsummary/canonical/notengineering/NotFail/NIRI"
ROW = {
    "name": "N20160102S0270.fits",
    "filename": "N20160102S0270.fits.bz2",
    "data_md5": "0" * 32,
    "data_size": 4213440,
    "instrument": "NIRI",
    "program_id": "GN-2015B-Q-31",
    "object": "SN2014J",
    "ut_datetime": "2016-01-02 12:00:01.5",
    "exposure_time": 20.002,
    "observation_type": "OBJECT",
    "release": "2017-01-02",
    "elevation": 51.2,
    "types": "{'NIRI', 'RAW'}",
}


def listing(*rows):
    return send(json.dumps(rows).encode(), Content_Type="application/json")


def test_a_search_by_program_and_days_asks_the_archive_in_its_terms(archive, options):
    path = f"{BASE}/20160101-20160105/DARK/dayCal/progid=GN-2015B-Q-31/exposure_time=1.000/object=FS%2017*"
    archive.on(path, listing(ROW))
    found = datasets.find(
        program="gn-2015b-q-31",
        date=("2016-01-01", date(2016, 1, 5)),
        observation_type="DARK",
        observation_class="dayCal",
        exposure_time=1,
        object="FS 17*",
        **options,
    )
    assert [file.name for file in found] == ["N20160102S0270.fits"]
    assert found[0].exposure_time == 20.002
    assert found[0].ut_datetime.hour == 12
    assert found[0].release == date(2017, 1, 2)
    assert not found.truncated


@pytest.mark.parametrize("day", ["20160102", "2016-01-02", date(2016, 1, 2)])
def test_a_day_can_be_written_in_several_ways(archive, options, day):
    archive.on(f"{BASE}/20160102", listing(ROW, ROW | {"name": "N20160102S0271.fits"}))
    assert len(datasets.find(date=day, **options)) == 2


def test_frames_the_archive_lists_beyond_the_search_are_left_out(archive, options):
    rows = [ROW, ROW | {"instrument": "GMOS-N"}, ROW | {"program_id": "GN-2015B-Q-32"}]
    archive.on(f"{BASE}/progid=GN-2015B-Q-31", listing(*rows))
    assert len(datasets.find(program="GN-2015B-Q-31", **options)) == 1


def test_a_truncated_result_is_marked_and_shown_as_such(archive, options):
    archive.on(f"{BASE}/object=M82", listing(ROW, ROW | {"results_truncated": True}))
    found = datasets.find(object="M82", **options)
    assert found.truncated
    assert "may hold more" in repr(found)
    assert "may hold more" in found._repr_html_()


def test_nothing_found_is_an_empty_result(archive, options):
    archive.on(f"{BASE}/20160102", listing())
    found = datasets.find(date="2016-01-02", **options)
    assert found == []
    assert repr(found).endswith("0 files")


def test_results_show_as_table_with_missing_values_blank_and_html_escaped(archive, options):
    archive.on(
        f"{BASE}/20160102", listing(ROW | {"object": "<b>", "release": "2999-01-01", "exposure_time": None})
    )
    found = datasets.find(date="2016-01-02", **options)
    assert "N20160102S0270.fits   2016-01-02 12:00:01" in repr(found)
    assert "proprietary" in repr(found)
    assert "&lt;b&gt;" in found._repr_html_()
    assert "None" not in repr(found)


def test_data_are_proprietary_before_their_day_of_release():
    file = datasets.ArchiveFile(name="a.fits", release="2017-01-02")
    assert file.is_proprietary(date(2017, 1, 1))
    assert not file.is_proprietary(date(2017, 1, 2))
    assert not datasets.ArchiveFile(name="a.fits").is_proprietary()


@pytest.mark.parametrize(
    "criteria",
    [
        {},
        {"date": "yesterday"},
        {"date": ("2016-01-05", "2016-01-01")},
        {"program": "GN/../../file"},
        {"program": "X", "instrument": "NIRI/engineering"},
        {"object": "a/b"},
        {"object": " "},
        {"program": "X", "exposure_time": float("nan")},
    ],
)
def test_what_cannot_be_searched_for_is_refused_before_asking(archive, options, criteria):
    with pytest.raises(InputError):
        datasets.find(**criteria, **options)
    assert archive.requests == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<!DOCTYPE html><html>down</html>", "DOCTYPE"),
        (b'{"error": "x"}', "not a list"),
        (b"[1]", "not a list"),
        (b'[{"name": "../../etc/passwd"}]', "cannot be"),
        (b'[{"name": "a.fits", "data_md5": "zz"}]', "data_md5"),
        (b"[" * 100_000, "something else than JSON"),
        (b"\xff\xfe[", "something else than JSON"),
    ],
)
def test_a_nonsensical_answer_is_an_error_that_names_the_address(archive, options, body, problem):
    archive.on(f"{BASE}/20160102", send(body))
    with pytest.raises(StorageError, match=problem) as caught:
        datasets.find(date="2016-01-02", **options)
    assert caught.value.item == f"{archive.url}{BASE}/20160102"


def test_an_answer_that_was_cut_is_asked_for_again(archive, options):
    body = json.dumps([ROW]).encode()
    archive.on(f"{BASE}/20160102", send(body, cut=40), send(body))
    assert len(datasets.find(date="2016-01-02", **options)) == 1


@pytest.mark.parametrize(
    "setting",
    [{"timeout": 0}, {"retries": -1}, {"max_bytes": 0}, {"session": "a;b"}, {"backoff": float("nan")}],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ParameterError):
        datasets.find(date="2016-01-02", base_url="http://127.0.0.1:9", **setting)


@pytest.mark.parametrize("url", ["ftp://x", "file:///etc", "http://", "https://x:port", "http://a b"])
def test_only_http_addresses_are_opened(url):
    with pytest.raises(InputError, match="cannot be used"):
        datasets.find(date="2016-01-02", base_url=url)


def test_without_the_library_for_downloads_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(StorageError, match=r"urllib3, is not installed.*niripipe\[archive\]"):
        datasets.find(date="2016-01-02", base_url="http://127.0.0.1:9")
    assert len(datasets.get("niriimg_tutorial").file_names()) == 55


def test_long_results_are_shown_in_part(archive, options):
    archive.on(f"{BASE}/20160102", listing(*(ROW | {"name": f"{number}.fits"} for number in range(201))))
    assert repr(datasets.find(date="2016-01-02", **options)).endswith("201 files, 1 of them not shown")
