"""A cheap look at one disk: which nodes it reads, and in which order its layers come."""

from __future__ import annotations

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.debug_graph import QUERY, debug_graph_from
from qmpsnap.graph.nodes import Graph
from qmpsnap.monitor.base import CommandFailed, Monitor
from qmpsnap.operations.guest import Outline


def outline(monitor: Monitor, disk: Disk) -> Outline | None:
    """
    Look at a disk as it is now.

    Args:
        monitor: The guest's.
        disk: As it was.

    Returns:
        None when it cannot be told in this way: no debug graph, or not one such device.

    Raises:
        MalformedReply: It is not as QAPI defines it.
    """
    try:
        seen = debug_graph_from(monitor.execute(QUERY))
    except CommandFailed:
        return None
    names = {disk.qdev, disk.disk}  # a backend is named as its drive is, else as its device
    entries = [root for name, root in seen.roots if name in names]
    if len(entries) != 1 or entries[0] is None:
        return None
    graph = Graph(devices=(), nodes={}, edges=seen.edges)
    found = graph.below(entries[0])
    layers = {layer.node for layer in disk.layers}
    # One child and unknown before: a filter, most likely of a job. An overlay reads two, a file none.
    return Outline(
        nodes=frozenset(n for n in found if n in disk.nodes or len(graph.children(n)) != 1),
        order=tuple(name for name in found if name in layers),
    )
