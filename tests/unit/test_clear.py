"""What calls that died have left: cleared away, unless a call that lives is about to use it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.graph.nodes import Edge, Graph, Node
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.clear import cleared, found, notes_of
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView
from qmpsnap.operations.step import Does, NotNow, Step
from tests.unit import samples
from tests.unit.fake_guest import FakeClaim, FakeGuest, step

CLOSE = Step(
    does=Does.CLOSE, by="qmp", what="blockdev-del", arguments={"node-name": "qmpsnap-1-format"}
)
OVERLAY = "/share/volume-1.new"


@pytest.fixture
def fake() -> FakeGuest:
    """An overlay is open, and on no disk; its name is that of its protocol node alone."""
    nodes = (
        Node(name="qmpsnap-1-format", driver="qcow2", filename=""),
        Node(name="qmpsnap-1-file", driver="file", filename=OVERLAY),
    )
    graph = Graph(
        devices=(),
        nodes={node.name: node for node in nodes},
        edges=(Edge(parent=nodes[0].name, child=nodes[1].name, role="file"),),
    )
    fake = FakeGuest(replace(samples.guest(samples.disk(2)), graph=graph))
    fake.left_over = (CLOSE,)
    return fake


def test_is_cleared_away(fake: FakeGuest) -> None:
    seen = cleared(fake, FakeClaim(), ["vda"])
    assert seen.clear == (CLOSE,)
    assert fake.calls == ["read", "close", "read"]


def test_not_what_a_call_that_lives_has_locked(fake: FakeGuest) -> None:
    seen = cleared(fake, FakeClaim(others=[OVERLAY]), ["vda"])
    assert seen.clear == ()
    assert fake.calls == ["read"]


@pytest.mark.parametrize("how", ["no graph", "an act without a node", "another file"])
def test_of_what_is_not_known_nobody_can_be_asked(fake: FakeGuest, how: str) -> None:
    claim = FakeClaim(others=[OVERLAY if how != "another file" else "/share/other"])
    if how == "no graph":
        fake.guest = replace(fake.guest, graph=None)
    elif how == "an act without a node":
        fake.left_over = (step(Does.DISMISS, id="job"),)
    assert cleared(fake, claim, ["vda"]).clear == fake.left_over


@pytest.mark.parametrize("error", [NotNow("close", "in use"), CommandFailed("x", "", "in use")])
def test_what_is_in_use_after_all_stays(fake: FakeGuest, error: Exception) -> None:
    fake.fails["close"] = error
    cleared(fake, FakeClaim(), ["vda"])


def test_looking_takes_nothing(fake: FakeGuest) -> None:
    assert found(fake).clear == (CLOSE,)
    assert fake.calls == ["read"]


def test_disks_are_locked_before(fake: FakeGuest) -> None:
    """The active file alone, of those that are there; what cannot be found is refused later."""
    disk = samples.changed_layer(samples.disk(2), 0, identity=("file", 1, 2))
    fake.guest = replace(fake.guest, disks=(disk,))
    claim = FakeClaim()
    cleared(fake, claim, ["vda", "vdz"])
    assert claim.taken == ["/share/volume-1.s1"]
    with pytest.raises(DiskLocked):
        cleared(fake, FakeClaim(others=claim.taken), ["vda"])


def test_what_ended_jobs_of_earlier_calls_came_to() -> None:
    def job(id_: str, status: JobStatus, *, ours: bool = True, error: str = "") -> JobReport:
        view = JobView(status=status, error=error or None)
        return JobReport(id=id_, type="commit", disk="vda", view=view, bandwidth=0, ours=ours)

    ended = JobStatus.CONCLUDED
    jobs = [job("a", ended), job("b", ended, error="No space"), job("c", ended, ours=False)]
    jobs += [job(one, JobStatus(one)) for one in JobStatus if one is not ended]
    assert notes_of(tuple(jobs), "none") == (
        "job a of an earlier call had ended: without an error",
        "job b of an earlier call had ended: No space",
    )
    assert len(notes_of(tuple(jobs), "a")) == 1


@pytest.mark.parametrize("missing", ["path", "identity", "layers"])
def test_no_lock_on_what_is_no_file_here(fake: FakeGuest, missing: str) -> None:
    values = {"path": "/share/volume-1.s1", "identity": ("file", 1, 2)} | {missing: None}
    disk = samples.disk(2, layers=()) if missing == "layers" else None
    disk = disk or samples.changed_layer(samples.disk(2), 0, **values)
    fake.guest = replace(fake.guest, disks=(disk,))
    claim = FakeClaim()
    cleared(fake, claim, ["vda"])
    assert claim.taken == []
