"""
Where an attack takes place: a guest that can be switched off and on, and others on its files.

What a guest stands on is told here in the test's own words: by what QEMU says to `query-block`, or,
while it is off, by its definition and the headers of the files.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.virt import find_domain, libvirt_module
from qmpsnap.operations.guest import Guest
from tests.chaos.model import Disk, by_headers
from tests.chaos.roads import DirectRoad, DirectRunning, LibvirtRunning, Running
from tests.rig import images, qemu_machine
from tests.rig.defined import defined
from tests.rig.disks import DiskSpec
from tests.rig.libvirt_machine import LibvirtDisk, domain_of, machine_of
from tests.rig.processes import process_of
from tests.rig.rig import Rig, Said, run_cli
from tests.rig.waiting import until

_NUMBERS: Final = itertools.count()


class Stage(ABC):
    """One guest with one disk; `with` ends it."""

    knows_those_off: bool
    """Whether the tool can know of a guest that is off."""

    def __init__(self, disk: Disk, scratch: Path) -> None:
        self.disk = disk
        self.scratch = scratch
        self.running: Running | None = None
        self._stack = ExitStack()
        self._of_run = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._stack.close()

    def start(self) -> None:
        """Switch it on."""
        self.running = self._of_run.enter_context(self._run())

    def end(self, *, kill: bool = False) -> None:
        """Switch it off, in an orderly way or not."""
        if self.running is None:
            return
        if kill:
            self.running.rig.kill()
        else:
            self.running.quit()
        self.running = None
        self._of_run.close()

    @property
    def has_ended(self) -> bool:
        """
        Whether QEMU has ended by itself.

        QEMU 7.2 does so in an active commit when it cannot open the base again by its name.
        """
        return self.running is not None and not self.running.rig.guest.running

    @abstractmethod
    def _run(self) -> AbstractContextManager[Running]: ...

    @abstractmethod
    def cli(self, command: str, *arguments: str) -> Said:
        """Give the tool a command about this guest."""

    @abstractmethod
    def call_beside(self, *arguments: str) -> Said | None:
        """Give another process of the tool a command about this guest; None: not here."""

    @abstractmethod
    def starts_from(self) -> tuple[Path, str]:
        """File and format that the next start opens."""

    @abstractmethod
    def begin_job(self, base: str, speed: int) -> None:
        """
        As another client, merge the active file into one below, and leave it at that.

        Args:
            base: The file below.
            speed: Bytes a second; 0 for no limit.
        """

    @abstractmethod
    def snapshot(self, file: Path) -> None:
        """As another client, take a snapshot: `file` becomes the active one."""

    @abstractmethod
    def another(self, file: Path) -> AbstractContextManager[Other]:
        """Another guest, whose disk is this qcow2 file."""

    def files(self) -> list[str]:
        """Bare names of the chain, active file first, as QEMU or the files tell."""
        if self.running is None:
            path, format = self.starts_from()
            return [name for name, _ in by_headers(path, format)]
        blocks = self.running.rig.guest.qmp("query-block")
        assert isinstance(blocks, list)
        (medium,) = (one["inserted"] for one in blocks if "inserted" in one)
        return [Path(name).name for name in _names(medium["image"])]


class Other(ABC):
    """A guest that has nothing to do with the tool."""

    @abstractmethod
    def start(self) -> bool:
        """Switch it on; tells whether it would start."""

    @abstractmethod
    def end(self) -> None:
        """Switch it off."""


def _names(image: dict[str, Any]) -> Iterator[str]:
    yield _name(image["filename"])
    if "backing-image" in image:
        yield from _names(image["backing-image"])


def _name(filename: str) -> str:
    """What QEMU calls an image: a name, or a tree of options where it has some of its own."""
    if not filename.startswith("json:"):
        return filename
    options = json.loads(filename.removeprefix("json:"))
    while "filename" not in options:
        options = options["file"]
    return str(options["filename"])


class DirectStage(Stage):
    """A QEMU of our own, and others beside it."""

    knows_those_off = False

    def _run(self) -> AbstractContextManager[Running]:
        return DirectRoad().start(self.scratch, [self.disk])

    def cli(self, command: str, *arguments: str) -> Said:
        """See `Stage.cli`."""
        assert self.running is not None
        return self.running.rig.cli(command, *arguments)

    def call_beside(self, *arguments: str) -> Said | None:
        """See `Stage.call_beside`: on a monitor of its own."""
        assert isinstance(self.running, DirectRunning)
        done = subprocess.run(
            [sys.executable, "-m", "qmpsnap", "--qmp", self.running.observed_at, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def starts_from(self) -> tuple[Path, str]:
        """See `Stage.starts_from`: whoever starts it goes by what the tool has said."""
        return self.disk.path(self.disk.active.file), self.disk.active.format

    def begin_job(self, base: str, speed: int) -> None:
        """See `Stage.begin_job`."""
        assert self.running is not None
        guest = self.running.rig.guest
        top, below = guest.active_node(self.disk.id), self._node_of(base)
        what = {"device": top, "base-node": below, "job-id": "theirs", "speed": speed}
        guest.qmp("block-commit", what)

    def snapshot(self, file: Path) -> None:
        """See `Stage.snapshot`."""
        assert self.running is not None
        guest = self.running.rig.guest
        node, below = guest.active_node(self.disk.id), self.disk.active
        images.create_qcow2(file, len(self.disk.content), below.file, below.format)
        name = f"node-{file.name[-8:]}"
        blockdev = {"driver": "qcow2", "node-name": name, "backing": None}
        guest.qmp("blockdev-add", {**blockdev, "file": {"driver": "file", "filename": str(file)}})
        try:
            guest.qmp("blockdev-snapshot", {"node": node, "overlay": name})
        except CommandFailed:
            guest.qmp("blockdev-del", {"node-name": name})
            file.unlink()
            raise

    def _node_of(self, file: str) -> str:
        assert self.running is not None
        nodes = self.running.rig.guest.qmp("query-named-block-nodes", {"flat": True})
        assert isinstance(nodes, list)
        return str(
            next(
                one["node-name"]
                for one in nodes
                if one["drv"] in ("raw", "qcow2") and Path(_name(one["file"])).name == file
            )
        )

    @contextmanager
    def another(self, file: Path) -> Iterator[Other]:
        """See `Stage.another`: nobody knows it while it is off."""
        other = _OtherQemu(file, self.scratch)
        try:
            yield other
        finally:
            other.end()


class _OtherQemu(Other):
    def __init__(self, file: Path, scratch: Path) -> None:
        self._file = file
        self._scratch = scratch
        self._stack = ExitStack()

    def start(self) -> bool:
        node = {"driver": "file", "filename": str(self._file)}
        blockdev = {"driver": "qcow2", "node-name": "disk", "file": node}
        spec = DiskSpec(blockdevs=(blockdev,), root="disk", id="vda")
        try:
            self._stack.enter_context(qemu_machine.run([spec], directory=self._scratch))
        except Exception:
            return False  # locked, or not there: QEMU has said so and ended
        return True

    def end(self) -> None:
        self._stack.close()


class LibvirtStage(Stage):
    """A guest that libvirt has defined."""

    knows_those_off = True

    def __init__(self, disk: Disk, scratch: Path, connection: Any) -> None:
        """`disk` stands in its definition."""
        super().__init__(disk, scratch)
        self._connection = connection
        self._name = f"attacked{next(_NUMBERS)}"
        described = LibvirtDisk(
            disk.path(disk.active.file), disk.active.format, disk.id, disk.serial
        )
        document = domain_of([described], self._name, os.environ.get("QMPSNAP_QEMU"))
        self._domain = connection.defineXML(etree.tostring(document).decode())
        metadata = libvirt_module().VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        self._stack.callback(self._domain.undefineFlags, metadata)

    @contextmanager
    def _run(self) -> Iterator[Running]:
        self._domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)

        @contextmanager
        def connect() -> Iterator[Guest]:
            guest = LibvirtGuest(find_domain(self._connection, self._name))
            try:
                yield guest
            finally:
                guest.close()

        with ExitStack() as stack:
            short = stack.enter_context(tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp"))
            machine = machine_of(self._domain, process_of(self._domain), Path(short), self.scratch)
            stack.callback(lambda: until(lambda: not self._domain.isActive(), "it goes on"))
            stack.callback(machine.quit)
            road = ["--connect", self._connection.getURI()]
            rig = Rig(machine, self.disk.folder, road, [self._name], connect, machine.kill)
            yield LibvirtRunning(rig, stack.enter_context(connect()))

    def cli(self, command: str, *arguments: str) -> Said:
        """See `Stage.cli`."""
        uri = self._connection.getURI()
        return run_cli(["--connect", uri, *command.split(), self._name, *arguments])

    def call_beside(self, *arguments: str) -> Said | None:
        """See `Stage.call_beside`: the driver is in this process."""
        return None

    def starts_from(self) -> tuple[Path, str]:
        """See `Stage.starts_from`: by its definition."""
        text = self._domain.XMLDesc(libvirt_module().VIR_DOMAIN_XML_INACTIVE)
        document = etree.fromstring(text)
        path = str(document.xpath("string(devices/disk/source/@file)"))
        return Path(path), str(document.xpath("string(devices/disk/driver/@type)"))

    def begin_job(self, base: str, speed: int) -> None:
        """See `Stage.begin_job`."""
        libvirt = libvirt_module()
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
        path = str(self.disk.path(base))
        self._domain.blockCommit(self.disk.id, path, None, speed, flags)

    def snapshot(self, file: Path) -> None:
        """See `Stage.snapshot`."""
        libvirt = libvirt_module()
        flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        source = E.disk(E.source(file=str(file)), name=self.disk.id, snapshot="external")
        document = etree.tostring(E.domainsnapshot(E.disks(source))).decode()
        self._domain.snapshotCreateXML(document, flags)

    @contextmanager
    def another(self, file: Path) -> Iterator[Other]:
        """See `Stage.another`."""
        with defined(self._connection, file, "qcow2") as guest:
            yield _OtherDefined(guest.domain)


class _OtherDefined(Other):
    def __init__(self, domain: Any) -> None:
        self._domain = domain

    def start(self) -> bool:
        libvirt = libvirt_module()
        try:
            self._domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        except libvirt.libvirtError:
            return False
        return True

    def end(self) -> None:
        if self._domain.isActive():
            self._domain.destroy()
