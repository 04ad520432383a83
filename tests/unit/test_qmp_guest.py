"""What the direct road reads and sends about jobs, by scripted replies."""

from __future__ import annotations

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files.neighbours import room_of
from qmpsnap.guests.qmp import guest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.qmp.jobs import job_reports
from qmpsnap.monitor.base import (
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    LostWhileReading,
    reading,
)
from qmpsnap.monitor.socket import CannotConnect
from qmpsnap.operations.job.states import IoStatus, JobReport, JobStatus, JobView
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

    @pytest.mark.parametrize(
        ("event", "error"),
        [
            (Event("BLOCK_JOB_COMPLETED", {"device": "a", "error": "No space"}), "No space"),
            (Event("BLOCK_JOB_COMPLETED", {"device": "a"}), None),
            (Event("BLOCK_JOB_COMPLETED", {"device": "b", "error": "No space"}), None),
            (Event("BLOCK_JOB_CANCELLED", {"device": "a"}), "it was cancelled"),
        ],
    )
    def test_of_a_job_that_is_gone_tells_what_was_heard_of_it(
        self, event: Event, error: str | None
    ) -> None:
        monitor = qemu(query_jobs=[])
        monitor.events.put(event)
        host = QmpGuest(monitor)
        host.wait("a", 0.01)
        assert host.view("a") == JobView(status=JobStatus.NULL, error=error)


class TestCommands:
    def test_what_is_sent(self) -> None:
        answers: dict[str, object] = {
            "job_cancel": {},
            "job_pause": {},
            "job_resume": {},
            "block_job_set_speed": {},
        }
        monitor = qemu(**answers)
        host = QmpGuest(monitor)
        assert host.cancel("a")
        host.pause("a")
        host.resume("a")
        host.set_speed("a", 8)
        assert monitor.sent == [
            ("job-cancel", {"id": "a"}),
            ("job-pause", {"id": "a"}),
            ("job-resume", {"id": "a"}),
            ("block-job-set-speed", {"device": "a", "speed": 8}),
        ]

    @pytest.mark.parametrize("status", ["aborting", "concluded"])
    def test_cancel_that_comes_too_late(self, status: str) -> None:
        monitor = qemu(job_cancel=refused("job-cancel"), query_jobs=[{**JOB, "status": status}])
        assert not QmpGuest(monitor).cancel("qmpsnap-commit-1")

    def test_cancel_that_is_refused(self) -> None:
        with pytest.raises(CommandFailed):
            QmpGuest(qemu(job_cancel=refused("job-cancel"))).cancel("qmpsnap-commit-1")


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
        host = QmpGuest(first, connect=lambda: second)
        assert host.reconnect(error)
        host.view("a")
        assert (first.sent, second.commands()) == ([], ["query-jobs"])

    @pytest.mark.parametrize(
        "error", [CommandTimedOut("a", 30), CommandFailed("a", "b", "c"), LostWhileReading("x")]
    )
    def test_is_for_lost_connections_only(self, error: QmpsnapError) -> None:
        host = QmpGuest(qemu(), connect=qemu)
        assert not host.reconnect(error)

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
        host = QmpGuest(qemu(), connect=qemu)
        tries = [host.reconnect(ConnectionLost("a", "b")) for _ in range(guest.RECONNECTS + 1)]
        assert tries == [True] * guest.RECONNECTS + [False]

    def test_close_ends_what_was_made_here(self) -> None:
        class Closable(ScriptedMonitor):
            closed = False

            def close(self) -> None:
                self.closed = True

        first, second = Closable({}), Closable({})
        host = QmpGuest(first, connect=lambda: second)
        host.reconnect(ConnectionLost("a", "b"))
        host.close()
        assert (first.closed, second.closed) == (False, True)


def test_room_is_told_of_regular_files_only() -> None:
    assert room_of(None) is None
    assert room_of("/nowhere/at/all") is None
    assert room_of("/dev/null") is None
    found = room_of(__file__)
    assert found is not None
    assert found.free >= 0
    assert __file__.startswith(found.mount)
