"""Connections to a journal that a service keeps open: as good as new ones, and not checked each time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from qmpsnap.journal import folder as folders
from qmpsnap.journal import schema
from qmpsnap.journal.file import Journal
from qmpsnap.journal.folder import JournalUnusable, StateOnNetwork
from qmpsnap.journal.record import Conclusion
from qmpsnap.journal.schema import JournalDamaged, JournalNewer, JournalUnwritable
from qmpsnap.journal.spare import Spare
from tests.unit.journal_samples import act, merging

FINISHED = Conclusion(outcome="finished", ended=2000.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def journal(folder: Path) -> Journal:
    return Journal(folder, keeps_open=True)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every connection that is made from now on."""
    made: list[str] = []
    connect = sqlite3.connect

    def counted(name: str, **more: object) -> sqlite3.Connection:
        made.append(name)
        return connect(name, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", counted)
    return made


def ids(journal: Journal) -> list[str]:
    store = journal.looked_into()
    assert store is not None
    with store:
        return [one.record.id for one in store.entries()]


def test_one_connection_serves_all_uses(journal: Journal, connected: list[str]) -> None:
    with journal.opened() as store:
        store.begin(merging("one"), [act(1)])
    connected.clear()
    for _ in range(5):
        with journal.opened() as store:
            store.go_on("one", [(1, "done")], [])
        assert ids(journal) == ["one"]
    assert connected == []


def test_without_it_each_use_has_its_own(folder: Path, connected: list[str]) -> None:
    journal = Journal(folder)
    for _ in range(2):
        with journal.opened():
            pass
    assert len(connected) == 3  # one made it


def test_the_log_is_not_written_back_at_every_end(journal: Journal, folder: Path) -> None:
    with journal.opened() as store:
        store.begin(merging("one"), [act(1)])
    assert (folder / "journal.db-wal").stat().st_size > 0


def test_several_at_once(journal: Journal) -> None:
    with journal.opened() as one, journal.opened() as other:
        one.begin(merging("one"), [act(1)])
        other.begin(merging("other"), [act(1)])
    assert sorted(ids(journal)) == ["one", "other"]


def test_one_that_was_given_back_is_not_used_any_more(journal: Journal) -> None:
    with journal.opened() as store:
        pass
    store.close()
    with pytest.raises(JournalUnusable):
        store.begin(merging("one"), [act(1)])
    assert ids(journal) == []


def test_what_others_write_is_seen(journal: Journal, folder: Path) -> None:
    with journal.opened() as store:
        store.begin(merging("one"), [act(1)])
        assert store.entry("one") is not None  # the first row of an answer that is not read further
    with Journal(folder).opened() as store:
        store.conclude(merging("one"), FINISHED)
    with journal.opened() as store:
        entry = store.entry("one")
    assert entry is not None
    assert entry.conclusion == FINISHED


def test_one_that_only_looks_writes_nothing_and_the_next_one_does(journal: Journal) -> None:
    with journal.opened():
        pass
    store = journal.looked_into()
    assert store is not None
    with store, pytest.raises(JournalUnwritable):
        store.begin(merging("one"), [act(1)])
    with journal.opened() as store:
        store.begin(merging("one"), [act(1)])
    assert ids(journal) == ["one"]


def test_another_file_has_the_name_of_the_journal(journal: Journal, folder: Path) -> None:
    with journal.opened() as store:
        store.begin(merging("one"), [act(1)])
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (folder / name).unlink()
    with journal.opened() as store:
        store.begin(merging("other"), [act(1)])
    assert ids(Journal(folder)) == ["other"]


def test_the_database_is_checked_again_after_a_while(
    journal: Journal, folder: Path, connected: list[str]
) -> None:
    now = [0.0]
    journal._spare = Spare(lambda: now[0])
    with journal.opened():
        pass
    connected.clear()
    now[0] = 599.0
    with journal.opened():
        pass
    assert connected == []
    now[0] = 601.0
    (folder / "journal.db").write_bytes(b"x" * 8192)
    with pytest.raises(JournalDamaged):
        journal.opened()


def test_a_connection_that_has_failed_is_not_kept(journal: Journal, connected: list[str]) -> None:
    with (
        journal.opened() as store,
        pytest.raises(JournalUnwritable),
        store.telling() as database,
    ):
        database.execute("SELECT * FROM nothing")
    connected.clear()
    with journal.opened():
        pass
    assert len(connected) == 1


def test_a_process_that_is_killed_loses_nothing(folder: Path) -> None:
    work = (
        "import os, sys; from pathlib import Path\n"
        "from qmpsnap.journal.file import Journal\n"
        "from tests.unit.journal_samples import act, merging\n"
        "journal = Journal(Path(sys.argv[1]), keeps_open=True)\n"
        "for name in ('one', 'two'):\n"
        "    with journal.opened() as store: store.begin(merging(name), [act(1)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", work, folder], cwd=root, check=False)
    assert done.returncode == -9
    assert ids(Journal(folder)) == ["one", "two"]


def test_a_newer_program_has_updated_it_meanwhile(journal: Journal, folder: Path) -> None:
    with journal.opened():
        pass
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        database.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    with pytest.raises(JournalNewer):
        journal.opened()
    with pytest.raises(JournalNewer):
        journal.looked_into()


def test_the_mounts_are_read_once_for_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def file_system(of: Path) -> str:
        asked.append(of)
        return "ext4"

    monkeypatch.setattr(folders, "file_system", file_system)
    for _ in range(3):
        folders.checked(folder, make=True)
    assert len(asked) == 1
    (folder / "new").mkdir(mode=0o700)
    (folder / "new").rename(folder / "other")
    folders.checked(folder / "other", make=True)
    assert len(asked) == 2


def test_a_share_that_is_mounted_over_the_folder_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file system has another folder: here another inode stands for it."""
    monkeypatch.setattr(folders, "file_system", lambda _: "ext4")
    state = folder / "state"
    folders.checked(state, make=True)
    folders.checked(state, make=True)
    state.rename(folder / "below")
    state.mkdir(mode=0o700)
    monkeypatch.setattr(folders, "file_system", lambda _: "nfs4")
    with pytest.raises(StateOnNetwork):
        folders.checked(state, make=True)
