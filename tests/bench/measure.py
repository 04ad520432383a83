"""Cases, costs and medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.support.counting import Counting


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What one thing costs, once."""

    seconds: float
    waited_s: float = 0.0
    """Of these: until replies were there. The rest is qmpsnap's own work."""
    trips: int = 0


def cost(work: Callable[[], object], monitor: Counting | None = None) -> Cost:
    """Do it once, and tell what it cost."""
    trips, waited = (monitor.trips, monitor.waited_s) if monitor else (0, 0.0)
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    if monitor is None:
        return Cost(seconds)
    return Cost(seconds, monitor.waited_s - waited, monitor.trips - trips)


def median(costs: list[Cost]) -> Cost:
    """The middle of each figure; the number of round trips must be one and the same."""
    (trips,) = {one.trips for one in costs}
    return Cost(
        statistics.median(one.seconds for one in costs),
        statistics.median(one.waited_s for one in costs),
        trips,
    )
