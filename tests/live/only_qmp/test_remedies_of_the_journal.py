"""What errors of the journal, and of `resume`, advise, run in the state in which they are printed."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does, Step
from tests.rig.doors import Killed, at, dying_at, with_door
from tests.rig.jobs import fill, small_file_system
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, Rig, run_cli
from tests.rig.roads import MakeRig
from tests.rig.state_folder import own_state

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder."""
    return own_state(tmp_path_factory, monkeypatch)


@pytest.fixture
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    with make_rig("raw") as rig:
        yield rig


def refused(rig: Rig, error: str) -> str:
    """A snapshot that the journal does not let be taken; returns the way out."""
    said = rig.cli("create", DISK, "s1", "-o", "json")
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (4, error), said
    assert rig.files() == [BASE]
    return str(told["remedy"])


def taken(rig: Rig, *options: str) -> None:
    assert rig.cli("create", DISK, "s1", *options).code == 0
    assert rig.files() == [f"{BASE}.s1", BASE]


def killed(rig: Rig) -> str:
    """The tool dies when the guest is on its new file; returns the operation's id."""
    with rig.host() as host, pytest.raises(Killed):
        created(Journal(), dying_at(host, Does.SWITCH, "after"), (NEW,))
    (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
    assert entry["outcome"] == "open"
    return str(entry["id"])


WAYS = ["mend", "another folder", "without"]


@remedy("JournalUnusable")
@pytest.mark.parametrize("way", WAYS)
def test_folder_that_others_can_write(
    rig: Rig,
    state: Path,
    way: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state.chmod(0o777)
    assert "name another folder in QMPSNAP_STATE" in refused(rig, "JournalUnusable")
    if way == "mend":
        state.chmod(0o700)
    elif way == "another folder":
        own_state(tmp_path_factory, monkeypatch)
    taken(rig, *(["--no-journal"] if way == "without" else []))


@remedy("JournalUnwritable")
@pytest.mark.parametrize("way", WAYS)
def test_disk_that_is_full(
    rig: Rig,
    state: Path,
    way: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with small_file_system(state, 1):
        state.chmod(0o700)
        filler = fill(state, 0)
        assert "name another folder in QMPSNAP_STATE" in refused(rig, "JournalUnwritable")
        if way == "mend":
            filler.unlink()
        elif way == "another folder":
            own_state(tmp_path_factory, monkeypatch)
        taken(rig, *(["--no-journal"] if way == "without" else []))


@remedy("StateOnNetwork")
def test_state_on_a_share(
    rig: Rig,
    state: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No share can be mounted here: what the mount table says is set in its place."""
    where = "qmpsnap.journal.folder._file_system"
    monkeypatch.setattr(where, lambda folder: "nfs4" if folder == state else "ext4")
    assert "on a local disk" in refused(rig, "StateOnNetwork")
    own_state(tmp_path_factory, monkeypatch)
    taken(rig)


@remedy("JournalNewer")
def test_journal_of_a_newer_version(
    rig: Rig,
    state: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Journal().opened():
        pass
    with closing(sqlite3.connect(Journal().path)) as database:
        database.execute("PRAGMA user_version=1000000")
    before = Journal().path.read_bytes()
    assert "name another folder in QMPSNAP_STATE" in refused(rig, "JournalNewer")
    own_state(tmp_path_factory, monkeypatch)
    taken(rig)
    assert (state / "journal.db").read_bytes() == before


@remedy("JournalDamaged")
def test_journal_that_is_damaged(rig: Rig) -> None:
    taken(rig)
    rig.guest.write(DISK, 0, 65536, 1)
    with rig.host() as host, pytest.raises(Killed):
        created(Journal(), dying_at(host, Does.SWITCH, "after"), (NEW,))
    content = rig.guest.read_sha256(DISK)
    (marker,) = rig.folder.glob(".qmpsnap-*")
    path = Journal().path
    damage(path, b'"does":"switch"')
    said = rig.cli("create", DISK, "s2")
    assert (said.code, "is damaged" in said.err) == (4, True), said
    shown = run_cli(["log", "-o", "json"])
    assert shown.code == 0, shown
    assert len(shown.json["operations"]) == 2
    path.rename(path.with_name("aside.db"))
    said = run_cli(["resume", str(marker), "-o", "json"])
    assert said.code == 0, said
    assert said.json["operations"][0]["outcome"] == "finished"
    assert not marker.exists()
    assert rig.cli("create", DISK, "s2").code == 0
    assert rig.files() == [f"{BASE}.s2", f"{BASE}.new", f"{BASE}.s1", BASE]
    assert rig.guest.read_sha256(DISK) == content


def damage(path: Path, near: bytes) -> None:
    """Make the page of a database unreadable that some words are on."""
    with closing(
        sqlite3.connect(path)
    ) as database:  # Python 3.12 leaves what was written beside it
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    place = content.index(near) // 4096 * 4096
    content[place : place + 16] = b"\xff" * 16
    path.write_bytes(content)


@remedy("NoWay")
@pytest.mark.parametrize("is_known", [True, False])
def test_operation_without_the_way_to_its_guest(rig: Rig, is_known: bool) -> None:
    """A program has taken the snapshot over a monitor of its own, of a QEMU that it knows or not."""
    with closing(SocketMonitor.connect(rig.road[1])) as monitor:
        guest = QmpGuest(monitor, pid=monitor.pid if is_known else None)
        with pytest.raises(Killed):
            created(Journal(), dying_at(guest, Does.SWITCH, "after"), (NEW,))
    (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
    said = run_cli(["resume", entry["id"], "-o", "json"])
    (one,) = said.json["operations"]
    assert (said.code, one["outcome"]) == (6, "unknown"), said
    assert f"`qmpsnap --qmp SOCKET resume {entry['id']}`" in one["notes"][0]
    said = run_cli(["--qmp", rig.road[1], "resume", entry["id"], "-o", "json"])
    assert said.code == 0, said
    assert said.json["operations"][0]["outcome"] == "finished"
    assert rig.cli("create", DISK, "s2").code == 0


@remedy("CannotTake")
def test_nothing_to_decide(rig: Rig) -> None:
    operation = killed(rig)
    said = run_cli(["resume", operation, "--take", "base"])
    assert (said.code, f"`qmpsnap resume {operation}` settles it" in said.err) == (4, True), said
    assert run_cli(["resume", operation]).code == 0
    assert rig.files() == [f"{BASE}.new", BASE]


def test_guest_without_a_way_that_is_gone(rig: Rig) -> None:
    """Its QEMU was known, and is not there any more: the files tell."""
    with closing(SocketMonitor.connect(rig.road[1])) as monitor:
        guest = QmpGuest(monitor, pid=monitor.pid)
        with pytest.raises(Killed):
            created(Journal(), dying_at(guest, Does.SWITCH, "after"), (NEW,))
    rig.guest.write(DISK, 0, 65536, 1)
    rig.guest.qemu_io(DISK, "flush")
    rig.kill()
    said = run_cli(["resume", "-o", "json"])
    assert said.code == 0, said
    (one,) = said.json["operations"]
    assert (one["outcome"], one["active"]) == ("finished", str(rig.folder / f"{BASE}.new"))


@remedy("MarkerUntrusted")
def test_marker_that_is_not_acted_on(rig: Rig) -> None:
    marker = rig.folder / f".qmpsnap-{'0' * 32}"
    marker.write_text("{}")
    said = rig.cli("create", DISK, "s1")
    assert (said.code, "the marker" in said.err) == (4, True), said
    said = run_cli(["resume", str(marker)])
    assert (said.code, "when no operation is open, remove it" in said.err) == (4, True), said
    assert run_cli(["log", "-o", "json"]).json["operations"] == []
    marker.unlink()
    taken(rig)


def test_marker_of_an_operation_that_has_failed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share hangs for a moment when it is to be removed; the error says so, as nothing else can."""

    def refuse(_step: Step) -> None:
        raise CommandFailed("transaction", "GenericError", "busy")

    with monkeypatch.context() as patch, rig.host() as host:
        patch.setattr("qmpsnap.guests.files.door.remove_marker", hang)
        with pytest.raises(CommandFailed) as caught:
            created(Journal(), with_door(host, before=at(Does.SWITCH, refuse)), (NEW,))
    (marker,) = rig.folder.glob(".qmpsnap-*")
    command = f"qmpsnap resume {marker}"
    assert f"`{command}` takes it away" in caught.value.way_out
    said = rig.cli("create", DISK, "s1")
    assert (said.code, f"`{command}`" in said.err) == (4, True), said
    said = run_cli([*command.split()[1:], "--plan"])
    assert (said.code, "is still there" in said.out) == (0, True), said
    with monkeypatch.context() as patch:
        patch.setattr("qmpsnap.guests.files.door.remove_marker", hang)
        said = run_cli(command.split()[1:])
        assert (said.code, "cannot remove" in said.err) == (1, True), said
    said = run_cli(command.split()[1:])
    assert (said.code, "was left: removed" in said.out) == (0, True), said
    taken(rig)


def hang(_path: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
