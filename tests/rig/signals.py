"""
A signal at any call of an operation: exactly one status line, and it is true.

The command line runs in this process, with the handlers that it installs, and the signal is raised
where it would come.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from qmpsnap.cli import signals
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from tests.rig.rig import Said
from tests.rig.sampling import sample

CALLS: Final = ("read", "jobs", "state", "outlines", "neighbours", "follow", "view", "wait", "take")
"""To a guest."""


def guest_class(road: str) -> type:
    """Class of the guest that the command line opens on a road."""
    return {"qmp": QmpGuest, "libvirt": LibvirtGuest}[road]


@dataclass(frozen=True, kw_only=True)
class Signalled:
    """A guest, and one operation on it."""

    kind: type
    """Class of the guest that the command line opens."""
    cli: Callable[[], Said]
    files: Callable[[], list[str]]
    """The chain, by bare names."""
    done: list[str]
    """The chain when it is done."""
    jobs: Callable[[], int]
    """How many jobs there are now."""
    content: Callable[[], str]
    ends_by_itself: bool = False
    """Whether a job that goes on may have ended a moment later, as libvirt's do."""


@contextmanager
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The handlers of the command line, for the length of a block."""
    before = {number: signal.getsignal(number) for number in signals.ALL}
    with monkeypatch.context() as patched:
        patched.setattr(signals, "_door", signals._Door())
        for number in signals.ALL:
            signal.signal(number, signal.SIG_DFL)
        signals.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def calls(
    monkeypatch: pytest.MonkeyPatch, kind: type, act: Callable[[], object], names: tuple[str, ...]
) -> None:
    """Do something before each of these calls to a guest."""

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            act()
            return function(*arguments, **named)

        return call

    for name in names:
        monkeypatch.setattr(kind, name, watched(getattr(kind, name)))


def told(status: str) -> str:
    """What a status says: `done`, `failed`, or `runs`."""
    if status.endswith("_compute_complete"):
        return "done"
    return "failed" if status.startswith("error") else "runs"


def check(guest: Signalled, said: Said, before: list[str], content: str) -> str:
    """See that the one line is true; returns what it says."""
    says = told(said.status["status"])
    assert "Traceback" not in said.err, said
    if says == "done":
        assert (said.code, guest.files(), guest.jobs()) == (0, guest.done, 0), said
    elif says == "failed":
        assert (said.code, guest.files(), guest.jobs()) == (6, before, 0), said
    else:
        assert (said.code, "goes on in the guest" in said.err) == (6, True), said
        if not guest.ends_by_itself:
            assert (guest.files(), guest.jobs()) == (before, 1), said
    assert guest.content() == content
    return says


def signal_at_calls(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    guests: Callable[[], AbstractContextManager[Signalled]],
    arm: Callable[[pytest.MonkeyPatch, type, Callable[[], object]], object],
) -> list[str]:
    """
    Raise one of the three signals at calls, each time with a new guest.

    At the first and the last of an undisturbed run always, at others as `tests.rig.sampling` says.
    The same command given again then finishes what is not done.

    Args:
        name: Of the road and the operation, for the choice of calls.
        monkeypatch: pytest's.
        guests: Makes one.
        arm: Sees to it that something is done at each call.

    Returns:
        What was told each time.
    """

    def told_at(number: int) -> tuple[str, int]:
        """What is told when the signal comes at the n-th call; and how many calls there were."""
        with guests() as guest:
            before, content = guest.files(), guest.content()
            count = 0

            def act() -> None:
                nonlocal count
                count += 1
                if count == number:
                    signal.raise_signal(signals.ALL[number % len(signals.ALL)])

            with handlers(monkeypatch), monkeypatch.context() as patched:
                arm(patched, guest.kind, act)
                said = guest.cli()
            says = check(guest, said, before, content)
            if says != "done":
                said = guest.cli()
                assert told(said.status["status"]) == "done" or guest.ends_by_itself, said
            assert guest.files() == guest.done
            assert guest.content() == content
            return says, count

    says, last = told_at(0)
    assert says == "done"
    numbers = sample(range(1, last + 1), name, lambda one: one in (1, last))
    return [told_at(number)[0] for number in numbers]
