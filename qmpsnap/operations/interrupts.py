"""Ctrl-C while a job may be running: how far it has come, which decides what is told."""

from __future__ import annotations

from qmpsnap.operations.fresh import fresh
from qmpsnap.operations.guest import Guest, MergeSteps
from qmpsnap.operations.job.loop import Ended, Loop
from qmpsnap.operations.job.states import JobStatus
from qmpsnap.operations.outcome import GivenUp, Interrupted, OutcomeUnknown, changing
from qmpsnap.operations.plan_merge import MergePlan


def when_interrupted(guest: Guest, plan: MergePlan, steps: MergeSteps, loop: Loop) -> Ended:
    """
    Look how far a job has come that may have been started before Ctrl-C came.

    Returns:
        How it ended, when it had: what is left to do takes no time.

    Raises:
        Interrupted, GivenUp: It goes on, or did until now.
        OutcomeUnknown: It could not be looked at, or Ctrl-C came again.
        KeyboardInterrupt: There is none, and the chain is as it was.
    """
    loop.patience.came = True
    try:
        with changing(plan.kind, plan.top.file):
            view = loop.lasting(lambda: guest.view(steps.job))
            ended = view.status in (JobStatus.CONCLUDED, JobStatus.NULL)
            as_before = view.status is JobStatus.NULL and (
                loop.lasting(lambda: fresh(guest, plan.disk))[1].paths == plan.disk.paths
            )
    except KeyboardInterrupt:
        raise OutcomeUnknown(plan.kind, plan.top.file, "interrupted again and again") from None
    if as_before:
        raise KeyboardInterrupt
    if not ended and steps.release is not None:
        raise GivenUp(plan.kind, plan.top.file, plan.disk.chain_text)
    if not ended:
        raise Interrupted(plan.kind, plan.top.file)
    return Ended(status=view.status, error=view.error)
