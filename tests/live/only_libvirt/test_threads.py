"""Several guests of one libvirt connection in several threads, as in Nova."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import Any

from qmpsnap import create, delete, from_domain
from tests.rig import images, libvirt_machine
from tests.rig.barriers import aborted
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.processes import process_of
from tests.rig.rig import BASE, DISK, SERIAL, SIZE

GUESTS = 3
ROUNDS = 2


def test_all_at_once(connection: Any, tmp_path: Path) -> None:
    together = Barrier(GUESTS)

    def use(domain: Any) -> list[str]:
        told = []
        with aborted(together):
            for round_ in range(ROUNDS):
                together.wait()
                with from_domain(domain) as guest:
                    create(guest, DISK, f"a{round_}")
                    create(guest, DISK, f"b{round_}")
                    together.wait()
                    for name in (f"a{round_}", f"b{round_}"):
                        told.append(delete(guest, DISK, name, method="commit").disk.chain_text)
        return told

    with ExitStack() as stack:
        domains = []
        for number in range(GUESTS):
            folder = tmp_path / f"guest{number}"
            folder.mkdir()
            images.create_raw(folder / BASE, SIZE)
            machine = libvirt_machine.run(
                connection,
                [LibvirtDisk(folder / BASE, "raw", DISK, SERIAL)],
                f"threads{number}",
                directory=folder,
                find=process_of,
            )
            domains.append(stack.enter_context(machine).domain)
        with ThreadPoolExecutor(GUESTS) as pool:
            told = list(pool.map(use, domains))
    a_round = [[f"{BASE} <- {BASE}.b{number}", BASE] for number in range(ROUNDS)]
    assert told == [[chain for two in a_round for chain in two]] * GUESTS
