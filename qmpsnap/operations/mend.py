"""
Mend a header that is wrong, in the running guest, and prove it by reading it again.

    plan (`headers.rewrite`) ─► start ─► wait for its end ─► settle ─► read again

QEMU does the writing, in one job that copies nothing and ends by itself. Whatever is killed on the
way, the header is either the old or the new one, and no job stays.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.headers import fault, fault_before, rewrite, wrong_active
from qmpsnap.operations.job.loop import Drive
from qmpsnap.operations.job.states import JobFailed
from qmpsnap.operations.options import DEFAULT_OPTIONS
from qmpsnap.operations.outcome import HeaderWrong, fresh
from qmpsnap.operations.plan_merge import MergePlan

MEND_S: Final = 30.0
"""How long the job may take: it copies nothing, but it waits for the requests that are under way."""


def ensured(
    host: Guest, after: Disk, above: Layer, below: Layer, name: str
) -> tuple[Disk, tuple[str, ...]]:
    """
    Look at a header after an operation; where it is wrong, mend it and look again.

    Args:
        host: The guest.
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
    command = by_hand(above, below, name)
    try:
        notes = _write(host, rewrite(after, upper, lower, name))
        after = fresh(host, after)[1]
        still = fault(_found(after, above), _found(after, below), name)
    except (QmpsnapError, KeyboardInterrupt) as error:
        problem = str(error) or "it was interrupted"
        raise HeaderWrong(above.file, f"{reason}. Mending it failed: {problem}", command) from error
    if still is not None:
        raise HeaderWrong(above.file, f"{still}, after it was mended too", command)
    return after, (_said(above, reason, name, lower.format, notes),)


def mended_active(host: Guest, disk: Disk) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Mend the header of the active layer where it records no format or a wrong one.

    It is no fault of the operation that comes across it, so whatever goes wrong is a note only.

    Returns:
        What was repaired, and notes.
    """
    plan = wrong_active(disk.layers, disk)
    if plan is None or plan.base is None:
        return (), ()
    name = plan.backing_name or ""
    reason = fault_before(plan.top, plan.base)
    notes: tuple[str, ...] = ()
    try:
        notes = _write(host, plan)
        after = fresh(host, disk)[1]
        still = fault(_found(after, plan.top), _found(after, plan.base), name)
    except QmpsnapError as error:
        still = str(error)
    if still is None:
        return (_said(plan.top, reason, name, plan.base.format, notes),), ()
    command = by_hand(plan.top, plan.base, name)
    note = (
        f"the header of {plan.top.file} is wrong ({reason}), and could not be mended now: "
        f"{still.rstrip('.')}. With the guest off: `{command}`."
    )
    return (), (note,)


def by_hand(above: Layer, below: Layer, name: str) -> str:
    """The command that writes the header of a file that nobody has open."""
    formats = ("-f", above.format or "qcow2", "-b", name, "-F", below.format or "FORMAT")
    return shlex.join(["qemu-img", "rebase", "-u", *formats, above.path or above.file])


def _said(
    above: Layer,
    reason: str | None,
    name: str,
    format_: str | None,
    notes: tuple[str, ...],
) -> str:
    said = f"the header of {above.file}: {reason}; now it names {name} ({format_})"
    return "; ".join((said, *notes))


def _found(disk: Disk, wanted: Layer) -> Layer:
    """The same layer in a later reading; as it was when it has left meanwhile."""
    layers: Sequence[Layer] = disk.layers
    return next((layer for layer in layers if layer.path == wanted.path), wanted)


def _write(host: Guest, plan: MergePlan) -> tuple[str, ...]:
    """
    Let QEMU write the header; returns the notes of `Guest.settle`.

    Raises:
        JobFailed: Another job is in the way, or it ended with an error.
        QmpsnapError: See `Guest.start`.
    """
    chain = plan.disk.chain_text
    if host.attach(plan) is not None:
        raise JobFailed("rewrite of the header", plan.top.file, "another job is running", chain)
    job = host.start(plan, DEFAULT_OPTIONS)
    drive = Drive(host=host, plan=plan, job=job)
    ended = drive.to_the_end(MEND_S)
    if ended.error is not None:
        raise JobFailed("rewrite of the header", plan.top.file, ended.error, chain)
    return host.settle(plan)
