"""
The one loop: carry a plan out on a host, and prove the outcome by a fresh reading.

Everything that decides is in the plans and in `watch`; everything that acts is behind `Guest`. This
module holds the order of the steps, and what each interruption leaves behind:

    create   (in `create`) prepare the overlays ─► open ─► switch ─► read again
             before the switch: at most unused, empty overlays, which the next try takes
    delete   start the job ─► wait ─► (pivot | flush, finalize) ─► dismiss ─► read again ─►
             (mend a header that is wrong)
             at any time: the job goes on in QEMU; the same command attaches to it again

Right before a step that changes the graph, a fresh one is compared with the plan's (`expected`).
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.operations.guards import Guard, check_idle, check_merge
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.loop import POLL_S, Drive, Ended, Progress, Tell
from qmpsnap.operations.job.machine import DEFAULT_LIMITS, Limits, Why
from qmpsnap.operations.job.states import COPYING, JobFailed
from qmpsnap.operations.mend import ensured, mended_active
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    HeaderWrong,
    Interrupted,
    Result,
    StoppedByChange,
    TimedOut,
    changing,
    fresh,
    paths,
)
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.proof import Proof
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.run_state import remarks
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.unchanged import check_unchanged

__all__ = ["Progress", "create", "delete"]


def delete(
    host: Guest,
    request: DeleteRequest | NamedDeleteRequest,
    progress: Progress | None = None,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    tell: Tell | None = None,
    allow: Collection[Guard] = (),
    verify: bool = False,
    poll_s: float = POLL_S,
    limits: Limits = DEFAULT_LIMITS,
) -> Result:
    """
    Delete a snapshot: commit, active commit or pull, whichever the request and the chain ask for.

    Args:
        host: The guest.
        request: What to delete.
        progress: Called at every look at the job.
        options: Bandwidth, time limit, and what the job does on an error.
        tell: Called with what is worth saying meanwhile.
        allow: Guards that do not count.
        verify: Whether to compare what is read before and after.
        poll_s: Seconds between two looks when nothing happens.
        limits: Bounds of the waiting.

    Raises:
        Refused: Nothing was touched.
        JobFailed: The job ended without doing its work; the chain is as it was.
        StoppedByChange: It was cancelled, because somebody else had changed the chain.
        TimedOut: It was cancelled at the time limit; the chain is as it was.
        StillRunning: It was changing the chain at the time limit, and has not ended since.
        Interrupted: Ctrl-C; the job goes on, and the same call attaches to it.
        OutcomeUnknown: The connection broke while the job ran.
        HeaderWrong, ChainUnexpected: It ran, and the outcome is not what it should be.
        ContentDiffers: It ran, and what is read is not what was read before.
    """
    host.clear()
    plan = plan_delete(host.read(), request)
    proof = None
    may_run = True
    try:
        job = host.attach(plan)
        if job is None:
            may_run = False
            check_idle((plan.disk,), host.jobs())
            check_merge(plan, host.surroundings(plan.disk), allow)
            proof = Proof.begin(host, plan) if verify else None
            check_unchanged((plan.disk,), host.read())
            may_run = True
            job = host.start(plan, options)
        elif options.bandwidth is not None and host.view(job).status in COPYING:
            host.set_speed(job, options.bandwidth)
    except KeyboardInterrupt:
        if not may_run:
            raise
        raise Interrupted(plan.kind, plan.top.file) from None
    drive = Drive(host=host, plan=plan, job=job, progress=progress, tell=tell, poll_s=poll_s)
    try:
        with changing(plan.kind, plan.top.file):
            ended = drive.to_the_end(options.timeout_s, limits)
            notes = () if ended.error else drive.lasting(lambda: host.settle(plan))
            guest, after = drive.lasting(lambda: fresh(host, plan.disk))
    except KeyboardInterrupt:
        raise Interrupted(plan.kind, plan.top.file) from None
    merged = _judged(host, plan, ended, guest, after, notes, options.timeout_s or 0)
    done = _with_state(host, _kept_for_others(host, plan, merged))
    if not verify:
        return done
    if proof is None:
        said = "not verified: it was begun by another call"
    else:
        try:
            said = proof.end(host, plan, after)
        except KeyboardInterrupt:
            said = "not verified: interrupted"
    return replace(done, notes=(*done.notes, said))


def _kept_for_others(host: Guest, plan: MergePlan, done: Result) -> Result:
    """Count a file that somebody else reads, or may read, as held: it must not be removed."""
    if not done.dropped:
        return done
    try:
        readers = host.surroundings(plan.disk).readers
    except (QmpsnapError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        note = f"whether others read the files that left the chain is not known: {why}"
        return replace(
            done, dropped=(), held=(*done.held, *done.dropped), notes=(*done.notes, note)
        )
    read = tuple(path for path in done.dropped if path in readers)
    notes = tuple(f"{path} is read by {', '.join(readers[path])}" for path in read)
    return replace(
        done,
        dropped=tuple(path for path in done.dropped if path not in read),
        held=(*done.held, *read),
        notes=(*done.notes, *notes),
    )


def _with_state(host: Guest, done: Result) -> Result:
    try:
        state = host.run_state()
    except (QmpsnapError, KeyboardInterrupt):
        return done  # the guest has ended since, or nobody waits; the merge is done all the same
    return replace(done, guest_state=state, notes=(*done.notes, *remarks(state)))


def _with_right_headers(host: Guest, plan: MergePlan, done: Result) -> Result:
    """
    See to the header that the merge has written, or of the layer that has become the active one.

    Raises:
        HeaderWrong: It is wrong, and could not be mended now.
    """
    if plan.above is not None and plan.base is not None:
        name = plan.backing_name or ""
        with changing(plan.kind, plan.top.file):
            after, repaired = ensured(host, done.disk, plan.above, plan.base, name)
        return replace(done, disk=after, repaired=repaired)
    if plan.kind != "active-commit":
        return done
    try:
        repaired, notes = mended_active(host, done.disk)
    except KeyboardInterrupt:
        # The merge is done; what is left undone was so before.
        repaired, notes = (), ("interrupted before the header of the active file was looked at",)
    return replace(done, repaired=repaired, notes=(*done.notes, *notes))


def _judged(
    host: Guest,
    plan: MergePlan,
    ended: Ended,
    guest: Disks,
    after: Disk,
    notes: tuple[str, ...],
    seconds: float,
) -> Result:
    """Tell a merge that was done from one that was not, by a fresh reading and the job's error."""
    if ended.differences and {one.path for one in plan.dropped} <= set(paths(after)):
        what = "; ".join(ended.differences)
        raise StoppedByChange(plan.kind, plan.top.file, what, after.chain_text)
    if paths(after) == paths(plan.disk):
        raise _undone(host, plan, ended, seconds, after.chain_text)
    return _with_right_headers(host, plan, _proven(plan, guest, after, ended.error, notes))


def _undone(host: Guest, plan: MergePlan, ended: Ended, seconds: float, chain: str) -> QmpsnapError:
    """Say why a job has left the chain as it was."""
    if ended.cancelled is Why.TIMEOUT:
        return TimedOut(plan.kind, plan.top.file, seconds, chain)
    if ended.cancelled is Why.PIVOT:
        reason = "QEMU said again and again that it is not ready to pivot, so it was cancelled"
    elif ended.error is None:
        # A cancel after READY may end with the same events as success, and without an error.
        reason = "it ended without an error, but nothing was merged (was it cancelled?)"
    else:
        room = host.room(plan.written) if "No space left" in ended.error else None
        reason = ended.error + (f" ({room.shortage(0)})" if room else "")
    return JobFailed(plan.kind, plan.top.file, reason, chain)


def _proven(
    plan: MergePlan,
    guest: Disks,
    after: Disk,
    error: str | None,
    notes: tuple[str, ...],
) -> Result:
    """Compare a fresh reading with the plan: only the graph tells what really happened."""
    expected = tuple(layer.path for layer in plan.remaining)
    found = paths(after)
    if error is not None or found != expected:
        expected_names = " <- ".join(layer.file for layer in reversed(plan.remaining))
        said = f" (the job ended with: {error})" if error else ""
        raise ChainUnexpected(plan.kind, after.chain_text + said, expected_names)
    if plan.base is None and after.layers[-1].backing_name is not None:
        last = after.layers[-1]
        command = shlex.join(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", last.path or ""])
        raise HeaderWrong(last.file, "it still names a backing file", command)
    formats = {layer.path: layer.format for layer in after.layers}
    left = [layer.path or "" for layer in plan.dropped]
    return Result(
        disk=after,
        file_format={layer.file: formats[layer.path] or "" for layer in plan.reported},
        dropped=tuple(path for path in left if path not in guest.open_files),
        held=tuple(path for path in left if path in guest.open_files),
        notes=(*((f"chose {plan.kind}: {plan.why}",) if plan.why else ()), *notes),
    )
