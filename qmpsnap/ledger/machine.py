"""
The states of a snapshot, who has control in each, and what leads from one to another. Pure.

`control` answers the specification's question, whether compute is at work or the volume service
has the snapshot again. A state is not Cinder's status: `*_compute_complete` is never written into
Cinder's table, which answers HTTP 500 to such a row; `State.status` is what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final


class Control(StrEnum):
    """Who acts next on a snapshot."""

    VOLUME = "volume"
    COMPUTE = "compute"
    NOBODY = "nobody"
    """It is deleted."""


class State(Enum):
    """A snapshot's state: name, status in Cinder's table, control."""

    CREATING = ("creating", "creating", Control.VOLUME)
    """The volume service prepares; compute has not been asked."""
    CREATING_AT_COMPUTE = ("creating_at_compute", "creating", Control.COMPUTE)
    CREATING_COMPUTE_COMPLETE = ("creating_compute_complete", "creating", Control.VOLUME)
    AVAILABLE = ("available", "available", Control.VOLUME)
    ERROR = ("error", "error", Control.VOLUME)
    ERROR_AT_COMPUTE = ("error_at_compute", "error", Control.COMPUTE)
    """The volume service waits no longer; whether compute has done it is not known."""
    DELETING = ("deleting", "deleting", Control.VOLUME)
    DELETING_AT_COMPUTE = ("deleting_at_compute", "deleting", Control.COMPUTE)
    DELETING_COMPUTE_COMPLETE = ("deleting_compute_complete", "deleting", Control.VOLUME)
    ERROR_DELETING = ("error_deleting", "error_deleting", Control.VOLUME)
    ERROR_DELETING_AT_COMPUTE = ("error_deleting_at_compute", "error_deleting", Control.COMPUTE)
    DELETED = ("deleted", "deleted", Control.NOBODY)

    def __init__(self, word: str, status: str, control: Control) -> None:
        self.word = word
        self.status = status
        self.control = control

    @property
    def is_open(self) -> bool:
        """Whether an operation on the snapshot is under way, or not settled."""
        return self not in _SETTLED

    @classmethod
    def of(cls, word: str) -> State:
        """
        The state of this name.

        Raises:
            KeyError: There is none.
        """
        return _BY_WORD[word]


COMPLETE: Final = frozenset({State.CREATING_COMPUTE_COMPLETE, State.DELETING_COMPUTE_COMPLETE})
"""Compute has done its part, and the volume service has not."""
WAITED_FOR: Final = frozenset({State.CREATING_AT_COMPUTE, State.DELETING_AT_COMPUTE})
"""Compute was asked, and the volume service waits for it."""
_SETTLED: Final = frozenset({State.AVAILABLE, State.ERROR, State.ERROR_DELETING, State.DELETED})
_BY_WORD: Final = {state.word: state for state in State}


class Event(StrEnum):
    """What leads from a state to another."""

    BEGIN_CREATE = "begin-create"
    BEGIN_DELETE = "begin-delete"
    HAND_OVER = "hand-over"
    """The volume service asks compute; written down before it does."""
    RUNNING = "running"
    """Compute is at work, or does not know yet how it ended."""
    COMPLETE = "complete"
    """Compute has finished."""
    FAILED = "failed"
    """It did not come about: compute says so, or the volume service could not do its part."""
    GIVE_UP = "give-up"
    """The volume service waits no longer."""
    ABANDON = "abandon"
    """Somebody states that compute is not at work on it, and will not be."""
    FINISH = "finish"
    """The volume service has done its part."""


TABLE: Final[Mapping[tuple[State | None, Event], State]] = {
    (None, Event.BEGIN_CREATE): State.CREATING,
    (State.CREATING, Event.HAND_OVER): State.CREATING_AT_COMPUTE,
    (State.CREATING, Event.FINISH): State.AVAILABLE,
    (State.CREATING, Event.FAILED): State.ERROR,
    (State.CREATING, Event.ABANDON): State.ERROR,
    (State.CREATING_AT_COMPUTE, Event.HAND_OVER): State.CREATING_AT_COMPUTE,
    (State.CREATING_AT_COMPUTE, Event.RUNNING): State.CREATING_AT_COMPUTE,
    (State.CREATING_AT_COMPUTE, Event.COMPLETE): State.CREATING_COMPUTE_COMPLETE,
    (State.CREATING_AT_COMPUTE, Event.FAILED): State.ERROR,
    (State.CREATING_AT_COMPUTE, Event.GIVE_UP): State.ERROR_AT_COMPUTE,
    (State.CREATING_AT_COMPUTE, Event.ABANDON): State.ERROR,
    (State.CREATING_COMPUTE_COMPLETE, Event.FINISH): State.AVAILABLE,
    (State.CREATING_COMPUTE_COMPLETE, Event.FAILED): State.ERROR,
    (State.ERROR_AT_COMPUTE, Event.HAND_OVER): State.CREATING_AT_COMPUTE,
    (State.ERROR_AT_COMPUTE, Event.RUNNING): State.ERROR_AT_COMPUTE,
    (State.ERROR_AT_COMPUTE, Event.COMPLETE): State.CREATING_COMPUTE_COMPLETE,
    (State.ERROR_AT_COMPUTE, Event.FAILED): State.ERROR,
    (State.ERROR_AT_COMPUTE, Event.ABANDON): State.ERROR,
    (None, Event.BEGIN_DELETE): State.DELETING,
    (State.AVAILABLE, Event.BEGIN_DELETE): State.DELETING,
    (State.ERROR, Event.BEGIN_DELETE): State.DELETING,
    (State.ERROR_DELETING, Event.BEGIN_DELETE): State.DELETING,
    (State.DELETING, Event.HAND_OVER): State.DELETING_AT_COMPUTE,
    (State.DELETING, Event.FINISH): State.DELETED,
    (State.DELETING, Event.FAILED): State.ERROR_DELETING,
    (State.DELETING, Event.ABANDON): State.ERROR_DELETING,
    (State.DELETING_AT_COMPUTE, Event.HAND_OVER): State.DELETING_AT_COMPUTE,
    (State.DELETING_AT_COMPUTE, Event.RUNNING): State.DELETING_AT_COMPUTE,
    (State.DELETING_AT_COMPUTE, Event.COMPLETE): State.DELETING_COMPUTE_COMPLETE,
    (State.DELETING_AT_COMPUTE, Event.FAILED): State.ERROR_DELETING,
    (State.DELETING_AT_COMPUTE, Event.GIVE_UP): State.ERROR_DELETING_AT_COMPUTE,
    (State.DELETING_AT_COMPUTE, Event.ABANDON): State.ERROR_DELETING,
    (State.DELETING_COMPUTE_COMPLETE, Event.FINISH): State.DELETED,
    (State.DELETING_COMPUTE_COMPLETE, Event.FAILED): State.ERROR_DELETING,
    (State.ERROR_DELETING_AT_COMPUTE, Event.HAND_OVER): State.DELETING_AT_COMPUTE,
    (State.ERROR_DELETING_AT_COMPUTE, Event.RUNNING): State.ERROR_DELETING_AT_COMPUTE,
    (State.ERROR_DELETING_AT_COMPUTE, Event.COMPLETE): State.DELETING_COMPUTE_COMPLETE,
    (State.ERROR_DELETING_AT_COMPUTE, Event.FAILED): State.ERROR_DELETING,
    (State.ERROR_DELETING_AT_COMPUTE, Event.ABANDON): State.ERROR_DELETING,
}
"""Every step that there is. What is not in it does not happen."""


class Next(StrEnum):
    """What the volume service has to do about an open operation that it finds at its start."""

    ROLL_BACK = "roll-back"
    """Compute was never asked: `fail`; a file made for it may be removed after that."""
    ASK_AGAIN = "ask-again"
    """Compute was asked and has not answered: hand over and call it again with the same token
    (ours answers from its journal, or takes its job up), or go on waiting."""
    RECORD = "record"
    """It is done, by compute or by the volume service itself: `record`, write what follows from
    it, `finish`."""


def after_a_restart(state: State, *, is_recorded: bool = False) -> Next | None:
    """
    What an operation needs; None where it is settled.

    Args:
        state: Of its snapshot.
        is_recorded: Whether the ledger has recorded what it has left (`Operations.is_recorded`).
    """
    if not state.is_open:
        return None
    if state.control is Control.COMPUTE:
        return Next.ASK_AGAIN
    if is_recorded or state in COMPLETE:
        return Next.RECORD
    return Next.ROLL_BACK
