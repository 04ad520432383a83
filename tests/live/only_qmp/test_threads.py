"""Several guests in several threads of one program, each on its own road."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

from qmpsnap import connect_qmp, create, delete
from tests.rig import images, qemu_machine
from tests.rig.barriers import aborted
from tests.rig.disks import raw_disk
from tests.rig.qemu_machine import QemuMachine
from tests.rig.rig import BASE, DISK, SERIAL, SIZE

GUESTS = 4
ROUNDS = 3


def test_all_at_once(tmp_path: Path) -> None:
    together = Barrier(GUESTS)

    def use(machine: QemuMachine) -> list[str]:
        told = []
        with aborted(together):
            for round_ in range(ROUNDS):
                together.wait()
                with connect_qmp(machine.qmp_path) as guest:
                    create(guest, DISK, f"a{round_}")
                    create(guest, DISK, f"b{round_}")
                    together.wait()
                    done = delete(guest, DISK, f"a{round_}", method="commit")
                    told.append(done.disk.chain_text)
                    done = delete(guest, DISK, f"b{round_}", method="pull")
                    told.append(done.disk.chain_text)
        return told

    with ExitStack() as stack:
        machines = [_guest(stack, tmp_path / f"guest{number}") for number in range(GUESTS)]
        before = [_written(machine, number) for number, machine in enumerate(machines)]
        with ThreadPoolExecutor(GUESTS) as pool:
            told = list(pool.map(use, machines))
        assert told == [_expected()] * GUESTS
        assert [machine.read_sha256(DISK) for machine in machines] == before


_FIRST = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from qmpsnap import connect_qmp

paths = sys.argv[1:]
together = Barrier(len(paths))

def read(path):
    together.wait()
    with connect_qmp(path) as guest:
        return guest.read().disk("vda").layers[0].file

with ThreadPoolExecutor(len(paths)) as pool:
    print(*pool.map(read, paths))
"""


def test_the_first_connections_of_a_program(tmp_path: Path) -> None:
    """All of them want the one event loop at once; with two, healthy guests seemed to be gone."""
    with ExitStack() as stack:
        machines = [_guest(stack, tmp_path / f"guest{number}") for number in range(GUESTS)]
        paths = [str(machine.qmp_path) for machine in machines]
        for _ in range(ROUNDS):
            command = [sys.executable, "-c", _FIRST, *paths]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (said.returncode, said.stderr) == (0, "")
            assert said.stdout.split() == [BASE] * GUESTS


def _guest(stack: ExitStack, folder: Path) -> QemuMachine:
    folder.mkdir()
    images.create_raw(folder / BASE, SIZE)
    return stack.enter_context(
        qemu_machine.run([raw_disk(folder / BASE, DISK, SERIAL)], directory=folder)
    )


def _written(machine: QemuMachine, number: int) -> str:
    """Something that no other guest has."""
    machine.write_bytes(DISK, 0, bytes([number + 1]) * 65536)
    return machine.read_sha256(DISK)


def _expected() -> list[str]:
    """A commit takes the older overlay down; the pull leaves one file, which names the next ones."""
    told, active = [], BASE
    for round_ in range(ROUNDS):
        top = f"{active}.b{round_}"
        told += [f"{active} <- {top}", top]
        active = top
    return told
