"""A merge of a guest in memory: what each outcome and each interruption becomes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qmpsnap.errors import QmpsnapError, Unknown
from qmpsnap.formats.layers import Disk, DiskNotFound, Disks
from qmpsnap.formats.verdict import Verdict
from qmpsnap.guests.reader import TornReading
from qmpsnap.monitor.base import (
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    LostInMidCommand,
    LostWhileReading,
)
from qmpsnap.operations import merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobFailed, JobStatus, JobView
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    Interrupted,
    OutcomeUnknown,
    Result,
    StoppedByChange,
    XmlBehind,
)
from qmpsnap.operations.plan_merge import NotInChain
from qmpsnap.operations.requests import (
    DeleteRequest,
    NamedDeleteRequest,
)
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.unchanged import GraphChanged
from tests.unit import samples
from tests.unit.fake_guest import CONCLUDED, FakeGuest, with_layers

COMMIT = DeleteRequest(disk="1", file_to_merge="volume-1.s1", merge_target_file="volume-1")
ACTIVE = DeleteRequest(disk="1", file_to_merge="volume-1.s2", merge_target_file="volume-1")
PULL = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
PULL_TO = DeleteRequest(disk="1", file_to_merge="volume-1", merge_target_file=None)
MERGES = (COMMIT, ACTIVE, PULL, PULL_TO)

GONE = [
    ConnectionLost("query-jobs", "gone"),
    LostInMidCommand("query-jobs", "gone"),
    CommandTimedOut("query-jobs", 30),
    LostWhileReading("gone"),
    DiskNotFound("vda", ()),
    TornReading(10, "a job changed its state"),
    CommandFailed("job-finalize", "GenericError", "no"),
]


def guest(*views: JobView, depth: int = 3, base: str = "raw") -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(depth, base=base)), *views)


def view(status: str, error: str | None = None) -> JobView:
    return JobView(status=JobStatus(status), error=error)


def deleted(fake: FakeGuest, request: DeleteRequest = COMMIT) -> Result:
    return merge.delete(fake, request, poll_s=0)


def test_fake_is_a_guest() -> None:
    fake: Guest = guest()
    assert fake.read() == samples.guest(samples.disk(3))


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
        with pytest.raises(HeaderWrong, match="still names a backing file"):
            deleted(fake, PULL)

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

    def test_pivot_that_came_too_early_is_tried_again(self) -> None:
        fake = guest(view("ready"), view("ready"), view("ready"), view("ready"), CONCLUDED)
        fake.pivots = [False, False, True]
        deleted(fake, ACTIVE)
        assert fake.calls.count("commit") == 3

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


class TestInterrupted:
    @pytest.mark.parametrize("step", ["start", "view", "wait", "commit", "dismiss", "close"])
    def test_ctrl_c(self, step: str) -> None:
        fake = guest(view("pending"), CONCLUDED)
        fake.fails[step] = KeyboardInterrupt()
        with pytest.raises(Interrupted, match=r"the commit of volume-1\.s1 goes on") as caught:
            deleted(fake)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")

    def test_ctrl_c_before_the_job_is_no_job_that_goes_on(self) -> None:
        fake = guest()
        fake.fails_at_look["neighbours"] = 1
        with pytest.raises(KeyboardInterrupt):
            deleted(fake)
        assert "start" not in fake.calls

    def test_ctrl_c_when_a_job_is_taken_up(self) -> None:
        fake = guest()
        fake.left_running, fake.fails["follow"] = True, KeyboardInterrupt()
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
        fake = guest(view("ready"))
        fake.fails["commit"] = KeyboardInterrupt()
        with pytest.raises(Interrupted):
            deleted(fake, ACTIVE)

    def test_ctrl_c_before_anything_was_started(self) -> None:
        fake = guest()
        fake.fails["read"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            deleted(fake)

    def test_same_command_again_finishes_it(self) -> None:
        fake = guest(view("running"))
        fake.fails["wait"] = KeyboardInterrupt()
        with pytest.raises(Interrupted):
            deleted(fake)
        fake.fails.clear()
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
