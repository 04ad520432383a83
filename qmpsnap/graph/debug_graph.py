"""
`x-debug-query-block-graph`: flat, a few milliseconds for hundreds of layers, since QEMU 4.0.

The only query that also tells which nodes a job works on, and what lies over a device's root.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.graph.nodes import Device, Edge
from qmpsnap.graph.wire import MalformedReply, XDbgBlockGraph, parse, unambiguous

QUERY: Final = "x-debug-query-block-graph"


class DebugGraph(msgspec.Struct, frozen=True, kw_only=True):
    """The whole reply, parsed once."""

    names: tuple[str, ...]
    """Of all nodes."""
    edges: tuple[Edge, ...]
    """From node to node; those of jobs and devices are no part of a chain."""
    roots: tuple[tuple[str, str | None], ...]
    """Pairs of device (qdev path or drive id) and root node. The backends that jobs make for
    themselves are there too, all without a name."""
    inactive_roots: frozenset[str]
    """
    Root nodes of devices whose images belong to another QEMU.

    QEMU before 10.0 has no word for it, but takes every permission from such a device
    (blk_root_inactivate(), block/block-backend.c). No other device is without any: an empty list
    stands in none of the recordings but for the backends of jobs, which have no name.
    """
    job_edges: tuple[Edge, ...]
    """From jobs, by their ids, to the nodes they work on (`source`, `base`, `main node`, …)."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices and their roots, for hosts where a nested `query-block` is dangerous."""
        return tuple(Device(device="", qdev=name or None, root=root) for name, root in self.roots)

    @property
    def exported(self) -> frozenset[str]:
        """Nodes that a backend without a name reads which is no job's: an export's, most likely."""
        of_jobs = {edge.child for edge in self.job_edges}
        return frozenset(root for name, root in self.roots if root and not name) - of_jobs

    def has_bare(self, job: str) -> bool:
        """
        Whether a job holds a filter that it has taken out of its chain, so that it has no child.

        A stream of QEMU 7.2 does so between its end and its dismissal; in 10.0 the filter keeps
        its child.
        """
        parents = {edge.parent for edge in self.edges}
        return any(
            edge.parent == job and edge.role == "main node" and edge.child not in parents
            for edge in self.job_edges
        )

    def with_entries(self, devices: Iterable[Device]) -> tuple[Device, ...]:
        """Tell each device's entry."""
        roots = {name: root for name, root in self.roots if name}  # jobs' own have none
        # A backend is named as its drive is, else as its device.
        return tuple(
            replace(device, entry=roots.get(device.device or device.qdev or ""))
            if device.root is not None
            else device
            for device in devices
        )


def debug_graph_from(reply: object) -> DebugGraph:
    """
    Parse `x-debug-query-block-graph`.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph, an id or a node name repeats, or a node has
            two children in one role.
    """
    told = parse(QUERY, reply, XDbgBlockGraph)
    if len({node.id for node in told.nodes}) != len(told.nodes):
        raise MalformedReply(QUERY, "an id stands there twice")
    drivers = {node.id: node.name for node in told.nodes if node.type == "block-driver"}
    names = tuple(drivers.values())
    if len(set(names)) != len(names):
        raise MalformedReply(QUERY, "a node name stands there twice")
    backends = {node.id: node.name for node in told.nodes if node.type == "block-backend"}
    jobs = {node.id: node.name for node in told.nodes if node.type == "block-job"}
    edges, job_edges = [], []
    root_of: dict[int, str] = {}
    inactive = set()
    for edge in told.edges:
        child = drivers.get(edge.child)
        if child is None:
            continue
        if edge.parent in drivers:
            edges.append(Edge(parent=drivers[edge.parent], child=child, role=edge.name))
        elif edge.parent in jobs:
            job_edges.append(Edge(parent=jobs[edge.parent], child=child, role=edge.name))
        elif edge.parent in backends:
            if edge.name == "root":
                root_of[edge.parent] = child
            if backends[edge.parent] and edge.perm == []:
                inactive.add(child)
    return DebugGraph(
        names=names,
        edges=unambiguous(QUERY, edges),
        roots=tuple((name, root_of.get(number)) for number, name in backends.items()),
        inactive_roots=frozenset(inactive),
        job_edges=tuple(job_edges),
    )
