"""Where a freeze stands among the steps that `--plan` shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qmpsnap.operations.forecast import forecast_create
from qmpsnap.operations.quiesce import CannotFreeze, Policy, Quiesce
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Step
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

CREATE = CreateRequest(disk="1", new_file="volume-1.new", snapshot="new")


class WithoutAgent(FakeGuest):
    def steps_of_freeze(self) -> tuple[Step, Step]:
        raise CannotFreeze("no agent")


def shown(host: type[FakeGuest], policy: str) -> list[str]:
    fake = host(samples.guest(samples.disk(2)))
    (forecast,) = forecast_create(fake, [CREATE], Quiesce(policy=Policy(policy)))
    assert fake.calls == ["read"]
    return [step.what for step in forecast.steps][1:]


def test_around_the_switch_alone() -> None:
    assert shown(FakeGuest, "never") == ["transaction"]
    assert shown(FakeGuest, "try") == ["freeze", "transaction", "thaw"]
    assert shown(FakeGuest, "require") == ["freeze", "transaction", "thaw"]


def test_without_an_agent() -> None:
    assert shown(WithoutAgent, "never") == ["transaction"]
    assert shown(WithoutAgent, "try") == ["transaction"]
    with pytest.raises(CannotFreeze):
        shown(WithoutAgent, "require")


def test_what_is_done_for_all_disks_is_told_apart() -> None:
    disks = [samples.disk(2), replace(samples.disk(2), disk="vdb", serial="2")]
    requests = [replace(CREATE, disk=one, new_file=f"{one}.new") for one in ("vda", "vdb")]
    fake = FakeGuest(samples.guest(*disks))
    first, last = forecast_create(fake, requests, Quiesce(policy=Policy.TRY))
    assert (first.for_all, last.for_all) == (0, 3)
    assert [step.what for step in last.steps[-3:]] == ["freeze", "transaction", "thaw"]
