from __future__ import annotations

import hashlib
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from astropy.table import Table

from niripipe import astrodata
from niripipe.astrodata import add_history, add_provenance, clone_history, clone_provenance, file_md5
from niripipe.errors import InputError, ParameterError


def test_steps_are_recorded_once_with_their_parameters() -> None:
    ad = astrodata.create({})
    start = datetime(2020, 1, 1, tzinfo=UTC)
    for _ in range(2):
        add_history(ad, "stack", {"path": Path("x"), "n": 3}, start, start, status="DONE", reason="because")
    (record,) = ad.history
    assert json.loads(record.args) == {"path": "x", "n": 3}
    assert record.timestamp_start == "2020-01-01T00:00:00.000000"
    assert (record.status, record.reason) == ("DONE", "because")
    assert ad.HISTORY.colnames == [
        "primitive", "args", "timestamp_start", "timestamp_stop", "status", "reason", "software",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ("2020-01-01T00:00:00.000000", "2020-01-01T00:00:05.000000"),
    ],
)
def test_both_orders_of_arguments_are_understood(start: object, stop: object) -> None:
    ad, other = astrodata.create({}), astrodata.create({})
    add_history(ad, start, stop, "prepare", '{"suffix": "_x"}')
    add_history(ad, timestamp_start=start, timestamp_stop=stop, primitive="prepare", args='{"suffix": "_x"}')
    add_history(ad, "prepare", '{"suffix": "_x"}', start, stop)
    (record,) = ad.history
    assert (record.primitive, record.args) == ("prepare", '{"suffix": "_x"}')
    assert (record.timestamp_start[-12:], record.timestamp_stop[-12:]) == ("00:00.000000", "00:05.000000")
    add_provenance(ad, "a.fits", "1", "prepare")
    for _ in range(2):
        clone_history(ad.HISTORY, other)
        clone_provenance(ad.PROVENANCE, other)
    assert (other.history, other.provenance) == (ad.history, ad.provenance)
    for arguments in ((), (start, stop), (start,)):
        with pytest.raises(ParameterError, match=r"add_history.ad, start, stop, primitive, args"):
            add_history(ad, *arguments)


def test_times_are_recorded_in_utc_whatever_their_zone() -> None:
    ad = astrodata.create({})
    hawaii = timezone(-timedelta(hours=10))
    stop = datetime(2020, 1, 1, 21, 30, tzinfo=hawaii)
    add_history(ad, "stack", {}, datetime(2020, 1, 1, 13, 59, tzinfo=hawaii), stop)
    add_provenance(ad, "a.fits", timestamp=stop)
    assert ad.history[0].timestamp_start == "2020-01-01T23:59:00.000000"
    assert ad.history[0].timestamp_stop == "2020-01-02T07:30:00.000000"
    assert ad.provenance[0].timestamp == "2020-01-02T07:30:00.000000"


def test_a_file_is_recorded_once_for_each_step_that_used_it() -> None:
    ad = astrodata.create({})
    for step in ("prepare", "prepare", "stack"):
        add_provenance(ad, "a.fits", "1234", step)
    assert [r.provenance_added_by for r in ad.provenance] == ["prepare", "stack"]
    datetime.fromisoformat(ad.provenance[0].timestamp)


def test_records_are_cloned_without_repetition() -> None:
    a, b = astrodata.create({}), astrodata.create({})
    add_provenance(a, "a.fits", "1", "x", "2020-01-01")
    add_history(a, "x", "{}", "2020-01-01", "2020-01-01")
    for _ in range(2):
        clone_provenance(a, b)
        clone_provenance(a.provenance, b)
        clone_history(a, b)
    assert b.provenance == a.provenance
    assert b.history == a.history
    add_provenance(b, "b.fits")
    assert len(a.provenance) == 1


def test_a_file_without_name_or_checksum_can_be_recorded_and_written(tmp_path: Path) -> None:
    ad = astrodata.create({})
    add_provenance(ad, "a.fits", None, "prepare")
    add_provenance(ad, None, "", "prepare")
    assert pickle.loads(pickle.dumps(ad)).provenance == ad.provenance  # noqa: S301
    ad.write(tmp_path / "x.fits")
    again = astrodata.open(tmp_path / "x.fits")
    assert [(r.filename, r.md5) for r in again.provenance] == [("a.fits", ""), ("", "")]
    del again.PROVENANCE
    assert again.provenance == []


def test_copies_have_records_of_their_own(product_file: Path) -> None:
    ad = astrodata.open(product_file)
    twin = ad.copy()
    add_history(twin, "more")
    assert [r.primitive for r in ad.history] == ["prepare"]
    assert [r.primitive for r in twin.history] == ["prepare", "more"]


def test_tables_can_be_set_and_deleted() -> None:
    ad = astrodata.create({})
    assert ad.tables == set()
    with pytest.raises(AttributeError):
        _ = ad.HISTORY
    ad.HISTORY = Table({"args": ["{}"], "primitive": ["prepare"], "unknown": [1]})
    assert ad.history[0].primitive == "prepare"
    assert ad.tables == {"HISTORY"}
    del ad.HISTORY
    assert ad.history == []
    with pytest.raises(InputError, match="primitive"):
        ad.HISTORY = Table({"x": [1]})


def test_nothing_is_cut_off_and_odd_characters_survive_as_escapes(tmp_path: Path) -> None:
    ad = astrodata.create({})
    add_provenance(ad, "é" + "x" * 500, "", "")
    add_history(ad, "p", {"text": "é" * 200})
    ad.write(tmp_path / "a.fits")
    again = astrodata.open(tmp_path / "a.fits")
    assert again.provenance[0].filename == "\\xe9" + "x" * 500
    assert json.loads(again.history[0].args)["text"] == "é" * 200


def test_the_checksum_of_a_file_is_md5(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    assert file_md5(tmp_path / "a") == hashlib.md5(b"content").hexdigest()
    assert file_md5(tmp_path / "missing") == file_md5(None) == ""
