"""Operations beside bare jobs and virsh, freezes and starts, as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tests.bench import freezes, starts
from tests.bench.freezes import Frozen
from tests.bench.measure import Taken
from tests.bench.operations import Row
from tests.bench.page import head, row_of, setting
from tests.bench.parts import PARTS, READINGS, Spent

_TEXT: Final = """\
# Operations beside the bare block job

<!-- Written by `python -m tests.bench operations --write`; run it again instead of changing it. -->

What qmpsnap adds to the time of the block job itself. Those that are compared take turns on one guest, which is reset in between. The figures are medians of {rounds}, {few} at 256 MiB, in milliseconds of wall-clock time, with the processor time of the caller and of the programs that it starts in square brackets. What counts is the ratios.

{setting}

## The library

A disk of 16 or 256 MiB, all of which is merged. *Bare* is the one command and the wait for its event: by a blocking client on the QMP socket, or by libvirt-python with libvirt's events (`qemu:///embed`, in this process). It checks nothing before or after, and does not flush. *Bare + flush* also flushes what was written. A pull is flushed by a resize to the same size; without it the pulled data can be lost. A direct commit is flushed by an fsync of the base file, because QEMU has the base open read-only again by then and flushes no such node; without it the committed data is in the host's page cache only. The ratio of a pull is to *bare + flush*, all others are to *bare*. qmpsnap makes a new guest object each time.

{library}

### Where the time goes

The same operations on 16 MiB, in milliseconds of wall-clock time: what the guest, the files and the journal were asked for. *The job* is the switch, or the job with its start and end: what the bare command does. *Readings* are the looks at the graph and the state of the guest, with their number; *who uses the files* is the walk over `/proc` and the definitions of other guests; *other acts* make the overlay, flush, mark, dismiss and close; *journal* is SQLite with its syncs. *The rest* is qmpsnap's own work between two of these, and the making and closing of the guest object.

{parts}

## The command

`python -m qmpsnap` beside `virsh`, each a process of its own, with a libvirtd started for this measurement; 16 MiB. qmpsnap's bytecode is compiled beforehand, as after an installation. virsh polls a job every half a second, unless the job has ended before the first poll.

{command}

## How long a guest is frozen

Snapshots of several disks with `--quiesce`: the time from freeze to thaw as seen by an agent that answers at once, beside the bare transaction for the same number of disks. The goal is {freeze_goal:g} times.

{freezes}

## Starting

{starts}
"""


def render(
    rows: Sequence[Row],
    spent: Iterable[Spent],
    frozen: Sequence[Frozen],
    started: Mapping[str, Taken],
    rounds: int,
    few: int,
) -> str:
    """The whole page, in Markdown."""
    return _TEXT.format(
        rounds=rounds,
        few=few,
        setting="\n".join(f"- {line}" for line in setting()),
        library="\n".join(_library(row for row in rows if row.ours == "library")),
        parts="\n".join(_parts(spent)),
        command="\n".join(_command(row for row in rows if row.ours == "command")),
        freeze_goal=freezes.GOAL,
        freezes="\n".join(_freezes(frozen)),
        starts="\n".join(_starts(started)),
    )


def _library(rows: Iterable[Row]) -> Iterator[str]:
    yield from head("road", "MiB", "operation", "bare", "bare + flush", "qmpsnap", "ratio", "goal")
    for row in rows:
        flushed = row.taken.get("bare + flush")
        yield row_of(
            row.road,
            str(row.mib),
            row.operation,
            _both(row.taken["bare"]),
            "" if flushed is None else _both(flushed),
            _both(row.taken["library"]),
            f"{row.ratio:.2f}",
            "" if row.goal is None else f"{row.goal:g}",
        )


def _parts(rows: Iterable[Spent]) -> Iterator[str]:
    yield from head("road", "operation", "all", *PARTS, "the rest")
    for row in rows:
        known = [_ms(row.parts_s[part]) for part in PARTS]
        known[PARTS.index(READINGS)] += f" ({row.readings})"
        rest = row.all_s - sum(row.parts_s.values())
        yield row_of(row.road, row.operation, _ms(row.all_s), *known, _ms(rest))


def _command(rows: Iterable[Row]) -> Iterator[str]:
    yield from head("operation", "virsh", "qmpsnap", "ratio", "goal")
    for row in rows:
        yield row_of(
            row.operation,
            _both(row.taken["virsh"]),
            _both(row.taken["command"]),
            f"{row.ratio:.2f}",
            "" if row.goal is None else f"{row.goal:g}",
        )


def _freezes(rows: Iterable[Frozen]) -> Iterator[str]:
    yield from head("disks", "transaction", "frozen", "ratio")
    for row in rows:
        yield row_of(str(row.disks), _ms(row.transaction_s), _ms(row.frozen_s), f"{row.ratio:.2f}")


def _starts(started: Mapping[str, Taken]) -> Iterator[str]:
    yield from head("what", "time", "ratio", "goal")
    bare = started[starts.BARE].wall_s
    for name, taken in started.items():
        goal = starts.GOALS.get(name)
        yield row_of(
            f"`{name}`",
            _ms(taken.wall_s),
            f"{taken.wall_s / bare:.1f}",
            "" if goal is None else f"{goal:g}",
        )


def _both(taken: Taken) -> str:
    return f"{_ms(taken.wall_s)} [{_ms(taken.own_s)}]"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
