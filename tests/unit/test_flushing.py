"""What a commit leaves when QEMU could not flush the base."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.guests.qmp.flush import check_closed
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples

NODE = Node(name="base", driver="qcow2", filename="volume-1", read_only=True)


def plan(top: str, *, read_only: bool = True) -> MergePlan:
    node = replace(NODE, read_only=read_only)
    disk = samples.changed_layer(samples.disk(3), 2, node_details=node)
    request = DeleteRequest(disk="vda", file_to_merge=top, merge_target_file="volume-1")
    return plan_delete(samples.guest(disk), request)


def graph(*nodes: Node) -> Graph:
    return Graph(devices=(), nodes={node.name: node for node in nodes}, edges=())


def test_base_that_stays_writable() -> None:
    with pytest.raises(NotFlushed, match="volume-1 holds all data"):
        check_closed(graph(replace(NODE, read_only=False)), plan("volume-1.s1"))


@pytest.mark.parametrize(
    ("merge", "after"),
    [
        (plan("volume-1.s1"), graph(NODE)),
        (plan("volume-1.s1"), graph()),
        # It was writable before, whoever started the guest knows why.
        (plan("volume-1.s1", read_only=False), graph(replace(NODE, read_only=False))),
        # The guest writes to it.
        (plan("volume-1.s2"), graph(replace(NODE, read_only=False))),
    ],
)
def test_nothing_to_say(merge: MergePlan, after: Graph) -> None:
    check_closed(after, merge)
