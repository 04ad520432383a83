"""A guest that libvirt calls off while its QEMU runs: libvirt could not take it up again."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from qmpsnap.errors import Refused

_SECRET: Final = re.compile(rb'"file":"([^"]+)/master-key\.aes"')
"""In the folder of the guest's sockets; qemuDomainGetMasterKeyFilePath(), qemu_domain.c."""


class LostByLibvirt(Refused):
    """
    A guest runs that libvirt knows nothing of any more.

    A libvirtd that is started again cannot read the state of such a guest, or does not find it.
    """

    msg = "libvirt says that {self.guest!r} is off, but its QEMU runs: process {self.pid}"
    remedy = (
        "Do not start it a second time. libvirt cannot take it up again; its disks can be worked on "
        "by its monitor: `qmpsnap --qmp {self.monitor} resume`, then the same command with `--qmp "
        "{self.monitor}` in the place of the guest, and the disk by its serial (`qmpsnap --qmp "
        "{self.monitor} disks`). Then shut it down from inside, and start it by libvirt."
    )

    guest: str
    pid: int
    monitor: str


def check_not_lost(guest: str, uuid: str) -> None:
    """
    See that no QEMU of a guest runs on this host; a walk over `/proc`.

    Args:
        guest: Its name.
        uuid: As libvirt writes it.

    Raises:
        LostByLibvirt: One does.
    """
    wanted = b"\0-uuid\0" + uuid.encode() + b"\0"
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            line = Path("/proc", name, "cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if wanted in line:
            folder = _SECRET.search(line)
            where = os.fsdecode(folder[1]) if folder else "/var/lib/libvirt/qemu/domain-*"
            raise LostByLibvirt(guest, int(name), f"{where}/monitor.sock")
