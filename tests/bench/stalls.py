"""How long each query that a reading may send holds up QEMU's main loop, by depth."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from qmpsnap.graph.debug_graph import debug_graph_from
from qmpsnap.graph.stall import Stall, stall_of
from qmpsnap.monitor.socket import SocketMonitor
from tests.bench.measure import processor_s
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.disks import qcow2_chain

DEPTHS: Final = (10, 32, 64, 100, 150, 200)
QUERIES: Final[Mapping[str, Mapping[str, object]]] = {
    "x-debug-query-block-graph": {},
    "query-blockstats": {},
    "query-block": {},
    "query-named-block-nodes": {"flat": True},
}
_LIMIT_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """One row: seconds on a processor of QEMU's main thread."""

    layers: int
    relative: bool
    by_query: Mapping[str, float]
    estimate: Stall

    @property
    def expected_s(self) -> float:
        """What the reader would say of `query-named-block-nodes`."""
        return self.estimate.nested_s if self.relative else self.estimate.plain_s


def measure(folder: Path, layers: int, rounds: int, *, relative: bool) -> Stalls:
    """Ask a guest with one disk each query in turns."""
    with TemporaryDirectory(dir=folder) as share:
        chain = make_chain(Path(share), "volume", layers, relative=relative)
        with (
            qemu_machine.run([qcow2_chain(chain, "disk")], directory=share) as guest,
            closing(SocketMonitor.connect(guest.qmp_path)) as monitor,
        ):
            spent: dict[str, list[float]] = {}
            for _ in range(rounds):
                for query, arguments in QUERIES.items():
                    before = processor_s(guest.pid, main_only=True)
                    monitor.execute(query, arguments, timeout=_LIMIT_S)
                    after = processor_s(guest.pid, main_only=True)
                    spent.setdefault(query, []).append(after - before)
            edges = debug_graph_from(monitor.execute("x-debug-query-block-graph")).edges
    return Stalls(
        layers=layers,
        relative=relative,
        by_query={query: statistics.median(times) for query, times in spent.items()},
        estimate=stall_of(edges),
    )
