"""
Random sequences of operations on a disk that is written to, cancels and restarts among them.

A failure prints the seed and the steps so far. `QMPSNAP_CHAOS_SEED=SEED` does one again;
`QMPSNAP_CHAOS_SEQUENCES` sets how many there are on each road, `QMPSNAP_CHAOS_STEPS` their length;
a longer one begins like a shorter one.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos import model, steps
from tests.chaos.conftest import GetRoad
from tests.chaos.scenario import Scenario
from tests.rig.rig import MIB

SEQUENCES = int(os.environ.get("QMPSNAP_CHAOS_SEQUENCES", "25"))
ONE = os.environ.get("QMPSNAP_CHAOS_SEED")
SEEDS = range(SEQUENCES) if ONE is None else [int(ONE)]
STEPS = int(os.environ.get("QMPSNAP_CHAOS_STEPS", "6"))
SIZE = MIB


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_sequence(get_road: GetRoad, tmp_path: Path, road: str, seed: int) -> None:
    chance = random.Random(f"{road} {seed}")
    disks = [
        model.build(
            tmp_path,
            number,
            depth=chance.choice((1, 1, 2, 3, 4, 6, 9, 11)),
            base=chance.choice(("raw", "qcow2")),
            size=SIZE,
            chance=chance,
            raw_node=chance.random() < 0.7,
        )
        for number in range(chance.choice((1, 1, 2, 3)))
    ]
    start = [(disk.files, disk.layers[-1].format, disk.raw_node) for disk in disks]
    with Scenario(get_road(road), tmp_path, disks) as scenario:
        try:
            for _ in range(STEPS):
                scenario.do(steps.choose(chance, disks))
            scenario.finish()
        except BaseException as error:
            done = "".join(f"\n    {step}" for step in scenario.done)
            error.add_note(f"QMPSNAP_CHAOS_SEED={seed}, {road}, from {start}:{done}")
            raise
