"""A cheap look at disks: which nodes each reads, and in which order its layers come."""

from __future__ import annotations

from collections.abc import Sequence

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.debug_graph import QUERY, DebugGraph, debug_graph_from
from qmpsnap.graph.nodes import Graph
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.operations.guest import Outline


def outlines(monitor: Monitor, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
    """
    Look at disks as they are now, all at one moment.

    Args:
        monitor: The guest's.
        disks: As they were.

    Returns:
        For each its outline; None where it cannot be told in this way: no debug graph, or not one
        such device.

    Raises:
        MalformedReply: It is not as QAPI defines it.
    """
    try:
        seen = debug_graph_from(monitor.execute(QUERY))
    except CommandFailed:
        return (None,) * len(disks)
    graph = Graph(devices=(), nodes={}, edges=seen.edges)
    return tuple(_outline(seen, graph, disk) for disk in disks)


def _outline(seen: DebugGraph, graph: Graph, disk: Disk) -> Outline | None:
    names = {disk.qdev, disk.disk}  # a backend is named as its drive is, else as its device
    entries = [root for name, root in seen.roots if name in names]
    if len(entries) != 1 or entries[0] is None:
        return None
    found = graph.below(entries[0])
    layers = {layer.node for layer in disk.layers}
    # One child and unknown before: a filter, most likely of a job. An overlay reads two, a file none.
    return Outline(
        nodes=frozenset(n for n in found if n in disk.nodes or len(graph.children(n)) != 1),
        order=tuple(name for name in found if name in layers),
    )
