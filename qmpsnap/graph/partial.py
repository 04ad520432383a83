"""
The graph of a guest in which one node makes `query-named-block-nodes` fail.

A qcow2 that QEMU found corrupt while it ran loses its driver, and from then on the query fails
for the whole guest ("Block device X is ejected", seen on 5.2, 7.2, 10.0 and 11.1). The debug
graph still names all nodes and edges, `query-block` still describes the chains of the other
disks (nested, without node names), and `query-blockstats` names the drivers of host files.
Together they give those chains back; a node that none of them describes has no driver here, and
so states nothing.

Source: QEMU block/qapi.c, bdrv_block_device_info(): the nested images follow the child that is
filtered or read for copy-on-write, and leave out the filters that a job inserted by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from qmpsnap.graph.blockstats import drivers_from_blockstats
from qmpsnap.graph.debug_graph import DebugGraph
from qmpsnap.graph.drivers import DriverKind, kind_of
from qmpsnap.graph.nodes import Graph, Job, Node
from qmpsnap.graph.qmp import (
    InsertedImages,
    devices_from,
    images_from_query_block,
    node_from_image,
)
from qmpsnap.graph.wire import ImageInfo


def partial_graph(
    blocks: object, debug: DebugGraph, stats: object, *, jobs: tuple[Job, ...], why: str
) -> Graph:
    """
    Build what can be known of a graph whose nodes QEMU cannot list.

    Args:
        blocks: Reply to `query-block`, nested.
        debug: From `x-debug-query-block-graph`.
        stats: Reply to `query-blockstats`.
        jobs: Jobs at that moment.
        why: What the failure was; kept in `Graph.incomplete`.

    Raises:
        MalformedReply: A reply is not as QAPI defines it.
    """
    roots = {name: root for name, root in debug.roots if name}  # jobs' own have none
    bare = {name: Node(name=name, driver="", filename="") for name in debug.names}
    graph = Graph(
        devices=(),
        nodes=bare,
        edges=debug.edges,
        jobs=jobs,
        job_edges=debug.job_edges,
        exported=debug.exported,
        incomplete=why,
    )
    described: dict[str, Node] = {}
    for inserted in images_from_query_block(blocks):
        described |= _along(graph, inserted)
    described |= _storage(graph, described, drivers_from_blockstats(stats))
    devices = tuple(
        replace(device, root=device.root or roots.get(device.device or device.qdev or ""))
        for device in debug.with_entries(devices_from(blocks))
    )
    return replace(graph, devices=devices, nodes={**bare, **described})


def _along(graph: Graph, inserted: InsertedImages) -> Mapping[str, Node]:
    """
    Pair the nested images of one disk with the nodes of its chain, from the root down.

    Where the two do not have the same length, a job's filter lies somewhere in between, and
    which image is which node cannot be told: then none is.
    """
    found: dict[str, Node] = {}
    name: str | None = inserted.root
    for image in _nested(inserted.image):
        if name is None or name not in graph.nodes:
            return {}
        found[name] = node_from_image(name, image)
        name = _next(graph, name, found[name].kind)
    return {} if name is not None else found


def _nested(image: ImageInfo | None) -> Iterator[ImageInfo]:
    while image is not None:
        yield image
        image = image.backing_image


def _next(graph: Graph, name: str, kind: DriverKind) -> str | None:
    roles = ("file", "backing", "image") if kind is DriverKind.FILTER else ("backing",)
    child = graph.child(name, *roles)
    return child.name if child else None


def _storage(
    graph: Graph, described: Mapping[str, Node], drivers: Mapping[str, str]
) -> Mapping[str, Node]:
    """Give the node below each format node its driver, and the format node's file name."""
    found = {
        name: Node(name=name, driver=driver, filename="")
        for name, driver in drivers.items()
        if kind_of(driver) is DriverKind.PROTOCOL and name in graph.nodes
    }
    for node in described.values():
        child = graph.child(node.name, "file")
        if child is not None and child.name in found:
            found[child.name] = replace(found[child.name], filename=node.filename)
    return {name: node for name, node in found.items() if name not in described}
