"""
Operations, rivals, crashes and resumes on a simulated QEMU, in orders that no machine can time.

The operations, the loop, the journal and `resume` are the product's. Whatever happens, nothing that
the guest had flushed is lost, no file is removed that a chain or a header holds, and each operation
is concluded once. `QMPSNAP_SIMULATIONS` sets how many runs there are, `QMPSNAP_SIMULATION_SEED` the
first choice; a failure is made small by hypothesis, and printed.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.qcow2 import Header
from qmpsnap.guests.files import door
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.journal import keep, outlook, resume
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.resume import Settled, Take, Wanted, settle
from qmpsnap.journal.store import Store
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import MergeSteps
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.rig.doors import Killed
from tests.simulation.block_layer import CLUSTERS, UNFINISHED, BlockLayer
from tests.simulation.guest import DISK, SimulatedGuest, take_file
from tests.simulation.seed import RUNS, SEED
from tests.unit import samples

BASE: Final = "volume-1"
PARTS: Final = max(4, RUNS // 500)
"""A test of ten minutes is stopped."""
seen: Counter[str] = Counter()
"""What the runs came to."""
conclusions: Counter[str] = Counter()
"""Of each operation of this run."""


@dataclass
class Fate:
    """What happens to a call at its n-th act."""

    what: str = "nothing"
    number: int = 0
    when: str = "before"


@dataclass
class Doomed(SimulatedGuest):
    """A connection on which something happens."""

    model: BlockLayer
    fate: Fate = field(default_factory=Fate)
    rival: bool = False

    def __post_init__(self) -> None:
        super().__init__(self.model)
        self._acts = 0

    def take(self, step: Step) -> object:
        self._acts += 1
        is_now = self._acts == self.fate.number
        if self.rival and self.model.chance.random() < 0.1:
            meddle(self.model)
        if is_now and self.fate.when == "before":
            self._strike()
        if is_now and self.fate.what == "reply":
            self.lose_next = step.by == "qmp"
            self.can_reconnect = self.model.chance.random() < 0.5
        answer = super().take(step)
        if is_now and self.fate.when == "after":
            self._strike()
        return answer

    def _strike(self) -> None:
        if self.fate.what in ("qemu", "both"):
            self.model.crash()
        if self.fate.what in ("tool", "both"):
            raise Killed


def meddle(model: BlockLayer) -> None:
    """Somebody else cancels or dismisses a job."""
    if not model.is_running or not model.jobs:
        return
    job = model.chance.choice(list(model.jobs))
    with suppress(CommandFailed):
        model.execute(model.chance.choice(["job-cancel", "job-dismiss"]), {"id": job})


fates = st.builds(
    Fate,
    what=st.sampled_from(["nothing", "tool", "qemu", "both", "reply"]),
    number=st.integers(1, 12),
    when=st.sampled_from(["before", "after"]),
)


@contextmanager
def a_host(chance: random.Random) -> Iterator[tuple[BlockLayer, Journal]]:
    """A guest on one file, and its journal, in memory."""
    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="simulated-", dir=where))
    try:
        (folder / "share").mkdir()
        model = BlockLayer(folder / "share", chance)
        path = str(folder / "share" / BASE)
        model.make(path, chance.choice(["raw", "qcow2"]), None)
        for number in range(chance.randrange(5)):
            above = f"{model.folder / BASE}.old{number}"
            model.make(above, "qcow2", os.path.basename(path))
            path = above
        for file in model.files.values():
            for _ in range(chance.randrange(CLUSTERS)):
                file.memory[chance.randrange(CLUSTERS)] = chance.randrange(1, 1 << 30)
            file.flush()
        model.start(path)
        model.flush()
        with pytest.MonkeyPatch.context() as patch:
            on_the_model(patch, model)
            yield model, Journal(folder)
    finally:
        shutil.rmtree(folder)


def on_the_model(patch: pytest.MonkeyPatch, model: BlockLayer) -> None:
    """Have `resume` look at the model's files."""

    def read_header(path: str, *, follow: bool = True) -> Header:
        file = model.files.get(path)
        if file is None:
            raise FileNotFoundError(path)
        return Header(version=3, virtual_size=samples.MIB, backing_file=file.header)

    def is_empty(path: str) -> bool:
        return not model.files[path].disk

    real = door.take_file

    def take(step: Step) -> object:
        return real(step) if step.what.endswith("-marker") else take_file(model, step)

    patch.setattr(outlook, "read_header", read_header)
    patch.setattr("qmpsnap.journal.outlook.qemu_img.is_empty", is_empty)
    patch.setattr(outlook, "other_users", lambda paths, active: ({}, ()))
    patch.setattr(resume, "take_file", take)
    conclude = Store.conclude

    def concluded(store: Store, record: Record, *rest: Any, **more: Any) -> bool:
        is_first = conclude(store, record, *rest, **more)
        conclusions[record.id] += is_first
        return is_first

    conclusions.clear()
    patch.setattr(Store, "conclude", concluded)


def request(model: BlockLayer, chance: random.Random, number: int) -> CreateRequest | DeleteRequest:
    """Something to do that the chain allows; more snapshots than merges while it is short."""
    files = [os.path.basename(model.nodes[node]) for node in model.chain]
    if len(files) < 2 or (len(files) < 5 and chance.random() < 0.45):
        name = f"s{number}"
        return CreateRequest(disk=DISK, new_file=f"{BASE}.{name}", snapshot=name)
    if chance.random() < 0.4:
        base = chance.choice([None, *files[2:]])
        return DeleteRequest(disk=DISK, file_to_merge=base, merge_target_file=None)
    top = chance.randrange(len(files) - 1)
    target = chance.randrange(top + 1, len(files))
    return DeleteRequest(disk=DISK, file_to_merge=files[top], merge_target_file=files[target])


def operated(
    model: BlockLayer,
    journal: Journal,
    asked: CreateRequest | DeleteRequest,
    guest: Doomed,
) -> None:
    """Do it, whatever comes of it."""
    try:
        if isinstance(asked, CreateRequest):
            keep.created(journal, guest, (asked,))
        else:
            keep.deleted(journal, guest, asked, remove=model.chance.random() < 0.5)
    except Killed:
        seen["killed"] += 1
    except QmpsnapError as error:
        seen[type(error).__name__] += 1
    else:
        seen["done"] += 1


def settled_all(model: BlockLayer, journal: Journal, before: str, later: list[Fate]) -> None:
    """Resume until nothing is open and the guest runs, whoever dies in between."""
    while True:
        entries = open_entries(journal)
        for entry in entries:
            fate = later.pop() if later else Fate()
            is_gone = not model.is_running
            try:
                settled = settle(journal, entry, None if is_gone else Doomed(model, fate))
                if settled.outcome == "unknown" and is_gone:
                    settled = decided(model, journal, entry)
            except Killed:
                seen["resume killed"] += 1
                continue
            except QmpsnapError:
                if fate.what == "nothing":
                    raise
                continue
            seen[settled.outcome] += 1
            assert settled.outcome != "unknown" or fate.what != "nothing", settled
            if not model.is_running and settled.outcome in ("finished", "rolled-back"):
                started(model, settled.active[0])
        if entries:
            continue
        if not model.is_running:
            started(model, known_active(journal) or before)
        return


def decided(model: BlockLayer, journal: Journal, entry: Entry) -> Settled:
    """Nobody can know; a person looks at both files, and one of them has lost nothing."""
    assert entry.record.kind == "active-commit", entry.record.kind
    active, base = outlook.candidates(entry.record)
    take: Take = "base" if not model.lost(base) else "active"
    assert not model.lost(base if take == "base" else active)
    return settle(journal, entry, None, Wanted(take=take))


def started(model: BlockLayer, path: str) -> None:
    """The guest is started from what it is said to be started from."""
    assert not model.lost(path), model.lost(path)
    model.start(path)
    for cluster in range(CLUSTERS):
        model.possible[cluster] = [model.read(cluster)]


def known_active(journal: Journal) -> str | None:
    """What `log` says of the last operation."""
    with journal.opened() as store:
        ends = [one.conclusion for one in store.entries() if one.conclusion]
    return next((end.active[0] for end in reversed(ends) if end.active), None)


def open_entries(journal: Journal) -> tuple[Entry, ...]:
    with journal.opened() as store:
        return store.open_entries()


def one(number: int, calls: list[tuple[Fate, bool]], later: list[Fate]) -> None:
    """One run: a guest, some operations on it, and what happens to them."""
    chance = random.Random(number)
    with a_host(chance) as (model, journal):
        for position, (fate, rival) in enumerate(calls):
            before = model.nodes[model.chain[0]]
            asked = request(model, chance, position)
            operated(model, journal, asked, Doomed(model, fate, rival))
            settled_all(model, journal, before, list(later))
            for cluster in range(CLUSTERS):
                assert model.read(cluster) == model.possible.get(cluster, [0])[-1]
            assert not list(model.folder.glob(".*"))
            assert set(conclusions.values()) <= {1}
            assert not [one for one in model.jobs.values() if one.status in UNFINISHED]


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost(part: int) -> None:
    @seed(SEED + part)
    @settings(
        max_examples=max(1, RUNS // PARTS),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        number=st.integers(0, 1 << 32),
        calls=st.lists(st.tuples(fates, st.booleans()), min_size=1, max_size=4),
        later=st.lists(fates, max_size=3),
    )
    def run(number: int, calls: list[tuple[Fate, bool]], later: list[Fate]) -> None:
        one(number, calls, later)

    run()
    print(f"{RUNS // PARTS} runs, QMPSNAP_SIMULATION_SEED={SEED}, part {part}: {dict(seen)}")


def test_without_its_flush_a_merge_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs can fail: a few hundred of them find what the flush is for."""
    merge = QmpComposer.merge

    def unflushed(composer: QmpComposer, *arguments: Any) -> MergeSteps:
        steps = merge(composer, *arguments)
        settle = tuple(one for one in steps.settle if one.does is not Does.FLUSH)
        return replace(steps, flush=None, otherwise=(), settle=settle)

    monkeypatch.setattr(QmpComposer, "merge", unflushed)

    def runs() -> None:
        for number in range(5000):
            one(number, [(Fate(), False), (Fate("qemu", 4, "after"), False)], [])

    with pytest.raises(AssertionError, match="cluster"):
        runs()
