"""
The shapes of QMP's replies, as msgspec parses them.

Fields that QEMU adds are ignored; fields that are missing or of another type are an error that
names the place. QAPI spells most keys with dashes; what it does not is named in full.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec

from qmpsnap.errors import Failed
from qmpsnap.graph.nodes import Edge

T = TypeVar("T")


class MalformedReply(Failed):
    """QEMU (or what claims to be one) sent something that is not what QAPI says."""

    msg = "the reply to {self.command} is not as QAPI defines it: {self.reason}"
    remedy = "Nothing was changed. Check that this socket belongs to a QEMU."
    changed = "no"

    command: str
    reason: str


_Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Bytes: QAPI's `int` has 64 bits, and no image has less than nothing."""


class CacheInfo(msgspec.Struct, frozen=True, rename="kebab"):
    direct: bool = False
    no_flush: bool = False
    writeback: bool = True


class BitmapInfo(msgspec.Struct, frozen=True, rename="kebab"):
    name: str = ""


class SnapshotInfo(msgspec.Struct, frozen=True, rename="kebab"):
    name: str = ""


class ImageInfoSpecific(msgspec.Struct, frozen=True, rename="kebab"):
    data: dict[str, object] = {}


class ImageInfo(msgspec.Struct, frozen=True, rename="kebab"):
    """ImageInfo, qapi/block-core.json; `backing-image` only in a nested reply."""

    filename: str = ""
    format: str = ""
    virtual_size: _Size | None = None
    actual_size: _Size | None = None
    backing_filename: str | None = None
    backing_filename_format: str | None = None
    encrypted: bool = False
    format_specific: ImageInfoSpecific | None = None
    snapshots: list[SnapshotInfo] = []
    backing_image: ImageInfo | None = None


class ChildInfo(msgspec.Struct, frozen=True, rename="kebab"):
    child: str
    node_name: str


class BlockDeviceInfo(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str
    drv: str
    file: str = ""
    ro: bool = False
    encrypted: bool = False
    detect_zeroes: str = msgspec.field(name="detect_zeroes", default="off")
    cache: CacheInfo = CacheInfo()
    image: ImageInfo = ImageInfo()
    dirty_bitmaps: list[BitmapInfo] = []
    children: list[ChildInfo] | None = None
    active: bool = True


class InsertedInfo(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str = ""
    image: ImageInfo = ImageInfo()


class BlockInfo(msgspec.Struct, frozen=True, rename="kebab"):
    device: str = ""
    qdev: str | None = None
    removable: bool = False
    inserted: InsertedInfo | None = None
    tray_open: bool = msgspec.field(name="tray_open", default=False)


class BlockStatsSpecific(msgspec.Struct, frozen=True, rename="kebab"):
    driver: str = ""


class BlockStats(msgspec.Struct, frozen=True, rename="kebab"):
    node_name: str | None = None
    driver_specific: BlockStatsSpecific | None = None
    parent: BlockStats | None = None
    backing: BlockStats | None = None


class XDbgBlockGraphNode(msgspec.Struct, frozen=True, rename="kebab"):
    id: int
    type: str
    name: str


class XDbgBlockGraphEdge(msgspec.Struct, frozen=True, rename="kebab"):
    parent: int
    child: int
    name: str
    perm: list[str] | None = None


class XDbgBlockGraph(msgspec.Struct, frozen=True, rename="kebab"):
    nodes: list[XDbgBlockGraphNode]
    edges: list[XDbgBlockGraphEdge]


class VersionTriple(msgspec.Struct, frozen=True):
    major: int


class VersionInfo(msgspec.Struct, frozen=True):
    qemu: VersionTriple


class JobInfo(msgspec.Struct, frozen=True, rename="kebab"):
    id: str
    type: str
    status: str
    current_progress: int = 0
    total_progress: int = 0
    error: str | None = None


class BlockJobInfo(msgspec.Struct, frozen=True, rename="kebab"):
    type: str
    device: str
    status: str = ""
    auto_finalize: bool = True
    auto_dismiss: bool = True
    speed: int = 0
    io_status: str = "ok"


class ObjectPropertyValue(msgspec.Struct, frozen=True):
    name: str
    value: object = None


class ObjectPropertiesValues(msgspec.Struct, frozen=True):
    properties: list[ObjectPropertyValue]


def parse(command: str, reply: object, shape: type[T]) -> T:
    try:
        return msgspec.convert(reply, shape)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:
        # The last one: a key with half a character in it (`"\ud800"`).
        raise MalformedReply(command, str(error)) from error


def unambiguous(command: str, edges: Iterable[Edge]) -> tuple[Edge, ...]:
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
