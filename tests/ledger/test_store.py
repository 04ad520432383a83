"""A ledger in a real database: the same tests on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from qmpsnap.ledger.chain import ChainUnknown
from qmpsnap.ledger.files import FileHeld, moved
from qmpsnap.ledger.judge import Reason, Rejected
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.machine import State
from qmpsnap.ledger.operations import OperationUnsettled
from qmpsnap.ledger.schema import LedgerUnreachable, db_sync
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import Format, Place, Witness
from tests.ledger.acts import BASE, asked, commit, create, done, update
from tests.rig.remedies import remedy


def test_a_create_from_intent_to_end(store: Store) -> None:
    with store.writing() as ledger:
        ledger.state("1", [BASE])
    token = done(store, create(), {"volume-1.a": "qcow2"})
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
    done(store, create())
    with store.writing() as ledger:
        token = asked(ledger, commit()).token
        told = update("a", "deleting_compute_complete", token, {"volume-1": "qcow2"})
        ledger.accept(told)
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
    done(store, create())
    for file in ("volume-1", "volume-1.a", "volume-2"):
        with pytest.raises(FileHeld), store.writing() as ledger:
            ledger.removed("1", file)


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
        token = asked(ledger, create()).token
    spoofed = update("a", "creating_compute_complete", token, {"volume-2": "raw"})
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
        token = asked(ledger, create()).token
        ledger.abandon(token, "the host has burnt down")
    with pytest.raises(FileHeld), store.writing() as ledger:
        ledger.removed("1", "volume-1.a")
    with pytest.raises(ChainUnknown), store.writing() as ledger:
        ledger.begin(create("b"))
    with store.writing() as ledger:
        (unsure,) = (one for one in ledger.files("1") if one.place is Place.UNSURE)
        said = replace(moved(unsure, Place.CHAIN), witness=Witness.OPERATOR)
        ledger.state("1", [said])
        ledger.begin(create("b", onto="volume-1.a"))


class DBError(Exception):
    """As in oslo_db.exception, which Cinder's engine raises in place of SQLAlchemy's."""


class DBDeadlock(DBError):
    """The same."""


class DBConsistencyError(DBDeadlock):
    """The same: MariaDB's 1020."""


class DBErrorInSavepoint(DBError):
    """The same: its savepoint is gone, since a deadlock has ended the transaction."""

    cause = DBDeadlock()


def savepoint_gone() -> Exception:
    """What a deadlock inside of a savepoint comes to with MySQL and MariaDB."""
    told = Exception(1305, "SAVEPOINT sa_savepoint_1 does not exist")
    return sa.exc.OperationalError("ROLLBACK TO SAVEPOINT sa_savepoint_1", None, told)


@pytest.mark.parametrize(
    "met", [DBDeadlock, DBConsistencyError, DBErrorInSavepoint, savepoint_gone]
)
def test_the_errors_of_cinders_engine_are_known(store: Store, met: Callable[[], Exception]) -> None:
    tried: list[int] = []

    def meets(ledger: Ledger) -> int:
        tried.append(len(tried))
        ledger.present("volume", "h", str(len(tried)))
        if len(tried) < 3:
            raise met()
        return len(tried)

    assert store.run(meets) == 3
    with store.reading() as ledger:
        assert [one.version for one in ledger.presences()] == ["3"]

    def fails(_ledger: Ledger) -> None:
        tried.append(len(tried))
        raise DBError("no such table")

    with pytest.raises(LedgerUnreachable):
        store.run(fails)
    assert len(tried) == 4


def test_a_mistake_of_ours_is_not_the_databases(store: Store) -> None:
    def fails(ledger: Ledger) -> None:
        ledger.present("volume", "h", "1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.run(fails)
    with store.reading() as ledger:
        assert ledger.presences() == ()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("server", ["postgresql", "mariadb"])
def test_what_was_looked_at_before_the_lock_may_have_changed(
    request: pytest.FixtureRequest, server: str, strict: bool
) -> None:
    """Another transaction is committed between: the database says so, or shows it."""
    engine = open_engine(request.getfixturevalue(server).database())
    if strict:
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    db_sync(engine)
    store, seen = Store(engine), []
    store.run(lambda ledger: ledger.adopt("1", "a"))

    def looks_first(ledger: Ledger) -> None:
        seen.append(len(ledger.snapshots("1")))
        if len(seen) == 1:
            store.run(lambda other: other.adopt("1", "b"))
        ledger.lock("1")
        ledger.adopt("1", "c")

    store.run(looks_first)
    assert seen[-1] == (1 if len(seen) == 1 else 2)
    assert len(seen) == (2 if strict or server == "mariadb" else 1)
    with store.reading() as ledger:
        assert {one.snapshot for one in ledger.snapshots("1")} == {"a", "b", "c"}
    engine.dispose()


@pytest.mark.parametrize("text", ["\N{GRINNING FACE}", "a\0b", "\udc80", "ä" * 100_000])
def test_a_reason_may_be_any_text(store: Store, text: str) -> None:
    """What a program has printed, an operator has typed, or a guest has written."""
    with store.writing() as ledger:
        ledger.state("1", [replace(BASE, detail=text)])
        token = ledger.begin(create()).token
        ledger.fail(token, text)
        ledger.refuse(text, Reason.FORMAT, text)
        ledger.accept(replace(update("a", "error", text), by=text))
    with store.reading() as ledger:
        found = ledger.snapshot("a")
        assert found is not None
        assert found.state is State.ERROR
        assert found.why.isprintable()
        assert ledger.history("1")[0].detail == found.why
        assert len(ledger.refusals()) == 2
