"""
What an operation needs of the guest it works on.

`Guest` is a running QEMU by its own socket, one under libvirt, or one that is off. Everything here
only looks, except `take`. What is to be taken is put together by `compose`, which is pure: it
knows the road and what this QEMU can do, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from qmpsnap.errors import Failed, QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Identity
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.job.states import Heard, JobReport, JobView, Verb
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.plan_header import HeaderPlan
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Step
from qmpsnap.operations.volume import VolumeLayer


class State(msgspec.Struct, frozen=True, kw_only=True):
    """In which state a guest is."""

    run: str | None
    """RunState, qapi/run-state.json, or `off`; None where nobody tells."""
    migration: str | None = None
    """State of a migration that is under way."""
    saved: bool = False
    """Whether the next start goes on from a saved memory."""


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """The file that is to become an overlay, as it was found."""

    is_there: bool
    recorded: tuple[str, str | None] | None = None
    """Name and format of the backing file in the header of one that is there."""
    spare: str | None = None
    """A second name of the same file, which a call that died has left."""
    identity: Identity | None = None
    """What it is, of one that is there."""


class SnapshotSteps(msgspec.Struct, frozen=True, kw_only=True):
    """Every act of one snapshot, in order. None or empty: nothing to do on this road."""

    hold: tuple[Step, ...] = ()
    make: tuple[tuple[Step, ...], ...]
    """A tuple for each disk."""
    open: tuple[Step, ...] = ()
    switch: Step
    close: tuple[Step, ...] = ()
    """Takes `open` back when there was no switch."""
    release: Step | None = None
    discard: tuple[Step | None, ...]
    """Takes `make` back, for each disk; None where the file was there before."""
    notes: tuple[str | None, ...] = ()
    """What is not known, for each disk."""


class MergeSteps(msgspec.Struct, frozen=True, kw_only=True):
    """Every act of one merge, in order. None: whoever runs the job does it by itself."""

    job: str
    """The id that the job has, or will have."""
    hold: Step | None = None
    forget: Step | None = None
    """Before the job: where the definition names what it takes out, the headers are to say it."""
    start: Step
    flush: Step | None = None
    commit: Step | None = None
    cancel: Step
    dismiss: Step | None = None
    settle: tuple[Step, ...] = ()
    """After success: dismiss, flush, close what left the chain."""
    otherwise: tuple[tuple[Step, ...], ...] = ()
    """Where the flushes among these do not tell whether they were done: others, one set after the
    other until one tells. See `operations.flushed`."""
    redefine: Step | None = None
    release: Step | None = None
    remove: tuple[Step, ...] = ()
    """Only after the proof, and only what nobody else uses."""

    @property
    def all(self) -> tuple[Step, ...]:
        """What is taken when all goes well and no job is there yet, in order."""
        return _there(
            self.hold, self.forget, self.start, self.flush, self.commit, *self.settle, self.redefine,
            self.release, *self.remove,
        )  # fmt: skip


class HeaderSteps(msgspec.Struct, frozen=True, kw_only=True):
    """Every act that has QEMU write one header."""

    job: str
    hold: Step | None = None
    start: Step
    cancel: Step
    settle: tuple[Step, ...] = ()
    release: Step | None = None

    @property
    def all(self) -> tuple[Step, ...]:
        """What is taken when all goes well, in order."""
        return _there(self.hold, self.start, *self.settle, self.release)


def _there(*steps: Step | None) -> tuple[Step, ...]:
    return tuple(step for step in steps if step is not None)


class Composer(Protocol):
    """Puts the acts of an operation together for one road and one QEMU. Asks nobody."""

    def verb(self, verb: Verb, job: str, bandwidth: int = 0) -> Step:
        """
        One act on a job.

        Args:
            verb: What to do.
            job: Id of the job.
            bandwidth: Bytes a second, 0 for no limit.

        Raises:
            Refused: It cannot be done here.
        """

    def dismiss(self, job: JobReport) -> Step | None:
        """What takes away a job of this tool that has ended; None: it goes by itself."""

    def unsafe(self, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """What dismisses ended jobs of an earlier call that make a reading dangerous."""

    def leftovers(self, disks: Disks, jobs: Sequence[JobReport]) -> tuple[Step, ...]:
        """What clears away what calls left that died in mid-step, as far as it is certainly theirs."""

    def snapshot(
        self,
        disks: Disks,
        plans: Sequence[CreatePlan],
        overlays: Sequence[Overlay],
        state: State,
    ) -> SnapshotSteps:
        """
        All acts of a snapshot.

        Args:
            disks: All disks of the guest.
            plans: For each disk that gets an overlay.
            overlays: The files of these, as they were found.
            state: Of the guest.

        Raises:
            Refused: It cannot be done in this state of the guest.
        """

    def merge(self, plan: MergePlan, options: MergeOptions, state: State) -> MergeSteps:
        """
        All acts of a merge, but for the files to remove.

        Raises:
            Refused: It cannot be done here.
        """

    def below_again(self, plan: MergePlan) -> Step | None:
        """
        What puts the layers that a pull has taken out of a guest's definition back into it.

        Args:
            plan: Of a pull that is taken back when the guest is off.

        Returns:
            None: There is no definition, or the headers alone tell what lies below.
        """

    def header(self, plan: HeaderPlan) -> HeaderSteps:
        """
        All acts that have a header written.

        Raises:
            Refused: It cannot be done here.
        """

    def freeze(self, limit_s: float) -> tuple[Step, Step]:
        """
        What freezes the guest's filesystems, and what thaws them.

        Args:
            limit_s: Seconds that the guest may take, and then stay frozen.

        Raises:
            CannotFreeze: There is nobody to ask.
        """

    def flush(self, layer: VolumeLayer, disk: str) -> Step | None:
        """What brings all that a paused guest wrote into its files; None: nothing is needed."""


class Claim(Protocol):
    """The locks of one operation, which keep other ones away from its disks."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be locked as it should be, for the result."""

    def take(self, paths: Collection[str]) -> None:
        """
        Lock files that are written, once each.

        Raises:
            DiskLocked: Another operation has one of them.
        """

    def keep(self, paths: Collection[str]) -> None:
        """Hold files that may be removed, so that another one is known from them."""

    def is_anothers(self, path: str) -> bool:
        """Whether another operation has a file."""


class Files(Protocol):
    """Looks at files on this host."""

    def claim(self) -> AbstractContextManager[Claim]:
        """Locks for one operation; they end with the block."""

    def overlay(self, plan: CreatePlan) -> Overlay:
        """
        Look at the file that is to become the overlay.

        Raises:
            OverlayUnsuitable: What is there is no empty qcow2 overlay of this disk.
        """

    def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
        """
        Hash what a reader of the first of these layers sees: SHA-256, hexadecimal.

        Raises:
            CannotVerify: It cannot be read.
        """

    def identity(self, path: str) -> Identity | None:
        """What a name leads to; None where that is no file and no block device."""

    def room(self, path: str) -> Room | None:
        """The room that a file has to grow; None where that cannot be told."""


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """What a cheap look shows of a disk: names of nodes. Filters that came since are left out."""

    nodes: frozenset[str]
    """All that are reachable from the disk."""
    order: tuple[str, ...]
    """The format nodes that were asked about and are there, from the active one down."""


class Jobs(Protocol):
    """What can be done about a job without a plan."""

    @property
    def compose(self) -> Composer:
        """Puts acts together."""

    def jobs(self) -> tuple[JobReport, ...]:
        """All block jobs of the guest."""

    def follow(self, job: str) -> None:
        """Listen to what happens to a job from now on; call it before `view` and `wait`."""

    def view(self, job: str) -> JobView:
        """How the job is now."""

    def wait(self, job: str, timeout: float) -> Heard:
        """Sleep until something happened to the job, or the time (seconds) is over; what was heard."""

    def take(self, step: Step) -> object:
        """Carry out one act; see `Door.take`."""

    def reconnect(self, error: QmpsnapError) -> bool:
        """After an error: True when it was a lost connection, and there is one again."""


class Guest(Jobs, Protocol):
    """One guest, running or off."""

    @property
    def files(self) -> Files:
        """Looks at files on this host."""

    def read(self) -> Disks:
        """Read the guest: all its disks at one moment."""

    def state(self) -> State:
        """
        In which state the guest is.

        Raises:
            OnAnotherHost: It runs elsewhere, so nothing of it can be changed from here.
        """

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """A cheap look at disks, in the place of a reading; None for each that there is none of."""

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """
        Who else uses the files of a disk, and how much room they have.

        Args:
            disk: The disk.
            left: Of its files these alone, which have left its chain; None: all of them.
        """


class Thawed(msgspec.Struct, frozen=True, kw_only=True):
    """How a thaw went that is confirmed."""

    count: int
    """Filesystems that were frozen until then."""
    frozen_s: float | None = None
    """Seconds from the agent's reply to the freeze until its reply to the thaw."""
    problem: str | None = None
    """What an agent said that has thawed in the end: Windows, when its ten seconds were over."""


class NotFlushed(Failed):
    """A merge is done, but what it copied may still be only in QEMU's memory."""

    msg = "{self.file} holds all data now, but it could not be flushed: {self.reason}"
    remedy = (
        "Keep the files that left the chain. Free some space if the disk is full, then run `qmpsnap "
        "resume`: it flushes the file again, and says whether that worked. Without a journal, shut the "
        "guest down instead, which also flushes. If the guest dies before that, `qmpsnap resume` names "
        "the old backing file again; without a journal, do it yourself before the guest is started "
        "(`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`)."
    )

    file: str
    reason: str
