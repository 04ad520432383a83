"""`delete --no-wait`: leave a merge to its job, as Ctrl-C would, and say how it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field

from qmpsnap.cli.output import show
from qmpsnap.cli.text import fold, printable
from qmpsnap.errors import Refused
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import COPYING, JobStatus, JobView
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.run_state import OFF


class NeedsWaiting(Refused):
    """The guest is off: the merge is done by this command itself, and ends with it."""

    msg = "the guest is off, so nobody would go on with the merge when this command returns"
    remedy = "Give the command without --no-wait."


def check_runs(guest: Guest) -> None:
    """
    Refuse to leave a merge that nobody would go on with.

    Raises:
        NeedsWaiting: The guest is off.
    """
    if guest.state().run == OFF:
        raise NeedsWaiting


@dataclass
class Leaving:
    """
    Called as progress; interrupts the wait at the first look at a job that still copies.

    Not a pull's under libvirt, which finishes it by itself: nobody would flush what was copied.
    """

    leaves_pulls: bool
    left: list[tuple[MergePlan, JobView]] = field(default_factory=list)

    def progress(self, plan: MergePlan, view: JobView) -> None:
        """Take note of the job, and leave it; what is nearly done is seen to its end."""
        if view.status in COPYING - {JobStatus.READY} and self._may_leave(plan):
            self.left.append((plan, view))
            raise KeyboardInterrupt

    def _may_leave(self, plan: MergePlan) -> bool:
        return plan.kind != "pull" or self.leaves_pulls


def show_started(plan: MergePlan, view: JobView, output: str) -> None:
    """Print `qmpsnap.started/1`."""
    then = "give the same command without --no-wait: it takes the job up and finishes it"
    document: dict[str, object] = {
        "schema": "qmpsnap.started/1",
        "operation": "delete",
        "disk": plan.disk.disk,
        "kind": plan.kind,
        "file": plan.top.file,
        "current": view.current,
        "total": view.total,
        "next": then,
    }
    text = f"started: {plan.kind} of {plan.top.file} on {plan.disk.disk}; {then}"
    show(document, output, lambda here: fold(printable(text), here.width))
