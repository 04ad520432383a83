"""A stream of somebody else that has ended and is not dismissed: a look never costs the guest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from qmpsnap.graph.debug_graph import QUERY, debug_graph_from
from qmpsnap.graph.qmp import jobs_from
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import StreamLingers, TornReading
from qmpsnap.monitor.base import Monitor, Query
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.operations.step import Does
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.disks import qcow2_chain
from tests.rig.doors import Killed, at, die, patch
from tests.rig.headers import masks
from tests.rig.qemu_machine import QemuMachine
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[QemuMachine]:
    """Two disks of three layers."""
    disks = [qcow2_chain(make_chain(tmp_path, name, 3), name) for name in ("a", "b")]
    with qemu_machine.run(disks, directory=tmp_path) as made:
        yield made


def stream(guest: QemuMachine, monitor: Monitor) -> bool:
    """Stream everything into disk `a`; whether this QEMU leaves the filter bare (7.2 does)."""
    arguments = {"job-id": "pull", "device": "a-0-fmt", "auto-dismiss": False}
    monitor.execute("block-stream", arguments)
    while monitor.events.get().data.get("status") != "concluded":
        pass
    return debug_graph_from(guest.qmp(QUERY)).has_bare("pull")


def test_a_look_answers_and_the_guest_lives(guest: QemuMachine) -> None:
    with closing(SocketMonitor.connect(guest.qmp_path)) as monitor:
        bare = stream(guest, monitor)
        report = QmpGuest(monitor, partly=True).read()
    formats = {disk.disk: [layer.format for layer in disk.layers] for disk in report.disks}
    assert formats == {"a": ["qcow2"], "b": ["qcow2", "qcow2", "raw"]}
    assert any("stream job pull" in note for note in report.notes) is bare
    assert guest.qmp("query-status")


class EndsMeanwhile:
    """A monitor over which a stream has ended by itself before QEMU is asked for details of it."""

    def __init__(self, guest: QemuMachine, monitor: Monitor) -> None:
        self.guest, self.monitor = guest, monitor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.monitor, name)

    def execute_all(self, queries: Sequence[Query]) -> list[object]:
        """As the monitor's."""
        if queries[0][0] == "query-block-jobs":
            self.guest.qmp("block-job-set-speed", {"device": "pull", "speed": 0})
            while [job.status for job in jobs_from(self.guest.qmp("query-jobs"))] != ["concluded"]:
                pass
        return self.monitor.execute_all(queries)


def test_a_stream_that_ends_while_it_is_asked_about(guest: QemuMachine) -> None:
    """Two merges of one guest, on two disks, end at the same time: QEMU 7.2 died of the reading."""
    with closing(SocketMonitor.connect(guest.qmp_path)) as monitor:
        arguments = {"job-id": "pull", "device": "a-0-fmt", "auto-dismiss": False, "speed": 1}
        monitor.execute("block-stream", arguments)
        host = QmpGuest(cast(Monitor, EndsMeanwhile(guest, monitor)))
        with suppress(StreamLingers, TornReading):  # as the QEMU is
            host.read()
    assert guest.qmp("query-status")


@remedy("StreamLingers")
def test_no_operation_begins_before_it_is_dismissed(guest: QemuMachine) -> None:
    with closing(SocketMonitor.connect(guest.qmp_path)) as monitor:
        host = QmpGuest(monitor)
        if stream(guest, monitor):
            with pytest.raises(StreamLingers, match="pull"):
                host.read()
        monitor.execute("job-dismiss", {"id": "pull"})
        assert host.read().notes == ()
    assert guest.qmp("query-status")


@remedy("StreamLingers")
def test_the_same_delete_takes_up_a_stream_that_it_left(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when its pull had ended and was not dismissed."""
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        with monkeypatch.context() as patched:
            patch(patched, QmpGuest, before=at(Does.DISMISS, die))
            with pytest.raises(Killed):
                rig.delete(None, None)
        if not masks(rig, "block-stream"):  # before 9.0; 10.0 does not crash
            with rig.host() as host, pytest.raises(StreamLingers):
                host.read()
        said = rig.delete(None, None)
        assert said.code == 0, said.err
        assert rig.files() == [f"{BASE}.s2"]
        assert rig.guest.read_sha256(DISK) == content
