"""
libvirtd is killed: inside its own calls, at the n-th write of one of its threads; and with all else.

At which writes and points: `tests.rig.sampling`. Whatever libvirt and QEMU had agreed on by then, the
guest keeps what it reads, and `resume` leaves nothing open.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.journal.file import Journal
from tests.rig import daemon as libvirtd
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.jobs import ACTIVE, REQUESTS, make_chain
from tests.rig.kills import KILLINGS
from tests.rig.rig import DISK, MIB, SERIAL, run_cli
from tests.rig.sampling import SHARE, sample
from tests.rig.startable import in_a_daemon
from tests.rig.started import HOW, How, killed_and_started
from tests.rig.tiers import missing
from tests.rig.waiting import until

WRITES: Final = 16
"""In each of these operations some thread of libvirtd 9.0 does as many (tried up to the 15th)."""


@contextmanager
def killed_at(daemon: Daemon, number: int) -> Iterator[None]:
    """Each thread of libvirtd is counted alone; the first one at its n-th write kills all."""
    words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=write,writev,sendmsg"]
    words += ["-e", f"inject=write,writev,sendmsg:signal=KILL:when={number}"]
    with subprocess.Popen([*words, "-p", str(daemon.pid)]) as tracer:
        try:
            status = Path(f"/proc/{daemon.pid}/status")
            # At its first writes it may be dead before it was seen traced.
            until(lambda: not daemon.lives or "TracerPid:\t0\n" not in status.read_text())
            yield
        finally:
            tracer.terminate()


@pytest.mark.parametrize("operation", ["create", *REQUESTS])
def test_killed_in_a_write(operation: str) -> None:
    if libvirtd.which("libvirtd") is None or shutil.which("strace") is None:
        missing("libvirt", "install Debian's libvirt-daemon and strace")
    for number in sample(range(1, WRITES + 1), operation, lambda _one: False, share=4 * SHARE):
        with libvirtd.running() as daemon:
            share = daemon.folder / "share"
            share.mkdir()
            make_chain(share, MIB)
            daemon.give(share)
            guest = DaemonMachine(daemon, f"killed{number}", share / ACTIVE, DISK, SERIAL, "qcow2")
            content = guest.read_sha256(DISK)
            said = operated(daemon, guest, operation, number)
            settled = run_cli(["-c", daemon.uri, "resume"])
            assert settled.code == 0, (number, said, settled)
            assert guest.read_sha256(DISK) == content, (number, said)
            jobs = run_cli(["-c", daemon.uri, "job", "list", guest.name, "-o", "json"])
            assert jobs.json["jobs"] == [], (number, said)
            assert run_cli(["-c", daemon.uri, "verify", guest.name]).code == 0, (number, said)
            assert not list(share.glob(".*")), (number, said)
            guest.destroy()


def operated(daemon: Daemon, guest: DaemonMachine, operation: str, number: int) -> str:
    """Carry it out, and start libvirtd again when it has ended; returns what was said."""
    words = [sys.executable, "-m", "qmpsnap", "-c", daemon.uri]
    if operation == "create":
        words += ["create", guest.name, DISK, "new"]
    else:
        request = REQUESTS[operation]
        info = {
            "type": "qcow2",
            "file_to_merge": request.file_to_merge,
            "merge_target_file": request.merge_target_file,
        }
        words += ["volume-snapshot-delete", guest.name, SERIAL, "id", json.dumps(info)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tool:
        with killed_at(daemon, number):
            until(lambda: tool.poll() is not None or not daemon.lives)
        has_died = not daemon.lives
        if has_died:
            daemon.stop()
            daemon.start()
        out, err = tool.communicate()
    print(f"{operation}, write {number}: {'killed' if has_died else 'never came to it'}")
    return f"{tool.returncode} {out} {err}"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("operation", [name for name in KILLINGS if KILLINGS[name].is_sound])
def test_killed_with_the_tool_and_qemu(
    tmp_path_factory: pytest.TempPathFactory, operation: str, how: How
) -> None:
    """The tool dies, then libvirtd, the guest writes, its QEMU dies; perhaps somebody starts it."""
    if libvirtd.which("libvirtd") is None:
        missing("libvirt", "install Debian's libvirt-daemon")
    state = tmp_path_factory.mktemp("journal")
    state.chmod(0o700)
    with libvirtd.running() as daemon:
        name = f"{operation}, all killed, started: {how}"
        startables = in_a_daemon(daemon, daemon.folder / "share")
        found = killed_and_started(name, startables, KILLINGS[operation], Journal(state), how)
    print(f"{name}: {found}")
    assert found.count
