"""
The journal on disk: SQLite, with a write-ahead log that is synced at every intent.

    operation   one row each: its record, and its conclusion once it has one
    act         one row each: the intent, and what it answered

An act costs one sync: the answer to the last one is written with the next intent. A conclusion is
not waited for: when a power cut takes it, the operation is found open, and settled again, which
finds nothing to do. A journal that cannot be read is never replaced by an empty one.

Source: sqlite.org/wal.html, sqlite.org/pragma.html (synchronous, user_version, application_id).
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from qmpsnap.journal.folder import JournalUnusable, checked, state_folder
from qmpsnap.journal.record import Act, Conclusion, Entry, Record, Unreadable, dumps, loads

NAME: Final = "journal.db"
VERSION: Final = 1
KEEP: Final = 1000
"""Operations that have ended; a thousand take 2 MB."""
KEEP_S: Final = 400 * 24 * 3600.0
_IS_REVERT: Final = 'instr(record, \'"kind":"revert"\')'
"""They are kept: what they took out of a chain is to stay whole."""
WAIT_S: Final = 10.0
"""For another process that writes just now."""
_NO_CHECKPOINT_ON_CLOSE: Final = 1006
"""SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, sqlite3.h."""
_APPLICATION: Final = 0x716D7073
"""`qmps`; what `file` shows, and what no other program's database has."""
_TABLES: Final = """
CREATE TABLE operation (
    id TEXT PRIMARY KEY, begun REAL NOT NULL, record TEXT NOT NULL, ended REAL, conclusion TEXT
) WITHOUT ROWID;
CREATE INDEX operation_ended ON operation (ended, begun);
CREATE TABLE act (
    operation TEXT NOT NULL REFERENCES operation ON DELETE CASCADE,
    number INTEGER NOT NULL, act TEXT NOT NULL, answer TEXT, PRIMARY KEY (operation, number)
) WITHOUT ROWID;
"""


class JournalDamaged(JournalUnusable):
    """It is there, and it is not what this program wrote."""

    msg = "the journal {self.path} is damaged: {self.reason}"
    remedy = (
        "What is good of it `qmpsnap log` still shows. Keep it: put it aside under another name. "
        "What was open is also in `.qmpsnap-*` files beside the images: `qmpsnap resume PATH` takes "
        "one."
    )


class JournalNewer(JournalUnusable):
    """A later version of this program has written it."""

    msg = "the journal {self.path} is of a newer qmpsnap ({self.reason})"
    remedy = "Use that version, or name another folder in QMPSNAP_STATE."


class JournalUnwritable(JournalUnusable):
    """Its disk is full, or it may only be read."""

    msg = "nothing can be written into the journal {self.path}: {self.reason}"


class Store:
    """One connection to a journal; one thread uses it at a time."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """
        Open a journal that is there.

        Raises:
            JournalDamaged, JournalNewer, JournalUnwritable, JournalUnusable: It cannot be used.
        """
        self._path = str(path)
        self.notes: list[str] = []
        """What could not be read."""
        with self._telling():
            self._database = self._connected("rw" if writes else "ro")
        try:
            with self._telling():
                self._check(writes)
        except BaseException:
            self._database.close()
            raise

    def _connected(self, mode: str) -> sqlite3.Connection:
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
        ask = self._database.execute
        application, version = (
            ask(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application != _APPLICATION:
            raise JournalDamaged(self._path, "it is another program's database")
        if version > VERSION:
            raise JournalNewer(self._path, f"version {version}, and this one writes {VERSION}")
        if not writes:
            return
        if ask("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
            raise JournalUnwritable(self._path, "its file system has no write-ahead log")
        if hasattr(self._database, "setconfig"):  # Python 3.12: two syncs less at every end
            self._database.setconfig(_NO_CHECKPOINT_ON_CLOSE, True)
        ask("PRAGMA foreign_keys=ON")
        said = ask("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise JournalDamaged(self._path, said)
        ask("BEGIN IMMEDIATE")  # as far as it shows now whether it can be written
        ask("ROLLBACK")

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
        with suppress(sqlite3.Error):
            self._database.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say in our words what SQLite says."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise JournalDamaged(self._path, str(error)) from error
            if name.startswith("SQLITE_CANTOPEN"):
                raise JournalUnusable(self._path, "it cannot be opened") from error
            raise JournalUnwritable(self._path, str(error)) from error
        except OSError as error:
            raise JournalUnusable(self._path, error.strerror or str(error)) from error

    @contextmanager
    def _writing(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; on disk when it returns, if it is synced."""
        with self._telling():
            self._database.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled it back by itself
                    self._database.execute("ROLLBACK")
                raise

    def begin(self, record: Record, acts: Iterable[Act]) -> None:
        """
        Write an operation down, with its first intents.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self._writing() as database:
            database.execute(
                "INSERT INTO operation (id, begun, record) VALUES (?, ?, ?)",
                (record.id, record.begun, dumps(record)),
            )
            _add(database, record.id, acts)

    def go_on(self, id_: str, answers: Iterable[tuple[int, str]], acts: Iterable[Act]) -> None:
        """
        Write down what the last acts answered, and the next intents.

        Raises:
            JournalUnusable: As for `begin`.
        """
        with self._writing() as database:
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
        Write down what an operation came to; False where that was written down before.

        Raises:
            JournalUnusable: As for `begin`.
        """
        with self._writing(synced=False) as database:
            _add(database, record.id, acts)
            _answer(database, record.id, answers)
            done = database.execute(
                "UPDATE operation SET ended = ?, conclusion = ?, record = ? WHERE id = ? AND ended "
                "IS NULL",
                (conclusion.ended, dumps(conclusion), dumps(record.slim), record.id),
            )
            _prune(database, conclusion.ended)
        return done.rowcount == 1

    def has(self, id_: str) -> bool:
        """
        Whether an operation of this id is there.

        Raises:
            JournalUnusable: It cannot be read.
        """
        with self._telling():
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
        found = []
        for entry in self._entries(f"WHERE ended IS NOT NULL AND {_IS_REVERT}"):
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

    def _entries(self, which: str, *values: object) -> Iterator[Entry | str]:
        """Each row, or what is wrong with it."""
        with self._telling():
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
        with self._telling():
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


class Journal:
    """
    The journal in one folder; opened when it is used.

    May be used by several threads and processes at once.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        """
        Open nothing yet.

        Args:
            folder: The state folder; None: as `state_folder` says at each use.
        """
        self._folder = None if folder is None else Path(folder).absolute()

    @property
    def path(self) -> Path:
        """The file."""
        return (self._folder or state_folder()) / NAME

    @property
    def opened_folder(self) -> Path:
        """
        The folder, made where it was not there.

        Raises:
            JournalUnusable: It cannot be used.
        """
        return checked(self.path.parent, make=True)

    def opened(self) -> Store:
        """
        Open it for writing; a new one where there is none.

        Raises:
            JournalUnusable: It cannot be used; nothing was touched.
        """
        path = self.path
        checked(path.parent, make=True)
        if not path.exists():
            _create(path)
        return Store(path)

    def looked_into(self) -> Store | None:
        """
        Open it for reading; None where there is none.

        Raises:
            JournalUnusable: It cannot be read.
        """
        path = self.path
        try:
            checked(path.parent, make=False)
        except FileNotFoundError:
            return None
        return Store(path, writes=False) if path.exists() else None


DEFAULT: Final = Journal()
"""In the folder that the environment says."""


def _create(path: Path) -> None:
    """Make an empty one in one step: a file that is there is a whole journal."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{NAME}.")
        os.close(descriptor)
    except OSError as error:
        raise JournalUnwritable(str(path), error.strerror or str(error)) from error
    try:
        database = sqlite3.connect(name, isolation_level=None)
        try:
            database.execute(f"PRAGMA application_id={_APPLICATION}")
            database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={VERSION}; COMMIT;")
        finally:
            database.close()
        with suppress(FileExistsError):  # another process was as quick
            os.link(name, path)
        _sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise JournalUnwritable(str(path), str(error)) from error
    finally:
        os.unlink(name)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _prune(database: sqlite3.Connection, now: float) -> None:
    """Forget the oldest that have ended; an open one never, nor what a revert keeps."""
    database.execute(
        f"DELETE FROM operation WHERE NOT {_IS_REVERT} AND ended IS NOT NULL AND (ended < ? OR id "
        "IN (SELECT id FROM "
        "operation WHERE ended IS NOT NULL ORDER BY ended DESC, begun DESC LIMIT -1 OFFSET ?))",
        (now - KEEP_S, KEEP),
    )


def _with_answer(act: Act, answer: str | None) -> Act:
    return replace(act, answer=answer)
