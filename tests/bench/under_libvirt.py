"""Under libvirt: the reading through passthrough, and XMLDesc on the same guest."""

from __future__ import annotations

import string
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.graph import xml
from qmpsnap.guests.libvirt.guest import LibvirtGuest, stays_small
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.passthrough import PassthroughMonitor
from tests.bench.measure import Case, Cost, cost, median
from tests.rig import libvirt_machine
from tests.rig.chains import make_chain
from tests.rig.counting import Counting

_LETTERS: Final = ("", *string.ascii_lowercase)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderLibvirt:
    """One row."""

    case: Case
    nested_ok: bool
    first_graph: Cost
    graph: Cost
    """`Reader.read()` through passthrough, as `LibvirtGuest.read()` does it."""
    read: Cost
    """`LibvirtGuest.read()`: XML, graph and headers."""
    xml_desc: Cost
    """`virDomainGetXMLDesc()`."""


def measure(folder: Path, cases: Iterable[Case], rounds: int) -> list[UnderLibvirt]:
    """One connection for all cases: a process can open few."""
    with embedded_connection(folder / "libvirt") as connection:
        return [_measure(connection, folder, case, rounds) for case in cases]


def _measure(connection: Any, folder: Path, case: Case, rounds: int) -> UnderLibvirt:
    with TemporaryDirectory(dir=folder) as share:
        disks = []
        for number in range(case.disks):
            ((path, format), *_) = make_chain(
                Path(share), f"volume-{number}", case.layers, relative=case.relative
            )
            target = f"vd{_LETTERS[number // 26]}{string.ascii_lowercase[number % 26]}"
            disks.append(libvirt_machine.LibvirtDisk(path, format, target, f"serial-{number}"))
        name = f"bench-{case.layers}-{case.disks}-{case.relative}"
        with libvirt_machine.run(connection, disks, name, share) as guest:
            domain = guest.domain
            small = stays_small(xml.parse(domain.XMLDesc()))
            costs: dict[str, list[Cost]] = {}
            for _ in range(rounds):
                with closing(LibvirtGuest(domain, max_stall_s=None)) as host:
                    host.read()  # with a probe
                    costs.setdefault("read", []).append(cost(host.read, qemu=guest.pid))
                monitor = Counting(PassthroughMonitor(domain))
                reader = Reader(monitor, max_stall_s=None)
                read = partial(reader.read, nested_ok=small)
                for kind in ("first_graph", "graph"):
                    costs.setdefault(kind, []).append(cost(read, monitor, guest.pid))
                costs.setdefault("xml_desc", []).append(cost(domain.XMLDesc, qemu=guest.pid))
    return UnderLibvirt(
        case=case, nested_ok=small, **{kind: median(some) for kind, some in costs.items()}
    )
