"""
Faults that are planted in the product, each of which the runs must find: else they prove nothing.

Each takes out one guard. The calls are chosen so that a few hundred runs meet what it guards against.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.journal import keep, outlook, plugged, resume, since
from qmpsnap.journal.door import Recorder
from qmpsnap.journal.plugged import Stay
from qmpsnap.operations import judge, merge
from qmpsnap.operations.guest import MergeSteps, SnapshotSteps
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.step import Does, Step
from tests.simulation.fate import Call, Fate, Then, What
from tests.simulation.run import one

Plant = Callable[[pytest.MonkeyPatch], None]
RUNS: Final = 3000


@dataclass(frozen=True)
class Planted:
    """One fault, and the calls that meet it."""

    plant: Plant
    what: tuple[What, ...] = ("both",)
    then: tuple[Then, ...] = ("",)
    acts: range = range(1, 9)
    back: float = 0
    calls: int = 2


def _says(module: Any, name: str, answer: Any) -> Plant:
    """A fault: a question always has the same answer."""
    return lambda patch: patch.setattr(module, name, lambda *_args, **_more: answer)


def _same_qemu(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(outlook, "_is_same_qemu", lambda *_args: True)
    patch.setattr(plugged, "_stay", lambda *_args: Stay.SURE)


def _unflushed(patch: pytest.MonkeyPatch) -> None:
    real = QmpComposer.merge

    def merged(composer: QmpComposer, *arguments: Any) -> MergeSteps:
        steps = real(composer, *arguments)
        settle = tuple(step for step in steps.settle if step.does is not Does.FLUSH)
        return replace(steps, flush=None, otherwise=(), settle=settle)

    patch.setattr(QmpComposer, "merge", merged)


def _alone(patch: pytest.MonkeyPatch) -> None:
    real = QmpComposer.snapshot

    def snapshot(composer: QmpComposer, *arguments: Any) -> SnapshotSteps:
        steps = real(composer, *arguments)
        actions = steps.switch.arguments["actions"][:1]  # type: ignore[index]
        return replace(steps, switch=replace(steps.switch, arguments={"actions": actions}))

    patch.setattr(QmpComposer, "snapshot", snapshot)


def _believing(patch: pytest.MonkeyPatch) -> None:
    real = judge.judged

    def judged(plan: MergePlan, ended: Any, guest: Any, after: Any, **more: Any) -> Result:
        new = replace(after, layers=plan.remaining) if after.paths == plan.disk.paths else after
        return real(plan, replace(ended, error=None), guest, new, **more)

    patch.setattr(merge, "judged", judged)


def _unknowing(patch: pytest.MonkeyPatch) -> None:
    for module in (keep, resume):
        patch.setattr(module, "knowing", lambda guest, _store: guest)


def _unmarked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("qmpsnap.journal.door.steps_for", lambda _record: ((), ()))


def _marked_for_long(patch: pytest.MonkeyPatch) -> None:
    """The marker stays until all files are removed."""
    intend, unmark, busy = Recorder._intend, Recorder.unmark, list[Recorder]()

    def intended(recorder: Recorder, step: Step) -> int | None:
        busy.append(recorder)
        try:
            return intend(recorder, step)
        finally:
            busy.pop()

    patch.setattr(Recorder, "_intend", intended)
    patch.setattr(Recorder, "unmark", lambda one: None if busy else unmark(one))


PLANTED: Final = {
    "a merge is not flushed": Planted(_unflushed, what=("qemu",)),
    "a job that ended is taken for done": Planted(_believing, what=("nothing",), calls=4),
    "a pivot is taken for proven": Planted(_says(outlook, "is_pivoted", True)),
    "acts that were sent are taken for unsent": Planted(_says(outlook, "intended", False)),
    "an overlay is taken for empty": Planted(_says(outlook, "is_empty", True)),
    "any QEMU is taken for the same": Planted(_same_qemu, then=("stale", "written")),
    "a disk that was plugged in again is taken for the same": Planted(
        _says(plugged, "_stay", Stay.SURE), what=("tool",), then=("plugged", "plugged stale")
    ),
    "nobody is taken to use the files": Planted(_says(outlook, "_users", ""), then=("elsewhere",)),
    "a stale file that was written is not seen": Planted(
        _says(outlook, "stale_written", ""), what=("qemu", "both"), then=("written",)
    ),
    "a file below an overlay that was written is not seen": Planted(
        _says(since, "_written_below", ""), what=("both",), then=("written",)
    ),
    "overlays are taken for switched together": Planted(
        _says(outlook, "not_switched", ""), then=("right",), acts=range(1, 4)
    ),
    "disks are switched one by one": Planted(_alone, what=("nothing",)),
    "what a revert keeps is not known": Planted(_unknowing, what=("nothing",), back=0.5, calls=4),
    "a marker outlives a file that it names": Planted(
        _marked_for_long, then=("no journal",), acts=range(5, 12)
    ),
    "no marker is written": Planted(_unmarked, what=("both",), then=("no journal",)),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED[fault]
    planted.plant(monkeypatch)
    chance = random.Random(fault)

    def runs() -> None:
        for number in range(RUNS):
            calls = [
                Call(
                    fate=Fate(chance.choice(planted.what), chance.choice(planted.acts), "after"),
                    back=chance.random() < planted.back,
                    then=chance.choice(planted.then),
                )
                for _ in range(planted.calls)
            ]
            try:
                one(number, calls, [])
            except (AssertionError, QmpsnapError):
                print(f"{fault}: found by run {number}")
                raise

    with pytest.raises((AssertionError, QmpsnapError)):
        runs()
