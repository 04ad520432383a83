"""
QMP replies to a `Graph`.

Replies are parsed once, here, into typed values by msgspec; fields that QEMU adds are ignored,
fields that are missing or of another type are an error that names the place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from qmpsnap.errors import Failed
from qmpsnap.graph.nodes import Cache, Device, Edge, Job, Node, Recorded

T = TypeVar("T")


@dataclass(eq=False)
class MalformedReply(Failed):
    """QEMU (or what claims to be one) sent something that is not what QAPI says."""

    msg = "the reply to {self.command} is not as QAPI defines it: {self.reason}"
    remedy = "Nothing was changed. Check that this socket belongs to a QEMU."
    changed = "no"

    command: str
    reason: str


# The wire forms. QAPI spells most keys with dashes; what it does not is named in full.


class _Cache(msgspec.Struct, frozen=True, rename="kebab"):
    direct: bool = False
    no_flush: bool = False
    writeback: bool = True


class _Bitmap(msgspec.Struct, frozen=True, rename="kebab"):
    name: str = ""


class _Specific(msgspec.Struct, frozen=True, rename="kebab"):
    data: dict[str, object] = {}


class _Image(msgspec.Struct, frozen=True, rename="kebab"):
    virtual_size: int | None = None
    actual_size: int | None = None
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    encrypted: bool = False
    format_specific: _Specific | None = None


class _Child(msgspec.Struct, frozen=True, rename="kebab"):
    child: str
    node_name: str


class _NodeInfo(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str
    drv: str
    file: str = ""
    ro: bool = False
    encrypted: bool = False
    detect_zeroes: str = msgspec.field(name="detect_zeroes", default="off")
    cache: _Cache = _Cache()
    image: _Image = _Image()
    dirty_bitmaps: list[_Bitmap] = []
    children: list[_Child] | None = None


class _Inserted(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str = ""


class _BlockInfo(msgspec.Struct, frozen=True, rename="kebab"):
    device: str = ""
    qdev: str | None = None
    removable: bool = False
    inserted: _Inserted | None = None
    tray_open: bool = msgspec.field(name="tray_open", default=False)


class _BlockStats(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str | None = None
    parent: _BlockStats | None = None
    backing: _BlockStats | None = None


class _DebugNode(msgspec.Struct, frozen=True, rename="kebab"):
    id: int
    type: str
    name: str


class _DebugEdge(msgspec.Struct, frozen=True, rename="kebab"):
    parent: int
    child: int
    name: str


class _DebugGraph(msgspec.Struct, frozen=True, rename="kebab"):
    nodes: list[_DebugNode]
    edges: list[_DebugEdge]


class _JobInfo(msgspec.Struct, frozen=True, rename="kebab"):
    id: str
    type: str
    status: str
    current_progress: int = 0
    total_progress: int = 0
    error: str | None = None


class _BlockJobInfo(msgspec.Struct, frozen=True, rename="kebab"):
    type: str
    device: str
    status: str = ""
    auto_finalize: bool = True
    auto_dismiss: bool = True


def _parse(command: str, reply: object, shape: type[T]) -> T:
    try:
        return msgspec.convert(reply, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MalformedReply(command, str(error)) from error


def nodes_from(reply: object) -> tuple[tuple[Node, ...], tuple[Edge, ...] | None]:
    """
    Parse `query-named-block-nodes`.

    Returns:
        The nodes, and the edges where this QEMU tells them (`children`, since 10.1); None where
        it does not.

    Raises:
        MalformedReply: It is not a list of BlockDeviceInfo, or a node name repeats.
    """
    command = "query-named-block-nodes"
    infos = _parse(command, reply, list[_NodeInfo])
    names = [info.node_name for info in infos]
    if len(set(names)) != len(names):
        raise MalformedReply(command, "a node name stands there twice")
    edges = [
        Edge(parent=info.node_name, child=child.node_name, role=child.child)
        for info in infos
        for child in info.children or ()
    ]
    told = bool(infos) and all(info.children is not None for info in infos)
    return tuple(_node(info) for info in infos), tuple(edges) if told else None


def _node(info: _NodeInfo) -> Node:
    image = info.image
    specific = image.format_specific.data if image.format_specific else {}
    data_file = specific.get("data-file")
    recorded = None
    if image.backing_filename is not None:
        recorded = Recorded(
            filename=image.backing_filename,
            full_filename=image.full_backing_filename,
            format=image.backing_filename_format,
        )
    return Node(
        name=info.node_name,
        driver=info.drv,
        filename=info.file,
        virtual_size=image.virtual_size,
        actual_size=image.actual_size,
        read_only=info.ro,
        encrypted=info.encrypted or image.encrypted,
        detect_zeroes=info.detect_zeroes != "off",
        cache=Cache(
            direct=info.cache.direct,
            no_flush=info.cache.no_flush,
            writeback=info.cache.writeback,
        ),
        recorded=recorded,
        data_file=data_file if isinstance(data_file, str) else None,
        # A mirror keeps one of its own, without a name.
        bitmaps=tuple(bitmap.name for bitmap in info.dirty_bitmaps if bitmap.name),
    )


def devices_from(reply: object) -> tuple[Device, ...]:
    """
    Parse `query-block`.

    Raises:
        MalformedReply: It is not a list of BlockInfo.
    """
    return tuple(
        Device(
            device=info.device,
            qdev=info.qdev,
            root=(info.inserted.node_name or None) if info.inserted else None,
            removable=info.removable,
            tray_open=info.tray_open,
        )
        for info in _parse("query-block", reply, list[_BlockInfo])
    )


def jobs_from(reply: object) -> tuple[Job, ...]:
    """
    Parse `query-jobs`.

    Raises:
        MalformedReply: It is not a list of JobInfo.
    """
    return tuple(
        Job(
            id=info.id,
            type=info.type,
            status=info.status,
            current=info.current_progress,
            total=info.total_progress,
            error=info.error,
        )
        for info in _parse("query-jobs", reply, list[_JobInfo])
    )


def lingering_streams(reply: object) -> tuple[str, ...]:
    """
    Parse `query-block-jobs`: ids of streams that stay, or may stay, behind when they have ended.

    Until such a job is dismissed, its filter node is listed without a child, and
    `query-named-block-nodes` makes QEMU 7.2 crash in `bdrv_refresh_filename()` (12 times of 12).

    Raises:
        MalformedReply: It is not a list of BlockJobInfo.
    """
    return tuple(
        info.device
        for info in _parse("query-block-jobs", reply, list[_BlockJobInfo])
        if info.type == "stream"
        and not info.auto_dismiss
        and (info.status == "concluded" or info.auto_finalize)
    )


def edges_from_debug_graph(reply: object) -> tuple[Edge, ...]:
    """
    Parse `x-debug-query-block-graph`: flat, and the only one that also tells jobs' edges.

    Edges of block jobs and of devices are left out; they are not part of a chain.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _parse("x-debug-query-block-graph", reply, _DebugGraph)
    drivers = {node.id: node.name for node in debug.nodes if node.type == "block-driver"}
    return tuple(
        Edge(parent=drivers[edge.parent], child=drivers[edge.child], role=edge.name)
        for edge in debug.edges
        if edge.parent in drivers and edge.child in drivers
    )


def job_edges_from_debug_graph(reply: object) -> tuple[Edge, ...]:
    """
    Edges from jobs, by their ids, to the nodes they work on (`source`, `base`, `main node`, …).

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _parse("x-debug-query-block-graph", reply, _DebugGraph)
    jobs = {node.id: node.name for node in debug.nodes if node.type == "block-job"}
    drivers = {node.id: node.name for node in debug.nodes if node.type == "block-driver"}
    return tuple(
        Edge(parent=jobs[edge.parent], child=drivers[edge.child], role=edge.name)
        for edge in debug.edges
        if edge.parent in jobs and edge.child in drivers
    )


def devices_from_debug_graph(reply: object) -> tuple[Device, ...]:
    """
    Roots by `x-debug-query-block-graph`: for hosts where a nested `query-block` is dangerous.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _parse("x-debug-query-block-graph", reply, _DebugGraph)
    names = {node.id: node for node in debug.nodes}
    root_of = {
        edge.parent: names[edge.child].name
        for edge in debug.edges
        if edge.name == "root" and edge.child in names
    }
    return tuple(
        Device(device="", qdev=node.name or None, root=root_of.get(node.id))
        for node in debug.nodes
        if node.type == "block-backend"
    )


def edges_from_blockstats(reply: object) -> tuple[Edge, ...]:
    """
    Parse `query-blockstats` (without `query-nodes`): the stable way to edges before QEMU 10.1.

    Its `backing` is the child that is read through for copy-on-write, or the filtered one; its
    `parent` is the child with the data (QEMU block/qapi.c, bdrv_query_bds_stats()). For a filter
    the two are the same node.

    Raises:
        MalformedReply: It is not a list of BlockStats.
    """
    edges: dict[tuple[str, str], Edge] = {}

    def walk(stats: _BlockStats) -> None:
        # For a filter both lead to the same node, and chain() takes either role.
        for role, below in (("backing", stats.backing), ("file", stats.parent)):
            if below is None:
                continue
            if stats.node_name and below.node_name:
                key = (stats.node_name, below.node_name)
                edges.setdefault(key, Edge(parent=key[0], child=key[1], role=role))
            walk(below)

    try:
        for stats in _parse("query-blockstats", reply, list[_BlockStats]):
            walk(stats)
    except RecursionError as error:
        raise MalformedReply("query-blockstats", "nested too deep") from error
    return tuple(edges.values())
