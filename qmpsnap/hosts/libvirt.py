"""
A guest under libvirt: libvirt's API changes the chain, passthrough only reads it.

libvirt keeps its own picture of the graph and never asks QEMU for edges; a snapshot that is taken
behind its back leaves its XML wrong for ever, and the next start opens the old file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import Empty
from typing import Any, Final

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.errors import Failed, QmpsnapError, Unknown
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import DiskReport, GuestReport
from qmpsnap.graph import xml
from qmpsnap.hosts.flushing import FlushUnsupported, flush
from qmpsnap.hosts.headers import read_headers
from qmpsnap.hosts.overlay import discard_overlay, prepare_overlay
from qmpsnap.hosts.reading import Reader, StreamLingers
from qmpsnap.monitor.base import Event, reading
from qmpsnap.monitor.passthrough import (
    LIBVIRT_BLOCK_JOB,
    GuestNotRunning,
    MonitorBusy,
    PassthroughMonitor,
    PassthroughOff,
    in_time,
)
from qmpsnap.monitor.virt import LibvirtMissing, libvirt_module
from qmpsnap.operations.host import NotFlushed, Overlay
from qmpsnap.operations.jobs import JobStatus, JobView
from qmpsnap.operations.plan_create import CreatePlan
from qmpsnap.operations.plan_delete import MergePlan

SAFE_DEPTH: Final = 16
"""Layers up to which a nested reply is asked for: libvirt 11.3 loses the monitor at 26."""
SAFE_LAYERS: Final = 256
"""Layers of all disks up to which a nested reply stays far below libvirt's 10 MiB."""
LOST_EVENT_S: Final = 2.0
"""How long after a job has vanished its event may still come."""


@dataclass(eq=False)
class LibvirtRefused(Failed):
    """libvirt answered a call that changes the chain with an error; the chain is as it was."""

    msg = "libvirt refused {self.call}: {self.reason}"
    remedy = "Mend the cause, then give the same command again."
    changed = "no"

    call: str
    reason: str


@dataclass(eq=False)
class LibvirtLost(Unknown):
    """The connection to libvirt, or the guest, went away in mid-call."""

    msg = "the connection to libvirt broke during {self.call}: {self.reason}"
    remedy = "Look at the guest with `qmpsnap chain`; the same command may then be given again."

    call: str
    reason: str


class LibvirtHost:
    """One running guest of an open libvirt connection."""

    def __init__(self, domain: Any, *, passthrough: bool = True) -> None:
        """
        Use a `virDomain`.

        Args:
            domain: The guest.
            passthrough: False to do with the domain XML alone; it then never taints the guest.

        Raises:
            LibvirtMissing: libvirt-python is not installed.
        """
        self._domain = domain
        self._libvirt = libvirt_module()
        self._monitor = PassthroughMonitor(domain)
        self._reader = Reader(self._monitor) if passthrough else None
        self._off = "passthrough is switched off (--no-passthrough)"
        self._ended: JobView | None = None
        self._reason: str | None = None
        self._ready = False
        self._vanished: float | None = None

    def read(self) -> GuestReport:
        """
        See `Host.read`: XML and graph side by side; the XML alone where QMP cannot be had.

        Raises:
            GuestNotRunning: The guest is off.
        """
        with reading():
            return self._read()

    def _read(self) -> GuestReport:
        if not self._call("isActive", self._domain.isActive):
            raise GuestNotRunning(self._domain.name())
        domain = self._xml()
        answers = True
        if self._reader is not None:
            try:
                graph = self._reader.read(nested_ok=stays_small(domain))
            except MonitorBusy as error:
                self._off, answers = str(error), False  # this time
            except (PassthroughOff, LibvirtMissing) as error:
                self._reader, self._off = None, str(error)
            except StreamLingers:
                # libvirt lets its streams end by themselves, and dismisses them a moment later.
                self._off = "a pull is running, and QEMU can crash when it is read meanwhile"
            else:
                bare = guest_from_graph(graph, guest=domain.name, domain=domain)
                headers = read_headers(bare.stated())
                return guest_from_graph(graph, guest=domain.name, domain=domain, headers=headers)
        headers = read_headers(guest_from_xml(domain).stated())
        report = guest_from_xml(
            domain, headers=headers, notes=(f"formats by XML alone: {self._off}",)
        )
        if not answers:
            return report
        return replace(report, disks=tuple(self._with_size(disk) for disk in report.disks))

    def _with_size(self, disk: DiskReport) -> DiskReport:
        """Without QMP only libvirt knows the size of a raw active file."""
        if not disk.layers or disk.layers[0].virtual_size is not None:
            return disk
        try:
            size = int(in_time(lambda: self._domain.blockInfo(disk.disk))[0])
        except (self._libvirt.libvirtError, MonitorBusy):
            return disk
        return replace(disk, layers=(replace(disk.layers[0], virtual_size=size), *disk.layers[1:]))

    def prepare(self, plan: CreatePlan) -> Overlay:
        """See `Host.prepare`."""
        return prepare_overlay(plan)

    def discard(self, plan: CreatePlan) -> None:
        """See `Host.discard`."""
        discard_overlay(plan)

    def switch(self, plan: CreatePlan) -> None:
        """
        `virDomainSnapshotCreateXML` with the overlay that `prepare` has seen to.

        The disk is named by its target, not by its path as Nova does: a path may stand in two
        disks.
        """
        targets = [disk.target for disk in self._xml().disks]
        others = [target for target in targets if target != plan.disk.disk]
        document = E.domainsnapshot(
            E.disks(
                E.disk(
                    E.driver(type="qcow2"),
                    E.source(file=plan.overlay),
                    name=plan.disk.disk,
                    snapshot="external",
                    type="file",
                ),
                *(E.disk(name=target, snapshot="no") for target in others),
            )
        )
        flags = (
            self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        text = etree.tostring(document, encoding="unicode")
        self._call("snapshotCreateXML", lambda: self._domain.snapshotCreateXML(text, flags))

    def _xml(self) -> xml.XmlDomain:
        return xml.parse(self._call("XMLDesc", lambda: self._domain.XMLDesc(0)))

    def attach(self, plan: MergePlan) -> str | None:
        """
        See `Host.attach`: a running job of the same kind on the same disk.

        libvirt starts one job a disk at most, and does not tell its base; the fresh graph tells
        in the end whether it was this merge.
        """
        self._watch()
        kinds = {
            "pull": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL,
            "commit": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT,
            "active-commit": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
        }
        info = self._info(plan.disk.disk)
        if not info or info.get("type") != kinds[plan.kind]:
            return None
        # The event that told that the mirror is ready may be long gone.
        self._ready = any(
            disk.target == plan.disk.disk and disk.mirror_ready for disk in self._xml().disks
        )
        return plan.disk.disk

    def start(self, plan: MergePlan) -> str:
        """
        `virDomainBlockCommit`, `virDomainBlockPull` or `virDomainBlockRebase`.

        Layers are named by libvirt's own numbers, `vda[3]`: names may be relative or ambiguous.
        """
        disk, libvirt = plan.disk.disk, self._libvirt
        name = plan.backing_name
        relative = name is not None and not name.startswith("/")
        top, base = f"{disk}[{plan.top.index}]", plan.base and f"{disk}[{plan.base.index}]"
        if plan.kind == "commit":
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE if relative else 0
            self._call("blockCommit", lambda: self._domain.blockCommit(disk, base, top, 0, flags))
        elif plan.kind == "active-commit":
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            self._call("blockCommit", lambda: self._domain.blockCommit(disk, base, None, 0, flags))
        elif base is None:
            self._call("blockPull", lambda: self._domain.blockPull(disk, 0, 0))
        else:
            flags = libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE if relative else 0
            self._call("blockRebase", lambda: self._domain.blockRebase(disk, base, 0, flags))
        return disk

    def view(self, job: str) -> JobView:
        """
        See `Host.view`: libvirt's events say how a job ended, its job info how far it is.

        A job that vanished without an event (lost, or over before we listened) is ended without
        an error of its own; the graph decides.
        """
        if self._ended is not None:
            return replace(self._ended, error=self._reason if self._ended.error else None)
        info = self._info(job)
        if info:
            self._vanished = None
            status = JobStatus.READY if self._ready else JobStatus.RUNNING
            return JobView(status=status, current=info.get("cur", 0), total=info.get("end", 0))
        self._vanished = self._vanished or time.monotonic()
        if time.monotonic() - self._vanished > LOST_EVENT_S:
            return JobView(status=JobStatus.NULL)
        return JobView(status=JobStatus.UNDEFINED)

    def _info(self, disk: str) -> Mapping[str, int]:
        answer = self._call("blockJobInfo", lambda: self._domain.blockJobInfo(disk, 0))
        return answer if isinstance(answer, dict) else {}

    def _watch(self) -> None:
        self._ended, self._reason, self._ready, self._vanished = None, None, False, None
        self._monitor.close()
        self._monitor.watch()

    def wait(self, job: str, timeout: float) -> None:
        """See `Host.wait`: until libvirt says something about the disk's job."""
        if self._vanished is not None:
            timeout = min(timeout, 0.2)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._monitor.events.get(timeout=left)
            except Empty:
                return
            if self._takes(event, job):
                return

    def _takes(self, event: Event, disk: str) -> bool:
        """Note what an event says; True when it changes how the job stands."""
        if event.name != LIBVIRT_BLOCK_JOB:
            # Only QEMU's own event has the error's text.
            error = event.data.get("error")
            if event.name == "BLOCK_JOB_COMPLETED" and isinstance(error, str):
                self._reason = error
            return False
        if event.data.get("disk") != disk:
            return False
        match event.data.get("status"):
            case self._libvirt.VIR_DOMAIN_BLOCK_JOB_READY:
                self._ready = True
            case self._libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED:
                self._ended = JobView(status=JobStatus.CONCLUDED)
            case self._libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED:
                self._reason = self._reason or "it was cancelled"
                self._ended = JobView(status=JobStatus.CONCLUDED, error=self._reason)
            case _:
                self._reason = self._reason or "libvirt does not say why"
                self._ended = JobView(status=JobStatus.CONCLUDED, error=self._reason)
        return True

    def pivot(self, job: str) -> bool:
        """See `Host.pivot`: `virDomainBlockJobAbort` with PIVOT."""
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        try:
            self._domain.blockJobAbort(job, flags)
        except self._libvirt.libvirtError as error:
            not_ready = error.get_error_code() == self._libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
            if not_ready or not self._info(job):
                return False  # not ready after all, or cancelled by somebody else just now
            raise self._translated("blockJobAbort", error) from error
        return True

    def finalize(self, plan: MergePlan, job: str) -> None:
        """libvirt finalizes its jobs by itself; `settle` flushes afterwards."""

    def dismiss(self, job: str) -> None:
        """libvirt dismisses its jobs by itself."""

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        """
        Flush after a pull.

        libvirt does not: with 9.0 and QEMU 7.2 killed at the completion event, 16 MiB of 16 were
        gone, 3 times of 3; after a resize to the same size nothing was lost.
        """
        if plan.kind == "pull":
            try:
                self._resize_to_same(plan)
            except LibvirtRefused as error:
                # With an NBD export or a backup on the disk nobody may resize; a flush by HMP
                # changes nothing that libvirt tracks.
                self._flush_by_hmp(plan, error)
        return ()

    def _resize_to_same(self, plan: MergePlan) -> None:
        disk, size = plan.disk.disk, plan.top.virtual_size
        if size is None:
            size = int(self._call("blockInfo", lambda: self._domain.blockInfo(disk))[0])
        flags = self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self._call("blockResize", lambda: self._domain.blockResize(disk, size, flags))

    def _flush_by_hmp(self, plan: MergePlan, refused: LibvirtRefused) -> None:
        if self._reader is None:
            raise NotFlushed(plan.top.file, refused.reason) from refused
        try:
            problem = flush(self._monitor, plan.top)
        except (FlushUnsupported, PassthroughOff) as error:
            problem = str(error)
        if problem is not None:
            raise NotFlushed(plan.top.file, problem) from refused

    def close(self) -> None:
        """Stop listening; connection and guest go on."""
        self._monitor.close()

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._libvirt.libvirtError as error:
            raise self._translated(name, error) from error

    def _translated(self, call: str, error: Any) -> QmpsnapError:
        code = error.get_error_code()
        gone = {
            self._libvirt.VIR_ERR_NO_DOMAIN,
            self._libvirt.VIR_ERR_RPC,
            self._libvirt.VIR_ERR_SYSTEM_ERROR,
            self._libvirt.VIR_ERR_INTERNAL_ERROR,
        }
        if code in gone and not self._alive():
            return LibvirtLost(call, str(error))
        return LibvirtRefused(call, str(error))

    def _alive(self) -> bool:
        try:
            return bool(self._domain.isActive())
        except self._libvirt.libvirtError:
            return False


def stays_small(domain: xml.XmlDomain) -> bool:
    """Whether nested replies about this guest are far from what breaks libvirt's monitor."""
    depths = [len(disk.layers) for disk in domain.disks]
    return max(depths, default=0) <= SAFE_DEPTH and sum(depths) <= SAFE_LAYERS
