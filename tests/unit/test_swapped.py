"""The overlay that QEMU has opened, compared with the one that was made, or looked at."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.graph.nodes import Graph, Node, Recorded
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.swapped import (
    OverlaySwapped,
    check_all_opened,
    check_opened,
    check_same,
    made_identity,
    opened_nodes,
)
from tests.unit import samples
from tests.unit.test_qmp_steps import MASKS, STATE

MADE = Overlay(is_there=False)
THERE = Overlay(is_there=True, recorded=("/share/volume-1", "qcow2"))
A, B = ("file", 1, 2), ("file", 1, 3)
NODE = Node(
    name="n",
    driver="qcow2",
    filename="/share/volume-1.new",
    virtual_size=samples.MIB,
    recorded=Recorded(filename="volume-1", format="raw"),
)


@pytest.fixture
def plan() -> CreatePlan:
    request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
    return plan_create(samples.guest(), request)


def test_the_same(plan: CreatePlan) -> None:
    check_same(plan, MADE, A, A)
    check_same(plan, MADE, None, B)  # what it was is not known
    check_opened(plan, MADE, NODE)
    named = Recorded(filename="/share/volume-1", format="raw")
    check_opened(plan, THERE, replace(NODE, recorded=named))


@pytest.mark.parametrize(("now", "words"), [(B, "another file"), (None, "nothing of this name")])
@pytest.mark.parametrize(("overlay", "looked"), [(MADE, "made"), (THERE, "looked at")])
def test_another_name(
    plan: CreatePlan, now: Any, words: str, overlay: Overlay, looked: str
) -> None:
    with pytest.raises(OverlaySwapped, match=f"that was {looked}: .*{words}") as caught:
        check_same(plan, overlay, A, now)
    assert (caught.value.path, caught.value.exit_code) == (plan.overlay, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_file": "/etc/shadow"}, "data file"),
        ({"encrypted": True}, "encrypted"),
        ({"snapshots": ("s",)}, "internal snapshots"),
        ({"virtual_size": samples.MIB - 512}, "of 1048064 bytes"),
        ({"virtual_size": None}, "of None bytes"),
        ({"recorded": None}, "without a backing file"),
        ({"recorded": Recorded(filename="volume-2", format="raw")}, r"'volume-2' \(raw\)"),
        ({"recorded": Recorded(filename="volume-1", format="qcow2")}, r"'volume-1' \(qcow2\)"),
        ({"recorded": Recorded(filename="volume-1", format=None)}, r"'volume-1' \(None\)"),
    ],
)
def test_another_image(plan: CreatePlan, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OverlaySwapped, match=words):
        check_opened(plan, MADE, replace(NODE, **changes))


def test_nodes_in_the_order_of_the_plans(plan: CreatePlan) -> None:
    other = replace(plan, overlay="/share/volume-2.new")
    steps = MASKS.snapshot(samples.guest(), [plan, other], [MADE, MADE], STATE)
    names = [str(step.arguments["node-name"]) for step in steps.open]
    nodes = {name: replace(NODE, name=name) for name in names}
    graph = Graph(devices=(), nodes=nodes, edges=())
    assert [node and node.name for node in opened_nodes(steps, graph)] == names
    assert opened_nodes(steps, None) == (None, None)
    plans, overlays = [plan, other], [MADE, MADE]
    check_all_opened(plans, overlays, steps, graph)
    for name in names:
        swapped = {**nodes, name: replace(nodes[name], virtual_size=1)}
        with pytest.raises(OverlaySwapped):
            check_all_opened(plans, overlays, steps, replace(graph, nodes=swapped))
    check_all_opened(plans, overlays, steps, None)  # libvirt opens them in the switch
    check_all_opened(plans, overlays, steps, replace(graph, nodes={}))
    del nodes[names[0]]
    assert opened_nodes(steps, graph)[0] is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(A, A), (list(A), A), (None, None), ({}, None), ("file", None), (("file", 1), None)],
)
def test_what_the_act_answered(answer: object, expected: object) -> None:
    assert made_identity(answer) == expected
