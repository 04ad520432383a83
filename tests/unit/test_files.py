"""Every file that is reachable from a disk, in the chain or not."""

from __future__ import annotations

import pytest

from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.qcow2 import Header
from qmpsnap.graph.chain import chain
from qmpsnap.graph.files import files_of
from qmpsnap.graph.nodes import Device, Edge, Graph, Node
from qmpsnap.graph.xml import parse
from tests.unit import recordings

Found = list[tuple[str, str, int]]


def files(graph: Graph, root: str) -> Found:
    found = files_of(graph, chain(graph, root))
    return [(file.name, file.role, file.layer) for file in found]


def recorded(name: str, source: recordings.Source = "debug") -> Found:
    made = recordings.graph(name, source)
    root = made.devices[0].root
    assert root is not None
    return files(made, root)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qcow2-chain", [("top", "file", 0), ("mid", "file", 1), ("base", "file", 2)]),
        ("two-filters", [("top", "file", 0), ("mid", "file", 1), ("base", "file", 2)]),
        ("commit-running", [("top", "file", 0), ("mid", "file", 1), ("base", "file", 2)]),
        ("data-file", [("disk", "file", 0), ("disk.data", "data-file", 0)]),
        ("blkdebug", [("disk", "file", 0)]),
    ],
)
def test_recorded(name: str, expected: Found) -> None:
    found = [(file.rpartition("/")[2], role, layer) for file, role, layer in recorded(name)]
    assert sorted(found) == sorted(expected)


def test_children_of_a_quorum_are_no_layers_and_are_listed() -> None:
    assert {role for _, role, _ in recorded("quorum")} == {"children.0", "children.1"}


def test_extents_are_listed_where_no_edge_leads_to_them() -> None:
    vmdk = Node(name="v", driver="vmdk", filename="/s/a.vmdk", extents=("/s/a.vmdk", "/etc/shadow"))
    node = Node(name="f", driver="file", filename="/s/a.vmdk")
    graph = Graph(
        devices=(), nodes={"v": vmdk, "f": node}, edges=(Edge(parent="v", child="f", role="file"),)
    )
    assert files(graph, "v") == [("/s/a.vmdk", "file", 0), ("/etc/shadow", "extents.1", 0)]


@pytest.mark.parametrize(
    ("data_file", "more"),
    [("/etc/shadow", [("/etc/shadow", "data-file", 0)]), ("/s/a", []), (None, [])],
)
def test_data_file_is_listed_where_no_edge_leads_to_it(data_file: str | None, more: Found) -> None:
    """Unless it is the file itself."""
    nodes = {
        "q": Node(name="q", driver="qcow2", filename="/s/a", data_file=data_file),
        "f": Node(name="f", driver="file", filename="/s/a"),
    }
    edges = (Edge(parent="q", child="f", role="file"),)
    graph = Graph(devices=(), nodes=nodes, edges=edges)
    assert files(graph, "q") == [("/s/a", "file", 0), *more]


def test_child_that_is_missing_from_the_nodes() -> None:
    """It was closed between two replies; what stands beside it is listed all the same."""
    nodes = {
        "q": Node(name="q", driver="qcow2", filename="/s/a"),
        "f": Node(name="f", driver="file", filename="/s/a"),
        "x": Node(name="x", driver="file", filename="/s/x"),
    }
    edges = tuple(
        Edge(parent="q", child=child, role=role)
        for child, role in (("f", "file"), ("gone", "data-file"), ("x", "extents.0"))
    )
    graph = Graph(devices=(), nodes=nodes, edges=edges)
    assert files(graph, "q") == [("/s/a", "file", 0), ("/s/x", "extents.0", 0)]


@pytest.mark.parametrize(
    ("driver", "role", "expected"),
    [
        ("raw", "file", "data-file"),
        ("raw", "image", "data-file"),
        ("throttle", "backing", "data-file"),
        ("qcow2", "backing", "backing"),
        ("throttle", "children.0", "children.0"),
    ],
)
def test_role_of_what_lies_below_a_data_file(driver: str, role: str, expected: str) -> None:
    """A filter's child is the same data, whatever it is called."""
    nodes = {
        "q": Node(name="q", driver="qcow2", filename="/s/a"),
        "f": Node(name="f", driver="file", filename="/s/a"),
        "d": Node(name="d", driver=driver, filename=""),
        "p": Node(name="p", driver="file", filename="/s/d"),
    }
    edges = (
        Edge(parent="q", child="f", role="file"),
        Edge(parent="q", child="d", role="data-file"),
        Edge(parent="d", child="p", role=role),
    )
    graph = Graph(devices=(), nodes=nodes, edges=edges)
    assert files(graph, "q") == [("/s/a", "file", 0), ("/s/d", expected, 0)]


def test_circle_ends() -> None:
    nodes = {name: Node(name=name, driver="quorum", filename="") for name in "ab"}
    edges = (Edge(parent="a", child="b", role="children.0"), Edge(parent="b", child="a", role="x"))
    assert files(Graph(devices=(), nodes=nodes, edges=edges), "a") == []


def test_victim_of_a_data_file_in_the_base_is_beyond_the_chain() -> None:
    """libvirt 9.0 starts this guest, and its XML does not mention the victim."""
    nodes = [
        Node(name="top", driver="qcow2", filename="/s/top"),
        Node(name="top-file", driver="file", filename="/s/top"),
        Node(name="base", driver="qcow2", filename="/s/base", data_file="/etc/shadow"),
        Node(name="base-file", driver="file", filename="/s/base"),
        Node(name="#block1", driver="file", filename="/etc/shadow"),
    ]
    edges = [
        ("top", "top-file", "file"),
        ("top", "base", "backing"),
        ("base", "base-file", "file"),
        ("base", "#block1", "data-file"),
    ]
    graph = Graph(
        devices=(Device(device="", qdev="vda", root="top"),),
        nodes={node.name: node for node in nodes},
        edges=tuple(Edge(parent=parent, child=child, role=role) for parent, child, role in edges),
    )
    (disk,) = guest_from_graph(graph).disks
    assert [(file.path, file.role, file.layer) for file in disk.beyond_chain] == [
        ("/etc/shadow", "data-file", 1)
    ]


XML = """
<domain><name>a</name><devices><disk type='file' device='disk'>
  <driver name='qemu' type='qcow2'/>
  <source file='/s/a' index='1'>{inside}</source>{beside}
  <backingStore/><target dev='vda'/>
</disk></devices></domain>
"""
STORE = "<dataStore type='file'><format type='raw'/><source file='/etc/shadow'/></dataStore>"


@pytest.mark.parametrize(("inside", "beside"), [(STORE, ""), ("", STORE)])
def test_data_store_of_the_xml(inside: str, beside: str) -> None:
    (disk,) = guest_from_xml(parse(XML.format(inside=inside, beside=beside))).disks
    assert [(file.path, file.role) for file in disk.beyond_chain] == [("/etc/shadow", "data-file")]
    assert disk.layers[0].flags == ("data-file",)


def test_each_layer_of_the_xml_is_a_file_of_the_disk() -> None:
    (disk,) = guest_from_xml(parse(XML.format(inside="", beside=""))).disks
    (file,) = disk.files
    assert (file.path, file.name, file.role, file.layer) == ("/s/a", "/s/a", "file", 0)


def test_data_file_of_a_header() -> None:
    header = Header(version=3, virtual_size=1, data_file="../x")
    domain = parse(XML.format(inside="", beside=""))
    (disk,) = guest_from_xml(domain, headers={"/s/a": header}).disks
    assert [(file.name, file.role) for file in disk.beyond_chain] == [("../x", "data-file")]


def test_slice_of_the_xml() -> None:
    inside = "<slices><slice type='storage' offset='512' size='1024'/></slices>"
    (disk,) = guest_from_xml(parse(XML.format(inside=inside, beside=""))).disks
    assert disk.layers[0].flags == ("slice",)
