"""The block graph of one guest at one moment: frozen values, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import force_setattr

from qmpsnap.graph.drivers import DriverKind, kind_of


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """How a node was opened: BlockdevCacheInfo, qapi/block-core.json."""

    direct: bool = False
    no_flush: bool = False
    writeback: bool = True


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What the header of a layer says of its backing file, as QEMU read it when it opened it."""

    filename: str
    """As it stands in the header: may be relative, or a `json:` name."""
    format: str | None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """
    One block node.

    Source: BlockDeviceInfo, qapi/block-core.json; query-named-block-nodes.
    """

    name: str
    """The key. `#blockNNN` where nobody gave one; a new number each run."""
    driver: str
    filename: str
    """What QEMU calls the file: for showing, never a key. `json:{…}` with non-default options."""
    virtual_size: int | None = None
    """Bytes that a reader of this node sees."""
    actual_size: int | None = None
    """Bytes allocated on the host; None where the protocol cannot say."""
    read_only: bool = False
    encrypted: bool = False
    detect_zeroes: bool = False
    unmaps_zeroes: bool = False
    """`detect-zeroes=unmap`, which QEMU takes together with `discard=unmap` only."""
    cache: Cache = Cache()
    recorded: Recorded | None = None
    """The backing entry of this node's header; None when there is none."""
    data_file: str | None = None
    """Name of a qcow2's external data file."""
    extents: tuple[str, ...] = ()
    """Names of the files that a vmdk's data lies in."""
    bitmaps: tuple[str, ...] = ()
    """Names of dirty bitmaps, persistent or not."""
    snapshots: tuple[str, ...] = ()
    """Names of internal snapshots."""
    has_subclusters: bool = False
    """Whether parts of a cluster of this qcow2 may be allocated (`extended-l2`)."""
    active: bool = True
    """False while the image belongs to another QEMU: the guest was migrated away, or has not
    arrived yet."""

    @property
    def kind(self) -> DriverKind:
        """What this node is in a chain."""
        return kind_of(self.driver)


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`child` is read by `parent` in the given role (`backing`, `file`, `data-file`, …)."""

    parent: str
    child: str
    role: str


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """
    One guest device with a drive, and the node at its root.

    Source: BlockInfo, qapi/block-core.json; query-block.
    """

    device: str
    """The old drive id; empty for `-blockdev` guests."""
    qdev: str | None
    """Device id or QOM path."""
    root: str | None
    """Name of the root node; None when there is no medium, or its driver died."""
    removable: bool = False
    tray_open: bool = False
    entry: str | None = None
    """The node that the device reads, where it is known: the root, or a filter that a job has put
    over it, which `query-block` leaves out."""

    @property
    def id(self) -> str | None:
        """
        The device id without the QOM path around it.

        `virtio-disk0` for `/machine/peripheral/virtio-disk0/virtio-backend`; None for a device
        that got no id (`/machine/peripheral-anon/device[0]/…`).
        """
        if self.qdev is None or not self.qdev.startswith("/"):
            return self.qdev
        parts = self.qdev.split("/")
        return parts[3] if parts[:3] == ["", "machine", "peripheral"] and len(parts) > 3 else None

    @property
    def name(self) -> str:
        """What to call the disk on the direct road: device id, drive id, or QOM path."""
        return self.id or self.device or self.qdev or ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """
    One job that QEMU knows.

    Source: JobInfo, qapi/job.json; query-jobs.
    """

    id: str
    type: str
    status: str
    current: int = 0
    total: int = 0
    error: str | None = None


def by_parent(edges: Iterable[Edge]) -> dict[str, tuple[Edge, ...]]:
    """Sort edges by their parents: a walk down a chain must not search all edges at each node."""
    below: dict[str, list[Edge]] = {}
    for edge in edges:
        below.setdefault(edge.parent, []).append(edge)
    return {name: tuple(some) for name, some in below.items()}


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """All devices, nodes and edges of one reading."""

    devices: tuple[Device, ...]
    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    jobs: tuple[Job, ...] = ()
    incomplete: str | None = None
    """Why QEMU did not list its nodes, in words: then some have no driver here."""
    job_edges: tuple[Edge, ...] = ()
    """From a job's id to the nodes that it works on; empty where QEMU was not asked."""
    exported: frozenset[str] = frozenset()
    """Nodes that an export reads; empty where QEMU was not asked."""
    _below: Mapping[str, tuple[Edge, ...]] = {}
    """The edges by their parents; made here, whatever is given."""

    def __post_init__(self) -> None:
        """Sort the edges, once."""
        # The one way to fill a field of a frozen value from its others.
        force_setattr(self, "_below", by_parent(self.edges))

    def child(self, parent: str, *roles: str) -> Node | None:
        """The first child of `parent` in one of `roles`, tried in their order."""
        for role in roles:
            for edge in self.children(parent):
                if edge.role == role:
                    return self.nodes.get(edge.child)
        return None

    def children(self, parent: str) -> tuple[Edge, ...]:
        """All edges below `parent`."""
        return self._below.get(parent, ())

    def walk(self, top: str, without: Collection[str] = ()) -> Iterator[tuple[str, Edge | None]]:
        """
        Yield all that is read through a node, the node itself first, upper ones before lower ones.

        Args:
            top: Where to begin.
            without: Names that are not entered.

        Yields:
            Each name once, missing nodes too, and the edge by which it was first reached.
        """
        seen = {top, *without}
        left: deque[tuple[str, Edge | None]] = deque([(top, None)])
        while left:
            name, by = left.popleft()
            yield name, by
            for edge in self.children(name):
                if edge.child not in seen:
                    seen.add(edge.child)
                    left.append((edge.child, edge))

    def below(self, top: str, without: Collection[str] = ()) -> tuple[str, ...]:
        """Names of all that is read through a node; see `walk`."""
        return tuple(name for name, _ in self.walk(top, without))

    def missing(self) -> frozenset[str]:
        """Names that an edge or a device mentions and no node carries: the reading is torn."""
        named = {edge.child for edge in self.edges} | {edge.parent for edge in self.edges}
        named |= {device.root for device in self.devices if device.root is not None}
        return frozenset(named - self.nodes.keys())
