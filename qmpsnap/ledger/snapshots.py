"""What the ledger holds of snapshots and of the operations on them."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from qmpsnap.ledger import tables
from qmpsnap.ledger.locking import OnConnection, printable, shared, time_now
from qmpsnap.ledger.machine import WAITED_FOR, State
from qmpsnap.ledger.values import Answer, Intent, Kind, Operation, Snapshot

_STATES = tables.snapshots
_INTENTS = tables.operations
ENDED: Final = "one of several calls has ended: "
"""How the reason of a state begins that a call of compute has left unsettled."""
MISSED: Final = "compute has started again, and does not know of it"
"""The reason of a state in which compute is to be asked again."""


FLUSHED_S: Final = 30.0
"""So long our compute may need for its flush, once the headers show that a merge is done."""


def are_headers_enough(why: str, shown_for_s: float) -> bool:
    """
    Whether headers that show a merge as done end the wait for compute.

    A stock one, which sends no token, does not say which of several calls it answers for. Ours does,
    and not before it has seen that what was merged is flushed, which comes after the header.

    Args:
        why: The reason of the snapshot's state.
        shown_for_s: Seconds since they were first seen to.
    """
    return why.startswith(ENDED) or shown_for_s >= FLUSHED_S


class Snapshots(OnConnection):
    """States of snapshots, operations, and what these were answered."""

    def snapshot(self, snapshot: str, *, now: bool = False) -> Snapshot | None:
        """
        The newest state of a snapshot; None where the ledger knows none.

        Args:
            snapshot: Its id.
            now: See what others have committed even if this transaction has looked before (MySQL
                shows a transaction what was there at its first look, unless it asks for a lock).
        """
        query = (
            sa.select(_STATES)
            .where(_STATES.c.snapshot == snapshot)
            .order_by(_STATES.c.id.desc())
            .limit(1)
        )
        row = self.connection.execute(shared(query, now)).first()
        return None if row is None else _snapshot(row)

    def snapshots(self, volume: str | None = None) -> tuple[Snapshot, ...]:
        """The newest state of every snapshot, or of every one of a volume."""
        last = sa.select(sa.func.max(_STATES.c.id)).group_by(_STATES.c.snapshot)
        if volume is not None:
            last = last.where(_STATES.c.volume == volume)
        query = (
            sa.select(_STATES)
            .where(_STATES.c.id.in_(last))
            .order_by(_STATES.c.volume, _STATES.c.snapshot)
        )
        return tuple(_snapshot(row) for row in self.connection.execute(query))

    def states(self, volume: str) -> tuple[Snapshot, ...]:
        """Every state that the snapshots of a volume have been in, oldest first."""
        query = sa.select(_STATES).where(_STATES.c.volume == volume).order_by(_STATES.c.id)
        return tuple(_snapshot(row) for row in self.connection.execute(query))

    def operation(self, token: str, *, now: bool = False) -> Operation | None:
        """The operation of this token; `now` as for `snapshot`."""
        query = sa.select(_INTENTS).where(_INTENTS.c.token == token)
        row = self.connection.execute(shared(query, now)).first()
        return None if row is None else _operation(row)

    def open_operations(
        self, *, host: str | None = None, volume: str | None = None
    ) -> tuple[Operation, ...]:
        """
        Operations that are not settled, oldest first.

        Args:
            host: Of this back end; None: of all.
            volume: On this volume; None: on all.
        """
        tokens = [
            one.operation for one in self.snapshots(volume) if one.state.is_open and one.operation
        ]
        query = sa.select(_INTENTS).where(_INTENTS.c.token.in_(tokens))
        if host is not None:
            query = query.where(_INTENTS.c.host == host)
        query = query.order_by(_INTENTS.c.begun, _INTENTS.c.token)
        return tuple(_operation(row) for row in self.connection.execute(query))

    def answer(self, token: str, *, now: bool = False) -> Answer | None:
        """What compute answered to an operation: an update that ends it, accepted."""
        query = sa.select(tables.inbox).where(tables.inbox.c.operation == token)
        row = self.connection.execute(shared(query, now)).first()
        if row is None:
            return None
        return Answer(
            id=row.id,
            operation=row.operation,
            status=row.status,
            file_format=dict(row.file_format),
            is_named=row.named,
            by=row.sender,
            at=row.at,
        )

    def asked(self, operation: Operation) -> int:
        """How often compute was asked for an operation."""
        return _asked(operation.token, self._states_of(operation.snapshot))

    def calls(self, operation: Operation) -> int:
        """
        Count the calls to compute for this snapshot, of one kind, whose end is not known.

        Calls of abandoned operations count too, because an answer without a token may belong to any
        of them. Our own compute side sends the token, and by then has ended all calls of the operation.
        """
        creates = operation.kind is Kind.CREATE
        query = sa.select(_INTENTS).where(_INTENTS.c.snapshot == operation.snapshot)
        known = [_operation(row) for row in self.connection.execute(query).all()]
        states = self._states_of(operation.snapshot)
        ended = [one.operation for one in states if one.why.startswith(ENDED)]
        calls = 0
        for one in known:
            answer = self.answer(one.token)
            if (one.kind is Kind.CREATE) is not creates or (answer and answer.is_named):
                continue
            heard = ended.count(one.token) + (answer is not None)
            calls += max(_asked(one.token, states) - heard, 0)
        return calls

    def _states_of(self, snapshot: str) -> list[Snapshot]:
        query = sa.select(_STATES).where(_STATES.c.snapshot == snapshot).order_by(_STATES.c.id)
        return [_snapshot(row) for row in self.connection.execute(query)]

    def _moved(self, before: Snapshot, state: State, why: str = "") -> Snapshot:
        return self._put(before.volume, before.snapshot, state, before.operation, why)

    def _put(
        self, volume: str, snapshot: str, state: State, operation: str | None, why: str
    ) -> Snapshot:
        why = printable(why)
        row = {
            "at": time_now(),
            "volume": volume,
            "snapshot": snapshot,
            "state": state.word,
            "control": state.control.value,
            "operation": operation,
            "why": why,
        }
        self.connection.execute(sa.insert(_STATES).values(row))
        return Snapshot(
            volume=volume,
            snapshot=snapshot,
            state=state,
            operation=operation,
            why=why,
            at=row["at"],  # type: ignore[arg-type]
        )

    def _intend(self, intent: Intent, token: str) -> Operation:
        named = {one: getattr(intent, one) for one in Intent.__struct_fields__}
        begun = time_now()
        row = {**named, "kind": intent.kind.value, "token": token, "begun": begun}
        self.connection.execute(sa.insert(_INTENTS).values(row))
        return Operation(**named, token=token, begun=begun)


def _asked(token: str, states: list[Snapshot]) -> int:
    return sum(
        one.operation == token
        and one.state in WAITED_FOR
        and not one.why.startswith(ENDED)
        and one.why != MISSED
        for one in states
    )


def _snapshot(row: sa.Row[Any]) -> Snapshot:
    return Snapshot(
        volume=row.volume,
        snapshot=row.snapshot,
        state=State.of(row.state),
        operation=row.operation,
        why=row.why,
        at=row.at,
    )


def _operation(row: sa.Row[Any]) -> Operation:
    named = dict(row._mapping)
    return Operation(**named | {"kind": Kind(named["kind"])})
