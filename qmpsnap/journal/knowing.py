"""A guest among whose neighbours are the files that only the journal knows of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, cast

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.identity import identity
from qmpsnap.journal.file import Journal
from qmpsnap.journal.kept import keeping, readers
from qmpsnap.journal.left_over import Among, left_over_among, needing, touched_among
from qmpsnap.journal.mixed import may_have_begun, mixed_by, states_lost
from qmpsnap.journal.record import Mixed
from qmpsnap.journal.store import Store
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Guest


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
