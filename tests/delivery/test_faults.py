"""
Many operations, a volume service with every fault, and senders that are killed.

QMPSNAP_DELIVERY_OPERATIONS says how many (50; 1,000 at night), QMPSNAP_DELIVERY_SEED which.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qmpsnap.journal.expected import expected
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Content, Due, Kind
from qmpsnap.journal.record import Conclusion
from tests.rig import sampling
from tests.rig.volume_service import FAULTS, Effect, Fault, VolumeService
from tests.rig.waiting import HANG_S
from tests.unit.journal_samples import act, merging
from tests.unit.letter_samples import found

OPERATIONS = int(os.environ.get("QMPSNAP_DELIVERY_OPERATIONS", "50"))
SEED = int(os.environ.get("QMPSNAP_DELIVERY_SEED") or zlib.crc32(sampling.SEED.encode()))
SLOW_S = 0.5
"""How long a sender waits for an answer. A good one that comes later is one more fault."""
_FORMATS = {"volume-1": "raw"}


@dataclass
class Snapshot:
    """One snapshot, for which one operation runs at a time, as Cinder sees to."""

    id: str
    kind: Kind = "create"
    """Of the next operation."""
    letter: str | None = None
    """Of the one that is waited for."""
    told: list[Content] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)


class Story:
    """What happens, by one seed."""

    def __init__(self, folder: Path, service: VolumeService, seed: int) -> None:
        self.dice = random.Random(seed)
        self.journal, self.service = Journal(folder), service
        self.snapshots: list[Snapshot] = []
        self.operations = 0
        self.faults: dict[str, int] = {}
        self.kills = self.restarts = 0
        self._faulty = random.Random(seed + 1)
        self.process: subprocess.Popen[bytes] | None = None
        """The sender."""
        self.is_to_restart = False
        service.fault = self.fault

    def fault(self, what: str) -> Fault | None:
        """
        Every third request fails; one that is never answered is rarer, since it takes time.

        One in twenty is the sender's last, one in forty the last before the service restarts.
        """
        if self._faulty.random() < 0.05 and self.process is not None:
            self.process.kill()
            self.kills += 1
        self.is_to_restart = self.is_to_restart or self._faulty.random() < 0.025
        if self._faulty.random() > 0.35:
            return None
        (fault,) = self._faulty.choices(FAULTS, [1 if "silent" in one else 4 for one in FAULTS])
        self.faults[f"{fault} ({what})"] = self.faults.get(f"{fault} ({what})", 0) + 1
        return fault

    def begin(self, snapshot: Snapshot) -> None:
        """Cinder asks for an operation; it is carried out, and concluded in the journal."""
        self.operations += 1
        kind = snapshot.kind
        token = f"token-{self.operations}" if self.dice.random() < 0.7 else None
        self.service.wait_for(snapshot.id, f"{kind[:-1]}ing", token)
        who = Addressee(snapshot=snapshot.id, volume="v", project="p")
        due = Due(kind=kind, addressee=who, token=token, since=time.time())
        id_ = f"operation-{self.operations}"
        is_done = self.dice.random() < 0.75
        end = Conclusion(
            outcome="finished" if is_done else "failed",
            ended=time.time(),
            file_format=_FORMATS if is_done else {},
        )
        with expected(self.journal, due) as letter, self.journal.opened() as store:
            store.begin(merging(id_), [act(1)], letter.id)
            store.conclude(merging(id_), end)
        snapshot.letter = letter.id
        snapshot.kinds.append(kind)
        (stored,) = found(self.journal, letter.id)
        assert stored.content is not None
        snapshot.told.append(stored.content)

    def go_on(self) -> None:
        """Begin what Cinder would: the next operation once the last one has had its effect."""
        seen = self.effects()
        for snapshot in self.snapshots:
            if len(seen.get(snapshot.id, [])) < len(snapshot.told):
                continue
            row = self.service.rows[snapshot.id]
            if row.status in ("creating", "deleting") and row.is_there:
                continue  # the driver has not noticed yet
            if row.status == "error" or not row.is_there or self.operations >= OPERATIONS:
                snapshot.letter = None
                continue
            snapshot.kind = "delete"
            self.begin(snapshot)
        self.snapshots_under_way(8)

    def snapshots_under_way(self, number: int) -> None:
        """Keep that many snapshots in work, as long as there are operations left."""
        busy = sum(one.letter is not None for one in self.snapshots)
        while busy < number and self.operations < OPERATIONS:
            snapshot = Snapshot(f"snapshot-{len(self.snapshots)}")
            self.snapshots.append(snapshot)
            self.begin(snapshot)
            busy += 1

    def restart(self) -> None:
        """The service ends, and comes back; every second time as one that knows the other dialect."""
        self.service.stop()
        self.is_to_restart = False
        self.restarts += 1
        self.service.is_spec = self.service.is_spec != (self.dice.random() < 0.5)
        self.service.start()

    def effects(self) -> dict[str, list[Effect]]:
        """By snapshot, in order."""
        by: dict[str, list[Effect]] = {}
        for effect in tuple(self.service.effects):
            by.setdefault(effect.snapshot, []).append(effect)
        return by

    @property
    def is_over(self) -> bool:
        """Whether every operation has had its effect, and no letter is left to be sent."""
        if self.operations < OPERATIONS or any(one.letter for one in self.snapshots):
            return False
        return all(one.state not in ("due", "waiting") for one in found(self.journal))


def sender(folder: Path, service: VolumeService) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.rig.sending",
        str(folder),
        service.endpoint,
        str(SLOW_S),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.timeout(max(600, OPERATIONS * 20))
def test_each_update_takes_effect_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    print(f"QMPSNAP_DELIVERY_SEED={SEED} QMPSNAP_DELIVERY_OPERATIONS={OPERATIONS}")
    with VolumeService(is_spec=SEED % 2 == 0, is_quick=False) as service:
        story = Story(tmp_path, service, SEED)
        last, moved = time.monotonic(), -1
        try:
            while not story.is_over:
                if len(service.effects) != moved:
                    last, moved = time.monotonic(), len(service.effects)
                assert time.monotonic() - last < HANG_S, f"nothing happens: {found(story.journal)}"
                if story.process is None or story.process.poll() is not None:
                    story.process = sender(tmp_path, service)
                if story.is_to_restart:
                    story.restart()
                story.go_on()
                if story.dice.random() < 0.3:
                    service.notice()
                time.sleep(0.01)
        finally:
            if story.process is not None:
                story.process.kill()
                story.process.wait()
    print(f"{story.operations} operations, {story.kills} kills, {story.restarts} restarts")
    print(", ".join(f"{number} x {fault}" for fault, number in sorted(story.faults.items())))
    check(story)


def check(story: Story) -> None:
    """Each update exactly once, none lost, none out of order."""
    seen = story.effects()
    for snapshot in story.snapshots:
        effects = seen.get(snapshot.id, [])
        words = [one.status.removesuffix("_compute_complete") for one in effects]
        wanted = [
            f"{kind[:-1]}ing"
            if content.outcome == "done"
            else ("error" if kind == "create" else "error_deleting")
            for kind, content in zip(snapshot.kinds, snapshot.told, strict=True)
        ]
        assert words == wanted, snapshot
        for effect, content in zip(effects, snapshot.told, strict=True):
            if effect.status.endswith("_compute_complete"):
                assert effect.file_format == content.file_format
            if content.outcome == "failed":
                assert effect.progress == "0%"
    states = [one.state for one in found(story.journal)]
    assert len(states) == story.operations
    assert set(states) <= {"closed", "dropped"}, states
