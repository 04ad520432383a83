"""On QEMU's own QMP socket, and qemu-img on the same files."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.abilities import Ability
from qmpsnap.monitor.socket import SocketMonitor
from tests.bench.measure import Case, Cost, cost, median
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.counting import Counting
from tests.rig.disks import qcow2_chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """One row."""

    case: Case
    first_graph: Cost
    """`Reader.read()` by a new reader: with a probe."""
    graph: Cost
    """`Reader.read()` again."""
    first: Cost
    """`QmpGuest.read()` by a new host: all that `qmpsnap chain` asks."""
    again: Cost
    """`QmpGuest.read()` of the same host again, as an operation does."""
    qemu_img: Cost
    """`qemu-img info --backing-chain` of all disks, one after the other."""
    serials_at_once: bool
    """Whether this QEMU tells all serial numbers in one reply."""
    largest: int
    """Bytes of the largest reply."""


def measure(folder: Path, case: Case, rounds: int) -> Direct:
    """Start a guest and read it in several ways, in turns."""
    with TemporaryDirectory(dir=folder) as share:
        chains = [
            make_chain(Path(share), f"volume-{number}", case.layers, relative=case.relative)
            for number in range(case.disks)
        ]
        # One PCI slot for all of them.
        disks = [
            replace(qcow2_chain(chain, f"disk{number}", f"serial-{number}"), bus="scsi")
            for number, chain in enumerate(chains)
        ]
        with qemu_machine.run(disks, directory=share) as guest:
            costs: dict[str, list[Cost]] = {}
            largest, at_once = 0, False

            def take(name: str, one: Cost) -> None:
                costs.setdefault(name, []).append(one)

            for _ in range(rounds):
                with closing(Counting(SocketMonitor.connect(guest.qmp_path))) as monitor:
                    host = QmpGuest(monitor, max_stall_s=None)
                    take("first", cost(host.read, monitor, guest.pid))
                    take("again", cost(host.read, monitor, guest.pid))
                    reader = Reader(monitor, max_stall_s=None)
                    take("first_graph", cost(reader.read, monitor, guest.pid))
                    take("graph", cost(reader.read, monitor, guest.pid))
                    monitor.weighs = True
                    reader.read()
                    largest = monitor.largest
                    at_once = bool(reader.abilities.knows(Ability.MANY_PROPERTIES))
                take("qemu_img", cost(lambda: _ask_qemu_img(chains)))
    return Direct(
        case=case,
        largest=largest,
        serials_at_once=at_once,
        **{name: median(some) for name, some in costs.items()},
    )


def _ask_qemu_img(chains: list[list[tuple[Path, str]]]) -> None:
    for chain in chains:
        path, format = chain[0]
        # -U: the guest has it open.
        options = ("-U", "-f", format, "--backing-chain", "--output=json")
        qemu_img.run("info", str(path), *options, str(path))
