"""What a guest has written and flushed, and so what it must find after a power failure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from tests.power.disk import PAGE
from tests.power.recording import Box
from tests.rig.machine import Machine
from tests.rig.rig import DISK

CLUSTER: Final = 64 * 1024
"""Of qcow2, by default."""
_STAMP: Final = 8
"""Bytes that tell the writes apart."""


@dataclass(frozen=True, slots=True)
class _Written:
    began: int
    page: int
    data: bytes


@dataclass
class Written:
    """
    The model. Places are those of the record.

    A page is written whole, and reaches the disk whole.
    """

    before: bytes
    _writes: list[_Written] = field(default_factory=list)
    _flushes: list[tuple[int, int]] = field(default_factory=list)
    """When a flush was answered, and how many writes had been answered when it began."""

    def write(self, box: Box, machine: Machine, page: int) -> None:
        """Let the guest write a page."""
        data = (len(self._writes) + 1).to_bytes(_STAMP, "big") * (PAGE // _STAMP)
        self._writes.append(_Written(box.now, page, data))
        machine.write_bytes(DISK, page * PAGE, data)

    def flush(self, box: Box, machine: Machine) -> None:
        """Let the guest flush."""
        number = len(self._writes)
        said = machine.qemu_io(DISK, "flush")
        assert not said, said
        self._flushes.append((box.now, number))

    def works(self, box: Box, machine: Machine, chance: random.Random) -> None:
        """
        Let the guest write a little, and flush some of it, but not all each time.

        Every third cluster it leaves alone: a write copies the rest of its cluster up, and what a
        merge copies would not be missed.
        """
        pages = [one for one in range(len(self.before) // PAGE) if one * PAGE // CLUSTER % 3]
        for number in range(3):
            self.write(box, machine, chance.choice(pages))
            if number == 1 or chance.random() < 0.4:
                self.flush(box, machine)

    def flushed(self, at: int) -> int:
        """How many writes are certainly there when the power fails at that place."""
        return max((number for ended, number in self._flushes if ended <= at), default=0)

    def lost(self, content: bytes, at: int) -> list[str]:
        """Which pages are not as the guest had them, or may have had them, at that place."""
        assert len(content) == len(self.before)
        flushed = self.flushed(at)
        found: list[str] = []
        for page in range(len(content) // PAGE):
            there = content[page * PAGE : (page + 1) * PAGE]
            wanted = self.before[page * PAGE : (page + 1) * PAGE]
            others: list[bytes] = []
            for number, one in enumerate(self._writes):
                if one.page == page and one.began <= at:
                    if number < flushed:
                        wanted = one.data
                    else:
                        others.append(one.data)
            if there != wanted and there not in others:
                found.append(f"page {page}: {there[:_STAMP].hex()}, not {wanted[:_STAMP].hex()}")
        return found
