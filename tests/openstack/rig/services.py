"""Start, await and restart the services of a rig; inside its namespaces."""

from __future__ import annotations

import json
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

from tests.openstack.rig import unprivileged
from tests.openstack.rig.layout import HERE, TOKEN, Layout
from tests.openstack.rig.warm import Starter
from tests.rig.daemon import which
from tests.rig.waiting import HANG_S

ROOT: Final = HERE.parents[2]
PLUGINS: Final = HERE / "plugins"
_CINDER: Final = ("cinder-api", "cinder-scheduler", "cinder-volume")
"""As they are installed: each has a child that does the work (the API two), and starts it again."""
_OURS: Final = {
    "cinder": ("cinder_imported", "cinder_all"),
    "api": ("cinder_imported", "api"),
    "compute": ("nova_imported", "compute"),
}
"""Modules of this folder: what is imported once for all starts of a service, and the service."""
_starters: Final[dict[str, Starter]] = {}
"""By service; the process that starts and stops does so for one rig."""


def start(layout: Layout, name: str) -> None:
    """
    Start a service; its output is in `log/NAME.out`, its process id in `NAME.pid`.

    Beside those of the layout there is `api`, which a test may start: see api.py.
    """
    folder = layout.path
    configured = ["--config-file", f"{folder}/{'nova' if name == 'compute' else 'cinder'}.conf"]
    if name == "api":
        configured += ["--config-file", f"{folder}/api.conf"]
    python = [sys.executable, "-Wignore"]
    if name == "libvirtd":
        command = [which(name) or name, "--pid-file", f"{folder}/libvirt/pid"]
    elif name in _OURS:
        command = [*python, "-m", *(f"{__package__}.{one}" for one in ("warm", *_OURS[name]))]
        command += configured
    else:
        command = [*python, f"{layout.prefix}/bin/{name}", *configured]
    shims = [f"{folder}/bin"]
    if name == "compute" and layout.user:
        command, shims = unprivileged.command(layout.user, command), []
    environment = os.environ | {
        "RIG": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(PLUGINS), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([*shims, f"{layout.prefix}/bin", os.environ["PATH"]]),
    }
    log = folder / f"log/{name}.out"
    if name in _OURS:
        if name not in _starters:
            _starters[name] = Starter(command, folder, environment, log)
        pid = _starters[name].start()
    else:
        with log.open("ab") as said:
            pid = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            ).pid
    (folder / f"{name}.pid").write_text(str(pid))


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
        # What a service manager kills is the whole service.
        end = os.killpg if name in _CINDER and how == signal.SIGKILL else os.kill
        end(pid, how)
    while _lives(pid):
        time.sleep(0.02)


def tell(layout: Layout, name: str, how: int) -> None:
    """Send a service a signal that does not end it."""
    os.kill(_pid(layout, name), how)


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
    if name in ("cinder-scheduler", "cinder-volume"):
        return _has_pools(layout)
    ports = {"cinder": layout.cinder_port, "api": layout.api_port, "compute": layout.compute_port}
    try:
        port = ports[name.removesuffix("-api")]
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _has_pools(layout: Layout) -> bool:
    """Whether the scheduler has heard of the volume service's back end: then both are ready."""
    request = urllib.request.Request(
        f"{layout.cinder}/scheduler-stats/get_pools", headers={"X-Auth-Token": TOKEN}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(json.load(answer)["pools"])
    except OSError:
        return False
