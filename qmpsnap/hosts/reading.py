"""
One reading of a guest through its monitor: a constant number of queries, one consistent graph.

    query-jobs
    query-named-block-nodes   flat; edges from `children` (QEMU 10.1 and later)
    query-block               the devices and their root nodes
    x-debug-query-block-graph edges of an older QEMU: flat, and in every version from 4.0 on;
                              query-blockstats (stable, nested) where it has been taken out;
                              asked of every QEMU while a job runs: which nodes it works on
    query-jobs                again: a job that changed in between may have torn the reading

All of them run in QEMU's main loop. Through libvirt a nested reply that is too large (10 MiB) or
too deep (26 layers on libvirt 11.3) breaks the guest's monitor for good, so what nests is only
asked for when the domain XML shows that it stays small (`nested_ok`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from qmpsnap.errors import Failed, Refused
from qmpsnap.graph.nodes import Device, Edge, Graph, Job
from qmpsnap.graph.partial import partial_graph
from qmpsnap.graph.qmp import (
    devices_from,
    devices_from_debug_graph,
    edges_from_blockstats,
    edges_from_debug_graph,
    inactive_roots_from_debug_graph,
    job_edges_from_debug_graph,
    jobs_from,
    lingering_streams,
    nodes_from,
)
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.monitor.schema import Features, read_features

TRIES: Final = 10
_ASKED_FOR: Final = "/machine/peripheral"
"""Where QEMU puts the devices of `-device`, and not those that a board has by itself."""


@dataclass(eq=False)
class TornReading(Failed):
    """The graph changed each time while it was read."""

    msg = "the block graph changed while it was read, {self.tries} times in a row: {self.what}"
    remedy = "Wait for the jobs that are running to end, then try again."
    changed = "no"

    tries: int
    what: str


@dataclass(eq=False)
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


class Reader:
    """Reads graphs from one monitor, and remembers what does not change while a QEMU runs."""

    def __init__(self, monitor: Monitor) -> None:
        """Ask nothing yet."""
        self._monitor = monitor
        self._features: Features | None = None
        self._properties: dict[tuple[str, str], str] = {}

    @property
    def features(self) -> Features:
        """What this QEMU can do; asked once."""
        if self._features is None:
            self._features = read_features(self._monitor)
        return self._features

    def read(self, *, nested_ok: bool = True) -> Graph:
        """
        Read devices, nodes, edges and jobs as one consistent graph.

        Args:
            nested_ok: Whether replies that grow with the square of a chain's depth are safe.

        Raises:
            TornReading: It changed each time.
            StreamLingers: A finished stream makes the query for all nodes dangerous.
            MalformedReply: A reply is not as QAPI defines it.
            CommandFailed: QEMU answers a query that every version has with an error.
        """
        what = ""
        for _ in range(TRIES):
            before = self._jobs()
            self._check_streams(before)
            graph = self._graph(nested_ok, before)
            missing = graph.missing()
            after = self._jobs()
            if not missing and _states(before) == _states(after):
                return graph
            what = f"no node {', '.join(sorted(missing))}" if missing else "a job changed its state"
        raise TornReading(TRIES, what)

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

    def _graph(self, nested_ok: bool, jobs: tuple[Job, ...]) -> Graph:
        try:
            reply = self._monitor.execute("query-named-block-nodes", {"flat": True})
        except CommandFailed as error:
            if not nested_ok:
                raise
            try:
                reply = self._monitor.execute("query-named-block-nodes")
            except CommandFailed:
                return self._partial(error, jobs)
        nodes, edges = nodes_from(reply)
        debug = None
        if edges is None or not nested_ok or jobs:
            debug = self._try("x-debug-query-block-graph")
        if debug is not None:
            away = inactive_roots_from_debug_graph(debug)
            nodes = tuple(
                replace(node, active=False) if node.name in away else node for node in nodes
            )
        if edges is None:
            edges = self._edges(debug, nested_ok)
            # query-blockstats tells a qcow2's data file in the place of its own.
            external = {node.name for node in nodes if node.data_file is not None}
            if debug is None:
                edges = tuple(e for e in edges if e.role != "file" or e.parent not in external)
        return Graph(
            devices=self._devices(debug, nested_ok),
            nodes={node.name: node for node in nodes},
            edges=edges,
            jobs=jobs,
            job_edges=job_edges_from_debug_graph(debug) if debug is not None else (),
        )

    def _partial(self, why: CommandFailed, jobs: tuple[Job, ...]) -> Graph:
        """One corrupt node makes the query fail for all; what can be known without it."""
        debug = self._try("x-debug-query-block-graph")
        stats = self._try("query-blockstats")
        if debug is None or stats is None:
            raise why
        blocks = self._monitor.execute("query-block")
        return partial_graph(blocks, debug, stats, jobs=jobs, why=why.description)

    def _edges(self, debug: object, nested_ok: bool) -> tuple[Edge, ...]:
        if debug is not None:
            return edges_from_debug_graph(debug)
        if nested_ok:
            return edges_from_blockstats(self._monitor.execute("query-blockstats"))
        raise CommandFailed(
            "x-debug-query-block-graph", "CommandNotFound", "no flat way to the edges"
        )

    def _devices(self, debug: object, nested_ok: bool) -> tuple[Device, ...]:
        if self.features.has("query-block", "flat"):
            return devices_from(self._monitor.execute("query-block", {"flat": True}))
        if nested_ok:
            return devices_from(self._monitor.execute("query-block"))
        if debug is None:
            raise CommandFailed("query-block", "CommandNotFound", "no flat way to the devices")
        return devices_from_debug_graph(debug)

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
        """Serial number by device name, of the devices that have one."""
        found = {device.name: self.serial(device) for device in graph.devices}
        return {name: serial for name, serial in found.items() if serial is not None}

    def serial(self, device: Device) -> str | None:
        """
        The serial number of a device: where Nova puts the volume id.

        One query a device and monitor; it cannot change while the device is there.

        Source: qom-get, qapi/qom.json; property `serial` of the block devices.
        """
        return self._property(device, "serial")

    def types(self, graph: Graph) -> dict[str, str]:
        """
        QOM type by device name (`floppy`, `scsi-cd`, …), of the devices that are no plain disks.

        Those with a removable medium, and those that the board has by itself (flash memory).
        """
        found = {
            device.name: self._property(device, "type")
            for device in graph.devices
            if not _plain(device)
        }
        return {name: type_ for name, type_ in found.items() if type_ is not None}

    def _property(self, device: Device, name: str) -> str | None:
        if device.qdev is None:
            return None
        known = self._properties.get((device.qdev, name))
        if known is None:
            named = device.qdev.startswith("/")
            path = device.qdev if named else f"/machine/peripheral/{device.qdev}"
            value = None
            with suppress(CommandFailed):  # not every device has this property
                value = self._monitor.execute("qom-get", {"path": path, "property": name})
            known = value if isinstance(value, str) else ""
            self._properties[device.qdev, name] = known
        return known or None


def _plain(device: Device) -> bool:
    """Whether it is a disk by all that is seen: it was asked for, and its medium stays."""
    path = device.qdev or ""
    return not device.removable and (not path.startswith("/") or path.startswith(_ASKED_FOR))


def _states(jobs: tuple[Job, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((job.id, job.status) for job in jobs)
