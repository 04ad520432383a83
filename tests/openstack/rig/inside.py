"""
Process 1 of a rig's namespaces, and what is done inside by others.

    python -m tests.openstack.rig.inside init FOLDER
    python -m tests.openstack.rig.inside start|stop|tell FOLDER SERVICE [SIGNAL]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.openstack.rig import unprivileged
from tests.openstack.rig.databases import rows
from tests.openstack.rig.layout import LIBVIRT, OTHER_EXPORT, Layout, layout_of, mount_of
from tests.openstack.rig.services import start, stop, tell, wait_for


def _begin(layout: Layout) -> None:
    """Mount, and start everything."""
    folder = layout.path
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, path in LIBVIRT.items():
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "--bind", folder / "libvirt" / name, path], check=True)
    # os-brick takes what is mounted there already for the share: no NFS server is needed.
    for share, mount in (
        (layout.share, layout.mount),
        (folder / "share2", mount_of(folder, OTHER_EXPORT)),
    ):
        subprocess.run(["mount", "--bind", share, mount], check=True)
    if layout.user:
        unprivileged.mount(folder)
    start(layout, "libvirtd")
    if layout.user:
        wait_for(layout, "libvirtd")  # its socket gets its group some time after it is there
    start(layout, "compute")  # it creates its own tables
    manage = [sys.executable, f"{layout.prefix}/bin/cinder-manage"]
    subprocess.run([*manage, "--config-file", folder / "cinder.conf", "db", "sync"], check=True)
    rows(folder, "update quota_classes set hard_limit = -1")  # options come too late
    running = ("libvirtd", "compute")
    for name in layout.services:
        if name not in running:
            start(layout, name)
    for name in layout.services:
        wait_for(layout, name)
    (folder / "ready").touch()


def _init(layout: Layout) -> None:
    """
    Be process 1, and bury the dead.

    A libvirtd whose dead probes of QEMU are not buried waits 40 s for each.
    """
    starter = os.fork()
    if starter == 0:
        _begin(layout)
        os._exit(0)
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)
            continue
        if pid == starter and status != 0:
            sys.exit(1)


def main(what: str, folder: str, service: str = "", how: str = "TERM") -> None:
    """See above."""
    layout = layout_of(Path(folder))
    if what == "init":
        _init(layout)
    elif what == "stop":
        stop(layout, service, signal.Signals[f"SIG{how}"])
    elif what == "tell":
        tell(layout, service, signal.Signals[f"SIG{how}"])
    else:
        start(layout, service)
        wait_for(layout, service)


if __name__ == "__main__":
    main(*sys.argv[1:])
