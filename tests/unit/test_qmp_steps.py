"""The direct road: exactly which QMP commands each operation is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.graph.nodes import Cache, Node
from qmpsnap.graph.opening import Opening
from qmpsnap.guests.files.steps import disk_steps
from qmpsnap.guests.qmp.names import job_id, named, opened_as, protocol_node_of
from qmpsnap.guests.qmp.steps import FilterInTheWay, FormatNotRecordable, QmpComposer
from qmpsnap.operations.guest import MergeSteps, Overlay, SnapshotSteps, State
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError
from qmpsnap.operations.plan_header import HeaderPlan, rewrite
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.unit import samples

STATE = State(run="running")
MASKS, MASKS_NOT = QmpComposer(lambda _: True), QmpComposer(lambda _: False)
BOTH = pytest.mark.parametrize("masks", [True, False])


def with_nodes(disk: Disk) -> Disk:
    """Each layer with the nodes that `-blockdev` gives it."""
    layers = (replace(one, nodes=(one.node or "", one.protocol_node or "")) for one in disk.layers)
    return replace(disk, layers=tuple(layers))


def plan(merge: str | None, target: str | None, disk: Disk | None = None) -> MergePlan:
    request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
    return plan_delete(samples.guest(disk or with_nodes(samples.disk(3))), request)


COMMIT = plan("volume-1.s1", "volume-1")
ACTIVE = plan("volume-1.s2", "volume-1")
PULL = plan(None, None)
PULL_TO = plan("volume-1", None)
PLANS = (COMMIT, ACTIVE, PULL, PULL_TO)


def id_of(plan: MergePlan) -> str:
    return job_id(plan.kind, plan.disk.disk, plan.top, plan.base)


def composed(
    plan: MergePlan,
    options: MergeOptions = DEFAULT_OPTIONS,
    *,
    masks: bool = False,
) -> MergeSteps:
    return QmpComposer(lambda _: masks).merge(plan, options, STATE)


def started(plan: MergePlan, options: MergeOptions = DEFAULT_OPTIONS) -> dict[str, Any]:
    return dict(composed(plan, options).start.arguments)


def sent(*steps: Step | None) -> list[tuple[str, dict[str, object]]]:
    return [(step.what, dict(step.arguments)) for step in steps if step is not None]


OPENED = Opening()


class TestNames:
    @pytest.mark.parametrize("merge", PLANS)
    def test_id_is_one_that_qemu_accepts(self, merge: MergePlan) -> None:
        # util/id.c: begins with a letter; letters, digits, '-', '.', '_'
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", id_of(merge))
        assert len(id_of(merge)) < 60

    def test_hostile_names_make_no_difference_to_that(self) -> None:
        hostile = '/share/"\n\udcff; quit'
        disk = samples.changed_layer(samples.disk(2), 0, path=hostile)
        assert re.fullmatch(r"qmpsnap-[a-z-]+-[0-9a-f]{12}", id_of(plan(None, None, disk)))
        assert re.fullmatch(r"qmpsnap-[0-9a-f]{12}bd", named(hostile, None, OPENED))

    def test_stay_the_same_from_release_to_release(self) -> None:
        """What an older qmpsnap left must be found by a newer one."""
        assert id_of(COMMIT) == "qmpsnap-commit-9afe65cfe0c3"
        assert named("/share/volume-1.new", "volume-1-node", OPENED) == "qmpsnap-385beca33b4ebd"

    def test_other_merges_have_other_ids(self) -> None:
        other = samples.disk(3, disk="vdb")
        lower = plan("volume-1.s2", "volume-1.s1")
        merges = [*PLANS, lower, plan("volume-1.s1", "volume-1", other)]
        assert len({id_of(one) for one in merges}) == len(merges)

    def test_sizes_and_node_names_do_not_count_for_a_job(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, node="#block1", virtual_size=2**40)
        assert id_of(plan("volume-1.s1", "volume-1", disk)) == id_of(COMMIT)

    def test_of_nodes_follow_from_path_and_active_node(self) -> None:
        places = [("/share/a", "x"), ("/share/b", "x"), ("/share/a", "y")]
        assert len({named(*place, OPENED) for place in places * 2}) == 3
        # BlockDriverState.node_name
        assert len(f"{named('/share/a', 'node', OPENED)}-format") < 32

    @pytest.mark.parametrize("discard", [False, True])
    @pytest.mark.parametrize("passed_on", [False, True])
    @pytest.mark.parametrize("aio", [None, "threads", "native", "io_uring"])
    def test_of_nodes_tell_how_they_were_opened(
        self, discard: bool, passed_on: bool, aio: str | None
    ) -> None:
        opening = Opening(discard=discard, passed_on=passed_on, aio=aio)
        assert opened_as(f"{named('/share/a', 'x', opening)}-format") == opening

    @pytest.mark.parametrize(
        "node",
        [
            "",
            "disk",
            "qmpsnap-385beca33b4e-format",
            "qmpsnap-385beca33b4eux-format",
            "qmpsnap-385beca33b4eud-file",
            "xqmpsnap-385beca33b4eud-format",
        ],
    )
    def test_of_other_nodes_do_not(self, node: str) -> None:
        assert opened_as(node) is None

    @pytest.mark.parametrize(
        ("node", "inner"),
        [("qmpsnap-1-format", "qmpsnap-1-file"), ("libvirt-1-format", None), (None, None)],
    )
    def test_of_the_protocol_node_of_an_overlay_of_ours(
        self, node: str | None, inner: str | None
    ) -> None:
        assert protocol_node_of(node) == inner


class TestStart:
    @BOTH
    def test_commit(self, masks: bool) -> None:
        expected: dict[str, object] = {
            "job-id": id_of(COMMIT),
            "device": "volume-1.s2-node",
            "top-node": "volume-1.s1-node",
            "base-node": "volume-1-node",
            "backing-file": "volume-1",
            "auto-finalize": False,
            "auto-dismiss": False,
        } | ({"backing-mask-protocol": True} if masks else {})
        assert sent(composed(COMMIT, masks=masks).start) == [("block-commit", expected)]

    @BOTH
    def test_active_commit_changes_no_header(self, masks: bool) -> None:
        expected: dict[str, object] = {
            "job-id": id_of(ACTIVE),
            "device": "volume-1.s2-node",
            "top-node": "volume-1.s2-node",
            "base-node": "volume-1-node",
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        assert sent(composed(ACTIVE, masks=masks).start) == [("block-commit", expected)]

    def test_pull_of_everything(self) -> None:
        expected: dict[str, object] = {
            "job-id": id_of(PULL),
            "device": "volume-1.s2-node",
            "auto-finalize": False,
            "auto-dismiss": False,
        }
        assert sent(composed(PULL, masks=True).start) == [("block-stream", expected)]

    @BOTH
    def test_pull_down_to_a_base(self, masks: bool) -> None:
        expected: dict[str, object] = {
            "job-id": id_of(PULL_TO),
            "device": "volume-1.s2-node",
            "base-node": "volume-1-node",
            "backing-file": "volume-1",
            "auto-finalize": False,
            "auto-dismiss": False,
        } | ({"backing-mask-protocol": True} if masks else {})
        assert sent(composed(PULL_TO, masks=masks).start) == [("block-stream", expected)]

    def test_argument_is_asked_for_of_the_very_command(self) -> None:
        composer = QmpComposer(lambda command: command == "block-stream")
        masked = [
            "backing-mask-protocol" in composer.merge(one, DEFAULT_OPTIONS, STATE).start.arguments
            for one in PLANS
        ]
        assert masked == [one is PULL_TO for one in PLANS]

    def test_filter_on_top_is_the_device(self) -> None:
        disk = samples.disk(3, root="throttle0")
        assert started(plan("volume-1.s1", "volume-1", disk))["device"] == "throttle0"

    def test_absolute_backing_name_stays_absolute(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 0, backing_name="/share/volume-1.s1")
        given = started(plan("volume-1.s1", "volume-1", disk))
        assert given["backing-file"] == "/share/volume-1"

    @pytest.mark.parametrize("plan_", PLANS)
    def test_wishes_are_given_to_qemu(self, plan_: MergePlan) -> None:
        given = started(plan_, MergeOptions(bandwidth=8, on_error=OnError.PAUSE, timeout_s=60))
        assert (given["speed"], given["on-error"]) == (8, "stop")
        assert started(plan_, MergeOptions(bandwidth=0))["speed"] == 0
        assert not {"speed", "on-error"} & started(plan_).keys()

    @pytest.mark.parametrize("plan_", PLANS)
    def test_is_not_sent_twice(self, plan_: MergePlan) -> None:
        assert not composed(plan_).start.again


class TestMerge:
    @pytest.mark.parametrize(
        ("merge", "node"),
        [(COMMIT, "volume-1-node"), (PULL, "volume-1.s2-node"), (PULL_TO, "volume-1.s2-node")],
    )
    def test_what_was_written_is_flushed_before_the_chain_changes(
        self, merge: MergePlan, node: str
    ) -> None:
        steps = composed(merge)
        assert sent(steps.flush, steps.commit) == [
            ("human-monitor-command", {"command-line": f"qemu-io {node} reopen"}),
            ("job-finalize", {"id": id_of(merge)}),
        ]

    @pytest.mark.parametrize("merge", [COMMIT, PULL])
    @pytest.mark.parametrize("word", ["on", "unmap"])
    def test_what_is_no_option_of_a_drives_node_is_given_again(
        self, merge: MergePlan, word: str
    ) -> None:
        node = Node(name="n", driver="qcow2", filename="f", detect_zeroes=True)
        details = replace(node, unmaps_zeroes=word == "unmap")
        written = replace(merge.written, node_details=details)
        changed = replace(merge, top=written) if merge is PULL else replace(merge, base=written)
        flush = composed(changed).flush
        assert flush is not None
        line = f'qemu-io {written.node} "reopen -o detect-zeroes={word}"'
        assert flush.arguments == {"command-line": line}
        assert composed(changed).otherwise[0][0] == flush

    def test_a_mirror_flushes_by_itself(self) -> None:
        steps = composed(ACTIVE)
        assert sent(steps.flush, steps.commit) == [("job-complete", {"id": id_of(ACTIVE)})]

    @pytest.mark.parametrize("merge", PLANS)
    def test_cancel_and_dismiss(self, merge: MergePlan) -> None:
        steps = composed(merge)
        job = {"id": id_of(merge)}
        assert steps.job == id_of(merge)
        assert sent(steps.cancel, steps.dismiss) == [("job-cancel", job), ("job-dismiss", job)]

    def test_pull_is_flushed_by_a_resize_to_the_same_size(self) -> None:
        steps = composed(PULL)
        assert sent(*steps.settle)[:2] == [
            ("job-dismiss", {"id": id_of(PULL)}),
            ("block_resize", {"node-name": "volume-1.s2-node", "size": samples.MIB}),
        ]
        assert steps.otherwise == ((steps.flush,), disk_steps(PULL))

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE])
    def test_commit_is_not(self, merge: MergePlan) -> None:
        steps = composed(merge)
        assert Does.FLUSH not in {step.does for step in steps.settle}

    def test_raw_file_is_flushed_below_its_node_when_the_job_has_ended(self) -> None:
        asked = [f"qemu-io volume-1-{node} reopen" for node in ("node", "file")]
        by_qemu, by_host = composed(COMMIT).otherwise
        assert [one.arguments["command-line"] for one in by_qemu] == asked
        assert by_host == disk_steps(COMMIT)
        assert composed(ACTIVE).otherwise == ()

    @pytest.mark.parametrize(
        ("merge", "files"),
        [
            (COMMIT, ["s1"]),
            (ACTIVE, ["s2", "s1"]),
            (PULL, ["s1", ""]),
            (PULL_TO, ["s1"]),
        ],
    )
    def test_nodes_that_leave_the_chain_are_closed_upper_ones_first(
        self, merge: MergePlan, files: Sequence[str]
    ) -> None:
        closed = [s.arguments["node-name"] for s in composed(merge).settle if s.does is Does.CLOSE]
        names = [f"volume-1.{file}".rstrip(".") for file in files]
        assert closed == [f"{name}-{what}" for name in names for what in ("node", "file")]

    def test_job_of_a_mirror_is_dismissed_last(self) -> None:
        """As long as it is there, it tells whose the nodes are that are to be closed."""
        assert [composed(one).settle[-1].does is Does.DISMISS for one in PLANS] == [
            one is ACTIVE for one in PLANS
        ]

    def test_nodes_that_go_by_themselves_are_not_closed(self) -> None:
        nodes = ("qmpsnap-1-format", "#block7", "qmpsnap-1-file")
        disk = samples.changed_layer(samples.disk(3), 1, node="qmpsnap-1-format", nodes=nodes)
        steps = composed(plan("volume-1.s1", "volume-1", disk)).settle
        assert sent(*steps)[1:] == [("blockdev-del", {"node-name": "qmpsnap-1-format"})]

    @pytest.mark.parametrize("merge", PLANS)
    def test_all_in_order(self, merge: MergePlan) -> None:
        steps = composed(merge)
        flush = () if steps.flush is None else (steps.flush,)
        assert steps.all == (steps.start, *flush, steps.commit, *steps.settle)


def over_protocol() -> Disk:
    """A raw base that is open without a raw node."""
    node = Node(name="volume-1-node", driver="file", filename="/share/volume-1")
    return samples.changed_layer(samples.disk(3), 2, node_details=node, protocol_node=None)


class TestRawNode:
    """Before QEMU 9.0 the driver's name would go into a header over a base without a raw node."""

    def test_not_needed_with_backing_mask_protocol(self) -> None:
        start = composed(plan("volume-1.s1", "volume-1", over_protocol()), masks=True).start
        assert start.arguments["base-node"] == "volume-1-node"

    def test_not_needed_where_no_header_changes(self) -> None:
        assert started(plan("volume-1.s2", "volume-1", over_protocol()))

    @pytest.mark.parametrize(("merge", "target"), [("volume-1.s1", "volume-1"), ("volume-1", None)])
    def test_refused(self, merge: str, target: str | None) -> None:
        with pytest.raises(FormatNotRecordable, match="'file' as the format of volume-1") as caught:
            composed(plan(merge, target, over_protocol()))
        assert caught.value.exit_code == 4


class TestHeader:
    """A header that is written again, by a stream that copies nothing."""

    def plan(
        self, position: int = 0, disk: Disk | None = None, *, read_only: bool = False
    ) -> HeaderPlan:
        disk = disk or with_nodes(samples.disk(3))
        node = disk.layers[position].node_details
        assert node is not None
        node = replace(node, read_only=read_only, cache=Cache(direct=True), detect_zeroes=True)
        disk = samples.changed_layer(disk, position, node_details=node)
        upper, lower = disk.layers[position : position + 2]
        return rewrite(disk, upper, lower, lower.file)

    @BOTH
    @pytest.mark.parametrize("position", [0, 1])
    def test_one_job_that_goes_by_itself(self, position: int, masks: bool) -> None:
        plan = self.plan(position)
        steps = QmpComposer(lambda _: masks).header(plan)
        expected: dict[str, object] = {
            "job-id": steps.job,
            "device": plan.top.node,
            "base-node": plan.base.node,
            "backing-file": plan.name,
            "auto-finalize": True,
            "auto-dismiss": True,
            **({"backing-mask-protocol": True} if masks else {}),
        }
        assert sent(*steps.all, steps.cancel) == [
            ("block-stream", expected),
            ("fsync", {"path": plan.top.path}),
            ("job-cancel", {"id": steps.job}),
        ]
        assert steps.job.startswith("qmpsnap-header-")

    def test_filter_that_it_would_take_out(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 1, top_node="throttle0")
        with pytest.raises(FilterInTheWay, match="throttle0"):
            MASKS.header(self.plan(0, disk))

    def test_header_that_would_say_file(self) -> None:
        with pytest.raises(FormatNotRecordable):
            MASKS_NOT.header(self.plan(1, over_protocol()))

    def test_layer_that_would_stay_open_for_writing_is_opened_again(self) -> None:
        steps = MASKS.header(self.plan(1, read_only=True))
        options = {
            "driver": "qcow2",
            "node-name": "volume-1.s1-node",
            "read-only": True,
            "cache": {"direct": True, "no-flush": False},
            "detect-zeroes": "on",
            "file": "volume-1.s1-file",
            "backing": "volume-1-node",
        }
        assert sent(steps.settle[-1]) == [("blockdev-reopen", {"options": [options]})]
        assert steps.settle[-1].does is Does.REOPEN


class TestSnapshot:
    def plan(self, **cache: bool) -> CreatePlan:
        request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
        made = plan_create(samples.guest(samples.disk(2)), request)
        node = made.active.node_details
        assert node is not None
        node = replace(node, cache=Cache(**cache), detect_zeroes=bool(cache))
        return replace(made, active=replace(made.active, node_details=node))

    def steps(self, *plans: CreatePlan) -> SnapshotSteps:
        overlays = [Overlay(is_there=False) for _ in plans]
        return MASKS_NOT.snapshot(samples.guest(), plans, overlays, STATE)

    @pytest.mark.parametrize(
        ("cache", "zeroes"),
        [({}, "off"), ({"direct": True}, "on"), ({"no_flush": True}, "on")],
    )
    def test_one_transaction(self, cache: dict[str, bool], zeroes: str) -> None:
        steps = self.steps(self.plan(**cache))
        name = named("/share/volume-1.new", "volume-1.s1-node", OPENED)
        given = {"direct": cache.get("direct", False), "no-flush": "no_flush" in cache}
        added = {
            "driver": "qcow2",
            "node-name": f"{name}-format",
            "cache": given,
            "discard": "ignore",
            "detect-zeroes": zeroes,
            "backing": None,
            "file": {
                "driver": "file",
                "node-name": f"{name}-file",
                "filename": "/share/volume-1.new",
                "cache": given,
                "discard": "unmap",
            },
        }
        data = {"node": "volume-1.s1-node", "overlay": f"{name}-format"}
        actions = [{"type": "blockdev-snapshot", "data": data}]
        assert sent(*steps.open, steps.switch, *steps.close) == [
            ("blockdev-add", added),
            ("transaction", {"actions": actions}),
            ("blockdev-del", {"node-name": f"{name}-format"}),
        ]
        assert [step.again for step in (*steps.open, steps.switch)] == [False, False]
        assert [step.what for made in steps.make for step in made] == ["make-overlay"]

    def test_several_disks_are_one_transaction(self) -> None:
        steps = self.steps(self.plan(), replace(self.plan(), overlay="/share/volume-2.new"))
        actions = steps.switch.arguments["actions"]
        assert isinstance(actions, list)
        opened = [step.arguments["node-name"] for step in steps.open]
        assert [one["data"]["overlay"] for one in actions] == opened
        assert [step.arguments["node-name"] for step in steps.close] == opened
        assert len({*opened}) == len(steps.make) == len(steps.discard) == 2


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        (Verb.CANCEL, ("job-cancel", {"id": "a"})),
        (Verb.PAUSE, ("job-pause", {"id": "a"})),
        (Verb.RESUME, ("job-resume", {"id": "a"})),
        (Verb.SET_SPEED, ("block-job-set-speed", {"device": "a", "speed": 8})),
    ],
)
def test_verbs(verb: Verb, step: tuple[str, dict[str, object]]) -> None:
    composed = MASKS_NOT.verb(verb, "a", 8)
    assert sent(composed) == [step]
    assert composed.does == ("speed" if verb is Verb.SET_SPEED else verb)


class TestEndedJobs:
    def job(self, status: str, type_: str = "commit", *, ours: bool = True) -> JobReport:
        view = JobView(status=JobStatus(status))
        id_ = f"{type_}-{status}"
        return JobReport(id=id_, type=type_, disk="vda", view=view, bandwidth=0, ours=ours)

    def test_streams_that_make_a_reading_dangerous_are_dismissed_before_it(self) -> None:
        jobs = [
            self.job("concluded", "stream"),
            self.job("concluded"),
            self.job("pending", "stream"),
            self.job("concluded", "stream", ours=False),
        ]
        assert sent(*MASKS.unsafe(jobs)) == [("job-dismiss", {"id": "stream-concluded"})]

    @pytest.mark.parametrize("status", sorted(set(JobStatus) - {JobStatus.CONCLUDED}))
    def test_that_have_not_ended_are_left_alone(self, status: str) -> None:
        jobs = [self.job(status), self.job(status, "stream")]
        assert MASKS.unsafe(jobs) + MASKS.leftovers(samples.guest(), jobs) == ()

    def test_one_of_somebody_else_is_left_to_them(self) -> None:
        (ours, theirs) = (self.job("concluded", ours=one) for one in (True, False))
        assert MASKS.dismiss(theirs) is None
        assert sent(*filter(None, [MASKS.dismiss(ours)])) == [
            ("job-dismiss", {"id": "commit-concluded"})
        ]

    def test_others_are_dismissed_after_it(self) -> None:
        jobs = [
            self.job("concluded", "stream"),
            self.job("concluded"),
            self.job("concluded", "backup", ours=False),
        ]
        guest: Disks = samples.guest()
        assert sent(*MASKS.leftovers(guest, jobs)) == [("job-dismiss", {"id": "commit-concluded"})]
