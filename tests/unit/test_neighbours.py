"""Who has a file open: by what it is, not by what it is called."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qmpsnap.guests.files import neighbours
from qmpsnap.guests.files.around import around
from qmpsnap.guests.files.neighbours import other_users
from tests.unit import samples

Hold = Callable[[Path], int]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have another process open a file; returns its pid."""
    with ExitStack() as stack:

        def hold(path: Path) -> int:
            with path.open("rb") as file:
                process = stack.enter_context(
                    subprocess.Popen(["cat"], stdin=subprocess.PIPE, stderr=file)
                )
            return process.pid

        yield hold


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    made = [tmp_path / name for name in ("top", "base", "other")]
    for path in made:
        path.write_bytes(b"x")
    return made[0], made[1], made[2]


def users_of(*paths: Path, active: Path | None = None) -> dict[str, tuple[str, ...]]:
    users, _ = other_users([str(path) for path in paths], str(active or ""))
    return users


def test_another_process(files: tuple[Path, ...], hold: Hold) -> None:
    top, base, _ = files
    pid = hold(base)
    assert users_of(top, base) == {str(base): (f"cat (pid {pid})",)}


@pytest.mark.parametrize("how", ["hard link", "symbolic link", "unlinked"])
def test_under_another_name(files: tuple[Path, ...], hold: Hold, how: str) -> None:
    _, base, _ = files
    there = base.with_name("there")
    match how:
        case "hard link":
            there.hardlink_to(base)
        case "symbolic link":
            there.symlink_to(base)
        case _:
            there.hardlink_to(base)
    pid = hold(there)
    if how == "unlinked":
        there.unlink()
    assert users_of(base) == {str(base): (f"cat (pid {pid})",)}


def test_another_file_of_the_same_name(files: tuple[Path, ...], hold: Hold) -> None:
    _, base, other = files
    hold(base)
    other.replace(base)
    assert users_of(base) == {}


def test_the_guests_own_process_and_this_one(files: tuple[Path, ...]) -> None:
    top, base, _ = files
    with top.open("rb") as active, base.open("rb") as lower:
        qemu = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=lower, stderr=active)
        with qemu:
            assert users_of(top, base, active=top) == {}
            assert other_users([str(base)], str(top), qemu=qemu.pid) == ({}, ())
            assert users_of(base) == {str(base): (f"cat (pid {qemu.pid})",)}


def test_who_reads_the_active_file_is_not_qemu(files: tuple[Path, ...], hold: Hold) -> None:
    """Where its process is known, everybody else is somebody else."""
    top, base, _ = files
    pid = hold(top)
    assert users_of(top, base, active=top) == {}
    users, _ = other_users([str(top), str(base)], str(top), qemu=os.getppid())
    assert users == {str(top): (f"cat (pid {pid})",)}


def test_what_is_no_image(tmp_path: Path, hold: Hold) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    hold(fifo)
    assert users_of(fifo, Path("/dev/null"), tmp_path, tmp_path / "gone") == {}
    os.close(keep)


def test_only_what_can_be_an_image_is_looked_at(
    files: tuple[Path, ...], hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, base, _ = files
    pid = hold(base)
    looked: list[str] = []
    stat = os.stat

    def noting(path: str) -> os.stat_result:
        looked.append(path)
        return stat(path)

    monkeypatch.setattr("qmpsnap.guests.files.neighbours.os.stat", noting)
    neighbours._opened(f"/proc/{pid}/fd")
    assert {os.readlink(path).partition(":")[0] for path in looked}.isdisjoint({"pipe", "socket"})
    assert any(os.readlink(path) == str(base) for path in looked)


class TestLeft:
    """Files that have left a chain: nobody at all is expected to have them open."""

    def users_of(self, *paths: Path) -> dict[str, tuple[str, ...]]:
        users, _ = other_users([str(path) for path in paths], "", left=True)
        return users

    def test_no_walk_where_nobody_has_them(
        self, files: tuple[Path, ...], leases: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def not_needed(folder: str) -> set[object]:
            raise AssertionError(folder)

        monkeypatch.setattr(neighbours, "_opened", not_needed)
        assert self.users_of(*files) == {}

    def test_one_is_in_use(self, files: tuple[Path, ...], hold: Hold) -> None:
        top, base, _ = files
        pid = hold(base)
        assert self.users_of(top, base) == {str(base): (f"cat (pid {pid})",)}

    def test_file_systems_without_leases(
        self, files: tuple[Path, ...], hold: Hold, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_lease(descriptor: int, command: int, argument: int = 0) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr("qmpsnap.guests.files.lease.fcntl.fcntl", no_lease)
        top, base, _ = files
        pid = hold(base)
        assert self.users_of(top, base) == {str(base): (f"cat (pid {pid})",)}


class TestLoopDevices:
    """No process has the file open: the kernel does."""

    @pytest.fixture
    def base(
        self, files: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        (tmp_path / "block" / "loop7" / "loop").mkdir(parents=True)
        (tmp_path / "block" / "loop7" / "loop" / "backing_file").write_text(f"{files[1]}\n")
        monkeypatch.setattr(neighbours, "_LOOP", str(tmp_path / "block"))
        return files[1]

    def test_one_that_reads_a_layer(self, base: Path) -> None:
        assert users_of(base.with_name("top"), base) == {str(base): ("/dev/loop7",)}

    def test_beside_a_process(self, base: Path, hold: Hold) -> None:
        pid = hold(base)
        assert users_of(base) == {str(base): (f"cat (pid {pid})", "/dev/loop7")}


class TestLeftAndSomebodyHasIt:
    """A file that is to be removed next, which the kernel says is open, and no process shows."""

    @pytest.mark.parametrize(
        ("is_open", "hidden", "told"),
        [
            (True, 0, "somebody who cannot be seen: another container, or the kernel"),
            (True, 3, "somebody who cannot be seen: another container, or the kernel"),
            (None, 3, "perhaps a process of another user, which cannot be looked at"),
            (None, 0, None),
            (False, 3, None),
        ],
    )
    def test_who(
        self,
        files: tuple[Path, ...],
        is_open: bool | None,
        hidden: int,
        told: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        base = str(files[1])
        monkeypatch.setattr(neighbours, "is_open_elsewhere", lambda _path: is_open)
        monkeypatch.setattr(neighbours, "processes_with", lambda *_: ({}, 1, hidden))
        users, notes = other_users([base], "", left=True)
        assert users == ({base: (told,)} if told else {})
        assert len(notes) == (hidden > 0 and is_open is not False)
        assert other_users([base], "")[0] == {}, "who writes into it is another question"


def test_processes_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept_from_us(folder: str) -> set[object]:
        if folder != f"/proc/{os.getpid()}/fd":
            raise PermissionError(folder)
        return set()

    monkeypatch.setattr(neighbours, "_opened", kept_from_us)
    base = tmp_path / "base"
    base.touch()
    users, (note,) = other_users([str(base)], "")
    assert users == {}
    assert "processes of other users could not be looked at" in note


class TestLocksOfQemu:
    """A QEMU of another host has no process here, but its locks are known to the file system."""

    @pytest.fixture(autouse=True)
    def _elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(neighbours, "processes_with", lambda *_: ({}, 1, 0))
        monkeypatch.setattr(neighbours, "is_open_elsewhere", lambda _path: None)

    def around(self, *files: Path, left: bool, runs: bool) -> dict[str, tuple[str, ...]]:
        layers = tuple(samples.layer(path.name, path=str(path)) for path in files)
        paths = [str(path) for path in files] if left else None
        disk = samples.disk(layers=layers, root=None)
        return dict(around(disk, paths, runs=runs).readers)

    @pytest.mark.parametrize("byte", [100, 263])
    @pytest.mark.parametrize(
        ("left", "runs", "told"), [(True, True, True), (False, False, True), (False, True, False)]
    )
    def test_of_one_file(
        self, files: tuple[Path, ...], byte: int, left: bool, runs: bool, told: bool
    ) -> None:
        top, base, _ = files
        with base.open("r+b") as locked:
            lock = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(locked, fcntl.F_OFD_SETLK, lock)
            expected = {str(base): ("a QEMU of this or another host, by its locks",)}
            assert self.around(top, base, left=left, runs=runs) == (expected if told else {})
        assert self.around(top, base, left=left, runs=runs) == {}
