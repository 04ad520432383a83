"""
Whether what a merge has copied is out of QEMU's memory and on the disk. What decides is pure.

QEMU flushes the file that a job has written, and tells nobody when that fails: the job ends without
an error (commit_clean(), block/commit.c), and HMP's `flush` answers nothing. What tells, tried with
QEMU 5.2, 7.2, 10.0 and 11.1 on nodes whose tables or flushes fail:

    by          act                           tells
    QEMU        HMP `qemu-io NODE reopen`     all, while the job still writes to the node; once it
                                              has ended, of a raw file the node below must be asked
    QEMU        block_resize to the same      all, of an active file that no export or backup holds
    libvirt     virDomainBlockResize          the same
    this host   fsync                         all there is to a raw file; of a qcow2 file not its
                                              tables, which are then looked at on disk

A raw file that was read-only before is so again although its flush has failed: nobody writes to the
file below it any more, and QEMU does not flush what nobody writes to (bdrv_co_flush(), block/io.c).
No pause is advised: it flushes (do_vm_stop(), system/cpus.c), but QEMU 10.0 leaves out the nodes that
were added before the one that the last device has (seen; bdrv_next(), block/block-backend.c).
An active commit needs none of these: the mirror flushes before it pivots, and fails when that does
(mirror_flush(), block/mirror.c).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Guest, MergeSteps, NotFlushed
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Door, Step

_SAYS_SO: Final = "Error flushing drive"
"""How QEMU words it (bdrv_reopen_multiple(), block.c; before 6.1 bdrv_reopen_prepare())."""
_RESIZES: Final = frozenset({"block_resize", "virDomainBlockResize"})


class Evidence(msgspec.Struct, frozen=True):
    """What the answer to a flush tells."""

    flushed: bool | None
    """None: nothing."""
    why: str = ""
    """Why it is not flushed, or why nothing is told."""


FLUSHED: Final = Evidence(True)
NOTHING: Final = Evidence(None, "nothing tells whether it was flushed")


Told = tuple[Step, Evidence]
"""An act that flushes, and what came of it."""


def check_flushed(
    guest: Guest,
    plan: MergePlan,
    steps: MergeSteps,
    before: Evidence,
    told: Sequence[Told],
    now: Disks,
    after: Disk,
) -> str | None:
    """
    See to it that what a merge has copied is certainly on the disk.

    Args:
        guest: The guest; more acts are taken where those that were planned do not tell.
        plan: The merge.
        steps: Its acts.
        before: What came of the flush before the job changed the chain.
        told: What came of those when it had ended.
        now: Read afterwards.
        after: The disk of the same reading. One that is not as planned is not looked at.

    Returns:
        Why that is not certain, where nothing says that it is not so; None: it is.

    Raises:
        NotFlushed: It is not.
    """
    if plan.kind == "active-commit" or after.paths != tuple(one.path for one in plan.remaining):
        return None
    proof = judged(plan, before, told, now)
    for acts in steps.otherwise:
        if proof.flushed is not None:
            break
        tried = [(step, taken(guest, step)) for step in acts if not _is_in_vain(step, now)]
        proof = judged(plan, NOTHING, tried, now)
    if proof.flushed is False:
        raise NotFlushed(plan.written.file, proof.why)
    if proof.flushed:
        return None
    return f"whether all of {plan.written.file} is on the disk is not certain: {proof.why}"


def _is_in_vain(step: Step, now: Disks) -> bool:
    """
    Whether a `reopen` is of a node that is open for reading only.

    QEMU flushes nothing then, and of a node without auto-read-only it forgets that it may be written:
    no commit into it is taken any more (seen on 7.2; BDRV_O_ALLOW_RDWR, reopen_f(), qemu-io-cmds.c).
    """
    words = str(step.arguments.get("command-line", "")).split()
    if now.graph is None or words[:1] != ["qemu-io"]:
        return False
    node = now.graph.nodes.get(words[1])
    return node is not None and node.read_only


def judged(plan: MergePlan, before: Evidence, after: Sequence[Told], now: Disks) -> Evidence:
    """
    Judge whether what a merge has written is on the disk.

    Args:
        plan: The merge.
        before: What came of the flush before the job changed the chain.
        after: What came of those when it had ended.
        now: Read after the job.
    """
    told = [_of(plan, one, now) for one in after]
    if before.flushed is not None and (plan.kind == "commit" or not told):
        return before  # of a pull, the new header came later
    for flushed in (False, None):
        for one in told:
            if one.flushed is flushed:
                return one
    return FLUSHED if told else before


def _of(plan: MergePlan, told: Told, now: Disks) -> Evidence:
    step, one = told
    if one.flushed and step.by == "qmp" and _is_deaf(plan, now):
        return Evidence(None, "QEMU does not flush a raw file that it has open for reading only")
    return one


def _is_deaf(plan: MergePlan, now: Disks) -> bool:
    """Whether QEMU flushes neither a raw file nor the node below it, now that the job has ended."""
    written = plan.written
    if written.format != "raw" or written.protocol_node == written.node:
        return False
    node = now.graph.nodes.get(written.protocol_node or "") if now.graph is not None else None
    return node is None or node.read_only


def evidence(step: Step, answer: object) -> Evidence:
    """
    Judge what came of one act that flushes.

    Args:
        step: The act.
        answer: What it answered, or the error that it raised.
    """
    if isinstance(answer, CommandFailed):
        # Not tried: a resize that an export or a backup on the disk forbids, and what is sent by
        # HMP to a QEMU without it (qemu-storage-daemon).
        failed = step.what in _RESIZES and not answer.forbidden
        return Evidence(False if failed else None, answer.description)
    if isinstance(answer, Failed | Refused):
        return Evidence(False if step.by == "file" else None, str(answer))
    said = answer.strip() if isinstance(answer, str) else ""
    if said:
        return Evidence(False if _SAYS_SO in said else None, said)
    return FLUSHED


def taken(door: Door, step: Step) -> Evidence:
    """
    Take one act that flushes, and judge what came of it.

    Raises:
        Unknown: The connection broke.
    """
    try:
        return evidence(step, door.take(step))
    except (Failed, Refused) as error:
        return evidence(step, error)
