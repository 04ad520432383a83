"""
Tell a merge that was done from one that was not, by a fresh reading and the job's error. Pure.

A job that ended without an error is no proof, and an error no proof of the contrary: replies and
events may be lost, and a mirror that is cancelled when it is ready ends as if it had succeeded.
Only the graph says what happened.
"""

from __future__ import annotations

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.by_hand import rebase
from qmpsnap.formats.layers import NOT_SEEN, Disk, Disks
from qmpsnap.formats.verdict import Witness
from qmpsnap.operations.job.loop import Ended
from qmpsnap.operations.job.machine import Why
from qmpsnap.operations.job.states import JobFailed
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    FormatUnknown,
    HeaderWrong,
    OutcomeUnknown,
    Result,
    StoppedByChange,
    TimedOut,
    check_names,
    check_opened,
)
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.volume import unseen


def judged(
    plan: MergePlan,
    ended: Ended,
    guest: Disks,
    after: Disk,
    *,
    room: Room | None,
    seconds: float,
    notes: tuple[str, ...],
) -> Result:
    """
    Say what a merge came to.

    Args:
        plan: The merge.
        ended: How its job ended.
        guest: The guest, read afterwards.
        after: The disk, of the same reading.
        room: The room that the file has which was written; None where that cannot be told.
        seconds: The time limit that was given.
        notes: Carried into the result.

    Raises:
        StoppedByChange, TimedOut, JobFailed: The chain is as it was.
        ChainUnexpected: It is neither the old nor the new one.
        HeaderWrong, FormatUnknown, NamesAnother: It is the new one, with something wrong about it.
        OpenedAnother: It is the old or the new one, with another file in it.
    """
    check_opened(plan.kind, plan.disk, after)
    if ended.differences and all(one.path in after.paths for one in plan.dropped):
        what = "; ".join(ended.differences)
        raise StoppedByChange(plan.kind, plan.top.file, what, after.chain_text)
    if after.paths == plan.disk.paths:
        if other := _replaced(plan.disk, after):
            reason = f"{other} leads to another file now, and how the one before it was left is not known"
            raise OutcomeUnknown(plan.kind, plan.top.file, reason)
        raise _undone(plan, ended, room, seconds, after.chain_text)
    return _proven(plan, guest, after, ended.error, notes)


def _replaced(before: Disk, after: Disk) -> str | None:
    """A file that no QEMU has open any more, and whose name means another one: it tells nothing."""
    for old, new in zip(before.layers, after.layers, strict=True):
        by_qemu = any(one.witness is Witness.QMP for one in new.evidence)
        if (
            not by_qemu
            and None not in (old.identity, new.identity)
            and old.identity != new.identity
        ):
            return new.path
    return None


def _undone(
    plan: MergePlan, ended: Ended, room: Room | None, seconds: float, chain: str
) -> QmpsnapError:
    """Say why a job has left the chain as it was."""
    if ended.cancelled is Why.TIMEOUT:
        return TimedOut(plan.kind, plan.top.file, seconds, chain)
    if ended.cancelled is Why.NOT_READY:
        reason = (
            "QEMU said again and again that it cannot change the chain now, so it was cancelled"
        )
    elif ended.error is None:
        # A cancel after READY may end with the same events as success, and without an error.
        reason = "it ended without an error, but nothing was merged (was it cancelled?)"
    else:
        reason = ended.error
        if "No space left" in reason and room is not None:
            reason += f" ({room.shortage(0)})"
    return JobFailed(plan.kind, plan.top.file, reason, chain)


def _proven(
    plan: MergePlan, guest: Disks, after: Disk, error: str | None, notes: tuple[str, ...]
) -> Result:
    """Compare a fresh reading with the plan."""
    expected = tuple(layer.path for layer in plan.remaining)
    if error is not None or after.paths != expected:
        expected_names = " <- ".join(layer.file for layer in reversed(plan.remaining))
        said = f" (the job ended with: {error})" if error else ""
        raise ChainUnexpected(plan.kind, after.chain_text + said, expected_names)
    if plan.base is None and after.layers[-1].backing_name is not None:
        last = plan.remaining[-1]
        command = rebase(last, "qcow2", "", None)
        raise HeaderWrong(last.file, "it still names a backing file", command)
    check_names(plan.kind, plan.disk, after)
    left = tuple(layer.path for layer in plan.dropped)
    in_use = guest.open_files | {one.path for one in plan.dropped if NOT_SEEN in one.flags}
    return Result(
        disk=after,
        file_format={layer.file: format_of(after, layer.path) for layer in plan.reported},
        dropped=tuple(path for path in left if path not in in_use),
        held=tuple(path for path in left if path in in_use),
        notes=(
            *((f"chose {plan.kind}: {plan.why}",) if plan.why else ()),
            *unseen(plan.disk),
            *notes,
        ),
    )


def format_of(disk: Disk, path: str) -> str:
    """
    The format of one file of a chain, to be reported.

    Raises:
        FormatUnknown: Nobody states it.
    """
    layer = next(layer for layer in disk.layers if layer.path == path)
    if layer.format is None:
        raise FormatUnknown(layer.file, disk.chain_text)
    return layer.format
