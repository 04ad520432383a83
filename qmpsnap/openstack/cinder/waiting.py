"""
Waiting for compute's answer to one operation.

The answer is an entry in the ledger that belongs to the operation's token, never a field of the
snapshot's row: a `90%` that an earlier operation has left there ends no wait (and unlinks no file).
The bus wakes; a slow poll finds what a lost message would have told, and an operator's hand.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from cinder import exception
from cinder.db import api as db

from qmpsnap.ledger.judge import Accepted
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.locking import is_of_database
from qmpsnap.ledger.machine import COMPLETE, WAITED_FOR, Control
from qmpsnap.ledger.schema import LedgerUnreachable
from qmpsnap.ledger.snapshots import MISSED
from qmpsnap.ledger.values import Kind, Operation, Update
from qmpsnap.openstack.cinder.books import Books

log = logging.getLogger(__name__)
POLL_S: Final = 1.0
"""Stock polls as often; with the extension this only finds what the bus has lost."""
SLOWEST_S: Final = 10.0
LIMIT_S: Final = {Kind.CREATE: 600.0, Kind.COMMIT: 7200.0, Kind.PULL: 7200.0}
"""Stock's. Source: cinder/volume/drivers/remotefs.py, timeout in the two loops."""


def wait(
    books: Books,
    context: Any,
    operation: Operation,
    event: threading.Event,
    *,
    limit_s: float | None = None,
    is_done: Callable[[], bool] | None = None,
) -> bool:
    """
    Wait until compute has done it.

    An answer that may be about an earlier call (`Accepted.is_doubted`) ends nothing: then
    `is_done` decides, which looks at the headers. While the database cannot be asked (it starts
    again, or another node takes over), it is waited on.

    Args:
        books: The ledger.
        context: Cinder's.
        operation: Handed over.
        event: Set by the bus when there may be news.
        limit_s: Seconds; None: as stock waits.
        is_done: Whether the headers show that it is done, which then stands in the ledger; asked
            where several calls may be at work. None: they cannot show it.

    Returns:
        Whether it is done. False: a compute side of ours has started again and does not know of it,
        so it has to be asked once more.

    Raises:
        RemoteFSException: Compute could not do it, does not answer in time, or somebody else has
            set the snapshot's status.
        RemoteFSConcurrentRequest: It is to be deleted already.
    """
    limit = LIMIT_S[operation.kind] if limit_s is None else limit_s
    deadline, pause = time.monotonic() + limit, POLL_S
    while True:
        event.clear()
        try:
            ended = _ended(books, operation, is_done)
            if ended is not None:
                return ended
            has_news = _look_at_row(books, context, operation)
        except Exception as error:
            if not isinstance(error, LedgerUnreachable) and not is_of_database(error):
                raise
            log.warning(
                "snapshot %s is waited for, without the database: %s", operation.snapshot, error
            )
            has_news = False
        if has_news or event.is_set():
            continue
        if time.monotonic() > deadline:
            books.run(lambda ledger: ledger.give_up(operation.token, f"no answer in {limit:g} s"))
            raise exception.RemoteFSException(
                f"compute has not answered within {limit:g} s on snapshot {operation.snapshot} "
                f"(operation {operation.token}); an answer that comes later is still taken"
            )
        event.wait(pause)
        pause = min(pause * 1.5, SLOWEST_S)


def _ended(books: Books, operation: Operation, is_done: Callable[[], bool] | None) -> bool | None:
    """What `wait` returns, by the ledger; None: compute is at work."""
    standing = books.standing(operation.snapshot)
    if standing is None or standing.operation != operation.token:
        raise exception.RemoteFSException(f"the operation {operation.token} is another's")
    if standing.state in COMPLETE or (is_done is not None and is_done()):
        return True
    if standing.state not in WAITED_FOR:
        raise exception.RemoteFSException(
            f"compute could not {operation.kind} for snapshot {operation.snapshot}: "
            f"{standing.why or standing.state.word}"
        )
    return False if standing.why == MISSED else None


def _look_at_row(books: Books, context: Any, operation: Operation) -> bool:
    """
    Take what an API without the extension has set, and end where somebody else set a status.

    With the extension the answer stands in the ledger by the same transaction, and this finds
    nothing that is new.

    Returns:
        Whether the ledger has news.
    """
    row = db.snapshot_get(context, operation.snapshot)
    running = "creating" if operation.kind is Kind.CREATE else "deleting"
    failed = "error" if operation.kind is Kind.CREATE else "error_deleting"
    status, progress = row["status"], row["progress"]
    if status == running and progress != "90%":
        return False
    if status in (running, failed):
        update = Update(
            volume=operation.volume,
            snapshot=operation.snapshot,
            status=status,
            progress=progress,
            is_service=True,
            by="the snapshot's row: no extension, or an operator",
        )
        verdict = books.run(lambda ledger: _accept(ledger, update))
        if not isinstance(verdict, Accepted):
            log.info("the row of snapshot %s: %s", operation.snapshot, verdict)
            return False
        if verdict.is_doubted:  # heard once
            values = {"status": running, "progress": "0%"}
            db.snapshot_update(context, operation.snapshot, values)
        return True
    standing = books.standing(operation.snapshot)
    if standing is not None and standing.state.control is not Control.COMPUTE:
        return True  # it has ended in the moment between
    why = f"its status was set to {status!r}, while compute was at work"
    books.run(lambda ledger: ledger.give_up(operation.token, why))
    message = f"snapshot {operation.snapshot}: {why}"
    if operation.kind is Kind.CREATE and status in ("deleting", "error_deleting"):
        raise exception.RemoteFSConcurrentRequest(message)
    raise exception.RemoteFSException(message)


def _accept(ledger: Ledger, update: Update) -> object:
    return ledger.accept(update)
