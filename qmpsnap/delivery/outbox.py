"""
The outbox: letters of the journal, sent until they are accepted.

    answered when abandoned ─► for each snapshot, in order: try ─► note ─► what follows ─► closed

Before each try it is noted that one was made, so that a sender that dies between the acceptance and
its note is known to have been unsure. Several processes may send at once: a lock in the state folder
makes one of them at a time send for a snapshot.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final

import msgspec

from qmpsnap.delivery import machine
from qmpsnap.delivery.machine import Answer, Ask, End
from qmpsnap.delivery.service import Service
from qmpsnap.journal.expected import answer_abandoned
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import OperationBusy, held
from qmpsnap.journal.letter import OPEN, Letter
from qmpsnap.journal.store import Store
from qmpsnap.status import Dialect

log = logging.getLogger(__name__)

MAX_WAIT_S: Final = 300.0
"""Between two tries, as far as the service does not ask for more."""
MAX_RETRY_AFTER_S: Final = 3600.0
"""A service that asks for more is asked again before that."""
LEGACY_FOR_S: Final = 600.0
"""So long a service is believed to know the legacy dialect only: it may have been upgraded."""
_WORKERS: Final = 4
"""Snapshots for which letters are sent at once: one that hangs holds up no other."""

Services = Callable[[str], Service | None]
"""By what a letter is addressed to (`Addressee.to`); None: not one of this sender's."""
After = Callable[[Letter], object]
"""Does what the caller has to do once a letter was accepted, by `letter.due.addressee.after`. May be
called again for the same letter. What it raises is logged, and it is tried again later."""


def wait_s(attempts: int) -> float:
    """Seconds before the next try: exponential, with full jitter."""
    from tenacity import RetryCallState, Retrying, wait_random_exponential

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = max(attempts, 1)
    return float(wait_random_exponential(multiplier=1, min=1, max=MAX_WAIT_S)(state))


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of sending came to."""

    tried: tuple[Letter, ...]
    """Letters that were tried, as they are now."""
    left: tuple[Letter, ...]
    """Those that still have to be seen to by this sender: waiting, or accepted with what follows
    not done."""

    @property
    def next_at(self) -> float | None:
        """When the next one is to be tried; None: nothing is left."""
        return min((one.next_try for one in self.left), default=None)


class Outbox:
    """Sends the letters of one journal. Several threads may use it at once."""

    def __init__(
        self,
        journal: Journal,
        services: Services,
        *,
        after: After | None = None,
        now: Callable[[], float] = time.time,
        wait_s: Callable[[int], float] = wait_s,
    ) -> None:
        """
        Send nothing yet.

        Args:
            journal: Where the letters are.
            services: Where they are sent.
            after: What follows an acceptance. None: a letter after which something follows stays
                accepted, for whoever can do that.
            now: Seconds after 1970.
            wait_s: Seconds before the next try, by the number of tries so far.
        """
        self._journal, self._services, self._after = journal, services, after
        self._now, self._wait_s = now, wait_s
        self._lock = Lock()
        self._dialects: dict[str, tuple[Dialect, float]] = {}
        """Of each service; and when it was asked."""

    def letters(self, *, volume: str | None = None) -> tuple[Letter, ...]:
        """
        The letters that somebody still has to see to, in the order of their calls.

        Raises:
            JournalUnusable: They cannot be read.
        """
        store = self._journal.looked_into()
        if store is None:
            return ()
        with store:
            return store.letters.find(OPEN, volume=volume)

    def send(
        self,
        *,
        ids: Collection[str] = (),
        at_once: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Round:
        """
        Send what is due to be sent; each letter at most once.

        Args:
            ids: Only for the snapshots of these letters; empty: for all.
            at_once: Also letters whose next try is later.
            should_stop: Asked before each snapshot.

        Returns:
            What was tried, and what is left.

        Raises:
            JournalUnusable: The journal cannot be read or written.
        """
        store = self._journal.looked_into()
        if store is None:
            return Round(tried=(), left=())
        store.close()
        answer_abandoned(self._journal)
        with self._journal.opened() as store:
            found = store.letters.find(OPEN)
        wanted = dict.fromkeys(
            one.due.addressee.snapshot
            for one in found
            if one.state != "due" and (not ids or one.id in ids)
        )

        def work(snapshot: str) -> tuple[Letter, ...]:
            return () if should_stop() else self._send_for(snapshot, at_once=at_once)

        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="qmpsnap-outbox") as pool:
            tried = [letter for each in pool.map(work, wanted) for letter in each]
        with self._journal.opened() as store:
            left = [one for one in store.letters.find(OPEN) if self._is_mine(one)]
            done = store.letters.find((), ids=[one.id for one in tried]) if tried else ()
        return Round(tried=done, left=tuple(left))

    def send_unstored(self, letter: Letter) -> End:
        """
        Send a letter that could not be written down (`Update.unstored`), once.

        What follows its acceptance is done; what fails is logged, and not kept.
        """
        service = self._services(letter.due.addressee.to)
        if service is None:
            return End(state="waiting", why="nobody sends it", is_unsure=False)
        course, step = machine.begun(letter, (), self._dialect(letter.due.addressee.to))
        while isinstance(step, Ask):
            course, step = machine.heard(course, step, self._ask(service, letter, step))
        log.warning("a %s that is not stored was sent: %s", letter.due.kind, step.why)
        if step.state == "accepted" and self._after is not None and letter.due.addressee.after:
            try:
                self._after(letter)
            except Exception:
                log.exception("what follows a letter that is not stored is not done")
        return step

    def _is_mine(self, letter: Letter) -> bool:
        if letter.state == "due" or self._services(letter.due.addressee.to) is None:
            return False
        return letter.state == "waiting" or self._after is not None

    def _send_for(self, snapshot: str, *, at_once: bool) -> tuple[Letter, ...]:
        """Send the letters of one snapshot, in order, as far as they are accepted."""
        name = hashlib.sha256(snapshot.encode(errors="surrogateescape")).hexdigest()[:32]
        try:
            with (
                held(self._journal.opened_folder, f"sending-{name}"),
                self._journal.opened() as store,
            ):
                return tuple(self._in_order(store, snapshot, at_once=at_once))
        except OperationBusy:
            return ()  # another thread or process sends them just now

    def _in_order(self, store: Store, snapshot: str, *, at_once: bool) -> Iterator[Letter]:
        every = store.letters.find((), snapshot=snapshot)
        is_held_up = False
        for number, letter in enumerate(every):
            service = self._services(letter.due.addressee.to)
            if service is None or letter.state not in ("waiting", "accepted"):
                continue
            if letter.next_try > self._now() and not at_once:
                is_held_up = is_held_up or letter.state == "waiting"
                continue
            if letter.state == "accepted":
                self._follow(store, letter)
            elif is_held_up:
                continue
            else:
                later = store.letters.find((), snapshot=snapshot)[number + 1 :]
                state = self._try(store, letter, later, service)
                is_held_up = state == "waiting"
            yield letter

    def _try(self, store: Store, letter: Letter, later: Sequence[Letter], service: Service) -> str:
        to = letter.due.addressee.to
        course, step = machine.begun(letter, later, self._dialect(to))
        while isinstance(step, Ask):
            if step.what == "update":
                store.letters.trying(letter.id, course.seen)
            course, step = machine.heard(course, step, self._ask(service, letter, step))
        self._remember(to, course.dialect, asked=course.has_asked)
        self._note(store, letter, step)
        return step.state

    @staticmethod
    def _ask(service: Service, letter: Letter, step: Ask) -> Answer:
        try:
            return service.ask(letter, step)
        except Exception as error:  # of a library; the letter must not be lost for it
            log.exception("unforeseen, in a request for letter %s", letter.id)
            return Answer(status=None, text=f"{type(error).__name__}: {error}")

    def _note(self, store: Store, letter: Letter, end: End) -> None:
        now = self._now()
        wait = max(
            self._wait_s(letter.attempts + 1), min(end.retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        )
        said = f"letter {letter.number} ({letter.due.kind} of {letter.due.addressee.snapshot})"
        state = end.state
        if state == "accepted" and not letter.due.addressee.after:
            store.letters.note(letter.id, "closed", answer=end.why, now=now)
            log.info("%s was accepted: %s", said, end.why)
            return
        next_try = now + wait if state == "waiting" else now
        store.letters.note(
            letter.id, state, answer=end.why, now=now, is_unsure=end.is_unsure, next_try=next_try
        )
        level = {"accepted": logging.INFO, "waiting": logging.WARNING}.get(state, logging.ERROR)
        log.log(level, "%s is %s: %s", said, state, end.why)
        if state == "accepted":
            self._follow(store, letter)

    def _follow(self, store: Store, letter: Letter) -> None:
        """Do what follows the acceptance of a letter, and close it."""
        if self._after is None:
            return
        try:
            self._after(letter)
        except Exception as error:
            log.exception("what follows letter %s is not done", letter.number)
            store.letters.note(
                letter.id,
                "accepted",
                answer=f"what follows is not done: {error}",
                now=self._now(),
                next_try=self._now() + self._wait_s(letter.attempts + 1),
            )
            return
        store.letters.note(letter.id, "closed", answer="accepted", now=self._now())

    def _dialect(self, to: str) -> Dialect | None:
        with self._lock:
            known = self._dialects.get(to)
        if known is None:
            return None
        dialect, asked = known
        is_old = dialect is Dialect.LEGACY and self._now() - asked > LEGACY_FOR_S
        return None if is_old else dialect

    def _remember(self, to: str, dialect: Dialect | None, *, asked: bool) -> None:
        with self._lock:
            if dialect is None:
                self._dialects.pop(to, None)
            elif asked or to not in self._dialects:
                self._dialects[to] = dialect, self._now()
