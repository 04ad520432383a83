"""A thread that sends the letters of a long-running service, when they are due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Condition, Thread
from typing import Final

from qmpsnap.delivery.outbox import Outbox
from qmpsnap.errors import QmpsnapError

log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""So often it looks by itself: another process may have concluded an operation."""


class Sender:
    """Sends in the background, at once when poked, else when the next try is due."""

    def __init__(self, outbox: Outbox, *, now: Callable[[], float] = time.time) -> None:
        """Start nothing yet."""
        self._outbox, self._now = outbox, now
        self._changed = Condition()
        self._is_poked = False
        self._is_stopped = False
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin, with what an earlier process has left; again: nothing."""
        with self._changed:
            if self._thread is None:
                self._thread = Thread(target=self._run, name="qmpsnap-sender", daemon=True)
                self._thread.start()

    def poke(self) -> None:
        """Look at the letters at once: one may have been stored."""
        with self._changed:
            self._is_poked = True
            self._changed.notify()

    def stop(self, timeout_s: float | None = None) -> None:
        """End it, after the requests that are under way; what is left is sent by the next one."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            wait = self._round()
            with self._changed:
                self._changed.wait_for(lambda: self._is_poked or self._is_stopped, wait)
                if self._is_stopped:
                    return
                self._is_poked = False

    def _round(self) -> float:
        """Send, and return the seconds until the next round."""
        try:
            next_at = self._outbox.send(should_stop=lambda: self._is_stopped).next_at
        except QmpsnapError as error:
            log.error("the outbox cannot be sent: %s", error)
            return LOOK_S
        except Exception:  # the thread must live as long as the service
            log.exception("unforeseen, while the outbox is sent")
            return LOOK_S
        return LOOK_S if next_at is None else min(max(next_at - self._now(), 0.0), LOOK_S)
