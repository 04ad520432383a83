"""Whether a status update is accepted, and what compute's report comes to. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.ledger.chain import Chain, Effect, contradiction
from qmpsnap.ledger.machine import TABLE, Event, State
from qmpsnap.ledger.values import (
    REPORTED,
    Answer,
    File,
    Format,
    Kind,
    Operation,
    Place,
    Statement,
    Update,
    Witness,
)

TOKEN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
"""Tokens that may be ours; nothing else is looked up in a database."""


class Reason(StrEnum):
    """Why an update was refused."""

    NOT_A_SERVICE = "not-a-service"
    UNKNOWN_SNAPSHOT = "unknown-snapshot"
    """The ledger knows of no operation on it."""
    NOTHING_WAITS = "nothing-waits"
    """No operation on the snapshot is at compute."""
    OTHER_OPERATION = "other-operation"
    """The token is not that of the operation that waits."""
    ANSWERED = "answered"
    """The operation has had another answer already."""
    STATUS = "status"
    """The status is not one that this operation can come to."""
    FOREIGN_FILE = "foreign-file"
    FORMAT = "format"
    FORMATS_OUT_OF_PLACE = "formats-out-of-place"
    """Formats stand beside a status that says of no file that it has changed."""


class Accepted(msgspec.Struct, frozen=True):
    """The update belongs to this operation, and means this event."""

    operation: str
    event: Event
    again: bool = False
    """The same update was accepted before: nothing happens a second time."""
    is_doubted: bool = False
    """It may be about an earlier call, so it ends nothing: the headers decide."""


class Rejected(msgspec.Struct, frozen=True):
    """The update changes nothing."""

    reason: Reason
    detail: str


Verdict = Accepted | Rejected


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What an update is held against."""

    state: State
    operation: Operation | None
    """The snapshot's newest operation."""
    answer: Answer | None
    """What that one was answered with."""
    allowed: frozenset[str] = frozenset()
    """Files that a report on it may name."""
    calls: int = 1
    """Calls of compute whose end this may be."""


def judge(update: Update, standing: Standing | None) -> Verdict:
    """
    Accept an update, or refuse it.

    Without a token (stock compute sends none) it is meant for the operation that waits now. When
    several calls to delete the snapshot may be at work, it is doubted. With it, that the operation is
    done is said again where the headers have told so before compute did.
    """
    if not update.is_service:
        return Rejected(Reason.NOT_A_SERVICE, update.by)
    if standing is None or standing.operation is None:
        return Rejected(Reason.UNKNOWN_SNAPSHOT, "")
    operation = standing.operation
    if update.operation not in (None, operation.token):
        return Rejected(Reason.OTHER_OPERATION, repr(update.operation)[:80])
    event = meaning(update, operation)
    if event is None:
        wanted = "creating" if operation.kind is Kind.CREATE else "deleting"
        return Rejected(Reason.STATUS, f"{update.status[:40]!r} in answer to {wanted}")
    wrong = next(_wrong_formats(update, event, standing.allowed), None)
    if wrong is not None:
        return wrong
    answer = standing.answer
    if answer is not None:
        said = (answer.status, dict(answer.file_format))
        if said == (update.status, dict(update.file_format)):
            return Accepted(operation.token, event, again=True)
        if update.operation is not None and event is Event.COMPLETE and _is_bare(answer):
            return Accepted(operation.token, event, again=True)
        return Rejected(Reason.ANSWERED, f"{answer.status} before, {update.status} now")
    if (standing.state, event) not in TABLE or standing.state.control.value != "compute":
        return Rejected(Reason.NOTHING_WAITS, f"the snapshot is {standing.state.word}")
    several = update.operation is None and standing.calls > 1 and operation.kind is not Kind.CREATE
    return Accepted(operation.token, event, is_doubted=several and event is not Event.RUNNING)


def _is_bare(answer: Answer) -> bool:
    """Whether it says no more than that the operation is done: the headers may have told it first."""
    return not answer.file_format and not answer.status.startswith("error")


def meaning(update: Update, operation: Operation) -> Event | None:
    """
    What a status says of an operation; None where it is none that it can come to.

    Stock compute reports the end as `creating` or `deleting` with progress 90 %. With any other
    progress these say that it is at work.
    """
    running, failed = (
        ("creating", "error") if operation.kind is Kind.CREATE else ("deleting", "error_deleting")
    )
    if update.status == f"{running}_compute_complete":
        return Event.COMPLETE
    if update.status == running:
        return Event.COMPLETE if update.progress == "90%" else Event.RUNNING
    return Event.FAILED if update.status == failed else None


def _wrong_formats(update: Update, event: Event, allowed: frozenset[str]) -> Iterator[Rejected]:
    if update.file_format and event is not Event.COMPLETE:
        yield Rejected(Reason.FORMATS_OUT_OF_PLACE, update.status)
    for name, said in update.file_format.items():
        if name not in allowed:
            yield Rejected(Reason.FOREIGN_FILE, repr(name)[:200])
        if said not in REPORTED:
            yield Rejected(Reason.FORMAT, f"{name}: {said!r}"[:200])


def recorded(
    chain: Chain[File], effect: Effect, operation: Operation, answer: Answer | None
) -> Sequence[tuple[Statement, bool]]:
    """
    What the ledger states once an operation has succeeded: each with whether it is believed.

    Args:
        chain: Before it.
        effect: What it must leave.
        operation: The operation.
        answer: Compute's; None where the volume service did it by itself.
    """
    said = {} if answer is None else {file: Format(one) for file, one in answer.file_format.items()}
    known = {one.file: one for one in (*chain.beside, *chain.layers)}
    found: list[tuple[Statement, bool]] = []
    for file in dict.fromkeys((*effect.leaves, *effect.backing, *said)):
        told = said.get(file)
        if file == effect.goes:
            before: Statement = replace(known[file].statement, place=Place.LEFT)
        else:
            before = _before(file, chain, effect, known.get(file))
        must = effect.leaves.get(file) or before.format
        after = replace(before, format=must, operation=operation.token)
        if must is None and told is not None:
            stated = replace(after, format=told, witness=Witness.COMPUTE, detail="")
            if contradiction(None, stated) is None:
                after = stated
        elif told is not None and told is must:
            after = replace(after, witness=Witness.COMPUTE, detail="")
        elif answer is None and file in effect.leaves:
            after = replace(after, witness=Witness.MADE, detail="")
        elif file in effect.leaves:
            detail = f"compute said {told}" if told else "compute sent no format of it"
            after = replace(after, witness=Witness.RULE, detail=detail)
        changed = file in effect.leaves or file in effect.backing
        if file != effect.goes and (changed or after.format is not before.format):
            found.append((after, True))
        if told is not None and told is not after.format:
            heard = replace(after, format=told, witness=Witness.COMPUTE, detail=str(operation.kind))
            found.append((heard, False))
    if effect.goes is not None:
        gone = replace(known[effect.goes].statement, place=Place.LEFT, operation=operation.token)
        found.append((gone, True))
    return found


def _before(file: str, chain: Chain[File], effect: Effect, known: File | None) -> Statement:
    """What stands of a file that stays or comes, with its place in the chain afterwards."""
    active = chain.active
    size = max((one.size for one in chain.layers if one.size is not None), default=None)
    if known is None:
        plain = Statement(
            file=file,
            format=None,
            base=False,
            backing=None,
            place=Place.CHAIN,
            encrypted=active.encrypted,
            witness=Witness.MADE,
        )
    else:
        plain = replace(known.statement, place=Place.CHAIN)
    grows = file in effect.leaves
    return replace(
        plain,
        backing=effect.backing.get(file, plain.backing),
        size=size if grows else plain.size,
    )
