"""A private PostgreSQL of Debian's package: one a session, without TCP, a database a test."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_OWNER: Final = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; None where the package is not installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[-3])
    )
    return found[-1].parent if found else None


class Server:
    """
    A server with its socket and data in a folder of its own.

    In /var/tmp, since its user must be able to enter it, and a socket's path has 107 bytes.
    """

    def __enter__(self) -> Self:
        found = programs()
        assert found is not None, "PostgreSQL is not installed"
        self._programs = found
        with ExitStack() as undo:
            self.folder = Path(tempfile.mkdtemp(prefix="qmpsnap-pg-", dir="/var/tmp"))
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if os.geteuid() == 0:
                owner = pwd.getpwnam(_OWNER)
                os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            data = str(self.folder / "data")
            self._run("initdb", "-D", data, "-U", _OWNER, "-A", "trust", "--no-sync")
            options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=200"
            self._run(
                "pg_ctl", "-D", data, "-w", "-t", "300", "-l", f"{self.folder}/log",
                "-o", options, "start",
            )  # fmt: skip
            undo.callback(self._run, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def database(self) -> str:
        """Make an empty database; its URL."""
        from qmpsnap.ledger.store import open_engine  # every tier's conftest imports this module

        name = f"t{uuid.uuid4().hex}"
        engine = open_engine(self._url("postgres"))
        with engine.connect() as connection:
            outside = connection.execution_options(isolation_level="AUTOCOMMIT")
            outside.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+pg8000://{_OWNER}@/{database}?unix_sock={self.folder}/.s.PGSQL.5432"

    def _run(self, program: str, *arguments: str) -> None:
        words = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:  # they refuse to run as root
            words = ["setpriv", f"--reuid={_OWNER}", f"--regid={_OWNER}", "--clear-groups", *words]
        subprocess.run(
            words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
