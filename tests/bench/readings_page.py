"""Readings beside their bare queries, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tests.bench.page import case_cells, head, row_of, setting
from tests.bench.readings import GOAL, Reading

_TEXT: Final = """\
# One reading beside its bare queries

<!-- Written by `python -m tests.bench readings --write`; run it again instead of changing it. -->

What qmpsnap adds to the time of the queries that a reading consists of. *Bare* is the same queries, sent one by one by a client that does not look at the replies: a plain blocking client on the socket, or libvirt-python (with XMLDesc as well) under libvirt. All figures of a row are measured in turns on one guest: wall-clock times in milliseconds, medians of {rounds}; what counts is the ratios. The goal is that a later reading takes at most {goal:g} times as long as its bare queries.

{setting}

## Queries

A reading sends `query-jobs` and `x-debug-query-block-graph` in one round trip, then `query-named-block-nodes`, `query-block` and `query-jobs` in a second one. So it knows how deep the chains are, and whether a stream makes it dangerous to list the nodes, before it lists them. The first reading of a QEMU has two additions: a probe for a flat `query-block` in its first round trip, which QEMU refuses, and a third round trip with `query-name` and one `qom-get` for each device. `query-qmp-schema` is not sent. Under libvirt the third round trip is not needed, and `query-block` is not sent for chains of more than 16 layers.

## Times

*First* is the reading of a new guest object; *own* is the processor time of this process, all threads, in a later reading.

{times}

## How long somebody else waits

The longest wait, in milliseconds, of another monitor that keeps asking for the guest's name: during one bare `query-named-block-nodes`, and during a whole later reading. The guest's requests wait in the same queue.

{stops}
"""


def render(rows: Sequence[Reading], rounds: int) -> str:
    """The whole page, in Markdown."""
    return _TEXT.format(
        rounds=rounds,
        goal=GOAL,
        setting="\n".join(f"- {line}" for line in setting()),
        times="\n".join(_times(rows)),
        stops="\n".join(_stops(rows)),
    )


def _times(rows: Iterable[Reading]) -> Iterator[str]:
    yield from head(
        "road", "layers", "disks", "bare", "later", "own", "first", "later : bare", "first : bare"
    )
    for row in rows:
        yield row_of(
            row.road,
            *case_cells(row.case),
            _ms(row.bare_s),
            _ms(row.later_s),
            _ms(row.own_s),
            _ms(row.first_s),
            f"{row.ratio:.2f}",
            f"{row.first_s / row.bare_s:.2f}",
        )


def _stops(rows: Iterable[Reading]) -> Iterator[str]:
    yield from head("layers", "disks", "bare query for all nodes", "reading", "reading : bare")
    for row in rows:
        if row.stop_s is not None and row.stop_bare_s is not None:
            yield row_of(
                *case_cells(row.case),
                _ms(row.stop_bare_s),
                _ms(row.stop_s),
                f"{row.stop_s / row.stop_bare_s:.2f}",
            )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
