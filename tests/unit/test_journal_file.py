"""The journal on disk: what is in it stays, and what it cannot do is said before anything is done."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from qmpsnap.guests.files.mounts import file_system
from qmpsnap.journal import schema
from qmpsnap.journal import store as stores
from qmpsnap.journal.file import Journal
from qmpsnap.journal.folder import (
    JournalUnusable,
    StateOnNetwork,
    checked,
    state_folder,
)
from qmpsnap.journal.identities import seen
from qmpsnap.journal.knowing import mixing as mixing_in
from qmpsnap.journal.mixed import may_have_begun, states_lost
from qmpsnap.journal.record import Conclusion, Mixed, Outcome
from qmpsnap.journal.schema import JournalDamaged, JournalNewer, JournalUnwritable
from qmpsnap.journal.store import Store
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples
from tests.unit.journal_samples import act, creating, merging, without_log

GOLDEN = Path(__file__).parents[2] / "fixtures" / "journal"
FINISHED = Conclusion(outcome="finished", ended=2000.0)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    tmp_path.chmod(0o700)
    return Journal(tmp_path)


def filled(journal: Journal) -> None:
    with journal.opened() as store:
        store.begin(merging("ended"), [act(1)])
        store.conclude(merging("ended"), FINISHED, [(1, "done")])
        store.begin(merging("open"), [act(1)])
        store.go_on("open", [(1, "done")], [act(2), act(3)])


class TestStore:
    def test_an_open_operation_with_its_acts(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            (entry,) = store.open_entries()
        assert entry.record == merging("open")
        assert entry.acts == (replace(act(1), answer="done"), act(2), act(3))
        assert entry.conclusion is None

    def test_all_of_them_oldest_first(self, journal: Journal) -> None:
        filled(journal)
        store = journal.looked_into()
        assert store is not None
        with store:
            assert [one.record.id for one in store.entries()] == ["ended", "open"]
            entry = store.entry("ended")
            assert store.entry("other") is None
        assert entry is not None
        assert entry.conclusion == FINISHED
        assert entry.record == merging("ended").slim

    def test_one_conclusion(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            assert store.conclude(merging("open"), FINISHED)
            other = Conclusion(outcome="failed", ended=1.0)
            assert not store.conclude(merging("open"), other)
            entry = store.entry("open")
        assert entry is not None
        assert entry.conclusion == FINISHED

    def test_an_id_stands_for_one(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            assert store.has("open")
            assert not store.has("other")
            with pytest.raises(JournalUnusable):
                store.begin(merging("open"), [])

    def test_what_another_process_wrote_is_seen(self, journal: Journal) -> None:
        with journal.opened() as one, journal.opened() as other:
            one.begin(merging("x"), [])
            assert [entry.record.id for entry in other.open_entries()] == ["x"]

    def test_what_leads_on_is_synced_before_it_returns(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        with journal.opened() as store:
            store._database.set_trace_callback(said.append)
            store.begin(merging("x"), [act(1)])
            assert said[0] == "PRAGMA synchronous=FULL"
            said.clear()
            store.conclude(merging("x"), FINISHED)
            assert said[0] == "PRAGMA synchronous=FULL"


class TestPruned:
    def test_old_and_many(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stores, "KEEP", 2)
        now = 10 * stores.KEEP_S
        with journal.opened() as store:
            store.begin(merging("open", begun=1.0), [act(1)])
            for number in range(4):
                record = merging(f"new{number}", begun=now + number)
                store.begin(record, [act(1)])
                store.conclude(record, Conclusion(outcome="finished", ended=now + number))
            assert [one.record.id for one in store.entries()] == ["open", "new2", "new3"]
            store.begin(merging("last"), [])
            later = now + stores.KEEP_S + 3
            store.conclude(merging("last"), Conclusion(outcome="finished", ended=later))
            assert {one.record.id for one in store.entries()} == {"open", "new3", "last"}
            acts = store._database.execute("SELECT operation FROM act").fetchall()
        assert set(acts) == {("open",), ("new3",)}


class TestMixed:
    """A commit that was begun and not done is known until one of the same is done."""

    @pytest.fixture
    def mixing(self, tmp_path: Path) -> Conclusion:
        base = tmp_path / "volume-1"
        base.touch()
        found = seen(str(base))
        assert found is not None
        mixed = Mixed(files=(found,), into="/share/volume-1", of="/share/volume-1.s1")
        return Conclusion(outcome="failed", ended=1.0, mixed=mixed)

    def test_never_forgotten(self, journal: Journal, mixing: Conclusion) -> None:
        with journal.opened() as store:
            store.begin(merging("half"), [act(1)])
            store.conclude(merging("half"), mixing)
            store.begin(creating("later"), [act(1)])
            store.conclude(creating("later"), Conclusion(outcome="finished", ended=9e9))
            found = mixing_in(store)
        disk = samples.disk(1)
        own = replace(disk.layers[0], path=mixing.mixed.files[0].path if mixing.mixed else None)
        lost = states_lost(found, replace(disk, layers=(own,)))
        assert list(lost) == [own.path]
        assert "operation half was to commit /share/volume-1.s1 into" in lost[str(own.path)]
        assert states_lost(found, disk) == {}

    @pytest.mark.parametrize(
        ("outcome", "request_", "is_known"),
        [
            ("finished", ("volume-1.s1", "volume-1"), False),
            ("finished", ("volume-1.s2", "volume-1"), False),
            ("finished", ("volume-1.s2", "volume-1.s1"), True),
            ("finished", (None, None), True),
            ("failed", ("volume-1.s1", "volume-1"), True),
        ],
    )
    def test_until_it_is_done(
        self,
        journal: Journal,
        mixing: Conclusion,
        outcome: Outcome,
        request_: tuple[str | None, str | None],
        is_known: bool,
    ) -> None:
        file, target = request_
        request = DeleteRequest(disk="vda", file_to_merge=file, merge_target_file=target)
        plan = plan_delete(samples.guest(samples.disk(3)), request)
        again = merging("again", merge=plan, kind=plan.kind)
        with journal.opened() as store:
            store.begin(merging("half"), [act(1)])
            store.conclude(merging("half"), mixing)
            store.begin(again, [act(1)])
            store.conclude(again, Conclusion(outcome=outcome, ended=2.0))
            assert [one.record.id for one in store.mixing()] == ["half"] * is_known

    def test_while_it_is_open(self, journal: Journal) -> None:
        with journal.opened() as store:
            store.begin(merging("half"), [replace(act(1), does="start", answer=None)])
            assert [id_ for id_, _ in mixing_in(store)] == ["half"]

    @pytest.mark.parametrize(
        ("guest", "is_known"), [("web1", False), ("web2", True)], ids=["same guest", "another"]
    )
    def test_until_it_was_pulled_up_and_committed(
        self, journal: Journal, mixing: Conclusion, guest: str, is_known: bool
    ) -> None:
        """What lies right above the base holds all that the base has been given a part of."""
        assert mixing.mixed is not None
        gone = replace(mixing, mixed=replace(mixing.mixed, of="/share/volume-1.pulled"))
        request = DeleteRequest(
            disk="vda", file_to_merge="volume-1.s2", merge_target_file="volume-1"
        )
        plan = plan_delete(samples.guest(samples.disk(3)), request)
        again = merging("again", merge=plan, kind=plan.kind, guest=guest)
        with journal.opened() as store:
            store.begin(merging("half"), [act(1)])
            store.conclude(merging("half"), gone)
            store.begin(again, [act(1)])
            store.conclude(again, Conclusion(outcome="finished", ended=2.0))
            assert [one.record.id for one in store.mixing()] == ["half"] * is_known

    @pytest.mark.parametrize(
        ("does", "answer", "begun"),
        [
            ("start", "done", True),
            ("start", None, True),
            ("start", "! LostInMidCommand: gone", True),
            ("start", "! CommandFailed: no", False),
            ("start", "! NotNow: no", False),
            ("commit", None, True),
            ("hold", "done", False),
        ],
    )
    def test_whether_its_job_was_begun(self, does: str, answer: str | None, begun: bool) -> None:
        assert may_have_begun([act(1, does=does, answer=answer)]) == begun


class TestRefused:
    @pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + b"\xff" * 5000])
    def test_damaged(self, journal: Journal, content: bytes) -> None:
        journal.path.write_bytes(content)
        with pytest.raises(JournalDamaged):
            journal.opened()
        assert journal.path.read_bytes() == content

    def test_damaged_in_the_middle_and_read_as_far_as_it_is_good(self, journal: Journal) -> None:
        with journal.opened() as store:
            for number in range(50):
                store.begin(merging(f"{number:03}", begun=float(number)), [act(1)])
        without_log(journal.path)
        content = bytearray(journal.path.read_bytes())
        place = content.index(b"/run/web1.qmp", len(content) // 2) // 4096 * 4096
        content[place : place + 16] = b"\xff" * 16
        journal.path.write_bytes(content)
        with pytest.raises(JournalDamaged):
            journal.opened()
        store_ = journal.looked_into()
        assert store_ is not None
        with store_ as store:
            store.entries()
            assert store.notes

    def test_a_row_that_is_none(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            store._database.execute("UPDATE operation SET record = '{}' WHERE id = 'open'")
            assert [one.record.id for one in store.entries()] == ["ended"]
            (note,) = store.notes
            assert "open" in note
            with pytest.raises(JournalDamaged, match="operation open"):
                store.open_entries()
            with pytest.raises(JournalDamaged, match="operation open"):
                store.entry("open")

    def test_acts_that_are_none(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            store._database.execute("UPDATE act SET act = 7")
            with pytest.raises(JournalDamaged, match="acts of operation open"):
                store.open_entries()

    def test_newer(self, journal: Journal) -> None:
        filled(journal)
        _pragma(journal.path, f"user_version={schema.VERSION + 1}")
        with pytest.raises(JournalNewer, match=f"version {schema.VERSION + 1}"):
            journal.opened()
        with pytest.raises(JournalNewer):
            journal.looked_into()

    def test_of_another_program(self, journal: Journal) -> None:
        filled(journal)
        _pragma(journal.path, "application_id=7")
        with pytest.raises(JournalDamaged, match="another program"):
            journal.opened()

    def test_full(self, journal: Journal) -> None:
        filled(journal)
        with journal.opened() as store:
            (pages,) = store._database.execute("PRAGMA page_count").fetchone()
            store._database.execute(f"PRAGMA max_page_count={pages}")
            many = [act(number) for number in range(1000)]
            with pytest.raises(JournalUnwritable, match="full"):
                store.begin(merging("large"), many)
            assert [one.record.id for one in store.open_entries()] == ["open"]

    def test_read_only(self, journal: Journal) -> None:
        filled(journal)
        with Store(journal.path, writes=False) as store, pytest.raises(JournalUnwritable):
            store.begin(merging("x"), [])

    def test_a_folder_in_its_place(self, journal: Journal) -> None:
        journal.path.mkdir()
        with pytest.raises(JournalUnusable):
            journal.opened()

    def test_no_room_for_a_new_one(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.mkstemp", full)
        with pytest.raises(JournalUnwritable, match="No space left"):
            journal.opened()
        assert not journal.path.exists()

    def test_nothing_is_made_by_looking(self, tmp_path: Path) -> None:
        assert Journal(tmp_path / "none").looked_into() is None
        assert not (tmp_path / "none").exists()
        tmp_path.chmod(0o700)
        assert Journal(tmp_path).looked_into() is None
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.db")), ids=lambda path: path.stem)
def test_every_version_that_was_ever_written_is_read(path: Path, journal: Journal) -> None:
    shutil.copy(path, journal.path)
    with journal.opened() as store:
        (entry,) = store.open_entries()
        ended = store.entry("ended")
    assert entry.record == merging("open")
    assert [one.answer for one in entry.acts] == ["done", None, None]
    assert ended is not None
    assert ended.conclusion == FINISHED


def test_there_is_one_of_this_version() -> None:
    assert (GOLDEN / f"{schema.VERSION}.db").is_file()


def test_a_new_one_has_a_write_ahead_log_from_the_beginning(journal: Journal) -> None:
    """So no rollback journal can come back, which a reader may not roll back."""
    schema.create(journal.path)
    written, read = journal.path.read_bytes()[18:20]  # sqlite.org/fileformat.html
    assert (written, read) == (2, 2)
    assert [one.name for one in journal.path.parent.iterdir()] == ["journal.db"]


class TestFolder:
    def test_each_that_is_made_is_synced_with_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr("qmpsnap.journal.folder.sync_folder", synced.append)
        for _ in range(2):
            checked(tmp_path / "state" / "qmpsnap", make=True)
        assert set(synced) == {tmp_path, tmp_path / "state"}

    def test_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QMPSNAP_STATE", "/somewhere")
        assert Journal().path == Path("/somewhere/journal.db")

    @pytest.mark.parametrize(
        ("user", "xdg", "found"),
        [
            (0, "/xdg", "/var/lib/qmpsnap"),
            (1000, "/xdg", "/xdg/qmpsnap"),
            (1000, "", "/home/ann/.local/state/qmpsnap"),
        ],
    )
    def test_else(self, monkeypatch: pytest.MonkeyPatch, user: int, xdg: str, found: str) -> None:
        monkeypatch.delenv("QMPSNAP_STATE")
        monkeypatch.setenv("XDG_STATE_HOME", xdg)
        monkeypatch.setenv("HOME", "/home/ann")
        monkeypatch.setattr("os.geteuid", lambda: user)
        assert str(state_folder()) == found

    def test_relative(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QMPSNAP_STATE", "here")
        with pytest.raises(JournalUnusable, match="absolute"):
            state_folder()

    def test_it_cannot_be_made(self) -> None:
        """Some file systems say that the folder above is not there, and it is."""
        with pytest.raises(JournalUnusable, match="No such file"):
            checked(Path("/proc/nope"), make=True)

    def test_others_can_write_into_it(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        with pytest.raises(JournalUnusable, match="others can write"):
            checked(tmp_path, make=True)

    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        with pytest.raises(JournalUnusable):
            checked(tmp_path / "state" / "qmpsnap", make=True)

    def test_on_a_share(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qmpsnap.journal.folder.file_system", lambda _: "nfs4")
        with pytest.raises(StateOnNetwork, match="nfs4"):
            checked(tmp_path, make=True)

    def test_the_mount_above_it(self, tmp_path: Path) -> None:
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
            "30 22 0:40 / /srv rw - nfs4 host:/srv rw\n"
            "31 30 8:2 / /srv/with\\040space rw - xfs /dev/sdb rw\n"
            "32 22 8:3 / /over rw - ext4 /dev/sdc rw\n"
            "33 22 0:41 / /over rw - cifs //host/over rw\n"
        )
        kinds = [
            file_system(Path(path), str(mounts))
            for path in ("/srv/a", "/srv/with space/b", "/srvx", "/over/c", "/srv")
        ]
        assert kinds == ["nfs4", "xfs", "ext4", "cifs", "nfs4"]

    def test_nobody_tells(self, tmp_path: Path) -> None:
        assert file_system(tmp_path, str(tmp_path / "none")) == ""


def _pragma(path: Path, text: str) -> None:
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA {text}")
    database.close()
