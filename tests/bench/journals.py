"""
What the journal and the markers cost an operation, beside a bare fsync of the same disk.

Three do the same in turns: without a journal, with one, and with one and the markers. An act is to
cost one sync: the intent, with which the answer of the act before is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.demo.embed import embedded_connection
from qmpsnap.guests.files import door
from qmpsnap.journal.door import Recorder
from qmpsnap.journal.file import Journal
from tests.bench.measure import Taken, in_turns
from tests.bench.operations import OPERATIONS, Bed, Operation, direct, libvirt
from tests.bench.page import head, row_of, setting

_MIB: Final = 16
_BLOCK: Final = bytes(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation."""

    road: str
    operation: Operation
    without: Taken
    journal: Taken
    """With the journal, without markers."""
    whole: Taken
    fsync: Taken
    """Of 4 KiB behind the end of a file in the state folder."""
    acts: int
    marks: int
    """Markers that are written or removed: a sync of the folder each, and one of what is written."""

    @property
    def allowed_s(self) -> float:
        """What it may take with the journal."""
        return self.without.wall_s + self.acts * self.fsync.wall_s

    @property
    def ratio(self) -> float:
        """What it takes for what it may take."""
        return self.journal.wall_s / self.allowed_s


def measure(folder: Path, rounds: int) -> Iterator[Row]:
    """
    All operations on both roads.

    Args:
        folder: For images, libvirt's own files and the journal: one disk.
        rounds: How often each does each.
    """
    with direct(folder, _MIB) as bed:
        yield from _rows(bed, folder / "direct", rounds)
    with (
        embedded_connection(folder / "libvirt") as connection,
        libvirt(connection, folder, _MIB) as bed,
    ):
        yield from _rows(bed, folder / "state", rounds)


def _rows(bed: Bed, state: Path, rounds: int) -> Iterator[Row]:
    state.mkdir(mode=0o700)
    journal = Journal(state)
    for what in OPERATIONS:
        taken = in_turns(
            {
                "without": partial(bed.by_library, what, None),
                "journal": _unmarked(partial(bed.by_library, what, journal)),
                "whole": partial(bed.by_library, what, journal),
                "fsync": partial(_fsync, state / "file"),
            },
            rounds,
            before=partial(bed.build, what),
            after=bed.clear,
        )
        bed.build(what)
        with _counted() as marks:
            bed.by_library(what, journal)
        with journal.opened() as store:
            whole = store.entry(store.entries()[-1].record.id)
        assert whole is not None
        bed.clear()
        yield Row(
            road=bed.road,
            operation=what,
            **taken,  # by the names of the works
            acts=len(whole.acts),
            marks=len(marks),
        )


def _fsync(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(_BLOCK)
        os.fsync(file.fileno())


def _unmarked(work: Callable[[], object]) -> Callable[[], object]:
    def without() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Recorder, "_mark", lambda _recorder: None)
            patch.setattr(Recorder, "unmark", lambda _recorder: None)
            work()

    return without


@contextmanager
def _counted() -> Iterator[list[str]]:
    """The markers that are written and removed in the length of a block."""
    found: list[str] = []

    def counted(name: str) -> None:
        real = getattr(door, name)

        def called(*arguments: object) -> object:
            found.append(name)
            return real(*arguments)

        patch.setattr(door, name, called)

    with pytest.MonkeyPatch.context() as patch:
        counted("write_marker")
        counted("remove_marker")
        yield found


_TEXT: Final = """\
# The journal beside a bare fsync

<!-- Written by `python -m tests.bench journal --write`; run it again instead of changing it. -->

What it costs that an operation is written down. Three do the same on one guest in turns: without a journal, with one, and with one and the markers beside the images. Medians of {rounds}, in milliseconds of wall-clock time; all files are on one disk of {mib} MiB images. *fsync* is that of 4 KiB behind the end of a file beside the journal. With the journal an operation is to take at most what it takes without, and one fsync for each of its acts: *ratio* is what it takes for that. What is beyond that comes once an operation, not once an act: the database is opened, checked and closed, the conclusion is synced, and files are looked at (4 ms of processor time; Python before 3.12 syncs twice more at the end). A marker that is written or removed is synced with its folder; these are counted apart. What counts is the ratio: absolute times are from a small machine, and a disk with other users is slow now and then.

{setting}

{rows}
"""


def render(rows: Sequence[Row], rounds: int) -> str:
    """The whole page, in Markdown."""
    lines = [
        *head(
            *("road", "operation", "without", "journal", "acts", "fsync", "ratio"),
            *("with markers", "markers"),
        ),
        *(
            row_of(
                row.road,
                row.operation,
                _ms(row.without.wall_s),
                _ms(row.journal.wall_s),
                str(row.acts),
                _ms(row.fsync.wall_s),
                f"{row.ratio:.2f}",
                _ms(row.whole.wall_s),
                str(row.marks),
            )
            for row in rows
        ),
    ]
    return _TEXT.format(
        rounds=rounds,
        mib=_MIB,
        setting="\n".join(f"- {line}" for line in setting()),
        rows="\n".join(lines),
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
