"""
`query-blockstats`: the stable way to edges before QEMU 10.1, and drivers of host files.

It nests, so it is only asked where nothing else tells the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from qmpsnap.graph.nodes import Edge
from qmpsnap.graph.wire import BlockStats, parse, unambiguous


def drivers_from_blockstats(reply: object) -> dict[str, str]:
    """
    Driver by node name, of the nodes for which `query-blockstats` tells it (host files).

    Raises:
        MalformedReply: It is not a list of BlockStats.
    """
    drivers: dict[str, str] = {}
    for stats in _walk_stats(reply):
        if stats.node_name and stats.driver_specific and stats.driver_specific.driver:
            drivers[stats.node_name] = stats.driver_specific.driver
    return drivers


def _walk_stats(reply: object) -> Iterator[BlockStats]:
    """Every entry of a reply, parents before children, without recursion."""
    left = list(parse("query-blockstats", reply, list[BlockStats]))
    while left:
        stats = left.pop()
        yield stats
        left += [below for below in (stats.backing, stats.parent) if below is not None]


def edges_from_blockstats(reply: object) -> tuple[Edge, ...]:
    """
    Parse `query-blockstats` (without `query-nodes`): the stable way to edges before QEMU 10.1.

    Its `backing` is the child that is read through for copy-on-write, or the filtered one; its
    `parent` is the child with the data (QEMU block/qapi.c, bdrv_query_bds_stats()). For a filter
    the two are the same node.

    Raises:
        MalformedReply: It is not a list of BlockStats, or a node has two children in one role.
    """
    edges: dict[Edge, None] = {}
    for stats in _walk_stats(reply):
        for role, below in (("backing", stats.backing), ("file", stats.parent)):
            if stats.node_name and below is not None and below.node_name:
                edges[Edge(parent=stats.node_name, child=below.node_name, role=role)] = None
    told = unambiguous("query-blockstats", edges)
    # For a filter both lead to the same node, and chain() takes either role.
    return tuple(
        edge
        for edge in told
        if edge.role == "backing" or replace(edge, role="backing") not in edges
    )
