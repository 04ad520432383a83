"""What a merge came to, by a fresh reading: flushed, undone, or of a format that nobody states."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qmpsnap.formats.layers import Disks
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.job.loop import Ended
from qmpsnap.operations.job.machine import Why
from qmpsnap.operations.job.states import JobFailed, JobStatus
from qmpsnap.operations.judge import check_closed, format_of, judged
from qmpsnap.operations.outcome import FormatUnknown, NamesAnother
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples

NODE = Node(name="volume-1-node", driver="qcow2", filename="volume-1", read_only=True)


def plan(top: str, *, read_only: bool | None = True) -> MergePlan:
    node = None if read_only is None else replace(NODE, read_only=read_only)
    disk = samples.changed_layer(samples.disk(3), 2, node_details=node)
    request = DeleteRequest(disk="vda", file_to_merge=top, merge_target_file="volume-1")
    return plan_delete(samples.guest(disk), request)


def read(*nodes: Node) -> Disks:
    graph = Graph(devices=(), nodes={node.name: node for node in nodes}, edges=())
    return replace(samples.guest(), graph=graph)


WRITABLE = read(replace(NODE, read_only=False))


class TestFlushed:
    """What a commit leaves when QEMU could not flush the base."""

    @pytest.mark.parametrize("read_only", [True, None])
    def test_base_that_stays_writable(self, read_only: bool | None) -> None:
        with pytest.raises(NotFlushed, match="volume-1 holds all data"):
            check_closed(WRITABLE, plan("volume-1.s1", read_only=read_only))

    @pytest.mark.parametrize(
        ("merge", "after"),
        [
            (plan("volume-1.s1"), read(NODE)),
            (plan("volume-1.s1"), read()),
            (plan("volume-1.s1"), samples.guest()),  # by the XML alone
            # It was writable before, whoever started the guest knows why.
            (plan("volume-1.s1", read_only=False), WRITABLE),
            # The guest writes to it.
            (plan("volume-1.s2"), WRITABLE),
        ],
    )
    def test_nothing_to_say(self, merge: MergePlan, after: Disks) -> None:
        check_closed(after, merge)

    def test_it_is_no_success(self) -> None:
        merge = plan("volume-1.s1")
        after = samples.disk(3, layers=samples.linked(merge.remaining))
        ended = Ended(status=JobStatus.CONCLUDED, error=None)
        with pytest.raises(NotFlushed):
            judged(merge, ended, WRITABLE, after, room=None, seconds=0, notes=())


def test_flush_that_failed_before_the_chain_was_changed() -> None:
    why = "flush of volume-1: no space"
    ended = Ended(status=JobStatus.CONCLUDED, error=why, cancelled=Why.NOT_FLUSHED)
    merge = plan("volume-1.s1")
    with pytest.raises(JobFailed, match=why):
        judged(merge, ended, read(NODE), merge.disk, room=None, seconds=0, notes=())


def test_format_that_nobody_states() -> None:
    disk = samples.changed_layer(samples.disk(2), 1, format=None)
    assert format_of(disk, "/share/volume-1.s1") == "qcow2"
    with pytest.raises(FormatUnknown, match="nobody states the format of volume-1 now") as caught:
        format_of(disk, "/share/volume-1")
    assert (caught.value.exit_code, caught.value.changed) == (1, "yes")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"flags": ("replaced",), "sight": "its name leads to no file any more"}, "to no file"),
        ({"identity": ("file", 1, 3)}, "it was replaced while QEMU opened it again"),
        ({"identity": ("file", 1, 2)}, None),
        ({"identity": None}, None),
    ],
)
def test_name_that_leads_to_another_file(changes: dict[str, object], why: str | None) -> None:
    disk = samples.changed_layer(samples.disk(3), 2, identity=("file", 1, 2))
    request = DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1")
    merge = plan_delete(samples.guest(disk), request)
    after = samples.disk(3, layers=samples.linked(merge.remaining))
    after = samples.changed_layer(after, 1, **changes)
    ended = Ended(status=JobStatus.CONCLUDED, error=None)
    if why is None:
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
        return
    with pytest.raises(NamesAnother, match=why) as caught:
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
    assert (caught.value.path, caught.value.changed) == ("/share/volume-1", "yes")
