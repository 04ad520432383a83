"""One reading: which queries are sent, what is done without, and when it is torn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from qmpsnap.graph.chain import chain
from qmpsnap.graph.nodes import Device, Graph
from qmpsnap.graph.wire import MalformedReply
from qmpsnap.guests.reader import (
    MAX_STALL_S,
    TRIES,
    GuestWouldStall,
    Reader,
    StreamLingers,
    TornReading,
)
from qmpsnap.monitor.abilities import Ability
from qmpsnap.monitor.base import CommandFailed, ConnectionLost
from tests.unit import recordings
from tests.unit.scripted import Each, ScriptedMonitor, not_found, refused
from tests.unit.test_graph_qmp import without_permissions

NODES, BLOCK, STATS, DEBUG, JOBS = (
    "query-named-block-nodes",
    "query-block",
    "query-blockstats",
    "x-debug-query-block-graph",
    "query-jobs",
)


def qemu(recording: str = "qcow2-chain", **changes: object) -> ScriptedMonitor:
    """QEMU 7.2 with the recorded graph; changes by command, spelled with underscores."""
    recorded = recordings.replies(recording)
    answers: dict[str, object] = {
        command: recorded[command] for command in (NODES, BLOCK, STATS, DEBUG, JOBS)
    }
    return ScriptedMonitor(answers | {name.replace("_", "-"): a for name, a in changes.items()})


def without(monitor: ScriptedMonitor, *commands: str) -> ScriptedMonitor:
    for command in commands:
        del monitor.answers[command]
    return monitor


def flat_only(reply: Any) -> Any:
    """Answers a query only when it is asked to be flat."""
    return lambda arguments: reply if arguments.get("flat") else refused("nested")


def later_qemu() -> ScriptedMonitor:
    """QEMU 11.1: `children`, and a flat `query-block`."""
    nodes = recordings.with_children(recordings.replies("qcow2-chain"))
    devices = recordings.replies("qcow2-chain")[BLOCK]
    monitor = qemu(query_named_block_nodes=flat_only(nodes), query_block=flat_only(devices))
    monitor.can = {Ability.FLAT_DEVICES}
    return monitor


@pytest.mark.parametrize("reply", [{}, "", 0, None, False])
def test_jobs_that_are_no_list_are_not_taken_for_none(reply: object) -> None:
    """As long as it is not known that no stream lingers, reading all nodes is dangerous."""
    progress = {"current-progress": 0, "total-progress": 1}
    job = {"id": "pull", "type": "stream", "status": "running", **progress}
    monitor = qemu(query_jobs=[job], query_block_jobs=reply)
    with pytest.raises(MalformedReply):
        Reader(monitor).read()
    assert NODES not in monitor.commands()


def test_guest_that_was_migrated_away() -> None:
    graph = without_permissions(recordings.replies("qcow2-chain")[DEBUG])
    read = Reader(qemu(x_debug_query_block_graph=graph)).read()
    assert [name for name, node in read.nodes.items() if not node.active] == ["top"]
    assert all(node.active for node in Reader(qemu()).read().nodes.values())


def test_types_are_asked_of_what_is_no_plain_disk() -> None:
    device = {"locked": False, "type": "unknown"}
    disk = {**device, "device": "", "removable": False}
    blocks = [
        {**disk, "qdev": "vda"},
        {**disk, "qdev": "/machine/peripheral/vdb/virtio-backend"},
        {**device, "device": "", "qdev": "fd0", "removable": True},
        {**device, "device": "pflash0", "qdev": "/machine/virt.flash0", "removable": False},
        {**device, "device": "gone", "qdev": "cd0", "removable": True},
        {**device, "device": "nobody", "removable": True},
    ]

    def answer(arguments: Any) -> object:
        if arguments["property"] != "type":
            return refused("qom-get")
        paths = {"/machine/peripheral/fd0": "floppy", "/machine/virt.flash0": "cfi.pflash01"}
        return paths.get(arguments["path"]) or refused("qom-get")

    monitor = qemu(query_block=blocks, qom_get=answer)
    reader = Reader(monitor)
    graph = reader.read()
    # By what to call the disk on this road, as the serials are.
    assert reader.details(graph).types == {"fd0": "floppy", "pflash0": "cfi.pflash01"}
    asked = [
        arguments["path"]
        for arguments in monitor.arguments_of("qom-get")
        if arguments["property"] == "type"
    ]
    assert asked == ["/machine/peripheral/fd0", "/machine/virt.flash0", "/machine/peripheral/cd0"]
    monitor.sent.clear()
    reader.details(graph)
    assert monitor.sent == []


def names(reader: Reader, *, nested_ok: bool = True) -> list[str]:
    """The chain of the first disk, read afresh."""
    graph = reader.read(nested_ok=nested_ok)
    root = graph.devices[0].root
    assert root is not None
    return [layer.node.name for layer in chain(graph, root)]


class TestQueries:
    def test_qemu_7_2(self) -> None:
        monitor = qemu()
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.hops == [[JOBS, DEBUG, BLOCK], [NODES, BLOCK, JOBS]]
        assert monitor.probes == [Ability.FLAT_DEVICES]
        assert monitor.arguments_of(NODES) == [{"flat": True}]
        assert monitor.arguments_of(BLOCK) == [{}]

    def test_later_readings_are_five_queries_in_two_hops(self) -> None:
        monitor = qemu()
        reader = Reader(monitor)
        reader.read()
        monitor.hops.clear()
        reader.read()
        assert monitor.hops == [[JOBS, DEBUG], [NODES, BLOCK, JOBS]]

    def test_later_qemu_tells_the_edges_itself(self) -> None:
        # The debug graph tells how deep it is, and has to lead to the same roots.
        debug = recordings.replies("qcow2-chain")[DEBUG]
        roots = {node["id"] for node in debug["nodes"] if node["type"] == "block-backend"}
        debug["edges"] = [edge for edge in debug["edges"] if edge["parent"] in roots]
        monitor = later_qemu()
        monitor.answers[DEBUG] = debug
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert STATS not in monitor.commands()
        assert monitor.arguments_of(BLOCK) == [{"flat": True}]

    @pytest.mark.parametrize("make", [qemu, later_qemu])
    @pytest.mark.parametrize("depth", [1, 8, 64])
    def test_number_of_queries_does_not_depend_on_the_depth(self, depth: int, make: Any) -> None:
        monitor = make()
        flat = make is later_qemu
        deep = _deep(depth, children=flat)
        monitor.answers[NODES] = deep
        monitor.answers[DEBUG] = _debug(deep)
        monitor.answers[BLOCK] = [{"qdev": "vda", "inserted": {"node-name": "n0"}}]
        assert names(Reader(monitor)) == [f"n{number}" for number in range(depth)]
        assert len(monitor.sent) == 5


class TestFallbacks:
    def test_flat_that_is_refused(self) -> None:
        recorded = recordings.replies("qcow2-chain")[NODES]
        monitor = qemu(
            query_named_block_nodes=lambda a: (
                refused(NODES, "Parameter 'flat' is unexpected") if a.get("flat") else recorded
            )
        )
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.arguments_of(NODES) == [{"flat": True}, {}]

    def test_debug_graph_that_is_not_there(self) -> None:
        monitor = without(qemu(), DEBUG)
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.commands().index(DEBUG) < monitor.commands().index(STATS)

    def test_debug_graph_is_preferred_to_blockstats(self) -> None:
        monitor = qemu()
        Reader(monitor).read()
        assert STATS not in monitor.commands()

    def test_qemu_without_jobs(self) -> None:
        graph = Reader(without(qemu(), JOBS)).read()
        assert graph.jobs == ()

    def test_blockstats_do_not_take_a_data_file_for_the_file(self) -> None:
        by_debug = chain(Reader(qemu("data-file")).read(), "disk")
        assert by_debug[0].path == "/share/disk"
        by_stats = chain(Reader(without(qemu("data-file"), DEBUG)).read(), "disk")
        assert by_stats[0].path is None

    def test_query_that_every_qemu_has_and_that_fails(self) -> None:
        with pytest.raises(CommandFailed, match="ejected"):
            Reader(qemu(query_block=refused(BLOCK, "Block device is ejected"))).read()

    def test_nodes_that_cannot_be_listed(self) -> None:
        refuses = qemu(query_named_block_nodes=refused(NODES, "Block device x is ejected"))
        assert "(Block device x is ejected)" in (Reader(refuses).read().incomplete or "")
        assert refuses.arguments_of(NODES) == [{"flat": True}]

    @pytest.mark.parametrize("missing", [DEBUG, STATS])
    def test_nodes_that_cannot_be_listed_and_nothing_else_to_tell_them(self, missing: str) -> None:
        monitor = qemu(query_named_block_nodes=refused(NODES, "Block device x is ejected"))
        with pytest.raises(CommandFailed, match="ejected"):
            Reader(without(monitor, missing)).read()

    def test_nodes_that_cannot_be_listed_where_nothing_may_nest(self) -> None:
        monitor = qemu(query_named_block_nodes=refused(NODES, "Block device x is ejected"))
        with pytest.raises(CommandFailed, match="ejected"):
            Reader(monitor).read(nested_ok=False)

    def test_jobs_that_cannot_be_told(self) -> None:
        with pytest.raises(CommandFailed):
            Reader(qemu(query_jobs=refused(JOBS))).read()

    def test_reply_that_is_not_one(self) -> None:
        with pytest.raises(MalformedReply, match="query-block is not"):
            Reader(qemu(query_block={})).read()

    def test_connection_that_is_lost(self) -> None:
        with pytest.raises(ConnectionLost):
            Reader(qemu(x_debug_query_block_graph=ConnectionLost(DEBUG, "gone"))).read()


class TestThroughLibvirt:
    """A nested reply can break the guest's monitor for good: none is asked for."""

    def sent_nested(self, monitor: ScriptedMonitor) -> list[object]:
        return [sent for sent in monitor.sent if sent in ((NODES, {}), (BLOCK, {}), (STATS, {}))]

    @pytest.mark.parametrize("make", [qemu, later_qemu])
    def test_nothing_that_nests(self, make: Any) -> None:
        monitor = make()
        assert names(Reader(monitor), nested_ok=False) == ["top", "mid", "base"]
        assert self.sent_nested(monitor) == []

    @pytest.mark.parametrize("missing", [(DEBUG,), (NODES,), (BLOCK, DEBUG)])
    def test_rather_no_reading(self, missing: tuple[str, ...]) -> None:
        monitor = without(qemu(), *missing)
        with pytest.raises(CommandFailed):
            Reader(monitor).read(nested_ok=False)
        assert self.sent_nested(monitor) == []

    def test_flat_that_is_refused(self) -> None:
        monitor = qemu(query_named_block_nodes=refused(NODES))
        with pytest.raises(CommandFailed):
            Reader(monitor).read(nested_ok=False)
        assert self.sent_nested(monitor) == []

    def test_roots_by_the_debug_graph(self) -> None:
        monitor = qemu("two-disks")
        graph = Reader(monitor).read(nested_ok=False)
        assert {(device.id, device.root) for device in graph.devices} == {
            ("vda", "top"),
            ("sda", "disk"),
        }
        assert BLOCK not in monitor.commands()


class TestStall:
    """What would stop the guest for long is not asked."""

    def deep(self, depth: int) -> ScriptedMonitor:
        nodes = _deep(depth, children=False)
        block = [{"qdev": "vda", "inserted": {"node-name": "n0"}}]
        return qemu(
            query_named_block_nodes=nodes,
            x_debug_query_block_graph=_debug(nodes),
            query_block=block,
        )

    def test_chain_that_is_too_deep(self) -> None:
        monitor = self.deep(200)
        with pytest.raises(GuestWouldStall, match="200 layers") as caught:
            Reader(monitor).read()
        assert monitor.commands() == [JOBS, DEBUG]
        assert caught.value.enough == math.ceil(caught.value.seconds) > MAX_STALL_S
        assert f"--max-stall {caught.value.enough}" in caught.value.way_out

    def test_as_much_as_is_allowed(self) -> None:
        with pytest.raises(GuestWouldStall) as caught:
            Reader(self.deep(200)).read()
        allowed = Reader(self.deep(200), max_stall_s=caught.value.enough)
        assert len(names(allowed)) == 200
        with pytest.raises(GuestWouldStall):
            Reader(self.deep(200), max_stall_s=caught.value.seconds * 0.9).read()

    def test_without_a_limit(self) -> None:
        assert len(names(Reader(self.deep(1000), max_stall_s=None))) == 1000

    def test_names_that_do_not_nest(self) -> None:
        graph = Reader(self.deep(200)).read(names_are_plain=lambda: True)
        assert len(graph.nodes) == 200

    def test_too_deep_for_plain_names_too(self) -> None:
        with pytest.raises(GuestWouldStall):
            Reader(self.deep(1000)).read(names_are_plain=lambda: True)

    def test_names_are_not_looked_at_where_it_does_not_matter(self) -> None:
        def look() -> bool:
            raise AssertionError("not needed")

        Reader(self.deep(64)).read(names_are_plain=look)

    def test_what_has_begun_is_read_to_its_end(self) -> None:
        monitor, deeper = self.deep(64), self.deep(200)
        reader = Reader(monitor)
        reader.read()
        monitor.answers |= deeper.answers
        assert len(reader.read().nodes) == 200

    def test_depth_by_blockstats(self) -> None:
        monitor = without(self.deep(0), DEBUG)
        stats: dict[str, object] = {"node-name": "n199"}
        for number in reversed(range(199)):
            stats = {"node-name": f"n{number}", "backing": stats}
        monitor.answers[STATS] = [stats]
        with pytest.raises(GuestWouldStall, match="200 layers"):
            Reader(monitor).read()
        assert monitor.commands() == [JOBS, DEBUG, STATS]


class TestTorn:
    def test_node_that_comes_between(self) -> None:
        recorded = recordings.replies("qcow2-chain")
        late = {"node-name": "new", "drv": "qcow2"}
        monitor = qemu(query_named_block_nodes=Each([*recorded[NODES], late], recorded[NODES]))
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.commands().count(NODES) == 2

    @pytest.mark.parametrize("make", [qemu, later_qemu])
    def test_switch_to_an_overlay_that_was_open_before(self, make: Any) -> None:
        """No node comes, no job is there: only the device's root tells."""
        monitor = make()
        before, after = (recordings.replies("qcow2-chain") for _ in range(2))
        for recorded in before, after:
            for replies in (NODES, DEBUG):
                _add_overlay(recorded, replies)
        after[BLOCK][0]["inserted"]["node-name"] = "new"
        top = _id_of(after, "top")
        for edge in after[DEBUG]["edges"]:
            if edge["name"] == "root" and edge["child"] == top:
                edge["child"] = 1000
        after[DEBUG]["edges"] += [{"parent": 1000, "child": top, "name": "backing"}]
        if make is later_qemu:
            for recorded in before, after:
                recorded[NODES] = recordings.with_children(recorded)
        monitor.answers[NODES] = Each(before[NODES], after[NODES])
        monitor.answers[DEBUG] = Each(before[DEBUG], after[DEBUG])
        monitor.answers[BLOCK] = after[BLOCK]
        assert names(Reader(monitor)) == ["new", "top", "mid", "base"]
        assert monitor.commands().count(NODES) == 2

    def test_node_that_is_missing_once(self) -> None:
        recorded = recordings.replies("qcow2-chain")[NODES]
        monitor = qemu(query_named_block_nodes=Each(recorded[:-1], recorded))
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.commands().count(NODES) == 2

    def test_root_that_is_missing(self) -> None:
        away = [{"qdev": "vda", "inserted": {"node-name": "gone"}}]
        recorded = recordings.replies("qcow2-chain")[BLOCK]
        monitor = qemu(query_block=Each(away, away, recorded))
        assert names(Reader(monitor)) == ["top", "mid", "base"]
        assert monitor.commands().count(BLOCK) == 3

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ([], [{"id": "a", "type": "commit", "status": "running"}]),
            ([{"id": "a", "type": "commit", "status": "running"}], []),
            (
                [{"id": "a", "type": "commit", "status": "running"}],
                [{"id": "a", "type": "commit", "status": "ready"}],
            ),
            (
                [{"id": "a", "type": "commit", "status": "running"}],
                [{"id": "b", "type": "commit", "status": "running"}],
            ),
        ],
    )
    def test_job_that_changed_in_between(self, before: object, after: object) -> None:
        monitor = qemu(query_jobs=Each(before, after))
        Reader(monitor).read()
        assert monitor.commands().count(NODES) == 2

    def test_progress_of_a_job_is_no_change(self) -> None:
        job = {"id": "a", "type": "commit", "status": "running", "current-progress": 1}
        monitor = qemu(query_jobs=Each([job], [job | {"current-progress": 2}]))
        Reader(monitor).read()
        assert monitor.commands().count(NODES) == 1

    def test_every_time(self) -> None:
        recorded = recordings.replies("qcow2-chain")[NODES]
        monitor = qemu(query_named_block_nodes=recorded[:-1])
        with pytest.raises(TornReading, match="no node base-file") as caught:
            Reader(monitor).read()
        assert monitor.commands().count(NODES) == TRIES == caught.value.tries
        assert caught.value.changed == "no"

    def test_jobs_every_time(self) -> None:
        states = ("created", "running", "ready", "standby") * TRIES
        jobs = [[{"id": "a", "type": "commit", "status": state}] for state in states]
        with pytest.raises(TornReading, match="a job changed its state"):
            Reader(qemu(query_jobs=Each(*jobs))).read()


class TestStreamThatLingers:
    """QEMU 7.2 crashes when its nodes are read while a finished stream waits to be dismissed."""

    def monitor(
        self,
        status: str,
        *,
        bare: bool = False,
        details: Mapping[str, object] = MappingProxyType({}),
    ) -> ScriptedMonitor:
        """A stream started as libvirt does: it ends by itself, and waits to be dismissed."""
        told = {
            "device": "pull",
            "type": "stream",
            "status": status,
            "auto-finalize": True,
            "auto-dismiss": False,
        }
        debug = recordings.replies("qcow2-chain")[DEBUG]
        filter_ = {"id": 1000, "type": "block-driver", "name": "#block9"}
        debug["nodes"] += [filter_, {"id": 1001, "type": "block-job", "name": "pull"}]
        debug["edges"] += [{"parent": 1001, "child": 1000, "name": "main node"}]
        top = _id_of({DEBUG: debug}, "top")
        if not bare:
            debug["edges"] += [{"parent": 1000, "child": top, "name": "file"}]
        nodes = recordings.replies("qcow2-chain")[NODES]
        nodes += [{"node-name": "#block9", "drv": "copy-on-read"}]
        return qemu(
            query_jobs=[{"id": "pull", "type": "stream", "status": status}],
            query_block_jobs=[{**told, **details}],
            x_debug_query_block_graph=debug,
            query_named_block_nodes=nodes,
        )

    @pytest.mark.parametrize("status", ["created", "running", "paused", "ready"])
    def test_one_that_may_end_by_itself(self, status: str) -> None:
        monitor = self.monitor(status)
        with pytest.raises(StreamLingers, match="pull"):
            Reader(monitor).read()
        assert NODES not in monitor.commands()

    def test_one_that_has_ended_and_left_its_filter_bare(self) -> None:
        monitor = self.monitor("concluded", bare=True)
        with pytest.raises(StreamLingers, match="pull"):
            Reader(monitor).read()
        assert NODES not in monitor.commands()

    def test_one_that_ends_between_two_questions(self) -> None:
        """Of another disk, by another thread: two merges of one guest end at the same time."""
        monitor = self.monitor("running", details={"status": "concluded"})
        with pytest.raises(StreamLingers, match="pull"):
            Reader(monitor).read()
        assert NODES not in monitor.commands()

    def test_one_that_has_ended_on_a_qemu_without_the_fault(self) -> None:
        monitor = self.monitor("concluded")
        assert "#block9" in Reader(monitor).read().nodes
        assert "query-block-jobs" not in monitor.commands()

    def test_one_that_has_ended_and_nothing_shows_its_filter(self) -> None:
        monitor = without(self.monitor("concluded"), DEBUG)
        with pytest.raises(StreamLingers):
            Reader(monitor).read()
        assert NODES not in monitor.commands()

    @pytest.mark.parametrize("details", [{"auto-dismiss": True}, {"auto-finalize": False}])
    def test_one_that_will_not_be_left_behind(self, details: dict[str, object]) -> None:
        assert Reader(self.monitor("running", details=details)).read().incomplete is None

    @pytest.mark.parametrize("status", ["created", "running", "paused", "ready", "concluded"])
    @pytest.mark.parametrize(("major", "is_read"), [(5, True), (7, False), (10, True), (11, True)])
    @pytest.mark.parametrize("told", [True, False], ids=["debug graph", "none"])
    def test_only_a_qemu_that_has_the_fault(
        self, status: str, major: int, is_read: bool, told: bool
    ) -> None:
        monitor = self.monitor(status)
        if not told:
            monitor = without(monitor, DEBUG)
            # Blockstats do not show a filter that nothing reads.
            nodes = monitor.answers[NODES]
            assert isinstance(nodes, list)
            monitor.answers[NODES] = nodes[:-1]
        version = {"qemu": {"major": major, "minor": 2, "micro": 0}, "package": ""}
        monitor.answers["query-version"] = version
        if is_read or (status == "concluded" and told):
            assert Reader(monitor).read().incomplete is None
            return
        with pytest.raises(StreamLingers, match="pull"):
            Reader(monitor).read()
        assert NODES not in monitor.commands()

    @pytest.mark.parametrize("version", [None, {}, {"qemu": {}}, {"qemu": {"major": "11"}}, []])
    def test_version_that_is_not_told(self, version: object) -> None:
        monitor = self.monitor("running")
        monitor.answers["query-version"] = version
        with pytest.raises(StreamLingers):
            Reader(monitor).read()

    def test_details_that_are_not_told(self) -> None:
        monitor = self.monitor("running")
        monitor.answers["query-block-jobs"] = refused("query-block-jobs")
        assert Reader(monitor).read().incomplete is None

    @pytest.mark.parametrize(("status", "bare"), [("running", False), ("concluded", True)])
    def test_a_look_is_content_with_the_devices(self, status: str, bare: bool) -> None:
        monitor = self.monitor(status, bare=bare)
        images: dict[str, object] | None = None
        for name, format_ in (("base", "raw"), ("mid", "qcow2"), ("top", "qcow2")):
            below = {"backing-image": images} if images else {}
            images = {"filename": f"/share/{name}", "format": format_, **below}
        blocks = recordings.replies("qcow2-chain")[BLOCK]
        blocks[0]["inserted"]["image"] = images
        monitor.answers[BLOCK] = blocks
        graph = Reader(monitor, partly=True).read()
        assert "stream job pull" in (graph.incomplete or "")
        assert NODES not in monitor.commands()
        (device,) = graph.devices
        assert device.root == "top"
        drivers = [layer.node.driver for layer in chain(graph, "top")]
        assert drivers == ["qcow2", "qcow2", "raw"]

    def test_a_look_where_nothing_may_nest(self) -> None:
        monitor = self.monitor("running")
        with pytest.raises(StreamLingers):
            Reader(monitor, partly=True).read(nested_ok=False)
        assert BLOCK not in monitor.commands()

    def test_a_recording_does_not_crash(self) -> None:
        monitor = self.monitor("concluded", bare=True)
        assert "#block9" in Reader(monitor, crashes=False).read().nodes

    def test_other_jobs_cost_no_query(self) -> None:
        monitor = qemu("commit-running")
        Reader(monitor).read()
        assert "query-block-jobs" not in monitor.commands()


class TestDetails:
    @pytest.mark.parametrize(
        ("reply", "name"),
        [
            ({"name": "web1"}, "web1"),
            ({}, None),
            ({"name": 7}, None),
            (7, None),
            (refused("query-name"), None),
        ],
    )
    def test_name_is_asked_for_once(self, reply: object, name: str | None) -> None:
        monitor = ScriptedMonitor({"query-name": reply})
        reader = Reader(monitor)
        assert [reader.details(devices()).name for _ in range(2)] == [name] * 2
        assert monitor.commands() == ["query-name"]

    @pytest.mark.parametrize(
        ("qdev", "path"),
        [
            ("cd0", "/machine/peripheral/cd0"),
            (
                "/machine/peripheral/vda/virtio-backend",
                "/machine/peripheral/vda/virtio-backend",
            ),
        ],
    )
    def test_serial_is_asked_for_once(self, qdev: str, path: str) -> None:
        monitor = ScriptedMonitor({"qom-get": "1234"})
        reader, found = Reader(monitor), devices(qdev)
        name = found.devices[0].name
        assert [reader.details(found).serials for _ in range(2)] == [{name: "1234"}] * 2
        assert monitor.arguments_of("qom-get") == [{"path": path, "property": "serial"}]
        assert monitor.hops == [["query-name", "qom-get"]]

    @pytest.mark.parametrize("answer", [refused("qom-get"), "", None, 7])
    def test_device_without_a_serial_is_asked_once_too(self, answer: object) -> None:
        monitor = ScriptedMonitor({"qom-get": answer})
        reader = Reader(monitor)
        assert [reader.details(devices("vda")).serials for _ in range(2)] == [{}, {}]
        assert len(monitor.arguments_of("qom-get")) == 1

    def test_device_that_was_away(self) -> None:
        """Another one may have come under its name."""
        monitor = ScriptedMonitor({"qom-get": Each("1", "2")})
        reader = Reader(monitor)
        found = [reader.details(devices(*names)).serials for names in (["a"], [], ["a"])]
        assert found == [{"a": "1"}, {}, {"a": "2"}]

    def test_backend_without_a_device_is_not_asked(self) -> None:
        monitor = ScriptedMonitor({})
        assert Reader(monitor).details(devices(None)).serials == {}
        assert monitor.commands() == ["query-name"]


class TestAllSerialsAtOnce:
    """QEMU 10.1 and later tell the properties of many devices in one reply."""

    def monitor(self, answer: object) -> ScriptedMonitor:
        return ScriptedMonitor(
            {
                "qom-list-get": answer,
                "qom-get": lambda arguments: arguments["path"].rpartition("/")[2],
            }
        )

    def test_one_query_for_all(self) -> None:
        told = [
            _properties(serial="1"),
            _properties(removable=True),
            _properties(serial=""),
            _properties(serial="4"),
        ]
        monitor = self.monitor(told)
        reader = Reader(monitor)
        for _ in range(2):
            found = reader.details(devices("a", "b", "c", "d"))
            assert found.serials == {"a": "1", "d": "4"}
        paths = [f"/machine/peripheral/{name}" for name in "abcd"]
        assert monitor.arguments_of("qom-list-get") == [{"paths": paths}]
        assert "qom-get" not in monitor.commands()

    def test_qemu_that_lacks_it_is_asked_once(self) -> None:
        monitor = self.monitor(not_found("qom-list-get"))
        reader = Reader(monitor)
        assert reader.details(devices("a", "b")).serials == {"a": "a", "b": "b"}
        assert len(reader.details(devices("a", "b", "c", "d")).serials) == 4
        assert monitor.commands().count("qom-list-get") == 1
        assert monitor.hops[1] == ["query-name", "qom-get", "qom-get"]

    def test_device_that_was_unplugged(self) -> None:
        monitor = self.monitor(refused("qom-list-get", "Device 'b' not found"))
        assert Reader(monitor).details(devices("a", "b")).serials == {"a": "a", "b": "b"}
        assert monitor.commands().count("qom-list-get") == 1

    def test_only_new_devices_are_asked_about(self) -> None:
        monitor = self.monitor([_properties(serial="1"), _properties(serial="2")])
        reader = Reader(monitor)
        reader.details(devices("a", "b"))
        assert reader.details(devices("a", "b", "c")).serials == {"a": "1", "b": "2", "c": "c"}
        assert monitor.commands().count("qom-list-get") == 1

    @pytest.mark.parametrize("answer", [[], [{"properties": []}], {}, [{"properties": 7}] * 2])
    def test_reply_that_is_not_one(self, answer: object) -> None:
        with pytest.raises(MalformedReply, match="qom-list-get"):
            Reader(self.monitor(answer)).details(devices("a", "b"))


def devices(*qdevs: str | None) -> Graph:
    """Nothing but devices."""
    found = tuple(Device(device="" if qdev else "old", qdev=qdev, root=None) for qdev in qdevs)
    return Graph(devices=found, nodes={}, edges=())


def _properties(**values: object) -> dict[str, object]:
    """ObjectPropertiesValues."""
    rest = {"type": "scsi-hd", "realized": True}
    return {
        "properties": [
            {"name": name, "type": "str", "value": value} for name, value in (rest | values).items()
        ]
        + [{"name": "unreadable", "type": "str"}]
    }


def _add_overlay(recorded: dict[str, Any], command: str) -> None:
    """A node `new` that nothing reads yet."""
    if command == NODES:
        recorded[NODES] += [{"node-name": "new", "drv": "qcow2"}]
    else:
        recorded[DEBUG]["nodes"] += [{"id": 1000, "type": "block-driver", "name": "new"}]


def _id_of(recorded: dict[str, Any], name: str) -> int:
    (found,) = (node["id"] for node in recorded[DEBUG]["nodes"] if node["name"] == name)
    assert isinstance(found, int)
    return found


def _deep(depth: int, *, children: bool) -> list[dict[str, object]]:
    """Flat list of a chain of so many raw protocol nodes, `n0` the active one."""
    nodes: list[dict[str, object]] = []
    for number in range(depth):
        below = [{"child": "backing", "node-name": f"n{number + 1}"}] if number + 1 < depth else []
        node: dict[str, object] = {"node-name": f"n{number}", "drv": "qcow2"}
        nodes.append(node | ({"children": below} if children else {}))
    return nodes


def _debug(nodes: list[dict[str, object]]) -> dict[str, object]:
    return {
        "nodes": [
            {"id": number, "type": "block-driver", "name": node["node-name"]}
            for number, node in enumerate(nodes)
        ],
        "edges": [
            {"parent": number, "child": number + 1, "name": "backing"}
            for number in range(len(nodes) - 1)
        ],
    }
