"""An operation of the product over the recorder, and what may be left of it when the power fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does, Step
from tests.power.disk import PAGE, Change, Disk, Names, Operation, State
from tests.power.recording import Box
from tests.power.written import CLUSTER, Written
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.doors import with_door
from tests.rig.kills import Killing
from tests.rig.rig import BASE, DISK, SERIAL
from tests.rig.roads import direct_rig
from tests.rig.started import until_pivoted

SIZE: Final = 1024 * 1024
TOKEN: Final = "power"
"""The operation's id."""
MARKER: Final = f".qmpsnap-{TOKEN}"
CHAIN: Final = ((f"{BASE}.s2", "qcow2"), (f"{BASE}.s1", "qcow2"), (BASE, "raw"))
SUBSETS: Final = 3
"""Of what was not synced, at each point; besides all and nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """An operation that was recorded from beginning to end."""

    box: Box
    before: State
    written: Written
    ended: int
    """The place in the record where whoever asked for it was answered."""

    @cached_property
    def unmarked(self) -> int:
        """Where its marker is removed: from then on only who asked, and the journal, know more."""
        gone = ((MARKER, None),)
        found = (at for at, one in self.box.operations() if _changes(one) == gone)
        return next(found, self.ended)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing that a disk may hold after a power failure."""

    at: int
    """The place in the record where the power fails."""
    left: str
    """How much of what was not synced is there."""
    state: State
    has_journal: bool


def _changes(operation: Operation) -> tuple[tuple[str, int | None], ...]:
    return operation.changes if isinstance(operation, Names) else ()


def made(box: Box) -> None:
    """
    Lay a chain of three layers down, each with data of its own and some that hides others.

    Its own is in a cluster that the guest leaves alone, see `Written.works`.
    """
    above: tuple[str, str] | None = None
    for number, (name, form) in enumerate(reversed(CHAIN), 1):
        path = box.behind / "images" / name
        if above is None:
            images.create_raw(path, SIZE)
        else:
            images.create_qcow2(path, SIZE, *above)
        images.write(path, form, number * 3 * CLUSTER, CLUSTER, number)
        images.write(path, form, 2 * CLUSTER + PAGE * number, 2 * PAGE, 100 + number)
        above = name, form


def played(
    box: Box, killing: Killing, scratch: Path, chance: random.Random, *, is_busy: bool = True
) -> Played:
    """
    Carry an operation out, while the guest writes and flushes before and after each act.

    One that is not busy only does so before; so a new overlay stays empty.

    Somebody else has the journal open, so that it is not synced by being closed.
    """
    before = box.state()
    written = Written(images_content(box.behind / "images" / CHAIN[0][0], scratch))
    journal = Journal(box.state_folder)
    files = [(box.images / name, form) for name, form in CHAIN]
    with ExitStack() as stack:
        stack.enter_context(journal.opened())
        rig = stack.enter_context(direct_rig(scratch, qcow2_chain(files, DISK, SERIAL)))

        def works(_step: object = None) -> None:
            if is_busy:
                written.works(box, rig.guest, chance)

        written.works(box, rig.guest, chance)
        with rig.connect() as guest:

            def works_after(step: Step) -> None:
                if step.does is Does.COMMIT:
                    until_pivoted(guest)
                works()

            watched = with_door(guest, before=works, after=works_after)
            if isinstance(killing.request, CreateRequest):
                created(journal, watched, (killing.request,), token=TOKEN)
            else:
                deleted(journal, watched, killing.request, token=TOKEN)
        ended = box.now
        works()
        works()
        rig.kill()
    return Played(box=box, before=before, written=written, ended=ended)


def images_content(active: Path, scratch: Path) -> bytes:
    """What a chain reads as that nobody has open."""
    with images.raw_copy(str(active), "raw" if active.name == BASE else "qcow2", scratch) as copy:
        return copy.read_bytes()


def cases(one: Played, chance: random.Random, *, has_journal: bool = True) -> Iterator[Case]:
    """
    What may be left, for each moment: nothing, all, or some of what was not synced.

    Args:
        one: The operation.
        chance: What chooses.
        has_journal: Whether the journal's disk is there afterwards.
    """
    gone = () if has_journal else (one.box.state_name,)
    disk = Disk(one.before)
    seen: set[tuple[int, int]] = set()
    for at, operation in one.box.operations():
        disk.take(operation)
        for left, chooses in _choices(chance):
            state = disk.left(chooses).without(gone)
            known = _hash(state), one.written.flushed(at)
            if known not in seen:
                seen.add(known)
                yield Case(at=at, left=left, state=state, has_journal=has_journal)


def _choices(chance: random.Random) -> Iterator[tuple[str, Callable[[Change], bool]]]:
    yield "nothing", lambda _change: False
    yield "all", lambda _change: True
    for number in range(SUBSETS):
        yield f"some, {number}", _share(chance)


def _share(chance: random.Random) -> Callable[[Change], bool]:
    share = chance.random()
    return lambda _change: chance.random() < share


def _hash(state: State) -> int:
    return hash((frozenset(state.tree().items()), frozenset(state.files.items())))
