"""
The letters in the journal's database; see `letter`.

Few of these writes are synced by themselves. A power cut that takes one leaves a letter that is
sent again, which is harmless, or an operation that is settled again; the first intent of an
operation is synced, and with it the letter that is due for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from qmpsnap.journal.letter import OPEN, Content, Due, Letter, State, content_of
from qmpsnap.journal.record import Conclusion, Unreadable, dumps, loads

KEEP: Final = 1000
"""Letters that are closed or dropped."""
_COLUMNS: Final = (
    "number, id, due, state, operation, content, changed, attempts, is_unsure, next_try, seen, "
    "answer"
)
_UNDER_WAY: Final = """COALESCE(
    (SELECT id FROM operation WHERE ended IS NULL AND json_extract(record, '$.token') = ?),
    (SELECT operation FROM letter WHERE snapshot = ? AND state = 'due'
     AND operation IN (SELECT id FROM operation WHERE ended IS NULL)
     AND json_extract(due, '$.kind') = ? ORDER BY number DESC LIMIT 1))"""
"""The open operation that a call asks for again: by its token, or of its snapshot and kind."""
_ENDED: Final[tuple[State, ...]] = ("closed", "dropped")


class Database(Protocol):
    """What a `Store` gives."""

    version: int
    notes: list[str]

    def telling(self) -> AbstractContextManager[sqlite3.Connection]:
        """Say in our words what SQLite says."""

    def writing(self, *, synced: bool = True) -> AbstractContextManager[sqlite3.Connection]:
        """One transaction."""


class Letters:
    """The letters of one journal, over one connection to it."""

    def __init__(self, database: Database) -> None:
        """Read nothing yet."""
        self._database = database

    def expect(self, id_: str, due: Due) -> None:
        """
        Note that the volume service waits for an update.

        Where it has asked before, and that operation is open, the letter tells of that one: if this
        call dies, or does not reach the guest, the merge that goes on is not told as failed.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing(synced=False) as database:
            database.execute(
                "INSERT INTO letter (id, snapshot, volume, state, changed, due, operation) VALUES "
                f"(?, ?, ?, 'due', ?, ?, {_UNDER_WAY})",
                (
                    *(id_, due.addressee.snapshot, due.addressee.volume, due.since, dumps(due)),
                    *(due.token, due.addressee.snapshot, due.kind),
                ),
            )

    def answer(self, id_: str, content: Content, now: float) -> bool:
        """
        Write down what is to be told.

        Returns:
            False where that was written down before, or is not known: its operation is open.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing() as database:
            return _answer(database, "id", id_, content, now)

    def join(self, id_: str, operation: str, now: float) -> None:
        """
        Let a letter tell of an operation that another call has begun, and may have concluded.

        One that the journal does not hold would never be told of: then the letter stays the call's.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing(synced=False) as database:
            row = database.execute(
                "SELECT ended, conclusion FROM operation WHERE id = ?", (operation,)
            ).fetchone()
            if row is None:
                return
            link(database, id_, operation)
            if row[0] is not None:
                _answer(database, "id", id_, content_of(loads(row[1], Conclusion)), now)

    def trying(self, id_: str, seen: str | None = None) -> None:
        """
        Note that a letter is about to be sent: from now on it may have been accepted.

        Args:
            id_: The letter.
            seen: See `Letter.seen`.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing(synced=False) as database:
            database.execute(
                "UPDATE letter SET attempts = attempts + 1, is_unsure = 1, seen = ? WHERE id = ?",
                (seen, id_),
            )

    def renew(self, id_: str) -> bool:
        """
        Let a dead letter wait again; False where it is not dead, or has no content.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing(synced=False) as database:
            done = database.execute(
                "UPDATE letter SET state = 'waiting', next_try = 0 WHERE id = ? AND state = 'dead' "
                "AND content IS NOT NULL",
                (id_,),
            )
        return done.rowcount == 1

    def drop(self, id_: str, now: float) -> bool:
        """
        Never send a letter; False where it has ended, or is due.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing() as database:
            done = database.execute(
                "UPDATE letter SET state = 'dropped', changed = ?, answer = 'somebody has dropped "
                "it' WHERE id = ? AND state IN ('waiting', 'dead', 'accepted')",
                (now, id_),
            )
        return done.rowcount == 1

    def note(
        self,
        id_: str,
        state: State,
        *,
        answer: str | None,
        now: float,
        is_unsure: bool = False,
        next_try: float = 0.0,
    ) -> None:
        """
        Write down what came of sending a letter; one that was dropped meanwhile waits no more.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._database.writing(synced=False) as database:
            database.execute(
                "UPDATE letter SET state = ?, answer = ?, changed = CASE state WHEN ? THEN changed "
                "ELSE ? END, is_unsure = ?, next_try = ? WHERE id = ? AND (state <> 'dropped' OR ? <> "
                "'waiting')",
                (state, answer, state, now, is_unsure, next_try, id_, state),
            )

    def find(
        self,
        states: Collection[State] = OPEN,
        *,
        ids: Collection[str] = (),
        snapshot: str | None = None,
        volume: str | None = None,
    ) -> tuple[Letter, ...]:
        """
        Letters in the order in which their calls arrived; see the store's `notes` for damaged ones.

        Args:
            states: In one of these states.
            ids: Only these; empty: all.
            snapshot: Of this snapshot only.
            volume: Of this volume only.

        Raises:
            JournalUnusable: None can be read.
        """
        if self._database.version < 2:
            return ()
        wanted = {"state": states, "id": ids, "snapshot": _one(snapshot), "volume": _one(volume)}
        terms = [(name, tuple(values)) for name, values in wanted.items() if values]
        where = " AND ".join(f"{name} IN ({', '.join('?' * len(v))})" for name, v in terms)
        with self._database.telling() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM letter WHERE {where or 1} ORDER BY number",
                [value for _, values in terms for value in values],
            ).fetchall()
        return tuple(self._read(rows))

    def _read(self, rows: list[tuple[object, ...]]) -> Iterator[Letter]:
        for row in rows:
            try:
                yield _letter(*row)
            except (Unreadable, TypeError) as error:
                self._database.notes.append(f"letter {row[1]} cannot be read: {error}")


def link(database: sqlite3.Connection, letter: str, operation: str) -> None:
    """Note which operation a letter tells of; part of a transaction."""
    database.execute("UPDATE letter SET operation = ? WHERE id = ?", (operation, letter))


def answer_of_operation(database: sqlite3.Connection, operation: str, end: Conclusion) -> None:
    """Write down what is to be told of an operation that is being concluded, in its transaction."""
    _answer(database, "operation", operation, content_of(end), end.ended)


def prune_letters(database: sqlite3.Connection, before: float) -> None:
    """Forget the oldest that have ended; no others, ever."""
    database.execute(
        "DELETE FROM letter WHERE state IN (?, ?) AND (changed < ? OR number IN (SELECT number FROM "
        "letter WHERE state IN (?, ?) ORDER BY number DESC LIMIT -1 OFFSET ?))",
        (*_ENDED, before, *_ENDED, KEEP),
    )


def _answer(
    database: sqlite3.Connection, column: str, value: str, content: Content, now: float
) -> bool:
    done = database.execute(
        f"UPDATE letter SET state = 'waiting', content = ?, changed = ? WHERE {column} = ? AND "
        "state = 'due' AND (operation IS NULL OR operation NOT IN (SELECT id FROM operation WHERE "
        "ended IS NULL))",
        (dumps(content), now, value),
    )
    return done.rowcount > 0


def _one(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


def _letter(*row: object) -> Letter:
    number, id_, due, state, operation, content, changed, attempts, unsure, next_try, seen, said = (
        row
    )
    return Letter(
        number=number,  # type: ignore[arg-type]
        id=id_,  # type: ignore[arg-type]
        due=loads(due, Due),  # type: ignore[arg-type]
        state=state,  # type: ignore[arg-type]
        operation=operation,  # type: ignore[arg-type]
        content=None if content is None else loads(content, Content),  # type: ignore[arg-type]
        changed=changed,  # type: ignore[arg-type]
        attempts=attempts,  # type: ignore[arg-type]
        is_unsure=bool(unsure),
        next_try=next_try,  # type: ignore[arg-type]
        seen=seen,  # type: ignore[arg-type]
        answer=said,  # type: ignore[arg-type]
    )
