"""
One reading of a guest through its monitor: a constant number of queries, one consistent graph.

    query-jobs
    x-debug-query-block-graph edges: flat, a few milliseconds for hundreds of layers, in every
                              version from 4.0 on; query-blockstats (stable, nested) where it has
                              been taken out. Tells how long the next one would take
    query-named-block-nodes   flat; edges from `children` (QEMU 10.1 and later)
    query-block               the devices and their root nodes
    query-jobs                again: a job that changed in between may have torn the reading

All of them run in QEMU's main loop, where the guest waits too: for a chain so deep that it would
stand still for long (`graph/stall.py`), the second half is not asked. Through libvirt a nested
reply that is too large (10 MiB) or too deep (26 layers on libvirt 11.3) breaks the guest's monitor
for good, so what nests is only asked for when the domain XML shows that it stays small
(`nested_ok`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from qmpsnap.errors import Failed, Refused
from qmpsnap.graph import debug_graph
from qmpsnap.graph.blockstats import edges_from_blockstats
from qmpsnap.graph.debug_graph import DebugGraph
from qmpsnap.graph.nodes import Device, Edge, Graph, Job
from qmpsnap.graph.partial import partial_graph
from qmpsnap.graph.qmp import (
    devices_from,
    jobs_from,
    lingering_streams,
    nodes_from,
    serials_from,
)
from qmpsnap.graph.stall import stall_of
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.monitor.schema import Features, read_features

TRIES: Final = 10
_ASKED_FOR: Final = "/machine/peripheral"
"""Where QEMU puts the devices of `-device`, and not those that a board has by itself."""
_NODES: Final = "query-named-block-nodes"
_DEBUG: Final = debug_graph.QUERY
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
    """Chains so deep that QEMU would hold up its guest while it lists their nodes."""

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


class Reader:
    """Reads graphs from one monitor, and remembers what does not change while a QEMU runs."""

    def __init__(self, monitor: Monitor, *, max_stall_s: float | None = MAX_STALL_S) -> None:
        """
        Ask nothing yet.

        Args:
            monitor: The guest's.
            max_stall_s: How long the first reading may stop the guest, by estimate; None for
                however long it takes. Later ones are not refused: whoever has begun to change a
                chain must see what came of it.
        """
        self._monitor = monitor
        self._max_stall_s = max_stall_s
        self._features: Features | None = None
        self._properties: dict[tuple[str, str], str] = {}

    @property
    def features(self) -> Features:
        """What this QEMU can do; asked once."""
        if self._features is None:
            self._features = read_features(self._monitor)
        return self._features

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
            before = self._jobs()
            self._check_streams(before)
            reply = self._try(_DEBUG)
            debug = None if reply is None else debug_graph.debug_graph_from(reply)
            if debug is None and not nested_ok:
                raise CommandFailed(_DEBUG, "CommandNotFound", "no flat way to the edges")
            stats = self._try("query-blockstats") if debug is None else None
            self._check_stall(debug, stats, names_are_plain)
            graph = self._graph(nested_ok, before, debug, stats)
            what = _torn(graph, debug)
            if not what and _states(before) != _states(self._jobs()):
                what = "a job changed its state"
            if not what:
                self._max_stall_s = None
                return graph
        raise TornReading(TRIES, what)

    def _check_stall(
        self, debug: DebugGraph | None, stats: object, names_are_plain: Callable[[], bool]
    ) -> None:
        if self._max_stall_s is None:
            return
        stall = stall_of(_edges(debug, stats))
        if stall.nested_s <= self._max_stall_s:
            return
        seconds = stall.plain_s if names_are_plain() else stall.nested_s
        if seconds > self._max_stall_s:
            raise GuestWouldStall(stall.depth, seconds, self._max_stall_s)

    def _check_streams(self, jobs: tuple[Job, ...]) -> None:
        if not any(job.type == "stream" for job in jobs):
            return
        try:
            reply = self._monitor.execute("query-block-jobs")
        except CommandFailed:
            return
        lingering = lingering_streams(reply)
        if lingering:
            raise StreamLingers(lingering[0])

    def _jobs(self) -> tuple[Job, ...]:
        try:
            return jobs_from(self._monitor.execute("query-jobs"))
        except CommandFailed as error:
            if error.error_class == "CommandNotFound":
                return ()
            raise

    def _graph(
        self, nested_ok: bool, jobs: tuple[Job, ...], debug: DebugGraph | None, stats: object
    ) -> Graph:
        try:
            reply = self._monitor.execute(_NODES, {"flat": True})
        except CommandFailed as error:
            if not nested_ok:
                raise
            if self.features.has(_NODES, "flat"):
                return self._partial(error, jobs, debug)
            try:
                reply = self._monitor.execute(_NODES)
            except CommandFailed:
                return self._partial(error, jobs, debug)
        nodes, edges = nodes_from(reply)
        if debug is not None:
            away = debug.inactive_roots
            nodes = tuple(
                replace(node, active=False) if node.name in away else node for node in nodes
            )
        if edges is None:
            if debug is None and stats is None:
                raise CommandFailed(_DEBUG, "CommandNotFound", "no way to the edges")
            edges = _edges(debug, stats)
            # query-blockstats tells a qcow2's data file in the place of its own.
            external = {node.name for node in nodes if node.data_file is not None}
            if debug is None:
                edges = tuple(e for e in edges if e.role != "file" or e.parent not in external)
        devices = self._devices(debug, nested_ok)
        return Graph(
            devices=devices if debug is None else debug.with_entries(devices),
            nodes={node.name: node for node in nodes},
            edges=edges,
            jobs=jobs,
            job_edges=debug.job_edges if debug is not None else (),
        )

    def _partial(
        self, why: CommandFailed, jobs: tuple[Job, ...], debug: DebugGraph | None
    ) -> Graph:
        """One corrupt node makes the query fail for all; what can be known without it."""
        stats = self._try("query-blockstats")
        if debug is None or stats is None:
            raise why
        blocks = self._monitor.execute("query-block")
        return partial_graph(blocks, debug, stats, jobs=jobs, why=why.description)

    def _devices(self, debug: DebugGraph | None, nested_ok: bool) -> tuple[Device, ...]:
        if self.features.has("query-block", "flat"):
            return devices_from(self._monitor.execute("query-block", {"flat": True}))
        if nested_ok:
            return devices_from(self._monitor.execute("query-block"))
        if debug is None:
            raise CommandFailed("query-block", "CommandNotFound", "no flat way to the devices")
        return debug.devices

    def _try(self, command: str) -> object | None:
        try:
            return self._monitor.execute(command)
        except CommandFailed:
            return None

    def guest_name(self) -> str | None:
        """The name given by `-name`; None without one."""
        reply = self._try("query-name")
        name = reply.get("name") if isinstance(reply, dict) else None
        return name if isinstance(name, str) else None

    def serials(self, graph: Graph) -> dict[str, str]:
        """
        Serial numbers by device name, of the devices that have one: where Nova puts the volume id.

        They cannot change while the device is there, so each is asked for once: all with one
        query where QEMU has `qom-list-get` (10.1), else one by one.

        Source: qom-list-get and qom-get, qapi/qom.json; property `serial` of the block devices.
        """
        paths = {device.name: _qom_path(device.qdev) for device in graph.devices if device.qdev}
        new = [path for path in paths.values() if (path, "serial") not in self._properties]
        if len(new) > 1 and self.features.has("qom-list-get"):
            with suppress(CommandFailed):  # a device that was unplugged just now
                replies = self._monitor.execute("qom-list-get", {"paths": new})
                for path, serial in zip(new, serials_from(replies, len(new)), strict=True):
                    self._properties[path, "serial"] = serial
        found = {name: self._property(path, "serial") for name, path in paths.items()}
        return {name: serial for name, serial in found.items() if serial}

    def types(self, graph: Graph) -> dict[str, str]:
        """
        QOM type by device name (`floppy`, `scsi-cd`, …), of the devices that are no plain disks.

        Those with a removable medium, and those that the board has by itself (flash memory).
        """
        found = {
            device.name: self._property(_qom_path(device.qdev), "type")
            for device in graph.devices
            if device.qdev and not _plain(device)
        }
        return {name: type_ for name, type_ in found.items() if type_}

    def _property(self, path: str, name: str) -> str:
        if (path, name) not in self._properties:
            value = None
            with suppress(CommandFailed):  # not every device has this property
                value = self._monitor.execute("qom-get", {"path": path, "property": name})
            self._properties[path, name] = value if isinstance(value, str) else ""
        return self._properties[path, name]


def _plain(device: Device) -> bool:
    """Whether it is a disk by all that is seen: it was asked for, and its medium stays."""
    path = device.qdev or ""
    return not device.removable and (not path.startswith("/") or path.startswith(_ASKED_FOR))


def _qom_path(qdev: str) -> str:
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"


def _edges(debug: DebugGraph | None, stats: object) -> tuple[Edge, ...]:
    """By the debug graph, or `query-blockstats` without it; none where there is neither."""
    if debug is not None:
        return debug.edges
    return () if stats is None else edges_from_blockstats(stats)


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
