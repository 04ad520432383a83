"""A member of the group libvirt, who may do all with libvirt and look into no QEMU of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import pytest

from qmpsnap.monitor.virt import open_connection
from tests.rig import images, system_daemon, unprivileged
from tests.rig.rig import BASE, DISK, SIZE, Said, run_cli

GUEST = "web1"
DOMAIN = """
<domain type='qemu'><name>{GUEST}</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='{DISK}' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>
"""


@pytest.fixture
def share() -> Iterator[Path]:
    """Three layers that everybody may write."""
    with TemporaryDirectory(prefix="qi-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o777)
        images.create_raw(folder / BASE, SIZE)
        images.create_qcow2(folder / f"{BASE}.s1", SIZE, BASE, "raw")
        images.create_qcow2(folder / f"{BASE}.s2", SIZE, f"{BASE}.s1", "qcow2")
        for path in folder.iterdir():
            path.chmod(0o666)
        yield folder


@pytest.fixture
def uri(share: Path) -> Iterator[str]:
    """A libvirtd of root's with a running guest, and a socket for the group."""
    with system_daemon.running() as uri:
        with closing(open_connection(uri)) as connection:
            domain = DOMAIN.format(GUEST=GUEST, DISK=DISK, path=share / f"{BASE}.s2")
            connection.createXML(domain, libvirt.VIR_DOMAIN_START_PAUSED)
        yield uri
        with closing(open_connection(uri)) as connection:
            connection.lookupByName(GUEST).destroy()


def test_member_of_the_group(uri: str, share: Path) -> None:
    def member(command: str, *arguments: str) -> Said:
        return unprivileged.run("--connect", uri, command, GUEST, *arguments)

    def root(command: str, *arguments: str) -> Said:
        return run_cli(["--connect", uri, command, GUEST, *arguments])

    assert root("verify", "-o", "json").json["findings"] == []
    said = member("verify", "-o", "json")
    assert (said.code, [one["id"] for one in said.json["findings"]]) == (0, ["file-not-seen"]), said
    layers = member("chain", "-o", "json").json["disks"][0]["layers"]
    assert [layer["flags"] for layer in layers] == [["not-seen"]] * 3

    gone = share / f"{BASE}.s1"
    done = member("delete", "--no-journal", DISK, "s1", "--remove-file", "-o", "json")
    assert done.code == 0, done
    assert (done.json["removed"], done.json["held"]) == ([], [str(gone)])
    assert gone.exists()

    base = share / BASE
    other = share / "other"
    images.create_raw(other, SIZE)
    other.replace(base)
    assert root("verify").code == 3
    assert root("delete", DISK, "s2").code == 4
    assert member("verify").code == 0  # it cannot know
    base.unlink()
    assert member("verify").code == 3  # nobody has that name any more
    assert member("delete", "--no-journal", DISK, "s2").code == 4
    assert root("delete", DISK, "s2").code == 4
