"""A PostgreSQL server of the tests' own: from Debian's package, on a free port of loopback, as an unprivileged user, gone at the end."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

PASSWORD = "correct horse / battery@staple"
VARIABLE = "FAIRLEAD_TEST_POSTGRES_PASSWORD"
GUARDED = "guarded"
"""The user who needs it; the others need none."""
_schemas = count()


class Server:
    """One server. `start` and `stop` may be called again and again: its data stay."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.data = programs, folder, folder / "data"
        self.user = "postgres" if os.getuid() == 0 else None
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port: int = s.getsockname()[1]
        if self.user:
            shutil.chown(folder, self.user)
        self._run("initdb", "-D", self.data, "-U", "fairlead", "-A", "trust", "-E", "UTF8", "--no-sync")
        rules = self.data / "pg_hba.conf"  # a password costs 10 ms a connection, so one user alone has one
        rules.write_text(f"host all {GUARDED} all scram-sha-256\n{rules.read_text()}")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", self.data, "-w", "-s", "-l", self.folder / "log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-s", "-m", mode, "stop")

    def url(self, schema: str, user: str = "fairlead") -> str:
        at = f"127.0.0.1:{self.port}/postgres"
        return f"postgresql://{user}:${{{VARIABLE}}}@{at}?options=-csearch_path%3D{schema}"

    def run(self, sql: str) -> list[tuple]:
        """Do something as the owner of the server."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": "fairlead", "dbname": "postgres"}
        with psycopg.connect(**where, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: object) -> None:
        home = {"user": self.user, "group": self.user} if self.user else {}
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "USER": self.user or getpass.getuser()}
        # Its output goes to a file: a server that was started would keep a pipe open.
        with (self.folder / f"{program}.out").open("w+") as out:
            done = subprocess.run(
                [str(self.programs / program), *map(str, arguments)],
                **home, env=env, cwd=self.folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            out.seek(0)
            assert done.returncode == 0, out.read()


def found() -> Path | None:
    """Return the folder of the newest server that is installed."""
    on_path = shutil.which("initdb")
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *([Path(on_path).parent] if on_path else [])]
    return max((p for p in places if (p / "initdb").exists()), key=str, default=None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A running server; skips where there is none, or no driver."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = found()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-postgres-"))
    os.environ[VARIABLE] = PASSWORD
    server = Server(programs, folder)
    server.start()
    server.run(f"CREATE ROLE {GUARDED} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[VARIABLE]


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """The URL of an empty store of its own on the server; the password in it is a reference."""
    schema = f"t{next(_schemas)}"
    postgres_server.run(f"CREATE SCHEMA {schema}")
    return postgres_server.url(schema)
