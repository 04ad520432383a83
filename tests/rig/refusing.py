"""What cannot be done is refused by the plan and by the operation, in the same words."""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig.rig import BASE, DISK, SERIAL, Rig

CREATE = (
    "volume-snapshot-create",
    SERIAL,
    json.dumps({"type": "qcow2", "new_file": f"{BASE}.new", "snapshot_id": "new"}),
)


def merge(top: str | None, base: str | None) -> tuple[str, ...]:
    """The command that merges, by Nova's names."""
    info = {"type": "qcow2", "file_to_merge": top, "merge_target_file": base}
    return ("volume-snapshot-delete", SERIAL, "id", json.dumps(info))


def by_name(verb: str, name: str, *options: str) -> tuple[str, ...]:
    """The command for people."""
    return (verb, DISK, name, *options)


def refused_alike(rig: Rig, command: tuple[str, ...], words: str) -> str:
    """Give a command, as a plan and in earnest; returns what both say."""
    before = rig.files(), sorted(path.name for path in Path(rig.folder).iterdir())
    planned = rig.cli(*command, "--plan")
    said = rig.cli(*command)
    assert (planned.code, said.code) == (4, 4), (planned, said)
    assert planned.err == said.err
    assert words in said.err, said.err
    assert (rig.files(), sorted(path.name for path in Path(rig.folder).iterdir())) == before
    return said.err
