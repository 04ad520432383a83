"""A cheap look at one disk, by the debug graph alone."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.debug_graph import QUERY
from qmpsnap.guests.qmp.outline import outlines
from qmpsnap.operations.guest import Outline
from tests.unit import samples
from tests.unit.scripted import ScriptedMonitor, not_found

ROOT = "/machine/peripheral/vda/virtio-backend"
ORDER = ("volume-1.s1-node", "volume-1-node")
NODES = frozenset({*ORDER, "volume-1.s1-file", "volume-1-file"})
DISK = replace(samples.disk(2), nodes=NODES)
EDGES = (
    (ROOT, "volume-1.s1-node", "root"),
    ("volume-1.s1-node", "volume-1.s1-file", "file"),
    ("volume-1.s1-node", "volume-1-node", "backing"),
    ("volume-1-node", "volume-1-file", "file"),
)


def look(*edges: tuple[str, str, str], disk: Disk = DISK, backend: str = ROOT) -> Outline | None:
    numbers = {name: n for n, name in enumerate(dict.fromkeys(x for e in edges for x in e[:2]))}
    reply: dict[str, Any] = {
        "nodes": [
            {"id": n, "type": "block-backend" if name == ROOT else "block-driver", "name": name}
            for name, n in numbers.items()
        ],
        "edges": [
            {"parent": numbers[parent], "child": numbers[child], "name": role}
            for parent, child, role in edges
        ],
    }
    for node in reply["nodes"]:
        node["name"] = backend if node["name"] == ROOT else node["name"]
    monitor = ScriptedMonitor({QUERY: reply})
    (found,) = outlines(monitor, [disk])
    assert monitor.commands() == [QUERY]
    return found


@pytest.mark.parametrize("backend", [ROOT, "vda"])
def test_disk_that_is_as_it_was(backend: str) -> None:
    """A backend is named as its drive is, else as its device."""
    assert look(*EDGES, backend=backend) == Outline(nodes=NODES, order=ORDER)


def test_filter_of_a_job_is_left_out() -> None:
    (_, top, _), *rest = EDGES
    found = look((ROOT, "job-filter", "root"), ("job-filter", top, "file"), *rest)
    assert found == Outline(nodes=NODES, order=ORDER)


def test_overlay_that_came_is_not() -> None:
    (_, top, _), *rest = EDGES
    over = ((ROOT, "new", "root"), ("new", "new-file", "file"), ("new", top, "backing"))
    assert look(*over, *rest) == Outline(nodes=NODES | {"new", "new-file"}, order=ORDER)


def test_layer_that_went() -> None:
    first, own, _, last = EDGES
    found = look(first, own, ("volume-1.s1-node", "volume-1-file", "backing"), last)
    assert found == Outline(nodes=NODES - {"volume-1-node"}, order=ORDER[:1])


def test_several_disks_by_one_query() -> None:
    nodes = [
        *({"id": n, "type": "block-backend", "name": f"disk{n}"} for n in (1, 2)),
        *({"id": n, "type": "block-driver", "name": f"node{n}"} for n in (3, 4)),
    ]
    edges = [{"parent": n, "child": n + 2, "name": "root"} for n in (1, 2)]
    monitor = ScriptedMonitor({QUERY: {"nodes": nodes, "edges": edges}})
    disks = [replace(DISK, disk=name, qdev=None) for name in ("disk2", "gone", "disk1")]
    first, gone, last = outlines(monitor, disks)
    assert (first, gone, last) == (
        Outline(nodes=frozenset({"node4"}), order=()),
        None,
        Outline(nodes=frozenset({"node3"}), order=()),
    )
    assert monitor.commands() == [QUERY]


@pytest.mark.parametrize("backend", ["vdb", ""])
def test_disk_that_is_not_there(backend: str) -> None:
    assert look(*EDGES, backend=backend) is None


def test_empty_drive() -> None:
    numbered = {"nodes": [{"id": 1, "type": "block-backend", "name": ROOT}], "edges": []}
    assert outlines(ScriptedMonitor({QUERY: numbered}), [DISK]) == (None,)


def test_qemu_without_the_debug_graph() -> None:
    assert outlines(ScriptedMonitor({QUERY: not_found(QUERY)}), [DISK, DISK]) == (None, None)
