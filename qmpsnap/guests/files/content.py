"""
A digest of what a reader of a chain sees, for the proof that a merge has kept it.

`qemu-nbd` opens the files, every layer with its driver, and serves them to `nbdcopy`; nothing is
probed and nothing is written. Only layers that nobody writes give a digest that means something:
those below the active one, or any of a guest that is off.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from qmpsnap.errors import Refused
from qmpsnap.guests import children

_BLOCK: Final = 1024 * 1024
READY_S: Final = 0.01
"""Seconds between two looks whether the server listens."""


class CannotVerify(Refused):
    """The content cannot be read, so a merge could not be proven afterwards."""

    msg = "the content of {self.file} cannot be read to verify the merge: {self.reason}"
    remedy = "Nothing was touched. Mend the cause, or leave `--verify` out."

    file: str
    reason: str


def digest_of(layers: Sequence[tuple[str, str]]) -> str:
    """
    Hash what a reader of the first layer sees, the others being its backing files.

    Args:
        layers: (host file, format) in chain order.

    Returns:
        SHA-256 over all bytes, hexadecimal.

    Raises:
        CannotVerify: A program is missing, or a layer cannot be opened or read.
    """
    digest, file = hashlib.sha256(), layers[0][0]
    with _served(layers) as address:
        try:
            copy = children.start(
                ["nbdcopy", address, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            reason = f"{error} (Debian's package libnbd-bin)"
            raise CannotVerify(file, reason) from error
        with copy:
            assert copy.stdout is not None
            assert copy.stderr is not None
            try:
                for block in _blocks(copy.stdout):
                    digest.update(block)
            except BaseException:  # Ctrl-C
                copy.kill()
                raise
            said = copy.stderr.read().decode(errors="replace").strip()
    if copy.returncode != 0:
        raise CannotVerify(file, said or f"nbdcopy ended with {copy.returncode}")
    return digest.hexdigest()


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block


@contextmanager
def _served(layers: Sequence[tuple[str, str]]) -> Iterator[str]:
    """
    An NBD address at which the chain can be read.

    The server is gone at the end of the block: it holds locks on the files as any QEMU does, and
    the job that comes next would fail on them.
    """
    file = layers[0][0]
    with tempfile.TemporaryDirectory(prefix="qmpsnap-") as folder, ExitStack() as stack:
        socket, ready = f"{folder}/nbd", Path(folder, "pid")
        # Not --fork: what it leaves behind is nobody's child, and would outlive this process.
        command = ["qemu-nbd", "-r", "-t", f"--pid-file={ready}", "-k", socket]
        said = Path(folder, "stderr")
        with said.open("wb") as errors:
            try:
                server = children.start(
                    [*command, f"json:{json.dumps(_node(layers))}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
            except OSError as error:
                raise CannotVerify(file, f"{error} (Debian's package qemu-utils)") from error
        stack.callback(_ended, server, ready)
        # It writes the file when it has opened everything and listens.
        while not _pid_in(ready):
            with suppress(subprocess.TimeoutExpired):
                code = server.wait(READY_S)
                reason = said.read_text(errors="replace").strip()
                raise CannotVerify(file, reason or f"qemu-nbd: {code}")
        yield f"nbd+unix:///?socket={socket}"


def _pid_in(path: Path) -> int | None:
    """The process id in a file that may not be there, or not whole, yet."""
    with suppress(FileNotFoundError):
        text = path.read_text()
        return int(text) if text.endswith("\n") else None
    return None


def _ended(server: subprocess.Popen[bytes], ready: Path) -> None:
    """End the server, and what it was started through, and wait until they are gone."""
    real = _pid_in(ready)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    server.wait()
    if real is not None and real != server.pid:  # `qemu-nbd` is a script, which runs it
        with suppress(ProcessLookupError), _process(real) as descriptor:
            select.select([descriptor], [], [])


@contextmanager
def _process(pid: int) -> Iterator[int]:
    """A process that is not a child; its descriptor is readable when it has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _node(layers: Sequence[tuple[str, str]]) -> dict[str, object] | None:
    """The chain as one description, each layer with its driver; no header is believed."""
    if not layers:
        return None
    (path, format_), *below = layers
    node: dict[str, object] = {
        "driver": format_,
        "read-only": True,
        # A running guest holds locks; what is read here it does not write.
        "force-share": True,
        "file": {"driver": "file", "filename": path},
    }
    if format_ != "raw":
        node["backing"] = _node(below)
    return node
