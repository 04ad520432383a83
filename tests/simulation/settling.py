"""
All that is open is settled, as the documents say.

`resume` is given; a guest that was started from the wrong file is ended; where nobody can know, a
person looks at both files; and the guest is started from the file that is named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from qmpsnap.errors import QmpsnapError
from qmpsnap.journal.file import Journal
from qmpsnap.journal.markers import beside, entry_of
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.resume import Settled, Take, Wanted, settle
from tests.rig.doors import Killed
from tests.rig.started import is_told
from tests.simulation.block_layer import BlockLayer
from tests.simulation.fate import Call, Doomed, Fate, Then
from tests.simulation.guest import (
    OffGuest,
    SimulatedGuest,
)
from tests.simulation.values import CLUSTERS, FOREIGN

seen: Counter[str] = Counter()
"""What the runs came to."""


@dataclass
class Settling:
    """All that is open is settled, whoever dies in between."""

    model: BlockLayer
    journal: Journal
    before: dict[str, str]
    """The active files before the call."""
    later: list[Fate]
    is_stale: bool = False
    """Whether a guest runs that somebody has started from a stale file."""
    is_ruined: bool = False
    """Whether it has written there: then no file has all data, and the run is over."""
    is_plugged: bool = False
    """Whether its disks were unplugged, and plugged in again."""

    def __post_init__(self) -> None:
        self._ended = {one.record.id for one in self._entries() if one.conclusion}
        self._own: set[str] = set()

    def settle_all(self, call: Call) -> None:
        """Until nothing is open and the guest runs, or is off as it was."""
        entries = self.unsettled()
        if call.then == "no journal":
            self._forget_all(entries)
        elif entries and not (self.model.is_running or call.back or self.model.foreign):
            self._started_by_somebody(call.then, entries[0])
            if self.is_ruined:
                return
        elif entries and self.model.is_running and call.then.startswith("plugged"):
            self._plugged_again(call.then, entries[0])
        while entries := self.unsettled():
            for entry in entries:
                self._settle(entry)
        if not self.model.is_running and not call.back:
            self.start(self.before | self._known() | self._by_others())

    def unsettled(self) -> list[Entry]:
        """By the journal, and where that is gone by the markers."""
        found = list(open_entries(self.journal))
        known = {one.record.id for one in self._entries()}
        markers = beside([str(self.model.folder / "x")])
        return found + [entry_of(one) for one in markers if one.id not in known]

    def _settle(self, entry: Entry) -> None:
        self._own = self._own.union(*could_be_right(entry.record).values())
        fate = self.later.pop() if self.later else Fate()
        guest = self._guest(fate)
        try:
            settled = settle(self.journal, entry, guest)
        except Killed:
            seen["resume killed"] += 1
            return
        except QmpsnapError:
            if fate.what == "nothing":
                raise
            return
        seen[settled.outcome] += 1
        if settled.outcome == "unknown":
            if fate.what == "nothing" or guest is None:
                self._decide(entry, settled)
        elif not self.model.is_running and settled.outcome != "nothing-to-do":
            self._end(entry, settled)
        assert not self.is_stale or settled.outcome == "unknown", settled

    def _guest(self, fate: Fate) -> Any:
        if self.model.is_running:
            return Doomed(SimulatedGuest(self.model), fate)
        return None if not self.model.definition else Doomed(OffGuest(self.model), fate)

    def _decide(self, entry: Entry, settled: Settled) -> None:
        """A person looks: ends a guest that runs, and sees which file has lost nothing."""
        if self.model.is_running:
            is_same = self.model.process == (entry.record.where.process or (0, 0))[1]
            if is_same and any("Mending it failed" in one for one in settled.notes):
                seen["header tried again by a person"] += (
                    1  # while it is wrong the guest must not end
                )
                return
            seen["guest ended by a person"] += 1
            by_others = any(FOREIGN in path for path in self.model.active.values())
            assert by_others or not is_same or self.is_plugged, settled
            if not self.is_stale:
                self.model.flush()
            self.model.crash()
            self.is_stale, self.model.writes = False, True
            return
        seen["decided by a person"] += 1
        right, takes = dict(self.before), dict[Take, bool](active=True, base=True)
        assert entry.record.kind not in ("commit", "pull"), settled
        overlays = [one.overlay for one in entry.record.creates]
        hold = [one for one in overlays if one in self.model.files and self.model.files[one].disk]
        assert hold or not overlays, settled
        for disk, (old, new) in could_be_right(entry.record).items():
            whole = [path for path in (old, new) if not self.model.lost(disk, path)]
            assert whole, f"nothing has all data of {disk}"
            right[disk] = whole[0]
            upper, lower = (new, old) if entry.record.creates else (old, new)
            takes["active"] &= upper in whole
            takes["base"] &= lower in whole
        take: Take = "active" if takes["active"] else "base"
        settled = settle(self.journal, entry, self._guest(Fate()), Wanted(take=take))
        if takes[take]:
            self._end(entry, settled)
        elif not self.model.definition:  # of each disk another one
            self.start(right)

    def _end(self, entry: Entry, settled: Settled) -> None:
        """The guest is gone; it is started from what `resume` says."""
        if not self.model.definition:
            active = dict(zip(entry.record.disks, settled.active, strict=True))
            self.start(self.before | active | self._by_others())

    def _by_others(self) -> dict[str, str]:
        """What somebody else has put on top; not where this call was about that very file."""
        return {disk: path for disk, path in self.model.foreign.items() if path not in self._own}

    def start(self, active: dict[str, str]) -> None:
        """Start the guest from files that have all data."""
        for disk, path in active.items():
            assert not self.model.lost(disk, path), self.model.lost(disk, path)
        self._has_started(active)

    def _has_started(self, active: dict[str, str]) -> None:
        self.model.start(active)
        self._may_read_now(active)

    def _may_read_now(self, active: dict[str, str]) -> None:
        """What the guest reads is what it had."""
        for disk in active:
            for cluster in range(CLUSTERS):
                self.model.possible[disk, cluster] = [self.model.read(disk, cluster)]

    def _entries(self) -> tuple[Entry, ...]:
        with self.journal.opened() as store:
            return store.entries()

    def _known(self) -> dict[str, str]:
        """What `log` says of the operations of this call."""
        found: dict[str, str] = {}
        for one in self._entries():
            end = one.conclusion
            if end is not None and end.active and one.record.id not in self._ended:
                found |= dict(zip(one.record.disks, end.active, strict=True))
        return found

    def _plugged_again(self, how: Then, entry: Entry) -> None:
        """Before anything is settled, in the same QEMU."""
        if self.model.jobs or any(FOREIGN in path for path in self.model.active.values()):
            return
        self.model.flush()
        active = self.model.active
        self.model.plug(active)  # so that all is on the disk
        self.is_plugged = True
        right, stale = self._candidates(entry)
        right, stale = active | right, active | stale
        is_stale = any(map(self.model.lost, stale, stale.values()))
        if how == "plugged stale" and is_stale:
            seen["plugged in with a stale file"] += 1
            self.is_stale, self.model.writes = True, False
            self.model.plug(stale)
        elif how == "plugged":
            seen["plugged in again"] += 1
            self.model.plug(right)
            self._may_read_now(right)
            for disk in right:
                self.model.write(disk)
            self.model.flush()

    def _started_by_somebody(self, how: Then, entry: Entry) -> None:
        """Before anything is settled, from any of the files that could be right."""
        right, stale = self._candidates(entry)
        right, stale = self.before | right, self.before | stale
        is_stale = any(map(self.model.lost, stale, stale.values()))
        if how in ("stale", "written") and is_stale:
            seen["started from a stale file"] += 1
            self.is_stale, self.model.writes = True, False
            self.model.start(stale)
            if how == "written":
                self._is_written_to(entry)
        elif how in ("right", "elsewhere"):
            seen["started by somebody"] += 1
            self._has_started(right)
            for disk in right:  # as a guest does that boots
                self.model.write(disk)
            self.model.flush()
        if how == "elsewhere":
            files = {path: dict(file.disk) for path, file in self.model.files.items()}
            for entry in self.unsettled():
                assert settle(self.journal, entry, None).outcome == "unknown"
            assert files == {path: file.disk for path, file in self.model.files.items()}

    def _candidates(self, entry: Entry) -> tuple[dict[str, str], dict[str, str]]:
        """By disk, a file that has all data, and one that has not, where there is one."""
        right, stale = dict[str, str](), dict[str, str]()
        for disk, paths in could_be_right(entry.record).items():
            if entry.record.kind == "active-commit" and not is_told(entry):
                del paths[1:]  # nothing names the base before the pivot
            whole = [path for path in paths if not self.model.lost(disk, path)]
            assert whole, f"nothing has all data of {disk}"
            right[disk] = self.model.chance.choice(whole)
            lossy = [one for one in paths if one in self.model.files and one not in whole]
            stale[disk] = self.model.chance.choice(lossy or whole)
        return right, stale

    def _is_written_to(self, entry: Entry) -> None:
        """The guest writes to a stale file, and may have ended since: nobody says which is right."""
        self.is_ruined = True
        for disk in entry.record.disks:
            self.model.write(disk)
        self.model.flush()
        if is_told(entry) and self.model.chance.random() < 0.5:
            self.model.crash()
        settled = settle(self.journal, entry, self._guest(Fate()))
        assert settled.outcome == "unknown", settled

    def _forget_all(self, entries: list[Entry]) -> None:
        """The journal is lost, and with it what reverts have kept."""
        seen["journal lost"] += 1
        self.before = {**self.before, **self._known()}  # what has ended was told
        for path in self.journal.path.parent.iterdir():
            path.unlink()
        self.model.kept.clear()
        for entry in entries:
            marked = {one.id for one in beside([str(self.model.folder / "x")])}
            known = self.model.is_running or self.model.definition or self.model.foreign
            if entry.record.id in marked or known:
                continue
            for disk, paths in could_be_right(entry.record).items():  # the files must tell
                whole = [path for path in paths if not self.model.lost(disk, path)]
                assert whole, f"nothing has all data of {disk}, and no marker says so"
                self.before[disk] = whole[0]


def could_be_right(record: Record) -> dict[str, list[str]]:
    """The files that a guest could be started from, by disk: the old one first."""
    if record.creates:
        return {one.disk.disk: [one.disk.layers[0].path, one.overlay] for one in record.creates}
    merge = record.merge
    assert merge is not None
    paths = [merge.disk.layers[0].path, *([merge.written.path] if merge.above is None else [])]
    return {merge.disk.disk: list(dict.fromkeys(paths))}


def open_entries(journal: Journal) -> tuple[Entry, ...]:
    with journal.opened() as store:
        return store.open_entries()
