"""
Every process of the stack, killed at random during random operations: nothing is lost, or stuck.

    QMPSNAP_STACK_KILLS=200 QMPSNAP_STACK_SEED=17 pytest tests/openstack/test_stack_killed.py

The choices follow from the seed; what a kill hits does not, so it may take several runs to see a
failure again.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.openstack.conftest import MakeRig
from tests.openstack.rig import pairings
from tests.openstack.rig.rig import Rig
from tests.openstack.story.held import compare, reset_lost, rows_of, settle, stray
from tests.openstack.story.killing import SERVICES, Death, kill_qemu
from tests.openstack.story.volume import Volume
from tests.rig import sampling

OPERATIONS: Final = int(os.environ.get("QMPSNAP_STACK_KILLS", "20"))
SEED: Final = os.environ.get("QMPSNAP_STACK_SEED", sampling.SEED)
VICTIMS: Final = (*SERVICES, "qemu", "reboot", "nobody")
REQUESTS: Final = ("create", "delete", "extend")
"""Of Cinder."""
LATEST_S: Final = 1.5
"""An operation takes about a second."""
BANDWIDTH: Final = 512 << 20
"""A pull of a volume's first file, whose holes count too, takes two seconds for each GiB."""


@pytest.fixture(scope="module")
def rig(rig_of: MakeRig) -> Iterator[Rig]:
    """Both sides ours, nothing of other tests, and an API of its own that compute reports to."""
    own = replace(pairings.OURS, name="killed")
    rig = rig_of(own)
    api = f"http://127.0.0.1:{rig.layout.api_port}/v3/%(project_id)s"
    nova = (*own.nova, f"cinder.endpoint_template={api}", f"qmpsnap.bandwidth={BANDWIDTH}")
    rig.start("api")
    with rig.configured(replace(own, nova=nova), "compute"):
        yield rig
    rig.stop("api")


@pytest.mark.timeout(600 + 60 * OPERATIONS)
def test_nothing_is_lost_and_nothing_is_stuck(rig: Rig, tmp_path: Path) -> None:
    print(f"QMPSNAP_STACK_SEED={SEED}")
    run = Run(rig, random.Random(SEED), tmp_path)
    while run.done.total() < OPERATIONS:
        run.round()
    print(dict(run.done), dict(run.dead))


class Run:
    """Two volumes, and what has been done to them."""

    def __init__(self, rig: Rig, chance: random.Random, folder: Path) -> None:
        self._rig, self._chance = rig, chance
        self._volumes = [Volume(rig, chance, folder) for _ in range(2)]
        self._deck: list[str] = []
        self.done: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()

    def round(self) -> None:
        """Something on each volume, and one death in between; then all is compared."""
        for volume in self._volumes:
            volume.write()
        chosen = [(volume, volume.choose()) for volume in self._volumes]
        for volume, what in chosen:
            if what not in REQUESTS:  # an operator's own hand: nothing dies meanwhile
                self._say(volume, volume.begin(what))
        death = self._death()
        for volume, what in chosen:
            if what in REQUESTS:
                self._say(volume, volume.begin(what))
                self.done[what] += 1
        for volume in self._volumes:
            volume.scribble()
        death.restarted()
        self.dead[death.victim] += 1
        if death.victim == "cinder":
            self.dead["request on the bus"] += reset_lost(self._volumes)
        for volume in self._volumes:
            volume.back_up()
            if death.victim == "libvirtd":
                volume.left_open |= {*rows_of(volume)}
        settle(self._rig, self._volumes)
        print({one for volume in self._volumes for one in rows_of(volume).values()})
        for volume in self._volumes:
            compare(volume)
        assert stray(self._rig, self._volumes) == set()

    def _death(self) -> Death:
        """Each victim once, in a random order, and from the beginning; guests only where one runs."""
        self._deck = self._deck or self._chance.sample(VICTIMS, len(VICTIMS))
        victim, after_s = self._deck.pop(), self._chance.uniform(0, LATEST_S)
        guests = [one.guest for one in self._volumes if one.guest is not None and one.is_on]
        kill: Callable[[], object] | None = None
        if victim not in SERVICES:
            kill = self._nobody
            if guests and victim != "nobody":
                guest = self._chance.choice(guests)
                kill = partial(kill_qemu, guest) if victim == "qemu" else guest.stop
            else:
                victim = "nobody"
        print(f"{victim} after {after_s:.3f} s:", end=" ")
        return Death(self._rig, victim, after_s, kill)

    def _nobody(self) -> None:
        """An undisturbed round."""

    @staticmethod
    def _say(volume: Volume, what: str) -> None:
        print(f"{volume.id[:8]} {what},", end=" ", flush=True)
