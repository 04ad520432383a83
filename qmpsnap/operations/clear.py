"""
Before an operation: clear away what calls left that died in mid-step.

Whoever only looks, and `--plan`, changes nothing; there the same steps are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from qmpsnap.errors import OfKnown
from qmpsnap.formats.layers import Disks
from qmpsnap.graph.chain import node_path
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Claim, Guest
from qmpsnap.operations.job.states import JobReport, JobStatus
from qmpsnap.operations.step import NotNow, Step


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A guest as an operation finds it."""

    disks: Disks
    jobs: tuple[JobReport, ...]
    """As they were before anything was cleared away: what an ended one came to is still told."""
    clear: tuple[Step, ...]
    """What was, or would be, cleared away."""


def found(guest: Guest) -> Found:
    """Look at a guest, changing nothing."""
    jobs = guest.jobs()
    unsafe = guest.compose.unsafe(jobs)
    disks = guest.read()
    return Found(disks=disks, jobs=jobs, clear=(*unsafe, *guest.compose.leftovers(disks, jobs)))


def cleared(guest: Guest, claim: Claim, names: Iterable[str]) -> Found:
    """
    Look at a guest, lock disks, and clear away what is certainly left from a call of this tool.

    Args:
        guest: The guest.
        claim: The locks of the operation.
        names: The disks that it is about.

    Raises:
        DiskLocked: Another operation is at work on one of them.
    """
    jobs = guest.jobs()
    unsafe = guest.compose.unsafe(jobs)
    _take(guest, unsafe)
    disks = guest.read()
    claim.take(_active_files(disks, names))
    left = tuple(
        step
        for step in guest.compose.leftovers(disks, jobs)
        if not _is_anothers(disks, step, claim)
    )
    if left:
        _take(guest, left)
        disks = guest.read()
    return Found(disks=disks, jobs=jobs, clear=(*unsafe, *left))


def cleared_alone(guest: Guest, names: Iterable[str]) -> Found:
    """
    The same, under locks that end with it.

    Raises:
        DiskLocked: Another operation is at work on one of the disks.
    """
    with guest.files.claim() as claim:
        return cleared(guest, claim, names)


def _active_files(disks: Disks, names: Iterable[str]) -> list[str]:
    """Files that stand for the disks; what cannot be found, or not be used, is refused later."""
    found = []
    for name in names:
        with suppress(OfKnown):
            active, *_ = *disks.disk(name).layers, None
            if active is not None and active.identity is not None and active.path is not None:
                found.append(active.path)
    return found


def _is_anothers(disks: Disks, step: Step, claim: Claim) -> bool:
    """Whether a node belongs to a call that lives: it has locked the file before it opened it."""
    graph, name = disks.graph, step.arguments.get("node-name")
    if graph is None or not isinstance(name, str):
        return False
    nodes = (graph.nodes.get(one) for one in graph.below(name))
    paths = (node_path(node) for node in nodes if node is not None)
    return any(path is not None and claim.is_anothers(path) for path in paths)


def notes_of(jobs: tuple[JobReport, ...], but: str) -> tuple[str, ...]:
    """What ended jobs of earlier calls came to, except for one."""
    return tuple(
        f"job {job.id} of an earlier call had ended: {job.view.error or 'without an error'}"
        for job in jobs
        if job.ours and job.view.status is JobStatus.CONCLUDED and job.id != but
    )


def _take(guest: Guest, steps: tuple[Step, ...]) -> None:
    for step in steps:
        # In use after all, or gone by itself: then there is nothing to clear away.
        with suppress(NotNow, CommandFailed):
            guest.take(step)
