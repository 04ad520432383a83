"""`--connect URI resume`, where the operation was begun by another URI, which leads nowhere now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap.guests.connect import connect
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created
from qmpsnap.monitor.virt import open_connection
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does
from tests.rig import images, system_daemon
from tests.rig.disks import qcow2_chain
from tests.rig.doors import Killed, dying_at
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Said, run_cli
from tests.rig.roads import direct_rig
from tests.rig.state_folder import own_state

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")
DOMAIN = """
<domain type='qemu'><name>{name}</name><uuid>5c9d4ac8-7a2f-4d6c-9f4e-3d2d1f0e9b10</uuid>
  <memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>
"""


class Begun:
    """A snapshot that was interrupted after its switch; libvirt's socket has another path since."""

    def __init__(self, connection: Any, domain: Any, uri: str, folder: Path) -> None:
        self.connection, self.domain, self.uri, self.folder = connection, domain, uri, folder
        (self.marker,) = folder.glob(".qmpsnap-*")
        (self.id,) = [one["id"] for one in run_cli(["log", "-o", "json"]).json["operations"]]

    def resume(self, *arguments: str) -> Said:
        return run_cli(["--connect", self.uri, "resume", *arguments, "-o", "json"])

    def why(self, *arguments: str) -> str:
        said = self.resume(*arguments)
        (one,) = said.json["operations"]
        assert (said.code, one["outcome"], self.marker.exists()) == (6, "unknown", True), said
        return str(one["notes"][0])


@pytest.fixture
def begun(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begun]:
    own_state(tmp_path_factory, monkeypatch)
    folder = tmp_path / "share"
    folder.mkdir()
    images.create_raw(folder / BASE, SIZE)
    with system_daemon.running() as uri, closing(open_connection(uri)) as connection:
        domain = connection.defineXML(DOMAIN.format(name="web1", path=folder / BASE))
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        place, socket = uri.split("=")
        link = tmp_path / "old"
        link.symlink_to(socket)
        with connect(f"{place}={link}", guest="web1") as guest, pytest.raises(Killed):
            created(Journal(), dying_at(guest, Does.SWITCH, "after"), (NEW,))
        link.unlink()
        yield Begun(connection, domain, uri, folder)
        for one in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            one.destroy()


@pytest.mark.parametrize("by", ["guest", "id", "marker"])
def test_the_guest_is_there(begun: Begun, by: str) -> None:
    assert run_cli(["resume", begun.id]).code == 6
    named = {"guest": (), "id": (begun.id,), "marker": (str(begun.marker),)}[by]
    planned = begun.resume(*named, "--plan")
    assert [one["outcome"] for one in planned.json["operations"]] == ["finished"], planned
    said = begun.resume(*named)
    assert said.code == 0, said
    (one,) = said.json["operations"]
    assert (one["outcome"], one["active"]) == ("finished", str(begun.folder / f"{BASE}.new"))
    assert not begun.marker.exists()
    assert begun.resume().json["operations"] == []


def test_the_guest_is_not_there(begun: Begun) -> None:
    """That libvirt has none of its name does not say that it is gone."""
    begun.domain.destroy()
    begun.domain.undefine()
    assert "no guest" in begun.why(begun.id)
    assert begun.resume().json["operations"] == []
    said = begun.resume(begun.id, "--take", "base")
    assert said.code == 0, said


def test_another_guest_of_its_name(begun: Begun) -> None:
    begun.domain.destroy()
    other = begun.folder / "other"
    images.create_raw(other, SIZE)
    begun.connection.defineXML(DOMAIN.format(name="web1", path=other))
    assert "none of its files" in begun.why(begun.id)


def test_off_there_and_running_elsewhere(begun: Begun) -> None:
    """Two hosts may have one definition each."""
    begun.domain.destroy()
    files = [(begun.folder / f"{BASE}.new", "qcow2"), (begun.folder / BASE, "raw")]
    with direct_rig(begun.folder, qcow2_chain(files, DISK, SERIAL)):
        assert "a QEMU has" in begun.why()
    assert begun.resume().code == 0


def test_a_libvirt_that_does_not_answer(begun: Begun) -> None:
    said = run_cli(["--connect", f"{begun.uri}x", "resume"])
    assert (said.code, "cannot open a libvirt connection" in said.err) == (6, True), said
