"""A private MariaDB of Debian's package, without TCP, users and system tables: a database a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from tests.rig.private_server import PrivateServer
from tests.rig.waiting import listens, until

_OPTIONS: Final = (
    "--no-defaults",
    "--skip-grant-tables",
    "--skip-networking",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-log-file-size=8M",
)


def program() -> str | None:
    """The server; None where the package is not installed."""
    return shutil.which("mariadbd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


class Server(PrivateServer):
    """MariaDB's server, as the user who runs the tests."""

    prefix = "qmpsnap-my-"
    of_cinder: ClassVar = "pymysql"
    """The driver that Cinder is installed with."""

    def __init__(self, *options: str) -> None:
        self._options = (*_OPTIONS, *options)

    def _prepare(self) -> None:
        (self.folder / "data").mkdir()

    @contextmanager
    def away(self) -> Iterator[None]:
        """End every connection, and take new ones after the block."""
        self._process.terminate()  # killed when it is this young, it finds no data of its own
        self._process.wait()
        yield
        self._start()

    def database(self, driver: str = "pymysql") -> str:
        """Make an empty database; its URL, for this driver."""
        from qmpsnap.ledger.store import open_engine  # every tier's conftest imports this module

        name = f"t{uuid.uuid4().hex}"
        engine = open_engine(self._url("", driver))
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb3")
        engine.dispose()
        return self._url(name, driver)

    def _url(self, database: str, driver: str) -> str:
        return f"mysql+{driver}://root@/{database}?unix_socket={self.folder}/socket"

    def _start(self) -> None:
        found = program()
        assert found is not None, "MariaDB is not installed"
        owner = ["--user=root"] if os.geteuid() == 0 else []
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [found, *self._options, *owner, f"--datadir={self.folder}/data",
                 f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()[-3000:]
        return listens(self.folder / "socket")

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        (self.folder / "socket").unlink(missing_ok=True)
