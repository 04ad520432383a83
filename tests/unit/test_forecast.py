"""What `--plan` shows: the very steps, in their order, and nothing is taken."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.operations.forecast import (
    Forecast,
    forecast_control,
    forecast_create,
    forecast_delete,
)
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.job.states import JobStatus, JobView, Verb
from qmpsnap.operations.quiesce import CannotFreeze, Policy, Quiesce
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.space import Growth
from qmpsnap.operations.step import Does
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest, step

CREATE = CreateRequest(disk="1", new_file="volume-1.new", snapshot="new")


DELETE = DeleteRequest(disk="1", file_to_merge="volume-1.s2", merge_target_file="volume-1.s1")


def words(forecast: Forecast) -> list[str]:
    return [str(step.does) for step in forecast.steps]


class TestCreate:
    def shown(self, policy: str, run: str = "running", *, agent: bool = True) -> list[str]:
        fake = FakeGuest(samples.guest(samples.disk(2)))
        fake.run = run
        if not agent:
            fake.fails["compose-freeze"] = CannotFreeze("no agent")
        (forecast,) = forecast_create(fake, [CREATE], Quiesce(policy=Policy(policy)))
        assert fake.calls == ["read", "overlay"]
        return words(forecast)

    @pytest.mark.parametrize("policy", ["try", "require"])
    def test_freeze_around_the_switch_alone(self, policy: str) -> None:
        assert self.shown(policy) == ["make", "open", "freeze", "switch", "thaw"]
        assert self.shown("never") == ["make", "open", "switch"]

    @pytest.mark.parametrize(("run", "agent"), [("running", False), ("paused", True)])
    def test_without_an_agent_that_answers(self, run: str, agent: bool) -> None:
        for policy in ("never", "try"):
            assert self.shown(policy, run, agent=agent) == ["make", "open", "switch"]
        with pytest.raises(CannotFreeze):
            self.shown("require", run, agent=agent)

    def test_of_several_disks_the_common_steps_stand_once(self) -> None:
        layers = samples.linked([samples.layer("volume-2.s1"), samples.layer("volume-2", "raw")])
        second = samples.disk(disk="vdb", serial="2", layers=layers, root="volume-2.s1-node")
        fake = FakeGuest(samples.guest(samples.disk(2), second))
        fake.left_over = (step(Does.CLOSE),)
        other = replace(CREATE, disk="vdb", new_file="volume-2.new")
        one, two = forecast_create(fake, [CREATE, other])
        assert (words(one), words(two)) == (["close", "make"], ["make", "open", "open", "switch"])
        assert (one.for_all, two.for_all) == (0, 3)
        assert one.moved == two.moved == Growth(moved=0, needed=0)
        assert forecast_create(fake, [CREATE])[0].for_all == 0

    def test_header_of_the_active_file_that_is_mended_on_the_way(self) -> None:
        wrong = samples.changed_layer(samples.disk(2), 0, backing_format=None)
        (forecast,) = forecast_create(FakeGuest(samples.guest(wrong)), [CREATE])
        assert words(forecast) == ["start", "make", "open", "switch"]


class TestDelete:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            (None, ["start", "flush", "commit", "dismiss", "close"]),
            ("running", ["flush", "commit", "dismiss", "close"]),
            ("ready", ["flush", "commit", "dismiss", "close"]),
            ("concluded", ["dismiss", "close"]),
        ],
    )
    def test_of_a_job_that_is_there_what_is_still_to_be_done(
        self, status: str | None, expected: list[str]
    ) -> None:
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.flushes, fake.left_running = True, status is not None
        fake.left_as = JobView(status=JobStatus(status or "running"))
        assert words(forecast_delete(fake, DELETE)) == expected
        assert fake.calls == ["read"]

    @pytest.mark.parametrize("remove", [False, True])
    def test_of_a_job_that_failed_it_is_dismissed(self, remove: bool) -> None:
        wrong = samples.changed_layer(samples.disk(3), 1, backing_format=None)
        fake = FakeGuest(samples.guest(wrong))
        fake.left_running = True
        fake.left_as = JobView(status=JobStatus.CONCLUDED, error="no space")
        assert words(forecast_delete(fake, DELETE, remove=remove)) == ["dismiss"]

    @pytest.mark.parametrize(("error", "mended"), [(None, True), ("no space", False)])
    def test_header_of_the_next_active_file(self, error: str | None, mended: bool) -> None:
        """It is mended after the commit, where that is not one that has failed."""
        wrong = samples.changed_layer(samples.disk(3), 1, backing_format=None)
        fake = FakeGuest(samples.guest(wrong))
        fake.left_running = True
        fake.left_as = JobView(status=JobStatus.CONCLUDED, error=error)
        shown = words(forecast_delete(fake, DELETE))
        assert ("start" in shown) == mended

    def test_what_could_not_be_looked_at_is_told(self) -> None:
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.around = Surroundings(notes=("some could not be looked at",))
        assert forecast_delete(fake, DELETE).why == "some could not be looked at"

    def test_what_is_taken_for_left_over_by_its_time_is_named(self) -> None:
        """Before a merge, and before a create whose overlay is there."""
        images = {f"/share/{name}": (f"/share/on-{name}",) for name in samples.names(3)}
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.around = Surroundings(older=images)
        why = forecast_delete(fake, DELETE).why
        assert "only because volume-1.s1 was written later: /share/on-volume-1.s1; if" in why
        assert "on-volume-1.s2" not in why  # what rests on the merged layer reads the same
        fake.around = Surroundings(older={"/share/volume-1.new": ("/share/leaf",)}, notes=("seen",))
        (forecast,) = forecast_create(fake, [CREATE])
        assert forecast.why == ""
        fake.found = Overlay(is_there=True)
        (forecast,) = forecast_create(fake, [CREATE])
        assert forecast.why.startswith("seen; images that rest on volume-1.new by their headers")
        assert "choose another name" in forecast.why

    def test_chains_before_and_after(self) -> None:
        forecast = forecast_delete(FakeGuest(samples.guest(samples.disk(3))), DELETE)
        assert [layer.file for layer in forecast.before] == samples.names(3)
        assert forecast.after == (("volume-1.s1", "qcow2"), ("volume-1", "raw"))
        assert forecast.kind == "active-commit"

    def test_files_are_removed_last(self) -> None:
        wrong = samples.changed_layer(samples.disk(3), 1, backing_format=None)
        fake = FakeGuest(samples.guest(wrong))
        forecast = forecast_delete(fake, DELETE, remove=True)
        assert words(forecast) == ["start", "commit", "dismiss", "close", "start", "remove"]
        assert forecast.steps[-1].arguments == {"path": "/share/volume-1.s2"}

    def test_what_a_call_that_died_has_left_is_cleared_away_first(self) -> None:
        fake = FakeGuest(samples.guest(samples.disk(3)))
        fake.left_over = (step(Does.CLOSE), step(Does.DISMISS))
        assert words(forecast_delete(fake, DELETE))[:3] == ["close", "dismiss", "start"]


def test_of_a_verb_on_a_job() -> None:
    other = samples.disk(disk="vdb", serial="2", qdev="b", root="b", layers=(samples.layer("b"),))
    fake = FakeGuest(samples.guest(other, samples.disk(2)))
    fake.left_running = True
    forecast = forecast_control(fake, Verb.SET_SPEED, "job0", 8)
    assert [layer.file for layer in forecast.before] == samples.names(2)
    assert (forecast.disk, forecast.kind, words(forecast)) == ("vda", "set-speed", ["speed"])
    assert forecast.steps[0].arguments == {"id": "job0", "bandwidth": 8}
    assert fake.calls == ["read"]
    assert forecast_control(fake, Verb.CANCEL, "job0").steps[0].arguments["bandwidth"] == 0
