"""
The guest is started by somebody, after its QEMU has died and before anything is settled.

From the file that has all data, or from the other one of the operation, which is stale: then the guest
only reads, or writes as well. Which one is right is told by the content alone, byte by byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from qmpsnap.journal.file import Journal
from qmpsnap.journal.markers import beside
from qmpsnap.journal.record import Entry
from qmpsnap.journal.resume import Settled, Take, Wanted, resume, settle
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobStatus
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.kills import (
    KILLINGS,
    Deaths,
    Killing,
    Trace,
    Victim,
    at_points,
    dies,
    files_of,
    format_of,
    layers_of,
    open_entries,
    traced,
)
from tests.rig.waiting import until

How = Literal["not", "right", "stale", "written"]
HOW: tuple[How, ...] = ("not", "right", "stale", "written")


_COMMITTED: Final = ("after", Does.COMMIT)
_ENDED: Final = (JobStatus.CONCLUDED, JobStatus.NULL)


def until_pivoted(guest: Guest) -> None:
    """
    Wait until a job that was told to complete has done so.

    The guest of a test writes by HMP, which QEMU 7.2 may run in the middle of a pivot; see
    `tests.rig.writer.NbdClient`.
    """
    until(lambda: all(one.view.status in _ENDED for one in guest.jobs()))


@dataclass(frozen=True, kw_only=True)
class Startable:
    """A guest that is operated on, that writes, dies, and is started again."""

    victim: Victim
    write: Callable[[], object]
    """The guest writes what it has not had, and flushes."""
    kill: Callable[[], object]
    """SIGKILL for QEMU, and for libvirtd, where that is to die too; and it is started again."""
    start: Callable[[Path], AbstractContextManager[Startable]]
    """Somebody starts the guest from a file."""
    is_defined: bool = False
    """Whether libvirt has its definition: whoever points that to the base of an active commit has
    decided, and it is taken for libvirt's own word that the pivot was carried out."""


def killed_and_started(
    name: str,
    startables: Callable[[], AbstractContextManager[Startable]],
    killing: Killing,
    journal: Journal,
    how: How,
) -> Deaths:
    """
    Die at points, each time with a new guest, which writes and dies as well; then somebody starts it.

    Whatever was started, no file that has all data changes before a person says so; what `resume`
    says is right is; and nothing is left open.

    Args:
        name: Of the road, the operation and how, for the choice of points.
        startables: Makes the guests.
        killing: The operation.
        journal: Where it is written down.
        how: From what it is started, and what it does.
    """
    outcomes: Counter[str] = Counter()

    def operate(trace: Trace) -> None:
        with startables() as mine:
            victim = mine.victim
            paths = [victim.folder / one for one in (layers_of(victim)[0], files_of(killing)[0])]
            with victim.connect() as guest, traced(guest, trace) as mortal:
                dies(mortal, killing.request, journal)
            if trace.point is not None and (trace.point.when, trace.point.what) == _COMMITTED:
                with victim.connect() as guest:
                    until_pivoted(guest)
            mine.write()
            content = victim.content()
            mine.kill()
            whole = [path for path in dict.fromkeys(paths) if holds(path, content)]
            assert whole, f"no file holds what the guest had: {paths}"
            stale = [path for path in paths if path.exists() and path not in whole]
            if mine.is_defined and killing is KILLINGS["active commit"]:
                stale = [path for path in stale if path == paths[0]]
            entries = open_entries(journal)
            if how == "right":
                _started(mine, whole[0], entries, journal, outcomes)
            elif how != "not" and stale and entries:
                _started_stale(mine, stale[0], entries[0], journal, outcomes, how)
            for entry in entries:
                _ended(entry, journal, outcomes, content)
            if how != "written" or not stale:
                assert any(holds(path, content) for path in whole), "what was whole is so no more"
            assert not open_entries(journal)
            assert not beside([str(victim.folder / "x")])

    found = at_points(name, operate)
    found.outcomes = outcomes
    return found


def holds(path: Path, content: str) -> bool:
    """Whether a guest that is started from a file reads this."""
    return path.exists() and images.sha256_of(path, format_of(path)) == content


def _started(
    mine: Startable,
    path: Path,
    entries: tuple[Entry, ...],
    journal: Journal,
    outcomes: Counter[str],
) -> None:
    """From a file that has all data: it goes on having it, whatever `resume` says."""
    with mine.start(path) as other:
        content = other.victim.content()
        for entry in entries:
            with other.victim.connect() as guest:
                settled = settle(journal, entry, guest)
            outcomes[f"started: {settled.outcome}"] += 1
            assert settled.outcome != "unknown" or settled.notes
        assert other.victim.content() == content
        with other.victim.connect() as guest:
            assert guest.jobs() == ()


def _started_stale(
    mine: Startable,
    path: Path,
    entry: Entry,
    journal: Journal,
    outcomes: Counter[str],
    how: How,
) -> None:
    with mine.start(path) as other:
        if how == "written":
            other.write()
        with other.victim.connect() as guest:
            settled = settle(journal, entry, guest)
        assert settled.outcome == "unknown", settled
        outcomes["stale: unknown"] += 1
    if how == "written" and is_told(entry):
        settled = resume(journal, entry)
        assert settled.outcome == "unknown", settled
        outcomes["ended: unknown"] += 1
        settled = resume(journal, entry, Wanted(take="base"))
        assert settled.outcome != "unknown", settled


def is_told(entry: Entry) -> bool:
    """
    Whether the files tell that a guest has run from the wrong one, when it has ended.

    Not of a pull, of which one file alone can be started; nor of the base of an active commit before
    its pivot: the job writes to it as well, and no header or definition names it as an active file.
    """
    kind, acts = entry.record.kind, {act.does for act in entry.acts}
    return kind == "create" or (kind == "active-commit" and Does.COMMIT in acts)


def _ended(entry: Entry, journal: Journal, outcomes: Counter[str], content: str) -> None:
    """The guest is gone: what `resume` names is right, and where it cannot know a person decides."""
    settled = resume(journal, entry)
    outcomes[settled.outcome] += 1
    if settled.outcome == "nothing-to-do":
        return
    if settled.outcome == "unknown":
        assert entry.record.kind == "active-commit", settled
        assert len(settled.active) == 2
        takes: tuple[Take, ...] = ("active", "base")
        take = next(
            take
            for take, path in zip(takes, settled.active, strict=True)
            if holds(Path(path), content)
        )
        settled = resume(journal, entry, Wanted(take=take))
    _names(settled, content)
    assert resume(journal, entry).outcome == "nothing-to-do"


def _names(settled: Settled, content: str) -> None:
    (active,) = settled.active
    assert holds(Path(active), content), settled
