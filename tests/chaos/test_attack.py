"""
An adversary beside the tool: see `attack.py` for what it may do, and what counts as a loss.

A failure prints its seed and all that happened. `QMPSNAP_CHAOS_ATTACK=SEED` does one run again;
`QMPSNAP_CHAOS_ATTACKS` sets how many there are. A seed is of one road.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import model
from tests.chaos.attack import Attack
from tests.chaos.stage import DirectStage, LibvirtStage, Stage
from tests.rig.rig import MIB

RUNS = int(os.environ.get("QMPSNAP_CHAOS_ATTACKS", "20"))
ONE = os.environ.get("QMPSNAP_CHAOS_ATTACK")
SEEDS = range(RUNS) if ONE is None else [int(ONE)]
OPERATIONS = 6
ROADS = ("direct", "libvirt", "offline")


@pytest.mark.parametrize("seed", SEEDS)
def test_attack(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> None:
    road = ROADS[seed % len(ROADS)]
    chance = random.Random(f"attack {seed}")
    folder, safe, scratch = (tmp_path / name for name in ("share", "safe", "scratch"))
    for one in (folder, safe, scratch):
        one.mkdir()
    disk = model.build(
        folder,
        0,
        depth=chance.choice((1, 2, 3, 4, 5)),
        base=chance.choice(("raw", "qcow2")),
        size=MIB,
        chance=chance,
    )
    start = disk.files, disk.layers[-1].format
    make: Callable[[], Stage] = lambda: DirectStage(disk, scratch)  # noqa: E731
    if road != "direct":
        request.getfixturevalue("borrowed")
        connection: Any = request.getfixturevalue("connection")
        make = lambda: LibvirtStage(disk, scratch, connection)  # noqa: E731
    stays = {"direct": 1.0, "libvirt": 0.85, "offline": 0.15}[road]
    with make() as stage:
        attack = Attack(stage, safe, chance, stays=stays)
        try:
            attack.run(OPERATIONS)
        except BaseException as error:
            log = "".join(f"\n    {line}" for line in attack.log)
            error.add_note(f"QMPSNAP_CHAOS_ATTACK={seed}, {road}, from {start}:{log}")
            raise
        print(dict(attack.counts))
