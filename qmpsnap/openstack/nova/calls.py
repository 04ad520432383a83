"""
What is known of one call of Nova's, from its beginning to its report.

Nova has fixed the arguments of the functions in between: the one that takes the snapshot is not
told its id, and the one that sends the status is told nothing but that. So each call has a record
of its own; calls in other threads do not see it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from qmpsnap.journal.letter import Addressee
from qmpsnap.service import Update
from qmpsnap.status import Operation


@dataclass(slots=True, kw_only=True)
class Call:
    """One call of the driver."""

    operation: Operation
    context: Any
    """Nova's request context."""
    volume: str
    snapshot: str
    info: Mapping[str, object]
    """`create_info` or `delete_info`."""
    update: Update | None = None
    """What Cinder is to be told; None: not known yet."""

    @property
    def has_letter(self) -> bool:
        """Whether its update is stored, and what follows with it."""
        return self.update is not None and self.update.letter is not None

    def addressee(self, instance: Any) -> Addressee:
        """Who waits for the update, and whose connection_info is to be refreshed afterwards."""
        return Addressee(
            snapshot=self.snapshot,
            volume=self.volume,
            project=self.context.project_id,
            after={"instance": instance.uuid},
        )


_CURRENT: Final[ContextVar[Call | None]] = ContextVar("qmpsnap_nova_call", default=None)


@contextmanager
def begun(call: Call) -> Iterator[Call]:
    """Let a call be the current one of this thread."""
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)


def current() -> Call | None:
    """The call that this thread is in; None: none that has come in by the front door."""
    return _CURRENT.get()
