"""A guest without a system, with one volume attached to it as Nova would attach it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import libvirt
import libvirt_qemu
from lxml import etree

from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

_DOMAIN: Final = """
<domain type='qemu'>
  <name>{name}</name><uuid>{server}</uuid><memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' cache='none'/><source file='{path}'/>
      <target dev='vda' bus='virtio'/><serial>{volume}</serial><alias name='ua-vda'/>{inside}
    </disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>
"""


class Guest:
    """One server of Nova's database, and its domain."""

    def __init__(
        self,
        rig: Rig,
        volume: str,
        told: Callable[[Guest], object] = lambda _: None,
        **properties: str,
    ) -> None:
        """
        Attach a volume.

        Args:
            rig: Where.
            volume: Its id.
            told: Called once the file is told, while Cinder has the volume `attaching`.
            properties: Of the image that the server is said to be made from.
        """
        self.rig, self.volume, self.server = rig, volume, str(uuid.uuid4())
        self.libvirt = libvirt.open(rig.uri)
        self.domain: Any = None
        connector = {
            "host": "rig",
            "ip": "127.0.0.1",
            "initiator": "iqn.rig",
            "mountpoint": "/dev/vda",
        }
        asked = {"volume_uuid": volume, "instance_uuid": self.server, "connector": connector}
        answer = rig.volumes("POST", "/attachments", {"attachment": asked})
        self.attachment: str = answer["attachment"]["id"]
        self._register(properties)
        told(self)
        rig.volumes("POST", f"/attachments/{self.attachment}/action", {"os-complete": {}})
        read_until(lambda: rig.status("volumes", volume), lambda it: it == "in-use")

    @property
    def connection(self) -> dict[str, Any]:
        """Cinder's connection_info now."""
        answer = self.rig.volumes("GET", f"/attachments/{self.attachment}")
        info: dict[str, Any] = answer["attachment"]["connection_info"]
        return info

    @property
    def nova_connection(self) -> dict[str, Any]:
        """The connection_info that Nova's database holds, from which it starts the guest."""
        info: dict[str, Any] = self.rig.nova("GET", f"connection_info/{self.volume}")["data"]
        return info

    def _register(self, properties: dict[str, str]) -> None:
        flat = self.connection
        info = {
            "driver_volume_type": flat.pop("driver_volume_type", "nfs"),
            "data": flat,
            "serial": self.volume,
        }
        body = {
            "server": self.server,
            "volume": self.volume,
            "device": "/dev/vda",
            "attachment": self.attachment,
            "connection_info": info,
            "properties": properties,
        }
        self.rig.nova("POST", "register", body)

    def start(self) -> None:
        """Start as Nova would, from the file and format that its driver says."""
        begins = self._begins()
        self.domain = self.libvirt.defineXML(
            _DOMAIN.format(
                name=f"rig-{self.server[:8]}",
                server=self.server,
                volume=self.volume,
                format=begins["format"],
                path=begins["path"],
                inside=begins["inside"],
            )
        )
        self.domain.create()

    def connect(self) -> None:
        """Connect again, after a restart of libvirtd; one that was killed takes a moment to be back."""
        self.libvirt = read_until(self._opened_libvirt, lambda it: it is not None)
        self.domain = self.libvirt.lookupByUUIDString(self.server)

    def _opened_libvirt(self) -> Any:
        with suppress(libvirt.libvirtError):
            return libvirt.open(self.rig.uri)
        return None

    def stop(self) -> None:
        """Cut the power."""
        self.domain.destroy()

    def io(self, command: str) -> None:
        """Write as the guest would: `write -P 7 1M 64k`. To read, `reads`: HMP tells no outcome."""
        line, hmp = f'qemu-io -d ua-vda/virtio-backend "{command}"', 1
        answer = libvirt_qemu.qemuMonitorCommand(self.domain, line, hmp)
        assert "rror" not in answer, answer

    def reads(self, pattern: int, offset: str, length: str) -> bool:
        """Whether the chain holds a pattern, opened as the next start would open it."""
        if self.domain.isActive():
            self.io("flush")
        begins = self._begins()
        file = self.rig.share / Path(begins["path"]).name
        opened = self._opened(begins["format"], file)
        command = ["qemu-io", "-r", "-U", "-c", f"read -P {pattern} {offset} {length}", *opened]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _begins(self) -> dict[str, str]:
        """File and format of the next start; ours refuses one until it is known which they are."""
        found: dict[str, str] = read_until(
            lambda: self.rig.nova("GET", f"start/{self.volume}"), lambda it: "error" not in it
        )
        return found

    def _opened(self, format_: str, file: Path) -> list[str]:
        """How qemu-io is to open a file."""
        return ["-f", format_, str(file)]

    def chain(self) -> list[tuple[str, str]]:
        """Bare name and format of each layer, active first, as the next start would open them."""
        begins = self._begins()
        command = ["qemu-img", "info", "-U", "--backing-chain", "--output", "json"]
        file = self.rig.share / Path(begins["path"]).name
        text = subprocess.check_output([*command, "-f", begins["format"], file])
        return [(Path(one["filename"]).name, one["format"]) for one in json.loads(text)]

    def live_chain(self) -> list[tuple[str, str]]:
        """The same, as libvirt has it of the guest that runs."""
        disk = etree.fromstring(self.domain.XMLDesc(0)).find("devices/disk")
        assert disk is not None
        layers = [(disk.find("source"), disk.find("driver"))]
        layers += [(one.find("source"), one.find("format")) for one in disk.iter("backingStore")]
        return [
            (Path(source.get("file", "")).name, format_.get("type", ""))
            for source, format_ in layers
            if source is not None and format_ is not None
        ]

    def detach(self) -> None:
        """Off, and gone from Cinder's view; its own way asks Nova by the catalog, and here is none."""
        self.close()
        body = {"os-reset_status": {"status": "available", "attach_status": "detached"}}
        self.rig.volumes("POST", f"/volumes/{self.volume}/action", body)

    def close(self) -> None:
        """End the guest; the volume stays attached."""
        for end in ("destroy", "undefine"):
            with suppress(libvirt.libvirtError, AttributeError):
                getattr(self.domain, end)()
        with suppress(libvirt.libvirtError):
            self.libvirt.close()


@contextmanager
def attached(rig: Rig, volume: str | None = None) -> Iterator[Guest]:
    """A guest that runs on a volume, by default a new one."""
    guest = Guest(rig, volume or rig.create_volume())
    guest.start()
    try:
        yield guest
    finally:
        guest.close()
