"""Locks of one operation: between processes, dropped with whoever held them, on a byte of their own."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import bytes as locked_bytes
from qmpsnap.guests.files.bytes import BYTE, in_use_by_qemu
from qmpsnap.guests.files.door import take_file
from qmpsnap.guests.files.locks import Claim, DiskLocked, NotOurs
from qmpsnap.operations.step import Does, Step

HOLD = """
import sys
from qmpsnap.guests.files.locks import Claim
claim = Claim()
claim.take(sys.argv[1:])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "volume-1"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def claim() -> Iterator[Claim]:
    with closing(Claim()) as claim:
        yield claim


@pytest.fixture
def other(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file locked."""
    words = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_given_back_also_while_a_child_has_a_copy(file: Path) -> None:
    """A process that was just forked has all descriptors, until it closes them or runs a program."""
    first = Claim()
    first.take([str(file)])
    copies = [
        os.dup(int(one.name))
        for one in Path("/proc/self/fd").iterdir()
        if os.path.realpath(one) == str(file)
    ]
    assert copies
    first.close()
    with closing(Claim()) as second:
        second.take([str(file)])
    for copy in copies:
        os.close(copy)


def locked(path: Path) -> list[tuple[int, int]]:
    """First and last byte of every lock of this process on a file, as the kernel lists them."""
    end = f":{path.stat().st_ino} "
    found = []
    for number in os.listdir("/proc/self/fdinfo"):
        with suppress(OSError):
            for line in Path(f"/proc/self/fdinfo/{number}").read_text().splitlines():
                if line.startswith("lock:") and end in line:
                    assert "OFDLCK" in line
                    assert "WRITE" in line
                    found.append((int(line.split()[-2]), int(line.split()[-1])))
    return found


def qemu_locks(path: Path, start: int) -> int:
    """Lock a byte as QEMU does; returns the descriptor."""
    descriptor = os.open(path, os.O_RDWR)
    lock = locked_bytes._LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    return descriptor


class TestTaken:
    def test_one_byte_far_from_those_of_qemu(self, file: Path, claim: Claim) -> None:
        claim.take([str(file)])
        assert locked(file) == [(BYTE, BYTE)]
        assert BYTE > 2**50
        assert claim.notes == ()
        assert file.read_bytes() == b"x"

    def test_another_process_is_refused_at_once_and_told_who(
        self, file: Path, claim: Claim, other: subprocess.Popen[str]
    ) -> None:
        with pytest.raises(DiskLocked) as caught:
            claim.take([str(file)])
        assert (caught.value.exit_code, caught.value.changed) == (4, "no")
        assert f"(pid {other.pid})" in str(caught.value)

    def test_it_goes_with_its_holder(
        self, file: Path, claim: Claim, other: subprocess.Popen[str]
    ) -> None:
        other.kill()
        other.wait()
        claim.take([str(file)])

    def test_two_operations_of_one_process(self, file: Path, claim: Claim) -> None:
        with closing(Claim()) as second:
            second.take([str(file)])
            with pytest.raises(DiskLocked):
                claim.take([str(file)])
        claim.take([str(file)])

    def test_by_any_name_and_only_once(self, file: Path, claim: Claim, tmp_path: Path) -> None:
        link, second = tmp_path / "link", tmp_path / "second"
        link.symlink_to(file)
        second.hardlink_to(file)
        claim.take([str(file), str(link), str(second)])
        assert locked(file) == [(BYTE, BYTE)]
        with closing(Claim()) as late, pytest.raises(DiskLocked):
            late.take([str(second)])

    def test_a_look_at_the_file_does_not_drop_it(self, file: Path, claim: Claim) -> None:
        """As a POSIX lock would be."""
        claim.take([str(file)])
        file.read_bytes()
        assert locked(file) == [(BYTE, BYTE)]

    def test_it_ends_with_the_operation(self, file: Path, claim: Claim) -> None:
        claim.take([str(file)])
        claim.close()
        assert locked(file) == []

    def test_what_is_no_image(self, tmp_path: Path, claim: Claim) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        claim.take([str(fifo), str(tmp_path), str(tmp_path / "gone"), "/dev/null"])
        assert claim.notes == ()

    def test_whose_it_is(self, file: Path, claim: Claim, other: subprocess.Popen[str]) -> None:
        assert claim.is_anothers(str(file))
        other.kill()
        other.wait()
        assert not claim.is_anothers(str(file))
        claim.take([str(file)])
        assert not claim.is_anothers(str(file))


class TestInTheRunTimeFolder:
    """Where a file may not be written."""

    @pytest.fixture(autouse=True)
    def _read_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.open

        def opened(path: object, flags: int, mode: int = 0o777, **more: Any) -> int:
            if str(path).endswith("volume-1") and flags & os.O_RDWR:
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, flags, mode, **more)  # type: ignore[arg-type]

        monkeypatch.setattr("qmpsnap.guests.files.locks.os.open", opened)

    @pytest.fixture
    def run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "run"
        folder.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        return folder / "qmpsnap"

    def test_is_locked_there_and_said(self, file: Path, claim: Claim, run: Path) -> None:
        claim.take([str(file)])
        (note,) = claim.notes
        assert note == (
            f"the lock on {file} is in {run} (Permission denied): only this user's calls are kept "
            "away"
        )
        assert locked(file) == []
        with closing(Claim()) as second, pytest.raises(DiskLocked):
            second.take([str(file)])

    def test_who_may_write_it_is_heeded(
        self, file: Path, claim: Claim, run: Path, other: subprocess.Popen[str]
    ) -> None:
        with pytest.raises(DiskLocked):
            claim.take([str(file)])

    def test_there_is_none(
        self, file: Path, claim: Claim, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run.parent.chmod(0o777)  # anybody could put a file there
        claim.take([str(file)])
        (note,) = claim.notes
        assert note.startswith(f"no lock could be had on {file}")


class TestTakenBack:
    """An overlay goes again only while it is certainly still ours."""

    @pytest.fixture
    def made(self, file: Path, claim: Claim) -> Path:
        claim.made(str(file), os.open(file, os.O_RDWR))
        return file

    def take_back(self, path: Path, claim: Claim | None) -> None:
        where = {"path": str(path)}
        take_file(Step(does=Does.DISCARD, by="file", what="unlink", arguments=where), claim)

    def test_nobody_has_taken_it(self, made: Path, claim: Claim) -> None:
        self.take_back(made, claim)
        assert not made.exists()
        self.take_back(made, claim)  # there is nothing to do

    def test_somebody_has_it_open(self, made: Path, claim: Claim) -> None:
        with made.open("rb"), pytest.raises(NotOurs, match="somebody has it open") as caught:
            self.take_back(made, claim)
        assert caught.value.changed == "no"
        assert made.exists()

    def test_another_file_has_its_name(self, made: Path, claim: Claim, tmp_path: Path) -> None:
        theirs = tmp_path / "theirs"
        theirs.touch()
        theirs.replace(made)
        with pytest.raises(NotOurs, match="another file has its name"):
            self.take_back(made, claim)
        assert made.exists()

    def test_it_was_made_by_another_call(self, file: Path, claim: Claim) -> None:
        with pytest.raises(NotOurs, match="this call has not made it"):
            self.take_back(file, claim)
        assert file.exists()

    def test_without_leases(
        self, made: Path, claim: Claim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On NFS, for one: QEMU's locks are known even of other hosts, processes of this one."""
        real = fcntl.fcntl

        def no_lease(descriptor: int, command: int, argument: bytes | int = 0) -> object:
            if command == fcntl.F_SETLEASE:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(descriptor, command, argument)

        monkeypatch.setattr("qmpsnap.guests.files.locks.fcntl.fcntl", no_lease)
        hidden = 0
        monkeypatch.setattr(
            "qmpsnap.guests.files.locks.processes_with", lambda _keys: ({}, 1, hidden)
        )
        qemu = qemu_locks(made, 100)
        with pytest.raises(NotOurs, match="a QEMU has it open"):
            self.take_back(made, claim)
        os.close(qemu)
        hidden = 3
        with pytest.raises(NotOurs, match="3 processes could not be looked at"):
            self.take_back(made, claim)
        hidden = 0
        self.take_back(made, claim)
        assert not made.exists()


@pytest.mark.parametrize(
    ("byte", "used"),
    [(0, False), (1, False), (99, False), (100, True), (163, True), (164, False), (200, True),
     (263, True), (264, False), (BYTE, False)],
)  # fmt: skip
def test_locks_of_qemu(file: Path, byte: int, used: bool) -> None:
    qemu = qemu_locks(file, byte)
    assert in_use_by_qemu(str(file)) == used
    os.close(qemu)
    assert not in_use_by_qemu(str(file))


def test_a_number_that_is_given_again(tmp_path: Path, file: Path, claim: Claim) -> None:
    """A file that is held keeps its number, so that what gets its name is another one."""
    claim.keep([str(file)])
    number = file.stat().st_ino
    file.unlink()
    numbers = set()
    for name in "abcdefgh":
        (tmp_path / name).touch()
        numbers.add((tmp_path / name).stat().st_ino)
    assert number not in numbers
