"""What the loop needs from whoever carries its steps out: QEMU itself, or libvirt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.job.states import JobReport, JobView, Verb
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What `Guest.prepare` found or did."""

    made: bool
    """Made by us: removed again when the switch fails."""
    notes: tuple[str, ...] = ()
    """Corrections, in words: a wrong backing format in a header that was there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thawed:
    """How a thaw went that is confirmed."""

    count: int
    """Filesystems that were frozen until then."""
    frozen_s: float | None = None
    """Seconds from the agent's reply to the freeze until its reply to the thaw."""
    problem: str | None = None
    """What an agent said that has thawed in the end: Windows, when its ten seconds were over."""


class NotFlushed(Failed):
    """A merge is done, and what it copied may still be in QEMU's memory only."""

    msg = "{self.file} holds all data now, but QEMU would not flush it: {self.reason}"
    remedy = (
        "Keep the files that left the chain until the guest has been paused and resumed once "
        "(`virsh suspend`, `virsh resume`; or QMP `stop`, `cont`), which flushes; make room first "
        "where there is none. If it ends before that, name the old backing file again where it was "
        "named (`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`), then start it."
    )

    file: str
    reason: str


class Jobs(Protocol):
    """What can be done about a job without a plan: look, wait, cancel, pause, resume, slow down."""

    def jobs(self) -> tuple[JobReport, ...]:
        """All block jobs of the guest."""

    def follow(self, job: str) -> None:
        """Listen to what happens to a job from now on; call it before `view` and `wait`."""

    def view(self, job: str) -> JobView:
        """How the job is now."""

    def wait(self, job: str, timeout: float) -> None:
        """Sleep until something happened to the job, or the time (seconds) is over."""

    def cancel(self, job: str) -> bool:
        """
        End a job, the chain staying as it was; False when it cannot be cancelled any more.

        Returns before the job has ended.
        """

    def pause(self, job: str) -> None:
        """Let a job rest until `resume`."""

    def resume(self, job: str) -> None:
        """Let a job go on that was paused, or that has paused itself on an error."""

    def set_speed(self, job: str, bandwidth: int) -> None:
        """Limit a job to so many bytes a second; 0 for no limit."""

    def step_of(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """
        What one of these four would do.

        Raises:
            Refused: It cannot be done here.
        """


class Guest(Jobs, Protocol):
    """Who carries steps out: QEMU itself, or libvirt."""

    def clear(self) -> None:
        """
        Clear away what calls left that died in mid-step, as far as it is certainly ours.

        Before an operation only; who just looks changes nothing.
        """

    def read(self) -> Disks:
        """Read the guest afresh."""

    def surroundings(self, disk: Disk) -> Surroundings:
        """Who else uses the files of a disk, and whether the guest is being migrated."""

    def migration(self) -> str | None:
        """State of a migration that is under way."""

    def run_state(self) -> str | None:
        """In which state the guest is, in QEMU's words; None where nobody tells."""

    def is_still(self, disk: Disk) -> bool:
        """
        Whether the guest cannot write to a disk now, and all that it wrote is in the files.

        True for a guest that is off, and for one that is paused (it is flushed then).
        """

    def digest(self, layers: tuple[Layer, ...]) -> str:
        """Hash what a reader of the first of these layers sees."""

    def prepare(self, plan: CreatePlan) -> Overlay:
        """Make the overlay file, or check the one that is there and correct its header."""

    def discard(self, plan: CreatePlan) -> None:
        """Remove an overlay file that `prepare` made and nobody uses."""

    def open(self, plans: Sequence[CreatePlan]) -> None:
        """Do all that can be done before the switch, so that a guest is not frozen for it."""

    def switch(self, plans: Sequence[CreatePlan]) -> None:
        """Put all overlays on their disks at one moment, or none. On an error none is."""

    def retract(self, plans: Sequence[CreatePlan]) -> None:
        """Close what `open` opened and `switch` did not put on."""

    def freeze(self, limit_s: float) -> int:
        """
        Freeze the guest's filesystems; returns how many.

        From here on they are thawed after at most twice the limit, even if this process ends.

        Raises:
            CannotFreeze: They are not frozen; or, with `asked`, may be.
        """

    def thaw(self, limit_s: float) -> Thawed:
        """
        Thaw them until none is frozen. Ctrl-C comes through when that is over.

        Raises:
            NotThawed: It is not confirmed; a helper goes on trying.
        """

    def attach(self, plan: MergePlan) -> str | None:
        """The job of this very plan, left running by an earlier call; None when there is none."""

    def steps_of_create(self, plans: Sequence[CreatePlan]) -> tuple[Step, ...]:
        """What `open` and `switch` would do."""

    def steps_of_freeze(self) -> tuple[Step, Step]:
        """
        What `freeze` and `thaw` would do.

        Raises:
            CannotFreeze: There is nobody to ask.
        """

    def steps_of_merge(self, plan: MergePlan, options: MergeOptions) -> tuple[Step, ...]:
        """
        What `start` and the end of the job would do.

        Raises:
            Refused: `start` would refuse it.
        """

    def start(self, plan: MergePlan, options: MergeOptions) -> str:
        """
        Start the job; returns its id.

        Raises:
            PauseUnsupported: It cannot pause on an error here; nothing was touched.
        """

    def pivot(self, job: str) -> bool:
        """Switch a ready mirror over; False when it was not ready after all."""

    def finalize(self, plan: MergePlan, job: str) -> None:
        """Flush what was written, then let the pending job change the graph."""

    def dismiss(self, job: str) -> None:
        """Forget a concluded job, its error having been read."""

    def settle(self, plan: MergePlan) -> tuple[str, ...]:
        """After success: flush if it has not happened, remove nodes left over; notes."""

    def room(self, layer: Layer) -> Room | None:
        """The room that a layer's file has to grow; None where that cannot be told."""

    def reconnect(self, error: QmpsnapError) -> bool:
        """After an error: True when it was a lost connection, and there is one again."""
