"""The direct road: exactly which QMP commands carry each step out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from qmpsnap.formats.layers import Disk
from qmpsnap.graph.nodes import Cache, Node
from qmpsnap.guests.qmp.guest import FilterInTheWay, FormatNotRecordable, QmpGuest, job_id
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    LostWhileReading,
)
from qmpsnap.operations.guest import Guest, NotFlushed
from qmpsnap.operations.job.states import JobStatus, JobView
from qmpsnap.operations.options import MergeOptions, OnError
from qmpsnap.operations.plan_header import rewrite
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_create
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from tests.unit import recordings, samples
from tests.unit.scripted import Each, ScriptedMonitor, not_found, refused, schema

JOBS = "query-jobs"
MASK = schema(block_commit=("backing_mask_protocol",), block_stream=("backing_mask_protocol",))
READS = ("query-", "x-debug-", "qom-get")


def qemu(disk: Disk | None = None, **changes: object) -> ScriptedMonitor:
    """A QEMU with this disk, that takes every command; changes by command, with underscores."""
    disk = disk or samples.disk(3)
    nodes: list[dict[str, object]] = []
    edges: list[tuple[str, str, str]] = []
    above: str | None = None
    for layer in disk.layers:
        assert layer.node is not None
        nodes.append({"node-name": layer.node, "drv": layer.format, "file": layer.path})
        if layer.protocol_node is not None:
            nodes.append({"node-name": layer.protocol_node, "drv": "file", "file": layer.path})
            edges.append((layer.node, "file", layer.protocol_node))
        if above is not None:
            edges.append((above, "backing", layer.node))
        above = layer.node
    answers: dict[str, object] = {
        "query-qmp-schema": [],
        "query-named-block-nodes": nodes,
        "query-block": [{"qdev": disk.qdev, "inserted": {"node-name": disk.root}}],
        "x-debug-query-block-graph": debug_graph(nodes, edges),
        JOBS: [],
        "query-block-jobs": [],
        "human-monitor-command": "",
    }
    for command in (
        "block-commit",
        "block-stream",
        "block_resize",
        "blockdev-add",
        "blockdev-del",
        "blockdev-reopen",
        "x-blockdev-reopen",
        "job-cancel",
        "job-complete",
        "job-dismiss",
        "job-finalize",
        "transaction",
    ):
        answers[command] = {}
    renamed = {
        name if name in answers else name.replace("_", "-"): a for name, a in changes.items()
    }
    return ScriptedMonitor(answers | renamed)


def debug_graph(
    nodes: list[dict[str, object]], edges: list[tuple[str, str, str]]
) -> dict[str, object]:
    numbers = {node["node-name"]: number for number, node in enumerate(nodes)}
    return {
        "nodes": [
            {"id": number, "type": "block-driver", "name": name} for name, number in numbers.items()
        ],
        "edges": [
            {"parent": numbers[parent], "child": numbers[child], "name": role}
            for parent, role, child in edges
        ],
    }


def changes(monitor: ScriptedMonitor) -> list[tuple[str, dict[str, object]]]:
    """What was sent apart from queries."""
    return [sent for sent in monitor.sent if not sent[0].startswith(READS)]


def plan(merge: str | None, target: str | None, disk: Disk | None = None) -> MergePlan:
    request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
    return plan_delete(samples.guest(disk or samples.disk(3)), request)


COMMIT = plan("volume-1.s1", "volume-1")
ACTIVE = plan("volume-1.s2", "volume-1")
PULL = plan(None, None)
PULL_TO = plan("volume-1", None)
PLANS = (COMMIT, ACTIVE, PULL, PULL_TO)


def job(plan: MergePlan, status: str, **more: object) -> dict[str, object]:
    return {"id": job_id(plan), "type": "commit", "status": status, **more}


def test_it_is_a_host() -> None:
    host: Guest = QmpGuest(qemu())
    assert samples.files(host.read().disks[0]) == ["volume-1.s2", "volume-1.s1", "volume-1"]


class TestJobId:
    @pytest.mark.parametrize("merge", PLANS)
    def test_is_one_that_qemu_accepts(self, merge: MergePlan) -> None:
        # util/id.c: begins with a letter; letters, digits, '-', '.', '_'
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", job_id(merge))
        assert len(job_id(merge)) < 60

    def test_hostile_names_make_no_difference_to_that(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 0, path='/share/"\n\udcff; quit')
        assert re.fullmatch(r"qmpsnap-[a-z-]+-[0-9a-f]{12}", job_id(plan(None, None, disk)))

    def test_same_merge_same_id(self) -> None:
        assert [job_id(one) for one in PLANS] == [
            job_id(plan("volume-1.s1", "volume-1")),
            job_id(plan("volume-1.s2", "volume-1")),
            job_id(plan(None, None)),
            job_id(plan("volume-1", None)),
        ]

    def test_stays_the_same_from_release_to_release(self) -> None:
        """A job that an older qmpsnap left running must be found by a newer one."""
        assert job_id(COMMIT) == "qmpsnap-commit-9afe65cfe0c3"

    def test_other_merges_have_other_ids(self) -> None:
        other = samples.disk(3, disk="vdb")
        merges = [
            *PLANS,
            plan("volume-1.s2", "volume-1.s1"),
            plan("volume-1.s1", "volume-1", other),
        ]
        assert len({job_id(one) for one in merges}) == len(merges)

    def test_sizes_and_node_names_do_not_count(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 1, node="#block1", virtual_size=7)
        assert job_id(plan("volume-1.s1", "volume-1", disk)) == job_id(COMMIT)


class TestStart:
    @pytest.mark.parametrize("features", [[], MASK])
    def test_commit(self, features: object) -> None:
        monitor = qemu(query_qmp_schema=features)
        assert QmpGuest(monitor).start(COMMIT) == job_id(COMMIT)
        expected: dict[str, object] = {
            "job-id": job_id(COMMIT),
            "device": "volume-1.s2-node",
            "top-node": "volume-1.s1-node",
            "base-node": "volume-1-node",
            "backing-file": "volume-1",
            "auto-finalize": False,
            "auto-dismiss": False,
        }
        if features:
            expected["backing-mask-protocol"] = True
        assert changes(monitor) == [("block-commit", expected)]

    @pytest.mark.parametrize("features", [[], MASK])
    def test_active_commit_changes_no_header(self, features: object) -> None:
        monitor = qemu(query_qmp_schema=features)
        QmpGuest(monitor).start(ACTIVE)
        expected = {
            "job-id": job_id(ACTIVE),
            "device": "volume-1.s2-node",
            "top-node": "volume-1.s2-node",
            "base-node": "volume-1-node",
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        assert changes(monitor) == [("block-commit", expected)]

    def test_pull_of_everything(self) -> None:
        monitor = qemu(query_qmp_schema=MASK)
        QmpGuest(monitor).start(PULL)
        expected = {
            "job-id": job_id(PULL),
            "device": "volume-1.s2-node",
            "auto-finalize": False,
            "auto-dismiss": False,
        }
        assert changes(monitor) == [("block-stream", expected)]

    @pytest.mark.parametrize("features", [[], MASK])
    def test_pull_down_to_a_base(self, features: object) -> None:
        monitor = qemu(query_qmp_schema=features)
        QmpGuest(monitor).start(PULL_TO)
        expected: dict[str, object] = {
            "job-id": job_id(PULL_TO),
            "device": "volume-1.s2-node",
            "base-node": "volume-1-node",
            "backing-file": "volume-1",
            "auto-finalize": False,
            "auto-dismiss": False,
        }
        if features:
            expected["backing-mask-protocol"] = True
        assert changes(monitor) == [("block-stream", expected)]

    def test_argument_is_asked_for_of_the_very_command(self) -> None:
        only_stream = schema(block_commit=(), block_stream=("backing_mask_protocol",))
        monitor = qemu(query_qmp_schema=only_stream)
        QmpGuest(monitor).start(COMMIT)
        assert "backing-mask-protocol" not in monitor.arguments_of("block-commit")[0]

    def test_filter_on_top_is_the_device(self) -> None:
        disk = samples.disk(3, root="throttle0")
        monitor = qemu()
        QmpGuest(monitor).start(plan("volume-1.s1", "volume-1", disk))
        assert monitor.arguments_of("block-commit")[0]["device"] == "throttle0"

    def test_absolute_backing_name_stays_absolute(self) -> None:
        disk = samples.changed_layer(samples.disk(3), 0, backing_name="/share/volume-1.s1")
        monitor = qemu()
        QmpGuest(monitor).start(plan("volume-1.s1", "volume-1", disk))
        assert monitor.arguments_of("block-commit")[0]["backing-file"] == "/share/volume-1"

    def test_qemu_that_refuses(self) -> None:
        with pytest.raises(CommandFailed, match="Need a root block node"):
            QmpGuest(qemu(block_commit=refused("block-commit", "Need a root block node"))).start(
                COMMIT
            )


def over_protocol() -> Disk:
    """A raw base that is open without a raw node."""
    node = Node(
        name="volume-1-node",
        driver="file",
        filename="/share/volume-1",
        detect_zeroes=True,
        cache=Cache(direct=True),
    )
    disk = samples.disk(3)
    return samples.changed_layer(disk, 2, node_details=node, protocol_node=None)


class TestRawNode:
    """Before QEMU 9.0 the driver's name would go into a header over a base without a raw node."""

    def test_not_needed_with_backing_mask_protocol(self) -> None:
        monitor = qemu(over_protocol(), query_qmp_schema=MASK)
        QmpGuest(monitor).start(plan("volume-1.s1", "volume-1", over_protocol()))
        assert [command for command, _ in changes(monitor)] == ["block-commit"]
        assert monitor.arguments_of("block-commit")[0]["base-node"] == "volume-1-node"

    def test_not_needed_where_no_header_changes(self) -> None:
        monitor = qemu(over_protocol())
        QmpGuest(monitor).start(plan("volume-1.s2", "volume-1", over_protocol()))
        assert [command for command, _ in changes(monitor)] == ["block-commit"]

    @pytest.mark.parametrize(("merge", "target"), [("volume-1.s1", "volume-1"), ("volume-1", None)])
    def test_refused_before_anything_is_sent(self, merge: str, target: str | None) -> None:
        monitor = qemu(over_protocol())
        with pytest.raises(FormatNotRecordable, match="'file' as the format of volume-1") as caught:
            QmpGuest(monitor).start(plan(merge, target, over_protocol()))
        assert caught.value.exit_code == 4
        assert changes(monitor) == []


class TestStrays:
    def test_own_nodes_that_nothing_reads_are_cleared_away_first(self) -> None:
        monitor = qemu()
        graph = monitor.answers["x-debug-query-block-graph"]
        nodes = monitor.answers["query-named-block-nodes"]
        assert isinstance(graph, dict)
        assert isinstance(nodes, list)
        nodes += [
            {"node-name": "qmpsnap-1-format", "drv": "qcow2"},
            {"node-name": "qmpsnap-1-file", "drv": "file"},
            {"node-name": "other-format", "drv": "qcow2"},
        ]
        names = ("qmpsnap-1-format", "qmpsnap-1-file", "other-format")
        graph["nodes"] += [
            {"id": 100 + number, "type": "block-driver", "name": name}
            for number, name in enumerate(names)
        ]
        graph["edges"] += [{"parent": 100, "child": 101, "name": "file"}]
        QmpGuest(monitor).clear()
        assert monitor.arguments_of("blockdev-del") == [{"node-name": "qmpsnap-1-format"}]

    def test_own_nodes_that_are_in_use_stay(self) -> None:
        disk = samples.disk(1, root="qmpsnap-1-format")
        disk = samples.changed_layer(
            disk, 0, node="qmpsnap-1-format", protocol_node="qmpsnap-1-file"
        )
        monitor = qemu(disk)
        QmpGuest(monitor).clear()
        assert "blockdev-del" not in monitor.commands()


class TestRewrite:
    """A header that is written anew, by a stream that copies nothing."""

    def plan(self, position: int = 0, disk: Disk | None = None) -> MergePlan:
        disk = disk or samples.disk(3)
        upper, lower = disk.layers[position : position + 2]
        return rewrite(disk, upper, lower, lower.file)

    @pytest.mark.parametrize("masks", [True, False])
    @pytest.mark.parametrize("position", [0, 1])
    def test_one_job_that_goes_by_itself(self, position: int, masks: bool) -> None:
        monitor = qemu(query_qmp_schema=MASK if masks else [])
        plan = self.plan(position)
        job = QmpGuest(monitor).start(plan)
        (sent,) = monitor.arguments_of("block-stream")
        assert sent == {
            "job-id": job,
            "device": plan.top.node,
            "base-node": plan.base and plan.base.node,
            "backing-file": plan.backing_name,
            "auto-finalize": True,
            "auto-dismiss": True,
            **({"backing-mask-protocol": True} if masks else {}),
        }
        assert job.startswith("qmpsnap-header-")

    def test_filter_that_it_would_take_out(self) -> None:
        disk = samples.changed_layer(samples.disk(2), 1, top_node="throttle0")
        monitor = qemu(disk)
        with pytest.raises(FilterInTheWay, match="throttle0"):
            QmpGuest(monitor).start(self.plan(0, disk))
        assert changes(monitor) == []

    def test_header_that_would_say_file(self) -> None:
        monitor = qemu(over_protocol())
        with pytest.raises(FormatNotRecordable):
            QmpGuest(monitor).start(self.plan(1, over_protocol()))

    def test_layer_that_stays_open_for_writing_is_opened_again(self) -> None:
        disk = samples.disk(3)
        plan = self.plan(1, disk)
        node = plan.top.node_details
        assert node is not None
        plan = replace(plan, top=replace(plan.top, node_details=replace(node, read_only=True)))
        monitor = qemu(disk, blockdev_reopen={})
        QmpGuest(monitor).settle(plan)
        (sent,) = monitor.arguments_of("blockdev-reopen")
        options = sent["options"]
        assert isinstance(options, list)
        assert options[0] == {
            "driver": "qcow2",
            "node-name": "volume-1.s1-node",
            "read-only": True,
            "cache": {"direct": False, "no-flush": False},
            "detect-zeroes": "off",
            "file": "volume-1.s1-file",
            "backing": "volume-1-node",
        }

    def test_layer_that_nobody_can_open_again_is_told(self) -> None:
        plan = self.plan(1)
        node = plan.top.node_details
        assert node is not None
        plan = replace(plan, top=replace(plan.top, node_details=replace(node, read_only=True)))
        monitor = qemu(blockdev_reopen=not_found("blockdev-reopen"))
        *_, note = QmpGuest(monitor).settle(plan)
        assert "volume-1.s1 stays open for writing" in note


class TestOptions:
    @pytest.mark.parametrize("plan_", PLANS)
    def test_are_given_to_qemu(self, plan_: MergePlan) -> None:
        monitor = qemu()
        wishes = MergeOptions(bandwidth=8, on_error=OnError.PAUSE, timeout_s=60)
        QmpGuest(monitor).start(plan_, wishes)
        command = "block-stream" if plan_.kind == "pull" else "block-commit"
        (sent,) = monitor.arguments_of(command)
        assert (sent["speed"], sent["on-error"]) == (8, "stop")

    def test_that_are_not_given_are_not_sent(self) -> None:
        monitor = qemu()
        QmpGuest(monitor).start(COMMIT)
        (sent,) = monitor.arguments_of("block-commit")
        assert not {"speed", "on-error"} & sent.keys()


class TestAttach:
    @pytest.mark.parametrize("status", ["running", "ready", "pending", "aborting", "concluded"])
    def test_job_of_this_very_plan(self, status: str) -> None:
        jobs = [{"id": "other", "type": "backup", "status": "running"}, job(COMMIT, status)]
        assert QmpGuest(qemu(query_jobs=jobs)).attach(COMMIT) == job_id(COMMIT)

    def test_no_job(self) -> None:
        assert QmpGuest(qemu()).attach(COMMIT) is None

    def test_job_of_another_plan(self) -> None:
        assert QmpGuest(qemu(query_jobs=[job(PULL_TO, "running")])).attach(COMMIT) is None


class TestView:
    @pytest.mark.parametrize("status", JobStatus)
    def test_status_and_progress(self, status: JobStatus) -> None:
        told = job(COMMIT, status, **{"current-progress": 3, "total-progress": 9})
        found = QmpGuest(qemu(query_jobs=[told])).view(job_id(COMMIT))
        assert found == JobView(status=status, current=3, total=9)

    def test_status_of_a_later_qemu_is_one_to_wait_through(self) -> None:
        found = QmpGuest(qemu(query_jobs=[job(COMMIT, "dreaming")])).view(job_id(COMMIT))
        assert found.status is JobStatus.UNDEFINED

    def test_job_that_is_gone(self) -> None:
        assert QmpGuest(qemu()).view("job0") == JobView(status=JobStatus.NULL)

    @pytest.mark.parametrize("status", ["concluded", "null"])
    def test_error(self, status: str) -> None:
        told = job(COMMIT, status, error="No space left on device")
        found = QmpGuest(qemu(query_jobs=[told])).view(job_id(COMMIT))
        assert found.error == "No space left on device"


class TestWait:
    @pytest.mark.parametrize(
        "event",
        [
            Event("JOB_STATUS_CHANGE", {"id": "job0", "status": "ready"}),
            Event("BLOCK_JOB_COMPLETED", {"device": "job0"}),
        ],
    )
    def test_event_of_the_job(self, event: Event) -> None:
        monitor = qemu()
        monitor.events.put(Event("JOB_STATUS_CHANGE", {"id": "other"}))
        monitor.events.put(Event("SHUTDOWN"))
        monitor.events.put(event)
        monitor.events.put(event)
        QmpGuest(monitor).wait("job0", 30)
        assert monitor.events.qsize() == 1

    def test_no_event_and_no_time(self) -> None:
        QmpGuest(qemu()).wait("job0", 0)

    def test_connection_that_is_lost(self) -> None:
        monitor = qemu()
        monitor.events.put(Event(CONNECTION_LOST))
        with pytest.raises(ConnectionLost):
            QmpGuest(monitor).wait("job0", 30)


class TestPivot:
    def test_ready(self) -> None:
        monitor = qemu()
        assert QmpGuest(monitor).pivot("job0")
        assert changes(monitor) == [("job-complete", {"id": "job0"})]

    def test_not_ready_after_all(self) -> None:
        monitor = qemu(job_complete=refused("job-complete"), query_jobs=[job(ACTIVE, "standby")])
        assert not QmpGuest(monitor).pivot(job_id(ACTIVE))

    def test_cancelled_by_somebody_else(self) -> None:
        assert not QmpGuest(qemu(job_complete=not_found("job-complete"))).pivot("job0")

    def test_refused_while_ready(self) -> None:
        monitor = qemu(job_complete=refused("job-complete"), query_jobs=[job(ACTIVE, "ready")])
        assert not QmpGuest(monitor).pivot(job_id(ACTIVE))


class TestFinalize:
    @pytest.mark.parametrize(
        ("merge", "node"),
        [
            (COMMIT, "volume-1-node"),
            (PULL, "volume-1.s2-node"),
            (PULL_TO, "volume-1.s2-node"),
        ],
    )
    def test_what_was_written_is_flushed_first(self, merge: MergePlan, node: str) -> None:
        monitor = qemu()
        QmpGuest(monitor).finalize(merge, job_id(merge))
        assert changes(monitor) == [
            ("human-monitor-command", {"command-line": f"qemu-io {node} flush"}),
            ("job-finalize", {"id": job_id(merge)}),
        ]

    @pytest.mark.parametrize(
        "answer", ["flush failed: Input/output error\r\n", refused("human-monitor-command", "bad")]
    )
    def test_flush_that_fails_cancels_the_job(self, answer: object) -> None:
        told = job(PULL, "concluded", error="Operation canceled")
        monitor = qemu(human_monitor_command=answer, query_jobs=[told])
        host = QmpGuest(monitor)
        host.finalize(PULL, job_id(PULL))
        assert changes(monitor)[1:] == [("job-cancel", {"id": job_id(PULL)})]
        error = host.view(job_id(PULL)).error
        assert error is not None
        assert error.startswith("flush of volume-1.s2: ")

    def test_flush_error_is_told_even_when_the_job_is_gone(self) -> None:
        host = QmpGuest(qemu(human_monitor_command="no"))
        host.finalize(PULL, job_id(PULL))
        assert host.view(job_id(PULL)).error == "flush of volume-1.s2: no"

    def test_qemu_without_a_human_monitor(self) -> None:
        monitor = qemu(human_monitor_command=not_found("human-monitor-command"))
        QmpGuest(monitor).finalize(PULL, job_id(PULL))
        assert changes(monitor)[1:] == [("job-finalize", {"id": job_id(PULL)})]

    def test_job_that_was_cancelled_just_now(self) -> None:
        monitor = qemu(job_finalize=refused("job-finalize"), query_jobs=[job(PULL, "aborting")])
        QmpGuest(monitor).finalize(PULL, job_id(PULL))

    def test_finalize_that_is_refused(self) -> None:
        monitor = qemu(job_finalize=refused("job-finalize"), query_jobs=[job(PULL, "pending")])
        with pytest.raises(CommandFailed):
            QmpGuest(monitor).finalize(PULL, job_id(PULL))


class TestDismiss:
    def test_concluded(self) -> None:
        monitor = qemu()
        QmpGuest(monitor).dismiss("job0")
        assert changes(monitor) == [("job-dismiss", {"id": "job0"})]

    def test_gone_already(self) -> None:
        QmpGuest(qemu(job_dismiss=not_found("job-dismiss"))).dismiss("job0")


class TestSettle:
    def test_pull_is_flushed_by_a_resize_to_the_same_size(self) -> None:
        monitor = qemu(samples.disk(3))
        assert QmpGuest(monitor).settle(PULL) == ()
        sent = {"node-name": "volume-1.s2-node", "size": samples.MIB}
        assert monitor.arguments_of("block_resize") == [sent]

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE])
    def test_commit_is_not(self, merge: MergePlan) -> None:
        monitor = qemu()
        QmpGuest(monitor).settle(merge)
        assert "block_resize" not in monitor.commands()

    FORBIDDEN = "Permission conflict on node 'a': 'resize'"

    def test_resize_that_another_user_forbids_after_a_flush(self) -> None:
        host = QmpGuest(qemu(block_resize=refused("block_resize", self.FORBIDDEN)))
        host.finalize(PULL, job_id(PULL))
        assert host.settle(PULL) == ()

    @pytest.mark.parametrize(
        ("flush", "description"),
        [(None, FORBIDDEN), ("", "Input/output error"), (None, "Input/output error")],
    )
    def test_flush_that_is_not_certain(self, flush: str | None, description: str) -> None:
        hmp = not_found("human-monitor-command") if flush is None else flush
        host = QmpGuest(
            qemu(block_resize=refused("block_resize", description), human_monitor_command=hmp)
        )
        host.finalize(PULL, job_id(PULL))
        with pytest.raises(NotFlushed, match=r"volume-1\.s2 holds all data"):
            host.settle(PULL)

    def test_nodes_that_left_the_chain_are_removed_upper_ones_first(self) -> None:
        monitor = qemu(samples.disk(3))
        remove_from_chain(monitor, "volume-1.s2-node", "volume-1.s1-node")
        monitor.answers["blockdev-del"] = lambda given: delete_node(monitor, given)
        assert QmpGuest(monitor).settle(PULL) == ()
        assert [one["node-name"] for one in monitor.arguments_of("blockdev-del")] == [
            "volume-1.s1-node",
            "volume-1.s1-file",
            "volume-1-node",
            "volume-1-file",
        ]

    def test_nodes_that_something_still_reads_stay(self) -> None:
        monitor = qemu(samples.disk(3))
        assert QmpGuest(monitor).settle(COMMIT) == ()
        assert "blockdev-del" not in monitor.commands()

    def test_node_that_qemu_does_not_let_go_is_told_once(self) -> None:
        monitor = qemu(samples.disk(3), blockdev_del=refused("blockdev-del", "Node is in use"))
        remove_from_chain(monitor, "volume-1.s2-node", "volume-1.s1-node")
        notes = QmpGuest(monitor).settle(PULL)
        assert notes == ("node volume-1.s1-node of volume-1.s1 stays open: Node is in use",)


def remove_from_chain(monitor: ScriptedMonitor, parent: str, child: str) -> None:
    """The edge between two nodes goes; the nodes stay, as they do with `-blockdev`."""
    graph = monitor.answers["x-debug-query-block-graph"]
    assert isinstance(graph, dict)
    numbers = {node["name"]: node["id"] for node in graph["nodes"]}
    graph["edges"] = [
        edge
        for edge in graph["edges"]
        if (edge["parent"], edge["child"]) != (numbers[parent], numbers[child])
    ]


def delete_node(monitor: ScriptedMonitor, given: Mapping[str, object]) -> object:
    """`blockdev-del`: the node goes, with the edges to what it read."""
    nodes, graph = (
        monitor.answers[command]
        for command in ("query-named-block-nodes", "x-debug-query-block-graph")
    )
    assert isinstance(nodes, list)
    assert isinstance(graph, dict)
    (number,) = (node["id"] for node in graph["nodes"] if node["name"] == given["node-name"])
    assert number not in {edge["child"] for edge in graph["edges"]}, "it is in use"
    nodes[:] = [node for node in nodes if node["node-name"] != given["node-name"]]
    graph["nodes"] = [node for node in graph["nodes"] if node["id"] != number]
    graph["edges"] = [edge for edge in graph["edges"] if edge["parent"] != number]
    return {}


class TestSwitch:
    def make(self, **cache: bool) -> CreatePlan:
        request = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
        made = plan_create(samples.guest(samples.disk(2)), request)
        node = made.active.node_details
        assert node is not None
        node = replace(node, cache=Cache(**cache), detect_zeroes=bool(cache))
        return replace(made, active=replace(made.active, node_details=node))

    def switched(self, host: QmpGuest, *plans: CreatePlan) -> None:
        host.open(plans)
        host.switch(plans)

    @pytest.mark.parametrize(
        ("cache", "zeroes"),
        [({}, "off"), ({"direct": True}, "on"), ({"no_flush": True}, "on")],
    )
    def test_one_transaction(self, cache: dict[str, bool], zeroes: str) -> None:
        monitor = qemu()
        self.switched(QmpGuest(monitor), self.make(**cache))
        (add, added), (transaction, actions) = changes(monitor)
        name = str(added["node-name"])
        expected_cache = {"direct": cache.get("direct", False), "no-flush": "no_flush" in cache}
        assert (add, transaction) == ("blockdev-add", "transaction")
        assert added == {
            "driver": "qcow2",
            "node-name": name,
            "cache": expected_cache,
            "detect-zeroes": zeroes,
            "backing": None,
            "file": {
                "driver": "file",
                "node-name": name.replace("-format", "-file"),
                "filename": "/share/volume-1.new",
                "cache": expected_cache,
            },
        }
        data = {"node": "volume-1.s1-node", "overlay": name}
        assert actions == {"actions": [{"type": "blockdev-snapshot", "data": data}]}

    def test_several_disks_are_one_transaction(self) -> None:
        monitor = qemu()
        plans = [self.make(), replace(self.make(), overlay="/share/volume-2.new")]
        self.switched(QmpGuest(monitor), *plans)
        first, second = monitor.arguments_of("blockdev-add")
        (transaction,) = monitor.arguments_of("transaction")
        actions = transaction["actions"]
        assert isinstance(actions, list)
        assert [one["data"]["overlay"] for one in actions] == [
            first["node-name"],
            second["node-name"],
        ]

    def test_node_names_are_new_each_time(self) -> None:
        monitor = qemu()
        host = QmpGuest(monitor)
        self.switched(host, self.make())
        self.switched(host, self.make())
        first, second = monitor.arguments_of("blockdev-add")
        assert first["node-name"] != second["node-name"]
        assert len(str(first["node-name"])) < 32  # QEMU's limit for node names

    def test_transaction_that_fails_leaves_no_node_behind(self) -> None:
        monitor = qemu(transaction=refused("transaction", "no"))
        host = QmpGuest(monitor)
        with pytest.raises(CommandFailed, match="no"):
            self.switched(host, self.make())
        host.retract([self.make()])
        (added,) = monitor.arguments_of("blockdev-add")
        assert monitor.arguments_of("blockdev-del") == [{"node-name": added["node-name"]}]

    def test_overlay_that_cannot_be_opened(self) -> None:
        monitor = qemu(blockdev_add=refused("blockdev-add", "Could not open"))
        with pytest.raises(CommandFailed, match="Could not open"):
            self.switched(QmpGuest(monitor), self.make())
        assert "transaction" not in monitor.commands()

    def test_second_overlay_that_cannot_be_opened_leaves_no_node_behind(self) -> None:
        opened: list[object] = []

        def add(given: Mapping[str, object]) -> object:
            opened.append(given["node-name"])
            if len(opened) == 2:
                raise CommandFailed("blockdev-add", "GenericError", "no")
            return {}

        monitor = qemu(blockdev_add=add)
        host = QmpGuest(monitor)
        plans = [self.make(), replace(self.make(), overlay="/share/volume-2.new")]
        with pytest.raises(CommandFailed):
            self.switched(host, *plans)
        host.retract(plans)
        deleted = [one["node-name"] for one in monitor.arguments_of("blockdev-del")]
        assert set(opened) <= set(deleted)


class TestRead:
    def recorded(self, name: str, **more: object) -> ScriptedMonitor:
        replies = recordings.replies(name)
        return ScriptedMonitor({**replies, "query-qmp-schema": [], **more})

    def test_name_and_serials(self) -> None:
        monitor = self.recorded(
            "two-disks", **{"query-name": {"name": "web1"}, "qom-get": lambda given: given["path"]}
        )
        guest = QmpGuest(monitor).read()
        assert guest.guest == "web1"
        assert {disk.disk: disk.serial for disk in guest.disks} == {
            "vda": "/machine/peripheral/vda/virtio-backend",
            "sda": "/machine/peripheral/sda",
        }

    def test_reading_changes_nothing(self) -> None:
        monitor = self.recorded("commit-running")
        QmpGuest(monitor).read()
        assert changes(monitor) == []

    @pytest.mark.parametrize(
        "error", [LostInMidCommand("query-block", "gone"), CommandTimedOut("query-block", 30)]
    )
    def test_guest_that_stops_answering(self, error: Exception) -> None:
        monitor = self.recorded("raw-node", **{"query-block": error})
        with pytest.raises(LostWhileReading) as caught:
            QmpGuest(monitor).read()
        assert (caught.value.exit_code, caught.value.changed) == (7, "no")

    @pytest.mark.parametrize("error", [None, "No space left on device"])
    def test_own_job_that_ended_while_nobody_watched(self, error: str | None) -> None:
        told = job(PULL, "concluded") | ({"error": error} if error else {}) | {"type": "stream"}
        monitor = self.recorded("qcow2-chain", **{JOBS: Each([told], []), "job-dismiss": {}})
        host = QmpGuest(monitor)
        (note,) = host.read().notes
        assert job_id(PULL) in note
        assert (error or "without an error") in note
        assert monitor.arguments_of("job-dismiss") == [{"id": job_id(PULL)}]
        assert host.attach(PULL) == job_id(PULL)
        assert host.view(job_id(PULL)) == JobView(status=JobStatus.CONCLUDED, error=error)
        host.dismiss(job_id(PULL))
        assert host.attach(PULL) is None
        assert len(monitor.arguments_of("job-dismiss")) == 1

    @pytest.mark.parametrize(
        "told",
        [
            {"id": "backup0", "type": "backup", "status": "concluded"},
            job(COMMIT, "running"),
            job(COMMIT, "pending"),
        ],
    )
    def test_other_jobs_are_left_alone(self, told: dict[str, object]) -> None:
        monitor = self.recorded("qcow2-chain", **{JOBS: [told]})
        assert QmpGuest(monitor).read().notes == ()
        assert "job-dismiss" not in monitor.commands()
