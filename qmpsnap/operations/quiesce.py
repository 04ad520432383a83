"""
Freeze the guest's filesystems for the moment of the switch, and thaw them whatever happens.

    ready? ─► freeze ─► switch ─► thaw until nothing is frozen
    any error, any Ctrl-C from `freeze` on: thaw all the same

`filesystem` is only said of a snapshot when the freeze is proven to have held: as many filesystems
were thawed as had been frozen, and nobody reported an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

import msgspec

from qmpsnap.errors import Failed, Refused
from qmpsnap.operations.guest import Guest, Thawed
from qmpsnap.operations.run_state import how_to_be_heard, why_silent
from qmpsnap.operations.step import Step

Consistency = Literal["filesystem", "crash"]

LIMIT_S: Final = 10.0
"""Seconds; Windows' VSS does not hold its writes for longer either."""


class Policy(StrEnum):
    """Whether to freeze."""

    NEVER = "never"
    TRY = "try"
    """If it cannot be done, a crash-consistent snapshot, with a note."""
    REQUIRE = "require"
    """If it cannot be done, none."""


class Quiesce(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    policy: Policy = Policy.NEVER
    limit_s: float = LIMIT_S
    """How long the guest may take to freeze, and how long it may then stay frozen."""


NEVER: Final = Quiesce()

Word = Literal["never", "try", "require"]
"""A policy as callers may write it."""


def quiesce_as(asked: Quiesce | Word) -> Quiesce:
    """
    Return what is asked for, which may be a policy alone.

    Raises:
        ValueError: There is no such policy.
    """
    return asked if isinstance(asked, Quiesce) else Quiesce(policy=Policy(asked))


class CannotFreeze(Refused):
    """The guest's filesystems could not be frozen, and a consistent snapshot was required."""

    msg = "the guest's filesystems were not frozen: {self.reason}"
    remedy = "{self.advice}"

    reason: str
    asked: bool = False
    """Whether the agent was asked to, so that it may have begun, or may do it later."""
    advice: str = (
        "Check that qemu-guest-agent runs in the guest and that its channel is there, or do "
        "without: `--quiesce try`."
    )


class NotThawed(Failed):
    """The guest may still be frozen: its agent did not confirm the thaw."""

    msg = "the guest has not confirmed that its filesystems are thawed: {self.reason}"
    remedy = (
        "A helper process goes on trying for ten minutes. By hand: `virsh domfsthaw GUEST`, or "
        "`guest-fsfreeze-thaw` at the agent's socket; where the agent does not answer, restart "
        "qemu-guest-agent in the guest first. `qmpsnap chain` shows whether there is a snapshot."
    )
    changed = "unknown"

    reason: str


class NotConsistent(Failed):
    """The snapshot was taken, but the freeze that was required did not hold."""

    msg = "there is a snapshot ({self.files}), but the guest was not frozen all the while: {self.reason}"
    remedy = "It is crash-consistent. Delete it and take another one, or keep it as it is."

    files: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Moment:
    """How it went; filled in while it goes."""

    frozen: int = 0
    """Filesystems."""
    frozen_s: float | None = None
    """Seconds; None when it was not frozen."""
    notes: list[str] = field(default_factory=list)
    broken: str | None = None
    """Why a freeze that was there is not proven to have held."""
    not_thawed: NotThawed | None = None

    @property
    def consistency(self) -> Consistency:
        """What can be said of a snapshot taken in this moment."""
        return "filesystem" if self.frozen and self.broken is None else "crash"


@contextmanager
def frozen(guest: Guest, quiesce: Quiesce, moment: Moment) -> Iterator[None]:
    """
    Freeze the guest for the length of a block, as asked for, and thaw it whatever happens.

    Args:
        guest: The guest.
        quiesce: What is asked for.
        moment: Filled in with how it goes.

    Raises:
        CannotFreeze: Required and not possible; the block was not entered, the guest is thawed.
        NotThawed: The same, and whether the guest is thawed is not known.
        BaseException: Whatever the block raises. The guest has been thawed; `moment` has how.
    """
    try:
        never = quiesce.policy is Policy.NEVER
        steps = None if never else freeze_steps(guest, quiesce, guest.state().run)
    except CannotFreeze as error:
        if quiesce.policy is Policy.REQUIRE:
            raise
        moment.notes.append(f"{error}; the snapshot is crash-consistent")
        steps = None
    if steps is None:
        yield
        return
    freeze, thaw = steps
    asked = True  # set before: a Ctrl-C may come before the reply
    try:
        try:
            moment.frozen = _count(guest.take(freeze))
            if not moment.frozen:
                raise CannotFreeze(
                    "it has none that can be frozen",
                    asked=True,
                    advice="Do without: `--quiesce try`.",
                )
        except CannotFreeze as error:
            asked = False
            if error.asked:
                _thaw(guest, thaw, moment)
            if quiesce.policy is Policy.REQUIRE:
                raise (moment.not_thawed or error) from error
            moment.notes.append(f"{error}; the snapshot is crash-consistent")
        yield
    finally:
        if asked:
            _thaw(guest, thaw, moment)


def freeze_steps(guest: Guest, quiesce: Quiesce, run: str | None) -> tuple[Step, Step]:
    """
    What freezes and what thaws.

    Args:
        guest: The guest.
        quiesce: What is asked for.
        run: The state in which the guest is.

    Raises:
        CannotFreeze: There is nobody to ask. The agent of a guest that does not run is not waited
            for.
    """
    silent = why_silent(run)
    if silent is not None:
        raise CannotFreeze(silent, advice=how_to_be_heard(run))
    return guest.compose.freeze(quiesce.limit_s)


def _count(answer: object) -> int:
    return answer if isinstance(answer, int) else 0


def _thaw(guest: Guest, thaw: Step, moment: Moment) -> None:
    try:
        thawed = guest.take(thaw)
    except NotThawed as error:
        moment.not_thawed = error
        moment.broken = error.reason
        moment.notes.append(str(error))
        return
    except KeyboardInterrupt:
        moment.broken = "it was interrupted"
        raise
    if not isinstance(thawed, Thawed):
        return
    moment.frozen_s = thawed.frozen_s
    if thawed.problem is not None:
        moment.broken = thawed.problem
    elif thawed.count < moment.frozen:
        moment.broken = f"of {moment.frozen} frozen filesystems {thawed.count} were still frozen"
    if moment.broken and moment.frozen:
        moment.notes.append(f"the freeze did not hold: {moment.broken}")
