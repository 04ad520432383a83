"""Readings beside their bare queries, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tests.bench.page import case_cells, head, row_of, setting
from tests.bench.readings import GOAL, Reading

_TEXT: Final = """\
# One reading beside its bare queries

<!-- Written by `python -m tests.bench readings --write`; run it again instead of changing it. -->

What qmpsnap adds to the queries that a reading is made of. *Bare* are the same queries, sent one by one by a client that looks at none of the replies: on the socket a plain blocking one, under libvirt libvirt-python, with XMLDesc. All figures of a row are taken in turns on one guest, in milliseconds by the clock, medians of {rounds}; what counts is the ratios. The goal is a later reading in {goal:g} times its bare queries.

{setting}

## Queries

A reading sends `query-jobs` and `x-debug-query-block-graph` in one hop, then `query-named-block-nodes`, `query-block` and `query-jobs` in a second one: how deep the chains are, and whether a stream makes it dangerous to list the nodes, is known before they are listed. The first reading of a QEMU has a probe for a flat `query-block` in its first hop, which is refused, and a third hop: `query-name`, and one `qom-get` for each device. `query-qmp-schema` is not asked. Under libvirt the third hop is not needed, and with more than 16 layers `query-block` is not asked.

## Times

*First* is the reading of a new guest object, *own* the processor time of this process in a later one, all threads.

{times}

## How long somebody else waits

The longest wait, in milliseconds, of another monitor that asks for the guest's name all the time: during one bare `query-named-block-nodes`, and during a whole later reading. In the same queue waits the guest.

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
