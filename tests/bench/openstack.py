"""
Snapshots of attached volumes end to end, ours against stock: real Cinder, Nova's driver, QEMU.

All rigs are up at the same time and take turns, so that they see the same machine. The rows are read
from Cinder's database, which disturbs it less than its API would.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from tests.bench.page import setting
from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.rig import Rig, down, up
from tests.openstack.rig.waiting import read_until

SIZES: Final = (1, 16, 256)
"""MiB that are merged."""
AT_ONCE: Final = 20
PAIRINGS: Final = (pairings.STOCK, pairings.OUR_NOVA, pairings.OURS)
_PROGRAM: Final = re.compile(r'CMD ".*" returned: \S+ in ([0-9.]+)s')
_HEARD: Final = re.compile(
    r'^(\S+ \S+) .*"POST [^"]*/snapshots/([-0-9a-f]+)/action [^"]*" status: 202', re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One operation, or many at once, in one rig."""

    wall_s: float
    """From the request to Cinder until the snapshot is there, or gone."""
    told_s: float
    """From the call in nova-compute until Cinder has accepted its update."""
    compute_s: float
    """On a processor: nova-compute's part, and the programs that it starts."""
    cinder_s: float
    """The same of Cinder's API, scheduler and volume service."""
    programs_s: float
    """By the clock: what Cinder's own programs took, by its log."""


def measure(rounds: int) -> dict[str, Any]:
    """
    Measure everything, some minutes long.

    Returns:
        What fixtures/benchmarks-openstack.json holds.

    Raises:
        AssertionError: An operation did not end as it should.
    """
    began = os.getloadavg()[0]
    taken: dict[tuple[str, int, str], list[Taken]] = {}
    with ExitStack() as ends:
        rigs = dict(_started(ends))
        for _ in range(rounds):
            for mib in SIZES:
                for name, rig in rigs.items():
                    for what, one in (*_committed(rig, mib), *_pulled(rig, mib)):
                        size = 0 if what == "create" else mib
                        taken.setdefault((what, size, name), []).append(one)
        for name, rig in rigs.items():
            for what, one in _many(rig):
                taken[what, 1, name] = [one]
    return {
        "setting": [*_setting(), *_versions(), _load(began)],
        "rounds": rounds,
        "at_once": AT_ONCE,
        "rows": [
            {"what": what, "mib": mib, "pairing": name, "times": len(all_), **asdict(_middle(all_))}
            for (what, mib, name), all_ in taken.items()
        ],
    }


def _started(ends: ExitStack) -> Iterator[tuple[str, Rig]]:
    for pairing in PAIRINGS:
        folder = Path(mkdtemp(prefix="qmpsnap-rig-", dir="/var/tmp"))
        folder.chmod(0o755)
        ends.callback(down, folder)
        rig = up(folder, pairing)
        with attached(rig) as guest:  # what is done for the first time does not count
            _delete(rig, _create(rig, guest)[0])
        yield pairing.name, rig


def _setting() -> Iterator[str]:
    """Here the guests run, without a system: they wait for one."""
    yield from (line.replace("KVM, paused", "KVM, and without a system") for line in setting())


def _versions() -> Iterator[str]:
    yield f"Nova {version('nova')}, Cinder {version('cinder')}"


def _load(began: float) -> str:
    """Other work shows in the load; what runs here keeps it at one or two by itself."""
    return f"load average {began:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end"


def _middle(all_: list[Taken]) -> Taken:
    """Medians; means of what is counted in hundredths of a second."""
    return Taken(
        wall_s=round(statistics.median(one.wall_s for one in all_), 4),
        told_s=round(statistics.median(one.told_s for one in all_), 4),
        compute_s=round(statistics.mean(one.compute_s for one in all_), 4),
        cinder_s=round(statistics.mean(one.cinder_s for one in all_), 4),
        programs_s=round(statistics.median(one.programs_s for one in all_), 4),
    )


# --- What is done


def _committed(rig: Rig, mib: int) -> Iterator[tuple[str, Taken]]:
    """Commit what was written between two snapshots into the volume."""
    with attached(rig) as guest:
        first, taken = _create(rig, guest)
        yield "create", taken
        guest.io(f"write -P 7 0 {mib}M")
        _, taken = _create(rig, guest)
        yield "create", taken
        yield "commit", _delete(rig, first)


def _pulled(rig: Rig, mib: int) -> Iterator[tuple[str, Taken]]:
    """Pull what was written between two snapshots into the active file; then all of the volume."""
    with attached(rig) as guest:
        first, taken = _create(rig, guest)
        yield "create", taken
        guest.io(f"write -P 7 0 {mib}M")
        second, taken = _create(rig, guest)
        yield "create", taken
        yield "pull", _delete(rig, second)
        taken = _delete(rig, first)
        if mib == SIZES[0]:
            yield "pull of the volume", taken


def _create(rig: Rig, guest: Guest) -> tuple[str, Taken]:
    made: list[str] = []
    taken = _timed(rig, "create", 1, lambda: made.append(rig.begin_snapshot(guest.volume)), made)
    return made[0], taken


def _delete(rig: Rig, snapshot: str) -> Taken:
    return _timed(rig, "delete", 1, lambda: _asked_to_delete(rig, snapshot), [snapshot])


def _asked_to_delete(rig: Rig, snapshot: str) -> None:
    rig.volumes("DELETE", f"/snapshots/{snapshot}")


def _many(rig: Rig) -> Iterator[tuple[str, Taken]]:
    """The same on many volumes at once: requests one after the other, as fast as the API takes them."""
    with ExitStack() as ends:
        guests = [ends.enter_context(attached(rig)) for _ in range(AT_ONCE)]
        first: list[str] = []

        def create(into: list[str]) -> Callable[[], None]:
            return lambda: into.extend(rig.begin_snapshot(one.volume) for one in guests)

        yield f"create, {AT_ONCE} at once", _timed(rig, "create", AT_ONCE, create(first), first)
        for guest in guests:
            guest.io("write -P 7 0 1M")
        second: list[str] = []
        _timed(rig, "create", AT_ONCE, create(second), second)

        def delete() -> None:
            for one in first:
                _asked_to_delete(rig, one)

        yield f"commit, {AT_ONCE} at once", _timed(rig, "delete", AT_ONCE, delete, first)


# --- How it is measured


def _timed(
    rig: Rig, what: str, calls: int, ask: Callable[[], object], snapshots: list[str]
) -> Taken:
    """Ask for it, and wait until Cinder has concluded it and the calls in nova-compute have ended."""
    log = rig.folder / "log/cinder.log"
    read, before, begun = log.stat().st_size, _processors(rig), time.perf_counter()
    ask()
    _concluded(rig, what, snapshots)
    wall = time.perf_counter() - begun
    ended = [rig.call_ended(what) for _ in range(calls)]
    assert [error for _, _, error in ended] == [None] * calls
    after = _processors(rig)
    with log.open(errors="replace") as file:
        file.seek(read)
        said = file.read()
    heard = [_seconds(at) for at, snapshot in _HEARD.findall(said) if snapshot in snapshots]
    assert len(heard) == calls
    return Taken(
        wall_s=wall,
        told_s=max(heard) - min(at for at, _, _ in ended),
        compute_s=after["compute"] - before["compute"],
        cinder_s=after["cinder"] - before["cinder"],
        programs_s=sum(map(float, _PROGRAM.findall(said))),
    )


def _concluded(rig: Rig, what: str, snapshots: list[str]) -> None:
    """
    Wait until all are available, or gone.

    Raises:
        AssertionError: One has become something else.
    """
    wanted, running = {"create": ("available", "creating"), "delete": (None, "deleting")}[what]
    marks = ", ".join("?" * len(snapshots))
    query = f"select id, status from snapshots where not deleted and id in ({marks})"

    def states() -> set[str | None]:
        found = dict(rig.rows(query, *snapshots))
        return {found.get(one) for one in snapshots}

    became = read_until(
        states, lambda them: running not in them and "available" not in them - {wanted}
    )
    assert became == {wanted}, became


def _seconds(at: str) -> float:
    """oslo.log's time, which is local."""
    return datetime.strptime(at, "%Y-%m-%d %H:%M:%S.%f").astimezone().timestamp()


def _processors(rig: Rig) -> dict[str, float]:
    """Seconds on a processor of each service, with the programs that it has started."""
    return {name: rig.processor_s(name, programs=True) for name in ("cinder", "compute")}
