"""QMP replies to values: recorded ones, and ones that are not as QAPI defines them."""

from __future__ import annotations

from typing import Any

import pytest

from qmpsnap.errors import Failed
from qmpsnap.graph.blockstats import drivers_from_blockstats, edges_from_blockstats
from qmpsnap.graph.debug_graph import DebugGraph, debug_graph_from
from qmpsnap.graph.drivers import DriverKind
from qmpsnap.graph.nodes import Cache, Device, Edge, Job, Node, Recorded
from qmpsnap.graph.qmp import (
    devices_from,
    jobs_from,
    lingering_streams,
    nodes_from,
)
from qmpsnap.graph.wire import MalformedReply
from tests.unit import recordings

VDA = "/machine/peripheral/vda/virtio-backend"


def test_node_of_which_the_least_is_told() -> None:
    """QEMU leaves out what QAPI calls optional, and older ones have fewer keys."""
    ((node,), *_) = nodes_from([{"node-name": "n", "drv": "raw"}])
    assert node == Node(
        name="n",
        driver="raw",
        filename="",
        cache=Cache(direct=False, no_flush=False, writeback=True),
    )
    flags = (node.encrypted, node.read_only, node.detect_zeroes, node.unmaps_zeroes)
    assert flags == (False, False, False, False)


@pytest.mark.parametrize(
    ("of_node", "of_image"), [(True, False), (False, True), (False, None), (None, False)]
)
def test_encryption_is_told_by_the_node_or_by_its_image(
    of_node: bool | None, of_image: bool | None
) -> None:
    told: dict[str, Any] = {"node-name": "n", "drv": "qcow2", "image": {"format": "qcow2"}}
    if of_node is not None:
        told["encrypted"] = of_node
    if of_image is not None:
        told["image"]["encrypted"] = of_image
    ((node,), *_) = nodes_from([told])
    assert node.encrypted is bool(of_node or of_image)


def test_extents_of_a_vmdk() -> None:
    data = {"type": "vmdk", "data": {"extents": [{"filename": "/share/a-s001.vmdk"}]}}
    image = {"format": "vmdk", "format-specific": data}
    ((node,), *_) = nodes_from([{"node-name": "n", "drv": "vmdk", "image": image}])
    assert node.extents == ("/share/a-s001.vmdk",)


@pytest.mark.parametrize(
    ("device", "qdev", "root", "entry"),
    [
        ("drive0", "/machine/peripheral/vda", "top", "filter-of-the-drive"),
        ("", "/machine/peripheral/vda", "top", "filter-of-the-device"),
        ("drive1", "/machine/peripheral/vda", "top", None),
        ("", None, "top", None),
        ("drive0", "/machine/peripheral/vda", None, None),
    ],
)
def test_entry_of_a_device(
    device: str, qdev: str | None, root: str | None, entry: str | None
) -> None:
    """Its backend is named as its drive is, where it has one; an empty drive has none."""
    graph = DebugGraph(
        names=(),
        edges=(),
        roots=(
            ("", "filter-of-a-job"),
            ("drive0", "filter-of-the-drive"),
            ("/machine/peripheral/vda", "filter-of-the-device"),
        ),
        inactive_roots=frozenset(),
        job_edges=(),
    )
    (found,) = graph.with_entries([Device(device=device, qdev=qdev, root=root)])
    assert found == Device(device=device, qdev=qdev, root=root, entry=entry)


class TestInactive:
    """Images that belong to another QEMU."""

    def test_said_by_the_node(self) -> None:
        (info, *_) = recordings.replies("qcow2-chain")["query-named-block-nodes"]
        assert nodes_from([info])[0][0].active
        assert nodes_from([{**info, "active": True}])[0][0].active
        assert not nodes_from([{**info, "active": False}])[0][0].active

    def test_device_without_a_permission(self) -> None:
        graph = recordings.replies("qcow2-chain")["x-debug-query-block-graph"]
        assert debug_graph_from(graph).inactive_roots == frozenset()
        assert debug_graph_from(without_permissions(graph)).inactive_roots == {"top"}

    def test_backend_of_a_job_has_none_either(self) -> None:
        graph = recordings.replies("commit-running")["x-debug-query-block-graph"]
        nobodys = [
            node["id"]
            for node in graph["nodes"]
            if node["type"] == "block-backend" and not node["name"]
        ]
        assert nobodys
        edges = [
            {**edge, "perm": []} if edge["parent"] in nobodys else edge for edge in graph["edges"]
        ]
        assert debug_graph_from({**graph, "edges": edges}).inactive_roots == frozenset()


def without_permissions(graph: dict[str, Any]) -> dict[str, Any]:
    """As QEMU 7.2 shows a guest that was migrated away."""
    backends = {node["id"] for node in graph["nodes"] if node["type"] == "block-backend"}
    edges = [
        {**edge, "perm": []} if edge["parent"] in backends else edge for edge in graph["edges"]
    ]
    return {**graph, "edges": edges}


class TestExported:
    """Of a backend without a name, which an export has and a job makes as well."""

    @pytest.mark.parametrize("node", ["mid", "base"])
    def test_read_by_a_backend_that_is_no_jobs(self, node: str) -> None:
        graph = recordings.replies("qcow2-chain")["x-debug-query-block-graph"]
        (child,) = (one["id"] for one in graph["nodes"] if one["name"] == node)
        nodes = [*graph["nodes"], {"name": "", "type": "block-backend", "id": 99}]
        edges = [*graph["edges"], {"name": "root", "parent": 99, "child": child}]
        assert debug_graph_from({"nodes": nodes, "edges": edges}).exported == {node}

    def test_edge_of_nobody_is_left_out(self) -> None:
        graph = recordings.replies("qcow2-chain")["x-debug-query-block-graph"]
        (child,) = (one["id"] for one in graph["nodes"] if one["name"] == "mid")
        edges = [*graph["edges"], {"name": "root", "parent": 99, "child": child, "perm": []}]
        assert debug_graph_from({**graph, "edges": edges}) == debug_graph_from(graph)

    @pytest.mark.parametrize("name", recordings.NAMES)
    def test_not_by_devices_and_jobs(self, name: str) -> None:
        graph = recordings.replies(name)["x-debug-query-block-graph"]
        assert debug_graph_from(graph).exported == frozenset()


class TestNodes:
    def test_qcow2_node_with_all_that_it_tells(self) -> None:
        recording = recordings.replies("qcow2-chain")
        nodes, _ = nodes_from(recording["query-named-block-nodes"])
        top = next(node for node in nodes if node.name == "top")
        assert top.driver == "qcow2"
        assert top.virtual_size == 1024 * 1024
        assert top.actual_size is not None
        assert not top.read_only
        assert top.recorded == Recorded(filename="mid", format="qcow2")
        mid = next(node for node in nodes if node.name == "mid")
        assert mid.read_only

    def test_cache_detect_zeroes_and_bitmaps(self) -> None:
        recording = recordings.replies("bitmap")
        nodes, _ = nodes_from(recording["query-named-block-nodes"])
        assert nodes[0].cache == Cache(no_flush=True)
        assert nodes[0].detect_zeroes
        assert nodes[0].bitmaps == ("backup0",)
        assert not nodes[1].detect_zeroes
        assert nodes[1].bitmaps == ()

    def test_bitmap_of_a_mirror_has_no_name_and_is_nobodys(self) -> None:
        (told,) = [
            node
            for node in recordings.replies("active-commit-ready")["query-named-block-nodes"]
            if "dirty-bitmaps" in node
        ]
        assert nodes_from([told])[0][0].bitmaps == ()

    def test_data_file(self) -> None:
        nodes, _ = nodes_from(recordings.replies("data-file")["query-named-block-nodes"])
        assert {node.name: node.data_file for node in nodes} == {
            "disk": "/share/disk.data",
            "disk-file": None,
            "data": None,
        }

    def test_luks_is_encrypted(self) -> None:
        nodes, _ = nodes_from(recordings.replies("luks")["query-named-block-nodes"])
        assert [node.name for node in nodes if node.encrypted] == ["base"]

    def test_least_that_a_node_has(self) -> None:
        nodes, edges = nodes_from([{"node-name": "a", "drv": "file"}])
        assert nodes[0].filename == ""
        assert nodes[0].virtual_size is None
        assert nodes[0].recorded is None
        assert edges is None

    def test_fields_of_a_later_qemu_are_ignored(self) -> None:
        told: Any = {"node-name": "a", "drv": "file", "active": True, "image": {"limits": {}}}
        nodes, _ = nodes_from([told])
        assert nodes[0].name == "a"

    def test_drivers_of_a_later_qemu_are_kept(self) -> None:
        nodes, _ = nodes_from([{"node-name": "a", "drv": "qcow9"}])
        assert nodes[0].driver == "qcow9"

    def test_edges_where_qemu_tells_children(self) -> None:
        recording = recordings.replies("qcow2-chain")
        _, edges = nodes_from(recordings.with_children(recording))
        assert edges is not None
        assert Edge(parent="top", child="mid", role="backing") in edges
        assert Edge(parent="top", child="top-file", role="file") in edges

    def test_children_of_some_nodes_only_are_no_edges(self) -> None:
        told: Any = [
            {"node-name": "a", "drv": "raw", "children": []},
            {"node-name": "b", "drv": "x"},
        ]
        assert nodes_from(told)[1] is None

    def test_no_nodes_tell_nothing_about_children(self) -> None:
        assert nodes_from([]) == ((), None)

    def test_repeated_name(self) -> None:
        told = [{"node-name": "a", "drv": "raw"}, {"node-name": "a", "drv": "file"}]
        with pytest.raises(MalformedReply, match="twice"):
            nodes_from(told)


class TestDevices:
    def test_disk_and_empty_cdrom(self) -> None:
        recording = recordings.replies("empty-cdrom")
        assert devices_from(recording["query-block"]) == (
            Device(device="", qdev=VDA, root="base"),
            Device(device="", qdev="cd0", root=None, removable=True),
        )

    def test_drive_has_a_name_of_its_own(self) -> None:
        (device,) = devices_from(recordings.replies("drive")["query-block"])
        assert (device.device, device.id) == ("old", "vda")

    def test_job_filter_is_not_the_root_unless_it_was_named(self) -> None:
        (device,) = devices_from(recordings.replies("active-commit-ready")["query-block"])
        assert device.root == "top"
        (device,) = devices_from(recordings.replies("active-commit-named-filter")["query-block"])
        assert device.root == "flt"

    def test_open_tray(self) -> None:
        (device,) = devices_from([{"device": "", "qdev": "cd0", "tray_open": True}])
        assert device.tray_open

    @pytest.mark.parametrize(
        ("device", "id_", "name"),
        [
            (Device(device="", qdev=VDA, root=None), "vda", "vda"),
            (Device(device="", qdev="cd0", root=None), "cd0", "cd0"),
            (Device(device="old", qdev=None, root=None), None, "old"),
            (
                Device(device="", qdev="/machine/peripheral-anon/device[0]", root=None),
                None,
                "/machine/peripheral-anon/device[0]",
            ),
            (Device(device="", qdev=None, root=None), None, ""),
        ],
    )
    def test_what_to_call_it(self, device: Device, id_: str | None, name: str) -> None:
        assert (device.id, device.name) == (id_, name)

    def test_roots_by_the_debug_graph(self) -> None:
        recording = recordings.replies("two-disks")
        found = debug_graph_from(recording["x-debug-query-block-graph"]).devices
        assert {(device.qdev, device.root) for device in found} == {(VDA, "top"), ("sda", "disk")}

    def test_empty_drive_by_the_debug_graph(self) -> None:
        recording = recordings.replies("empty-cdrom")
        found = debug_graph_from(recording["x-debug-query-block-graph"]).devices
        assert {(device.qdev, device.root) for device in found} == {(VDA, "base"), ("cd0", None)}

    def test_backends_of_a_job_are_nobodys_device(self) -> None:
        recording = recordings.replies("commit-running")
        found = debug_graph_from(recording["x-debug-query-block-graph"]).devices
        assert [device.name for device in found if device.name] == ["vda"]
        assert [device.qdev for device in found if not device.name] == [None, None]


class TestEdges:
    @pytest.mark.parametrize("name", recordings.NAMES)
    def test_children_lead_along_the_same_edges_as_the_debug_graph(self, name: str) -> None:
        assert set(recordings.graph(name, "children").edges) == set(
            recordings.graph(name, "debug").edges
        )

    # Not these: blockstats show no children of a quorum, and another child of a data-file's owner;
    # and no orphans.
    @pytest.mark.parametrize(
        "name", sorted({*recordings.NAMES} - {"quorum", "data-file", "stream-finished"})
    )
    def test_blockstats_lead_along_the_same_edges_past_the_filters_of_jobs(self, name: str) -> None:
        debug = recordings.graph(name, "debug")
        expected = recordings.edges_of(debug)
        for node in debug.nodes.values():
            if node.kind is DriverKind.FILTER and node.name.startswith("#"):
                above = {parent for parent, child in expected if child == node.name}
                below = {child for parent, child in expected if parent == node.name}
                expected = {edge for edge in expected if node.name not in edge}
                expected |= {(parent, child) for parent in above for child in below}
        assert recordings.edges_of(recordings.graph(name, "blockstats")) == expected

    def test_edges_of_jobs_and_devices_are_left_out(self) -> None:
        recording = recordings.replies("commit-running")
        found = debug_graph_from(recording["x-debug-query-block-graph"]).edges
        assert {edge.role for edge in found} == {"file", "backing"}

    def test_orphans_keep_their_edges_in_the_debug_graph(self) -> None:
        recording = recordings.replies("stream-finished")
        found = debug_graph_from(recording["x-debug-query-block-graph"]).edges
        assert Edge(parent="mid", child="base", role="backing") in found
        stats = edges_from_blockstats(recording["query-blockstats"])
        assert "mid" not in {edge.parent for edge in stats}

    def test_blockstats_tell_the_data_file_in_the_place_of_the_file(self) -> None:
        (edge,) = edges_from_blockstats(recordings.replies("data-file")["query-blockstats"])
        assert edge == Edge(parent="disk", child="data", role="file")

    @pytest.mark.parametrize("way", ["backing", "parent"])
    @pytest.mark.parametrize("above", [{}, {"node-name": "a"}, {"node-name": ""}])
    @pytest.mark.parametrize("below", [None, {}, {"node-name": "b"}, {"node-name": ""}])
    def test_blockstats_lead_from_name_to_name(
        self, way: str, above: dict[str, str], below: dict[str, str] | None
    ) -> None:
        told = {**above, "stats": {}, **({} if below is None else {way: {**below, "stats": {}}})}
        role = "backing" if way == "backing" else "file"
        named = above.get("node-name") and below and below.get("node-name")
        found = edges_from_blockstats([told])
        assert found == ((Edge(parent="a", child="b", role=role),) if named else ())

    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("specific", [None, {}, {"driver": "file"}, {"driver": ""}])
    def test_blockstats_tell_drivers_of_nodes_with_names(
        self, named: bool, specific: dict[str, str] | None
    ) -> None:
        told = {**({"node-name": "f"} if named else {}), "stats": {}}
        told |= {} if specific is None else {"driver-specific": specific}
        known = named and specific and specific.get("driver")
        assert drivers_from_blockstats([told]) == ({"f": "file"} if known else {})

    def test_blockstats_repeat_what_lies_below_a_filter_once(self) -> None:
        below = {"node-name": "b", "parent": {"node-name": "c"}}
        told = [{"node-name": "a", "backing": below, "parent": below}]
        found = edges_from_blockstats(told)
        assert [(edge.parent, edge.child) for edge in found] == [("a", "b"), ("b", "c")]


class TestJobs:
    def test_what_is_not_told(self) -> None:
        told = {"id": "a", "type": "stream", "status": "running"}
        assert jobs_from([told]) == (
            Job(id="a", type="stream", status="running", current=0, total=0, error=None),
        )

    def test_running_commit(self) -> None:
        assert jobs_from(recordings.replies("commit-running")["query-jobs"]) == (
            Job(id="job0", type="commit", status="running", current=524288, total=8388608),
        )

    def test_error(self) -> None:
        told = {"id": "a", "type": "stream", "status": "concluded", "error": "No space left"}
        assert jobs_from([told])[0].error == "No space left"

    @pytest.mark.parametrize(
        ("change", "lingers"),
        [
            ({}, True),
            ({"auto-dismiss": True}, False),
            ({"type": "commit"}, False),
            ({"auto-finalize": False}, False),
            ({"status": "concluded"}, True),
            ({"auto-finalize": False, "status": "concluded"}, True),
            ({"device": "known", "status": "concluded"}, False),
            ({"auto-finalize": False, "status": "pending"}, False),
        ],
    )
    def test_streams_that_stay_when_they_have_ended(
        self, change: dict[str, object], lingers: bool
    ) -> None:
        told = {
            "device": "job0",
            "type": "stream",
            "status": "running",
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        found = lingering_streams([told | change], ended=["known"])
        assert found == (("job0",) if lingers else ())


class TestMalformed:
    """Missing and mistyped fields are an error that names the place; nothing else is raised."""

    @pytest.mark.parametrize(
        ("parse", "reply", "place"),
        [
            (nodes_from, {}, "Expected `array`"),
            (nodes_from, None, "Expected `array`"),
            (nodes_from, ["a"], "$[0]"),
            (nodes_from, [{"drv": "raw"}], "missing required field `node-name`"),
            (nodes_from, [{"node-name": "a"}], "missing required field `drv`"),
            (nodes_from, [{"node-name": 1, "drv": "raw"}], "$[0].node-name"),
            (nodes_from, [{"node-name": "a", "drv": None}], "$[0].drv"),
            (nodes_from, [{"node-name": "a", "drv": "raw", "ro": "yes"}], "$[0].ro"),
            (
                nodes_from,
                [{"node-name": "a", "drv": "raw", "image": {"virtual-size": "1M"}}],
                "$[0].image.virtual-size",
            ),
            (
                nodes_from,
                [{"node-name": "a", "drv": "raw", "children": [{"child": "file"}]}],
                "$[0].children[0]",
            ),
            (devices_from, [{"inserted": "top"}], "$[0].inserted"),
            (devices_from, [{"inserted": {"node-name": 7}}], "$[0].inserted.node-name"),
            (devices_from, "none", "Expected `array`"),
            (jobs_from, [{"id": "a", "type": "commit"}], "missing required field `status`"),
            (jobs_from, [{"id": "a", "type": "b", "status": "c", "error": 1}], "$[0].error"),
            (lingering_streams, [{"type": "stream"}], "missing required field `device`"),
            (debug_graph_from, {"nodes": []}, "missing required field `edges`"),
            (
                debug_graph_from,
                {"nodes": [{"id": "1", "type": "", "name": ""}], "edges": []},
                "$.nodes[0].id",
            ),
            (debug_graph_from, [], "Expected `object`"),
            (edges_from_blockstats, [{"backing": []}], "$[0].backing"),
            (edges_from_blockstats, [{"parent": {"node-name": 1}}], "$[0].parent.node-name"),
        ],
    )
    def test_says_where(self, parse: Any, reply: object, place: str) -> None:
        with pytest.raises(MalformedReply) as caught:
            parse(reply)
        assert place in caught.value.reason
        assert isinstance(caught.value, Failed)
        assert caught.value.changed == "no"

    @pytest.mark.parametrize(
        ("parse", "command"),
        [
            (nodes_from, "query-named-block-nodes"),
            (devices_from, "query-block"),
            (jobs_from, "query-jobs"),
            (lingering_streams, "query-block-jobs"),
            (debug_graph_from, "x-debug-query-block-graph"),
            (edges_from_blockstats, "query-blockstats"),
        ],
    )
    def test_says_which_command(self, parse: Any, command: str) -> None:
        with pytest.raises(MalformedReply, match=f"the reply to {command} is not"):
            parse(7)

    @pytest.mark.parametrize("depth", [500, 5_000, 100_000])
    def test_reply_that_nests_is_read_whole_or_malformed(self, depth: int) -> None:
        """
        How deep is too deep is the interpreter's to say, and differs from one to the next.

        Measured with msgspec 0.21: less than 1,000 levels with Python 3.11 and 3.12, less than
        10,000 with 3.13, and with 3.14 whatever fits on the stack.
        """
        stats: dict[str, object] = {"node-name": f"#{depth}"}
        for level in reversed(range(depth)):
            stats = {"node-name": f"#{level}", "backing": stats}
        try:
            edges = edges_from_blockstats([stats])
        except MalformedReply:
            assert depth > 500
        else:
            assert [(edge.parent, edge.child) for edge in edges] == [
                (f"#{level}", f"#{level + 1}") for level in range(depth)
            ]

    def test_edges_of_the_debug_graph_that_lead_nowhere(self) -> None:
        told = {
            "nodes": [
                {"id": 1, "type": "block-backend", "name": "vda"},
                {"id": 2, "type": "block-driver", "name": "a"},
            ],
            "edges": [
                {"parent": 1, "child": 9, "name": "root"},
                {"parent": 2, "child": 9, "name": "file"},
            ],
        }
        found = debug_graph_from(told)
        assert found.edges == found.job_edges == ()
        assert found.devices == (Device(device="", qdev="vda", root=None),)

    @pytest.mark.parametrize("size", [-1, 2**63, 10**400])
    @pytest.mark.parametrize("key", ["virtual-size", "actual-size"])
    def test_size_that_no_image_has(self, key: str, size: int) -> None:
        with pytest.raises(MalformedReply, match=key):
            nodes_from([{"node-name": "a", "drv": "raw", "image": {key: size}}])

    @pytest.mark.parametrize("parse", [nodes_from, devices_from, jobs_from, edges_from_blockstats])
    def test_key_with_half_a_character(self, parse: Any) -> None:
        with pytest.raises(MalformedReply, match="surrogates"):
            parse(
                [{"\ud800": 1, "node-name": "a", "drv": "raw", "id": "", "type": "", "status": ""}]
            )

    def test_empty_backing_format_states_nothing(self) -> None:
        image = {"backing-filename": "b", "backing-filename-format": ""}
        nodes, _ = nodes_from([{"node-name": "a", "drv": "qcow2", "image": image}])
        assert nodes[0].recorded == Recorded(filename="b", format=None)


class TestAmbiguous:
    """What is told twice, and differently: choosing would be guessing."""

    @pytest.mark.parametrize("role", ["backing", "file"])
    def test_two_children_in_one_role(self, role: str) -> None:
        children = [{"child": role, "node-name": name} for name in ("b", "c")]
        with pytest.raises(MalformedReply, match=f"node 'a' has two children in the role '{role}'"):
            nodes_from([{"node-name": "a", "drv": "qcow2", "children": children}])

    def test_the_same_child_twice_is_no_contradiction(self) -> None:
        children = [{"child": "file", "node-name": "b"}] * 2
        _, edges = nodes_from([{"node-name": "a", "drv": "qcow2", "children": children}])
        assert edges is not None
        assert {(edge.parent, edge.child) for edge in edges} == {("a", "b")}

    def test_two_children_in_one_role_of_the_debug_graph(self) -> None:
        told = recordings.replies("qcow2-chain")["x-debug-query-block-graph"]
        edge = next(edge for edge in told["edges"] if edge["name"] == "backing")
        told["edges"].append(edge | {"child": edge["parent"]})
        with pytest.raises(MalformedReply, match="two children in the role 'backing'"):
            debug_graph_from(told)

    @pytest.mark.parametrize(("key", "reason"), [("id", "an id"), ("name", "a node name")])
    def test_debug_graph_with_twins(self, key: str, reason: str) -> None:
        told = recordings.replies("qcow2-chain")["x-debug-query-block-graph"]
        first, second = [node for node in told["nodes"] if node["type"] == "block-driver"][:2]
        second[key] = first[key]
        with pytest.raises(MalformedReply, match=f"{reason} stands there twice"):
            debug_graph_from(told)

    def test_blockstats_that_contradict_themselves(self) -> None:
        one = {"node-name": "a", "backing": {"node-name": "b"}, "parent": {"node-name": "c"}}
        other = {"node-name": "a", "backing": {"node-name": "c"}, "parent": {"node-name": "b"}}
        assert len(edges_from_blockstats([one, one])) == 2
        with pytest.raises(MalformedReply, match="two children in the role 'backing'"):
            edges_from_blockstats([one, other])

    def test_blockstats_that_take_a_filter_for_none(self) -> None:
        below = {"node-name": "b"}
        one = {"node-name": "a", "backing": below, "parent": below}
        other = {"node-name": "a", "backing": below, "parent": {"node-name": "c"}}
        assert len(edges_from_blockstats([one, one])) == 1
        with pytest.raises(MalformedReply, match="two children in the role 'file'"):
            edges_from_blockstats([one, other])
