"""
A guest under libvirt: libvirt's API changes the chain, passthrough only reads it.

libvirt keeps its own picture of the graph and never asks QEMU for edges; a snapshot that is taken
behind its back leaves its XML wrong for ever, and the next start opens the old file.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty
from typing import Any, Final

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.errors import Failed, QmpsnapError, Refused, Unknown
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.graph import xml
from qmpsnap.graph.chain import host_path
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests.agent.quiescer import DomainQuiescer
from qmpsnap.guests.backing_names import plain_by_xml
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.content import digest_of_layers
from qmpsnap.guests.files.header import read_headers, synced
from qmpsnap.guests.files.neighbours import layer_paths, other_users, room_of, space_of
from qmpsnap.guests.files.overlay import discard_overlay, prepare_overlay
from qmpsnap.guests.libvirt.snapshots import recorded_snapshots
from qmpsnap.guests.qmp.flush import FlushUnsupported, check_closed, flush
from qmpsnap.guests.reader import MAX_STALL_S, GuestWouldStall, Reader, StreamLingers
from qmpsnap.guests.reconnect import connect_again
from qmpsnap.guests.settled import settled
from qmpsnap.monitor.base import CommandFailed, Event, reading
from qmpsnap.monitor.passthrough import (
    GuestNotRunning,
    MonitorBusy,
    PassthroughMonitor,
    PassthroughOff,
    in_time,
)
from qmpsnap.monitor.subscription import LIBVIRT_BLOCK_JOB
from qmpsnap.monitor.virt import LibvirtMissing, delivers_events, host_of, libvirt_module
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import NotFlushed, Overlay, Thawed
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import (
    DEFAULT_OPTIONS,
    MergeOptions,
    OnError,
    PauseUnsupported,
)
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.run_state import RUNNING, STILL, SUSPENDED, why_silent
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step

log = logging.getLogger(__name__)

SAFE_DEPTH: Final = 16
"""Layers up to which a nested reply is asked for: libvirt 11.3 loses the monitor at 26."""
SAFE_LAYERS: Final = 256
"""Layers of all disks up to which a nested reply stays far below libvirt's 10 MiB."""
LIST_TIMEOUT_S: Final = 5.0
"""libvirt lists all guests or none: it waits for one that is being ended (seen for minutes)."""
LOST_EVENT_S: Final = 2.0
"""How long after a job has vanished its event may still come."""
ASK_S: Final = 0.2
"""Seconds between two looks at a job where no event is to be expected."""
RECONNECT_S: Final = 15.0
"""How long libvirtd may take to be there again after the connection was lost: a restart."""
_MONITOR_BROKEN: Final = (
    "End of file from qemu monitor",
    "Unable to read from monitor",
    "Unable to write to monitor",
)
"""How libvirt words it (qemu_monitor.c) when QEMU ended in the middle of a command."""


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


@dataclass(eq=False)
class OnAnotherHost(Refused):
    """The guest can be looked at, but its files are not here."""

    msg = "the guest runs on {self.host}, and its files are there"
    remedy = "Run qmpsnap on that host."

    host: str


@dataclass(eq=False)
class NotByLibvirt(Refused):
    """libvirt's API has no such thing for block jobs."""

    msg = "libvirt cannot {self.verb} the job of {self.job}"
    remedy = (
        "Limit it (`qmpsnap set-speed`), cancel it (`qmpsnap cancel`) and delete again later, or "
        "pause the guest (`virsh suspend`)."
    )

    verb: str
    job: str


@dataclass(eq=False)
class GuestSleeps(Refused):
    """
    libvirt takes no snapshot of a guest that is suspended to RAM, though QEMU could.

    Source: qemuSnapshotCreateXML(), qemu_snapshot.c.
    """

    msg = "libvirt takes no snapshot of a guest that sleeps, and {self.guest} does"
    remedy = "Wake it (`virsh dompmwakeup {self.guest}`), then give the same command again."

    guest: str


@dataclass(eq=False)
class ActiveHeaderOnly(Refused):
    """libvirt has calls that write the header of a lower layer, but none without a merge."""

    msg = "libvirt can write the header of the active file anew, and {self.file} is not it"
    remedy = "Mend it when the guest is off."

    file: str


class LibvirtGuest(Closable):
    """One running guest of an open libvirt connection."""

    def __init__(
        self,
        domain: Any,
        *,
        passthrough: bool = True,
        connect: Callable[[], Any] | None = None,
        max_stall_s: float | None = MAX_STALL_S,
        closes: Any = None,
    ) -> None:
        """
        Use a `virDomain`.

        Args:
            domain: The guest.
            passthrough: False to do with the domain XML alone; it then never taints the guest.
            connect: Opens another connection to the same libvirt, when this one breaks; None when
                there is no way to.
            max_stall_s: As `Reader` takes it; what would take longer is done with the XML.
            closes: A connection that `close` closes; None: the domain's stays open.

        Raises:
            LibvirtMissing: libvirt-python is not installed.
        """
        self._domain = domain
        self._uuid: str = domain.UUIDString()
        self._connect = connect
        self._owned: list[Any] = [] if closes is None else [closes]
        self._followed: str | None = None
        self._hears = False
        self._libvirt = libvirt_module()
        self._monitor = PassthroughMonitor(domain)
        self._reader = Reader(self._monitor, max_stall_s=max_stall_s) if passthrough else None
        self._remote = host_of(domain.connect().getURI())
        self._off = "passthrough is switched off (--no-passthrough)"
        self._ended: JobView | None = None
        self._reason: str | None = None
        self._ready = False
        self._vanished: float | None = None
        self._quiescer = DomainQuiescer(domain)
        self._snapshot_xml = ""

    def clear(self) -> None:
        """See `Guest.clear`: libvirt clears away by itself."""

    def read(self) -> Disks:
        """
        See `Guest.read`: XML and graph side by side; the XML alone where QMP cannot be had.

        Raises:
            GuestNotRunning: The guest is off.
        """
        with reading():
            return settled(self._read)

    def _read(self) -> Disks:
        if not self._call("isActive", self._domain.isActive):
            raise GuestNotRunning(self._domain.name())
        domain = self._xml()
        answers = True
        if self._reader is not None:
            try:
                graph = self._graph(self._reader, domain)
            except GuestWouldStall as error:
                self._off = str(error)
            except MonitorBusy as error:
                self._off, answers = str(error), False  # this time
            except (PassthroughOff, LibvirtMissing) as error:
                self._reader, self._off = None, str(error)
            except StreamLingers:
                # libvirt lets its streams end by themselves, and dismisses them a moment later.
                self._off = "a pull is running, and QEMU can crash when it is read meanwhile"
            except CommandFailed as error:
                self._off = f"QEMU cannot list its nodes ({error.description})"
            else:
                bare = guest_from_graph(graph, guest=domain.name, domain=domain)
                headers = self._headers(bare)
                return guest_from_graph(graph, guest=domain.name, domain=domain, headers=headers)
        headers = self._headers(guest_from_xml(domain))
        report = guest_from_xml(
            domain, headers=headers, notes=(f"formats by XML alone: {self._off}",)
        )
        if not answers:
            return report
        return replace(report, disks=tuple(self._with_size(disk) for disk in report.disks))

    def _graph(self, reader: Reader, domain: xml.XmlDomain) -> Graph:
        return reader.read(
            nested_ok=stays_small(domain),
            names_are_plain=lambda: not self._remote and plain_by_xml(domain),
        )

    def _headers(self, bare: Disks) -> dict[str, Header]:
        """Of a guest on another host, the file of the same name here is another file."""
        return {} if self._remote else read_headers(bare.readable())

    def _with_size(self, disk: Disk) -> Disk:
        """Without QMP only libvirt knows the size of a raw active file."""
        if not disk.layers or disk.layers[0].virtual_size is not None:
            return disk
        try:
            size = int(in_time(lambda: self._domain.blockInfo(disk.disk))[0])
        except (self._libvirt.libvirtError, MonitorBusy):
            return disk
        return replace(disk, layers=(replace(disk.layers[0], virtual_size=size), *disk.layers[1:]))

    def surroundings(self, disk: Disk) -> Surroundings:
        """
        See `Guest.surroundings`: other processes by `/proc`, guests that are off by their XML.

        Every merge asks this first, so here it ends for a guest of another host.

        Of a guest that is off, the XML names the active file, whose header names the next one;
        what lies below that is not followed.
        """
        if self._remote:
            raise OnAnotherHost(self._remote)
        with reading():
            paths = layer_paths(disk)
            readers, notes = other_users(paths, disk.layers[0].path or "")
            found = {path: list(users) for path, users in readers.items()}
            try:
                off = in_time(lambda: list(self._of_guests_that_are_off()), LIST_TIMEOUT_S)
            except MonitorBusy:
                off = []
                notes = (*notes, "libvirt does not list the guests that are off: one is stuck")
            for guest, path in off:
                if path in paths:
                    found.setdefault(path, []).append(f"guest {guest}, which is off")
            recorded = self._call("listAllSnapshots", lambda: recorded_snapshots(self._domain))
        allocated, free = space_of(paths)
        return Surroundings(
            readers={path: tuple(users) for path, users in found.items()},
            recorded=recorded,
            migration=self.migration(),
            allocated=allocated,
            free=free,
            notes=notes,
        )

    def _of_guests_that_are_off(self) -> Iterator[tuple[str, str]]:
        connection = self._domain.connect()
        flags = self._libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE
        for other in self._call("listAllDomains", lambda: connection.listAllDomains(flags)):
            try:
                domain = xml.parse(other.XMLDesc(0))
            except (self._libvirt.libvirtError, xml.MalformedXml):
                continue  # undefined meanwhile
            report = guest_from_xml(domain)
            headers = read_headers(report.stated())
            for path in report.open_files:
                yield domain.name, path
                header = headers.get(path)
                if header is not None and header.backing_file is not None:
                    below = host_path(header.backing_file) or ""
                    yield domain.name, os.path.normpath(os.path.join(os.path.dirname(path), below))

    def migration(self) -> str | None:
        """
        See `Guest.migration`.

        libvirt refuses block jobs meanwhile by itself; said before, it says what is the matter.
        """
        if self._remote:
            raise OnAnotherHost(self._remote)
        outward = self._libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        inward = self._libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
        try:
            operation = self._domain.jobStats().get("operation")
        except self._libvirt.libvirtError:
            return None
        return {outward: "outgoing", inward: "incoming"}.get(operation)

    def run_state(self) -> str | None:
        """See `Guest.run_state`: libvirt's word as QEMU's, without asking QEMU."""
        libvirt = self._libvirt
        with reading():
            state, reason = self._call("state", self._domain.state)
        if state == libvirt.VIR_DOMAIN_PAUSED:
            return {
                libvirt.VIR_DOMAIN_PAUSED_IOERROR: "io-error",
                libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
                libvirt.VIR_DOMAIN_PAUSED_CRASHED: "guest-panicked",
                libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: "shutdown",
            }.get(reason, "paused")
        return {
            libvirt.VIR_DOMAIN_RUNNING: RUNNING,
            libvirt.VIR_DOMAIN_BLOCKED: RUNNING,
            libvirt.VIR_DOMAIN_SHUTDOWN: "shutdown",
            libvirt.VIR_DOMAIN_CRASHED: "guest-panicked",
            libvirt.VIR_DOMAIN_PMSUSPENDED: SUSPENDED,
        }.get(state)

    def is_still(self, disk: Disk) -> bool:
        """See `Guest.is_still`."""
        if self.run_state() not in STILL:
            return False
        self._flush(disk, disk.layers[0])
        return True

    def digest(self, layers: tuple[Layer, ...]) -> str:
        """See `Guest.digest`."""
        return digest_of_layers(layers)

    def prepare(self, plan: CreatePlan) -> Overlay:
        """
        See `Guest.prepare`.

        Raises:
            GuestSleeps: libvirt would refuse the switch.
        """
        self._check_awake()
        return prepare_overlay(plan)

    def _check_awake(self) -> None:
        if self.run_state() == SUSPENDED:
            raise GuestSleeps(self._domain.name())

    def discard(self, plan: CreatePlan) -> None:
        """See `Guest.discard`."""
        discard_overlay(plan)

    def open(self, plans: Sequence[CreatePlan]) -> None:
        """
        See `Guest.open`: libvirt opens the overlays itself; what it is told is made up here.

        The disks are named by their targets, not by paths as Nova does: a path may stand in two
        disks.
        """
        self._snapshot_xml = self._snapshot(plans)

    def _snapshot(self, plans: Sequence[CreatePlan]) -> str:
        chosen = {plan.disk.disk for plan in plans}
        targets = [disk.target for disk in self._xml().disks]
        document = E.domainsnapshot(
            E.disks(
                *(
                    E.disk(
                        E.driver(type="qcow2"),
                        E.source(file=plan.overlay),
                        name=plan.disk.disk,
                        snapshot="external",
                        type="file",
                    )
                    for plan in plans
                ),
                *(E.disk(name=name, snapshot="no") for name in targets if name not in chosen),
            )
        )
        return etree.tostring(document, encoding="unicode")

    def switch(self, plans: Sequence[CreatePlan]) -> None:
        """See `Guest.switch`: one `virDomainSnapshotCreateXML`, which is one transaction."""
        text, flags = self._snapshot_xml, self._snapshot_flags
        self._call("snapshotCreateXML", lambda: self._domain.snapshotCreateXML(text, flags))

    @property
    def _snapshot_flags(self) -> int:
        flags: int = (
            self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | self._libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        return flags

    def retract(self, plans: Sequence[CreatePlan]) -> None:
        """See `Guest.retract`: libvirt does so itself."""

    def freeze(self, limit_s: float) -> int:
        """See `Guest.freeze`; the agent of a guest that does not run is not waited for."""
        silent = why_silent(self.run_state())
        if silent is not None:
            raise CannotFreeze(silent)
        return self._quiescer.freeze(limit_s)

    def thaw(self, limit_s: float) -> Thawed:
        """See `Guest.thaw`."""
        return self._quiescer.thaw(limit_s)

    def _xml(self) -> xml.XmlDomain:
        return xml.parse(self._call("XMLDesc", lambda: self._domain.XMLDesc(0)))

    def attach(self, plan: MergePlan) -> str | None:
        """
        See `Guest.attach`: a running job of the same kind on the same disk.

        libvirt starts one job a disk at most, and does not tell its base; the fresh graph tells
        in the end whether it was this merge.
        """
        kinds = {
            "pull": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL,
            "commit": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT,
            "active-commit": self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
        }
        self.follow(plan.disk.disk)
        info = self._info(plan.disk.disk)
        return plan.disk.disk if info and info.get("type") == kinds[plan.kind] else None

    def follow(self, job: str) -> None:
        """See `Guest.follow`."""
        self._followed = job
        self._ended, self._reason, self._vanished = None, None, None
        self._watch()

    def _watch(self) -> None:
        """
        Listen from now on, where the program has an event loop for libvirt.

        Where it has none, or listens to the same itself, the job is asked for.
        """
        self._monitor.close()
        self._ready = False
        try:
            self._hears = delivers_events()
            if self._hears:
                self._call("domainEventRegisterAny", self._monitor.watch)
        except LibvirtRefused as error:
            self._hears = False
            log.info("no events of %s: %s", self._domain.name(), error)

    def start(self, plan: MergePlan, options: MergeOptions = DEFAULT_OPTIONS) -> str:
        """
        `virDomainBlockCommit`, `virDomainBlockPull` or `virDomainBlockRebase`.

        Layers are named by libvirt's own numbers, `vda[3]`: names may be relative or ambiguous.

        Raises:
            ActiveHeaderOnly: The header of a lower layer is to be written, and nothing merged.
            PauseUnsupported: libvirt gives QEMU no `on-error` for these jobs
                (qemuMonitorJSONBlockCommit(), qemu_monitor_json.c, read in one that has
                `backing-mask-protocol`); `<driver error_policy>` is about the guest's requests.
        """
        call, arguments = self._merge(plan, options)
        self._call(call, lambda: getattr(self._domain, call)(*arguments))
        return plan.disk.disk

    def _merge(self, plan: MergePlan, options: MergeOptions) -> tuple[str, tuple[Any, ...]]:
        """Return the method of `virDomain` for a merge, and its arguments."""
        if options.on_error is OnError.PAUSE:
            raise PauseUnsupported("libvirt's commits and pulls end on an error")
        disk, libvirt, speed = plan.disk.disk, self._libvirt, options.bandwidth or 0
        name = plan.backing_name
        relative = name is not None and not name.startswith("/")
        if plan.rewrites_only and plan.top.path != plan.disk.layers[0].path:
            raise ActiveHeaderOnly(plan.top.file)
        top, base = f"{disk}[{plan.top.index}]", plan.base and f"{disk}[{plan.base.index}]"
        if plan.kind == "commit":
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
            flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_RELATIVE if relative else 0
            return "blockCommit", (disk, base, top, speed, flags)
        if plan.kind == "active-commit":
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES
            flags |= libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
            return "blockCommit", (disk, base, None, speed, flags)
        if base is None:
            flags = libvirt.VIR_DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES
            return "blockPull", (disk, speed, flags)
        flags = libvirt.VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES
        flags |= libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE if relative else 0
        return "blockRebase", (disk, base, speed, flags)

    def steps_of_freeze(self) -> tuple[Step, Step]:
        """See `Guest.steps_of_freeze`."""
        return self._quiescer.steps()

    def steps_of_merge(self, plan: MergePlan, options: MergeOptions) -> tuple[Step, ...]:
        """See `Guest.steps_of_merge`."""
        call, arguments = self._merge(plan, options)
        names = {
            "blockCommit": ("disk", "base", "top", "bandwidth", "flags"),
            "blockPull": ("disk", "bandwidth", "flags"),
            "blockRebase": ("disk", "base", "bandwidth", "flags"),
        }[call]
        steps = [Step(by="libvirt", what=call, arguments=dict(zip(names, arguments, strict=True)))]
        if plan.kind == "active-commit":
            flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
            pivot = {"disk": plan.disk.disk, "flags": flags}
            steps.append(Step(by="libvirt", what="blockJobAbort", arguments=pivot))
        if plan.kind == "pull" and not plan.rewrites_only:
            flags = self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
            size = {"disk": plan.disk.disk, "size": plan.top.virtual_size, "flags": flags}
            steps.append(Step(by="libvirt", what="blockResize", arguments=size))
        return tuple(steps)

    def steps_of_create(self, plans: Sequence[CreatePlan]) -> tuple[Step, ...]:
        """
        See `Guest.steps_of_create`.

        Raises:
            GuestSleeps: libvirt would refuse it.
        """
        self._check_awake()
        arguments = {"xml": self._snapshot(plans), "flags": self._snapshot_flags}
        return (Step(by="libvirt", what="snapshotCreateXML", arguments=arguments),)

    def view(self, job: str) -> JobView:
        """
        See `Guest.view`: libvirt's events say how a job ended, its job info how far it is.

        A job that vanished without an event (lost, or over before we listened) is ended without
        an error of its own; the graph decides. That a mirror is ready is read where no event has
        told it: there may be none, or the connection was opened before there was an event loop
        and hears of its events only when it is used.
        """
        if self._ended is not None:
            return replace(self._ended, error=self._reason if self._ended.error else None)
        info = self._info(job)
        if info:
            self._vanished = None
            active = self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT
            if not self._ready and info.get("type") == active:
                disks = self._xml().disks
                self._ready = any(disk.target == job and disk.mirror_ready for disk in disks)
            status = JobStatus.READY if self._ready else JobStatus.RUNNING
            return JobView(status=status, current=info.get("cur", 0), total=info.get("end", 0))
        self._vanished = self._vanished or time.monotonic()
        patience = LOST_EVENT_S if self._hears else 0
        if time.monotonic() - self._vanished > patience:
            return JobView(status=JobStatus.NULL)
        return JobView(status=JobStatus.UNDEFINED)

    def _info(self, disk: str) -> Mapping[str, int]:
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES
        answer = self._call("blockJobInfo", lambda: self._domain.blockJobInfo(disk, flags))
        return answer if isinstance(answer, dict) else {}

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Guest.jobs`: libvirt has one a disk at most, and calls it by the disk's name."""
        types = {
            self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: "stream",
            self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: "mirror",
            self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: "commit",
            self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: "commit",
            self._libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP: "backup",
        }
        found = []
        for disk in self._xml().disks:
            info = self._info(disk.target) if disk.target else {}
            if not info:
                continue
            status = JobStatus.READY if disk.mirror_ready else JobStatus.RUNNING
            found.append(
                JobReport(
                    id=disk.target,
                    type=types.get(info.get("type", 0), "unknown"),
                    disk=disk.target,
                    view=JobView(
                        status=status, current=info.get("cur", 0), total=info.get("end", 0)
                    ),
                    bandwidth=info.get("bandwidth"),
                    ours=None,
                )
            )
        return tuple(found)

    def cancel(self, job: str) -> bool:
        """See `Guest.cancel`: `virDomainBlockJobAbort`; not while libvirt pivots."""
        try:
            self._take(self.step_of(Verb.CANCEL, job))
        except self._libvirt.libvirtError as error:
            ending = error.get_error_code() == self._libvirt.VIR_ERR_OPERATION_INVALID
            if ending or not self._info(job):
                return False
            raise self._translated("blockJobAbort", error) from error
        return True

    def pause(self, job: str) -> None:
        """
        See `Guest.pause`; libvirt's API has none, and 1 byte a second is no pause.

        Raises:
            NotByLibvirt: Always.
        """
        self.step_of(Verb.PAUSE, job)

    def resume(self, job: str) -> None:
        """
        See `Guest.resume`.

        Raises:
            NotByLibvirt: Always.
        """
        self.step_of(Verb.RESUME, job)

    def set_speed(self, job: str, bandwidth: int) -> None:
        """See `Guest.set_speed`."""
        step = self.step_of(Verb.SET_SPEED, job, bandwidth)
        self._call(step.what, lambda: self._take(step))

    def step_of(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """
        See `Guest.step_of`.

        Raises:
            NotByLibvirt: Its API has no such thing.
        """
        if verb is Verb.CANCEL:
            flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
            return Step(by="libvirt", what="blockJobAbort", arguments={"disk": job, "flags": flags})
        if verb is not Verb.SET_SPEED:
            raise NotByLibvirt(verb, job)
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
        arguments = {"disk": job, "bandwidth": bandwidth, "flags": flags}
        return Step(by="libvirt", what="blockJobSetSpeed", arguments=arguments)

    def _take(self, step: Step) -> None:
        getattr(self._domain, step.what)(*step.arguments.values())

    def room(self, layer: Layer) -> Room | None:
        """See `Guest.room`."""
        return room_of(layer.path)

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Guest.reconnect`: libvirtd was restarted; its jobs go on in QEMU, and it finds them."""
        if self._connect is None or self._is_connected():
            return False
        connection = connect_again(self._connect, RECONNECT_S)
        if connection is None:
            return False
        self._owned.append(connection)
        try:
            self._domain = connection.lookupByUUIDString(self._uuid)
        except self._libvirt.libvirtError:
            return False  # the guest ended meanwhile
        self._monitor.close()
        self._monitor = PassthroughMonitor(self._domain)
        if self._reader is not None:
            # Somebody waits to hear what became of a change.
            self._reader = Reader(self._monitor, max_stall_s=None)
        if self._followed is not None:
            self._watch()
        return True

    def _is_connected(self) -> bool:
        try:
            return bool(self._domain.connect().isAlive())
        except self._libvirt.libvirtError:
            return False

    def wait(self, job: str, timeout: float) -> None:
        """See `Guest.wait`: until libvirt says something about the disk's job."""
        if self._vanished is not None or not self._hears:
            timeout = min(timeout, ASK_S)
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
        """
        See `Guest.pivot`: `virDomainBlockJobAbort` with PIVOT.

        ASYNC, or the call would last until the mirror has caught up with a guest that writes.
        """
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        flags |= self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
        try:
            self._domain.blockJobAbort(job, flags)
        except self._libvirt.libvirtError as error:
            # Not ready after all, cancelled by somebody else just now, or still being ended.
            not_now = {
                self._libvirt.VIR_ERR_BLOCK_COPY_ACTIVE,
                self._libvirt.VIR_ERR_OPERATION_INVALID,
            }
            if error.get_error_code() in not_now or not self._info(job):
                return False
            raise self._translated("blockJobAbort", error) from error
        return True

    def finalize(self, plan: MergePlan, job: str) -> None:
        """libvirt finalizes its jobs by itself; `settle` flushes afterwards."""

    def dismiss(self, job: str) -> None:
        """libvirt dismisses its jobs by itself."""

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        """
        Flush after a pull; after a commit see whether QEMU has.

        libvirt does not: with 9.0 and QEMU 7.2 killed at the completion event, 16 MiB of 16 were
        gone, 3 times of 3; after a resize to the same size nothing was lost.
        """
        if plan.rewrites_only:
            return synced(plan.top.path)
        if plan.kind == "pull":
            self._flush(plan.disk, plan.top)
        if plan.kind == "commit" and self._reader is not None:
            try:
                check_closed(self._graph(self._reader, self._xml()), plan)
            except (PassthroughOff, StreamLingers, GuestWouldStall, CommandFailed):
                return (f"whether {plan.base and plan.base.file} was flushed could not be seen",)
        return ()

    def _flush(self, disk: Disk, layer: Layer) -> None:
        """
        Flush a disk's active layer, by a resize to the size that it has.

        Raises:
            NotFlushed: Neither that nor a flush by HMP was possible.
        """
        size = layer.virtual_size
        if size is None:
            size = int(self._call("blockInfo", lambda: self._domain.blockInfo(disk.disk))[0])
        flags = self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        try:
            self._call("blockResize", lambda: self._domain.blockResize(disk.disk, size, flags))
        except LibvirtRefused as error:
            # With an NBD export or a backup on the disk nobody may resize; a flush by HMP changes
            # nothing that libvirt tracks.
            self._flush_by_hmp(layer, error)

    def _flush_by_hmp(self, layer: Layer, refused: LibvirtRefused) -> None:
        if self._reader is None:
            raise NotFlushed(layer.file, refused.reason) from refused
        try:
            problem = flush(self._monitor, layer)
        except (FlushUnsupported, PassthroughOff) as error:
            problem = str(error)
        if problem is not None:
            raise NotFlushed(layer.file, problem) from refused

    def _let_go(self) -> None:
        self._monitor.close()
        while self._owned:
            with suppress(self._libvirt.libvirtError):
                self._owned.pop().close()

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
        # For a moment after QEMU's end libvirt still calls the guest active.
        broken = any(words in str(error) for words in _MONITOR_BROKEN)
        if code in gone and (broken or not self._alive()):
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
