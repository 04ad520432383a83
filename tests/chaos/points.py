"""
Something happens at the n-th moment of an operation, chosen before.

A moment is an act of the tool (right before it, or right after), or whatever Python tells of the
thread that it runs on: a file that it opens or removes, a folder that it lists, a program that it
starts. Right before the acts after which QEMU opens files again by their names there is none: the
last look has been, and nothing can be done in between.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.offline.guest import OfflineGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.step import Does, Step
from tests.rig import doors

When = Literal["start", "before", "after", "audit"]
_TOO_LATE: Final = (Does.START, Does.SWITCH, Does.COMMIT)
_EVENTS: Final = frozenset(
    ("open", "os.remove", "os.rename", "os.link", "os.listdir", "subprocess.Popen", "fcntl.fcntl")
)
"""Source: the audit events table of Python's documentation."""


@dataclass
class Strike:
    """What happens, and when."""

    when: When
    number: int
    act: Callable[[], object]
    is_done: bool = False


@dataclass
class _Watched:
    strikes: list[Strike]
    thread: int
    counts: dict[str, int] = field(default_factory=dict)
    is_busy: bool = False

    def before(self, step: Step) -> None:
        if step.does not in _TOO_LATE:
            self.moment("before")

    def moment(self, when: When) -> None:
        if self.is_busy or threading.get_ident() != self.thread:
            return
        number = self.counts[when] = self.counts.get(when, 0) + 1
        for strike in self.strikes:
            if (strike.when, strike.number) == (when, number):
                strike.is_done = self.is_busy = True
                try:
                    strike.act()
                finally:
                    self.is_busy = False


_watched: _Watched | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or event not in _EVENTS:
        return
    if event == "open" and not isinstance(arguments[0], (str, bytes)):
        return
    if event == "open" and os.fsdecode(arguments[0]).endswith((".py", ".pyc")):
        return  # an import, of which there are more in the first operation than in the next
    if event in ("open", "os.listdir") and _is_of_a_process(arguments[0]):
        return  # of which there are as many as run just now
    _watched.moment("audit")


def _is_of_a_process(path: object) -> bool:
    return isinstance(path, (str, bytes)) and os.fsdecode(path).startswith("/proc")


@contextmanager
def struck(strikes: list[Strike]) -> Iterator[None]:
    """For the length of a block, each strike comes at its moment; the block begins with `start`."""
    global _watched
    _hook_is_in()
    watched = _Watched(strikes, threading.get_ident())
    with pytest.MonkeyPatch.context() as patch:
        for kind in (QmpGuest, LibvirtGuest, OfflineGuest):
            doors.patch(
                patch,
                kind,
                before=watched.before,
                after=lambda _step: watched.moment("after"),
            )
        watched.moment("start")
        _watched = watched
        try:
            yield
        finally:
            _watched = None


class _Hook:
    is_in = False


def _hook_is_in() -> None:
    """Put the hook in, once: it cannot be taken out again (PEP 578)."""
    if not _Hook.is_in:
        sys.addaudithook(_hook)
        _Hook.is_in = True
