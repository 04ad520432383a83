"""
A private libvirtd that can be restarted while its guests go on.

Run as an ordinary user (root lends it libvirt-qemu), libvirtd keeps everything below its XDG
folders: nothing in /etc or /run is written, and no other libvirtd is in the way.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from qmpsnap.demo.embed import FEATURES_UNASKED
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.virt import find_domain, libvirt_module, open_connection
from qmpsnap.operations.guest import Guest
from tests.rig import capabilities
from tests.rig.disks import qdev
from tests.rig.machine import Machine
from tests.rig.waiting import HANG_S, listens, until

USER: Final = "libvirt-qemu"
"""Made by Debian's packages, and by .ci/setup."""

_QEMU_CONF: Final = 'stdio_handler = "file"\nsecurity_driver = "none"\n'


def which(name: str) -> str | None:
    """Find a program; daemons are in folders that a user's `PATH` may lack."""
    return shutil.which(name, path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/sbin"]))


class Daemon:
    """One libvirtd after another, in one folder."""

    def __init__(self, folder: Path) -> None:
        """Prepare; `start()` starts."""
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._run = folder / "run"
        self._socket = self._run / "libvirt" / "libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self._socket}"
        """How to reach it; with `+unix`, as an embedded driver in this process would answer itself."""
        self.log = folder / "log"
        """What it and its QEMUs print."""
        config = folder / "config" / "libvirt"
        config.mkdir(parents=True)
        (config / "qemu.conf").write_text(_QEMU_CONF + FEATURES_UNASKED)
        self._run.mkdir()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(self._run),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._capabilities = folder.joinpath("cache", "libvirt", "qemu", "cache", "capabilities")
        capabilities.give(self._capabilities)
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            self.give(folder)
            user = pwd.getpwnam(USER)
            ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            self._as_user = ["setpriv", *ids, "--"]

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def log_of(self, guest: str) -> Path:
        """What a guest's QEMU prints."""
        return self.folder / "cache" / "libvirt" / "qemu" / "log" / f"{guest}.log"

    @staticmethod
    def give(folder: Path) -> None:
        """Let the daemon's user own a folder and what is in it."""
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        libvirtd = which("libvirtd")
        assert libvirtd is not None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, libvirtd], env=self._environment, stdout=log, stderr=log
            )
        process = self._process
        until(lambda: listens(self._socket) or process.poll() is not None)
        assert process.poll() is None, self.log.read_text()

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and start it again."""
        self.stop(how)
        self.start()

    def run(self, command: Sequence[str]) -> None:
        """Run a program as the daemon's user, with its folders."""
        subprocess.run(
            [*self._as_user, *command],
            check=True,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it; its guests go on."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(HANG_S)
            self._process = None
            self._socket.unlink(missing_ok=True)
            capabilities.keep(self._capabilities)

    def kill_guests(self) -> None:
        """End what a test that failed has left."""
        for file in (self._run / "libvirt" / "qemu" / "run").glob("*.pid"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@contextmanager
def running() -> Iterator[Daemon]:
    """Run a libvirtd in a folder of its own, with a short name: sockets lie deep in it."""
    with TemporaryDirectory(prefix="ql-", dir="/var/tmp") as folder:
        daemon = Daemon(Path(folder))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            daemon.kill_guests()


class DaemonMachine(Machine):
    """A paused guest of a `Daemon`, with one disk."""

    def __init__(
        self,
        daemon: Daemon,
        name: str,
        volume: Path,
        target: str,
        serial: str,
        format: str = "raw",
        *,
        define: bool = False,
    ) -> None:
        """Start it; `define` keeps its definition. Its disk and folder belong to the daemon's user."""
        self.daemon = daemon
        self.name = name
        share = volume.parent
        super().__init__(
            qdevs={target: qdev(f"ua-{target}", "virtio")},
            output=daemon.log_of(name),
            scratch=share,
            directory=share,
        )
        with closing(open_connection(daemon.uri)) as connection:
            start = libvirt_module().VIR_DOMAIN_START_PAUSED
            text = _DOMAIN.format(**locals())
            if define:
                connection.defineXML(text).createWithFlags(start)
            else:
                connection.createXML(text, start)

    @property
    def running(self) -> bool:
        """See `Machine.running`; as libvirt knows it."""
        with self.domain() as domain:
            return bool(domain.isActive())

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """See `Machine.qmp`; by a connection of its own, as the daemon may have been restarted."""
        with self.domain() as domain:
            return PassthroughMonitor(domain).execute(command, arguments)

    def destroy(self) -> None:
        """End it."""
        with self.domain() as domain:
            domain.destroy()

    @contextmanager
    def host(self) -> Iterator[Guest]:
        """A fresh host."""
        with self.domain() as domain:
            yield LibvirtGuest(domain)

    @contextmanager
    def domain(self) -> Iterator[Any]:
        """Connect; gives the `virDomain`."""
        with closing(open_connection(self.daemon.uri)) as connection:
            yield find_domain(connection, self.name)


_DOMAIN: Final = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}'/>
      <source file='{volume}'/>
      <target dev='{target}' bus='virtio'/>
      <serial>{serial}</serial>
      <alias name='ua-{target}'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
