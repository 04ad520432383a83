"""
libvirtd ends in the middle of a merge and is started again: the merge goes on.

A libvirtd of its own, in a mount namespace of its own, so that no other one is disturbed; and the
command line as a process of its own, because a process that has opened `qemu:///embed` once does
not get to a libvirtd any more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig import images
from tests.rig.jobs import ACTIVE, make_chain
from tests.rig.rig import DISK, MIB, SERIAL
from tests.rig.tiers import missing
from tests.rig.waiting import HANG_S, until

NAME = "restart1"

_SCRIPT = """
set -e
for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /etc/libvirt; do
    mount --bind "$0$folder" "$folder"
done
while [ ! -e "$0/stop" ]; do
    libvirtd -f "$0/libvirtd.conf" -p "$0/pid" &
    echo $! > "$0/libvirtd.pid"
    wait $! || true
done
"""

_QEMU_CONF = """
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
"""


@dataclass
class Daemon:
    """A libvirtd that is started again whenever it ends."""

    root: Path

    @property
    def uri(self) -> str:
        """Leads to it."""
        return f"qemu:///system?socket={self.root}/sock/libvirt-sock"

    def end(self, how: signal.Signals) -> None:
        """End the one that runs now."""
        os.kill(int((self.root / "libvirtd.pid").read_text()), how)

    def virsh(self, *arguments: str) -> bool:
        """Whether it did what it was asked for."""
        return self._virsh(*arguments).returncode == 0

    def _virsh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["virsh", "-c", self.uri, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def qmpsnap(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the tool."""
        command = [sys.executable, "-m", "qmpsnap", "--connect", self.uri, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def is_at_work(self) -> bool:
        """Whether a job has copied something. By virsh: Python may start longer than the job runs."""
        said = self._virsh("blockjob", NAME, DISK, "--raw").stdout
        return bool(re.search(r"^ *cur=[1-9]", said, re.MULTILINE))


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    if os.geteuid() != 0 or not (shutil.which("libvirtd") and shutil.which("virsh")):
        missing("libvirt", "install Debian's libvirt-daemon and libvirt-clients, and run as root")
    # Short: the path of a socket has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="qs-", dir="/tmp"))
    for folder in ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/etc/libvirt"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(f"{root}{folder}").mkdir(parents=True)
    (root / "etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
    (root / "libvirtd.conf").write_text(
        f'unix_sock_dir = "{root}/sock"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n'
        f'log_outputs = "3:file:{root}/log"\n'
    )
    (root / "sock").mkdir()
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", _SCRIPT, str(root)]
    with subprocess.Popen(command) as process:
        found = Daemon(root)
        try:
            until(lambda: found.virsh("list"))
            yield found
        finally:
            (root / "stop").touch()
            found.virsh("destroy", NAME)
            with suppress(OSError):
                found.end(signal.SIGTERM)
            process.wait(HANG_S)
            shutil.rmtree(root, ignore_errors=True)


def _domain(active: Path) -> str:
    return f"""
        <domain type='qemu'>
          <name>{NAME}</name>
          <memory unit='MiB'>32</memory>
          <os><type arch='x86_64' machine='pc'>hvm</type></os>
          <devices>
            <disk type='file' device='disk'>
              <driver name='qemu' type='qcow2'/>
              <source file='{active}'/>
              <target dev='{DISK}' bus='virtio'/>
              <serial>{SERIAL}</serial>
            </disk>
            <controller type='usb' model='none'/>
            <memballoon model='none'/>
          </devices>
        </domain>"""


def test_a_merge_goes_on_over_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    """abbbi/virtnbdbackup#205: libvirtd restarts, and whoever waits for a job waits for ever."""
    make_chain(tmp_path, 8 * MIB)
    content = images.sha256_of(tmp_path / ACTIVE, "qcow2")
    (tmp_path / "domain.xml").write_text(_domain(tmp_path / ACTIVE))
    assert daemon.virsh("create", str(tmp_path / "domain.xml"), "--paused")
    info = {"type": "qcow2", "file_to_merge": None, "merge_target_file": None}
    command = ["volume-snapshot-delete", NAME, SERIAL, "id", json.dumps(info)]
    with daemon.qmpsnap(*command, "--bandwidth", "1") as merge:
        until(daemon.is_at_work)
        daemon.end(signal.SIGKILL)
        until(lambda: daemon.virsh("blockjob", NAME, DISK, "--bandwidth", "1G"))
        out, err = merge.communicate()
    assert merge.returncode == 0, err
    assert "is there again; job vda goes on" in err
    assert json.loads(out)["os-update_snapshot_status"]["file_format"] == {ACTIVE: "qcow2"}
    assert daemon.virsh("destroy", NAME)
    assert images.sha256_of(tmp_path / ACTIVE, "qcow2") == content
