"""An operation with a journal: the intent is there before the act, the conclusion once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import qmpsnap
from qmpsnap.errors import QmpsnapError
from qmpsnap.journal import keep
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry
from qmpsnap.journal.schema import JournalUnwritable
from qmpsnap.journal.store import Store
from qmpsnap.monitor.base import CommandFailed, LostInMidCommand
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.job.states import JobFailed, JobStatus, JobView
from qmpsnap.operations.outcome import OutcomeUnknown
from qmpsnap.operations.quiesce import CannotFreeze
from qmpsnap.operations.step import Does, Step
from qmpsnap.service import volume_snapshot_create
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


class Watched(FakeGuest):
    """A guest that looks into the journal before each act."""

    def __init__(self, journal: Journal, depth: int = 1, *views: JobView) -> None:
        super().__init__(samples.guest(samples.disk(depth)), *views)
        self.journal = journal
        self.saw: list[tuple[str, list[tuple[str, str | None]]]] = []
        """At each act: its purpose, and the acts that the journal had then, with their answers."""

    def take(self, step: Step) -> object:
        entries = opened(self.journal)
        acts = [(act.does, act.answer) for entry in entries for act in entry.acts]
        self.saw.append((step.does, acts))
        return super().take(step)


def opened(journal: Journal) -> tuple[Entry, ...]:
    store = journal.looked_into()
    if store is None:
        return ()
    with store:
        return store.open_entries()


def only(journal: Journal) -> Entry:
    store = journal.looked_into()
    assert store is not None
    with store:
        (entry,) = store.entries()
        whole = store.entry(entry.record.id)
    assert whole is not None
    return whole


def test_every_intent_is_there_before_the_act(journal: Journal) -> None:
    guest = Watched(journal)
    done = qmpsnap.create(guest, "vda", "new", journal=journal)
    assert [does for does, _ in guest.saw] == ["make", "open", "switch"]
    for number, (does, acts) in enumerate(guest.saw):
        assert [one for one, _ in acts] == [one for one, _ in guest.saw[: number + 1]], does
        assert [answer for _, answer in acts] == ["done"] * number + [None]
    entry = only(journal)
    assert done.operation == entry.record.id
    assert len(entry.record.id) == 32
    assert [act.answer for act in entry.acts] == ["done"] * 3
    assert entry.conclusion is not None
    assert entry.conclusion.outcome == "finished"
    assert entry.conclusion.after == {"volume-1.new": "qcow2", "volume-1": "raw"}
    assert entry.conclusion.consistency == "crash"
    (note,) = done.notes  # there is no such share
    assert "no marker lies beside the images" in note


def test_a_merge(journal: Journal) -> None:
    guest = Watched(journal, 3)
    done = qmpsnap.delete(guest, "vda", "s1", journal=journal)
    assert [one for one, _ in guest.saw[-1][1]] == [one for one, _ in guest.saw]
    entry = only(journal)
    assert (entry.record.kind, entry.record.guest) == ("commit", "web1")
    assert entry.record.before == {
        "volume-1.s2": "qcow2",
        "volume-1.s1": "qcow2",
        "volume-1": "raw",
    }
    assert entry.conclusion is not None
    assert entry.conclusion.file_format == done.file_format == {"volume-1": "raw"}


def test_when_the_file_was_written_that_is_closed(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its share's clock: `resume` compares it with that clock only."""
    top = tmp_path / "volume-1.s2"
    top.touch()
    times = {top.name: top.stat().st_mtime_ns}
    monkeypatch.setattr("qmpsnap.journal.door.modified", lambda path: times.get(Path(path).name))
    qmpsnap.delete(Watched(journal, 3), "vda", "s2", journal=journal)
    entry = only(journal)
    closed = [act.answer for act in entry.acts if act.does == "close"]
    assert closed
    assert {*closed} == {str(times[top.name])}


def test_nothing_is_written_while_the_guest_is_frozen(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Watched(journal)
    frozen: list[int] = []
    go_on = Store.go_on

    def watched(self: Store, *args: object) -> None:
        frozen.append(guest.frozen)
        go_on(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "go_on", watched)
    qmpsnap.create(guest, "vda", "new", quiesce="require", journal=journal)
    assert [does for does, _ in guest.saw] == ["make", "open", "freeze", "switch", "thaw"]
    assert frozen
    assert not any(frozen)
    _, acts = guest.saw[3]
    assert [one for one, _ in acts] == ["make", "open", "freeze", "switch"]
    assert [(act.does, act.answer) for act in only(journal).acts] == [
        ("make", "done"),
        ("open", "done"),
        ("freeze", "2"),
        ("switch", "done"),
        ("thaw", '{"count":2,"frozen_s":0.01,"problem":null}'),
    ]


def test_the_callers_token_names_it(journal: Journal) -> None:
    info = {"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "new", "id": "mine"}
    update = volume_snapshot_create(Watched(journal), "1", info, journal=journal)
    assert update.error is None
    assert (only(journal).record.id, only(journal).record.token) == ("mine", "mine")


def test_a_token_that_was_used_before(journal: Journal) -> None:
    for number in range(2):
        name = f"volume-1.{number}"
        info = {"type": "qcow2", "new_file": name, "snapshot_id": name, "id": "mine"}
        assert volume_snapshot_create(Watched(journal), "1", info, journal=journal).error is None
    store = journal.looked_into()
    assert store is not None
    with store:
        first, second = store.entries()
    assert first.record.token == second.record.token == "mine"
    assert first.record.id != second.record.id


def refused_by_qemu(guest: FakeGuest) -> None:
    guest.fails[Does.SWITCH] = CommandFailed("transaction", "GenericError", "no")


def not_frozen(guest: FakeGuest) -> None:
    guest.fails[Does.FREEZE] = CannotFreeze("no agent")


def lost(guest: FakeGuest) -> None:
    guest.fails[Does.SWITCH] = LostInMidCommand("transaction", "gone")
    guest.meanwhile = {}
    guest.fails_at_look = {}
    original = guest.read

    def read() -> object:
        if Does.SWITCH in guest.calls:
            raise LostInMidCommand("query", "gone")
        return original()

    guest.read = read  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(
    ("prepare", "error", "outcome"),
    [
        (refused_by_qemu, CommandFailed, "failed"),
        (not_frozen, CannotFreeze, "rolled-back"),
        (lost, OutcomeUnknown, None),
    ],
)
def test_a_create_that_breaks_off(
    journal: Journal,
    prepare: Callable[[FakeGuest], None],
    error: type[QmpsnapError],
    outcome: str | None,
) -> None:
    guest = Watched(journal)
    prepare(guest)
    with pytest.raises(error):
        qmpsnap.create(guest, "vda", "new", quiesce="require", journal=journal)
    came = only(journal).conclusion
    assert (came and came.outcome) == outcome
    assert outcome is None or (came and came.error) == error.__name__


def test_a_job_that_failed(journal: Journal) -> None:
    guest = Watched(journal, 3, JobView(status=JobStatus.CONCLUDED, error="no space"))
    with pytest.raises(JobFailed):
        qmpsnap.delete(guest, "vda", "s1", journal=journal)
    came = only(journal).conclusion
    assert came is not None
    assert (came.outcome, came.error) == ("failed", "JobFailed")


def test_what_is_not_flushed_stays_open() -> None:
    assert keep.outcome_of(NotFlushed("file", "no")) is None
    assert keep.outcome_of(KeyboardInterrupt()) is None
    assert keep.outcome_of(MemoryError()) is None


def test_what_was_refused_before_the_first_act_is_not_in_it(journal: Journal) -> None:
    with pytest.raises(QmpsnapError):
        qmpsnap.delete(Watched(journal, 3), "vda", "other", journal=journal)
    assert opened(journal) == ()


def test_without_one_the_result_says_so() -> None:
    guest = FakeGuest(samples.guest(samples.disk()))
    done = qmpsnap.create(guest, "vda", "new", journal=None)
    assert done.notes == (keep.WITHOUT,)
    assert done.operation is None


class TestNotWritten:
    """The disk with the journal is full from one act on."""

    @pytest.fixture
    def full_from(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        def at(does: str) -> None:
            def full(self: Store, _id: str, _answers: object, acts: list[object]) -> None:
                if any(act.does == does for act in acts):  # type: ignore[attr-defined]
                    raise JournalUnwritable("journal.db", "database or disk is full")

            monkeypatch.setattr(Store, "go_on", full)

        return at

    def test_at_the_first_act_nothing_is_done(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise JournalUnwritable("journal.db", "database or disk is full")

        monkeypatch.setattr(Store, "begin", full)
        guest = Watched(journal)
        with pytest.raises(JournalUnwritable) as caught:
            qmpsnap.create(guest, "vda", "new", journal=journal)
        assert caught.value.exit_code == 4
        assert not guest.saw

    def test_what_leads_on_is_not_done_and_the_rest_is_taken_back(
        self, journal: Journal, full_from: Callable[[str], None]
    ) -> None:
        full_from("switch")
        guest = Watched(journal)
        with pytest.raises(JournalUnwritable):
            qmpsnap.create(guest, "vda", "new", journal=journal)
        assert [does for does, _ in guest.saw] == ["make", "open", "close", "discard"]
        assert guest.existing == set()

    def test_what_settles_is_done_and_a_note_says_so(
        self, journal: Journal, full_from: Callable[[str], None]
    ) -> None:
        full_from("close")
        done = qmpsnap.delete(Watched(journal, 3), "vda", "s1", journal=journal)
        assert "the journal was not written before an act" in done.notes[-1]

    def test_at_the_end_the_update_is_given_all_the_same(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise JournalUnwritable("journal.db", "database or disk is full")

        monkeypatch.setattr(Store, "conclude", full)
        info = {"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "new"}
        update = volume_snapshot_create(Watched(journal), "1", info, journal=journal)
        assert json.dumps(update.body).count("creating_compute_complete") == 1
        assert update.result is not None
        assert "could not be written down" in update.result.notes[-1]
