"""What `orphans` costs on a share of many files and guests, and whether it is right there."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from qmpsnap.guests.census import Answer, who_uses
from qmpsnap.guests.libvirt.census import ask_libvirt
from tests.bench.page import head, row_of, setting
from tests.rig import share as shares

SIZES: Final = ((1250, 62), (2500, 125), (5000, 250), (10_000, 500))
"""Files and guests."""

_TEXT: Final = """\
# Files that nobody uses, on a large share

<!-- Written by `python -m tests.bench shares --write`; run it again instead of changing it. -->

What `qmpsnap orphans` costs on a share as it grows over the years: guests with chains of up to 20 layers, half of them off, known by symbolic links, hard links, folders that are links, volumes of a storage pool and arguments for QEMU; snapshot records and saved memories that name files of their own; and what was left behind, overlays over used files among it (`tests/rig/share.py`). The images are headers without data, and libvirt is a stand-in that answers at once; processes are those of the machine. Wall-clock times, medians of {rounds}, each on a share of its own seed. The goal is that the time for a file does not grow with the number of files.

{setting}

{table}

*Wrong* counts files that somebody uses and that were not found to be used, and files that nobody uses and that were; it is 0, or the run fails.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One size."""

    files: int
    guests: int
    unused: int
    wall_s: float
    wrong: int


def measure(rounds: int) -> Iterator[Row]:
    """Measure each size."""
    for files, guests in SIZES:
        yield _median([_once(files, guests, seed) for seed in range(rounds)])


def _once(files: int, guests: int, seed: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        share = shares.make(Path(folder), files=files, guests=guests, seed=seed)
        before = time.perf_counter()
        asked = who_uses(str(share.folder), lambda real: ask_libvirt(share, "test", real))
        wall_s = time.perf_counter() - before
    found = {os.path.basename(one.path): one for one in asked.files}
    used = {name for name, one in found.items() if one.answer is Answer.USED}
    return Row(
        files=len(found),
        guests=guests,
        unused=len(found) - len(used),
        wall_s=wall_s,
        wrong=len(used ^ share.used),
    )


def _median(rows: list[Row]) -> Row:
    first = rows[0]
    return Row(
        files=first.files,
        guests=first.guests,
        unused=first.unused,
        wall_s=median(row.wall_s for row in rows),
        wrong=sum(row.wrong for row in rows),
    )


def render(rows: list[Row], rounds: int) -> str:
    """The whole page, in Markdown."""
    table = [*head("files", "guests", "nobody uses", "s", "ms a file", "wrong")]
    table += [
        row_of(
            str(row.files),
            str(row.guests),
            str(row.unused),
            f"{row.wall_s:.1f}",
            f"{1000 * row.wall_s / row.files:.2f}",
            str(row.wrong),
        )
        for row in rows
    ]
    return _TEXT.format(
        rounds=rounds,
        setting="\n".join(f"- {line}" for line in setting()),
        table="\n".join(table),
    )
