"""
What goes on beside Nova's calls: operations that broke off are settled, updates are sent.

    once: tell Cinder that we have started ─► open operations of this host ─► resume, each beside
    the others ─► the outbox ─► sleep until something is due, or woken

It begins when the service listens: a start is not held up by what a merge still has to copy. Nor is
an update, or what else is to be settled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import Any, Final

from oslo_log import log as logging

from qmpsnap.delivery.outbox import Outbox
from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import OperationBusy
from qmpsnap.journal.reach import Opener
from qmpsnap.journal.record import Entry
from qmpsnap.journal.resume import Settled, resume

LOG = logging.getLogger(__name__)
LOOK_S: Final = 60.0
"""So often it looks by itself."""
SOON_S: Final = 5.0
"""At most so long until an operation is tried again that could not be settled."""
SEES_S: Final = 10.0
"""So long a call is waited for whose guest may be gone. It looks each second."""
_ASK_S: Final = 0.1
BESIDE_S: Final = 1.0
"""So long a round waits for what it has begun to settle. What takes longer ends with a round of its own."""
AGAIN_S: Final = 1.0
"""At least so long between two rounds: an update that is left although its time has come is in the hands
of another thread, which may wait for Cinder. Of rounds that leave something open, each waits twice as
long as the one before: libvirtd is back within a second, or takes its time."""


class Keeper:
    """One thread a service, and one for each operation that is being settled."""

    def __init__(
        self, journal: Journal, outbox: Outbox, opener: Opener, once: Callable[[], bool]
    ) -> None:
        """
        Start nothing yet.

        Args:
            journal: Of this service.
            outbox: Of the same.
            opener: Opens the guest of an operation.
            once: Called first of all, and again each round until it returns True.
        """
        self._journal, self._outbox, self._opener = journal, outbox, opener
        self._once: Callable[[], bool] | None = once
        self._woken = Event()
        self._thread: Thread | None = None
        self._settling: dict[str, Future[bool]] = {}
        """By operation: whether it is left open. Of this thread alone."""
        self._failed = 0
        """How many rounds have left something open since one that has not."""

    def start(self) -> None:
        """Begin, with what an earlier process has left; again: nothing."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="qmpsnap-keeper", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look at once: something was left open."""
        self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.clear()
            self._woken.wait(self._round())

    def _round(self) -> float:
        """Do what is due, and return the seconds until the next round."""
        is_done = self._is_done_once()
        try:
            are_open = self._settle_beside()
            next_at = self._outbox.send().next_at
        except QmpsnapError as error:
            LOG.error("The journal cannot be used: %s %s", error, error.way_out)
            return self._again(LOOK_S)
        except Exception:  # the thread must live as long as the service
            LOG.exception("Unforeseen, beside Nova's calls.")
            return self._again(LOOK_S)
        wait = LOOK_S if next_at is None else min(max(next_at - time.time(), AGAIN_S), LOOK_S)
        if are_open:
            return min(wait, self._again(SOON_S))
        if not is_done:
            return min(wait, self._again(LOOK_S))
        self._failed = 0
        return wait

    def _is_done_once(self) -> bool:
        """Before the rest: what there is to settle may take hours, and must not wait for this either."""
        try:
            if self._once is not None and self._once():
                self._once = None
        except QmpsnapError as error:
            LOG.error("Cinder is not told that the service has started: %s", error)
        except Exception:
            LOG.exception("Unforeseen, at the start of the service.")
        return self._once is None

    def _again(self, at_most: float) -> float:
        """Seconds until the next round after one that has left something open."""
        self._failed = min(self._failed + 1, 16)
        return min(AGAIN_S * 2.0 ** (self._failed - 1), at_most)

    def settle(self, volume: str) -> None:
        """
        Settle what is open of one volume.

        A call that is at work on it is waited for, but not long: a hard reboot destroys the guest in
        the middle of a merge and starts it at once, and the call needs a moment to see that.

        Raises:
            JournalUnusable: The journal cannot be read or written.
        """
        until = time.monotonic() + SEES_S
        for one in self._open_entries():
            if volume in _volumes(one):
                while self._is_busy(one) and time.monotonic() < until:
                    time.sleep(_ASK_S)

    def _is_busy(self, entry: Entry) -> bool:
        """Settle one; True: its own call is at work on it."""
        try:
            self._is_unread(entry)
        except OperationBusy:
            return True
        return False

    def _settle_beside(self) -> bool:
        """
        Settle what nobody is at work on, each on a thread: one may wait for a merge of hours.

        Returns:
            Whether anything is still open that can be tried again, as far as is known by now.

        Raises:
            JournalUnusable: The journal cannot be read or written.
        """
        begun = [
            self._begin(one) for one in self._open_entries() if one.record.id not in self._settling
        ]
        for slow in wait(begun, timeout=BESIDE_S).not_done:
            slow.add_done_callback(lambda _: self._woken.set())
        ended = [key for key, one in self._settling.items() if one.done()]
        return any([self._settling.pop(key).result() for key in ended])

    def _begin(self, entry: Entry) -> Future[bool]:
        future: Future[bool] = Future()

        def work() -> None:
            try:
                future.set_result(self._is_left_open(entry))
            except BaseException as error:  # for the keeper's thread, which tells
                future.set_exception(error)

        name = f"qmpsnap-settling-{entry.record.id}"
        Thread(target=work, name=name, daemon=True).start()
        self._settling[entry.record.id] = future
        return future

    def _open_entries(self) -> Sequence[Entry]:
        store = self._journal.looked_into()
        if store is None:
            return ()
        with store:
            return store.open_entries()

    def _is_left_open(self, entry: Entry) -> bool:
        try:
            return self._is_unread(entry)
        except OperationBusy:
            return False  # its own call concludes it

    def _is_unread(self, entry: Entry) -> bool:
        """
        Settle one, and return whether it is left open for what could not be read.

        Raises:
            OperationBusy: Its own call is at work on it.
        """
        try:
            settled = resume(self._journal, entry, opener=self._opener)
        except OperationBusy:
            raise
        except QmpsnapError as error:
            LOG.warning("Operation %s is not settled: %s", entry.record.id, error)
            return True
        _say(settled)
        return settled.is_unread


def _volumes(entry: Entry) -> tuple[Any, ...]:
    asked = entry.record.request
    return tuple(one.disk for one in (asked if isinstance(asked, tuple) else (asked,)))


def _say(settled: Settled) -> None:
    level = logging.WARNING if settled.outcome == "unknown" else logging.INFO
    LOG.log(
        level,
        "Operation %s, which was interrupted: %s. %s",
        settled.record.id,
        settled.outcome,
        "; ".join(settled.notes),
    )
