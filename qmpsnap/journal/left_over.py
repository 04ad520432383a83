"""
What operations have left beside a chain, and what they have touched there.

The other way round than what a revert keeps: what is left names files that it needs no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping

from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.census import images_resting_on
from qmpsnap.guests.files.identity import Identity, identity
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.record import Conclusion, Entry, Outcome, Record, Seen
from qmpsnap.journal.store import Store

Among = Callable[[Collection[str]], Collection[str]]
"""Those of files of which the journal says something."""


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
        and any(_is_as_it_was(one, now) for end in ends for one in end.touched)
    )


def _ends(entries: Iterable[Entry]) -> list[Conclusion]:
    return [entry.conclusion for entry in entries if entry.conclusion is not None]


def _is_left_over(entries: Iterable[Entry], path: str) -> bool:
    now, is_left = seen(path), False
    if now is None or in_use_by_qemu(path):
        return False
    for entry in entries:
        if any(_is_as_it_was(one, now) for end in _ends([entry]) for one in end.left):
            is_left = True
        elif is_left and _has_in_its_chain(entry, path):
            is_left = False  # somebody has taken it up again
    return is_left


def _is_as_it_was(before: Seen, now: Seen) -> bool:
    """
    Whether nobody has written to a file since an operation ended.

    By the file's own time, which is the share's: the clock of this host may be another one, or have
    been set since.
    """
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
