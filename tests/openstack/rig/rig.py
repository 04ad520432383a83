"""One rig from outside: up, down, restart, what it answers, and what it keeps on disk."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Final

from tests.openstack.rig import databases, ready_made, unprivileged
from tests.openstack.rig.layout import TOKEN, Layout, configure, layout_of, prepare
from tests.openstack.rig.pairings import Pairing
from tests.openstack.rig.services import ROOT
from tests.openstack.rig.updates import updates_in
from tests.openstack.rig.waiting import CALM_S, read_until
from tests.rig.waiting import until

_PR_SET_PDEATHSIG: Final = 1
_UNSHARE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_INSIDE: Final = (sys.executable, "-Wignore", "-m", "tests.openstack.rig.inside")


class ApiError(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


def can_run() -> bool:
    """Whether the kernel, or the container, lets this process make namespaces and mount."""
    return (
        os.geteuid() == 0
        and subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    )


class Rig:
    """The services of one rig, by HTTP, and what they keep on disk."""

    since: ClassVar = 0.0
    """Calls of Nova's that began before belong to an earlier test; seconds after 1970."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folder, self.share, self.uri = layout.path, layout.share, layout.uri
        self.mount = Path(layout.mount)
        """The share as the services see it."""
        self._said: list[list[Any]] = []

    def call(self, method: str, url: str, body: object = None, version: str = "3.71") -> Any:
        """
        Send a request.

        Raises:
            ApiError: It was answered with 400 or more.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "X-Auth-Token": TOKEN,
            "Content-Type": "application/json",
            "OpenStack-API-Version": f"volume {version}",
        }
        request = urllib.request.Request(url, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode(errors="replace")[:400]) from None
        return json.loads(text) if text else None

    def volumes(self, method: str, path: str, body: object = None, version: str = "3.71") -> Any:
        """Ask Cinder."""
        return self.call(method, self.layout.cinder + path, body, version)

    def nova(self, method: str, path: str, body: object = None) -> Any:
        """Ask the compute service: see compute.py."""
        return self.call(method, f"{self.layout.compute}/rig/{path}", body)

    def create_volume(self, gib: int = 1, **more: object) -> str:
        """Make a volume; returns its id."""
        answer = self.volumes("POST", "/volumes", {"volume": {"size": gib, **more}})
        volume: str = answer["volume"]["id"]
        got = read_until(
            lambda: self.status("volumes", volume),
            lambda it: it in ("available", "error"),
            longest_s=CALM_S,
        )
        assert got == "available", got
        return volume

    def status(self, kind: str, which: str) -> str | None:
        """Of a volume or snapshot (`volumes`, `snapshots`); None when it is gone."""
        try:
            found: str = self.volumes("GET", f"/{kind}/{which}")[kind[:-1]]["status"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def begin_snapshot(self, volume: str) -> str:
        """Ask for a snapshot; returns its id."""
        body = {"snapshot": {"volume_id": volume, "force": True}}
        snapshot: str = self.volumes("POST", "/snapshots", body, "3.50")["snapshot"]["id"]
        return snapshot

    def snapshot(self, volume: str) -> tuple[str, str | None, float]:
        """Take a snapshot; returns its id, what it has become, and seconds."""
        begun = time.perf_counter()
        snapshot = self.begin_snapshot(volume)
        got = read_until(
            lambda: self.status("snapshots", snapshot),
            lambda it: it != "creating",
            longest_s=CALM_S,
        )
        return snapshot, got, time.perf_counter() - begun

    def delete(self, snapshot: str) -> tuple[str | None, float]:
        """Delete a snapshot; returns what it has become (None: gone), and seconds."""
        begun = time.perf_counter()
        self.volumes("DELETE", f"/snapshots/{snapshot}")
        got = read_until(
            lambda: self.status("snapshots", snapshot),
            lambda it: it != "deleting",
            longest_s=CALM_S,
        )
        return got, time.perf_counter() - begun

    def ended(self, what: str) -> tuple[float, str | None]:
        """Wait until a call of Nova's in this test has ended; returns its seconds and its error."""
        _, seconds, error = self.call_ended(what)
        return seconds, error

    def call_ended(self, what: str) -> tuple[float, float, str | None]:
        """The same, and when it began: seconds after 1970."""

        def said() -> list[list[Any]]:
            self._said += self.nova("GET", "log")
            return [one for one in self._said if one[0] == what and one[3] >= Rig.since]

        found = read_until(said, bool)[0]
        self._said.remove(found)
        _, seconds, error, begun = found
        return begun, seconds, error

    def info(self, volume: str) -> dict[str, str] | None:
        """Cinder's .info file."""
        with suppress(FileNotFoundError):
            found: dict[str, str] = json.loads((self.share / f"volume-{volume}.info").read_text())
            return found
        return None

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read or change Cinder's database; `?` in the query stands for a value."""
        return databases.rows(self.folder, query, *values)

    def metadata(self, volume: str) -> dict[str, str]:
        """The volume's admin metadata."""
        # MySQL takes a bare `key` for its own.
        query = (
            "select one.key, one.value from volume_admin_metadata as one "
            "where one.volume_id = ? and not one.deleted"
        )
        return dict(self.rows(query, volume))

    def progress(self, snapshot: str) -> tuple[str, str]:
        """Status and progress of a snapshot, as they are in the database."""
        ((status, progress),) = self.rows(
            "select status, progress from snapshots where id = ?", snapshot
        )
        return status, progress

    def updates(self, snapshot: str) -> list[tuple[dict[str, Any], int]]:
        """Every status update about a snapshot that has reached Cinder, and the answer's status."""
        return updates_in((self.folder / "log/cinder.log").read_text(errors="replace"), snapshot)

    def processor_s(self, service: str, *, programs: bool = False) -> float:
        """
        Seconds on a processor of `cinder` or `compute` until now.

        Args:
            service: Which.
            programs: Whether those of the programs count that it has started, and that have ended.
        """
        return _spent(self._process(service), programs)

    def _process(self, service: str) -> Path:
        """The process id that a service knows is that of its namespace."""
        pid = (self.folder / f"{service}.pid").read_text()
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                is_ours = f"RIG={self.folder}\0".encode() in (path / "environ").read_bytes()
                if is_ours and re.search(
                    rf"^NSpid:.*\t{pid}$", (path / "status").read_text(), re.M
                ):
                    return path
        raise ProcessLookupError(service)

    def stop(self, service: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one of its services, or `api`; guests go on."""
        self._inside("stop", service, how.name.removeprefix("SIG"))

    def tell_threads(self) -> str:
        """Where each thread of compute is, as it prints it by itself."""
        log = self.folder / "log/compute.out"
        before = log.stat().st_size
        self._inside("tell", "compute", "USR1")
        until(lambda: b"in serve_forever" in log.read_bytes()[before:])  # the main one is the last
        return log.read_bytes()[before:].decode(errors="replace")

    def start(self, service: str) -> None:
        """Start a service again, and wait until it answers."""
        self._inside("start", service)

    def restart(self, service: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End a service and start it again."""
        self.stop(service, how)
        self.start(service)

    @contextmanager
    def configured(self, pairing: Pairing, *services: str) -> Iterator[None]:
        """Run services with another configuration for a while."""
        before = {name: (self.folder / name).read_text() for name in ("nova.conf", "cinder.conf")}
        configure(self.layout, pairing)
        try:
            for service in services:
                self.restart(service)
            yield
        finally:
            for name, text in before.items():
                (self.folder / name).write_text(text)
            for service in services:
                self.restart(service)

    def _inside(self, *words: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self.layout.control))
            with one.makefile("rw") as file:
                print(json.dumps(words), file=file, flush=True)
                said = json.loads(file.readline())
        if said is not None:
            raise RuntimeError(f"{' '.join(words)}: {said}")


def as_user(layout: Layout, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the namespaces of a rig as the user that its compute runs as."""
    pid = (layout.path / "init.pid").read_text()
    enter = ["nsenter", f"--target={pid}", "--mount", "--pid", "--"]
    path = {"PATH": os.pathsep.join([f"{layout.prefix}/bin", os.environ["PATH"]])}
    return subprocess.run(
        [*enter, *unprivileged.as_user(layout.user), *words],
        env=_environment() | path,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def up(folder: Path, pairing: Pairing) -> Rig:
    """
    Start a rig in a folder that is empty or not there.

    Raises:
        RuntimeError: It did not start; with what it printed.
    """
    layout = prepare(folder, pairing)
    ready_made.copy(folder)
    printed = folder / "log/init.out"
    with printed.open("wb") as log:
        process = subprocess.Popen(
            [*_UNSHARE, *_INSIDE, str(folder)],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    while not (folder / "ready").exists():
        if process.poll() is not None:
            raise RuntimeError(f"the rig did not start:\n{printed.read_text()[-4000:]}")
        time.sleep(0.02)
    (children,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (folder / "init.pid").write_text(children)
    process.returncode = 0  # it is ended by `down`; Popen is not to warn of it
    ready_made.keep(folder)
    return Rig(layout)


def _spent(process: Path, programs: bool) -> float:
    """See proc(5), stat: utime, stime, cutime, cstime."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if programs else 13])) / os.sysconf("SC_CLK_TCK")


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def down(folder: Path) -> None:
    """End process 1 of the namespaces; the kernel ends all others, and the mounts with them."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int((folder / "init.pid").read_text())
        while str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(pairing: Pairing) -> Iterator[Rig]:
    """A rig while the block lasts."""
    # The path of a libvirt socket has to stay below 108 bytes: no folder of pytest's.
    folder = Path(mkdtemp(prefix="qmpsnap-rig-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield up(folder, pairing)
    finally:
        down(folder)


def rig_at(folder: Path) -> Rig:
    """A rig that is up."""
    return Rig(layout_of(folder))


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}
