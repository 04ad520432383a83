"""What `doctor` says of the journal, and of what keeps a guest from starting from a stale file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.file import Journal

HOOKS: Final = Path("/etc/libvirt/hooks")


class Protection(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def protections(*, libvirt: bool, hooks: Path = HOOKS) -> Iterator[Protection]:
    """Look at the journal and, where there is libvirt, at its hooks."""
    yield _journal()
    if not libvirt:
        return
    hook = _hook(hooks)
    yield Protection(
        name="start hook",
        state="note" if hook is None else "ok",
        found=hook or f"no hook of qmpsnap in {hooks}",
        remedy=""
        if hook
        else "Nothing keeps libvirt from starting a guest whose operation was interrupted, by "
        "autostart for example: install qmpsnap-libvirt-hook there.",
    )


def _journal() -> Protection:
    journal = Journal()
    try:
        path = str(journal.path)
        store = journal.looked_into()
        if store is None:
            return Protection("journal", "ok", f"{path}: none yet")
        with store:
            left = store.open_entries()
    except QmpsnapError as error:
        return Protection("journal", "problem", str(error), error.way_out)
    if left:
        ids = ", ".join(entry.record.id for entry in left)
        return Protection(
            "journal", "note", f"{path}: open: {ids}", "Settle them: `qmpsnap resume`."
        )
    return Protection("journal", "ok", f"{path}: nothing is open")


def _hook(folder: Path) -> str | None:
    """The hook that is ours: it, or what it leads to, names this program."""
    for path in (folder / "qemu", *sorted(folder.glob("qemu.d/*"))):
        try:
            if not os.access(path, os.X_OK) or not path.is_file():
                continue
            if b"qmpsnap" in os.fsencode(os.path.realpath(path)) + path.read_bytes()[:65536]:
                return str(path)
        except OSError:
            continue
    return None
