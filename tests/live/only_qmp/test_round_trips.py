"""How many queries one reading of a real QEMU takes; how long it takes is `tox -e bench`'s."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.abilities import PROBES, Abilities, Ability
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.memory import qemu_process
from qmpsnap.monitor.schema import read_features
from qmpsnap.monitor.socket import SocketMonitor
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.counting import Counting
from tests.rig.disks import qcow2_chain

FIRST_HOP = ["query-jobs", "x-debug-query-block-graph"]
SECOND_HOP = ["query-named-block-nodes", "query-block", "query-jobs"]
PROBE = ["query-block"]


@pytest.mark.parametrize(("layers", "disks"), [(1, 1), (20, 1), (2, 8)])
def test_queries_depend_on_neither_depth_nor_disks(tmp_path: Path, layers: int, disks: int) -> None:
    chains = [make_chain(tmp_path, f"volume-{number}", layers) for number in range(disks)]
    specs = [
        replace(qcow2_chain(chain, f"disk{number}", f"serial-{number}"), bus="scsi")
        for number, chain in enumerate(chains)
    ]
    with (
        qemu_machine.run(specs, directory=tmp_path) as guest,
        closing(Counting(SocketMonitor.connect(guest.qmp_path))) as monitor,
    ):
        reader = Reader(monitor)
        first = reader.read()
        assert (monitor.taken(), monitor.hops) == ([*FIRST_HOP, *PROBE, *SECOND_HOP], 2)
        known = reader.details(first)
        assert {*monitor.taken()} <= {"query-name", "qom-get", "qom-list-get"}
        assert known.serials == {f"disk{number}": f"serial-{number}" for number in range(disks)}

        before = monitor.hops
        again = reader.read()
        assert reader.details(again) == known
        assert monitor.taken() == [*FIRST_HOP, *SECOND_HOP]
        assert monitor.hops - before == 2

        report = QmpGuest(monitor, pid=guest.pid).read()
    assert [len(disk.layers) for disk in report.disks] == [layers] * disks


def test_what_a_qemu_can_do_is_asked_once_in_its_life(tmp_path: Path) -> None:
    disk = qcow2_chain(make_chain(tmp_path, "volume", 2), "disk")
    with qemu_machine.run([disk], directory=tmp_path) as guest:
        taken = []
        for _ in range(2):
            with closing(Counting(SocketMonitor.connect(guest.qmp_path))) as monitor:
                Reader(monitor, process=qemu_process(guest.pid)).read()
                taken.append(monitor.taken())
    assert taken == [[*FIRST_HOP, *PROBE, *SECOND_HOP], [*FIRST_HOP, *SECOND_HOP]]


@pytest.mark.parametrize("ability", PROBES)
def test_a_probe_changes_nothing_and_agrees_with_the_schema(
    tmp_path: Path, ability: Ability
) -> None:
    command, _, argument = ability.partition(" ")
    disk = qcow2_chain(make_chain(tmp_path, "volume", 3), "disk")
    with (
        qemu_machine.run([disk], directory=tmp_path) as guest,
        closing(SocketMonitor.connect(guest.qmp_path)) as monitor,
    ):
        before = Reader(monitor).read()
        found = Abilities(monitor).has(ability)
        assert found == read_features(monitor).has(command, argument)
        (answer,) = monitor.execute_all([PROBES[ability]])
        assert isinstance(answer, CommandFailed)
        assert Reader(monitor).read() == before
        assert before.jobs == ()
