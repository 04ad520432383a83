"""A chain of which one file cannot be flushed, or takes no tables."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.rig import images
from tests.rig.disks import DiskSpec
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE

S1, S2 = f"{BASE}.s1", f"{BASE}.s2"
TABLES: Mapping[str, Any] = {"event": "l2_update", "iotype": "write", "errno": 28, "once": False}
FLUSHES: Mapping[str, Any] = {"event": "none", "iotype": "flush", "errno": 5, "once": False}
UNTIL_READ: Mapping[str, Mapping[str, Any]] = {
    "tables": {**TABLES, "state": 1},
    "flushes": {**FLUSHES, "event": "flush_to_disk", "state": 1},
}
"""The same, until somebody has read data of the file twice: its storage is sound from then on."""


def faulty(image: object, errors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A file with errors, as a node of blkdebug without a name."""
    node = {"driver": "blkdebug", "image": image, "inject-error": list(errors)}
    if not any("state" in one for one in errors):
        return node
    # Errors stay in force until an event brings others (blkdebug_debug_event(), block/blkdebug.c):
    # the first read brings the next state, the second one an error that nothing meets.
    nothing = {"event": "read_aio", "iotype": "discard", "errno": 5, "once": False, "state": 2}
    change = {"event": "read_aio", "state": 1, "new_state": 2}
    return {**node, "inject-error": [*errors, nothing], "set-state": [change]}


def make_chain(folder: Path, base: str) -> None:
    """Three layers; those below have tables already, so that the copying itself does not fail."""
    folder.mkdir()
    make = images.create_raw if base == "raw" else images.create_qcow2
    make(folder / BASE, SIZE)
    images.create_qcow2(folder / S1, SIZE, BASE, base)
    images.create_qcow2(folder / S2, SIZE, S1, "qcow2")
    for name, format_, command in (
        (BASE, base, f"write -P 3 {3 * MIB} 64k"),
        (S1, "qcow2", f"write -P 7 {MIB} {MIB}"),
        (S2, "qcow2", f"write -P 9 {2 * MIB} 64k"),
    ):
        arguments = ["qemu-io", "-f", format_, "-c", command, str(folder / name)]
        subprocess.run(arguments, check=True, capture_output=True)


def disk(
    folder: Path,
    base: str,
    errors: Sequence[Mapping[str, Any]],
    failing: str = BASE,
    options: Mapping[str, Any] | None = None,
) -> DiskSpec:
    """The chain; the base has these options, and one file these errors."""

    def file(name: str, node: str) -> dict[str, Any]:
        below = {"driver": "file", "filename": str(folder / name), "auto-read-only": True}
        if name != failing or not errors:
            return {**below, "node-name": node}
        return {**faulty(below, errors), "node-name": node}

    return DiskSpec(
        blockdevs=(
            file(BASE, "base-file"),
            {"driver": base, "node-name": "base", "file": "base-file", **(options or {})},
            {"driver": "qcow2", "node-name": "s1", "file": file(S1, "s1-file"), "backing": "base"},
            {"driver": "qcow2", "node-name": "s2", "file": file(S2, "s2-file"), "backing": "s1"},
        ),
        root="s2",
        id=DISK,
        serial=SERIAL,
    )
