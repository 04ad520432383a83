"""
The one loop: carry a plan out on a host, and prove the outcome by a fresh reading.

Everything that decides is in the plans and in `jobs`; everything that acts is behind `Host`. This
module holds the order of the steps, and what each interruption leaves behind:

    create   (in `create`) prepare the overlays ─► open ─► switch ─► read again
             before the switch: at most unused, empty overlays, which the next try takes
    delete   start the job ─► wait ─► (pivot | flush, finalize) ─► dismiss ─► read again
             at any time: the job goes on in QEMU; the same command attaches to it again
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from qmpsnap.formats.layers import DiskReport, GuestReport
from qmpsnap.operations.create import create
from qmpsnap.operations.guards import Guard, check_merge
from qmpsnap.operations.host import Host
from qmpsnap.operations.jobs import Action, JobFailed, JobView, next_action
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    Interrupted,
    Result,
    changing,
    check_header,
    fresh,
    names,
    paths,
)
from qmpsnap.operations.plan_delete import MergePlan, plan_delete
from qmpsnap.operations.proof import Proof
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest

__all__ = ["Progress", "create", "delete"]

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Events wake the loop; this is the safety net for one that was lost."""

Progress = Callable[[MergePlan, JobView], None]


def delete(
    host: Host,
    request: DeleteRequest | NamedDeleteRequest,
    progress: Progress | None = None,
    *,
    allow: Collection[Guard] = (),
    verify: bool = False,
    poll_s: float = POLL_S,
) -> Result:
    """
    Delete a snapshot: commit, active commit or pull, whichever the request and the chain ask for.

    Raises:
        Refused: Nothing was touched.
        JobFailed: The job ended without doing its work; the chain is as it was.
        Interrupted: Ctrl-C; the job goes on, and the same call attaches to it.
        OutcomeUnknown: The connection broke while the job ran.
        HeaderWrong, ChainUnexpected: It ran, and the outcome is not what it should be.
        ContentDiffers: It ran, and what is read is not what was read before.
    """
    plan = plan_delete(host.read(), request)
    proof = None
    try:
        job = host.attach(plan)
        if job is None:
            check_merge(plan, host.surroundings(plan.disk), allow)
            proof = Proof.begin(host, plan) if verify else None
            job = host.start(plan)
    except KeyboardInterrupt:
        raise Interrupted(plan.kind, plan.top.file) from None
    try:
        with changing(plan.kind, plan.top.file):
            error = _drive(host, plan, job, progress, poll_s)
            notes = () if error else host.settle(plan)
            guest, after = fresh(host, plan.disk)
    except KeyboardInterrupt:
        raise Interrupted(plan.kind, plan.top.file) from None
    done = _proven(plan, guest, after, error, notes)
    if not verify:
        return done
    said = proof.end(host, plan, after) if proof else "not verified: it was begun by another call"
    return replace(done, notes=(*done.notes, said))


def _drive(
    host: Host, plan: MergePlan, job: str, progress: Progress | None, poll_s: float
) -> str | None:
    """See a job through to its end; returns its error."""
    done: set[Action] = set()
    while True:
        view = host.view(job)
        log.debug("job %s: %s %d/%d", job, view.status, view.current, view.total)
        if progress is not None:
            progress(plan, view)
        match next_action(view):
            case Action.END:
                host.dismiss(job)
                return view.error
            case Action.PIVOT if Action.PIVOT not in done:
                if host.pivot(job):
                    done.add(Action.PIVOT)
            case Action.FINALIZE if Action.FINALIZE not in done:
                host.finalize(plan, job)
                done.add(Action.FINALIZE)
        host.wait(job, poll_s)


def _proven(
    plan: MergePlan,
    guest: GuestReport,
    after: DiskReport,
    error: str | None,
    notes: tuple[str, ...],
) -> Result:
    """Compare a fresh reading with the plan: only the graph tells what really happened."""
    expected = tuple(layer.path for layer in plan.remaining)
    found = paths(after)
    if found == paths(plan.disk):
        # A cancel after READY ends with the same events as success, and without an error.
        reason = error or "it ended without an error, but nothing was merged (was it cancelled?)"
        raise JobFailed(plan.kind, plan.top.file, reason, names(after))
    if error is not None or found != expected:
        expected_names = " <- ".join(layer.file for layer in reversed(plan.remaining))
        said = f" (the job ended with: {error})" if error else ""
        raise ChainUnexpected(plan.kind, names(after) + said, expected_names)
    if plan.above is not None:
        if plan.base is not None:
            check_header(after, plan.base.file)
        elif after.layers[-1].backing_name is not None:
            raise HeaderWrong(after.layers[-1].file, "it still names a backing file")
    formats = {layer.path: layer.format for layer in after.layers}
    left = [layer.path or "" for layer in plan.dropped]
    return Result(
        disk=after,
        file_format={layer.file: formats[layer.path] or "" for layer in plan.reported},
        dropped=tuple(path for path in left if path not in guest.open_files),
        held=tuple(path for path in left if path in guest.open_files),
        notes=(*((f"chose {plan.kind}: {plan.why}",) if plan.why else ()), *notes),
    )
