"""A private PostgreSQL of Debian's package: one a session, without TCP, a database a test."""

from __future__ import annotations

import os
import pwd
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

from tests.rig.private_server import PrivateServer

_OWNER: Final = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where the package is not installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3])
    )
    return found[-1].parent if found else None


class Server(PrivateServer):
    """PostgreSQL's server, as its own user."""

    prefix = "qmpsnap-pg-"
    of_cinder: ClassVar = "psycopg2"
    """The driver that Cinder is installed with."""

    def _prepare(self) -> None:
        found = programs()
        assert found is not None, "PostgreSQL is not installed"
        self._programs = found
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_OWNER)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", _OWNER, "-A", "trust", "--no-sync")

    @contextmanager
    def away(self) -> Iterator[None]:
        """End every connection, and take new ones after the block."""
        self._stop()
        yield
        self._start()

    def _start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
        self._run(
            "pg_ctl", "-D", f"{self.folder}/data", "-w", "-t", "300", "-l", f"{self.folder}/log",
            "-o", options, "start",
        )  # fmt: skip

    def _stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def database(self, driver: str = "pg8000") -> str:
        """Make an empty database; its URL, for this driver (`pg8000`, `psycopg2`)."""
        from qmpsnap.ledger.store import open_engine  # every tier's conftest imports this module

        name = f"t{uuid.uuid4().hex}"
        engine = open_engine(self._url("postgres"))
        with engine.connect() as connection:
            outside = connection.execution_options(isolation_level="AUTOCOMMIT")
            outside.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name, driver)

    def _url(self, database: str, driver: str = "pg8000") -> str:
        socket = {"pg8000": "unix_sock={}/.s.PGSQL.5432", "psycopg2": "host={}"}[driver]
        return f"postgresql+{driver}://{_OWNER}@/{database}?{socket.format(self.folder)}"

    def _run(self, program: str, *arguments: str) -> None:
        words = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:  # they refuse to run as root
            words = ["setpriv", f"--reuid={_OWNER}", f"--regid={_OWNER}", "--clear-groups", *words]
        subprocess.run(
            words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
