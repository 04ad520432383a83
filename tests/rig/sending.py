"""
A sender in a process of its own, which tests kill.

    python -m tests.rig.sending FOLDER ENDPOINT TIMEOUT [MOMENT]

It sends what is there, does what follows (a line in FOLDER/followed), and says `round`, until it is
killed; at MOMENT it kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from qmpsnap.delivery.cinder import Cinder
from qmpsnap.delivery.outbox import Outbox
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Letter
from qmpsnap.journal.letters import Letters

MOMENTS: Final = (
    "before the try is noted",
    "after the try is noted",
    "before the acceptance is noted",
    "after the acceptance is noted",
    "after what follows",
)


def main(folder: str, endpoint: str, timeout: str, moment: str = "") -> None:
    """See the module."""
    if moment:
        _die_at(moment)

    def follow(letter: Letter) -> None:
        with open(Path(folder) / "followed", "a") as file:
            file.write(f"{letter.id}\n")
        if moment == "after what follows":
            _die()

    cinder = Cinder(Session(auth=NoAuth(endpoint="-")), endpoint=endpoint, timeout_s=float(timeout))
    box = Outbox(Journal(folder), {"cinder": cinder}.get, after=follow)
    while True:
        box.send(at_once=True)
        print("round", flush=True)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at(moment: str) -> None:
    """Die before, or after, a write of the journal."""
    when, _, what = moment.partition(" ")
    name = {"the try is noted": "trying", "the acceptance is noted": "note"}.get(what)
    if name is None:
        return
    write: Callable[..., Any] = getattr(Letters, name)

    def dying(self: Letters, id_: str, *state: Any, **more: Any) -> None:
        is_it = name == "trying" or state[0] in ("accepted", "closed")
        if is_it and when == "before":
            _die()
        write(self, id_, *state, **more)
        if is_it:
            _die()

    setattr(Letters, name, dying)


if __name__ == "__main__":
    main(*sys.argv[1:])
