"""The guest of a command that changes something: where a signal comes through; see `signals`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final

from qmpsnap.cli.signals import let_through
from qmpsnap.formats.layers import Disk, Disks, Identity
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Claim, Composer, Files, Guest, Outline, Overlay, State
from qmpsnap.operations.job.states import Heard, JobReport, JobView
from qmpsnap.operations.plan_snapshot import CreatePlan
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.volume import VolumeLayer
from qmpsnap.operations.where import where_of

if TYPE_CHECKING:
    from qmpsnap.cli.connection import Road
    from qmpsnap.errors import QmpsnapError


@contextmanager
def expecting(road: Road, guest: str | None) -> Iterator[Guest]:
    """
    Open a guest for a command that changes something.

    Raises:
        KeyboardInterrupt: A signal came; also in the calls to the guest.
        Unreachable: It cannot be reached; see `Road.open`.
    """
    with let_through(lambda: road.open(guest)) as opened:
        yield Interruptible(opened)


class Interruptible:
    """A guest; a signal comes through in each call that may take long, and in nothing else."""

    def __init__(self, guest: Guest) -> None:
        """Wrap a guest."""
        self._guest = guest
        self.compose: Composer = guest.compose
        self.files: Files = _Files(guest.files)
        self.where = where_of(guest)

    def take(self, step: Step) -> object:
        """See `Door.take`: short acts that take others back, or change a file, are not interrupted."""
        if step.does in _TO_THE_END or step.by == "file":
            return self._guest.take(step)
        return let_through(lambda: self._guest.take(step))

    def read(self) -> Disks:
        """See `Guest.read`."""
        return let_through(self._guest.read)

    def state(self) -> State:
        """See `Guest.state`."""
        return let_through(self._guest.state)

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """See `Guest.outlines`."""
        return let_through(lambda: self._guest.outlines(disks))

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`."""
        return let_through(lambda: self._guest.neighbours(disk, left))

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Jobs.jobs`."""
        return let_through(self._guest.jobs)

    def follow(self, job: str) -> None:
        """See `Jobs.follow`."""
        let_through(lambda: self._guest.follow(job))

    def view(self, job: str) -> JobView:
        """See `Jobs.view`."""
        return let_through(lambda: self._guest.view(job))

    def wait(self, job: str, timeout: float) -> Heard:
        """See `Jobs.wait`."""
        return let_through(lambda: self._guest.wait(job, timeout))

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Jobs.reconnect`."""
        return let_through(lambda: self._guest.reconnect(error))


_TO_THE_END: Final = frozenset({Does.THAW, Does.RELEASE, Does.DISCARD})


class _Files:
    """Of these looks, one reads a whole disk."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def claim(self) -> AbstractContextManager[Claim]:
        return self._files.claim()

    def overlay(self, plan: CreatePlan) -> Overlay:
        return self._files.overlay(plan)

    def digest(self, layers: tuple[VolumeLayer, ...]) -> str:
        return let_through(lambda: self._files.digest(layers))

    def identity(self, path: str) -> Identity | None:
        return self._files.identity(path)

    def room(self, path: str) -> Room | None:
        return self._files.room(path)
