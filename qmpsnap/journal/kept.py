"""
What reverts keep: files that no guest names, and that are worth nothing without what they lie over.

So they count as readers of it, as long as they are there: a merge into it is refused as into any
other shared base, and it is never removed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.identity import identity
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.record import Kept, Record
from qmpsnap.journal.store import Store


def kept_by(record: Record) -> tuple[Kept, ...]:
    """What an operation keeps, once it is done."""
    return tuple(
        Kept(
            files=tuple(layer.path for layer in plan.kept),
            over=tuple(layer.path for layer in plan.below),
            first=seen(plan.kept[0].path),
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


def _is_taken_up(kept: Kept, disk: Disk) -> bool:
    """Whether a guest has gone on with what was kept: it is active there, or was written to since."""
    before, now = kept.first, seen(kept.files[0])
    active = next(iter(disk.paths), None)
    if before is None or now is None or (active and identity(active) == identity(kept.files[0])):
        return True
    return not (is_same(before, now) and before.written == now.written)


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
        over = {identity(path) for path in (*one.files[1:], *one.over)} - {None}
        if (key := identity(one.files[0])) in own:
            if _is_taken_up(one, disk):
                continue
            over.add(key)  # another guest only looks into it
        for path in disk.paths:
            if path is None or (left is not None and path not in left):
                continue
            if identity(path) in over:
                who = f"{one.files[0]}, which `revert` has kept"
                found[path] = (*found.get(path, ()), who)
    return found
