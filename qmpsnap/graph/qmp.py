"""QMP replies to the values of a `Graph`."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from qmpsnap.graph.nodes import Cache, Device, Edge, Job, Node, Recorded
from qmpsnap.graph.wire import (
    BlockDeviceInfo,
    BlockInfo,
    BlockJobInfo,
    ImageInfo,
    JobInfo,
    MalformedReply,
    ObjectPropertiesValues,
    VersionInfo,
    parse,
    unambiguous,
)


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
    infos = parse(command, reply, list[BlockDeviceInfo])
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
    return nodes, unambiguous(command, edges) if told else None


def _node(info: BlockDeviceInfo) -> Node:
    return Node(
        name=info.node_name,
        driver=info.drv,
        filename=info.file,
        virtual_size=info.image.virtual_size,
        actual_size=info.image.actual_size,
        read_only=info.ro,
        encrypted=info.encrypted or info.image.encrypted,
        detect_zeroes=info.detect_zeroes != "off",
        unmaps_zeroes=info.detect_zeroes == "unmap",
        cache=Cache(
            direct=info.cache.direct,
            no_flush=info.cache.no_flush,
            writeback=info.cache.writeback,
        ),
        recorded=_recorded(info.image),
        data_file=_data_file(info.image),
        extents=_extents(info.image),
        # A mirror keeps one of its own, without a name.
        bitmaps=tuple([bitmap.name for bitmap in info.dirty_bitmaps if bitmap.name]),
        snapshots=tuple([snapshot.name for snapshot in info.image.snapshots]),
        has_subclusters=_has_subclusters(info.image),
        active=info.active,
    )


def node_from_image(name: str, image: ImageInfo) -> Node:
    """What an image's description says of the node that it belongs to."""
    return Node(
        name=name,
        driver=image.format,
        filename=image.filename,
        virtual_size=image.virtual_size,
        actual_size=image.actual_size,
        encrypted=image.encrypted,
        recorded=_recorded(image),
        data_file=_data_file(image),
        extents=_extents(image),
        snapshots=tuple([snapshot.name for snapshot in image.snapshots]),
        has_subclusters=_has_subclusters(image),
    )


def _recorded(image: ImageInfo) -> Recorded | None:
    if image.backing_filename is None:
        return None
    return Recorded(
        filename=image.backing_filename,
        format=image.backing_filename_format or None,
    )


def _data_file(image: ImageInfo) -> str | None:
    name = image.format_specific.data.get("data-file") if image.format_specific else None
    return name if isinstance(name, str) else None


def _has_subclusters(image: ImageInfo) -> bool:
    """Source: ImageInfoSpecificQCow2, qapi/block-core.json; other formats have no such key."""
    return image.format_specific is not None and bool(image.format_specific.data.get("extended-l2"))


def _extents(image: ImageInfo) -> tuple[str, ...]:
    """File names of `ImageInfoSpecificVmdk.extents`."""
    extents = image.format_specific.data.get("extents") if image.format_specific else None
    return tuple(_names_of(extents)) if extents else ()


def _names_of(extents: object) -> Iterator[str]:
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
        for info in parse("query-block", reply, list[BlockInfo])
    )


class InsertedImages(msgspec.Struct, frozen=True, kw_only=True):
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
        for info in parse("query-block", reply, list[BlockInfo])
        if info.inserted is not None
    )


def serials_from(reply: object, count: int) -> tuple[str, ...]:
    """
    Parse `qom-list-get` of block devices: the serial number of each, empty where it has none.

    Raises:
        MalformedReply: It is not a list of as many ObjectPropertiesValues as were asked for.
    """
    devices = parse("qom-list-get", reply, list[ObjectPropertiesValues])
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
        for info in parse("query-jobs", reply, list[JobInfo])
    )


def leaves_no_bare_filter(reply: object) -> bool:
    """
    Whether a QEMU is known not to leave the filter of an ended stream without a child.

    A fault cannot be asked for, and shows only when it is too late, so this is one case where the
    version counts. QEMU 5.2 gives a stream no filter; 10.0 and 11.1 leave it its child. Of 6 to 9
    only 7.2 was seen, which crashes.

    Args:
        reply: To `query-version`; anything else is no such QEMU.
    """
    if not isinstance(reply, dict):
        return False
    try:
        major = parse("query-version", reply, VersionInfo).qemu.major
    except MalformedReply:
        return False
    return major < 6 or major >= 10


def lingering_streams(reply: object, ended: Collection[str] = ()) -> tuple[str, ...]:
    """
    Parse `query-block-jobs`: ids of streams that may end at any moment, and stay behind then.

    One that has ended since it was last looked at may have stayed behind already. Until such a job is dismissed, its filter node is listed without a child, and
    `query-named-block-nodes` makes QEMU 7.2 crash in `bdrv_refresh_filename()` (12 times of 12).

    Args:
        reply: What was answered.
        ended: Ids of those that were known to have ended before, whose filters were looked at.

    Raises:
        MalformedReply: It is not a list of BlockJobInfo.
    """
    return tuple(
        info.device
        for info in parse("query-block-jobs", reply, list[BlockJobInfo])
        if info.type == "stream"
        and info.device not in ended
        and (info.auto_finalize or info.status == "concluded")
        and not info.auto_dismiss
    )


class BlockJob(msgspec.Struct, frozen=True, kw_only=True):
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
        for info in parse("query-block-jobs", reply, list[BlockJobInfo])
    }
