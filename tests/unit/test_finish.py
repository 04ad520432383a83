"""What is left of a merge whose job has ended, done by its plan alone."""

from __future__ import annotations

import pytest

from qmpsnap.operations.finish import finish, request_of, take_up
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.merge import Prepared
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

OPTIONS = MergeOptions(bandwidth=7)
REQUESTS = [
    DeleteRequest(disk="vda", file_to_merge="volume-1.s2", merge_target_file="volume-1.s1"),
    DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1"),
    DeleteRequest(disk="vda", file_to_merge="volume-1", merge_target_file=None),
    DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None),
]


@pytest.fixture(params=REQUESTS, ids=["active commit", "commit", "pull", "whole pull"])
def request_(request: pytest.FixtureRequest) -> DeleteRequest:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def fake() -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(3)))


@pytest.fixture
def plan(request_: DeleteRequest, fake: FakeGuest) -> MergePlan:
    return plan_delete(fake.guest, request_)


def test_request_that_can_only_mean_the_plan(
    fake: FakeGuest, request_: DeleteRequest, plan: MergePlan
) -> None:
    assert request_of(plan) == request_
    assert plan_delete(fake.guest, request_of(plan)) == plan


def test_what_is_left(fake: FakeGuest, plan: MergePlan) -> None:
    """The chain is as it is afterwards; the plan knows how it was."""
    fake.flushes = True
    fake.becomes(samples.linked(plan.remaining))
    begun: list[Prepared | object] = []
    done = finish(fake, plan, options=OPTIONS, begins=begun.append)
    assert fake.calls[0] == "read"
    assert [one for one in fake.calls if one not in ("read", "settled")] == ["dismiss", "close"]
    assert fake.options == OPTIONS
    assert done.removed == ()
    assert done.dropped == tuple(layer.path for layer in plan.dropped)
    (ready,) = begun
    assert isinstance(ready, Prepared)
    assert ready.running is not None
    assert (
        ready.running.type,
        ready.running.ours,
        ready.running.bandwidth,
        ready.running.disk,
    ) == (
        "stream" if plan.kind == "pull" else "commit",
        True,
        0,
        "vda",
    )


@pytest.mark.parametrize("remove", [False, True])
def test_files_are_removed_where_that_is_asked_for(
    fake: FakeGuest, plan: MergePlan, remove: bool
) -> None:
    fake.becomes(samples.linked(plan.remaining))
    done = finish(fake, plan, options=OPTIONS, remove=remove)
    assert ("remove" in fake.calls) == remove
    assert done.removed == (tuple(layer.path for layer in plan.dropped) if remove else ())


@pytest.mark.parametrize("remove", [False, True])
def test_job_that_goes_on(fake: FakeGuest, plan: MergePlan, remove: bool) -> None:
    fake.left_running = True
    said: list[tuple[MergePlan, JobView]] = []
    done = take_up(
        fake,
        plan,
        options=OPTIONS,
        remove=remove,
        progress=lambda plan, view: said.append((plan, view)),
    )
    assert "start" not in fake.calls
    assert done.disk.paths == tuple(layer.path for layer in plan.remaining)
    assert fake.options == OPTIONS
    assert bool(done.removed) == remove
    assert said
    assert said[0][0] == plan
