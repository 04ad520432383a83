"""Which call an answer is for, where several may be at work; and what is not undone once it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qmpsnap.ledger.chain import ChainUnknown
from qmpsnap.ledger.judge import Accepted, Rejected
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.machine import Event, State
from qmpsnap.ledger.operations import OperationUnsettled, OutOfTurn
from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.snapshots import MISSED
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import Kind, Place
from tests.ledger.acts import BASE, asked, commit, create, done, pull, update

DONE = update("a", "deleting")
FAILED = update("a", "error_deleting")


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """With one snapshot, which may be deleted."""
    engine = open_engine("sqlite://")
    db_sync(engine)
    store = Store(engine)
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    done(store, create())
    with store.writing() as ledger:
        yield ledger
    engine.dispose()


def state(ledger: Ledger) -> State:
    found = ledger.snapshot("a")
    assert found is not None
    return found.state


def test_a_late_answer_of_an_abandoned_call_does_not_end_the_next_one(ledger: Ledger) -> None:
    first = asked(ledger, commit()).token
    ledger.abandon(first, "the host is gone")
    second = asked(ledger, commit()).token
    heard = ledger.accept(DONE)
    assert heard == Accepted(second, Event.COMPLETE, is_doubted=True)
    assert state(ledger) is State.DELETING_AT_COMPUTE
    assert ledger.answer(second) is None
    assert ledger.accept(DONE) == Accepted(second, Event.COMPLETE)  # the last one there can be
    assert state(ledger) is State.DELETING_COMPUTE_COMPLETE


def test_one_of_two_calls_that_fails_settles_nothing(ledger: Ledger) -> None:
    token = asked(ledger, commit()).token
    ledger.hand_over(token)
    heard = ledger.accept(FAILED)
    assert isinstance(heard, Accepted)
    assert heard.is_doubted
    assert state(ledger) is State.ERROR_DELETING_AT_COMPUTE
    with pytest.raises(OperationUnsettled):
        ledger.begin(create("b", "volume-1.a"))
    assert ledger.begin(commit()).again
    heard = ledger.accept(FAILED)
    assert heard == Accepted(token, Event.FAILED)
    assert state(ledger) is State.ERROR_DELETING


def test_the_second_of_two_calls_is_done_although_the_first_has_failed(ledger: Ledger) -> None:
    token = asked(ledger, commit()).token
    ledger.hand_over(token)
    ledger.accept(FAILED)
    assert ledger.accept(DONE) == Accepted(token, Event.COMPLETE)
    ledger.record(token)
    assert ledger.finish(token).state is State.DELETED


def test_what_has_a_token_is_not_doubted(ledger: Ledger) -> None:
    first = asked(ledger, commit()).token
    ledger.abandon(first, "the host is gone")
    second = asked(ledger, commit()).token
    verdict = ledger.accept(update("a", "deleting_compute_complete", second))
    assert verdict == Accepted(second, Event.COMPLETE)


def test_an_answered_call_makes_nobody_doubt_the_next(ledger: Ledger) -> None:
    for _ in range(2):
        token = asked(ledger, commit()).token
        assert ledger.accept(FAILED) == Accepted(token, Event.FAILED)
    third = asked(ledger, commit()).token
    ledger.accept(update("a", "error_deleting", third))  # ours has ended all that it was asked
    fourth = asked(ledger, commit()).token
    assert ledger.accept(DONE) == Accepted(fourth, Event.COMPLETE)


def test_a_call_that_nova_refused_settles_what_was_asked_once(ledger: Ledger) -> None:
    token = asked(ledger, commit()).token
    assert ledger.refused(token, "403").state is State.ERROR_DELETING


@pytest.mark.parametrize("intent", [commit(), create("b", "volume-1.a")], ids=["delete", "create"])
def test_a_second_call_that_nova_refused_settles_nothing(ledger: Ledger, intent: object) -> None:
    operation = asked(ledger, intent)  # type: ignore[arg-type]
    ledger.hand_over(operation.token)
    after = ledger.refused(operation.token, "404")
    assert after.state.is_open
    assert after.state.status.startswith("error")
    status = "creating" if operation.kind is Kind.CREATE else "deleting"
    verdict = ledger.accept(update(operation.snapshot, status))
    assert verdict == Accepted(operation.token, Event.COMPLETE)


def test_a_deletion_that_was_never_asked_for_can_be_abandoned(ledger: Ledger) -> None:
    """Attached or detached in between, its kind is another: what the error says has to work."""
    token = ledger.begin(pull()).token
    with pytest.raises(OperationUnsettled) as refused:
        ledger.begin(commit())
    assert token in refused.value.way_out
    assert ledger.abandon(token, "").state is State.ERROR_DELETING
    ledger.begin(commit())


@pytest.mark.parametrize("is_made", [False, True])
def test_the_file_of_a_create_that_was_never_asked_for_is_not_in_use(
    ledger: Ledger, is_made: bool
) -> None:
    token = ledger.begin(create("b", "volume-1.a")).token
    if is_made:
        ledger.made(token)
    assert ledger.abandon(token, "").state is State.ERROR
    places = {one.place for one in ledger.files("1") if one.file == "volume-1.b"}
    assert places == {Place.LEFT}  # it may have been made without a note of that
    ledger.begin(create("c", "volume-1.a"))


@pytest.mark.parametrize("how", ["abandon", "fail"])
def test_a_file_that_nobody_stated_is_unsure_once_compute_was_asked(
    ledger: Ledger, how: str
) -> None:
    token = ledger.begin(create("b", "volume-1.a")).token
    ledger.hand_over(token)
    if how == "abandon":
        ledger.abandon(token, "")
    else:
        ledger.accept(update("b", "error"))
    assert [one.place for one in ledger.files("1") if one.file == "volume-1.b"] == [Place.UNSURE]
    with pytest.raises(ChainUnknown):
        ledger.begin(create("c", "volume-1.a"))


@pytest.mark.parametrize(
    "act",
    [
        lambda ledger, token: ledger.hand_over(token),
        lambda ledger, token: ledger.abandon(token, ""),
        lambda ledger, token: ledger.fail(token, ""),
        lambda ledger, token: ledger.disprove(token, ""),
    ],
    ids=["hand_over", "abandon", "fail", "disprove"],
)
@pytest.mark.parametrize("intent", [commit(), create("b", "volume-1.a")], ids=["delete", "create"])
def test_what_the_volume_service_has_recorded_stands(
    ledger: Ledger, intent: object, act: Callable[[Ledger, str], object]
) -> None:
    """The chain is another by then: only to be concluded."""
    token = ledger.begin(intent).token  # type: ignore[arg-type]
    assert not ledger.is_recorded(token)
    ledger.record(token)
    assert ledger.is_recorded(token)
    with pytest.raises(OutOfTurn):
        act(ledger, token)
    assert ledger.finish(token).state in (State.DELETED, State.AVAILABLE)


def test_only_what_compute_calls_done_is_disproved(ledger: Ledger) -> None:
    token = ledger.begin(commit()).token
    for prepare in (lambda: None, lambda: ledger.hand_over(token)):
        prepare()
        with pytest.raises(OutOfTurn):
            ledger.disprove(token, "the header says otherwise")
    ledger.accept(DONE)
    assert ledger.disprove(token, "the header says otherwise").state is State.ERROR_DELETING
    assert isinstance(ledger.accept(FAILED), Rejected)


def test_what_is_recorded_of_a_create_is_the_chain_and_not_where_its_file_went(
    ledger: Ledger,
) -> None:
    token = ledger.begin(create("b", "volume-1.a")).token
    ledger.made(token)
    ledger.fail(token, "no space")
    assert not ledger.is_recorded(token)
    nothing = ledger.begin(
        create("b").__class__(
            volume="1", snapshot="b", kind=Kind.NOTHING, file=None, onto=None, host="h"
        )
    ).token
    assert not ledger.is_recorded(nothing)
    assert ledger.finish(nothing).state is State.DELETED


def test_how_many_calls_may_be_at_work(ledger: Ledger) -> None:
    token = ledger.begin(commit()).token
    assert [ledger.before_call(token) for _ in range(3)] == [1, 2, 3]


def test_what_is_answered_just_now_is_not_asked_again(ledger: Ledger) -> None:
    token = asked(ledger, commit()).token
    ledger.accept(update("a", "deleting_compute_complete", token))
    assert ledger.before_call(token) == 0
    assert state(ledger) is State.DELETING_COMPUTE_COMPLETE


def test_a_call_that_compute_has_missed_may_be_on_its_way_still(ledger: Ledger) -> None:
    operation = asked(ledger, commit())
    for _ in range(2):  # of two processes; nobody has called again in between
        assert ledger.missed(operation.token)
        assert state(ledger) is State.DELETING_AT_COMPUTE
        assert (ledger.asked(operation), ledger.calls(operation)) == (1, 1)
    assert [one.why for one in ledger.states("1")].count(MISSED) == 1
    assert ledger.before_call(operation.token) == 2
    found = ledger.snapshot("a")
    assert found is not None
    assert found.why != MISSED


@pytest.mark.parametrize(
    "after",
    [
        lambda ledger, token: ledger.give_up(token, "no answer in 7200 s"),
        lambda ledger, token: ledger.accept(update("a", "deleting_compute_complete", token)),
        lambda ledger, token: ledger.accept(update("a", "error_deleting", token)),
    ],
    ids=["given up", "complete", "failed"],
)
def test_nobody_asks_again_for_what_is_not_waited_for(
    ledger: Ledger, after: Callable[[Ledger, str], object]
) -> None:
    token = ledger.begin(commit()).token
    assert not ledger.missed(token)
    ledger.hand_over(token)
    after(ledger, token)
    before = ledger.snapshot("a")
    assert not ledger.missed(token)
    assert ledger.snapshot("a") == before
