"""One release ready to be used: its folders mounted, its programs in PATH, its libvirtd running."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.matrix.roots import Root
from tests.rig.waiting import HANG_S

_SHARED: Final = ("/dev", "/proc", "/sys", "/tmp", "/var/tmp")
"""At the same place inside and outside, so that a file has one name."""

_PROGRAMS: Final = (
    "qemu-img",
    "qemu-io",
    "qemu-nbd",
    "qemu-storage-daemon",
    "qemu-system-x86_64",
)

_STATE: Final = ("/etc/libvirt", "/run", "/var/cache/libvirt", "/var/lib/libvirt", "/var/log")
"""Where libvirt keeps things; each daemon gets empty ones, gone with it."""

_QEMU_CONF: Final = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
max_files = 16384
"""
"""Nothing is asked of the host that a container might not have; see qmpsnap/demo/embed.py. Deep guests have many files."""

_LIBVIRTD_CONF: Final = """\
unix_sock_dir = "{sockets}"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:{log}"
"""


class DaemonError(Exception):
    """The libvirtd did not come up."""


def mount(root: Root, checkout: Path) -> None:
    """Make this release's root folder see what tests use. Needs a mount namespace of our own."""
    if root.is_host:
        return
    for folder in (*_SHARED, str(checkout)):
        target = root.path / folder.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--rbind", folder, str(target)], check=True)


def write_programs(root: Root, folder: Path) -> None:
    """
    Write a script for each of QEMU's programs, which runs this release's.

    `unshare` without a namespace is a chroot that can keep the working directory: relative names
    mean the same inside.
    """
    if root.is_host:
        return
    folder.mkdir(exist_ok=True)
    for program in _PROGRAMS:
        script = folder / program
        inner = f'--root={shlex.quote(str(root.path))} --wd="$PWD" /usr/bin/{program}'
        script.write_text(f'#!/bin/sh\nexec unshare {inner} "$@"\n')
        script.chmod(0o755)


def environment(programs: Path) -> dict[str, str]:
    """The environment with a release's programs before all others."""
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


@contextmanager
def libvirtd(root: Root) -> Iterator[str]:
    """
    Run a libvirtd of this release, with nothing but its own state.

    Args:
        root: The release; `mount` has been called.

    Yields:
        Its URI; with `-ro` behind it, that of the read-only socket.

    Raises:
        DaemonError: It did not start, or not in time.
    """
    with TemporaryDirectory(prefix="lv-", dir="/var/tmp") as folder:
        log = Path(folder, "log")
        config = _LIBVIRTD_CONF.format(sockets=folder, log=log)
        Path(folder, "libvirtd.conf").write_text(config)
        Path(folder, "qemu.conf").write_text(_QEMU_CONF)
        steps = [f"mount -t tmpfs tmpfs {path}" for path in _STATE]
        steps = [f"mkdir -p {' '.join(_STATE)}", *steps, f"cp {folder}/*.conf /etc/libvirt/"]
        steps += ["mkdir -p /var/log/libvirt/qemu /run/libvirt", "exec /usr/sbin/libvirtd"]
        with Path(folder, "output").open("wb") as output:
            daemon = subprocess.Popen(
                ["unshare", "--mount", *root.command("sh", "-ec", "\n".join(steps))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            _wait(daemon, Path(folder))
            yield f"qemu:///system?socket={folder}/libvirt-sock"
        finally:
            daemon.terminate()
            try:
                daemon.wait(HANG_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _wait(daemon: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + HANG_S
    # The read-only socket is the second one to be made.
    while not (folder / "libvirt-sock-ro").exists():
        if daemon.poll() is not None or time.monotonic() > end:
            said = [
                file.read_text() for file in (folder / "output", folder / "log") if file.exists()
            ]
            raise DaemonError(f"libvirtd did not start: {' '.join(said)}")
        time.sleep(0.02)
