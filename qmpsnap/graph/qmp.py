"""
QMP replies to a `Graph`.

Replies are parsed once, here, into typed values by msgspec; fields that QEMU adds are ignored,
fields that are missing or of another type are an error that names the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Final, TypeVar

import msgspec

from qmpsnap.errors import Failed
from qmpsnap.graph.nodes import Cache, Device, Edge, Job, Node, Recorded

T = TypeVar("T")

_DEBUG: Final = "x-debug-query-block-graph"


class MalformedReply(Failed):
    """QEMU (or what claims to be one) sent something that is not what QAPI says."""

    msg = "the reply to {self.command} is not as QAPI defines it: {self.reason}"
    remedy = "Nothing was changed. Check that this socket belongs to a QEMU."
    changed = "no"

    command: str
    reason: str


# The wire forms. QAPI spells most keys with dashes; what it does not is named in full.

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Bytes: QAPI's `int` has 64 bits, and no image has less than nothing."""


class _Cache(msgspec.Struct, frozen=True, rename="kebab"):
    direct: bool = False
    no_flush: bool = False
    writeback: bool = True


class _Bitmap(msgspec.Struct, frozen=True, rename="kebab"):
    name: str = ""


class _Snapshot(msgspec.Struct, frozen=True, rename="kebab"):
    name: str = ""


class _Specific(msgspec.Struct, frozen=True, rename="kebab"):
    data: dict[str, object] = {}


class ImageInfo(msgspec.Struct, frozen=True, rename="kebab"):
    """ImageInfo, qapi/block-core.json; `backing-image` only in a nested reply."""

    filename: str = ""
    format: str = ""
    virtual_size: _Size | None = None
    actual_size: _Size | None = None
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    backing_filename_format: str | None = None
    encrypted: bool = False
    format_specific: _Specific | None = None
    snapshots: list[_Snapshot] = []
    backing_image: ImageInfo | None = None


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
    image: ImageInfo = ImageInfo()
    dirty_bitmaps: list[_Bitmap] = []
    children: list[_Child] | None = None
    active: bool = True


class _Inserted(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str = ""
    image: ImageInfo = ImageInfo()


class _BlockInfo(msgspec.Struct, frozen=True, rename="kebab"):
    device: str = ""
    qdev: str | None = None
    removable: bool = False
    inserted: _Inserted | None = None
    tray_open: bool = msgspec.field(name="tray_open", default=False)


class _DriverStats(msgspec.Struct, frozen=True, rename="kebab"):
    driver: str = ""


class _BlockStats(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str | None = None
    driver_specific: _DriverStats | None = None
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
    perm: list[str] | None = None


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
    speed: int = 0
    io_status: str = "ok"


class _QomProperty(msgspec.Struct, frozen=True):
    name: str
    value: object = None


class _QomProperties(msgspec.Struct, frozen=True):
    properties: list[_QomProperty]


def _parse(command: str, reply: object, shape: type[T]) -> T:
    try:
        return msgspec.convert(reply, shape)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:
        # The last one: a key with half a character in it (`"\ud800"`).
        raise MalformedReply(command, str(error)) from error


def _unambiguous(command: str, edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """
    Refuse two children in one role: which of them is read through would be a guess.

    QEMU gives each child of a node a role of its own (a quorum: `children.0`, `children.1`, …).
    """
    told: dict[tuple[str, str], str] = {}
    edges = tuple(edges)
    for edge in edges:
        if told.setdefault((edge.parent, edge.role), edge.child) != edge.child:
            reason = f"node {edge.parent!r} has two children in the role {edge.role!r}"
            raise MalformedReply(command, reason)
    return edges


def nodes_from(reply: object) -> tuple[tuple[Node, ...], tuple[Edge, ...] | None]:
    """
    Parse `query-named-block-nodes`.

    Returns:
        The nodes, and the edges where this QEMU tells them (`children`, since 10.1); None where
        it does not.

    Raises:
        MalformedReply: It is not a list of BlockDeviceInfo, a node name repeats, or a node has
            two children in one role.
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
    nodes = tuple(_node(info) for info in infos)
    return nodes, _unambiguous(command, edges) if told else None


def _node(info: _NodeInfo) -> Node:
    return replace(
        node_from_image(info.node_name, info.image),
        driver=info.drv,
        filename=info.file,
        read_only=info.ro,
        encrypted=info.encrypted or info.image.encrypted,
        detect_zeroes=info.detect_zeroes != "off",
        cache=Cache(
            direct=info.cache.direct,
            no_flush=info.cache.no_flush,
            writeback=info.cache.writeback,
        ),
        # A mirror keeps one of its own, without a name.
        bitmaps=tuple(bitmap.name for bitmap in info.dirty_bitmaps if bitmap.name),
        active=info.active,
    )


def node_from_image(name: str, image: ImageInfo) -> Node:
    """What an image's description says of the node that it belongs to."""
    specific = image.format_specific.data if image.format_specific else {}
    data_file, extents = specific.get("data-file"), specific.get("extents")
    recorded = None
    if image.backing_filename is not None:
        recorded = Recorded(
            filename=image.backing_filename,
            full_filename=image.full_backing_filename,
            format=image.backing_filename_format or None,
        )
    return Node(
        name=name,
        driver=image.format,
        filename=image.filename,
        virtual_size=image.virtual_size,
        actual_size=image.actual_size,
        encrypted=image.encrypted,
        recorded=recorded,
        data_file=data_file if isinstance(data_file, str) else None,
        extents=tuple(_names_of(extents)),
        snapshots=tuple(snapshot.name for snapshot in image.snapshots),
    )


def _names_of(extents: object) -> Iterator[str]:
    """File names of `ImageInfoSpecificVmdk.extents`."""
    for extent in extents if isinstance(extents, list) else ():
        name = extent.get("filename") if isinstance(extent, dict) else None
        if isinstance(name, str):
            yield name


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


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertedImages:
    """A disk as a nested `query-block` describes it: its root node, and the images below."""

    root: str
    image: ImageInfo


def images_from_query_block(reply: object) -> tuple[InsertedImages, ...]:
    """
    Parse `query-block`, nested: the images of each disk that has a working driver.

    Raises:
        MalformedReply: It is not a list of BlockInfo.
    """
    return tuple(
        InsertedImages(root=info.inserted.node_name, image=info.inserted.image)
        for info in _parse("query-block", reply, list[_BlockInfo])
        if info.inserted is not None
    )


def serials_from(reply: object, count: int) -> tuple[str, ...]:
    """
    Parse `qom-list-get` of block devices: the serial number of each, empty where it has none.

    Raises:
        MalformedReply: It is not a list of as many ObjectPropertiesValues as were asked for.
    """
    devices = _parse("qom-list-get", reply, list[_QomProperties])
    if len(devices) != count:
        raise MalformedReply("qom-list-get", f"{len(devices)} devices, asked for {count}")
    values = ({one.name: one.value for one in device.properties} for device in devices)
    serials = (properties.get("serial") for properties in values)
    return tuple(serial if isinstance(serial, str) else "" for serial in serials)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockJob:
    """
    What only `query-block-jobs` tells of a job.

    Source: BlockJobInfo, qapi/block-core.json.
    """

    speed: int
    """Bytes a second that it may copy; 0 for no limit."""
    io_status: str
    """BlockDeviceIoStatus: `ok`, or why the job has paused itself."""


def block_jobs_from(reply: object) -> dict[str, BlockJob]:
    """
    Parse `query-block-jobs`: details by the id of the job.

    Raises:
        MalformedReply: It is not a list of BlockJobInfo.
    """
    return {
        info.device: BlockJob(speed=info.speed, io_status=info.io_status)
        for info in _parse("query-block-jobs", reply, list[_BlockJobInfo])
    }


def job_nodes_from_debug_graph(reply: object) -> dict[str, frozenset[str]]:
    """
    Names of the nodes that each block job uses, by `x-debug-query-block-graph`.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _debug_graph(reply)
    drivers = {node.id: node.name for node in debug.nodes if node.type == "block-driver"}
    return {
        job.name: frozenset(
            drivers[edge.child]
            for edge in debug.edges
            if edge.parent == job.id and edge.child in drivers
        )
        for job in debug.nodes
        if job.type == "block-job"
    }


def edges_from_debug_graph(reply: object) -> tuple[Edge, ...]:
    """
    Parse `x-debug-query-block-graph`: flat, and the only one that also tells jobs' edges.

    Edges of block jobs and of devices are left out; they are not part of a chain.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph, an id or a node name repeats, or a node has
            two children in one role.
    """
    debug = _debug_graph(reply)
    drivers = {node.id: node.name for node in debug.nodes if node.type == "block-driver"}
    return _unambiguous(
        _DEBUG,
        (
            Edge(parent=drivers[edge.parent], child=drivers[edge.child], role=edge.name)
            for edge in debug.edges
            if edge.parent in drivers and edge.child in drivers
        ),
    )


def names_from_debug_graph(reply: object) -> tuple[str, ...]:
    """
    Names of all nodes by `x-debug-query-block-graph`.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    return tuple(node.name for node in _debug_graph(reply).nodes if node.type == "block-driver")


def roots_from_debug_graph(reply: object) -> tuple[tuple[str, str | None], ...]:
    """
    Pairs of device (qdev path or drive id) and root node by `x-debug-query-block-graph`.

    The backends that jobs make for themselves are there too, all without a name.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _debug_graph(reply)
    names = {node.id: node.name for node in debug.nodes}
    root_of = {
        edge.parent: names[edge.child]
        for edge in debug.edges
        if edge.name == "root" and edge.child in names
    }
    return tuple(
        (node.name, root_of.get(node.id)) for node in debug.nodes if node.type == "block-backend"
    )


def inactive_roots_from_debug_graph(reply: object) -> frozenset[str]:
    """
    Root nodes of devices whose images belong to another QEMU, by `x-debug-query-block-graph`.

    QEMU before 10.0 has no word for it, but takes every permission from such a device
    (blk_root_inactivate(), block/block-backend.c). No other device is without any: an empty list
    stands in none of the recordings but for the backends of jobs, which have no name.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph.
    """
    debug = _debug_graph(reply)
    names = {node.id: node.name for node in debug.nodes if node.type == "block-driver"}
    devices = {node.id for node in debug.nodes if node.type == "block-backend" and node.name}
    return frozenset(
        names[edge.child]
        for edge in debug.edges
        if edge.parent in devices and edge.child in names and edge.perm == []
    )


def with_entries(devices: Iterable[Device], debug: object) -> tuple[Device, ...]:
    """
    Tell each device's entry by `x-debug-query-block-graph`.

    Raises:
        MalformedReply: It is not an XDbgBlockGraph, or an id or a node name repeats.
    """
    roots = dict(roots_from_debug_graph(debug))
    # A backend is named as its drive is, else as its device.
    return tuple(
        replace(device, entry=roots.get(device.device or device.qdev or ""))
        if device.root is not None
        else device
        for device in devices
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
        MalformedReply: It is not an XDbgBlockGraph, or an id or a node name repeats.
    """
    return tuple(
        Device(device="", qdev=name or None, root=root)
        for name, root in roots_from_debug_graph(reply)
    )


def _debug_graph(reply: object) -> _DebugGraph:
    debug = _parse(_DEBUG, reply, _DebugGraph)
    names = [node.name for node in debug.nodes if node.type == "block-driver"]
    if len({node.id for node in debug.nodes}) != len(debug.nodes):
        raise MalformedReply(_DEBUG, "an id stands there twice")
    if len(set(names)) != len(names):
        raise MalformedReply(_DEBUG, "a node name stands there twice")
    return debug


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


def _walk_stats(reply: object) -> Iterator[_BlockStats]:
    """Every entry of a reply, parents before children, without recursion."""
    left = list(_parse("query-blockstats", reply, list[_BlockStats]))
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
    told = _unambiguous("query-blockstats", edges)
    # For a filter both lead to the same node, and chain() takes either role.
    return tuple(
        edge
        for edge in told
        if edge.role == "backing" or replace(edge, role="backing") not in edges
    )
