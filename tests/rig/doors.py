"""
Something happens at the door: acts are counted, somebody meddles, or the process dies.

All that an operation changes goes through `take`, so this is where to stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobStatus, JobView
from qmpsnap.operations.step import Does, Step

Watcher = Callable[[Step], object]


class Killed(BaseException):
    """The process is gone: no clean-up of the tool runs (it handles no such exception)."""


def nothing(_step: Step) -> None:
    """What happens by default."""


class _Door:
    def __init__(self, guest: Guest, before: Watcher, after: Watcher) -> None:
        self._guest, self._before, self._after = guest, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def take(self, step: Step) -> object:
        self._before(step)
        answer = self._guest.take(step)
        self._after(step)
        return answer


def with_door(guest: Guest, *, before: Watcher = nothing, after: Watcher = nothing) -> Guest:
    """The same guest; something happens before and after each of its acts."""
    return cast(Guest, _Door(guest, before, after))


def dying_at(guest: Guest, does: Does, when: str = "before") -> Guest:
    """A guest whose tool dies at the first act of a kind."""
    act = at(does, die)
    return with_door(guest, before=act) if when == "before" else with_door(guest, after=act)


def die(_step: Step) -> None:
    """End as `kill -9` does."""
    raise Killed


def at(does: Does, act: Watcher, number: int = 1) -> Watcher:
    """Do something at the n-th act of a kind, once."""
    left = number

    def once(step: Step) -> None:
        nonlocal left
        if step.does is does:
            left -= 1
            if left == 0:
                act(step)

    return once


class _AtTheEnd:
    """Something happens as soon as the job is seen to have ended, once."""

    def __init__(self, guest: Guest, act: Callable[[], object]) -> None:
        self._guest, self._act = guest, act
        self._is_done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def view(self, job: str) -> JobView:
        view = self._guest.view(job)
        if view.status in (JobStatus.CONCLUDED, JobStatus.NULL) and not self._is_done:
            self._is_done = True
            self._act()
        return view


def at_the_end(guest: Guest, act: Callable[[], object]) -> Guest:
    """A guest with which something happens between the end of its job and the next look."""
    return cast(Guest, _AtTheEnd(guest, act))


def patch(
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    *,
    before: Watcher = nothing,
    after: Watcher = nothing,
) -> None:
    """The same for every guest of a kind, the command line's too."""
    take: Callable[[Any, Step], object] = kind.take  # type: ignore[attr-defined]

    def watched(self: Any, step: Step) -> object:
        before(step)
        answer = take(self, step)
        after(step)
        return answer

    monkeypatch.setattr(kind, "take", watched)
