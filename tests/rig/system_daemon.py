"""
A private libvirtd of the system's kind: root's, with guests of its own user, and a socket for a group.

Its folders in /run, /var and /etc are its own, by a mount namespace that goes with it; no other
libvirtd is touched.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from qmpsnap.demo.embed import FEATURES_UNASKED
from qmpsnap.monitor.virt import libvirt_module
from tests.rig import capabilities
from tests.rig.daemon import which
from tests.rig.unprivileged import GROUP
from tests.rig.waiting import HANG_S, until

_OWN: Final = ("/run/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/etc/libvirt")
_SCRIPT: Final = """
set -e
for folder in {folders}; do mkdir -p "$folder"; mount --bind "$0$folder" "$folder"; done
exec "$1" -f "$0/libvirtd.conf" -p "$0/pid"
"""
_QEMU: Final = """
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
"""
_LIBVIRTD: Final = """
unix_sock_dir = "{folder}/sock"
unix_sock_group = "{group}"
unix_sock_rw_perms = "0770"
unix_sock_dir_perms = "0755"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "3:file:{folder}/log"
"""


@contextmanager
def running() -> Iterator[str]:
    """
    Run one; gives its URI. Skips where there are no mount namespaces.

    With `+unix`, as an embedded driver in this process would answer itself.
    """
    libvirtd = which("libvirtd")
    unshare = ["unshare", "--mount", "--propagation", "private"]
    may = subprocess.run([*unshare, "true"], check=False, capture_output=True)
    if os.geteuid() != 0 or may.returncode or libvirtd is None:
        pytest.skip("it needs root, libvirtd, and in a container the right to mount")
    with TemporaryDirectory(prefix="qd-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for own in _OWN:
            Path(f"{folder}{own}").mkdir(parents=True)
        known = Path(f"{folder}/var/cache/libvirt/qemu/capabilities")
        capabilities.give(known)
        (folder / "sock").mkdir()
        Path(f"{folder}/etc/libvirt/qemu.conf").write_text(_QEMU + FEATURES_UNASKED)
        (folder / "libvirtd.conf").write_text(_LIBVIRTD.format(folder=folder, group=GROUP))
        script = _SCRIPT.format(folders=" ".join(_OWN))
        process = subprocess.Popen(
            [*unshare, "sh", "-c", script, name, libvirtd],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        uri = f"qemu+unix:///system?socket={folder}/sock/libvirt-sock"
        try:
            until(lambda: _answers(uri) or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield uri
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(HANG_S)
            capabilities.keep(known)
            for file in Path(f"{folder}/run/libvirt/qemu").glob("*.pid"):
                with suppress(ProcessLookupError, ValueError):
                    os.kill(int(file.read_text()), signal.SIGKILL)


def _answers(uri: str) -> bool:
    libvirt: Any = libvirt_module()
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError:
        return False
    return True
