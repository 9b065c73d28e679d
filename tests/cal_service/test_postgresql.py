from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from niripipe.cal_service.backends import PostgresServer
from niripipe.cal_service.store import Store
from niripipe.cal_service.tables import Connection
from niripipe.errors import StorageError

from .processes_for_tests import run_python
from .records_for_tests import record


@pytest.fixture
def place(postgresql) -> str:
    return postgresql.new_place()


@pytest.fixture
def store(place) -> Store:
    return Store(place)


_numbers = count()


@pytest.fixture
def guest(postgresql, place):
    """Make a user with these privileges in the place, and return the store as this user opens it."""
    schema = place.rpartition("%3D")[2]

    def make(*privileges: str, password: str = "s3cret") -> Store:
        user = f"guest_{next(_numbers)}"
        postgresql.execute(f"CREATE ROLE {user} LOGIN PASSWORD 's3cret' IN ROLE with_password")
        postgresql.execute(f"GRANT USAGE ON SCHEMA {schema} TO {user}")
        for privilege in privileges:
            postgresql.execute(f"GRANT {privilege} TO {user}", place)
        return Store(place.replace("owner@", f"{user}:{password}@"))

    return make


def test_server_that_is_not_there_is_said_to_be_so(tmp_path):
    store = Store(f"postgresql+psycopg://me@/name?host={tmp_path}")
    with pytest.raises(StorageError, match=r"no connection.*Check that it runs") as caught:
        store.add([])
    assert "No such file" in caught.value.found


def test_database_that_does_not_exist_is_named(postgresql):
    with pytest.raises(StorageError, match=r'no connection.*"nowhere" does not exist'):
        Store(postgresql.url().replace("/calibrations?", "/nowhere?")).add([])


def test_unknown_option_in_the_url_is_named(postgresql):
    with pytest.raises(StorageError, match="colour"):
        Store(postgresql.url(colour="red")).add([])


def test_schema_that_does_not_exist_is_a_storage_error(postgresql):
    store = Store(postgresql.url(options="-csearch_path%3Dnowhere"))
    assert store.state() == "absent"
    with pytest.raises(StorageError, match=r"no schema.*search_path"):
        store.add([])


def test_missing_driver_is_named_with_the_remedy(place):
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from niripipe.cal_service import CalibrationService\n"
        "from niripipe.errors import StorageError\n"
        "service = CalibrationService()\n"
        "service.config(db_dir=sys.argv[1])\n"
        "try: service.init()\n"
        "except StorageError as error: print(error)\n"
    )
    said = run_python(code, place)
    assert "psycopg, is not installed" in said
    assert 'pip install "niripipe[cluster]"' in said


def test_two_schemas_are_two_stores(postgresql, store):
    other = Store(postgresql.new_place())
    store.add([record()])
    assert other.state() == "absent"
    other.add([record("/x/b.fits")])
    other.wipe()
    assert [r.path for r in store.records()] == ["/data/a_dark.fits"]


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TABLE niripipe_calibrations (id integer)",
        "CREATE TABLE niripipe_store (id integer)",
        "CREATE TABLE niripipe_store (item text, value text)",
        "CREATE VIEW niripipe_store AS SELECT 1 AS one",
        "CREATE TABLE niripipe_store ()",
    ],
)
def test_foreign_tables_of_our_names_are_refused_and_left_alone(foreign, postgresql, store, place):
    postgresql.execute(foreign, place)
    assert store.state() == "foreign"
    for action in (lambda: store.add([]), store.wipe, store.records, lambda: store.add([record()])):
        with pytest.raises(StorageError, match=r"niripipe_store.*another program.*search_path"):
            action()
    schema = place.rpartition("%3D")[2]
    tables = f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
    assert len(postgresql.execute(tables)) == 1


def test_other_tables_in_the_database_do_not_matter(postgresql, store, place):
    postgresql.execute("CREATE TABLE diskfile (id integer, place point)", place)
    postgresql.execute("INSERT INTO diskfile VALUES (1)", place)
    store.add([])
    store.wipe()
    assert store.state() == "ready"
    assert postgresql.execute("SELECT id FROM diskfile", place) == [(1,)]


def test_wiping_keeps_privileges_and_views_of_others(postgresql, store, place):
    store.add([record()])
    postgresql.execute("CREATE VIEW names AS SELECT name FROM niripipe_calibrations", place)
    store.wipe([record("/x/b.fits")])
    assert postgresql.execute("SELECT name FROM names", place) == [("b.fits",)]


def test_tables_that_cannot_be_replaced_are_left_as_they_are(postgresql, store, place):
    store.add([record()])
    postgresql.execute("CREATE VIEW names AS SELECT name FROM niripipe_calibrations", place)
    postgresql.execute("UPDATE niripipe_store SET value = '0'", place)
    with pytest.raises(StorageError, match="depend"):
        store.wipe()
    assert postgresql.execute("SELECT count(*) FROM niripipe_calibrations", place) == [(1,)]


def test_user_who_may_only_read_reads(store, guest):
    store.add([record()])
    reader = guest("SELECT ON niripipe_store, niripipe_calibrations")
    assert [r.path for r in reader.records()] == ["/data/a_dark.fits"]
    for action in (lambda: reader.add([record("/x/b.fits")]), reader.wipe):
        with pytest.raises(StorageError, match=r"write-protected.*privileges"):
            action()
    with pytest.raises(StorageError, match="privileges"):
        guest().records()


def test_wrong_password_is_refused_and_no_password_shown(store, guest):
    store.add([record()])
    privileges = "SELECT ON niripipe_store, niripipe_calibrations"
    with pytest.raises(StorageError, match=r"no connection.*authentication failed.*\.pgpass") as caught:
        guest(privileges, password="wrong-s3cret").records()
    assert "s3cret" not in f"{caught.value} {caught.value.__cause__}"
    right = guest(privileges)
    assert len(right.records()) == 1
    assert "s3cret" not in f"{right!r} {right.shown}"


def test_read_only_server_says_so(postgresql, store, place):
    store.add([])
    copy = Store(place + "%20-cdefault_transaction_read_only%3Don")
    assert copy.records() == []
    with pytest.raises(StorageError, match=r"write-protected.*not a copy"):
        copy.add([record()])


@pytest.mark.parametrize("level", ["serializable", "repeatable%5C%20read"])
def test_writers_take_turns_whatever_the_servers_usual_isolation(level, place):
    store = Store(f"{place}%20-cdefault_transaction_isolation%3D{level}")
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda n: store.add([record(md5=f"{n:032}")])[0].number, range(12)))
    assert sorted(numbers) == list(range(1, 13))
    assert len(store.records()) == 1


def test_lost_connection_is_a_storage_error_and_the_next_one_works(postgresql, store):
    store.add([])

    def lose() -> None:
        with store._transaction(write=True) as connection:
            ((pid,),) = connection.rows("SELECT pg_backend_pid()")
            postgresql.execute(f"SELECT pg_terminate_backend({pid})")
            while postgresql.execute(f"SELECT pid FROM pg_stat_activity WHERE pid = {pid}"):
                time.sleep(0.01)
            connection.execute("SELECT 1")

    with pytest.raises(StorageError, match="no connection"):
        lose()
    assert len(store.add([record()])) == 1


def test_writer_that_dies_leaves_no_lock_and_no_traces(postgresql, store):
    store.add([])
    server = PostgresServer(store.location)
    driver = server.connect(write=True)
    server.begin(Connection(driver, server.dialect), write=True)
    driver.execute("DELETE FROM niripipe_store")
    driver.close()
    assert len(store.add([record()])) == 1


def test_the_urls_own_options_win(postgresql, place):
    for url, name in ((f"{place}&application_name=team", "team"), (place, "niripipe")):
        with PostgresServer(url).connect(write=False) as connection:
            assert connection.execute("SHOW application_name").fetchone() == (name,)


_MADE_BEFORE = """
CREATE TABLE niripipe_store (item VARCHAR(40) NOT NULL, value VARCHAR(200) NOT NULL, PRIMARY KEY (item));
CREATE TABLE niripipe_calibrations (
    number SERIAL NOT NULL,
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    caltype VARCHAR(40) NOT NULL,
    md5 VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    registered TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (number),
    UNIQUE (path)
);
CREATE INDEX ix_niripipe_calibrations_name ON niripipe_calibrations (name);
CREATE INDEX ix_niripipe_calibrations_caltype ON niripipe_calibrations (caltype);
INSERT INTO niripipe_store VALUES ('version', '1');
"""


def test_tables_are_what_they_always_were(postgresql, store, place):
    """The names and types of columns, constraints, indexes and the sequence, as in tables made before."""

    def description(where: str) -> list[tuple]:
        schema = where.rpartition("%3D")[2]
        columns = (
            "SELECT table_name, ordinal_position, column_name, data_type, character_maximum_length,"
            " is_nullable, column_default FROM information_schema.columns"
            f" WHERE table_schema = '{schema}' ORDER BY 1, 2"
        )
        others = (
            "SELECT relname, relkind FROM pg_class"
            f" WHERE relnamespace = '{schema}'::regnamespace ORDER BY relname"
        )
        return postgresql.execute(columns, where) + postgresql.execute(others, where)

    before = postgresql.new_place()
    postgresql.execute(_MADE_BEFORE, before)
    store.add([])
    assert description(place) == description(before)
    old = Store(before)
    assert old.state() == "ready"
    assert old.add([record(), record("/x/b.fits")]) == old.records()
    (when,) = postgresql.execute("SELECT DISTINCT registered FROM niripipe_calibrations", before)
    assert when == (record().registered,)


def test_nothing_stays_open_after_errors_either(postgresql, store):
    store.add([])
    for _ in range(10):
        with pytest.raises(StorageError):
            store.add([record(md5=None)])
    assert postgresql.connections_left() == 0
