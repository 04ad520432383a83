"""The operations that go wrong here, one of each kind, on a disk of five layers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from tests.chaos import model, steps
from tests.chaos.model import Disk
from tests.rig.rig import MIB

Operation = steps.Create | steps.Commit | steps.Pull

OPERATIONS: Final[dict[str, Operation]] = {
    "create": steps.Create(disk=0, form="nova"),
    "commit": steps.Commit(disk=0, top=2, base=4),
    "active commit": steps.Commit(disk=0, top=0, base=2),
    "pull": steps.Pull(disk=0, base=None),
    "pull to a base": steps.Pull(disk=0, base=3),
}
MERGES: Final = [kind for kind in OPERATIONS if kind != "create"]


def a_disk(folder: Path, chance: random.Random) -> Disk:
    """A disk of five layers, with data in each."""
    base = chance.choice(("raw", "qcow2"))
    return model.build(folder, 0, depth=5, base=base, size=MIB, chance=chance)
