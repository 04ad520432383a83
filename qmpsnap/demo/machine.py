"""
A throw-away guest without an operating system, with one disk, the raw file `VOLUME`.

On the direct road its QEMU is started here; under libvirt, by libvirt's driver in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import msgspec
from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guest import Guest

SIZE: Final = 8 * 1024 * 1024
"""Bytes of the disk."""
DISK: Final = "vda"
SERIAL: Final = "1234"
VOLUME: Final = f"volume-{SERIAL}"
START_TIMEOUT_S: Final = 30.0


class GuestDidNotStart(Failed):
    """QEMU ended before it answered."""

    msg = "the guest did not start: {self.reason}"
    remedy = "Mend the cause; no guest is left running."
    changed = "no"

    reason: str


class Qmp(Protocol):
    """Sends one QMP command and returns what it returned."""

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None) -> object: ...


class _Medium(msgspec.Struct, rename="kebab"):
    node_name: str


class _Block(msgspec.Struct):
    inserted: _Medium | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A paused QEMU with one disk."""

    qmp: Qmp
    guest: Guest
    """The same QEMU, as operations see it."""
    named: tuple[str, ...]
    """How a command line names the guest: global options, or nothing."""
    guest_name: tuple[str, ...]
    """GUEST, where there is one."""
    device: str
    """The disk's, as HMP `qemu-io` knows it."""
    folder: Path
    """Where the disk's files are."""

    def write(self, offset: int, data: bytes) -> None:
        """
        Write to the disk as a guest could.

        `qemu-io` only prints what went wrong, and to QEMU's standard output: read it back.
        """
        with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
            source = Path(scratch, "data")
            source.write_bytes(data)
            line = f'qemu-io -d {self.device} "write -s {source} {offset} {len(data)}"'
            self.qmp("human-monitor-command", {"command-line": line})

    def read(self) -> bytes:
        """
        Read the whole disk as the guest does, through an NBD export: QEMU's memory counts too.

        Raises:
            QemuImgMissing, QemuImgFailed: See `qemu_img.run`.
        """
        blocks = msgspec.convert(self.qmp("query-block"), list[_Block])
        (node,) = (block.inserted.node_name for block in blocks if block.inserted)
        with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
            path, copy = f"{scratch}/nbd.sock", Path(scratch, "copy")
            address = {"type": "unix", "data": {"path": path}}
            self.qmp("nbd-server-start", {"addr": address})
            try:
                export = {"type": "nbd", "id": "read", "node-name": node, "name": "read"}
                self.qmp("block-export-add", export)
                url = f"nbd+unix:///read?socket={quote(path)}"
                qemu_img.run("convert", url, "-f", "raw", "-O", "raw", url, str(copy))
                return copy.read_bytes()
            finally:
                self.qmp("nbd-server-stop")  # waits until the export has let go of its node


@contextmanager
def directly() -> Iterator[Machine]:
    """
    Run a guest with a QEMU of our own.

    Raises:
        GuestDidNotStart: QEMU is missing or refused its arguments; with what it printed.
    """
    with _folder() as folder, ExitStack() as stack:
        log = stack.enter_context((folder / "qemu.log").open("w+b"))
        process = _spawn(folder, log.fileno())
        stack.callback(process.wait)
        stack.callback(process.kill)
        try:
            monitor = SocketMonitor.connect(folder / "qmp", timeout=START_TIMEOUT_S)
        except QmpsnapError as error:
            log.seek(0)
            printed = log.read().decode(errors="replace").strip()
            raise GuestDidNotStart(printed or str(error)) from error
        stack.callback(monitor.close)
        device = f"/machine/peripheral/{DISK}/virtio-backend"
        # The socket is ours, so by itself the guest would take this process for QEMU.
        guest = QmpGuest(monitor, pid=process.pid)
        yield Machine(
            qmp=monitor.execute,
            guest=guest,
            named=("--qmp", f"{folder}/qmp"),
            guest_name=(),
            device=device,
            folder=folder,
        )


def _spawn(folder: Path, output: int) -> subprocess.Popen[bytes]:
    binary = os.environ.get("QMPSNAP_QEMU") or "qemu-system-x86_64"
    for program in (binary, "setpriv"):
        if shutil.which(program) is None:
            raise GuestDidNotStart(f"{program} is not installed")
    file = {"driver": "file", "filename": str(folder / VOLUME), "node-name": "file"}
    disk = {"driver": "raw", "file": "file", "node-name": "disk"}
    with socket.socket(socket.AF_UNIX) as listener:
        # Listened on here: who connects waits for QEMU's greeting instead of finding no socket.
        listener.bind(str(folder / "qmp"))
        listener.listen()
        return subprocess.Popen(
            [
                # QEMU ends with the thread that started it, however that ends.
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *(binary, "-M", "pc", "-accel", "tcg", "-m", "32", "-S"),
                *("-nodefaults", "-no-user-config", "-display", "none"),
                *("-blockdev", json.dumps({**file, "auto-read-only": True})),
                *("-blockdev", json.dumps(disk)),
                *("-device", f"virtio-blk-pci,id={DISK},drive=disk,serial={SERIAL}"),
                *("-chardev", f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off"),
                *("-mon", "chardev=qmp,mode=control"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C is for the tool, not for the guest
        )


@contextmanager
def under_libvirt() -> Iterator[Machine]:
    """
    Run a guest of libvirt's driver in this process.

    Raises:
        LibvirtMissing, LibvirtUnreachable: There is no such driver here.
        GuestDidNotStart: With what libvirt and QEMU say.
    """
    # Two folders: libvirt's own must have a short path without blanks, and outlive the guest.
    with (
        _folder() as folder,
        tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp", ignore_cleanup_errors=True) as root,
        embedded_connection(root) as connection,
    ):
        libvirt = libvirt_module()
        try:
            domain = connection.createXML(_domain(folder), libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError as error:
            raise GuestDidNotStart(str(error)) from error
        guest = LibvirtGuest(domain)
        try:
            yield Machine(
                qmp=PassthroughMonitor(domain).execute,
                guest=guest,
                named=(),
                guest_name=("demo",),
                device=f"/machine/peripheral/ua-{DISK}/virtio-backend",
                folder=folder,
            )
        finally:
            guest.close()


def _domain(folder: Path) -> str:
    emulator = os.environ.get("QMPSNAP_QEMU")
    disk = E.disk(
        E.driver(name="qemu", type="raw"),
        E.source(file=str(folder / VOLUME)),
        E.target(dev=DISK, bus="virtio"),
        E.alias(name=f"ua-{DISK}"),
        E.serial(SERIAL),
        type="file",
        device="disk",
    )
    domain = E.domain(
        E.name("demo"),
        E.memory("32", unit="MiB"),
        E.os(E.type("hvm", arch="x86_64", machine="pc")),
        E.devices(
            *([E.emulator(emulator)] if emulator else []),
            disk,
            E.controller(type="usb", model="none"),
            E.memballoon(model="none"),
        ),
        type="qemu",
    )
    return etree.tostring(domain).decode()


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder with the volume in it."""
    with tempfile.TemporaryDirectory(prefix="qmpsnap-demo-", dir="/tmp") as name:
        with Path(name, VOLUME).open("wb") as file:
            file.truncate(SIZE)
        yield Path(name)
