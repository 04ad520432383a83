"""What is asked of a disk after a power failure, and of `qmpsnap resume` on it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.header import read_header
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry
from tests.power.played import CHAIN, MARKER, TOKEN, Case, Played, images_content
from tests.rig.kills import Killing, format_of
from tests.rig.rig import BASE, run_cli

_HALF: Final = re.compile(r"\.qmpsnap-.*\.tmp")
"""An overlay or marker that was not complete; it harms nobody, and is in the documents."""
_STATE: Final = re.compile(rf"journal\.db(-wal|-shm)?$|\.journal\.db\.|{TOKEN}\.lock$")
"""The journal; one that was not complete; the lock of an operation that was not begun."""


def settled(one: Played, killing: Killing, case: Case, scratch: Path) -> str:
    """
    Resume, and see that nothing is lost and nothing is left.

    The guest is gone. When the journal is gone as well, its marker is named to `resume`. An operation whose outcome its caller was told keeps it. Only of an active
    commit it may be that nobody can know (docs/howto/after-an-interruption.md): then one of the
    two files has everything, and a person's decision ends it.

    Returns:
        How it was settled.
    """
    before, after = (CHAIN[0][0], _files(killing)[0])
    marker = one.box.images / MARKER
    is_marked = marker.exists()
    if case.has_journal:
        outcome, (active, *others) = _resumed()
    elif is_marked:
        outcome, (active, *others) = _resumed(str(marker))
    else:
        outcome, active, others = "nothing", "", []
    if outcome == "unknown":
        assert killing.files == ("s1",), "only an active commit may be unknown"
        active = _decided(one, case, {"active": active, "base": others[0]}, scratch)
    if outcome == "nothing":
        entry = _entry(one)
        end = None if entry is None else entry.conclusion
        assert entry is None or end is not None, "it is open, and was not settled"
        active = before if end is None else Path(end.active[0]).name
    if outcome == "nothing" and not case.has_journal and case.at >= one.unmarked:
        active = after  # as its caller knows who was told, or would have been in a moment
    if case.at >= one.ended:
        assert active == after, f"its caller was told that it is done, and it is {outcome}"
        assert outcome != "rolled-back"
    assert _resumed()[0] == "nothing", "it is settled, and open again"

    path = one.box.images / active
    lost = one.written.lost(images_content(path, scratch), case.at)
    assert not lost, f"{active} has lost {lost}"
    layers = _layers(path)
    expected = [name for name, _ in CHAIN]
    assert layers in (expected, _files(killing)), layers
    names = {name for name, _ in CHAIN}.union(layers)
    if not (case.has_journal or is_marked):  # nobody knows of an overlay that was just made
        names |= {name for name in _files(killing) if _is_empty(one.box.images / name)}
    left = [one for one in _listed(one.box.images) if one not in names and not _HALF.match(one)]
    assert not left, f"left beside the images: {left}"
    left = [one for one in _listed(one.box.state_folder) if not _STATE.match(one)]
    assert not left, f"left in the state folder: {left}"
    return outcome


def _is_empty(path: Path) -> bool:
    return format_of(path) == "qcow2" and path.exists() and qemu_img.is_empty(str(path))


def _listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def _files(killing: Killing) -> list[str]:
    if killing.files == ("s2-alone",):
        return [f"{BASE}.s2"]
    return [*(f"{BASE}.{name}" for name in killing.files), BASE]


def _resumed(*arguments: str) -> tuple[str, list[str]]:
    """Outcome and active file, or the files that may be right."""
    said = run_cli(["resume", "-o", "json", *arguments])
    operations: list[Any] = said.json["operations"] if said.out else []
    if not operations:
        assert said.code == 0, said
        return "nothing", [""]
    (operation,) = operations
    assert operation["id"] == TOKEN
    assert said.code == (6 if operation["outcome"] == "unknown" else 0), said
    paths = operation["candidates"] or [operation["active"]]
    return str(operation["outcome"]), [Path(path).name for path in paths]


def _decided(one: Played, case: Case, files: dict[str, str], scratch: Path) -> str:
    """Decide as a person would who can tell which file has what the guest had flushed."""
    for take, name in files.items():
        if not one.written.lost(images_content(one.box.images / name, scratch), case.at):
            said = run_cli(["resume", TOKEN, "--take", take])
            assert said.code == 0, said
            return name
    raise AssertionError(f"neither of {files} has what was flushed")


def _entry(one: Played) -> Entry | None:
    store = Journal(one.box.state_folder).looked_into()
    if store is None:
        return None
    with store:
        return store.entry(TOKEN)


def _layers(active: Path) -> list[str]:
    """A chain by its headers, in which each format is right and every file is consistent."""
    form = format_of(active)
    if form == "raw":
        return [active.name]
    assert qemu_img.is_consistent(str(active)), f"{active.name} is corrupt"
    header = read_header(str(active))
    if header.backing_file is None:
        return [active.name]
    below = active.parent / header.backing_file
    assert header.backing_format == format_of(below), header
    return [active.name, *_layers(below)]
