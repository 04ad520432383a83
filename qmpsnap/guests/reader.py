"""
One reading of a guest through its monitor: five queries in two hops, one consistent graph.

    query-jobs
    x-debug-query-block-graph edges: flat, a few milliseconds for hundreds of layers, in every
                              version from 4.0 on; query-blockstats (stable, nested) where it has
                              been taken out. Tells how long the next one would take
    ─────
    query-named-block-nodes   flat; edges from `children` (QEMU 10.1 and later)
    query-block               the devices and their root nodes
    query-jobs                again: a job that changed in between may have torn the reading

All of them run in QEMU's main loop, where the guest waits too: for a chain so deep that it would
stand still for long (`graph/stall.py`), the second hop is not taken. Through libvirt a nested
reply that is too large (10 MiB) or too deep (26 layers on libvirt 11.3) breaks the guest's monitor
for good, so what nests is only asked for when the domain XML shows that it stays small
(`nested_ok`).

The first reading has a probe beside (`monitor/abilities.py`), and a third hop for what stays as it
is while a device is there: names and serial numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import Failed, Refused
from qmpsnap.graph import debug_graph
from qmpsnap.graph.blockstats import edges_from_blockstats
from qmpsnap.graph.debug_graph import DebugGraph, debug_graph_from
from qmpsnap.graph.nodes import Edge, Graph, Job, Node
from qmpsnap.graph.partial import partial_graph
from qmpsnap.graph.qmp import (
    devices_from,
    jobs_from,
    leaves_no_bare_filter,
    lingering_streams,
    nodes_from,
)
from qmpsnap.graph.stall import stall_of
from qmpsnap.guests.details import Details, DetailsReader
from qmpsnap.monitor.abilities import PROBES, Abilities, Ability, is_unexpected
from qmpsnap.monitor.base import CommandFailed, Monitor, Query
from qmpsnap.monitor.memory import Process

TRIES: Final = 10
_NODES: Final = "query-named-block-nodes"
_DEBUG: Final = debug_graph.QUERY
_BLOCK: Final = "query-block"
_STATS: Final = "query-blockstats"
_JOBS: Final = "query-jobs"
_VERSION: Final = "query-version"
_CORRUPT: Final = (
    "QEMU cannot list its nodes ({}): an image is corrupt; "
    "the other disks are as `query-block` tells"
)
_UNLISTED: Final = (
    "QEMU was not asked for its nodes, which could crash it while the stream job {} "
    "has ended or may end; the disks are as `query-block` tells"
)
MAX_STALL_S: Final = 0.5
"""How long a reading may stop a guest: half of what a cluster's shortest heartbeat waits for."""


class TornReading(Failed):
    """The graph changed each time while it was read."""

    msg = "the block graph changed while it was read, {self.tries} times in a row: {self.what}"
    remedy = "Wait for the jobs that are running to end, then try again."
    changed = "no"

    tries: int
    what: str


class StreamLingers(Refused):
    """A stream that has ended, or may end at any moment, makes reading dangerous."""

    msg = (
        "the stream job {self.job!r} has ended or will, and waits to be "
        "dismissed: reading all nodes now can crash this QEMU"
    )
    remedy = (
        "Wait until the client that started it has dismissed it (`job-dismiss`), then try again. "
        "After an interrupted `qmpsnap delete`, give the same delete again: it takes the job up."
    )

    job: str


class GuestWouldStall(Refused):
    """The chains are so deep that QEMU would stop its guest while it lists their nodes."""

    msg = (
        "reading this guest would stop it for about {self.told} s, and no more than "
        "{self.limit_s:g} s are allowed: a chain has {self.depth} layers"
    )
    remedy = (
        "To read it all the same, give `qmpsnap --max-stall {self.enough}`, at a time when the "
        "guest may stand still. Then make the chain shorter."
    )

    depth: int
    seconds: float
    limit_s: float

    @property
    def told(self) -> str:
        """The seconds, for people."""
        return f"{self.seconds:.1f}" if self.seconds >= 1 else f"{self.seconds:.1g}"

    @property
    def enough(self) -> int:
        """What would have to be allowed, in full seconds."""
        return math.ceil(self.seconds)


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the first hop told."""

    jobs: tuple[Job, ...]
    debug: DebugGraph | None = None
    by_stats: tuple[Edge, ...] | None = None

    @property
    def edges(self) -> tuple[Edge, ...] | None:
        return self.by_stats if self.debug is None else self.debug.edges


class Reader:
    """Reads graphs from one monitor, and remembers what does not change while a QEMU runs."""

    def __init__(
        self,
        monitor: Monitor,
        *,
        max_stall_s: float | None = MAX_STALL_S,
        process: Process | None = None,
        partly: bool = False,
        crashes: bool = True,
    ) -> None:
        """
        Ask nothing yet.

        Args:
            monitor: The guest's.
            max_stall_s: How long the first reading may stop the guest, by estimate; None for
                however long it takes. Later ones are not refused: a chain that has begun to change
                must be seen.
            process: The QEMU, where it is known: what it can do is remembered by it.
            partly: Whether a graph without the details of its nodes will do, where listing them
                could crash the QEMU. Enough for a look, and not for a change.
            crashes: False for a recording, which cannot.
        """
        self._monitor = monitor
        self._max_stall_s = max_stall_s
        self._partly = partly
        self._crashes = crashes
        self._has_read = False
        self.abilities: Final = Abilities(monitor, process)
        self._details = DetailsReader(monitor, self.abilities)

    def read(
        self, *, nested_ok: bool = True, names_are_plain: Callable[[], bool] = lambda: False
    ) -> Graph:
        """
        Read devices, nodes, edges and jobs as one consistent graph.

        Args:
            nested_ok: Whether replies that grow with the square of a chain's depth are safe.
            names_are_plain: Whether all headers name their backing files as QEMU does; asked
                where a reading would be refused otherwise.

        Raises:
            GuestWouldStall: QEMU would hold up the guest for longer than is allowed.
            TornReading: It changed each time.
            StreamLingers: A finished stream makes the query for all nodes dangerous.
            MalformedReply: A reply is not as QAPI defines it.
            CommandFailed: QEMU answers a query that every version has with an error.
        """
        what = ""
        for _ in range(TRIES):
            seen = self._edges_and_jobs(nested_ok)
            self._check_stall(seen, names_are_plain)
            lingering = self._lingering_stream(seen)
            if lingering is None:
                graph, jobs = self._nodes(seen, nested_ok)
            elif self._partly and nested_ok and seen.debug is not None:
                graph, jobs = self._partial(seen, seen.debug, _UNLISTED.format(lingering))
            else:
                raise StreamLingers(lingering)
            what = _torn(graph, seen.debug)
            if not what and _states(seen.jobs) != _states(jobs):
                what = "a job changed its state"
            if not what:
                self._has_read = True
                return graph
        raise TornReading(TRIES, what)

    def _edges_and_jobs(self, nested_ok: bool) -> _Seen:
        """The first hop: what takes QEMU no time, and tells how dangerous the second one is."""
        is_new = self.abilities.knows(Ability.FLAT_DEVICES) is None
        probes = [Ability.FLAT_DEVICES] if is_new else []
        jobs, debug, *answers = self._monitor.execute_all(
            [(_JOBS, {}), (_DEBUG, {}), *(PROBES[probe] for probe in probes)]
        )
        self.abilities.learn(probes, answers)
        if not isinstance(debug, CommandFailed):
            return _Seen(jobs=_jobs(jobs), debug=debug_graph_from(debug))
        if not nested_ok:
            raise CommandFailed(_DEBUG, "CommandNotFound", "no flat way to the edges")
        (stats,) = self._monitor.execute_all([(_STATS, {})])
        told = None if isinstance(stats, CommandFailed) else edges_from_blockstats(stats)
        return _Seen(jobs=_jobs(jobs), by_stats=told)

    def _check_stall(self, seen: _Seen, names_are_plain: Callable[[], bool]) -> None:
        if self._max_stall_s is None or self._has_read:
            return
        stall = stall_of(seen.edges or ())
        if stall.nested_s <= self._max_stall_s:
            return
        seconds = stall.plain_s if names_are_plain() else stall.nested_s
        if seconds > self._max_stall_s:
            raise GuestWouldStall(stall.depth, seconds, self._max_stall_s)

    def _lingering_stream(self, seen: _Seen) -> str | None:
        """Id of a stream that makes it dangerous to list all nodes; see `StreamLingers`."""
        streams = [job for job in seen.jobs if job.type == "stream"]
        if not streams or not self._crashes:
            return None
        ended = [job for job in streams if job.status == "concluded"]
        if seen.debug is not None:
            bare = [job.id for job in ended if seen.debug.has_bare(job.id)]
            if bare or len(ended) == len(streams):
                return next(iter(bare), None)
        details, version = self._monitor.execute_all([("query-block-jobs", {}), (_VERSION, {})])
        if leaves_no_bare_filter(version):
            return None
        if ended and seen.debug is None:
            return ended[0].id
        if isinstance(details, CommandFailed):
            return None
        looked_at = [job.id for job in ended]
        return next(iter(lingering_streams(details, looked_at)), None)

    def _nodes(self, seen: _Seen, nested_ok: bool) -> tuple[Graph, tuple[Job, ...]]:
        """The second hop: nodes and devices; and the jobs as they are after it."""
        flat = bool(self.abilities.knows(Ability.FLAT_DEVICES))
        ask_devices: list[Query] = [(_BLOCK, {"flat": True} if flat else {})]
        if not (flat or nested_ok):
            ask_devices = []  # the debug graph has them
        listed, *blocks, jobs = self._monitor.execute_all(
            [(_NODES, {"flat": True}), *ask_devices, (_JOBS, {})]
        )
        if is_unexpected(listed, "flat") and nested_ok:  # before 5.0
            listed, jobs = self._monitor.execute_all([(_NODES, {}), (_JOBS, {})])
        if isinstance(listed, CommandFailed):
            if not nested_ok or seen.debug is None:
                raise listed
            try:
                return self._partial(seen, seen.debug, _CORRUPT.format(listed.description))
            except CommandFailed:
                raise listed from None
        nodes, edges = nodes_from(listed)
        return _graph(seen, nodes, edges, blocks), _jobs(jobs)

    def _partial(self, seen: _Seen, debug: DebugGraph, note: str) -> tuple[Graph, tuple[Job, ...]]:
        """What can be known without a list of all nodes."""
        blocks, stats, jobs = self._monitor.execute_all([(_BLOCK, {}), (_STATS, {}), (_JOBS, {})])
        for reply in blocks, stats:
            if isinstance(reply, CommandFailed):
                raise reply
        return partial_graph(blocks, debug, stats, jobs=seen.jobs, why=note), _jobs(jobs)

    def details(self, graph: Graph) -> Details:
        """See `DetailsReader.read`."""
        return self._details.read(graph)


def _jobs(reply: object) -> tuple[Job, ...]:
    if isinstance(reply, CommandFailed):
        if reply.error_class == "CommandNotFound":
            return ()
        raise reply
    return jobs_from(reply)


def _graph(
    seen: _Seen, nodes: Sequence[Node], edges: tuple[Edge, ...] | None, blocks: Sequence[object]
) -> Graph:
    """
    Put the replies together.

    Args:
        seen: The first hop.
        nodes: Listed in the second one.
        edges: Those that came with them; None where QEMU does not tell them so.
        blocks: Reply to `query-block`, if it was asked.
    """
    debug = seen.debug
    if edges is None:
        if seen.edges is None:
            raise CommandFailed(_DEBUG, "CommandNotFound", "no way to the edges")
        edges = seen.edges
        if debug is None:
            # query-blockstats tells a qcow2's data file in the place of its own.
            external = {node.name for node in nodes if node.data_file is not None}
            edges = tuple(e for e in edges if e.role != "file" or e.parent not in external)
    for reply in blocks:
        if isinstance(reply, CommandFailed):
            raise reply
    if debug is None:
        devices = devices_from(blocks[0])
        job_edges: tuple[Edge, ...] = ()
    else:
        devices = debug.with_entries(devices_from(blocks[0]) if blocks else debug.devices)
        job_edges = debug.job_edges
        away = debug.inactive_roots
        nodes = [replace(node, active=False) if node.name in away else node for node in nodes]
    return Graph(
        devices=devices,
        nodes={node.name: node for node in nodes},
        edges=edges,
        jobs=seen.jobs,
        job_edges=job_edges,
        exported=debug.exported if debug is not None else frozenset(),
    )


def _torn(graph: Graph, debug: DebugGraph | None) -> str:
    """
    How the replies of one reading contradict each other; empty when they do not.

    An overlay that waits for its switch is a node like the others, so between two queries a
    device may get another root without any node that comes or goes, and without a job.
    """
    missing = graph.missing()
    if debug is not None:
        missing |= graph.nodes.keys() ^ set(debug.names)
    if missing:
        return f"no node {', '.join(sorted(missing))}"
    for device in graph.devices:
        if device.entry and device.root and device.root not in graph.below(device.entry):
            return f"node {device.root} got under {device.name}"
    return ""


def _states(jobs: tuple[Job, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((job.id, job.status) for job in jobs)
