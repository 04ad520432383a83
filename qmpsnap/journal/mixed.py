"""
Files whose older states are no more: a commit into them was begun, and not done.

The guest reads what it did, because all that was copied still lies above as well. Whoever goes back
to a snapshot below would read a mixture of two moments. Only the journal knows: neither file tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.record import Act, Mixed, Record
from qmpsnap.operations.step import Does

NOTE = (
    "what was copied stays: the guest reads what it did, but what {file} held at a snapshot is mixed "
    "with newer data, until the same `delete` is done"
)
_REFUSED = ("CommandFailed", "NotNow")
"""Errors of an act that say that nothing has happened."""


def may_have_begun(acts: Iterable[Act]) -> bool:
    """
    Whether the job of a merge may have been started; of an act without an answer nobody knows.

    A marker, where the journal is gone, tells the act alone before which it was written.
    """
    return any(act.does in (Does.START, Does.COMMIT) and act.error not in _REFUSED for act in acts)


def mixed_by(record: Record) -> Mixed | None:
    """What a merge whose job was begun, and which is not done, may have written to."""
    plan = record.merge
    if plan is None or plan.base is None or plan.kind == "pull":
        return None
    found = (seen(layer.path) for layer in (plan.base, *plan.dropped[1:]))
    return Mixed(
        files=tuple(one for one in found if one is not None),
        into=plan.base.path,
        of=plan.dropped[0].path,
    )


def is_done_by(mixed: Mixed, guest: str | None, record: Record) -> bool:
    """
    Whether a merge that is done has copied all that an earlier one had copied a part of.

    A commit takes with it what lies right above its base. That is the same file, or the one into
    which the same guest has pulled it since.

    Args:
        mixed: What the earlier one has mixed.
        guest: Whose it was.
        record: The one that is done.
    """
    plan = record.merge
    if plan is None or plan.base is None or plan.kind == "pull" or mixed.into != plan.base.path:
        return False
    if mixed.of in {layer.path for layer in plan.dropped}:
        return True
    return record.guest == guest is not None and mixed.of not in {
        layer.path for layer in plan.disk.layers
    }


def carried(mixed: Mixed, record: Record) -> Mixed:
    """
    The same once another merge is done: a commit of a file that is mixed mixes its base.

    Not one that takes the upper file along: by it the base holds all that was to go down.
    """
    plan = record.merge
    if plan is None or plan.base is None or plan.kind == "pull":
        return mixed
    dropped = {layer.path for layer in plan.dropped}
    taken = [one for one in record.files if one.path in dropped]
    is_taken = any(is_same(one, file) for one in taken for file in mixed.files)
    base = seen(plan.base.path)
    if mixed.of in dropped or not is_taken or base is None:
        return mixed
    return replace(mixed, files=(*mixed.files, base), into=plan.base.path)


def states_lost(mixing: Iterable[tuple[str, Mixed]], disk: Disk) -> dict[str, str]:
    """
    Which files of a disk are mixed, by path, and by what.

    Args:
        mixing: What commits have mixed, with the ids of these operations.
        disk: The disk.
    """
    found: dict[str, str] = {}
    for id_, mixed in mixing:
        for path in disk.paths:
            now = None if path is None else seen(path)
            if path and now and any(is_same(one, now) for one in mixed.files):
                found[path] = f"operation {id_} was to commit {mixed.of} into {mixed.into}"
    return found
