"""
What reverts keep: files that no guest names, and that are worth nothing without what they lie over.

So they count as readers of it, as long as they are there: a merge into it is refused as into any
other shared base, and it is never removed. What merges have left is the other way round: it names
files that it needs no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, cast

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.census import images_resting_on
from qmpsnap.guests.files.identity import Identity, identity
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.mixed import may_have_begun, mixed_by, states_lost
from qmpsnap.journal.record import Conclusion, Entry, Kept, Mixed, Outcome, Record, Seen
from qmpsnap.journal.store import Store
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Guest


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


def mixing(store: Store) -> tuple[tuple[str, Mixed], ...]:
    """
    What commits have mixed that were begun and not done, with the ids of these operations.

    Of those that are open too: what settles one comes after a guest was looked at.

    Raises:
        JournalUnusable: It cannot be read.
    """
    found = [
        (one.record.id, None if one.conclusion is None else one.conclusion.mixed)
        for one in store.mixing()
    ]
    found += [
        (one.record.id, mixed_by(one.record))
        for one in store.open_entries()
        if may_have_begun(one.acts)
    ]
    return tuple((id_, mixed) for id_, mixed in found if mixed is not None)


def left_by(record: Record, outcome: Outcome) -> tuple[Seen, ...]:
    """What has been left beside the chain: by a merge that is done, or a create that is not."""
    paths = [one.overlay for one in record.creates] if outcome != "finished" else []
    if record.merge is not None and outcome == "finished":
        paths = [layer.path for layer in record.merge.dropped]
    # What another guest has open it needs, and it says so nowhere else.
    found = (seen(path) for path in paths if not in_use_by_qemu(path))
    return tuple(one for one in found if one is not None)


def touched_by(record: Record) -> tuple[Seen, ...]:
    """
    Files that an operation has written to, and that read as before: see `Conclusion.touched`.

    Not what the guest writes to, nor what receives the data of a commit.
    """
    others = {plan.active.path for plan in record.creates}
    if record.merge is not None:
        others |= {layer.path for layer in record.merge.dropped}
        if record.merge.kind != "pull":
            others.add(record.merge.written.path)
    found = ((one, seen(one.path)) for one in record.files if one.path not in others)
    return tuple(
        now
        for before, now in found
        if now is not None and is_same(before, now) and now.written != before.written
    )


def left_over_among(store: Store, paths: Collection[str]) -> tuple[str, ...]:
    """
    Those of files that certainly are what operations have left.

    Nobody has them open or has written to them since, and no later operation had them in its chain.

    Raises:
        JournalUnusable: It cannot be read.
    """
    entries = store.entries()
    return tuple(path for path in paths if _is_left_over(entries, path))


def touched_among(store: Store, paths: Collection[str]) -> tuple[str, ...]:
    """
    Those of files whose times tell nothing: what wrote to them last left them as they read before.

    Raises:
        JournalUnusable: It cannot be read.
    """
    ends = _ends(store.entries())
    return tuple(
        path
        for path in paths
        if (now := seen(path)) is not None
        and any(_is_as_it_was(one, now, end) for end in ends for one in end.touched)
    )


def _ends(entries: Iterable[Entry]) -> list[Conclusion]:
    return [entry.conclusion for entry in entries if entry.conclusion is not None]


def _is_left_over(entries: Iterable[Entry], path: str) -> bool:
    now, is_left = seen(path), False
    if now is None or in_use_by_qemu(path):
        return False
    for entry in entries:
        if any(_is_as_it_was(one, now, end) for end in _ends([entry]) for one in end.left):
            is_left = True
        elif is_left and _has_in_its_chain(entry, path):
            is_left = False  # somebody has taken it up again
    return is_left


def _is_as_it_was(before: Seen, now: Seen, end: Conclusion) -> bool:
    """
    Whether nobody has written to a file since an operation ended.

    By the file's own time, which is the share's: the clock of this host may be another one, or have
    been set since.
    """
    if before.written is None:  # by an earlier version
        return is_same(before, now) and (now.written or 0) <= end.ended * 1e9
    return is_same(before, now) and before.written == now.written


def elsewhere_in(record: Record, active: Collection[str]) -> tuple[str, ...]:
    """Files of an operation that lie in another folder than the active file of their chain."""
    beside = {os.path.dirname(path) for path in active}
    return tuple(sorted(path for path in record.paths if os.path.dirname(path) not in beside))


def _has_in_its_chain(entry: Entry, path: str) -> bool:
    """Whether a file was a layer after an operation, or may be one by now."""
    key, end = identity(path), entry.conclusion
    if end is None:
        return any(identity(one) == key for one in entry.record.paths)
    name = os.path.basename(path)
    beside = (
        os.path.join(os.path.dirname(active), name)
        for active in end.active
        if name in end.after or name == os.path.basename(active)
    )
    return any(identity(one) == key for one in (*beside, *end.elsewhere))


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
        over = {identity(path) for path in one.over} - {None}
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


Among = Callable[[Collection[str]], Collection[str]]
"""Those of files of which the journal says something."""


def needing(
    left: Mapping[str, str], known: Among, own: Collection[Identity | None] = ()
) -> dict[str, str]:
    """
    Images that rest on a file by what operations have left, with that file.

    What such an image reads was the same before and after the merge that left the file, and changes
    with the next. When it was made tells nothing then.

    Args:
        left: What is known to rest on files, with these.
        known: Those of images that need no second word.
        own: Identities of a disk's files.
    """
    found: dict[str, str] = {}
    seen = {identity(path) for path in left} | {*own}
    while left:
        naming, _ = images_resting_on(left)
        above = {
            image: left[path]
            for path, images in naming.items()
            for image in images
            if identity(image) not in seen
        }
        seen |= {identity(image) for image in above}
        sure = known(above)
        found |= {image: path for image, path in above.items() if image not in sure}
        left = {image: above[image] for image in sure}
    return found


class _Knowing:
    """
    A guest among whose neighbours is what reverts keep, and is not what operations have left.

    Of what they have mixed is said so.
    """

    def __init__(self, guest: Guest, store: Store, left_over: Among, touched: Among) -> None:
        self._guest, self._left_over, self._touched = guest, left_over, touched
        self._kept, self._mixing = keeping(store), mixing(store)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`."""
        found = self._guest.neighbours(disk, left)
        all_ = dict(found.readers)
        for path, users in readers(self._kept, disk, left).items():
            all_[path] = (*all_.get(path, ()), *users)
        beside = {
            image: path
            for all_beside in (found.resting, found.older)
            for path, images in all_beside.items()
            for image in images
        }
        known = self._known(beside)
        older = _without(found.older, known)
        resting = _without(found.resting, known)
        for path in self._touched(older) if older else ():
            resting[path] = (*resting.get(path, ()), *older.pop(path))
        own = {identity(path) for path in disk.paths if path is not None}
        left_over = {one: beside[one] for one in known}
        for image, path in needing(left_over, self._known, own).items():
            resting[path] = (*resting.get(path, ()), image)
        return replace(
            found,
            readers=all_,
            resting=resting,
            older=older,
            mixed=states_lost(self._mixing, disk),
        )

    def _known(self, images: Collection[str]) -> Collection[str]:
        """What needs no second word: it is kept, and a reader already; or it is left over."""
        if not images:
            return ()
        kept = {identity(path) for one in self._kept for path in one.files} - {None}
        return {*self._left_over(images), *(one for one in images if identity(one) in kept)}


def _without(
    found: Mapping[str, tuple[str, ...]], known: Collection[str]
) -> dict[str, tuple[str, ...]]:
    rest = (
        (path, tuple(one for one in those if one not in known)) for path, those in found.items()
    )
    return {path: those for path, those in rest if those}


def knowing(guest: Guest, store: Store) -> Guest:
    """
    A guest that knows what operations keep, and what they have left.

    Raises:
        JournalUnusable: That cannot be read.
    """
    among = partial(left_over_among, store), partial(touched_among, store)
    return cast(Guest, _Knowing(guest, store, *among))


def known_by(guest: Guest, journal: Journal | None) -> Guest:
    """
    The same, of a guest that is only looked at.

    Raises:
        JournalUnusable: See `knowing`.
    """
    store = None if journal is None else journal.looked_into()
    if journal is None or store is None:
        return guest
    among = (partial(_looked_up, journal, which) for which in (left_over_among, touched_among))
    with store:
        return cast(Guest, _Knowing(guest, store, *among))


def _looked_up(
    journal: Journal,
    which: Callable[[Store, Collection[str]], Collection[str]],
    paths: Collection[str],
) -> Collection[str]:
    store = journal.looked_into()
    if store is None:
        return ()
    with store:
        return which(store, paths)
