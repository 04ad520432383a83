"""
The power fails: at each moment of an operation, with any part of what was not synced.

A recorder lies between the programs and the disk, below images, journal and markers. From what it
has written down, the states are computed that a power failure may leave, and laid down one after
the other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.journal.store import Store
from qmpsnap.operations.step import Does, Step
from tests.power.played import Case, Played, cases, made, played
from tests.power.recording import Box, recorded
from tests.power.settled import settled
from tests.rig.kills import KILLINGS
from tests.rig.sampling import SEED, sample

OPERATIONS: Final = [name for name in KILLINGS if KILLINGS[name].is_sound]
pytestmark = pytest.mark.timeout(3600)  # at night


@contextmanager
def _played(
    operation: str, folder: Path, *, is_busy: bool = True, has_journal: bool = True
) -> Iterator[tuple[Played, tuple[Case, ...]]]:
    """An operation that was recorded, and all that may be left of it; the journal is its own."""
    box = Box.made(folder)
    made(box)
    (folder / "scratch").mkdir()
    chance = random.Random(f"{SEED} {operation}")
    with recorded(box), pytest.MonkeyPatch.context() as patch:
        patch.setenv("QMPSNAP_STATE", str(box.state_folder))
        one = played(box, KILLINGS[operation], folder / "scratch", chance, is_busy=is_busy)
        yield one, tuple(cases(one, chance, has_journal=has_journal))


def _settled(operation: str, one: Played, case: Case) -> str:
    one.box.lay(case.state)
    try:
        return settled(one, KILLINGS[operation], case, one.box.log.parent / "scratch")
    except AssertionError as error:
        error.add_note(f"the power failed at {case.at}, with {case.left} of what was not synced")
        raise


@pytest.mark.parametrize(
    ("operation", "is_busy"),
    [
        *(pytest.param(name, True, id=name) for name in OPERATIONS),
        pytest.param("create", False, id="create, and nothing is written afterwards"),
    ],
)
def test_nothing_that_was_flushed_is_lost(operation: str, is_busy: bool, tmp_path: Path) -> None:
    outcomes: Counter[str] = Counter()
    with _played(operation, tmp_path, is_busy=is_busy) as (one, every):
        for case in sample(every, f"{operation}, {is_busy}", lambda _case: False):
            outcomes[_settled(operation, one, case)] += 1
    print(f"{operation}: {outcomes.total()} of {len(every)} states, {dict(outcomes)}")


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "commit"])
def test_nor_when_the_journal_is_gone_too(operation: str, tmp_path: Path) -> None:
    """
    The marker alone is left; where there is none, the files are as the caller knows them.

    A commit has no marker: its header tells.
    """
    outcomes: Counter[str] = Counter()
    with _played(operation, tmp_path, has_journal=False) as (one, every):
        for case in sample(every, f"{operation}, no journal", lambda _case: False):
            outcomes[_settled(operation, one, case)] += 1
    print(f"{operation}, no journal: {outcomes.total()} of {len(every)} states, {dict(outcomes)}")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A sync that the product is without."""

    operation: str
    replaced: str
    by: object
    seen: str
    is_late: bool = True
    """Whether it is seen when the operation has ended, or before."""
    is_busy: bool = True
    has_journal: bool = True


def _nothing(*_arguments: object) -> None:
    """In the place of a sync."""


def _unsynced(conclude: Callable[..., Any]) -> Callable[..., Any]:
    writing = Store.writing

    def without(store: Store, *arguments: Any, **more: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "writing", lambda one, **_: writing(one, synced=False))
            return conclude(store, *arguments, **more)

    return without


def _unflushed(take: Callable[[QmpGuest, Step], object]) -> Callable[[QmpGuest, Step], object]:
    return lambda guest, step: "" if step.does is Does.FLUSH else take(guest, step)


MISSING: Final = {
    "of a conclusion": Missing(
        operation="create",
        replaced="qmpsnap.journal.store.Store.conclude",
        by=_unsynced(Store.conclude),
        seen="told that it is done, and it is rolled-back",
        is_busy=False,
    ),
    "of a marker that is removed": Missing(
        operation="pull to a base",
        replaced="qmpsnap.guests.files.markers.sync_folder",
        by=_nothing,
        seen="left beside the images: .*qmpsnap-power",
    ),
    "of a marker that is written": Missing(
        operation="active commit",
        replaced="qmpsnap.guests.files.markers.sync_folder",
        by=_nothing,
        seen="has lost",
        is_late=False,
        has_journal=False,
    ),
    "of the state folder's name": Missing(
        operation="pull to a base",
        replaced="qmpsnap.journal.folder.sync_folder",
        by=_nothing,
        seen="left beside the images: .*qmpsnap-power",
        is_late=False,
    ),
    "of what was committed": Missing(
        operation="commit",
        replaced="qmpsnap.guests.qmp.guest.QmpGuest.take",
        by=_unflushed(QmpGuest.take),
        seen="has lost",
    ),
}


@pytest.mark.parametrize("sync", MISSING)
def test_a_missing_sync_is_seen(sync: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The product without one of its syncs fails.

    By hand were tried as well: without the sync of the folder of a new overlay nothing is seen, as
    the marker's is the same folder, and synced before the switch; it is for `--no-journal`. A
    journal that is switched to its write-ahead log after it has its name is seen (16 of 219
    states).
    """
    missing = MISSING[sync]
    monkeypatch.setattr(missing.replaced, missing.by)
    how = {"is_busy": missing.is_busy, "has_journal": missing.has_journal}
    with _played(missing.operation, tmp_path, **how) as (one, every):
        those = [case for case in every if (case.at >= one.ended) is missing.is_late]
        random.Random(f"{SEED} {sync}").shuffle(those)
        with pytest.raises(AssertionError, match=missing.seen):
            _all_settled(missing.operation, one, those)


def _all_settled(operation: str, one: Played, those: Iterable[Case]) -> None:
    for case in those:
        _settled(operation, one, case)
