"""
What the acts of an operation prove, as the journal has them. Pure.

An act whose answer is there was carried out; one that was only intended may have been.
"""

from __future__ import annotations

from qmpsnap.journal.answers import is_silent
from qmpsnap.journal.record import Act, Entry
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does


def intended(entry: Entry, does: Does) -> bool:
    """Whether an act of a kind was written down, and so may have been taken."""
    return any(act.does == does for act in entry.acts)


def is_pivoted(entry: Entry) -> bool:
    """Whether a node of what left the chain could be closed: QEMU closes none that is in use."""
    return any(act.does == Does.CLOSE and act.is_done for act in entry.acts)


def as_it_was_closed(entry: Entry) -> int | None:
    """When the uppermost file had last been written as its node was closed, by its own share's clock."""
    told = [act.answer for act in entry.acts if act.does == Does.CLOSE and act.answer is not None]
    return max((int(one) for one in told if one.isdecimal()), default=None)


def is_unproven(entry: Entry, plan: MergePlan) -> bool:
    """
    Whether what a pull or a commit has copied may have been in the memory of its QEMU alone.

    A mirror flushes before it pivots; of a guest that is off, what copies ends before the header is
    changed.
    """
    if plan.kind == "active-commit" or entry.record.where.is_offline:
        return False
    return not _is_flushed(entry, plan)


def _is_flushed(entry: Entry, plan: MergePlan) -> bool:
    """
    Whether the flush of a merge was proven, as `operations.flushed` judges it.

    That of a pull counts after its last commit, for the new header came later. Files are removed
    after the proof only, so that the intent to remove one is proof as well.
    """
    committed = _last(entry, Does.COMMIT)
    since = committed if plan.kind == "pull" else _last(entry, Does.START)
    is_raw = plan.written.format == "raw"
    is_flushed = is_synced = False
    for at, act in enumerate(entry.acts[since + 1 :], since + 1):
        if act.does == Does.REMOVE:
            return True
        if act.does != Does.FLUSH:
            continue
        if act.what == "fsync":  # tells nothing of the tables of a qcow2 file
            is_synced = is_silent(act.answer)
            is_flushed = is_flushed or (is_synced and is_raw)
        elif act.what == "compare-tables":
            is_flushed = is_synced and is_silent(act.answer)
        elif "size" in act.arguments:
            is_flushed = is_flushed or act.is_done
        elif _is_heard(act) and (at < committed or not is_raw):  # see `flushed`: deaf afterwards
            is_flushed = is_silent(act.answer)
    return is_flushed


def has_failed(entry: Entry) -> bool:
    """Whether something was heard of a flush but that it was carried out."""
    flushes = [act for act in entry.acts if act.does == Does.FLUSH and act.answer is not None]
    return not all(is_silent(act.answer) for act in flushes)


def _last(entry: Entry, does: Does) -> int:
    """Where the last act of a kind is; -1: nowhere."""
    return max((at for at, act in enumerate(entry.acts) if act.does == does), default=-1)


def _is_heard(act: Act) -> bool:
    """Whether it is HMP's `qemu-io NODE reopen`, which tells of a flush that fails."""
    line = str(act.arguments.get("command-line", ""))
    return line.startswith("qemu-io ") and "reopen" in line
