"""
Nodes that a call of this tool has left which died between two steps. Pure.

They would hold the overlay's lock, or stand in the way of the next job. Certainly left by us are
those with our prefix that were never switched to or have been merged, and what an ended active
commit of ours proves to have been its top. No other node is touched: somebody may be about to use
it. So is the chain of a disk that was unplugged, which may be plugged in again.
"""

from __future__ import annotations

from collections.abc import Collection

from qmpsnap.graph.chain import chain, nodes_of
from qmpsnap.graph.nodes import Graph
from qmpsnap.guests.qmp.names import ACTIVE_COMMIT, OURS, id_of


def leftovers(graph: Graph, ended: Collection[str]) -> tuple[str, ...]:
    """
    Find the nodes to close, each above what it reads.

    Args:
        graph: Read while the jobs are still there.
        ended: Ids of our jobs that have ended.
    """
    pivoted = [job for job in ended if job.startswith(f"{OURS}{ACTIVE_COMMIT}-")]
    found = dict.fromkeys(left_by_pivots(graph, pivoted))
    for name in graph.nodes:
        if name.startswith(OURS) and not is_read(graph, name) and not _is_whole(graph, name):
            found[name] = None
    return tuple(found)


def _is_whole(graph: Graph, name: str) -> bool:
    """
    Whether a node is the top of a chain of its own.

    An overlay that waits for its switch is open without a backing file; what is read below one
    that was merged away is read by the disk as well.
    """
    below = graph.child(name, "backing")
    if below is None:
        return False
    return not any(
        edge.child == below.name and edge.parent != name for edge in graph.edges
    ) and not any(below.name in (device.root, device.entry) for device in graph.devices)


def is_read(graph: Graph, name: str) -> bool:
    """Whether another node or a device reads this one."""
    return any(edge.child == name for edge in graph.edges) or any(
        device.root == name for device in graph.devices
    )


def left_by_pivots(graph: Graph, jobs: Collection[str]) -> tuple[str, ...]:
    """
    Find the nodes that active commits of ours left above their bases, upper ones first.

    A job's id follows from the disk, its top and its base. A node that nothing reads, over the
    active layer of a device, is the top of such a job when these three give the job's id.
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
        if is_read(graph, name):
            continue
        layers = chain(graph, name)
        for number, base in enumerate(layers):
            disk = disks.get(base.top.name)
            if disk and id_of(ACTIVE_COMMIT, disk, layers[0].path, base.path) in jobs:
                for layer in layers[:number]:
                    found += nodes_of(graph, layer)
    return tuple(found)
