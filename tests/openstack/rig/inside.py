"""
Process 1 of a rig's namespaces, and what is done inside by others.

    python -m tests.openstack.rig.inside init FOLDER
    python -m tests.openstack.rig.inside start|stop FOLDER SERVICE [SIGNAL]
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.openstack.rig.layout import LIBVIRT, Layout, layout_of
from tests.openstack.rig.services import SERVICES, start, stop, wait_for


def _begin(layout: Layout) -> None:
    """Mount, and start everything."""
    folder = layout.path
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for name, path in LIBVIRT.items():
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "--bind", folder / "libvirt" / name, path], check=True)
    # os-brick takes what is mounted there already for the share: no NFS server is needed.
    subprocess.run(["mount", "--bind", layout.share, layout.mount], check=True)
    start(layout, "libvirtd")
    start(layout, "compute")  # it creates its own tables
    manage = [sys.executable, f"{layout.prefix}/bin/cinder-manage"]
    subprocess.run([*manage, "--config-file", folder / "cinder.conf", "db", "sync"], check=True)
    with closing(sqlite3.connect(folder / "cinder.sqlite")) as database, database:
        database.execute("update quota_classes set hard_limit = -1")  # options come too late
    start(layout, "cinder")
    for name in SERVICES:
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
    else:
        start(layout, service)
        wait_for(layout, service)


if __name__ == "__main__":
    main(*sys.argv[1:])
