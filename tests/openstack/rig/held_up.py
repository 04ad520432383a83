"""qemu-img, held up once it has done its work: what happens meanwhile happens in the middle of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

_SHIM: Final = """#!/bin/bash
{real} "$@"
rc=$?
if [[ " $* " == *" {word} "* ]]; then
    touch {folder}/at
    for i in $(seq 1200); do [ -e {folder}/go ] && break; sleep 0.1; done
fi
exit $rc
"""


@dataclass(frozen=True, slots=True)
class HeldUp:
    """A command that does not return before it is let go."""

    folder: Path

    def reached(self) -> None:
        """Wait until it has done its work."""
        read_until((self.folder / "at").exists, bool)

    def let_go(self) -> None:
        """Have it return, and all later ones as well."""
        (self.folder / "go").touch()


@contextmanager
def held_up(rig: Rig, word: str, folder: Path) -> Iterator[HeldUp]:
    """
    Have qemu-img held up in this block.

    Args:
        rig: Whose services call it.
        word: A whole word of the command line, as `commit`.
        folder: An empty one that they can write to.
    """
    shim = rig.folder / "bin/qemu-img"
    before = shim.read_text() if shim.exists() else None
    shim.write_text(_SHIM.format(real=shutil.which("qemu-img"), word=word, folder=folder))
    shim.chmod(0o755)
    held = HeldUp(folder)
    try:
        yield held
    finally:
        held.let_go()
        if before is None:
            shim.unlink()
        else:
            shim.write_text(before)
