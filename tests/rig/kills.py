"""The tool dies before or after each act of an operation, and the same command is given again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.guests.files import door
from qmpsnap.journal.file import Journal, Store
from qmpsnap.journal.keep import created, deleted
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.resume import Settled, Take
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.snapshot import create
from tests.rig import images
from tests.rig.doors import Killed, dying
from tests.rig.headers import without_format
from tests.rig.rig import BASE, DISK

Request = CreateRequest | DeleteRequest | NamedDeleteRequest


@dataclass(frozen=True, kw_only=True)
class Killing:
    """One operation on a chain of three layers."""

    request: Request
    files: tuple[str, ...]
    """Snapshots of the chain afterwards, newest first."""
    prepare: Callable[[Path], None] = lambda _folder: None
    is_sound: bool = True
    """Whether the chain is as it should be before."""


KILLINGS: Final = {
    "create": Killing(
        request=CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new"),
        files=("new", "s2", "s1"),
    ),
    "header rewrite and create": Killing(
        request=CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new"),
        files=("new", "s2", "s1"),
        prepare=lambda folder: without_format(folder / f"{BASE}.s2"),
        is_sound=False,
    ),
    "commit": Killing(request=NamedDeleteRequest(disk=DISK, snapshot="s1"), files=("s2",)),
    "active commit": Killing(
        request=NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit"), files=("s1",)
    ),
    "pull to a base": Killing(
        request=DeleteRequest(disk=DISK, file_to_merge=BASE, merge_target_file=None),
        files=("s2",),
    ),
    "pull": Killing(
        request=DeleteRequest(disk=DISK, file_to_merge=None, merge_target_file=None),
        files=("s2-alone",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A guest that is operated on."""

    folder: Path
    connect: Callable[[], AbstractContextManager[Guest]]
    content: Callable[[], str]
    """Hash of what it reads."""
    sound: Callable[[], object]
    """Asserts that formats and headers are right."""
    kill: Callable[[], None] = lambda: None
    """SIGKILL for QEMU."""


def kill_at_every_act(
    victims: Callable[[], AbstractContextManager[Victim]], killing: Killing, when: str
) -> int:
    """
    Die before or after the first act, then the second, and so on; returns how many there were.

    Each time with a new guest. Whatever was done, the content stays; the same command given again
    finishes it, or is refused where all is done; nothing is left behind.
    """
    for number in itertools.count(1):
        with victims() as victim:
            killing.prepare(victim.folder)
            content = victim.content()
            with victim.connect() as guest:
                died = _dies(dying(guest, number, when), killing.request)
            assert victim.content() == content, (number, when)
            if died:
                with victim.connect() as guest:
                    _again(guest, killing.request)
            assert victim.content() == content, (number, when)
            with victim.connect() as guest:
                assert guest.jobs() == ()
                layers = guest.read().disks[0].layers
            assert [layer.file for layer in layers] == _files(killing), (number, when)
            victim.sound()
            assert not list(victim.folder.glob(".*")), (number, when)
        if not died:
            return number - 1
    raise AssertionError


def _files(killing: Killing) -> list[str]:
    if killing.files == ("s2-alone",):
        return [f"{BASE}.s2"]
    return [*(f"{BASE}.{name}" for name in killing.files), BASE]


def _dies(guest: Guest, request: Request) -> bool:
    try:
        _operate(guest, request)
    except Killed:
        return True
    return False


def _again(guest: Guest, request: Request) -> None:
    """Refused is right as well: what the request names may have been done."""
    try:
        _operate(guest, request)
    except Refused:
        pass
    except QmpsnapError as error:
        raise AssertionError(error) from error


def _operate(guest: Guest, request: Request) -> None:
    if isinstance(request, CreateRequest):
        create(guest, request)
    else:
        delete(guest, request)


Victims = Callable[[], AbstractContextManager[Victim]]
Moment = Callable[[Guest, int, str], AbstractContextManager[Guest]]
"""A guest with which the tool dies at the n-th moment, before or after it."""


@dataclass
class Deaths:
    """How many there were, and how the operations were settled."""

    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def resumed_after_every_death(
    victims: Victims,
    killing: Killing,
    when: str,
    journal: Journal,
    deaths: Moment,
    settle: Callable[[Victim, Entry], Settled],
) -> Deaths:
    """
    Die at the first moment, then the second, and so on; each time with a new guest, then resume.

    Args:
        victims: Makes the guests.
        killing: The operation.
        when: `before` or `after`.
        journal: Where it is written down.
        deaths: A guest with which the tool dies at the n-th moment.
        settle: Settles the one open operation.
    """
    found = Deaths()
    for number in itertools.count(1):
        with victims() as victim:
            killing.prepare(victim.folder)
            content = victim.content()
            before = _layers(victim)
            with victim.connect() as guest, deaths(guest, number, when) as mortal:
                died = _dies_with(mortal, killing.request, journal)
            assert victim.content() == content, (number, when)
            outcome = "finished"
            entries = _open_entries(journal)
            assert died or not entries
            for entry in entries:
                settled = settle(victim, entry)
                outcome = settled.outcome
                assert outcome in ("finished", "rolled-back"), (number, when, settled)
                found.outcomes[outcome] += 1
                again = settle(victim, entry)
                assert again.outcome == "nothing-to-do", (number, when, again)
            assert not _open_entries(journal)
            assert victim.content() == content, (number, when)
            with victim.connect() as guest:
                assert guest.jobs() == ()
            wanted = {"finished": [_files(killing)], "rolled-back": [before]}[outcome]
            if not entries:  # nothing was written down yet, or all was done
                wanted = [before, _files(killing)]
            assert _layers(victim) in wanted, (number, when, outcome)
            if killing.is_sound or _layers(victim) == _files(killing):
                victim.sound()
            assert not list(victim.folder.glob(".*")), (number, when)
            found.count = number - 1
        if not died:
            return found
    raise AssertionError


def resumed_without_qemu(
    victims: Victims,
    killing: Killing,
    when: str,
    journal: Journal,
    deaths: Moment,
    settle: Callable[[Entry, Take | None], Settled],
) -> Deaths:
    """
    The same, and QEMU dies after the tool: the files have to tell.

    What `resume` says the guest is to be started from reads as the guest did. Of an active commit
    it may be unknown; then a person decides.
    """
    found = Deaths()
    for number in itertools.count(1):
        with victims() as victim:
            content = victim.content()
            with victim.connect() as guest, deaths(guest, number, when) as mortal:
                died = _dies_with(mortal, killing.request, journal)
            victim.kill()
            for entry in _open_entries(journal):
                settled = settle(entry, None)
                found.outcomes[settled.outcome] += 1
                if settled.outcome == "unknown":
                    assert entry.record.kind == "active-commit", (number, settled)
                    assert len(settled.active) == 2
                    settled = settle(entry, "base")
                    assert settled.outcome == "finished"
                (active,) = settled.active
                assert _content_of(active, entry.record) == content, (number, when, settled)
                assert settle(entry, None).outcome == "nothing-to-do"
            assert not _open_entries(journal)
            assert not list(victim.folder.glob(".*")), (number, when)
            found.count = number - 1
        if not died:
            return found
    raise AssertionError


def _content_of(path: str, record: Record) -> str:
    return images.sha256_of(path, record.before.get(Path(path).name, "qcow2"))


def _layers(victim: Victim) -> list[str]:
    with victim.connect() as guest:
        return [layer.file for layer in guest.read().disks[0].layers]


def _open_entries(journal: Journal) -> tuple[Entry, ...]:
    with journal.opened() as store:
        return store.open_entries()


def _dies_with(guest: Guest, request: Request, journal: Journal) -> bool:
    try:
        if isinstance(request, CreateRequest):
            created(journal, guest, (request,))
        else:
            deleted(journal, guest, request)
    except Killed:
        return True
    return False


@contextmanager
def at_an_act(guest: Guest, number: int, when: str) -> Iterator[Guest]:
    """The tool dies before or after its n-th act."""
    yield dying(guest, number, when)


@contextmanager
def at_a_write(guest: Guest, number: int, when: str) -> Iterator[Guest]:
    """The tool dies before or after the n-th time that it writes into the journal or a marker."""
    left = number

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and when == "before":
                raise Killed
            answer = write(*args, **more)
            if left == 0:
                raise Killed
            return answer

        return mortal

    with pytest.MonkeyPatch.context() as patch:
        for name in ("begin", "go_on", "conclude"):
            patch.setattr(Store, name, counted(getattr(Store, name)))
        for name in ("write_marker", "remove_marker"):
            path = f"qmpsnap.guests.files.door.{name}"
            patch.setattr(path, counted(getattr(door, name)))
        yield guest
