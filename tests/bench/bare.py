"""
The same operations as somebody would have them done without qmpsnap: the block job and no more.

The disk has one layer, the volume, over which `s1` and `s2` are put. The middle one is merged down
or up, or `s1` is when it is the active one.
"""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Protocol

from qmpsnap.monitor.virt import libvirt_module
from tests.bench.plain import Plain
from tests.rig.daemon import Daemon
from tests.rig.rig import DISK

_JOB: Final = "bare"
_COMPLETED: Final = "BLOCK_JOB_COMPLETED"
_READY: Final = "BLOCK_JOB_READY"


class Bare(Protocol):
    """Does it, and looks neither before nor after."""

    def create(self, below: Path, overlay: Path) -> None:
        """Have a new file made and put it over the active one."""

    def commit(self, base: Path, top: Path) -> None:
        """Merge the layer below the active one down."""

    def commit_active(self) -> None:
        """Merge the active one down."""

    def pull(self, base: Path) -> None:
        """Merge the layer below the active one up into it."""

    def flush(self, size: int) -> None:
        """Have written what a pull has copied: without that it can be lost."""


class BareQmp:
    """Over QMP. A node is called as its file, the volume's as the rig has called it."""

    def __init__(self, client: Plain) -> None:
        """Use a monitor of one's own."""
        self._client = client
        self._active = ""

    def create(self, below: Path, overlay: Path) -> None:
        """See `Bare.create`."""
        self._active = overlay.name
        self._do(
            "blockdev-snapshot-sync",
            node_name=_node(below),
            snapshot_file=str(overlay),
            snapshot_node_name=overlay.name,
            format="qcow2",
        )

    def commit(self, base: Path, top: Path) -> None:
        """See `Bare.commit`."""
        self._do(
            "block-commit",
            job_id=_JOB,
            device=self._active,
            top_node=_node(top),
            base_node=_node(base),
        )
        self._client.wait(_COMPLETED, _JOB)

    def commit_active(self) -> None:
        """See `Bare.commit_active`."""
        self._do("block-commit", job_id=_JOB, device=self._active)
        self._client.wait(_READY, _JOB)
        self._do("job-complete", id=_JOB)
        self._client.wait(_COMPLETED, _JOB)

    def pull(self, base: Path) -> None:
        """See `Bare.pull`."""
        self._do("block-stream", job_id=_JOB, device=self._active, base_node=_node(base))
        self._client.wait(_COMPLETED, _JOB)

    def flush(self, size: int) -> None:
        """See `Bare.flush`."""
        self._do("block_resize", node_name=self._active, size=size)

    def _do(self, command: str, **arguments: object) -> None:
        answer = self._client.execute(command, **arguments)
        assert "return" in answer, answer


def _node(file: Path) -> str:
    return file.name if "." in file.name else f"{DISK}-0-fmt"


class BareLibvirt:
    """By libvirt-python, with libvirt's events."""

    def __init__(self, domain: Any) -> None:
        """Listen to all guests: one registration for this one is left to qmpsnap."""
        self._libvirt = libvirt_module()
        self._domain = domain
        self._events: SimpleQueue[int] = SimpleQueue()
        self._registered = domain.connect().domainEventRegisterAny(
            None,
            self._libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
            lambda _connection, _domain, _disk, _kind, status, _opaque: self._events.put(status),
            None,
        )

    def close(self) -> None:
        """Listen no more."""
        self._domain.connect().domainEventDeregisterAny(self._registered)

    def create(self, below: Path, overlay: Path) -> None:
        """See `Bare.create`."""
        libvirt = self._libvirt
        self._domain.snapshotCreateXML(
            f"<domainsnapshot><disks><disk name='{DISK}' snapshot='external'>"
            f"<driver type='qcow2'/><source file='{overlay}'/></disk></disks></domainsnapshot>",
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC,
        )

    def commit(self, base: Path, top: Path) -> None:
        """See `Bare.commit`."""
        self._forget()
        self._domain.blockCommit(DISK, str(base), str(top), 0, 0)
        self._wait(self._libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)

    def commit_active(self) -> None:
        """See `Bare.commit_active`."""
        libvirt = self._libvirt
        self._forget()
        self._domain.blockCommit(DISK, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        self._wait(libvirt.VIR_DOMAIN_BLOCK_JOB_READY)
        self._domain.blockJobAbort(DISK, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        self._wait(libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)

    def pull(self, base: Path) -> None:
        """See `Bare.pull`."""
        self._forget()
        self._domain.blockRebase(DISK, str(base), 0, 0)
        self._wait(self._libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED)

    def flush(self, size: int) -> None:
        """See `Bare.flush`."""
        self._domain.blockResize(DISK, size, self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def _forget(self) -> None:
        """Drop the events of jobs that others have run."""
        while not self._events.empty():
            self._events.get()

    def _wait(self, status: int) -> None:
        while self._events.get() != status:
            pass


class Virsh:
    """By virsh, which starts jobs, waits for them and pivots."""

    def __init__(self, libvirtd: Daemon, guest: str) -> None:
        """Use a guest of a libvirtd."""
        self._libvirtd = libvirtd
        self._guest = guest

    def create(self, below: Path, overlay: Path) -> None:
        """See `Bare.create`."""
        disk = f"{DISK},snapshot=external,driver=qcow2,file={overlay}"
        kind = ("--disk-only", "--no-metadata", "--atomic")
        self._run("snapshot-create-as", *kind, "--diskspec", disk)

    def commit(self, base: Path, top: Path) -> None:
        """See `Bare.commit`."""
        self._run("blockcommit", DISK, "--base", str(base), "--top", str(top), "--wait")

    def commit_active(self) -> None:
        """See `Bare.commit_active`."""
        self._run("blockcommit", DISK, "--active", "--pivot")

    def pull(self, base: Path) -> None:
        """See `Bare.pull`."""
        self._run("blockpull", DISK, "--base", str(base), "--wait")

    def flush(self, size: int) -> None:
        """See `Bare.flush`."""
        self._run("blockresize", DISK, f"{size}b")

    def _run(self, what: str, *arguments: str) -> None:
        self._libvirtd.run(["virsh", "-c", self._libvirtd.uri, what, self._guest, *arguments])
