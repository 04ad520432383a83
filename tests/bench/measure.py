"""Cases, costs and medians."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.rig.counting import Counting


@dataclass(frozen=True, slots=True)
class Case:
    """So many disks, each a chain of so many layers."""

    layers: int
    disks: int
    relative: bool = False
    """Headers name the layer below without its folder, as Cinder writes them."""

    @property
    def nodes(self) -> int:
        """Format node and protocol node of each layer."""
        return 2 * self.layers * self.disks


CASES: Final = (
    *(Case(layers, 1) for layers in (1, 2, 8, 32, 64, 128, 200)),
    *(Case(8, disks) for disks in (4, 16, 32)),
    *(Case(layers, 1, relative=True) for layers in (8, 16, 32, 64)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one thing costs, once. Processor times: they bear a machine that has other work."""

    seconds: float
    """By the clock on the wall."""
    own_s: float
    """The caller's thread: qmpsnap's own work."""
    wire_s: float
    """The process's other threads: qemu.qmp or libvirt, and JSON."""
    others_s: float
    """QEMU, or the programs that were started."""
    trips: int


def cost(
    work: Callable[[], object], monitor: Counting | None = None, qemu: int | None = None
) -> Cost:
    """
    Do it once, and tell what it cost.

    Args:
        work: What is measured.
        monitor: The one that it goes through; None where nothing is counted.
        qemu: Process whose time counts; None for the programs that are started.
    """

    def now() -> tuple[float, ...]:
        clocks = (time.perf_counter(), time.thread_time(), time.process_time())
        return (*clocks, processor_s(qemu), monitor.trips if monitor else 0)

    before = now()
    work()
    wall, own, all_threads, others, trips = (b - a for a, b in zip(before, now(), strict=True))
    return Cost(
        seconds=wall, own_s=own, wire_s=all_threads - own, others_s=others, trips=round(trips)
    )


def processor_s(process: int | None, *, main_only: bool = False) -> float:
    """
    Seconds on a processor until now.

    Args:
        process: Whose; None for the programs that were started and have ended.
        main_only: Its first thread alone, which is QEMU's main loop.
    """
    if process is None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime
    # Nanoseconds on a processor; stat has hundredths of a second only.
    tasks = Path(f"/proc/{process}/task")
    threads = [tasks / str(process)] if main_only else tasks.iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


def median(costs: list[Cost]) -> Cost:
    """The middle of each figure; the number of round trips must be one and the same."""
    (trips,) = {one.trips for one in costs}
    return Cost(
        seconds=statistics.median(one.seconds for one in costs),
        own_s=statistics.median(one.own_s for one in costs),
        wire_s=statistics.median(one.wire_s for one in costs),
        others_s=statistics.median(one.others_s for one in costs),
        trips=trips,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What somebody needed for the same thing, several times: medians, in seconds."""

    wall_s: float
    own_s: float
    """On a processor: this process and the programs that it started, and not QEMU."""


def nothing() -> None:
    """Before or after what needs none of it."""


def in_turns(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    before: Callable[[], object] = nothing,
    after: Callable[[], object] = nothing,
) -> dict[str, Taken]:
    """
    Let several do the same thing, one after the other; who begins changes from round to round.

    Args:
        works: What each does, by name.
        rounds: How often each does it, after once for nothing.
        before: Done before each; does not count.
        after: Done after each; does not count.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    order = list(works)
    for number in range(-1, rounds):
        turn = number % len(order)
        for name in (*order[turn:], *order[:turn]):
            before()
            begun = _clocks()
            works[name]()
            ended = _clocks()
            after()
            if number >= 0:
                spent[name].append((ended[0] - begun[0], ended[1] - begun[1]))
    return {
        name: Taken(
            wall_s=statistics.median(wall for wall, _ in times),
            own_s=statistics.median(own for _, own in times),
        )
        for name, times in spent.items()
    }


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time() + processor_s(None)
