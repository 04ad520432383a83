"""The ledger in one transaction: what the volume service, the API and a person do with it."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from qmpsnap.ledger import tables
from qmpsnap.ledger.judge import TOKEN, Accepted, Reason, Rejected, Standing, Verdict, judge
from qmpsnap.ledger.locking import printable, time_now
from qmpsnap.ledger.machine import TABLE, Event
from qmpsnap.ledger.operations import Operations
from qmpsnap.ledger.snapshots import ENDED
from qmpsnap.ledger.values import Place, Presence, Refusal, Snapshot, Update

_KEPT: Final = 500
"""Characters of a refusal's detail."""


class Ledger(Operations):
    """
    A ledger on a connection, in the connection's transaction.

    Reads may be used by everybody. `begin` to `fail`, `state`, `removed` and `forget` are for the
    volume service alone, `accept` for the API. Make it by `Store`, or of the connection whose
    transaction it is to share.
    """

    def accept(self, update: Update) -> Verdict:
        """
        Judge a status update, and keep it: in the inbox, or counted among those refused.

        In the transaction that sets Cinder's row. Commit it whatever the verdict is, and only then
        answer.
        """
        verdict = self._judged(update)
        if isinstance(verdict, Rejected):
            self.refuse(update.snapshot, verdict.reason, verdict.detail)
        return verdict

    def _judged(self, update: Update) -> Verdict:
        if not update.is_service:
            return judge(update, None)
        if not TOKEN.fullmatch(update.snapshot):
            return Rejected(Reason.UNKNOWN_SNAPSHOT, "")
        if not self.lock_known(update.volume):
            return judge(update, None)
        before = self.snapshot(update.snapshot, now=True)
        if before is None or before.volume != update.volume:
            return judge(update, None)
        verdict = judge(update, self._standing(before, is_named=update.operation is not None))
        if isinstance(verdict, Accepted) and not verdict.again:
            self._take(update, before, verdict)
        return verdict

    def _standing(self, before: Snapshot, *, is_named: bool) -> Standing:
        operation = None if before.operation is None else self.operation(before.operation)
        if operation is None:
            return Standing(state=before.state, operation=None, answer=None)
        held = self._newest(before.volume)
        names = operation.names | {one.file for one in held if one.place is Place.CHAIN}
        return Standing(
            state=before.state,
            operation=operation,
            answer=self.answer(operation.token, now=True),
            allowed=names,
            calls=1 if is_named else self.calls(operation),
        )

    def _take(self, update: Update, before: Snapshot, verdict: Accepted) -> None:
        if verdict.is_doubted and verdict.event is Event.FAILED:
            self._heard(before, "compute reports that it failed")
            return
        if verdict.is_doubted:
            self._moved(before, before.state, f"{ENDED}compute reports that it is done")
            return
        if verdict.event is not Event.RUNNING:
            row = {
                "at": time_now(),
                "operation": verdict.operation,
                "status": update.status,
                "file_format": dict(update.file_format),
                "named": update.operation is not None,
                "sender": printable(update.by, 255),
            }
            self.connection.execute(sa.insert(tables.inbox).values(row))
        after = TABLE[before.state, verdict.event]
        if after is not before.state:
            failed = verdict.event is Event.FAILED
            self._moved(before, after, "compute reports that it failed" if failed else "")
            operation = None if before.operation is None else self.operation(before.operation)
            if failed and operation is not None:  # whether or not anybody still waits for it
                self._place_failed(operation)

    def refuse(self, snapshot: str, reason: Reason, detail: str = "") -> None:
        """Count an update that was refused, here or before it came here (by policy)."""
        row = tables.refusals
        key = {"snapshot": printable(snapshot, 255), "reason": reason.value}
        said = {"detail": printable(detail, _KEPT), "last": time_now()}
        again = (
            sa.update(row)
            .where(row.c.snapshot == key["snapshot"], row.c.reason == key["reason"])
            .values(times=row.c.times + 1, **said)
        )
        self._change_or_add(
            again, sa.insert(row).values(times=1, first=said["last"], **key, **said)
        )

    def refusals(self) -> tuple[Refusal, ...]:
        """Every reason for which updates were refused, with how often."""
        row = tables.refusals
        query = sa.select(row).order_by(row.c.snapshot, row.c.reason)
        return tuple(Refusal(**one._mapping) for one in self.connection.execute(query))

    def present(self, kind: str, host: str, version: str) -> None:
        """Say that a process of ours has started here."""
        row = tables.presence
        said = {"version": version, "at": time_now()}
        again = sa.update(row).where(row.c.kind == kind, row.c.host == host).values(**said)
        self._change_or_add(again, sa.insert(row).values(kind=kind, host=host, **said))

    def presences(self) -> tuple[Presence, ...]:
        """Processes of ours, by kind and host, each with its newest start."""
        row = tables.presence
        query = sa.select(row).order_by(row.c.kind, row.c.host)
        return tuple(Presence(**one._mapping) for one in self.connection.execute(query))
