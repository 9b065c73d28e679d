from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niripipe.cal_service import find_store
from niripipe.cal_service.config import checked_url, connection_options, shown, store_file
from niripipe.errors import InputError


@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql", "postgres", "PostgreSQL"])
def test_the_driver_need_not_be_named(scheme):
    assert checked_url(f"{scheme}://me:x%40y@host:5433/name?sslmode=require") == (
        "postgresql+psycopg://me:x%40y@host:5433/name?sslmode=require"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///name",
        "postgresql://host",
        "postgresql://[::1]:5432/name",
        "postgresql://@/name?host=/tmp/sockets&port=5433",
    ],
)
def test_what_postgresql_has_defaults_for_may_be_left_out(url):
    assert checked_url(url) == url.replace("postgresql:", "postgresql+psycopg:")


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", {}),
        ("host", {"host": "host"}),
        (
            "m%C3%A9:p%40s%2Fs@host:5433/my%20name",
            {"user": "mé", "password": "p@s/s", "host": "host", "port": "5433", "dbname": "my name"},
        ),
        ("me:a?b/c:d#e@host:/", {"user": "me", "password": "a?b/c:d#e", "host": "host"}),
        ("[::1]:5432/name", {"host": "::1", "port": "5432", "dbname": "name"}),
        ("[fe80::1]?sslmode=require", {"host": "fe80::1", "sslmode": "require"}),
        (
            "@/name?host=/tmp/sockets&port=5433&options=-csearch_path%3Dteam",
            {"dbname": "name", "host": "/tmp/sockets", "port": "5433", "options": "-csearch_path=team"},
        ),
        ("/name?host=@abstract", {"host": "@abstract", "dbname": "name"}),
        ("host/name?host=other&user=", {"host": "other", "dbname": "name"}),
    ],
)
def test_urls_are_read_as_options_of_a_connection(rest, expected):
    assert connection_options(f"postgresql+psycopg://{rest}") == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me:secret@host/name", r"of this kind.*found: mysql://;.*postgresql\+psycopg://"),
        ("postgresql+psycopg2://me:secret@host/name", "of this kind"),
        ("sqlite://", "of this kind"),
        ("https://archive.gemini.edu", "of this kind"),
        ("postgresql://me:secret@host:port/name", "cannot be understood"),
        ("postgresql://me:secret@[::1/name", "cannot be understood"),
        ("postgresql://me:sec@ret@host/name", "%40"),
        ("postgresql://me/x:secret@host/name", "%40"),
    ],
)
def test_what_cannot_be_a_store_is_refused_without_showing_the_password(url, message):
    with pytest.raises(InputError, match=message) as caught:
        store_file(url)
    assert "secret" not in str(caught.value)
    assert "ret@" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me@host:5432/x", "postgresql://me@host:5432/x"),
        ("postgresql://host:5432/x", "postgresql://host:5432/x"),
        ("postgresql://me:se@cr?et/x@host/x", "postgresql://me:***@host/x"),
        ("postgresql://host/x?user=me&password=secret&a=1", "postgresql://host/x?user=me&password=***&a=1"),
        (
            "two: postgresql://a:b@c/d, postgresql://e:f@g/h",
            "two: postgresql://a:***@c/d, postgresql://e:***@g/h",
        ),
    ],
)
def test_passwords_are_hidden(text, expected):
    assert shown(text) == expected


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1).map("pass{}word".format))
def test_no_password_is_shown_however_it_is_written(password):
    assert password not in shown(f"postgresql://me:{password}@host/name")
    assert password not in repr(find_store(f"postgresql://me:{password.encode().hex()}@host/name"))


def test_configuration_files_may_name_a_server(tmp_path):
    url = "postgresql://me:s%23cret@host/name"
    for line in (f"databases = {url} get store  # team", f"database_dir = {url}"):
        path = tmp_path / "rsys.cfg"
        path.write_text(f"[calibs]\n{line}\n")
        found = find_store(config_file=path)
        assert found.location == url.replace("://", "+psycopg://")
        assert found.shown == "postgresql+psycopg://me:***@host/name"
        assert "cret" not in repr(found)


@pytest.mark.parametrize(
    "lines",
    [
        "[calibs]\ndatabases = postgresql://me:secret@host/name gett\n",
        "[calibs]\ndatabases = postgresql://me:secret@host/a\n    postgresql://me:secret@host/b\n",
        "[calibs]\npostgresql://me:secret@host/a\n",
        "postgresql://me:secret@host/a\n",
        "[calibs]\ndatabase_dir = mysql://me:secret@host/a\n",
    ],
)
def test_configuration_files_that_cannot_be_used_keep_the_password_to_themselves(lines, tmp_path):
    path = tmp_path / "rsys.cfg"
    path.write_text(lines)
    with pytest.raises(InputError) as caught:
        find_store(config_file=path)
    assert "secret" not in str(caught.value)
