"""Letters are sent until they are accepted: in order, and each effective once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.delivery.file import File
from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.delivery.outbox import LEGACY_FOR_S, MAX_RETRY_AFTER_S, Outbox
from qmpsnap.delivery.service import Service
from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import held
from qmpsnap.journal.letter import Letter
from qmpsnap.status import Dialect
from tests.unit.letter_samples import DONE, FAILED, due, found, letter, stored

OK = Answer(status=202)
BUSY = Answer(status=503)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


class Scripted:
    """Knows `spec`, and gives the answers that it was given, then 202."""

    def __init__(self, *answers: Answer, dialect: int = 200) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []
        self.dialect = dialect
        self.before: Callable[[Letter], object] = lambda _letter: None

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        self.asked.append((ask.what, letter.due.addressee.snapshot))
        if ask.what == "dialect":
            return Answer(status=self.dialect)
        if ask.what == "row":
            return Answer(status=200, row="deleting", seen="1")
        self.before(letter)
        return self.answers.pop(0) if self.answers else OK

    @property
    def whats(self) -> list[str]:
        """What was asked for, without the looks."""
        return [what for what, _ in self.asked if what != "row"]

    @property
    def updates(self) -> list[str]:
        return [snapshot for what, snapshot in self.asked if what == "update"]


class Clock:
    now = 10_000.0

    def __call__(self) -> float:
        return self.now


def outbox(journal: Journal, service: Service, **more: Any) -> Outbox:
    more.setdefault("now", Clock())
    return Outbox(journal, {"cinder": service}.get, wait_s=lambda attempts: 10.0 * attempts, **more)


def states(journal: Journal) -> list[str]:
    return [one.state for one in found(journal)]


def test_accepted(journal: Journal) -> None:
    stored(journal)
    sent = outbox(journal, Scripted()).send()
    (letter,) = sent.tried
    assert (letter.state, letter.answer, letter.attempts) == ("closed", "202", 1)
    assert (sent.left, sent.next_at) == ((), None)


def test_nothing_to_send_makes_no_journal(tmp_path: Path) -> None:
    assert outbox(Journal(tmp_path / "none"), Scripted()).send().left == ()
    assert not (tmp_path / "none").exists()
    assert outbox(Journal(tmp_path / "none"), Scripted()).letters() == ()


class TestAgain:
    def test_when_it_is_time(self, journal: Journal) -> None:
        stored(journal)
        service, clock = Scripted(BUSY), Clock()
        box = outbox(journal, service, now=clock)
        assert box.send().next_at == 10_010.0
        box.send()
        assert len(service.updates) == 1
        clock.now = 10_010.0
        assert box.send().left == ()
        assert states(journal) == ["closed"]

    def test_at_once_when_asked_to(self, journal: Journal) -> None:
        stored(journal)
        box = outbox(journal, Scripted(BUSY))
        box.send()
        assert box.send(at_once=True).left == ()

    def test_later_and_later(self, journal: Journal) -> None:
        stored(journal)
        clock = Clock()
        box = outbox(journal, Scripted(BUSY, BUSY, BUSY), now=clock)
        waits = []
        for _ in range(3):
            at = box.send(at_once=True).next_at
            assert at is not None
            waits.append(at - clock.now)
        assert waits == [10.0, 20.0, 30.0]

    @pytest.mark.parametrize(
        ("asked", "waits"), [(5.0, 10.0), (60.0, 60.0), (1e9, MAX_RETRY_AFTER_S)]
    )
    def test_as_long_as_the_service_asks(
        self, journal: Journal, asked: float, waits: float
    ) -> None:
        stored(journal)
        box = outbox(journal, Scripted(Answer(status=429, retry_after_s=asked)))
        assert box.send().next_at == 10_000.0 + waits

    def test_an_error_of_the_library(
        self, journal: Journal, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Scripted):
            def ask(self, letter: Letter, ask: Ask) -> Answer:
                raise RuntimeError("defect")

        stored(journal)
        (left,) = outbox(journal, Broken()).send().left
        assert left.answer == "no answer: RuntimeError: defect"
        assert "unforeseen" in caplog.text


class TestOrder:
    def test_one_that_waits_holds_up_its_snapshot_alone(self, journal: Journal) -> None:
        for snapshot in ("s1", "s1", "s2"):
            stored(journal, snapshot=snapshot, token=f"t{len(found(journal))}")
        service = Scripted()
        service.before = lambda letter: None
        service.answers = []

        def answer(letter: Letter, ask: Ask) -> Answer:
            asked = Scripted.ask(service, letter, ask)
            return BUSY if ask.what == "update" and letter.number == 1 else asked

        service_ = _With(answer)
        outbox(journal, service_).send()
        assert states(journal) == ["waiting", "waiting", "closed"]
        assert sorted(service.updates) == ["s1", "s2"]
        outbox(journal, Scripted()).send(at_once=True)
        assert states(journal) == ["closed"] * 3

    def test_a_dead_one_does_not(self, journal: Journal) -> None:
        stored(journal, token="t1")
        stored(journal, token="t2")
        outbox(journal, Scripted(Answer(status=405))).send()
        assert states(journal) == ["dead", "closed"]

    def test_nor_one_that_is_not_known_yet(self, journal: Journal) -> None:
        with expected(journal, due(token="t1")):
            stored(journal, token="t2")
            outbox(journal, Scripted()).send()
            assert states(journal) == ["due", "closed"]

    def test_what_was_overtaken_is_not_sent_to_a_stock_service(self, journal: Journal) -> None:
        stored(journal, FAILED, token="t1")
        with expected(journal, due(token="t2")):
            service = Scripted(dialect=404)
            outbox(journal, service).send()
            assert states(journal) == ["dropped", "due"]
            assert service.updates == []

    def test_the_later_call_may_come_while_one_is_tried(self, journal: Journal) -> None:
        """The letters of the snapshot are looked at again before each."""
        stored(journal, token="t1")
        stored(journal, token="t2")
        service = Scripted(Answer(status=405), dialect=404)
        outbox(journal, service).send()
        assert states(journal) == ["dropped", "dead"]


class _With:
    def __init__(self, ask: Callable[[Letter, Ask], Answer]) -> None:
        self._ask = ask

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        return self._ask(letter, ask)


class TestUnsure:
    def test_it_is_noted_before_it_is_sent(self, journal: Journal) -> None:
        stored(journal)
        seen: list[Letter] = []
        service = Scripted()
        service.before = lambda letter: seen.extend(found(journal, letter.id))
        outbox(journal, service).send()
        assert [(one.attempts, one.is_unsure) for one in seen] == [(1, True)]

    def test_a_definite_answer_takes_it_back(self, journal: Journal) -> None:
        stored(journal)
        (left,) = outbox(journal, Scripted(Answer(status=429))).send().left
        assert not left.is_unsure

    def test_none_does_not(self, journal: Journal) -> None:
        stored(journal)
        (left,) = outbox(journal, Scripted(Answer(status=None))).send().left
        assert left.is_unsure


class TestAfter:
    def test_it_follows(self, journal: Journal) -> None:
        stored(journal, after={"instance": "i"})
        done: list[Letter] = []
        outbox(journal, Scripted(), after=done.append).send()
        assert [one.due.addressee.after for one in done] == [{"instance": "i"}]
        assert states(journal) == ["closed"]

    def test_it_waits_for_whoever_can(self, journal: Journal) -> None:
        """`qmpsnap outbox send` does not know Nova's database."""
        stored(journal, after={"instance": "i"})
        sent = outbox(journal, Scripted()).send()
        assert (states(journal), sent.left) == (["accepted"], ())
        done: list[Letter] = []
        service = Scripted()
        outbox(journal, service, after=done.append).send()
        assert (states(journal), len(done), service.updates) == (["closed"], 1, [])

    def test_until_it_is_done(self, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
        stored(journal, after={"instance": "i"})

        def fails(_letter: Letter) -> None:
            raise OSError("database is away")

        sent = outbox(journal, Scripted(), after=fails).send()
        (left,) = sent.left
        assert (left.state, sent.next_at) == ("accepted", 10_010.0)
        assert "database is away" in (left.answer or "")
        assert "not done" in caplog.text
        outbox(journal, Scripted(), after=lambda _: None).send(at_once=True)
        assert states(journal) == ["closed"]

    def test_not_where_it_was_refused(self, journal: Journal) -> None:
        stored(journal, after={"instance": "i"})
        done: list[Letter] = []
        outbox(journal, Scripted(Answer(status=405)), after=done.append).send()
        assert (states(journal), done) == (["dead"], [])

    def test_it_holds_up_no_update(self, journal: Journal) -> None:
        stored(journal, after={"instance": "i"}, token="t1")
        stored(journal, token="t2")

        def fails(letter: Letter) -> None:
            raise OSError

        outbox(journal, Scripted(), after=fails).send()
        assert states(journal) == ["accepted", "closed"]


class TestDialect:
    def test_asked_once(self, journal: Journal) -> None:
        service = Scripted()
        box = outbox(journal, service)
        for snapshot in ("s1", "s2"):
            stored(journal, snapshot=snapshot)
            box.send()
        assert [what for what, _ in service.asked] == ["dialect", "update", "update"]

    def test_a_stock_service_is_asked_again_after_a_while(self, journal: Journal) -> None:
        service, clock = Scripted(dialect=404), Clock()
        box = outbox(journal, service, now=clock)
        asked = []
        for snapshot, seconds in (("s1", 0), ("s2", 1), ("s3", LEGACY_FOR_S), ("s4", 1)):
            clock.now += seconds
            stored(journal, snapshot=snapshot)
            service.asked.clear()
            box.send()
            asked.append(service.whats)
        assert asked == [["dialect", "update"], ["update"], ["dialect", "update"], ["update"]]


class TestShared:
    def test_two_senders(self, journal: Journal) -> None:
        """While one is at work on a snapshot, the other leaves it alone."""
        stored(journal)
        service = Scripted()
        other = outbox(journal, Scripted(Answer(status=405)))
        service.before = lambda _letter: other.send(at_once=True)
        outbox(journal, service).send()
        assert states(journal) == ["closed"]

    def test_only_what_is_addressed_to_it(self, journal: Journal) -> None:
        stored(journal)
        box = Outbox(journal, lambda to: None)
        assert box.send().left == ()
        assert states(journal) == ["waiting"]
        assert [one.state for one in box.letters()] == ["waiting"]
        assert box.letters(volume="other") == ()

    def test_only_what_was_named(self, journal: Journal) -> None:
        stored(journal, snapshot="s1")
        second = stored(journal, snapshot="s2")
        outbox(journal, Scripted()).send(ids=[second])
        assert states(journal) == ["waiting", "closed"]

    def test_nothing_more_once_it_is_to_stop(self, journal: Journal) -> None:
        stored(journal)
        assert outbox(journal, Scripted()).send(should_stop=lambda: True).tried == ()


class TestUnstored:
    """The journal could not be written; nobody would be told otherwise."""

    def test_once(self, journal: Journal) -> None:
        done: list[Letter] = []
        service = Scripted(BUSY)
        box = outbox(journal, service, after=done.append)
        one = letter(due=due(after={"instance": "i"}))
        assert box.send_unstored(one).state == "waiting"
        assert (box.send_unstored(one).state, done) == ("accepted", [one])
        assert not journal.path.exists()

    def test_in_the_dialect_of_the_service(self, journal: Journal) -> None:
        service = Scripted(dialect=404)
        assert outbox(journal, service).send_unstored(letter()).state == "accepted"
        assert [what for what, _ in service.asked] == ["dialect", "row", "update"]

    def test_what_follows_fails(self, journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
        def fails(_letter: Letter) -> None:
            raise OSError

        box = outbox(journal, Scripted(), after=fails)
        assert box.send_unstored(letter(due=due(after={"instance": "i"}))).state == "accepted"
        assert "not done" in caplog.text

    def test_to_nobody(self, journal: Journal) -> None:
        assert Outbox(journal, lambda _to: None).send_unstored(letter()).state == "waiting"


class TestFile:
    def lines(self, path: Path) -> list[Any]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def box(self, journal: Journal, path: Path) -> Outbox:
        return outbox(journal, File(str(path)))

    def test_a_line_each(self, journal: Journal, tmp_path: Path) -> None:
        path = tmp_path / "updates"
        ids = [stored(journal, snapshot=snapshot) for snapshot in ("s1", "s2")]
        self.box(journal, path).send()
        lines = self.lines(path)
        assert {one["letter"] for one in lines} == {*ids}
        assert lines[0]["body"]["os-update_snapshot_status"]["progress"] == "90%"
        assert {one["snapshot"] for one in lines} == {"s1", "s2"}
        assert path.stat().st_mode & 0o777 == 0o600

    def test_killed_before_the_note(self, journal: Journal, tmp_path: Path) -> None:
        path = tmp_path / "updates"
        id_ = stored(journal)
        (letter,) = found(journal, id_)
        File(str(path)).ask(letter, Ask(what="update"))
        self.box(journal, path).send()
        assert len(self.lines(path)) == 1
        assert found(journal, id_)[0].answer == "202: its line is there"

    def test_after_half_a_line(self, journal: Journal, tmp_path: Path) -> None:
        path = tmp_path / "updates"
        id_ = stored(journal)
        path.write_text(f'{{"letter": "{id_}", "snap')
        self.box(journal, path).send()
        assert json.loads(path.read_text().splitlines()[1])["letter"] == id_

    def test_it_cannot_be_written(self, journal: Journal, tmp_path: Path) -> None:
        stored(journal)
        (left,) = self.box(journal, tmp_path / "none" / "updates").send().left
        assert "No such file" in (left.answer or "")

    def test_neither_a_link_nor_a_pipe(self, journal: Journal, tmp_path: Path) -> None:
        stored(journal)
        (tmp_path / "link").symlink_to(tmp_path / "secret")
        os.mkfifo(tmp_path / "pipe")
        for name, said in (("link", "symbolic links"), ("pipe", "not a regular file")):
            (left,) = self.box(journal, tmp_path / name).send(at_once=True).left
            assert said in (left.answer or "")
        assert not (tmp_path / "secret").exists()

    def test_legacy(self, journal: Journal, tmp_path: Path) -> None:
        stored(journal, DONE)
        outbox(journal, File(str(tmp_path / "f"), Dialect.LEGACY)).send()
        assert self.lines(tmp_path / "f")[0]["body"] == {
            "os-update_snapshot_status": {"status": "deleting", "progress": "90%"}
        }


def test_a_lock_is_left_by_nobody(journal: Journal) -> None:
    stored(journal)
    outbox(journal, Scripted()).send()
    assert not list(journal.path.parent.glob("*.lock"))
    with held(journal.path.parent, "x"):
        assert len(list(journal.path.parent.glob("*.lock"))) == 1
