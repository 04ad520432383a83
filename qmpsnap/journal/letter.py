"""
A letter: what the volume service is to be told of one call, and how far that has come. Pure.

    due ─► waiting ─► accepted ─► closed
                └──► dead ─► dropped

It is due from the moment the call arrives, so that a process that is killed at any later moment
leaves it behind. What is told is stored in the transaction that concludes the operation.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from qmpsnap.journal.record import Conclusion

Kind = Literal["create", "delete"]
State = Literal["due", "waiting", "accepted", "closed", "dead", "dropped"]
OPEN: Final[tuple[State, ...]] = ("due", "waiting", "accepted")
"""What somebody still has to see to."""
DUE: Final[tuple[State, ...]] = ("due",)
WAITING: Final[tuple[State, ...]] = ("waiting",)
CINDER: Final = "cinder"


class Addressee(msgspec.Struct, frozen=True, kw_only=True):
    """Who waits for an update, and what follows when it has been accepted."""

    snapshot: str
    """Id of the snapshot, as the volume service has it."""
    volume: str
    project: str | None = None
    """Id of the project that they belong to; None: the one of whoever sends it."""
    to: str = CINDER
    """Where it is sent: `cinder`, or `file:PATH`."""
    after: dict[str, str] = msgspec.field(default_factory=dict)
    """What the caller needs to do its part once the update has been accepted; empty: nothing. It
    is kept until that is done, also over a restart."""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a letter when the call arrives."""

    kind: Kind
    addressee: Addressee
    token: str | None = None
    """The caller's name for the operation."""
    since: float
    """Seconds after 1970, as in all times here."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """What is told. Never of an outcome that is not known: until then there is none."""

    outcome: Literal["done", "failed"]
    file_format: dict[str, str] = msgspec.field(default_factory=dict)
    """Format by bare name, of every file that changed."""
    why: str | None = None
    """Of a failure; for people, it is not sent."""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as the journal has it."""

    number: int
    """The order in which the calls arrived."""
    id: str
    due: Due
    state: State
    operation: str | None = None
    """The operation in the journal; None: nothing was begun."""
    content: Content | None = None
    changed: float
    """When the state became what it is."""
    attempts: int = 0
    is_unsure: bool = False
    """Whether an attempt may have been accepted without an answer that was heard."""
    next_try: float = 0.0
    seen: str | None = None
    """When the service had last changed the snapshot, in its own words, before the first try
    of which it is not known whether it was accepted."""
    answer: str | None = None
    """The last one, in short."""


def content_of(end: Conclusion) -> Content:
    """What is told of an operation that was concluded."""
    if end.outcome == "finished":
        return Content(outcome="done", file_format=end.file_format)
    return Content(outcome="failed", why=end.message or end.outcome)
