"""A guest that libvirt has defined, so that it can be started, ended and started again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmpsnap.graph import xml
from qmpsnap.monitor.virt import libvirt_module
from tests.rig.rig import DISK, SERIAL, Said, run_cli
from tests.rig.waiting import until

_NUMBERS = itertools.count()

_DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>
    <emulator>{qemu}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}'/>
      <source file='{path}'/><target dev='{disk}' bus='virtio'/><serial>{serial}</serial>
    </disk>
  </devices>
</domain>
"""


@dataclass(frozen=True)
class Defined:
    """One guest of the embedded driver; made by `defined()`."""

    domain: Any
    folder: Path

    def cli(self, command: str, *arguments: str) -> Said:
        """Run the command line in this process."""
        uri = self.domain.connect().getURI()
        return run_cli(["--connect", uri, command, self.domain.name(), *arguments])

    def start(self) -> None:
        """Start it, paused; raises what libvirt raises."""
        self.domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)

    def stop(self) -> None:
        """End it, and wait until libvirt calls it off."""
        self.domain.destroy()
        until(lambda: not self.domain.isActive(), "libvirt still calls it active")

    def active_file(self) -> str | None:
        """The file that the disk of the running guest stands on."""
        return xml.parse(self.domain.XMLDesc(0)).disks[0].layers[0].path


@contextmanager
def defined(connection: Any, path: Path, format: str) -> Iterator[Defined]:
    """Define a guest with one disk, for the length of a block. It is off."""
    text = _DOMAIN.format(
        name=f"defined{next(_NUMBERS)}",
        qemu=os.environ.get("QMPSNAP_QEMU") or "/usr/bin/qemu-system-x86_64",
        format=format,
        path=path,
        disk=DISK,
        serial=SERIAL,
    )
    libvirt = libvirt_module()
    domain = connection.defineXML(text)
    try:
        yield Defined(domain, path.parent)
    finally:
        with suppress(libvirt.libvirtError):  # it is off
            domain.destroy()
        with suppress(libvirt.libvirtError):  # the test has done it
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
