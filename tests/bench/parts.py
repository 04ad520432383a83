"""
Where the time of an operation goes: what the guest, its files and the journal were asked for.

The guest is asked through a `Timed`, which stands at the seam of `operations.guest.Guest`; what is
left is qmpsnap's own work between two questions: plans, judgements, the loop.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.journal.store import Store
from qmpsnap.operations.step import Does, Step
from tests.bench import operations
from tests.bench.operations import OPERATIONS, Bed, Operation, Road

READINGS: Final = "readings"
USERS: Final = "who uses the files"
FILES: Final = "looks at files"
BARE: Final = "the job"
ACTS: Final = "other acts"
JOURNAL: Final = "journal"
PARTS: Final = (BARE, READINGS, USERS, FILES, ACTS, JOURNAL)
_OF_THE_GUEST: Final[Mapping[str, str]] = {
    **dict.fromkeys(("read", "state", "outlines", "jobs"), READINGS),
    "neighbours": USERS,
    **dict.fromkeys(("follow", "view", "wait"), BARE),
}
_OF_FILES: Final = dict.fromkeys(("overlay", "digest", "identity", "room"), FILES)
_OF_THE_JOURNAL: Final = ("__init__", "__exit__", "begin", "go_on", "conclude", "open_entries")
_BARE: Final = frozenset({Does.SWITCH, Does.START, Does.COMMIT})
"""What the bare command does as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """One operation of 16 MiB: medians, in seconds of wall-clock time."""

    road: Road
    operation: Operation
    all_s: float
    parts_s: Mapping[str, float]
    readings: int
    """How many full readings there were."""


class Timed:
    """Whatever it stands for, with the time of some of its methods added up."""

    def __init__(
        self, inner: Any, names: Mapping[str, str], spent: defaultdict[str, float]
    ) -> None:
        """Stand for `inner`, and add to `spent` by the parts that `names` tells."""
        self._inner, self._names, self._spent = inner, names, spent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name == "files":
            return Timed(found, _OF_FILES, self._spent)
        if name == "take":
            return self._take
        part = self._names.get(name)
        if name == "read":
            self._spent[name] += 1
        return found if part is None else _timed(found, part, self._spent)

    def _take(self, step: Step) -> object:
        part = BARE if step.does in _BARE else ACTS
        return _timed(self._inner.take, part, self._spent)(step)


def measure(folder: Path, rounds: int) -> Iterator[Spent]:
    """
    All operations on 16 MiB, directly and under libvirt.

    Args:
        folder: For images and libvirt's own files; its path is short.
        rounds: How often each is done, after once for nothing.
    """
    with operations.direct(folder, 16) as bed:
        yield from _on(bed, rounds)
    with (
        embedded_connection(folder / "libvirt") as connection,
        operations.libvirt(connection, folder, 16) as bed,
    ):
        yield from _on(bed, rounds)


def _on(bed: Bed, rounds: int) -> Iterator[Spent]:
    for what in OPERATIONS:
        rows = [*_each(bed, what, rounds)][1:]
        yield Spent(
            road=bed.road,
            operation=what,
            all_s=statistics.median(row["all"] for row in rows),
            parts_s={part: statistics.median(row[part] for row in rows) for part in PARTS},
            readings=round(statistics.median(row["read"] for row in rows)),
        )


def _each(bed: Bed, what: Operation, rounds: int) -> Iterator[defaultdict[str, float]]:
    for _ in range(rounds + 1):
        spent: defaultdict[str, float] = defaultdict(float)
        timed = replace(bed, guest=partial(_lent, bed, spent))
        bed.build(what)
        with _journal_timed(spent):
            _timed(timed.by_library, "all", spent)(what)
        bed.clear()
        yield spent


@contextmanager
def _lent(bed: Bed, spent: defaultdict[str, float]) -> Iterator[Any]:
    with bed.guest() as guest:
        yield Timed(guest, _OF_THE_GUEST, spent)


@contextmanager
def _journal_timed(spent: defaultdict[str, float]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in _OF_THE_JOURNAL:
            patch.setattr(Store, name, _timed(getattr(Store, name), JOURNAL, spent))
        yield


def _timed(
    work: Callable[..., Any], part: str, spent: defaultdict[str, float]
) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return work(*given, **named)
        finally:
            spent[part] += time.perf_counter() - begun

    return timed
