"""Whether a file is open anywhere, as the kernel counts it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from qmpsnap.guests.files.lease import is_open_elsewhere, is_open_nowhere
from tests.rig.waiting import HANG_S, until


@pytest.fixture
def file(tmp_path: Path, leases: None) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    return path


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_open_in_this_process(file: Path, flags: int) -> None:
    """As an operation holds a file: it asks about the others."""
    descriptor = os.open(file, flags)
    assert not is_open_nowhere(str(file))
    assert is_open_elsewhere(str(file)) is False
    with file.open("rb"):
        assert is_open_elsewhere(str(file)) is None
        assert not is_open_nowhere(str(file))
    path = os.open(file, os.O_PATH)
    assert is_open_elsewhere(str(file)) is False
    os.close(path)
    with file.open("rb") as held:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stderr=held)
    with process:
        assert is_open_elsewhere(str(file)) is True
    os.close(descriptor)
    assert is_open_nowhere(str(file))


def test_open_in_another_one(file: Path) -> None:
    with file.open("rb") as held:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stderr=held)
    with process:
        assert is_open_elsewhere(str(file)) is True
        assert not is_open_nowhere(str(file))
    assert is_open_elsewhere(str(file)) is False
    assert is_open_nowhere(str(file))


def test_under_another_name(file: Path) -> None:
    other = file.with_name("other")
    other.hardlink_to(file)
    with other.open("rb"):
        assert not is_open_nowhere(str(file))


def test_mapped_and_closed(file: Path) -> None:
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    with mapped:
        assert not is_open_nowhere(str(file))
    assert is_open_nowhere(str(file))


def test_what_cannot_be_told(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    paths = [tmp_path / "gone", fifo, Path("/dev/null"), tmp_path]
    assert [is_open_elsewhere(str(path)) for path in paths] == [None] * len(paths)
    assert [is_open_nowhere(str(path)) for path in paths] == [False] * len(paths)


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Signals of the two kinds that a lease may send."""
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    kinds = (signal.SIGIO, signal.SIGURG)
    before = {kind: signal.signal(kind, hear) for kind in kinds}
    yield heard
    for kind, handler in before.items():
        signal.signal(kind, handler)


def test_who_opens_it_meanwhile_waits_and_ends_nobody(
    file: Path, signals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGIO, which the kernel would send by default, ends a process that has no handler."""
    opened = threading.Event()
    close = os.close

    def open_it() -> None:
        file.open("rb").close()
        opened.set()

    def close_late(descriptor: int) -> None:
        other.start()
        until(lambda: bool(signals))
        assert not opened.is_set()
        close(descriptor)

    other = threading.Thread(target=open_it)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close_late)
        assert is_open_nowhere(str(file))
    assert opened.wait(HANG_S)
    assert signals == [signal.SIGURG]
