"""A real libvirtd that is restarted while the guest forges headers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig import daemon as libvirtd
from tests.rig import images
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.detector import detecting
from tests.rig.payloads import put
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig
from tests.security.conftest import SECRET, Victim


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A libvirtd of its own."""
    with libvirtd.running() as daemon:
        yield daemon


def test_a_restart_in_between(daemon: Daemon) -> None:
    """libvirtd reads back what it knew, and asks neither the disk nor the header for a format."""
    share, secret = daemon.folder / "share", daemon.folder / "secret"
    share.mkdir()
    secret.write_bytes(SECRET * (SIZE // len(SECRET)))
    volume = share / BASE
    images.create_raw(volume, SIZE)
    with detecting(secret) as detector:
        victim = Victim(secret, detector)
        forged = victim.forged("qcow2-data-file")
        put(forged, volume)
        daemon.give(daemon.folder)
        guest = DaemonMachine(daemon, "restarted", volume, DISK, SERIAL)
        try:
            road = ["--connect", daemon.uri]
            rig = Rig(guest, share, road, [guest.name], guest.host, guest.destroy)
            _attack(rig, daemon, victim, forged)
        finally:
            guest.destroy()


def _attack(rig: Rig, daemon: Daemon, victim: Victim, forged: bytes) -> None:
    rig.guest.write_bytes(DISK, 0, forged)
    daemon.restart()
    assert _formats(rig, victim) == {BASE: "raw"}
    rig.create("s1")
    rig.create("s2")
    rig.guest.write_bytes(DISK, 0, forged)
    daemon.restart()
    assert _formats(rig, victim) == {f"{BASE}.s2": "qcow2", f"{BASE}.s1": "qcow2", BASE: "raw"}
    said = rig.delete(f"{BASE}.s1", BASE)
    assert said.status["file_format"] == {BASE: "raw"}, said
    assert rig.cli("delete", DISK, "s2", "--method", "commit").code == 0
    daemon.restart()
    assert _formats(rig, victim) == {BASE: "raw"}
    assert SECRET not in rig.guest.read_all(DISK)
    victim.assert_safe(folder=rig.folder)


def _formats(rig: Rig, victim: Victim) -> dict[str, str]:
    """Formats that QEMU and libvirt agree on."""
    said = rig.cli("chain", "-o", "json")
    victim.assert_safe(said)
    layers = said.json["disks"][0]["layers"]
    assert {layer["verdict"] for layer in layers} == {"agreed"}
    return {layer["file"]: layer["format"] for layer in layers}
