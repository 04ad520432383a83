"""
Delete a snapshot: the order of the acts, and what each interruption leaves behind.

    clear away ─► plan ─► start the job ─► wait ─► (flush) commit ─► settle ─► read again ─►
    (mend a header that is wrong) ─► (remove files)

At any time the job goes on in QEMU, and the same command takes it up again. Right before a step
that changes the graph, the graph is compared with the one that the plan was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disks
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.clear import Found, cleared, notes_of
from qmpsnap.operations.flushed import Told, check_flushed, taken
from qmpsnap.operations.fresh import fresh
from qmpsnap.operations.guards import Guard, Surroundings, check_idle, check_merge, doubts
from qmpsnap.operations.guest import Guest, MergeSteps, State
from qmpsnap.operations.headers import ensured, mended_active
from qmpsnap.operations.hold import held
from qmpsnap.operations.interrupts import when_interrupted
from qmpsnap.operations.job.loop import POLL_S, Ended, JobSteps, Loop, Tell
from qmpsnap.operations.job.machine import DEFAULT_LIMITS, Limits
from qmpsnap.operations.job.states import COPYING, JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.judge import judged
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions
from qmpsnap.operations.outcome import OutcomeUnknown, Result, changing
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.proof import ContentDiffers, Proof
from qmpsnap.operations.removal import removal, removed
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.run_state import remarks
from qmpsnap.operations.shape import check_shape
from qmpsnap.operations.step import Does, NotNow, Step
from qmpsnap.operations.unchanged import changes, check_unchanged
from qmpsnap.operations.volume import on_the_same_node

Progress = Callable[[MergePlan, JobView], None]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A merge before its first act: what will be done, and all that was looked at."""

    plan: MergePlan
    steps: MergeSteps
    around: Surroundings
    running: JobReport | None
    """The job of this very plan, which an earlier call has left."""


Begins = Callable[[Prepared], object]


def prepared(
    guest: Guest,
    found: Found,
    request: DeleteRequest | NamedDeleteRequest,
    options: MergeOptions,
    *,
    allow: Collection[Guard],
    remove: bool,
) -> Prepared:
    """
    Plan a merge, and look at all that may be in its way.

    Raises:
        Refused: It is not to be done. Nothing was touched.
    """
    plan = plan_delete(found.disks, request, foreign=Guard.FOREIGN_LAYER in allow)
    state = guest.state()
    steps = guest.compose.merge(plan, options, state)
    if remove:
        steps = replace(steps, remove=removal(plan, force=options.force_remove))
    running = job_of(plan, steps, found.jobs)
    if running is None:
        check_idle((plan.disk,), found.jobs)
        check_shape(plan.disk, found.disks)
    around = guest.neighbours(plan.disk)
    if running is None:
        check_merge(plan, around, allow, migration=state.migration)
    return Prepared(plan=plan, steps=steps, around=around, running=running)


def job_of(plan: MergePlan, steps: MergeSteps, jobs: Collection[JobReport]) -> JobReport | None:
    """
    The job of this very plan among those of a guest.

    By QMP its id follows from the plan. libvirt calls a job by its disk, and has one a disk; a
    mirror tells its target, and of the others the fresh graph tells in the end what they merged.
    """
    type_ = "stream" if plan.kind == "pull" else "commit"
    target = plan.base.path if plan.kind == "active-commit" and plan.base else None
    for job in jobs:
        if job.id == steps.job and job.type == type_ and (job.ours or job.target == target):
            return job
    return None


def delete(
    guest: Guest,
    request: DeleteRequest | NamedDeleteRequest,
    progress: Progress | None = None,
    *,
    options: MergeOptions = DEFAULT_OPTIONS,
    tell: Tell | None = None,
    allow: Collection[Guard] = (),
    verify: bool = False,
    remove: bool = False,
    poll_s: float = POLL_S,
    limits: Limits = DEFAULT_LIMITS,
    begins: Begins | None = None,
    ready: Prepared | None = None,
) -> Result:
    """
    Delete a snapshot: commit, active commit or pull, whichever the request and the chain ask for.

    Args:
        guest: The guest.
        request: What to delete.
        progress: Called at every look at the job.
        options: Bandwidth, time limit, and what the job does on an error.
        tell: Called with what is worth saying while the job runs.
        allow: Guards that do not count.
        verify: Whether to compare what is read before and after.
        remove: Whether to remove the files that leave the chain, once nobody uses them; with
            `verify`, only if the proof was had.
        poll_s: Seconds between two looks when nothing happens.
        limits: Bounds of the waiting.
        begins: Called with the plan before its first act.
        ready: What is to be done; None: what the request asks for.

    Raises:
        Refused: Nothing was touched; `DiskLocked` while another operation is at work on the disk.
        JobFailed: The job ended without doing its work; the chain is as it was.
        StoppedByChange: It was cancelled, because somebody else had changed the chain.
        TimedOut: It was cancelled at the time limit; the chain is as it was.
        LeftRunning: It should be cancelled, and is somebody else's, or may be.
        StillRunning: It was changing the chain at the time limit, and has not ended since.
        Interrupted: Ctrl-C; the job goes on, and the same call attaches to it.
        GivenUp: Ctrl-C; the guest is off, and its job ended with this call.
        KeyboardInterrupt: Nothing was begun.
        OutcomeUnknown: The connection broke while the job ran, or Ctrl-C came again and again.
        NotFlushed: It ran, and what was copied is not certainly on the disk.
        HeaderWrong, ChainUnexpected: It ran, and the outcome is not what it should be.
        OpenedAnother: QEMU has a file that took the name of one of the chain.
        ContentDiffers: It ran, and what is read is not what was read before.
    """
    with guest.files.claim() as claim:
        found = cleared(guest, claim, (request.disk,))
        merge = ready or prepared(guest, found, request, options, allow=allow, remove=remove)
        plan, steps, running = merge.plan, merge.steps, merge.running
        claim.take([one.path for one in (plan.written, plan.above) if one is not None])
        claim.keep([str(step.arguments["path"]) for step in steps.remove])
        if begins is not None:
            begins(merge)
        proof = Proof.begin(guest, plan) if verify and running is None else None
        loop = Loop(
            guest=guest,
            kind=plan.kind,
            file=plan.top.file,
            job=steps.job,
            steps=JobSteps(cancel=steps.cancel, flush=steps.flush, commit=steps.commit),
            changed=lambda: changes(guest, (plan.disk,)),
            room=lambda: guest.files.room(plan.written.path),
            progress=None if progress is None else lambda view: progress(plan, view),
            tell=tell,
            poll_s=poll_s,
            is_ours=running is None or running.ours is True,
        )
        with held(guest, () if steps.hold is None else (steps.hold,), steps.release):
            ended = _run(guest, merge, loop, options, limits)
            try:
                with changing(plan.kind, plan.top.file):
                    problems, told = _settle(guest, loop, plan, steps, ended)
                    now, after = loop.lasting(lambda: fresh(guest, plan.disk))
                    unproven = loop.lasting(
                        lambda: check_flushed(guest, plan, steps, ended.flush, told, now, after)
                    )
            except KeyboardInterrupt:
                reason = "interrupted again and again when its job had ended"
                raise OutcomeUnknown(plan.kind, plan.top.file, reason) from None
        said = (
            *notes_of(found.jobs, steps.job),
            *on_the_same_node(plan.disk, found.disks.disks),
            *doubts(plan, merge.around),
        )
        done = judged(
            plan,
            ended,
            now,
            after,
            room=guest.files.room(plan.written.path) if ended.error else None,
            seconds=options.timeout_s or 0,
            notes=(*said, *_left_open(plan, problems, now), *loop.patience.notes, *claim.notes),
        )
        if unproven is not None:
            done = _kept(done, unproven)
        done = _with_right_headers(guest, plan, done)
        done = _with_state(guest, _kept_for_others(guest, plan, done))
        if verify:
            proven, note = _verified(guest, plan, proof, done)
            done = replace(done, notes=(*done.notes, note))
            remove = remove and proven
        return removed(guest, plan, steps.remove, done) if remove else done


def _run(guest: Guest, merge: Prepared, loop: Loop, options: MergeOptions, limits: Limits) -> Ended:
    """
    Start the job, or take up the one that is there, and see it to its end.

    Raises:
        GraphChanged: The chain is another one by now; nothing was started.
        Interrupted, GivenUp, KeyboardInterrupt: Ctrl-C; see `delete`.
    """
    plan, steps, running = merge.plan, merge.steps, merge.running
    may_run = running is not None
    try:
        if running is None:
            check_unchanged(guest, (plan.disk,))
            if steps.forget is not None:
                guest.take(steps.forget)
            guest.follow(steps.job)
            may_run = True
            guest.take(steps.start)
        elif running.view.status in (JobStatus.CONCLUDED, JobStatus.NULL):
            return Ended(status=running.view.status, error=running.view.error)
        else:
            guest.follow(steps.job)
            if options.bandwidth is not None and running.view.status in COPYING:
                with suppress(CommandFailed):  # it has copied everything since
                    guest.take(guest.compose.verb(Verb.SET_SPEED, steps.job, options.bandwidth))
        with changing(plan.kind, plan.top.file):
            return loop.to_the_end(options.timeout_s, limits, is_new=running is None)
    except KeyboardInterrupt:
        if not may_run:
            raise
        return when_interrupted(guest, plan, steps, loop)


def _settle(
    guest: Guest, loop: Loop, plan: MergePlan, steps: MergeSteps, ended: Ended
) -> tuple[dict[str, str], list[Told]]:
    """
    After the end of the job: dismiss it and, after success, flush and close what left the chain.

    Returns:
        Why nodes could not be closed, by their names; what came of each flush.
    """
    if ended.error is not None:
        settle = (steps.dismiss,) if steps.dismiss is not None else ()
    else:
        settle = (*steps.settle, *(() if steps.redefine is None else (steps.redefine,)))
    problems: dict[str, str] = {}
    told: list[Told] = []
    for planned in settle:
        step = planned
        if "size" in planned.arguments:
            step = loop.lasting(lambda step=planned: _to_its_size(guest, plan, step))  # type: ignore[misc]
        if step.does is Does.FLUSH:
            told.append((step, loop.lasting(lambda step=step: taken(guest, step))))  # type: ignore[misc]
            continue
        try:
            loop.lasting(lambda step=step: guest.take(step))  # type: ignore[misc]
        except NotNow:
            continue  # another client has dismissed it
        except CommandFailed as error:
            if step.does not in (Does.CLOSE, Does.REOPEN):
                raise
            problems[str(step.arguments.get("node-name"))] = error.description
    return problems, told


def _to_its_size(guest: Guest, plan: MergePlan, step: Step) -> Step:
    """
    A resize is there to flush, and must change nothing: the disk may have grown since the plan.

    Raises:
        QmpsnapError: The guest cannot be read.
    """
    now = guest.read().disk(plan.disk.disk)
    size = next((one.virtual_size for one in now.layers if one.path == plan.top.path), None)
    return step if size is None else replace(step, arguments={**step.arguments, "size": size})


def _left_open(plan: MergePlan, problems: dict[str, str], now: Disks) -> tuple[str, ...]:
    """
    Nodes that are still there; most others QEMU had closed by itself.

    What such a node reads stays open because of it, and is not told.
    """
    if now.graph is None:
        return ()
    read = {edge.child for edge in now.graph.edges if edge.parent in problems}
    files = {name: layer.file for layer in plan.dropped for name in layer.nodes}
    return tuple(
        f"node {name} of {files.get(name)} stays open: {why}"
        for name, why in problems.items()
        if name in now.graph.nodes and name not in read
    )


def _with_right_headers(guest: Guest, plan: MergePlan, done: Result) -> Result:
    """
    See to the header that the merge has written, or of the layer that has become the active one.

    Raises:
        HeaderWrong: It is wrong, and could not be mended now.
    """
    if plan.above is not None and plan.base is not None:
        name = plan.backing_name or plan.base.path
        with changing(plan.kind, plan.top.file):
            after, repaired = ensured(guest, done.disk, plan.above, plan.base, name)
        return replace(done, disk=after, repaired=repaired)
    if plan.kind != "active-commit":
        return done
    try:
        mended = mended_active(guest, done.disk)
    except KeyboardInterrupt:
        # The merge is done; what is left undone was so before.
        note = "interrupted before the header of the active file was looked at"
        return replace(done, notes=(*done.notes, note))
    return replace(done, repaired=mended.repaired, notes=(*done.notes, *mended.notes))


def _kept(done: Result, why: str) -> Result:
    """Release nothing."""
    held = (*done.held, *done.dropped)
    return replace(done, dropped=(), held=held, notes=(*done.notes, why))


def _kept_for_others(guest: Guest, plan: MergePlan, done: Result) -> Result:
    """Count a file that somebody else reads, or may read, as held: it must not be removed."""
    if not done.dropped:
        return done
    try:
        readers = guest.neighbours(plan.disk, done.dropped).readers
    except (QmpsnapError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        return _kept(done, f"whether others read the files that left the chain is not known: {why}")
    read = tuple(path for path in done.dropped if path in readers)
    notes = tuple(f"{path} is read by {', '.join(readers[path])}" for path in read)
    return replace(
        done,
        dropped=tuple(path for path in done.dropped if path not in read),
        held=(*done.held, *read),
        notes=(*done.notes, *notes),
    )


def _with_state(guest: Guest, done: Result) -> Result:
    try:
        state: State = guest.state()
    except (QmpsnapError, KeyboardInterrupt):
        return done  # the guest has ended since, or nobody waits; the merge is done all the same
    return replace(done, guest_state=state.run, notes=(*done.notes, *remarks(state.run)))


def _verified(guest: Guest, plan: MergePlan, proof: Proof | None, done: Result) -> tuple[bool, str]:
    """
    Whether the merge is proven, and what is to be said of it.

    The merge is done: what keeps it from being proven is told, and no reason to call it refused.

    Raises:
        ContentDiffers: What is read is not what was read before.
    """
    if proof is None:
        return False, "not verified: it was begun by another call"
    try:
        return True, proof.end(guest, plan, done.disk)
    except ContentDiffers:
        raise
    except QmpsnapError as error:
        return False, f"not verified: {error}"
    except KeyboardInterrupt:
        return False, "not verified: interrupted"


def remaining(steps: MergeSteps, running: JobReport | None) -> tuple[Step, ...]:
    """The acts that are still to be taken, when a job is there already."""
    if running is None:
        return steps.all
    if running.view.error is not None:
        return () if steps.dismiss is None else (steps.dismiss,)
    before = (steps.forget, steps.start)
    settle = tuple(step for step in steps.all if step not in before)
    if running.view.status in (JobStatus.CONCLUDED, JobStatus.NULL):
        done = (steps.flush, steps.commit)
        return tuple(step for step in settle if step not in done)
    return settle
