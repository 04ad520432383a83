"""The states of a snapshot: the table itself."""

from __future__ import annotations

import pytest

from qmpsnap.ledger.machine import TABLE, Control, Event, Next, State, after_a_restart


@pytest.mark.parametrize("state", State)
def test_who_is_at_work_follows_from_the_state(state: State) -> None:
    """Nothing waits for compute unless compute has control, and the other way round."""
    listens = {Event.COMPLETE, Event.RUNNING} & {
        event for before, event in TABLE if before is state
    }
    assert bool(listens) is (state.control is Control.COMPUTE)
    assert (state.control is Control.NOBODY) is (state is State.DELETED)


@pytest.mark.parametrize("state", [one for one in State if one.is_open])
def test_every_open_state_has_a_way_out(state: State) -> None:
    """From everything that is under way, the end can be reached, and by the one in control."""
    reached, todo = set(), [state]
    while todo:
        now = todo.pop()
        reached.add(now)
        todo += [
            after for (before, _), after in TABLE.items() if before is now and after not in reached
        ]
    assert {State.AVAILABLE, State.ERROR} <= reached or {
        State.DELETED,
        State.ERROR_DELETING,
    } <= reached


def test_what_has_ended_is_begun_again_by_a_delete_alone() -> None:
    for (before, event), _ in TABLE.items():
        if before is not None and not before.is_open:
            assert event is Event.BEGIN_DELETE
    assert all(before is not State.DELETED for before, _ in TABLE)


@pytest.mark.parametrize(("step", "after"), TABLE.items(), ids=str)
def test_a_step_stays_with_its_operation(step: tuple[State | None, Event], after: State) -> None:
    """No step leads from a create into a delete, but the one that begins it."""
    before, event = step
    if before is not None and event is not Event.BEGIN_DELETE:
        assert ("delet" in before.word) is ("delet" in after.word)


def test_cinder_is_never_told_a_status_that_it_does_not_know() -> None:
    """SnapshotStatusField, cinder/objects/fields.py: any other is answered by HTTP 500."""
    assert {state.status for state in State} == {
        *("creating", "available", "deleting", "deleted", "error", "error_deleting")
    }


@pytest.mark.parametrize("state", State)
def test_what_a_restart_finds_has_somebody_who_settles_it(state: State) -> None:
    found = after_a_restart(state)
    assert (found is not None) is state.is_open
    if found is Next.ROLL_BACK:
        assert (state, Event.FAILED) in TABLE
    elif found is Next.ASK_AGAIN:
        assert (state, Event.HAND_OVER) in TABLE
    elif found is Next.RECORD:
        assert (state, Event.FINISH) in TABLE


def test_a_state_is_found_by_its_word() -> None:
    assert all(State.of(state.word) is state for state in State)
