"""`watch`, in a process of its own: what it says when a chain or a job changes."""

from __future__ import annotations

import codecs
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.rig import images
from tests.rig.rig import BASE, DISK, SIZE, Rig
from tests.rig.roads import MakeRig
from tests.rig.waiting import HANG_S, until

CHAIN = f"{DISK}: {BASE} (raw) <- {BASE}.s1 (qcow2)"
NEVER = ("--every", "1000000")
"""Nothing is seen but by an event."""


class Watching:
    """A `watch` that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], reads: int) -> None:
        self.process = process
        self.text = ""
        self._reads = reads
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        os.set_blocking(reads, False)

    def says(self, words: str) -> None:
        """Wait until it has said something."""

        def has() -> bool:
            with suppress(OSError):
                self.text += self._decoder.decode(os.read(self._reads, 65536))
            return words in self.text

        until(has, words)

    def ends(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(HANG_S)


@contextmanager
def watching(
    rig: Rig, *arguments: str, terminal: bool = False, **environment: str
) -> Iterator[Watching]:
    """Run `watch` beside this process; the guest's other monitor is the test's."""
    reads, writes = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "qmpsnap", *rig.road, "watch", *arguments],
        stdout=writes,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    ) as process:
        os.close(writes)
        try:
            yield Watching(process, reads)
        finally:
            process.kill()
            os.close(reads)


@pytest.fixture
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    with make_rig("raw") as rig:
        rig.grow(2)
        yield rig


def test_a_job_is_seen_by_its_events(rig: Rig) -> None:
    active = str(rig.disk().layers[0].node)
    with watching(rig, *NEVER) as watch:
        watch.says(CHAIN)
        rig.guest.qmp("block-commit", {"job-id": "theirs", "device": active, "speed": 1})
        watch.says("job theirs (commit")
        rig.guest.qmp("job-cancel", {"id": "theirs"})
        watch.says("job theirs: is gone")
        assert watch.ends() == 0
    assert watch.text.count(CHAIN) == 1, "nothing of the chain has changed"
    assert "\x1b" not in watch.text


def test_a_snapshot_is_seen_when_it_looks(rig: Rig) -> None:
    """QEMU has no event for it."""
    images.create_qcow2(rig.folder / "theirs", SIZE, f"{BASE}.s1", "qcow2")
    active = str(rig.disk().layers[0].node)
    with watching(rig, "--every", "0.1") as watch:
        watch.says(CHAIN)
        file = {"driver": "file", "filename": str(rig.folder / "theirs")}
        added = {"driver": "qcow2", "node-name": "theirs", "file": file, "backing": None}
        rig.guest.qmp("blockdev-add", added)
        rig.guest.qmp("blockdev-snapshot", {"node": active, "overlay": "theirs"})
        watch.says(f"{CHAIN} <- theirs (qcow2)")
        assert watch.ends(signal.SIGTERM) == 0


def test_json_is_a_document_a_line(rig: Rig) -> None:
    with watching(rig, DISK, "-o", "json", *NEVER) as watch:
        watch.says("\n")
        assert watch.ends() == 0
    (line,) = watch.text.splitlines()
    said = json.loads(line)
    assert said["schema"] == "qmpsnap.watch/1"
    assert [one["file"] for one in said["disks"][0]["layers"]] == [f"{BASE}.s1", BASE]
    assert said["jobs"] == []


def test_on_a_terminal_it_is_drawn_again(rig: Rig) -> None:
    with watching(rig, *NEVER, terminal=True, TERM="xterm", NO_COLOR="") as watch:
        watch.says("no block job")
        assert watch.ends() == 0
    assert "\x1b[" in watch.text
    assert f"{BASE}.s1" in watch.text


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_escapes_without_styles(rig: Rig, environment: dict[str, str]) -> None:
    with watching(rig, *NEVER, terminal=True, **{"TERM": "xterm", **environment}) as watch:
        watch.says(CHAIN)
        assert watch.ends() == 0
    assert "\x1b" not in watch.text


def test_the_end_of_the_guest_is_told(rig: Rig) -> None:
    with watching(rig, *NEVER) as watch:
        watch.says(CHAIN)
        rig.kill()
        assert watch.process.wait(HANG_S) == 7
