"""A cheap look at one disk: which nodes it reads, and in which order its layers come."""

from __future__ import annotations

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.qmp import (
    devices_from_debug_graph,
    edges_from_debug_graph,
)
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
        reply = monitor.execute("x-debug-query-block-graph")
    except CommandFailed:
        return None
    below: dict[str, list[str]] = {}
    for edge in edges_from_debug_graph(reply):
        below.setdefault(edge.parent, []).append(edge.child)
    names = {disk.qdev, disk.disk}  # a backend is named as its drive is, else as its device
    entries = [one.root for one in devices_from_debug_graph(reply) if one.qdev in names]
    entry = entries[0] if len(entries) == 1 else None
    if entry is None:
        return None
    found: dict[str, None] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            found[name] = None
            waiting += below.get(name, ())
    layers = {layer.node for layer in disk.layers}
    # One child and unknown before: a filter, most likely of a job. An overlay reads two, a file none.
    return Outline(
        nodes=frozenset(n for n in found if n in disk.nodes or len(below.get(n, ())) != 1),
        order=tuple(name for name in found if name in layers),
    )
