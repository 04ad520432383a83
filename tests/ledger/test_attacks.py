"""Attempts to make the ledger believe a spoofed format, or give away a file that is in use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from qmpsnap.ledger.chain import ChainUnknown
from qmpsnap.ledger.exchange import BadName
from qmpsnap.ledger.files import FileHeld, moved
from qmpsnap.ledger.judge import Accepted, Reason, Rejected
from qmpsnap.ledger.machine import State
from qmpsnap.ledger.operations import OutOfTurn
from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import Format, Kind, Place, Witness
from tests.ledger.acts import BASE, asked, commit, create, done, pull, update

COMPLETE = "creating_compute_complete"


@pytest.fixture
def store() -> Iterator[Store]:
    """In memory: what is decided here depends on no database."""
    engine = open_engine("sqlite://")
    db_sync(engine)
    store = Store(engine)
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    yield store
    engine.dispose()


@pytest.mark.parametrize(
    ("spoofed", "reason"),
    [
        (update("a", COMPLETE, "TOKEN", is_service=False), Reason.NOT_A_SERVICE),
        (update("b", COMPLETE), Reason.UNKNOWN_SNAPSHOT),
        (update("a\0", COMPLETE), Reason.UNKNOWN_SNAPSHOT),
        (update("a" * 300, COMPLETE), Reason.UNKNOWN_SNAPSHOT),
        (update("a", COMPLETE, "old"), Reason.OTHER_OPERATION),
        (update("a", COMPLETE, ""), Reason.OTHER_OPERATION),
        (update("a", COMPLETE, "\0\ud800"), Reason.OTHER_OPERATION),
        (update("a", "available"), Reason.STATUS),
        (update("a", "deleting"), Reason.STATUS),
        (update("a", "deleting_compute_complete"), Reason.STATUS),
        (update("a", "error_deleting"), Reason.STATUS),
        (update("a", "", "TOKEN"), Reason.STATUS),
        (update("a", COMPLETE, "TOKEN", {"volume-2": "raw"}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {"../volume-1": "raw"}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {"volume-1.b": "qcow2"}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {"VOLUME-1": "raw"}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {"\0": "raw"}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {f"{n}": "raw" for n in range(99)}), Reason.FOREIGN_FILE),
        (update("a", COMPLETE, "TOKEN", {"volume-1": "vmdk"}), Reason.FORMAT),
        (update("a", COMPLETE, "TOKEN", {"volume-1": "ploop"}), Reason.FORMAT),
        (update("a", COMPLETE, "TOKEN", {"volume-1": "QCOW2"}), Reason.FORMAT),
        (update("a", "error", "TOKEN", {"volume-1": "raw"}), Reason.FORMATS_OUT_OF_PLACE),
        (
            update("a", "creating", "TOKEN", {"volume-1": "raw"}, progress="0%"),
            Reason.FORMATS_OUT_OF_PLACE,
        ),
    ],
    ids=str,
)
def test_a_spoofed_update_changes_nothing(store: Store, spoofed: object, reason: Reason) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
    sent = update("a", "x")
    sent = replace(spoofed, operation=token) if _named(spoofed) else spoofed  # type: ignore[type-var, assignment]
    before = _all(store)
    with store.writing() as ledger:
        verdict = ledger.accept(sent)
        assert isinstance(verdict, Rejected)
        assert verdict.reason is reason
        (counted,) = ledger.refusals()
        assert (counted.reason, counted.times) == (reason, 1)
    assert _all(store) == before
    with store.writing() as ledger:
        assert isinstance(ledger.accept(update("a", COMPLETE, token)), Accepted)


def _named(spoofed: object) -> bool:
    return getattr(spoofed, "operation", None) == "TOKEN"


def _all(store: Store) -> object:
    with store.reading() as ledger:
        return ledger.history("1"), ledger.states("1"), ledger.chain("1"), ledger.differences()


def test_an_update_of_another_volume_is_not_for_this_snapshot(store: Store) -> None:
    with store.writing() as ledger:
        asked(ledger, create())
        ledger.state("2", [replace(BASE, file="volume-2")])
        foreign = replace(update("a", COMPLETE), volume="2")
        assert isinstance(ledger.accept(foreign), Rejected)
        assert isinstance(ledger.accept(replace(foreign, volume="never seen")), Rejected)


def test_an_old_token_does_not_end_the_next_operation(store: Store) -> None:
    """D1b: the answer to the first try arrives while the second is at compute."""
    done(store, create())
    with store.writing() as ledger:
        first = asked(ledger, commit()).token
        assert isinstance(ledger.accept(update("a", "error_deleting", first)), Accepted)
        second = asked(ledger, commit()).token
        late = ledger.accept(update("a", "deleting_compute_complete", first))
        assert isinstance(late, Rejected)
        assert late.reason is Reason.OTHER_OPERATION
        found = ledger.snapshot("a")
        assert found is not None
        assert found.state is State.DELETING_AT_COMPUTE
        with pytest.raises(OutOfTurn):
            ledger.record(second)


def test_progress_alone_ends_nothing_before_compute_was_asked(store: Store) -> None:
    """D1: a row that still has 90 % from a failure before."""
    done(store, create())
    with store.writing() as ledger:
        token = ledger.begin(commit()).token
        verdict = ledger.accept(update("a", "deleting"))
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.NOTHING_WAITS
        with pytest.raises(OutOfTurn):
            ledger.finish(token)


def test_a_failure_is_not_heard_before_compute_was_asked(store: Store) -> None:
    with store.writing() as ledger:
        token = ledger.begin(create()).token
        verdict = ledger.accept(update("a", "error", token))
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.NOTHING_WAITS


def test_the_same_answer_twice_is_one_and_another_is_refused(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        answer = update("a", COMPLETE, token, {"volume-1.a": "qcow2"})
        assert ledger.accept(answer) == Accepted(token, ledger.accept(answer).event)  # type: ignore[union-attr]
        again = ledger.accept(answer)
        assert isinstance(again, Accepted)
        assert again.again
        other = ledger.accept(update("a", "error", token))
        assert isinstance(other, Rejected)
        assert other.reason is Reason.ANSWERED


@pytest.mark.parametrize(
    ("status", "said", "is_accepted"),
    [
        ("deleting_compute_complete", {"volume-1": "raw"}, True),
        ("deleting_compute_complete", {"volume-9": "raw"}, False),
        ("error_deleting", {}, False),
    ],
)
def test_what_the_headers_have_told_compute_tells_again(
    store: Store, status: str, said: dict[str, str], is_accepted: bool
) -> None:
    """After a restart of the volume service, which then looks at the headers, and may see it first."""
    done(store, create())
    with store.writing() as ledger:
        token = asked(ledger, commit()).token
        ledger.hand_over(token)
        assert isinstance(ledger.accept(update("a", "deleting", token)), Accepted)
        verdict = ledger.accept(update("a", status, token, said))
        assert isinstance(verdict, Accepted) is is_accepted
        if isinstance(verdict, Accepted):
            assert verdict.again
            assert ledger.refusals() == ()
            ledger.record(token)
            ledger.finish(token)
            assert isinstance(ledger.accept(update("a", status, token, said)), Accepted)


@pytest.mark.parametrize(
    "told", [{"volume-1": "qcow2"}, {"volume-1": "qcow2", "volume-1.a": "raw"}]
)
def test_a_header_is_not_believed_whoever_is_taken_in(store: Store, told: dict[str, str]) -> None:
    token = done(store, create(), told)
    with store.writing() as ledger:
        assert ledger.format("1", "volume-1") is Format.RAW
        assert ledger.format("1", "volume-1.a") is Format.QCOW2
        assert len(ledger.differences()) == len(told)
        assert {one.said.operation for one in ledger.differences()} == {token}
        raw = ledger.state("1", [replace(BASE, format=Format.QCOW2, witness=Witness.GUEST)])
        assert len(raw) == 1
        assert ledger.format("1", "volume-1") is Format.RAW


def test_an_unknown_base_takes_what_compute_knows_and_an_overlay_is_never_raw(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("2", [replace(BASE, format=None)])
        unknown = replace(create(), volume="2", snapshot="x", file="volume-1.x")
        token = asked(ledger, unknown).token
        told = {"volume-1": "raw", "volume-1.x": "raw"}
        ledger.accept(replace(update("x", COMPLETE, token, told), volume="2"))
        (difference,) = ledger.record(token)
        assert difference.said.file == "volume-1.x"
        assert ledger.format("2", "volume-1") is Format.RAW
        assert ledger.format("2", "volume-1.x") is Format.QCOW2


def test_a_stock_compute_sends_no_formats_and_the_rule_says_so(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.accept(update("a", "creating"))
        ledger.record(token)
        overlay = ledger.file("1", "volume-1.a")
        assert overlay is not None
        assert (overlay.format, overlay.witness) == (Format.QCOW2, Witness.RULE)


def test_a_file_that_a_stock_compute_may_have_switched_to_is_kept(store: Store) -> None:
    """
    It reports an error after the guest was switched as well as before.

    The next overlay would name the file below as its base, and what was written in between be lost.
    """
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.accept(update("a", "error"))
        ledger.fail(token, "compute failed")
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1.a")
        with pytest.raises(ChainUnknown):
            ledger.begin(create("b"))


@pytest.mark.parametrize("named", [True, False])
def test_what_was_asked_twice_and_failed_is_unsure(store: Store, named: bool) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.hand_over(token)
        ledger.accept(update("a", "error", token if named else None))
        ledger.fail(token, "compute failed")
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1.a")
        assert [one.place for one in ledger.files("1") if not one.base] == [Place.UNSURE]


def test_what_failed_when_nobody_waited_any_more_is_unsure_too(store: Store) -> None:
    """A service that was killed calls `fail` no more, and the guest may write to the overlay."""
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.hand_over(token)
        ledger.accept(update("a", "error", token))
        assert [one.place for one in ledger.files("1") if not one.base] == [Place.UNSURE]


@pytest.mark.parametrize("how", ["not asked", "nova refused", "our compute failed"])
def test_a_file_that_was_certainly_not_used_may_go(store: Store, how: str) -> None:
    with store.writing() as ledger:
        token = ledger.begin(create()).token
        ledger.made(token)
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1.a")
        if how != "not asked":
            ledger.hand_over(token)
        if how == "our compute failed":
            ledger.accept(update("a", "error", token))
        ledger.fail(token, how)
        ledger.removed("1", "volume-1.a")
        assert ledger.file("1", "volume-1.a") is None


def test_what_an_open_operation_names_is_kept(store: Store) -> None:
    done(store, create())
    done(store, commit())
    with store.writing() as ledger:
        ledger.begin(create("b"))
        left = ledger.file("1", "volume-1.a")
        assert left is not None
        assert left.place is Place.LEFT
        ledger.removed("1", "volume-1.a")
    done_again = replace(create("c"), file="volume-1.c")
    with store.writing() as ledger:
        (operation,) = ledger.open_operations()
        ledger.fail(operation.token, "")
        ledger.state(
            "1", [replace(BASE, file="volume-1.c", base=False, place=Place.LEFT, format=None)]
        )
        ledger.begin(done_again)
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1.c")


def test_what_a_layer_lies_on_is_kept_whatever_was_set(store: Store) -> None:
    """`ledger set --place left` of the wrong file."""
    done(store, create())
    with store.writing() as ledger:
        base = ledger.file("1", "volume-1")
        assert base is not None
        ledger.state("1", [replace(moved(base, Place.LEFT), witness=Witness.OPERATOR)])
        assert ledger.chain("1").names == {"volume-1.a"}
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1")


def test_a_pull_holds_its_base_until_it_is_recorded(store: Store) -> None:
    done(store, create())
    with store.writing() as ledger:
        token = asked(ledger, pull()).token
        ledger.accept(update("a", "deleting_compute_complete", token))
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1")
        with pytest.raises(OutOfTurn):
            ledger.finish(token)
        ledger.record(token)
        assert ledger.record(token) == ()
        ledger.removed("1", "volume-1")
        ledger.removed("1", "volume-1")  # by who died before it was unlinked
        ledger.finish(token)


def test_an_answer_that_comes_after_the_time_is_up_counts(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        assert ledger.give_up(token, "600 s").state.status == "error"
        assert isinstance(ledger.accept(update("a", COMPLETE, token)), Accepted)
        ledger.record(token)
        assert ledger.finish(token).state is State.AVAILABLE
        assert ledger.chain("1").active.file == "volume-1.a"


def test_what_compute_did_stands_when_the_volume_service_fails(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.accept(update("a", COMPLETE, token))
        assert ledger.fail(token, ".info cannot be written").state is State.ERROR
        assert ledger.chain("1").active.file == "volume-1.a"
        with pytest.raises(FileHeld):
            ledger.removed("1", "volume-1.a")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b", "a\n", "x" * 256]
)
def test_a_name_that_leads_elsewhere_is_refused(store: Store, name: str) -> None:
    with store.writing() as ledger:
        with pytest.raises(BadName):
            ledger.state("1", [replace(BASE, file=name)])
        with pytest.raises(BadName):
            ledger.begin(replace(create(), file=name))


def test_a_volume_with_an_open_operation_is_not_forgotten(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        with pytest.raises(FileHeld):
            ledger.forget("1")
        ledger.abandon(token, "the volume is not attached")
        ledger.forget("1")
        assert ledger.files("1") == ()


def test_a_snapshot_without_a_file_is_deleted_all_the_same(store: Store) -> None:
    with store.writing() as ledger:
        token = asked(ledger, create()).token
        ledger.accept(update("a", "error", token))
        ledger.fail(token, "compute failed")
        nothing = replace(create(), kind=Kind.NOTHING, file=None, onto=None)
        deleted = ledger.begin(nothing).token
        assert ledger.finish(deleted).state is State.DELETED


def test_an_operator_settles_a_difference(store: Store) -> None:
    done(store, create(), {"volume-1": "qcow2"})
    with store.writing() as ledger:
        known = ledger.file("1", "volume-1")
        assert known is not None
        assert ledger.differences()[0].is_alarm
        said = replace(moved(known, Place.CHAIN), witness=Witness.OPERATOR, detail="looked at it")
        ledger.state("1", [said])
        assert ledger.differences() == ()
