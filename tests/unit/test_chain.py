"""From graphs, recorded and made up, to chains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.errors import Failed
from qmpsnap.graph.chain import ChainLink, ChainLoop, chain, host_path
from qmpsnap.graph.drivers import DriverKind, format_meant_by, kind_of
from qmpsnap.graph.nodes import Device, Edge, Graph, Node
from tests.unit import recordings
from tests.unit.recordings import SOURCES, Source


def node(name: str, driver: str = "qcow2", filename: str = "") -> Node:
    return Node(name=name, driver=driver, filename=filename)


def graph(nodes: list[Node], *edges: tuple[str, str, str]) -> Graph:
    """Nodes, and edges as (parent, role, child)."""
    return Graph(
        devices=(),
        nodes={one.name: one for one in nodes},
        edges=tuple(Edge(parent=above, role=role, child=below) for above, role, below in edges),
    )


def names(layers: tuple[ChainLink, ...]) -> list[str]:
    return [layer.node.name for layer in layers]


class TestRecorded:
    """What QEMU 7.2 really said; the three ways to the edges must give the same chain."""

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize(
        ("recording", "expected"),
        [
            ("raw-node", [("base", "raw", "/share/base")]),
            ("raw-without-node", [("base", "file", "/share/base")]),
            ("raw-slice", [("base", "raw", "/share/base")]),
            (
                "qcow2-chain",
                [
                    ("top", "qcow2", "/share/top"),
                    ("mid", "qcow2", "/share/mid"),
                    ("base", "raw", "/share/base"),
                ],
            ),
            (
                "qcow2-over-protocol",
                [("top", "qcow2", "/share/top"), ("base", "file", "/share/base")],
            ),
            ("backing-cut-off", [("top", "qcow2", "/share/top")]),
            ("blkdebug", [("disk", "qcow2", "/share/disk")]),
            ("luks", [("top", "qcow2", "/share/top"), ("base", "luks", "/share/base")]),
            ("fdset", [("base", "raw", None)]),
            ("stream-finished", [("top", "qcow2", "/share/top"), ("base", "raw", "/share/base")]),
        ],
    )
    def test_layers(
        self, recording: str, source: Source, expected: list[tuple[str, str, str | None]]
    ) -> None:
        layers = recordings.layers(recording, source)
        assert [(one.node.name, one.node.driver, one.path) for one in layers] == expected

    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize(
        "recording",
        [
            "throttle-on-top",
            "throttle-between",
            "copy-on-read",
            "two-filters",
            "commit-running",
            "active-commit-ready",
            "active-commit-named-filter",
            "stream-running",
            "two-disks",
        ],
    )
    def test_filters_do_not_count(self, recording: str, source: Source) -> None:
        layers = recordings.layers(recording, source)
        assert names(layers) == ["top", "mid", "base"]
        assert [layer.path for layer in layers] == ["/share/top", "/share/mid", "/share/base"]

    @pytest.mark.parametrize("source", ["children", "debug"])
    @pytest.mark.parametrize(
        ("recording", "drivers"),
        [
            ("qcow2-chain", [[], [], []]),
            ("throttle-on-top", [["throttle"], [], []]),
            ("throttle-between", [[], ["throttle"], []]),
            ("copy-on-read", [["copy-on-read"], [], []]),
            ("two-filters", [["throttle", "copy-on-read"], [], []]),
            ("commit-running", [[], ["commit_top"], []]),
            ("active-commit-named-filter", [["mirror_top"], [], []]),
            # by query-block the filter without a name of its own is not the root
            ("active-commit-ready", [[], [], []]),
        ],
    )
    def test_filters_belong_to_the_layer_below(
        self, recording: str, source: Source, drivers: list[list[str]]
    ) -> None:
        layers = recordings.layers(recording, source)
        assert [[one.driver for one in layer.filters] for layer in layers] == drivers
        for layer in layers:
            assert layer.top == (layer.filters or (layer.node,))[0]

    @pytest.mark.parametrize("recording", ["active-commit-ready", "stream-running"])
    def test_from_the_filter_of_a_job(self, recording: str) -> None:
        """The debug graph's roots are the filters themselves."""
        made = recordings.graph(recording)
        (job_filter,) = (one for one in made.nodes.values() if one.name.startswith("#"))
        layers = chain(made, job_filter.name)
        assert names(layers) == ["top", "mid", "base"]
        assert layers[0].filters == (job_filter,)

    def test_protocol_below_blkdebug(self) -> None:
        (layer,) = recordings.layers("blkdebug")
        assert layer.protocol is not None
        assert (layer.protocol.name, layer.filters) == ("disk-file", ())

    @pytest.mark.parametrize("source", SOURCES)
    def test_quorum_ends_the_chain_and_has_no_file(self, source: Source) -> None:
        (layer,) = recordings.layers("quorum", source)
        assert (layer.node.driver, layer.protocol, layer.path) == ("quorum", None, None)

    @pytest.mark.parametrize("source", ["children", "debug"])
    def test_data_file_is_not_the_file(self, source: Source) -> None:
        (layer,) = recordings.layers("data-file", source)
        assert layer.path == "/share/disk"

    def test_data_file_stands_in_for_the_file_in_blockstats(self) -> None:
        """Why `Reader` takes that edge out."""
        (layer,) = recordings.layers("data-file", "blockstats")
        assert layer.path == "/share/disk.data"

    @pytest.mark.parametrize("source", SOURCES)
    def test_nodes_without_names_of_their_own(self, source: Source) -> None:
        layers = recordings.layers("drive", source)
        assert [layer.file for layer in layers] == ["top", "mid", "base"]
        assert all(name.startswith("#block") for name in names(layers))

    def test_second_disk(self) -> None:
        assert names(recordings.layers("two-disks", disk=1)) == ["disk"]

    @pytest.mark.parametrize("name", recordings.NAMES)
    def test_a_recording_is_whole(self, name: str) -> None:
        assert recordings.graph(name).missing() == frozenset()


class TestMadeUp:
    @pytest.mark.parametrize("depth", [1, 2, 8, 64, 200])
    def test_depth(self, depth: int) -> None:
        nodes = [node(f"n{number}") for number in range(depth)]
        edges = [(f"n{number}", "backing", f"n{number + 1}") for number in range(depth - 1)]
        assert names(chain(graph(nodes, *edges), "n0")) == [f"n{number}" for number in range(depth)]

    def test_unknown_driver_is_a_layer(self) -> None:
        made = graph([node("a", "qcow9"), node("b", "raw")], ("a", "backing", "b"))
        assert names(chain(made, "a")) == ["a", "b"]

    def test_no_root(self) -> None:
        assert chain(graph([node("a")]), "b") == ()

    def test_chain_ends_at_a_node_that_is_missing(self) -> None:
        made = graph([node("a"), node("b")], ("a", "backing", "b"), ("b", "backing", "gone"))
        assert names(chain(made, "a")) == ["a", "b"]
        assert made.missing() == {"gone"}

    def test_filter_over_nothing(self) -> None:
        (layer,) = chain(graph([node("a", "throttle")]), "a")
        assert (layer.node.name, layer.filters, layer.protocol) == ("a", (), None)

    def test_format_over_format(self) -> None:
        """raw inside qcow2, as libvirt makes it for a LUKS volume with a slice."""
        made = graph(
            [node("a", "luks"), node("b", "raw"), node("c", "file", "/share/a")],
            ("a", "file", "b"),
            ("b", "file", "c"),
        )
        (layer,) = chain(made, "a")
        assert (layer.node.name, layer.path) == ("a", "/share/a")

    @pytest.mark.parametrize(
        ("drivers", "inner"),
        [
            (["qcow2", "file"], []),
            (["luks", "raw", "file"], []),
            (["raw", "raw", "throttle", "file"], []),
            (["raw", "luks", "file"], ["luks"]),
            (["raw", "throttle", "qcow2", "raw", "file"], ["qcow2"]),
            (["raw", "qcow2", "luks", "file"], ["qcow2", "luks"]),
            (["qcow2", "qcow9", "file"], ["qcow9"]),
            (["raw", "protocol-of-a-later-qemu"], []),
        ],
    )
    def test_formats_below_the_format(self, drivers: list[str], inner: list[str]) -> None:
        nodes = [node(str(number), driver) for number, driver in enumerate(drivers)]
        edges = [(str(number), "file", str(number + 1)) for number in range(len(drivers) - 1)]
        (layer,) = chain(graph(nodes, *edges), "0")
        assert [one.driver for one in layer.inner] == inner

    @pytest.mark.parametrize(
        ("driver", "path", "file"),
        [
            ("file", "/share/a", "a"),
            ("host_device", "/share/a", "a"),
            ("host_cdrom", "/share/a", "a"),
            ("nbd", None, "/share/a"),
            ("rbd", None, "/share/a"),
            ("nvme", None, "/share/a"),
        ],
    )
    def test_only_local_protocols_have_a_path(
        self, driver: str, path: str | None, file: str
    ) -> None:
        (layer,) = chain(graph([node("a", driver, "/share/a")]), "a")
        assert (layer.path, layer.file) == (path, file)

    @pytest.mark.parametrize(
        ("edges", "met_again"),
        [
            ([("a", "backing", "a")], "a"),
            ([("a", "backing", "b"), ("b", "backing", "a")], "a"),
            ([("a", "backing", "f"), ("f", "file", "a")], "a"),
            ([("a", "backing", "f"), ("f", "file", "f")], "f"),
            ([("a", "file", "a")], "a"),
            ([("a", "file", "b"), ("b", "file", "a")], "a"),
            ([("a", "file", "f"), ("f", "image", "f")], "f"),
        ],
    )
    def test_circles(self, edges: list[tuple[str, str, str]], met_again: str) -> None:
        made = graph([node("a"), node("b"), node("f", "throttle")], *edges)
        with pytest.raises(ChainLoop, match=repr(met_again)) as caught:
            chain(made, "a")
        assert isinstance(caught.value, Failed)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcde"),
                st.sampled_from(["backing", "file", "image", "target"]),
                st.sampled_from("abcdefg"),
            ),
            max_size=12,
        ),
        st.lists(st.sampled_from(["qcow2", "throttle", "file", "quorum"]), min_size=5, max_size=5),
    )
    def test_any_graph_gives_a_chain_or_a_loop(
        self, edges: list[tuple[str, str, str]], drivers: list[str]
    ) -> None:
        nodes = [node(name, driver) for name, driver in zip("abcde", drivers, strict=True)]
        try:
            layers = chain(graph(nodes, *edges), "a")
        except ChainLoop:
            return
        assert len(set(names(layers))) == len(layers) <= len(nodes)


class TestGraph:
    def test_missing_names_roots_and_both_ends_of_an_edge(self) -> None:
        made = Graph(
            devices=(
                Device(device="", qdev="vda", root="r"),
                Device(device="", qdev="b", root=None),
            ),
            nodes={"a": node("a")},
            edges=(Edge(parent="p", child="a", role="file"), Edge(parent="a", child="c", role="x")),
        )
        assert made.missing() == {"r", "p", "c"}

    def test_child_takes_roles_in_their_order(self) -> None:
        made = graph([node("a"), node("b"), node("c")], ("a", "file", "b"), ("a", "backing", "c"))
        child = made.child("a", "backing", "file")
        assert child is not None
        assert child.name == "c"
        assert made.child("a", "data-file") is None
        assert [edge.child for edge in made.children("a")] == ["b", "c"]


class TestHostPath:
    @pytest.mark.parametrize(
        ("filename", "expected"),
        [
            ("/share/a", "/share/a"),
            ("a", "a"),
            ("", ""),
            ("file:/share/a", "/share/a"),
            ("/share/file:a", "/share/file:a"),
            ('json:{"driver": "file", "filename": "/share/a"}', "/share/a"),
            ('json:{"driver": "qcow2", "file": {"driver": "file", "filename": "/a"}}', "/a"),
            ('json:{"driver":"raw","file":{"driver":"raw","file":{"filename":"file:/a"}}}', "/a"),
            ('json:{"driver": "nbd", "server": {"path": "/s"}}', None),
            ('json:{"driver": "qcow2", "file": "a-node"}', None),
            ('json:{"filename": 7}', None),
            ('json:{"filename": "json:{}"}', None),
            (r'json:{"filename": "json:{\"filename\": \"/a\"}"}', None),
            ('json:["/share/a"]', None),
            ("json:", None),
            ("json:{", None),
            ("json:" + "[" * 100_000, None),
            ("/dev/fdset/1", None),
            ('json:{"driver": "file", "filename": "/dev/fdset/1"}', None),
            ("/dev/fdset", "/dev/fdset"),
        ],
    )
    def test_names(self, filename: str, expected: str | None) -> None:
        assert host_path(filename) == expected

    @given(st.text('{}[]":, \\\0ufilenam9', max_size=40))
    def test_any_text_behind_json_is_a_name_or_none(self, text: str) -> None:
        found = host_path("json:" + text)
        assert found is None or isinstance(found, str)


class TestDrivers:
    @pytest.mark.parametrize(
        ("driver", "kind", "meant"),
        [
            ("qcow2", DriverKind.FORMAT, "qcow2"),
            ("raw", DriverKind.FORMAT, "raw"),
            ("luks", DriverKind.FORMAT, "luks"),
            ("file", DriverKind.PROTOCOL, "raw"),
            ("host_device", DriverKind.PROTOCOL, "raw"),
            ("nbd", DriverKind.PROTOCOL, "raw"),
            ("throttle", DriverKind.FILTER, None),
            ("mirror_top", DriverKind.FILTER, None),
            ("quorum", DriverKind.UNKNOWN, None),
            ("snapshot-access", DriverKind.UNKNOWN, None),
            ("qcow9", DriverKind.UNKNOWN, None),
            ("", DriverKind.UNKNOWN, None),
        ],
    )
    def test_what_a_driver_stands_for(
        self, driver: str, kind: DriverKind, meant: str | None
    ) -> None:
        assert (kind_of(driver), format_meant_by(driver)) == (kind, meant)
