"""
A guest under libvirt: libvirt's API changes the chain, passthrough only reads it.

Passthrough taints the guest, and may be switched off; then the domain XML and the headers say what
there is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any, Final

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.formats import from_graph, from_xml
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.formats.qcow2 import Header
from qmpsnap.graph import xml
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests.agent.quiescer import DomainQuiescer
from qmpsnap.guests.backing_names import plain_by_xml
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.door import FileDoor
from qmpsnap.guests.files.header import read_headers
from qmpsnap.guests.files.looks import LocalFiles
from qmpsnap.guests.files.opened import Hidden, compared, held_by, unseen
from qmpsnap.guests.files.sizes import with_raw_sizes
from qmpsnap.guests.libvirt import door
from qmpsnap.guests.libvirt.jobs import heard_in, info_of, may_be_ready, reports_of, view_of
from qmpsnap.guests.libvirt.neighbours import surroundings_of
from qmpsnap.guests.libvirt.process import pid_of
from qmpsnap.guests.libvirt.steps import LibvirtComposer
from qmpsnap.guests.qmp.outline import outlines
from qmpsnap.guests.qmp.subclusters import copies_into_subclusters
from qmpsnap.guests.reader import MAX_STALL_S, GuestWouldStall, Reader, StreamLingers
from qmpsnap.guests.reconnect import connect_again
from qmpsnap.guests.settled import settled
from qmpsnap.monitor.base import CommandFailed, reading, stirred
from qmpsnap.monitor.memory import qemu_process
from qmpsnap.monitor.passthrough import (
    GuestNotRunning,
    MonitorBusy,
    PassthroughMonitor,
    PassthroughOff,
    in_time,
)
from qmpsnap.monitor.virt import LibvirtMissing, delivers_events, host_of, libvirt_module
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Outline, State
from qmpsnap.operations.job.states import Heard, JobReport, JobView
from qmpsnap.operations.run_state import RUNNING, SUSPENDED
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.where import Where

log = logging.getLogger(__name__)

_NODES_UNSEEN: Final = (
    "whether the guest's own QEMU reads these files by other nodes as well, as for an export, could "
    "not be seen: only the XML was read"
)
_UNKNOWN: Final = Hidden(why="which process is its QEMU could not be found out", here=True)
SAFE_DEPTH: Final = 16
"""Layers up to which a nested reply is asked for: libvirt 11.3 loses the monitor at 26."""
SAFE_LAYERS: Final = 256
"""Layers of all disks up to which a nested reply stays far below libvirt's 10 MiB."""
ASK_S: Final = 0.2
"""Seconds between two looks at a job where no event is to be expected."""
WITHOUT_EVENTS_S: Final = 1.0
"""The same where nobody waits for its end."""
RECONNECT_S: Final = 60.0
"""How long libvirtd may take to be there again after the connection was lost: a restart, in which it
asks each QEMU program what it can do and each guest how it is. The job goes on meanwhile."""


class OnAnotherHost(Refused):
    """The guest can be looked at, but its files are not here."""

    msg = "the guest runs on {self.host}, and its files are there"
    remedy = "Run qmpsnap on that host."

    host: str


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
        self._follows = self._hears = False
        self._libvirt = libvirt_module()
        self._monitor = PassthroughMonitor(domain)
        process = qemu_process(pid_of(domain))
        self._reader = (
            Reader(self._monitor, max_stall_s=max_stall_s, process=process) if passthrough else None
        )
        uri = domain.connect().getURI()
        self._remote = host_of(uri)
        self.where = Where(
            road="libvirt",
            at=uri,
            guest=self._uuid,
            process=None if process is None else (process.pid, process.started),
        )
        self._off = "passthrough is switched off (--no-passthrough)"
        self._quiescer = DomainQuiescer(domain)
        self.files = LocalFiles()
        self._file_door = FileDoor()
        self.compose = LibvirtComposer(self._libvirt, domain.name(), passthrough=passthrough)

    def _let_go(self) -> None:
        self._file_door.close()
        self._monitor.close()
        while self._owned:
            with suppress(self._libvirt.libvirtError):
                self._owned.pop().close()

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Jobs.reconnect`: libvirtd was restarted; its jobs go on in QEMU, and it finds them."""
        if self._connect is None or self._is_connected():
            return False
        connection = connect_again(self._connect, RECONNECT_S)
        if connection is None:
            return False
        self._owned.append(connection)
        try:
            self._domain = connection.lookupByUUIDString(self._uuid)
        except self._libvirt.libvirtError:
            return False  # the guest has ended
        self._monitor.close()
        self._monitor = PassthroughMonitor(self._domain)
        if self._reader is not None:
            # Somebody waits to hear what became of a change.
            self._reader = Reader(self._monitor, max_stall_s=None)
        if self._follows:
            self._listen()
        return True

    def _is_connected(self) -> bool:
        try:
            return bool(self._domain.connect().isAlive())
        except self._libvirt.libvirtError:
            return False

    def take(self, step: Step) -> object:
        """See `Door.take`."""
        if step.by == "file":
            return self._file_door.take(step, self.files.claimed)
        if step.by == "qmp":
            return self._monitor.execute(step.what, step.arguments)
        if step.does in (Does.FREEZE, Does.THAW):
            return self._quiescer.take(step)
        return door.take(self._domain, step)

    def read(self) -> Disks:
        """
        See `Guest.read`: XML and graph side by side; the XML alone where QMP cannot be had.

        Raises:
            GuestNotRunning: The guest is off.
        """
        with reading():
            return settled(self._read)

    def _read(self) -> Disks:
        if not self._call("virDomainIsActive", self._domain.isActive):
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
                self._off = "a pull is running, and QEMU can crash when it is read now"
            except CommandFailed as error:
                self._off = f"QEMU cannot list its nodes ({error.description})"
            else:
                chains = from_graph.disk_chains(graph, domain)
                headers = self._headers(from_graph.headers_to_read(chains))
                return self._compared(
                    from_graph.guest_from_graph(
                        graph, chains=chains, guest=domain.name, domain=domain, headers=headers
                    )
                )
        headers = self._headers(from_xml.headers_to_read(domain))
        report = from_xml.guest_from_xml(
            domain, headers=headers, notes=(f"formats by XML alone: {self._off}",)
        )
        disks = tuple(self._with_size(disk, ask=answers) for disk in report.disks)
        return self._compared(replace(report, disks=disks))

    def _compared(self, report: Disks) -> Disks:
        """Whether names still lead to what QEMU has open."""
        if self._remote:
            return unseen(report, f"the guest runs on {self._remote}")
        return compared(report, held_by(pid_of(self._domain), _UNKNOWN))

    def _xml(self) -> xml.XmlDomain:
        return xml.parse(self._call("virDomainGetXMLDesc", lambda: self._domain.XMLDesc(0)))

    def _graph(self, reader: Reader, domain: xml.XmlDomain) -> Graph:
        return reader.read(
            nested_ok=stays_small(domain),
            names_are_plain=lambda: not self._remote and plain_by_xml(domain),
        )

    def _headers(self, paths: Mapping[str, str]) -> dict[str, Header]:
        """Of a guest on another host, the file of the same name here is another file."""
        return {} if self._remote else read_headers(paths)

    def _with_size(self, disk: Disk, *, ask: bool) -> Disk:
        """Without QMP libvirt knows the size of a raw active file, and lower files their own."""
        active = disk.layers[0] if disk.layers else None
        if ask and active is not None and active.virtual_size is None:
            with suppress(self._libvirt.libvirtError, MonitorBusy):
                size = int(in_time(lambda: self._domain.blockInfo(disk.disk))[0])
                disk = replace(disk, layers=(replace(active, virtual_size=size), *disk.layers[1:]))
        return disk if self._remote else with_raw_sizes(disk)

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """See `Guest.outlines`: by the debug graph through passthrough; a reading of the XML is cheap."""
        none = (None,) * len(disks)
        if self._reader is None:
            return none
        try:
            with reading():
                return outlines(self._monitor, disks)
        except (PassthroughOff, MonitorBusy, LibvirtMissing):
            return none

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`."""
        self._check_here()
        with reading():
            qemu = pid_of(self._domain)
            around = surroundings_of(self._domain, disk, left, runs=True, qemu=qemu)
            is_blind = left is None and all(layer.node is None for layer in disk.layers)
            return replace(
                around,
                notes=(*around.notes, *(_NODES_UNSEEN,) * is_blind),
                copies_into_subclusters=copies_into_subclusters(disk, self._reader),
            )

    def _check_here(self) -> None:
        if self._remote:
            raise OnAnotherHost(self._remote)

    def state(self) -> State:
        """See `Guest.state`: libvirt's word as QEMU's, without asking QEMU."""
        self._check_here()
        with reading():
            return State(run=self._run_state(), migration=self._migration())

    def _migration(self) -> str | None:
        """libvirt refuses block jobs in a migration by itself; said before, it says what is the matter."""
        outward = self._libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        inward = self._libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
        try:
            operation = self._domain.jobStats().get("operation")
        except self._libvirt.libvirtError:
            return None
        return {outward: "outgoing", inward: "incoming"}.get(operation)

    def _run_state(self) -> str | None:
        libvirt = self._libvirt
        state, reason = self._call("virDomainGetState", self._domain.state)
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

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Jobs.jobs`."""
        with reading():
            return reports_of(self._domain, self._xml())

    def view(self, job: str) -> JobView:
        """See `Jobs.view`."""
        info = info_of(self._domain, job)
        ready = may_be_ready(info) and any(
            disk.target == job and disk.mirror_ready for disk in self._xml().disks
        )
        return view_of(info, ready=ready)

    def follow(self, job: str) -> None:
        """See `Jobs.follow`."""
        self._monitor.close()
        while not self._monitor.events.empty():
            self._monitor.events.get()
        self._follows = True
        self._listen()

    def listen(self) -> None:
        """Hear of all jobs from now on."""
        self._listen()

    def stirred(self, timeout: float) -> bool:
        """Sleep until something happens to any job, or the time (seconds) is over; whether it did."""
        if not self._hears:
            time.sleep(min(timeout, WITHOUT_EVENTS_S))
            return True
        return stirred(self._monitor.events, timeout)

    def _listen(self) -> None:
        """
        Listen from now on, where the program has an event loop for libvirt.

        Where it has none, or listens to the same itself, the job is asked for.
        """
        try:
            self._hears = delivers_events()
            if self._hears:
                self._call("virConnectDomainEventRegisterAny", self._monitor.watch)
        except CommandFailed as error:
            self._hears = False
            log.info("no events of %s: %s", self._domain.name(), error)

    def wait(self, job: str, timeout: float) -> Heard:
        """
        See `Jobs.wait`: until libvirt says something about the disk's job.

        What came together is heard together. Without events nothing is waited for that could
        still be said about a job that is gone.
        """
        if not self._hears:
            if info_of(self._domain, job):
                time.sleep(min(timeout, ASK_S))
            return Heard(ended=not info_of(self._domain, job))
        deadline = time.monotonic() + timeout
        heard = Heard()
        is_said = False
        while True:
            left = 0.0 if is_said else max(0.0, deadline - time.monotonic())
            try:
                event = self._monitor.events.get(timeout=left)
            except Empty:
                return heard
            said = heard_in(event, job)
            if said is None:
                continue
            heard = heard.and_then(said)
            # A reason comes from QEMU; of the end itself libvirt says more.
            is_said = is_said or said.reason is None or said.ended

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        return door.call(self._domain, name, function)


def stays_small(domain: xml.XmlDomain) -> bool:
    """Whether nested replies about this guest are far from what breaks libvirt's monitor."""
    depths = [len(disk.layers) for disk in domain.disks]
    return max(depths, default=0) <= SAFE_DEPTH and sum(depths) <= SAFE_LAYERS
