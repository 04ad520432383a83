"""Whether a merge is flushed, by what was answered to those that were asked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.graph.nodes import Graph, Node
from qmpsnap.guests.files.door import FileFailed
from qmpsnap.guests.files.steps import sync_step
from qmpsnap.guests.qmp.flush_steps import heard_flushes
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.monitor.base import CommandFailed, LostInMidCommand
from qmpsnap.monitor.passthrough import PassthroughOff
from qmpsnap.operations.flushed import (
    FLUSHED,
    NOTHING,
    Evidence,
    check_flushed,
    evidence,
    judged,
    taken,
)
from qmpsnap.operations.guest import MergeSteps, NotFlushed
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

FORBIDDEN = "Permission conflict on node 'vda': permissions 'resize' are both required"
FAILED, UNTOLD = Evidence(False, "no space"), Evidence(None, "who knows")


def plan(target: str | None, base: str = "raw") -> MergePlan:
    nodes = ("volume-1-node", "volume-1-file")
    disk = samples.changed_layer(
        samples.disk(3), 2, format=base, nodes=nodes, protocol_node=nodes[1]
    )
    source = "volume-1.s1" if target else None
    request = DeleteRequest(disk="vda", file_to_merge=source, merge_target_file=target)
    return plan_delete(samples.guest(disk), request)


COMMIT, PULL = plan("volume-1"), plan(None)
REOPEN = heard_flushes(COMMIT.written)[0]
RESIZE = QmpComposer.resize(PULL.top)
SYNC = sync_step("/share/volume-1")


def read(*, read_only: bool = False) -> Disks:
    """The guest after the job, with the node below that of the base."""
    name = "volume-1-file"
    node = Node(name=name, driver="file", filename="volume-1", read_only=read_only)
    return replace(samples.guest(), graph=Graph(devices=(), nodes={name: node}, edges=()))


class TestEvidence:
    @pytest.mark.parametrize(
        ("step", "answer", "flushed"),
        [
            (REOPEN, "", True),
            (REOPEN, "Error flushing drive: No space left on device\r\n", False),
            (REOPEN, "Cannot change the option 'x'\r\n", None),
            (REOPEN, CommandFailed("human-monitor-command", "CommandNotFound", "none"), None),
            (REOPEN, PassthroughOff("read-only"), None),
            (RESIZE, {}, True),
            (RESIZE, CommandFailed("block_resize", "GenericError", "No space left"), False),
            (RESIZE, CommandFailed("block_resize", "GenericError", FORBIDDEN), None),
            (SYNC, None, True),
            (SYNC, "this process cannot open volume-1", None),
            (SYNC, FileFailed("sync", "/share/volume-1", "Input/output error"), False),
        ],
    )
    def test_of_one_act(self, step: Step, answer: object, flushed: bool | None) -> None:
        told = evidence(step, answer)
        assert told.flushed is flushed
        assert bool(told.why) is (flushed is not True)

    def test_error_is_an_answer(self) -> None:
        fake = FakeGuest(samples.guest())
        fake.fails["flush"] = CommandFailed("block_resize", "GenericError", "No space left")
        assert taken(fake, RESIZE) == Evidence(False, "No space left")

    def test_connection_that_broke_is_none(self) -> None:
        fake = FakeGuest(samples.guest())
        fake.fails["flush"] = LostInMidCommand("block_resize", "gone")
        with pytest.raises(LostInMidCommand):
            taken(fake, RESIZE)


class TestJudged:
    @pytest.mark.parametrize(
        ("merge", "before", "after", "proof"),
        [
            (COMMIT, FLUSHED, (), FLUSHED),
            (COMMIT, FAILED, (FLUSHED,), FAILED),
            (COMMIT, NOTHING, (), NOTHING),
            (COMMIT, UNTOLD, (), UNTOLD),
            (COMMIT, UNTOLD, (FLUSHED,), FLUSHED),
            (COMMIT, NOTHING, (FLUSHED, UNTOLD), UNTOLD),
            (COMMIT, NOTHING, (UNTOLD, FAILED), FAILED),
            # Its header has been written since.
            (PULL, FLUSHED, (UNTOLD,), UNTOLD),
            (PULL, FLUSHED, (FAILED,), FAILED),
            (PULL, UNTOLD, (FLUSHED,), FLUSHED),
            (PULL, FLUSHED, (), FLUSHED),
        ],
    )
    def test_of_all(
        self, merge: MergePlan, before: Evidence, after: tuple[Evidence, ...], proof: Evidence
    ) -> None:
        assert judged(merge, before, [(REOPEN, one) for one in after], read()) == proof

    @pytest.mark.parametrize(
        ("base", "now", "step", "flushed"),
        [
            ("raw", read(), REOPEN, True),
            ("raw", read(read_only=True), REOPEN, None),
            ("raw", samples.guest(), REOPEN, None),  # by the XML alone
            ("raw", read(read_only=True), SYNC, True),
            ("qcow2", read(read_only=True), REOPEN, True),
        ],
    )
    def test_qemu_flushes_nothing_below_a_raw_file_that_it_only_reads(
        self, base: str, now: Disks, step: Step, flushed: bool | None
    ) -> None:
        merge = plan("volume-1", base)
        assert judged(merge, NOTHING, [(step, FLUSHED)], now).flushed is flushed

    def test_raw_file_without_a_node_of_its_own(self) -> None:
        base = replace(COMMIT.written, node=COMMIT.written.protocol_node)
        merge = replace(COMMIT, base=base)
        assert judged(merge, NOTHING, [(REOPEN, FLUSHED)], read(read_only=True)) == FLUSHED


class TestCheck:
    """Where the acts that were planned do not tell, others are taken, until one does."""

    def checked(
        self,
        *answers: object,
        merge: MergePlan = COMMIT,
        before: Evidence = NOTHING,
        after: Disk | None = None,
    ) -> tuple[str | None, int]:
        left = list(answers)

        class Answers(FakeGuest):
            def take(self, step: Step) -> object:
                answer = left.pop(0)
                if isinstance(answer, BaseException):
                    raise answer
                return answer

        start = Step(does=Does.START, by="qmp", what="start")
        steps = MergeSteps(
            job="j", start=start, cancel=start, otherwise=tuple((REOPEN,) for _ in answers)
        )
        after = after or samples.disk(3, layers=samples.linked(merge.remaining))
        fake = Answers(samples.guest())
        said = check_flushed(fake, merge, steps, before, [], read(), after)
        return said, len(answers) - len(left)

    def test_none_is_needed(self) -> None:
        assert self.checked("", before=FLUSHED) == (None, 0)

    def test_until_one_tells(self) -> None:
        assert self.checked("no", "", "") == (None, 2)

    def test_none_tells(self) -> None:
        why = "whether all of volume-1 is on the disk is not certain"
        assert self.checked() == (f"{why}: nothing tells whether it was flushed", 0)
        assert self.checked("no") == (f"{why}: no", 1)

    def test_failed(self) -> None:
        with pytest.raises(NotFlushed, match=r"volume-1 holds all data now, but .* no"):
            self.checked("no", "Error flushing drive: no")

    def test_failed_before(self) -> None:
        with pytest.raises(NotFlushed, match="no space"):
            self.checked("", before=FAILED)

    def test_mirror_has_seen_to_it(self) -> None:
        mirror = replace(COMMIT, kind="active-commit")
        assert self.checked("no", merge=mirror) == (None, 0)

    def test_chain_that_is_not_as_planned(self) -> None:
        """That is told by itself."""
        assert self.checked("no", after=samples.disk(3)) == (None, 0)
