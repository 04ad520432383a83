"""The QEMU of a guest of libvirt's, whether or not the driver runs in this process."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.rig.libvirt_machine import Process, embedded_process


def is_embedded(connection: Any) -> bool:
    """Whether the driver runs in this process."""
    return str(connection.getURI()).startswith("qemu:///embed")


def pid_of(domain: Any) -> int:
    """
    Find the process id of a guest's QEMU.

    libvirt has it in a file, of which only who started libvirt knows the place.
    """
    wanted = f"guest={domain.name()},".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "cmdline").read_bytes():
                return int(folder.name)
    raise ProcessLookupError(domain.name())


def process_of(domain: Any) -> Process:
    """
    Find a guest's QEMU, and its log.

    Of a driver that does not run here, the log by QEMU's own root folder: it may be another release.
    """
    if is_embedded(domain.connect()):
        return embedded_process(domain)
    pid = pid_of(domain)
    return Process(pid, Path(f"/proc/{pid}/root/var/log/libvirt/qemu/{domain.name()}.log"))
