"""The door to files: what is synced, by which descriptor, and what of it is heard."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qmpsnap.guests.files.door import FileDoor, FileFailed
from qmpsnap.guests.files.merged import TablesUnseen
from qmpsnap.guests.files.steps import sync_step, unwatch_step, watch_step
from qmpsnap.operations.step import Does, Step


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.touch()
    return file


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes of what was synced."""
    found: list[int] = []
    monkeypatch.setattr("os.fsync", lambda file: found.append(os.fstat(file).st_ino))
    return found


def opened() -> set[str]:
    """What this process has open."""
    return {
        os.readlink(f"/proc/self/fd/{one}")
        for one in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{one}")
    }


def test_sync(path: Path, synced: list[int]) -> None:
    assert FileDoor().take(sync_step(str(path))) is None
    assert synced == [path.stat().st_ino]


def test_what_was_opened_before_is_synced(path: Path, synced: list[int]) -> None:
    """Only that descriptor hears of what the kernel could not write in between."""
    door, inode = FileDoor(), path.stat().st_ino
    door.take(watch_step(str(path)))
    path.rename(path.with_name("moved"))
    path.touch()
    assert door.take(sync_step(str(path))) is None
    assert synced == [inode]


def test_watched_once_and_let_go(path: Path) -> None:
    door = FileDoor()
    for _ in range(2):
        assert door.take(watch_step(str(path))) is None
    assert str(path) in opened()
    assert door.take(unwatch_step(str(path))) is None
    assert str(path) not in opened()
    door.close()


def test_what_cannot_be_opened_is_said_when_it_is_to_be_synced(tmp_path: Path) -> None:
    door, path = FileDoor(), str(tmp_path / "gone")
    assert door.take(watch_step(path)) is None
    assert (
        door.take(sync_step(path)) == f"this process cannot open {path}: No such file or directory"
    )


def test_disk_that_does_not_take_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(FileFailed, match=f"cannot sync {path}: Input/output error"):
        FileDoor().take(sync_step(str(path)))


class TestTables:
    """What a merge has left on disk, where QEMU cannot be asked."""

    def compared(
        self, monkeypatch: pytest.MonkeyPatch, said: str | Exception | None, **more: object
    ) -> object:
        def unmerged(layers: list[tuple[str, str]], path: str, *, pulled: bool) -> str | None:
            assert pulled is bool(more)
            assert (layers, path) == ([("/share/volume-1.s1", "qcow2")], "/share/volume-1")
            if isinstance(said, Exception):
                raise said
            return said

        monkeypatch.setattr("qmpsnap.guests.files.door.unmerged", unmerged)
        arguments = {
            "path": "/share/volume-1",
            "with": [{"path": "/share/volume-1.s1", "format": "qcow2"}],
            **more,
        }
        what = "compare-tables"
        return FileDoor().take(Step(does=Does.FLUSH, by="file", what=what, arguments=arguments))

    def test_all_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.compared(monkeypatch, None) is None
        assert self.compared(monkeypatch, None, pulled=True) is None

    def test_not_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said = self.compared(monkeypatch, TablesUnseen("locked"))
        assert said == "its tables on disk do not tell: locked"

    def test_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FileFailed, match="all that was merged in /share/volume-1: 1 byte"):
            self.compared(monkeypatch, "1 byte")
