"""Letters in the journal: due before anything is done, told in the transaction that concludes."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.journal import letters, schema
from qmpsnap.journal import store as stores
from qmpsnap.journal.expected import answer_abandoned, expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import DUE, OPEN, Addressee, Content, Due, Letter, content_of
from qmpsnap.journal.record import Conclusion
from tests.unit.journal_samples import act, merging

GOLDEN = Path(__file__).parents[2] / "fixtures" / "journal"
FINISHED = Conclusion(outcome="finished", ended=2000.0, file_format={"volume-1": "raw"})
DONE = Content(outcome="done", file_format={"volume-1": "raw"})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


def due(snapshot: str = "s1", **changes: Any) -> Due:
    who = Addressee(snapshot=snapshot, volume="v1", project="p1", after={"instance": "i1"})
    return Due(**{"kind": "delete", "addressee": who, "token": "t1", "since": 1000.0, **changes})


def only(journal: Journal) -> Letter:
    with journal.opened() as store:
        (letter,) = store.letters.find(())
    return letter


class TestContent:
    def test_done(self) -> None:
        assert content_of(FINISHED) == DONE

    @pytest.mark.parametrize("outcome", ["failed", "rolled-back", "nothing-to-do"])
    def test_everything_else_failed(self, outcome: Any) -> None:
        end = Conclusion(outcome=outcome, ended=1.0, message="no room")
        assert content_of(end) == Content(outcome="failed", why="no room")


class TestStored:
    def test_with_the_conclusion(self, journal: Journal) -> None:
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
            assert only(journal).state == "due"
            store.conclude(merging("op"), FINISHED)
        found = only(journal)
        assert (found.due, found.content, found.operation) == (due(), DONE, "op")
        assert (found.state, found.changed, found.attempts) == ("waiting", 2000.0, 0)

    @pytest.mark.parametrize(
        ("again", "other"),
        [({}, "op"), ({"token": "t2"}, "op"), ({"token": "t2", "kind": "create"}, None)],
    )
    def test_a_call_that_dies_while_the_same_one_is_at_work(
        self, journal: Journal, again: dict[str, str], other: str | None
    ) -> None:
        """What goes on in the guest is not told as failed; both are told what it comes to."""
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
        with expected(journal, due(**again)):
            pass
        answer_abandoned(journal)
        with journal.opened() as store:
            first, second = store.letters.find(())
            assert (first.operation, second.operation) == ("op", other)
            assert (first.state, second.state) == ("due", "due" if other else "waiting")
            store.conclude(merging("op"), FINISHED)
            contents = [one.content for one in store.letters.find(())]
        assert contents[0] == DONE
        assert (contents[1] == DONE) == (other is not None)

    def test_both_or_neither(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(stores, "answer_of_operation", killed)
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
            with pytest.raises(KeyboardInterrupt):
                store.conclude(merging("op"), FINISHED)
            assert [one.record.id for one in store.open_entries()] == ["op"]
        assert only(journal).state == "due"

    def test_the_second_conclusion_tells_nothing(self, journal: Journal) -> None:
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
            store.conclude(merging("op"), FINISHED)
            store.conclude(merging("op"), Conclusion(outcome="failed", ended=3.0))
        assert only(journal).content == DONE

    def test_nothing_is_told_of_an_open_operation(self, journal: Journal) -> None:
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
            assert not letter.answer(Content(outcome="failed"))
        assert only(journal).state == "due"

    def test_without_an_operation(self, journal: Journal) -> None:
        with expected(journal, due()) as letter:
            assert letter.answer(Content(outcome="failed", why="no"))
            assert letter.answer(DONE)
        assert only(journal).content == Content(outcome="failed", why="no")

    def test_it_is_on_disk_before_it_may_be_sent(self, journal: Journal) -> None:
        said: list[str] = []
        with expected(journal, due()) as letter, journal.opened() as store:
            store._database.set_trace_callback(said.append)
            store.letters.answer(letter.id, DONE, 1.0)
        assert said[0] == "PRAGMA synchronous=FULL"


class TestJoined:
    """Two calls for the same: what comes of it answers both."""

    def test_while_it_runs(self, journal: Journal) -> None:
        with expected(journal, due()) as one, journal.opened() as store:
            store.begin(merging("op"), [act(1)], one.id)
            with expected(journal, due(token="t2")) as two:
                store.letters.join(two.id, "op", 1.0)
            store.conclude(merging("op"), FINISHED)
            found = store.letters.find(())
        assert [(one.due.token, one.content) for one in found] == [("t1", DONE), ("t2", DONE)]

    def test_when_it_has_just_ended(self, journal: Journal) -> None:
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)])
            store.conclude(merging("op"), FINISHED)
            store.letters.join(letter.id, "op", 1.0)
        assert only(journal).content == DONE

    def test_one_that_the_journal_does_not_hold(self, journal: Journal) -> None:
        """It would be due for ever."""
        with expected(journal, due()) as letter, journal.opened() as store:
            store.letters.join(letter.id, "forgotten", 1.0)
            assert only(journal).operation is None
            assert letter.answer(DONE)


class TestAbandoned:
    def test_before_anything_was_begun(self, journal: Journal) -> None:
        with expected(journal, due()):
            answer_abandoned(journal)
            assert only(journal).state == "due"
        answer_abandoned(journal)
        found = only(journal)
        assert found.state == "waiting"
        assert found.content is not None
        assert found.content.outcome == "failed"

    def test_not_of_an_open_operation(self, journal: Journal) -> None:
        with expected(journal, due()) as letter, journal.opened() as store:
            store.begin(merging("op"), [act(1)], letter.id)
        answer_abandoned(journal)
        assert only(journal).state == "due"


class TestFound:
    def test_by_what(self, journal: Journal) -> None:
        for snapshot in ("s1", "s2", "s1"):
            with expected(journal, due(snapshot)) as letter:
                letter.answer(DONE)
        with journal.opened() as store:
            numbers = [one.number for one in store.letters.find(snapshot="s1")]
            assert numbers == [1, 3]
            assert not store.letters.find(volume="other")
            (second,) = store.letters.find(snapshot="s2")
            store.letters.note(second.id, "closed", answer="202", now=1.0)
            assert [one.number for one in store.letters.find(OPEN)] == [1, 3]
            assert store.letters.find(ids=(second.id,)) == ()
            assert [one.number for one in store.letters.find((), ids=(second.id,))] == [2]

    def test_what_cannot_be_read_is_told(self, journal: Journal) -> None:
        with expected(journal, due()), journal.opened() as store:
            store._database.execute("UPDATE letter SET due = '{}'")
            assert store.letters.find() == ()
            (note,) = store.notes
        assert "cannot be read" in note

    def test_tried(self, journal: Journal) -> None:
        with expected(journal, due()) as letter:
            letter.answer(DONE)
        with journal.opened() as store:
            store.letters.trying(letter.id, "yesterday")
            one = only(journal)
            assert (one.attempts, one.is_unsure, one.seen) == (1, True, "yesterday")
            store.letters.note(letter.id, "waiting", answer="503", now=5000.0, next_try=6000.0)
        found = only(journal)
        assert (found.is_unsure, found.next_try, found.answer) == (False, 6000.0, "503")
        assert found.changed != 5000.0  # it was waiting before


class TestPruned:
    def test_never_what_is_to_be_sent(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stores, "KEEP", 0)
        monkeypatch.setattr(letters, "KEEP", 1)
        with journal.opened() as store:
            for number, state in enumerate(("closed", "dropped", "waiting", "dead"), 1):
                with expected(journal, due(f"s{number}")) as letter:
                    store.begin(merging(f"op{number}"), [act(1)], letter.id)
                    store.conclude(merging(f"op{number}"), FINISHED)
                    store.letters.note(letter.id, state, answer=None, now=1e12)  # type: ignore[arg-type]
            store.begin(merging("last"), [act(1)])
            store.conclude(merging("last"), Conclusion(outcome="finished", ended=3000.0))
            assert [one.state for one in store.letters.find(())] == ["dropped", "waiting", "dead"]
            assert {one.record.id for one in store.entries()} == {"op3", "op4"}


class TestVersions:
    def test_an_older_one_has_none(self, journal: Journal) -> None:
        shutil.copy(GOLDEN / "1.db", journal.path)
        looked = journal.looked_into()
        assert looked is not None
        with looked as store:
            assert store.letters.find(DUE) == ()
        assert _version(journal) == 1

    def test_it_is_brought_up_to_date(self, journal: Journal) -> None:
        shutil.copy(GOLDEN / "1.db", journal.path)
        with expected(journal, due()):
            pass
        assert only(journal).due == due()
        assert _version(journal) == schema.VERSION

    def test_all_or_nothing(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.copy(GOLDEN / "1.db", journal.path)
        monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, "CREATE TABLE letter (x)"))
        with pytest.raises(schema.JournalUnwritable):
            journal.opened()
        assert _version(journal) == 1
        monkeypatch.undo()
        with journal.opened() as store:
            assert store.letters.find() == ()

    def test_both_ways_lead_to_the_same_tables(self, tmp_path: Path) -> None:
        tables = []
        for name in ("new", "old"):
            (tmp_path / name).mkdir(mode=0o700)
            journal = Journal(tmp_path / name)
            if name == "old":
                shutil.copy(GOLDEN / "1.db", journal.path)
            journal.opened().close()
            database = sqlite3.connect(journal.path)
            rows = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name")
            tables.append([(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows])
            database.close()
        assert tables[0] == tables[1]

    def test_the_letters_of_version_2(self, journal: Journal) -> None:
        shutil.copy(GOLDEN / "2.db", journal.path)
        with journal.opened() as store:
            ended, opened = store.letters.find()
        assert (ended.operation, ended.state, ended.content) == (
            "ended",
            "waiting",
            Content(outcome="done"),
        )
        assert (ended.attempts, ended.is_unsure, ended.answer) == (1, True, "503")
        assert (opened.operation, opened.state, opened.content) == ("open", "due", None)
        assert opened.due.addressee.after == {"instance": "web1"}


def _version(journal: Journal) -> int:
    database = sqlite3.connect(journal.path)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.close()
    return int(version)
