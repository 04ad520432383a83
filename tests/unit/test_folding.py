"""Pictures of many disks and of deep chains: rows of frames, and quiet layers in one box."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from msgspec.structs import replace

from qmpsnap.cli.drawing.folding import DEEP
from qmpsnap.cli.drawing.picture import PER_ROW, picture
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.layers import Disks
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.nodes import Device, Edge, Graph, Job, Node, Recorded
from tests.unit.drawings import Drawn, taken_apart


def graph(depths: list[int]) -> Graph:
    """One disk for each depth, every layer with a file of its own."""
    nodes, edges, devices = [], [], []
    for number, depth in enumerate(depths):
        names = [f"d{number}-{layer}" for layer in range(depth)]
        devices.append(Device(device="", qdev=f"vd{chr(97 + number)}", root=names[0]))
        for layer, name in enumerate(names):
            below = names[layer + 1] if layer + 1 < depth else None
            format_ = "qcow2" if below else "raw"
            kind = "qcow2" if layer + 2 < depth else "raw"
            recorded = Recorded(filename=below, format=kind) if below else None
            path = f"/share/{name}"
            nodes.append(Node(name=name, driver=format_, filename=path, recorded=recorded))
            nodes.append(Node(name=f"{name}-file", driver="file", filename=path))
            edges.append(Edge(parent=name, child=f"{name}-file", role="file"))
            if below:
                edges.append(Edge(parent=name, child=below, role="backing"))
    return Graph(devices=tuple(devices), nodes={one.name: one for one in nodes}, edges=tuple(edges))


def report(*depths: int) -> Disks:
    return guest_from_graph(graph([*depths]))


def drawn(made: Disks) -> Drawn:
    return taken_apart(picture(made, made.disks))


def boxes(found: Drawn) -> list[list[str]]:
    return [label for label in found.labels.values() if any("layers ·" in one for one in label)]


def test_forty_layers() -> None:
    found = drawn(report(40))
    (fold,) = boxes(found)
    assert fold == ["d0-2", "… 37 layers · qcow2 · exact …", "d0-38"]
    assert found.below("d0-1") == {"d0-2", "file d0-1-file"}
    assert found.below("d0-2") == {"d0-39"}
    assert all(f"/share/d0-{number}" in found.looks[found.id("d0-2")] for number in (2, 20, 38))
    assert len([one for one in found.labels if one.startswith("node")]) == 2 * 3 + 1


def test_a_chain_that_is_not_deep_is_drawn_whole() -> None:
    assert not boxes(drawn(report(DEEP)))
    assert boxes(drawn(report(DEEP + 1)))


@pytest.mark.parametrize("change", ["flag", "verdict", "job", "child"])
def test_a_layer_that_has_something_to_tell_is_drawn(change: str) -> None:
    made = report(40)
    assert made.graph is not None
    layers = list(made.disks[0].layers)
    if change == "flag":
        layers[20] = replace(layers[20], flags=("shared-base",))
    elif change == "verdict":
        layers[20] = replace(layers[20], verdict=Verdict.CONFLICT)
    else:
        edges = made.graph.edges
        extra = Edge(parent="d0-20", child="d0-20-data", role="data-file")
        jobs = (Edge(parent="j", child="d0-20", role="main node"),) if change == "job" else ()
        made = replace(
            made,
            graph=replace(
                made.graph,
                edges=(*edges, extra) if change == "child" else edges,
                job_edges=jobs,
            ),
            jobs=(Job(id="j", type="commit", status="running"),) if change == "job" else (),
        )
    made = replace(made, disks=(replace(made.disks[0], layers=tuple(layers)),))
    found = drawn(made)
    assert [label[0] for label in boxes(found)] == ["d0-2", "d0-21"]
    assert found.id("node d0-20")


def places(dot: str) -> dict[str, tuple[float, float]]:
    """Where the real Graphviz puts each box: from the left, from the bottom."""
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    done = subprocess.run(["dot", "-Tplain"], input=dot, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    found = {}
    for line in done.stdout.splitlines():
        words = line.split(" ")
        if words[0] == "node":
            found[words[1]] = (float(words[2]), float(words[3]))
    return found


def test_twelve_disks_stand_in_rows() -> None:
    made = report(*[3] * 12)
    found = places(picture(made, made.disks))
    devices = [found[f"disk{number}"] for number in range(12)]
    assert [x for x, _ in devices[:PER_ROW]] == sorted(x for x, _ in devices[:PER_ROW])
    heights = [{y for _, y in devices[at : at + PER_ROW]} for at in range(0, 12, PER_ROW)]
    assert all(len(one) == 1 for one in heights)
    first, second, third = (one.pop() for one in heights)
    assert first > second > third
    lowest = found[taken_apart(picture(made, made.disks)).id("node d0-2")][1]
    assert first > lowest > second, "each row is below the chains of the one above"


def test_a_few_disks_stand_in_one_row() -> None:
    made = report(*[3] * PER_ROW)
    assert "invis" not in picture(made, made.disks)


def test_colours_are_explained() -> None:
    made = report(2)
    assert "green: certain · yellow: believed · red: in doubt" in picture(made, made.disks)
