"""A guest without libvirt: every step is QMP on its own socket."""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Final

from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.graph.chain import chain
from qmpsnap.graph.command_line import probed_files
from qmpsnap.graph.drivers import DriverKind, kind_of
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.graph.qmp import block_jobs_from, jobs_from
from qmpsnap.guests.agent.quiescer import SocketQuiescer
from qmpsnap.guests.backing_names import plain_by_process
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.content import digest_of_layers
from qmpsnap.guests.files.header import read_headers, synced
from qmpsnap.guests.files.neighbours import layer_paths, other_users, room_of, space_of
from qmpsnap.guests.files.overlay import discard_overlay, prepare_overlay
from qmpsnap.guests.qmp.flush import FlushUnsupported, check_closed, flush
from qmpsnap.guests.qmp.jobs import OURS, io_status_of, job_reports
from qmpsnap.guests.reader import MAX_STALL_S, Reader
from qmpsnap.guests.reconnect import connect_again
from qmpsnap.guests.settled import settled
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    CommandFailed,
    ConnectionLost,
    LostInMidCommand,
    LostWhileReading,
    Monitor,
    reading,
)
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import NotFlushed, Overlay, Thawed
from qmpsnap.operations.job.states import (
    ENDING,
    PAUSED,
    IoStatus,
    JobReport,
    JobStatus,
    JobView,
    Verb,
    status_of,
)
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.run_state import STILL, why_silent
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step

log = logging.getLogger(__name__)

RECONNECT_S: Final = 3.0
"""How long a guest may take to answer again after its connection was lost."""
RECONNECTS: Final = 20
"""How often a connection is made again: one that always breaks is none."""
PIVOTS: Final = f"{OURS}active-commit-"
"""What the ids of our active commits begin with."""
_ENDED: Final = frozenset({"concluded", "null"})
_NO_MIGRATION: Final = frozenset({"none", "completed", "failed", "cancelled"})
_BETWEEN_HOSTS: Final = frozenset({"inmigrate", "postmigrate", "finish-migrate"})
_FORBIDDEN: Final = ("Permission conflict", "Conflicts with use")
"""How QEMU words it (block.c) when another user of a node does not share a permission."""


@dataclass(eq=False)
class FormatNotRecordable(Refused):
    """
    This QEMU would write a wrong backing format into a header.

    Without `backing-mask-protocol` (QEMU 9.0) it records the name of the base's driver, and over
    a base that is open without a raw node that is `file`, which libvirt 9.0 then takes for a
    licence to probe. Putting a raw node in by `blockdev-reopen` was tried and given up: on 7.2 a
    guest's write failed now and then (twice in some 60 merges under load).
    """

    msg = (
        "this QEMU would record {self.driver!r} as the format of {self.file}, because the guest "
        "has it open without a raw node"
    )
    remedy = (
        "Delete the newest snapshots first (an active commit writes no header), or pull the whole "
        "chain; or use QEMU 9.0 or later, or start the guest with a raw node over {self.file}."
    )

    driver: str
    file: str


@dataclass(eq=False)
class FilterInTheWay(Refused):
    """Between two layers lies a filter, which a rewrite of the header would take out."""

    msg = "a filter ({self.node}) lies between the layer above {self.file} and this file"
    remedy = "Take the filter out, or mend the header when the guest is off."

    node: str
    file: str


class QmpGuest(Closable):
    """One QEMU over its own QMP socket."""

    def __init__(
        self,
        monitor: Monitor,
        *,
        agent: str | None = None,
        pid: int | None = None,
        collects: bool = True,
        connect: Callable[[], Monitor] | None = None,
        max_stall_s: float | None = MAX_STALL_S,
        owns: bool = False,
    ) -> None:
        """
        Use a connected monitor.

        Args:
            monitor: The guest's.
            agent: Path of the socket that leads to its guest agent.
            pid: Process of this QEMU, where it is known: its command line tells which drives
                it was started with without a format.
            collects: Whether reading dismisses our own jobs that have ended. Who only looks must
                not: another call may be about to read the job's error.
            connect: Makes another connection to the same QEMU, when this one breaks; None when
                there is no way to.
            max_stall_s: As `Reader` takes it.
            owns: Whether `close` closes the monitor; else that stays with the caller.
        """
        self._collects = collects
        self._pid = pid
        self._monitor = monitor
        self._connect = connect
        self._owned: list[Monitor] = [monitor] if owns else []
        self._reconnects = 0
        self._probed = probed_files(_command_line(pid)) if pid else frozenset()
        self._quiescer = SocketQuiescer(agent)
        self._opened: dict[str, str] = {}
        self._reader = Reader(monitor, max_stall_s=max_stall_s)
        self._flushed = False
        self._flush_error: str | None = None
        self._collected: dict[str, JobView] = {}
        self._last_words: dict[str, str] = {}
        self._undismissed: str | None = None

    def _let_go(self) -> None:
        while self._owned:
            self._owned.pop().close()

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Guest.reconnect`."""
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
        # Somebody waits to hear what became of a change.
        self._monitor, self._reader = monitor, Reader(monitor, max_stall_s=None)
        return True

    def read(self) -> Disks:
        """See `Guest.read`; raises what `Reader.read` raises."""
        with reading():
            notes = self._collect_ended() if self._collects else ()
            return settled(lambda: self._read(notes))

    def _read(self, notes: tuple[str, ...]) -> Disks:
        graph = self._graph()
        serials = self._reader.serials(graph)
        types = self._reader.types(graph)
        bare = guest_from_graph(graph, serials=serials, types=types, probed=self._probed)
        return guest_from_graph(
            graph,
            guest=self._reader.guest_name(),
            serials=serials,
            types=types,
            headers=read_headers(bare.readable()),
            probed=self._probed,
            notes=notes,
        )

    def _graph(self) -> Graph:
        return self._reader.read(names_are_plain=self._names_are_plain)

    def _names_are_plain(self) -> bool:
        return self._pid is not None and plain_by_process(self._pid)

    def _collect_ended(self) -> tuple[str, ...]:
        """
        Take note of our own jobs that ended while nobody watched, and dismiss them.

        A stream that is not dismissed makes the reading dangerous (`StreamLingers`). What it
        ended with is kept for `attach`, so that the same command given again still reports it.
        An active commit is left: it proves which nodes are to be cleared away (`clear`).
        """
        notes = []
        for info in jobs_from(self._monitor.execute("query-jobs")):
            if not info.id.startswith(OURS) or info.id.startswith(PIVOTS):
                continue
            if info.status == JobStatus.CONCLUDED:
                self._collected[info.id] = JobView(status=JobStatus.CONCLUDED, error=info.error)
                self._tell(info.id, "job-dismiss", JobStatus.CONCLUDED)
                how = info.error or "without an error"
                notes.append(f"job {info.id} of an earlier call had ended: {how}")
        return tuple(notes)

    def surroundings(self, disk: Disk) -> Surroundings:
        """See `Guest.surroundings`: other processes by `/proc`, and QEMU's own migration."""
        with reading():
            paths = layer_paths(disk)
            readers, notes = other_users(paths, disk.layers[0].path or "")
            allocated, free = space_of(paths)
            return Surroundings(
                readers=readers,
                migration=self.migration(),
                allocated=allocated,
                free=free,
                notes=notes,
            )

    def migration(self) -> str | None:
        """See `Guest.migration`; source: MigrationStatus, qapi/migration.json; RunState, qapi/run-state.json."""
        migration, guest = self._state("query-migrate"), self._state("query-status")
        if migration is not None and migration not in _NO_MIGRATION:
            return migration
        return guest if guest in _BETWEEN_HOSTS else None

    def _state(self, query: str) -> str | None:
        try:
            reply = self._monitor.execute(query)
        except CommandFailed:
            return None  # qemu-storage-daemon has neither
        state = reply.get("status") if isinstance(reply, dict) else None
        return state if isinstance(state, str) else None

    def run_state(self) -> str | None:
        """See `Guest.run_state`."""
        with reading():
            return self._state("query-status")

    def is_still(self, disk: Disk) -> bool:
        """See `Guest.is_still`."""
        if self.run_state() not in STILL:
            return False
        try:
            return flush(self._monitor, disk.layers[0]) is None
        except FlushUnsupported:
            return False

    def digest(self, layers: tuple[Layer, ...]) -> str:
        """See `Guest.digest`."""
        return digest_of_layers(layers)

    def prepare(self, plan: CreatePlan) -> Overlay:
        """See `Guest.prepare`."""
        return prepare_overlay(plan)

    def clear(self) -> None:
        """
        See `Guest.clear`: delete nodes that nothing reads and that are certainly ours.

        They would hold the overlay's lock, or stand in the way of the next job. Ours are those
        with our prefix, and what the job of an active commit of ours, still there and ended,
        proves to have been its top. No other node is touched: somebody may be about to use it.
        """
        with reading():
            self._collect_ended()
            pivoted = self._ended_pivots()
            graph = self._graph()
            for name in left_by_pivots(graph, pivoted):
                self._delete_node(name)
            for name in graph.nodes:
                if name.startswith(OURS) and not _is_read(graph, name):
                    self._delete_node(name)
            for job in pivoted:
                self._tell(job, "job-dismiss", JobStatus.CONCLUDED)

    def _ended_pivots(self) -> frozenset[str]:
        """Ids of active commits of ours that have ended, and whose calls died before the end."""
        found = set()
        for info in jobs_from(self._monitor.execute("query-jobs")):
            if info.id.startswith(PIVOTS) and info.status == JobStatus.CONCLUDED:
                self._collected[info.id] = JobView(status=JobStatus.CONCLUDED, error=info.error)
                found.add(info.id)
        return frozenset(found)

    def discard(self, plan: CreatePlan) -> None:
        """See `Guest.discard`."""
        discard_overlay(plan)

    def open(self, plans: Sequence[CreatePlan]) -> None:
        """
        See `Guest.open`: open the overlays without their backing files.

        `blockdev-snapshot` attaches the active node as it is open then; what the header says is
        not consulted, which is why `prepare` has checked it.
        """
        self._opened.clear()
        for plan in plans:
            prefix = f"{OURS}{secrets.token_hex(4)}"
            self._opened[plan.overlay] = f"{prefix}-format"  # before: a Ctrl-C may come between
            self._open(plan, prefix)

    def _open(self, plan: CreatePlan, prefix: str) -> None:
        self._monitor.execute("blockdev-add", _overlay_node(plan, prefix))

    def switch(self, plans: Sequence[CreatePlan]) -> None:
        """See `Guest.switch`: one transaction, which QEMU carries out as a whole or not at all."""
        self._monitor.execute("transaction", _transaction(plans, self._opened))

    def retract(self, plans: Sequence[CreatePlan]) -> None:
        """
        See `Guest.retract`.

        QEMU answers in order: what was sent before, and interrupted, is over by now. It does not
        delete a node that is in use.
        """
        for name in self._opened.values():
            self._delete_node(name)
        self._opened.clear()

    def freeze(self, limit_s: float) -> int:
        """See `Guest.freeze`; the agent of a guest that does not run is not waited for."""
        silent = why_silent(self.run_state())
        if silent is not None:
            raise CannotFreeze(silent)
        return self._quiescer.freeze(limit_s)

    def thaw(self, limit_s: float) -> Thawed:
        """See `Guest.thaw`."""
        return self._quiescer.thaw(limit_s)

    def attach(self, plan: MergePlan) -> str | None:
        """See `Guest.attach`: our jobs carry an id that follows from the plan."""
        self._flushed, self._flush_error = False, None
        wanted = job_id(plan)
        jobs = jobs_from(self._monitor.execute("query-jobs"))
        known = {job.id for job in jobs} | self._collected.keys()
        return wanted if wanted in known else None

    def start(self, plan: MergePlan, options: MergeOptions = DEFAULT_OPTIONS) -> str:
        """
        Start `block-commit` or `block-stream`.

        The job keeps itself in `query-jobs` when it ends, so that its error cannot be lost, and
        stops before it changes the graph, so that what it wrote can be flushed first. Not so for
        an active commit: it would hold up the guest's requests while it waits, and a mirror
        flushes its target by itself.

        What only rewrites a header does all by itself, and goes: killed at any moment, the tool
        leaves nothing that somebody would have to finish.

        Raises:
            FormatNotRecordable: The header of the layer above would get a wrong format.
            FilterInTheWay: It cannot be rewritten without taking a filter out.
            CommandFailed: QEMU refuses; nothing has changed.
        """
        command, arguments = self._merge(plan, options)
        self._collected.clear()  # what ended before this job began is of no use any more
        self._monitor.execute(command, arguments)
        return job_id(plan)

    def _merge(self, plan: MergePlan, options: MergeOptions) -> tuple[str, dict[str, object]]:
        """Return the command of a merge and its arguments."""
        command = "block-stream" if plan.kind == "pull" else "block-commit"
        masks = self._reader.features.has(command, "backing-mask-protocol")
        if not masks:
            _check_recordable(plan)
        if plan.rewrites_only and plan.base and plan.base.top_node != plan.base.node:
            raise FilterInTheWay(plan.base.top_node or "", plan.base.file)
        arguments: dict[str, object] = {
            "job-id": job_id(plan),
            "auto-finalize": plan.kind == "active-commit" or plan.rewrites_only,
            "auto-dismiss": plan.rewrites_only,
        }
        if options.bandwidth is not None:
            arguments["speed"] = options.bandwidth
        if options.on_error is OnError.PAUSE:
            # Not `enospc`: an input/output error is to pause it as well.
            arguments["on-error"] = "stop"
        base = plan.base.node if plan.base else None
        if plan.above is not None and plan.base is not None:
            arguments["backing-file"] = plan.backing_name
            if masks:
                arguments["backing-mask-protocol"] = True
        if plan.kind == "pull":
            arguments["device"] = plan.top.node
            if base is not None:
                arguments["base-node"] = base
        else:
            arguments["device"] = plan.disk.root
            arguments["top-node"] = plan.top.node
            arguments["base-node"] = base
        return command, arguments

    def steps_of_freeze(self) -> tuple[Step, Step]:
        """See `Guest.steps_of_freeze`."""
        return self._quiescer.steps()

    def steps_of_merge(self, plan: MergePlan, options: MergeOptions) -> tuple[Step, ...]:
        """See `Guest.steps_of_merge`."""
        command, arguments = self._merge(plan, options)
        job = {"id": job_id(plan)}
        if plan.rewrites_only:
            return (Step(by="qmp", what=command, arguments=arguments),)
        if plan.kind == "active-commit":
            last = [Step(by="qmp", what="job-complete", arguments=job)]
        else:
            flush_ = {"command-line": f"qemu-io {plan.written.node} flush"}
            last = [
                Step(by="qmp", what="human-monitor-command", arguments=flush_),
                Step(by="qmp", what="job-finalize", arguments=job),
            ]
        last.append(Step(by="qmp", what="job-dismiss", arguments=job))
        if plan.kind == "pull":
            size = {"node-name": plan.top.node, "size": plan.top.virtual_size}
            last.append(Step(by="qmp", what="block_resize", arguments=size))
        return (Step(by="qmp", what=command, arguments=arguments), *last)

    def steps_of_create(self, plans: Sequence[CreatePlan]) -> tuple[Step, ...]:
        """See `Guest.steps_of_create`; the nodes' names are made up anew when it is done."""
        names = {plan.overlay: f"{OURS}{number}" for number, plan in enumerate(plans)}
        return (
            *(
                Step(
                    by="qmp",
                    what="blockdev-add",
                    arguments=_overlay_node(plan, names[plan.overlay]),
                )
                for plan in plans
            ),
            Step(
                by="qmp",
                what="transaction",
                arguments=_transaction(
                    plans, {path: f"{name}-format" for path, name in names.items()}
                ),
            ),
        )

    def view(self, job: str) -> JobView:
        """See `Guest.view`. A job that is gone was dismissed by somebody else."""
        if job in self._collected:
            return self._collected[job]
        for info in jobs_from(self._monitor.execute("query-jobs")):
            if info.id == job:
                error = self._flush_error or info.error
                status = status_of(info.status)
                return JobView(
                    status=status,
                    current=info.current,
                    total=info.total,
                    error=error if info.status in _ENDED else None,
                    io_status=self._io_status(job) if status in PAUSED else IoStatus.OK,
                )
        # Whoever dismissed it has read its error; this connection may have heard it as well.
        return JobView(status=JobStatus.NULL, error=self._flush_error or self._last_words.get(job))

    def _io_status(self, job: str) -> IoStatus:
        details = block_jobs_from(self._monitor.execute("query-block-jobs")).get(job)
        return io_status_of(details.io_status) if details else IoStatus.OK

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Guest.jobs`."""
        return job_reports(self._monitor)

    def follow(self, job: str) -> None:
        """See `Guest.follow`: every event of the connection is queued from its beginning."""

    def cancel(self, job: str) -> bool:
        """
        See `Guest.cancel`.

        `job-cancel` cancels by force: a ready mirror ends with an error as well, and not as it
        does after `block-job-cancel`, which looks like success (qmp_job_cancel(), job-qmp.c).
        """
        try:
            self._take(self.step_of(Verb.CANCEL, job))
        except CommandFailed:
            if self.view(job).status not in ENDING:
                raise
            return False
        return True

    def pause(self, job: str) -> None:
        """See `Guest.pause`."""
        self._take(self.step_of(Verb.PAUSE, job))

    def resume(self, job: str) -> None:
        """See `Guest.resume`; it forgets the error that the job had paused itself on."""
        self._take(self.step_of(Verb.RESUME, job))

    def set_speed(self, job: str, bandwidth: int) -> None:
        """See `Guest.set_speed`."""
        self._take(self.step_of(Verb.SET_SPEED, job, bandwidth))

    def step_of(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """See `Guest.step_of`."""
        if verb is Verb.SET_SPEED:
            arguments: dict[str, object] = {"device": job, "speed": bandwidth}
            return Step(by="qmp", what="block-job-set-speed", arguments=arguments)
        return Step(by="qmp", what=f"job-{verb}", arguments={"id": job})

    def _take(self, step: Step) -> None:
        self._monitor.execute(step.what, step.arguments)

    def room(self, layer: Layer) -> Room | None:
        """See `Guest.room`."""
        return room_of(layer.path)

    def wait(self, job: str, timeout: float) -> None:
        """See `Guest.wait`: until an event of this job, or the end of the connection."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self._monitor.events.get(timeout=left)
            except Empty:
                return
            if event.name == CONNECTION_LOST:
                raise ConnectionLost("query-jobs", "QEMU closed the connection")
            if job in (event.data.get("id"), event.data.get("device")):
                error = event.data.get("error")
                if event.name == "BLOCK_JOB_COMPLETED" and isinstance(error, str):
                    self._last_words[job] = error
                elif event.name == "BLOCK_JOB_CANCELLED":
                    self._last_words[job] = "it was cancelled"
                return

    def pivot(self, job: str) -> bool:
        """
        See `Guest.pivot`.

        Whatever QEMU says against it, nothing has happened, and the mirror goes on.
        """
        try:
            self._monitor.execute("job-complete", {"id": job})
        except CommandFailed as error:
            log.info("%s: %s", job, error)
            return False
        return True

    def _tell(self, job: str, command: str, meant_for: JobStatus) -> bool:
        """
        Send a job a command; False when the job has left the state that it was meant for.

        Another client may cancel the job at any time, between our look and our command too.
        """
        try:
            self._monitor.execute(command, {"id": job})
        except CommandFailed:
            if self.view(job).status is meant_for:
                raise
            return False
        return True

    def finalize(self, plan: MergePlan, job: str) -> None:
        """
        Flush, then let the graph change.

        QEMU up to 10 takes the backing file out of a streamed image's header before the copied
        tables are on disk: killed then, the image has silently lost its data (seen on four
        versions). A flush that fails cancels the job; the graph stays as it was.
        """
        try:
            self._flush_error = flush(self._monitor, plan.written)
            self._flushed = self._flush_error is None
        except FlushUnsupported:
            self._flushed = False  # settle() flushes, later than we would like
        if self._flush_error is not None:
            self._tell(job, "job-cancel", JobStatus.PENDING)
            return
        self._tell(job, "job-finalize", JobStatus.PENDING)

    def dismiss(self, job: str) -> None:
        """
        See `Guest.dismiss`.

        An active commit that has ended well stays until `settle` has deleted the nodes that it
        left: as long as it is there, `clear` knows them for ours.
        """
        if self._collected.pop(job, None) is not None:
            return
        if job.startswith(PIVOTS) and self.view(job).error is None:
            self._undismissed = job
            return
        self._tell(job, "job-dismiss", JobStatus.CONCLUDED)

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        """
        Make sure of the flush; remove the nodes of layers that left the chain.

        A resize to the same size flushes (checked on 7.2 and 11.1), and unlike HMP it reports a
        flush that fails.
        """
        if plan.rewrites_only:
            return (*synced(plan.top.path), *self._read_only_again(plan.top))
        if plan.kind == "pull":
            arguments = {"node-name": plan.top.node, "size": plan.top.virtual_size}
            try:
                self._monitor.execute("block_resize", arguments)
            except CommandFailed as error:
                # An NBD export or a backup on the disk forbids a resize; the flush by HMP stands.
                forbidden = any(words in error.description for words in _FORBIDDEN)
                if not (forbidden and self._flushed):
                    raise NotFlushed(plan.top.file, error.description) from error
        notes = self._remove_orphans(plan)
        if self._undismissed is not None:
            self._tell(self._undismissed, "job-dismiss", JobStatus.CONCLUDED)
            self._undismissed = None
        check_closed(self._graph(), plan)
        return notes

    def _read_only_again(self, layer: Layer) -> tuple[str, ...]:
        """
        Open a lower layer for reading only, as it was before its header was written.

        QEMU does so by itself at the end of a stream, but not 10.0.13 and 11.1.3, which leave it
        open for writing; it would then hold the lock of a writer.
        """
        before = layer.node_details
        graph = self._graph()
        now = graph.nodes.get(layer.node or "")
        if before is None or not before.read_only or now is None or now.read_only:
            return ()
        try:
            self._monitor.execute("blockdev-reopen", {"options": [_read_only(graph, now)]})
        except CommandFailed as error:
            return (f"{layer.file} stays open for writing until the guest ends: {error}",)
        return ()

    def _remove_orphans(self, plan: MergePlan) -> tuple[str, ...]:
        """
        Delete the nodes of dropped layers that nothing reads any more, upper ones first.

        With `-blockdev` they stay open, hold their locks, and an overlay that stays above the
        new root makes the next `block-commit` fail ("Need a root block node").
        """
        notes: list[str] = []
        graph = self._graph()
        left = {
            name: layer.file
            for layer in plan.dropped
            for name in (
                *_nodes_of(graph, layer.top_node),
                *(layer.top_node, layer.node, layer.protocol_node),
            )
            if name is not None
        }
        while True:
            graph = self._graph()
            unread = [name for name in left if name in graph.nodes and not _is_read(graph, name)]
            if not unread:
                return tuple(notes)
            for name in unread:
                problem = self._delete_node(name)
                file = left.pop(name)
                if problem is not None:
                    notes.append(f"node {name} of {file} stays open: {problem}")
            graph = self._graph()

    def _delete_node(self, name: str) -> str | None:
        try:
            self._monitor.execute("blockdev-del", {"node-name": name})
        except CommandFailed as error:
            return error.description
        return None


def _overlay_node(plan: CreatePlan, prefix: str) -> dict[str, object]:
    """An overlay as `blockdev-add` takes it: without its backing file."""
    active = plan.active.node_details
    assert active is not None  # this road reads QMP
    cache = {"direct": active.cache.direct, "no-flush": active.cache.no_flush}
    return {
        "driver": "qcow2",
        "node-name": f"{prefix}-format",
        "cache": cache,
        "detect-zeroes": "on" if active.detect_zeroes else "off",
        "backing": None,
        "file": {
            "driver": "file",
            "node-name": f"{prefix}-file",
            "filename": plan.overlay,
            "cache": cache,
        },
    }


def _transaction(plans: Sequence[CreatePlan], opened: Mapping[str, str]) -> dict[str, object]:
    actions = [
        {
            "type": "blockdev-snapshot",
            "data": {"node": plan.active.node, "overlay": opened[plan.overlay]},
        }
        for plan in plans
    ]
    return {"actions": actions}


def _read_only(graph: Graph, node: Node) -> dict[str, object]:
    """A qcow2 node as `blockdev-reopen` takes it, to be opened for reading only."""
    children = {edge.role: edge.child for edge in graph.children(node.name)}
    return {
        "driver": node.driver,
        "node-name": node.name,
        "read-only": True,
        "cache": {"direct": node.cache.direct, "no-flush": node.cache.no_flush},
        "detect-zeroes": "on" if node.detect_zeroes else "off",
        **{role: children[role] for role in ("file", "backing") if role in children},
    }


def _command_line(pid: int) -> list[str]:
    """Empty where it cannot be read: another user's process, or a socket that was handed over."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return line.decode(errors="surrogateescape").split("\0")


def _check_recordable(plan: MergePlan) -> None:
    """Refuse a merge after which a header would name a protocol as its backing format."""
    if plan.above is None or plan.base is None or plan.base.node_details is None:
        return
    driver = plan.base.node_details.driver
    if kind_of(driver) is DriverKind.PROTOCOL:
        raise FormatNotRecordable(driver, plan.base.file)


def _is_read(graph: Graph, name: str) -> bool:
    return any(edge.child == name for edge in graph.edges) or any(
        device.root == name for device in graph.devices
    )


def job_id(plan: MergePlan) -> str:
    """
    Id of a plan's job: the same for the same merge, so that a second call finds the first one's.

    Letters, digits and dashes only, as QEMU demands (util/id.c, id_wellformed()).
    """
    base = plan.base.path if plan.base else None
    kind = "header" if plan.rewrites_only else plan.kind
    return _job_id(plan.disk.disk, kind, plan.top.path, base)


def _job_id(disk: str, kind: str, top: str | None, base: str | None) -> str:
    parts = repr((disk, kind, top, base))
    return f"{OURS}{kind}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def _nodes_of(graph: Graph, top: str | None) -> Iterator[str]:
    """Yield the nodes of one layer: filters, its format node, and what that reads but the backing file."""
    layers = chain(graph, top) if top is not None else ()
    if not layers:
        return
    below = layers[1].top.name if len(layers) > 1 else None
    left = [layers[0].top.name]
    seen: set[str] = set()
    while left:
        name = left.pop(0)
        if name not in seen and name != below:
            seen.add(name)
            yield name
            left += [edge.child for edge in graph.children(name)]


def left_by_pivots(graph: Graph, jobs: Collection[str]) -> tuple[str, ...]:
    """
    Find the nodes that active commits of ours left above their bases, upper ones first.

    A job's id follows from the disk, its top and its base. A node that nothing reads, over the
    active layer of a device, is the top of such a job when these three give the job's id.

    Args:
        graph: Read while the jobs are still there.
        jobs: Ids of active commits of ours that have ended.
    """
    if not jobs:
        return ()
    found: list[str] = []
    disks = {
        node.name: device.name
        for device in graph.devices
        if device.root and device.name
        for layer in chain(graph, device.root)[:1]
        for node in (*layer.filters, layer.node)
    }
    for name in graph.nodes:
        if _is_read(graph, name):
            continue
        layers = chain(graph, name)
        for number, base in enumerate(layers):
            disk = disks.get(base.top.name)
            if disk and _job_id(disk, "active-commit", layers[0].path, base.path) in jobs:
                for layer in layers[:number]:
                    found += _nodes_of(graph, layer.top.name)
    return tuple(found)
