"""Keystone itself, as a WSGI application on SQLite, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Self

from tests.openstack.rig.layout import free_port
from tests.rig.waiting import until

PASSWORD: Final = "secret"
_CONF: Final = """\
[DEFAULT]
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.sqlite
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[cache]
enabled = false
"""


def python() -> str:
    """The Python that keystone is installed for; QMPSNAP_KEYSTONE_PYTHON names another than ours."""
    return os.environ.get("QMPSNAP_KEYSTONE_PYTHON", sys.executable)


def is_there() -> bool:
    """Whether keystone is installed."""
    found = subprocess.run([python(), "-c", "import keystone"], capture_output=True, check=False)
    return found.returncode == 0


_MANAGE: Final = "import sys; from keystone.cmd.manage import main; main()"
_SERVE: Final = """
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
port, sys.argv = int(sys.argv[1]), ["keystone"]
from keystone.server.wsgi import initialize_public_application
class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
application = initialize_public_application()
make_server("127.0.0.1", port, application, server_class=Server).serve_forever()
"""


class Keystone:
    """A context in which it listens; its first user, project and role are called `admin`."""

    def __init__(self, folder: Path) -> None:
        """Start nothing yet; everything is kept in the folder, which is empty."""
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For OS_AUTH_URL."""
        return f"http://127.0.0.1:{self._port}/v3"

    def __enter__(self) -> Self:
        for name in ("fernet", "credential"):
            (self._folder / name).mkdir(mode=0o700)
        (self._folder / "keystone.conf").write_text(_CONF.format(folder=self._folder))
        keys = ("--keystone-user", "root", "--keystone-group", "root")
        self._manage("db_sync")
        self._manage("fernet_setup", *keys)
        self._manage("credential_setup", *keys)
        first = ("--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne")
        self._manage("bootstrap", *first, "--bootstrap-public-url", self.url)
        with (self._folder / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [python(), "-Wignore", "-c", _SERVE, str(self._port)],
                env=os.environ | {"OS_KEYSTONE_CONFIG_DIR": str(self._folder)},
                stdout=out,
                stderr=out,
            )
        until(self._answers, "keystone does not answer")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "out").read_text()[-2000:]
        try:
            with urllib.request.urlopen(self.url, timeout=60):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def _manage(self, *words: str) -> None:
        command = [python(), "-Wignore", "-c", _MANAGE]
        configuration = ["--config-file", f"{self._folder}/keystone.conf"]
        done = subprocess.run(
            [*command, *configuration, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
