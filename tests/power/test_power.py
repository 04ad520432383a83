"""
The power fails: at each moment of an operation, with any part of what was not synced.

A recorder lies between the programs and the disk, below images, journal and markers. From what it
has written down, the states are computed that a power failure may leave, and laid down one after
the other.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.power.played import cases, made, played
from tests.power.recording import Box, recorded
from tests.power.settled import settled
from tests.rig.kills import KILLINGS
from tests.rig.sampling import SEED, sample

OPERATIONS = [name for name in KILLINGS if KILLINGS[name].is_sound]


@pytest.mark.timeout(3600)  # at night
@pytest.mark.parametrize("operation", OPERATIONS)
def test_nothing_that_was_flushed_is_lost(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing = KILLINGS[operation]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    box = Box.made(tmp_path)
    made(box)
    chance = random.Random(f"{SEED} {operation}")
    outcomes: Counter[str] = Counter()
    with recorded(box):
        one = played(box, killing, scratch, chance)
        monkeypatch.setenv("QMPSNAP_STATE", str(box.state_folder))
        every = tuple(cases(one, chance))
        for case in sample(every, operation, lambda _case: False):
            box.lay(case.state)
            try:
                outcomes[settled(one, killing, case, scratch)] += 1
            except AssertionError as error:
                error.add_note(
                    f"the power failed at {case.at}, with {case.left} of what was not synced"
                )
                raise
    print(f"{operation}: {outcomes.total()} of {len(every)} states, {dict(outcomes)}")
