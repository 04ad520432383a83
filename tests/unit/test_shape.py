"""Somebody keeps a second copy of what is written to a disk, by a filter."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disks
from qmpsnap.graph.nodes import Device, Edge, Graph, Node
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, NamedDeleteRequest
from qmpsnap.operations.shape import check_shape
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.volume import DiskUnsuitable, usable
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest


def under(driver: str, *, other_disk: bool = False) -> Disks:
    """The disk below a filter, or beside one that is another disk's."""
    disk = samples.disk(2)
    root = str(disk.root)
    nodes = {str(one.node): one.node_details for one in disk.layers if one.node_details}
    graph = Graph(
        devices=(Device(device="", qdev="vda", root=root),),
        nodes={**nodes, "filter": Node(name="filter", driver=driver, filename="")},
        edges=(Edge(parent="filter", child=root, role="file"),),
    )
    made = disk if other_disk else replace(disk, root="filter")
    return Disks(guest="web1", disks=(made,), graph=graph)


@pytest.mark.parametrize(
    "driver", ["backup-top", "blklogwrites", "copy-before-write", "replication"]
)
def test_filter_that_copies(driver: str) -> None:
    guest = under(driver)
    with pytest.raises(DiskUnsuitable, match=rf"a filter \(filter, {driver}\)") as caught:
        check_shape(usable(guest.disks[0]), guest)
    assert caught.value.exit_code == 4
    fake = FakeGuest(guest)
    with pytest.raises(DiskUnsuitable):
        create(fake, CreateRequest(disk="vda", new_file=None, snapshot="s"))
    with pytest.raises(DiskUnsuitable):
        delete(fake, NamedDeleteRequest(disk="vda", snapshot="s1"))
    assert set(fake.calls) <= {"read", "overlay"}


@pytest.mark.parametrize("driver", ["throttle", "copy-on-read", "blkdebug"])
def test_other_filters(driver: str) -> None:
    guest = under(driver)
    check_shape(usable(guest.disks[0]), guest)


def test_filter_of_another_disk() -> None:
    guest = under("copy-before-write", other_disk=True)
    check_shape(usable(guest.disks[0]), guest)


def test_what_is_not_known() -> None:
    """Without a graph, and with one that does not describe a node that it names."""
    guest = under("copy-before-write")
    assert guest.graph is not None
    check_shape(usable(guest.disks[0]), replace(guest, graph=None))
    check_shape(usable(replace(guest.disks[0], root=None)), guest)
    check_shape(usable(guest.disks[0]), replace(guest, graph=replace(guest.graph, nodes={})))
