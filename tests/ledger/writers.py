"""Processes that work on one ledger at once, and die: run by `test_processes`, also as a program."""

from __future__ import annotations

import os
import random
import signal
import sys

import sqlalchemy as sa

from qmpsnap.errors import Refused
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.machine import Next, after_a_restart
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import Intent, Kind, Operation, Place, Statement, Update, Witness


def work(url: str, number: int, rounds: int) -> int:
    """Do operations on volumes that all processes share; how many came to their end."""
    engine = open_engine(url)
    store, choice, ended = Store(engine), random.Random(number), 0
    for _ in range(rounds):
        volume = f"v{choice.randrange(2)}"
        ended += _one(store, volume, choice)
        store.run(lambda ledger: ledger.present("volume", f"h{choice.randrange(2)}", "1"))
        spoofed = Update(volume=volume, snapshot="x", status="error", is_service=False)
        store.run(lambda ledger, sent=spoofed: ledger.accept(sent))  # type: ignore[misc]
    engine.dispose()
    return ended


def _one(store: Store, volume: str, choice: random.Random) -> int:
    """Take part in whatever is under way on a volume: another process may take any of the steps."""
    try:
        operation = store.run(lambda ledger: _begin(ledger, volume, choice))
        token = operation.token
        if operation.kind is Kind.CREATE:
            store.run(lambda ledger: ledger.made(token))
        store.run(lambda ledger: ledger.hand_over(token))
        store.run(lambda ledger: _answer(ledger, operation))
        store.run(lambda ledger: ledger.record(token))
        store.run(lambda ledger: ledger.finish(token))
    except Refused:  # another process was faster
        return 0
    return 1


def _begin(ledger: Ledger, volume: str, choice: random.Random) -> Operation:
    ledger.lock(volume)
    for one in ledger.open_operations(volume=volume):
        return one
    chain = ledger.chain(volume)
    if len(chain.layers) > 1 and choice.random() < 0.5:
        layer = choice.choice(chain.layers[:-1])
        snapshot = layer.file.partition(".")[2]
        intent = _intent(volume, snapshot, Kind.COMMIT, layer.file, str(layer.backing))
    else:
        snapshot = f"{choice.getrandbits(64):x}"
        intent = _intent(volume, snapshot, Kind.CREATE, f"{volume}.{snapshot}", chain.active.file)
    return ledger.begin(intent)


def _intent(volume: str, snapshot: str, kind: Kind, file: str, onto: str) -> Intent:
    return Intent(volume=volume, snapshot=snapshot, kind=kind, file=file, onto=onto, host="h")


def _answer(ledger: Ledger, operation: Operation) -> None:
    creates = operation.kind is Kind.CREATE
    sent = Update(
        volume=operation.volume,
        snapshot=operation.snapshot,
        status="creating_compute_complete" if creates else "deleting_compute_complete",
        progress="90%",
        operation=operation.token,
        is_service=True,
    )
    ledger.accept(sent)


def prepare(url: str) -> None:
    """Two volumes, without snapshots."""
    engine = open_engine(url)
    with Store(engine).writing() as ledger:
        for volume in ("v0", "v1"):
            base = Statement(
                file=volume,
                format=None,
                base=True,
                backing=None,
                place=Place.CHAIN,
                witness=Witness.NAME,
            )
            ledger.state(volume, [base])
    engine.dispose()


def settle(store: Store) -> None:
    """What a volume service does at its start with what is open."""
    with store.reading() as ledger:
        found = ledger.open_operations(host="h")
    for operation in found:
        token = operation.token
        with store.reading() as ledger:
            snapshot = ledger.snapshot(operation.snapshot)
        assert snapshot is not None
        match after_a_restart(snapshot.state):
            case Next.ROLL_BACK:
                store.run(lambda ledger, token=token: ledger.fail(token, "restarted"))  # type: ignore[misc]
                continue
            case Next.ASK_AGAIN:
                store.run(lambda ledger, token=token: ledger.hand_over(token))  # type: ignore[misc]
                store.run(lambda ledger, one=operation: _answer(ledger, one))  # type: ignore[misc]
            case Next.RECORD | None:
                pass
        store.run(lambda ledger, token=token: ledger.record(token))  # type: ignore[misc]
        if operation.kind is not Kind.CREATE:
            store.run(lambda ledger, one=operation: ledger.removed(one.volume, str(one.file)))  # type: ignore[misc]
        store.run(lambda ledger, token=token: ledger.finish(token))  # type: ignore[misc]


def die_at(url: str, statement: int, when: str) -> None:
    """Do one create and one commit; die before or after a statement, or at a commit."""
    engine = open_engine(url)
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    if when == "commit":
        sa.event.listen(engine, "commit", lambda _connection: count())
    else:
        sa.event.listen(engine, f"{when}_cursor_execute", count)
    store = Store(engine)
    story(store)
    print(seen)


def story(store: Store) -> None:
    """A create and its commit, one transaction a step, as the volume service and the API do."""
    for intent in (
        _intent("v0", "a", Kind.CREATE, "v0.a", "v0"),
        _intent("v0", "a", Kind.COMMIT, "v0.a", "v0"),
    ):
        operation = store.run(lambda ledger, one=intent: ledger.begin(one))  # type: ignore[misc]
        token = operation.token
        if intent.kind is Kind.CREATE:
            store.run(lambda ledger, token=token: ledger.made(token))  # type: ignore[misc]
        store.run(lambda ledger, token=token: ledger.hand_over(token))  # type: ignore[misc]
        store.run(lambda ledger, one=operation: _answer(ledger, one))  # type: ignore[misc]
        store.run(lambda ledger, token=token: ledger.record(token))  # type: ignore[misc]
        if intent.kind is not Kind.CREATE:
            store.run(lambda ledger: ledger.removed("v0", "v0.a"))
        store.run(lambda ledger, token=token: ledger.finish(token))  # type: ignore[misc]


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]), sys.argv[3])
