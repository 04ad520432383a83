"""A guest of libvirt, running or off, by a connection of its own or of somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.demo import images
from qmpsnap.formats.verdict import Verdict
from qmpsnap.guests.connect import connect, from_domain
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.monitor.virt import GuestNotFound, find_domain
from tests.support.defined import defined
from tests.support.rig import BASE, DISK, SIZE, Rig


class Lent:
    """The session's connection, which counts how often it is closed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.closed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def lent(connection: Any, monkeypatch: pytest.MonkeyPatch) -> Lent:
    """What `connect` gets for a connection of its own."""
    lent = Lent(connection)
    monkeypatch.setattr("qmpsnap.guests.connect.open_connection", lambda *_, **_more: lent)
    return lent


@pytest.fixture
def rig(make_rig: Callable[..., AbstractContextManager[Rig]]) -> Iterator[Rig]:
    with make_rig("qcow2") as rig:
        yield rig


def test_running(rig: Rig, lent: Lent, connection: Any) -> None:
    (name,) = rig.names
    for called in (name, find_domain(connection, name).UUIDString()):
        with connect("qemu:///embed", guest=called) as guest:
            assert isinstance(guest, LibvirtGuest)
            (layer,) = guest.read().disk(DISK).layers
            assert (layer.file, layer.format, layer.verdict) == (BASE, "qcow2", Verdict.AGREED)
        guest.close()
    assert lent.closed == 2


def test_without_passthrough(rig: Rig, lent: Lent) -> None:
    with connect("qemu:///embed", guest=rig.names[0], passthrough=False) as guest:
        assert guest.read().disk(DISK).layers[0].verdict is Verdict.STATED


def test_off(lent: Lent, tmp_path: Path) -> None:
    images.create_qcow2(tmp_path / BASE, SIZE)
    with (
        defined(lent, tmp_path / BASE, "qcow2") as off,
        connect("qemu:///embed", guest=off.domain.name()) as guest,
    ):
        assert isinstance(guest, OfflineGuest)
        assert guest.read().disk(DISK).layers[0].format == "qcow2"
    guest.close()
    assert lent.closed == 1


def test_not_found(lent: Lent) -> None:
    with pytest.raises(GuestNotFound):
        connect("qemu:///embed", guest="nobody")
    assert lent.closed == 1


def test_a_connection_of_somebody_else(rig: Rig, connection: Any) -> None:
    domain = find_domain(connection, rig.names[0])
    with from_domain(domain) as guest:
        guest.follow(DISK)
    assert connection.isAlive()
    with from_domain(domain) as guest:
        guest.follow(DISK)
