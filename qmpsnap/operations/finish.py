"""Go on with a merge of which the call has died: by its plan, and the same code. Pure but for that."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from qmpsnap.operations.guards import Guard, Surroundings
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.loop import Tell
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView
from qmpsnap.operations.merge import Begins, Prepared, Progress, delete
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.removal import removal
from qmpsnap.operations.requests import DeleteRequest


def request_of(plan: MergePlan) -> DeleteRequest:
    """The request that can only mean this plan."""
    base = None if plan.base is None else plan.base.file
    if plan.kind == "pull":
        return DeleteRequest(disk=plan.disk.disk, file_to_merge=base, merge_target_file=None)
    return DeleteRequest(disk=plan.disk.disk, file_to_merge=plan.top.file, merge_target_file=base)


def take_up(
    guest: Guest,
    plan: MergePlan,
    *,
    options: MergeOptions,
    allow: Collection[Guard] = (),
    remove: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
    begins: Begins | None = None,
) -> Result:
    """
    See the job of a plan through to its end; see `merge.delete`.

    Raises:
        QmpsnapError: As there.
    """
    return delete(
        guest,
        request_of(plan),
        progress,
        options=options,
        tell=tell,
        allow=allow,
        remove=remove,
        begins=begins,
    )


def finish(
    guest: Guest,
    plan: MergePlan,
    *,
    options: MergeOptions,
    remove: bool = False,
    begins: Begins | None = None,
) -> Result:
    """
    Do what is left of a merge whose job has ended and done its work: flush, close, headers, files.

    Raises:
        QmpsnapError: As `merge.delete`, after the end of its job.
    """
    steps = guest.compose.merge(plan, options, guest.state())
    if remove:
        steps = replace(steps, remove=removal(plan, force=options.force_remove))
    ended = JobReport(
        id=steps.job,
        type="stream" if plan.kind == "pull" else "commit",
        disk=plan.disk.disk,
        view=JobView(status=JobStatus.NULL),
        bandwidth=0,
        ours=True,
    )
    ready = Prepared(plan=plan, steps=steps, around=Surroundings(), running=ended)
    return delete(guest, request_of(plan), remove=remove, begins=begins, ready=ready)
