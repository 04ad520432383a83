"""What `doctor` says of the journal, and of what keeps a guest from starting from a stale file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.file import DEFAULT, Journal
from qmpsnap.journal.letter import OPEN, State

HOOKS: Final = Path("/etc/libvirt/hooks")
_TO_BE_SEEN_TO: Final[tuple[State, ...]] = (*OPEN, "dead")


class Protection(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "note", "problem"]
    found: str
    remedy: str = ""


def protections(
    *, libvirt: bool, hooks: Path = HOOKS, journal: Journal | None = DEFAULT
) -> Iterator[Protection]:
    """Look at the journal, what it has to tell and, where there is libvirt, at its hooks."""
    if journal is not None:
        yield from _journal(journal)
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


def _journal(journal: Journal) -> Iterator[Protection]:
    try:
        path = str(journal.path)
        store = journal.looked_into()
        if store is None:
            yield Protection("journal", "ok", f"{path}: none yet")
            return
        with store:
            left = store.open_entries()
            letters = store.letters.find(_TO_BE_SEEN_TO)
    except QmpsnapError as error:
        yield Protection("journal", "problem", str(error), error.way_out)
        return
    ids = ", ".join(entry.record.id for entry in left)
    if left:
        remedy = "Settle them: `qmpsnap resume`."
        yield Protection("journal", "note", f"{path}: open: {ids}", remedy)
    else:
        yield Protection("journal", "ok", f"{path}: nothing is open")
    yield _outbox(Counter(one.state for one in letters))


def _outbox(letters: Counter[State]) -> Protection:
    """What the volume service has not heard yet; what is dead, it never will by itself."""
    if not letters:
        return Protection("outbox", "ok", "every update has been delivered")
    found = ", ".join(f"{letters[one]} {one}" for one in _TO_BE_SEEN_TO if letters[one])
    if letters["dead"]:
        remedy = "The service refuses what is dead: `qmpsnap outbox list` says why."
        return Protection("outbox", "problem", found, remedy)
    remedy = "It is sent by itself where nova-compute runs our driver; else `qmpsnap outbox send`."
    return Protection("outbox", "note", found, remedy)


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
