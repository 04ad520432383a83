"""
A guest that keeps on writing while something else happens to its disk.

Next to every write goes the same change of a byte array in memory, the model. If the disk reads
like the model afterwards, no write was lost, doubled, or put elsewhere.
"""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.rig.waiting import HANG_S

KiB: Final = 1024
_WROTE: Final = re.compile(r"^wrote \d+/(\d+) bytes", re.MULTILINE)


class WriteFailed(Exception):
    """A write through the export did not succeed."""


class Writer:
    """Random writes of 4 to 64 KiB at random sectors, one after the other on one thread."""

    def __init__(
        self,
        write: Callable[[int, int, int], None],
        model: bytearray,
        *,
        seed: int,
        max_writes: int,
    ) -> None:
        """
        Begin to write.

        Args:
            write: Called with offset, length and pattern; returns when the write is done.
            model: What the disk holds now; at least 4 KiB.
            seed: Same seed, same writes.
            max_writes: Rest after so many; `wait_for` asks for more.
        """
        self.model = model
        """What the disk must hold, once the writer has stopped."""
        self.writes = 0
        """Writes that are done."""
        self._write = write
        self._random = random.Random(seed)
        self._max_writes = max_writes
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait_for(self, more: int) -> None:
        """Wait until `more` further writes are done; raise what a failed one raised."""
        with self._changed:
            goal = self.writes + more
            self._max_writes = max(self._max_writes, goal)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.writes >= goal or self._error is not None, HANG_S)
            self.check()
            assert self.writes >= goal

    def stop(self) -> None:
        """End after the write that is under way."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()

    def check(self) -> None:
        """Raise what a failed write raised; nothing when all went well."""
        if self._error is not None:
            raise self._error

    def sha256(self) -> str:
        """Hash the model, in hexadecimal; stop first."""
        return hashlib.sha256(self.model).hexdigest()

    def _run(self) -> None:
        while not self._stop.is_set() and self._error is None:
            try:
                self._one()
            except BaseException as error:  # raised again in the thread that waits for this one
                self._error = error
            with self._changed:
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._stop.is_set() or self.writes < self._max_writes
                )

    def _one(self) -> None:
        length = min(4 * KiB * self._random.randint(1, 16), len(self.model))
        offset = 512 * self._random.randint(0, (len(self.model) - length) // 512)
        pattern = self._random.randint(1, 255)
        self._write(offset, length, pattern)
        self.model[offset : offset + length] = bytes([pattern]) * length
        self.writes += 1


class Nobody:
    """Writes nothing, where nobody can write beside the guest."""

    def __init__(self, content: str) -> None:
        self._content = content

    def wait_for(self, more: int) -> None:
        """There is nothing to wait for."""

    def sha256(self) -> str:
        """What is on the disk, as ever."""
        return self._content


class NbdClient:
    """
    `qemu-io` on an NBD export, fed with one command at a time.

    Not HMP `qemu-io`: QEMU 7.2 may run an HMP command in the middle of a pivot, and then aborts
    ("Assertion `child->perm & BLK_PERM_WRITE' failed") or fails the write with EBADF, which no
    request of a guest or an NBD client ever does (7 of 30 pivots, without this tool too).
    """

    PROMPT: Final = b"qemu-io> "

    def __init__(self, url: str) -> None:
        """Connect to an export."""
        self._process = subprocess.Popen(
            ["qemu-io", "-f", "raw", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        self._answer()

    def write(self, offset: int, length: int, pattern: int) -> None:
        """Write `length` bytes of value `pattern` at `offset`, or raise `WriteFailed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"write -P {pattern} {offset} {length}\n".encode())
            said = self._answer()
        except OSError as error:
            raise WriteFailed(offset, length) from error
        done = _WROTE.search(said)
        if done is None or int(done[1]) != length:
            raise WriteFailed(offset, length, said.strip() or "the client has ended")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        said = b""
        while not said.endswith(self.PROMPT):
            some = self._process.stdout.read(65536)
            if not some:
                break
            said += some
        return said.removesuffix(self.PROMPT).decode(errors="replace")

    def close(self) -> None:
        """End the client."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(HANG_S)
        finally:
            self._process.kill()


@contextmanager
def writing(
    write: Callable[[int, int, int], None], model: bytearray, *, seed: int, max_writes: int
) -> Iterator[Writer]:
    """Let a writer write for as long as the context is open; raise what a failed write raised."""
    writer = Writer(write, model, seed=seed, max_writes=max_writes)
    try:
        yield writer
    finally:
        writer.stop()
    writer.check()
