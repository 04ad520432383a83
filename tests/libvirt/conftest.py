"""Real libvirt: its QEMU driver inside this process (`qemu:///embed`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.demo import images, libvirt_guest
from qmpsnap.demo.libvirt_guest import LibvirtDisk, embedded_process
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.virt import find_domain
from qmpsnap.operations.guest import Guest
from tests.support.processes import is_embedded, process_of
from tests.support.rig import BASE, DISK, SERIAL, SIZE, Rig

_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def _borrowed(borrowed: Any) -> None:
    """Every test here uses the session's connection."""


@contextmanager
def libvirt_rig(
    connection: Any,
    folder: Path,
    base: str,
    disk: LibvirtDisk | None = None,
    *,
    file: str = BASE,
    alter: Callable[[Any], None] | None = None,
) -> Iterator[Rig]:
    """
    Start a guest whose disk is `file` in `folder`, of the format `base`; or another disk.

    `alter` changes its XML before it is used.
    """
    # A new name each time: libvirt keeps one until init has reaped its QEMU, for seconds in some
    # containers.
    name = f"web{next(_NUMBERS)}"
    disk = disk or LibvirtDisk(folder / file, base, DISK, SERIAL)
    find = embedded_process if is_embedded(connection) else process_of
    with libvirt_guest.run(
        connection, [disk], name, directory=folder, alter=alter, find=find
    ) as guest:

        @contextmanager
        def connect() -> Iterator[Guest]:
            host = LibvirtGuest(find_domain(connection, name))
            try:
                yield host
            finally:
                host.close()

        road = ["--connect", connection.getURI()]
        yield Rig(guest, folder, road, [name], connect, guest.kill)


@pytest.fixture(params=["raw", "qcow2"])
def base(request: pytest.FixtureRequest) -> str:
    """Format of the guest's first file."""
    return str(request.param)


@pytest.fixture
def make_rig(connection: Any, tmp_path: Path) -> Callable[..., AbstractContextManager[Rig]]:
    """`make_rig(base)`: a guest whose disk is one file of that format."""

    def make(base: str, size: int = SIZE) -> AbstractContextManager[Rig]:
        folder = tmp_path / "share"
        folder.mkdir()
        if base == "raw":
            images.create_raw(folder / BASE, size)
        else:
            images.create_qcow2(folder / BASE, size)
        return libvirt_rig(connection, folder, base)

    return make
