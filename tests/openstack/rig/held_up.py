"""
qemu-img, held up once it has done its work, or failing then.

What happens while it is held up happens in the middle of whatever has called it.
"""

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
    {what}
fi
exit $rc
"""
_WAITS: Final = """touch {folder}/at
    for i in $(seq 1200); do [ -e {folder}/go ] && break; sleep 0.1; done"""
_FAILS: Final = """echo 'error while writing: No space left on device' >&2
    rc=1"""


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
    held = HeldUp(folder)
    try:
        with _behind(rig, word, _WAITS.format(folder=folder)):
            yield held
    finally:
        held.let_go()


@contextmanager
def failing(rig: Rig, word: str) -> Iterator[None]:
    """Have it do its work and say that there was no room for it."""
    with _behind(rig, word, _FAILS):
        yield


@contextmanager
def _behind(rig: Rig, word: str, what: str) -> Iterator[None]:
    shim = rig.folder / "bin/qemu-img"
    before = shim.read_text() if shim.exists() else None
    shim.write_text(_SHIM.format(real=shutil.which("qemu-img"), word=word, what=what))
    shim.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            shim.unlink()
        else:
            shim.write_text(before)
