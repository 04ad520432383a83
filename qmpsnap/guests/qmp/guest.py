"""A guest without libvirt: everything is QMP on its own socket."""

from __future__ import annotations

import os.path
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from queue import Empty
from typing import Final

from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.from_graph import disk_chains, guest_from_graph, headers_to_read
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.graph.command_line import probed_files
from qmpsnap.graph.nodes import Graph
from qmpsnap.graph.qmp import block_jobs_from, jobs_from
from qmpsnap.guests.agent.quiescer import SocketQuiescer
from qmpsnap.guests.backing_names import plain_by_process
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.around import around
from qmpsnap.guests.files.door import FileDoor
from qmpsnap.guests.files.header import read_headers
from qmpsnap.guests.files.looks import LocalFiles
from qmpsnap.guests.files.opened import Hidden, compared, held_by
from qmpsnap.guests.qmp.jobs import io_status_of, job_reports
from qmpsnap.guests.qmp.outline import outlines
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.guests.qmp.subclusters import copies_into_subclusters
from qmpsnap.guests.reader import MAX_STALL_S, Reader
from qmpsnap.guests.reconnect import connect_again
from qmpsnap.guests.settled import settled
from qmpsnap.monitor.abilities import Ability
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    CommandFailed,
    ConnectionLost,
    Event,
    LostInMidCommand,
    LostWhileReading,
    Monitor,
    reading,
    stirred,
)
from qmpsnap.monitor.memory import qemu_process
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Outline, State
from qmpsnap.operations.job.states import (
    PAUSED,
    Heard,
    IoStatus,
    JobReport,
    JobStatus,
    JobView,
    status_of,
)
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.where import Where

_PROXY: Final = Hidden(
    why="who is at the other end of the QMP socket is not known to be QEMU", here=False
)
RECONNECT_S: Final = 3.0
"""How long a guest may take to answer again after its connection was lost."""
RECONNECTS: Final = 20
"""How often a connection is made again: one that always breaks is not one."""
_ENDED: Final = frozenset({"concluded", "null"})
_NO_MIGRATION: Final = frozenset({"none", "completed", "failed", "cancelled"})
_BETWEEN_HOSTS: Final = frozenset({"inmigrate", "postmigrate", "finish-migrate"})
_TIMELY: Final = frozenset({Does.COMMIT, Does.CANCEL, Does.DISMISS})
"""Acts that a job may not be in the state for any more: whatever QEMU says against them, nothing
has happened."""


class QmpGuest(Closable):
    """One QEMU over its own QMP socket."""

    def __init__(
        self,
        monitor: Monitor,
        *,
        agent: str | None = None,
        pid: int | None = None,
        socket: str = "",
        connect: Callable[[], Monitor] | None = None,
        max_stall_s: float | None = MAX_STALL_S,
        owns: bool = False,
        partly: bool = False,
    ) -> None:
        """
        Use a connected monitor.

        Args:
            monitor: The guest's.
            agent: Path of the socket that leads to its guest agent.
            pid: Process of this QEMU, where it is known: its command line tells which drives
                it was started with without a format. Which files it has open is looked for in
                the process at the other end of the socket, unless this is given.
            socket: Path of its QMP socket, for who has to find it again.
            connect: Makes another connection to the same QEMU, when this one breaks; None when
                there is no way to.
            max_stall_s: As `Reader` takes it.
            owns: Whether `close` closes the monitor; else that stays with the caller.
            partly: As `Reader` takes it: enough for who only looks.
        """
        self._pid = pid
        self._monitor = monitor
        self._connect = connect
        self._owned: list[Monitor] = [monitor] if owns else []
        self._reconnects = 0
        self._probed = probed_files(_command_line(pid)) if pid else frozenset()
        self._quiescer = SocketQuiescer(agent)
        process = qemu_process(pid)
        self._reader = Reader(monitor, max_stall_s=max_stall_s, process=process, partly=partly)
        self.where = Where(
            road="qmp",
            at=socket and os.path.abspath(socket),
            process=None if process is None else (process.pid, process.started),
        )
        self.files = LocalFiles()
        self._file_door = FileDoor()
        peer: int | None = pid or getattr(monitor, "pid", None)
        self.compose = QmpComposer(
            self._masks,
            has_agent=agent is not None,
            arguments=_command_line(peer) if peer else (),
        )

    def _let_go(self) -> None:
        self._file_door.close()
        while self._owned:
            self._owned.pop().close()

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Jobs.reconnect`."""
        cause = error.__cause__ if isinstance(error, LostWhileReading) else error
        if self._connect is None or not isinstance(cause, (ConnectionLost, LostInMidCommand)):
            return False
        if self._reconnects >= RECONNECTS:
            return False
        monitor = connect_again(self._connect, RECONNECT_S)
        if monitor is None:
            return False
        self._reconnects += 1
        self._owned.append(monitor)
        self._pid = getattr(monitor, "pid", None) or self._pid
        # Somebody waits to hear what became of a change.
        self._monitor, self._reader = monitor, Reader(monitor, max_stall_s=None)
        return True

    def take(self, step: Step) -> object:
        """See `Door.take`."""
        if step.by == "file":
            return self._file_door.take(step, self.files.claimed)
        if step.by == "agent":
            return self._quiescer.take(step)
        try:
            return self._monitor.execute(step.what, step.arguments)
        except CommandFailed as error:
            if step.does in _TIMELY:
                raise NotNow(step.what, error.description) from error
            raise

    def read(self) -> Disks:
        """See `Guest.read`; raises what `Reader.read` raises."""
        with reading():
            return settled(self._read)

    def _read(self) -> Disks:
        graph = self._graph()
        known = self._reader.details(graph)
        chains = disk_chains(graph)
        report = guest_from_graph(
            graph,
            chains=chains,
            guest=known.name,
            serials=known.serials,
            types=known.types,
            headers=read_headers(headers_to_read(chains, self._probed)),
            probed=self._probed,
        )
        return compared(report, held_by(self._qemu(), _PROXY))

    def _qemu(self) -> int | None:
        """Its process; None where a proxy is at the other end of the socket."""
        process = qemu_process(self._pid or getattr(self._monitor, "pid", None))
        return None if process is None else process.pid

    def _graph(self) -> Graph:
        return self._reader.read(names_are_plain=self._names_are_plain)

    def _masks(self, command: str) -> bool:
        pull = command == "block-stream"
        return self._reader.abilities.has(Ability.MASKED_STREAM if pull else Ability.MASKED_COMMIT)

    def _names_are_plain(self) -> bool:
        return self._pid is not None and plain_by_process(self._pid)

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """See `Guest.outlines`: by the debug graph, a millisecond for hundreds of layers."""
        with reading():
            return outlines(self._monitor, disks)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`: other processes by `/proc`."""
        return replace(
            around(disk, left, runs=True, qemu=self._qemu()),
            copies_into_subclusters=copies_into_subclusters(disk, self._reader),
        )

    def state(self) -> State:
        """See `Guest.state`; source: RunState, qapi/run-state.json; MigrationStatus, qapi/migration.json."""
        with reading():
            run, migration = (
                _status_in(reply)
                for reply in self._monitor.execute_all(
                    [("query-status", {}), ("query-migrate", {})]
                )
            )
        if migration is None or migration in _NO_MIGRATION:
            migration = run if run in _BETWEEN_HOSTS else None
        return State(run=run, migration=migration)

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Jobs.jobs`."""
        with reading():
            return job_reports(self._monitor)

    def view(self, job: str) -> JobView:
        """See `Jobs.view`. A job that is gone was dismissed by somebody else."""
        for info in jobs_from(self._monitor.execute("query-jobs")):
            if info.id == job:
                status = status_of(info.status)
                return JobView(
                    status=status,
                    current=info.current,
                    total=info.total,
                    error=info.error if info.status in _ENDED else None,
                    io_status=self._io_status(job) if status in PAUSED else IoStatus.OK,
                )
        return JobView(status=JobStatus.NULL)

    def _io_status(self, job: str) -> IoStatus:
        details = block_jobs_from(self._monitor.execute("query-block-jobs")).get(job)
        return io_status_of(details.io_status) if details else IoStatus.OK

    def follow(self, job: str) -> None:
        """See `Jobs.follow`: every event is queued from the first; what was said before is dropped."""
        while not self._monitor.events.empty():
            self._monitor.events.get()

    def listen(self) -> None:
        """Hear of all jobs from now on: a monitor of its own tells of them by itself."""

    def stirred(self, timeout: float) -> bool:
        """
        Sleep until something happens to any job, or the time (seconds) is over; whether it did.

        Raises:
            ConnectionLost: QEMU has ended.
        """
        return stirred(self._monitor.events, timeout)

    def wait(self, job: str, timeout: float) -> Heard:
        """
        See `Jobs.wait`: until an event of this job, or the end of the connection.

        What came together is heard together: a job that begins says so twice, one that has
        copied everything does as well, and each look takes a round trip.
        """
        deadline = time.monotonic() + timeout
        heard: Heard | None = None
        begins = False
        while True:
            left = 0.0 if heard is not None else max(0.0, deadline - time.monotonic())
            try:
                event = self._monitor.events.get(timeout=left)
            except Empty:
                return heard or Heard()
            if event.name == CONNECTION_LOST:
                if heard is None:
                    raise ConnectionLost("query-jobs", "QEMU closed the connection")
                self._monitor.events.put(event)  # for the next call
                return heard
            if job not in (event.data.get("id"), event.data.get("device")):
                continue
            status = event.data.get("status")
            if status == "created" or (begins and status == "running"):
                begins = True
                continue
            heard = (heard or Heard()).and_then(_heard_in(event))


def _status_in(reply: object) -> str | None:
    """None of qemu-storage-daemon, which has neither query."""
    status = reply.get("status") if isinstance(reply, dict) else None
    return status if isinstance(status, str) else None


def _heard_in(event: Event) -> Heard:
    """What an event says of the end of its job."""
    error = event.data.get("error")
    if event.name == "BLOCK_JOB_COMPLETED":
        reason = error if isinstance(error, str) else None
        return Heard(ended=True, failed=reason is not None, reason=reason)
    if event.name == "BLOCK_JOB_CANCELLED":
        return Heard(ended=True, failed=True, reason="it was cancelled")
    return Heard()


def _command_line(pid: int) -> list[str]:
    """Empty where it cannot be read: another user's process, or a socket that was handed over."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return line.decode(errors="surrogateescape").split("\0")
