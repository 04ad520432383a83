"""
From which file a volume is started.

Nova starts a guest from its connection_info, which is refreshed only when Cinder has concluded a
snapshot. Until then it names the file that the guest has left, and a start would write to it.
"""

from __future__ import annotations

import os

import msgspec

from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Letter, State
from qmpsnap.journal.store import Store

_EVERY: tuple[State, ...] = ("due", "waiting", "accepted", "dead", "closed", "dropped")
_ENDED: tuple[State, ...] = ("closed", "dropped")


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a volume is to be started from."""

    path: str
    format: str


class NotKnown(Exception):
    """Nobody knows from which file a volume may be started."""


def active_file(journal: Journal, volume: str, path: str) -> Active | None:
    """
    Look up what the journal says of a volume whose connection_info names `path`.

    Returns:
        None: The connection_info is right.

    Raises:
        NotKnown: An operation on it is not settled, or the journal does not know the file.
        JournalUnusable: The journal cannot be read.
    """
    store = journal.looked_into()
    if store is None:
        return None
    with store:
        found: Active | None = None
        known: frozenset[str] = frozenset()
        for letter in store.letters.find(_EVERY, volume=volume):
            if letter.state in _ENDED:
                if letter.content is not None and letter.content.outcome == "done":
                    found, known = None, frozenset()
                continue
            active, before = _after(store, letter)
            if active is not None:
                found, known = active, known | before
    if found is None or _is_same(found.path, path):
        return None
    if os.path.basename(path) not in known:
        raise NotKnown(
            f"the volume {volume} is to be started from {path}, which qmpsnap's journal does not "
            f"know; by the journal {found.path} is active. See `qmpsnap outbox list` and `qmpsnap log`"
        )
    return found


def no_longer_active(journal: Journal, letter: Letter) -> frozenset[str]:
    """
    Return the bare names of files that were in a chain before the operation of a letter, but the active.

    Empty where it was not done, where the journal does not know, and where a later operation on the
    volume was: then that one's letter is the one to go by.

    Raises:
        JournalUnusable: The journal cannot be read.
    """
    store = journal.looked_into()
    if store is None:
        return frozenset()
    with store:
        found: frozenset[str] = frozenset()
        for one in store.letters.find(_EVERY, volume=letter.due.addressee.volume):
            try:
                active, before = _after(store, one)
            except NotKnown:
                continue
            if active is not None:
                mine = one.id == letter.id
                found = before - {os.path.basename(active.path)} if mine else frozenset()
        return found


def _after(store: Store, letter: Letter) -> tuple[Active | None, frozenset[str]]:
    """The active file after the operation of a letter, and every file that was there before."""
    entry = None if letter.operation is None else store.entry(letter.operation)
    if entry is None:
        return None, frozenset()
    end = entry.conclusion
    if end is None:
        raise NotKnown(
            f"operation {entry.record.id} on volume {letter.due.addressee.volume} is not settled: "
            f"run `qmpsnap resume {entry.record.id}` with QMPSNAP_STATE set to this service's folder"
        )
    if end.outcome != "finished" or not end.active:
        return None, frozenset()
    path = end.active[0]
    format_ = end.after.get(os.path.basename(path))
    if format_ is None:
        raise NotKnown(f"the format of {path} is not in operation {entry.record.id}")
    return Active(path=path, format=format_), frozenset(entry.record.before)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.normpath(one) == os.path.normpath(other)
