"""Byte for byte what a guest has written to its volume, and what it may have written."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

BLOCK: Final = 4096
"""What is written while something may die: it is there, or is not, and never half of it."""


class Content:
    """A raw file that holds what the volume has to hold."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._doubted: dict[int, int] = {}
        """Blocks that may have been written, and with what, by their place."""
        with path.open("wb") as file:
            file.truncate(size)

    def grow(self, size: int) -> None:
        """The volume was extended."""
        os.truncate(self.path, size)

    def wrote(self, pattern: int, offset: int, length: int) -> None:
        """Written, and flushed: nothing may lose it."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([pattern]) * length)

    def may_have_written(self, pattern: int, offset: int) -> None:
        """A block that was written, or not, when its guest died."""
        self._doubted[offset] = pattern

    def is_certain(self, offset: int) -> None:
        """It was written and flushed after all."""
        self.wrote(self._doubted.pop(offset), offset, BLOCK)

    def settle(self, active: Path, format_: str) -> None:
        """See which of the doubted blocks are there."""
        for offset, pattern in self._doubted.items():
            command = f"read -P {pattern} {offset} {BLOCK}"
            read = ["qemu-io", "-r", "-U", "-f", format_, "-c", command, str(active)]
            if subprocess.run(read, capture_output=True, check=False).returncode == 0:
                self.wrote(pattern, offset, BLOCK)
        self._doubted.clear()

    def differs_from(self, active: Path, format_: str) -> str:
        """What `qemu-img compare` says; nothing where the two are the same."""
        compare = [
            "qemu-img",
            "compare",
            "-U",
            "-f",
            "raw",
            "-F",
            format_,
            str(self.path),
            str(active),
        ]
        done = subprocess.run(compare, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr
