"""
A connection to the journal's database; see `schema` for what is in it.

An act costs one sync: the answer to the last one is written with the next intent. The conclusion
costs one as well. Who asked for the operation is told what it came to, and acts on that; if a power
failure took the conclusion, the operation would be found open, and perhaps be taken back.

Source: sqlite.org/wal.html, sqlite.org/pragma.html (synchronous).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from msgspec.structs import replace

from qmpsnap.journal import schema
from qmpsnap.journal.folder import JournalUnusable
from qmpsnap.journal.letters import Letters, answer_of_operation, link, prune_letters
from qmpsnap.journal.mixed import carried, is_done_by
from qmpsnap.journal.record import Act, Conclusion, Entry, Record, Unreadable, dumps, loads
from qmpsnap.journal.schema import APPLICATION, JournalDamaged, JournalNewer, JournalUnwritable
from qmpsnap.journal.spare import Checked, Spare

KEEP: Final = 1000
"""Operations that have ended; a thousand take 2 MB."""
KEEP_S: Final = 400 * 24 * 3600.0
_IS_REVERT: Final = 'instr(record, \'"kind":"revert"\')'
"""They are kept: what they took out of a chain is to stay whole."""
_IS_MIXING: Final = "instr(conclusion, '\"mixed\":{')"
"""They are kept as well: what is in the files of such a commit is told by nothing else."""
WAIT_S: Final = 10.0
"""For another process that writes just now."""
_NO_CHECKPOINT_ON_CLOSE: Final = 1006
"""SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, sqlite3.h."""
_CLOSED: Final = sqlite3.connect(":memory:", check_same_thread=False)
"""Stands in for the connection of a closed store, so that any later use fails clearly."""
_CLOSED.close()


class Store:
    """One connection to a journal; one thread uses it at a time."""

    def __init__(self, path: Path, *, writes: bool = True, spare: Spare | None = None) -> None:
        """
        Open a journal that is there.

        Args:
            path: The file.
            writes: Whether anything is to be written.
            spare: Where a connection is taken from, and given back to; None: it is a new one, and
                closed at the end.

        Raises:
            JournalDamaged, JournalNewer, JournalUnwritable, JournalUnusable: It cannot be used.
        """
        self._path = str(path)
        self._spare = spare
        self._is_sound = True
        self.notes: list[str] = []
        """What could not be read."""
        self.letters = Letters(self)
        self.version = schema.VERSION
        """Of one that is only looked into, the older one that it may have."""
        self._checked = None if spare is None else spare.taken(self._path)
        if self._checked is None:
            self._database = self._connected("rw" if writes else "ro")
            if spare is not None and writes:
                self._checked = Checked.now(self._database, self._path, spare.clock())
            first = self._check
        else:
            self._database, first = self._checked.database, self._check_again
        try:
            with self.telling():
                first(writes)
        except BaseException:
            self._database.close()
            raise

    def _connected(self, mode: str) -> sqlite3.Connection:
        with self._in_our_words():
            return sqlite3.connect(
                f"file:{quote(os.fsencode(self._path))}?mode={mode}",
                uri=True,
                timeout=WAIT_S,
                isolation_level=None,
                check_same_thread=False,
            )

    def _check(self, writes: bool) -> None:
        if os.stat(self._path).st_size == 0:
            raise JournalDamaged(self._path, "it is empty")
        version = self._checked_version()
        if not writes:
            self.version = version
            return
        ask = self._database.execute
        if ask("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise JournalUnwritable(self._path, "its file system has no write-ahead log")
        if hasattr(self._database, "setconfig"):  # Python 3.12: two syncs less at every end
            self._database.setconfig(_NO_CHECKPOINT_ON_CLOSE, True)
        ask("PRAGMA foreign_keys=ON")
        said = ask("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise JournalDamaged(self._path, said)
        if version < schema.VERSION:
            schema.update(self._database)
        self._try_to_write()

    def _checked_version(self) -> int:
        """Not above ours: a newer program may have updated it while this one kept it open."""
        application, version = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if application != APPLICATION:
            raise JournalDamaged(self._path, "it is another program's database")
        if version > schema.VERSION:
            raise JournalNewer(
                self._path, f"version {version}, and this one writes {schema.VERSION}"
            )
        return int(version)

    def _check_again(self, writes: bool) -> None:
        """What may have changed since somebody else used the same connection."""
        self._checked_version()
        self._database.execute(f"PRAGMA query_only={int(not writes)}")
        if writes:
            self._try_to_write()

    def _try_to_write(self) -> None:
        """As far as it shows now whether it can be written."""
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute("ROLLBACK")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; again: nothing."""
        checked, self._checked = self._checked, None
        if checked is not None and self._spare is not None and self._is_sound:
            self._database = _CLOSED
            self._spare.give(checked)
            return
        with suppress(sqlite3.Error):
            self._database.close()

    @contextmanager
    def telling(self) -> Iterator[sqlite3.Connection]:
        """Use the connection; what SQLite says is said in our words."""
        with self._in_our_words():
            yield self._database

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            self._is_sound = False
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise JournalDamaged(self._path, str(error)) from error
            if name.startswith("SQLITE_CANTOPEN"):
                raise JournalUnusable(self._path, "it cannot be opened") from error
            raise JournalUnwritable(self._path, str(error)) from error
        except OSError as error:
            raise JournalUnusable(self._path, error.strerror or str(error)) from error

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; on disk when it returns, if it is synced."""
        with self.telling():
            self._database.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled it back by itself
                    self._database.execute("ROLLBACK")
                raise

    def begin(self, record: Record, acts: Iterable[Act], letter: str | None = None) -> None:
        """
        Write an operation down, with its first intents.

        Args:
            record: The operation.
            acts: What is going to be done first.
            letter: The letter that tells of it.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self.writing() as database:
            database.execute(
                "INSERT INTO operation (id, begun, record) VALUES (?, ?, ?)",
                (record.id, record.begun, dumps(record)),
            )
            _add(database, record.id, acts)
            if letter is not None:
                link(database, letter, record.id)

    def go_on(self, id_: str, answers: Iterable[tuple[int, str]], acts: Iterable[Act]) -> None:
        """
        Write down what the last acts answered, and the next intents.

        Raises:
            JournalUnusable: As for `begin`.
        """
        with self.writing() as database:
            _answer(database, id_, answers)
            _add(database, id_, acts)

    def conclude(
        self,
        record: Record,
        conclusion: Conclusion,
        answers: Iterable[tuple[int, str]] = (),
        acts: Iterable[Act] = (),
    ) -> bool:
        """
        Write down what an operation came to, and with it the letters that are due for it.

        Returns:
            False where that was written down before.

        Raises:
            JournalUnusable: As for `begin`.
        """
        with self.writing() as database:
            _add(database, record.id, acts)
            _answer(database, record.id, answers)
            done = database.execute(
                "UPDATE operation SET ended = ?, conclusion = ?, record = ? WHERE id = ? AND ended "
                "IS NULL",
                (conclusion.ended, dumps(conclusion), dumps(record.slim), record.id),
            )
            if conclusion.outcome == "finished":
                _mix_again(database, record)
            answer_of_operation(database, record.id, conclusion)
            _prune(database, conclusion.ended)
        return done.rowcount == 1

    def has(self, id_: str) -> bool:
        """
        Whether an operation of this id is there.

        Raises:
            JournalUnusable: It cannot be read.
        """
        with self.telling():
            row = self._database.execute("SELECT 1 FROM operation WHERE id = ?", (id_,)).fetchone()
        return row is not None

    def by_token(self, token: str) -> Iterator[Entry]:
        """
        The operations of a caller's token, without their acts; what cannot be read is left out.

        Raises:
            JournalUnusable: None can be read.
        """
        for entry in self._entries("WHERE instr(record, ?)", token):
            if not isinstance(entry, str) and entry.record.token == token:
                yield entry

    def open_entries(self) -> tuple[Entry, ...]:
        """
        The operations that have not ended, with their acts, oldest first.

        Raises:
            JournalDamaged: One of them cannot be read, so nobody knows what it works on.
            JournalUnusable: None can.
        """
        found = []
        for entry in self._entries("WHERE ended IS NULL ORDER BY begun, id"):
            if isinstance(entry, str):
                raise JournalDamaged(self._path, entry)
            found.append(self._with_acts(entry))
        return tuple(found)

    def reverts(self) -> tuple[Entry, ...]:
        """
        The reverts that have ended, without their acts.

        Raises:
            JournalDamaged: One of them cannot be read, so nobody knows what it keeps.
            JournalUnusable: None can.
        """
        return self._all_sound(_IS_REVERT)

    def mixing(self) -> tuple[Entry, ...]:
        """
        The commits that were begun and not done, without their acts.

        Raises:
            JournalDamaged: One of them cannot be read, so nobody knows what it has written to.
            JournalUnusable: None can.
        """
        return self._all_sound(_IS_MIXING)

    def _all_sound(self, which: str) -> tuple[Entry, ...]:
        found = []
        for entry in self._entries(f"WHERE ended IS NOT NULL AND {which}"):
            if isinstance(entry, str):
                raise JournalDamaged(self._path, entry)
            found.append(entry)
        return tuple(found)

    def entries(self, limit: int = KEEP) -> tuple[Entry, ...]:
        """
        The newest operations, oldest first, without their acts; see `notes` for what is damaged.

        Raises:
            JournalUnusable: None can be read.
        """
        found: list[Entry] = []
        try:
            for entry in self._entries("ORDER BY begun DESC, id DESC LIMIT ?", limit):
                if isinstance(entry, str):
                    self.notes.append(entry)
                else:
                    found.append(entry)
        except JournalDamaged as error:
            self.notes.append(str(error))
        return tuple(reversed(found))

    def entry(self, id_: str) -> Entry | None:
        """
        One operation with its acts; None where there is none.

        Raises:
            JournalDamaged, JournalUnusable: It cannot be read.
        """
        for entry in self._entries("WHERE id = ?", id_):
            if isinstance(entry, str):
                raise JournalDamaged(self._path, entry)
            return self._with_acts(entry)
        return None

    def same(self, record: Record) -> Entry | None:
        """
        An operation that a marker tells of, by whatever id; None where this journal has not seen it.

        Raises:
            JournalDamaged, JournalUnusable: As `entry`.
        """
        return next((one for one in self.named(record.id) if one.record.is_same_as(record)), None)

    def named(self, name: str) -> tuple[Entry, ...]:
        """
        The operations of an id, or that a caller or a marker calls so, with their acts.

        Those that have ended first, then by when they were begun.

        Raises:
            JournalDamaged, JournalUnusable: As `entry`.
        """
        found = []
        said = [f'"{key}":{dumps(name)}' for key in ("token", "marked")]
        which = "WHERE id = ? OR instr(record, ?) OR instr(record, ?)"
        for entry in self._entries(f"{which} ORDER BY ended IS NULL, begun", name, *said):
            if isinstance(entry, str):
                raise JournalDamaged(self._path, entry)
            found.append(self._with_acts(entry))
        return tuple(found)

    def _entries(self, which: str, *values: object) -> Iterator[Entry | str]:
        """Each row, or what is wrong with it."""
        with self.telling():
            rows = self._database.execute(
                f"SELECT id, record, conclusion FROM operation {which}", values
            )
            for id_, record, conclusion in rows:
                try:
                    yield Entry(
                        record=loads(record, Record),
                        conclusion=None if conclusion is None else loads(conclusion, Conclusion),
                    )
                except (Unreadable, TypeError) as error:
                    yield f"operation {id_} cannot be read: {error}"

    def _with_acts(self, entry: Entry) -> Entry:
        with self.telling():
            rows = self._database.execute(
                "SELECT act, answer FROM act WHERE operation = ? ORDER BY number",
                (entry.record.id,),
            ).fetchall()
        try:
            acts = tuple(_with_answer(loads(act, Act), answer) for act, answer in rows)
        except (Unreadable, TypeError) as error:
            reason = f"the acts of operation {entry.record.id} cannot be read: {error}"
            raise JournalDamaged(self._path, reason) from error
        return Entry(record=entry.record, acts=acts, conclusion=entry.conclusion)


def _add(database: sqlite3.Connection, id_: str, acts: Iterable[Act]) -> None:
    database.executemany(
        "INSERT INTO act (operation, number, act) VALUES (?, ?, ?)",
        [(id_, act.number, dumps(act)) for act in acts],
    )


def _answer(database: sqlite3.Connection, id_: str, answers: Iterable[tuple[int, str]]) -> None:
    database.executemany(
        "UPDATE act SET answer = ? WHERE operation = ? AND number = ?",
        [(answer, id_, number) for number, answer in answers],
    )


def _mix_again(database: sqlite3.Connection, record: Record) -> None:
    """Of what earlier merges have mixed: forget it where this one has done it, or note where it went."""
    which = f"SELECT id, record, conclusion FROM operation WHERE {_IS_MIXING}"
    for id_, begun, text in database.execute(which).fetchall():
        with suppress(Unreadable):  # `mixing` says so
            earlier, end = loads(begun, Record), loads(text, Conclusion)
            if end.mixed is None:
                continue
            done = is_done_by(end.mixed, earlier.guest, record)
            mixed = None if done else carried(end.mixed, record)
            if mixed != end.mixed:
                text = dumps(replace(end, mixed=mixed))
                database.execute("UPDATE operation SET conclusion = ? WHERE id = ?", (text, id_))


def _prune(database: sqlite3.Connection, now: float) -> None:
    """
    Forget the oldest that have ended.

    Never one that is open or still to be told of, nor what a revert keeps, nor what a commit has
    mixed.
    """
    database.execute(
        f"DELETE FROM operation WHERE NOT {_IS_REVERT} AND NOT {_IS_MIXING} AND ended IS NOT NULL AND (ended < ? OR id "
        "IN (SELECT id FROM operation WHERE ended IS NOT NULL ORDER BY ended DESC, begun DESC LIMIT -1 OFFSET ?)) AND "
        "id NOT IN (SELECT operation FROM letter WHERE operation IS NOT NULL AND state NOT IN "
        "('closed', 'dropped'))",
        (now - KEEP_S, KEEP),
    )
    prune_letters(database, now - KEEP_S)


def _with_answer(act: Act, answer: str | None) -> Act:
    return replace(act, answer=answer)
