"""How many queries one reading of a real QEMU takes; how long it takes is `tox -e bench`'s."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.socket import SocketMonitor
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.counting import Counting
from tests.rig.disks import qcow2_chain

pytestmark = pytest.mark.every_query


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
        host, reader = QmpGuest(monitor), Reader(monitor)
        trips = []
        for read in (host.read, host.read, reader.read, reader.read):
            before = monitor.trips
            read()
            trips.append(monitor.trips - before)
        report = host.read()
        at_once = reader.features.has("qom-list-get")
    assert [len(disk.layers) for disk in report.disks] == [layers] * disks
    # With the schema, which is asked for once; and, by a host, the jobs that ended, the guest's
    # name, and once the serial numbers: for each device, or (QEMU 10.1) all at once.
    assert trips == [7 + (1 if at_once else disks), 6, 6, 5]
