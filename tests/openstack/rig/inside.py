"""
Process 1 of a rig's namespaces, and who starts and stops services in there for those outside.

    python -m tests.openstack.rig.inside FOLDER

A request is a line of JSON on the socket `control` in the folder: `["start", SERVICE]`, `["stop",
SERVICE, SIGNAL]` or `["tell", SERVICE, SIGNAL]`. The answer is a line: null when it is done, or what
went wrong.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.openstack.rig import unprivileged
from tests.openstack.rig.databases import is_sqlite, make_tables
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
    if not is_sqlite(folder):
        make_tables(folder)
    running = ("libvirtd", "compute")
    for name in layout.services:
        if name not in running:
            start(layout, name)
    for name in layout.services:
        wait_for(layout, name)


class _Handler(socketserver.StreamRequestHandler):
    """One request."""

    layout: Layout

    def handle(self) -> None:
        """Do it, and say how it went."""
        what, service, *how = json.loads(self.rfile.readline())
        try:
            _do(self.layout, what, service, *how)
            said = None
        except (Exception, SystemExit):
            said = traceback.format_exc()
        self.wfile.write(json.dumps(said).encode())


def _do(layout: Layout, what: str, service: str, how: str = "TERM") -> None:
    if what == "stop":
        stop(layout, service, signal.Signals[f"SIG{how}"])
    elif what == "tell":
        tell(layout, service, signal.Signals[f"SIG{how}"])
    else:
        start(layout, service)
        wait_for(layout, service)


def _serve(layout: Layout) -> None:
    _Handler.layout = layout
    with socketserver.ThreadingUnixStreamServer(str(layout.control), _Handler) as server:
        (layout.path / "ready").touch()
        server.serve_forever()


def main(folder: str) -> None:
    """
    Be process 1, and bury the dead.

    A libvirtd whose dead probes of QEMU are not buried waits 40 s for each.
    """
    layout = layout_of(Path(folder))
    starter = os.fork()
    if starter == 0:
        _begin(layout)
        _serve(layout)
    while True:
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)
            continue
        if pid == starter:
            sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
