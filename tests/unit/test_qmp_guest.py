"""A guest over its own QMP socket: what it asks, hears and takes, by scripted replies."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files.neighbours import room_of
from qmpsnap.guests.qmp.guest import RECONNECTS, QmpGuest
from qmpsnap.guests.qmp.jobs import job_reports
from qmpsnap.monitor.abilities import Ability
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    LostWhileReading,
    reading,
)
from qmpsnap.monitor.socket import CannotConnect
from qmpsnap.operations.guest import Guest, State
from qmpsnap.operations.job.states import Heard, IoStatus, JobReport, JobStatus, JobView
from qmpsnap.operations.options import DEFAULT_OPTIONS
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.requests import DeleteRequest
from qmpsnap.operations.step import Does, NotNow, Step
from tests.rig.waiting import HANG_S
from tests.unit import recordings, samples
from tests.unit.scripted import Each, ScriptedMonitor, not_found, refused

JOB = {
    "id": "qmpsnap-commit-1",
    "type": "commit",
    "status": "paused",
    "current-progress": 3,
    "total-progress": 9,
}
DETAILS = {
    "type": "commit",
    "device": "qmpsnap-commit-1",
    "speed": 8,
    "io-status": "nospace",
}
GRAPH = {
    "nodes": [
        {"id": 1, "type": "block-backend", "name": "/machine/peripheral/vda/virtio-backend"},
        {"id": 2, "type": "block-driver", "name": "filter"},
        {"id": 3, "type": "block-driver", "name": "top"},
        {"id": 4, "type": "block-driver", "name": "base"},
        {"id": 5, "type": "block-backend", "name": "vdb"},
        {"id": 6, "type": "block-driver", "name": "other"},
        {"id": 7, "type": "block-job", "name": "qmpsnap-commit-1"},
        {"id": 8, "type": "block-backend", "name": ""},
    ],
    "edges": [
        {"parent": 1, "child": 2, "name": "root"},
        {"parent": 2, "child": 3, "name": "backing"},
        {"parent": 3, "child": 4, "name": "backing"},
        {"parent": 5, "child": 6, "name": "root"},
        {"parent": 7, "child": 3, "name": "intermediate node"},
        {"parent": 7, "child": 4, "name": "base"},
        {"parent": 8, "child": 4, "name": "root"},
    ],
}


def qemu(**answers: object) -> ScriptedMonitor:
    given: dict[str, object] = {
        "query-jobs": [JOB],
        "query-block-jobs": [DETAILS],
        "x-debug-query-block-graph": GRAPH,
    }
    return ScriptedMonitor(given | {name.replace("_", "-"): a for name, a in answers.items()})


def test_it_is_a_guest() -> None:
    guest: Guest = QmpGuest(qemu())
    assert guest.jobs() == job_reports(qemu())


@pytest.mark.parametrize("ability", [Ability.MASKED_COMMIT, Ability.MASKED_STREAM])
def test_what_its_qemu_takes_is_asked_for_command_by_command(ability: Ability) -> None:
    guest = QmpGuest(ScriptedMonitor({}, can={ability}))
    disk = samples.disk(3)
    state, masked = State(run="running"), []
    for merge, target in (("volume-1.s1", "volume-1"), ("volume-1", None)):
        request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
        plan = plan_delete(samples.guest(disk), request)
        start = guest.compose.merge(plan, DEFAULT_OPTIONS, state).start
        masked.append("backing-mask-protocol" in start.arguments)
    assert masked == [ability is Ability.MASKED_COMMIT, ability is Ability.MASKED_STREAM]


class TestReports:
    def test_of_a_job(self) -> None:
        assert job_reports(qemu()) == (
            JobReport(
                id="qmpsnap-commit-1",
                type="commit",
                disk="vda",
                view=JobView(
                    status=JobStatus.PAUSED, current=3, total=9, io_status=IoStatus.NOSPACE
                ),
                bandwidth=8,
                ours=True,
            ),
        )

    def test_ask_for_no_node(self) -> None:
        """A stream that has ended and is not dismissed would make that crash QEMU 7.2."""
        monitor = qemu()
        job_reports(monitor)
        assert set(monitor.commands()) == {
            "query-jobs",
            "query-block-jobs",
            "x-debug-query-block-graph",
        }
        assert monitor.hops == [["query-block-jobs", "query-jobs"]]

    def test_without_a_graph_name_no_disk(self) -> None:
        (found,) = job_reports(qemu(x_debug_query_block_graph=not_found("x")))
        assert found.disk is None

    def test_of_a_job_on_two_disks_name_none(self) -> None:
        both = {**GRAPH, "edges": [*GRAPH["edges"], {"parent": 7, "child": 6, "name": "x"}]}
        (found,) = job_reports(qemu(x_debug_query_block_graph=both))
        assert found.disk is None

    def test_leave_out_what_is_no_block_job(self) -> None:
        monitor = qemu(query_block_jobs=[])
        assert job_reports(monitor) == ()
        assert "x-debug-query-block-graph" not in monitor.commands()

    def test_of_words_that_a_later_qemu_has(self) -> None:
        job, details = {**JOB, "status": "dreaming"}, {**DETAILS, "io-status": "on fire"}
        (found,) = job_reports(qemu(query_jobs=[job], query_block_jobs=[details]))
        assert found.view.status is JobStatus.UNDEFINED
        assert found.view.io_status is IoStatus.FAILED


class TestView:
    def test_of_a_job_that_has_paused_itself(self) -> None:
        assert QmpGuest(qemu()).view("qmpsnap-commit-1").io_status is IoStatus.NOSPACE

    def test_of_a_job_that_runs_does_not_ask_twice(self) -> None:
        monitor = qemu(query_jobs=[{**JOB, "status": "running"}])
        QmpGuest(monitor).view("qmpsnap-commit-1")
        assert monitor.commands() == ["query-jobs"]

    @pytest.mark.parametrize("status", JobStatus)
    def test_status_and_progress(self, status: JobStatus) -> None:
        found = QmpGuest(qemu(query_jobs=[{**JOB, "status": status}])).view("qmpsnap-commit-1")
        assert (found.status, found.current, found.total) == (status, 3, 9)

    @pytest.mark.parametrize(
        ("status", "error"), [("concluded", "no"), ("null", "no"), ("running", None)]
    )
    def test_error(self, status: str, error: str | None) -> None:
        told = {**JOB, "status": status, "error": "no"}
        assert QmpGuest(qemu(query_jobs=[told])).view("qmpsnap-commit-1").error == error

    def test_of_a_job_that_is_gone(self) -> None:
        assert QmpGuest(qemu()).view("job0") == JobView(status=JobStatus.NULL)


class TestWait:
    @pytest.mark.parametrize(
        ("event", "heard"),
        [
            (Event("JOB_STATUS_CHANGE", {"id": "a", "status": "ready"}), Heard()),
            (Event("BLOCK_JOB_COMPLETED", {"device": "a"}), Heard(ended=True)),
            (
                Event("BLOCK_JOB_COMPLETED", {"device": "a", "error": "No space"}),
                Heard(ended=True, failed=True, reason="No space"),
            ),
            (
                Event("BLOCK_JOB_CANCELLED", {"device": "a"}),
                Heard(ended=True, failed=True, reason="it was cancelled"),
            ),
        ],
    )
    def test_what_an_event_of_the_job_says(self, event: Event, heard: Heard) -> None:
        monitor = qemu()
        for one in (
            Event("JOB_STATUS_CHANGE", {"id": "other"}),
            Event("BLOCK_JOB_COMPLETED", {"device": "other", "error": "No space"}),
            Event("SHUTDOWN"),
            event,
        ):
            monitor.events.put(one)
        assert QmpGuest(monitor).wait("a", HANG_S) == heard

    def test_what_came_together_is_heard_together(self) -> None:
        """Each look takes a round trip."""
        monitor = qemu()
        for status in ("created", "running", "waiting", "pending"):
            monitor.events.put(Event("JOB_STATUS_CHANGE", {"id": "a", "status": status}))
        monitor.events.put(Event("BLOCK_JOB_COMPLETED", {"device": "a"}))
        assert QmpGuest(monitor).wait("a", HANG_S) == Heard(ended=True)
        assert monitor.events.empty()

    @pytest.mark.parametrize("told", [["created"], ["created", "running"]])
    def test_that_a_job_begins_is_no_news(self, told: list[str]) -> None:
        monitor = qemu()
        for status in told:
            monitor.events.put(Event("JOB_STATUS_CHANGE", {"id": "a", "status": status}))
        threading.Timer(
            0.01,
            lambda: monitor.events.put(Event("BLOCK_JOB_COMPLETED", {"device": "a"})),
        ).start()
        assert QmpGuest(monitor).wait("a", HANG_S) == Heard(ended=True)

    def test_that_a_job_goes_on_is(self) -> None:
        monitor = qemu()
        monitor.events.put(Event("JOB_STATUS_CHANGE", {"id": "a", "status": "running"}))
        assert QmpGuest(monitor).wait("a", HANG_S) == Heard()

    def test_what_was_heard_before_the_connection_broke_counts(self) -> None:
        monitor = qemu()
        monitor.events.put(Event("BLOCK_JOB_CANCELLED", {"device": "a"}))
        monitor.events.put(Event(CONNECTION_LOST))
        guest = QmpGuest(monitor)
        assert guest.wait("a", HANG_S).failed
        with pytest.raises(ConnectionLost):
            guest.wait("a", HANG_S)

    @pytest.mark.parametrize("timeout", [0, 0.01])
    def test_nothing_is_heard(self, timeout: float) -> None:
        assert QmpGuest(qemu()).wait("a", timeout) == Heard()

    def test_connection_that_is_lost(self) -> None:
        monitor = qemu()
        monitor.events.put(Event(CONNECTION_LOST))
        with pytest.raises(ConnectionLost):
            QmpGuest(monitor).wait("a", 30)

    def test_what_was_said_before_is_not_about_this_job(self) -> None:
        """The same merge tried again has the same id."""
        monitor = qemu()
        monitor.events.put(Event("BLOCK_JOB_CANCELLED", {"device": "a"}))
        guest = QmpGuest(monitor)
        guest.follow("a")
        assert guest.wait("a", 0.01) == Heard()


class TestTake:
    STEP = Step(does=Does.START, by="qmp", what="block-commit", arguments={"job-id": "a"})

    def test_sends_the_step_and_returns_the_answer(self) -> None:
        monitor = qemu(block_commit={"x": 1})
        assert QmpGuest(monitor).take(self.STEP) == {"x": 1}
        assert monitor.sent == [("block-commit", {"job-id": "a"})]

    @pytest.mark.parametrize("does", [Does.COMMIT, Does.CANCEL, Does.DISMISS])
    @pytest.mark.parametrize("error", [refused("block-commit"), not_found("block-commit")])
    def test_what_a_job_is_not_in_the_state_for(self, does: Does, error: CommandFailed) -> None:
        guest = QmpGuest(qemu(block_commit=error))
        with pytest.raises(NotNow, match="block-commit was not possible now") as caught:
            guest.take(replace(self.STEP, does=does))
        assert caught.value.changed == "no"

    @pytest.mark.parametrize("does", [Does.START, Does.FLUSH, Does.CLOSE, Does.SPEED, Does.PAUSE])
    def test_what_is_refused(self, does: Does) -> None:
        guest = QmpGuest(qemu(block_commit=refused("block-commit")))
        with pytest.raises(CommandFailed):
            guest.take(replace(self.STEP, does=does))

    def test_what_is_lost_is_lost(self) -> None:
        guest = QmpGuest(qemu(block_commit=LostInMidCommand("block-commit", "gone")))
        with pytest.raises(LostInMidCommand):
            guest.take(replace(self.STEP, does=Does.COMMIT))

    def test_files_and_the_agent_are_no_business_of_qemu(self, tmp_path: Path) -> None:
        monitor, file = qemu(), tmp_path / "file"
        file.touch()
        guest = QmpGuest(monitor)
        path: dict[str, object] = {"path": str(file)}
        guest.take(Step(does=Does.REMOVE, by="file", what="unlink", arguments=path))
        assert not file.exists()
        limit: dict[str, object] = {"limit_s": 1.0}
        with pytest.raises(CannotFreeze):
            guest.take(Step(does=Does.FREEZE, by="agent", what="x", arguments=limit))
        assert monitor.sent == []


class TestState:
    """Source: MigrationStatus, qapi/migration.json; RunState, qapi/run-state.json."""

    @pytest.mark.parametrize(
        ("run", "migration", "told"),
        [
            ("running", None, None),
            ("running", "none", None),
            ("running", "completed", None),
            ("running", "failed", None),
            ("running", "active", "active"),
            ("paused", "pre-switchover", "pre-switchover"),
            ("inmigrate", None, "inmigrate"),
            ("inmigrate", "none", "inmigrate"),
            ("postmigrate", "completed", "postmigrate"),
            ("finish-migrate", "device", "device"),
        ],
    )
    def test_migration(self, run: str, migration: str | None, told: str | None) -> None:
        monitor = qemu(
            query_status={"status": run},
            query_migrate={} if migration is None else {"status": migration},
        )
        assert QmpGuest(monitor).state() == State(run=run, migration=told)
        assert monitor.hops == [["query-status", "query-migrate"]]

    def test_a_daemon_that_has_neither(self) -> None:
        assert QmpGuest(qemu()).state() == State(run=None)


class TestRead:
    def recorded(self, name: str, **more: object) -> ScriptedMonitor:
        return ScriptedMonitor({**recordings.replies(name), "query-qmp-schema": [], **more})

    def test_name_and_serials(self) -> None:
        answers = {"query-name": {"name": "web1"}, "qom-get": lambda given: given["path"]}
        found = QmpGuest(self.recorded("two-disks", **answers)).read()
        assert found.guest == "web1"
        assert {disk.disk: disk.serial for disk in found.disks} == {
            "vda": "/machine/peripheral/vda/virtio-backend",
            "sda": "/machine/peripheral/sda",
        }

    @pytest.mark.parametrize("pid", [7, None])
    def test_command_line_tells_what_was_started_without_a_format(
        self, pid: int | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = ["qemu", "-drive", "file=/share/top"]
        monkeypatch.setattr("qmpsnap.guests.qmp.guest._command_line", lambda _: line)
        (disk,) = QmpGuest(self.recorded("drive"), pid=pid).read().disks
        assert ("probed" in disk.layers[0].flags) == (pid is not None)

    @pytest.mark.parametrize(
        "error", [LostInMidCommand("query-block", "gone"), CommandTimedOut("query-block", 30)]
    )
    def test_guest_that_stops_answering(self, error: Exception) -> None:
        with pytest.raises(LostWhileReading) as caught:
            QmpGuest(self.recorded("raw-node", **{"query-block": error})).read()
        assert (caught.value.exit_code, caught.value.changed) == (7, "no")


def lost_while_reading() -> QmpsnapError:
    try:
        with reading():
            raise LostInMidCommand("query-block", "gone")
    except LostWhileReading as error:
        return error


class TestReconnect:
    @pytest.mark.parametrize(
        "error", [ConnectionLost("a", "b"), LostInMidCommand("a", "b"), lost_while_reading()]
    )
    def test_goes_on_with_another_monitor(self, error: QmpsnapError) -> None:
        first, second = qemu(), qemu(query_jobs=[])
        guest = QmpGuest(first, connect=lambda: second)
        assert guest.reconnect(error)
        guest.view("a")
        assert (first.sent, second.commands()) == ([], ["query-jobs"])

    @pytest.mark.parametrize(
        "error", [CommandTimedOut("a", 30), CommandFailed("a", "b", "c"), LostWhileReading("x")]
    )
    def test_is_for_lost_connections_only(self, error: QmpsnapError) -> None:
        guest = QmpGuest(qemu(), connect=qemu)
        assert not guest.reconnect(error)

    def test_needs_a_way_to_connect(self) -> None:
        assert not QmpGuest(qemu()).reconnect(ConnectionLost("a", "b"))

    def test_tries_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qmpsnap.guests.reconnect.PAUSE_S", 0.0)
        tries = Each(CannotConnect("a", "b", "c"), CannotConnect("a", "b", "c"), qemu())

        def connect() -> ScriptedMonitor:
            found = tries.next()
            if isinstance(found, ScriptedMonitor):
                return found
            assert isinstance(found, QmpsnapError)
            raise found

        assert QmpGuest(qemu(), connect=connect).reconnect(ConnectionLost("a", "b"))

    def test_gives_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qmpsnap.guests.qmp.guest.RECONNECT_S", 0.0)

        def connect() -> ScriptedMonitor:
            raise CannotConnect("a", "b", "c")

        assert not QmpGuest(qemu(), connect=connect).reconnect(ConnectionLost("a", "b"))

    def test_has_a_bound(self) -> None:
        guest = QmpGuest(qemu(), connect=qemu)
        tries = [guest.reconnect(ConnectionLost("a", "b")) for _ in range(RECONNECTS + 1)]
        assert tries == [True] * RECONNECTS + [False]

    def test_close_ends_what_was_made_here(self) -> None:
        class Closable(ScriptedMonitor):
            closed = False

            def close(self) -> None:
                self.closed = True

        first, second = Closable({}), Closable({})
        guest = QmpGuest(first, connect=lambda: second)
        guest.reconnect(ConnectionLost("a", "b"))
        guest.close()
        assert (first.closed, second.closed) == (False, True)


def test_room_is_told_of_regular_files_only() -> None:
    assert room_of(None) is None
    assert room_of("/nowhere/at/all") is None
    assert room_of("/dev/null") is None
    found = room_of(__file__)
    assert found is not None
    assert found.free >= 0
    assert __file__.startswith(found.mount)
