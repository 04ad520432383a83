"""A guest that libvirt has defined and that does not run, with one disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmpsnap.formats.layers import Layer
from qmpsnap.graph import xml
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.monitor.virt import libvirt_module
from tests.rig import images
from tests.rig.libvirt_machine import wait_until_unused
from tests.rig.rig import BASE, MIB, SIZE, Rig

DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' cache='none'/>
      <source file='{path}'/><target dev='vda' bus='virtio'/><serial>1234</serial>
    </disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
  </devices>
</domain>
"""


@dataclass
class Off:
    """A defined guest that does not run."""

    rig: Rig
    domain: Any
    folder: Path

    def content(self) -> str:
        """Hash of what the guest would read, through the formats of the definition."""
        disk = self.rig.disk()
        layer = disk.layers[0]
        assert layer.path is not None
        assert layer.format is not None
        return images.sha256_of(layer.path, layer.format)

    def write(self, offset: int, length: int, pattern: int) -> None:
        layer = self.rig.disk().layers[0]
        command = f"write -P {pattern} {offset} {length}"
        subprocess.run(
            ["qemu-io", "-f", str(layer.format), "-c", command, str(layer.path)],
            check=True,
            capture_output=True,
        )

    def grow(self, depth: int) -> None:
        for number in range(1, depth + 1):
            self.write((number * 384 * 1024) % SIZE, 64 * 1024, number)
            self.write(1 * MIB + 4096 * number, 8192, 100 + number)
            if number < depth:
                self.rig.create(f"s{number}")

    def name_chain(self, *, ended: bool = True) -> None:
        """Have the definition name the whole chain, as snapshots of the running guest leave it."""
        _, *lower = self.rig.disk().layers
        inside = "<backingStore/>" if ended else ""
        for layer in reversed(lower):
            inside = (
                f"<backingStore type='file'><format type='{layer.format}'/>"
                f"<source file='{layer.path}'/>{inside}</backingStore>"
            )
        text = self.definition()
        self.domain.connect().defineXML(
            text.replace("<target dev='vda'", f"{inside}<target dev='vda'")
        )

    def definition(self) -> str:
        """As it is now."""
        return str(self.domain.XMLDesc(libvirt_module().VIR_DOMAIN_XML_INACTIVE))

    def named(self) -> list[str]:
        """The files that the definition names for the disk."""
        layers = xml.parse(self.definition()).disks[0].layers
        return [Path(layer.path or "").name for layer in layers]

    def active(self) -> tuple[str, str]:
        """File and format in the definition."""
        disk = xml.parse(self.definition()).disks[0]
        return Path(disk.layers[0].path or "").name, str(disk.layers[0].format)


@contextmanager
def defined_off(connection: Any, folder: Path, format_: str) -> Iterator[Off]:
    """Define a guest whose disk is a new file in a folder."""
    wait_until_unused(connection, folder)
    make = images.create_raw if format_ == "raw" else images.create_qcow2
    make(folder / BASE, SIZE)
    name = f"off{abs(hash(folder)) % 10**9}"
    domain = connection.defineXML(DOMAIN.format(name=name, format=format_, path=folder / BASE))

    def kill() -> Any:
        raise AssertionError("a guest that is off has no QEMU to kill")

    rig = Rig(
        None,  # type: ignore[arg-type]
        folder,
        ["--connect", connection.getURI()],
        [name],
        lambda: OfflineGuest(domain),
        kill,
    )
    try:
        yield Off(rig, domain, folder)
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefine()


def sound(off: Off) -> None:
    """Formats are stated without a contradiction, headers are right, and files open with them."""
    disk = off.rig.disk()
    for layer, below in zip(disk.layers, [*disk.layers[1:], None], strict=True):
        assert (layer.verdict, layer.format is not None) == ("stated", True)
        assert layer.backing_name == _name_of(below, layer)
    active = disk.layers[0]
    if active.format == "qcow2":
        qemu_img.run("check", str(active.path), "-f", "qcow2", str(active.path))


def _name_of(below: Layer | None, above: Layer) -> str | None:
    """As a header is to have it: a whole path where it leads to another folder."""
    if below is None or below.path is None or above.path is None:
        return None
    is_beside = Path(below.path).parent == Path(above.path).parent
    return below.file if is_beside else below.path
