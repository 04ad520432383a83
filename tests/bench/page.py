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
from tests.bench.under_libvirt import UnderLibvirt

FIRST_GRAPH: Final = 6
"""query-jobs, query-named-block-nodes, x-debug-query-block-graph, query-qmp-schema, query-block,
query-jobs."""
GRAPH: Final = FIRST_GRAPH - 1
AGAIN: Final = GRAPH + 2
"""And query-jobs, for jobs of our own that have ended, and query-name."""

_TEXT: Final = """\
# Benchmarks

<!-- Written by `python -m tests.bench --write`; run it again instead of changing it. -->

What one reading of a guest costs, beside what else can be asked about a chain. Absolute times are those of one small machine that had other work to do; what counts is the ratios, and how a column grows.

{setting}

## Round trips

The number of queries in one reading of the graph depends on neither the depth nor the number of disks: {first_graph} for the first one of a connection, which asks for the schema, and {graph} for each later one. On the direct road a whole reading (`DirectHost.read()`: what `qmpsnap chain` and every operation do) is {again} queries. Only the first one of a connection adds to that the schema and **one `qom-get` for each device**, which asks for its serial number; they are kept. So a single `qmpsnap --qmp … chain` sends {first_formula} queries for D disks. QEMU tells all serial numbers at once from 10.1 on (`qom-list-get`), which is not used yet. Under libvirt the XML has them, and for a chain of more than 16 layers `query-block` is not asked, because its reply nests.

While a job runs, QEMU 10.1 and later are asked for one thing more (which nodes it works on), and every QEMU for the state of a stream. A reading during which the graph changes is made again, up to ten times.

## On QEMU's own socket

Times in milliseconds, medians of {rounds} readings that were taken in turns. The readings and *qemu-img* are by the clock on the wall. *QEMU*, *wire* (qemu.qmp, and JSON) and *own* (qmpsnap's work with the replies, and the headers on disk) are the processor time of a later reading, which bears other work on the machine; the last column compares processor times. A case has two nodes for each layer of each disk. *relative*: the headers name the layer below without its folder, as Cinder writes them.

{direct}

## Under libvirt

The same chains under `qemu:///embed`, through passthrough. *graph*: `Reader.read()`; *reading*: `LibvirtHost.read()`, with XML, graph and headers. *QEMU* and *own* are processor time, the others by the clock.

{libvirt}

## What they show

- Round trips are constant. qmpsnap's own work grows with the number of nodes, and no faster: beside a fixed part, a node costs about the same in one disk of 200 layers and in 32 disks of eight.
- **Waiting is not linear in the depth, because QEMU is not.** The one query that tells drivers (`query-named-block-nodes`, flat) makes QEMU work out each node's file name anew from everything below it (`bdrv_refresh_filename()`, block.c), and `query-block` does the same: the reply grows linearly, the time with the square of the depth. Over disks it is linear.
- **Relative names in the headers make that worse.** Where every node is given by name, as libvirt and the tests do it, QEMU does not take a relative name in a header for the node that is really below, and writes the rest of the chain as one `json:` name into each node's. The reply then grows with the square of the depth, and the time about with its cube. All of it runs in QEMU's main loop, where the guest's requests wait as well. Keep chains short.
- `qemu-img info --backing-chain` starts one process for each disk and opens every file again, as the headers say and not as the guest has them; XMLDesc is libvirt's memory, and asks QEMU nothing. Neither tells how QEMU has the files open.
"""


def render(direct: Sequence[Direct], libvirt: Sequence[UnderLibvirt], rounds: int) -> str:
    """The whole page, in Markdown."""
    return _TEXT.format(
        setting="\n".join(f"- {line}" for line in _setting()),
        first_graph=FIRST_GRAPH,
        graph=GRAPH,
        again=AGAIN,
        first_formula=f"{AGAIN + 1} + D",
        rounds=rounds,
        direct="\n".join(_direct(direct)),
        libvirt="\n".join(_libvirt(libvirt)),
    )


def broken_promises(direct: Iterable[Direct], libvirt: Iterable[UnderLibvirt]) -> list[str]:
    """What is not as the page says."""
    wrong = []
    for row in direct:
        found = [row.first_graph.trips, row.graph.trips, row.first.trips, row.again.trips]
        if found != [FIRST_GRAPH, GRAPH, AGAIN + 1 + row.case.disks, AGAIN]:
            wrong.append(f"{row.case}: {found} round trips on the socket")
    for under in libvirt:
        found = [under.first_graph.trips, under.graph.trips]
        less = 0 if under.nested_ok else 1
        if found != [FIRST_GRAPH - less, GRAPH - less]:
            wrong.append(f"{under.case}: {found} round trips through libvirt")
    return wrong


def _setting() -> Iterator[str]:
    libvirt = libvirt_module()
    number = libvirt.getVersion()
    dotted = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    yield f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, libvirt {dotted}"
    for program in ("qemu-system-x86_64", "qemu-img"):
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"version ([\d.]+)", said.stdout)
        yield f"{program} {version[1] if version else said.stdout}"
    yield f"{os.cpu_count()} CPUs, {platform.machine()}, Linux; guests without KVM, paused"


def _direct(rows: Iterable[Direct]) -> Iterator[str]:
    yield from _head(
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
        yield _row(
            *_names(row.case),
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
    yield from _head(
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
        yield _row(
            *_names(row.case),
            f"{row.first_graph.trips} / {row.graph.trips}",
            _ms(row.graph.seconds),
            _ms(row.read.seconds),
            _ms(row.read.others_s),
            _ms(row.read.own_s),
            f"{row.xml_desc.seconds * 1000:.2f}",
            f"{row.read.seconds / row.xml_desc.seconds:.0f}",
        )


def _names(case: Case) -> tuple[str, str]:
    return f"{case.layers}{', relative' if case.relative else ''}", str(case.disks)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield "|" + "---:|" * len(names)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
