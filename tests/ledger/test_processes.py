"""Eight processes on one ledger, and a process that is killed at any point."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from qmpsnap.ledger.machine import TABLE, State
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Place, Snapshot
from tests.ledger import writers

PROCESSES = 8
ROUNDS = 6


def test_eight_processes_at_once(store: Store, url: str) -> None:
    """No row is lost, no two operations are under way on a volume, and every step is of the table."""
    writers.prepare(url)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(writers.work, url, number, ROUNDS) for number in range(PROCESSES)]
        ended = sum(job.result() for job in jobs)
    assert ended > 0
    with store.reading() as ledger:
        (refused,) = (one for one in ledger.refusals() if one.snapshot == "x")
        assert refused.times == PROCESSES * ROUNDS
        assert len(ledger.presences()) == 2
        for volume in ("v0", "v1"):
            states = ledger.states(volume)
            _check_steps(states)
            _check_turns(states)
            chain = ledger.chain(volume)
            alive = {one.snapshot for one in ledger.snapshots(volume) if not _is_gone(one)}
            busy = {one.snapshot for one in ledger.open_operations(volume=volume)}
            named = {one.file.partition(".")[2] for one in chain.layers[:-1]}
            assert named - busy == alive - busy


def _is_gone(one: Snapshot) -> bool:
    return one.state is State.DELETED


def _check_steps(states: tuple[Snapshot, ...]) -> None:
    """Each state follows from the one before it of the same snapshot."""
    now: dict[str, State] = {}
    for one in states:
        before = now.get(one.snapshot)
        assert one.state in {after for (was, _), after in TABLE.items() if was is before}
        now[one.snapshot] = one.state


def _check_turns(states: tuple[Snapshot, ...]) -> None:
    """One operation begins only when the one before has ended."""
    working: str | None = None
    for one in states:
        assert working in (None, one.operation)
        working = one.operation if one.state.is_open else None


@pytest.mark.parametrize("when", ["before", "after", "commit"])
def test_killed_at_any_statement_and_settled_afterwards(url: str, store: Store, when: str) -> None:
    """A sample of the points on each database; each is one process that is killed."""
    writers.prepare(url)
    whole = _run(url, 0, when)
    assert whole.returncode == 0
    points = int(whole.stdout)
    assert points > 10
    for point in range(1, points + 1, max(1, points // 6)):
        with store.engine.begin() as connection:
            for table in ("files", "snapshots", "operations", "inbox", "volumes"):
                connection.exec_driver_sql(f"DELETE FROM qmpsnap_{table}")
        writers.prepare(url)
        killed = _run(url, point, when)
        assert killed.returncode == -signal.SIGKILL
        _settles(store)


def _run(url: str, point: int, when: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "tests.ledger.writers", url, str(point), when]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)


def _settles(store: Store) -> None:
    """At its start the service finds what is open, and the ledger is whole afterwards."""
    with store.reading() as ledger:
        assert len(ledger.open_operations()) <= 1
    writers.settle(store)
    with store.reading() as ledger:
        assert ledger.open_operations() == ()
        chain = [one.file for one in ledger.chain("v0").layers]
        snapshot = ledger.snapshot("a")
        if snapshot is None or snapshot.state in (State.DELETED, State.ERROR):
            assert chain == ["v0"]
        else:
            assert snapshot.state in (State.AVAILABLE, State.ERROR_DELETING)
            assert chain == ["v0.a", "v0"]
        beside = [one for one in ledger.files("v0") if one.place is not Place.CHAIN]
        assert all(one.place is Place.LEFT for one in beside)
        _check_steps(ledger.states("v0"))
