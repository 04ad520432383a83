"""libvirtd ends in the middle of a merge and is started again: the merge goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from qmpsnap.monitor.base import LostInMidCommand
from qmpsnap.monitor.socket import SocketMonitor
from tests.rig import daemon as libvirtd
from tests.rig import images
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.jobs import ACTIVE, make_chain
from tests.rig.remedies import remedy
from tests.rig.rig import DISK, MIB, SERIAL, run_cli
from tests.rig.tiers import missing
from tests.rig.waiting import listens, until


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    if libvirtd.which("libvirtd") is None:
        missing("libvirt", "install Debian's libvirt-daemon")
    with libvirtd.running() as daemon:
        yield daemon


def test_a_merge_goes_on_over_a_restart(daemon: Daemon) -> None:
    """abbbi/virtnbdbackup#205: libvirtd restarts, and whoever waits for a job waits for ever."""
    share = daemon.folder / "share"
    share.mkdir()
    make_chain(share, 8 * MIB)
    content = images.sha256_of(share / ACTIVE, "qcow2")
    daemon.give(share)
    guest = DaemonMachine(daemon, "restart1", share / ACTIVE, DISK, SERIAL, "qcow2")
    info = {"type": "qcow2", "file_to_merge": None, "merge_target_file": None}
    command = ["volume-snapshot-delete", guest.name, SERIAL, "id", json.dumps(info)]
    with subprocess.Popen(
        [sys.executable, "-m", "qmpsnap", "-c", daemon.uri, *command, "--bandwidth", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as merge:
        assert merge.stderr is not None
        first = merge.stderr.readline()  # it says so once libvirt has answered that the job runs
        daemon.restart(signal.SIGKILL)
        with guest.domain() as domain:
            domain.blockJobSetSpeed(DISK, 0, 0)
        out, err = merge.communicate()
    assert merge.returncode == 0, first + err
    assert "%" in first, first
    assert "is there again; job vda goes on" in err
    assert json.loads(out)["os-update_snapshot_status"]["file_format"] == {ACTIVE: "qcow2"}
    guest.destroy()
    assert images.sha256_of(share / ACTIVE, "qcow2") == content


@remedy("LostByLibvirt")
def test_a_guest_that_libvirt_has_lost_is_named_and_can_be_worked_on(daemon: Daemon) -> None:
    """Its state file cannot be read, so libvirtd calls it off, while its QEMU goes on."""
    share = daemon.folder / "share"
    share.mkdir()
    make_chain(share, 8 * MIB)
    daemon.give(share)
    guest = DaemonMachine(daemon, "lost1", share / ACTIVE, DISK, SERIAL, "qcow2")
    with guest.domain() as domain:
        domain.connect().defineXML(domain.XMLDesc(0))
    daemon.stop(signal.SIGKILL)
    (state,) = (daemon.folder / "run").rglob("lost1.xml")
    state.write_text("<domstatus")
    daemon.start()
    with guest.domain() as domain:
        assert not domain.isActive()
    said = run_cli(["-c", daemon.uri, "create", guest.name, DISK, "new"])
    assert said.code == 4, said
    assert "is off, but its QEMU runs: process" in said.err
    found = re.search(r"`qmpsnap --qmp (\S+) resume`", said.err)
    assert found is not None, said
    assert run_cli(["--qmp", found[1], "resume"]).code == 0
    said = run_cli(["--qmp", found[1], "create", SERIAL, "new"])
    assert said.code == 0, said
    with closing(SocketMonitor.connect(found[1])) as monitor, suppress(LostInMidCommand):
        monitor.execute("quit")
    until(lambda: not listens(Path(found[1])))
    with guest.domain() as domain:
        domain.undefine()
