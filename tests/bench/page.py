"""The figures as a page, and what must hold in them."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from qmpsnap.monitor.virt import libvirt_module
from tests.bench.direct import Direct
from tests.bench.measure import Case
from tests.bench.stalls import QUERIES, Stalls
from tests.bench.under_libvirt import UnderLibvirt

FIRST_GRAPH: Final = 6
"""query-jobs, x-debug-query-block-graph, a probe of query-block, query-named-block-nodes,
query-block, query-jobs."""
FAR: Final = 4.0
"""How many times the estimate may be off, where there is enough to measure."""
_NODES: Final = "query-named-block-nodes"
_MEASURABLE_S: Final = 0.02
GRAPH: Final = FIRST_GRAPH - 1
FIRST: Final = FIRST_GRAPH + 1
"""And query-name; the serial numbers come on top."""

_TEXT: Final = """\
# Benchmarks

<!-- Written by `python -m tests.bench --write`; run it again instead of changing it. -->

What it costs to read a guest once, compared with other ways to ask about a chain. Absolute times are from one small machine that had other work to do; what counts is the ratios, and how a column grows.

{setting}

## Round trips

The number of queries in one reading of the graph depends on neither the depth nor the number of disks: {first_graph} for the first one of a QEMU, one of which probes what that QEMU can do, and {graph} for each later one. They are always sent in two round trips. On the direct road the first reading of a connection adds a round trip for the guest's name and the serial numbers, which are then kept: one `qom-list-get` for all devices from QEMU 10.1 on (one `qom-get` where there is only one), and **one `qom-get` for each device** on an older QEMU, which has no other way. So a single `qmpsnap --qmp … chain` sends {first_formula} queries for D disks (one more where there are several and `qom-list-get` is tried), {first_at_once} from QEMU 10.1 on, and one less where the same QEMU was probed before. Under libvirt the XML has the serial numbers, and for a chain of more than 16 layers `query-block` is not asked, because its reply nests.

While a stream runs, one more query asks for its state. When the graph changes during a reading, the reading is repeated, up to ten times in all. A reading that would stop the guest for longer than `--max-stall` ends after the edges: two queries, or three with the probe.

## On QEMU's own socket

Times in milliseconds, medians of {rounds} readings, taken in turns. *First reading*, *later reading* and *qemu-img* are wall-clock times. *QEMU*, *wire* (qemu.qmp and JSON) and *own* (qmpsnap's work on the replies and on the headers on disk) are the processor time of a later reading, which is hardly affected by other work on the machine. The last column compares processor times. Each layer of each disk has two nodes. *relative*: the headers name the layer below without its folder, as Cinder writes them.

{direct}

## Under libvirt

The same chains under `qemu:///embed`, through passthrough. *graph* is `Reader.read()`; *reading* is `LibvirtGuest.read()`, which reads the XML, the graph and the headers. *QEMU* and *own* are processor times, the others wall-clock times.

{libvirt}

## How long each query stops the guest

Processor time of QEMU's main thread in milliseconds, medians of {rounds}. While a query runs, that thread does nothing else. The guest has one disk. Each layer has two nodes, both created explicitly with a node name, as libvirt does it. *relative* as above. *estimate* is what `graph/stall.py` computes from the edges before `query-named-block-nodes` is sent.

{stalls}

The same on other versions, measured by hand, once each (2026-11-23, the same machine): `query-named-block-nodes`, with `x-debug-query-block-graph` in brackets.

| layers | QEMU 5.2 | QEMU 10.0 | QEMU 11.1 |
|---:|---:|---:|---:|
| 64 | 12 (1.8) | 11 (1.9) | 10 (2.0) |
| 100 | 37 (3.2) | 24 (1.9) | 24 (2.7) |
| 200 | 113 (6.0) | 98 (5.1) | 92 (5.7) |
| 32, relative | 45 (1.3) | 21 (0.7) | 18 (0.9) |
| 64, relative | 295 (2.3) | 133 (1.5) | 114 (1.8) |
| 100, relative | 1090 (2.6) | 444 (2.1) | 434 (2.8) |
| 150, relative | 3430 (5.4) | 1440 (2.7) | 1500 (5.9) |
| 200, relative | 8760 (6.8) | 3530 (4.2) | 3470 (5.5) |

`query-block` takes half as long on all of them. QEMU 11.1's flat `query-block` took 1 ms, and 90 ms with 200 relative names. With `-drive file=…` QEMU opens the backing files by the names in the headers, so it knows that a relative name is right: such a chain costs no more than one with absolute names.

## What they show

- The number of round trips is constant. qmpsnap's own work grows linearly with the number of nodes: apart from a fixed part, a node costs about the same in one disk of 200 layers as in 32 disks of eight layers.
- **Waiting is not linear in the depth, because QEMU is not.** The one query that tells the drivers (`query-named-block-nodes`, flat) makes QEMU compute each node's file name again from everything below it (`bdrv_refresh_filename()`, block.c), and `query-block` does the same: the reply grows linearly with the depth, the time with its square. Both grow linearly with the number of disks.
- **Relative names in the headers make that worse.** Where every node is created explicitly, as libvirt and the tests do it, QEMU does not recognise a relative name in a header as the node that is really below, and describes the rest of the chain as a `json:` name inside each node's file name. The reply then grows with the square of the depth, and the time with about its cube. All of this runs in QEMU's main loop, where the guest's requests wait as well. So a reading asks for the edges first, which is fast on every version, and [stops there](../explanation/formats.md#deep-chains) if the rest would take too long. Keep chains short.
- `qemu-img info --backing-chain` starts one process for each disk and opens every file again, as the headers say and not as the guest has them open. XMLDesc comes from libvirt's memory and asks QEMU nothing. Neither tells how QEMU has the files open.
"""


def render(
    direct: Sequence[Direct],
    libvirt: Sequence[UnderLibvirt],
    stalls: Sequence[Stalls],
    rounds: int,
) -> str:
    """The whole page, in Markdown."""
    return _TEXT.format(
        setting="\n".join(f"- {line}" for line in setting()),
        first_graph=FIRST_GRAPH,
        graph=GRAPH,
        first_formula=f"{FIRST} + D",
        first_at_once=FIRST + 1,
        rounds=rounds,
        direct="\n".join(_direct(direct)),
        libvirt="\n".join(_libvirt(libvirt)),
        stalls="\n".join(_stalls(stalls)),
    )


def broken_promises(
    direct: Iterable[Direct], libvirt: Iterable[UnderLibvirt], stalls: Iterable[Stalls]
) -> list[str]:
    """What is not as the page says."""
    wrong = []
    for row in direct:
        found = [row.first_graph.trips, row.graph.trips, row.first.trips, row.again.trips]
        disks = row.case.disks
        serials = 1 if row.serials_at_once or disks == 1 else disks + 1
        if found != [FIRST_GRAPH, GRAPH, FIRST + serials, GRAPH]:
            wrong.append(f"{row.case}: {found} round trips on the socket")
    for under in libvirt:
        found = [under.first_graph.trips, under.graph.trips]
        less = 0 if under.nested_ok else 1
        if found != [FIRST_GRAPH - less, GRAPH - less]:
            wrong.append(f"{under.case}: {found} round trips through libvirt")
    for one in stalls:
        took = one.by_query[_NODES]
        if took > _MEASURABLE_S and not 1 / FAR < one.expected_s / took < FAR:
            wrong.append(f"{one.layers} layers: {took:.3f} s, estimated {one.expected_s:.3f} s")
    return wrong


def setting() -> Iterator[str]:
    libvirt = libvirt_module()
    number = libvirt.getVersion()
    dotted = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    yield f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, libvirt {dotted}"
    for program in ("qemu-system-x86_64", "qemu-img"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"version ([\d.]+)", said.stdout)
        yield f"{program} {version[1] if version else said.stdout}"
    beside = ", before all other work (`chrt --rr 3`)" if os.sched_getscheduler(0) else ""
    yield f"{os.cpu_count()} CPUs, {platform.machine()}, Linux{beside}; guests without KVM, paused"


def _direct(rows: Iterable[Direct]) -> Iterator[str]:
    yield from head(
        "layers",
        "disks",
        "queries, first / later",
        "largest reply",
        "first reading",
        "later reading",
        "QEMU",
        "wire",
        "own",
        "own a node",
        "qemu-img",
        "its processor time",
        "reading : qemu-img",
    )
    for row in rows:
        read, img = row.again, row.qemu_img
        yield row_of(
            *case_cells(row.case),
            f"{row.first.trips} / {read.trips}",
            f"{row.largest / 1024:.0f} KiB",
            _ms(row.first.seconds),
            _ms(read.seconds),
            _ms(read.others_s),
            _ms(read.wire_s),
            _ms(read.own_s),
            f"{read.own_s / row.case.nodes * 1e6:.0f} µs",
            _ms(img.seconds),
            _ms(img.others_s),
            f"{(read.others_s + read.wire_s + read.own_s) / img.others_s:.2f}",
        )


def _libvirt(rows: Iterable[UnderLibvirt]) -> Iterator[str]:
    yield from head(
        "layers",
        "disks",
        "queries, first / later",
        "graph",
        "reading",
        "QEMU",
        "own",
        "XMLDesc",
        "reading : XMLDesc",
    )
    for row in rows:
        yield row_of(
            *case_cells(row.case),
            f"{row.first_graph.trips} / {row.graph.trips}",
            _ms(row.graph.seconds),
            _ms(row.read.seconds),
            _ms(row.read.others_s),
            _ms(row.read.own_s),
            f"{row.xml_desc.seconds * 1000:.2f}",
            f"{row.read.seconds / row.xml_desc.seconds:.0f}",
        )


def _stalls(rows: Iterable[Stalls]) -> Iterator[str]:
    yield from head("layers", *(f"`{query}`" for query in QUERIES), "estimate")
    for row in rows:
        yield row_of(
            f"{row.layers}{', relative' if row.relative else ''}",
            *(_ms(row.by_query[query]) for query in QUERIES),
            _ms(row.expected_s),
        )


def case_cells(case: Case) -> tuple[str, str]:
    return f"{case.layers}{', relative' if case.relative else ''}", str(case.disks)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def head(*names: str) -> Iterator[str]:
    yield row_of(*names)
    yield "|" + "---:|" * len(names)


def row_of(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
