"""A real QEMU, driven over its own QMP socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from qmpsnap.demo import images, qemu_guest
from qmpsnap.demo.disks import DiskSpec, qcow2_chain, raw_disk
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.operations.guest import Guest
from tests.support.rig import BASE, DISK, SERIAL, SIZE, Rig


@contextmanager
def direct_rig(folder: Path, disk: DiskSpec, machine_args: Sequence[str] = ()) -> Iterator[Rig]:
    """Start a guest with one disk."""
    with qemu_guest.run([disk], directory=folder, machine_args=machine_args) as guest:
        path = str(guest.qmp_path)

        @contextmanager
        def connect() -> Iterator[Guest]:
            monitor = SocketMonitor.connect(path)
            try:
                yield QmpGuest(monitor)
            finally:
                monitor.close()

        yield Rig(guest, folder, ["--qmp", path], [], connect, guest.kill)


@pytest.fixture(params=["raw", "qcow2"])
def base(request: pytest.FixtureRequest) -> str:
    """Format of the guest's first file."""
    return str(request.param)


@pytest.fixture
def make_rig(tmp_path: Path) -> Callable[..., AbstractContextManager[Rig]]:
    """`make_rig(base)`: a guest whose disk is one file, open in that way."""

    def make(base: str, size: int = SIZE) -> AbstractContextManager[Rig]:
        folder = tmp_path / "share"
        folder.mkdir()
        path = folder / BASE
        if base == "qcow2":
            images.create_qcow2(path, size)
            disk = qcow2_chain([(path, "qcow2")], DISK, SERIAL)
        else:
            images.create_raw(path, size)
            disk = raw_disk(path, DISK, SERIAL, raw_node=base != "raw-without-node")
        return direct_rig(folder, disk)

    return make
