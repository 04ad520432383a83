"""The QEMU of a guest of libvirt, by libvirt's own note."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.guests.libvirt.process import _folder, pid_of

UUID = "22370f71-a2f1-4a54-9667-9942b5ee320f"


class Domain:
    """What is asked of a `virDomain`; it is its own connection."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def connect(self) -> Domain:
        return self

    def getURI(self) -> str:
        return self._uri

    def name(self) -> str:
        return "web 1"

    def UUIDString(self) -> str:
        return UUID


@pytest.fixture
def pid() -> Iterator[int]:
    """A process that looks like the guest's."""
    command = ["qemu-system-x86_64", "-c", "read line", "-uuid", UUID]
    with subprocess.Popen(command, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        while UUID.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            pass  # for a moment in execve() a process has none
        yield process.pid
        process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run" / "qemu"
    made.mkdir(parents=True)
    return made


def test_as_libvirt_notes_it(tmp_path: Path, folder: Path, pid: int) -> None:
    (folder / "web 1.pid").write_text(f"{pid}\n")
    assert pid_of(Domain(f"qemu:///embed?root={tmp_path}")) == pid
    assert pid_of(Domain(f"qemu+ssh://other/embed?root={tmp_path}")) is None


@pytest.mark.parametrize("text", ["", "x", str(2**31 - 1), "1"])
def test_a_note_that_is_stale_or_is_not_one(tmp_path: Path, folder: Path, text: str) -> None:
    (folder / "web 1.pid").write_text(text)
    assert pid_of(Domain(f"qemu:///embed?root={tmp_path}")) is None


def test_no_note(tmp_path: Path) -> None:
    assert pid_of(Domain(f"qemu:///embed?root={tmp_path}")) is None


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("qemu:///system", "/run/libvirt/qemu"),
        ("qemu:///session", "/run/user/1000/libvirt/qemu/run"),
        ("qemu:///embed?root=/a/b", "/a/b/run/qemu"),
        ("qemu:///embed", None),
        ("test:///default", None),
    ],
)
def test_where_it_lies(uri: str, folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert _folder(uri) == folder


def test_a_session_without_a_run_time_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert _folder("qemu:///session") is None
