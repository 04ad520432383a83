"""
Every file that a disk can read, not only those of its chain.

A qcow2's external data file, a vmdk's extents, the images of a quorum, a filter's log: the guest
reaches them all. An overlay without a recorded format over a file in which the guest wrote a
qcow2 header with a data file makes libvirt 9.0 open a file of the host that its XML never
mentions; the graph shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from qmpsnap.graph.chain import ChainLink, host_path, node_path
from qmpsnap.graph.drivers import DriverKind
from qmpsnap.graph.nodes import Edge, Graph, Node
from qmpsnap.graph.sources import source_name


class OpenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file, or source of a network protocol, that is reachable from a disk."""

    path: str | None
    """Host file; None for a network source or a passed file descriptor."""
    name: str
    """Path, or what the protocol calls it."""
    protocol: str | None
    """Driver of the node that has it open; None where no node of its own was seen."""
    node: str | None
    role: str
    """`file` for the layer's own file, else the last other role on the way to it: `data-file`,
    `extents.0`, `children.1`, `log`, …"""
    layer: int
    """Position of the layer in its chain through which it is reached, the active one being 0."""


def files_of(graph: Graph, layers: tuple[ChainLink, ...]) -> tuple[OpenFile, ...]:
    """List the files reachable from a chain, the chain's own included, in chain order."""
    found: list[OpenFile] = []
    for position, layer in enumerate(layers):
        below = layers[position + 1].top.name if position + 1 < len(layers) else None
        without = {below} if below is not None else set()
        mine = [
            OpenFile(
                path=path,
                name=path or source_name(node.filename),
                protocol=node.driver,
                node=node.name,
                role=role,
                layer=position,
            )
            for node, role in _leaves(graph, layer.top, without)
            for path in [layer.path if node is layer.protocol else node_path(node)]
        ]
        found += mine
        found += _only_named(layer, position, {one.path for one in mine})
    return tuple(found)


def _leaves(graph: Graph, top: Node, without: Collection[str]) -> Iterator[tuple[Node, str]]:
    """Protocol nodes below `top` with their role; nothing in `without` is entered."""
    roles: dict[str, str] = {}
    for name, edge in graph.walk(top.name, without):
        node = graph.nodes.get(name)
        if node is None:
            continue
        role = roles[name] = "file" if edge is None else _role(graph, edge, roles)
        if node.kind is DriverKind.PROTOCOL:
            yield node, role


def _role(graph: Graph, edge: Edge, roles: Mapping[str, str]) -> str:
    """A filter's child may be called `backing` or `image`, and is the same data."""
    parent = graph.nodes.get(edge.parent)
    if edge.role in ("file", "image") or (
        edge.role == "backing" and parent is not None and parent.kind is DriverKind.FILTER
    ):
        return roles.get(edge.parent, edge.role)
    return edge.role


def _only_named(layer: ChainLink, position: int, known: set[str | None]) -> Iterator[OpenFile]:
    """Files that the format node names, and that no edge leads to: not every source has all."""
    node = layer.node
    named = [(f"extents.{n}", name) for n, name in enumerate(node.extents)]
    if node.data_file is not None:
        named.append(("data-file", node.data_file))
    for role, name in named:
        path = host_path(name)
        if path not in known and name != node.filename:
            yield OpenFile(
                path=path, name=path or name, protocol=None, node=None, role=role, layer=position
            )
