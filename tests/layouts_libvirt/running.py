"""A guest of libvirt with one layout, for as long as a context is open."""

from __future__ import annotations

import itertools
import os
import select
import signal
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from qmpsnap.graph import xml
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.virt import libvirt_module
from tests.layouts_libvirt.layout import (
    LOOP,
    MIB,
    SECRET,
    SHARE,
    Abort,
    BehindLibvirt,
    Commit,
    Copy,
    File,
    Forged,
    Layout,
    Pull,
    Snapshot,
    Step,
    Until,
)
from tests.rig.beside import NotHere, loop_device, nbd_server, run
from tests.rig.headers import without_format
from tests.rig.images import foreign_qcow2_header
from tests.rig.processes import is_embedded, pid_of
from tests.rig.waiting import HANG_S, until

_NUMBERS: Final = itertools.count()
_PASSPHRASE: Final = "sesame"
_HELD: Final = 1
"""Bytes a second: after its first piece a job waits for weeks."""
_UUID: Final = "00000000-0000-4000-8000-000000000000"


class Running:
    """A guest with a layout."""

    def __init__(self, domain: Any, places: Mapping[str, str]) -> None:
        self.domain = domain
        self.places = places
        """What stands in this run for the names that the catalogue uses."""

    def step(self, step: Step) -> None:
        """Carry one step out."""
        match step:
            case Snapshot():
                self._snapshot(step)
            case Copy():
                self._copy(step)
            case Commit():
                self._commit(step)
            case Pull():
                self._pull(step)
            case Abort():
                pivot = libvirt_module().VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
                self.domain.blockJobAbort(step.disk, pivot if step.pivot else 0)
            case Until():
                self._until(step)
            case BehindLibvirt():
                self._behind(step)

    def _snapshot(self, step: Snapshot) -> None:
        libvirt = libvirt_module()
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | (libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT if step.reuse else 0)
        )
        others = "".join(
            f"<disk name='{disk.target}' snapshot='no'/>"
            for disk in self._disks()
            if disk.target != step.disk
        )
        self.domain.snapshotCreateXML(
            f"<domainsnapshot><disks><disk name='{step.disk}' snapshot='external' type='file'>"
            f"<driver type='qcow2'/><source file='{self.places[SHARE]}/{step.file}'/></disk>"
            f"{others}</disks></domainsnapshot>",
            flags,
        )

    def _copy(self, step: Copy) -> None:
        libvirt = libvirt_module()
        parameters = {libvirt.VIR_DOMAIN_BLOCK_COPY_BANDWIDTH: _HELD} if step.held else {}
        self.domain.blockCopy(
            step.disk,
            f"<disk type='file'><driver type='{step.format}'/>"
            f"<source file='{self.places[SHARE]}/{step.file}'/></disk>",
            parameters,
            0,
        )

    def _commit(self, step: Commit) -> None:
        libvirt = libvirt_module()
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if step.top == 0 else 0
        if step.held:
            flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        top = None if step.top == 0 else self._layer(step.disk, step.top)
        base, speed = self._layer(step.disk, step.base), _HELD if step.held else 0
        self.domain.blockCommit(step.disk, base, top, speed, flags)

    def _pull(self, step: Pull) -> None:
        libvirt = libvirt_module()
        base = None if step.base is None else self._layer(step.disk, step.base)
        flags, speed = 0, 0
        if step.held:
            flags, speed = libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES, _HELD
        self.domain.blockRebase(step.disk, base, speed, flags)

    def _layer(self, disk: str, depth: int) -> str:
        (found,) = (one for one in self._disks() if one.target == disk)
        return f"{disk}[{found.layers[depth].index}]"

    def _disks(self) -> tuple[xml.XmlDisk, ...]:
        return xml.parse(self.domain.XMLDesc(0)).disks

    def _until(self, step: Until) -> None:
        def reached() -> bool:
            (disk,) = (one for one in self._disks() if one.target == step.disk)
            info = self.domain.blockJobInfo(step.disk, 0)
            match step.state:
                case "running":
                    # The first piece was copied: from now on it waits.
                    return bool(info and info["cur"] > 0)
                case "ready":
                    return disk.mirror_ready
                case "over":
                    return not info and disk.mirror is None
            return False

        until(reached, f"{step}, but: {self.domain.blockJobInfo(step.disk, 0)}")

    def _behind(self, step: BehindLibvirt) -> None:
        monitor = PassthroughMonitor(self.domain)
        files = {
            block["inserted"]["file"]: block["inserted"]["node-name"]
            for block in _list(monitor.execute("query-block"))
        }
        monitor.execute(
            "blockdev-add",
            {
                "driver": "qcow2",
                "node-name": "behind",
                "file": {"driver": "file", "filename": f"{self.places[SHARE]}/{step.file}"},
                "backing": None,
            },
        )
        node = files[f"{self.places[SHARE]}/{step.base}"]
        monitor.execute("blockdev-snapshot", {"node": node, "overlay": "behind"})


def _list(reply: object) -> list[Any]:
    assert isinstance(reply, list)
    return reply


@contextmanager
def running(connection: Any, layout: Layout) -> Iterator[Running]:
    """
    Make the files, start the guest, and carry out the layout's steps.

    Raises:
        NotHere: Something that the layout needs cannot be had here.
        libvirtError: libvirt refused it.
    """
    with ExitStack() as stack:
        # Not pytest's folder: the path of a UNIX socket has at most 107 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp")))
        name, identity = f"w{next(_NUMBERS)}-{os.getpid()}", str(uuid.uuid4())
        places = {SHARE: str(folder), layout.name: name, _UUID: identity}
        if layout.encrypted:
            stack.enter_context(_secret(connection))
        for file in layout.files:
            _make(file, folder)
        if layout.nbd is not None:
            served = nbd_server(
                folder / "nbd.sock", "-t", "-e", "9", "-f", "raw", str(folder / layout.nbd)
            )
            stack.enter_context(served)
        if layout.loop is not None:
            places[LOOP] = stack.enter_context(loop_device(folder / layout.loop))
        text = (
            f"<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid>"
            "<memory unit='MiB'>32</memory>"
            f"<os><type arch='x86_64' machine='pc'>hvm</type></os>{layout.domain}<devices>"
            "<controller type='usb' model='none'/><memballoon model='none'/>"
            f"{layout.disks.replace(SHARE, str(folder)).replace(LOOP, places.get(LOOP, LOOP))}"
            "</devices></domain>"
        )
        guest = Running(stack.enter_context(started(connection, text)), places)
        for step in layout.steps:
            guest.step(step)
        yield guest


@contextmanager
def started(connection: Any, text: str) -> Iterator[Any]:
    """Run a paused guest of this XML; gives the `virDomain`."""
    libvirt = libvirt_module()
    domain = connection.createXML(text, libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        yield domain
    finally:
        if is_embedded(connection):
            _terminate(pid_of(domain))
        else:
            with suppress(libvirt.libvirtError):  # it ended by itself
                domain.destroy()


def _terminate(pid: int) -> None:
    """End a QEMU; libvirt notices by itself, and `destroy()` takes longer."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(HANG_S * 1000):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


# Files, and what stands beside QEMU.


def _make(file: File | Forged, folder: Path) -> None:
    if isinstance(file, Forged):
        header = foreign_qcow2_header(MIB, b"/etc/hostname", None)
        (folder / file.name).write_bytes(header.ljust(MIB, b"\0"))
        return
    path = folder / file.name
    words = ["qemu-img", "create", "-q", "-f", file.format]
    options = [file.options] if file.options else []
    if file.format == "luks" or file.options == "encrypt.format=luks":
        words += ["--object", f"secret,id=s,data={_PASSPHRASE}"]
        prefix = "" if file.format == "luks" else "encrypt."
        # By default it takes two seconds of computing for each key.
        options.append(f"{prefix}key-secret=s,{prefix}iter-time=200")
    if file.backing is not None:
        backing = file.backing.replace(SHARE, str(folder))
        words += ["-u", "-b", backing, "-F", file.backing_format or "raw"]
    if options:
        words += ["-o", ",".join(options).replace(SHARE, str(folder))]
    run(*words, str(path), str(file.size))
    if not file.backing_format:
        without_format(path)
    if file.filled:
        run(
            "qemu-io",
            "-t",
            "unsafe",
            "-f",
            file.format,
            "-c",
            f"write -P 7 0 {file.size}",
            str(path),
        )


@contextmanager
def _secret(connection: Any) -> Iterator[None]:
    if is_embedded(connection):
        # libvirt 9.0: secretDefineXML crashes the process.
        raise NotHere("no secrets in qemu:///embed; tox -e matrix runs it")
    secret = connection.secretDefineXML(
        f"<secret ephemeral='yes' private='no'><uuid>{SECRET}</uuid>"
        "<usage type='volume'><volume>qmpsnap</volume></usage></secret>"
    )
    try:
        secret.setValue(_PASSPHRASE.encode())
        yield
    finally:
        secret.undefine()
