"""A ledger in a real database: the same tests on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qmpsnap.ledger.chain import ChainUnknown
from qmpsnap.ledger.files import FileHeld
from qmpsnap.ledger.judge import Accepted, Reason, Rejected
from qmpsnap.ledger.machine import State
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Format, Intent, Kind, Place, Statement, Update, Witness
from tests.rig.remedies import remedy

BASE = Statement(
    file="volume-1",
    format=Format.RAW,
    base=True,
    backing=None,
    place=Place.CHAIN,
    size=1 << 30,
    witness=Witness.MADE,
)


def create(snapshot: str = "a", onto: str = "volume-1") -> Intent:
    return Intent(
        volume="1",
        snapshot=snapshot,
        kind=Kind.CREATE,
        file=f"volume-1.{snapshot}",
        onto=onto,
        host="h",
    )


def report(snapshot: str, status: str, token: str | None, **formats: str) -> Update:
    named = {
        name.replace("volume_1", "volume-1").replace("_", "."): one for name, one in formats.items()
    }
    return Update(
        volume="1",
        snapshot=snapshot,
        status=status,
        progress="90%",
        file_format=named,
        operation=token,
        is_service=True,
    )


def created(store: Store, snapshot: str = "a", onto: str = "volume-1") -> str:
    with store.writing() as ledger:
        token = ledger.begin(create(snapshot, onto)).token
        ledger.made(token)
        ledger.hand_over(token)
        done = report(
            snapshot, "creating_compute_complete", token, **{f"volume_1_{snapshot}": "qcow2"}
        )
        assert isinstance(ledger.accept(done), Accepted)
        assert ledger.record(token) == ()
        ledger.finish(token)
    return token


def test_a_create_from_intent_to_end(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    token = created(store)
    with store.reading() as ledger:
        chain = ledger.chain("1")
        assert [one.file for one in chain.layers] == ["volume-1.a", "volume-1"]
        assert [one.format for one in chain.layers] == [Format.QCOW2, Format.RAW]
        assert chain.active.witness is Witness.COMPUTE
        assert chain.active.operation == token
        assert chain.active.size == BASE.size
        found = ledger.snapshot("a")
        assert found is not None
        assert found.state is State.AVAILABLE
        assert ledger.open_operations() == ()


def test_a_report_that_contradicts_is_kept_and_not_believed(store: Store) -> None:
    """The guest wrote a qcow2 header into its raw volume, and somebody was taken in."""
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    created(store)
    with store.writing() as ledger:
        intent = Intent(
            volume="1", snapshot="a", kind=Kind.COMMIT, file="volume-1.a", onto="volume-1", host="h"
        )
        token = ledger.begin(intent).token
        ledger.hand_over(token)
        ledger.accept(report("a", "deleting_compute_complete", token, volume_1="qcow2"))
        (alarm,) = ledger.record(token)
        assert alarm.is_alarm
        assert ledger.format("1", "volume-1") is Format.RAW
        ledger.finish(token)
    with store.reading() as ledger:
        assert len(ledger.differences()) == 1
        assert [one.file for one in ledger.chain("1").layers] == ["volume-1"]


def test_a_file_of_the_chain_is_never_given_away(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    created(store)
    for file in ("volume-1", "volume-1.a", "volume-2"):
        with pytest.raises(FileHeld), store.writing() as ledger:
            ledger.removed("1", file)


@remedy("OperationUnsettled")
def test_one_operation_a_volume_and_the_same_one_again(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
        token = ledger.begin(create()).token
    with store.writing() as ledger:
        again = ledger.begin(create())
        assert (again.token, again.again) == (token, True)
        with pytest.raises(OperationUnsettled):
            ledger.begin(create("b"))


def test_refusals_are_counted_and_change_nothing(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
        token = ledger.begin(create()).token
        ledger.hand_over(token)
    spoofed = report("a", "creating_compute_complete", token, volume_2="raw")
    for _ in range(3):
        with store.writing() as ledger:
            verdict = ledger.accept(spoofed)
            assert isinstance(verdict, Rejected)
    with store.reading() as ledger:
        (counted,) = ledger.refusals()
        assert (counted.reason, counted.times) == (Reason.FOREIGN_FILE, 3)
        found = ledger.snapshot("a")
        assert found is not None
        assert found.state is State.CREATING_AT_COMPUTE
        assert ledger.answer(token) is None


@remedy("ChainUnknown")
def test_an_abandoned_create_blocks_until_somebody_says_where_its_file_is(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
        token = ledger.begin(create()).token
        ledger.made(token)
        ledger.hand_over(token)
        ledger.abandon(token, "the host has burnt down")
    with pytest.raises(FileHeld), store.writing() as ledger:
        ledger.removed("1", "volume-1.a")
    with pytest.raises(ChainUnknown), store.writing() as ledger:
        ledger.begin(create("b"))
    with store.writing() as ledger:
        (unsure,) = (one for one in ledger.files("1") if one.place is Place.UNSURE)
        found = Statement(**{one: getattr(unsure, one) for one in Statement.__slots__})
        ledger.state("1", [replace(found, place=Place.CHAIN, witness=Witness.OPERATOR)])
        ledger.begin(create("b", onto="volume-1.a"))
