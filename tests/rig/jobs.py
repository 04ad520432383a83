"""What tests of running jobs need on both roads: a merge at work, a chain that takes a while."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import TypeVar

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.operations import merge
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.machine import Limits
from qmpsnap.operations.job.notices import Notice
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.merge import Progress
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.requests import DeleteRequest
from tests.rig import images
from tests.rig.disks import DiskSpec
from tests.rig.machine import Machine
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.waiting import HANG_S

TOP, ACTIVE = f"{BASE}.s1", f"{BASE}.s2"
SIZE = 16 * MIB
HELD = MergeOptions(bandwidth=1)
"""A byte a second: a job copies one piece, and then nothing until it gets another speed."""
REQUESTS = {
    "commit": DeleteRequest(disk=SERIAL, file_to_merge=TOP, merge_target_file=BASE),
    "active-commit": DeleteRequest(disk=SERIAL, file_to_merge=ACTIVE, merge_target_file=BASE),
    "pull": DeleteRequest(disk=SERIAL, file_to_merge=None, merge_target_file=None),
}
AFTERWARDS = {"commit": [ACTIVE, BASE], "active-commit": [BASE], "pull": [ACTIVE]}

N = TypeVar("N")


def make_chain(folder: Path, size: int = SIZE) -> None:
    """Make three layers: a raw base, the data in the middle one, and an empty active one."""
    images.create_raw(folder / BASE, size)
    images.create_qcow2(folder / TOP, size, BASE, "raw")
    other = folder.parent / "data"
    other.write_bytes(bytes([7]) * size)
    qemu_img.run("convert", TOP, "-n", "-f", "raw", "-O", "qcow2", str(other), str(folder / TOP))
    other.unlink()
    images.create_qcow2(folder / ACTIVE, size, TOP, "qcow2")


def failing_disk(folder: Path, failing: str, errno: int) -> DiskSpec:
    """The chain that `make_chain` made; writes to one layer's file fail with `errno`."""

    def file(name: str) -> Mapping[str, object]:
        real = {"driver": "file", "filename": str(folder / name)}
        if name != failing:
            return {**real, "node-name": f"file-{name[-2:]}"}
        errors = [{"event": "none", "iotype": "write", "errno": errno, "once": False}]
        return {
            "driver": "blkdebug",
            "node-name": f"file-{name[-2:]}",
            "image": real,
            "inject-error": errors,
        }

    return DiskSpec(
        blockdevs=(
            {"driver": "raw", "node-name": "base", "file": file(BASE)},
            {"driver": "qcow2", "node-name": "top", "file": file(TOP), "backing": "base"},
            {"driver": "qcow2", "node-name": "active", "file": file(ACTIVE), "backing": "top"},
        ),
        root="active",
        id=DISK,
        serial=SERIAL,
    )


class Merge:
    """A merge on a thread of its own."""

    def __init__(
        self,
        rig: Rig,
        kind: str,
        options: MergeOptions,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.told: SimpleQueue[Notice] = SimpleQueue()
        self._result: Result | None = None
        self._error: BaseException | None = None

        def work() -> None:
            try:
                with rig.host() as host:
                    self._result = merged(
                        host, kind, options, self.told, limits=limits, progress=progress
                    )
            except BaseException as error:  # handed to the thread that waits for this one
                self._error = error

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def hears(self, kind: type[N]) -> N:
        """Wait for the next notice of a kind."""
        while True:
            try:
                notice = self.told.get(timeout=HANG_S)
            except Empty:
                raise AssertionError(f"no {kind.__name__}; {self._error!r}") from None
            if isinstance(notice, kind):
                return notice

    def ends(self) -> Result:
        """Wait for the end; raises what it raised."""
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result


def merged(
    host: Guest,
    kind: str,
    options: MergeOptions,
    told: SimpleQueue[Notice] | None = None,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Result:
    """Merge here and now, without looking whether there is room."""
    return merge.delete(
        host,
        REQUESTS[kind],
        progress,
        options=options,
        tell=told.put if told else None,
        allow={Guard.SPACE},
        limits=limits or Limits(),
    )


HOUR_S = 3600.0


class AnHourLater:
    """By the clock of the tool's loop it is an hour later once the job was seen in a state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
        self._status, self._late_s = status, 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self._late_s)
        monkeypatch.setattr("qmpsnap.operations.job.loop.time", clock)

    def __call__(self, _plan: object, view: JobView) -> None:
        """The progress of a merge."""
        if view.status == self._status:
            self._late_s = HOUR_S


def copy_begins(guest: Machine, disk: str) -> None:
    """Start a job of somebody else's, which lasts and keeps snapshots from a disk."""
    size = guest.virtual_size(disk)
    guest.qmp("blockdev-add", {"driver": "null-co", "node-name": "nowhere", "size": size})
    copy = {"job-id": "theirs", "sync": "full", "target": "nowhere"}
    guest.qmp("blockdev-mirror", {**copy, "device": guest.active_node(disk)})


@contextmanager
def small_file_system(folder: Path, mib: int) -> Iterator[None]:
    """Mount a file system of its own on a folder."""
    size = f"size={mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill a file system up to so many bytes; returns the file that does."""
    filler = folder / "filler"
    room = os.statvfs(folder)
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - leave))
    return filler
