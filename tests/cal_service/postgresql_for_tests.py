"""A PostgreSQL server of our own: in a temporary folder, reached by a socket in it, gone afterwards."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PORT = 5432  # names the socket; nothing listens on the network

_SETTINGS = f"""
listen_addresses = ''
port = {PORT}
unix_socket_directories = '{{folder}}'
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
autovacuum = off
"""
_ACCESS = """
local all +with_password scram-sha-256
local all all trust
"""


@dataclass
class Server:
    """A running server with the database ``calibrations`` of the user ``owner``, who needs no password.

    Members of the role ``with_password`` need theirs.
    """

    folder: Path
    _schemas: Iterator[int] = field(default_factory=itertools.count)

    def url(self, user: str = "owner", **query: str) -> str:
        options = "".join(f"&{name}={value}" for name, value in query.items())
        return f"postgresql+psycopg://{user}@/calibrations?host={self.folder}&port={PORT}{options}"

    def new_place(self) -> str:
        """Return the URL of a schema of its own in which there is nothing yet."""
        schema = f"test_{next(self._schemas)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return self.url(options=f"-csearch_path%3D{schema}")

    def execute(self, statement: str, place: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the owner, in a place returned by `new_place` or none."""
        import psycopg

        with psycopg.connect((place or self.url()).replace("+psycopg", ""), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def connections_left(self) -> int:
        """Return how many connections stay open besides the one that asks."""
        query = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        # The process of the server ends a moment after its client has closed the connection.
        deadline = time.monotonic() + 10
        while (count := self.execute(query)[0][0]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return int(count)


def binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl`` of the newest PostgreSQL here, or None."""
    on_path = [Path(found).resolve().parent for name in ("initdb", "pg_ctl") if (found := shutil.which(name))]
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin"), *on_path]
    complete = [f for f in folders if (f / "initdb").is_file() and (f / "pg_ctl").is_file()]
    return max(complete, key=_version, default=None)


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server and stop it; `binaries` must have found one."""
    programs = binaries()
    assert programs is not None
    # Not in pytest's folder: the path of a socket has little room, and the server's user may not look there.
    folder = Path(tempfile.mkdtemp(prefix="niripipe-pg-", dir="/tmp"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        user = _ordinary_user()
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    with _cleaned_up(folder, programs):
        # The C locale: messages in English, and nothing to be installed for it.
        _run(folder, programs / "initdb", *f"-D {data} -U owner -A trust -E UTF8 --locale=C -N".split())
        with (data / "postgresql.conf").open("a") as stream:
            stream.write(_SETTINGS.format(folder=folder))
        (data / "pg_hba.conf").write_text(_ACCESS)
        _run(folder, programs / "pg_ctl", *f"-D {data} -l {folder}/log -w -t 60 start".split())
        server = Server(folder)
        _admin(server, "CREATE DATABASE calibrations")
        _admin(server, "CREATE ROLE with_password")
        yield server


@contextmanager
def _cleaned_up(folder: Path, programs: Path) -> Iterator[None]:
    """Stop the server and remove the folder in the end, also if this process is killed.

    A guard waits for the end of its input, which comes when this process closes it or is no more.
    """
    script = 'cat; cd /; "$1/pg_ctl" -D "$2/data" -m immediate -w stop; rm -rf "$2"'
    guard = subprocess.Popen(
        ["/bin/sh", "-c", script, "guard", str(programs), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the tests by a signal to the group does not end the guard
        **_environment(),
    )
    with guard:
        yield
    assert not folder.exists()


def _admin(server: Server, statement: str) -> None:
    server.execute(statement, server.url().replace("/calibrations?", "/postgres?"))


def _run(folder: Path, program: Path, *arguments: str) -> None:
    # A file and no pipe: the server inherits it, and a pipe would stay open as long as the server runs.
    with (folder / "output").open("w+") as output:
        done = subprocess.run(
            [program, *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
            **_environment(),
        )
        output.seek(0)
        if done.returncode:
            raise RuntimeError(f"{program.name}: {output.read()}")


def _environment() -> dict[str, Any]:
    """Return how programs of PostgreSQL are run: by an ordinary user, as they refuse to be run by root."""
    options: dict[str, Any] = {"env": {"PATH": os.defpath, "LC_ALL": "C"}}
    if os.geteuid() == 0:
        user = _ordinary_user()
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return options


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is no ordinary user to run PostgreSQL as")


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))
