"""One corrupt image, and what is still known of the guest's other disk."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.operations.volume import DiskUnsuitable, usable
from tests.rig import images, qemu_machine
from tests.rig.disks import qcow2_chain

SIZE = 1024 * 1024
CLUSTER = 64 * 1024


def corrupt(path: Path) -> None:
    """Let the third cluster's entry in the L2 table point to no cluster's beginning."""
    command = ["qemu-io", "-f", "qcow2", "-c", f"write 0 {CLUSTER}", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with path.open("r+b") as file:
        file.seek(40)
        (l1,) = struct.unpack(">Q", file.read(8))
        file.seek(l1)
        (l2,) = struct.unpack(">Q", file.read(8))
        file.seek((l2 & 0x00FFFFFFFFFFFE00) + 2 * 8)
        file.write(struct.pack(">Q", 1 << 63 | 0x200))


def test_other_disk_is_still_answered_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images.create_qcow2(tmp_path / f"{name}.base", SIZE)
        images.create_qcow2(tmp_path / name, SIZE, tmp_path / f"{name}.base", "qcow2")
    corrupt(tmp_path / "a")
    disks = [
        qcow2_chain([(tmp_path / name, "qcow2"), (tmp_path / f"{name}.base", "qcow2")], name)
        for name in ("a", "b")
    ]
    with qemu_machine.run(disks, directory=tmp_path) as guest:
        monitor = SocketMonitor.connect(guest.qmp_path)
        try:
            host = QmpGuest(monitor)
            whole = {disk.disk: disk for disk in host.read().disks}
            assert "Input/output error" in guest.qemu_io("a", f"read {2 * CLUSTER} 512")
            report = host.read()
        finally:
            monitor.close()
    part = {disk.disk: disk for disk in report.disks}
    assert [(one.path, one.format, one.verdict) for one in part["b"].layers] == [
        (one.path, one.format, one.verdict) for one in whole["b"].layers
    ]
    assert part["b"].files == whole["b"].files
    assert [one.format for one in part["a"].layers] == [None, None]
    assert any("is ejected" in note for note in report.notes)
    usable(part["b"])
    with pytest.raises(DiskUnsuitable, match="corrupt"):
        usable(part["a"])
