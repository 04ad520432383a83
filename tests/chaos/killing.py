"""QEMU is killed in the middle of an operation, at a moment of our choice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qmpsnap.operations.guest import Guest
from tests.chaos.roads import Running


class Doomed:
    """A host whose QEMU is killed some time after its n-th step has begun."""

    def __init__(self, host: Guest, running: Running, at: int, delay_s: float) -> None:
        self._host = host
        self._left = at
        self._timer = threading.Timer(delay_s, kill, [running])

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = getattr(self._host, name)
        if not callable(step):
            return step  # type: ignore[no-any-return]

        def counted(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self._timer.start()
            return step(*arguments)

        return counted

    def see_it_die(self) -> None:
        """Wait until QEMU has been killed; now, where the operation was over before."""
        if self._left > 0:
            self._timer.start()
        self._timer.join()


class KilledBefore:
    """A host whose QEMU has ended when the n-th step of a name begins."""

    def __init__(self, host: Guest, running: Running, step: str, at: int) -> None:
        self._host = host
        self._running = running
        self._step = step
        self._left = at

    def __getattr__(self, name: str) -> Any:
        if name == self._step:
            self._left -= 1
            if self._left == 0:
                self._running.rig.kill()
        return getattr(self._host, name)


def kill(running: Running) -> None:
    """Kill QEMU at once; `Rig.kill` waits for its end."""
    guest: Any = running.rig.guest
    with suppress(ProcessLookupError):
        os.kill(guest.pid, signal.SIGKILL)


@contextmanager
def killed_on(running: Running, event: str) -> Iterator[threading.Event]:
    """Kill QEMU as soon as it says that something happened; the event is set when it has."""
    killed = threading.Event()

    def strike() -> None:
        kill(running)
        killed.set()

    with running.on_event(event, strike):
        yield killed
