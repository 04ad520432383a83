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
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from qmpsnap.errors import Refused

_BLOCK: Final = 1024 * 1024


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
            copy = subprocess.Popen(
                ["nbdcopy", address, "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            reason = f"{error} (Debian's package libnbd-bin)"
            raise CannotVerify(file, reason) from error
        with copy:
            assert copy.stdout is not None
            for block in _blocks(copy.stdout):
                digest.update(block)
            assert copy.stderr is not None
            said = copy.stderr.read().decode(errors="replace").strip()
    if copy.returncode != 0:
        raise CannotVerify(file, said or f"nbdcopy ended with {copy.returncode}")
    return digest.hexdigest()


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block


@contextmanager
def _served(layers: Sequence[tuple[str, str]]) -> Iterator[str]:
    """An NBD address at which the chain can be read."""
    file = layers[0][0]
    with tempfile.TemporaryDirectory(prefix="qmpsnap-") as folder:
        socket, ready = f"{folder}/nbd", f"{folder}/pid"
        # --fork: it has opened everything and listens when the command returns.
        command = ["qemu-nbd", "-r", "-t", "--fork", f"--pid-file={ready}", "-k", socket]
        try:
            done = subprocess.run(
                [*command, f"json:{json.dumps(_node(layers))}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        except OSError as error:
            raise CannotVerify(file, f"{error} (Debian's package qemu-utils)") from error
        if done.returncode != 0:
            raise CannotVerify(file, done.stderr.strip() or f"qemu-nbd: {done.returncode}")
        server = int(Path(ready).read_text())
        try:
            yield f"nbd+unix:///?socket={socket}"
        finally:
            os.kill(server, signal.SIGTERM)


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
