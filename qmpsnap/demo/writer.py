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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from qmpsnap.errors import Failed

KiB: Final = 1024
STOP_TIMEOUT_S: Final = 60.0
"""Longer than any single command may take."""


class WriterStuck(Failed):
    """The background writer did not get as far as it should."""

    msg = "the background writer made {self.writes} writes in {self.seconds:g} s"
    changed = "unknown"

    writes: int
    seconds: float


class WriteFailed(Failed):
    """A write through the export did not succeed."""

    msg = "{self.length} bytes at {self.offset} were not written: {self.reason}"
    changed = "unknown"

    offset: int
    length: int
    reason: str


_WROTE: Final = re.compile(r"^wrote \d+/(\d+) bytes", re.MULTILINE)


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
        Prepare; `start()` begins.

        Args:
            write: Called with offset, length and pattern; returns when the write is done.
            model: What the disk holds now; at least 4 KiB.
            seed: Same seed, same writes.
            max_writes: Stop after so many.
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
        self._thread = threading.Thread(target=self._run, name="qmpsnap-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def wait_for(self, more: int, timeout: float = 10.0) -> None:
        """
        Wait until `more` further writes are done.

        Raises:
            WriterStuck: They were not done within `timeout` seconds, or the writer has ended.
            BaseException: What the failed write raised.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            goal = self.writes + more
            while self.writes < goal:
                self._raise_failure()
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    raise WriterStuck(self.writes, timeout)
                self._changed.wait(min(left, 0.1))

    def stop(self) -> None:
        """
        End after the write that is under way.

        Raises:
            WriterStuck: That write did not end within a minute.
        """
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise WriterStuck(self.writes, STOP_TIMEOUT_S)

    def check(self) -> None:
        """Raise what a failed write raised; nothing when all went well."""
        with self._changed:
            self._raise_failure()

    def sha256(self) -> str:
        """Hash the model, in hexadecimal; stop first."""
        return hashlib.sha256(self.model).hexdigest()

    def _raise_failure(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self.writes < self._max_writes:
                self._one()
        except BaseException as error:  # raised again in the thread that waits for this one
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _one(self) -> None:
        length = min(4 * KiB * self._random.randint(1, 16), len(self.model))
        offset = 512 * self._random.randint(0, (len(self.model) - length) // 512)
        pattern = self._random.randint(1, 255)
        self._write(offset, length, pattern)
        self.model[offset : offset + length] = bytes([pattern]) * length
        with self._changed:
            self.writes += 1
            self._changed.notify_all()


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
        """
        Write `length` bytes of value `pattern` at `offset`.

        Raises:
            WriteFailed: They were not all written.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"write -P {pattern} {offset} {length}\n".encode())
            said = self._answer()
        except OSError as error:
            raise WriteFailed(offset, length, str(error)) from error
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
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def writing(
    write: Callable[[int, int, int], None], model: bytearray, *, seed: int, max_writes: int
) -> Iterator[Writer]:
    """
    Let a writer write for as long as the context is open.

    Raises:
        BaseException: On leaving, what a failed write raised, unless the body raised already.
    """
    writer = Writer(write, model, seed=seed, max_writes=max_writes)
    writer.start()
    try:
        yield writer
    finally:
        writer.stop()
    writer.check()
