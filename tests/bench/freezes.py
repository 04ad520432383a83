"""How long a guest is frozen for a snapshot of several disks, beside the bare transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import qmpsnap
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from tests.bench.plain import Plain
from tests.rig import images, qemu_machine
from tests.rig.agents import ScriptedAgent, scripted_agent
from tests.rig.disks import raw_disk
from tests.rig.rig import MIB

DISKS: Final = (1, 4, 8, 16)
GOAL: Final = 3.0
"""How many times the transaction the guest may be frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """One row: seconds, medians."""

    disks: int
    transaction_s: float
    """From the bare client's command until QEMU's answer."""
    frozen_s: float
    """By the agent's clock: from its answer to the freeze until it is asked to thaw."""

    @property
    def ratio(self) -> float:
        """How many times the transaction."""
        return self.frozen_s / self.transaction_s


def measure(folder: Path, disks: int, rounds: int) -> Frozen:
    """Take snapshots in turns; between two turns they are deleted again."""
    with TemporaryDirectory(dir=folder) as share:
        volumes = [Path(share, f"volume-{number}") for number in range(disks)]
        for volume in volumes:
            images.create_raw(volume, MIB)
        other = f"{share}/other"
        specs = [
            replace(raw_disk(volume, f"disk{number}"), bus="scsi")
            for number, volume in enumerate(volumes)
        ]
        with (
            qemu_machine.run(
                specs,
                directory=share,
                machine_args=("-qmp", f"unix:{other},server=on,wait=off"),
            ) as machine,
            scripted_agent(Path(share)) as agent,
            closing(SocketMonitor.connect(machine.qmp_path)) as monitor,
            closing(Plain(other)) as client,
            QmpGuest(monitor, agent=agent.path, pid=machine.pid) as guest,
        ):
            # Nobody asks the agent of a guest that is paused. It has no system, and halts.
            machine.qmp("cont")
            turns: list[Callable[[], float]] = [
                lambda: _bare(client, volumes),
                lambda: _with_freeze(guest, agent, disks),
            ]
            spent: list[list[float]] = [[], []]
            for number in range(-1, rounds):
                for turn in (number % 2, (number + 1) % 2):
                    seconds = turns[turn]()
                    if number >= 0:
                        spent[turn].append(seconds)
                    for which in range(disks):
                        qmpsnap.delete(
                            guest, f"disk{which}", "s", method="commit", remove_file=True
                        )
    return Frozen(disks=disks, transaction_s=median(spent[0]), frozen_s=median(spent[1]))


def _bare(client: Plain, volumes: list[Path]) -> float:
    """Open overlays, which does not count, and switch to them."""
    actions = []
    for number, volume in enumerate(volumes):
        overlay = f"{volume}.s"
        qemu_img.create_overlay(overlay, backing_name=volume.name, backing_format="raw", size=MIB)
        file = {"driver": "file", "filename": overlay}
        answer = client.execute(
            "blockdev-add", driver="qcow2", node_name=f"s{number}", backing=None, file=file
        )
        assert "return" in answer, answer
        data = {"node": f"disk{number}-0-fmt", "overlay": f"s{number}"}
        actions.append({"type": "blockdev-snapshot", "data": data})
    before = perf_counter()
    answer = client.execute("transaction", actions=actions)
    spent = perf_counter() - before
    assert "return" in answer, answer
    return spent


def _with_freeze(guest: QmpGuest, agent: ScriptedAgent, disks: int) -> float:
    """Have the library freeze, switch and thaw."""
    also = [f"disk{number}" for number in range(1, disks)]
    done = qmpsnap.create(guest, "disk0", "s", also=also, quiesce="require")
    assert done[0].consistency == "filesystem"
    return agent.frozen_s
