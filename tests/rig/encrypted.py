"""
A guest of a private libvirtd whose disk is encrypted: qcow2 with LUKS inside, and a secret of libvirt's.

Not in this process: libvirt 9.0 crashes when a secret is defined at `qemu:///embed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.virt import find_domain, libvirt_module, open_connection
from qmpsnap.operations.guest import Guest
from tests.rig import system_daemon
from tests.rig.beside import run
from tests.rig.libvirt_machine import LibvirtMachine, machine_of
from tests.rig.processes import process_of
from tests.rig.rig import BASE, SERIAL, SIZE, Said, run_cli

NAME: Final = "locked"
UUID: Final = "0d7ef2f4-3a53-4a86-8c0f-6b0c5a2c9d11"
PASSPHRASE: Final = "correct-horse"
SECRET: Final = "6f1c7c3a-0d0a-4b67-9a53-0f3f5a3f3c11"
ENCRYPTION: Final = (
    f"<encryption format='luks'><secret type='passphrase' uuid='{SECRET}'/></encryption>"
)
DOMAIN: Final = """
<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>{source}
      <target dev='vda' bus='virtio'/><serial>{serial}</serial>
    </disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
  </devices>
</domain>
"""
_OPTIONS: Final = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"


def make(path: Path, backing: str | None = None) -> None:
    """Make an encrypted qcow2 file."""
    below = () if backing is None else ("-u", "-b", backing, "-F", "qcow2")
    words = ("-f", "qcow2", "-o", _OPTIONS, "--object", f"secret,id=s,data={PASSPHRASE}", *below)
    run("qemu-img", "create", *words, str(path), str(SIZE))


@dataclass
class Encrypted:
    """A guest that libvirt has defined, over `volume-1234` in `folder`."""

    connection: Any
    folder: Path
    scratch: Path
    domain: Any

    @contextmanager
    def started(self) -> Iterator[LibvirtMachine]:
        """Run it, by its definition, until the end of the block."""
        self.domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)
        try:
            yield machine_of(self.domain, process_of(self.domain), self.scratch, self.folder)
        finally:
            self.domain.destroy()

    @contextmanager
    def host(self) -> Iterator[Guest]:
        with closing(LibvirtGuest(find_domain(self.connection, NAME))) as host:
            yield host

    def content(self) -> str:
        """Start it, and hash what it reads."""
        with self.started() as machine:
            return machine.read_sha256("vda")

    def definition(self) -> str:
        return str(self.domain.XMLDesc(libvirt_module().VIR_DOMAIN_XML_INACTIVE))

    def define(self, source: str) -> None:
        """Define it anew, with this `<source>` and whatever follows it."""
        text = DOMAIN.format(name=NAME, uuid=UUID, source=source, serial=SERIAL)
        self.domain = self.connection.defineXML(text)

    def cli(self, command: str, *arguments: str) -> Said:
        """Run the command line in this process; `resume` and `log` name no guest."""
        names = [] if command in ("resume", "log") else [NAME]
        return run_cli(["--connect", self.connection.getURI(), command, *names, *arguments])


@contextmanager
def defined(folder: Path) -> Iterator[Encrypted]:
    """Define one that is off. Skips where there is no libvirtd, or no right to mount."""
    with (
        system_daemon.running() as uri,
        TemporaryDirectory(prefix="qe-", dir="/tmp") as scratch,
        closing(open_connection(uri)) as connection,
    ):
        secret = connection.secretDefineXML(
            f"<secret ephemeral='no' private='no'><uuid>{SECRET}</uuid>"
            "<usage type='volume'><volume>qmpsnap</volume></usage></secret>"
        )
        secret.setValue(PASSPHRASE.encode())
        make(folder / BASE)
        guest = Encrypted(connection, folder, Path(scratch), None)
        guest.define(f"<source file='{folder / BASE}'>{ENCRYPTION}</source>")
        try:
            yield guest
        finally:
            if guest.domain.isActive():
                guest.domain.destroy()
