"""
What reverts keep: files that no guest names, and that are worth nothing without what they lie over.

So they count as readers of it, as long as they are there: a merge into it is refused as into any
other shared base, and it is never removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any, cast

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.identity import identity
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Kept, Record
from qmpsnap.journal.store import Store
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Guest


def kept_by(record: Record) -> tuple[Kept, ...]:
    """What an operation keeps, once it is done."""
    return tuple(
        Kept(
            files=tuple(layer.path for layer in plan.kept),
            over=tuple(layer.path for layer in plan.below),
        )
        for plan in record.creates
        if plan.kept
    )


def keeping(store: Store) -> tuple[Kept, ...]:
    """
    What is kept now, and has its name still.

    Raises:
        JournalUnusable: It cannot be read.
    """
    return tuple(
        kept
        for entry in store.reverts()
        if entry.conclusion is not None
        for kept in entry.conclusion.kept
        if os.path.lexists(kept.files[0])
    )


def readers(
    kept: Iterable[Kept], disk: Disk, left: Collection[str] | None
) -> dict[str, tuple[str, ...]]:
    """
    Which files of a disk are kept for something, by path.

    Args:
        kept: What is kept.
        disk: The disk.
        left: See `Guest.neighbours`.
    """
    own = {identity(path) for path in disk.paths if path is not None}
    found: dict[str, tuple[str, ...]] = {}
    for one in kept:
        if identity(one.files[0]) in own:
            continue  # somebody has taken it up again
        over = {identity(path) for path in one.over} - {None}
        for path in disk.paths:
            if path is None or (left is not None and path not in left):
                continue
            if identity(path) in over:
                who = f"{one.files[0]}, which `revert` has kept"
                found[path] = (*found.get(path, ()), who)
    return found


class _Knowing:
    """A guest among whose neighbours is what reverts keep."""

    def __init__(self, guest: Guest, kept: tuple[Kept, ...]) -> None:
        self._guest, self._kept = guest, kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`."""
        found = self._guest.neighbours(disk, left)
        all_ = dict(found.readers)
        for path, users in readers(self._kept, disk, left).items():
            all_[path] = (*all_.get(path, ()), *users)
        return replace(found, readers=all_)


def knowing(guest: Guest, store: Store) -> Guest:
    """
    A guest that knows what reverts keep.

    Raises:
        JournalUnusable: That cannot be read.
    """
    kept = keeping(store)
    return cast(Guest, _Knowing(guest, kept)) if kept else guest


def known_by(guest: Guest, journal: Journal | None) -> Guest:
    """
    The same, of a guest that is only looked at.

    Raises:
        JournalUnusable: See `knowing`.
    """
    store = None if journal is None else journal.looked_into()
    if store is None:
        return guest
    with store:
        return knowing(guest, store)
