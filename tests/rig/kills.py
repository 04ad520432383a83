"""
The tool dies around each act of an operation and each write of its journal; then it is settled.

The points are those of one undisturbed run. All of them are tried at night, a seeded share
otherwise (`tests.rig.sampling`): right before, in and right after the decisive act always.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import pytest

from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.guests.files import door
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.journal.markers import beside, entry_of
from qmpsnap.journal.record import Entry, Record, dumps
from qmpsnap.journal.resume import Settled, Wanted, settle
from qmpsnap.journal.store import Store
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import Killed
from tests.rig.headers import without_format
from tests.rig.rig import BASE, DISK
from tests.rig.sampling import sample

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


Victims = Callable[[], AbstractContextManager[Victim]]
Kind = Literal["act", "write", "look"]
"""An act; a write into the journal or a marker; a look at the job."""
When = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """Where the tool dies."""

    kind: Kind
    number: int
    """Counted from 1, for each kind."""
    what: str
    when: When
    is_decisive: bool = False

    def __str__(self) -> str:
        return f"{self.when} {self.kind} {self.number} ({self.what})"


@dataclass
class Trace:
    """What an operation does, and where it dies."""

    point: Point | None = None
    seen: list[tuple[Kind, str]] = field(default_factory=list)
    has_died: bool = False
    _counts: Counter[Kind] = field(default_factory=Counter)
    _is_started: bool = False

    def before(self, kind: Kind, what: str) -> None:
        """Something begins."""
        self.seen.append((kind, what))
        self._counts[kind] += 1
        self._die(kind, "before")

    def after(self, kind: Kind, what: str) -> None:
        """It has ended; nobody has heard its answer yet."""
        self._is_started = self._is_started or what == Does.START
        self._die(kind, "after")

    def looks(self) -> None:
        """The job is looked at; the first time after its start is a point."""
        if self._is_started and not self._counts["look"]:
            self.before("look", "the job runs")

    def _die(self, kind: Kind, when: When) -> None:
        here = (kind, self._counts[kind], when)
        if self.point is not None and here == (self.point.kind, self.point.number, self.point.when):
            self.has_died = True
            raise Killed


class _Mortal:
    def __init__(self, guest: Guest, trace: Trace) -> None:
        self._guest, self._trace = guest, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def take(self, step: Step) -> object:
        self._trace.before("act", step.does)
        answer = self._guest.take(step)
        self._trace.after("act", step.does)
        return answer

    def view(self, job: str) -> JobView:
        self._trace.looks()
        return self._guest.view(job)


@contextmanager
def traced(guest: Guest, trace: Trace) -> Iterator[Guest]:
    """A guest whose operation is traced, and dies at the trace's point."""

    def watched(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*args: Any, **more: Any) -> Any:
            trace.before("write", name)
            answer = write(*args, **more)
            trace.after("write", name)
            return answer

        return mortal

    with pytest.MonkeyPatch.context() as patch:
        for name in ("begin", "go_on", "conclude"):
            patch.setattr(Store, name, watched(name, getattr(Store, name)))
        for name in ("write_marker", "remove_marker"):
            path = f"qmpsnap.guests.files.door.{name}"
            patch.setattr(path, watched(name, getattr(door, name)))
        yield cast(Guest, _Mortal(guest, trace))


_DECISIVE: Final = (Does.SWITCH, Does.COMMIT, Does.REDEFINE, Does.START)
"""The first of these that an operation has; a libvirt's commit ends by itself."""


def points_of(trace: Trace) -> tuple[Point, ...]:
    """All points of an operation that ran to its end."""
    acts = [what for kind, what in trace.seen if kind == "act"]
    decisive = next((one for one in _DECISIVE if one in acts), None)
    counts: Counter[Kind] = Counter()
    found: list[Point] = []
    for kind, what in trace.seen:
        counts[kind] += 1
        is_decisive = kind == "look" or (
            kind == "act" and what == decisive and counts[kind] - 1 == acts.index(what)
        )
        for when in ("before",) if kind == "look" else ("before", "after"):
            found.append(Point(kind, counts[kind], what, cast(When, when), is_decisive))
    return tuple(found)


@dataclass
class Deaths:
    """How many there were, of how many points, and how the operations were settled."""

    points: int = 0
    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"died at {self.count} of {self.points} points, {dict(self.outcomes)}"


def at_points(name: str, operate: Callable[[Trace], None]) -> Deaths:
    """
    Operate once undisturbed, then with a death at each chosen point.

    A point that a run does not come to is no death.

    Args:
        name: What is killed, for the choice of points.
        operate: Makes a new guest, operates on it with a trace, and sees what became of it.
    """
    trace = Trace()
    operate(trace)
    points = points_of(trace)
    found = Deaths(points=len(points))
    for point in sample(points, name, lambda one: one.is_decisive):
        trace = Trace(point=point)
        try:
            operate(trace)
        except AssertionError as error:
            error.add_note(f"the tool died {point}")
            raise
        assert trace.has_died or not point.is_decisive, point
        found.count += trace.has_died
    return found


def killed_and_given_again(name: str, victims: Victims, killing: Killing) -> Deaths:
    """
    Die at points, each time with a new guest, without a journal.

    Whatever was done, the content stays; the same command given again finishes it, or is refused
    where all is done; nothing is left behind.

    Args:
        name: Of the road and the operation, for the choice of points.
        victims: Makes the guests.
        killing: The operation.
    """

    def operate(trace: Trace) -> None:
        with victims() as victim:
            killing.prepare(victim.folder)
            content = victim.content()
            with victim.connect() as guest, traced(guest, trace) as mortal:
                died = dies(mortal, killing.request, None)
            assert died == trace.has_died
            assert victim.content() == content
            if died:
                with victim.connect() as guest:
                    _again(guest, killing.request)
            assert victim.content() == content
            with victim.connect() as guest:
                assert guest.jobs() == ()
            assert layers_of(victim) == files_of(killing)
            victim.sound()
            assert not list(victim.folder.glob(".*"))

    return at_points(name, operate)


def killed_and_resumed(
    name: str,
    victims: Victims,
    killing: Killing,
    journal: Journal,
    settle: Callable[[Victim, Entry], Settled],
) -> Deaths:
    """
    Die at points, each time with a new guest, then resume.

    Args:
        name: Of the road and the operation, for the choice of points.
        victims: Makes the guests.
        killing: The operation.
        journal: Where it is written down.
        settle: Settles the one open operation.
    """
    outcomes: Counter[str] = Counter()

    def operate(trace: Trace) -> None:
        with victims() as victim:
            killing.prepare(victim.folder)
            content = victim.content()
            before = layers_of(victim)
            with victim.connect() as guest, traced(guest, trace) as mortal:
                died = dies(mortal, killing.request, journal)
            assert died == trace.has_died
            assert victim.content() == content
            outcome = "finished"
            entries = open_entries(journal)
            assert died or not entries
            for entry in entries:
                assert not _numbers_in(json.loads(dumps(entry)))
                settled = settle(victim, entry)
                outcome = settled.outcome
                assert outcome in ("finished", "rolled-back"), settled
                outcomes[outcome] += 1
                again = settle(victim, entry)
                assert again.outcome == "nothing-to-do", again
            assert not open_entries(journal)
            assert victim.content() == content
            with victim.connect() as guest:
                assert guest.jobs() == ()
            wanted = {"finished": [files_of(killing)], "rolled-back": [before]}[outcome]
            if not entries:  # nothing was written down yet, or all was done
                wanted = [before, files_of(killing)]
            assert layers_of(victim) in wanted, outcome
            if killing.is_sound or layers_of(victim) == files_of(killing):
                victim.sound()
            assert not list(victim.folder.glob(".*"))

    found = at_points(name, operate)
    found.outcomes = outcomes
    return found


def killed_while_resuming(
    name: str, victims: Victims, killing: Killing, journal: Journal
) -> Deaths:
    """
    Die around the decisive act, then again at points of `resume`, then resume.

    Around the decisive act there are three points at most, and one of them is tried in CI.
    """
    found = Deaths()
    with victims() as victim:
        killing.prepare(victim.folder)
        trace = Trace()
        with victim.connect() as guest, traced(guest, trace) as mortal:
            assert not dies(mortal, killing.request, journal)
    decisive = [one for one in points_of(trace) if one.is_decisive]
    for first in sample(decisive, name, lambda _one: False):

        def operate(trace: Trace, first: Point = first) -> None:
            with victims() as victim:
                killing.prepare(victim.folder)
                content, before = victim.content(), layers_of(victim)
                with victim.connect() as guest, traced(guest, Trace(point=first)) as mortal:
                    assert dies(mortal, killing.request, journal)
                (entry,) = open_entries(journal)
                try:
                    with victim.connect() as guest, traced(guest, trace) as mortal:
                        settle(journal, entry, mortal)
                except Killed:
                    assert victim.content() == content
                with victim.connect() as guest:
                    settled = settle(journal, entry, guest)
                assert settled.outcome != "unknown", settled
                found.outcomes[settled.outcome] += 1
                assert not open_entries(journal)
                assert victim.content() == content
                with victim.connect() as guest:
                    assert guest.jobs() == ()
                assert layers_of(victim) in (before, files_of(killing))
                if killing.is_sound or layers_of(victim) == files_of(killing):
                    victim.sound()
                assert not list(victim.folder.glob(".*"))

        deaths = at_points(f"{name}, first {first}", operate)
        found.count, found.points = found.count + deaths.count, found.points + deaths.points
    return found


def killed_with_the_journal(
    name: str, victims: Victims, killing: Killing, journal: Journal, *, with_qemu: bool
) -> Deaths:
    """
    Die at points; then the journal is gone, and perhaps QEMU: the markers alone are left.

    Where there is none, the files must tell: the old active file, or the new one, has all data.
    """
    outcomes: Counter[str] = Counter()

    def operate(trace: Trace) -> None:
        with victims() as victim:
            killing.prepare(victim.folder)
            content, old = victim.content(), layers_of(victim)
            with victim.connect() as guest, traced(guest, trace) as mortal:
                dies(mortal, killing.request, journal)
            if with_qemu:
                victim.kill()
            for path in journal.path.parent.iterdir():
                path.unlink()
            found = beside([str(victim.folder / "x")])
            for marker in found:
                entry = entry_of(marker)
                if with_qemu:
                    settled = settle(journal, entry, None)
                    if settled.outcome == "unknown":
                        assert entry.record.kind == "active-commit", settled
                        settled = settle(journal, entry, None, Wanted(take="base"))
                    (active,) = settled.active
                    assert _content_of(active, entry.record) == content, settled
                else:
                    with victim.connect() as guest:
                        settled = settle(journal, entry, guest)
                    assert settled.outcome in ("finished", "rolled-back"), settled
                outcomes[settled.outcome] += 1
            if with_qemu and not found:
                outcomes["no marker"] += 1
                files = [victim.folder / one for one in (old[0], files_of(killing)[0])]
                contents = [images.sha256_of(one, format_of(one)) for one in files if one.exists()]
                assert content in contents
            assert not beside([str(victim.folder / "x")])
            if not with_qemu:
                with victim.connect() as guest:
                    _again(guest, killing.request)
                assert layers_of(victim) == files_of(killing)
                assert victim.content() == content
                victim.sound()

    found = at_points(name, operate)
    found.outcomes = outcomes
    return found


def format_of(path: Path) -> str:
    """Of the rig's own files: the base is raw, every overlay qcow2."""
    return "raw" if path.name == BASE else "qcow2"


def _numbers_in(value: Any) -> bool:
    """Whether a file is told by the number of its file system, which changes with boot and mount."""
    match value:
        case ["file", int(), int()]:
            return True
        case list():
            return any(map(_numbers_in, value))
        case dict():
            return any(map(_numbers_in, value.values()))
        case str() if value.startswith(("[", "{")):  # an answer
            with suppress(ValueError):  # which was cut off
                return _numbers_in(json.loads(value))
    return False


def files_of(killing: Killing) -> list[str]:
    """The chain afterwards, newest first."""
    if killing.files == ("s2-alone",):
        return [f"{BASE}.s2"]
    return [*(f"{BASE}.{name}" for name in killing.files), BASE]


def dies(guest: Guest, request: Request, journal: Journal | None) -> bool:
    """Operate; whether the tool has died."""
    try:
        if journal is None:
            _operate(guest, request)
        elif isinstance(request, CreateRequest):
            created(journal, guest, (request,))
        else:
            deleted(journal, guest, request)
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


def _content_of(path: str, record: Record) -> str:
    return images.sha256_of(path, record.before.get(Path(path).name, "qcow2"))


def layers_of(victim: Victim) -> list[str]:
    """The chain now."""
    with victim.connect() as guest:
        return [layer.file for layer in guest.read().disks[0].layers]


def open_entries(journal: Journal) -> tuple[Entry, ...]:
    """What has to be settled."""
    with journal.opened() as store:
        return store.open_entries()
