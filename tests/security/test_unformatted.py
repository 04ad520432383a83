"""Guests whose disks were described without a format: what runs is shown, and nothing is built on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import images
from tests.rig.disks import DiskSpec
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.payloads import put
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig
from tests.rig.roads import direct_rig, libvirt_rig
from tests.security.conftest import SECRET, Victim


class Untyped(LibvirtDisk):
    """`<driver name='qemu'/>`."""

    def element(self) -> Any:
        """See `LibvirtDisk`."""
        disk = LibvirtDisk.element(self)
        del disk.find("driver").attrib["type"]
        return disk


def _reachable(rig: Rig, victim: Victim) -> list[Any]:
    """The victim among the files that `chain` lists; the tool itself does not open it."""
    victim.detector.events()  # QEMU's own
    said = rig.cli("chain", "-o", "json")
    victim.assert_safe(said)
    files = said.json["disks"][0]["files"]
    return [one for one in files if one["path"] == str(victim.path)]


def _refused(rig: Rig, victim: Victim) -> None:
    """No operation builds on it, and none opens it."""
    victim.detector.events()
    files = rig.files()
    for said in (rig.cli("create", DISK, "new"), rig.delete(None, None)):
        assert said.code == 4, said
        victim.assert_safe(said)
    assert rig.files() == files


@pytest.mark.parametrize("name", ["qcow2-backing", "qcow2-data-file", "vmdk-flat"])
def test_xml_without_a_format_is_raw(
    name: str, connection: Any, victim: Victim, volume: Path, share: Path
) -> None:
    """libvirt takes it for raw, and so it is."""
    put(victim.forged(name), volume)
    disk = Untyped(volume, "raw", DISK, SERIAL)
    with libvirt_rig(connection, share, "raw", disk) as rig:
        assert _formats(rig) == {BASE: "raw"}
        rig.create("s1")
        assert _formats(rig) == {f"{BASE}.s1": "qcow2", BASE: "raw"}
        assert rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
        assert _formats(rig) == {BASE: "raw"}
        assert SECRET not in rig.guest.read_all(DISK)
        victim.assert_safe(folder=share)


def _formats(rig: Rig) -> dict[str, str]:
    layers = rig.cli("chain", "-o", "json").json["disks"][0]["layers"]
    return {layer["file"]: layer["format"] for layer in layers}


class TestOverlayWithoutABackingFormat:
    """
    libvirt 9.0 starts it, and the guest reads a file of the host that no XML mentions.

    Seen with libvirt 9.0.0 and QEMU 7.2.22, when the header above records no format, or `file`.
    libvirt 11.3.0 takes `file` for raw, and still looks into the file where there is no format.
    """

    @pytest.fixture(params=[None, "file"])
    def rig(
        self,
        request: pytest.FixtureRequest,
        connection: Any,
        victim: Victim,
        volume: Path,
        share: Path,
    ) -> Iterator[Rig]:
        """A guest that reads the victim by way of a data file."""
        put(victim.forged("qcow2-data-file"), volume)
        active = share / f"{BASE}.s1"
        images.create_qcow2(active, SIZE, BASE, "raw")
        _record(active, request.param)
        disk = LibvirtDisk(active, "qcow2", DISK, SERIAL)
        with libvirt_rig(connection, share, "qcow2", disk) as rig:
            if SECRET not in rig.guest.read_all(DISK):
                assert request.param == "file"
                assert connection.getLibVersion() >= 11_003_000
                pytest.skip("this libvirt does not fall for it")
            yield rig

    def test_no_operation_builds_on_it(self, rig: Rig, victim: Victim) -> None:
        _refused(rig, victim)

    def test_the_victim_is_shown(self, rig: Rig, victim: Victim) -> None:
        (found,) = _reachable(rig, victim)
        assert (found["role"], found["layer"]) == ("data-file", 1)

    def test_the_layer_is_flagged(self, rig: Rig, victim: Victim) -> None:
        said = rig.cli("chain", "-o", "json")
        assert "data-file" in said.json["disks"][0]["layers"][1]["flags"]


def _record(overlay: Path, format_: str | None) -> None:
    """Write another backing format into a header, or take it out."""
    data = bytearray(overlay.read_bytes())
    at = data.index(bytes.fromhex("e2792aca"))
    if format_ is None:
        data[at : at + 4] = bytes.fromhex("12345678")  # an extension that nobody knows
    else:
        data[at + 4 : at + 16] = len(format_).to_bytes(4) + format_.encode().ljust(8, b"\0")
    overlay.write_bytes(data)


class TestDriveWithoutAFormat:
    """`-drive file=…`: QEMU itself looks into the file, and runs what it finds there."""

    @pytest.fixture(params=["qcow2-backing", "qcow2-backing-json", "qcow2-data-file"])
    def rig(self, request: pytest.FixtureRequest, victim: Victim, volume: Path) -> Iterator[Rig]:
        """A guest that reads the victim."""
        put(victim.forged(request.param), volume)
        disk = DiskSpec(blockdevs=(), root="drive", id=DISK, serial=SERIAL)
        drive = ("-drive", f"file={volume},if=none,id=drive")
        with direct_rig(volume.parent, disk, drive) as rig:
            yield rig

    def test_the_victim_is_shown(self, rig: Rig, victim: Victim) -> None:
        assert len(_reachable(rig, victim)) == 1

    def test_the_layer_is_flagged_as_probed(self, rig: Rig, victim: Victim) -> None:
        said = rig.cli("chain", "-o", "json")
        assert "probed" in said.json["disks"][0]["layers"][0]["flags"]

    def test_no_operation_builds_on_it(self, rig: Rig, victim: Victim) -> None:
        """An overlay above would record for good what the guest wrote into its raw disk."""
        _refused(rig, victim)

    @pytest.mark.parametrize("command", ["chain", "verify", "disks"])
    def test_looking_does_not_open_the_victim(self, rig: Rig, victim: Victim, command: str) -> None:
        victim.detector.events()  # QEMU's own
        victim.assert_safe(rig.cli(command, "-o", "json"))
