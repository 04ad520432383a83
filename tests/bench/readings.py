"""
One reading beside its bare queries: the same ones, sent one by one by a client that only sends.

On the socket by a plain blocking client; under libvirt by libvirt-python, with XMLDesc.
"""

from __future__ import annotations

import json
import statistics
import string
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.graph import xml
from qmpsnap.guests.libvirt.guest import LibvirtGuest, stays_small
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import libvirt_module
from tests.bench.measure import Case, in_turns
from tests.bench.plain import Plain, Waits
from tests.rig import libvirt_machine, qemu_machine
from tests.rig.chains import make_chain
from tests.rig.disks import qcow2_chain

CASES: Final = (
    *(Case(layers, 1) for layers in (1, 8, 64)),
    Case(64, 1, relative=True),
    Case(16, 8),
    Case(8, 32),
)
_NODES: Final = "query-named-block-nodes"
_QUERIES: Final[tuple[tuple[str, Mapping[str, object]], ...]] = (
    ("query-jobs", {}),
    ("x-debug-query-block-graph", {}),
    (_NODES, {"flat": True}),
    ("query-block", {}),
    ("query-jobs", {}),
)
GOAL: Final = 1.5
"""How many times its bare queries a later reading may take."""

Work = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One row: seconds by the clock, medians."""

    road: str
    case: Case
    bare_s: float
    first_s: float
    """By a new guest object: with what stays as it is."""
    later_s: float
    own_s: float
    """Processor time of this process, all threads, in a later reading."""
    stop_bare_s: float | None = None
    """Longest wait of another monitor during one bare query for all nodes."""
    stop_s: float | None = None
    """The same during a later reading."""

    @property
    def ratio(self) -> float:
        """A later reading for its bare queries."""
        return self.later_s / self.bare_s


def measure(folder: Path, rounds: int) -> list[Reading]:
    """All cases, on the socket and under libvirt."""
    rows = [_on_socket(folder, case, rounds) for case in CASES]
    with embedded_connection(folder / "libvirt") as connection:
        rows += [_under_libvirt(connection, folder, case, rounds) for case in CASES]
    return rows


def _longest_wait(waits: Waits, work: Work, rounds: int) -> float:
    longest = []
    for _ in range(rounds):
        with waits.during():
            work()
        longest.append(waits.longest_s)
    return statistics.median(longest)


def _on_socket(folder: Path, case: Case, rounds: int) -> Reading:
    with TemporaryDirectory(dir=folder) as share:
        chains = [
            make_chain(Path(share), f"volume-{number}", case.layers, relative=case.relative)
            for number in range(case.disks)
        ]
        disks = [
            replace(qcow2_chain(chain, f"disk{number}", f"serial-{number}"), bus="scsi")
            for number, chain in enumerate(chains)
        ]
        plain, other = f"{share}/plain", f"{share}/other"
        monitors = [
            word for path in (plain, other) for word in ("-qmp", f"unix:{path},server=on,wait=off")
        ]
        with (
            qemu_machine.run(disks, directory=share, machine_args=monitors) as machine,
            closing(SocketMonitor.connect(machine.qmp_path)) as monitor,
            closing(Plain(plain)) as client,
        ):

            def look() -> QmpGuest:
                return QmpGuest(monitor, pid=machine.pid, max_stall_s=None)

            def bare() -> None:
                for command, arguments in _QUERIES:
                    client.execute(command, **arguments)

            guest = look()
            guest.read()
            works = {"bare": bare, "later": guest.read, "first": lambda: look().read()}
            times = in_turns(works, rounds)
            waits = Waits(other)
            return Reading(
                road="socket",
                case=case,
                bare_s=times["bare"].wall_s,
                first_s=times["first"].wall_s,
                later_s=times["later"].wall_s,
                own_s=times["later"].own_s,
                stop_bare_s=_longest_wait(waits, lambda: client.execute(_NODES, flat=True), rounds),
                stop_s=_longest_wait(waits, guest.read, rounds),
            )


def _under_libvirt(connection: Any, folder: Path, case: Case, rounds: int) -> Reading:
    with TemporaryDirectory(dir=folder) as share:
        name = f"readings-{case.layers}-{case.disks}-{case.relative}"
        disks = _libvirt_disks(Path(share), case)
        with libvirt_machine.run(connection, disks, name, share) as machine:
            domain = machine.domain
            small = stays_small(xml.parse(domain.XMLDesc()))
            send = libvirt_module("libvirt_qemu").qemuMonitorCommand
            requests = [
                json.dumps({"execute": command, "arguments": arguments})
                for command, arguments in _QUERIES
                if small or command != "query-block"
            ]

            def bare() -> None:
                domain.XMLDesc()
                for request in requests:
                    json.loads(send(domain, request, 0))

            def first() -> None:
                with closing(LibvirtGuest(domain, max_stall_s=None)) as one:
                    one.read()

            with closing(LibvirtGuest(domain, max_stall_s=None)) as guest:
                guest.read()
                times = in_turns({"bare": bare, "later": guest.read, "first": first}, rounds)
            return Reading(
                road="libvirt",
                case=case,
                bare_s=times["bare"].wall_s,
                first_s=times["first"].wall_s,
                later_s=times["later"].wall_s,
                own_s=times["later"].own_s,
            )


def _libvirt_disks(share: Path, case: Case) -> list[libvirt_machine.LibvirtDisk]:
    letters = ("", *string.ascii_lowercase)
    disks = []
    for number in range(case.disks):
        ((path, format), *_) = make_chain(
            share, f"volume-{number}", case.layers, relative=case.relative
        )
        target = f"vd{letters[number // 26]}{string.ascii_lowercase[number % 26]}"
        disks.append(libvirt_machine.LibvirtDisk(path, format, target, f"serial-{number}"))
    return disks
