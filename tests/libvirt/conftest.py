"""Real libvirt: its QEMU driver inside this process (`qemu:///embed`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.demo import images, libvirt_guest
from qmpsnap.hosts.libvirt import LibvirtHost
from qmpsnap.monitor import virt
from qmpsnap.monitor.virt import find_domain
from qmpsnap.operations.host import Host
from tests.support.embedded import embed_root
from tests.support.rig import BASE, DISK, SERIAL, SIZE, Rig

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def connection() -> Iterator[Any]:
    """One driver for all tests: it probes QEMU for 4 s when its folder is new."""
    with libvirt_guest.embedded_connection(embed_root()) as connection:
        yield connection


@pytest.fixture(autouse=True)
def borrowed(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let the command line use the session's connection.

    libvirt 9.0 registers its drivers anew each time `qemu:///embed` is opened, and a dozen times
    is too many for one process.
    """

    class Borrowed:
        def __getattr__(self, name: str) -> Any:
            return getattr(connection, name)

        def close(self) -> None:
            """It is the session's."""

    def open_connection(uri: str) -> Any:
        return Borrowed() if uri == connection.getURI() else virt.open_connection(uri)

    monkeypatch.setattr("qmpsnap.cli.road.open_connection", open_connection)


@contextmanager
def libvirt_rig(connection: Any, folder: Path, base: str) -> Iterator[Rig]:
    """Start a guest whose disk is `BASE` in `folder`."""
    # A new name each time: libvirt keeps one until init has reaped its QEMU, for seconds in some
    # containers.
    name = f"web{next(_NUMBERS)}"
    disk = libvirt_guest.LibvirtDisk(folder / BASE, base, DISK, SERIAL)
    with libvirt_guest.run(connection, [disk], name, directory=folder) as guest:

        @contextmanager
        def connect() -> Iterator[Host]:
            host = LibvirtHost(find_domain(connection, name))
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
