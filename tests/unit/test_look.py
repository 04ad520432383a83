"""Looking at one guest: twice when something was found, and without changing anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from qmpsnap.findings import look as look_module
from qmpsnap.findings.facts import FileFacts
from qmpsnap.findings.finding import OPERATION_OPEN, Finding
from qmpsnap.findings.look import look
from qmpsnap.formats.layers import Disks
from qmpsnap.graph.chain import ChainLoop
from qmpsnap.guests.qmp.guest import QmpGuest
from tests.unit import recordings, samples
from tests.unit.scripted import ScriptedMonitor

CLEAN = replace(samples.guest(samples.disk(layers=())), guest=None)
PARTLY = replace(CLEAN, notes=("no QMP",))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module, "AGAIN_S", 0)


def reading(*reports: Disks) -> tuple[Callable[[], Disks], list[Disks]]:
    left = list(reports)
    return lambda: left.pop(0), left


def test_a_clean_guest_is_read_once() -> None:
    read, left = reading(CLEAN, CLEAN)
    seen, found = look(read, name="web1")
    assert (seen.guest, found, len(left)) == ("web1", (), 1)


def test_what_is_found_twice_counts() -> None:
    read, left = reading(PARTLY, PARTLY)
    _, found = look(read, name="web1")
    assert [one.id for one in found] == ["guest-partly-read"]
    assert found[0].guest == "web1"
    assert left == []


def test_what_is_gone_when_one_looks_again_does_not() -> None:
    read, _ = reading(PARTLY, CLEAN)
    seen, found = look(read, name=None)
    assert found == ()
    assert seen.report == CLEAN


def test_what_is_new_when_one_looks_again_does_not() -> None:
    other = replace(CLEAN, notes=("no QMP", "a job had ended"))
    read, _ = reading(PARTLY, other)
    assert [one.message for one in look(read, name=None)[1]] == ["no QMP"]


def test_a_recording_stays_as_it_is() -> None:
    read, left = reading(PARTLY, PARTLY)
    assert len(look(read, name=None, live=False)[1]) == 1
    assert len(left) == 1


def test_a_guest_has_its_own_name() -> None:
    read, _ = reading(replace(CLEAN, guest="db1"))
    assert look(read, name="socket")[0].guest == "db1"


def test_a_loop_is_a_finding() -> None:
    def read() -> Disks:
        raise ChainLoop("#block1")

    seen, found = look(read, name="web1")
    assert [(one.id, one.node) for one in found] == [("chain-loop", "#block1")]
    assert seen.report.disks == ()


@pytest.mark.parametrize(("live", "host"), [(False, ""), (True, "elsewhere")])
def test_files_of_recordings_and_other_hosts_are_not_opened(
    live: bool, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(report: Disks) -> None:
        raise AssertionError(report)

    monkeypatch.setattr(look_module, "file_facts", forbidden)
    read, _ = reading(CLEAN)
    assert look(read, name=None, live=live, host=host)[0].files == {}


def test_files_of_this_host_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"/share/volume-1": FileFacts(looks_like="qcow2")}
    monkeypatch.setattr(look_module, "file_facts", lambda _: facts)
    read, _ = reading(CLEAN)
    assert look(read, name=None)[0].files == facts


@pytest.mark.parametrize(
    ("live", "host", "asked"), [(True, "", True), (False, "", False), (True, "elsewhere", False)]
)
def test_markers_lie_beside_the_files_of_this_host(
    live: bool, host: str, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = Finding(rule=OPERATION_OPEN, guest="web1", message="m", remedy="r")
    monkeypatch.setattr(look_module, "interrupted", lambda _: (marker,))
    read, _ = reading(CLEAN, CLEAN)
    assert look(read, name=None, live=live, host=host)[1] == ((marker,) if asked else ())


@pytest.mark.parametrize("name", ["qcow2-chain", "commit-running", "two-disks"])
def test_only_queries_are_sent(name: str) -> None:
    """A job of ours that has ended is left to whoever started it."""
    recorded = recordings.replies(name)
    recorded["query-jobs"] = [{"id": "qmpsnap-1", "type": "commit", "status": "concluded"}]
    monitor = ScriptedMonitor({"query-name": {"name": "web1"}} | recorded)
    QmpGuest(monitor).read()
    assert "query-jobs" in monitor.commands()
    for command in monitor.commands():
        assert command.startswith(("query-", "x-debug-query-", "qom-get", "qom-list-get")), command
