"""
From a graph to the chain of each disk.

    device ── root ──► [filters] ──► format node ──► [filters] ──► protocol node
                                        │ backing
                                        ▼
                       [filters] ──► format node ──► …

A layer is one file of the chain. Its format node is the first node that is not a filter; where a
protocol node stands in that place there is no format node, and the layer is raw. Edges lead from
node to node, never from file name to file name: names were wrong or ambiguous in 57 of 531
recorded chains.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from qmpsnap.errors import Failed
from qmpsnap.graph.drivers import DriverKind
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.graph.sources import source_name


class ChainLoop(Failed):
    """The graph leads back into itself; QEMU cannot have sent this."""

    msg = "the block graph leads in a circle at node {self.node!r}"
    changed = "no"

    node: str


class ChainLink(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a chain, as the running QEMU has it open."""

    node: Node
    """The format node, or the protocol node that stands in its place."""
    protocol: Node | None
    """The node that holds the file; the same as `node` for raw without a raw node."""
    top: Node
    """What the layer above reads: `node`, or the first of `filters`."""
    filters: tuple[Node, ...] = ()
    """Filter nodes above `node`, topmost first."""
    between: tuple[Node, ...] = ()
    """Nodes between `node` and `protocol`: a filter, the raw node that cuts out a slice, `inner`."""

    path: str | None = None
    """Absolute or relative name of the host file; None for network protocols."""

    @property
    def inner(self) -> tuple[Node, ...]:
        """
        Formats below the format, upper ones first: `luks` of raw over luks over the file.

        Whoever opens the file with the format of `node` alone reads other bytes than the guest. A
        raw node passes its bytes on as they are, if it is no slice; what a driver that is not known
        here does with those of a file, nobody can tell.
        """
        passes_on = {DriverKind.FILTER, *(() if self.protocol else (DriverKind.UNKNOWN,))}
        return tuple(
            one for one in self.between if one.kind not in passes_on and one.driver != "raw"
        )

    @property
    def file(self) -> str:
        """Last part of the host file's name, or the name that the protocol gives."""
        if self.path is not None:
            return self.path.rpartition("/")[2]
        return source_name((self.protocol or self.node).filename)


_LOCAL = frozenset({"file", "host_device", "host_cdrom"})


def node_path(node: Node) -> str | None:
    """The host file that a node has open; None where it is no local file, or has no name."""
    return (host_path(node.filename) or None) if node.driver in _LOCAL else None


def chain(graph: Graph, root: str) -> tuple[ChainLink, ...]:
    """
    Return the layers from the node `root` down, active layer first.

    The chain ends where a node is missing, so a torn reading gives a short chain, not an error.

    Raises:
        ChainLoop: The same node is met twice.
    """
    layers = []
    seen: set[str] = set()
    node = graph.nodes.get(root)
    while node is not None:
        *filters, bottom = _down(graph, node, seen)
        *between, protocol = _storage(graph, bottom, seen)
        layers.append(
            ChainLink(
                node=bottom,
                protocol=protocol,
                top=node,
                filters=tuple(filters),
                between=tuple(one for one in between if one is not None),
                path=None if protocol is None else node_path(protocol),
            )
        )
        node = graph.child(bottom.name, "backing")
    return tuple(layers)


def _down(graph: Graph, node: Node | None, seen: set[str]) -> Iterator[Node]:
    """Yield filters, then the first node that is none (or the last filter there is)."""
    while node is not None:
        if node.name in seen:
            raise ChainLoop(node.name)
        seen.add(node.name)
        yield node
        if node.kind is not DriverKind.FILTER:
            return
        node = _filtered(graph, node)


def _filtered(graph: Graph, node: Node) -> Node | None:
    """
    Return the one child that a filter filters.

    `backing` for commit_top and mirror_top, `image` for blkdebug and blkreplay, `file` for the
    others (QEMU block.c, bdrv_filter_child(); the names are those of bdrv_open_child()).
    """
    return graph.child(node.name, "file", "backing", "image")


def _storage(graph: Graph, node: Node, seen: set[str]) -> Iterator[Node | None]:
    """Yield what lies between `node` and the node that holds the bytes, then that one (or None)."""
    while node.kind is not DriverKind.PROTOCOL:
        is_filter = node.kind is DriverKind.FILTER
        below = _filtered(graph, node) if is_filter else graph.child(node.name, "file")
        if below is None:
            yield None
            return
        if below.name in seen:
            raise ChainLoop(below.name)
        seen.add(below.name)
        if below.kind is not DriverKind.PROTOCOL:
            yield below
        node = below
    yield node


def host_path(filename: str) -> str | None:
    """
    Return the host's name for what QEMU calls `filename`.

    QEMU writes a `json:{…}` name for a file opened with options that are not defaults; the name
    is in there. A passed file descriptor (`/dev/fdset/N`) has no name that QEMU knows.
    """
    if filename.startswith("json:"):
        try:
            described = json.loads(filename.removeprefix("json:"))
        except (ValueError, RecursionError):
            return None
        while isinstance(described, dict) and "filename" not in described:
            described = described.get("file")
        name = described.get("filename") if isinstance(described, dict) else None
        return host_path(name) if isinstance(name, str) and not name.startswith("json:") else None
    if filename.startswith("/dev/fdset/"):
        return None
    return filename.removeprefix("file:")


def nodes_of(graph: Graph, link: ChainLink) -> tuple[str, ...]:
    """The nodes of one layer: filters, its format node, and what that reads but its backing file."""
    below = graph.child(link.node.name, "backing")
    return graph.below(link.top.name, () if below is None else (below.name,))
