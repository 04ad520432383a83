"""A merge of a guest in memory: what each outcome and each interruption becomes."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError, Unknown
from qmpsnap.formats.layers import Disk, DiskNotFound, Disks
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph.nodes import Edge, Graph, Node
from qmpsnap.guests.files.content import CannotVerify
from qmpsnap.guests.files.door import FileFailed
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.guests.reader import TornReading
from qmpsnap.monitor.base import (
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    LostInMidCommand,
    LostWhileReading,
)
from qmpsnap.operations import merge
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Guest, MergeSteps, NotFlushed, State
from qmpsnap.operations.job.states import JobFailed, JobReport, JobStatus, JobView
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    GivenUp,
    HeaderWrong,
    Interrupted,
    OutcomeUnknown,
    Result,
    StoppedByChange,
    XmlBehind,
)
from qmpsnap.operations.plan_merge import MergePlan, NotInChain, plan_delete
from qmpsnap.operations.proof import ContentDiffers
from qmpsnap.operations.requests import (
    DeleteRequest,
    NamedDeleteRequest,
)
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.unchanged import GraphChanged
from qmpsnap.operations.volume import VolumeLayer
from tests.unit import samples
from tests.unit.fake_guest import CONCLUDED, FakeGuest, report, step, with_layers

COMMIT = DeleteRequest(disk="1", file_to_merge="volume-1.s1", merge_target_file="volume-1")
ACTIVE = DeleteRequest(disk="1", file_to_merge="volume-1.s2", merge_target_file="volume-1")
PULL = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
PULL_TO = DeleteRequest(disk="1", file_to_merge="volume-1", merge_target_file=None)
MERGES = (COMMIT, ACTIVE, PULL, PULL_TO)

FORBIDDEN = CommandFailed("block_resize", "GenericError", "Permission conflict on node 'a'")
GONE = [
    ConnectionLost("query-jobs", "gone"),
    LostInMidCommand("query-jobs", "gone"),
    CommandTimedOut("query-jobs", 30),
    LostWhileReading("gone"),
    DiskNotFound("vda", ()),
    TornReading(10, "a job changed its state"),
    CommandFailed("job-finalize", "GenericError", "no"),
]


def guest(*views: JobView, depth: int = 3, base: str = "raw", **changes: Any) -> FakeGuest:
    """A guest with one disk, whose layers have these changes."""
    disk = samples.disk(depth, base=base)
    for position in range(depth) if changes else ():
        disk = samples.changed_layer(disk, position, **changes)
    return FakeGuest(samples.guest(disk), *views)


def view(status: str, error: str | None = None) -> JobView:
    return JobView(status=JobStatus(status), error=error)


def deleted(fake: FakeGuest, request: DeleteRequest = COMMIT) -> Result:
    return merge.delete(fake, request, poll_s=0)


def test_fake_is_a_guest() -> None:
    fake: Guest = guest()
    assert fake.read() == samples.guest(samples.disk(3))


def graph(upper: str, lower: str, other: str) -> Graph:
    nodes = {name: Node(name=name, driver="qcow2", filename="") for name in (upper, lower, other)}
    return Graph(devices=(), nodes=nodes, edges=(Edge(parent=upper, child=lower, role="file"),))


def lagging(guest: Disks, **changes: Any) -> Disks:
    """libvirt's XML has not followed yet."""
    disk = replace(guest.disks[0], **(changes or {"xml_differs": "libvirt sees less"}))
    return replace(guest, disks=(disk,))


class TestDelete:
    @pytest.mark.parametrize(
        ("request_", "files", "formats", "dropped"),
        [
            (COMMIT, ["volume-1.s2", "volume-1"], {"volume-1": "raw"}, ["volume-1.s1"]),
            (ACTIVE, ["volume-1"], {"volume-1": "raw"}, ["volume-1.s2", "volume-1.s1"]),
            (PULL, ["volume-1.s2"], {"volume-1.s2": "qcow2"}, ["volume-1.s1", "volume-1"]),
            (
                PULL_TO,
                ["volume-1.s2", "volume-1"],
                {"volume-1.s2": "qcow2", "volume-1": "raw"},
                ["volume-1.s1"],
            ),
        ],
    )
    def test_done(
        self,
        request_: DeleteRequest,
        files: list[str],
        formats: dict[str, str],
        dropped: list[str],
    ) -> None:
        fake = guest(view("running"), CONCLUDED)
        result = deleted(fake, request_)
        assert samples.files(result.disk) == files
        assert result.file_format == formats
        assert result.dropped == tuple(f"/share/{name}" for name in dropped)
        assert (result.held, result.notes) == ((), ())
        look, end = ["wait", "view", "wait", "view", "settled"], ["dismiss", "close", "read"]
        assert fake.calls == ["read", "read", "follow", "start", *look, *end]

    def test_snapshot_by_name(self) -> None:
        result = merge.delete(guest(), NamedDeleteRequest(disk="vda", snapshot="s1"))
        assert samples.files(result.disk) == ["volume-1.s2", "volume-1"]

    @pytest.mark.parametrize("depth", range(2, 9))
    def test_snapshots_one_after_the_other(self, depth: int) -> None:
        fake = guest(depth=depth)
        for number in range(1, depth):
            merge.delete(fake, NamedDeleteRequest(disk="vda", snapshot=f"s{number}"))
        assert samples.files(fake.guest.disks[0]) == ["volume-1"]

    def test_file_that_the_guest_still_has_open_is_not_called_dropped(self) -> None:
        fake = guest()
        fake.guest = replace(fake.guest, open_files=frozenset({"/share/volume-1.s1"}))
        result = deleted(fake, ACTIVE)
        assert result.dropped == ("/share/volume-1.s2",)
        assert result.held == ("/share/volume-1.s1",)

    def test_refused_plan_touches_nothing(self) -> None:
        fake = guest()
        with pytest.raises(NotInChain):
            deleted(fake, replace(COMMIT, file_to_merge="gone"))
        assert fake.calls == ["read"]

    @pytest.mark.parametrize("request_", MERGES)
    def test_running_job_of_the_same_plan_is_taken_up(self, request_: DeleteRequest) -> None:
        fake = guest()
        fake.left_running = True
        assert deleted(fake, request_).file_format
        assert "start" not in fake.calls

    def test_job_that_cannot_be_started(self) -> None:
        fake = guest()
        fake.fails["start"] = CommandFailed("block-commit", "GenericError", "no")
        with pytest.raises(CommandFailed) as caught:
            deleted(fake)
        assert caught.value.changed == "no"
        assert "view" not in fake.calls

    def test_progress(self) -> None:
        seen: list[JobView] = []
        views = [view("created"), replace(view("running"), current=1, total=2), CONCLUDED]
        merge.delete(guest(*views), COMMIT, lambda _plan, now: seen.append(now))
        assert seen == views

    @pytest.mark.parametrize("request_", MERGES)
    @pytest.mark.parametrize("status", ["concluded", "null"])
    def test_error_is_a_failure_and_the_chain_is_as_it_was(
        self, status: str, request_: DeleteRequest
    ) -> None:
        fake = guest(view("aborting"), view(status, "No space left on device"))
        with pytest.raises(JobFailed, match="No space left on device") as caught:
            deleted(fake, request_)
        assert (caught.value.exit_code, caught.value.changed) == (5, "no")
        assert caught.value.chain == "volume-1 <- volume-1.s1 <- volume-1.s2"
        assert fake.calls[-4:] == ["view", "settled", "dismiss", "read"]

    @pytest.mark.parametrize("request_", MERGES)
    def test_end_without_an_error_is_no_success_when_the_graph_is_the_old_one(
        self, request_: DeleteRequest
    ) -> None:
        """A cancel after READY looks just like a success."""
        fake = guest()
        fake.is_merged = False
        with pytest.raises(JobFailed, match="nothing was merged") as caught:
            deleted(fake, request_)
        assert caught.value.exit_code == 5

    @pytest.mark.parametrize("request_", MERGES)
    def test_job_that_somebody_else_dismissed(self, request_: DeleteRequest) -> None:
        assert deleted(guest(view("null")), request_).file_format

    @pytest.mark.parametrize(
        "found", [samples.disk(1, base="qcow2"), samples.disk(2), samples.disk(5)]
    )
    def test_chain_that_is_neither_the_old_nor_the_new_one(self, found: Disk) -> None:
        fake = guest(depth=4)
        fake.readings = [samples.guest(found)]
        with pytest.raises(ChainUnexpected, match="should be volume-1 <- ") as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (1, "yes")

    def test_disk_that_is_gone_afterwards(self) -> None:
        fake = guest()
        fake.readings = [Disks(guest=None, disks=())]
        with pytest.raises(QmpsnapError):
            deleted(fake)


class TestHeaderAfterDelete:
    FAULTS = (
        {"backing_format": None},
        {"backing_format": "qcow2"},
        {"backing_format": "file"},
        {"backing_name": None},
        {"backing_name": "other"},
        {"backing_name": "/share/volume-1"},
    )

    @pytest.mark.parametrize("fault", FAULTS)
    @pytest.mark.parametrize("request_", [COMMIT, PULL_TO])
    def test_that_is_wrong_is_mended(
        self, request_: DeleteRequest, fault: dict[str, str | None]
    ) -> None:
        fake = self.found(1, **fault)
        done = deleted(fake, request_)
        (repaired,) = done.repaired
        assert repaired.startswith("the header of volume-1.s2: it ")
        assert repaired.endswith("now it names volume-1 (raw)")
        assert (done.disk.layers[0].backing_name, done.disk.layers[0].backing_format) == (
            "volume-1",
            "raw",
        )
        assert fake.calls.count("start") == 2

    @pytest.mark.parametrize("request_", [COMMIT, PULL_TO])
    def test_that_stays_wrong(self, request_: DeleteRequest) -> None:
        fake = self.found(2, backing_format="qcow2")
        with pytest.raises(HeaderWrong, match="records the format 'qcow2', not 'raw'") as caught:
            deleted(fake, request_)
        assert (caught.value.exit_code, caught.value.changed) == (1, "yes")
        command = "qemu-img rebase -u -f qcow2 -b volume-1 -F raw /share/volume-1.s2"
        assert command in caught.value.way_out

    def test_that_says_the_same_in_other_words_is_left_alone(self) -> None:
        fake = self.found(1, backing_name="./volume-1")
        assert deleted(fake).repaired == ()

    def test_witnesses_that_contradict_each_other_about_the_base(self) -> None:
        fake = guest()
        upper, _, lower = samples.disk(3).layers
        lower = replace(lower, verdict=Verdict.CONFLICT)
        fake.readings = [with_layers(fake.guest, samples.linked([upper, lower]))] * 2
        with pytest.raises(HeaderWrong, match="of which qmp says raw"):
            deleted(fake)

    def test_of_what_an_active_commit_makes_active_is_mended(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, backing_format=None)
        fake = FakeGuest(samples.guest(disk))
        *_, lower = samples.linked(disk.layers)
        middle = replace(disk.layers[1], backing_format=None)
        fake.readings = [with_layers(fake.guest, [middle, lower])]
        request = replace(ACTIVE, file_to_merge="volume-1.s2", merge_target_file="volume-1.s1")
        (repaired,) = deleted(fake, request).repaired
        assert "the header of volume-1.s1: it records no backing format" in repaired

    def test_that_still_names_a_backing_file_after_a_whole_pull(self) -> None:
        fake = guest()
        only = replace(samples.disk(3).layers[0], backing_name="volume-1.s1")
        fake.readings = [with_layers(fake.guest, [only])]
        with pytest.raises(HeaderWrong, match="still names a backing file") as caught:
            deleted(fake, PULL)
        command = "qemu-img rebase -u -f qcow2 -b '' /share/volume-1.s2"
        assert command in caught.value.way_out

    @pytest.mark.parametrize(("read_only", "taken"), [(True, False), (False, True), (None, True)])
    def test_layer_that_stays_open_for_writing_is_opened_again(
        self, read_only: bool | None, taken: bool
    ) -> None:
        """QEMU does that by itself at the end of a stream, but not 10.0.13 and 11.1.3."""
        fake = self.found(1, backing_format=None)
        fake.header_settles = (step(Does.FLUSH), step(Does.REOPEN))
        if read_only is not None:
            node = Node(name="volume-1.s2-node", driver="qcow2", filename="", read_only=read_only)
            seen = Graph(devices=(), nodes={node.name: node}, edges=())
            fake.guest = replace(fake.guest, graph=seen)
        assert deleted(fake).repaired
        assert ("reopen" in fake.calls) == taken
        assert "flush" in fake.calls

    def test_layer_that_nobody_can_open_again_is_told(self) -> None:
        fake = self.found(1, backing_format=None)
        fake.header_settles = (step(Does.REOPEN, "blockdev-reopen"),)
        fake.fails["reopen"] = CommandFailed("blockdev-reopen", "CommandNotFound", "unknown")
        (repaired,) = deleted(fake).repaired
        assert "; blockdev-reopen of volume-1.s2: QEMU refused blockdev-reopen: unknown" in repaired

    @pytest.mark.parametrize("whose", ["this one's", "another's"])
    def test_another_job_is_in_the_way_only_where_it_has_the_same_name(self, whose: str) -> None:
        """Under libvirt a job is called by its disk."""
        fake = self.found(1, backing_format=None)
        job = report(type_="backup", view=view("running"))
        job = replace(job, disk="vdb", id=job.id if whose == "this one's" else "other")
        fake.reports = [(), (job,)]
        if whose == "another's":
            assert deleted(fake).repaired
        else:
            with pytest.raises(HeaderWrong, match="another job is running"):
                deleted(fake)

    def test_interrupted_while_the_header_is_written(self) -> None:
        """It takes a moment, so it is seen to its end first."""
        fake = self.found(1, backing_format=None)
        calls = fake.calls
        fake.interrupts["wait"] = 1
        fake.views = [CONCLUDED, view("running"), view("running"), CONCLUDED]
        done = deleted(fake)
        assert done.repaired
        assert calls.count("start") == 2

    def test_lowest_file_that_names_one_which_is_not_open(self) -> None:
        """`backing: null`: whoever started the guest so has meant it."""
        disk = samples.changed_layer(samples.disk(3), 2, backing_name="gone")
        fake = FakeGuest(samples.guest(disk))
        fake.readings = [with_layers(fake.guest, [disk.layers[2]])]
        assert deleted(fake, ACTIVE).file_format == {"volume-1": "raw"}

    def test_active_commit_changes_no_header(self) -> None:
        fake = guest()
        only = replace(samples.disk(3).layers[2], evidence=())
        fake.readings = [with_layers(fake.guest, [only])]
        assert deleted(fake, ACTIVE).file_format == {"volume-1": "raw"}

    def found(self, times: int, **changes: Any) -> FakeGuest:
        """So often a reading after the merge shows the upper header like this."""
        fake = guest()
        upper, _, lower = samples.disk(3).layers
        upper, lower = samples.linked([upper, lower])
        fake.readings = [with_layers(fake.guest, [replace(upper, **changes), lower])] * times
        return fake


class TestSteps:
    def test_ready_pivots_once(self) -> None:
        fake = guest(view("running"), view("ready"), view("ready"), view("standby"), CONCLUDED)
        deleted(fake, ACTIVE)
        assert fake.calls.count("commit") == 1

    def test_pending_is_flushed_and_finalized_once(self) -> None:
        fake = guest(view("waiting"), view("pending"), view("pending"), CONCLUDED)
        fake.flushes = True
        deleted(fake)
        assert [one for one in fake.calls if one in ("flush", "commit")] == ["flush", "commit"]

    def test_something_must_happen_to_a_job_before_it_is_looked_at(self) -> None:
        looks = ["created", "running", "paused", "ready", "waiting", "pending", "aborting"]
        fake = guest(*(view(status) for status in looks), CONCLUDED)
        deleted(fake)
        while_it_ran = [one for one in fake.calls if one in ("start", "wait", "view")]
        assert while_it_ran == ["start", *["wait", "view"] * (len(looks) + 1)]

    def test_a_job_that_is_taken_up_is_looked_at_first(self) -> None:
        fake = guest(view("running"), CONCLUDED)
        fake.left_running = True
        deleted(fake)
        assert fake.calls[1:5] == ["follow", "view", "wait", "view"]

    def test_error_is_read_before_the_job_is_dismissed(self) -> None:
        fake = guest(view("concluded", "no space"))
        with pytest.raises(JobFailed):
            deleted(fake)
        assert fake.calls.index("view") < fake.calls.index("dismiss")

    def test_left_overs_are_settled_before_the_graph_is_read(self) -> None:
        fake = guest()
        deleted(fake)
        assert fake.calls[-2:] == ["close", "read"]


class TestSomebodyElse:
    """Every step checks that the graph is still the one that the plan was made from."""

    def test_took_a_snapshot_before_the_start(self) -> None:
        fake = guest()
        fake.meanwhile["neighbours"] = samples.guest(samples.disk(4))
        with pytest.raises(GraphChanged, match=r"is volume-1 .*s3, and was") as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")
        assert "start" not in fake.calls

    @pytest.mark.parametrize(
        ("request_", "status"), [(COMMIT, "pending"), (PULL, "pending"), (ACTIVE, "ready")]
    )
    def test_took_a_snapshot_while_it_copied(self, request_: DeleteRequest, status: str) -> None:
        fake = guest(view("running"), view(status))
        fake.meanwhile["view"] = samples.guest(samples.disk(4))
        with pytest.raises(StoppedByChange, match=r"The chain is .*volume-1\.s3") as caught:
            deleted(fake, request_)
        assert (caught.value.exit_code, caught.value.changed) == (5, "no")
        assert "commit" not in fake.calls
        assert fake.calls[-6:] == ["cancel", "wait", "view", "settled", "dismiss", "read"]

    def test_came_too_late_to_be_kept_out(self) -> None:
        """The cancel met a job that had already ended: the graph tells what is there now."""
        fake = guest(view("pending"))
        *upper, merged, base = samples.disk(4).layers
        fake.meanwhile["view"] = with_layers(fake.guest, [*upper, merged, base])
        fake.cancelled, fake.can_cancel = [CONCLUDED], False
        fake.readings = [with_layers(fake.guest, [*upper, base])]
        with pytest.raises(ChainUnexpected, match=r"the chain is volume-1 <- volume-1\.s2 <-"):
            deleted(fake)


class TestSettling:
    """What is done after the job, and what becomes of it when QEMU does not want it."""

    def pulled(self, resize: BaseException, said: object) -> Result:
        class Refuses(FakeGuest):
            def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
                resize, hmp = step(Does.FLUSH, "block_resize"), step(Does.FLUSH, "hmp")
                steps = super().merge(plan, options, state)
                return replace(steps, settle=(resize,), otherwise=((hmp,),))

            def take(self, step: Step) -> object:
                if step.what == "block_resize":
                    raise resize
                if step.what == "hmp" and isinstance(said, BaseException):
                    raise said
                return said if step.what == "hmp" else super().take(step)

        return deleted(Refuses(samples.guest(samples.disk(3))), PULL)

    def test_flush_by_hmp_stands_where_another_user_forbids_a_resize(self) -> None:
        done = self.pulled(FORBIDDEN, "")
        assert done.file_format == {"volume-1.s2": "qcow2"}
        assert done.dropped == ("/share/volume-1.s1", "/share/volume-1")

    @pytest.mark.parametrize(
        "said",
        [
            CommandFailed("human-monitor-command", "CommandNotFound", "no HMP"),
            CommandFailed("human-monitor-command", "GenericError", "no"),
            "Cannot change the option 'x'",
        ],
    )
    def test_flush_of_which_nothing_is_told_releases_nothing(self, said: object) -> None:
        done = self.pulled(FORBIDDEN, said)
        assert done.dropped == ()
        assert done.held == ("/share/volume-1.s1", "/share/volume-1")
        assert any("volume-1.s2 is on the disk is not certain" in note for note in done.notes)

    @pytest.mark.parametrize(
        ("resize", "said"),
        [
            (FORBIDDEN, "Error flushing drive: Input/output error\r\n"),
            (CommandFailed("block_resize", "GenericError", "Input/output error"), ""),
        ],
    )
    def test_flush_that_failed_is_no_success(self, resize: BaseException, said: object) -> None:
        with pytest.raises(NotFlushed, match=r"volume-1\.s2 holds all data") as caught:
            self.pulled(resize, said)
        assert (caught.value.exit_code, caught.value.changed) == (1, "yes")

    def test_node_that_qemu_does_not_let_go_is_told_once(self) -> None:
        """What it reads stays open because of it; what has gone by itself is no news."""
        names = ("a", "b", "gone")
        upper, middle, lower = samples.disk(3).layers
        disk = samples.disk(3, layers=(upper, replace(middle, nodes=names), lower))
        fake = FakeGuest(replace(samples.guest(disk), graph=graph("a", "b", "x")))
        fake.settles = tuple(step(Does.CLOSE, **{"node-name": name}) for name in names)
        fake.fails["close"] = CommandFailed("blockdev-del", "GenericError", "Node is in use")
        assert deleted(fake).notes == ("node a of volume-1.s1 stays open: Node is in use",)

    @pytest.mark.parametrize("step", ["dismiss", "close"])
    def test_what_is_not_possible_any_more_is_done_already(self, step: str) -> None:
        fake = guest()
        fake.fails[step] = NotNow(step, "no such job")
        assert deleted(fake).notes == ()

    def test_bandwidth_that_comes_too_late(self) -> None:
        fake = guest(view("pending"), CONCLUDED)
        fake.left_running = True
        fake.fails["speed"] = CommandFailed("block-job-set-speed", "GenericError", "pending")
        options = MergeOptions(bandwidth=8)
        assert merge.delete(fake, COMMIT, poll_s=0, options=options).file_format
        assert "speed" in fake.calls


class TestOff:
    """A guest that is off: its chain is held, and its definition changes with the chain."""

    def off(self, *views: JobView) -> FakeGuest:
        fake = guest(*views)
        fake.is_off = True
        return fake

    def test_done(self) -> None:
        fake = self.off()
        deleted(fake)
        job = ["follow", "start", "wait", "view", "settled", "dismiss", "close"]
        assert fake.calls == ["read", "hold", "read", *job, "redefine", "read", "release"]

    def test_a_job_that_failed_changes_no_definition(self) -> None:
        fake = self.off(view("concluded", "no"))
        with pytest.raises(JobFailed):
            deleted(fake)
        assert fake.calls[-3:] == ["dismiss", "read", "release"]

    def test_chain_that_cannot_be_held(self) -> None:
        fake = self.off()
        fake.fails["hold"] = CommandFailed("open-chain", "", "locked")
        with pytest.raises(CommandFailed, match="locked"):
            deleted(fake)
        assert fake.calls == ["read", "hold", "release"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), CommandFailed("x", "", "no")])
    def test_is_let_go_however_it_ends(self, error: BaseException) -> None:
        fake = self.off()
        fake.views = [view("running")]
        fake.fails["start"], fake.fails["release"] = error, CommandFailed("y", "", "second")
        with pytest.raises((GivenUp, CommandFailed, KeyboardInterrupt)) as caught:
            deleted(fake)
        assert "second" not in str(caught.value)
        assert fake.calls[-1] == "release"

    def test_what_is_left_to_do_for_a_job_that_is_there(self) -> None:
        fake = self.off()
        steps = fake.merge(plan_delete(fake.guest, COMMIT), MergeOptions(), State(run="off"))
        words = [one.does for one in merge.remaining(steps, report(type_="commit", view=CONCLUDED))]
        assert words == ["hold", "dismiss", "close", "redefine", "release"]
        failed = report(type_="commit", view=view("concluded", "no"))
        assert merge.remaining(steps, failed) == (steps.dismiss,)
        assert merge.remaining(replace(steps, dismiss=None), failed) == ()


def test_definition_ends_above_before_the_job_begins() -> None:
    fake = guest()
    fake.forgets = True
    deleted(fake)
    assert fake.calls.index("forget") == fake.calls.index("start") - 2
    assert fake.calls[fake.calls.index("forget") + 1] == "follow"


def test_two_devices_on_one_node_are_told() -> None:
    disk = samples.disk(3)
    fake = FakeGuest(samples.guest(disk, replace(disk, disk="vdb", serial="2", qdev="b")))
    request = replace(COMMIT, disk="vda")
    assert "vdb and vda are on one node: this changes all of them" in deleted(fake, request).notes


def test_a_flush_by_resizing_keeps_the_size_of_the_moment() -> None:
    """The disk may have grown since the plan; the guest would lose what it wrote behind it."""
    sizes = []

    class Heard(FakeGuest):
        def take(self, step: Step) -> object:
            sizes.extend([step.arguments["size"]] if "size" in step.arguments else [])
            return super().take(step)

    fake = Heard(samples.guest(samples.disk(3)))
    fake.settles = (step(Does.FLUSH, "block_resize", size=1),)  # as planned
    deleted(fake, PULL)
    assert sizes == [fake.guest.disks[0].layers[0].virtual_size]


class TestRemoval:
    """Only what the proof has released, and what is the volume's own."""

    def removed(self, fake: FakeGuest, request: DeleteRequest = PULL, **more: Any) -> Result:
        return merge.delete(fake, request, poll_s=0, remove=True, **more)

    def test_after_everything_else(self) -> None:
        fake = guest()
        result = self.removed(fake)
        assert result.removed == ("/share/volume-1.s1", "/share/volume-1")
        assert fake.calls[-4:] == ["close", "read", "remove", "remove"]

    def test_not_asked_for(self) -> None:
        fake = guest()
        assert deleted(fake).removed == ()
        assert "remove" not in fake.calls

    def test_nothing_when_what_is_read_differs(self) -> None:
        fake = guest()
        fake.run, fake.digests = "paused", ["aa", "bb"]
        with pytest.raises(ContentDiffers):
            self.removed(fake, verify=True)
        assert "remove" not in fake.calls

    def test_nothing_when_it_could_not_be_proven(self) -> None:
        """The merge is done all the same, and not refused."""

        class Unreadable(FakeGuest):
            def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
                if self.digested:
                    raise CannotVerify("volume-1", "it is locked")
                return super().digest(layers)

        fake = Unreadable(samples.guest(samples.disk(3)))
        fake.run, fake.digests = "paused", ["aa"]
        result = self.removed(fake, verify=True)
        assert result.notes[-1].startswith("not verified: the content of volume-1 cannot be read")
        assert (result.removed, "remove" in fake.calls) == ((), False)
        assert result.dropped == ("/share/volume-1.s1", "/share/volume-1")

    @pytest.mark.parametrize("error", [view("concluded", "no"), view("null", "no")])
    def test_nothing_when_the_job_failed(self, error: JobView) -> None:
        fake = guest(error)
        with pytest.raises(JobFailed):
            self.removed(fake)
        assert "remove" not in fake.calls

    @pytest.mark.parametrize("user", ["this guest", "another process"])
    def test_not_what_is_in_use(self, user: str) -> None:
        fake = guest()
        if user == "this guest":
            fake.guest = replace(fake.guest, open_files=frozenset({"/share/volume-1"}))
        else:
            fake.around = Surroundings(readers={"/share/volume-1": ("qemu (pid 7)",)})
        result = self.removed(fake)
        assert (result.removed, result.held) == (("/share/volume-1.s1",), ("/share/volume-1",))

    def test_what_could_not_be_looked_at_is_told(self) -> None:
        fake = guest()
        fake.around = Surroundings(notes=("7 processes of other users could not be looked at",))
        result = self.removed(fake)
        assert "7 processes of other users could not be looked at" in result.notes

    def test_what_was_taken_for_left_over_by_its_time_is_told(self) -> None:
        """Of every file that may have been written, but the active one; a pull writes no other."""
        fake = guest()
        images = {f"/share/{name}": (f"/share/on-{name}",) for name in samples.names(3)}
        fake.around = Surroundings(older=images)
        (note,) = deleted(fake, COMMIT).notes
        assert "only because volume-1 was written later: /share/on-volume-1; if" in note
        fake = guest()
        fake.around = Surroundings(older=images)
        assert deleted(fake, PULL).notes == ()

    def test_not_what_lies_in_another_folder(self) -> None:
        """A template, on which many volumes may rest."""
        disk = samples.changed_layer(samples.disk(3), 2, path="/template/volume-1")
        fake = FakeGuest(samples.guest(disk))
        result = self.removed(fake)
        assert result.removed == ("/share/volume-1.s1",)
        assert "/template/volume-1 was not removed: it is not in /share" in result.notes

    def test_not_what_is_not_verified(self) -> None:
        """It was begun by another call, so nothing is known of what was read before."""
        fake = guest()
        fake.left_running = True
        done = merge.delete(fake, COMMIT, verify=True, remove=True)
        assert done.notes[-1] == "not verified: it was begun by another call"
        assert (done.removed, "remove" in fake.calls) == ((), False)

    def test_not_what_is_no_file(self) -> None:
        """A logical volume lies in `/dev`, and its name there is not its own to remove."""
        device = ("device", 259, 0)
        fake = guest(identity=device)
        fake.identities = dict.fromkeys(
            ("/share/volume-1", "/share/volume-1.s1", "/share/volume-1.s2"), device
        )
        result = self.removed(fake)
        assert (result.removed, len(result.dropped)) == ((), 2)
        assert "/share/volume-1 was not removed: it is a block device" in result.notes

    def test_not_what_cannot_be_seen(self) -> None:
        """Whether it is the file that the guest had open is not known: so nobody may remove it."""
        fake = guest(flags=("not-seen",), sight="a proxy")
        result = self.removed(fake)
        assert (result.removed, result.dropped, len(result.held)) == ((), (), 2)
        seen = "whether the files of vda are those that the guest has open could not be seen"
        assert f"{seen} (a proxy): no file is removed" in result.notes
        assert any("/share/volume-1 was not removed: what the guest" in one for one in result.notes)
        assert "remove" not in fake.calls

    @pytest.mark.parametrize(
        ("error", "why"),
        [
            (FileFailed("remove", "x", "read-only"), "read-only"),
            (KeyboardInterrupt(), "interrupted"),
        ],
    )
    def test_file_that_stays_is_told(self, error: BaseException, why: str) -> None:
        fake = guest()
        fake.fails["remove"] = error
        result = self.removed(fake)
        assert (result.removed, len(result.dropped)) == ((), 2)
        assert all("was not removed" in note and why in note for note in result.notes)


class TestLocks:
    """One operation a disk at a time."""

    @pytest.mark.parametrize(
        ("request_", "locked"),
        [
            (COMMIT, ["volume-1", "volume-1.s2"]),
            (ACTIVE, ["volume-1"]),
            (PULL, ["volume-1.s2", "volume-1.s2"]),
        ],
    )
    def test_what_is_written_is_locked(self, request_: DeleteRequest, locked: list[str]) -> None:
        fake = guest()
        deleted(fake, request_)
        assert fake.claimed.taken == [f"/share/{name}" for name in locked]
        assert fake.claimed.kept == []

    def test_so_is_the_active_file_first_of_all(self) -> None:
        fake = guest(identity=("file", 1, 2))
        fake.claimed_by_others = {"/share/volume-1.s2"}
        with pytest.raises(DiskLocked):
            deleted(fake)
        assert fake.calls == ["read"]

    def test_base_that_another_one_writes(self) -> None:
        fake = guest()
        fake.claimed_by_others = {"/share/volume-1"}
        with pytest.raises(DiskLocked):
            deleted(fake)
        assert "start" not in fake.calls

    def test_what_may_be_removed_is_held(self) -> None:
        fake = guest()
        merge.delete(fake, COMMIT, poll_s=0, remove=True)
        assert fake.claimed.kept == ["/share/volume-1.s1"]

    def test_lock_that_is_not_as_it_should_be_is_said(self) -> None:
        fake = guest()
        fake.lock_notes = ("elsewhere",)
        assert "elsewhere" in deleted(fake).notes


class TestLeftOvers:
    """What a call that died in mid-step has left is cleared away before the plan is made."""

    def test_taken_and_read_again(self) -> None:
        fake = guest()
        fake.left_over = (step(Does.CLOSE), step(Does.DISMISS))
        deleted(fake)
        assert fake.calls[:5] == ["read", "close", "dismiss", "read", "read"]

    @pytest.mark.parametrize(
        "error", [NotNow("x", "gone"), CommandFailed("x", "GenericError", "in use")]
    )
    def test_that_are_in_use_after_all(self, error: QmpsnapError) -> None:
        class InUse(FakeGuest):
            def take(self, step: Step) -> object:
                if step.what == "left":
                    self.calls.append("left")
                    raise error
                return super().take(step)

        fake = InUse(samples.guest(samples.disk(3)))
        fake.left_over = (step(Does.CLOSE, "left"),) * 2
        assert deleted(fake).file_format
        assert fake.calls[:4] == ["read", "left", "left", "read"]

    def test_what_an_ended_job_came_to_is_told_by_the_next_call(self) -> None:
        fake = guest()
        failed = report(type_="stream", view=view("concluded", "no space"))
        done = replace(failed, id="b", view=view("concluded"))
        fake.reports = [(replace(failed, id="a"), done, replace(done, id="c", ours=False))]
        assert deleted(fake).notes == (
            "job a of an earlier call had ended: no space",
            "job b of an earlier call had ended: without an error",
        )


class TestJobOfThePlan:
    """By QMP its id follows from the plan; libvirt has one a disk, and tells a mirror's target."""

    def found(self, request: DeleteRequest, job: JobReport) -> bool:
        fake = guest()
        plan = plan_delete(fake.guest, request)
        steps = fake.merge(plan, MergeOptions(), State(run="running"))
        return merge.job_of(plan, steps, (job,)) is job

    @pytest.mark.parametrize(
        ("request_", "type_", "target", "expected"),
        [
            (COMMIT, "commit", None, True),
            (COMMIT, "commit", "/share/volume-1", False),
            (COMMIT, "stream", None, False),
            (ACTIVE, "commit", "/share/volume-1", True),
            (ACTIVE, "commit", "/share/volume-1.s1", False),
            (ACTIVE, "commit", None, False),
            (PULL, "stream", None, True),
            (PULL, "commit", None, False),
            (PULL_TO, "stream", None, True),
        ],
    )
    def test_under_libvirt(
        self, request_: DeleteRequest, type_: str, target: str | None, expected: bool
    ) -> None:
        job = replace(report(type_=type_, view=view("running")), ours=None, target=target)
        assert self.found(request_, job) == expected
        assert not self.found(request_, replace(job, id="vdb"))

    @pytest.mark.parametrize(("type_", "expected"), [("commit", True), ("stream", False)])
    def test_by_qmp(self, type_: str, expected: bool) -> None:
        job = report(type_=type_, view=view("running"))
        assert self.found(ACTIVE, job) == self.found(COMMIT, job) == expected
        assert self.found(PULL, job) != expected


DONE = "the interruption came when it was nearly done; it was finished"


class TestInterrupted:
    @pytest.mark.parametrize("step", ["start", "view", "wait"])
    def test_ctrl_c_while_it_copies(self, step: str) -> None:
        fake = guest(view("running"))
        fake.interrupts[step] = 1
        with pytest.raises(Interrupted, match=r"the commit of volume-1\.s1 goes on") as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")

    @pytest.mark.parametrize("step", ["start", "wait", "view"])
    @pytest.mark.parametrize("end", ["concluded", "null"])
    def test_ctrl_c_when_it_has_ended_unseen(self, step: str, end: str) -> None:
        """Nothing goes on in the guest, and the same command would find nothing to merge."""
        fake = guest(view(end))
        fake.interrupts[step] = 1
        result = deleted(fake)
        assert result.file_format == {"volume-1": "raw"}
        assert DONE in result.notes

    def test_ctrl_c_before_it_was_begun(self) -> None:
        fake = guest(view("null"))
        fake.is_merged, fake.interrupts["start"] = False, 1
        with pytest.raises(KeyboardInterrupt):
            deleted(fake)

    def test_ctrl_c_when_it_has_failed(self) -> None:
        fake = guest(view("concluded", "No space left on device"))
        fake.interrupts["wait"] = 1
        with pytest.raises(JobFailed, match="No space left"):
            deleted(fake)

    @pytest.mark.parametrize("step", ["commit", "dismiss", "close"])
    def test_ctrl_c_when_little_is_left(self, step: str) -> None:
        fake = guest(view("pending"), view("pending"), CONCLUDED)
        fake.interrupts[step] = 1
        result = deleted(fake)
        assert result.file_format == {"volume-1": "raw"}
        assert DONE in result.notes

    def test_ctrl_c_again_and_again_while_it_is_committed(self) -> None:
        fake = guest(view("pending"))
        fake.interrupts["commit"] = 2
        with pytest.raises(Interrupted):
            deleted(fake)

    @pytest.mark.parametrize("step", ["dismiss", "close"])
    def test_ctrl_c_again_and_again_when_the_job_has_ended(self, step: str) -> None:
        fake = guest(view("pending"), CONCLUDED)
        fake.interrupts[step] = 2
        with pytest.raises(OutcomeUnknown, match="again and again when its job had") as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")

    def test_ctrl_c_again_while_it_is_looked_at(self) -> None:
        fake = guest(view("running"))
        fake.interrupts["view"] = 2
        with pytest.raises(OutcomeUnknown, match="interrupted again and again"):
            deleted(fake)

    def test_ctrl_c_on_a_guest_that_is_off(self) -> None:
        """Its job ends with the call, so nothing goes on."""
        fake = guest(view("running"))
        fake.is_off, fake.interrupts["wait"] = True, 1
        with pytest.raises(
            GivenUp, match=r"was given up, .* volume-1\.s1 <- volume-1\.s2$"
        ) as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (6, "no")
        assert fake.calls[-1] == "release"

    def test_ctrl_c_before_the_job_is_no_job_that_goes_on(self) -> None:
        fake = guest()
        fake.fails_at_look["neighbours"] = 1
        with pytest.raises(KeyboardInterrupt):
            deleted(fake)
        assert "start" not in fake.calls

    def test_ctrl_c_when_a_job_is_taken_up(self) -> None:
        fake = guest(view("running"))
        fake.left_running, fake.interrupts["follow"] = True, 1
        with pytest.raises(Interrupted):
            deleted(fake)

    def test_ctrl_c_after_the_merge_hides_nothing(self) -> None:
        fake = guest()
        fake.fails_at_look["neighbours"] = 2
        result = deleted(fake, ACTIVE)
        assert (result.dropped, len(result.held)) == ((), 2)
        assert "the chain is not known: interrupted" in result.notes[-1]

    def test_ctrl_c_while_the_state_is_asked_for(self) -> None:
        fake = guest()
        fake.fails_at_look["state"] = 2
        assert deleted(fake).file_format == {"volume-1": "raw"}

    def test_ctrl_c_while_it_is_verified(self) -> None:
        fake = guest()
        fake.digests = ["same", "same"]
        fake.fails_at_look["digest"] = 2
        result = merge.delete(fake, COMMIT, poll_s=0, verify=True)
        assert result.notes[-1] == "not verified: interrupted"

    def test_ctrl_c_in_a_pivot(self) -> None:
        """It may have been carried out, so its end is awaited."""
        fake = guest(view("ready"), view("ready"), CONCLUDED)
        fake.interrupts["commit"] = 1
        assert DONE in deleted(fake, ACTIVE).notes

    def test_ctrl_c_before_anything_was_started(self) -> None:
        fake = guest()
        fake.fails["read"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            deleted(fake)

    def test_same_command_again_finishes_it(self) -> None:
        fake = guest(view("running"))
        fake.interrupts["wait"] = 1
        with pytest.raises(Interrupted):
            deleted(fake)
        fake.left_running, fake.views = True, [CONCLUDED]
        assert deleted(fake).file_format == {"volume-1": "raw"}
        assert fake.calls.count("start") == 1

    @pytest.mark.parametrize(
        ("step", "gone"),
        [
            (step, gone)
            for step in ("view", "wait", "commit", "dismiss", "close")
            for gone in GONE
            if step != "close" or not isinstance(gone, CommandFailed)  # that is a note
        ],
    )
    def test_guest_that_is_gone_in_mid_job(self, step: str, gone: QmpsnapError) -> None:
        fake = guest(view("pending"), CONCLUDED)
        fake.fails[step] = gone
        with pytest.raises(OutcomeUnknown, match=r"commit of volume-1\.s1") as caught:
            deleted(fake)
        assert isinstance(caught.value, Unknown)
        assert caught.value.__cause__ is gone
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")

    @pytest.mark.parametrize("gone", GONE)
    def test_guest_that_is_gone_before_the_last_reading(self, gone: QmpsnapError) -> None:
        class Dies(FakeGuest):
            def take(self, step: Step) -> object:
                if step.does is Does.CLOSE:
                    self.fails["read"] = gone
                return super().take(step)

        with pytest.raises(OutcomeUnknown):
            deleted(Dies(samples.guest(samples.disk(3))))

    def test_xml_that_follows_a_moment_later(self) -> None:
        fake = guest()
        merged = samples.guest(samples.disk(3, layers=(samples.disk(3).layers[2],)))
        fake.readings = [lagging(merged, mirror="active-commit"), lagging(merged)]
        assert deleted(fake, ACTIVE).disk.mirror is None

    def test_xml_that_never_follows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qmpsnap.operations.fresh.XML_LAG_S", 0.0)
        fake = guest()
        fake.readings = [lagging(fake.guest, mirror="active-commit")] * 100
        with pytest.raises(XmlBehind, match="it still shows a active-commit"):
            deleted(fake, ACTIVE)


def test_unknown_disk_is_refused() -> None:
    with pytest.raises(DiskNotFound) as caught:
        deleted(guest(), replace(COMMIT, disk="nope"))
    assert caught.value.exit_code == 4
