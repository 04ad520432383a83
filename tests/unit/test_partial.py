"""A guest with a corrupt image: QEMU cannot list its nodes, and the other disks still answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.layers import Disk
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.debug_graph import debug_graph_from
from qmpsnap.graph.nodes import Edge, Graph, Job
from qmpsnap.graph.partial import partial_graph

WHY = "Block device vda-0 is ejected"


def image(name: str, format_: str, **more: object) -> dict[str, object]:
    return {"filename": f"/share/{name}", "format": format_, "virtual-size": 1048576, **more}


def debug(edges: dict[str, list[tuple[str, str]]], roots: dict[str, str]) -> dict[str, object]:
    names = list(
        dict.fromkeys([*edges, *(child for below in edges.values() for _, child in below)])
    )
    ids = {name: number for number, name in enumerate(names, start=100)}
    backends = {name: number for number, name in enumerate(roots)}
    return {
        "nodes": [
            *({"id": ids[name], "type": "block-driver", "name": name} for name in names),
            *({"id": n, "type": "block-backend", "name": name} for name, n in backends.items()),
        ],
        "edges": [
            *(
                {"parent": ids[parent], "child": ids[child], "name": role}
                for parent, below in edges.items()
                for role, child in below
            ),
            *(
                {"parent": backends[name], "child": ids[root], "name": "root"}
                for name, root in roots.items()
            ),
        ],
    }


EDGES = {
    "vda-0": [("file", "vda-0-file"), ("backing", "vda-1")],
    "vda-1": [("file", "vda-1-file")],
    "vdb-0": [("file", "vdb-0-file"), ("backing", "vdb-1")],
    "vdb-1": [("file", "vdb-1-file")],
}
ROOTS = {"vda": "vda-0", "vdb": "vdb-0"}
BLOCKS = [
    {"device": "", "qdev": "vda", "removable": False},
    {
        "device": "",
        "qdev": "vdb",
        "inserted": {
            "node-name": "vdb-0",
            "drv": "qcow2",
            "image": image(
                "b.qcow2",
                "qcow2",
                **{
                    "backing-filename": "b.raw",
                    "backing-filename-format": "raw",
                    "backing-image": image("b.raw", "raw"),
                },
            ),
        },
    },
]
STATS = [
    {"node-name": "vda-0", "parent": {"node-name": "vda-0-file", "driver-specific": {"driver": "file"}}},
    {
        "node-name": "vdb-0",
        "parent": {"node-name": "vdb-0-file", "driver-specific": {"driver": "file"}},
        "backing": {
            "node-name": "vdb-1",
            "parent": {"node-name": "vdb-1-file", "driver-specific": {"driver": "file"}},
        },
    },
]  # fmt: skip


def graph(edges: dict[str, list[tuple[str, str]]] = EDGES, roots: dict[str, str] = ROOTS) -> Graph:
    return partial_graph(BLOCKS, debug_graph_from(debug(edges, roots)), STATS, jobs=(), why=WHY)


def disks(made: Graph) -> dict[str, Disk]:
    return {disk.disk: disk for disk in guest_from_graph(made).disks}


def test_other_disk_has_its_formats_and_files() -> None:
    found = disks(graph())["vdb"]
    assert [(one.path, one.format, one.verdict) for one in found.layers] == [
        ("/share/b.qcow2", "qcow2", Verdict.EXACT),
        ("/share/b.raw", "raw", Verdict.EXACT),
    ]


def test_base_without_a_raw_node_keeps_its_file() -> None:
    """Its format node is the one that has the file open, as libvirt 11 makes it."""
    base = image("b.raw", "file")
    overlay = image("b.qcow2", "qcow2", **{"backing-image": base})
    inserted = {"node-name": "vdb-0", "drv": "qcow2", "image": overlay}
    blocks = [BLOCKS[0], {"device": "", "qdev": "vdb", "inserted": inserted}]
    below = {"node-name": "vdb-1", "driver-specific": {"driver": "file"}}
    edges = {**EDGES, "vdb-1": []}
    stats = [STATS[0], {**STATS[1], "backing": below}]
    made = partial_graph(blocks, debug_graph_from(debug(edges, ROOTS)), stats, jobs=(), why=WHY)
    _, lower = disks(made)["vdb"].layers
    assert (lower.path, lower.format) == ("/share/b.raw", "raw")


@pytest.mark.parametrize("role", ["file", "backing", "image", "extents.0"])
def test_filter_on_top(role: str) -> None:
    """Its child is called `file`, `backing` (mirror_top, commit_top) or `image`, and is the data."""
    base = image("b.raw", "raw")
    overlay = image("b.qcow2", "qcow2", **{"backing-image": base})
    slow = image("b.qcow2", "throttle", **{"backing-image": overlay})
    inserted = {"node-name": "slow", "drv": "throttle", "image": slow}
    blocks = [BLOCKS[0], {"device": "", "qdev": "vdb", "inserted": inserted}]
    told = debug({**EDGES, "slow": [(role, "vdb-0")]}, {**ROOTS, "vdb": "slow"})
    made = partial_graph(blocks, debug_graph_from(told), STATS, jobs=(), why=WHY)
    formats = [(one.node, one.format) for one in disks(made)["vdb"].layers if one.format]
    assert formats == ([] if role == "extents.0" else [("vdb-0", "qcow2"), ("vdb-1", "raw")])


def test_corrupt_disk_is_shown_with_its_nodes_and_without_formats() -> None:
    found = disks(graph())["vda"]
    assert [(one.node, one.format, one.verdict) for one in found.layers] == [
        ("vda-0", None, Verdict.UNKNOWN),
        ("vda-1", None, Verdict.UNKNOWN),
    ]
    assert all(one.path is None and "unreadable" in one.flags for one in found.layers)


def test_corrupt_drive_is_found_by_its_id() -> None:
    """Its backend is named as the drive is, and not as its device."""
    corrupt = {"device": "drive0", "qdev": "vda", "removable": False}
    blocks = [corrupt, BLOCKS[1]]
    told = debug(EDGES, {"drive0": "vda-0", "vdb": "vdb-0", "vda": "vdb-1"})
    made = partial_graph(blocks, debug_graph_from(told), STATS, jobs=(), why=WHY)
    assert [one.root for one in made.devices] == ["vda-0", "vdb-0"]


def test_it_is_said_why() -> None:
    (note,) = guest_from_graph(graph()).notes
    assert WHY in note


def test_jobs_and_what_they_hold_are_kept() -> None:
    told = debug(EDGES, ROOTS)
    nodes, edges = told["nodes"], told["edges"]
    assert isinstance(nodes, list)
    assert isinstance(edges, list)
    (active,) = [one["id"] for one in nodes if one["name"] == "vdb-0"]
    nodes.append({"id": 900, "type": "block-job", "name": "copy"})
    edges.append({"parent": 900, "child": active, "name": "main node"})
    jobs = (Job(id="copy", type="mirror", status="running"),)
    made = partial_graph(BLOCKS, debug_graph_from(told), STATS, jobs=jobs, why=WHY)
    assert made.jobs == jobs
    assert made.job_edges == (Edge(parent="copy", child="vdb-0", role="main node"),)


def test_nested_image_tells_all_of_its_node() -> None:
    extents = [{"filename": "/share/b-s001.vmdk"}, {"filename": "/share/b-s002.vmdk"}]
    data = {"type": "vmdk", "data": {"extents": extents}}
    told = image("b.vmdk", "vmdk", encrypted=True, **{"format-specific": data})
    inserted = {"node-name": "vdb-0", "drv": "vmdk", "image": told}
    blocks = [BLOCKS[0], {"device": "", "qdev": "vdb", "inserted": inserted}]
    alone = {**EDGES, "vdb-0": [("file", "vdb-0-file")]}
    made = partial_graph(blocks, debug_graph_from(debug(alone, ROOTS)), STATS, jobs=(), why=WHY)
    node = made.nodes["vdb-0"]
    assert (node.driver, node.encrypted) == ("vmdk", True)
    assert node.extents == ("/share/b-s001.vmdk", "/share/b-s002.vmdk")


def test_filter_of_a_job_in_between_makes_the_pairing_unsure() -> None:
    """Nested images leave it out, so image and node would be off by one below it."""
    edges = EDGES | {
        "vdb-0": [("file", "vdb-0-file"), ("backing", "#block9")],
        "#block9": [("backing", "vdb-1")],
    }
    found = disks(graph(edges))["vdb"]
    assert {one.verdict for one in found.layers} == {Verdict.UNKNOWN}


def described(made: Graph) -> dict[str, str]:
    """Driver by node, of those that are known."""
    return {node.name: node.driver for node in made.nodes.values() if node.driver}


def nested(*formats: str) -> dict[str, object] | None:
    """Images of which each holds the next, as `query-block` tells them."""
    made: dict[str, object] | None = None
    for number, format_ in reversed([*enumerate(formats)]):
        more = {} if made is None else {"backing-image": made}
        made = image(f"b{number}", format_, **more)
    return made


@given(
    depth=st.integers(1, 5),
    images=st.integers(1, 6),
    filters=st.sets(st.integers(0, 4), max_size=2),
    without_file=st.sets(st.integers(0, 4), max_size=2),
    with_stats=st.booleans(),
)
def test_a_pairing_is_right_or_there_is_none(
    depth: int, images: int, filters: set[int], without_file: set[int], with_stats: bool
) -> None:
    """Whatever the chain, and however many images are told of it: no node gets another's format."""
    edges: dict[str, list[tuple[str, str]]] = {}
    above: list[tuple[str, str]] = []
    for number in range(depth):
        name = f"n{number}"
        if number in filters:  # a job's, which the images leave out
            above.append(("backing", f"#block{number}"))
            above = edges.setdefault(f"#block{number}", [])
        above.append(("backing", name))
        above = edges.setdefault(name, [])
        if number not in without_file:
            above.append(("file", f"{name}-file"))
    root = "#block0" if 0 in filters else "n0"
    inserted = {"node-name": root, "drv": "f0", "image": nested(*(f"f{n}" for n in range(images)))}
    stats = [
        {
            "node-name": f"n{n}",
            "parent": {"node-name": f"n{n}-file", "driver-specific": {"driver": "file"}},
        }
        for n in range(depth if with_stats else 0)
    ]
    blocks = [{"device": "", "qdev": "vdb", "removable": False, "inserted": inserted}]
    made = partial_graph(
        blocks, debug_graph_from(debug(edges, {"vdb": root})), stats, jobs=(), why=WHY
    )
    formats = {name: driver for name, driver in described(made).items() if driver != "file"}
    fits = images == depth and not filters & set(range(depth))
    assert formats == ({f"n{n}": f"f{n}" for n in range(depth)} if fits else {})
    guest_from_graph(made)


def test_network_disk_beside_a_corrupt_one() -> None:
    """Its protocol node has a driver and no file name, and nothing below it."""
    edges = EDGES | {"vdc-0": [("file", "vdc-0-nbd")]}
    stats = [
        *STATS,
        {
            "node-name": "vdc-0",
            "parent": {"node-name": "vdc-0-nbd", "driver-specific": {"driver": "nbd"}},
        },
        {
            "node-name": "elsewhere",
            "parent": {"node-name": "gone", "driver-specific": {"driver": "file"}},
        },
    ]
    told = debug_graph_from(debug(edges, {**ROOTS, "vdc": "vdc-0"}))
    made = partial_graph(BLOCKS, told, stats, jobs=(), why=WHY)
    assert described(made) == {**described(graph()), "vdc-0-nbd": "nbd"}
    assert "gone" not in made.nodes
    assert disks(made)["vdb"].layers[0].path == "/share/b.qcow2"


def test_root_that_only_query_block_or_only_the_debug_graph_knows() -> None:
    made = partial_graph(BLOCKS, debug_graph_from(debug(EDGES, {})), STATS, jobs=(), why=WHY)
    assert {device.name: device.root for device in made.devices} == {"vda": None, "vdb": "vdb-0"}
    assert {device.name: device.root for device in graph().devices} == {
        "vda": "vda-0",
        "vdb": "vdb-0",
    }
