"""
Have a header that is wrong written again in the running guest, and prove it by reading it.

    plan (`plan_header.rewrite`) ─► start ─► wait for its end ─► settle ─► read again

QEMU does the writing, in one job that copies nothing and ends by itself. Whatever is killed on the
way, the header is either the old or the new one, and no job stays.
"""

from __future__ import annotations

from typing import Final

import msgspec

from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.formats.by_hand import rebase
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.operations.fresh import fresh
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.hold import held
from qmpsnap.operations.job.loop import JobSteps, Loop
from qmpsnap.operations.job.states import JobFailed
from qmpsnap.operations.outcome import HeaderWrong
from qmpsnap.operations.patience import Patience
from qmpsnap.operations.plan_header import HeaderPlan, fault, fault_before, rewrite, wrong_active
from qmpsnap.operations.step import Does

MEND_S: Final = 30.0
"""How long the job may take: it copies nothing, but it waits for the requests that are under way."""


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a header that was wrong."""

    repaired: tuple[str, ...] = ()
    """What was repaired, in words."""
    notes: tuple[str, ...] = ()


def ensured(
    guest: Guest, after: Disk, above: Layer, below: Layer, name: str
) -> tuple[Disk, tuple[str, ...]]:
    """
    Look at a header after an operation; where it is wrong, mend it and look again.

    Args:
        guest: The guest.
        after: The disk, read after the operation.
        above: The layer whose header it is, as it was before.
        below: The layer that it must name, as it was before: its format was certain then.
        name: What it must name it.

    Returns:
        The disk as it is now, and what was repaired.

    Raises:
        HeaderWrong: It is wrong, and could not be mended now.
    """
    upper, lower = _found(after, above), _found(after, below)
    reason = fault(upper, lower, name)
    if reason is None:
        return after, ()
    command, patience = by_hand(above, below, name), Patience()
    try:
        plan = rewrite(after, upper, lower, name)
        notes = patience.through(lambda: _write(guest, plan))
        before = after
        after = patience.through(lambda: fresh(guest, before)[1])
        still = fault(_found(after, above), _found(after, below), name)
    except (QmpsnapError, KeyboardInterrupt) as error:
        problem = str(error) or "it was interrupted"
        raise HeaderWrong(above.file, f"{reason}. Mending it failed: {problem}", command) from error
    if still is not None:
        raise HeaderWrong(above.file, f"{still}, after it was mended too", command)
    return after, (_said(above, reason, name, lower.format, notes),)


def mended_active(guest: Guest, disk: Disk) -> Mended:
    """
    Mend the header of the active layer where it records no format or a wrong one.

    It is no fault of the operation that comes across it, so whatever goes wrong is a note only.
    """
    plan = wrong_active(disk.layers, disk)
    if plan is None:
        return Mended()
    reason = fault_before(plan.top, plan.base)
    notes: tuple[str, ...] = ()
    try:
        notes = _write(guest, plan)
        after = fresh(guest, disk)[1]
        still = fault(_found(after, plan.top), _found(after, plan.base), plan.name)
    except QmpsnapError as error:
        still = str(error)
    if still is None:
        return Mended(repaired=(_said(plan.top, reason, plan.name, plan.base.format, notes),))
    command = by_hand(plan.top, plan.base, plan.name)
    note = (
        f"the header of {plan.top.file} is wrong ({reason}), and could not be mended now: "
        f"{still.rstrip('.')}. With the guest off: `{command}`."
    )
    return Mended(notes=(note,))


def by_hand(above: Layer, below: Layer, name: str) -> str:
    """The command that writes the header of a file that nobody has open."""
    return rebase(above, above.format or "qcow2", name, below.format or "FORMAT")


def _said(
    above: Layer, reason: str | None, name: str, format_: str | None, notes: tuple[str, ...]
) -> str:
    said = f"the header of {above.file}: {reason}; now it names {name} ({format_})"
    return "; ".join((said, *notes))


def _found(disk: Disk, wanted: Layer) -> Layer:
    """The same layer in a later reading; as it was when it has left since."""
    return next((layer for layer in disk.layers if layer.path == wanted.path), wanted)


def _write(guest: Guest, plan: HeaderPlan) -> tuple[str, ...]:
    """
    Have QEMU write the header; returns what could not be done about it afterwards.

    Raises:
        JobFailed: Another job is in the way, or it ended with an error.
        Refused: It cannot be done here.
        KeyboardInterrupt: When it is done, or before it was begun.
    """
    steps, chain = guest.compose.header(plan), plan.disk.chain_text
    kind, file = "rewrite of the header", plan.top.file
    if any(job.id == steps.job for job in guest.jobs()):
        raise JobFailed(kind, file, "another job is running", chain)
    loop = Loop(
        guest=guest,
        kind=kind,
        file=file,
        job=steps.job,
        steps=JobSteps(cancel=steps.cancel),
        changed=lambda: (),
        is_short=True,
    )
    notes: list[str] = []
    with held(guest, () if steps.hold is None else (steps.hold,), steps.release):
        guest.follow(steps.job)
        guest.take(steps.start)
        ended = loop.to_the_end(MEND_S, is_new=True)
        if ended.error is not None:
            raise JobFailed(kind, file, ended.error, chain)
        for step in steps.settle:
            if step.does is Does.REOPEN and not _is_writable(guest, plan):
                continue
            try:
                guest.take(step)
            except Failed as error:
                notes.append(f"{step.what} of {file}: {error}")
    if loop.patience.came:
        raise KeyboardInterrupt
    return tuple(notes)


def _is_writable(guest: Guest, plan: HeaderPlan) -> bool:
    """
    Whether a lower layer is still open for writing after its header was written.

    QEMU opens it for reading only by itself at the end of a stream, but not 10.0.13 and 11.1.3.
    """
    graph = guest.read().graph
    node = graph.nodes.get(plan.top.node or "") if graph is not None else None
    return node is None or not node.read_only
