"""Start, await and restart the services of a rig; inside its namespaces."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from tests.openstack.rig.layout import HERE, Layout
from tests.rig.daemon import which
from tests.rig.waiting import HANG_S

ROOT: Final = HERE.parents[2]
SERVICES: Final = ("libvirtd", "cinder", "compute")


def start(layout: Layout, name: str) -> None:
    """Start a service; its output is in `log/NAME.out`, its process id in `NAME.pid`."""
    folder = layout.path
    python = [sys.executable, "-Wignore", "-m"]
    command = {
        "libvirtd": [which("libvirtd") or "libvirtd", "--pid-file", f"{folder}/libvirt/pid"],
        "cinder": [*python, "tests.openstack.rig.cinder_all", "--config-file", f"{folder}/cinder.conf"],
        "compute": [*python, "tests.openstack.rig.compute", "--config-file", f"{folder}/nova.conf"],
    }[name]  # fmt: skip
    environment = os.environ | {
        "RIG": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([f"{folder}/bin", f"{layout.prefix}/bin", os.environ["PATH"]]),
    }
    with (folder / f"log/{name}.out").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    (folder / f"{name}.pid").write_text(str(process.pid))


def wait_for(layout: Layout, name: str) -> None:
    """
    Wait until a service answers.

    Raises:
        SystemExit: It has ended, or hangs; with what it printed last.
    """
    deadline = time.monotonic() + HANG_S
    while not _answers(layout, name):
        alive = _lives(_pid(layout, name))
        if not alive or time.monotonic() > deadline:
            said = (layout.path / f"log/{name}.out").read_text(errors="replace")[-3000:]
            sys.exit(f"{name} {'does not answer' if alive else 'has ended'}:\n{said}")
        time.sleep(0.02)


def stop(layout: Layout, name: str, how: int = signal.SIGTERM) -> None:
    """End a service, and wait until it has."""
    pid = _pid(layout, name)
    if _lives(pid):
        os.kill(pid, how)
    while _lives(pid):
        time.sleep(0.02)


def _pid(layout: Layout, name: str) -> int:
    return int((layout.path / f"{name}.pid").read_text())


def _lives(pid: int) -> bool:
    """Whether a process is there, and does not only wait to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _answers(layout: Layout, name: str) -> bool:
    if name == "libvirtd":
        with socket.socket(socket.AF_UNIX) as one:
            return one.connect_ex("/run/libvirt/libvirt-sock") == 0
    port = layout.cinder_port if name == "cinder" else layout.compute_port
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
