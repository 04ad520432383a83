"""Nova's two calls with somebody who waits: what is stored for him, whatever comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.errors import Unreachable
from qmpsnap.formats.layers import Disks
from qmpsnap.guests.files.locks import DiskLocked
from qmpsnap.journal.expected import answer_abandoned
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import UnderWay
from qmpsnap.journal.letter import Addressee, Content, Letter
from qmpsnap.journal.resume import settle
from qmpsnap.journal.schema import JournalUnwritable
from qmpsnap.journal.store import Store
from qmpsnap.monitor.base import LostInMidCommand
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobStatus, JobView
from qmpsnap.operations.quiesce import NotThawed
from qmpsnap.operations.where import Where
from qmpsnap.service import Update, volume_snapshot_create, volume_snapshot_delete
from qmpsnap.status import ACTION
from tests.rig.waiting import HANG_S, until
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

CREATE_INFO = {"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "new", "id": "token"}
DELETE_INFO = {
    "type": "qcow2",
    "file_to_merge": "volume-1.s1",
    "merge_target_file": "volume-1",
    "operation": "token",
}
WHO = Addressee(snapshot="s", volume="1", project="p", after={"instance": "i"})
CREATED = Content(outcome="done", file_format={"volume-1.new": "qcow2"})
DELETED = Content(outcome="done", file_format={"volume-1": "raw"})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


def guest(*views: JobView) -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(3)), *views)


def create(guest: Any, journal: Journal | None, **changes: Any) -> Update:
    return volume_snapshot_create(guest, "1", CREATE_INFO | changes, journal=journal, addressee=WHO)


def delete(guest: Any, journal: Journal | None, **changes: Any) -> Update:
    info = DELETE_INFO | changes
    return volume_snapshot_delete(guest, "1", "s", info, journal=journal, addressee=WHO)


def letters(journal: Journal) -> tuple[Letter, ...]:
    with journal.opened() as store:
        return store.letters.find(())


def only(journal: Journal) -> Letter:
    (letter,) = letters(journal)
    return letter


def status(update: Update) -> object:
    inner = update.body[ACTION]
    assert isinstance(inner, dict)
    return inner["status"]


def test_done(journal: Journal) -> None:
    update = create(guest(), journal)
    letter = only(journal)
    assert (letter.id, letter.state, letter.content) == (update.letter, "waiting", CREATED)
    assert (letter.due.kind, letter.due.token, letter.due.addressee) == ("create", "token", WHO)
    assert letter.operation == "token"


def test_a_delete(journal: Journal) -> None:
    delete(guest(), journal)
    assert (only(journal).due.kind, only(journal).content) == ("delete", DELETED)


def test_the_job_failed(journal: Journal) -> None:
    update = delete(guest(JobView(status=JobStatus.CONCLUDED, error="No space left")), journal)
    content = only(journal).content
    assert content is not None
    assert content.outcome == "failed"
    assert "No space left" in (content.why or "")
    assert status(update) == "error_deleting"


@pytest.mark.parametrize("changes", [{"type": "raw"}, {"id": 7}])
def test_arguments_that_make_no_sense(journal: Journal, changes: dict[str, Any]) -> None:
    update = create(guest(), journal, **changes)
    letter = only(journal)
    assert letter.content is not None
    assert (letter.content.outcome, letter.operation, letter.id) == ("failed", None, update.letter)


def test_a_guest_that_is_gone(journal: Journal) -> None:
    @contextmanager
    def opener() -> Iterator[Guest]:
        raise Unreachable
        yield

    create(opener, journal)
    content = only(journal).content
    assert content is not None
    assert content.outcome == "failed"


def test_a_guest_that_is_gone_while_the_same_is_at_work(journal: Journal) -> None:
    """Another call has begun it, without a token, for a snapshot of another name."""

    @contextmanager
    def opener() -> Iterator[Guest]:
        raise Unreachable
        yield

    fake = guest()
    fake.fails_after["switch"] = LostInMidCommand("transaction", "gone")
    fake.readings = [Disks(guest=None, disks=())]  # it cannot be looked at again
    other = Addressee(snapshot="other", volume="1", project="p", after={})
    info = {key: value for key, value in CREATE_INFO.items() if key != "id"}
    for opened in (fake, opener):
        update = volume_snapshot_create(opened, "1", info, journal=journal, addressee=other)
        other = WHO
        assert status(update) == "creating"
    assert [one.state for one in letters(journal)] == ["due", "due"]
    assert len({one.operation for one in letters(journal)}) == 1


@pytest.mark.parametrize(
    ("socket", "folder", "is_same"),
    [("two", "share", True), ("one", "share", True), ("one", "other", False)],
)
def test_a_disk_that_is_locked(journal: Journal, socket: str, folder: str, is_same: bool) -> None:
    """By the same request for these files, what comes of it answers both; another guest's does not."""
    second = guest()
    second.where = Where(road="qmp", at="/run/two.qmp")
    second.claimed_by_others = {"/share/volume-1.new"}

    def first_call() -> None:  # it comes in between, and its reply is lost
        disk = samples.disk(3)
        lies = tuple(
            replace(one, path=str(one.path).replace("/share/", f"/{folder}/"))
            for one in disk.layers
        )
        first = FakeGuest(samples.guest(replace(disk, layers=lies)))
        first.where = replace(second.where, at=f"/run/{socket}.qmp")
        first.fails_after["switch"] = LostInMidCommand("transaction", "gone")
        first.readings = [Disks(guest=None, disks=())]
        create(first, journal, id="first")

    second.before["read"] = first_call
    update = create(second, journal)
    assert isinstance(update.error, DiskLocked)
    assert isinstance(update.error, UnderWay) is is_same
    one, other = letters(journal)
    assert (one.operation == other.operation) is is_same
    assert status(update) == ("creating" if is_same else "error")


class Second:
    """A second call of the same token, in a thread of its own, while another is at work."""

    def __init__(self, journal: Journal) -> None:
        self.guest = guest()
        self.guest.claimed_by_others = {"/share/volume-1.new"}  # the first one has locked the disk
        self._journal = journal
        self._calls: list[Update] = []
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        self._calls.append(create(self.guest, self._journal))

    def begin(self) -> None:
        """Return once its letter is due."""
        self._thread.start()
        until(lambda: len(letters(self._journal)) == 2)

    def ended(self) -> Update:
        """Wait for it."""
        self._thread.join(HANG_S)
        (update,) = self._calls
        return update


def test_a_second_call_of_a_token_looks_at_nothing_before_the_first_is_written_down(
    journal: Journal,
) -> None:
    """The disk is locked by then, and a reading would be of a chain that is just being changed."""
    first, second = guest(), Second(journal)
    told: list[Update] = []
    first.before["read"] = second.begin
    first.before["switch"] = lambda: told.append(second.ended())
    assert status(create(first, journal)) == "creating_compute_complete"
    assert isinstance(told[0].error, UnderWay)
    assert status(told[0]) == "creating"
    assert [one.content for one in letters(journal)] == [CREATED, CREATED]
    assert len({one.operation for one in letters(journal)}) == 1


def test_a_second_call_of_a_token_goes_on_where_the_first_does_not(journal: Journal) -> None:
    second, returned = Second(journal), Event()
    second.guest.claimed_by_others = set()
    second.guest.before["read"] = lambda: returned.wait(HANG_S)  # else the first may join it

    @contextmanager
    def opener() -> Iterator[Guest]:
        second.begin()
        raise Unreachable
        yield

    assert status(create(opener, journal)) == "error"
    returned.set()
    assert status(second.ended()) == "creating_compute_complete"
    one, other = letters(journal)
    assert one.content is not None
    assert (one.content.outcome, other.content) == ("failed", CREATED)


def test_it_is_due_before_the_guest_is_looked_for(journal: Journal) -> None:
    seen: list[Letter] = []

    @contextmanager
    def opener() -> Iterator[Guest]:
        seen.append(only(journal))
        answer_abandoned(journal)  # somebody else's sender: this call lives
        yield guest()

    create(opener, journal)
    assert [one.state for one in seen] == ["due"]
    assert only(journal).content == CREATED


class TestUnknown:
    """Never told as an error: `resume` settles it, and one update goes out."""

    def test_resume_tells(self, journal: Journal) -> None:
        fake = guest()
        fake.fails_after["switch"] = LostInMidCommand("transaction", "gone")
        there = fake.readings
        fake.readings = [Disks(guest=None, disks=())]
        update = create(fake, journal)
        assert (status(update), only(journal).state) == ("creating", "due")
        answer_abandoned(journal)
        assert only(journal).state == "due"
        fake.readings = there
        with journal.opened() as store:
            (entry,) = store.open_entries()
        assert settle(journal, entry, fake).outcome == "finished"
        assert (only(journal).state, only(journal).content) == ("waiting", CREATED)

    def test_one_that_stands(self, journal: Journal) -> None:
        """The snapshot is there, and the guest stays frozen."""
        fake = guest()
        fake.fails["thaw"] = NotThawed("no answer")
        update = volume_snapshot_create(
            fake, "1", CREATE_INFO, quiesce="require", journal=journal, addressee=WHO
        )
        assert isinstance(update.error, NotThawed)
        assert (status(update), only(journal).state) == ("creating", "due")
        with journal.opened() as store:
            (entry,) = store.open_entries()
        settle(journal, entry, fake)
        assert only(journal).content == CREATED

    def test_nothing_was_begun(self, journal: Journal) -> None:
        fake = guest()
        fake.fails["read"] = LostInMidCommand("query-block", "gone")
        assert status(create(fake, journal)) == "creating"
        answer_abandoned(journal)
        content = only(journal).content
        assert content is not None
        assert content.outcome == "failed"

    def test_ctrl_c(self, journal: Journal) -> None:
        fake = guest(JobView(status=JobStatus.RUNNING))
        fake.fails["wait"] = KeyboardInterrupt()
        with pytest.raises(BaseException):  # noqa: B017, PT011  # Interrupted, tested elsewhere
            delete(fake, journal)
        assert only(journal).state == "due"

    def test_what_takes_the_job_up_tells_for_both(self, journal: Journal) -> None:
        """The volume service has died as well, and asks by another token."""
        first = guest(JobView(status=JobStatus.RUNNING))
        first.fails["wait"] = KeyboardInterrupt()
        with pytest.raises(BaseException):  # noqa: B017, PT011  # Interrupted, tested elsewhere
            delete(first, journal)
        second = guest()
        second.left_running = True
        other = Addressee(snapshot="other", volume="1", project="p", after={})
        info = DELETE_INFO | {"operation": "another"}
        volume_snapshot_delete(second, "1", "other", info, journal=journal, addressee=other)
        assert [one.content for one in letters(journal)] == [DELETED, DELETED]
        assert len({one.operation for one in letters(journal)}) == 1

    def test_it_is_there_and_nobody_knows_since_when(self, journal: Journal) -> None:
        fake = guest()
        volume_snapshot_create(fake, "1", CREATE_INFO, journal=None)
        update = create(fake, journal)
        assert status(update) == "creating"
        letter = only(journal)
        assert (letter.state, letter.content) == ("dead", None)
        assert "volume-1.new" in (letter.answer or "")


class TestAskedAgain:
    def test_of_what_was_finished(self, journal: Journal) -> None:
        fake = guest()
        create(fake, journal)
        update = create(fake, journal)
        assert update.error is None
        assert [one.content for one in letters(journal)] == [CREATED, CREATED]


class TestNotWritten:
    def test_at_the_beginning_nothing_is_touched(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise JournalUnwritable("journal.db", "database or disk is full")

        monkeypatch.setattr("qmpsnap.journal.letters.Letters.expect", full)
        fake = guest()
        update = create(fake, journal)
        assert isinstance(update.error, JournalUnwritable)
        assert (status(update), update.letter, fake.calls) == ("error", None, [])

    def test_at_the_end_the_body_is_to_be_sent(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise JournalUnwritable("journal.db", "database or disk is full")

        monkeypatch.setattr(Store, "conclude", full)
        update = create(guest(), journal)
        assert (status(update), update.letter) == ("creating_compute_complete", None)
        assert only(journal).state == "due"
        monkeypatch.setattr("qmpsnap.journal.letters.Letters.answer", full)
        assert create(guest(), journal, id="other").letter is None

    def test_there_has_to_be_one(self) -> None:
        with pytest.raises(ValueError, match="journal"):
            create(guest(), None)
