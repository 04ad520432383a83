"""Every state of a guest; source: RunState, qapi/run-state.json of QEMU 7.2 and 11.1."""

from __future__ import annotations

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.base import CommandTimedOut, LostWhileReading
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import State
from qmpsnap.operations.merge import delete
from qmpsnap.operations.quiesce import CannotFreeze, Moment, Policy, Quiesce, frozen
from qmpsnap.operations.requests import CreateRequest, NamedDeleteRequest
from qmpsnap.operations.run_state import STILL, how_to_be_heard, remarks, why_silent
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.volume import DiskUnsuitable
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest
from tests.unit.scripted import ScriptedMonitor

STATES = {
    "debug": "",
    "inmigrate": "",
    "internal-error": "still, remarked",
    "io-error": "still, remarked",
    "paused": "still",
    "postmigrate": "",
    "prelaunch": "still",
    "finish-migrate": "",
    "restore-vm": "",
    "running": "answers",
    "save-vm": "",
    "shutdown": "still, remarked",
    "suspended": "remarked",
    "watchdog": "still, remarked",
    "guest-panicked": "still, remarked",
    "colo": "",
}
RESUMABLE = ("paused", "prelaunch", "io-error", "watchdog")
CREATE = CreateRequest(disk="vda", new_file=None, snapshot="new")


@pytest.mark.parametrize(("state", "is_"), STATES.items())
def test_what_follows_from_a_state(state: str, is_: str) -> None:
    assert (state in STILL) == ("still" in is_)
    assert bool(remarks(state)) == ("remarked" in is_)
    assert (why_silent(state) is None) == (is_ == "answers")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("off", "leave `--quiesce` out"),
        ("suspended", "Wake it (`virsh dompmwakeup`; QMP `system_wakeup`), or do without"),
        *((one, "Let it run (`virsh resume`; QMP `cont`), or do without") for one in RESUMABLE),
        *((one, "Do without: `--quiesce try`.") for one in ("guest-panicked", "shutdown")),
    ],
)
def test_how_to_be_heard(state: str, words: str) -> None:
    assert words in how_to_be_heard(state)
    assert how_to_be_heard(state).endswith(".")
    assert "`--quiesce" in how_to_be_heard(state)


def test_a_state_that_nobody_tells_says_nothing() -> None:
    assert (remarks(None), why_silent(None)) == ((), None)


def freeze(guest: QmpGuest) -> None:
    with frozen(guest, Quiesce(policy=Policy.REQUIRE), Moment()):
        raise AssertionError("it was frozen")


@pytest.mark.parametrize("state", [state for state in STATES if state != "running"])
def test_nobody_waits_for_the_agent_of_a_guest_that_does_not_run(state: str) -> None:
    monitor = ScriptedMonitor({"query-status": {"status": state, "running": False}})
    with pytest.raises(CannotFreeze, match="does not run") as caught:
        freeze(QmpGuest(monitor, agent="/nowhere"))
    assert state in str(caught.value)


def test_agent_of_a_guest_that_runs_is_asked() -> None:
    monitor = ScriptedMonitor({"query-status": {"status": "running", "running": True}})
    with pytest.raises(CannotFreeze, match="/nowhere"):
        freeze(QmpGuest(monitor, agent="/nowhere"))


def test_a_query_that_is_not_answered_has_changed_nothing() -> None:
    monitor = ScriptedMonitor({"query-status": CommandTimedOut("query-status", 30)})
    with pytest.raises(LostWhileReading):
        QmpGuest(monitor).state()


class TestResults:
    def test_of_a_create(self) -> None:
        fake = FakeGuest(samples.guest(samples.disk()))
        fake.run = "internal-error"
        result = create(fake, CREATE)
        assert result.guest_state == "internal-error"
        assert result.notes == (
            "the guest is stopped by an internal error of QEMU (internal-error)",
        )

    def test_of_a_delete_by_its_end(self) -> None:
        fake = FakeGuest(samples.guest(samples.disk(2)))
        fake.run = "guest-panicked"
        result = delete(fake, NamedDeleteRequest(disk="vda", snapshot="s1"))
        assert (result.guest_state, result.notes[-1]) == (
            "guest-panicked",
            "the guest has crashed (guest-panicked)",
        )

    def test_of_a_delete_after_which_the_guest_has_ended(self) -> None:
        class Gone(FakeGuest):
            def state(self) -> State:
                if "settled" in self.calls:
                    raise LostWhileReading("it is gone")
                return super().state()

        fake = Gone(samples.guest(samples.disk(2)))
        assert delete(fake, NamedDeleteRequest(disk="vda", snapshot="s1")).guest_state is None


@pytest.mark.parametrize("layer", [0, 1])
def test_images_of_another_qemu_are_not_touched(layer: int) -> None:
    fake = FakeGuest(
        samples.guest(samples.changed_layer(samples.disk(2), layer, flags=("inactive",)))
    )
    with pytest.raises(DiskUnsuitable, match="not this QEMU's to write"):
        create(fake, CREATE, allow=tuple(Guard))
    with pytest.raises(DiskUnsuitable, match="not this QEMU's to write"):
        delete(fake, NamedDeleteRequest(disk="vda", snapshot="s1"), allow=tuple(Guard))
    assert set(fake.calls) == {"read"}
